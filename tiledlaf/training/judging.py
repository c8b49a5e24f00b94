"""Judge ways to label by pixels that they were not learned from: errors, biases, and a choice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError, understood
from ..model import calibration
from ..model.calibration import Calibration
from .worker import Scored

CONFUSED = 64  # classes up to which it is kept which ones were confused
PRIORS = ("labels", "none")
ABOUT = 0.01  # by which shares may miss 1 in sum, since people round them


@dataclass(frozen=True)
class Bench:
    """Pixels to judge by, cut into tiles.

    Attributes
    ----------
    sides : round of each tile, in which its pixels were not learned from
    units : number of the image of each tile, or of the tile where images are few
    weights : (J,), what a pixel of each class counts; None: all alike, and biases are not fitted,
        since the labels do not say how often a class occurs
    """

    sides: Sequence[int]
    units: Sequence[int]
    weights: np.ndarray | None = None


@dataclass(frozen=True)
class Verdict:
    """What was found of one way to label.

    Attributes
    ----------
    bias : (J,), of all tiles
    wrong, labeled : (U,), wrong and all pixels of each unit, by their weights
    confusion : pixels of each class (rows) by the class that they get; None for many classes
    """

    bias: np.ndarray
    wrong: np.ndarray
    labeled: np.ndarray
    confusion: list[list[int]] | None = None

    @property
    def error(self) -> float:
        """Share of wrong pixels."""
        return float(self.wrong.sum() / self.labeled.sum())

    @property
    def shares(self) -> np.ndarray:
        """Wrong pixels of each unit, (U,), in shares of all pixels."""
        return self.wrong / self.labeled.sum()

    @property
    def deviation(self) -> float:
        """Standard error of this share over the units, infinite for one unit."""
        return _deviation(self.wrong, self.labeled)

    @property
    def interval(self) -> tuple[float, float]:
        """Two standard errors around it, within 0 and 1."""
        return max(0.0, self.error - 2 * self.deviation), min(1.0, self.error + 2 * self.deviation)


def _deviation(numerator: np.ndarray, denominator: np.ndarray) -> float:
    """Standard error of a ratio of sums over units."""
    count = len(numerator)
    if count < 2:
        return math.inf
    rest = numerator - numerator.sum() / denominator.sum() * denominator
    return float(np.sqrt(count / (count - 1) * (rest**2).sum()) / denominator.sum())


class Biases(NamedTuple):
    """Biases (J,) of all tiles, and of each side, which come of the other ones."""

    all: np.ndarray
    sides: dict[int, np.ndarray]


def judge(found: Sequence[Scored], bench: Bench, biases: Biases | None = None) -> Verdict:
    """Errors of scores, each side of the tiles with biases that were fitted to the others.

    Of a single side, biases are fitted to the pixels that they are judged by.

    Parameters
    ----------
    found : one for each tile, with J scores of each of its pixels
    biases : None: with the fewest errors
    """
    units, count = np.array(bench.units), found[0].rows.shape[1]
    worth = np.ones(count) if bench.weights is None else bench.weights
    bias, each = biases or fewest(found, bench)
    wrong, labeled = np.zeros((2, int(units.max()) + 1))
    table = np.zeros(count**2 if count <= CONFUSED else 0, np.int64)
    for one, side, unit in zip(found, bench.sides, units, strict=True):
        given = (one.rows + each[side]).argmax(axis=1)
        wrong[unit] += worth[one.labels[given != one.labels]].sum()
        labeled[unit] += worth[one.labels].sum()
        if len(table):
            table += np.bincount(count * one.labels + given, minlength=count**2)
    there = labeled > 0
    confusion = table.reshape(count, count).tolist() if len(table) else None
    return Verdict(bias, wrong[there], labeled[there], confusion)


def calibrated(
    found: Sequence[Scored], bench: Bench, biases: Biases | None = None
) -> tuple[Calibration, dict[str, Any]]:
    """Calibration of these scores, with the biases that `judge` gives them; how reliable it is."""
    _, each = biases or fewest(found, bench)
    rows = [one.rows + each[side] for one, side in zip(found, bench.sides, strict=True)]
    labels = np.concatenate([one.labels for one in found])
    return calibration.of_scores(np.concatenate(rows), labels)


def fewest(found: Sequence[Scored], bench: Bench) -> Biases:
    """Biases with the fewest errors, if without them other sides than theirs have more.

    0 where the labels do not say how often a class occurs. What the user says of that is obeyed.
    """
    none = np.zeros(found[0].rows.shape[1])
    without = Biases(none, dict.fromkeys(bench.sides, none))
    if bench.weights is None:
        return without
    bias = _fitted(found, bench.weights)
    each = dict.fromkeys(bench.sides, bias)
    if len(each) > 1:
        pairs = list(zip(found, bench.sides, strict=True))
        for side in each:
            others = [one for one, other in pairs if other != side]
            each[side] = _fitted(others, bench.weights)
    fitted = Biases(bias, each)
    if len(each) == 1 or (bench.weights != 1).any():
        return fitted
    return min((without, fitted), key=lambda biases: judge(found, bench, biases).error)


def _fitted(found: Sequence[Scored], weights: np.ndarray) -> np.ndarray:
    rows = np.concatenate([one.rows for one in found])
    labels = np.concatenate([one.labels for one in found])
    return fit_bias(rows, labels, weights=None if (weights == 1).all() else weights)[0]


def choose(verdicts: Sequence[Verdict]) -> int:
    """The simplest way, of all in order, that is not worse than the best by a standard error.

    Verdicts of the same tiles are compared unit by unit, by the shares of their pixels: these may
    be others, or more.
    """
    best = min(range(len(verdicts)), key=lambda i: verdicts[i].error)
    for i, one in enumerate(verdicts[:best]):
        more = one.shares - verdicts[best].shares
        if one.error - verdicts[best].error <= _deviation(more, one.labeled / one.labeled.sum()):
            return i
    return best


def checked_priors(given: Any) -> str | tuple[float, ...]:
    """How often classes occur: a word of `PRIORS`, or shares that sum to 1."""
    if isinstance(given, str):
        if given not in PRIORS:
            raise InputError(f"priors must be {', '.join(PRIORS)} or shares, got {given!r}")
        return given
    with understood("priors", given, f"{', '.join(PRIORS)} or shares"):
        shares = tuple(map(float, given))
    if not all(0 < share < 1 for share in shares) or abs(sum(shares) - 1) > ABOUT:
        listed = ", ".join(f"{share:g}" for share in shares)
        raise InputError(
            f"priors must be shares between 0 and 1 that sum to 1, got {listed} (sum "
            f"{sum(shares):g})"
        )
    return shares


def fit_bias(
    scores: np.ndarray,
    labels: np.ndarray,
    rounds: int = 3,
    weights: np.ndarray | None = None,
) -> tuple[np.ndarray, float]:
    """Biases that, added to the scores, make the fewest errors; found class after class.

    That of a class without labels only moves where this saves errors: how far it may rise without
    an error says nothing.

    Parameters
    ----------
    scores : (n, J)
    labels : (n,) from 0
    weights : (J,), what an error at a pixel of each class counts; None: 1

    Returns
    -------
    bias : (J,), mean 0
    error : share of wrong labels, by these weights
    """
    rows = scores.astype(np.float64)
    count = rows.shape[1]
    bias = np.zeros(count)
    there = np.bincount(labels, minlength=count) > 0
    costs: np.ndarray = (np.ones(count, np.int64) if weights is None else weights)[labels]
    for again in range(1 if count == 2 else rounds):
        for j in range(1 if count == 2 else 0, count):
            others = rows + bias
            others[:, j] = -np.inf
            rival = others.max(axis=1)
            # from this bias on, the pixel is given to class j
            turn = rival - rows[:, j]
            gain = np.where(labels == j, -costs, costs) * (
                (labels == j) | (others.argmax(axis=1) == labels)
            )
            order = np.argsort(turn, kind="stable")
            wrong = np.concatenate([[0], np.cumsum(gain[order])])
            sorted_turn = turn[order]
            ends = np.concatenate([[sorted_turn[0] - 1], sorted_turn, [sorted_turn[-1] + 1]])
            middle = (ends[:-1] + ends[1:]) / 2
            # a bias can lie only between different values
            apart = np.concatenate([[True], sorted_turn[1:] > sorted_turn[:-1], [True]])
            wrong = np.where(apart, wrong, costs.sum() + 1)
            best = np.flatnonzero(wrong == wrong.min())
            here = np.searchsorted(sorted_turn, bias[j])
            tied = here < len(turn) and sorted_turn[here] == bias[j]
            alone = not there[j] or there.sum() < 2
            if (again or alone) and not tied and wrong[here] == wrong.min():
                continue  # a move that saves no error could hide one of another class that does
            bias[j] = middle[best[np.abs(middle[best] - bias[j]).argmin()]]
    bias -= bias.mean()
    wrong = (rows + bias).argmax(axis=1) != labels
    return bias, float(costs[wrong].sum() / costs.sum())
