"""Connected components of one class, found tile by tile and joined across borders.

A tile is read with the first layer of the next tiles, and its components are labeled there. Two
neighboring pixels lie together in one of these windows, so components of two windows are parts of
one object where they hold the same pixel of such a layer. Both see the same pixels there, in the
same order, so of each connected part of a layer they tell their number for it, and no positions.

A hole is a component of what is not the class, by the other connectivity, that neither reaches the
image's border nor holds a pixel that is not labeled: what lies beyond these is not known.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..files import image as image_files
from ..files.image import Image
from ..tiles import Box, Grid, Tile

Index = tuple[int, ...]
Layers = dict[tuple[int, ...], np.ndarray]  # by the step to the other tile: numbers of components
NOWHERE = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Search:
    """What is looked for; small, since it travels with each task.

    Attributes
    ----------
    labels : the label image
    value : of the class
    grid : tiles of the label image, without halos
    full : whether pixels that share only an edge or a corner are neighbors
    fill : whether holes are filled
    largest : pixels of the largest hole to fill, None for no limit
    """

    labels: Image
    value: int
    grid: Grid
    full: bool = False
    fill: bool = False
    largest: int | None = None

    @property
    def front(self) -> int:
        """Number of axes before the spatial ones: 1 for t, of which a tile has one."""
        return len(self.labels.grid) - len(self.labels.spatial_axes)


@dataclass(frozen=True)
class Part:
    """What a tile knows of its components, which are numbered from 1 in its window.

    Attributes
    ----------
    first : position in the image of the first pixel of each in the core, or `NOWHERE`
    area : pixels of each in the core
    open : of background, whether each is no hole by what the window shows; otherwise none
    lower, upper : numbers along the layers shared with tiles before and after this one
    """

    first: np.ndarray
    area: np.ndarray
    open: np.ndarray
    lower: Layers
    upper: Layers

    @property
    def border(self) -> np.ndarray:
        """Numbers of the components that may go on in other tiles, ascending."""
        layers = [*self.lower.values(), *self.upper.values()]
        return np.unique(np.concatenate(layers)) if layers else np.empty(0, np.int32)


def neighbors(ndim: int, full: bool) -> np.ndarray:
    """Structuring element of a connectivity."""
    from scipy import ndimage

    return np.asarray(ndimage.generate_binary_structure(ndim, ndim if full else 1))


def numbered(mask: np.ndarray, full: bool) -> tuple[np.ndarray, int]:
    """Components of a mask, in the order of their first pixels, and how many there are."""
    from scipy import ndimage

    found = np.empty(mask.shape, np.int32)
    return found, int(ndimage.label(mask, neighbors(mask.ndim, full), output=found))


def window(grid: Sequence[int], front: int, core: Box) -> Box:
    """A core and the first layer of the tiles after it, along spatial axes of an image's grid."""
    return tuple(
        slice(c.start, min(c.stop + (axis >= front), n))
        for axis, (c, n) in enumerate(zip(core, grid, strict=True))
    )


def _window(search: Search, tile: Tile) -> Box:
    return window(search.labels.grid, search.front, tile.core)


def _spatial(search: Search, box: Box) -> Box:
    return box[search.front :]


def find_background(search: Search, index: Index) -> Part:
    """Components of a tile that may be holes."""
    tile = search.grid.tile_at(index)
    labels = _read(search, tile)
    found, count = numbered(labels != search.value, not search.full)
    beyond = _open(search, tile, labels, found, count)
    core = found[_core(search, tile)]
    area = np.bincount(core.ravel(), minlength=count + 1)[1:]
    return Part(np.empty(0, np.int64), area, beyond[1:], *_layers(search, tile, found))


def find(search: Search, item: tuple[Index, np.ndarray]) -> Part:
    """Components of a tile, of which some of the background are filled."""
    tile = search.grid.tile_at(item[0])
    found, count = components(search, tile, item[1])
    core = found[_core(search, tile)]
    area = np.bincount(core.ravel(), minlength=count + 1)[1:]
    first = _first(core, count)
    there = first < NOWHERE
    place = np.unravel_index(first[there], core.shape)
    starts = [c.start for c in _spatial(search, tile.core)]
    spot = [tile.core[0].start] * search.front
    spot += [p + s for p, s in zip(place, starts, strict=True)]
    first[there] = np.ravel_multi_index(tuple(spot), search.labels.grid) if there.any() else 0
    return Part(first, area, np.empty(0, bool), *_layers(search, tile, found))


