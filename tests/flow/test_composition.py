"""Composed linearized flows, in sequence and in parallel, and their gradients."""

import dataclasses
import itertools

import models_oracle as mo
import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiledlaf import compose, linearize, solve
from tiledlaf.flow import graphs, stencil
from tiledlaf.flow.composition import Layer
from tiledlaf.flow.gradient import Dense, Kronecker, Polynomials, Spaces
from tiledlaf.flow.losses import Cosine, CrossEntropy

pytestmark = pytest.mark.usefixtures("one_thread")
BOX = stencil.box(3, 3)
ABOVE = tuple((y - 1, x) for y, x in BOX)  # one-sided, and compiled as the box is
EXACT = Polynomials(1e-14, rank_tol=1e-16)
ORDERS = pytest.mark.parametrize("parallel", [False, True], ids=["sequential", "parallel"])
# grid, and of each layer labels and offsets
CASES = {
    "two layers": ((4, 3), [(3, BOX), (3, BOX)]),
    "two labels": ((5, 4), [(2, BOX), (2, BOX)]),
    "other labels": ((4, 4), [(2, BOX), (3, BOX)]),
    "three layers": ((4, 3), [(3, BOX), (2, stencil.rings(2)), (3, ABOVE)]),
    "3-D": ((2, 3, 3), [(2, stencil.box(3, 3, 3)), (3, stencil.fit(BOX, 3))]),
}


def problem(name, parallel, seed=0):
    """Layers, couplings, and a gradient in the last layer's Z."""
    grid, kinds = CASES[name]
    rng = np.random.default_rng(seed)
    layers = [
        Layer(
            oracle.random_weights(offsets, grid, rng),
            2 * rng.random((labels, *grid)),
            offsets,
            2.5 if parallel else 1.0 + rng.random(),
            0.5 + rng.random(),
        )
        for labels, offsets in kinds
    ]
    counts = [labels for labels, _ in kinds]
    couplings = [rng.normal(size=(b, a)) for a, b in itertools.pairwise(counts)]
    return layers, couplings, rng.normal(size=(counts[-1], *grid))


def kernel_of(layers):
    """Numba for two labels alone: each number of them is compiled."""
    return "numba" if {len(layer.distances) for layer in layers} == {2} else "numpy"


def plain(layer):
    """A layer for the oracle."""
    return layer.weights, layer.distances, layer.offsets, layer.time, layer.rho


def osc(x):
    """Largest max - min over the labels of a pixel."""
    return float((x.max(axis=0) - x.min(axis=0)).max())


# Forward


@ORDERS
@pytest.mark.parametrize("name", CASES)
def test_layers_match_the_oracle(name, parallel):
    layers, couplings, _ = problem(name, parallel)
    kernel = kernel_of(layers)
    expected = mo.composition(map_of(layers), couplings, parallel)
    for way in (EXACT, Spaces(40)):
        found = compose(layers, couplings, parallel=parallel, way=way, kernel=kernel)
        assert len(found.z) == len(layers)
        for z, v in zip(found.z, expected, strict=True):
            np.testing.assert_allclose(oracle._tangent(z) / len(z), v, atol=1e-10)


def map_of(layers):
    return [plain(layer) for layer in layers]


@ORDERS
def test_layers_without_coupling_are_alone(parallel):
    """So are those whose coupling changes constants only: it maps tangents to tangents."""
    layers, couplings, g = problem("other labels", parallel)
    alone = [
        solve(w, d, offsets, time=time, rho=rho, kernel="numpy").z
        for w, d, offsets, time, rho in map_of(layers)
    ]
    rng = np.random.default_rng(1)
    constants = rng.normal(size=(1, 2)) + rng.normal(size=(3, 1))
    for coupling in (0 * couplings[0], constants):
        found = compose(layers, [coupling], parallel=parallel, kernel="numpy")
        for z, expected in zip(found.z, alone, strict=True):
            np.testing.assert_allclose(z, expected, atol=1e-12)
        last = layers[-1]
        expected = linearize(
            last.weights,
            last.distances,
            BOX,
            time=last.time,
            rho=last.rho,
            way=EXACT,
            kernel="numpy",
        ).gradient(g)
        gradient = compose(
            layers, [coupling], parallel=parallel, way=EXACT, kernel="numpy"
        ).gradient(g)
        np.testing.assert_allclose(gradient.layers[-1].tangent, expected.tangent, atol=1e-12)
        np.testing.assert_allclose(gradient.layers[0].tangent, 0, atol=1e-12)
        assert abs(gradient.couplings[0]).max() > 0.1


