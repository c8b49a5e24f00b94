"""Filters of a plane along its last two axes, of which features are made.

The plane is mirrored at its border, which is its own mirror. A filter reaches a fixed number of
pixels and does the same operations in the same order at each, so that a window with a halo gives
bitwise the same values as the whole image.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from decimal import Decimal, localcontext

import numpy as np

Blur = Callable[[float], np.ndarray]
HALF, ROOT = np.float32(0.5), np.float32(math.sqrt(0.5))
# (y, x) at 0, 22.5, 45 and 67.5 degrees: roots alone, which are the same on all processors
DIRECTIONS = (
    (0.0, 1.0),
    (math.sqrt(0.5 - math.sqrt(0.125)), math.sqrt(0.5 + math.sqrt(0.125))),
    (math.sqrt(0.5), math.sqrt(0.5)),
    (math.sqrt(0.5 + math.sqrt(0.125)), math.sqrt(0.5 - math.sqrt(0.125))),
)


def blur_radius(sigma: float) -> int:
    """Radius of a Gaussian in pixels: three sigma."""
    return math.ceil(3 * sigma)


@functools.cache
def gaussian(sigma: float) -> np.ndarray:
    """Weights of a Gaussian, with sum 1.

    They use the decimal exp, which rounds correctly everywhere; others depend on the processor.
    """
    with localcontext(prec=40):
        two = 2 * Decimal(sigma) ** 2
        half = [float((-(n * n) / two).exp()) for n in range(blur_radius(sigma) + 1)]
    total = math.fsum(half + half[1:])
    return np.array(half[:0:-1] + half) / total


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
    from scipy.ndimage import correlate1d

    for axis in (-2, -1):
        plane = correlate1d(plane, gaussian(sigma), axis, mode="mirror")
    return plane


def mirrored(plane: np.ndarray, width: int) -> np.ndarray:
    """The plane with so many of its mirrored pixels on each side."""
    edges: Sequence[tuple[int, int]] = [(0, 0)] * (plane.ndim - 2) + [(width, width)] * 2
    return np.pad(plane, edges, mode="reflect")


def neighbors(plane: np.ndarray, radius: int) -> Callable[[int, int], np.ndarray]:
    """A function that shifts the plane by (y, x), each at most the radius."""
    ny, nx = plane.shape[-2:]
    padded = mirrored(plane, radius)

    def moved(y: int, x: int) -> np.ndarray:
        return padded[..., radius + y : radius + y + ny, radius + x : radius + x + nx]

    return moved


def patch(out: np.ndarray, plane: np.ndarray, radius: int, dilation: int) -> None:
    """The values that are a dilation apart, row by row."""
    moved = neighbors(plane, radius * dilation)
    steps = range(-radius * dilation, radius * dilation + 1, dilation)
    for target, (y, x) in zip(out, ((y, x) for y in steps for x in steps), strict=True):
        target[...] = moved(y, x)


def gradient(out: np.ndarray, g: np.ndarray) -> None:
    """Magnitude of the gradient, from central differences."""
    moved = neighbors(g, 1)
    x = moved(0, 1) - moved(0, -1)
    np.subtract(moved(1, 0), moved(-1, 0), out=out)
    out *= out
    x *= x
    out += x
    np.sqrt(out, out=out)
    out *= HALF


def hessian(out: np.ndarray, g: np.ndarray) -> np.ndarray:
    """Second differences xx, xy, yy."""
    moved = neighbors(g, 1)
    twice = g + g
    for target, (y, x) in ((out[0], (0, 1)), (out[2], (1, 0))):
        np.add(moved(y, x), moved(-y, -x), out=target)
        target -= twice
    np.add(moved(1, 1), moved(-1, -1), out=out[1])
    out[1] -= moved(1, -1)
    out[1] -= moved(-1, 1)
    out[1] *= np.float32(0.25)
    return out


def eigenvalues(out: np.ndarray, hessian: np.ndarray) -> None:
    """mean +- sqrt(((xx - yy) / 2)^2 + xy^2), the larger first."""
    xx, xy, yy = hessian
    mean, root = (xx + yy) * HALF, (xx - yy) * HALF
    root *= root
    xy *= xy
    root += xy
    np.sqrt(root, out=root)
    np.add(mean, root, out=out[0])
    np.subtract(mean, root, out=out[1])


def inside(plane: np.ndarray, width: int) -> np.ndarray:
    """The plane without so many pixels on each side."""
    return plane[..., width : plane.shape[-2] - width, width : plane.shape[-1] - width]


def structure(out: np.ndarray, g: np.ndarray, sigma: float) -> None:
    """Roots of both eigenvalues of the smoothed products of derivatives, the larger first."""
    far = blur_radius(sigma)
    # derivatives across a mirror change their sign: found on the mirrored plane, none goes wrong
    wide = mirrored(g, far + 1)
    y = (wide[..., 2:, 1:-1] - wide[..., :-2, 1:-1]) * HALF
    x = (wide[..., 1:-1, 2:] - wide[..., 1:-1, :-2]) * HALF
    products = ((x, x), (x, y), (y, y))
    eigenvalues(out, np.stack([inside(smoothed(a * b, sigma), far) for a, b in products]))
    np.maximum(out, 0, out=out)
    np.sqrt(out, out=out)


def turned(y: int, x: int) -> tuple[int, int]:
    """A shift, turned by a right angle."""
    return x, -y


def line_shifts(length: float) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Two shifts (y, x) along each line at 0, 22.5, 45 and 67.5 degrees.

    A pixel and its neighbors one shift away to both sides, and these three again by the other
    shift, are nine points of a line that reaches the length to both sides.
    """
    return [
        (_rounded(direction, length / 4), _rounded(direction, length * 3 / 4))
        for direction in DIRECTIONS
    ]


