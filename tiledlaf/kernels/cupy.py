"""The kernels for a GPU: CUDA C, one thread per pixel, adjacent threads on adjacent pixels.

A pixel sees the same operations in the same order whatever the grid, so a window's interior is
bit-identical to the whole image. Kernels are queued on the current stream; nothing waits for them.
Same functions as the numpy sibling, whose docstrings apply.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import cupy
import numpy as np

from ..errors import InputError

# learning uses the readable reference, whose operators also work on device arrays
from .arrays import Array, Offsets
from .numpy import (
    align,
    alignment,
    chain,
    logarithm,
    predict,
    predict_adjoint,
    products,
    pull,
    scores,
    softmax,
)

__all__ = [
    "adjoint",
    "align",
    "alignment",
    "average",
    "chain",
    "classify",
    "decide",
    "distances",
    "flow",
    "logarithm",
    "predict",
    "predict_adjoint",
    "products",
    "pull",
    "scores",
    "similarity",
    "softmax",
]

BLOCK = (32, 8)  # threads: rows of pixels are coalesced, and the rows of a block share neighbors
REGISTERS = 32  # labels kept in registers; with more labels, averages wait in the output
GROUP = 16  # labels at once if there are more
# every fused multiply-add is explicit: the compiler must not choose where to contract
OPTIONS = ("--fmad=false",)

# J, K, G (labels held at once), OFFSETS (K triples), real, label_t, FMA and EXP are macros
SOURCE = r"""
typedef long long wide;  // planes of all labels may hold more than 2^31 values

#define GRID const int nz, const int ny, const int nx
#define PIXEL \
    const int x = blockIdx.x * blockDim.x + threadIdx.x; \
    const int y = blockIdx.y * blockDim.y + threadIdx.y; \
    const int z = blockIdx.z; \
    if (x >= nx || y >= ny) return; \
    const wide pixels = (wide)nz * ny * nx; \
    const wide i = ((wide)z * ny + y) * nx + x;
__constant__ const int offsets[K][3] = {OFFSETS};
// labels first .. first + G - 1, those under J; unrolled, so that t[g] is a register
#define EACH(g) _Pragma("unroll") for (int g = 0; g < G; ++g) if (J % G == 0 || first + g < J)
#define AT(j) ((wide)(j) * pixels + i)

// t_g = sum over k of w_k u_(first + g) at the neighbors (sign 1: weights of this pixel) or at the
// pixels that this one is a neighbor of (sign -1: their weights); outside the grid nothing is read
__device__ __forceinline__ void averages(
    const real *__restrict__ w, const real *__restrict__ u, real *t, const int first,
    const int sign, const int z, const int y, const int x, const wide i, const wide pixels, GRID)
{
    _Pragma("unroll") for (int g = 0; g < G; ++g) t[g] = 0;
    for (int k = 0; k < K; ++k) {
        const int a = z + sign * offsets[k][0];
        const int b = y + sign * offsets[k][1];
        const int c = x + sign * offsets[k][2];
        if (a < 0 || a >= nz || b < 0 || b >= ny || c < 0 || c >= nx) continue;
        const wide n = ((wide)a * ny + b) * nx + c;
        const real omega = w[k * pixels + (sign > 0 ? i : n)];
        EACH(g) t[g] = FMA(omega, u[(first + g) * pixels + n], t[g]);
    }
}
#define AVERAGES(u, sign) averages(w, u, t, first, sign, z, y, x, i, pixels, nz, ny, nx)

// Omega u, or with sign -1 Omega^T u, gathered: no two threads write to one pixel
extern "C" __global__ void average(
    const real *__restrict__ w, const real *__restrict__ u, real *__restrict__ out,
    const int sign, GRID)
{
    PIXEL
    real t[G];
    for (int first = 0; first < J; first += G) {
        AVERAGES(u, sign);
        EACH(g) out[AT(first + g)] = t[g];
    }
}

