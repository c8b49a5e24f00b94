"""The methods of docs/quality.md: each is fitted to a set's training images, then labels others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from support import cuts, filters, judging, peers, pixelwise, unet
from support.datasets import Loaded
from support.filters import Tuned, search, tune_filter
from support.sections import Sections, mapped, say
from tiledlaf import label as tiledlaf_label
from tiledlaf.pool.opening import cores, open_pool
from tiledlaf.training import examples
from tiledlaf.training.run import Data, Recipe, train

MOST = 2_000_000  # pixels that biases are fitted to
CUT = 1_500_000  # pixels that parameters are searched on where one try takes seconds
Labels = tuple[np.ndarray, np.ndarray | None]


@dataclass(frozen=True)
class Effort:
    """How much is computed.

    Attributes
    ----------
    edge : images that are longer are thinned out to every so-manyth pixel
    images : of either kind at most
    pixels : that classifiers are fitted to
    minutes : of the processor that a U-Net learns
    fine : whether all parameters of the others are tried, or two of each
    recipe : how ours learns, where not by default
    """

    edge: int = 2048
    images: int = 100
    pixels: int = 150_000
    minutes: float = 12.0
    fine: bool = True
    recipe: dict[str, Any] = field(default_factory=dict)


FULL = Effort()
SMALL = Effort(128, 4, 6_000, 0.02, False, {"steps": 3, "predictor_size": 4})


@dataclass(frozen=True, eq=False)
class Problem:
    """What a method gets: images, names of classes, a seed, and a folder for what it keeps.

    Attributes
    ----------
    base : kind of the probabilities that filters begin with
    """

    loaded: Loaded
    classes: list[str]
    seed: int
    effort: Effort
    kept: Path
    base: str = "classifier"

    @cached_property
    def chances(self) -> pixelwise.Chances:
        """The probabilities that filters begin with."""
        return self.of(self.base)

    def of(self, kind: str) -> pixelwise.Chances:
        """Probabilities of a kind of classifier."""
        say(f"  probabilities of the {kind}, seed {self.seed}")
        count, pixels = len(self.classes), self.effort.pixels
        return pixelwise.chances(kind, self.loaded, count, pixels, self.seed, self.kept)

    def training(self, chances: pixelwise.Chances, colored: bool = False) -> Sections:
        """The images that are learned from, gray or with three channels last."""
        numbers, look = range(self.loaded.training), self.color if colored else self.loaded.gray
        return Sections(
            list(numbers),
            [look(n) for n in numbers],
            [self.loaded.labels[n] for n in numbers],
            [chances.all[n] for n in numbers],
        )

    def color(self, number: int) -> np.ndarray:
        """An image with three channels, (y, x, 3) uint8."""
        planes = self.loaded.images[number]
        found = np.moveaxis(planes if len(planes) == 3 else np.repeat(planes[:1], 3, 0), 0, -1)
        return np.ascontiguousarray(found, np.uint8)


@dataclass(frozen=True, eq=False)
class Ready:
    """A method that is fitted.

    Attributes
    ----------
    label : from a judged image's number to labels 1..J and, of some methods, their probability
    chosen : what was chosen for it
    error : where it was chosen; None: nothing was
    before : seconds a megapixel that probabilities cost before
    other : labels of any image (C, y, x), of methods that are judged on changed ones as well
    """

    label: Callable[[int], Labels]
    chosen: dict[str, Any]
    error: float | None = None
    before: float = 0.0
    other: Callable[[np.ndarray], np.ndarray] | None = None


Method = Callable[[Problem], Ready]


def decided(scores: np.ndarray, bias: Any = 0.0) -> Labels:
    """Labels 1..J of scores and biases, and the softmax of the winning one."""
    rows = scores + np.asarray(bias, np.float32).reshape(-1, 1, 1)
    labels = rows.argmax(axis=0)
    best = np.take_along_axis(rows, labels[None], 0)
    return labels.astype(np.uint8) + 1, 1 / np.exp(rows - best).sum(axis=0)


def scored(problem: Problem, function: filters.Scores, tuned: Tuned, colored: bool) -> Ready:
    """A function of probabilities with the parameters and biases that were found for it."""
    chances = problem.chances
    look = problem.color if colored else problem.loaded.gray
    more = {name: value for name, value in tuned.chosen.items() if name != "bias"}

    def label(number: int) -> Labels:
        found = function(chances.all[number], look(number), **more)
        return decided(found, tuned.chosen["bias"])

    return Ready(label, tuned.chosen, tuned.validation, chances.seconds)


def filtered(name: str) -> Method:
    """No filter, or one of `filters`."""

    def method(problem: Problem) -> Ready:
        given = problem.training(problem.chances)
        found = tune_filter(name, given, problem.effort.fine, MOST)
        return scored(problem, filters.FILTERS[name][0], found, False)

    return method


SIGMAS, BIASES = (1, 2, 3, 4, 6), (0, 0.3, 0.6, 1, 1.5, 2, 3)


def for_segments(problem: Problem) -> Ready:
    """A Gaussian and a bias of the first class that lies between segments: least Rand error."""
    given, chances = problem.training(problem.chances), problem.chances
    fine = problem.effort.fine

    def error(sigma: float, bias: float) -> float:
        def one(p: np.ndarray, image: np.ndarray, truth: np.ndarray) -> float:
            labels = decided(filters.gaussian(p, image, sigma, "p"), [bias, 0])[0]
            return judging.segments(labels, truth, 1)["rand"]

        return float(np.mean(mapped(one, given.probabilities, given.images, given.labels)))

    tried = [(s, b) for s in SIGMAS[: None if fine else 2] for b in BIASES[: None if fine else 2]]
    found = {one: error(*one) for one in tried}
    sigma, bias = min(found, key=lambda one: found[one])

    def label(number: int) -> Labels:
        p = chances.all[number]
        return decided(filters.gaussian(p, problem.loaded.gray(number), sigma, "p"), [bias, 0])

    return Ready(label, {"sigma": sigma, "bias": [bias, 0]}, found[sigma, bias], chances.seconds)


def share(given: Sections, most: int) -> float:
    """The part of each image that makes so many pixels in all."""
    return min(1.0, most / sum(truth.size for truth in given.labels))


def graph_cut(problem: Problem) -> Ready:
    """A graph cut for two classes, alpha-expansion for more."""
    import maxflow as maxflow

    chances, given = problem.chances, problem.training(problem.chances)
    most = CUT if len(problem.classes) == 2 else CUT // 2
    found = cuts.tune_cut(given, problem.effort.fine, share(given, most), MOST)
    return Ready(
        lambda n: (found.labels(chances.all[n], problem.loaded.gray(n)), None),
        found.chosen,
        found.validation,
        chances.seconds,
    )


CRF: dict[str, Any] = {
    "smooth": (1, 3),
    "weight": (2, 5),
    "reach": (10, 30),
    "contrast": (5, 15),
}


def crf(p: np.ndarray, image: np.ndarray, **more: float) -> np.ndarray:
    """Logarithms of a dense CRF's marginals."""
    found = peers.marginals(-np.log(p), image, **more)
    return np.log(np.maximum(found, np.float32(1e-6)))


