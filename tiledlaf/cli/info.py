"""tiledlaf info and tiledlaf status."""

from __future__ import annotations

import dataclasses
import json

import click

from ..errors import InputError


@click.command()
@click.argument("path")
def info(path: str) -> None:
    """Say what a store or an image holds: shapes, levels, labels, settings, how complete."""
    from ..reports import text

    click.echo("\n".join(text.info(path)))


@click.command()
@click.argument("output")
@click.option("--name", help="Show labels/NAME only; else all.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
@click.option(
    "--picture", "picture_file", metavar="FILE.png", help="Also draw a map of the tiles by seconds."
)
def status(output: str, name: str | None, as_json: bool, picture_file: str | None) -> int:
    """Say how far a run on OUTPUT is, or the training of a model: going, cut, failed, complete.

    Reads what runs keep in OUTPUT, a path or a URL, and disturbs none. The exit code is 0 if all is
    complete or going, else 1: then the command of the run is to be given again.
    """
    from ..reports import status, text

    if picture_file is not None:
        from ..reports import pictures
        from . import shared

        shared.check_file("--picture", picture_file)
    found = status.read(output, name)
    if picture_file is not None:
        if len(found.labels) != 1:
            known = ", ".join(one.name for one in found.labels) or "no labels"
            raise InputError(f"--picture shows one of the labels: choose a --name of {known}")
        ((out, notes),) = status.outputs(output, found.labels[0].name)
        title = text.status(found)[1]  # the line on tiles
        pictures.tile_map(status.times(out, notes), title).save(picture_file)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found), indent=2))
    else:
        click.echo("\n".join(text.status(found)))
    return 0 if found.good else 1
