"""Labels of images and settings beyond what float32 holds, against a reference in float64."""

import dataclasses
import re

import dask.array as da
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

import tiledlaf
from tiledlaf import Euler, Krylov, LinearizedSequence, Taylor
from tiledlaf.flow import linear, stencil
from tiledlaf.labeling import worker
from tiledlaf.labeling.request import label, prepare
from tiledlaf.model import sampling
from tiledlaf.model.settings import make_settings
from tiledlaf.model.terms import Probabilities, Prototypes

GRID, ROWS = (24, 30), np.array([[10.0], [60.0]])


def picture(seed=0, grid=GRID):
    """Whole numbers, so that constants and powers of two are added and multiplied exactly."""
    rng = np.random.default_rng(seed)
    blocks = rng.random((-(-grid[0] // 6), -(-grid[1] // 6))) < 0.5
    clean = np.kron(blocks, np.ones((6, 6)))[: grid[0], : grid[1]]
    return np.round(10 + 50 * clean + rng.normal(0, 25, grid))


def omega(offsets, valid):
    """The averaging matrix of uniform weights over the valid neighbors."""
    index, rows, columns = np.arange(valid.size).reshape(valid.shape), [], []
    for y, x in offsets:
        moved = np.full(valid.shape, -1)
        a, b = valid.shape
        here = np.s_[max(0, -y) : max(0, min(a, a - y)), max(0, -x) : max(0, min(b, b - x))]
        there = np.s_[max(0, y) : max(0, min(a, a + y)), max(0, x) : max(0, min(b, b + x))]
        moved[here] = index[there]
        good = (moved >= 0) & valid & np.append(valid.ravel(), False)[moved]
        rows.append(index[good])
        columns.append(moved[good])
    pairs = np.concatenate(rows), np.concatenate(columns)
    ones = scipy.sparse.csr_array((np.ones(len(pairs[0])), pairs), shape=(valid.size,) * 2)
    return scipy.sparse.diags_array(1 / np.maximum(ones.sum(axis=1), 1)) @ ones


def reference(image, rows, offsets, time=5.0, rho=1.0, valid=None):
    """Z(T), (J, y, x), by the whole Taylor series; distances in extended precision."""
    valid = np.ones(image.shape[-2:], bool) if valid is None else valid
    pixels, rows = image.astype(np.longdouble), np.asarray(rows).astype(np.longdouble)
    d = ((pixels - rows[:, :, None, None]) ** 2).sum(axis=1)
    d = (d - d.min(axis=0)) / d.min(axis=0)[valid].mean()
    q = (-d / np.longdouble(rho)).astype(float).reshape(len(rows), -1) * valid.ravel()
    matrix = omega(offsets, valid)
    u = (matrix @ q.T).T
    above = u - u.max(axis=0)
    e = np.expm1(above)  # S - 1/J keeps its digits where it is small, S where that is
    s = np.exp(above) / np.exp(above).sum(axis=0) * valid.ravel()
    power = time * (e - e.mean(axis=0)) / np.exp(above).sum(axis=0) * valid.ravel()
    z, k = np.zeros_like(q), 1
    while power.any() and (k < time or abs(power).max() > 1e-17 * abs(z).max()):
        z, k = z + power, k + 1
        t = (matrix @ power.T).T
        # by differences: where S is nearly 1, what is left of t - <s, t> may be lost beside t
        power = s * (s * (t[:, None] - t)).sum(axis=1) * (time / k)
    return z.reshape(-1, *valid.shape)


def check(labels, z, time, valid=None):
    """Labels are those of Z where its margin exceeds the documented bound."""
    second, best = np.partition(z, len(z) - 2, axis=0)[-2:]
    clear = best - second > 3e-4 * np.maximum(time, abs(z).max(axis=0))
    clear &= True if valid is None else valid
    assert clear.mean() > 0.2
    np.testing.assert_array_equal(labels[clear], z.argmax(axis=0)[clear] + 1)


@pytest.mark.parametrize("factor", [1e-300, 1e-40, 1e-22, 1e-12, 1e15, 1e18, 1e25, 1e300])
def test_units_do_not_change_labels(factor):
    image = picture()
    expected = label(image, classes=2)
    np.testing.assert_array_equal(label(image * factor, classes=2), expected)
    if 1e-44 < factor < 1e36:
        single = (image * factor).astype(np.float32)
        np.testing.assert_array_equal(label(single, classes=2), expected)
    np.testing.assert_array_equal(
        label(image * factor, prototypes=ROWS * factor), label(image, prototypes=ROWS)
    )


@pytest.mark.parametrize(
    ("offset", "dtype"),
    [
        *((offset, "f8") for offset in (1e6, -1e9, 1e12)),
        *((2**50, dtype) for dtype in ("i8", "u8")),
        *((1e4, "f4"), (2**24, "i4"), (4e9, "u4"), (60000, "u2")),
    ],
)
def test_constants_do_not_change_labels(offset, dtype):
    image = np.maximum(picture(), 0)
    moved = (image + offset).astype(dtype)
    assert ((moved.astype(float) - offset) == image).all()
    for one, other in (
        (label(image, classes=2), label(moved, classes=2)),
        (label(image, prototypes=ROWS), label(moved, prototypes=ROWS + offset)),
    ):
        np.testing.assert_array_equal(one, other)


@settings(max_examples=15)
@given(power=st.integers(-900, 900), offset=st.integers(-(2**36), 2**36), seed=st.integers(0, 99))
def test_labels_follow_shifts_and_scales(power, offset, seed):
    image = picture(seed)
    moved = (image + offset) * 2.0**power
    labels = label(moved, prototypes=(ROWS + offset) * 2.0**power)
    check(labels, reference(image[None], ROWS, stencil.box(3, 3)), 5.0)


SETTINGS = [
    *((time, 1.0, "3x3") for time in (0.01, 20.0, 80.0, 160.0, 400.0, 1000.0)),
    *((5.0, rho, "3x3") for rho in (1e-99, 1e-40, 1e-9, 1e-3, 1e3, 1e5, 1e9)),
    (300.0, 1e-4, "rings:2,5"),
    (120.0, 1e4, "5x5"),
]


@pytest.mark.parametrize(("time", "rho", "neighborhood"), SETTINGS)
def test_any_time_and_rho(time, rho, neighborhood):
    image, options = picture(), {"time": time, "rho": rho, "neighborhood": neighborhood}
    labels, certain = label(image, prototypes=ROWS, confidence=True, **options)
    assert np.isfinite(certain).all()
    z = reference(image[None], ROWS, stencil.parse(neighborhood, 2), time, rho)
    if abs(z).max() < time:  # S is nearly 1/J
        z = z / abs(z).max() * time
    check(labels, z, time)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(250))
def test_random_settings(seed):
    rng = np.random.default_rng(seed)
    count, channels = (int(n) for n in rng.integers((2, 1), (5, 4)))
    grid = tuple(int(n) for n in rng.integers(5, 36, 2))
    blocks = rng.integers(0, count, grid).repeat(6, 0).repeat(6, 1)[: grid[0], : grid[1]]
    rows = rng.normal(0, 2, (count, channels))
    image = np.moveaxis(rows[blocks], -1, 0) + rng.normal(0, 0.4, (channels, *grid))
    kind = rng.choice(["plain", "far", "unit", "both"])
    if kind in ("far", "both"):
        offset = rng.choice([-1, 1]) * 10 ** rng.uniform(0, 9)
        image, rows = image + offset, rows + offset
    if kind in ("unit", "both"):
        unit = 10 ** rng.uniform(-280, 250)
        image, rows = image * unit, rows * unit
    rho = 10 ** rng.uniform(-6, 5) if rng.random() < 0.5 else 1.0
    time = float(rng.choice([0.1, 1, 5, 20, 50, 90, 150, 300, 700, 1000]))
    neighborhood = rng.choice(["3x3", "5x5", "rings:2,5", "1x3"])
    valid = rng.random(grid) < rng.choice([0.8, 1.1])
    labels = label(
        image,
        prototypes=rows,
        axes="cyx",
        mask=valid.astype(np.uint8),
        time=time,
        rho=rho,
        neighborhood=str(neighborhood),
        tile=16,
    )
    assert not labels[~valid].any()
    z = reference(image, rows, stencil.parse(neighborhood, 2), time, rho, valid)
    second, best = np.partition(z, count - 2, axis=0)[-2:]
    bound = np.maximum(3e-4 * np.maximum(time, abs(z).max(axis=0)), 1e-12 * abs(z).max())
    clear = valid & (best - second > bound)
    np.testing.assert_array_equal(labels[clear], z.argmax(axis=0)[clear] + 1)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"rho": 1e30}, "rho must be 1e-100 to 1e+09, got 1e+30"),
        ({"rho": 1e-200}, "rho must be 1e-100 to 1e+09"),
        ({"time": 1001}, "time must be at most 1000, got 1001"),
        ({"time": 1e-200}, "time must be at least 1e-100, got 1e-200"),
        ({"prototypes": [[1.0], [1.0 + 1e-15]]}, "expected prototypes that float64 can tell apart"),
        ({"prototypes": [[1.0], [1.0]]}, "two equal rows"),
        ({"prototypes": [[1.0], [10**400]]}, "expected prototypes as rows of numbers"),
        ({"prototypes": [[1.0], [2j]]}, "expected prototypes as rows of numbers"),
    ],
)
def test_what_float64_cannot_hold_is_refused(options, expected):
    with pytest.raises(ValueError, match=re.escape(expected)):
        label(picture(), **({} if "prototypes" in options else {"classes": 2}), **options)


