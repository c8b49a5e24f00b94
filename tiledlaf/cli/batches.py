"""tiledlaf label --into: many images one after the other."""

from __future__ import annotations

import time as clock
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import click

from ..errors import InputError
from . import objects as object_options
from . import progress, shared

if TYPE_CHECKING:
    from ..labeling.batch import Outcome
    from ..labeling.inputs import Item

APART = (
    "--classes finds the classes of each image in it alone, so that class 1 of one may be class 2 "
    "of another; --model or --prototypes gives all the same"
)


def label_into(given: Mapping[str, Any]) -> int:
    """Label each input into an OME-Zarr of its name in the folder `into`."""
    from ..labeling import batch, inputs
    from ..reports import batches, forecast
    from .label import choice_of

    _refuse(given)
    into, wanted = inputs.folder(given["into"]), object_options.wanted_of(given)
    items, choice = batches.found(given["paths"], into, choice_of(given))
    report = batches.Report(into, given["name"])
    if given["dry_run"]:
        lines, good = forecast.forecast(items, into, choice, wanted.check)
        shared.echo(*map(_worded, lines))
        return 0 if good else 1
    if given["classes"] is not None and len(items) > 1:
        shared.echo(f"tiledlaf: warning: {APART}", err=True)
    count, began = 0, clock.monotonic()

    def follow(item: Item, plan: Any, pool: Any) -> AbstractContextManager[Any]:
        wanted.check(plan, pool)
        title = f"{count + 1}/{len(items)} {inputs.name_of(item.output)}: "
        return progress.labeling_progress(plan, title)

    def after(plan: Any, found: Any, pool: Any) -> Sequence[Any]:
        made = object_options.make(wanted, plan, found, pool)
        shared.echo(*object_options.lines(made), err=True)
        return made

    def told(outcome: Outcome) -> None:
        nonlocal count
        count += 1
        shared.echo(f"{count}/{len(items)} {_worded(batches.line(outcome))}", err=True)
        report.now_and_then()

    with shared.under_way():
        outcomes = batch.run(items, into, choice, follow, after, told, shared.say_where)
        for line in batches.failures(outcomes):
            shared.echo(f"tiledlaf: {_worded(line)}", err=True)
        report.write()
    shared.echo(*batches.summary(outcomes, into, clock.monotonic() - began))
    if all(one.refused for one in outcomes):
        return 2
    return 0 if all(one.complete for one in outcomes) else 1


def _refuse(given: Mapping[str, Any]) -> None:
    """Refuse options that are for one image."""
    if given["export"] is not None:
        raise InputError("`export` names one file: label without it, then export each output")
    if given["into_input"]:
        raise InputError("expected `into` or `into_input`, got both")


def _worded(line: str) -> str:
    """A line with options for keywords."""
    return shared.with_options(line, click.get_current_context().command)
