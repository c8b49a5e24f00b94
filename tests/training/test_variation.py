"""Varied images: what a training learns not to look at."""

import numpy as np
import pytest

from tiledlaf.training.variation import COLOR, CONTRAST, GAMMA, SHIFT, varied


def image(channels=1, dtype=np.uint8):
    rng = np.random.default_rng(0)
    return (rng.random((channels, 40, 50)) ** 2 * 200).astype(dtype)


def test_order_of_values_is_kept():
    """Whatever is brighter stays brighter, also beyond the range."""
    given = image()
    for seed in range(20):
        found = varied(given, (10, 150), (seed,))
        order = np.argsort(given[0], axis=None)
        assert (np.diff(found[0].ravel()[order]) >= -1e-3).all()


def test_the_same_seed_is_the_same_image():
    given = image(3)
    np.testing.assert_array_equal(varied(given, (0, 200), (1, 2)), varied(given, (0, 200), (1, 2)))
    assert not np.array_equal(varied(given, (0, 200), (1, 2)), varied(given, (0, 200), (1, 3)))


@pytest.mark.parametrize("factor", [1 / 255, 1, 257])
def test_units_do_not_matter(factor):
    given = image(3, np.float32)
    found = varied(given * np.float32(factor), (0, 200 * factor), (5,))
    np.testing.assert_allclose(found, varied(given, (0, 200), (5,)) * factor, rtol=1e-4, atol=1e-3)


def test_how_far():
    """The middle moves at most by shift and color, and by what gamma makes of it; colors differ."""
    given = image(3)
    moved = []
    for seed in range(50):
        found = varied(given, (0, 200), (seed,))
        moved.append(np.median(found, axis=(1, 2)) - np.median(given, axis=(1, 2)))
    moved = np.array(moved) / 200
    assert abs(moved).max() < SHIFT + COLOR + 0.1
    assert 0.5 * COLOR < np.ptp(moved, axis=1).max() <= 2 * COLOR + 0.03
    assert CONTRAST < 0.3


def test_gray_stays_gray():
    """Colors are turned around it."""
    given = np.repeat(image(), 3, axis=0)
    for seed in range(10):
        found = varied(given, (0, 200), (seed,))
        assert np.ptp(found - found.mean(axis=(1, 2), keepdims=True), axis=0).max() < 0.02


def test_colors_are_turned():
    """Pure red gets some of the other two, more of one, by up to 14 degrees."""
    given = np.zeros((3, 9, 9), np.uint8)
    given[0, ::2] = 255
    shares = []
    for seed in range(40):
        found = np.ptp(varied(given, (0, 255), (seed,)), axis=(1, 2))
        shares.append(found[1:].max() / found[0])
    assert 0.1 < max(shares) < 0.35
    assert min(shares) < 0.05


def test_channels_of_a_microscope_are_not_mixed():
    """One of them may be a thousand times as bright as another."""
    given = np.zeros((3, 9, 9), np.uint16)
    given[0, ::2] = 60000
    for seed in range(10):
        assert (np.ptp(varied(given, (0, 60000), (seed,)), axis=(1, 2))[1:] == 0).all()


@pytest.mark.parametrize(("dtype", "scale"), [(np.uint8, 255), (np.uint16, 20)])
def test_gamma_bends_all_of_eight_bits(dtype, scale):
    """Of a dark picture of 8 bits, it makes as much as it would of a bright one's shadows."""
    given = np.tile(np.array([0, 10, 20], dtype), (1, 4, 1))
    ratios = []
    for seed in range(60):
        found = varied(given, (0, 20), (seed,))[0, 0]
        ratios.append((found[2] - found[0]) / 20)
    most = (20 / scale) ** (np.exp(-GAMMA) - 1) * np.exp(CONTRAST)
    assert max(ratios) == pytest.approx(most, rel=0.25)


def test_an_image_of_one_value():
    assert np.isfinite(varied(np.full((1, 4, 4), 7, np.uint8), (7, 7), (0,))).all()
