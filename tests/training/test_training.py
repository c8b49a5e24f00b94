"""Training: what is learned, from which pixels, and the same model however the work is cut."""

import dataclasses
import functools
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from command import contents, run
from hypothesis import example, given, settings
from hypothesis import strategies as st
from processes import workers
from trainings import TRAIN, made, same, write
from voronoi import lines

from tiledlaf.files import levels, stores
from tiledlaf.files.images import from_array
from tiledlaf.flow import losses
from tiledlaf.flow.gradient import Polynomials
from tiledlaf.flow.stencil import parse
from tiledlaf.model import arrays as model_arrays
from tiledlaf.model import features
from tiledlaf.model import model as model_file
from tiledlaf.model.classes import Class
from tiledlaf.model.predictor import Predictor
from tiledlaf.model.terms import Prototypes
from tiledlaf.pool import dask as dask_pool
from tiledlaf.pool import tasks
from tiledlaf.tiles import Grid
from tiledlaf.training import checkpoint, classifiers, examples, judging, learning
from tiledlaf.training import plan as training_plan
from tiledlaf.training import run as training_run
from tiledlaf.training import terms as fitting
from tiledlaf.training import worker as training_worker


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def _made(tmp_path_factory):
    return made(tmp_path_factory)


@pytest.fixture
def whole(_made, tmp_path, monkeypatch):
    """Bytes of the model of an uncut training; the current folder holds the images."""
    monkeypatch.chdir(tmp_path)
    for name in ("images", "labels"):
        os.symlink(_made[0] / name, name)
    return _made[1]


def trained(*arguments, command=TRAIN):
    """Run a training to its end; what it printed."""
    found = run(*command, *arguments)
    assert found.code == 0, found
    assert not list(Path().glob("model.*"))  # neither checkpoint nor parts
    return found


def learned(path="model"):
    """Arrays of a model, with its JSON but for how it was trained."""
    found = model_file.load(path).arrays()
    about = json.loads(str(found["model"]))
    del about["trained"]
    return found | {"model": np.array(json.dumps(about))}


def equal(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], value, err_msg=key)


# What it is for


def test_unseen_lines(here):
    for seed in range(5):
        write(here, seed, *lines(seed=seed))
    image, truth = lines(seed=5)
    tifffile.imwrite("unseen.tif", image)
    tifffile.imwrite("truth.tif", truth)
    command = ["train", "lines.model", "--images", "images/*.tif", "--labels", "labels"]
    found = run(*command, "--size", "50")
    assert found.code == 0, found
    rounds, _, last = found.err.partition("learning from all tiles\n")
    shown = [line for line in rounds.splitlines() if line.startswith("step ") and "valid" in line]
    assert shown
    assert "step 10/" in last
    for line in shown:
        for part in ("loss 0.", " % in training, ", " % in validation (best ", " s left at most"):
            assert part in line
    assert run("label", "unseen.tif", "out.zarr", "--model", "lines.model").code == 0
    assert run("evaluate", "out.zarr", "truth.tif", "--json", "found.json").code == 0
    error = json.loads(Path("found.json").read_text())["pixel_error"]
    uniform = run("label", "unseen.tif", "plain.zarr", "--classes", "2", "--time", "3")
    assert uniform.code == 0
    plain = zarr.open_array("plain.zarr/labels/tiledlaf/0", mode="r")[:] - 1
    assert error < 0.008
    assert error < 0.5 * (plain != truth).mean()


# The same model, bit for bit


@pytest.mark.parametrize("number", ["1", "3"])
def test_any_number_of_workers(whole, number):
    trained("--workers", number)
    same("model", whole)


def test_processes(whole):
    """A worker dies on the way: what it held is made again, and no bit changes."""
    data = training_run.Data(examples.pair("images", "labels"))
    recipe = training_run.Recipe(predictor_size=5, steps=30)
    killed = []
    with dask_pool.dask(2) as pool:
        worker = workers()[0]

        def kill(record):
            if record.get("step") == 12 and not killed:
                killed.append(worker.pid)
                worker.kill()

        training_run.train(data, recipe, pool, "model", progress=kill)
        assert not worker.is_running()
    assert len(killed) == 1
    same("model", whole)


