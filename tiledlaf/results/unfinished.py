"""What a run that was cut has made and found of objects: the same command goes on from there.

On a file system objects are made in a folder whose name follows from the labels and all settings,
and which is locked by the process that works in it. Beside what is made lies the journal: results
of tiles by stage, in files that are put into place as a whole every few seconds. On an object store
there is only the journal.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import time as clock
import uuid
import zlib
from collections.abc import Callable, Container, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np

from ..files import claims, stores
from ..files.folders import PART, is_part, lock
from ..labeling import records
from ..pool.tasks import Pool

TASK = 2**20  # pixels of small tiles that share a task
LASTS = 7 * 86400.0  # seconds that it is kept for the same command; other leftovers an hour
LOCK = "lock"
ENDING = ".journal"
Index = tuple[int, ...]
Progress = Callable[[dict[str, Any]], None]


class Journal:
    """Results of tiles by stage; what is damaged or of another kind counts as not found.

    Parameters
    ----------
    store, folder : where its files are
    """

    def __init__(self, store: str, folder: str) -> None:
        self.store, self.folder = store, folder
        self._place = stores.at(store)
        self._run, self._number = uuid.uuid4().hex[:12], 0
        self._held: dict[str, list[msgspec.Raw]] = {}
        self._began = self._last = clock.monotonic()

    def found(self, stage: str, kind: Any) -> Iterator[tuple[Index, Any]]:
        """Tiles and results of a stage, in the order of the files; of a tile there may be several.

        Parameters
        ----------
        kind : type of the results
        """
        decoder = msgspec.msgpack.Decoder(list[tuple[Index, kind]], dec_hook=_decoded)
        for name in self._place.names(self.folder):
            if not name.startswith(f"{_word(stage)}-") or not name.endswith(ENDING):
                continue
            data = self._place.read(f"{self.folder}/{name}") or b""
            if zlib.crc32(data[4:]).to_bytes(4, "big") != data[:4]:
                continue  # cut by a crash, or damaged: these tiles are done again
            with contextlib.suppress(msgspec.MsgspecError):  # of another release
                yield from decoder.decode(data[4:])

    def add(self, stage: str, index: Index, result: Any) -> None:
        """Keep the result of a tile; with others it is written every few seconds."""
        self._held.setdefault(stage, []).append(msgspec.Raw(_ENCODER.encode((index, result))))
        now = clock.monotonic()
        if now - self._last >= records.between(now - self._began):
            self.flush()

    def flush(self) -> None:
        """Write what was added since the last time, a file for each stage."""
        while self._held:
            stage, results = self._held.popitem()
            data = msgspec.msgpack.encode(results)
            name = f"{_word(stage)}-{self._number:06d}-{self._run}{ENDING}"
            whole = zlib.crc32(data).to_bytes(4, "big") + data
            self._place.write(f"{self.folder}/{name}", whole)
            self._number += 1
        self._last = clock.monotonic()

    def drop(self, *stages: str) -> None:
        """Forget what was found in some stages."""
        words = tuple(f"{_word(stage)}-" for stage in stages)
        names = [n for n in self._place.names(self.folder) if n.startswith(words)]
        self._place.remove(*(f"{self.folder}/{name}" for name in names))


def _word(stage: str) -> str:
    return stage.replace(" ", "_")


def _encoded(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, np.ascontiguousarray(value).tobytes()
    raise NotImplementedError(f"expected arrays and numbers, got {type(value).__name__}")


def _decoded(kind: type, value: Any) -> Any:
    if kind is not np.ndarray:
        raise NotImplementedError(f"expected arrays and numbers, got {kind.__name__}")
    name, shape, data = msgspec.convert(value, tuple[str, tuple[int, ...], bytes])
    dtype = np.dtype(name)
    if dtype.kind not in "biuf" or math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError("expected numbers of that shape")
    return np.frombuffer(data, dtype).reshape(shape).copy()


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_encoded)


@contextlib.contextmanager
def opened(store: str, group: str, key: str) -> Iterator[tuple[str, Journal]]:
    """The store that a group is made in, and its journal; both are kept if an error ends the work.

    Where another process makes the same at this time, this one begins in a folder of its own.

    Parameters
    ----------
    key : 32 hexadecimal digits, which differ with anything that the group depends on
    """
    if stores.is_url(store):
        folder = f"{group}.{key}{PART}"
        yield store, Journal(store, folder)
        _remove_others(store, group)
        return
    store = stores.absolute(store)
    folder, held = _locked(store, group, key)
    shared = key in folder
    with held:
        try:
            yield os.path.join(store, folder), Journal(store, f"{folder}/journal")
        except BaseException:
            if not shared:
                shutil.rmtree(os.path.join(store, folder), ignore_errors=True)
            raise
        shutil.rmtree(os.path.join(store, folder), ignore_errors=True)
    _remove_others(store, group)


def _locked(store: str, group: str, key: str) -> tuple[str, IO[bytes]]:
    """The folder of this name or, where another process is in it, a new one; and its lock."""
    while True:
        folder = f"{group}.{key}{PART}"
        path = Path(store, folder, LOCK)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = path.open("a+b")  # as long as the work goes on
        except FileNotFoundError:  # its owner has just removed it
            continue
        try:
            lock(file, alone=True)
        except BlockingIOError:
            file.close()
            key = uuid.uuid4().hex
            continue
        except OSError:  # no locks: two would write the same
            pass
        with contextlib.suppress(FileNotFoundError):
            if not claims.is_gone(file, path):
                # leftovers are removed an hour after their last change
                os.utime(path, (clock.time() + LASTS,) * 2)
                return folder, file
        file.close()


def _remove_others(store: str, group: str) -> None:
    """Remove what was begun with other settings, or of earlier labels, unless it is at work."""
    place, above = stores.at(store), os.path.dirname(group)
    for name in place.names(above):
        if is_part(name, os.path.basename(group)) and not _at_work(store, f"{above}/{name}"):
            place.remove(f"{above}/{name}")


def _at_work(store: str, folder: str) -> bool:
    """Whether a process holds the lock of a folder; also where there are no locks to tell."""
    path = Path(store, folder, LOCK)
    if stores.is_url(store) or not path.exists():  # all that it would lose is its journal
        return False
    return records.is_locked(path) is not False


class Telling:
    """Runs tasks by stages, and tells how many are done; what the journal knows is not run again.

    Parameters
    ----------
    progress : called with stage, done and of
    """

    def __init__(self, progress: Progress, journal: Journal) -> None:
        self._progress, self._journal = progress, journal

    def each(
        self,
        stage: str,
        pool: Pool,
        function: Callable[[Any, Any], Any],
        job: Any,
        items: Iterable[tuple[Index, Any]],
        count: int,
        kind: Any = None,
        trusted: Callable[[Index, Any], bool] = lambda index, result: True,
    ) -> Iterator[tuple[Index, Any]]:
        """Tiles and their results, as they come.

        Parameters
        ----------
        items : tiles, and what the function gets of each
        count : of items
        kind : type of the results, by which the journal keeps them; None: it keeps none
        trusted : whether a result that the journal knows still holds
        """
        known = set[Index]()
        for index, result in self._journal.found(stage, kind) if kind else ():
            if index not in known and trusted(index, result):
                known.add(index)
                yield index, result
        if known:
            self._progress({"stage": stage, "done": len(known), "of": count})
        try:
            for done, (index, result) in enumerate(
                self._run(pool, function, job, items, count, known), len(known) + 1
            ):
                if kind:
                    self._journal.add(stage, index, result)
                self._progress({"stage": stage, "done": done, "of": count})
                yield index, result
        except BaseException:
            with contextlib.suppress(OSError):  # the error that ended the work says more
                self._journal.flush()
            raise

    def _run(
        self,
        pool: Pool,
        function: Callable[[Any, Any], Any],
        job: Any,
        items: Iterable[tuple[Index, Any]],
        count: int,
        known: Container[Index],
    ) -> Iterator[tuple[Index, Any]]:
        """Results of the tiles that are not known."""
        grid = getattr(job, "grid", None) or getattr(job, "search", job)
        tile = getattr(getattr(grid, "grid", grid), "tile", (TASK,))
        batch = max(min(TASK // math.prod(tile), count // (8 * pool.workers)), 1)
        left = (one for one in items if one[0] not in known)
        for (index, _), result, error, _ in pool.run(_second, (function, job), left, batch):
            if error is not None:
                raise error
            yield index, result


def _second(job: tuple[Callable[[Any, Any], Any], Any], item: tuple[Index, Any]) -> Any:
    """What a function makes of an item that is told by its index."""
    return job[0](job[1], item[1])
