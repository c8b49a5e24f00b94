"""The linearized assignment flow in the form Z' = A Z + Pi_0 S, W(t) = softmax(log W0 + Z(t)).

A Z = R_S Omega Z and S = softmax(Omega (log W0 - D / rho)): equations (2.20)-(2.24) with
V = R_W0 Z. The integrators are small frozen values with one interface, which those of the
`nonlinear` flow share.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar, Protocol

import numpy as np

from ..errors import InputError, as_number, at_least, settle_numbers
from ..kernels import Graph, Neighborhood, select
from ..kernels.arrays import Array
from .krylov import norm_of, phi_action
from .simplex import project, replicator, softmax

# a_osc(S_i) <= 1/2 for every S (R_p at least halves osc), so it does not depend on the image
CONTRACTION = 0.5
SHORTEST = 1e-100  # T
LONGEST = 1000.0  # T; bounds overflow soon beyond it, and labels settle long before
STIFFEST = 600.0  # T a, so that e^(T a) does not overflow
# largest log of Z, and of what it is computed from, with some room below the type's largest number
HIGHEST = {"float32": 85.0, "float64": 700.0}
STRIDE = 2.0  # time that a Krylov space covers, for each of its dimensions
LOOSEST = 0.02  # relative error of a Krylov space that is no longer taken for a result
RHO = (1e-100, 1e9)  # beyond, D / rho overflows in float64, or vanishes beside the 1/J of S


@dataclass(frozen=True)
class Solution:
    """Z(T), its cost and its error.

    Attributes
    ----------
    z : (J, *grid)
    matvecs : int
        Applications of A; evaluations of S in the nonlinear flow.
    error : float or None
        Taylor, Euler: bound on osc(Z - Z(T)) at every pixel, apart from rounding. Krylov: estimate
        of the 2-norm of the error over the image. None where nothing is known.
    """

    z: Array
    matvecs: int
    error: float | None


class Integrator(Protocol):
    """How Z(T) is computed: a small frozen dataclass whose fields are its settings.

    An integrator must define `reach` and `run`; the rest have defaults.

    Attributes
    ----------
    whole_tile : whether a tile must be computed in one piece, since all of its pixels interact
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    whole_tile: ClassVar[bool] = False

    @property
    def planes(self) -> int:
        """Number of arrays like Z that are held at once, besides the data."""
        return 2

    @property
    def layers(self) -> int:
        """Number of flows that may have their own weights; 0 if one set serves the whole flow."""
        return 0

    @property
    def note(self) -> str:
        """What explains the number of its steps to a reader."""
        return ""

    def reach(self, time: float) -> int:
        """Neighborhood radii that a label can depend on."""
        ...

    def bound(self, time: float) -> float | None:
        """Bound on osc(Z - Z(T)) at every pixel; None if there is none."""
        return None

    def growth(self, time: float) -> float:
        """Bound on log |Z|, also of its iterates; by default |Z| <= T e^(T a)."""
        return math.log(time) + time * CONTRACTION

    def run(
        self,
        kernels: ModuleType,
        weights: Array,
        q: Array,
        offsets: Neighborhood,
        time: float,
        log_w0: Array | None = None,
    ) -> Solution:
        """Z(T) with q = log W0 - D / rho; `log_w0` is for integrators that need W."""
        ...

    def classify(
        self,
        kernels: ModuleType,
        weights: Array,
        q: Array,
        offsets: Neighborhood,
        time: float,
        base: Array | None = None,
    ) -> tuple[Array, Array, Array]:
        """Labels, confidence and gap of base + Z(T), as from `decide` of the kernels."""
        z = self.run(kernels, weights, q, offsets, time).z
        found: tuple[Array, Array, Array] = kernels.decide(z if base is None else base + z)
        return found


@dataclass(frozen=True)
class Polynomial:
    """An integrator that is a polynomial in A with coefficients fixed before the run."""

    coefficients: tuple[float, ...]
    keep: bool
    scale: float


