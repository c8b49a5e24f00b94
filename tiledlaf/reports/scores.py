"""Scores of labels against a truth: of pixels, and of objects."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..errors import InputError

MOST = 256  # classes; more values suggest instances or an image
# number of pixels of each pair (truth value, label value)
Pairs = Counter[tuple[int, int]]
TENTHS = (5, 6, 7, 8, 9)  # overlaps from which on objects match


@dataclass(frozen=True)
class ObjectScores:
    """How the objects of a class compare with those of the truth.

    Two objects match if their intersection over union is at least the overlap; an object has one
    match at most.

    Attributes
    ----------
    name : of the class
    truth : objects of the truth
    labels : objects of the labels
    left_out : objects of the labels more than half of whose pixels have no class in the truth;
        those without a match are not counted as wrong
    matched : pairs of objects that match at each of `overlaps`
    extra : objects of the labels without a match, but for those that are not counted
    shared : sum of the intersections over unions of the pairs that match at an overlap of 0.5
    """

    name: str
    truth: int
    labels: int
    left_out: int
    matched: tuple[int, ...]
    extra: tuple[int, ...]
    shared: float

    overlaps: ClassVar[tuple[float, ...]] = tuple(tenths / 10 for tenths in TENTHS)

    @property
    def missed(self) -> tuple[int, ...]:
        """Objects of the truth without a match at each of `overlaps`."""
        return tuple(self.truth - n for n in self.matched)

    @property
    def f1(self) -> np.ndarray:
        """F1 at each of `overlaps`; NaN if there are no objects."""
        right, extra = np.array(self.matched), np.array(self.extra)
        return _ratio(2 * right, right + extra + self.truth)

    @property
    def recognition(self) -> float:
        """Recognition quality RQ, F1 at an overlap of 0.5; NaN if there are no objects."""
        return float(self.f1[0])

    @property
    def segmentation(self) -> float:
        """Segmentation quality SQ, mean IoU of the matches at 0.5; NaN if there are none."""
        return self.shared / self.matched[0] if self.matched[0] else math.nan

    @property
    def panoptic(self) -> float:
        """Panoptic quality PQ, that is SQ times RQ; 0 without a match, NaN without objects."""
        return self.recognition * self.segmentation if self.matched[0] else self.recognition

    def as_dict(self) -> dict[str, Any]:
        """All numbers, for JSON; None for missing ones."""
        return {
            "name": self.name,
            "truth": self.truth,
            "labels": self.labels,
            "left_out": self.left_out,
            "matched": list(self.matched),
            "missed": list(self.missed),
            "extra": list(self.extra),
            "f1": [number(one) for one in self.f1],
            "segmentation_quality": number(self.segmentation),
            "recognition_quality": number(self.recognition),
            "panoptic_quality": number(self.panoptic),
        }


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
    objects : scores of the objects of each class whose objects are compared
    """

    names: tuple[str, ...]
    labels: tuple[int, ...]
    values: tuple[tuple[int, ...], ...]
    confusion: np.ndarray
    unlabeled: np.ndarray
    left_out: int
    boundary: str | None = None
    rand: float | None = None
    objects: tuple[ObjectScores, ...] = ()

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

    @property
    def mean_object_f1(self) -> np.ndarray:
        """Mean F1 of objects at each of `ObjectScores.overlaps`, over the classes that have any."""
        return np.array(
            [_mean(column) for column in zip(*(o.f1 for o in self.objects), strict=True)]
        )

    @property
    def mean_panoptic(self) -> float:
        """Mean panoptic quality over the classes that have objects; NaN if none has."""
        return _mean([one.panoptic for one in self.objects])

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
            "objects": self._objects() if self.objects else None,
        }

    def _objects(self) -> dict[str, Any]:
        return {
            "overlaps": list(ObjectScores.overlaps),
            "classes": [one.as_dict() for one in self.objects],
            "mean_f1": [number(one) for one in self.mean_object_f1],
            "mean_panoptic_quality": number(self.mean_panoptic),
        }


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def _mean(values: Sequence[float]) -> float:
    """Mean of those that are not NaN; NaN if all are."""
    found = [float(value) for value in values if not math.isnan(value)]
    return math.fsum(found) / len(found) if found else math.nan


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


def check_class(what: str, given: str, names: Sequence[str]) -> None:
    """Refuse what names no class, or several."""
    if list(names).count(given) != 1:
        raise InputError(f"expected one of the classes {', '.join(names)} as {what}, got {given!r}")


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
