"""Arrays saved by NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import image
from ..image import Levels, Reader


@dataclass(frozen=True)
class Npy(Reader):
    """An npy file, mapped into memory."""

    name = "npy"
    suffixes = frozenset({".npy"})

    def look(self, path: str, level: int, axes: str | None) -> Levels:
        """The shape, whose axes have no names."""
        image.check_level(path, level, 1)
        array = image.opened_whole(self, path)
        return Levels("", "", (array.shape,), array.dtype)

    def open(self, path: str, name: str) -> Any:
        """The array, memory-mapped."""
        return np.load(path, mmap_mode="r")

    def as_labels(self, path: str) -> tuple[Reader, str | None]:
        """Three axes are z, y, x."""
        return self, "zyx" if self.open(path, "").ndim == 3 else None
