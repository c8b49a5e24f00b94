"""Neighborhoods on 2-D and 3-D grids: tuples of offsets, truncated at borders and masks."""

from __future__ import annotations

import itertools
import math
import operator
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, understood
from ..kernels.arrays import Array, Offsets
from ..kernels.numpy import shifted

MOST = 10_000  # offsets
ROUNDED = 1e-9  # share of a distance by which a product of sizes may miss it


def box(*edges: int) -> Offsets:
    """All offsets of a box with odd edges, in C order.

    Parameters
    ----------
    *edges : int
        One odd edge for each axis.

    Raises
    ------
    ValueError
        If an edge is even or less than 1.

    Examples
    --------
    >>> from tiledlaf import stencil
    >>> stencil.box(1, 3)
    ((0, -1), (0, 0), (0, 1))
    >>> len(stencil.box(3, 3, 3))
    27
    """
    if any(edge < 1 or edge % 2 == 0 for edge in edges):
        raise InputError(f"a neighborhood box needs odd edges, got {'x'.join(map(str, edges))}")
    if math.prod(edges) > MOST:
        raise InputError(
            f"a neighborhood has at most {MOST} offsets, got {'x'.join(map(str, edges))}"
        )
    return tuple(itertools.product(*(range(-(e // 2), e // 2 + 1) for e in edges)))


def rings(*distances: int) -> Offsets:
    """3x3 and, for each distance d, the 8 offsets (+-d or 0, +-d or 0).

    Parameters
    ----------
    *distances : int
        Different distances of 2 or more.

    Raises
    ------
    ValueError
        If a distance is less than 2 or occurs twice.

    Examples
    --------
    A wide neighborhood with few offsets:

    >>> from tiledlaf import stencil
    >>> offsets = stencil.rings(3, 7)
    >>> len(offsets), stencil.radius(offsets)
    (25, (7, 7))
    >>> offsets[9:17]
    ((-3, -3), (-3, 0), (-3, 3), (0, -3), (0, 3), (3, -3), (3, 0), (3, 3))
    """
    if any(d < 2 for d in distances) or len(set(distances)) < len(distances):
        raise InputError(f"rings need different distances of 2 or more, got {list(distances)}")
    far = (tuple(d * o for o in offset) for d in distances for offset in box(3, 3) if any(offset))
    return (*box(3, 3), *far)


def ball(distance: float, sizes: Sequence[float]) -> Offsets:
    """All offsets that are no longer than a distance, in C order.

    Parameters
    ----------
    distance : float
        In the unit of the sizes.
    sizes : sequence of float
        What one pixel is long along each axis.

    Raises
    ------
    ValueError
        If no neighbor is so near, or too many are.

    Examples
    --------
    Sections that are far apart do not reach each other, unless the distance does:

    >>> from tiledlaf import stencil
    >>> len(stencil.ball(15, (45, 5, 5))), stencil.radius(stencil.ball(15, (45, 5, 5)))
    (29, (0, 3, 3))
    >>> stencil.radius(stencil.ball(45, (45, 5, 5)))
    (1, 9, 9)
    """
    with understood("distance and sizes", (distance, sizes), "positive numbers"):
        far, lengths = float(distance), [float(size) for size in sizes]
    if not all(0 < number < math.inf for number in (far, *lengths)):
        raise InputError(f"a ball needs positive lengths, got {distance} and {list(sizes)}")
    about = f"got {distance:g} for pixels of {' x '.join(f'{size:g}' for size in lengths)}"
    far *= 1 + ROUNDED
    reach = [math.floor(far / size) for size in lengths]
    if not any(reach):
        raise InputError(f"a ball needs a distance of a pixel or more, {about}")
    found: list[tuple[int, ...]] = []
    if math.prod(2 * r + 1 for r in reach) <= 4 * MOST:  # a ball fills a quarter of its box or more
        within = itertools.product(*(range(-r, r + 1) for r in reach))
        found = [o for o in within if math.hypot(*map(operator.mul, o, lengths)) <= far]
    if not 0 < len(found) <= MOST:
        raise InputError(f"a ball has at most {MOST} offsets, {about}")
    return tuple(found)


def parse(text: str, ndim: int) -> Offsets:
    """Read a neighborhood: ``3x3``, ``3x3x3``, ``rings:3,7`` or a file with one offset per row.

    Parameters
    ----------
    text : str
        A file holds integers separated by whitespace or commas, one per axis in each row.
    ndim : int
        Number of axes of the grid. A 2-D neighborhood on a 3-D grid stays within its plane.

    Returns
    -------
    K offsets, tuples of `ndim` integers

    Raises
    ------
    ValueError
        If the text names no neighborhood, or one that does not fit the grid.

    Examples
    --------
    >>> from tiledlaf import stencil
    >>> stencil.parse("3x3", ndim=2) == stencil.box(3, 3)
    True
    >>> stencil.parse("1x3", ndim=3)
    ((0, 0, -1), (0, 0, 0), (0, 0, 1))
    """
    if re.fullmatch(r"\d{1,9}(x\d{1,9}){1,2}", text):
        offsets = box(*map(int, text.split("x")))
    elif re.fullmatch(r"rings:\d{1,9}(,\d{1,9})*", text):
        offsets = rings(*map(int, text[6:].split(",")))
    elif os.path.isfile(text):
        offsets = _read(text)
    else:
        raise InputError(
            "neighborhood must be like 3x3, 3x3x3, rings:3,7 or a file of offsets, or, of images "
            f"with a pixel size, a distance such as 1.5um, got {text!r}"
        )
    return fit(offsets, ndim)


def choose(neighborhood: Any, ndim: int) -> Offsets:
    """The offsets of a neighborhood: a string for `parse`, or offsets for `fit`."""
    return parse(neighborhood, ndim) if isinstance(neighborhood, str) else fit(neighborhood, ndim)


def _read(path: str) -> Offsets:
    try:
        rows = [
            tuple(int(value) for value in re.split(r"[,\s]+", line.strip()))
            for line in Path(path).read_text().splitlines()
            if line.strip() and not line.startswith("#")
        ]
    except ValueError as error:
        raise InputError(f"neighborhood file {path}: expected integer offsets, {error}") from None
    return tuple(rows)


def fit(offsets: Sequence[Sequence[int]], ndim: int) -> Offsets:
    """Check offsets and extend 2-D ones to a 3-D grid."""
    with understood("neighborhood", offsets, "a name such as 3x3 or offsets of pixels"):
        rows = tuple(tuple(int(o) for o in offset) for offset in offsets)
    sizes = {len(row) for row in rows}
    if len(sizes) != 1 or not sizes <= {2, 3}:
        raise InputError(f"offsets must all have 2 or all have 3 integers, got {rows[:3]}")
    size = sizes.pop()
    if size > ndim:
        raise InputError(f"a {size}-D neighborhood does not fit an image with {ndim} spatial axes")
    rows = tuple((0,) * (ndim - size) + row for row in rows)
    if len(set(rows)) < len(rows) or (0,) * ndim not in rows:
        raise InputError("a neighborhood needs the pixel itself (offset 0) and no offset twice")
    return rows


def radius(offsets: Offsets) -> tuple[int, ...]:
    """Largest offset along each axis."""
    return tuple(max(abs(o) for o in axis) for axis in zip(*offsets, strict=True))


def uniform(offsets: Offsets, grid: Sequence[int], valid: Array = None, xp: Any = np) -> Array:
    """Weights 1 / (number of valid neighbors), zero elsewhere: the barycenter of (2.18).

    Parameters
    ----------
    offsets : K offsets
    grid : shape of the grid
    valid : (*grid) bool, optional
        False at masked-out pixels: they have no weights and are no pixel's neighbor.
    xp : module
        numpy or cupy.

    Returns
    -------
    (K, *grid) float32

    Examples
    --------
    A row of three pixels with left and right neighbors; one row of the result per offset:

    >>> import numpy as np
    >>> from tiledlaf import stencil
    >>> offsets = stencil.box(1, 3)
    >>> stencil.uniform(offsets, (1, 3))[:, 0].round(2)
    array([[0.  , 0.33, 0.5 ],
           [0.5 , 0.33, 0.5 ],
           [0.5 , 0.33, 0.  ]], dtype=float32)

    With the last pixel masked out:

    >>> stencil.uniform(offsets, (1, 3), np.array([[True, True, False]]))[:, 0]
    array([[0. , 0.5, 0. ],
           [0.5, 0.5, 0. ],
           [0.5, 0. , 0. ]], dtype=float32)
    """
    count = xp.zeros(grid, np.uint16)
    for offset in offsets:
        here, there = shifted(offset, grid)
        count[here] += 1 if valid is None else valid[there]
    share = 1 / xp.maximum(count, 1).astype(np.float32)
    if valid is not None:
        share *= valid
    weights = xp.zeros((len(offsets), *grid), np.float32)
    for w, offset in zip(weights, offsets, strict=True):
        here, there = shifted(offset, grid)
        w[here] = share[here] if valid is None else share[here] * valid[there]
    return weights