// S = softmax(Omega q)
extern "C" __global__ void similarity(
    const real *__restrict__ w, const real *__restrict__ q, real *__restrict__ s, GRID)
{
    PIXEL
    real t[G], best = 0, total = 0;
    for (int first = 0; first < J; first += G) {
        AVERAGES(q, 1);
        EACH(g) {
            best = first + g == 0 || t[g] > best ? t[g] : best;
            if (J > G) s[AT(first + g)] = t[g];
        }
    }
    for (int first = 0; first < J; first += G) EACH(g) {
        t[g] = EXP((J > G ? s[AT(first + g)] : t[g]) - best);
        total += t[g];
        if (J > G) s[AT(first + g)] = t[g];
    }
    for (int first = 0; first < J; first += G) EACH(g)
        s[AT(first + g)] = (J > G ? s[AT(first + g)] : t[g]) / total;
}

// out = B + keep u + c R_S Omega u with the source B = S - 1/J
extern "C" __global__ void step(
    const real *__restrict__ w, const real *__restrict__ s, const real *__restrict__ u,
    real *__restrict__ out, const real c, const int keep, GRID)
{
    PIXEL
    real t[G], dot = 0;
    for (int first = 0; first < J; first += G) {
        AVERAGES(u, 1);
        EACH(g) {
            dot = FMA(s[AT(first + g)], t[g], dot);
            if (J > G) out[AT(first + g)] = t[g];
        }
    }
    for (int first = 0; first < J; first += G) EACH(g) {
        const wide at = AT(first + g);
        const real mean = J > G ? out[at] : t[g];
        const real next = FMA(s[at] * c, mean - dot, s[at] - (real)(1.0 / J));
        out[at] = keep ? next + u[at] : next;
    }
}

