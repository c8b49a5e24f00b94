"""The gradient in the weights: five ways against the dense oracle, and automatic differentiation.

Figures are those of the paper's section 5 and of a prototype, at reduced size.
"""

import functools
import itertools

import learning_oracle as lo
import numpy as np
import oracle
import pytest
import voronoi
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from tiledlaf import Taylor
from tiledlaf.flow import stencil
from tiledlaf.flow.gradient import Dense, Kronecker, Polynomials, Spaces, linearize
from tiledlaf.flow.losses import Cosine, CrossEntropy, PixelCosine
from tiledlaf.flow.problem import euclidean
from tiledlaf.kernels import numpy as reference
from tiledlaf.kernels import select

BOX = stencil.box(3, 3)
CORNERS = tuple(o for o in stencil.box(3, 3, 3) if all(o) or not any(o))
ONE_SIDED = ((0, 0), (0, 2), (-1, 1))
# grid, offsets, labels, masked: few sizes, since each one is compiled
CASES = {
    "box, 2 labels": ((5, 4), BOX, 2, False),
    "box, 8 labels": ((3, 4), BOX, 8, False),
    "masked": ((4, 3), BOX, 8, True),
    "rings": ((7, 5), stencil.rings(2, 3), 2, False),
    "rings masked": ((5, 7), stencil.rings(2, 3), 2, True),
    "5x5": ((5, 6), stencil.box(5, 5), 2, False),
    "3-D": ((3, 4, 3), CORNERS, 2, False),
    "3-D masked": ((3, 3, 4), CORNERS, 2, True),
    "3-D planes": ((2, 2, 3), stencil.fit(BOX, 3), 8, False),
    "row": ((1, 9), BOX, 2, False),
    "one pixel": ((1, 1), BOX, 8, False),
    # more labels than a block of the kernel holds, in blocks that overlap
    "15 labels": ((2, 4), ONE_SIDED, 15, False),
}
EXACT = Polynomials(1e-14, rank_tol=1e-16)
LOSSES = {
    "cosine": Cosine(),
    "pixel cosine": PixelCosine(),
    "entropy": CrossEntropy(),
    "weighted entropy": CrossEntropy((0.5, 2, 1, 0.1, 1, 1, 3, 1), 0.7),
}


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    # several threads of BLAS only wait for each other on matrices this small
    with threadpool_limits(1):
        yield


def problem(name, general=False, seed=0, dtype=np.float64):
    """Random weights, distances, W0 and mask of a case, and a gradient in Z."""
    grid, offsets, labels, masked = CASES[name]
    rng = np.random.default_rng(seed)
    mask = None
    if masked:
        mask = rng.random(grid) > 0.3
        mask.flat[0] = True
    weights = oracle.random_weights(offsets, grid, rng, mask).astype(dtype)
    distances = (2 * rng.random((labels, *grid))).astype(dtype)
    w0 = None
    if general:
        w0 = oracle._softmax(rng.normal(size=distances.shape)).astype(dtype)
    g = rng.normal(size=distances.shape).astype(dtype)
    if masked:
        g[:, ~mask] = 0
    return weights, distances, offsets, w0, mask, g


def relative(found, expected):
    """Norm of the difference over the norm."""
    scale = np.linalg.norm(expected)
    assert scale > 0
    return np.linalg.norm(np.asarray(found, np.float64) - expected) / scale


def random_problem(grid, labels, rho, seed=0):
    """Random weights, distances and targets, and q of these distances."""
    rng = np.random.default_rng(seed)
    weights = oracle.random_weights(BOX, grid, rng)
    return weights, rng.random((labels, *grid)) / rho, rng.integers(1, labels + 1, grid)


# against the dense oracle


# relative error over all cases at T = 1, 5 and 20: a few times the worst that was measured
WAYS = {
    "polynomials": (EXACT, (4e-15, 6e-15, 6e-14)),
    "polynomials, default": (Polynomials(), (6e-5, 3e-5, 1e-4)),
    "spaces": (Spaces(32), (5e-15, 5e-14, 3e-13)),
    "spaces, rank 1": (Spaces(rank=1), (6e-4, 6e-2, 0.6)),
}
# for tiny grids, and slow
DENSE = {
    "kronecker": (Kronecker(40), (5e-15, 6e-14, 1e-9)),
    "dense": (Dense(), (5e-15, 5e-15, 2e-14)),
}
TIMES = (1.0, 5.0, 20.0)


