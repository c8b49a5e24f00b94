"""Confidence of models is calibrated, and pixels of too little can be left without a label."""

import dataclasses
import json
import os
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import zarr
from command import contents, run
from models import make
from voronoi import lines

import tiledlaf
from tiledlaf import Krylov, Taylor, label
from tiledlaf.errors import InputError
from tiledlaf.files import nodes
from tiledlaf.flow.linear import Euler
from tiledlaf.flow.nonlinear import GeometricEuler
from tiledlaf.labeling.worker import Window, label_window
from tiledlaf.model.calibration import Calibration
from tiledlaf.model.settings import Settings
from tiledlaf.model.terms import Probabilities

# models that are made here do not say from which intensities
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not say from which:tiledlaf.files.image.FileWarning"
)
KNOWN = Calibration(0.6, -0.3, ((-1.0, -0.9), (0.5, 0.8), (2.0, 1.9)))
SHAPE = (120, 130)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def noisy(seed=5):
    image = lines(SHAPE, seed=seed)[0] + np.random.default_rng(seed).normal(0, 0.2, SHAPE)
    return image.astype(np.float32)


def calibrated(kind="prototypes"):
    return dataclasses.replace(make(kind), calibration=KNOWN)


@pytest.mark.parametrize("kind", ["prototypes", "classifier", "uniform"])
def test_tiles_are_as_the_whole_and_as_calibrated(kind):
    image, plain, known = noisy(), make(kind), calibrated(kind)
    labels, raw = label(image, model=plain, confidence=True)
    whole = label(image, model=known, confidence=True)
    np.testing.assert_array_equal(whole[0], labels)
    np.testing.assert_array_equal(whole[1], KNOWN.apply(raw))
    assert (whole[1] != raw).mean() > 0.9
    least = float(np.median(whole[1]))
    sure = label(image, model=known, min_confidence=least)
    np.testing.assert_array_equal(sure, np.where(whole[1] < np.float32(least), 0, labels))
    assert 0.4 < (sure == 0).mean() < 0.6
    for tile in (32, 48):
        found = label(image, model=known, confidence=True, min_confidence=least, tile=tile)
        np.testing.assert_array_equal(found[0], sure)
        np.testing.assert_array_equal(found[1], whole[1])
    blocks = da.from_array(image, chunks=(50, 60))
    for wanted in (True, False):
        found = label(blocks, model=known, confidence=wanted, min_confidence=least)
        np.testing.assert_array_equal(np.asarray(found[0] if wanted else found), sure)
    found = label(blocks, model=known, confidence=True)
    np.testing.assert_array_equal(np.asarray(found[1]), whole[1])


@pytest.mark.parametrize("integrator", [Taylor(), Krylov(12), Euler(9), GeometricEuler(4)])
def test_any_integrator_without_a_model(integrator):
    image = (255 * np.clip(noisy(), 0, 1)).astype(np.uint8)
    options = {"prototypes": [[40], [200]], "integrator": integrator, "time": 1.5, "tile": 200}
    labels, confidence = label(image, confidence=True, **options)
    middle = float(np.quantile(confidence, 0.3))
    found = label(image, confidence=True, min_confidence=middle, **options)
    expected = np.where(confidence < np.float32(middle), 0, labels)
    np.testing.assert_array_equal(found[0], expected)
    np.testing.assert_array_equal(found[1], confidence)
    assert 0.2 < (expected == 0).mean() < 0.4


@pytest.mark.parametrize("kernel", ["numpy", "numba"])
@pytest.mark.parametrize("bias", [(), (0.3, -0.1, -0.2)])
def test_both_kernels_with_biases(kernel, bias):
    p = np.random.default_rng(1).dirichlet(np.ones(3), (50, 60)).transpose(2, 0, 1)
    plain = Settings(tiledlaf.stencil.box(3, 3), kernel=kernel, bias=bias)
    chosen = dataclasses.replace(plain, calibration=KNOWN, min_confidence=0.7)
    window = Window(None, p.astype(np.float32))
    labels, shares, gap = label_window(window, Probabilities(3), plain)
    found = label_window(window, Probabilities(3), chosen)
    sure = KNOWN.apply(shares) >= np.float32(0.7)
    assert 0.02 < sure.mean() < 0.98
    np.testing.assert_array_equal(found[0], labels * sure)
    np.testing.assert_array_equal(found[2], gap)


