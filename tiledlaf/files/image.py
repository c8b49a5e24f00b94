"""One level of an image, and the pixel windows read from it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from ..errors import DamagedFile, InputError, TiledlafError, TiledlafWarning
from ..tiles import Box
from . import nodes, numbers, stores, units
from .channels import Channel

SPATIAL = "zyx"
# bytes to decode at once: these, as in a chunk of Zarr, since a blank mask of a slide is packed to
# a thousandth, and so many for each byte of the file
PIECE, PACKED = 2**32, 64
State = list[tuple[str, int, int | str]]  # (name, size, time or ETag) of what is stored
TimePoint = int | Literal["all"] | None  # None: the only one


class FileWarning(TiledlafWarning):
    """Something about a file that the user should know: what was chosen, dropped or is missing."""


@dataclass(frozen=True)
class Part:
    """One of the images in a file: a series, a scene, or a field of a plate.

    Attributes
    ----------
    name : number or path to choose it by
    title : what the file calls it
    axes, shape, dtype : as stored
    """

    name: str
    title: str
    axes: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Levels:
    """What a format says about a file: one level of an image, and the coarser ones.

    Attributes
    ----------
    name : name of the level within the file
    axes : one letter of "tczyx" for each axis as stored; "" where the file does not name them
    shapes : of this level and the coarser ones, as stored
    dtype : of the pixels
    scale, translation, units : one value for each axis as stored, or None
    whole : shape of level 0 as stored, or None if `shapes` begins with it
    channels : one for each channel, or none at all
    color : whether the channels are red, green and blue
    """

    name: str
    axes: str
    shapes: Sequence[tuple[int, ...]]
    dtype: Any
    scale: Sequence[float] | None = None
    translation: Sequence[float] | None = None
    units: Sequence[str | None] | None = None
    whole: tuple[int, ...] | None = None
    channels: Sequence[Channel] = ()
    color: bool = False


class Reader(Protocol):
    """An image format, as a small frozen value that can be compared and sent to workers.

    A format implements `look` and `open`; the other methods have defaults.

    Attributes
    ----------
    name : shown to users
    suffixes : of its files, in lower case
    lossy : whether pixels need far more space when they are stored losslessly
    pictures : whether files are images, and not only what belongs to one
    stored : whether pixels are in a file rather than in this process's memory
    chunked : whether pixels are in Zarr chunks, which can be copied as they are
    """

    name: ClassVar[str]
    suffixes: ClassVar[frozenset[str]] = frozenset()
    lossy: ClassVar[bool] = False
    pictures: ClassVar[bool] = True
    stored: ClassVar[bool] = True
    chunked: ClassVar[bool] = False

    def look(self, path: str, level: int, axes: str | None) -> Levels:
        """What the file holds, without reading pixels; `axes` are those the user named.

        Raises
        ------
        ValueError
            If the file is damaged or has no such level.
        """
        ...

    def open(self, path: str, name: str) -> Any:
        """The array of a level: what `read` takes, or anything that can be sliced as in NumPy."""
        ...

    def sniff(self, path: str) -> bool:
        """Whether a path has this format."""
        if stores.is_url(path) or os.path.isdir(path):
            return False
        return Path(path).suffix.lower() in self.suffixes

    def read(self, array: Any, box: tuple[slice | int, ...]) -> np.ndarray:
        """Pixels of a box of the array as stored."""
        return np.asarray(array[box])

    def state(self, path: str, name: str) -> State:
        """Names, sizes and times of what is stored, for fingerprints."""
        return nodes.chunk_state(path)

    def paths(self, path: str) -> list[str]:
        """Files that must be seen where the pixels are read."""
        return [path]

    def as_labels(self, path: str) -> tuple[Reader, str | None]:
        """The reader for label images, and their axes where they differ from an image's."""
        return self, None

    def occupied(self, path: str, name: str, window: Box) -> Box | None:
        """A part of a window, beyond which all pixels are 0; None if all of it is."""
        return window

    def held(self, path: str) -> int:
        """Bytes that each process needs to read, as of a file that is decoded as a whole."""
        return 0

    def parts(self, path: str) -> list[Part]:
        """The images in a file that holds several; none if it holds one."""
        return []

    def place(self, path: str) -> str:
        """The path of the image alone, where a path holds several."""
        return path

    def choose(self, path: str, series: str) -> Reader:
        """The reader of one of `parts`, by its name or title."""
        raise InputError(f"{path}: expected a file with several images for `series`, got one image")


