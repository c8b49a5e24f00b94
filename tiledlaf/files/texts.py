"""Small text files that a user writes by hand: JSON and CSV; refused by name if damaged."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError

LONGEST = 60  # characters of a reason


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
        return json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:  # also numbers of thousands of digits
        raise InputError(f"{path}: expected {what}, {_short(str(error))}") from None


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
    lines = read_text(path).splitlines()
    head = lines[0] if lines else ""
    try:
        return list(csv.reader(lines, delimiter=max(delimiters, key=head.count)))
    except csv.Error as error:
        raise InputError(f"{path}: expected a CSV file, {error}") from None


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
