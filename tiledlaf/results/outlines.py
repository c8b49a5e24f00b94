"""Borders between pixels as closed outlines: corners of pieces of a label image, and their rings.

A piece is a set of pixels of one label that are connected by their faces. What a pixel adds to the
outline of its piece depends on the 3 x 3 pixels around it alone, so tiles find all corners exactly,
each by the tile of its pixel. A piece's outline is drawn once all its corners are there: in each
row of them, every second one begins a horizontal edge, and in each column a vertical one.

Of simpler outlines some corners are left out at the end, and points in the middle of edges are
kept in which pieces meet: between two such points neighbors leave out the same corners.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# flags of a corner
EAST, SOUTH, BELOW = 1, 2, 4
LEFT_OUT, ALONG = 8, 16  # of simpler outlines


@dataclass(frozen=True)
class Corners:
    """Corners of outlines.

    Attributes
    ----------
    y, x : where they are, in whole pixels, (n,) int32
    flags : (n,) uint8, the sum of EAST and SOUTH, where edges leave to, of BELOW, where the piece
        lies below the horizontal edge, and of LEFT_OUT, where the outline goes on without it; or
        ALONG, in the middle of an edge, with EAST of a horizontal one
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


def corners(
    window: np.ndarray,
    pieces: np.ndarray,
    origin: tuple[int, int],
    kept: np.ndarray | None = None,
) -> Corners:
    """Corners that the pixels of a tile have in the outlines of their pieces.

    Parameters
    ----------
    window : (h + 2, w + 2), labels of the tile and of the pixels around it
    pieces : (h, w) int32, number of each pixel's piece; -1 for none
    origin : y and x of the tile's first pixel
    kept : (h + 1, w + 1), which corners of pixels stay in simpler outlines; None: all that turn
    """
    around = (window[:-1, :-1], window[:-1, 1:], window[1:, :-1], window[1:, 1:])
    alike = (around[0] == around[1]) & (around[0] == around[2]) & (around[0] == around[3])
    y, x = np.nonzero(~alike)
    values = {(i, j): around[2 * i + j][y, x] for i in (0, 1) for j in (0, 1)}
    numbers = np.pad(pieces, 1, constant_values=-1)
    left_out = None if kept is None else LEFT_OUT * ~kept[y, x]
    middles = () if kept is None else [where[y, x] for where in _middles(window, kept)]
    found = []

    def add(where: np.ndarray, flags: int, more: np.ndarray | None) -> None:
        flag = np.full(np.count_nonzero(where), flags, np.uint8)
        if more is not None:
            flag |= more[where].astype(np.uint8)
        rows, columns = y[where] + origin[0], x[where] + origin[1]
        place = rows.astype(np.int32), columns.astype(np.int32)
        found.append(Corners(*place, flag, number[where]))

    for (i, j), own in values.items():  # of the four pixels around a point: below, on the right
        above, beside = values[1 - i, j] == own, values[i, 1 - j] == own
        across = values[1 - i, 1 - j] == own
        number = numbers[y + i, x + j]
        inside = number >= 0
        # a corner where neither neighbor is of the piece, and one where only that across is not
        outer, inner = ~(above | beside) & inside, above & beside & ~across & inside
        for where, inward in ((outer, 0), (inner, 1)):
            # edges leave from an outer corner along its pixel, from an inner one away from it
            add(where, EAST * (j ^ inward) + SOUTH * (i ^ inward) + BELOW * i, left_out)
        # of the two pixels of the piece beside a straight edge, the first tells
        ways = ((beside, above, j, ALONG + EAST), (above, beside, i, ALONG))
        for middle, (goes_on, other, second, flags) in zip(middles, ways, strict=False):
            if not second:
                add(goes_on & ~(other | across) & inside & middle, flags, None)
    return joined(found)


def edges(window: np.ndarray) -> np.ndarray:
    """Whether borders leave the corners of a tile's pixels to north, west, east, south.

    Parameters
    ----------
    window : (h + 2, w + 2), labels of the tile and of the pixels around it

    Returns
    -------
    (4, h + 1, w + 1) bool
    """
    down, across = window[:-1] != window[1:], window[:, :-1] != window[:, 1:]
    return np.stack([across[:-1], down[:, :-1], down[:, 1:], across[1:]])


