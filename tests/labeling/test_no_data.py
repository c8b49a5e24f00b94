"""Pixels without data are left out as masked ones are; values that no label can come from."""

import re
import warnings

import dask.array as da
import models
import numpy as np
import pytest
import zarr
from command import run
from tiling import same

import tiledlaf
from tiledlaf.files.image import FileWarning
from tiledlaf.labeling.request import label

RNG = np.random.default_rng(0)
SHAPE = (60, 70)
HOLE = np.zeros(SHAPE, bool)
HOLE[:, 40:], HOLE[20:30, 5:12] = True, True
LEAST = float(np.finfo(np.float32).min)
PROTOTYPES = [[0.2], [0.8]]


def image(value, dtype="f4"):
    found = RNG.random(SHAPE).astype(dtype)
    found[HOLE] = value
    return found


@pytest.mark.parametrize("options", [{"classes": 2}, {"prototypes": PROTOTYPES}])
@pytest.mark.parametrize(
    ("value", "dtype"),
    [(np.nan, "f4"), (-9999.0, "f8"), (LEAST, "f4"), (-0.5, "f2"), (np.inf, "f4")],
)
def test_no_data_is_left_out_as_what_is_masked(value, dtype, options):
    pixels = image(value, dtype)
    options = {**options, "confidence": True}
    masked = label(pixels, mask=~HOLE, **options)
    assert ((masked[0] == 0) == HOLE).all()
    same(label(pixels, no_data=value, **options), masked)
    for tile in (16, 33):
        same(label(pixels, no_data=value, tile=tile, **options), masked)
    lazy = label(da.from_array(pixels, chunks=(32, 32)), no_data=value, **options)
    same([part.compute() for part in lazy], masked)
    # with a mask besides
    mask = RNG.random(SHAPE) > 0.2
    both = label(pixels, mask=mask & ~HOLE, **options)
    same(label(pixels, mask=mask, no_data=value, tile=16, **options), both)


def test_no_data_of_several_channels():
    """A number must be that of all channels; NaN in one of them is enough."""
    pixels = RNG.integers(0, 256, (*SHAPE, 3), dtype=np.uint8)
    pixels[0, :40, 0] = 255
    pixels[1, :40] = 255
    found = label(pixels, classes=2, no_data=255)
    assert (found[1, :40] == 0).all()
    assert (found[0, :30] > 0).any()
    pixels = pixels.astype(np.float32)
    pixels[2, 3, 1] = np.nan
    found = label(pixels, classes=2, no_data=np.nan)
    assert np.argwhere(found == 0).tolist() == [[2, 3]]
    # only the channels that are used
    assert (label(pixels, classes=2, channels=(0,), no_data=np.nan) > 0).all()


@pytest.mark.filterwarnings("ignore:.*does not say from which:tiledlaf.files.image.FileWarning")
@pytest.mark.parametrize("kind", ["prototypes", "classifier"])
def test_models_with_features(kind):
    """Filters take the same values near what has no data as near what is masked."""
    pixels, found = image(np.nan), models.make(kind)
    options = {"model": found, "confidence": True, "intensity_scale": 1}
    masked = label(pixels, mask=~HOLE, **options)
    same(label(pixels, no_data=np.nan, tile=16, **options), masked)
    large = np.where(HOLE, np.float32(LEAST), pixels)
    same(label(large, no_data=LEAST, **options), masked)


def test_probabilities_where_the_image_has_no_data():
    p = RNG.dirichlet([1, 1], SHAPE).transpose(2, 0, 1).astype(np.float32)
    found = label(image(np.nan), probabilities=p, no_data=np.nan, tile=16)
    np.testing.assert_array_equal(found, label(np.zeros(SHAPE), probabilities=p, mask=~HOLE))
    lazy = label(da.from_array(image(np.nan)), probabilities=da.from_array(p), no_data=np.nan)
    np.testing.assert_array_equal(lazy.compute(), found)


