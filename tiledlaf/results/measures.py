"""Measures of objects from a label image with one value per object, tile by tile.

What is counted is counted in whole numbers: pixels, their coordinates and squares of these, borders
by their kind, pixels of integer channels. So the measures of an object do not depend on the tiles
that it lies in, bit for bit; means of floating-point channels do within rounding.

Perimeters are those of scikit-image: pixels with a 4-neighbor outside the object are its border,
and count 1, sqrt(2) or (1 + sqrt(2)) / 2 by where the border goes on from them. Surfaces of volumes
are faces of pixels between an object and others.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import readable
from ..files import image as image_files
from ..files import nodes
from ..files.image import Image
from ..tiles import Box, Grid, Tile

SAFE = 2**62  # whole numbers below are computed in int64, larger ones as Python's
# how a border goes on from a pixel of it: 2 for each border pixel beside it, 10 across a corner
STRAIGHT, DIAGONAL, BOTH = (4, 6, 14, 16, 24, 26), (20, 32), (12, 22)
PERIMETER = (1.0, math.sqrt(2), (1 + math.sqrt(2)) / 2)


@dataclass(frozen=True)
class Gauge:
    """What is measured; small, since it travels with each task.

    Attributes
    ----------
    store, name : the array of objects
    front : number of its axes before the spatial ones
    grid : its tiles
    picture, confidence : images of the same grid whose means are taken, or None
    pixel_size : micrometers along each spatial axis, or None
    """

    store: str
    name: str
    front: int
    grid: Grid
    picture: Image | None = None
    confidence: Image | None = None
    pixel_size: tuple[float, ...] | None = None

    @property
    def axes(self) -> str:
        """Spatial axes."""
        return "zyx"[-(len(self.grid.size) - self.front) :]

    @property
    def whole(self) -> bool:
        """Whether all channels hold whole numbers, whose sums are exact."""
        return self.picture is not None and _whole(self.picture)


@dataclass(frozen=True)
class Sums:
    """Sums over the pixels of objects, one row for each.

    Attributes
    ----------
    number : of the object
    time : its time point
    count : pixels
    low, high : of its coordinates along each axis, high ones exclusive
    once : sums of the coordinates from `low` on
    twice : sums of their products, for each pair of axes
    edges : border pixels by their kind, or faces along each axis
    values : sums of each channel
    certain : sums of the confidence, or no column
    """

    number: np.ndarray
    time: np.ndarray
    count: np.ndarray
    low: np.ndarray
    high: np.ndarray
    once: np.ndarray
    twice: np.ndarray
    edges: np.ndarray
    values: np.ndarray
    certain: np.ndarray

    def at(self, rows: np.ndarray) -> Sums:
        """Some of the rows."""
        return Sums(*(getattr(self, f.name)[rows] for f in dataclasses.fields(self)))


Columns = dict[str, np.ndarray]


def measure(gauge: Gauge, index: tuple[int, ...]) -> tuple[np.ndarray, Columns, Sums]:
    """Measure the objects of a tile.

    Returns
    -------
    numbers and measures of those that lie in it, and sums of those that may go on in other tiles
    """
    tile = gauge.grid.tile_at(index)
    ids, inner = _ids(gauge, tile)
    found = _sums(gauge, tile, ids, inner)
    ends = [
        (low == c.start) & (c.start > 0) | (high == c.stop) & (c.stop < n)
        for low, high, c, n in zip(
            found.low.T,
            found.high.T,
            tile.core[gauge.front :],
            gauge.grid.size[gauge.front :],
            strict=True,
        )
    ]
    on = np.any(ends, axis=0)
    alone = found.at(~on)
    return alone.number, columns(gauge, alone), found.at(on)


def _ids(gauge: Gauge, tile: Tile) -> tuple[np.ndarray, Box]:
    """Objects in a window, without t, with two pixels around the core that are 0 outside."""
    array = nodes.open_array(gauge.store, gauge.name)
    box, pad = [], []
    for core, n in zip(tile.core[gauge.front :], gauge.grid.size[gauge.front :], strict=True):
        start, stop = max(0, core.start - 2), min(n, core.stop + 2)
        box.append(slice(start, stop))
        pad.append((2 - (core.start - start), 2 - (stop - core.stop)))
    with readable(f"{gauge.store}/{gauge.name}"):
        block = nodes.read(array, (*tile.core[: gauge.front], *box))
    ids = np.pad(block.reshape(block.shape[gauge.front :]), pad)
    return ids, tuple(slice(2, n - 2) for n in ids.shape)


def _sums(gauge: Gauge, tile: Tile, ids: np.ndarray, inner: Box) -> Sums:
    """Sums over runs of pixels along the last axis, and then over the runs of each object."""
    core = np.ascontiguousarray(ids[inner])
    start, length, value = _runs(core)
    order = np.argsort(value, kind="stable")
    begin = np.flatnonzero(np.diff(value[order], prepend=0))  # no run has the value 0
    number = value[order][begin]

    def total(runs: np.ndarray) -> np.ndarray:
        """Sums for each object of a number for each run."""
        return np.add.reduceat(runs[order], begin) if len(begin) else runs[:0]

    places = np.stack(np.unravel_index(start, core.shape)).astype(np.int64)
    last = places.copy()
    last[-1] += length - 1
    low, high = (
        np.stack([f.reduceat(p[order], begin) for p in of], axis=1)
        if len(begin)
        else np.empty((0, core.ndim), np.int64)
        for f, of in ((np.minimum, places), (np.maximum, last))
    )
    # relative to the object's first coordinates, so that sums stay small
    runs_of = np.empty(len(value), np.int64)
    runs_of[order] = np.repeat(np.arange(len(begin)), np.diff(begin, append=len(order)))
    places = places - low[runs_of].T
    once, twice = _powers(places, length)
    corner = np.array([c.start for c in tile.core[gauge.front :]])
    values = [total(v) for v in _values(gauge.picture, tile.core, start, length)]
    certain = [total(v) for v in _values(gauge.confidence, tile.core, start, length)]
    kind = np.int64 if gauge.whole else np.float64
    return Sums(
        number,
        np.full(len(number), tile.core[0].start if gauge.front else 0),
        total(length),
        low + corner,
        high + corner + 1,
        np.stack([total(p) for p in once], axis=1),
        np.stack([total(p) for p in twice], axis=1),
        (_border if core.ndim == 2 else _faces)(ids, inner, number),
        np.stack(values, axis=1) if values else np.empty((len(number), 0), kind),
        np.stack(certain, axis=1) if certain else np.empty((len(number), 0)),
    )


def _runs(core: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Start, length and value of the runs of equal pixels but 0 along the last axis."""
    flat = core.ravel()
    begins = np.ones(flat.size, bool)
    np.not_equal(flat[1:], flat[:-1], out=begins[1:])
    begins[:: core.shape[-1]] = True
    start = np.flatnonzero(begins)
    length = np.diff(start, append=flat.size)
    there = flat[start] > 0
    return start[there], length[there], flat[start[there]].astype(np.int64)


