"""The weight predictor against the oracle, its whole gradient, and its bits under windows."""

import learning_oracle as lo
import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from tiledlaf.flow import stencil
from tiledlaf.flow.gradient import Polynomials, linearize
from tiledlaf.flow.losses import Cosine, CrossEntropy
from tiledlaf.kernels import select
from tiledlaf.model import predictor
from tiledlaf.model.features import Features
from tiledlaf.model.predictor import Predictor

BOX = stencil.box(3, 3)
WIDE = stencil.box(5, 5)
CORNERS = tuple(o for o in stencil.box(3, 3, 3) if all(o) or not any(o))
PATCH = Features((("image", "patch", 1, 1, 0.0),))
# grid, offsets, features, prototypes, masked: no multiples of vectors, groups and blocks
CASES = {
    "one pixel": ((1, 1), BOX, 3, 2, False),
    "row": ((1, 7), BOX, 1, 1, False),
    "column": ((19, 1), BOX, 2, 9, False),
    "two blocks": ((13, 11), BOX, 5, 7, False),
    "masked": ((9, 8), BOX, 17, 10, True),
    "many": ((6, 7), WIDE, 9, 50, False),
    "many masked": ((12, 12), WIDE, 3, 8, True),
    "3-D": ((3, 4, 12), CORNERS, 4, 5, True),
    "whole vectors": ((16, 16), BOX, 16, 16, False),
}
each_kernel = pytest.mark.parametrize("kernel", ["numpy", "numba"])
each_type = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    with threadpool_limits(1):
        yield


def problem(name, dtype=np.float64, seed=0):
    """Features, their normal, prototypes, patches, sigma, uniform weights, R_Omega dL/dOmega."""
    grid, offsets, many, count, masked = CASES[name]
    rng = np.random.default_rng(seed)
    mask = rng.random(grid) > 0.3 if masked else None
    uniform = oracle.uniform_weights(offsets, grid, mask).astype(dtype)
    normal = np.stack([rng.normal(size=many), rng.uniform(0.5, 2, many)])
    patches = rng.normal(size=(count, len(offsets)))
    patches -= patches.mean(axis=1, keepdims=True)
    weights = oracle.random_weights(offsets, grid, rng, mask)
    gu = oracle.replicator(weights, rng.normal(size=weights.shape)).astype(dtype)
    features = rng.normal(size=(many, *grid)).astype(dtype)
    return features, normal, rng.normal(size=(count, many)), patches, 1.3, uniform, gu


def normalized(features, normal):
    shape = (-1, *(1,) * (features.ndim - 1))
    return (features.astype(np.float64) - normal[0].reshape(shape)) * normal[1].reshape(shape)


def close(found, expected, tolerance):
    """Difference against the largest expected value."""
    scale = max(np.abs(expected).max(), 1e-12)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale)


# kernels


@each_type
@each_kernel
@pytest.mark.parametrize("name", CASES)
def test_weights_match_the_oracle(name, kernel, dtype):
    features, normal, prototypes, patches, sigma, uniform, _ = problem(name, dtype)
    found = select(features, kernel).predict(features, normal, prototypes, patches, sigma, uniform)
    expected = lo.predictor(normalized(features, normal), prototypes, patches, sigma, uniform)
    assert found.dtype == dtype
    assert found.shape == uniform.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13 if dtype == np.float64 else 3e-6)
    np.testing.assert_array_equal(found > 0, uniform > 0)


@each_type
@each_kernel
@pytest.mark.parametrize("name", CASES)
def test_parameter_gradients_match_the_oracle(name, kernel, dtype):
    features, normal, prototypes, patches, sigma, uniform, gu = problem(name, dtype)
    found = select(features, kernel).predict_adjoint(
        features, normal, prototypes, patches, sigma, gu
    )
    expected = lo.predictor_gradient(
        normalized(features, normal), prototypes, patches, sigma, uniform, gu.astype(np.float64)
    )
    for one, other in zip(found, expected, strict=True):
        assert np.asarray(one).dtype == np.float64
        close(one, other, 1e-12 if dtype == np.float64 else 2e-5)


