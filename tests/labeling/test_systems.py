"""One machine without POSIX: no locks, no resource usage."""

import subprocess
import sys

import numpy as np
import zarr

import tiledlaf

CODE = """
import sys
sys.modules["fcntl"] = sys.modules["resource"] = None
import numpy as np
import tiledlaf
from tiledlaf.labeling import worker
worker.Path = lambda _: type("Nowhere", (), {"is_file": lambda self: False})()  # no /proc
summary = tiledlaf.label("image.npy", "out.zarr", classes=2, axes="yx", tile=32, workers=1)
again = tiledlaf.label("image.npy", "out.zarr", classes=2, axes="yx", workers=1)
print(summary.tiles["done"], summary.fresh, again.fresh)
"""


def test_without_posix(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)
    np.save(tmp_path / "image.npy", image)
    found = subprocess.run(
        [sys.executable, "-c", CODE], cwd=tmp_path, capture_output=True, text=True
    )
    assert found.stdout == "4 4096 0\n", found.stderr
    labels = zarr.open_array(tmp_path / "out.zarr/labels/tiledlaf/0")[:]
    np.testing.assert_array_equal(labels, tiledlaf.label(image, classes=2))
