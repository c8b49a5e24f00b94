"""Losses over labeled pixels (3.4), from sums that add up over tiles, and the regularizer (3.5).

Each loss is a small frozen value: `sums` over a tile, in float64; `value` from the sums of all
tiles; and the `gradient` in Z on a tile, given those sums. Targets are 1..J, 0 where not labeled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from ..errors import InputError
from ..kernels import Graph, select
from ..kernels.arrays import Array, namespace
from ..kernels.numpy import row_sum
from ..registry import Registry
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


class Loss(Protocol):
    """A loss over labeled pixels, as a small frozen dataclass.

    The `sums` of tiles add up; `value` and `gradient` depend on the total over all tiles.

    Attributes
    ----------
    least_classes : the fewest classes for which the loss has a gradient
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    least_classes: ClassVar[int] = 2

    def sums(self, z: Array, target: Array, w0: Array = None) -> np.ndarray:
        """Sums over the labeled pixels of a tile, float64.

        Parameters
        ----------
        z : (J, *grid)
        target : (*grid)
            Classes 1..J, 0 where not labeled.
        w0 : (J, *grid), optional
            Point of linearization; the barycenter if None.
        """
        ...

    def value(self, sums: np.ndarray) -> float:
        """The loss, from the sums of all tiles.

        Raises
        ------
        ValueError
            If no pixel is labeled.
        """
        ...

    def gradient(self, z: Array, target: Array, sums: np.ndarray, w0: Array = None) -> Array:
        """The gradient in Z of a tile, (J, *grid), given the sums of all tiles."""
        ...


