"""The readable reference of the kernels, in plain NumPy; float32 or float64.

Neighborhoods are offsets on a grid, or a `Graph`: then weights are (E,) and the grid is (n,).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .arrays import Array, Neighborhood, namespace
from .graph import Graph


def shifted(offset: Sequence[int], grid: Sequence[int]) -> tuple[tuple[slice, ...], ...]:
    """Slices of the pixels i whose i + offset is inside the grid, and of i + offset."""
    axes = list(zip(offset, grid, strict=True))
    here = tuple(slice(max(0, -o), max(0, n - max(0, o))) for o, n in axes)
    there = tuple(slice(max(0, o), max(0, n + min(0, o))) for o, n in axes)
    return here, there


def average(weights: Array, x: Array, offsets: Neighborhood) -> Array:
    """(Omega x)_i = sum_k omega_ik x_(i + offset k), (J, *grid)."""
    if isinstance(offsets, Graph):
        return offsets.average(weights, x)
    out = np.zeros_like(x)
    for w, offset in zip(weights, offsets, strict=True):
        here, there = shifted(offset, x.shape[1:])
        out[:, *here] += w[here] * x[:, *there]
    return out


def adjoint(weights: Array, x: Array, offsets: Neighborhood) -> Array:
    """(Omega^T x)_(i + offset k) = sum of omega_ik x_i over k, (J, *grid)."""
    if isinstance(offsets, Graph):
        return offsets.adjoint(weights, x)
    out = np.zeros_like(x)
    for w, offset in zip(weights, offsets, strict=True):
        here, there = shifted(offset, x.shape[1:])
        out[:, *there] += w[here] * x[:, *here]
    return out


def opposite(offsets: Any) -> Any:
    """The offsets of Omega^T: from a neighbor back to the pixel."""
    if isinstance(offsets, Graph):
        return offsets.opposite()
    return tuple(tuple(-o for o in offset) for offset in offsets)


def transpose(weights: Array, offsets: Neighborhood) -> Array:
    """Weights of Omega^T for the opposite offsets, (K, *grid)."""
    if isinstance(offsets, Graph):
        return offsets.transpose(weights)
    out = np.zeros_like(weights)
    for new, w, offset in zip(out, weights, offsets, strict=True):
        here, there = shifted(offset, w.shape)
        new[there] = w[here]
    return out


def pairs(a: Array, b: Array, offsets: Neighborhood) -> Array:
    """<a_i, b_(i + offset k)> of every pixel and neighbor, (K, *grid), for a and b (J, *grid)."""
    if isinstance(offsets, Graph):
        return offsets.pairs(a, b)
    out = namespace(a).zeros((len(offsets), *a.shape[1:]), a.dtype)
    for e, offset in zip(out, offsets, strict=True):
        here, there = shifted(offset, e.shape)
        e[here] = (a[:, *here] * b[:, *there]).sum(axis=0)
    return out


def row_sum(values: Array, offsets: Neighborhood | None) -> Array:
    """Sums over neighbors, in a shape that broadcasts against (K, *grid)."""
    return offsets.sum(values) if isinstance(offsets, Graph) else values.sum(axis=0)


def row_max(values: Array, offsets: Neighborhood | None) -> Array:
    """Maximum over neighbors, shaped like `row_sum`."""
    return offsets.max(values) if isinstance(offsets, Graph) else values.max(axis=0)


def similarity(weights: Array, q: Array, offsets: Neighborhood) -> Array:
    """S = softmax(Omega q) with q = log W0 - D / rho, closed form of (2.16)-(2.17)."""
    u = average(weights, q, offsets)
    e = np.exp(u - u.max(axis=0))
    return e / e.sum(axis=0)


def flow(
    weights: Array,
    q: Array,
    offsets: Neighborhood,
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
    """Label argmax_j z_j (from 1; the first of ties), max_j softmax(z)_j, gap to the second.

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
    offsets: Neighborhood,
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


def logarithm(p: Array, least: float, factor: float) -> Array:
    """`factor` log max(p, least), in p's shape and type."""
    number = p.dtype.type
    q = np.log(np.maximum(p, number(least)))
    q *= number(factor)
    return q


