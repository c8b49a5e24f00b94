"""Graphs in place of grids, from matrices, points or superpixels, and data on their nodes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse
import scipy.spatial

from ..errors import InputError
from ..kernels import Graph
from ..kernels.arrays import Array, Offsets
from ..kernels.numpy import shifted


def of_matrix(adjacency: Any) -> Graph:
    """The graph of a square adjacency matrix: its nonzeros and the diagonal.

    Parameters
    ----------
    adjacency : (n, n) array or sparse array
        Row i holds the neighbors of node i. Values do not matter, only where they are not 0.

    Returns
    -------
    Graph

    Raises
    ------
    ValueError
        If the matrix is not square.

    Examples
    --------
    A chain of three nodes; each node is also its own neighbor:

    >>> from tiledlaf import graph
    >>> chain = graph.of_matrix([[0, 1, 0], [1, 0, 1], [0, 1, 0]])
    >>> chain.nodes, chain.edges
    (3, 7)
    >>> chain.indptr.tolist(), chain.indices.tolist()
    ([0, 2, 5, 7], [0, 1, 0, 1, 2, 1, 2])
    """
    matrix = scipy.sparse.coo_array(adjacency)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise InputError(f"expected a square adjacency matrix, got shape {matrix.shape}")
    keep = matrix.data != 0
    return _of_edges(matrix.row[keep], matrix.col[keep], matrix.shape[0])


def _of_edges(rows: np.ndarray, columns: np.ndarray, n: int) -> Graph:
    """The graph of edges, which may repeat, and of an edge from each node to itself."""
    own = np.arange(n)
    pattern = scipy.sparse.csr_array(
        (np.ones(len(rows) + n, bool), (np.r_[rows, own], np.r_[columns, own])), shape=(n, n)
    )
    return Graph(pattern.indptr, pattern.indices)


def of_points(points: Array, neighbors: int) -> Graph:
    """The graph of nearest neighbors: each point itself first, then the others by distance.

    Parameters
    ----------
    points : (n, d) float
    neighbors : int
        Neighbors of each point besides itself, 1 to n - 1.

    Returns
    -------
    Graph
        Not necessarily mutual: a point need not be among the neighbors of its neighbor.

    Raises
    ------
    ValueError
        If `points` or `neighbors` is not as described.

    Examples
    --------
    >>> import numpy as np
    >>> from tiledlaf import graph
    >>> found = graph.of_points(np.array([[0.0], [1.0], [3.0]]), neighbors=1)
    >>> found.indices.reshape(3, 2)  # one row per point
    array([[0, 1],
           [1, 0],
           [2, 1]], dtype=int32)
    """
    points = np.asarray(points)
    if points.ndim != 2 or not 0 < neighbors < len(points) or not np.isfinite(points).all():
        raise InputError(
            f"expected finite points (n, d) and 1 to n - 1 neighbors, got shape {points.shape} "
            f"and {neighbors}"
        )
    n = len(points)
    found = scipy.spatial.cKDTree(points).query(points, neighbors + 1, workers=-1)[1]
    # where points coincide, the point itself need not come first, or at all
    own = np.arange(n)[:, None]
    found = np.where((found == own).any(axis=1, keepdims=True), found, np.c_[own, found[:, :-1]])
    first = np.argsort(found != own, axis=1, kind="stable")
    found = np.take_along_axis(found, first, axis=1)
    return Graph(np.arange(0, found.size + 1, neighbors + 1), found.ravel())


def of_regions(labels: Array) -> Graph:
    """The graph of superpixels: regions that touch along an axis are neighbors.

    Parameters
    ----------
    labels : (*grid) int
        Region 1 is node 0, and so on; 0 belongs to no region.

    Returns
    -------
    Graph

    Raises
    ------
    ValueError
        If the regions are not the integers 1, 2, ... without gaps.

    Examples
    --------
    >>> import numpy as np
    >>> from tiledlaf import graph
    >>> regions = np.array([[1, 1, 2], [1, 1, 2], [3, 3, 0]])
    >>> found = graph.of_regions(regions)
    >>> found.nodes, found.indptr.tolist(), found.indices.tolist()
    (3, [0, 3, 5, 7], [0, 1, 2, 0, 1, 0, 2])
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


def _regions(labels: Array) -> int:
    """Number of regions; refuse gaps in the numbering."""
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu" or labels.size == 0 or labels.min() < 0:
        raise InputError(f"expected regions as integers from 0, got {labels.dtype}")
    n = int(labels.max())
    found = np.count_nonzero(np.bincount(labels.ravel(), minlength=n + 1)[1:])
    if n == 0 or found < n:
        raise InputError(f"expected regions 1, 2, ... without gaps, got {found} of {n}")
    return n


def means(planes: Array, labels: Array) -> np.ndarray:
    """Means of planes (C, *grid) over regions, (C, n): of distances, or of features."""
    n, flat = _regions(labels), np.ravel(labels)
    count = np.bincount(flat, minlength=n + 1)[1:]
    sums = [np.bincount(flat, np.ravel(plane), n + 1)[1:] for plane in planes]
    return (np.stack(sums) / count).astype(np.result_type(planes, np.float32))


def majority(target: Array, labels: Array) -> np.ndarray:
    """The most frequent class 1..J in each region, (n,); 0 where no pixel is labeled."""
    n, classes = _regions(labels), int(np.max(target))
    votes = [
        np.bincount(np.ravel(labels)[np.ravel(target) == j], minlength=n + 1)[1:]
        for j in range(1, classes + 1)
    ]
    found = np.argmax(votes, axis=0) + 1
    return np.where(np.max(votes, axis=0) > 0, found, 0).astype(np.min_scalar_type(classes))


def paint(values: Array, labels: Array) -> np.ndarray:
    """Values of regions (..., n) on their pixels, (..., *grid); 0 outside all regions."""
    values = np.asarray(values)
    first = np.zeros((*values.shape[:-1], 1), values.dtype)
    return np.concatenate([first, values], axis=-1)[..., labels]


def directions(graph: Graph, places: Array, sectors: int = 8) -> np.ndarray:
    """Kinds of edges by direction: 0 to the node itself, 1..sectors by angle, (E,).

    Parameters
    ----------
    places : (2, n)
        y and x of the nodes; sector 1 is centered on +x, and the next ones turn towards +y.
    """
    if np.shape(places) != (2, graph.nodes):
        raise InputError(f"expected places (2, {graph.nodes}), got shape {np.shape(places)}")
    y, x = np.asarray(places)[:, graph.indices] - np.asarray(places)[:, graph.rows]
    turn = np.rint(np.arctan2(y, x) / (2 * math.pi) * sectors).astype(int) % sectors
    return np.where(graph.rows == graph.indices, 0, turn + 1)


def patch(graph: Graph, kinds: np.ndarray, planes: Array, count: int) -> np.ndarray:
    """Values around a node, (C * count, n): the mean over its neighbors of each kind, of planes.

    Kinds without a neighbor get the node's own value, much as an image is mirrored at its border.
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
