"""Vary images as slides and sections differ, in brightness, contrast and color, for training."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..kernels.arrays import Array

CONTRAST, SHIFT, COLOR = 0.2, 0.06, 0.06  # of log gain, of the range, of the range by channel
GAMMA = 0.36  # of its logarithm: from 0.7 to 1.4
TURN = 0.25  # radians that colors are turned by around gray, of three channels of 8 bits


def varied(pixels: Array, span: Sequence[float], seed: Sequence[int]) -> np.ndarray:
    """An image with another brightness, contrast, gamma and, of several channels, color.

    What is drawn is uniform up to the constants above; contrast is about the middle of the image's
    own values. Pixels beyond the range keep their distance from it. Pictures of 8 bits are bent by
    gamma over all that these hold, as by what makes them; of three channels they are colors, which
    are turned. Other channels may have ranges far apart, and a dim one would drown in a bright one.

    Parameters
    ----------
    pixels : (C, *grid)
    span : the range of intensities, as of `Images.range`
    seed : of what is drawn

    Returns
    -------
    (C, *grid) float32
    """
    rng = np.random.default_rng(list(seed))
    low, high = span
    width = (high - low) or 1.0
    gamma, gain = (math.exp(rng.uniform(-most, most)) for most in (GAMMA, CONTRAST))
    shift = rng.uniform(-SHIFT, SHIFT)
    colors = rng.uniform(-COLOR, COLOR, len(pixels)) * (len(pixels) > 1)
    found, eight = pixels.astype(np.float32), pixels.dtype == np.uint8
    if eight and len(found) == 3:
        found = np.einsum("ij,j...->i...", _turn(rng.uniform(-TURN, TURN)), found)
    dark, bright = (0, 255) if eight else (low, low + width)
    for x, color in zip(found, colors, strict=True):
        x -= np.float32(dark)
        x /= np.float32(bright - dark)
        inside = np.clip(x, 0, 1)
        x += inside ** np.float32(gamma) - inside
        middle = np.median(x)
        x -= middle
        x *= np.float32(gain)
        x += middle
        x *= np.float32(bright - dark)
        x += np.float32(dark + width * (shift + color))
    return found


def _turn(angle: float) -> np.ndarray:
    """The rotation of three channels around gray, (3, 3) float32."""
    a, b = math.cos(angle), math.sin(angle) / math.sqrt(3)
    mean = np.full((3, 3), (1 - a) / 3)
    cross = b * np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    return (a * np.eye(3) + mean + cross).astype(np.float32)
