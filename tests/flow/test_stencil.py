import itertools
import math

import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiledlaf.flow import stencil


def test_named_neighborhoods():
    assert stencil.parse("3x3", 2) == stencil.box(3, 3)
    assert len(stencil.parse("5x5", 2)) == 25
    assert len(stencil.parse("3x3x3", 3)) == 27
    rings = stencil.parse("rings:3,7", 2)
    assert len(rings) == 25
    assert stencil.radius(rings) == (7, 7)
    assert {(3, -3), (0, 7), (-7, 0)} < set(rings)
    assert (3, 1) not in rings


def test_planes_of_a_stack_do_not_touch():
    offsets = stencil.parse("3x3", 3)
    assert stencil.radius(offsets) == (0, 1, 1)


def test_a_file_of_offsets(tmp_path):
    file = tmp_path / "offsets.txt"
    file.write_text("# y x\n0 0\n0, 2\n-1 0\n")
    assert stencil.parse(str(file), 2) == ((0, 0), (0, 2), (-1, 0))


@pytest.mark.parametrize(
    ("text", "ndim", "message"),
    [
        ("4x3", 2, "odd edges, got 4x3"),
        ("99999x99999", 2, "at most 10000 offsets, got 99999x99999"),
        ("9" * 5000 + "x3", 2, "neighborhood must be like 3x3"),
        ("big", 2, "must be like 3x3"),
        ("3x3x3", 2, "3-D neighborhood does not fit an image with 2"),
        ("rings:1", 2, "distances of 2 or more"),
        ("rings:3,3", 2, "different distances"),
    ],
)
def test_refusals(text, ndim, message):
    with pytest.raises(ValueError, match=message):
        stencil.parse(text, ndim)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("1 0\n0 1\n", "offset 0"),
        ("0 0\n0 0\n", "no offset twice"),
        ("0 0\n1\n", "all have"),
        ("0 a\n", "integer offsets"),
        ("", "all have"),
    ],
)
def test_files_refused(tmp_path, rows, message):
    file = tmp_path / "offsets.txt"
    file.write_text(rows)
    with pytest.raises(ValueError, match=message):
        stencil.parse(str(file), 2)


@given(
    sizes=st.lists(st.integers(1, 60), min_size=2, max_size=3),
    distance=st.integers(1, 200),
)
def test_a_ball_has_exactly_what_is_near(sizes, distance):
    far = [distance // size for size in sizes]
    box = itertools.product(*(range(-f - 2, f + 3) for f in far))
    near = {
        o for o in box if sum((a * s) ** 2 for a, s in zip(o, sizes, strict=True)) <= distance**2
    }
    if not any(far) or len(near) > stencil.MOST:
        with pytest.raises(ValueError, match=r"a ball (needs a distance|has at most 10000)"):
            stencil.ball(distance, sizes)
        return
    # fractions that floating point does not hold, as pixel sizes are
    found = stencil.ball(distance * 0.1, [size * 0.1 for size in sizes])
    assert len(found) == len(near)
    assert set(found) == near == {tuple(-o for o in offset) for offset in found}
    assert list(found) == sorted(found)
    assert stencil.fit(found, len(sizes)) == found


def test_balls_of_cubes_are_known_boxes():
    assert stencil.ball(1.5, (1, 1)) == stencil.box(3, 3)
    assert stencil.ball(1.75, (1, 1, 1)) == stencil.box(3, 3, 3)
    assert stencil.ball(3, (2, 2)) == stencil.box(3, 3)
    assert stencil.ball(3, (9, 2, 2)) == stencil.parse("3x3", 3)
    assert len(stencil.ball(1, (1, 1, 1))) == 7
    # both sides and their diagonal, of numbers that round differently
    assert stencil.radius(stencil.ball(0.3, (0.1, 0.1))) == (3, 3)


@pytest.mark.parametrize(
    ("distance", "sizes", "message"),
    [
        (0, (1, 1), "positive lengths"),
        (-1, (1, 1), "positive lengths"),
        (math.nan, (1, 1), "positive lengths"),
        (math.inf, (1, 1), "positive lengths"),
        (1, (1, 0), "positive lengths"),
        (1, (1, math.nan), "positive lengths"),
        ("far", (1, 1), "positive numbers"),
        (0.9, (1, 2), "a distance of a pixel or more, got 0.9 for pixels of 1 x 2"),
        (60, (1, 1), "at most 10000 offsets, got 60 "),
        (1e300, (1e-3, 1), "at most 10000 offsets"),
    ],
)
def test_balls_refused(distance, sizes, message):
    with pytest.raises(ValueError, match=message):
        stencil.ball(distance, sizes)


@settings(max_examples=40)
@given(
    grid=st.one_of(st.tuples(*[st.integers(1, 6)] * 2), st.tuples(*[st.integers(1, 4)] * 3)),
    masked=st.booleans(),
    rings=st.booleans(),
    seed=st.integers(0, 99),
)
def test_uniform_weights(grid, masked, rings, seed):
    offsets = stencil.fit(stencil.rings(2, 5) if rings else stencil.box(3, 3), len(grid))
    mask = np.random.default_rng(seed).random(grid) > 0.4 if masked else None
    expected = oracle.uniform_weights(offsets, grid, mask)
    np.testing.assert_allclose(stencil.uniform(offsets, grid, mask), expected, rtol=1e-6)
