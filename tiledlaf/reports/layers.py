"""Layers of an output for viewers: the image, the labels above it, and their confidence."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import image as image_files
from ..files import images, ngff
from ..files.channels import COLORS
from ..files.image import Image
from ..files.lengths import MICROMETERS
from ..results import confidence
from ..results.result import Result, open_result

IMAGE, LABELS, CONFIDENCE = "image", "labels", "confidence"
SEEN = 2**22  # pixels of a level from which windows are found
MOST = 8  # channels that are shown


@dataclass(frozen=True)
class Layer:
    """An image in all its levels, and how it is shown.

    Attributes
    ----------
    name : as users see it
    kind : IMAGE, LABELS or CONFIDENCE
    levels : finest first
    windows : (darkest, brightest) of each channel
    tones : #rrggbb of each channel; none for one in gray, and for red, green and blue
    color : whether the channels are red, green and blue
    names, colors : of label values
    shown : whether it is seen at first
    """

    name: str
    kind: str
    levels: tuple[Image, ...]
    windows: tuple[tuple[float, float], ...] = ()
    tones: tuple[str, ...] = ()
    color: bool = False
    names: Mapping[int, str] = field(default_factory=dict)
    colors: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    shown: bool = True

    @property
    def image(self) -> Image:
        """The finest level."""
        return self.levels[0]

    def scale(self, level: int = 0) -> tuple[float, ...]:
        """Size of a level's pixels along each axis of the grid, in micrometers where known."""
        return tuple(s * f for s, f in zip(_sizes(self.image), self.factors(level), strict=True))

    def origin(self, level: int = 0) -> tuple[float, ...]:
        """The middle of a level's first pixel; corners of all levels are in one place."""
        first, units = self.image.translation, _units(self.image)
        return tuple(
            t * u + s * (f - 1) / 2
            for t, u, s, f in zip(
                first, units, _sizes(self.image), self.factors(level), strict=True
            )
        )

    def factors(self, level: int) -> tuple[float, ...]:
        """Pixels of the finest level in one of another, along each axis of the grid."""
        found = []
        for whole, part in zip(self.image.grid, self.levels[level].grid, strict=True):
            factor = round(whole / part)
            found.append(factor if -(-whole // factor) == part else whole / part)
        return tuple(found)

    @property
    def measured(self) -> bool:
        """Whether the spatial axes have units."""
        return all(unit in MICROMETERS for unit in self._spatial_units)

    @property
    def _spatial_units(self) -> tuple[str | None, ...]:
        return self.image.units[-len(self.image.spatial_axes) :]


def read(path: str | os.PathLike[str], name: str | None = None) -> tuple[list[Layer], str]:
    """The layers of an output, lowest first, and what is not finished of it, in words.

    Raises
    ------
    ValueError
        If there are no such labels.
    """
    words = ""
    try:
        result = open_result(path, name)
    except InputError as error:
        result = open_result(path, name, unfinished=True)
        words = str(error)
    found = []
    below = picture(result)
    if below is not None:
        found.append(_shown(below))
    labels = _levels(result.labels)
    colors = {value: result.colors[value][:3] for value in result.names}
    found.append(Layer(result.name, LABELS, labels, names=result.names, colors=colors))
    certain = result.confidence
    if certain is not None:
        window = (1 / max(len(result.names), 1), 1.0)
        found.append(Layer("confidence", CONFIDENCE, _levels(certain), (window,), shown=False))
    return found, words


def _levels(image: Image) -> tuple[Image, ...]:
    return tuple(confidence.at_level(image, level) for level in range(len(image.levels)))


def picture(result: Result) -> Image | None:
    """The image beside the labels, at the time point and the plane that they are of."""
    if not ngff.has_image(result.store):
        return None
    fixed = dict(result.notes.get("source", {}).get("fixed", ()))
    found = ngff.read_multiscale(result.store)
    sizes = dict(zip(found.axes, found.shapes[0], strict=False))
    given: dict[str, Any] = {}
    if sizes.get("t", 1) > 1:
        given["time_point"] = "all" if "t" in result.labels.grid_axes else fixed.get("t", 0)
    if sizes.get("z", 1) > 1 and "z" not in result.labels.grid_axes:
        given["z"] = fixed.get("z", 0)
    return images.open_image(result.store, **given)


def _shown(image: Image) -> Layer:
    """An image as its file wants it shown, or by its intensities where that says nothing."""
    used = image.channels if image.channels is not None else range(image.stored_channels)
    chosen = tuple(used)[:MOST]
    levels = tuple(_with(one, chosen) for one in _pictured(image))
    color = image.color and len(chosen) == 3
    channels = [image.shown[number] for number in chosen] if image.shown else [None] * len(chosen)
    known = [None if one is None else one.window for one in channels]
    found = None
    windows = []
    for place, window in enumerate(known):
        if window is not None and (window[0], window[1]) != (window[2], window[3]):
            windows.append((window[0], window[1]))
            continue
        if color and np.dtype(image.dtype) == np.uint8:
            windows.append((0.0, 255.0))
            continue
        if found is None:
            found = _intensities(levels)
        windows.append(found[place])
    tones = [None if one is None else one.color for one in channels]
    gray = color or len(chosen) == 1
    shades = [f"#{tone or COLORS[n % len(COLORS)]}" for n, tone in enumerate(tones)] * (not gray)
    return Layer("image", IMAGE, levels, tuple(windows), tuple(shades), color)


def _pictured(image: Image) -> list[Image]:
    """All levels of an image, at the same time point and plane."""
    fixed: dict[str, Any] = dict(image.fixed)
    time = "all" if "t" in image.grid_axes else fixed.get("t")
    found = [image]
    for level in range(1, len(image.levels)):
        z = fixed.get("z")
        if z is not None:  # of which a level may have fewer planes
            axis = image.axes.index("z")
            z = z * ngff.read_multiscale(image.path).shapes[level][axis] // image.shape[axis]
        found.append(images.open_image(image.path, level=level, time_point=time, z=z))
    return found


def _with(image: Image, channels: tuple[int, ...]) -> Image:
    return image_files.choose_channels(image, channels)


def _intensities(levels: tuple[Image, ...]) -> list[tuple[float, float]]:
    """The range of all but a hundredth of the pixels, on a level that is quickly read."""
    image = next((one for one in levels if math.prod(one.grid) <= SEEN), levels[-1])
    window = [slice(n // 2, n // 2 + 1) for n in image.grid[:-2]]
    for n in image.grid[-2:]:
        edge = min(n, math.isqrt(SEEN))
        window.append(slice((n - edge) // 2, (n - edge) // 2 + edge))
    pixels = image_files.read(image, tuple(window))
    found = []
    for plane in pixels.reshape(len(pixels), -1):
        kept = plane[np.isfinite(plane)] if plane.dtype.kind == "f" else plane
        low, high = np.percentile(kept, (0.5, 99.5)) if kept.size else (0.0, 1.0)
        found.append((float(low), float(high) if high > low else float(low) + 1))
    return found


def _units(image: Image) -> tuple[float, ...]:
    """Micrometers in the unit of each axis of the grid; 1 where it is not known, or time."""
    return tuple(MICROMETERS.get(unit or "", 1.0) for unit in image.units)


def _sizes(image: Image) -> tuple[float, ...]:
    return tuple(s * u for s, u in zip(image.scale, _units(image), strict=True))