@functools.lru_cache
def expected_of(name, general, time):
    """Z(T) and the gradient by the oracle."""
    weights, distances, offsets, w0, mask, g = problem(name, general)
    options = {"time": time, "rho": 0.7, "w0": w0, "mask": mask}
    return (
        oracle.flow_z(weights, distances, offsets, **options),
        lo.gradient(weights, distances, offsets, g, **options)["riemannian"],
    )


def check_way(name, general, time, ways, kernel):
    """A gradient by each way against the oracle's."""
    weights, distances, offsets, w0, mask, g = problem(name, general)
    z, expected = expected_of(name, general, time)
    for what, (way, tolerances) in ways.items():
        found = linearize(
            weights, distances, offsets, time=time, rho=0.7, w0=w0, way=way, kernel=kernel
        )
        tangent = found.gradient(g).tangent
        assert found.z.dtype == tangent.dtype == np.float64
        if name == "one pixel":
            np.testing.assert_allclose(tangent, 0, atol=1e-12)
            continue
        error = relative(tangent, expected)
        assert error <= tolerances[TIMES.index(time)], (what, error)
        if what in ("polynomials", "dense"):
            valid = slice(None) if mask is None else mask
            assert relative(found.z[:, valid], z[:, valid]) < 1e-12
        # the gradient leaves the weights on the simplex, and those that are zero at zero
        np.testing.assert_allclose(tangent.sum(axis=0), 0, atol=1e-13 * abs(tangent).max())
        assert not tangent[weights == 0].any()


@pytest.mark.parametrize("kernel", ["numpy", "numba"])
@pytest.mark.parametrize("name", CASES)
def test_streaming_ways_match_the_oracle(name, kernel):
    for time in TIMES:
        for general in (False, True):
            check_way(name, general, time, WAYS, kernel)


@pytest.mark.parametrize("name", CASES)
def test_dense_ways_match_the_oracle(name):
    check_way(name, True, 5.0, DENSE, "numpy")
    if name == "box, 2 labels":
        check_way(name, False, 1.0, DENSE, "numba")
        check_way(name, False, 20.0, {"dense": DENSE["dense"]}, "numba")
    if name == "box, 8 labels":
        check_way(name, False, 20.0, DENSE, "numba")


def test_euclidean_gradient_up_to_constants():
    weights, distances, offsets, w0, mask, g = problem("masked", True)
    expected = lo.gradient(weights, distances, offsets, g, 5.0, w0=w0, mask=mask)
    way = linearize(weights, distances, offsets, w0=w0, way=EXACT)
    found = euclidean(way.gradient(g).tangent, weights)
    assert not found[weights == 0].any()
    difference = np.where(weights > 0, found - expected["euclidean"], 0)
    mean = (difference * weights).sum(axis=0)
    np.testing.assert_allclose(difference, np.where(weights > 0, mean, 0), atol=1e-12)


@pytest.mark.parametrize("time", [1.0, 5.0, 20.0])
def test_square_core_is_closer_than_the_gradient_of_the_polynomial(time):
    # the gradient of Z_n itself is the triangular core, k + l + 2 <= n
    # with more labels and a long time both are at rounding
    for name in ("box, 2 labels",) if time == 20 else ("box, 2 labels", "rings masked"):
        weights, distances, offsets, _, mask, g = problem(name)
        exact = lo.gradient(weights, distances, offsets, g, time, mask=mask)["riemannian"]
        for tol in (0.3, 1e-4, 1e-6):
            way = Polynomials(tol, rank_tol=0)
            found = linearize(weights, distances, offsets, time=time, way=way).gradient(g)
            degree = way.degree(time)
            assert found.rank == degree
            triangular = lo.taylor_gradient(
                weights, distances, offsets, g, time, degree, mask=mask
            )["riemannian"]
            error = relative(found.tangent, exact)
            assert 1e-14 < error < relative(triangular, exact)


