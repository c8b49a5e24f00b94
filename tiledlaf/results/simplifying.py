"""Borders of a tile of labels with fewer points, none of which moves far (Douglas and Peucker).

Borders are cut into arcs where three or more pieces meet, where two meet by their corners alone,
and at the tile's edge, so an arc is common to the two pieces on its sides. Of an arc those points
are kept that a straight line would miss by more than the tolerance. More of them are kept where
lines would meet or cross each other, or pass a border on its other side: pieces are then neighbors
as before, and each point of a border is within the tolerance of the line that stands for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import outlines

MANY = 2**20  # edges that points are compared with at once


@dataclass(frozen=True)
class Arcs:
    """Arcs between nodes, one after the other; those without a node begin where they end.

    Attributes
    ----------
    points : (n, 2), y and x in pixels of the tile
    first, last : (n,), whether a point begins, or ends, its arc
    size : (h, w) of the tile
    """

    points: np.ndarray
    first: np.ndarray
    last: np.ndarray
    size: tuple[int, int]


def kept(window: np.ndarray, tolerance: tuple[float, float]) -> np.ndarray:
    """Which corners of a tile's pixels stay in the borders; all of them at its edge.

    Parameters
    ----------
    window : (h + 2, w + 2), labels of the tile and of the pixels around it
    tolerance : how far borders may move, in pixels along y and x

    Returns
    -------
    (h + 1, w + 1) bool
    """
    arcs = trace(window)
    found = np.zeros((arcs.size[0] + 1, arcs.size[1] + 1), bool)
    chosen = arcs.points[choose(arcs, tolerance)]
    found[chosen[:, 0], chosen[:, 1]] = True
    found[[0, -1]] = found[:, [0, -1]] = True
    return found


def trace(window: np.ndarray) -> Arcs:
    """The borders within a tile."""
    leaving = outlines.edges(window)
    leaving[[0, 1, 2], 0] = leaving[[1, 2, 3], -1] = False  # beyond the tile and along its edge
    leaving[[0, 1, 3], :, 0] = leaving[[0, 2, 3], :, -1] = False
    north, _, _, south = leaving
    count = leaving.sum(axis=0, dtype=np.uint8)
    rim = np.ones(count.shape, bool)
    rim[1:-1, 1:-1] = False
    turns = (count == 2) & (north != south)
    ends = (count > 2) | rim & (count > 0)
    y, x = np.nonzero(turns | ends)
    here, ended = leaving[:, y, x], ends[y, x]
    # a point for each border that ends there, so that all are ways or circles
    many = np.where(ended, count[y, x], 1).astype(np.int64)
    number = np.cumsum(many) - many + ended * (np.cumsum(here, axis=0) - 1)
    pairs = []
    for order, sides in ((np.arange(len(y)), (2, 1)), (np.argsort(x, kind="stable"), (3, 0))):
        # along a row, or a column, each border that leaves arrives at the next point
        both = [number[side, order[here[side, order]]] for side in sides]
        pairs.append(np.stack(both))
    points = np.repeat(np.stack([y, x], axis=1), many, axis=0)
    order, first, last = _ways(np.concatenate(pairs, axis=1), len(points))
    height, width = (n - 1 for n in count.shape)
    return Arcs(points[order], first, last, (height, width))


def _ways(pairs: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points in the order of the ways and circles that pairs of them make, which begin and end."""
    both = np.concatenate([pairs, pairs[::-1]], axis=1)
    both = both[:, np.argsort(both[0], kind="stable")]
    degree = np.bincount(both[0], minlength=count)
    where = np.cumsum(degree) - degree
    one = both[1][where].tolist()
    other = np.where(degree == 2, both[1][where + degree - 1], -1).tolist()
    seen = bytearray(count)
    order: list[int] = []
    begins, ends = [], []
    for start in [*np.flatnonzero(degree == 1).tolist(), *range(count)]:
        if seen[start]:
            continue
        begins.append(len(order))
        before, point = -1, start
        while point >= 0 and not seen[point]:
            seen[point] = 1
            order.append(point)
            before, point = point, other[point] if one[point] == before else one[point]
        if point >= 0:  # a circle
            order.append(point)
        ends.append(len(order) - 1)
    first, last = np.zeros((2, len(order)), bool)
    first[begins] = last[ends] = True
    return np.array(order, np.int64), first, last


