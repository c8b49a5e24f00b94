"""Linearized flows composed in layers (5.1)-(5.3), each driven by the previous one, at barycenters.

In sequence, layer l has the source B_l + L_l V_(l-1)(T_(l-1)), from the result of the previous
layer; in parallel all layers run at once and the source is B_l + L_l V_(l-1)(t). A coupling L_l is
a matrix from T_0 to T_0, the same at all pixels. With V = Pi_0 Z / J it adds
J_l / J_(l-1) Pi_0 L_l Pi_0 Z_(l-1) to Pi_0 S_l.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError, settle_numbers
from ..kernels import Neighborhood
from ..kernels.arrays import Array, namespace
from .gradient import Linearization, Polynomials, Way, linearize_at
from .linear import (
    CONTRACTION,
    STIFFEST,
    Taylor,
    check_finite,
    check_growth,
    check_planes,
    check_positive,
    check_time,
    potential,
)
from .problem import Factors, Gradient, Problem, problem_at, pulled
from .simplex import project


@dataclass(frozen=True)
class Layer:
    """One linearized flow.

    Attributes
    ----------
    weights, distances : (K, *grid), (J, *grid)
    offsets : K offsets
    time, rho : float
        In parallel all layers must have the same time.
    """

    weights: Array
    distances: Array
    offsets: Neighborhood
    time: float = 5.0
    rho: float = 1.0

    def __post_init__(self) -> None:
        settle_numbers(self)
        check_time(self.time)
        check_positive(rho=self.rho)


@dataclass(frozen=True)
class CompositionGradient:
    """The gradient of a loss of the last layer.

    Attributes
    ----------
    layers : one Gradient per layer
    couplings : (J_l, J_(l-1)) float64 each
        dL/dL_l, projected: rows and columns sum to 0.
    """

    layers: tuple[Gradient, ...]
    couplings: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Composition:
    """Integrated layers.

    Attributes
    ----------
    z : Z(T) of each layer, (J, *grid)
    """

    z: tuple[Array, ...]
    _pull: Callable[[Array], CompositionGradient]

    def gradient(self, g: Array) -> CompositionGradient:
        """The gradient of a loss with the gradient g in Z(T) of the last layer, (J, *grid)."""
        return self._pull(g)


def compose(
    layers: Sequence[Layer],
    couplings: Sequence[np.ndarray],
    *,
    parallel: bool = False,
    way: Way | None = None,
    kernel: str | None = None,
) -> Composition:
    """Integrate composed flows and keep what gradients need.

    Parameters
    ----------
    layers : two or more Layers on the same grid
    couplings : (J_l, J_(l-1)) arrays
        L_l, one from each layer to the next.
    parallel : bool
        If True, all layers run at once and are coupled at every time. If False, each layer
        starts from the result of the one before.
    way : Polynomials, Spaces, Kronecker or Dense, optional
        As for `gradient.linearize`.
    kernel : {"numpy", "numba", "cupy"}, optional
        As for `gradient.linearize`.

    Returns
    -------
    Composition
        Z(T) of each layer as `z`, and `gradient`.

    Raises
    ------
    ValueError
        If shapes do not fit each other, or parallel layers have different times.

    Examples
    --------
    The second layer has no data of its own, and takes over what the first one found:

    >>> import numpy as np
    >>> import tiledlaf
    >>> from tiledlaf.flow.composition import Layer
    >>> distances = np.zeros((2, 4, 6), np.float32)
    >>> distances[0, :, 3:] = distances[1, :, :3] = 1
    >>> offsets = tiledlaf.stencil.box(3, 3)
    >>> weights = tiledlaf.stencil.uniform(offsets, (4, 6))
    >>> layers = [Layer(weights, distances, offsets), Layer(weights, 0 * distances, offsets)]
    >>> found = tiledlaf.compose(layers, [np.eye(2)], kernel="numpy")
    >>> [z.shape for z in found.z]
    [(2, 4, 6), (2, 4, 6)]
    >>> found.z[1].argmax(axis=0)[0]
    array([0, 0, 0, 1, 1, 1])

    The gradient of a loss of the last layer, in the weights of both layers and the coupling:

    >>> gradient = found.gradient(distances)
    >>> [one.tangent.shape for one in gradient.layers], gradient.couplings[0].shape
    ([(9, 4, 6), (9, 4, 6)], (2, 2))
    """
    _check(layers, couplings, parallel)
    matrices = [
        len(layer.distances) / len(before.distances) * _projected(coupling)
        for before, layer, coupling in zip(layers, layers[1:], couplings, strict=False)
    ]
    for layer in layers:
        check_growth(way or Polynomials(), layer.time, layer.distances.dtype)
    if parallel:
        found = _parallel(layers, matrices, way or Polynomials(), kernel)
    else:
        found = _sequential(layers, matrices, way, kernel)
    check_finite(found.z[-1], layers[-1].time)
    return found


def _sequential(
    layers: Sequence[Layer], matrices: Sequence[np.ndarray], way: Way | None, kernel: str | None
) -> Composition:
    found: list[Linearization] = []
    drive = None
    for number, layer in enumerate(layers):
        if found:
            drive = _times(matrices[number - 1], found[-1].z)
        q = potential(layer.distances, layer.rho)
        found.append(linearize_at(layer.weights, q, layer.offsets, layer.time, way, kernel, drive))

    def pull(g: Array) -> CompositionGradient:
        gradients, changes = [], []
        for number in reversed(range(len(layers))):
            gradients.append(found[number].gradient(g, inputs=number > 0))
            if number:
                matrix, source = matrices[number - 1], gradients[-1].source
                changes.append(_outer(layers, number, [source], [found[number - 1].z]))
                g = _times(matrix.T, source)
        return CompositionGradient(tuple(gradients[::-1]), tuple(changes[::-1]))

    return Composition(tuple(one.z for one in found), pull)


@dataclass(frozen=True)
class _Stacked:
    """All layers as one system: Z' is A_l Z_l + M_l Z_(l-1) + Pi_0 S_l in block l."""

    problems: Sequence[Problem]
    matrices: Sequence[np.ndarray]

    @property
    def time(self) -> float:
        """T."""
        return self.problems[0].time

    @property
    def source(self) -> Array:
        """Pi_0 S of all layers, (sum of J, *grid)."""
        return namespace(self.problems[0].s).concatenate([p.source for p in self.problems])

    def powers(self, tol: float) -> tuple[int, float]:
        """How many powers of A a tolerance requires, and how fast they grow.

        With osc of layer l divided by mu^l the norm of A is at most 1/2 + norm / mu, for any mu;
        an error in the last of N layers is then mu^(N-1) times as large.
        """
        # largest osc of M z with osc z = 1: half the 1-norm of a difference of two rows
        norm = max(float(abs(m[:, None] - m[None]).sum(axis=2).max()) / 2 for m in self.matrices)
        found = []
        for mu in 2.0 ** np.arange(21):
            a = CONTRACTION + norm / mu
            if self.time * a <= STIFFEST:
                finer = Taylor(tol / mu ** len(self.matrices))
                found.append((finer.terms(self.time, a), norm / mu))
        if not found:
            raise InputError(
                f"a coupling of norm {norm:g} is too strong for the time {self.time:g}"
            )
        degree, coupled = min(found)
        return degree, coupled + max(p.powers(tol)[1] for p in self.problems)

    def split(self, x: Array) -> list[Array]:
        """The blocks of all layers."""
        ends = np.cumsum([len(p.s) for p in self.problems])
        return [x[end - len(p.s) : end] for end, p in zip(ends, self.problems, strict=True)]

    def operator(self, x: Array) -> Array:
        """A x."""
        blocks = self.split(x)
        out = [p.operator(block) for p, block in zip(self.problems, blocks, strict=True)]
        for number, matrix in enumerate(self.matrices):
            out[number + 1] += _times(matrix, blocks[number])
        return namespace(x).concatenate(out)

    def adjoint(self, y: Array) -> Array:
        """A^T y."""
        blocks = self.split(y)
        out = [p.adjoint(block) for p, block in zip(self.problems, blocks, strict=True)]
        for number, matrix in enumerate(self.matrices):
            out[number] += _times(matrix.T, blocks[number + 1])
        return namespace(y).concatenate(out)


