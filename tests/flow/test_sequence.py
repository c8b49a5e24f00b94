"""Sequences of linearized flows with weights of their own a step, their gradient and learning."""

import models_oracle as mo
import numpy as np
import oracle
import pytest
import voronoi
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import CASES, problem

from tiledlaf import (
    Euler,
    LinearizedSequence,
    Taylor,
    assignment,
    linearize,
    linearize_sequence,
    solve,
)
from tiledlaf.flow import graphs, stencil
from tiledlaf.flow.gradient import Dense, Kronecker, Polynomials, Spaces
from tiledlaf.flow.losses import Cosine, CrossEntropy, PixelCosine
from tiledlaf.flow.optimizers import Descent
from tiledlaf.flow.sequence import learn

pytestmark = pytest.mark.usefixtures("one_thread")
BOX = stencil.box(3, 3)
EXACT = Polynomials(1e-14, rank_tol=1e-16)
TIMES = (0.7, 2.0, 1.3)
NAMES = ["box", "masked", "rings masked", "15 labels", "3-D masked", "one-sided", "one pixel"]
# with numba few sizes, since each one is compiled
KERNELS = [*((name, "numpy") for name in NAMES), ("3-D masked", "numba"), ("rings", "numba")]


def steps_of(name, general, seed=0, count=3):
    """Weights of each step, distances, offsets, W0 and mask of a case."""
    grid, offsets, _, _ = CASES[name]
    weights, distances, offsets, w0, mask = problem(name, np.float64, general, seed)
    rng = np.random.default_rng(seed + 1)
    more = [oracle.random_weights(offsets, grid, rng, mask) for _ in range(count - 1)]
    return [weights, *more], distances, offsets, w0, mask


def direction_of(name, seed=0):
    """A gradient in Z, 0 at masked-out pixels."""
    _, distances, _, _, mask = problem(name, np.float64)
    g = np.random.default_rng(seed + 2).normal(size=distances.shape)
    return g if mask is None else g * mask


# Forward


@pytest.mark.parametrize("general", [False, True], ids=["barycenter", "w0"])
@pytest.mark.parametrize(("name", "kernel"), KERNELS)
def test_points_match_the_oracle(name, kernel, general):
    weights, distances, offsets, w0, mask = steps_of(name, general)
    valid = np.s_[:] if mask is None else np.s_[:, mask]
    expected = mo.sequence(weights, distances, offsets, TIMES, 0.7, w0, mask)[valid]
    for way in (EXACT, Spaces(40)):
        found = linearize_sequence(
            weights, distances, offsets, time=TIMES, rho=0.7, w0=w0, way=way, kernel=kernel
        )
        np.testing.assert_allclose(assignment(found.z, w0)[valid], expected, atol=1e-9)
    equal = mo.sequence(weights, distances, offsets, (1.2,) * 3, 0.7, w0, mask)[valid]
    given = {"time": 3.6, "rho": 0.7, "w0": w0, "kernel": kernel}
    scheme = LinearizedSequence(3, 1e-12)
    found = solve(np.stack(weights), distances, offsets, integrator=scheme, **given)
    np.testing.assert_allclose(assignment(found.z, w0)[valid], equal, atol=1e-9)
    assert found.matvecs == 3 * (Taylor(1e-12).terms(1.2) - 1)
    # weights that are the same for all steps
    alike = solve(weights[0], distances, offsets, integrator=scheme, **given)
    repeated = solve(np.stack(weights[:1] * 3), distances, offsets, integrator=scheme, **given)
    np.testing.assert_array_equal(alike.z, repeated.z)


def test_one_step_is_the_linearized_flow():
    weights, distances, offsets, w0, _ = steps_of("rings", True, count=1)
    one = solve(weights[0], distances, offsets, w0=w0, integrator=LinearizedSequence(1))
    np.testing.assert_array_equal(one.z, solve(weights[0], distances, offsets, w0=w0).z)
    g = direction_of("rings")
    found = linearize_sequence(weights, distances, offsets, w0=w0).gradient(g)[0].tangent
    expected = linearize(weights[0], distances, offsets, w0=w0).gradient(g).tangent
    np.testing.assert_array_equal(found, expected)


def test_many_steps_approach_the_nonlinear_flow():
    """A step's error is of the third order in its time, so that of all is of the second."""
    weights, distances, offsets, _, _ = steps_of("box", False, count=1)
    w = mo.nonlinear(weights[0], distances, offsets, 3.0)
    errors = [
        np.linalg.norm(
            assignment(
                solve(
                    weights[0],
                    distances,
                    offsets,
                    time=3.0,
                    integrator=LinearizedSequence(steps, 1e-12),
                ).z
            )
            - w
        )
        for steps in (8, 16, 32)
    ]
    np.testing.assert_allclose(np.log2(np.divide(errors[:-1], errors[1:])), 2, atol=0.2)


