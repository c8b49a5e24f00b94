"""Which labels, probabilities and masks belong to which image: by their names, or by a table."""

from __future__ import annotations

import functools
import glob
import os
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path, PurePath

from ..errors import InputError
from ..files import images, nodes, stores, texts
from ..files.image import FileWarning
from . import opening

# of what is no image of a file by itself, and what stands before or after the suffix of a format
WRAPPING = (".ome", ".zarr", ".zip", ".ozx", ".gz", ".h5", ".hdf5", ".n5", ".nii")
# what tools put before or after an image's name to name what belongs to it
KINDS = (
    r"(cp[ _-]?)?masks?|labels?|lbls?|seg(mentation)?s?|simple[ _-]segmentation|gt|"
    r"(ground[ _-]?)?truth|ann(otation)?s?|prob(abilitie)?s?|images?|img|raw"
)
AFTER = re.compile(rf"[ _.-]+({KINDS})$")
BEFORE = re.compile(rf"^({KINDS})[ _.-]+")
SHOWN = 5  # files that a message names
WORDS = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False, "": False}


def find(
    pattern: str | os.PathLike[str], drawn: bool = False, but: Collection[str] = ()
) -> list[str]:
    """Paths of a glob, a folder, or a single file or store, with numbers sorted by value.

    Of a folder or a glob, files of operating systems are left out, and with a word those of no
    known format.

    Parameters
    ----------
    drawn : whether annotations are looked for where there are no images
    but : real paths of files and folders that are passed over

    Raises
    ------
    ValueError
        If there are none.
    """
    text = os.fspath(pattern)
    if os.path.isdir(text) and not nodes.is_store(text):
        every = [os.path.join(text, name) for name in os.listdir(text)]
        found = _known(text, _others(every, but), drawn)
    elif _exists(text):
        found = [text]
    else:
        every = _others(glob.glob(text, recursive=True), but)
        # where all are unknown, opening the first one says what is expected
        found = _known(text, every, drawn) or every
    if not found:
        raise InputError(f"{text}: expected images, found none")
    return sorted(found, key=natural)


def _others(paths: Sequence[str], but: Collection[str]) -> list[str]:
    return [path for path in paths if not but or os.path.realpath(path) not in but]


def _exists(path: str) -> bool:
    """Whether there is such a file, or a file that the path leads into."""
    return stores.is_url(path) or os.path.exists(stores.split(path)[0])


def _known(where: str, paths: Iterable[str], drawn: bool) -> list[str]:
    """The images, or else the annotations, among these paths."""
    paths = [path for path in paths if not _passed_over(os.path.basename(path.rstrip("/")))]
    readers = {path: images.reader_of(path) for path in paths}
    found = [path for path, one in readers.items() if one is not None and one.pictures]
    found = found or [path for path, one in readers.items() if one is not None]
    found = found or [path for path in paths if drawn and opening.is_annotations(path)]
    others = sorted(set(paths) - set(found))
    if found and others:
        names = _listed([os.path.basename(path) for path in others])
        warnings.warn(
            f"{where}: left out what is no image of a known format: {names}",
            FileWarning,
            stacklevel=4,
        )
    return found


def _passed_over(name: str) -> bool:
    return name.startswith(".") or stores.is_stray(name)


