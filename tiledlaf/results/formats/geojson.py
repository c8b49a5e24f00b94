"""GeoJSON that QuPath opens: classes or objects as polygons, in pixels of the image's level 0."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, Any

from ...errors import InputError
from ...pool.tasks import Pool
from ...redaction import each_plain
from .. import objects, planes, polygons
from ..exporting import Choice, Export, Progress, beside, chosen
from ..result import Result

END = b"\n]}\n"
PLACE = re.compile(r"label|t|(min|max)_[zyx]")  # columns that measure nothing


@dataclass(frozen=True)
class GeoJson(Export):
    """An annotation per class, or a detection per object, of a polygon for each connected part."""

    name = "GeoJSON"
    suffixes = frozenset({".geojson"})
    options = frozenset({"classes", "objects", "simplify", "z", "time_point"})
    pooled = True

    def check(self, result: Result, choice: Choice) -> None:
        """Refuse several planes at once, and micrometers where a pixel has no size."""
        chosen(result, choice)
        planes.check(result, choice)
        if choice.simplify is not None and result.pixel_size is None:
            raise InputError(
                f"{result.store}: `simplify` is in micrometers, and the pixel size is not known "
                "(`input_pixel_size` of label states it)"
            )

    def write(
        self, result: Result, path: str, choice: Choice, pool: Pool, progress: Progress
    ) -> None:
        """Write the polygons of each class or object one by one."""
        with open(path, "wb") as out:
            out.write(_beginning(choice))
            if choice.objects is None:
                _write_classes(out, result, choice, pool, progress)
            else:
                _write_objects(out, result, choice, pool, progress)
            out.write(END)


def _write_classes(
    out: IO[bytes], result: Result, choice: Choice, pool: Pool, progress: Progress
) -> None:
    """Write a feature per class: its polygons come from everywhere, and wait in files."""
    values, plane = chosen(result, choice), planes.plane(result, choice)
    job, folder = _drawing(result, choice, tuple(values)), os.path.dirname(out.name) or "."
    with ExitStack() as stack:
        files = {value: stack.enter_context(tempfile.TemporaryFile(dir=folder)) for value in values}
        counts = dict.fromkeys(values, 0)
        for found, _ in polygons.polygons(job, pool, _told(progress)):
            for value, text in found:
                files[value].write(b",\n" * bool(counts[value]) + text)
                counts[value] += 1
        for number, value in enumerate(value for value in values if counts[value]):
            properties = {"objectType": "annotation", "classification": _class(result, value)}
            name = f"{result.notes.get('fingerprint')}/{plane.position}/{value}"
            out.write(b",\n" * bool(number))
            out.write(_head(counts[value], name, plane))
            files[value].seek(0)
            shutil.copyfileobj(files[value], out, 2**20)
            out.write(_tail(counts[value], properties))


def _write_objects(
    out: IO[bytes], result: Result, choice: Choice, pool: Pool, progress: Progress
) -> None:
    """Write a feature per object, once none of its pixels can follow."""
    found = objects.find_objects(result, str(choice.objects), pool, None, progress)
    instances, plane = beside(result, found), planes.plane(result, choice)
    table = {name: one for name, one in found.table.items() if not PLACE.fullmatch(name)}
    job = _drawing(instances, choice, None)
    shown = _class(result, objects.value_of(result.names, found.name))
    waiting: dict[int, list[bytes]] = {}
    written = False
    for several, left in polygons.polygons(job, pool, _told(progress)):
        for value, text in several:
            waiting.setdefault(value, []).append(text)
        for value in [one for one in waiting if one not in left]:
            texts = waiting.pop(value)
            measured = {name: one[value - 1].item() for name, one in table.items()}
            properties = {
                "objectType": "detection",
                "name": str(value),
                "classification": shown,
                "measurements": {k: v for k, v in measured.items() if math.isfinite(v)},
            }
            name = f"{result.notes.get('fingerprint')}/{plane.position}/{found.group}/{value}"
            out.write(b",\n" * written + _head(len(texts), name, plane))
            out.write(b",".join(texts) + _tail(len(texts), properties))
            written = True


def _drawing(result: Result, choice: Choice, values: tuple[int, ...] | None) -> Any:
    plane = planes.plane(result, choice)
    tolerance = None
    if choice.simplify is not None:
        assert result.pixel_size is not None
        y, x = result.pixel_size[-2:]
        tolerance = choice.simplify / y, choice.simplify / x
    return polygons.drawing(
        result.labels, plane.before, values, plane.origin, plane.ratio, tolerance
    )


def _told(progress: Progress) -> Any:
    return lambda done, of: progress({"stage": "polygons", "done": done, "of": of})


def _beginning(choice: Choice) -> bytes:
    """The collection, which says how much its borders were simplified."""
    said = {} if choice.simplify is None else {"simplified_um": choice.simplify}
    text = "".join(f"{json.dumps(key)}:{json.dumps(value)}," for key, value in said.items())
    return f'{{"type":"FeatureCollection",{text}"features":[\n'.encode()


def _class(result: Result, value: int) -> dict[str, Any]:
    return {"name": result.names[value], "color": list(result.colors[value])}


def _head(count: int, name: str, plane: planes.Plane) -> bytes:
    """A feature up to its coordinates: the number of polygons, and a name to make its id of."""
    kind, before = ("Polygon", "") if count == 1 else ("MultiPolygon", "[")
    key = uuid.uuid5(uuid.NAMESPACE_URL, name)
    place = ""
    if plane.position:
        place = f'"plane":{_json({"c": -1, "z": 0, "t": 0} | dict(plane.position))},'
    text = f'{{"type":"Feature","id":"{key}","geometry":{{"type":"{kind}",{place}"coordinates":'
    return (text + before).encode()


def _tail(count: int, properties: Mapping[str, Any]) -> bytes:
    """A feature after its coordinates."""
    text = _json(each_plain(dict(properties)))
    return f'{"" if count == 1 else "]"}}},"properties":{text}}}'.encode()


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
