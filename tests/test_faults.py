"""What goes wrong on a cluster: each run ends with the arrays of one that nothing disturbed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import zarr
from command import run
from test_resume import RECORDS, arrays

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

# 529 tiles that take long enough to be hit
COMMAND = ["label", "image.zarr", "out.zarr", "--classes", "3", "--tile", "32",
           "--integrator", "euler", "--steps", "150"]  # fmt: skip
TILES = 529


@pytest.fixture(scope="module")
def _whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    image = np.random.default_rng(0).integers(0, 255, (736, 736), dtype=np.uint8)
    image[:, 300:] //= 3
    zarr.save_array(folder / "image.zarr", image)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        found = run(*COMMAND, "--scheduler", "threads")
    assert found.code == 0, found
    return folder, arrays(folder / "out.zarr")


@pytest.fixture
def whole(_whole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.symlink(_whole[0] / "image.zarr", "image.zarr")
    return _whole[1]


def start(*options):
    return subprocess.Popen(
        [sys.executable, "-m", "tiledlaf", *COMMAND, *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def ended(fault, times, whole):
    """Compare with the undisturbed run and print a row."""
    now = arrays("out.zarr")
    different = sum(int((now[path] != array).sum()) for path, array in whole.items())
    lines = [json.loads(line) for line in RECORDS.read_text().splitlines()]
    done = [tuple(r["tile"]) for r in lines if r["state"] == "done"]
    lost, again = TILES - len(set(done)), len(done) - len(set(done))
    print(f"\n{fault} | {times} | lost {lost} | redone {again} | different pixels {different}")
    assert now.keys() == whole.keys()
    assert (different, lost) == (0, 0)
    assert not list(Path("out.zarr").rglob("*.partial"))
    return again


def test_workers_are_killed(whole):
    process, killed = start("--scheduler", "processes", "--workers", "2"), 0
    while process.poll() is None:
        time.sleep(2)
        if not RECORDS.exists():
            continue
        workers = [
            p for p in psutil.Process(process.pid).children(recursive=True)
            if any("spawn_main" in word for word in p.cmdline())
        ] if process.poll() is None else []  # fmt: skip
        for worker in workers[killed % 2 : killed % 2 + 1]:
            worker.send_signal(signal.SIGKILL)
            killed += 1
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert killed > 2
    assert ended("worker killed", killed, whole) == 0


def test_two_runs_at_one_time(whole):
    both = [start("--scheduler", "threads", "--workers", "1") for _ in range(2)]
    for process in both:
        _, err = process.communicate()
        assert process.returncode == 0, err
    ended("two runs at one time", 1, whole)
