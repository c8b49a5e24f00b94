"""How sure the labels of an output are: the confidence of each class, counted."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..errors import DamagedFile
from ..files import image as image_files
from ..files import planes
from ..files.image import Image
from ..tiles import Box, Grid
from .result import Result

BINS = 24
MOST = 2**24  # pixels that are counted
EDGE = 2048  # of a window that is read at once


@dataclass(frozen=True)
class Histogram:
    """Confidence of labeled pixels, from 1/J (undecided) to 1.

    Attributes
    ----------
    counts : (J, BINS), pixels of each class
    sums : (J,), the sum of their confidence
    edges : (BINS + 1,)
    grid : pixels of the level that was counted
    step : pixels at full resolution along each axis of `grid` for one that was counted
    """

    counts: np.ndarray
    sums: np.ndarray
    edges: np.ndarray
    grid: tuple[int, ...]
    step: tuple[int, ...]

    @property
    def means(self) -> np.ndarray:
        """Mean confidence of each class, NaN without pixels."""
        with np.errstate(invalid="ignore", divide="ignore"):
            found: np.ndarray = self.sums / self.counts.sum(axis=1)
        return found


def histogram(result: Result, most: int = MOST) -> Histogram | None:
    """Count the confidence of an output's labels, None where it was not written.

    The finest level of at most `most` pixels is counted; where even the coarsest has more, evenly
    spaced planes of it.
    """
    confidence = result.confidence
    if confidence is None:
        return None
    level = level_of(confidence, most)
    certain, labels = (planes.at_level(image, level) for image in (confidence, result.labels))
    if certain.grid != labels.grid:
        raise DamagedFile(
            f"{result.store}: expected a confidence of the size of labels/{result.name}, got "
            f"{certain.grid} and {labels.grid} pixels at level {level}"
        )
    classes = len(result.names)
    edges = np.linspace(1 / classes, 1, BINS + 1)
    counts, sums = np.zeros((classes, BINS), np.int64), np.zeros(classes)
    windows, axis, every = _windows(certain.grid, most)
    for window in windows:
        label = image_files.read(labels, window)[0].ravel().astype(np.int64) - 1
        value = image_files.read(certain, window)[0].ravel().astype(np.float64)
        known = (label >= 0) & (label < classes)
        label, value = label[known], value[known]
        place = np.clip((value - edges[0]) / (1 - edges[0]) * BINS, 0, BINS - 1).astype(np.int64)
        both = np.bincount(label * BINS + place, minlength=classes * BINS)
        counts += both.reshape(classes, BINS)
        sums += np.bincount(label, value, minlength=classes)
    step = [round(a / b) for a, b in zip(confidence.grid, certain.grid, strict=True)]
    step[axis] *= every
    return Histogram(counts, sums, edges, certain.grid, tuple(step))


def level_of(image: Image, most: int) -> int:
    """The finest level of at most so many pixels, or the coarsest."""
    fits = (n for n, grid in enumerate(image.levels) if math.prod(grid) <= most)
    return next(fits, len(image.levels) - 1)


def _windows(grid: tuple[int, ...], most: int) -> tuple[list[Box], int, int]:
    """Windows of a grid; with too many pixels of every n-th plane or row, of which axis, and n."""
    axis = int(np.argmax(grid[:-1]))
    kept = max(1, most * grid[axis] // math.prod(grid))
    every = math.ceil(grid[axis] / kept)
    edges = [1] * (len(grid) - 2) + [min(n, EDGE) for n in grid[-2:]]
    if every > 1:
        edges[axis] = 1
    zero = (0,) * len(grid)
    tiles = Grid(grid, zero, grid, tuple(edges), zero)
    return [tile.core for tile in tiles if tile.core[axis].start % every == 0], axis, every
