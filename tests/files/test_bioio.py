"""The optional reader, on what a reader of bioio that is installed for tests can read."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from tiledlaf import label
from tiledlaf.files import image as image_files
from tiledlaf.files import images
from tiledlaf.files.formats.bioio import Bioio


@pytest.fixture
def store(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (2, 60, 70)).astype(np.uint8)
    label(pixels, tmp_path / "out.zarr", classes=2, axes="cyx")
    return str(tmp_path / "out.zarr"), pixels


def test_windows(store):
    path, pixels = store
    reader = Bioio()
    found = image_files.make(path, reader, reader.look(path, 0, None))
    assert (found.axes, found.shape, found.dtype) == ("cyx", (2, 60, 70), "uint8")
    window = (slice(3, 40), slice(20, 70))
    np.testing.assert_array_equal(found.read(window), pixels[:, *window])


@pytest.mark.parametrize("missing", [True, False])
def test_what_cannot_be_read(tmp_path, monkeypatch, missing):
    path = tmp_path / "scan.czi"
    path.write_bytes(b"ZISRAWFILE")
    if missing:
        monkeypatch.setitem(sys.modules, "bioio", None)
    words = "need bioio and a reader of theirs" if missing else "bioio cannot read it"
    with pytest.raises(ValueError, match=words):
        images.open_image(path)


def test_scenes_time_points_and_channels(tmp_path, monkeypatch):
    """Of a file with several scenes, which bioio's own reader of arrays stands for."""
    import bioio

    rng = np.random.default_rng(1)
    small = rng.integers(0, 255, (1, 2, 1, 9, 8)).astype(np.uint8)
    large = rng.integers(0, 255, (3, 2, 1, 30, 40)).astype(np.uint8)
    read = bioio.BioImage
    sizes = SimpleNamespace(Z=None, Y=0.5, X=0.25)
    monkeypatch.setattr(read, "physical_pixel_sizes", sizes)

    def opened(path):
        names = [["DAPI", "CD3"]] * 2
        return read([small, large], channel_names=names)

    monkeypatch.setattr(bioio, "BioImage", opened)
    path = str(tmp_path / "scan.czi")
    (tmp_path / "scan.czi").touch()
    assert [part.shape[-2:] for part in images.parts(path)] == [(9, 8), (30, 40)]
    with pytest.warns(image_files.FileWarning, match="series 1, the largest, is read of 0 'Image"):
        image = images.open_image(path, time_point=2, channels=["CD3"])
    assert (image.axes, image.scale, image.units) == ("tcyx", (0.5, 0.25), ("micrometer",) * 2)
    window = (slice(3, 9), slice(0, 40))
    np.testing.assert_array_equal(image.read(window), large[2, 1:, 0, 3:9])
    image = images.open_image(path, series="0")
    np.testing.assert_array_equal(image.read((slice(0, 9), slice(0, 8))), small[0, :, 0])
    with pytest.raises(ValueError, match="`series` to be one of"):
        images.open_image(path, series="2")


@pytest.mark.parametrize(("suffix", "turned"), [(".lif", False), (".czi", True)])
def test_colors(tmp_path, monkeypatch, suffix, turned):
    """All samples of a pixel are read, in CZI the last one first."""
    import bioio

    pixels = np.random.default_rng(1).integers(0, 255, (30, 40, 3)).astype(np.uint8)
    read = bioio.BioImage
    monkeypatch.setattr(bioio, "BioImage", lambda path: read(pixels, dim_order="YXS"))
    path = tmp_path / f"scan{suffix}"
    path.touch()
    image = images.open_image(path)
    assert (image.axes, image.color, image.stored_channels) == ("yxc", True, 3)
    found = image.read((slice(0, 9), slice(5, 40)))
    expected = pixels[..., ::-1] if turned else pixels
    np.testing.assert_array_equal(found, np.moveaxis(expected[:9, 5:], -1, 0))


def test_axes_that_are_none_of_ours_are_named(tmp_path, monkeypatch):
    import bioio

    pixels, read = np.zeros((2, 30, 40, 3), np.uint8), bioio.BioImage
    monkeypatch.setattr(bioio, "BioImage", lambda path: read(pixels, dim_order="CYXS"))
    (tmp_path / "scan.lif").touch()
    with pytest.raises(ValueError, match=r"or colors, got c 2, y 30, x 40, s 3"):
        images.open_image(tmp_path / "scan.lif")
