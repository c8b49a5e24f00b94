"""Masks that are the same at every time point."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from .derived import Derived
from .image import Image


@dataclass(frozen=True)
class Repeated(Derived):
    """The pixels of another reader, at each of several time points.

    Attributes
    ----------
    at : where stored pixels have an axis t of length 1; None without one
    """

    at: int | None = None

    name = "repeated"

    def read(self, array: Any, box: tuple[slice | int, ...]) -> np.ndarray:
        """Pixels of a box whose first axis is t."""
        time, *rest = box
        assert isinstance(time, slice)
        if self.at is not None:
            rest.insert(self.at, 0)
        block = self.source.read(array, tuple(rest))
        return np.broadcast_to(block, (time.stop - time.start, *block.shape))


def at_every_time(mask: Image, image: Image) -> Image:
    """The mask of a time series: one of spatial axes alone holds at every time point."""
    sizes = {one[1:] for one in (image.grid, image.whole, *image.levels)}
    if "t" not in image.grid_axes or mask.grid not in sizes:
        return mask
    count = image.grid[0]
    return dataclasses.replace(
        mask,
        reader=Repeated(mask.reader, mask.axes.index("t") if "t" in mask.axes else None),
        axes="t" + mask.axes.replace("t", ""),
        shape=(count, *(n for n, a in zip(mask.shape, mask.axes, strict=True) if a != "t")),
        levels=tuple((count, *shape) for shape in mask.levels),
        scale=(1.0, *mask.scale),
        translation=(0.0, *mask.translation),
        units=(None, *mask.units),
        whole=(count, *mask.whole),
        fixed=tuple((axis, index) for axis, index in mask.fixed if axis != "t"),
    )
