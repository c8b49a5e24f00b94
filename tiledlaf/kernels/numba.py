"""The kernels for a CPU: explicit vectors along rows, one thread, without the GIL.

Rows of x lie in buffers padded with zeros by the neighborhood's radius, so that a neighbor is a
constant distance away in memory. The last vector of a row is moved back to end with the row: it
computes some pixels twice, in the same way. Labels go in blocks of four that share the loads of
the weights. Same functions as the numpy sibling, whose docstrings hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit

from .numpy import Array, Offsets, opposite, transpose
from .vector import exp, fma, lanes_of, load, registers, splat, store, where_greater

WIDTH = 16  # pixels of the widest vector: no row is shorter
AVERAGE, SOFTMAX, STEP, STEP_KEEP = range(4)
_jit = njit(nogil=True, cache=True, error_model="numpy")
_inline = njit(forceinline=True, error_model="numpy")


@_inline
def _averages(w, pixels, i, u, plane, p, steps, labels, t, lanes):  # type: ignore[no-untyped-def]
    """t_j = sum_k w_k[i] u_j[p + steps k] for one vector of pixels and every label j."""
    zero = splat(u.dtype.type(0))
    j = 0
    while j + 4 <= labels:
        a = b = c = d = zero
        q = j * plane + p
        for k in range(len(steps)):
            omega = load(w, k * pixels + i)
            o = q + steps[k]
            a = fma(omega, load(u, o), a)
            b = fma(omega, load(u, o + plane), b)
            c = fma(omega, load(u, o + 2 * plane), c)
            d = fma(omega, load(u, o + 3 * plane), d)
        store(t, j * lanes, a)
        store(t, (j + 1) * lanes, b)
        store(t, (j + 2) * lanes, c)
        store(t, (j + 3) * lanes, d)
        j += 4
    while j + 2 <= labels:
        a = b = zero
        q = j * plane + p
        for k in range(len(steps)):
            omega = load(w, k * pixels + i)
            a = fma(omega, load(u, q + steps[k]), a)
            b = fma(omega, load(u, q + steps[k] + plane), b)
        store(t, j * lanes, a)
        store(t, (j + 1) * lanes, b)
        j += 2
    if j < labels:
        a = zero
        for k in range(len(steps)):
            a = fma(load(w, k * pixels + i), load(u, j * plane + p + steps[k]), a)
        store(t, j * lanes, a)


@_inline
def _softmax(labels, t, lanes, out, plane, p):  # type: ignore[no-untyped-def]
    best = load(t, 0)
    for j in range(1, labels):
        v = load(t, j * lanes)
        best = where_greater(v, best, v, best)
    total = splat(out.dtype.type(0))
    for j in range(labels):
        e = exp(load(t, j * lanes) - best)
        total = total + e
        store(t, j * lanes, e)
    for j in range(labels):
        store(out, j * plane + p, load(t, j * lanes) / total)


@_inline
def _step(labels, t, lanes, s, pixels, i, c, keep, u, out, plane, p):  # type: ignore[no-untyped-def]
    """out = S - 1/J + c R_S t, + u where kept."""
    dot = splat(out.dtype.type(0))
    for j in range(labels):
        dot = fma(load(s, j * pixels + i), load(t, j * lanes), dot)
    factor = splat(c)
    barycenter = splat(out.dtype.type(1 / labels))
    for j in range(labels):
        sj = load(s, j * pixels + i)
        new = fma(sj * factor, load(t, j * lanes) - dot, sj - barycenter)
        if keep:
            new = new + load(u, j * plane + p)
        store(out, j * plane + p, new)


@_jit
def _sweep(mode, w, u, s, c, steps, labels, shape, pad, out):  # type: ignore[no-untyped-def]
    """One visit to every pixel: t = Omega u, then what `mode` makes of t, into `out`.

    `out` is padded like u for a step, unpadded otherwise.
    """
    lanes = lanes_of(out)
    t = registers(out, labels)
    labels = len(labels)
    nz, ny, nx = shape
    rz, ry, rx = pad
    pixels = nz * ny * nx
    width = nx + 2 * rx
    plane = (nz + 2 * rz) * (ny + 2 * ry) * width
    for z in range(nz):
        for y in range(ny):
            row = (z * ny + y) * nx
            padded = ((z + rz) * (ny + 2 * ry) + y + ry) * width + rx
            for start in range(0, nx, lanes):
                x = min(start, nx - lanes)
                i, p = row + x, padded + x
                _averages(w, pixels, i, u, plane, p, steps, labels, t, lanes)
                if mode == SOFTMAX:
                    _softmax(labels, t, lanes, out, pixels, i)
                elif mode == AVERAGE:
                    for j in range(labels):
                        store(out, j * pixels + i, load(t, j * lanes))
                else:
                    keep = mode == STEP_KEEP
                    _step(labels, t, lanes, s, pixels, i, c, keep, u, out, plane, p)


@_jit
def _decide(z, labels, pixels, label, confidence, gap):  # type: ignore[no-untyped-def]
    lanes = lanes_of(z)
    one = splat(z.dtype.type(1))
    number = np.empty(lanes, z.dtype)
    for start in range(0, pixels, lanes):
        i = min(start, pixels - lanes)
        best = load(z, i)
        second = splat(z.dtype.type(-np.inf))
        where = one
        for j in range(1, labels):
            v = load(z, j * pixels + i)
            second = where_greater(v, best, best, where_greater(v, second, v, second))
            where = where_greater(v, best, splat(z.dtype.type(j + 1)), where)
            best = where_greater(v, best, v, best)
        total = splat(z.dtype.type(0))
        for j in range(labels):
            total = total + exp(load(z, j * pixels + i) - best)
        store(confidence, i, one / total)
        store(gap, i, best - second)
        store(number, 0, where)
        for x in range(lanes):
            label[i + x] = label.dtype.type(number[x])


@_jit
def _distances(image, prototypes, factor, out):  # type: ignore[no-untyped-def]
    for j in range(len(prototypes)):
        d = out[j]
        for c in range(len(image)):
            plane, value = image[c], prototypes[j, c]
            if c == 0:
                for i in range(len(d)):
                    e = np.float32(plane[i]) - value
                    d[i] = e * e
            else:
                for i in range(len(d)):
                    e = np.float32(plane[i]) - value
                    d[i] += e * e
        for i in range(len(d)):
            d[i] *= factor


class _Grid:
    """A 2-D or 3-D grid as (z, y, x) rows of at least WIDTH pixels, and its padded buffers."""

    def __init__(self, grid: Sequence[int], offsets: Offsets) -> None:
        *front, nx = grid
        self.inner = tuple(slice(n) for n in grid)
        self.wide = (*front, max(nx, WIDTH))
        self.shape = (1,) * (3 - len(grid)) + self.wide
        full = np.zeros((len(offsets), 3), np.int64)
        full[:, 3 - len(grid) :] = np.array(offsets, np.int64).reshape(len(offsets), -1)
        self.pad = tuple(int(r) for r in abs(full).max(axis=0))
        self.padded = tuple(n + 2 * r for n, r in zip(self.shape, self.pad, strict=True))
        strides = np.array([self.padded[1] * self.padded[2], self.padded[2], 1])
        self.steps = full @ strides

    def flat(self, planes: Array) -> Array:
        """Contiguous planes of the wide grid as one vector."""
        if planes.shape[1:] != self.wide:
            narrow, planes = planes, np.zeros((len(planes), *self.wide), planes.dtype)
            planes[:, *self.inner] = narrow
        return np.ascontiguousarray(planes).ravel()

    def empty(self, labels: int, dtype: Any) -> Array:
        return np.empty(labels * int(np.prod(self.shape)), dtype)

    def buffer(self, labels: int, dtype: Any) -> Array:
        return np.zeros(labels * int(np.prod(self.padded)), dtype)

    def core(self, buffer: Array, labels: int) -> Array:
        """The pixels of a padded buffer, (labels, *shape), a view."""
        inside = tuple(slice(r, r + n) for r, n in zip(self.pad, self.shape, strict=True))
        return buffer.reshape(labels, *self.padded)[:, *inside]

    def pack(self, planes: Array) -> Array:
        """Planes of the true grid in a padded buffer."""
        buffer = self.buffer(len(planes), planes.dtype)
        core = self.core(buffer, len(planes))
        core[..., : planes.shape[-1]] = planes.reshape(len(planes), *self.shape[:2], -1)
        return buffer

    def planes(self, flat: Array, labels: int) -> Array:
        """The true grid out of a vector of the wide one."""
        return np.ascontiguousarray(flat.reshape(labels, *self.wide)[:, *self.inner])


def _same_float(*arrays: Array) -> Any:
    kinds = {a.dtype for a in arrays}
    if len(kinds) > 1 or kinds.pop() not in (np.float32, np.float64):
        raise ValueError(f"expected arrays of one type, float32 or float64, got {[a.dtype for a in arrays]}")
    return arrays[0].dtype.type


def _read(mode: int, weights: Array, x: Array, offsets: Offsets) -> Array:
    dtype = _same_float(weights, x)
    grid, labels = _Grid(x.shape[1:], offsets), len(x)
    out = grid.empty(labels, dtype)
    nothing = np.empty(0, dtype)
    _sweep(
        mode, grid.flat(weights), grid.pack(x), nothing, dtype(0),
        grid.steps, (0,) * labels, grid.shape, grid.pad, out,
    )  # fmt: skip
    return grid.planes(out, labels)


def average(weights: Array, x: Array, offsets: Offsets) -> Array:
    """Omega x."""
    return _read(AVERAGE, weights, x, offsets)


def adjoint(weights: Array, x: Array, offsets: Offsets) -> Array:
    """Omega^T x: the average with transposed weights."""
    return average(transpose(weights, offsets), x, opposite(offsets))


def similarity(weights: Array, q: Array, offsets: Offsets) -> Array:
    """S = softmax(Omega q)."""
    return _read(SOFTMAX, weights, q, offsets)


def flow(
    weights: Array,
    q: Array,
    offsets: Offsets,
    coefficients: Sequence[float],
    keep: bool = False,
    scale: float = 1.0,
) -> Array:
    """All steps in one call: U = B; U <- B + keep U + c A U; Z = scale U."""
    dtype = _same_float(weights, q)
    s = similarity(weights, q, offsets)
    grid, labels = _Grid(s.shape[1:], offsets), len(s)
    w, flat = grid.flat(weights), grid.flat(s)
    u = grid.pack(s - dtype(1 / labels))
    out = grid.buffer(labels, dtype)
    for c in coefficients:
        _sweep(
            STEP_KEEP if keep else STEP, w, u, flat, dtype(c),
            grid.steps, (0,) * labels, grid.shape, grid.pad, out,
        )  # fmt: skip
        u, out = out, u
    z = grid.core(u, labels).reshape(labels, *grid.wide)[:, *grid.inner]
    return np.ascontiguousarray(z) * dtype(scale)


def classify(
    weights: Array,
    q: Array,
    offsets: Offsets,
    coefficients: Sequence[float],
    keep: bool = False,
    scale: float = 1.0,
    log_w0: Array | None = None,
) -> tuple[Array, Array, Array]:
    """`decide` on log W0 + Z of the `flow`."""
    z = flow(weights, q, offsets, coefficients, keep, scale)
    return decide(z if log_w0 is None else log_w0 + z)


def decide(z: Array) -> tuple[Array, Array, Array]:
    """Label, confidence and gap of every pixel."""
    dtype = _same_float(z)
    labels, pixels = len(z), z[0].size
    padding = max(WIDTH - pixels, 0)
    flat = np.ascontiguousarray(np.pad(z.reshape(labels, -1), ((0, 0), (0, padding))))
    label = np.empty(pixels + padding, np.uint8 if labels < 256 else np.uint16)
    confidence, gap = np.empty((2, pixels + padding), dtype)
    _decide(flat.ravel(), labels, pixels + padding, label, confidence, gap)
    label, confidence, gap = (a[:pixels].reshape(z.shape[1:]) for a in (label, confidence, gap))
    return label, confidence, gap


def distances(image: Array, prototypes: Array, scale: float) -> Array:
    """Squared distances to the prototypes."""
    out = np.empty((len(prototypes), *image.shape[1:]), np.float32)
    flat = np.ascontiguousarray(image).reshape(len(image), -1)
    _distances(
        flat, np.ascontiguousarray(prototypes, np.float32), np.float32(1 / scale),
        out.reshape(len(out), -1),
    )  # fmt: skip
    return out
