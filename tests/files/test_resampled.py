"""Images on other grids: means, interpolations, nearest labels, the same in every window."""

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from tiledlaf.files import images
from tiledlaf.files.resampled import Resampled, resampled

RNG = np.random.default_rng(5)


def reader(n, m, nearest=False):
    return Resampled(images.from_array(np.zeros((2, 2))).reader, (n, 3), (m, 3), nearest)


def line(values, m, **options):
    values = np.asarray(values)
    found = reader(len(values), m, **options).read(
        np.repeat(values[:, None], 3, 1), (slice(0, m), slice(0, 3))
    )
    np.testing.assert_array_equal(found, np.repeat(found[:, :1], 3, 1))
    return found[:, 0]


def test_larger_pixels_are_means_over_their_area():
    values = RNG.random(12)
    np.testing.assert_allclose(line(values, 4), values.reshape(4, 3).mean(1))
    # pixels of 1.5: one and a half of the old ones
    expected = (values[0::3] + values[1::3] / 2) / 1.5
    np.testing.assert_allclose(line(values, 8)[::2], expected)
    assert line([1, 2, 3, 4], 2).tolist() == [2, 4]  # halves are rounded up
    assert line(np.array([255, 255, 254], np.uint8), 1).dtype == np.uint8


def test_smaller_pixels_are_interpolated():
    assert line([0.0, 4.0], 4).tolist() == [0, 1, 3, 4]
    assert line([7.0], 3).tolist() == [7, 7, 7]


def test_labels_are_the_nearest():
    assert line([5, 9, 7], 6, nearest=True).tolist() == [5, 5, 9, 9, 7, 7]
    assert line([1, 2, 3, 4, 5, 6], 2, nearest=True).tolist() == [2, 5]


@given(st.integers(1, 40), st.integers(1, 40), st.data(), st.booleans())
@settings(max_examples=60)
def test_windows_have_the_pixels_of_the_whole(n, m, data, nearest):
    start = data.draw(st.integers(0, m - 1))
    stop = data.draw(st.integers(start + 1, m))
    values = RNG.random((n, 3)).astype(np.float32)
    one = reader(n, m, nearest)
    whole = one.read(values, (slice(0, m), slice(0, 3)))
    part = one.read(values, (slice(start, stop), slice(1, 3)))
    np.testing.assert_array_equal(part, whole[start:stop, 1:])


def test_large_windows_are_read_in_parts(monkeypatch):
    values, one = RNG.random((40, 3)), reader(40, 13)
    whole = one.read(values, (slice(0, 13), slice(0, 3)))
    seen = []
    monkeypatch.setattr("tiledlaf.files.resampled.AT_ONCE", 30)
    read = type(one.source).read
    monkeypatch.setattr(type(one.source), "read", lambda *a: seen.append(read(*a).size) or read(*a))
    np.testing.assert_array_equal(one.read(values, (slice(0, 13), slice(0, 3))), whole)
    assert max(seen) <= 36
    assert len(seen) > 4


def test_a_value_that_is_not_finite_stays_where_it_is():
    values = np.zeros(8)
    values[4] = np.nan
    assert np.isnan(line(values, 4)).tolist() == [False, False, True, False]


def test_an_image_keeps_its_extent(tmp_path):
    pixels = RNG.integers(0, 255, (30, 40, 3), dtype=np.uint8)
    sizes = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "axes": "YXS"}
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels, photometric="rgb", metadata=sizes)
    image = resampled(images.open_image(tmp_path / "a.ome.tif"), (15, 20))
    assert (image.scale, image.grid, image.levels) == ((1.0, 1.0), (15, 20), ((15, 20),))
    assert image.translation == (0.25, 0.25)
    found = image.read((slice(0, 15), slice(0, 20)))
    expected = pixels.reshape(15, 2, 20, 2, 3).mean((1, 3)).transpose(2, 0, 1)
    np.testing.assert_array_equal(found, np.floor(expected + 0.5))
    memory = resampled(images.from_array(pixels), (15, 20))
    np.testing.assert_array_equal(memory.read((slice(0, 15), slice(0, 20))), found)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("grid", [(21, 40), (45, 90)], ids=["larger", "smaller"])
def test_no_mean_is_one_of_pixels_with_and_without_data(tmp_path, dtype, grid):
    """A pixel without data has its value in all channels that are read; one has it by chance."""
    pixels = RNG.integers(50, 60, (3, 30, 60)).astype(dtype)
    pixels[1:, :9, :9], pixels[0, 20:] = 255, 255
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", metadata={"axes": "CYX"})
    image = images.open_image(tmp_path / "a.tif", channels=[1, 2], no_data=255)
    found = resampled(image, grid)
    window = (slice(0, grid[0]), slice(0, grid[1]))
    part = found.read(window)
    assert sorted({*np.round(np.unique(part))} - set(range(50, 61))) == [255]
    lost = (part == 255).all(0)
    assert lost[: grid[0] * 9 // 30, : grid[1] * 9 // 60].all()
    assert lost.mean() < 0.08
    np.testing.assert_array_equal(found.read((slice(3, 7), window[1])), part[:, 3:7])
    whole = resampled(images.open_image(tmp_path / "a.tif"), grid).read(window)
    np.testing.assert_array_equal(found.read(window, [0]), whole[:1])
