"""What a worker does in training: read a tile once, then compute its losses and gradients."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ..files import image as image_files
from ..files.image import Image
from ..flow import stencil
from ..flow.gradient import Linearization, Polynomials, linearize_at
from ..flow.losses import Loss
from ..kernels import namespace
from ..kernels.arrays import Array, Offsets, on_device, to_host
from ..model import bands
from ..model import predictor as predictors
from ..model.accepted import usable
from ..model.classes import Class
from ..model.features import Features
from ..model.predictor import Predictor
from ..model.settings import margin
from ..model.term import DataTerm
from ..model.terms import Averaged, Networked
from ..tiles import Box, Grid, Tile, wider, within
from . import examples
from .examples import Example

KEPT = 64 << 20  # bytes of a tile's features up to which they are kept within a step
UNIFORM = 32 << 20  # bytes of equal weights up to which they are kept


@dataclass(frozen=True)
class LabeledTile:
    """A tile of an example, whose core no other tile shares; `fold` chooses its data term."""

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
        """Pixels beyond a core that its loss depends on, for each axis: r n."""
        reach = self.way.degree(self.time)
        return tuple(reach * r for r in stencil.radius(self.offsets))

    def held_bytes(self, pixels: int) -> int:
        """Of a flow and its weights: these, Z, S, q and the terms of the gradient."""
        planes = len(self.offsets) + len(self.classes) * (3 + self.way.terms(self.time))
        return 4 * planes * pixels


@dataclass(frozen=True)
class TileReader:
    """What is needed to read a labeled tile.

    Attributes
    ----------
    terms : one for each fold
    features : features of the predictor
    everywhere : whether the whole window has targets, not only the core
    made : of each fold, the probabilities that its term makes of each example's image, or None
    """

    flow: FlowSettings
    examples: tuple[Example, ...]
    terms: tuple[DataTerm, ...]
    features: Features | None
    everywhere: bool = False
    made: tuple[tuple[Image | None, ...], ...] = ()

    def given(self, labeled: LabeledTile) -> Image | None:
        """The probabilities that a tile's term takes, if it takes any."""
        made = self.made[labeled.fold][labeled.example] if self.made else None
        return made or self.examples[labeled.example].probabilities


def probabilities(
    terms: Sequence[DataTerm], examples: Sequence[Example]
) -> tuple[tuple[Image | None, ...], ...]:
    """Of each term, the probabilities that it makes of each example's image, if it does.

    Terms that are equal share them, so that no block of an image in memory is computed twice.
    """
    found: dict[Any, tuple[Image | None, ...]] = {}
    keys = [
        (type(one), one.network) if isinstance(one, Networked | Averaged) else id(one)
        for one in terms
    ]
    for key, term in zip(keys, terms, strict=True):
        if key not in found:
            found[key] = tuple(e.probabilities or term.probabilities_of(e.image) for e in examples)
    return tuple(found[key] for key in keys)


