"""Dense float64 oracle of the linearized assignment flow, for tests on small grids.

It shares no code with the library: plain loops over pixels, dense matrices, scipy's expm.
Equation numbers are those of Zeilmann, Petra, Schnoerr, "Learning Linearized Assignment Flows
for Image Labeling", JMIV 65 (2023).

Conventions: the grid is (H, W) or (Z, Y, X), n its number of pixels in C order. Arrays are label
first: distances, w0, s, z, v are (J, *grid). Weights are (K, *grid); weights[k][i] weighs the
neighbour i + offsets[k]. A mask is True at valid pixels. Neighbourhoods are truncated at the
border and at masked-out pixels, where weights, source and Z are 0. w0 None is the barycenter;
elsewhere w0 has to be positive at every valid pixel.
"""

from collections.abc import Sequence

import numpy as np
from scipy.linalg import expm

Array = np.ndarray
Offsets = Sequence[Sequence[int]]
Grid = tuple[int, ...]


def _neighbour(pixel: Grid, offset: Sequence[int], grid: Grid) -> Grid | None:
    """The pixel at pixel + offset, or None if that lies outside the grid."""
    other = tuple(int(p) + int(o) for p, o in zip(pixel, offset, strict=True))
    inside = all(0 <= p < size for p, size in zip(other, grid, strict=True))
    return other if inside else None


def _valid_neighbours(offsets: Offsets, grid: Grid, mask: Array | None) -> Array:
    """(K, *grid) bool: pixel i and its neighbour i + offsets[k] are both valid."""
    valid = np.zeros((len(offsets), *grid), dtype=bool)
    for k, offset in enumerate(offsets):
        for pixel in np.ndindex(*grid):
            other = _neighbour(pixel, offset, grid)
            if other is not None:
                valid[(k, *pixel)] = mask is None or (mask[pixel] and mask[other])
    return valid


def _normalised(weights: Array) -> Array:
    """Rows divided by their sums; all-zero rows (masked-out pixels) stay zero."""
    total = weights.sum(axis=0)
    return weights / np.where(total > 0, total, 1.0)


def uniform_weights(offsets: Offsets, grid: Grid, mask: Array | None = None) -> Array:
    """The barycenter of every weight patch: 1 / number of valid neighbours (2.18)."""
    return _normalised(_valid_neighbours(offsets, grid, mask).astype(np.float64))


def random_weights(
    offsets: Offsets, grid: Grid, rng: np.random.Generator, mask: Array | None = None
) -> Array:
    """Random weight patches, positive and summing to 1 over the valid neighbours (2.18)."""
    raw = rng.uniform(0.1, 1.0, size=(len(offsets), *grid))
    return _normalised(np.where(_valid_neighbours(offsets, grid, mask), raw, 0.0))


def omega_matrix(weights: Array, offsets: Offsets) -> Array:
    """Dense (n, n) matrix of (Omega X)_i = sum_k omega_ik X_k over the neighbours k of i."""
    grid = weights.shape[1:]
    index = np.arange(int(np.prod(grid))).reshape(grid)
    omega = np.zeros((index.size, index.size))
    for k, offset in enumerate(offsets):
        for pixel in np.ndindex(*grid):
            other = _neighbour(pixel, offset, grid)
            if other is not None:
                omega[index[pixel], index[other]] += weights[(k, *pixel)]
            elif weights[(k, *pixel)] != 0:
                raise ValueError(f"weight {k} of pixel {pixel} points outside the grid")
    return omega


def average(weights: Array, x: Array, offsets: Offsets) -> Array:
    """Omega X, each of the planes of x (J, *grid) averaged by the weights."""
    planes = np.asarray(x, dtype=np.float64).reshape(len(x), -1)
    return (planes @ omega_matrix(weights, offsets).T).reshape(np.shape(x))


def adjoint(weights: Array, x: Array, offsets: Offsets) -> Array:
    """Omega^T X, (Omega^T X)_k = sum of omega_ik X_i over the pixels i with neighbour k."""
    planes = np.asarray(x, dtype=np.float64).reshape(len(x), -1)
    return (planes @ omega_matrix(weights, offsets)).reshape(np.shape(x))


def _softmax(x: Array) -> Array:
    """softmax over the labels, per pixel."""
    e = np.exp(x - x.max(axis=0))
    return e / e.sum(axis=0)


def _start(w0: Array | None, shape: tuple[int, ...], mask: Array | None = None) -> Array:
    """W0 in float64, the barycenter 1/J if it is None and at masked-out pixels."""
    barycenter = np.full(shape, 1.0 / shape[0])
    if w0 is None:
        return barycenter
    return np.where(True if mask is None else mask, np.asarray(w0, np.float64), barycenter)


def _tangent(x: Array) -> Array:
    """Pi_0 x = x - mean of x over the labels, per pixel."""
    return x - x.mean(axis=0)


def similarity(
    weights: Array,
    distances: Array,
    offsets: Offsets,
    rho: float = 1.0,
    w0: Array | None = None,
    mask: Array | None = None,
) -> Array:
    """S(W0) = softmax(Omega (log W0 - D / rho)) (2.16)-(2.17); 1/J at masked-out pixels."""
    d = np.asarray(distances, dtype=np.float64)
    if mask is not None:
        d = np.where(mask, d, 0.0)
    s = _softmax(average(weights, np.log(_start(w0, d.shape, mask)) - d / rho, offsets))
    return _start(s, s.shape, mask)


