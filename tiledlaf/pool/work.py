"""Tasks on the workers of a Dask cluster: sent, awaited, done again, and done twice where slow."""

from __future__ import annotations

import collections
import contextlib
import ctypes
import functools
import itertools
import os
import pickle
import queue
import statistics
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from .. import redaction
from ..errors import InputError
from . import tasks, vetting
from .crew import Crew
from .tasks import AHEAD, RETRIES, Function, Outcome, Pool, WorkersDied

TICK = 1.0  # seconds between looks at what has not ended
LOOK = 5.0  # seconds between counts of the workers
# a task that takes so many times as long as most, and so many seconds, is begun once more elsewhere
SLOW, SLOWER = 30.0, 5.0
STRAYS = 5  # times that a task may come to workers that cannot begin it
# tasks are opened by a function that any worker has: where they do not fit, that is an error of
# the task, while Dask fails over functions that it cannot read
OPEN = "__import__('pickle').loads(work)(item)"


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


def _task(expected: tuple[str, str], function: Function, job: Any, item: Any) -> Any:
    """What a Dask worker runs."""
    vetting.check(expected)
    _keep_memory()
    redaction.guard_logs()
    return function(job, item)


@dataclass(eq=False)
class Part:
    """Items that are one task, or several with the same result.

    Attributes
    ----------
    killed : how often workers died with it until Dask gave it up
    last : whether it runs alone, for the last time
    strayed : how often it came to workers that could not begin it
    only : workers that alone may have it since then
    """

    items: tuple[Any, ...]
    killed: int = 0
    last: bool = False
    strayed: int = 0
    only: frozenset[str] = frozenset()
    began: float = field(default_factory=time.monotonic)
    futures: list[Any] = field(default_factory=list)


def pool(client: Any, crew: Crew, workers: int, memory: int | None, deaths: int) -> Pool:
    """A cluster as a pool.

    Parameters
    ----------
    deaths : how often Dask is asked to retry a task that others wait for, after it has given it up
    """

    def run(
        function: Function, job: Any, items: Iterable[Any], batch: int = 1
    ) -> Generator[Outcome, None, None]:
        return _Run(client, crew, function, job, workers).outcomes(tasks.batches(items, batch))

    def persist(function: Function, job: Any, items: Sequence[Any]) -> list[Any]:
        # results lost with a worker that dies are recomputed from these tasks
        made = _Together(client, crew, function, job, items, deaths)
        made.end()
        return [Handle(made, number) for number in range(len(items))]

    def in_turn(function: Function, argument: Any, items: Sequence[Any]) -> list[Any]:
        return _Together(client, crew, function, argument, items, deaths).results()

    return Pool(workers, memory, run, persist, in_turn)


def _sender(client: Any, crew: Crew, function: Function, job: Any) -> Callable[..., Any]:
    """A function that sends tasks: the job goes with each, as scattered data dies with a worker."""
    from distributed.protocol.pickle import dumps

    expected = vetting.kind(), crew.run
    work = dumps(functools.partial(_task, expected, function, job), protocol=4)
    while isinstance(function, functools.partial):  # what it is called on the dashboard
        function = function.args[0]
    name = getattr(function, "__name__", type(function).__name__).strip("_")

    def send(item: Any, workers: Iterable[str] = (), only: bool = False) -> Any:
        preferred = sorted(workers) or crew.allowed
        return client.submit(
            eval,
            OPEN,
            {"work": work, "item": item},
            key=f"{name}-{uuid.uuid4().hex}",
            workers=preferred,
            # where these have gone, or others are idle
            allow_other_workers=preferred is not None and not only,
            retries=RETRIES,
        )

    return send


def _misplaced(error: BaseException | None) -> bool:
    """Whether a task came to a worker that could not even begin it."""
    if isinstance(error, AttributeError):  # of an older version of a module
        return "get attribute" in str(error)
    return isinstance(error, vetting.Unlike | pickle.UnpicklingError | ModuleNotFoundError)


def _settled(crew: Crew, error: BaseException, times: int) -> frozenset[str]:
    """Workers that fit, and alone may have a task that came to one that did not.

    Raises
    ------
    ValueError
        If no worker is known that does not fit, or so many times: then it is the task that cannot
        be begun.
    """
    unadmitted = isinstance(error, vetting.Unadmitted)
    if unadmitted:
        crew.forget(error.args[0])
    if not (unadmitted and crew.good):  # a new worker may need long until it answers
        with contextlib.suppress(OSError):
            crew.look()
    if times > (STRAYS if unadmitted or crew.bad else 1):
        raise InputError(f"{crew.where}: {error}") from error
    crew.await_one()
    return frozenset(crew.good.copy())