@each_type
@each_kernel
def test_a_feature_on_a_prototype(kernel, dtype):
    features, normal, prototypes, patches, sigma, uniform, gu = problem("two blocks", dtype)
    normal = np.stack([np.full(5, 0.5), np.full(5, 2.0)])  # exact in both types
    prototypes = prototypes.astype(np.float32).astype(np.float64)
    for n, pixel in enumerate([(0, 0), (4, 4), (12, 10)]):
        features[:, *pixel] = prototypes[2 * n] / 2 + 0.5
        prototypes[2 * n] = (features[:, *pixel].astype(np.float64) - 0.5) * 2
    moved = normalized(features, normal)
    assert (moved[:, 4, 4] == prototypes[2]).all()
    kernels = select(features, kernel)
    tolerance = 1e-12 if dtype == np.float64 else 2e-5
    weights = kernels.predict(features, normal, prototypes, patches, sigma, uniform)
    close(weights, lo.predictor(moved, prototypes, patches, sigma, uniform), tolerance)
    found = kernels.predict_adjoint(features, normal, prototypes, patches, sigma, gu)
    expected = lo.predictor_gradient(moved, prototypes, patches, sigma, uniform, gu)
    for one, other in zip(found, expected, strict=True):
        assert np.isfinite(one).all()
        close(one, other, tolerance)


@each_type
@each_kernel
@pytest.mark.parametrize("sigma", [1e-3, 30.0, 1000.0])
def test_far_features_and_sharp_shares(sigma, kernel, dtype):
    """Shares of one prototype each, as far away as it is: no 0 / 0."""
    features, normal, prototypes, patches, _, uniform, gu = problem("many", dtype)
    features[:, :3] *= 1000
    kernels = select(features, kernel)
    weights = kernels.predict(features, normal, prototypes, patches, sigma, uniform)
    np.testing.assert_allclose(weights.sum(axis=0), 1, atol=1e-6)
    np.testing.assert_array_equal(weights > 0, uniform > 0)
    found = kernels.predict_adjoint(features, normal, prototypes, patches, sigma, gu)
    assert all(np.isfinite(x).all() for x in found)
    if dtype == np.float64:
        moved = normalized(features, normal)
        close(weights, lo.predictor(moved, prototypes, patches, sigma, uniform), 1e-9)
        expected = lo.predictor_gradient(moved, prototypes, patches, sigma, uniform, gu)
        for one, other in zip(found, expected, strict=True):
            close(one, other, 1e-8)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    many=st.integers(1, 20),
    count=st.integers(1, 20),
)
def test_kernels_agree(seed, height, width, many, count):
    rng = np.random.default_rng(seed)
    mask = rng.random((height, width)) > 0.2
    uniform = stencil.uniform(BOX, (height, width), mask).astype(np.float64)
    given = (
        rng.normal(size=(many, height, width)),
        np.stack([rng.normal(size=many), rng.uniform(0.5, 2, many)]),
        rng.normal(size=(count, many)),
        rng.normal(size=(count, 9)),
        float(rng.uniform(0.1, 3)),
    )
    one, two = (select(uniform, kernel) for kernel in ("numpy", "numba"))
    np.testing.assert_allclose(
        one.predict(*given, uniform), two.predict(*given, uniform), atol=1e-13
    )
    gu = oracle.replicator(uniform, rng.normal(size=uniform.shape))
    pairs = zip(one.predict_adjoint(*given, gu), two.predict_adjoint(*given, gu), strict=True)
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-11 * max(np.abs(a).max(), 1e-3))


@each_kernel
def test_pixels_without_a_gradient_add_nothing(kernel):
    features, normal, prototypes, patches, sigma, _, gu = problem("many masked")
    given = (normal, prototypes, patches, sigma)
    kernels = select(features, kernel)
    whole = kernels.predict_adjoint(features, *given, gu)
    parts = [
        kernels.predict_adjoint(f, *given, g)
        for f, g in ((features[:, :5], gu[:, :5]), (features[:, 5:], gu[:, 5:]))
    ]
    for total, *each in zip(whole, *parts, strict=True):
        close(sum(each), total, 1e-13)
    still = kernels.predict_adjoint(features, *given, 0 * gu)
    assert not any(np.any(x) for x in still)


