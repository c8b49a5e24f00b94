"""Neighborhoods by physical distance, from the images' pixel sizes."""

import numpy as np
import pytest
import tifffile
import zarr
from command import run

import tiledlaf
from tiledlaf.files import images
from tiledlaf.files.image import FileWarning
from tiledlaf.files.lengths import micrometers_of
from tiledlaf.flow import stencil
from tiledlaf.model import model as model_file
from tiledlaf.model import neighborhoods

DISK = stencil.ball(15, (45, 5, 5))  # 29 pixels of the plane alone
LINE = "neighborhood 15nm: 29 pixels within 1 x 7 x 7 (z, y, x), of 0.045 x 0.005 x 0.005 µm each"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)


def volume(name, sizes=(45, 5, 5), seed=0):
    """Two halves with noise, and their labels beside it, with pixels of these nanometers."""
    truth = np.ones((3, 32, 64), np.uint8)
    truth[..., 32:] = 2
    pixels = 90 * truth + np.random.default_rng(seed).normal(0, 40, truth.shape)
    size = {f"PhysicalSize{a}": s for a, s in zip("ZYX", sizes, strict=True) if s}
    units = {f"{key}Unit": "nm" for key in size}
    about = {"axes": "ZYX", **size, **units}
    data = np.clip(pixels, 0, 255).astype(np.uint8)
    tifffile.imwrite(f"{name}.ome.tif", data, ome=True, metadata=about, photometric="minisblack")
    tifffile.imwrite(f"{name}.truth.tif", truth, photometric="minisblack")
    return images.open_image(f"{name}.ome.tif")


def test_lengths_as_people_write_them():
    same = ("15nm", "15 nm", "0.015um", ".015µm", "0.015 μm", "150Å", "0.000015mm", "15.nm")
    assert {round(micrometers_of(text), 9) for text in same} == {0.015}
    for text in ("3x3", "15", "15nmm", "nm", "-15nm", "rings:3,7", "1e3nm", "15 n m", "9" * 20):
        assert micrometers_of(text) is None, text


def test_sections_that_are_far_apart_are_left_out():
    image = volume("a")
    assert neighborhoods.choose("15nm", [image]) == (DISK, [LINE])
    assert stencil.radius(neighborhoods.choose("0.045um", [image])[0]) == (1, 9, 9)
    near = neighborhoods.choose("8nm", [volume("cubes", (5, 5, 5))])[0]
    assert near == stencil.ball(8, (5, 5, 5))
    assert len(near) == 19  # 5 along an axis, 7.07 across a face; 8.66 across the cube


def test_what_is_no_distance_is_as_before():
    image = volume("a")
    assert neighborhoods.choose("3x3", [image]) == (stencil.parse("3x3", 3), [])
    assert neighborhoods.choose([(0, 0), (0, 1)], [image]) == (((0, 0, 0), (0, 0, 1)), [])


@pytest.mark.parametrize("sizes", [(0, 0, 0), (0, 5, 5)])
def test_pixel_sizes_must_be_known(sizes):
    message = "b.ome.tif: a `neighborhood` of 15nm expects an image with a pixel size along z, y, x"
    with pytest.raises(ValueError, match=message):
        neighborhoods.choose("15nm", [volume("a"), volume("b", sizes)])


