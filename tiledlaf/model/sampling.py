"""Prototypes and their scale from a sample of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import InputError

SAMPLE_PIXELS = 65536
LARGEST = 1e18  # size of pixel values whose squares can be added up in float32
LEAST_SCALE = 1e-32  # mean square below which distances vanish in float32
BLOCK = 16  # edge of a sampled block: few chunks are read for images of any size


def sample_windows(shape: Sequence[int], seed: int) -> list[tuple[slice, ...]]:
    """Blocks of pixels to sample for k-means and the scale, determined by shape and seed.

    Images of up to `SAMPLE_PIXELS` pixels are one block; in larger ones 16 x 16 blocks are drawn.
    """
    if np.prod(shape, dtype=float) <= SAMPLE_PIXELS:
        return [tuple(slice(0, n) for n in shape)]
    edges = [min(BLOCK, n) if axis >= len(shape) - 2 else 1 for axis, n in enumerate(shape)]
    count = SAMPLE_PIXELS // int(np.prod(edges))
    rng = np.random.default_rng(seed)
    starts = [rng.integers(0, n - edge + 1, count) for n, edge in zip(shape, edges, strict=True)]
    return [
        tuple(slice(int(a), int(a) + edge) for a, edge in zip(corner, edges, strict=True))
        for corner in zip(*starts, strict=True)
    ]


def pixels_of(blocks: Sequence[np.ndarray], masks: Sequence[np.ndarray] | None) -> np.ndarray:
    """A sample (n, C) from blocks (C, *window), without masked pixels, NaN and too large values."""
    rows = [block.reshape(len(block), -1).T for block in blocks]
    if masks is not None:
        rows = [row[mask.ravel() != 0] for row, mask in zip(rows, masks, strict=True)]
    sample = np.concatenate(rows)
    sample = sample[(abs(sample.astype(np.float64)) <= LARGEST).all(axis=1)]
    if not len(sample):
        raise InputError(
            "expected pixels to find prototypes and scale from, got a sample in which all are NaN, "
            f"inf or masked out (`seed` draws another one), or larger than {LARGEST:g}"
        )
    return sample


def kmeans(sample: np.ndarray, classes: int, seed: int) -> np.ndarray:
    """Prototypes (classes, C) float64 by k-means, ordered by brightness (mean over channels).

    It runs on one thread: scikit-learn's centers change with the number of threads.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    distinct = len(np.unique(sample, axis=0))
    if distinct < classes:
        raise InputError(
            f"`classes` {classes}: the image's sample of {len(sample)} pixels has only "
            f"{distinct} different values"
        )
    with threadpool_limits(1):
        model = KMeans(classes, n_init=4, random_state=seed).fit(sample.astype(np.float64))
    centers = model.cluster_centers_
    order = np.lexsort((*centers.T[::-1], centers.mean(axis=1)))
    return np.asarray(centers[order], np.float64)


def rows_of(values: Any) -> tuple[tuple[float, ...], ...]:
    """Prototypes as rows of numbers, one row per class.

    Raises
    ------
    ValueError
        If there are fewer than two, rows differ in length, or two are equal or not finite.
    """
    try:
        rows = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise InputError(
            "expected prototypes as rows of numbers, all of one length, got others"
        ) from None
    if rows.ndim != 2 or len(rows) < 2:
        raise InputError(f"expected two or more prototypes as rows, got shape {rows.shape}")
    if not np.isfinite(rows).all():
        raise InputError("expected finite prototypes, got NaN or inf")
    if len(np.unique(rows, axis=0)) < len(rows):
        raise InputError("expected different prototypes, got two equal rows")
    return tuple(tuple(map(float, row)) for row in rows)


def scale(sample: np.ndarray, values: Sequence[Sequence[float]]) -> float:
    """Scale of the distances in squared image units: the mean of min_j ||f - l_j||^2.

    Parameters
    ----------
    sample : (n, C)
    values : (J, C), in image units
    """
    pixels, rows = sample.astype(np.float64), np.asarray(values, np.float64)
    nearest = np.min([((pixels - row) ** 2).sum(axis=1) for row in rows], axis=0)
    # an image of prototypes alone has no scale of its own: use the closest pair of prototypes
    gaps = [((a - b) ** 2).sum() for i, a in enumerate(rows) for b in rows[:i]]
    found = float(nearest.mean()) or float(min(gaps))
    if found < LEAST_SCALE:
        raise InputError(
            "expected pixel values whose squares fit into float32, got a mean square distance to "
            f"the prototypes of {found:.2g}: multiply the image by a number"
        )
    return found
