"""Numbers may be of any type, as those that NumPy computes; what JSON and `range` get is plain."""

from fractions import Fraction

import dask.array
import numpy as np
import pytest
import zarr

from tiledlaf import (
    AdaptiveRKMK,
    Data,
    Estimation,
    Euler,
    InputError,
    Krylov,
    Polynomials,
    Recipe,
    Selection,
    Spaces,
    Taylor,
    estimate,
    label,
    open_pool,
    pair,
    train,
)
from tiledlaf.model.classes import find_classes
from tiledlaf.pool.opening import Running

IMAGE = np.random.default_rng(0).integers(0, 255, (3, 48, 40), dtype=np.uint8)
KINDS = [np.int64, np.float32, float, Fraction, np.array]


def labels(**options):
    return label(IMAGE, **({"classes": 3, "time": 2, "workers": 1} | options))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "value"), [("classes", 3), ("seed", 4), ("tile", 32), ("rho", 2), ("level", 0)]
)
def test_options_of_label(tmp_path, monkeypatch, name, value, kind):
    monkeypatch.chdir(tmp_path)
    expected = labels(**{name: value})
    np.testing.assert_array_equal(labels(**{name: kind(value)}), expected)
    label(IMAGE, "a.zarr", **({"classes": 3, "time": 2, "workers": 1} | {name: kind(value)}))
    np.testing.assert_array_equal(
        zarr.open_array("a.zarr/labels/tiledlaf/0", mode="r")[:], expected
    )


def test_regions_channels_and_seeds(tmp_path):
    expected = labels(region=[(0, 30), (8, 40)], channels=[0, 2])
    for region in ([(0.0, 30.0), (8, np.float64(40))], np.array([[0, 30], [8, 40]])):
        for channels in (np.array([0, 2]), iter([0, 2]), (0.0, 2.0), range(0, 3, 2)):
            found = labels(region=region, channels=channels)
            np.testing.assert_array_equal(found, expected)
    lazy = label(dask.array.from_array(IMAGE), classes=2.0, seed=3.0).compute()
    np.testing.assert_array_equal(lazy, label(IMAGE, classes=2, seed=3))


@pytest.mark.parametrize("kind", KINDS)
def test_values_of_settings(kind):
    one = kind(1)
    for made, *names in (
        *((Taylor(tol=one), "tol"), (Euler(steps=one), "steps"), (Krylov(dim=one), "dim")),
        *((AdaptiveRKMK(order=kind(5)), "order"), (Polynomials(rank=one), "rank")),
        *((Spaces(dim=one), "dim"), (Recipe(seed=one, rho=one, steps=one), "seed", "rho", "steps")),
        *((Estimation(sequence=one, tau=one), "sequence", "tau"), (Running(tile=one), "tile")),
        (Selection(z=one, no_data=one), "z", "no_data"),
    ):
        assert {type(getattr(made, name)) for name in names} <= {int, float}


def test_numbers_too_large_for_a_float():
    assert Selection(no_data=np.uint64(2**64 - 1)).no_data == 2**64 - 1


@pytest.mark.parametrize("value", [1.5, "1", np.nan, np.inf, True, [1], 1j])
@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("steps", Euler),
        ("steps", Recipe),
        ("tile", Estimation),
        ("level", Selection),
        ("workers", Running),
        ("dim", Krylov),
        ("seed", Recipe),
        ("classes", labels),
        ("seed", labels),
    ],
)
def test_numbers_that_are_not_whole(name, made, value):
    with pytest.raises(InputError, match=f"expected a whole number for `{name}`"):
        made(**{name: value})


def test_learning_with_numbers_of_numpy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    truth = np.repeat([[1, 2]], 32, axis=1).repeat(64, axis=0)
    examples = pair(100.0 * truth + np.random.default_rng(0).normal(0, 20, truth.shape), truth)
    offsets = np.array([[0, 0], [0, 1], [1, 0]])
    with open_pool(workers=np.int64(1)) as pool:
        one, two = np.float32(1), np.int64(2)
        recipe = Recipe(offsets, 1.0, one, steps=two, predictor_size=4.0, seed=1.0)
        plain = Recipe(offsets.tolist(), 1.0, 1.0, steps=2, predictor_size=4, seed=1)
        for path, asked in (("a", recipe), ("b", plain)):
            train(Data(examples), asked, pool, path)
        how = Estimation(offsets, steps=2.0, tile=np.int64(32), sequence=1.0, rho=one)
        found = estimate(examples[0], "means", "w", how, pool, seed=np.int64(3), ignore=np.int64(0))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert len(found.losses) == 3


@pytest.mark.parametrize("make", [Recipe, Estimation])
def test_numbers_that_must_be_given(make):
    with pytest.raises(InputError, match="expected a whole number for `steps`, got None"):
        make(steps=None)


@pytest.mark.parametrize("names", [["a"], 5])
def test_names_that_are_no_mapping(names):
    with pytest.raises(InputError, match="expected a mapping of label values to names"):
        find_classes([0, 1], names, None)
