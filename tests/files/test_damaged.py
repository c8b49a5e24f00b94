"""Damaged files: one line that names the file, whatever its reader raises."""

import json
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import zarr

import tiledlaf
from tiledlaf import Selection
from tiledlaf.errors import DamagedFile, InputError, TiledlafError, readable
from tiledlaf.files import image as image_files
from tiledlaf.files import images, ngff, nodes

PIXELS = np.random.default_rng(3).integers(0, 255, (20, 30), dtype=np.uint8)


def test_archives_of_arrays_are_no_arrays(tmp_path):
    path = tmp_path / "a.npy"
    with path.open("wb") as file:
        np.savez(file, a=PIXELS)
    for call in (images.open_image, images.open_labels):
        with pytest.raises(DamagedFile, match=r"a\.npy: this file cannot be read"):
            call(path)


@pytest.mark.parametrize("how", ["cut", "changed"])
def test_deep_png(tmp_path, how):
    """16 bits per color, which another library decodes."""
    data = bytearray(imagecodecs.png_encode(np.stack([PIXELS.astype(np.uint16)] * 3, axis=-1)))
    if how == "cut":
        del data[len(data) // 2 :]
    else:
        data[len(data) // 2] ^= 255
    path = tmp_path / "a.png"
    path.write_bytes(data)
    with pytest.raises(DamagedFile, match=r"a\.png: this file cannot be read"):
        images.open_image(path)


def _levels(path, shapes, axes=("y", "x"), scale=(1, 1)):
    group = zarr.open_group(path, mode="w")
    for number, shape in enumerate(shapes):
        chunks = tuple(max(1, n) for n in shape)
        group.create_array(str(number), shape=shape, chunks=chunks, dtype="u1")
    moves = [{"type": "scale", "scale": list(scale)}]
    datasets = [{"path": str(n), "coordinateTransformations": moves} for n in range(len(shapes))]
    listed = [{"name": axis, "type": "space"} for axis in axes]
    image = {"axes": listed, "datasets": datasets}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [image]}


@pytest.mark.parametrize("shape", [(10,), (0, 0), (10, 15, 1)])
def test_levels_of_other_axes(tmp_path, shape):
    _levels(tmp_path / "a.zarr", [(20, 30), shape])
    with pytest.raises(DamagedFile, match=r"levels with pixels along the 2 axes .* got the shape"):
        images.open_image(tmp_path / "a.zarr")


def test_endless_scale(tmp_path):
    _levels(tmp_path / "a.zarr", [(20, 30)], scale=(10**400, 1))
    with pytest.raises(DamagedFile, match=r"a\.zarr: .* a zarr\.json that is not JSON"):
        images.open_image(tmp_path / "a.zarr")


@pytest.mark.parametrize(
    ("names", "said"),
    [(5, "its dimension names cannot be read, TypeError"), ({"y": 1}, "expected axes for the 2")],
)
def test_odd_names_of_dimensions(tmp_path, names, said):
    path = tmp_path / "a.zarr"
    made = zarr.create_array(path, data=PIXELS, zarr_format=2)
    made.attrs["_ARRAY_DIMENSIONS"] = names
    with pytest.raises(TiledlafError, match=said):
        images.open_image(path)


@pytest.mark.parametrize("kind", ["array", "group"])
def test_attributes_that_are_no_object(tmp_path, kind):
    path = tmp_path / "a.zarr"
    zarr.create_array(path, data=PIXELS) if kind == "array" else zarr.create_group(path)
    about = json.loads((path / "zarr.json").read_text())
    (path / "zarr.json").write_text(json.dumps(about | {"attributes": "x"}))
    # of arrays only newer versions of zarr say it
    with pytest.raises(TiledlafError, match=r"expected (attributes by name|a Zarr store), got"):
        ngff.read_multiscale(str(path))


def test_pixels_of_no_codec(tmp_path):
    """What a library raises for pixels names the file as well."""
    made = images.from_array(PIXELS)

    class Broken:
        def __getitem__(self, box):
            raise ValueError("no such code")

    odd = image_files.Image(**{**vars(made), "data": Broken(), "path": "a.tif"})
    with pytest.raises(DamagedFile, match=r"a\.tif: pixels cannot be read, ValueError: no such"):
        image_files.read_pixels(odd, (slice(0, 4), slice(0, 4)))


def test_labels_and_metadata_of_others(tmp_path):
    """What is written into a store of odd metadata: refused by name, or put right."""
    path = str(tmp_path / "a.zarr")
    group = zarr.create_group(path)
    group.attrs["ome"] = "x"
    nodes.write_group(path, "", "0.5", 3, {"labels": []})
    assert zarr.open_group(path, mode="r").attrs["ome"] == {"version": "0.5", "labels": []}
    zarr.create_group(path, path="labels", attributes={"ome": {"labels": 5}})
    with pytest.raises(InputError, match="expected a list of labels, got 5"):
        ngff.list_label(path, "labels/a", "0.5", 3)
    with pytest.raises(InputError, match="expected a list of labels, got 5"):
        ngff.label_names(path)


def test_errors_of_the_file_system_pass():
    with pytest.raises(FileNotFoundError), readable("a.tif"):
        Path("nowhere").read_bytes()
    with pytest.raises(InputError, match="got 5"), readable("a.tif"):
        raise InputError("expected 4, got 5")
    with pytest.raises(DamagedFile, match="cannot be read, OSError: no text"), readable("a.tif"):
        raise OSError


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"pixel_size": "x"}, "a number for `pixel_size`, got 'x'"),
        ({"pixel_size": (1, 2, 3)}, "one `pixel_size`, or two along y and x, got 3"),
        ({"input_pixel_size": 10**400}, "a number for `input_pixel_size`"),
        ({"intensity_scale": "<u2"}, "a number for `intensity_scale`, got '<u2'"),
        ({"no_data": [0]}, r"a number for `no_data`, got \[0\]"),
        ({"level": 0.5}, "a whole number for `level`, got 0.5"),
        ({"z": True}, "a whole number for `z`, got True"),
    ],
)
def test_odd_selections(given, said):
    with pytest.raises(InputError, match=said):
        Selection(**given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"neighborhood": 3}, "for `neighborhood`, got 3"),
        ({"term": 5, "classes": None}, "a data term, or the name of one for `term`, got 5"),
        ({"seed": "x"}, "a whole number for `seed`, got 'x'"),
        ({"workers": "1"}, "a whole number for `workers`, got '1'"),
        ({"axes": "yxc"}, r"expected axes for the 2 dimensions .* got 'yxc'"),
        ({"axes": 5}, "letters for `axes`"),
        ({"channels": ((0,),)}, r"a whole number for `channels`, got \(0,\)"),
        ({"integrator": "taylor"}, "an `integrator` such as Taylor"),
        ({"painting": None}, "a Painting for `painting`, got None"),
        ({"output": 5}, "a path for `output`, got 5"),
        ({"rho": "1"}, "a number for `rho`, got '1'"),
    ],
)
def test_odd_keywords(given, said):
    with pytest.raises(InputError, match=said):
        tiledlaf.label(PIXELS, **{"classes": 2, "workers": 1, **given})


def test_labels_of_64_bits():
    labels = np.repeat([[1, 2]], 4, axis=0)
    for dtype in (np.uint64, np.int64):
        found = tiledlaf.evaluate(labels.astype(dtype), labels.astype(np.uint8))
        assert found.error == 0
        assert found.confusion.tolist() == [[4, 0], [0, 4]]
