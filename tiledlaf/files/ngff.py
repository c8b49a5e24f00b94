"""OME-Zarr metadata: images of NGFF 0.1 to 0.6, and the labels of 0.4 and 0.5."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import zarr

from ..errors import DamagedFile, InputError, readable
from . import nodes, spatialdata, stores, transformations, versions
from .channels import Channel, listed_channels, of_omero
from .levels import Pyramid

OLD = ("0.1", "0.2", "0.3")  # versions without coordinate transformations
SHOWN = 12  # most names to list in a message


@dataclass(frozen=True)
class Multiscale:
    """The levels of an image, finest first.

    Attributes
    ----------
    axes : str
        One letter for each axis of the arrays, e.g. "tczyx".
    units : a unit or None for each axis
    paths : array names within the group ("" for a plain array)
    shapes, scales, translations : a tuple for each level, with a number for each axis
    version : NGFF version, "" for a plain array
    zarr_format : 2 or 3
    called : the axes as the file calls them, where `axes` is "" for not understanding these
    words : what the user should know of what was chosen or is missing
    channels : how the channels are called and shown, or none
    """

    axes: str
    units: tuple[str | None, ...]
    paths: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    scales: tuple[tuple[float, ...], ...]
    translations: tuple[tuple[float, ...], ...]
    version: str
    zarr_format: int
    called: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    channels: tuple[Channel, ...] = ()


def read_multiscale(path: str, further: bool = True) -> Multiscale:
    """Axes and levels of an OME-Zarr image or a plain Zarr array.

    Parameters
    ----------
    further : whether transformations of the whole image follow those of its levels

    Raises
    ------
    ValueError
        If the path is not a Zarr store, or is a group without an image.
    """
    node = nodes.open_node(path)
    if isinstance(node, zarr.Array):
        with readable(f"{path}: its dimension names"):
            return _plain(node)
    found = nodes.metadata(node)
    if not found.get("multiscales"):
        raise InputError(
            f"{path}: expected an OME-Zarr image or a Zarr array, got a group; it holds "
            f"{_held(path)}"
        )
    with readable(f"{path}: its multiscales metadata"):
        return _multiscale(path, node, found, further)


def _held(path: str) -> str:
    """What a group holds, where it can be listed."""
    names = [] if stores.is_web(path) else nodes.contents(path, "")
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more if names else "nothing that can be listed"


def _multiscale(path: str, node: zarr.Group, found: Mapping[str, Any], further: bool) -> Multiscale:
    images = found["multiscales"]
    image, words = images[0], []
    if len(images) > 1:
        names = [repr(str(one.get("name", k))) for k, one in enumerate(images)]
        words.append(f"it has {len(images)} images, {', '.join(names)}: the first is taken")
    version = str(found.get("version") or image.get("version") or "0.4")
    listed = [_within(path, d["path"]) for d in image["datasets"]]
    paths, shapes = _there(path, listed, words)
    axes = axes_of(image, version, len(shapes[0]))
    called = tuple(str(a["name"]) for a in axes if "name" in a)
    moves, lacking, whole = [], [], _whole(image) if further else []
    for name, shape in zip(paths, shapes, strict=True):
        own = _moves(path, image["datasets"][listed.index(name)], version)
        moves.append(own or [{"type": "scale", "scale": np.divide(shapes[0], shape).tolist()}])
        if not own and version not in OLD:
            lacking.append(repr(name))
    if lacking:
        words.append(f"its metadata give no scale of {', '.join(lacking)}: taken from the shapes")
    try:
        placed = [
            _placed(path, name, axes, [*m, *whole]) for name, m in zip(paths, moves, strict=True)
        ]
    except InputError:
        if not version.endswith("spatialdata") or not whole:
            raise
        placed = [_placed(path, name, axes, own) for name, own in zip(paths, moves, strict=True)]
        words.append(
            f"its {' and '.join(transformations.kinds(whole[0]))} transformation to "
            f"{_end(whole[0], 'output')!r} is kept by `into_input` alone"
        )
    left = [_end(t, "output") for t in image.get("coordinateTransformations", ()) if t not in whole]
    if further and left:
        kept = "kept by `into_input` alone" if version.endswith("spatialdata") else "not kept"
        words.append(f"its transformations to {', '.join(map(repr, left))} are {kept}")
    axes = placed[0][2]
    known = [transformations.letter(axis) for axis in axes]
    shown, told = _shown(found, shapes[0][known.index("c")] if "c" in known else 1)
    return Multiscale(
        "".join(map(str, known)) if all(known) else "",
        tuple(map(_unit, axes)),
        tuple(paths),
        tuple(shapes),
        tuple(tuple(map(float, one[0])) for one in placed),
        tuple(tuple(map(float, one[1])) for one in placed),
        version,
        node.metadata.zarr_format,
        called,
        (*words, *told),
        shown,
    )


def _there(
    path: str, listed: Sequence[str], words: list[str]
) -> tuple[list[str], list[tuple[int, ...]]]:
    """Paths and shapes of the levels that are there, and words on those that are not."""
    found = {name: _shape(path, name) for name in listed}
    if listed and found[listed[0]] is None:
        raise DamagedFile(f"{path}: expected its finest level, the array {listed[0]!r}, found none")
    gone = [name for name in listed if found[name] is None]
    if gone:
        words.append(f"its levels {', '.join(map(repr, gone))} are not there")
    shapes = [shape for name in listed if (shape := found[name]) is not None]
    _check_levels(path, shapes)
    return [name for name in listed if name not in gone], shapes


def _check_levels(path: str, shapes: Sequence[Sequence[int]]) -> None:
    """Refuse coarser levels without pixels, or of other axes than the finest one."""
    for shape in shapes[1:]:
        if len(shape) != len(shapes[0]) or not all(shape):
            raise DamagedFile(
                f"{path}: expected levels with pixels along the {len(shapes[0])} axes of the "
                f"finest one, got the shape {tuple(shape)}"
            )


def _shown(found: Mapping[str, Any], count: int) -> tuple[tuple[Channel, ...], list[str]]:
    """How the channels are called and shown, and a word where this is said of another number."""
    listed = listed_channels(found.get("omero"))
    if len(listed) in (0, count):
        return of_omero(listed), []
    return (), [f"its omero metadata are of {len(listed)} channels, not {count}: left out"]


def _shape(path: str, name: str) -> tuple[int, ...] | None:
    """Shape of a level, by the metadata of its array; None where there is no such array."""
    place = stores.at(path)
    if not any(place.exists(f"{name}/{file}") for file in ("zarr.json", ".zarray")):
        return None
    return tuple(nodes.open_array(path, name).shape)


def axes_of(image: Mapping[str, Any], version: str, count: int) -> list[Mapping[str, Any]]:
    """The axes of an image, without names where it does not say them."""
    listed = image.get("axes")
    if listed is None and image.get("coordinateSystems"):
        systems = {s["name"]: s["axes"] for s in image["coordinateSystems"]}
        moves = image["datasets"][0].get("coordinateTransformations") or [{}]
        listed = systems.get(_end(moves[-1], "output"), image["coordinateSystems"][0]["axes"])
    if listed is None:
        listed = "tczyx" if version in OLD and count == 5 else ""
    axes = [a if isinstance(a, Mapping) else {"name": a} for a in listed] or [{}] * count
    if len(axes) != count:
        raise DamagedFile(f"expected {count} axes for the shape of its levels, got {len(axes)}")
    return axes


def _end(transform: Mapping[str, Any], which: str) -> str | None:
    """Name of the coordinate system that a transformation comes from or leads to."""
    found = transform.get(which)
    return found.get("name", found.get("path")) if isinstance(found, Mapping) else found


def _unit(axis: Mapping[str, Any]) -> str | None:
    unit = axis.get("unit")
    return unit if isinstance(unit, str) and unit not in ("unit", "") else None


def _moves(path: str, dataset: Mapping[str, Any], version: str) -> list[Mapping[str, Any]]:
    """Transformations of a level; none where they do not give its scale."""
    own = dataset.get("coordinateTransformations") or []
    scales = [t for t in own if t["type"] == "scale"]
    if len(scales) > 1:
        raise DamagedFile(f"{path}: expected one scale of {dataset['path']!r}, got {len(scales)}")
    return own if scales or version not in ("0.4", "0.5") else []


def _placed(
    path: str, name: str, axes: Sequence[Mapping[str, Any]], moves: Sequence[Mapping[str, Any]]
) -> tuple[np.ndarray, np.ndarray, list[Mapping[str, Any]]]:
    """Scale, shift and axis of each dimension of a level."""
    load, ends = functools.partial(_stored, path), list(axes)
    names = [transformations.letter(a) or str(a.get("name", "")) for a in axes]
    try:
        found = transformations.joined_all(moves, names, load)
        for move in moves:
            end = move.get("output")
            ends = list(end["axes"]) if isinstance(end, Mapping) and "axes" in end else ends
        scale, shift, order = transformations.along_axes(found)
    except transformations.Unkept:
        kinds = dict.fromkeys(k for move in moves for k in transformations.kinds(move))
        raise InputError(
            f"{path}: its coordinate transformation ({', '.join(kinds)}) is more than a pixel size "
            "and a shift along each axis, so labels would be placed wrongly; "
            f"{path}/{name} is the array without it"
        ) from None
    except ValueError as error:
        raise DamagedFile(
            f"{path}: the coordinate transformation of {name!r} is damaged, with {error}"
        ) from None
    return scale, shift, [ends[i] for i in order]


def _whole(image: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Transformations of all levels: each in turn, or the one to a coordinate system of several."""
    listed = image.get("coordinateTransformations") or []
    ends = [_end(t, "output") for t in listed]
    if not any(ends):
        return list(listed)
    return [listed[ends.index("global")]] if "global" in ends else list(listed[:1])