@dataclass(frozen=True)
class Cosine(Loss):
    """f = 1 - <V*, V> / (||V*|| ||V||) over all labeled pixels and labels (3.4).

    Examples
    --------
    Sums of tiles add up to those of the image, and the value follows from them:

    >>> import numpy as np
    >>> from tiledlaf import losses
    >>> loss = losses.Cosine()
    >>> z = np.array([[[3.0, 2.0, -1.0, 0.5]], [[-3.0, -2.0, 1.0, -0.5]]])  # 2 labels, 1 x 4
    >>> target = np.array([[1, 1, 2, 0]])  # 0: not labeled
    >>> w0 = np.full_like(z, 0.5)
    >>> whole = loss.sums(z, target, w0)
    >>> left = loss.sums(z[..., :2], target[:, :2], w0[..., :2])
    >>> right = loss.sums(z[..., 2:], target[:, 2:], w0[..., 2:])
    >>> bool(np.allclose(left + right, whole))
    True
    >>> round(loss.value(whole), 4)
    0.0742
    >>> bool(loss.gradient(z, target, whole, w0)[:, 0, 3].any())  # 0 where not labeled
    False
    """

    def sums(self, z: Array, target: Array, w0: Array = None) -> np.ndarray:
        """<V*, V>, ||V||^2, ||V*||^2 over the labeled pixels."""
        if w0 is None:  # V = Pi_0 Z / J
            count = len(z)
            along, norm, number = select(z).alignment(z, target)
            return np.array([along / count, norm / count**2, number * (1 - 1 / count)])
        labeled, hot = _chosen(z, target)
        v = _tangent(z, w0) * labeled
        # <V*, V> is V at the target, since V sums to 0; ||V*||^2 is 1 - 1/J per pixel
        return np.array(
            [_total(hot * v), _total(v * v), _total(labeled) * (1 - 1 / len(z))], np.float64
        )

    def value(self, sums: np.ndarray) -> float:
        """The loss."""
        a, b, c = sums
        if not (b > 0 and c > 0):
            raise InputError(
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
        return _tangent(g * labeled, w0)


@dataclass(frozen=True)
class PixelCosine(Loss):
    """Mean of 1 - cos(V*_i, V_i) over the labeled pixels; J >= 3 (with 2 its gradient is 0)."""

    least_classes = 3

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
        check_classes(self, len(z))
        _mean(sums)
        labeled, hot = _chosen(z, target)
        v, number = _tangent(z, w0), z.dtype.type
        norm = self._norm(v)
        star = np.sqrt(number(1 - 1 / len(z)))
        g = (self._cos(v, hot) * (v / norm) - (hot - number(1 / len(z))) / star) / norm
        return _tangent(g * (labeled * number(1 / sums[1])), w0)


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """Mean of -log softmax(log W0 + scale Z) at the target, weighted by class.

    Attributes
    ----------
    weights : J numbers, one per class; () for equal weights
    scale : float
    """

    weights: tuple[float, ...] = ()
    scale: float = 1.0

    def sums(self, z: Array, target: Array, w0: Array = None) -> np.ndarray:
        """Weighted sum of the cross-entropies, and the sum of the weights."""
        _, hot = _chosen(z, target)
        share = self._share(hot)
        p = self._assignment(z, w0)
        lost = -np.log(np.maximum((p * hot).sum(axis=0), np.finfo(p.dtype).tiny))
        return np.array([_total(lost * share), _total(share)])

    def _share(self, hot: Array) -> Array:
        if not self.weights:
            return hot.sum(axis=0)
        if len(self.weights) != len(hot):
            raise InputError(f"expected {len(hot)} class weights, got {len(self.weights)}")
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
        raise InputError("expected labeled pixels, got none")
    return float(sums[0] / sums[1])


LOSSES: Registry[type[Loss]] = Registry(
    "tiledlaf.losses",
    {"cosine": Cosine, "pixel-cosine": PixelCosine, "cross-entropy": CrossEntropy},
)


def make(name: str, **options: Any) -> Loss:
    """Return a loss by its name in `LOSSES`; options are fields of its class.

    Raises
    ------
    ValueError
        If the name is unknown.

    Examples
    --------
    >>> from tiledlaf import losses
    >>> losses.make("cross-entropy", scale=2.0)
    CrossEntropy(weights=(), scale=2.0)
    """
    if name not in LOSSES:
        raise InputError(f"loss must be one of {', '.join(LOSSES)}, got {name!r}")
    return LOSSES[name](**options)


def check_classes(loss: Loss, count: int) -> None:
    """Refuse fewer classes than a loss can learn from."""
    if count < loss.least_classes:
        raise InputError(
            f"the loss {type(loss).__name__} needs {loss.least_classes} classes or more, "
            f"got {count}"
        )


def tangents(weights: Array, graph: Graph | None = None) -> Array:
    """t_i = Pi_0 log Omega_i over the valid neighbors, (K, *grid); 0 elsewhere (3.5)."""
    xp, valid = namespace(weights), weights > 0
    t = xp.log(xp.where(valid, weights, 1))
    count = xp.maximum(row_sum(valid.astype(weights.dtype), graph), 1)
    return (t - row_sum(t, graph) / count) * valid


def regularizer(weights: Array, tau: float, graph: Graph | None = None) -> tuple[float, Array]:
    """R = tau/2 sum_i ||t_i||^2 (3.5) and its gradient in t.

    Parameters
    ----------
    weights : (K, *grid), or (E,) on a graph
    tau : float
    graph : Graph or None
        The graph if the weights are (E,).

    Returns
    -------
    value : float
    gradient : like the weights
        tau t; 0 where a neighbor is not valid.

    Examples
    --------
    Uniform weights cost nothing. Others do, and the gradient points away from uniform ones:

    >>> import numpy as np
    >>> from tiledlaf import losses
    >>> losses.regularizer(np.full((4, 1, 1), 0.25), tau=0.1)[0]
    0.0
    >>> weights = np.array([0.4, 0.4, 0.1, 0.1]).reshape(4, 1, 1)
    >>> value, gradient = losses.regularizer(weights, tau=0.1)
    >>> round(value, 4), gradient.ravel().round(4)
    (0.0961, array([ 0.0693,  0.0693, -0.0693, -0.0693]))
    """
    t = tangents(weights, graph)
    return tau / 2 * _total(t * t), weights.dtype.type(tau) * t
