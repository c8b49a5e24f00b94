"""The nonlinear assignment flow against W on the simplex, and its labels by tiles."""

import dataclasses
import math

import models_oracle as mo
import numpy as np
import oracle
import pytest
import tifffile
import voronoi
from command import run
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import problem
from tiling import points, same, whole

from tiledlaf import (
    RKMK4,
    AdaptiveRKMK,
    GeometricEuler,
    LinearizedSequence,
    Taylor,
    assignment,
    label,
    rounding,
    solve,
)
from tiledlaf.files import images, nodes
from tiledlaf.flow import stencil
from tiledlaf.flow.integrators import make
from tiledlaf.flow.nonlinear import mean_entropy
from tiledlaf.labeling.choice import data_term
from tiledlaf.labeling.plan import Writing, make_plan
from tiledlaf.labeling.worker import label_tile
from tiledlaf.model.settings import make_settings

pytestmark = pytest.mark.usefixtures("one_thread")
BOX = stencil.box(3, 3)
CASES = ["box", "masked", "rings", "15 labels", "3-D masked", "one-sided", "one pixel"]
CLASSICAL = (
    [[], [1 / 2], [0, 1 / 2], [0, 0, 1]],
    [1 / 6, 1 / 3, 1 / 3, 1 / 6],
)


def osc(x):
    """Largest max - min over the labels of a pixel."""
    return float((x.max(axis=0) - x.min(axis=0)).max())


@pytest.mark.parametrize("general", [False, True], ids=["barycenter", "w0"])
@pytest.mark.parametrize("kernel", ["numpy", "numba"])
@pytest.mark.parametrize("name", CASES)
def test_methods_match_the_simplex(name, kernel, general):
    """Equal steps give W of the same method on the simplex, small steps that of the flow."""
    weights, distances, offsets, w0, mask = problem(name, np.float64, general)
    valid = np.s_[:] if mask is None else np.s_[:, mask]
    given = (weights, distances, offsets)
    options = {"time": 4.0, "rho": 0.7, "w0": w0}

    def found(integrator):
        solution = solve(*given, integrator=integrator, kernel=kernel, **options)
        return solution, assignment(solution.z, w0)[valid]

    for scheme, (a, b) in ((GeometricEuler(5), ([[]], [1.0])), (RKMK4(3), CLASSICAL)):
        expected = mo.geometric(*given, 4.0, scheme.steps, a, b, 0.7, w0, mask)
        solution, w = found(scheme)
        np.testing.assert_allclose(w, expected[valid], atol=1e-13)
        assert (solution.steps, solution.matvecs) == (scheme.steps, scheme.steps * len(b))
        assert (solution.time, solution.reason) == (4.0, "time")
        assert solution.entropy == pytest.approx(mo.entropy(expected, mask), abs=1e-12)
    expected = mo.nonlinear(*given, 4.0, 0.7, w0, mask)[valid]
    solution, w = found(AdaptiveRKMK(1e-9))
    np.testing.assert_allclose(w, expected, atol=2e-9)
    assert solution.time == 4.0
    assert solution.matvecs == 1 + 6 * (solution.steps + solution.rejected)


@settings(max_examples=12)
@given(seed=st.integers(0, 2**32 - 1), time=st.floats(0.5, 6), general=st.booleans())
def test_orders(seed, time, general):
    """Twice as many steps halve the error of Euler, and leave a 16th of that of order 4."""
    weights, distances, offsets, w0, _ = problem("box", np.float64, general, seed)

    def z(integrator):
        return solve(weights, distances, offsets, time=time, w0=w0, integrator=integrator).z

    exact = z(RKMK4(math.ceil(64 * time)))
    for scheme, order, slack in ((GeometricEuler, 1, 0.1), (RKMK4, 4, 0.4)):
        steps = math.ceil(time * (16 if order == 1 else 4))
        errors = [np.linalg.norm(z(scheme(n)) - exact) for n in (steps, 2 * steps)]
        assert errors[1] > 1e-13
        assert abs(np.log2(errors[0] / errors[1]) - order) < slack


@settings(max_examples=12)
@given(
    seed=st.integers(0, 2**32 - 1),
    time=st.floats(0.1, 4),
    order=st.sampled_from([3, 5]),
    power=st.integers(2, 7),
)
def test_adaptive_steps_meet_the_tolerance(seed, time, order, power):
    weights, distances, offsets, _, _ = problem("box", np.float64, False, seed)
    tol = 10.0**-power
    exact = solve(weights, distances, offsets, time=time, integrator=RKMK4(200)).z
    found = solve(weights, distances, offsets, time=time, integrator=AdaptiveRKMK(tol, order))
    assert found.error <= tol * time
    # S has the Lipschitz constant 1/2 in osc, so what a step adds grows at most like exp(t / 2)
    assert osc(found.z - exact) <= tol * 2 * np.expm1(time / 2)