def _stored(path: str, name: str) -> np.ndarray:
    """Values of a transformation that are stored as an array."""
    return np.asarray(nodes.open_array(path, _within(path, name))[...])


def _within(place: str, name: Any) -> str:
    """Return a name from metadata if it leads to something inside the store.

    Raises
    ------
    ValueError
        If it leads elsewhere, or is not a name.
    """
    steps = name.replace("\\", "/").split("/") if isinstance(name, str) else [""]
    if {"", ".", ".."} & set(steps) or PureWindowsPath(name).drive:
        raise InputError(f"{place}: expected paths that lie within it, got {name!r}")
    return str(name)


def check_links(store: str, group: str) -> None:
    """Refuse to write a group where a symbolic link leads out of the store.

    Raises
    ------
    ValueError
        Names the link.
    """
    root = Path(store).resolve()
    own = root / group
    for place in (*own.relative_to(root).parents, own, *own.glob("*"), *own.glob("*/*.jsonl")):
        if not (root / place).resolve().is_relative_to(root):
            raise InputError(
                f"{store}: expected {(root / place).relative_to(root)} to lie within the store, "
                "but a symbolic link leads out of it"
            )


def _plain(array: zarr.Array) -> Multiscale:
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    known = [transformations.letter({"name": name}) for name in names or ()]
    n = array.ndim
    return Multiscale(
        "".join(map(str, known)) if all(known) else "",
        (None,) * n,
        ("",),
        (array.shape,),
        ((1.0,) * n,),
        ((0.0,) * n,),
        "",
        array.metadata.zarr_format,
    )


