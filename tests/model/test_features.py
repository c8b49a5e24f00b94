import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from tiledlaf.model import features, filters
from tiledlaf.model.features import CONTEXT, MULTISCALE, PATCH, RICH, Features, log_odds

KINDS = [
    ("patch", 1, 1, 0),
    ("patch", 2, 3, 1.3),
    ("gaussian", 1.2),
    ("gradient", 1),
    ("hessian", 0.9),
    ("eigenvalues", 1.4),
    ("difference", 0.7, 2),
    ("structure", 0.8, 1.2),
    ("lines", 0.9, 1),
    ("lines", 0.7, 6),
    ("ring", 1, 0),
    ("ring", 4, 0.8),
    ("quartiles", 1, 0),
    ("quartiles", 4, 0.8),
]


def numbers(*shape, seed=0):
    """From tiny to huge: what a halo one too small lets in is noticed."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) * 10.0 ** rng.integers(-3, 4, shape)).astype(np.float32)


def cut(whole, core, radius):
    """The window of a core with its halo, and the core in the window."""
    window = [slice(max(c.start - radius, 0), c.stop + radius) for c in core]
    inner = [slice(c.start - w.start, c.stop - w.start) for c, w in zip(core, window, strict=True)]
    return whole[..., *window], tuple(inner)


@pytest.mark.parametrize("spec", KINDS, ids=str)
@settings(max_examples=25)
@given(data=st.data())
def test_a_window_has_the_bits_of_the_whole(spec, data):
    both = Features((("image", *spec), ("odds", *spec)))
    grid = data.draw(st.tuples(*[st.integers(1, 24)] * 2))
    depth = data.draw(st.sampled_from([(), (2,)]))
    core = []
    for n in grid:
        start = data.draw(st.integers(0, n - 1))
        core.append(slice(start, data.draw(st.integers(start + 1, n))))
    seed = data.draw(st.integers(0, 99))
    image, odds = (numbers(c, *depth, *grid, seed=seed + c) for c in (2, 1))
    whole = both.compute(image, odds)
    part, inner = cut(image, core, both.radius)
    window = both.compute(part, cut(odds, core, both.radius)[0])
    np.testing.assert_array_equal(window[..., *inner], whole[..., *core])


@pytest.mark.parametrize("spec", KINDS, ids=str)
def test_the_radius_is_the_least(spec):
    some = Features((("image", *spec),))
    image = np.zeros((1, 64, 64), np.float32)
    image[0, 32, 32] = 1e6
    y, x = np.nonzero(some.compute(image).any(axis=0))
    assert y.max() - 32 == 32 - y.min() == x.max() - 32 == 32 - x.min() == some.radius


def mirrored(plane, y, x):
    """The plane's value at any place, the border pixel being its own mirror."""
    place = []
    for i, n in zip((y, x), plane.shape, strict=True):
        while n > 1 and not 0 <= i < n:
            i = -i if i < 0 else 2 * (n - 1) - i
        place.append(i if n > 1 else 0)
    return plane[tuple(place)]


@settings(max_examples=30)
@given(
    grid=st.tuples(*[st.integers(1, 9)] * 2),
    radius=st.integers(0, 2),
    dilation=st.integers(1, 5),
    seed=st.integers(0, 9),
)
def test_patches(grid, radius, dilation, seed):
    plane = numbers(*grid, seed=seed)
    patch = Features((("image", "patch", radius, dilation, 0),)).compute(plane[None])
    steps = [dilation * step for step in range(-radius, radius + 1)]
    offsets = [(y, x) for y in steps for x in steps]
    for feature, (dy, dx) in zip(patch, offsets, strict=True):
        for y, x in np.ndindex(grid):
            assert feature[y, x] == mirrored(plane, y + dy, x + dx)


