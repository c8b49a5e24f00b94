"""Scores of labels against a truth: confusion matrix, pixel error, F1, IoU."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError

MOST = 256  # classes; more values suggest instances or an image
# number of pixels of each pair (truth value, label value)
Pairs = Counter[tuple[int, int]]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How labels compare with a truth; pixels whose truth is no class are left out of everything.

    Attributes
    ----------
    names : one name per class
    labels : the label value of each class
    values : the truth values of each class
    confusion : (J, J) pixels, rows truth, columns labels
    unlabeled : (J,) pixels of each class of the truth whose label is no class; they are wrong
    left_out : pixels whose truth is no class
    boundary : name of the class between components, if given
    rand : adapted Rand error, None without a boundary or if there are no two pixels to compare
    """

    names: tuple[str, ...]
    labels: tuple[int, ...]
    values: tuple[tuple[int, ...], ...]
    confusion: np.ndarray
    unlabeled: np.ndarray
    left_out: int
    boundary: str | None = None
    rand: float | None = None

    @property
    def pixels(self) -> int:
        """Number of pixels that are compared."""
        return int(self.confusion.sum() + self.unlabeled.sum())

    @property
    def error(self) -> float:
        """Share of wrong pixels."""
        return (self.pixels - int(np.trace(self.confusion))) / self.pixels

    @property
    def f1(self) -> np.ndarray:
        """F1 of each class; NaN where neither truth nor labels have it."""
        right, either = self._overlap()
        return _ratio(2 * right, right + either)

    @property
    def iou(self) -> np.ndarray:
        """Intersection over union of each class; NaN where neither truth nor labels have it."""
        right, either = self._overlap()
        return _ratio(right, either)

    @property
    def mean_f1(self) -> float:
        """Mean over the classes that truth or labels have."""
        return float(np.nanmean(self.f1))

    @property
    def mean_iou(self) -> float:
        """Mean over the classes that truth or labels have."""
        return float(np.nanmean(self.iou))

    def _overlap(self) -> tuple[np.ndarray, np.ndarray]:
        """Pixels of each class in truth and labels, and in one of the two or both."""
        right = np.diag(self.confusion)
        return right, self.confusion.sum(axis=1) + self.unlabeled + self.confusion.sum(0) - right

    def as_dict(self) -> dict[str, Any]:
        """All numbers, for JSON; None for missing ones."""
        rows = zip(self.names, self.labels, self.values, self.f1, self.iou, strict=True)
        return {
            "classes": [
                {
                    "name": name,
                    "label_value": label,
                    "truth_values": list(values),
                    "f1": number(f1),
                    "iou": number(iou),
                }
                for name, label, values, f1, iou in rows
            ],
            "confusion": self.confusion.tolist(),
            "not_labeled": self.unlabeled.tolist(),
            "pixels": self.pixels,
            "left_out": self.left_out,
            "pixel_error": self.error,
            "mean_f1": self.mean_f1,
            "mean_iou": self.mean_iou,
            "boundary": self.boundary,
            "adapted_rand_error": self.rand,
        }


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def number(value: float) -> float | None:
    """A number for JSON: None for NaN."""
    return None if math.isnan(value) else float(value)


@dataclass(frozen=True)
class Classes:
    """Name, label value and truth values of each class, in the same order."""

    names: tuple[str, ...]
    labels: tuple[int, ...]
    values: tuple[tuple[int, ...], ...]

    def of_truth(self) -> dict[int, int]:
        """Class 1..J of each truth value."""
        return {v: i for i, values in enumerate(self.values, 1) for v in values}

    def of_labels(self) -> dict[int, int]:
        """Class 1..J of each label value."""
        return {v: i for i, v in enumerate(self.labels, 1)}


def mapped(
    stands: Mapping[int, Sequence[int]], named: Mapping[int, str], ignore: set[int], path: str
) -> Classes:
    """Classes that stand for truth values."""
    seen: dict[int, int] = {}
    for label, values in stands.items():
        for v in values:
            if seen.setdefault(v, label) != label:
                raise InputError(
                    f"{path}: expected each truth value in one class, got {v} in those of the "
                    f"labels {seen[v]} and {label}"
                )
    # an entry for 0 without truth values describes what is not labeled
    order = tuple(v for v in sorted(stands) if v or stands[v])
    return Classes(
        tuple(named.get(v, f"class {v}") for v in order),
        order,
        tuple(tuple(sorted({*stands[v]} - ignore)) for v in order),
    )


def compared(
    pairs: Pairs, named: Mapping[int, str], ignore: set[int], own: bool, path: str
) -> Classes:
    """One class for each value that truth or labels have where they are compared."""
    kept = [(t, v) for t, v in pairs if t not in ignore]
    present = {t for t, _ in kept} | {v for _, v in kept if not (own and v == 0)} - ignore
    check_few(len(present), path)
    order = tuple(sorted(present))
    return Classes(tuple(named.get(v, str(v)) for v in order), order, tuple((v,) for v in order))


def check_few(count: int, path: str) -> None:
    """Refuse more values than classes can have."""
    if count > MOST:
        raise InputError(
            f"{path}: expected a label image of at most {MOST} classes, got {count} different "
            "values (instances or an image?)"
        )


def check_boundary(boundary: str | None, names: Sequence[str]) -> None:
    """Refuse a boundary that names no class."""
    if boundary is not None and list(names).count(boundary) != 1:
        raise InputError(
            f"expected one of the classes {', '.join(names)} as boundary, got {boundary!r}"
        )


def sum_up(pairs: Pairs, classes: Classes, labels: str, truth: str, strict: bool) -> Evaluation:
    """The scores from the counts of all pairs of values."""
    rows, columns = classes.of_truth(), classes.of_labels()
    # the first column is for labels that are no class
    table = np.zeros((len(classes.names), len(classes.names) + 1), np.int64)
    left_out = 0
    for (wanted, given), count in pairs.items():
        if wanted not in rows:
            left_out += count
            continue
        if strict and given and given not in columns:
            raise InputError(
                f"{labels}: expected the label values {', '.join(map(str, columns))} of its "
                f"classes, or 0, got {given}"
            )
        table[rows[wanted] - 1, columns.get(given, 0)] += count
    if not table.any():
        expected = f"the values {_listed(rows)} of the classes" if rows else "a value to compare"
        raise InputError(
            f"{truth}: expected pixels with {expected}, got only {_listed(t for t, _ in pairs)}"
        )
    return Evaluation(
        classes.names, classes.labels, classes.values, table[:, 1:], table[:, 0], left_out
    )


def _listed(values: Any) -> str:
    different = sorted(set(values))
    more = ", ..." if len(different) > 10 else ""
    return ", ".join(map(str, different[:10])) + more


def look_up(block: np.ndarray, table: Mapping[int, int]) -> np.ndarray:
    """The class of each value, 0 where it has none."""
    limits = np.iinfo(block.dtype)  # NumPy would compare int64 with uint64 as float64
    keys = np.array([k for k in sorted(table) if limits.min <= k <= limits.max], block.dtype)
    codes = np.array([table[int(k)] for k in keys], np.uint16)
    if not len(keys):
        return np.zeros(block.shape, np.uint16)
    place = np.searchsorted(keys, block).clip(max=len(keys) - 1)
    return np.where(keys[place] == block, codes[place], np.uint16(0))
