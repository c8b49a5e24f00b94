"""Filters of planes along their last two axes, of which features are made.

A plane is mirrored at its border, which is its own mirror. A filter reaches a fixed number of
pixels and does the same operations in the same order at each, so that a window with a halo gives
bitwise the same values as the whole image. Planes and results are C-contiguous float32.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from decimal import Decimal, localcontext
from typing import Any

import numpy as np

Blur = Callable[[float], np.ndarray]
Point = tuple[int, int]
# (y, x) at 0, 22.5, ... 157.5 degrees: roots alone, which are the same on all processors
WIDE, FINE = math.sqrt(0.5 + math.sqrt(0.125)), math.sqrt(0.5 - math.sqrt(0.125))
QUARTER = ((0.0, 1.0), (FINE, WIDE), (math.sqrt(0.5), math.sqrt(0.5)), (WIDE, FINE))
QUARTILES = (0, 0.25, 0.5, 0.75, 1)  # shares of the values below
DIRECTIONS = (*QUARTER, *((x, -y) for y, x in QUARTER))


def blur_radius(sigma: float) -> int:
    """Radius of a Gaussian in pixels: three sigma."""
    return math.ceil(3 * sigma)


@functools.cache
def gaussian(sigma: float) -> np.ndarray:
    """Weights of a Gaussian from the center outwards; with both sides their sum is 1.

    They use the decimal exp, which rounds correctly everywhere; others depend on the processor.
    """
    with localcontext(prec=40):
        two = 2 * Decimal(sigma) ** 2
        half = [float((-(n * n) / two).exp()) for n in range(blur_radius(sigma) + 1)]
    total = math.fsum(half + half[1:])
    return np.array(half) / total


def blurs(plane: np.ndarray) -> Blur:
    """The Gaussians of a plane, each computed once."""
    known: dict[float, np.ndarray] = {0.0: plane}

    def blur(sigma: float) -> np.ndarray:
        if sigma not in known:
            known[sigma] = smoothed(plane, sigma)
        return known[sigma]

    return blur


def smoothed(plane: np.ndarray, sigma: float) -> np.ndarray:
    """The plane smoothed by a Gaussian."""
    radius = blur_radius(sigma)
    places = (np.pad(np.arange(n), radius, mode="reflect") for n in plane.shape[-2:])
    out = np.empty_like(plane)
    _compiled().smooth(_flat(plane), gaussian(sigma), *places, _flat(out))
    return out


def mirrored(plane: np.ndarray, width: int) -> np.ndarray:
    """The plane with so many of its mirrored pixels on each side."""
    edges: Sequence[tuple[int, int]] = [(0, 0)] * (plane.ndim - 2) + [(width, width)] * 2
    return np.pad(plane, edges, mode="reflect")


def patch(out: np.ndarray, plane: np.ndarray, radius: int, dilation: int) -> None:
    """The values that are a dilation apart, row by row."""
    wide, (ny, nx) = mirrored(plane, radius * dilation), plane.shape[-2:]
    steps = range(0, 2 * radius * dilation + 1, dilation)
    for target, (y, x) in zip(out, ((y, x) for y in steps for x in steps), strict=True):
        target[...] = wide[..., y : y + ny, x : x + nx]


def gradient(out: np.ndarray, g: np.ndarray) -> None:
    """Magnitude of the gradient, from central differences."""
    _compiled().gradient(_flat(mirrored(g, 1)), _flat(out[0]))


def hessian(out: np.ndarray, g: np.ndarray) -> None:
    """Second differences xx, xy, yy."""
    _compiled().hessian(_flat(mirrored(g, 1)), _many(out))


def eigenvalues(out: np.ndarray, g: np.ndarray) -> None:
    """Both of the Hessian, the larger first."""
    _compiled().eigenvalues(_flat(mirrored(g, 1)), _many(out))


def structure(out: np.ndarray, g: np.ndarray, sigma: float) -> None:
    """Roots of both eigenvalues of the smoothed products of derivatives, the larger first."""
    # derivatives across a mirror change their sign: found on the mirrored plane, none goes wrong
    wide = mirrored(g, blur_radius(sigma) + 1)
    _compiled().structure(_flat(wide), gaussian(sigma).astype(np.float32), _many(out))


def line_points(length: float) -> list[list[Point]]:
    """Nine points (y, x) of each line in `DIRECTIONS`, up to the length away to both sides.

    They are the middle and the points a quarter of the length away, and these three again three
    quarters away, each time at the nearest pixel.
    """
    near, far = (_nearest(DIRECTIONS, length * part) for part in (0.25, 0.75))
    thrice = (-1, 0, 1)
    return [
        [(a * y + b * v, a * x + b * u) for b in thrice for a in thrice]
        for (y, x), (v, u) in zip(near, far, strict=True)
    ]


def line_reach(length: float) -> int:
    """How far `lines` looks: second differences at the ends, but only across lines on an axis."""
    straight, *slanted = (max(map(max, points)) for points in line_points(length)[:4])
    return max(straight, max(slanted) + 1)


def lines(out: np.ndarray, g: np.ndarray, length: float) -> None:
    """Second differences across eight lines, averaged along each: the largest and the smallest."""
    points = np.array(line_points(length))
    border = int(points.max())
    across = np.array([(y * y, -2 * y * x, x * x) for y, x in DIRECTIONS], np.float32)
    _compiled().lines(_flat(mirrored(g, border + 1)), across, points + border, _many(out))


def circle(distance: int) -> list[Point]:
    """The pixels (y, x) nearest to sixteen points on a circle, each once."""
    half = _nearest(DIRECTIONS, distance)
    return list(dict.fromkeys([*half, *((-y, -x) for y, x in half)]))


def ring(out: np.ndarray, g: np.ndarray, distance: int) -> None:
    """Mean and standard deviation of the values on a circle."""
    points = np.array(circle(distance)) + distance
    _compiled().ring(_flat(mirrored(g, distance)), points, _flat(out[0]), _flat(out[1]))


def quartiles(out: np.ndarray, g: np.ndarray, distance: int) -> None:
    """The least of the values on a circle, their quartiles, and the largest."""
    points = np.array(circle(distance)) + distance
    pairs, last = np.array(sorting_network(len(points))), len(points) - 1
    ranks = np.array([round(part * last) for part in QUARTILES])
    _compiled().ranked(_flat(mirrored(g, distance)), points, pairs, ranks, _many(out))


@functools.cache
def sorting_network(count: int) -> list[Point]:
    """Pairs that, put in order one after the other, sort so many values (Batcher's merge sort)."""
    found = []
    size = 1
    while size < count:
        step = size
        while step:
            for first in range(step % size, count - step, 2 * step):
                for low in range(first, min(first + step, count - step)):
                    if low // (2 * size) == (low + step) // (2 * size):
                        found.append((low, low + step))
            step //= 2
        size *= 2
    return found


def _nearest(directions: Sequence[tuple[float, float]], distance: float) -> list[Point]:
    """The pixels nearest to the points so far away in directions (y, x)."""
    return [(round(y * distance), round(x * distance)) for y, x in directions]


def _flat(planes: np.ndarray) -> np.ndarray:
    """(n, y, x)."""
    return planes.reshape(-1, *planes.shape[-2:])


def _many(parts: np.ndarray) -> np.ndarray:
    """(parts, n, y, x)."""
    return parts.reshape(len(parts), -1, *parts.shape[-2:])


def _compiled() -> Any:
    """Numba's functions, imported where they are needed."""
    from ..kernels.compiled import filters

    return filters
