"""The pipeline on membranes: what a small start leaves, and that a second one takes it."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

pytestmark = pytest.mark.slow  # experiments: whole pipelines of many processes
ROOT = Path(__file__).parents[2]
METHODS = [
    "none",
    "Gaussian",
    "median",
    "graph cut",
    "LAF uniform",
    "LAF learned 3x3",
    "LAF learned rings",
    "second classifier",
]


def start(data, folder, *more):
    command = [sys.executable, "pipelines/membranes.py", "--small", "--sets", "isbi"]
    return subprocess.run(
        [*command, "--data", data, "--output", folder, *more],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


@pytest.fixture(scope="module")
def finished(data_folder, tmp_path_factory):
    pytest.importorskip("maxflow", reason="PyMaxflow makes the graph cuts: pip install PyMaxflow")
    if not (data_folder / "isbi2012").is_dir():
        pytest.skip(f"no isbi2012 in {data_folder}")
    folder = tmp_path_factory.mktemp("membranes")
    found = start(data_folder, folder)
    assert found.returncode == 0, found.stderr
    return folder, found


@pytest.fixture(scope="module")
def rows(finished):
    with (finished[0] / "table.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_method_has_a_row(rows, finished):
    assert [row["method"] for row in rows] == METHODS
    printed = finished[1].stdout.splitlines()
    assert [line[6:].split("  ")[0] for line in printed[1 : len(rows) + 1]] == METHODS


def test_numbers_are_in_range(rows):
    for row in rows:
        for name in ("F1 membrane", "F1 inside", "mean F1", "mean IoU", "Rand error"):
            assert 0 <= float(row[name]) <= 1
        assert 2 < float(row["error %"]) < 30
        assert float(row["s/Mpx"]) > 0


def test_tuned_methods_are_no_worse_than_none_on_validation(rows):
    found = {row["method"]: float(row["validation %"]) for row in rows}
    for name in METHODS[1:]:
        assert found[name] <= found["none"] + 0.1


def test_learned_weights_are_better_than_none_and_the_flow_without(rows):
    found = {row["method"]: float(row["validation %"]) for row in rows}
    assert found["LAF learned rings"] < found["none"]
    assert found["LAF learned 3x3"] < found["LAF uniform"]


def test_picture_shows_all(finished):
    with PIL.Image.open(finished[0] / "isbi.png") as sheet:
        assert np.asarray(sheet).std() > 20
        assert sheet.width > 5 * 128


def test_a_second_start_takes_what_is_finished(finished, data_folder):
    folder, first = finished
    before = {p: p.stat().st_mtime_ns for p in (folder / "isbi").iterdir() if p.suffix == ".json"}
    again = start(data_folder, folder)
    assert again.stdout == first.stdout
    left = {p: p.stat().st_mtime_ns for p in before if p.name != "settings.json"}
    assert left == {p: t for p, t in before.items() if p in left}


def test_other_data_is_refused(tmp_path):
    found = start(tmp_path, tmp_path)
    assert found.returncode == 2
    assert "expected images such as" in found.stderr


def test_cut_is_the_least_energy():
    pytest.importorskip("maxflow", reason="PyMaxflow makes the graph cuts: pip install PyMaxflow")
    import membranes

    rng = np.random.default_rng(0)
    p = rng.dirichlet((1, 1), (3, 4)).transpose(2, 0, 1)
    image = rng.random((3, 4)) * 100
    costs = membranes.strengths(image, 0.7, 1.0)

    def energy(labels):
        total = -np.log(np.take_along_axis(p, labels[None], 0)).sum()
        for (dy, dx), cost in costs:
            for y in range(3):
                for x in range(4):
                    if y + dy < 3 and 0 <= x + dx < 4:
                        total += cost[y, x] * (labels[y, x] != labels[y + dy, x + dx])
        return total

    every = [np.array([n >> i & 1 for i in range(12)]).reshape(3, 4) for n in range(2**12)]
    least = min(map(energy, every))
    found = membranes.cut(p, image, 0.7, 1.0, (0, 0)).astype(int) - 1
    assert energy(found) == pytest.approx(least)
