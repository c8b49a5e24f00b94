"""Objects on the command line: the options that say what they are, and their making."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from . import progress, shared

MEANING = ("connectivity", "min_size", "fill_holes")


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options on the objects of a run, which `finding_of` reads."""
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


def finding_of(given: Mapping[str, Any]) -> Any:
    """What the options ask for."""
    from ..results.finding import Finding

    fill = filled(given["fill_holes"])
    return Finding(given["connectivity"] or "face", given["min_size"], fill)


def make(
    output: str,
    name: str,
    classes: Sequence[str],
    finding: Any,
    pool: Any,
    picture: Any = None,
) -> list[str]:
    """Make the objects of some classes of finished labels; returns a line on each."""
    from ..results import objects
    from ..results.result import open_result

    lines = []
    for cls in classes:
        result = open_result(output, name)
        with progress.stages() as show:
            found = objects.find_objects(result, cls, pool, finding, show, picture)
        lines.append(f"objects: {found.count} of {found.name}, {found.group}")
    return lines


def checked(given: Mapping[str, Any], plan: Any) -> Any:
    """What the options of a run ask for, looked at before it begins."""
    from ..errors import InputError
    from ..labeling.areas import pixel_size
    from ..results import objects

    finding = finding_of(given)
    if not given["objects"]:
        named = [f"`{key}`" for key in MEANING if given[key] is not None]
        if named:
            raise InputError(f"{', '.join(named)}: of objects, which `objects` asks for")
    finding.settings(pixel_size(plan.job.image))
    for cls in given["objects"]:
        value = objects.value_of(plan.names, cls)
        objects.check_place(plan.out.store, plan.out.name, plan.names[value], value)
    return finding


def needed_bytes(given: Mapping[str, Any], plan: Any) -> int:
    """Peak memory of a worker that makes the objects of a run; 0 if there are none to make."""
    from ..results import making

    if not given["objects"]:
        return 0
    job, fill = plan.job, given["fill_holes"] is not None
    tile = making.tile_of(job.grid.tile, len(job.image.spatial_axes))
    edges = list(map(min, tile, job.grid.size))[job.front :]
    return making.predicted_bytes(edges, job.labels.dtype, fill, job.image)


def check_memory(given: Mapping[str, Any], plan: Any, pool: Any) -> None:
    """Refuse, before labels are made, objects whose tiles do not fit into a worker's memory."""
    from ..results import making

    making.check_memory(needed_bytes(given, plan), pool)


def dry_run(given: Mapping[str, Any], plan: Any) -> list[str]:
    """What would be done of objects."""
    if not given["objects"]:
        return []
    need = needed_bytes(given, plan) / 2**20
    return [f"objects: {', '.join(given['objects'])}, at most {need:.0f} MiB per worker"]


def of_run(given: Mapping[str, Any], plan: Any, found: Any, finding: Any, pool: Any) -> list[str]:
    """Make the objects that a run asks for, once its labels are complete."""
    classes = given["objects"]
    if classes and found.errors:
        shared.echo("tiledlaf: no objects were made, since tiles failed", err=True)
        return []
    picture = None if plan.job.picture is not None else _measured(plan)
    return make(plan.out.store, plan.out.name, classes, finding, pool, picture)


def _measured(plan: Any) -> Any:
    """The part of the input that was labeled, as stored: where it has no copy in the output."""
    import dataclasses

    from ..files.cropped import cropped

    image, grid = dataclasses.replace(plan.job.image, gain=None), plan.job.grid
    return image if grid.size == image.grid else cropped(image, grid.origin, grid.size)
