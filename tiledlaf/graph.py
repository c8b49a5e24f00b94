"""Graphs in place of grids: point clouds, superpixels, or any adjacency matrix.

`tiledlaf.solve` and `tiledlaf.linearize` take a `Graph` where they take offsets, with distances
(J, n) and weights (E,), and so do integrators, losses and the ways of the gradient. `estimate`
learns weights of one graph, `learn` a predictor of them for others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
import scipy.spatial

from .features import Features
from .flow import check_planes
from .gradient import Linearization, Way, linearize
from .kernels import Graph
from .kernels.numpy import Array, Offsets, shifted
from .losses import Cosine, Loss, regularizer
from .optimizers import RATES, Adam, Descent
from .predictor import Predictor
from .predictor import initial as initial_predictor

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
NODE = Features((("image", "patch", 0, 1, 0),))  # the given planes themselves


def of_matrix(adjacency: Any) -> Graph:
    """The graph of a square adjacency matrix, sparse or dense: its nonzeros and the diagonal."""
    matrix = scipy.sparse.coo_array(adjacency)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"expected a square adjacency matrix, got shape {matrix.shape}")
    keep = matrix.data != 0
    return _of_edges(matrix.row[keep], matrix.col[keep], matrix.shape[0])


def _of_edges(rows: np.ndarray, columns: np.ndarray, n: int) -> Graph:
    """The graph of edges that may come twice, and the nodes themselves."""
    own = np.arange(n)
    pattern = scipy.sparse.csr_array(
        (np.ones(len(rows) + n, bool), (np.r_[rows, own], np.r_[columns, own])), shape=(n, n)
    )
    return Graph(pattern.indptr, pattern.indices)


def of_points(points: Array, neighbors: int) -> Graph:
    """Each point with its nearest ones, (n, d): the point first, the others by distance."""
    points = np.asarray(points)
    if points.ndim != 2 or not 0 < neighbors < len(points) or not np.isfinite(points).all():
        raise ValueError(
            f"expected finite points (n, d) and 1 to n - 1 neighbors, got shape {points.shape} "
            f"and {neighbors}"
        )
    n = len(points)
    found = scipy.spatial.cKDTree(points).query(points, neighbors + 1, workers=-1)[1]
    # of points at one place the point itself need not come first, nor at all
    own = np.arange(n)[:, None]
    found = np.where((found == own).any(axis=1, keepdims=True), found, np.c_[own, found[:, :-1]])
    first = np.argsort(found != own, axis=1, kind="stable")
    found = np.take_along_axis(found, first, axis=1)
    return Graph(np.arange(0, found.size + 1, neighbors + 1), found.ravel())


def of_regions(labels: Array) -> Graph:
    """Superpixels that touch along an axis.

    Parameters
    ----------
    labels : (*grid) int
        Region 1 is node 0, and so on; 0 belongs to no region.
    """
    n, labels = _regions(labels), np.asarray(labels)
    rows, columns = [], []
    for axis in range(labels.ndim):
        a = np.moveaxis(labels, axis, 0)
        one, other = a[:-1].ravel(), a[1:].ravel()
        apart = (one != other) & (one > 0) & (other > 0)
        rows += [one[apart], other[apart]]
        columns += [other[apart], one[apart]]
    return _of_edges(np.concatenate(rows) - 1, np.concatenate(columns) - 1, n)


def of_grid(offsets: Offsets, grid: Sequence[int], valid: Array = None) -> tuple[Graph, np.ndarray]:
    """A neighborhood on a grid as a graph of its valid pixels in C order.

    Returns
    -------
    graph : Graph
        Neighbors in the order of the offsets.
    kinds : (E,) int
        The offset of each edge.
    """
    shape = tuple(grid)
    kept = np.ones(shape, bool) if valid is None else np.asarray(valid, bool)
    number = np.full(shape, -1)
    number[kept] = np.arange(np.count_nonzero(kept))
    far = np.full((len(offsets), *shape), -1)
    for plane, offset in zip(far, offsets, strict=True):
        here, there = shifted(offset, shape)
        plane[here] = number[there]
    neighbors = far[:, kept].T  # (n, K)
    inside = neighbors >= 0
    indptr = np.r_[0, np.cumsum(inside.sum(axis=1))]
    kinds = np.broadcast_to(np.arange(len(offsets)), neighbors.shape)[inside]
    return Graph(indptr, neighbors[inside]), kinds


def uniform(graph: Graph, dtype: Any = np.float32) -> np.ndarray:
    """Weights 1 / (number of neighbors), (E,): the barycenter of (2.18)."""
    return graph.spread((1 / graph.degrees).astype(dtype))


# superpixels


def _regions(labels: Array) -> int:
    """How many regions there are; refuse numbers that are left out."""
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu" or labels.size == 0 or labels.min() < 0:
        raise ValueError(f"expected regions as integers from 0, got {labels.dtype}")
    n = int(labels.max())
    found = np.count_nonzero(np.bincount(labels.ravel(), minlength=n + 1)[1:])
    if n == 0 or found < n:
        raise ValueError(f"expected regions 1, 2, ... without gaps, got {found} of {n}")
    return n


def means(planes: Array, labels: Array) -> np.ndarray:
    """Means of planes (C, *grid) over regions, (C, n): of distances, or of features."""
    n, flat = _regions(labels), np.ravel(labels)
    count = np.bincount(flat, minlength=n + 1)[1:]
    sums = [np.bincount(flat, np.ravel(plane), n + 1)[1:] for plane in planes]
    return (np.stack(sums) / count).astype(np.result_type(planes, np.float32))


def majority(target: Array, labels: Array) -> np.ndarray:
    """The class 1..J of most labeled pixels of each region, (n,); 0 where none is labeled."""
    n, classes = _regions(labels), int(np.max(target))
    votes = [
        np.bincount(np.ravel(labels)[np.ravel(target) == j], minlength=n + 1)[1:]
        for j in range(1, classes + 1)
    ]
    found = np.argmax(votes, axis=0) + 1
    return np.where(np.max(votes, axis=0) > 0, found, 0).astype(np.min_scalar_type(classes))


def paint(values: Array, labels: Array) -> np.ndarray:
    """What lies on regions (..., n) on their pixels, (..., *grid); 0 outside of regions."""
    values = np.asarray(values)
    first = np.zeros((*values.shape[:-1], 1), values.dtype)
    return np.concatenate([first, values], axis=-1)[..., labels]


# weights of one graph


@dataclass(frozen=True)
class Estimated:
    """Weights (E,), and losses before the first step and after each."""

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
    """Weights of one graph by Riemannian descent with line search, from uniform ones.

    Parameters
    ----------
    distances : (J, n)
    target : (n,)
        Classes 1..J, 0 where not labeled.
    time, rho, loss, tau, step, steps
        As for `tiledlaf.estimate`.
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
        raise ValueError(
            f"expected a target of {graph.nodes} classes 0 to {len(distances)}, got "
            f"{found.dtype} of shape {found.shape}"
        )
    return found