@dataclass(frozen=True)
class _Memory(Reader):
    """An array in this process: there is no file to look at."""

    name = "memory"
    stored = False

    def look(self, path: str, level: int, axes: str | None) -> Levels:
        raise InputError(f"{path}: expected a file, got an array in memory")

    def open(self, path: str, name: str) -> Any:
        raise InputError(f"{path}: expected a file, got an array in memory")


MEMORY = _Memory()


def read(image: Image, window: Box) -> np.ndarray:
    """Pixels of a window, (C, *window), times the image's gain; errors name the file."""
    try:
        return np.asarray(scaled(image, image.read(window)))
    except InputError:  # the pixels were read, and are not what they should be
        raise
    except Exception as error:
        raise unreadable(image, error) from error


@dataclass(frozen=True)
class Image:
    """A level of an image; its file is opened where it is read, so it can be sent to a worker.

    Attributes
    ----------
    path : file or store; a name for messages where `data` is given
    reader : of its format
    name : name of the level within the file
    axes : one letter of "tczyx" for each axis as stored
    shape, dtype : as stored
    channels : indices of the channels to read, None for all
    levels : shapes of the grid of this level and the coarser ones
    scale, translation, units : one value for each axis of the grid
    whole : shape of the grid of level 0, from which annotations count their pixels
    fixed : index along axes of which one position is read, such as (("t", 0),)
    shown : names and colors of the stored channels, or none at all
    color : whether the stored channels are red, green and blue
    no_data : value of pixels without data, which count as masked; None if there is none
    level : number of the level in its file
    measured : whether the user has stated its pixel size
    gain : what pixels are multiplied by before they are labeled or learned from; None: nothing
    """

    path: str
    reader: Reader
    name: str
    axes: str
    shape: tuple[int, ...]
    dtype: str
    levels: tuple[tuple[int, ...], ...]
    scale: tuple[float, ...]
    translation: tuple[float, ...]
    units: tuple[str | None, ...]
    channels: tuple[int, ...] | None = None
    whole: tuple[int, ...] = ()
    fixed: tuple[tuple[str, int], ...] = ()
    shown: tuple[Channel, ...] = ()
    color: bool = False
    no_data: float | None = None
    gain: float | None = None
    level: int = 0
    measured: bool = False
    data: Any = field(default=None, compare=False, repr=False)

    @property
    def spatial_axes(self) -> str:
        """The spatial axes of the grid, "yx" or "zyx"."""
        return self.grid_axes.removeprefix("t")

    @property
    def grid_axes(self) -> str:
        """The axes of the grid: the spatial ones, after "t" if all time points are read."""
        return grid_axes(self.axes, self.fixed)

    @property
    def grid(self) -> tuple[int, ...]:
        """Pixels along each axis of the grid."""
        return tuple(self.shape[self.axes.index(a)] for a in self.grid_axes)

    @property
    def stored_channels(self) -> int:
        """Length of the channel axis, 1 without one."""
        return self.shape[self.axes.index("c")] if "c" in self.axes else 1

    @property
    def used_channels(self) -> int:
        """Number of channels that are read."""
        return self.stored_channels if self.channels is None else len(self.channels)

    @property
    def used_names(self) -> tuple[str, ...]:
        """Names of the channels that are read; none if not all have one."""
        names = [one.name for one in self.shown]
        if self.channels is not None and names:
            names = [names[i] for i in self.channels]
        return tuple(map(str, names)) if all(names) else ()

    def read(self, window: Box, channels: Sequence[int] | None = None) -> np.ndarray:
        """Pixels of a window of the grid, (C, *window), contiguous, in the machine's byte order.

        Types that the kernels cannot compute with are converted, see `numbers.native`.

        Parameters
        ----------
        window : a slice for each axis of the grid
        channels : by default those chosen for the image
        """
        array = self.data
        if self.reader.stored:
            array = opened(self.reader, self.path, self.name)
        chosen = channels if channels is not None else self.channels
        index: dict[str, slice | int] = dict(zip(self.grid_axes, window, strict=True))
        index |= dict(self.fixed)
        box = tuple(index.get(axis, slice(None)) for axis in self.axes)
        block = ordered(self.reader.read(array, box), self)
        if chosen is not None:
            block = block[list(chosen)]
        return np.ascontiguousarray(block, numbers.native(block.dtype, self.path))

    def occupied(self, window: Box) -> Box | None:
        """A part of a spatial window, beyond which all pixels are known to be 0; None: all are."""
        return self.reader.occupied(self.path, self.name, window)

    def with_absolute_path(self) -> Image:
        """The image with an absolute path, for workers that run in another folder."""
        if not self.reader.stored:
            return self
        return dataclasses.replace(self, path=stores.absolute(self.path))

    def fingerprint(self) -> str:
        """SHA-256 of `state`; empty for an image in memory."""
        if not self.reader.stored:
            return ""
        return hashlib.sha256(json.dumps(self.state()).encode()).hexdigest()

    def state(self) -> State:
        """Names, sizes and times of what is stored, for fingerprints."""
        return self.reader.state(self.path, self.name)


