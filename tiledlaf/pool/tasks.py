"""Where tasks run: the interface of all pools, threads of this process, sums in a fixed order."""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
import itertools
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..errors import InputError, Shown, TiledlafWarning

Function = Callable[[Any, Any], Any]
# (item, result, None, retries) or (item, None, error, retries), in the order in which items finish
Outcome = tuple[Any, Any, BaseException | None, int]
AHEAD = 3  # tasks in flight per worker: enough that none waits, few enough for constant memory
RETRIES = 2


class PoolWarning(TiledlafWarning):
    """Something about workers that the user should know: who is awaited, left out or unsafe."""


class WorkersGone(Shown, ConnectionError):
    """The scheduler is lost, or there was no worker for too long."""


class WorkersDied(Shown, ChildProcessError):
    """Workers did not start, or died on one task again and again."""


@dataclass(frozen=True)
class Watch:
    """What Dask shows of a run; both attributes need bokeh.

    Attributes
    ----------
    dashboard : PORT, or HOST:PORT, to serve its dashboard at, if this program starts the cluster;
        it has no password, and without a host only this machine can reach it
    report : HTML file for its performance report, written when the run ends, even by an error
    """

    dashboard: str | None = None
    report: str | None = None

    def __post_init__(self) -> None:
        if self.dashboard:
            host, port = served_at(self.dashboard)
            place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            object.__setattr__(self, "dashboard", place)

    def __bool__(self) -> bool:
        return bool(self.dashboard or self.report)


def served_at(place: str | int) -> tuple[str, int]:
    """Host and port of PORT, HOST:PORT or [IPV6]:PORT; without a host, this machine alone.

    Raises
    ------
    ValueError
        If it is none of these.
    """
    host, _, port = str(place).rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    number = port.isascii() and port.isdigit() and int(port) < 2**16
    if not number or (":" in bare and bare == host):
        raise InputError(f"`dashboard` expects PORT or HOST:PORT, got {str(place)!r}")
    return bare or "127.0.0.1", int(port)


UNWATCHED = Watch()


@dataclass(frozen=True)
class Pool:
    """Where tasks run.

    Attributes
    ----------
    workers : processes or threads that each run one tile at a time
    memory : bytes a worker may use, or None where there is no limit
    run : run(function, job, items, batch) yields one outcome per item; a task has `batch` items
    persist : persist(function, job, items) returns a handle of each result, which stays in place
    map : map(function, argument, handles) returns the results of function(argument, result), in
        order; instead of a handle, a tuple may hold one among other values
    dashboard : URL of Dask's dashboard, if requested
    shared : whether workers are threads of this process, and share its memory
    """

    workers: int
    memory: int | None
    run: Callable[..., Generator[Outcome, None, None]]
    persist: Callable[[Function, Any, Sequence[Any]], list[Any]]
    map: Callable[[Function, Any, Sequence[Any]], list[Any]]
    dashboard: str | None = None
    shared: bool = False


@contextmanager
def threads(workers: int) -> Iterator[Pool]:
    """Threads of this process; the kernels release the GIL."""
    executor = concurrent.futures.ThreadPoolExecutor(workers)

    def run(
        function: Function, job: Any, items: Iterable[Any], batch: int = 1
    ) -> Generator[Outcome, None, None]:
        waiting = batches(items, batch)
        pending = {
            executor.submit(outcomes, function, job, part)
            for part in itertools.islice(waiting, AHEAD * workers)
        }
        try:
            while pending:
                done, pending = concurrent.futures.wait(pending, return_when="FIRST_COMPLETED")
                for future in done:
                    for following in itertools.islice(waiting, 1):
                        pending.add(executor.submit(outcomes, function, job, following))
                    yield from future.result()
        finally:  # nothing, unless nobody wants the rest
            for future in pending:
                future.cancel()

    def in_turn(function: Function, argument: Any, items: Sequence[Any]) -> list[Any]:
        return list(executor.map(lambda item: retried(function, argument, item)[0], items))

    try:
        yield Pool(workers, None, run, in_turn, in_turn, shared=True)
    finally:
        executor.shutdown(cancel_futures=True)


def release(pool: Pool) -> None:
    """Give back what threads have freed and their process keeps: see malloc_trim(3)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if pool.shared and trim is not None:
        trim(0)


def check_progress(progress: Any) -> None:
    """Refuse, before any work, what cannot be told of progress.

    Raises
    ------
    ValueError
        If it is neither None nor callable.
    """
    if progress is not None and not callable(progress):
        raise InputError(f"`progress` expects a function of one record, got {progress!r:.100}")


def batches(items: Iterable[Any], size: int) -> Iterator[tuple[Any, ...]]:
    """Tuples of `size` items; the last may be shorter."""
    waiting = iter(items)
    return iter(lambda: tuple(itertools.islice(waiting, size)), ())


def outcomes(function: Function, job: Any, items: Sequence[Any]) -> list[Outcome]:
    """Run one task: an item that fails does not affect the others."""
    found: list[Outcome] = []
    for item in items:
        try:
            found.append((item, *retried(function, job, item)))
        except Exception as error:
            found.append((item, None, error, RETRIES if isinstance(error, OSError) else 0))
    return found


def retried(function: Function, job: Any, item: Any) -> tuple[Any, None, int]:
    """The result of a call, no error, and the number of retries: file errors may be transient."""
    for retries in range(RETRIES):
        with contextlib.suppress(OSError):
            return function(job, item), None, retries
    return function(job, item), None, RETRIES


def in_order(
    pool: Pool,
    function: Callable[[Any, Any], Any],
    job: Any,
    items: Any,
    finished: Callable[[int, int], None] = lambda done, of: None,
) -> list[Any]:
    """Results in the order of the items, whichever finishes first.

    Parameters
    ----------
    finished : called at first and after each with how many are done, and of how many
    """
    found = some(pool, function, job, items, lambda found: False, finished)
    return [found[number] for number in range(len(found))]


def some(
    pool: Pool,
    function: Callable[[Any, Any], Any],
    job: Any,
    items: Any,
    enough: Callable[[Mapping[int, Any]], bool],
    finished: Callable[[int, int], None] = lambda done, of: None,
) -> dict[int, Any]:
    """Results by the numbers of their items, until these are enough; then no other item is begun.

    Parameters
    ----------
    enough : whether these results are
    finished : as of `in_order`
    """
    found: dict[int, Any] = {}
    numbered = list(enumerate(items))
    finished(0, len(numbered))
    with contextlib.closing(pool.run(_numbered, (function, job), numbered)) as outcomes:
        for (number, _), result, error, _ in outcomes:
            if error is not None:
                raise error
            found[number] = result
            finished(len(found), len(numbered))
            if enough(found):
                break
    return found


def _numbered(work: tuple[Callable[[Any, Any], Any], Any], item: tuple[int, Any]) -> Any:
    function, job = work
    return function(job, item[1])


def tree_sum(parts: Sequence[Any]) -> Any:
    """Sum neighbors, then their sums: the order does not depend on the workers."""
    while len(parts) > 1:
        parts = [sum(parts[i : i + 2]) for i in range(0, len(parts), 2)]
    return parts[0]