def natural(path: str) -> list[int | str]:
    """A key that sorts numbers in names by their value."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", path)]


def _listed(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
    return ", ".join(paths[:SHOWN]) + more


def without(images_: Sequence[str], others: Iterable[str]) -> list[str]:
    """The images that are not given as something else, such as masks in the same folder."""
    taken = {_absolute(path) for path in others}
    left = [path for path in images_ if _absolute(path) in taken]
    if len(left) in (0, len(images_)):
        return list(images_)
    warnings.warn(
        f"no images to learn from, since they are given as what belongs to them: {_listed(left)}",
        FileWarning,
        stacklevel=4,
    )
    return [path for path in images_ if path not in left]


def _absolute(path: str) -> str:
    return path if stores.is_url(path) else os.path.realpath(path)


def partners(
    images_: Sequence[str],
    others: Sequence[str],
    what: str,
    advice: str = "`pairs` can name a CSV file of pairs",
) -> list[str]:
    """The file that belongs to each image, by names.

    One image and one file are a pair whatever their names. Of several, these must agree, in this
    order: names without extensions; without what tools add, such as ``_mask``; with folders, where
    names repeat; and without what each list has in common, numbers compared by value.

    Parameters
    ----------
    what : what the files are, for messages
    advice : what else can be done, for messages

    Raises
    ------
    ValueError
        If an image has no partner or several, or a file none; names them.
    """
    if len(images_) == len(others) == 1:
        return list(others)
    sure: dict[str, str] = {}
    best = _Match({}, images_, others, [])
    for number, keys in enumerate(KEYS):
        match = _matched(images_, others, keys)
        if match.complete:
            if any(match.found[image] != other for image, other in sure.items()):
                break  # what is alike in more of the name says otherwise
            if number >= LOOSE:
                _tell_numbers(images_, others, match.found)
            return [match.found[image] for image in images_]
        sure |= match.found
        if number < LOOSE or len(match.found) > len(best.found):
            best = max(best, match, key=lambda one: (len(one.found), len(one.repeated)))
    raise InputError(f"{_refusal(images_, others, what, best)} ({advice})")


@dataclass(frozen=True)
class _Match:
    """Images with exactly one file of the same key, and what is left on both sides."""

    found: Mapping[str, str]
    images: Sequence[str]
    others: Sequence[str]
    repeated: Sequence[str]

    @property
    def complete(self) -> bool:
        return bool(self.found) and not (self.images or self.others or self.repeated)


Keys = Callable[[Sequence[str]], list[str]]


def _matched(images_: Sequence[str], others: Sequence[str], keys: Keys) -> _Match:
    ours, theirs = keys(images_), keys(others)
    counts = Counter(ours), Counter(theirs)
    common = {k for k, n in counts[0].items() if n == 1 and counts[1][k] == 1}
    by_key = dict(zip(theirs, others, strict=True))
    repeated = {k for count in counts for k, n in count.items() if n > 1}
    rows = [(list(zip(ours, images_, strict=True))), list(zip(theirs, others, strict=True))]
    return _Match(
        {path: by_key[k] for k, path in rows[0] if k in common},
        [path for k, path in rows[0] if k not in common | repeated],
        [path for k, path in rows[1] if k not in common | repeated],
        [path for row in rows for k, path in row if k in repeated],
    )


def _refusal(images_: Sequence[str], others: Sequence[str], what: str, match: _Match) -> str:
    if len(images_) != len(others):
        text = f"expected {what} for {len(images_)} images, got {len(others)}"
    else:
        text = f"expected {what} of the {len(images_)} images' names"
    for files, word in (
        (match.images, f"no {what} for"),
        (match.others, "no image for"),
        (match.repeated, "several of one name:"),
    ):
        if files:
            text += f"; {word} {_listed(files)}"
    return text


def _tell_numbers(images_: Sequence[str], others: Sequence[str], found: Mapping[str, str]) -> None:
    """Say how files were paired where what both lists' names have in common has other numbers."""
    ours, theirs = (
        set(re.findall(r"[0-9]+", "".join(map(str, _ends([_tokens(stem(p)) for p in paths])))))
        for paths in (images_, others)
    )
    if ours and theirs and {*map(int, ours)} != {*map(int, theirs)}:
        warnings.warn(
            f"paired by what differs in their names: {images_[0]} with {found[images_[0]]}",
            FileWarning,
            stacklevel=4,
        )


# Keys of files, from those that say most to those that say least


def stem(path: str) -> str:
    """The name of a file without its extensions."""
    name = PurePath(stores.split(path.rstrip("/"))[0]).name
    last = True
    while True:
        suffix = next((s for s in _extensions(last) if name.lower().endswith(s)), None)
        if suffix is None or len(suffix) >= len(name):
            return name
        name, last = name[: -len(suffix)], False


@functools.cache
def _extensions(last: bool) -> tuple[str, ...]:
    """All that may stand at the end of a name, or before another one."""
    readers = [one for one in images.FORMATS.values() if one.pictures or last]
    known = {suffix for reader in readers for suffix in reader.suffixes}
    drawn = {suffix for one in opening.FORMATS.values() for suffix in one.suffixes}
    return (*known, *drawn, *WRAPPING)


def _folded(text: str) -> str:
    """Equal for names that differ in case, or in how a file system composes letters."""
    return unicodedata.normalize("NFC", text).casefold()


def _bare(text: str) -> str:
    """A name without what tools add to name its kind."""
    while AFTER.search(text):
        text = AFTER.sub("", text)
    return BEFORE.sub("", text)


def _names(paths: Sequence[str]) -> list[str]:
    return [_folded(stem(path)) for path in paths]


