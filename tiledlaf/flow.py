"""The linearized assignment flow in the form Z' = A Z + Pi_0 S, W(t) = softmax(log W0 + Z(t)).

A Z = R_S Omega Z and S = softmax(Omega (log W0 - D / rho)): equations (2.20)-(2.24) with
V = R_W0 Z. The integrators are small frozen values that all answer the same questions.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from .kernels import Graph, Neighborhood, select
from .kernels.numpy import Array
from .krylov import phi_action
from .simplex import project, replicator, softmax

# a_osc(S_i) <= 1/2 for every S, so it needs no look at the image (R_p halves osc at most)
CONTRACTION = 0.5
LONGEST = 1000.0  # T; bounds overflow soon after, labels have settled long before


@dataclass(frozen=True)
class Polynomial:
    """An integrator that is a polynomial in A with coefficients fixed before the run."""

    coefficients: tuple[float, ...]
    keep: bool
    scale: float

    @property
    def degree(self) -> int:
        """Applications of Omega, the one in S included."""
        return len(self.coefficients) + 1


def check_positive(**values: float) -> None:
    """Refuse what is not a positive number."""
    for name, value in values.items():
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name} must be a positive number, got {value}")


def check_time(time: float) -> None:
    """Refuse a T that cannot be integrated to."""
    check_positive(time=time)
    if time > LONGEST:
        raise ValueError(f"time must be at most {LONGEST:g}, got {time:g}")


@dataclass(frozen=True)
class Taylor:
    """Z_n = sum_(k=1..n) T^k / k! A^(k-1) S with n from `tol`.

    `tol` bounds sum_(k>n) (T a)^(k-1) / k!, a = 1/2: the error's osc relative to T osc(S).
    """

    tol: float = 1e-4

    def __post_init__(self) -> None:
        check_positive(tol=self.tol)

    def terms(self, time: float) -> int:
        """The degree n."""
        check_time(time)
        n = 1
        while self._tail(n, time) > self.tol:
            n += 1
        return n

    @staticmethod
    @functools.cache
    def _tail(n: int, time: float) -> float:
        """sum_(k>n) (T a)^(k-1) / k!."""
        x, total, k = time * CONTRACTION, 0.0, n + 1
        while True:
            term = math.exp((k - 1) * math.log(x) - math.lgamma(k + 1))
            total += term
            if k > x and term <= 1e-17 * total:
                return total
            k += 1

    def polynomial(self, time: float) -> Polynomial:
        """Horner's form."""
        n = self.terms(time)
        return Polynomial(tuple(time / k for k in range(n, 1, -1)), False, time)

    def reach(self, time: float) -> int:
        """Neighborhood radii that a label can depend on."""
        return self.terms(time)

    def bound(self, time: float) -> float:
        """Bound of osc(Z - Z_n) at every pixel, with osc(S) <= 1."""
        return time * self._tail(self.terms(time), time)


@dataclass(frozen=True)
class Euler:
    """Explicit Euler with equal steps (3.49), the baseline."""

    steps: int = 50

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be 1 or more, got {self.steps}")

    def polynomial(self, time: float) -> Polynomial:
        """Z = h U with U <- B + U + h A U."""
        check_time(time)
        h = time / self.steps
        return Polynomial((h,) * (self.steps - 1), True, h)

    def reach(self, time: float) -> int:
        """Neighborhood radii that a label can depend on."""
        return self.steps

    def bound(self, time: float) -> float:
        """Bound of osc(Z - Z_N): all coefficients of T phi(T A) exceed those of Euler's."""
        x = time * CONTRACTION
        return (math.expm1(x) - math.expm1(self.steps * math.log1p(x / self.steps))) / CONTRACTION


