"""Tiles over threads, processes or a Dask cluster; lazy labels of Dask arrays.

Dask is only here.
"""

from __future__ import annotations

import concurrent.futures
import ctypes
import functools
import itertools
import logging
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

Function = Callable[[Any, Any], Any]
# (item, result, None) or (item, None, error), in the order in which items finish
Outcome = tuple[Any, Any, BaseException | None]
AHEAD = 3  # tasks in flight a thread: enough that no worker waits, few enough to stay O(1)
RETRIES = 2
COMING = 300  # seconds until the first worker of a cluster must be there
LOOK = 5.0  # seconds after which a run looks whether more of them came


@dataclass(frozen=True)
class Pool:
    """Where tasks run.

    Attributes
    ----------
    workers : processes or threads that each run one tile at a time
    memory : bytes a worker may use, or None where nobody limits it
    run : run(function, job, items, batch) yields an outcome an item; tasks are of `batch` items
    hold : hold(function, job, items) gives a handle of each result, which stays where it is
    each : each(function, argument, handles) gives the results of function(argument, held), in
        order; a tuple may have a handle and other things
    """

    workers: int
    memory: int | None
    run: Callable[..., Iterator[Outcome]]
    hold: Callable[[Function, Any, Sequence[Any]], list[Any]]
    each: Callable[[Function, Any, Sequence[Any]], list[Any]]


@contextmanager
def threads(workers: int) -> Iterator[Pool]:
    """Threads of this process; the kernels do not hold the GIL."""
    executor = concurrent.futures.ThreadPoolExecutor(workers)

    def run(
        function: Function, job: Any, items: Iterable[Any], batch: int = 1
    ) -> Iterator[Outcome]:
        waiting = _batches(items, batch)
        pending = {
            executor.submit(_outcomes, function, job, part)
            for part in itertools.islice(waiting, AHEAD * workers)
        }
        while pending:
            done, pending = concurrent.futures.wait(pending, return_when="FIRST_COMPLETED")
            for future in done:
                for following in itertools.islice(waiting, 1):
                    pending.add(executor.submit(_outcomes, function, job, following))
                yield from future.result()

    def each(function: Function, argument: Any, items: Sequence[Any]) -> list[Any]:
        return list(executor.map(lambda item: _retried(function, argument, item), items))

    try:
        yield Pool(workers, None, run, each, each)
    finally:
        executor.shutdown(cancel_futures=True)


def _batches(items: Iterable[Any], size: int) -> Iterator[tuple[Any, ...]]:
    waiting = iter(items)
    return iter(lambda: tuple(itertools.islice(waiting, size)), ())


def _outcomes(function: Function, job: Any, items: Sequence[Any]) -> list[Outcome]:
    """One task: an item that fails does not take the others with it."""
    found: list[Outcome] = []
    for item in items:
        try:
            found.append((item, _retried(function, job, item), None))
        except Exception as error:
            found.append((item, None, error))
    return found


def _retried(function: Function, job: Any, item: Any) -> Any:
    for attempt in range(RETRIES + 1):
        try:
            return function(job, item)
        except OSError:
            if attempt == RETRIES:
                raise
    return None


