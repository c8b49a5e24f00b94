"""Label values of two images, window by window, as what is compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import image as image_files
from ..files.image import Image
from ..pool import tasks
from ..tiles import Box, Tile
from . import scores


def each_tile(
    pool: tasks.Pool, function: Callable[[Any, Any], Any], job: Any, tiles: Any
) -> Iterator[tuple[Tile, Any]]:
    """The result for each tile, in the order in which they finish; the first error is raised."""
    for tile, result, error, _ in pool.run(function, job, tiles):
        if error is not None:
            raise error
        yield tile, result


def read(image: Image, window: Box) -> np.ndarray:
    """Label values of a window, int64, or uint64 as stored."""
    block = image_files.read(image, window)[0]
    if block.dtype == np.uint64:
        return block
    with np.errstate(invalid="ignore"):
        whole = block.astype(np.int64)
    if not np.array_equal(whole, block):
        bad = block[whole != block].flat[0]
        raise InputError(f"{image.path}: expected whole numbers as labels, got {bad}")
    return whole


def read_classes(job: tuple[Image, Mapping[int, int]], window: Box) -> np.ndarray:
    """Classes of a window's pixels, 0 where they have none; the job is an image and its table."""
    image, table = job
    return scores.look_up(read(image, window), table)


def read_tile(job: tuple[Image, Mapping[int, int]], tile: Tile) -> np.ndarray:
    """The same of a tile."""
    return read_classes(job, tile.window)