def test_tiles_without_data_are_skipped_and_runs_with_another_value_differ(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pixels = image(np.nan)
    zarr.save_array("image.zarr", pixels)
    start = ("label", "image.zarr", "out.zarr", "--classes", 2, "--tile", 16)
    given = (*start, "--no-data", "nan", "--no-image")
    found = run(*given)
    assert found.code == 0, found
    assert "12 done, 8 skipped, 0 failed" in found.out
    labels = zarr.open_array("out.zarr/labels/tiledlaf/0", mode="r")[:]
    np.testing.assert_array_equal(labels, label(pixels, classes=2, mask=~HOLE))
    assert "12 done, 8 skipped" in run(*given).out
    assert run("status", "out.zarr").code == 0
    other = run(*start, "--no-image", "--no-data", -9999)
    assert other.code == 2
    assert "no_data" in other.err
    assert run(*given, "--name", "again", "--dry-run").code == 0
    # the image is copied whole, as it is where masked
    assert run(*start[:2], "copy.zarr", *start[3:], "--no-data", "nan").code == 0
    np.testing.assert_array_equal(zarr.open_array("copy.zarr/0", mode="r")[:], pixels)


def test_outputs_of_earlier_versions_are_resumed():
    """Without a value the settings, and so their fingerprint, are as they were."""
    from tiledlaf.labeling.request import prepare

    settings = prepare(image(0), prototypes=PROTOTYPES).settings
    assert "no_data" not in settings
    assert "fixed" not in settings


@pytest.mark.parametrize(
    ("dtype", "value", "text"),
    [
        ("u1", 256, "expected `no_data` to be a value of the type uint8, got 256"),
        ("u1", 0.5, "type uint8, got 0.5"),
        ("u1", np.nan, "type uint8, got nan"),
        ("i2", -32769, "type int16, got -32769"),
        ("f4", 1e39, r"type float32, got 1e\+39"),
        ("f4", -1e39, r"type float32, got -1e\+39"),
        ("?", 2, "type bool, got 2"),
    ],
)
def test_values_that_the_image_cannot_have(dtype, value, text):
    with pytest.raises(ValueError, match=text):
        label(np.zeros(SHAPE, dtype), prototypes=PROTOTYPES, no_data=value)


def test_large_whole_numbers_are_exact():
    pixels = np.full(SHAPE, 2**63 - 1, np.int64)
    pixels[10:], pixels[20:] = 5, 90
    found = label(pixels, prototypes=[[5.0], [90.0]], no_data=2**63 - 1)
    assert [*np.unique(found[:10]), *np.unique(found[10:])] == [0, 1, 2]


@pytest.mark.parametrize("text", ["much", "", "1,2"])
def test_what_is_no_number(tmp_path, text):
    np.save(tmp_path / "a.npy", image(0))
    found = run("label", tmp_path / "a.npy", tmp_path / "out", "--classes", 2, "--no-data", text)
    assert found.code == 2
    assert "--no-data expects a number or nan" in found.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.nan, r"got 1994 NaN or inf, .* pixel \(0, 40\) .*by --mask or --no-data nan"),
        (-np.inf, r"got 1994 NaN or inf, .* pixel \(0, 40\)"),
        (1e38, r"got 1994 larger ones, .* pixel \(0, 40\) .* --no-data 9.999999680285692e\+37"),
    ],
)
def test_the_refusal_names_the_options(tmp_path, value, text):
    np.save(tmp_path / "a.npy", image(value))
    found = run("label", tmp_path / "a.npy", tmp_path / "out", "--classes", 2)
    assert found.code == 1
    assert re.search(text.replace("1994", str(HOLE.sum())), found.err), found.err


@pytest.mark.parametrize("factor", [1e-30, 1e-10, 1e10, 1e16])
def test_small_and_large_images(factor):
    """Whether single precision suffices or not."""
    pixels = RNG.random(SHAPE).astype(np.float32)
    expected, scaled = label(pixels, classes=2), pixels * np.float32(factor)
    assert (label(scaled, classes=2) == expected).mean() > 0.999


def test_a_value_far_from_all_others_gets_a_word():
    with pytest.warns(FileWarning, match=r"are -9999, all others .*by `no_data` -9999"):
        label(image(-9999), classes=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        label(image(-9999), classes=2, no_data=-9999)
        label(image(-1), classes=3)
        label(np.where(HOLE, np.uint8(255), np.uint8(0)), classes=2)


def test_training_leaves_out_what_has_no_data():
    truth = np.where(np.arange(SHAPE[1]) < 35, 1, 2) + np.zeros(SHAPE, int)
    pixels = (truth + RNG.normal(0, 0.3, SHAPE)).astype(np.float32)
    pixels[::7] = np.nan
    recipe = tiledlaf.Recipe(steps=2, predictor_size=4, flow="learned")
    with tiledlaf.open_pool(workers=1) as pool:
        found = []
        for options in ({"mask": ~np.isnan(pixels)}, {"no_data": np.nan}):
            data = tiledlaf.Data(tiledlaf.pair(pixels, truth, **options))
            found.append(tiledlaf.train(data, recipe, pool))
        with pytest.raises(ValueError, match=r"array: image: expected finite .*`no_data` nan"):
            tiledlaf.train(tiledlaf.Data(tiledlaf.pair(pixels, truth)), recipe, pool)
    assert found[0].term == found[1].term
    assert found[0].bias == found[1].bias
    for name in ("anchors", "patches"):
        one, other = (getattr(model.predictor, name) for model in found)
        np.testing.assert_array_equal(one, other)
