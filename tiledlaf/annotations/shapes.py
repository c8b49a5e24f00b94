"""Annotations as shapes of a class, and the formats that they are read from.

Coordinates count pixels of level 0 along x and y; pixel (0, 0) covers [0, 1) x [0, 1).
"""

from __future__ import annotations

import functools
import gzip
import io
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, ClassVar, Protocol

import numpy as np

from ..errors import DamagedFile, InputError
from ..files import texts

# what a packed file may unpack to: so many times its size, and these bytes besides
UNPACKED, FREE = 100, 2**26
MOST = 2.0**31  # a coordinate beyond it is no pixel


@dataclass(frozen=True)
class Shape:
    """One annotation.

    Attributes
    ----------
    geometry : of shapely
    name : of its class; None without one
    color : RRGGBB of its class; "" where the file does not say it
    z, t : its plane and time point; None where the file does not say them
    kind : "annotation", or what else the file calls it, such as "detection" or "cell"
    """

    geometry: Any
    name: str | None = None
    color: str = ""
    z: int | None = None
    t: int | None = None
    kind: str = "annotation"


@dataclass(frozen=True)
class Document:
    """A file of annotations, or one of those that are packed in it.

    Attributes
    ----------
    path : of the file
    name : of the packed file, or of the file itself
    data : bytes, not compressed
    """

    path: str
    name: str
    data: bytes

    @property
    def suffix(self) -> str:
        """Of its name, in lower case."""
        return PurePosixPath(self.name).suffix.lower()

    @property
    def title(self) -> str:
        """How messages call it."""
        inside = self.name != Path(self.path).name.removesuffix(".gz")
        return f"{self.path}: {self.name}" if inside else self.path

    def text(self) -> str:
        """The file as text.

        Raises
        ------
        ValueError
            If it is not UTF-8.
        """
        try:
            return self.data.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise DamagedFile(f"{self.title}: expected text in UTF-8") from None

    @functools.cached_property
    def json(self) -> Any:
        """The file as JSON.

        Raises
        ------
        ValueError
            If it is not JSON.
        """
        text = self.text()
        try:
            return texts.parsed(text)
        except ValueError as error:
            reason = cut(str(error))
            raise DamagedFile(f"{self.title}: expected GeoJSON or COCO JSON, {reason}") from None


@dataclass(frozen=True)
class Wanted:
    """The image that annotations are wanted of.

    Attributes
    ----------
    stem : name of its file without suffixes
    size : rows and columns of level 0
    """

    stem: str
    size: tuple[int, int]


class Format(Protocol):
    """A format of annotations.

    Attributes
    ----------
    suffixes : of its files, in lower case
    several : whether one file may hold the annotations of several images
    expects : what its files are, for messages
    """

    suffixes: ClassVar[frozenset[str]]
    expects: ClassVar[str] = "annotations"
    several: ClassVar[bool] = False

    def sniff(self, document: Document) -> bool:
        """Whether a document, whose suffix is one of the format's, has this format."""
        ...

    def read(self, document: Document, wanted: Wanted) -> list[Shape]:
        """All annotations of the image.

        Raises
        ------
        ValueError
            If the document is damaged, or not of this image.
        """
        ...


def documents(path: str, suffixes: frozenset[str]) -> list[Document]:
    """The file itself, or what is packed in it and has one of the suffixes.

    Raises
    ------
    ValueError
        If it is missing or damaged.
    """
    try:
        data = Path(path).read_bytes()
        name = Path(path).name.removesuffix(".gz")  # browsers unpack what they download
        if data[:2] == b"\x1f\x8b":
            with gzip.open(io.BytesIO(data)) as packed:
                data = _bounded(packed, len(data))
        if data[:2] != b"PK":
            return [Document(path, name, data)]
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            found = [
                Document(path, member, _bounded(archive.open(member), len(data)))
                for member in archive.namelist()
                if PurePosixPath(member).suffix.lower() in suffixes
                and not PurePosixPath(member).name.startswith(".")
            ]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file or folder") from None
    except IsADirectoryError:
        raise InputError(f"{path}: expected a file of annotations, got a folder") from None
    except OSError as error:
        if not isinstance(error, gzip.BadGzipFile):
            raise
        raise _damaged(path, error) from None
    except Exception as error:  # what a damaged archive raises is not said
        raise _damaged(path, error) from None
    if not found:
        raise InputError(
            f"{path}: expected annotations in it ({', '.join(sorted(suffixes))}), found none"
        )
    return found


def _bounded(file: gzip.GzipFile | IO[bytes], stored: int) -> bytes:
    """The content of what is packed into `stored` bytes, unless it is a bomb."""
    most = UNPACKED * stored + FREE
    data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"unpacks to more than {most} bytes")
    return data


def _damaged(path: str, error: Exception) -> DamagedFile:
    return DamagedFile(f"{path}: this file cannot be unpacked, {cut(str(error))}")


def stem(path: str | os.PathLike[str]) -> str:
    """Name of a file without its suffixes, such as "a" of a.ome.tiff."""
    name = os.fspath(path).replace("\\", "/").rstrip("/").rpartition("/")[2]
    return PurePosixPath(name).stem.removesuffix(".ome")


def points(given: Any, where: str) -> np.ndarray:
    """Positions as (n, 2) float64.

    Raises
    ------
    ValueError
        If they are not numbers that could be pixels.
    """
    try:
        found = np.asarray(given, np.float64)
    except (TypeError, ValueError, OverflowError):
        found = np.zeros(())
    if found.size == 0 and found.ndim == 1:
        return np.zeros((0, 2))
    if found.ndim != 2 or found.shape[1] < 2:
        raise InputError(f"{where}: expected positions as rows of x and y, got {shown(given)}")
    if not (np.abs(found) < MOST).all():
        bad = found[~(np.abs(found) < MOST)][0]
        raise InputError(f"{where}: expected coordinates that count pixels, got {bad}")
    return found[:, :2]


def polygon(rings: Sequence[np.ndarray]) -> Any:
    """The polygon of an outer ring and of holes; empty if the outer ring has no area."""
    import shapely

    if not rings or len(rings[0]) < 3:
        return shapely.Polygon()
    return shapely.Polygon(rings[0], [ring for ring in rings[1:] if len(ring) >= 3])


def line(positions: np.ndarray) -> Any:
    """A line; empty if it has no length."""
    import shapely

    return shapely.LineString(positions) if len(positions) > 1 else shapely.LineString()


def ellipse(corners: np.ndarray) -> Any:
    """The ellipse within a rectangle, whose corners are given in turn, (4, 2)."""
    import shapely
    from shapely import affinity

    x, y = corners.mean(axis=0)
    (a, c), (b, d) = (corners[1] - corners[0]) / 2, (corners[3] - corners[0]) / 2
    circle = shapely.Point(0, 0).buffer(1, quad_segs=32)
    return affinity.affine_transform(circle, [a, b, c, d, x, y])


def cut(text: str, most: int = 60) -> str:
    """A text in one line, as far as a message shows it."""
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 3] + "..."


def shown(given: Any) -> str:
    """What a message says of what was not expected."""
    if isinstance(given, Mapping):
        return f"an object with {cut(', '.join(map(str, list(given)[:6]))) or 'nothing'}"
    try:
        return cut(repr(given))
    except (RecursionError, ValueError):  # nested deeply, or a number of thousands of digits
        return "something too long to show"