def check_positive(**values: float) -> None:
    """Refuse values that are not positive numbers."""
    for name, value in values.items():
        if not 0 < as_number(name, value) < math.inf:
            raise InputError(f"{name} must be a positive number, got {value}")


def check_time(time: float) -> None:
    """Refuse a T that is out of range."""
    check_positive(time=time)
    if time > LONGEST:
        raise InputError(f"time must be at most {LONGEST:g}, got {time:g}")
    if time < SHORTEST:
        raise InputError(f"time must be at least {SHORTEST:g}, got {time:g}")


def check_rho(rho: float) -> None:
    """Refuse a scale of the distances that is out of range."""
    check_positive(rho=rho)
    low, high = RHO
    if not low <= rho <= high:
        raise InputError(f"rho must be {low:g} to {high:g}, got {rho:g}")


class Growing(Protocol):
    """What computes Z: an integrator, or a way to the gradient."""

    def growth(self, time: float) -> float:
        """Bound on the log of its numbers."""
        ...


def check_growth(way: Growing, time: float, dtype: Any) -> None:
    """Refuse a T for which numbers may overflow in arrays of this type.

    Raises
    ------
    ValueError
        With how large they may get.
    """
    check_time(time)
    name, found = np.dtype(dtype).name, way.growth(time)
    most = HIGHEST.get(name, math.inf)  # the kernels refuse other types
    if found > most:
        raise InputError(
            f"time {time:g} is too long for {name}: numbers may grow to e^{found:.0f}, and "
            f"e^{most:g} is the most"
        )


class Fixed(Integrator, Protocol):
    """Integrators with coefficients fixed before the run, which one kernel call computes."""

    @property
    def planes(self) -> int:
        """Zero: the kernel holds only a few rows of each step."""
        return 0

    @property
    def note(self) -> str:
        """Which of the averages belongs to S."""
        return ", the first for S"

    def polynomial(self, time: float) -> Polynomial:
        """The polynomial that the kernel computes."""
        ...

    def bound(self, time: float) -> float:
        """Bound on osc(Z - Z(T)) at every pixel, with osc(S) <= 1."""
        ...

    def run(
        self,
        kernels: ModuleType,
        weights: Array,
        q: Array,
        offsets: Neighborhood,
        time: float,
        log_w0: Array | None = None,
    ) -> Solution:
        """Z(T)."""
        p = self.polynomial(time)
        z = kernels.flow(weights, q, offsets, p.coefficients, p.keep, p.scale)
        return Solution(z, len(p.coefficients), self.bound(time))

    def classify(
        self,
        kernels: ModuleType,
        weights: Array,
        q: Array,
        offsets: Neighborhood,
        time: float,
        base: Array | None = None,
    ) -> tuple[Array, Array, Array]:
        """Labels, confidence and gap in one call, without storing Z."""
        p = self.polynomial(time)
        found: tuple[Array, Array, Array] = kernels.classify(
            weights, q, offsets, p.coefficients, p.keep, p.scale, base
        )
        return found


def check_steps(steps: int) -> None:
    """Refuse fewer than one step."""
    at_least(1, steps=steps)


@dataclass(frozen=True)
class Taylor(Fixed):
    """The Taylor polynomial Z_n = sum_(k=1..n) T^k / k! A^(k-1) S, with the degree n from `tol`.

    Attributes
    ----------
    tol : float
        Bounds sum_(k>n) (T a)^(k-1) / k! with a = 1/2: the osc of the error relative to
        T osc(S).

    Examples
    --------
    A longer time or a smaller tolerance takes more terms, and with each term a label depends on
    pixels one neighborhood radius farther away:

    >>> import tiledlaf
    >>> tiledlaf.Taylor(tol=1e-4).terms(5.0), tiledlaf.Taylor(tol=1e-4).terms(10.0)
    (11, 18)
    >>> tiledlaf.Taylor(tol=1e-2).terms(5.0)
    8

    The error is bounded before anything is computed:

    >>> round(tiledlaf.Taylor(tol=1e-4).bound(5.0), 5)
    0.00031
    """

    tol: float = 1e-4

    def __post_init__(self) -> None:
        settle_numbers(self)
        check_positive(tol=self.tol)

    def terms(self, time: float, contraction: float = CONTRACTION) -> int:
        """The degree n; `contraction` is a."""
        check_time(time)
        if time * contraction > STIFFEST:
            raise InputError(
                f"time {time:g} is too long for an operator of norm {contraction:g}: expected a "
                f"product of at most {STIFFEST:g}"
            )
        n = 1
        while self._tail(n, time * contraction) > self.tol:
            n += 1
        return n

    @staticmethod
    @functools.cache
    def _tail(n: int, x: float) -> float:
        """sum_(k>n) x^(k-1) / k! with x = T a."""
        total, k = 0.0, n + 1
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
        """Bound on osc(Z - Z_n) at every pixel, with osc(S) <= 1."""
        return time * self._tail(self.terms(time), time * CONTRACTION)


