"""tiledlaf info and tiledlaf status."""

from __future__ import annotations

import dataclasses
import json

import click

from ..errors import InputError
from . import shared


@click.command()
@click.argument("path")
def info(path: str) -> None:
    """Show what a store, an image, a model or a file of annotations holds."""
    from ..reports import text

    click.echo(shared.with_options("\n".join(text.info(path)), info))


@click.command()
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

    Reads what runs keep in OUTPUT, a path or a URL, without disturbing them. The exit code is 0 if
    everything is complete or going, otherwise 1: then give the command of the run again.
    """
    from ..reports import status, text
    from .label import label

    if picture_file is not None:
        from ..reports import pictures

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
        click.echo(json.dumps(dataclasses.asdict(found), indent=2))
    else:
        # the errors of tiles name options of `label`
        click.echo(shared.with_options("\n".join(text.status(found)), label))
    return 0 if found.good else 1