def test_in_parallel_a_layer_does_not_wait():
    """For a short time what comes over is T^2 / 2 times its rate, in sequence T^2."""
    layers, couplings, _ = problem("two layers", True)
    layers = [dataclasses.replace(layer, time=1e-4) for layer in layers]
    alone = compose(layers, [0 * couplings[0]], way=EXACT, kernel="numpy").z[-1]
    both = [
        compose(layers, couplings, parallel=parallel, way=EXACT, kernel="numpy").z[-1] - alone
        for parallel in (False, True)
    ]
    np.testing.assert_allclose(both[0], 2 * both[1], rtol=1e-2, atol=1e-14)
    assert abs(both[1]).max() > 1e-10


@pytest.mark.parametrize("time", [1.0, 4.0])
@pytest.mark.parametrize("strength", [0.1, 1.0, 4.0])
def test_a_strong_coupling_gets_more_terms(strength, time):
    """The degree follows from the norm of the whole, in osc: tol T bounds the error."""
    layers, couplings, _ = problem("two layers", True)
    layers = [dataclasses.replace(layer, time=time) for layer in layers]
    couplings = [strength * couplings[0]]
    exact = compose(layers, couplings, parallel=True, way=Polynomials(1e-14), kernel="numpy").z
    for tol in (1e-2, 1e-5):
        found = compose(layers, couplings, parallel=True, way=Polynomials(tol), kernel="numpy").z
        errors = [osc(a - b) for a, b in zip(found, exact, strict=True)]
        assert 1e-5 * tol * time < errors[-1]  # and not many more than needed
        assert max(errors) <= tol * time


# Gradient


@ORDERS
@pytest.mark.parametrize("name", CASES)
def test_gradients_match_differences_of_the_oracle(name, parallel):
    """Of all weights and couplings; <g, Z> with Z = J V."""
    layers, couplings, g = problem(name, parallel)
    kernel = kernel_of(layers)
    found = compose(layers, couplings, parallel=parallel, way=EXACT, kernel=kernel).gradient(g)
    rng = np.random.default_rng(2)

    def value(layers, couplings):
        return np.sum(g * len(g) * mo.composition(map_of(layers), couplings, parallel)[-1])

    for number, layer in enumerate(layers):
        direction = np.where(layer.weights > 0, rng.normal(size=layer.weights.shape), 0)

        def moved(h, number=number, layer=layer, direction=direction):
            weights = mo.moved(layer.weights, direction, h)
            changed = [*layers]
            changed[number] = dataclasses.replace(layer, weights=weights)
            return value(changed, couplings)

        expected = mo.slope(moved)
        assert abs(expected) > 1e-3
        tangent = found.layers[number].tangent
        assert np.sum(tangent * direction) == pytest.approx(expected, rel=1e-7)
    for number, coupling in enumerate(couplings):
        direction = rng.normal(size=coupling.shape)

        def turned(h, number=number, coupling=coupling, direction=direction):
            changed = [*couplings]
            changed[number] = coupling + h * direction
            return value(layers, changed)

        expected = mo.slope(turned)
        assert abs(expected) > 1e-3
        change = found.couplings[number]
        assert np.sum(change * direction) == pytest.approx(expected, rel=1e-7)
        # it stays within the maps between tangent spaces
        np.testing.assert_allclose(change.sum(axis=0), 0, atol=1e-10)
        np.testing.assert_allclose(change.sum(axis=1), 0, atol=1e-10)


WAYS = {
    "polynomials": (EXACT, 1e-12),
    "polynomials, default": (Polynomials(), 1e-3),
    "spaces": (Spaces(60), 1e-12),
    "spaces, default": (Spaces(), 1e-3),
    "dense": (Dense(), 1e-12),
    "kronecker": (Kronecker(50), 1e-10),
}


