"""Calibrated confidence: how often the labels of pixels of a given confidence are right."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from ..kernels import namespace
from ..kernels.arrays import Array
from .entries import CalibrationEntry

BINS = 15  # of a reliability diagram, over confidences 0 to 1
CLOSEST = 2.0**-24  # of a confidence to 0 or 1: the step of float32 below 1
STEEPEST, FLATTEST = 1e2, 1e-2  # slopes; confidences keep their order
FARTHEST = 60.0  # log odds of what is calibrated, so that float32 holds it above 0
PRIOR = 10.0  # pixels that count for the confidence as it was
FEWEST, BENDS, APART = 4, 32, 200  # least and most bends, and pixels from one to the next
FITTED, HALVES = 100_000, 2  # pixels that are enough, and parts that judge each other's calibration
ROUNDS, STEP = 100, 1e-10
DIGITS = 6  # that are kept: the same on machines whose sums round differently
ONE = int(np.float32(1).view(np.int32))  # bits of 1 as float32


@dataclass(frozen=True)
class Calibration:
    """A map from the share of the winning class to the probability that its label is right.

    The log odds of the probability are slope * (log odds of the share) + offset, as Platt has it,
    and then what the bends make of them.

    Attributes
    ----------
    slope : positive, so that order is kept
    offset : what is added
    bends : log odds, and those in their place, both rising; in between it is linear, beyond nearly
        level

    Examples
    --------
    >>> import numpy as np
    >>> Calibration(0.5, 0.0).apply(np.float32([0, 0.5, 0.9])).round(2).tolist()
    [0.0, 0.5, 0.75]
    """

    slope: float = 1.0
    offset: float = 0.0
    bends: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        rising = all(a < c and b < d for (a, b), (c, d) in itertools.pairwise(self.bends))
        if not (self.slope > 0 and rising):
            raise InputError("expected a calibration that keeps the order of confidences")

    def apply(self, confidence: Array) -> Array:
        """Calibrate confidences of any shape, on their device; what is 0 (masked) stays 0.

        Parameters
        ----------
        confidence : float32, 0 or the share of the winning class

        Returns
        -------
        float32, in (0, 1] where the confidence is not 0
        """
        xp = namespace(confidence)
        # float64, so that rounding to float32 leaves no two confidences in another order
        odds = xp.clip(self.slope * _odds(confidence) + self.offset, -FARTHEST, FARTHEST)
        if self.bends:
            (first, *_, last), level = self.bends, 2 * FARTHEST * FLATTEST
            ends = [(-3 * FARTHEST, first[1] - level), *self.bends, (3 * FARTHEST, last[1] + level)]
            known, bent = (xp.asarray(axis) for axis in zip(*ends, strict=True))
            odds = xp.interp(odds.ravel(), known, bent).reshape(odds.shape)
            odds = xp.clip(odds, -FARTHEST, FARTHEST)
        found = (1 / (1 + xp.exp(-odds))).astype(np.float32)
        found[confidence == 0] = 0
        return found

    @classmethod
    def from_entry(cls, entry: CalibrationEntry | None) -> Calibration | None:
        """The calibration of a model file, None in those of earlier versions."""
        return None if entry is None else cls(entry.slope, entry.offset, tuple(entry.bends))

    def to_entry(self) -> dict[str, Any]:
        """What model files hold."""
        found: dict[str, Any] = {"slope": self.slope, "offset": self.offset}
        return found | ({"bends": [list(bend) for bend in self.bends]} if self.bends else {})


def _odds(confidence: Array) -> Array:
    """Log odds in float64, of confidences away from 0 and 1."""
    xp = namespace(confidence)
    # contiguous: loops over strided numbers may round differently
    given = xp.ascontiguousarray(confidence, dtype=np.float64)
    given = xp.clip(given, CLOSEST, 1 - CLOSEST)
    return xp.log(given / (1 - given))


@functools.lru_cache(maxsize=64)
def least(calibration: Calibration | None, probability: float) -> np.float32:
    """The least confidence that is calibrated to at least this; above 1 if there is none.

    Confidences are compared with it before they are calibrated, which saves calibrating them.
    """
    wanted = np.float32(probability)
    if calibration is None:
        return wanted
    low, high = 0, ONE + 1  # as bits, which have the order of the numbers
    while high - low > 1:
        middle = (low + high) // 2
        tried = np.array([middle], np.int32).view(np.float32)
        low, high = (low, middle) if calibration.apply(tried)[0] >= wanted else (middle, high)
    return np.array([high], np.int32).view(np.float32)[0]


def fit(confidences: np.ndarray, right: np.ndarray) -> Calibration:
    """The calibration that makes what is known of some pixels most likely.

    Besides the pixels themselves, some count that are right as often as the confidence says:
    many pixels are not moved by these, and few, or those that are all right or all wrong, leave
    the confidence nearly as it was. Where there are pixels enough, bends follow what slope and
    offset alone do not.

    Parameters
    ----------
    confidences : (n,) shares of the winning class
    right : (n,) bool, whether the label is right

    Raises
    ------
    ValueError
        If there are no pixels, or not as many of both.
    """
    given, hits = _checked(confidences, right)
    odds, count = _odds(given), len(given)
    target = (hits * count + PRIOR * given) / (count + PRIOR)
    # convex in both, so that where the best slope is out of bounds, the best is at a bound
    slope, offset = _newton(odds, target, 1.0, 0.0, True)
    if not FLATTEST <= slope <= STEEPEST:
        bound = float(np.clip(slope, FLATTEST, STEEPEST))
        slope, offset = _newton(odds, target, bound, 0.0, False)
    plain = Calibration(round(slope, DIGITS), round(offset, DIGITS))
    return Calibration(plain.slope, plain.offset, _bends(plain.slope * odds + plain.offset, hits))


def _bends(odds: np.ndarray, hits: np.ndarray) -> tuple[tuple[float, float], ...]:
    """Log odds of pixels, one of each part of them, by those of being right."""
    count = min(BENDS, len(odds) // APART)
    if count < FEWEST:
        return ()
    order = np.argsort(odds, kind="stable")
    odds, hits = odds[order], hits[order]
    starts = np.linspace(0, len(odds), count, endpoint=False).astype(int)
    # pixels of the same confidence stay together
    starts = np.unique(np.searchsorted(odds, odds[starts]))
    sizes = np.diff(starts, append=len(odds))
    place = np.add.reduceat(odds, starts) / sizes
    expected = np.add.reduceat(1 / (1 + np.exp(-odds)), starts) / sizes
    # and one pixel more, half right, so that none are right or wrong for sure
    share = (np.add.reduceat(hits, starts) + PRIOR * expected + 0.5) / (sizes + PRIOR + 1)
    share = _rising(share, sizes)
    rows = list(zip(place, _odds(share), strict=True))
    found = [rows[0]]
    for x, y in rows[1:]:  # where they are level, order is still kept
        if x - found[-1][0] >= FLATTEST:
            found.append((x, max(y, found[-1][1] + FLATTEST * (x - found[-1][0]))))
    bends = tuple((round(float(x), DIGITS), round(float(y), DIGITS)) for x, y in found)
    return bends if len(bends) >= FEWEST else ()


def _rising(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The nearest values that do not fall, by pooling those next to each other that do."""
    pools: list[tuple[float, float, int]] = []  # mean, weight, number of values
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        pools.append((value, weight, 1))
        while len(pools) > 1 and pools[-2][0] >= pools[-1][0]:
            (a, n, one), (b, m, other) = pools[-2:]
            pools[-2:] = [((a * n + b * m) / (n + m), n + m, one + other)]
    return np.repeat([p[0] for p in pools], [p[2] for p in pools])


