"""Records of tiles: one JSON line each, appended after the tile is safely written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

NAME = "tiledlaf.jsonl"


def read(path: Path) -> dict[tuple[int, ...], dict[str, Any]]:
    """The last record of each tile; a line cut short by a kill counts as not written."""
    found: dict[tuple[int, ...], dict[str, Any]] = {}
    if path.is_file():
        for line in path.read_text().splitlines():
            record = _parse(line)
            if record is not None:
                found[tuple(record["tile"])] = record
    return found


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
    with path.open("a") as file:
        yield Appender(file, cut)


class Appender:
    """Adds records, each on a line of its own even where a kill cut the last one."""

    def __init__(self, file: TextIO, cut: bool = False) -> None:
        self._file = file
        if cut:
            file.write("\n")

    def add(self, record: Mapping[str, Any]) -> None:
        """Write one record through to the file system."""
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