@pytest.mark.parametrize("grid", [(13, 17), (2, 3), (1, 6), (1, 1)])
def test_filters_are_those_of_scipy(grid):
    plane = numbers(*grid)
    image = plane[None]

    def one(*spec):
        return Features((("image", *spec),)).compute(image)

    def gauss(sigma):
        return ndimage.gaussian_filter(
            plane.astype(float), sigma, mode="mirror", radius=features.blur_radius(sigma)
        )

    def second(g, *kernel):
        return ndimage.correlate(g, np.array(kernel), mode="mirror")

    g = gauss(1.5)
    close = {"rtol": 1e-5, "atol": 1e-3}
    np.testing.assert_allclose(one("gaussian", 1.5)[0], g, **close)
    np.testing.assert_allclose(one("difference", 1.5, 3)[0], g - gauss(3), **close)
    gy, gx = (ndimage.correlate1d(g, [-0.5, 0, 0.5], axis, mode="mirror") for axis in (0, 1))
    np.testing.assert_allclose(one("gradient", 1.5)[0], np.hypot(gy, gx), **close)
    xx, yy = (ndimage.correlate1d(g, [1, -2, 1], axis, mode="mirror") for axis in (1, 0))
    xy = second(g, [0.25, 0, -0.25], [0, 0, 0], [-0.25, 0, 0.25])
    np.testing.assert_allclose(one("hessian", 1.5), [xx, xy, yy], **close)
    matrix = np.moveaxis(np.array([[xx, xy], [xy, yy]]), (0, 1), (-2, -1))
    values = np.moveaxis(np.linalg.eigvalsh(matrix), -1, 0)[::-1]
    np.testing.assert_allclose(one("eigenvalues", 1.5), values, **close)


DIRECTIONS = [(np.sin(angle), np.cos(angle)) for angle in np.arange(8) * np.pi / 8]


def close_to_scipy(plane, *spec):
    """A feature's planes, and g found by SciPy with a border wide enough to look like the whole."""
    found = Features((("image", *spec),)).compute(plane[None])
    edge = 40
    wide = np.pad(plane.astype(float), edge, mode="reflect")
    inner = (slice(edge, -edge),) * 2
    return found, lambda sigma: ndimage.gaussian_filter(wide, sigma, truncate=3), inner


@pytest.mark.parametrize("grid", [(13, 17), (2, 3), (1, 6), (1, 1)])
def test_structure_tensor_is_that_of_scikit_image(grid):
    from skimage.feature import structure_tensor_eigenvalues

    found, gauss, inner = close_to_scipy(numbers(*grid), "structure", 1, 2)
    g = gauss(1)
    y, x = (ndimage.correlate1d(g, [-0.5, 0, 0.5], axis) for axis in (0, 1))
    tensor = [ndimage.gaussian_filter(p, 2, truncate=3) for p in (y * y, y * x, x * x)]
    values = structure_tensor_eigenvalues(np.array(tensor))[:, *inner]
    np.testing.assert_allclose(found**2, values, rtol=1e-4, atol=1e-6 * values.max())


@pytest.mark.parametrize("grid", [(13, 17), (2, 3), (1, 6), (1, 1)])
@pytest.mark.parametrize("length", [1, 5, 8])
def test_lines_are_sums_of_oriented_kernels(grid, length):
    """Each of the eight as one dense kernel: nine points, and across them a second difference."""
    found, gauss, inner = close_to_scipy(numbers(*grid), "lines", 1, length)
    xx, yy = (ndimage.correlate1d(gauss(1), [1, -2, 1], axis) for axis in (1, 0))
    xy = ndimage.correlate(gauss(1), np.array([[0.25, 0, -0.25], [0, 0, 0], [-0.25, 0, 0.25]]))
    expected = []
    for y, x in DIRECTIONS:
        kernel = np.zeros((2 * length + 3,) * 2)
        for a in (-1, 0, 1):
            for b in (-1, 0, 1):
                steps = [(round(a * length * s / 4), round(b * length * s * 3 / 4)) for s in (y, x)]
                kernel[tuple(length + 1 + sum(step) for step in steps)] += 1 / 9
        second = y * y * xx - 2 * x * y * xy + x * x * yy
        expected.append(ndimage.correlate(second, kernel)[inner])
    close = {"rtol": 1e-4, "atol": 1e-6 * np.abs(expected).max()}
    np.testing.assert_allclose(found[0], np.max(expected, axis=0), **close)
    np.testing.assert_allclose(found[1], np.min(expected, axis=0), **close)