def test_the_command_with_processes(whole):
    trained("--workers", "2", "--scheduler", "processes")
    same("model", whole)


# Cut and started again

KILLED = """
import os, signal, sys
from tiledlaf.cli import main
from tiledlaf.model import arrays

count, write = iter(range(9)), arrays.write_arrays

def killing(path, parts):
    write(path, parts)
    if next(count) == 0:
        os.kill(os.getpid(), signal.SIGKILL)

arrays.write_arrays = killing
sys.argv = ["tiledlaf", *sys.argv[1:]]
main()
"""


def test_killed_after_the_first_checkpoint(whole):
    found = subprocess.run([sys.executable, "-c", KILLED, *TRAIN], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (-signal.SIGKILL, "")
    left = {p.name for p in Path().iterdir() if p.is_file()}
    assert left == {"model.checkpoint", "model.claim"}
    again = trained()
    rounds = again.err.partition("learning from all tiles\n")[0]
    assert "step 20/" not in rounds  # it went on, and
    assert "step 30/" in rounds
    same("model", whole)


def cut(monkeypatch, owner, name, count, *, after=False, command=TRAIN):
    """Let the count-th call of a function, or what follows it, end with Ctrl-C."""
    calls, function = itertools.count(1), getattr(owner, name)

    def call(*args, **kwargs):
        last = next(calls) == count
        if last and not after:
            raise KeyboardInterrupt
        result = function(*args, **kwargs)
        if last:
            raise KeyboardInterrupt
        return result

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, call)
        found = run(*command)
    assert found.code == 130, found
    line = "tiledlaf: interrupted; the same command goes on from the last checkpoint"
    assert found.err.splitlines()[-1] == line


@pytest.mark.parametrize(
    ("owner", "name", "count", "after"),
    [
        (training_run.training_worker, "read", 3, False),  # before the first step
        (learning.predictors, "initial", 1, True),
        (learning.Adam, "update", 1, True),
        (learning.Adam, "update", 45, False),  # between two checkpoints
        (learning.Adam, "update", 65, False),  # from all tiles
        (learning.Adam, "update", 85, True),  # and after a checkpoint of that
        (os, "replace", 1, False),  # a checkpoint is written, but not yet in its place
        (os, "replace", 2, True),
        (stores, "link", 1, False),  # the model likewise
        (stores, "link", 1, True),  # the model is there, and the checkpoint still is
    ],
)
def test_interrupted(whole, monkeypatch, owner, name, count, after):
    cut(monkeypatch, owner, name, count, after=after)
    assert Path("model").exists() == (name == "link" and after)
    trained()
    same("model", whole)


def test_cut_twice(whole, monkeypatch):
    for _ in range(2):
        cut(monkeypatch, learning.Adam, "update", 45)
    trained()
    same("model", whole)


def test_a_finished_training_does_nothing(whole, monkeypatch):
    first = trained()
    before, written = contents("."), os.stat("model").st_mtime_ns

    def step(*_):
        raise AssertionError("a step was made")

    monkeypatch.setattr(learning.Tiles, "step", step)
    monkeypatch.setattr(training_run.training_worker, "read", step)
    again = trained("--workers", "1")
    assert again.out == first.out
    assert again.err == "finished before\n"
    assert (contents("."), os.stat("model").st_mtime_ns) == (before, written)


