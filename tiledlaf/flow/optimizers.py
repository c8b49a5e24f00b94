"""Optimizers as pairs of `init` and `update` with explicit state: small frozen values.

`Adam` and `AdaMax` take dictionaries of arrays, and gradients from any source, even a
cluster. `Descent` follows the geometry of weight patches (3.7)-(3.8) with a line search.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from ..kernels import Graph
from ..kernels.arrays import Array, namespace
from ..kernels.numpy import row_max, row_sum
from .problem import euclidean

Arrays = Mapping[str, np.ndarray]
RATES = {"patches": 0.15, "anchors": 0.03, "sigma": 0.01}  # of a predictor's parameters


@dataclass(frozen=True)
class Moments:
    """State of `Adam` and `AdaMax`: number of steps, and both moments of each parameter."""

    step: int
    first: Arrays
    second: Arrays


def _zeros(parameters: Arrays) -> dict[str, np.ndarray]:
    return {key: np.zeros_like(value) for key, value in parameters.items()}


@dataclass(frozen=True)
class Adam:
    """Adam on the gradient in each parameter.

    Attributes
    ----------
    rates : step size of each parameter; a parameter without one stays as it is
    beta1, beta2 : float
        Decay of the first and of the second moment.
    epsilon : float
        Added to the root of the second moment.

    Examples
    --------
    Minimize (a - 3)^2; `b` has no rate and stays fixed. The state is explicit:

    >>> import numpy as np
    >>> from tiledlaf import optimizers
    >>> adam = optimizers.Adam({"a": 0.5})
    >>> parameters = {"a": np.array([0.0]), "b": np.array([1.0])}
    >>> state = adam.init(parameters)
    >>> for _ in range(100):
    ...     gradients = {"a": 2 * (parameters["a"] - 3), "b": np.zeros(1)}
    ...     parameters, state = adam.update(gradients, state, parameters)
    >>> state.step, bool(abs(parameters["a"][0] - 3) < 0.1), parameters["b"]
    (100, True, array([1.]))
    """

    rates: Mapping[str, float]
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def init(self, parameters: Arrays) -> Moments:
        """The state before the first step."""
        return Moments(0, _zeros(parameters), _zeros(parameters))

    def update(
        self, gradients: Arrays, state: Moments, parameters: Arrays, factor: float = 1.0
    ) -> tuple[dict[str, np.ndarray], Moments]:
        """Parameters and state after one step of `factor` times the rates."""
        step = state.step + 1
        first, second, moved = {}, {}, {}
        for key, value in parameters.items():
            g = gradients[key]
            first[key] = self.beta1 * state.first[key] + (1 - self.beta1) * g
            second[key] = self._second(state.second[key], g)
            mean = first[key] / (1 - self.beta1**step)
            rate = factor * self.rates.get(key, 0.0)
            moved[key] = value - rate * mean / (self._size(second[key], step) + self.epsilon)
        return moved, Moments(step, first, second)

    def _second(self, held: np.ndarray, g: np.ndarray) -> np.ndarray:
        found: np.ndarray = self.beta2 * held + (1 - self.beta2) * g * g
        return found

    def _size(self, second: np.ndarray, step: int) -> np.ndarray:
        found: np.ndarray = np.sqrt(second / (1 - self.beta2**step))
        return found


@dataclass(frozen=True)
class AdaMax(Adam):
    """Adam with a decaying maximum of the gradient in place of its root mean square."""

    def _second(self, held: np.ndarray, g: np.ndarray) -> np.ndarray:
        return np.maximum(self.beta2 * held, abs(g))

    def _size(self, second: np.ndarray, step: int) -> np.ndarray:
        return second


@dataclass(frozen=True)
class Descent:
    """Riemannian gradient descent of weight patches with a line search by halving.

    Attributes
    ----------
    step : {"exponential", "tangent"}
        Omega <- exp_Omega(-h dL/dOmega), the Riemannian step (3.7)-(3.8); or
        t <- t - h dL/dt with Omega = softmax(t), plain descent in t.
    rate : float
        First step size to try, in relative terms: the largest change of log Omega in a pixel.
    grow, shrink : float
        Factors of the step size after a step that succeeded and after one that failed.
    sufficient : float
        The share of the decrease predicted by the slope that a step must reach (Armijo).
    most : int
        Most step sizes tried in one update.
    graph : Graph or None
        The graph if the weights are (E,); None for planes (K, *grid).

    Examples
    --------
    Move the weights of one pixel towards its first neighbor, with the loss -Omega_1:

    >>> import numpy as np
    >>> from tiledlaf import optimizers
    >>> descent = optimizers.Descent()
    >>> weights = np.full((3, 1, 1), 1 / 3)
    >>> slope = np.array([-1.0, 0.0, 0.0]).reshape(3, 1, 1)  # dL/dOmega
    >>> tangent = weights * (slope - (weights * slope).sum(axis=0))  # R_Omega dL/dOmega
    >>> moved, state, loss = descent.update(
    ...     tangent, descent.init(weights), weights, -1 / 3, lambda w: float(-w[0, 0, 0])
    ... )
    >>> moved.ravel().round(3), round(loss, 3)
    (array([0.691, 0.154, 0.154]), -0.691)
    """

    step: str = "tangent"
    rate: float = 1.0
    grow: float = 2.0
    shrink: float = 0.5
    sufficient: float = 1e-4
    most: int = 30
    graph: Graph | None = None

    def __post_init__(self) -> None:
        if self.step not in ("exponential", "tangent"):
            raise InputError(f"step must be exponential or tangent, got {self.step!r}")

    def init(self, weights: Array) -> float | None:
        """The step size to try first; None until a gradient sets the scale."""
        return None

    def direction(self, tangent: Array, weights: Array) -> Array:
        """The direction in t, from R_Omega dL/dOmega."""
        return tangent if self.step == "tangent" else euclidean(tangent, weights)

    def move(self, weights: Array, direction: Array, h: float) -> Array:
        """Omega exp(-h direction), on the simplex again."""
        xp = namespace(weights)
        valid = weights > 0
        u = xp.log(xp.where(valid, weights, 1)) - weights.dtype.type(h) * direction
        u = xp.where(valid, u, -xp.inf)
        best = row_max(u, self.graph)
        e = xp.exp(u - xp.where(xp.isfinite(best), best, 0))
        # keep weights inside the open simplex: one at 0 could never come back
        e = xp.where(valid, xp.maximum(e, xp.finfo(e.dtype).tiny), 0)
        return e / xp.maximum(row_sum(e, self.graph), xp.finfo(e.dtype).tiny)

    def update(
        self,
        tangent: Array,
        state: float | None,
        weights: Array,
        loss: float,
        evaluate: Callable[[Array], Any],
    ) -> tuple[Array, float, float]:
        """One step.

        Parameters
        ----------
        tangent : (K, *grid)
            R_Omega dL/dOmega.
        loss : float
            The loss at the current weights.
        evaluate : callable
            Returns the loss at given weights.

        Returns
        -------
        weights, state, loss
            Weights and loss are unchanged if no step size lowers the loss any further.
        """
        direction = self.direction(tangent, weights)
        largest = float(abs(direction).max())
        if largest == 0:
            return weights, state or 0.0, loss
        h = state or self.rate / largest
        slope = float((direction * tangent).sum(dtype=np.float64))
        for _ in range(self.most):
            moved = self.move(weights, direction, h)
            found = float(evaluate(moved))
            if found <= loss - self.sufficient * h * slope:
                return moved, h * self.grow, found
            h *= self.shrink
        return weights, h, loss
