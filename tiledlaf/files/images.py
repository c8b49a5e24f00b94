"""Open images of any format: OME-Zarr, Zarr, TIFF, PNG, JPEG, npy, or arrays in memory."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from .. import redaction
from ..errors import InputError, readable
from ..registry import Registry
from . import image as image_files
from . import numbers, stores
from .converted import converted, is_plane
from .formats.bioio import Bioio
from .formats.hdf5 import Hdf5
from .formats.n5 import N5
from .formats.npy import Npy
from .formats.npz import Npz
from .formats.raster import Raster
from .formats.tiff import Tiff
from .formats.zarr import Zarr
from .image import Image, Levels, Part, Reader, TimePoint
from .resampled import resampled
from .selection import Selection, check_learned, measured, nearest_level

COARSE = 1.5  # least factor by which pixels of probabilities are larger, other than by mistake

FORMATS: Registry[Reader] = Registry(
    "tiledlaf.formats",
    {
        "zarr": Zarr(),
        "tiff": Tiff(),
        "raster": Raster(),
        "npy": Npy(),
        "npz": Npz(),
        "hdf5": Hdf5(),
        "n5": N5(),
        "bioio": Bioio(),
    },
)


def reader_of(path: str | os.PathLike[str]) -> Reader | None:
    """The reader of a file's format; None where there is none."""
    path = os.fspath(path)
    return next((reader for reader in FORMATS.values() if reader.sniff(path)), None)


def open_image(
    path: str | os.PathLike[str], selection: Selection = Selection(), **choice: Any
) -> Image:
    """Open one level of an image file or store, without reading pixels.

    Parameters
    ----------
    selection : which part of the file
    **choice : fields of `Selection`, which take precedence

    Raises
    ------
    ValueError
        If it is missing, has an unknown format or is a URL with credentials, or if what is
        selected is not there.
    """
    path, selection = str(path), dataclasses.replace(selection, **choice)
    reader = _known(path)
    if selection.series is not None:
        with readable(path):
            reader = reader.choose(path, str(selection.series))
    level, grid, finest = selection.level or 0, None, None
    if selection.learned and level and selection.z is not None:
        finest = _level(path, reader, 0, selection)
    image = _level(path, reader, level, selection, finest)
    if selection.learned and level:
        image_files.say(f"{path}: level {level} is read, as the model learned at")
    if selection.level is None and selection.pixel_size is not None:
        level, grid = nearest_level(image, selection.pixel_size, selection.learned)
        image = image if level == 0 else _level(path, reader, level, selection, image)
    image = valued(image_files.choose_channels(image, selection.channels), selection)
    return image if grid is None else resampled(image, grid)


def valued(image: Image, selection: Selection) -> Image:
    """The image with what a selection says of its values."""
    if selection.intensity_scale is not None:
        image = dataclasses.replace(image, gain=selection.intensity_scale)
    return image_files.with_no_data(image, selection.no_data)


def _level(
    path: str, reader: Reader, level: int, selection: Selection, finest: Image | None = None
) -> Image:
    """A level of a file; `finest` is level 0 if the plane that is selected is one of it."""
    z = selection.z
    with readable(path):
        found = reader.look(path, level, selection.axes)
    if z is not None and finest is not None:  # levels may have fewer planes as well
        axis = finest.axes.index("z")
        z = z * found.shapes[0][axis] // finest.shape[axis]
    image = image_files.make(path, reader, found, selection.axes, selection.time_point, z)
    return measured(dataclasses.replace(image, level=level), selection.input_pixel_size)


def parts(path: str | os.PathLike[str]) -> list[Part]:
    """The images in a file that holds several: series, scenes, fields; none if it holds one."""
    reader = _known(str(path))
    with readable(str(path)):
        return reader.parts(str(path))


def format_of(path: str | os.PathLike[str]) -> str:
    """The name of a file's format."""
    return _known(str(path)).name


def _known(path: str) -> Reader:
    """The reader of a file's format; refuses a path without one."""
    redaction.check(path)
    if not stores.is_url(path) and not os.path.exists(stores.split(path)[0]):
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


def open_labels(
    path: str | os.PathLike[str], like: Image | None = None, series: bool = False
) -> Image:
    """Open a label image: palette indices are labels; three unnamed axes are z, y, x.

    Parameters
    ----------
    like : the image that it belongs to, whose time points and planes are read
    series : whether all time points are read where there are several

    Raises
    ------
    ValueError
        If it cannot be read, or has several channels.
    """
    image = open_stored_labels(path, like, series)
    if image.used_channels != 1:
        raise InputError(
            f"{image.path}: expected a label image of one channel, got {image.used_channels} "
            f"channels (shape {image.shape})"
        )
    return image