@pytest.mark.parametrize("grid", [(13, 17), (2, 3), (1, 6), (1, 1)])
@pytest.mark.parametrize(("distance", "count"), [(1, 8), (2, 16), (9, 16)])
def test_rings_are_means_and_deviations(grid, distance, count):
    found, gauss, inner = close_to_scipy(numbers(*grid), "ring", distance, 1.5)
    steps = np.arange(16) * np.pi / 8
    points = {(round(distance * np.sin(t)), round(distance * np.cos(t))) for t in steps}
    assert len(points) == count
    values = [np.roll(gauss(1.5), point, (0, 1))[inner] for point in points]
    close = {"rtol": 1e-4, "atol": 1e-6 * np.abs(values).max()}
    np.testing.assert_allclose(found[0], np.mean(values, axis=0), **close)
    np.testing.assert_allclose(found[1], np.std(values, axis=0), **close)


@pytest.mark.parametrize(("distance", "ranks"), [(1, [0, 2, 4, 5, 7]), (5, [0, 4, 8, 11, 15])])
def test_quartiles_are_of_values_on_a_ring(distance, ranks):
    found, gauss, inner = close_to_scipy(numbers(13, 17), "quartiles", distance, 1.5)
    values = [np.roll(gauss(1.5), point, (0, 1))[inner] for point in filters.circle(distance)]
    expected = np.sort(values, axis=0)[ranks]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6 * np.abs(values).max())


@pytest.mark.parametrize("count", range(1, 18))
def test_sorting_networks(count):
    """Sort all that is below a threshold or not, and so all numbers."""
    everything = np.array(np.unravel_index(np.arange(2 ** min(count, 16)), (2,) * min(count, 16)))
    rows = np.vstack([everything, everything[: count - len(everything)]])
    for low, high in filters.sorting_network(count):
        assert low < high
        rows[[low, high]] = np.sort(rows[[low, high]], axis=0)
    assert (np.diff(rows, axis=0) >= 0).all()


@pytest.mark.parametrize("spec", [k for k in KINDS if k[0] != "patch" and k[0] != "hessian"])
def test_turned_images_have_turned_features(spec):
    """By right angles, and mirrored; what is summed up in another order may differ by rounding."""
    some = Features((("image", *spec),))
    image = numbers(1, 24, 30)
    expected = some.compute(image)
    close = {"rtol": 1e-4, "atol": 1e-5 * np.abs(expected).max()}
    for times in range(4):
        for ways in (1, -1):
            other = np.rot90(image, times, (1, 2))[:, :, ::ways]
            turned = np.rot90(expected, times, (1, 2))[:, :, ::ways]
            np.testing.assert_allclose(some.compute(other), turned, **close)


def test_what_the_richer_kinds_tell_apart():
    """A line is smooth along itself, a corner nowhere; only a line is crossed by a bent second."""
    y, x = np.mgrid[:41, :41] - 20
    line = np.exp(-((x * 0.8 - y * 0.6) ** 2) / 4)
    spot = np.exp(-(x * x + y * y) / 4)
    some = Features(
        (("image", "structure", 1, 3), ("image", "lines", 1, 8), ("image", "ring", 6, 1))
    )
    along, dot = (some.compute(image[None])[:, 20, 20] for image in (line, spot))
    assert along[1] < 0.1 * along[0]
    assert dot[1] > 0.9 * dot[0]
    assert along[3] < 3 * dot[3] < 0
    assert along[5] > 0.2 > 0.01 > dot[5]


