"""Runs that are cut and started again: the same labels as those of a run left alone."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import psutil
import pytest
import zarr
from command import contents, run
from processes import below
from runs import RECORDS, arrays, check_arrays, undisturbed

from tiledlaf import label
from tiledlaf.files import levels, ngff, nodes, stores
from tiledlaf.labeling import claiming
from tiledlaf.labeling.output import Output
from tiledlaf.labeling.records import Appender
from tiledlaf.model import sampling

OPTIONS = ["--classes", "3", "--confidence"]
COMMAND = ["label", "image.zarr", "out.zarr", *OPTIONS]
FEW, MANY = ["--tile", "128"], ["--tile", "32"]  # with few, tiles write level 1 themselves
TILES = {128: 25, 32: 400}


@pytest.fixture(scope="module")
def _whole(tmp_path_factory):
    """A folder with an image, and the output and summary of a run that nothing cut."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, *undisturbed(folder, *OPTIONS, *FEW)


@pytest.fixture
def whole(_whole, tmp_path, monkeypatch):
    """Arrays of the uncut run; the current folder holds the image."""
    monkeypatch.chdir(tmp_path)
    os.symlink(_whole[0] / "image.zarr", "image.zarr")
    return _whole[1]


def records():
    """States of the tiles in the order of their records; a line may be cut."""
    lines = RECORDS.read_text().splitlines() if RECORDS.exists() else []
    found = [json.loads(line) for line in lines if line.endswith("}")]
    return [(tuple(r["tile"]), r["state"]) for r in found if "tile" in r]


def completed(expected, *options, tile=128):
    """Run the command to its end and compare; returns what it printed."""
    found = run(*COMMAND, "--tile", tile, *options)
    assert found.code == 0, found
    assert f"tiles: {TILES[tile]} done, 0 skipped, 0 failed" in found.out
    check_arrays(expected)
    assert set(Counter(records()).values()) == {1}  # no tile was done twice
    assert len(records()) == TILES[tile]
    return found.out


def cut_after(monkeypatch, count, *places, options=FEW):
    """Let the count-th call of one of some functions end with Ctrl-C."""
    calls = iter(range(count + 1))

    def wrapped(function):
        def call(*args, **kwargs):
            result = function(*args, **kwargs)
            if next(calls, None) == count - 1:
                raise KeyboardInterrupt
            return result

        return call

    with monkeypatch.context() as patch:
        for owner, name in places:
            patch.setattr(owner, name, wrapped(getattr(owner, name)))
        found = run(*COMMAND, *options)
    assert found.code == 130, found
    line = "tiledlaf: interrupted; the same command completes the output"
    assert found.err.strip().splitlines()[-1] == line  # on a slow machine progress comes before


@pytest.mark.parametrize(
    ("how", "code", "scheduler"),
    [
        (signal.SIGINT, 130, "threads"),
        (signal.SIGTERM, 143, "threads"),
        (signal.SIGKILL, -signal.SIGKILL, "threads"),
        (signal.SIGINT, 130, "processes"),
        (signal.SIGTERM, 143, "processes"),
    ],
)
def test_signals(whole, how, code, scheduler):
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tiledlaf",
            *COMMAND,
            *MANY,
            "--workers",
            "2",
            "--scheduler",
            scheduler,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        while len(records()) < 5 and process.poll() is None:
            time.sleep(0.005)
        workers = below(process.pid)
        assert (len(workers) >= 2) == (scheduler == "processes")
        # the terminal sends Ctrl-C to all processes, kill to one
        (os.killpg if how == signal.SIGINT else os.kill)(process.pid, how)
        out, err = process.communicate(timeout=30)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert (process.returncode, out) == (code, "")
    words = {130: "interrupted", 143: "terminated"}
    lines = [line for line in err.splitlines() if line and "Mpx/s" not in line]
    assert lines == [
        f"tiledlaf: {words[c]}; the same command completes the output" for c in words if c == code
    ]
    assert not psutil.wait_procs(workers, timeout=10)[1]  # none stays behind
    assert 5 <= len(records()) < TILES[32]
    completed(whole, tile=32)


