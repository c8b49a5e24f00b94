"""The linearized flow at its weights, and its gradient from the factors of G (Theorem 3.8)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import ModuleType
from typing import Protocol

import numpy as np

from ..kernels import Neighborhood, select
from ..kernels.arrays import Array, namespace
from ..kernels.numpy import whole
from .linear import CONTRACTION, Taylor
from .simplex import project, replicator


@dataclass(frozen=True)
class Gradient:
    """How a loss changes with the weights.

    Attributes
    ----------
    tangent : (K, *grid)
        R_Omega dL/dOmega, which is dL/dt for Omega = softmax(t).
    singular_values : (r,) float64
        All singular values of the core, before truncation to `rank`.
    rank : int
    potential, source : (J, *grid) or None
        dL/dQ with Q = log W0 - D / rho, and dL/db of what is added to the source, up to a
        constant of each pixel; None unless requested.
    vectors : r arrays u_r and r arrays z_r, each (J, *grid), or None
        From `Spaces`: the leading singular vectors, G = sum_r sigma_r u_r (x) z_r.
    """

    tangent: Array
    singular_values: np.ndarray
    rank: int
    potential: Array | None = None
    source: Array | None = None
    vectors: tuple[list[Array], list[Array]] | None = None


class System(Protocol):
    """Z' = A Z + b: all that a way to the gradient needs to know."""

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
    vectors : u_r and z_r before u_r was scaled by the singular value, or None
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
    kernels : kernel module
    weights, q, s : (K, *grid) and (J, *grid)
    drive : (J, *grid) or None
        Tangent: sums to 0 over the labels of each pixel.
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
        """The source, up to a constant of each pixel."""
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


def pulled(problem: Problem, factors: Factors, inputs: bool = False) -> Gradient:
    """The gradient from the factors of G; with `inputs` also that in its inputs."""
    xp, u, z = namespace(problem.s), factors.u, factors.z
    if not u:  # one of the two factors is 0
        u = z = [0 * factors.total]
    p = xp.stack([replicator(problem.s, x) for x in u])
    rest = xp.stack([x[:-1] - x[-1] for x in z])
    given = p, rest, replicator(problem.s, factors.total), factors.singular_values
    found = local_products(problem, *given, factors.total if inputs else None)
    return replace(found, vectors=factors.vectors)


def local_products(
    problem: Problem, p: Array, z: Array, source: Array, sigma: np.ndarray, lbar: Array | None
) -> Gradient:
    """The gradient from p_r = R_S u_r, z_r and R_S lbar; with lbar that in the inputs too.

    As `products` of the kernels takes them: z_r minus its plane of the last label.
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