def with_no_data(image: Image, value: float | None) -> Image:
    """The image with a value that stands for pixels without data; NaN for what is not a number.

    Raises
    ------
    ValueError
        If pixels of the image's type cannot have this value.
    """
    if value is None:
        return image
    dtype, fits = np.dtype(image.dtype), True
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            fits = not np.isfinite(value) or bool(np.isfinite(dtype.type(value)))
    elif dtype.kind in "iu":
        known = np.iinfo(dtype)
        fits = value == value and int(known.min) <= value <= int(known.max) and value % 1 == 0
    else:
        fits = value in (0, 1)
    if not fits:
        raise InputError(
            f"{image.path}: expected `no_data` to be a value of the type {dtype}, got {value:g}"
        )
    return dataclasses.replace(image, no_data=value)


def valid_of(image: Image, pixels: np.ndarray) -> np.ndarray | None:
    """Where pixels (C, *window), times the gain, hold data, (*window) bool; None if all do.

    A pixel is without data where all its channels have the image's value for that or, if that is
    NaN, where any of them is NaN.
    """
    value = image.no_data
    if value is None:
        return None
    if value != value:
        valid: np.ndarray = ~np.isnan(pixels).any(axis=0)
    else:
        stored = scaled(image, np.array(value, image.dtype))
        valid = ~(pixels == stored.astype(pixels.dtype)).all(axis=0)
    return None if valid.all() else valid


def used(image: Image, stored: Any) -> Any:
    """The chosen channels of stored pixels (C, *window), times the image's gain."""
    if image.channels is not None:
        stored = np.ascontiguousarray(stored[list(image.channels)])
    return scaled(image, stored)


def scaled(image: Image, pixels: Any) -> Any:
    """Pixels times the image's gain."""
    if image.gain is None or image.gain == 1:
        return pixels
    return pixels.astype(np.float32) * np.float32(image.gain)


def both(valid: np.ndarray | None, other: np.ndarray | None) -> np.ndarray | None:
    """Where two masks hold; None if all pixels do."""
    if valid is None or other is None:
        return other if valid is None else valid
    return valid & other


def unreadable(image: Image, error: Exception) -> OSError | ValueError:
    """Return the error for pixels that cannot be read: codecs may raise anything on damaged chunks.

    An OSError if the file system failed: another try may succeed.
    """
    kind = OSError if nodes.system_error(error) else DamagedFile
    return kind(f"{image.path}: pixels cannot be read, {type(error).__name__}: {error}")


def opened(reader: Reader, path: str, name: str) -> Any:
    """The array of a level; a file that was replaced is reopened."""
    if stores.is_url(path):
        identity = units.identity(path, name)
    else:
        identity = os.stat(stores.split(path)[0]).st_mtime_ns
    key: Any = reader  # a frozen value, which a Protocol cannot promise
    return _opened(key, path, name, identity)


def opened_whole(reader: Reader, path: str) -> Any:
    """The array of a file without levels; a damaged file may raise anything.

    Raises
    ------
    ValueError
        Names the file.
    """
    try:
        return opened(reader, path, "")
    except (Warning, InputError):  # the file is read, and is not what it should be
        raise
    except Exception as error:
        raise DamagedFile(f"{path}: this file cannot be read, {error}") from None


@functools.lru_cache(maxsize=16)
def _opened(reader: Any, path: str, name: str, identity: int | str) -> Any:
    return reader.open(path, name)


def guess_axes(shape: Sequence[int], path: str) -> str:
    """Guess the axes of an array that does not name them."""
    if len(shape) == 2:
        return "yx"
    if len(shape) == 3 and shape[0] <= 4:
        return "cyx"
    if len(shape) == 3 and shape[2] in (3, 4):
        return "yxc"
    if len(shape) < 2:
        raise InputError(f"{path}: expected an image of two axes or more, got the shape {shape}")
    likely = "zyx" if len(shape) == 3 else "tczyx"[-len(shape) :]
    raise InputError(
        f"{path}: its axes are not named and its shape {tuple(shape)} is ambiguous; "
        f"name them with `axes`, such as `axes` {likely}"
    )