def test_a_classifier(whole, monkeypatch):
    """Fitted once: cut after it, or run by other workers, the model is the same."""
    command = [*TRAIN, "--classifier", "--steps", "10"]
    few = functools.partial(classifiers.trees.fit, iterations=5)
    monkeypatch.setattr(classifiers.trees, "fit", few)
    monkeypatch.setattr(classifiers, "RICH", features.PATCH)
    around = features.Features((("odds", "gaussian", 2),))
    monkeypatch.setattr(classifiers, "SURROUNDINGS", around)
    trained(command=[*command, "--workers", "1"])
    expected = Path("model").read_bytes()
    found = model_file.load("model")
    kept = [b"".join(a.tobytes() for a in one.to_parts()[1].values()) for one in found.folds]
    assert len({*kept}) == len(kept) >= 2  # each fitted without another fold
    assert found.folds[0].classes == found.term.classes
    os.remove("model")
    cut(monkeypatch, learning.Adam, "update", 5, command=command)
    assert Path("model.checkpoint").exists()

    def fitted(*_):
        raise AssertionError("classifiers are in the checkpoint already")

    learner = dataclasses.replace(fitting.LEARNERS["classifier"], fit=fitted)
    monkeypatch.setitem(fitting.LEARNERS, "classifier", learner)
    trained(command=[*command, "--workers", "3"])
    same("model", expected)


OTHERS = [
    (["--size", "6"], "prototypes"),
    (["--rho", "2"], "rho"),
    (["--time", "2"], "time"),
    (["--seed", "1"], "seed"),
    (["--steps", "31"], "steps"),
    (["--loss", "cross-entropy"], "loss"),
    (["--neighborhood", "5x5"], "neighborhood"),
    (["--channels", "0"], "image"),
    (["--classifier"], "term"),
    (["--names", "names.json"], "classes"),
    (["--validation-images", "images/5.tif", "--validation-labels", "labels/5.tif"], "validation"),
    (["--mask", "images"], "training mask"),
]


@pytest.mark.parametrize("finished", [False, True], ids=["checkpoint", "model"])
def test_another_training(whole, monkeypatch, finished):
    if finished:
        trained()
    else:
        cut(monkeypatch, learning.Adam, "update", 45)
    Path("names.json").write_text('{"1": "line", "0": "cell"}')
    before = contents(".")
    for options, key in OTHERS:
        found = run(*TRAIN, *options)
        assert (found.code, found.out) == (2, "")
        (line,) = found.err.splitlines()
        path = "model" if finished else "model.checkpoint"
        assert line.startswith(f"tiledlaf: error: {path} belongs to another training: it has ")
        assert key in line
        assert "(choose another MODEL or remove it)" in line
        assert contents(".") == before


def test_other_images(whole):
    """Another state of a file is another training."""
    trained()
    os.remove("images")
    Path("images").mkdir()
    for seed in range(6):
        tifffile.imwrite(f"images/{seed}.tif", lines((64, 64), cells=10, seed=seed)[0])
    found = run(*TRAIN)
    assert found.code == 2
    assert "belongs to another training: it has training image" in found.err


# When it stops


def test_limit(whole):
    """Where no time is left to learn weights, none are."""
    found = trained("--limit", "0")
    assert "time limit\n" in found.err
    assert "learned weights" not in found.out
    assert run("label", "images/0.tif", "out.zarr", "--model", "model").code == 0
    assert run("report", "model").code == 0
    Path("model.report.html").unlink()
    assert trained().err == "finished before\n"


def test_limit_of_learned_weights(whole):
    found = trained("--limit", "0", "--flow", "learned")
    assert found.err.endswith("time limit\n")
    assert "learned weights of 0 steps" in found.out


def test_limit_after_a_cut(whole, monkeypatch):
    cut(monkeypatch, learning.Adam, "update", 45)
    trained("--limit", "0")
    assert model_file.load("model").trained["steps"] == 20


RUNAWAY = [
    {"patches": 1e6, "anchors": 1e6, "sigma": 1e3},
    {"sigma": 1e4},
    {"patches": 1e40},
    {"anchors": 1e30},
]


@pytest.mark.parametrize("rates", RUNAWAY)
def test_a_loss_that_is_not_finite(whole, monkeypatch, rates):
    """The state before is the model, and what happened is said."""
    trained("--limit", "0", "--flow", "learned")
    first = learned()
    os.remove("model")
    monkeypatch.setattr(learning, "RATES", rates)
    found = trained("--flow", "learned")
    assert "tiledlaf: warning: the loss is no longer finite at step " in found.err
    assert "the best state so far is kept" in found.err
    assert len(found.err.splitlines()) < 8
    equal(learned(), first)


