"""COCO JSON, as CVAT and others export it: polygons and run lengths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import InputError
from .. import shapes
from ..shapes import Document, Format, Shape, Wanted

KEYS = ("images", "annotations", "categories")


class Coco(Format):
    """The annotations of one of the images in a file."""

    suffixes = frozenset({".json"})
    several = True
    expects = "COCO JSON with images, annotations and their categories"

    def sniff(self, document: Document) -> bool:
        """An object with images, annotations and categories."""
        given = document.json
        return isinstance(given, Mapping) and all(isinstance(given.get(k), list) for k in KEYS)

    def read(self, document: Document, wanted: Wanted) -> list[Shape]:
        """One shape for each annotation of the image whose file name has the wanted stem."""
        given, title = document.json, document.title
        image = _image(given["images"], wanted, title)
        names = {one["id"]: str(one["name"]) for one in given["categories"]}
        size = (int(image["height"]), int(image["width"]))
        if size != wanted.size:
            raise InputError(
                f"{title}: expected annotations of an image of {wanted.size[0]} x "
                f"{wanted.size[1]} pixels, got those of {image['file_name']} with "
                f"{shapes.cut(f'{size[0]} x {size[1]}')}"
            )
        return [
            Shape(_geometry(one, f"{title}: annotation {shapes.shown(number)}"), names[category])
            for number, one, category in _of_image(given["annotations"], image["id"])
        ]


def _of_image(
    annotations: Sequence[Mapping[str, Any]], number: Any
) -> Iterator[tuple[Any, Mapping[str, Any], Any]]:
    """Number, annotation and category of those of an image."""
    for place, one in enumerate(annotations, 1):
        if one["image_id"] == number:
            yield one.get("id", place), one, one["category_id"]


def _image(images: Sequence[Mapping[str, Any]], wanted: Wanted, title: str) -> Mapping[str, Any]:
    """The image with the wanted stem."""
    found = [one for one in images if shapes.stem(one["file_name"]) == wanted.stem]
    if len(found) != 1:
        names = ", ".join(shapes.cut(str(one["file_name"])) for one in (found or images)[:5])
        more = ", ..." if len(found or images) > 5 else ""
        raise InputError(
            f"{title}: expected one image of the name {wanted.stem} among its images, "
            f"got {names}{more}"
        )
    return found[0]


def _geometry(annotation: Mapping[str, Any], where: str) -> Any:
    import shapely

    given = annotation.get("segmentation")
    if isinstance(given, Mapping):
        return _runs(given, where)
    if given:
        rings = [shapes.points(np.reshape(_even(ring, where), (-1, 2)), where) for ring in given]
        parts = [part for part in map(shapes.polygon, zip(rings, strict=True)) if not part.is_empty]
        return shapely.MultiPolygon(parts)
    if annotation.get("bbox"):
        x, y, width, height = annotation["bbox"]
        corners = shapes.points([(x, y), (x + width, y + height)], where)
        return shapely.box(*corners.ravel())
    return shapely.Polygon()


def _even(ring: Any, where: str) -> Any:
    if not isinstance(ring, list) or len(ring) % 2:
        raise InputError(f"{where}: expected x, y, x, y, ... of a polygon, got {len(ring)} numbers")
    return ring


def _runs(given: Mapping[str, Any], where: str) -> Any:
    """The union of the runs of pixels that are set, down each column and column after column."""
    import shapely

    height, width = (int(n) for n in given["size"])
    counts = given["counts"]
    if isinstance(counts, str):
        counts = decoded(counts, where)
    ends = np.cumsum(np.asarray(counts, np.int64))
    if len(ends) == 0 or min(*counts, height, width) < 0 or ends[-1] != height * width:
        size = shapes.cut(f"{height} x {width}")
        raise InputError(f"{where}: expected run lengths of {size} pixels")
    boxes = []
    for start, stop in zip(ends[:-1:2], ends[1::2], strict=True):
        if start == stop:
            continue
        (first, top), (last, bottom) = divmod(start, height), divmod(stop - 1, height)
        if first == last:
            boxes.append((first, top, first + 1, bottom + 1))
            continue
        boxes.append((first, top, first + 1, height))
        boxes.append((first + 1, 0, last, height))
        boxes.append((last, 0, last + 1, bottom + 1))
    corners = np.array([box for box in boxes if box[0] < box[2]], np.float64).reshape(-1, 4)
    return shapely.union_all(shapely.box(*corners.T))


def decoded(text: str, where: str = "") -> list[int]:
    """Run lengths of COCO's text: five bits a character, as differences to the last but one."""
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:  # a length of more bits is none
            raise InputError(f"{where}: expected run lengths as COCO writes them")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts
