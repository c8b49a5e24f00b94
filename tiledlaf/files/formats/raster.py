"""Raster images that are read whole: PNG, JPEG, BMP, WebP."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import image
from ..image import Levels, Reader


@dataclass(frozen=True)
class Raster(Reader):
    """A picture; `colors` says whether palette indices are read as their colors."""

    colors: bool = True

    name = "raster"
    suffixes = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp"})
    lossy = True

    def look(self, path: str, level: int, axes: str | None) -> Levels:
        """Rows, columns and colors."""
        image.check_level(path, level, 1)
        array = image.opened_whole(self, path)
        named = "yxc"[: array.ndim] if self.colors else ""
        return Levels("", named, (array.shape,), array.dtype)

    def open(self, path: str, name: str) -> Any:
        """All pixels."""
        import PIL.Image

        PIL.Image.MAX_IMAGE_PIXELS = None  # users open their own images: a large one is no attack
        with PIL.Image.open(path) as picture:
            if picture.mode in ("RGB", "RGBA", "LA") and ";16" in str(picture.tile):
                import imagecodecs  # Pillow would truncate these to 8 bits

                return np.asarray(imagecodecs.png_decode(Path(path).read_bytes()))
            if self.colors and picture.mode in ("P", "CMYK", "YCbCr"):
                return np.asarray(picture.convert("RGB"))
            return np.asarray(picture)

    def as_labels(self, path: str) -> tuple[Reader, str | None]:
        """In a palette image, the indices are the labels."""
        import PIL.Image

        with PIL.Image.open(path) as picture:
            return Raster(colors=picture.mode != "P"), None
