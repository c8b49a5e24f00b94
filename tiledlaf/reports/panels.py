"""Pictures of a run on its page: image, labels and confidence, small, side by side."""

from __future__ import annotations

import math
import warnings

import numpy as np
import PIL.Image

from ..errors import TiledlafWarning
from ..files import image as image_files
from ..files.image import Image
from ..model.classes import palette
from ..results import confidence
from ..results.pictures import to_rgb
from ..results.result import Result
from . import frame, layers, markup
from .markup import Html

EDGE = 640  # pixels of a picture, at most
MOST = 2**26  # pixels of a plane that is read for one


def of_run(result: Result, across: str) -> Html:
    """The pictures; `across` says how wide they are, "" if that is not known."""
    parts = []
    width = f", {across} across" if across else ""
    image = _picture(result)
    plane = None if image is None else _plane(image)
    if image is not None and plane is not None:
        chosen = range(3) if image.color and image.used_channels >= 3 else range(1)
        parts.append((to_rgb(plane[list(chosen)]), f"image{_where(image)}{width}", "JPEG"))
    labels = _plane(result.labels)
    if labels is not None:
        colors = palette(len(result.names), {v: c[:3] for v, c in result.colors.items()})
        values = np.minimum(labels[0].astype(np.int64), len(result.names))
        parts.append((colors[values], f"labels{_where(result.labels)}{width}", "PNG"))
    certain = result.confidence
    shown = None if certain is None else _plane(certain)
    if shown is not None:
        low = 1 / max(len(result.names), 1)
        gray = np.clip((shown[0].astype(np.float64) - low) / max(1 - low, 1e-9), 0, 1) * 255
        text = f"confidence: black {low:.2g}, undecided; white 1"
        parts.append((np.rint(gray).astype(np.uint8), text, "PNG"))
    found = [frame.picture(PIL.Image.fromarray(p), text, kind) for p, text, kind in parts]
    return markup.element("div", *found, **{"class": "row"})


def _picture(result: Result) -> Image | None:
    """The image beside the labels, if it shows the same pixels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TiledlafWarning)
        image = layers.picture(result)
    return image if image is not None and image.grid == result.labels.grid else None


def _plane(image: Image) -> np.ndarray | None:
    """The middle plane at the first time point, (C, y, x) of at most `EDGE` pixels an edge.

    None where even the coarsest level has too many.
    """
    fits = [n for n, grid in enumerate(image.levels) if max(grid[-2:]) >= EDGE]
    coarse = confidence.at_level(image, max(fits, default=0))
    if math.prod(coarse.grid[-2:]) > MOST:
        return None
    places = [n // 2 if axis == "z" else 0 for axis, n in _front(coarse)]
    window = (*(slice(n, n + 1) for n in places), *(slice(0, n) for n in coarse.grid[-2:]))
    pixels = image_files.read(coarse, window)
    step = max(1, math.ceil(max(coarse.grid[-2:]) / EDGE))
    plane: np.ndarray = pixels.reshape(len(pixels), *coarse.grid[-2:])[:, ::step, ::step]
    return plane


def _front(image: Image) -> list[tuple[str, int]]:
    return list(zip(image.grid_axes, image.grid, strict=True))[:-2]


def _where(image: Image) -> str:
    """Which plane of a volume or a series is shown."""
    words = {"t": "the first time point", "z": "the middle plane"}
    said = [words[axis] for axis, n in _front(image) if n > 1]
    return f", {' and '.join(said)}" if said else ""
