"""Microscopes' own formats, where bioio and a reader of the format are installed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DamagedFile, InputError
from .. import image
from ..image import SPATIAL, Levels, Reader


@dataclass(frozen=True)
class Bioio(Reader):
    """The first scene of a file that bioio reads, such as CZI, ND2 or LIF."""

    name = "bioio"
    suffixes = frozenset({".czi", ".nd2", ".lif", ".dv", ".r3d", ".ims", ".sldy"})
    lossy = True

    def look(self, path: str, level: int, axes: str | None) -> Levels:
        """Shape and pixel sizes; axes of length 1 are left out, except y and x."""
        image.check_level(path, level, 1)
        found = _opened(path)
        sizes = dict(zip("tczyx", (found.dims[a][0] for a in "TCZYX"), strict=True))
        letters = "".join(a for a, n in sizes.items() if n > 1 or a in "yx")
        known = {a: getattr(found.physical_pixel_sizes, a.upper()) for a in SPATIAL}
        return Levels(
            letters,
            letters,
            (tuple(sizes[a] for a in letters),),
            found.dtype,
            [known.get(a) or 1.0 for a in letters],
            None,
            ["micrometer" if known.get(a) else None for a in letters],
        )

    def open(self, path: str, name: str) -> Any:
        """A lazy array with the axes in `name`."""
        return _opened(path).get_image_dask_data(name.upper())

    def read(self, array: Any, box: tuple[slice | int, ...]) -> np.ndarray:
        """Pixels of a box, read on this thread."""
        return np.asarray(array[box].compute(scheduler="synchronous"))


def _opened(path: str) -> Any:
    suffix = Path(path).suffix
    try:
        from bioio import BioImage
    except ImportError:
        raise InputError(
            f"{path}: files ending {suffix} need bioio and a reader of theirs: pip install "
            f"'tiledlaf[bioio]' bioio-{suffix[1:].lower()}"
        ) from None
    try:
        return BioImage(path)
    except Exception as error:  # readers raise what they like
        text = (str(error) or "no text").splitlines()[0]
        raise DamagedFile(f"{path}: bioio cannot read it, {type(error).__name__}: {text}") from None
