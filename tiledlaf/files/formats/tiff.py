"""TIFF: OME-TIFF, ImageJ's, slides, and plain ones."""

from __future__ import annotations

import logging
import math
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...errors import DamagedFile, InputError, in_a_line
from .. import headers, image, nodes
from ..channels import RGB, Channel
from ..image import SPATIAL, FileWarning, Levels, Part, Reader

WHITE, COLOR, PALETTE, INKS, YCBCR = 0, 2, 3, 5, 6  # photometric interpretations
JPEG = (6, 7)  # compressions whose decoder turns YCbCr into RGB
SHOWN = 3  # most lines on what is missing or damaged in a file
# colors whose samples are named, since they are read as stored
NAMED = {
    INKS: ("CMYK", ("cyan", "magenta", "yellow", "black")),
    8: ("CIELAB", ("L", "a", "b")),
    9: ("ICC L*a*b*", ("L", "a", "b")),
}


@dataclass(frozen=True)
class Tiff(Reader):
    """A level of a series of a TIFF, read by tifffile; None: the largest series.

    `labels` says whether palette indices are read as they are, rather than as colors.
    """

    series: int | None = None
    labels: bool = False

    name = "tiff"
    suffixes = frozenset({".tif", ".tiff", ".btf", ".svs", ".ndpi", ".scn", ".qptiff", ".bif"})
    lossy = True

    def look(self, path: str, level: int, axes: str | None) -> Levels:
        """Shapes of the levels, channels, and pixel sizes where the header gives them."""
        with _opened(path) as file:
            number = _largest(path, file) if self.series is None else self.series
            series = file.series[number]
            shapes = [tuple(s.shape) for s in series.levels]
            image.check_level(path, level, len(shapes))
            page = series.keyframe
            image.check_piece(path, math.prod(page.chunks) * page.dtype.itemsize)
            letters, table = series.axes, self._table(series)
            self._say_values(path, series.keyframe)
            if table is not None:
                letters, shapes = f"{letters}S", [(*shape, 3) for shape in shapes]
            letters = axes or _letters(path, letters, shapes[0], series.kind)
            image.check_axes(path, letters, shapes[0])
            count = shapes[0][letters.index("c")] if "c" in letters else 1
            shown, color = _shown(path, file, series, number, count, table is not None)
            sizes = headers.pixel_sizes(file, series, number)
            dtype = series.dtype if table is None else table.dtype
        return Levels(
            f"{number}/{level}" if number else str(level),
            letters,
            shapes[level:],
            dtype,
            [
                sizes.get(a, 1.0) * (f / n if a in SPATIAL else 1)
                for a, f, n in zip(letters, shapes[0], shapes[level], strict=True)
            ],
            None,
            ["micrometer" if a in sizes else None for a in letters],
            shapes[0],
            shown,
            color,
        )

    def _table(self, series: Any) -> np.ndarray | None:
        """Colors of the palette, (n, 3) uint8, where pixels are indices of colors."""
        page = series.keyframe
        if page.photometric != PALETTE or page.colormap is None or self.labels:
            return None
        colors = np.asarray(page.colormap).T
        return (colors if _is_shallow(colors) else colors >> 8).astype(np.uint8)

    def _white(self, page: Any) -> int | None:
        """The number that means black where 0 is white; None where numbers are read as stored."""
        if page.photometric != WHITE or page.dtype.kind not in "ub" or self.labels:
            return None
        return int(2**page.bitspersample - 1)

    def _say_values(self, path: str, page: Any) -> None:
        """Tell of numbers that are read otherwise than the file says they are shown."""
        if page.photometric == WHITE and self._white(page) is None:
            what = "label values" if self.labels else f"{page.dtype} pixels"
            image.say(f"{path}: it shows 0 as white, but {what} are read as stored")
        paletted = page.photometric == PALETTE and page.colormap is not None and not self.labels
        if paletted and _is_shallow(np.asarray(page.colormap)):
            image.say(f"{path}: its palette has no number above 255, so its colors count as 8 bits")

    def open(self, path: str, name: str) -> Any:
        """The level as a Zarr array, which decodes only what is read."""
        import tifffile

        *before, level = name.split("/")
        number = int(before[0]) if before else 0
        with _heard():  # `look` tells of it
            file = tifffile.TiffFile(path)
            series = file.series[number]
        array = nodes.open_foreign(series.aszarr(level=int(level)))
        weakref.finalize(array, file.close)
        table, white = self._table(series), self._white(series.keyframe)
        return array if table is None and white is None else _Shown(array, table, white)

    def as_labels(self, path: str) -> tuple[Reader, str | None]:
        """Palette indices are labels; three axes without names are z, y, x."""
        with _opened(path) as file:
            series = file.series[_largest(path, file) if self.series is None else self.series]
            unnamed = bool(set(series.axes) - set("TCZYXS"))
            volume = unnamed and len(series.shape) == 3
            return replace(self, labels=True), "zyx" if volume else None

    def parts(self, path: str) -> list[Part]:
        """The series of the file, if there are several."""
        with _opened(path) as file:
            found = [
                Part(str(n), s.name, s.axes.replace("S", "C").lower(), tuple(s.shape), str(s.dtype))
                for n, s in enumerate(file.series)
            ]
        return found if len(found) > 1 else []

    def choose(self, path: str, series: str) -> Reader:
        """The reader of a series, by its number or name."""
        return replace(self, series=image.part_number(path, self.parts(path), series))