def grid_axes(axes: str, fixed: Sequence[tuple[str, int]]) -> str:
    """The axes of the grid, in the order t, z, y, x."""
    return "".join(a for a in "tzyx" if a in axes and a not in dict(fixed))


def ordered(array: Any, image: Image) -> Any:
    """An array as stored, but for its fixed axes, as (C, *grid); of any library."""
    kept = [a for a in image.axes if a not in dict(image.fixed)]
    if "c" not in kept:
        kept, array = ["c", *kept], array[None]
    return array.transpose([kept.index(a) for a in "c" + image.grid_axes])


def channels_first(array: Any, image: Image) -> Any:
    """The chosen channels of an array of any library, (C, *grid)."""
    fixed = dict(image.fixed)
    array = ordered(array[tuple(fixed.get(a, slice(None)) for a in image.axes)], image)
    return array if image.channels is None else array[list(image.channels)]


def make(
    path: str,
    reader: Reader,
    found: Levels,
    axes: str | None = None,
    time_point: TimePoint = None,
    z: int | None = None,
) -> Image:
    """The image of a level; `axes` take precedence over those that the file names.

    Raises
    ------
    ValueError
        If axes do not fit, or a time point or plane is chosen that is not there.
    """
    shape = tuple(found.shapes[0])
    numbers.native(found.dtype, path)
    if 0 in shape:
        raise InputError(f"{path}: expected pixels, got none (shape {shape})")
    axes = axes or found.axes or guess_axes(shape, path)
    check_axes(path, axes, shape)
    fixed = _fixed(path, axes, shape, time_point, z)
    keep, n = [axes.index(a) for a in grid_axes(axes, fixed)], len(axes)
    scale, translation = found.scale or (1.0,) * n, found.translation or (0.0,) * n
    names = found.units or (None,) * n
    return Image(
        path,
        reader,
        found.name,
        axes,
        shape,
        np.dtype(found.dtype).name,
        tuple(tuple(s[i] for i in keep) for s in found.shapes),
        tuple(scale[i] for i in keep),
        tuple(translation[i] for i in keep),
        tuple(names[i] for i in keep),
        whole=tuple((found.whole or shape)[i] for i in keep),
        fixed=fixed,
        shown=tuple(found.channels),
        color=found.color,
    )


def check_axes(path: str, axes: str, shape: Sequence[int]) -> None:
    """Refuse axes that do not fit the shape or are invalid."""
    if len(axes) != len(shape):
        raise InputError(
            f"{path}: expected axes for the {len(shape)} dimensions of its shape {tuple(shape)}, "
            f"got {axes!r}"
        )
    spatial = "".join(a for a in axes if a in SPATIAL)
    if set(axes) - set("tczyx") or len(set(axes)) < len(axes) or spatial not in ("yx", "zyx"):
        raise InputError(
            f"{path}: expected axes of the letters t, c, z, y, x with y and x in this order, "
            f"got {axes!r}"
        )
    if not all(shape):
        raise InputError(f"{path}: expected pixels, got the shape {tuple(shape)}")


def _fixed(
    path: str, axes: str, shape: Sequence[int], time_point: TimePoint, z: int | None
) -> tuple[tuple[str, int], ...]:
    """The index along each axis of which one position is read."""
    sizes, fixed = dict(zip(axes, shape, strict=True)), {}
    for axis, name, index in (("t", "time_point", time_point), ("z", "z", z)):
        if index is None or (index == "all" and axis == "t" and axis in sizes):
            continue
        if axis not in sizes:
            raise InputError(
                f"{path}: expected an image with the axis {axis} for `{name}`, got the axes {axes}"
            )
        if isinstance(index, bool | str) or not 0 <= index < sizes[axis]:
            or_all = " or all" * (axis == "t")
            raise InputError(
                f"{path}: expected `{name}` of 0 to {sizes[axis] - 1}{or_all}, got {index}"
            )
        fixed[axis] = int(index)
    if time_point is None and "t" in sizes:
        if sizes["t"] > 1:
            hint = f" (if they are planes: `axes` {axes.replace('t', 'z')})" * ("z" not in sizes)
            raise InputError(
                f"{path}: expected one time point, got {sizes['t']}: choose one of 0 to "
                f"{sizes['t'] - 1} with `time_point`, or all{hint}"
            )
        fixed["t"] = 0
    return tuple(fixed.items())