@functools.cache
def _keep_memory() -> None:
    """Let this worker process use the memory of one tile again for the next one.

    Dask tells glibc to give all memory back, large blocks at once; a tile then spends up to a
    third of its time on fresh pages. See mallopt(3).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(-3, 2**25)  # M_MMAP_THRESHOLD, its largest value
        mallopt(-1, 2**29)  # M_TRIM_THRESHOLD


def _task(function: Function, job: Any, item: Any) -> Any:
    """What a Dask worker runs."""
    _keep_memory()
    return function(job, item)


@contextmanager
def dask(
    workers: int | None = None, scheduler: str | None = None, scheduler_file: str | None = None
) -> Iterator[Pool]:
    """A Dask cluster: one of processes on this machine, or the one behind a scheduler.

    Raises
    ------
    ValueError
        If the scheduler does not answer.
    """
    import dask
    from distributed import Client, LocalCluster

    if scheduler or scheduler_file:
        where = scheduler or scheduler_file
        if scheduler_file and not os.path.isfile(scheduler_file):  # Dask would wait for it forever
            raise ValueError(f"--scheduler-file {scheduler_file}: no such file")
        try:
            client = Client(scheduler, scheduler_file=scheduler_file, timeout="10s")
        except (OSError, TypeError, ValueError, TimeoutError) as error:
            raise ValueError(f"scheduler {where}: no answer, {error}") from None
        with client:
            try:
                client.wait_for_workers(1, timeout=COMING)
            except TimeoutError:
                raise ValueError(f"scheduler {where}: no worker came within {COMING} s") from None
            known = client.scheduler_info(n_workers=-1)["workers"].values()
            limits = [w["memory_limit"] // w["nthreads"] for w in known if w["memory_limit"]]
            yield _pool(client, sum(w["nthreads"] for w in known), min(limits, default=None))
        return
    count = workers or os.cpu_count() or 1
    with ExitStack() as stack:
        stack.callback(logging.disable, logging.root.manager.disable)
        # without a dashboard nobody sees these, which wake each worker 150 times a second
        stack.enter_context(dask.config.set({
            "distributed.worker.profile.enabled": False, "distributed.admin.tick.interval": "1s",
        }))  # fmt: skip
        cluster = stack.enter_context(
            LocalCluster(
                n_workers=count, threads_per_worker=1, host="127.0.0.1",
                # no dashboard, but Dask warns unless it finds its port free: take any
                dashboard_address="127.0.0.1:0", scheduler_kwargs={"dashboard": False},
                silence_logs=logging.ERROR, preload=[__name__],
            )
        )  # fmt: skip
        client = stack.enter_context(Client(cluster))
        known = client.scheduler_info(n_workers=-1)["workers"].values()
        try:
            yield _pool(client, count, min((w["memory_limit"] for w in known), default=None))
        except BaseException:
            logging.disable()  # what a cluster says about tasks that are given up is no news
            raise


def open_pool(
    workers: int | None, scheduler: str | None, scheduler_file: str | None
) -> AbstractContextManager[Pool]:
    """Threads of this process, or the processes or the cluster that were named.

    Raises
    ------
    ValueError
        If the number of workers is not positive, or the scheduler does not answer.
    """
    count = workers if workers is not None else os.cpu_count() or 1
    if count < 1:
        raise ValueError(f"expected 1 or more workers, got {workers}")
    if scheduler in (None, "threads") and scheduler_file is None:
        return threads(count)
    return dask(count, None if scheduler == "processes" else scheduler, scheduler_file)


def dask_setup(worker: Any) -> None:
    """Dask calls this in each process that `dask` starts: Ctrl-C is for the client to hear."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _pool(client: Any, workers: int, memory: int | None) -> Pool:
    from distributed import as_completed

    def submit(function: Function, job: Any, item: Any) -> Any:
        # the job goes with every task: it is small, and scattered data dies with its worker
        return client.submit(_task, function, job, item, retries=RETRIES, pure=False)

    def run(
        function: Function, job: Any, items: Iterable[Any], batch: int = 1
    ) -> Iterator[Outcome]:
        waiting, parts = _batches(items, batch), {}

        def start(count: int) -> list[Any]:
            started = []
            for part in itertools.islice(waiting, count):
                future = submit(functools.partial(_outcomes, function), job, part)
                parts[future.key] = part
                started.append(future)
            return started

        known, looked = workers, time.monotonic()
        # results are fetched as they come: asked for here, each would be a way there and back that
        # all others wait for
        completed = as_completed(start(AHEAD * known), with_results=True, raise_errors=False)
        for future, result in completed:
            part = parts.pop(future.key)
            error = None if future.status == "finished" else future.exception()
            if time.monotonic() - looked > LOOK:
                known, looked = max(known, sum(client.nthreads().values())), time.monotonic()
            completed.update(start(AHEAD * known - len(parts)))
            yield from ((item, None, error) for item in part) if error else result
            future.release()

    def hold(function: Function, job: Any, items: Sequence[Any]) -> list[Any]:
        # what a worker takes with it when it dies is made again from these tasks
        found = [submit(function, job, item) for item in items]
        _wait(found)
        return found

    def each(function: Function, argument: Any, items: Sequence[Any]) -> list[Any]:
        return list(client.gather(hold(function, argument, items)))

    return Pool(workers, memory, run, hold, each)


def _wait(futures: Sequence[Any]) -> None:
    """Wait for all; raise the error of the first that failed."""
    from distributed import wait

    wait(futures)
    for future in futures:
        error = future.exception()
        if error is not None:
            raise error


def is_dask(array: Any) -> bool:
    """Whether this is a dask array, without importing dask."""
    return type(array).__module__.startswith("dask.")


def delayed(function: Callable[..., Any], *arguments: Any) -> Any:
    """A lazy call; dask arrays among the arguments arrive as NumPy arrays."""
    import dask

    return dask.delayed(function)(*arguments)


def map_windows(
    function: Callable[..., Any], arrays: Sequence[Any], halo: Sequence[int], extra: Any
) -> Any:
    """Lazily map a function of padded blocks over dask arrays with channels in front.

    Parameters
    ----------
    function : called with a block (C, *window) of each array and ``extra=``; gives (2, *window)
    arrays : (C, *grid) dask or NumPy arrays
    halo : pixels an axis of the grid
    extra : a delayed value or any other

    Returns
    -------
    (2, *grid) float32 dask array
    """
    import dask.array as da

    first = da.asarray(arrays[0])
    chunks = tuple(
        _at_least(lengths, least) for lengths, least in zip(first.chunks[1:], halo, strict=True)
    )
    # one chunk along an axis has no border to another
    depth = {0: 0} | {
        i: h * (len(c) > 1) for i, (h, c) in enumerate(zip(halo, chunks, strict=True), 1)
    }
    padded = [
        da.overlap.overlap(
            da.asarray(a).rechunk((a.shape[0], *chunks)), depth=depth, boundary="none"
        )
        for a in arrays
    ]
    blocks = da.map_blocks(
        function,
        *padded,
        extra=extra,
        dtype="float32",
        chunks=((2,), *padded[0].chunks[1:]),
        meta=None,
    )
    return da.overlap.trim_internal(blocks, depth, boundary="none")


def _at_least(lengths: Sequence[int], least: int) -> tuple[int, ...]:
    """Chunks of one axis joined until each is as long as the halo."""
    joined: list[int] = []
    for length in lengths:
        if joined and (joined[-1] < least or length < least):
            joined[-1] += length
        else:
            joined.append(length)
    return tuple(joined)
