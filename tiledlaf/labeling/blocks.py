"""A network's blocks that several tiles need, shared by workers through a folder in the output."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from ..files import stores
from ..model.network import LOCK, Evaluated, block_name
from ..pool.tasks import Pool
from ..tiles import Grid
from .output import Output
from .worker import Job

FOLDER = "tiledlaf.blocks"  # inside the array of the labels, as the records are


def shared(job: Job, out: Output, pool: Pool) -> Job:
    """The job whose workers share blocks, if there are several processes that see one folder."""
    given = job.probabilities
    if given is None or not isinstance(given.reader, Evaluated):
        return job
    if pool.shared or stores.is_url(out.store):
        return job
    folder = os.path.abspath(_folder(out))
    os.makedirs(folder, exist_ok=True)
    reader = dataclasses.replace(given.reader, folder=folder)
    return dataclasses.replace(job, probabilities=dataclasses.replace(given, reader=reader))


def remove(out: Output) -> None:
    """Remove the folder of an output on this machine's disks."""
    if not stores.is_url(out.store):
        shutil.rmtree(_folder(out), ignore_errors=True)


def _folder(out: Output) -> Path:
    return Path(out.store) / out.group / "0" / FOLDER


def release(job: Job, index: Sequence[int], finished: Callable[[tuple[int, ...]], bool]) -> None:
    """Remove the blocks that no tile needs any more, now that the one at `index` is finished."""
    reader = None if job.probabilities is None else job.probabilities.reader
    if not isinstance(reader, Evaluated) or not reader.folder:
        return
    block, window = reader.network.block(job.image.grid), job.grid.tile_at(index).window
    spans = (range(w.start // b, -(-w.stop // b)) for w, b in zip(window, block, strict=True))
    for place in itertools.product(*spans):
        if all(map(finished, itertools.product(*_needing(job.grid, block, place)))):
            for ending in ("", LOCK):
                with contextlib.suppress(FileNotFoundError):
                    os.remove(os.path.join(reader.folder, block_name(place) + ending))


def _needing(grid: Grid, block: Sequence[int], place: Sequence[int]) -> list[range]:
    """Indices along each axis of the tiles whose windows have pixels of a block."""
    found = []
    axes = zip(grid.origin, grid.size, grid.tile, grid.halo, block, place, strict=True)
    for origin, size, tile, halo, edge, at in axes:
        start, stop = at * edge - origin - halo, (at + 1) * edge - origin + halo
        # of tile i, pixels from i t on and before (i + 1) t, up to the size
        first, last = max(start // tile, 0), min((stop - 1) // tile, (size - 1) // tile)
        found.append(range(first, last + 1) if start < size else range(0))
    return found


def needed_bytes(job: Job) -> int:
    """Disk space for the blocks along a row of tiles; 0 without a network."""
    given = job.probabilities
    if given is None or not isinstance(given.reader, Evaluated):
        return 0
    block = given.reader.network.block(job.image.grid)
    rows = [t + 2 * b for t, b in zip(job.grid.tile[:-1], block[:-1], strict=True)]
    width = min(job.image.grid[-1], job.grid.size[-1] + 2 * block[-1])
    return 4 * job.term.classes * width * math.prod(map(min, rows, job.image.grid[:-1]))