@pytest.mark.parametrize("order", [3, 5])
def test_errors_follow_the_tolerance(order):
    """Until W is decided; the pair of higher order needs fewer S."""
    weights, distances, offsets, _, _ = problem("box", np.float64)
    options = {"time": 12.0}
    exact = solve(weights, distances, offsets, integrator=RKMK4(1000), **options).z
    for tol in (1e-4, 1e-5, 1e-6):
        found = solve(weights, distances, offsets, integrator=AdaptiveRKMK(tol, order), **options)
        error = osc(found.z - exact)
        assert 1e-2 * tol < error < 20 * tol
        assert error < 3 * found.error
        if tol == 1e-6:
            other = AdaptiveRKMK(tol, 8 - order)
            more = solve(weights, distances, offsets, integrator=other, **options).matvecs
            assert (2 * found.matvecs < more) == (order == 5)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32 - 1),
    general=st.booleans(),
    name=st.sampled_from(CASES),
    scheme=st.sampled_from([GeometricEuler(20), RKMK4(6), AdaptiveRKMK(1e-2, 3)]),
)
def test_rows_stay_on_the_simplex(seed, general, name, scheme):
    weights, distances, offsets, w0, mask = problem(name, np.float64, general, seed)
    options = {"time": 30.0, "integrator": scheme}
    found = solve(weights, distances, offsets, w0=w0, **options)
    z, w = found.z, assignment(found.z, w0)
    np.testing.assert_allclose(z.sum(axis=0), 0, atol=1e-11)
    assert (w > 0).all()
    np.testing.assert_allclose(w.sum(axis=0), 1, atol=1e-14)
    if mask is not None:  # nothing happens beside the mask
        assert not z[:, ~mask].any()
    assert 0 <= found.entropy <= np.log(len(z))
    # constants of a pixel are nothing to the flow, and labels have no order
    shifted = distances + np.random.default_rng(seed).random(distances.shape[1:])
    moved = solve(weights, shifted, offsets, w0=w0, **options).z
    np.testing.assert_allclose(assignment(moved, w0), w, atol=1e-9)
    flipped = None if w0 is None else w0[::-1]
    turned = solve(weights, distances[::-1], offsets, w0=flipped, **options).z
    np.testing.assert_allclose(assignment(turned[::-1], w0), w, atol=1e-9)


def test_linearized_at_its_start_it_is_the_linearized_flow():
    """They part with T^3: both have Z' = Pi_0 S + A Z up to squares of Z."""
    weights, distances, offsets, w0, _ = problem("rings", np.float64, True)
    times = 2.0 ** -np.arange(3, 7)
    apart = [
        osc(
            solve(weights, distances, offsets, time=t, w0=w0, integrator=RKMK4(20)).z
            - solve(weights, distances, offsets, time=t, w0=w0, integrator=Taylor(1e-14)).z
        )
        for t in times
    ]
    np.testing.assert_allclose(np.log2(np.divide(apart[:-1], apart[1:])), 3, atol=0.25)


# Stopping and rounding


@pytest.mark.parametrize("scheme", [GeometricEuler(400), RKMK4(400), AdaptiveRKMK(1e-3, 3)])
@pytest.mark.parametrize("name", ["masked", "rings"])
def test_it_stops_at_the_first_step_of_small_entropy(name, scheme):
    weights, distances, offsets, w0, mask = problem(name, np.float64, True)
    given = {"time": 200.0, "w0": w0}
    until = dataclasses.replace(scheme, entropy=0.05)
    found = solve(weights, distances, offsets, integrator=until, **given)
    assert found.reason == "entropy"
    assert 0 < found.entropy <= 0.05
    assert found.entropy == pytest.approx(mo.entropy(assignment(found.z, w0), mask), abs=1e-12)
    if isinstance(scheme, AdaptiveRKMK):
        assert 0 < found.time < 200
        # its last step ends here: a time a little earlier is not enough
        before = found.time * 0.7
    else:
        assert found.time == pytest.approx(found.steps * 200 / 400)
        before = (found.steps - 1) * 200 / 400
        scheme = dataclasses.replace(scheme, steps=found.steps - 1)
    given["time"] = before
    earlier = solve(weights, distances, offsets, integrator=scheme, **given)
    assert earlier.reason == "time"
    assert earlier.entropy > 0.05


