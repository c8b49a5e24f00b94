"""What becomes of intensities before a network sees them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np


class Linear(msgspec.Struct, frozen=True, tag="linear"):
    """Intensities times a gain plus an offset, then clipped.

    Attributes
    ----------
    gain, offset : for each channel, or one for all
    least, most : where they are clipped; None: not at all
    """

    gain: tuple[float, ...] = (1.0,)
    offset: tuple[float, ...] = (0.0,)
    least: float | None = None
    most: float | None = None

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels (C, *grid) float32 as they become."""
        shape = (-1,) + (1,) * (pixels.ndim - 1)
        gain, offset = (np.array(x, np.float32).reshape(shape) for x in (self.gain, self.offset))
        found: np.ndarray = pixels * gain + offset
        if self.least is not None or self.most is not None:
            np.clip(found, self.least, self.most, out=found)
        return found


class Sampled(msgspec.Struct, frozen=True, tag="sampled"):
    """Intensities brought to 0 to 1, or to mean 0 and deviation 1, by those of the whole image.

    Networks do so with each image that they get. Blocks would then differ from each other, so
    that the numbers are found once, from a sample of the image.

    Attributes
    ----------
    low, high : percentiles that become 0 and 1; None: by mean and deviation
    eps : added to what is divided by
    each : whether each channel has numbers of its own
    """

    low: float | None = None
    high: float | None = None
    eps: float = 1e-6
    each: bool = True

    def settled(self, pixels: np.ndarray) -> Linear:
        """The same with the numbers of a sample (C, n)."""
        rows = pixels.astype(np.float64) if self.each else pixels.astype(np.float64).reshape(1, -1)
        if self.low is None or self.high is None:
            start, width = rows.mean(axis=1), rows.std(axis=1)
        else:
            start, end = np.percentile(rows, [self.low, self.high], axis=1)
            width = end - start
        gain = 1 / (width + self.eps)
        return Linear(tuple(gain.tolist()), tuple((-start * gain).tolist()))


Step = Linear | Sampled


def settled(steps: Sequence[Step], pixels: np.ndarray) -> tuple[Linear, ...]:
    """Steps with the numbers of a sample of pixels (C, n), each of what the ones before it make."""
    found, pixels = [], pixels.astype(np.float32)
    for step in steps:
        one = step.settled(pixels) if isinstance(step, Sampled) else step
        pixels = one.apply(pixels)
        found.append(one)
    return tuple(found)
