"""The learning oracle against finite differences and automatic differentiation."""

import learning_oracle as lo
import numpy as np
import oracle
import pytest

BOX = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]
RINGS = BOX + [(3 * y, 3 * x) for y, x in BOX if (y, x) != (0, 0)]
GRID = (4, 5)
STEP = 1e-5


def central(f, x, directions):
    """Derivatives of f at x along the directions, by central differences of fourth order."""
    h = 1e-3

    def difference(d, h):
        return (f(x + h * d) - f(x - h * d)) / (2 * h)

    return np.array([(4 * difference(d, h / 2) - difference(d, h)) / 3 for d in directions])


def units(where):
    """The unit arrays of the entries where is True."""
    for index in np.argwhere(where):
        unit = np.zeros(where.shape)
        unit[tuple(index)] = 1.0
        yield unit


def close(actual, expected, tolerance=1e-8):
    """Difference against the largest expected value."""
    scale = np.abs(expected).max()
    assert scale > 0
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale)


def problem(labels, offsets, rng, mask=None, grid=GRID):
    weights = oracle.random_weights(offsets, grid, rng, mask)
    distances = rng.uniform(0, 2, (labels, *grid))
    w0 = oracle._softmax(rng.normal(size=distances.shape))
    return weights, distances, w0, rng.normal(size=distances.shape)


@pytest.fixture
def mask(rng):
    mask = np.ones(GRID, bool)
    mask[1, 2] = mask[3, 0] = False
    return mask


@pytest.fixture
def rng():
    return np.random.default_rng(5)


LOSSES = {
    "cosine": (lo.loss_cosine, lo.grad_cosine, {}),
    "pixel": (lo.loss_pixel_cosine, lo.grad_pixel_cosine, {}),
    "entropy": (lo.loss_cross_entropy, lo.grad_cross_entropy, {"scale": 1.0}),
    "classes": (
        lo.loss_cross_entropy,
        lo.grad_cross_entropy,
        {"class_weights": [0.5, 2.0, 1.0, 0.0], "scale": 3.0},
    ),
}


@pytest.mark.parametrize("general", [False, True], ids=["barycenter", "w0"])
@pytest.mark.parametrize("name", LOSSES)
def test_loss_gradients(name, general, rng, mask):
    loss, grad, options = LOSSES[name]
    z = rng.normal(size=(4, *GRID))
    w0 = oracle._softmax(rng.normal(size=z.shape)) if general else None
    target = np.where(mask, rng.integers(0, 4, GRID), -1)
    for labelled, y in ((None, np.abs(target)), (mask, target)):
        expected = central(
            lambda x, y=y, labelled=labelled: loss(x, y, w0, labelled, **options),
            z,
            units(np.ones(z.shape, bool)),
        )
        actual = grad(z, y, w0, labelled, **options)
        close(actual.ravel(), expected)
        np.testing.assert_allclose(actual.sum(axis=0), 0, atol=1e-14)
        if labelled is not None:
            assert not actual[:, ~labelled].any()


