"""Areas as pixels: those whose middle lies inside, whatever the window."""

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from tiledlaf.annotations.rasterize import Raster

GRID = (23, 31)
floats = st.floats(-8, 40).map(lambda x: round(x, 6))  # no files hold finer ones
numbers = floats | st.integers(-8, 40) | st.integers(-16, 80).map(lambda n: n / 2)
rings = st.lists(st.tuples(numbers, numbers), min_size=3, max_size=9)
ratios = st.sampled_from([1.0, 2.0, 1.37])


def repaired(polygon):
    return shapely.make_valid(polygon, method="structure", keep_collapsed=False)


@st.composite
def areas(draw):
    """Polygons with holes, several in one among them, some beyond the image."""
    found = []
    for _ in range(draw(st.integers(1, 4))):
        outer, inner = (
            shapely.make_valid(
                shapely.Polygon(draw(rings)), method="structure", keep_collapsed=False
            )
            for _ in range(2)
        )
        area = outer.difference(inner) if draw(st.booleans()) else outer.union(inner)
        if area.area > 0:
            found.append(area)
    return found


@st.composite
def windows(draw):
    spans = [sorted(draw(st.tuples(st.integers(0, n), st.integers(0, n)))) for n in GRID]
    return tuple(slice(a, b) for a, b in spans if a < b)


def raster(polygons, ratio=(1.0, 1.0)):
    count = len(polygons)
    return Raster(polygons, range(1, count + 1), [()] * count, GRID, ratio, "uint8")


def everything(found):
    return found[tuple(slice(0, n) for n in GRID)]


@given(areas(), ratios, ratios)
@settings(max_examples=60)
def test_pixels_whose_middle_lies_inside(polygons, down, across):
    found = everything(raster(polygons, (down, across)))
    x, y = np.meshgrid((np.arange(GRID[1]) + 0.5) * across, (np.arange(GRID[0]) + 0.5) * down)
    expected, unclear = np.zeros(GRID, np.uint8), np.zeros(GRID, bool)
    for value, polygon in enumerate(polygons, 1):
        expected[shapely.contains_xy(polygon, x, y)] = value
        unclear |= shapely.distance(polygon.boundary, shapely.points(x, y)) < 1e-9
    np.testing.assert_array_equal(found[~unclear], expected[~unclear])


@given(areas(), ratios, st.lists(windows(), min_size=1, max_size=6))
@settings(max_examples=60)
def test_windows_are_crops(polygons, ratio, parts):
    found = raster(polygons, (ratio, 1.0))
    full = everything(found)
    for window in (part for part in parts if len(part) == 2):
        block = found[window]
        np.testing.assert_array_equal(block, full[window])
        near = found.occupied(window)
        if near is None:
            assert not block.any()
        else:
            assert all(
                w.start <= n.start < n.stop <= w.stop for w, n in zip(window, near, strict=True)
            )
            assert np.count_nonzero(full[near]) == np.count_nonzero(block)


@given(st.lists(st.tuples(numbers, numbers), min_size=4, max_size=4))
@settings(max_examples=60)
def test_neighbors_share_no_pixel_and_leave_none(corners):
    """Two triangles with an edge in common are their quadrilateral, to the last pixel."""
    a, b, c, d = corners
    parts = [everything(raster([shapely.Polygon(p)])) for p in ((a, b, c), (a, c, d), corners)]
    np.testing.assert_array_equal(parts[0] ^ parts[1], parts[2])


def test_pixels_on_edges():
    """An edge through middles: those on the left and the top belong to the area."""
    found = everything(raster([shapely.box(2.5, 3.5, 5.5, 6.5)]))
    expected = np.zeros(GRID, bool)
    expected[3:6, 2:5] = True
    np.testing.assert_array_equal(found != 0, expected)


@pytest.mark.parametrize("place", [0, 2])
def test_planes(place):
    found = Raster([shapely.box(1, 1, 4, 4)], [7], [(place,)], (3, *GRID), (1.0, 1.0), "uint8")
    full = found[slice(0, 3), slice(0, GRID[0]), slice(0, GRID[1])]
    assert np.flatnonzero(full.any(axis=(1, 2))).tolist() == [place]
    assert found[slice(place, place + 1), slice(1, 4), slice(1, 4)].tolist() == [[[7] * 3] * 3]
    assert found.occupied((slice(1, 2), slice(0, 23), slice(0, 31))) is None
    near = found.occupied((slice(0, 3), slice(0, 23), slice(0, 31)))
    assert near == (slice(place, place + 1), slice(1, 4), slice(1, 4))


def test_many_edges_at_one_pixel():
    """A comb whose teeth all end within one pixel: only whether they are odd counts."""
    teeth = [shapely.box(3 + i / 700, 2, 3 + (i + 0.5) / 700, 8) for i in range(300)]
    comb = shapely.union_all([shapely.box(2, 8, 9, 9), *teeth])
    found = everything(raster([comb]))
    assert not found[2:8].any()
    assert found[8, 2:9].all()
