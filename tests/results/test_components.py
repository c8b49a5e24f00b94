"""Components and measures over tiles are those of the whole image by scipy and scikit-image."""

import itertools
import warnings

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as some
from scipy import ndimage
from skimage.measure import regionprops

from tiledlaf.files import images
from tiledlaf.results import components, measures
from tiledlaf.results.components import Joining, Search
from tiledlaf.results.measures import Gauge
from tiledlaf.tiles import Grid


def structure(ndim, full, front=0):
    """A structuring element that does not connect time points."""
    inner = ndimage.generate_binary_structure(ndim, ndim if full else 1)
    if not front:
        return inner
    found = np.zeros((3, *inner.shape), bool)
    found[1] = inner
    return found


def expected(labels, value, front, full, fill, largest, least):
    """Objects of the whole image."""
    ndim = labels.ndim - front
    mask = labels == value
    if fill:
        around, count = ndimage.label(~mask, structure(ndim, not full, front))
        area = np.bincount(around.ravel(), minlength=count + 1)
        hole = np.ones(count + 1, bool)
        for axis in range(front, labels.ndim):
            for side in (0, -1):
                hole[np.take(around, side, axis=axis)] = False
        hole[around[labels == 0]] = False
        if largest is not None:
            hole &= area <= largest
        hole[0] = False
        mask |= hole[around]
    found, count = ndimage.label(mask, structure(ndim, full, front))
    kept = np.bincount(found.ravel(), minlength=count + 1) >= least
    kept[0] = False
    return (np.cumsum(kept) * kept)[found]


def search_of(labels, tile, axes, **more):
    image = images.from_array(labels, axes, time_point="all" if "t" in axes else None)
    zero = (0,) * labels.ndim
    return Search(image, 1, Grid(labels.shape, zero, labels.shape, tile, zero), **more)


def tiled(search, least, order=lambda tiles: tiles):
    """Objects by tiles, which come in any order."""
    every, filled, none = [t.index for t in search.grid], {}, np.empty(0, np.int32)
    if search.fill:
        joining, parts = Joining(search.front), {}
        for index in order(every):
            part = components.find_background(search, index)
            border = joining.add(index, part)
            parts[index] = part.area[border - 1], part.open[border - 1]
        filled = components.holes(parts, joining, search.largest)
    joining, parts = Joining(search.front), {}
    for index in order(every):
        part = components.find(search, (index, filled.get(index, none)))
        joining.add(index, part)
        parts[index] = part.first, part.area
    count, numbers = components.number(parts, joining, least)
    found = np.zeros(search.grid.size, np.int64)
    for index in every:
        tile = search.grid.tile_at(index)
        here, _ = components.components(search, tile, filled.get(index, none))
        found[tile.core] = numbers[index][components.core_of(search, tile, here)]
    return found, count


def label_images():
    """Small label images with many borders: 2-D, 3-D, and 2-D over time."""
    shapes = st.one_of(
        st.tuples(st.just("yx"), st.tuples(*[st.integers(1, 13)] * 2)),
        st.tuples(st.just("zyx"), st.tuples(*[st.integers(1, 6)] * 3)),
        st.tuples(st.just("tyx"), st.tuples(st.integers(2, 3), *[st.integers(1, 7)] * 2)),
    )

    def drawn(found):
        axes, shape = found
        values = st.sampled_from([1, 1, 1, 1, 2, 2, 2, 0])
        return st.tuples(
            st.just(axes), some.arrays(np.uint8, shape, elements=values, fill=st.nothing())
        )

    return shapes.flatmap(drawn)


@settings(max_examples=120)
@given(
    label_images(),
    st.tuples(*[st.integers(1, 7)] * 3),
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, 1, 2, 5]),
    st.integers(1, 4),
    st.randoms(use_true_random=False),
)
def test_components_are_those_of_the_whole_image(drawn, edges, full, fill, largest, least, random):
    axes, labels = drawn
    front = int(axes[0] == "t")
    tile = (1,) * front + edges[: labels.ndim - front]
    search = search_of(labels, tile, axes, full=full, fill=fill, largest=largest)
    found, count = tiled(search, least, lambda tiles: random.sample(tiles, len(tiles)))
    truth = expected(labels, 1, front, full, fill, largest, least)
    np.testing.assert_array_equal(found, truth)
    assert count == truth.max()


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("shape", [(24, 31), (9, 10, 11)])
def test_filling_is_scipys_where_all_pixels_are_labeled(shape, full):
    labels = np.where(np.random.default_rng(0).random(shape) < 0.9, 1, 2).astype(np.uint8)
    search = search_of(labels, (5,) * len(shape), "zyx"[-len(shape) :], full=full, fill=True)
    around = structure(len(shape), not full)
    filled = ndimage.binary_fill_holes(labels == 1, around)
    truth, count = ndimage.label(filled, structure(len(shape), full))
    assert (filled != (labels == 1)).any()
    found = tiled(search, 1)
    np.testing.assert_array_equal(found[0], truth)
    assert found[1] == count


