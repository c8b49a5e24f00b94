"""Kernels and integrators against the dense oracle, which shares no code with the package."""

import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import BOX, CASES, problem

from tiledlaf import Euler, Krylov, Taylor, assignment, solve
from tiledlaf.flow import stencil
from tiledlaf.flow.krylov import norm_of
from tiledlaf.kernels import select


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kernel", ["numpy", "numba"])
@pytest.mark.parametrize("name", CASES)
def test_operators_match_the_oracle(name, kernel, dtype):
    weights, x, offsets, _, mask = problem(name, dtype)
    kernels, tol = select(x, kernel), 2e-6 if dtype == np.float32 else 1e-13
    np.testing.assert_allclose(
        kernels.average(weights, x, offsets), oracle.average(weights, x, offsets), atol=tol
    )
    np.testing.assert_allclose(
        kernels.adjoint(weights, x, offsets), oracle.adjoint(weights, x, offsets), atol=tol
    )
    s = oracle.similarity(weights, x, offsets, mask=mask)
    np.testing.assert_allclose(kernels.similarity(weights, -x, offsets), s, atol=tol)


@pytest.mark.parametrize("general", [False, True])
@pytest.mark.parametrize("kernel", ["numpy", "numba"])
@pytest.mark.parametrize("name", CASES)
def test_integrators_match_the_dense_exponential(name, kernel, general):
    weights, distances, offsets, w0, mask = problem(name, np.float64, general)
    valid = np.s_[:] if mask is None else np.s_[:, mask]
    z = oracle.flow_z(weights, distances, offsets, 5.0, rho=0.7, w0=w0, mask=mask)
    w = oracle.lift(w0, oracle.flow_v(weights, distances, offsets, 5.0, rho=0.7, w0=w0, mask=mask))
    for integrator in (Taylor(1e-12), Krylov(40)):
        found = solve(
            weights,
            distances,
            offsets,
            time=5.0,
            rho=0.7,
            w0=w0,
            integrator=integrator,
            kernel=kernel,
        )
        np.testing.assert_allclose(found.z[valid], z[valid], atol=1e-9)
        np.testing.assert_allclose(assignment(found.z, w0)[valid], w[valid], atol=1e-9)
    found = solve(
        weights, distances, offsets, time=5.0, rho=0.7, w0=w0, integrator=Euler(30), kernel=kernel
    )
    z = oracle.euler(weights, distances, offsets, 5.0, 30, rho=0.7, w0=w0, mask=mask)
    np.testing.assert_allclose(found.z[valid], z[valid], atol=1e-12)
    assert found.matvecs == 29


@pytest.mark.parametrize(
    ("labels", "kernel"),
    # few with numba, since each one is compiled: one block and two, even and odd numbers
    [*((n, "numpy") for n in range(2, 13)), *((n, "numba") for n in (2, 3, 8, 15))],
)
def test_single_precision_over_labels(labels, kernel):
    rng = np.random.default_rng(labels)
    grid = (4, 20)
    weights = oracle.random_weights(BOX, grid, rng).astype(np.float32)
    distances = (2 * rng.random((labels, *grid))).astype(np.float32)
    exact = oracle.taylor(weights, distances, BOX, 5.0, Taylor().terms(5.0))
    found = solve(weights, distances, BOX, kernel=kernel).z
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, exact, atol=4e-6 * 5)
    label, confidence, gap = select(found, kernel).decide(found)
    np.testing.assert_array_equal(label, found.argmax(axis=0) + 1)
    np.testing.assert_allclose(confidence, assignment(found).max(axis=0), rtol=1e-5)
    top = np.sort(found, axis=0)
    np.testing.assert_array_equal(gap, top[-1] - top[-2])


@pytest.mark.parametrize("time", [0.2, 1.0, 5.0, 20.0])
@pytest.mark.parametrize("integrator", [Taylor(1e-2), Taylor(1e-4), Euler(20), Euler(50)])
def test_errors_stay_under_their_bounds(integrator, time):
    weights, distances, offsets, _, _ = problem("box", np.float64)
    exact = oracle.flow_z(weights, distances, offsets, time)
    found = solve(weights, distances, offsets, time=time, integrator=integrator)
    error = found.z - exact
    osc = error.max(axis=0) - error.min(axis=0)
    assert 0 < osc.max() <= found.error
    if isinstance(integrator, Taylor):
        assert found.error <= integrator.tol * time


@pytest.mark.parametrize("dim", [3, 5, 8])
def test_krylov_error_estimate(dim):
    weights, distances, offsets, _, _ = problem("box", np.float64)
    exact = oracle.flow_z(weights, distances, offsets, 5.0)
    found = solve(weights, distances, offsets, integrator=Krylov(dim))
    error = np.linalg.norm(found.z - exact)
    assert error / 3 < found.error < 30 * error
    assert found.matvecs == dim


