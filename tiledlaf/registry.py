"""Kinds by name: this program's own, and those that installed packages add as entry points."""

from __future__ import annotations

import functools
import importlib.metadata
import warnings
from collections.abc import Iterator, Mapping
from typing import TypeVar

from .errors import TiledlafWarning

T = TypeVar("T")


class Registry(Mapping[str, T]):
    """Kinds by name, in order: this program's own, then those of installed packages.

    A package adds one as an entry point of the group; docs/extending.md shows how. All entry points
    of a group are loaded when the registry is first used, whatever is looked up: no name in a file
    ever chooses what is imported.

    Parameters
    ----------
    group : str
        Name of the group of entry points.
    own : mapping
        This program's own kinds; no package can replace them.

    Attributes
    ----------
    own : dict

    Examples
    --------
    >>> from tiledlaf.registry import Registry
    >>> sizes = Registry("example.sizes", {"small": 1, "large": 9})
    >>> sizes["large"], "huge" in sizes
    (9, False)
    """

    def __init__(self, group: str, own: Mapping[str, T]) -> None:
        self._group, self.own = group, dict(own)

    @functools.cached_property
    def _all(self) -> dict[str, T]:
        found = dict(self.own)
        for point in importlib.metadata.entry_points(group=self._group):
            where = f"entry point {point.name} of {self._group} ({point.value})"
            if point.name in found:
                text = f"{where} is left out: the name is taken"
                warnings.warn(text, TiledlafWarning, stacklevel=3)
                continue
            try:
                found[point.name] = point.load()
            except Exception as error:  # third-party code may raise anything
                text = f"{where} is left out: {type(error).__name__}: {error}"
                warnings.warn(text, TiledlafWarning, stacklevel=3)
        return found

    def __getitem__(self, name: str) -> T:
        return self._all[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)
