"""Masks that are the same at every time point."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from .image import Image, Levels, Reader, State


@dataclass(frozen=True)
class Repeated(Reader):
    """The pixels of another reader, at each of several time points.

    Attributes
    ----------
    source : of the stored pixels
    at : where these have an axis t of length 1; None without one
    """

    source: Reader
    at: int | None = None

    name = "repeated"

    def look(self, path: str, level: int, axes: str | None) -> Levels:
        """What the source says."""
        return self.source.look(path, level, axes)

    def open(self, path: str, name: str) -> Any:
        """The stored array."""
        return self.source.open(path, name)

    def read(self, array: Any, box: tuple[slice | int, ...]) -> np.ndarray:
        """Pixels of a box whose first axis is t."""
        time, *rest = box
        assert isinstance(time, slice)
        if self.at is not None:
            rest.insert(self.at, 0)
        block = self.source.read(array, tuple(rest))
        return np.broadcast_to(block, (time.stop - time.start, *block.shape))

    def state(self, path: str, name: str) -> State:
        """Of the stored pixels."""
        return self.source.state(path, name)


@dataclass(frozen=True)
class _InMemory(Repeated):
    """Those of an array in this process."""

    stored = False


def at_every_time(mask: Image, image: Image) -> Image:
    """The mask of a time series: one of spatial axes alone holds at every time point."""
    sizes = {one[1:] for one in (image.grid, image.whole, *image.levels)}
    if "t" not in image.grid_axes or mask.grid not in sizes:
        return mask
    count = image.grid[0]
    kind = Repeated if mask.reader.stored else _InMemory
    return dataclasses.replace(
        mask,
        reader=kind(mask.reader, mask.axes.index("t") if "t" in mask.axes else None),
        axes="t" + mask.axes.replace("t", ""),
        shape=(count, *(n for n, a in zip(mask.shape, mask.axes, strict=True) if a != "t")),
        levels=tuple((count, *shape) for shape in mask.levels),
        scale=(1.0, *mask.scale),
        translation=(0.0, *mask.translation),
        units=(None, *mask.units),
        whole=(count, *mask.whole),
        fixed=tuple((axis, index) for axis, index in mask.fixed if axis != "t"),
    )