def open_stored_labels(
    path: str | os.PathLike[str], like: Image | None = None, series: bool = False
) -> Image:
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
        with readable(path):
            found = reader.look(path, 0, axes)
        letters = axes or found.axes or image_files.guess_axes(found.shapes[0], path)
        place = _position(letters, found.shapes[0], like, series)
        image = image_files.make(path, reader, found, letters, **place)
        image = image_files.choose_channels(image, None)
    return image


def _position(axes: str, shape: Sequence[int], like: Image | None, series: bool) -> dict[str, Any]:
    """Time point and plane of an image's labels, those of the image, where they have several."""
    fixed = {} if like is None else dict(like.fixed)
    sizes = dict(zip(axes, shape, strict=False))
    found: dict[str, Any] = {}
    if sizes.get("t", 1) > 1:
        every = series or (like is not None and "t" in like.grid_axes)
        found["time_point"] = "all" if every else fixed.get("t")
    if sizes.get("z", 1) > 1 and like is not None and "z" in fixed:
        found["z"] = fixed["z"]
    return found


def as_image(given: Any, selection: Selection = Selection(), **choice: Any) -> Image:
    """Return the given image: a path to open, an array, or an image that is already open.

    Parameters
    ----------
    selection, **choice : as in `open_image`

    Raises
    ------
    ValueError
        If it cannot be opened, or an array is asked for what only files have.
    """
    if isinstance(given, Image):
        return valued(given, dataclasses.replace(selection, **choice))
    if isinstance(given, str | os.PathLike):
        return open_image(given, selection, **choice)
    chosen = dataclasses.replace(selection, **choice)
    found = measured(from_array(given, **of_array(chosen)), chosen.input_pixel_size)
    if chosen.level:  # of a model: others are refused
        image_files.say(
            f"{found.path}: the model learned at level {chosen.level}, and the array is labeled "
            "as it is"
        )
    if isinstance(chosen.pixel_size, tuple):
        check_learned(found, chosen.pixel_size)
    return valued(found, chosen)


def of_array(selection: Selection) -> dict[str, Any]:
    """What `describe` takes of a selection; refuses what an array has not."""
    if selection.level and not selection.learned:
        raise InputError(
            f"expected level 0 for an array, which has no other, got {selection.level}"
        )
    named = [n for n in ("series", "pixel_size") if getattr(selection, n) is not None]
    if named and not selection.learned:
        raise InputError(f"expected a file for `{named[0]}`, got an array")
    return {name: getattr(selection, name) for name in ("axes", "channels", "time_point", "z")}


def on_grid(other: Image, image: Image, coarse: bool = False) -> Image:
    """Labels or a mask of an image's level 0 on the grid of the level that is read of it.

    `coarse` says whether those of a coarser level will do as well, as of a mask.
    """
    fits = other.grid == image.whole or (coarse and other.grid in image.levels)
    if other.grid == image.grid or not fits or other.data is not None:
        return other
    return resampled(other, image.grid, nearest=True)


def check_size(other: Image, image: Image, what: str) -> None:
    """Refuse labels, a mask or the like of another size than the image's."""
    if other.grid == image.grid:
        return
    hint = ""
    if image.grid == image.whole and other.grid in image.levels:
        level = image.levels.index(other.grid)
        hint = f", the size of its level {level} (`level` {level} reads that)"
    raise InputError(
        f"{other.path}: expected {what} of the size {image.grid} of {image.path}, got "
        f"{other.grid}{hint}"
    )


def as_labels(given: Any, like: Image) -> Image:
    """The labels or the mask of an image: a path, or an array with the image's axes."""
    if isinstance(given, Image):
        return given
    if isinstance(given, str | os.PathLike):
        return open_labels(given, like)
    data = numbers.plain(given)
    own = data.ndim in (len(like.grid), len(like.spatial_axes))
    axes = like.grid_axes[-data.ndim :] if own else None
    return from_array(data, axes, time_point="all" if axes and "t" in axes else None)


def as_mask(given: Any, like: Image) -> Image:
    """The mask of an image; one with several channels for a 2-D image is refused later."""
    if not isinstance(given, str | os.PathLike) or len(like.grid) > 2 or like.fixed:
        return as_labels(given, like)
    found = open_stored_labels(given, like)
    return found if len(found.grid) == 2 else open_image(given)


