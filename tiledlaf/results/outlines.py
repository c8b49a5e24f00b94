"""Borders between pixels as closed outlines: corners of pieces of a label image, and their rings.

A piece is a set of pixels of one label that are connected by their faces. What a pixel adds to the
outline of its piece depends on the 3 x 3 pixels around it alone, so tiles find all corners exactly,
each by the tile of its pixel. A piece's outline is drawn once all its corners are there: in each
row of them, every second one begins a horizontal edge, and in each column a vertical one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

EAST, SOUTH, BELOW = 1, 2, 4  # flags of a corner


@dataclass(frozen=True)
class Corners:
    """Corners of outlines.

    Attributes
    ----------
    y, x : where they are, in whole pixels, (n,) int32
    flags : (n,) uint8, the sum of EAST and SOUTH, where edges leave to, and of BELOW, where the
        piece lies below the horizontal edge
    piece : (n,) int32, of which piece
    """

    y: np.ndarray
    x: np.ndarray
    flags: np.ndarray
    piece: np.ndarray

    def __len__(self) -> int:
        return len(self.piece)

    def __getitem__(self, chosen: np.ndarray | slice) -> Corners:
        return Corners(self.y[chosen], self.x[chosen], self.flags[chosen], self.piece[chosen])


def joined(parts: list[Corners]) -> Corners:
    """Corners of several parts, one after the other."""
    names = ("y", "x", "flags", "piece")
    return Corners(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def corners(window: np.ndarray, pieces: np.ndarray, origin: tuple[int, int]) -> Corners:
    """Corners that the pixels of a tile have in the outlines of their pieces.

    Parameters
    ----------
    window : (h + 2, w + 2), labels of the tile and of the pixels around it; what is not drawn is 0
    pieces : (h, w) int32, number of each pixel's piece
    origin : y and x of the tile's first pixel
    """
    height, width = pieces.shape
    around = (window[:-1, :-1], window[:-1, 1:], window[1:, :-1], window[1:, 1:])
    alike = (around[0] == around[1]) & (around[0] == around[2]) & (around[0] == around[3])
    y, x = np.nonzero(~alike)
    values = {(i, j): around[2 * i + j][y, x] for i in (0, 1) for j in (0, 1)}
    found = []
    for (i, j), own in values.items():  # of the four pixels around a point: below, on the right
        above, beside = values[1 - i, j] == own, values[i, 1 - j] == own
        across = values[1 - i, 1 - j] == own
        rows, columns = y - 1 + i, x - 1 + j
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width) & (own != 0)
        # a corner where neither neighbor is of the piece, and one where only that across is not
        outer, inner = ~(above | beside) & inside, above & beside & ~across & inside
        for where, inward in ((outer, 0), (inner, 1)):
            # edges leave from an outer corner along its pixel, from an inner one away from it
            flags = EAST * (j ^ inward) + SOUTH * (i ^ inward) + BELOW * i
            found.append(
                Corners(
                    (y[where] + origin[0]).astype(np.int32),
                    (x[where] + origin[1]).astype(np.int32),
                    np.full(np.count_nonzero(where), flags, np.uint8),
                    pieces[rows[where], columns[where]],
                )
            )
    return joined(found)


@dataclass(frozen=True)
class Rings:
    """Closed outlines of pieces, each piece's outer one before those of its holes.

    Attributes
    ----------
    points : (n, 2), x and y of the corners, ring after ring; a ring's first is not repeated
    starts : (rings + 1,) where each begins
    piece : (rings,) of which piece
    """

    points: np.ndarray
    starts: np.ndarray
    piece: np.ndarray


def rings(given: Corners) -> Rings:
    """The outlines of whole pieces, of all their corners.

    Each is a simple polygon, which meets others of its piece in single points at most; the piece is
    on its right, where y points downwards.
    """
    y, x = (a.astype(np.int64) for a in (given.y, given.x))
    y0, x0, piece = y.min(), x.min(), given.piece.astype(np.int64)
    height, width = int(y.max() - y0) + 1, int(x.max() - x0) + 1
    rows = (piece * height + (y - y0)) * width + (x - x0)
    columns = (piece * width + (x - x0)) * height + (y - y0)
    flags = _turned(given.flags, rows)
    east, south = (flags & EAST) > 0, (flags & SOUTH) > 0
    beside, above = _partners(rows * 2 + east), _partners(columns * 2 + south)
    firsts = np.flatnonzero(east == ((flags & BELOW) > 0))  # where horizontal edges begin
    number = np.empty(len(y), np.int64)
    number[firsts] = np.arange(len(firsts))
    sequence, starts = _cycles(number[above[beside[firsts]]])
    begin = firsts[sequence]
    end = beside[begin]
    area = np.add.reduceat((x[begin] - x[end]) * y[begin], starts[:-1])
    order = np.lexsort((area < 0, piece[begin[starts[:-1]]]))
    points = np.stack([x[begin], y[begin], x[end], y[end]], axis=1)
    lengths = np.diff(starts)[order]
    taken = np.repeat(starts[:-1][order] - (np.cumsum(lengths) - lengths), lengths)
    points = points[taken + np.arange(len(points))].reshape(-1, 2)
    bounds = np.concatenate([[0], 2 * np.cumsum(lengths)])
    return Rings(points, bounds, piece[begin[starts[:-1]]][order])


def _turned(flags: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Flags of corners such that a piece that touches itself in a point has simple outlines.

    Two corners are there; each outline stays on its side of the piece, not with its pixel.
    """
    order = np.argsort(rows, kind="stable")
    twice = np.flatnonzero(rows[order[1:]] == rows[order[:-1]])
    a, b = order[twice], order[twice + 1]
    found = flags.copy()
    found[a] = (flags[a] & ~np.uint8(SOUTH)) | (flags[b] & SOUTH)
    found[b] = (flags[b] & ~np.uint8(SOUTH)) | (flags[a] & SOUTH)
    return found


def _partners(keys: np.ndarray) -> np.ndarray:
    """Of each corner the one at the other end of its edge: neighbors in order, two by two."""
    order = np.argsort(keys)
    found = np.empty(len(keys), np.int64)
    found[order[0::2]], found[order[1::2]] = order[1::2], order[0::2]
    return found


def _cycles(following: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cycles of a permutation, one after the other, and where each begins, and the end."""
    after = following.tolist()
    seen = bytearray(len(after))
    sequence: list[int] = []
    starts = []
    for first in range(len(after)):
        if seen[first]:
            continue
        starts.append(len(sequence))
        one = first
        while not seen[one]:
            seen[one] = 1
            sequence.append(one)
            one = after[one]
    return np.array(sequence, np.int64), np.array([*starts, len(sequence)], np.int64)


def dense(given: Rings) -> Rings:
    """The same rings with a point at each pixel's corner: neighbors have all in common."""
    points, starts = given.points, given.starts
    following = np.arange(1, len(points) + 1)
    following[starts[1:] - 1] = starts[:-1]
    way = points[following] - points
    steps = np.abs(way).sum(axis=1)
    step = np.repeat(np.sign(way), steps, axis=0)
    ends = np.cumsum(steps)
    count = np.arange(ends[-1]) - np.repeat(ends - steps, steps)
    bounds = np.concatenate([[0], ends])[starts]
    return Rings(np.repeat(points, steps, axis=0) + step * count[:, None], bounds, given.piece)