# Gradient


@pytest.mark.parametrize("general", [False, True], ids=["barycenter", "w0"])
@pytest.mark.parametrize("name", ["box", "masked", "rings", "3-D masked"])
def test_gradients_match_differences_of_the_oracle(name, general):
    """The oracle's Z is that of W, up to what the flow ignores: log W - log W0, centered."""
    weights, distances, offsets, w0, mask = steps_of(name, general)
    g = oracle._tangent(direction_of(name))
    start = oracle._start(w0, distances.shape, mask)
    kernel = "numba" if len(g) == 2 else "numpy"
    found = linearize_sequence(
        weights, distances, offsets, time=TIMES, rho=0.7, w0=w0, way=EXACT, kernel=kernel
    ).gradient(g)
    rng = np.random.default_rng(5)
    for number, one in enumerate(found):
        direction = np.where(weights[number] > 0, rng.normal(size=weights[number].shape), 0)

        def value(h, number=number, direction=direction):
            moved = [*weights]
            moved[number] = mo.moved(weights[number], direction, h)
            w = mo.sequence(moved, distances, offsets, TIMES, 0.7, w0, mask)
            return np.sum(g * (np.log(w) - np.log(start)))

        expected = mo.slope(value)
        assert abs(expected) > 1e-3
        assert np.sum(one.tangent * direction) == pytest.approx(expected, rel=1e-8)
        np.testing.assert_allclose(one.tangent.sum(axis=0), 0, atol=1e-13)
        assert not one.tangent[weights[number] == 0].any()


WAYS = {
    "polynomials": (EXACT, 1e-12),
    "polynomials, default": (Polynomials(), 1e-5),
    "spaces": (Spaces(32), 1e-12),
    "spaces, rank 1": (Spaces(rank=1), 1e-3),
    "dense": (Dense(), 1e-12),
    "kronecker": (Kronecker(40), 1e-12),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("general", [False, True], ids=["barycenter", "w0"])
def test_gradients_match_automatic_differentiation(way, general):
    torch = pytest.importorskip("torch")
    from torch_models import sequence_z

    rng = np.random.default_rng(0)
    weights = [oracle.random_weights(BOX, (4, 3), rng) for _ in TIMES]
    distances, g = 2 * rng.random((3, 4, 3)), rng.normal(size=(3, 4, 3))
    w0 = oracle._softmax(rng.normal(size=g.shape)) if general else None
    given = [torch.tensor(w, requires_grad=True) for w in weights]
    log_w0 = torch.tensor(np.log(w0)) if general else 0.0
    z = sequence_z(given, torch.tensor(distances), BOX, TIMES, 0.7, log_w0)
    expected = torch.autograd.grad((z * torch.tensor(g)).sum(), given)
    way, tolerance = WAYS[way]
    found = linearize_sequence(
        weights, distances, BOX, time=TIMES, rho=0.7, w0=w0, way=way, kernel="numpy"
    )
    np.testing.assert_allclose(found.z, z.detach().numpy(), atol=tolerance)
    for one, omega, euclidean in zip(found.gradient(g), weights, expected, strict=True):
        tangent = oracle.replicator(omega, euclidean.numpy())
        error = np.linalg.norm(one.tangent - tangent) / np.linalg.norm(tangent)
        assert error < tolerance


@pytest.mark.parametrize("loss", [Cosine(), CrossEntropy(), PixelCosine()], ids=str)
@pytest.mark.parametrize("name", ["masked", "15 labels"])
def test_taylor_remainder_of_the_loss(name, loss):
    """All weights moved at once: what the gradient leaves falls with the square of the step."""
    weights, distances, offsets, w0, mask = steps_of(name, True)
    rng = np.random.default_rng(3)
    target = rng.integers(0, len(distances) + 1, distances.shape[1:])
    if mask is not None:
        target[~mask] = 0
    directions = [np.where(w > 0, rng.normal(size=w.shape), 0) for w in weights]

    def flow(h):
        moved = [mo.moved(w, d, h) for w, d in zip(weights, directions, strict=True)]
        found = linearize_sequence(
            moved, distances, offsets, time=TIMES, w0=w0, way=EXACT, kernel="numpy"
        )
        return found, loss.sums(found.z, target, w0)

    found, sums = flow(0.0)
    gradients = found.gradient(loss.gradient(found.z, target, sums, w0))
    slope = sum(np.sum(a.tangent * d) for a, d in zip(gradients, directions, strict=True))
    assert abs(slope) > 1e-4
    steps = 2.0 ** -np.arange(11, 15)
    values = np.array([loss.value(flow(h)[1]) for h in steps])
    remainder = abs(values - loss.value(sums) - steps * slope)
    np.testing.assert_allclose(np.log2(remainder[:-1] / remainder[1:]), 2, atol=0.1)


@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**32 - 1),
    general=st.booleans(),
    given=st.sampled_from([k for k in KERNELS if k[0] not in ("15 labels", "one pixel")]),
)
def test_gradient_is_linear_and_relabels(seed, general, given):
    name, kernel = given
    weights, distances, offsets, w0, _ = steps_of(name, general, seed)
    g, other = direction_of(name, seed), direction_of(name, seed + 1)
    options = {"time": TIMES, "kernel": kernel}
    found = linearize_sequence(weights, distances, offsets, w0=w0, **options)

    def tangents(g):
        return np.stack([one.tangent for one in found.gradient(g)])

    both = tangents(g - 3 * other)
    scale = abs(both).max()
    np.testing.assert_allclose(both, tangents(g) - 3 * tangents(other), atol=1e-11 * scale)
    np.testing.assert_allclose(tangents(g + other[:1]), tangents(g), atol=1e-11 * scale)
    assert not tangents(0 * g).any()
    flipped = linearize_sequence(
        weights, distances[::-1], offsets, w0=None if w0 is None else w0[::-1], **options
    )
    turned = np.stack([one.tangent for one in flipped.gradient(g[::-1])])
    np.testing.assert_allclose(turned, tangents(g), atol=1e-9 * scale)


