"""Data terms fitted to labels: class means, and a classifier with out-of-fold probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import classifier, dataterm, examples
from .cluster import Pool
from .dataterm import Classified
from .examples import Class, Example
from .features import MULTISCALE, Features
from .lessons import Lot, drawn
from .tiles import Box, within

FOLDS = 5
SAMPLES = 150_000  # pixels that a classifier is fitted to
SCALE_PIXELS = 65536  # pixels that tell the prototypes' scale


@dataclass(frozen=True)
class Source:
    """What sampling pixels takes."""

    examples: tuple[Example, ...]
    classes: tuple[Class, ...]
    features: Features | None = None


def _core(lot: Lot) -> Box:
    """The lot's own pixels in its image."""
    return tuple(
        slice(w.start + i.start, w.start + i.stop)
        for w, i in zip(lot.tile.window, lot.tile.inner, strict=True)
    )


def targets_of(example: Example, box: Box, classes: Sequence[Class]) -> np.ndarray:
    """Class numbers of a box, 0 where not labeled or masked out."""
    found = examples.targets(examples.read_labels(example.labels, box), classes)
    if example.mask is not None:
        found[examples.read(example.mask, box)[0] == 0] = 0
    return found


def label_values(everything: Sequence[Example], item: tuple[int, Any]) -> dict[int, int]:
    """How many pixels of a box have each label value; those masked out do not count."""
    number, box = item
    example = everything[number]
    found = examples.read_labels(example.labels, box)
    if example.mask is not None:
        found = found[examples.read(example.mask, box)[0] != 0]
    values, counts = np.unique(found, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def in_order(pool: Pool, function: Callable[[Any, Any], Any], job: Any, items: Any) -> list[Any]:
    """Results in the order of the items, whatever finishes first."""
    found: dict[int, Any] = {}
    numbered = list(enumerate(items))
    for (number, _), result, error, _ in pool.run(_numbered, (function, job), numbered):
        if error is not None:
            raise error
        found[number] = result
    return [found[number] for number in range(len(numbered))]


def _numbered(work: tuple[Callable[[Any, Any], Any], Any], item: tuple[int, Any]) -> Any:
    function, job = work
    return function(job, item[1])


def _sums(source: Source, lot: Lot) -> tuple[np.ndarray, np.ndarray]:
    """Sums of the pixels of each class, (J, C) float64, and their numbers."""
    example, box = source.examples[lot.example], _core(lot)
    target = targets_of(example, box, source.classes)
    pixels = examples.read(example.image, box)
    with examples.naming(example.image, box):
        dataterm.check_finite(pixels, target > 0, "image")
    sums = np.zeros((len(source.classes), len(pixels)))
    for j in range(len(source.classes)):
        sums[j] = pixels[:, target == j + 1].sum(axis=1, dtype=np.float64)
    return sums, np.bincount(target.ravel(), minlength=len(source.classes) + 1)[1:]


def _pixels(work: tuple[Source, int, int], item: tuple[int, Lot]) -> np.ndarray:
    """Some labeled pixels of a lot, (n, C)."""
    (source, count, seed), (number, lot) = work, item
    example, box = source.examples[lot.example], _core(lot)
    target = targets_of(example, box, source.classes)
    chosen = drawn(np.flatnonzero(target), count, (seed, number))
    pixels = examples.read(example.image, box)
    return pixels.reshape(len(pixels), -1)[:, chosen].T.astype(np.float64)


def class_means(pool: Pool, source: Source, lots: Sequence[Lot], seed: int) -> dataterm.Prototypes:
    """Prototypes that are the means of the labeled pixels of each class, and their scale."""
    parts = in_order(pool, _sums, source, lots)
    total = sum(sums for sums, _ in parts)
    count = sum(number for _, number in parts)
    return scaled(pool, source, lots, total / count[:, None], seed)


def scaled(
    pool: Pool, source: Source, lots: Sequence[Lot], values: Any, seed: int
) -> dataterm.Prototypes:
    """Prototypes with the scale of a sample of the labeled pixels."""
    share = -(-SCALE_PIXELS // len(lots))
    rows = in_order(pool, _pixels, (source, share, seed), list(enumerate(lots)))
    return dataterm.prototypes(np.concatenate(rows), values)


def _features(
    work: tuple[Source, int, int], item: tuple[int, Lot]
) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, F) and classes from 0 of some labeled pixels of a lot."""
    (source, count, seed), (number, lot) = work, item
    assert source.features is not None
    example, box = source.examples[lot.example], _core(lot)
    target = targets_of(example, box, source.classes)
    chosen = drawn(np.flatnonzero(target), count, (seed, number))
    reach = source.features.radius
    outer = tuple(
        slice(
            max(0, b.start - reach * (axis >= len(box) - 2)),
            min(n, b.stop + reach * (axis >= len(box) - 2)),
        )
        for axis, (b, n) in enumerate(zip(box, example.image.grid, strict=True))
    )
    image, valid = examples.read(example.image, outer), None
    if example.mask is not None:
        valid = examples.read(example.mask, outer)[0] != 0
    with examples.naming(example.image, outer):
        image = dataterm.usable(image, valid, "image")
    found = source.features.compute(image)[:, *within(outer, box)]
    rows = np.ascontiguousarray(found.reshape(len(found), -1)[:, chosen].T)
    return rows, target.ravel()[chosen].astype(np.int64) - 1


def out_of_fold(
    pool: Pool,
    source: Source,
    lots: Sequence[Lot],
    folds: Sequence[int],
    seed: int,
    progress: Callable[[str], None],
) -> list[Classified]:
    """Classifiers: for each fold one that was fitted to the others, and last one fitted to all.

    Parameters
    ----------
    folds : fold of each lot
    """
    features = source.features or MULTISCALE
    source = Source(source.examples, source.classes, features)
    share = -(-SAMPLES // len(lots))
    progress(f"features of {len(lots)} tiles")
    parts = in_order(pool, _features, (source, share, seed), list(enumerate(lots)))
    count = max(folds) + 1
    found = []
    for fold in [*range(count), count]:
        what = f"classifier {fold + 1} of {count + 1}"
        progress(what + (f", without block {fold + 1}" if fold < count else ", all tiles"))
        kept = [part for part, f in zip(parts, folds, strict=True) if f != fold]
        rows = np.concatenate([rows for rows, _ in kept])
        labels = np.concatenate([labels for _, labels in kept])
        found.append(Classified(features, _fit(rows, labels, source.classes, seed)))
    return found


def _fit(
    rows: np.ndarray, labels: np.ndarray, classes: Sequence[Class], seed: int
) -> classifier.Trees:
    missing = [c.name for j, c in enumerate(classes) if not (labels == j).any()]
    if missing:
        raise ValueError(
            f"expected labeled pixels of {', '.join(missing)} in more than one block of the "
            "training images: the classifier is fitted to the other blocks"
        )
    return classifier.fit(rows, labels, len(classes), seed)