def test_pixel_sizes_may_be_stated():
    volume("a", (0, 0, 0))
    sizes = (0.045, 0.005, 0.005)
    image = images.open_image("a.ome.tif", input_pixel_size=sizes)
    assert neighborhoods.choose("15nm", [image]) == (DISK, [LINE])
    assert images.open_image("a.ome.tif", input_pixel_size=sizes, z=1).scale == sizes[1:]
    # y and x alone leave z as it was: not known
    with pytest.raises(ValueError, match="expects an image with a pixel size along z, y, x"):
        neighborhoods.choose("15nm", [images.open_image("a.ome.tif", input_pixel_size=0.005)])
    with pytest.warns(FileWarning, match=r"neighborhood 1um: 7 pixels within 5 x 3 \(y, x\)"):
        tiledlaf.label(np.eye(16), classes=2, input_pixel_size=(0.5, 1), neighborhood="1um")
    with pytest.raises(ValueError, match="along y and x, got z as well"):
        tiledlaf.label(np.eye(16), classes=2, input_pixel_size=(1, 1, 1))
    given = ["label", "a.ome.tif", "out.zarr", "--classes", "2", "--neighborhood", "15nm"]
    found = run(*given, "--input-pixel-size", "0.045,0.005,0.005", "--dry-run")
    assert found.code == 0, found.err
    assert LINE in found.err
    found = run(*given, "--input-pixel-size", "0.045,thin", "--dry-run")
    assert "--input-pixel-size expects micrometers such as 0.5, or 0.05,0.004,0.004" in found.err
    found = run(*given, "--input-pixel-size", "1,1,1,1", "--dry-run")
    assert "two along y and x, or three along z, y and x, got 4 of them" in found.err


def test_pixel_sizes_must_be_alike():
    with pytest.raises(ValueError, match=r"one pixel size, got 0\.045 to 0\.09 µm along z: bring"):
        neighborhoods.choose("15nm", [volume("a"), volume("b", (90, 5, 5))])
    # what counts as one pixel size elsewhere
    near, alone = [volume("a"), volume("b", (45, 5.01, 5))], [volume("a")]
    assert neighborhoods.choose("16nm", near)[0] == neighborhoods.choose("16nm", alone)[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1nm", "--neighborhood 1nm, in micrometers: a ball needs a distance of a pixel or more, "),
        ("1m", "--neighborhood 1m, in micrometers: a ball has at most 10000 offsets, got 1e+06 "),
        ("2parsec", "a distance such as 1.5um, got '2parsec'"),
    ],
)
def test_refused_in_one_line(text, words):
    volume("a")
    found = run("label", "a.ome.tif", "out.zarr", "--classes", "2", "--neighborhood", text)
    assert found.code == 2
    assert words in found.err
    assert found.err.count("\n") == 1


def test_label():
    volume("a")
    common = ["label", "a.ome.tif", "--prototypes", "two.csv", "--no-overview"]
    np.savetxt("two.csv", [[90], [180]])
    found = run(*common, "near.zarr", "--neighborhood", "15nm")
    assert found.code == 0, found.err
    assert f"a.ome.tif: {LINE}" in found.err
    near = zarr.open_array("near.zarr/labels/tiledlaf/0", mode="r")[:]
    pixels = images.open_image("a.ome.tif")
    data = pixels.read(tuple(map(slice, pixels.grid)))[0]
    expected = tiledlaf.label(data, prototypes=[[90], [180]], neighborhood=DISK, axes="zyx")
    np.testing.assert_array_equal(near, expected)
    alone = tiledlaf.label(data, prototypes=[[90], [180]], neighborhood="1x1", axes="zyx")
    assert (near != alone).any()


def test_a_model_keeps_the_offsets():
    for seed, name in enumerate("abc"):
        volume(name, seed=seed)
    given = ["--images", "?.ome.tif", "--labels", "?.truth.tif", "--size", "2", "--steps", "2"]
    found = run("train", "m.model", *given, "--neighborhood", "15nm", "--workers", "1")
    assert found.code == 0, found.err
    assert LINE in found.out + found.err
    assert model_file.load("m.model").offsets == DISK
    # whatever the pixels of an image that it labels
    volume("d", (0, 0, 0))
    found = run("label", "d.ome.tif", "out.zarr", "--model", "m.model", "--no-overview")
    assert found.code == 0, found.err


def test_estimated_weights_keep_the_offsets():
    volume("a")
    found = run(
        *["estimate", "a.ome.tif", "a.truth.tif", "weights", "--neighborhood", "15nm"],
        *["--steps", "2", "--workers", "1"],
    )
    assert found.code == 0, found.err
    assert LINE in found.out + found.err
    found = run("label", "a.ome.tif", "out.zarr", "--weights", "weights", "--no-overview")
    assert found.code == 0, found.err
    assert "29 pixels, radius 0 x 3 x 3" in run("info", "out.zarr").out
