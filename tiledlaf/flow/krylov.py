"""Arnoldi's method and phi(z) = (e^z - 1) / z, given only a matrix-vector product.

Vectors are NumPy or CuPy arrays of any shape; the small exponentials run on the CPU in float64.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg

Array = Any
SMALL = 1e-290  # a sum of squares from which on none of its digits are lost


@dataclass(frozen=True)
class Basis:
    """Orthonormal basis of a Krylov space: A q_l = sum_k h_kl q_k.

    Attributes
    ----------
    vectors : list of m arrays
    hessenberg : (m + 1, m) float64; the last row is zero after a happy breakdown
    norm : float, ||b||
    matvecs : int
    """

    vectors: list[Array]
    hessenberg: np.ndarray
    norm: float
    matvecs: int


def arnoldi(matvec: Callable[[Array], Array], b: Array, dim: int) -> Basis:
    """Orthonormal basis of span(b, A b, ..., A^(dim-1) b), reorthogonalized once (2.28)."""
    norm = norm_of(b)
    if norm == 0:
        return Basis([], np.zeros((1, 0)), 0.0, 0)
    vectors, h = [b / norm], np.zeros((dim + 1, dim))
    for column in range(dim):
        w = matvec(vectors[column])
        before = norm_of(w)
        for _ in range(2):
            for row, q in enumerate(vectors):
                projection = _dot(q, w)
                h[row, column] += projection
                w = w - b.dtype.type(projection) * q
        length = norm_of(w)
        # only rounding is left: the space is invariant (happy breakdown)
        if length <= 10 * np.finfo(b.dtype).eps * max(before, np.finfo(b.dtype).tiny):
            return Basis(vectors, h[: column + 2, : column + 1], norm, column + 1)
        h[column + 1, column] = length
        if column + 1 < dim:
            vectors.append(w / b.dtype.type(length))
    return Basis(vectors, h, norm, dim)


def phi_action(
    matvec: Callable[[Array], Array], b: Array, time: float, dim: int
) -> tuple[Array, float, int]:
    """T phi(T A) b from a Krylov space of dimension `dim` (2.28).

    Returns
    -------
    value : array like b
    error : float
        A posteriori estimate of the 2-norm of the error, h_(m+1,m) T^2 |e_m' phi_2(T H) e_1| ||b||.
    matvecs : int
    """
    basis = arnoldi(matvec, b, dim)
    coefficients, error = phi_core(basis, time)
    return combine(coefficients, basis.vectors, b), error, basis.matvecs


def phi_core(basis: Basis, time: float) -> tuple[np.ndarray, float]:
    """Coefficients of T phi(T A) b in the basis, and the error estimate."""
    m = len(basis.vectors)
    if m == 0:
        return np.zeros(0), 0.0
    # exp of [[T H, T e1, 0], [0, 0, T], [0, 0, 0]] holds T phi_1 and T^2 phi_2 in its last columns
    bordered = np.zeros((m + 2, m + 2))
    bordered[:m, :m] = time * basis.hessenberg[:m]
    bordered[0, m] = bordered[m, m + 1] = time
    exponential = scipy.linalg.expm(bordered)
    error = basis.norm * basis.hessenberg[m, m - 1] * abs(exponential[m - 1, m + 1])
    return basis.norm * exponential[:m, m], float(error)


def combine(coefficients: np.ndarray, vectors: list[Array], like: Array) -> Array:
    """Linear combination of the vectors; zeros like `like` if there are none."""
    value = 0 * like
    for coefficient, q in zip(coefficients, vectors, strict=True):
        value += like.dtype.type(coefficient) * q
    return value


def _dot(x: Array, y: Array) -> float:
    # sum in float64: with float32 sums orthogonality is lost on large images
    return float((x.astype(np.float64) * y).sum())


def norm_of(x: Array) -> float:
    """The 2-norm, also of numbers whose squares overflow or underflow in float64."""
    with np.errstate(over="ignore", invalid="ignore"):
        square = _dot(x, x)
    if math.isfinite(square) and (square > SMALL or not square):
        return math.sqrt(square)
    largest = float(abs(x).max())
    if not (0 < largest < math.inf):
        return largest
    if largest < sys.float_info.min:  # too few digits to divide by
        return largest
    return largest * norm_of(x / x.dtype.type(largest))
