"""Classifiers fitted to labeled pixels, each of them to all blocks but one, which judges it."""

from __future__ import annotations

import itertools
import math
import time as clock
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..errors import InputError
from ..files import image as image_files
from ..model import accepted, terms, trees
from ..model.classes import Class
from ..model.features import RICH, SURROUNDINGS, Features, odds_planes
from ..model.settings import margin
from ..model.term import DataTerm
from ..model.terms import SMALLEST, AutoContext, Classified
from ..pool import opening, tasks
from ..tiles import wider, within
from . import examples
from .judging import Verdict, choose, judge
from .pixels import Fit, Source, targets_of
from .variation import varied
from .worker import LabeledTile, Scored, core_of, drawn, nearest

READ, SECOND, FITTED = 0.2, 0.3, 0.5  # shares of a time limit: after the first, no further tile is
# read; after the second, no second classifier is begun; no fit begins that would end after the last
SAMPLES = 150_000  # pixels that the first classifier is fitted to
MORE = 400_000  # and the second one: 2.7 % fewer errors than 150 000 leave on membranes
NUMBERS = 25_000_000  # features of all pixels at most: 320 MB, and 60 in each fit
VARIANTS = 2  # varied images beside the one as it is, each for as many pixels
AT_ONCE = 4  # fits beside each other


@dataclass(frozen=True)
class Sampling:
    """How labeled pixels are drawn, and what is computed of them.

    Attributes
    ----------
    count : pixels of each tile at most
    span : range of intensities, within which images are varied; None: they are not
    first : the first classifier of each fold, if the features are of what it makes of the image
    """

    source: Source
    features: Features
    count: int
    seed: int
    span: tuple[float, float] | None
    first: tuple[Classified, ...] = ()


class Rows(NamedTuple):
    """Features (n, F) of some pixels of a tile, and their classes from 0.

    The first ones, `own` of them, are of the image as it is.
    """

    features: np.ndarray
    labels: np.ndarray
    own: int


@dataclass(frozen=True)
class Samples:
    """Pixels of all tiles, in such an order that those of all folds but any one stand in a row.

    So fits beside each other share them. The folds follow each other in a circle from the second
    one on: 1, 2, 3, 0, 1, 2 of four.

    Attributes
    ----------
    features : (n, F) float64, as which fits take them without a copy
    labels : (n,) classes from 0
    starts : where each fold in that order begins, and where the last one ends
    own : of each tile those of the image as it is; none of a tile that was not read
    """

    features: np.ndarray
    labels: np.ndarray
    starts: list[int]
    own: list[slice | None]

    @property
    def complete(self) -> bool:
        """Whether all tiles were read."""
        return None not in self.own

    def without(self, fold: int) -> slice:
        """The pixels of all folds but one; of all folds for the number behind the last one."""
        folds = (len(self.starts) + 1) // 2
        if fold == folds:
            return slice(0, self.starts[folds])
        return slice(self.starts[fold], self.starts[fold + folds - 1])


def out_of_fold(fit: Fit) -> list[DataTerm]:
    """Classifiers: for each fold, one fitted to the other folds; and last, one fitted to all.

    Of one or two stages: with the second one, which looks at what the first one makes of a pixel's
    surroundings, if it is better at pixels that it was not fitted to. Going on from a model, its
    features are taken, and no second stage is tried where it has none. Where a time limit leaves no
    time for that, a single one of one stage, fitted to all folds but the last.
    """
    if max(fit.folds) == 0:
        raise InputError(
            "expected labels in two tiles or more for a classifier, which is fitted to all blocks "
            "but one, got 1 tile"
        )
    features, around = _presets(fit)
    first, verdict = _first(fit, features)
    if verdict is None:
        fit.say({"stage": "time limit: one classifier, which the blocks of one fold judge"})
        return list(first)
    if around is None:
        return list(first)
    if fit.left(SECOND) > 0:
        if verdict.error <= verdict.deviation:  # not even one without an error were better by that
            share = f"{100 * verdict.error:.2f} %"
            fit.say({"stage": f"wrong by one classifier {share}: too little to try a second one"})
            return list(first)
        second = _second(fit, around, first, verdict)
        if second is not None:
            return second
    fit.say({"stage": "time limit: one classifier, without the one that looks around"})
    return list(first)


def _first(fit: Fit, features: Features) -> tuple[list[Classified], Verdict | None]:
    """First classifiers of each fold and of all, and what judges found of them.

    Or, at a time limit, that of the last fold alone, and None.
    """
    samples = _samples(fit, _sampling(fit, features, SAMPLES), "features", READ)
    fitted = _fitted(fit, samples, "classifiers")
    terms = [Classified(features, one) for one in fitted]
    return terms, judge(_scored(samples, fitted, fit.folds), fit.bench) if len(fitted) > 1 else None


