"""Whether an image's intensities are those that a model learned from, and how to bring them there.

A model keeps the type of its training's pixels, and their range. Another image is sampled:

- with pixels of the same type, intensities up to 8 times as high are taken as they are, and lower
  ones down to a 64th, with a word below an eighth;
- with pixels of another type, they are taken as they are if their range is at most twice or at
  least half the model's, or else scaled by the ratio of the types' full ranges (255 of uint8, 65535
  of uint16, 1 of floats) if that brings them within 4 times or a fourth of it;
- anything else is refused: `intensity_scale` states the factor.

It keeps quantiles of each training image as well. An image gets a word where one of its own, or the
distance of two, is beyond those of all training images by more than half of their spread, and by
more than a tenth of the range of their intensities: one n-th of it, if they are n < 10.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ..errors import InputError
from ..files.image import Image, say
from .model import Images
from .sampling import EXACT

FINE = 2.0**14  # size of intensities, in their range, of which float32 keeps ten bits
SIZES = (1e-15, 1e18)  # of intensities whose squares are neither lost nor too large
SHARE = 0.1  # percent of the pixels beyond each end of a range
PERCENTILES = (5, 25, 50, 75, 95)
SPREAD, LEAST = 0.5, 0.1  # beyond which an image is far: of what training images differ, and span
# distances of two of the percentiles, by their places
DISTANCES = {(1, 3): "spread of the middle half", (0, 4): "spread of all but a tenth"}
FULL = {"bool": 1.0, "int8": 127.0, "uint8": 255.0, "int16": 32767.0, "uint16": 65535.0}


def span(pixels: np.ndarray) -> tuple[float, float] | None:
    """Range of intensities without the outermost ones; None where none is finite."""
    values = pixels[np.isfinite(pixels)] if pixels.dtype.kind == "f" else pixels
    if not values.size:
        return None
    low, high = np.percentile(values.astype(np.float64), [SHARE, 100 - SHARE])
    return float(low), float(high)


def quantiles(sample: np.ndarray) -> tuple[tuple[float, ...], ...]:
    """Quantiles of each channel of a sample (n, C), as far as anybody looks at them."""
    found = np.percentile(sample.astype(np.float64), PERCENTILES, axis=0).T
    return tuple(tuple(float(f"{value:.6g}") for value in row) for row in found)


def far(images: Images, sample: np.ndarray) -> str | None:
    """In what an image is far from all that a model learned from, None where it is not.

    Parameters
    ----------
    sample : (n, C) pixels of the image, as they are labeled
    """
    learned = np.array(images.quantiles, np.float64)  # (images, C, percentiles)
    if learned.ndim != 3 or not len(sample) or learned.shape[1] != sample.shape[1]:
        return None
    here = _described(np.array(quantiles(sample)))
    there = _described(learned)
    low, high = there.min(axis=0), there.max(axis=0)
    whole = high[:, -1:]
    least = whole * max(LEAST, 1 / len(learned))
    beyond = np.maximum(low - here, here - high)
    with np.errstate(divide="ignore", invalid="ignore"):  # channels of one value say nothing
        ratio = np.where(whole > 0, beyond / np.maximum(SPREAD * (high - low), least), 0.0)
    if not ratio.max() > 1:
        return None
    middle = ratio[:, PERCENTILES.index(50)]
    channel, what = np.unravel_index(ratio.argmax(), ratio.shape)
    if middle.max() > 1:  # which is understood at once
        channel, what = middle.argmax(), np.intp(PERCENTILES.index(50))
    names = [f"{p}th percentile" if p != 50 else "median" for p in PERCENTILES]
    name = [*names, *DISTANCES.values()][what]
    many = f" in channel {images.names[channel] if images.names else channel}"
    least_most = f"{low[channel, what]:.4g}"
    if len(learned) > 1:
        least_most += f" to {high[channel, what]:.4g}"
    return (
        f"its {name}{many * (learned.shape[1] > 1)} is {here[channel, what]:.4g}, in those images "
        f"{least_most}"
    )


def _described(rows: np.ndarray) -> np.ndarray:
    """Quantiles (..., 5), and then their distances."""
    distances = [rows[..., b] - rows[..., a] for a, b in DISTANCES]
    return np.concatenate([rows, np.stack(distances, axis=-1)], axis=-1)


def joined(spans: Sequence[tuple[float, float] | None]) -> tuple[float, float] | None:
    """The range of several; None where there is none."""
    found = [one for one in spans if one is not None]
    return (min(a for a, _ in found), max(b for _, b in found)) if found else None


def check_fine(dtype: str, found: tuple[float, float] | None) -> None:
    """Refuse a range of intensities that float32, of which features are, cannot resolve.

    Raises
    ------
    ValueError
        With the range.
    """
    if found is None or found[0] == found[1]:
        return
    size = max(map(abs, found))
    narrow = np.dtype(dtype).kind in "biu" and size <= EXACT
    least, most = SIZES
    if not least <= size <= most or (not narrow and size > FINE * (found[1] - found[0])):
        low, high = found
        raise InputError(
            f"expected images that float32 can resolve, to learn, got {dtype} pixels of {low:.9g} "
            f"to {high:.9g}: subtract a number from them, or multiply them"
        )


def matched(image: Image, images: Images, sample: np.ndarray) -> Image:
    """The image with intensities as a model learned from.

    Parameters
    ----------
    images : those of the model's training
    sample : pixels of the image; none if nothing is known of them

    Raises
    ------
    ValueError
        If it is not clear how the intensities compare.
    """
    if image.gain is not None:  # the user has stated it
        return image
    if images.range is None:
        say(
            f"{image.path}: the model does not say from which intensities it learned: "
            f"{image.dtype} pixels are taken as they are"
        )
        return image
    found = span(sample)
    low, high = images.range
    here, there = (max(abs(a), abs(b)) for a, b in (found or (0.0, 0.0), images.range))
    if not here or not there:  # a blank image says nothing
        return image
    ratio = here / there
    text = (
        f"{image.path}: the model learned from {images.dtype} pixels of {low:.4g} to {high:.4g}, "
        f"and this image has {image.dtype} ones up to {here:.4g}"
    )
    if image.dtype == images.dtype:
        if 1 / 64 <= ratio <= 8:
            if ratio < 1 / 8:
                say(f"{text}: taken as they are, though far darker (`intensity_scale` scales)")
            return image
    elif 1 / 2 <= ratio <= 2:
        say(f"{text}: taken as they are")
        return image
    else:
        factor = FULL.get(images.dtype, 1.0) / FULL.get(image.dtype, 1.0)
        if 1 / 4 <= ratio * factor <= 4:
            say(f"{text}: multiplied by {factor:.6g}, the ratio of the types' full ranges")
            return dataclasses.replace(image, gain=factor)
    few = images.dtype == "uint8" and image.dtype == "uint16"
    hint = ", such as 0.0625 where 12 bits are used" * few
    raise InputError(
        f"{text}: state by `intensity_scale` what to multiply them by{hint} (1 takes them as "
        "they are)"
    )
