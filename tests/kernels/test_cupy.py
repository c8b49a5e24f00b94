"""The GPU kernels against the readable reference. Needs CuPy and a CUDA device."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from tiledlaf.flow.stencil import box, rings
from tiledlaf.kernels import numpy as reference
from tiledlaf.kernels import select

pytestmark = pytest.mark.gpu
cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
if not cupy.cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)
gpu = select(cupy.empty(0))

ASYMMETRIC = ((0, 0), (2, -1), (-4, 3), (0, 5))
TAYLOR = tuple(5 / k for k in range(8, 1, -1))
TOLERANCE = {np.float32: 2e-5, np.float64: 1e-12}
CASES = (
    ((1, 1), box(3, 3)),
    ((37, 41), box(3, 3)),
    ((70, 5), rings(3, 7)),
    ((37, 41), ASYMMETRIC),
    ((5, 7, 19), box(3, 3, 3)),
)
each_case = pytest.mark.parametrize(("grid", "offsets"), CASES)
# one group of registers; its last size; several groups, the last one cut; 16-bit labels
each_count = pytest.mark.parametrize("labels", [2, 3, 8, 32, 33, 300])
each_type = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def _problem(grid: Any, offsets: Any, labels: int, dtype: Any) -> tuple[Any, Any]:
    """Weights and q; weights of neighbors outside the grid are not 0, some inside are."""
    rng = np.random.default_rng(labels)
    weights = rng.random((len(offsets), *grid)) * (rng.random((len(offsets), *grid)) < 0.8)
    weights /= np.maximum(weights.sum(axis=0), 1e-3)
    q = 3 * rng.standard_normal((labels, *grid))
    return weights.astype(dtype), q.astype(dtype)


def _assert_close(found: Any, expected: Any) -> None:
    assert isinstance(found, cupy.ndarray)
    assert found.dtype == expected.dtype
    atol = TOLERANCE[expected.dtype.type] * np.abs(expected).max()
    np.testing.assert_allclose(found.get(), expected, rtol=0, atol=atol)


@each_type
@each_count
@each_case
def test_functions_equal_the_reference(grid: Any, offsets: Any, labels: int, dtype: Any) -> None:
    weights, q = _problem(grid, offsets, labels, dtype)
    w, x = cupy.asarray(weights), cupy.asarray(q)
    for name in ("average", "adjoint", "similarity"):
        found = getattr(gpu, name)(w, x, offsets)
        _assert_close(found, getattr(reference, name)(weights, q, offsets))
    for arguments in ((TAYLOR, False, 5.0), ((0.5,) * 9, True, 0.5), ((), False, 2.0)):
        found = gpu.flow(w, x, offsets, *arguments)
        _assert_close(found, reference.flow(weights, q, offsets, *arguments))


@pytest.mark.parametrize("linearized", [False, True])
@each_type
@each_count
@each_case
def test_labels_differ_only_at_ties(
    grid: Any, offsets: Any, labels: int, dtype: Any, linearized: bool
) -> None:
    weights, q = _problem(grid, offsets, labels, dtype)
    log_w0 = q[::-1].copy() if linearized else None
    on_gpu = None if log_w0 is None else cupy.asarray(log_w0)
    found = gpu.classify(
        cupy.asarray(weights), cupy.asarray(q), offsets, TAYLOR, False, 5.0, on_gpu
    )
    label, confidence, gap = reference.classify(weights, q, offsets, TAYLOR, False, 5.0, log_w0)
    _assert_close(found[1], confidence)
    tie = 20 * TOLERANCE[dtype]
    np.testing.assert_allclose(found[2].get(), gap, rtol=0, atol=tie)
    assert found[0].dtype == label.dtype
    differ = found[0].get() != label
    assert (gap[differ] <= tie).all()
    assert differ.sum() <= 1 + differ.size // 1000


@each_type
@each_count
def test_decide_takes_the_first_of_equals(labels: int, dtype: Any) -> None:
    z = np.random.default_rng(0).integers(0, 3, (labels, 37, 41)).astype(dtype)
    label, confidence, gap = gpu.decide(cupy.asarray(z))
    expected = reference.decide(z)
    np.testing.assert_array_equal(label.get(), expected[0])
    _assert_close(confidence, expected[1])
    np.testing.assert_array_equal(gap.get(), expected[2])


@each_type
@pytest.mark.parametrize("labels", [2, 8, 33])
@pytest.mark.parametrize(
    ("grid", "offsets"),
    [((90, 101), box(3, 3)), ((120, 140), rings(3, 7)), ((20, 21, 40), box(3, 3, 3))],
)
def test_windows_have_the_bits_of_the_whole(
    grid: Any, offsets: Any, labels: int, dtype: Any
) -> None:
    weights, q = (cupy.asarray(a) for a in _problem(grid, offsets, labels, dtype))
    coefficients = TAYLOR[-2:]
    halo = max(map(max, offsets)) * (len(coefficients) + 1)
    runs = (gpu.flow, gpu.classify)
    whole, chosen = (run(weights, q, offsets, coefficients) for run in runs)
    thirds = [((0, n // 3), (n // 3, n // 3 + 5), (n - 7, n)) for n in grid]
    for parts in itertools.product(*thirds):
        cuts = [(max(0, a - halo), min(n, b + halo)) for (a, b), n in zip(parts, grid, strict=True)]
        window = tuple(slice(*cut) for cut in cuts)
        core = tuple(slice(*part) for part in parts)
        inner = tuple(slice(a - c, b - c) for (a, b), (c, _) in zip(parts, cuts, strict=True))
        w, x = weights[:, *window], q[:, *window]
        z, labelled = (run(w, x, offsets, coefficients) for run in runs)
        assert z[:, *inner].get().tobytes() == whole[:, *core].get().tobytes()
        for part, full in zip(labelled, chosen, strict=True):
            assert part[inner].get().tobytes() == full[core].get().tobytes()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("grid", [(1, 1), (37, 41), (5, 7, 19)])
def test_distances_have_the_bits_of_the_reference(grid: Any, dtype: Any) -> None:
    rng = np.random.default_rng(0)
    image = (200 * rng.random((3, *grid))).astype(dtype)
    prototypes = 200 * rng.random((5, 3))
    found = gpu.distances(cupy.asarray(image), prototypes, 7.3)
    np.testing.assert_array_equal(found.get(), reference.distances(image, prototypes, 7.3))


def test_planes_need_not_be_contiguous() -> None:
    weights, q = (cupy.asarray(a) for a in _problem((37, 41), box(3, 3), 4, np.float32))
    strided = cupy.ascontiguousarray(q.transpose(1, 2, 0)).transpose(2, 0, 1)
    found = gpu.average(cupy.asfortranarray(weights), strided, box(3, 3))
    assert (found == gpu.average(weights, q, box(3, 3))).all()


def test_arrays_that_do_not_fit_are_refused() -> None:
    weights, q = (cupy.asarray(a) for a in _problem((7, 9), box(3, 3), 4, np.float32))
    with pytest.raises(ValueError, match="weights must have shape"):
        gpu.average(weights[1:], q, box(3, 3))
    with pytest.raises(ValueError, match="arrays of one type"):
        gpu.flow(weights, q.astype(np.float64), box(3, 3), TAYLOR)
    with pytest.raises(ValueError, match="float32 or float64"):
        gpu.decide(q.astype(np.int32))
    with pytest.raises(ValueError, match="prototypes need 4 columns"):
        gpu.distances(q, np.zeros((2, 3)), 1.0)


@each_type
@each_case
def test_learning_equals_the_reference(grid: Any, offsets: Any, dtype: Any) -> None:
    rng = np.random.default_rng(0)
    weights, q = _problem(grid, offsets, 3, dtype)
    s = reference.similarity(weights, q, offsets)
    source = q[::-1].copy()
    table = rng.normal(size=(3, 4))
    first, others = reference.chain(weights, s, source, offsets, table)
    w, x, t, b = map(cupy.asarray, (weights, q, s, source))
    expected = reference.pull(weights, s, q, others, source, offsets, table)
    z = cupy.asarray(others)
    _assert_close(gpu.pull(w, t, x, z, b, offsets, table), expected)
    found = gpu.chain(w, t, b, offsets, table)
    _assert_close(found[0], first)
    _assert_close(found[1], others)
    p = np.stack([first, first[::-1]])
    expected = reference.products(weights, s, q, p, others, source, offsets)
    _assert_close(gpu.products(w, t, x, cupy.asarray(p), z, b, offsets), expected)
    target = rng.integers(0, 4, grid).astype(np.uint8)
    labels = cupy.asarray(target)
    np.testing.assert_allclose(
        gpu.alignment(x, labels), reference.alignment(q, target), rtol=TOLERANCE[dtype]
    )
    _assert_close(gpu.align(x, labels, 2, -3), reference.align(q, target, 2, -3))
    features = rng.normal(size=(5, *grid)).astype(dtype)
    normal, prototypes = rng.random((2, 5)) + 0.5, rng.normal(size=(7, 5))
    patches = rng.normal(size=(7, len(offsets)))
    moved = [cupy.asarray(a) for a in (features, normal, prototypes, patches)]
    _assert_close(
        gpu.predict(*moved, 0.7, w),
        reference.predict(features, normal, prototypes, patches, 0.7, weights),
    )
    pairs = zip(
        gpu.predict_adjoint(*moved, 0.7, w),
        reference.predict_adjoint(features, normal, prototypes, patches, 0.7, weights),
        strict=True,
    )
    for mine, theirs in pairs:
        mine = mine.get() if isinstance(mine, cupy.ndarray) else mine
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-4)


def test_other_flows():
    """Nonlinear, in sequence and composed: those of the reference on the host."""
    from tiledlaf import RKMK4, AdaptiveRKMK, LinearizedSequence, compose, linearize_sequence, solve
    from tiledlaf.flow.composition import Layer

    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(9), (2, 24, 40)).transpose(0, 3, 1, 2).copy()
    distances, g = rng.random((3, 24, 40)), rng.normal(size=(3, 24, 40))
    offsets = box(3, 3)
    there = [cupy.asarray(x) for x in (weights, distances, g)]
    for scheme in (RKMK4(5), AdaptiveRKMK(1e-5), LinearizedSequence(2)):
        expected = solve(weights[0], distances, offsets, integrator=scheme, kernel="numpy")
        found = solve(there[0][0], there[1], offsets, integrator=scheme)
        assert found.matvecs == expected.matvecs
        np.testing.assert_allclose(found.z.get(), expected.z, atol=1e-12)
    expected = linearize_sequence(weights, distances, offsets, kernel="numpy").gradient(g)
    found = linearize_sequence(there[0], there[1], offsets).gradient(there[2])
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.tangent.get(), other.tangent, atol=1e-11)
    coupling = rng.normal(size=(3, 3))
    for parallel in (False, True):
        results = [
            compose(
                [Layer(w, d, offsets, 2.0) for w in ws], [coupling], parallel=parallel, kernel=name
            ).gradient(direction)
            for ws, d, direction, name in ((weights, distances, g, "numpy"), (*there, "cupy"))
        ]
        np.testing.assert_allclose(results[1].couplings, results[0].couplings, rtol=1e-9)
        for one, other in zip(results[1].layers, results[0].layers, strict=True):
            np.testing.assert_allclose(one.tangent.get(), other.tangent, atol=1e-10)
