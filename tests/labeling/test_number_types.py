"""Arrays of every type, of NumPy and dask: the same labels, or one line."""

import dask.array as da
import numpy as np
import pytest

import tiledlaf
from tiledlaf.files import numbers
from tiledlaf.labeling.request import label

RIGHT = ["f2", ">f2", "f4", ">f4", "f8", ">f8", "g", "u1", ">u2", "i4", "u8", ">i8"]
WRONG = ["c8", "O", "M8[s]", "m8[s]", "S3", "U3"]


def picture():
    rng, clean = np.random.default_rng(0), np.zeros((40, 40))
    clean[:, 20:] = 3
    return np.clip(np.round(clean + rng.normal(3, 1, clean.shape)), 0, 7)


def lazily(image, **options):
    lazy = da.from_array(image, chunks=20, asarray=False)
    return label(lazy, classes=2, **options).compute(scheduler="synchronous")


@pytest.mark.parametrize("dtype", RIGHT)
def test_real_numbers_of_any_size_and_order(dtype):
    expected = label(picture(), classes=2)
    np.testing.assert_array_equal(label(picture().astype(dtype), classes=2), expected)
    np.testing.assert_array_equal(lazily(picture().astype(dtype)), expected)


@pytest.mark.parametrize("view", [np.asfortranarray, lambda a: a[::-1, ::-1], lambda a: a[::2].T])
def test_any_layout_in_memory(view):
    image = view(picture())
    expected = label(np.ascontiguousarray(image), classes=2)
    np.testing.assert_array_equal(label(image, classes=2), expected)
    np.testing.assert_array_equal(lazily(image), expected)


@pytest.mark.parametrize("dtype", WRONG)
def test_other_types_are_refused(dtype):
    image = picture().astype(dtype)
    for act in (lambda: label(image, classes=2), lambda: lazily(image)):
        with pytest.raises(ValueError, match="array: expected numbers as pixels, got the"):
            act()
    for what in ("mask", "probabilities"):
        given = np.stack([image] * 2) if what == "probabilities" else image
        with pytest.raises(ValueError, match="expected numbers as pixels"):
            label(picture(), **{what: given}, **({"classes": 2} if what == "mask" else {}))
    with pytest.raises(ValueError, match="expected numbers as pixels"):
        tiledlaf.pair(picture(), image)


def test_types_of_other_packages_are_read_as_float32():
    types = pytest.importorskip("ml_dtypes")
    expected = label(picture(), classes=2)
    for name in ("bfloat16", "float8_e5m2", "int4"):
        image = picture().astype(getattr(types, name))
        np.testing.assert_array_equal(label(image, classes=2), expected)
        np.testing.assert_array_equal(lazily(image), expected)


def test_masked_arrays():
    image = np.ma.MaskedArray(picture(), False)
    expected = label(picture(), classes=2)
    np.testing.assert_array_equal(label(image, classes=2), expected)
    image[3, 4] = np.ma.masked
    refused = "expected an array without a mask, got 1 masked pixels: give its data, and `mask`"
    for act in (
        lambda: label(image, classes=2),
        lambda: label(picture(), classes=2, mask=image),
        lambda: label(da.from_array(picture()), classes=2, mask=image),
        lambda: tiledlaf.pair(picture(), image),
        lambda: tiledlaf.evaluate(image, picture().astype(int)),
    ):
        with pytest.raises(ValueError, match=refused):
            act()
    with pytest.raises(ValueError, match="of NumPy arrays, got one of MaskedArray: give their"):
        lazily(image)
    # dask takes a function's word for what it returns
    blocks = da.map_blocks(
        lambda b: np.ma.MaskedArray(b, b == 3), da.from_array(picture()), meta=np.zeros((0, 0))
    )
    with pytest.raises(ValueError, match="expected an array without a mask"):
        label(blocks, classes=2).compute(scheduler="synchronous")


def test_arrays_that_are_no_images():
    lazy = da.from_array(picture(), chunks=20)
    for given, expected in (
        (np.zeros((0, 5)), r"expected pixels, got the shape \(0, 5\)"),
        (np.zeros(7), r"expected an image of two axes or more, got the shape \(7,\)"),
        (np.array(3.0), r"expected an image of two axes or more, got the shape \(\)"),
        ([[1, 2], [3]], "expected an array of numbers"),
        (lazy[lazy.sum(axis=1) > 0], r"expected a dask array of a known size, got the shape"),
        (lazy[:0], "expected pixels, got the shape"),
    ):
        with pytest.raises(ValueError, match=expected):
            label(given, classes=2)
    with pytest.raises(ValueError, match="expected an array beside dask arrays, got the path a"):
        label("a.tif", classes=2, mask=lazy)


def test_native_types():
    assert numbers.native(">f2") == np.float32
    assert numbers.native("longdouble") == np.float64
    assert numbers.native(">u4") == np.dtype("=u4")
    assert numbers.plain(np.ones((2, 2), "longdouble")).dtype == np.float64
