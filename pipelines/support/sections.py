"""Sections with labels and probabilities, and what is drawn from them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tiledlaf.files import images
from tiledlaf.pool.opening import open_pool

FOLDS = 5


@dataclass(frozen=True, eq=False)
class Sections:
    """Sections with labels 1..J and probabilities (J, y, x)."""

    numbers: list[int]
    images: list[np.ndarray]
    labels: list[np.ndarray]
    probabilities: list[np.ndarray]

    def __len__(self) -> int:
        return len(self.numbers)


def read(path: Path) -> np.ndarray:
    """The pixels of an image of one channel."""
    found = images.open_image(str(path))
    return found.read(tuple(slice(0, n) for n in found.grid))[0]


def sample(
    rows: Sequence[np.ndarray], truths: Sequence[np.ndarray], count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, F) and classes from 0 of pixels drawn from all sections."""
    rng = np.random.default_rng(seed)
    found = []
    for planes, truth in zip(rows, truths, strict=True):
        labeled = np.flatnonzero(truth)
        chosen = np.sort(rng.choice(labeled, min(count // len(rows), len(labeled)), replace=False))
        found.append((planes.reshape(len(planes), -1)[:, chosen].T, truth.ravel()[chosen]))
    x, y = (np.concatenate(part) for part in zip(*found, strict=True))
    return np.ascontiguousarray(x), y.astype(np.int64) - 1


def folds_of(training: int) -> list[int]:
    """The block of each training section."""
    return [n * min(FOLDS, training) // training for n in range(training)]


def mapped(function: Callable[..., Any], *items: Sequence[Any]) -> list[Any]:
    """Results in order, by as many threads as there are processors."""
    with open_pool() as pool:
        return pool.map(lambda _, item: function(*item), None, list(zip(*items, strict=True)))


def say(text: str) -> None:
    """Progress goes to stderr, the table to stdout."""
    print(text, file=sys.stderr, flush=True)


def aligned(rows: list[list[str]]) -> list[str]:
    """Rows of text with columns below each other; the first two to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            text.ljust(w) if i < 2 else text.rjust(w)
            for i, (text, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
