"""What headers of TIFFs say about pixel sizes and channels: OME, ImageJ, Aperio, plain tags."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import DamagedFile
from .channels import Channel
from .image import SPATIAL
from .lengths import MICROMETERS

RESOLUTION_UNITS = {2: 25400.0, 3: 1e4, 4: 1e3, 5: 1.0}  # inch, centimeter; of some: mm, µm
# programs that know no pixel size write 72, 96 or 300 dots per inch: pixels of 85 µm and more
PRINTED = 20.0
PLANES = 2**24  # most of an image


def pixel_sizes(file: Any, series: Any, number: int) -> dict[str, float]:
    """Pixel size in micrometers along each axis, of level 0, where a header gives it.

    Parameters
    ----------
    file, series : of tifffile
    number : of the series in the file
    """
    if file.is_ome:
        found = _ome_sizes(_ome_image(file, series, number))
    elif file.imagej_metadata:
        found = _imagej_sizes(file)
    else:
        found = _aperio_sizes(series.keyframe.description)
    # a slide's thumbnail has the resolution of its own tags, or none
    return found if set("yx") <= set(found) else found | _tagged_sizes(series.keyframe)


def check_planes(path: str, xml: str) -> None:
    """Refuse OME-XML of more planes than there can be, before a list of them is made.

    Raises
    ------
    ValueError
        If it has them.
    """
    for pixels in re.findall(r"<(?:\w+:)?Pixels\b[^>]*>", xml):
        count = math.prod(float(n) for n in re.findall(r"""\bSize[CZT]=["'](\d+)""", pixels))
        if count > PLANES:
            raise DamagedFile(f"{path}: expected a TIFF image, got OME-XML of {count:g} planes")


def _ome_image(file: Any, series: Any, number: int) -> Mapping[str, Any]:
    """The `Image` element of a series; empty where the XML is damaged or it is not clear which."""
    import tifffile

    try:
        found = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]
    except Exception:  # damaged XML costs what it says, not the image
        return {}
    images = found if isinstance(found, list) else [found]
    if len(images) != len(file.series):  # some are in files that are missing
        size = dict(zip(series.axes, series.shape, strict=True))
        images = [i for i in images if _has_size(i, size)]
        number = 0 if len(images) == 1 else len(images)
    image = images[number] if number < len(images) else {}
    return image if isinstance(image, Mapping) else {}


def _has_size(image: Any, size: Mapping[str, int]) -> bool:
    """Whether an `Image` element has the size of a series in its plane."""
    pixels = image.get("Pixels") or {} if isinstance(image, Mapping) else {}
    return all(pixels.get(f"Size{axis}") == size.get(axis) for axis in "YX")


def _ome_sizes(image: Mapping[str, Any]) -> dict[str, float]:
    pixels = image.get("Pixels") or {}
    found = {}
    for axis in SPATIAL.upper():
        size, unit = pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "µm")
        if isinstance(size, int | float) and 0 < size < float("inf") and unit in MICROMETERS:
            found[axis.lower()] = size * MICROMETERS[unit]
    return found


def _imagej_sizes(file: Any) -> dict[str, float]:
    unit = MICROMETERS.get(str(file.imagej_metadata.get("unit")))
    if unit is None:
        return {}
    spacing = file.imagej_metadata.get("spacing", 0)
    found = {"z": float(spacing)} if isinstance(spacing, int | float) and spacing > 0 else {}
    return {axis: size * unit for axis, size in (found | _resolution(file.pages[0])).items()}


def _aperio_sizes(description: str) -> dict[str, float]:
    """Of Aperio's header, which other scanners and QuPath write as well: MPP = 0.2527.

    A thumbnail repeats the slide's, beside how it was reduced: 46000x32914 -> 1024x732.
    """
    told = re.search(r"\bMPP ?= ?(\d*\.?\d+)", description)
    if told is None or not description.startswith("Aperio") or float(told[1]) <= 0:
        return {}
    head = description.split("|")[0]
    became = re.search(r"-> ?(\d+)x(\d+)", head)
    was = re.search(r"\[\S+ (\d+)x(\d+)\]", head) or re.search(r"(\d+)x(\d+)", head)
    steps = (1.0, 1.0)
    if became and was and became.start() > was.start() and int(became[1]) and int(became[2]):
        steps = int(was[2]) / int(became[2]), int(was[1]) / int(became[1])
    return {axis: float(told[1]) * step for axis, step in zip("yx", steps, strict=True)}


def _tagged_sizes(page: Any) -> dict[str, float]:
    """Of the resolution tags, unless they are those of a print."""
    tag = page.tags.get("ResolutionUnit")
    unit = RESOLUTION_UNITS.get(int(tag.value) if tag else 2)
    if unit is None:
        return {}
    found = {axis: length * unit for axis, length in _resolution(page).items()}
    return found if found and max(found.values()) < PRINTED else {}


def _resolution(page: Any) -> dict[str, float]:
    """Units per pixel, of the resolution tags."""
    found = {}
    for axis in "yx":
        tag = page.tags.get(f"{axis.upper()}Resolution")
        count, length = tag.value if tag else (0, 0)
        if count > 0 and length > 0:
            found[axis] = length / count
    return found


def channels(file: Any, series: Any, number: int, count: int) -> tuple[Channel, ...]:
    """Names, colors and windows of the channels; none where no header has those of all."""
    if file.is_ome:
        found = _ome_channels(_ome_image(file, series, number))
    elif file.imagej_metadata:
        found = _imagej_channels(file.imagej_metadata, count)
    else:
        found = _page_channels(series)
    return tuple(found) if len(found) == count else ()


def _ome_channels(image: Mapping[str, Any]) -> list[Channel]:
    listed = (image.get("Pixels") or {}).get("Channel") or []
    found = []
    for entry in listed if isinstance(listed, list) else [listed]:
        name, color = entry.get("Name"), entry.get("Color")
        # a signed number of red, green, blue and alpha, a byte for each
        shown = f"{(color & 0xFFFFFFFF) >> 8:06X}" if isinstance(color, int) else None
        found.append(Channel(None if name is None else str(name), shown))
    return found if any(c.name or c.color for c in found) else []


def _imagej_channels(notes: Mapping[str, Any], count: int) -> list[Channel]:
    labels = notes.get("Labels") or ()
    # one label for each plane; the channels run fastest
    names = [str(label) for label in labels[:count]] if len(labels) >= count > 1 else [None] * count
    ranges = notes.get("Ranges") or ()
    windows: list[Any] = [None] * count
    if len(ranges) == 2 * count:
        windows = [(a, b, a, b) for a, b in zip(ranges[::2], ranges[1::2], strict=True)]
    found = [Channel(*row) for row in zip(names, [None] * count, windows, strict=True)]
    return found if any(c.name or c.window for c in found) else []


def _page_channels(series: Any) -> list[Channel]:
    """Of PerkinElmer's header, which has an element for each page."""
    if series.kind != "qpi":
        return []
    import tifffile

    found = []
    for page in series.pages:
        try:
            (about,) = tifffile.xml2dict(page.aspage().description).values()
            name, color = about.get("Name"), about.get("Color")
        except Exception:  # damaged XML costs the names
            return []
        parts = [int(part) for part in re.findall(r"\d+", str(color))]
        shown = "{:02X}{:02X}{:02X}".format(*parts) if _is_rgb(parts) else None
        found.append(Channel(None if name is None else str(name), shown))
    return found


def _is_rgb(parts: Sequence[int]) -> bool:
    return len(parts) == 3 and max(parts) < 256
