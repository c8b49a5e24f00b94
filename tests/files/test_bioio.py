"""The optional reader, on what a reader of bioio that is installed for tests can read."""

import sys

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
