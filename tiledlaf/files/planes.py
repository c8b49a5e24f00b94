"""One plane of an image, small enough for a screen, from its coarsest level that will do."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from ..errors import readable
from . import image as image_files
from .image import Image, TimePoint

MOST = 2**28  # pixels of a level that are read to draw it
BAND = 2**24  # numbers read at a time
POINTS = 48  # along an edge, where a level is too large to be read
Region = tuple[Sequence[int], Sequence[int]]  # origin and size, in pixels of an image


def at_level(image: Image, level: int) -> Image:
    """The same image at a coarser level of its file; 0 is the image itself."""
    if level == 0:
        return image
    found = image.reader.look(image.path, image.level + level, image.axes)
    # levels may have fewer planes as well
    place = {
        axis: index * found.shapes[0][i] // image.shape[i]
        for axis, index in image.fixed
        for i in [image.axes.index(axis)]
    }
    time: TimePoint = "all" if "t" in image.grid_axes else place.get("t")
    coarse = image_files.make(
        image.path, image.reader, found, image.axes, time_point=time, z=place.get("z")
    )
    return dataclasses.replace(
        coarse,
        channels=image.channels,
        no_data=image.no_data,
        gain=image.gain,
        level=image.level + level,
    )


def middle(image: Image) -> int | None:
    """Number of the middle plane of a volume, None of an image without depth."""
    return image.grid[-3] // 2 if image.spatial_axes == "zyx" else None


def read(
    image: Image,
    edge: int,
    channels: Sequence[int],
    region: Region | None = None,
    labels: bool = False,
) -> np.ndarray | None:
    """The middle plane at the first time point, in bounded memory.

    Parameters
    ----------
    edge : the longest one is shown by so many pixels; up to about twice as many are returned
    channels : of those stored
    region : part of the image
    labels : whether pixels are picked, not averaged

    Returns
    -------
    (C, y, x), or None where the coarsest level is too large to be read
    """
    origin, size = region or ((0,) * len(image.grid), image.grid)
    level = _level(image, size, edge)
    coarse = at_level(image, level)
    ratios = [n / whole for n, whole in zip(coarse.grid, image.grid, strict=True)]
    start = [min(int(o * r), n - 1) for o, r, n in zip(origin, ratios, coarse.grid, strict=True)]
    stop = [
        min(max(math.ceil((o + s) * r), a + 1), n)
        for o, s, r, a, n in zip(origin, size, ratios, start, coarse.grid, strict=True)
    ]
    front = [slice(a, a + 1) for a in start[:-2]]
    if image.spatial_axes == "zyx":
        middle = start[-3] + (stop[-3] - start[-3]) // 2
        front[-1] = slice(middle, middle + 1)
    rows, columns = (slice(a, b) for a, b in zip(start[-2:], stop[-2:], strict=True))
    height, width = rows.stop - rows.start, columns.stop - columns.start
    if height * width > MOST:
        return _points(coarse, front, rows, columns, channels) if coarse.reader.chunked else None
    factor = max(1, max(height, width) // edge)
    factors = min(factor, height), min(factor, width)
    step = factors[0] * max(1, BAND // (width * factors[0] * len(channels)))
    parts = [
        _reduced(
            _pixels(coarse, (*front, slice(y, min(y + step, rows.stop)), columns), channels),
            factors,
            labels,
        )
        for y in range(rows.start, rows.stop, step)
    ]
    return np.concatenate(parts, axis=1)


def _level(image: Image, size: Sequence[int], edge: int) -> int:
    """The coarsest level by which a part of this size still fills the edge."""
    fits = [
        number
        for number, shape in enumerate(image.levels)
        if max(s * n / w for s, n, w in zip(size[-2:], shape[-2:], image.grid[-2:], strict=True))
        >= edge
    ]
    return max(fits, default=0)


def _pixels(image: Image, window: Sequence[slice], channels: Sequence[int]) -> np.ndarray:
    """Pixels of a window of one plane, (C, y, x)."""
    with readable(image.path):
        found = image.read(tuple(window), channels)
    return found.reshape(len(channels), *found.shape[-2:])


def _reduced(pixels: np.ndarray, factors: tuple[int, int], labels: bool) -> np.ndarray:
    """Means of blocks of pixels, or one of each; what is left over at the far edges is dropped."""
    down, across = factors
    if factors == (1, 1):
        return pixels
    count, height, width = pixels.shape[0], pixels.shape[1] // down, pixels.shape[2] // across
    kept = pixels[:, : height * down, : width * across]
    if labels:
        return kept[:, down // 2 :: down, across // 2 :: across]
    blocks = kept.reshape(count, height, down, width, across)
    means: np.ndarray = blocks.mean(axis=(2, 4), dtype=np.float32)
    return means.astype(pixels.dtype) if pixels.dtype.kind in "ui" else means


def _points(
    image: Image, front: Sequence[slice], rows: slice, columns: slice, channels: Sequence[int]
) -> np.ndarray:
    """Single pixels at equal distances: of each, one chunk is decoded."""

    def places(span: slice) -> list[int]:
        step = max(rows.stop - rows.start, columns.stop - columns.start) / POINTS
        count = max(1, int((span.stop - span.start) / step))
        return [span.start + int((i + 0.5) * step) for i in range(count)]

    lines = [
        np.concatenate(
            [
                _pixels(image, (*front, slice(y, y + 1), slice(x, x + 1)), channels)
                for x in places(columns)
            ],
            axis=2,
        )
        for y in places(rows)
    ]
    return np.concatenate(lines, axis=1)
