"""How many labels of an image are expected to be wrong, cell by cell, and the windows with most."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..labeling import worker
from ..labeling.plan import Plan
from ..labeling.worker import Job
from ..pool.tasks import Pool
from ..tiles import Grid

UNIT = 2**24  # of what a pixel adds: whole numbers, whose sums do not depend on their order
PLANES = 8  # planes, or time points, from one window to the next at the same place
TASK = 2**20  # pixels of small tiles that share a task


@dataclass(frozen=True)
class Window:
    """A window of an image, in pixels of the level that is read.

    Attributes
    ----------
    wrong : number of labels that are expected to be wrong, in units of 1 / `UNIT`
    pixels : number of labels
    box : its pixels, of one position along the axes before y and x
    """

    wrong: int
    pixels: int
    box: tuple[slice, ...]

    @property
    def confidence(self) -> float:
        """The mean confidence of its labels."""
        return 1 - self.wrong / UNIT / self.pixels


def windows(
    plan: Plan, pool: Pool, size: int, count: int, told: Callable[[int], None]
) -> list[Window]:
    """The windows of an image in which most labels are expected to be wrong, first the worst.

    They do not overlap; those at one place of a volume or series are `PLANES` apart. They begin at
    multiples of half their size, and end at the image's border at most. What is masked counts
    nothing.

    Parameters
    ----------
    plan : settled, with the confidence
    size : even number of pixels along y and x
    told : called with the number of tiles that are done
    """
    grid = plan.job.grid
    wrong, pixels = _cells(plan.job, pool, size // 2, told)
    wrong, pixels = _pairs(wrong), _pairs(pixels)
    found: list[Window] = []
    while len(found) < count:
        place = np.unravel_index(wrong.argmax(), wrong.shape)
        if wrong[place] <= 0:
            break
        where = tuple(int(n) for n in place)
        box = _box(grid, where, size)
        found.append(Window(int(wrong[where]), int(pixels[where]), box))
        apart = [PLANES] * (len(where) - 2) + [2, 2]
        near = (slice(max(0, n - a + 1), n + a) for n, a in zip(where, apart, strict=True))
        wrong[*near] = 0
    return found


def _cells(
    job: Job, pool: Pool, edge: int, told: Callable[[int], None]
) -> tuple[np.ndarray, np.ndarray]:
    """For cells of so many pixels along y and x: labels expected to be wrong, and all labels."""
    grid = job.grid
    shape = (*grid.size[:-2], *(-(-n // edge) for n in grid.size[-2:]))
    wrong, pixels = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    indices = itertools.product(*map(range, grid.shape))
    fair = len(grid) // (8 * pool.workers)
    batch = max(min(TASK // math.prod(grid.tile), fair), 1)
    for done, (_, found, error, _) in enumerate(
        pool.run(of_tile, (job, edge), indices, batch), start=1
    ):
        if error is not None:
            raise error
        if found is not None:
            first, some, all_of_them = found
            here = tuple(slice(a, a + n) for a, n in zip(first, some.shape, strict=True))
            wrong[here] += some
            pixels[here] += all_of_them
        told(done)
    return wrong, pixels


def of_tile(
    given: tuple[Job, int], index: Sequence[int]
) -> tuple[tuple[int, ...], np.ndarray, np.ndarray] | None:
    """What one tile adds: place of its first cell, labels expected to be wrong, and all labels."""
    job, edge = given
    tile = job.grid.tile_at(index)
    found = worker.label_tile(job, tile)
    if found is None:
        return None
    assert found.confidence is not None, "a plan without the confidence"
    valid = found.confidence > 0
    share = np.where(valid, 1 - found.confidence.astype(np.float64), 0)
    wrong, pixels = np.rint(share * UNIT).astype(np.int64), valid.astype(np.int64)
    for axis in (-2, -1):
        start, stop = tile.core[axis].start, tile.core[axis].stop
        borders = [0, *range((start // edge + 1) * edge - start, stop - start, edge)]
        wrong, pixels = (np.add.reduceat(one, borders, axis=axis) for one in (wrong, pixels))
    before = tuple(c.start for c in tile.core[:-2])
    return (*before, *(c.start // edge for c in tile.core[-2:])), wrong, pixels


def _pairs(cells: np.ndarray) -> np.ndarray:
    """Sums over windows of two by two cells; along an axis of one cell, of this one."""
    if cells.shape[-2] > 1:
        cells = cells[..., :-1, :] + cells[..., 1:, :]
    if cells.shape[-1] > 1:
        cells = cells[..., :-1] + cells[..., 1:]
    return cells.copy()


def _box(grid: Grid, place: Sequence[int], size: int) -> tuple[slice, ...]:
    """The pixels of a window by its place among all."""
    edges = [1] * (len(place) - 2) + [size // 2] * 2
    sizes = [1] * (len(place) - 2) + [size] * 2
    axes = zip(place, edges, sizes, grid.origin, grid.size, strict=True)
    return tuple(slice(o + p * e, o + min(p * e + s, n)) for p, e, s, o, n in axes)
