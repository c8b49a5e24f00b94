"""Data terms fitted to labels: class means, and a classifier with out-of-fold probabilities."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import image as image_files
from ..model import intensity, sampling, terms, trees
from ..model.classes import Class
from ..model.features import MULTISCALE, Features
from ..model.terms import Classified, DataTerm, Prototypes
from ..pool import tasks
from ..pool.tasks import Pool
from ..tiles import Box, within
from . import examples
from .examples import Example
from .worker import LabeledTile, drawn

FOLDS = 5
SAMPLES = 150_000  # pixels that a classifier is fitted to
SCALE_PIXELS = 65536  # pixels from which the prototypes' scale is found


@dataclass(frozen=True)
class Source:
    """What is needed to sample pixels."""

    examples: tuple[Example, ...]
    classes: tuple[Class, ...]
    features: Features | None = None


@dataclass(frozen=True)
class Fit:
    """What is needed to fit a data term.

    Attributes
    ----------
    tiles, folds : labeled tiles, and the fold of each
    say : called with the name of each stage
    """

    pool: Pool
    source: Source
    tiles: Sequence[LabeledTile]
    folds: Sequence[int]
    seed: int
    say: Callable[[str], None]

    def sample(self) -> np.ndarray:
        """Some of the labeled pixels, (n, C)."""
        share = -(-SCALE_PIXELS // len(self.tiles))
        work, numbered = (self.source, share, self.seed), list(enumerate(self.tiles))
        return np.concatenate(tasks.in_order(self.pool, _pixels, work, numbered))


def _core(labeled: LabeledTile) -> Box:
    """The tile's own pixels in its image."""
    return tuple(
        slice(w.start + i.start, w.start + i.stop)
        for w, i in zip(labeled.tile.window, labeled.tile.inner, strict=True)
    )


def targets_of(example: Example, box: Box, classes: Sequence[Class]) -> np.ndarray:
    """Class numbers of a box, 0 where not labeled or masked out."""
    found = examples.targets(examples.read_labels(example.labels, box), classes)
    valid = examples.valid_of(example, box)
    if valid is not None:
        found[~valid] = 0
    return found


