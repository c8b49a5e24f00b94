"""A model meets images of other types and ranges: scaled by a rule, taken as they are, refused."""

import dataclasses
import json

import numpy as np
import pytest

import tiledlaf
from tiledlaf.errors import InputError
from tiledlaf.files import images
from tiledlaf.files.image import FileWarning
from tiledlaf.model.arrays import convert
from tiledlaf.model.entries import ImagesEntry
from tiledlaf.model.intensity import far, joined, matched, quantiles, span
from tiledlaf.model.model import Images

LEARNED = {
    "uint8": Images(None, "uint8", (10.0, 240.0)),
    "uint16": Images(None, "uint16", (200.0, 4000.0)),
    "float32": Images(None, "float32", (0.0, 0.9)),
}


def gain(learned, dtype, highest):
    """The factor for an image of this type and highest intensity."""
    image = images.from_array(np.zeros((4, 5), dtype))
    sample = np.linspace(0, highest, 10001)[:, None].astype(dtype)
    return matched(image, LEARNED[learned], sample).gain


@pytest.mark.parametrize(
    ("learned", "dtype", "highest"),
    [("uint8", "uint8", 255), ("uint8", "uint8", 60), ("uint16", "uint16", 30000)],
)
def test_alike_images_are_taken_as_they_are(learned, dtype, highest):
    assert gain(learned, dtype, highest) is None


@pytest.mark.parametrize(
    ("learned", "dtype", "highest", "factor"),
    [
        ("uint8", "uint16", 240 * 257, 255 / 65535),
        ("uint8", "float32", 0.94, 255),
        ("float32", "uint8", 250, 1 / 255),
        ("uint8", "uint16", 200, None),
        ("uint8", "float64", 300, None),
    ],
)
def test_other_types_are_scaled_or_taken_with_a_word(learned, dtype, highest, factor):
    with pytest.warns(FileWarning, match=f"learned from {learned} pixels.*{dtype} ones"):
        found = gain(learned, dtype, highest)
    assert found == (factor if factor is None else pytest.approx(factor))


@pytest.mark.parametrize(
    ("learned", "dtype", "highest"),
    [
        ("uint8", "uint16", 4095),  # of a camera of 12 bits
        ("uint16", "uint16", 60000),
        ("uint16", "uint16", 15),
        ("uint16", "uint8", 255),
        ("float32", "float32", 255),
        ("float32", "float64", 255),
    ],
)
def test_what_is_not_clear_is_refused(learned, dtype, highest):
    with pytest.raises(InputError, match="`intensity_scale`") as found:
        gain(learned, dtype, highest)
    hinted = (learned, dtype) == ("uint8", "uint16")
    assert ("0.0625 where 12 bits are used" in str(found.value)) == hinted


def test_far_darker_images_get_a_word():
    with pytest.warns(FileWarning, match="far darker"):
        assert gain("uint16", "uint16", 300) is None


def test_what_the_user_states_counts():
    image = images.as_image(np.zeros((4, 5), np.uint16), intensity_scale=1.0)
    assert matched(image, LEARNED["uint8"], np.full((9, 1), 4095)).gain == 1.0


def test_a_blank_image_and_a_silent_model_change_nothing():
    image = images.from_array(np.zeros((4, 5), np.uint16))
    assert matched(image, LEARNED["uint8"], np.zeros((9, 1), np.uint16)).gain is None
    assert matched(image, LEARNED["uint8"], np.zeros((0, 1))).gain is None
    with pytest.warns(FileWarning, match="does not say"):
        assert matched(image, Images(), np.full((9, 1), 9)).gain is None


def test_spans():
    assert span(np.array([np.nan, np.inf])) is None
    assert span(np.r_[np.full(5000, 3.0), 9e9, np.nan]) == (3.0, 3.0)
    assert joined([None, (1.0, 4.0), (0.0, 2.0)]) == (0.0, 4.0)
    assert joined([None]) is None


