"""What a worker does in training: read a tile once, then losses and gradients of its own pixels."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..files import image as image_files
from ..flow import stencil
from ..flow.gradient import Linearization, Polynomials, linearize_at
from ..flow.losses import Loss
from ..kernels import namespace
from ..kernels.arrays import Array, Offsets, on_device, to_host
from ..model import predictor
from ..model.classes import Class
from ..model.features import Features
from ..model.predictor import Predictor
from ..model.settings import margin
from ..model.terms import DataTerm, usable
from ..tiles import Tile, within
from . import examples
from .examples import Example


@dataclass(frozen=True)
class LabeledTile:
    """A tile of an example; its pixels are this tile's alone. `fold` says which term it gets."""

    example: int
    tile: Tile
    fold: int = 0


@dataclass(frozen=True)
class FlowSettings:
    """All that does not change while weights are learned.

    Attributes
    ----------
    classes : J of them
    offsets, rho, time, way, loss : of the flow and its gradient
    """

    classes: tuple[Class, ...]
    offsets: Offsets
    rho: float
    time: float
    way: Polynomials
    loss: Loss
    device: str = "cpu"
    kernel: str | None = None

    @property
    def halo(self) -> tuple[int, ...]:
        """Pixels beyond a core that its loss depends on, an axis: r n."""
        reach = self.way.degree(self.time)
        return tuple(reach * r for r in stencil.radius(self.offsets))


@dataclass(frozen=True)
class TileReader:
    """What reading a lot takes.

    Attributes
    ----------
    terms : one a fold
    features : of the predictor
    everywhere : whether all of the window has targets, not the core alone
    """

    course: FlowSettings
    examples: tuple[Example, ...]
    terms: tuple[DataTerm, ...]
    features: Features | None
    everywhere: bool = False


@dataclass
class TileData:
    """A lot that was read: features, q = -D / rho, targets; on the device.

    Attributes
    ----------
    features : (F, *window)
    q : (J, *window)
    target : (*window) class numbers, 0 outside the core and where not labeled
    uniform : (K, *window)
    """

    features: Array
    q: Array
    target: Array
    uniform: Array
    memo: tuple[Any, Linearization] | None = field(default=None, repr=False)

    def linearization(
        self, course: FlowSettings, weights: Predictor | None, key: Any
    ) -> Linearization:
        """The flow at the predictor's weights (uniform ones without), kept for the same key."""
        if self.memo is None or self.memo[0] != key or key is None:
            omega = self.uniform
            if weights is not None:
                omega = weights.weights(self.features, self.uniform, course.kernel)
            self.memo = (key, linearize(course, self, omega))
        return self.memo[1]

    def __getstate__(self) -> dict[str, Any]:
        # what is kept for a step stays where the step is
        return {**self.__dict__, "memo": None}

    def __sizeof__(self) -> int:
        return sum(a.nbytes for a in (self.features, self.q, self.target, self.uniform))


def linearize(course: FlowSettings, lesson: TileData, weights: Array) -> Linearization:
    """The flow at these weights, (K, *window)."""
    return linearize_at(weights, lesson.q, course.offsets, course.time, course.way, course.kernel)


def read(reading: TileReader, lot: LabeledTile) -> TileData:
    """Read a lot and compute its features and data term."""
    course, example = reading.course, reading.examples[lot.example]
    term = reading.terms[lot.fold]
    move = on_device(course.device)
    window = lot.tile.window
    reach = margin(term, reading.features, len(window))
    outer = tuple(
        slice(max(0, w.start - m), min(n, w.stop + m))
        for w, n, m in zip(window, example.image.grid, reach, strict=True)
    )
    part = within(outer, window)
    image = move(image_files.read(example.image, outer))
    valid, given = None, example.probabilities
    if example.mask is not None:
        valid = move(image_files.read(example.mask, outer)[0] != 0)
    source = image if given is None else move(image_files.read(given, outer))
    with examples.naming(given or example.image, outer):
        q = term.potential(source, valid, course.rho)
    features = q[:0]
    if reading.features is not None:
        if reading.features.needs("image"):
            with examples.naming(example.image, outer):
                image = usable(image, valid, "image")
        features = predictor.raw(reading.features, image, q, course.rho)
    target = np.zeros(
        tuple(w.stop - w.start for w in window), np.min_scalar_type(len(course.classes))
    )
    core = lot.tile.inner
    if reading.everywhere:
        core = tuple(slice(0, w.stop - w.start) for w in window)
    place = tuple(
        slice(w.start + i.start, w.start + i.stop) for w, i in zip(window, core, strict=True)
    )
    target[core] = examples.targets(examples.read_labels(example.labels, place), course.classes)
    inside = None if valid is None else valid[part]
    if inside is not None:
        target[~to_host(inside)] = 0
    grid = target.shape
    uniform = (
        _uniform(course.offsets, grid, course.device)
        if inside is None
        else stencil.uniform(course.offsets, grid, inside, namespace(q))
    )
    return TileData(
        np.ascontiguousarray(features[:, *part]),
        np.ascontiguousarray(q[:, *part]),
        move(target),
        uniform,
    )


