"""GeoJSON that QuPath opens: classes or objects as polygons, in pixels of the image's level 0."""

from __future__ import annotations

import json
import math
import os
import re
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

from ...errors import InputError
from ...pool.tasks import Pool
from ...redaction import each_plain
from .. import objects, planes, polygons
from ..exporting import Choice, Export, Progress, beside, chosen
from ..result import Result

END = b"\n]}\n"
HELD = 2**26  # bytes of polygons in memory
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
        if choice.simplify is not None and result.plane_size is None:
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
    """Write a feature per class: its polygons come from everywhere, and wait in a file."""
    values, plane = chosen(result, choice), planes.plane(result, choice)
    job, folder = _drawing(result, choice, tuple(values)), os.path.dirname(out.name) or "."
    with tempfile.TemporaryFile(dir=folder) as file:
        waiting = _Waiting(file)
        for found, _ in polygons.polygons(job, pool, _told(progress)):
            for value, text in found:
                waiting.add(value, text)
        for number, value in enumerate(value for value in values if waiting.counts[value]):
            properties = {"objectType": "annotation", "classification": _class(result, value)}
            name = f"{result.notes.get('fingerprint')}/{plane.position}/{value}"
            out.write(b",\n" * bool(number))
            out.write(_head(waiting.counts[value], name, plane))
            out.writelines(waiting.texts(value))
            out.write(_tail(waiting.counts[value], properties))


class _Waiting:
    """Polygons of many classes in one file: a file each would be more than a process may open."""

    def __init__(self, file: IO[bytes]) -> None:
        self.counts: Counter[int] = Counter()
        self._file, self._size = file, 0
        self._held: dict[int, list[bytes]] = {}
        self._places: dict[int, list[tuple[int, int]]] = {}  # of the parts in the file

    def add(self, value: int, text: bytes) -> None:
        """Keep a polygon of a class."""
        part = b",\n" * bool(self.counts[value]) + text
        self.counts[value] += 1
        self._held.setdefault(value, []).append(part)
        self._size += len(part)
        if self._size > HELD:
            for one, parts in self._held.items():
                whole = b"".join(parts)
                self._places.setdefault(one, []).append((self._file.tell(), len(whole)))
                self._file.write(whole)
            self._held, self._size = {}, 0

    def texts(self, value: int) -> Iterator[bytes]:
        """The polygons of a class, one after the other."""
        for start, length in self._places.get(value, ()):
            self._file.seek(start)
            yield self._file.read(length)
        yield from self._held.get(value, ())


def _write_objects(
    out: IO[bytes], result: Result, choice: Choice, pool: Pool, progress: Progress
) -> None:
    """Write a feature per object, once none of its pixels can follow."""
    found = objects.find_objects(result, str(choice.objects), pool, None, progress)
    instances, plane = beside(result, found), planes.plane(result, choice)
    every = found.table
    table = {name: one for name, one in every.items() if not PLACE.fullmatch(name)}
    job = _drawing(instances, choice, None)
    shown = _class(result, objects.value_of(result.names, found.name))
    waiting: dict[int, list[bytes]] = {}
    written = False
    for several, complete in polygons.polygons(job, pool, _told(progress)):
        for value, text in several:
            waiting.setdefault(value, []).append(text)
        # parts of one object need not be connected within the plane
        for value in [one for one in waiting if every["max_y"][one - 1] <= complete]:
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
        assert result.plane_size is not None
        y, x = result.plane_size
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
