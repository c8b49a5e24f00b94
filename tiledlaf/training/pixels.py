"""Labeled pixels of tiles, and what a data term is fitted to."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..files import image as image_files
from ..model.classes import Class
from ..model.term import DataTerm
from ..pool import tasks
from ..pool.tasks import Pool
from ..tiles import Box
from . import examples
from .examples import Example
from .judging import Bench
from .worker import LabeledTile, core_of, drawn

SCALE_PIXELS = 65536  # pixels from which the prototypes' scale is found


@dataclass(frozen=True)
class Source:
    """What is needed to sample pixels."""

    examples: tuple[Example, ...]
    classes: tuple[Class, ...]


@dataclass(frozen=True)
class Fit:
    """What is needed to fit a data term.

    Attributes
    ----------
    tiles, folds : labeled tiles, and the fold of each
    span : range of the images' intensities, None if it is not known
    bench : how these tiles judge what was fitted to the other folds
    say : called with a record of each stage, and of how much of it is done
    left : seconds until a share of a time limit is used up, after which what may be left out is
    like : the data term of the model that the training goes on from, or None
    minutes, steps : that learning networks may take all in all; None: no fixed number of steps
    device : "cpu" or "cuda"
    held : what an interrupted fit has left, arrays by name
    keep : called with what another start goes on from
    """

    pool: Pool
    source: Source
    tiles: Sequence[LabeledTile]
    folds: Sequence[int]
    bench: Bench
    seed: int
    span: tuple[float, float] | None
    say: Callable[[Mapping[str, Any]], None]
    left: Callable[[float], float] = lambda share: math.inf
    like: DataTerm | None = None
    minutes: float = 15.0
    steps: int | None = None
    device: str = "cpu"
    held: Mapping[str, np.ndarray] = field(default_factory=dict)
    keep: Callable[[Mapping[str, np.ndarray]], None] = lambda arrays: None

    def sample(self) -> np.ndarray:
        """Some of the labeled pixels, (n, C)."""
        share = -(-SCALE_PIXELS // len(self.tiles))
        work, numbered = (self.source, share, self.seed), list(enumerate(self.tiles))
        return np.concatenate(tasks.in_order(self.pool, _pixels, work, numbered))


def targets_of(example: Example, box: Box, classes: Sequence[Class]) -> np.ndarray:
    """Class numbers of a box, 0 where not labeled or masked out."""
    found = examples.targets(examples.read_labels(example.labels, box), classes)
    valid = examples.valid_of(example, box)
    if valid is not None:
        found[~valid] = 0
    return found


def label_values(everything: Sequence[Example], item: tuple[int, Any]) -> dict[int, int]:
    """How many pixels of a box have each label value; those masked out do not count."""
    number, box = item
    example = everything[number]
    found = examples.read_labels(example.labels, box)
    valid = examples.valid_of(example, box)
    if valid is not None:
        found = found[valid]
    values, counts = np.unique(found, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _pixels(work: tuple[Source, int, int], item: tuple[int, LabeledTile]) -> np.ndarray:
    """Some labeled pixels of a tile, (n, C)."""
    (source, count, seed), (number, labeled) = work, item
    example, box = source.examples[labeled.example], core_of(labeled)
    target = targets_of(example, box, source.classes)
    chosen = drawn(np.flatnonzero(target), count, (seed, number))
    pixels = image_files.read(example.image, box)
    return pixels.reshape(len(pixels), -1)[:, chosen].T.astype(np.float64)
