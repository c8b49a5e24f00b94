"""Lower resolution levels: nearest neighbor for labels, means for images."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from . import ngff
from .kernels.numpy import Array
from .ngff import Pyramid
from .tiles import Box, Grid, Tile

Reduce = Callable[[Array, Sequence[int]], Array]


def nearest(block: Array, factor: Sequence[int]) -> Array:
    """Every f-th pixel along the last axes."""
    return block[..., *(slice(None, None, f) for f in factor)]


def mean(block: Array, factor: Sequence[int]) -> Array:
    """Means of f pixels along the last axes, rounded half up for integers.

    A last block of fewer pixels is filled with its border.
    """
    front = block.ndim - len(factor)
    rest = [(0, -n % f) for n, f in zip(block.shape[front:], factor, strict=True)]
    if any(after for _, after in rest):
        block = np.pad(block, [(0, 0)] * front + rest, mode="edge")
    whole = block.dtype.kind in "uib"
    count = int(np.prod(factor))
    # the narrowest type that holds the sums
    exact = block.dtype.kind == "u" and block.itemsize < 4
    small = exact and block.itemsize == 1 and count <= 256
    total = np.zeros(
        nearest(block, factor).shape, np.uint16 if small else np.uint32 if exact else np.float64
    )
    for start in itertools.product(*map(range, factor)):
        total += block[..., *(slice(s, None, f) for s, f in zip(start, factor, strict=True))]
    if exact:
        return ((total + count // 2) // count).astype(block.dtype)
    value = total / count
    return (np.floor(value + 0.5) if whole else value).astype(block.dtype)


def write(store: str, pyramid: Pyramid, core: Box, block: Array, reduce: Reduce) -> int:
    """Write a tile's pixels to level 0 and to all levels whose write units it fills.

    Returns
    -------
    size in bytes of the files
    """
    part, total = block, 0
    done: tuple[int, ...] | None = None
    for level in range(len(pyramid.shapes)):
        factor = pyramid.factor(level)
        if factor is None:
            continue
        box = _box(pyramid, level, factor, core)
        if done and all(f % d == 0 for f, d in zip(factor, done, strict=True)):
            part = reduce(part, [f // d for f, d in zip(factor, done, strict=True)])
        elif done:
            part = reduce(block, factor)
        done = factor
        trimmed = part[..., *(slice(0, s.stop - s.start) for s in box[-len(core) :])]
        if trimmed.size:
            like = None if level else pyramid.like
            total += ngff.write(store, _name(pyramid, level), box, trimmed, like)
    return total


def sizes(store: str, pyramid: Pyramid) -> Callable[[Box], int]:
    """Tells the bytes of a tile's files, as `write` gave them."""
    found = [
        (level, factor, ngff.sizes(store, _name(pyramid, level)))
        for level in range(len(pyramid.shapes))
        if (factor := pyramid.factor(level)) is not None
    ]
    return lambda core: sum(size(_box(pyramid, level, f, core)) for level, f, size in found)


def _name(pyramid: Pyramid, level: int) -> str:
    return f"{pyramid.group}/{level}".lstrip("/")


def _box(pyramid: Pyramid, level: int, factor: Sequence[int], core: Box) -> Box:
    """A tile's part of a level that it writes, with all channels."""
    front = (slice(None),) if pyramid.channels else ()
    return (
        *front,
        *(
            slice(c.start // f, min(-(-c.stop // f), n))
            for c, f, n in zip(core, factor, pyramid.shapes[level], strict=True)
        ),
    )


@dataclass(frozen=True)
class Coarse:
    """A level that tiles cannot write: made from the one before, unit by unit."""

    store: str
    pyramid: Pyramid
    reduce: Reduce
    level: int

    @property
    def units(self) -> Grid:
        """Its write units."""
        shape = self.pyramid.shapes[self.level]
        zero = (0,) * len(shape)
        return Grid(shape, zero, shape, self.pyramid.unit(self.level), zero)


def coarse(store: str, pyramid: Pyramid, reduce: Reduce) -> list[Coarse]:
    """The levels that tiles cannot write, in the order to make them in."""
    return [
        Coarse(store, pyramid, reduce, level)
        for level in range(1, len(pyramid.shapes))
        if pyramid.factor(level) is None
    ]


def finish(work: Coarse, tile: Tile) -> None:
    """Write one unit of such a level."""
    store, pyramid, level = work.store, work.pyramid, work.level
    front = (slice(None),) if pyramid.channels else ()
    shape, finer = pyramid.shapes[level], pyramid.shapes[level - 1]
    source = ngff.open_array(store, _name(pyramid, level - 1))
    ratio = ngff.whole_ratio(finer, shape)
    if ratio:
        box = tuple(slice(c.start * r, c.stop * r) for c, r in zip(tile.core, ratio, strict=True))
        part = work.reduce(np.asarray(source[(*front, *box)]), ratio)
        part = part[..., *(slice(0, c.stop - c.start) for c in tile.core)]
    else:
        part = _resampled(source, front, tile.core, finer, shape)
    ngff.write(store, _name(pyramid, level), (*front, *tile.core), part)


def _resampled(
    source: Array, front: Box, core: Box, finer: Sequence[int], shape: Sequence[int]
) -> Array:
    """Nearest neighbors where one level is no whole fraction of the other."""
    index = [
        ((2 * np.arange(c.start, c.stop) + 1) * a // (2 * n))
        for c, a, n in zip(core, finer, shape, strict=True)
    ]
    box = tuple(slice(int(i[0]), int(i[-1]) + 1) for i in index)
    block = np.asarray(source[(*front, *box)])
    for axis, i in enumerate(index):
        block = np.take(block, i - i[0], axis=axis + len(front))
    return block
