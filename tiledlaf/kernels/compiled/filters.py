"""Compiled filters of planes, (n, y, x) float32.

A pixel sees the same operations in the same order wherever it lies in a row. Planes with a border
are called wide: its pixels are those that the image has there, mirrored.
"""

from __future__ import annotations

import numpy as np

from .caching import jit

NOTHING, QUARTER, HALF = np.float32(0), np.float32(0.25), np.float32(0.5)


@jit
def smooth(planes, weights, rows, columns, out):
    """Smooth along the columns, round to float32, and smooth along the rows.

    Sums are in float64, of both neighbors at a distance at a time and the far ones first, as SciPy
    has them.

    Parameters
    ----------
    planes, out : (n, ny, nx) float32
    weights : (r + 1,) float64
        From the center outwards.
    rows, columns : (ny + 2 r,), (nx + 2 r,) int64
        Where the pixels of the plane with a border of r pixels come from.
    """
    radius, (ny, nx) = len(weights) - 1, planes.shape[1:]
    total, line, first = np.empty(nx), np.empty(nx + 2 * radius), weights[0]
    for n in range(len(planes)):
        plane = planes[n]
        for i in range(ny):
            middle = plane[i]
            for x in range(nx):
                total[x] = np.float64(middle[x]) * first
            for j in range(radius, 0, -1):
                above, below = plane[rows[i + radius - j]], plane[rows[i + radius + j]]
                weight = weights[j]
                for x in range(nx):
                    total[x] += (np.float64(above[x]) + np.float64(below[x])) * weight
            for x in range(nx):
                line[radius + x] = np.float32(total[x])
            for x in range(radius):
                line[x] = line[radius + columns[x]]
                line[radius + nx + x] = line[radius + columns[radius + nx + x]]
            for x in range(nx):
                total[x] = line[radius + x] * first
            for j in range(radius, 0, -1):
                left, right, weight = line[radius - j :], line[radius + j :], weights[j]
                for x in range(nx):
                    total[x] += (left[x] + right[x]) * weight
            for x in range(nx):
                out[n, i, x] = total[x]


@jit
def gradient(wide, out):
    """Magnitude of the gradient from central differences; the border is one pixel wide."""
    count, ny, nx = out.shape
    for n in range(count):
        for i in range(ny):
            above, middle, below = wide[n, i], wide[n, i + 1], wide[n, i + 2]
            for x in range(nx):
                down = below[x + 1] - above[x + 1]
                right = middle[x + 2] - middle[x]
                out[n, i, x] = np.sqrt(down * down + right * right) * HALF


@jit
def hessian(wide, out):
    """Second differences xx, xy, yy; the border is one pixel wide."""
    count, ny, nx = out.shape[1:]
    for n in range(count):
        for i in range(ny):
            above, middle, below = wide[n, i], wide[n, i + 1], wide[n, i + 2]
            for x in range(nx):
                twice = middle[x + 1] + middle[x + 1]
                out[0, n, i, x] = middle[x + 2] + middle[x] - twice
                out[2, n, i, x] = below[x + 1] + above[x + 1] - twice
                out[1, n, i, x] = (below[x + 2] + above[x] - below[x] - above[x + 2]) * QUARTER


@jit
def eigenvalues(wide, out):
    """Of the matrix of second differences: mean +- sqrt(((xx - yy) / 2)^2 + xy^2)."""
    count, ny, nx = out.shape[1:]
    for n in range(count):
        for i in range(ny):
            above, middle, below = wide[n, i], wide[n, i + 1], wide[n, i + 2]
            large, small = out[0, n, i], out[1, n, i]
            for x in range(nx):
                twice = middle[x + 1] + middle[x + 1]
                xx = middle[x + 2] + middle[x] - twice
                yy = below[x + 1] + above[x + 1] - twice
                xy = (below[x + 2] + above[x] - below[x] - above[x + 2]) * QUARTER
                mean, root = (xx + yy) * HALF, (xx - yy) * HALF
                root = np.sqrt(root * root + xy * xy)
                large[x] = mean + root
                small[x] = mean - root


@jit
def structure(wide, weights, out):
    """Roots of the eigenvalues of smoothed products of central differences, the larger first.

    Products and their sums are float32; the rows that a Gaussian needs are held in the cache.

    Parameters
    ----------
    wide : (n, *wide) float32
        With a border one wider than the radius r.
    weights : (r + 1,) float32
        From the center outwards.
    out : (2, n, y, x) float32
    """
    radius, (count, ny, nx) = len(weights) - 1, out.shape[1:]
    held, width = 2 * radius + 1, nx + 2 * radius
    rows, sums = np.empty((held, 3, width), np.float32), np.empty((3, nx), np.float32)
    column, first = np.empty(width, np.float32), weights[0]
    for n in range(count):
        for i in range(ny + 2 * radius):
            above, middle, below = wide[n, i], wide[n, i + 1], wide[n, i + 2]
            new = rows[i % held]
            for x in range(width):
                down = (below[x + 1] - above[x + 1]) * HALF
                right = (middle[x + 2] - middle[x]) * HALF
                new[0, x] = right * right
                new[1, x] = right * down
                new[2, x] = down * down
            if i < 2 * radius:
                continue
            center = i - radius
            for k in range(3):
                same = rows[center % held, k]
                for x in range(width):
                    column[x] = same[x] * first
                for j in range(radius, 0, -1):
                    up, low = rows[(center - j) % held, k], rows[(center + j) % held, k]
                    weight = weights[j]  # else the compiler fears that a store changes it
                    for x in range(width):
                        column[x] += (up[x] + low[x]) * weight
                total = sums[k]
                for x in range(nx):
                    total[x] = column[radius + x] * first
                for j in range(radius, 0, -1):
                    left, more, weight = column[radius - j :], column[radius + j :], weights[j]
                    for x in range(nx):
                        total[x] += (left[x] + more[x]) * weight
            large, small = out[0, n, center - radius], out[1, n, center - radius]
            for x in range(nx):
                xx, xy, yy = sums[0, x], sums[1, x], sums[2, x]
                mean, root = (xx + yy) * HALF, (xx - yy) * HALF
                root = np.sqrt(root * root + xy * xy)
                # both are positive but for rounding
                large[x] = np.sqrt(mean + root)
                small[x] = np.sqrt(mean - root if mean > root else NOTHING)


