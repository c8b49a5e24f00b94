"""Voronoi images as in section 4.1 of the paper: thin lines between cells, and colored cells."""

import numpy as np


def _nearest(shape, cells, rng):
    """Distances to the nearest two seeds, and the nearest seed."""
    seeds = rng.random((cells, 2)) * shape
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    distances = np.sqrt(((grid[..., None, :] - seeds) ** 2).sum(axis=-1))
    order = np.argsort(distances, axis=-1)
    two = np.take_along_axis(distances, order[..., :2], axis=-1)
    return two[..., 0], two[..., 1], order[..., 0]


def lines(shape=(128, 128), noise=0.3, cells=25, width=1.5, seed=0):
    """Noisy image (y, x) float32, 1 on the lines between cells, and its labels (1 on lines)."""
    rng = np.random.default_rng(seed)
    first, second, _ = _nearest(shape, cells, rng)
    labels = (second - first < 2 * width).astype(np.uint8)
    return (labels + noise * rng.standard_normal(shape)).astype(np.float32), labels


def colors(shape=(128, 128), noise=0.6, cells=40, classes=8, seed=0):
    """Noisy image (3, y, x) float32 of cells in the corners of the color cube, and its labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=cells)[_nearest(shape, cells, rng)[2]].astype(np.uint8)
    corners = np.array([[(c >> b) & 1 for b in range(3)] for c in range(8)], np.float32)
    image = np.moveaxis(corners[labels], -1, 0)
    return (image + noise * rng.standard_normal(image.shape)).astype(np.float32), labels
