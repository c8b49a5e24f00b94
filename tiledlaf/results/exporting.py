"""What a format of exported labels is, and what can be asked of one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from ..errors import InputError, settle_numbers
from ..pool.tasks import Pool
from .objects import Objects
from .result import Result

Progress = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Choice:
    """What of an output is exported, and how.

    Attributes
    ----------
    classes : names or label values of those to export; None: all
    objects : class whose objects are exported, one by one, instead of classes
    simplify : micrometers by which the borders of polygons may move
    z, time_point : the plane of a volume, and the time point, from 0, where a file holds one
    """

    classes: tuple[str | int, ...] | None = None
    objects: str | None = None
    simplify: float | None = None
    z: int | None = None
    time_point: int | None = None

    def __post_init__(self) -> None:
        settle_numbers(self)
        if self.simplify is not None and not 0 < self.simplify < float("inf"):
            raise InputError(f"`simplify` expects micrometers above 0, got {self.simplify:g}")
        if self.classes is not None and not self.classes:
            raise InputError("`classes` expects one or more classes, got none")

    @property
    def named(self) -> list[str]:
        """The fields that say something."""
        fields = (field.name for field in dataclasses.fields(self))
        return [name for name in fields if getattr(self, name) is not None]


class Export(Protocol):
    """A format of files that hold what comes out, as a small frozen value.

    A format implements `write`, and `check` where it cannot hold everything.

    Attributes
    ----------
    name : shown to users
    suffixes : of its files, in lower case; the longest that fits decides
    options : fields of `Choice` that it knows; others are refused
    pooled : whether its work is done as tasks
    """

    name: ClassVar[str]
    suffixes: ClassVar[frozenset[str]]
    options: ClassVar[frozenset[str]] = frozenset()
    pooled: ClassVar[bool] = False

    def check(self, result: Result, choice: Choice) -> None:
        """Refuse labels that a file of this format cannot hold, before anything is computed.

        Raises
        ------
        ValueError
            Says why.
        """

    def write(
        self, result: Result, path: str, choice: Choice, pool: Pool, progress: Progress
    ) -> None:
        """Write the file, a piece of the labels at a time.

        Parameters
        ----------
        path : of a new file, which is put into place once it is whole; its suffix says nothing
        progress : called with {"stage", "done", "of"} as the work goes on
        """
        ...


def beside(result: Result, found: Objects) -> Result:
    """The objects of a class as labels without names."""
    name = found.group.removeprefix("labels/")
    return dataclasses.replace(result, name=name, labels=found.labels, names={}, colors={})


def chosen(result: Result, choice: Choice) -> Mapping[int, str]:
    """The label values to export, with their names.

    Raises
    ------
    ValueError
        If a class is asked for that there is not.
    """
    if choice.classes is None:
        return result.names
    names, values = result.names, set[int]()
    for one in choice.classes:
        same = {v for v, name in names.items() if name == one}
        same = same or {v for v in names if str(v) == str(one)}
        if not same:
            raise InputError(f"`classes` expects some of {', '.join(names.values())}, got {one}")
        values |= same
    return {value: name for value, name in names.items() if value in values}
