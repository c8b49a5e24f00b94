"""Images to read windows from: OME-Zarr, Zarr, TIFF, PNG, JPEG, npy, or arrays in memory."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from . import ngff, redaction, stores
from .tiles import Box

TIFF = {".tif", ".tiff", ".btf", ".svs", ".ndpi", ".scn", ".qptiff"}
MICROMETERS = {
    "nm": 1e-3,
    "µm": 1.0,
    "μm": 1.0,
    "um": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "\\u00B5m": 1.0,
    "mm": 1e3,
    "cm": 1e4,
    "m": 1e6,
}
RASTER = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}


@dataclass(frozen=True)
class Image:
    """A level of an image; opens its file where it is read, so it can be sent to a worker.

    Attributes
    ----------
    path : file or store; a name for messages where `data` is given
    source : "zarr", "tiff", "raster", "indexed" (of a palette), "npy" or "memory"
    name : array within a Zarr store; level of a TIFF
    axes : a letter an axis as stored, of "tczyx"
    shape, dtype : as stored
    channels : indices of the channels to read, None for all
    levels : spatial shapes of this level and the coarser ones
    scale, translation, units : a value a spatial axis
    """

    path: str
    source: str
    name: str
    axes: str
    shape: tuple[int, ...]
    dtype: str
    levels: tuple[tuple[int, ...], ...]
    scale: tuple[float, ...]
    translation: tuple[float, ...]
    units: tuple[str | None, ...]
    channels: tuple[int, ...] | None = None
    data: Any = field(default=None, compare=False, repr=False)

    @property
    def spatial_axes(self) -> str:
        """Such as "yx" or "zyx"."""
        return "".join(a for a in self.axes if a in ngff.SPATIAL)

    @property
    def grid(self) -> tuple[int, ...]:
        """Pixels along each spatial axis."""
        return tuple(n for n, a in zip(self.shape, self.axes, strict=True) if a in ngff.SPATIAL)

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

        Float16 comes as float32, which kernels can compute with.

        Parameters
        ----------
        window : a slice a spatial axis
        channels : by default the image's own choice
        """
        array = self.data if self.source == "memory" else _open(self, _state(self.path, self.name))
        chosen = channels if channels is not None else self.channels
        spatial = iter(window)
        index: list[Any] = []
        for axis in self.axes:
            index.append(
                next(spatial) if axis in ngff.SPATIAL else 0 if axis == "t" else slice(None)
            )
        box = tuple(index)
        block = ngff.read(array, box) if self.source == "zarr" else np.asarray(array[box])
        kept = self.axes.replace("t", "")
        block = np.moveaxis(block, kept.index("c"), 0) if "c" in kept else block[None]
        if chosen is not None:
            block = block[list(chosen)]
        native = np.dtype(np.float32) if block.dtype == np.float16 else block.dtype
        return np.ascontiguousarray(block, native.newbyteorder("="))

    def anywhere(self) -> Image:
        """The image with a path for workers that do not run in this folder."""
        if self.source == "memory":
            return self
        return dataclasses.replace(self, path=stores.absolute(self.path))

    def fingerprint(self) -> str:
        """SHA-256 of `state`; nothing for an image in memory."""
        if self.source == "memory":
            return ""
        return hashlib.sha256(json.dumps(self.state()).encode()).hexdigest()

    def state(self) -> list[tuple[str, int, int | str]]:
        """Sizes and times of what is stored, for fingerprints."""
        return ngff.chunk_state(
            os.path.join(self.path, self.name) if self.source == "zarr" else self.path
        )


def unreadable(image: Image, error: Exception) -> OSError | ValueError:
    """What to raise where pixels cannot be read: codecs raise what they like on a damaged chunk.

    An OSError if the file system refused, which it may not when it is asked again.
    """
    kind = OSError if ngff.system_error(error) else ValueError
    return kind(f"{image.path}: pixels cannot be read, {type(error).__name__}: {error}")


