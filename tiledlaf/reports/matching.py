"""Objects of labels against those of a truth: counted tile by tile, matched by their overlap."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..files import ngff
from ..files.image import Image, say
from ..pool import tasks
from ..results import components
from ..results.objects import made_objects
from ..results.result import open_result
from ..tiles import Box, Grid, Tile
from . import reading
from .scores import TENTHS, Classes, ObjectScores

LEFT_OUT = -1  # instead of an object of the truth: pixels whose truth is no class


class Side(NamedTuple):
    """The truth, or the labels.

    Attributes
    ----------
    image, table : the label image, and the class of each of its values
    numbers : of the object that each pixel belongs to; None where the connected pixels of a class
        are one object
    """

    image: Image
    table: Mapping[int, int]
    numbers: Image | None = None


class Found(NamedTuple):
    """The objects of a class on one side, as far as a tile shows them.

    Attributes
    ----------
    size : how many objects, which the tile numbers from 1 on
    numbers : of each in its image; None for connected pixels
    lower, upper : of connected pixels, those along the layers that tiles share
    """

    size: int
    numbers: np.ndarray | None
    lower: components.Layers
    upper: components.Layers

    @property
    def border(self) -> np.ndarray:
        """All of them, for `components.Joining`."""
        return np.arange(1, self.size + 1)


class Common(NamedTuple):
    """Pixels that objects have in common.

    Attributes
    ----------
    truth : an object from 1 on, 0 where there is none, `LEFT_OUT`
    labels : an object from 1 on, 0 where there is none
    pixels : of each such pair
    """

    truth: np.ndarray
    labels: np.ndarray
    pixels: np.ndarray


def scored(
    truth: Side,
    labels: Side,
    names: Mapping[int, str],
    grid: Grid,
    pool: tasks.Pool,
    already: Mapping[int, Image] = {},
    full: bool = False,
) -> tuple[ObjectScores, ...]:
    """Scores of the objects of some classes.

    Memory grows with the number of objects, not with that of pixels.

    Parameters
    ----------
    names : of the classes to score, by their number from 1 on
    grid : tiles to compare at a time, with one time point in each
    already : by class, numbers of the labels' objects where these were made already
    full : whether pixels that share only an edge or a corner are connected
    """
    job = (truth, labels, tuple(names), already, full)
    apart = _apart(labels.image)
    sides = {c: (_Gathered(apart), _Gathered(apart)) for c in names}
    pairs: dict[int, list[Common]] = {c: [] for c in names}
    for tile, found in reading.each_tile(pool, _tile, job, grid):
        for c, (common, *parts) in zip(names, found, strict=True):
            first = [side.add(tile, part) for side, part in zip(sides[c], parts, strict=True)]
            pairs[c].append(
                Common(
                    np.where(common.truth > 0, common.truth + first[0], common.truth),
                    np.where(common.labels > 0, common.labels + first[1], 0),
                    common.pixels,
                )
            )
    return tuple(
        match(names[c], _joined(pairs[c], *(side.objects() for side in sides[c]))) for c in names
    )


def made(group: str | None, classes: Classes, chosen: Mapping[int, str]) -> dict[int, Image]:
    """The label images of objects that were made of these labels, by class."""
    notes = ngff.read_notes(group, "") if group else None
    if group is None or not chosen or "settings" not in (notes or {}):
        return {}
    store, _, name = group.rpartition("/labels/")
    result = open_result(store, name, unfinished=True)
    found = {}
    for c in chosen:
        value = classes.labels[c - 1]
        one = made_objects(result, value) if value in result.names else None
        if one is not None:
            say(f"{group}: compared the objects of {one.name} that were made of it, {one.group}")
            found[c] = one.labels
    return found


def _apart(image: Image) -> int:
    """How many axes come before those of space: time points are not connected."""
    return len(image.grid) - len(image.spatial_axes)


def _tile(
    job: tuple[Side, Side, Sequence[int], Mapping[int, Image], bool], tile: Tile
) -> list[tuple[Common, Found, Found]]:
    """What a tile shows of the objects of each class."""
    *sides, classes, already, full = job
    apart = _apart(sides[1].image)
    window = components.window(sides[1].image.grid, apart, tile.core)
    core = tuple(slice(0, c.stop - c.start) for c in tile.core)
    maps = [reading.read_classes((side.image, side.table), window) for side in sides]
    numbers = [None if s.numbers is None else reading.read(s.numbers, tile.core) for s in sides]
    found = []
    for c in classes:
        objects = []
        for one, own in zip(maps, numbers, strict=True):
            if one is maps[1] and c in already:
                own = reading.read(already[c], tile.core)
                objects.append(_numbered(own > 0, own))
            elif own is not None:
                objects.append(_numbered(one[core] == c, own))
            else:
                objects.append(_connected(one == c, tile.core, apart, full))
        (wanted, there), (given, here) = objects
        found.append((_common(wanted, given, maps[0][core] == 0, here.size), there, here))
    return found


def _numbered(where: np.ndarray, numbers: np.ndarray) -> tuple[np.ndarray, Found]:
    """Number the objects of a tile from 1 on, 0 where there is none, by their own numbers."""
    # the bits of large unsigned numbers tell objects apart as well as their values do
    own, codes = np.unique(numbers[where].view(np.int64), return_inverse=True)
    objects = np.zeros(where.shape, np.int64)
    objects[where] = codes + 1
    return objects, Found(len(own), own, {}, {})


def _connected(where: np.ndarray, core: Box, apart: int, full: bool) -> tuple[np.ndarray, Found]:
    """Number connected pixels of a tile from 1 on; `where` has the first layer of the next ones."""
    flat = where.reshape(where.shape[apart:])  # there is one time point in a tile
    objects, count = components.numbered(flat, full)
    inner = objects[tuple(slice(0, c.stop - c.start) for c in core[apart:])]
    layers = components.layers(core[apart:], objects)
    return inner.reshape((1,) * apart + inner.shape), Found(count, None, *layers)


def _common(truth: np.ndarray, labels: np.ndarray, left_out: np.ndarray, count: int) -> Common:
    """Count the pixels of pairs of objects in a tile; those of neither do not matter."""
    kept = (truth > 0) | (labels > 0)
    wanted = np.where(left_out[kept], LEFT_OUT, truth[kept].astype(np.int64))
    codes, pixels = np.unique((wanted - LEFT_OUT) * (count + 1) + labels[kept], return_counts=True)
    own, given = np.divmod(codes, count + 1)
    return Common(own + LEFT_OUT, given, pixels)


class _Gathered:
    """What tiles found of the objects on one side, and which finds are of one object.

    Parameters
    ----------
    apart : axes of time, which no object crosses
    """

    def __init__(self, apart: int) -> None:
        self._apart, self._total = apart, 0
        self._numbers: list[np.ndarray] = []
        self._joining = components.Joining(apart)

    def add(self, tile: Tile, found: Found) -> int:
        """Take what a tile found; return how many finds there were before."""
        before = self._total
        self._total += found.size
        if found.numbers is not None:
            when = [np.full(found.size, i) for i in tile.index[: self._apart]]
            self._numbers.append(np.stack([*when, found.numbers]))
        else:
            self._joining.add(tile.index, found)
        return before

    def objects(self) -> np.ndarray:
        """The object, from 1 on, of each find; the first entry, 0, is for none."""
        found = np.zeros(self._total + 1, np.int64)
        if self._numbers:
            every = np.concatenate(self._numbers, axis=1)
            found[1:] = np.unique(every, axis=1, return_inverse=True)[1].ravel() + 1
        elif self._total:
            found[1:] = self._joining.roots()[0] + 1
        return found


def _joined(parts: Iterable[Common], truth: np.ndarray, labels: np.ndarray) -> Common:
    """The pairs of all tiles, with the objects of their finds."""
    own, given, pixels = (np.concatenate(column) for column in zip(*parts, strict=True))
    own = np.where(own > 0, truth[own.clip(0)], own)
    several = len(labels)  # more than there are objects
    codes, place = np.unique((own - LEFT_OUT) * several + labels[given], return_inverse=True)
    counts = np.zeros(len(codes), np.int64)
    np.add.at(counts, place, pixels)
    own, given = np.divmod(codes, several)
    return Common(own + LEFT_OUT, given, counts)


def match(name: str, common: Common) -> ObjectScores:
    """Match the objects of a class by intersection over union.

    Pixels whose truth is left out belong to no object. At an overlap above one half an object has
    one partner at most; at one half it may have two, each one half of it, and one of them is the
    match. An object of the labels without a match is not counted if more than half of it is left
    out.
    """
    truth, labels, pixels = common
    areas = _total(truth, pixels, truth > 0)
    inside, outside = (_total(labels, pixels, (labels > 0) & w) for w in (truth >= 0, truth < 0))
    size = max(len(inside), len(outside))
    inside, outside = (np.pad(a, (0, size - len(a))) for a in (inside, outside))
    mostly = outside > inside
    both = (truth > 0) & (labels > 0)
    truth, labels, shared = truth[both], labels[both], pixels[both]
    union = areas[truth] + inside[labels] - shared
    # of two halves, that which would count as wrong without a match
    order = np.flatnonzero(2 * shared >= union)
    order = order[np.argsort(mostly[labels[order]], kind="stable")]
    order = order[np.sort(np.unique(truth[order], return_index=True)[1])]
    order = order[np.unique(labels[order], return_index=True)[1]]
    shared, union, labels = shared[order], union[order], labels[order]
    matched, extra = [], []
    for tenths in TENTHS:
        right = 10 * shared >= tenths * union
        counted = ~mostly
        counted[labels[right]] = False
        matched.append(int(right.sum()))
        extra.append(int(counted[1:].sum()))
    return ObjectScores(
        name,
        max(len(areas) - 1, 0),
        max(size - 1, 0),
        int(mostly[1:].sum()),
        tuple(matched),
        tuple(extra),
        math.fsum((shared / union).tolist()),
    )


def _total(objects: np.ndarray, pixels: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Pixels of each object from 0 on."""
    found: np.ndarray = np.zeros(int(objects[where].max(initial=0)) + 1, np.int64)
    np.add.at(found, objects[where], pixels[where])
    return found