def test_images_in_model_files_are_checked():
    entry = json.loads(json.dumps(dataclasses.asdict(LEARNED["uint8"])))
    assert Images.from_entry(convert(entry, ImagesEntry)) == LEARNED["uint8"]
    assert Images.from_entry(None) == Images()
    for entry in ({"pixel_size": [0, 1]}, {"range": [0, float("nan")]}):
        with pytest.raises(ValueError, match="Expected"):
            convert({"pixel_size": None, "range": None, "dtype": "uint8"} | entry, ImagesEntry)


# Far from all that was learned


def noise(middle, spread, seed=0, channels=1):
    return np.random.default_rng(seed).normal(middle, spread, (5000, channels))


def images_of(*samples, names=()):
    return Images(None, "uint8", (0, 255), names=names, quantiles=tuple(map(quantiles, samples)))


def test_images_within_what_training_images_differ_are_not_far():
    learned = images_of(*(noise(m, s, m) for m, s in ((90, 20), (100, 25), (110, 22), (95, 24))))
    for middle, spread in ((90, 20), (100, 22), (112, 25), (86, 21)):
        assert far(learned, noise(middle, spread, 9)) is None
    assert "its median is 180" in far(learned, np.rint(noise(180, 22, 9)))
    assert "spread" in far(learned, noise(100, 60, 9))
    assert "spread" in far(learned, noise(100, 2, 9))


def test_more_training_images_say_more():
    here = noise(118, 22, 9)
    one, many = [noise(100, 22)], [noise(100, 22, seed) for seed in range(9)]
    assert far(images_of(*one), here) is None
    assert "in those images" in far(images_of(*many), here)
    assert " to " not in far(images_of(*one), noise(190, 22))


def test_the_channel_is_named():
    learned = images_of(*(noise(100, 20, seed, 3) for seed in range(4)), names=("r", "g", "b"))
    here = noise(100, 20, 9, 3) + np.array([0, 80, 0])
    assert "in channel g" in far(learned, here)
    assert "in channel 1" in far(dataclasses.replace(learned, names=()), here)


def test_what_says_nothing_is_not_far():
    blank = np.full((100, 1), 7.0)
    assert far(Images(), noise(100, 20)) is None
    assert far(images_of(blank, blank), noise(100, 20)) is None
    assert far(images_of(noise(100, 20)), np.zeros((0, 1))) is None
    assert far(images_of(noise(100, 20)), noise(100, 20, channels=3)) is None


def test_quantiles_are_kept_and_may_lack():
    found = images_of(noise(100, 20), noise(90, 20))
    entry = json.loads(json.dumps(found.to_entry()))
    assert Images.from_entry(convert(entry, ImagesEntry)) == found
    assert "quantiles" not in Images(dtype="uint8").to_entry()
    with pytest.raises(InputError, match="quantiles"):
        convert(entry | {"quantiles": [[[1, 2, 3]]]}, ImagesEntry)


def test_labeling_says_that_an_image_is_far(tmp_path, recwarn):
    truth = np.repeat([[1, 2]], 32, axis=1).repeat(64, axis=0)
    rng = np.random.default_rng(0)

    def image(light=0.0, factor=1.0):
        values = factor * (60 * truth + light + rng.normal(0, 10, truth.shape))
        return values.clip(0, 255).astype(np.uint8)

    data = tiledlaf.Data(tiledlaf.pair([image() for _ in range(4)], [truth] * 4))
    with tiledlaf.open_pool(workers=1) as pool:
        model = tiledlaf.train(data, tiledlaf.Recipe(steps=1, predictor_size=4), pool)
    assert np.shape(model.images.quantiles) == (4, 1, 5)
    model.save(tmp_path / "m.model")
    found = tiledlaf.load(tmp_path / "m.model")
    assert found.images == model.images
    tiledlaf.label(image(), model=found)
    tiledlaf.label(image(3), model=found)
    scaled = np.round(image().astype(np.float64) / 255, 6)
    assert not [w for w in recwarn if "far from all" in str(w.message)]
    with pytest.warns(FileWarning, match="learned from uint8"):
        tiledlaf.label(scaled, model=found)
    for other, options in ((image(90), {}), (image(0, 0.4), {}), (image(), {"intensity_scale": 2})):
        with pytest.warns(FileWarning, match="far from all that the model learned from: its"):
            tiledlaf.label(other, model=found, **options)
