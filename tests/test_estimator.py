"""The estimator for arrays in memory, as scikit-learn's users expect it."""

import numpy as np
import pytest
import voronoi
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import tiledlaf


@pytest.fixture(scope="module")
def data():
    pairs = [voronoi.lines((64, 64), seed=seed) for seed in range(5)]
    return [image for image, _ in pairs], [7 * labels + 3 for _, labels in pairs]


def test_fit_and_predict(data):
    images, labels = data
    flow = tiledlaf.AssignmentFlow(predictor_size=20, steps=40, workers=2)
    assert flow.fit(images[:4], labels[:4]) is flow
    np.testing.assert_array_equal(flow.classes_, [3, 10])
    found = flow.predict(images[4])
    assert set(np.unique(found)) == {3, 10}
    wrong = (found != labels[4]).mean()
    uniform = tiledlaf.label(images[4], prototypes=[[0], [1]], time=3) * 7 - 4
    assert wrong < 0.5 * (uniform != labels[4]).mean()
    both = flow.predict(images[3:])
    np.testing.assert_array_equal(both[1], found)
    assert flow.score(images[4], labels[4]) == 1 - wrong


def test_parameters_are_scikit_learns():
    flow = tiledlaf.AssignmentFlow(steps=3, neighborhood="5x5")
    other = clone(flow).set_params(seed=5)
    assert other.get_params() == flow.get_params() | {"seed": 5}
    with pytest.raises(NotFittedError):
        flow.predict(np.zeros((4, 4)))


def test_the_model_does_not_depend_on_workers(data):
    images, labels = data
    prints = {
        tiledlaf.AssignmentFlow(predictor_size=8, steps=10, workers=n)
        .fit(images, labels)
        .model_.fingerprint()
        for n in (1, 3)
    }
    assert len(prints) == 1


def test_sparse_labels_and_probabilities(data):
    images, labels = data
    rng = np.random.default_rng(0)
    sparse = [np.where(rng.random(y.shape) < 0.2, y, 0) for y in labels]
    flow = tiledlaf.AssignmentFlow(
        predictor_size=8, steps=10, ignore=0, names={"3": "in", "10": "on"}
    )
    flow.fit(images, sparse)
    assert flow.model_.names == ["in", "on"]
    p = [np.stack([1 - np.clip(i, 0, 1), np.clip(i, 0, 1)]) for i in images]
    flow = tiledlaf.AssignmentFlow("probabilities", predictor_size=8, steps=10, neighborhood="3x3")
    flow.fit(images, labels, probabilities=p, validation=(images[:1], labels[:1], p[:1]))
    with pytest.raises(ValueError, match="expects `probabilities`"):
        flow.predict(images[0])
    assert (flow.predict(images[0], probabilities=p[0]) == labels[0]).mean() > 0.95
