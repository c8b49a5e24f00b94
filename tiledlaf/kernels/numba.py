"""The kernels for a CPU: prepare the memory of the compiled functions and run them by strips.

Same functions as the numpy sibling, whose docstrings apply.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .arrays import Array, Offsets
from .compiled import flow as wave
from .compiled import gradient as compiled
from .compiled import layout, pointwise, predictor, trees
from .compiled.flow import (
    AVERAGE,
    CLASSIFY,
    FLOW,
    LINE,
    SIMILARITY,
    Flow,
    Given,
    Grid,
    Labels,
    Results,
    Rings,
    Strip,
)
from .numpy import opposite, transpose


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
    dtype = layout.same_float(*given)
    lanes = LINE // q.itemsize
    if q.shape[-1] < lanes:
        return _narrow(mode, given, offsets, coefficients, keep, scale, lanes)
    count, *grid = q.shape
    # 2-D grids are (y, 1, x): the wave passes over rows as it does over slabs in 3-D
    shape = (grid[0], grid[1] if len(grid) == 3 else 1, grid[-1])
    full = tuple(o if len(o) == 3 else (o[0], 0, o[1]) for o in offsets)
    radius = tuple(max(abs(o[axis]) for o in full) for axis in range(3))
    halo, fewer = radius[2] * (len(coefficients) + 1), layout.padded(count - 1)
    at, width = layout.strips_of(
        shape, radius, len(full), count, fewer, len(coefficients) + 2, q.itemsize
    )
    pixels = int(np.prod(grid))
    mask = np.zeros((2, at.vectors * lanes), dtype)
    mask[0, :width] = 1
    rings = Rings(
        # the last row's neighbors reach as far beyond it as the first pixel lies within its line
        u=layout.aligned((len(coefficients) + 2) * at.level + at.origin % at.line, dtype),
        s=layout.aligned(at.kept * shape[1] * at.vectors * at.record, dtype),
        mask=mask.ravel(),
    )
    nothing = np.empty(0, dtype)
    w, x = (np.ascontiguousarray(a).ravel() for a in given[:2])
    label = np.empty(pixels if mode == CLASSIFY else 0, layout.label_type(count))
    confidence, gap = (np.empty(len(label), dtype) for _ in range(2))
    results = Results(
        planes=nothing if mode == CLASSIFY else np.empty(count * pixels, dtype),
        label=label,
        confidence=confidence,
        gap=gap,
    )
    same = (
        Given(w, x, nothing if base is None else np.ascontiguousarray(base).ravel()),
        layout.visits(full, at),
        Labels((0,) * count, layout.block(count), (0,) * fewer, layout.block(count - 1)),
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
    dtype = layout.same_float(z)
    count, pixels = len(z), z[0].size
    flat = np.ascontiguousarray(z).reshape(count, -1)
    size = max(pixels, LINE // z.itemsize)
    if size > pixels:
        flat = np.pad(flat, ((0, 0), (0, size - pixels)))
    label = np.empty(size, layout.label_type(count))
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
    pointwise.distances(
        flat,
        np.ascontiguousarray(prototypes, np.float32),
        np.float32(1 / scale),
        out.reshape(len(out), -1),
    )
    return out


def logarithm(p: Array, least: float, factor: float) -> Array:
    """`factor` log max(p, least)."""
    dtype = layout.same_float(p)
    size = max(p.size, LINE // p.itemsize)
    out = np.empty(size, dtype)
    pointwise.logarithm(layout.flat(p.reshape(1, -1), size), dtype(least), dtype(factor), out)
    return out[: p.size].reshape(p.shape)


def softmax(scores: Array) -> Array:
    """Softmax of scores."""
    dtype = layout.same_float(scores)
    count, pixels = len(scores), scores[0].size
    size = max(pixels, LINE // scores.itemsize)
    out = np.empty((max(count, 2), size), dtype)
    pointwise.softmax(layout.flat(layout.flatten(scores, 1), size), count, size, out.reshape(-1))
    return out[:, :pixels].reshape(len(out), *scores.shape[1:])


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
    dtype = layout.same_float(weights, s, source)
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
    widest = layout.POWERS // (sum(sizes) * s.itemsize) - 2 * halo
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
    rings = [layout.aligned(size * plane + 2 * guard + lanes, dtype) for size in sizes]
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
        compiled.Counts((0,) * count, layout.block(count), (0,) * len(offsets)),
    )


def chain(
    weights: Array, s: Array, source: Array, offsets: Offsets, table: Array
) -> tuple[Array, Array]:
    """Polynomials in R_S Omega of Pi_0 source."""
    shape = len(table) - 1, len(source) - 1, *source.shape[1:]
    first = layout.aligned(source.size, source.dtype).reshape(source.shape)
    others = layout.aligned(math.prod(shape), source.dtype).reshape(shape)
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
    out = layout.aligned(given[0].size, dtype)
    compiled.align(*given, dtype(inward), dtype(onward), out, (0,) * len(z))
    return out.reshape(len(z), -1)[:, : target.size].reshape(z.shape)


def _labeled(z: Array, target: Array) -> tuple[Array, Array]:
    """Flat planes of at least one vector, and the target in the same type."""
    dtype = layout.same_float(z)
    size = max(target.size, LINE // z.itemsize)
    return layout.flat(layout.flatten(z, 1), size), layout.flat(
        layout.as_row(target, dtype)[None], size
    )


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
            layout.as_row(normal, dtype), turned.ravel(), padded.ravel(), dtype.type(sigma)
        ),
        predictor.Sizes(count, many, neighbors, pixels),
    )


def predict(
    features: Array, normal: Array, prototypes: Array, patches: Array, sigma: float, uniform: Array
) -> Array:
    """Weights from features (4.3)-(4.4)."""
    layout.same_float(features, uniform)
    neighbors = patches.shape[1]
    part = layout.block(neighbors)
    parameters, sizes = _parameters(features, normal, prototypes, patches, sigma, len(part))
    x, valid = (layout.flat(layout.flatten(a, 1), sizes.pixels) for a in (features, uniform))
    out = np.empty(neighbors * sizes.pixels, features.dtype)
    wide = (0,) * (-(-neighbors // len(part)) * len(part))
    predictor.predict(x, parameters, valid, out, sizes, (0,) * predictor.GROUP, part, wide)
    return out.reshape(neighbors, -1)[:, : features[0].size].reshape(uniform.shape)


def predict_adjoint(
    features: Array, normal: Array, prototypes: Array, patches: Array, sigma: float, gradient: Array
) -> tuple[np.ndarray, np.ndarray, float]:
    """Gradients of the predictor's parameters."""
    layout.same_float(features, gradient)
    parameters, sizes = _parameters(features, normal, prototypes, patches, sigma, 1)
    count, many, neighbors, pixels = sizes
    lanes = LINE // features.itemsize
    by_feature = np.zeros((count, -(-many // lanes) * lanes))
    by_neighbor = np.zeros((count, -(-neighbors // lanes) * lanes))
    x, g = (layout.flat(layout.flatten(a, 1), pixels) for a in (features, gradient))
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
        layout.aligned(len(features) * trees.BLOCK, np.float32),
        np.empty(len(baseline) * trees.BLOCK, np.float32),
        out.reshape(len(out), -1),
    )
    return out
