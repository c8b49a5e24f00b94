"""Polygons of a label image, tile by tile, and put together across the borders of tiles.

Pieces that lie within a tile are finished where the tile is read. Those that reach other tiles are
kept until all of their tiles are there, a row of tiles after the other: memory is needed for the
outlines that go on in the next row, not for the image.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..files import image as image_files
from ..files.image import Image
from ..pool.tasks import Pool
from ..tiles import Grid
from . import outlines, simplifying
from .outlines import Corners, Rings

EDGE = 2048  # of a tile
DIGITS = 4  # of coordinates that are no whole numbers


@dataclass(frozen=True)
class Drawing:
    """What is to be drawn of a plane of labels.

    Attributes
    ----------
    labels : the label image
    grid : tiles of its axes y and x, with a halo of 1
    before : position along the axes before these
    values : label values to draw; None: all but 0
    origin, ratio : pixel (y, x) of the plane at which the labels begin, and pixels of level 0 that
        one of its pixels has
    tolerance : how far borders may move, in pixels of the labels along y and x; None: they do not
    """

    labels: Image
    grid: Grid
    before: tuple[int, ...]
    values: tuple[int, ...] | None
    origin: tuple[int, int]
    ratio: tuple[float, float]
    tolerance: tuple[float, float] | None = None

    @property
    def whole(self) -> bool:
        """Whether all coordinates are whole numbers."""
        return all(float(r).is_integer() for r in self.ratio)

    def placed(self, points: np.ndarray) -> np.ndarray:
        """Points (n, 2), x and y in pixels of the labels, in those of level 0."""
        moved = (points + np.array(self.origin[::-1])) * np.array(self.ratio[::-1])
        return moved.astype(np.int64) if self.whole else np.round(moved, DIGITS)


@dataclass(frozen=True)
class Drawn:
    """What a tile gives.

    Attributes
    ----------
    polygons : value and coordinates, as JSON, of each piece that lies within
    values : of the pieces that reach other tiles
    parts : of each of these its corners
    edges : of the tile's first and last row and column, the piece of each pixel; -1 for none
    """

    polygons: list[tuple[int, bytes]]
    values: list[int]
    parts: list[Corners]
    edges: dict[str, np.ndarray] = field(repr=False)


def drawing(
    labels: Image,
    before: tuple[int, ...],
    values: tuple[int, ...] | None,
    origin: tuple[int, int],
    ratio: tuple[float, float],
    tolerance: tuple[float, float] | None = None,
    edge: int | None = None,
) -> Drawing:
    """Lay out the tiles; the parameters are those of `Drawing`."""
    plane = labels.grid[-2:]
    edge = edge or EDGE
    grid = Grid(plane, (0, 0), plane, (edge, edge), (1, 1))
    return Drawing(labels, grid, before, values, origin, ratio, tolerance)


def draw(job: Drawing, index: tuple[int, int]) -> Drawn:
    """The outlines in a tile."""
    from skimage.measure import label

    tile = job.grid.tile_at(index)
    window = (*(slice(b, b + 1) for b in job.before), *tile.window)
    read = image_files.read(job.labels, window)
    missing = [
        (int(inner.start == 0), int(inner.stop == w.stop - w.start))
        for inner, w in zip(tile.inner, tile.window, strict=True)
    ]
    around = np.pad(read.reshape(read.shape[-2:]), missing)
    wanted = around if job.values is None else np.where(np.isin(around, job.values), around, 0)
    inner = wanted[1:-1, 1:-1]
    pieces = label(inner, background=0, connectivity=1).astype(np.int32) - 1
    count = int(pieces.max(initial=-1)) + 1
    values = np.zeros(count, np.int64)
    values[pieces[pieces >= 0]] = inner[pieces >= 0]
    rows, columns = job.grid.shape
    edges = {
        "top": pieces[0] if index[0] else None,
        "bottom": pieces[-1] if index[0] < rows - 1 else None,
        "left": pieces[:, 0] if index[1] else None,
        "right": pieces[:, -1] if index[1] < columns - 1 else None,
    }
    met = {side: edge for side, edge in edges.items() if edge is not None}
    reaching = np.zeros(count + 1, bool)  # the last for -1
    for edge in met.values():
        reaching[edge] = True
    reaching[-1] = False
    first = (tile.core[0].start, tile.core[1].start)
    if job.tolerance is None:
        corners = outlines.corners(wanted, pieces, first)
    else:  # by the borders of all labels, whichever are wanted
        kept = simplifying.kept(around, job.tolerance)
        corners = outlines.corners(around, pieces, first, kept)
    open_ = reaching[corners.piece]
    closed = corners[~open_]
    polygons = texts(job, outlines.rings(closed)) if len(closed) else ()
    number = np.where(reaching, np.cumsum(reaching) - 1, -1)
    return Drawn(
        [(int(values[piece]), text) for piece, text in polygons],
        values[reaching[:-1]].tolist(),
        _parts(corners[open_], np.flatnonzero(reaching[:-1])),
        {side: number[edge] for side, edge in met.items()},
    )


def _parts(found: Corners, pieces: np.ndarray) -> list[Corners]:
    """The corners of each piece, of which some have none."""
    found = found[np.argsort(found.piece, kind="stable")]
    bounds = (np.searchsorted(found.piece, pieces, side).tolist() for side in ("left", "right"))
    return [found[a:b] for a, b in zip(*bounds, strict=True)]


def texts(job: Drawing, rings: Rings) -> Iterator[tuple[int, bytes]]:
    """Of each piece its number and its polygon's coordinates as JSON."""
    points, starts = job.placed(rings.points).tolist(), rings.starts.tolist()
    closed = [[*points[a:b], points[a]] for a, b in itertools.pairwise(starts)]
    ends = np.flatnonzero(np.diff(rings.piece)) + 1
    bounds = [0, *ends.tolist(), len(closed)]
    for a, b in itertools.pairwise(bounds):
        yield int(rings.piece[a]), _json(closed[a:b])


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def polygons(
    job: Drawing, pool: Pool, progress: Callable[[int, int], None] = lambda done, of: None
) -> Iterator[tuple[list[tuple[int, bytes]], int]]:
    """Polygons as they are complete.

    Yields
    ------
    polygons : value and coordinates, as JSON, of each
    complete : rows of pixels; of what has pixels in these alone nothing follows
    """
    rows, columns = job.grid.shape
    waiting: dict[int, dict[int, Drawn]] = {}
    seam, following = _Seam(job), 0
    items = (tile.index for tile in job.grid)
    for done, (index, found, error, _) in enumerate(pool.run(draw, job, items), 1):
        if error is not None:
            raise error
        waiting.setdefault(index[0], {})[index[1]] = found
        progress(done, rows * columns)
        while len(waiting.get(following, ())) == columns:
            row = waiting.pop(following)
            found_here = seam.add([row[i] for i in range(columns)])
            # what reaches the last row may go on in the next one
            end = job.grid.tile_at((following, 0)).core[0].stop
            yield found_here, end - (following < rows - 1)
            following += 1


