"""Each neighborhood through the whole chain: train, the model's file, label, in tiles and whole."""

import re
from pathlib import Path

import learning_oracle
import numpy as np
import oracle
import pytest
import tifffile
from command import run
from scipy import ndimage

import tiledlaf
from tiledlaf.flow import losses, stencil
from tiledlaf.flow.gradient import Polynomials, linearize
from tiledlaf.model import features
from tiledlaf.model import model as model_file
from tiledlaf.model.classes import Class
from tiledlaf.model.predictor import Predictor
from tiledlaf.model.terms import Prototypes
from tiledlaf.pool import tasks
from tiledlaf.tiles import Grid
from tiledlaf.training import examples, learning
from tiledlaf.training import worker as training_worker

# a section's plane, and the pixel alone in the sections beside it: thick sections
THICK = "0 0 0\n0 -1 0\n0 1 0\n0 0 -1\n0 0 1\n-1 0 0\n1 0 0\n"
# it looks ahead only, so that no halo can be had from the other side
AHEAD = "0 0\n0 1\n0 4\n2 1\n"
# name: as given, neighbors, radius
NEIGHBORHOODS = {
    "5x5": ("5x5", 25, (2, 2)),
    "3x7": ("3x7", 21, (1, 3)),
    "rings": ("rings:3", 17, (3, 3)),
    "rings of the default": ("rings:3,7", 25, (7, 7)),
    "ahead": (AHEAD, 4, (2, 4)),
    "3x3x3": ("3x3x3", 27, (1, 1, 1)),
    "3x5x5": ("3x5x5", 75, (1, 2, 2)),
    "thick": (THICK, 7, (1, 1, 1)),
}
# kernels are compiled for each number of neighbors, and 75 of them take the longest
each = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name == "3x5x5" else name
        for name in NEIGHBORHOODS
    ],
)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)


def given(name):
    """A neighborhood as the command takes it; offsets in a file."""
    text, count, radius = NEIGHBORHOODS[name]
    if "\n" in text:
        Path("offsets.txt").write_text(text)
        text = "offsets.txt"
    offsets = stencil.parse(text, len(radius))
    assert len(offsets) == count
    assert stencil.radius(offsets) == radius
    return text, offsets


