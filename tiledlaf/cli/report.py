"""tiledlaf report."""

from __future__ import annotations

import click

from . import guide, shared

EXAMPLES = (
    ("a page of a run, out.zarr.report.html", "tiledlaf report out.zarr"),
    ("of a training, to send to others", "tiledlaf report my.model -o training.html"),
    ("of one of several labels in a store", "tiledlaf report slide.zarr --name tumor"),
)


@click.command(
    cls=guide.Command,
    examples=EXAMPLES,
    short_help="Write a page of a run or a training, to send to others.",
)
@click.argument("path", metavar="OUTPUT|MODEL")
@click.option(
    "-o",
    "--output",
    metavar="FILE.html",
    help="The page, a file or a URL (default: beside OUTPUT or MODEL, with .report.html).",
)
@click.option("--name", help="Show labels/NAME of an OUTPUT that has several.")
def report(path: str, output: str | None, name: str | None) -> None:
    """Write a page of a run, or of the training of MODEL, to look at and to send to others.

    One HTML file that needs no network. Of a run it has a picture, areas, the confidence of each
    class, settings, versions and time; of a training its curves, which classes validation confused
    and what was learned. It says what "confidence", "proven" and "bias" mean.
    """
    from ..reports import reporting

    shared.echo(f"page: {reporting.report(path, output, name=name)}")
