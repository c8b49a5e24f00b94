"""What a worker does with one tile: from its window's pixels to written labels."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import os
import platform
import sys
import time as clock
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadPixels, InputError
from ..files import image as image_files
from ..files import levels
from ..files.image import Image
from ..files.levels import Pyramid
from ..flow import stencil
from ..kernels import namespace, select
from ..kernels.arrays import Array, on_device, on_host, to_host
from ..model.accepted import usable
from ..model.disagreement import deviation
from ..model.settings import Settings
from ..model.term import DataTerm, Pending
from ..model.terms import potential, settled
from ..redaction import shown
from ..tiles import Grid, Tile, within

BAND_BYTES = 40 * 2**20  # of weights and distances at once, to limit memory and newly mapped pages


@dataclass(frozen=True)
class Job:
    """All that a worker must know; small, since it travels with each task.

    Attributes
    ----------
    image : the image; the data term is computed from it unless `probabilities` is given
    mask : image whose zeros are not labeled, or None
    weights : image whose channels are the weights of the neighbors, or None
    store : path of the output, None where arrays are returned
    labels, picture, confidence : the arrays to write there
    certain : whether confidence is wanted, in the store or in memory
    folds : data terms whose disagreement is wanted as well, in memory
    """

    image: Image
    term: Pending
    probabilities: Image | None
    mask: Image | None
    settings: Settings
    grid: Grid
    store: str = ""
    labels: Pyramid | None = None
    picture: Pyramid | None = None
    confidence: Pyramid | None = None
    certain: bool = False
    weights: Image | None = None
    folds: tuple[DataTerm, ...] = ()

    @property
    def front(self) -> int:
        """Number of axes of the grid before the spatial ones: 1 for t, of which a tile has one."""
        return len(self.image.grid_axes) - len(self.image.spatial_axes)

    @property
    def reads_image(self) -> bool:
        """Whether pixels of the image are read to label: also where they only say what is valid."""
        return self.needs_image or self.image.no_data is not None

    @property
    def needs_image(self) -> bool:
        """Whether labels depend on the image itself, not on probabilities alone."""
        learned = self.settings.predictor
        return self.probabilities is None or (
            learned is not None and learned.features.needs("image")
        )


@dataclass(frozen=True)
class Labeled:
    """Labels and confidence (None if not asked for) of a tile's core, on the host.

    Both are 0 where masked out; `proven` counts the labels that the certificate proves, `unsure`
    the pixels that have none since their confidence is too low; `deviation` is that of the job's
    folds, None without any.
    """

    labels: np.ndarray
    confidence: np.ndarray | None
    proven: int
    unsure: int = 0
    deviation: np.ndarray | None = None


@dataclass(frozen=True)
class Window:
    """Data of a window, on one device.

    Attributes
    ----------
    image : (C, *grid), None where nothing depends on it
    probabilities : (J, *grid) or None
    valid : (*grid) bool or None
    weights : (K, *grid) or None; for a sequence, those of all flows, one after the other
    """

    image: Array
    probabilities: Array = None
    valid: Array = None
    weights: Array = None

    def cut(self, box: Sequence[slice], move: Any = np.ascontiguousarray) -> Window:
        """A part of the window, moved to a device; a mask without zeros is left out."""

        def part(planes: Array) -> Array:
            return None if planes is None else move(np.ascontiguousarray(planes[:, *box]))

        valid = None if self.valid is None else self.valid[*box]
        return Window(
            part(self.image),
            part(self.probabilities),
            None if valid is None or valid.all() else move(valid),
            part(self.weights),
        )


def label_window(
    window: Window, term: DataTerm, settings: Settings, part: Sequence[slice] | None = None
) -> tuple[Array, Array, Array]:
    """Labels, confidence and gap of a window, all (*grid), on its own device.

    The confidence is the share of the winning class, which `Settings.confidence` calibrates.

    Parameters
    ----------
    part : where weights and distances are wanted, by default everywhere
        They also depend on pixels of the window around it.
    """
    source = window.image if window.probabilities is None else window.probabilities
    valid, predictor = window.valid, settings.predictor
    kernels, xp = select(source, settings.kernel), namespace(source)
    exact = settings.double or term.double
    if exact:
        q = potential(term, source, valid, settings.rho)
    else:
        q = term.potential(source, valid, settings.rho)
    features = None
    if predictor is not None:
        image = window.image
        if predictor.features.needs("image"):
            image = usable(image, valid, "image")
        features = predictor.of(image, q, settings.rho)
    if part is not None:
        q = xp.ascontiguousarray(q[:, *part])
        features = None if features is None else xp.ascontiguousarray(features[:, *part])
        valid = None if valid is None else valid[*part]
    grid = q.shape[1:]
    if window.weights is not None:
        weights = window.weights if part is None else window.weights[:, *part]
        weights = xp.ascontiguousarray(weights, np.float32)
        if len(weights) > len(settings.offsets):  # weights for each flow of a sequence
            weights = weights.reshape(-1, len(settings.offsets), *grid)
    elif valid is None and xp is np:
        weights = _uniform(settings.offsets, grid)
    else:
        weights = stencil.uniform(settings.offsets, grid, valid, xp)
    if predictor is not None:
        weights = predictor.weights(features, weights, settings.kernel)
    if exact or settings.wide:
        q, weights = q.astype(np.float64), weights.astype(np.float64)
    base = None
    if any(settings.bias):
        base = xp.empty_like(q)
        for plane, value in zip(base, settings.bias, strict=True):
            plane[...] = value
    labels, confidence, gap = settings.integrator.classify(
        kernels, weights, q, settings.offsets, settings.time, base
    )
    confidence = confidence.astype(np.float32, copy=False)
    check_computed(confidence, settings.time)
    if valid is not None:
        labels[~valid] = 0
        confidence[~valid] = 0
    if settings.least is not None:
        labels[confidence < settings.least] = 0
    return labels, confidence, gap


def check_computed(confidence: Array, time: float) -> None:
    """Refuse a flow that overflowed: at every pixel all of Z enters its confidence.

    Raises
    ------
    ValueError
        With how many pixels have no confidence.
    """
    flat = confidence.ravel()
    if math.isfinite(float(flat.dot(flat))):  # the quickest sum: at most 1 at a pixel, or NaN
        return
    lost = int((~(confidence > 0)).sum())
    raise InputError(
        f"expected a finite flow at each pixel, got NaN or inf at {lost}: its numbers are too "
        f"large (a shorter `time` than {time:g}, or another `rho`)"
    )


def read_valid(job: Job, tile: Tile) -> np.ndarray | None:
    """What the mask says of a tile's window, None if all of it is valid."""
    if job.mask is None:
        return None
    valid = image_files.read_pixels(job.mask, tile.window)[0] != 0
    return None if valid.all() else valid


