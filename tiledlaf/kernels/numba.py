"""The kernels for a CPU: prepare the memory of the compiled functions and run them by strips.

Same functions as the numpy sibling, whose docstrings apply.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from .arrays import Array, Offsets
from .compiled import flow as wave
from .compiled import gradient as compiled
from .compiled import predictor, trees
from .compiled.flow import (
    AVERAGE,
    BLOCK,
    BOTH,
    CLASSIFY,
    FLOW,
    LINE,
    LOWER,
    SIMILARITY,
    UPPER,
    Flow,
    Given,
    Grid,
    Labels,
    Layout,
    Neighbors,
    Results,
    Rings,
    Strip,
)
from .numpy import opposite, transpose

CACHE = 1 << 20  # bytes of a core's private cache for the rings of a strip
POWERS = 3 << 20  # the same for all powers: more, as strips compute their halo twice


def _aligned(size: int, dtype: Any) -> Array:
    """Memory that starts at a cache line."""
    itemsize = np.dtype(dtype).itemsize
    memory = np.empty(size + LINE // itemsize, dtype)
    return memory[(-memory.ctypes.data % LINE) // itemsize :][:size]


def _block(labels: int) -> tuple[int, ...]:
    """One zero per label of a block; blocks are as few as possible and equal in size."""
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
    # 2-D grids are (y, 1, x): the wave passes over rows as it does over slabs in 3-D
    shape = (grid[0], grid[1] if len(grid) == 3 else 1, grid[-1])
    full = tuple(o if len(o) == 3 else (o[0], 0, o[1]) for o in offsets)
    radius = tuple(max(abs(o[axis]) for o in full) for axis in range(3))
    halo, fewer = radius[2] * (len(coefficients) + 1), _padded(count - 1)
    at, width = _layout(shape, radius, len(full), count, fewer, len(coefficients) + 2, q.itemsize)
    pixels = int(np.prod(grid))
    mask = np.zeros((2, at.vectors * lanes), dtype)
    mask[0, :width] = 1
    rings = Rings(
        # the last row's neighbors reach as far beyond it as the first pixel lies within its line
        u=_aligned((len(coefficients) + 2) * at.level + at.origin % at.line, dtype),
        s=_aligned(at.kept * shape[1] * at.vectors * at.record, dtype),
        mask=mask.ravel(),
    )
    nothing = np.empty(0, dtype)
    w, x = (np.ascontiguousarray(a).ravel() for a in given[:2])
    label = np.empty(pixels if mode == CLASSIFY else 0, _label_type(count))
    confidence, gap = (np.empty(len(label), dtype) for _ in range(2))
    results = Results(
        planes=nothing if mode == CLASSIFY else np.empty(count * pixels, dtype),
        label=label,
        confidence=confidence,
        gap=gap,
    )
    same = (
        Given(w, x, nothing if base is None else np.ascontiguousarray(base).ravel()),
        _visits(full, at),
        Labels((0,) * count, _block(count), (0,) * fewer, _block(count - 1)),
        Flow(np.array(coefficients, dtype), bool(keep), dtype(scale)),
        rings,
        results,
    )
    stop, end = 0, shape[2]
    while stop < end:
        # all strips are equally wide; a last core narrower than a vector is widened to the left,
        # where it writes the same values again
        left = min(max(stop - halo, 0), end - width)
        start, right = min(stop, end - lanes), left + width
        stop = end if right == end else right - halo
        strip = Strip((left, right), (start, stop))
        wave.wave(mode, at, Grid(*shape, pixels, radius[0]), strip, *same)
    if mode == CLASSIFY:
        return label.reshape(grid), confidence.reshape(grid), gap.reshape(grid)
    return results.planes.reshape(q.shape)


def _narrow(
    mode: int,
    given: Sequence[Array],
    offsets: Offsets,
    coefficients: Sequence[float],
    keep: bool,
    scale: float,
    lanes: int,
) -> Any:
    """Pad a grid narrower than a vector; weights of 0 isolate the padding."""
    nx = given[0].shape[-1]
    weights, q, *base = (np.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, lanes - nx)]) for a in given)
    out = _run(mode, weights, q, offsets, coefficients, keep, scale, *base)
    if mode == CLASSIFY:
        return tuple(a[..., :nx] for a in out)
    return np.ascontiguousarray(out[..., :nx])


@lru_cache  # on a small grid it would take as long as the wave itself
def _visits(offsets: Offsets, at: Layout) -> Neighbors:
    """Sort the neighbors of two adjacent rows, shared ones once, and locate them in the rings."""
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
    z, y, x = np.array(entries).T
    slots = (np.arange(at.slots)[:, None] + z) % at.slots
    steps = slots * at.row + y * at.line + x
    return Neighbors(np.array(order), steps.ravel(), len(entries), np.array(groups))


def _padded(labels: int) -> int:
    """Labels rounded up to whole blocks; the additional ones have S = 0."""
    size = len(_block(labels))
    return -(-max(labels, 1) // size) * size


def _layout(
    shape: Sequence[int],
    radius: Sequence[int],
    neighbors: int,
    count: int,
    fewer: int,
    levels: int,
    itemsize: int,
) -> tuple[Layout, int]:
    """Rings for strips as wide as the cache allows, or for a single one if the halo is too large.

    Returns
    -------
    layout, number of columns per strip
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
    # as many strips as needed, of equal width in whole vectors
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
        vectors=vectors,
        plane=plane,
        line=line,
        origin=radius[1] * line + pad * lanes,
        row=row,
        slots=slots,
        level=slots * row,
        record=lanes * record,
        kept=kept,
    )
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
        flat,
        np.ascontiguousarray(prototypes, np.float32),
        np.float32(1 / scale),
        out.reshape(len(out), -1),
    )
    return out


