"""What the images of a training are like: their pixel size, type and range, for the model file."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..errors import InputError
from ..files import image as image_files
from ..files.image import say
from ..files.selection import ALIKE, plane_size
from ..model import intensity, sampling
from ..model.model import Images
from ..pool import tasks
from ..pool.tasks import Pool
from ..tiles import size
from . import examples
from .examples import Example
from .worker import LabeledTile

READ = 16  # labeled tiles, and images, whose intensities are looked at
MOSTLY = 0.5  # of an image: where its labeled tiles are less, what the rest is like is not read
MIXED = 8.0  # ratio of the ranges of two types of pixels that cannot be learned from together


def described(given: Sequence[Example], tiles: Sequence[LabeledTile], pool: Pool) -> Images:
    """What the training images are like.

    Raises
    ------
    ValueError
        If images of different types have ranges that differ by far.
    """
    chosen = [tiles[i] for i in sorted({round(i) for i in np.linspace(0, len(tiles) - 1, READ)})]
    types = [np.dtype(e.image.dtype).name for e in given]
    if len(set(types)) > 1:  # at least one tile of each
        first = {types[one.example]: one for one in reversed(tiles)}
        chosen += [one for one in first.values() if one not in chosen]
    spans = tasks.in_order(pool, _span, tuple(given), chosen)
    by_type = {
        name: intensity.joined(
            [s for s, one in zip(spans, chosen, strict=True) if types[one.example] == name]
        )
        for name in dict.fromkeys(types[one.example] for one in chosen)
    }
    highest = {name: max(map(abs, span)) for name, span in by_type.items() if span is not None}
    if highest and max(highest.values()) > MIXED * min(highest.values()):
        listed = ", ".join(f"{name} up to {high:.4g}" for name, high in highest.items())
        raise InputError(f"expected training images of one range of intensities, got {listed}")
    for name, found in by_type.items():
        intensity.check_fine(name, found)
    size = _pixel_size(given)
    names = {e.image.used_names for e in given}
    return Images(
        size,
        types[0],
        intensity.joined(spans),
        0 if size else _level(given),
        names.pop() if len(names) == 1 else (),
        _quantiles(given, tiles, pool),
    )


def _quantiles(
    given: Sequence[Example], tiles: Sequence[LabeledTile], pool: Pool
) -> tuple[tuple[tuple[float, ...], ...], ...]:
    """Quantiles of some images, each from all of it, as of images that are labeled.

    Those of images with few labels are not known: only what is near labels is read.
    """
    pixels = [0] * len(given)
    for one in tiles:
        pixels[one.example] += size(one.tile.core)
    mostly = [n for n, e in enumerate(given) if pixels[n] >= MOSTLY * math.prod(e.image.grid)]
    places = np.linspace(0, len(mostly) - 1, READ) if mostly else ()
    chosen = sorted({mostly[round(i)] for i in places})
    found = tasks.in_order(pool, _quantiles_of, tuple(given), chosen)
    return tuple(one for one in found if one is not None)


def _quantiles_of(given: tuple[Example, ...], number: int) -> tuple[tuple[float, ...], ...] | None:
    """Quantiles of an image but for masked pixels, None where no pixel is left."""
    example = given[number]
    blocks, masks = [], []
    for window in sampling.sample_windows(example.image.grid, 0):
        block = image_files.read(example.image, window)
        valid = examples.valid_of(example, window, block)
        blocks.append(block)
        masks.append(np.ones(block.shape[1:], bool) if valid is None else valid)
    try:
        return intensity.quantiles(sampling.pixels_of(blocks, masks))
    except InputError:
        return None


def _span(given: tuple[Example, ...], labeled: LabeledTile) -> tuple[float, float] | None:
    """Range of the intensities of a tile, as they are learned from."""
    example, window = given[labeled.example], labeled.tile.window
    pixels = image_files.read(example.image, window)
    valid = examples.valid_of(example, window, pixels)
    return intensity.span(pixels if valid is None else pixels[:, valid])


def _pixel_size(given: Sequence[Example]) -> tuple[float, float] | None:
    """Pixel size of all training images; None, with a word, where they have no common one."""
    sizes = [plane_size(e.image) for e in given]
    known = [size for size in sizes if size is not None]
    if not known:
        return None
    if len(known) < len(sizes):
        name = given[sizes.index(None)].image.path
        say(
            f"{name}: no pixel size is known, so the model keeps none (state it by "
            "`input_pixel_size`)"
        )
        return None
    columns = list(zip(*known, strict=True))
    if any(max(column) > ALIKE * min(column) for column in columns):
        low, high = min(map(min, columns)), max(map(max, columns))
        say(
            f"training images have pixels of {low:.4g} to {high:.4g} µm, so the model keeps no "
            "pixel size: bring them to one by `pixel_size`"
        )
        return None
    y, x = (math.exp(sum(map(math.log, column)) / len(column)) for column in columns)
    return y, x


def _level(given: Sequence[Example]) -> int:
    """The level that is read of all training images."""
    levels = sorted({e.image.level for e in given})
    if len(levels) > 1:
        raise InputError(f"expected training images of one level, got levels {levels}")
    return levels[0]
