"""The linearized assignment flow in JAX, with its gradient in closed form.

Both passes are computed on the host's processor (Theorem 3.8 of Zeilmann, Petra, Schnörr, J. Math.
Imaging Vis. 2023); nothing of the integration is kept from one to the other.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

try:
    import jax
    from jax import numpy as jnp
except ImportError:
    raise ImportError("tiledlaf.jax needs JAX: pip install 'tiledlaf[jax]'") from None

from .errors import InputError, as_number
from .flow import stencil
from .flow.gradient import Polynomials, linearize
from .flow.linear import Taylor, check_growth, check_rho, check_time, solve
from .kernels.arrays import Offsets
from .kernels.numpy import shifted

__all__ = ["assignment_flow"]

Numbers = tuple[float, float, float, float]  # rho, time, tol, rank_tol
Single = Callable[..., tuple[np.ndarray, ...]]  # of one image


def assignment_flow(
    distances: Any,
    logits: Any = None,
    neighborhood: str | Sequence[Sequence[int]] = "3x3",
    *,
    rho: float = 1.0,
    time: float = 5.0,
    tol: float = 1e-4,
    rank_tol: float = 5e-4,
) -> Any:
    """Z(T) of the linearized assignment flow at the barycenter, (2.20)-(2.24), of each image.

    It can be jitted, mapped and differentiated once, in reverse.

    Parameters
    ----------
    distances : (N, J, *grid) float array
        Of N images (y, x) or volumes (z, y, x) to J labels. Types narrower than float32 are
        computed in float32.
    logits : (N, K, *grid), optional
        The weight patch of a pixel is their softmax over its neighbors inside the image, (2.18).
        Uniform if None.
    neighborhood : str or K offsets
        As for `stencil.parse`: ``3x3``, ``rings:3,7``; what logits are in the order of.
    rho : float
        Scale of the distances.
    time : float
        T.
    tol, rank_tol : float
        Of the flow and its gradient, as of `Polynomials`.

    Returns
    -------
    (N, J, *grid), float32 or float64
        Tangent: each pixel's values sum to 0. They are logits of the assignment W(T): use
        ``jax.nn.softmax(z, 1)`` for probabilities, ``z.argmax(1)`` for labels from 0.

    Raises
    ------
    InputError
        If shapes do not fit each other, or a number is out of range.

    Examples
    --------
    >>> import jax
    >>> from jax import numpy as jnp
    >>> from tiledlaf.jax import assignment_flow
    >>> distances = jax.random.uniform(jax.random.key(0), (1, 3, 16, 20))  # to three labels
    >>> logits = jnp.zeros((1, 9, 16, 20))  # of 3x3 neighbors
    >>> loss = lambda d, x: (assignment_flow(d, x) ** 2).sum()
    >>> [g.shape for g in jax.grad(loss, (0, 1))(distances, logits)]
    [(1, 3, 16, 20), (1, 9, 16, 20)]
    """
    distances = jnp.asarray(distances)
    shape = distances.shape
    if len(shape) not in (4, 5) or 0 in shape or shape[1] < 2:
        raise InputError(
            "distances must have shape (N, J, y, x) or (N, J, z, y, x) with two labels or more, "
            f"got {shape}"
        )
    offsets = stencil.choose(neighborhood, len(shape) - 2)
    expected = (shape[0], len(offsets), *shape[2:])
    logits = jnp.zeros(expected, distances.dtype) if logits is None else jnp.asarray(logits)
    if logits.shape != expected:
        raise InputError(f"logits must have shape {expected}, got {logits.shape}")
    given = {"rho": rho, "time": time, "tol": tol, "rank_tol": rank_tol}
    numbers = tuple(as_number(name, value) for name, value in given.items())
    check_rho(numbers[0])
    check_time(numbers[1])
    dtype = jnp.result_type(distances, logits, jnp.float32)
    check_growth(Polynomials(Taylor(tol).tol, rank_tol=rank_tol), numbers[1], dtype)
    return _flow(distances.astype(dtype), logits.astype(dtype), offsets, numbers)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _flow(distances: Any, logits: Any, offsets: Offsets, numbers: Numbers) -> Any:
    return _called(functools.partial(_forward, offsets, numbers), (distances,), distances, logits)[
        0
    ]


def _kept(distances: Any, logits: Any, offsets: Offsets, numbers: Numbers) -> tuple[Any, Any]:
    return _flow(distances, logits, offsets, numbers), (distances, logits)


def _backward(offsets: Offsets, numbers: Numbers, kept: tuple[Any, Any], g: Any) -> Any:
    return _called(functools.partial(_pull, offsets, numbers), kept, *kept, g)


_flow.defvjp(_kept, _backward)


def _called(function: Single, like: Sequence[Any], *given: Any) -> Any:
    """What a function on the host gives of each image, in arrays like these."""

    def each(*arrays: Any) -> tuple[np.ndarray, ...]:
        found = [function(*map(np.ascontiguousarray, one)) for one in zip(*arrays, strict=True)]
        return tuple(np.stack(parts) for parts in zip(*found, strict=True))

    shapes = tuple(jax.ShapeDtypeStruct(one.shape, one.dtype) for one in like)
    return jax.pure_callback(each, shapes, *given, vmap_method="sequential")


def _weights(logits: np.ndarray, offsets: Offsets) -> np.ndarray:
    """Softmax over the neighbors inside the image, (K, *grid): 0 at the others."""
    inside = np.full_like(logits, -math.inf)
    for plane, own, offset in zip(inside, logits, offsets, strict=True):
        part = shifted(offset, plane.shape)[0]
        plane[part] = own[part]
    weights: np.ndarray = np.exp(inside - inside.max(axis=0))
    return weights / weights.sum(axis=0)


def _forward(
    offsets: Offsets, numbers: Numbers, distances: np.ndarray, logits: np.ndarray
) -> tuple[np.ndarray]:
    """Z(T) of an image."""
    rho, time, tol, _ = numbers
    weights = _weights(logits, offsets)
    return (solve(weights, distances, offsets, time=time, rho=rho, integrator=Taylor(tol)).z,)


def _pull(
    offsets: Offsets, numbers: Numbers, distances: np.ndarray, logits: np.ndarray, g: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Gradients in distances and in logits of an image."""
    rho, time, tol, rank_tol = numbers
    way = Polynomials(tol, rank_tol=rank_tol)
    flow = linearize(_weights(logits, offsets), distances, offsets, time=time, rho=rho, way=way)
    found = flow.gradient(g, inputs=True)
    assert found.potential is not None, "with inputs it is there"
    return np.divide(found.potential, -rho, dtype=distances.dtype), found.tangent