class _Run:
    """Tasks whose results are taken as they come."""

    def __init__(self, client: Any, crew: Crew, function: Function, job: Any, workers: int) -> None:
        self.client, self.crew, self.workers = client, crew, workers
        self.send = _sender(client, crew, functools.partial(_outcomes, function), job)
        self.parts: dict[str, Part] = {}  # by the keys of their tasks
        self.suspects: collections.deque[Part] = collections.deque()
        self.ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.took: collections.deque[float] = collections.deque(maxlen=100)
        self.looked = self.counted = time.monotonic()

    def outcomes(self, waiting: Iterator[tuple[Any, ...]]) -> Generator[Outcome, None, None]:
        """Outcomes of all items, in the order in which they come."""
        self._fill(waiting)
        while self.parts or self.suspects:
            if not self.parts:
                # all others are done: what dies now is killed by nothing beside it
                self._start(self.suspects.popleft())
            self.crew.say()
            futures = self._some_ended()
            given = _results(self.client, futures)
            for future in futures:
                found = self._end(future, given.get(future.key))
                self._fill(waiting)
                yield from found

    def _fill(self, waiting: Iterator[tuple[Any, ...]]) -> None:
        now = time.monotonic()
        if now - self.counted > LOOK:
            self.counted = now
            self.workers = max(self.workers, sum(self.crew.good.copy().values()))
        free = AHEAD * self.workers - len(self.parts)
        for items in itertools.islice(waiting, max(free, 0)):
            self._start(Part(items))

    def _start(self, part: Part, workers: Iterable[str] = ()) -> None:
        part.began = time.monotonic()
        future = self.send(part.items, workers or part.only, bool(part.only))
        part.futures.append(future)
        self.parts[future.key] = part
        future.add_done_callback(self.ended.put)

    def _some_ended(self) -> list[Any]:
        """Tasks that have ended since the last time; none if nothing happens for a moment."""
        futures = []
        with contextlib.suppress(queue.Empty):
            futures.append(self.ended.get(timeout=TICK))
            while True:
                futures.append(self.ended.get_nowait())
        if time.monotonic() - self.looked > TICK:
            self.looked = time.monotonic()
            self._hasten()
            for part in set(self.parts.values()):
                if _gone(self.crew, part.only):
                    self._drop(part)
                    part.only = frozenset(self.crew.good.copy())
                    self._start(part)
        return [future for future in futures if future.key in self.parts]

    def _hasten(self) -> None:
        """Begin again elsewhere what takes much longer than its like; the first answer counts."""
        if not self.took:
            return
        limit, now = max(SLOW, SLOWER * statistics.median(self.took)), time.monotonic()
        slow = [p for p in set(self.parts.values()) if now - p.began > limit]
        slow = [p for p in slow if len(p.futures) <= RETRIES]
        if not slow:
            return
        with contextlib.suppress(TimeoutError):
            at = self.client.sync(self.client.scheduler.processing, callback_timeout=LOOK)
            for part in slow:
                keys = {future.key for future in part.futures}
                others = sorted(self.crew.good.keys() - {w for w in at if keys & set(at[w])})
                # what still waits for a worker gains nothing by waiting twice
                if others and len(others) < len(self.crew.good):
                    self._start(part, others)

    def _end(self, future: Any, found: list[Outcome] | None) -> list[Outcome]:
        """What is known of a task's items now that it has ended."""
        from distributed import KilledWorker

        part = self.parts.pop(future.key, None)
        if part is None:  # another was quicker
            return []
        part.futures.remove(future)
        error = None if found else future.exception()
        if error is None:
            self._drop(part)
            self.took.append(time.monotonic() - part.began)
            return found or future.result()
        if part.futures:  # one that was begun again still runs
            return []
        if _misplaced(error):
            part.strayed += 1
            part.only = _settled(self.crew, error, part.strayed)
            self._start(part)
            return []
        if not isinstance(error, KilledWorker):
            return [(item, None, error, part.killed) for item in part.items]
        killed = part.killed + 1
        if not part.last:
            # whichever item kills workers, the others must not fail with it
            last = killed >= RETRIES
            for item in part.items:
                one = Part((item,), killed, last)
                self.suspects.append(one) if last else self._start(one)
            return []
        deaths = killed * (error.allowed_failures + 1)
        error = ChildProcessError(f"{deaths} workers died on it (too little memory?)")
        return [(item, None, error, part.killed) for item in part.items]

    def _drop(self, part: Part) -> None:
        """Forget the other tasks of a part, whose results would be the same."""
        for other in part.futures:
            self.parts.pop(other.key, None)
            other.release()
        part.futures.clear()