def _second(
    fit: Fit, around: Features, first: list[Classified], verdict: Verdict
) -> list[DataTerm] | None:
    """Classifiers of two stages where they are better, else of one; None at a time limit."""
    sampling = _sampling(fit, around, MORE, tuple(first))
    samples = _samples(fit, sampling, "what surrounds pixels", FITTED)
    if not samples.complete:
        return None
    fitted = _fitted(fit, samples, "second classifiers")
    if len(fitted) == 1:
        return None
    verdicts = [verdict, judge(_scored(samples, fitted, fit.folds), fit.bench)]
    best = choose(verdicts)
    one, two = (f"{100 * verdict.error:.2f} %" for verdict in verdicts)
    fit.say({"stage": f"wrong by one classifier {one}, by two {two}: {('one', 'two')[best]}"})
    if best == 0:
        return list(first)
    return [AutoContext(one, around, trees) for one, trees in zip(first, fitted, strict=True)]


def _presets(fit: Fit) -> tuple[Features, Features | None]:
    """Features of the first classifier, and of the second one, None where none is wanted."""
    like = fit.like
    if isinstance(like, AutoContext):
        return like.first.features, like.features
    if isinstance(like, Classified):
        return like.features, None
    return (RICH.of_mean(), SURROUNDINGS.of_mean()) if _is_gray(fit) else (RICH, SURROUNDINGS)


def _is_gray(fit: Fit) -> bool:
    """Whether all channels of all tiles are alike, as where gray pictures are stored as RGB.

    Their features would be computed, and looked at by trees, once for each channel.
    """
    if fit.source.examples[0].image.used_channels == 1:
        return False
    return all(tasks.in_order(fit.pool, _has_equal_channels, fit.source, fit.tiles))


def _has_equal_channels(source: Source, labeled: LabeledTile) -> bool:
    pixels = image_files.read(source.examples[labeled.example].image, core_of(labeled))
    return bool((pixels == pixels[:1]).all())


