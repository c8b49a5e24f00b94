"""Labels and a truth as two images of one grid, and the classes that their values stand for."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..annotations import numbering
from ..annotations.opening import Painting
from ..annotations.values import OBJECT, Meaning, open_labels, value_names
from ..errors import InputError, understood
from ..files import images, ngff, nodes, numbers, stores
from ..files.cropped import cropped
from ..files.image import Image, say
from ..labeling import records
from ..labeling.output import Output
from . import scores


def open_both(
    labels: Any,
    truth: Any,
    name: str,
    meant: Meaning = Meaning(),
    painting: Painting = Painting(),
    label_instances: str | None = None,
) -> tuple[Image, Image, str | None, tuple[int, ...]]:
    """Open both; also return the Zarr group of the labels, if any, and where the truth has them."""
    group = None
    if isinstance(labels, str | os.PathLike):
        path = _label_image(os.fspath(labels), name)
        given, group = images.open_labels(path, series=True), path if nodes.is_store(path) else None
    else:
        given = _from_array(labels, "the labels")
    whole, origin = _labeled(given, group)
    if label_instances is not None:  # their numbers mean nothing else, whatever is noted of them
        given = open_labels(given, given, Meaning(meant.instances or "object"))
        group = None
    if isinstance(truth, str | os.PathLike):
        path = os.fspath(truth)
        listed = ngff.label_names(path) if nodes.is_store(path) else []
        if listed:
            raise InputError(
                f"{path}: expected a label image as truth, got a store with labels: name one, such "
                f"as {os.path.join(path, 'labels', listed[0])}"
            )
        wanted = images.on_grid(open_labels(path, whole, meant, painting), whole)
    else:
        array = (
            numbers.plain(truth, "the truth") if meant.colors else _from_array(truth, "the truth")
        )
        wanted = open_labels(array, given, meant)
    if wanted.grid not in (given.grid, whole.grid):
        raise InputError(
            f"{wanted.path}: expected a truth of the labels' size {given.grid}"
            + f" or of the image's, {whole.whole}" * (whole.whole != given.grid)
            + f", got {wanted.grid}"
        )
    return given, wanted, group, origin


def _labeled(given: Image, group: str | None) -> tuple[Image, tuple[int, ...]]:
    """The grid of the image that was labeled, and the first pixel of the labels on it."""
    notes = (ngff.read_notes(group, "") or {}) if group else {}
    if group and "objects" in notes:  # of whose labels the notes tell it
        group = f"{group.rpartition('/labels/')[0]}/labels/{notes['objects']['labels']}"
        notes = ngff.read_notes(group, "") or {}
    if group and notes and not stores.is_web(group):
        _say_changed(group)
    source = notes.get("source")
    if source is None:
        return given, (0,) * len(given.grid)
    sizes = dict(zip(given.grid_axes, source["grid"], strict=True))
    whole = replace(
        given,
        path=source["name"],
        shape=tuple(sizes.get(a, n) for a, n in zip(given.axes, given.shape, strict=True)),
        whole=tuple(source["whole"]),
        fixed=tuple((axis, index) for axis, index in source["fixed"]),
    )
    return whole, tuple(notes["settings"]["region"][0])


def _say_changed(group: str) -> None:
    """Say so if an input changed while these labels were made."""
    store, _, name = group.rpartition("/labels/")
    changed = records.changed(records.journal(Output(store, name).records)) if store else None
    if changed:
        say(f"{group}: {changed} changed during the run, so these labels are not to be trusted")


def part(truth: Image, origin: Sequence[int], labels: Image) -> Image:
    """The truth where the labels are."""
    return truth if truth.grid == labels.grid else cropped(truth, origin, labels.grid)


def _label_image(path: str, name: str) -> str:
    """The label image of this name if the path is a store with labels; else the path itself."""
    if not nodes.is_store(path):
        return path
    listed = ngff.label_names(path)
    if name in listed:
        return os.path.join(path, "labels", name)
    # an output without labels as yet holds an image that is not a label image
    if listed or "image" in (ngff.read_notes(path, "") or {}):
        raise InputError(
            f"{path}: expected labels of the name {name}, got {', '.join(listed) or 'none'} "
            "(`name` chooses)"
        )
    return path


def _from_array(data: Any, what: str) -> Image:
    array = numbers.plain(data, what)
    if array.ndim not in (2, 3):
        raise InputError(f"{what}: expected a label image (y, x) or (z, y, x), got {array.shape}")
    return replace(images.from_array(array, "zyx"[-array.ndim :]), path=what)


def classes_of(
    group: str | None,
    given: Image,
    truth: Image,
    label_instances: str | None,
    names: Any,
    values: Any,
) -> tuple[dict[int, str], dict[int, tuple[int, ...]], bool]:
    """Names of label values, the truth values of each, and whether the labels' 0 is no class.

    Parameters
    ----------
    group : the Zarr group of the labels, which may hold both
    label_instances, names, values : as in `evaluation.evaluate`
    """
    named, stands, own = _properties(group, given.path)
    if label_instances is not None:
        named = {int(value): text for value, text in value_names(given).items()}
        named[OBJECT] = str(label_instances)
    if names is not None:
        named = {v: str(text) for v, text in _by_value("names", names).items()}
    if numbering.names_of(truth):
        if values is not None:
            raise InputError("`values` are those of label images, got annotations as truth")
        return named, _drawn_values(truth.path, named), own
    return named, stands if values is None else _stands(values), own


def _properties(
    group: str | None, path: str
) -> tuple[dict[int, str], dict[int, tuple[int, ...]], bool]:
    """Names and truth values stored with a label image, and whether its 0 means not labeled."""
    if group is None:
        return {}, {}, False
    found = ngff.label_properties(group, "")
    named: dict[int, str] = {}
    stands: dict[int, tuple[int, ...]] = {}
    try:
        for entry in found:
            value = int(entry["label-value"])
            if "name" in entry:
                named[value] = str(entry["name"])
            stands[value] = tuple(map(int, entry.get("values", ())))
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f'{path}: expected label properties like {{"label-value": 1, "values": [0, 32]}}, '
            f"got {json.dumps(entry)}"
        ) from None
    return (
        named,
        stands if any(stands.values()) else {},
        ngff.read_notes(group, "") is not None,
    )


def _by_value(what: str, given: Any) -> dict[int, Any]:
    with understood(what, given, "a mapping by label value, or a list of those from 1 on"):
        return dict(given) if isinstance(given, Mapping) else dict(enumerate(given, 1))


def _stands(values: Any) -> dict[int, tuple[int, ...]]:
    found = _by_value("values", values)
    with understood("values", values, "lists of whole numbers"):
        return {value: tuple(map(int, truths)) for value, truths in found.items()}


def _drawn_values(path: str, names: Mapping[int, str]) -> dict[int, tuple[int, ...]]:
    """The values that annotations get as truth, from 1 on, by label value."""
    if not names:
        raise InputError(
            f"{path}: expected labels with names of classes to compare annotations with, "
            "got labels without names"
        )
    return {v: (own,) for own, v in enumerate(names, 1)}


def numbered(truth: Image, values: Mapping[str, int], outside: str | None) -> Image:
    """Annotations with these values of classes, also outside of them; label images as they are."""
    drawn = bool(numbering.names_of(truth))
    if outside is not None:
        if not drawn:
            raise InputError("`outside`: expected annotations as truth, got a label image")
        scores.check_class("outside", outside, list(values))
    truth = numbering.numbered_as(truth, values)
    return truth if outside is None else numbering.with_outside(truth, values[outside])
