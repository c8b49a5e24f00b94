"""Data terms fitted to labels: class means, and a classifier with out-of-fold probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..files import image as image_files
from ..model import sampling, terms, trees
from ..model.classes import Class
from ..model.features import MULTISCALE, Features
from ..model.terms import Classified
from ..pool import tasks
from ..pool.tasks import Pool
from ..tiles import Box, within
from . import examples
from .examples import Example
from .worker import LabeledTile, drawn

FOLDS = 5
SAMPLES = 150_000  # pixels that a classifier is fitted to
SCALE_PIXELS = 65536  # pixels that tell the prototypes' scale


@dataclass(frozen=True)
class Source:
    """What sampling pixels takes."""

    examples: tuple[Example, ...]
    classes: tuple[Class, ...]
    features: Features | None = None


def _core(lot: LabeledTile) -> Box:
    """The lot's own pixels in its image."""
    return tuple(
        slice(w.start + i.start, w.start + i.stop)
        for w, i in zip(lot.tile.window, lot.tile.inner, strict=True)
    )


def targets_of(example: Example, box: Box, classes: Sequence[Class]) -> np.ndarray:
    """Class numbers of a box, 0 where not labeled or masked out."""
    found = examples.targets(examples.read_labels(example.labels, box), classes)
    if example.mask is not None:
        found[image_files.read(example.mask, box)[0] == 0] = 0
    return found


def label_values(everything: Sequence[Example], item: tuple[int, Any]) -> dict[int, int]:
    """How many pixels of a box have each label value; those masked out do not count."""
    number, box = item
    example = everything[number]
    found = examples.read_labels(example.labels, box)
    if example.mask is not None:
        found = found[image_files.read(example.mask, box)[0] != 0]
    values, counts = np.unique(found, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _sums(source: Source, lot: LabeledTile) -> tuple[np.ndarray, np.ndarray]:
    """Sums of the pixels of each class, (J, C) float64, and their numbers."""
    example, box = source.examples[lot.example], _core(lot)
    target = targets_of(example, box, source.classes)
    pixels = image_files.read(example.image, box)
    with examples.naming(example.image, box):
        terms.check_finite(pixels, target > 0, "image")
    sums = np.zeros((len(source.classes), len(pixels)))
    for j in range(len(source.classes)):
        sums[j] = pixels[:, target == j + 1].sum(axis=1, dtype=np.float64)
    return sums, np.bincount(target.ravel(), minlength=len(source.classes) + 1)[1:]


def _pixels(work: tuple[Source, int, int], item: tuple[int, LabeledTile]) -> np.ndarray:
    """Some labeled pixels of a lot, (n, C)."""
    (source, count, seed), (number, lot) = work, item
    example, box = source.examples[lot.example], _core(lot)
    target = targets_of(example, box, source.classes)
    chosen = drawn(np.flatnonzero(target), count, (seed, number))
    pixels = image_files.read(example.image, box)
    return pixels.reshape(len(pixels), -1)[:, chosen].T.astype(np.float64)


def class_means(
    pool: Pool, source: Source, lots: Sequence[LabeledTile], seed: int
) -> terms.Prototypes:
    """Prototypes that are the means of the labeled pixels of each class, and their scale."""
    parts = tasks.in_order(pool, _sums, source, lots)
    total = sum(sums for sums, _ in parts)
    count = sum(number for _, number in parts)
    return scaled(pool, source, lots, total / count[:, None], seed)


def scaled(
    pool: Pool, source: Source, lots: Sequence[LabeledTile], values: Any, seed: int
) -> terms.Prototypes:
    """Prototypes with the scale of a sample of the labeled pixels."""
    share = -(-SCALE_PIXELS // len(lots))
    rows = tasks.in_order(pool, _pixels, (source, share, seed), list(enumerate(lots)))
    return sampling.prototypes(np.concatenate(rows), values)


def _features(
    work: tuple[Source, int, int], item: tuple[int, LabeledTile]
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
    image, valid = image_files.read(example.image, outer), None
    if example.mask is not None:
        valid = image_files.read(example.mask, outer)[0] != 0
    with examples.naming(example.image, outer):
        image = terms.usable(image, valid, "image")
    found = source.features.compute(image)[:, *within(outer, box)]
    rows = np.ascontiguousarray(found.reshape(len(found), -1)[:, chosen].T)
    return rows, target.ravel()[chosen].astype(np.int64) - 1


def out_of_fold(
    pool: Pool,
    source: Source,
    lots: Sequence[LabeledTile],
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
    parts = tasks.in_order(pool, _features, (source, share, seed), list(enumerate(lots)))
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


def _fit(rows: np.ndarray, labels: np.ndarray, classes: Sequence[Class], seed: int) -> trees.Trees:
    missing = [c.name for j, c in enumerate(classes) if not (labels == j).any()]
    if missing:
        raise ValueError(
            f"expected labeled pixels of {', '.join(missing)} in more than one block of the "
            "training images: the classifier is fitted to the other blocks"
        )
    return trees.fit(rows, labels, len(classes), seed)
