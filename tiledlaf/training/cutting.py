"""Cut examples into the tiles that are learned from and judge."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..tiles import Box, Grid, Tile
from .examples import Example
from .worker import LabeledTile

EDGES = (256, 512)  # most pixels of a tile along y and x: two of them, side by side, are a step
DEEP = (16, 256, 256)  # and of a volume whose neighbors are in other planes
SPLIT = 64  # least edge of the parts into which a tile of few labels is split
LEAST = 6  # least number of tiles of few images, so that blocks can be left out


def cut(examples: Sequence[Example], halo: Sequence[int], training: int) -> list[tuple[int, Tile]]:
    """All tiles that may have labels, with the image's number; few images are cut into more."""
    few = least(training)
    found = []
    for number, example in enumerate(examples):
        grid = _grid(example.image.grid, halo, few)
        for tile in grid:
            parts = _occupied(example, tile.core, halo)[1]
            found += [(number, grid.part(tile, part, i)) for i, part in enumerate(parts)]
    return found


def _occupied(example: Example, box: Box, halo: Sequence[int]) -> tuple[int, list[Box]]:
    """The parts of a box that may have labels, and how many pixels they need with their halos.

    The box is halved as long as that leaves out pixels.
    """
    found = example.occupied(box)
    if found is None:
        return 0, []
    need = math.prod(b.stop - b.start + 2 * h for b, h in zip(found, halo, strict=True))
    edges = [b.stop - b.start for b in found]
    axis = int(np.argmax(edges))
    if found == box or edges[axis] < 2 * SPLIT:
        return need, [found]
    middle = found[axis].start + edges[axis] // 2
    halves = slice(found[axis].start, middle), slice(middle, found[axis].stop)
    split = [_occupied(example, (*found[:axis], h, *found[axis + 1 :]), halo) for h in halves]
    less = sum(pixels for pixels, _ in split)
    return (less, split[0][1] + split[1][1]) if less < need else (need, [found])


def finer(
    examples: Sequence[Example], tiles: Sequence[LabeledTile], halo: Sequence[int]
) -> list[tuple[int, Tile]]:
    """Tiles, too few to be left out in turn, in up to `LEAST` parts of 16 pixels or more."""
    found = []
    for one in tiles:
        grid = _grid(examples[one.example].image.grid, halo, 1)
        core = one.tile.core
        axis = max((-2, -1), key=lambda a: core[a].stop - core[a].start) % len(core)
        start, stop = core[axis].start, core[axis].stop
        count = max(1, min(LEAST, (stop - start) // 16))
        ends = [start + (stop - start) * i // count for i in range(count + 1)]
        for number, part in enumerate(map(slice, ends[:-1], ends[1:])):
            box = (*core[:axis], part, *core[axis + 1 :])
            found.append((one.example, grid.part(one.tile, box, number)))
    return found


def least(training: int) -> int:
    """Least number of tiles of each of so many images."""
    return -(-LEAST // training) if 0 < training * 2 < LEAST else 2


def _grid(size: Sequence[int], halo: Sequence[int], least: int) -> Grid:
    """Tiles of at most `EDGES`, at least `least` of them, so that workers share an image."""
    deep = len(size) == 3 and halo[0] > 0
    *planes, high, wide = DEEP if deep else (*(1,) * (len(size) - 2), *EDGES)
    # no tile is narrower than 16 pixels, not even the last one
    rows = max(min(least, size[-2] // 16), math.ceil(size[-2] / high))
    edge = math.ceil(size[-2] / rows)
    columns = math.ceil(size[-1] / math.ceil(size[-1] / wide))
    zero = (0,) * len(size)
    return Grid(tuple(size), zero, tuple(size), (*planes, edge, columns), tuple(halo))
