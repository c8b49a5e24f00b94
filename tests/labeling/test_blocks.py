"""Blocks of networks that workers share through a folder of the output."""

import itertools
import shutil
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiledlaf
from tiledlaf.files import folders, images
from tiledlaf.labeling import blocks
from tiledlaf.model import opening
from tiledlaf.model.network import LOCK, Lattice, Network
from tiledlaf.model.opening import open_network
from tiledlaf.tiles import Grid

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

from made_networks import unet


@pytest.fixture
def network(tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "CORES", {2: (16,), 3: (8,)})
    return open_network(unet(tmp_path / "a.onnx"))


def image_of(shape):
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def test_a_block_is_computed_once_for_all_processes(tmp_path, network, monkeypatch):
    image, plain = images.from_array(image_of((40, 40))), Network.run
    box = (slice(None), slice(0, 40), slice(0, 40))
    expected, ran = Lattice(network, image)[box], []
    monkeypatch.setattr(Network, "run", lambda *a: ran.append(1) or plain(*a))
    np.testing.assert_array_equal(Lattice(network, image, folder=str(tmp_path))[box], expected)
    assert len(ran) == 9
    np.testing.assert_array_equal(Lattice(network, image, folder=str(tmp_path))[box], expected)
    assert len(ran) == 9
    # one that is damaged, cut or gone is computed again
    whole = (tmp_path / "0_1").read_bytes()
    (tmp_path / "0_1").write_bytes(bytes(len(whole)))
    (tmp_path / "1_1").write_bytes(whole[:-8])
    (tmp_path / "2_2").unlink()
    np.testing.assert_array_equal(Lattice(network, image, folder=str(tmp_path))[box], expected)
    assert len(ran) == 12
    assert (tmp_path / "0_1").read_bytes() == whole
    # a folder that is gone, as a disk that is full, costs time alone
    shutil.rmtree(tmp_path / "none", ignore_errors=True)
    found = Lattice(network, image, folder=str(tmp_path / "none"))[box]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.skipif(sys.platform == "win32", reason="no locks")
def test_what_another_process_computes_is_waited_for(tmp_path, network, monkeypatch):
    """Other blocks come first, and what a process that ends leaves is computed."""
    image, plain = images.from_array(image_of((40, 40))), Network.run
    box = (slice(None), slice(0, 40), slice(0, 40))
    expected, ran = Lattice(network, image)[box], []
    Lattice(network, image, folder=str(tmp_path))[box]
    whole = {name: (tmp_path / name).read_bytes() for name in ("0_0", "0_1")}
    for path in tmp_path.glob("[0-9]_[0-9]"):
        path.unlink()
    others = [(tmp_path / (name + LOCK)).open("w") for name in whole]
    for file in others:
        folders.lock(file, alone=True)

    def run(*given):
        ran.append(1)
        if len(ran) == 7:  # all but those two: one of them is made now, the other's process ends
            (tmp_path / "0_0").write_bytes(whole["0_0"])
            for file in others:
                file.close()
        return plain(*given)

    monkeypatch.setattr(Network, "run", run)
    found = Lattice(network, image, folder=str(tmp_path))[box]
    np.testing.assert_array_equal(found, expected)
    assert len(ran) == 8


@given(st.data())
def test_tiles_that_need_a_block(data):
    def number(low, high):
        return data.draw(st.tuples(st.integers(low, high), st.integers(low, high)))

    size, tile, halo, block, origin = (
        number(*r) for r in ((1, 40), (3, 20), (0, 12), (2, 25), (0, 15))
    )
    image = tuple(o + s + data.draw(st.integers(0, 9)) for o, s in zip(origin, size, strict=True))
    grid = Grid(image, origin, size, tile, halo)
    for place in itertools.product(*(range(-(-n // b)) for n, b in zip(image, block, strict=True))):
        own = [slice(p * b, (p + 1) * b) for p, b in zip(place, block, strict=True)]
        expected = {
            one.index
            for one in grid
            if all(
                w.start < o.stop and o.start < w.stop for w, o in zip(one.window, own, strict=True)
            )
        }
        found = set(itertools.product(*blocks._needing(grid, block, place)))
        # windows end at the image's border, which no block begins beyond
        assert found == expected


def test_blocks_go_when_no_tile_needs_them(tmp_path):
    network = open_network(unet(tmp_path / "a.onnx", edge=32))  # blocks of 16, in workers too
    np.save(tmp_path / "image.npy", image_of((64, 64)))
    out, seen = tmp_path / "out.zarr", []
    folder = out / "labels/tiledlaf/0" / blocks.FOLDER

    def progress(record):
        seen.append({path.name for path in folder.iterdir()})

    given = {"neighborhood": "3x3", "time": 1.0, "tile": 32}
    how = {"workers": 1, "scheduler": "processes", "progress": progress, "overview": False}
    tiledlaf.label(tmp_path / "image.npy", out, probabilities=network, **given, **how)
    assert seen[0]
    # after the first of two rows of tiles, what its second row of blocks is far from is gone
    assert not {"0_0", "0_1"} & seen[1]
    assert not folder.exists()
    expected = tiledlaf.label(image_of((64, 64)), probabilities=network, **given)
    found = images.open_image(str(out / "labels/tiledlaf")).read((slice(0, 64),) * 2)
    np.testing.assert_array_equal(found[0], expected)
