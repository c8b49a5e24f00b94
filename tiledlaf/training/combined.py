"""Trees and a network, learned from the same labels: one of them, or the mean of both."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..files import image as image_files
from ..files.image import Image
from ..kernels.arrays import Array
from ..model.accepted import usable
from ..model.settings import margin
from ..model.term import DataTerm
from ..model.terms import Averaged
from ..pool import tasks
from ..tiles import wider, within
from . import classifiers, examples, networks
from .judging import Verdict, choose, judge
from .pixels import Fit, Source, targets_of
from .worker import LabeledTile, Scored, core_of, drawn, nearest, probabilities

SHARES = (0.3, 0.4, 0.5, 0.6, 0.7)  # of the network, which are compared
JUDGED = 400_000  # pixels of all tiles that judge
KINDS = ("network", "trees", "both")  # simplest first: trees take several times as long


class Judging(NamedTuple):
    """What is needed to judge terms on a tile.

    Attributes
    ----------
    networks, trees : for each fold, those that have not seen it
    made : of each fold, what its network makes of each example's image
    most : pixels of a tile
    """

    source: Source
    networks: tuple[DataTerm, ...]
    trees: tuple[DataTerm, ...]
    made: tuple[tuple[Image | None, ...], ...]
    most: int
    seed: int


class Rows(NamedTuple):
    """Log-probabilities (n, J) by the network and by trees of some pixels, and their classes."""

    network: np.ndarray
    trees: np.ndarray
    labels: np.ndarray

    def scored(self, share: float) -> Scored:
        """The weighted mean of both, with this share of the network."""
        q = self.trees if share == 0 else share * self.network + (1 - share) * self.trees
        return Scored(np.zeros(0), q, self.labels)


def out_of_fold(fit: Fit) -> list[DataTerm]:
    """Terms: for each fold, one that has not seen it; and last, one learned from all.

    These are networks, trees, or means of both, by what errs least at pixels that they have not
    seen; of alike ones the simplest. Where a time limit leaves no time for one of them, the other.
    """
    like = fit.like.trees if isinstance(fit.like, Averaged) else fit.like
    # half of the time for each
    first = dataclasses.replace(fit, left=lambda share: fit.left(share / 2))
    second = dataclasses.replace(fit, like=like, left=lambda share: fit.left((share + 0.5) / 2))
    short = fit.steps is None and first.left(networks.FITTED) < networks.SHORT
    found = [] if short else networks.cross_fitted(first)
    trees = classifiers.out_of_fold(second)
    if len(found) <= 1:  # one alone was learned from all folds but the last
        fit.say({"stage": "time limit: trees, without a network"})
        return trees
    if len(trees) == 1:
        fit.say({"stage": "time limit: the network, without trees"})
        return found
    share, verdicts = compared(fit, found, trees)
    chosen = KINDS[choose(verdicts)]
    errors = (f"by {k} {100 * one.error:.2f} %" for k, one in zip(KINDS, verdicts, strict=True))
    more = f", {share:.0%} of it the network" if chosen == "both" else ""
    fit.say({"stage": f"wrong {', '.join(errors)}: {chosen}{more}"})
    return {"network": found, "trees": trees, "both": averaged(found, trees, share)}[chosen]


def averaged(found: Sequence[DataTerm], trees: Sequence[DataTerm], share: float) -> list[DataTerm]:
    """The means of networks and trees, fold by fold."""
    pairs = zip(found, trees, strict=True)
    return [Averaged(network, other, share) for network, other in pairs]  # type: ignore[arg-type]


def compared(
    fit: Fit, found: Sequence[DataTerm], trees: Sequence[DataTerm]
) -> tuple[float, list[Verdict]]:
    """The network's share in the best mean; and what judges found of each of `KINDS`."""
    made = probabilities(found, fit.source.examples)
    most = -(-JUDGED // len(fit.tiles))
    work = Judging(fit.source, tuple(found), tuple(trees), made, most, fit.seed)
    stage = {"stage": "comparing network and trees"}

    def told(done: int, of: int) -> None:
        fit.say(stage | {"done": done, "of": of})

    items = list(zip(range(len(fit.tiles)), fit.tiles, fit.folds, strict=True))
    rows = tasks.in_order(fit.pool, _rows, work, items, told)

    def verdict(share: float) -> Verdict:
        return judge([one.scored(share) for one in rows], fit.bench)

    means = {share: verdict(share) for share in SHARES}
    best = min(means, key=lambda share: means[share].error)
    return best, [verdict(1.0), verdict(0.0), means[best]]


def _rows(work: Judging, item: tuple[int, LabeledTile, int]) -> Rows:
    """Log-probabilities of some labeled pixels of a tile, by what has not seen its fold."""
    number, labeled, fold = item
    example, core = work.source.examples[labeled.example], core_of(labeled)
    target = targets_of(example, core, work.source.classes)
    box = nearest(core, target)
    target = target[within(core, box)]
    chosen = drawn(np.flatnonzero(target), work.most, (work.seed, number))
    trees, network = work.trees[fold], work.networks[fold]
    outer = wider(box, example.image.grid, margin(trees, None, len(box)))
    image = image_files.read(example.image, outer)
    valid = examples.valid_of(example, outer, image)
    with examples.naming(example.image, outer):
        q = trees.potential(usable(image, valid, "image"), valid, 1.0)[:, *within(outer, box)]
    given = work.made[fold][labeled.example]
    assert given is not None
    inside = None if valid is None else valid[within(outer, box)]
    p = network.potential(image_files.read(given, box), inside, 1.0)

    def at(planes: Array) -> np.ndarray:
        rows: np.ndarray = np.ascontiguousarray(planes.reshape(len(planes), -1)[:, chosen].T)
        return rows

    return Rows(at(p), at(q), target.ravel()[chosen].astype(np.int64) - 1)