@dataclass(frozen=True)
class Euler(Fixed):
    """Explicit Euler method with equal steps (3.49), the baseline."""

    steps: int = 50

    def __post_init__(self) -> None:
        settle_numbers(self)
        check_steps(self.steps)

    def polynomial(self, time: float) -> Polynomial:
        """Z = h U with U <- B + U + h A U."""
        check_time(time)
        h = time / self.steps
        return Polynomial((h,) * (self.steps - 1), True, h)

    def growth(self, time: float) -> float:
        """Bound on log |Z|, also of its iterates: (1 + h a)^N and h."""
        h = time / self.steps
        return self.steps * math.log1p(h * CONTRACTION) + max(math.log(h), 0.0) + math.log(2)

    def reach(self, time: float) -> int:
        """Neighborhood radii that a label can depend on."""
        return self.steps

    def bound(self, time: float) -> float:
        """Bound on osc(Z - Z_N): each coefficient of T phi(T A) is at least that of Euler."""
        x = time * CONTRACTION
        return (math.expm1(x) - math.expm1(self.steps * math.log1p(x / self.steps))) / CONTRACTION


@dataclass(frozen=True)
class Krylov(Integrator):
    """Projection onto a Krylov space (2.28). It is global: tiles agree only up to `tol`."""

    whole_tile = True

    dim: int = 10
    tol: float = 1e-4

    def __post_init__(self) -> None:
        settle_numbers(self)
        check_positive(tol=self.tol)
        if self.dim < 1:
            raise InputError(f"dim must be 1 or more, got {self.dim}")

    def reach(self, time: float) -> int:
        """Neighborhood radii beyond which influence is below `tol`, as for `Taylor`."""
        return Taylor(self.tol).terms(time)

    @property
    def planes(self) -> int:
        """Number of arrays like Z that are held at once: the basis and the work arrays."""
        return self.dim + 8

    @property
    def note(self) -> str:
        """Which of the averages belongs to S, and the dimension."""
        return f", the first for S; Krylov dimension {self.dim}"

    def run(
        self,
        kernels: ModuleType,
        weights: Array,
        q: Array,
        offsets: Neighborhood,
        time: float,
        log_w0: Array | None = None,
    ) -> Solution:
        """Z(T)."""
        s = kernels.similarity(weights, q, offsets)
        source = project(s)

        def operator(x: Array) -> Array:
            return replicator(s, kernels.average(weights, x, offsets))

        # Z(t + h) = Z(t) + h phi(h A) (A Z(t) + B): a space reaches only so far
        count = math.ceil(time / (STRIDE * self.dim))
        z, error, matvecs = phi_action(operator, source, time / count, self.dim)
        for _ in range(count - 1):
            more, further, products = phi_action(
                operator, operator(z) + source, time / count, self.dim
            )
            z += more
            error, matvecs = error + further, matvecs + products + 1
        size = norm_of(z)
        if error > LOOSEST * size:
            raise InputError(
                f"expected a Krylov dimension that suffices for the time {time:g}, got {self.dim}: "
                f"the error is about {100 * error / size:.2g} % (`dim`, or another `integrator`)"
            )
        return Solution(z, matvecs, error)