def test_a_finished_run_has_nothing_to_do(whole):
    def without_time(text):
        return [x for x in text.splitlines() if not x.startswith(("seconds", "throughput"))]

    first = completed(whole)
    before = contents("out.zarr")
    written = {p: p.stat().st_mtime_ns for p in Path("out.zarr/labels/tiledlaf/0").rglob("*")}
    assert without_time(completed(whole)) == without_time(first)
    assert contents("out.zarr") == before
    assert written == {p: p.stat().st_mtime_ns for p in written}


@pytest.mark.parametrize("count", range(1, 14))
def test_cut_while_arrays_are_made(whole, monkeypatch, count):
    cut_after(monkeypatch, count, (nodes, "write_group"), (nodes, "bring"))
    assert records() == []
    completed(whole)


def test_settings_may_change_until_the_first_tile(whole, monkeypatch):
    cut_after(monkeypatch, 3, (ngff, "add_label"), (levels.Pyramid, "create"))
    assert run(*COMMAND, *FEW, "--time", "1").code == 0


def test_cut_while_levels_are_made(whole, monkeypatch):
    cut_after(monkeypatch, 1, (levels, "finish"), options=MANY)
    completed(whole, tile=32)


@pytest.fixture
def part(whole, monkeypatch):
    """A run cut after 5 of its 25 tiles; gives the arrays to come to."""
    cut_after(monkeypatch, 5, (Appender, "add"))
    assert len(records()) == 5
    return whole


def test_a_resumed_run_keeps_tile_and_prototypes(part, monkeypatch):
    def kmeans(*_):
        raise AssertionError("prototypes are in the store already")

    monkeypatch.setattr(sampling, "kmeans", kmeans)
    completed(part, "--tile", "64", "--workers", "1", "--scheduler", "threads")


def test_labels_without_an_image_keep_their_tile(whole, monkeypatch):
    cut_after(monkeypatch, 5, (Appender, "add"), options=[*FEW, "--no-image"])
    expected = {path: array for path, array in whole.items() if "/" in path}
    completed(expected, "--no-image", "--tile", "64")


def test_labels_that_are_not_done_are_0(part):
    labels = zarr.open_array("out.zarr/labels/tiledlaf/0", mode="r")[:]
    done = {tile for tile, _ in records()}
    for tile in np.ndindex(5, 5):
        block = labels[tuple(slice(128 * i, 128 * i + 128) for i in tile)]
        # tiles in flight were still written, their records not
        assert (block > 0).all() if tile in done else len(np.unique(block > 0)) == 1
    assert (labels == 0).any()


def test_a_record_cut_by_a_kill(part):
    *lines, last = RECORDS.read_bytes().splitlines(keepends=True)
    assert b'"stage": "ended"' in last  # which a kill does not leave
    RECORDS.write_bytes(b"".join(lines)[:-20])
    assert "complete: 4 of 25 tiles (16.0 %)" in run("info", "out.zarr").out
    completed(part)


def test_dry_run_counts_what_is_left(part):
    before = contents("out.zarr")
    found = run(*COMMAND, "--dry-run")
    assert "tasks: 20, one a tile (5 done before)" in found.out
    assert contents("out.zarr") == before


def test_names_are_kept_and_may_be_changed(part):
    Path("names.txt").write_text("low\nmiddle\nhigh\n")
    assert "2 middle " in completed(part, "--names", "names.txt")
    assert "2 middle " in run(*COMMAND).out
    attributes = zarr.open_group("out.zarr/labels/tiledlaf", mode="r").attrs["ome"]
    names = [entry["name"] for entry in attributes["image-label"]["properties"]]
    assert names == ["low", "middle", "high"]