def test_entropy_and_rounding_on_lines():
    """The threshold that is usual leaves hardly a pixel undecided, and labels are those of W."""
    image, labels = voronoi.lines((48, 48), noise=0.3, cells=6)
    distances = np.stack([image, image - 1]) ** 2
    weights = stencil.uniform(BOX, image.shape)
    found = solve(weights, distances, BOX, time=1000.0, integrator=AdaptiveRKMK(1e-3, entropy=1e-3))
    assert (found.reason, found.entropy <= 1e-3) == ("entropy", True)
    w = assignment(found.z)
    assert (w.max(axis=0) > 0.99).mean() > 0.99
    rounded = rounding(found.z)
    np.testing.assert_array_equal(rounded, w.argmax(axis=0) + 1)
    assert (rounded - 1 != labels).mean() < 0.06


def test_rounding_looks_at_w():
    """At another W0 the largest Z alone is another label; the first of equals wins."""
    z, w0 = np.array([[0.0, 1.0], [0.5, 1.0]]), np.array([[0.8, 0.5], [0.2, 0.5]])
    np.testing.assert_array_equal(rounding(z), [2, 1])
    np.testing.assert_array_equal(rounding(z, w0), [1, 1])


def test_entropy_where_w_is_at_a_vertex():
    z = np.array([[0.0, 1000.0], [0.0, -1000.0]])
    assert mean_entropy(z, np.ones((1, 2))) == pytest.approx(np.log(2) / 2)
    assert mean_entropy(z, np.array([[1.0, 0.0]])) == pytest.approx(np.log(2))


# Single precision


@pytest.mark.parametrize("kernel", ["numpy", "numba"])
def test_single_precision(kernel):
    given = problem("15 labels", np.float64)[:3]
    small = [x.astype(np.float32) for x in given[:2]]
    for scheme in (GeometricEuler(20), RKMK4(10), AdaptiveRKMK(1e-3)):
        exact = solve(*given, integrator=scheme)
        found = solve(*small, given[2], integrator=scheme, kernel=kernel)
        assert found.z.dtype == np.float32
        np.testing.assert_allclose(found.z, exact.z, atol=2e-5)
    with pytest.raises(
        ValueError, match="tol must be 1e-05 or more with float32 arrays, got 1e-07"
    ):
        solve(*small, given[2], integrator=AdaptiveRKMK(1e-7))


def test_distances_that_are_no_numbers():
    weights, distances, offsets, _, _ = problem("box", np.float64)
    distances[0, 2, 3] = np.nan
    with pytest.raises(ValueError, match="expected finite weights and distances, got a flow of na"):
        solve(weights, distances, offsets, integrator=AdaptiveRKMK())


# Tiles

SCHEMES = {
    "geometric euler": GeometricEuler(8),
    "rkmk4": RKMK4(3),
    "sequence": LinearizedSequence(3, 1e-2),
}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("neighborhood", "tile"), [("3x3", 16), ("rings:3", 40)])
@pytest.mark.parametrize("masked", [False, True])
def test_tiles(scheme, neighborhood, tile, masked):
    """Bit for bit the whole image's labels and confidence."""
    rng = np.random.default_rng(1)
    image = rng.integers(0, 255, (3, 66, 75)).astype(np.uint8)
    options = {
        "classes": 3,
        "neighborhood": neighborhood,
        "integrator": SCHEMES[scheme],
        "mask": rng.random((66, 75)) > 0.3 if masked else None,
    }
    same(label(image, tile=tile, workers=2, confidence=True, **options), whole(image, **options))


@settings(max_examples=10)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    labels=st.sampled_from([2, 3, 8]),  # each is compiled
    scheme=st.sampled_from(sorted(SCHEMES)),
    seed=st.integers(0, 9),
)
def test_tiles_of_any_size(shape, labels, scheme, seed):
    p = np.random.default_rng(seed).dirichlet(np.ones(labels), shape).transpose(2, 0, 1)
    options = {"probabilities": p.astype(np.float32), "integrator": SCHEMES[scheme], "time": 2.0}
    image = np.zeros(shape, np.uint8)
    same(label(image, tile=16, confidence=True, **options), whole(image, **options))


def test_volumes_and_regions():
    image = np.random.default_rng(2).integers(0, 999, (12, 30, 35)).astype(np.uint16)
    for scheme in SCHEMES.values():
        options = {
            "classes": 2,
            "neighborhood": "3x3x3",
            "axes": "zyx",
            "time": 1.0,
            "integrator": scheme,
        }
        expected = whole(image, **options)
        same(label(image, tile=16, confidence=True, **options), expected)
        crop = (slice(3, 9), slice(11, 30), slice(0, 20))
        region = tuple((s.start, s.stop) for s in crop)
        found = label(image, region=region, tile=16, confidence=True, **options)
        same(found, [a[crop] for a in expected])