@dataclass(frozen=True)
class Krylov:
    """Projection onto a Krylov space (2.28). Global: tiles agree only to `tol`."""

    dim: int = 10
    tol: float = 1e-4

    def __post_init__(self) -> None:
        check_positive(tol=self.tol)
        if self.dim < 1:
            raise ValueError(f"dim must be 1 or more, got {self.dim}")

    def reach(self, time: float) -> int:
        """Radii beyond which a pixel's influence is under `tol`, as for `Taylor`."""
        return Taylor(self.tol).terms(time)


Integrator = Taylor | Krylov | Euler


@dataclass(frozen=True)
class Solution:
    """Z(T) and how it was found.

    Attributes
    ----------
    z : (J, *grid)
    matvecs : int
        Applications of A.
    error : float
        Taylor, Euler: bound of osc(Z - Z(T)) at every pixel, rounding aside. Krylov: estimate of
        the 2-norm of the error over the image.
    """

    z: Array
    matvecs: int
    error: float


def solve(
    weights: Array,
    distances: Array,
    offsets: Neighborhood,
    *,
    time: float = 5.0,
    rho: float = 1.0,
    w0: Array = None,
    integrator: Integrator | None = None,
    kernel: str | None = None,
) -> Solution:
    """Integrate the linearized flow to the time T.

    Parameters
    ----------
    weights : (K, *grid) float
        Rows on the simplex over the valid neighbors, zero outside (2.18).
    distances : (J, *grid) float
        Data term D (2.15).
    offsets : K offsets, or a Graph with weights (E,) and distances (J, n)
    time, rho : float
        T and the scale of D.
    w0 : (J, *grid), optional
        Point of linearization; the barycenter if None.
    integrator : Taylor, Krylov or Euler
    kernel : {"numpy", "numba", "cupy"}, optional
        By default the one for the arrays' own type.

    Returns
    -------
    Solution
    """
    check_positive(time=time, rho=rho)
    check_planes(weights, distances, offsets)
    integrator = integrator or Taylor()
    kernels = select(distances, kernel, offsets)
    q = potential(distances, rho, w0)
    if isinstance(integrator, Krylov):
        z, error, matvecs = project_krylov(kernels, weights, q, offsets, time, integrator.dim)
        return Solution(z, matvecs, error)
    p = integrator.polynomial(time)
    z = kernels.flow(weights, q, offsets, p.coefficients, p.keep, p.scale)
    return Solution(z, len(p.coefficients), integrator.bound(time))


def potential(distances: Array, rho: float, w0: Array | None = None) -> Array:
    """Q = log W0 - D / rho, without log W0 at the barycenter, (J, *grid)."""
    q = distances * distances.dtype.type(-1 / rho)
    if w0 is not None:
        q += np.log(w0)
    return q


def project_krylov(
    kernels: ModuleType, weights: Array, q: Array, offsets: Neighborhood, time: float, dim: int
) -> tuple[Array, float, int]:
    """Z(T), an error estimate and the number of matvecs from a Krylov space (2.28)."""
    s = kernels.similarity(weights, q, offsets)
    return phi_action(
        lambda x: replicator(s, kernels.average(weights, x, offsets)), project(s), time, dim
    )


def assignment(z: Array, w0: Array = None) -> Array:
    """W(T) = softmax(log W0 + Z(T)), (J, *grid)."""
    return softmax(z if w0 is None else np.log(w0) + z)


def check_planes(weights: Array, distances: Array, offsets: Neighborhood) -> None:
    """Refuse distances and weights that do not fit each other."""
    if len(distances) < 2:
        raise ValueError(f"distances need two classes or more, got shape {distances.shape}")
    if not isinstance(offsets, Graph):
        expected = (len(offsets), *distances.shape[1:])
    elif distances.shape[1:] == (offsets.nodes,):
        expected = (offsets.edges,)
    else:
        raise ValueError(
            f"distances must have shape (J, {offsets.nodes}) on this graph, got {distances.shape}"
        )
    if weights.shape != expected:
        raise ValueError(f"weights must have shape {expected}, got {weights.shape}")
