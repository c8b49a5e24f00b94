"""HDF5 as ilastik writes it."""

import json
import os
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tifffile
from command import run

from tiledlaf import label
from tiledlaf.files import images
from tiledlaf.files.image import FileWarning

h5py = pytest.importorskip("h5py", reason="NOT TESTED: h5py is not installed")
PIXELS = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)


def file_at(path, tags=None, **arrays):
    with h5py.File(path, "w") as file:
        for name, data in arrays.items():
            made = file.create_dataset(name, data=data)
            if tags:
                axes = [{"key": key, "typeFlags": 2, "resolution": 0} for key in tags]
                made.attrs["axistags"] = json.dumps({"axes": axes})
    return str(path)


def read(image):
    return image.read(tuple(slice(0, n) for n in image.grid))


@pytest.mark.parametrize("suffix", [".h5", ".hdf5"])
def test_exports_of_ilastik(tmp_path, suffix):
    path = file_at(tmp_path / f"a{suffix}", "yxc", exported_data=PIXELS)
    for given in (path, f"{path}/exported_data"):
        image = images.open_image(given)
        assert (image.axes, image.grid) == ("yxc", (30, 40))
        np.testing.assert_array_equal(read(image), np.moveaxis(PIXELS, -1, 0))
    before = image.fingerprint()
    assert images.open_image(path).fingerprint() == before
    os.utime(path, ns=(1, 1))
    assert images.open_image(path).fingerprint() != before


def test_axes_of_ilastik(tmp_path):
    volume = np.zeros((1, 4, 30, 40, 2), "f4")
    image = images.open_image(file_at(tmp_path / "a.h5", "tzyxc", exported_data=volume))
    assert (image.axes, image.grid, image.stored_channels) == ("tzyxc", (4, 30, 40), 2)
    path = file_at(tmp_path / "b.h5", exported_data=PIXELS)
    assert images.open_image(path).axes == "yxc"  # by its shape
    labels = file_at(tmp_path / "c.h5", exported_data=PIXELS[..., 0][None].repeat(3, 0))
    assert images.open_labels(f"{labels}/exported_data").axes == "zyx"
    with h5py.File(path, "r+") as file:
        file["exported_data"].attrs["axistags"] = "?"
    with pytest.warns(FileWarning, match="axistags cannot be read"):
        images.open_image(path)


def test_pixel_sizes_and_labels_of_dimensions(tmp_path):
    path = file_at(tmp_path / "a.h5", data=PIXELS[..., 0])
    with h5py.File(path, "r+") as file:
        file["data"].attrs["element_size_um"] = [3.0, 0.5, 0.25]
        for dimension, name in zip(file["data"].dims, ("row", "column"), strict=True):
            dimension.label = name
    image = images.open_image(path)
    assert (image.axes, image.scale, image.units) == ("yx", (0.5, 0.25), ("micrometer",) * 2)


def test_one_of_several_arrays(tmp_path):
    small = PIXELS[:9, :9, 0]
    path = file_at(tmp_path / "a.h5", raw=PIXELS, labels=small, table=np.zeros(9), name="text")
    with pytest.warns(FileWarning, match="holds labels, raw; the largest, raw, is taken"):
        assert images.open_image(path).grid == (30, 40)
    for image in (
        images.open_image(f"{path}/labels"),
        images.open_image(path, series="labels"),
        images.open_image(path, series=0),
    ):
        np.testing.assert_array_equal(read(image)[0], small)
    assert [part.name for part in images.parts(path)] == ["labels", "raw"]
    with pytest.raises(ValueError, match="expected one of labels, raw for `series`, got 'x'"):
        images.open_image(path, series="x")


@pytest.mark.parametrize("name", ["none", "table", "group", "exported_data/deep"])
def test_what_is_no_image_in_a_file(tmp_path, name):
    path = file_at(tmp_path / "a.h5", exported_data=PIXELS, table=np.zeros(9))
    with h5py.File(path, "r+") as file:
        file.create_group("group")
    with pytest.raises(ValueError, match=f"at '{name}'; the file holds exported_data"):
        images.open_image(f"{path}/{name}")


def test_damaged_files(tmp_path):
    Path(tmp_path / "a.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + b"0" * 100)
    found = run("label", tmp_path / "a.h5", tmp_path / "out", "--classes", "2")
    assert (found.code, found.err.count("\n")) == (2, 1), found
    assert "a.h5: this HDF5 file cannot be read" in found.err


def test_labels_are_those_of_the_array(tmp_path):
    path = file_at(tmp_path / "a.h5", "yxc", exported_data=PIXELS)
    options = {"prototypes": [[60] * 3, [180] * 3], "tile": 32}
    expected = label(np.moveaxis(PIXELS, -1, 0), **options)
    np.testing.assert_array_equal(label(path, **options), expected)


def test_probabilities_of_ilastik(tmp_path):
    """Their axes are those that the file names, here with the classes last."""
    given = np.random.default_rng(1).random((4, 30, 40), np.float32)
    given /= given.sum(0)
    image = file_at(tmp_path / "a.h5", "yxc", exported_data=PIXELS)
    path = file_at(tmp_path / "p.h5", "yxc", exported_data=np.moveaxis(given, 0, -1))
    deep = file_at(tmp_path / "t.h5", "tzcyx", exported_data=given[None, None])
    expected = label(np.moveaxis(PIXELS, -1, 0), probabilities=given)
    assert len(np.unique(expected)) == 4
    for probabilities in (path, deep):
        np.testing.assert_array_equal(label(image, probabilities=probabilities), expected)
    tifffile.imwrite(tmp_path / "p.tif", (given.transpose(1, 2, 0) * 255).astype(np.uint8))
    found = label(image, probabilities=tmp_path / "p.tif")
    assert len(np.unique(found)) == 4  # the last class is no alpha
    drawn = PIL.Image.fromarray((given.transpose(1, 2, 0) * 255).astype(np.uint8))
    drawn.save(tmp_path / "p.png")
    with pytest.raises(ValueError, match="expected probabilities, got a picture with an alpha"):
        label(image, probabilities=tmp_path / "p.png")
