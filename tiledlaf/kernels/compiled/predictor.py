"""The compiled weight predictor (4.3)-(4.4) and its adjoint, on blocks of pixels that fit in L1."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from ..arrays import Array
from .caching import jit
from .vector import (
    exp,
    fma,
    lanes_of,
    load,
    registers,
    splat,
    splat_each,
    sqrt,
    store,
    store_each,
    where_greater,
    zeros,
)

STAGE = 256  # pixels per block, whose features and weights stay in the cache
PIXELS = 128  # the same in the adjoint, with features and attention
GROUP = 8  # prototypes processed at once
_inline = njit(forceinline=True, error_model="numpy")


class Parameters(NamedTuple):
    """The predictor's parameters, flat."""

    normal: Array  # (2, F): what is subtracted from each feature, and the factor that follows
    prototypes: Array  # (F, N), N rounded up to whole groups
    patches: Array  # (N, K); in `predict` K is rounded up to whole parts
    sigma: float


class Sizes(NamedTuple):
    """How many there are of each."""

    prototypes: int  # N
    features: int  # F
    neighbors: int  # K
    pixels: int  # per plane, rounded up to whole vectors


@_inline
def _shares(x, at, apart, parameters, sizes, distance, share, to, stride, group):
    """Distances to all prototypes and attention of a vector of pixels, in rows `stride` apart.

    Attention is not yet divided by its sum, which is returned; it may overwrite the distances.
    """
    prototypes, sigma = parameters.prototypes, parameters.sigma
    count, part = sizes.prototypes, len(group)
    padded = -(-count // part) * part
    least = splat(x.dtype.type(np.inf))
    for n in range(0, padded, part):
        square = zeros(x, group)
        for f in range(sizes.features):
            offset = load(x, at + f * apart) - splat_each(prototypes, f * padded + n, 1, group)
            square = fma(offset, offset, square)
        store_each(distance, to + n * stride, stride, sqrt(square))
    for n in range(count):
        d = load(distance, to + n * stride)
        least = where_greater(least, d, d, least)
    total = splat(x.dtype.type(0))
    for n in range(count):
        e = exp(splat(-sigma) * (load(distance, to + n * stride) - least))
        store(share, to + n * stride, e)
        total = total + e
    return total


@jit
def predict(features, parameters, uniform, out, sizes, group, part, wide):
    """Weights (K, pixels) from flat planes."""
    lanes, block = lanes_of(features), len(part)
    normal, patches = parameters.normal, parameters.patches
    count, many, neighbors, size = sizes
    padded = -(-neighbors // block) * block
    share = np.empty((count + len(group)) * lanes, features.dtype)
    x = np.empty(many * STAGE, features.dtype)
    valid = np.empty(neighbors * STAGE, features.dtype)
    t = registers(features, wide)
    low, tiny = splat(features.dtype.type(-1e30)), splat(features.dtype.type(1e-30))
    nothing, one = splat(features.dtype.type(0)), splat(features.dtype.type(1))
    for start in range(0, size, STAGE):
        columns = min(STAGE, size - start)
        # plane after plane: in parallel they would be more streams than the prefetcher can follow
        for f in range(many):
            for i in range(0, columns, lanes):
                value = load(features, f * size + start + i) - splat(normal[f])
                store(x, f * STAGE + i, value * splat(normal[many + f]))
        for k in range(neighbors):
            for i in range(0, columns, lanes):
                store(valid, k * STAGE + i, load(uniform, k * size + start + i))
        for i in range(0, columns, lanes):
            total = _shares(x, i, STAGE, parameters, sizes, share, share, 0, lanes, group)
            inverse = one / total
            for k in range(0, padded, block):
                value = zeros(features, part)
                for n in range(count):
                    e = load(share, n * lanes)
                    value = fma(e, splat_each(patches, n * padded + k, 1, part), value)
                store_each(t, k * lanes, lanes, value * inverse)
            best = low
            for k in range(neighbors):
                value = load(t, k * lanes)
                value = where_greater(load(valid, k * STAGE + i), nothing, value, low)
                best = where_greater(value, best, value, best)
                store(t, k * lanes, value)
            total = tiny
            for k in range(neighbors):
                e = exp(load(t, k * lanes) - best)
                # needed if no neighbor is valid, as all differences are 0 then
                e = where_greater(load(valid, k * STAGE + i), nothing, e, nothing)
                store(t, k * lanes, e)
                total = total + e
            inverse = one / total
            for k in range(neighbors):
                store(valid, k * STAGE + i, load(t, k * lanes) * inverse)
        for k in range(neighbors):
            for i in range(0, columns, lanes):
                store(out, k * size + start + i, load(valid, k * STAGE + i))


@jit
def _turn(planes, count, columns, out, width):
    """Transpose a block of planes to (pixels, width): each pixel's values become contiguous."""
    for j in range(count):
        for i in range(columns):
            out[i * width + j] = planes[j * PIXELS + i]


@jit
def _correlate(c, x, count, width, columns, group, out):
    """out[n] += sum_i c[n, i] x[i], in rows of `width` numbers."""
    lanes, part = lanes_of(c), len(group)
    sums = np.empty(part * lanes, c.dtype)
    for n in range(0, -(-count // part) * part, part):
        for v in range(0, width, lanes):
            total = zeros(c, group)
            for i in range(columns):
                row = splat_each(c, n * PIXELS + i, PIXELS, group)
                total = fma(row, load(x, i * width + v), total)
            store_each(sums, 0, lanes, total)
            for m in range(min(part, count - n)):
                for j in range(lanes):
                    out[n + m, v + j] += sums[m * lanes + j]


@jit
def predict_adjoint(features, parameters, gradient, sizes, group, by_feature, by_neighbor):
    """Sum c f (N, padded F), a g (N, padded K), c (N) and r d over the pixels."""
    lanes = lanes_of(features)
    normal, _, patches, sigma = parameters
    count, many, neighbors, size = sizes
    rows = count + len(group)
    distance = np.zeros(rows * PIXELS, features.dtype)
    share = np.zeros(rows * PIXELS, features.dtype)
    c = np.zeros(rows * PIXELS, features.dtype)
    x = np.zeros(many * PIXELS, features.dtype)
    g = np.zeros(neighbors * PIXELS, features.dtype)
    width, wide = by_feature.shape[1], by_neighbor.shape[1]
    beside = np.zeros(PIXELS * width, features.dtype)
    across = np.zeros(PIXELS * wide, features.dtype)
    mass = np.zeros(count, np.float64)
    change = 0.0
    nothing = splat(features.dtype.type(0))
    products = np.empty(lanes, features.dtype)
    for start in range(0, size, PIXELS):
        columns = min(PIXELS, size - start)
        for f in range(many):
            for i in range(columns):
                value = features[f * size + start + i] - normal[f]
                x[f * PIXELS + i] = value * normal[many + f]
        for k in range(neighbors):
            for i in range(columns):
                g[k * PIXELS + i] = gradient[k * size + start + i]
        for i in range(0, columns, lanes):
            total = _shares(x, i, PIXELS, parameters, sizes, distance, share, i, PIXELS, group)
            inverse = splat(features.dtype.type(1)) / total
            mean = nothing
            for n in range(count):
                a = load(share, n * PIXELS + i) * inverse
                q = nothing
                for k in range(neighbors):
                    number = splat(patches[n * neighbors + k])
                    q = fma(number, load(g, k * PIXELS + i), q)
                mean = fma(a, q, mean)
                store(share, n * PIXELS + i, a)
                store(c, n * PIXELS + i, q)
            along = nothing
            for n in range(count):
                d = load(distance, n * PIXELS + i)
                r = load(share, n * PIXELS + i) * (load(c, n * PIXELS + i) - mean)
                along = fma(r, d, along)
                value = splat(sigma) * r / d
                store(c, n * PIXELS + i, where_greater(d, nothing, value, nothing))
            store(products, 0, along)
            for j in range(lanes):
                change += products[j]
        _turn(x, many, columns, beside, width)
        _turn(g, neighbors, columns, across, wide)
        _correlate(c, beside, count, width, columns, group, by_feature)
        _correlate(share, across, count, wide, columns, group, by_neighbor)
        for n in range(count):
            for i in range(columns):
                mass[n] += c[n * PIXELS + i]
    return mass, change
