"""Label a photograph that scikit-image ships, and draw what came out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from . import images, ngff, picture
from .labeling import Summary, label

NAMES = ("dark stain", "light stain and nuclei", "tissue and background")


def demo(
    folder: str, progress: Callable[[dict[str, Any]], None] | None = None
) -> tuple[Summary, Path]:
    """Label an immunohistochemistry image (512 x 512 RGB) into three classes.

    Returns
    -------
    Summary, and the path of a picture of image, labels and confidence
    """
    import skimage

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
        progress=progress,
    )
    image = images.open_image(source)
    whole = tuple(slice(0, n) for n in image.grid)
    labels = np.asarray(ngff.open_array(store, "labels/tiledlaf/0")[:])
    confidence = np.asarray(ngff.open_array(store, "confidence/0")[:])
    path = Path(folder) / "tiledlaf-demo.png"
    names = dict(enumerate(NAMES, 1))
    picture.panels(image.read(whole), labels, confidence, names).save(path)
    return summary, path
