"""Open the pool that is asked for, and look for devices on its workers."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager

from ..kernels.arrays import check_device, on_device
from . import dask as dask_pool
from . import tasks
from .tasks import UNWATCHED, Pool, Watch


def open_pool(
    workers: int | None, scheduler: str | None, scheduler_file: str | None, watch: Watch = UNWATCHED
) -> AbstractContextManager[Pool]:
    """Threads of this process, or the processes or the cluster that were named.

    Raises
    ------
    ValueError
        If the number of workers is not positive, the scheduler does not answer, or Dask cannot
        show what was asked for.
    """
    count = workers if workers is not None else os.cpu_count() or 1
    if count < 1:
        raise ValueError(f"expected 1 or more workers, got {workers}")
    if scheduler == "threads" and watch:
        raise ValueError(
            "--dashboard and --performance-report show processes or a cluster: threads have none"
        )
    if scheduler in (None, "threads") and scheduler_file is None and not watch:
        return tasks.threads(count)
    return dask_pool.dask(
        count, None if scheduler == "processes" else scheduler, scheduler_file, watch
    )


def find_device(device: str, pool: Pool) -> None:
    """Ask a worker for a device before it is given work; this process need not have it.

    Raises
    ------
    ValueError
        If there is none.
    """
    check_device(device)
    if device != "cpu":
        pool.each(_found, device, [None])


def _found(device: str, _: None) -> None:
    on_device(device)
