"""N5, which is converted first: zarr no longer reads it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import InputError
from .. import stores, texts
from ..image import Levels, Reader


@dataclass(frozen=True)
class N5(Reader):
    """A folder of N5, or one within it."""

    name = "N5"
    suffixes = frozenset({".n5"})

    def sniff(self, path: str) -> bool:
        """Whether a folder is one of N5 by its name or its metadata."""
        if stores.is_url(path) or not os.path.isdir(path):
            return False
        if any(p.suffix.lower() in self.suffixes for p in (Path(path), *Path(path).parents)):
            return True
        try:
            return "n5" in texts.parsed(Path(path, "attributes.json").read_bytes())
        except (OSError, ValueError, TypeError):
            return False

    def look(self, path: str, level: int, axes: str | None) -> Levels:
        """Refuse, with the command that converts it."""
        raise InputError(f"{path}: N5 is not read, convert it to Zarr: {_command(path)}")

    def open(self, path: str, name: str) -> Any:
        """Refuse, with the command that converts it."""
        raise InputError(f"{path}: N5 is not read, convert it to Zarr: {_command(path)}")


def _command(path: str) -> str:
    """What converts an array of N5, by the last zarr that reads it."""
    given = Path(path)
    root = next((p for p in (given, *given.parents) if p.suffix.lower() == ".n5"), given)
    array = given.relative_to(root).as_posix()
    array = "ARRAY" if array == "." else array
    return (
        "with 'zarr<3' and 'numcodecs<0.16' in an environment of its own, python -c \"import zarr; "
        f"zarr.copy(zarr.open_array(zarr.N5Store('{root}'), mode='r', path='{array}'), "
        f"zarr.open_group('{root.with_suffix('.zarr')}', 'w'), '0', compressor=zarr.Blosc())\""
    )