def test_krylov_without_a_source_or_after_breakdown():
    distances = np.ones((3, 4, 4))
    weights = stencil.uniform(BOX, (4, 4)).astype(np.float64)
    still = solve(weights, distances, BOX, integrator=Krylov(5))
    assert (still.matvecs, still.error, abs(still.z).max()) == (0, 0.0, 0.0)
    weights, distances, offsets, _, _ = problem("one pixel", np.float64)
    found = solve(weights, distances, offsets, integrator=Krylov(20))
    exact = oracle.flow_z(weights, distances, offsets, 5.0)
    np.testing.assert_allclose(found.z, exact, atol=1e-12)
    assert found.matvecs < 20


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), general=st.booleans(), name=st.sampled_from(sorted(CASES)))
def test_flow_ignores_constants_and_relabels(seed, general, name):
    weights, distances, offsets, w0, _ = problem(name, np.float64, general, seed)
    z = solve(weights, distances, offsets, w0=w0).z
    np.testing.assert_allclose(z.sum(axis=0), 0, atol=1e-12)
    shifted = distances + np.random.default_rng(seed).random(distances.shape[1:])
    np.testing.assert_allclose(solve(weights, shifted, offsets, w0=w0).z, z, atol=1e-10)
    flipped = solve(weights, distances[::-1], offsets, w0=None if w0 is None else w0[::-1]).z
    np.testing.assert_allclose(flipped[::-1], z, atol=1e-12)


def test_steps_follow_from_the_tolerance():
    # sum_(k>n) 2.5^(k-1) / k! at n = 10 and 11: 3.0e-4 and 6.1e-5
    assert Taylor(1e-4).terms(5.0) == 11
    assert Taylor(3.1e-4).terms(5.0) == 10
    assert Taylor(1e-4).bound(5.0) == pytest.approx(5 * 6.139e-5, rel=1e-3)
    assert [Taylor(1e-4).terms(t) for t in (1.0, 20.0)] == [5, 31]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Taylor(0), "tol must be a positive number, got 0"),
        (lambda: Euler(0), "`steps` must be 1 or more, got 0"),
        (lambda: Krylov(0), "dim must be 1 or more, got 0"),
        (lambda: Taylor().terms(-1), "time must be a positive number, got -1"),
        (lambda: select(np.zeros(1), "fast"), "kernel must be one of numpy, numba, cupy"),
        (lambda: select(np.zeros(1), "cupy"), "kernel 'cupy' does not work on numpy arrays"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_planes_that_do_not_fit_are_refused():
    weights, distances, offsets, _, _ = problem("box", np.float64)
    with pytest.raises(ValueError, match="expected weights as an array, got NoneType"):
        solve(None, distances, offsets)
    with pytest.raises(ValueError, match="expected distances as an array, got ndarray"):
        solve(weights, np.array(1.0), offsets)
    with pytest.raises(ValueError, match=r"weights must have shape \(9, 6, 5\), got \(8, 6, 5\)"):
        solve(weights[1:], distances, offsets)
    with pytest.raises(ValueError, match="two classes or more"):
        solve(weights, distances[:1], offsets)


@pytest.mark.parametrize("dim", [6, 10, 30])
def test_krylov_spaces_reach_any_time_in_strides(dim):
    weights, distances, offsets, _, _ = problem("box", np.float64)
    for time in (2 * dim, 5 * dim + 1, 400.0):
        exact = solve(weights, distances, offsets, time=float(time)).z
        found = solve(weights, distances, offsets, time=float(time), integrator=Krylov(dim))
        assert abs(found.z - exact).max() < 0.02 * abs(exact).max() + 1e-4 * time
    with pytest.raises(ValueError, match=r"expected a Krylov dimension .* 40, got 1: the error"):
        solve(weights, distances, offsets, time=40.0, integrator=Krylov(1))


@pytest.mark.parametrize(
    ("integrator", "longest"), [(Taylor(), 159), (Krylov(), 159), (Euler(50), 200)]
)
def test_times_that_overflow_float32_are_refused(integrator, longest):
    weights, distances, offsets, _, _ = problem("box", np.float32)
    found = solve(weights, distances, offsets, time=float(longest), integrator=integrator)
    assert np.isfinite(found.z).all()
    with pytest.raises(ValueError, match=r"time 900 is too long for float32: .* e\^85 is the most"):
        solve(weights, distances, offsets, time=900.0, integrator=integrator)


def test_norms_of_numbers_whose_squares_overflow():
    x = np.array([3.0, 4.0])
    assert norm_of(x) == 5
    assert norm_of(0 * x) == 0
    assert norm_of(x * 1e250) == pytest.approx(5e250)
    assert norm_of(x * 1e-250) == pytest.approx(5e-250)
    assert norm_of(x * np.inf) == np.inf