@pytest.mark.parametrize(
    ("name", "kernel"),
    [("box, 2 labels", "numpy"), ("box, 8 labels", "numpy"), ("box, 8 labels", "numba")],
)
def test_single_precision(name, kernel):
    # a = 1/2 would fail at T = 50 with 8 labels: the powers are scaled by what S allows
    for time in (1.0, 5.0, 50.0):
        weights, distances, offsets, _, _, g = problem(name)
        exact = linearize(weights, distances, offsets, time=time, way=EXACT)
        way = Polynomials(rank_tol=1e-7)
        found = linearize(
            *(x.astype(np.float32) for x in (weights, distances)),
            offsets,
            time=time,
            way=way,
            kernel=kernel,
        )
        tangent = found.gradient(g.astype(np.float32)).tangent
        assert found.z.dtype == tangent.dtype == np.float32
        assert relative(found.z, exact.z) < 1e-4
        assert relative(tangent, exact.gradient(g).tangent) < 5e-5


# what a gradient is


@pytest.mark.parametrize("general", [False, True], ids=["barycenter", "w0"])
@pytest.mark.parametrize(
    ("loss", "name"),
    [(loss, name) for loss in LOSSES for name in ("box, 8 labels", "masked")]
    + [(loss, name) for loss in ("cosine", "entropy") for name in ("rings", "3-D masked")],
)
def test_taylor_remainder_of_the_loss(loss, name, general):
    weights, distances, offsets, w0, mask, _ = problem(name, general)
    loss, rng = LOSSES[loss], np.random.default_rng(3)
    target = rng.integers(0, len(distances) + 1, weights.shape[1:])
    if mask is not None:
        target[~mask] = 0
    t = lo.weight_coordinates(weights)

    def flow(t):
        moved = lo.weights_of(t, weights > 0)
        found = linearize(moved, distances, offsets, w0=w0, rho=0.7, way=EXACT)
        return found, loss.sums(found.z, target, w0)

    found, sums = flow(t)
    tangent = found.gradient(loss.gradient(found.z, target, sums, w0)).tangent
    direction = np.where(weights > 0, rng.normal(size=t.shape), 0)
    slope = np.sum(direction * tangent)
    assert abs(slope) > 1e-4
    steps = 2.0 ** -np.arange(9, 13)
    values = np.array([loss.value(flow(t + h * direction)[1]) for h in steps])
    remainder = abs(values - loss.value(sums) - steps * slope)
    np.testing.assert_allclose(np.log2(remainder[:-1] / remainder[1:]), 2, atol=0.1)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32 - 1),
    general=st.booleans(),
    name=st.sampled_from(["box, 2 labels", "masked", "rings masked", "3-D masked"]),
    way=st.sampled_from([Polynomials(), Polynomials(rank=1), Spaces(6), Spaces(6, rank=2)]),
)
def test_gradient_is_linear_and_relabels(seed, general, name, way):
    weights, distances, offsets, w0, _, g = problem(name, general, seed)
    found = linearize(weights, distances, offsets, w0=w0, way=way)
    tangent = found.gradient(g).tangent
    scale = abs(tangent).max()
    np.testing.assert_allclose(found.gradient(-3 * g).tangent, -3 * tangent, atol=1e-11 * scale)
    if isinstance(way, Polynomials):
        other = np.random.default_rng(seed + 1).normal(size=g.shape)
        both = found.gradient(g + other).tangent
        np.testing.assert_allclose(
            both, tangent + found.gradient(other).tangent, atol=1e-11 * abs(both).max()
        )
        # a constant of each pixel is nothing to the flow
        shifted = found.gradient(g + other[:1]).tangent
        np.testing.assert_allclose(shifted, tangent, atol=1e-11 * scale)
    flipped = linearize(
        weights, distances[::-1], offsets, w0=None if w0 is None else w0[::-1], way=way
    )
    np.testing.assert_allclose(flipped.gradient(g[::-1]).tangent, tangent, atol=1e-9 * scale)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32 - 1),
    name=st.sampled_from(["box, 2 labels", "masked", "rings masked", "3-D masked", "15 labels"]),
    rank=st.integers(1, 4),
)
def test_kernels_agree(seed, name, rank):
    rng = np.random.default_rng(seed)
    weights, distances, offsets, _, _, g = problem(name, seed=seed)
    results = [
        linearize(weights, distances, offsets, way=Polynomials(rank=rank), kernel=kernel)
        for kernel in ("numpy", "numba")
    ]
    np.testing.assert_allclose(results[0].z, results[1].z, atol=1e-13)
    tangents = [result.gradient(g).tangent for result in results]
    np.testing.assert_allclose(*tangents, atol=1e-12 * abs(tangents[0]).max())
    # the chain alone, with a table of its own
    s, table = oracle._softmax(distances), rng.normal(size=(rank, 5))
    a = oracle.operator_matrix(weights, s, offsets)
    powers = [(g - g.mean(axis=0)).ravel()]
    for _ in range(4):
        powers.append(a @ powers[-1])
    first, *others = (table @ powers).reshape(rank, *g.shape)
    others = [x[:-1] - x[-1] for x in others]
    for kernel in ("numpy", "numba"):
        z, rest = select(s, kernel).chain(weights, s, g, offsets, table)
        np.testing.assert_allclose(z, first, atol=1e-12 * abs(first).max())
        assert len(rest) == rank - 1
        for found, wanted in zip(rest, others, strict=True):
            np.testing.assert_allclose(found, wanted, atol=1e-12 * abs(wanted).max())


