"""Calibrated confidence: fitted to known pixels, kept in models and checkpoints."""

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from models import make

from tiledlaf.errors import DamagedFile, InputError
from tiledlaf.model import arrays as model_arrays
from tiledlaf.model import calibration
from tiledlaf.model import model as model_file
from tiledlaf.model.calibration import Calibration

STEEP, FLAT = Calibration(1.7, -0.4), Calibration(0.3, 0.2)
BENT = Calibration(0.8, 0.1, ((0.0, -1.0), (1.0, -0.9), (2.0, 3.0), (6.0, 3.5)))


def drawn(known, pixels=50_000, seed=0):
    """Confidences, and whether these pixels are right, as a calibration says."""
    rng = np.random.default_rng(seed)
    given = (1 / (1 + np.exp(-rng.uniform(0, 12, pixels)))).astype(np.float32)
    return given, rng.random(pixels) < known.apply(given)


@pytest.mark.parametrize("known", [STEEP, FLAT, Calibration()])
def test_what_is_known_is_found(known):
    given, right = drawn(known)
    found = calibration.fit(given, right)
    assert found.slope == pytest.approx(known.slope, rel=0.1)
    assert found.offset == pytest.approx(known.offset, abs=0.1)
    assert calibration.expected_error(found.apply(given), right) < 0.01


def test_fit_is_the_most_likely():
    given, right = drawn(FLAT, 3000)
    found = dataclasses.replace(calibration.fit(given, right), bends=())

    def likely(one):
        p = one.apply(given).astype(float)
        return np.log(np.where(right, p, 1 - p)).sum()

    for slope, offset in itertools.product((-0.05, 0, 0.05), repeat=2):
        if slope or offset:
            other = Calibration(found.slope + slope, found.offset + offset)
            assert likely(other) < likely(found)


def test_bends_follow_what_a_line_does_not():
    given, right = drawn(BENT)
    found = calibration.fit(given, right)
    line = dataclasses.replace(found, bends=())
    assert calibration.expected_error(line.apply(given), right) > 0.03
    others, known = drawn(BENT, seed=1)
    assert calibration.expected_error(found.apply(others), known) < 0.01
    few = calibration.FEWEST * calibration.APART
    assert calibration.fit(given[: few - 1], right[: few - 1]).bends == ()
    assert calibration.fit(given[: 2 * few], right[: 2 * few]).bends


def test_pixels_of_one_confidence_share_a_bend():
    given, right = drawn(FLAT)
    given[:30_000] = 0.9
    found = calibration.fit(given, right)
    after = found.apply(given)
    assert np.ptp(after[:30_000]) == 0
    assert abs(after[0] - right[:30_000].mean()) < 0.02


@pytest.mark.parametrize("bends", [((0, 0), (0, 1)), ((0, 1), (1, 1)), ((0, 0), (2, 1), (1, 2))])
def test_what_breaks_the_order_is_refused(bends):
    with pytest.raises(InputError, match="keeps the order"):
        Calibration(1, 0, bends)
    with pytest.raises(InputError, match="keeps the order"):
        Calibration(0, 1)


@pytest.mark.parametrize("pixels", [1, 3, 1000])
@pytest.mark.parametrize("right", ["all", "none", "the unsure", "one by one"])
@pytest.mark.parametrize("given", [0.5, 0.9, 1.0, None])
def test_few_or_alike_pixels(pixels, right, given):
    confidences = np.full(pixels, given) if given else np.linspace(0.5, 1, pixels)
    known = {
        "all": np.ones(pixels, bool),
        "none": np.zeros(pixels, bool),
        "the unsure": confidences < 0.75,
        "one by one": np.arange(pixels) % 2 == 0,
    }[right]
    found = calibration.fit(confidences, known)
    assert calibration.FLATTEST <= found.slope <= calibration.STEEPEST
    assert np.isfinite(found.offset)
    before = np.float32(confidences)
    after = found.apply(before)
    assert ((after > 0) & (after <= 1)).all()
    assert (np.diff(after[np.argsort(before)]) >= 0).all()
    if pixels == 1:  # which says next to nothing
        assert abs(after - before) < 0.1
    if pixels == 1000 and right in ("all", "none"):
        assert abs(after - known).mean() < 0.03
        assert given == 1 or abs(after - known).min() > 1e-5


def test_no_pixels_are_refused():
    for given, right in (([], []), ([0.5], [True, False]), ([0.0], [True]), ([1.5], [True])):
        with pytest.raises(InputError, match="expected"):
            calibration.fit(np.array(given), np.array(right, bool))


