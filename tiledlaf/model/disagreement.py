"""How much data terms disagree that were fitted without one fold of the labeled pixels each."""

from __future__ import annotations

from collections.abc import Sequence

from ..kernels import select
from ..kernels.arrays import Array, namespace
from .term import DataTerm


def deviation(
    folds: Sequence[DataTerm],
    pixels: Array,
    valid: Array,
    labels: Array,
    part: Sequence[slice],
) -> Array:
    """Standard deviation over the folds of the probability of each pixel's label.

    Where an image is unlike all that was learned from, a single term is confident even so, and
    several contradict each other.

    Parameters
    ----------
    folds : one or more data terms
    pixels : (C, *grid), of a window
    valid : (*grid) bool or None
    labels : of a part of the window, from 1; where it is 0 the result has no meaning
    part : of the window

    Returns
    -------
    float64, of the shape of `labels`, on their device
    """
    xp = namespace(pixels)
    wanted = xp.maximum(labels, 1).astype(xp.int64)[None] - 1
    found = []
    for term in folds:
        p = select(pixels).softmax(term.potential(pixels, valid, 1.0))
        found.append(xp.take_along_axis(p[:, *part], wanted, axis=0)[0].astype(xp.float64))
    # one after the other: the order of a sum over an axis may depend on the grid
    mean = sum(found[1:], start=found[0]) / len(found)
    squares = [(p - mean) ** 2 for p in found]
    return xp.sqrt(sum(squares[1:], start=squares[0]) / len(found))
