"""What goes wrong with workers, files and clocks: each run ends with the arrays of one left alone.

Each test prints a row: the fault, how often it came, tiles lost, tiles done again, pixels that
differ. Tiles done again are those in flight, never those with a record; they are counted where
tiles begin. Other faults have tests elsewhere:

- Ctrl-C and SIGTERM, with threads and processes: test_resume.py::test_signals (default set)
- SIGTERM to a run of deploy/run.sh, SSH hosts lost, SLURM: a node set down, scancel, time limit and
  requeue: test_deploy.py
- object stores: test_stores.py, the tests of a server
- a training cut at each place of it: test_training.py::test_interrupted
"""

import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import processes
import psutil
import pytest
import trainings
import zarr
from command import contents, run
from distributed import Client
from faults import FAULTY, PROCESSES, begun, completed, done, kill_in_turn, lines, noted, row
from runs import RECORDS, arrays, check_arrays
from trainings import TRAIN, same

from tiledlaf.model.arrays import read_arrays

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

COMMAND = ["label", "image.zarr", "out.zarr", "--classes", "3", "--tile", "32"]
THREADS = ["--scheduler", "threads", "--workers", "2"]
TILES = 529
BATCH = TILES // 16  # tiles of a task
GOES_ON = "; the same command completes the output\n"
ON = "; the same command goes on from the last checkpoint"  # of a training


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
    return folder, arrays(folder / "out.zarr"), files(folder / "out.zarr")


@pytest.fixture
def whole(_whole, tmp_path, monkeypatch):
    """Arrays and files of a run left alone; the current folder holds the image."""
    monkeypatch.chdir(tmp_path)
    os.symlink(_whole[0] / "image.zarr", "image.zarr")
    return _whole[1:]


def files(store):
    return {name: data for name, data in contents(store).items() if "jsonl" not in name}


def start(fault, *options, command=COMMAND):
    return subprocess.Popen(
        [sys.executable, FAULTY, *command, *options],
        env=os.environ | {"FAULT": fault},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process, code=0):
    """Wait for it; lines on stderr without those of progress."""
    _, err = process.communicate()
    assert process.returncode == code, err
    return re.sub(r".* left( at most)?\n", "", err)


def until(condition, process):
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


class Starts:
    """Starts of one command on one output; what each finds done it must not begin."""

    def __init__(self):
        self._found = []

    def __call__(self, fault, *options):
        self._found.append((len(begun()), {str(tile) for tile in done()}))
        return start(fault, *options)

    def none_again(self):
        lines = begun()
        for since, known in self._found:
            assert not known.intersection(lines[since:])


def kill(process):
    """Kill it, and see that none of its workers goes on alone."""
    children = processes.below(process.pid)
    process.kill()
    process.communicate()
    assert not psutil.wait_procs(children, timeout=60)[1]


def ended(fault, times, whole):
    """Compare with the undisturbed run, its files too; how many tiles were begun again."""
    expected, bytes_ = whole
    again = completed(fault, times, expected, TILES)
    assert files("out.zarr").keys() == bytes_.keys()  # no part of a file is left
    assert {n for n, data in files("out.zarr").items() if data != bytes_[n]} <= {"zarr.json"}
    return again


def test_workers_are_killed(whole):
    process = start("slow_writes", *PROCESSES)
    killed = kill_in_turn(process, 3.0, lambda: len(begun()), BATCH)
    end(process)
    assert killed > 2
    again = ended("worker killed, every 3 s", killed, whole)
    assert 0 < again <= 2 * BATCH * killed
    assert len(lines()) == TILES


def test_the_client_is_killed(whole):
    starts, killed = Starts(), 4
    for _ in range(killed):
        process, before = starts("none", *PROCESSES), len(done())
        until(lambda before=before: len(done()) > before, process)
        kill(process)
    end(starts("none", *PROCESSES))
    starts.none_again()
    again = ended("client killed, and started again", killed, whole)
    assert again <= 2 * 2 * BATCH * killed
    assert len(lines()) == TILES


def test_files_are_lost_in_a_power_cut(whole):
    """What the system had not yet brought to the disk is short, empty or missing."""
    starts = Starts()
    process = starts("none", *PROCESSES)
    until(lambda: len(done()) > 100, process)
    kill(process)
    RECORDS.write_bytes(RECORDS.read_bytes()[:-9])
    known = sorted(done())[::20]
    for number, (y, x) in enumerate(known):
        file = Path(f"out.zarr/{'' if number % 2 else 'labels/tiledlaf/'}0/c/{y}/{x}")
        if number % 3 == 0:
            file.unlink()
        else:
            os.truncate(file, (file.stat().st_size - 1) * (number % 3 - 1))
    since = len(begun())
    end(start("none", *PROCESSES))
    counts = Counter(begun()[since:])
    assert all(counts[str(tile)] == 1 for tile in known)
    assert set(counts.values()) == {1}
    assert len(lines()) == TILES + len(known)
    ended("power cut: files short, empty, missing", len(known), whole)


