"""Pixelwise maps on the open simplex; the first axis holds the coordinates of a point.

Equations (2.11) of Zeilmann, Petra, Schnörr (J. Math. Imaging Vis. 2023). All functions take
NumPy or CuPy arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = Any


def softmax(u: Array) -> Array:
    """exp(u) / sum exp(u): the lifting map at the barycenter."""
    e = np.exp(u - u.max(axis=0))
    return e / e.sum(axis=0)


def project(u: Array) -> Array:
    """Pi_0 u = u - mean(u), the projection onto the tangent space T_0."""
    return u - u.mean(axis=0)


def replicator(p: Array, u: Array) -> Array:
    """The replicator map R_p u = p u - p <p, u> (2.11b)."""
    return p * (u - (p * u).sum(axis=0))
