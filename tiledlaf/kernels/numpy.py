"""The readable reference of the kernels, in plain NumPy; float32 or float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import namespace

Array = Any  # numpy.ndarray here, cupy.ndarray in the sibling
Offsets = tuple[tuple[int, ...], ...]


def shifted(offset: Sequence[int], grid: Sequence[int]) -> tuple[tuple[slice, ...], ...]:
    """Slices of the pixels i with i + offset inside the grid, and of i + offset."""
    axes = list(zip(offset, grid, strict=True))
    here = tuple(slice(max(0, -o), max(0, n - max(0, o))) for o, n in axes)
    there = tuple(slice(max(0, o), max(0, n + min(0, o))) for o, n in axes)
    return here, there


def average(weights: Array, x: Array, offsets: Offsets) -> Array:
    """(Omega x)_i = sum_k omega_ik x_(i + offset k), (J, *grid)."""
    out = np.zeros_like(x)
    for w, offset in zip(weights, offsets, strict=True):
        here, there = shifted(offset, x.shape[1:])
        out[:, *here] += w[here] * x[:, *there]
    return out


def adjoint(weights: Array, x: Array, offsets: Offsets) -> Array:
    """(Omega^T x)_(i + offset k) = sum of omega_ik x_i over k, (J, *grid)."""
    out = np.zeros_like(x)
    for w, offset in zip(weights, offsets, strict=True):
        here, there = shifted(offset, x.shape[1:])
        out[:, *there] += w[here] * x[:, *here]
    return out


def opposite(offsets: Offsets) -> Offsets:
    """The offsets of Omega^T: from a neighbor back to the pixel."""
    return tuple(tuple(-o for o in offset) for offset in offsets)


def transpose(weights: Array, offsets: Offsets) -> Array:
    """Weights of Omega^T for the opposite offsets, (K, *grid)."""
    out = np.zeros_like(weights)
    for new, w, offset in zip(out, weights, offsets, strict=True):
        here, there = shifted(offset, w.shape)
        new[there] = w[here]
    return out


def similarity(weights: Array, q: Array, offsets: Offsets) -> Array:
    """S = softmax(Omega q) with q = log W0 - D / rho, closed form of (2.16)-(2.17)."""
    u = average(weights, q, offsets)
    e = np.exp(u - u.max(axis=0))
    return e / e.sum(axis=0)


def flow(
    weights: Array,
    q: Array,
    offsets: Offsets,
    coefficients: Sequence[float],
    keep: bool = False,
    scale: float = 1.0,
) -> Array:
    """All steps of a linearized flow with fixed coefficients in one call: Z, (J, *grid).

    U = B;  U <- B + keep U + c A U for each coefficient c;  Z = scale U, where A U = R_S Omega U
    and the source is B = Pi_0 S = S - 1/J. Horner's form of a polynomial in A (``keep=False``)
    needs no accumulator; with ``keep=True`` each step is one of the explicit Euler method.
    """
    s = similarity(weights, q, offsets)
    source = s - s.dtype.type(1 / len(s))
    u = source
    for c in coefficients:
        t = average(weights, u, offsets)
        step = s.dtype.type(c) * s * (t - (s * t).sum(axis=0))
        u = source + u + step if keep else source + step
    return s.dtype.type(scale) * u


def decide(z: Array) -> tuple[Array, Array, Array]:
    """Label argmax_j z_j (the first of equals; from 1), max_j softmax(z)_j, gap to the second.

    Returns
    -------
    labels : (*grid) uint8, or uint16 from 256 labels on
    confidence, gap : (*grid) of z's type
    """
    labels = (z.argmax(axis=0) + 1).astype(np.uint8 if len(z) < 256 else np.uint16)
    best = z.max(axis=0)
    confidence = 1 / np.exp(z - best).sum(axis=0)
    second = np.partition(z, len(z) - 2, axis=0)[len(z) - 2]
    return labels, confidence, best - second


def classify(
    weights: Array,
    q: Array,
    offsets: Offsets,
    coefficients: Sequence[float],
    keep: bool = False,
    scale: float = 1.0,
    log_w0: Array | None = None,
) -> tuple[Array, Array, Array]:
    """`decide` on log W0 + Z of the `flow`, in one call that need not hold Z."""
    z = flow(weights, q, offsets, coefficients, keep, scale)
    return decide(z if log_w0 is None else log_w0 + z)


def distances(image: Array, prototypes: Array, scale: float) -> Array:
    """D_j = sum_c (f_c - l_jc)^2 / scale, (J, *grid) float32, of an image (C, *grid)."""
    out = np.zeros((len(prototypes), *image.shape[1:]), np.float32)
    for d, prototype in zip(out, prototypes, strict=True):
        for plane, value in zip(image, prototype, strict=True):
            d += (plane.astype(np.float32) - np.float32(value)) ** 2
    out *= np.float32(1 / scale)
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
    """Sum of decision trees, tree after tree in float32.

    A tree's leaves are bits, from left to right. A node whose threshold a pixel exceeds clears
    those to its left; the lowest that all nodes leave is the pixel's.

    Parameters
    ----------
    features : (F, *grid) float32
    feature, threshold, mask : (N,) int64, float32, uint32
        Of the nodes; a mask has zeros at the leaves to clear.
    first : (T + 1,) int64
        Nodes of tree t are first[t] to first[t + 1].
    value : (T, 32) float32
    baseline : (K,) float32
        Tree t adds to plane t % K.

    Returns
    -------
    (K, *grid) float32
    """
    xp = namespace(features)
    every = np.uint32(0xFFFFFFFF)
    out = xp.empty((len(baseline), *features.shape[1:]), np.float32)
    for plane, start in zip(out, baseline, strict=True):
        plane[...] = start
    for t, values in enumerate(value):
        bits = xp.full(out.shape[1:], every)
        for n in range(first[t], first[t + 1]):
            bits &= xp.where(features[feature[n]] > threshold[n], mask[n], every)
        lowest = bits & (~bits + np.uint32(1))
        # 2^leaf as a float: the exponent is exact
        leaf = xp.frexp(lowest.astype(np.float32))[1] - 1
        out[t % len(out)] += xp.asarray(values)[leaf]
    return out
