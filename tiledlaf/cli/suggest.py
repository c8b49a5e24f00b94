"""tiledlaf suggest."""

from __future__ import annotations

from typing import Any

import click

from . import guide, progress, shared

EXAMPLES = (
    ("where to annotate next", "tiledlaf suggest tumor.model 'slides/*.svs'"),
    ("more and smaller windows", "tiledlaf suggest my.model b.tif --count 30 --size 128"),
    ("only where there is tissue", "tiledlaf suggest my.model slides --mask tissue"),
)
WINDOWS = "Windows"
# options passed to `suggest` unchanged
PASSED = (
    *("count", "size", "mask", "probabilities", "overwrite"),
    *("workers", "scheduler", "scheduler_file", "device", "tile"),
)


@click.command(
    cls=guide.Command,
    examples=EXAMPLES,
    short_help="Find where labels of a model are most in doubt.",
    groups={"count": WINDOWS, "size": WINDOWS},
)
@click.argument("model")
@click.argument("images", nargs=-1, required=True)
@click.option(
    "--output",
    metavar="FOLDER",
    default="suggested",
    show_default=True,
    help="Write the windows of each image as GeoJSON, and their pictures, to FOLDER.",
)
@click.option("--overwrite", is_flag=True, help="Replace the suggestions in FOLDER.")
@click.option(
    "--count",
    type=int,
    default=10,
    show_default=True,
    metavar="N",
    help="Number of windows, of all images together.",
)
@click.option(
    "--size",
    type=int,
    default=256,
    show_default=True,
    metavar="N",
    help="Edge of a window, in pixels of the level that is read; an even number.",
)
@click.option(
    "--probabilities",
    metavar="PROBS",
    help="Class probabilities of the images, for a MODEL that learned from such.",
)
@click.option(
    "--mask",
    metavar="FILE|tissue",
    help="Mask image or annotations; pixels where it is 0, or outside, are left out. The word "
    "tissue finds the mask in the image.",
)
@shared.brush_option
@shared.selection_options
@click.option("--tile", type=int, metavar="N", help="Edge of a tile; windows do not depend on it.")
@click.option(
    "--workers", type=int, metavar="N", help="Number of threads or processes (default: all cores)."
)
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Address of a Dask scheduler, or 'threads' or 'processes'.",
)
@click.option("--scheduler-file", metavar="FILE", help="Scheduler file of a Dask cluster.")
@shared.device_option
def suggest(model: str, images: tuple[str, ...], **given: Any) -> None:
    """Find the windows of IMAGES where labels are most in doubt, to annotate there and train again.

    IMAGES are files, globs, folders and tables (.csv). They are labeled by MODEL in memory, and the
    windows are written where most pixels are expected to be wrong, and where the classifiers of the
    training's folds disagree: GeoJSON for QuPath, whose areas of the class Region* are none that
    training learns from, and pictures.
    """
    from ..results import suggestions

    options = {name: given[name] for name in (*PASSED, *shared.SELECTION)}
    with shared.under_way(), progress.stages() as advance:
        found = suggestions.suggest(
            model,
            images,
            given["output"],
            painting=shared.painting(given),
            progress=advance,
            **options,
        )
    shared.echo(*suggestions.lines(found, given["output"]))
