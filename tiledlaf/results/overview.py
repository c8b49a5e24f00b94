"""Pictures of an output: image, labels, legend and scale bar on a sheet; small ones for pages."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import PurePosixPath

import PIL.Image

from ..errors import TiledlafWarning
from ..files import stores
from ..files.image import Image
from ..labeling import records, sheet
from ..labeling.areas import Area
from ..labeling.sheet import EDGE, Scene
from . import areas
from .result import Result


def draw(result: Result, edge: int = EDGE, table: Sequence[Area] | None = None) -> PIL.Image.Image:
    """The overview of labels, as `label` draws it at its end.

    Volumes are shown by their middle plane, series by their first time point. Smaller levels are
    read, never a whole one of a gigapixel.

    Parameters
    ----------
    result : from `open_result`
    edge : pixels of the longest edge, about
    table : areas of the classes, where they are known already
    """
    return sheet.draw(_scene(result, table), edge)


def thumbnail(result: Result, edge: int = 240) -> tuple[PIL.Image.Image | None, PIL.Image.Image]:
    """Image and labels as two small pictures of one size, without words; for rows of pages.

    Parameters
    ----------
    result : from `open_result`
    edge : pixels of the longest edge

    Returns
    -------
    image, labels
        The image is None where the output has none.
    """
    return sheet.panels(_scene(result, ()), edge)


def _scene(result: Result, table: Sequence[Area] | None) -> Scene:
    if table is None:
        table = areas.of_result(result)
    failed = 0
    if not stores.is_web(result.store):  # which lists no records
        states = [r["state"] for r in records.read(result.out.records).values()]
        failed = states.count("failed")
    title = PurePosixPath(result.store).name
    return Scene(
        title if result.name == "tiledlaf" else f"{title}, {result.name}",
        result.labels,
        table or areas.areas([0] * (len(result.names) + 1), result.names, None),
        result.colors,
        result.pixel_size,
        picture(result),
        failed=failed,
    )


def picture(result: Result) -> Image | None:
    """The image beside the labels, if it shows the same pixels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TiledlafWarning)  # said when the run began
        image = result.picture
    if image is None or image.grid_axes != result.labels.grid_axes:
        return None
    return image if image.grid == result.labels.grid else None
