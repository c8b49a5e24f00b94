"""Small trainings and their files."""

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from command import run
from voronoi import lines

from tiledlaf.model import arrays as model_arrays

SMALL = ["--size", "5", "--steps", "30"]


TRAIN = ["train", "model", "--images", "images", "--labels", "labels", *SMALL]


def write(folder, number, image, labels):
    for name, array in (("images", image), ("labels", labels)):
        (folder / name).mkdir(exist_ok=True)
        tifffile.imwrite(folder / name / f"{number}.tif", array)


def made(tmp_path_factory):
    """Six small images with labels, and the model of a training that nothing cut."""
    folder = tmp_path_factory.mktemp("made")
    for seed in range(6):
        write(folder, seed, *lines((64, 64), cells=10, seed=seed))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        found = run(*TRAIN, "--workers", "2")
        assert found.code == 0, found
        whole = Path("model").read_bytes()
        os.remove("model")
    return folder, whole, found


def same(path, whole):
    """Byte for byte; where they differ, say what."""
    if Path(path).read_bytes() != whole:
        Path("whole").write_bytes(whole)
        found, expected = (model_arrays.read_arrays(p, "model") for p in (path, "whole"))
        for key, value in expected.items():
            np.testing.assert_array_equal(found[key], value, err_msg=key)
        raise AssertionError("equal arrays, other bytes")
