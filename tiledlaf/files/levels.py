"""Writes the resolution levels of an image: nearest neighbor for labels, means for images."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec
from zarr.storage import MemoryStore

from ..kernels.arrays import Array
from ..tiles import Box, Grid, Tile
from . import nodes, stores, units
from .channels import Channel, omero

Reduce = Callable[[Array, Sequence[int]], Array]


def nearest(block: Array, factor: Sequence[int]) -> Array:
    """Every f-th pixel along the last axes."""
    return block[..., *(slice(None, None, f) for f in factor)]


def mean(block: Array, factor: Sequence[int]) -> Array:
    """Means of f pixels along the last axes, rounded half up for integers.

    An incomplete last block is padded with its border.
    """
    front = block.ndim - len(factor)
    rest = [(0, -n % f) for n, f in zip(block.shape[front:], factor, strict=True)]
    if any(after for _, after in rest):
        block = np.pad(block, [(0, 0)] * front + rest, mode="edge")
    whole = block.dtype.kind in "uib"
    count = int(np.prod(factor))
    # the narrowest type that can hold the sums
    exact = block.dtype.kind == "u" and block.itemsize < 4
    small = exact and block.itemsize == 1 and count <= 256
    total = np.zeros(
        nearest(block, factor).shape, np.uint16 if small else np.uint32 if exact else np.float64
    )
    for start in itertools.product(*map(range, factor)):
        total += block[..., *(slice(s, None, f) for s, f in zip(start, factor, strict=True))]
    if exact:
        return ((total + count // 2) // count).astype(block.dtype)
    value = total / count
    return (np.floor(value + 0.5) if whole else value).astype(block.dtype)


def write(store: str, pyramid: Pyramid, core: Box, block: Array, reduce: Reduce) -> int:
    """Write a tile's pixels to level 0 and to all levels whose write units it fills.

    Parameters
    ----------
    block : (C, *core), or (*core) where the pyramid has no channels

    Returns
    -------
    size of the files in bytes
    """
    part, total, whole = block, 0, block
    done: tuple[int, ...] | None = None
    for level in range(len(pyramid.shapes)):
        factor = pyramid.factor(level)
        if factor is None:
            continue
        box = _box(pyramid, level, factor, core)
        if done and all(f % d == 0 for f, d in zip(factor, done, strict=True)):
            part = reduce(part, [f // d for f, d in zip(factor, done, strict=True)])
        elif done:
            part = reduce(whole, factor)
        done = factor
        trimmed = part[..., *(slice(0, s.stop - s.start) for s in box)]
        if trimmed.size:
            like, stored = None if level else pyramid.like, pyramid.stored(slice(None), box)
            block = pyramid.as_stored(trimmed)
            name = _name(pyramid, level)
            total += units.write(store, name, stored, block, like, pyramid.stamp)
    return total


def sizes(store: str, pyramid: Pyramid) -> Callable[[Box], int]:
    """Return a function that gives the size of a tile's files in bytes, as `write` returned it."""
    found = [
        (level, factor, units.sizes(store, _name(pyramid, level)))
        for level in range(len(pyramid.shapes))
        if (factor := pyramid.factor(level)) is not None
    ]
    return lambda core: sum(
        size(pyramid.stored(slice(None), _box(pyramid, level, f, core))) for level, f, size in found
    )


def _name(pyramid: Pyramid, level: int) -> str:
    return f"{pyramid.group}/{level}".lstrip("/")


