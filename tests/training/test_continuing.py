"""Going on from a model: what is taken from it, what is refused, and the same model at last."""

import dataclasses
import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from command import contents, run
from trainings import same, write
from voronoi import lines

import tiledlaf
from tiledlaf.annotations.numbering import Legend
from tiledlaf.files.images import from_array
from tiledlaf.flow import stencil
from tiledlaf.model import model as model_file
from tiledlaf.model import trees
from tiledlaf.model.classes import Class
from tiledlaf.model.features import CONTEXT, Features
from tiledlaf.model.terms import AutoContext, Classified
from tiledlaf.training import classifiers, continuing, learning

COMMON = ["--images", "images", "--labels", "labels", "--workers", "2"]
# what a first training says, and its successor does not
ASKED = ["--neighborhood", "5x5", "--time", "2", "--rho", "1.5", "--tol", "0.01", "--size", "4"]
ASKED += ["--loss", "cross-entropy", "--seed", "3", "--flow", "learned", "--names", "names.json"]
ASKED += ["--priors", "none", "--features", "patch", "--steps", "20"]
NEXT = ["train", "next", "--from", "first", *COMMON]
NAMES = {"1": "line", "0": "cell"}


@pytest.fixture(scope="module")
def _made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    for seed in range(4):
        write(folder, seed, *lines((64, 64), cells=10, seed=seed))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("names.json").write_text(json.dumps(NAMES))
        found = run("train", "first", *COMMON, *ASKED)
        assert found.code == 0, found
    return folder


@pytest.fixture
def here(_made, tmp_path, monkeypatch):
    """The current folder has images, labels, and a model of them."""
    monkeypatch.chdir(tmp_path)
    for path in _made.iterdir():
        os.symlink(path, path.name)
    return tmp_path


def trained(*options, command=NEXT, to="next"):
    found = run(*command, *options)
    assert found.code == 0, found
    return model_file.load(to)


def relabel(change, folder="changed"):
    """Other labels of the same images."""
    Path(folder).mkdir()
    for path in sorted(Path("labels").iterdir()):
        tifffile.imwrite(f"{folder}/{path.name}", change(tifffile.imread(path)))
    return ["--labels", folder]


def refused(*options):
    """The line that says why, with nothing left behind."""
    before = contents(".")
    found = run(*NEXT, *options)
    assert (found.code, found.out) == (2, ""), found
    assert contents(".") == before
    return found.err.splitlines()[-1]


def test_all_that_is_not_said_is_the_models(here):
    old, new = model_file.load("first"), trained()
    assert new.classes == old.classes == (Class("line", (1,)), Class("cell", (0,)))
    for key in ("offsets", "time", "rho", "tol", "channels"):
        assert getattr(new, key) == getattr(old, key), key
    assert new.predictor.anchors.shape == old.predictor.anchors.shape
    assert new.predictor.features == old.predictor.features
    for key in ("seed", "loss"):
        assert new.trained[key] == old.trained[key], key
    asked = new.trained["print"]
    assert (asked["steps"], asked["patience"], asked["flow"]) == (60, 4, "learned")
    assert (asked["priors"], asked["term"], asked["prototypes"]) == ("none", "means", 4)
    assert asked["from"] == old.fingerprint()


def test_what_is_said_holds(here):
    new = trained("--rho", "1", "--flow", "uniform", "--time", "3", "--steps", "300")
    assert (new.rho, new.predictor, new.trained["choice"]["way"]) == (1, None, "uniform")
    assert new.trained["print"]["time"] == 3
    assert new.trained["print"]["steps"] == 300  # as typed, though it is the default of others


def test_weights_begin_with_the_models(here):
    new = trained("--limit", "0")
    old = model_file.load("first")
    np.testing.assert_array_equal(new.predictor.anchors, old.predictor.anchors)
    np.testing.assert_array_equal(new.predictor.patches, old.predictor.patches)
    other = ["train", "other", *NEXT[2:]]
    fresh = trained("--limit", "0", "--size", "5", command=other, to="other")
    assert len(fresh.predictor.anchors) == 5


