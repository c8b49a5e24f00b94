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
from typing import Any, Protocol

import numpy as np
import scipy.linalg

from .flow import CONTRACTION, Taylor, check_planes, potential
from .kernels import Neighborhood, select
from .kernels.numpy import Array, namespace, opposite, transpose, whole
from .krylov import Basis, arnoldi, combine, phi_core
from .simplex import project, replicator

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
    potential, source : (J, *grid) or None
        dL/dQ with Q = log W0 - D / rho, and dL/db of what is added to the source, up to a
        constant of each pixel; where they were asked for.
    vectors : r arrays u_r and r arrays z_r, each (J, *grid), or None
        Of `Spaces`: the leading singular vectors, G = sum_r sigma_r u_r (x) z_r.
    """

    tangent: Array
    singular_values: np.ndarray
    rank: int
    potential: Array | None = None
    source: Array | None = None
    vectors: tuple[list[Array], list[Array]] | None = None


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

        With `inputs` also that in what the flow is given, `potential` and `source`.
        """
        return self._pull(g, inputs)


class System(Protocol):
    """Z' = A Z + b: all that a way has to know."""

    @property
    def time(self) -> float:
        """T."""
        ...

    @property
    def source(self) -> Array:
        """b, an array of any shape."""
        ...

    def powers(self, tol: float) -> tuple[int, float]:
        """How many powers of A a tolerance asks for, as `Taylor.terms`, and how fast they grow."""
        ...

    def operator(self, x: Array) -> Array:
        """A x."""
        ...

    def adjoint(self, y: Array) -> Array:
        """A^T y."""
        ...


@dataclass(frozen=True)
class Factors:
    """G = sum of u_r (x) z_r, and lbar.

    Attributes
    ----------
    u, z : lists of r arrays like the source
    total : like the source
        lbar.
    singular_values : float64
    vectors : u_r and z_r before a singular value was put into u_r, or None
    """

    u: list[Array]
    z: list[Array]
    total: Array
    singular_values: np.ndarray
    vectors: tuple[list[Array], list[Array]] | None = None


@dataclass(frozen=True)
class Problem:
    """The flow at its weights, Z' = A Z + Pi_0 S + drive.

    Attributes
    ----------
    kernels : sibling
    weights, q, s : (K, *grid) and (J, *grid)
    drive : (J, *grid) or None
        Tangent: labels of a pixel sum to 0.
    """

    kernels: ModuleType
    weights: Array
    q: Array
    s: Array
    offsets: Neighborhood
    time: float
    drive: Array | None = None

    @property
    def driven(self) -> Array:
        """The source up to a constant of each pixel."""
        return self.s if self.drive is None else self.s + self.drive

    @property
    def source(self) -> Array:
        """Pi_0 S, and the drive."""
        return project(self.driven)

    def powers(self, tol: float) -> tuple[int, float]:
        """How many powers of A a tolerance asks for, and how fast they grow in osc."""
        return Taylor(tol).terms(self.time), min(CONTRACTION, float(self.s.max()))  # 1/2 of NaN

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
        Terms kept; None: as many as `rank_tol` asks for.
    rank_tol : float
        Singular values up to it, relative to the first, are cut. Of powers of A they are far larger
        than what their terms add to the gradient: 5e-4 leaves out some 1e-5 of it.
    """

    tol: float = 1e-4
    rank: int | None = None
    rank_tol: float = 5e-4

    def degree(self, time: float) -> int:
        """Powers of A, and neighborhood radii that Z(T) depends on."""
        return Taylor(self.tol).terms(time)

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
            return _gradient(problem, namespace(g).stack(p), others, source, sigma, total)

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


class _Factored:
    """Ways that know A by its products only."""

    def factor(self, system: System) -> tuple[Array, Callable[[Array], Factors]]:
        """Z(T), and what gives the factors of G."""
        raise NotImplementedError

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
        Of both spaces.
    rank : int or None
        Terms of the core kept, the largest; 1 is the paper's choice (3.45)-(3.47). None: those
        that `rank_tol` asks for; all with ``rank_tol=0``.
    """

    dim: int = 10
    rank: int | None = None
    rank_tol: float = 0.0

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
    return Linearization(*way.linearize(problem_at(weights, q, offsets, time, kernel, drive)))


def problem_at(
    weights: Array,
    q: Array,
    offsets: Neighborhood,
    time: float,
    kernel: str | None = None,
    drive: Array | None = None,
) -> Problem:
    """The linearized flow at its weights from q = log W0 - D / rho."""
    kernels = select(q, kernel, offsets)
    s = kernels.similarity(weights, q, offsets)
    return Problem(kernels, weights, q, s, offsets, time, drive)


def euclidean(tangent: Array, weights: Array) -> Array:
    """dL/dOmega up to a constant of each pixel, from R_Omega dL/dOmega, (K, *grid)."""
    xp = namespace(weights)
    return tangent / xp.where(weights > 0, weights, 1)


def _rank(sigma: np.ndarray, rank: int | None, tol: float) -> int:
    if rank is not None and rank < 1:
        raise ValueError(f"rank must be 1 or more, got {rank}")
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


def pulled(problem: Problem, factors: Factors, inputs: bool = False) -> Gradient:
    """The gradient from the factors of G; with `inputs` that in all that the flow is given."""
    xp, u, z = namespace(problem.s), factors.u, factors.z
    if not u:  # one of the two factors is 0
        u = z = [0 * factors.total]
    p = xp.stack([replicator(problem.s, x) for x in u])
    rest = xp.stack([x[:-1] - x[-1] for x in z])
    given = p, rest, replicator(problem.s, factors.total), factors.singular_values
    found = _gradient(problem, *given, factors.total if inputs else None)
    return replace(found, vectors=factors.vectors)


def _gradient(
    problem: Problem, p: Array, z: Array, source: Array, sigma: np.ndarray, lbar: Array | None
) -> Gradient:
    """The gradient from p_r = R_S u_r, z_r and R_S lbar; with lbar that in the inputs too.

    As the kernels' `products` take them: z_r less its last label's plane.
    """
    kernels, weights, s, offsets = problem.kernels, problem.weights, problem.s, problem.offsets
    tangent = kernels.products(weights, s, problem.q, p, z, source, offsets)
    if lbar is None:
        return Gradient(tangent, sigma, len(p))
    response = source.copy()  # R_S dL/dS, as in the kernel
    for a, b in zip(p, whole(z), strict=True):
        x = kernels.average(weights, b, offsets)
        response += a * (x - (s * x).sum(axis=0)) - s * (a * x).sum(axis=0)
    potential = kernels.adjoint(weights, response, offsets)
    return Gradient(tangent, sigma, len(p), potential, lbar)


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