def test_a_disk_that_is_full(whole, monkeypatch):
    def add(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Appender, "add", add)
        found = run(*COMMAND, *FEW)
    assert found.code == 1
    assert "No space left on device; the same command completes the output" in found.err
    completed(whole)


def test_overwrite_replaces_these_labels_and_nothing_else(whole):
    command = ["label", "image.zarr", "out.zarr", "--classes", "2", *FEW]
    assert run(*command).code == 0
    assert run(*command, "--name", "other").code == 0
    before = contents("out.zarr")
    assert run(*command, "--overwrite", "--time", "1").code == 0
    after = contents("out.zarr")
    assert after.keys() == before.keys()
    changed = {name for name in before if before[name] != after[name]}
    assert changed
    assert all(name.startswith("labels/tiledlaf/") for name in changed)


def test_runs_that_start_at_one_time(tmp_path):
    """None breaks what another one makes or has written."""
    image = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    zarr.save_array(tmp_path / "image.zarr", image)

    def started(name, barrier):
        barrier.wait(60)
        label(tmp_path / "image.zarr", tmp_path / name, classes=3, tile=32, confidence=True)

    def files(name):
        return {k: v for k, v in contents(tmp_path / name).items() if not k.endswith("jsonl")}

    started("whole", Barrier(1))
    with ThreadPoolExecutor(4) as pool:
        for name in map(str, range(10)):
            list(pool.map(started, [name] * 4, [Barrier(4)] * 4))
            assert files(name) == files("whole")


def test_nothing_is_replaced_that_a_run_writes(part):
    """But the same command joins it."""
    with RECORDS.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # as whoever adds records
        before = contents("out.zarr")
        found = run(*COMMAND, "--overwrite", "--time", "9")
        assert found.code == 2
        assert "labels/tiledlaf is being written by a run: end it before --overwrite" in found.err
        assert contents("out.zarr") == before
        assert run(*COMMAND, "--overwrite").code == 0
        check_arrays(part)
    assert run(*COMMAND, "--overwrite", "--time", "9").code == 0


def between(monkeypatch, owner, name, action):
    """Do something once, just before a call of a function."""
    function = getattr(owner, name)

    def call(*args, **kwargs):
        monkeypatch.setattr(owner, name, function)
        action()
        return function(*args, **kwargs)

    monkeypatch.setattr(owner, name, call)


@pytest.mark.parametrize("options", [["--classes", "3"], ["--classes", "2"]])
def test_another_run_comes_while_old_labels_are_deleted(whole, monkeypatch, options):
    """Which may take long: the same run, or one of other settings."""
    assert (
        run(
            "label", "image.zarr", "out.zarr", "--classes", "2", "--time", "1", *FEW, "--confidence"
        ).code
        == 0
    )
    command = ["label", "image.zarr", "out.zarr", *options, "--confidence", *FEW, "--overwrite"]
    found = []
    between(monkeypatch, stores.shutil, "rmtree", lambda: found.append(run(*command)))
    found.append(run(*COMMAND, *FEW, "--overwrite"))
    same = "3" in options
    assert [f.code for f in found] == ([0, 0] if same else [0, 2]), found
    if same:
        check_arrays(whole)
    else:
        assert "labels/tiledlaf was removed or begun anew during this run" in found[1].err
        done = run(*command[:-1])
        assert done.code == 0
        assert done.out.splitlines()[0] == found[0].out.splitlines()[0]


def test_the_same_run_with_overwrite_works_already(whole, monkeypatch):
    """Begun after this one was planned, when its lock could not be tried."""
    assert run(*COMMAND, *FEW).code == 0
    before = contents("out.zarr")
    with RECORDS.open("a") as file:

        def lock():
            fcntl.flock(file, fcntl.LOCK_SH)

        between(monkeypatch, claiming, "start", lock)
        assert run(*COMMAND, *FEW, "--overwrite").code == 0
    after = contents("out.zarr")
    for found in (before, after):
        found.pop("labels/tiledlaf/0/tiledlaf.jsonl")
    assert after == before


