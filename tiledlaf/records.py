"""Records of tiles: one JSON line each, appended after the tile is safely written."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import platform
import time as clock
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAME = "tiledlaf.jsonl"
FINISHED = ("done", "skipped")


def read(path: Path) -> dict[tuple[int, ...], dict[str, Any]]:
    """The record of each tile that counts; a line cut short by a kill is as not written."""
    return latest(lines(path))


def latest(records: Iterable[dict[str, Any]]) -> dict[tuple[int, ...], dict[str, Any]]:
    """The record of each tile that counts: the last, but none undoes what was done."""
    found: dict[tuple[int, ...], dict[str, Any]] = {}
    for record in records:
        held = found.get(tuple(record["tile"]), {})
        # two runs at one time: what one has written stays, though the other could not read it
        if record.get("state") in FINISHED or held.get("state") not in FINISHED:
            found[tuple(record["tile"])] = record
    return found


def lines(path: Path) -> list[dict[str, Any]]:
    """All records in their order."""
    if not path.is_file():
        return []
    # a line that a crash left half on the disk may be of any bytes
    found = map(_parse, path.read_text("utf-8", "replace").splitlines())
    return [record for record in found if record is not None]


def _parse(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except json.JSONDecodeError:
        return None
    return record if isinstance(record, dict) and "tile" in record else None


@contextmanager
def appending(path: Path) -> Iterator[Appender]:
    """Open a file of records for more of them."""
    cut = path.is_file() and path.read_bytes()[-1:] not in (b"", b"\n")
    # unbuffered, a record is one write at the file's end: two runs at one time tear no line. Over
    # NFS they can; torn lines count as not written.
    with path.open("a+b", buffering=0) as file:
        with contextlib.suppress(OSError):  # not every file system has locks
            fcntl.flock(file, fcntl.LOCK_SH)
        yield Appender(file.fileno(), cut)


def held(path: Path) -> bool | None:
    """Whether a run is adding records now, as far as its lock reaches; None if none can be tried.

    The lock ends with the process, however that ends.
    """
    try:
        with path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


class Appender:
    """Adds records, each on a line of its own even where a kill cut the last one.

    Each gets `run`, HOST:WORD, the same for all of this run; `time`, in seconds since 1970 by the
    clock on the wall; and `after`, in seconds since the run began, which no change of that clock
    reaches.
    """

    def __init__(self, file: int, cut: bool = False) -> None:
        self.run = f"{platform.node()}:{uuid.uuid4().hex[:8]}"
        self._file, self._cut = file, cut
        self._began = clock.monotonic()

    def add(self, record: Mapping[str, Any]) -> None:
        """Write one record through to the file system."""
        stamp = {
            "run": self.run,
            "time": round(clock.time(), 3),
            "after": round(clock.monotonic() - self._began, 3),
        }
        line = (json.dumps({**record, **stamp}) + "\n").encode()
        line, self._cut = b"\n" * self._cut + line, True
        if os.write(self._file, line) < len(line):  # as a disk does that is just full
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), NAME)
        self._cut = False