def test_no_root_of_what_rounding_makes_negative():
    """A ramp has one direction alone: its smaller eigenvalue is 0, or a rounding error."""
    y, x = np.mgrid[:40, :40]
    some = Features((("image", "structure", 1, 2),))
    for steep in np.linspace(0.1, 0.9, 9):
        found = some.compute((steep * x + (1 - steep**2) ** 0.5 * y)[None])
        assert np.isfinite(found).all()


@pytest.mark.parametrize("spec", [("structure", 1, 2), ("ring", 3, 1)])
def test_a_level_far_from_zero_hides_no_contrast(spec):
    image = np.random.default_rng(3).integers(0, 9, (1, 32, 32)).astype(np.float32)
    some = Features((("image", *spec),))
    low, high = (some.compute(image + level)[1] for level in (0, 30000))
    np.testing.assert_allclose(high, low, rtol=0.05, atol=0.02)


def test_order_and_count():
    several = Features(
        (("odds", "gaussian", 1), ("image", "patch", 1, 1, 0), ("odds", "hessian", 1))
    )
    image, odds = numbers(2, 7, 8), numbers(3, 7, 8, seed=1)
    out = several.compute(image, odds)
    assert len(out) == several.count(2, 3) == 3 + 18 + 9
    assert out.dtype == np.float32
    assert out.flags.c_contiguous
    np.testing.assert_array_equal(out[3 + 4], image[0])
    np.testing.assert_array_equal(out[3 + 9 + 4], image[1])
    alone = Features((("odds", "hessian", 1),)).compute(None, odds[2:])
    np.testing.assert_array_equal(out[-3:], alone)
    assert several.needs("image")
    assert not PATCH.needs("odds")


def test_the_mean_of_the_channels():
    image, odds = numbers(3, 8, 9), numbers(1, 8, 9)
    given = Features((("image", "gaussian", 1), ("odds", "hessian", 1), ("image", "ring", 2, 0)))
    found = given.of_mean()
    assert found.specs[0] == ("mean", "gaussian", 1.0)
    assert found.count(3, 1) == given.count(1, 1)
    assert found.needs("image")
    out = found.compute(image, odds)
    mean = (image[0].astype(np.float32) + image[1] + image[2])[None] * np.float32(1 / 3)
    np.testing.assert_array_equal(out, given.compute(mean, odds))
    assert found.specs[1] == given.specs[1]
    one = np.ones((1, 1, 1)) * [[[0.1]], [[0.2]], [[0.7]]]  # a single pixel is summed alike
    wide = np.broadcast_to(one, (3, 4, 5))
    kind = Features((("mean", "patch", 0, 1, 0),))
    np.testing.assert_array_equal(kind.compute(wide)[:, :1, :1], kind.compute(one))


def test_planes_of_a_stack_do_not_touch():
    stack = numbers(1, 3, 9, 9)
    out = RICH.compute(stack)
    for z in range(3):
        np.testing.assert_array_equal(out[:, z], RICH.compute(stack[:, z]))


def test_richer_features_need_no_wider_halo():
    assert RICH.radius == MULTISCALE.radius
    assert RICH.count(1, 0) == MULTISCALE.count(1, 0) + 16


def test_any_type_of_image():
    image = np.random.default_rng(0).integers(0, 65536, (1, 9, 9)).astype(np.uint16)
    expected = PATCH.compute(image.astype(np.float32))
    np.testing.assert_array_equal(PATCH.compute(image), expected)
    np.testing.assert_array_equal(PATCH.compute(image.astype(float)[:, ::1]), expected)


def test_shared_blurs_are_computed_once(monkeypatch):
    calls = []
    real = filters.smoothed

    def counted(plane, sigma):
        calls.append(sigma)
        return real(plane, sigma)

    monkeypatch.setattr(filters, "smoothed", counted)
    CONTEXT.compute(numbers(1, 8, 8), numbers(1, 8, 8))
    assert sorted(calls) == [1.5, 1.5, 3, 6]