# the predictor


def make(offsets, many, count, seed=0):
    rng = np.random.default_rng(seed)
    patches = rng.normal(size=(count, len(offsets)))
    patches -= patches.mean(axis=1, keepdims=True)
    return Predictor(
        PATCH,
        rng.normal(size=many),
        rng.uniform(0.5, 2, many),
        rng.normal(size=(count, many)),
        patches,
        0.8,
    )


@pytest.mark.parametrize("part", ["anchors", "patches", "sigma", "all"])
@pytest.mark.parametrize("loss", [Cosine(), CrossEntropy((1.0, 2.0), 0.5)], ids=["cosine", "ce"])
def test_taylor_remainder_of_all_parameters(loss, part):
    """From features to weights, flow and loss, and all the way back."""
    rng = np.random.default_rng(4)
    grid = (8, 9)
    mask = rng.random(grid) > 0.15
    uniform = stencil.uniform(BOX, grid, mask).astype(np.float64)
    image = rng.normal(size=(1, *grid))
    features = PATCH.compute(image).astype(np.float64)
    start = make(BOX, len(features), 5)
    distances = 2 * rng.random((2, *grid))
    target = np.where(mask, rng.integers(0, 3, grid), 0)

    def flow(model):
        weights = model.weights(features, uniform)
        way = Polynomials(1e-14, rank_tol=1e-16)
        found = linearize(weights, distances, BOX, time=3.0, way=way)
        return found, loss.sums(found.z, target)

    found, sums = flow(start)
    tangent = found.gradient(loss.gradient(found.z, target, sums)).tangent
    gradient = start.gradient(features, tangent)
    assert gradient.keys() == start.parameters.keys()
    direction = {
        k: rng.normal(size=v.shape) * (part in (k, "all")) for k, v in start.parameters.items()
    }
    slope = sum(np.sum(gradient[k] * direction[k]) for k in gradient)
    assert abs(slope) > 1e-5
    steps = 2.0 ** -np.arange(8, 13)
    moved = [
        start.moved({k: v + h * direction[k] for k, v in start.parameters.items()}) for h in steps
    ]
    values = np.array([loss.value(flow(model)[1]) for model in moved])
    remainder = abs(values - loss.value(sums) - steps * slope)
    np.testing.assert_allclose(np.log2(remainder[:-1] / remainder[1:]), 2, atol=0.1)


def test_moved_patches_stay_tangent():
    start = make(BOX, 9, 4)
    given = start.parameters
    same = start.moved(given)
    np.testing.assert_allclose(same.patches, start.patches, atol=1e-15)
    assert same.sigma == pytest.approx(start.sigma, rel=1e-15)
    moved = start.moved({**given, "patches": given["patches"] + 3.0, "sigma": np.array([0.5])})
    np.testing.assert_allclose(moved.patches, start.patches, atol=1e-14)
    assert moved.sigma == pytest.approx(np.exp(0.5))
    np.testing.assert_array_equal(moved.anchors, start.anchors)
    # and so do their gradients
    features, _, _, _, _, _, gu = problem("many masked")
    model = make(WIDE, 3, 4)
    gradient = model.gradient(features, gu)
    np.testing.assert_allclose(gradient["patches"].sum(axis=1), 0, atol=1e-13)


def test_features_that_do_not_fit_are_refused():
    model = make(BOX, 9, 4)
    uniform = stencil.uniform(BOX, (4, 5)).astype(np.float64)
    with pytest.raises(ValueError, match="expected 9 features, got 8"):
        model.weights(np.zeros((8, 4, 5)), uniform)
    with pytest.raises(ValueError, match="expected mean and scale of 9 features and 4 patches"):
        Predictor(PATCH, np.zeros(8), np.ones(9), model.anchors, model.patches)
    with pytest.raises(ValueError, match="arrays of one type"):
        model.weights(np.zeros((9, 4, 5), np.float32), uniform)


