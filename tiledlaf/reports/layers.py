"""Layers of an output for viewers: the image, the labels above it, and their confidence."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ..errors import InputError
from ..files import image as image_files
from ..files import planes
from ..files.image import Image
from ..files.lengths import MICROMETERS
from ..labeling import tones
from ..results.result import open_result

IMAGE, LABELS, CONFIDENCE = "image", "labels", "confidence"
SEEN = 1024  # pixels along an edge of what windows are found from
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
    below = result.picture
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
    return tuple(planes.at_level(image, level) for level in range(len(image.levels)))


def _shown(image: Image) -> Layer:
    """An image as its file wants it shown, or by its intensities where that says nothing."""
    chosen = tones.chosen(image, MOST)
    windows = tones.windows(_sample(image, chosen), image, chosen)
    color = tones.is_rgb(image, chosen)
    shades = [] if color or len(chosen) == 1 else tones.colors(image, chosen)
    levels = tuple(image_files.choose_channels(one, tuple(chosen)) for one in _levels(image))
    colors = tuple(f"#{shade}" for shade in shades)
    return Layer("image", IMAGE, levels, tuple(windows), colors, color)


def _sample(image: Image, channels: list[int]) -> np.ndarray:
    """Pixels of a plane that are quickly read: of a coarse level, or the middle of a large one."""
    origin, size = [0] * len(image.grid), list(image.grid)
    if max(image.levels[-1][-2:]) > 2 * SEEN:
        for axis in (-2, -1):
            size[axis] = min(SEEN, image.grid[axis])
            origin[axis] = (image.grid[axis] - size[axis]) // 2
    found = planes.read(image, SEEN, channels, (origin, size))
    assert found is not None, "a Zarr array is read in parts"
    return found


def _units(image: Image) -> tuple[float, ...]:
    """Micrometers in the unit of each axis of the grid; 1 where it is not known, or time."""
    return tuple(MICROMETERS.get(unit or "", 1.0) for unit in image.units)


def _sizes(image: Image) -> tuple[float, ...]:
    return tuple(s * u for s, u in zip(image.scale, _units(image), strict=True))