def _powers(places: np.ndarray, length: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Sums over each run of its coordinates, and of products of pairs of them."""
    *others, x = places
    first = length * x + length * (length - 1) // 2
    second = (
        length * x * x + x * length * (length - 1) + (length - 1) * length * (2 * length - 1) // 6
    )
    once = [length * p for p in others] + [first]
    twice = []
    for a, b in itertools.combinations_with_replacement(range(len(places)), 2):
        if b < len(others):
            twice.append(length * others[a] * others[b])
        else:
            twice.append(others[a] * first if a < len(others) else second)
    return once, twice


def _whole(image: Image) -> bool:
    """Whether pixels are whole numbers whose sums over a tile are exact in 64 bits."""
    dtype = np.dtype(image.dtype)
    return dtype.kind in "iub" and dtype.itemsize <= 4


def _values(
    image: Image | None, core: Box, start: np.ndarray, length: np.ndarray
) -> list[np.ndarray]:
    """Sums of each channel over each run."""
    if image is None:
        return []
    found = []
    for channel in image_files.read(image, core):
        flat = channel.ravel().astype(np.int64 if _whole(image) else np.float64)
        # what lies between two runs, or the next pixel where nothing does, is dropped
        bounds = np.stack([start, start + length], axis=1).ravel()
        bounds = bounds[bounds < flat.size]
        sums = np.add.reduceat(flat, bounds) if len(bounds) else flat[:0]
        found.append(sums[::2])
    return found


def _border(ids: np.ndarray, inner: Box, number: np.ndarray) -> np.ndarray:
    """Border pixels of each object by their kind: straight, diagonal, both."""
    width = ids.shape[1]
    middle = ids[1:-1, 1:-1]
    edge = np.zeros(ids.shape, bool)
    for other in (ids[:-2, 1:-1], ids[2:, 1:-1], ids[1:-1, :-2], ids[1:-1, 2:]):
        edge[1:-1, 1:-1] |= middle != other
    edge &= ids > 0
    kept = np.zeros(ids.shape, bool)
    kept[inner] = edge[inner]
    place = np.flatnonzero(kept)
    flat, on = ids.ravel(), edge.ravel()
    own = flat[place]
    weight = np.zeros(len(place), np.int64)
    for dy, dx in itertools.product((-1, 0, 1), repeat=2):
        if dy or dx:
            other = place + dy * width + dx
            weight += (10 if dy and dx else 2) * (on[other] & (flat[other] == own))
    row = np.searchsorted(number, own.astype(np.int64))
    found = [
        np.bincount(row[np.isin(weight, kind)], minlength=len(number))
        for kind in (STRAIGHT, DIAGONAL, BOTH)
    ]
    return np.stack(found, axis=1).astype(np.int64)


def _faces(ids: np.ndarray, inner: Box, number: np.ndarray) -> np.ndarray:
    """Faces of pixels between each object and others, along each axis."""
    core, found = ids[inner], []
    for axis in range(ids.ndim):
        count = np.zeros(len(number), np.int64)
        for step in (-1, 1):
            box = list(inner)
            box[axis] = slice(inner[axis].start + step, inner[axis].stop + step)
            own = core[(core != ids[tuple(box)]) & (core > 0)]
            count += np.bincount(
                np.searchsorted(number, own.astype(np.int64)), minlength=len(number)
            )
        found.append(count)
    return np.stack(found, axis=1)


def join(parts: Sequence[tuple[int, Sums]]) -> Sums | None:
    """Add up what several tiles know of the same objects; None if there are none.

    Parameters
    ----------
    parts : position of each tile in the grid, and its sums
    """
    ordered = [sums for _, sums in sorted(parts, key=lambda part: part[0]) if len(sums.number)]
    if not ordered:
        return None
    found = Sums(
        *(np.concatenate([getattr(s, f.name) for s in ordered]) for f in dataclasses.fields(Sums))
    )
    found = found.at(np.argsort(found.number, kind="stable"))  # of each object in order of tiles
    begin = np.flatnonzero(np.diff(found.number, prepend=0))
    low = np.minimum.reduceat(found.low, begin)
    high = np.maximum.reduceat(found.high, begin)
    rows = np.repeat(np.arange(len(begin)), np.diff(begin, append=len(found.number)))
    kind = _kind(np.add.reduceat(found.count.astype(np.float64), begin), high - low)
    count: Any = found.count.astype(kind)
    once, twice = found.once.astype(kind), found.twice.astype(kind)
    shift = (found.low - low[rows]).astype(kind)
    moved = once + count[:, None] * shift
    pairs = list(itertools.combinations_with_replacement(range(low.shape[1]), 2))
    squares = [
        twice[:, k]
        + once[:, a] * shift[:, b]
        + once[:, b] * shift[:, a]
        + count * shift[:, a] * shift[:, b]
        for k, (a, b) in enumerate(pairs)
    ]
    values = found.values.astype(object) if found.values.dtype.kind == "i" else found.values
    return Sums(
        found.number[begin],
        found.time[begin],
        np.add.reduceat(found.count, begin),
        low,
        high,
        np.add.reduceat(moved, begin),
        np.add.reduceat(np.stack(squares, axis=1), begin),
        np.add.reduceat(found.edges, begin),
        np.add.reduceat(values, begin),
        np.add.reduceat(found.certain, begin),
    )


def _kind(count: np.ndarray, size: np.ndarray) -> Any:
    """A type for sums of squares over objects and for their products, exact in both cases."""
    most = count * count * size.max(axis=1, initial=1).astype(np.float64) ** 2
    return np.int64 if most.max(initial=0) < SAFE else object


def columns(gauge: Gauge, sums: Sums) -> Columns:
    """The measures of objects by their sums."""
    axes, ndim = gauge.axes, len(gauge.axes)
    found: Columns = {"t": sums.time} if gauge.front else {}
    area = "area" if ndim == 2 else "volume"
    count = sums.count.astype(np.float64)
    found[area] = sums.count
    size = gauge.pixel_size
    if size is not None:
        found[f"{area}_um{ndim}"] = count * math.prod(size)
    for axis, name in enumerate(axes):
        found[f"centroid_{name}"] = (
            sums.low[:, axis] + sums.once[:, axis].astype(np.float64) / count
        )
    for end, bounds in (("min", sums.low), ("max", sums.high)):
        found |= {f"{end}_{name}": bounds[:, axis] for axis, name in enumerate(axes)}
    found |= _outline(sums, size)
    spread = _covariance(sums)
    found |= _extent(spread, "axis_major", "axis_minor")
    if ndim == 2:
        high, low = found["axis_major"], found["axis_minor"]
        ratio = np.divide(low, high, np.ones_like(low), where=high > 0)
        found["eccentricity"] = np.sqrt(1 - ratio**2)
    if size is not None:
        scale = np.outer(size, size)
        found |= _extent(spread * scale, "axis_major_um", "axis_minor_um")
    for channel, total in enumerate(sums.values.T):
        found[f"mean_channel_{channel}"] = total.astype(np.float64) / count
    for total in sums.certain.T:
        found["mean_confidence"] = total / count
    return found


def _outline(sums: Sums, size: tuple[float, ...] | None) -> Columns:
    """Perimeters of areas, in micrometers only where pixels are squares; surfaces of volumes."""
    if sums.edges.shape[1:] == (3,) and sums.low.shape[1] == 2:
        perimeter = sums.edges @ np.array(PERIMETER)
        square = size is not None and math.isclose(*size, rel_tol=1e-3)
        more = {"perimeter_um": perimeter * math.sqrt(math.prod(size))} if size and square else {}
        return {"perimeter": perimeter, **more}
    found = {"surface": sums.edges.sum(axis=1)}
    if size is not None:
        faces = math.prod(size) / np.array(size)
        found["surface_um2"] = sums.edges @ faces
    return found


def _covariance(sums: Sums) -> np.ndarray:
    """Covariance of the coordinates of each object's pixels, (N, ndim, ndim)."""
    ndim, rows = sums.low.shape[1], len(sums.number)
    kind = _kind(sums.count.astype(np.float64), sums.high - sums.low)
    count: Any = sums.count.astype(kind)
    once, twice = sums.once.astype(kind), sums.twice.astype(kind)
    found = np.empty((rows, ndim, ndim))
    pairs = itertools.combinations_with_replacement(range(ndim), 2)
    for k, (a, b) in enumerate(pairs):
        exact = count * twice[:, k] - once[:, a] * once[:, b]
        value = exact.astype(np.float64) / (count * count).astype(np.float64)
        found[:, a, b] = found[:, b, a] = value
    return found


def _extent(spread: np.ndarray, major: str, minor: str) -> Columns:
    """Lengths of the longest and shortest axis of the ellipse or ellipsoid of the same spread."""
    if not len(spread):
        return {major: np.empty(0), minor: np.empty(0)}
    # eigenvalues of the tensor of inertia, largest first, are those of the covariance for areas
    values = np.clip(np.linalg.eigvalsh(spread), 0, None)
    if spread.shape[1] == 2:
        return {major: 4 * np.sqrt(values[:, 1]), minor: 4 * np.sqrt(values[:, 0])}
    return {major: np.sqrt(20 * values[:, 2]), minor: np.sqrt(20 * values[:, 0])}


def blank(like: Mapping[str, np.ndarray], rows: int) -> Columns:
    """Columns of the same names and types, to be filled."""
    return {name: np.zeros(rows, column.dtype) for name, column in like.items()}