@pytest.mark.parametrize("scheme", [GeometricEuler(6), RKMK4(1), LinearizedSequence(2, 0.1)])
def test_halo_is_as_large_as_needed_and_no_larger(scheme):
    shape, edge, time = (150, 170), 48, 6.0
    settings = make_settings("3x3", 2, 1.0, time, scheme, "cpu")
    reach = settings.halo[0]
    p, image = points(shape, edge, reach), np.zeros(shape, np.uint8)
    options = {"probabilities": p, "time": time, "integrator": scheme}
    expected = whole(image, **options)
    same(label(image, tile=edge, confidence=True, **options), expected)
    given = images.from_array(p, "cyx")
    plan = make_plan(
        images.from_array(image),
        None,
        term=data_term(None, None, given, 0),
        probabilities=given,
        tile=edge,
        settings=settings,
        writing=Writing(confidence=True),
    )
    grid = dataclasses.replace(plan.job.grid, halo=(reach - 1,) * 2)
    job = dataclasses.replace(plan.job, grid=grid)
    short = [label_tile(job, tile).confidence for tile in grid]
    full = [expected[1][tile.core] for tile in grid]
    assert any((a != b).any() for a, b in zip(short, full, strict=True))


def test_lazy_arrays():
    import dask.array as da

    image = np.random.default_rng(3).integers(0, 255, (60, 70)).astype(np.uint8)
    options = {"classes": 3, "integrator": RKMK4(3)}
    lazy = label(da.from_array(image, (25, 40)), **options)
    np.testing.assert_array_equal(lazy.compute(scheduler="threads"), whole(image, **options)[0])


def test_whole_image_methods_are_refused_for_tiles():
    image = np.zeros((20, 20), np.uint8)
    for scheme, words in (
        (
            AdaptiveRKMK(),
            "AdaptiveRKMK chooses its steps by the whole image, which tiles do not "
            "have: use it with tiledlaf.solve, or take RKMK4 or GeometricEuler",
        ),
        (
            RKMK4(entropy=1e-3),
            "RKMK4 stops by the entropy of the whole image, which tiles do not "
            "have: use it with tiledlaf.solve, or leave out its entropy",
        ),
    ):
        with pytest.raises(ValueError, match=words):
            label(image, classes=2, integrator=scheme)


# The command line


@pytest.mark.parametrize(
    ("given", "scheme"),
    [
        (("geometric-euler", "--steps", "7"), GeometricEuler(7)),
        (("rkmk4",), RKMK4(10)),
        (("sequence", "--steps", "2", "--tol", "1e-2"), LinearizedSequence(2, 1e-2)),
    ],
)
def test_command_line(tmp_path, given, scheme):
    image = np.random.default_rng(4).integers(0, 255, (70, 80)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "image.tif", image)
    command = (
        "label",
        tmp_path / "image.tif",
        tmp_path / "out.zarr",
        "--classes",
        "3",
        "--time",
        "3",
        "--tile",
        "32",
        "--integrator",
        *given,
    )
    planned = run(*command, "--dry-run")
    assert planned.code == 0, planned
    reach = scheme.reach(3.0)
    assert f"halo: {reach} x {reach} pixels on each side: {reach} steps" in planned.out
    assert type(scheme).__name__ in planned.out
    found = run(*command)
    assert found.code == 0, found
    assert "proven labels: none (this integrator has no bound a pixel)" in found.out
    labels = np.asarray(nodes.open_array(str(tmp_path / "out.zarr"), "labels/tiledlaf/0")[:])
    expected = whole(image, classes=3, time=3.0, integrator=scheme)[0]
    np.testing.assert_array_equal(labels, expected)
    assert type(scheme).__name__ in run("info", tmp_path / "out.zarr").out


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GeometricEuler(0), "`steps` must be 1 or more, got 0"),
        (lambda: LinearizedSequence(0), "`steps` must be 1 or more, got 0"),
        (lambda: RKMK4(entropy=-1), "entropy must be 0 or a positive number, got -1"),
        (lambda: AdaptiveRKMK(0), "tol must be a positive number, got 0"),
        (lambda: AdaptiveRKMK(order=4), "order must be one of 3, 5, got 4"),
        (lambda: RKMK4().reach(-1), "time must be a positive number, got -1"),
        (lambda: make("rk"), "integrator must be one of taylor, krylov, euler, sequence, "),
        (lambda: make("taylor", steps=3), "`steps` belongs to the integrators euler, "),
        (lambda: make("rkmk4", dim=3), "`dim` belongs to the integrator krylov, got rkmk4"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_planes_of_the_oracle():
    """The oracle's own consistency: its geometric method of small steps is its flow."""
    weights, distances, offsets, _, _ = problem("box", np.float64)
    fine = mo.geometric(weights, distances, offsets, 2.0, 40, *CLASSICAL)
    np.testing.assert_allclose(fine, mo.nonlinear(weights, distances, offsets, 2.0), atol=1e-8)
    assert oracle.assignment(np.zeros((2, 1))).sum() == 1
