"""Coordinate transformations of NGFF 0.1 to 0.6: a pixel size and a shift, where they are that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import DamagedFile, InputError

Load = Callable[[str], np.ndarray]  # reads values that are stored as an array
LETTERS = {
    "t": ("time", "timepoint", "timepoints", "frame", "frames"),
    "c": ("channel", "channels", "band", "bands", "wavelength"),
    "z": ("depth", "plane", "planes", "slice", "slices", "section"),
    "y": ("row", "rows", "height", "line", "lines"),
    "x": ("col", "cols", "column", "columns", "width"),
}
_KNOWN = {word: letter for letter, words in LETTERS.items() for word in (letter, *words)}
_OF_TYPE = {"time": "t", "channel": "c"}
TINY = 1e-9  # what rounding leaves of a zero, as a share of the largest entry


class Unkept(Exception):
    """A transformation that is more than a pixel size and a shift along each axis."""


def letter(axis: Mapping[str, Any]) -> str | None:
    """One of "tczyx" for an axis with a name and perhaps a type; None where neither is known."""
    name = str(axis.get("name", "")).lower()
    return _OF_TYPE.get(str(axis.get("type", "")).lower()) or _KNOWN.get(name)


def matrix(transform: Mapping[str, Any], axes: Sequence[str], load: Load) -> np.ndarray:
    """A transformation of points as an (M, N + 1) matrix: a linear part, then a shift.

    Parameters
    ----------
    axes : names of the N axes that it is applied to
    load : reads values that are stored as an array

    Raises
    ------
    Unkept
        If it is not linear or its type is not known; names the type.
    ValueError
        If it is malformed; says how.
    """
    kind, n = transform.get("type"), len(axes)
    found = np.eye(n, n + 1)
    if kind == "identity":
        return found
    if kind == "sequence":
        return joined_all(transform["transformations"], axes, load)
    if kind == "bijection":
        return matrix(transform["forward"], axes, load)
    if kind == "byDimension":
        return _by_dimension(transform, axes, load)
    if kind == "mapAxis":
        order = transform["mapAxis"]
        if isinstance(order, Mapping):  # {name of an output axis: name of an input axis}
            order = [axes.index(name) for name in order.values()]
        if sorted(order) != list(range(n)):
            raise DamagedFile(f"a mapAxis of {order} for {n} axes")
        return found[list(order)]
    if kind not in ("scale", "translation", "affine", "rotation"):
        raise Unkept(f"{kind}")
    given = transform[kind] if kind in transform else load(transform["path"])
    values = np.asarray(given, float)
    if not np.isfinite(values).all():
        raise DamagedFile(f"a {kind} of {values.tolist()}")
    if kind in ("scale", "translation"):
        if values.shape != (n,):
            raise DamagedFile(f"a {kind} of {values.size} numbers for {n} axes")
        if kind == "translation":
            found[:, n] = values
            return found
        free = np.array([_KNOWN.get(a) in ("t", "c") for a in axes], bool)
        if (values[~free] <= 0).any():
            raise DamagedFile(f"a scale of {values.tolist()}")
        found[:, :n] = np.diag(np.where(values > 0, values, 1))
        return found
    width = n + (kind == "affine")
    if values.ndim == 1:  # as early drafts write it
        values = values.reshape(-1, width) if values.size % width == 0 else values[None]
    if kind == "affine" and values.shape == (n + 1, n + 1):
        values = values[:-1]
    if values.ndim != 2 or values.shape[1] != width:
        raise DamagedFile(f"a {kind} of {values.size} numbers for {n} axes")
    return values if kind == "affine" else np.column_stack([values, np.zeros(len(values))])


def _by_dimension(transform: Mapping[str, Any], axes: Sequence[str], load: Load) -> np.ndarray:
    found = np.zeros((len(axes), len(axes) + 1))
    for entry in transform["transformations"]:
        inner = entry.get("transformation", entry)
        there, here = (
            [
                axes.index(a) if isinstance(a, str) else a
                for a in entry.get(f"{k}_axes", entry.get(k))
            ]
            for k in ("input", "output")
        )
        part = matrix(inner, [axes[i] for i in there], load)
        found[np.ix_(here, there)] = part[:, :-1]
        found[here, -1] = part[:, -1]
    return found


def joined_all(
    transforms: Sequence[Mapping[str, Any]], axes: Sequence[str], load: Load
) -> np.ndarray:
    """Some transformations, one after the other, as one matrix."""
    found = np.eye(len(axes), len(axes) + 1)
    for transform in transforms:
        found = _joined(found, matrix(transform, axes, load))
    return found


def _joined(first: np.ndarray, then: np.ndarray) -> np.ndarray:
    """Two transformations, one after the other."""
    if then.shape[1] != len(first) + 1:
        raise DamagedFile(f"a transformation of {then.shape[1] - 1} axes after one to {len(first)}")
    found: np.ndarray = then[:, :-1] @ first
    found[:, -1] += then[:, -1]
    return found


def along_axes(found: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """The scale and the shift along each input axis, and the output axis that it becomes.

    Raises
    ------
    Unkept
        If axes are turned, sheared, flipped or dropped.
    """
    linear, count = found[:, :-1], found.shape[1] - 1
    large = np.abs(linear) > TINY * np.abs(linear).max(initial=0)
    if linear.shape != (count, count) or (large.sum(0) != 1).any() or (large.sum(1) != 1).any():
        raise Unkept
    order = large.argmax(0)
    scale = linear[order, np.arange(count)]
    if (scale <= 0).any():
        raise Unkept
    return scale, found[order, -1], order.tolist()


def kinds(transform: Mapping[str, Any]) -> list[str]:
    """The types that a transformation is made of."""
    inner = transform.get("transformations") or [transform.get("forward")]
    parts = [e.get("transformation", e) for e in inner if isinstance(e, Mapping)]
    return [k for part in parts for k in kinds(part)] or [str(transform.get("type"))]


def without(transform: Mapping[str, Any], axis: str) -> dict[str, Any]:
    """The same transformation, of points that have no such axis.

    Raises
    ------
    InputError
        If it has parts of an unknown kind.
    """
    found = dict(transform)
    keep = {}
    for end in ("input", "output"):
        listed = (transform.get(end) or {}).get("axes", ())
        keep[end] = [i for i, a in enumerate(listed) if a["name"] != axis]
        if listed:
            left = [listed[i] for i in keep[end]]
            name = transform[end]["name"]
            named = name == "".join(a["name"] for a in listed)
            new = "".join(a["name"] for a in left) if named else name
            found[end] = {**transform[end], "axes": left, "name": new}
    kind = transform.get("type")
    if kind in ("scale", "translation"):
        found[kind] = [transform[kind][i] for i in keep["input"]]
    elif kind == "affine":
        rows = transform["affine"]
        columns = [*keep["input"], len(rows[0]) - 1]
        found["affine"] = [[rows[i][j] for j in columns] for i in keep["output"]]
    elif kind == "sequence":
        found["transformations"] = [without(t, axis) for t in transform["transformations"]]
    elif kind != "identity":
        raise InputError(f"a transformation of the type {kind} cannot be copied to labels")
    return found
