"""An image on a grid of larger or smaller pixels, computed window by window."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .derived import Derived
from .image import Image

AT_ONCE = 2**22  # stored numbers read at once: a window may have far more of them than new pixels
LEAST = 1e-6  # share of a pixel without data that counts: a smaller one is left by rounding


@dataclass(frozen=True)
class Resampled(Derived):
    """The pixels of another reader on another grid of the same extent.

    Pixels are means over their area where they get larger, linear interpolations where they get
    smaller; those of labels are the nearest ones. Each depends on its index alone, never on the
    window that is read.

    Attributes
    ----------
    sizes, shape : lengths of each stored axis, before and after
    nearest : whether the nearest pixel is taken
    no_data : value of pixels without data; means and interpolations of any of these are so as well
    channel : the stored axis of channels, None without one
    channels : those that all have this value where there is no data, None for all
    """

    sizes: tuple[int, ...]
    shape: tuple[int, ...]
    nearest: bool = False
    no_data: float | None = None
    channel: int | None = None
    channels: tuple[int, ...] | None = None

    name = "resampled"

    def read(self, array: Any, box: tuple[slice | int, ...]) -> np.ndarray:
        """Pixels of a box of the new grid."""
        half = self._halves(box)
        if half is not None:
            axis, parts = half
            return np.concatenate([self.read(array, part) for part in parts], axis)
        rows = zip(box, self.sizes, self.shape, strict=True)
        taps = [None if n == m or isinstance(b, int) else self._taps(b, n, m) for b, n, m in rows]
        inner = tuple(
            b if t is None else slice(int(t[0].min()), int(t[0].max()) + 1)
            for b, t in zip(box, taps, strict=True)
        )
        block = self.source.read(array, inner)
        kept = [i for i, b in enumerate(box) if not isinstance(b, int)]
        along = [(kept.index(i), *t) for i, t in enumerate(taps) if t is not None]
        void, whole = self._void(block, kept), block.dtype if block.dtype.kind in "uib" else None
        block = _along(block, along)
        if whole is not None and not self.nearest:
            block = np.floor(block + 0.5).astype(whole)
        if void is not None:
            chosen: list[Any] = [slice(None)] * block.ndim
            if self.channel is not None and self.channels is not None:
                chosen[kept.index(self.channel)] = list(self.channels)
            part = block[tuple(chosen)]
            lost = _along(void.astype(np.float32), along) > LEAST
            block[tuple(chosen)] = np.where(lost, block.dtype.type(self.no_data), part)
        return block

    def _void(self, block: np.ndarray, kept: Sequence[int]) -> np.ndarray | None:
        """Which stored pixels are without data, of one channel; None if none is, or all are NaN."""
        if self.no_data is None or self.no_data != self.no_data:
            return None
        void = block == block.dtype.type(self.no_data)
        if self.channel is not None:
            axis = kept.index(self.channel)
            if self.channels is not None:
                void = np.take(void, self.channels, axis)
            void = void.all(axis, keepdims=True)
        return void if void.any() else None

    def _halves(self, box: tuple[slice | int, ...]) -> tuple[int, list[Any]] | None:
        """The box cut along its longest axis, and that axis of its pixels; None if it is small."""
        kept = [i for i, b in enumerate(box) if isinstance(b, slice)]
        spans = {i: range(*box[i].indices(self.shape[i])) for i in kept}  # type: ignore[union-attr]
        stored = {i: len(spans[i]) * self.sizes[i] / self.shape[i] for i in kept}
        longest = max((i for i in kept if i != self.channel), key=lambda i: stored[i])
        if math.prod(stored.values()) <= AT_ONCE or len(spans[longest]) < 2:
            return None
        start, stop = spans[longest].start, spans[longest].stop
        middle = (start + stop) // 2
        parts = [
            (*box[:longest], slice(a, b), *box[longest + 1 :])
            for a, b in ((start, middle), (middle, stop))
        ]
        return kept.index(longest), parts

    def _taps(self, span: slice, n: int, m: int) -> tuple[np.ndarray, np.ndarray]:
        """Stored pixels that make the new ones of a span, and their weights, both (k, span)."""
        start, stop, _ = span.indices(m)
        index, step = np.arange(start, stop), n / m
        if self.nearest:
            return nearest(index, n, m)[None], np.ones((1, len(index)))
        if step < 1:
            place = np.clip((index + 0.5) * step - 0.5, 0, n - 1)
            low = np.minimum(place.astype(int), max(n - 2, 0))
            part = place - low
            return np.stack([low, np.minimum(low + 1, n - 1)]), np.stack([1 - part, part])
        begin, end = index * step, (index + 1) * step
        first = np.floor(begin).astype(int)
        pixels = first + np.arange(math.ceil(step) + 1)[:, None]
        overlap = np.minimum(pixels + 1, end) - np.maximum(pixels, begin)
        return np.minimum(pixels, n - 1), np.maximum(overlap, 0) / step


def nearest(index: np.ndarray, n: int, m: int) -> np.ndarray:
    """Which of n pixels is nearest to each of m pixels of the same extent, given some of these."""
    return np.asarray((2 * index + 1) * n // (2 * m))


def _along(block: np.ndarray, taps: Sequence[tuple[int, np.ndarray, np.ndarray]]) -> np.ndarray:
    """Weighted sums of pixels along some axes, each with its taps and their weights."""
    for axis, index, weights in taps:
        block = _combined(block, axis, index - index.min(), weights)
    return block


def _combined(block: np.ndarray, axis: int, index: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted sums of pixels along an axis, in the order of the taps."""
    if len(index) == 1:
        return np.take(block, index[0], axis)
    front = (slice(None),) + (None,) * (block.ndim - axis - 1)
    total: Any = 0
    for one, weight in zip(index, weights, strict=True):
        # a pixel without weight may be beyond the border, or not finite
        part = np.where(weight[front] > 0, np.take(block, one, axis), 0)
        total = total + part * weight[front]
    return np.asarray(total, np.float64 if block.dtype.kind in "uib" else block.dtype)


def resampled(image: Image, grid: Sequence[int], nearest: bool = False) -> Image:
    """The image on a grid of other pixels along y and x, of the same extent.

    Parameters
    ----------
    grid : its shape, along the axes of the image's grid
    nearest : whether the nearest pixel is taken, as for labels
    """
    sizes = dict(zip(image.grid_axes, grid, strict=True))
    shape = tuple(sizes.get(a, n) for a, n in zip(image.axes, image.shape, strict=True))
    steps = [n / m for n, m in zip(image.grid, grid, strict=True)]
    return dataclasses.replace(
        image,
        reader=Resampled(
            image.reader,
            image.shape,
            shape,
            nearest,
            image.no_data,
            image.axes.index("c") if "c" in image.axes else None,
            image.channels,
        ),
        shape=shape,
        levels=(tuple(grid),),
        scale=tuple(s * f for s, f in zip(image.scale, steps, strict=True)),
        # positions are those of pixel centers
        translation=tuple(
            t + (f - 1) / 2 * s
            for t, f, s in zip(image.translation, steps, image.scale, strict=True)
        ),
    )
