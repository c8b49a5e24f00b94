"""Which plane of labels is exported, and where it lies in the image that was labeled."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from operator import truediv

from ..errors import InputError, readable
from ..files import levels
from .exporting import Choice
from .result import Result


@dataclass(frozen=True)
class Plane:
    """A plane of labels.

    Attributes
    ----------
    before : its position along the axes before y and x
    position : z and t in the image, as far as it has these axes
    origin : y and x of its first pixel, in pixels of the level that was labeled
    ratio : pixels of level 0 that one of its pixels has, along y and x
    """

    before: tuple[int, ...]
    position: Mapping[str, int]
    origin: tuple[int, int]
    ratio: tuple[float, float]


def check(result: Result, choice: Choice) -> None:
    """Refuse labels of several planes without one that is chosen, and choices among one.

    Raises
    ------
    ValueError
        Says which planes there are.
    """
    sizes = dict(zip(result.labels.grid_axes, result.labels.grid, strict=True))
    for axis, option, what in (("z", "z", "plane"), ("t", "time_point", "time point")):
        size, given = sizes.get(axis, 1), getattr(choice, option)
        if given is None and size > 1:
            raise InputError(
                f"{result.store}: expected `{option}` for one {what} of 0 to {size - 1}, since a "
                "file holds one"
            )
        if given is not None and not 0 <= given < size:
            raise InputError(f"`{option}` expects a {what} of 0 to {size - 1}, got {given}")


def plane(result: Result, choice: Choice) -> Plane:
    """The plane that is chosen, which `check` has seen."""
    wanted = {"z": choice.z or 0, "t": choice.time_point or 0}
    with readable(f"{result.store}: its notes on {result.group}"):
        origin, ratio, position = _place(result)
        for axis in set(origin) & set("zt"):
            index = origin[axis] + wanted[axis]
            position[axis] = math.floor((index + 0.5) * ratio[axis])
        return Plane(
            tuple(wanted[axis] for axis in result.labels.grid_axes[:-2]),
            position,
            (origin["y"], origin["x"]),
            (ratio["y"], ratio["x"]),
        )


def _place(result: Result) -> tuple[dict[str, int], dict[str, float], dict[str, int]]:
    """By the notes: where labels begin, ratios along the axes, and positions that are fixed."""
    starts = list(map(int, result.notes["settings"]["region"][0]))
    # the image's axes: labels of one time point may be without theirs
    own = ("t" + result.labels.spatial_axes)[-len(starts) :]
    source = result.notes.get("source") or {}
    whole, grid = source.get("whole", ()), source.get("grid", ())
    ratio = dict.fromkeys(own, 1.0) | dict(zip(own, map(truediv, whole, grid), strict=False))
    if whole:  # as annotations are read
        ratio |= dict(zip("yx", levels.pixel_ratio(whole[-2:], grid[-2:]), strict=True))
    position = {axis: int(index) for axis, index in source.get("fixed", ()) if axis in "zt"}
    return dict(zip(own, starts, strict=True)), ratio, position
