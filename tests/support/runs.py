"""Runs of `label` that are compared with an undisturbed one."""

from pathlib import Path

import numpy as np
import zarr
from command import run

RECORDS = Path("out.zarr/labels/tiledlaf/0/tiledlaf.jsonl")


def undisturbed(folder, *options):
    """Write an image to a folder and label it in one go; arrays of the output, and the summary."""
    image = np.random.default_rng(0).integers(0, 255, (640, 640), dtype=np.uint8)
    image[:, 300:] //= 3
    zarr.save_array(folder / "image.zarr", image)
    found = run("label", folder / "image.zarr", folder / "out.zarr", *options)
    assert found.code == 0, found
    return arrays(folder / "out.zarr"), found.out


def arrays(store):
    members = zarr.open_group(store, mode="r").members(max_depth=None)
    return {path: node[:] for path, node in members if isinstance(node, zarr.Array)}


def check_arrays(expected):
    """The output has the arrays of another one."""
    now = arrays("out.zarr")
    assert now.keys() == expected.keys()
    for path, array in expected.items():
        np.testing.assert_array_equal(now[path], array, err_msg=path)
