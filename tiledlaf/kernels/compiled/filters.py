"""Compiled filters of planes, (n, y, x) float32.

A pixel sees the same operations in the same order wherever it lies in a row. Planes with a border
are called wide: its pixels are those that the image has there, mirrored.
"""

from __future__ import annotations

import numpy as np

from .caching import jit

HALF, QUARTER = np.float32(0.5), np.float32(0.25)


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
    total, line = np.empty(nx), np.empty(nx + 2 * radius)
    for n in range(len(planes)):
        plane = planes[n]
        for i in range(ny):
            middle = plane[i]
            for x in range(nx):
                total[x] = np.float64(middle[x]) * weights[0]
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
                total[x] = line[radius + x] * weights[0]
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
def products(wide, out):
    """Products xx, xy, yy of central differences; the border is one pixel wide."""
    count, ny, nx = out.shape[1:]
    for n in range(count):
        for i in range(ny):
            above, middle, below = wide[n, i], wide[n, i + 1], wide[n, i + 2]
            for x in range(nx):
                down = (below[x + 1] - above[x + 1]) * HALF
                right = (middle[x + 2] - middle[x]) * HALF
                out[0, n, i, x] = right * right
                out[1, n, i, x] = right * down
                out[2, n, i, x] = down * down


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
def eigenvalues(matrix, out):
    """Of symmetric matrices xx, xy, yy: mean +- sqrt(((xx - yy) / 2)^2 + xy^2), flat planes."""
    for i in range(out.shape[1]):
        xx, xy, yy = matrix[0, i], matrix[1, i], matrix[2, i]
        mean, root = (xx + yy) * HALF, (xx - yy) * HALF
        root = np.sqrt(root * root + xy * xy)
        out[0, i] = mean + root
        out[1, i] = mean - root


@jit
def line(matrix, weights, points, most, least):
    """Second differences across a line, averaged along it: the most and the least of them so far.

    Parameters
    ----------
    matrix : (3, n, *wide) float32
        Second differences xx, xy, yy with a border.
    weights : (3,) float32
        Of these, in the second difference across the line.
    points : (m, 2) int64
        Of the line, (y, x) from the corner of the border.
    most, least : (n, y, x) float32
    """
    count, ny, nx = most.shape
    across, total = np.empty(matrix.shape[2:], np.float32), np.empty(nx, np.float32)
    share = np.float32(1 / len(points))
    for n in range(count):
        for i in range(across.shape[0]):
            xx, xy, yy = matrix[0, n, i], matrix[1, n, i], matrix[2, n, i]
            for x in range(across.shape[1]):
                across[i, x] = weights[0] * xx[x] + weights[2] * yy[x] + weights[1] * xy[x]
        for i in range(ny):
            total[:] = np.float32(0)
            for k in range(len(points)):
                row = across[i + points[k, 0], points[k, 1] :]
                for x in range(nx):
                    total[x] += row[x]
            for x in range(nx):
                mean = total[x] * share
                most[n, i, x] = mean if mean > most[n, i, x] else most[n, i, x]
                least[n, i, x] = mean if mean < least[n, i, x] else least[n, i, x]


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
            total[:] = np.float32(0)
            for k in range(len(points)):
                row = wide[n, i + points[k, 0], points[k, 1] :]
                for x in range(nx):
                    total[x] += row[x]
            for x in range(nx):
                average[x] = total[x] * share
            total[:] = np.float32(0)
            for k in range(len(points)):
                row = wide[n, i + points[k, 0], points[k, 1] :]
                for x in range(nx):
                    off = row[x] - average[x]
                    total[x] += off * off
            for x in range(nx):
                spread[n, i, x] = np.sqrt(total[x] * share)
