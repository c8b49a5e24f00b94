"""Pictures of a run on its page: image, labels and confidence, small, side by side."""

from __future__ import annotations

import numpy as np
import PIL.Image

from ..files import planes
from ..files.image import Image
from ..results import overview
from ..results.result import Result
from . import frame, markup
from .markup import Html

EDGE = 640  # pixels of a picture, at most


def of_run(result: Result, across: str) -> Html:
    """The pictures; `across` says how wide they are, "" if that is not known."""
    where = _where(result.labels) + (f", {across} across" if across else "")
    image, labels = overview.thumbnail(result, EDGE)
    parts = [] if image is None else [frame.picture(image, f"image{where}", "JPEG")]
    parts.append(frame.picture(labels, f"labels{where}"))
    if result.confidence is not None:
        parts.append(_certainty(result.confidence, len(result.names), labels.size))
    return markup.element("div", *parts, **{"class": "row"})


def _certainty(confidence: Image, classes: int, size: tuple[int, int]) -> Html:
    found = planes.read(confidence, EDGE, [0])
    assert found is not None, "a Zarr array is read in parts"
    low = 1 / max(classes, 1)
    gray = np.clip((found[0].astype(np.float64) - low) / max(1 - low, 1e-9), 0, 1) * 255
    picture = PIL.Image.fromarray(np.rint(gray).astype(np.uint8))
    enlarged = size[0] > picture.width
    how = PIL.Image.Resampling.NEAREST if enlarged else PIL.Image.Resampling.BOX
    picture = picture.resize(size, how)
    return frame.picture(picture, f"confidence: black {low:.2g}, undecided; white 1")


def _where(image: Image) -> str:
    """Which plane of a volume or a series is shown."""
    words = {"t": "the first time point", "z": "the middle plane"}
    front = list(zip(image.grid_axes, image.grid, strict=True))[:-2]
    said = [words[axis] for axis, n in front if n > 1]
    return f", {' and '.join(said)}" if said else ""