def test_masked_pixels_stay_0_and_order_is_kept():
    bits = np.arange(np.float32(0.5).view(np.int32), np.float32(1).view(np.int32) + 1, 997)
    given = bits.astype(np.int32).view(np.float32)
    for known in (STEEP, FLAT, BENT, Calibration(100.0, 50.0), Calibration(0.01, -50.0)):
        found = known.apply(np.concatenate([np.zeros(1, np.float32), given]))
        assert found.dtype == np.float32
        assert found[0] == 0
        assert ((found[1:] > 0) & (found[1:] <= 1)).all()
        assert (np.diff(found[1:]) >= 0).all()


def test_parts_are_as_the_whole():
    given, _ = drawn(FLAT, 10_007)
    whole = BENT.apply(given)
    for start, stop, step in ((3, 10_000, 1), (5, 9_001, 7), (10_006, 10_007, 1)):
        part = given[start:stop:step]
        np.testing.assert_array_equal(BENT.apply(part), whole[start:stop:step])
    plane = given[:10_000].reshape(100, 100)
    np.testing.assert_array_equal(BENT.apply(plane), whole[:10_000].reshape(100, 100))


@pytest.mark.parametrize("known", [None, STEEP, FLAT, BENT, Calibration(0.01, -50.0)])
@pytest.mark.parametrize("probability", [1e-30, 0.3, 0.7, 0.95, 1.0])
def test_the_least_confidence(known, probability):
    found = calibration.least(known, probability)
    given = np.concatenate([drawn(FLAT, 5000)[0], np.float32([1, 1e-20])])
    near = np.nextafter(found, np.float32([0, 2]), dtype=np.float32)
    given = np.concatenate([given, [found], near])
    given = given[(given > 0) & (given <= 1)]
    after = given if known is None else known.apply(given)
    np.testing.assert_array_equal(given >= found, after >= np.float32(probability))


def test_bins_and_their_error():
    given = np.array([0.51, 0.53, 0.91, 0.97, 1.0])
    right = np.array([True, False, True, True, False])
    rows = calibration.bins(given, right, 10)
    assert rows == [[2, 0.52, 0.5], [3, 0.96, pytest.approx(2 / 3, abs=1e-6)]]
    error = 2 / 5 * 0.02 + 3 / 5 * (0.96 - 2 / 3)
    assert calibration.expected_error(given, right, 10) == pytest.approx(error, abs=1e-5)


def test_scores_with_biases():
    scores = np.array([[2.0, 0.0, -1.0], [0.0, 0.5, 0.0]])
    found, held = calibration.of_scores(scores, np.array([0, 2]))
    best = 1 / np.exp(scores - scores.max(axis=1, keepdims=True)).sum(axis=1)
    assert held["raw"] == calibration.bins(best, np.array([True, False]))
    assert found == calibration.fit(best.astype(np.float32), np.array([True, False]))


def test_halves_judge_each_other():
    """What is shown is not the error of the pixels that the calibration was fitted to."""
    given, right = drawn(FLAT, 4000)
    right[2000:] = ~right[2000:]  # of the first half, nothing follows for the second one
    odds = np.log(given.astype(float) / (1 - np.minimum(given, 0.9999999)))
    scores = np.stack([odds, np.zeros(len(odds))], axis=1)
    found, held = calibration.of_scores(scores, np.where(right, 0, 1))
    assert calibration.expected_error(found.apply(given), right) < 0.03
    assert calibration.error_of(held["calibrated"]) > 0.3
    assert sum(row[0] for row in held["calibrated"]) == 4000


def test_models_keep_it(tmp_path):
    plain = make("prototypes")
    whole = dataclasses.replace(plain, calibration=BENT)
    plain.save(tmp_path / "a.model")
    whole.save(tmp_path / "b.model")
    assert "calibration" not in json.loads(str(np.load(tmp_path / "a.model")["model"]))
    assert model_file.load(tmp_path / "a.model").calibration is None
    found = model_file.load(tmp_path / "b.model")
    assert found.calibration == BENT
    prints = {one.fingerprint() for one in (plain, whole, dataclasses.replace(plain))}
    assert len(prints) == 2
    assert found.fingerprint() == whole.fingerprint()


@pytest.mark.parametrize(
    "entry",
    [
        {"slope": 0, "offset": 1},
        {"slope": 1},
        {"slope": 1, "offset": 1, "bends": [[1]]},
        {"slope": 1, "offset": 1, "bends": [[1, 2], [0, 3]]},
        [1, 2],
        3,
    ],
)
def test_a_damaged_calibration_is_refused(tmp_path, entry):
    path = Path(tmp_path, "a.model")
    make("prototypes").save(path)
    held = model_arrays.read_arrays(path, "model")
    about = json.loads(str(held["model"])) | {"calibration": entry}
    model_arrays.write_arrays(path, held | {"model": np.array(json.dumps(about))})
    with pytest.raises(DamagedFile, match=r"calibration|keeps the order"):
        model_file.load(path)