def components(search: Search, tile: Tile, filled: np.ndarray) -> tuple[np.ndarray, int]:
    """Components of a tile's window, and how many there are.

    Parameters
    ----------
    filled : numbers of the components of the background that reach other tiles and are holes
    """
    labels = _read(search, tile)
    mask = labels == search.value
    if search.fill:
        found, count = numbered(~mask, not search.full)
        area = np.bincount(found.ravel(), minlength=count + 1)
        # of those that end in this tile all is known here
        hole = ~_open(search, tile, labels, found, count)
        if search.largest is not None:
            hole &= area <= search.largest
        lower, upper = _layers(search, tile, found)
        for layer in (*lower.values(), *upper.values()):
            hole[layer] = False
        hole[filled] = True
        hole[0] = False
        mask |= hole[found]
    return numbered(mask, search.full)


def core_of(search: Search, tile: Tile, found: np.ndarray) -> np.ndarray:
    """The core of a window's components, with all axes of the image."""
    core = found[_core(search, tile)]
    return core.reshape((1,) * search.front + core.shape)


def _read(search: Search, tile: Tile) -> np.ndarray:
    """Labels of a window, without t."""
    block = image_files.read(search.labels, _window(search, tile))[0]
    return np.asarray(block.reshape(block.shape[search.front :]))


def _core(search: Search, tile: Tile) -> Box:
    """The core within its window."""
    return tuple(slice(0, c.stop - c.start) for c in _spatial(search, tile.core))


def _first(core: np.ndarray, count: int) -> np.ndarray:
    """Position of the first pixel of each number from 1 on."""
    flat = core.ravel()
    there = np.flatnonzero(flat)[::-1]
    first = np.full(count + 1, NOWHERE)
    first[flat[there]] = there  # of several the last one stays
    return first[1:]


def _open(
    search: Search, tile: Tile, labels: np.ndarray, found: np.ndarray, count: int
) -> np.ndarray:
    """Whether components of the background reach the image's border, or what is not labeled."""
    beyond = np.zeros(count + 1, bool)
    beyond[found[labels == 0]] = search.value != 0
    spans = zip(
        _spatial(search, _window(search, tile)), search.labels.grid[search.front :], strict=True
    )
    for axis, (span, size) in enumerate(spans):
        for side in [0] * (span.start == 0) + [-1] * (span.stop == size):
            beyond[np.take(found, side, axis=axis)] = True
    return beyond


def _steps(ndim: int) -> Iterator[tuple[int, ...]]:
    """Steps to the tiles whose first layer a window holds."""
    return (step for step in itertools.product((0, 1), repeat=ndim) if any(step))


def _layers(search: Search, tile: Tile, found: np.ndarray) -> tuple[Layers, Layers]:
    return layers(_spatial(search, tile.core), found)


def layers(core: Box, found: np.ndarray) -> tuple[Layers, Layers]:
    """Numbers of components along the layers that a tile shares with those before and after it.

    Parameters
    ----------
    core : its spatial axes
    found : components of its window, numbered from 1 on
    """
    sizes = [c.stop - c.start for c in core]
    upper: Layers = {}
    lower: Layers = {}
    for step in _steps(len(core)):
        if all(c.start > 0 for c, s in zip(core, step, strict=True) if s):
            box = tuple(slice(0, 1 if s else n) for s, n in zip(step, sizes, strict=True))
            lower[step] = _along(found[box])
        ends = zip(sizes, found.shape, step, strict=True)
        if all(n < whole for n, whole, s in ends if s):
            box = tuple(
                slice(n, n + 1) if s else slice(0, n) for s, n in zip(step, sizes, strict=True)
            )
            upper[step] = _along(found[box])
    return lower, upper


def _along(layer: np.ndarray) -> np.ndarray:
    """The number of each connected part of a layer."""
    parts, count = numbered(layer > 0, full=False)
    return np.asarray(layer.ravel()[_first(parts, count)])


class Borders(Protocol):
    """What a tile tells of the components that other tiles may hold, too.

    Attributes
    ----------
    border : their numbers, ascending
    lower, upper : numbers along the layers shared with tiles before and after this one
    """

    @property
    def border(self) -> np.ndarray: ...  # noqa: D102
    @property
    def lower(self) -> Layers: ...  # noqa: D102
    @property
    def upper(self) -> Layers: ...  # noqa: D102


