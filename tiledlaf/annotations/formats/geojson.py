"""GeoJSON as QuPath and its scripts write it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ...errors import InputError
from .. import shapes
from ..shapes import Document, Format, Shape, Wanted


class GeoJson(Format):
    """A collection of features, a list of them, a single one, or bare geometries."""

    suffixes = frozenset({".geojson", ".json"})
    expects = "GeoJSON with features"

    def sniff(self, document: Document) -> bool:
        """Whatever JSON no other format claims, so that a message can say what it lacks."""
        return True

    def read(self, document: Document, wanted: Wanted) -> list[Shape]:
        """One annotation for each feature."""
        title = document.title
        found = _features(document.json, title)
        return [_shape(one, f"{title}: annotation {n}") for n, one in enumerate(found, 1)]


def _features(given: Any, title: str) -> Iterator[Mapping[str, Any]]:
    if isinstance(given, list):
        for one in given:
            yield from _features(one, title)
        return
    kind = _type(given)
    if kind == "FeatureCollection" and isinstance(given.get("features"), list):
        yield from _features(given["features"], title)
    elif kind == "Feature":
        yield given
    elif kind in GEOMETRIES:
        yield {"geometry": given}
    else:
        raise InputError(
            f"{title}: expected GeoJSON with features or COCO JSON with annotations, "
            f"got {shapes.shown(given)}"
        )


def _type(given: Any) -> str:
    """What an object says it is; "" where it does not."""
    kind = given.get("type") if isinstance(given, Mapping) else None
    return kind if isinstance(kind, str) else ""


def _shape(feature: Mapping[str, Any], where: str) -> Shape:
    geometry = feature.get("geometry") or {"type": "GeometryCollection", "geometries": []}
    properties = feature.get("properties") or {}
    if not isinstance(properties, Mapping):
        raise InputError(f"{where}: expected properties, got {shapes.shown(properties)}")
    name, color = _class(properties, where)
    made = _geometry(geometry, where)
    plane = geometry.get("plane") or properties.get("plane") or {}
    z, t = (_index(plane, axis, where) for axis in "zt")
    return Shape(made, name, color, z, t, _kind(feature, properties))


def _kind(feature: Mapping[str, Any], properties: Mapping[str, Any]) -> str:
    """What QuPath calls an object: up to 0.2 by the feature's id, a class of its own."""
    given = properties.get("objectType") or properties.get("object_type")
    if given is None:
        old = re.fullmatch(r"(?:Path)?(\w+?)Object", str(feature.get("id")))
        given = old[1] if old else "annotation"
    kind = str(given).lower().removeprefix("path").removesuffix("object").strip("_")
    return {"tmacore": "tma_core"}.get(kind, kind)


def _class(properties: Mapping[str, Any], where: str) -> tuple[str | None, str]:
    """Name and color of the class; derived classes such as "Tumor: Positive" have parts."""
    given = properties.get("classification")
    if given is None or isinstance(given, str):
        return given or None, ""
    if not isinstance(given, Mapping):
        raise InputError(f"{where}: expected a classification, got {shapes.shown(given)}")
    name = given.get("name")
    if name is None and isinstance(given.get("names"), list):
        name = ": ".join(map(str, given["names"]))
    return (str(name) if name else None), _color(given)


def _color(given: Mapping[str, Any]) -> str:
    """RRGGBB of a list, or of a signed integer with alpha in its highest byte."""
    color = given.get("color", given.get("colorRGB"))
    if isinstance(color, int) and not isinstance(color, bool):
        return f"{color & 0xFFFFFF:06x}"
    if isinstance(color, list) and len(color) >= 3 and all(_is_byte(c) for c in color[:3]):
        return "".join(f"{c:02x}" for c in color[:3])
    return ""


def _is_byte(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value < 256


def _index(plane: Any, axis: str, where: str) -> int | None:
    value = plane.get(axis) if isinstance(plane, Mapping) else plane
    if value is None:
        return None
    if not isinstance(value, int | float) or value % 1 != 0 or abs(value) > shapes.MOST:
        raise InputError(f"{where}: expected a plane such as z 0, got {axis} {shapes.shown(value)}")
    return int(value)


def _geometry(given: Any, where: str) -> Any:
    kind = _type(given)
    if kind not in GEOMETRIES:
        raise InputError(
            f"{where}: expected a geometry such as a Polygon, got {shapes.shown(kind or given)}"
        )
    key = "geometries" if kind == "GeometryCollection" else "coordinates"
    inside = given.get(key)
    if not isinstance(inside, list):
        raise InputError(f"{where}: expected {key} of a {kind}, got {shapes.shown(inside)}")
    return GEOMETRIES[kind](inside, where)


def _polygon(rings: Any, where: str) -> Any:
    if not isinstance(rings, list):
        raise InputError(f"{where}: expected rings of a Polygon, got {shapes.shown(rings)}")
    return shapes.polygon([shapes.points(ring, where) for ring in rings])


def _line(positions: Any, where: str) -> Any:
    return shapes.line(shapes.points(positions, where))


def _points(positions: Any, where: str) -> Any:
    import shapely

    return shapely.MultiPoint(shapes.points(positions, where))


def _point(position: Any, where: str) -> Any:
    return _points([position] if position else [], where)


def _several(part: Any) -> Any:
    def made(given: Any, where: str) -> Any:
        import shapely

        parts = [one for one in (part(g, where) for g in given) if not one.is_empty]
        kinds = {one.geom_type for one in parts}
        if kinds == {"Polygon"}:
            return shapely.MultiPolygon(parts)
        return shapely.GeometryCollection(parts)

    return made


GEOMETRIES = {
    "Polygon": _polygon,
    "MultiPolygon": _several(_polygon),
    "LineString": _line,
    "MultiLineString": _several(_line),
    "Point": _point,
    "MultiPoint": _points,
    "GeometryCollection": _several(_geometry),
}
