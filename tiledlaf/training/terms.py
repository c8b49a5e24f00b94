"""Data terms fitted to labels: class means, given probabilities, classifiers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import image as image_files
from ..files.image import Image
from ..model import accepted, intensity, sampling, terms
from ..model.network import network_of
from ..model.term import DataTerm
from ..model.terms import Prototypes
from ..pool import tasks
from . import classifiers, combined, examples, networks
from .pixels import Fit, Source, targets_of
from .worker import LabeledTile, core_of


def _sums(source: Source, labeled: LabeledTile) -> tuple[np.ndarray, np.ndarray]:
    """Sums of the pixels of each class, (J, C) float64, and how many there are."""
    example, box = source.examples[labeled.example], core_of(labeled)
    target = targets_of(example, box, source.classes)
    pixels = image_files.read(example.image, box)
    with examples.naming(example.image, box):
        accepted.check_finite(pixels, target > 0, "image")
    sums = np.zeros((len(source.classes), len(pixels)))
    for j in range(len(source.classes)):
        sums[j] = pixels[:, target == j + 1].sum(axis=1, dtype=np.float64)
    return sums, np.bincount(target.ravel(), minlength=len(source.classes) + 1)[1:]


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
    return [_carried([e.probabilities for e in fit.source.examples if e.probabilities], count)]


def _carried(given: Sequence[Image], count: int) -> DataTerm:
    """The term of given probabilities: the model has the network, if one makes them all."""
    network, *others = {network_of(one) for one in given}
    if others:
        raise InputError("expected probabilities of one network for all images, or of none")
    return terms.Probabilities(count) if network is None else terms.Networked(network)


@dataclass(frozen=True)
class Learner:
    """How a data term is learned from examples.

    Attributes
    ----------
    fit : returns one term, or one for each fold and then one for all
    trees : whether its terms are trees, which are fitted in this process
    probable : whether its distances are learned log-probabilities, which say more about a pixel's
        neighbors; then wider neighborhoods and features of these distances are the defaults
    network : whether its terms are networks, which are learned in this process, too
    check : refuses to begin where a library is missing
    notes : what a model says of how its term was learned, as JSON
    """

    fit: Callable[[Fit], list[DataTerm]]
    trees: bool = False
    probable: bool = False
    network: bool = False
    check: Callable[[], None] = lambda: None
    notes: Callable[[DataTerm], dict[str, Any]] = lambda term: {}

    @property
    def per_fold(self) -> bool:
        """Whether it returns one for each fold."""
        return self.trees or self.network


LEARNERS = {
    "means": Learner(class_means),
    "probabilities": Learner(given_probabilities, probable=True),
    "classifier": Learner(classifiers.out_of_fold, trees=True, probable=True),
    "unet": Learner(
        networks.cross_fitted,
        probable=True,
        network=True,
        check=networks.check,
        notes=networks.notes,
    ),
    "classifier+unet": Learner(
        combined.out_of_fold,
        trees=True,
        probable=True,
        network=True,
        check=networks.check,
        notes=networks.notes,
    ),
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
