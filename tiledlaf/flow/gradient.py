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
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import scipy.linalg

from ..errors import InputError, settle_numbers
from ..kernels import Neighborhood
from ..kernels.arrays import Array, namespace
from ..kernels.numpy import opposite, transpose, whole
from . import problem
from .krylov import Basis, arnoldi, combine, phi_core
from .linear import CONTRACTION, Taylor, check_growth, check_planes, check_time, potential
from .problem import Factors, Gradient, Problem, System, local_products, pulled
from .simplex import project, replicator

GRID = 16  # a = 1/2 sup is rounded up to 1/GRID, so that few distinct cores are decomposed


@dataclass(frozen=True)
class Linearization:
    """A flow linearized at its weights.

    Attributes
    ----------
    z : (J, *grid), Z(T)
    """

    z: Array
    _pull: Callable[[Array, bool], Gradient]

    def gradient(self, g: Array, inputs: bool = False) -> Gradient:
        """The gradient in the weights of a loss with the gradient g in Z(T), (J, *grid).

        With `inputs`, also the gradient in the inputs of the flow, `potential` and `source`.
        """
        return self._pull(g, inputs)


class Way(Protocol):
    """A way to the gradient: linearizes the flow once, then answers for any gradient in Z."""

    def growth(self, time: float) -> float:
        """Bound on the log of its numbers, as `Integrator.growth`."""
        return Taylor().growth(time)

    def linearize(self, problem: Problem) -> tuple[Array, Callable[[Array, bool], Gradient]]:
        """Z(T), and what gives the gradient in the weights."""
        ...

    def factor(self, system: System) -> tuple[Array, Callable[[Array], Factors]]:
        """Z(T), and what gives the factors of G."""
        ...