def test_images_that_float64_cannot_tell_apart_are_refused():
    with pytest.raises(ValueError, match="only 1 different values as float64: subtract a number"):
        label((picture() > 30) * 10 + 2**62, classes=2)
    with pytest.raises(ValueError, match="above 1e-300 in size"):
        label(picture() * 1e-310, classes=2)
    with pytest.raises(ValueError, match="only 1 different values"):
        label(np.zeros(GRID), classes=2)
    assert label(np.zeros(GRID), prototypes=[[0.0], [1.0]]).max() == 1
    assert label(np.array([[7.0]]), prototypes=[[0.0], [9.0]]).tolist() == [[2]]


def test_values_for_no_data_do_not_count_as_the_images_range():
    image = picture()
    image[:3] = -3.4e38
    with pytest.raises(ValueError, match=r"`no_data` -3.4e\+38 if that stands for no data"):
        label(image, classes=2)
    np.testing.assert_array_equal(
        label(image, classes=2, no_data=-3.4e38)[3:] > 0, np.ones((GRID[0] - 3, GRID[1]), bool)
    )


WIDE = {
    "far": (picture() + 1e9, {"prototypes": ROWS + 1e9}),
    "long": (picture(), {"prototypes": ROWS, "time": 100.0}),
    "small rho": (picture(), {"classes": 2, "rho": 1e-9}),
}


