"""The benchmark at its small size: all programs agree, and the table is complete."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import PIL.Image
import pytest

ROOT = Path(__file__).parents[2]
PARTS = [
    "kernels",
    "prediction",
    "forward",
    "gradient",
    "exponential",
    "discrete",
    "whole",
    "learning",
]


def start(*arguments):
    return subprocess.run(
        [sys.executable, "pipelines/benchmark.py", "--small", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    for name in ("torch", "maxflow", "matplotlib"):
        pytest.importorskip(name, reason=f"{name} is what the benchmark needs or compares with")
    folder = tmp_path_factory.mktemp("benchmark")
    found = start("--output", folder, "--only", ",".join(PARTS))
    assert found.returncode == 0, found.stderr
    return folder, found.stdout


def test_the_table_is_complete(table):
    folder, printed = table
    stored = json.loads((folder / "benchmark.json").read_text())
    rows = stored["rows"]
    names = [row["name"] for row in rows]
    assert len(names) == len(set(names)) > 25
    for word in (
        "PyTorch",
        "expm_multiply",
        "graph cut",
        "alpha-expansion",
        "map_overlap",
        "two workers",
        "bound",
        "start",
    ):
        assert any(word in name for name in names), word
    for row in rows:
        assert row["ours"] > 0
        assert row["ratio"] > 0
        assert row["name"] in printed
        assert row["goal"] is row["met"] is None  # tiny problems are not judged
    assert "left out" not in printed
    assert stored["machine"]["cores"] >= 1
    assert all(value > 0 for value in stored["limits"].values())
    with (folder / "benchmark.csv").open() as file:
        assert [row["name"] for row in csv.DictReader(file)] == names
    with PIL.Image.open(folder / "benchmark.png") as plot:
        assert plot.size[1] > 20 * len(rows)


def test_what_got_slower_is_named(table, tmp_path):
    folder, _ = table
    stored = json.loads((folder / "benchmark.json").read_text())
    for row in stored["rows"]:
        row["ratio"] *= 1000 if "expm_multiply" in row["name"] else 0.001
    (tmp_path / "before.json").write_text(json.dumps(stored))
    arguments = ["--output", tmp_path / "new", "--only", "exponential", "--check"]
    found = start(*arguments, "--compare", tmp_path / "before.json")
    assert found.returncode == 0, found.stderr
    (line,) = [line for line in found.stdout.splitlines() if line.startswith("slower")]
    assert "expm_multiply" in line


def test_a_part_that_is_unknown(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib draws the benchmark's plot")
    found = start("--output", tmp_path, "--only", "speed")
    assert found.returncode == 1
    assert "--only: expected some of kernels, " in found.stderr
