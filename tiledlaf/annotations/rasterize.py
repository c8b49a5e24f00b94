"""Areas as pixels, window by window: a pixel depends on the areas alone, not on its window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..tiles import Box

EVERY = -1  # instead of a position: all of them


class Raster:
    """Areas and their values, of which any window can be read.

    A pixel belongs to an area if its middle does: along its row, it lies behind an odd number of
    the area's edges. Where areas overlap, the last one counts.

    Parameters
    ----------
    areas : valid polygons of shapely, not empty, in pixels of level 0
    values : of each area
    places : position of each area along the axes before y and x, or `EVERY`
    grid : pixels along each axis
    ratio : pixels of level 0 for each pixel, along y and x
    dtype : of the values
    """

    def __init__(
        self,
        areas: Sequence[Any],
        values: Sequence[int],
        places: Sequence[tuple[int, ...]],
        grid: tuple[int, ...],
        ratio: tuple[float, float],
        dtype: str,
    ) -> None:
        import shapely

        self._values, self._ratio = np.asarray(values, dtype), ratio
        given = np.array(areas, object)
        x0, y0, x1, y1 = shapely.bounds(given).reshape(-1, 4).T
        ends = ((y0, 0), (y1, 0), (x0, 1), (x1, 1))
        bounds = np.stack([_behind(end, ratio[axis]) for end, axis in ends], axis=1)
        height, width = grid[-2:]
        self._bounds = np.clip(bounds, 0, (height, height, width, width))  # of rows and columns
        self._edges, self._rows, self._starts = _edges(given, ratio[0], height)
        self._planes: dict[tuple[int, ...], tuple[Any, np.ndarray]] = {}
        whole = (self._bounds[:, 0] < self._bounds[:, 1]) & (
            self._bounds[:, 2] < self._bounds[:, 3]
        )
        for place in sorted(set(places)):
            chosen = np.flatnonzero(whole & [p == place for p in places])
            top, bottom, left, right = self._bounds[chosen].T
            self._planes[place] = shapely.STRtree(shapely.box(left, top, right, bottom)), chosen

    def __getitem__(self, window: Box) -> np.ndarray:
        """The values of a window, 0 where there is no area."""
        out = np.zeros([w.stop - w.start for w in window], self._values.dtype)
        for place, near in self._near(window):
            within = out[
                tuple(
                    slice(None) if p == EVERY else p - w.start
                    for p, w in zip(place, window, strict=False)
                )
            ]
            for one in near:
                self._paint(within, one, *window[-2:])
        return out

    def occupied(self, window: Box) -> Box | None:
        """The part of a window beyond which all is 0; None if all of it is."""
        found = [(place, self._bounds[near]) for place, near in self._near(window) if len(near)]
        if not found:
            return None
        columns = zip(*(place for place, _ in found), strict=True)
        spans = [
            (w.start, w.stop) if EVERY in column else (min(column), max(column) + 1)
            for column, w in zip(columns, window, strict=False)
        ]
        top, bottom, left, right = np.concatenate([bounds for _, bounds in found]).T
        low = [*(start for start, _ in spans), top.min(), left.min()]
        high = [*(stop for _, stop in spans), bottom.max(), right.max()]
        return tuple(
            slice(max(w.start, int(a)), min(w.stop, int(b)))
            for w, a, b in zip(window, low, high, strict=True)
        )

    def _near(self, window: Box) -> list[tuple[tuple[int, ...], np.ndarray]]:
        """The areas near a window, in order, for each place within it."""
        import shapely

        *before, rows, columns = window
        # boxes that only touch have no pixel in common
        box = shapely.box(
            columns.start + 0.5, rows.start + 0.5, columns.stop - 0.5, rows.stop - 0.5
        )
        return [
            (place, np.sort(chosen[tree.query(box)]))
            for place, (tree, chosen) in self._planes.items()
            if all(p == EVERY or w.start <= p < w.stop for p, w in zip(place, before, strict=True))
        ]

    def _paint(self, out: np.ndarray, one: int, rows: slice, columns: slice) -> None:
        """Set the pixels of an area in a window (..., rows, columns)."""
        top, bottom, left, right = self._bounds[one].tolist()
        top, bottom = max(top, rows.start), min(bottom, rows.stop)
        left, right = max(left, columns.start), min(right, columns.stop)
        own = slice(self._starts[one], self._starts[one + 1])
        first, last = self._rows[:, own]
        met = (first < bottom) & (last > top)
        first, last = np.maximum(first[met], top), np.minimum(last[met], bottom)
        # the rows that each edge crosses, one edge after the other
        count = last - first
        edge = np.repeat(np.arange(len(count)), count)
        row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count - first, count)
        x, y, width, height = self._edges[:, own][:, met][:, edge]
        share = ((row + 0.5) * self._ratio[0] - y) / height
        column = np.maximum(_behind(x + share * width, self._ratio[1]), left)
        inside = column < right
        size = (bottom - top, right - left)
        at = np.ravel_multi_index((row[inside] - top, column[inside] - left), size)
        turns = np.bincount(at, minlength=size[0] * size[1]).astype(np.uint8).reshape(size)
        odd = (np.add.accumulate(turns, axis=1, dtype=np.uint8) & 1).astype(bool)
        within = slice(top - rows.start, bottom - rows.start)
        out[..., within, left - columns.start : right - columns.start][..., odd] = self._values[one]


def _behind(position: np.ndarray, ratio: float) -> np.ndarray:
    """The first pixel whose middle is not before a position."""
    found: np.ndarray = np.ceil(position / ratio - 0.5).astype(np.int64)
    return found


def _edges(
    areas: np.ndarray, ratio: float, height: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The edges that cross the middle of a row.

    Returns
    -------
    edges : x and y where each begins, and how far it goes along x and, upwards, y; (4, E)
    rows : the first row that each crosses, and the first that it does not, (2, E)
    starts : where the edges of each area begin, (N + 1)
    """
    import shapely

    polygons, of_polygon = shapely.get_parts(areas, return_index=True)
    rings, of_ring = shapely.get_rings(polygons, return_index=True)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    area = of_polygon[of_ring][ring] if len(ring) else ring
    begin, end = points[:-1], points[1:]
    low = begin[:, 1] <= end[:, 1]  # upwards, so that neighbors share the edge between them
    begin, end = np.where(low[:, None], begin, end), np.where(low[:, None], end, begin)
    rows = np.clip(_behind(np.stack([begin[:, 1], end[:, 1]]), ratio), 0, height)
    kept = (ring[:-1] == ring[1:]) & (rows[0] < rows[1])
    edges = np.concatenate([begin[kept], (end - begin)[kept]], axis=1).T
    starts = np.searchsorted(area[:-1][kept], np.arange(len(areas) + 1))
    return np.ascontiguousarray(edges), rows[:, kept], starts
