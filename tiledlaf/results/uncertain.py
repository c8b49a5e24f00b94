"""How much the labels of an image are in doubt, cell by cell, and the windows with most doubt.

The doubt of a label is one minus its confidence, and what the folds of the training disagree.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..labeling import worker
from ..labeling.plan import Plan
from ..labeling.worker import Job
from ..model.term import DataTerm
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
    doubt : sum over its labels, each at most 1, in units of 1 / `UNIT`
    wrong : number of labels that are expected to be wrong by their confidence, in the same units
    pixels : number of labels
    box : its pixels, of one position along the axes before y and x
    """

    doubt: int
    wrong: int
    pixels: int
    box: tuple[slice, ...]

    @property
    def confidence(self) -> float:
        """The mean confidence of its labels."""
        return 1 - self.wrong / UNIT / self.pixels


def with_folds(plan: Plan, folds: Sequence[DataTerm]) -> Plan:
    """The plan, whose tiles also say how much these data terms disagree."""
    job, reach = plan.job, max((one.radius for one in folds), default=0)
    halo = (*job.grid.halo[:-2], *(max(h, reach) for h in job.grid.halo[-2:]))
    grid = dataclasses.replace(job.grid, halo=halo)
    return dataclasses.replace(plan, job=dataclasses.replace(job, grid=grid, folds=tuple(folds)))


def windows(
    plan: Plan, pool: Pool, size: int, count: int, told: Callable[[int], None]
) -> list[Window]:
    """The windows of an image whose labels are most in doubt, first the worst.

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
    doubt, wrong, pixels = _pairs(_cells(plan.job, pool, size // 2, told))
    found: list[Window] = []
    while len(found) < count:
        place = np.unravel_index(doubt.argmax(), doubt.shape)
        if doubt[place] <= 0:
            break
        where = tuple(int(n) for n in place)
        box = _box(grid, where, size)
        found.append(Window(int(doubt[where]), int(wrong[where]), int(pixels[where]), box))
        apart = [PLANES] * (len(where) - 2) + [2, 2]
        near = (slice(max(0, n - a + 1), n + a) for n, a in zip(where, apart, strict=True))
        doubt[*near] = 0
    return found


def _cells(job: Job, pool: Pool, edge: int, told: Callable[[int], None]) -> np.ndarray:
    """Of cells of so many pixels along y and x: doubt, labels expected to be wrong, all labels."""
    grid = job.grid
    shape = (*grid.size[:-2], *(-(-n // edge) for n in grid.size[-2:]))
    sums = np.zeros((3, *shape), np.int64)
    indices = itertools.product(*map(range, grid.shape))
    fair = len(grid) // (8 * pool.workers)
    batch = max(min(TASK // math.prod(grid.tile), fair), 1)
    for done, (_, found, error, _) in enumerate(
        pool.run(of_tile, (job, edge), indices, batch), start=1
    ):
        if error is not None:
            raise error
        if found is not None:
            first, some = found
            here = (slice(a, a + n) for a, n in zip(first, some.shape[1:], strict=True))
            sums[:, *here] += some
        told(done)
    return sums


def of_tile(
    given: tuple[Job, int], index: Sequence[int]
) -> tuple[tuple[int, ...], np.ndarray] | None:
    """What one tile adds to the sums of `_cells`, and the place of its first cell."""
    job, edge = given
    tile = job.grid.tile_at(index)
    found = worker.label_tile(job, tile)
    if found is None:
        return None
    assert found.confidence is not None, "a plan without the confidence"
    valid = found.confidence > 0
    share = np.where(valid, 1 - found.confidence.astype(np.float64), 0)
    wrong, pixels = np.rint(share * UNIT).astype(np.int64), valid.astype(np.int64)
    doubt = wrong
    if found.deviation is not None:
        share += np.where(valid, found.deviation, 0)
        doubt = np.rint(np.minimum(share, 1) * UNIT).astype(np.int64)
    sums = np.stack([doubt, wrong, pixels])
    for axis in (-2, -1):
        start, stop = tile.core[axis].start, tile.core[axis].stop
        borders = [0, *range((start // edge + 1) * edge - start, stop - start, edge)]
        sums = np.add.reduceat(sums, borders, axis=axis)
    before = tuple(c.start for c in tile.core[:-2])
    return (*before, *(c.start // edge for c in tile.core[-2:])), sums


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