def _state(path: str, name: str) -> int | str:
    # a file that was replaced is opened anew
    return ngff.identity(path, name) if stores.is_url(path) else os.stat(path).st_mtime_ns


@functools.lru_cache(maxsize=16)
def _open_cached(path: str, source: str, name: str, state: int | str) -> Any:
    if source == "zarr":
        return ngff.open_array(path, name)
    if source == "tiff":
        import tifffile

        store = tifffile.imread(path, aszarr=True, level=int(name))
        array = ngff.open_foreign(store)
        weakref.finalize(array, store.close)
        return array
    if source == "npy":
        return np.load(path, mmap_mode="r")
    return _raster(path, colors=source != "indexed")


def _open(image: Image, state: int | str) -> Any:
    return _open_cached(image.path, image.source, image.name, state)


def _raster(path: str, colors: bool = True) -> np.ndarray:
    import PIL.Image

    PIL.Image.MAX_IMAGE_PIXELS = None  # people's own images, not uploads: large is no attack
    with PIL.Image.open(path) as picture:
        if picture.mode in ("RGB", "RGBA", "LA") and ";16" in str(picture.tile):
            import imagecodecs  # Pillow would cut these to 8 bits

            return np.asarray(imagecodecs.png_decode(Path(path).read_bytes()))
        if colors and picture.mode in ("P", "CMYK", "YCbCr"):
            return np.asarray(picture.convert("RGB"))
        return np.asarray(picture)


def guess_axes(shape: Sequence[int], path: str) -> str:
    """Axes of an array that does not name them."""
    if len(shape) == 2:
        return "yx"
    if len(shape) == 3 and shape[0] <= 4:
        return "cyx"
    if len(shape) == 3 and shape[2] in (3, 4):
        return "yxc"
    likely = "zyx" if len(shape) == 3 else "tczyx"[-len(shape) :]
    raise ValueError(
        f"{path}: its axes are not named and its shape {tuple(shape)} does not tell them; "
        f"say them with --axes, such as --axes {likely}"
    )


def open_image(
    path: str | os.PathLike[str],
    *,
    level: int = 0,
    axes: str | None = None,
    channels: Sequence[int] | None = None,
) -> Image:
    """Open one level of an image file or store, without reading pixels.

    Raises
    ------
    ValueError
        If it is missing, of a kind that cannot be read, a URL with credentials, or level, axes or
        channels do not fit.
    """
    path = str(path)
    redaction.check(path)
    if not stores.is_url(path) and not os.path.exists(path):
        raise ValueError(f"{path}: no such file or folder")
    suffix = Path(path).suffix.lower()
    if ngff.is_store(path):
        image = _from_zarr(path, level, axes)
    elif stores.is_url(path):
        raise ValueError(f"{path}: expected a Zarr store at a URL, found none")
    elif os.path.isdir(path):
        raise ValueError(f"{path}: expected an image or a Zarr store, got a folder without either")
    elif suffix in TIFF:
        image = _from_tiff(path, level, axes)
    elif suffix in RASTER or suffix == ".npy":
        image = _from_file(path, "npy" if suffix == ".npy" else "raster", level, axes)
    else:
        raise ValueError(
            f"{path}: expected OME-Zarr, Zarr, TIFF, PNG, JPEG or npy, got a file ending {suffix!r}"
        )
    return _choose(image, channels)


def open_labels(path: str | os.PathLike[str]) -> Image:
    """Open a label image: of a palette the indices; three axes without names are z, y, x.

    Raises
    ------
    ValueError
        If it cannot be read, or has several channels.
    """
    path = str(path)
    indexed, axes = _palette_or_axes(path)
    image = _from_file(path, "indexed", 0, None) if indexed else open_image(path, axes=axes)
    if image.stored_channels != 1:
        raise ValueError(
            f"{image.path}: expected a label image of one channel, got {image.stored_channels} "
            f"channels (shape {image.shape})"
        )
    return image


