"""Lower resolution levels: nearest neighbor for labels, means for images."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from . import ngff
from .kernels.numpy import Array
from .ngff import Pyramid
from .tiles import Box, Grid

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


def write(store: str, pyramid: Pyramid, core: Box, block: Array, reduce: Reduce) -> None:
    """Write a tile's pixels to level 0 and to all levels whose write units it fills."""
    front = (slice(None),) if pyramid.channels else ()
    part = block
    done: tuple[int, ...] | None = None
    for level in range(len(pyramid.shapes)):
        factor = pyramid.factor(level)
        if factor is None:
            continue
        if done and all(f % d == 0 for f, d in zip(factor, done, strict=True)):
            part = reduce(part, [f // d for f, d in zip(factor, done, strict=True)])
        elif done:
            part = reduce(block, factor)
        done = factor
        small = tuple(
            slice(c.start // f, min(c.start // f + p, n))
            for c, f, p, n in zip(
                core, factor, part.shape[len(front) :], pyramid.shapes[level], strict=True
            )
        )
        trimmed = part[..., *(slice(0, s.stop - s.start) for s in small)]
        if trimmed.size:
            like = None if level else pyramid.like
            name = f"{pyramid.group}/{level}".lstrip("/")
            ngff.write(store, name, (*front, *small), trimmed, like)


def finish(store: str, pyramid: Pyramid, reduce: Reduce) -> None:
    """Write the levels that tiles could not, each from the one before, unit by unit."""
    front = (slice(None),) if pyramid.channels else ()
    for level in range(1, len(pyramid.shapes)):
        if pyramid.factor(level) is not None:
            continue
        shape, finer = pyramid.shapes[level], pyramid.shapes[level - 1]
        source = ngff.open_array(store, f"{pyramid.group}/{level - 1}".lstrip("/"))
        ratio = ngff.whole_ratio(finer, shape)
        zero = (0,) * len(shape)
        for tile in Grid(shape, zero, shape, pyramid.unit(level), zero):
            if ratio:
                box = tuple(
                    slice(c.start * r, c.stop * r) for c, r in zip(tile.core, ratio, strict=True)
                )
                part = reduce(np.asarray(source[(*front, *box)]), ratio)
                part = part[..., *(slice(0, c.stop - c.start) for c in tile.core)]
            else:
                part = _resampled(source, front, tile.core, finer, shape)
            ngff.write(store, f"{pyramid.group}/{level}".lstrip("/"), (*front, *tile.core), part)


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
