"""Parts of images with labels in them, turned, mirrored and in other light, for networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..files import image as image_files
from ..pool import tasks
from ..tiles import wider, within
from .pixels import Fit, Source, targets_of
from .variation import varied
from .worker import LabeledTile, core_of, nearest

EDGE = 160  # most pixels of a part along y and x
AROUND = EDGE // 2  # pixels that are kept around what is labeled
BORDER = 8  # pixels of a part whose loss does not count: there the network sees what is not there
NOISE = 0.1  # most noise, in deviations of the pixels
MULTIPLE = 16  # edges are multiples of it


class Block(NamedTuple):
    """What is labeled of a tile, and what is around it.

    Attributes
    ----------
    pixels : (C, z, y, x) as stored; z is 1 for planes; beyond the image's borders it is reflected
    targets : (z, y, x) class numbers, 0 where there is no label, and around what is labeled
    core : edges along y and x of what is labeled, which begins `AROUND` from the corner
    """

    pixels: np.ndarray
    targets: np.ndarray
    core: tuple[int, int]


def blocks(fit: Fit) -> list[Block]:
    """The block of each tile."""
    tasks.release(fit.pool)
    stage = {"stage": "reading tiles for networks"}

    def told(done: int, of: int) -> None:
        fit.say(stage | {"done": done, "of": of})

    return tasks.in_order(fit.pool, _read, fit.source, fit.tiles, told)


def _read(source: Source, labeled: LabeledTile) -> Block:
    example, core = source.examples[labeled.example], core_of(labeled)
    target = targets_of(example, core, source.classes)
    box = nearest(core, target)
    target = target[within(core, box)]
    wide = (0,) * (len(box) - 2) + (AROUND,) * 2
    outer = wider(box, example.image.grid, wide)
    pixels = image_files.read(example.image, outer).copy()
    # as where the network is evaluated
    lost = ~np.isfinite(pixels).all(axis=0)
    valid = image_files.valid_of(example.image, pixels)
    if valid is not None:
        lost |= ~valid
    pixels[:, lost] = 0
    beyond = [
        (w - (b.start - o.start), w - (o.stop - b.stop))
        for b, o, w in zip(box, outer, wide, strict=True)
    ]
    pixels = np.pad(pixels, [(0, 0), *beyond], mode="reflect")
    target = np.pad(target, [(w, w) for w in wide])
    high, wide_ = (box[axis].stop - box[axis].start for axis in (-2, -1))
    shape = (-1, *pixels.shape[-2:])
    return Block(
        pixels.reshape(len(pixels), *(shape if pixels.ndim > 3 else (1, *shape[1:]))),
        target.reshape(shape),
        (high, wide_),
    )


def edge_of(found: Sequence[Block]) -> int:
    """Edge of the parts: what is labeled of the largest block, within limits."""
    most = max(n for one in found for n in one.core) + 2 * BORDER
    return min(EDGE, -(-most // MULTIPLE) * MULTIPLE)


def moments(found: Sequence[Block]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of the pixels of each channel, where the blocks' labels are."""
    count, total, squares = 0, 0.0, 0.0
    for one in found:
        part = one.pixels[..., AROUND:-AROUND, AROUND:-AROUND].astype(np.float64)
        flat = part.reshape(len(part), -1)
        count += flat.shape[1]
        total, squares = total + flat.sum(axis=1), squares + (flat**2).sum(axis=1)
    mean: np.ndarray = np.asarray(total) / count
    spread = np.sqrt(np.maximum(squares / count - mean**2, 0))
    return mean, np.where(spread > 0, spread, 1.0)


class Draw(NamedTuple):
    """How parts are drawn of blocks.

    Attributes
    ----------
    edge : of the parts
    mean, spread : of the pixels, which become 0 and 1
    span : range of intensities, within which images are varied; None: they are not
    seed : of all that is drawn
    """

    edge: int
    mean: np.ndarray
    spread: np.ndarray
    span: tuple[float, float] | None
    seed: int

    def batch(
        self, found: Sequence[Block], count: int, key: Sequence[int], vary: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """So many parts (N, C, edge, edge) float32, and their classes from 0, -1: no label.

        Each block is drawn as often as another, and each of its labeled pixels.

        Parameters
        ----------
        key : what is drawn depends on it and on the seed alone
        vary : whether parts are turned, mirrored, and in other light and noise
        """
        parts = [self._part(found, (self.seed, *key, i), vary) for i in range(count)]
        pixels, targets = zip(*parts, strict=True)
        return np.stack(pixels), np.stack(targets)

    def _part(
        self, found: Sequence[Block], key: Sequence[int], vary: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(list(key))
        block = found[int(rng.integers(len(found)))]
        places = np.flatnonzero(block.targets)
        place = np.unravel_index(places[rng.integers(len(places))], block.targets.shape)
        box = []
        for at, length in zip(place[1:], block.core, strict=True):
            start = int(at) - int(rng.integers(BORDER, self.edge - BORDER))
            low, high = AROUND - BORDER, AROUND + length + BORDER - self.edge
            # within what is labeled, or around its middle
            start = min(max(start, low), high) if low <= high else (low + high) // 2
            box.append(slice(start, start + self.edge))
        pixels = block.pixels[:, place[0], *box]
        targets = block.targets[place[0], *box].astype(np.int64) - 1
        inside = np.full_like(targets, -1)
        cut = (slice(BORDER, -BORDER),) * 2
        inside[cut] = targets[cut]
        if vary and self.span is not None:
            pixels = varied(pixels, self.span, key)
        scale = (slice(None), None, None)
        found_ = (pixels.astype(np.float32) - self.mean[scale]) / self.spread[scale]
        if vary:
            found_ += rng.uniform(0, NOISE) * rng.standard_normal(found_.shape)
            turns, mirrored = int(rng.integers(4)), rng.random() < 0.5
            found_, inside = np.rot90(found_, turns, (1, 2)), np.rot90(inside, turns)
            if mirrored:
                found_, inside = found_[:, :, ::-1], inside[:, ::-1]
        return np.ascontiguousarray(found_, np.float32), np.ascontiguousarray(inside)
