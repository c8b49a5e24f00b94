"""tiledlaf explain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from . import shared


@click.command()
@click.argument("model")
@click.argument("image", required=False)
@click.option("--truth", metavar="LABELS", help="For the singular vectors of the gradient.")
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    help="New folder for the pictures (MODEL's name with -explained).",
)
@click.option("--probabilities", help="Data term of a model that was trained with one.")
@click.option("--mask", help="Image whose zeros are left out.")
@click.option(
    "--region",
    callback=shared.spans,
    metavar="y0:y1,x0:x1",
    help="The part to show (the middle 512 x 512 pixels).",
)
@click.option(
    "--channels", callback=shared.integers(), metavar="C,...", help="Channels to use; all."
)
@click.option("--axes", help="Axes of IMAGE where it does not name them.")
@click.option("--device", default="cpu", show_default=True, metavar="cpu|cuda")
def explain(**given: Any) -> None:
    """Draw what MODEL has learned, and how it sees a part of IMAGE: index.html with pictures.

    Prototypes with their weight patches; with an IMAGE also its labels and maps of the predicted
    patches; with --truth the leading singular vectors of the gradient of the loss.
    """
    from ..reports import explanation

    model, image, output = (given.pop(key) for key in ("model", "image", "output"))
    folder = output or f"{Path(model).with_suffix('')}-explained"
    click.echo(f"pictures: {explanation.explain(model, folder, image, **given)}")