def test_losses_of_known_vectors(rng):
    target = rng.integers(0, 3, GRID)
    perfect = np.moveaxis(np.eye(3)[target], -1, 0)
    assert lo.loss_cosine(perfect, target) == pytest.approx(0, abs=1e-14)
    assert lo.loss_cosine(-perfect, target) == pytest.approx(2)
    assert lo.loss_pixel_cosine(7 * perfect + 3, target) == pytest.approx(0, abs=1e-14)
    assert lo.loss_cross_entropy(0 * perfect, target) == pytest.approx(np.log(3))
    assert lo.loss_cross_entropy(perfect, target, scale=50.0) == pytest.approx(0, abs=1e-14)
    # with two labels the cosine of one pixel is +-1
    z = rng.normal(size=(2, *GRID))
    np.testing.assert_allclose(lo.grad_pixel_cosine(z, target // 2), 0, atol=1e-14)


def test_undefined_losses(rng):
    z, target = rng.normal(size=(3, *GRID)), np.zeros(GRID, int)
    with pytest.raises(ValueError, match="labelled"):
        lo.loss_cosine(z, target, labelled=np.zeros(GRID, bool))
    with pytest.raises(ValueError, match="zero"):
        lo.loss_cosine(np.ones_like(z), target)
    with pytest.raises(ValueError, match="range"):
        lo.loss_cosine(z, target + 3)


def test_weight_coordinates(rng, mask):
    weights = oracle.random_weights(BOX, GRID, rng, mask)
    t = lo.weight_coordinates(weights)
    np.testing.assert_allclose(t.sum(axis=0), 0, atol=1e-14)
    np.testing.assert_allclose(lo.weights_of(t, weights > 0), weights, atol=1e-15)
    expected = central(
        lambda x: lo.regularizer(lo.weights_of(x, weights > 0), 0.3), t, units(weights > 0)
    )
    close(lo.grad_regularizer(weights, 0.3)[weights > 0], expected)
    uniform = oracle.uniform_weights(BOX, GRID, mask)
    assert lo.regularizer(uniform, 1.0) == pytest.approx(0, abs=1e-28)


@pytest.mark.parametrize("step", [lo.exp_step, lo.tangent_step])
def test_steps(step, rng, mask):
    weights = oracle.random_weights(BOX, GRID, rng, mask)
    euclidean = np.where(weights > 0, rng.normal(size=weights.shape), 0.0)
    stepped = step(weights, euclidean, 0.7)
    np.testing.assert_array_equal(stepped > 0, weights > 0)
    np.testing.assert_allclose(stepped.sum(axis=0), mask, atol=1e-14)
    np.testing.assert_allclose(step(weights, 0 * euclidean, 1.0), weights, atol=1e-15)
    # a constant per pixel is nothing to both
    np.testing.assert_allclose(step(weights, euclidean + 3.0, 0.7), stepped, atol=1e-14)
    slope = oracle.replicator(weights, euclidean)
    if step is lo.tangent_step:
        slope = oracle.replicator(weights, slope)
    else:
        scaled = weights * np.exp(-0.7 * euclidean)
        np.testing.assert_allclose(stepped, oracle._normalised(scaled), atol=1e-15)
    close((step(weights, euclidean, STEP) - step(weights, euclidean, -STEP)) / (-2 * STEP), slope)


@pytest.mark.parametrize("masked", [False, True], ids=["grid", "mask"])
@pytest.mark.parametrize("general", [False, True], ids=["barycenter", "w0"])
@pytest.mark.parametrize("offsets", [BOX, RINGS], ids=["box", "rings"])
@pytest.mark.parametrize("labels", [2, 3])
@pytest.mark.parametrize("time", [1.0, 5.0])
def test_gradient(time, labels, offsets, general, masked, rng, mask):
    mask = mask if masked else None
    weights, distances, w0, g = problem(labels, offsets, rng, mask)
    w0 = w0 if general else None
    rho = 0.7
    if masked:
        distances[:, ~mask] = np.nan
    grad = lo.gradient(weights, distances, offsets, g, time, rho, w0, mask)
    valid = weights > 0
    assert not grad["euclidean"][~valid].any()
    directions = np.where(valid, rng.normal(size=(3, *weights.shape)), 0.0) * 0.1

    def phi(w):
        return np.sum(g * oracle.flow_z(w, distances, offsets, time, rho, w0, mask))

    def tolerance(slope):
        return 1e-6 * np.linalg.norm(slope) * np.linalg.norm(directions[0])

    expected = central(phi, weights, directions)
    actual = [np.sum(d * grad["euclidean"]) for d in directions]
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance(grad["euclidean"]))
    t = lo.weight_coordinates(weights)
    expected = central(lambda x: phi(lo.weights_of(x, valid)), t, directions)
    actual = [np.sum(d * grad["riemannian"]) for d in directions]
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance(grad["riemannian"]))


def test_every_entry_of_the_gradient(rng):
    grid = (2, 3, 2)
    offsets = [(0, 0, 0), (1, 0, 0), (-1, 0, 0), (0, 1, 1), (0, -2, 0), (0, 0, -1)]
    weights, distances, w0, g = problem(3, offsets, rng, grid=grid)
    grad = lo.gradient(weights, distances, offsets, g, 2.0, w0=w0)["euclidean"]
    expected = central(
        lambda w: np.sum(g * oracle.flow_z(w, distances, offsets, 2.0, w0=w0)),
        weights,
        (0.1 * unit for unit in units(weights > 0)),
    )
    close(0.1 * grad[weights > 0], expected, 1e-7)


@pytest.mark.parametrize("degree", [1, 2, 9])
def test_taylor_gradient(degree, rng, mask):
    weights, distances, w0, g = problem(3, RINGS, rng, mask)
    options = {"rho": 0.7, "w0": w0, "mask": mask}
    grad = lo.taylor_gradient(weights, distances, RINGS, g, 4.0, degree, **options)
    directions = np.where(weights > 0, rng.normal(size=(4, *weights.shape)), 0.0) * 0.1
    expected = central(
        lambda w: np.sum(g * oracle.taylor(w, distances, RINGS, 4.0, degree, **options)),
        weights,
        directions,
    )
    close([np.sum(d * grad["euclidean"]) for d in directions], expected, 1e-6)
    np.testing.assert_allclose(
        grad["riemannian"], oracle.replicator(weights, grad["euclidean"]), atol=1e-15
    )


def test_taylor_gradient_converges(rng):
    weights, distances, w0, g = problem(3, BOX, rng)
    exact = lo.gradient(weights, distances, BOX, g, 3.0, w0=w0)
    taylor = lo.taylor_gradient(weights, distances, BOX, g, 3.0, 30, w0=w0)
    for key, value in exact.items():
        close(taylor[key], value, 1e-12)


