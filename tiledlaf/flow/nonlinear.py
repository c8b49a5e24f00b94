"""The assignment flow W' = R_W S(W) (2.9), not linearized, by geometric Runge-Kutta methods.

With W = softmax(log W0 + Z) it is Z' = Pi_0 S, S = softmax(Omega (log W0 + Z - D / rho)): the group
that moves W is T_0, which commutes, so a Runge-Kutta method on Z is the Runge-Kutta-Munthe-Kaas
method of the same coefficients on W. Linearized at Z = 0 this is the flow of `flow`.
"""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import ClassVar

import numpy as np

from ..errors import InputError, settle_numbers
from ..kernels import Neighborhood
from ..kernels.arrays import Array
from .linear import Integrator, Solution, check_positive, check_steps, check_time

FEWEST, MOST, SAFETY = 0.2, 10.0, 0.9  # limits for the change of a step size, and its safety factor
FINEST = 100  # smallest tol, in units in the last place


@dataclass(frozen=True)
class Tableau:
    """Coefficients of an explicit Runge-Kutta method.

    Attributes
    ----------
    a : (s, s) float64, strictly lower triangular
    b : (s,) float64
    error : (s + 1,) float64
        Coefficients of the error estimate, including the derivative at the end; may be empty.
    order : int
        Order of the error estimate per unit of time.
    """

    a: np.ndarray
    b: np.ndarray
    error: np.ndarray
    order: int

    @property
    def stages(self) -> int:
        """s."""
        return len(self.b)


NONE = np.zeros(0)
EULER = Tableau(np.zeros((1, 1)), np.ones(1), NONE, 1)
CLASSICAL = Tableau(
    np.array([[0, 0, 0, 0], [0.5, 0, 0, 0], [0, 0.5, 0, 0], [0, 0, 1, 0]]),
    np.array([1, 2, 2, 1]) / 6,
    NONE,
    4,
)
PAIRS = {3: "RK23", 5: "RK45"}


@functools.cache
def embedded(order: int) -> Tableau:
    """Return the coefficients of an embedded pair, from SciPy."""
    # imported on demand: importing it takes longer than labeling a small image
    pair = getattr(importlib.import_module("scipy.integrate"), PAIRS[order])
    return Tableau(pair.A, pair.B, pair.E, pair.error_estimator_order)


@dataclass(frozen=True)
class NonlinearSolution(Solution):
    """Z of the nonlinear flow at the time where it stopped.

    Attributes
    ----------
    time : float
        Where it stopped, T or earlier.
    steps, rejected : int
    entropy : float
        Mean of -sum_j W_j log W_j over the valid pixels.
    reason : {"time", "entropy"}
        Why it stopped.
    """

    time: float
    steps: int
    rejected: int
    entropy: float
    reason: str


@dataclass(frozen=True)
class _Steps(Integrator):
    """Equal steps T / steps.

    Attributes
    ----------
    steps : int
    entropy : float
        Stop once the mean entropy of W, in nats, is no larger; 0: stop only at T. It is a mean
        over all pixels and thus not available for tiles.
    """

    steps: int = 50
    entropy: float = 0.0
    tableau: ClassVar[Tableau] = EULER

    def __post_init__(self) -> None:
        settle_numbers(self)
        check_steps(self.steps)
        _check_entropy(self.entropy)

    @property
    def planes(self) -> int:
        """Arrays like Z that are held at once: the stages, and what one takes."""
        return self.tableau.stages + 5

    def growth(self, time: float) -> float:
        """Bound on log |Z|: |Z'| <= 1."""
        return math.log(time)

    def reach(self, time: float) -> int:
        """Neighborhood radii that a label can depend on: one for each S."""
        check_time(time)
        if self.entropy:
            raise _refusal(self, "stops by the entropy of the whole image", "leave out its entropy")
        return self.steps * self.tableau.stages

    def run(
        self,
        kernels: ModuleType,
        weights: Array,
        q: Array,
        offsets: Neighborhood,
        time: float,
        log_w0: Array | None = None,
    ) -> NonlinearSolution:
        """Z(T), or Z where the entropy is small enough."""
        check_time(time)
        h, z, done, reason = time / self.steps, 0 * q, 0, "time"
        field = _field(kernels, weights, q, offsets)
        while done < self.steps:
            z = _advanced(z, _stages(field, z, field(z), self.tableau, h), self.tableau.b, h)
            done += 1
            if self.entropy and mean_entropy(z, weights, log_w0) <= self.entropy:
                reason = "entropy"
                break
        found = mean_entropy(z, weights, log_w0)
        return NonlinearSolution(
            z, done * self.tableau.stages, None, h * done, done, 0, found, reason
        )


