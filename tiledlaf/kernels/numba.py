"""The kernels for a CPU: lay out what the compiled `wave` works on, strip by strip.

Same functions as the numpy sibling, whose docstrings hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import trees, wave
from .numpy import Array, Offsets, opposite, transpose
from .wave import AVERAGE, BLOCK, BOTH, CLASSIFY, FLOW, LINE, LOWER, SIMILARITY, UPPER, Layout

CACHE = 1 << 20  # bytes that the rings of a strip may take of a core's own cache


def _aligned(size: int, dtype: Any) -> Array:
    """Memory that starts with a cache line."""
    itemsize = np.dtype(dtype).itemsize
    memory = np.empty(size + LINE // itemsize, dtype)
    return memory[(-memory.ctypes.data % LINE) // itemsize :][:size]


def _block(labels: int) -> tuple[int, ...]:
    """Zeros, as many as there are labels in a block: the fewest equal blocks."""
    labels = max(labels, 1)
    return (0,) * -(-labels // -(-labels // BLOCK))


def _run(
    mode: int,
    weights: Array,
    q: Array,
    offsets: Offsets,
    coefficients: Sequence[float] = (),
    keep: bool = False,
    scale: float = 1.0,
    base: Array | None = None,
) -> Any:
    """Send all strips of columns through the wave."""
    given = (weights, q) if base is None else (weights, q, base)
    dtype = _same_float(*given)
    lanes = LINE // q.itemsize
    if q.shape[-1] < lanes:
        return _narrow(mode, given, offsets, coefficients, keep, scale, lanes)
    count, *grid = q.shape
    # 2-D grids are (y, 1, x), so that rows are the wave's axis as slabs are in 3-D
    shape = (grid[0], grid[1] if len(grid) == 3 else 1, grid[-1])
    full = [o if len(o) == 3 else (o[0], 0, o[1]) for o in offsets]
    order, entries, groups = _visits(full)
    radius = tuple(max(abs(o[axis]) for o in full) for axis in range(3))
    halo, fewer = radius[2] * (len(coefficients) + 1), _padded(count - 1)
    at, width = _layout(shape, radius, len(full), count, fewer, len(coefficients) + 2, q.itemsize)
    pixels = int(np.prod(grid))
    # the last row's neighbors reach as far beyond it as the first pixel lies within its line
    u = _aligned((len(coefficients) + 2) * at.level + at.origin % at.line, dtype)
    s = _aligned(at.kept * shape[1] * at.vectors * at.record, dtype)
    nothing = np.empty(0, dtype)
    planes = nothing if mode == CLASSIFY else np.empty(count * pixels, dtype)
    label = np.empty(pixels if mode == CLASSIFY else 0, _label_type(count))
    confidence, gap = (np.empty(len(label), dtype) for _ in range(2))
    w, x = (np.ascontiguousarray(a).ravel() for a in given[:2])
    b = nothing if base is None else np.ascontiguousarray(base).ravel()
    stop, end = 0, shape[2]
    while stop < end:
        # all strips are equally wide; a last core narrower than a vector is written with some
        # columns before it, which are the same again
        left = min(max(stop - halo, 0), end - width)
        start, right = min(stop, end - lanes), left + width
        stop = end if right == end else right - halo
        wave.wave(
            mode, at, shape, radius, (left, right), (start, stop), w, x, b, order, entries, groups,
            (0,) * count, _block(count), (0,) * fewer, _block(count - 1),
            np.array(coefficients, dtype), bool(keep), dtype(scale),
            u, s, planes, label, confidence, gap,
        )  # fmt: skip
    if mode == CLASSIFY:
        return label.reshape(grid), confidence.reshape(grid), gap.reshape(grid)
    return planes.reshape(q.shape)


def _narrow(
    mode: int, given: Sequence[Array], offsets: Offsets, coefficients: Sequence[float],
    keep: bool, scale: float, lanes: int,
) -> Any:  # fmt: skip
    """A grid narrower than a vector, padded: weights 0 keep what is added away from the rest."""
    nx = given[0].shape[-1]
    weights, q, *base = (np.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, lanes - nx)]) for a in given)
    out = _run(mode, weights, q, offsets, coefficients, keep, scale, *base)
    if mode == CLASSIFY:
        return tuple(a[..., :nx] for a in out)
    return np.ascontiguousarray(out[..., :nx])


def _visits(offsets: Sequence[tuple[int, ...]]) -> tuple[Array, Array, Array]:
    """In which order two rows visit their neighbors, sorted, with those of both visited once.

    Returns
    -------
    order : of the offsets
    entries : (n, 3), the neighbors of the upper row
    groups : (m, 2), runs of entries: of which row, and how many
    """
    order = sorted(range(len(offsets)), key=offsets.__getitem__)
    upper = set(offsets)
    lower = {(z + 1, y, x) for z, y, x in offsets}
    if len(upper) < len(offsets):
        raise ValueError(f"expected different offsets, got one twice in {offsets}")
    entries = sorted(upper | lower)
    groups: list[list[int]] = []
    for entry in entries:
        kind = BOTH if entry in upper and entry in lower else UPPER if entry in upper else LOWER
        if not groups or groups[-1][0] != kind:
            groups.append([kind, 0])
        groups[-1][1] += 1
    return np.array(order), np.array(entries), np.array(groups)


def _padded(labels: int) -> int:
    """Planes for these labels in equal blocks: those beyond them have S = 0."""
    size = len(_block(labels))
    return -(-max(labels, 1) // size) * size


def _layout(
    shape: Sequence[int], radius: Sequence[int], neighbors: int, count: int, fewer: int,
    levels: int, itemsize: int,
) -> tuple[Layout, int]:  # fmt: skip
    """Rings for strips as wide as the cache allows; for a single one if too much would be halo.

    Returns
    -------
    Layout, and the number of columns of a strip
    """
    lanes, nx = LINE // itemsize, shape[2]
    halo = radius[2] * (levels - 1)
    slots = 2 * radius[0] + 2
    kept = radius[0] * (levels - 2) + 2
    deep = max(fewer, count)
    record = neighbors + fewer + 1
    column = shape[1] * (levels * slots * deep + kept * record) * itemsize
    widest = max(CACHE // column, 4 * lanes)
    if widest < 8 * halo:
        widest = nx + 2 * halo
    # as many strips as that takes, of equal width in whole vectors
    strips = max(-(-(nx - 2 * halo) // (widest - 2 * halo)), 1)
    width = -(-(nx - 2 * halo) // strips) + 2 * halo
    width = min(-(-width // lanes) * lanes, nx)
    vectors = -(-width // lanes)
    pad = -(-radius[2] // lanes)
    # an odd number of cache lines: planes do not compete for the same places in the cache
    plane = lanes * (vectors + pad + (vectors + pad + 1) % 2)
    line = plane * deep
    row = line * (shape[1] + 2 * radius[1])
    at = Layout(
        vectors=vectors, plane=plane, line=line, origin=radius[1] * line + pad * lanes,
        row=row, slots=slots, level=slots * row, record=lanes * record, kept=kept,
    )  # fmt: skip
    return at, width


def _label_type(count: int) -> Any:
    return np.uint8 if count < 256 else np.uint16


def _same_float(*arrays: Array) -> Any:
    kinds = {a.dtype for a in arrays}
    if len(kinds) > 1 or kinds.pop() not in (np.float32, np.float64):
        types = ", ".join(str(a.dtype) for a in arrays)
        raise ValueError(f"expected arrays of one type, float32 or float64, got {types}")
    return arrays[0].dtype.type


def average(weights: Array, x: Array, offsets: Offsets) -> Array:
    """Omega x."""
    return _run(AVERAGE, weights, x, offsets)


def adjoint(weights: Array, x: Array, offsets: Offsets) -> Array:
    """Omega^T x: the average with transposed weights."""
    return average(transpose(weights, offsets), x, opposite(offsets))


def similarity(weights: Array, q: Array, offsets: Offsets) -> Array:
    """S = softmax(Omega q)."""
    return _run(SIMILARITY, weights, q, offsets)


def flow(
    weights: Array,
    q: Array,
    offsets: Offsets,
    coefficients: Sequence[float],
    keep: bool = False,
    scale: float = 1.0,
) -> Array:
    """Z of a linearized flow with fixed coefficients."""
    return _run(FLOW, weights, q, offsets, coefficients, keep, scale)


def classify(
    weights: Array,
    q: Array,
    offsets: Offsets,
    coefficients: Sequence[float],
    keep: bool = False,
    scale: float = 1.0,
    log_w0: Array | None = None,
) -> tuple[Array, Array, Array]:
    """`decide` on log W0 + Z of the `flow`."""
    return _run(CLASSIFY, weights, q, offsets, coefficients, keep, scale, log_w0)


def decide(z: Array) -> tuple[Array, Array, Array]:
    """Label, confidence and gap of every pixel."""
    dtype = _same_float(z)
    count, pixels = len(z), z[0].size
    flat = np.ascontiguousarray(z).reshape(count, -1)
    size = max(pixels, LINE // z.itemsize)
    if size > pixels:
        flat = np.pad(flat, ((0, 0), (0, size - pixels)))
    label = np.empty(size, _label_type(count))
    confidence, gap = np.empty((2, size), dtype)
    wave.decide(flat.ravel(), count, size, label, confidence, gap)
    grid = z.shape[1:]
    return (
        label[:pixels].reshape(grid),
        confidence[:pixels].reshape(grid),
        gap[:pixels].reshape(grid),
    )


def distances(image: Array, prototypes: Array, scale: float) -> Array:
    """Squared distances to the prototypes."""
    out = np.empty((len(prototypes), *image.shape[1:]), np.float32)
    flat = np.ascontiguousarray(image).reshape(len(image), -1)
    wave.distances(
        flat, np.ascontiguousarray(prototypes, np.float32), np.float32(1 / scale),
        out.reshape(len(out), -1),
    )  # fmt: skip
    return out


def scores(
    features: Array,
    feature: Array,
    threshold: Array,
    mask: Array,
    first: Array,
    value: Array,
    baseline: Array,
) -> Array:
    """Sum of decision trees."""
    out = np.empty((len(baseline), *features.shape[1:]), np.float32)
    block = _aligned(len(features) * trees.BLOCK, np.float32)
    block[:] = 0
    trees.scores(
        np.ascontiguousarray(features, np.float32).reshape(len(features), -1),
        feature * trees.BLOCK, threshold, mask, first, value[:, trees.leaf_order()].ravel(),
        baseline, block, np.empty(len(baseline) * trees.BLOCK, np.float32),
        out.reshape(len(out), -1),
    )  # fmt: skip
    return out
