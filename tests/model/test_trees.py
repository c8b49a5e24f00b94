import io
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from tiledlaf.kernels import select
from tiledlaf.model import trees
from tiledlaf.model.trees import Trees, fit

COUNT = 6


def sample(classes, n=3000, seed=0):
    """Features in steps of 1/8: many values lie on each other and, halved, on thresholds."""
    rng = np.random.default_rng(seed)
    x = (np.round(rng.standard_normal((n, COUNT)) * 8) / 8).astype(np.float32)
    score = x[:, 0] * x[:, 1] + x[:, 2] + rng.standard_normal(n) / 2
    return x, np.digitize(score, np.linspace(-1, 1, classes + 1)[1:-1])


def model(classes, **options):
    given = {
        "max_iter": 20,
        "early_stopping": False,
        "random_state": 0,
        "min_samples_leaf": 50,
        "l2_regularization": 5.0,
        **options,
    }
    with threadpool_limits(1):
        return HistGradientBoostingClassifier(**given).fit(*sample(classes))


@pytest.fixture(scope="module", params=[2, 3, 10])
def pair(request):
    """Trees and the model of scikit-learn that they are of."""
    return fit(*sample(request.param), request.param, iterations=20), model(request.param)


@pytest.fixture(scope="module")
def small():
    return fit(*sample(3), 3, iterations=4, least=20)