@dataclass(frozen=True)
class _Shown:
    """A level whose numbers are indices of a palette, or 0 for white.

    Attributes
    ----------
    table : colors of the indices, or None
    white : number that means black, or None
    """

    array: Any
    table: np.ndarray | None
    white: int | None

    def __getitem__(self, box: Any) -> np.ndarray:
        if self.table is not None:
            return np.take(self.table, self.array[box[:-1]], axis=0)[..., box[-1]]
        stored = np.asarray(self.array[box])
        return ~stored if stored.dtype == bool else (stored.dtype.type(self.white) - stored)


def _is_shallow(colors: np.ndarray) -> bool:
    """Whether a palette is one of 8 bits, as some programs write it, not of the standard's 16."""
    return bool(0 < colors.max() < 256)


@contextmanager
def _heard() -> Iterator[list[str]]:
    """What tifffile logs meanwhile about missing or damaged parts."""
    import tifffile

    told: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    logger = tifffile.logger()
    logger.addHandler(handler)
    try:
        yield told
    finally:
        logger.removeHandler(handler)


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    """A file of tifffile; what it logs becomes a warning."""
    import tifffile

    with _heard() as told:
        try:
            with tifffile.TiffFile(path) as file:
                headers.check_planes(path, file.ome_metadata or "")
                if not file.series:
                    raise InputError(f"{path}: expected an image in this TIFF, found none")
                yield file
        except (InputError, DamagedFile, FileWarning):
            raise
        except Exception as error:  # a damaged file may raise anything
            reason = in_a_line(error)
            raise DamagedFile(f"{path}: expected a TIFF image, got {reason}") from None
    lines = [line.split("> ", 1)[-1] for line in dict.fromkeys(told)]
    for line in lines[:SHOWN]:
        image.say(f"{path}: {line}")
    if len(lines) > SHOWN:
        image.say(f"{path}: and {len(lines) - SHOWN} other things of this kind")


def _largest(path: str, file: Any) -> int:
    """The number of the series with the most pixels in a plane; says that there are others."""
    areas = [
        s.shape[s.axes.index("Y")] * s.shape[s.axes.index("X")] if {"Y", "X"} <= set(s.axes) else 0
        for s in file.series
    ]
    return image.largest(path, [s.name for s in file.series], [s.shape for s in file.series], areas)


def _letters(path: str, named: str, shape: tuple[int, ...], kind: str) -> str:
    """The axes that the file names; those of pages without a name have to be asked for."""
    letters = named.replace("S", "C").lower()
    unknown = [n for n, a in zip(shape, letters, strict=True) if a not in "tczyx"]
    if len(set(letters)) < len(letters):
        raise InputError(f"{path}: expected one channel axis, got the axes {named} ({shape})")
    if not unknown:
        return letters
    if len(shape) == 3:
        raise InputError(
            f"{path}: its {unknown[0]} pages may be planes, channels or time points, which it does "
            "not say: name the axes with `axes` zyx, cyx or tyx"
        )
    return image.guess_axes(shape, path)


def _shown(
    path: str, file: Any, series: Any, number: int, count: int, paletted: bool
) -> tuple[tuple[Channel, ...], bool]:
    """How the channels are shown, and whether they are red, green and blue."""
    page = series.keyframe
    kind, samples = page.photometric, page.samplesperpixel
    _say_turned(path, page)
    if paletted:
        return (), True
    if kind == YCBCR and page.compression not in JPEG:
        raise InputError(f"{path}: expected RGB or gray pixels, got YCbCr ones: convert them first")
    if kind in NAMED and samples >= len(NAMED[kind][1]):
        what, names = NAMED[kind]
        image.say(f"{path}: {what} pixels are read as stored")
        inks = tuple(Channel(name) for name in names)
        return _with_alpha(path, list(inks), page, count) or inks, False
    color = kind in (COLOR, YCBCR) and samples >= 3
    plain = list(RGB if color else [Channel("gray")])
    found = _with_alpha(path, plain, page, count)
    return found or (() if color else headers.channels(file, series, number, count)), color


def _with_alpha(path: str, plain: list[Channel], page: Any, count: int) -> tuple[Channel, ...]:
    """The channels and those of the extra samples, some of which are alpha; none without extra."""
    extra = [int(kind) for kind in page.extrasamples]
    if not extra or len(plain) + len(extra) != count:
        return ()
    if extra == [0]:
        image.say(
            f"{path}: the file does not say what its channel {len(plain)} is: it is read as data; "
            "where it is alpha, leave it out with `channels`"
        )
    return (*plain, *(Channel("alpha", alpha=True) if n in (1, 2) else Channel() for n in extra))


def _say_turned(path: str, page: Any) -> None:
    tag = page.tags.get("Orientation")
    if tag is not None and tag.value not in (0, 1):
        image.say(f"{path}: its orientation tag says {tag.value}, but pixels are read as stored")