@pytest.mark.parametrize("where", ["loss_sums", "parameter_gradient", "scores"])
def test_not_finite_on_the_way(whole, monkeypatch, where):
    """After the first validation, in the loss or its gradient, or in the second validation."""
    Path("other").write_bytes(whole)
    history = model_file.load("other").trained["history"]
    function, calls = getattr(training_worker, where), itertools.count(1)
    # two tiles per image, and in each step one image of both rounds
    bad = {"loss_sums": 101, "parameter_gradient": 101, "scores": 25}[where]

    def broken(argument, lesson):
        found = function(argument, lesson)
        if argument[1] is None or next(calls) != bad:
            return found
        if where == "parameter_gradient":
            return {k: v * np.nan for k, v in found.items()}
        if where == "loss_sums":
            return dataclasses.replace(found, loss=found.loss * np.nan)
        return found._replace(sums=found.sums * np.nan)

    monkeypatch.setattr(training_worker, where, broken)
    found = trained("--workers", "1")
    now = model_file.load("model").trained
    (line,) = [line for line in found.err.splitlines() if "no longer finite at step" in line]
    step = int(line.split("step ")[1].split(":")[0])
    assert line.endswith("the best state so far is kept")
    assert step == 30 if where == "scores" else 20 < step < 30
    assert now["history"] == history[:2]
    assert now["error"] == history[1]["validation"]


def test_time_counts_from_the_first_start(whole, monkeypatch):
    cut(monkeypatch, learning.Adam, "update", 45)
    held = model_arrays.read_arrays("model.checkpoint", "checkpoint")
    about = json.loads(str(held["state"])) | {"seconds": 600.0}
    model_arrays.write_arrays("model.checkpoint", held | {"state": np.array(json.dumps(about))})
    found = trained("--limit", "9")
    assert "time limit" in found.err
    assert model_file.load("model").trained["steps"] == 20


def test_stops_when_validation_no_longer_improves(whole):
    found = trained("--steps", "2000")
    about = model_file.load("model").trained
    errors = [entry["validation"] for entry in about["history"]]
    best = errors.index(min(errors))
    assert about["steps"] == learning.EVERY * best
    assert about["error"] == min(errors)
    later = len(errors) - 1 - best
    assert later * learning.EVERY == 10 * training_run.Recipe().patience
    assert f"{about['steps']} steps" in found.out


def test_the_best_state_is_kept(whole, monkeypatch):
    """Steps that only make it worse: the first state is the model."""
    trained("--limit", "0", "--flow", "learned")
    first = learned()
    os.remove("model")
    monkeypatch.setattr(learning, "RATES", {"patches": -0.5})
    trained("--flow", "learned")
    errors = [entry["validation"] for entry in model_file.load("model").trained["history"]]
    assert min(errors[1:]) > errors[0]
    equal(learned(), first)


# From which pixels


@pytest.mark.parametrize("ignore", [99, 0])
def test_sparse_labels(whole, ignore):
    """Labels of one pixel in eight, and of few tiles; label values above 255."""
    rng = np.random.default_rng(0)
    Path("sparse").mkdir()
    for seed in range(6):
        labels = lines((64, 64), cells=10, seed=seed)[1].astype(np.uint16)
        labels = np.where(labels == 1, 700, 300)
        labels[rng.random(labels.shape) < 7 / 8] = ignore
        labels[:32, :32] = ignore
        tifffile.imwrite(f"sparse/{seed}.tif", labels.astype(np.uint16))
    trained("--labels", "sparse", "--ignore", ignore, "--size", "20")
    found = model_file.load("model")
    assert [c.values for c in found.classes] == [(300,), (700,)]
    image, truth = lines((128, 128), seed=7)
    tifffile.imwrite("unseen.tif", image)
    assert run("label", "unseen.tif", "out.zarr", "--model", "model").code == 0
    labels = zarr.open_array("out.zarr/labels/tiledlaf/0", mode="r")[:] - 1
    assert (labels != truth).mean() < 0.012


