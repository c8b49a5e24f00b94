"""What mattered to a model in everyday words: features, distances and directions, with shares."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..kernels.arrays import Offsets
from ..model.features import is_patch, odds_planes, of_image
from ..model.model import Model
from ..model.predictor import Predictor
from .view import View, describe

ROWS = 4000  # pairs of pixels, at least, of which one gets the features of the other
LITTLE = 0.02  # share of the weights that changes at least where features matter
MUCH, SOME = 0.3, 0.15  # of 1, all weight in one direction: from where on it is said
NEAR, FAR = 0.85, 1.15  # times the distance at equal weights: from where on it is said
SIDES = (
    *("to the right", "to the lower right", "below", "to the lower left"),
    *("to the left", "to the upper left", "above", "to the upper right"),
)
LINES = (
    *("to the left and right", "to the upper left and lower right", "above and below"),
    "to the upper right and lower left",
)


@dataclass(frozen=True)
class Distance:
    """A distance of neighbors from their pixel.

    Attributes
    ----------
    pixels : 0 for the pixel itself
    share : of the weights
    equal : its share if all neighbors had equal weights
    """

    pixels: int
    share: float
    equal: float


@dataclass(frozen=True)
class Mattered:
    """What mattered to a model.

    Attributes
    ----------
    features : each with its share of what features change, the largest first; shares add up to 1
    change : share of the weights that changes where all these are another pixel's
    distances : from the pixel itself on; shares add up to 1
    pattern : (K,) mean weight of each neighbor
    side : mean offset, of the length 1 if all weight were on one side
    line : length of the mean doubled direction of each pixel's weights: 1 if all were on one line
    lines : the same of the mean weights, as a vector
    """

    features: tuple[tuple[str, float], ...]
    change: float
    distances: tuple[Distance, ...]
    pattern: np.ndarray
    side: np.ndarray
    line: float
    lines: np.ndarray


def mattered(found: Model, predictor: Predictor, view: View | None) -> Mattered:
    """What mattered on a part of an image or, without one, to the patterns that were learned."""
    if view is None:
        rows = predictor.anchors * predictor.scale + predictor.mean
        weights = np.exp(predictor.patches - predictor.patches.max(axis=1, keepdims=True))
        weights = (weights / weights.sum(axis=1, keepdims=True)).T[:, None]
        pattern = weights.mean(axis=(1, 2))
        line = float(np.hypot(*describe(weights, found.offsets).axis).mean())
    else:
        inside = view.full if view.full.any() else view.valid
        rows, pattern = view.rows, view.pattern
        line = float(np.hypot(*view.weights.axis)[inside].mean())
    features, change = _features(found, predictor, rows)
    flat = np.array(found.offsets, np.float64)[:, -2:]
    length = float(pattern @ np.hypot(*flat.T))
    side = pattern @ flat / length if length > 0 else np.zeros(2)
    lines = describe(pattern[:, None, None], found.offsets).axis[:, 0, 0]
    return Mattered(
        features, change, _distances(pattern, found.offsets), pattern, side, line, lines
    )


def _features(
    found: Model, predictor: Predictor, rows: np.ndarray
) -> tuple[tuple[tuple[str, float], ...], float]:
    """How much weights change where a feature is another pixel's, beside all of them."""
    groups = _groups(found, predictor)
    every = np.arange(rows.shape[1])
    own = _weights(predictor, rows)
    changes = dict.fromkeys(groups, 0.0)
    total = 0.0
    rng = np.random.default_rng(0)
    order = rng.permutation(len(rows))
    steps = range(1, min(len(rows), max(5, ROWS // len(rows) + 1)))
    for step in steps:
        other = np.empty_like(order)
        other[order] = np.roll(order, step)
        for name, columns in (*groups.items(), (None, every)):
            mixed = rows.copy()
            mixed[:, columns] = rows[other][:, columns]
            change = float(np.abs(_weights(predictor, mixed) - own).sum(axis=1).mean()) / 2
            if name is None:
                total += change / len(steps)
            else:
                changes[name] += change / len(steps)
    summed = sum(changes.values())
    ranked = sorted(changes.items(), key=lambda item: -item[1])
    return tuple((name, change / summed if summed else 0.0) for name, change in ranked), total


def _weights(predictor: Predictor, rows: np.ndarray) -> np.ndarray:
    """Weights (n, K) of pixels with features (n, F), all of whose neighbors are valid."""
    neighbors = predictor.patches.shape[1]
    uniform = np.full((neighbors, 1, len(rows)), 1 / neighbors, np.float32)
    features = np.ascontiguousarray(rows.T[:, None], np.float32)
    return np.asarray(predictor.weights(features, uniform), np.float64)[:, 0].T


def _groups(found: Model, predictor: Predictor) -> dict[str, np.ndarray]:
    """The features that one name stands for."""
    odds = odds_planes(len(found.classes))
    groups: dict[str, list[int]] = defaultdict(list)
    for spec, places in predictor.features.parts(found.channels, odds):
        for plane, place in enumerate(places):
            what = "first guess of the class"
            if of_image(spec):
                what = "brightness" if spec[0] == "mean" else _source(found, plane)
            every = range(place.start, place.stop)
            middle = (place.start + place.stop) // 2
            for number in every:
                groups[_called(what, spec, number == middle)].append(number)
    return {name: np.array(columns) for name, columns in groups.items()}


def _source(found: Model, plane: int) -> str:
    """What an image's channel is called."""
    names = found.images.names
    if found.channels == 1:
        return "brightness"
    if len(names) == found.channels and tuple(n.lower() for n in names) != ("red", "green", "blue"):
        return f"brightness of {names[plane]}"
    return "color" if found.channels == 3 else f"brightness of channel {plane}"


def _called(what: str, spec: tuple[Any, ...], middle: bool) -> str:
    """A feature in everyday words."""
    kind, numbers = spec[1], spec[2:]
    if is_patch(spec):
        radius, dilation, sigma = numbers
        smooth = f", averaged over {pixels(2 * sigma)}" if sigma else ""
        if middle:
            return f"{what}{smooth or ' of the pixel itself'}"
        return f"{what} of neighbors up to {pixels(radius * dilation)} away{smooth}"
    wide = pixels(2 * max(numbers))
    if kind == "gaussian":
        return f"{what}, averaged over {wide}"
    if kind == "gradient":
        return f"edges in the {what}, about {wide} wide"
    if kind == "structure":
        return f"edges and corners in the {what}, within {wide}"
    if kind == "lines":
        return f"lines in the {what}, about {pixels(2 * numbers[0])} wide"
    if kind == "ring":
        return f"{what} on a circle {pixels(2 * numbers[0])} wide"
    if kind == "difference":
        return f"spots in the {what}, about {pixels(2 * min(numbers))} to {wide} wide"
    return f"lines and spots in the {what}, about {wide} wide"


def pixels(count: float) -> str:
    """A number of pixels, as text."""
    whole = max(1, round(count))
    return f"{whole} pixel{'s' * (whole != 1)}"


def _distances(pattern: np.ndarray, offsets: Offsets) -> tuple[Distance, ...]:
    """Shares of the weights by the distance along the axis where it is largest."""
    away = np.abs(np.array(offsets)).max(axis=1)
    return tuple(
        Distance(int(d), float(pattern[away == d].sum()), float((away == d).mean()))
        for d in np.unique(away)
    )


# Sentences


def in_words(found: Model, predictor: Predictor) -> list[str]:
    """A sentence each on the features, distances and directions that a model learned."""
    said = mattered(found, predictor, None)
    return [of_features(said), of_distances(found, said), of_directions(found, said)]


def micrometers(found: Model, pixels: float) -> str:
    """A length in micrometers, where the model knows it: " (1.5 µm)"."""
    size = found.images.pixel_size
    if size is None or not pixels:
        return ""
    if math.isclose(*size, rel_tol=0.01):
        return f" ({pixels * size[1]:.3g} µm)"
    return f" ({pixels * size[0]:.3g} µm up and down, {pixels * size[1]:.3g} µm across)"


def of_features(said: Mattered) -> str:
    """Which features mattered, as a sentence."""
    if not said.features or said.change < LITTLE:
        return (
            "No feature mattered: whatever a pixel looks like, it listens to its neighbors in "
            "nearly the same way."
        )
    (first, share), *others = said.features
    text = f"What mattered most is the {first}"
    if share > 0.995:
        return f"{text}. Nothing else mattered."
    text += f" ({_percent(share)})"
    following = [f"the {name} ({_percent(s)})" for name, s in others[:2] if s >= 0.1]
    if following:
        text += f", followed by {' and '.join(following)}"
    return f"{text}."


def of_distances(found: Model, said: Mattered) -> str:
    """Which distances mattered, as a sentence."""
    own = next((d.share for d in said.distances if d.pixels == 0), 0.0)
    last = said.distances[-1].pixels
    if last == 0:
        return "No neighbor mattered: each pixel listens to itself alone."
    mean, equal = (
        sum(getattr(d, name) * d.pixels for d in said.distances) for name in ("share", "equal")
    )
    if own >= 0.5:
        text = f"Each pixel listens mostly to itself ({_percent(own)})"
    elif mean <= NEAR * equal:
        text = "Near neighbors mattered most"
    elif mean >= FAR * equal:
        text = "Far neighbors mattered most"
    else:
        text = "Near and far neighbors mattered alike"
    summed, half = 0.0, last
    for one in said.distances:
        summed += one.share
        if summed >= 0.5:
            half = one.pixels
            break
    where = f"within {pixels(half)}{micrometers(found, half)}" if half else "in the pixel itself"
    return (
        f"{text}: half of what a pixel listens to lies {where}, and all of it within "
        f"{pixels(last)}{micrometers(found, last)}."
    )


def of_directions(found: Model, said: Mattered) -> str:
    """Which directions mattered, as a sentence."""
    if said.distances[-1].pixels == 0:
        return "No direction mattered."
    side, lines = float(np.hypot(*said.side)), float(np.hypot(*said.lines))
    if side >= MUCH:
        text = f"Pixels listen mostly to what lies {_sector(said.side, 1, SIDES)} of them."
        text = text.replace("below of", "below").replace("above of", "above")
    elif lines >= MUCH:
        text = f"Pixels listen mostly to what lies {_sector(said.lines, 2, LINES)} of them."
        text = text.replace("below of", "below")
    elif said.line >= MUCH:
        text = (
            "Each pixel listens mostly along one line, and different pixels along different ones, "
            "as along borders or threads."
        )
    elif said.line >= SOME:
        text = "Each pixel listens somewhat more along one line than across it."
    else:
        text = "No direction mattered: pixels listen to all sides alike."
    return text + _sections(found, said)


def _sections(found: Model, said: Mattered) -> str:
    """What of a volume's weights lies in other sections, as a sentence."""
    places = np.array(found.offsets)
    if places.shape[1] < 3:
        return ""
    share = float(said.pattern[places[:, 0] != 0].sum())
    return f" {_percent(share)} of what a pixel listens to lies in the sections before and after."


def _sector(vector: np.ndarray, times: int, names: Sequence[str]) -> str:
    """The name of a direction, or of a line whose direction is doubled."""
    angle = math.atan2(*vector) / times
    return names[round(angle / (math.pi / 4)) % len(names)]


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