def blobs(shape, seed=0, noise=0.6):
    """A noisy image and the labels 0 and 1 in it."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), [1.5] * (len(shape) - 2) + [3, 3])
    labels = (smooth > 0).astype(np.uint8)
    return (labels + noise * rng.normal(size=shape)).astype(np.float32), labels


@each
def test_train_and_label(name):
    """A model learns, keeps its neighborhood, and labels in tiles as whole, bit for bit."""
    text, offsets = given(name)
    axes = "zyx"[3 - len(offsets[0]) :]
    shape = (96, 104) if axes == "yx" else (8, 48, 52)
    Path("images").mkdir()
    Path("labels").mkdir()
    for number in range(3):
        image, labels = blobs(shape, number)
        tifffile.imwrite(f"images/{number}.tif", image)
        tifffile.imwrite(f"labels/{number}.tif", labels)
    found = run(
        "train",
        "model",
        "--images",
        "images/*.tif",
        "--labels",
        "labels/*.tif",
        "--axes",
        axes,
        "--neighborhood",
        text,
        "--time",
        "1.5",
        "--size",
        "6",
        "--steps",
        "60",
        "--flow",
        "learned",
        "--workers",
        "2",
    )
    assert found.code == 0, found
    held = model_file.load("model")
    assert held.offsets == offsets
    assert held.predictor.patches.shape == (6, len(offsets))
    assert held.trained["error"] < 0.6 * held.trained["history"][0]["none"]
    unseen, truth = blobs(shape, 9)
    options = {"model": "model", "axes": axes, "confidence": True}
    labels, confidence = tiledlaf.label(unseen, tile=4096, workers=1, **options)
    for tile in (16, 40):
        tiled = tiledlaf.label(unseen, tile=tile, **options)
        np.testing.assert_array_equal(tiled[0], labels)
        np.testing.assert_array_equal(tiled[1].view(np.uint32), confidence.view(np.uint32))
    uniform = tiledlaf.label(
        unseen, prototypes=held.term.values, neighborhood=offsets, time=1.5, axes=axes
    )
    wrong = [(found - 1 != truth).mean() for found in (labels, uniform)]
    # alone 21 % are wrong, with uniform weights 5 to 15 %, with learned ones 4 to 10 %
    assert wrong[0] < 0.85 * wrong[1] < 0.15


def gradients(offsets, shape, edges, halo=None):
    """Loss and gradient of a predictor on an image that is cut into tiles with a halo."""
    image, labels = blobs(shape, 1)
    labels[..., 30:34] = 9  # not labeled
    (example,) = examples.pair(image, labels, axes="zyx"[-len(shape) :])
    flow = training_worker.FlowSettings(
        (Class("0", (0,)), Class("1", (1,))),
        offsets,
        1.0,
        1.5,
        Polynomials(1e-2),
        losses.make("cross-entropy"),
    )
    rng = np.random.default_rng(1)
    weights = Predictor(
        features.PATCH,
        np.full(9, 0.4),
        np.full(9, 0.6),
        rng.normal(size=(6, 9)),
        rng.normal(size=(6, len(offsets))) * 0.5,
    )
    reach = (
        flow.halo
        if halo is None
        else tuple(min(h, c) for h, c in zip(halo, flow.halo, strict=True))
    )
    zero = (0,) * len(shape)
    tiles = [training_worker.LabeledTile(0, t) for t in Grid(shape, zero, shape, edges, reach)]
    term = Prototypes(((0.0,), (1.0,)), 1.0)  # so undecided that far pixels matter
    with tasks.threads(2) as pool:
        reader = training_worker.TileReader(flow, (example,), (term,), weights.features)
        handles = pool.persist(training_worker.read, reader, tiles)
        held = learning.Tiles(pool, flow, handles)
        sums, found = held.step(weights, np.zeros(2), range(len(tiles)), None)
    return flow.loss.value(sums.loss), found


SIZES = {2: (4, 8), 3: (3, 3, 5)}  # some offsets lead out of them on both sides


@each
@pytest.mark.parametrize("masked", [False, True])
def test_flow_and_gradient_match_the_oracle(name, masked):
    """On NumPy, with which Numba is compared in problems.py and test_gradient.py."""
    _, offsets = given(name)
    grid, rng = SIZES[len(offsets[0])], np.random.default_rng(2)
    mask = rng.random(grid) > 0.2 if masked else None
    weights = oracle.random_weights(offsets, grid, rng, mask)
    distances, g = 2 * rng.random((2, *grid)), rng.normal(size=(2, *grid))
    if masked:
        g[:, ~mask] = 0
    options = {"time": 3.0, "rho": 0.7}
    found = linearize(
        weights,
        distances,
        offsets,
        way=Polynomials(1e-14, rank_tol=1e-16),
        kernel="numpy",
        **options,
    )
    z = oracle.flow_z(weights, distances, offsets, mask=mask, **options)
    expected = learning_oracle.gradient(weights, distances, offsets, g, mask=mask, **options)
    valid = np.s_[:] if mask is None else np.s_[:, mask]
    np.testing.assert_allclose(found.z[valid], z[valid], atol=1e-12)
    difference = found.gradient(g).tangent - expected["riemannian"]
    assert np.linalg.norm(difference) < 1e-13 * np.linalg.norm(expected["riemannian"])


def distance(found, expected):
    return max(
        np.linalg.norm(found[key] - value) / np.linalg.norm(value)
        for key, value in expected.items()
    )


@each
def test_gradients_of_tiles(name):
    """The halo of training is as large as needed along each axis."""
    _, offsets = given(name)
    shape, edges = ((70, 64), (24, 17)) if len(offsets[0]) == 2 else ((14, 30, 34), (3, 13, 11))
    value, expected = gradients(offsets, shape, shape)
    tiled, found = gradients(offsets, shape, edges)
    assert tiled == pytest.approx(value, rel=1e-6)
    assert distance(found, expected) < 2e-5
    for axis, radius in enumerate(stencil.radius(offsets)):
        halo = [999] * len(shape)
        halo[axis] = radius
        assert distance(gradients(offsets, shape, edges, halo)[1], expected) > 1e-3


@each
def test_estimated_weights(name):
    """Weights of an image label it in tiles as whole, bit for bit, and better than uniform ones."""
    text, offsets = given(name)
    axes = "zyx"[3 - len(offsets[0]) :]
    shape = (60, 64) if axes == "yx" else (5, 28, 32)
    image, labels = blobs(shape, 2)
    tifffile.imwrite("image.tif", image)
    tifffile.imwrite("labels.tif", labels)
    found = run(
        "estimate",
        "image.tif",
        "labels.tif",
        "weights.zarr",
        "--axes",
        axes,
        "--neighborhood",
        text,
        "--time",
        "1",
        "--steps",
        "8",
    )
    assert found.code == 0, found
    before, after = (float(v) for v in re.findall(r"([\d.]+) %", found.out))
    assert after < 0.2 * before
    options = {"weights": "weights.zarr", "axes": axes, "confidence": True}
    whole = tiledlaf.label(image, tile=4096, workers=1, **options)
    tiled = tiledlaf.label(image, tile=16, **options)
    np.testing.assert_array_equal(tiled[0], whole[0])
    np.testing.assert_array_equal(tiled[1].view(np.uint32), whole[1].view(np.uint32))