def _newton(
    odds: np.ndarray, target: np.ndarray, slope: float, offset: float, both: bool
) -> tuple[float, float]:
    """Slope and offset of the least cross entropy, or the offset alone, by damped Newton steps."""
    tiny = 1e-6  # of a pull toward where it starts: one pixel alone leaves a line of solutions
    place, start = np.array([slope, offset]), np.array([slope, offset])

    def loss(at: np.ndarray) -> float:
        z = at[0] * odds + at[1]
        fine = (np.log1p(np.exp(-abs(z))) + np.maximum(z, 0) - target * z).mean()
        return float(fine + tiny * ((at - start) ** 2).sum() / 2)

    here = loss(place)
    for _ in range(ROUNDS):
        p = 1 / (1 + np.exp(-np.clip(place[0] * odds + place[1], -FARTHEST, FARTHEST)))
        miss, curve = p - target, p * (1 - p)
        gradient = np.array([(miss * odds).mean(), miss.mean()]) + tiny * (place - start)
        mixed = (curve * odds).mean()
        matrix = np.array([[(curve * odds * odds).mean(), mixed], [mixed, curve.mean()]])
        matrix += tiny * np.eye(2)
        if not both:
            gradient[0], matrix[0], matrix[:, 0] = 0, (1, 0), (1, 0)
        step, length = np.linalg.solve(matrix, gradient), 1.0
        there = loss(place - step)
        while not there <= here and length > STEP:
            length /= 2
            there = loss(place - length * step)
        if not there <= here:
            break
        place, here = place - length * step, there
        if abs(length * step).max() < STEP:
            break
    return float(place[0]), float(place[1])