@pytest.mark.parametrize("sigma", [0.3, 1, 4.2])
def test_gaussians_are_summed_in_float64(sigma):
    """Columns before rows, and rounded to float32 after each: the bits that earlier models had."""
    plane = numbers(11, 14)
    expected, radius, weights = plane, features.blur_radius(sigma), filters.gaussian(sigma)
    for axis in (0, 1):
        edges = [(0, 0), (0, 0)]
        edges[axis] = (radius, radius)
        wide = np.pad(expected.astype(float), edges, mode="reflect").swapaxes(0, axis)
        count = plane.shape[axis]
        total = wide[radius : radius + count] * weights[0]
        for far in range(radius, 0, -1):
            pair = wide[radius - far :][:count] + wide[radius + far :][:count]
            total += pair * weights[far]
        expected = total.swapaxes(0, axis).astype(np.float32)
    found = Features((("image", "gaussian", sigma),)).compute(plane[None])
    np.testing.assert_array_equal(found[0], expected)


@pytest.mark.parametrize("preset", [PATCH, CONTEXT, MULTISCALE, RICH])
def test_a_list_for_json(preset):
    assert Features.from_list(json.loads(json.dumps(preset.to_list()))) == preset


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "one or more features, got none"),
        ({}, "expected a list of features"),
        (["patch"], "expected a feature as"),
        ([["image"]], "expected a feature as"),
        ([["depth", "gaussian", 1]], "source must be one of image, mean, odds, got 'depth'"),
        ([[["image"], "gaussian", 1]], "source must be one of image, mean, odds"),
        ([["image", "median", 1]], "must be one of patch, .*, got 'median'"),
        ([["image", ["gaussian"], 1]], "must be one of patch, "),
        ([["image", "gaussian"]], r"gaussian needs sigma, got \[\]"),
        ([["image", "gaussian", 0]], "a sigma above 0 and up to 1024, got 0"),
        ([["image", "gaussian", float("nan")]], "got nan"),
        ([["image", "gaussian", 10**400]], "up to 1024, got 1000"),
        ([["image", "gaussian", True]], "got True"),
        ([["image", "gaussian", 400]], "may reach 1024 pixels, got 1200"),
        ([["image", "patch", 1.5, 1, 0]], "an integer radius from 0 up to 1024, got 1.5"),
        ([["image", "patch", 1, 0, 0]], "an integer dilation from 1"),
        ([["image", "patch", 1, 1, -1]], "a sigma .*, got -1"),
    ],
)
def test_refusals(rows, message):
    with pytest.raises(ValueError, match=message) as error:
        Features.from_list(rows)
    assert "\n" not in str(error.value)


def test_refused_sources():
    with pytest.raises(ValueError, match="expected odds, which the features need, got None"):
        CONTEXT.compute(numbers(1, 5, 5))
    with pytest.raises(ValueError, match="on one grid"):
        CONTEXT.compute(numbers(1, 5, 5), numbers(1, 5, 6))
    with pytest.raises(ValueError, match=r"\(planes, y, x\) or .*, got shape \(5, 5\)"):
        PATCH.compute(numbers(5, 5))


@settings(max_examples=20)
@given(classes=st.integers(2, 20), seed=st.integers(0, 9))
def test_log_odds(classes, seed):
    q = numbers(classes, 3, 2, seed=seed)
    odds = log_odds(q)
    if classes == 2:
        np.testing.assert_array_equal(odds, [q[0] - q[1]])
    else:
        np.testing.assert_allclose(odds, q - q.astype(float).mean(axis=0), rtol=1e-4, atol=1e-2)
    # a grid of one pixel must not be added up in another order
    np.testing.assert_array_equal(log_odds(q[:, 1:2, 1:2]), odds[:, 1:2, 1:2])
