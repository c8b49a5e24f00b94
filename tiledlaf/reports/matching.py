"""Objects of labels against those of a truth: counted tile by tile, matched by their overlap."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ..files import ngff
from ..files.image import Image, say
from ..pool import tasks
from ..results.components import united
from ..results.objects import made_objects
from ..results.result import open_result
from ..tiles import Grid, Tile
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
    faces : the objects of the first and the last plane along each axis that they may cross
    """

    size: int
    numbers: np.ndarray | None
    faces: Mapping[int, tuple[np.ndarray, np.ndarray]]


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
) -> tuple[ObjectScores, ...]:
    """Scores of the objects of some classes.

    Memory grows with the number of objects, not with that of pixels.

    Parameters
    ----------
    names : of the classes to score, by their number from 1 on
    grid : tiles to compare at a time, with one time point in each
    already : by class, numbers of the labels' objects where these were made already
    """
    job = (truth, labels, tuple(names), already)
    apart = _apart(labels.image)
    sides = {c: (_Gathered(grid, apart), _Gathered(grid, apart)) for c in names}
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
    job: tuple[Side, Side, Sequence[int], Mapping[int, Image]], tile: Tile
) -> list[tuple[Common, Found, Found]]:
    """What a tile shows of the objects of each class."""
    *sides, classes, already = job
    apart = _apart(sides[1].image)
    maps = [reading.read_classes((side.image, side.table), tile) for side in sides]
    numbers = [None if s.numbers is None else reading.read(s.numbers, tile.window) for s in sides]
    found = []
    for c in classes:
        wanted, there = _objects(maps[0] == c, numbers[0], apart)
        if c in already:
            own = reading.read(already[c], tile.window)
            given, here = _objects(own > 0, own, apart)
        else:
            given, here = _objects(maps[1] == c, numbers[1], apart)
        found.append((_common(wanted, given, maps[0] == 0, here.size), there, here))
    return found


def _objects(where: np.ndarray, numbers: np.ndarray | None, apart: int) -> tuple[np.ndarray, Found]:
    """Number the objects of a tile from 1 on, 0 where there is none."""
    if numbers is not None:
        # the bits of large unsigned numbers tell objects apart as well as their values do
        own, codes = np.unique(numbers[where].view(np.int64), return_inverse=True)
        objects = np.zeros(where.shape, np.int64)
        objects[where] = codes + 1
        return objects, Found(len(own), own, {})
    from scipy import ndimage

    objects, count = ndimage.label(where)  # there is one time point in a tile
    faces = {
        axis: (objects.take(0, axis).copy(), objects.take(-1, axis).copy())
        for axis in range(apart, where.ndim)
    }
    return objects, Found(count, None, faces)


def _common(truth: np.ndarray, labels: np.ndarray, left_out: np.ndarray, count: int) -> Common:
    """Count the pixels of pairs of objects in a tile; those of neither do not matter."""
    kept = (truth > 0) | (labels > 0)
    wanted = np.where(left_out[kept], LEFT_OUT, truth[kept].astype(np.int64))
    codes, pixels = np.unique((wanted - LEFT_OUT) * (count + 1) + labels[kept], return_counts=True)
    own, given = np.divmod(codes, count + 1)
    return Common(own + LEFT_OUT, given, pixels)


@dataclass
class _Gathered:
    """What tiles found of the objects on one side, and which finds are of one object."""

    grid: Grid
    apart: int  # axes of time, which no object crosses
    total: int = 0
    numbers: list[np.ndarray] = field(default_factory=list)
    same: list[np.ndarray] = field(default_factory=list)
    waiting: dict[Any, np.ndarray] = field(default_factory=dict)

    def add(self, tile: Tile, found: Found) -> int:
        """Take what a tile found; return how many finds there were before."""
        before = self.total
        self.total += found.size
        if found.numbers is not None:
            when = [np.full(found.size, i) for i in tile.index[: self.apart]]
            self.numbers.append(np.stack([*when, found.numbers]))
        for axis, (first, last) in found.faces.items():
            at = tile.index[axis]
            if at > 0:
                self._meet((axis, tile.index), first, before)
            if at + 1 < self.grid.shape[axis]:
                after = (*tile.index[:axis], at + 1, *tile.index[axis + 1 :])
                self._meet((axis, after), last, before)
        return before

    def _meet(self, place: Any, face: np.ndarray, before: int) -> None:
        """Join objects across the face between two tiles, once both are there."""
        mine = np.where(face > 0, face.astype(np.int64) + before, 0)
        other = self.waiting.pop(place, None)
        if other is None:
            self.waiting[place] = mine
            return
        both = (mine > 0) & (other > 0)
        self.same.append(np.unique(np.stack([mine[both], other[both]]), axis=1))

    def objects(self) -> np.ndarray:
        """The object, from 1 on, of each find; the first entry, 0, is for none."""
        found = np.zeros(self.total + 1, np.int64)
        if self.numbers:
            every = np.concatenate(self.numbers, axis=1)
            found[1:] = np.unique(every, axis=1, return_inverse=True)[1].ravel() + 1
        elif self.total:
            found[1:] = united([pair - 1 for pair in self.same], self.total)[0] + 1
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
