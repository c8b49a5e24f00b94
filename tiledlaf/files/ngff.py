"""OME-Zarr metadata, NGFF 0.4 and 0.5: images and their labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import zarr

from ..errors import DamagedFile, InputError
from . import nodes
from .levels import Pyramid


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
    """

    axes: str
    units: tuple[str | None, ...]
    paths: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    scales: tuple[tuple[float, ...], ...]
    translations: tuple[tuple[float, ...], ...]
    version: str
    zarr_format: int


def read_multiscale(path: str) -> Multiscale:
    """Axes and levels of an OME-Zarr image or a plain Zarr array.

    Raises
    ------
    ValueError
        If the path is not a Zarr store, or is a group without an image.
    """
    node = nodes.open_node(path)
    if isinstance(node, zarr.Array):
        return _plain(node)
    found = nodes.metadata(node)
    if not found.get("multiscales"):
        if "bioformats2raw.layout" in found or "plate" in found:
            hint = "; it is a collection: name one of its images, such as PATH/0"
        else:
            hint = f"; it holds {', '.join(sorted(node.keys())) or 'nothing'}"
        raise InputError(f"{path}: expected an OME-Zarr image or a Zarr array, got a group{hint}")
    try:
        return _multiscale(path, node, found)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise DamagedFile(
            f"{path}: its multiscales metadata cannot be read, {nodes.first_line(error)}"
        ) from None


def _multiscale(path: str, node: zarr.Group, found: Mapping[str, Any]) -> Multiscale:
    image = found["multiscales"][0]
    version = str(found.get("version") or image.get("version") or "0.4")
    entries = [a if isinstance(a, dict) else {"name": a} for a in image["axes"]]
    paths = tuple(_within(path, d["path"]) for d in image["datasets"])
    outer = image.get("coordinateTransformations", [])
    scales, translations = [], []
    for dataset in image["datasets"]:
        scale, shift = np.ones(len(entries)), np.zeros(len(entries))
        for transform in [*dataset.get("coordinateTransformations", []), *outer]:
            if transform["type"] == "scale":
                scale, shift = scale * transform["scale"], shift * transform["scale"]
            elif transform["type"] == "translation":
                shift = shift + transform["translation"]
        scales.append(tuple(map(float, scale)))
        translations.append(tuple(map(float, shift)))
    return Multiscale(
        "".join(entry["name"] for entry in entries),
        tuple(entry.get("unit") for entry in entries),
        paths,
        tuple(node[name].shape for name in paths),
        tuple(scales),
        tuple(translations),
        version,
        node.metadata.zarr_format,
    )


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
    known = names and all(isinstance(n, str) and len(n) == 1 for n in names)
    n = array.ndim
    return Multiscale(
        "".join(names).lower() if known else "",
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
) -> None:
    """Register labels/NAME: write its colors, names and this program's notes, then list it.

    `values` are the truth values of each label value, where it was learned from a truth.
    """
    entry = {
        "version": version,
        "colors": [{"label-value": v, "rgba": list(c)} for v, c in colors.items()],
        "properties": [
            {"label-value": v, "name": n} | ({"values": list(values[v])} if v in values else {})
            for v, n in names.items()
        ],
        "source": {"image": "../../"},
    }
    entries = labels.entries(version) | {"image-label": entry}
    nodes.write_group(store, labels.group, version, zarr_format, entries, notes)
    # listed last: listed labels without notes belong to another program
    list_label(store, labels.group, version, zarr_format)


def list_label(store: str, group: str, version: str, zarr_format: int) -> None:
    """Add labels/NAME to the list unless it is there."""
    above, _, name = group.rpartition("/")
    node = nodes.open_group(store, above)
    listed = [*nodes.metadata(node).get("labels", [])] if node is not None else []
    entries = {"labels": listed + [name] * (name not in listed)}
    nodes.write_group(store, above, version, zarr_format, entries)
    nodes.index(store, group)


def read_notes(store: str, group: str) -> dict[str, Any] | None:
    """This program's notes on a group, or None."""
    node = nodes.open_group(store, group)
    notes = node.attrs.get("tiledlaf") if node is not None else None
    return dict(notes) if isinstance(notes, Mapping) else None


def has_image(store: str, group: str = "") -> bool:
    """Whether a group of a store holds an image."""
    node = nodes.open_group(store, group)
    return node is not None and bool(nodes.metadata(node).get("multiscales"))


def label_names(store: str) -> list[str]:
    """Names listed under labels/."""
    labels = nodes.open_group(store, "labels")
    found = nodes.metadata(labels).get("labels", []) if labels is not None else []
    if not isinstance(found, list):
        raise InputError(f"{store}/labels: expected a list of labels, got {found!r}")
    return [_within(f"{store}/labels", name) for name in found]


def label_properties(store: str, group: str) -> list[dict[str, Any]]:
    """What the label image in a group says of each label value: NGFF's `image-label` `properties`.

    Such as ``{"label-value": 1, "name": "membrane", "values": [0, 32]}``, where `values` are the
    truth values that the class stands for. Empty where there is no such group or no properties.
    """
    node = nodes.open_group(store, group)
    entry = nodes.metadata(node).get("image-label") if node is not None else None
    found = entry.get("properties") if isinstance(entry, Mapping) else None
    return [dict(p) for p in found if isinstance(p, Mapping)] if isinstance(found, list) else []


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
