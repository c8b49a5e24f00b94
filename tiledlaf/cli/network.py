"""The options for networks that give the class probabilities."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from ..errors import InputError


def options(command: Callable[..., int]) -> Callable[..., int]:
    """Add the options for networks, whose output is the class probabilities."""
    for option in (
        click.option(
            "--augment", is_flag=True, help="Average the network over flips and quarter turns."
        ),
        click.option(
            "--network-range",
            metavar="LOW,HIGH",
            help="Intensities that are 0 and 1 for the network (default: as stored).",
        ),
        click.option(
            "--network-output",
            metavar="logits|probabilities",
            help="What the network gives (default: probabilities if it ends with softmax or "
            "sigmoid, else logits).",
        ),
        click.option(
            "--network",
            metavar="FILE",
            help="Network in ONNX that gives the class probabilities; of one channel, those of the "
            "second of two classes.",
        ),
    ):
        command = option(command)
    return command


def probabilities_of(given: Mapping[str, Any]) -> Any:
    """The probabilities that are given, or the network that makes them; None if neither is."""
    path = given["network"]
    settings = ("network_output", "network_range", "augment")
    if path is None:
        for key in settings:
            if given[key]:
                raise InputError(f"`{key}` belongs to `network`")
        return given["probabilities"]
    if given["probabilities"] is not None:
        raise InputError("expected at most one of `probabilities` and `network`")
    from ..model.opening import open_network

    span = given["network_range"]
    return open_network(
        path,
        output=given["network_output"],
        intensities=None if span is None else span.split(","),
        augment=given["augment"],
        device=given["device"],
    )
