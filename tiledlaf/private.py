"""A folder for temporary files that other users of the machine can neither read nor fill."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import stat
import tempfile


@functools.cache
def folder(parent: str | None = None) -> str:
    """A folder that only this user can enter, below `parent` or the temporary folder.

    What Dask spills and Numba caches is code to whoever reads it again: under a name that
    everybody knows, another user could have put it there.

    Raises
    ------
    OSError
        If there is none and none can be made.
    """
    above = parent or tempfile.gettempdir()
    if not hasattr(os, "getuid"):  # Windows, whose temporary folder is the user's own
        return above
    os.makedirs(above, exist_ok=True)
    path = os.path.join(above, f"tiledlaf-{os.getuid()}")
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    found = os.lstat(path)
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
        return path
    path = tempfile.mkdtemp(prefix="tiledlaf-", dir=above)
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path
