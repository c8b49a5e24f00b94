"""Neighborhoods on graphs: CSR rows instead of offsets, one weight per edge instead of planes.

The functions of `kernels.numpy` take a `Graph` wherever they take offsets: only this module depends
on how neighbors are stored.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse

from ..errors import InputError

Array = Any


@dataclass(frozen=True, eq=False)
class Graph:
    """Neighbors of each node, which include the node itself and need not be mutual.

    Weights are (E,), one per edge, and sum to 1 over a row; arrays on nodes are (J, n).

    Attributes
    ----------
    indptr : (n + 1,) int
        The edges of node i are indptr[i] to indptr[i + 1].
    indices : (E,) int
        Neighbors, in any order.
    """

    indptr: np.ndarray
    indices: np.ndarray

    def __post_init__(self) -> None:
        for name in ("indptr", "indices"):
            given = np.asarray(getattr(self, name))
            if given.ndim != 1 or given.dtype.kind not in "iu":
                raise InputError(
                    f"{name} of a graph must be a row of integers, got {given.dtype} of shape "
                    f"{given.shape}"
                )
            kept = given.astype(np.int32 if given.max(initial=0) < 2**31 else np.int64)
            object.__setattr__(self, name, kept)
        p, n = self.indptr, self.nodes
        if n < 1 or p[0] != 0 or p[-1] != self.edges or (np.diff(p) < 0).any():
            raise InputError(
                f"indptr of a graph must rise from 0 to the {self.edges} edges, got {p[:9]}..."
            )
        if self.edges and not 0 <= self.indices.min() <= self.indices.max() < n:
            raise InputError(
                f"neighbors must be nodes 0 to {n - 1}, got {self.indices.min()} to "
                f"{self.indices.max()}"
            )
        alone = n - np.count_nonzero(self.rows == self.indices)
        # row indices are sorted within a column
        rows, starts = self._columns.indices, self._columns.indptr[1:-1]
        again = rows[1:] == rows[:-1]
        again[starts[(starts > 0) & (starts < self.edges)] - 1] = False
        if alone or again.any():
            raise InputError("each node must be its own neighbor, and no node a neighbor twice")

    @property
    def nodes(self) -> int:
        """Number of nodes, n."""
        return len(self.indptr) - 1

    @property
    def edges(self) -> int:
        """Number of edges, E."""
        return len(self.indices)

    @functools.cached_property
    def degrees(self) -> np.ndarray:
        """Number of neighbors of each node, (n,)."""
        return np.diff(self.indptr)

    @functools.cached_property
    def rows(self) -> np.ndarray:
        """The node that each edge belongs to, (E,)."""
        return np.repeat(np.arange(self.nodes, dtype=self.indices.dtype), self.degrees)

    def matrix(self, weights: Array) -> Any:
        """Omega as a scipy.sparse array, (n, n)."""
        return scipy.sparse.csr_array(
            (weights, self.indices, self.indptr), shape=(self.nodes, self.nodes)
        )

    @functools.cached_property
    def _columns(self) -> Any:
        """Index of each edge, column by column, as a scipy.sparse array (n, n)."""
        return self.matrix(np.arange(self.edges)).tocsc()

    @functools.cached_property
    def _opposite(self) -> Graph:
        return Graph(self._columns.indptr, self._columns.indices)

    def opposite(self) -> Graph:
        """The neighbors of Omega^T."""
        return self._opposite

    def transpose(self, weights: Array) -> Array:
        """Weights of Omega^T on the opposite graph, (E,)."""
        return weights[self._columns.data]

    def average(self, weights: Array, x: Array) -> Array:
        """(Omega x)_i = sum of omega_ik x_k over k in N_i, (J, n)."""
        omega = self.matrix(weights)
        return np.stack([omega @ plane for plane in x])

    def adjoint(self, weights: Array, x: Array) -> Array:
        """(Omega^T x)_k = sum of omega_ik x_i over the i with k in N_i, (J, n)."""
        omega = self.matrix(weights).T
        return np.stack([omega @ plane for plane in x])

    def pairs(self, a: Array, b: Array) -> Array:
        """<a_i, b_k> for each edge, (E,), with a and b (J, n)."""
        out = np.zeros(self.edges, np.result_type(a, b))
        for x, y in zip(a, b, strict=True):
            out += x[self.rows] * y[self.indices]
        return out

    def sum(self, values: Array) -> Array:
        """Sum over the row of each edge, (E,)."""
        return self.spread(np.add.reduceat(values, self.indptr[:-1]))

    def max(self, values: Array) -> Array:
        """Maximum over the row of each edge, (E,)."""
        return self.spread(np.maximum.reduceat(values, self.indptr[:-1]))

    def spread(self, values: Array) -> Array:
        """Repeat values of nodes (n, ...) for the edges of each node, (E, ...)."""
        return np.repeat(values, self.degrees, axis=0)