def near(trees, seed=0, pixels=1500):
    """Pixels on thresholds, one float32 beside them, and far away."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((COUNT, pixels)).astype(np.float32)
    for f in range(COUNT):
        own = trees.threshold[trees.feature == f]
        if len(own):
            x[f] = rng.choice(own, pixels)
            side = rng.choice(np.array([-np.inf, 0, np.inf], np.float32), pixels)
            x[f] = np.where(side == 0, x[f], np.nextafter(x[f], side))
    x[:, :50] *= 1e30
    return x


def test_probabilities_are_those_of_scikit_learn(pair):
    trees, theirs = pair
    x = near(trees)
    expected = theirs.predict_proba(np.ascontiguousarray(x.T)).T
    got = trees.probabilities(x)
    assert got.dtype == np.float32
    assert got.shape == (trees.classes, x.shape[1])
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(got.sum(axis=0), 1, rtol=1e-6)


@pytest.mark.parametrize("gap", [1e-9, -1e-9, 0])
def test_thresholds_between_float32_numbers(gap):
    near_one = np.float32(1)
    above = np.nextafter(near_one, np.float32(2))
    threshold = np.array([float(near_one) + gap, float(above) + gap, -float(above) + gap])
    rounded = trees._round_down(threshold)
    assert rounded.dtype == np.float32
    for t, r in zip(threshold, rounded, strict=True):
        for x in (near_one, above, -above, np.nextafter(-above, np.float32(0)), r):
            assert (float(x) <= t) == (x <= r)


def test_numpy_and_numba_agree(pair):
    trees = pair[0]
    x = near(trees, pixels=700).reshape(COUNT, 20, 35)
    given = (trees.feature, trees.threshold, trees.mask, trees.first, trees.value, trees.baseline)
    numba, reference = (select(x, kernel).scores(x, *given) for kernel in ("numba", "numpy"))
    np.testing.assert_array_equal(numba, reference)
    numba, reference = (trees.probabilities(x, kernel) for kernel in ("numba", "numpy"))
    assert numba.shape == (trees.classes, 20, 35)
    # each has an exp of its own, within 2 units in the last place
    np.testing.assert_allclose(numba, reference, rtol=1e-6, atol=1e-37)


@settings(max_examples=40)
@given(data=st.data())
def test_a_window_has_the_bits_of_the_whole(pair, data):
    trees = pair[0]
    x = near(trees, seed=1, pixels=17 * 19).reshape(COUNT, 17, 19)
    window = []
    for n in x.shape[1:]:
        start = data.draw(st.integers(0, n - 1))
        window.append(slice(start, data.draw(st.integers(start + 1, n))))
    part = trees.probabilities(x[:, *window])
    np.testing.assert_array_equal(part, trees.probabilities(x)[:, *window])


@settings(max_examples=60)
@given(nodes=st.integers(0, 31), seed=st.integers(0, 999))
def test_any_tree_ends_at_the_leaf_of_its_branches(nodes, seed):
    rng = np.random.default_rng(seed)
    rows, count = [], 0

    def grow(nodes):
        """A random tree: a leaf, or (feature, threshold, left, right)."""
        nonlocal count
        if nodes == 0:
            count += 1
            return count - 1
        left = int(rng.integers(nodes))
        start, feature, threshold = count, int(rng.integers(3)), np.float32(rng.integers(4))
        first = grow(left)
        rows.append((feature, threshold, 0xFFFFFFFF ^ ((1 << count) - (1 << start))))
        return feature, threshold, first, grow(nodes - 1 - left)

    def follow(tree, x):
        while not isinstance(tree, int):
            tree = tree[3] if x[tree[0]] > tree[1] else tree[2]
        return tree

    tree = grow(nodes)
    feature, threshold, mask = zip(*rows, strict=True) if rows else ((), (), ())
    order = rng.permutation(nodes)
    trees = Trees(
        3,
        np.zeros(1, np.float32),
        np.array([0, nodes]),
        np.array(feature, np.int64)[order],
        np.array(threshold, np.float32)[order],
        np.array(mask, np.uint32)[order],
        np.arange(32, dtype=np.float32)[None],
    )
    x = rng.integers(0, 5, (3, 70)).astype(np.float32)
    expected = [follow(tree, x[:, i]) for i in range(70)]
    for kernel in ("numba", "numpy"):
        got = select(x, kernel).scores(
            x, trees.feature, trees.threshold, trees.mask, trees.first, trees.value, trees.baseline
        )
        np.testing.assert_array_equal(got, [expected])


@pytest.mark.parametrize("kernel", ["numba", "numpy"])
def test_scores_far_from_0(kernel):
    """No overflow, and probabilities under 1e-7 are not lost."""
    softmax = select(np.empty(0), kernel).softmax
    for scores, expected in (
        ([[-100.0, -20, 0, 20, 100]], [1 / (1 + np.exp(-20.0))]),
        ([[-100.0, 0], [100, 0], [0, 0]], [1]),
    ):
        p = softmax(np.array(scores, np.float32))
        np.testing.assert_allclose(p.sum(axis=0), 1, rtol=1e-6)
        assert np.isin(np.float32(expected), p).all()
        assert ((p >= 0) & (p <= 1)).all()
    small = softmax(np.array([[20.0]], np.float32))[0, 0]
    np.testing.assert_allclose(small, 1 / (1 + np.exp(20.0)), rtol=1e-6)


def test_threads_do_not_change_the_trees():
    x, labels = sample(3, n=20000)
    alone, several = (
        fit(x, labels, 3, seed=5, iterations=5, threads=threads).to_arrays() for threads in (1, 2)
    )
    for name, array in alone.items():
        np.testing.assert_array_equal(array, several[name], err_msg=name)


def test_the_seed_draws_the_bins_of_large_samples():
    x = np.random.default_rng(0).standard_normal((200_001, 1)).astype(np.float32)
    labels = (x[:, 0] > 0.3).astype(int)
    first, again, other = (
        fit(x, labels, 2, seed=seed, iterations=1).threshold for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_arrays_through_a_file(small):
    file = io.BytesIO()
    np.savez(file, **small.to_arrays())
    file.seek(0)
    with np.load(file) as arrays:
        again = Trees.from_arrays(arrays)
    x = near(small)
    np.testing.assert_array_equal(again.probabilities(x), small.probabilities(x))


def changed(arrays, name, at, value):
    array = np.array(arrays[name])
    array[at] = value
    return {**arrays, name: array}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: {k: v for k, v in a.items() if k != "mask"}, r"expected arrays \['baseline'"),
        (lambda a: {**a, "more": 1}, "got .*'more'"),
        (lambda a: {**a, "features": np.array([6])}, "features as one int64"),
        (lambda a: {**a, "mask": a["mask"].astype(np.int64)}, "mask of type uint32, got int64"),
        (lambda a: {**a, "feature": a["feature"][1:]}, "feature of shape"),
        (lambda a: {**a, "value": a["value"][:, :31]}, "value of shape"),
        (lambda a: {**a, "value": a["value"][0]}, "expected first of shape|value of shape"),
        (lambda a: {**a, "value": a["value"].ravel()}, "expected first of shape"),
        (lambda a: {**a, "first": a["first"][:-1]}, "first of shape"),
        (lambda a: {**a, "baseline": a["baseline"][:2]}, "1 score or 3 and more, got 2"),
        (lambda a: {**a, "baseline": a["baseline"][:, None]}, "baseline of shape"),
        (
            lambda a: {**a, "baseline": np.zeros(5, np.float32)},
            "equally many for each of 5 scores, got 12",
        ),
        (lambda a: changed(a, "value", (0, 0), np.nan), "finite value"),
        (lambda a: changed(a, "threshold", 3, np.inf), "finite threshold"),
        (lambda a: changed(a, "feature", 3, 6), "features 0 to 5 in nodes, got 0 to 6"),
        (lambda a: changed(a, "feature", 3, -1), "got -1 to"),
        (lambda a: changed(a, "first", 0, 1), "rise from 0 to"),
        (lambda a: changed(a, "first", -1, 7), "rise from 0 to"),
        (lambda a: changed(a, "first", 2, 10**9), "rise from 0 to"),
        (lambda a: changed(a, "first", 1, 0), "up to 32 leaves, got 61"),
        (lambda a: changed(a, "mask", 5, 0), "run of leaves"),
        (lambda a: changed(a, "mask", 5, 0xFFFFFFFF), "run of leaves"),
        (lambda a: changed(a, "mask", 5, 0xFFFFFFFF ^ 5), "run of leaves"),
        (lambda a: changed(a, "mask", 5, 0xFFFFFFFF ^ (1 << 30)), "run of leaves"),
    ],
)
def test_refused_arrays(small, change, message):
    assert (np.diff(small.first) == 30).all()
    with pytest.raises(ValueError, match=message) as error:
        Trees.from_arrays(change(small.to_arrays()))
    assert "\n" not in str(error.value)


def test_refused_samples():
    x, labels = sample(3, n=50)
    for arguments, message in (
        ((x, np.where(labels == 1, 0, labels), 3), "all 3 labels in the sample, got none of 1"),
        ((x, labels, 5), "got none of 3, 4"),
        ((x, labels, 2), "labels 0 to 1, got 0 to 2"),
        ((x, labels, 1), "two or more classes, got 1"),
        ((x, labels[1:], 3), "50 integer labels, got int64 of shape"),
        ((x, labels / 1, 3), "integer labels, got float64"),
        ((x.astype(int), labels, 3), r"\(n, F\) of floats, got int64"),
        ((x[:, :0], labels, 3), r"got float32 of shape \(50, 0\)"),
        ((np.where(x == x[3, 0], np.float32(np.nan), x), labels, 3), "finite features"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(*arguments)
    with pytest.raises(ValueError, match="2 to 32 leaves, got 33"):
        fit(x, labels, 3, leaves=33)


def test_the_same_trees_of_float64():
    x, labels = sample(3, n=500)
    found, expected = fit(x.astype(float), labels, 3), fit(x, labels, 3)
    for name, array in expected.to_arrays().items():
        np.testing.assert_array_equal(found.to_arrays()[name], array)


def test_refused_features(small):
    for x in (np.zeros((5, 9), np.float32), np.zeros((6, 9)), np.zeros(6, np.float32)):
        with pytest.raises(ValueError, match=r"features as \(6, \*grid\) float32, got"):
            small.probabilities(x)


def test_a_sample_without_structure_has_trees_of_one_leaf():
    x = np.zeros((40, 2), np.float32)
    trees = fit(x, np.arange(40) % 2, 2, iterations=3)
    assert len(trees.mask) == 0
    np.testing.assert_allclose(trees.probabilities(np.ones((2, 3), np.float32)), 0.5)


def test_most_leaves():
    x, labels = sample(2)
    trees = fit(x, labels, 2, iterations=5, leaves=32, least=1)
    assert np.diff(trees.first).max() == 31
    theirs = model(2, max_iter=5, max_leaf_nodes=32, min_samples_leaf=1)
    expected = theirs.predict_proba(x).T
    np.testing.assert_allclose(trees.probabilities(x.T), expected, rtol=0, atol=1e-5)


def test_probabilities_need_no_scikit_learn():
    code = (
        "import sys, tiledlaf.model.trees, tiledlaf.model.features; print('sklearn' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
