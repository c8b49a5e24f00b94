import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiledlaf.model import accepted, sampling, terms
from tiledlaf.model.terms import Probabilities, Prototypes


def test_prototype_distances_are_squared_and_scaled():
    image = np.array([[[0, 10]], [[0, 20]]], np.uint8)
    term = Prototypes(((0, 0), (10, 10), (0, 20)), 50.0)
    q = term.potential(image, None, 2.0)
    expected = -np.array([[[0, 500]], [[200, 100]], [[400, 100]]]) / 50 / 2
    np.testing.assert_allclose(q, expected, rtol=1e-6)


def test_scale_is_the_mean_distance_to_the_nearest_prototype():
    sample = np.array([[0.0], [1.0], [9.0], [10.0]])
    assert terms.prototypes(sample, [[0.0], [10.0]]).scale == pytest.approx(0.5)
    # nothing but prototypes: their own distance
    assert terms.prototypes(np.array([[0.0], [3.0]]), [[0.0], [3.0]]).scale == 9.0


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_probabilities_are_clipped_and_never_rescaled(dtype):
    p = np.array([[[1.0, 0.25]], [[0.0, 0.75]]], dtype)
    q = Probabilities(2).potential(p, None, 1.0)
    np.testing.assert_allclose(q, np.log(np.maximum(p.astype(np.float32), 1e-6)), rtol=1e-6)
    nearly = np.array([[[0.5]], [[0.5004]]])
    np.testing.assert_allclose(accepted.normalized(nearly), nearly, rtol=1e-6)


def test_unsigned_integers_are_divided_by_their_sum():
    p = np.array([[[255, 10]], [[0, 30]]], np.uint8)
    np.testing.assert_allclose(accepted.normalized(p), [[[1, 0.25]], [[0, 0.75]]])


@pytest.mark.parametrize(
    ("p", "message"),
    [
        (np.array([[[0.5]], [[0.502]]]), "sum to 1 within 1e-3 .* the sum 1.002"),
        (np.array([[[1.5]], [[-0.5]]]), "0 or more"),
        (np.zeros((2, 1, 1), np.uint8), "positive sum"),
        (np.zeros((2, 1, 1), np.int16), "float or unsigned integer, got int16"),
    ],
)
def test_no_probabilities(p, message):
    with pytest.raises(ValueError, match=message):
        accepted.normalized(p)
    if p.dtype.kind != "i":
        accepted.normalized(p, np.zeros((1, 1), bool))  # nobody minds what is masked out


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_inf_are_named_with_their_place(bad):
    image = np.zeros((2, 4, 5), np.float32)
    image[1, 2, 3] = bad
    with pytest.raises(ValueError, match=r"1 NaN or inf, the first at channel 1, pixel \(2, 3\)"):
        accepted.check_finite(image, None, "image")
    valid = np.ones((4, 5), bool)
    valid[2, 3] = False
    accepted.check_finite(image, valid, "image")


def test_kmeans_orders_by_brightness_and_repeats():
    rng = np.random.default_rng(0)
    sample = np.concatenate([rng.normal(c, 1, (300, 2)) for c in (50, 10, 90)])
    centers = sampling.kmeans(sample, 3, seed=0)
    np.testing.assert_allclose(centers.mean(axis=1), [10, 50, 90], atol=0.5)
    np.testing.assert_array_equal(centers, sampling.kmeans(sample, 3, seed=0))


def test_too_few_values_for_kmeans():
    with pytest.raises(ValueError, match="only 2 different values"):
        sampling.kmeans(np.array([[1.0], [1.0], [2.0]]), 3, 0)


@given(
    shape=st.one_of(st.tuples(*[st.integers(1, 3000)] * 2), st.tuples(*[st.integers(1, 300)] * 3)),
    seed=st.integers(0, 5),
)
def test_sample_windows(shape, seed):
    windows = sampling.sample_windows(shape, seed)
    assert windows == sampling.sample_windows(shape, seed)
    pixels = sum(np.prod([s.stop - s.start for s in w]) for w in windows)
    assert pixels <= sampling.SAMPLE_PIXELS
    assert pixels == min(np.prod(shape), sampling.SAMPLE_PIXELS) or pixels > 60000
    assert all(0 <= s.start < s.stop <= n for w in windows for s, n in zip(w, shape, strict=True))
