"""The workers of a cluster: who has come, who may work, who is gone and who has fallen silent."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import queue
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..errors import InputError, TiledlafError, Unavailable
from . import vetting
from .tasks import PoolWarning, WorkersGone

ANSWER = 10.0  # seconds that a worker and the scheduler may take to answer
SILENT = 45.0  # seconds without a heartbeat after which a worker is started again or given up
FIRST, AGAIN = 15.0, 60.0  # seconds without workers until that is said, and said again


@dataclass(frozen=True)
class Files:
    """Files that all workers must see.

    Attributes
    ----------
    inputs : paths of files and folders
    outputs : folders in which something is written
    """

    inputs: Sequence[str] = ()
    outputs: Sequence[str] = ()


class Crew:
    """Looks at the workers behind a client again and again, in a thread of its own.

    Workers of another kind get no tasks; a silent one is started again, or removed where nothing
    can start it, and its tasks are done elsewhere. What is to be said of them is said by `say`.

    Attributes
    ----------
    good : threads of each worker that may work, by address
    bad : why each of the others must not
    run : what those that may work have been told, and tasks name
    """

    def __init__(
        self,
        client: Any,
        where: str,
        files: Files | None,
        coming: float,
        look: float,
        ask: Callable[[], None] = lambda: None,
    ) -> None:
        """Look at a client's workers; `files` is None for processes of our own, which fit."""
        self.client, self.where, self.coming = client, where, coming
        self.good: dict[str, int] = {}
        self.bad: dict[str, str] = {}
        self.run = "" if files is None else uuid.uuid4().hex
        self.memory: dict[str, int] = {}
        self.alone = threading.Event()  # there was no worker for too long
        self._files, self._every, self._ask = files, look, ask
        # for this run: until the next one a file may change
        self._view = [] if files is None else vetting.view(files.inputs)
        self._words: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._said_of: set[str] = set()
        self._unanswered: dict[str, str] = {}
        self._beats: dict[str, tuple[Any, float]] = {}
        self._patience: dict[str, tuple[float, float]] = {}  # since when, of hosts
        self._awaited = False
        self._looked = self._seen = self._said = time.monotonic()
        self._end, self._lock = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def allowed(self) -> list[str] | None:
        """Workers that tasks should go to; None if all may have them."""
        return sorted(self.good) if (self.bad or self._unanswered) and self.good else None

    def await_one(self) -> None:
        """Wait until there is a worker that may work."""
        self._awaited = True
        while not self.good and self.client.status == "running":
            self.say()
            self._end.wait(0.2)
        self._awaited = False

    def forget(self, address: str) -> None:
        """Ask a worker again: behind its address is another process than the one that was asked."""
        self.good.pop(address, None)

    def say(self) -> None:
        """Warn of all that was noticed; to be called by the thread that waits for results."""
        with contextlib.suppress(queue.Empty):
            while True:
                warnings.warn(self._words.get_nowait(), PoolWarning, stacklevel=2)

    def await_first(self) -> None:
        """Wait until a worker has come that may work.

        Raises
        ------
        ValueError
            If all that came must not, or none came, or the scheduler does not tell.
        """
        began = time.monotonic()
        # a cluster that grows with its work has no worker before there is some
        hello = self.client.submit(eval, "0", pure=False)
        while not self.good:
            late = time.monotonic() - began > self.coming
            try:
                self.look()
            except OSError as error:
                if late or not isinstance(error, TimeoutError):
                    text = f"{self.where}: no answer, {str(error) or type(error).__name__}"
                    raise Unavailable(text) from None
            left_out = bool(self.bad or self._unanswered)
            if left_out and not self.good and (late or not self._unanswered):
                raise InputError(f"{self.where}: {self._reasons()}")
            self.say()
            if late and not self.good:
                raise Unavailable(f"{self.where}: no worker came within {self.coming} s")
            if not self.good:
                time.sleep(0.2)
        if left_out:
            warnings.warn(f"{self.where}: left out: {self._reasons()}", PoolWarning, stacklevel=2)
            self._said_of |= self._unanswered.keys()
        self.say()
        hello.release()

    def _reasons(self) -> str:
        """Why workers are left out, each reason once."""
        reasons: dict[str, list[str]] = {}
        for address, reason in (self.bad | self._unanswered).items():
            reasons.setdefault(reason, []).append(address)
        return "; ".join(f"{vetting.named(who)}: {why}" for why, who in reasons.items())

    def look(self) -> None:
        """Look at all workers now."""
        with self._lock:
            self._look()

    def _look(self) -> None:
        now = time.monotonic()
        found = self.client.sync(
            self.client.scheduler.identity, n_workers=-1, callback_timeout=ANSWER
        )["workers"]
        self._vet(found)
        lists: tuple[dict[str, Any], ...] = (self.good, self.bad, self._unanswered)
        for known in lists:
            for address in known.keys() - found.keys():
                known.pop(address, None)
        if self.good or not self._waited_for():
            self._seen = now
        elif self._files is not None and now - self._seen > FIRST:
            self._say_alone(now)
        # workers that were never admitted may be somebody else's
        ours = [address for address in found if address in self.memory]
        silent = [a for a in ours if self._silent(a, found[a], now, len(found))]
        if silent:
            woken = self.client.sync(_ask, self.client, silent, _wake)
            self._restart([address for address in silent if woken[address] is not True], now)
        self._looked = time.monotonic()

    def _waited_for(self) -> bool:
        """Whether something waits for workers: a cluster that grows with its work may have none."""
        states = [future.status for future in self.client.futures.copy().values()]
        return self._awaited or any(state in ("pending", "lost") for state in states)

    def _say_alone(self, now: float) -> None:
        if self._said <= self._seen or now - self._said > AGAIN:
            self._said = now
            self._words.put(
                f"{self.where}: no worker for {now - self._seen:.0f} s, "
                f"waiting up to {self.coming} s"
            )

    def _vet(self, found: Mapping[str, Any]) -> None:
        """Ask workers that have come since the last time, or have not answered, and admit them."""
        new = [a for a in found if a not in self.good and a not in self.bad]
        if not new or self._files is None:
            for address in new:
                self._take(address, found[address])
            return
        with vetting.places(self._view, self._files.outputs) as places:
            answers = self.client.sync(_ask, self.client, new, eval, vetting.question(places))
        reasons = {address: vetting.difference(answer) for address, answer in answers.items()}
        fit = [address for address, reason in reasons.items() if not reason]
        for address, said in self.client.sync(
            _ask, self.client, fit, vetting.admit, self.run
        ).items():
            if said is not True:
                answers[address], reasons[address] = said, vetting.difference(said)
        late = bool(self.memory)
        for address, answer in answers.items():
            if not reasons[address]:
                self._take(address, found[address])
                self._say_clock(address, answer)
            else:
                self._leave_out(address, reasons[address], isinstance(answer, Mapping), late)

    def _take(self, address: str, worker: Mapping[str, Any]) -> None:
        self._unanswered.pop(address, None)
        self.memory[address] = worker["memory_limit"] // worker["nthreads"]
        self.good[address] = worker["nthreads"]

    def _leave_out(self, address: str, reason: str, answered: bool, late: bool) -> None:
        """Leave a worker out; for now, if it has not answered: it may have been busy."""
        before = self._unanswered.pop(address, None)
        if answered:
            self.bad[address] = reason
        else:
            self._unanswered[address] = reason
        # who does not answer once has perhaps just ended
        if late and address not in self._said_of and (answered or before is not None):
            self._said_of.add(address)
            self._words.put(f"{self.where}: worker {address}: {reason}; it is left out")

    def _say_clock(self, address: str, answer: Mapping[str, Any]) -> None:
        host, text = answer["host"], vetting.clock(answer, time.time())
        if text and host not in self._said_of:
            self._said_of.add(host)
            self._words.put(f"{self.where}: worker {address} ({host}): {text}")

    def _silent(self, address: str, worker: Mapping[str, Any], now: float, count: int) -> bool:
        """Whether a worker's heart has not beaten for too long, by the clock of this process."""
        beat = worker["last_seen"]
        last, since = self._beats.get(address, (None, now))
        # time in which nobody looked, as while this process was stopped, tells nothing
        since += max(now - self._looked - 2 * (self._every + ANSWER), 0)
        self._beats[address] = beat, now if beat != last else since
        host, since = address.rpartition(":")[0], self._beats[address][1]
        doubled, patience = self._patience.get(host, (-math.inf, SILENT))
        later = since > doubled  # the others of a host fell silent with the one that was noticed
        if now - since < max(patience if later else patience / 2, count / 10):  # many beat slowly
            return False
        if later:
            self._patience[host] = now, 2 * patience  # perhaps busy: it must not be so for ever
        return True

    def _restart(self, silent: Sequence[str], now: float) -> None:
        """Have silent workers started again, or removed; whoever wakes up is asked as a new one."""
        if not silent:
            return
        waited = min(now - self._beats[address][1] for address in silent)
        self._words.put(
            f"{self.where}: {vetting.named(silent)} silent for {waited:.0f} s: "
            "restarted or given up, and its tiles are done again"
        )
        for address in silent:
            del self._beats[address]
            self.good.pop(address, None)
        restart = self.client.scheduler.restart_workers
        options = {"timeout": ANSWER, "wait_for_workers": False, "on_error": "return"}
        stimulus = f"silent-{uuid.uuid4().hex}"
        with contextlib.suppress(TimeoutError):  # it goes on at the scheduler
            self.client.sync(
                restart,
                workers=list(silent),
                stimulus_id=stimulus,
                callback_timeout=3 * ANSWER,
                **options,
            )

    def _run(self) -> None:
        known: dict[str, str] = {}
        while not self._end.wait(self._every) and self.client.status == "running":
            try:
                self.look()
                self._ask()
            except (OSError, TimeoutError, TiledlafError) as error:
                # the scheduler is gone, and its waiters get the error; or it is slow; or the
                # output's folder is gone, which the tiles notice
                logging.getLogger(__name__).debug("look: %s", error)
            except Exception:  # what answers another version of Dask may give: looks go on
                logging.getLogger(__name__).warning("look at workers", exc_info=True)
            known, before = {k: f.status for k, f in self.client.futures.copy().items()}, known
            if known and known == before:
                _hurry(self.client)
            if time.monotonic() - self._seen > self.coming:
                self.alone.set()
                self.client.close()  # which cancels all tasks

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Do not wait in vain for a scheduler that has ended or workers that are gone.

        Dask would wait for workers forever. They may come back: `ask` requests new ones. After a
        clock was set back Dask holds its messages until the clock has caught up; here they are
        sent.

        Raises
        ------
        ConnectionError
            If the connection to the scheduler broke, or there was no worker for too long.
        """
        from distributed.client import CancelledError, ClosedClientError
        from distributed.comm import CommClosedError

        self._thread.start()
        try:
            yield
        except BaseException as error:
            logging.disable()
            if self.alone.is_set():
                raise WorkersGone(f"{self.where}: no worker for {self.coming} s") from None
            if isinstance(error, CancelledError | ClosedClientError | CommClosedError):
                raise WorkersGone(f"{self.where}: the connection broke") from None
            raise
        finally:
            self._end.set()
            self._thread.join()
            with contextlib.suppress(UserWarning):  # where warnings are errors, the run's counts
                self.say()


async def _ask(
    client: Any, addresses: Sequence[str], function: Callable[..., Any], *arguments: Any
) -> dict[str, Any]:
    """Answers of workers, or the error in place of one."""

    async def one(address: str) -> Any:
        asked = client._run(function, *arguments, workers=[address], on_error="return")
        try:
            return (await asyncio.wait_for(asked, ANSWER)).get(address)
        except Exception as error:  # whatever another version of Dask may raise
            return error

    return dict(zip(addresses, await asyncio.gather(*map(one, addresses)), strict=True))


def _hurry(client: Any) -> None:
    """Have the client, scheduler and workers send what waits for a clock that was set back."""
    client.loop.add_callback(_send, client.scheduler_comm)
    for run, send in ((client.run_on_scheduler, _of_scheduler), (client.run, _of_worker)):
        try:
            run(send, callback_timeout=1)
        except Exception as error:  # a process is gone or frozen, or has another version of this
            logging.getLogger(__name__).debug("%s: %s", send.__name__, error)


def _wake(dask_worker: Any) -> bool:
    """Let the heart of a worker that answers beat again: after a clock was set back it waits."""
    for callback in dask_worker.periodic_callbacks.values():
        if callback.is_running():
            callback.stop()
            callback.start()
    return True


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
