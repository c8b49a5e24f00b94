"""Features in bands of rows, so that their number does not decide how much memory a tile takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from ..kernels.arrays import Array, namespace
from ..tiles import Box
from .features import Features

BYTES = 64 << 20  # of the features of a band, without the rows around it that they look at


def row_count(features: int, grid: tuple[int, ...], part: int) -> int:
    """Rows of a band: all of `part`, or equal shares of it whose features take `BYTES` at most."""
    row = 4 * features * max(1, math.prod(grid) // grid[-2])
    return math.ceil(part / math.ceil(part / max(1, BYTES // row)))


def bands(
    features: Features,
    image: np.ndarray | None,
    odds: np.ndarray | None,
    part: Box | None = None,
) -> Iterator[tuple[slice, np.ndarray]]:
    """Features (F, *band) of a part of a grid, band by band, and which of its rows they are of.

    They are bitwise those of the whole grid.

    Parameters
    ----------
    image, odds : (C, *grid) and (J', *grid)
        As `Features.compute` takes them.
    part : optional
        Pixels of the grid whose features are wanted; all by default.
    """
    planes = image if image is not None else odds
    assert planes is not None
    grid = planes.shape[1:]
    wanted = part or tuple(slice(0, n) for n in grid)
    *front, span, columns = wanted
    many = features.count(*(0 if a is None else len(a) for a in (image, odds)))
    rows, reach = row_count(many, grid, span.stop - span.start), features.radius
    for start in range(span.start, span.stop, rows):
        stop = min(start + rows, span.stop)
        low, high = max(0, start - reach), min(grid[-2], stop + reach)
        cut = (..., slice(low, high), slice(None))
        near, around = (None if a is None else a[cut] for a in (image, odds))
        inner = (*front, slice(start - low, stop - low), columns)
        everything = inner == tuple(slice(0, n) for n in (*grid[:-2], high - low, grid[-1]))
        found = features.compute(near, around, None if everything else inner)
        yield slice(start - span.start, stop - span.start), found


def joined(
    found: Iterator[tuple[slice, np.ndarray]], rows: int, of: Callable[[np.ndarray, slice], Array]
) -> Array:
    """What `of` makes of each band's features and of its rows, (n, ..., rows, x), together."""
    out: Array = None
    for place, features in found:
        made = of(features, place)
        if place == slice(0, rows):
            return made
        if out is None:
            shape = (*made.shape[:-2], rows, made.shape[-1])
            out = namespace(made).empty(shape, made.dtype)
        out[..., place, :] = made
    return out