def _palette_or_axes(path: str) -> tuple[bool, str | None]:
    """Whether colors stand for labels, and axes where labels may have others than an image."""
    suffix = Path(path).suffix.lower()
    shape: Sequence[int] = ()
    try:
        if os.path.isdir(path) or stores.is_url(path):
            found = ngff.read_multiscale(path)
            shape = () if found.axes else found.shapes[0]
        elif suffix in RASTER:
            import PIL.Image

            with PIL.Image.open(path) as picture:
                return picture.mode == "P", None
        elif suffix == ".npy":
            shape = np.load(path, mmap_mode="r").shape
        elif suffix in TIFF:
            import tifffile

            with tifffile.TiffFile(path) as file:
                series = file.series[0]
                shape = series.shape if set(series.axes) - set("TCZYXS") else ()
    except Exception:  # a file that cannot be read is refused, with its reason, where it is opened
        return False, None
    return False, "zyx" if len(shape) == 3 else None


def from_array(data: Any, axes: str | None = None, channels: Sequence[int] | None = None) -> Image:
    """An image in memory, (y, x), (c, y, x) or (y, x, c) unless `axes` says otherwise."""
    data = np.asarray(data)
    return dataclasses.replace(describe(data, axes, channels), data=data)


def describe(array: Any, axes: str | None = None, channels: Sequence[int] | None = None) -> Image:
    """An image without its data, for arrays that are read elsewhere."""
    return _choose(_bare("array", "memory", array.shape, array.dtype, axes), channels)


def channels_first(array: Any, image: Image) -> Any:
    """The chosen channels of an array of any kind, (C, *grid)."""
    array = array[tuple(0 if a == "t" else slice(None) for a in image.axes)]
    kept = image.axes.replace("t", "")
    if "c" not in kept:
        return array[None]
    order = (kept.index("c"), *(i for i, a in enumerate(kept) if a != "c"))
    array = array.transpose(order)
    return array if image.channels is None else array[list(image.channels)]


def _bare(path: str, source: str, shape: Sequence[int], dtype: Any, axes: str | None) -> Image:
    return _make(path, source, "", axes or guess_axes(shape, path), (tuple(shape),), dtype)


def _make(
    path: str,
    source: str,
    name: str,
    axes: str,
    shapes: Sequence[tuple[int, ...]],
    dtype: Any,
    scale: Sequence[float] | None = None,
    translation: Sequence[float] | None = None,
    units: Sequence[str | None] | None = None,
) -> Image:
    shape = shapes[0]
    _check_axes(path, axes, shape)
    keep = [i for i, a in enumerate(axes) if a in ngff.SPATIAL]
    n = len(axes)
    sizes, shifts, names = scale or (1.0,) * n, translation or (0.0,) * n, units or (None,) * n
    levels = tuple(tuple(s[i] for i in keep) for s in shapes)
    return Image(
        path,
        source,
        name,
        axes,
        tuple(shape),
        np.dtype(dtype).name,
        levels,
        tuple(sizes[i] for i in keep),
        tuple(shifts[i] for i in keep),
        tuple(names[i] for i in keep),
    )


def _check_axes(path: str, axes: str, shape: Sequence[int]) -> None:
    if len(axes) != len(shape):
        raise ValueError(
            f"{path}: expected axes for the {len(shape)} dimensions of its shape {tuple(shape)}, "
            f"got {axes!r}"
        )
    spatial = "".join(a for a in axes if a in ngff.SPATIAL)
    if set(axes) - set("tczyx") or len(set(axes)) < len(axes) or spatial not in ("yx", "zyx"):
        raise ValueError(
            f"{path}: expected axes of the letters t, c, z, y, x with y and x in this order, "
            f"got {axes!r}"
        )
    if "t" in axes and shape[axes.index("t")] != 1:
        raise ValueError(
            f"{path}: expected one time point, got {shape[axes.index('t')]}: label them one by one"
        )
    if not all(shape):
        raise ValueError(f"{path}: expected pixels, got the shape {tuple(shape)}")


