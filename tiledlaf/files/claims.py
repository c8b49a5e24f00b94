"""Claims of paths: which of several starts at one moment writes there, and what is its own."""

from __future__ import annotations

import contextlib
import json
import os
import time as clock
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from ..errors import InputError
from . import fingerprints, stores
from .folders import PART, check_length, is_part, link, lock

ENDING = ".claim"
RECORDS = "tiledlaf.jsonl"  # whose first line says which start made the arrays beside it
PATIENCE = 10.0  # seconds that a claim may remain empty
FIRST = 1000  # bytes that this line may have


def stamp(folder: str, dir_fd: int | None = None) -> str | None:
    """Which start made the arrays in a group's folder: "" if that is not said, None if none did."""
    try:
        file = os.open(os.path.join(folder, "0", RECORDS), os.O_RDONLY, dir_fd=dir_fd)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        line = os.read(file, FIRST).partition(b"\n")[0]
    finally:
        os.close(file)
    try:
        found = json.loads(line)["run"]
    except (ValueError, TypeError, KeyError, RecursionError):  # of older versions, or damaged
        return ""
    return found if isinstance(found, str) else ""


class Claim:
    """The claim of a path that takes long to write: a file beside it that says whose it will be.

    The same work may join. Other work is refused while a process that has claimed the path lives,
    which a lock tells that ends with it; where there are no locks, until the claim is removed.

    Parameters
    ----------
    path : what is to be written
    settings : all that it depends on, as JSON
    advice : what the user can do where it is claimed for other settings

    Raises
    ------
    ValueError
        If a run of other settings has claimed the path, or it is none for a new file.
    """

    def __init__(
        self, path: str | os.PathLike[str], settings: Mapping[str, Any], advice: str
    ) -> None:
        self.path = os.fspath(path)
        check_length(self.path)
        if os.path.islink(self.path) and not os.path.exists(self.path):
            raise InputError(
                f"{self.path}: expected a new path, got a link to {os.readlink(self.path)}, which "
                "is not there"
            )
        self.file = Path(f"{self.path}{ENDING}")
        self._settings: dict[str, Any] = json.loads(json.dumps(settings))
        self._advice, self._held = advice, None
        self._until = clock.monotonic() + PATIENCE
        while self._held is None:
            self._held = self._made() or self._joined()

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, *error: object) -> None:
        """Leave it to those that have joined, or remove it."""
        assert self._held is not None
        with self._held as file:
            try:
                lock(file, alone=True)
            except BlockingIOError:
                return
            except OSError:  # no locks: what is written at last is written only once all the same
                pass
            else:  # alone: also what killed runs left is nobody's
                stores.at(str(self.file.parent)).remove(*self._parts())
            _remove(file, self.file)

    def _parts(self) -> list[str]:
        of = os.path.basename(self.path)
        return [name for name in os.listdir(self.file.parent) if is_part(name, of)]

    def _made(self) -> IO[str] | None:
        """A new claim, open and locked; None where there is one."""
        part = self.file.with_name(f"{self.file.name}.{uuid.uuid4().hex}{PART}")
        file = part.open("x+")
        try:
            json.dump(self._settings, file)
            file.flush()
            with contextlib.suppress(OSError):  # not every file system has locks
                lock(file, alone=False)
            if link(part, self.file) and not is_gone(file, self.file):
                return file
        except FileNotFoundError:  # another run took it for what a killed one has left
            pass
        finally:
            part.unlink(missing_ok=True)
        file.close()
        return None  # also where it is a copy: joined, it is locked

    def _joined(self) -> IO[str] | None:
        """The claim of the same work; None where there is none any more, or its owner is gone."""
        try:
            file = self.file.open("r+")
        except FileNotFoundError:
            return None
        try:
            text = file.read()
            held = json.loads(text)
        except ValueError:  # being written, or damaged
            held = {}
        if not text:
            self._await(file)
            return None
        same = held == self._settings
        try:
            lock(file, alone=not same)
        except OSError as error:
            if not same:
                clock.sleep(0.05)  # another start may hold it only to remove it
                gone = is_gone(file, self.file)
                file.close()
                if gone:
                    return None
                fingerprints.refuse_difference(
                    f"{self.path} is being written by another run"
                    if isinstance(error, BlockingIOError)
                    else f"{self.path} has been claimed by another run, in {self.file}",
                    held if isinstance(held, dict) else {},
                    self._settings,
                    self._advice,
                )
        if not same:
            _remove(file, self.file)
        if not same or is_gone(file, self.file):
            file.close()
            return None
        return file

    def _await(self, file: IO[str]) -> None:
        """Wait for what another start is just writing."""
        file.close()
        if clock.monotonic() > self._until:
            raise InputError(f"{self.file}: a crash has left this file empty: remove it")
        clock.sleep(0.02)


def clear(path: str | os.PathLike[str]) -> None:
    """Remove the claim of a path that is written, unless a process still holds it."""
    file = Path(f"{os.fspath(path)}{ENDING}")
    with contextlib.suppress(OSError), file.open("r+") as held:
        lock(held, alone=True)
        _remove(held, file)


def is_gone(file: IO[Any], path: Path) -> bool:
    """Whether a path leads no longer to an open file."""
    try:
        return not os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return True


def _remove(file: IO[str], path: Path) -> None:
    """Remove an open file, unless another one has its path now."""
    if not is_gone(file, path):
        with contextlib.suppress(OSError):  # another run was quicker, or it is open in Windows
            path.unlink()
