"""One level of an image, and the pixel windows read from it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from ..errors import DamagedFile, InputError
from ..tiles import Box
from . import nodes, stores, units

SPATIAL = "zyx"
State = list[tuple[str, int, int | str]]  # (name, size, time or ETag) of what is stored


class FileWarning(UserWarning):
    """Something about a file that the user should know: what was chosen, dropped or is missing."""


@dataclass(frozen=True)
class Channel:
    """How a channel is called and shown.

    Attributes
    ----------
    name : None where the file does not say it
    color : RRGGBB, or None
    window : (start, end, min, max) of its intensities, or None
    """

    name: str | None = None
    color: str | None = None
    window: tuple[float, float, float, float] | None = None


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
    stored : whether pixels are in a file rather than in this process's memory
    chunked : whether pixels are in Zarr chunks, which can be copied as they are
    """

    name: ClassVar[str]
    suffixes: ClassVar[frozenset[str]] = frozenset()
    lossy: ClassVar[bool] = False
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

    def as_labels(self, path: str) -> tuple[Reader, str | None]:
        """The reader for label images, and their axes where they differ from an image's."""
        return self, None

    def occupied(self, path: str, name: str, window: Box) -> Box | None:
        """A part of a window, beyond which all pixels are 0; None if all of it is."""
        return window

    def parts(self, path: str) -> list[Part]:
        """The images in a file that holds several; none if it holds one."""
        return []

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
    """Pixels of a window, (C, *window); errors name the file."""
    try:
        return image.read(window)
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
    levels : spatial shapes of this level and the coarser ones
    scale, translation, units : one value for each spatial axis
    whole : spatial shape of level 0, from which annotations count their pixels
    fixed : index along axes that are not read whole, such as (("t", 0),)
    shown : names and colors of the stored channels, or none at all
    color : whether the stored channels are red, green and blue
    no_data : value of pixels without data, which count as masked; None if there is none
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
    data: Any = field(default=None, compare=False, repr=False)

    @property
    def spatial_axes(self) -> str:
        """The spatial axes, such as "yx" or "zyx"."""
        return "".join(a for a in self.axes if a in SPATIAL)

    @property
    def grid(self) -> tuple[int, ...]:
        """Pixels along each spatial axis."""
        return tuple(n for n, a in zip(self.shape, self.axes, strict=True) if a in SPATIAL)

    @property
    def stored_channels(self) -> int:
        """Length of the channel axis, 1 without one."""
        return self.shape[self.axes.index("c")] if "c" in self.axes else 1

    @property
    def used_channels(self) -> int:
        """Number of channels that are read."""
        return self.stored_channels if self.channels is None else len(self.channels)

    def read(self, window: Box, channels: Sequence[int] | None = None) -> np.ndarray:
        """Pixels of a spatial window, (C, *window), contiguous and in the machine's byte order.

        Float16 is converted to float32, which the kernels can compute with.

        Parameters
        ----------
        window : a slice for each spatial axis
        channels : by default those chosen for the image
        """
        array = self.data
        if self.reader.stored:
            array = opened(self.reader, self.path, self.name)
        chosen = channels if channels is not None else self.channels
        spatial = iter(window)
        index: list[Any] = []
        for axis in self.axes:
            index.append(next(spatial) if axis in SPATIAL else 0 if axis == "t" else slice(None))
        box = tuple(index)
        block = self.reader.read(array, box)
        kept = self.axes.replace("t", "")
        block = np.moveaxis(block, kept.index("c"), 0) if "c" in kept else block[None]
        if chosen is not None:
            block = block[list(chosen)]
        native = np.dtype(np.float32) if block.dtype == np.float16 else block.dtype
        return np.ascontiguousarray(block, native.newbyteorder("="))

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


def unreadable(image: Image, error: Exception) -> OSError | ValueError:
    """Return the error for pixels that cannot be read: codecs may raise anything on damaged chunks.

    An OSError if the file system failed: another try may succeed.
    """
    kind = OSError if nodes.system_error(error) else DamagedFile
    return kind(f"{image.path}: pixels cannot be read, {type(error).__name__}: {error}")


def opened(reader: Reader, path: str, name: str) -> Any:
    """The array of a level; a file that was replaced is reopened."""
    identity = units.identity(path, name) if stores.is_url(path) else os.stat(path).st_mtime_ns
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
    except (OSError, EOFError, ValueError, SyntaxError) as error:
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
    likely = "zyx" if len(shape) == 3 else "tczyx"[-len(shape) :]
    raise InputError(
        f"{path}: its axes are not named and its shape {tuple(shape)} is ambiguous; "
        f"name them with `axes`, such as `axes` {likely}"
    )


def channels_first(array: Any, image: Image) -> Any:
    """The chosen channels of an array of any library, (C, *grid)."""
    array = array[tuple(0 if a == "t" else slice(None) for a in image.axes)]
    kept = image.axes.replace("t", "")
    if "c" not in kept:
        return array[None]
    order = (kept.index("c"), *(i for i, a in enumerate(kept) if a != "c"))
    array = array.transpose(order)
    return array if image.channels is None else array[list(image.channels)]


def make(path: str, reader: Reader, found: Levels, axes: str | None = None) -> Image:
    """The image of a level; `axes` take precedence over those that the file names."""
    shape = tuple(found.shapes[0])
    axes = axes or found.axes or guess_axes(shape, path)
    check_axes(path, axes, shape)
    keep, n = [i for i, a in enumerate(axes) if a in SPATIAL], len(axes)
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
    if "t" in axes and shape[axes.index("t")] != 1:
        raise InputError(
            f"{path}: expected one time point, got {shape[axes.index('t')]}: label one at a time"
        )
    if not all(shape):
        raise InputError(f"{path}: expected pixels, got the shape {tuple(shape)}")


def choose_channels(image: Image, channels: Sequence[int] | None) -> Image:
    """Return the image with these channels; refuse any that it does not have."""
    if np.dtype(image.dtype).kind not in "uifb":
        raise InputError(f"{image.path}: expected numbers as pixels, got the type {image.dtype}")
    if channels is None:
        return image
    chosen = tuple(channels)
    if (
        not chosen
        or len(set(chosen)) < len(chosen)
        or not set(chosen) <= set(range(image.stored_channels))
    ):
        raise InputError(
            f"{image.path}: expected different channels of 0 to {image.stored_channels - 1}, "
            f"got {','.join(map(str, chosen)) or 'none'}"
        )
    return dataclasses.replace(image, channels=chosen)


def check_level(path: str, level: int, count: int) -> None:
    """Refuse a level that the image does not have."""
    if not 0 <= level < count:
        raise InputError(f"{path}: expected a level of 0 to {count - 1}, got `level` {level}")


def read_pixels(image: Image, window: Sequence[slice], every_channel: bool = False) -> np.ndarray:
    """Pixels of a window.

    Raises
    ------
    OSError
        If the file system fails: another try may succeed.
    ValueError
        If the pixels cannot be decoded.
    """
    channels = range(image.stored_channels) if every_channel else None
    try:
        return image.read(tuple(window), channels)
    except ValueError:
        raise
    except Exception as error:
        raise unreadable(image, error) from error
