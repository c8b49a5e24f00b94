"""TIFF: OME-TIFF, ImageJ's, slides, and plain ones."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

from ...errors import DamagedFile
from .. import image, nodes
from ..image import SPATIAL, Levels, Reader

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


@dataclass(frozen=True)
class Tiff(Reader):
    """A level of the first series of a TIFF, read by tifffile."""

    name = "tiff"
    suffixes = frozenset({".tif", ".tiff", ".btf", ".svs", ".ndpi", ".scn", ".qptiff"})
    lossy = True

    def look(self, path: str, level: int, axes: str | None) -> Levels:
        """Shapes of the levels, and pixel sizes where the header gives them."""
        import tifffile

        try:
            with tifffile.TiffFile(path) as file:
                series = file.series[0]
                shapes = [tuple(s.shape) for s in series.levels]
                named = series.axes.replace("S", "C").lower()
                dtype, sizes = series.dtype, _pixel_sizes(file)
        except Exception as error:  # a damaged file may raise anything
            raise DamagedFile(f"{path}: expected a TIFF image, got {error}") from None
        image.check_level(path, level, len(shapes))
        full, shapes = shapes[0], shapes[level:]
        if axes is None and set(named) <= set("tczyx") and len(set(named)) == len(named):
            axes = named
        letters = axes or image.guess_axes(shapes[0], path)
        image.check_axes(path, letters, shapes[0])
        scale = [
            sizes.get(a, 1.0) * (f / n if a in SPATIAL else 1)
            for a, f, n in zip(letters, full, shapes[0], strict=True)
        ]
        units = ["micrometer" if a in sizes else None for a in letters]
        return Levels(str(level), letters, shapes, dtype, scale, None, units)

    def open(self, path: str, name: str) -> Any:
        """The level as a Zarr array, which decodes only what is read."""
        import tifffile

        store = tifffile.imread(path, aszarr=True, level=int(name))
        array = nodes.open_foreign(store)
        weakref.finalize(array, store.close)
        return array

    def as_labels(self, path: str) -> tuple[Reader, str | None]:
        """Three axes without names are z, y, x."""
        import tifffile

        with tifffile.TiffFile(path) as file:
            series = file.series[0]
            unnamed = bool(set(series.axes) - set("TCZYXS"))
            return self, "zyx" if unnamed and len(series.shape) == 3 else None


def _pixel_sizes(file: Any) -> dict[str, float]:
    """Pixel size in micrometers along each axis, where an OME or ImageJ header gives it."""
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