@functools.lru_cache(maxsize=8)
def _uniform(offsets: Offsets, grid: tuple[int, ...], device: str) -> Array:
    return on_device(device)(stencil.uniform(offsets, grid))


def loss_sums(
    argument: tuple[FlowSettings, Predictor | None, np.ndarray, Any], lesson: TileData
) -> np.ndarray:
    """Sums of the loss, then wrongly labeled pixels (with a bias a class) and labeled ones."""
    course, weights, bias, key = argument
    found = lesson.linearization(course, weights, key)
    sums = course.loss.sums(found.z, lesson.target)
    return np.concatenate([sums, wrong(found.z, lesson.target, bias)])


def wrong(z: Array, target: Array, bias: np.ndarray) -> list[int]:
    """How many pixels have another label than their target, and how many are labeled."""
    best = z[0] + z.dtype.type(bias[0])
    where = np.ones_like(target)
    for j in range(1, len(z)):
        value = z[j] + z.dtype.type(bias[j])
        better = value > best
        where[better] = j + 1
        best[better] = value[better]
    labeled = target > 0
    return [int(((where != target) & labeled).sum()), int(labeled.sum())]


def parameter_gradient(
    argument: tuple[FlowSettings, Predictor, np.ndarray, Any], lesson: TileData
) -> dict[str, np.ndarray]:
    """Gradient of the predictor's parameters, given the sums of the loss over all tiles."""
    course, weights, sums, key = argument
    found = lesson.linearization(course, weights, key)
    g = course.loss.gradient(found.z, lesson.target, sums)
    tangent = found.gradient(g).tangent
    lesson.memo = None
    return weights.gradient(lesson.features, tangent, course.kernel)


def validation_scores(
    argument: tuple[FlowSettings, Predictor | None, int], lesson: TileData
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums of the loss, Z at every so-manyth labeled pixel, (n, J), and their classes from 0."""
    course, weights, stride = argument
    found = lesson.linearization(course, weights, None)
    lesson.memo = None
    target = to_host(lesson.target).ravel()
    chosen = np.flatnonzero(target)[::stride]
    z = to_host(found.z).reshape(len(course.classes), -1)
    sums = course.loss.sums(found.z, lesson.target)
    return sums, np.ascontiguousarray(z[:, chosen].T), target[chosen].astype(np.int64) - 1


def sample(
    argument: tuple[FlowSettings, int, int], item: tuple[TileData, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, agreement and knowledge of neighbors at randomly chosen labeled pixels.

    Returns
    -------
    features (n, F), agreement (n, K) bool, known (n, K) bool
    """
    (course, count, seed), (lesson, number) = argument, item
    target = to_host(lesson.target)
    chosen = drawn(np.flatnonzero(target), count, (seed, number))
    features = to_host(lesson.features)
    rows = features.reshape(len(features), -1)[:, chosen].T
    places = np.unravel_index(chosen, target.shape)
    own = target[places]
    same = np.zeros((len(chosen), len(course.offsets)), bool)
    known = np.zeros_like(same)
    for k, offset in enumerate(course.offsets):
        there = [p + o for p, o in zip(places, offset, strict=True)]
        inside = np.all([(t >= 0) & (t < n) for t, n in zip(there, target.shape, strict=True)], 0)
        label = target[tuple(np.where(inside, t, 0) for t in there)]
        known[:, k] = inside & (label > 0)
        same[:, k] = label == own
    return np.ascontiguousarray(rows), same, known


def drawn(places: np.ndarray, count: int, seed: Sequence[int]) -> np.ndarray:
    """Some of these, in order; all of them if there are no more."""
    if len(places) <= count:
        return places
    rng = np.random.default_rng(list(seed))
    return np.sort(rng.choice(places, count, replace=False))