def test_what_a_gradient_in_the_inputs_is():
    """Differences of one linearized flow in Q and in what drives it."""
    from tiledlaf.flow.gradient import linearize_at

    weights, distances, offsets, _, _ = steps_of("rings masked", False, count=1)
    rng = np.random.default_rng(4)
    g, drive, to_q, to_drive = rng.normal(size=(4, *distances.shape))
    drive -= drive.mean(axis=0)
    to_drive -= to_drive.mean(axis=0)

    def z(h, k, way=EXACT):
        q = -distances + h * to_q
        return linearize_at(weights[0], q, offsets, 3.0, way, "numpy", drive + k * to_drive)

    for way, tolerance in ((EXACT, 1e-9), (Spaces(40), 1e-9), (Dense(), 1e-9)):
        found = z(0, 0, way).gradient(g, inputs=True)
        expected = mo.slope(lambda h: np.sum(g * z(h, 0).z))
        assert np.sum(found.potential * to_q) == pytest.approx(expected, rel=tolerance)
        expected = mo.slope(lambda k: np.sum(g * z(0, k).z))
        assert np.sum(found.source * to_drive) == pytest.approx(expected, rel=tolerance)
        # the weights' gradient is the same whether inputs are asked for or not
        alone = z(0, 0, way).gradient(g)
        assert (alone.potential, alone.source) == (None, None)
        np.testing.assert_allclose(alone.tangent, found.tangent, atol=1e-12)


def test_single_precision():
    weights, distances, offsets, w0, _ = steps_of("rings", True)
    g = direction_of("rings")
    exact = linearize_sequence(weights, distances, offsets, time=TIMES, w0=w0, way=EXACT)
    small = [w.astype(np.float32) for w in weights]
    found = linearize_sequence(
        small,
        distances.astype(np.float32),
        offsets,
        time=TIMES,
        w0=w0.astype(np.float32),
        way=Polynomials(1e-6, rank_tol=1e-7),
    )
    np.testing.assert_allclose(found.z, exact.z, atol=2e-5)
    gradients = zip(found.gradient(g.astype(np.float32)), exact.gradient(g), strict=True)
    for one, expected in gradients:
        assert one.tangent.dtype == np.float32
        error = np.linalg.norm(one.tangent - expected.tangent)
        assert error < 1e-4 * np.linalg.norm(expected.tangent)


# Learning


@pytest.mark.parametrize("noise", [0.3, 0.6])
@pytest.mark.parametrize("loss", [Cosine(), CrossEntropy()], ids=["cosine", "entropy"])
def test_end_to_end_beats_step_by_step(noise, loss):
    """With as many iterations in all, and with a third of them from what step by step reached."""
    image, labels = voronoi.lines((48, 48), noise=noise, cells=6)
    distances = np.stack([image, image - 1]).astype(np.float64) ** 2
    target, count = labels.astype(int) + 1, 3
    weights = [stencil.uniform(BOX, image.shape).astype(np.float64)] * count
    given = (distances, target, BOX, loss)
    stepwise = learn(weights, *given, time=4.0, iterations=8, end_to_end=False)
    together = learn(weights, *given, time=4.0, iterations=24)
    further = learn(stepwise.weights, *given, time=4.0, iterations=8)
    assert (len(stepwise.losses), len(together.losses), len(further.losses)) == (27, 25, 9)
    assert together.losses[-1] < 0.999 * stepwise.losses[-1]
    assert further.losses[0] == pytest.approx(stepwise.losses[-1], rel=1e-12)
    assert further.losses[-1] < 0.995 * stepwise.losses[-1]
    for found in (stepwise, together, further):
        assert (found.weights >= 0).all()
        np.testing.assert_allclose(found.weights.sum(axis=1), 1, atol=1e-12)
        z = linearize_sequence(found.weights, distances, BOX, time=4.0).z
        assert loss.value(loss.sums(z, target)) == pytest.approx(found.losses[-1], rel=1e-12)
        # nearly nothing is left of what is wrong with uniform weights
        assert (z.argmax(axis=0) != labels).mean() < 0.002
    for found in (together, further):
        assert (np.diff(found.losses) <= 0).all()
    for number in range(count):
        assert (np.diff(stepwise.losses[9 * number : 9 * (number + 1)]) <= 0).all()


