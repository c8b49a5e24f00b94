"""Which tiles are learned from, and which ones judge what was learned: folds and rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..tiles import size
from .worker import LabeledTile

FOLDS = 5
BATCH = 8  # most tiles in a batch
PIXELS = 1 << 18  # of a batch of more than two, which workers share: more make no better steps
FEW = 3  # images below which each tile is a unit of its own


@dataclass(frozen=True)
class Round:
    """Numbers of the tiles that are learned from, in batches, and of those that judge."""

    batches: list[list[int]]
    judged: list[int]

    @property
    def training(self) -> list[int]:
        """The tiles that are learned from, in order."""
        return sorted(i for batch in self.batches for i in batch)


def folds(tiles: Sequence[LabeledTile]) -> list[int]:
    """Fold of each tile: a block of images, which may be alike, or of tiles of few images."""
    numbers = sorted({one.example for one in tiles})
    units = [numbers.index(one.example) for one in tiles]
    if len(numbers) < FOLDS:
        units = list(range(len(tiles)))
    count = min(FOLDS, max(units) + 1)
    return [unit * count // (max(units) + 1) for unit in units]


def can_be_folded(
    tiles: Sequence[LabeledTile], counts: Mapping[tuple[int, tuple[int, ...]], tuple[int, ...]]
) -> bool:
    """Whether there are two folds or more, and each class is in more than one of them."""
    found = folds(tiles)
    table = np.zeros((max(found) + 1, len(next(iter(counts.values())))), np.int64)
    for one, fold in zip(tiles, found, strict=True):
        table[fold] += counts[one.example, one.tile.index]
    return bool(((table > 0).sum(axis=0) > 1).all())


def rounds(
    training: Sequence[LabeledTile], validation: Sequence[LabeledTile], folds: Sequence[int]
) -> tuple[list[Round], Round | None]:
    """The rounds, and what is learned from after them.

    Where there are no validation tiles, each half of the folds is judged by what was learned from
    the other one, and at last all tiles are learned from.
    """
    count = len(training)
    everything = Round(_batches(training, range(count)), [])
    if validation:
        judges = range(count, count + len(validation))
        return [Round(everything.batches, list(judges))], None
    half = (max(folds) + 1) // 2
    sides = [[i for i in range(count) if (folds[i] < half) == first] for first in (True, False)]
    found = [Round(_batches(training, own), other) for own, other in (sides, sides[::-1])]
    return found, everything


def _batches(tiles: Sequence[LabeledTile], chosen: Sequence[int]) -> list[list[int]]:
    """Batches: the numbers of two tiles of one image each, or of more, if these are small."""
    found: list[list[int]] = []
    last, pixels = None, 0
    for number in chosen:
        one = tiles[number]
        more = size(one.tile.core)
        most = BATCH if pixels + more <= PIXELS else 2
        if one.example != last or len(found[-1]) >= most:
            found.append([])
            last, pixels = one.example, 0
        found[-1].append(number)
        pixels += more
    return found


def units(tiles: Sequence[LabeledTile]) -> tuple[list[int], str]:
    """Unit of each tile, which is its image or, where images are few, itself; these in words."""
    images = sorted({one.example for one in tiles})
    if len(images) >= FEW:
        return [images.index(one.example) for one in tiles], f"{len(images)} images"
    of = "1 image" if len(images) == 1 else f"{len(images)} images"
    return list(range(len(tiles))), f"{len(tiles)} blocks of {of}"