@pytest.mark.parametrize(
    ("grid", "offsets"), [((7, 9), BOX), ((9, 11), stencil.rings(2, 3)), ((5, 6, 5), CORNERS)]
)
def test_kernels_agree_where_weights_leave_the_window(grid, offsets):
    # of a window cut out of a grid, the border's weights point beyond it: those have no part in
    # the transposed operator, whatever lies there in memory
    rng = np.random.default_rng(0)
    weights = oracle.random_weights(offsets, grid, rng)
    box = (slice(None), *(slice(1, None) for _ in grid))
    weights = np.ascontiguousarray(weights[box])
    s, g = rng.random((2, 2, *weights.shape[1:]))
    s /= s.sum(axis=0)
    table = rng.normal(size=(2, 4))
    # the products at such a pixel depend on what lies there
    beyond = (stencil.uniform(offsets, weights.shape[1:]) == 0) & (weights > 0)
    kept = ~beyond.any(axis=0)
    found = [
        select(s, kernel).pull(weights, s, g, g[None, :-1], g, offsets, table)
        for kernel in ("numpy", "numba")
    ]
    assert kept.any()
    assert not kept.all()
    np.testing.assert_allclose(*(f * kept for f in found), atol=1e-13 * abs(found[0]).max())


def test_transposed_weights():
    for name in ("masked", "rings", "3-D", "15 labels"):
        weights, _, offsets, _, _, _ = problem(name)
        back = reference.opposite(offsets)
        turned = reference.transpose(weights, offsets)
        np.testing.assert_allclose(
            oracle.omega_matrix(turned, back), oracle.omega_matrix(weights, offsets).T, atol=1e-15
        )
        np.testing.assert_array_equal(reference.transpose(turned, back), weights)


@pytest.mark.parametrize("kernel", ["numpy", "numba"])
@pytest.mark.parametrize(
    "way", [Polynomials(), Spaces(), Spaces(rank=1), Kronecker(), Dense()], ids=repr
)
def test_nothing_to_learn(way, kernel):
    """A flow that stands still, and a loss that is flat, have the gradient 0."""
    weights, distances, offsets, _, _, g = problem("box, 2 labels")
    flat = linearize(weights, distances, offsets, way=way, kernel=kernel).gradient(0 * g)
    assert not flat.tangent.any()
    still = linearize(weights, np.ones_like(distances), offsets, way=way, kernel=kernel)
    np.testing.assert_allclose(still.z, 0, atol=1e-15)
    np.testing.assert_allclose(still.gradient(g).tangent, 0, atol=1e-14)


# rank


# degree, and the error at each rank, of a prototype
RANKS = {
    1.0: (10, {1: 2e-4, 2: 2e-7}),
    5.0: (16, {1: 3e-2, 2: 3e-4, 3: 3e-6, 4: 4e-8}),
    20.0: (44, {4: 6e-3, 6: 9e-6, 8: 3e-9}),
}
ARNOLDI = {5.0: {1: 2e-2, 2: 2e-4, 3: 1e-6}}


def way_of_degree(degree, time):
    """The tolerance that asks for this degree."""
    tol = 1.0
    while Polynomials(tol).degree(time) < degree:
        tol /= 1.5
    assert Polynomials(tol).degree(time) == degree
    return tol


