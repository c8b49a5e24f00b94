"""OME-Zarr 0.1 to 0.6, and plain Zarr arrays, in folders, zip archives or at URLs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import InputError
from .. import groups, image, ngff, nodes, stores
from ..archives import Archive
from ..channels import is_color
from ..image import Levels, Part, Reader, State


@dataclass(frozen=True)
class Zarr(Reader):
    """A level of an OME-Zarr image, or a plain array.

    Attributes
    ----------
    part : path of the image within a group that holds several, such as a field of a plate
    """

    part: str = ""

    name = "zarr"
    chunked = True

    def sniff(self, path: str) -> bool:
        """Whether a path holds a Zarr group or array."""
        return nodes.is_store(path)

    def look(self, path: str, level: int, axes: str | None) -> Levels:
        """Shapes, scales and units from the NGFF metadata."""
        part, words = self._part(path)
        whole = f"{path}/{part}" if part else path
        found = ngff.read_multiscale(whole)
        image.check_level(path, level, len(found.paths))
        if axes is None and not found.axes and found.called:
            raise InputError(
                f"{whole}: its axes are called {', '.join(found.called)}; name them with `axes`, "
                f"such as `axes` {'tczyx'[-len(found.called) :]}"
            )
        for word in (*words, *found.words, *_answers(path)):
            image.say(f"{path}: {word}")
        name = found.paths[level]
        return Levels(
            f"{part}/{name}" if part and name else part or name,
            found.axes,
            found.shapes[level:],
            nodes.open_array(whole, name).dtype,
            found.scales[level],
            found.translations[level],
            found.units,
            whole=found.shapes[0],
            channels=found.channels,
            color=is_color(found.channels),
        )

    def _part(self, path: str) -> tuple[str, tuple[str, ...]]:
        """Path of the image within the store, and a word on why it is this one."""
        if self.part:
            return self.part, ()
        part, word = groups.default(path)
        return part, (word,) if word else ()

    def open(self, path: str, name: str) -> Any:
        """The Zarr array."""
        return nodes.open_array(path, name)

    def read(self, array: Any, box: tuple[slice | int, ...]) -> np.ndarray:
        """Pixels of a box, decoded on the calling thread."""
        return nodes.read(array, box)

    def state(self, path: str, name: str) -> State:
        """Names, sizes and times of the array's chunks."""
        place = stores.at(path)
        return nodes.chunk_state(
            place.file if isinstance(place, Archive) else os.path.join(path, name)
        )

    def as_labels(self, path: str) -> tuple[Reader, str | None]:
        """Three axes without names are z, y, x."""
        part, _ = self._part(path)
        found = ngff.read_multiscale(f"{path}/{part}" if part else path)
        volume = not found.axes and len(found.shapes[0]) == 3
        return self, "zyx" if volume else None

    def parts(self, path: str) -> list[Part]:
        """Fields of a plate or well, series of bioformats2raw, images and labels of SpatialData."""
        return groups.parts(path)

    def choose(self, path: str, series: str) -> Reader:
        """The reader of one of `parts`, by its path, number or title."""
        return Zarr(groups.choose(path, series))

    def place(self, path: str) -> str:
        """The path of the image alone."""
        part, _ = self._part(path)
        return f"{path}/{part}" if part else path


def _answers(path: str) -> list[str]:
    """A word on servers that do not say 404 of what is not there."""
    absence = getattr(stores.at(path), "absence", "404")
    if absence == "404":
        return []
    answer = "403" if absence == "403" else "a web page"
    return [
        f"its server answers {answer} for what is not there, so chunks that it answers so count as "
        "never written"
    ]