def line_reach(length: float) -> int:
    """How far `lines` looks: a second difference at the ends, across only if along an axis."""
    return max(
        a + b + (number > 0)
        for number, (near, far) in enumerate(line_shifts(length))
        for a, b in zip(near, far, strict=True)
    )


def lines(out: np.ndarray, g: np.ndarray, length: float) -> None:
    """Second differences across eight lines, averaged along each: the largest and the smallest."""
    far = line_reach(length)
    wide = mirrored(g, far + 1)
    xx, xy, yy = inside(hessian(np.empty((3, *wide.shape), np.float32), wide), 1)
    mean, turn = (xx + yy) * HALF, (xx - yy) * HALF
    # across the line at a right angle there is as much more than the mean as here there is less
    parts = ((turn + xy) * ROOT, xy, (xy - turn) * ROOT)
    pairs = [(yy, xx), *((mean - part, mean + part) for part in parts)]
    sums = (
        _along(plane, shifts, g.shape)
        for pair, (near, end) in zip(pairs, line_shifts(length), strict=True)
        for plane, shifts in zip(pair, ((near, end), (turned(*near), turned(*end))), strict=True)
    )
    first = next(sums)
    out[0], out[1] = first, first
    for total in sums:
        np.maximum(out[0], total, out=out[0])
        np.minimum(out[1], total, out=out[1])
    out *= np.float32(1 / 9)


def _along(
    plane: np.ndarray, shifts: Sequence[tuple[int, int]], shape: tuple[int, ...]
) -> np.ndarray:
    """Sums over nine points of a line, of this shape in the middle."""
    for y, x in shifts:
        ny, nx = plane.shape[-2] - 2 * abs(y), plane.shape[-1] - 2 * abs(x)
        ends = [
            plane[..., abs(y) + b : abs(y) + b + ny, abs(x) + a : abs(x) + a + nx]
            for b, a in ((y, x), (-y, -x), (0, 0))
        ]
        plane = ends[0] + ends[1]
        plane += ends[2]
    y, x = ((n - m) // 2 for n, m in zip(plane.shape[-2:], shape[-2:], strict=True))
    return plane[..., y : y + shape[-2], x : x + shape[-1]]


def circle(distance: int) -> list[tuple[int, int]]:
    """Shifts (y, x) to the pixels nearest to sixteen points on a circle, each once."""
    quarter = [_rounded(direction, distance) for direction in DIRECTIONS]
    found = []
    for _ in range(4):
        found += quarter
        quarter = [turned(*shift) for shift in quarter]
    return list(dict.fromkeys(found))


def ring(out: np.ndarray, g: np.ndarray, distance: int) -> None:
    """Mean and standard deviation of the values on a circle."""
    moved, shifts = neighbors(g, distance), circle(distance)
    mean, spread = out
    mean[...] = 0
    spread[...] = 0
    for shift in shifts:
        mean += moved(*shift)
    mean *= np.float32(1 / len(shifts))
    off = np.empty_like(mean)
    for shift in shifts:
        np.subtract(moved(*shift), mean, out=off)
        off *= off
        spread += off
    spread *= np.float32(1 / len(shifts))
    np.sqrt(spread, out=spread)


def _rounded(direction: tuple[float, float], distance: float) -> tuple[int, int]:
    """The pixel nearest to the point so far away in a direction."""
    y, x = direction
    return round(y * distance), round(x * distance)
