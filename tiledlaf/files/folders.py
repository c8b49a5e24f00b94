"""Files below a folder, each put into place at once: the store of a file system."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import uuid
from pathlib import Path
from typing import Any

from ..errors import DamagedFile, InputError

PART = ".partial"  # suffix of files not yet, or no longer, in place; zarr uses it as well
LONGEST = 160  # bytes of a name; file systems allow 255, and a name of parts is longer by up to 93
# what operating systems leave in folders: macOS, Windows, Linux desktops, NFS, SMB, NAS
STRAY = re.compile(
    r"\.DS_Store|\._.*|\.AppleDouble|\.Spotlight-V100|\.Trashes|\.Trash-\d+|\.fseventsd|\.localized"
    r"|\.TemporaryItems|\.apdisk|Icon\r|Thumbs\.db|ehthumbs(_vista)?\.db|desktop\.ini|\$RECYCLE\.BIN"
    r"|System Volume Information|\.directory|\.nfs[0-9a-f]+|\.fuse_hidden\w+|\.smbdelete\w+"
    r"|@eaDir|lost\+found|\.snapshot|\.~lock\..*#|~\$.*",
    re.IGNORECASE,
)


def is_stray(name: str) -> bool:
    """Whether a file or folder of this name was left by an operating system, and is no data."""
    return STRAY.fullmatch(name) is not None


def is_part(name: str, of: str) -> bool:
    """Whether a name is that of a part of a file or folder, of its claim or of its checkpoint.

    A part of another one, whose name only begins alike, is none: a part of "w.b" is none of "w".
    """
    ends = rf"(\.claim|\.checkpoint)?(\.[0-9a-f]{{32}}{re.escape(PART)})+"  # twice: being removed
    return re.fullmatch(re.escape(of) + ends, name) is not None


def check_length(path: str | os.PathLike[str]) -> None:
    """Refuse a name to write that leaves no room for those of its parts.

    Raises
    ------
    ValueError
        With its length.
    """
    name = os.path.basename(path)
    length = len(os.fsencode(name))
    if length > LONGEST:
        raise InputError(
            f"{name[:40]}...: expected a name of at most {LONGEST} bytes, got one of {length}"
        )


def link(part: str | os.PathLike[str], final: str | os.PathLike[str]) -> bool:
    """Give a whole file its final name unless there is one; whether it was given.

    Of several at one time one succeeds. Nobody sees a part, except where a file system has no
    links, as FAT: there a file is made that nobody else has made, and then written.
    """
    made = False
    try:
        os.link(part, final)
        return True
    except FileExistsError:
        pass
    except FileNotFoundError:
        raise
    except OSError:
        with contextlib.suppress(FileExistsError):
            open(final, "xb").close()
            made = True
    return _fill(final, Path(part).read_bytes(), made)


def _fill(path: str | os.PathLike[str], data: bytes, made: bool) -> bool:
    """Write a file that is empty, made for this or left by a crash; whether it was written.

    Of several at one time the one with the lock does or, where there are no locks, its maker.
    """
    try:
        with open(path, "r+b") as file:
            try:
                lock(file, alone=True)
            except BlockingIOError:
                return False
            except OSError:
                if not made:
                    return False
            found = os.fstat(file.fileno())
            if found.st_size or not os.path.samestat(found, os.stat(path)):
                return False
            file.write(data)
            return True
    except FileNotFoundError:  # removed meanwhile
        return False


def lock(file: Any, alone: bool, patient: bool = False) -> None:
    """Lock a file, together with others or alone and, unless `patient`, at once; until it closes.

    Raises
    ------
    OSError
        If the system or the file system has no locks, or another process holds one.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP)) from None
    at_once = fcntl.LOCK_NB if alone and not patient else 0
    fcntl.flock(file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | at_once)


class Folder:
    """Files below a folder; a key is a path relative to it."""

    def __init__(self, path: str) -> None:
        self.root = Path(path)

    def exists(self, key: str) -> bool:
        """Whether there is such a file."""
        path = self.root / key
        if path.is_symlink() and not path.exists():
            raise missing_link(path)
        return path.is_file()

    def read(self, key: str) -> bytes | None:
        """Bytes of a file, None where there is none."""
        path = self.root / key
        try:
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            if path.is_symlink():
                raise missing_link(path) from None
            return None

    def write(self, key: str, data: bytes) -> None:
        """Write a file under another name, then rename it into place."""
        final = self.root / key
        part = final.with_name(f".{final.name}.{uuid.uuid4().hex}{PART}")
        for last in (False, False, True):
            try:
                if self.root.is_symlink():  # perhaps to a folder that is yet to be made
                    self.root.resolve().mkdir(parents=True, exist_ok=True)
                final.parent.mkdir(parents=True, exist_ok=True)
                part.write_bytes(data)
                part.replace(final)
                return
            except FileNotFoundError:  # another run has removed the folder, or parts that were left
                if last:
                    raise
            except OSError as error:
                if error.filename is None:  # as of a full disk
                    error.filename = str(final)
                with contextlib.suppress(OSError):  # this one says more
                    part.unlink(missing_ok=True)
                raise

    def create(self, key: str, data: bytes) -> bool:
        """Write a file unless there is one; whether this call has written it."""
        final = self.root / key
        part = final.with_name(f".{final.name}.{uuid.uuid4().hex}{PART}")
        if self.root.is_symlink():
            self.root.resolve().mkdir(parents=True, exist_ok=True)
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_bytes(data)
            return link(part, final)
        finally:
            part.unlink(missing_ok=True)

    def remove(self, *prefixes: str) -> int:
        """Remove files, and folders with everything below; return how many.

        All are renamed away before the first is deleted, which may take long.
        """
        parts = []
        for path in (self.root / prefix for prefix in prefixes):
            part = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PART}")
            with contextlib.suppress(FileNotFoundError):
                parts.append(path.rename(part))
        for part in parts:
            if part.is_dir() and not part.is_symlink():
                # another run may remove leftovers of killed runs, including this one
                shutil.rmtree(part, ignore_errors=True)
            else:
                part.unlink(missing_ok=True)
        return len(parts)

    def names(self, prefix: str = "") -> list[str]:
        """What lies directly below, sorted."""
        folder = self.root / prefix
        found = [p.name for p in folder.iterdir()] if folder.is_dir() else []
        return sorted(name for name in found if not is_stray(name))

    def state(self, key: str) -> int | str:
        """What changes when a file is rewritten: its modification time in ns."""
        return (self.root / key).stat().st_mtime_ns


def missing_link(path: str | os.PathLike[str]) -> DamagedFile:
    """The error for a link whose content is not there, as git-annex leaves it before `get`."""
    return DamagedFile(
        f"{os.fspath(path)}: this is a link to {os.readlink(path)}, which is not there: fetch it "
        "first ('git annex get' or 'datalad get', if that is where it comes from)"
    )
