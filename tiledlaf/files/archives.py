"""Files within a zip archive, read-only."""

from __future__ import annotations

import errno
import os
import threading
import zipfile
from typing import Never

from ..errors import DamagedFile, InputError

SUFFIXES = (".zip", ".ozx")
# what a file in an archive may unpack to: so many times its packed size, and these bytes besides;
# blank chunks are packed to a thousandth, metadata never
UNPACKED, FREE, CHUNK = 32, 2**26, 2**30
TEXTS = (".json", ".xml", ".zarray", ".zattrs", ".zgroup", ".zmetadata")


class Archive:
    """Files of a zip archive below a folder in it; a key is a path relative to that folder.

    Attributes
    ----------
    file : path of the archive
    prefix : of keys in the archive, "" or ending with a slash
    """

    def __init__(self, file: str, name: str = "") -> None:
        self.file = file
        self._lock = threading.Lock()
        try:
            self._zip = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, EOFError, ValueError) as error:
            raise DamagedFile(f"{file}: this archive cannot be read, {error}") from None
        self._check_sizes()
        self._names = {n for n in self._zip.namelist() if not n.endswith("/")}
        self.prefix = self._root() + (f"{name}/" if name else "")

    def _check_sizes(self) -> None:
        for entry in self._zip.filelist:
            free = FREE if entry.filename.endswith(TEXTS) else CHUNK
            packed = entry.compress_type != zipfile.ZIP_STORED
            if packed and entry.compress_type != zipfile.ZIP_DEFLATED:
                why = f"{entry.filename} is neither stored nor deflated"
            elif packed and entry.file_size > UNPACKED * entry.compress_size + free:
                why = f"{entry.filename} would unpack to {entry.file_size} bytes"
            else:
                continue
            raise DamagedFile(f"{self.file}: this archive cannot be read, {why}")

    @staticmethod
    def suffixed(path: str) -> bool:
        """Whether a path has a suffix of archives."""
        return path.lower().endswith(SUFFIXES)

    def _root(self) -> str:
        """The folder of the store: the archive itself, or the only folder in it with metadata."""
        files = ("zarr.json", ".zgroup", ".zarray")
        if any(file in self._names for file in files):
            return ""
        tops = {n.split("/")[0] for n in self._names if n.count("/") == 1 and n.endswith(files)}
        return f"{tops.pop()}/" if len(tops) == 1 else ""

    def exists(self, key: str) -> bool:
        """Whether there is such a file."""
        return self.prefix + key in self._names

    def read(self, key: str) -> bytes | None:
        """Bytes of a file, None where there is none."""
        if not self.exists(key):
            return None
        try:
            with self._lock:
                entry = self._zip.getinfo(self.prefix + key)
                with self._zip.open(entry) as file:
                    # read with a limit: a file that is longer than it says fails by its checksum
                    return file.read(entry.file_size + 1)
        except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
            raise DamagedFile(f"{self.file}: {self.prefix + key} cannot be read, {error}") from None
        except OSError as error:
            raise OSError(error.errno or errno.EIO, error.strerror, self.file) from None

    def names(self, prefix: str = "") -> list[str]:
        """What lies directly below, sorted."""
        start = f"{self.prefix}{prefix}".rstrip("/")
        start = f"{start}/" if start else ""
        return sorted({n[len(start) :].split("/")[0] for n in self._names if n.startswith(start)})

    def state(self, key: str) -> int | str:
        """What changes when the archive is rewritten: its modification time in ns."""
        return os.stat(self.file).st_mtime_ns

    def write(self, key: str, data: bytes) -> Never:
        """Refuse to write."""
        raise InputError(f"{self.file}: expected a folder to write to, archives are only read")

    def remove(self, *prefixes: str) -> Never:
        """Refuse to remove files."""
        raise InputError(f"{self.file}: expected a folder to write to, archives are only read")
