"""The layer of explicit vectors, each function in a loop as the kernels use it."""

import numpy as np
import pytest
from numba import njit

from tiledlaf.kernels.compiled import vector
from tiledlaf.kernels.compiled.vector import (
    exp,
    fma,
    inner,
    lanes_of,
    load,
    load_each,
    log,
    registers,
    splat,
    store,
    store_each,
    store_whole,
    where_greater,
    zeros,
)

TYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@njit
def _exp(x, out):
    for i in range(0, len(x), lanes_of(x)):
        store(out, i, exp(load(x, i)))


@njit
def _log(x, out):
    for i in range(0, len(x), lanes_of(x)):
        store(out, i, log(load(x, i)))


@njit
def _copy(x, start, out, target):
    store(out, target, load(x, start))


@njit
def _fma(a, b, c, out):
    store(out, 0, fma(load(a, 0), load(b, 0), load(c, 0)))


@njit
def _where(a, b, yes, no, out):
    store(out, 0, where_greater(load(a, 0), load(b, 0), load(yes, 0), load(no, 0)))


@njit
def _arithmetic(a, b, c, out):
    store(out, 0, (load(a, 0) + load(b, 0)) * splat(c) - load(a, 0) / load(b, 0))


@njit
def _labels(x, weights, labels, out, total):
    lanes = lanes_of(x)
    room = registers(x, labels)
    several = fma(load(weights, 0), load_each(x, 0, lanes, labels), zeros(x, labels))
    store_each(room, 0, lanes, several)
    for j in range(len(labels)):
        store(out, j * lanes, load(room, j * lanes))
    store(total, 0, inner(several, load_each(x, 0, lanes, labels), splat(x.dtype.type(0))))


@njit
def _whole(x, out, target):
    store_whole(out, target, load(x, 0))


def _lanes(dtype):
    return 64 // np.dtype(dtype).itemsize


@TYPES
def test_exp_is_within_two_units_in_the_last_place(dtype):
    lowest = -87.0 if dtype == np.float32 else -708.0
    x = np.linspace(lowest, 80, 1 << 17, dtype=dtype)
    out = np.empty_like(x)
    _exp(x, out)
    expected = np.exp(x.astype(np.longdouble))
    assert (abs(out - expected) <= 2 * np.spacing(expected.astype(dtype))).all()


@TYPES
def test_log_is_within_two_units_in_the_last_place(dtype):
    info = np.finfo(dtype)
    smallest, largest = np.log(np.array([info.tiny, info.max], np.longdouble))
    x = np.exp(np.linspace(smallest, largest, 1 << 16)).astype(dtype)
    x[:2] = info.tiny, info.max
    # where log is small, and where the exponent changes
    for i, center in enumerate((1, np.sqrt(0.5), np.sqrt(2), 2, 0.5), 1):
        steps = dtype(center) * (1 + np.arange(-512, 512) * info.eps)
        x[1024 * i : 1024 * (i + 1)] = steps.astype(dtype)
    out = np.empty_like(x)
    _log(x, out)
    expected = np.log(x.astype(np.longdouble))
    assert (abs(out - expected) <= 2 * abs(np.spacing(expected.astype(dtype)))).all()


@TYPES
def test_exp_at_the_ends(dtype):
    x = np.zeros(_lanes(dtype), dtype)
    x[:5] = -1e4, -np.inf, 0, np.nan, -0.0
    out = np.empty_like(x)
    _exp(x, out)
    assert (out[:2] >= 0).all()
    assert (out[:2] < 2e-38).all()
    assert out[2] == out[4] == 1
    assert np.isnan(out[3])


@TYPES
@pytest.mark.parametrize(("start", "target"), [(0, 0), (1, 3), (7, 0), (13, 5)])
def test_load_and_store_at_any_index(dtype, start, target):
    x = np.arange(64, dtype=dtype)
    out = np.full(64, -1, dtype)
    _copy(x, start, out, target)
    expected = np.full(64, -1, dtype)
    expected[target : target + _lanes(dtype)] = x[start : start + _lanes(dtype)]
    np.testing.assert_array_equal(out, expected)


@TYPES
def test_fma_rounds_once(dtype):
    # (1 + e)^2 - (1 + 2 e) is e^2, which the product rounded for itself loses
    e = np.finfo(dtype).eps
    a = np.full(_lanes(dtype), 1 + e, dtype)
    c = np.full_like(a, -(1 + 2 * e))
    out = np.empty_like(a)
    _fma(a, a, c, out)
    assert (a * a + c == 0).all()
    assert (out == dtype(e) ** 2).all()


@TYPES
def test_where_greater_is_false_for_equals_and_nan(dtype):
    n = _lanes(dtype)
    a, b = np.arange(n, dtype=dtype), np.full(n, 3, dtype)
    a[5] = np.nan
    out = np.empty_like(a)
    _where(a, b, np.full(n, 1, dtype), np.full(n, 2, dtype), out)
    np.testing.assert_array_equal(out, np.where(a > b, 1, 2))


@TYPES
def test_arithmetic(dtype):
    rng = np.random.default_rng(0)
    a, b = rng.uniform(1, 2, (2, _lanes(dtype))).astype(dtype)
    out = np.empty_like(a)
    _arithmetic(a, b, dtype(1.5), out)
    np.testing.assert_array_equal(out, (a + b) * dtype(1.5) - a / b)


@TYPES
@pytest.mark.parametrize("labels", [1, 2, 5])
def test_several_vectors_at_once(dtype, labels):
    n = _lanes(dtype)
    rng = np.random.default_rng(0)
    x, weights = rng.random((labels, n)).astype(dtype), rng.random(n).astype(dtype)
    out, total = np.empty_like(x), np.empty_like(weights)
    _labels(x.ravel(), weights, (0,) * labels, out.reshape(-1), total)
    np.testing.assert_array_equal(out, weights * x)
    np.testing.assert_allclose(total, (weights * x * x).sum(0), rtol=1e-6)


@TYPES
@pytest.mark.parametrize(("integer", "largest"), [(np.uint8, 255), (np.uint16, 300)])
def test_whole_numbers(dtype, integer, largest):
    x = np.linspace(0, largest, _lanes(dtype)).round().astype(dtype)
    out = np.full(len(x) + 2, 7, integer)
    _whole(x, out, 1)
    assert out[0] == out[-1] == 7
    np.testing.assert_array_equal(out[1:-1], x)


def test_vectors_have_64_bytes():
    assert all(n * kind.bitwidth == 512 for kind, n in vector.LANES.items())
