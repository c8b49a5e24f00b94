"""A part of an image as an image of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .derived import Derived
from .image import Image


@dataclass(frozen=True)
class Cropped(Derived):
    """The pixels of another reader from an origin on.

    Attributes
    ----------
    origin : first pixel along each stored axis
    shape : lengths of the part along them
    """

    origin: tuple[int, ...]
    shape: tuple[int, ...]

    name = "cropped"

    def read(self, array: Any, box: tuple[slice | int, ...]) -> np.ndarray:
        """Pixels of a box of the part."""
        moved: list[slice | int] = []
        for one, start, size in zip(box, self.origin, self.shape, strict=True):
            if isinstance(one, slice):
                first, last, _ = one.indices(size)
                moved.append(slice(start + first, start + last))
            else:
                moved.append(one)
        return self.source.read(array, tuple(moved))


def cropped(image: Image, origin: Sequence[int], size: Sequence[int]) -> Image:
    """The part of an image that begins at `origin`, along the axes of its grid."""
    starts = dict(zip(image.grid_axes, origin, strict=True))
    sizes = dict(zip(image.grid_axes, size, strict=True))
    shape = tuple(sizes.get(a, n) for a, n in zip(image.axes, image.shape, strict=True))
    first = tuple(starts.get(a, 0) for a in image.axes)
    return dataclasses.replace(
        image,
        reader=Cropped(image.reader, first, shape),
        shape=shape,
        levels=(tuple(size),),
        translation=tuple(
            t + o * s for t, o, s in zip(image.translation, origin, image.scale, strict=True)
        ),
    )