def compute(job: Job, data: Window, tile: Tile) -> Labeled:
    """Label one tile on the job's device, in bands of rows that are windows of their own."""
    term = settled(job.term)
    move = on_device(job.settings.device)
    core, within_window = tile.core[job.front :], tile.inner[job.front :]
    shape = tuple(s.stop - s.start for s in core)
    labels = np.empty(shape, np.min_scalar_type(term.classes))
    confidence = np.empty(shape, np.float32) if job.certain else None
    spread = np.empty(shape, np.float32) if job.folds else None
    bound, proven, unsure = job.settings.bound, 0, 0
    source = data.image if data.probabilities is None else data.probabilities
    grid = bands(job, shape, tuple(s.start for s in within_window), source.shape[1:])
    narrow = dataclasses.replace(grid, halo=job.settings.halo)
    for band in grid:
        inner = narrow.tile_at(band.index)
        part = None
        if inner.window != band.window:
            part = within(band.window, inner.window)
        try:
            window = data.cut(band.window, move)
            label, certain, gap = label_window(window, term, job.settings, part)
            label, certain, gap = label[inner.inner], certain[inner.inner], gap[inner.inner]
            if spread is not None:
                pixels = window.image if window.probabilities is None else window.probabilities
                found = deviation(job.folds, pixels, window.valid, label, band.inner)
                spread[band.core] = to_host(found)
        except BadPixels as error:
            moved = error.moved(band.window)
            raise BadPixels(moved.text, (0,) * job.front + moved.first, moved.hint) from None
        labels[band.core] = to_host(label)
        if confidence is not None:
            confidence[band.core] = to_host(job.settings.confidence(certain))
        if bound is not None:
            proven += int(((gap > bound) & (label > 0)).sum())
        if job.settings.least is not None:
            unsure += int(((label == 0) & (certain > 0)).sum())
    whole = tuple(s.stop - s.start for s in tile.core)
    certainty = None if confidence is None else confidence.reshape(whole)
    spread = None if spread is None else spread.reshape(whole)
    return Labeled(labels.reshape(whole), certainty, proven, unsure, spread)