def add_label(
    store: str,
    labels: Pyramid,
    version: str,
    zarr_format: int,
    colors: Mapping[int, Sequence[int]],
    names: Mapping[int, str],
    values: Mapping[int, Sequence[int]],
    notes: Mapping[str, Any],
    element: str = "",
    made: str | None = None,
) -> None:
    """Register labels/NAME: write its colors, names and this program's notes, then list it.

    `values` are the truth values of each label value, where it was learned from a truth. `element`
    is the image in a SpatialData store, otherwise the image is the store itself. `made` is another
    folder in which the group is made first, and not listed yet.
    """
    entry: dict[str, Any] = {
        "version": version,
        "colors": [{"label-value": v, "rgba": list(c)} for v, c in colors.items()],
        "properties": [
            {"label-value": v, "name": n} | ({"values": list(values[v])} if v in values else {})
            for v, n in names.items()
        ],
    }
    found, beside = labels.entries(version), dict[str, Any]()
    if element:
        found, beside = spatialdata.entries(store, element, labels, version)
    else:  # SpatialData would take the source for a part of the labels
        entry["source"] = {"image": "../../"}
    entries = found | {"image-label": entry}
    nodes.write_group(made or store, labels.group, version, zarr_format, entries, notes, beside)
    # listed last: listed labels without notes belong to another program
    if made is None:
        list_label(store, labels.group, version, zarr_format)


def add_label_like(
    store: str,
    group: str,
    like: str,
    image_label: Mapping[str, Any],
    notes: Mapping[str, Any],
    made: str | None = None,
) -> None:
    """Describe a label image of the same levels as another one of the store, without listing it.

    `made` is another folder in which the group is.
    """
    attributes = nodes.attributes(store, like)
    found = attributes.get("ome", attributes)
    image = {**found["multiscales"][0], "name": group.rsplit("/", 1)[-1]}
    own = found.get("image-label")
    own = own if isinstance(own, Mapping) else {}
    kept = {key: own[key] for key in ("version", "source") if key in own}
    entries = {"multiscales": [image], "image-label": {**kept, **image_label}}
    if "version" in found:
        entries["version"] = found["version"]
    beside = {k: v for k, v in attributes.items() if k == "spatialdata_attrs"}
    now = read_multiscale(f"{store}/{like}", further=False)
    target = made or store
    version = now.version if "ome" in attributes else "0.4"
    nodes.write_group(target, group, version, now.zarr_format, entries, notes, beside)