@dataclass
class TileData:
    """A tile that was read, on the device; features are computed of it when they are needed.

    They would be by far the largest part, and computing them takes a tenth of a step.

    Attributes
    ----------
    image : (C, *outer), None where no feature needs it
    outer : (J, *outer), q = -D / rho of the window and of what its features look at
    part : the window within `outer`
    target : (*window) class numbers, 0 outside the core and where not labeled
    valid : (*window) bool or None
    """

    image: Array
    outer: Array
    part: tuple[slice, ...]
    target: Array
    valid: Array = None
    memo: tuple[Any, Linearization, Array] | None = field(default=None, repr=False)

    @property
    def q(self) -> Array:
        """-D / rho of the window, (J, *window)."""
        return namespace(self.outer).ascontiguousarray(self.outer[:, *self.part])

    def features(self, predictor: Predictor, rho: float) -> Array:
        """Features of the window, (F, *window)."""
        found = predictor.of(self.image, self.outer, rho)[:, *self.part]
        return namespace(found).ascontiguousarray(found)

    def bands(self, predictor: Predictor, rho: float) -> Iterator[tuple[slice, np.ndarray]]:
        """Features of the window band by band, on the host, and which of its rows they are of."""
        sources = predictors.sources(predictor.features, self.image, self.outer, rho)
        return bands.bands(predictor.features, *sources, self.part)

    def weights(
        self, flow: FlowSettings, predictor: Predictor, uniform: Array
    ) -> tuple[Array, Array]:
        """Weights of the window, and its features; None in place of many, found band by band."""
        shape = self.target.shape
        if 4 * len(predictor.mean) * math.prod(shape) <= KEPT:
            features = self.features(predictor, flow.rho)
            return predictor.weights(features, uniform, flow.kernel), features
        copied, move = namespace(uniform).ascontiguousarray, on_device(flow.device)

        def weighted(features: np.ndarray, rows: slice) -> Array:
            given = copied(uniform[..., rows, :])
            return predictor.weights(move(features), given, flow.kernel)

        return bands.joined(self.bands(predictor, flow.rho), shape[-2], weighted), None

    def uniform(self, offsets: Offsets, device: str) -> Array:
        """Equal weights of all valid neighbors, (K, *window)."""
        if self.valid is None:
            kept = 4 * len(offsets) * self.target.size <= UNIFORM
            made = _uniform if kept else _uniform.__wrapped__
            return made(offsets, self.target.shape, device)
        return stencil.uniform(offsets, self.target.shape, self.valid, namespace(self.outer))

    def linearization(
        self, flow: FlowSettings, predictor: Predictor | None, key: Any
    ) -> tuple[Linearization, Array]:
        """The flow at the predictor's weights, and its features; kept for calls with the same key.

        Without a key, nothing is kept. Without a predictor, weights are uniform, and there are no
        features; nor are there where they would be many.
        """
        if self.memo is None or self.memo[0] != key or key is None:
            self.memo = None
            omega, features = self.uniform(flow.offsets, flow.device), None
            if predictor is not None:
                omega, features = self.weights(flow, predictor, omega)
            found = linearize(flow, self, omega), features
            if key is None:
                return found
            self.memo = (key, *found)
        return self.memo[1:]

    def __getstate__(self) -> dict[str, Any]:
        # the cached flow stays on the worker that computed it
        return {**self.__dict__, "memo": None}

    def __sizeof__(self) -> int:
        held = (self.image, self.outer, self.target, self.valid)
        return sum(a.nbytes for a in held if a is not None)


def linearize(flow: FlowSettings, data: TileData, weights: Array) -> Linearization:
    """The flow at these weights, (K, *window)."""
    return linearize_at(weights, data.q, flow.offsets, flow.time, flow.way, flow.kernel)


def read(reader: TileReader, labeled: LabeledTile) -> TileData:
    """Read a tile and compute its data term."""
    flow, example = reader.flow, reader.examples[labeled.example]
    term, wanted = reader.terms[labeled.fold], reader.features
    move = on_device(flow.device)
    window, grid = labeled.tile.window, example.image.grid
    outer = wider(window, grid, margin(term, wanted, len(window)))
    pixels = image_files.read(example.image, outer)
    valid, given = examples.valid_of(example, outer, pixels), reader.given(labeled)
    image, valid = move(pixels), None if valid is None else move(valid)
    source = image if given is None else move(image_files.read(given, outer))
    with examples.naming(given or example.image, outer):
        q = term.potential(source, valid, flow.rho)
    # what is kept: the window, and beyond it what the features of its pixels look at
    reach = 0 if wanted is None else wanted.radius
    seen = wider(window, grid, (0,) * (len(window) - 2) + (reach,) * 2)
    planes = None
    if wanted is not None and wanted.needs("image"):
        with examples.naming(example.image, outer):
            planes = usable(image, valid, "image")[:, *within(outer, seen)]
    part = within(outer, window)
    inside = None if valid is None else valid[part]
    copied = namespace(q).ascontiguousarray
    return TileData(
        None if planes is None else copied(planes),
        copied(q[:, *within(outer, seen)]),
        within(seen, window),
        move(_targets(reader, labeled, None if inside is None else to_host(inside))),
        inside,
    )


