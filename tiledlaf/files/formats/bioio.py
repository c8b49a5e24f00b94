"""Microscopes' own formats, where bioio and a reader of the format are installed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DamagedFile, InputError
from .. import image
from ..channels import RGB, Channel
from ..image import SPATIAL, Levels, Part, Reader


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
        others = set(letters) - set("tczyxs")
        if others or {"c", "s"} <= set(letters):
            listed = ", ".join(f"{a} {n}" for a, n in sizes.items() if n > 1)
            raise InputError(f"{path}: expected the axes t, c, z, y, x or colors, got {listed}")
        known = {a: getattr(found.physical_pixel_sizes, a.upper(), None) for a in SPATIAL}
        color, names = sizes.get("s", 1) == len(RGB), found.channel_names or []
        named = [Channel(str(n)) for n in names] if len(names) == sizes["c"] > 1 else ()
        return Levels(
            f"{scene}/{letters}" if scene else letters,
            letters.replace("s", "c"),
            (tuple(sizes[a] for a in letters),),
            found.dtype,
            [known.get(a) or 1.0 for a in letters],
            None,
            ["micrometer" if known.get(a) else None for a in letters],
            channels=RGB if color else named,
            color=color,
        )

    def open(self, path: str, name: str) -> Any:
        """A lazy array with the axes in `name`, which follow the number of a scene."""
        *scene, letters = name.split("/")
        found = _opened(path, int(scene[0]) if scene else 0)
        array = found.get_image_dask_data(letters.upper())
        # CZI stores blue first, and its reader leaves it so
        turned = letters.endswith("s") and Path(path).suffix.lower() == ".czi"
        return array[..., ::-1] if turned else array

    def read(self, array: Any, box: tuple[slice | int, ...]) -> np.ndarray:
        """Pixels of a box, read on this thread."""
        return np.asarray(array[box].compute(scheduler="synchronous"))

    def parts(self, path: str) -> list[Part]:
        """The scenes, if there are several."""
        scenes = _opened(path).scenes
        parts = []
        for number, title in enumerate(scenes if len(scenes) > 1 else ()):
            found = _opened(path, number)
            sizes = _sizes(found)
            axes, shape = "".join(sizes), tuple(sizes.values())
            parts.append(Part(str(number), str(title), axes, shape, str(found.dtype)))
        return parts

    def choose(self, path: str, series: str) -> Reader:
        """The reader of a scene, by its number or name."""
        return replace(self, scene=image.part_number(path, self.parts(path), series))


def _sizes(found: Any) -> dict[str, int]:
    """Lengths of the axes; s is that of the samples of colors."""
    return {axis.lower(): int(n) for axis, n in found.dims.items()}


def _largest(path: str) -> int:
    """The number of the scene with the most pixels; says that there are others."""
    scenes = _opened(path).scenes
    if len(scenes) < 2:
        return 0
    sizes = [_sizes(_opened(path, number)) for number in range(len(scenes))]
    shapes = [(one["y"], one["x"]) for one in sizes]
    return image.largest(path, scenes, shapes, [math.prod(shape) for shape in shapes])


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
