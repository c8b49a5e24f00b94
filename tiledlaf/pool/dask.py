"""A Dask cluster as a pool: processes on this machine, or the workers of a given scheduler."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import importlib.util
import itertools
import logging
import os
import queue
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from ..errors import InputError
from ..redaction import redacted
from . import tasks
from .tasks import AHEAD, RETRIES, UNWATCHED, Function, Outcome, Pool, Watch

COMING = 300  # seconds that a cluster may be without workers
LOOK = 5.0  # seconds between checks for workers that joined or left
# Dask gives a task up after four workers died with it, though each may have been killed for another
# reason: so many times Dask is asked to retry
DEATHS = 4 * RETRIES


@functools.cache
def _keep_memory() -> None:
    """Let this worker process reuse the memory of one tile for the next one.

    Dask makes glibc return all freed memory, large blocks at once; a tile then spends up to a third
    of its time on page faults. See mallopt(3).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(-3, 2**25)  # M_MMAP_THRESHOLD, at its largest value
        mallopt(-1, 2**29)  # M_TRIM_THRESHOLD


def _task(function: Function, job: Any, item: Any) -> Any:
    """What a Dask worker runs."""
    _keep_memory()
    return function(job, item)


@contextmanager
def dask(
    workers: int | None = None,
    scheduler: str | None = None,
    scheduler_file: str | None = None,
    watch: Watch = UNWATCHED,
) -> Iterator[Pool]:
    """A Dask cluster: processes on this machine, or the workers of a given scheduler.

    Raises
    ------
    ValueError
        If the scheduler does not answer, or bokeh is missing.
    """
    if scheduler or scheduler_file:
        with _behind(scheduler, scheduler_file, watch) as pool:
            yield pool
    else:
        with _local(workers, watch) as pool:
            yield pool