@pytest.mark.parametrize("time", RANKS)
def test_errors_of_low_ranks(time):
    """Worst error over labels and data scales at each rank: within a factor of the figures."""
    degree, figures = RANKS[time]
    tol = way_of_degree(degree, time)
    worst, arnoldi = dict.fromkeys(figures, 0.0), dict.fromkeys(range(1, 9), 0.0)
    for labels in (2, 8):
        for rho in (1.0, 0.1):
            weights, distances, target = random_problem((24, 24), labels, rho)
            exact = linearize(weights, distances, BOX, time=time, way=Spaces(40))
            g = Cosine().gradient(exact.z, target, Cosine().sums(exact.z, target))
            expected = exact.gradient(g).tangent
            for rank in figures:
                way = Polynomials(tol, rank=rank)
                found = linearize(weights, distances, BOX, time=time, way=way).gradient(g)
                assert found.rank == rank
                worst[rank] = max(worst[rank], relative(found.tangent, expected))
            for rank in ARNOLDI.get(time, (8,) if time == 20 else ()):
                way = Spaces(10, rank=rank)
                found = linearize(weights, distances, BOX, time=time, way=way).gradient(g)
                arnoldi[rank] = max(arnoldi[rank], relative(found.tangent, expected))
    for rank, figure in figures.items():
        assert figure / 10 < worst[rank] < 5 * figure, (rank, worst[rank])
    for rank, figure in ARNOLDI.get(time, {}).items():
        assert figure / 10 < arnoldi[rank] < 5 * figure, (rank, arnoldi[rank])
    if time == 20:
        # ten dimensions are too few, at any rank
        assert arnoldi[8] > 3e-4


def test_rank_follows_its_options():
    weights, distances, offsets, _, _, g = problem("box, 8 labels")
    for way in (Polynomials(), Polynomials(1e-12), Spaces(10), Spaces(20)):
        found = linearize(weights, distances, offsets, way=way).gradient(g)
        sigma = found.singular_values
        size = way.degree(5.0) if isinstance(way, Polynomials) else way.dim
        assert sigma.dtype == np.float64
        assert len(sigma) == size
        assert (np.diff(sigma) <= 0).all()
        assert 0 <= sigma[-1] < 1e-6 * sigma[0]
        kind = type(way)
        first = way.tol if isinstance(way, Polynomials) else way.dim
        for rank in (1, 2, 5, size, size + 7):
            cut = linearize(weights, distances, offsets, way=kind(first, rank=rank)).gradient(g)
            assert cut.rank == min(rank, size)
            np.testing.assert_array_equal(cut.singular_values, sigma)
        for tol in (0.0, 1e-9, 1e-3, 0.5):
            cut = linearize(weights, distances, offsets, way=kind(first, rank_tol=tol)).gradient(g)
            assert cut.rank == np.count_nonzero(sigma > tol * sigma[0])


def test_each_further_term_helps():
    weights, distances, offsets, w0, mask, g = problem("masked", True)
    expected = lo.gradient(weights, distances, offsets, g, 5.0, w0=w0, mask=mask)["riemannian"]
    errors = [
        relative(
            linearize(weights, distances, offsets, w0=w0, way=Polynomials(1e-14, rank=rank))
            .gradient(g)
            .tangent,
            expected,
        )
        for rank in range(1, 7)
    ]
    assert all(b < a / 10 for a, b in itertools.pairwise(errors))


# share of pixels whose gradient has cosine >= 0.9 and >= 0.999 with the exact one (figure 3)
SHARES = {
    (1.0, 1): (1.0, 0.998),
    (5.0, 1): (0.999, 0.8),
    (5.0, 2): (1.0, 0.999),
    (10.0, 1): (0.93, 0.4),
    (10.0, 2): (1.0, 0.98),
    (10.0, 3): (1.0, 0.9999),
}