def test_ignored_pixels_are_not_looked_at(whole):
    """What the labels of ignored pixels would be changes nothing."""
    found = []
    for value in (99, 0):
        folder = Path(f"labels{value}")
        folder.mkdir()
        for seed in range(6):
            labels = lines((64, 64), cells=10, seed=seed)[1] + 1
            labels[:, 40:] = value
            tifffile.imwrite(folder / f"{seed}.tif", labels)
        trained("--labels", folder, "--ignore", value)
        found.append(learned())
        os.remove("model")
    equal(*found)


def test_masked_pixels(whole):
    """Neither labels nor pixels under the mask are looked at, and no weight leads there."""
    rng = np.random.default_rng(0)
    found = []
    for turn in range(2):
        for name in ("images", "labels", "masks"):
            Path(f"{name}{turn}").mkdir()
        for seed in range(6):
            image, labels = lines((64, 64), cells=10, seed=seed)
            valid = np.ones(labels.shape, np.uint8)
            valid[20:30, 10:50] = 0
            inner = np.zeros(labels.shape, bool)
            inner[21:29, 11:49] = True  # patches of pixels beside the mask reach into it
            if turn:
                labels = np.where(valid, labels, rng.integers(0, 2, labels.shape)).astype(np.uint8)
                image = np.where(inner, rng.normal(size=image.shape), image).astype(np.float32)
            for name, array in (("images", image), ("labels", labels), ("masks", valid)):
                tifffile.imwrite(f"{name}{turn}/{seed}.tif", array)
        trained("--images", f"images{turn}", "--labels", f"labels{turn}", "--mask", f"masks{turn}")
        found.append(learned())
        os.remove("model")
    equal(*found)


def test_names_merge_values(whole):
    """In the order of their first appearance in the file."""
    Path("three").mkdir()
    for seed in range(6):
        labels = lines((64, 64), cells=10, seed=seed)[1]
        labels = np.where(labels == 1, 0, 255)
        labels[:, ::2][labels[:, ::2] == 0] = 32
        tifffile.imwrite(f"three/{seed}.tif", labels.astype(np.uint8))
    Path("names.json").write_text('{"255": "inside", "0": "membrane", "32": "membrane"}')
    printed = trained("--labels", "three", "--names", "names.json").out
    found = model_file.load("model")
    assert found.classes == (Class("inside", (255,)), Class("membrane", (0, 32)))
    assert "1 inside: label values 255" in printed
    assert "2 membrane: label values 0, 32" in printed
    merged = learned()
    os.remove("model")
    trained()  # cells are 0 and lines 1: the same classes in the same order
    plain = learned()
    about, other = (json.loads(str(arrays.pop("model"))) for arrays in (merged, plain))
    equal(merged, plain)
    assert about | {"classes": other["classes"]} == other


def test_classes_in_increasing_order(whole):
    trained()
    assert [c.values for c in model_file.load("model").classes] == [(0,), (1,)]


def test_prototypes_are_the_class_means(whole):
    trained()
    pairs = [lines((64, 64), cells=10, seed=seed) for seed in range(6)]
    image, labels = (np.stack(arrays) for arrays in zip(*pairs, strict=True))
    means = [[image[labels == j].mean(dtype=np.float64)] for j in (0, 1)]
    term = model_file.load("model").term
    np.testing.assert_allclose(term.values, means, rtol=1e-12)
    nearest = np.min([(image.astype(float) - m[0]) ** 2 for m in means], axis=0)
    assert term.scale == pytest.approx(nearest.mean(), rel=1e-9)


@pytest.mark.parametrize("how", ["store", "array"])
def test_zarr_gives_the_same_model(whole, how):
    """OME-Zarr and plain arrays, in a folder with other files."""
    for name in ("images", "labels"):
        Path(f"z{name}").mkdir()
        Path(f"z{name}/notes.txt").write_text("mine")
        for seed in range(6):
            array = tifffile.imread(f"{name}/{seed}.tif")
            if how == "array":
                zarr.save_array(f"z{name}/{seed}.zarr", array)
            else:
                ome(f"z{name}/{seed}.zarr", array)
    trained("--images", "zimages", "--labels", "zlabels/*.zarr")
    Path("other").write_bytes(whole)
    equal(learned(), learned("other"))


