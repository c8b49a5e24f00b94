"""Shapes and points of napari, as CSV."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import InputError
from .. import shapes
from ..shapes import Document, Format, Shape, Wanted

CLASSES = ("class", "label")  # columns that name a class


class Napari(Format):
    """Shapes of one class, named like the file, unless a column `class` or `label` names them."""

    suffixes = frozenset({".csv"})
    expects = "shapes of napari"

    def sniff(self, document: Document) -> bool:
        """Whatever CSV there is, so that a message can say what it lacks."""
        return True

    def read(self, document: Document, wanted: Wanted) -> list[Shape]:
        """One shape for each index."""
        rows = list(csv.DictReader(document.text().splitlines()))
        columns = list(rows[0]) if rows else []
        axes = [c for c in columns if c and c.startswith("axis-")]
        if "index" not in columns or not 2 <= len(axes) <= 4:
            got = shapes.cut(", ".join(map(str, columns[:8]))) or "no rows"
            raise InputError(
                f"{document.title}: expected the columns index, shape-type, vertex-index, axis-0, "
                f"axis-1 of napari, got {got}"
            )
        groups: dict[str, list[Mapping[str, str]]] = {}
        for number, row in enumerate(rows):
            key = row["index"] if "shape-type" in columns else str(number)
            groups.setdefault(key, []).append(row)
        named = next((c for c in CLASSES if c in columns), None)
        title = shapes.stem(document.name)
        return [
            _shape(
                group,
                axes,
                group[0][named] if named else title,
                f"{document.title}: {shapes.cut(str(key))}",
            )
            for key, group in groups.items()
        ]


def _shape(rows: Sequence[Mapping[str, str]], axes: list[str], name: str, where: str) -> Shape:
    try:
        found = np.array([[float(row[axis]) for axis in axes] for row in rows])
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{where}: expected numbers as positions, {shapes.cut(str(error))}"
        ) from None
    planes = [_plane(found[:, i], axes[i], where) for i in range(len(axes) - 2)]
    t, z = (None, None, *planes)[-2:]
    # napari counts from the middle of the first pixel
    ring = shapes.points(found[:, :-3:-1] + 0.5, where)
    kind = rows[0].get("shape-type", "point")
    if kind not in KINDS or (kind in ("rectangle", "ellipse") and len(ring) != 4):
        raise InputError(
            f"{where}: expected a {', a '.join(KINDS)} with its corners, got {shapes.shown(kind)} "
            f"with {len(ring)}"
        )
    return Shape(KINDS[kind](ring), name or None, "", z, t)


def _plane(values: np.ndarray, axis: str, where: str) -> int:
    """The plane that a shape lies in."""
    if not np.isfinite(values).all() or np.ptp(values) > 1e-6:
        raise InputError(f"{where}: expected a shape in one plane, got several values of {axis}")
    return math.floor(values[0] + 0.5)


def _polygon(ring: np.ndarray) -> Any:
    return shapes.polygon([ring])


def _points(ring: np.ndarray) -> Any:
    import shapely

    return shapely.MultiPoint(ring)


KINDS = {
    "polygon": _polygon,
    "rectangle": _polygon,
    "ellipse": shapes.ellipse,
    "line": shapes.line,
    "path": shapes.line,
    "point": _points,
}
