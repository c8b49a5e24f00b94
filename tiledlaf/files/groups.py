"""Zarr groups of several images: plates, wells, series of bioformats2raw, SpatialData."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from . import ngff, nodes, stores, transformations
from .image import SPATIAL, Part

SHOWN = 12  # most images to list in a message


@dataclass(frozen=True)
class Group:
    """Where the images of a group are.

    Attributes
    ----------
    kind : "plate", "well", "file" for series of bioformats2raw, or "SpatialData"
    what : what its images are called
    paths : of the images within the group, those that are chosen by default first
    titles : what the group calls them, "" where it does not
    """

    kind: str
    what: str
    paths: tuple[str, ...]
    titles: tuple[str, ...]


def find(path: str) -> Group | None:
    """The images in a group that holds several; None for an image, an array or another group."""
    attributes = nodes.attributes(path, "")
    found = attributes.get("ome", attributes)
    if not isinstance(found, Mapping) or found.get("multiscales"):
        return None
    if isinstance(found.get("plate"), Mapping):
        wells = [w["path"] for w in found["plate"].get("wells", ()) if "path" in w]
        return _named("plate", "fields", [f"{w}/{f}" for w in wells for f in _fields(path, w)])
    if isinstance(found.get("well"), Mapping):
        return _named("well", "fields", _fields(path, ""))
    if "bioformats2raw.layout" in found:
        series = list(_series(path))
        xml = (stores.at(path).read("OME/METADATA.ome.xml") or b"").decode("utf-8", "replace")
        names = re.findall(r'<(?:\w+:)?Image\b[^>]*?\bName="([^"]*)"', xml)
        named = names if len(names) == len(series) else [""] * len(series)
        return Group("file", "series", tuple(series), tuple(named))
    if "spatialdata_attrs" in attributes and not stores.is_web(path):
        kinds = ("images", "labels")
        names = [f"{k}/{n}" for k in kinds for n in nodes.contents(path, k)]
        return _named("SpatialData", "elements", [n for n in names if _look(path, n)])
    return None


def _named(kind: str, what: str, paths: list[str]) -> Group:
    return Group(kind, what, tuple(paths), ("",) * len(paths))


def _fields(path: str, well: str) -> list[str]:
    attributes = nodes.attributes(path, well)
    found = attributes.get("ome", attributes)
    return [str(image["path"]) for image in (found.get("well") or {}).get("images", ())]


def _series(path: str) -> Iterator[str]:
    """Paths of the series: those listed, otherwise 0, 1, 2 and so on."""
    attributes = nodes.attributes(path, "OME")
    listed = attributes.get("ome", attributes).get("series")
    if isinstance(listed, list):
        yield from map(str, listed)
        return
    number = 0
    while nodes.attributes(path, str(number)):
        yield str(number)
        number += 1


def _look(path: str, name: str) -> Part | None:
    """The image at a path within a group, by its metadata alone; None where there is none."""
    attributes = nodes.attributes(path, name)
    found = attributes.get("ome", attributes)
    try:
        image = found["multiscales"][0]
        shape, dtype = nodes.shape_of(path, f"{name}/{image['datasets'][0]['path']}")
        axes = ngff.axes_of(image, str(found.get("version") or image.get("version")), len(shape))
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        return None
    letters = "".join(transformations.letter(a) or "?" for a in axes)
    return Part(name, str(image.get("name") or ""), letters, shape, dtype)


def parts(path: str) -> list[Part]:
    """The images in a group that holds several; none for an image or an array."""
    group = find(path)
    if group is None:
        return []
    seen = [
        (_look(path, name), title) for name, title in zip(group.paths, group.titles, strict=True)
    ]
    return [
        Part(part.name, title or part.title, part.axes, part.shape, part.dtype)
        for part, title in seen
        if part is not None
    ]


def choose(path: str, series: str) -> str:
    """The path within a group of one of its images, by path, number or title.

    Raises
    ------
    ValueError
        If there is no such image, or there are several.
    """
    series = series.strip("/")
    if _is_field(path, series):  # of a large plate all fields need not be looked up
        return series
    group = find(path)
    if group is None:
        raise InputError(f"{path}: expected a file with several images for `series`, got one image")
    if series in group.paths:
        return series
    below = [p for p in group.paths if p.startswith(f"{series}/")]
    if len(below) == 1:
        return below[0]
    if series.isdecimal() and int(series) < len(group.paths):
        return group.paths[int(series)]
    titled = [part.name for part in parts(path) if part.title == series]
    if len(titled) == 1:
        return titled[0]
    raise InputError(
        f"{path}: expected one of its {len(group.paths)} {group.what} for `series`, "
        f"{_listed(group)}, got {series!r}"
    )


def _is_field(path: str, series: str) -> bool:
    """Whether a plate lists the well of a field, and the well lists the field."""
    attributes = nodes.attributes(path, "")
    found, (well, _, field) = attributes.get("ome", attributes), series.rpartition("/")
    plate = found.get("plate") if isinstance(found, Mapping) else None
    wells = plate.get("wells") if isinstance(plate, Mapping) else None
    known = any(one.get("path") == well for one in wells or () if isinstance(one, Mapping))
    return known and field in _fields(path, well)


def default(path: str) -> tuple[str, str]:
    """The path within a group of the image to take if none is named, and a word on it.

    Both are "" for an image or an array.

    Raises
    ------
    ValueError
        If none is more likely than the others; lists them.
    """
    group = find(path)
    if group is None:
        return "", ""
    paths = [p for p in group.paths if not p.startswith("labels/")]
    if not paths:
        raise InputError(f"{path}: expected images in this {group.kind}, found none")
    if len(paths) == 1:
        return paths[0], f"it is a {group.kind} of one image, {paths[0]}, which is taken"
    if group.kind != "file":
        raise InputError(
            f"{path}: expected one image, got a {group.kind} with {len(group.paths)} {group.what}, "
            f"{_listed(group)}: choose one with `series`, or by its path {path}/{paths[0]}"
        )
    found = parts(path)
    if not found:
        raise InputError(
            f"{path}: expected images in its {group.what} {_listed(group)}, found none"
        )
    best = max(found, key=_pixels)
    titled = f" {best.title!r}" if best.title else ""
    return best.name, (
        f"it holds {len(group.paths)} {group.what}; the largest, {best.name}{titled} of "
        f"{' x '.join(map(str, best.shape))}, is taken: `series` chooses another"
    )


def _pixels(part: Part) -> int:
    return int(np.prod([n for n, a in zip(part.shape, part.axes, strict=True) if a in SPATIAL]))


def _listed(group: Group) -> str:
    more = len(group.paths) - SHOWN
    names = [f"{p} ({t})" if t else p for p, t in zip(group.paths, group.titles, strict=True)]
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
