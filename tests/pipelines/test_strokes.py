"""Strokes: within their class, as many as asked for, the same for a seed, and drawn as strokes."""

import numpy as np
import pytest
from scipy import ndimage
from support import strokes


@pytest.fixture(scope="module")
def truth():
    """A wavy band of 1 in 2; a corner is not labeled."""
    y, x = np.mgrid[:120, :160]
    found = np.where(abs(y - 60 - 20 * np.sin(x / 15)) < 6, 1, 2).astype(np.uint8)
    found[:10, :10] = 0
    return found


@pytest.mark.parametrize("share", [0.002, 0.015, 0.1])
@pytest.mark.parametrize("equal", [True, False])
def test_pixels_are_as_many_as_asked_for(truth, share, equal):
    found = strokes.draw(truth, share, equal, 0)
    assert (found[found > 0] == truth[found > 0]).all()
    counts, all_ = np.bincount(found.ravel())[1:], np.bincount(truth.ravel())[1:]
    parts = np.array([0.5, 0.5]) if equal else all_ / all_.sum()
    assert np.abs(counts - share * all_.sum() * parts).max() <= 0.5


def test_a_seed_decides(truth):
    first, again, other = (strokes.draw(truth, 0.05, True, [seed, 3]) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_they_are_short_curves():
    plain = np.full((300, 300), 2, np.uint8)
    found = strokes.draw(plain, 0.02, False, 0) == 2
    parts, count = ndimage.label(found, np.ones((3, 3)))
    assert count > 5
    # as long as a walk and its pen where two do not cross, and longer than a walk without a course
    boxes = [max(s.stop - s.start for s in box) for box in ndimage.find_objects(parts)]
    assert 20 < np.median(boxes) < 65
    # a few pixels wide: erosion by a pen that is wider leaves nothing of most
    assert ndimage.binary_erosion(found, np.ones((7, 7))).sum() < 0.05 * found.sum()


def test_rare_classes_have_a_pixel_and_keep_some():
    truth = np.full((40, 40), 2, np.uint8)
    truth[5, 5:15] = 1
    counts = np.bincount(strokes.draw(truth, 0.002, False, 0).ravel(), minlength=3)
    assert counts[1:].tolist() == [1, 3]
    assert np.bincount(strokes.draw(truth, 0.5, True, 0).ravel())[1:].tolist() == [9, 400]
