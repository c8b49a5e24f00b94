"""Which annotations of a file count, and as which areas: kinds, planes, lines, overlaps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from .rasterize import EVERY
from .shapes import Shape

OTHERS = ("detection", "cell")  # what else may be labels, if no annotation has a class
REGION = "Region*"  # QuPath's class for where to look, which names nothing
SEGMENTS = 16  # of a quarter of a circle around points and the ends of lines


class NoAnnotations(InputError):
    """A file without a usable annotation of an image."""


@dataclass(frozen=True)
class Rules:
    """What is wanted of annotations.

    Attributes
    ----------
    axes : of the image's grid; the last two are y and x
    whole, grid : pixels along them of level 0, and of the level that is read
    fixed : index along other axes, such as (("z", 3),)
    brush : width of lines and points in pixels of level 0, along y and x
    overlaps : "smaller", "later", or names of classes, first the one that always wins
    mask : whether all annotations are of one class
    """

    axes: str
    whole: tuple[int, ...]
    grid: tuple[int, ...]
    fixed: tuple[tuple[str, int], ...] = ()
    brush: tuple[float, float] | None = None
    overlaps: str = "smaller"
    mask: bool = False


@dataclass(frozen=True)
class Areas:
    """The areas of a file, in the order in which they are painted.

    Attributes
    ----------
    polygons : of shapely, in pixels of level 0
    numbers : of each, the place of its class in `classes` from 1 on; 0 clears what lies beneath
    places : of each, its position along the axes before y and x, or `EVERY`
    classes : name and color (RRGGBB or "") of each class, in the order of the file
    words : what the user should know
    """

    polygons: list[Any]
    numbers: list[int]
    places: list[tuple[int, ...]]
    classes: list[tuple[str, str]]
    words: list[str]


def areas(given: Sequence[Shape], rules: Rules, path: str) -> Areas:
    """The areas that a file's annotations stand for.

    Raises
    ------
    ValueError
        If none is left, or if lines and points have no width.
    """
    words: list[str] = []
    left_out: Counter[str] = Counter()
    kinds, stated = _kinds(given, rules.mask, words), _stated(given, rules, words)
    shapes: list[Shape] = []
    places: list[tuple[int, ...]] = []
    for one in given:
        place = _place(one, rules, stated)
        reason = _unwanted(one, kinds, rules.mask)
        if reason or isinstance(place, str):
            left_out[reason or str(place)] += 1
        else:
            shapes.append(one)
            places.append(place)
    polygons = _polygons(shapes, rules, path, left_out, words)
    kept = _inside(polygons, rules.whole[-2:], left_out)
    if left_out:
        words.append("left out " + ", ".join(f"{n} {why}" for why, n in left_out.items()))
    if not kept:
        what = "annotations" if rules.mask else "annotations with a class"
        raise NoAnnotations(
            f"{path}: expected {what} of this image, {'; '.join(words) or 'got none'}"
        )
    named = [_class(shapes[i], rules.mask) for i in kept]
    if None in named:
        words.append(f"took {named.count(None)} of a class ending in * for not labeled")
    classes: dict[str, str] = {}
    for i, name in zip(kept, named, strict=True):
        if name is not None:
            classes[name] = classes.get(name) or shapes[i].color
    numbers = {name: number for number, name in enumerate(classes, 1)}
    order = _order([polygons[i].area for i in kept], named, rules.overlaps)
    return Areas(
        [polygons[kept[i]] for i in order],
        [numbers.get(named[i] or "", 0) for i in order],
        [places[kept[i]] for i in order],
        list(classes.items()),
        words,
    )


def _kinds(given: Sequence[Shape], mask: bool, words: list[str]) -> tuple[str, ...]:
    """The kinds of objects that count: detections and cells only if no annotation does."""
    usable = {one.kind for one in given if mask or one.name is not None}
    if "annotation" in usable or not usable & set(OTHERS):
        return ("annotation",)
    which = "there is no annotation" if mask else "no annotation has a class"
    words.append(f"took detections and cells, since {which}")
    return OTHERS


def _unwanted(one: Shape, kinds: Sequence[str], mask: bool) -> str:
    """Why an annotation is left out, whatever its geometry; "" if it is not."""
    if one.kind not in kinds:
        return "annotations" if one.kind == "annotation" else f"of the kind {one.kind}"
    if mask:
        return ""
    return "without a class" if one.name is None else f"of {REGION}" if one.name == REGION else ""


def _stated(given: Sequence[Shape], rules: Rules, words: list[str]) -> str:
    """The axes along which the file states positions; where it states one, 0 may be left unsaid."""
    found = ""
    for axis in "zt":
        if any(getattr(one, axis) is not None for one in given):
            found += axis
            continue
        sizes = dict(zip(rules.axes, rules.whole, strict=True))
        taken = dict(rules.fixed).get(axis, 0)
        if sizes.get(axis, 1) > 1 or taken:
            which = "every t" if axis == "t" and axis in sizes else f"{axis} {taken}"
            words.append(f"took all for those of {which}, since none states its {axis}")
    return found


def _place(one: Shape, rules: Rules, stated: str) -> tuple[int, ...] | str:
    """The position along the axes before y and x; or why there is none."""
    fixed = dict(rules.fixed)
    place: tuple[int, ...] = ()
    for axis in "zt":
        index = getattr(one, axis) or 0
        if axis not in rules.axes and axis in stated and index != fixed.get(axis, 0):
            return f"of another {axis} than {fixed.get(axis, 0)}"
    for axis, size, pixels in zip(rules.axes[:-2], rules.whole, rules.grid, strict=False):
        index = getattr(one, axis) or 0
        if axis == "t" and axis not in stated:
            place += (EVERY,)
            continue
        if not 0 <= index < size:
            return f"beyond the last {axis}, {size - 1}"
        place += (int((index + 0.5) * pixels / size),)
    return place


def _polygons(
    shapes: Sequence[Shape], rules: Rules, path: str, left_out: Counter[str], words: list[str]
) -> list[Any]:
    """Valid polygons of all shapes, with lines and points as wide as the brush; empty if unfit."""
    import shapely

    found = np.array([one.geometry for one in shapes], object)
    thin = [i for i, one in enumerate(found) if _is_thin(one)]
    if thin and rules.brush is None and not rules.mask:
        raise InputError(
            f"{path}: expected areas, got {len(thin)} lines or points: say with `brush` how wide "
            "they are, in micrometers or as in 5px"
        )
    for i in thin:
        found[i] = None if rules.brush is None else _widened(found[i], rules.brush)
    if thin and rules.brush is None:
        left_out["lines or points, since no `brush` says how wide"] += len(thin)
    crossed = ~shapely.is_valid(found) & (found != None)  # noqa: E711  each of an array
    found[crossed] = shapely.make_valid(found[crossed], method="structure", keep_collapsed=False)
    empty = shapely.area(found) == 0
    if empty.any():
        left_out["without an area"] += int(empty.sum())
    if (crossed & ~empty).any():
        words.append(f"mended {int((crossed & ~empty).sum())} that cross themselves")
    return [one if one is not None and one.area else shapely.Polygon() for one in found]


def _parts(one: Any) -> list[Any]:
    """The points, lines and polygons of a geometry, but for empty ones."""
    import shapely

    parts = shapely.get_parts(one)
    if len(parts) > 1 or one.geom_type == "GeometryCollection":
        return [inner for part in parts for inner in _parts(part)]
    return [part for part in parts if not part.is_empty]


def _is_thin(one: Any) -> bool:
    """Whether it has points or lines."""
    if one.geom_type in ("Polygon", "MultiPolygon"):
        return False
    return any(part.geom_type not in ("Polygon", "MultiPolygon") for part in _parts(one))


def _widened(one: Any, brush: tuple[float, float]) -> Any:
    """A geometry, in which lines and points are as wide as the brush."""
    import shapely

    scale = np.array(brush[::-1]) / 2
    parts = shapely.transform(shapely.make_valid(_parts(one)), lambda xy: xy / scale)
    reach = np.where(shapely.get_dimensions(parts) < 2, 1.0, 0.0)
    wide = shapely.union_all(shapely.buffer(parts, reach, quad_segs=SEGMENTS))
    return shapely.transform(wide, lambda xy: xy * scale)


def _inside(polygons: Sequence[Any], whole: Sequence[int], left_out: Counter[str]) -> list[int]:
    """Numbers of the polygons that meet the image."""
    import shapely

    full = np.flatnonzero(~shapely.is_empty(np.array(polygons, object)))
    x0, y0, x1, y1 = shapely.bounds(np.array(polygons, object)[full]).reshape(-1, 4).T
    met = (x1 > 0) & (y1 > 0) & (x0 < whole[1]) & (y0 < whole[0])
    if not met.all():
        left_out["outside the image"] += int((~met).sum())
    return [int(i) for i in full[met]]


def _class(one: Shape, mask: bool) -> str | None:
    """The name that an annotation's pixels get, None to clear what lies beneath."""
    if (one.name or "").endswith("*") and one.name != REGION:
        return None
    return "annotated" if mask else one.name


def _order(sizes: Sequence[float], names: Sequence[str | None], overlaps: str) -> list[int]:
    """The order to paint in: what comes last wins."""
    if overlaps == "later":
        return list(range(len(sizes)))
    listed = [] if overlaps == "smaller" else wins(overlaps)
    rank = {name: len(listed) - place for place, name in enumerate(listed)}
    return sorted(range(len(sizes)), key=lambda i: (rank.get(names[i] or "", 0), -sizes[i]))


def wins(overlaps: str) -> list[str]:
    """The classes that `overlaps` lists."""
    return [name.strip() for name in overlaps.split(",") if name.strip()]