def unlist_label(store: str, group: str) -> None:
    """Remove labels/NAME from the list, if it is there."""
    above, _, name = group.rpartition("/")
    node = nodes.open_group(store, above)
    listed = _listed(f"{store}/{above}", node)
    if node is not None and name in listed:
        version = str(nodes.metadata(node).get("version", "0.4"))
        entries = {"labels": [one for one in listed if one != name]}
        nodes.write_group(store, above, version, node.metadata.zarr_format, entries)
        nodes.index(store, group)


def list_label(store: str, group: str, version: str, zarr_format: int) -> None:
    """Add labels/NAME to the list unless it is there."""
    above, _, name = group.rpartition("/")
    node = nodes.open_group(store, above)
    listed = _listed(f"{store}/{above}", node)
    entries = {"labels": listed + [name] * (name not in listed)}
    nodes.write_group(store, above, version, zarr_format, entries)
    nodes.index(store, group)


def read_notes(store: str, group: str) -> dict[str, Any] | None:
    """This program's notes on a group, or None.

    Raises
    ------
    ValueError
        If a later release wrote them in another format.
    """
    node = nodes.open_group(store, group)
    notes = node.attrs.get("tiledlaf") if node is not None else None
    if not isinstance(notes, Mapping):
        return None
    where = f"{store}/{group}".rstrip("/")
    versions.check(f"{where}: this output", notes.get("format", 1), nodes.VERSION)
    return dict(notes)


def has_image(store: str, group: str = "") -> bool:
    """Whether a group of a store holds an image."""
    node = nodes.open_group(store, group)
    return node is not None and bool(nodes.metadata(node).get("multiscales"))


def is_whole(store: str, pyramid: Pyramid) -> bool:
    """Whether the arrays and the metadata of an image are there."""
    there = [_shape(store, f"{pyramid.group}/{n}".lstrip("/")) for n in range(len(pyramid.shapes))]
    return None not in there and has_image(store, pyramid.group)


def label_names(store: str) -> list[str]:
    """Names listed under labels/."""
    found = _listed(f"{store}/labels", nodes.open_group(store, "labels"))
    return [_within(f"{store}/labels", name) for name in found]


def _listed(place: str, group: zarr.Group | None) -> list[Any]:
    found = nodes.metadata(group).get("labels", []) if group is not None else []
    if not isinstance(found, list):
        raise InputError(f"{place}: expected a list of labels, got {found!r}")
    return found


def label_properties(store: str, group: str) -> list[dict[str, Any]]:
    """What the label image in a group says of each label value: NGFF's `image-label` `properties`.

    Such as ``{"label-value": 1, "name": "membrane", "values": [0, 32]}``, where `values` are the
    truth values that the class stands for. Empty where there is no such group or no properties.
    """
    node = nodes.open_group(store, group)
    entry = nodes.metadata(node).get("image-label") if node is not None else None
    found = entry.get("properties") if isinstance(entry, Mapping) else None
    return [dict(p) for p in found if isinstance(p, Mapping)] if isinstance(found, list) else []


def label_colors(store: str, group: str) -> dict[int, tuple[int, ...]]:
    """The color, red, green and blue, that a label image gives its label values, if it does."""
    node = nodes.open_group(store, group)
    entry = nodes.metadata(node).get("image-label") if node is not None else None
    found = entry.get("colors") if isinstance(entry, Mapping) else None
    colors: dict[int, tuple[int, ...]] = {}
    for one in found if isinstance(found, list) else []:
        with contextlib.suppress(KeyError, TypeError, ValueError):
            red, green, blue = (int(c) for c in one["rgba"][:3])
            if 0 <= min(red, green, blue) <= max(red, green, blue) <= 255:
                colors[int(one["label-value"])] = (red, green, blue)
    return colors


def describe(path: str) -> list[str]:
    """Return lines of text on the arrays of an image."""
    found = read_multiscale(path)
    kind = f"OME-Zarr {found.version}" if found.version else "plain array"
    lines = [f"  {kind}, Zarr v{found.zarr_format}, axes {found.axes or 'not named'}"]
    for level, name in enumerate(found.paths):
        array = nodes.open_array(path, name)
        shards = f", shards {_sizes(array.shards)}" if array.shards else ""
        units = {u for u in found.units if u}
        lines.append(
            f"  level {level}: {_sizes(array.shape)} {array.dtype}, chunks {_sizes(array.chunks)}"
            f"{shards}, pixel size {_sizes(found.scales[level])} {' '.join(units)}".rstrip()
        )
    return lines


def _sizes(values: Sequence[float]) -> str:
    return " x ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values)