def label_values(everything: Sequence[Example], item: tuple[int, Any]) -> dict[int, int]:
    """How many pixels of a box have each label value; those masked out do not count."""
    number, box = item
    example = everything[number]
    found = examples.read_labels(example.labels, box)
    valid = examples.valid_of(example, box)
    if valid is not None:
        found = found[valid]
    values, counts = np.unique(found, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _sums(source: Source, labeled: LabeledTile) -> tuple[np.ndarray, np.ndarray]:
    """Sums of the pixels of each class, (J, C) float64, and how many there are."""
    example, box = source.examples[labeled.example], _core(labeled)
    target = targets_of(example, box, source.classes)
    pixels = image_files.read(example.image, box)
    with examples.naming(example.image, box):
        terms.check_finite(pixels, target > 0, "image")
    sums = np.zeros((len(source.classes), len(pixels)))
    for j in range(len(source.classes)):
        sums[j] = pixels[:, target == j + 1].sum(axis=1, dtype=np.float64)
    return sums, np.bincount(target.ravel(), minlength=len(source.classes) + 1)[1:]


def _pixels(work: tuple[Source, int, int], item: tuple[int, LabeledTile]) -> np.ndarray:
    """Some labeled pixels of a tile, (n, C)."""
    (source, count, seed), (number, labeled) = work, item
    example, box = source.examples[labeled.example], _core(labeled)
    target = targets_of(example, box, source.classes)
    chosen = drawn(np.flatnonzero(target), count, (seed, number))
    pixels = image_files.read(example.image, box)
    return pixels.reshape(len(pixels), -1)[:, chosen].T.astype(np.float64)


def class_means(fit: Fit) -> list[DataTerm]:
    """Prototypes that are the means of the labeled pixels of each class, and their scale."""
    parts = tasks.in_order(fit.pool, _sums, fit.source, fit.tiles)
    total = sum(sums for sums, _ in parts)
    count = sum(number for _, number in parts)
    return [_single(terms.prototypes(fit.sample(), total / count[:, None]))]


def _single(term: DataTerm) -> DataTerm:
    """A data term that is computed in float32, as all that is learned.

    Raises
    ------
    ValueError
        If float32 does not suffice.
    """
    if not isinstance(term, Prototypes) or not term.unit:
        return term
    least, most = sampling.SCALES
    rows = np.array(term.values)
    gap = min(np.linalg.norm(a - b) for i, a in enumerate(rows) for b in rows[:i])
    if term.unit != 1 or not least <= term.scale <= most or abs(rows).max() > intensity.FINE * gap:
        raise InputError(
            f"expected pixel values that float32 can tell apart, to learn, got classes at "
            f"{_listed(rows)}: subtract a number from the image, or multiply it"
        )
    return dataclasses.replace(term, unit=0.0)


def _listed(rows: np.ndarray) -> str:
    return "; ".join(", ".join(f"{v:.9g}" for v in row) for row in rows)


def given_probabilities(fit: Fit) -> list[DataTerm]:
    """The probabilities that come with the examples; refuse examples without them."""
    count = len(fit.source.classes)
    for example in fit.source.examples:
        given = example.probabilities
        if given is None:
            raise InputError(
                f"{example.image.path}: expected probabilities for this image, got none"
            )
        if given.stored_channels != count:
            raise InputError(
                f"{given.path}: expected probabilities of {count} classes, "
                f"got {given.stored_channels}"
            )
    return [terms.Probabilities(count)]


def _features(
    work: tuple[Source, int, int], item: tuple[int, LabeledTile]
) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, F) and classes from 0 of some labeled pixels of a tile."""
    (source, count, seed), (number, labeled) = work, item
    assert source.features is not None
    example, box = source.examples[labeled.example], _core(labeled)
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
    image = image_files.read(example.image, outer)
    valid = examples.valid_of(example, outer, image)
    with examples.naming(example.image, outer):
        image = terms.usable(image, valid, "image")
    found = source.features.compute(image)[:, *within(outer, box)]
    rows = np.ascontiguousarray(found.reshape(len(found), -1)[:, chosen].T)
    return rows, target.ravel()[chosen].astype(np.int64) - 1


def out_of_fold(fit: Fit) -> list[DataTerm]:
    """Classifiers: for each fold, one fitted to the other folds; and last, one fitted to all."""
    source = dataclasses.replace(fit.source, features=fit.source.features or MULTISCALE)
    assert source.features is not None
    if max(fit.folds) == 0:
        raise InputError(
            "expected labels in two tiles or more for a classifier, which is fitted to all blocks "
            "but one, got 1 tile"
        )
    share = -(-SAMPLES // len(fit.tiles))
    fit.say(f"features of {len(fit.tiles)} tiles")
    work, numbered = (source, share, fit.seed), list(enumerate(fit.tiles))
    parts = tasks.in_order(fit.pool, _features, work, numbered)
    count = max(fit.folds) + 1
    found: list[DataTerm] = []
    for fold in [*range(count), count]:
        what = f"classifier {fold + 1} of {count + 1}"
        fit.say(what + (f", without block {fold + 1}" if fold < count else ", all tiles"))
        kept = [part for part, f in zip(parts, fit.folds, strict=True) if f != fold]
        rows = np.concatenate([rows for rows, _ in kept])
        labels = np.concatenate([labels for _, labels in kept])
        fitted = _fit(rows, labels, source.classes, fit.seed)
        found.append(Classified(source.features, fitted))
    return found


def _fit(rows: np.ndarray, labels: np.ndarray, classes: Sequence[Class], seed: int) -> trees.Trees:
    missing = [c.name for j, c in enumerate(classes) if not (labels == j).any()]
    if missing:
        raise InputError(
            f"expected labeled pixels of {', '.join(missing)} in more than one block of the "
            "training images: the classifier is fitted to the other blocks"
        )
    return trees.fit(rows, labels, len(classes), seed)


@dataclass(frozen=True)
class Learner:
    """How a data term is learned from examples.

    Attributes
    ----------
    fit : returns one term, or one for each fold and then one for all
    per_fold : whether it returns one for each fold
    probable : whether its distances are learned log-probabilities, which say more about a pixel's
        neighbors; then wider neighborhoods and features of these distances are the defaults
    """

    fit: Callable[[Fit], list[DataTerm]]
    per_fold: bool = False
    probable: bool = False


LEARNERS = {
    "means": Learner(class_means),
    "probabilities": Learner(given_probabilities, probable=True),
    "classifier": Learner(out_of_fold, per_fold=True, probable=True),
}


def learner_of(term: Any) -> Learner:
    """The learner for a name, for rows of prototypes, or for a data term.

    Raises
    ------
    ValueError
        If a name is neither that of a learner nor that of a data term.
    """
    if isinstance(term, str):
        return LEARNERS[term] if term in LEARNERS else _fixed(terms.named(term))
    return _fixed(term if terms.is_settled(term) else terms.Prototypes(sampling.rows_of(term)))


def _fixed(term: DataTerm) -> Learner:
    """The learner of a given term, which finds only what that lacks from the labeled pixels."""

    def fit(fit: Fit) -> list[DataTerm]:
        count = len(fit.source.classes)
        if term.classes != count:
            raise InputError(f"expected a data term of {count} classes, got {term.classes}")
        if term.takes_probabilities:
            given_probabilities(fit)
        return [_single(term.settle(fit.sample))]

    return Learner(fit)


def described(term: Any) -> Any:
    """The requested data term, as JSON."""
    if isinstance(term, str):
        return term
    return term.describe() if terms.is_settled(term) else np.asarray(term).tolist()
