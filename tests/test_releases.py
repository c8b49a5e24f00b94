"""Files of an earlier release, which old/make.py made, and of a later one."""

import importlib.util
import json
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import zarr
from command import run

import tiledlaf
from tiledlaf.model import arrays

OLD = Path(__file__).parent / "old"
spec = importlib.util.spec_from_file_location("make_old", OLD / "make.py")
make = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make)
GIVEN = ["--probabilities", "given"]


@pytest.fixture(autouse=True)
def old(tmp_path, monkeypatch):
    """The files of the earlier release, with the inputs that they were made from."""
    monkeypatch.chdir(tmp_path)
    make.inputs()
    for file in OLD.glob("*.model*"):
        shutil.copy(file, tmp_path)
    for file in OLD.glob("*.zip"):
        with zipfile.ZipFile(file) as archive:
            archive.extractall(f"{file.stem}.zarr")
    with np.load(OLD / "labels.npz") as held:
        return dict(held)


def labels(store, path="labels/tiledlaf/0"):
    return zarr.open_array(store, path=path, mode="r")[:]


@pytest.mark.parametrize("name", ["means", "trees", "given", "weights"])
def test_models_and_weights_give_the_same_labels(old, name):
    found = run(*make.label("new.zarr", *make.LABELS[name]))
    assert found.code == 0, found
    np.testing.assert_array_equal(labels("new.zarr"), old[name])


@pytest.mark.parametrize(("name", "more"), [("means", []), ("trees", []), ("given", GIVEN)])
def test_training_goes_on_from_old_models(old, name, more):
    command = ["train", "new.model", "--from", f"{name}.model", *make.TRAIN, *more, "--steps", "2"]
    found = run(*command)
    assert found.code == 0, found
    first, new = (tiledlaf.load(path) for path in (f"{name}.model", "new.model"))
    assert new.classes == first.classes
    assert new.term.kind == first.term.kind
    assert new.offsets == first.offsets
    assert new.predictor.anchors.shape == first.predictor.anchors.shape
    if name == "trees":  # on the features of then
        assert new.term.features == first.term.features


def test_a_finished_output_is_left_as_it_is(old):
    before = {p: p.stat().st_mtime_ns for p in Path("whole.zarr").rglob("*") if p.is_file()}
    found = run(*make.label("whole.zarr", *make.HALF))
    assert found.code == 0, found
    assert run("status", "whole.zarr").code == 0
    assert before == {p: p.stat().st_mtime_ns for p in Path("whole.zarr").rglob("*") if p.is_file()}


def test_a_cut_run_is_completed(old):
    before = run("status", "half.zarr").out
    assert "cut" in before
    assert " left" in before
    found = run(*make.label("half.zarr", *make.HALF))
    assert found.code == 0, found
    np.testing.assert_array_equal(labels("half.zarr"), old["whole"])
    np.testing.assert_array_equal(labels("half.zarr", "confidence/0"), old["confidence"])


def test_an_old_checkpoint_is_refused():
    """It was learned in another way; what it says is not lost."""
    begun = Path("cut.model.checkpoint").read_bytes()
    found = run(*make.CUT)
    assert (found.code, found.out) == (2, "")
    (line,) = found.err.splitlines()
    assert "is of an earlier release, which learned in another way (remove it" in line
    assert Path("cut.model.checkpoint").read_bytes() == begun
    os.remove("cut.model.checkpoint")
    assert run(*make.CUT).code == 0


def newer(path):
    """Let a file say that a later release wrote it; return what opens it."""
    if path.endswith("zarr"):
        file = Path(path, "zarr.json" if path == "weights.zarr" else "labels/tiledlaf/zarr.json")
        about = json.loads(file.read_text())
        about["attributes"]["tiledlaf"]["format"] = 7
        file.write_text(json.dumps(about))
        options = make.LABELS["weights"] if path == "weights.zarr" else make.HALF
        return make.label("new.zarr" if path == "weights.zarr" else path, *options)
    held = arrays.read_arrays(path, "file")
    if path.endswith("checkpoint"):
        held["version"] = np.array(7)
        arrays.write_arrays(path, held)
        return make.CUT
    about = json.loads(str(held["model"]))
    arrays.write_arrays(path, held | {"model": np.array(json.dumps(about | {"version": 7}))})
    return make.label("new.zarr", *make.LABELS["means"])


@pytest.mark.parametrize(
    "path", ["means.model", "cut.model.checkpoint", "weights.zarr", "whole.zarr"]
)
def test_a_later_format_is_refused_by_name(path):
    command = newer(path)
    found = run(*command)
    assert (found.code, found.out) == (2, "")
    assert found.err.count("\n") == 1
    newest = 3 if path.endswith("checkpoint") else 1
    assert "has format version 7, of a later release" in found.err
    assert f"tiledlaf {tiledlaf.__version__} reads versions up to {newest}" in found.err
    assert not os.path.exists("new.zarr")
    looked = {"cut.model.checkpoint": ["status", "cut.model"], "weights.zarr": []}
    for command in (looked.get(path, ["info", path]), looked.get(path, ["status", path])):
        assert not command or run(*command).code == 2


def test_what_is_written_says_its_format():
    assert run(*make.label("new.zarr", *make.HALF)).code == 0
    for group in ("", "labels/tiledlaf", "confidence"):
        assert zarr.open_group("new.zarr", path=group).attrs["tiledlaf"]["format"] == 1