def dense_crf(problem: Problem) -> Ready:
    """Mean-field steps in a dense CRF."""
    import pydensecrf.densecrf as densecrf  # noqa: F401

    given = problem.training(problem.chances, colored=True)
    part = cuts.upper(given, share(given, CUT))
    found = search(crf, CRF, part, problem.effort.fine, MOST)
    return scored(problem, crf, found, True)


def forest(problem: Problem) -> Ready:
    """scikit-image's features and a random forest, with biases."""
    chances = problem.of("forest")
    found = filters.finished(filters.none, problem.training(chances), {}, MOST)
    bias = found.chosen["bias"]
    return Ready(
        lambda n: decided(np.log(chances.all[n]), bias),
        found.chosen,
        found.validation,
        chances.seconds,
    )


def small_unet(problem: Problem) -> Ready:
    """A small U-Net that learns for some minutes, without biases."""
    import torch

    loaded, count = problem.loaded, problem.loaded.training
    torch.set_num_threads(cores())
    predict, steps = unet.learn(
        loaded.images[:count],
        loaded.labels[:count],
        len(problem.classes),
        problem.effort.minutes,
        problem.seed,
    )
    torch.set_num_threads(1)
    return Ready(
        lambda n: decided(np.log(pixelwise.clipped(predict(loaded.images[n])))), {"steps": steps}
    )


def plain(kind: str) -> Method:
    """A classifier of single pixels alone: strokes tell no priors, so no biases."""

    def method(problem: Problem) -> Ready:
        count, pixels = len(problem.classes), problem.effort.pixels
        given = pixelwise.KINDS[kind]
        found, seconds = pixelwise.classify(
            given, problem.loaded, count, pixels, problem.seed, folded=False
        )
        return Ready(lambda n: decided(np.log(pixelwise.clipped(found[n]))), {}, before=seconds)

    return method


def recipe_of(problem: Problem, options: Mapping[str, Any] = MappingProxyType({})) -> Recipe:
    """How ours learns, by default but for these options."""
    return Recipe(**(problem.effort.recipe | dict(options)), seed=problem.seed)


def ours(options: Mapping[str, Any]) -> Method:
    """What `tiledlaf train --classifier` learns by default, but for these options of a recipe."""

    def method(problem: Problem) -> Ready:
        loaded, count = problem.loaded, problem.loaded.training
        name = "-".join(["ours", *map(str, options), str(problem.seed)])
        names = {str(i): name for i, name in enumerate(problem.classes, 1)}
        recipe = recipe_of(problem, options)
        given = examples.pair(loaded.images[:count], loaded.labels[:count])
        with open_pool() as pool:
            data = Data(given, term="classifier", names=names, ignore=0)
            # without a path: a model of an earlier version of the program would be taken
            model = train(data, recipe, pool)
        model.save(problem.kept / f"{name}.model")

        def label(number: int, part: slice = slice(None)) -> Labels:
            image = loaded.images[number][:, part, part]
            labels, p = tiledlaf_label(image, model=model, workers=1, confidence=True)
            return np.asarray(labels, np.uint8), np.asarray(p)

        def other(image: np.ndarray) -> np.ndarray:
            return np.asarray(tiledlaf_label(image, model=model, workers=1), np.uint8)

        middle = min(loaded.images[count].shape[1:]) // 2  # a corner may be black
        label(count, slice(middle - 32, middle + 32))  # compiles
        error, choice = model.trained["error"], model.trained["choice"]
        about = {"steps": model.trained["steps"], "validation": error, "flow": choice["way"]}
        return Ready(label, about, float(error), other=other)

    return method
