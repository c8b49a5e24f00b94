"""Opens the requested pool, and checks for devices on its workers."""

from __future__ import annotations

import contextlib
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError, as_whole, settle_numbers
from ..kernels.arrays import check_device, on_device, on_host
from . import dask as dask_pool
from . import tasks
from .crew import Files
from .tasks import UNWATCHED, Pool, Watch

THREADS, PROCESSES = "threads", "processes"


@dataclass(frozen=True)
class Running:
    """Where and how the work runs; results do not depend on it.

    Attributes
    ----------
    workers : number of processes, or of threads for small work; all cores by default
    scheduler : address of a Dask scheduler, or "threads" or "processes"
    scheduler_file : a Dask scheduler's file
    device : "cpu" or "cuda"
    tile : edge of a tile in pixels
    watch : what Dask shows of the run
    """

    workers: int | None = None
    scheduler: str | None = None
    scheduler_file: str | None = None
    device: str = "cpu"
    tile: int | None = None
    watch: Watch = UNWATCHED

    def __post_init__(self) -> None:
        settle_numbers(self)
        _check_workers(self.workers)
        check_device(self.device)

    @property
    def named(self) -> bool:
        """Whether a scheduler is named, including "threads" and "processes"."""
        return self.scheduler is not None or self.scheduler_file is not None


def in_threads(scheduler: str | None) -> bool:
    """Whether a scheduler stands for threads of this process."""
    return scheduler == THREADS


def open_pool(
    workers: int | None = None,
    scheduler: str | None = None,
    scheduler_file: str | None = None,
    watch: Watch = UNWATCHED,
    files: Files = Files(),
) -> AbstractContextManager[Pool]:
    """Open threads of this process, or the named processes or cluster.

    Parameters
    ----------
    files : what workers of a given scheduler must see

    Raises
    ------
    ValueError
        If the number of workers is not positive, the scheduler does not answer, or Dask cannot
        show what was requested.
    """
    _check_workers(workers)
    count = cores() if workers is None else as_whole("workers", workers)
    if in_threads(scheduler) and watch:
        raise InputError(
            "`dashboard` and `performance_report` show processes or a cluster: threads have none"
        )
    if scheduler in (None, THREADS) and scheduler_file is None and not watch:
        return tasks.threads(count)
    return dask_pool.dask(
        count, None if scheduler == PROCESSES else scheduler, scheduler_file, watch, files
    )


def _check_workers(workers: int | None) -> None:
    if workers is not None and as_whole("workers", workers) < 1:
        raise InputError(f"expected 1 or more workers, got {workers}")


def cores() -> int:
    """Cores that this process may use: fewer than the machine has if its affinity is limited."""
    from dask.system import CPU_COUNT

    return int(CPU_COUNT)


def memory() -> int | None:
    """Bytes that this process may use: those of the machine, or of its control group if fewer."""
    found = []
    with contextlib.suppress(AttributeError, ValueError, OSError):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with contextlib.suppress(ValueError, OSError):  # "max": no limit
        found.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(found, default=None)


def find_device(device: str, pool: Pool) -> None:
    """Check a worker for a device before it gets work; this process need not have the device.

    Raises
    ------
    ValueError
        If the worker has none.
    """
    check_device(device)
    if not on_host(device):
        pool.map(_found, device, [None])


def _found(device: str, _: None) -> None:
    on_device(device)