@jit
def lines(wide, weights, points, out):
    """Second differences across lines, averaged along each: the largest and the smallest.

    The rows that the points of a line need are held in the cache.

    Parameters
    ----------
    wide : (n, *wide) float32
    weights : (l, 3) float32
        Of second differences xx, xy, yy, in the one across each line.
    points : (l, m, 2) int64
        Of each line, (y, x) from the corner of the border without its outermost pixels.
    out : (2, n, y, x) float32
    """
    count, ny, nx = out.shape[1:]
    width, held = wide.shape[2] - 2, wide.shape[1] - 1 - ny
    across = np.empty((len(points), held, width), np.float32)
    second, total = np.empty((3, width), np.float32), np.empty(nx, np.float32)
    share = np.float32(1 / points.shape[1])
    for n in range(count):
        for i in range(ny + held - 1):
            above, middle, below = wide[n, i], wide[n, i + 1], wide[n, i + 2]
            xx, xy, yy = second
            for x in range(width):
                twice = middle[x + 1] + middle[x + 1]
                xx[x] = middle[x + 2] + middle[x] - twice
                yy[x] = below[x + 1] + above[x + 1] - twice
                xy[x] = (below[x + 2] + above[x] - below[x] - above[x + 2]) * QUARTER
            for k in range(len(points)):
                row, (a, b, c) = across[k, i % held], weights[k]
                for x in range(width):
                    row[x] = a * xx[x] + c * yy[x] + b * xy[x]
            top = i - held + 1
            if top < 0:
                continue
            most, least = out[0, n, top], out[1, n, top]
            for k in range(len(points)):
                total[:] = NOTHING
                for y, shift in points[k]:
                    row = across[k, (top + y) % held, shift:]
                    for x in range(nx):
                        total[x] += row[x]
                for x in range(nx):
                    mean = total[x] * share
                    most[x] = mean if k == 0 or mean > most[x] else most[x]
                    least[x] = mean if k == 0 or mean < least[x] else least[x]


@jit
def ring(wide, points, mean, spread):
    """Mean and standard deviation over points.

    Parameters
    ----------
    wide : (n, *wide) float32
    points : (m, 2) int64
        (y, x) from the corner of the border.
    mean, spread : (n, y, x) float32
    """
    count, ny, nx = mean.shape
    share, total = np.float32(1 / len(points)), np.empty(nx, np.float32)
    for n in range(count):
        for i in range(ny):
            average = mean[n, i]
            total[:] = NOTHING
            for k in range(len(points)):
                row = wide[n, i + points[k, 0], points[k, 1] :]
                for x in range(nx):
                    total[x] += row[x]
            for x in range(nx):
                average[x] = total[x] * share
            total[:] = NOTHING
            for k in range(len(points)):
                row = wide[n, i + points[k, 0], points[k, 1] :]
                for x in range(nx):
                    off = row[x] - average[x]
                    total[x] += off * off
            for x in range(nx):
                spread[n, i, x] = np.sqrt(total[x] * share)


@jit
def ranked(wide, points, pairs, ranks, out):
    """Values at points, put in order; those of some ranks.

    Parameters
    ----------
    wide : (n, *wide) float32
    points : (m, 2) int64
        (y, x) from the corner of the border.
    pairs : (p, 2) int64
        Of a sorting network of m values.
    ranks : (r,) int64
    out : (r, n, y, x) float32
    """
    count, ny, nx = out.shape[1:]
    rows = np.empty((len(points), nx), np.float32)
    for n in range(count):
        for i in range(ny):
            for k in range(len(points)):
                row, given = rows[k], wide[n, i + points[k, 0], points[k, 1] :]
                for x in range(nx):
                    row[x] = given[x]
            for k in range(len(pairs)):
                lower, upper = rows[pairs[k, 0]], rows[pairs[k, 1]]
                for x in range(nx):
                    a, b = lower[x], upper[x]
                    least = a if a < b else b
                    upper[x] = b if a < b else a
                    lower[x] = least
            for k in range(len(ranks)):
                row, found = rows[ranks[k]], out[k, n, i]
                for x in range(nx):
                    found[x] = row[x]