@pytest.fixture
def cluster():
    """Starts a Dask scheduler, and workers with a fault; they end with the test."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{s.getsockname()[1]}"
    started = []

    def program(*arguments, **environment):
        with Path(f"dask{len(started)}.log").open("w") as log:
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", "dask", *arguments, "--no-dashboard"],
                    env=os.environ | environment,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )
        return started[-1]

    def open_(fault="none", *options):
        port = address.rsplit(":", 1)[1]
        scheduler = program("scheduler", "--host", "127.0.0.1", "--port", port)
        worker = program(
            "worker",
            address,
            "--host",
            "127.0.0.1",
            "--nworkers",
            "2",
            "--nthreads",
            "1",
            "--preload",
            str(FAULTY),
            *options,
            FAULT=fault,
        )
        with Client(address, timeout=60) as client:
            client.wait_for_workers(2, timeout=120)
        return scheduler, worker, ["--scheduler", address]

    yield open_
    left = [p for one in started if one.poll() is None for p in (*processes.below(one.pid), one)]
    for process in left:
        processes.kill(process)
    for one in started:
        one.wait()


def test_the_scheduler_is_killed(whole, cluster):
    starts = Starts()
    scheduler, worker, where = cluster("slow_writes")
    process = starts("none", *where)
    until(lambda: len(done()) > 50, process)
    scheduler.kill()
    killed = time.monotonic()
    assert end(process, 1) == (
        f"tiledlaf: error: scheduler {where[1]}: the connection broke{GOES_ON}"
    )
    assert time.monotonic() - killed < 60
    kill(worker)
    end(starts("none", *PROCESSES))
    starts.none_again()
    ended("scheduler killed", 1, whole)


def test_all_workers_are_lost(whole, cluster):
    starts = Starts()
    _, worker, where = cluster("slow_writes")
    process = starts("impatient", *where)
    until(lambda: len(done()) > 50, process)
    worker.send_signal(signal.SIGTERM)
    assert end(process, 1) == (f"tiledlaf: error: scheduler {where[1]}: no worker for 3 s{GOES_ON}")
    end(starts("none", *PROCESSES))
    starts.none_again()
    ended("all workers lost", 1, whole)


def test_a_tile_needs_too_much_memory(whole, cluster, monkeypatch):
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", "1")  # of 3
    _, _, where = cluster("memory_never_suffices", "--memory-limit", "900MiB")
    err = end(start("none", *where), 1)
    assert err == (
        "tiledlaf: tile (5, 7) (y 160:192, x 224:256): ChildProcessError: "
        "6 workers died on it (too little memory?)\n"
    )
    assert len(done()) == TILES - 1
    failed = [r for r in lines() if r["state"] == "failed"]
    assert [(r["tile"], r["retries"]) for r in failed] == [([5, 7], 2)]
    end(start("none", *PROCESSES))
    assert len(lines()) == TILES + 1
    ended("worker out of memory, always by one tile", 6, whole)


def test_a_tile_needs_too_much_memory_twice(whole, cluster):
    _, _, where = cluster("memory_is_short_twice", "--memory-limit", "900MiB")
    assert end(start("none", *where)) == ""
    assert Path("second").exists()
    ended("worker out of memory, by chance", 2, whole)


@pytest.mark.parametrize("scheduler", ["threads", "processes"])
@pytest.mark.parametrize("fault", ["failing_writes", "short_writes", "slow_writes"])
def test_writes(whole, fault, scheduler):
    starts, options = Starts(), ["--scheduler", scheduler, "--workers", "2"]
    for _ in range(5):
        process = starts(fault, *options)
        err = process.communicate()[1]
        if process.returncode == 0:
            break
        assert process.returncode == 1, err
    assert process.returncode == 0
    starts.none_again()
    retries, failed = sum(r.get("retries", 0) for r in lines()), len(noted("failed"))
    again = ended(f"{fault.replace('_', ' ')}, {scheduler}", failed or "all", whole)
    assert (failed > 20) == (again > 20) == (retries > 20) == (fault != "slow_writes")


@pytest.fixture
def small(tmp_path):
    """Moves to a small file system of its own, with the inputs; what is noted goes elsewhere."""

    def move():
        folder.mkdir()
        found = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", folder], capture_output=True
        )
        if found.returncode:
            pytest.skip("NOT TESTED: no right to mount a small file system")
        for path in [p for p in tmp_path.iterdir() if p.is_symlink()]:
            os.symlink(path, folder / path.name)
        for name in ("begun", "failed", "written"):
            os.symlink(tmp_path / name, folder / name)
        os.chdir(folder)

    folder = tmp_path / "small"
    yield move
    os.chdir(tmp_path)
    if folder.is_mount():
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk(whole, small):
    small()
    starts = Starts()
    process = starts("slow_writes", *PROCESSES)
    until(lambda: len(done()) > 50, process)
    filled = subprocess.run(["dd", "if=/dev/zero", "of=ballast"], capture_output=True)
    assert b"No space left" in filled.stderr
    err = end(process, 1)
    assert "No space left on device" in err
    assert "Traceback" not in err
    before = done()
    assert 50 < len(before) < TILES
    os.remove("ballast")
    end(starts("none", *PROCESSES))
    starts.none_again()
    ended("disk full, then space made", 1, whole)


def test_the_input_changes(whole):
    """Between two starts: refused, until it is again what it was."""
    source = Path(os.readlink("image.zarr"))
    os.remove("image.zarr")
    shutil.copytree(source, "image.zarr")  # with its times
    starts = Starts()
    process = starts("none", *THREADS)
    until(lambda: len(done()) > 100, process)
    kill(process)
    before = contents("out.zarr")
    zarr.open_array("image.zarr", mode="r+")[0, 0] += 1
    changed = [n for n, data in contents("image.zarr").items() if data != contents(source)[n]]
    err = end(start("none", *THREADS), 2)
    assert "another image, region or state of the input's files" in err
    assert err.count("\n") == 1
    assert contents("out.zarr") == before
    (name,) = changed
    shutil.copy2(source / name, Path("image.zarr", name))
    end(starts("none", *THREADS))
    starts.none_again()
    ended("input changed, and changed back", 1, whole)


def test_reads_fail_once(whole):
    end(start("reads_fail_once", *PROCESSES))
    retries = sum(r.get("retries", 0) for r in lines())
    assert ended("reads fail once each", len(noted("failed")), whole) == retries == TILES


def test_a_read_fails_always(whole):
    starts = Starts()
    err = end(starts("reads_of_a_tile_fail", *PROCESSES), 1)
    assert re.fullmatch(
        r"tiledlaf: tile \(5, 7\) \(y 160:192, x 224:256\): OSError: \S*image.zarr: "
        r"pixels cannot be read, .*Input/output error\n",
        err,
    )
    assert len(done()) == TILES - 1
    end(starts("none", *PROCESSES))
    starts.none_again()
    assert ended("reads of one tile fail", len(noted("failed")), whole) == 3


def test_the_clock_jumps(whole):
    began = time.monotonic()
    assert end(start("jumping_clock", *PROCESSES)) == ""
    took = time.monotonic() - began
    found = lines()
    times = [r["time"] for r in found]
    jumps = sum(abs(b - a) > 3600 for a, b in itertools.pairwise(times))
    assert jumps > 0
    after = [r["after"] for r in found]
    assert after == sorted(after)
    assert 0 <= after[0] <= after[-1] < took
    assert all(0 <= s < took for r in found for s in r["seconds"])
    assert ended("clock jumps two hours", jumps, whole) == 0


def test_two_runs_at_one_time(whole):
    both = [start("none", "--scheduler", "threads", "--workers", "1") for _ in range(2)]
    for process in both:
        end(process)
    ended("two runs at one time", 1, whole)


def test_of_two_runs_one_is_killed(whole):
    """While it writes what the other has done: that stays whole."""
    threads = ["--scheduler", "threads", "--workers", "1"]
    both = [start("slow_writes", *threads), start("killed_in_a_write", *threads)]
    end(both[1], -signal.SIGKILL)
    end(both[0])
    check_arrays(whole[0])
    end(start("none", *threads))  # which removes the part of a file
    ended("of two runs one killed in a write", 1, whole)


# Training: the same model, byte for byte


@pytest.fixture(scope="module")
def _learned(tmp_path_factory):
    return trainings.made(tmp_path_factory)


@pytest.fixture
def model(_learned, tmp_path, monkeypatch):
    """Bytes of the model of a training left alone; the current folder holds the images."""
    monkeypatch.chdir(tmp_path)
    for name in ("images", "labels"):
        os.symlink(_learned[0] / name, name)
    return _learned[1]


def trained(fault, times, model):
    same("model", model)
    assert not list(Path().glob("model.*"))
    row(f"training: {fault}", times, "", "", "0 bytes")


def test_training_workers_are_killed(model):
    process = start("none", *PROCESSES, command=TRAIN)
    killed = kill_in_turn(process, 0.0, lambda: len(noted("written")))
    end(process)
    assert killed > 1
    trained("worker killed, at each checkpoint", killed, model)


def test_training_the_client_is_killed(model):
    killed = 0
    for _ in range(2):
        before = os.stat("model.checkpoint").st_mtime_ns if killed else 0
        process = start("none", *PROCESSES, command=TRAIN)
        until(
            lambda before=before: (
                Path("model.checkpoint").exists()
                and os.stat("model.checkpoint").st_mtime_ns > before
            ),
            process,
        )
        kill(process)
        killed += 1
    end(start("none", *PROCESSES, command=TRAIN))
    trained("client killed, and started again", killed, model)


def test_training_two_runs_at_one_time(model):
    both = [start("none", "--workers", "1", command=TRAIN) for _ in range(2)]
    for process in both:
        end(process)
    trained("two runs at one time", 1, model)


def stops(fault, words, *options):
    """A training that ends with this line and without a model; the last validated step it shows."""
    process = start(fault, "--workers", "2", *options, command=TRAIN)
    _, err = process.communicate()
    assert process.returncode == 1, err
    # the others tell of progress, of memory, or of the shares of label values
    (line,) = [x for x in err.splitlines() if x.startswith("tiledlaf: ")]
    assert "Traceback" not in err
    assert re.fullmatch(f"tiledlaf: error: {words}{ON}", line)
    assert not list(Path().glob("model*partial"))
    assert not Path("model").exists()
    return max(map(int, re.findall(r"^step (\d+)", err, re.MULTILINE)), default=None)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("failing_writes", r"\[Errno 5\] Input/output error"),
        ("short_writes", r"\[Errno 5\] Input/output error"),
        ("full_disk", r"\[Errno 28\] No space left on device"),
    ],
)
def test_training_writes(model, small, fault, words):
    """Of each checkpoint but the first one, and of the model, a start each."""
    if fault == "full_disk":
        small()
    # after these the rounds end; what was chosen is kept, and learning begins again, from all tiles
    for step in (20, 30, 0, 20):
        stops(fault, words)
        assert held() == step
        Path("ballast").unlink(missing_ok=True)
    end(start(fault, *THREADS, command=TRAIN))
    Path("ballast").unlink(missing_ok=True)
    trained(fault.replace("_", " "), len(noted("failed")) or 3, model)


def held():
    """Steps of the checkpoint."""
    return json.loads(str(read_arrays("model.checkpoint", "checkpoint")["state"]))["step"]


@pytest.mark.parametrize(
    ("fault", "scheduler"),
    [("slow_writes", "threads"), ("reads_fail_once", "threads"), ("jumping_clock", "processes")],
)
def test_training_goes_on(model, fault, scheduler):
    """With what passes, in one start; no clock on the wall tells when an hour is over."""
    options = ["--workers", "2", "--scheduler", scheduler, "--limit", "60"]
    err = end(start(fault, *options, command=TRAIN))
    assert "tiledlaf: " not in err
    assert "time limit" not in err
    times = len(noted("failed"))
    assert (times > 30) == (fault == "reads_fail_once")
    trained(fault.replace("_", " "), times or "all the time", model)


def test_training_a_read_fails_always(model):
    """Before the first checkpoint, and after it."""
    words = r"\S*/images/3\.tif: pixels cannot be read, OSError: .*Input/output error"
    stops("reads_of_an_image_fail", words)
    assert not Path("model.checkpoint").exists()
    stops("short_writes", r"\[Errno 5\] Input/output error")
    stops("reads_of_an_image_fail", words, "--scheduler", "processes")
    assert held() == 20
    end(start("none", *THREADS, command=TRAIN))
    trained("reads of one image fail", 2, model)


def test_training_a_step_needs_too_much_memory(model, cluster, monkeypatch):
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", "0")
    _, _, where = cluster("memory_never_suffices", "--memory-limit", "900MiB")
    words = rf"scheduler {where[1]}: 2 workers died on one task \(too little memory\?\)"
    stops("few_deaths", words, *where)
    assert held() == 20
    end(start("none", *THREADS, command=TRAIN))
    trained("worker out of memory, always in one step", 2, model)


def test_training_the_scheduler_is_killed(model, cluster):
    scheduler, _, where = cluster("none")
    process = start("none", *where, command=TRAIN)
    until(lambda: Path("model.checkpoint").exists(), process)
    scheduler.kill()
    assert end(process, 1).endswith(
        f"tiledlaf: error: scheduler {where[1]}: the connection broke{ON}\n"
    )
    end(start("none", *PROCESSES, command=TRAIN))
    trained("scheduler killed", 1, model)
