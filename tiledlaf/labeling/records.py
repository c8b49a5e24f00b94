"""Records of tiles: one line of JSON each, added after the tile is safely written.

Safely written means that all files of the tile have their final names, so that no kill leaves them
partial; objects are there once the store has confirmed them. Files may not have reached the disk
yet, so a record holds their size, `bytes`, and a run that continues trusts the record only if the
files still have that size; see docs/faults.md.

On a file system, records are lines of one file. On an object store, where nothing can be appended,
each batch of lines that a run adds is an object of its own.

Lines with a `stage` in place of a tile say how far a run is: that it has BEGUN; now and then, that
it is making lower LEVELS; and that it is COMPLETE, with all tiles and levels, or has ENDED with
some of them missing; or that an input has CHANGED meanwhile, so that no tile before counts. The
first line of a file says that a start has CLAIMED the labels, and names it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import operator
import os
import platform
import sys
import time as clock
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..files import stores
from ..files.archives import Archive
from ..files.claims import RECORDS
from ..files.folders import lock
from ..files.stores import Bucket

NAME, ENDING = RECORDS, ".jsonl"
FINISHED = ("done", "skipped")
CLAIMED, BEGUN, LEVELS, COMPLETE, ENDED = "claimed", "begun", "levels", "complete", "ended"
KEPT = ("state", "pixels", "counts", "proven", "unsure", "error")
LATEST = 253402300800  # seconds from 1970 on that are a date: up to the year 9999
CHANGED = "changed"  # with the input in place of an error
# seconds between two batches, or this share of the run's duration if that is longer, so that a kill
# costs little work and a long run does not make thousands of objects
SECONDS, SHARE = 5.0, 0.01


def read(
    path: Path | str, shape: Sequence[int] | None = None
) -> dict[tuple[int, ...], dict[str, Any]]:
    """The record that counts for each tile; a line cut short by a kill does not count."""
    return latest(journal(path), shape)


def latest(
    journal: Iterable[dict[str, Any]], shape: Sequence[int] | None = None
) -> dict[tuple[int, ...], dict[str, Any]]:
    """The record that counts for each tile: the last, but none undoes a finished tile.

    None count from before an input was found changed; nor those of no tile of a grid of this shape.
    """
    found: dict[tuple[int, ...], dict[str, Any]] = {}
    for record in journal:
        if record.get("stage") == CHANGED:
            found.clear()
        if "tile" not in record:
            continue
        index = tuple(record["tile"])
        # of two runs at the same time, what one has written stays even if the other failed
        finished = found.get(index, {}).get("state") in FINISHED
        if (shape is None or inside(index, shape)) and (
            record["state"] in FINISHED or not finished
        ):
            found[index] = record
    return found


def kept(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a summary asks of a record, in a third of its memory."""
    return {key: record[key] for key in KEPT if key in record}


def inside(index: Sequence[int], shape: Sequence[int]) -> bool:
    """Whether a tile is one of a grid of this shape."""
    return len(index) == len(shape) and all(map(operator.lt, index, shape))


def changed(journal: Sequence[Mapping[str, Any]]) -> str | None:
    """The input that changed during a run, if no tile was labeled anew since."""
    for line in reversed(journal):
        if "tile" in line:
            return None
        if line.get("stage") == CHANGED:
            return str(line.get("error", "an input"))
    return None


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
    return list(entries(path))


def entries(path: Path | str) -> Iterator[dict[str, Any]]:
    """The same one by one: a file of many tiles is never in memory as a whole."""
    if isinstance(path, str):
        place = stores.at(path)
        assert isinstance(place, Bucket)
        parts = place.read_all(key for key, _, _ in place.entries() if key.endswith(ENDING))
        whole = b"".join(part for part in parts if part is not None)
        yield from _parsed(whole.splitlines())
    elif path.is_file():
        with path.open("rb") as file:
            yield from _parsed(file)
    else:
        above = stores.at(str(path.parent))
        if isinstance(above, Archive):
            yield from _parsed((above.read(path.name) or b"").splitlines())


def _parsed(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    # a line that a crash left incomplete may hold any bytes
    found = (_parse(line.decode("utf-8", "replace")) for line in lines)
    return (record for record in found if record is not None)


def _parse(line: str) -> dict[str, Any] | None:
    """A line of records, None where it is none: one damaged byte costs no more than its line."""
    try:
        record = json.loads(line, parse_constant=_refuse, object_pairs_hook=_shared)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    fits = all(check(record[key]) for key, check in KINDS.items() if key in record)
    known = ("tile" in record and record.get("state") in STATES) or "stage" in record
    return record if fits and known else None


def _shared(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """A record whose words are those of all others: half the memory of one with its own."""
    intern = sys.intern
    return {intern(k): intern(v) if type(v) is str else v for k, v in pairs}


def _refuse(constant: str) -> None:
    raise ValueError(f"expected finite numbers, got {constant}")


def _number(value: Any) -> bool:
    """Whether it is a number that NumPy knows."""
    whole = isinstance(value, int | float) and not isinstance(value, bool)
    return whole and -(2**63) < value < 2**63


def _numbers(value: Any, whole: bool = False) -> bool:
    return isinstance(value, list) and all(
        _number(v) and ((isinstance(v, int) and v >= 0) or not whole) for v in value
    )


def _text(value: Any) -> bool:
    return isinstance(value, str)


STATES = (*FINISHED, "failed")
# what a line may say, and what that must be like
KINDS: dict[str, Callable[[Any], bool]] = {
    "tile": lambda value: bool(value) and _numbers(value, whole=True),
    "counts": lambda value: _numbers(value, whole=True),
    "seconds": lambda value: _numbers(value) and len(value) == 3,
    **dict.fromkeys(
        ("pixels", "proven", "unsure", "bytes", "retries"), lambda v: _numbers([v], whole=True)
    ),
    **dict.fromkeys(("after", "peak_mib"), _number),
    "time": lambda value: _number(value) and 0 <= value < LATEST,
    **dict.fromkeys(("stage", "state", "run", "worker", "error"), _text),
}


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
            lock(file, alone=False)
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
            lock(file, alone=True)
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


def _run() -> str:
    return f"{platform.node()}:{uuid.uuid4().hex[:8]}"


def claim(run: str = "") -> tuple[str, bytes]:
    """The first line of a file of records, and what it says of no other start than this one."""
    run = run or _run()
    record = {"stage": CLAIMED, "run": run, "time": round(clock.time(), 3)}
    return run, (json.dumps(record) + "\n").encode()


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
        self.run = _run()
        self.begun = False
        self._file, self._cut = file, cut
        self._began = self._last = clock.monotonic()

    def add(self, record: Mapping[str, Any]) -> None:
        """Write one record through to the file system, or to the batch of an object store."""
        self._stamp(record)

    def mark(self, stage: str, **more: str) -> None:
        """Record that the run has reached a stage, and write all that was added before."""
        self._stamp({"stage": stage, **more})
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