@pytest.mark.parametrize(("time", "rank"), SHARES)
def test_directions_of_low_ranks(time, rank):
    image, labels = voronoi.lines((64, 64), noise=0.3, cells=6)
    distances = np.stack([image, image - 1]).astype(np.float64) ** 2
    weights = stencil.uniform(BOX, image.shape).astype(np.float64)
    target = labels.astype(int) + 1
    exact = linearize(weights, distances, BOX, time=time, way=Spaces(40))
    g = Cosine().gradient(exact.z, target, Cosine().sums(exact.z, target))
    expected = exact.gradient(g).tangent
    way = Spaces(10, rank=rank)
    found = linearize(weights, distances, BOX, time=time, way=way).gradient(g).tangent
    lengths = np.sqrt((found**2).sum(axis=0) * (expected**2).sum(axis=0))
    cosine = (found * expected).sum(axis=0) / lengths
    near, same = SHARES[time, rank]
    assert (cosine >= 0.9).mean() >= near
    assert (cosine >= 0.999).mean() >= same
    if (time, rank) in ((5.0, 1), (10.0, 1)):
        # and the paper's rank is not all of it
        assert (cosine >= 0.999).mean() < 0.95


# against automatic differentiation


@pytest.mark.parametrize("offsets", [BOX, stencil.rings(2, 3)], ids=["box", "rings"])
@pytest.mark.parametrize("labels", [2, 8])
@pytest.mark.parametrize(("time", "dim"), [(1.0, 10), (5.0, 10), (20.0, 20)])
def test_automatic_differentiation(time, dim, labels, offsets):
    pytest.importorskip("torch")
    from torch_learning import krylov_loss_and_gradient

    rng = np.random.default_rng(labels)
    grid = (24, 20)
    weights = oracle.random_weights(offsets, grid, rng)
    distances, target = rng.random((labels, *grid)), rng.integers(1, labels + 1, grid)
    loss, expected = krylov_loss_and_gradient(
        weights, distances, offsets, target - 1, time, dim, rho=0.7
    )
    expected = oracle.replicator(weights, expected)
    # the numpy kernels where numba would compile once more
    kernel = "numpy" if labels == 8 and len(offsets) > 9 else None
    for way in (Polynomials(1e-10, rank_tol=1e-10), Spaces(dim)):
        found = linearize(weights, distances, offsets, time=time, rho=0.7, way=way, kernel=kernel)
        sums = Cosine().sums(found.z, target)
        assert Cosine().value(sums) == pytest.approx(loss, rel=1e-8)
        gradient = found.gradient(Cosine().gradient(found.z, target, sums))
        assert relative(gradient.tangent, expected) < 1e-6


def test_automatic_differentiation_of_sparse_labels():
    torch = pytest.importorskip("torch")
    from torch_learning import flow_z

    weights, distances, target = random_problem((20, 17), 8, 0.5)
    target[np.random.default_rng(1).random(target.shape) > 0.05] = 0
    assert 0 < np.count_nonzero(target) < 30
    w = torch.tensor(weights, requires_grad=True)
    z = flow_z(w, torch.tensor(distances), BOX, 5.0, 10)
    # the mean cross entropy and the cosine of what is labeled
    chosen = torch.tensor(target.ravel() > 0)
    flat, classes = z.reshape(8, -1).T[chosen], torch.tensor(target[target > 0] - 1)
    hot = torch.nn.functional.one_hot(classes, 8).double()
    losses = {
        CrossEntropy(): torch.nn.functional.cross_entropy(flat, classes),
        Cosine(): 1 - torch.cosine_similarity(flat.ravel(), (hot - 1 / 8).ravel(), 0),
        PixelCosine(): (1 - torch.cosine_similarity(flat, hot - 1 / 8, 1)).mean(),
    }
    found = linearize(weights, distances, BOX, way=Polynomials(1e-10, rank_tol=1e-10))
    for loss, value in losses.items():
        (expected,) = torch.autograd.grad(value, w, retain_graph=True)
        expected = oracle.replicator(weights, expected.numpy())
        sums = loss.sums(found.z, target)
        assert loss.value(sums) == pytest.approx(float(value.detach()), rel=1e-7)
        gradient = found.gradient(loss.gradient(found.z, target, sums))
        assert relative(gradient.tangent, expected) < 1e-6


def test_degree_is_that_of_the_flow():
    for time in (1.0, 5.0, 20.0):
        assert Polynomials(1e-4).degree(time) == Taylor(1e-4).terms(time)
    with pytest.raises(ValueError, match="tol must be a positive number"):
        Polynomials(0).degree(1.0)


def test_a_rank_of_none():
    weights, distances = np.full((1, 4, 4), 1.0), np.zeros((2, 4, 4))
    with pytest.raises(ValueError, match="rank must be 1 or more, got 0"):
        linearize(weights, distances, ((0, 0),), way=Polynomials(rank=0))