def ome(path, array):
    pyramid = levels.Pyramid(
        "",
        "yx",
        0,
        (array.shape,),
        (32, 32),
        (1.0, 1.0),
        (0.0, 0.0),
        (None, None),
        array.dtype.name,
    )
    pyramid.create(str(path), "0.5", 3)
    zarr.open_array(f"{path}/0", mode="r+")[:] = array


def test_workers_of_another_folder(whole, tmp_path, monkeypatch):
    """Paths that are relative here mean the same to workers elsewhere."""
    data = training_run.Data(examples.pair("images", "labels"))
    (tmp_path / "elsewhere").mkdir()

    def move(record):
        monkeypatch.chdir(tmp_path / "elsewhere")

    with tasks.threads(2) as pool:
        recipe = training_run.Recipe(predictor_size=5, steps=30)
        training_run.train(data, recipe, pool, tmp_path / "model", progress=move)
    same(tmp_path / "model", whole)


def test_pairs_are_sorted_by_number(here):
    """9 comes before 10, whatever the names beside."""
    for name in ("images", "labels"):
        Path(name).mkdir()
        for number in (1, 2, 9, 10, 11):
            tifffile.imwrite(f"{name}/{name}{number}.tif", np.full((2, number), 1, np.uint8))
    found = examples.pair("images", "labels/*.tif")
    assert [e.image.grid[1] for e in found] == [1, 2, 9, 10, 11]
    (one,) = examples.pair("images/images9.tif", "labels/labels9.tif")
    assert one.labels.path == "labels/labels9.tif"


# What is set aside


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 11])
@pytest.mark.parametrize(
    ("shape", "neighborhood"),
    [
        ((64, 80), "3x3"),
        ((700, 1100), "3x3"),
        ((33, 40), "rings:3"),
        ((9, 20, 30), "3x3"),
        ((40, 64, 30), "3x3x3"),
    ],
)
def test_what_judges(count, shape, neighborhood):
    """Every pixel is in one tile alone; each judges once what was learned from others."""
    labels = (np.indices(shape).sum(axis=0) % 2).astype(np.uint8)
    axes = "zyx"[-len(shape) :]
    example = examples.Example(from_array(np.zeros(shape), axes), from_array(labels, axes))
    data = training_run.Data([example] * count)
    with tasks.threads(1) as pool:
        plan = training_plan.make_plan(data, training_run.Recipe(neighborhood), pool)
    times = [np.zeros(shape, int) for _ in range(count)]
    for one in plan.training:
        times[one.example][training_worker.core_of(one)] += 1
    assert all((found == 1).all() for found in times)
    places = [(t.example, t.tile.index) for t in plan.training]
    assert places == sorted(places)
    everything = list(range(len(plan.training)))
    assert not plan.validation
    assert sorted(i for one in plan.rounds for i in one.judged) == everything
    assert plan.whole.training == everything
    for one in plan.rounds:
        assert sorted([*one.training, *one.judged]) == everything
        assert 0.3 * len(everything) < len(one.judged) < 0.7 * len(everything)
    if count >= 5:
        images = [{plan.training[i].example for i in one.judged} for one in plan.rounds]
        assert not images[0] & images[1]


