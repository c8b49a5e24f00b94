"""Vary images as slides and sections differ, in brightness, contrast and color, for training."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..kernels.arrays import Array

CONTRAST, SHIFT, COLOR = 0.2, 0.06, 0.06  # of log gain, of the range, of the range by channel
GAMMA = 0.25  # of its logarithm


def varied(pixels: Array, span: Sequence[float], seed: Sequence[int]) -> np.ndarray:
    """An image with another brightness, contrast, gamma and, of several channels, color.

    What is drawn is uniform up to the constants above; contrast is about the middle of the image's
    own values. Pixels beyond the range keep their distance from it.

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
    found = np.empty(pixels.shape, np.float32)
    for target, plane, color in zip(found, pixels, colors, strict=True):
        x = (plane.astype(np.float32) - np.float32(low)) / np.float32(width)
        inside = np.clip(x, 0, 1)
        x += inside ** np.float32(gamma) - inside
        middle = np.median(x)
        x -= middle
        x *= np.float32(gain)
        x += middle + np.float32(shift + color)
        x *= np.float32(width)
        np.add(x, np.float32(low), out=target)
    return found
