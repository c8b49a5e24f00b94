"""Estimate the weight patches of a labeled image: Riemannian descent, tile by tile (section 3)."""

from __future__ import annotations

import dataclasses
import filecmp
import itertools
import math
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import redaction
from ..annotations import numbering
from ..errors import (
    InputChanged,
    InputError,
    OutputBelongsElsewhere,
    as_number,
    as_seed,
    at_least,
    settle_numbers,
)
from ..files import fingerprints, images, nodes, stores, units
from ..files.claims import Claim
from ..files.image import Image
from ..files.levels import Pyramid
from ..files.stores import PART
from ..flow import losses, sequence, stencil
from ..flow.gradient import Polynomials
from ..flow.linear import check_growth, check_time
from ..flow.optimizers import Descent
from ..flow.sequence import LinearizedSteps
from ..kernels import namespace
from ..kernels.arrays import on_device, to_host
from ..model import neighborhoods
from ..model.classes import Class, entries
from ..model.settings import check_learnable
from ..model.term import DataTerm
from ..pool.opening import find_device
from ..pool.tasks import Pool, check_progress, tree_sum
from ..tiles import Box, Grid
from . import pixels, survey
from . import terms as fitting
from . import worker as training_worker
from .examples import Example
from .judging import Bench
from .plan import Progress, image_state
from .worker import FlowSettings, LabeledTile, Sums, TileData, TileReader

GROW, SHRINK = 1.5, 0.5
TILE = 512


@dataclass(frozen=True)
class Estimation:
    """How weights are estimated.

    Attributes
    ----------
    neighborhood : str or offsets, as in `model.neighborhoods`
    time, rho, tol : parameters of the flow
    loss : cosine, pixel-cosine or cross-entropy
    tau : scale of the regularizer (3.5)
    step : "tangent" or "exponential", as for `Descent`
    rate : largest change of log Omega in the first step
    steps : maximum number of steps; fewer if the loss no longer falls
    sequence : number of linearized flows, each from where the last one ends, with its own weights
    """

    neighborhood: Any = "3x3"
    time: float = 5.0
    rho: float = 1.0
    tol: float = 1e-4
    loss: str = "cosine"
    tau: float = 0.0
    step: str = "tangent"
    rate: float = 3.0
    steps: int = 40
    tile: int = TILE
    device: str = "cpu"
    sequence: int = 1

    def __post_init__(self) -> None:
        settle_numbers(self)
        check_learnable(self.rho)
        if not 0 <= as_number("tau", self.tau) < math.inf:
            raise InputError(f"tau must be 0 or a positive number, got {self.tau}")
        at_least(1, steps=self.steps, tile=self.tile, sequence=self.sequence)


@dataclass(frozen=True)
class Estimated:
    """What an estimation has reached.

    Attributes
    ----------
    losses : before the first step and after each
    wrong : share of wrongly labeled pixels before and after
    classes : in the order of the labels 1..J
    """

    losses: list[float]
    wrong: tuple[float, float]
    classes: tuple[Class, ...]


@dataclass(frozen=True)
class _Work:
    flow: FlowSettings
    descent: Descent
    tau: float
    sequence: int
    source: Image
    target: str
    sums: np.ndarray | None = None
    h: float = 0.0