def test_holes_that_reach_what_is_not_labeled_stay_open():
    labels = np.ones((7, 14), np.uint8)
    labels[3, 3] = labels[3, 10] = 2
    labels[3, 11] = 0
    found, _ = tiled(search_of(labels, (4, 4), "yx", fill=True), 1)
    assert found[3, 3] == 1
    assert found[3, 10] == found[3, 11] == 0


@pytest.mark.parametrize("tile", [(9, 9), (48, 48), (4, 3)])
def test_holes_up_to_a_size(tile):
    """Of each size, within tiles and across their borders."""
    labels = np.ones((36, 48), np.uint8)
    for row, size in itertools.product(range(5), range(1, 7)):
        start = 7 * size - 6 + row
        labels[7 * row + 3, start : start + size] = 2
    for largest in (1, 3, 4, 6):
        found, _ = tiled(search_of(labels, tile, "yx", fill=True, largest=largest), 1)
        np.testing.assert_array_equal(found, expected(labels, 1, 0, False, True, largest, 1))
        assert (found == 0).sum() == 5 * sum(range(largest + 1, 7))


def measured(tmp_path, ids, tile, axes, picture=None, confidence=None, pixel_size=None):
    """The table of a label image, by tiles."""
    store = str(tmp_path / "ids.zarr")
    array = zarr.create_array(
        store, shape=ids.shape, dtype="uint32", chunks=ids.shape, overwrite=True
    )
    array[:] = ids
    zero, front = (0,) * ids.ndim, int(axes[0] == "t")
    grid = Grid(ids.shape, zero, ids.shape, tile, zero)
    gauge = Gauge(store, "", front, grid, picture, confidence, pixel_size)
    rows, parts = [], []
    for number, one in enumerate(grid):
        numbers, found, rest = measures.measure(gauge, one.index)
        rows.append((numbers, found))
        parts.append((number, rest))
    joined = measures.join(parts[::-1])
    if joined is not None:
        rows.append((joined.number, measures.columns(gauge, joined)))
    order = np.argsort(np.concatenate([numbers for numbers, _ in rows]))
    names = rows[0][1]
    return {n: np.concatenate([found[n] for _, found in rows])[order] for n in names}


def blobs(shape, seed=0, front=0):
    noise = np.random.default_rng(seed).normal(size=shape)
    smooth = ndimage.gaussian_filter(noise, (0,) * front + (1.5,) * (len(shape) - front))
    return ndimage.label(smooth > 0.05, structure(len(shape) - front, True, front))[0]


