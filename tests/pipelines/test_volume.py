"""The pipeline on volumes: its table, and what a small start leaves and takes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import volume

from tiledlaf.flow import stencil

ROOT = Path(__file__).parents[2]
SMALL = ("--sections", "2", "--edge", "48", "--pixels", "2000", "--flow", "uniform")


def test_a_row():
    cell = {
        "way": "volume",
        "confusion": [[0, 30, 10], [0, 20, 140]],
        "error": 0.15,
        "neighbors": 9,
        "chosen": "uniform",
        "compared": {"none": 0.2, "uniform": 0.155},
        "minutes": 1.25,
        "seconds": 0.5,
    }
    row = volume.table([cell]).splitlines()[-1]
    assert row == "| volume | | | 20.00, 15.50,  | uniform (9) | 15.00 | 0.667 | 1.2 | 0.50 |"
    row = volume.table([cell | {"equal": {"confusion": [[0, 4, 4], [0, 0, 8]], "error": 0.25}}])
    assert row.splitlines()[-1].startswith("| volume | 25.00 | 0.667 | 20.00")
    alone = volume.table([cell | {"way": volume.NONE}]).splitlines()[-1]
    assert alone == "| probabilities alone | | | | | 15.00 | 0.667 | | |"


def test_neighborhoods_differ():
    rings = volume.WAYS["volume, rings:3,7 and one pixel above and below"]
    assert stencil.fit(rings, 3) == rings
    assert stencil.radius(rings) == (1, 7, 7)
    assert len(rings) == 27
    # a distance far below that of sections stays within them
    assert stencil.radius(stencil.ball(0.015, volume.SIZES)) == (0, 3, 3)


def test_probabilities_alone():
    truth = np.array([[1, 2, 2, 1]], np.uint8)
    p = np.array([[[0.9, 0.2, 0.6, 0.8]], [[0.1, 0.8, 0.4, 0.2]]])
    found = volume.measure(volume.NONE, [truth] * 2, [truth] * 2, [p] * 2, 1, {})
    assert found["error"] == 0.25
    assert volume.equal(volume.ALONE, [truth] * 2, [truth] * 2, [p] * 2, 1) == {}


@pytest.mark.filterwarnings("ignore:array. neighborhood 15nm:tiledlaf.files.image.FileWarning")
def test_equal_weights():
    truth = np.ones((16, 16), np.uint8)
    truth[:, 8:] = 2
    p = np.stack([np.where(truth == 1, 0.9, 0.1), np.where(truth == 1, 0.1, 0.9)])
    p[:, 3, 3] = 0.3, 0.7  # one pixel that its neighbors correct
    for way, neighborhood in volume.WAYS.items():
        if neighborhood is not None:
            found = volume.equal(way, [truth] * 4, [truth] * 4, [p] * 4, 2)
            assert found["equal"]["error"] == 0


@pytest.mark.slow
def test_a_small_start(tmp_path):
    raw, labels = tmp_path / "vnc/stack1/raw", tmp_path / "vnc/stack1/labels"
    raw.mkdir(parents=True)
    labels.mkdir()
    rng = np.random.default_rng(0)
    for number in range(14):
        truth = np.full((64, 64), 255, np.uint8)
        truth[:, number : number + 9] = truth[20:26] = 0
        pixels = np.clip(truth * 0.4 + 70 + rng.normal(0, 30, truth.shape), 0, 255)
        PIL.Image.fromarray(pixels.astype(np.uint8)).save(raw / f"{number:02d}.tif")
        PIL.Image.fromarray(truth).save(labels / f"labels000000{number:02d}.png")
    command = [
        sys.executable,
        "pipelines/volume.py",
        "--data",
        tmp_path,
        "--output",
        tmp_path / "o",
    ]

    def start():
        found = subprocess.run(
            [*command, *SMALL], cwd=ROOT, capture_output=True, text=True, env=os.environ
        )
        assert found.returncode == 0, found.stderr
        return found

    def measured(found):
        return [line for line in found.stderr.splitlines() if line in volume.WAYS]

    first = start()
    rows = first.stdout.splitlines()[2:]
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows] == list(volume.WAYS)
    assert measured(first) == list(volume.WAYS)
    cells = sorted((tmp_path / "o").rglob("*.json"))
    assert [json.loads(file.read_text())["way"] for file in cells] == list(volume.WAYS)
    cells[2].unlink()
    again = start()  # only what is missing
    assert measured(again) == ["volume"]
    assert len(again.stdout.splitlines()) == len(first.stdout.splitlines())