def softmax(scores: Array) -> Array:
    """Softmax (J, *grid) of scores (J, *grid); of a single one, that of a second label: two.

    Labels are summed in an order that does not depend on the grid.
    """
    xp, one = namespace(scores), scores.dtype.type(1)
    if len(scores) == 1:
        # exp of a negative number cannot overflow, and the smaller one keeps its digits
        small = xp.exp(-abs(scores[0]))
        large = one / (one + small)
        small *= large
        second = scores[0] > 0
        return xp.stack([xp.where(second, small, large), xp.where(second, large, small)])
    p = xp.exp(scores - scores.max(axis=0))
    total = p[0].copy()
    for plane in p[1:]:
        total += plane
    p /= total
    return p


def chain(
    weights: Array, s: Array, source: Array, offsets: Neighborhood, table: Array
) -> tuple[Array, Array]:
    """Polynomials in A = R_S Omega applied to B = Pi_0 source, R of them at once.

    out_r = sum over l of table[r, l] A^l B.

    Returns
    -------
    (J, *grid), (R - 1, J - 1, *grid)
        The first; and the others as `products` takes them, minus their last label's plane.
    """
    u, xp = source - source.mean(axis=0), namespace(source)
    out = xp.stack([source.dtype.type(c) * u for c in table[:, 0]])
    for column in table.T[1:]:
        t = average(weights, u, offsets)
        u = s * (t - (s * t).sum(axis=0))
        for total, c in zip(out, column, strict=True):
            total += source.dtype.type(c) * u
    return out[0], out[1:, :-1] - out[1:, -1:]


def pull(
    weights: Array, s: Array, q: Array, z: Array, g: Array, offsets: Neighborhood, table: Array
) -> Array:
    """`products` of z and polynomials of the adjoint flow, the first of which is the integral.

    The adjoint flow goes in the form y = R_S u, since R_S (Omega^T R_S) u = (R_S Omega^T) y.
    """
    turned = transpose(weights, offsets)
    lbar, p = chain(turned, s, s * (g - (s * g).sum(axis=0)), opposite(offsets), table)
    p = whole(p)
    return products(weights, s, q, p - p.mean(axis=1, keepdims=True), z, lbar, offsets)


def whole(differences: Array) -> Array:
    """Append a plane of zeros for the last label, (R, J, *grid)."""
    xp = namespace(differences)
    return xp.concatenate([differences, xp.zeros_like(differences[:, :1])], axis=1)


def products(
    weights: Array, s: Array, q: Array, p: Array, z: Array, source: Array, offsets: Neighborhood
) -> Array:
    """R_Omega dL/dOmega, the gradient in t of Omega = softmax(t), (K, *grid).

    Parameters
    ----------
    weights, s, q : (K, *grid), (J, *grid), (J, *grid)
    p, z : (R, J, *grid), (R, J - 1, *grid)
        p_r = R_S u_r and z_r with sum of u_r (x) z_r = integral of lambda (x) Z (Theorem 3.8);
        z_r minus its last label's plane, since p_r sums to 0.
    source : (J, *grid)
        R_S times the integral of lambda.
    """
    h, z = source.copy(), whole(z)
    for a, b in zip(p, z, strict=True):
        x = average(weights, b, offsets)
        h += a * (x - (s * x).sum(axis=0)) - s * (a * x).sum(axis=0)
    out = pairs(h, q, offsets)
    for a, b in zip(p, z, strict=True):
        out += pairs(a, b, offsets)
    return weights * (out - row_sum(weights * out, offsets))


def alignment(z: Array, target: Array) -> tuple[float, float, int]:
    """Sums over the labeled pixels: Pi_0 z at the target, ||Pi_0 z||^2, and their number.

    Parameters
    ----------
    z : (J, *grid)
    target : (*grid) 1..J, 0 where not labeled
    """
    labeled, hot, v = target > 0, _one_hot(z, target), z - z.mean(axis=0)
    v = v * labeled
    return (
        float((hot * v).sum(dtype=np.float64)),
        float((v * v).sum(dtype=np.float64)),
        int(labeled.sum()),
    )


