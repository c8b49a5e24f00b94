"""The grid of tiles: cores, padded windows, trimming. Integers only."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Box = tuple[slice, ...]


@dataclass(frozen=True)
class Tile:
    """One tile.

    Attributes
    ----------
    index : position in the grid
    core : its pixels in the output
    window : core and halo in the input, clipped at the image's border
    inner : the core within the window
    """

    index: tuple[int, ...]
    core: Box
    window: Box
    inner: Box


@dataclass(frozen=True)
class Grid:
    """Tiles of an output that covers `size` pixels of an image from `origin` on.

    Attributes
    ----------
    image, origin, size : pixels along each axis
    tile : edges of a core
    halo : pixels beyond a core along each axis
    """

    image: tuple[int, ...]
    origin: tuple[int, ...]
    size: tuple[int, ...]
    tile: tuple[int, ...]
    halo: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of tiles along each axis."""
        return tuple(math.ceil(n / t) for n, t in zip(self.size, self.tile, strict=True))

    def __len__(self) -> int:
        return math.prod(self.shape)

    def __iter__(self) -> Iterator[Tile]:
        return map(self.tile_at, itertools.product(*map(range, self.shape)))

    def tile_at(self, index: Sequence[int]) -> Tile:
        """The tile at a position of the grid."""
        core, window, inner = [], [], []
        axes = zip(self.image, self.origin, self.size, self.tile, self.halo, index, strict=True)
        for image, origin, size, edge, halo, position in axes:
            start, stop = position * edge, min((position + 1) * edge, size)
            first = max(0, origin + start - halo)
            last = min(image, origin + stop + halo)
            core.append(slice(start, stop))
            window.append(slice(first, last))
            inner.append(slice(origin + start - first, origin + stop - first))
        return Tile(tuple(index), tuple(core), tuple(window), tuple(inner))

    def part(self, tile: Tile, core: Box, number: int) -> Tile:
        """One of the parts of a tile's core as a tile of its own, with the same halo."""
        found = Grid(
            self.image,
            tuple(o + c.start for o, c in zip(self.origin, core, strict=True)),
            tuple(c.stop - c.start for c in core),
            tuple(c.stop - c.start for c in core),
            self.halo,
        ).tile_at((0,) * len(core))
        return dataclasses.replace(found, index=(*tile.index, number), core=core)

    def place(self, tile: Tile, axes: str) -> str:
        """Where a core lies, in pixels of the image: ``y 0:512, x 512:1024``."""
        spans = zip(axes, tile.core, self.origin, strict=True)
        return ", ".join(f"{a} {c.start + o}:{c.stop + o}" for a, c, o in spans)


def within(outer: Sequence[slice], inner: Sequence[slice]) -> Box:
    """The position of a window within a larger one."""
    return tuple(
        slice(b.start - a.start, b.stop - a.start) for a, b in zip(outer, inner, strict=True)
    )


def size(box: Sequence[slice]) -> int:
    """Number of pixels of a box."""
    return math.prod(b.stop - b.start for b in box)


def wider(window: Box, grid: Sequence[int], reach: Sequence[int]) -> Box:
    """A window with what lies up to `reach` pixels beyond it on a grid, along each axis."""
    return tuple(
        slice(max(0, w.start - m), min(n, w.stop + m))
        for w, n, m in zip(window, grid, reach, strict=True)
    )