def _parallel(
    layers: Sequence[Layer], matrices: Sequence[np.ndarray], way: Way, kernel: str | None
) -> Composition:
    problems = [
        problem_at(
            layer.weights, potential(layer.distances, layer.rho), layer.offsets, layer.time, kernel
        )
        for layer in layers
    ]
    stacked = _Stacked(problems, matrices)
    z, factors = way.factor(stacked)

    def pull(g: Array) -> CompositionGradient:
        whole = 0 * z
        whole[len(z) - len(g) :] = g
        found = factors(whole)
        left, right = (list(map(stacked.split, vectors)) for vectors in (found.u, found.z))
        totals = stacked.split(found.total)
        gradients = []
        for number, problem in enumerate(problems):
            u, v = ([blocks[number] for blocks in side] for side in (left, right))
            own = Factors(u, v, totals[number], found.singular_values)
            gradients.append(pulled(problem, own))
        changes = [
            _outer(layers, n, [u[n] for u in left], [v[n - 1] for v in right])
            for n in range(1, len(layers))
        ]
        return CompositionGradient(tuple(gradients), tuple(changes))

    return Composition(tuple(stacked.split(z)), pull)


def _check(layers: Sequence[Layer], couplings: Sequence[np.ndarray], parallel: bool) -> None:
    if len(layers) < 2 or len(couplings) != len(layers) - 1:
        raise InputError(
            "expected two layers or more and a coupling between each and the next, got "
            f"{len(layers)} and {len(couplings)}"
        )
    for layer in layers:
        check_planes(layer.weights, layer.distances, layer.offsets)
        if layer.distances.shape[1:] != layers[0].distances.shape[1:]:
            raise InputError(
                f"expected layers of one grid, got {layers[0].distances.shape[1:]} and "
                f"{layer.distances.shape[1:]}"
            )
    for before, layer, coupling in zip(layers, layers[1:], couplings, strict=False):
        expected = (len(layer.distances), len(before.distances))
        if np.shape(coupling) != expected:
            raise InputError(f"expected a coupling of shape {expected}, got {np.shape(coupling)}")
    times = [layer.time for layer in layers]
    if parallel and len(set(times)) > 1:
        raise InputError(f"layers in parallel have one time, got {', '.join(map(str, times))}")


def _projected(matrix: np.ndarray) -> np.ndarray:
    """Pi_0 M Pi_0."""
    found: np.ndarray = project(project(np.asarray(matrix, np.float64)).T).T
    return found


def _times(matrix: np.ndarray, z: Array) -> Array:
    """M z at each pixel, (J_out, *grid); summed in a fixed order, which BLAS does not guarantee."""
    xp, number = namespace(z), z.dtype.type
    return xp.stack([sum(number(c) * x for c, x in zip(row, z, strict=True)) for row in matrix])


def _outer(
    layers: Sequence[Layer], number: int, u: Sequence[Array], z: Sequence[Array]
) -> np.ndarray:
    """dL/dL_l for a layer: J_l / J_(l-1) Pi_0 (sum of u_r z_r^T over terms and pixels) Pi_0."""
    total = np.zeros((len(layers[number].distances), len(layers[number - 1].distances)))
    for left, right in zip(u, z, strict=True):
        total += [[float((a * b).sum(dtype=np.float64)) for b in right] for a in left]
    return total.shape[0] / total.shape[1] * _projected(total)
