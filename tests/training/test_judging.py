"""What judges a training: errors by pixels that were not learned from, and the choice by them."""

import numpy as np
import pytest

from tiledlaf.training import judging
from tiledlaf.training.judging import Bench, Verdict
from tiledlaf.training.worker import Scored


def scored(gaps, labels):
    """A tile of two classes, whose second one leads by these numbers."""
    gaps = np.asarray(gaps, float)
    rows = np.stack([-gaps / 2, gaps / 2], axis=1)
    return Scored(np.zeros(1), rows, np.asarray(labels))


def test_biases_have_not_seen_what_they_are_judged_by():
    """Each side's own bias would make no error; that of the other one makes one in four."""
    one = scored([1, 2, 3.5, 5], [0, 0, 1, 1])
    two = scored([2, 3, 5, 6], [0, 0, 1, 1])
    apart = judging.judge([one, two], Bench([0, 1], [0, 1], np.ones(2)))
    both = judging.fit_bias(np.concatenate([one.rows, two.rows]), np.array([0, 0, 1, 1] * 2))[0]
    np.testing.assert_array_equal(apart.bias, both)
    np.testing.assert_array_equal(apart.wrong, [1, 1])
    together = judging.judge([one, two], Bench([0, 0], [0, 1], np.ones(2)))
    assert together.error < apart.error == 0.25


@pytest.mark.parametrize(
    ("sides", "weights", "kept"),
    [
        ([0, 0, 1, 1], [1, 1], False),
        ([0, 0, 0, 0], [1, 1], True),  # no others say that they do not help
        ([0, 0, 1, 1], [1.2, 0.8], True),  # the user wants them
    ],
)
def test_biases_that_one_image_alone_wants(sides, weights, kept):
    """One image unlike all others does not move these: it did, by more than they had errors."""
    common = scored([-3, -2, -1, 1, 2, 3] * 3, [0, 0, 0, 1, 1, 1] * 3)
    odd = scored([0.5, 1.5, 2.5, 2.6, 2.7, 3.5] * 5, [0, 0, 0, 0, 0, 1] * 5)
    found = judging.fewest([common, common, common, odd], Bench(sides, sides, np.array(weights)))
    assert found.all.any() == kept
    assert any(bias.any() for bias in found.sides.values()) == kept


def test_no_biases_where_labels_do_not_say_how_often():
    tile = scored([1, 2, 3, 4], [0, 0, 1, 1])
    found = judging.judge([tile], Bench([0], [0]))
    assert not found.bias.any()
    assert found.error == 0.5
    assert found.confusion == [[0, 2], [0, 2]]


def test_priors_weigh_errors():
    """Of overlapping classes, the frequent one gets what both want."""
    tile = scored([-2, -1, 0.5, 1.5, -0.5, 0.4, 1.6, 3], [0, 0, 0, 0, 1, 1, 1, 1])
    for weights, wanted in ((np.array([1.9, 0.1]), 0), (np.array([0.1, 1.9]), 1)):
        found = judging.judge([tile], Bench([0], [0], weights))
        labels = (tile.rows + found.bias).argmax(axis=1)
        assert (labels[tile.labels == wanted] == wanted).all()
        share = weights[tile.labels[labels != tile.labels]].sum() / weights[tile.labels].sum()
        assert found.error == pytest.approx(share)


def verdict(wrong, labeled=100):
    wrong = np.array(wrong, float)
    return Verdict(np.zeros(2), wrong, np.full(len(wrong), float(labeled)))


@pytest.mark.parametrize(
    ("ways", "chosen"),
    [
        ([[20, 21, 22], [10, 11, 12]], 1),  # better everywhere
        ([[20, 21, 22], [5, 11, 50]], 0),  # worse
        ([[20, 21, 22], [1, 30, 28]], 0),  # better, by one image alone
        ([[20, 21, 22], [19, 20, 21], [19, 20, 20.9]], 2),
        ([[20, 21, 22], [19, 20, 21], [17, 21, 21.9]], 1),  # of two alike, the simpler
        ([[20], [10]], 0),  # one image says nothing of others
        ([[0, 0, 0], [0, 0, 0]], 0),
    ],
)
def test_the_simplest_that_is_not_worse(ways, chosen):
    assert judging.choose([verdict(wrong) for wrong in ways]) == chosen


def test_samples_of_other_sizes_are_compared_by_shares():
    few, many = verdict([20, 21, 22]), verdict([40, 42, 44], 400)
    assert judging.choose([few, many]) == 1
    assert judging.choose([many, few]) == 0


def test_the_interval_is_that_of_a_mean_over_images():
    rng = np.random.default_rng(0)
    wrong = rng.normal(20, 5, 50)
    found = verdict(wrong)
    assert found.deviation == pytest.approx(wrong.std(ddof=1) / np.sqrt(50) / 100)
    low, high = found.interval
    assert (low + high) / 2 == pytest.approx(found.error)
    assert verdict([3]).interval == (0, 1)
