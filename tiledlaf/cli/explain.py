"""tiledlaf explain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..errors import InputError
from . import guide, shared

EXAMPLES = (
    ("what was learned", "tiledlaf explain tumor.model"),
    (
        "how it sees a part of an image",
        "tiledlaf explain tumor.model slide.svs --region 0:512,0:512",
    ),
    (
        "what changes the loss most, into a folder of this name",
        "tiledlaf explain tumor.model slide.svs --truth slide.geojson -o pages",
    ),
)


@click.command(
    cls=guide.Command,
    examples=EXAMPLES,
    short_help="Say and draw what a model has learned.",
)
@click.argument("model")
@click.argument("image", required=False)
@click.option(
    "--truth",
    metavar="LABELS",
    help="True labels or annotations; shows singular vectors of the gradient.",
)
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    help="New folder for the pictures (default: MODEL's name with -explained).",
)
@click.option(
    "--probabilities",
    help="Class probabilities (J, y, x), for a MODEL that was trained with them.",
)
@click.option("--mask", help="Mask image or annotations; pixels outside are left out.")
@click.option(
    "--region",
    callback=shared.spans,
    metavar="y0:y1,x0:x1",
    help="Show only this part (default: the middle 512 x 512 pixels).",
)
@shared.label_meaning_options
@shared.annotation_options
@shared.selection_options
@shared.device_option
def explain(**given: Any) -> None:
    """Say which features, distances and directions mattered to MODEL, in a page for everyone.

    Writes index.html and pictures; with IMAGE, they are about that image, or a part of it. What
    authors want to know is folded below: the anchors with their weight patches; with IMAGE, its
    labels and maps of the predicted patches; with --truth, the leading singular vectors of the
    gradient of the loss.
    """
    from ..reports import explanation

    model, image, output = (given.pop(key) for key in ("model", "image", "output"))
    if given["ignore"] and not (given["instances"] or given["colors"]):
        raise InputError(
            "`ignore` belongs to `instances` or `colors`: other values that the model did not "
            "learn have no label"
        )
    given |= {**shared.meaning_of(given), "painting": shared.painting(given)}
    for name in ("brush", "overlaps"):
        del given[name]
    folder = output or f"{Path(model).with_suffix('')}-explained"
    shared.echo(f"pictures: {explanation.explain(model, folder, image, **given)}")