@dataclass(frozen=True)
class GeometricEuler(_Steps):
    """W <- exp_W(h S(W)), `steps` times with h = T / steps: order 1.

    With an `entropy` it stops as soon as the mean entropy of W is no larger.
    """


@dataclass(frozen=True)
class RKMK4(_Steps):
    """The classical Runge-Kutta method of order 4 as a Munthe-Kaas method, h = T / steps.

    With an `entropy` it stops as soon as the mean entropy of W is no larger.

    Examples
    --------
    Each step evaluates S four times. The flow stops before T once the assignment is clear enough:

    >>> import numpy as np
    >>> import tiledlaf
    >>> image = np.zeros((4, 6), np.float32)
    >>> image[:, 3:] = 1
    >>> distances = np.stack([image, 1 - image])
    >>> offsets = tiledlaf.stencil.box(3, 3)
    >>> weights = tiledlaf.stencil.uniform(offsets, image.shape)
    >>> method = tiledlaf.RKMK4(steps=20, entropy=0.2)
    >>> found = tiledlaf.solve(
    ...     weights, distances, offsets, time=10.0, integrator=method, kernel="numpy"
    ... )
    >>> found.reason, found.time < 10, found.entropy <= 0.2
    ('entropy', True, True)
    >>> found.matvecs == 4 * found.steps
    True
    """

    steps: int = 10
    tableau: ClassVar[Tableau] = CLASSICAL


@dataclass(frozen=True)
class AdaptiveRKMK(Integrator):
    """Embedded Runge-Kutta pairs as Munthe-Kaas methods, with steps as long as `tol` allows.

    Attributes
    ----------
    tol : float
        Tolerance of a step: the largest osc of the error estimate over the pixels, relative to
        the step. Above 1e-4, steps may be so long that the error is underestimated.
    order : {3, 5}
        The pairs of Bogacki and Shampine (3) and of Dormand and Prince (5).
    entropy : float
        Stop once the mean entropy of W, in nats, is no larger; 0: stop only at T.
    """

    tol: float = 1e-4
    order: int = 5
    entropy: float = 0.0

    def __post_init__(self) -> None:
        settle_numbers(self)
        check_positive(tol=self.tol)
        _check_entropy(self.entropy)
        if self.order not in PAIRS:
            raise InputError(f"order must be one of {', '.join(map(str, PAIRS))}, got {self.order}")

    @property
    def planes(self) -> int:
        """Arrays like Z that are held at once: the stages, and what one takes."""
        return embedded(self.order).stages + 6

    def growth(self, time: float) -> float:
        """Bound on log |Z|: |Z'| <= 1."""
        return math.log(time)

    def reach(self, time: float) -> int:
        """Raise ValueError: its steps depend on all pixels."""
        raise _refusal(self, "chooses its steps by the whole image", "take RKMK4 or GeometricEuler")

    def run(
        self,
        kernels: ModuleType,
        weights: Array,
        q: Array,
        offsets: Neighborhood,
        time: float,
        log_w0: Array | None = None,
    ) -> NonlinearSolution:
        """Z(T), or Z where the entropy is small enough; its error is the sum of the estimates."""
        check_time(time)
        finest = FINEST * float(np.finfo(q.dtype).eps)
        if self.tol < finest:
            raise InputError(
                f"tol must be {finest:.1g} or more with {q.dtype} arrays, got {self.tol:g}"
            )
        tableau = embedded(self.order)
        field = _field(kernels, weights, q, offsets)
        # S has the Lipschitz constant 1/2 in osc for every image: a first step of 1 is reasonable
        now, h, error, accepted, rejected = 0.0, min(1.0, time), 0.0, 0, 0
        z, reason = 0 * q, "time"
        first = field(z)
        while now < time:
            last = now + h >= time * (1 - 1e-12)
            h = time - now if last else h
            stages = _stages(field, z, first, tableau, h)
            moved = _advanced(z, stages, tableau.b, h)
            end = field(moved)
            local = _largest_osc(_advanced(0 * z, [*stages, end], tableau.error, h))
            if not math.isfinite(local):
                raise InputError(f"expected finite weights and distances, got a flow of {local}")
            wanted = MOST if local == 0 else SAFETY * (self.tol * h / local) ** (1 / tableau.order)
            if local <= self.tol * h:
                z, first, error, accepted = moved, end, error + local, accepted + 1
                now = time if last else now + h
                if self.entropy and mean_entropy(z, weights, log_w0) <= self.entropy:
                    reason = "entropy"
                    break
                h *= min(MOST, max(FEWEST, wanted))
            else:
                rejected += 1
                h *= min(1.0, max(FEWEST, wanted))
        found = mean_entropy(z, weights, log_w0)
        evaluations = 1 + (accepted + rejected) * tableau.stages
        return NonlinearSolution(z, evaluations, error, now, accepted, rejected, found, reason)


