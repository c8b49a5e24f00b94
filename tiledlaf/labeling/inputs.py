"""What a batch is of: inputs from globs, folders and tables, and where the labels of each go."""

from __future__ import annotations

import fnmatch
import glob
import os
import urllib.parse
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

from ..annotations import pairing
from ..annotations.opening import TISSUE
from ..annotations.pairing import natural as natural
from ..errors import InputError
from ..files import groups, images, ngff, nodes, stores, texts
from ..files.image import FileWarning
from . import beside

EVERY = "all"  # as `series`: each of the images in a file
TABLE, ENDING = ".csv", ".zarr"  # of tables of inputs, and of outputs
SHOWN = 5  # names that a message lists
# what a batch writes beside its outputs
LISTING, SUMMARY, PAGE = "batch.json", "summary.csv", "index.html"
PAGES = (LISTING, SUMMARY, PAGE)


def _time_point(text: str) -> int | str:
    return text if text == EVERY else int(text)


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


def _value(text: str) -> float:
    return int(text) if text.lstrip("+-").isdigit() else float(text)


def _region(text: str) -> tuple[tuple[int, int], ...]:
    pairs = [part.split(":") for part in text.split(",")]
    return tuple((int(a), int(b)) for a, b in pairs)


# columns of a table, and what their cells are; all but the first three are options of `label`
COLUMNS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("input", "output", "mask", "probabilities", "series", "axes"), str),
    "probabilities_of": str,
    **dict.fromkeys(("level", "z"), int),
    **dict.fromkeys(("pixel_size", "input_pixel_size", "intensity_scale"), float),
    **{"time_point": _time_point, "channels": _names, "no_data": _value, "region": _region},
}
PATHS = ("mask", "probabilities")


@dataclass(frozen=True)
class Item:
    """One image of a batch.

    Attributes
    ----------
    input, output : path of the image, and of the OME-Zarr for its labels
    own : options of `label` that are for this image alone
    """

    input: str
    output: str
    own: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The input as messages name it, with the image in it that is meant."""
        series = self.own.get("series")
        return self.input if series is None else f"{self.input}, series {series}"


def find(
    given: Sequence[str | os.PathLike[str]],
    into: str | os.PathLike[str],
    series: str | int | None = None,
) -> list[Item]:
    """The images of a batch, in the order in which they are given, and where their labels go.

    Parameters
    ----------
    given : paths, globs, folders of images, and tables (.csv) with the columns of `COLUMNS`
    into : folder, or URL, of the outputs; what lies there and was made by this program is no input
    series : which of the images in each file; "all": each; None: each field of a plate

    Raises
    ------
    ValueError
        If nothing is found, a table cannot be read, or several images would have one output.
    """
    into = folder(into)
    if not given:
        raise InputError("expected images, got none")
    rows = [row for one in given for row in _rows(os.fspath(one), into)]
    kept = [row for row in rows if not _is_made(row.input, into)]
    if not kept:
        what = ", ".join(os.fspath(one) for one in given)
        raise InputError(f"{what}: expected images other than the outputs in {into}, found none")
    return _placed(_once([one for row in kept for one in _each(row, series)]), into)


def folder(path: str | os.PathLike[str]) -> str:
    """The folder of a batch's outputs, or their URL, without slashes at its end.

    Raises
    ------
    ValueError
        If nothing can be written there, or it is something else.
    """
    given = os.fspath(path)
    if not given:  # as of a variable that is not set; it would be the root
        raise InputError("`into`: expected a folder for the outputs, got an empty text")
    url = stores.is_url(given)
    into = given.rstrip("/") or "/"
    if url:
        if stores.is_web(into):
            raise InputError(f"`into` {into}: expected a place to write, such as s3://bucket/out")
    else:
        above = stores.nearest_existing(into)
        if not above.is_dir():
            raise InputError(f"`into` {into}: expected a folder for the outputs, got a file")
        if not os.access(above, os.W_OK):
            raise InputError(f"`into` {into}: expected a place to write, but {above} is read-only")
    if nodes.is_store(into):
        raise InputError(f"`into` {into}: expected a folder for the outputs, got a Zarr store")
    return into


def _rows(text: str, into: str) -> Iterator[Item]:
    """What one argument stands for; `output` is "" or a name that a table gives."""
    if text.lower().endswith(TABLE) and not os.path.isdir(text):
        several = glob.has_magic(text) and not os.path.isfile(text)
        tables = sorted(glob.glob(text, recursive=True), key=natural) if several else []
        for table in tables or [text]:
            yield from read_table(table)
        return
    for path in _listed(text, into):
        yield Item(path, "")


def _listed(text: str, into: str) -> list[str]:
    """Paths of one argument: globs count also for object stores, in the last part of a URL."""
    above, _, last = text.rstrip("/").rpartition("/")
    if not stores.is_url(text) or not glob.has_magic(last):
        ours = [into, *(os.path.join(into, page) for page in PAGES)]
        return pairing.find(text, but={os.path.realpath(path) for path in ours})
    if stores.is_web(text):
        raise InputError(f"{text}: expected a path or URL without *, a web server lists nothing")
    found = [n for n in stores.at(above).names() if fnmatch.fnmatchcase(n, last)]
    if not found:
        raise InputError(f"{text}: expected images, found none")
    return [join(above, name) for name in sorted(found, key=natural)]


def read_table(path: str | os.PathLike[str]) -> list[Item]:
    """Read a CSV file of inputs, with any of the columns `COLUMNS`, of which `input` is needed.

    `output` is the name of the OME-Zarr within the folder; the others are options of `label` for
    this image, and an empty cell leaves them as they are for all. Paths are relative to the file's
    folder, or else to the current one.

    Raises
    ------
    ValueError
        If a column is unknown, or a cell is not what it should be; says which.
    """
    path = os.fspath(path)
    missing = "all but the first may be missing"
    names, rows = texts.read_columns(path, COLUMNS, {"input"}, missing, "inputs")
    return [_row(where, Path(path).parent, names, cells) for where, cells in rows]


def _row(where: str, folder: Path, names: Sequence[str], cells: Sequence[str]) -> Item:
    if len(cells) != len(names):
        raise InputError(f"{where}: expected {len(names)} cells, got {len(cells)}")
    own: dict[str, Any] = {}
    for name, cell in zip(names, cells, strict=True):
        if cell:
            try:
                own[name] = COLUMNS[name](cell)
            except ValueError:
                text = f"{where}: expected another value for {name}, got {cell!r}"
                raise InputError(text) from None
    if "input" not in own:
        raise InputError(f"{where}: expected a path for input, got an empty cell")
    for name in ("input", *PATHS):
        if name in own and (name == "input" or own[name] != TISSUE):
            own[name] = pairing.beside(folder, own[name])
    output = own.pop("output", "")
    bare = output.removesuffix(ENDING)
    if set(output) & set("/\\") or (output and bare in ("", ".", "..")):
        raise InputError(f"{where}: expected a name without folders for output, got {output!r}")
    return Item(own.pop("input"), bare, own)


def _is_made(path: str, into: str) -> bool:
    """Whether a path is, or lies in, an output in the folder, or is a picture that a run has drawn.

    Such are no inputs of the next run.
    """
    if beside.is_named(path):
        return beside.is_overview(path)
    output = _output_of(path, into)
    try:
        return output is not None and ngff.read_notes(output, "") is not None
    except (ValueError, OSError):  # what cannot be read is told when it is opened
        return False


def _output_of(path: str, into: str) -> str | None:
    """The store in a folder that a path is or lies in, whoever made it; None if there is none."""
    if stores.is_url(path) or stores.is_url(into):
        name = path.removeprefix(f"{into}/").split("/")[0]
        found = f"{into}/{name}" if path.startswith(f"{into}/") else None
    else:
        found, above, here = None, os.path.abspath(path), os.path.realpath(into)
        while found is None and above != os.path.dirname(above):
            one, above = above, os.path.dirname(above)
            found = one if os.path.realpath(above) == here else None
    return found if found is not None and nodes.is_store(found) else None


def _each(row: Item, series: str | int | None) -> list[Item]:
    """An image, or each of those that are in one file: of a plate, or of any if all are wanted."""
    asked = row.own.get("series", series)
    if asked not in (None, EVERY) or (asked is None and not _is_plate(row.input)):
        return [row]
    try:
        found = images.parts(row.input)
    except (ValueError, OSError):  # opening it says why
        found = []
    own = {name: value for name, value in row.own.items() if name != "series"}
    if not found:
        return [replace(row, own=own)]
    if row.output:
        raise InputError(f"{row.input}: expected no output of one name for {len(found)} images")
    return [replace(row, own={**own, "series": part.name}) for part in found]


def _is_plate(path: str) -> bool:
    try:
        found = groups.find(path) if nodes.is_store(path) else None
    except (ValueError, OSError):  # opening it says why
        return False
    return found is not None and found.kind in ("plate", "well")


def _once(items: Sequence[Item]) -> list[Item]:
    """Items without those that are given again."""
    found: dict[tuple[str, str], Item] = {}
    again: list[str] = []
    for item in items:
        path = item.input.rstrip("/")
        place = path if stores.is_url(path) else os.path.realpath(path)
        key = place, repr(sorted(item.own.items())) + item.output
        if key in found:
            again.append(item.title)
        found.setdefault(key, item)
    if again:
        warnings.warn(
            f"given more than once, and labeled once: {_shown(again)}", FileWarning, stacklevel=3
        )
    return list(found.values())


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _placed(items: Sequence[Item], into: str) -> list[Item]:
    """Items with the paths of their outputs, each of another name."""
    names = [_title(item) for item in items]
    for name, count in Counter(names).items():
        alike = [i for i, one in enumerate(names) if one == name]
        if count > 1 and not any(items[i].output for i in alike):
            for i, told in zip(alike, _told_apart([items[i] for i in alike]), strict=True):
                names[i] = told
    found = [
        replace(item, output=join(into, f"{n}{ENDING}"))
        for item, n in zip(items, names, strict=True)
    ]
    by_output: dict[str, list[Item]] = {}
    for item in found:
        by_output.setdefault(item.output, []).append(item)
    for output, several in by_output.items():
        if len(several) > 1:
            titles = _shown([one.title for one in several])
            raise InputError(
                f"{output}: expected one image for each output, got {titles}: name them in the "
                "column output of a table"
            )
        if _same_place(output, several[0].input):
            raise InputError(f"{output}: would be the input itself, choose another `into`")
    return found


def _same_place(path: str, other: str) -> bool:
    if stores.is_url(path) or stores.is_url(other):
        return path.rstrip("/") == other.rstrip("/")
    return os.path.realpath(path) == os.path.realpath(other)


def join(folder: str, name: str) -> str:
    """Path of what lies in a folder, or below a URL."""
    if stores.is_url(folder):
        return f"{folder}/{urllib.parse.quote(name)}"
    return os.path.join(folder, name)


def name_of(path: str) -> str:
    """The name of what `join` made a path of."""
    name = path.rstrip("/").rpartition("/")[2]
    return urllib.parse.unquote(name) if stores.is_url(path) else name


def _title(item: Item) -> str:
    """Name of an output: that of the table, or that of the image without its extensions."""
    if item.output:
        return item.output
    path = item.input.rstrip("/")
    _, inner = stores.split(path)
    series = str(item.own.get("series", ""))
    name = urllib.parse.unquote(pairing.stem(path)) if stores.is_url(path) else pairing.stem(path)
    text = "-".join(part for part in (name, *inner.split("/"), *series.split("/")) if part)
    # Zarr can make no store of a name that is not in UTF-8
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _told_apart(items: Sequence[Item]) -> list[str]:
    """Other names of images with one name: with those of their folders that differ, or suffixes."""
    names = [_title(item) for item in items]
    above = [PurePath(stores.split(i.input.rstrip("/"))[0]).parts[:-1][::-1] for i in items]
    for depth in range(max(map(len, above))):
        column = [parts[depth] if depth < len(parts) else "" for parts in above]
        if len(set(column)) > 1:
            names = [f"{c}-{n}" if c.strip("/") else n for c, n in zip(column, names, strict=True)]
        if len(set(names)) == len(names):
            return names
    ends = [_suffix(item) for item in items]
    return [f"{name}-{end}" if end else name for name, end in zip(names, ends, strict=True)]


def _suffix(item: Item) -> str:
    name = PurePath(stores.split(item.input.rstrip("/"))[0]).name
    return name[len(pairing.stem(item.input)) :].strip(".").replace(".", "-")


def partners(items: Sequence[Item], what: str, given: Iterable[str] | str) -> list[Item]:
    """Items with the file for each that belongs to it by its name, such as masks of a folder.

    Those that have one of their own keep it.

    Raises
    ------
    ValueError
        If an item has no partner or several, or a file none; names them.
    """
    found = pairing.find(str(given), drawn=True)
    lacking = [item for item in items if what not in item.own]
    advice = f"a table of inputs can name them in its column {what}"
    chosen = iter(pairing.partners([item.input for item in lacking], found, what, advice))
    return [
        item if what in item.own else replace(item, own={**item.own, what: next(chosen)})
        for item in items
    ]


def paired(items: Sequence[Item], choice: Mapping[str, Any]) -> tuple[list[Item], dict[str, Any]]:
    """Items with files of their own, and the other options, where a glob or folder names those."""
    found, rest = list(items), dict(choice)
    for what in PATHS:
        given = rest.get(what)
        if isinstance(given, str | os.PathLike) and _is_several(os.fspath(given)):
            found = partners(found, what, os.fspath(given))
            rest[what] = None
    return found, rest


def _is_several(text: str) -> bool:
    if stores.is_url(text) or text == TISSUE:
        return False
    if os.path.exists(text):
        return os.path.isdir(text) and not nodes.is_store(text)
    return glob.has_magic(text)
