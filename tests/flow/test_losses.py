"""Losses against the oracle, from sums of tiles, and the regularizer."""

import itertools

import learning_oracle as lo
import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiledlaf.flow import losses, stencil
from tiledlaf.flow.losses import Cosine, CrossEntropy, PixelCosine

GRID = (6, 7)
WEIGHTS = (0.5, 2.0, 1.0, 0.25)
ORACLES = {
    "cosine": (Cosine(), lo.loss_cosine, lo.grad_cosine, {}),
    "pixel cosine": (PixelCosine(), lo.loss_pixel_cosine, lo.grad_pixel_cosine, {}),
    "entropy": (CrossEntropy(), lo.loss_cross_entropy, lo.grad_cross_entropy, {}),
    "weighted entropy": (
        CrossEntropy(WEIGHTS, 1.7),
        lo.loss_cross_entropy,
        lo.grad_cross_entropy,
        {"class_weights": WEIGHTS, "scale": 1.7},
    ),
}
each_loss = pytest.mark.parametrize("name", ORACLES)


def problem(seed=0, labels=4, grid=GRID, dtype=np.float64, share=0.7):
    """Z, W0 and targets from 1, some of them 0."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(labels, *grid)).astype(dtype)
    w0 = oracle._softmax(rng.normal(size=z.shape)).astype(dtype)
    target = np.where(rng.random(grid) < share, rng.integers(1, labels + 1, grid), 0)
    target.flat[:labels] = np.arange(1, labels + 1)
    return z, w0, target.astype(np.uint8)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("general", [False, True], ids=["barycenter", "w0"])
@pytest.mark.parametrize("share", [0.05, 0.7, 1.0])
@each_loss
def test_values_and_gradients_match_the_oracle(name, share, general, dtype):
    loss, value, gradient, options = ORACLES[name]
    z, w0, target = problem(dtype=dtype, share=share)
    w0 = w0 if general else None
    known = target > 0
    classes = target.astype(int) - 1
    rtol = 1e-13 if dtype == np.float64 else 5e-6
    sums = loss.sums(z, target, w0)
    assert sums.dtype == np.float64
    assert loss.value(sums) == pytest.approx(value(z, classes, w0, known, **options), rel=rtol)
    found = loss.gradient(z, target, sums, w0)
    assert found.dtype == dtype
    expected = gradient(z, classes, w0, known, **options)
    # rounding of W0 is magnified where a pixel's cosine is almost 1
    atol = 5 * rtol * abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)
    assert not found[:, ~known].any()
    np.testing.assert_allclose(found.sum(axis=0), 0, atol=atol)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    name=st.sampled_from(sorted(ORACLES)),
    general=st.booleans(),
    cuts=st.lists(st.integers(0, 12), max_size=5),
    across=st.lists(st.integers(0, 15), max_size=5),
)
def test_any_partition_has_the_same_value(seed, name, general, cuts, across):
    loss = ORACLES[name][0]
    z, w0, target = problem(seed, grid=(12, 15))
    w0 = w0 if general else None
    whole = loss.sums(z, target, w0)
    rows, columns = (sorted({0, n, *c}) for n, c in ((12, cuts), (15, across)))
    boxes = [
        np.s_[..., a:b, c:d]
        for a, b in itertools.pairwise(rows)
        for c, d in itertools.pairwise(columns)
    ]
    parts = [loss.sums(z[b], target[b], None if w0 is None else w0[b]) for b in boxes]
    total = np.sum(parts, axis=0)
    np.testing.assert_allclose(total, whole, rtol=1e-12)
    assert loss.value(total) == pytest.approx(loss.value(whole), rel=1e-12)
    # a tile's gradient is the whole's, given the sums of all tiles
    gradient = loss.gradient(z, target, whole, w0)
    for box in boxes:
        part = loss.gradient(z[box], target[box], whole, None if w0 is None else w0[box])
        np.testing.assert_array_equal(part, gradient[box])


@pytest.mark.parametrize("general", [False, True], ids=["barycenter", "w0"])
@each_loss
def test_pixels_without_a_label_do_not_matter(name, general):
    loss = ORACLES[name][0]
    z, w0, target = problem()
    w0 = w0 if general else None
    other = np.where(target > 0, z, 9 * np.random.default_rng(1).normal(size=z.shape))
    sums = loss.sums(z, target, w0)
    np.testing.assert_array_equal(loss.sums(other, target, w0), sums)
    np.testing.assert_array_equal(
        loss.gradient(other, target, sums, w0), loss.gradient(z, target, sums, w0)
    )
    # masked-out ones have Z = 0, and no direction
    other = np.where(target > 0, z, 0)
    np.testing.assert_array_equal(loss.sums(other, target, w0), sums)
    np.testing.assert_array_equal(
        loss.gradient(other, target, sums, w0), loss.gradient(z, target, sums, w0)
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_undecided_pixel_has_no_slope(dtype):
    z, _, target = problem(dtype=dtype, share=1.0)
    z[:, 2, 3] = 0
    loss = PixelCosine()
    sums = loss.sums(z, target)
    found = loss.gradient(z, target, sums)
    assert np.isfinite(found).all()
    assert not found[:, 2, 3].any()
    assert sums[1] == target.size
    # it counts as a right angle
    z[:, 2, 3] = [1, -1, 0, 0]
    target[2, 3] = 3
    np.testing.assert_allclose(loss.sums(z, target)[0], sums[0], rtol=1e-6)


@each_loss
def test_a_better_flow_has_a_smaller_loss(name):
    loss = ORACLES[name][0]
    z, _, target = problem(share=1.0)
    hot = (target == np.arange(1, 5).reshape(-1, 1, 1)).astype(np.float64)
    values = [loss.value(loss.sums(x, target)) for x in (-hot, z, 0.3 * z + hot, 9 * hot + 4)]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == 4
    if "entropy" not in name:
        assert values[0] == pytest.approx(2)
        assert values[-1] == pytest.approx(0, abs=1e-12)


def test_cosine_is_scale_free_and_entropy_is_not():
    z, w0, target = problem()
    for loss in (Cosine(), PixelCosine()):
        value = loss.value(loss.sums(z, target, w0))
        assert loss.value(loss.sums(5 * z, target, w0)) == pytest.approx(value, rel=1e-12)
    one, scaled = CrossEntropy(), CrossEntropy(scale=5.0)
    np.testing.assert_allclose(one.sums(5 * z, target), scaled.sums(z, target), rtol=1e-12)
    assert one.value(one.sums(5 * z, target)) != one.value(one.sums(z, target))


def test_class_weights():
    z, _, target = problem()
    equal, none = CrossEntropy((3.0,) * 4), CrossEntropy()
    sums = [loss.sums(z, target) for loss in (equal, none)]
    assert equal.value(sums[0]) == pytest.approx(none.value(sums[1]), rel=1e-13)
    # a class of weight 0 is as good as unlabeled
    without = CrossEntropy((1.0, 1.0, 0.0, 1.0))
    sums = without.sums(z, target)
    left = np.where(target == 3, 0, target)
    np.testing.assert_allclose(sums, none.sums(z, left), rtol=1e-13)
    np.testing.assert_allclose(
        without.gradient(z, target, sums), none.gradient(z, left, sums), atol=1e-15
    )


def test_a_sure_and_wrong_pixel_is_finite():
    z, _, target = problem(dtype=np.float32)
    loss = CrossEntropy(scale=1e4)
    sums = loss.sums(z, target)
    assert 10 < loss.value(sums) < 100
    assert np.isfinite(loss.gradient(z, target, sums)).all()


@each_loss
def test_no_label_is_an_error(name):
    loss = ORACLES[name][0]
    z, _, target = problem()
    sums = loss.sums(z, 0 * target)
    with pytest.raises(ValueError, match="expected labeled pixels"):
        loss.value(sums)
    with pytest.raises(ValueError, match="expected labeled pixels"):
        loss.gradient(z, 0 * target, sums)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda z, y: Cosine().value(Cosine().sums(0 * z, y)), "a flow that is not 0"),
        (lambda z, y: PixelCosine().gradient(z[:2], y, np.ones(2)), "3 classes or more, got 2"),
        (lambda z, y: CrossEntropy((1, 2, 3)).sums(z, y), "expected 4 class weights, got 3"),
        (lambda z, y: losses.make("hinge"), "cosine, pixel-cosine, cross-entropy, got 'hinge'"),
    ],
)
def test_refusals(make, message):
    z, _, target = problem()
    with pytest.raises(ValueError, match=message):
        make(z, target)


def test_losses_by_name():
    assert losses.make("cosine") == Cosine()
    assert losses.make("pixel-cosine") == PixelCosine()
    assert losses.make("cross-entropy", weights=(1.0, 2.0)) == CrossEntropy((1.0, 2.0))
    with pytest.raises(TypeError, match="scale"):
        losses.make("cosine", scale=1.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("masked", [False, True])
def test_regularizer_matches_the_oracle(masked, dtype):
    rng = np.random.default_rng(2)
    offsets = stencil.rings(2)
    mask = rng.random(GRID) > 0.3 if masked else None
    weights = oracle.random_weights(offsets, GRID, rng, mask)
    tolerance = 1e-13 if dtype == np.float64 else 1e-5
    value, gradient = losses.regularizer(weights.astype(dtype), 0.3)
    assert gradient.dtype == dtype
    assert value == pytest.approx(lo.regularizer(weights, 0.3), rel=tolerance)
    np.testing.assert_allclose(gradient, lo.grad_regularizer(weights, 0.3), atol=tolerance)
    assert not gradient[weights == 0].any()
    np.testing.assert_allclose(losses.tangents(weights), lo.weight_coordinates(weights), atol=1e-13)
    # its minimum is at uniform weights
    uniform = oracle.uniform_weights(offsets, GRID, mask)
    assert losses.regularizer(uniform, 0.3)[0] == pytest.approx(0, abs=1e-25)


def test_regularizer_has_the_slope_of_its_gradient():
    rng = np.random.default_rng(3)
    t = lo.weight_coordinates(oracle.random_weights(stencil.box(3, 3), GRID, rng))
    valid = oracle.uniform_weights(stencil.box(3, 3), GRID) > 0
    direction = np.where(valid, rng.normal(size=t.shape), 0)

    def at(h):
        return losses.regularizer(lo.weights_of(t + h * direction, valid), 0.7)

    value, gradient = at(0.0)
    slope = np.sum(gradient * direction)
    steps = 2.0 ** -np.arange(3, 8)
    remainder = np.array([at(h)[0] - value - h * slope for h in steps])
    np.testing.assert_allclose(np.log2(remainder[:-1] / remainder[1:]), 2, atol=1e-6)
