"""Judge ways to label by the pieces that a class, such as membranes, leaves between it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..kernels.arrays import to_host
from ..model.predictor import Predictor
from .judging import Bench, Biases, Verdict
from .worker import FlowSettings, Scored, TileData

# pixels that may be of the class, in times of those with the fewest wrong pixels
TIMES = (0.8, 1, 1.2, 1.4, 1.7, 2, 2.4, 2.8)
MOST = 0.95  # share of pixels that may be of it


def candidates(found: Sequence[Scored], bias: np.ndarray, between: int) -> np.ndarray:
    """Biases (n, J) with which more pixels, or fewer, are of the class `between`, from 0."""
    rows = np.concatenate([one.rows for one in found]) + bias
    others = np.delete(rows, between, axis=1).max(axis=1)
    margin = rows[:, between] - others
    share = float((margin > 0).mean())
    shares = np.clip(np.multiply(TIMES, share), 0, MOST)
    result = np.tile(bias, (len(shares), 1))
    result[:, between] -= np.quantile(margin, 1 - shares)
    return result - result.mean(axis=1, keepdims=True)


def rand_errors(
    argument: tuple[FlowSettings, Predictor | None, np.ndarray, int], data: TileData
) -> np.ndarray:
    """Adapted Rand error of a tile's pieces with each of some biases (n, J); NaN without pieces.

    Pieces are what hangs together by edges within a class other than `between`, from 0. Pixels
    that are `between` in truth, or not labeled, are not compared.
    """
    from skimage.measure import label
    from skimage.metrics import adapted_rand_error

    flow, predictor, biases, between = argument
    found, _ = data.linearization(flow, predictor, None)
    data.memo = None
    target, z = to_host(data.target), to_host(found.z)
    places = [np.flatnonzero(target.any(axis=other)) for other in _others(target.ndim)]
    box = tuple(slice(p[0], p[-1] + 1) for p in places)
    target, z = target[box], z[:, *box]
    truth = label(np.where(target == between + 1, 0, target), background=0, connectivity=1)
    errors = np.empty(len(biases))
    for number, bias in enumerate(biases):
        labels = np.zeros(target.shape, np.int64)
        given = (z + bias.astype(z.dtype).reshape(-1, *(1,) * target.ndim)).argmax(axis=0)
        labels[given != between] = given[given != between] + 1
        with np.errstate(invalid="ignore", divide="ignore"):  # if there is no pair of pixels
            pieces = label(labels, background=0, connectivity=1)
            errors[number] = adapted_rand_error(truth, pieces)[0]
    return errors


def _others(ndim: int) -> list[tuple[int, ...]]:
    """For each axis all other ones."""
    return [tuple(a for a in range(ndim) if a != axis) for axis in range(ndim)]


def judge(
    errors: Sequence[np.ndarray], tried: np.ndarray, bench: Bench
) -> tuple[Verdict, Biases] | None:
    """Mean errors of tiles, each side with the biases that are best for the others; and these.

    Parameters
    ----------
    errors : one for each tile, (n,), as from `rand_errors`
    tried : (n, J), the biases

    Returns
    -------
    None if no tile has pieces to compare.
    """
    table, sides = np.array(errors), np.array(bench.sides)
    there = ~np.isnan(table).any(axis=1)
    if not there.any():
        return None
    best, each = _best(table[there]), {}
    for side in dict.fromkeys(bench.sides):
        others = there & ((sides != side) | (len(set(bench.sides)) == 1))
        each[side] = _best(table[others]) if others.any() else best
    rows = zip(table[there], sides[there], strict=True)
    wrong = np.array([row[each[side]] for row, side in rows])
    verdict = Verdict(tried[best], wrong, np.ones(len(wrong)))
    return verdict, Biases(tried[best], {side: tried[n] for side, n in each.items()})


def _best(table: np.ndarray) -> int:
    """Number of the column with the least mean."""
    return int(table.mean(axis=0).argmin())
