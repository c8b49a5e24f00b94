"""Raster images that are read whole: PNG, JPEG, BMP, WebP."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import image
from ..image import Levels, Reader

ORIENTATION = 0x0112  # tag of EXIF
CONVERTED = ("P", "PA", "CMYK", "YCbCr", "HSV", "LAB")


@dataclass(frozen=True)
class Raster(Reader):
    """A picture, turned as its EXIF data say, without alpha.

    `colors` says whether palette indices are read as their colors.
    """

    colors: bool = True

    name = "raster"
    suffixes = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp"})
    lossy = True

    def look(self, path: str, level: int, axes: str | None) -> Levels:
        """Rows, columns and colors; says what is done to the pixels."""
        image.check_level(path, level, 1)
        array = image.opened_whole(self, path)
        for text in _decoded(path, self.colors, os.stat(path).st_mtime_ns)[1]:
            image.say(f"{path}: {text}")
        named = "yxc"[: array.ndim] if self.colors else ""
        return Levels("", named, (array.shape,), array.dtype, color=array.ndim == 3)

    def open(self, path: str, name: str) -> Any:
        """All pixels."""
        return _decoded(path, self.colors, os.stat(path).st_mtime_ns)[0]

    def as_labels(self, path: str) -> tuple[Reader, str | None]:
        """In a palette image, the indices are the labels."""
        with _opened(path) as picture:
            return Raster(colors=picture.mode != "P"), None


# what shows the stored rows and columns upright, by the orientation of EXIF
_TURNS: dict[int, Callable[[Any], Any]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a.swapaxes(0, 1)[::-1],
}


def _opened(path: str) -> Any:
    import PIL.Image

    PIL.Image.MAX_IMAGE_PIXELS = None  # users open their own images: a large one is no attack
    return PIL.Image.open(path)


@functools.lru_cache(maxsize=4)
def _decoded(path: str, colors: bool, identity: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """The pixels, and what is done to them that nobody would expect."""
    told = []
    with _opened(path) as picture:
        alpha = picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info
        # as Pillow would truncate these to 8 bits; looked at first, since EXIF data load all
        deep = picture.mode in ("RGB", "RGBA", "LA") and ";16" in str(picture.tile)
        turn = _orientation(picture)
        image.check_piece(path, picture.width * picture.height * len(picture.getbands()))
        if deep:
            import imagecodecs

            pixels = np.asarray(imagecodecs.png_decode(Path(path).read_bytes()))
        elif colors and picture.mode in CONVERTED:
            pixels = np.asarray(picture.convert("RGB"))
        else:
            pixels = np.asarray(picture)
        if turn != 1:
            told.append(
                f"turned as its EXIF orientation {turn} says: labels are expected as it is shown"
            )
        if alpha and colors:
            told.append("its alpha channel is left out: transparency is no data")
        if colors and picture.mode in CONVERTED[2:]:
            told.append(f"{picture.mode} pixels are converted to RGB")
        if getattr(picture, "n_frames", 1) > 1:
            told.append(f"the first of {picture.n_frames} pictures is read")
    if pixels.ndim == 3 and pixels.shape[2] in (2, 4):
        pixels = pixels[..., :-1]
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    return _TURNS[turn](pixels), tuple(told)


def _orientation(picture: Any) -> int:
    try:
        found = picture.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF data cost the orientation, not the picture
        return 1
    return found if found in _TURNS else 1
