"""One output, one truth: who writes there, of which input, and what damaged notes cost."""

import contextlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
import races
import zarr
from command import contents, run
from runs import RECORDS, arrays, check_arrays

import tiledlaf
from tiledlaf.errors import InputChanged, OutputBelongsElsewhere
from tiledlaf.files import claims, stores
from tiledlaf.files.claims import Claim
from tiledlaf.files.folders import lock
from tiledlaf.labeling import claiming, records
from tiledlaf.labeling.output import Output
from tiledlaf.labeling.records import Appender
from tiledlaf.training import estimate as estimation
from tiledlaf.training import run as training_run

TILES = ["--tile", "32", "--workers", "1"]
COMMAND = ["label", "image.zarr", "out.zarr", "--classes", "2", "--confidence", *TILES]
ESTIMATE = ["estimate", "image.npy", "truth.npy", "weights.zarr", "--steps", "2", "--workers", "1"]
TRAIN = ["train", "model", "--images", "image.npy", "--labels", "truth.npy", "--workers", "1"]
TRAIN += ["--steps", "2", "--size", "3"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image = np.random.default_rng(0).integers(0, 255, (96, 96), dtype=np.uint8)
    image[:, 50:] //= 3
    np.save("image.npy", image)
    np.save("truth.npy", (image > 60).astype(np.uint8))
    zarr.create_array("image.zarr", data=image, chunks=(32, 32))
    return image


@pytest.fixture
def whole(here):
    """Arrays of an output that nothing disturbed, which is moved away."""
    found = run(*COMMAND)
    assert found.code == 0, found
    os.rename("out.zarr", "whole.zarr")
    return arrays("whole.zarr")


def once(monkeypatch, owner, name, action, count=1):
    """Do something once, before the count-th call of a function."""
    function, calls = getattr(owner, name), []

    def call(*args, **kwargs):
        calls.append(None)
        if len(calls) == count:
            action()
        return function(*args, **kwargs)

    monkeypatch.setattr(owner, name, call)


def no_links(*_):
    raise PermissionError(1, "Operation not permitted")


# Starts at one moment


@pytest.mark.faults
@pytest.mark.timeout(6000)
def test_commands_that_start_at_one_moment(tmp_path):
    """Set RACES for more rounds than 28, two of each kind."""
    rounds, seed = os.environ.get("RACES", "28"), str(random.randrange(10**6))
    found = subprocess.run(
        [sys.executable, races.__file__, "all", rounds, seed],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, (seed, found.stdout[-3000:], found.stderr[-3000:])


@pytest.mark.parametrize("links", [True, False])
def test_one_of_several_claims(tmp_path, monkeypatch, links):
    if not links:  # as on FAT
        monkeypatch.setattr(os, "link", no_links)
    barrier = Barrier(4)

    def claim(number):
        barrier.wait(60)
        try:
            with Claim(tmp_path / "a", {"seed": number // 2}, "wait"):
                barrier.wait(60)
                return "claimed"
        except OutputBelongsElsewhere as error:
            barrier.wait(60)
            return str(error)

    with ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            said = list(pool.map(claim, range(4)))
            won = said.index("claimed") // 2
            assert said[2 * won : 2 * won + 2] == ["claimed"] * 2
            for text in said[2 - 2 * won : 4 - 2 * won]:
                assert f"it has seed {won}; this run has seed {1 - won}" in text
            assert os.listdir(tmp_path) == []


def test_a_claim_whose_owner_is_gone(tmp_path):
    """Its lock has ended with it; but where there are no locks somebody must say so."""
    path = tmp_path / "a"
    Path(f"{path}.claim").write_text('{"seed": 1}')
    with Claim(path, {"seed": 2}, "wait"):
        with pytest.raises(OutputBelongsElsewhere, match="it has seed 2; this run has seed 1"):
            Claim(path, {"seed": 1}, "wait")
        with Claim(path, {"seed": 2}, "wait"):
            pass
        assert Path(f"{path}.claim").exists()
    for damaged in ("", '{"se', "[]"):
        Path(f"{path}.claim").write_text(damaged)
        with Claim(path, {"seed": 2}, "wait"):
            assert json.loads(Path(f"{path}.claim").read_text()) == {"seed": 2}
    assert os.listdir(tmp_path) == []


def test_parts_of_names_that_begin_alike(here):
    """They are of other work, which may still go on."""
    left, alike = f"{'0' * 32}.partial", f"b.{'1' * 32}.partial"
    assert run(*COMMAND).code == 0
    for path in ("model.weights", "weights.zarr.b", "out.zarr/labels/tiledlaf.b"):
        (Path(f"{path}.{left}") / "0").mkdir(parents=True)
    Path(f"model.{alike}").touch()
    for path in ("model", "model.claim", "model.checkpoint", f"model.{left}"):
        Path(f"{path}.{left}").touch()
    for command in (TRAIN, ESTIMATE, COMMAND):
        assert run(*command).code == 0
    found = {str(p) for p in Path().rglob("*.partial")}
    assert found == {f"{p}.{left}" for p in ("model.weights", "weights.zarr.b")} | {
        f"out.zarr/labels/tiledlaf.b.{left}",
        f"model.{alike}",
    }


def test_parts_of_the_confidence_of_other_labels(whole):
    """Another start may have them in hand; its own run removes what a kill left."""
    os.rename("whole.zarr", "out.zarr")
    part = Path(f"out.zarr/confidence.{'0' * 32}.partial")
    part.mkdir()
    inner = Path("out.zarr/confidence/0/0.partial")
    inner.touch()
    plain = [option for option in COMMAND if option != "--confidence"]
    assert run(*plain, "--name", "b").code == 0
    assert part.exists()
    assert inner.exists()
    assert run(*COMMAND).code == 0
    assert not part.exists()
    assert not inner.exists()


def renamed_to(command, old, new):
    return [new if part == old else part for part in command]


@pytest.mark.parametrize(
    ("owner", "name", "count"),
    [(Output, "describe", 1), (records, "claim", 1), (records, "claim", 2)],
)
def test_arrays_that_another_run_takes_for_leftovers(whole, monkeypatch, owner, name, count):
    """As it ends, between two files of theirs; the last is of the confidence."""

    def remove():
        place = stores.at("out.zarr")
        parts = [n for n in place.names("labels") if stores.is_part(n, "tiledlaf")]
        assert place.remove(*(f"labels/{part}" for part in parts))

    once(monkeypatch, owner, name, remove, count)
    found = run(*COMMAND)
    assert found.code == 0, found.err
    check_arrays(whole)


def test_a_path_that_is_a_link_to_nothing(here):
    """What it leads to may be elsewhere for now, as with git-annex; so it is not replaced."""
    for path, command in (("model", TRAIN), ("weights.zarr", ESTIMATE)):
        os.symlink("elsewhere", path)
        found = run(*command)
        assert found.code == 2
        error = f"tiledlaf: error: {path}: expected a new path, got a link to elsewhere, which is"
        assert error in found.err.replace(f"{os.getcwd()}/", "")
        assert "step 1" not in found.err
        assert os.path.islink(path)


def test_names_that_leave_no_room_for_those_of_parts(here):
    commands = (TRAIN, "model"), (ESTIMATE, "weights.zarr"), ([*COMMAND, "--name", "x"], "x")
    for command, name in commands:
        found = run(*renamed_to(command, name, "n" * 161))
        assert found.code == 2
        assert "nnn...: expected a name of at most 160 bytes, got one of 161\n" in found.err
        assert run(*renamed_to(command, name, f"{name[0]}" * 160)).code == 0


def test_weights_in_a_folder_that_is_yet_to_be_made(here):
    assert run(*renamed_to(ESTIMATE, "weights.zarr", "new/deeper/w.zarr")).code == 0
    assert sorted(os.listdir("new/deeper")) == ["w.zarr"]


def test_a_claim_without_locks(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(claims, "lock", refuse)
    path = tmp_path / "a"
    with Claim(path, {"seed": 2}, "wait"):
        with pytest.raises(OutputBelongsElsewhere, match="has been claimed by another run"):
            Claim(path, {"seed": 1}, "wait")
        with Claim(path, {"seed": 2}, "wait"):
            pass
    with Claim(path, {"seed": 1}, "wait"):
        pass


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_is_made_once(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    place = stores.at(str(tmp_path))
    assert place.create("a/b", b"1")
    assert not place.create("a/b", b"2")
    assert place.read("a/b") == b"1"
    (tmp_path / "a" / "b").write_bytes(b"")  # what a crash can leave
    assert place.create("a/b", b"3")
    assert place.read("a/b") == b"3"
    assert os.listdir(tmp_path / "a") == ["b"]


def test_the_same_command_that_comes_between_two_looks(whole, monkeypatch):
    """And is still at work."""
    current, calls = Output.current, []

    def look(out):
        found = current(out)
        calls.append(found)
        if len(calls) == 3:  # of the plan, of the start, and before it takes the place
            monkeypatch.setattr(Output, "current", current)
            assert run(*COMMAND).code == 0
            file = os.open(RECORDS, os.O_RDWR)
            held.callback(os.close, file)
            lock(file, alone=False)
        return found

    monkeypatch.setattr(Output, "current", look)
    with contextlib.ExitStack() as held:
        found = run(*COMMAND)
    assert calls == [None] * 3
    assert found.code == 0, found.err
    check_arrays(whole)


def test_who_was_refused_hears_of_both_settings(whole, monkeypatch):
    other = [*COMMAND, "--time", "9"]
    found = []
    once(monkeypatch, claiming.Start, "_placed", lambda: found.append(run(*other)))
    refused = run(*COMMAND)
    assert found[0].code == 0
    assert refused.code == 2
    assert "it has time 9.0; this run has time 5.0" in refused.err
    assert run(*other).code == 0


def test_a_replaced_run_writes_no_more(whole, monkeypatch):
    """It ends with one line, and what replaced it is what it would be alone."""
    other = [*COMMAND, "--time", "9"]
    assert run(*other).code == 0
    expected = arrays("out.zarr")
    shutil.rmtree("out.zarr")

    def replace():
        monkeypatch.setattr(records, "is_locked", lambda *_: None)  # as another machine sees it
        assert run(*other, "--overwrite").code == 0

    once(monkeypatch, Appender, "add", replace, count=3)
    found = run(*COMMAND)
    assert found.code == 2
    assert "labels/tiledlaf was removed or begun anew during this run" in found.err
    check_arrays(expected)


# Inputs that change


def renamed(image):
    np.save("other.npy", 255 - image)
    os.replace("other.npy", "image.npy")


def rewritten(image):
    np.save("image.npy", 255 - image)


def in_place(image):
    with open("image.npy", "r+b") as file:
        file.seek(-200, os.SEEK_END)
        file.write(bytes(100))


def chunk(image):
    zarr.open_array("image.zarr", mode="r+")[64:, 64:] = 7


@pytest.mark.parametrize("change", [renamed, rewritten, in_place, chunk])
def test_an_image_that_changes_during_a_run(here, monkeypatch, change):
    source = "image.zarr" if change is chunk else "image.npy"
    shutil.copytree("image.zarr", "kept.zarr")
    shutil.copy2("image.npy", "kept.npy")
    command = ["label", source, *COMMAND[2:]]
    assert run(*command).code == 0
    expected = arrays("out.zarr")
    shutil.rmtree("out.zarr")
    with monkeypatch.context() as patch:
        once(patch, Appender, "add", lambda: change(here), count=3)
        found = run(*command)
    assert found.code == 1, found
    assert f"{source} changed during the run, so its labels are not to be trusted" in found.err
    assert found.err.count("tiledlaf: error") == 1
    words = f"{source} changed during a run: the labels are not to be trusted"
    assert words in run("info", "out.zarr").out
    assert words in run("status", "out.zarr").out
    assert "changed during the run, so" in run("evaluate", "out.zarr", "truth.npy").err
    assert "belongs to another image" in run(*command).err
    if change is chunk:  # one back as it was, to its time
        return
    shutil.copy2("kept.npy", "image.npy")
    assert run(*command).code == 0
    check_arrays(expected)
    assert words not in run("status", "out.zarr").out
    assert run("evaluate", "out.zarr", "truth.npy").err == ""


def test_labels_in_memory_of_an_image_that_changes(here):
    def change(_):
        np.save("other.npy", 255 - here)
        os.replace("other.npy", "image.npy")

    with pytest.raises(InputChanged, match="changed during the run"):
        tiledlaf.label("image.npy", classes=2, tile=32, workers=1, progress=change)


@pytest.mark.parametrize("option", ["--mask", "--probabilities"])
def test_another_input_that_changes(here, monkeypatch, option):
    np.save("other.npy", np.ones(here.shape, np.uint8))
    command = COMMAND
    if option == "--probabilities":
        np.save("other.npy", np.full((2, *here.shape), 0.5, np.float32))
        command = [word for word in COMMAND if word not in ("--classes", "2")]
    once(monkeypatch, Appender, "add", lambda: os.utime("other.npy", (1, 1)), count=3)
    found = run(*command, option, "other.npy")
    assert found.code == 1
    assert "other.npy changed during the run" in found.err


@pytest.mark.parametrize("which", ["image.npy", "truth.npy"])
@pytest.mark.parametrize("command", [TRAIN, ESTIMATE])
def test_an_input_that_changes_while_learning(here, monkeypatch, command, which):
    owner, name = (training_run, "_learned") if command is TRAIN else (estimation, "_descend")
    with monkeypatch.context() as patch:
        once(patch, owner, name, lambda: os.utime(which, (1, 1)))
        found = run(*command)
    assert found.code == 1, found
    assert f"{which} changed during the" in found.err
    assert found.err.count("tiledlaf: error") == 1
    assert not [p for p in os.listdir() if p.startswith(("model", "weights"))]
    assert run(*command).code == 0
    assert not [p for p in os.listdir() if p.startswith(("model.", "weights.zarr."))]


# What is gone or damaged


@pytest.mark.parametrize(
    "gone",
    [
        "labels/tiledlaf/0",
        "labels/tiledlaf/0/zarr.json",
        "labels/tiledlaf/0/tiledlaf.jsonl",
        "labels/tiledlaf/0/c",
        "labels/tiledlaf",
        "labels/tiledlaf/zarr.json",
        "labels/zarr.json",
        "labels",
        "confidence",
        "confidence/0",
        "0",
        "0/zarr.json",
        "0/c/1",
        "zarr.json",
    ],
)
def test_what_was_left_of_an_output_is_completed(whole, gone):
    shutil.copytree("whole.zarr", "out.zarr")
    path = Path("out.zarr", gone)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    found = run(*COMMAND)
    assert found.code == 0, found
    check_arrays(whole)
    assert run("status", "out.zarr").code == 0


@pytest.mark.parametrize("group", ["labels", "labels/other"])
def test_a_group_that_is_damaged_is_named(whole, group):
    os.rename("whole.zarr", "out.zarr")
    Path("out.zarr", group).mkdir(exist_ok=True)
    Path("out.zarr", group, "zarr.json").write_text("{")
    found = run(*(part for part in COMMAND if part != "--confidence"), "--name", "other")
    assert found.code == 2
    assert re.search(rf"out\.zarr/{group}(/zarr\.json)?: expected a Zarr group, got ", found.err)


@pytest.mark.parametrize("how", ["removed", "moved", "arrays", "metadata", "labels"])
def test_an_output_that_goes_away_during_a_run(whole, monkeypatch, how):
    def go():
        if how == "moved":
            os.rename("out.zarr", "elsewhere.zarr")
        elif how == "metadata":  # as of a removal that writers have stopped on its way
            os.remove("out.zarr/labels/tiledlaf/0/zarr.json")
        else:
            places = {"arrays": "out.zarr/labels/tiledlaf/0", "labels": "out.zarr/labels"}
            place = places.get(how, "out.zarr")
            while os.path.lexists(place):  # into which a worker may just be writing
                shutil.rmtree(place, ignore_errors=True)

    with monkeypatch.context() as patch:
        once(patch, Appender, "add", go, count=3)
        found = run(*COMMAND)
    assert found.code in (1, 2), found
    assert found.err.count("tiledlaf: error") == 1
    assert "labels/tiledlaf was removed or begun anew" in found.err
    found = run(*COMMAND)
    assert found.code == 0, found
    check_arrays(whole)


@pytest.mark.parametrize(
    "left",
    [
        ["0/c/0/0", "labels/tiledlaf/0/c/1/1"],
        ["0/0.1.partial/c/1", "confidence/0/c/0/0", "confidence/1/c/0/0"],
        ["labels/zarr.json", "labels/tiledlaf/0/tiledlaf.jsonl"],
        ["labels/zarr.json", f"labels/tiledlaf.{'0' * 32}.partial/0"],
    ],
)
def test_what_writers_left_of_a_removed_output(whole, left):
    for name in left:
        path = Path("out.zarr", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(Path("whole.zarr", name).read_bytes() if name.endswith("n") else b"x")
    found = run(*COMMAND)
    assert found.code == 0, found
    check_arrays(whole)


@pytest.mark.parametrize("held", ["1/photo.jpg", "0/zarr.json", "labels/a/notes.txt", "c/0/0"])
def test_folders_of_others_are_no_rest(here, held):
    path = Path("out.zarr", held)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"{}")
    found = run(*COMMAND)
    assert found.code == 2
    assert "got a folder of other data" in found.err
    assert contents("out.zarr").keys() == {held}


def test_confidence_of_replaced_labels_is_removed(here):
    assert run(*COMMAND).code == 0
    plain = [word for word in COMMAND if word != "--confidence"]
    assert run(*plain, "--time", "9", "--overwrite").code == 0
    assert not Path("out.zarr", "confidence").exists()
    assert run(*COMMAND, "--name", "b").code == 0


def test_a_kill_between_labels_and_their_confidence(here, monkeypatch):
    np.save("mask.npy", (np.arange(96)[:, None] > 40) & np.ones(96, bool))
    masked = [*COMMAND, "--mask", "mask.npy"]
    assert run(*masked).code == 0
    expected = arrays("out.zarr")
    shutil.rmtree("out.zarr")
    assert run(*COMMAND).code == 0

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(claiming, "_place_confidence", killed)
        assert run(*masked, "--overwrite").code == 130
    assert run(*masked).code == 0
    check_arrays(expected)


def test_a_damaged_group_of_others(here):
    assert run(*COMMAND).code == 0
    path = Path("out.zarr/labels/other/zarr.json")
    path.parent.mkdir()
    path.touch()
    for _ in range(2):
        found = run("label", "image.zarr", "out.zarr", "--classes", "2", "--name", "b", *TILES)
        assert found.code == 0, found
    assert run("status", "out.zarr", "--name", "b").code == 0


LINES = [
    b"",
    b"\xff\xfe\x00",
    b"null",
    b"[1]",
    b'{"tile": 5, "state": "done"}',
    b'{"tile": [99, 99], "state": "done"}',
    b'{"tile": [0], "state": "done"}',
    b'{"tile": [-1, 0], "state": "done"}',
    b'{"tile": [0, 0.5], "state": "done"}',
    b'{"tile": [0, true], "state": "done"}',
    b'{"tile": [0, 0], "stat\x7f": "done"}',
    b'{"tile": [0, 0], "state": 7}',
    b'{"tile": [0, 0], "state": "done", "counts": [1]}',
    b'{"tile": [0, 0], "state": "done", "counts": "many"}',
    b'{"tile": [0, 0], "state": "done", "pixels": 1e999}',
    b'{"tile": [0, 0], "state": "done", "pixels": ' + b"9" * 400 + b"}",
    b'{"tile": [0, 0], "state": "done", "seconds": [NaN, 0, 0]}',
    b'{"tile": [0, 0], "state": "done", "seconds": 3}',
    b'{"tile": [0, 0], "state": "done", "bytes": -1}',
    b'{"tile": [0, 0], "state": "failed", "error": 5}',
    b'{"stage": ["begun"], "time": "now"}',
    b'{"stage": "begun", "run": "a", "after": 0, "time": 1e18}',
    b'{"stage": "complete", "run": 5, "after": {}}',
    b'{"tile": ' + b"[" * 100_000,
]


def test_a_damaged_line_costs_its_tile(whole):
    """A foreign one costs nothing."""
    lines = Path("whole.zarr/labels/tiledlaf/0/tiledlaf.jsonl").read_bytes().splitlines()
    dice = random.Random(0)
    cases = [[*lines[:k], line, *lines[k:]] for line in LINES for k in (0, 4, len(lines))]
    cases += [[*lines[:4], *lines[3:]], lines[::-1], lines[2:], lines[:-3]]
    for k, line in enumerate(lines):
        for _ in range(3):
            flipped, at = bytearray(line), dice.randrange(len(line))
            flipped[at] ^= 1 << dice.randrange(8)
            cases.append([*lines[:k], bytes(flipped), *lines[k + 1 :]])
    shape = (3, 3)
    for case in cases:
        Path("damaged.jsonl").write_bytes(b"\n".join(case) + b"\n")
        found = records.read(Path("damaged.jsonl"), shape)
        assert len(found) >= 9 - 3
    shutil.copytree("whole.zarr", "out.zarr")
    Path(RECORDS).write_bytes(b"\n".join([*LINES, *lines[:3], b"x", *lines[4:], *LINES]) + b"\n")
    report = ["report", "out.zarr"]
    for command in (["status", "out.zarr"], ["info", "out.zarr"], COMMAND, COMMAND, report):
        found = run(*command)
        assert "Traceback" not in found.err
        if command in (COMMAND, report):
            assert found.code == 0, found
    check_arrays(whole)


@pytest.mark.parametrize(
    "change", [{"counts": [0, 24, 900]}, {"counts": None}, {"proven": None}, {"proven": 5000}]
)
def test_a_record_that_does_not_add_up_costs_its_tile(whole, change):
    shutil.copytree("whole.zarr", "out.zarr")
    lines = [json.loads(line) for line in RECORDS.read_bytes().splitlines()]
    kept = [{k: v for k, v in {**one, **change}.items() if v is not None} for one in lines]
    number = next(n for n, one in enumerate(lines) if "tile" in one)
    lines[number] = kept[number]
    RECORDS.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = tiledlaf.label("image.zarr", "out.zarr", classes=2, tile=32, confidence=True)
    assert found.fresh == 32**2
    assert found.pixels[0] == 0
    check_arrays(whole)


def test_an_output_without_claims_goes_on(whole):
    """As older versions made it."""
    shutil.copytree("whole.zarr", "out.zarr")
    Path("out.zarr/confidence/0/tiledlaf.jsonl").unlink()
    lines = RECORDS.read_bytes().splitlines(keepends=True)
    RECORDS.write_bytes(b"".join(lines[1:-4]))
    assert run(*COMMAND).code == 0
    check_arrays(whole)
    assert run(*COMMAND, "--overwrite").code == 0
    check_arrays(whole)


STRAYS = (".DS_Store", "._zarr.json", "._0", ".nfs000000000001", "Thumbs.db", "desktop.ini")


def test_files_of_operating_systems(whole):
    for place in ("image.zarr", "image.zarr/c"):
        for name in STRAYS:
            Path(place, name).write_bytes(b"x")
    assert run(*COMMAND).code == 0
    for folder, folders, _ in list(os.walk("out.zarr")):
        for name in (*STRAYS, *(f"._{one}" for one in folders)):
            Path(folder, name).write_bytes(b"x")
    before = contents("out.zarr")
    for more in (["info", "out.zarr"], ["status", "out.zarr"], COMMAND):
        found = run(*more)
        assert (found.code, found.err) == (0, ""), found
    assert contents("out.zarr") == before
    for more in (["--overwrite", "--time", "9"], ["--name", "b", "--no-image"]):
        assert run(*[w for w in COMMAND if w != "--confidence"], *more).code == 0
