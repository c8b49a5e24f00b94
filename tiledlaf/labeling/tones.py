"""How the channels of an image are shown in one picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ..files.channels import COLORS, RGB, Channel, is_color
from ..files.image import Image

MOST = 6  # channels that are shown together
RANGE = (0.5, 99.5)  # percentiles that are shown black and bright


def chosen(image: Image, most: int = MOST) -> list[int]:
    """The stored channels to show: those that are labeled, without transparency, at most `most`."""
    listed = range(image.stored_channels) if image.channels is None else sorted(image.channels)
    own = [i for i in listed if not (image.shown and image.shown[i].alpha)]
    return (own or list(listed))[:most]


def is_rgb(image: Image, channels: Sequence[int]) -> bool:
    """Whether these channels are red, green and blue, and so one picture."""
    return len(channels) == 3 and (_colored(image) or not image.shown)


def _colored(image: Image) -> bool:
    return image.color or is_color(image.shown)


def _known(image: Image, channels: Sequence[int]) -> list[Channel]:
    """What is known of channels; of red, green and blue the colors alone."""
    if _colored(image):
        return [dataclasses.replace(RGB[i % 3], window=None) for i in channels]
    return [image.shown[i] if image.shown else Channel() for i in channels]


def windows(pixels: np.ndarray, image: Image, channels: Sequence[int]) -> list[tuple[float, float]]:
    """What is shown black and bright of each channel (C, y, x), by the image where it says so."""
    if is_rgb(image, channels):  # one for all, so that colors remain
        return [_window(pixels, Channel())] * 3
    known = _known(image, channels)
    return [_window(plane, one) for plane, one in zip(pixels, known, strict=True)]


def colors(image: Image, channels: Sequence[int]) -> list[str]:
    """RRGGBB of each channel; one is gray, and by itself white would hide the others."""
    if len(channels) == 1:
        return ["FFFFFF"]
    known = _known(image, channels)
    return [one.color or COLORS[(n + 1) % len(COLORS)] for n, one in enumerate(known)]


def shown(pixels: np.ndarray, image: Image, channels: list[int]) -> np.ndarray:
    """Channels (C, y, x) as (y, x, 3) uint8, by the image's colors and windows where it has some.

    Red, green and blue are one picture; one channel is gray; others are laid over each other.
    """
    spans = windows(pixels, image, channels)
    planes = [_stretched(plane, *span) for plane, span in zip(pixels, spans, strict=True)]
    if is_rgb(image, channels):
        return _bytes(np.stack(planes, axis=-1))
    total = np.zeros((*pixels.shape[1:], 3), np.float32)
    for plane, color in zip(planes, colors(image, channels), strict=True):
        total += plane[..., None] * np.array(list(bytes.fromhex(color)), np.float32) / 255
    total /= max(1.0, len(channels) / 2)  # where many overlap, not all is white
    return _bytes(total.clip(0, 1))


def rgb(pixels: np.ndarray) -> np.ndarray:
    """Red, green and blue (3, y, x), of which nothing else is known, as (y, x, 3) uint8."""
    found = _stretched(pixels, *_window(pixels, Channel()))
    return _bytes(np.ascontiguousarray(np.moveaxis(found, 0, -1)))


def _bytes(shares: np.ndarray) -> np.ndarray:
    return np.rint(shares * 255).astype(np.uint8)


def _window(pixels: np.ndarray, channel: Channel) -> tuple[float, float]:
    """What is shown black and bright; a window of the whole range of the type says nothing."""
    kind = pixels.dtype.kind
    whole = (0.0, float(np.iinfo(pixels.dtype).max)) if kind in "ui" else (0.0, 1.0)
    if channel.window is not None:
        low, high = channel.window[:2]
        if high > low and (low, high) != whole:
            return low, high
    if pixels.dtype == bool:
        return whole
    if pixels.dtype == np.uint8 and channel.window is None and channel.color is None:
        return whole
    finite = pixels[np.isfinite(pixels)].astype(np.float64)
    if not finite.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(finite, RANGE))
    if not high > low:
        low, high = float(finite.min()), float(finite.max())
    return low, high


def _stretched(pixels: np.ndarray, low: float, high: float) -> np.ndarray:
    """Pixels from 0 to 1; what is not a number is 0."""
    values = np.nan_to_num(pixels.astype(np.float64), nan=low, posinf=high, neginf=low)
    with np.errstate(over="ignore"):
        found: np.ndarray = ((values - low) / ((high - low) or 1)).clip(0, 1)
    return found.astype(np.float32)
