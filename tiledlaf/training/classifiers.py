"""Classifiers fitted to labeled pixels, each of them to all blocks but one, which judges it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..errors import InputError
from ..files import image as image_files
from ..model import terms, trees
from ..model.classes import Class
from ..model.features import RICH, SURROUNDINGS, Features, odds_planes
from ..model.settings import margin
from ..model.terms import SMALLEST, AutoContext, Classified, DataTerm
from ..pool import opening, tasks
from ..tiles import wider, within
from . import examples
from .judging import Verdict, choose, judge
from .pixels import Fit, Source, core_of, targets_of
from .variation import varied
from .worker import LabeledTile, Scored, drawn

SAMPLES = 150_000  # pixels that the first classifier is fitted to
MORE = 400_000  # and the second one: 2.7 % fewer errors than 150 000 leave on membranes
NUMBERS = 25_000_000  # features of all pixels at most: 100 MB, and as much again in each fit
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


def out_of_fold(fit: Fit) -> list[DataTerm]:
    """Classifiers: for each fold, one fitted to the other folds; and last, one fitted to all.

    Of one or two stages: with the second one, which looks at what the first one makes of a pixel's
    surroundings, if it is better at pixels that it was not fitted to. Going on from a model, its
    features are taken, and no second stage is tried where it has none.
    """
    if max(fit.folds) == 0:
        raise InputError(
            "expected labels in two tiles or more for a classifier, which is fitted to all blocks "
            "but one, got 1 tile"
        )
    features, around = _presets(fit)
    first, verdict = _first(fit, features)
    if around is None:
        return list(first)
    if fit.late():
        fit.say({"stage": "time limit: one classifier, without the one that looks around"})
        return list(first)
    if verdict.error <= verdict.deviation:  # not even one without an error were better by that
        share = f"{100 * verdict.error:.2f} %"
        fit.say({"stage": f"wrong by one classifier {share}: too little to try a second one"})
        return list(first)
    sampling = _sampling(fit, around, MORE, tuple(first))
    rows, fitted = _stage(fit, sampling, "what surrounds pixels", "second classifiers")
    verdicts = [verdict, judge(_scored(rows, fitted, fit.folds), fit.bench)]
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


def _first(fit: Fit, features: Features) -> tuple[list[Classified], Verdict]:
    """First classifiers of each fold and of all, and what judges found of them."""
    rows, fitted = _stage(fit, _sampling(fit, features, SAMPLES), "features", "classifiers")
    verdict = judge(_scored(rows, fitted, fit.folds), fit.bench)
    return [Classified(features, one) for one in fitted], verdict


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
    classes = len(fit.source.classes)
    channels = fit.source.examples[0].image.used_channels
    pixels = min(pixels, NUMBERS // features.count(channels, odds_planes(classes)))
    return Sampling(fit.source, features, -(-pixels // len(fit.tiles)), fit.seed, fit.span, first)


def _stage(
    fit: Fit, sampling: Sampling, what: str, name: str
) -> tuple[list[Rows], list[trees.Trees]]:
    """Pixels of each tile, and the trees of each fold and of all."""
    from threadpoolctl import threadpool_limits

    items = list(zip(range(len(fit.tiles)), fit.tiles, fit.folds, strict=True))
    parts = tasks.in_order(fit.pool, _rows, sampling, items, _told(fit, what))

    def fitted(_: None, fold: int) -> trees.Trees:
        kept = [part for part, f in zip(parts, fit.folds, strict=True) if f != fold]
        features = np.concatenate([one.features for one in kept])
        labels = np.concatenate([one.labels for one in kept])
        return _fit(features, labels, fit.source.classes, fit.seed)

    everything = range(max(fit.folds) + 2)
    # here, beside each other: each fit runs on one thread, and takes a copy of the pixels
    with threadpool_limits(1), tasks.threads(min(AT_ONCE, opening.cores())) as pool:
        return parts, tasks.in_order(pool, fitted, None, everything, _told(fit, name))


def _told(fit: Fit, stage: str) -> Callable[[int, int], None]:
    return lambda done, of: fit.say({"stage": stage, "done": done, "of": of})


def _scored(
    parts: Sequence[Rows], fitted: Sequence[trees.Trees], folds: Sequence[int]
) -> list[Scored]:
    """Log-probabilities of the pixels of each tile, by the trees that have not seen its fold."""
    found = []
    for one, fold in zip(parts, folds, strict=True):
        rows = one.features[: one.own]
        p = fitted[fold].probabilities(np.ascontiguousarray(rows.T)[:, None])
        q = np.log(np.maximum(p[:, 0].T, SMALLEST))
        found.append(Scored(np.zeros(0), np.ascontiguousarray(q), one.labels[: one.own]))
    return found


def _rows(sampling: Sampling, item: tuple[int, LabeledTile, int]) -> Rows:
    """Features and classes of some labeled pixels of a tile, most of them of varied images."""
    source, features = sampling.source, sampling.features
    number, labeled, fold = item
    example, box = source.examples[labeled.example], core_of(labeled)
    target = targets_of(example, box, source.classes)
    first = sampling.first[fold] if sampling.first else None
    reach = (0,) * (len(box) - 2) + (features.radius,) * 2
    if first is not None:
        reach = margin(first, features, len(box))
    outer = wider(box, example.image.grid, reach)
    image = image_files.read(example.image, outer)
    valid = examples.valid_of(example, outer, image)
    with examples.naming(example.image, outer):
        image = terms.usable(image, valid, "image")
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