@contextmanager
def _behind(scheduler: str | None, scheduler_file: str | None, watch: Watch) -> Iterator[Pool]:
    """The workers behind a scheduler."""
    import dask
    from distributed import Client

    where = f"scheduler {scheduler or scheduler_file}"
    if watch.dashboard:
        raise InputError(f"`dashboard`: the {where} has a dashboard of its own")
    if scheduler_file and not os.path.isfile(scheduler_file):  # Dask would wait for it forever
        raise InputError(f"`scheduler_file` {scheduler_file}: no such file")
    try:
        # a client that finds no scheduler would remain dask's default scheduler
        with dask.config.set(scheduler=None):
            client = Client(scheduler, scheduler_file=scheduler_file, timeout="10s")
    except (OSError, TypeError, ValueError, TimeoutError) as error:
        raise InputError(redacted(f"{where}: no answer, {error}")) from None
    with _quiet(), client:
        try:
            client.wait_for_workers(1, timeout=COMING)
        except TimeoutError:
            raise InputError(f"{where}: no worker came within {COMING} s") from None
        known = client.scheduler_info(n_workers=-1)["workers"].values()
        limits = [w["memory_limit"] // w["nthreads"] for w in known if w["memory_limit"]]
        with _guarded(client, where), _reported(client, watch.report):
            yield _pool(client, sum(w["nthreads"] for w in known), min(limits, default=None))


@contextmanager
def _local(workers: int | None, watch: Watch) -> Iterator[Pool]:
    """Processes on this machine."""
    import dask
    from dask.system import CPU_COUNT
    from distributed import Client, LocalCluster

    served = watch.dashboard
    if served and importlib.util.find_spec("bokeh") is None:
        raise InputError("`dashboard` needs bokeh: pip install 'tiledlaf[watch]'")
    count = workers or CPU_COUNT
    # these show only on a dashboard, and they wake each worker 150 times a second
    unseen = {"distributed.worker.profile.enabled": False, "distributed.admin.tick.interval": "1s"}
    with _quiet(), ExitStack() as stack:
        stack.enter_context(dask.config.set({} if watch else unseen))
        with warnings.catch_warnings():
            # if the dashboard's port is taken: its URL below has the port that is used instead
            warnings.filterwarnings("ignore", "Port .* is already in use")
            try:
                cluster = LocalCluster(
                    n_workers=count,
                    threads_per_worker=1,
                    host="127.0.0.1",
                    # even without a dashboard Dask warns if its port is taken: use any free one
                    dashboard_address=served or "127.0.0.1:0",
                    scheduler_kwargs={"dashboard": bool(served)},
                    silence_logs=logging.ERROR,
                    preload=[__name__],
                )
            except RuntimeError as error:
                raise ChildProcessError(f"processes: workers did not start, {error}") from None
        stack.enter_context(cluster)
        client = stack.enter_context(Client(cluster))
        known = client.scheduler_info(n_workers=-1)["workers"].values()
        pool = _pool(client, count, min((w["memory_limit"] for w in known), default=None))
        if served:
            port = cluster.scheduler.http_server.port
            link = f"http://{served.rpartition(':')[0]}:{port}/status"
            pool = dataclasses.replace(pool, dashboard=link)
        # Dask does not replace a worker that is killed while it starts, unless asked again
        with (
            _guarded(client, "processes", lambda: cluster.scale(count)),
            _reported(client, watch.report),
        ):
            yield pool


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Dask about lost results that it recomputes, and restore logging after an error."""
    disabled, client = logging.root.manager.disable, logging.getLogger("distributed.client")
    level = client.level
    client.setLevel(logging.ERROR)
    try:
        yield
    finally:
        client.setLevel(level)
        logging.disable(disabled)


@contextmanager
def _guarded(client: Any, where: str, ask: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Do not wait in vain for a scheduler that has ended or workers that are gone.

    Dask would wait for workers forever. They may come back: `ask` requests new ones. After a clock
    was set back Dask holds its messages until the clock has caught up; here they are sent.

    Raises
    ------
    ConnectionError
        If the connection to the scheduler broke, or there was no worker for COMING seconds.
    ChildProcessError
        If a task that all others wait for has killed its workers.
    """
    from distributed import KilledWorker
    from distributed.client import CancelledError, ClosedClientError
    from distributed.comm import CommClosedError

    end, alone = threading.Event(), threading.Event()

    def watch() -> None:
        seen, known = time.monotonic(), {}
        while not end.wait(LOOK) and client.status == "running":
            with contextlib.suppress(OSError):  # the scheduler is gone: its waiters get the error
                if client.nthreads():
                    seen = time.monotonic()
                ask()
            known, before = {k: f.status for k, f in client.futures.copy().items()}, known
            if known and known == before:
                _hurry(client)
            if time.monotonic() - seen > COMING:
                alone.set()
                client.close()  # which cancels all tasks

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    except BaseException as error:
        logging.disable()
        if alone.is_set():
            raise ConnectionError(f"{where}: no worker for {COMING} s") from None
        if isinstance(error, CancelledError | ClosedClientError | CommClosedError):
            raise ConnectionError(f"{where}: the connection broke") from None
        if isinstance(error, KilledWorker):
            deaths = (DEATHS + 1) * (error.allowed_failures + 1)
            raise ChildProcessError(
                f"{where}: {deaths} workers died on one task (too little memory?)"
            ) from None
        raise
    finally:
        end.set()
        watcher.join()


def _hurry(client: Any) -> None:
    """Have the client, scheduler and workers send what waits for a clock that was set back."""
    client.loop.add_callback(_send, client.scheduler_comm)
    for run, send in ((client.run_on_scheduler, _of_scheduler), (client.run, _of_worker)):
        try:
            run(send, callback_timeout=1)
        except Exception as error:  # a process is gone or frozen, or has another version of this
            logging.getLogger(__name__).debug("%s: %s", send.__name__, error)


def _of_worker(dask_worker: Any) -> None:
    _send(dask_worker.batched_stream)


def _of_scheduler(dask_scheduler: Any) -> None:
    for stream in (*dask_scheduler.stream_comms.values(), *dask_scheduler.client_comms.values()):
        _send(stream)


def _send(stream: Any) -> None:
    # Dask sends a message some milliseconds after the one before, by the wall clock
    waits = getattr(stream, "next_deadline", None)  # there is no stream while a client connects
    if waits is not None and waits > time.time() + 1:
        stream.next_deadline = None
        stream.waker.set()


@contextmanager
def _reported(client: Any, path: str | None) -> Iterator[None]:
    """Have Dask write its performance report at the end, even if the run is interrupted.

    Raises
    ------
    ValueError
        If bokeh is missing where the scheduler runs, or the report cannot be made.
    """
    if path is None:
        yield
        return
    from distributed import performance_report

    if client.run_on_scheduler(importlib.util.find_spec, "bokeh") is None:
        raise InputError(
            "`performance_report` needs bokeh where the scheduler runs: pip install "
            "'tiledlaf[watch]'"
        )
    # a page that needs no network
    report = performance_report(path, mode="inline")
    report.__enter__()
    whole = False
    try:
        yield
        whole = True
    finally:
        try:
            report.__exit__(None, None, None)
        except Exception as error:
            text = f"`performance_report` {path}: not written, {type(error).__name__}: {error}"
            if whole:
                raise InputError(text) from error
            logging.getLogger(__name__).warning(text)  # the run's own error is more important


def dask_setup(worker: Any) -> None:
    """Dask calls this in each process that `dask` starts: Ctrl-C is left to the client.

    So are the errors of tasks; that the scheduler is gone at the end is not an error.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.getLogger("distributed.worker").setLevel(logging.CRITICAL)


def _pool(client: Any, workers: int, memory: int | None) -> Pool:
    from distributed import KilledWorker

    def submit(function: Function, job: Any, item: Any) -> Any:
        # the job goes with every task: it is small, and scattered data dies with its worker
        return client.submit(_task, function, job, item, retries=RETRIES, pure=False)

    def run(
        function: Function, job: Any, items: Iterable[Any], batch: int = 1
    ) -> Iterator[Outcome]:
        waiting, known, looked = tasks.batches(items, batch), workers, time.monotonic()
        pending: dict[str, tuple[Any, tuple[Any, ...], int]] = {}
        ended: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def start(parts: Iterable[tuple[Any, ...]], killed: int = 0) -> None:
            for part in parts:
                future = submit(functools.partial(tasks.outcomes, function), job, part)
                pending[future.key] = future, part, killed
                future.add_done_callback(ended.put)

        start(itertools.islice(waiting, AHEAD * known))
        while pending:
            futures = [ended.get()]
            while not ended.empty():
                futures.append(ended.get())
            given = _results(client, futures)
            for future in futures:
                _, part, killed = pending.pop(future.key)
                found = given.get(future.key)
                error = None if found else future.exception()
                if isinstance(error, KilledWorker) and killed < RETRIES:
                    # whichever item kills workers, the others must not fail with it
                    start(((item,) for item in part), killed + 1)
                    continue
                if time.monotonic() - looked > LOOK:
                    known, looked = max(known, sum(client.nthreads().values())), time.monotonic()
                start(itertools.islice(waiting, max(AHEAD * known - len(pending), 0)))
                if isinstance(error, KilledWorker):
                    deaths = (killed + 1) * (error.allowed_failures + 1)
                    error = ChildProcessError(f"{deaths} workers died on it (too little memory?)")
                if error is not None:
                    found = [(i, None, error, killed) for i in part]
                yield from found or future.result()
                future.release()

    def outlive(action: Callable[[Sequence[Any]], Any], futures: Sequence[Any]) -> Any:
        """Wait for all, or raise the first error; tasks of workers that died are retried."""
        for _ in range(DEATHS):
            with contextlib.suppress(KilledWorker):
                return action(futures)
            client.retry([f for f in futures if f.status == "error"])
        return action(futures)

    def persist(function: Function, job: Any, items: Sequence[Any]) -> list[Any]:
        # results lost with a worker that dies are recomputed from these tasks
        found = [submit(function, job, item) for item in items]
        outlive(_check, found)
        return found

    def in_turn(function: Function, argument: Any, items: Sequence[Any]) -> list[Any]:
        return list(outlive(client.gather, [submit(function, argument, item) for item in items]))

    return Pool(workers, memory, run, persist, in_turn)


def _results(client: Any, futures: Sequence[Any]) -> dict[str, Any]:
    """The results of all tasks that have ended, fetched in one round trip."""
    from distributed import KilledWorker
    from distributed.comm import CommClosedError

    good = [future for future in futures if future.status == "finished"]
    with contextlib.suppress(KilledWorker):
        try:
            given = client.gather(good)
        except OSError as error:  # from the connection, or from reconnecting
            raise CommClosedError(str(error)) from error
        for future in good:  # before its worker may die and Dask repeat the task
            future.release()
        return {future.key: one for future, one in zip(good, given, strict=True)}
    return {}  # a result was lost and recomputing it killed workers: ask for each by itself


def _check(futures: Sequence[Any]) -> None:
    """Wait for all, and raise the error of the first that failed."""
    from distributed import wait

    wait(futures)
    for future in futures:
        error = future.exception()
        if error is not None:
            raise error