def choose_channels(image: Image, channels: Sequence[int | str] | None) -> Image:
    """Return the image with these channels, by number or name; by default all but alpha.

    Raises
    ------
    ValueError
        If it does not have them, or they are no data.
    """
    if np.dtype(image.dtype).kind not in "uifb":
        raise InputError(f"{image.path}: expected numbers as pixels, got the type {image.dtype}")
    alpha = {i for i, channel in enumerate(image.shown) if channel.alpha}
    if channels is None:
        if not alpha:
            return image
        kept = [i for i in range(image.stored_channels) if i not in alpha]
        say(f"{image.path}: its alpha channel is left out: transparency is no data")
        return choose_channels(image, kept)
    chosen = tuple(_channel_number(image, channel) for channel in channels)
    if (
        not chosen
        or len(set(chosen)) < len(chosen)
        or not set(chosen) <= set(range(image.stored_channels))
    ):
        names = [channel.name for channel in image.shown if channel.name]
        listed = f" ({', '.join(names)})" if names else ""
        raise InputError(
            f"{image.path}: expected different channels of 0 to {image.stored_channels - 1}"
            f"{listed}, got {','.join(map(str, channels)) or 'none'}"
        )
    if alpha & set(chosen):
        raise InputError(
            f"{image.path}: expected `channels` with data, got {min(alpha & set(chosen))}, "
            "which is alpha"
        )
    return dataclasses.replace(image, channels=chosen)


def _channel_number(image: Image, channel: int | str) -> int:
    """Number of a channel, -1 where there is none; a name counts before a number."""
    if not isinstance(channel, str):
        return int(channel)
    named = [c.name for c in image.shown] or ["red", "green", "blue"] * image.color
    for same in (str, str.casefold):
        found = [i for i, name in enumerate(named) if name and same(name) == same(channel)]
        if len(found) > 1:
            raise InputError(
                f"{image.path}: expected names of `channels` that occur once, got {channel!r}, "
                f"which is {len(found)} of them: give numbers"
            )
        if found:
            return found[0]
    return int(channel) if channel.isascii() and channel.isdigit() else -1


def part_number(path: str, parts: Sequence[Part], wanted: str) -> int:
    """Which of the images in a file is meant: by the name it is chosen by, or by its title.

    Raises
    ------
    ValueError
        If none or several are; lists all.
    """
    for asked in ("name", "title"):
        found = [i for i, part in enumerate(parts) if getattr(part, asked) == wanted]
        if len(found) == 1:
            return found[0]
    listed = ", ".join(f"{p.name} {p.title}".strip() for p in parts) or "one image without a name"
    raise InputError(f"{path}: expected `series` to be one of {listed}, got {wanted!r}")


def largest(
    path: str, titles: Sequence[str], shapes: Sequence[Sequence[int]], areas: Sequence[int]
) -> int:
    """The number of the largest image in a file; says that there are others."""
    number = areas.index(max(areas))
    if len(areas) > 1:
        listed = ", ".join(
            " ".join([str(n), *([repr(str(title))] if title else []), " x ".join(map(str, shape))])
            for n, (title, shape) in enumerate(zip(titles, shapes, strict=True))
        )
        say(f"{path}: series {number}, the largest, is read of {listed} (choose with `series`)")
    return number


def check_piece(path: str, size: int) -> None:
    """Refuse what is decoded in one piece and is far larger than its file.

    Raises
    ------
    ValueError
        If it is.
    """
    stored = os.path.getsize(path)
    if size > PIECE + PACKED * stored:
        raise DamagedFile(
            f"{path}: a file of {stored} bytes would be decoded to {size} bytes at once (tiled "
            "TIFF and Zarr are read in parts)"
        )


def say(text: str) -> None:
    """Tell the user something about a file."""
    warnings.warn(text, FileWarning, stacklevel=4)


def check_level(path: str, level: int, count: int) -> None:
    """Refuse a level that the image does not have."""
    if not 0 <= level < count:
        raise InputError(f"{path}: expected a level of 0 to {count - 1}, got `level` {level}")


def read_pixels(image: Image, window: Sequence[slice], stored: bool = False) -> np.ndarray:
    """Pixels of a window: the chosen channels times the image's gain, or all as `stored`.

    Raises
    ------
    OSError
        If the file system fails: another try may succeed.
    ValueError
        If the pixels cannot be decoded.
    """
    try:
        if stored:
            return image.read(tuple(window), range(image.stored_channels))
        return np.asarray(scaled(image, image.read(tuple(window))))
    except TiledlafError:
        raise
    except Exception as error:
        raise unreadable(image, error) from error
