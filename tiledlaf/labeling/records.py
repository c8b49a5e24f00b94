"""Records of tiles: one line of JSON each, added after the tile is safely written.

Safely written means that all files of the tile have their final names, so that no kill leaves them
partial; objects are there once the store has confirmed them. Files may not have reached the disk
yet, so a record holds their size, `bytes`, and a run that continues trusts the record only if the
files still have that size; see docs/faults.md.

On a file system, records are lines of one file. On an object store, where nothing can be appended,
each batch of lines that a run adds is an object of its own.

Lines with a `stage` in place of a tile say how far a run is: that it has BEGUN; now and then, that
it is making lower LEVELS; and that it is COMPLETE, with all tiles and levels, or has ENDED with
some of them missing.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import time as clock
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..files import stores
from ..files.stores import Bucket

NAME, ENDING = "tiledlaf.jsonl", ".jsonl"
FINISHED = ("done", "skipped")
BEGUN, LEVELS, COMPLETE, ENDED = "begun", "levels", "complete", "ended"
# seconds between two batches, or this share of the run's duration if that is longer, so that a kill
# costs little work and a long run does not make thousands of objects
SECONDS, SHARE = 5.0, 0.01


def read(path: Path | str) -> dict[tuple[int, ...], dict[str, Any]]:
    """The record that counts for each tile; a line cut short by a kill does not count."""
    return latest(journal(path))


def latest(journal: Iterable[dict[str, Any]]) -> dict[tuple[int, ...], dict[str, Any]]:
    """The record that counts for each tile: the last, but none undoes a finished tile."""
    found: dict[tuple[int, ...], dict[str, Any]] = {}
    for record in journal:
        if "tile" not in record:
            continue
        held = found.get(tuple(record["tile"]), {})
        # of two runs at the same time, what one has written stays even if the other failed
        if record.get("state") in FINISHED or held.get("state") not in FINISHED:
            found[tuple(record["tile"])] = record
    return found


def complete(journal: Sequence[Mapping[str, Any]]) -> bool:
    """Whether lower levels are made from all recorded tiles, as far as the runs have said.

    Earlier versions recorded no stages, and are trusted.
    """
    return not any("stage" in line for line in journal) or journal[-1].get("stage") == COMPLETE


def between(age: float) -> float:
    """Least number of seconds between two batches, in a run of this age."""
    return max(SECONDS, SHARE * age)


def journal(path: Path | str) -> list[dict[str, Any]]:
    """All records and stages in order, from a file or from the objects below a URL."""
    if isinstance(path, str):
        place = stores.at(path)
        assert isinstance(place, Bucket)
        parts = place.read_all(key for key, _, _ in place.entries() if key.endswith(ENDING))
        whole = b"".join(part for part in parts if part is not None)
    else:
        whole = path.read_bytes() if path.is_file() else b""
    # a line that a crash left incomplete may hold any bytes
    found = map(_parse, whole.decode("utf-8", "replace").splitlines())
    return [record for record in found if record is not None]


def _parse(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except json.JSONDecodeError:
        return None
    return record if isinstance(record, dict) and ("tile" in record or "stage" in record) else None


def _lock(file: Any, alone: bool) -> None:
    """Lock a file, together with others or alone and at once.

    Raises
    ------
    OSError
        If the system or the file system has no locks, or another process holds one.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP)) from None
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB if alone else fcntl.LOCK_SH)


@contextmanager
def appending(path: Path | str) -> Iterator[Appender]:
    """Open a file of records, or a place for objects of records, to add more."""
    if isinstance(path, str):
        place = stores.at(path)
        assert isinstance(place, Bucket)
        with _ending(Batches(place)) as log:
            yield log
        return
    cut = path.is_file() and path.read_bytes()[-1:] not in (b"", b"\n")
    # unbuffered, so that a record is one write at the end of the file, and two runs at a time
    # tear no line. Over NFS they can; torn lines count as not written.
    with path.open("a+b", buffering=0) as file:
        with contextlib.suppress(OSError):  # not every file system has locks
            _lock(file, alone=False)
        with _ending(Appender(file.fileno(), cut)) as log:
            yield log


@contextmanager
def _ending(log: Appender) -> Iterator[Appender]:
    """Record that an error or a signal ended the run: other machines may not see its lock."""
    try:
        yield log
    except BaseException:
        with contextlib.suppress(OSError):  # the error that ended the run says more
            if log.begun:
                log.mark(ENDED)
        raise
    log.flush()


def is_locked(path: Path | str) -> bool | None:
    """Whether a run is adding records now, as far as its lock is seen; None if locks cannot tell.

    The lock ends with the process, however that ends. Object stores have no locks.
    """
    if isinstance(path, str):
        return None
    try:
        with path.open("r+b") as file:
            _lock(file, alone=True)
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


class Appender:
    """Adds records, each on a line of its own even if a kill cut the last one.

    Each gets `run`, HOST:WORD, the same for all of this run; `time`, in seconds since 1970 by the
    system clock; and `after`, in seconds since the run began, which changes of that clock do not
    affect.

    Attributes
    ----------
    begun : whether anything was added
    """

    def __init__(self, file: int = -1, cut: bool = False) -> None:
        self.run = f"{platform.node()}:{uuid.uuid4().hex[:8]}"
        self.begun = False
        self._file, self._cut = file, cut
        self._began = self._last = clock.monotonic()

    def add(self, record: Mapping[str, Any]) -> None:
        """Write one record through to the file system, or to the batch of an object store."""
        self._stamp(record)

    def mark(self, stage: str) -> None:
        """Record that the run has reached a stage, and write all that was added before."""
        self._stamp({"stage": stage})
        self.flush()

    def due(self) -> bool:
        """Whether it is time to write something, so that the run is seen to be at work."""
        now = clock.monotonic()
        return now - self._last >= between(now - self._began)

    def flush(self) -> None:
        """Write what was added since the last time, if it is not written yet."""

    def _stamp(self, record: Mapping[str, Any]) -> None:
        stamp = {
            "run": self.run,
            "time": round(clock.time(), 3),
            "after": round(clock.monotonic() - self._began, 3),
        }
        self.begun = True
        self._write((json.dumps({**record, **stamp}) + "\n").encode())

    def _write(self, line: bytes) -> None:
        line, self._cut = b"\n" * self._cut + line, True
        if os.write(self._file, line) < len(line):  # as on a disk that has just become full
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), NAME)
        self._cut, self._last = False, clock.monotonic()


class Batches(Appender):
    """Adds records in batches, each an object; a record counts once its object is there.

    Names begin with the time, or with the next number if a clock was set back, so that they list in
    order. A kill loses only the last batch, whose tiles are then labeled again.
    """

    def __init__(self, place: Bucket) -> None:
        super().__init__()
        self._place = place
        self._held: list[bytes] = []
        numbers = [key.rpartition("/")[2].partition("-")[0] for key, _, _ in place.entries()]
        self._number = max((int(n) for n in numbers if n.isdigit()), default=0)

    def _write(self, line: bytes) -> None:
        self._held.append(line)
        if self.due():
            self.flush()

    def flush(self) -> None:
        """Write what was added since the last time; what the store refuses is kept for later."""
        batch = b"".join(self._held)
        if batch:
            run = self.run.replace(":", "-")
            self._number = max(self._number + 1, round(clock.time() * 1000))
            self._place.write(f"{self._number:013d}-{run}{ENDING}", batch)
        self._held = []
        self._last = clock.monotonic()
