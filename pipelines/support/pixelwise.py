"""Classifiers of single pixels by features around them, and their out-of-fold probabilities."""

from __future__ import annotations

import time as clock
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from support.datasets import Loaded
from support.sections import mapped, sample
from tiledlaf.model import features, trees
from tiledlaf.model.terms import Probabilities

ROWS = 100_000  # pixels that a forest gets at once
Predict = Callable[[np.ndarray], np.ndarray]
Fit = Callable[[np.ndarray, np.ndarray, int, int], Predict]


@dataclass(frozen=True)
class Kind:
    """How pixels are classified.

    Attributes
    ----------
    features : from an image (C, y, x) to (F, y, x)
    fit : from features (n, F), classes from 0, their number, and a seed, to a function from
        (F, y, x) to probabilities (J, y, x)
    fold : the same for out-of-fold probabilities
    """

    features: Callable[[np.ndarray], np.ndarray]
    fit: Fit
    fold: Fit


def boosted(x: np.ndarray, y: np.ndarray, count: int, seed: int) -> Predict:
    """The classifier of `tiledlaf train --classifier`, its first stage."""
    return trees.fit(x, y, count, seed).probabilities


def skimage_features(image: np.ndarray) -> np.ndarray:
    """What scikit-image offers for this: intensity, edges and texture, each at six widths."""
    from skimage.feature import multiscale_basic_features

    found = multiscale_basic_features(np.moveaxis(image, 0, -1), channel_axis=-1)
    return np.ascontiguousarray(np.moveaxis(found, -1, 0), np.float32)


def forest(x: np.ndarray, y: np.ndarray, count: int, seed: int, size: int = 100) -> Predict:
    """A random forest of 100 trees, as many as ilastik's."""
    from sklearn.ensemble import RandomForestClassifier

    model = RandomForestClassifier(size, random_state=seed).fit(x, y)

    def predict(planes: np.ndarray) -> np.ndarray:
        rows = planes.reshape(len(planes), -1).T
        found = np.zeros((count, len(rows)), np.float32)
        for start in range(0, len(rows), ROWS):
            part = model.predict_proba(np.ascontiguousarray(rows[start : start + ROWS]))
            found[model.classes_, start : start + ROWS] = part.T
        return found.reshape(count, *planes.shape[1:])

    return predict


KINDS = {
    "classifier": Kind(features.MULTISCALE.compute, boosted, boosted),
    # biases are all that the folds are for, and a fit of all trees takes a minute
    "forest": Kind(skimage_features, forest, partial(forest, size=25)),
}


@dataclass(frozen=True, eq=False)
class Chances:
    """Probabilities (J, y, x) of all images, clipped as a data term's are.

    Attributes
    ----------
    all : out of fold for the images that are learned from; none there if there were no folds
    seconds : of the processor to classify a megapixel, with one thread
    """

    all: list[np.ndarray]
    seconds: float


def classify(
    kind: Kind, loaded: Loaded, count: int, pixels: int, seed: int, folded: bool = True
) -> tuple[list[np.ndarray], float]:
    """Probabilities as uint16 of 65535, out of fold where learned from, and their cost.

    Parameters
    ----------
    pixels : that the classifier is fitted to
    folded : otherwise images that are learned from get none, which takes one fit
    """
    share = -(-pixels // loaded.training)

    def draw(number: int) -> tuple[np.ndarray, np.ndarray]:
        planes = kind.features(loaded.images[number])
        return sample([planes], [loaded.labels[number]], share, seed + 1000 * number)

    drawn = mapped(draw, range(loaded.training))
    found: list[np.ndarray] = [np.empty(0)] * len(loaded.images)

    def fitted(without: int) -> Predict:
        used = [d for d, fold in zip(drawn, loaded.folds, strict=True) if fold != without]
        x, y = (np.concatenate(part) for part in zip(*used, strict=True))
        return (kind.fit if without < 0 else kind.fold)(x, y, count, seed)

    def give(number: int, predict: Predict) -> None:
        p = predict(kind.features(loaded.images[number]))
        found[number] = np.round(p * 65535).astype(np.uint16)

    folds = list(dict.fromkeys(loaded.folds)) if folded else []
    *parts, whole = mapped(fitted, [*folds, -1])
    inside = range(loaded.training) if folded else range(0)
    mapped(lambda n: give(n, parts[folds.index(loaded.folds[n])]), inside)
    judged = range(loaded.training, len(loaded.images))
    whole(kind.features(loaded.images[judged[0]][:, :64, :64]))  # compiles
    started = clock.process_time()
    for number in judged:
        give(number, whole)
    seconds = clock.process_time() - started
    return found, seconds * 1e6 / sum(loaded.labels[n].size for n in judged)


def chances(name: str, loaded: Loaded, count: int, pixels: int, seed: int, kept: Path) -> Chances:
    """Probabilities of a kind of classifier; they come from the folder or go there."""
    file = kept / f"{name}-{seed}.npz"
    if not file.exists():
        found, seconds = classify(KINDS[name], loaded, count, pixels, seed)
        unfinished = file.with_suffix(".partial.npz")
        np.savez_compressed(unfinished, *found, seconds=seconds)
        unfinished.replace(file)
    with np.load(file) as arrays:
        stored = [arrays[f"arr_{i}"] for i in range(len(loaded.images))]
        return Chances([clipped(p) for p in stored], float(arrays["seconds"]))


def clipped(p: np.ndarray) -> np.ndarray:
    """Probabilities by the data term's own normalization and clipping: one log p for all."""
    found: np.ndarray = np.exp(Probabilities(len(p)).potential(p, None, 1.0))
    return found