def logarithm(p: Array, least: float, factor: float) -> Array:
    """`factor` log max(p, least)."""
    dtype = _same_float(p)
    size = max(p.size, LINE // p.itemsize)
    out = np.empty(size, dtype)
    wave.logarithm(_flat(p.reshape(1, -1), size), dtype(least), dtype(factor), out)
    return out[: p.size].reshape(p.shape)


def softmax(scores: Array) -> Array:
    """Softmax of scores."""
    dtype = _same_float(scores)
    count, pixels = len(scores), scores[0].size
    size = max(pixels, LINE // scores.itemsize)
    out = np.empty((max(count, 2), size), dtype)
    wave.softmax(_flat(_flatten(scores, 1), size), count, size, out.reshape(-1))
    return out[:, :pixels].reshape(len(out), *scores.shape[1:])


def _flat(planes: Array, size: int, guard: int = 0) -> Array:
    """Planes padded with zeros to `size` numbers, one after another; `guard` zeros on both ends."""
    count = int(np.prod(planes.shape[: planes.ndim - 1]))
    if planes.shape[-1] == size and not guard:
        return np.ascontiguousarray(planes).ravel()
    out = np.zeros(count * size + 2 * guard, planes.dtype)
    rows = out[guard : guard + count * size].reshape(count, size)
    rows[:, : planes.shape[-1]] = planes.reshape(count, -1)
    return out


def _flatten(x: Array, front: int) -> Array:
    return np.ascontiguousarray(x).reshape(*x.shape[:front], -1)


def _sweep(
    mode: int,
    weights: Array,
    s: Array,
    q: Array,
    source: Array,
    z: Array,
    offsets: Offsets,
    table: Array,
    out: Array,
    more: Array,
) -> None:
    """Send all strips of columns through the wave of powers."""
    dtype = _same_float(weights, s, source)
    count, grid = len(s) - 1, s.shape[1:]  # differences to the last label
    # (y, 1, x) in 2-D: the wave passes over rows as it does over slabs in 3-D
    rows, (lines, width) = grid[0], grid[1:] if len(grid) == 3 else (1, grid[1])
    full = np.array([o if len(o) == 3 else (o[0], 0, o[1]) for o in offsets], np.int64)
    columns = lines * width
    radius = int(abs(full[:, 0]).max())
    reach = int(abs(full[:, 1] * width + full[:, 2]).max())
    results, levels = table.shape
    lanes = LINE // s.itemsize
    # each power keeps its rows until the next power and all polynomials are computed from them
    window = 2 * radius + 1
    slots = np.array([max(window, radius * (levels - 1 - n) + 1) for n in range(levels)], np.int64)
    slots = slots * (mode != compiled.PRODUCTS)
    # planes per ring: powers; weights and S; z and q; a row of polynomials; a row of weights
    sizes = (
        int(slots.sum()) * count,
        (radius * (levels - 1) + 1) * (len(offsets) + count + 1),
        (mode != compiled.CHAIN) * window * results * count,
        results * count + 1,
        len(offsets),
    )
    halo, guard = (-(-reach * n // lanes) * lanes for n in (max(levels - 1, 1), 1))
    widest = POWERS // (sum(sizes) * s.itemsize) - 2 * halo
    if widest < 16 * halo:
        widest = columns
    strips = -(-columns // widest)
    widest = -(-columns // strips // lanes) * lanes
    # an odd number of cache lines: planes do not compete for the same places in the cache
    plane = min(-(-columns // lanes) * lanes, widest + 2 * halo)
    plane += lanes * ((plane // lanes + 1) % 2)
    to = compiled.Rings(
        rows=rows,
        columns=columns,
        lines=lines,
        radius=radius,
        levels=levels,
        results=results,
        labels=count,
        neighbors=len(offsets),
        widest=widest,
        halo=halo,
        guard=guard,
        plane=plane,
    )
    rings = [_aligned(size * plane + 2 * guard + lanes, dtype) for size in sizes]
    for ring in rings:
        ring[:] = 0  # 0 times uninitialized memory could be NaN
    starts = np.cumsum(slots) - slots
    compiled.sweep(
        mode,
        to,
        compiled.Given(*(np.ascontiguousarray(x).ravel() for x in (weights, s, q, source, z))),
        np.ascontiguousarray(table, dtype),
        compiled.Results(out.ravel(), more.ravel()),
        compiled.Neighbors(full, full[:, 1] * width + full[:, 2]),
        compiled.Levels(slots, starts * count * plane),
        compiled.Memory(*rings),
        compiled.Counts((0,) * count, _block(count), (0,) * len(offsets)),
    )


def chain(
    weights: Array, s: Array, source: Array, offsets: Offsets, table: Array
) -> tuple[Array, Array]:
    """Polynomials in R_S Omega of Pi_0 source."""
    shape = len(table) - 1, len(source) - 1, *source.shape[1:]
    first = _aligned(source.size, source.dtype).reshape(source.shape)
    others = _aligned(math.prod(shape), source.dtype).reshape(shape)
    none = np.empty(0, source.dtype)
    _sweep(
        compiled.CHAIN, weights, s, none, source, none, offsets, np.asarray(table), first, others
    )
    return first, others


def pull(
    weights: Array, s: Array, q: Array, z: Array, g: Array, offsets: Offsets, table: Array
) -> Array:
    """`products` of the adjoint `chain`, of which only some rows are kept."""
    out = np.empty_like(weights, order="C")
    _sweep(compiled.PULL, weights, s, q, g, z, offsets, np.asarray(table), out, out[:0])
    return out


def products(
    weights: Array, s: Array, q: Array, p: Array, z: Array, source: Array, offsets: Offsets
) -> Array:
    """R_Omega dL/dOmega, the gradient in t of Omega = softmax(t)."""
    out = np.empty_like(weights, order="C")
    table = np.zeros((len(p) + 1, 1))
    both = np.concatenate([source[None], p])[:, :-1]
    _sweep(compiled.PRODUCTS, weights, s, q, both, z, offsets, table, out, out[:0])
    return out


def alignment(z: Array, target: Array) -> tuple[float, float, int]:
    """Sums of Pi_0 z at the target, of its square, and of the labeled pixels."""
    found: tuple[float, float, int] = compiled.alignment(*_labeled(z, target), (0,) * len(z))
    return found


def align(z: Array, target: Array, inward: float, onward: float) -> Array:
    """`inward` Pi_0 z + `onward` Pi_0 e_target at the labeled pixels."""
    given = _labeled(z, target)
    dtype = z.dtype.type
    out = _aligned(given[0].size, dtype)
    compiled.align(*given, dtype(inward), dtype(onward), out, (0,) * len(z))
    return out.reshape(len(z), -1)[:, : target.size].reshape(z.shape)


def _labeled(z: Array, target: Array) -> tuple[Array, Array]:
    """Flat planes of at least one vector, and the target in the same type."""
    dtype = _same_float(z)
    size = max(target.size, LINE // z.itemsize)
    return _flat(_flatten(z, 1), size), _flat(_row(target, dtype)[None], size)


def _parameters(
    features: Array, normal: Array, prototypes: Array, patches: Array, sigma: float, part: int
) -> tuple[predictor.Parameters, predictor.Sizes]:
    """Parameters in the features' type, patches padded to whole parts of neighbors; and sizes."""
    dtype, lanes = features.dtype, LINE // features.itemsize
    (count, many), neighbors = prototypes.shape, patches.shape[1]
    group = predictor.GROUP
    turned = np.zeros((many, -(-count // group) * group), dtype)
    turned[:, :count] = np.asarray(prototypes, dtype).T
    padded = np.zeros((count, -(-neighbors // part) * part), dtype)
    padded[:, :neighbors] = patches
    pixels = -(-features[0].size // lanes) * lanes
    return (
        predictor.Parameters(
            _row(normal, dtype), turned.ravel(), padded.ravel(), dtype.type(sigma)
        ),
        predictor.Sizes(count, many, neighbors, pixels),
    )


def _row(numbers: Array, dtype: Any) -> Array:
    return np.ascontiguousarray(numbers, dtype).ravel()


def predict(
    features: Array, normal: Array, prototypes: Array, patches: Array, sigma: float, uniform: Array
) -> Array:
    """Weights from features (4.3)-(4.4)."""
    _same_float(features, uniform)
    neighbors = patches.shape[1]
    part = _block(neighbors)
    parameters, sizes = _parameters(features, normal, prototypes, patches, sigma, len(part))
    x, valid = (_flat(_flatten(a, 1), sizes.pixels) for a in (features, uniform))
    out = np.empty(neighbors * sizes.pixels, features.dtype)
    wide = (0,) * (-(-neighbors // len(part)) * len(part))
    predictor.predict(x, parameters, valid, out, sizes, (0,) * predictor.GROUP, part, wide)
    return out.reshape(neighbors, -1)[:, : features[0].size].reshape(uniform.shape)


def predict_adjoint(
    features: Array, normal: Array, prototypes: Array, patches: Array, sigma: float, gradient: Array
) -> tuple[np.ndarray, np.ndarray, float]:
    """Gradients of the predictor's parameters."""
    _same_float(features, gradient)
    parameters, sizes = _parameters(features, normal, prototypes, patches, sigma, 1)
    count, many, neighbors, pixels = sizes
    lanes = LINE // features.itemsize
    by_feature = np.zeros((count, -(-many // lanes) * lanes))
    by_neighbor = np.zeros((count, -(-neighbors // lanes) * lanes))
    x, g = (_flat(_flatten(a, 1), pixels) for a in (features, gradient))
    group = (0,) * predictor.GROUP
    mass, change = predictor.predict_adjoint(
        x, parameters, g, sizes, group, by_feature, by_neighbor
    )
    d_prototypes = by_feature[:, :many] - np.asarray(prototypes, np.float64) * mass[:, None]
    return d_prototypes, by_neighbor[:, :neighbors], -change


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
    trees.scores(
        np.ascontiguousarray(features, np.float32).reshape(len(features), -1),
        feature * trees.BLOCK,
        threshold,
        mask,
        first,
        value[:, trees.leaf_order()].ravel(),
        baseline,
        _aligned(len(features) * trees.BLOCK, np.float32),
        np.empty(len(baseline) * trees.BLOCK, np.float32),
        out.reshape(len(out), -1),
    )
    return out
