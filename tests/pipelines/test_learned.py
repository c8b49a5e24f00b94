"""The pipeline on networks: its table, and what a small start leaves and takes."""

import json
import subprocess
import sys
from pathlib import Path

import networks
import numpy as np
import PIL.Image
import pytest
from support import judging, quality_page

ROOT = Path(__file__).parents[2]


def judged(wrong, seconds, trained):
    truth = np.array([1, 1, 1, 2, 2, 2], np.uint8)
    labels = truth.copy()
    labels[:wrong] = 2
    row = judging.numbers(labels, np.ones(6), truth, 2, 0) | {"name": "a"}
    about = {"seed": 0, "images": [row], "seconds": seconds, "tuning": 1}
    return about | {"chosen": {"training": trained}}


def test_the_table_has_costs_and_differences():
    cells = {"network": [judged(1, 2, 30)], "both, flow": [judged(0, 3, 90)]}
    head, *rows = networks.rows_of("stained", cells)
    first, second = (dict(zip(head, row, strict=True)) for row in rows)
    assert (first["error %"], second["error %"]) == ("16.67", "0.00")
    assert first["error minus network"] == ""
    assert second["error minus network"].startswith("-16.67")
    assert (second["training, s/Mpx"], second["labeling, s/Mpx"]) == ("90", "3.00")
    made = networks.page({"stained": cells}, "a command")
    assert made.startswith(networks.BEGIN)
    assert made.endswith(networks.END)


def start(data, folder, *more):
    command = [sys.executable, "pipelines/networks.py", "--small", "--sets", "stained"]
    return subprocess.run(
        [*command, "--data", data, "--output", folder, *more],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_a_small_start_and_a_second_one(data_folder, tmp_path):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    if not (data_folder / "dsb2018").is_dir():
        pytest.skip(f"no dsb2018 in {data_folder}")
    methods = [name for name in networks.METHODS if name != "network, graph cut"]
    given = ("--methods", "|".join(methods))
    first = start(data_folder, tmp_path, *given)
    assert first.returncode == 0, first.stderr
    stems = {quality_page.stem(name, 0) for name in methods}
    cells = {p.stem: p for p in (tmp_path / "stained").glob("*-0.json")}
    assert set(cells) == stems | {"learned-0"}
    for stem in stems:
        about = json.loads(cells[stem].read_text())
        assert about["chosen"].get("training", 1) > 0
        assert about["seconds"] > 0
        assert all(0 < row["error"] < 0.7 for row in about["images"])
    with PIL.Image.open(tmp_path / "costs.png") as plot:
        assert np.asarray(plot.convert("L")).std() > 10
    cells["both-0"].unlink()
    times = {name: path.stat().st_mtime_ns for name, path in cells.items() if path.exists()}
    again = start(data_folder, tmp_path, *given)
    assert again.returncode == 0, again.stderr
    assert "learning" not in again.stdout
    assert all(cells[name].stat().st_mtime_ns == then for name, then in times.items())
    assert cells["both-0"].exists()
    # but for what its labeling took, the rows are the same
    rows = [
        [line for line in one.stdout.splitlines() if line[:7] != "| both "]
        for one in (first, again)
    ]
    tables = [lines[lines.index(networks.BEGIN) :] for lines in rows]
    assert tables[0] == tables[1]