class Joining:
    """Joins components across borders, as tiles come in; keeps what lies along borders alone."""

    def __init__(self, front: int) -> None:
        self._front = front
        self._count = 0
        self._waiting: dict[tuple[Index, tuple[int, ...]], np.ndarray] = {}
        self._pairs: list[np.ndarray] = []
        self.nodes: dict[Index, tuple[int, np.ndarray]] = {}

    def add(self, index: Index, part: Borders) -> np.ndarray:
        """Join a tile to those that are there already; returns its numbers along borders."""
        border, base = part.border, self._count
        self._count += len(border)
        self.nodes[index] = (base, border)
        for layers, before in ((part.lower, True), (part.upper, False)):
            for step, numbers in layers.items():
                if not len(numbers):
                    continue  # nor has the other tile any there
                nodes = base + np.searchsorted(border, numbers)
                place = self._front, *step
                above = tuple(i - s * before for i, s in zip(index, self._steps(step), strict=True))
                other = self._waiting.pop((above, place), None)
                if other is None:
                    self._waiting[above, place] = nodes
                else:
                    self._pairs.append(np.unique(np.stack([nodes, other]), axis=1))
        return border

    def _steps(self, step: Sequence[int]) -> tuple[int, ...]:
        return (0,) * self._front + tuple(step)

    def roots(self) -> tuple[np.ndarray, int]:
        """Which object each border component, in the order of `nodes`, belongs to; their number."""
        assert not self._waiting, "a layer that one tile alone knows"
        return united(self._pairs, self._count)


def united(pairs: Sequence[np.ndarray], count: int) -> tuple[np.ndarray, int]:
    """Which object each of `count` finds belongs to, and how many objects there are.

    Parameters
    ----------
    pairs : (2, n) each, of finds that are parts of one object
    """
    from scipy import sparse

    a, b = np.concatenate([np.empty((2, 0), np.int64), *pairs], axis=1)
    graph = sparse.coo_array((np.ones(len(a), bool), (a, b)), shape=(count, count))
    found, roots = sparse.csgraph.connected_components(graph, directed=False)
    return np.asarray(roots), int(found)


def holes(
    parts: Mapping[Index, tuple[np.ndarray, np.ndarray]], joining: Joining, largest: int | None
) -> dict[Index, np.ndarray]:
    """Components of the background that cross borders and are holes, by tile.

    Parameters
    ----------
    parts : pixels, and whether they are open, of each tile's components along borders
    """
    roots, count = joining.roots()
    area, beyond = np.zeros(count, np.int64), np.zeros(count, bool)
    for index, (base, border) in joining.nodes.items():
        own = roots[base : base + len(border)]
        np.add.at(area, own, parts[index][0])
        beyond[own[parts[index][1]]] = True
    hole = ~beyond if largest is None else ~beyond & (area <= largest)
    return {
        index: border[hole[roots[base : base + len(border)]]]
        for index, (base, border) in joining.nodes.items()
    }


def number(
    parts: Mapping[Index, tuple[np.ndarray, np.ndarray]], joining: Joining, least: int
) -> tuple[int, dict[Index, np.ndarray]]:
    """Number objects in the order of their first pixels.

    Parameters
    ----------
    parts : first pixels and areas of each tile's components
    least : pixels that an object has at least

    Returns
    -------
    number of objects; the object of each component by tile, from component 0, which is background
    """
    roots, count = joining.roots()
    first, area = np.full(count, NOWHERE), np.zeros(count, np.int64)
    alone: dict[Index, np.ndarray] = {}
    for index, (base, border) in joining.nodes.items():
        own, (firsts, areas) = roots[base : base + len(border)], parts[index]
        np.minimum.at(first, own, firsts[border - 1])
        np.add.at(area, own, areas[border - 1])
        alone[index] = np.ones(len(firsts), bool)
        alone[index][border - 1] = False
    tiles = list(joining.nodes)
    every = np.concatenate([first, *(parts[i][0][alone[i]] for i in tiles)])
    sizes = np.concatenate([area, *(parts[i][1][alone[i]] for i in tiles)])
    kept = np.flatnonzero(sizes >= max(least, 1))
    small = np.uint32 if len(kept) < 2**32 else np.uint64
    numbers = np.zeros(len(every), small)
    numbers[kept[np.argsort(every[kept])]] = np.arange(1, len(kept) + 1, dtype=small)
    found, place = {}, count
    for index, (base, border) in joining.nodes.items():
        own = np.zeros(len(alone[index]) + 1, small)
        own[border] = numbers[roots[base : base + len(border)]]
        single = np.flatnonzero(alone[index])
        own[single + 1] = numbers[place : place + len(single)]
        place += len(single)
        found[index] = own
    return len(kept), found