# cached: almost all bands of an image without a mask have the same uniform weights
_uniform = functools.lru_cache(maxsize=2)(stencil.uniform)


def bands(
    job: Job, core: tuple[int, ...], origin: tuple[int, ...], window: tuple[int, ...]
) -> Grid:
    """Cut a tile's core along its first axis, but not for Krylov's inner products or a GPU."""
    rows, count = core[0], job.term.classes + len(job.settings.offsets)
    if job.settings.predictor is not None:
        count += len(job.settings.predictor.mean)
    if on_host(job.settings.device) and not job.settings.integrator.whole_tile:
        double = job.settings.double or job.settings.wide or getattr(job.term, "double", False)
        row = (8 if double else 4) * count * math.prod(window[1:])
        # at least eight halos long, so that at most a quarter of the work is done twice
        rows = max(8 * job.grid.halo[job.front], BAND_BYTES // row, 1)
        rows = math.ceil(core[0] / math.ceil(core[0] / rows))
    return Grid(window, origin, core, (rows, *core[1:]), job.grid.halo[job.front :])


def label_tile(job: Job, tile: Tile) -> Labeled | None:
    """Read and label one tile; None if its core is masked out. Errors name the tile."""
    valid = read_valid(job, tile)
    if valid is not None and not valid[tile.inner].any():
        return None
    try:
        data = _window(job, tile, valid)
        return None if data is None else compute(job, data, tile)
    except ValueError as error:
        raise InputError(_failure(job, tile, error)) from None


def _window(job: Job, tile: Tile, valid: Array, pixels: Array = None) -> Window | None:
    """Data of a tile's window, None if its core has none.

    `valid` is what the mask says, `pixels` the image, if it was read already.
    """
    if pixels is None and job.reads_image:
        pixels = image_files.read_pixels(job.image, tile.window)
    if job.image.no_data is not None:
        valid = image_files.both(valid, image_files.valid_of(job.image, pixels))
        if valid is not None and not valid[tile.inner].any():
            return None
    if not job.needs_image:
        pixels = None
    given = (
        None
        if job.probabilities is None
        else image_files.read_pixels(job.probabilities, tile.window)
    )
    weights = None if job.weights is None else image_files.read_pixels(job.weights, tile.window)
    if job.front:  # one time point: the rest knows spatial axes alone
        pixels, given, weights = (
            None if planes is None else planes[:, 0] for planes in (pixels, given, weights)
        )
        valid = None if valid is None else valid[0]
    return Window(pixels, given, valid, weights)


def run_tile(job: Job, index: tuple[int, ...]) -> dict[str, Any]:
    """Read, label and write one tile, and return its record; bad data fail with a reason."""
    tile = job.grid.tile_at(index)
    record: dict[str, Any] = {"tile": list(index), "worker": f"{platform.node()}:{os.getpid()}"}
    try:
        return record | _run(job, tile)
    except ValueError as error:
        return record | {"state": "failed", "error": _failure(job, tile, error)}


def _failure(job: Job, tile: Tile, error: ValueError) -> str:
    if isinstance(error, BadPixels):
        error = error.moved(tile.window)
    return shown(f"{place(job, tile)}: {error}")


def place(job: Job, tile: Tile) -> str:
    """Where a tile lies, in pixels of the image."""
    return f"tile {tile.index} ({job.grid.place(tile, job.image.grid_axes)})"


def _run(job: Job, tile: Tile) -> dict[str, Any]:
    started = clock.perf_counter()
    valid = read_valid(job, tile)
    skipped = valid is not None and not valid[tile.inner].any()
    if skipped and job.picture is None:
        return {"state": "skipped", "pixels": 0}
    window = tile.window
    if skipped or not job.reads_image:  # the image is only copied: no halo
        window = tuple(
            slice(c.start + o, c.stop + o) for c, o in zip(tile.core, job.grid.origin, strict=True)
        )
    copied, pixels = job.picture is not None, None
    if copied or (job.reads_image and not skipped):
        pixels = image_files.read_pixels(job.image, window, stored=copied)
    data = None
    if not skipped:
        seen = pixels if job.reads_image else None
        if copied and seen is not None:
            seen = image_files.used(job.image, seen)
        data = _window(job, tile, valid, seen)
    read = clock.perf_counter()
    found = None if data is None else compute(job, data, tile)
    computed = clock.perf_counter()
    size = 0
    if job.picture is not None and pixels is not None:
        core = pixels if window != tile.window else pixels[:, *tile.inner]
        core = core if job.picture.channels else core[0]
        size += levels.write(job.store, job.picture, tile.core, core, levels.mean)
    if found is None:
        return {"state": "skipped", "pixels": 0, "bytes": size}
    if job.confidence is not None and found.confidence is not None:
        size += levels.write(job.store, job.confidence, tile.core, found.confidence, levels.nearest)
    if job.labels is not None:
        size += levels.write(job.store, job.labels, tile.core, found.labels, levels.nearest)
    counts = _counts(found.labels, job.term.classes)
    return {
        "state": "done",
        "pixels": int(found.labels.size),
        "counts": counts,
        "proven": found.proven,
        **({"unsure": found.unsure} if job.settings.least is not None else {}),
        "bytes": size,
        "seconds": [
            round(b - a, 4)
            for a, b in ((started, read), (read, computed), (computed, clock.perf_counter()))
        ],
        "peak_mib": _peak_mib(),
    }


def checker(job: Job) -> Callable[[Mapping[str, Any]], bool]:
    """Return a check of whether the files of a finished tile have the size in its record.

    A record without a size is of an older version, and trusted.
    """
    picture, *rest = (
        [] if pyramid is None else [levels.sizes(job.store, pyramid)]
        for pyramid in (job.picture, job.confidence, job.labels)
    )

    def whole(record: Mapping[str, Any]) -> bool:
        core = job.grid.tile_at(tuple(record["tile"])).core
        found = picture if record["state"] == "skipped" else itertools.chain(picture, *rest)
        return "bytes" not in record or sum(size(core) for size in found) == record["bytes"]

    return whole


def _counts(labels: np.ndarray, classes: int) -> list[int]:
    """Pixels of each label value from 0; one pass per value is quicker while there are few."""
    if classes > 20:
        return np.bincount(labels.ravel(), minlength=classes + 1).tolist()
    return [int(np.count_nonzero(labels == value)) for value in range(classes + 1)]


def _peak_mib() -> int:
    """Peak memory of this process, in MiB."""
    status = Path("/proc/self/status")
    if status.is_file():  # a new process inherits getrusage's number from the one that started it
        return int(status.read_text().split("VmHWM:")[1].split()[0]) // 1024
    try:
        import resource
    except ImportError:  # Windows, which is not asked
        return 0
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit
