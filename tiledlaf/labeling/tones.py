"""How the channels of an image are shown in one picture."""

from __future__ import annotations

import dataclasses

import numpy as np

from ..files.channels import COLORS, RGB, Channel, is_color
from ..files.image import Image

MOST = 6  # channels that are shown together
RANGE = (0.5, 99.5)  # percentiles that are shown black and bright


def chosen(image: Image) -> list[int]:
    """The stored channels to show: those that are labeled, without transparency, at most `MOST`."""
    listed = range(image.stored_channels) if image.channels is None else sorted(image.channels)
    own = [i for i in listed if not (image.shown and image.shown[i].alpha)]
    return (own or list(listed))[:MOST]


def shown(pixels: np.ndarray, image: Image, channels: list[int]) -> np.ndarray:
    """Channels (C, y, x) as (y, x, 3) uint8, by the image's colors and windows where it has some.

    Red, green and blue are one picture; one channel is gray; others are laid over each other.
    """
    known = [image.shown[i] if image.shown else Channel() for i in channels]
    color = image.color or is_color(image.shown) or (len(channels) == 3 and not image.shown)
    if color and len(channels) == 3:
        if pixels.dtype != np.uint8:
            low, high = _window(pixels, Channel())  # one for all, so that colors remain
            pixels = (_stretched(pixels, low, high) * 255).astype(np.uint8)
        return np.ascontiguousarray(np.moveaxis(pixels, 0, -1))
    if color:  # some of red, green and blue
        known = [dataclasses.replace(RGB[i % 3], window=None) for i in channels]
    total = np.zeros((*pixels.shape[1:], 3), np.float32)
    for number, (plane, channel) in enumerate(zip(pixels, known, strict=True)):
        part = _stretched(plane, *_window(plane, channel))
        total += part[..., None] * _color(channel, number, len(channels))
    total /= max(1.0, len(channels) / 2)  # where many overlap, not all is white
    return (total.clip(0, 1) * 255).astype(np.uint8)


def _color(channel: Channel, number: int, count: int) -> np.ndarray:
    if count == 1:
        return np.ones(3, np.float32)
    text = channel.color or COLORS[(number + 1) % len(COLORS)]  # white would hide the others
    return np.array([int(text[i : i + 2], 16) / 255 for i in (0, 2, 4)], np.float32)


def _window(pixels: np.ndarray, channel: Channel) -> tuple[float, float]:
    """What is shown black and bright; a window of the whole range of the type says nothing."""
    kind = pixels.dtype.kind
    whole = (0.0, float(np.iinfo(pixels.dtype).max)) if kind in "ui" else (0.0, 1.0)
    if channel.window is not None:
        low, high = channel.window[:2]
        if high > low and (low, high) != whole:
            return low, high
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