def align(z: Array, target: Array, inward: float, onward: float) -> Array:
    """`inward` Pi_0 z + `onward` Pi_0 e_target at the labeled pixels, (J, *grid)."""
    number = z.dtype.type
    hot = _one_hot(z, target) - number(1 / len(z))
    return (number(inward) * (z - z.mean(axis=0)) + number(onward) * hot) * (target > 0)


def _one_hot(z: Array, target: Array) -> Array:
    labels = namespace(z).arange(1, len(z) + 1, dtype=target.dtype)
    return (target == labels.reshape(-1, *(1,) * target.ndim)).astype(z.dtype)


def predict(
    features: Array, normal: Array, prototypes: Array, patches: Array, sigma: float, uniform: Array
) -> Array:
    """Weights from features (4.3)-(4.4), (K, *grid).

    omega = softmax(sum_j a_j nu_j) over the valid neighbors with a = softmax(-sigma ||f - p_j||).

    Parameters
    ----------
    features, prototypes : (F, *grid), (N, F)
    normal : (2, F)
        What is subtracted from each feature, and what the difference is multiplied by.
    patches : (N, K), tangent weight patches nu
    uniform : (K, *grid), zero where a neighbor is not valid
    """
    xp = namespace(features)
    a, _ = attention(normalized(features, normal), prototypes, sigma)
    t = xp.stack([_combination(a, column) for column in patches.T])
    t = xp.where(uniform > 0, t, -xp.inf)
    best = t.max(axis=0)
    e = xp.exp(t - xp.where(xp.isfinite(best), best, 0))
    return e / xp.maximum(e.sum(axis=0), xp.finfo(e.dtype).tiny)


def predict_adjoint(
    features: Array, normal: Array, prototypes: Array, patches: Array, sigma: float, gradient: Array
) -> tuple[np.ndarray, np.ndarray, float]:
    """Gradients of the predictor's parameters, (N, F), (N, K) and a number, float64.

    Parameters
    ----------
    gradient : (K, *grid)
        R_Omega dL/dOmega, as from `products`.
    """
    xp = namespace(features)
    features = normalized(features, normal)
    a, distance = attention(features, prototypes, sigma)
    q = xp.stack([_combination(gradient, row) for row in patches])
    r = a * (q - (a * q).sum(axis=0))
    flat = [x.reshape(len(x), -1).astype(np.float64) for x in (features, gradient, a, r, distance)]
    f, g, a, r, d = flat
    c = xp.where(d > 0, sigma * r / xp.where(d > 0, d, 1), 0)
    prototypes = xp.asarray(prototypes)
    return c @ f.T - prototypes * c.sum(axis=1)[:, None], a @ g.T, -float((r * d).sum())


def _combination(planes: Array, numbers: Array) -> Array:
    total = planes[0] * planes.dtype.type(numbers[0])
    for plane, number in zip(planes[1:], numbers[1:], strict=True):
        total = total + planes.dtype.type(number) * plane
    return total


def normalized(features: Array, normal: Array) -> Array:
    """(f - mean) times one factor per feature, (F, *grid)."""
    shape = (-1, *(1,) * (features.ndim - 1))
    mean, factor = (namespace(features).asarray(n, features.dtype).reshape(shape) for n in normal)
    return (features - mean) * factor


def attention(features: Array, prototypes: Array, sigma: float) -> tuple[Array, Array]:
    """Attention a_j and distances ||f - p_j||, both (N, *grid)."""
    xp, number = namespace(features), features.dtype.type
    square = [
        sum((f - number(p)) ** 2 for f, p in zip(features, row, strict=True)) for row in prototypes
    ]
    distance = xp.sqrt(xp.stack(square))
    e = xp.exp(number(-sigma) * (distance - distance.min(axis=0)))
    return e / e.sum(axis=0), distance


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
    the bits of its left subtree; the lowest bit left in the end is the pixel's leaf.

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
