"""Losses over labeled pixels (3.4), from sums that add up over tiles, and the regularizer (3.5).

Each loss is a small frozen value: `sums` of a tile, in float64; `value` of the sums of all tiles;
and the `gradient` in Z of a tile, given those sums. Targets are 1..J, 0 where not labeled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..kernels import Graph, select
from ..kernels.arrays import Array, namespace
from ..kernels.numpy import row_sum
from .simplex import replicator, softmax


def _chosen(z: Array, target: Array) -> tuple[Array, Array]:
    """Where a pixel is labeled, (*grid), and the one-hot targets, (J, *grid)."""
    xp = namespace(z)
    labels = xp.arange(1, len(z) + 1, dtype=target.dtype).reshape(-1, *(1,) * target.ndim)
    return target > 0, (target == labels).astype(z.dtype)


def _total(x: Array) -> float:
    return float(x.sum(dtype=np.float64))


def _tangent(z: Array, w0: Array) -> Array:
    """V = R_W0 Z."""
    if w0 is None:
        return (z - z.mean(axis=0)) * z.dtype.type(1 / len(z))
    return replicator(w0, z)


def _pulled(g: Array, w0: Array) -> Array:
    """R_W0 g: the gradient in Z from that in V."""
    return _tangent(g, w0)


@dataclass(frozen=True)
class Cosine:
    """f = 1 - <V*, V> / (||V*|| ||V||) over all labeled pixels and labels (3.4)."""

    def sums(self, z: Array, target: Array, w0: Array = None) -> np.ndarray:
        """<V*, V>, ||V||^2, ||V*||^2 over the labeled pixels."""
        if w0 is None:  # V = Pi_0 Z / J
            count = len(z)
            along, norm, number = select(z).alignment(z, target)
            return np.array([along / count, norm / count**2, number * (1 - 1 / count)])
        labeled, hot = _chosen(z, target)
        v = _tangent(z, w0) * labeled
        # <V*, V> is V at the target, since V sums to 0; ||V*||^2 is 1 - 1/J a pixel
        return np.array(
            [_total(hot * v), _total(v * v), _total(labeled) * (1 - 1 / len(z))], np.float64
        )

    def value(self, sums: np.ndarray) -> float:
        """The loss."""
        a, b, c = sums
        if not (b > 0 and c > 0):
            raise ValueError(
                "expected labeled pixels and a flow that is not 0, got "
                f"||V*||^2 = {c:g}, ||V||^2 = {b:g}"
            )
        return float(1 - a / np.sqrt(b * c))

    def gradient(self, z: Array, target: Array, sums: np.ndarray, w0: Array = None) -> Array:
        """R_W0 grad f, (J, *grid)."""
        self.value(sums)
        a, b, c = sums
        if w0 is None:  # R_W0 = Pi_0 / J
            norm, count = float(np.sqrt(b * c)), len(z)
            return select(z).align(z, target, a / (b * norm * count**2), -1 / (norm * count))
        labeled, hot = _chosen(z, target)
        number, norm = z.dtype.type, np.sqrt(b * c)
        g = number(a / (b * norm)) * _tangent(z, w0) - number(1 / norm) * (hot - number(1 / len(z)))
        return _pulled(g * labeled, w0)


@dataclass(frozen=True)
class PixelCosine:
    """Mean of 1 - cos(V*_i, V_i) over the labeled pixels; J >= 3 (with 2 its gradient is 0)."""

    def sums(self, z: Array, target: Array, w0: Array = None) -> np.ndarray:
        """Sum of 1 - cos, and number of labeled pixels."""
        labeled, hot = _chosen(z, target)
        v = _tangent(z, w0)
        return np.array([_total((1 - self._cos(v, hot)) * labeled), _total(labeled)])

    @staticmethod
    def _norm(v: Array) -> Array:
        """||V_i||, infinite where V_i is 0 (masked out, or undecided): no direction, no slope."""
        norm = np.sqrt((v * v).sum(axis=0))
        return namespace(v).where(norm > 0, norm, v.dtype.type(np.inf))

    def _cos(self, v: Array, hot: Array) -> Array:
        star = np.sqrt(v.dtype.type(1 - 1 / len(v)))
        return (hot * v).sum(axis=0) / (self._norm(v) * star)

    def value(self, sums: np.ndarray) -> float:
        """The loss."""
        return _mean(sums)

    def gradient(self, z: Array, target: Array, sums: np.ndarray, w0: Array = None) -> Array:
        """R_W0 grad f, (J, *grid)."""
        if len(z) < 3:
            raise ValueError("the cosine of each pixel needs 3 labels or more, got 2")
        _mean(sums)
        labeled, hot = _chosen(z, target)
        v, number = _tangent(z, w0), z.dtype.type
        norm = self._norm(v)
        star = np.sqrt(number(1 - 1 / len(z)))
        g = (self._cos(v, hot) * (v / norm) - (hot - number(1 / len(z))) / star) / norm
        return _pulled(g * (labeled * number(1 / sums[1])), w0)


@dataclass(frozen=True)
class CrossEntropy:
    """Mean of -log softmax(log W0 + scale Z) at the target, weighted by class.

    Attributes
    ----------
    weights : J numbers, a class each; () for equal ones
    scale : float
    """

    weights: tuple[float, ...] = ()
    scale: float = 1.0

    def sums(self, z: Array, target: Array, w0: Array = None) -> np.ndarray:
        """Weighted sum of the entropies, and of the weights."""
        _, hot = _chosen(z, target)
        share = self._share(hot)
        p = self._assignment(z, w0)
        lost = -np.log(np.maximum((p * hot).sum(axis=0), np.finfo(p.dtype).tiny))
        return np.array([_total(lost * share), _total(share)])

    def _share(self, hot: Array) -> Array:
        if not self.weights:
            return hot.sum(axis=0)
        if len(self.weights) != len(hot):
            raise ValueError(f"expected {len(hot)} class weights, got {len(self.weights)}")
        return sum(hot.dtype.type(c) * h for c, h in zip(self.weights, hot, strict=True))

    def _assignment(self, z: Array, w0: Array) -> Array:
        u = z.dtype.type(self.scale) * z
        return softmax(u if w0 is None else np.log(w0) + u)

    def value(self, sums: np.ndarray) -> float:
        """The loss."""
        return _mean(sums)

    def gradient(self, z: Array, target: Array, sums: np.ndarray, w0: Array = None) -> Array:
        """The gradient in Z, (J, *grid)."""
        _mean(sums)
        _, hot = _chosen(z, target)
        share = self._share(hot) * z.dtype.type(self.scale / sums[1])
        return (self._assignment(z, w0) - hot) * share


def _mean(sums: np.ndarray) -> float:
    if not sums[1] > 0:
        raise ValueError("expected labeled pixels, got none")
    return float(sums[0] / sums[1])


Loss = Cosine | PixelCosine | CrossEntropy


def make(name: str, **options: Any) -> Loss:
    """Return a loss by name: cosine, pixel-cosine or cross-entropy."""
    known: dict[str, Any] = {
        "cosine": Cosine,
        "pixel-cosine": PixelCosine,
        "cross-entropy": CrossEntropy,
    }
    if name not in known:
        raise ValueError(f"loss must be one of {', '.join(known)}, got {name!r}")
    found: Loss = known[name](**options)
    return found


def tangents(weights: Array, graph: Graph | None = None) -> Array:
    """t_i = Pi_0 log Omega_i over the valid neighbors, (K, *grid); 0 elsewhere (3.5)."""
    xp, valid = namespace(weights), weights > 0
    t = xp.log(xp.where(valid, weights, 1))
    count = xp.maximum(row_sum(valid.astype(weights.dtype), graph), 1)
    return (t - row_sum(t, graph) / count) * valid


def regularizer(weights: Array, tau: float, graph: Graph | None = None) -> tuple[float, Array]:
    """R = tau/2 sum_i ||t_i||^2 (3.5) and its gradient in t, tau t, (K, *grid)."""
    t = tangents(weights, graph)
    return tau / 2 * _total(t * t), weights.dtype.type(tau) * t
