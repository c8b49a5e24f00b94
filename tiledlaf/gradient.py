"""dL/dOmega of the linearized flow in closed form (Theorem 3.8), in five ways with one interface.

A way linearizes the flow once (`linearize`: Z(T)), and then gives the gradient in the weights for
any gradient in Z. All of them boil down to terms u_r (x) z_r of
G = integral of exp((T-s) A^T) g (x) Z(s) ds, and to lbar = integral of exp((T-s) A^T) g ds, which
one pass of local products turns into the gradient, through A and through S.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np
import scipy.linalg

from .flow import CONTRACTION, Taylor, check_planes, potential
from .kernels import Neighborhood, select
from .kernels.numpy import Array, namespace
from .krylov import Basis, arnoldi, combine, phi_core
from .simplex import project, replicator

# the rank that a tolerance asks for, and one more: singular values are a guide, not a bound
EXTRA = 1
GRID = 16  # a = 1/2 sup is rounded up to 1/GRID, so that few small matrices are decomposed


@dataclass(frozen=True)
class Gradient:
    """How a loss changes with the weights.

    Attributes
    ----------
    tangent : (K, *grid)
        R_Omega dL/dOmega, which is dL/dt for Omega = softmax(t).
    singular_values : (r,) float64
        Of the core, all of them before it was cut to its rank.
    rank : int
    vectors : r arrays u_r and r arrays z_r, each (J, *grid), or None
        Of `Spaces`: the leading singular vectors, G = sum_r sigma_r u_r (x) z_r.
    """

    tangent: Array
    singular_values: np.ndarray
    rank: int
    vectors: tuple[list[Array], list[Array]] | None = None


@dataclass(frozen=True)
class Linearization:
    """A flow linearized at its weights.

    Attributes
    ----------
    z : (J, *grid), Z(T)
    """

    z: Array
    _pull: Callable[[Array], Gradient]

    def gradient(self, g: Array) -> Gradient:
        """The gradient in the weights of a loss with the gradient g in Z(T), (J, *grid)."""
        return self._pull(g)


@dataclass(frozen=True)
class Problem:
    """What every way is given: the flow at its weights.

    Attributes
    ----------
    kernels : sibling
    weights, q, s : (K, *grid) and (J, *grid)
    """

    kernels: ModuleType
    weights: Array
    q: Array
    s: Array
    offsets: Neighborhood
    time: float

    @property
    def source(self) -> Array:
        """Pi_0 S."""
        return project(self.s)

    def operator(self, x: Array) -> Array:
        """A x = R_S Omega x."""
        return replicator(self.s, self.kernels.average(self.weights, x, self.offsets))

    def adjoint(self, y: Array) -> Array:
        """A^T y = Omega^T R_S y."""
        return self.kernels.adjoint(self.weights, replicator(self.s, y), self.offsets)


@dataclass(frozen=True)
class Polynomials:
    """Fixed coefficients: both factors expanded in powers of A (section 6, the fifth way).

    No inner products, no stored basis: the arithmetic does not depend on tiles.

    Attributes
    ----------
    tol : float
        Of the flow, as `Taylor.tol`.
    rank : int or None
        Terms kept; None: as many as `rank_tol` asks for, and one more.
    rank_tol : float
        Smallest singular value to keep, relative to the first.
    """

    tol: float = 1e-4
    rank: int | None = None
    rank_tol: float = 1e-3

    def degree(self, time: float) -> int:
        """Powers of A, and neighborhood radii that Z(T) depends on."""
        return Taylor(self.tol).terms(time)

    def linearize(self, problem: Problem) -> tuple[Array, Callable[[Array], Gradient]]:
        """Z(T), and what gives the gradient."""
        degree = self.degree(problem.time)
        largest = min(CONTRACTION, float(problem.s.max()))  # CONTRACTION of NaN
        contraction = math.ceil(largest * GRID) / GRID
        left, sigma, right = _core(degree, problem.time, contraction)
        rank = _rank(sigma, self.rank, self.rank_tol)
        powers = contraction ** -np.arange(degree)
        # first row: Z, or lbar, whose coefficients are the same
        orders = np.arange(1, degree + 1)
        first = np.exp(orders * math.log(problem.time) - _log_factorial(orders))
        table = np.vstack([first, right[:, :rank].T * powers])
        given = (problem.weights, problem.s)
        totals = problem.kernels.chain(*given, problem.s, problem.offsets, table)

        def pull(g: Array) -> Gradient:
            table = np.vstack([first, (left[:, :rank] * sigma[:rank]).T * powers])
            tangent = problem.kernels.pull(*given, problem.q, totals[1:], g, problem.offsets, table)
            return Gradient(tangent, sigma, rank)

        return totals[0], pull


@dataclass(frozen=True)
class Spaces:
    """Two Krylov spaces, of (A, b) and of (A^T, g), with the core of Benzi and Simoncini (3.42).

    Attributes
    ----------
    dim : int
        Of both spaces.
    rank : int or None
        Terms of the core kept, the largest; 1 is the paper's choice (3.45)-(3.47). None: those
        that `rank_tol` asks for, and one more; all with ``rank_tol=0``.
    """

    dim: int = 10
    rank: int | None = None
    rank_tol: float = 0.0

    def linearize(self, problem: Problem) -> tuple[Array, Callable[[Array], Gradient]]:
        """Z(T), and what gives the gradient."""
        forward = arnoldi(problem.operator, problem.source, self.dim)
        z = combine(phi_core(forward, problem.time)[0], forward.vectors, problem.source)

        def pull(g: Array) -> Gradient:
            backward = arnoldi(problem.adjoint, g, self.dim)
            core, lbar = _integral(backward, forward, problem.time)
            left, sigma, right = np.linalg.svd(core)
            rank = _rank(sigma, self.rank, self.rank_tol)
            u = [combine(c, backward.vectors, g) for c in left[:, :rank].T]
            v = [combine(c, forward.vectors, g) for c in right[:rank]]
            scaled = [g.dtype.type(size) * x for size, x in zip(sigma[:rank], u, strict=True)]
            found = _tangent(problem, scaled, v, combine(lbar, backward.vectors, g), sigma)
            return replace(found, vectors=(u, v))

        return z, pull


@dataclass(frozen=True)
class Kronecker:
    """A Krylov space of the Kronecker sum -calA^T (+) calA; for tiny grids.

    Attributes
    ----------
    dim : int
    """

    dim: int = 20

    def linearize(self, problem: Problem) -> tuple[Array, Callable[[Array], Gradient]]:
        """Z(T), and what gives the gradient."""
        matrix = _bordered(problem)

        def derivative(direction: np.ndarray) -> np.ndarray:
            # integral of exp((1-s) M) E exp(s M) ds = exp(M) phi(ad) E, ad X = X M - M X
            m = matrix.T
            basis = arnoldi(lambda x: x @ m - m @ x, direction, self.dim)
            core = phi_core(basis, 1.0)[0]
            found: np.ndarray = scipy.linalg.expm(m) @ combine(core, basis.vectors, direction)
            return found

        return _dense(problem, matrix, derivative)


@dataclass(frozen=True)
class Dense:
    """The exact gradient by the Frechet derivative of the dense exponential; for tiny grids."""

    def linearize(self, problem: Problem) -> tuple[Array, Callable[[Array], Gradient]]:
        """Z(T), and what gives the gradient."""
        matrix = _bordered(problem)

        def derivative(direction: np.ndarray) -> np.ndarray:
            found: np.ndarray = scipy.linalg.expm_frechet(matrix.T, direction, compute_expm=False)
            return found

        return _dense(problem, matrix, derivative)


Way = Polynomials | Spaces | Kronecker | Dense


def linearize(
    weights: Array,
    distances: Array,
    offsets: Neighborhood,
    *,
    time: float = 5.0,
    rho: float = 1.0,
    w0: Array | None = None,
    way: Way | None = None,
    kernel: str | None = None,
) -> Linearization:
    """Integrate the flow, ready for gradients.

    Parameters
    ----------
    weights, distances : (K, *grid), (J, *grid)
        Weights are zero where a neighbor is not valid.
    offsets : K offsets, or a Graph with weights (E,) and distances (J, n)
    time, rho, w0
        As for `solve`.
    way : Polynomials, Spaces, Kronecker or Dense
        Polynomials() by default; ``Spaces(rank=1)`` is the paper's.

    Returns
    -------
    Linearization
    """
    check_planes(weights, distances, offsets)
    return linearize_at(weights, potential(distances, rho, w0), offsets, time, way, kernel)


def linearize_at(
    weights: Array, q: Array, offsets: Neighborhood, time: float, way: Way | None = None,
    kernel: str | None = None,
) -> Linearization:  # fmt: skip
    """`linearize` from q = log W0 - D / rho."""
    kernels = select(q, kernel, offsets)
    s = kernels.similarity(weights, q, offsets)
    return Linearization(
        *(way or Polynomials()).linearize(Problem(kernels, weights, q, s, offsets, time))
    )


def euclidean(tangent: Array, weights: Array) -> Array:
    """dL/dOmega up to a constant of each pixel, from R_Omega dL/dOmega, (K, *grid)."""
    xp = namespace(weights)
    return tangent / xp.where(weights > 0, weights, 1)


def _rank(sigma: np.ndarray, rank: int | None, tol: float) -> int:
    if rank is not None and rank < 1:
        raise ValueError(f"rank must be 1 or more, got {rank}")
    if rank is None:
        rank = int((sigma > tol * sigma.max(initial=0)).sum()) + EXTRA
    return min(rank, len(sigma))


def _log_factorial(k: Any) -> Any:
    return np.array([math.lgamma(x + 1) for x in np.ravel(k)]).reshape(np.shape(k))


@functools.lru_cache(maxsize=64)
def _core(degree: int, time: float, a: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """SVD of a^(k+l) T^(k+l+2) / (k+l+2)!, a Beta integral, k and l < degree."""
    order = np.add.outer(np.arange(degree), np.arange(degree))
    core = np.exp(order * math.log(a) + (order + 2) * math.log(time) - _log_factorial(order + 2))
    left, sigma, right = np.linalg.svd(core)
    return left, sigma, right.T


def _integral(backward: Basis, forward: Basis, time: float) -> tuple[np.ndarray, np.ndarray]:
    """C = integral of c_lambda(s) c_Z(s)^T ds, and the coefficients of lbar."""
    mp, mq = len(backward.vectors), len(forward.vectors)
    inner = np.zeros((mq + 1, mq + 1))
    inner[:mq, :mq] = forward.hessenberg[:mq]
    inner[0, mq] = forward.norm
    outer = np.zeros((mp + mq + 1, mp + mq + 1))
    outer[:mp, :mp] = backward.hessenberg[:mp]
    outer[0, mp + mq] = backward.norm
    outer[mp:, mp:] = inner.T
    found = scipy.linalg.expm(time * outer)
    return found[:mp, mp : mp + mq], found[:mp, mp + mq]


def _tangent(
    problem: Problem, u: list[Array], z: list[Array], lbar: Array, sigma: np.ndarray
) -> Gradient:
    xp = namespace(problem.s)
    if not u:  # one of the two factors is 0
        u = z = [0 * lbar]
    p = xp.stack([replicator(problem.s, x) for x in u])
    tangent = problem.kernels.products(
        problem.weights, problem.s, problem.q, p, xp.stack(z), replicator(problem.s, lbar),
        problem.offsets,
    )  # fmt: skip
    return Gradient(tangent, sigma, len(p))


def _bordered(problem: Problem) -> np.ndarray:
    """[[T A, T b], [0, 0]] as a dense matrix, by applying A to unit vectors."""
    size, shape = problem.s.size, problem.s.shape
    matrix = np.zeros((size + 1, size + 1))
    for column in range(size):
        unit = np.zeros(size, problem.s.dtype)
        unit[column] = 1
        matrix[:size, column] = problem.operator(unit.reshape(shape)).ravel()
    matrix[:size, size] = problem.source.ravel()
    return problem.time * matrix


def _dense(
    problem: Problem, matrix: np.ndarray, derivative: Callable[[np.ndarray], np.ndarray]
) -> tuple[Array, Callable[[Array], Gradient]]:
    shape, dtype = problem.s.shape, problem.s.dtype

    def pull(g: Array) -> Gradient:
        direction = np.zeros_like(matrix)
        direction[:-1, -1] = g.ravel()
        found = problem.time * derivative(direction)
        left, sigma, right = np.linalg.svd(found[:-1, :-1])
        rank = _rank(sigma, None, 1e-15)
        u = [x.reshape(shape).astype(dtype) for x in (left[:, :rank] * sigma[:rank]).T]
        v = [x.reshape(shape).astype(dtype) for x in right[:rank]]
        return _tangent(problem, u, v, found[:-1, -1].reshape(shape).astype(dtype), sigma)

    z = scipy.linalg.expm(matrix)[:-1, -1].reshape(shape).astype(dtype)
    return z, pull