def read_near(reader: TileReader, labeled: LabeledTile) -> TileData:
    """Read what is labeled of a tile and what this depends on, and compute its data term."""
    core = core_of(labeled)
    example = reader.examples[labeled.example]
    found = examples.targets(examples.read_labels(example.labels, core), reader.flow.classes)
    box = nearest(core, found)
    size = tuple(b.stop - b.start for b in box)
    start = tuple(b.start for b in box)
    near = Grid(example.image.grid, start, size, size, reader.flow.halo).tile_at((0,) * len(box))
    return read(reader, dataclasses.replace(labeled, tile=near))


def core_of(labeled: LabeledTile) -> Box:
    """The tile's own pixels in its image."""
    return tuple(
        slice(w.start + i.start, w.start + i.stop)
        for w, i in zip(labeled.tile.window, labeled.tile.inner, strict=True)
    )


def nearest(box: Box, target: np.ndarray) -> Box:
    """The part of a box beyond which nothing is labeled; all of it if nothing is at all."""
    places = target.nonzero()
    if not len(places[0]):
        return box
    return tuple(
        slice(b.start + int(p.min()), b.start + int(p.max()) + 1)
        for b, p in zip(box, places, strict=True)
    )


def _targets(reader: TileReader, labeled: LabeledTile, valid: np.ndarray | None) -> np.ndarray:
    """Class numbers of a tile's window, 0 outside its core, if not wanted there, and unlabeled."""
    example, classes = reader.examples[labeled.example], reader.flow.classes
    window, core = labeled.tile.window, labeled.tile.inner
    target = np.zeros(tuple(w.stop - w.start for w in window), np.min_scalar_type(len(classes)))
    if reader.everywhere:
        core = tuple(slice(0, n) for n in target.shape)
    place = tuple(
        slice(w.start + i.start, w.start + i.stop) for w, i in zip(window, core, strict=True)
    )
    target[core] = examples.targets(examples.read_labels(example.labels, place), classes)
    if valid is not None:
        target[~valid] = 0
    return target


@functools.lru_cache(maxsize=4)
def _uniform(offsets: Offsets, grid: tuple[int, ...], device: str) -> Array:
    return on_device(device)(stencil.uniform(offsets, grid))


@dataclass(frozen=True)
class Sums:
    """What is summed over the labeled pixels of tiles.

    Attributes
    ----------
    loss : sums of the loss, float64
    wrong, labeled : numbers of wrongly labeled and of labeled pixels
    regularizer : sum of the regularizer
    """

    loss: np.ndarray
    wrong: int
    labeled: int
    regularizer: float = 0.0

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.loss + other.loss,
            self.wrong + other.wrong,
            self.labeled + other.labeled,
            self.regularizer + other.regularizer,
        )

    def __radd__(self, nothing: int) -> Sums:  # `sum` begins with 0
        return self

    @property
    def finite(self) -> bool:
        """Whether all sums are finite."""
        return bool(np.isfinite(self.loss).all() and np.isfinite(self.regularizer))

    @property
    def error(self) -> float:
        """Share of wrongly labeled pixels."""
        return self.wrong / self.labeled


def loss_sums(
    argument: tuple[FlowSettings, Predictor | None, np.ndarray, Any], data: TileData
) -> Sums:
    """Sums of the loss, and of wrong and labeled pixels, with one bias for each class."""
    flow, predictor, bias, key = argument
    found, _ = data.linearization(flow, predictor, key)
    return Sums(flow.loss.sums(found.z, data.target), *wrong(found.z, data.target, bias))