def test_what_judges_does_not_begin_with_what_has_seen_it(here, monkeypatch):
    """The two halves begin anew; validation images may be judged by the model's weights."""
    begun, initial = [], learning.Tiles.initial

    def noted(self, features, chosen, recipe):
        begun.append(len(chosen))
        return initial(self, features, chosen, recipe)

    monkeypatch.setattr(learning.Tiles, "initial", noted)
    trained("--limit", "0")
    assert begun == [4, 4]
    begun.clear()
    other = ["--validation-images", "images/3.tif", "--validation-labels", "labels/3.tif"]
    trained("--limit", "0", *other, command=["train", "other", *NEXT[2:]])
    assert begun == []


@pytest.mark.parametrize("flow", ["learned", "uniform"])
@pytest.mark.parametrize("count", [1, 45, 85])
def test_cut_and_started_again(here, monkeypatch, flow, count):
    command = [*NEXT, "--flow", flow, "--steps", "60"]
    trained("--workers", "3", command=command)
    expected = Path("next").read_bytes()
    os.remove("next")
    calls, update = itertools.count(1), learning.Adam.update

    def cut(*args, **kwargs):
        if next(calls) == count:
            raise KeyboardInterrupt
        return update(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(learning.Adam, "update", cut)
        assert run(*command).code == (130 if flow == "learned" else 0)
    trained("--workers", "1", command=command)
    same("next", expected)


def test_another_model_is_another_training(here):
    trained()
    dataclasses.replace(model_file.load("first"), bias=(0.5, -0.5)).save("other")
    line = refused("--from", "other")
    assert line.startswith("tiledlaf: error: next belongs to another training: it has from ")


def test_the_model_itself_stays(here):
    before = Path("first").read_bytes()
    os.link(os.path.realpath("first"), "second")
    for path in ("first", "second"):
        found = run("train", path, "--from", "first", *COMMON)
        assert (found.code, found.out) == (2, "")
        line = "expected a new file for the model, got that of --from, first"
        assert found.err == f"tiledlaf: error: {line}\n"
    assert Path("first").read_bytes() == before


def test_no_model(here):
    assert "expected a" in refused("--from", "names.json")


# Classes


def test_a_class_without_labels(here):
    line = refused(*relabel(lambda labels: np.where(labels == 1, 7, labels)))
    assert line.startswith(
        "tiledlaf: error: expected labeled pixels of each class of the model, got cell, 7, and "
        "none of line"
    )


def test_another_meaning(here):
    Path("other.json").write_text('{"0": "line", "1": "cell"}')
    line = "expected label values to mean what they do in the model, got line for 0, which is cell"
    assert line in refused("--names", "other.json")


def test_a_new_class_comes_last(here):
    """Weights of features that depend on the number of classes begin anew."""

    def corner(labels):
        labels = labels.copy()
        labels[:20, :40] = 9
        return labels

    new = trained(*relabel(corner), "--steps", "2")
    assert [(c.name, c.values) for c in new.classes] == [
        ("line", (1,)), ("cell", (0,)), ("9", (9,)),
    ]  # fmt: skip
    old = model_file.load("first")
    assert [c.color for c in new.classes[:2]] == [c.color for c in old.classes]
    flow = learning.FlowSettings(new.classes, old.offsets, 1.0, 1.0, None, None)
    assert continuing.predictor(old, old.predictor.features, flow, 4) is old.predictor
    predictor = dataclasses.replace(old.predictor, features=CONTEXT)
    of_odds = dataclasses.replace(old, predictor=predictor)
    assert continuing.predictor(of_odds, CONTEXT, flow, 4) is None


def strokes(labels):
    """Some rows as values 1 and 2, and 0 elsewhere."""
    found = np.zeros(labels.shape, np.uint8)
    found[::8] = 2 - labels[::8]
    return found


def test_unlabeled_stays_unlabeled(here):
    drawn = relabel(strokes)
    start = ["train", "start", *COMMON, *drawn, "--flow", "none"]
    first = trained("--ignore", "0,5", command=start, to="start")
    assert first.trained["ignore"] == [0, 5]
    more = relabel(lambda labels: np.where(strokes(labels) == 0, 5, strokes(labels)), "more")
    new = trained(*more, command=["train", "next", "--from", "start", *COMMON])
    assert [c.values for c in new.classes] == [(1,), (2,)]
    # those of earlier releases do not say it
    about = {k: v for k, v in first.trained.items() if k != "ignore"}
    old = dataclasses.replace(first, trained=about)
    labels = from_array(np.zeros((8, 8), int))
    assert continuing.unlabeled(old, labels, None) == 0
    assert continuing.unlabeled(old, labels, 5) == 5
    dense = dataclasses.replace(old, classes=(Class("a", (0,)), Class("b", (1,))))
    assert continuing.unlabeled(dense, labels, None) is None


CELL, LINE = Class("cell", (3,), (1, 2, 3, 255)), Class("line", (1, 2))


def test_legend():
    labels = from_array(np.zeros((8, 8), int))
    start = dataclasses.replace(model(), classes=(CELL, LINE))
    found = continuing.legend(start, Legend({"9": "axon"}, 0), labels, {0, 1, 3, 8, 9})
    classes = continuing.colored(start, found.classes({0, 1, 3, 8, 9}))
    assert [(c.name, c.values) for c in classes] == [
        ("cell", (3,)), ("line", (1, 2)), ("axon", (9,)), ("8", (8,)),
    ]  # fmt: skip
    assert classes[0].color == CELL.color


def model():
    """A model of two classes."""
    term = tiledlaf.model.terms.Prototypes(((0.0,), (1.0,)), 1.0)
    box = stencil.box(3, 3)
    return tiledlaf.Model((CELL, LINE), term, box, 1.0, 1.0, 1e-3, 1, None, (0.0, 0.0))


def outline(name, x):
    box = [[x, 4], [x + 20, 4], [x + 20, 60], [x, 60], [x, 4]]
    shape = {"type": "Polygon", "coordinates": [box]}
    about = {"objectType": "annotation", "classification": {"name": name}}
    return {"type": "Feature", "geometry": shape, "properties": about}


def test_annotations_by_name(here):
    """The order in which classes are drawn changes nothing."""
    for folder, order in (("drawn", ("Tumor", "Stroma")), ("again", ("Stroma", "Tumor"))):
        Path(folder).mkdir()
        for number in range(4):
            rows = [outline(name, 4 if name == "Tumor" else 34) for name in order]
            found = {"type": "FeatureCollection", "features": rows}
            Path(folder, f"{number}.geojson").write_text(json.dumps(found))
    options = ["--images", "images", "--flow", "none"]
    first = trained(command=["train", "start", *options, "--labels", "drawn"], to="start")
    both = ["--from", "start", "--images", "images"]
    new = trained(command=["train", "next", *both, "--labels", "again"])
    assert new.classes == first.classes
    assert [c.name for c in new.classes] == ["Tumor", "Stroma"]
    np.testing.assert_array_equal(new.term.values, first.term.values)


# Images


def test_other_channels(here):
    Path("two").mkdir()
    for number in range(4):
        image = tifffile.imread(f"images/{number}.tif")
        tifffile.imwrite(f"two/{number}.tif", np.stack([image, image]), metadata={"axes": "CYX"})
    line = refused("--images", "two")
    assert "expected an image of 2 spatial axes and 1 channels, as the model learned" in line
    assert trained("--images", "two", "--channels", "1", "--steps", "1").channels == 1


def test_intensities_of_another_type(here):
    """Pixels of 16 bits become those of 8 that the model knows."""
    for folder, kind, factor in (("low", np.uint8, 1), ("high", np.uint16, 257)):
        Path(folder).mkdir()
        for number in range(4):
            image = tifffile.imread(f"images/{number}.tif")
            low, high = image.min(), image.max()
            scaled = np.round(255 * (image - low) / (high - low)).astype(kind) * kind(factor)
            tifffile.imwrite(f"{folder}/{number}.tif", scaled)
    start = ["train", "start", *COMMON, "--flow", "none"]
    first = trained("--images", "low", command=start, to="start")
    new = trained("--images", "high", command=["train", "next", "--from", "start", *COMMON])
    assert (new.images.dtype, new.images.range) == ("uint8", first.images.range)
    assert new.images.quantiles == first.images.quantiles
    np.testing.assert_allclose(new.term.values, first.term.values, rtol=1e-5)


# Classifiers

SMALL = Features((("image", "patch", 0, 1, 0), ("image", "gaussian", 1.5)))
AROUND = Features((("odds", "gaussian", 2),))


@pytest.fixture
def quick(monkeypatch):
    """Few features and trees."""
    monkeypatch.setattr(classifiers, "RICH", SMALL)
    monkeypatch.setattr(classifiers, "SURROUNDINGS", AROUND)
    fit = trees.fit
    monkeypatch.setattr(trees, "fit", lambda *args: fit(*args, iterations=5))


def test_stages_and_features_are_the_models(here, quick, monkeypatch):
    command = ["train", "start", *COMMON, "--classifier", "--flow", "none"]
    first = trained(command=command, to="start")
    one = first.term.first if isinstance(first.term, AutoContext) else first.term
    second = trees.fit(np.eye(100, 1, dtype=np.float32), np.arange(100) % 2, 2)
    two = AutoContext(one, AROUND, second)
    monkeypatch.setattr(classifiers, "RICH", None)
    monkeypatch.setattr(classifiers, "SURROUNDINGS", None)
    for term, stages in ((one, ["classifiers"]), (two, ["classifiers", "second classifiers"])):
        dataclasses.replace(first, term=term, folds=(term,)).save("other")
        said = []
        with tiledlaf.open_pool(workers=1) as pool:
            data = tiledlaf.Data(tiledlaf.pair("images", "labels"))
            recipe = tiledlaf.Recipe.from_model("other")
            new = tiledlaf.train(data, recipe, pool, progress=said.append)
        fits = [r["stage"] for r in said if r.get("stage", "").endswith("classifiers")]
        assert list(dict.fromkeys(fits)) == stages
        found = new.term.first if isinstance(new.term, AutoContext) else new.term
        assert isinstance(found, Classified)
        assert found.features == SMALL
        assert [type(one) for one in new.folds] == [type(new.term)] * len(first.folds)
    assert len(first.folds) >= 2


def test_no_second_classifier_where_the_first_hardly_errs(here, quick, monkeypatch):
    def right(samples, *_):
        found = [samples.labels[own] for own in samples.own]
        return [learning.Scored(np.zeros(0), np.eye(2)[labels], labels) for labels in found]

    monkeypatch.setattr(classifiers, "_scored", right)
    found = run("train", "start", *COMMON, "--classifier", "--flow", "none")
    assert found.code == 0, found
    assert "wrong by one classifier 0.00 %: too little to try a second one" in found.err
    assert isinstance(model_file.load("start").term, Classified)


def test_nothing_is_learned_that_nobody_asked_for(here, monkeypatch):
    def anchors(*_):
        raise AssertionError("anchors of weights that are not learned")

    monkeypatch.setattr(learning.Tiles, "initial", anchors)
    for flow, compared in (("none", {"none"}), ("uniform", {"none", "uniform"})):
        found = trained(command=["train", flow, *COMMON, "--flow", flow], to=flow)
        assert set(found.trained["choice"]["compared"]) == compared
        assert len(found.trained["history"]) == 1
        assert run("report", flow).code == 0
        # and going on keeps to it
        new = trained(command=["train", f"{flow}2", "--from", flow, *COMMON], to=f"{flow}2")
        assert new.trained["choice"]["way"] == flow
        assert (new.offsets, new.time) == (found.offsets, found.time)


def test_the_estimator(here):
    images = [tifffile.imread(f"images/{n}.tif") for n in range(4)]
    labels = [tifffile.imread(f"labels/{n}.tif") for n in range(4)]
    found = tiledlaf.AssignmentFlow(start="first", workers=1, steps=1).fit(images, labels)
    old = model_file.load("first")
    assert found.model_.names == old.names
    assert (found.model_.rho, found.model_.offsets) == (old.rho, old.offsets)
    assert found.model_.trained["steps"] <= 1
