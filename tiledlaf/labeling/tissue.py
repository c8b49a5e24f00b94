"""`mask` tissue: where an image has tissue, found at a low resolution and used as its mask.

Tissue is more colored than the background of a slide in red, green and blue. In other images it is
brighter or darker than the background, which is the side that varies less. Otsu's threshold tells
them apart; small holes are closed, specks are removed, and the rest becomes a pixel wider all
around, since a pixel of the mask stands for many of the image.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..annotations.opening import TISSUE
from ..errors import InputError, readable
from ..files import image as image_files
from ..files.image import Image, TimePoint, read_pixels, say
from ..files.resampled import Resampled
from ..files.selection import plane_size
from ..pool import tasks
from ..pool.tasks import Pool
from ..tiles import Grid

EDGE = 2048  # longest side of the image that tissue is found on
LEAST = 32  # pixels along it that are left at least
PIXEL = 8.0  # size of its pixels in micrometers, at least, where it is known
LONG = 2**28  # pixels to read for that, from which on the user is told
SPECK = 1e4  # area of specks and holes in square micrometers,
SPECK_PIXELS = 64  # in pixels of the mask where the size of pixels is unknown,
SHARE = 2000  # and at most this part of a plane
CLEAR = 1.5  # how many times more than the other one side varies where that decides
FAINT = 25 / 255  # color, of the range of the type, that a background has at most


@dataclass(frozen=True)
class Pending(Resampled):
    """The reader of a mask that is still to be found on the image `low`."""

    low: Any = None

    @property
    def stored(self) -> bool:  # type: ignore[override]
        """No pixel of it is in a file."""
        return False

    def describe(self) -> list[Any]:
        """What the mask depends on besides the image itself, as JSON."""
        found = self.low
        return [TISSUE, found.name, list(found.grid), _colored(found)]


def pending(image: Image) -> Image:
    """The mask of an image before it is found; nothing is read."""
    small = low(image)
    reader = Pending(image.reader, small.grid, image.grid, nearest=True, low=small)
    return mask_at(image, TISSUE, reader, "")


def is_pending(mask: Image | None) -> bool:
    """Whether a mask is still to be found."""
    return mask is not None and isinstance(mask.reader, Pending)


def mask_at(image: Image, path: str, reader: Any, name: str) -> Image:
    """An image of the same grid and one channel."""
    return Image(
        path,
        reader,
        name,
        image.grid_axes,
        image.grid,
        "uint8",
        (image.grid,),
        image.scale,
        image.translation,
        image.units,
        whole=image.grid,
    )


def low(image: Image) -> Image:
    """The image at the resolution that tissue is found at: a coarse level, or means of its pixels.

    Tissue is larger than cells, so its pixels are not smaller than `PIXEL` where sizes are known.
    """
    edge = max(256, EDGE / math.sqrt(math.prod(image.grid[:-2])))
    size = _pixel_area(image) ** 0.5
    wanted = max(1.0, max(image.grid[-2:]) / edge, PIXEL / size if size else 1.0)
    wanted = min(wanted, max(image.grid[-2:]) / LEAST)  # of a small image something must be left
    first, grids = _grids(image)
    factors = [max(image.grid[-2:]) / max(shape[-2:]) for shape in grids]
    step = max((i for i, f in enumerate(factors) if f <= 1.5 * wanted), default=0)
    if wanted > 6 * factors[step] and step + 1 < len(factors) and factors[step + 1] < 4 * wanted:
        step += 1
    own = step == 0 and grids[0] == image.grid
    found = dataclasses.replace(image, gain=None) if own else _level(image, first + step)
    if _colored(image):
        found = dataclasses.replace(found, channels=tuple(range(3)))
    factor = round(wanted / factors[step])
    if factor <= 1:
        return found
    if math.prod(found.grid) > LONG:
        say(
            f"{image.path}: it has no coarse level, so {math.prod(found.grid) / 1e6:.0f} Mpx are "
            "read to find tissue"
        )
    *planes, height, width = found.grid
    return _smaller(found, (*planes, math.ceil(height / factor), math.ceil(width / factor)))


def _pixel_area(image: Image) -> float:
    """Area of a pixel in square micrometers, 0 where it is not known."""
    return math.prod(plane_size(image) or (0.0,))


def _grids(image: Image) -> tuple[int, list[tuple[int, ...]]]:
    """Number of the stored level that an image is read from, and grids of this and coarser ones."""
    reader, shape = image.reader, image.shape
    if not reader.stored or (len(image.levels) == 1 and not isinstance(reader, Resampled)):
        return 0, [image.grid]
    if isinstance(reader, Resampled):
        shape, reader = reader.sizes, reader.source
    with readable(image.path):
        shapes = [tuple(one) for one in reader.look(image.path, 0, image.axes).shapes]
    kept, level = [image.axes.index(a) for a in image.grid_axes], shapes.index(shape)
    return level, [tuple(one[i] for i in kept) for one in shapes[level:]]


def _level(image: Image, level: int) -> Image:
    """A stored level of an image, read at the same time point, plane and channels."""
    reader, axes = image.reader, image.axes
    if isinstance(reader, Resampled):
        reader = reader.source
    with readable(image.path):
        found = reader.look(image.path, level, axes)
    sizes, stored = (
        dict(zip(axes, shape, strict=True)) for shape in (image.shape, found.shapes[0])
    )
    fixed = {a: i * stored[a] // sizes[a] for a, i in image.fixed}
    every: TimePoint = "all" if "t" in axes else None
    made = image_files.make(image.path, reader, found, axes, fixed.get("t", every), fixed.get("z"))
    scale = [s * n / m for s, n, m in zip(image.scale, image.grid, made.grid, strict=True)]
    return dataclasses.replace(
        made,
        scale=tuple(scale),
        units=image.units,
        channels=image.channels,
        shown=image.shown,
        color=image.color,
        no_data=image.no_data,
    )


def _smaller(image: Image, grid: tuple[int, ...]) -> Image:
    """The image on a grid of larger pixels, which are means."""
    sizes = dict(zip(image.grid_axes, grid, strict=True))
    shape = tuple(sizes.get(a, n) for a, n in zip(image.axes, image.shape, strict=True))
    steps = [n / m for n, m in zip(image.grid, grid, strict=True)]
    return dataclasses.replace(
        image,
        reader=Resampled(image.reader, image.shape, shape),
        shape=shape,
        levels=(grid,),
        scale=tuple(s * f for s, f in zip(image.scale, steps, strict=True)),
    )


def _colored(image: Image) -> bool:
    """Whether an image is red, green and blue."""
    silent = not image.shown  # nor does the file call its channels otherwise
    return image.color or (image.stored_channels == 3 and image.dtype == "uint8" and silent)


def find(image: Image, pool: Pool) -> tuple[np.ndarray, dict[str, Any]]:
    """Find tissue on an image of `low`, read block by block.

    Returns
    -------
    the mask, bool, on the grid of that image; threshold, side and share of tissue

    Raises
    ------
    ValueError
        If there is none.
    """
    pixels = _read(image.with_absolute_path(), pool)
    valid = np.isfinite(pixels).all(axis=0)
    if image.no_data is not None:  # means of pixels with and without data are neither
        valid = ~_widened(~valid)
    colored = _colored(image)
    value = _contrast(pixels, valid, colored)
    seen = value[valid]
    if not seen.size or seen.min() == seen.max():
        raise _nothing(image, "its pixels are all alike")
    from scipy.ndimage import gaussian_filter
    from skimage.filters import threshold_otsu

    smooth = gaussian_filter(
        np.where(valid, value, np.median(seen)), (0,) * (value.ndim - 2) + (1, 1), mode="nearest"
    )
    threshold = float(threshold_otsu(smooth[valid]))
    above = smooth > threshold
    side = "more colored" if colored else _side(value, above, valid)
    mask = (above if side != "darker" else ~above) & valid
    mask = _cleaned(mask, image)
    if not mask.any():
        raise _nothing(image, "nothing is larger than a speck")
    background = value[valid & ~mask]
    full = float(np.iinfo(image.dtype).max) if np.dtype(image.dtype).kind in "iu" else 1.0
    if colored and background.size and np.median(background) > FAINT * full:
        mask[...] = True  # the threshold divides tissue
    if mask.all():
        say(f"{image.path}: no background was found, so `mask` {TISSUE} leaves nothing out")
    return mask, {"threshold": threshold, "side": side, "share": float(mask.mean())}


def _nothing(image: Image, why: str) -> InputError:
    return InputError(f"{image.path}: expected tissue for `mask` {TISSUE}, found none: {why}")


def _read(image: Image, pool: Pool) -> np.ndarray:
    """All pixels, (C, *grid) float32, NaN where there is no data."""
    zero, edge = (0,) * len(image.grid), 256
    grid = Grid(image.grid, zero, image.grid, (1,) * (len(zero) - 2) + (edge,) * 2, zero)
    cores = [tile.core for tile in grid]
    found = np.empty((image.used_channels, *image.grid), np.float32)
    for core, block in zip(cores, tasks.in_order(pool, read_pixels, image, cores), strict=True):
        found[:, *core] = block
        value = image.no_data
        if value is not None and value == value:  # means of it are close to it
            near = np.isclose(block, value, rtol=1e-3, atol=0).all(axis=0)
            found[:, *core][:, near] = np.nan
    return found


def _contrast(pixels: np.ndarray, valid: np.ndarray, colored: bool) -> np.ndarray:
    """What tells tissue from background: color, or the mean of the channels in their ranges."""
    pixels = np.where(valid, pixels, 0)
    if colored:
        return np.asarray(pixels.max(axis=0) - pixels.min(axis=0))
    if len(pixels) == 1 or not valid.any():
        return np.asarray(pixels[0])
    low, high = np.percentile(pixels[:, valid], (0.1, 99.9), axis=1).astype(np.float32)
    width = np.where(high > low, high - low, 1)
    every = (slice(None),) + (None,) * valid.ndim
    return np.asarray(((pixels - low[every]) / width[every]).mean(axis=0), np.float32)


def _side(value: np.ndarray, above: np.ndarray, valid: np.ndarray) -> str:
    """Whether tissue is brighter or darker than the background.

    The background is the side that clearly varies less, or else the one that the border has more
    of.
    """
    bright, dark = (float(value[valid & side].std()) for side in (above, ~above))
    if bright > CLEAR * dark or dark > CLEAR * bright:
        return "brighter" if bright > dark else "darker"
    border = valid.copy()
    border[..., 1:-1, 1:-1] = False
    edge = border if border.any() else valid
    return "darker" if above[edge].mean() > 0.5 else "brighter"


def _cleaned(mask: np.ndarray, image: Image) -> np.ndarray:
    """The mask of each plane without specks and holes, and a pixel wider."""
    from scipy import ndimage

    height, width = mask.shape[-2:]
    area = _pixel_area(image)
    least = min(SPECK / area if area else SPECK_PIXELS, height * width / SHARE)

    def large(plane: np.ndarray) -> np.ndarray:
        """The parts of at least that many pixels."""
        parts, _ = ndimage.label(plane)
        kept = np.bincount(parts.ravel()) >= least
        kept[0] = False
        return np.asarray(kept[parts])

    planes = [~large(~large(plane)) for plane in mask.reshape(-1, height, width)]
    return _widened(np.stack(planes).reshape(mask.shape))


def _widened(mask: np.ndarray) -> np.ndarray:
    """A mask that is a pixel wider in its plane."""
    from scipy import ndimage

    square = np.ones((1,) * (mask.ndim - 2) + (3, 3), bool)
    return np.asarray(ndimage.binary_dilation(mask, square))
