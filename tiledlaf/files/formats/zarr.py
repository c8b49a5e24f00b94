"""OME-Zarr 0.4 and 0.5, and plain Zarr arrays, in folders or at URLs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import image, ngff, nodes
from ..image import Levels, Reader, State


@dataclass(frozen=True)
class Zarr(Reader):
    """A level of an OME-Zarr image, or a plain array."""

    name = "zarr"
    chunked = True

    def sniff(self, path: str) -> bool:
        """Whether a path holds a Zarr group or array."""
        return nodes.is_store(path)

    def look(self, path: str, level: int, axes: str | None) -> Levels:
        """Shapes, scales and units from the NGFF metadata."""
        found = ngff.read_multiscale(path)
        image.check_level(path, level, len(found.paths))
        name = found.paths[level]
        return Levels(
            name,
            found.axes,
            found.shapes[level:],
            nodes.open_array(path, name).dtype,
            found.scales[level],
            found.translations[level],
            found.units,
        )

    def open(self, path: str, name: str) -> Any:
        """The Zarr array."""
        return nodes.open_array(path, name)

    def read(self, array: Any, box: tuple[slice | int, ...]) -> np.ndarray:
        """Pixels of a box, decoded on the calling thread."""
        return nodes.read(array, box)

    def state(self, path: str, name: str) -> State:
        """Names, sizes and times of the array's chunks."""
        return nodes.chunk_state(os.path.join(path, name))

    def as_labels(self, path: str) -> tuple[Reader, str | None]:
        """Three axes without names are z, y, x."""
        found = ngff.read_multiscale(path)
        volume = not found.axes and len(found.shapes[0]) == 3
        return self, "zyx" if volume else None