def choose(arcs: Arcs, tolerance: tuple[float, float]) -> np.ndarray:
    """Which points of arcs stay, (n,) bool."""
    keep = arcs.first | arcs.last
    if not len(keep):
        return keep
    scaled = arcs.points / np.array(tolerance)
    fresh = keep | _split(scaled, *_lines(arcs, keep), 1.0)
    while True:  # points that are kept beside others may need more again
        keep = keep | fresh
        begin, end = _lines(arcs, keep)
        bad = _wrong(arcs, begin, end, keep, fresh, max(tolerance)) & (end - begin > 1)
        if not bad.any():
            return keep
        fresh = _split(scaled, begin[bad], end[bad], -1.0)


def _split(scaled: np.ndarray, begin: np.ndarray, end: np.ndarray, most: float) -> np.ndarray:
    """The points that lines need: where they miss by more than `most`, and then, by more than 1."""
    found = np.zeros(len(scaled), bool)
    while len(begin):
        far, distance = _farthest(scaled, begin, end)
        split = distance > most
        begin, far, end = begin[split], far[split], end[split]
        found[far] = True
        begin, end = np.concatenate([begin, far]), np.concatenate([far, end])
        most = 1.0
    return found


def _lines(arcs: Arcs, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last point of each line between points that stay."""
    places = np.flatnonzero(keep)
    begin, end = places[:-1], places[1:]
    within = ~arcs.last[begin]
    return begin[within], end[within]


def _inner(begin: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points from `begin` to before `end`; of which line each is, and where each line's start."""
    counts = end - begin
    starts = np.cumsum(counts) - counts
    line = np.repeat(np.arange(len(begin)), counts)
    return np.arange(len(line)) - starts[line] + begin[line], line, starts


def _farthest(
    points: np.ndarray, begin: np.ndarray, end: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of the points between the ends of each line, if any, the farthest, and its distance."""
    far, most = begin.copy(), np.full(len(begin), -np.inf)
    long = end - begin > 1
    if not long.any():
        return far, most
    inner, line, starts = _inner(begin[long] + 1, end[long])
    a, b = points[begin[long]][line], points[end[long]][line]
    p, way = points[inner] - a, b - a
    length = (way**2).sum(axis=1)
    share = np.divide((p * way).sum(axis=1), length, out=np.zeros(len(p)), where=length > 0)
    distance = np.sqrt(((p - share.clip(0, 1)[:, None] * way) ** 2).sum(axis=1))
    most[long] = np.maximum.reduceat(distance, starts)
    where = np.flatnonzero(distance == most[long][line])
    far[long] = inner[where[np.searchsorted(line[where], np.arange(len(starts)))]]
    return far, most


def _wrong(
    arcs: Arcs,
    begin: np.ndarray,
    end: np.ndarray,
    keep: np.ndarray,
    fresh: np.ndarray,
    reach: float,
) -> np.ndarray:
    """Which lines cannot stand for their points; those whose ends are not fresh were seen before.

    Parameters
    ----------
    reach : of a line, within which its points are
    """
    import shapely

    points, new = arcs.points, fresh[begin] | fresh[end]
    lines = shapely.linestrings(np.stack([points[begin], points[end]], axis=1))
    found = _along_the_edge(arcs, begin, end) | _meeting(points, begin, end, lines, new)
    # points near lines, where one of both is new
    for which, near in ((new, keep), (~new, fresh)):
        own, ends = np.flatnonzero(which & (end - begin > 1)), np.flatnonzero(near)
        tree = shapely.STRtree(shapely.points(points[ends]))
        line, point = tree.query(lines[own], predicate="dwithin", distance=reach)
        found |= _passing(points, begin, end, own[line], ends[point])
    return found


def _along_the_edge(arcs: Arcs, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Whether lines lie on the tile's edge, whose own borders stay as they are."""
    a, b = arcs.points[begin], arcs.points[end]
    return np.any((a == b) & ((a == 0) | (a == arcs.size)), axis=1)


def _meeting(
    points: np.ndarray, begin: np.ndarray, end: np.ndarray, lines: np.ndarray, new: np.ndarray
) -> np.ndarray:
    """Whether lines meet others anywhere but at their ends, or are points."""
    import shapely

    a, b = points[begin], points[end]
    found = np.asarray(np.all(a == b, axis=1))
    which = np.flatnonzero(new)
    one, other = shapely.STRtree(lines).query(lines[which], predicate="intersects")
    one = which[one]
    pairs = (one != other) & ((one < other) | ~new[other])
    one, other = one[pairs], other[pairs]
    bad = _cross(a[one], b[one], a[other], b[other])
    found[one[bad]] = found[other[bad]] = True
    return found


def _cross(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Whether lines from a to b and from c to d meet anywhere but at an end of both."""

    def side(p: np.ndarray, q: np.ndarray, r: np.ndarray) -> np.ndarray:
        turn = (q - p)[:, 0] * (r - p)[:, 1] - (q - p)[:, 1] * (r - p)[:, 0]
        return np.asarray(np.sign(turn))

    def between(p: np.ndarray, q: np.ndarray, r: np.ndarray) -> np.ndarray:
        """Whether r, in line with p and q, is within them, and no end."""
        return np.asarray(((r - p) * (r - q)).sum(axis=1) < 0)

    sides = side(a, b, c), side(a, b, d), side(c, d, a), side(c, d, b)
    found = (sides[0] * sides[1] < 0) & (sides[2] * sides[3] < 0)
    for turn, (p, q, r) in zip(sides, ((a, b, c), (a, b, d), (c, d, a), (c, d, b)), strict=True):
        found |= (turn == 0) & between(p, q, r)
    same = np.all(a == c, axis=1) & np.all(b == d, axis=1)
    return found | same | np.all(a == d, axis=1) & np.all(b == c, axis=1)


def _passing(
    points: np.ndarray, begin: np.ndarray, end: np.ndarray, line: np.ndarray, point: np.ndarray
) -> np.ndarray:
    """Whether points lie between lines and what these stand for, by pairs of a line and a point."""
    own = np.all(points[point] == points[begin[line]], axis=1)
    own |= np.all(points[point] == points[end[line]], axis=1)
    line, point = line[~own], point[~own]
    pieces = np.cumsum(end[line] - begin[line]) // MANY
    found = np.zeros(len(begin), bool)
    for part in np.split(np.arange(len(line)), np.flatnonzero(np.diff(pieces)) + 1):
        one = line[part]
        inside = _inside(points, begin[one], end[one], points[point[part]])
        found[one[inside]] = True
    return found


def _inside(points: np.ndarray, begin: np.ndarray, end: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Whether a point lies within the polygon of the points from `begin` to `end`, for each."""
    if not len(p):
        return np.zeros(0, bool)
    inner, line, starts = _inner(begin, end)
    a, b, own = points[inner], points[inner + 1], p[line]
    # borders follow pixels: an edge that passes the point's row lies in one column
    hit = ((a[:, 0] > own[:, 0]) != (b[:, 0] > own[:, 0])) & (a[:, 1] > own[:, 1])
    odd = np.logical_xor.reduceat(hit, starts)
    a, b = points[begin], points[end]
    passes = (a[:, 0] > p[:, 0]) != (b[:, 0] > p[:, 0])
    turn = (b - a)[:, 1] * (p - a)[:, 0] - (b - a)[:, 0] * (p - a)[:, 1]
    right = np.where(b[:, 0] > a[:, 0], turn > 0, turn < 0)
    return np.asarray(odd ^ (passes & right))
