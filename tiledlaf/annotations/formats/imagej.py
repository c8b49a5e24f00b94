"""ROIs of ImageJ: one in a file, or a set of them in a zip file. Needs `roifile`."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any

from ...errors import InputError
from .. import shapes
from ..shapes import Document, Format, Shape, Wanted

UNNAMED = re.compile(r"(\d{4,}-){1,3}\d{4,}")  # ImageJ's own names: plane, row and column
NUMBERED = re.compile(r"(.*?\S)[-_ #.]+\d+")


class ImageJ(Format):
    """A ROI, whose class is its group, or else its name without the number at its end."""

    suffixes = frozenset({".roi"})
    expects = "a ROI of ImageJ"

    def sniff(self, document: Document) -> bool:
        """ROIs begin with "Iout"."""
        return True

    def read(self, document: Document, wanted: Wanted) -> list[Shape]:
        """One shape."""
        try:
            import roifile
        except ImportError:
            raise InputError(
                f"{document.path}: ROIs of ImageJ need roifile: pip install tiledlaf[imagej]"
            ) from None
        with _strict():
            roi = roifile.ImagejRoi.frombytes(document.data)
        geometry = _geometry(roi, document.title)
        # of a stack without other axes, ImageJ only says the number of the plane
        z = roi.z_position or (0 if roi.c_position or roi.t_position else roi.position)
        name = roi.name or PurePosixPath(document.name).stem
        label, t = _class(roi.group, name), roi.t_position
        return [Shape(geometry, label, z=_from_zero(z), t=_from_zero(t))]


class _Raise(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise ValueError(record.getMessage())


@contextmanager
def _strict() -> Iterator[None]:
    """Raise what roifile only logs: that a name or coordinates are not whole."""
    logger, handler = logging.getLogger("roifile"), _Raise()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _from_zero(position: int) -> int | None:
    """An index, None where the ROI is not bound to a position."""
    return position - 1 if position else None


def _class(group: int, name: str) -> str | None:
    if group:
        return f"group {group}"
    if UNNAMED.fullmatch(name):
        return None
    numbered = NUMBERED.fullmatch(name)
    return numbered[1] if numbered else name


def _geometry(roi: Any, where: str) -> Any:
    import roifile
    import shapely

    kinds = roifile.ROI_TYPE
    if roi.multi_coordinates is not None:
        return _composite(roi, where)
    if roi.roitype in (kinds.RECT, kinds.OVAL):
        x, y, width, height = roi.left, roi.top, roi.right - roi.left, roi.bottom - roi.top
        if roi.subpixelrect:
            x, y, width, height = roi.xd, roi.yd, roi.widthd, roi.heightd
        corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
        ring = shapes.points(corners, where)
        return shapes.polygon([ring]) if roi.roitype == kinds.RECT else shapes.ellipse(ring)
    found = shapes.points(roi.coordinates(), where)
    if roi.roitype in (kinds.POLYGON, kinds.FREEHAND, kinds.TRACED):
        return shapes.polygon([found])
    if roi.subpixel_coordinates is None and roi.roitype != kinds.LINE:
        found = found + 0.5  # whole numbers of lines and points mean pixels, not their corners
    if roi.roitype in (kinds.LINE, kinds.FREELINE, kinds.POLYLINE, kinds.ANGLE):
        return shapes.line(found)
    if roi.roitype == kinds.POINT:
        return shapely.MultiPoint(found)
    raise InputError(f"{where}: expected an area, a line or points, got a ROI {roi.roitype.name}")


def _composite(roi: Any, where: str) -> Any:
    """What an odd number of its rings holds, so that a ring within another is a hole."""
    import shapely

    rings = [shapes.points(ring, where) for ring in roi.coordinates(multi=True)]
    parts = [shapely.make_valid(shapes.polygon([ring])) for ring in rings]
    whole: Any = shapely.Polygon()
    for part in parts:
        whole = whole.symmetric_difference(part)
    return whole
