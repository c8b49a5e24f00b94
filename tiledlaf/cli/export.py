"""tiledlaf export."""

from __future__ import annotations

from typing import Any

import click

from ..errors import InputError
from . import guide, progress, shared
from . import objects as object_options

EXAMPLES = (
    ("polygons of two classes for QuPath", "tiledlaf export out.zarr a.geojson --classes a,b"),
    ("the objects of a class, measured", "tiledlaf export out.zarr cells.csv --objects cell"),
    ("a pyramid for QuPath and napari", "tiledlaf export out.zarr labels.ome.tif"),
)
CHOSEN = "What is exported"


@click.command(
    cls=guide.Command,
    examples=EXAMPLES,
    short_help="Write labels as files of other programs.",
    groups=dict.fromkeys(("name", "classes", "objects", "simplify", "z", "time_point"), CHOSEN),
)
@click.argument("output", metavar="OUT")
@click.argument("target")
@click.option("--name", help="Export labels/NAME (default: the only ones).")
@click.option(
    "--classes",
    metavar="CLASS,...",
    help="Export only these classes, by name or label value (default: all).",
)
@click.option("--objects", metavar="CLASS", help="Export the objects of a class, one by one.")
@object_options.meaning_options
@click.option(
    "--simplify",
    type=float,
    metavar="UM",
    help="How far borders of polygons may move, in micrometers (default: exact pixels).",
)
@click.option("--z", type=int, metavar="Z", help="Plane of a volume, from 0.")
@click.option("--time-point", type=int, metavar="T", help="Time point of a series, from 0.")
@click.option(
    "--workers", type=int, metavar="N", help="Number of threads or processes (default: all cores)."
)
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Address of a Dask scheduler, or 'threads' or 'processes'.",
)
@click.option("--scheduler-file", metavar="FILE", help="Scheduler file of a Dask cluster.")
@click.option("--overwrite", is_flag=True, help="Replace TARGET if it is there.")
def export(output: str, target: str, **given: Any) -> None:
    """Write the labels in OUT to the new file TARGET, in the format that its suffix says.

    OUT is a finished output of label; TARGET a file, or the URL of an object. .ome.tif and .tif are
    pyramids of label values, .geojson polygons, .csv and .parquet tables of areas, or of objects,
    and .png is a picture with a legend. If TARGET ends .onnx, OUT is a model, which other programs
    then run on images.
    """
    from ..pool.opening import Running
    from ..results.export import export

    if shared.same(output, target):
        raise InputError(f"{target}: expected a TARGET other than OUT")
    running = Running(given.pop("workers"), given.pop("scheduler"), given.pop("scheduler_file"))
    if given["fill_holes"] is not None:
        given["fill_holes"] = object_options.filled(given["fill_holes"])
    if given["classes"] is not None:
        given["classes"] = [name.strip() for name in given["classes"].split(",")]
    with shared.under_way(), progress.stages() as advance:
        export(output, target, running=running, progress=advance, **given)
    shared.echo(f"written: {target}")
