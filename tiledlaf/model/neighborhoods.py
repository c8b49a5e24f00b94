"""Neighborhoods of images: those of grids, and all pixels within a distance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..errors import InputError
from ..files.image import Image
from ..files.lengths import micrometers_of
from ..files.selection import ALIKE, pixel_size
from ..flow import stencil
from ..kernels.arrays import Offsets


def choose(neighborhood: Any, images: Sequence[Image]) -> tuple[Offsets, list[str]]:
    """The offsets of a neighborhood of images, and a line on what a distance came to.

    Parameters
    ----------
    neighborhood : str or offsets
        As `stencil.choose` has it, or a distance such as ``15nm``.
    images : one or more, of as many spatial axes

    Raises
    ------
    ValueError
        If it is no neighborhood of such images, or a distance and the pixel sizes are not known,
        or differ.
    """
    distance = micrometers_of(neighborhood) if isinstance(neighborhood, str) else None
    if distance is None:
        return stencil.choose(neighborhood, len(images[0].spatial_axes)), []
    size = _common(images, neighborhood)
    try:
        offsets = stencil.ball(distance, size)
    except InputError as error:
        raise InputError(f"`neighborhood` {neighborhood}, in micrometers: {error}") from None
    edges = " x ".join(str(2 * r + 1) for r in stencil.radius(offsets))
    pixels = " x ".join(f"{s:.4g}" for s in size)
    line = (
        f"neighborhood {neighborhood}: {len(offsets)} pixels within {edges} "
        f"({', '.join(images[0].spatial_axes)}), of {pixels} µm each"
    )
    return offsets, [line]


def _common(images: Sequence[Image], distance: str) -> tuple[float, ...]:
    """Pixel size of all images along each axis, in micrometers."""
    known = []
    for image in images:
        size = pixel_size(image)
        if size is None:
            raise InputError(
                f"{image.path}: a `neighborhood` of {distance} expects an image with a pixel size "
                f"along {', '.join(image.spatial_axes)}, got one without: state it by "
                "`input_pixel_size`, or give the neighborhood in pixels"
            )
        known.append(size)
    for axis, column in zip(images[0].spatial_axes, zip(*known, strict=True), strict=True):
        if max(column) > ALIKE * min(column):
            raise InputError(
                f"a `neighborhood` of {distance} expects images of one pixel size, got "
                f"{min(column):.4g} to {max(column):.4g} µm along {axis}: bring them to one by "
                "`pixel_size`, or give the neighborhood in pixels"
            )
    return tuple(
        math.exp(math.fsum(map(math.log, column)) / len(column))
        for column in zip(*known, strict=True)
    )
