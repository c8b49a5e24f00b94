"""How far a run is: what `tiledlaf status` says of runs that are going, cut, failed, complete."""

import contextlib
import fcntl
import importlib.util
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
import zarr
from command import contents, run
from distributed import LocalCluster
from processes import listening, tree

from tiledlaf.files import levels
from tiledlaf.labeling import records
from tiledlaf.model import arrays as model_arrays
from tiledlaf.pool import dask as dask_pool
from tiledlaf.reports import status
from tiledlaf.results import pictures

RECORDS = Path("out.zarr/labels/tiledlaf/0/tiledlaf.jsonl")
LABEL = ["label", "image.zarr", "out.zarr", "--prototypes", "levels.csv"]
MASKED = [*LABEL, "--tile", "32", "--mask", "mask.npy"]
# 144 tiles that take some seconds
LONG = [*LABEL, "--tile", "32", "--integrator", "euler", "--steps", "100", "--workers", "1"]
TILES = 144
needs_bokeh = pytest.mark.skipif(
    importlib.util.find_spec("bokeh") is None, reason="bokeh is missing (extra watch)"
)


@pytest.fixture
def image(tmp_path, monkeypatch):
    """384 x 384 floats; the mask hides two tiles of 32 x 32."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).normal(0.5, 0.2, (384, 384)).astype(np.float32)
    zarr.save_array("image.zarr", pixels)
    mask = np.ones(pixels.shape, np.uint8)
    mask[64:96, 320:] = 0
    np.save("mask.npy", mask)
    Path("levels.csv").write_text("0.2\n0.8\n")
    return zarr.open_array("image.zarr")


def shown(*options, code=0):
    """The text of a status."""
    found = run("status", "out.zarr", *options)
    assert (found.code, found.err) == (code, ""), found
    return found.out


def read(*options, code=0):
    """The one object that --json prints of the one labels there are."""
    found = json.loads(shown("--json", *options, code=code))
    assert found["path"] == "out.zarr"
    assert found["training"] is None
    (labels,) = found["labels"]
    return labels


def whole():
    """All records; a line may not be whole yet."""
    found = RECORDS.read_text().splitlines() if RECORDS.exists() else []
    return [json.loads(line) for line in found if line.endswith("}")]


def lines():
    """Those of tiles."""
    return [line for line in whole() if "tile" in line]


def write(made):
    RECORDS.write_text("".join(json.dumps(line) + "\n" for line in made))


def test_complete(image):
    assert run(*MASKED, "--scheduler", "processes", "--workers", "2").code == 0
    before = contents("out.zarr")
    found, made = read(), lines()
    assert found["name"] == "tiledlaf"
    assert found["state"] == "complete"
    assert found["tiles"] == {"all": TILES, "done": 142, "skipped": 2, "failed": 0, "left": 0}
    assert found["megapixels"] == [0.147456] * 2
    assert (found["seconds_left"], found["retries"], found["errors"]) == (0, 0, [])
    assert found["rate"] > 0
    assert 0 <= found["quiet"] < 60
    assert {w["name"] for w in found["workers"]} == {r["worker"] for r in made}
    for worker in found["workers"]:
        own = [r for r in made if r["worker"] == worker["name"]]
        assert worker["tiles"] == len(own)
        sums = np.sum([r["seconds"] for r in own if "seconds" in r], axis=0)
        np.testing.assert_allclose(list(worker["seconds"].values()), sums, atol=1e-3)
        assert worker["peak_mib"] == max(r.get("peak_mib", 0) for r in own)
    longest = sorted((sum(r["seconds"]) for r in made if "seconds" in r), reverse=True)
    assert [sum(s["seconds"].values()) for s in found["slowest"]] == longest[:5]
    assert contents("out.zarr") == before
    text = shown()
    assert text.startswith(
        "labels/tiledlaf: complete\n"
        "tiles: 144 of 144 (100.0 %): 142 done, 2 skipped, 0 failed, 0 left; tried again: 0\n"
        "megapixels: 0.1 of 0.1, "
    )
    table = text.split("\n\n")[1].splitlines()
    assert table[0].split("  ")[0] == "worker"
    assert [len(line.split(" s  ")[0]) for line in table[1:]] == [
        len(table[1].split(" s  ")[0])
    ] * 2


def test_a_place_is_one_of_the_image(image):
    assert run(*LABEL, "--tile", "64", "--region", "100:228,32:128").code == 0
    made = lines()
    for record in made:
        record["seconds"] = [0.1, 0.2, 7.0 if record["tile"] == [1, 1] else 0.1]
    write(made)
    slowest = read()["slowest"]
    assert len(slowest) == 4
    assert (slowest[0]["place"], slowest[0]["tile"]) == ("y 164:228, x 96:128", [1, 1])
    assert slowest[0]["seconds"] == {"read": 0.1, "compute": 0.2, "write": 7.0}


def test_failed_tiles(image):
    image[100, 40:42] = np.nan
    assert run(*LABEL, "--tile", "128").code == 1
    found = read(code=1)
    assert found["state"] == "failed"
    assert found["tiles"] == {"all": 9, "done": 8, "skipped": 0, "failed": 1, "left": 0}
    assert found["megapixels"] == [0.131072, 0.147456]
    assert found["errors"] == [
        "tile (0, 0) (y 0:128, x 0:128): image: expected finite values, got 2 NaN or inf, the "
        "first at channel 0, pixel (100, 40) (leave them out by `mask` or `no_data` nan)"
    ]
    text = shown(code=1)
    assert "labels/tiledlaf: failed; the same command tries them again\n" in text
    told = found["errors"][0].replace("`mask` or `no_data`", "--mask or --no-data")
    assert text.endswith(f"failed: 1\n  {told}\n")


def start():
    return subprocess.Popen(
        [sys.executable, "-m", "tiledlaf", *LONG, "--scheduler", "threads"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def first(process):
    """Wait for the first records."""
    while process.poll() is None and not lines():
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()


def test_going(image):
    process, seen = start(), []
    first(process)
    while process.poll() is None:
        seen.append(read())
        time.sleep(0.2)
    assert process.returncode == 0, process.communicate()
    process.communicate()
    assert {s["state"] for s in seen if s["tiles"]["left"]} == {"going"}
    # from the last tile on lower levels are made, then the process ends
    assert {s["state"] for s in seen} <= {"going", "complete"}
    assert len(seen) > 3
    done = [s["tiles"]["done"] for s in seen]
    assert done == sorted(done)
    assert 0 < done[0] < TILES
    assert all(s["tiles"]["done"] + s["tiles"]["left"] == TILES for s in seen)
    timed = [s for s in seen if s["tiles"]["left"] and s["rate"]]
    assert timed[0]["seconds_left"] > timed[-1]["seconds_left"] > 0
    assert read()["state"] == "complete"
    assert {r["state"] for r in lines()} == {"done"}
    assert len(lines()) == TILES


def test_cut_by_a_kill(image):
    process = start()
    first(process)
    assert read()["state"] == "going"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    found = read(code=1)
    assert found["state"] == "cut"
    assert 0 < found["tiles"]["done"] < TILES
    assert found["tiles"]["left"] == TILES - found["tiles"]["done"]
    assert "labels/tiledlaf: cut; the same command completes it\n" in shown(code=1)
    assert run(*LONG).code == 0
    found = read()
    assert (found["state"], found["tiles"]["done"]) == ("complete", TILES)
    assert len(found["workers"]) == 2


@pytest.fixture
def half(image):
    """Records of 16 tiles of 96 x 96: two of an earlier run, five of the last one and its hour."""
    assert run(*LABEL, "--tile", "96").code == 0
    kept = {tuple(r["tile"]): r for r in lines()}
    now = time.time()

    def made(tile, after, state="done", **more):
        run, worker = ("here:1", "a:1") if after is None else ("here:2", "b:2")
        record = {**kept[tile], "worker": worker, "run": run, "state": state, "time": now - 3600}
        return record | {"after": after or 5.0, "time": now - 3600 - (after is None)} | more

    return [
        made((0, 0), None),
        made((0, 1), None, state="failed", error="bad pixels"),
        made((0, 1), 50.0, retries=2),  # where kernels are compiled
        made((0, 2), 75.0),
        made((0, 3), 80.0, state="failed", error="worse pixels"),
        made((1, 0), 90.0),
        made((1, 1), 120.0),
    ]


@pytest.fixture
def coarse(image):
    """The command for an image with a level that tiles do not write."""
    zarr.save_array("large.zarr", np.random.default_rng(0).normal(0.5, 0.2, (640, 640)))
    return ["label", "large.zarr", *LABEL[2:], "--tile", "50", "--scheduler", "threads"]


def test_cut_while_levels_are_made(coarse, monkeypatch):
    def cut(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(levels, "finish", cut)
        assert run(*coarse).code == 130
    found = read(code=1)
    assert (found["state"], found["tiles"]["done"], found["tiles"]["left"]) == ("cut", 169, 0)
    words = "all tiles are done, but lower levels may be missing; the same command completes it"
    assert shown(code=1).startswith(f"labels/tiledlaf: cut; {words}\n")
    missing = "169 of 169 tiles (100.0 %)\n  lower levels: not complete yet\n"
    assert missing in run("info", "out.zarr").out
    assert run(*coarse).code == 0
    assert read()["state"] == "complete"
    assert "lower levels" not in run("info", "out.zarr").out
    # a run that comes later may have written a tile after its levels
    write([*whole(), lines()[0]])
    assert read(code=1)["state"] == "cut"
    assert run(*coarse).code == 0
    assert read()["state"] == "complete"
    before = contents("out.zarr")
    assert run(*coarse).code == 0
    assert contents("out.zarr") == before


def test_levels_that_take_long(coarse, monkeypatch):
    """The run is seen to be at work, though no tile is left."""
    monkeypatch.setattr(records, "SECONDS", 0.0)
    monkeypatch.setattr(records, "SHARE", 0.0)
    assert run(*coarse).code == 0
    stages = [line["stage"] for line in whole() if "stage" in line]
    assert (stages[0], stages[-1]) == ("claimed", "complete")
    assert stages[1] == "begun"
    assert set(stages[2:-1]) == {"levels"}
    assert whole()[-2]["stage"] == "levels"


def test_an_output_of_an_earlier_version(coarse):
    """It says nothing of levels, and is believed."""
    assert run(*coarse).code == 0
    write(lines())
    assert read()["state"] == "complete"
    before = contents("out.zarr")
    assert run(*coarse).code == 0
    assert contents("out.zarr") == before


def test_speed_and_time_left(half):
    write(half)
    with records.appending(RECORDS):
        going = read()
    cut = read(code=1)
    tile = 96 * 96 / 1e6
    for found in (going, cut):
        assert found["tiles"] == {"all": 16, "done": 5, "skipped": 0, "failed": 1, "left": 10}
        assert found["rate"] == pytest.approx(4 * tile / 60, abs=1e-6)
        assert found["retries"] == 2
        assert 3600 <= found["quiet"] < 3700
        assert [(w["name"], w["tiles"]) for w in found["workers"]] == [("a:1", 1), ("b:2", 5)]
    assert (going["state"], cut["state"]) == ("going", "cut")
    # one that failed in this run waits for the next
    assert going["seconds_left"] == pytest.approx(10 * 60 / 4, abs=0.1)
    assert cut["seconds_left"] == pytest.approx(11 * 60 / 4, abs=0.1)


@pytest.mark.parametrize(
    ("host", "age", "longest", "state"),
    [
        ("elsewhere", 10, 1, "going"),
        ("elsewhere", 100, 1, "cut"),
        ("elsewhere", 100, 30, "going"),
        ("elsewhere", 130, 30, "cut"),
        (platform.node(), 10, 1, "cut"),  # a lock of this host's would be seen
    ],
)
def test_runs_of_other_hosts_are_judged_by_their_silence(half, host, age, longest, state):
    after, now = 0.0, time.time()
    for i, record in enumerate(half):
        after += longest if i == 3 else 0.5
        record |= {"run": f"{host}:1", "time": now - age, "after": after}
    write(half)
    assert read(code=0 if state == "going" else 1)["state"] == state


@pytest.fixture
def no_locks(monkeypatch):
    """A file system that has none."""

    def flock(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)


def test_a_file_system_without_locks(half, no_locks):
    for record in half:
        record["time"] = time.time()
    write(half)
    with records.appending(RECORDS):
        assert read()["state"] == "going"


def fail_after(error, *stages):
    with records.appending(RECORDS) as log:
        for stage in stages:
            log.mark(stage)
            assert read()["state"] == "going"
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_a_run_that_ends_early_says_so(half, no_locks, error):
    write(half)
    with pytest.raises(error):
        fail_after(error, records.BEGUN)
    assert read(code=1)["state"] == "cut"
    before = RECORDS.read_bytes()
    with pytest.raises(error):
        fail_after(error)
    assert RECORDS.read_bytes() == before  # nor was anything begun


class Clock:
    """Both clocks of a run, which stand still."""

    now = 0.0

    def time(self):
        return self.now

    monotonic = time


@pytest.mark.parametrize(("tile", "hours"), [(0.5, 1), (20, 20), (240, 100)])
def test_batches_of_records_come_late(monkeypatch, tile, hours):
    """On an object store a run that is at work never reads as cut, and one that was cut does."""
    clock, written = Clock(), []

    def write(_, batch):
        written.extend(json.loads(line) for line in batch.splitlines())

    monkeypatch.setattr(records, "clock", clock)
    log = records.Batches(SimpleNamespace(write=write, entries=lambda: []))
    log.mark(records.BEGUN)
    silent = 0.0
    while clock.now < hours * 3600:
        clock.now += tile
        if log.due():  # never was it silent for longer
            quiet = clock.now - written[-1]["time"]
            assert status._going(None, written, quiet, True)
            silent = max(silent, quiet)
        log.add({"tile": [round(clock.now)], "state": "done"})
    assert silent > 0.01 * clock.now - tile
    # at most a minute or four tiles later than it must be
    assert not status._going(None, written, 1.02 * silent + max(60, 4 * tile), True)


def test_a_run_that_has_come_to_its_end_is_not_at_work():
    """Where no lock is seen, either."""
    run = [{"stage": "begun", "after": 0.0}, {"tile": [0], "after": 1.0}]
    assert status._going(None, run, 0.0, True)
    for stage in ("complete", "ended"):
        assert not status._going(None, [*run, {"stage": stage, "after": 2.0}], 0.0, True)


def test_two_runs_hold_their_records_together(half):
    write(half)
    with contextlib.ExitStack() as later:
        with records.appending(RECORDS):
            later.enter_context(records.appending(RECORDS))
            assert records.is_locked(RECORDS)
        assert records.is_locked(RECORDS)
    assert records.is_locked(RECORDS) is False


def test_before_the_first_tile(half):
    RECORDS.unlink()
    assert read(code=1)["state"] == "cut"
    with records.appending(RECORDS):
        found = read()
        assert "last record: none\n" in shown()
    assert (found["state"], found["rate"], found["seconds_left"]) == ("going", None, None)


def test_many_workers_are_shown_by_host(half):
    made = []
    for number in range(40):
        made.append(half[0] | {"worker": f"node{number % 2}:{number}", "seconds": [1, 2, 3]})
        made[-1] |= {"tile": [number // 4 % 4, number % 4], "peak_mib": 100 + number}
    write(made[:16])
    assert "node1:15" in shown(code=0)
    write(made[:32])  # the tiles of 16 are of other workers now
    assert len(read()["workers"]) == 16
    write([r | {"tile": [i, 0]} for i, r in enumerate(made)])
    found = status.Labels(
        "a",
        "cut",
        {"all": 99, "done": 40, "skipped": 0, "failed": 30, "left": 29},
        (1, 2),
        None,
        None,
        3.0,
        0,
        [
            status.Worker(
                f"n{i % 2}:{i}", 2, {"read": 1.0, "compute": 2.0, "write": 3.0}, i, 5.0 + i
            )
            for i in range(40)
        ],
        [],
        ["bad"] * 30,
    )
    from tiledlaf.reports import text as report_text

    text = "\n".join(report_text.status(status.Status("out.zarr", [found])))
    assert re.search(r"^host +tiles .*\nn0 +40 +20\.0 +40\.0 +60\.0 +38  5 s$", text, re.MULTILINE)
    assert re.search(r"^n1 +40 +20\.0 +40\.0 +60\.0 +39  6 s$", text, re.MULTILINE)
    assert text.count("  bad") == 16
    assert text.endswith("and 14 more (--json has them all)")


def test_labels_by_name(image):
    assert run(*LABEL, "--tile", "128").code == 0
    assert run(*LABEL, "--name", "b", "--time", "1").code == 0
    assert [one["name"] for one in json.loads(shown("--json"))["labels"]] == ["tiledlaf", "b"]
    assert re.findall("^labels/.*", shown(), re.MULTILINE) == [
        "labels/tiledlaf: complete",
        "labels/b: complete",
    ]
    assert read("--name", "b")["name"] == "b"
    found = run("status", "out.zarr", "--picture", "map.png")
    assert (found.code, found.out) == (2, "")
    assert "choose a --name from tiledlaf, b" in found.err
    RECORDS.unlink()
    assert run("status", "out.zarr").code == 1
    assert run("status", "out.zarr", "--name", "b").code == 0


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("nothing", "nothing: no such file or folder"),
        ("folder", "folder: expected an output of tiledlaf with labels, or a model"),
        ("image.zarr", "image.zarr: expected an output of tiledlaf with labels, or a model"),
        ("levels.csv", "levels.csv: expected an output of tiledlaf with labels, or a model"),
    ],
)
def test_not_an_output(image, path, words):
    Path("folder").mkdir()
    found = run("status", path)
    assert (found.code, found.out) == (2, "")
    assert found.err == f"tiledlaf: error: {words}\n"


def test_map_of_tiles(image):
    image[40, 40] = np.nan
    assert run(*MASKED).code == 1
    made = [r for r in lines() if r["tile"][0] < 11]
    write(made)
    assert "7 left" not in shown("--picture", "map.png", code=1)
    pixels = np.asarray(PIL.Image.open("map.png"))
    edge = pictures.SMALL // 12
    sheet = pixels[30 : 30 + 12 * edge, 8 : 8 + 12 * edge]
    seen = sheet[edge // 2 :: edge, edge // 2 :: edge]
    assert seen.shape == (12, 12, 3)
    np.testing.assert_array_equal(
        (seen == pictures.BROKEN).all(axis=2),
        [[(y, x) in BROKEN for x in range(12)] for y in range(12)],
    )
    skipped = (seen == pictures.SKIPPED).all(axis=2)
    assert list(zip(*np.nonzero(skipped), strict=True)) == [(2, 10), (2, 11)]
    assert (seen[11] == pictures.LEFT).all()
    times = {tuple(r["tile"]): sum(r["seconds"]) for r in made if "seconds" in r}
    slow, quick = max(times, key=times.get), min(times, key=times.get)
    assert tuple(seen[slow]) == tuple(pictures.SLOW)
    assert tuple(seen[quick]) == tuple(pictures.QUICK)


BROKEN = {(1, 1), (1, 0), (0, 1), (0, 0)}


def test_map_of_a_volume():
    seconds = np.full((3, 4, 5), 1.0)
    seconds[1, 2, 3], seconds[2, 0, 0], seconds[0, 0, 1] = np.inf, -np.inf, np.nan
    pixels = np.asarray(pictures.tile_map(seconds, "title"))
    edge = pictures.SMALL // 11  # two planes of 5 and a gap, twice
    seen = pixels[30 + edge // 2 :: edge, 8 + edge // 2 :: edge]
    white = (255, 255, 255)
    tones = [pictures.BROKEN, pictures.SKIPPED, pictures.LEFT, white, white]
    for place, tone in zip([(2, 9), (5, 0), (0, 1), (1, 5), (4, 2)], tones, strict=True):
        assert tuple(seen[place]) == tone


def test_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = {"step": 20, "steps": 30, "error": 0.125, "seconds": 40.0, "history": [{}] * 3}
    state |= {"stale": 0, "at": 20, "now": [1.0], "best": [1.0], "chosen": None}
    about = {"print": np.array('{"steps": 30}'), "terms": np.array(0), "version": np.array(3)}
    model_arrays.write_arrays("a.checkpoint", about | {"state": np.array(json.dumps(state))})
    found = run("status", "a", "--json")
    quiet = json.loads(found.out)["training"].pop("quiet")
    assert (found.code, found.err) == (0, "")
    assert 0 <= quiet < 60
    assert json.loads(found.out)["training"] == {
        "state": "going",
        "step": 20,
        "steps": 30,
        "error": 0.125,
        "quiet": quiet,
    }
    for ago, code in ((70, 0), (90, 1)):  # a checkpoint every 20 s: four of them, or a minute
        os.utime("a.checkpoint", (time.time() - ago,) * 2)
        found = run("status", "a")
        assert found.code == code, found
    assert found.out == (
        "a: cut as it seems, checkpoint of 0:01:30 ago\nsteps: 20 of at most 30\n"
        "wrong in validation: 12.500 %\n"
    )
    model_arrays.write_arrays("a.checkpoint", about)  # the data term is learned, no step made
    assert "steps: 0 of at most 30\n" in run("status", "a").out


THREADS = "--dashboard and --performance-report show processes or a cluster: threads have none"


@pytest.mark.parametrize("option", ["--dashboard", "--performance-report=a.html"])
def test_threads_have_nothing_to_show(image, option):
    found = run(*LABEL, "--scheduler", "threads", option)
    assert (found.code, found.err) == (2, f"tiledlaf: error: {THREADS}\n")
    assert not Path("out.zarr").exists()


@pytest.mark.parametrize("option", ["--dashboard", "--performance-report=a.html"])
def test_without_bokeh(image, monkeypatch, option):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        dask_pool.importlib.util, "find_spec", lambda name: None if name == "bokeh" else find(name)
    )
    found = run(*LABEL, "--workers", "1", option)
    assert found.code == 2
    assert re.fullmatch(
        rf"tiledlaf: error: {option[:11]}.* needs bokeh.*: pip install 'tiledlaf\[watch\]'\n",
        found.err,
    )
    assert not Path("out.zarr").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--dashboard", "out"], "--dashboard expects PORT, HOST:PORT or no value, got 'out'"),
        (["--dashboard", "70000"], "--dashboard expects PORT, HOST:PORT or no value, got '70000'"),
        (["--dashboard", "--scheduler", "tcp://127.0.0.1:1"], "has a dashboard of its own"),
        (["--performance-report", "no/a.html"], "expected a file in a folder that exists"),
    ],
)
def test_bad_options(image, options, words):
    found = run(*LABEL, *options)
    assert found.code == 2
    assert words in found.err
    assert found.err.count("\n") == 1


def report_of(path):
    """A page that needs nothing but itself, with what the workers did."""
    page = Path(path).read_text()
    assert "<script src" not in page
    assert "Worker Profile (compute)" in page
    return page


@needs_bokeh
def test_performance_report_of_processes(image):
    found = run(*LONG[:-2], "--workers", "2", "--performance-report", "a.html")
    assert (found.code, "tiles: 144 done" in found.out) == (0, True), found
    assert "run_tile" in report_of("a.html")  # the profile is on


@needs_bokeh
def test_performance_report_of_a_cluster(image):
    with LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address="127.0.0.1:0") as there:
        found = run(
            *LABEL,
            "--tile",
            "32",
            "--scheduler",
            there.scheduler_address,
            "--performance-report",
            "a.html",
        )
    assert found.code == 0, found
    report_of("a.html")


@needs_bokeh
def test_a_run_that_is_cut_leaves_its_report(image):
    process = subprocess.Popen(
        [sys.executable, "-m", "tiledlaf", *LONG, "--performance-report", "a.html"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    first(process)
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (143, ""), err
    assert err.splitlines()[-1] == "tiledlaf: terminated; the same command completes the output"
    report_of("a.html")


@needs_bokeh
def test_a_report_that_cannot_be_written(image, monkeypatch):
    import distributed

    def fails(*_):
        raise RuntimeError("no scheduler is left")

    monkeypatch.setattr(distributed.performance_report, "__exit__", fails)
    found = run(*LABEL, "--workers", "1", "--performance-report", "a.html")
    assert found.code == 2
    assert found.err.endswith("a.html: not written, RuntimeError: no scheduler is left\n")
    assert read()["state"] == "complete"


@needs_bokeh
def test_dashboard_on_loopback(image):
    process = subprocess.Popen(
        [sys.executable, "-m", "tiledlaf", *LONG, "--dashboard", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    line = process.stderr.readline()
    link = re.fullmatch(r"dashboard: (http://127\.0\.0\.1:(\d+)/status)\n", line)
    assert link, (line, process.communicate())
    page = urllib.request.urlopen(link[1], timeout=30).read().decode()
    assert "bokeh" in page
    assert "needs bokeh" not in page
    addresses = listening(tree(process.pid))
    assert int(link[2]) in {address.port for address in addresses}
    assert {address.ip for address in addresses} == {"127.0.0.1"}
    process.terminate()
    assert process.communicate(timeout=60)[0] == ""
    assert process.returncode == 143
