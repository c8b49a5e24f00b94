"""Microscopes' own formats, where bioio and a reader of the format are installed."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DamagedFile, InputError
from .. import image
from ..channels import Channel
from ..image import SPATIAL, FileWarning, Levels, Part, Reader


@dataclass(frozen=True)
class Bioio(Reader):
    """A scene of a file that bioio reads, such as CZI, ND2 or LIF; None: the largest one."""

    scene: int | None = None

    name = "bioio"
    suffixes = frozenset({".czi", ".nd2", ".lif", ".dv", ".r3d", ".ims", ".sldy"})
    lossy = True

    def look(self, path: str, level: int, axes: str | None) -> Levels:
        """Shape, channels and pixel sizes; axes of length 1 are left out, except y and x."""
        image.check_level(path, level, 1)
        scene = _largest(path) if self.scene is None else self.scene
        found = _opened(path, scene)
        sizes = _sizes(found)
        letters = "".join(a for a, n in sizes.items() if n > 1 or a in "yx")
        known = {a: getattr(found.physical_pixel_sizes, a.upper(), None) for a in SPATIAL}
        names = found.channel_names or []
        return Levels(
            f"{scene}/{letters}" if scene else letters,
            letters,
            (tuple(sizes[a] for a in letters),),
            found.dtype,
            [known.get(a) or 1.0 for a in letters],
            None,
            ["micrometer" if known.get(a) else None for a in letters],
            channels=[Channel(str(n)) for n in names] if len(names) == sizes["c"] > 1 else (),
        )

    def open(self, path: str, name: str) -> Any:
        """A lazy array with the axes in `name`, which follow the number of a scene."""
        *scene, letters = name.split("/")
        found = _opened(path, int(scene[0]) if scene else 0)
        return found.get_image_dask_data(letters.upper())

    def read(self, array: Any, box: tuple[slice | int, ...]) -> np.ndarray:
        """Pixels of a box, read on this thread."""
        return np.asarray(array[box].compute(scheduler="synchronous"))

    def parts(self, path: str) -> list[Part]:
        """The scenes, if there are several."""
        scenes = _opened(path).scenes
        parts = []
        for number, title in enumerate(scenes if len(scenes) > 1 else ()):
            found = _opened(path, number)
            shape = tuple(_sizes(found).values())
            parts.append(Part(str(number), str(title), "tczyx", shape, str(found.dtype)))
        return parts

    def choose(self, path: str, series: str) -> Reader:
        """The reader of a scene, by its number or name."""
        return replace(self, scene=image.part_number(path, self.parts(path), series))


def _sizes(found: Any) -> dict[str, int]:
    return dict(zip("tczyx", (found.dims[a][0] for a in "TCZYX"), strict=True))


def _largest(path: str) -> int:
    """The number of the scene with the most pixels; says that there are others."""
    scenes = _opened(path).scenes
    if len(scenes) < 2:
        return 0
    shapes = [list(_sizes(_opened(path, number)).values()) for number in range(len(scenes))]
    number = max(range(len(scenes)), key=lambda n: math.prod(shapes[n][-2:]))
    listed = ", ".join(
        f"{n} {title!r} {shape[-2]} x {shape[-1]}"
        for n, (title, shape) in enumerate(zip(scenes, shapes, strict=True))
    )
    warnings.warn(
        f"{path}: series {number}, the largest, is read of {listed} (choose with `series`)",
        FileWarning,
        stacklevel=4,
    )
    return number


def _opened(path: str, scene: int = 0) -> Any:
    suffix = Path(path).suffix
    try:
        from bioio import BioImage
    except ImportError:
        raise InputError(
            f"{path}: files ending {suffix} need bioio and a reader of theirs: pip install "
            f"'tiledlaf[bioio]' bioio-{suffix[1:].lower()}"
        ) from None
    try:
        found = BioImage(path)
        if scene:
            found.set_scene(scene)
        return found
    except Exception as error:  # readers raise what they like
        text = (str(error) or "no text").splitlines()[0]
        raise DamagedFile(f"{path}: bioio cannot read it, {type(error).__name__}: {text}") from None