def test_predictor(rng, mask):
    uniform = oracle.uniform_weights(BOX, GRID, mask)
    features, prototypes = rng.normal(size=(3, *GRID)), rng.normal(size=(5, 3))
    patches, sigma = rng.normal(size=(5, len(BOX))), 1.3
    weights = lo.predictor(features, prototypes, patches, sigma, uniform)
    np.testing.assert_array_equal(weights > 0, uniform > 0)
    np.testing.assert_allclose(weights.sum(axis=0), mask, atol=1e-14)
    # the weights are those of the formulas at one pixel
    s = np.exp(-sigma * np.linalg.norm(features[:, 2, 2] - prototypes, axis=1))
    logits = np.where(uniform[:, 2, 2] > 0, (s / s.sum()) @ patches, -np.inf)
    np.testing.assert_allclose(weights[:, 2, 2], np.exp(logits) / np.exp(logits).sum())
    zero = lo.predictor(features, prototypes, 0 * patches, sigma, uniform)
    np.testing.assert_allclose(zero, uniform, atol=1e-15)


def test_predictor_gradient(rng, mask):
    uniform = oracle.uniform_weights(BOX, GRID, mask)
    features, prototypes = rng.normal(size=(3, *GRID)), rng.normal(size=(5, 3))
    patches, sigma = rng.normal(size=(5, len(BOX))), 1.3
    e = rng.normal(size=uniform.shape)
    weights = lo.predictor(features, prototypes, patches, sigma, uniform)
    gu = oracle.replicator(weights, e)
    d_prototypes, d_patches, d_sigma = lo.predictor_gradient(
        features, prototypes, patches, sigma, uniform, gu
    )

    def value(prototypes=prototypes, patches=patches, sigma=sigma):
        return np.sum(e * lo.predictor(features, prototypes, patches, sigma, uniform))

    small = 0.1
    for name, x, actual in (
        ("prototypes", prototypes, d_prototypes),
        ("patches", patches, d_patches),
        ("sigma", np.array(sigma), np.array(d_sigma)),
    ):
        directions = (small * unit for unit in units(np.ones(x.shape, bool)))
        expected = central(lambda x, name=name: value(**{name: x}), x, directions)
        close(small * actual.ravel(), expected, 1e-7)
    np.testing.assert_allclose(d_patches.sum(axis=1), 0, atol=1e-13)
    # at the kink of the norm the term is left out
    prototypes = np.array([features[:, 0, 0], features[:, 1, 1]])
    gradients = lo.predictor_gradient(features, prototypes, patches[:2], sigma, uniform, gu)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def cosine_gradient(weights, distances, offsets, target, time, rho):
    """Loss (3.4) and its gradient by the oracle."""
    z = oracle.flow_z(weights, distances, offsets, time, rho)
    g = lo.grad_cosine(z, target)
    grad = lo.gradient(weights, distances, offsets, g, time, rho)
    return lo.loss_cosine(z, target), grad["euclidean"]


@pytest.mark.parametrize("offsets", [BOX, RINGS], ids=["box", "rings"])
@pytest.mark.parametrize("labels", [2, 4])
@pytest.mark.parametrize("time", [1.0, 5.0])
def test_exact_automatic_differentiation(time, labels, offsets, rng):
    pytest.importorskip("torch")
    from torch_learning import exact_loss_and_gradient

    weights, distances, _, _ = problem(labels, offsets, rng)
    target = rng.integers(0, labels, GRID)
    loss, grad = exact_loss_and_gradient(weights, distances, offsets, target, time, 0.7)
    expected_loss, expected = cosine_gradient(weights, distances, offsets, target, time, 0.7)
    assert loss == pytest.approx(expected_loss, rel=1e-12)
    close(grad, expected, 1e-11)


@pytest.mark.parametrize("offsets", [BOX, RINGS], ids=["box", "rings"])
def test_krylov_automatic_differentiation(offsets, rng):
    pytest.importorskip("torch")
    from torch_learning import krylov_loss_and_gradient

    weights, distances, _, _ = problem(4, offsets, rng, grid=(12, 12))
    target = rng.integers(0, 4, (12, 12))
    expected_loss, expected = cosine_gradient(weights, distances, offsets, target, 5.0, 1.0)
    for dtype, tolerance in ((np.float64, 1e-6), (np.float32, 1e-4)):
        loss, grad = krylov_loss_and_gradient(
            weights.astype(dtype), distances.astype(dtype), offsets, target, 5.0, 10
        )
        assert grad.dtype == dtype
        assert loss == pytest.approx(expected_loss, abs=tolerance)
        assert np.linalg.norm(grad - expected) < tolerance * np.linalg.norm(expected)


def test_average_is_differentiated(rng):
    torch = pytest.importorskip("torch")
    from torch_learning import average

    weights, distances, _, _ = problem(2, RINGS, rng)
    w = torch.tensor(rng.normal(size=weights.shape), requires_grad=True)
    x = torch.tensor(distances, requires_grad=True)
    result = average(torch.tensor(weights), x.detach(), RINGS).numpy()
    np.testing.assert_allclose(result, oracle.average(weights, distances, RINGS), atol=1e-15)
    assert torch.autograd.gradcheck(lambda w, x: average(w, x, RINGS), (w, x))