def test_what_judges_is_not_learned_from(whole, monkeypatch):
    """Labels of the last image turned over: what is learned from the others is the same."""
    Path("turned").mkdir()
    for seed in range(6):
        labels = tifffile.imread(f"labels/{seed}.tif")
        tifffile.imwrite(f"turned/{seed}.tif", 1 - labels if seed == 5 else labels)
    kept = []
    monkeypatch.setattr(checkpoint.Checkpoint, "keep", lambda _, state: kept.append(state))
    recipe = training_run.Recipe(predictor_size=5, steps=20)
    with tasks.threads(1) as pool:
        for labels in ("labels", "turned"):
            data = training_run.Data(examples.pair("images", labels), term=((0.0,), (1.0,)))
            training_run.train(data, recipe, pool)
    first, turned = (one for one in kept if one.step == 20 and one.chosen is None)
    for number, alike in ((0, True), (1, False)):  # the second round learns from the last image
        pair = [one.learned[number].predictor.patches for one in (first, turned)]
        assert np.array_equal(*pair) == alike
    assert turned.error > first.error + 0.1


def test_validation_images(whole):
    """They judge what is learned from all training images at once, which is the model."""
    command = [*TRAIN, "--steps", "20", "--validation-images", "images/5.tif"]
    found = trained(command=[*command, "--validation-labels", "labels/5.tif"])
    assert "learning from all tiles" not in found.err
    about = model_file.load("model").trained
    assert about["choice"]["judged"] == "validation over 2 blocks of 1 image"
    assert about["steps"] == 20
    assert about["error"] == about["history"][-1]["validation"]


def test_a_class_missing_in_validation(whole):
    labels = tifffile.imread("labels/5.tif")
    tifffile.imwrite("one.tif", np.where(labels == 1, 0, 9).astype(np.uint8))
    found = trained("--validation-images", "images/5.tif", "--validation-labels", "one.tif")
    assert "tiledlaf: warning: no validation pixel is of 1\n" in found.err
    words = (
        "not used for validation, since no training pixel has them: "
        "label values 9 of the validation images"
    )
    assert f"tiledlaf: warning: {words}\n" in found.err


# Parts


@settings(max_examples=200)
@given(
    values=st.lists(
        st.tuples(st.integers(-20, 20), st.integers(-20, 20), st.integers(0, 1)),
        min_size=1,
        max_size=30,
    )
)
def test_bias_of_two_classes(values):
    """The fewest errors that any bias makes."""
    table = np.array(values)
    scores, labels = table[:, :2] / 8, table[:, 2]
    bias, error = judging.fit_bias(scores.astype(np.float32), labels)
    assert bias.sum() == 0
    gaps = np.unique(scores[:, 1] - scores[:, 0])
    between = [gaps[0] - 1, *((gaps[1:] + gaps[:-1]) / 2), gaps[-1] + 1]
    best = min(((scores[:, 0] + b < scores[:, 1]) != labels).mean() for b in between)
    assert error == best
    assert ((scores + bias).argmax(axis=1) != labels).mean() == error


@settings(max_examples=200)
@given(
    count=st.integers(3, 5),
    pixels=st.integers(1, 40),
    seed=st.integers(0, 999),
    rounded=st.booleans(),
)
@example(count=3, pixels=3, seed=38, rounded=False)  # moves without a gain went round in a circle
def test_bias_of_more_classes(count, pixels, seed, rounded):
    """No more errors than without, and none that one bias alone could spare, but for ties."""
    rng = np.random.default_rng(seed)
    scores, labels = rng.normal(size=(pixels, count)), rng.integers(0, count, pixels)
    if rounded:
        scores = scores.round(1)
    bias, error = judging.fit_bias(scores, labels, rounds=50)
    assert abs(bias.sum()) < 1e-12

    def wrong(b):
        return ((scores + b).argmax(axis=1) != labels).mean()

    assert error == wrong(bias)
    if rounded:  # where scores tie, a class after another may miss what both could spare
        return
    assert error <= wrong(np.zeros(count))
    for j in range(count):
        rest = np.delete(scores + bias, j, axis=1).max(axis=1)
        turns = np.sort(rest - scores[:, j] - bias[j])
        for change in [turns[0] - 1, *((turns[1:] + turns[:-1]) / 2), turns[-1] + 1]:
            moved = bias.copy()
            moved[j] += change
            if np.abs(turns - change).min() > 1e-9:
                assert error <= wrong(moved)


