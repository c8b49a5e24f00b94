"""Objects on the command line: the options that say what they are, and their making."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from . import progress, shared


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options on the objects of a run, which `wanted_of` reads."""
    asked = click.option(
        "--objects",
        multiple=True,
        metavar="CLASS",
        help="Connected components of a class, as labels/NAME-CLASS with a table of measures; "
        "repeatable.",
    )
    return asked(meaning_options(command))


def meaning_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say what an object is."""
    for option in (
        click.option(
            "--fill-holes",
            is_flag=False,
            flag_value="all",
            metavar="[UM2|Npx]",
            help="Fill holes of objects, all or those up to a size.",
        ),
        click.option(
            "--min-size",
            metavar="UM2|Npx",
            help="Leave out smaller objects: square (of volumes, cubic) micrometers, or as 20px.",
        ),
        click.option(
            "--connectivity",
            metavar="face|full",
            help="Neighbors within an object: pixels that share an edge (in volumes, a face), or "
            "also a corner (default: face).",
        ),
    ):
        command = option(command)
    return command


def filled(given: str | None) -> Any:
    """The holes to fill, as `Finding` takes them."""
    return given is not None if given in (None, "all") else given


def wanted_of(given: Mapping[str, Any]) -> Any:
    """The objects that the options ask for."""
    from ..results.wanted import wanted_objects

    fill = None if given["fill_holes"] is None else filled(given["fill_holes"])
    return wanted_objects(given["objects"], given["connectivity"], given["min_size"], fill)


def dry_run(wanted: Any, plan: Any) -> list[str]:
    """What would be done of objects."""
    if not wanted.classes:
        return []
    need = wanted.bytes(plan) / 2**20
    return [f"objects: {', '.join(wanted.classes)}, at most {need:.0f} MiB per worker"]


def make(wanted: Any, plan: Any, found: Any, pool: Any) -> Sequence[Any]:
    """Make the objects that a run asks for, once its labels are complete."""
    if wanted.classes and found.errors:
        shared.echo("tiledlaf: no objects were made, since tiles failed", err=True)
    with progress.stages() as show:
        made: Sequence[Any] = wanted.make(plan, found, pool, show)
    return made


def lines(made: Sequence[Any]) -> list[str]:
    """A line on the objects of each class."""
    return [f"objects: {one.count} of {one.name}, {one.group}" for one in made]
