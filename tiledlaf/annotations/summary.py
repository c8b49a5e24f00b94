"""What a file of annotations holds, as lines of text."""

from __future__ import annotations

import zipfile
from collections import Counter
from pathlib import Path

from ..errors import DamagedFile
from . import opening, shapes
from .shapes import Document, Shape, Wanted

SHOWN = 16  # most images of a file to list


def lines(path: str) -> list[str]:
    """Lines on the annotations in a file: how many of which class and kind, for each image.

    Raises
    ------
    ValueError
        If it is none, or is damaged.
    """
    found: list[tuple[str, list[Shape]]] = []
    for document in opening.documents(path):
        kind = opening.format_of(document)
        if not kind.several:
            name = "" if document.title == path else f"{document.name}: "
            given = opening.read(document, Wanted(Path(path).stem, (0, 0)))
            found += [(name, given)]
            continue
        found += [(f"{one.stem}: ", opening.read(document, one)) for one in _images(document)]
    if all(len(given) == 1 for _, given in found):  # such as the files of ROIs in a zip
        found = [("", [one for _, given in found for one in given])]
    listed = [f"  {name}{_counts(given)}" for name, given in found[:SHOWN]]
    if len(found) > SHOWN:
        listed.append(f"  and {len(found) - SHOWN} more images")
    return [f"{path}: annotations", *listed]


def is_packed(path: str) -> bool:
    """Whether a zip holds files of annotations, rather than a model's arrays."""
    with zipfile.ZipFile(path) as archive:
        return not any(name.endswith(".npy") for name in archive.namelist())


def _images(document: Document) -> list[Wanted]:
    """The images that a file of several names."""
    try:
        return [
            Wanted(shapes.stem(one["file_name"]), (int(one["height"]), int(one["width"])))
            for one in document.json["images"]
        ]
    except Exception as error:  # a damaged file may raise anything
        raise DamagedFile(
            f"{document.title}: expected images with file_name, height and width, got "
            f"{type(error).__name__} {shapes.cut(str(error))}"
        ) from None


def _counts(given: list[Shape]) -> str:
    counts = Counter(
        (one.name or "without a class") + f" ({one.kind})" * (one.kind != "annotation")
        for one in given
    )
    return ", ".join(f"{n} {name}" for name, n in counts.items()) or "none"