@ORDERS
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["two layers", "three layers"])
def test_gradients_match_automatic_differentiation(name, way, parallel):
    torch = pytest.importorskip("torch")
    from torch_models import composition_z

    layers, couplings, g = problem(name, parallel)
    weights = [torch.tensor(layer.weights, requires_grad=True) for layer in layers]
    matrices = [torch.tensor(c, requires_grad=True) for c in couplings]
    given = [
        (w, torch.tensor(layer.distances), layer.offsets, layer.time, layer.rho)
        for w, layer in zip(weights, layers, strict=True)
    ]
    z = composition_z(given, matrices, parallel)
    expected = torch.autograd.grad((z * torch.tensor(g)).sum(), [*weights, *matrices])
    way, tolerance = WAYS[way]
    found = compose(layers, couplings, parallel=parallel, way=way, kernel="numpy")
    np.testing.assert_allclose(found.z[-1], z.detach().numpy(), atol=max(1e-9, tolerance))
    gradient = found.gradient(g)
    tangents = [
        oracle.replicator(layer.weights, e.numpy())
        for layer, e in zip(layers, expected, strict=False)
    ]
    changes = [e.numpy() for e in expected[len(layers) :]]
    for one, tangent in zip(gradient.layers, tangents, strict=True):
        assert np.linalg.norm(one.tangent - tangent) < tolerance * np.linalg.norm(tangent)
    for one, change in zip(gradient.couplings, changes, strict=True):
        assert np.linalg.norm(one - change) < tolerance * np.linalg.norm(change)


@ORDERS
@pytest.mark.parametrize("loss", [Cosine(), CrossEntropy()], ids=["cosine", "entropy"])
def test_taylor_remainder_of_the_loss(loss, parallel):
    """All weights and couplings moved at once."""
    layers, couplings, g = problem("three layers", parallel)
    rng = np.random.default_rng(3)
    target = rng.integers(0, len(g) + 1, g.shape[1:])
    directions = [np.where(x.weights > 0, rng.normal(size=x.weights.shape), 0) for x in layers]
    turns = [rng.normal(size=c.shape) for c in couplings]

    def flow(h):
        moved = [
            dataclasses.replace(layer, weights=mo.moved(layer.weights, d, h))
            for layer, d in zip(layers, directions, strict=True)
        ]
        turned = [c + h * d for c, d in zip(couplings, turns, strict=True)]
        found = compose(moved, turned, parallel=parallel, way=EXACT, kernel="numpy")
        return found, loss.sums(found.z[-1], target)

    found, sums = flow(0.0)
    gradient = found.gradient(loss.gradient(found.z[-1], target, sums))
    pairs = [
        *((one.tangent, d) for one, d in zip(gradient.layers, directions, strict=True)),
        *zip(gradient.couplings, turns, strict=True),
    ]
    slope = sum(np.sum(a * b) for a, b in pairs)
    assert abs(slope) > 1e-4
    steps = 2.0 ** -np.arange(9, 13)
    values = np.array([loss.value(flow(h)[1]) for h in steps])
    remainder = abs(values - loss.value(sums) - steps * slope)
    np.testing.assert_allclose(np.log2(remainder[:-1] / remainder[1:]), 2, atol=0.1)


@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**32 - 1),
    parallel=st.booleans(),
    name=st.sampled_from(sorted(CASES)),
)
def test_labels_of_a_layer_have_no_order(seed, parallel, name):
    """Turn those of the first layer: the coupling's columns turn with them."""
    layers, couplings, g = problem(name, parallel, seed)
    found = compose(layers, couplings, parallel=parallel, kernel="numpy")
    gradient = found.gradient(g)
    first = dataclasses.replace(layers[0], distances=layers[0].distances[::-1])
    turned = [couplings[0][:, ::-1], *couplings[1:]]
    other = compose([first, *layers[1:]], turned, parallel=parallel, kernel="numpy")
    np.testing.assert_allclose(other.z[0][::-1], found.z[0], atol=1e-9)
    np.testing.assert_allclose(other.z[-1], found.z[-1], atol=1e-9)
    again = other.gradient(g)
    scale = abs(gradient.couplings[0]).max()
    np.testing.assert_allclose(
        again.couplings[0][:, ::-1], gradient.couplings[0], atol=1e-9 * scale
    )
    # and the gradient is linear
    scaled = found.gradient(-2 * g)
    for a, b in zip(scaled.layers, gradient.layers, strict=True):
        np.testing.assert_allclose(a.tangent, -2 * b.tangent, atol=1e-12)
    np.testing.assert_allclose(scaled.couplings[0], -2 * gradient.couplings[0], atol=1e-9 * scale)


