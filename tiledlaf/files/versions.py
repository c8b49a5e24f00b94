"""Versions of this program's formats, which docs/formats.md lists, and of what runs it."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Any

from .. import __version__
from ..errors import DamagedFile, NewerFormat

LIBRARIES = ("numpy", "numba", "zarr", "dask")


def installed() -> str:
    """This program, Python and the libraries that results depend on, with their versions."""
    found = [f"tiledlaf {__version__}", f"Python {platform.python_version()}"]
    for name in LIBRARIES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:  # a folder on the path
            continue
    return ", ".join(found)


def check(where: str, found: Any, known: int) -> None:
    """Refuse a format that a later release wrote.

    Parameters
    ----------
    where : path and kind of what has the format, for messages
    found : its version; what earlier releases wrote has none, which is 1
    known : the latest one that this release reads

    Raises
    ------
    ValueError
        Names both versions.
    """
    if isinstance(found, bool) or not isinstance(found, int) or found < 1:
        raise DamagedFile(f"{where} has no format version but {found!r}")
    if found > known:
        raise NewerFormat(
            f"{where} has format version {found}, of a later release: tiledlaf {__version__} reads "
            f"versions up to {known}"
        )