def _middles(window: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points to keep in the middle of horizontal, and of vertical edges."""
    horizontal = kept & (edges(window).sum(axis=0) > 2)
    vertical = horizontal.copy()
    horizontal[:, [0, -1]] = vertical[[0, -1]] = True  # where edges cross the tile's
    return horizontal, vertical


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
    along = (given.flags & ALONG) > 0
    every = _keys(given)
    rows, columns = (one[~along] for one in every)
    turns = given[~along] if along.any() else given
    y, x = (a.astype(np.int64) for a in (turns.y, turns.x))
    flags = _turned(turns.flags, rows)
    east, south = (flags & EAST) > 0, (flags & SOUTH) > 0
    beside, above = _partners(rows * 2 + east), _partners(columns * 2 + south)
    begins = east == ((flags & BELOW) > 0)  # horizontal edges, in the outline's direction
    firsts = np.flatnonzero(begins)
    number = np.empty(len(y), np.int64)
    number[firsts] = np.arange(len(firsts))
    sequence, starts = _cycles(number[above[beside[firsts]]])
    begin = firsts[sequence]
    end = beside[begin]
    area = np.add.reduceat((x[begin] - x[end]) * y[begin], starts[:-1])
    piece = turns.piece[begin[starts[:-1]]].astype(np.int64)
    order = np.lexsort((area < 0, piece))
    lengths = np.diff(starts)[order]
    taken = np.repeat(starts[:-1][order] - (np.cumsum(lengths) - lengths), lengths)
    corner = np.stack([begin, end], axis=1)[taken + np.arange(len(begin))].ravel()
    found = Rings(
        np.stack([x[corner], y[corner]], axis=1),
        np.concatenate([[0], 2 * np.cumsum(lengths)]),
        piece[order],
    )
    left_out = (turns.flags[corner] & LEFT_OUT) > 0
    if not (along.any() or left_out.any()):
        return found
    middle = given[along]
    where = np.empty(len(corner), np.int64)
    where[corner] = np.arange(len(corner))
    flat = (middle.flags & EAST) > 0
    after = np.empty(len(middle), np.int64)
    for own, keys, others, partner, leads in (
        (flat, every[0], rows * 2 + east, beside, begins),
        (~flat, every[1], columns * 2 + south, above, ~begins),
    ):
        sort = np.argsort(others)
        one = sort[np.searchsorted(others[sort], keys[along][own] * 2) - 1]
        after[own] = where[np.where(leads[one], one, partner[one])]
    return _fewer(found, left_out, np.stack([middle.x, middle.y], axis=1), after)


def _keys(given: Corners) -> tuple[np.ndarray, np.ndarray]:
    """Numbers that sort corners of each piece by rows, and by columns."""
    y, x, piece = (a.astype(np.int64) for a in (given.y, given.x, given.piece))
    y, x = y - y.min(), x - x.min()
    height, width = int(y.max()) + 1, int(x.max()) + 1
    return (piece * height + y) * width + x, (piece * width + x) * height + y


def _fewer(found: Rings, left_out: np.ndarray, more: np.ndarray, after: np.ndarray) -> Rings:
    """Rings without some points, with more on edges after others, and none within a line."""
    count = len(found.points)
    place = np.concatenate([np.arange(count), after])
    distance = np.abs(more - found.points[after]).sum(axis=1)
    order = np.lexsort((np.concatenate([np.zeros(count, np.int64), distance]), place))
    stays = np.concatenate([~left_out, np.ones(len(more), bool)])[order]
    points = np.concatenate([found.points, more])[order][stays]
    ring = np.repeat(np.arange(len(found.piece)), np.diff(found.starts))[place[order]][stays]
    starts = np.searchsorted(ring, np.arange(len(found.piece) + 1))
    following = np.arange(1, len(points) + 1)
    following[starts[1:] - 1] = starts[:-1]
    way = points[following] - points
    before = np.empty_like(way)
    before[following] = way
    turns = before[:, 0] * way[:, 1] != before[:, 1] * way[:, 0]
    starts = np.concatenate([[0], np.cumsum(turns)])[starts]
    return Rings(points[turns], starts, found.piece)


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