def _choose(image: Image, channels: Sequence[int] | None) -> Image:
    if np.dtype(image.dtype).kind not in "uifb":
        raise ValueError(f"{image.path}: expected numbers as pixels, got the type {image.dtype}")
    if channels is None:
        return image
    chosen = tuple(channels)
    if (
        not chosen
        or len(set(chosen)) < len(chosen)
        or not set(chosen) <= set(range(image.stored_channels))
    ):
        raise ValueError(
            f"{image.path}: expected different channels of 0 to {image.stored_channels - 1}, "
            f"got {','.join(map(str, chosen)) or 'none'}"
        )
    return dataclasses.replace(image, channels=chosen)


def _check_level(path: str, level: int, count: int) -> None:
    if not 0 <= level < count:
        raise ValueError(f"{path}: expected a level of 0 to {count - 1}, got --level {level}")


def _from_zarr(path: str, level: int, axes: str | None) -> Image:
    found = ngff.read_multiscale(path)
    _check_level(path, level, len(found.paths))
    name = found.paths[level]
    array = ngff.open_array(path, name)
    letters = axes or found.axes or guess_axes(array.shape, path)
    return _make(
        path,
        "zarr",
        name,
        letters,
        found.shapes[level:],
        array.dtype,
        found.scales[level],
        found.translations[level],
        found.units,
    )


def _from_tiff(path: str, level: int, axes: str | None) -> Image:
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            series = file.series[0]
            shapes = [tuple(s.shape) for s in series.levels]
            named = series.axes.replace("S", "C").lower()
            dtype, sizes = series.dtype, _pixel_sizes(file)
    except Exception as error:  # a damaged file raises what it likes
        raise ValueError(f"{path}: expected a TIFF image, got {error}") from None
    _check_level(path, level, len(shapes))
    full, shapes = shapes[0], shapes[level:]
    if axes is None and set(named) <= set("tczyx") and len(set(named)) == len(named):
        axes = named
    letters = axes or guess_axes(shapes[0], path)
    _check_axes(path, letters, shapes[0])
    scale = [
        sizes.get(a, 1.0) * (f / n if a in ngff.SPATIAL else 1)
        for a, f, n in zip(letters, full, shapes[0], strict=True)
    ]
    units = ["micrometer" if a in sizes else None for a in letters]
    return _make(path, "tiff", str(level), letters, shapes, dtype, scale, None, units)


def _pixel_sizes(file: Any) -> dict[str, float]:
    """Pixel sizes in micrometers an axis, where the header of OME or ImageJ gives them."""
    import tifffile

    found: dict[str, tuple[float, str]] = {}
    if file.ome_metadata:
        entry = tifffile.xml2dict(file.ome_metadata).get("OME", {}).get("Image", {})
        pixels = (entry[0] if isinstance(entry, list) else entry).get("Pixels", {})
        for axis in "ZYX":
            key = f"PhysicalSize{axis}"
            found[axis] = (float(pixels.get(key, 0)), pixels.get(f"{key}Unit", "µm"))
    elif file.imagej_metadata:
        unit = str(file.imagej_metadata.get("unit"))
        found["Z"] = (float(file.imagej_metadata.get("spacing", 0)), unit)
        for axis in "YX":
            tag = file.pages[0].tags.get(f"{axis}Resolution")
            count, length = tag.value if tag else (0, 0)
            found[axis] = (length / count if count else 0.0, unit)
    return {
        axis.lower(): size * MICROMETERS[unit]
        for axis, (size, unit) in found.items()
        if size > 0 and unit in MICROMETERS
    }


def _from_file(path: str, source: str, level: int, axes: str | None) -> Image:
    _check_level(path, level, 1)
    try:
        array = _open_cached(path, source, "", _state(path, ""))
    except (OSError, EOFError, ValueError, SyntaxError) as error:
        raise ValueError(f"{path}: this file cannot be read, {error}") from None
    if source == "raster":
        axes = axes or "yxc"[: array.ndim]
    return _bare(path, source, array.shape, array.dtype, axes)