class _Seam:
    """Pieces that reach other tiles, until all of their tiles are there."""

    def __init__(self, job: Drawing) -> None:
        self._job = job
        self._root: dict[int, int] = {}  # of each piece one of its whole
        self._members: dict[int, list[int]] = {}  # of a whole all pieces
        self._values: dict[int, int] = {}
        self._parts: dict[int, Corners] = {}
        self._count = 0
        self._above: list[np.ndarray] = []  # pieces along the last row of the tiles above

    def add(self, row: list[Drawn]) -> list[tuple[int, bytes]]:
        """Take a row of tiles; returns polygons that are complete now."""
        found: list[tuple[int, bytes]] = []
        edges = []
        for tile in row:
            found += tile.polygons
            numbers = range(self._count, self._count + len(tile.values))
            self._count += len(numbers)
            for number, value, part in zip(numbers, tile.values, tile.parts, strict=True):
                self._root[number], self._members[number] = number, [number]
                self._values[number], self._parts[number] = value, part
            edges.append({s: np.where(e < 0, -1, e + numbers.start) for s, e in tile.edges.items()})
        for left, right in itertools.pairwise(edges):
            self._join(left["right"], right["left"])
        for above, here in zip(self._above, edges, strict=bool(self._above)):
            self._join(above, here["top"])
        self._above = [edge["bottom"] for edge in edges if "bottom" in edge]
        reaching = {int(p) for edge in self._above for p in np.unique(edge) if p >= 0}
        going_on = {self._root[p] for p in reaching}
        return found + self._close([root for root in self._members if root not in going_on])

    def _join(self, one: np.ndarray, other: np.ndarray) -> None:
        """Unite the pieces on both sides of a border that have the same value."""
        both = (one >= 0) & (other >= 0)
        for pair in np.unique(np.stack([one[both], other[both]]), axis=1).T.tolist():
            a, b = (self._root[p] for p in pair)
            if a == b or self._values[pair[0]] != self._values[pair[1]]:
                continue
            if len(self._members[a]) < len(self._members[b]):
                a, b = b, a
            moved = self._members.pop(b)
            for piece in moved:
                self._root[piece] = a
            self._members[a] += moved

    def _close(self, roots: list[int]) -> list[tuple[int, bytes]]:
        """The polygons of wholes that are complete, which are forgotten."""
        values, wholes = [], []
        for root in roots:
            members = self._members.pop(root)
            values.append(self._values[root])
            parts = [self._parts.pop(piece) for piece in members]
            for piece in members:
                del self._root[piece], self._values[piece]
            wholes.append(parts)
        if not wholes:
            return []
        all_parts = [
            Corners(p.y, p.x, p.flags, np.full(len(p), number, np.int32))
            for number, parts in enumerate(wholes)
            for p in parts
        ]
        rings = outlines.rings(outlines.joined(all_parts))
        return [(values[number], text) for number, text in texts(self._job, rings)]