def samples(seed=0):
    """Two kinds of pixels: of an even surrounding, and with other labels on one side."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 2, 400)
    rows = (5 * kind[:, None] + rng.normal(size=(400, 3))).astype(np.float32)
    rows[:, 2] = 7
    agreement = np.ones((400, 9), bool)
    agreement[kind == 1, :3] = False
    known = np.ones((400, 9), bool)
    known[::5, 8] = False
    return rows, agreement, known, kind


def test_first_predictor():
    rows, agreement, known, kind = samples()
    model = predictor.initial(PATCH, rows, agreement, known, 2, seed=3)
    np.testing.assert_allclose(model.mean, rows.mean(axis=0), rtol=1e-5)
    # a feature that never changes is not blown up
    assert model.scale[2] == 1
    assert model.sigma == 1
    np.testing.assert_allclose(model.patches.sum(axis=1), 0, atol=1e-14)
    # each prototype is the mean of its kind, and leaves out neighbors with other labels
    order = np.argsort(model.anchors[:, 0])
    for k, j in enumerate(order):
        mean = ((rows - model.mean) / model.scale)[kind == k].mean(axis=0)
        np.testing.assert_allclose(model.anchors[j], mean, atol=0.1)
    even, edge = model.patches[order]
    assert np.ptp(even) < 0.1
    assert edge[:3].max() < edge[3:].min() - 3
    features = np.ascontiguousarray(rows[kind == 1][:6].T.reshape(3, 2, 3).astype(np.float64))
    full = np.full((9, 2, 3), 1 / 9)
    weights = model.weights(features, full)
    assert weights[:3].max() < 0.5 * weights[3:].min()


def test_first_predictor_is_deterministic():
    rows, agreement, known, _ = samples()
    models = [predictor.initial(PATCH, rows, agreement, known, 12, seed=seed) for seed in (3, 3, 4)]
    for name in ("anchors", "patches", "mean", "scale"):
        one, same, _ = (getattr(model, name) for model in models)
        assert one.tobytes() == same.tobytes()
    assert (models[0].anchors != models[2].anchors).any()
    assert models[0].anchors.shape == (12, 3)


def test_no_more_prototypes_than_different_features():
    rows, agreement, known, _ = samples()
    few = np.repeat(rows[:4], 100, axis=0)
    model = predictor.initial(PATCH, few, agreement, known, 50, seed=0)
    assert model.anchors.shape == (4, 3)
    assert np.isfinite(model.patches).all()


# windows


def windows(grid, halo, seed=0):
    """Windows, and where they have the bits of the whole: corners, edges, slivers, any place."""
    rng = np.random.default_rng(seed)
    height, width = grid
    places = [(0, 0, 9, 9), (height - 7, width - 5, 7, 5), (0, width - 1, height, 1)]
    places += [(height - 1, 0, 1, width), (11, 13, 17, 16), (1, 17, 3, 33), (5, 6, 1, 1)]
    for _ in range(12):
        y, x = rng.integers(height), rng.integers(width)
        places.append((y, x, rng.integers(1, height - y + 1), rng.integers(1, width - x + 1)))
    for y, x, rows, columns in places:
        top, left = max(0, y - halo), max(0, x - halo)
        outer = np.s_[:, top : y + rows + halo, left : x + columns + halo]
        inner = np.s_[..., y - top : y - top + rows, x - left : x - left + columns]
        yield outer, inner, np.s_[..., y : y + rows, x : x + columns]


def same_bits(found, expected):
    found, expected = (np.ascontiguousarray(x).view(np.uint8) for x in (found, expected))
    return np.array_equal(found, expected)


@each_type
@each_kernel
def test_predicted_weights_have_the_same_bits_in_windows(kernel, dtype):
    rng = np.random.default_rng(6)
    grid = (37, 53)
    features = rng.normal(size=(5, *grid)).astype(dtype)
    uniform = stencil.uniform(BOX, grid, rng.random(grid) > 0.1).astype(dtype)
    model = make(BOX, 5, 11)
    whole = model.weights(features, uniform, kernel)
    for outer, _, _ in windows(grid, 0):
        part = model.weights(
            np.ascontiguousarray(features[outer]), np.ascontiguousarray(uniform[outer]), kernel
        )
        # of one pixel, NumPy adds up in another order
        if kernel == "numba" or part[0].size > 1:
            assert same_bits(part, whole[outer])


@each_type
@each_kernel
def test_chains_have_the_same_bits_in_windows(kernel, dtype):
    rng = np.random.default_rng(7)
    grid, labels, degree = (37, 53), 8, 5
    mask = rng.random(grid) > 0.1
    weights = oracle.random_weights(BOX, grid, rng, mask).astype(dtype)
    s = oracle._softmax(rng.normal(size=(labels, *grid))).astype(dtype)
    source = rng.normal(size=s.shape).astype(dtype)
    table = rng.normal(size=(3, degree))
    chain = select(s, kernel).chain

    def run(box):
        given = (np.ascontiguousarray(a[box]) for a in (weights, s, source))
        z, others = chain(*given, BOX, table)
        return np.concatenate([z, *others])

    whole = run(np.s_[:])
    for outer, inner, core in windows(grid, degree - 1):
        assert same_bits(run(outer)[inner], whole[core])
    # one pixel less is not enough
    assert not all(
        same_bits(run(outer)[inner], whole[core])
        for outer, inner, core in windows(grid, degree - 2)
    )


@each_type
@each_kernel
def test_pulled_gradients_have_the_same_bits_in_windows(kernel, dtype):
    rng = np.random.default_rng(7)
    grid, labels, degree, rank = (37, 53), 8, 5, 2
    weights = oracle.random_weights(BOX, grid, rng, rng.random(grid) > 0.1).astype(dtype)
    s = oracle._softmax(rng.normal(size=(labels, *grid))).astype(dtype)
    q, g = rng.normal(size=(2, *s.shape)).astype(dtype)
    z = rng.normal(size=(rank, labels - 1, *grid)).astype(dtype)
    table = rng.normal(size=(rank + 1, degree))
    pull = select(s, kernel).pull

    def run(box):
        far = (slice(None), *box) if isinstance(box, tuple) else box
        given = [np.ascontiguousarray(a[box]) for a in (weights, s, q)]
        rest = np.ascontiguousarray(z[far]), np.ascontiguousarray(g[box])
        return pull(*given, *rest, BOX, table)

    # but for the sign of the zeros where a weight is zero
    whole = run(np.s_[:])
    # the transposed weights of a pixel lie one pixel away
    for outer, inner, core in windows(grid, degree):
        assert np.array_equal(run(outer)[inner], whole[core])
    assert not all(
        np.array_equal(run(outer)[inner], whole[core])
        for outer, inner, core in windows(grid, degree - 2)
    )


@each_type
@each_kernel
def test_products_have_the_same_bits_in_windows(kernel, dtype):
    rng = np.random.default_rng(8)
    grid, labels, rank = (37, 53), 8, 3
    weights = oracle.random_weights(BOX, grid, rng, rng.random(grid) > 0.1).astype(dtype)
    s = oracle._softmax(rng.normal(size=(labels, *grid))).astype(dtype)
    q, source = rng.normal(size=(2, labels, *grid)).astype(dtype)
    p, z = rng.normal(size=(2, rank, labels, *grid)).astype(dtype)
    z = z[:, 1:]
    products = select(s, kernel).products

    def run(box):
        far = (slice(None), *box) if isinstance(box, tuple) else box
        given = [np.ascontiguousarray(a[box]) for a in (weights, s, q)]
        given += [np.ascontiguousarray(a[far]) for a in (p, z)]
        return products(*given, np.ascontiguousarray(source[box]), BOX)

    # but for the sign of the zeros where a weight is zero
    whole = run(np.s_[:])
    for outer, inner, core in windows(grid, 1):
        assert np.array_equal(run(outer)[inner], whole[core])
    assert not all(
        np.array_equal(run(outer)[inner], whole[core]) for outer, inner, core in windows(grid, 0)
    )
