"""Numbers of judged images, and what the images and seeds of a method say together."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

BINS = 15  # of confidence
Cell = Mapping[str, Any]


def numbers(
    labels: np.ndarray, p: np.ndarray | None, truth: np.ndarray, classes: int, between: int
) -> dict[str, Any]:
    """What is kept of a judged image.

    Parameters
    ----------
    labels, truth : 1..J, 0 where there is none
    p : probability of each pixel's label, or None
    between : label of the class between segments; 0: segments are not compared
    """
    known = truth > 0
    pairs = (truth[known].astype(np.int64) - 1) * (classes + 1) + labels[known]
    table = np.bincount(pairs, minlength=classes * (classes + 1)).reshape(classes, -1)
    found: dict[str, Any] = {"confusion": table.tolist()}
    found["error"] = 1 - float(np.trace(table[:, 1:]) / table.sum())
    if p is not None:
        given = p[known].astype(np.float64)
        place = np.minimum((given * BINS).astype(np.int64), BINS - 1)
        right = (labels == truth)[known]
        found["bins"] = [
            np.bincount(place, what, BINS).tolist() for what in (np.ones(len(given)), given, right)
        ]
    if between:
        found |= segments(labels, truth, between)
    return found


def segments(labels: np.ndarray, truth: np.ndarray, between: int) -> dict[str, float]:
    """Adapted Rand error and variation of information of what lies between a class.

    Pixels that the truth gives to that class are not compared, as in the ISBI 2012 challenge.
    """
    from skimage.measure import label
    from skimage.metrics import adapted_rand_error, variation_of_information

    ours, wanted = (
        label((given != between) & (given > 0), background=0, connectivity=1)
        for given in (labels, truth)
    )
    inside = wanted > 0
    split, merged = variation_of_information(wanted[inside], ours[inside])
    rand = adapted_rand_error(wanted, ours)[0]
    return {"rand": float(rand), "voi": float(split + merged)}


def f1(table: np.ndarray, group: Sequence[int]) -> float:
    """F1 of some classes from 0, taken as one; of a table with a first column of no label."""
    rows, columns = list(group), [g + 1 for g in group]
    right = table[np.ix_(rows, columns)].sum()
    return float(2 * right / max(table[rows].sum() + table[:, columns].sum(), 1))


def calibration(bins: np.ndarray) -> float:
    """Expected calibration error of (3, bins): pixels, sums of confidence, right ones."""
    count, claimed, right = bins
    return float(np.abs(claimed - right).sum() / max(count.sum(), 1))


@dataclass(frozen=True)
class Difference:
    """Mean of paired differences and its standard error; NaN where there is one pair alone."""

    mean: float
    error: float
    count: int

    def __str__(self) -> str:
        return f"{self.mean:+.2f} ± {self.error:.2f}" if self.count else ""

    @property
    def worse(self) -> bool:
        """Whether it is above 0 by more than 2 standard errors."""
        return self.mean > 2 * self.error


def paired(cells: Sequence[Cell], others: Sequence[Cell], what: str = "error") -> Difference:
    """A number of some cells minus that of others, of the same images and seeds."""
    theirs = {(c["seed"], row["name"]): row[what] for c in others for row in c["images"]}
    found = [
        row[what] - theirs[c["seed"], row["name"]]
        for c in cells
        for row in c["images"]
        if (c["seed"], row["name"]) in theirs
    ]
    if not found:
        return Difference(math.nan, math.nan, 0)
    spread = np.std(found, ddof=1) / math.sqrt(len(found)) if len(found) > 1 else math.nan
    return Difference(float(np.mean(found)), float(spread), len(found))


@dataclass(frozen=True)
class Summary:
    """Means over seeds of a method's numbers, each of all judged pixels together.

    Attributes
    ----------
    error, calibration : in percent; NaN where a method has no confidence
    classes : F1 of each class
    """

    seeds: int
    error: float
    thin: float
    classes: tuple[float, ...]
    seconds: float
    tuning: float
    calibration: float
    rand: float
    voi: float


def summary(cells: Sequence[Cell], thin: Sequence[int]) -> Summary:
    """The numbers of a method on a set; `thin` are classes from 0."""
    tables = [np.sum([r["confusion"] for r in c["images"]], axis=0) for c in cells]
    bins = [
        np.sum([r["bins"] for r in c["images"]], axis=0) for c in cells if "bins" in c["images"][0]
    ]

    def mean(name: str) -> float:
        found = [r[name] for c in cells for r in c["images"] if name in r]
        return float(np.mean(found)) if found else math.nan

    return Summary(
        len(cells),
        100 * float(np.mean([1 - np.trace(t[:, 1:]) / t.sum() for t in tables])),
        float(np.mean([f1(t, thin) for t in tables])),
        tuple(float(np.mean([f1(t, [j]) for t in tables])) for j in range(len(tables[0]))),
        float(np.mean([c["seconds"] for c in cells])),
        float(np.mean([c["tuning"] for c in cells])),
        100 * float(np.mean([calibration(b) for b in bins])) if bins else math.nan,
        mean("rand"),
        mean("voi"),
    )


def first(found: Mapping[str, float], lowest: bool = True) -> list[str]:
    """Names in the order of their numbers, those without one left out."""
    known = {name: value for name, value in found.items() if not math.isnan(value)}
    order: Callable[[str], float] = known.__getitem__
    return sorted(known, key=order, reverse=not lowest)