def wrong(z: Array, target: Array, bias: np.ndarray) -> tuple[int, int]:
    """How many pixels get a label other than their target, and how many have a target."""
    best = z[0] + z.dtype.type(bias[0])
    where = np.ones_like(target)
    for j in range(1, len(z)):
        value = z[j] + z.dtype.type(bias[j])
        better = value > best
        where[better] = j + 1
        best[better] = value[better]
    labeled = target > 0
    return int(((where != target) & labeled).sum()), int(labeled.sum())


def parameter_gradient(
    argument: tuple[FlowSettings, Predictor, np.ndarray, Any], data: TileData
) -> dict[str, np.ndarray]:
    """Gradient of the predictor's parameters, given the sums of the loss over all tiles."""
    flow, predictor, sums, key = argument
    found, features = data.linearization(flow, predictor, key)
    g = flow.loss.gradient(found.z, data.target, sums)
    tangent = found.gradient(g).tangent
    del found, g
    data.memo = None
    if features is not None:
        return predictor.gradient(features, tangent, flow.kernel)
    copied, move = namespace(tangent).ascontiguousarray, on_device(flow.device)
    total: dict[str, np.ndarray] = {}
    for rows, part in data.bands(predictor, flow.rho):
        given = copied(tangent[..., rows, :])
        for name, value in predictor.gradient(move(part), given, flow.kernel).items():
            total[name] = total.get(name, 0) + value
    return total


class Scored(NamedTuple):
    """Sums of the loss of a tile, Z at some of its labeled pixels (n, J), their classes from 0."""

    sums: np.ndarray
    rows: np.ndarray
    labels: np.ndarray


def scores(argument: tuple[FlowSettings, Predictor | None, int], data: TileData) -> Scored:
    """The scores at every `stride`-th labeled pixel of a tile."""
    flow, predictor, stride = argument
    found, _ = data.linearization(flow, predictor, None)
    target = to_host(data.target).ravel()
    chosen = np.flatnonzero(target)[::stride]
    z = to_host(found.z).reshape(len(flow.classes), -1)
    rows = np.ascontiguousarray(z[:, chosen].T)
    sums = flow.loss.sums(found.z, data.target)
    return Scored(sums, rows, target[chosen].astype(np.int64) - 1)


def sample(
    argument: tuple[FlowSettings, Features, int, int], item: tuple[TileData, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of randomly drawn labeled pixels, and which neighbors agree and are known.

    Returns
    -------
    features (n, F), agreement (n, K) bool, known (n, K) bool
    """
    (flow, wanted, count, seed), (data, number) = argument, item
    target = to_host(data.target)
    chosen = drawn(np.flatnonzero(target), count, (seed, number))
    places = np.unravel_index(chosen, target.shape)
    sources = predictors.sources(wanted, data.image, data.outer, flow.rho)
    around = data.outer.shape[1:]
    there = [p + s.start for p, s in zip(places, data.part, strict=True)]
    rows = wanted.compute(*sources, np.ravel_multi_index(there, around)).T
    own = target[places]
    same = np.zeros((len(chosen), len(flow.offsets)), bool)
    known = np.zeros_like(same)
    for k, offset in enumerate(flow.offsets):
        there = [p + o for p, o in zip(places, offset, strict=True)]
        inside = np.all([(t >= 0) & (t < n) for t, n in zip(there, target.shape, strict=True)], 0)
        label = target[tuple(np.where(inside, t, 0) for t in there)]
        known[:, k] = inside & (label > 0)
        same[:, k] = label == own
    return np.ascontiguousarray(rows), same, known


def drawn(places: np.ndarray, count: int, seed: Sequence[int]) -> np.ndarray:
    """Randomly draw `count` of the places, in order; all of them if there are no more."""
    if len(places) <= count:
        return places
    rng = np.random.default_rng(list(seed))
    return np.sort(rng.choice(places, count, replace=False))