def estimate(
    example: Example,
    term: Any,
    path: str | os.PathLike[str],
    how: Estimation,
    pool: Pool,
    *,
    names: Mapping[str, str] | None = None,
    ignore: int | Sequence[int] | None = None,
    many: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Estimated:
    """Estimate weights and write them as Zarr, (K, *grid) float32.

    Parameters
    ----------
    term : "means" for the class means, "probabilities", prototypes as rows, or a data term
    path : a new Zarr store
    names, ignore, many : as in `Data`

    Raises
    ------
    ValueError
        If the labels do not fit, or the path exists already.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np, tiledlaf
    >>> truth = np.repeat([[1, 2]], 16, axis=1).repeat(32, axis=0)
    >>> image = 100 * truth + np.random.default_rng(0).normal(0, 60, truth.shape)
    >>> (example,) = tiledlaf.pair(image, truth)
    >>> path = tempfile.mkdtemp() + "/weights.zarr"
    >>> with tiledlaf.open_pool(workers=1) as pool:
    ...     found = tiledlaf.estimate(example, "means", path, tiledlaf.Estimation(steps=2), pool)
    >>> found.losses[-1] < found.losses[0]
    True
    """
    check_progress(progress)
    say = progress or (lambda record: None)
    redaction.check(path)
    if stores.is_url(path):
        raise InputError(f"{path}: expected a folder for the weights, got a URL")
    store, seed = os.path.abspath(path), as_seed(seed)
    if os.path.exists(store):
        raise InputError(f"{path}: expected a new path for the weights, got one that exists")
    check_time(how.time)
    check_growth(Polynomials(how.tol), how.time / how.sequence, np.float32)
    find_device(how.device, pool)
    example = example.with_absolute_paths()
    inputs = _inputs(example)
    claimed = {
        **{k: v for k, v in dataclasses.asdict(how).items() if k != "device"},
        **{"term": fitting.described(term), "seed": seed, "many": many},
        **{"names": dict(names or {}), "ignore": ignore, **inputs},
    }
    claimed = fingerprints.plain(claimed)
    os.makedirs(os.path.dirname(store), exist_ok=True)
    with Claim(store, claimed, "choose other WEIGHTS, or end the other run"):
        if os.path.exists(store):  # written by a run that has ended before this one claimed it
            raise InputError(f"{path}: expected a new path for the weights, got one that exists")
        partial = [f"{store}.{uuid.uuid4().hex}{PART}" for _ in range(2)]
        try:
            result = _estimated(example, term, how, pool, names, ignore, many, seed, say, partial)
            changed = [part for part, state in _inputs(example).items() if state != inputs[part]]
            if changed:
                raise InputChanged(
                    f"{getattr(example, changed[0]).path} changed during the estimation, so no "
                    "weights were written; give the same command again once it no longer changes"
                )
            _finish(partial[0], store)
        finally:
            for left in partial:
                shutil.rmtree(left, ignore_errors=True)
    return result


def _inputs(example: Example) -> dict[str, str]:
    """State of the files of an example."""
    parts = [field.name for field in dataclasses.fields(example)]
    return {part: image_state(getattr(example, part)) for part in parts}


def _finish(made: str, store: str) -> None:
    """Put the weights into place, or find that another run has just written the same.

    Raises
    ------
    ValueError
        If there is something else.
    """
    try:
        os.rename(made, store)  # refused where there is a folder that is not empty
    except OSError:
        if not os.path.exists(store):
            raise
        if not _same_files(filecmp.dircmp(made, store)):
            raise OutputBelongsElsewhere(
                f"{store}: expected a new path for the weights, got one that another run has made"
            ) from None


def _same_files(found: filecmp.dircmp[str]) -> bool:
    """Whether two folders hold the same."""
    names, differ = found.common_files, found.left_only or found.right_only or found.common_funny
    alike = filecmp.cmpfiles(found.left, found.right, names, shallow=False)[0] == names
    return alike and not differ and all(map(_same_files, found.subdirs.values()))


def _estimated(
    example: Example,
    term: Any,
    how: Estimation,
    pool: Pool,
    names: Mapping[str, str] | None,
    ignore: int | Sequence[int] | None,
    many: bool,
    seed: int,
    say: Progress,
    partial: list[str],
) -> Estimated:
    """Estimate weights into the first of two stores, by means of the other."""
    grid = example.image.grid
    offsets, lines = neighborhoods.choose(how.neighborhood, [example.image])
    tiles = _tiles(grid, (0,) * len(grid), how.tile)
    every = [t.core for t in tiles]
    classes, about = _classes(pool, example, every, names, ignore, many)
    loss = losses.make(how.loss)
    losses.check_classes(loss, len(classes))
    way = Polynomials(how.tol)
    flow = FlowSettings(classes, offsets, how.rho, how.time, way, loss, how.device)
    # forward and back through all flows; one less, since Z is needed at a pixel's neighbors only
    reach = 2 * how.sequence * way.degree(how.time / how.sequence) - 1
    halo = tuple(reach * r for r in stencil.radius(offsets))
    labeled_tiles = [LabeledTile(0, tile) for tile in _tiles(grid, halo, how.tile)]
    alike = [0] * len(labeled_tiles)
    fit = pixels.Fit(
        pool,
        pixels.Source((example,), classes),
        labeled_tiles,
        alike,
        Bench(alike, alike),
        seed,
        None,
        say,
    )
    (found,) = _learner(term).fit(fit)
    reader = TileReader(flow, (example,), (found,), None, everywhere=True)
    say({"stage": "reading tiles", "labels": [*lines, *about]})
    handles = pool.persist(training_worker.read, reader, labeled_tiles)
    items = list(zip(handles, labeled_tiles, strict=True))
    result = _descend(pool, how, flow, items, partial, example.image, tiles, say)
    units.remove_parts(partial[0], "", math.inf)
    notes = _notes(how, flow, found, example.image)
    nodes.write_group(partial[0], "", "0.5", 3, {}, {"weights": notes})
    return dataclasses.replace(result, classes=classes)


def _classes(
    pool: Pool,
    example: Example,
    boxes: Sequence[Box],
    names: Mapping[str, str] | None,
    ignore: int | Sequence[int] | None,
    many: bool,
) -> tuple[tuple[Class, ...], list[str]]:
    """The classes of the image's labels, and lines on its values."""
    items = [(0, box) for box in boxes]
    tables = survey.count(pool, (example,), items)
    kept = {v for table in tables for v in table}
    legend = numbering.legend([example.labels], kept, names, ignore)
    if not many:
        survey.check_values(pool, (example,), items, tables, legend)
    found = legend.classes(kept)
    return found, survey.lines(pool, (example,), items, tables, legend, found)


def _notes(how: Estimation, flow: FlowSettings, term: DataTerm, image: Image) -> dict[str, Any]:
    """What labeling must know to use the weights."""
    return {
        "offsets": [list(o) for o in flow.offsets],
        "rho": how.rho,
        "time": how.time,
        "tol": how.tol,
        "sequence": how.sequence,
        "term": term.describe(),
        "classes": entries(flow.classes),
        "input": image.fingerprint(),
    }


def _tiles(grid: tuple[int, ...], halo: tuple[int, ...], tile: int) -> Grid:
    deep = len(grid) == 3 and halo[0] > 0
    edges = (tile,) * 2 if len(grid) == 2 else (32 if deep else 1, tile, tile)
    return Grid(grid, (0,) * len(grid), grid, edges, halo)


def _learner(term: Any) -> fitting.Learner:
    """The learner of the data term; refuse those that need several images, as `train` has."""
    learner = fitting.learner_of(term)
    if learner.per_fold:
        raise InputError(f"the data term {term} is learned from several images: use train")
    return learner


def _descend(
    pool: Pool,
    how: Estimation,
    flow: FlowSettings,
    items: list[Any],
    partial: list[str],
    image: Image,
    tiles: Grid,
    say: Progress,
) -> Estimated:
    """Double-buffered descent: a step reads one store and writes the other."""
    descent = Descent(how.step, how.rate)
    channels = how.sequence * len(flow.offsets)
    buffers = [_buffer(path, image, tiles, channels) for path in partial]
    work = _Work(flow, descent, how.tau, how.sequence, buffers[0], partial[0])
    pool.map(_start, work, items)

    def look(source: Image) -> tuple[float, Sums]:
        sums = tree_sum(pool.map(_sums, dataclasses.replace(work, source=source), items))
        return float(flow.loss.value(sums.loss) + sums.regularizer), sums

    loss, sums = look(buffers[0])
    first = sums.error
    work = dataclasses.replace(work, sums=sums.loss)
    largest = max(pool.map(_largest, work, items))
    if not (math.isfinite(loss) and math.isfinite(largest)):
        raise InputError(f"expected a finite loss, got {loss} with the gradient {largest}")
    history, h = [loss], how.rate / largest if largest else 0.0
    for step in itertools.count(1):
        if step > how.steps or h * largest < 1e-6:
            break
        pool.map(
            _update, dataclasses.replace(work, source=buffers[0], target=partial[1], h=h), items
        )
        candidate, found = look(buffers[1])
        if math.isfinite(candidate) and candidate <= loss:
            loss, sums, h = candidate, found, h * GROW
            history.append(loss)
            work = dataclasses.replace(work, sums=sums.loss)
            buffers.reverse()
            partial.reverse()
        else:
            h *= SHRINK
        say({"step": step, "steps": how.steps, "loss": loss, "training": sums.error})
    return Estimated(history, (first, sums.error), ())


def _buffer(path: str, image: Image, tiles: Grid, neighbors: int) -> Image:
    """A store for weights, (K, *grid)."""
    pyramid = Pyramid(
        "",
        image.spatial_axes,
        neighbors,
        (image.grid,),
        tiles.tile,
        image.scale,
        image.translation,
        image.units,
        "float32",
    )
    pyramid.create(path, "0.5", 3)
    return images.open_image(path)


def _write(work: _Work, labeled: LabeledTile, weights: Any) -> None:
    """Write the core of weights (K, N, *window) as N K channels, flow after flow."""
    core = to_host(weights)[:, :, *labeled.tile.inner].swapaxes(0, 1)
    units.write(
        work.target, "0", (slice(None), *labeled.tile.core), core.reshape(-1, *core.shape[2:])
    )


def _start(work: _Work, item: tuple[TileData, LabeledTile]) -> None:
    """Write uniform weights."""
    data, labeled = item
    uniform = data.uniform(work.flow.offsets, work.flow.device)
    _write(work, labeled, np.stack([to_host(uniform)] * work.sequence, axis=1))


def _near(work: _Work, item: tuple[TileData, LabeledTile]) -> tuple[TileData, Any]:
    """The data and its weights, (K, N, *window), with the neighbors on the first axis."""
    data, labeled = item
    held = on_device(work.flow.device)(work.source.read(labeled.tile.window))
    return data, held.reshape(work.sequence, -1, *held.shape[1:]).swapaxes(0, 1)


def _linearize(work: _Work, data: TileData, weights: Any) -> LinearizedSteps:
    flow, count = work.flow, work.sequence
    return sequence.integrate(
        weights.swapaxes(0, 1),
        data.q,
        flow.offsets,
        (flow.time / count,) * count,
        flow.way,
        flow.kernel,
    )


def _sums(work: _Work, item: tuple[TileData, LabeledTile]) -> Sums:
    """Sums over the core: of the loss, wrong and labeled pixels, and the regularizer."""
    (data, weights), labeled = _near(work, item), item[1]
    found = _linearize(work, data, weights)
    target = data.target.copy()
    outside = np.ones(target.shape, bool)
    outside[labeled.tile.inner] = False
    target[outside] = 0
    zero = np.zeros(len(work.flow.classes))
    value = 0.0
    if work.tau:
        value, _ = losses.regularizer(weights[:, :, *labeled.tile.inner], work.tau)
    wrong, count = training_worker.wrong(found.z, target, zero)
    return Sums(work.flow.loss.sums(found.z, target), wrong, count, value)


def _direction(work: _Work, item: tuple[TileData, LabeledTile]) -> tuple[Any, Any]:
    data, weights = _near(work, item)
    assert work.sums is not None
    found = _linearize(work, data, weights)
    g = work.flow.loss.gradient(found.z, data.target, work.sums)
    tangent = namespace(g).stack([one.tangent for one in found.gradient(g)], axis=1)
    if work.tau:
        tangent = tangent + losses.regularizer(weights, work.tau)[1]
    return weights, work.descent.direction(tangent, weights)


def _largest(work: _Work, item: tuple[TileData, LabeledTile]) -> float:
    _, direction = _direction(work, item)
    return float(abs(direction[:, :, *item[1].tile.inner]).max())


def _update(work: _Work, item: tuple[TileData, LabeledTile]) -> None:
    """Take one step on the core, from one store into the other."""
    weights, direction = _direction(work, item)
    _write(work, item[1], work.descent.move(weights, direction, work.h))