def bins(confidences: np.ndarray, right: np.ndarray, count: int = BINS) -> list[list[float]]:
    """What a reliability diagram shows, of each bin of confidences that has pixels.

    Parameters
    ----------
    confidences : (n,) from 0 to 1
    right : (n,) bool, whether the label is right
    count : number of bins, of the same width

    Returns
    -------
    Rows of: number of pixels, their mean confidence, share of them that are right

    Examples
    --------
    >>> import numpy as np
    >>> bins(np.array([0.52, 0.53, 0.96]), np.array([True, False, True]), 10)
    [[2, 0.525, 0.5], [1, 0.96, 1.0]]
    """
    given, hits = _checked(confidences, right)
    place = np.minimum((given * count).astype(np.int64), count - 1)
    sizes, sums, good = (
        np.bincount(place, weights, minlength=count) for weights in (None, given, hits)
    )
    return [
        [int(n), round(float(total / n), DIGITS), round(float(hit / n), DIGITS)]
        for n, total, hit in zip(sizes, sums, good, strict=True)
        if n
    ]


def expected_error(confidences: np.ndarray, right: np.ndarray, count: int = BINS) -> float:
    """Expected calibration error: the gap of a bin's confidence and share, averaged over pixels."""
    return error_of(bins(confidences, right, count))


def error_of(rows: Sequence[Sequence[float]]) -> float:
    """Expected calibration error of what `bins` returns."""
    pixels = sum(row[0] for row in rows)
    return sum(n * abs(confidence - share) for n, confidence, share in rows) / pixels


def of_scores(scores: np.ndarray, labels: np.ndarray) -> tuple[Calibration, dict[str, Any]]:
    """The calibration of pixels whose labels are known, and how reliable they are by it.

    Halves of the pixels judge what was fitted to the other one: pixels in the order of their
    tiles are those of other places, or of other images.

    Parameters
    ----------
    scores : (n, J) log W0 + Z with biases, whose largest is the label
    labels : (n,) true classes from 0

    Returns
    -------
    calibration, and the rows of `bins` before ("raw") and after it ("calibrated")
    """
    shares = np.exp(scores - scores.max(axis=1, keepdims=True)).sum(axis=1)
    confidences = (1 / shares).astype(np.float32)
    right = scores.argmax(axis=1) == labels
    some = slice(None, None, -(-len(right) // FITTED))
    confidences, right = confidences[some], right[some]
    after = np.empty_like(confidences)
    parts = np.arange(len(right)) * HALVES // max(len(right), HALVES)
    for part in np.unique(parts):
        here = parts == part
        there = here if here.all() else ~here
        after[here] = fit(confidences[there], right[there]).apply(confidences[here])
    held = {"raw": bins(confidences, right), "calibrated": bins(after, right)}
    return fit(confidences, right), held


def _checked(confidences: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64."""
    given, hits = np.asarray(confidences, np.float64), np.asarray(right, np.float64)
    if given.ndim != 1 or given.shape != hits.shape or not len(given):
        raise InputError(
            f"expected the confidence of each of one or more pixels and whether its label is "
            f"right, got shapes {given.shape} and {hits.shape}"
        )
    if not ((given > 0) & (given <= 1)).all():
        raise InputError("expected confidences above 0 and up to 1")
    return given, hits