def replicator(p: Array, u: Array) -> Array:
    """R_p u = p * u - p <p, u> per pixel (2.11b)."""
    return p * u - p * (p * u).sum(axis=0)


def _replicator_matrix(p: Array) -> Array:
    """Dense (n*J, n*J) matrix of R_p: the block diag(p_i) - p_i p_i^T at each pixel i."""
    labels = p.shape[0]
    planes = np.asarray(p, dtype=np.float64).reshape(labels, -1)
    n = planes.shape[1]
    matrix = np.zeros((labels * n, labels * n))
    for i in range(n):
        rows = np.arange(labels) * n + i
        matrix[np.ix_(rows, rows)] = np.diag(planes[:, i]) - np.outer(planes[:, i], planes[:, i])
    return matrix


def operator_matrix(weights: Array, s: Array, offsets: Offsets) -> Array:
    """Dense (n*J, n*J) matrix of A Z = R_S Omega Z on vectors flattened from (J, *grid)."""
    omega = np.kron(np.eye(s.shape[0]), omega_matrix(weights, offsets))
    return _replicator_matrix(s) @ omega


def operator_matrix_v(weights: Array, s: Array, offsets: Offsets, w0: Array | None) -> Array:
    """Dense (n*J, n*J) matrix of A V = R_W0 R_S Omega (V / W0) (2.20)-(2.24)."""
    w = _start(w0, s.shape)
    omega = np.kron(np.eye(s.shape[0]), omega_matrix(weights, offsets))
    return _replicator_matrix(w) @ _replicator_matrix(s) @ omega @ np.diag(1.0 / w.ravel())


def _solve(a: Array, b: Array, time: float) -> Array:
    """x(T) of x' = a x + b, x(0) = 0: last column of expm([[T a, T b], [0, 0]])."""
    size = a.shape[0]
    bordered = np.zeros((size + 1, size + 1))
    bordered[:size, :size] = time * a
    bordered[:size, size] = time * b.ravel()
    return expm(bordered)[:size, size].reshape(b.shape)


def flow_z(
    weights: Array,
    distances: Array,
    offsets: Offsets,
    time: float,
    rho: float = 1.0,
    w0: Array | None = None,
    mask: Array | None = None,
) -> Array:
    """Z(T) of Z' = R_S Omega Z + Pi_0 S, Z(0) = 0."""
    s = similarity(weights, distances, offsets, rho, w0, mask)
    return _solve(operator_matrix(weights, s, offsets), _tangent(s), time)


def flow_v(
    weights: Array,
    distances: Array,
    offsets: Offsets,
    time: float,
    rho: float = 1.0,
    w0: Array | None = None,
    mask: Array | None = None,
) -> Array:
    """V(T) of V' = R_W0 R_S Omega (V / W0) + R_W0 S, V(0) = 0 (2.20)-(2.24); not through Z."""
    s = similarity(weights, distances, offsets, rho, w0, mask)
    start = _start(w0, s.shape, mask)
    return _solve(operator_matrix_v(weights, s, offsets, start), replicator(start, s), time)


def assignment(z: Array, w0: Array | None = None) -> Array:
    """W = softmax(log W0 + Z)."""
    return _softmax(np.log(_start(w0, z.shape)) + z)


def lift(w0: Array | None, v: Array) -> Array:
    """Exp_W0(V) = W0 exp(V / W0) / <W0, exp(V / W0)> (2.11e)."""
    w = _start(w0, v.shape)
    u = v / w
    e = w * np.exp(u - u.max(axis=0))
    return e / e.sum(axis=0)


def taylor(
    weights: Array,
    distances: Array,
    offsets: Offsets,
    time: float,
    degree: int,
    rho: float = 1.0,
    w0: Array | None = None,
    mask: Array | None = None,
) -> Array:
    """Z_n = sum over k = 1..n of T^k / k! A^(k-1) Pi_0 S, n = degree."""
    s = similarity(weights, distances, offsets, rho, w0, mask)
    a = operator_matrix(weights, s, offsets)
    power = _tangent(s).ravel()
    coefficient = 1.0
    z = np.zeros_like(power)
    for k in range(1, degree + 1):
        coefficient *= time / k
        z = z + coefficient * power
        power = a @ power
    return z.reshape(s.shape)


def euler(
    weights: Array,
    distances: Array,
    offsets: Offsets,
    time: float,
    steps: int,
    rho: float = 1.0,
    w0: Array | None = None,
    mask: Array | None = None,
) -> Array:
    """Explicit Euler (3.49), step T / steps, on Z' = A Z + Pi_0 S, Z(0) = 0."""
    s = similarity(weights, distances, offsets, rho, w0, mask)
    a = operator_matrix(weights, s, offsets)
    source = _tangent(s).ravel()
    z = np.zeros_like(source)
    for _ in range(steps):
        z = z + (time / steps) * (a @ z + source)
    return z.reshape(s.shape)
