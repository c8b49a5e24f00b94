"""Classes, the label values that stand for them, and their colors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import InputError, as_whole, understood
from .entries import ClassEntry

# what is read of a label image where it says that a pixel is not labeled, such as NaN
UNLABELED = -(2**63)

# colors that most color-blind people can tell apart (Okabe and Ito), then lighter shades of them
COLORS = (
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (86, 180, 233),
    (213, 94, 0),
    (240, 228, 66),
    (110, 110, 110),
)


def color(value: int) -> tuple[int, int, int, int]:
    """Color of a label value, RGBA."""
    again, place = divmod(value - 1, len(COLORS))
    red, green, blue = (255 - (255 - c) // (again + 1) for c in COLORS[place])
    return red, green, blue, 255


@dataclass(frozen=True)
class Class:
    """A class, the label values that stand for it, and how it is shown."""

    name: str
    values: tuple[int, ...]
    color: tuple[int, ...] = field(default=(), compare=False)


def entries(classes: Sequence[Class]) -> list[dict[str, Any]]:
    """Classes as JSON."""
    return [{"name": c.name, "values": list(c.values), "color": list(c.color)} for c in classes]


def classes_from(rows: Sequence[ClassEntry]) -> tuple[Class, ...]:
    """The classes of `entries`."""
    if any(len(row.color) in (1, 2) for row in rows):
        raise InputError("expected red, green and blue as the color of a class")
    return tuple(Class(row.name, tuple(row.values), tuple(row.color)) for row in rows)


def palette(classes: int, colors: Mapping[int, Sequence[int]] | None = None) -> np.ndarray:
    """Colors of the label values 0..J, (J + 1, 3) uint8; unlabeled is black.

    `colors` are those that label values have of their own.
    """
    own = {value: color(value) for value in range(1, classes + 1)} | dict(colors or {})
    return np.array([(0, 0, 0), *(own[v][:3] for v in range(1, classes + 1))], np.uint8)


def ignored(ignore: int | Sequence[int] | None) -> set[int]:
    """All label values that mean "not labeled"."""
    given: Sequence[Any] = () if ignore is None else (ignore,)
    if isinstance(ignore, Sequence) and not isinstance(ignore, str):
        given = ignore
    return {*(as_whole("ignore", value) for value in given), UNLABELED}


def find_classes(
    values: Sequence[int], names: Mapping[str, str] | None, ignore: int | Sequence[int] | None
) -> tuple[Class, ...]:
    """The classes of the label values found.

    Parameters
    ----------
    values : label values that occur
    names : {"0": "membrane", "32": "membrane", "255": "inside"}, optional
        Equal names merge, in the order in which they appear; values without a name follow.
    ignore : a value that means "not labeled", or several

    Raises
    ------
    ValueError
        If fewer than two classes are left, or a name's values never occur.
    """
    left = sorted({*values} - ignored(ignore))
    groups: dict[str, list[int]] = {}
    with understood("names", names, "a mapping of label values to names"):
        given = dict(names or {})
    for key, name in given.items():
        if not re.fullmatch(r"-?\d{1,19}", str(key)):
            raise InputError(f"expected `names` of label values, such as 0 or 255, got {key!r}")
        groups.setdefault(str(name), []).append(int(key))
    named = {v for group in groups.values() for v in group}
    for value in left:
        if value not in named:
            groups.setdefault(str(value), []).append(value)
    missing = [name for name, group in groups.items() if not set(group) & set(left)]
    if missing:
        raise InputError(f"expected labeled pixels of each class, got none of {', '.join(missing)}")
    found = tuple(
        Class(name, tuple(group), color(number))
        for number, (name, group) in enumerate(groups.items(), 1)
    )
    if not found:
        raise InputError("expected labeled pixels, got none")
    if len(found) < 2:
        raise InputError(
            f"expected labels of two or more classes, got only {found[0].name} "
            f"({', '.join(map(str, found[0].values))})"
        )
    return found