@pytest.mark.parametrize("case", WIDE)
def test_tiles_and_dask_in_float64(case):
    image, options = WIDE[case]
    image = np.tile(image, (4, 4))
    expected = label(image, confidence=True, tile=2048, **options)
    for found in (
        label(image, confidence=True, tile=16, workers=2, **options),
        label(da.from_array(image, chunks=40), confidence=True, **options),
    ):
        for one, other in zip(expected, found, strict=True):
            np.testing.assert_array_equal(one, np.asarray(other))


def test_ordinary_settings_stay_in_float32():
    box = stencil.box(3, 3)
    plain = make_settings(box, 2, 1.0, 5.0, None, "cpu")
    assert not plain.double
    assert not plain.wide
    for rho, time, scheme in (
        (1.0, 100.0, None),
        (1.0, 150.0, Euler(50)),
        (1e-3, 5.0, None),
        (1e4, 5.0, None),
        (1.0, 200.0, Krylov()),
    ):
        assert make_settings(box, 2, rho, time, scheme, "cpu").double
    assert not make_settings(box, 2, 1.0, 200.0, LinearizedSequence(20), "cpu").double
    # of a model only where float32 would overflow
    assert not dataclasses.replace(plain, time=150.0).wide
    assert dataclasses.replace(plain, time=165.0).wide
    # the certificate grows with what is rounded
    assert plain.bound == Taylor().bound(5.0) + 4e-6 * 5.0
    assert dataclasses.replace(plain, time=60.0).bound > 1e5

    sample = picture().reshape(-1, 1)
    assert sampling.scale(sample, ROWS)[1] == 0
    assert sampling.scale((sample + 2000).astype("u2"), ROWS + 2000)[1] == 0
    assert sampling.scale(sample + 1e5, ROWS + 1e5)[1] == 1
    assert sampling.scale(sample * 1e200, ROWS * 1e200)[1] == 2.0**671


def test_what_a_run_found_says_how_it_was_computed(tmp_path):
    store, image = str(tmp_path / "out.zarr"), picture() * 1e200
    assert prepare(image, store, classes=2, time=100.0).settings["arithmetic"] == "float64"
    assert "arithmetic" not in prepare(image, store, classes=2).settings
    # the unit is found in a sample, as the scale is: outputs of former versions have neither
    given = prepare(image, store, prototypes=[[1.0], [2.0]]).settings
    assert not {"scale", "unit"} & set(given)
    term = Prototypes(((0.0,), (1e200,)), 0.5, 2.0**664)
    assert Prototypes(((0.0,), (1.0,)), 1.0).resume(term.notes()) == term
    assert "unit" not in Prototypes(((0.0,), (1.0,)), 1.0).notes()
    parts = Probabilities(2).distances(np.full((2, 1, 1), 0.5, np.float32), None)
    assert parts.dtype == np.float64


@dataclasses.dataclass(frozen=True)
class Broken(Taylor):
    """Loses one pixel."""

    def classify(self, *given, **more):
        labels, certain, gap = super().classify(*given, **more)
        certain[3, 4] = np.nan
        return labels, certain, gap


def test_a_flow_that_is_not_finite_is_no_label(tmp_path):
    expected = r"tile \(0, 0\).*: expected a finite flow at each pixel, got NaN or inf at 1:"
    with pytest.raises(ValueError, match=expected):
        label(picture(), classes=2, integrator=Broken())
    found = label(picture(), str(tmp_path / "out.zarr"), classes=2, integrator=Broken())
    assert found.tiles["failed"] == 1
    assert "expected a finite flow" in found.errors[0]
    weights = stencil.uniform(stencil.box(3, 3), GRID)
    with pytest.raises(ValueError, match="expected finite weights and distances"):
        tiledlaf.solve(weights, np.full((2, *GRID), np.nan, np.float32), stencil.box(3, 3))
    worker.check_computed(np.full(GRID, 0.5), 5.0)
    linear.check_finite(np.zeros(GRID), 5.0)
