"""Regularizers that are not learned: scores from probabilities, to which biases are added."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from support.sections import Sections, mapped
from tiledlaf.flow import linear, stencil
from tiledlaf.training.run import fit_bias

SEARCHED = 800_000  # scores of pixels that parameters are searched on
RINGS = "rings:3,7"
Scores = Callable[..., np.ndarray]


def none(p: np.ndarray, image: np.ndarray) -> np.ndarray:
    """The probabilities themselves."""
    return np.log(p)


def gaussian(p: np.ndarray, image: np.ndarray, sigma: float, of: str) -> np.ndarray:
    """Blurred probabilities, or blurred logarithms of them."""
    source = np.log(p) if of == "log p" else p
    found = np.stack([ndimage.gaussian_filter(plane, sigma, mode="mirror") for plane in source])
    return found if of == "log p" else np.log(found)


def median(p: np.ndarray, image: np.ndarray, window: int) -> np.ndarray:
    """Medians of the probabilities, plane by plane; two classes have one plane."""
    first = p[:1] if len(p) == 2 else p
    found = np.stack([ndimage.median_filter(plane, window, mode="mirror") for plane in first])
    found = np.concatenate([found, 1 - found]) if len(p) == 2 else found
    return np.log(np.maximum(found, np.float32(1e-6)))


def uniform(
    p: np.ndarray, image: np.ndarray, neighborhood: str, time: float, rho: float
) -> np.ndarray:
    """Z(T) of the linearized assignment flow with equal weights."""
    offsets = stencil.parse(neighborhood, 2)
    weights = stencil.uniform(offsets, p.shape[1:])
    return linear.solve(weights, -np.log(p), offsets, time=time, rho=rho).z


FILTERS: dict[str, tuple[Scores, dict[str, Sequence[Any]]]] = {
    "none": (none, {}),
    "Gaussian": (
        gaussian,
        {"sigma": (0.7, 1, 1.4, 2, 2.5, 3, 4), "of": ("p", "log p")},
    ),
    "median": (median, {"window": (3, 5, 7, 9, 11)}),
    "LAF uniform": (
        uniform,
        {
            "neighborhood": ("3x3", "5x5", RINGS),
            "time": (1, 2, 5, 8, 12, 20, 30),
            "rho": (0.5, 1, 2),
        },
    ),
}


def combinations(choices: dict[str, Sequence[Any]], fine: bool) -> list[dict[str, Any]]:
    """All combinations of parameters; of the first two values of each unless fine."""
    values = [v if fine else v[:2] for v in choices.values()]
    return [dict(zip(choices, row, strict=True)) for row in itertools.product(*values)]


@dataclass(frozen=True, eq=False)
class Tuned:
    """A method that is ready.

    Attributes
    ----------
    labels : labels 1..J of (p, image)
    chosen : parameters, biases among them
    validation : error where they were chosen
    """

    labels: Callable[[np.ndarray, np.ndarray], np.ndarray]
    chosen: dict[str, Any]
    validation: float


def biased(scores: np.ndarray, bias: Sequence[float]) -> np.ndarray:
    """Labels 1..J of scores with biases."""
    return (scores + np.asarray(bias, np.float32)[:, None, None]).argmax(0).astype(np.uint8) + 1


def rows_of(scores: list[np.ndarray], truths: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Scores (n, J) and classes from 0 of labeled pixels."""
    x = np.concatenate([s.reshape(len(s), -1).T for s in scores])
    y = np.concatenate([t.ravel() for t in truths]).astype(np.int64)
    return x[y > 0], y[y > 0] - 1


def tune_filter(name: str, judges: Sections, fine: bool, most: int | None = None) -> Tuned:
    """A filter of this name with its best parameters, as by `search`."""
    return search(*FILTERS[name], judges, fine, most)


def search(
    function: Scores,
    choices: dict[str, Sequence[Any]],
    judges: Sections,
    fine: bool,
    most: int | None = None,
) -> Tuned:
    """The parameters and biases of the lowest error on these sections; `most` as in `finished`."""
    best: tuple[float, dict[str, Any]] = (np.inf, {})
    for chosen in combinations(choices, fine):
        x, y = scored(function, judges, chosen)
        stride = max(1, x.size // SEARCHED)
        best = min(best, (fit_bias(x[::stride], y[::stride])[1], chosen), key=lambda one: one[0])
    return finished(function, judges, best[1], most)


def scored(
    function: Scores, judges: Sections, chosen: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of labeled pixels and their classes."""
    found = mapped(lambda p, i: function(p, i, **chosen), judges.probabilities, judges.images)
    return rows_of(found, judges.labels)


def finished(
    function: Scores, judges: Sections, chosen: dict[str, Any], most: int | None = None
) -> Tuned:
    """Biases fitted to all labeled pixels of these sections; to about `most` of many."""
    x, y = scored(function, judges, chosen)
    stride = max(1, len(y) // most) if most else 1
    bias, error = fit_bias(x[::stride], y[::stride])
    return Tuned(
        lambda p, image: biased(function(p, image, **chosen), bias),
        chosen | {"bias": bias.round(4).tolist()},
        error,
    )
