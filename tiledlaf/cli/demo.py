"""tiledlaf demo: label a photograph that ships with scikit-image, and draw the result."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import InputError
from . import guide, shared

if TYPE_CHECKING:
    from ..labeling.run import Summary

NAMES = ("dark stain", "light stain and nuclei", "tissue and background")


EXAMPLES = (
    ("into the current folder", "tiledlaf demo"),
    ("into another one", "tiledlaf demo --output /tmp"),
    ("then ask what it made", "tiledlaf info tiledlaf-demo.zarr"),
)


@click.command(
    cls=guide.Command,
    examples=EXAMPLES,
    short_help="Label a photograph that ships with scikit-image.",
)
@click.option(
    "--output", default=".", show_default=True, metavar="DIR", help="Folder to write into."
)
def demo(output: str) -> int:
    """Label a photograph that ships with scikit-image; writes an OME-Zarr and a PNG to look at."""
    from ..reports import text

    if not Path(output).is_dir():
        raise InputError(f"`output` {output}: no such folder")
    found, path = label_demo(output)
    shared.echo(*text.summary(found), f"picture: {path}")
    return 1 if found.errors else 0


def label_demo(folder: str) -> tuple[Summary, Path]:
    """Label an immunohistochemistry image (512 x 512 RGB) into three classes.

    Returns
    -------
    Summary, and the path of a picture that shows image, labels and confidence
    """
    import numpy as np
    import skimage

    from ..files import images, nodes
    from ..labeling.request import label
    from ..results import pictures

    source = Path(skimage.__file__).parent / "data" / "ihc.png"
    store = str(Path(folder) / "tiledlaf-demo.zarr")
    summary = label(
        str(source),
        store,
        classes=3,
        neighborhood="5x5",
        confidence=True,
        tile=256,
        names=NAMES,
        overview=False,  # the picture below shows more
    )
    image = images.open_image(source)
    whole = tuple(slice(0, n) for n in image.grid)
    labels = np.asarray(nodes.open_array(store, "labels/tiledlaf/0")[:])
    confidence = np.asarray(nodes.open_array(store, "confidence/0")[:])
    path = Path(folder) / "tiledlaf-demo.png"
    pictures.panels(image.read(whole), labels, confidence, dict(enumerate(NAMES, 1))).save(path)
    return summary, path
