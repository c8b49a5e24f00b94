"""The pipeline on a network over a large image, on a small one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tiledlaf.files import images

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_small_image(tmp_path):
    subprocess.run(
        [
            *(sys.executable, ROOT / "pipelines/tiled_network.py", "--output", tmp_path / "out"),
            *("--edge", "700", "--tile", "256", "--repeat", "1"),
        ],
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'pipelines'}"},
        check=True,
        timeout=280,
    )
    found = json.loads((tmp_path / "out/result.json").read_text())
    assert found["same labels after a kill"] is True
    whole, loop = (
        images.open_image(str(tmp_path / "out" / name)).read((slice(0, 700),) * 2)[0]
        for name in ("whole.zarr/labels/tiledlaf", "loop.zarr")
    )
    # neither class is all there is, and regularized labels are mostly the network's
    assert 0.2 < (whole == 1).mean() < 0.8
    assert 0.6 < (whole == loop).mean() < 1
