"""What memory, disk space and device a run needs, and the pool that suits it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence

import numpy as np

from ..errors import InputError, NotEnoughMemory
from ..files import stores
from ..files.image import Image
from ..pool import opening
from ..pool.crew import Files
from ..pool.opening import Running, find_device
from ..pool.tasks import Pool
from . import blocks
from . import worker as labeling_worker
from .plan import SMALL, Plan
from .worker import Job

PROCESS_BYTES = 450 * 2**20  # a worker with its libraries, before the first tile


def predicted_bytes(job: Job) -> int:
    """Peak memory of a worker: its process, a tile's pixels and labels, and one band's planes."""
    edges = tuple(map(min, job.grid.size, job.grid.tile))[job.front :]
    halo, grid = job.grid.halo[job.front :], job.grid.image[job.front :]
    window = tuple(min(n, e + 2 * h) for n, e, h in zip(grid, edges, halo, strict=True))
    rows = labeling_worker.bands(job, edges, (0,) * len(edges), window).tile[0]
    pixels, core = math.prod(window), math.prod(edges)
    part = min(rows + 2 * halo[0], window[0]) * math.prod(window[1:])
    classes, neighbors = job.term.classes, len(job.settings.offsets)
    image = job.image.stored_channels * np.dtype(job.image.dtype).itemsize
    data = image
    if job.term.takes_probabilities and job.probabilities is not None:
        data = job.probabilities.stored_channels * np.dtype(job.probabilities.dtype).itemsize
    held = data + job.term.bytes_per_pixel()
    if job.settings.predictor is not None:
        # features, their copy without margins, weights and what these are computed from
        held += 4 * 3 * len(job.settings.predictor.mean)
        held += 4 * len(job.settings.offsets)
    if job.weights is not None:
        data += 4 * job.settings.channels
        held += 4 * job.settings.channels
    # distances, weights (two shapes are kept), label, confidence, gap, neighbor counts, shares
    held += 4 * classes + 3 * 4 * neighbors + 2 + 4 + 4 + 8
    held += 4 * classes * job.settings.integrator.planes
    if job.folds:
        # distances and probabilities of one of them, and of all those of the label
        held += 8 * classes + 16 * len(job.folds) + 16
        held += max(one.bytes_per_pixel() for one in job.folds)
    copies = 3 * image + 3 + (12 if job.certain else 0)  # labels, levels, encoded shards
    whole = 0
    if job.probabilities is not None:
        whole = job.probabilities.reader.held(job.probabilities.path)
    # pixels are held twice: as stored, and with channels first
    return PROCESS_BYTES + whole + 2 * pixels * data + part * held + core * copies


def check_resources(plan: Plan, pool: Pool) -> None:
    """Refuse a run without its device, or one that cannot fit into memory or onto the disk.

    Raises
    ------
    ValueError
        If something is missing; gives what is needed and what is there.
    """
    find_device(plan.job.settings.device, pool)
    need = predicted_bytes(plan.job)
    if pool.memory is not None and need > pool.memory:
        raise NotEnoughMemory(
            f"a worker would need {need / 2**20:.0f} MiB "
            f"and may use {pool.memory / 2**20:.0f} MiB; take a smaller `tile` or fewer workers"
        )
    if plan.out is not None and plan.held is None:
        free = stores.free_bytes(plan.out.store)
        if free is not None and needed_bytes(plan) > free:
            raise InputError(
                f"{plan.out.store}: about {needed_bytes(plan) / 2**20:.0f} MiB are needed and "
                f"{free / 2**20:.0f} MiB are free"
            )


def open_pool(plan: Plan, running: Running = Running()) -> contextlib.AbstractContextManager[Pool]:
    """Open threads for small images, else processes; or the cluster that was named."""
    return open_pool_of([plan], running, _files(plan))


def is_small(plan: Plan) -> bool:
    """Whether threads of this process will do."""
    return len(plan.job.grid) == 1 or math.prod(plan.job.grid.size) <= SMALL


def open_pool_of(
    plans: Sequence[Plan], running: Running, files: Files
) -> contextlib.AbstractContextManager[Pool]:
    """The pool for several images: as for one, with processes if any is large."""
    small, scheduler = all(map(is_small, plans)), running.scheduler
    in_memory = any(not plan.job.image.reader.stored for plan in plans)
    if in_memory and running.named and not opening.in_threads(scheduler):
        raise InputError("arrays in memory are labeled by threads; save them as Zarr for a cluster")
    if in_memory or (small and not running.named and not running.watch):
        scheduler = opening.THREADS
    count = opening.cores() if running.workers is None else running.workers
    if opening.in_threads(scheduler):
        most = max(len(plan.job.grid) for plan in plans)
        return opening.open_pool(min(count, most), scheduler, None, running.watch)
    return opening.open_pool(
        count,
        scheduler or opening.PROCESSES,
        running.scheduler_file,
        running.watch,
        files,
    )


def _files(plan: Plan) -> Files:
    """What workers must see of this machine's files."""
    job = plan.job
    images = [job.image, job.probabilities, job.weights, job.mask]
    stored = [i for i in images if isinstance(i, Image) and i.reader.stored]
    paths = [path for i in stored for path in i.reader.paths(i.path)]
    outputs = [] if plan.out is None else stores.on_disk([plan.out.store])
    folders = {str(stores.nearest_existing(path)) for path in outputs}
    return Files(stores.on_disk(paths), sorted(folders))


def needed_bytes(plan: Plan) -> int:
    """Bytes on disk to expect: the image as stored, 1/8 per label, 4 per pixel of confidence."""
    job = plan.job
    pixels = math.prod(job.grid.size) * 4 / 3
    need = pixels * (1 / 8 + 4 * (job.confidence is not None)) + blocks.needed_bytes(job)
    if job.picture is not None:
        itemsize = np.dtype(job.image.dtype).itemsize
        raw = math.prod(job.image.grid) * job.image.stored_channels * itemsize
        stored = sum(size for _, size, _ in job.image.state()) if job.image.reader.stored else raw
        # a JPEG grows when its pixels are stored without loss
        need += (
            pixels
            / math.prod(job.image.grid)
            * (raw / 2 if job.image.reader.lossy else min(stored, raw))
        )
    return int(need)
