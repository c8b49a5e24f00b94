"""Weights of one image from its labels: tiles against the whole, and labels made with them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from command import contents, run
from voronoi import lines

from tiledlaf import evaluate, label
from tiledlaf.files import ngff, nodes
from tiledlaf.flow.gradient import Polynomials
from tiledlaf.model.terms import Probabilities, Prototypes
from tiledlaf.pool import tasks
from tiledlaf.training import estimate as estimation
from tiledlaf.training import examples
from tiledlaf.training.estimate import Estimation

SHAPE = (96, 112)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def files(here):
    """A noisy image of lines, and its labels."""
    image, labels = lines(SHAPE, seed=4)
    tifffile.imwrite("image.tif", image)
    tifffile.imwrite("labels.tif", labels)
    return image, labels


def estimated(image, labels, path="weights.zarr", *, term="means", workers=2, ignore=None, **how):
    """Estimate in this process; what was reached, and the weights."""
    (example,) = examples.pair(image, labels)
    shown = []
    with tasks.threads(workers) as pool:
        found = estimation.estimate(
            example,
            term,
            path,
            Estimation(**({"steps": 8} | how)),
            pool,
            ignore=ignore,
            progress=shown.append,
        )
    assert [record["step"] for record in shown[1:]] == list(range(1, len(shown)))
    return found, zarr.open_array(f"{path}/0", mode="r")[:]


def check_weights(weights):
    """On the simplex, and 0 where a neighbor is outside of the image."""
    np.testing.assert_allclose(weights.sum(axis=0), 1, atol=1e-5)
    assert (weights[0, 0] == 0).all()  # above the first row there is nothing
    assert (weights[4] > 0).all()


# Through the command line


def test_nearly_nothing_is_wrong(files):
    """The steps lower the loss; labels made with the weights are the truth in nearly all pixels."""
    found = run("estimate", "image.tif", "labels.tif", "weights.zarr")
    assert found.code == 0, found
    assert "step 10/40: loss 0." in found.err
    assert " with uniform weights, " in found.out
    assert found.out.endswith("weights: weights.zarr\n")
    assert sorted(p.name for p in Path().iterdir()) == ["image.tif", "labels.tif", "weights.zarr"]
    weights = zarr.open_array("weights.zarr/0", mode="r")
    assert (weights.shape, weights.dtype) == ((9, *SHAPE), np.float32)
    check_weights(weights[:])
    assert (
        run("label", "image.tif", "out.zarr", "--weights", "weights.zarr", "--tile", "40").code == 0
    )
    assert run("evaluate", "out.zarr", "labels.tif", "--json", "e.json").code == 0
    error = json.loads(Path("e.json").read_text())["pixel_error"]
    assert error < 0.002
    said = float(found.out.split("wrong: ")[1].split(" %, ")[0].split(" ")[0])
    reached = float(found.out.split("uniform weights, ")[2].split(" %")[0])
    assert reached == pytest.approx(100 * error, abs=0.02)
    assert said > 10 * reached
    assert ngff.label_properties("out.zarr", "labels/tiledlaf") == [
        {"label-value": 1, "name": "0", "values": [0]},
        {"label-value": 2, "name": "1", "values": [1]},
    ]


def test_labels_by_tiles(files):
    """Bit for bit those of one tile."""
    image, labels = files
    estimated(image, labels)
    expected = label(image, weights="weights.zarr", tile=4096, confidence=True)
    for tile in (16, 50):
        found = label(image, weights="weights.zarr", tile=tile, confidence=True, workers=2)
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1].view("u4"), expected[1].view("u4"))
    part = label(image, weights="weights.zarr", region=((20, 80), (31, 100)), tile=32)
    np.testing.assert_array_equal(part, expected[0][20:80, 31:100])
    assert (expected[0] - 1 != labels).mean() < 0.004


CONTRADICTIONS = [
    ("--classes 2", "--weights fixes --classes: drop one or the other"),
    ("--time 3", "--weights fixes --time"),
    ("--rho 1", "--weights fixes --rho"),
    ("--tol 1e-3", "--weights fixes --tol"),
    ("--neighborhood 3x3", "--weights fixes --neighborhood"),
    ("--integrator euler", "--weights fixes --integrator"),
    ("--prototypes other.csv", "--weights were estimated with the prototypes"),
    ("--probabilities p.npy", "--weights were estimated with the prototypes"),
    ("--names names.txt", "--names: the classes have names from their training"),
]


def refused(words, *arguments):
    """One line with these words, and nothing is written."""
    before = contents(".")
    found = run(*arguments)
    assert (found.code, found.out) == (2, ""), found
    line = found.err.splitlines()[-1]
    assert line.startswith("tiledlaf: error: ")
    assert words in line
    assert contents(".") == before


def test_contradictions(files):
    estimated(*files, steps=1)
    Path("other.csv").write_text("0\n3\n")
    Path("names.txt").write_text("a\nb\n")
    np.save("p.npy", np.full((2, *SHAPE), 0.5, np.float32))
    command = ["label", "image.tif", "out.zarr", "--weights", "weights.zarr"]
    for options, words in CONTRADICTIONS:
        refused(words, *command, *options.split())
    tifffile.imwrite("other.tif", files[0][:-1])
    refused(
        "expected weights of the size (95, 112)",
        "label",
        "other.tif",
        "out.zarr",
        "--weights",
        "weights.zarr",
    )
    for path in ("none.zarr", "image.tif", "."):
        refused(f"{path}: expected weights from 'tiledlaf estimate'", *command[:-1], path)
    zarr.save_array("array.zarr", np.zeros((9, *SHAPE)))
    refused(
        "array.zarr: expected weights from 'tiledlaf estimate', got something else",
        *command[:-1],
        "array.zarr",
    )


def test_weights_of_another_image(files):
    estimated("image.tif", "labels.tif", steps=1)
    tifffile.imwrite("other.tif", files[0] + 1)
    refused(
        "weights.zarr: expected weights of other.tif, got those of another image",
        "label",
        "other.tif",
        "out.zarr",
        "--weights",
        "weights.zarr",
    )
    assert run("label", "image.tif", "out.zarr", "--weights", "weights.zarr").code == 0


def test_probabilities(files):
    image, _ = files
    p = 1 / (1 + np.exp(-4 * (image - 0.5)))
    np.save("p.npy", np.stack([1 - p, p]).astype(np.float32))
    found = run(
        "estimate", "image.tif", "labels.tif", "w.zarr", "--probabilities", "p.npy", "--steps", "8"
    )
    assert found.code == 0, found
    command = ["label", "image.tif", "out.zarr", "--weights", "w.zarr"]
    refused("--weights were estimated with --probabilities: give them", *command)
    np.save("p3.npy", np.full((3, *SHAPE), 1 / 3, np.float32))
    refused("expected probabilities of 2 classes, got 3", *command, "--probabilities", "p3.npy")
    assert run(*command, "--probabilities", "p.npy").code == 0
    assert evaluate("out.zarr", "labels.tif").error < 0.005


def test_prototypes_and_names(files):
    Path("p.csv").write_text("1\n0\n")
    Path("names.json").write_text('{"1": "line", "0": "cell"}')
    found = run(
        "estimate",
        "image.tif",
        "labels.tif",
        "w.zarr",
        "--prototypes",
        "p.csv",
        "--steps",
        "8",
        "--names",
        "names.json",
    )
    assert found.code == 0, found
    command = ["label", "image.tif", "out.zarr", "--weights", "w.zarr"]
    assert run(*command, "--prototypes", "p.csv").code == 0
    assert ngff.label_properties("out.zarr", "labels/tiledlaf") == [
        {"label-value": 1, "name": "line", "values": [1]},
        {"label-value": 2, "name": "cell", "values": [0]},
    ]
    assert evaluate("out.zarr", "labels.tif").error < 0.005


def test_resumed_with_other_weights(files):
    estimated(*files, "a.zarr", steps=1)
    estimated(*files, "b.zarr", steps=2)
    command = ["label", "image.tif", "out.zarr", "--weights"]
    assert run(*command, "a.zarr").code == 0
    assert run(*command, "a.zarr").code == 0
    refused("labels/tiledlaf belongs to another run: it has weights", *command, "b.zarr")


# Tiles


@pytest.mark.parametrize("loss", ["cosine", "cross-entropy"])
def test_one_tile_and_many(here, loss):
    """Losses to 1e-9 and weights to 1e-5 (found: no difference)."""
    image, labels = lines(SHAPE, seed=4)
    whole, expected = estimated(image, labels, "whole.zarr", tile=512, loss=loss)
    for tile in (32, 50):
        tiled, found = estimated(image, labels, f"{tile}.zarr", tile=tile, loss=loss)
        np.testing.assert_allclose(tiled.losses, whole.losses, rtol=1e-9)
        assert np.abs(found - expected).max() < 1e-5
        assert tiled.wrong == pytest.approx(whole.wrong, rel=1e-9)


def test_any_number_of_workers(here):
    image, labels = lines(SHAPE, seed=4)
    found = [estimated(image, labels, f"{n}.zarr", tile=32, workers=n, steps=3)[1] for n in (1, 3)]
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize(
    "how", [{}, {"step": "exponential"}, {"tau": 1e-5}, {"loss": "cross-entropy"}]
)
def test_the_loss_falls(here, how):
    found, weights = estimated(*lines(SHAPE, seed=4), tile=64, **how)
    assert (np.diff(found.losses) <= 0).all()
    assert found.losses[-1] < 0.8 * found.losses[0]
    assert found.wrong[1] < found.wrong[0]
    check_weights(weights)


def test_the_regularizer_keeps_weights_near_uniform(here):
    image, labels = lines(SHAPE, seed=4)
    spread = [
        np.abs(np.log(estimated(image, labels, f"{tau}.zarr", tau=tau)[1][:, 1:-1, 1:-1])).std()
        for tau in (0.0, 1e-4)
    ]
    assert spread[1] < 0.7 * spread[0]


# Sequences


def test_a_sequence_by_tiles(here):
    """Weights of three flows: by tiles those of the whole, and so are labels made with them."""
    image, labels = lines(SHAPE, seed=4)
    how = {"sequence": 3, "time": 2.0, "tol": 1e-2, "steps": 4}
    whole, expected = estimated(image, labels, "whole.zarr", tile=512, **how)
    assert expected.shape == (27, *SHAPE)
    for n in range(3):
        check_weights(expected[9 * n : 9 * (n + 1)])
    # each flow has weights of its own
    assert np.abs(expected[:9] - expected[18:]).max() > 0.05
    tiled, found = estimated(image, labels, "tiled.zarr", tile=32, **how)
    np.testing.assert_allclose(tiled.losses, whole.losses, rtol=1e-9)
    assert np.abs(found - expected).max() < 1e-5
    assert (np.diff(whole.losses) < 0).all()
    assert whole.losses[-1] < 0.5 * whole.losses[0]
    one = label(image, weights="whole.zarr", tile=4096, confidence=True)
    assert (one[0] - 1 != labels).mean() == pytest.approx(whole.wrong[1], abs=2e-4)
    for tile in (16, 50):
        many = label(image, weights="whole.zarr", tile=tile, confidence=True, workers=2)
        np.testing.assert_array_equal(many[0], one[0])
        np.testing.assert_array_equal(many[1].view("u4"), one[1].view("u4"))


def test_the_steps_of_a_sequence_are_those_of_the_whole_array(files):
    """The same first step as by hand: the gradient of all flows, end to end."""
    from tiledlaf import LinearizedSequence, linearize_sequence, solve
    from tiledlaf.flow import stencil
    from tiledlaf.flow.losses import Cosine
    from tiledlaf.flow.optimizers import Descent
    from tiledlaf.model.terms import Prototypes

    image, labels = files
    term = Prototypes(((0.0,), (1.0,)), 1.0)
    how = {"sequence": 2, "time": 2.0, "tol": 1e-3, "steps": 1, "rate": 0.5}
    reached, found = estimated(image, labels, term=term, **how)
    distances = np.stack([image, image - 1]) ** 2
    weights = [stencil.uniform(stencil.box(3, 3), SHAPE)] * 2
    flows = linearize_sequence(
        weights, distances, stencil.box(3, 3), time=2.0, way=Polynomials(1e-3)
    )
    loss, target = Cosine(), labels.astype(int) + 1
    sums = loss.sums(flows.z, target)
    assert reached.losses[0] == pytest.approx(loss.value(sums), rel=1e-5)
    tangents = [one.tangent for one in flows.gradient(loss.gradient(flows.z, target, sums))]
    h = 0.5 / max(abs(t).max() for t in tangents)
    moved = [Descent().move(w, t, h) for w, t in zip(weights, tangents, strict=True)]
    np.testing.assert_allclose(found, np.concatenate(moved), atol=2e-5)
    z = solve(
        np.stack(moved),
        distances,
        stencil.box(3, 3),
        time=2.0,
        integrator=LinearizedSequence(2, 1e-3),
    ).z
    assert reached.losses[1] == pytest.approx(loss.value(loss.sums(z, target)), rel=1e-4)


def test_a_sequence_through_the_command_line(files):
    command = ("estimate", "image.tif", "labels.tif", "w.zarr", "--sequence")
    refused("--sequence must be 1 or more, got 0", *command, "0")
    assert run(*command, "2", "--steps", "3", "--time", "2", "--tol", "1e-2").code == 0
    planned = run("label", "image.tif", "out.zarr", "--weights", "w.zarr", "--dry-run")
    assert "LinearizedSequence, steps 2, tol 0.01, T 2" in planned.out
    found = run("label", "image.tif", "out.zarr", "--weights", "w.zarr", "--tile", "40")
    assert found.code == 0, found
    labels = np.asarray(nodes.open_array("out.zarr", "labels/tiledlaf/0")[:])
    np.testing.assert_array_equal(labels, label(files[0], weights="w.zarr"))
    assert (labels - 1 != files[1]).mean() < 0.02


# Labels and pixels


def test_sparse_labels(here):
    """Pixels without a label count for nothing, whatever stands there."""
    image, labels = lines(SHAPE, seed=4)
    hidden = np.random.default_rng(0).random(SHAPE) < 0.5
    found = []
    for value in (9, 200):
        given = np.where(hidden, value, labels).astype(np.uint8)
        reached, weights = estimated(image, given, f"{value}.zarr", ignore=value)
        assert [c.values for c in reached.classes] == [(0,), (1,)]
        found.append(weights)
    np.testing.assert_array_equal(*found)
    labeled = label(image, weights="9.zarr") - 1
    assert (labeled != labels)[~hidden].mean() < 0.004
    assert (labeled != labels).mean() < 0.02


def test_masked(here):
    image, labels = lines(SHAPE, seed=4)
    mask = np.ones(SHAPE, np.uint8)
    mask[30:50, 20:80] = 0
    found = []
    for value in (0.0, np.nan):
        image[35:45, 25:70] = value
        (example,) = examples.pair(image, np.where(mask, labels, 7).astype(np.uint8), mask=mask)
        with tasks.threads(2) as pool:
            path = f"{value}.zarr"
            estimation.estimate(example, "means", path, Estimation(steps=4), pool)
        found.append(zarr.open_array(f"{path}/0", mode="r")[:])
    np.testing.assert_array_equal(*found)
    assert (found[0][:, mask == 0] == 0).all()
    labeled = label(image, weights="nan.zarr", mask=mask)
    assert ((labeled == 0) == (mask == 0)).all()


def test_three_axes(here):
    """Planes that touch, and a data term that is given."""
    rng = np.random.default_rng(0)
    labels = np.zeros((6, 30, 30), np.uint8)
    labels[2:4, 10:20, 10:20] = 1
    image = (labels + 0.5 * rng.normal(size=labels.shape)).astype(np.float32)
    np.save("image.npy", image)
    np.save("labels.npy", labels)
    (example,) = examples.pair("image.npy", "labels.npy", axes="zyx")
    with tasks.threads(2) as pool:
        found = estimation.estimate(
            example,
            Prototypes(((0.0,), (1.0,))),
            "w.zarr",
            Estimation("3x3x3", time=1, steps=8, tile=16),
            pool,
        )
    assert found.wrong[1] < found.wrong[0]
    labeled = label(image, weights="w.zarr", axes="zyx") - 1
    assert (labeled != labels).mean() == pytest.approx(found.wrong[1], abs=2e-4)


def test_a_term_of_other_classes(here):
    with pytest.raises(ValueError, match="a data term of 2 classes, got 3"):
        estimated(*lines(SHAPE), term=Probabilities(3))
    assert not list(Path().iterdir())


# Outputs


def test_an_existing_path_is_refused(files):
    Path("weights.zarr").mkdir()
    refused(
        "weights.zarr: expected a new path for the weights, got one that exists",
        "estimate",
        "image.tif",
        "labels.tif",
        "weights.zarr",
    )
    refused("image.tif: expected a new path", "estimate", "image.tif", "labels.tif", "image.tif")


@pytest.mark.parametrize("name", ["_start", "_update"])
def test_interrupted(files, monkeypatch, name):
    """Nothing is left; the same command starts anew."""

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(estimation, name, stop)
        found = run("estimate", "image.tif", "labels.tif", "weights.zarr", "--steps", "1")
    assert found.code == 130
    assert found.err.endswith("tiledlaf: interrupted; the same command starts anew\n")
    assert sorted(p.name for p in Path().iterdir()) == ["image.tif", "labels.tif"]
    assert run("estimate", "image.tif", "labels.tif", "weights.zarr", "--steps", "1").code == 0


def test_what_a_kill_left_is_in_nobodys_way(files):
    """A kill leaves parts with half-written weights beside the path."""
    image, labels = files
    _, expected = estimated(image, labels, "whole.zarr", steps=2)
    for number in range(2):
        shutil.copytree("whole.zarr", f"weights.zarr.{number:032x}.partial")
    zarr.open_array(f"weights.zarr.{0:032x}.partial/0", mode="r+")[:] = np.nan
    _, found = estimated(image, labels, steps=2)
    np.testing.assert_array_equal(found, expected)
    assert not list(Path().rglob("*.partial*"))
