"""Open images of any format: OME-Zarr, Zarr, TIFF, PNG, JPEG, npy, or arrays in memory."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import redaction
from . import image as image_files
from . import ngff, nodes, stores
from .image import Image

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
    if nodes.is_store(path):
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
    return image_files.choose_channels(image, channels)


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
    return image_files.choose_channels(
        image_files.bare("array", "memory", array.shape, array.dtype, axes), channels
    )


def _from_zarr(path: str, level: int, axes: str | None) -> Image:
    found = ngff.read_multiscale(path)
    image_files.check_level(path, level, len(found.paths))
    name = found.paths[level]
    array = nodes.open_array(path, name)
    letters = axes or found.axes or image_files.guess_axes(array.shape, path)
    return image_files.make(
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
    image_files.check_level(path, level, len(shapes))
    full, shapes = shapes[0], shapes[level:]
    if axes is None and set(named) <= set("tczyx") and len(set(named)) == len(named):
        axes = named
    letters = axes or image_files.guess_axes(shapes[0], path)
    image_files.check_axes(path, letters, shapes[0])
    scale = [
        sizes.get(a, 1.0) * (f / n if a in image_files.SPATIAL else 1)
        for a, f, n in zip(letters, full, shapes[0], strict=True)
    ]
    units = ["micrometer" if a in sizes else None for a in letters]
    return image_files.make(path, "tiff", str(level), letters, shapes, dtype, scale, None, units)


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
    image_files.check_level(path, level, 1)
    try:
        array = image_files.open_cached(path, source, "", image_files.state(path, ""))
    except (OSError, EOFError, ValueError, SyntaxError) as error:
        raise ValueError(f"{path}: this file cannot be read, {error}") from None
    if source == "raster":
        axes = axes or "yxc"[: array.ndim]
    return image_files.bare(path, source, array.shape, array.dtype, axes)