extern "C" __global__ void decide(
    const real *__restrict__ u, label_t *__restrict__ label, real *__restrict__ confidence,
    real *__restrict__ gap, GRID)
{
    PIXEL
    int arg = 0;
    real best = u[i], second = u[i], total = 0;
    for (int j = 1; j < J; ++j) {
        const real v = u[AT(j)];
        if (v > best) { second = best; best = v; arg = j; }
        else if (j == 1 || v > second) second = v;
    }
    for (int j = 0; j < J; ++j) total += EXP(u[AT(j)] - best);
    label[i] = arg + 1;
    confidence[i] = 1 / total;
    gap[i] = best - second;
}
"""

# no fused operations, to match the numpy sibling bit for bit
_DISTANCES = cupy.ElementwiseKernel(
    "raw T image, raw float32 prototypes, int64 pixels, int64 labels, int64 channels, "
    "float32 factor",
    "raw float32 out",
    """
    for (long long j = 0; j < labels; ++j) {
        float d = 0;
        for (long long c = 0; c < channels; ++c) {
            const float f = static_cast<float>(image[c * pixels + i]);
            const float e = f - prototypes[j * channels + c];
            d += e * e;
        }
        out[j * pixels + i] = d * factor;
    }
    """,
    "tiledlaf_distances",
    options=OPTIONS,
)


@lru_cache
def _module(labels: int, offsets: Offsets, dtype: str) -> Any:
    double = dtype == "float64"
    macros = {
        "J": labels,
        "K": len(offsets),
        "G": labels if labels <= REGISTERS else GROUP,
        "OFFSETS": ", ".join(f"{{{', '.join(map(str, o))}}}" for o in offsets),
        "real": "double" if double else "float",
        "label_t": "unsigned char" if labels < 256 else "unsigned short",
        "FMA": "fma" if double else "fmaf",
        "EXP": "exp" if double else "expf",
    }
    head = "".join(f"#define {name} {value}\n" for name, value in macros.items())
    return cupy.RawModule(code=head + SOURCE, options=OPTIONS)


def _launch(name: str, offsets: Offsets, planes: Array, *arguments: Any) -> None:
    """Queue a kernel with one thread per pixel of the planes."""
    if planes.dtype not in (np.float32, np.float64):
        raise InputError(f"expected float32 or float64 arrays, got {planes.dtype}")
    nz, ny, nx = (1,) * (4 - planes.ndim) + planes.shape[1:]
    blocks = (-(-nx // BLOCK[0]), -(-ny // BLOCK[1]), nz)
    triples = tuple((0,) * (3 - len(o)) + tuple(map(int, o)) for o in offsets)
    kernel = _module(len(planes), triples, planes.dtype.name).get_function(name)
    kernel(blocks, BLOCK, (*arguments, np.int32(nz), np.int32(ny), np.int32(nx)))


def _planes(weights: Array, x: Array, offsets: Offsets) -> tuple[Array, Array]:
    """Check shapes and types, lest a kernel read wrong memory; make the arrays contiguous."""
    if weights.dtype != x.dtype:
        raise InputError(f"expected arrays of one type, got {weights.dtype} and {x.dtype}")
    expected = (len(offsets), *x.shape[1:])
    if weights.shape != expected:
        raise InputError(f"weights must have shape {expected}, got {weights.shape}")
    return cupy.ascontiguousarray(weights), cupy.ascontiguousarray(x)


def _read(name: str, weights: Array, x: Array, offsets: Offsets, *arguments: Any) -> Array:
    weights, x = _planes(weights, x, offsets)
    out = cupy.empty_like(x)
    _launch(name, offsets, x, weights, x, out, *arguments)
    return out


def average(weights: Array, x: Array, offsets: Offsets) -> Array:
    """Omega x."""
    return _read("average", weights, x, offsets, np.int32(1))


def adjoint(weights: Array, x: Array, offsets: Offsets) -> Array:
    """Omega^T x."""
    return _read("average", weights, x, offsets, np.int32(-1))


def similarity(weights: Array, q: Array, offsets: Offsets) -> Array:
    """S = softmax(Omega q)."""
    return _read("similarity", weights, q, offsets)


def flow(
    weights: Array,
    q: Array,
    offsets: Offsets,
    coefficients: Sequence[float],
    keep: bool = False,
    scale: float = 1.0,
) -> Array:
    """Z of a linearized flow: S, then one kernel per coefficient, between two buffers."""
    weights, q = _planes(weights, q, offsets)
    real = q.dtype.type
    s = similarity(weights, q, offsets)
    u = s - real(1 / len(s))
    out = cupy.empty_like(u)
    for c in coefficients:
        _launch("step", offsets, u, weights, s, u, out, real(c), np.int32(keep))
        u, out = out, u
    u *= real(scale)
    return u


def decide(z: Array) -> tuple[Array, Array, Array]:
    """Label, confidence and gap of every pixel."""
    z = cupy.ascontiguousarray(z)
    label = cupy.empty(z.shape[1:], np.uint8 if len(z) < 256 else np.uint16)
    confidence, gap = cupy.empty_like(z[0]), cupy.empty_like(z[0])
    _launch("decide", ((0,) * (z.ndim - 1),), z, z, label, confidence, gap)
    return label, confidence, gap


def classify(
    weights: Array,
    q: Array,
    offsets: Offsets,
    coefficients: Sequence[float],
    keep: bool = False,
    scale: float = 1.0,
    log_w0: Array | None = None,
) -> tuple[Array, Array, Array]:
    """`decide` on log W0 + Z."""
    z = flow(weights, q, offsets, coefficients, keep, scale)
    if log_w0 is not None:
        z += log_w0
    return decide(z)


def distances(image: Array, prototypes: Array, scale: float) -> Array:
    """Squared distances to the prototypes."""
    prototypes = cupy.asarray(prototypes, np.float32, order="C")
    if prototypes.shape[1] != len(image):
        raise InputError(f"prototypes need {len(image)} columns, got {prototypes.shape[1]}")
    out = cupy.empty((len(prototypes), *image.shape[1:]), np.float32)
    image, pixels, factor = cupy.ascontiguousarray(image), image[0].size, np.float32(1 / scale)
    _DISTANCES(image, prototypes, pixels, *prototypes.shape, factor, out, size=pixels)
    return out
