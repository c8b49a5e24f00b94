"""Sequences of linearized flows (1.5)-(1.6), each step with its own weights, and their learning.

Each flow is linearized at the W that the previous one reached: with W = softmax(log W0 + Z) the
step k has Q = log W0 + Z^k - D / rho, and Z^(k+1) = Z^k + what it adds. A change of Z^k thus
reaches the loss directly and through the S of step k, which gives the backward recursion.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..kernels import Graph, Neighborhood
from ..kernels.arrays import Array, namespace
from .gradient import Linearization, Way, linearize_at
from .linear import check_planes, check_positive, check_steps, potential
from .losses import Loss
from .optimizers import Descent
from .problem import Gradient


@dataclass(frozen=True)
class LinearizedSteps:
    """A sequence of flows, each linearized at its weights.

    Attributes
    ----------
    z : (J, *grid)
        Z(T), the sum over all steps.
    steps : one Linearization per step
    """

    z: Array
    steps: tuple[Linearization, ...]

    def gradient(self, g: Array) -> tuple[Gradient, ...]:
        """The gradient in the weights of each step of a loss with the gradient g in Z(T)."""
        found: list[Gradient] = []
        for number in reversed(range(len(self.steps))):
            found.append(self.steps[number].gradient(g, inputs=number > 0))
            if number:
                g = g + found[-1].potential
        return tuple(found[::-1])


def linearize_sequence(
    weights: Sequence[Array],
    distances: Array,
    offsets: Neighborhood,
    *,
    time: float | Sequence[float] = 5.0,
    rho: float = 1.0,
    w0: Array | None = None,
    way: Way | None = None,
    kernel: str | None = None,
) -> LinearizedSteps:
    """Integrate a sequence of linearized flows and keep what end-to-end gradients need.

    Parameters
    ----------
    weights : N arrays (K, *grid), or (N, K, *grid)
        The weights of each step.
    distances : (J, *grid)
    offsets : K offsets, or a Graph with weights (E,) and distances (J, n)
    time : float or N floats
        T, which is divided into equal steps, or the time of each step.
    rho, w0, way, kernel
        As for `gradient.linearize`.

    Returns
    -------
    LinearizedSteps
        Z(T) as `z`, and `gradient`, which gives one Gradient per step.

    Raises
    ------
    ValueError
        If shapes do not fit each other, or the number of times is not that of the steps.

    Examples
    --------
    >>> import numpy as np
    >>> import tiledlaf
    >>> distances = np.zeros((2, 4, 6), np.float32)
    >>> distances[0, :, 3:] = distances[1, :, :3] = 1
    >>> offsets = tiledlaf.stencil.box(3, 3)
    >>> weights = tiledlaf.stencil.uniform(offsets, (4, 6))
    >>> flows = tiledlaf.linearize_sequence(
    ...     [weights, weights, weights], distances, offsets, time=6.0, kernel="numpy"
    ... )
    >>> flows.z.shape
    (2, 4, 6)

    The gradient in the weights of each of the three steps, here of sum(Z_1):

    >>> g = np.zeros_like(flows.z)
    >>> g[0] = 1
    >>> [step.tangent.shape for step in flows.gradient(g)]
    [(9, 4, 6), (9, 4, 6), (9, 4, 6)]
    """
    times = _times(time, len(weights))
    check_positive(rho=rho)
    for omega in weights:
        check_planes(omega, distances, offsets)
    return integrate(weights, potential(distances, rho, w0), offsets, times, way, kernel)


def integrate(
    weights: Sequence[Array],
    q: Array,
    offsets: Neighborhood,
    times: Sequence[float],
    way: Way | None,
    kernel: str | None,
) -> LinearizedSteps:
    """`linearize_sequence` from q = log W0 - D / rho, and the time of each step."""
    steps: list[Linearization] = []
    z = 0 * q
    for omega, time in zip(weights, times, strict=True):
        steps.append(linearize_at(omega, q + z, offsets, time, way, kernel))
        z = z + steps[-1].z
    return LinearizedSteps(z, tuple(steps))


def _times(time: float | Sequence[float], count: int) -> tuple[float, ...]:
    check_steps(count)
    given = np.asarray(time, np.float64)
    if given.ndim == 0:
        return (float(given) / count,) * count
    if given.shape != (count,):
        raise InputError(f"expected the time of each of {count} steps, got {len(given)}")
    return tuple(map(float, given))


@dataclass(frozen=True)
class Learned:
    """Weights of each step, and the course of the loss.

    Attributes
    ----------
    weights : (N, K, *grid)
    losses : at W(T), or at the end of the step being learned; initially and after each iteration
    """

    weights: Array
    losses: tuple[float, ...]


def learn(
    weights: Sequence[Array],
    distances: Array,
    target: Array,
    offsets: Neighborhood,
    loss: Loss,
    *,
    end_to_end: bool = True,
    iterations: int = 20,
    descent: Descent | None = None,
    time: float | Sequence[float] = 5.0,
    rho: float = 1.0,
    w0: Array | None = None,
    way: Way | None = None,
    kernel: str | None = None,
) -> Learned:
    """Learn the weights of each step from labels.

    Parameters
    ----------
    weights : N arrays (K, *grid), or (N, K, *grid)
        Initial weights.
    distances, target : (J, *grid), (*grid)
        Targets are 1..J, and 0 where a pixel is not labeled.
    offsets : K offsets, or a Graph with weights (E,) and distances (J, n)
    loss : Loss
        A function of Z, see `losses`.
    end_to_end : bool
        If True, lower the loss at the end of the last step, in the weights of all steps at once.
        If False, go step by step: lower the loss at the end of each step, with the weights of
        the steps before it fixed as they were learned.
    iterations : int
        Iterations of `descent`; for each step if not `end_to_end`.
    descent : Descent, optional
        Descent() by default; its `graph` is set from `offsets`.
    time, rho, w0, way, kernel
        As for `linearize_sequence`.

    Returns
    -------
    Learned
        The weights as (N, K, *grid), and the losses.

    Examples
    --------
    >>> import numpy as np
    >>> import tiledlaf
    >>> image = np.zeros((4, 6), np.float32)
    >>> image[:, 3:] = 1
    >>> distances, target = np.stack([image, 1 - image]), np.where(image > 0, 2, 1)
    >>> offsets = tiledlaf.stencil.box(3, 3)
    >>> weights = tiledlaf.stencil.uniform(offsets, image.shape)
    >>> loss = tiledlaf.losses.CrossEntropy()
    >>> found = tiledlaf.sequence.learn(
    ...     [weights, weights], distances, target, offsets, loss, iterations=3, kernel="numpy"
    ... )
    >>> found.weights.shape
    (2, 9, 4, 6)
    >>> len(found.losses), found.losses[-1] < found.losses[0]
    (4, True)
    """
    times = _times(time, len(weights))
    check_positive(rho=rho)
    for omega in weights:
        check_planes(omega, distances, offsets)
    # the rows of weights follow the graph, whatever `descent` was given
    graph = offsets if isinstance(offsets, Graph) else None
    descent = dataclasses.replace(descent or Descent(), graph=graph)
    learned, q = list(weights), potential(distances, rho, w0)
    z, losses = 0 * q, list[float]()
    count = len(learned) if end_to_end else 1
    for first in range(0, len(learned), count):
        part = slice(first, first + count)
        stretch = _Stretch(z, q, offsets, times[part], target, loss, w0, way, kernel)
        learned[part], z, history = stretch.learn(learned[part], descent, iterations)
        losses += history
    return Learned(namespace(q).stack(learned), tuple(losses))


@dataclass(frozen=True)
class _Stretch:
    """Steps that are learned jointly, starting at Z = start."""

    start: Array
    q: Array
    offsets: Neighborhood
    times: tuple[float, ...]
    target: Array
    loss: Loss
    w0: Array | None
    way: Way | None
    kernel: str | None

    def learn(
        self, weights: Sequence[Array], descent: Descent, iterations: int
    ) -> tuple[list[Array], Array, list[float]]:
        """Weights, Z at the end, and the losses."""
        xp, state = namespace(self.q), None
        # `Descent` expects the weights of a pixel along the first axis
        stacked = xp.stack(weights, axis=1)
        found, sums = self._look(stacked)

        def evaluate(candidate: Array) -> float:
            nonlocal found, sums
            found, sums = self._look(candidate)
            return self.loss.value(sums)

        losses = [self.loss.value(sums)]
        for _ in range(iterations):
            g = self.loss.gradient(found.z, self.target, sums, self.w0)
            tangent = xp.stack([one.tangent for one in found.gradient(g)], axis=1)
            moved, state, value = descent.update(tangent, state, stacked, losses[-1], evaluate)
            if moved is stacked:  # no step lowers the loss any further
                evaluate(stacked)
                break
            stacked = moved
            losses.append(value)
        return _parts(stacked), found.z, losses

    def _look(self, stacked: Array) -> tuple[LinearizedSteps, np.ndarray]:
        """The flows at these weights, and the sums of the loss."""
        found = integrate(
            _parts(stacked), self.q + self.start, self.offsets, self.times, self.way, self.kernel
        )
        found = LinearizedSteps(self.start + found.z, found.steps)
        return found, self.loss.sums(found.z, self.target, self.w0)


def _parts(stacked: Array) -> list[Array]:
    """Weights (K, *grid) of each step from (K, N, *grid)."""
    xp = namespace(stacked)
    return [xp.ascontiguousarray(stacked[:, n]) for n in range(stacked.shape[1])]
