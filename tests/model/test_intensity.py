"""A model meets images of other types and ranges: scaled by a rule, taken as they are, refused."""

import dataclasses
import json

import numpy as np
import pytest

from tiledlaf.errors import InputError
from tiledlaf.files import images
from tiledlaf.files.image import FileWarning
from tiledlaf.model.arrays import convert
from tiledlaf.model.entries import ImagesEntry
from tiledlaf.model.intensity import joined, matched, span
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
