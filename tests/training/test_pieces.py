"""Ways that are compared by the pieces between a class, which `boundary` asks for."""

import numpy as np
import pytest
from scipy import ndimage

import tiledlaf
from tiledlaf.errors import InputError
from tiledlaf.flow import stencil
from tiledlaf.flow.gradient import Polynomials
from tiledlaf.flow.losses import Cosine
from tiledlaf.model.classes import Class
from tiledlaf.reports import text
from tiledlaf.training import pieces
from tiledlaf.training.judging import Bench
from tiledlaf.training.worker import FlowSettings, Scored, TileData

EDGE = 96


def cells(seed, edge=EDGE):
    """Cells (2) between thin membranes (1), and a noisy image in which some gaps open."""
    rng = np.random.default_rng(seed)
    seeds = np.zeros((edge, edge), int)
    places = rng.choice(edge * edge, 24, replace=False)
    seeds.ravel()[places] = np.arange(1, 25)
    index = ndimage.distance_transform_edt(seeds == 0, return_indices=True)[1]
    nearest = seeds[tuple(index)]
    spread = ndimage.maximum_filter(nearest, 3) != ndimage.minimum_filter(nearest, 3)
    truth = np.where(spread, 1, 2).astype(np.uint8)
    return 100.0 * (truth == 2) + rng.normal(0, 45, truth.shape), truth


def alone(classes, z, target):
    """A tile whose Z is given: no neighbors, so Z is the data term times T."""
    flow = FlowSettings(
        tuple(Class(str(j), (j,)) for j in range(1, classes + 1)),
        stencil.box(1, 1),
        1.0,
        1.0,
        Polynomials(1e-6),
        Cosine(),
    )
    return flow, TileData(None, z.astype(np.float32), (slice(None),) * 2, target)


def of_files(tmp_path, labels, truth):
    """The adapted Rand error by `evaluate`, with class 1 between."""
    np.save(tmp_path / "labels.npy", labels)
    np.save(tmp_path / "truth.npy", truth)
    found = tiledlaf.evaluate(
        str(tmp_path / "labels.npy"), str(tmp_path / "truth.npy"), boundary="1"
    )
    return found.rand


@pytest.mark.parametrize("classes", [2, 3])
def test_errors_are_those_of_evaluate(tmp_path, classes):
    rng = np.random.default_rng(classes)
    truth = cells(3, 40)[1]
    if classes == 3:
        truth[20:][truth[20:] == 2] = 3
    z = ndimage.gaussian_filter(rng.normal(0, 3, (classes, 40, 40)), (0, 1, 1))
    z += np.stack([truth == j for j in range(1, classes + 1)])
    flow, tile = alone(classes, z, truth)
    found, _ = tile.linearization(flow, None, None)
    biases = np.zeros((3, classes))
    biases[:, 0] = (-0.5, 0.1, 0.6)
    errors = pieces.rand_errors((flow, None, biases, 0), tile)
    labels = [(found.z + bias[:, None, None]).argmax(axis=0) + 1 for bias in biases]
    expected = [of_files(tmp_path, one.astype(np.uint8), truth) for one in labels]
    np.testing.assert_allclose(errors, expected)
    assert len(set(errors)) == 3


def test_unlabeled_rims_are_not_compared():
    """A tile's halo has no targets: what is there joins no pieces."""
    truth = np.zeros((30, 30), np.uint8)
    truth[5:25, 5:25] = 2
    truth[5:25, 14:16] = 1
    inside = np.stack([truth == 1, truth != 1]).astype(float)
    flow, tile = alone(2, inside, truth)
    assert pieces.rand_errors((flow, None, np.zeros((1, 2)), 0), tile) == [0]


def test_candidates_have_more_pixels_of_the_class():
    rng = np.random.default_rng(0)
    rows = rng.normal(0, 1, (5000, 3)) + np.array([-1, 0.3, 0])
    found = pieces.candidates([Scored(np.zeros(1), rows, np.zeros(5000, int))], np.zeros(3), 0)
    shares = [((rows + bias).argmax(axis=1) == 0).mean() for bias in found]
    np.testing.assert_allclose(shares, np.multiply(pieces.TIMES, shares[1]), atol=1e-3)
    np.testing.assert_allclose(found.sum(axis=1), 0, atol=1e-12)


def test_each_side_has_the_bias_of_the_other():
    tried = np.array([[0, 0], [1, -1.0]])
    errors = [[0.1, 0.5], [0.2, 0.6], [0.9, 0.3], [np.nan, np.nan]]
    verdict, biases = pieces.judge(errors, tried, Bench([0, 0, 1, 1], [0, 1, 2, 3]))
    np.testing.assert_allclose(verdict.wrong, [0.5, 0.6, 0.9])
    np.testing.assert_array_equal(biases.all, tried[0])
    np.testing.assert_array_equal([biases.sides[0], biases.sides[1]], tried[::-1])
    one, _ = pieces.judge(errors, tried, Bench([0, 0, 0, 0], [0, 1, 2, 3]))
    np.testing.assert_allclose(one.wrong, [0.1, 0.2, 0.9])
    assert pieces.judge(errors[3:], tried, Bench([0], [0])) is None


@pytest.fixture(scope="module")
def learned():
    """Models of the same images, by the fewest wrong pixels and by pieces."""
    images, truths = zip(*map(cells, range(4)), strict=True)
    found = {}
    with tiledlaf.open_pool(workers=1) as pool:
        for boundary in (None, "membrane"):
            data = tiledlaf.Data(
                tiledlaf.pair(list(images), list(truths)), names={"1": "membrane", "2": "cell"}
            )
            recipe = tiledlaf.Recipe(steps=20, predictor_size=8, boundary=boundary)
            found[boundary] = tiledlaf.train(data, recipe, pool)
    return found


def test_other_images_fall_into_better_pieces(learned, tmp_path):
    errors = {None: [], "membrane": []}
    for seed in (10, 11, 12):
        image, truth = cells(seed)
        for boundary, model in learned.items():
            labels = tiledlaf.label(image, model=model)
            errors[boundary].append(of_files(tmp_path, np.asarray(labels), truth))
    assert np.mean(errors["membrane"]) < 0.8 * np.mean(errors[None])


def test_what_was_compared_is_said(learned, tmp_path):
    model = learned["membrane"]
    choice = model.trained["choice"]
    assert choice["boundary"] == "membrane"
    assert model.trained["error"] > learned[None].trained["error"]  # of single pixels
    line = text.model(model, "m")[-1]
    assert "(adapted Rand error between membrane: data term alone 0." in line
    model.save(tmp_path / "m.model")
    assert tiledlaf.load(tmp_path / "m.model").trained["choice"]["boundary"] == "membrane"


@pytest.mark.parametrize(
    ("share", "boundary", "message"),
    [
        (1, "cell", "boundary: expected a class of 1, 2, got 'cell'"),
        (0.2, "1", "boundary: expected images that are labeled throughout, or `priors`"),
    ],
)
def test_refused(share, boundary, message):
    image, truth = cells(0)
    truth[np.random.default_rng(0).random(truth.shape) > share] = 0
    data = tiledlaf.Data(tiledlaf.pair([image], [truth]), ignore=0)
    recipe = tiledlaf.Recipe(steps=1, predictor_size=4, boundary=boundary)
    with tiledlaf.open_pool(workers=1) as pool, pytest.raises(InputError, match=message):
        tiledlaf.train(data, recipe, pool)