@ORDERS
def test_grids_as_graphs(parallel):
    layers, couplings, g = problem("three layers", parallel)
    expected = compose(layers, couplings, parallel=parallel, kernel="numpy")
    flat, edges = [], []
    for layer in layers:
        found, kinds = graphs.of_grid(layer.offsets, g.shape[1:])
        edges.append((kinds, found.rows))
        weights = layer.weights.reshape(len(layer.weights), -1)[edges[-1]]
        distances = layer.distances.reshape(len(layer.distances), -1)
        flat.append(Layer(weights, distances, found, layer.time, layer.rho))
    found = compose(flat, couplings, parallel=parallel)
    np.testing.assert_allclose(found.z[-1].reshape(g.shape), expected.z[-1], atol=1e-11)
    gradient, wanted = found.gradient(g.reshape(len(g), -1)), expected.gradient(g)
    for one, other, where in zip(gradient.layers, wanted.layers, edges, strict=True):
        tangent = other.tangent.reshape(len(other.tangent), -1)[where]
        np.testing.assert_allclose(one.tangent, tangent, atol=1e-10 * abs(tangent).max())
    for one, other in zip(gradient.couplings, wanted.couplings, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-10 * abs(other).max())


@ORDERS
def test_single_precision(parallel):
    layers, couplings, g = problem("three layers", parallel)
    small = [
        dataclasses.replace(
            x, weights=x.weights.astype(np.float32), distances=x.distances.astype(np.float32)
        )
        for x in layers
    ]
    exact = compose(layers, couplings, parallel=parallel, way=EXACT, kernel="numpy")
    found = compose(small, couplings, parallel=parallel, way=Polynomials(1e-6, rank_tol=1e-7))
    expected, gradient = exact.gradient(g), found.gradient(g.astype(np.float32))
    for a, b in zip(found.z, exact.z, strict=True):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, b, atol=2e-5 * max(1, abs(b).max()))
    for a, b in zip(gradient.layers, expected.layers, strict=True):
        assert a.tangent.dtype == np.float32
        assert np.linalg.norm(a.tangent - b.tangent) < 2e-4 * np.linalg.norm(b.tangent)
    for a, b in zip(gradient.couplings, expected.couplings, strict=True):
        assert np.linalg.norm(a - b) < 2e-4 * np.linalg.norm(b)


# What does not fit


def test_refusals():
    layers, couplings, _ = problem("other labels", False)
    with pytest.raises(ValueError, match="two layers or more and a coupling between each and the "):
        compose(layers[:1], [])
    with pytest.raises(ValueError, match="got 2 and 2"):
        compose(layers, couplings * 2)
    with pytest.raises(ValueError, match=r"expected a coupling of shape \(3, 2\), got \(2, 3\)"):
        compose(layers, [couplings[0].T])
    with pytest.raises(ValueError, match=r"layers in parallel have one time, got 1\."):
        compose(layers, couplings, parallel=True)
    other = problem("two layers", False)[0]
    with pytest.raises(ValueError, match=r"expected layers of one grid, got \(4, 4\) and \(4, 3\)"):
        compose([layers[0], other[1]], couplings)
    bad = dataclasses.replace(layers[0], weights=layers[0].weights[1:])
    with pytest.raises(ValueError, match=r"weights must have shape \(9, 4, 4\), got \(8, 4, 4\)"):
        compose([bad, layers[1]], couplings)
    with pytest.raises(ValueError, match="time must be a positive number, got 0"):
        dataclasses.replace(layers[0], time=0)
    with pytest.raises(ValueError, match="rho must be a positive number, got -1"):
        dataclasses.replace(layers[0], rho=-1)
    long = [dataclasses.replace(layer, time=600.0) for layer in layers]
    with pytest.raises(ValueError, match=r"a coupling of norm .* is too strong for the time 600"):
        compose(long, [1e9 * couplings[0]], parallel=True)
