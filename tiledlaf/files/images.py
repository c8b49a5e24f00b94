"""Open images of any format: OME-Zarr, Zarr, TIFF, PNG, JPEG, npy, or arrays in memory."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import redaction
from ..errors import InputError
from ..registry import Registry
from . import image as image_files
from . import stores
from .formats.bioio import Bioio
from .formats.npy import Npy
from .formats.raster import Raster
from .formats.tiff import Tiff
from .formats.zarr import Zarr
from .image import Image, Levels, Part, Reader, TimePoint

FORMATS: Registry[Reader] = Registry(
    "tiledlaf.formats",
    {"zarr": Zarr(), "tiff": Tiff(), "raster": Raster(), "npy": Npy(), "bioio": Bioio()},
)


def reader_of(path: str | os.PathLike[str]) -> Reader | None:
    """The reader of a file's format; None where there is none."""
    path = os.fspath(path)
    return next((reader for reader in FORMATS.values() if reader.sniff(path)), None)


def open_image(
    path: str | os.PathLike[str],
    *,
    level: int = 0,
    axes: str | None = None,
    channels: Sequence[int | str] | None = None,
    time_point: TimePoint = None,
    z: int | None = None,
    series: str | int | None = None,
) -> Image:
    """Open one level of an image file or store, without reading pixels.

    Parameters
    ----------
    level : resolution level
    axes : one letter of "tczyx" for each axis, where the file does not name them
    channels : numbers or names of the channels to read, all but alpha by default
    time_point : index of the one to read; "all" makes t an axis of the grid
    z : index of the plane to read, of this level; all by default
    series : which of the images in the file, by number or name; the largest by default

    Raises
    ------
    ValueError
        If it is missing, has an unknown format or is a URL with credentials, or if level, axes,
        channels, time point or plane do not fit.
    """
    path = str(path)
    reader = _known(path)
    if series is not None:
        reader = reader.choose(path, str(series))
    found = reader.look(path, level, axes)
    image = image_files.make(path, reader, found, axes, time_point, z)
    return image_files.choose_channels(image, channels)


def parts(path: str | os.PathLike[str]) -> list[Part]:
    """The images in a file that holds several: series, scenes, fields; none if it holds one."""
    return _known(str(path)).parts(str(path))


def _known(path: str) -> Reader:
    """The reader of a file's format; refuses a path without one."""
    redaction.check(path)
    if not stores.is_url(path) and not os.path.exists(path):
        raise InputError(f"{path}: no such file or folder")
    reader = reader_of(path)
    if reader is None:
        raise InputError(f"{path}: {_unknown(path)}")
    return reader


def _unknown(path: str) -> str:
    """What was expected of a path that has no known format, and what it is."""
    if stores.is_url(path):
        return "expected a Zarr store at a URL, found none"
    if os.path.isdir(path):
        return "expected an image or a Zarr store, got a folder without either"
    others = [reader.name for name, reader in FORMATS.items() if name not in FORMATS.own]
    known = ", ".join(["OME-Zarr", "Zarr", "TIFF", "PNG", "JPEG", *others])
    return f"expected {known} or npy, got a file ending {Path(path).suffix.lower()!r}"


def open_labels(path: str | os.PathLike[str], like: Image | None = None) -> Image:
    """Open a label image: palette indices are labels; three unnamed axes are z, y, x.

    Parameters
    ----------
    like : the image that it belongs to, whose time points and planes are read

    Raises
    ------
    ValueError
        If it cannot be read, or has several channels.
    """
    image = open_stored_labels(path, like)
    if image.used_channels != 1:
        raise InputError(
            f"{image.path}: expected a label image of one channel, got {image.used_channels} "
            f"channels (shape {image.shape})"
        )
    return image


def open_stored_labels(path: str | os.PathLike[str], like: Image | None = None) -> Image:
    """Open a label image as `open_labels` does, whatever its channels."""
    path, axes = str(path), None
    redaction.check(path)
    reader = reader_of(path)
    if reader is not None:
        try:
            reader, axes = reader.as_labels(path)
        except Exception:  # a file that cannot be read is refused, with its reason, by open_image
            reader = None
    if reader is None:
        image = open_image(path)
    else:
        if axes == "zyx" and like is not None and like.grid_axes == "tyx":
            axes = "tyx"
        found = reader.look(path, 0, axes)
        letters = axes or found.axes or image_files.guess_axes(found.shapes[0], path)
        place = _position(letters, found.shapes[0], like)
        image = image_files.make(path, reader, found, letters, **place)
        image = image_files.choose_channels(image, None)
    return image


def _position(axes: str, shape: Sequence[int], like: Image | None) -> dict[str, Any]:
    """Time point and plane of an image's labels, those of the image, where they have several."""
    fixed = {} if like is None else dict(like.fixed)
    sizes = dict(zip(axes, shape, strict=False))
    found: dict[str, Any] = {}
    if sizes.get("t", 1) > 1 and like is not None:
        found["time_point"] = "all" if "t" in like.grid_axes else fixed.get("t")
    if sizes.get("z", 1) > 1 and like is not None and "z" in fixed:
        found["z"] = fixed["z"]
    return found


def as_image(
    given: Any,
    *,
    level: int = 0,
    axes: str | None = None,
    channels: Any = None,
    time_point: TimePoint = None,
    z: int | None = None,
) -> Image:
    """Return the given image: a path to open, an array, or an image that is already open.

    Raises
    ------
    ValueError
        If it cannot be opened, or a `level` other than 0 is requested of an array.
    """
    if isinstance(given, Image):
        return given
    chosen: dict[str, Any] = {"axes": axes, "channels": channels, "time_point": time_point, "z": z}
    if isinstance(given, str | os.PathLike):
        return open_image(given, level=level, **chosen)
    if level:
        raise InputError(f"expected level 0 for an array, which has no other, got {level}")
    return from_array(given, **chosen)


def as_labels(given: Any, like: Image) -> Image:
    """The labels or the mask of an image: a path, or an array with the image's axes."""
    if isinstance(given, Image):
        return given
    if isinstance(given, str | os.PathLike):
        return open_labels(given, like)
    data = np.asarray(given)
    axes = like.grid_axes if data.ndim == len(like.grid) else None
    return from_array(data, axes, time_point="all" if axes and "t" in axes else None)


def as_mask(given: Any, like: Image) -> Image:
    """The mask of an image; one with several channels for a 2-D image is refused later."""
    flat = isinstance(given, str | os.PathLike) and len(like.grid) == 2 and not like.fixed
    return open_image(given) if flat else as_labels(given, like)


def from_array(
    data: Any,
    axes: str | None = None,
    channels: Sequence[int] | None = None,
    time_point: TimePoint = None,
    z: int | None = None,
) -> Image:
    """An image in memory: (y, x), (c, y, x) or (y, x, c) unless `axes` says otherwise."""
    data = np.asarray(data)
    return dataclasses.replace(describe(data, axes, channels, time_point, z), data=data)


def describe(
    array: Any,
    axes: str | None = None,
    channels: Sequence[int] | None = None,
    time_point: TimePoint = None,
    z: int | None = None,
) -> Image:
    """An image without its data, for arrays that are read elsewhere."""
    found = Levels("", "", (array.shape,), array.dtype)
    image = image_files.make("array", image_files.MEMORY, found, axes, time_point, z)
    return image_files.choose_channels(image, channels)