def _sampling(
    fit: Fit, features: Features, pixels: int, first: tuple[Classified, ...] = ()
) -> Sampling:
    count = -(-most(fit.source, features, pixels) // len(fit.tiles))
    return Sampling(fit.source, features, count, fit.seed, fit.span, first)


def most(source: Source, features: Features, pixels: int) -> int:
    """How many pixels of all tiles are drawn, of so many at most."""
    channels = source.examples[0].image.used_channels
    return min(pixels, NUMBERS // features.count(channels, odds_planes(len(source.classes))))


def _samples(fit: Fit, sampling: Sampling, what: str, share: float) -> Samples:
    """Pixels of each tile; of some, if a share of a time limit is used up before that."""
    folds = fit.folds
    last, classes = max(folds), range(len(fit.source.classes))
    # one of each fold after the other, so that some of them are of all folds
    ranks = [folds[:number].count(fold) for number, fold in enumerate(folds)]
    order = sorted(range(len(folds)), key=lambda i: (ranks[i], folds[i]))
    items = [(i, fit.tiles[i], folds[i]) for i in order]

    def enough(found: Mapping[int, Rows]) -> bool:
        if fit.left(share) > 0:
            return False
        rows = [(folds[order[place]], one.labels) for place, one in found.items()]
        seen = {j for fold, labels in rows if fold != last for j in np.unique(labels).tolist()}
        return seen >= {*classes} and any(fold == last for fold, _ in rows)

    tasks.release(fit.pool)
    found = tasks.some(fit.pool, _rows, sampling, items, enough, _told(fit, what))
    return _arranged({order[place]: found.pop(place) for place in [*found]}, folds)


def _arranged(found: dict[int, Rows], folds: Sequence[int]) -> Samples:
    """The pixels of these tiles, in the order of `Samples`."""
    count = max(folds) + 1
    tiles = [[i for i in sorted(found) if folds[i] == fold] for fold in range(count)]
    circle = [tiles[fold] for fold in (*range(1, count), *range(count - 1))]
    order = [i for own in circle for i in own]
    ends = [0, *itertools.accumulate(len(found[i].labels) for i in order)]
    places = [0, *itertools.accumulate(map(len, circle))]
    width = next(iter(found.values())).features.shape[1]
    features, labels = np.empty((ends[-1], width)), np.empty(ends[-1], np.int64)
    own: list[slice | None] = [None] * len(folds)
    for i, start, stop in zip(order, ends, ends[1:], strict=False):
        features[start:stop], labels[start:stop] = found[i].features, found[i].labels
        own[i] = slice(start, start + found[i].own)
    return Samples(features, labels, [ends[place] for place in places], own)


def _fitted(fit: Fit, samples: Samples, name: str) -> list[trees.Trees]:
    """The trees of each fold and of all, or of the last fold alone if time is short."""
    from threadpoolctl import threadpool_limits

    last, classes = max(fit.folds), fit.source.classes
    order = [last, *range(last), last + 1] if samples.complete else [last]
    tasks.release(fit.pool)
    began, at_once = clock.monotonic(), min(AT_ONCE, opening.cores())

    def fitted(_: None, fold: int) -> trees.Trees:
        kept = samples.without(fold)
        return _fit(samples.features[kept], samples.labels[kept], classes, fit.seed)

    def enough(found: Mapping[int, trees.Trees]) -> bool:
        each = (clock.monotonic() - began) / math.ceil(len(found) / at_once)
        more = math.ceil((len(order) - len(found)) / at_once)
        return 0 in found and each * more > fit.left(FITTED)

    # here, beside each other: each fit runs on one thread
    with threadpool_limits(1), tasks.threads(at_once) as pool:
        found = tasks.some(pool, fitted, None, order, enough, _told(fit, name))
    if len(found) < len(order) or len(order) == 1:
        return [found[0]]
    return [found[order.index(fold)] for fold in range(last + 2)]


def _told(fit: Fit, stage: str) -> Callable[[int, int], None]:
    return lambda done, of: fit.say({"stage": stage, "done": done, "of": of})


def _scored(samples: Samples, fitted: Sequence[trees.Trees], folds: Sequence[int]) -> list[Scored]:
    """Log-probabilities of the pixels of each tile, by the trees that have not seen its fold."""
    found = []
    for own, fold in zip(samples.own, folds, strict=True):
        rows = samples.features[own].T.astype(np.float32, order="C")
        p = fitted[fold].probabilities(rows[:, None])
        q = np.log(np.maximum(p[:, 0].T, SMALLEST))
        found.append(Scored(np.zeros(0), np.ascontiguousarray(q), samples.labels[own]))
    return found


def _rows(sampling: Sampling, item: tuple[int, LabeledTile, int]) -> Rows:
    """Features and classes of some labeled pixels of a tile, most of them of varied images."""
    source, features = sampling.source, sampling.features
    number, labeled, fold = item
    example, core = source.examples[labeled.example], core_of(labeled)
    target = targets_of(example, core, source.classes)
    box = nearest(core, target)
    target = target[within(core, box)]
    first = sampling.first[fold] if sampling.first else None
    reach = (0,) * (len(box) - 2) + (features.radius,) * 2
    if first is not None:
        reach = margin(first, features, len(box))
    outer = wider(box, example.image.grid, reach)
    image = image_files.read(example.image, outer)
    valid = examples.valid_of(example, outer, image)
    with examples.naming(example.image, outer):
        image = accepted.usable(image, valid, "image")
    labeled_pixels, corner = np.flatnonzero(target), [s.start for s in within(outer, box)]
    variants = range(1 if sampling.span is None else VARIANTS + 1)
    found, labels = [], []
    for variant in variants:
        pixels = image
        if variant and sampling.span is not None:
            pixels = varied(image, sampling.span, (sampling.seed, number, variant))
        count = -(-sampling.count // len(variants))
        chosen = drawn(labeled_pixels, count, (sampling.seed, number, variant))
        places = _moved(chosen, target.shape, corner, image.shape[1:])
        if first is None:
            found.append(features.compute(pixels, places=places))
        else:
            found.append(terms.context(first, features, pixels, valid, places))
        labels.append(target.ravel()[chosen].astype(np.int64) - 1)
    rows = np.ascontiguousarray(np.concatenate(found, axis=1).T)
    return Rows(rows, np.concatenate(labels), len(labels[0]))


def _moved(
    chosen: np.ndarray, shape: Sequence[int], corner: Sequence[int], outer: Sequence[int]
) -> np.ndarray:
    """Places of a flattened grid in a larger one, in which it begins at a corner."""
    at = np.unravel_index(chosen, shape)
    found: np.ndarray = np.ravel_multi_index(
        [a + c for a, c in zip(at, corner, strict=True)], tuple(outer)
    )
    return found


def _fit(rows: np.ndarray, labels: np.ndarray, classes: Sequence[Class], seed: int) -> trees.Trees:
    missing = [c.name for j, c in enumerate(classes) if not (labels == j).any()]
    if missing:
        raise InputError(
            f"expected labeled pixels of {', '.join(missing)} in more than one block of the "
            "training images: the classifier is fitted to the other blocks"
        )
    return trees.fit(rows, labels, len(classes), seed)