def test_another_run_of_other_settings_comes_while_arrays_are_made(whole, monkeypatch):
    other = ["label", "image.zarr", "out.zarr", "--classes", "2", *FEW, "--confidence"]
    found = []
    between(monkeypatch, levels.Pyramid, "create", lambda: found.append(run(*other)))
    found.append(run(*COMMAND, *FEW))
    assert [f.code for f in found] == [0, 2], found
    assert "another run has just begun labels/tiledlaf" in found[1].err


def test_runs_of_two_names_start_with_other_tiles(whole, monkeypatch):
    between(
        monkeypatch, claiming, "start", lambda: label("image.zarr", "out.zarr", classes=2, tile=64)
    )
    command = ["label", "image.zarr", "out.zarr", "--classes", "3", "--name", "b", *FEW]
    found = run(*command)
    assert found.code == 2
    assert "another run has just begun it with tiles of [64, 64]" in found.err
    assert run(*command).code == 0
    found = arrays("out.zarr")
    np.testing.assert_array_equal(found["0"], whole["0"])
    np.testing.assert_array_equal(found["labels/b/0"], whole["labels/tiledlaf/0"])


def test_what_a_run_of_another_name_took_out_of_the_lists(whole, monkeypatch):
    """Having read them before this one wrote."""

    def took():
        root = zarr.open_group("out.zarr")
        root.attrs["ome"] = {"version": "0.5"}
        root["labels"].attrs["ome"] = {"version": "0.5", "labels": ["b"]}

    between(monkeypatch, Output, "finish", took)
    assert run(*COMMAND, *FEW).code == 0
    assert ngff.label_names("out.zarr") == ["b", "tiledlaf"]
    assert ngff.read_multiscale("out.zarr").paths == ("0", "1")


def test_cut_while_old_labels_are_deleted(whole, monkeypatch):
    assert run(*COMMAND, *FEW, "--time", "1").code == 0

    def cut(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stores.shutil, "rmtree", cut)
        assert run(*COMMAND, *FEW, "--overwrite").code == 130
    assert list(Path("out.zarr").rglob("*.partial"))
    assert run(*COMMAND, *FEW).code == 0
    check_arrays(whole)
    assert not list(Path("out.zarr").rglob("*.partial"))


@pytest.mark.parametrize("by", ["another run", "hand"])
def test_labels_are_replaced_while_a_run_writes_them(whole, monkeypatch, by):
    coarse = levels.coarse

    def replaced(*args):
        monkeypatch.setattr(levels, "coarse", coarse)
        shutil.rmtree("out.zarr/labels/tiledlaf")
        if by == "another run":
            label("image.zarr", "out.zarr", classes=2, overwrite=True)
        return []

    monkeypatch.setattr(levels, "coarse", replaced)
    found = run(*COMMAND, *FEW)
    assert found.code == (2 if by == "another run" else 1)
    assert "out.zarr: labels/tiledlaf was removed or begun anew during this run" in found.err
    assert found.err.count("tiledlaf: error") == 1
    if by == "hand":
        assert run(*COMMAND, *FEW).code == 0
        check_arrays(whole)


def test_other_labels_of_a_store_take_its_tiles(whole):
    """The image is copied in shards of one tile: parts of shards must never be written at once."""
    assert run("label", "image.zarr", "out.zarr", "--classes", "2", "--tile", "64").code == 0
    shutil.rmtree("out.zarr/0/c")  # copied again, by all tiles of the second run
    more = ["--name", "b", "--tile", "32", "--workers", "4"]
    assert run("label", "image.zarr", "out.zarr", "--classes", "3", *more).code == 0
    store = zarr.open_group("out.zarr", mode="r")
    assert store["labels/b/0"].chunks == (64, 64)
    np.testing.assert_array_equal(store["0"][:], whole["0"])