def _below(paths: Sequence[str]) -> list[str]:
    """Names with their folders, but without folders and names that all have."""
    parts = [(*PurePath(path.rstrip("/")).parts[:-1], stem(path)) for path in paths]
    if len({len(row) for row in parts}) > 1 or len(parts) < 2:
        return [_folded("/".join(row)) for row in parts]
    kept = [i for i, column in enumerate(zip(*parts, strict=True)) if len(set(column)) > 1]
    return [_folded("/".join(_bare(_folded(row[i])) for i in kept)) for row in parts]


def _tokens(text: str) -> list[int | str]:
    return [int(t) if t.isdecimal() else t for t in re.findall(r"[0-9]+|[^0-9]", text)]


def _shared(rows: Sequence[Sequence[int | str]]) -> int:
    """How many tokens all rows begin with."""
    least = min(map(len, rows))
    return next((i for i in range(least) if len({row[i] for row in rows}) > 1), least)


def _cut(rows: Sequence[list[int | str]]) -> tuple[int, int]:
    """How many tokens all rows begin and end with, without counting one twice."""
    first = _shared(rows)
    return first, _shared([row[first:][::-1] for row in rows])


def _ends(rows: Sequence[list[int | str]]) -> list[int | str]:
    """What all rows begin and end with, as text with numbers apart."""
    first, last = _cut(rows)
    return [*rows[0][:first], " ", *rows[0][len(rows[0]) - last :]]


def _differing(texts: Sequence[str]) -> list[str]:
    """Texts without what all begin and end with, and with numbers by value."""
    rows = [_tokens(_bare(text)) for text in texts]
    if len(rows) < 2:
        return list(texts)
    first, last = _cut(rows)
    return ["|".join(map(str, row[first : len(row) - last])) for row in rows]


KEYS: tuple[Keys, ...] = (
    lambda paths: [stem(path) for path in paths],
    _names,
    lambda paths: list(map(_bare, _names(paths))),
    _below,
    lambda paths: list(map(_bare, _below(paths))),
    lambda paths: _differing(_names(paths)),
    lambda paths: _differing(_below(paths)),
)
LOOSE = 5  # from here on, keys are what differs between the names of a list


# A table of pairs


@dataclass(frozen=True)
class Row:
    """A row of a table of pairs."""

    images: str
    labels: str
    probabilities: str | None = None
    mask: str | None = None
    validation: bool = False


COLUMNS = tuple(field.name for field in fields(Row))


def read_pairs(path: str | os.PathLike[str]) -> list[Row]:
    """Read a CSV file of pairs, with the columns images, labels, probabilities, mask, validation.

    The last three may be missing; an empty cell of mask means none; validation is yes or no.
    Paths are relative to the file's folder, or else to the current one.

    Raises
    ------
    ValueError
        If columns, cells or files are missing or unknown.
    """
    path = os.fspath(path)
    needed, missing = {"images", "labels"}, "the last three may be missing"
    names, rows = texts.read_columns(path, COLUMNS, needed, missing, "images and labels")
    found = [_row(where, Path(path).parent, names, cells) for where, cells in rows]
    again = [row for row, count in Counter(found).items() if count > 1]
    if again:
        raise InputError(f"{path}: expected each pair once, got {again[0].images} again")
    return found


def _row(where: str, folder: Path, names: Sequence[str], cells: Sequence[str]) -> Row:
    if len(cells) != len(names):
        raise InputError(f"{where}: expected {len(names)} cells, got {len(cells)}")
    given = dict(zip(names, cells, strict=True))
    word = given.pop("validation", "").lower()
    if word not in WORDS:
        raise InputError(f"{where}: expected yes or no for validation, got {word!r}")
    missing = [name for name, cell in given.items() if not cell and name != "mask"]
    if missing:
        raise InputError(f"{where}: expected a path for {missing[0]}, got an empty cell")
    paths = {
        name: _path(where, folder, name, cell) if cell else None for name, cell in given.items()
    }
    return Row(**paths, validation=WORDS[word])  # type: ignore[arg-type]


def beside(folder: Path, cell: str) -> str:
    """A path in a table: in the table's folder, or else in the current one; there need be none."""
    paths = [cell] if stores.is_url(cell) else [str(folder / cell), cell]
    return next((path for path in paths if _exists(path)), paths[0])


def _path(where: str, folder: Path, name: str, cell: str) -> str:
    found = beside(folder, cell)
    if _exists(found):
        return found
    place = "" if Path(cell).is_absolute() else f" in {folder} or in the current folder"
    raise InputError(f"{where}: expected a file for {name}, found no {cell}{place}")
