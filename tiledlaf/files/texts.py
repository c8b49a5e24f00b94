"""Small text files that a user writes by hand: JSON and CSV; refused by name if damaged."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError

LONGEST = 60  # characters of a reason
LONG = 309  # digits of the largest float
DEEPEST = 64  # lists and objects within each other
_STEPS = np.zeros(256, np.int8)
_STEPS[list(b"[{")], _STEPS[list(b"]}")] = 1, -1
# what is quoted, closed or not, and brackets elsewhere; what is matched once is not tried again
_NESTING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[][{}]', re.DOTALL)


def read_text(path: str | os.PathLike[str], what: str = "a text file in UTF-8") -> str:
    """Read a text file in UTF-8, with or without a byte order mark.

    Parameters
    ----------
    what : what is expected, for messages

    Raises
    ------
    ValueError
        If it cannot be read, or is no such text.
    """
    try:
        return Path(path).read_text("utf-8-sig")  # spreadsheets write a byte order mark
    except UnicodeDecodeError:
        raise InputError(f"{path}: expected {what}") from None
    except OSError as error:
        raise InputError(f"{error.filename or path}: {error.strerror or error}") from None


def read_json(path: str | os.PathLike[str], what: str = "JSON") -> Any:
    """Read JSON in which no name is given twice.

    Parameters
    ----------
    what : what is expected, for messages

    Raises
    ------
    ValueError
        If it is no such JSON.
    """
    text = read_text(path, f"{what}, a text file in UTF-8")
    try:
        return parsed(text, _once)
    except ValueError as error:
        raise InputError(f"{path}: expected {what}, {_short(str(error))}") from None


def parsed(text: str | bytes, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """JSON from anywhere, as plain values; whole numbers that need more than 64 bits are floats.

    Parameters
    ----------
    pairs : makes an object of its names and values

    Raises
    ------
    ValueError
        If it is not JSON, or is nested deeper, or has longer numbers, than any file of use.
    """
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    if data.count(b"[") + data.count(b"{") > DEEPEST:
        steps = _STEPS[np.frombuffer(data, np.uint8)]
        # quick, but brackets within quotes count as well, as in the ranges "[0, 10)"
        if int(np.cumsum(steps[steps != 0], dtype=np.int32).max()) > DEEPEST:
            depth = _depth(data)
            if depth > DEEPEST:
                raise ValueError(f"lists within lists, {depth} deep")
    try:
        return json.loads(text, object_pairs_hook=pairs, parse_int=_whole)
    except RecursionError:  # brackets in texts can hide some
        raise ValueError("lists within lists") from None


def _depth(data: bytes) -> int:
    """How deep JSON is nested; in time linear in its length, whatever is in it."""
    depth = deepest = 0
    for match in _NESTING.finditer(data):
        depth += int(_STEPS[data[match.start()]])  # 0 of a quote
        deepest = max(deepest, depth)
    return deepest


def _whole(digits: str) -> int | float:
    if len(digits) > LONG:
        raise ValueError(f"a number of {len(digits)} digits")
    whole = len(digits) <= 20 and -(2**63) <= int(digits) < 2**64
    return int(digits) if whole else float(digits)


def read_rows(path: str | os.PathLike[str], delimiters: str = ",") -> list[list[str]]:
    """Read the rows of a CSV file.

    Parameters
    ----------
    delimiters : of these, that which is most frequent in the first line divides cells

    Raises
    ------
    ValueError
        If it is no such text.
    """
    text = read_text(path)
    if "\0" in text:
        raise InputError(f"{path}: expected a CSV file, got a null byte in it")
    head = text.partition("\n")[0]
    try:
        # not line by line: a cell in quotes may hold ends of lines, and any cell what Unicode
        # takes for one
        return list(csv.reader(io.StringIO(text), delimiter=max(delimiters, key=head.count)))
    except csv.Error as error:
        raise InputError(f"{path}: expected a CSV file, {error}") from None


def read_columns(
    path: str | os.PathLike[str],
    columns: Collection[str],
    needed: Collection[str],
    missing: str,
    of: str,
) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Read a CSV file whose first row names its columns; rows of empty cells are left out.

    Parameters
    ----------
    columns : those that there may be
    needed : those that there must be
    missing : which may be missing, and of : of what there are rows; both for messages

    Returns
    -------
    names, rows
        The columns in lower case; of each row where it stands, and its cells.

    Raises
    ------
    ValueError
        If a column is unknown or missing or comes twice, or there are no rows.
    """
    # spreadsheets of some countries separate by semicolons
    rows = [[cell.strip() for cell in row] for row in read_rows(path, ",;\t")]
    names = [name.lower() for name in rows[0]] if rows else []
    if not set(needed) <= set(names) <= set(columns) or len(set(names)) < len(names):
        raise InputError(
            f"{path}: expected the columns {', '.join(columns)} ({missing}), "
            f"got {', '.join(names)[:80] or 'none'}"
        )
    found = [
        (f"{path}, row {number}", cells) for number, cells in enumerate(rows[1:], 2) if any(cells)
    ]
    if not found:
        raise InputError(f"{path}: expected rows of {of}, got none")
    return names, found


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        again = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"got {_short(repr(again))} twice")
    return found


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
