"""One time point, or one plane, of an image that has several."""

import numpy as np
import pytest
import tifffile
import zarr
from command import run

import tiledlaf
from tiledlaf.files import images

SERIES = np.random.default_rng(0).integers(0, 255, (3, 2, 4, 20, 24)).astype(np.uint8)  # tczyx


@pytest.fixture
def path(tmp_path):
    group = zarr.open_group(tmp_path / "image.zarr", mode="w", zarr_format=3)
    group.create_array("0", shape=SERIES.shape, chunks=(1, 1, 4, 8, 8), dtype="u1")[:] = SERIES
    types = {"t": "time", "c": "channel"}
    axes = [{"name": a, "type": types.get(a, "space")} for a in "tczyx"]
    scale = [{"type": "scale", "scale": [7.0, 1.0, 3.0, 0.5, 0.25]}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    multiscales = [{"axes": axes, "datasets": datasets}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": multiscales}
    return tmp_path / "image.zarr"


def whole(image):
    return image.read(tuple(slice(0, n) for n in image.grid))


def test_a_time_point(path):
    image = images.open_image(path, time_point=2)
    assert (image.grid_axes, image.grid, image.scale) == ("zyx", (4, 20, 24), (3.0, 0.5, 0.25))
    np.testing.assert_array_equal(whole(image), SERIES[2])


def test_a_plane_of_a_time_point(path):
    image = images.open_image(path, time_point=1, z=3, channels=(1,))
    assert (image.grid_axes, image.grid, image.whole) == ("yx", (20, 24), (20, 24))
    np.testing.assert_array_equal(whole(image), SERIES[1, 1:, 3])


def test_all_time_points(path):
    image = images.open_image(path, time_point="all")
    assert (image.grid_axes, image.grid) == ("tzyx", (3, 4, 20, 24))
    assert (image.spatial_axes, image.scale) == ("zyx", (7.0, 3.0, 0.5, 0.25))
    np.testing.assert_array_equal(whole(image), SERIES.swapaxes(0, 1))
    part = image.read((slice(1, 2), slice(2, 4), slice(5, 9), slice(0, 3)))
    np.testing.assert_array_equal(part, SERIES.swapaxes(0, 1)[:, 1:2, 2:4, 5:9, :3])


def test_axes_in_any_order():
    stored = np.ascontiguousarray(SERIES.transpose(2, 3, 0, 4, 1))
    image = images.from_array(stored, "zytxc", time_point="all")
    np.testing.assert_array_equal(whole(image), SERIES.swapaxes(0, 1))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "expected one time point, got 3: choose one of 0 to 2 with `time_point`, or all$"),
        ({"time_point": 3}, "expected `time_point` of 0 to 2 or all, got 3"),
        ({"time_point": -1}, "expected `time_point` of 0 to 2 or all, got -1"),
        ({"time_point": "both"}, "got both"),
        ({"time_point": 0, "z": 4}, "expected `z` of 0 to 3, got 4"),
        ({"time_point": 0, "z": "all"}, "expected a whole number for `z`, got 'all'"),
    ],
)
def test_positions_that_are_not_there(path, options, text):
    with pytest.raises(ValueError, match=text):
        images.open_image(path, **options)


@pytest.mark.parametrize("options", [{"time_point": 0}, {"time_point": "all"}, {"z": 0}])
def test_positions_along_an_axis_that_is_not_there(options):
    with pytest.raises(ValueError, match=r"expected an image with the axis . for `.*`, got the"):
        images.from_array(SERIES[0, 0, 0], **options)


def test_labels_of_one_time_point_are_those_of_that_image_alone(path, tmp_path):
    prototypes = [[50.0, 50.0], [200.0, 200.0]]
    options = {"prototypes": prototypes, "neighborhood": "3x3x3"}
    found = tiledlaf.label(path, time_point=1, **options)
    np.testing.assert_array_equal(found, tiledlaf.label(SERIES[1], axes="czyx", **options))
    found = tiledlaf.label(path, time_point=1, z=2, prototypes=prototypes)
    np.testing.assert_array_equal(found, tiledlaf.label(SERIES[1, :, 2], prototypes=prototypes))


def test_another_time_point_is_another_run(path, tmp_path):
    (tmp_path / "prototypes.csv").write_text("50,50\n200,200\n")
    start = ("label", path, tmp_path / "out.zarr", "--prototypes", tmp_path / "prototypes.csv")
    assert run(*start, "--time-point", 1).code == 0
    assert run(*start, "--time-point", 1).code == 0
    other = run(*start, "--time-point", 0)
    assert other.code == 2
    assert "belongs to another image" in other.err
    assert "--time-point" in run(*start).err
    assert "`time_point`" not in run(*start).err
    assert "--time-point expects an index or all, got 'x'" in run(*start, "--time-point", "x").err
    assert run("status", tmp_path / "out.zarr").code == 0


def test_masks_and_labels_of_the_same_time_point(tmp_path):
    series = SERIES[:, 0, 0]
    mask = np.zeros(series.shape, np.uint8)
    mask[1, 5:] = 1
    for name, pixels in (("image.tif", series), ("mask.tif", mask)):
        tifffile.imwrite(tmp_path / name, pixels, imagej=True, metadata={"axes": "TYX"})
    options = {"prototypes": [[50], [200]], "time_point": 1}
    given = tmp_path / "mask.tif"
    found = tiledlaf.label(tmp_path / "image.tif", mask=given, **options)
    np.testing.assert_array_equal(found > 0, mask[1] > 0)
    (example,) = tiledlaf.pair(tmp_path / "image.tif", tmp_path / "mask.tif", time_point=1)
    np.testing.assert_array_equal(whole(example.labels)[0], mask[1])
    with pytest.raises(ValueError, match="one `time_point` to learn from"):
        tiledlaf.pair(tmp_path / "image.tif", tmp_path / "mask.tif", time_point="all")