@pytest.mark.parametrize(
    ("shape", "axes", "tiles"),
    [
        ((60, 70), "yx", [(60, 70), (16, 16), (7, 64), (5, 9), (59, 23)]),
        ((14, 20, 22), "zyx", [(14, 20, 22), (4, 8, 8), (3, 20, 9)]),
        ((3, 30, 31), "tyx", [(1, 30, 31), (1, 8, 8)]),
    ],
)
def test_measures_are_scikit_images_over_all_tiles(tmp_path, shape, axes, tiles):
    front = int(axes[0] == "t")
    ids, random = blobs(shape, front=front), np.random.default_rng(1)
    whole = random.integers(0, 65536, (*shape[:front], 3, *shape[front:]), dtype=np.uint16)
    channels = axes[:front] + "c" + axes[front:]
    time = "all" if front else None
    picture = images.from_array(whole, channels, time_point=time)
    sure = random.random(shape)
    confidence = images.from_array(sure, axes, time_point=time)
    size = (2.0, 0.5, 0.5)[-len(shape) + front :]
    tables = [measured(tmp_path, ids, tile, axes, picture, confidence, size) for tile in tiles]
    for table in tables[1:]:
        for name, column in table.items():
            if name == "mean_confidence":
                np.testing.assert_allclose(column, tables[0][name], rtol=1e-12)
            else:
                np.testing.assert_array_equal(column, tables[0][name], name)
    stacked = np.moveaxis(whole, front, -1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for table_row, one in zip(range(ids.max()), regionprops(ids, stacked), strict=True):
            row = {name: column[table_row] for name, column in tables[0].items()}
            assert one.label == table_row + 1
            check(row, one, axes, front, ids, stacked, sure, size)


def check(row, one, axes, front, ids, picture, sure, size):
    """A row of the table against scikit-image, which knows no time."""
    spatial = axes[front:]
    if front:
        time = one.bbox[0]
        assert row["t"] == time
        (one,) = regionprops((ids[time] == one.label).astype(int), picture[time])
        sure, ids = sure[time], ids[time] == ids.dtype.type(row_label(ids, one, time))
        own = np.zeros(ids.shape, bool)
        own[one.slice] = one.image
    else:
        own = ids == one.label
    ndim = len(spatial)
    area = "area" if ndim == 2 else "volume"
    assert row[area] == one.area
    assert row[f"{area}_um{ndim}"] == pytest.approx(one.area * np.prod(size))
    assert [row[f"centroid_{a}"] for a in spatial] == pytest.approx(one.centroid)
    ends = [row[f"{end}_{a}"] for end in ("min", "max") for a in spatial]
    assert tuple(ends) == one.bbox
    assert row["axis_major"] == pytest.approx(one.axis_major_length, abs=1e-6)
    if ndim == 2:
        assert row["perimeter"] == pytest.approx(one.perimeter)
        assert row["eccentricity"] == pytest.approx(one.eccentricity, abs=1e-6)
        assert row["axis_minor"] == pytest.approx(one.axis_minor_length, abs=1e-6)
        assert row["axis_major_um"] == pytest.approx(one.axis_major_length / 2, abs=1e-6)
    else:
        padded = np.pad(own, 1).astype(int)
        faces = [np.abs(np.diff(padded, axis=a)).sum() for a in range(3)]
        assert row["surface"] == sum(faces)
        assert row["surface_um2"] == pytest.approx(faces[0] * 0.25 + faces[1] + faces[2])
        assert row["axis_minor"] == pytest.approx(one.axis_minor_length, abs=1e-6)
    assert [row[f"mean_channel_{c}"] for c in range(3)] == pytest.approx(one.intensity_mean)
    assert row["mean_confidence"] == pytest.approx(sure[own].mean())


def row_label(ids, one, time):
    return ids[time][tuple(one.coords[0])]


def test_sums_are_exact_beyond_64_bits():
    """An object of 10^6 x 10^6 pixels: its sums of squares need 80 bits."""
    n, edge = 10**12, 10**6
    first = edge * (edge - 1) // 2 * edge
    second = (edge - 1) * edge * (2 * edge - 1) // 6 * edge
    cross = (edge * (edge - 1) // 2) ** 2
    row = np.array([1])

    def part(shift):
        return measures.Sums(
            row, row * 0, np.array([n]), np.array([[0, shift]]), np.array([[edge, shift + edge]]),
            np.array([[first, first]]), np.array([[second, cross, second]], dtype=object),
            np.zeros((1, 3), int), np.array([[2**62]]), np.empty((1, 0)),
        )  # fmt: skip

    joined = measures.join(
        [(0, part(0)), (1, part(edge)), (2, part(2 * edge)), (3, part(3 * edge))]
    )
    gauge = Gauge("", "", 0, Grid((1, 1), (0, 0), (1, 1), (1, 1), (0, 0)))
    found = measures.columns(gauge, joined)
    assert found["area"] == 4 * n
    assert found["centroid_x"] == (4 * edge - 1) / 2
    assert found["axis_major"] == pytest.approx(4 * np.sqrt((16 * n - 1) / 12), rel=1e-12)
    assert found["axis_minor"] == pytest.approx(4 * np.sqrt((n - 1) / 12), rel=1e-12)
    assert found["mean_channel_0"] == 2**62 / n


def test_pixels_that_are_no_squares(tmp_path):
    """Have no perimeter in micrometers; axes are those of the shape as it is."""
    y, x = np.mgrid[:40, :60]
    ids = (np.hypot(y - 20, (x - 30) / 2.5) < 9).astype(np.uint32)
    table = measured(tmp_path, ids, (16, 16), "yx", pixel_size=(2.0, 0.5))
    (one,) = regionprops(ids.astype(int), spacing=(2.0, 0.5))
    assert table["axis_major_um"] == pytest.approx(one.axis_major_length)
    assert table["axis_minor_um"] == pytest.approx(one.axis_minor_length)
    assert table["area_um2"] == ids.sum()
    assert "perimeter_um" not in table


def test_means_of_large_whole_numbers(tmp_path):
    """Which no sum in 64 bits holds."""
    ids = np.ones((6, 7), np.uint32)
    picture = images.from_array(np.full((6, 7), 2**63 + 2**62, np.uint64), "yx")
    table = measured(tmp_path, ids, (4, 4), "yx", picture)
    assert table["mean_channel_0"] == pytest.approx(2**63 + 2**62)


@pytest.mark.parametrize("ndim", [2, 3])
def test_pixels_that_share_only_a_corner_of_tiles(ndim):
    """In each direction, as random images seldom have them alone."""
    for step in itertools.product((-1, 0, 1), repeat=ndim):
        labels = np.full((4,) * ndim, 2, np.uint8)
        here = tuple(1 if s >= 0 else 2 for s in step)
        there = tuple(h + s for h, s in zip(here, step, strict=True))
        labels[here] = labels[there] = 1
        for full in (False, True):
            found, _ = tiled(search_of(labels, (2,) * ndim, "zyx"[-ndim:], full=full), 1)
            truth, _ = ndimage.label(labels == 1, structure(ndim, full))
            np.testing.assert_array_equal(found, truth, str(step))
