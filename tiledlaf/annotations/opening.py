"""Files of annotations as label images and masks, which are rasterised where they are read."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import redaction
from ..errors import DamagedFile, InputError, TiledlafError
from ..files import image as image_files
from ..files import images, levels, nodes, stores
from ..files.image import FileWarning, Image, Levels, Reader, State, TimePoint
from ..files.lengths import MICROMETERS
from ..registry import Registry
from ..tiles import Box
from . import areas, shapes
from .areas import Rules
from .formats.coco import Coco
from .formats.geojson import GeoJson
from .formats.imagej import ImageJ
from .formats.napari import Napari
from .rasterize import Raster
from .shapes import Document, Format, Shape, Wanted

FORMATS: Registry[Format] = Registry(
    "tiledlaf.annotations",
    {"coco": Coco(), "geojson": GeoJson(), "imagej": ImageJ(), "napari": Napari()},
)
TISSUE = "tissue"  # instead of the path of a mask: what is found in the image itself


@dataclass(frozen=True)
class Painting:
    """How annotations become pixels.

    Attributes
    ----------
    brush : width of lines and points in micrometers, or in pixels of level 0 as in "5px"
    overlaps : which annotation wins where several overlap: the "smaller" one, the "later" one of
        the file, or names of classes with commas between them, first the one that always wins
    """

    brush: str | float | None = None
    overlaps: str = "smaller"

    def __post_init__(self) -> None:
        found = re.fullmatch(r"(\d+\.?\d*|\.\d+)(px)?", str(self.brush))
        if self.brush is not None and not (found and float(found[1])):
            raise InputError(
                f"expected `brush` in micrometers such as 10, or in pixels as in 5px, "
                f"got {self.brush}"
            )
        if not (isinstance(self.overlaps, str) and areas.wins(self.overlaps)):
            raise InputError(
                f"expected smaller, later or names of classes for `overlaps`, got {self.overlaps!r}"
            )


class LabelName(NamedTuple):
    """The class that a label value stands for, and its color (RRGGBB; "" for any)."""

    value: int
    name: str
    color: str = ""


class _Opened(NamedTuple):
    """A file's raster; names and colors of classes, and words.

    Values of the raster are places of classes from 1 on, and one more for what is not labeled; or
    numbers of annotations.
    """

    raster: Raster
    classes: list[tuple[str, str]]
    words: list[str]


@dataclass(frozen=True)
class Annotations(Reader):
    """A file of annotations as the label image or mask of an image.

    Attributes
    ----------
    stem : of the image's file name
    rules : what is wanted of the annotations
    names : the label values of classes; annotations of any other class are not labeled
    outside : the value of pixels outside of all annotations
    each : whether values are numbers of annotations from 1 on, instead of those of classes
    """

    stem: str
    rules: Rules
    names: tuple[LabelName, ...] = ()
    outside: int = 0
    each: bool = False

    name = "annotations"

    @property
    def dtype(self) -> str:
        """The type that holds all label values."""
        if self.each:
            return "int64"
        return np.min_scalar_type(max(self.outside, *(one.value for one in self.names), 0)).name

    def look(self, path: str, level: int, axes: str | None) -> Levels:
        """The grid of the image."""
        return Levels("", self.rules.axes, (self.rules.grid,), self.dtype)

    def open(self, path: str, name: str) -> _Opened:
        """The raster, which does not depend on the label values of classes."""
        stat = os.stat(path)
        bare = dataclasses.replace(self, names=(), outside=0)
        return _opened(path, (stat.st_mtime_ns, stat.st_size), bare)

    def read(self, array: _Opened, box: tuple[slice | int, ...]) -> np.ndarray:
        """Label values of a window."""
        window = tuple(slice(b, b + 1) if isinstance(b, int) else b for b in box)
        values = {one.name: one.value for one in self.names}
        table = [self.outside, *(values.get(name, 0) for name, _ in array.classes), 0]
        found = array.raster[window]
        if not self.each:
            found = np.array(table, self.dtype)[found]
        return found[tuple(0 if isinstance(b, int) else slice(None) for b in box)]

    def state(self, path: str, name: str) -> State:
        """Size and time of the file, and what else pixels depend on."""
        entries = dataclasses.asdict(self)
        # as of labels and masks from before these two, which they do not concern
        entries = {k: v for k, v in entries.items() if k not in ("outside", "each") or v}
        return [*nodes.chunk_state(path), (json.dumps(entries, sort_keys=True), 0, 0)]

    def occupied(self, path: str, name: str, window: Box) -> Box | None:
        """The bounds of the annotations within a window."""
        if self.outside:
            return window
        found: _Opened = image_files.opened(self, path, name)
        return found.raster.occupied(window)


@functools.lru_cache(maxsize=16)
def _opened(path: str, identity: tuple[int, int], reader: Annotations) -> _Opened:
    rules = reader.rules
    found = areas.areas(_shapes(path, reader.stem, rules.whole[-2:], identity), rules, path)
    ratio = levels.pixel_ratio(rules.whole[-2:], rules.grid[-2:])
    most = len(found.classes) + 1
    values: Sequence[int] = [number or most for number in found.numbers]
    if reader.each:
        values = range(1, len(found.numbers) + 1)
    raster = Raster(
        found.polygons,
        values,
        found.places,
        rules.grid,
        (ratio[0], ratio[1]),
        np.min_scalar_type(max(values)).name,
    )
    return _Opened(raster, found.classes, found.words)


@functools.lru_cache(maxsize=2)  # an image's labels and its mask may be in one file
def _shapes(path: str, stem: str, size: tuple[int, int], identity: tuple[int, int]) -> list[Shape]:
    """All annotations of an image in a file."""
    wanted = Wanted(stem, size)
    found: list[Shape] = []
    for document in documents(path):
        found += read(document, wanted)
    return found


def documents(path: str) -> list[Document]:
    """The file, or those that are packed in it."""
    return list(shapes.documents(path, _suffixes()))


def read(document: Document, wanted: Wanted) -> list[Shape]:
    """The annotations of an image in a file.

    Raises
    ------
    ValueError
        If it is damaged.
    """
    one = format_of(document)
    try:
        return one.read(document, wanted)
    except TiledlafError:
        raise
    except Exception as error:  # a damaged file may raise anything
        reason = shapes.cut(f"{type(error).__name__} {error}", 120)
        raise DamagedFile(f"{document.title}: expected {one.expects}, got {reason}") from None


def format_of(document: Document) -> Format:
    """The format of a file of annotations.

    Raises
    ------
    ValueError
        If it has none.
    """
    for one in FORMATS.values():
        if document.suffix in one.suffixes and one.sniff(document):
            return one
    raise InputError(
        f"{document.title}: expected annotations as GeoJSON, COCO JSON, ROIs of ImageJ or shapes "
        f"of napari, got a file ending {document.suffix!r}"
    )


def is_annotations(path: Any) -> bool:
    """Whether a path has the name of a file of annotations, and of no image."""
    if not isinstance(path, str | os.PathLike) or stores.is_url(path) or os.path.isdir(path):
        return False
    name = Path(path).name.lower().removesuffix(".gz")
    return name.endswith((*_suffixes(), ".zip")) and images.reader_of(path) is None


def _suffixes() -> frozenset[str]:
    return frozenset().union(*(one.suffixes for one in FORMATS.values()))


def holds_several(path: Any) -> bool:
    """Whether a file may hold the annotations of several images."""
    if not is_annotations(path) or not os.path.isfile(path):
        return False
    return all(format_of(document).several for document in documents(os.fspath(path)))


def open_annotations(
    path: str | os.PathLike[str],
    like: Image,
    painting: Painting = Painting(),
    *,
    mask: bool = False,
) -> Image:
    """Open a file of annotations as labels, or as the mask, of an image.

    Parameters
    ----------
    path : GeoJSON, COCO JSON, ROIs of ImageJ or shapes of napari; may be packed by gzip or zip
    like : the image, in whose level 0 annotations count their pixels
    painting : how wide lines are, and which annotation wins
    mask : 1 in any annotation, rather than a value for each class

    Returns
    -------
    Image
        With the grid of `like`. Values are 1, 2, ... for the classes in the order of the file;
        0 means not labeled.

    Raises
    ------
    ValueError
        If the file is damaged, or has no annotation of this image.

    Warns
    -----
    FileWarning
        Of annotations that are left out or mended.
    """
    path = os.fspath(path)
    redaction.check(path)
    count = len(like.grid)
    axes = "".join(a for a in "tzyx" if a in like.axes and a not in dict(like.fixed))[-count:]
    rules = Rules(
        axes,
        like.whole or like.grid,
        like.grid,
        like.fixed,
        _brush(painting.brush, like),
        painting.overlaps,
        mask,
    )
    reader = Annotations(shapes.stem(like.path), rules)
    try:
        found = reader.open(path, "")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file or folder") from None
    if found.words:
        warnings.warn(f"{path}: {'; '.join(found.words)}", FileWarning, stacklevel=2)
    named = [LabelName(value, *one) for value, one in enumerate(found.classes, 1)]
    return _image(path, dataclasses.replace(reader, names=tuple(named)), like)


def _image(path: str, reader: Annotations, like: Image) -> Image:
    time_point: TimePoint = "all" if "t" in reader.rules.axes else None
    made = image_files.make(path, reader, reader.look(path, 0, None), time_point=time_point)
    return dataclasses.replace(
        made, scale=like.scale, translation=like.translation, units=like.units, whole=like.whole
    )


def _brush(brush: str | float | None, like: Image) -> tuple[float, float] | None:
    """Width of lines and points in pixels of level 0, along y and x."""
    if brush is None:
        return None
    text = str(brush)
    if text.endswith("px"):
        return (float(text[:-2]),) * 2
    found = []
    whole = like.whole or like.grid
    for axis in (-2, -1):
        unit = MICROMETERS.get(like.units[axis] or "")
        if unit is None:
            raise InputError(
                f"{like.path}: the file does not say how large a pixel is: expected `brush` in "
                f"pixels, such as {text}px"
            )
        found.append(float(text) / (like.scale[axis] * unit * like.grid[axis] / whole[axis]))
    return found[0], found[1]


def check_painting(painting: Painting, *drawn: Image | None) -> None:
    """Refuse to say how annotations become pixels where there are none.

    Raises
    ------
    ValueError
        Names what is said.
    """
    default = Painting()
    said = [n for n in ("brush", "overlaps") if getattr(painting, n) != getattr(default, n)]
    if said and not any(one and isinstance(one.reader, Annotations) for one in drawn):
        named = " and ".join(f"`{name}`" for name in said)
        raise InputError(f"{named}: expected annotations, got none among labels and masks")


def as_mask(given: Any, like: Image, painting: Painting = Painting()) -> Image:
    """The mask of an image: annotations, or what `images.as_mask` takes."""
    if is_annotations(given):
        return open_annotations(given, like, painting, mask=True)
    return images.as_mask(given, like)