def test_masked_pixels_stay_0_and_do_not_count_as_unsure(here):
    image, mask = noisy(), np.ones(SHAPE, np.uint8)
    mask[:40] = 0
    options = {"model": calibrated(), "mask": mask, "min_confidence": 0.8, "confidence": True}
    found = label(image, **options)
    assert (found[1][:40] == 0).all()
    assert (found[1][40:] > 0).all()
    summary = label(image, "out.zarr", tile=32, **options)
    assert summary.unsure == int((found[0][40:] == 0).sum()) > 0
    assert summary.pixels == np.bincount(found[0].ravel(), minlength=3).tolist()
    assert 0 < summary.proven <= sum(summary.pixels[1:])
    assert label(image, "other.zarr", model=make("prototypes")).unsure is None


@pytest.mark.parametrize("least", [0, -0.1, 1.01, float("nan"), "high", float("inf")])
def test_no_probability_is_refused(here, least):
    with pytest.raises(InputError, match="min_confidence"):
        label(noisy(), classes=2, min_confidence=least)
    np.save("a.npy", noisy())
    if not isinstance(least, str):
        found = run("label", "a.npy", "o.zarr", "--classes", "2", "--min-confidence", least)
        assert (found.code, found.err.count("\n")) == (2, 1)
        assert "expected a --min-confidence above 0 and up to 1" in found.err
        assert not Path("o.zarr").exists()


def arrays(store, *names):
    return [np.asarray(nodes.open_array(store, name)[:]) for name in names]


def test_an_output_belongs_to_its_least_confidence(here):
    image, known = noisy(), calibrated()
    np.save("a.npy", image)
    known.save("m.model")
    command = ["label", "a.npy", "o.zarr", "--model", "m.model", "--axes", "yx", "--tile", "32"]
    assert run(*command, "--min-confidence", "0.8").code == 0
    before = contents("o.zarr")
    for other in ([], ["--min-confidence", "0.7"]):
        found = run(*command, *other)
        assert found.code == 2
        assert "belongs to another run" in found.err
        assert "min_confidence" in found.err
    assert contents("o.zarr") == before
    found = run(*command, "--min-confidence", "0.8")
    assert found.code == 0
    (labels,) = arrays("o.zarr", "labels/tiledlaf/0")
    zeros = int((labels == 0).sum())
    assert f"too unsure to be labeled: {zeros} pixels ({100 * zeros / labels.size:.3g} %)" in (
        found.out
    )
    assert "min_confidence: 0.8" in run("info", "o.zarr").out
    assert "calibration: 0.6 times the log odds, -0.3" in run("info", "o.zarr").out
    np.testing.assert_array_equal(labels, label(image, model=known, min_confidence=0.8))


def test_a_cut_run_goes_on_to_the_same(here):
    np.save("a.npy", noisy())
    calibrated().save("m.model")
    options = ["--model", "m.model", "--tile", "32", "--min-confidence", "0.8", "--confidence"]
    command = ["label", "a.npy", "o.zarr", *options]
    whole = run(*command)
    assert whole.code == 0
    names = ["labels/tiledlaf/0", "confidence/0"]
    expected = arrays("o.zarr", *names)
    path = next(Path("o.zarr").rglob("*.jsonl"))
    kept = [json.loads(line) for line in path.read_text().splitlines()]
    assert sum(line.get("unsure", 0) for line in kept) == int((expected[0] == 0).sum())
    path.write_text("".join(json.dumps(line) + "\n" for line in kept[:8]))  # of a kill
    found = run(*command)
    assert found.code == 0
    said = [line for line in whole.out.splitlines() if "unsure" in line]
    assert said == [line for line in found.out.splitlines() if "unsure" in line] != []
    for found, one in zip(arrays("o.zarr", *names), expected, strict=True):
        np.testing.assert_array_equal(found, one)


def test_outputs_of_models_from_before_go_on(here):
    """Without calibration and without a least confidence, settings are as they were."""
    np.save("a.npy", noisy())
    make("prototypes").save("m.model")
    assert run("label", "a.npy", "o.zarr", "--model", "m.model").code == 0
    notes = zarr.open_group("o.zarr", path="labels/tiledlaf").attrs["tiledlaf"]
    assert not {"calibration", "min_confidence"} & notes["settings"].keys()


def test_batches(here):
    os.makedirs("in")
    for seed in (1, 2):
        np.save(f"in/{seed}.npy", noisy(seed))
    known = calibrated()
    known.save("m.model")
    found = run("label", "in/1.npy", "in/2.npy", "--into", "out", "--model", "m.model",
                "--min-confidence", "0.8")  # fmt: skip
    assert found.code == 0
    for seed in (1, 2):
        (labels,) = arrays(f"out/{seed}.zarr", "labels/tiledlaf/0")
        np.testing.assert_array_equal(labels, label(noisy(seed), model=known, min_confidence=0.8))
