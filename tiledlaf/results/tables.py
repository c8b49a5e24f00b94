"""Tables as CSV or Parquet, a piece at a time."""

from __future__ import annotations

import csv
import functools
import importlib.util
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..redaction import plain
from . import targets

SUFFIXES = (".csv", ".parquet")
ROWS = 2**16  # that are written at once
Columns = Mapping[str, Sequence[Any] | np.ndarray]
# what spreadsheets take for a formula, unless it is a number
FORMULA = re.compile(r"[=+\-@\t\r]")
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


def check(path: str | os.PathLike[str]) -> None:
    """Refuse a file that is no table, or a kind that cannot be written here.

    Raises
    ------
    ValueError
        Names what is missing.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{os.fspath(path)}: expected a file ending {' or '.join(SUFFIXES)}")
    if suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise InputError(
            f"{os.fspath(path)}: Parquet needs pyarrow, which is not installed: "
            "pip install 'tiledlaf[tables]' (or choose .csv)"
        )


def write(path: str | os.PathLike[str], columns: Columns, *, overwrite: bool = False) -> None:
    """Write a table, whole or not at all.

    In CSV numbers have all their digits, what is missing (None, NaN) is empty, and a text that a
    spreadsheet would take for a formula has an apostrophe before it.

    Parameters
    ----------
    path : ends .csv or .parquet; a file or the URL of an object
    columns : values by name, in order, all of one length
    overwrite : whether a file that is there is replaced

    Raises
    ------
    ValueError
        If the file is there, or is no table; or if columns differ in length.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tiledlaf.results import tables
    >>> tables.write("cells.csv", {"class": ["tumor", "other"], "pixels": [12, 30]})
    >>> print(Path("cells.csv").read_text(), end="")
    class,pixels
    tumor,12
    other,30
    """
    check(path)
    suffix = Path(path).suffix.lower()
    with targets.written(path, overwrite) as part:
        put(part, suffix, columns)


def put(path: str, suffix: str, columns: Columns) -> None:
    """Write a table of the kind that a suffix says into a file of any name."""
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"expected columns of one length, got {lengths}")
    if suffix == ".csv":
        _write_csv(path, columns)
    else:
        _write_parquet(path, columns)


def _pieces(columns: Columns) -> Iterator[list[Any]]:
    """A few rows of each column at a time; at least once, though there be none."""
    rows = len(next(iter(columns.values()), ()))
    for start in range(0, max(rows, 1), ROWS):
        yield [values[start : start + ROWS] for values in columns.values()]


def _write_csv(path: str, columns: Columns) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(map(_cell, columns))
        for piece in _pieces(columns):
            writer.writerows(zip(*map(_texts, piece), strict=True))


def _texts(values: Any) -> list[str]:
    """The cells of a column."""
    array = values if isinstance(values, np.ndarray) else np.empty(0, object)
    if array.dtype.kind in "iu":
        return list(map(str, array.tolist()))
    if array.dtype.kind == "f" and array.dtype.itemsize != 8:  # the fewest digits that say it
        return ["" if one != one else str(one) for one in array]
    return list(map(_text, array.tolist() if len(array) else values))


def _text(value: Any) -> str:
    if isinstance(value, str):
        return _cell(value)
    if value is None or value != value:
        return ""
    if isinstance(value, bool | np.bool_):
        return str(value).lower()
    return repr(value) if isinstance(value, float) else str(value)


@functools.lru_cache(maxsize=1024)
def _cell(text: str) -> str:
    """A text that neither steers a terminal nor is a formula."""
    guard = FORMULA.match(text) and not NUMBER.fullmatch(text)
    return "'" * bool(guard) + plain(text)


def _write_parquet(path: str, columns: Columns) -> None:
    import pyarrow
    import pyarrow.parquet

    columns = {name: _whole_letters(values) for name, values in columns.items()}
    # types are those of whole columns: a piece of a list may hold nothing but None
    types = [
        pyarrow.array(values[:0] if _typed(values) else values).type for values in columns.values()
    ]
    schema = pyarrow.schema(list(zip(columns, types, strict=True)))
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        for piece in _pieces(columns):
            writer.write_table(
                pyarrow.table(
                    [pyarrow.array(v, t) for v, t in zip(piece, types, strict=True)], schema=schema
                )
            )


def _typed(values: Any) -> bool:
    return isinstance(values, np.ndarray) and values.dtype.kind in "biuf"


def _whole_letters(values: Any) -> Any:
    """Texts that UTF-8 can hold: a name may have half a letter, as of bytes in another encoding."""
    if _typed(values):
        return values
    return [
        one.encode("utf-8", "backslashreplace").decode() if isinstance(one, str) else one
        for one in values
    ]