def mean_entropy(z: Array, weights: Array, log_w0: Array | None = None) -> float:
    """Mean of -sum_j W_j log W_j, in nats, over the pixels that have neighbors.

    Parameters
    ----------
    z, weights, log_w0 : (J, *grid), (K, *grid), (J, *grid)
    """
    u = z if log_w0 is None else log_w0 + z
    u = u - u.max(axis=0)
    e = np.exp(u)
    total = e.sum(axis=0)
    # W log W is 0 where W is
    rows = np.log(total) - (e * u).sum(axis=0) / total
    if weights.ndim > 1:  # on a graph each node is its own neighbor
        rows = rows[weights.any(axis=0)]
    return float(rows.sum(dtype=np.float64)) / max(rows.size, 1)


def _field(
    kernels: ModuleType, weights: Array, q: Array, offsets: Neighborhood
) -> Callable[[Array], Array]:
    """Z' as a function of Z: Pi_0 S."""
    share = q.dtype.type(1 / len(q))

    def field(z: Array) -> Array:
        s = kernels.similarity(weights, q + z, offsets)
        # S sums to 1, so no mean is needed whose bits depend on the order of summation
        s -= share
        return s

    return field


def _stages(
    field: Callable[[Array], Array], z: Array, first: Array, tableau: Tableau, h: float
) -> list[Array]:
    """Derivatives k_1..k_s of a step."""
    found = [first]
    for row in tableau.a[1:]:
        found.append(field(_advanced(z, found, row, h)))
    return found


def _advanced(z: Array, stages: Sequence[Array], coefficients: np.ndarray, h: float) -> Array:
    """Z + h sum of c_i k_i, elementwise in this order."""
    moved = z.copy()
    for c, k in zip(coefficients, stages, strict=False):
        if c:
            moved += z.dtype.type(h * c) * k
    return moved


def _largest_osc(x: Array) -> float:
    """Largest of max_j x_j - min_j x_j over the pixels."""
    return float((x.max(axis=0) - x.min(axis=0)).max())


def _check_entropy(entropy: float) -> None:
    if not (entropy >= 0 and math.isfinite(entropy)):
        raise InputError(f"entropy must be 0 or a positive number, got {entropy}")


def _refusal(integrator: object, what: str, instead: str) -> ValueError:
    return InputError(
        f"{type(integrator).__name__} {what}, which tiles do not have: use it with tiledlaf.solve, "
        f"or {instead}"
    )
