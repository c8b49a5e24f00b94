"""Prototypes and their scale from a sample of pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import InputError

SAMPLE_PIXELS = 65536
LARGEST = 1e18  # size of pixel values whose squares can be added up in float32
SCALES = (1e-32, 1e32)  # mean squares between which distances and their inverse fit into float32
OFFSET = 256.0  # size of values, in distances between prototypes, that float32 can tell apart
LOST = 2.0**46  # that float64 cannot tell apart
EXACT = 2**16  # size of integers that float32 holds exactly, however small their differences
NO_DATA = 1e6  # how many times all others a value is that is not counted among them
SQUARES = (1e-140, 1e140)  # sizes of pixel values whose squares fit into float64
DIGITS = 1e-300  # size of pixel values below which float64 loses digits
HIGHEST = float(np.finfo(np.float64).max)
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
    """A sample (n, C) from blocks (C, *window), without masked pixels, NaN and outliers.

    Values too large for float32 are outliers, unless all others are 0, some are in between, or
    most are large and not of one value.
    """
    rows = [block.reshape(len(block), -1).T for block in blocks]
    if masks is not None:
        rows = [row[mask.ravel() != 0] for row, mask in zip(rows, masks, strict=True)]
    sample = np.concatenate(rows)
    size = abs(sample.astype(np.float64))
    small, finite = (size <= LARGEST).all(axis=1), np.isfinite(size).all(axis=1)
    large, limit = finite & ~small, NO_DATA * float(size[small].max(initial=0.0))
    between = bool((large & (size <= limit).all(axis=1)).any())
    mostly = 2 * large.sum() > len(size) and bool((sample[large] != sample[large][0]).any())
    wide = limit == 0 or between or mostly
    sample = sample[finite if wide else small]
    if not len(sample):
        raise InputError(
            "expected pixels to find prototypes and scale from, got a sample in which all are NaN, "
            "inf or masked out (`seed` draws another one)"
        )
    return sample


def kmeans(sample: np.ndarray, classes: int, seed: int) -> np.ndarray:
    """Prototypes (classes, C) float64 by k-means, ordered by brightness (mean over channels).

    It runs on one thread: scikit-learn's centers change with the number of threads.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    unit = unit_of(size_of(sample))
    pixels = sample.astype(np.float64) / unit
    distinct = len(np.unique(pixels, axis=0))
    if distinct < classes:
        raise InputError(
            f"`classes` {classes}: the image's sample of {len(sample)} pixels has only "
            f"{distinct} different values"
            + " as float64: subtract a number"
            * (len(np.unique(sample, axis=0)) >= classes)
        )
    with threadpool_limits(1):
        model = KMeans(classes, n_init=4, random_state=seed).fit(pixels)
    centers = model.cluster_centers_ * unit
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
        given = np.asarray(values)
        if np.ma.is_masked(values) or np.iscomplexobj(given) or given.dtype.kind in "mM":
            raise TypeError
        rows = given.astype(np.float64)
    except (TypeError, ValueError, OverflowError):
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


def size_of(values: np.ndarray) -> float:
    """The largest absolute value."""
    return float(abs(values.astype(np.float64)).max())


def unit_of(size: float) -> float:
    """1, or a power of two near this size of pixel values if their squares do not fit.

    Raises
    ------
    ValueError
        If float64 loses digits at this size.
    """
    if 0 < size < DIGITS:
        raise InputError(
            f"expected pixel values above {DIGITS:g} in size, which float64 holds with all digits, "
            f"got {size:.2g} as the largest: multiply the image by a number"
        )
    low, high = SQUARES
    return 1.0 if low <= size <= high or not size else 2.0 ** (math.frexp(size)[1] - 1)


def scale(sample: np.ndarray, values: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Scale of the distances: the mean of min_j ||f - l_j||^2.

    Parameters
    ----------
    sample : (n, C)
    values : (J, C), in image units

    Returns
    -------
    scale : float
        In squared image units or, if there is a unit, in squares of it.
    unit : float
        A power of two if distances need float64; 0 where float32 can hold them.

    Raises
    ------
    ValueError
        If float64 cannot hold them either.
    """
    rows = np.asarray(values, np.float64)
    size = max(size_of(sample), size_of(rows))
    unit = unit_of(size)
    pixels, rows = sample.astype(np.float64) / unit, rows / unit
    nearest = np.min([((pixels - row) ** 2).sum(axis=1) for row in rows], axis=0)
    # an image of prototypes alone has no scale of its own: use the closest pair of prototypes
    gaps = [((a - b) ** 2).sum() for i, a in enumerate(rows) for b in rows[:i]]
    found, gap = float(nearest.mean()) or float(min(gaps)), math.sqrt(min(gaps))
    if not found or size / unit > LOST * gap:
        raise InputError(
            "expected prototypes that float64 can tell apart, got two that differ by "
            f"{gap * unit:.2g} among values of {size:.6g}: subtract a number from the image"
        )
    least, most = SCALES
    level = max(size_of(rows), math.sqrt(float((pixels**2).mean())))
    exact = sample.dtype.kind in "biu" and size <= EXACT
    fits = unit == 1 and size <= LARGEST and least <= found <= most
    return (found, 0.0) if fits and (exact or level <= OFFSET * gap) else (found, unit)
