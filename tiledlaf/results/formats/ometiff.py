"""OME-TIFF with a pyramid, as QuPath, napari and Bio-Formats open it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import InputError
from ...files import image as image_files
from ...files import planes
from ...files.image import Image
from ...files.lengths import MICROMETERS
from ...model.classes import palette
from ...pool.tasks import Pool
from ...redaction import plain
from .. import objects
from ..exporting import Choice, Export, Progress, beside, chosen
from ..result import Result

TILE = 512
ACROSS = 16  # tiles that are read at once
NAMES, COLORS = "tiledlaf/classes", "tiledlaf/colors"  # of what is said of label values
# what the format has for pixels that are whole numbers
TYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32")


@dataclass(frozen=True)
class OmeTiff(Export):
    """Label values, or those of objects, of all planes and time points, with names and colors."""

    name = "OME-TIFF"
    suffixes = frozenset({".tif", ".tiff", ".ome.tif", ".ome.tiff"})
    options = frozenset({"classes", "objects"})

    def check(self, result: Result, choice: Choice) -> None:
        """Refuse label values that the format has no type for."""
        chosen(result, choice)
        if result.labels.dtype not in TYPES:
            raise InputError(
                f"{result.store}: OME-TIFF holds labels of the types {', '.join(TYPES)}, got "
                f"{result.labels.dtype}"
            )

    def write(
        self, result: Result, path: str, choice: Choice, pool: Pool, progress: Progress
    ) -> None:
        """Write each level tile by tile."""
        import tifffile

        if choice.objects is not None:
            found = objects.find_objects(result, choice.objects, pool, None, progress)
            result = beside(result, found)
            self.check(result, Choice())
        values = chosen(result, choice)
        kept = None if choice.classes is None else np.array(list(values))
        every = levels(result)
        total = sum(_count(shape) for _, _, shape in every)
        done = 0

        def tell() -> None:
            nonlocal done
            done += 1
            progress({"stage": "tiles", "done": done, "of": total})

        with tifffile.TiffWriter(path, bigtiff=True, ome=True) as file:
            for number, (image, step, shape) in enumerate(every):
                head: dict[str, Any] = {"subfiletype": 1, "metadata": None}
                if not number:
                    head = {"subifds": len(every) - 1, "metadata": _metadata(result, values)}
                file.write(
                    _tiles(image, step, shape, kept, tell),
                    shape=shape,
                    dtype=result.labels.dtype,
                    tile=(TILE, TILE),
                    compression="zlib",
                    **_look(result, step),
                    **_resolution(result, shape),
                    **head,
                )


def levels(result: Result) -> list[tuple[Image, int, tuple[int, ...]]]:
    """Each level down to a tile: what is read, every how many of its pixels, and its shape."""
    full = result.labels
    found = [(full, 1, tuple(full.grid))]
    nearest, level, own = full, 0, 1  # what is stored, and every how many pixels of all it has
    factor = 1
    while max(found[-1][2][-2:]) > TILE:
        factor *= 2
        shape = (*full.grid[:-2], *(-(-n // factor) for n in full.grid[-2:]))
        if full.levels[level + 1 : level + 2] == (shape,):
            level, own = level + 1, factor
            nearest = planes.at_level(full, level)
        # of a volume, levels of fewer planes are of no use here: planes are thinned by themselves
        found.append((nearest, factor // own, shape))
    return found


def _count(shape: Sequence[int]) -> int:
    return math.prod(shape[:-2]) * math.prod(-(-n // TILE) for n in shape[-2:])


def _tiles(
    image: Image,
    step: int,
    shape: Sequence[int],
    kept: np.ndarray | None,
    tell: Callable[[], None],
) -> Iterator[np.ndarray]:
    """Tiles of all planes in order, of every `step`-th pixel; others than `kept` values are 0."""
    *front, height, width = shape
    wide = max(TILE * ACROSS // step // TILE, 1) * TILE
    for before in itertools.product(*map(range, front)):
        for y, left in itertools.product(range(0, height, TILE), range(0, width, wide)):
            bottom, right = min(y + TILE, height), min(left + wide, width)
            window = (
                *(slice(b, b + 1) for b in before),
                slice(y * step, min(bottom * step, image.grid[-2])),
                slice(left * step, min(right * step, image.grid[-1])),
            )
            block = image_files.read(image, window)
            block = block.reshape(block.shape[-2:])[::step, ::step]
            if kept is not None:
                block = np.where(np.isin(block, kept), block, 0).astype(block.dtype)
            block = np.pad(block, [(0, y + TILE - bottom), (0, -(right - left) % TILE)])
            for x in range(0, block.shape[1], TILE):
                yield np.ascontiguousarray(block[:, x : x + TILE])
                tell()


def _look(result: Result, step: int) -> dict[str, Any]:
    """Colors of label values, where the format has a palette for them."""
    if result.labels.dtype != "uint8" or not result.colors:
        return {"photometric": "minisblack"}
    colors = np.zeros((256, 3), np.uint8)
    known = palette(max(result.colors), result.colors)
    colors[: len(known)] = known
    return {"photometric": "palette", "colormap": colors.T.astype(np.uint16) * 257}


def _resolution(result: Result, shape: Sequence[int]) -> dict[str, Any]:
    """Pixels per centimeter, which programs read that do not know OME."""
    sizes = result.plane_size
    if sizes is None:
        return {}
    there = [n / m for n, m in zip(result.labels.grid[-2:], shape[-2:], strict=True)]
    y, x = (1e4 / (size * f) for size, f in zip(sizes, there, strict=True))
    return {"resolution": (x, y), "resolutionunit": "CENTIMETER"}


def _metadata(result: Result, values: Mapping[int, str]) -> dict[str, Any]:
    """What the file says in OME's terms."""
    labels = result.labels
    found: dict[str, Any] = {
        "axes": labels.grid_axes.upper(),
        "Name": plain(result.name),
        "Channel": {"Name": [plain(result.name)]},
        "MapAnnotation": [
            {"Namespace": NAMES} | {str(v): plain(name) for v, name in values.items()},
            {"Namespace": COLORS}
            | {
                str(v): "#" + bytes(result.colors[v][:3]).hex()
                for v in values
                if v in result.colors
            },
        ],
    }
    for axis, scale, unit in zip(labels.grid_axes, labels.scale, labels.units, strict=True):
        if axis == "t" and unit == "second":
            found |= {"TimeIncrement": scale, "TimeIncrementUnit": "s"}
        elif axis != "t" and unit in MICROMETERS:
            found |= {
                f"PhysicalSize{axis.upper()}": scale * MICROMETERS[unit],
                f"PhysicalSize{axis.upper()}Unit": "µm",
            }
    return found