def _seen(path: str) -> Levels | None:
    """What a file is, if that is clear; whatever is wrong with it is said later."""
    reader = _known(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", image_files.FileWarning)
        try:
            with readable(path):
                return reader.look(path, 0, None)
        except ValueError:  # such as pages that may be planes, channels or time points
            return None


@runtime_checkable
class Maker(Protocol):
    """What makes probabilities of an image where they are read."""

    def of(self, image: Image) -> Image:
        """The probabilities of an image, on its grid."""
        ...


def as_probabilities(given: Any, like: Image, of: str | None = None) -> Image:
    """Class probabilities of an image, on its grid if theirs is a coarser one of the same extent.

    Axes that the file names count if one is that of channels, as in ilastik's exports; otherwise
    the first axis is that of the classes, but after t. What makes them of the image itself, such as
    a network, has `of`.

    Parameters
    ----------
    of : what is given, where it is not class probabilities, see `converted.KINDS`
    """
    if isinstance(given, Maker):
        if of is not None:
            raise InputError("`probabilities_of`: a network gives the probabilities of classes")
        return given.of(like)
    found = converted(_as_stored(given, like, is_plane(of)), of)
    if not _is_coarse(found, like):
        return found
    here, there = (" x ".join(map(str, image.grid)) for image in (found, like))
    image_files.say(
        f"{found.path}: probabilities of {here} pixels are interpolated to the {there} of "
        f"{like.path}"
    )
    return resampled(found, like.grid)


def _is_coarse(other: Image, image: Image) -> bool:
    """Whether pixels along y and x are larger by one factor, but for what was rounded."""
    if other.grid[:-2] != image.grid[:-2] or len(other.grid) != len(image.grid):
        return False
    pairs = sorted(zip(image.grid[-2:], other.grid[-2:], strict=True))
    factor = pairs[-1][0] / pairs[-1][1]
    return factor >= COARSE and all(abs(n / factor - m) <= 1 for n, m in pairs)


def _as_stored(given: Any, like: Image, plane: bool) -> Image:
    """What is given as probabilities; one plane may lack the axis of classes."""
    every, z = "t" in like.grid_axes, None
    grid, axes = like.grid_axes, "t" * every + "c" + like.spatial_axes
    shape: Sequence[int] = ()
    if isinstance(given, str | os.PathLike):
        seen = _seen(str(given))
        shape = () if seen is None else seen.shapes[0]
        if seen is not None and seen.axes and set(seen.axes) >= set(grid if plane else axes):
            sizes = dict(zip(seen.axes, shape, strict=True))
            # of five axes, those that the image does not have are 1 long
            z = 0 if "z" not in axes and sizes.get("z") == 1 else None
            axes = ""
    elif plane and not isinstance(given, Image):
        shape = numbers.plain(given).shape
    if axes and plane and len(shape) == len(grid):
        axes = grid
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", image_files.FileWarning)
        found = as_image(given, axes=axes or None, time_point="all" if every else None, z=z)
    for one in said:
        if "alpha channel is left out" not in str(one.message):
            warnings.warn(one.message, stacklevel=2)
        elif found.channels is None:  # it is gone, and may have been the fourth class
            raise InputError(
                f"{found.path}: expected probabilities, got a picture with an alpha channel: save "
                "them as TIFF, npy, HDF5 or Zarr"
            )
    return dataclasses.replace(found, channels=None)  # the fourth class is no alpha


def from_array(
    data: Any,
    axes: str | None = None,
    channels: Sequence[int] | None = None,
    time_point: TimePoint = None,
    z: int | None = None,
) -> Image:
    """An image in memory: (y, x), (c, y, x) or (y, x, c) unless `axes` says otherwise."""
    data = numbers.plain(data)
    return dataclasses.replace(describe(data, axes, channels, time_point, z), data=data)


def describe(
    array: Any,
    axes: str | None = None,
    channels: Sequence[int] | None = None,
    time_point: TimePoint = None,
    z: int | None = None,
) -> Image:
    """An image without its data, for arrays that are read elsewhere."""
    letters = axes or image_files.guess_axes(array.shape, "array")
    image_files.check_axes("array", letters, array.shape)
    color = letters == "yxc" and array.shape[2] == 3
    found = Levels("", letters, (array.shape,), array.dtype, color=color)
    image = image_files.make("array", image_files.MEMORY, found, axes, time_point, z)
    return image_files.choose_channels(image, channels)