@dataclass(frozen=True)
class Polynomials(Way):
    """Fixed coefficients: both factors expanded in powers of A (section 6, the fifth way).

    No inner products, no stored basis: the arithmetic does not depend on tiles.

    Attributes
    ----------
    tol : float
        Tolerance of the flow, as `Taylor.tol`.
    rank : int or None
        Terms kept; None: as many as `rank_tol` requires.
    rank_tol : float
        Singular values up to it, relative to the first, are cut. Of powers of A they are far larger
        than what their terms add to the gradient: 5e-4 leaves out some 1e-5 of it.

    Examples
    --------
    >>> import tiledlaf
    >>> tiledlaf.Polynomials(tol=1e-3).degree(1.0)
    4
    """

    tol: float = 1e-4
    rank: int | None = None
    rank_tol: float = 5e-4

    def __post_init__(self) -> None:
        settle_numbers(self)

    def degree(self, time: float) -> int:
        """Powers of A, and neighborhood radii that Z(T) depends on."""
        return Taylor(self.tol).terms(time)

    def terms(self, time: float) -> int:
        """Terms of the gradient where the flow grows as fast as it may."""
        return _rank(_core(self.degree(time), time, CONTRACTION)[1], self.rank, self.rank_tol)

    def growth(self, time: float) -> float:
        """The largest coefficient: T^k / k! <= e^T."""
        check_time(time)
        return time

    def linearize(self, problem: Problem) -> tuple[Array, Callable[[Array, bool], Gradient]]:
        """Z(T), and what gives the gradient."""
        forward, backward, sigma = self._tables(problem)
        given, offsets = (problem.weights, problem.s), problem.offsets
        z, others = problem.kernels.chain(*given, problem.driven, offsets, forward)

        def pull(g: Array, inputs: bool) -> Gradient:
            if not inputs:
                tangent = problem.kernels.pull(*given, problem.q, others, g, offsets, backward)
                return Gradient(tangent, sigma, len(backward) - 1)
            # lbar = sum of c_k (A^T)^k g is c_0 g + Omega^T sum of c_(k+1) y_k, y_k = R_S (A^T)^k g
            first = backward[0]
            table = np.vstack([backward, np.append(first[1:], 0)])
            turned = transpose(problem.weights, offsets)
            source, rest = problem.kernels.chain(
                turned, problem.s, replicator(problem.s, g), opposite(offsets), table
            )
            *p, last = (project(y) for y in whole(rest))  # what R_S gives sums to 0
            total = g.dtype.type(first[0]) * g
            total += problem.kernels.adjoint(problem.weights, last, offsets)
            return local_products(problem, namespace(g).stack(p), others, source, sigma, total)

        return z, pull

    def factor(self, system: System) -> tuple[Array, Callable[[Array], Factors]]:
        """Z(T), and what gives the factors of G."""
        forward, backward, sigma = self._tables(system)
        z, *right = _powers(system.operator, system.source, forward)

        def pull(g: Array) -> Factors:
            total, *left = _powers(system.adjoint, g, backward)
            return Factors(left, right, total, sigma)

        return z, pull

    def _tables(self, system: System) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Coefficients of the powers of A and of A^T, (1 + r, n), and the singular values.

        The first row is that of Z, or of lbar, whose coefficients are the same.
        """
        time, (degree, growth) = system.time, system.powers(self.tol)
        scale = math.ceil(growth * GRID) / GRID
        left, sigma, right = _core(degree, time, scale)
        rank = _rank(sigma, self.rank, self.rank_tol)
        powers = scale ** -np.arange(degree)
        orders = np.arange(1, degree + 1)
        first = np.exp(orders * math.log(time) - _log_factorial(orders))
        return (
            np.vstack([first, right[:, :rank].T * powers]),
            np.vstack([first, (left[:, :rank] * sigma[:rank]).T * powers]),
            sigma,
        )


class _Factored(Way, Protocol):
    """Ways that need only products with A."""

    def linearize(self, problem: Problem) -> tuple[Array, Callable[[Array, bool], Gradient]]:
        """Z(T), and what gives the gradient."""
        z, factors = self.factor(problem)

        def pull(g: Array, inputs: bool) -> Gradient:
            return pulled(problem, factors(g), inputs)

        return z, pull


@dataclass(frozen=True)
class Spaces(_Factored):
    """Two Krylov spaces, of (A, b) and of (A^T, g), with the core of Benzi and Simoncini (3.42).

    Attributes
    ----------
    dim : int
        Dimension of both spaces.
    rank : int or None
        Largest terms of the core kept; 1 is the paper's choice (3.45)-(3.47). None: as many as
        `rank_tol` requires; all with ``rank_tol=0``.
    """

    dim: int = 10
    rank: int | None = None
    rank_tol: float = 0.0

    def __post_init__(self) -> None:
        settle_numbers(self)

    def factor(self, system: System) -> tuple[Array, Callable[[Array], Factors]]:
        """Z(T), and what gives the factors of G."""
        forward = arnoldi(system.operator, system.source, self.dim)
        z = combine(phi_core(forward, system.time)[0], forward.vectors, system.source)

        def pull(g: Array) -> Factors:
            backward = arnoldi(system.adjoint, g, self.dim)
            core, lbar = _integral(backward, forward, system.time)
            left, sigma, right = np.linalg.svd(core)
            rank = _rank(sigma, self.rank, self.rank_tol)
            u = [combine(c, backward.vectors, g) for c in left[:, :rank].T]
            v = [combine(c, forward.vectors, g) for c in right[:rank]]
            scaled = [g.dtype.type(size) * x for size, x in zip(sigma[:rank], u, strict=True)]
            return Factors(scaled, v, combine(lbar, backward.vectors, g), sigma, (u, v))

        return z, pull


@dataclass(frozen=True)
class Kronecker(_Factored):
    """A Krylov space of the Kronecker sum -calA^T (+) calA; for tiny grids.

    Attributes
    ----------
    dim : int
    """

    dim: int = 20

    def __post_init__(self) -> None:
        settle_numbers(self)

    def factor(self, system: System) -> tuple[Array, Callable[[Array], Factors]]:
        """Z(T), and what gives the factors of G."""
        matrix = _bordered(system)

        def derivative(direction: np.ndarray) -> np.ndarray:
            # integral of exp((1-s) M) E exp(s M) ds = exp(M) phi(ad) E, ad X = X M - M X
            m = matrix.T
            basis = arnoldi(lambda x: x @ m - m @ x, direction, self.dim)
            core = phi_core(basis, 1.0)[0]
            found: np.ndarray = scipy.linalg.expm(m) @ combine(core, basis.vectors, direction)
            return found

        return _dense(system, matrix, derivative)


@dataclass(frozen=True)
class Dense(_Factored):
    """The exact gradient by the Frechet derivative of the dense exponential; for tiny grids."""

    def factor(self, system: System) -> tuple[Array, Callable[[Array], Factors]]:
        """Z(T), and what gives the factors of G."""
        matrix = _bordered(system)

        def derivative(direction: np.ndarray) -> np.ndarray:
            found: np.ndarray = scipy.linalg.expm_frechet(matrix.T, direction, compute_expm=False)
            return found

        return _dense(system, matrix, derivative)


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
    """Integrate the linearized flow and keep what gradients need.

    Parameters
    ----------
    weights, distances : (K, *grid), (J, *grid)
        Weights are zero where a neighbor is not valid.
    offsets : K offsets, or a Graph with weights (E,) and distances (J, n)
    time, rho, w0, kernel
        As for `solve`.
    way : Polynomials, Spaces, Kronecker or Dense, optional
        Polynomials() by default; ``Spaces(rank=1)`` is the paper's choice.

    Returns
    -------
    Linearization
        Z(T) as `z`, and `gradient`.

    Examples
    --------
    The gradient of a loss in the weights, and a step against it that lowers the loss:

    >>> import numpy as np
    >>> import tiledlaf
    >>> image = np.zeros((4, 6), np.float32)
    >>> image[:, 3:] = 1
    >>> distances, target = np.stack([image, 1 - image]), np.where(image > 0, 2, 1)
    >>> offsets = tiledlaf.stencil.box(3, 3)
    >>> weights = tiledlaf.stencil.uniform(offsets, image.shape)
    >>> loss = tiledlaf.losses.CrossEntropy()
    >>> flow = tiledlaf.linearize(weights, distances, offsets, kernel="numpy")
    >>> sums = loss.sums(flow.z, target)
    >>> gradient = flow.gradient(loss.gradient(flow.z, target, sums))
    >>> gradient.tangent.shape  # like the weights
    (9, 4, 6)
    >>> bool(abs(gradient.tangent.sum(axis=0)).max() < 1e-6)  # tangent to the simplex
    True
    >>> moved = tiledlaf.optimizers.Descent().move(weights, gradient.tangent, 1.0)
    >>> after = tiledlaf.linearize(moved, distances, offsets, kernel="numpy")
    >>> loss.value(loss.sums(after.z, target)) < loss.value(sums)
    True
    """
    check_planes(weights, distances, offsets)
    return linearize_at(weights, potential(distances, rho, w0), offsets, time, way, kernel)


def linearize_at(
    weights: Array,
    q: Array,
    offsets: Neighborhood,
    time: float,
    way: Way | None = None,
    kernel: str | None = None,
    drive: Array | None = None,
) -> Linearization:
    """`linearize` from q = log W0 - D / rho, with a `drive` added to the source."""
    way = way or Polynomials()
    check_growth(way, time, q.dtype)
    return Linearization(
        *way.linearize(problem.problem_at(weights, q, offsets, time, kernel, drive))
    )


def _rank(sigma: np.ndarray, rank: int | None, tol: float) -> int:
    if rank is not None and rank < 1:
        raise InputError(f"rank must be 1 or more, got {rank}")
    if rank is None:
        rank = max(1, int((sigma > tol * sigma.max(initial=0)).sum()))
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


def _powers(apply: Callable[[Array], Array], start: Array, table: np.ndarray) -> list[Array]:
    """Polynomials of an operator, several at once: sum over l of table[r, l] A^l start."""
    number, u = start.dtype.type, start
    out = [number(c) * u for c in table[:, 0]]
    for column in table.T[1:]:
        u = apply(u)
        for total, c in zip(out, column, strict=True):
            total += number(c) * u
    return out


def _bordered(system: System) -> np.ndarray:
    """[[T A, T b], [0, 0]] as a dense matrix, by applying A to unit vectors."""
    source = system.source
    size = source.size
    matrix = np.zeros((size + 1, size + 1))
    for column in range(size):
        unit = np.zeros(size, source.dtype)
        unit[column] = 1
        matrix[:size, column] = system.operator(unit.reshape(source.shape)).ravel()
    matrix[:size, size] = source.ravel()
    return system.time * matrix


def _dense(
    system: System, matrix: np.ndarray, derivative: Callable[[np.ndarray], np.ndarray]
) -> tuple[Array, Callable[[Array], Factors]]:
    shape, dtype = system.source.shape, system.source.dtype

    def pull(g: Array) -> Factors:
        direction = np.zeros_like(matrix)
        direction[:-1, -1] = g.ravel()
        found = system.time * derivative(direction)
        left, sigma, right = np.linalg.svd(found[:-1, :-1])
        rank = _rank(sigma, None, 1e-15)
        u = [x.reshape(shape).astype(dtype) for x in (left[:, :rank] * sigma[:rank]).T]
        v = [x.reshape(shape).astype(dtype) for x in right[:rank]]
        return Factors(u, v, found[:-1, -1].reshape(shape).astype(dtype), sigma)

    z = scipy.linalg.expm(matrix)[:-1, -1].reshape(shape).astype(dtype)
    return z, pull