def _box(pyramid: Pyramid, level: int, factor: Sequence[int], core: Box) -> Box:
    """A tile's part of a level that it writes."""
    return tuple(
        slice(c.start // f, min(-(-c.stop // f), n))
        for c, f, n in zip(core, factor, pyramid.shapes[level], strict=True)
    )


@dataclass(frozen=True)
class Coarse:
    """A level that tiles cannot write: made from the next finer one, unit by unit."""

    store: str
    pyramid: Pyramid
    reduce: Reduce
    level: int

    @property
    def units(self) -> Grid:
        """Its write units."""
        shape = self.pyramid.shapes[self.level]
        zero = (0,) * len(shape)
        return Grid(shape, zero, shape, self.pyramid.unit(self.level), zero)


def coarse(store: str, pyramid: Pyramid, reduce: Reduce) -> list[Coarse]:
    """The levels that tiles cannot write, in the order to make them in."""
    return [
        Coarse(store, pyramid, reduce, level)
        for level in range(1, len(pyramid.shapes))
        if pyramid.factor(level) is None
    ]


def finish(work: Coarse, tile: Tile) -> None:
    """Write one unit of such a level."""
    store, pyramid, level = work.store, work.pyramid, work.level
    shape, finer = pyramid.shapes[level], pyramid.shapes[level - 1]
    source = nodes.open_array(store, _name(pyramid, level - 1))
    ratio = whole_ratio(finer, shape)
    if ratio:
        box = tuple(slice(c.start * r, c.stop * r) for c, r in zip(tile.core, ratio, strict=True))
        part = work.reduce(_read(source, pyramid, box), ratio)
        part = part[..., *(slice(0, c.stop - c.start) for c in tile.core)]
    else:
        part = _resampled(source, pyramid, tile.core, finer, shape)
    box = pyramid.stored(slice(None), tile.core)
    stored = pyramid.as_stored(part)
    units.write(store, _name(pyramid, level), box, stored, stamp=pyramid.stamp)


def _read(source: Array, pyramid: Pyramid, box: Box) -> Array:
    """Pixels of a box of the grid, with channels first."""
    block = np.asarray(source[pyramid.stored(slice(None), box)])
    return np.moveaxis(block, pyramid.place, 0) if pyramid.channels else block


def _resampled(
    source: Array, pyramid: Pyramid, core: Box, finer: Sequence[int], shape: Sequence[int]
) -> Array:
    """Nearest neighbors where the ratio of two levels is not a whole number."""
    index = [
        ((2 * np.arange(c.start, c.stop) + 1) * a // (2 * n))
        for c, a, n in zip(core, finer, shape, strict=True)
    ]
    box = tuple(slice(int(i[0]), int(i[-1]) + 1) for i in index)
    block = _read(source, pyramid, box)
    for axis, i in enumerate(index):
        block = np.take(block, i - i[0], axis=axis + (pyramid.channels > 0))
    return block


CHUNK = 256  # edge of an inner chunk, at most


def inner_chunk(edge: int) -> int:
    """Edge of the chunks in a shard: the largest divisor of its edge up to 256."""
    return next(c for c in range(min(edge, CHUNK), 0, -1) if edge % c == 0)


def whole_ratio(finer: Sequence[int], shape: Sequence[int]) -> tuple[int, ...] | None:
    """Pixels of the finer level per pixel along each axis; None unless all are whole numbers."""
    found = []
    for n, small in zip(finer, shape, strict=True):
        r = max(1, round(n / small))
        if small not in (n // r, -(-n // r)):
            return None
        found.append(r)
    return tuple(found)


def pixel_ratio(finer: Sequence[int], shape: Sequence[int]) -> tuple[float, ...]:
    """Pixels of the finer level per pixel: whole numbers, if only the last ones are cut by that."""
    return whole_ratio(finer, shape) or tuple(n / m for n, m in zip(finer, shape, strict=True))


@dataclass(frozen=True)
class Pyramid:
    """An image to write: levels of grids, with an optional channel axis before the spatial ones.

    Attributes
    ----------
    group : path of its group within the store
    axes : of the grid, e.g. "yx" or "tyx"
    channels : 0 for no channel axis
    shapes : of the grid of each level
    tile : edges of the write unit of level 0
    scale, translation : of level 0, one number for each axis of the grid
    units : a unit or None for each axis of the grid
    dtype : NumPy name
    like : store and name of an array with the pixels of level 0, whose chunks are copied as they
        are; None: pixels are encoded
    shown : how the channels are called and shown, or none
    stamp : of the start that made the arrays, or ""; see `units.write`
    """

    group: str
    axes: str
    channels: int
    shapes: tuple[tuple[int, ...], ...]
    tile: tuple[int, ...]
    scale: tuple[float, ...]
    translation: tuple[float, ...]
    units: tuple[str | None, ...]
    dtype: str
    like: tuple[str, str] | None = None
    shown: tuple[Channel, ...] = ()
    stamp: str = ""

    @property
    def place(self) -> int:
        """Where the channel axis stands: in front, but after t."""
        return int(self.axes.startswith("t"))

    def stored(self, channel: Any, rest: Sequence[Any]) -> tuple[Any, ...]:
        """What belongs to each stored axis, given the channel axis's and those of the grid."""
        middle = (channel,) if self.channels else ()
        return (*rest[: self.place], *middle, *rest[self.place :])

    def as_stored(self, block: Array) -> Array:
        """Pixels with channels first, in the order of the stored axes."""
        return np.moveaxis(block, 0, self.place) if self.channels else block

    def steps(self, level: int) -> tuple[int, ...] | None:
        """Pixels of level 0 per pixel along each axis; None where a ratio is not whole."""
        found = (1,) * len(self.axes)
        for finer, shape in itertools.pairwise(self.shapes[: level + 1]):
            ratio = whole_ratio(finer, shape)
            if ratio is None:
                return None
            found = tuple(f * r for f, r in zip(found, ratio, strict=True))
        return found

    def factor(self, level: int) -> tuple[int, ...] | None:
        """Pixels of level 0 per pixel, where a tile of level 0 fills whole write units; else None.

        A tile writes a level itself if the level is every f-th pixel of level 0, and f divides
        the tile's edge into 32 pixels or more: then no two tiles share a write unit.
        """
        steps = self.steps(level)
        if steps is None or any(
            edge % f or (f > 1 and edge // f < 32) for f, edge in zip(steps, self.tile, strict=True)
        ):
            return None
        return steps

    def unit(self, level: int) -> tuple[int, ...]:
        """Edges of a write unit."""
        factor = self.factor(level)
        if factor is None:
            most = [1 if axis == "t" else CHUNK for axis in self.axes]
            return tuple(min(m, n) for m, n in zip(most, self.shapes[level], strict=True))
        return tuple(edge // f for edge, f in zip(self.tile, factor, strict=True))

    def create(self, store: str, version: str, zarr_format: int) -> None:
        """Create the group's arrays, then its metadata.

        Arrays that already exist with the same metadata keep their pixels: another process of the
        same run may be working on them.
        """
        made = MemoryStore()
        names = self.stored("c", self.axes)
        for level, shape in enumerate(self.shapes):
            name = f"{self.group}/{level}".lstrip("/")
            if level == 0 and self.like:
                zarr.from_array(
                    made,
                    data=nodes.open_array(*self.like),
                    write_data=False,
                    name=name,
                    dimension_names=names,
                    attributes={},
                )
                continue
            unit = self.unit(level)
            chunks = tuple(inner_chunk(edge) for edge in unit)
            options: dict[str, Any] = {}
            if zarr_format == 3:
                options["dimension_names"] = names
                options["compressors"] = BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle")
                if unit != chunks or self.channels:
                    options["shards"] = self.stored(self.channels, unit)
            else:
                options["chunk_key_encoding"] = {"name": "v2", "separator": "/"}
            zarr.create_array(
                made,
                name=name,
                shape=self.stored(self.channels, shape),
                dtype=self.dtype,
                chunks=self.stored(1, chunks),
                fill_value=0,
                zarr_format=zarr_format,
                **options,
            )
        for level in range(len(self.shapes)):
            nodes.bring(made, stores.at(store), f"{self.group}/{level}".lstrip("/"))
        nodes.write_group(store, self.group, version, zarr_format, self.entries(version))
        if self.group:
            nodes.index(store, self.group)

    def entries(self, version: str) -> dict[str, Any]:
        """NGFF metadata of the group."""
        found: dict[str, Any] = {"multiscales": [self._multiscales(version)]}
        if self.shown:
            found["omero"] = omero(self.shown, self.dtype)
        return found

    def _multiscales(self, version: str) -> dict[str, Any]:
        axes = []
        for name, unit in zip(
            self.stored("c", self.axes), self.stored(None, self.units), strict=True
        ):
            kind = {"c": "channel", "t": "time"}.get(name, "space")
            axes.append({"name": name, "type": kind} | ({"unit": unit} if unit else {}))
        datasets = []
        for level, shape in enumerate(self.shapes):
            # a level of every f-th pixel has pixels of f times the size, whatever the remainder
            whole = self.steps(level)
            steps: Sequence[float] = whole or [
                a / b for a, b in zip(self.shapes[0], shape, strict=True)
            ]
            scale = [s * float(f) for s, f in zip(self.scale, steps, strict=True)]
            transforms: list[dict[str, Any]] = [
                {"type": "scale", "scale": [*self.stored(1.0, scale)]}
            ]
            # positions are those of pixel centers: the image at the root has means, which lie
            # between their f pixels; labels have every f-th pixel, which stays where it was
            between = 0.5 if not self.group or whole is None else 0.0
            shift = [
                t + between * (f - 1) * s
                for t, f, s in zip(self.translation, steps, self.scale, strict=True)
            ]
            if any(shift):
                moved = [*self.stored(0.0, shift)]
                transforms.append({"type": "translation", "translation": moved})
            datasets.append({"path": str(level), "coordinateTransformations": transforms})
        image: dict[str, Any] = {"name": self.group.rsplit("/", 1)[-1] or "image", "axes": axes}
        if version == "0.4":
            image["version"] = version
        return image | {"datasets": datasets}


def halved(shape: Sequence[int], axes: str) -> tuple[int, ...]:
    """Shape of the next level: y and x halved, t and z unchanged."""
    return tuple(
        n if axis in "tz" else math.ceil(n / 2) for n, axis in zip(shape, axes, strict=True)
    )