@dataclass(frozen=True)
class LinearizedSequence(Integrator):
    """A flow relinearized at the current W in each of `steps` steps of T / steps (1.5)-(1.6).

    Each step may have its own weights, (steps, K, *grid), or all share one set.

    Attributes
    ----------
    steps : int
    tol : float
        Tolerance of each linearized flow, as `Taylor.tol`.
    """

    steps: int = 4
    tol: float = 1e-4

    def __post_init__(self) -> None:
        settle_numbers(self)
        check_positive(tol=self.tol)
        check_steps(self.steps)

    @property
    def planes(self) -> int:
        """Number of arrays like Z that are held at once."""
        return 3

    @property
    def layers(self) -> int:
        """One for each step."""
        return self.steps

    def reach(self, time: float) -> int:
        """Neighborhood radii that a label can depend on, summed over the steps."""
        check_time(time)
        return self.steps * Taylor(self.tol).terms(time / self.steps)

    def growth(self, time: float) -> float:
        """Bound on log |Z|: that of one flow, for each step."""
        return math.log(time) + time / self.steps * CONTRACTION

    def run(
        self,
        kernels: ModuleType,
        weights: Array,
        q: Array,
        offsets: Neighborhood,
        time: float,
        log_w0: Array | None = None,
    ) -> Solution:
        """Z(T), the sum over all steps."""
        check_time(time)
        inner, each = Taylor(self.tol), time / self.steps
        if weights.ndim == (1 if isinstance(offsets, Graph) else q.ndim):
            weights = (weights,) * self.steps
        z = inner.run(kernels, weights[0], q, offsets, each).z
        for omega in weights[1:]:
            z += inner.run(kernels, omega, q + z, offsets, each).z
        return Solution(z, self.steps * (inner.terms(each) - 1), None)


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
    """Integrate an assignment flow to the time T, linearized unless the integrator says otherwise.

    Parameters
    ----------
    weights : (K, *grid) float
        The K weights of each pixel lie on the simplex over its valid neighbors and are zero
        elsewhere (2.18). `LinearizedSequence` also takes weights for each step,
        (steps, K, *grid).
    distances : (J, *grid) float
        Data term D (2.15).
    offsets : K offsets, or a Graph with weights (E,) and distances (J, n)
    time, rho : float
        T and the scale of D.
    w0 : (J, *grid), optional
        Point of linearization; the barycenter if None.
    integrator : Integrator, optional
        Taylor() by default; Krylov, Euler or LinearizedSequence, or for the nonlinear flow
        GeometricEuler, RKMK4 or AdaptiveRKMK.
    kernel : {"numpy", "numba", "cupy"}, optional
        By default the one for the type of the arrays.

    Returns
    -------
    Solution
        Z(T), the number of matrix-vector products and the error; see `assignment` and `rounding`.

    Raises
    ------
    ValueError
        If shapes do not fit each other, or `time` or `rho` is out of range.

    Examples
    --------
    Two noisy pixels, one on either side of an edge, are smoothed away:

    >>> import numpy as np
    >>> import tiledlaf
    >>> image = np.zeros((4, 6), np.float32)
    >>> image[:, 3:] = 1
    >>> image[1, 1], image[2, 4] = 1, 0
    >>> distances = np.stack([image, 1 - image])  # to 0 and to 1
    >>> offsets = tiledlaf.stencil.box(3, 3)
    >>> weights = tiledlaf.stencil.uniform(offsets, image.shape)
    >>> found = tiledlaf.solve(weights, distances, offsets, kernel="numpy")
    >>> found.z.shape, found.matvecs, round(found.error, 5)
    ((2, 4, 6), 10, 0.00031)
    >>> found.z.argmax(axis=0)
    array([[0, 0, 0, 1, 1, 1],
           [0, 0, 0, 1, 1, 1],
           [0, 0, 0, 1, 1, 1],
           [0, 0, 0, 1, 1, 1]])
    """
    check_positive(rho=rho)
    integrator = integrator or Taylor()
    check_planes(weights, distances, offsets, integrator.layers)
    check_growth(integrator, time, distances.dtype)
    q = potential(distances, rho, w0)
    log_w0 = None if w0 is None else np.log(w0)
    found = integrator.run(select(distances, kernel, offsets), weights, q, offsets, time, log_w0)
    check_finite(found.z, time)
    return found