def _outcomes(function: Function, job: Any, items: Sequence[Any]) -> list[Outcome]:
    return tasks.outcomes(function, job, items)


def _gone(crew: Crew, only: frozenset[str]) -> bool:
    """Whether a task waits for workers that are all gone, while there are others."""
    return bool(only and crew.good) and not only & crew.good.copy().keys()


class _Together:
    """Tasks that are all awaited, or whose first error is raised."""

    def __init__(
        self,
        client: Any,
        crew: Crew,
        function: Function,
        job: Any,
        items: Sequence[Any],
        deaths: int,
    ) -> None:
        self.client, self.crew, self.items, self.deaths = client, crew, items, deaths
        self.send = _sender(client, crew, function, job)
        self.strayed: collections.Counter[int] = collections.Counter()
        self.only: dict[int, frozenset[str]] = {}  # workers that alone may have what strayed
        self.futures = [self.send(_plain(item)) for item in items]

    def end(self) -> None:
        """Wait until all have ended well."""
        from distributed import KilledWorker

        died = 0
        while True:
            self._wait()
            errors = {n: f.exception() for n, f in enumerate(self.futures) if f.status == "error"}
            if not errors:
                return
            for number, error in errors.items():
                if _misplaced(error):
                    self._elsewhere(number, error)
                elif not isinstance(error, KilledWorker):
                    raise error
            killed = [e for e in errors.values() if isinstance(e, KilledWorker)]
            if killed and died == self.deaths:
                count = (self.deaths + 1) * (killed[0].allowed_failures + 1)
                raise WorkersDied(
                    f"{self.crew.where}: {count} workers died on one task (too little memory?)"
                )
            died += bool(killed)
            self.client.retry([f for f in self.futures if f.status == "error"])

    def again(self, number: int, only: frozenset[str]) -> None:
        """Send a task again, to some workers alone."""
        self.only[number] = only
        self.futures[number] = self.send(_plain(self.items[number]), only, True)

    def _elsewhere(self, number: int, error: BaseException) -> None:
        """Send a task again that came to a worker that could not begin it, or what it needs."""
        lost = [h for h in _handles(self.items[number]) if h.future.status == "error"]
        for made, one in [(h.made, h.number) for h in lost] or [(self, number)]:
            made.strayed[one] += 1
            made.again(one, _settled(self.crew, error, made.strayed[one]))
        if lost:
            self.again(number, frozenset(self.crew.good.copy()))

    def _follow(self) -> None:
        """Send again what waits for workers that are gone, and what needs it."""
        good = frozenset(self.crew.good.copy())
        needed = {(h.made, h.number) for item in self.items for h in _handles(item)}
        stuck = {(made, number) for made, number in needed if made.stuck(number)}
        for made, number in stuck:
            made.again(number, good)
        for number, item in enumerate(self.items):
            needs = {(h.made, h.number) for h in _handles(item)}
            if stuck & needs or self.stuck(number):
                self.again(number, good)

    def stuck(self, number: int) -> bool:
        """Whether a task waits for workers that are all gone."""
        ended = self.futures[number].status in ("finished", "error", "cancelled")
        return not ended and _gone(self.crew, self.only.get(number, frozenset()))

    def results(self) -> list[Any]:
        """Results of all tasks."""
        from distributed import KilledWorker

        while True:
            with contextlib.suppress(KilledWorker):  # of a result that was lost again
                self.end()
                return list(self.client.gather(self.futures))

    def _wait(self) -> None:
        from distributed import wait

        while True:
            self.crew.say()
            with contextlib.suppress(TimeoutError):
                wait(self.futures, timeout=TICK)
                return
            self._follow()


@dataclass(frozen=True, eq=False)
class Handle:
    """A result that stays on a worker, and the tasks among which its own can be sent again."""

    made: _Together
    number: int

    @property
    def future(self) -> Any:
        """The task as it was sent last."""
        return self.made.futures[self.number]


def _handles(item: Any) -> list[Handle]:
    among = item if isinstance(item, tuple) else (item,)
    return [one for one in among if isinstance(one, Handle)]


def _plain(item: Any) -> Any:
    """An item of a task with the results themselves instead of handles."""
    if isinstance(item, Handle):
        return item.future
    if isinstance(item, tuple) and _handles(item):
        return tuple(map(_plain, item))
    return item


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