# weights of any graph


def directions(graph: Graph, places: Array, sectors: int = 8) -> np.ndarray:
    """Kinds of edges by where a neighbor lies: 0 itself, 1..sectors by its angle, (E,).

    Parameters
    ----------
    places : (2, n)
        y and x of the nodes; sector 1 is centered on +x, the next ones turn towards +y.
    """
    if np.shape(places) != (2, graph.nodes):
        raise ValueError(f"expected places (2, {graph.nodes}), got shape {np.shape(places)}")
    y, x = np.asarray(places)[:, graph.indices] - np.asarray(places)[:, graph.rows]
    turn = np.rint(np.arctan2(y, x) / (2 * math.pi) * sectors).astype(int) % sectors
    return np.where(graph.rows == graph.indices, 0, turn + 1)


def patch(graph: Graph, kinds: np.ndarray, planes: Array, count: int) -> np.ndarray:
    """Values around a node, (C * count, n): the mean over its neighbors of each kind, of planes.

    Its own value stands for kinds that it has no neighbor of, as an image is mirrored.
    """
    planes = np.asarray(planes)
    place, size = kinds * graph.nodes + graph.rows, count * graph.nodes
    found = np.bincount(place, minlength=size)
    out = np.empty((len(planes), count, graph.nodes), planes.dtype)
    for target, plane in zip(out, planes, strict=True):
        total = np.bincount(place, plane[graph.indices], size)
        mean = (total / np.maximum(found, 1)).reshape(target.shape)
        target[...] = np.where(found.reshape(target.shape) > 0, mean, plane)
    return out.reshape(-1, graph.nodes)


@dataclass(frozen=True, eq=False)
class Example:
    """A graph to learn from.

    Attributes
    ----------
    graph : Graph
    kinds : (E,) int
        Which number of a weight patch (0..K - 1) each edge takes.
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


def initial(
    examples: Sequence[Example], kinds: int, prototypes: int = 50, seed: int = 0
) -> Predictor:
    """The predictor to start from: k-means, and patches that favor the prototype's own label.

    Parameters
    ----------
    kinds : K
    prototypes : N
    """
    rows, same, known = [], [], []
    for e in examples:
        own, other = e.target[e.graph.rows], e.target[e.graph.indices]
        there, alike = np.zeros((2, e.graph.nodes, kinds), bool)
        # of several neighbors of a kind the last one is looked at
        there[e.graph.rows, e.kinds] = other > 0
        alike[e.graph.rows, e.kinds] = own == other
        labeled = e.target > 0
        rows.append(e.features.T[labeled])
        same.append(alike[labeled])
        known.append(there[labeled])
    samples, agreement, seen = (np.concatenate(part) for part in (rows, same, known))
    return initial_predictor(NODE, samples, agreement, seen, prototypes, seed)


def predict(
    predictor: Predictor, graph: Graph, kinds: np.ndarray, features: np.ndarray
) -> np.ndarray:
    """Weights (E,) as on grids (4.3)-(4.4), each edge with the number of its kind."""
    count = predictor.patches.shape[1]
    if np.shape(kinds) != (graph.edges,) or kinds.min() < 0 or kinds.max() >= count:
        raise ValueError(
            f"expected kinds 0 to {count - 1} of {graph.edges} edges, got {kinds.min()} to "
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
        # the number of a kind moves all edges of this kind at a node
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
    """A predictor by Adam on all of the examples, and the loss before each step."""
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
