"""tiledlaf info and tiledlaf status."""

from __future__ import annotations

import dataclasses

import click

from ..errors import InputError
from . import guide, shared

EXAMPLES = (
    ("series, levels, channels and pixel size of an image", "tiledlaf info slide.svs"),
    ("classes and areas of annotations", "tiledlaf info slide.geojson"),
    ("what a model learned from", "tiledlaf info tumor.model"),
)


@click.command(
    cls=guide.Command,
    examples=EXAMPLES,
    short_help="Show what an image, a store, a model or annotations hold.",
)
@click.argument("path")
def info(path: str) -> None:
    """Show what a store, an image, a model or a file of annotations holds."""
    from ..reports import text

    shared.echo(*(shared.with_options(line, info) for line in text.info(path)))


STATUS_EXAMPLES = (
    ("a run, or the training of a model", "tiledlaf status out.zarr"),
    ("which tiles took long", "tiledlaf status out.zarr --picture map.png"),
    ("for scripts, of an object store", "tiledlaf status s3://bucket/out.zarr --json"),
)


@click.command(
    cls=guide.Command, examples=STATUS_EXAMPLES, short_help="Show how far a run or a training is."
)
@click.argument("output")
@click.option("--name", help="Show only labels/NAME (default: all).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
@click.option(
    "--picture",
    "picture_file",
    metavar="FILE.png",
    help="Also draw a map of the seconds that each tile took.",
)
def status(output: str, name: str | None, as_json: bool, picture_file: str | None) -> int:
    """Show how far a run on OUTPUT or the training of a model is: going, cut, failed or complete.

    Reads what runs keep in OUTPUT, a path or a URL, without disturbing them. Of a folder that
    'tiledlaf label --into' writes to, all outputs are shown, a line each. The exit code is 0 if
    everything is complete or going, otherwise 1: then give the command of the run again.
    """
    from ..reports import slides, status, text
    from .label import label

    if picture_file is None and slides.is_folder(output):
        folder = slides.read(output, name)
        if as_json:
            shared.echo_json(dataclasses.asdict(folder))
        else:
            shared.echo(*(shared.with_options(line, label) for line in slides.lines(folder)))
        return 0 if folder.good else 1
    if picture_file is not None:
        from ..results import pictures

        shared.check_file("--picture", picture_file)
    found = status.read(output, name)
    if picture_file is not None:
        if len(found.labels) != 1:
            known = ", ".join(one.name for one in found.labels) or "no labels"
            raise InputError(f"--picture shows one label image: choose a --name from {known}")
        ((out, notes),) = status.outputs(output, found.labels[0].name)
        title = text.status(found)[1]  # the line on tiles
        pictures.tile_map(status.times(out, notes), title).save(picture_file)
    if as_json:
        shared.echo_json(dataclasses.asdict(found))
    else:
        # the errors of tiles name options of `label`
        shared.echo(*(shared.with_options(line, label) for line in text.status(found)))
    return 0 if found.good else 1