def test_bias_without_a_need():
    """Of all biases that make no error the one nearest to none: here the middle of a wide gap."""
    scores = np.array([[0.0, 1.0], [2.0, 0.0]])
    bias, error = judging.fit_bias(scores, np.array([1, 0]))
    assert error == 0
    np.testing.assert_allclose(bias, [-0.25, 0.25])


@pytest.mark.parametrize("absent", [0, 1, 2])
def test_bias_of_a_class_without_labels(absent):
    """It is not raised as far as no pixel of the others becomes wrong."""
    labels = np.repeat(np.delete(np.arange(3), absent), 50)
    scores = np.where(np.arange(3) == labels[:, None], 9.0, 0.0)
    bias, error = judging.fit_bias(scores, labels)
    assert error == 0
    assert not bias.any()


def test_order_of_a_sum():
    assert tasks.tree_sum([1e16, 1.0, -1e16, 1.0]) == 0  # 1 from left to right
    assert tasks.tree_sum([1.0, 1e16, 1.0, -1e16, 3.0]) == 3
    parts = [np.ones(2) for _ in range(5)]
    np.testing.assert_array_equal(tasks.tree_sum(parts), [5, 5])
    assert all((part == 1).all() for part in parts)


# Tiles against the whole


def gradients(edges, loss, *, halo=None, features=features.PATCH, time=3.0, tol=1e-3, seed=0):
    """Loss and gradient of a predictor on an image that is cut into tiles."""
    shape = (96, 112)
    image, labels = lines(shape, seed=seed)
    labels[:, 70:80] = 9  # not labeled
    (example,) = examples.pair(image, labels)
    flow = training_worker.FlowSettings(
        (Class("cell", (0,)), Class("line", (1,))),
        parse("3x3", 2),
        1.0,
        time,
        Polynomials(tol),
        losses.make(loss),
    )
    rng = np.random.default_rng(1)
    count = features.count(1, 1)
    weights = Predictor(
        features,
        np.full(count, 0.4),
        np.full(count, 0.6),
        rng.normal(size=(6, count)),
        rng.normal(size=(6, 9)) * 0.5,
    )
    reach = flow.halo if halo is None else (halo,) * 2
    tiles = [training_worker.LabeledTile(0, t) for t in Grid(shape, (0, 0), shape, edges, reach)]
    term = Prototypes(((0.0,), (1.0,)), 1.0)  # so undecided that far pixels matter
    with tasks.threads(2) as pool:
        handles = pool.persist(
            training_worker.read,
            training_worker.TileReader(flow, (example,), (term,), features),
            tiles,
        )
        held = learning.Tiles(pool, flow, handles)
        sums, found = held.step(weights, np.zeros(2), range(len(tiles)), None)
    return flow.loss.value(sums.loss), (sums.wrong, sums.labeled), found


def distance(found, expected):
    """Relative to the gradient in all parameters: that in sigma alone may nearly vanish."""
    pairs = [(found[key].ravel(), value.ravel()) for key, value in expected.items()]
    difference, size = (
        np.concatenate(x) for x in ([a - b for a, b in pairs], [b for _, b in pairs])
    )
    return np.linalg.norm(difference) / np.linalg.norm(size)


@pytest.mark.parametrize("loss", ["cosine", "cross-entropy"])
@pytest.mark.parametrize("of", ["patch", "context"])
def test_one_tile_and_many(loss, of):
    """With a halo of r n: losses to 1e-12, gradients to 1e-6 (found: 1e-7)."""
    chosen = features.PATCH if of == "patch" else features.CONTEXT
    whole, counts, expected = gradients((96, 112), loss, features=chosen)
    for edges in ((48, 56), (20, 112), (33, 17)):
        value, found_counts, found = gradients(edges, loss, features=chosen)
        assert value == pytest.approx(whole, rel=1e-12)
        np.testing.assert_array_equal(found_counts, counts)
        assert distance(found, expected) < 1e-6


def test_a_smaller_halo_is_seen():
    _, _, expected = gradients((96, 112), "cosine")
    assert distance(gradients((33, 17), "cosine", halo=3)[2], expected) > 1e-4