def check_finite(z: Array, time: float) -> None:
    """Refuse a Z with numbers that are not finite, as of weights and distances that are not."""
    if -math.inf < float(z.min()) and float(z.max()) < math.inf:  # not if one is NaN
        return
    raise InputError(
        f"expected finite weights and distances, and numbers of {z.dtype} for the time {time:g}, "
        "got a flow with NaN or inf"
    )


def potential(distances: Array, rho: float, w0: Array | None = None) -> Array:
    """Q = log W0 - D / rho, (J, *grid); log W0 is left out at the barycenter."""
    q = distances * distances.dtype.type(-1 / rho)
    if w0 is not None:
        q += np.log(w0)
    return q


def assignment(z: Array, w0: Array = None) -> Array:
    """W(T) = softmax(log W0 + Z(T)).

    Parameters
    ----------
    z : (J, *grid) float
    w0 : (J, *grid), optional
        Point of linearization; the barycenter if None.

    Returns
    -------
    (J, *grid)
        Positive, and each pixel's values sum to 1.

    Examples
    --------
    Three pixels and two labels: a larger difference in Z is a clearer assignment.

    >>> import numpy as np
    >>> import tiledlaf
    >>> z = np.array([[0.0, 1.0, 4.0], [0.0, -1.0, -4.0]])
    >>> tiledlaf.assignment(z).round(3)
    array([[0.5  , 0.881, 1.   ],
           [0.5  , 0.119, 0.   ]])

    With the W0 at which the flow was linearized:

    >>> w0 = np.array([[0.2, 0.2, 0.2], [0.8, 0.8, 0.8]])
    >>> tiledlaf.assignment(z, w0).round(3)
    array([[0.2  , 0.649, 0.999],
           [0.8  , 0.351, 0.001]])
    """
    return softmax(z if w0 is None else np.log(w0) + z)


def rounding(z: Array, w0: Array = None) -> Array:
    """Labels: the vertex of the simplex nearest to W(T), the first one in a tie.

    Parameters
    ----------
    z : (J, *grid) float
    w0 : (J, *grid), optional
        Point of linearization; the barycenter if None.

    Returns
    -------
    (*grid) unsigned int
        Labels 1..J.

    Examples
    --------
    >>> import numpy as np
    >>> import tiledlaf
    >>> z = np.array([[[2.0, -1.0, 0.0]], [[-2.0, 1.0, 0.0]]])  # two labels on a grid of 1 x 3
    >>> tiledlaf.rounding(z).tolist()
    [[1, 2, 1]]
    """
    labels: Array = select(z).decide(z if w0 is None else np.log(w0) + z)[0]
    return labels


def check_arrays(**arrays: Any) -> None:
    """Refuse what is no array."""
    for name, array in arrays.items():
        if not (getattr(array, "shape", ()) and hasattr(array, "dtype")):
            raise InputError(f"expected {name} as an array, got {type(array).__name__}")


def check_planes(weights: Array, distances: Array, offsets: Neighborhood, layers: int = 0) -> None:
    """Refuse shapes that do not fit; weights may be (layers, K, *grid) as well."""
    check_arrays(weights=weights, distances=distances)
    if len(distances) < 2:
        raise InputError(f"distances need two classes or more, got shape {distances.shape}")
    if not isinstance(offsets, Graph):
        expected = (len(offsets), *distances.shape[1:])
    elif distances.shape[1:] == (offsets.nodes,):
        expected = (offsets.edges,)
    else:
        raise InputError(
            f"distances must have shape (J, {offsets.nodes}) on this graph, got {distances.shape}"
        )
    if weights.shape not in (expected, (layers, *expected)):
        raise InputError(f"weights must have shape {expected}, got {weights.shape}")
