"""Weights of graphs: estimated for one, or learned for others (see `flow.graphs`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..flow.gradient import Linearization, Way, linearize
from ..flow.graphs import (
    directions,
    majority,
    means,
    of_grid,
    of_matrix,
    of_points,
    of_regions,
    paint,
    patch,
    uniform,
)
from ..flow.linear import check_planes
from ..flow.losses import Cosine, Loss, regularizer
from ..flow.optimizers import RATES, Adam, Descent
from ..kernels import Graph
from ..kernels.arrays import Array
from ..model.features import Features
from ..model.predictor import Predictor
from ..model.predictor import initial as initial_predictor

__all__ = [
    "Estimated",
    "Example",
    "Graph",
    "directions",
    "estimate",
    "gradient",
    "initial",
    "learn",
    "majority",
    "means",
    "of_grid",
    "of_matrix",
    "of_points",
    "of_regions",
    "paint",
    "patch",
    "predict",
    "uniform",
]
NODE = Features((("image", "patch", 0, 1, 0),))  # the given features, as they are


@dataclass(frozen=True)
class Estimated:
    """Weights (E,), and the losses before the first step and after each."""

    weights: np.ndarray
    losses: list[float]


def estimate(
    graph: Graph,
    distances: Array,
    target: Array,
    *,
    time: float = 5.0,
    rho: float = 1.0,
    loss: Loss | None = None,
    tau: float = 0.0,
    step: str = "tangent",
    steps: int = 40,
    way: Way | None = None,
) -> Estimated:
    """Estimate weights of one graph by Riemannian descent with line search, from uniform ones.

    Parameters
    ----------
    distances : (J, n)
    target : (n,)
        Classes 1..J, 0 where not labeled.
    time, rho, loss, tau, step, steps
        As in `tiledlaf.estimate`.
    """
    distances, chosen = np.asarray(distances), loss or Cosine()
    descent, weights = Descent(step, graph=graph), uniform(graph, distances.dtype)
    target = _checked(graph, distances, target)

    def flow(w: Array) -> tuple[Linearization, np.ndarray]:
        found = linearize(w, distances, graph, time=time, rho=rho, way=way)
        return found, chosen.sums(found.z, target)

    def evaluate(w: Array) -> float:
        return chosen.value(flow(w)[1]) + regularizer(w, tau, graph)[0]

    state, losses = descent.init(weights), [evaluate(weights)]
    for _ in range(steps):
        found, sums = flow(weights)
        tangent = found.gradient(chosen.gradient(found.z, target, sums)).tangent
        tangent = tangent + regularizer(weights, tau, graph)[1]
        weights, state, value = descent.update(tangent, state, weights, losses[-1], evaluate)
        if value == losses[-1]:
            break
        losses.append(value)
    return Estimated(weights, losses)


def _checked(graph: Graph, distances: Array, target: Array) -> np.ndarray:
    check_planes(uniform(graph), distances, graph)
    found = np.asarray(target)
    fits = found.shape == (graph.nodes,) and found.dtype.kind in "iu"
    if not fits or found.min() < 0 or found.max() > len(distances):
        raise InputError(
            f"expected a target of {graph.nodes} classes 0 to {len(distances)}, got "
            f"{found.dtype} of shape {found.shape}"
        )
    return found


@dataclass(frozen=True, eq=False)
class Example:
    """A graph to learn from.

    Attributes
    ----------
    graph : Graph
    kinds : (E,) int
        Which entry of the weight patch (0..K - 1) each edge uses.
    features : (F, n)
    distances : (J, n)
    target : (n,)
        Classes 1..J, 0 where not labeled.
    """

    graph: Graph
    kinds: np.ndarray
    features: np.ndarray
    distances: np.ndarray
    target: np.ndarray


def initial(examples: Sequence[Example], kinds: int, anchors: int = 50, seed: int = 0) -> Predictor:
    """The predictor to start from: k-means, and patches that favor the anchor's own label.

    Parameters
    ----------
    kinds : K
    anchors : N
    """
    rows, same, known = [], [], []
    for e in examples:
        own, other = e.target[e.graph.rows], e.target[e.graph.indices]
        there, alike = np.zeros((2, e.graph.nodes, kinds), bool)
        # of several neighbors of the same kind, the last one counts
        there[e.graph.rows, e.kinds] = other > 0
        alike[e.graph.rows, e.kinds] = own == other
        labeled = e.target > 0
        rows.append(e.features.T[labeled])
        same.append(alike[labeled])
        known.append(there[labeled])
    samples, agreement, seen = (np.concatenate(part) for part in (rows, same, known))
    return initial_predictor(NODE, samples, agreement, seen, anchors, seed)


def predict(
    predictor: Predictor, graph: Graph, kinds: np.ndarray, features: np.ndarray
) -> np.ndarray:
    """Predict weights (E,) as on grids, (4.3)-(4.4); each edge uses the entry of its kind."""
    count = predictor.patches.shape[1]
    if np.shape(kinds) != (graph.edges,) or kinds.min() < 0 or kinds.max() >= count:
        raise InputError(
            f"expected kinds 0 to {count - 1} for {graph.edges} edges, got {kinds.min()} to "
            f"{kinds.max()} of shape {np.shape(kinds)}"
        )
    there = np.zeros((count, graph.nodes), features.dtype)  # kinds that a node has
    there[kinds, graph.rows] = 1
    t = predictor.weights(features, there, "numpy")[kinds, graph.rows]
    return t / graph.sum(t)


def gradient(
    predictor: Predictor,
    examples: Sequence[Example],
    loss: Loss,
    *,
    time: float = 5.0,
    rho: float = 1.0,
    way: Way | None = None,
) -> tuple[float, dict[str, np.ndarray]]:
    """The loss over all examples, and its gradient in the predictor's parameters."""
    found = []
    for e in examples:
        weights = predict(predictor, e.graph, e.kinds, e.features)
        found.append(linearize(weights, e.distances, e.graph, time=time, rho=rho, way=way))
    parts = [loss.sums(one.z, e.target) for e, one in zip(examples, found, strict=True)]
    sums = np.sum(parts, axis=0)
    total = {key: np.zeros_like(value) for key, value in predictor.parameters.items()}
    for e, one in zip(examples, found, strict=True):
        tangent = one.gradient(loss.gradient(one.z, e.target, sums)).tangent
        # the entry of a kind affects all edges of this kind at a node
        planes = np.zeros((predictor.patches.shape[1], e.graph.nodes), tangent.dtype)
        np.add.at(planes, (e.kinds, e.graph.rows), tangent)
        for key, value in predictor.gradient(e.features, planes, "numpy").items():
            total[key] += value
    return loss.value(sums), total


def learn(
    predictor: Predictor,
    examples: Sequence[Example],
    *,
    time: float = 5.0,
    rho: float = 1.0,
    loss: Loss | None = None,
    steps: int = 100,
    way: Way | None = None,
) -> tuple[Predictor, list[float]]:
    """Learn a predictor by Adam on all examples; also return the loss before each step."""
    for e in examples:
        _checked(e.graph, e.distances, e.target)
    adam, chosen, losses = Adam(RATES), loss or Cosine(), []
    state = adam.init(predictor.parameters)
    for _ in range(steps):
        value, slope = gradient(predictor, examples, chosen, time=time, rho=rho, way=way)
        losses.append(value)
        moved, state = adam.update(slope, state, predictor.parameters)
        predictor = predictor.moved(moved)
    return predictor, losses
