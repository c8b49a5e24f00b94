"""Memory of a training: predicted from its plan before it starts, and refused where it is short."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from command import run
from voronoi import lines

from tiledlaf.model import bands
from tiledlaf.model.features import CONTEXT, Features
from tiledlaf.pool import opening

# a training with few trees, in a process of its own: predicted MiB, and the most that it held
CHILD = """
from tiledlaf.cli.main import main
from tiledlaf.model import trees

fit = trees.fit
trees.fit = lambda *given: fit(*given, iterations=2)
try:
    main()
finally:
    with open("/proc/self/status") as file:
        (line,) = (line for line in file if line.startswith("VmHWM"))
    print(int(line.split()[1]) / 1024)
"""
CASES = {
    "means": ["--no-ignore", "--steps", "2"],
    "classifier": ["--no-ignore", "--classifier", "--steps", "2", "--workers", "2"],
    "unet": [
        "--no-ignore",
        *["--learn-network", "unet", "--network-minutes", "0.3", "--steps", "2"],
    ],
}


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs /proc")
@pytest.mark.parametrize(
    "case",
    ["means", *(pytest.param(one, marks=pytest.mark.slow) for one in ("classifier", "unet"))],
)
def test_predicted(tmp_path, case):
    """What is held is at most a fifth more than predicted, and this at most half more than held."""
    if case == "unet":
        pytest.importorskip("torch", reason="PyTorch is not installed")
    (tmp_path / "raw").mkdir()
    (tmp_path / "labels").mkdir()
    for seed in range(2):
        image, labels = lines((640, 1024), cells=400, noise=0.6, seed=seed)
        colors = np.clip(80 + 80 * np.stack([image, 1 - image, image**2], axis=-1), 0, 255)
        name = tmp_path / f"raw/{seed}.tif"
        tifffile.imwrite(name, colors.astype(np.uint8), photometric="rgb")
        tifffile.imwrite(tmp_path / f"labels/{seed}.tif", labels)
    command = ["train", "model", "--images", "raw", "--labels", "labels", *CASES[case]]
    found = subprocess.run(
        [sys.executable, "-c", CHILD, *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    held = float(found.stdout.splitlines()[-1])
    (line,) = (line for line in found.stderr.splitlines() if line.startswith("memory: about"))
    predicted = float(line.split()[2])
    assert held <= 1.2 * predicted, (held, predicted)
    assert predicted <= 1.5 * held, (held, predicted)


def small(tmp_path):
    image, labels = lines((64, 64), cells=10, seed=0)
    tifffile.imwrite(tmp_path / "image.tif", image)
    tifffile.imwrite(tmp_path / "labels.tif", labels)
    given = ("--images", tmp_path / "image.tif", "--labels", tmp_path / "labels.tif")
    return tmp_path / "model", given


@pytest.mark.parametrize("term", [[], ["--classifier"]])
def test_refused(tmp_path, monkeypatch, term):
    """Before anything is computed or written."""
    model, given = small(tmp_path)
    monkeypatch.setattr(opening, "memory", lambda: 100 << 20)
    found = run("train", model, *given, "--no-ignore", *term)
    assert found.code == 2
    assert "training would need" in found.err
    assert "MiB and may use 100 MiB; take fewer images or --workers" in found.err
    assert len(found.err.splitlines()) == 1
    assert not [name for name in os.listdir(tmp_path) if name.startswith("model")]


def test_features_in_bands(monkeypatch):
    """Are those of the whole, of any part of it."""
    rng = np.random.default_rng(0)
    image, odds = rng.normal(size=(2, 1, 90, 70)).astype(np.float32)
    rich = Features((*CONTEXT.specs, ("image", "ring", 6, 1)))
    whole = rich.compute(image, odds)
    monkeypatch.setattr(bands, "BYTES", 4 * len(whole) * 70 * 13)
    for part in (None, (slice(5, 80), slice(3, 60))):
        at = part or (slice(None), slice(None))
        expected = whole[:, *at]
        rows = expected.shape[1]
        seen = [place for place, _ in bands.bands(rich, image, odds, part)]
        assert len(seen) > 5
        found = bands.joined(bands.bands(rich, image, odds, part), rows, lambda x, _: x)
        np.testing.assert_array_equal(found, expected)