def test_learning_step_by_step_looks_at_no_later_step():
    image, labels = voronoi.lines((24, 24), noise=0.6, cells=3)
    distances = np.stack([image, image - 1]) ** 2
    target = labels.astype(int) + 1
    weights = [stencil.uniform(BOX, image.shape)] * 3
    given = (distances, target, BOX, Cosine())
    options = {"iterations": 3, "end_to_end": False, "descent": Descent("exponential", rate=0.5)}
    three = learn(weights, *given, time=(1.0, 2.0, 0.5), **options)
    two = learn(weights[:2], *given, time=(1.0, 2.0), **options)
    assert three.weights.dtype == np.float32
    np.testing.assert_array_equal(three.weights[:2], two.weights)
    assert three.losses[:8] == two.losses


@pytest.mark.parametrize("end_to_end", [False, True])
def test_a_grid_as_a_graph(end_to_end):
    """The same weights are learned on the graph of a grid."""
    image, labels = voronoi.lines((16, 14), noise=0.6, cells=3)
    distances = np.stack([image, image - 1]).astype(np.float64) ** 2
    target = labels.astype(int) + 1
    planes = [stencil.uniform(BOX, image.shape).astype(np.float64)] * 2
    g, kinds = graphs.of_grid(BOX, image.shape)
    options = {"time": 2.0, "iterations": 4, "end_to_end": end_to_end}
    on_grid = learn(planes, distances, target, BOX, Cosine(), kernel="numpy", **options)
    weights = [w.reshape(9, -1)[kinds, g.rows] for w in planes]
    flat = distances.reshape(2, -1)
    found = learn(weights, flat, target.ravel(), g, Cosine(), descent=Descent(), **options)
    np.testing.assert_allclose(found.losses, on_grid.losses, rtol=1e-9)
    expected = on_grid.weights.reshape(2, 9, -1)[:, kinds, g.rows]
    assert abs(expected - np.stack(weights)).max() > 0.1
    np.testing.assert_allclose(found.weights, expected, atol=1e-9)
    one = linearize_sequence(found.weights, flat, g, time=2.0)
    assert Cosine().value(Cosine().sums(one.z, target.ravel())) == pytest.approx(found.losses[-1])


def test_nothing_to_learn():
    """Targets that are reached already leave the weights as they are."""
    weights = [np.ones((1, 3, 3))] * 2
    distances = np.stack([np.zeros((3, 3)), np.ones((3, 3))])
    given = (weights, distances, np.ones((3, 3), int), ((0, 0),), Cosine())
    found = learn(*given, iterations=5, kernel="numpy")
    np.testing.assert_array_equal(found.weights, weights)
    assert len(found.losses) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": []}, "`steps` must be 1 or more, got 0"),
        ({"time": (1.0,)}, "expected the time of each of 3 steps, got 1"),
        ({"time": (1.0, 0.0, 1.0)}, "time must be a positive number, got 0"),
        ({"rho": 0}, "rho must be a positive number, got 0"),
        ({"distances": np.zeros((1, 6, 5))}, "two classes or more"),
        ({"distances": np.zeros((3, 6, 4))}, r"weights must have shape \(9, 6, 4\), got \(9, 6, 5"),
    ],
)
def test_refusals(change, message):
    weights, distances, offsets, _, _ = steps_of("box", False)
    given = {"weights": weights, "distances": distances, "offsets": offsets} | change
    given["kernel"] = "numpy"  # nothing needs to be compiled to be refused
    with pytest.raises(ValueError, match=message):
        linearize_sequence(**given)
    with pytest.raises(ValueError, match=message):
        learn(target=np.ones((6, 5), int), loss=Cosine(), **given)


def test_weights_of_other_steps_are_refused():
    weights, distances, offsets, _, _ = steps_of("box", False)
    for scheme in (LinearizedSequence(2), Taylor(), Euler()):
        with pytest.raises(ValueError, match=r"weights must have shape \(9, 6, 5\), got \(3, 9"):
            solve(np.stack(weights), distances, offsets, integrator=scheme)
