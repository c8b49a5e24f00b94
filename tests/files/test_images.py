"""Every reader on files that other people's tools wrote: pixels, axes, sizes, units, levels."""

import os

import numcodecs
import numpy as np
import PIL.Image
import pytest
import tifffile
import zarr

from tiledlaf import label
from tiledlaf.files import images
from tiledlaf.files.formats.npy import Npy

# ome-zarr-py 0.18 calls a class as it is imported that it has deprecated itself
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated class Scaler:DeprecationWarning")

RNG = np.random.default_rng(3)
GRAY = RNG.integers(0, 60000, (70, 90), dtype=np.uint16)
RGB = RNG.integers(0, 256, (70, 90, 3), dtype=np.uint8)
PLANES = np.ascontiguousarray(np.moveaxis(RGB, -1, 0))
VOLUME = RNG.integers(0, 256, (6, 40, 50), dtype=np.uint8)


def read(image, *window):
    return image.read(tuple(window) or tuple(slice(0, n) for n in image.grid))


def check(image, pixels):
    """All pixels, (C, *grid), and windows in the middle and at the end are as they should be."""
    assert image.grid == pixels.shape[1:]
    assert np.dtype(image.dtype) == pixels.dtype.newbyteorder("=")
    np.testing.assert_array_equal(read(image), pixels)
    for window in (
        tuple(slice(n // 3, n // 3 + n // 2) for n in image.grid),
        tuple(slice(n - 1, n) for n in image.grid),
    ):
        block = read(image, *window)
        np.testing.assert_array_equal(block, pixels[:, *window])
        assert block.flags.c_contiguous
        assert block.dtype.isnative


def pyramid(pixels):
    """Levels by halves along the last two axes, with a size that leaves a remainder."""
    return [pixels, pixels[..., ::2, ::2].copy(), pixels[..., ::4, ::4].copy()]


# TIFF by tifffile


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"byteorder": ">"},
        {"rowsperstrip": 7},
        {"tile": (16, 32)},
        {"tile": (32, 32), "compression": "deflate", "predictor": True},
        {"tile": (32, 32), "compression": "lzw", "byteorder": ">"},
        {"bigtiff": True, "compression": "zstd"},
    ],
    ids=str,
)
def test_tiff_gray(tmp_path, options):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GRAY, **options)
    image = images.open_image(path)
    assert (image.axes, image.units, image.scale) == ("yx", (None, None), (1.0, 1.0))
    check(image, GRAY[None])


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_tiff_rgb(tmp_path, planar):
    path = tmp_path / "a.tiff"
    pixels = RGB if planar == "contig" else PLANES
    tifffile.imwrite(path, pixels, photometric="rgb", planarconfig=planar, tile=(32, 48))
    image = images.open_image(path)
    assert image.axes == ("yxc" if planar == "contig" else "cyx")
    check(image, PLANES)
    if planar == "contig":  # samples are the last axis of three rows too
        tifffile.imwrite(tmp_path / "low.tif", RGB[:3], photometric="rgb")
        check(images.open_image(tmp_path / "low.tif"), PLANES[:, :3])


def test_tiff_jpeg_is_decoded_tile_by_tile(tmp_path):
    path = tmp_path / "a.tif"
    smooth = np.repeat(np.repeat(RGB[:9, :11], 10, axis=0), 10, axis=1)
    tifffile.imwrite(path, smooth, photometric="rgb", tile=(32, 32), compression="jpeg")
    decoded = tifffile.imread(path)
    assert not np.array_equal(decoded, smooth)
    check(images.open_image(path), np.moveaxis(decoded, -1, 0))


def test_tiff_volume_with_and_without_axes(tmp_path):
    named, bare = tmp_path / "named.tif", tmp_path / "bare.tif"
    tifffile.imwrite(named, VOLUME, photometric="minisblack", metadata={"axes": "ZYX"})
    with tifffile.TiffWriter(bare) as file:
        for plane in VOLUME:
            file.write(plane, metadata=None)
    assert images.open_image(named).spatial_axes == "zyx"
    check(images.open_image(named), VOLUME[None])
    with pytest.raises(ValueError, match="`axes` zyx"):
        images.open_image(bare)
    check(images.open_image(bare, axes="zyx"), VOLUME[None])


def test_ome_tiff_pixel_sizes_in_their_units(tmp_path):
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(
        path,
        np.stack([VOLUME, 255 - VOLUME], axis=1),
        photometric="minisblack",
        metadata={
            "axes": "ZCYX",
            "PhysicalSizeX": 250.0,
            "PhysicalSizeXUnit": "nm",
            "PhysicalSizeY": 0.5,
            "PhysicalSizeYUnit": "µm",
            "PhysicalSizeZ": 0.002,
            "PhysicalSizeZUnit": "mm",
        },
    )
    image = images.open_image(path)
    assert (image.axes, image.units) == ("zcyx", ("micrometer",) * 3)
    assert image.scale == pytest.approx((2.0, 0.5, 0.25))
    check(image, np.stack([VOLUME, 255 - VOLUME]))


def test_imagej_tiff_pixel_sizes(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path,
        VOLUME,
        imagej=True,
        resolution=(4, 2),
        metadata={"axes": "ZYX", "spacing": 3.0, "unit": "um"},
    )
    image = images.open_image(path)
    assert (image.scale, image.units) == ((3.0, 0.5, 0.25), ("micrometer",) * 3)
    check(image, VOLUME[None])


def test_ome_tiff_levels(tmp_path):
    path = tmp_path / "a.ome.tif"
    levels = [np.ascontiguousarray(np.moveaxis(p, 0, -1)) for p in pyramid(PLANES[:, :, :85])]
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        options = {"photometric": "rgb", "tile": (32, 32), "compression": "zlib"}
        sizes = {"axes": "YXS", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5}
        file.write(levels[0], subifds=2, metadata=sizes, **options)
        for level in levels[1:]:
            file.write(level, subfiletype=1, **options)
    for number, pixels in enumerate(levels):
        image = images.open_image(path, level=number)
        check(image, np.moveaxis(pixels, -1, 0))
        assert image.levels == tuple(p.shape[:2] for p in levels[number:])
        assert image.scale == pytest.approx((0.5 * 70 / len(pixels), 0.25 * 85 / pixels.shape[1]))
    with pytest.raises(ValueError, match="level of 0 to 2, got `level` 3"):
        images.open_image(path, level=3)


# OME-Zarr by ome-zarr-py and ngff-zarr


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_py(tmp_path, version):
    from ome_zarr.format import FormatV04, FormatV05
    from ome_zarr.writer import write_multiscale

    levels = pyramid(PLANES[None, :, None, :, :85])  # t c z y x
    write_multiscale(
        levels,
        zarr.open_group(tmp_path / "a", zarr_format=2 if version == "0.4" else 3),
        fmt=FormatV04() if version == "0.4" else FormatV05(),
        axes="tczyx",
        scale={"t": 1.0, "c": 1.0, "z": 2.0, "y": 0.5, "x": 0.25},
        axes_units=dict.fromkeys("zyx", "micrometer"),
        storage_options={"chunks": (1, 1, 1, 32, 32)},
    )
    for number, pixels in enumerate(levels):
        image = images.open_image(tmp_path / "a", level=number)
        assert (image.axes, image.spatial_axes) == ("tczyx", "zyx")
        height, width = pixels.shape[3:]
        assert image.scale == pytest.approx((2.0, 0.5 * 70 / height, 0.25 * 85 / width))
        assert image.units == ("micrometer",) * 3
        assert image.levels == tuple(p.shape[2:] for p in levels[number:])
        check(image, pixels[0])
    with pytest.raises(ValueError, match="level of 0 to 2"):
        images.open_image(tmp_path / "a", level=3)


# itkwasm, which ngff-zarr calls, sets shapes in a way that numpy 2.5 deprecates
@pytest.mark.filterwarnings("ignore:Setting the shape on a NumPy array:DeprecationWarning")
@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ngff_zarr(tmp_path, version):
    import ngff_zarr

    image = ngff_zarr.to_ngff_image(
        VOLUME,
        dims=("z", "y", "x"),
        scale={"z": 2.0, "y": 0.5, "x": 0.25},
        translation={"z": 0.0, "y": 10.0, "x": 20.0},
        axes_units={a: "nanometer" for a in "zyx"},
    )
    scales = ngff_zarr.to_multiscales(image, [{"z": 1, "y": 2, "x": 2}], chunks=16)
    path = str(tmp_path / "a.zarr")
    ngff_zarr.to_ngff_zarr(path, scales, version=version)
    fine, coarse = (images.open_image(path, level=level) for level in (0, 1))
    assert (fine.axes, fine.units) == ("zyx", ("nanometer",) * 3)
    assert (fine.scale, fine.translation) == ((2.0, 0.5, 0.25), (0.0, 10.0, 20.0))
    assert fine.levels == ((6, 40, 50), (6, 20, 25))
    assert coarse.scale == (2.0, 1.0, 0.5)
    assert coarse.translation == pytest.approx((0.0, 10.25, 20.125))
    check(fine, VOLUME[None])
    check(coarse, np.asarray(scales.images[1].data)[None])


def test_transformations_of_the_whole_image_come_last(tmp_path):
    group = zarr.open_group(tmp_path / "a", zarr_format=2)
    group.create_array("0", shape=(4, 5), dtype="u1", chunks=(4, 5))
    moves = [{"type": "scale", "scale": [2, 3]}, {"type": "translation", "translation": [1, 1]}]
    last = [{"type": "scale", "scale": [10, 10]}]
    group.attrs["multiscales"] = [
        {
            "version": "0.4",
            "axes": [{"name": "y"}, {"name": "x"}],
            "coordinateTransformations": last,
            "datasets": [{"path": "0", "coordinateTransformations": moves}],
        }
    ]
    image = images.open_image(tmp_path / "a")
    assert (image.scale, image.translation) == ((20.0, 30.0), (10.0, 10.0))


def test_groups_without_an_image_say_what_they_hold(tmp_path):
    group = zarr.open_group(tmp_path / "a")
    group.create_array("nuclei", shape=(4, 5), dtype="u1")
    with pytest.raises(ValueError, match="holds nuclei"):
        images.open_image(tmp_path / "a")
    zarr.open_group(tmp_path / "b", attributes={"ome": {"bioformats2raw.layout": 3}})
    with pytest.raises(ValueError, match="expected images in this file, found none"):
        images.open_image(tmp_path / "b")
    zarr.open_group(tmp_path / "c", attributes={"ome": {"multiscales": [{"axes": []}]}})
    with pytest.raises(ValueError, match="metadata cannot be read"):
        images.open_image(tmp_path / "c")


# plain Zarr


@pytest.mark.parametrize(
    "options",
    [
        {"zarr_format": 2},
        {"zarr_format": 2, "dtype": ">u2"},
        {"zarr_format": 2, "order": "F"},
        {"zarr_format": 2, "compressors": numcodecs.LZMA()},
        {"zarr_format": 2, "compressors": numcodecs.Blosc(), "filters": numcodecs.Delta("<u2")},
        {"zarr_format": 2, "chunk_key_encoding": {"name": "v2", "separator": "."}},
        {"zarr_format": 3},
        {"zarr_format": 3, "shards": (64, 64)},
        {"zarr_format": 3, "serializer": zarr.codecs.BytesCodec(endian="big")},
        {"zarr_format": 3, "filters": zarr.codecs.TransposeCodec(order=(1, 0))},
    ],
    ids=str,
)
def test_plain_zarr(tmp_path, options):
    options = {"shape": GRAY.shape, "chunks": (32, 32), "dtype": "<u2"} | options
    zarr.create_array(tmp_path / "a", **options)[:] = GRAY
    image = images.open_image(tmp_path / "a")
    assert (image.axes, image.scale, image.units) == ("yx", (1.0, 1.0), (None, None))
    check(image, GRAY[None])
    # the pixels are fit for kernels as they come
    assert set(np.unique(label(tmp_path / "a", classes=2))) == {1, 2}


def test_plain_zarr_names_its_dimensions(tmp_path):
    zarr.create_array(tmp_path / "v3", data=VOLUME, dimension_names=["Z", "y", "x"])
    check(images.open_image(tmp_path / "v3"), VOLUME[None])
    two = zarr.create_array(tmp_path / "v2", data=VOLUME, zarr_format=2)
    with pytest.raises(ValueError, match="`axes` zyx"):
        images.open_image(tmp_path / "v2")
    two.attrs["_ARRAY_DIMENSIONS"] = ["z", "y", "x"]
    assert images.open_image(tmp_path / "v2").axes == "zyx"
    # names that are no letters do not help, and do no harm
    zarr.create_array(tmp_path / "words", data=PLANES, dimension_names=["band", "row", None])
    assert images.open_image(tmp_path / "words").axes == "cyx"


def test_array_within_a_group(tmp_path):
    zarr.open_group(tmp_path / "a").create_array("raw", data=GRAY)
    check(images.open_image(tmp_path / "a" / "raw"), GRAY[None])


# PNG, JPEG, npy


def save(path, pixels, mode=None):
    picture = PIL.Image.fromarray(pixels)
    (picture.convert(mode) if mode else picture).save(path)


def test_png(tmp_path):
    path = tmp_path / "a.png"
    save(path, RGB[..., 0])
    check(images.open_image(path), RGB[None, ..., 0])
    save(tmp_path / "rgb.png", RGB)
    check(images.open_image(tmp_path / "rgb.png"), PLANES)
    few = RGB // 128 * 255
    save(tmp_path / "palette.png", few, "P")
    check(images.open_image(tmp_path / "palette.png"), np.moveaxis(few, -1, 0))


def test_png_of_16_bits_keeps_them(tmp_path):
    imagecodecs = pytest.importorskip("imagecodecs")
    save(tmp_path / "gray.png", GRAY)
    check(images.open_image(tmp_path / "gray.png"), GRAY[None])
    deep = RNG.integers(0, 65536, (30, 40, 3), dtype=np.uint16)
    (tmp_path / "rgb.png").write_bytes(imagecodecs.png_encode(deep))
    check(images.open_image(tmp_path / "rgb.png"), np.moveaxis(deep, -1, 0))


def test_a_picture_of_three_rows_has_its_channels_last(tmp_path):
    save(tmp_path / "low.png", RGB[:3])
    check(images.open_image(tmp_path / "low.png"), PLANES[:, :3])


def test_jpeg(tmp_path):
    save(tmp_path / "a.jpg", RGB)
    with PIL.Image.open(tmp_path / "a.jpg") as picture:
        decoded = np.asarray(picture)
    check(images.open_image(tmp_path / "a.jpg"), np.moveaxis(decoded, -1, 0))


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<i4", ">f4", "f8", "f2", "?"])
def test_npy(tmp_path, dtype):
    pixels = (GRAY > 30000 if dtype == "?" else GRAY).astype(dtype)
    np.save(tmp_path / "a.npy", np.asfortranarray(pixels))
    image = images.open_image(tmp_path / "a.npy")
    block = read(image)
    np.testing.assert_array_equal(block, pixels[None])
    assert block.dtype.isnative
    assert set(np.unique(label(tmp_path / "a.npy", classes=2))) == {1, 2}


@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize(
    "box",
    [np.s_[1:3, :, 2:5], np.s_[:, 1:4], np.s_[2, 0:0], np.s_[:, :, :], np.s_[1, 2], np.s_[3:]],
)
def test_boxes_of_npy(tmp_path, order, box):
    pixels = np.asarray(np.arange(4 * 5 * 6).reshape(4, 5, 6), np.int32, order=order)
    np.save(tmp_path / "a.npy", pixels)
    reader, box = Npy(), box if isinstance(box, tuple) else (box,)
    array = reader.open(str(tmp_path / "a.npy"), "")
    np.testing.assert_array_equal(reader.read(array, box), pixels[box])
    os.truncate(tmp_path / "a.npy", 200)  # which would end a process that has it in its memory
    if pixels[box].size:
        with pytest.raises(OSError, match="it ends before its pixels do"):
            reader.read(array, (slice(None),))


# axes and channels


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((30, 40), "yx"),
        ((1, 30, 40), "cyx"),
        ((4, 30, 40), "cyx"),
        ((30, 40, 3), "yxc"),
        ((30, 40, 4), "yxc"),
        ((4, 30, 3), "cyx"),
    ],
)
def test_axes_are_told_by_the_shape(shape, axes):
    image = images.from_array(np.zeros(shape))
    assert image.axes == axes
    assert image.stored_channels == (shape[axes.index("c")] if "c" in axes else 1)


@pytest.mark.parametrize("shape", [(5, 30, 40), (30, 40, 5), (30, 40, 2), (2, 5, 30, 40)])
def test_axes_that_the_shape_does_not_tell(shape, tmp_path):
    with pytest.raises(ValueError, match="`axes`"):
        images.from_array(np.zeros(shape))
    np.save(tmp_path / "a.npy", np.zeros(shape))
    with pytest.raises(ValueError, match=r"a\.npy.*`axes`"):
        images.open_image(tmp_path / "a.npy")


def test_axes_given_win(tmp_path):
    np.save(tmp_path / "a.npy", VOLUME[:3])
    assert images.open_image(tmp_path / "a.npy").axes == "cyx"
    image = images.open_image(tmp_path / "a.npy", axes="zyx")
    assert (image.spatial_axes, image.stored_channels) == ("zyx", 1)
    check(image, VOLUME[None, :3])
    zarr.create_array(tmp_path / "z", data=VOLUME, dimension_names=["z", "y", "x"])
    check(images.open_image(tmp_path / "z", axes="cyx"), VOLUME)


@pytest.mark.parametrize("axes", ["zyx", "yy", "xy", "yq", "cx", ""])
def test_axes_that_do_not_fit(axes):
    if not axes:
        assert images.from_array(GRAY, axes).axes == "yx"  # as not given
        return
    with pytest.raises(ValueError, match=f"expected axes .*got '{axes}'"):
        images.from_array(GRAY, axes)


def test_one_time_point_is_dropped_and_more_are_refused():
    image = images.from_array(PLANES[None, :, None], "tczyx")
    check(image, PLANES[:, None])
    check(images.from_array(np.moveaxis(RGB[..., None], -1, 1), "ytxc"), PLANES)
    with pytest.raises(ValueError, match="one time point, got 3"):
        images.from_array(PLANES, "tyx")


def test_channels_are_chosen_in_the_order_asked_for():
    check(images.from_array(RGB, channels=(2, 0)), PLANES[[2, 0]])
    check(images.from_array(GRAY, channels=(0,)), GRAY[None])
    np.testing.assert_array_equal(
        images.from_array(RGB, channels=(2,)).read((slice(0, 5), slice(3, 9)), (0, 1)),
        PLANES[:2, :5, 3:9],
    )
    for wrong in ((3,), (-1,), (0, 0), ()):
        with pytest.raises(ValueError, match="different channels of 0 to 2"):
            images.from_array(RGB, channels=wrong)


# what cannot be read


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "npy"])
@pytest.mark.parametrize("kept", [0, 20])
def test_damaged_files_are_named(tmp_path, suffix, kept):
    path = tmp_path / f"a.{suffix}"
    if suffix == "npy":
        np.save(path, GRAY)
    elif suffix == "tif":
        tifffile.imwrite(path, GRAY)
    else:
        save(path, RGB)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=rf"a\.{suffix}: "):
        images.open_image(path)


def test_what_is_no_image_is_named(tmp_path):
    for name, problem in (("none.png", "no such file"), (".", "folder"), ("a.txt", "'.txt'")):
        (tmp_path / "a.txt").touch()
        with pytest.raises(ValueError, match=problem):
            images.open_image(tmp_path / name)
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "zarr.json").write_text("{")
    with pytest.raises(ValueError, match=r"a\.zarr: expected a Zarr store"):
        images.open_image(tmp_path / "a.zarr")
    np.save(tmp_path / "complex.npy", GRAY * 1j)
    with pytest.raises(ValueError, match="complex128"):
        images.open_image(tmp_path / "complex.npy")
    with pytest.raises(ValueError, match="expected pixels"):
        images.from_array(np.zeros((0, 5)))


def test_a_file_that_is_replaced_is_read_anew(tmp_path):
    np.save(tmp_path / "a.npy", GRAY)
    check(images.open_image(tmp_path / "a.npy"), GRAY[None])
    np.save(tmp_path / "b.npy", GRAY + 1)
    (tmp_path / "b.npy").replace(tmp_path / "a.npy")
    check(images.open_image(tmp_path / "a.npy"), GRAY[None] + 1)


# real images


@pytest.mark.parametrize("name", ["OS-1-detail", "OS-2-ndpi", "OS-2-vsi"])
def test_slides_are_read_and_labelled(data_folder, name, tmp_path):
    path = data_folder / "wsi_crops" / f"{name}.ome.tif"
    whole = np.moveaxis(tifffile.imread(path), -1, 0)
    image = images.open_image(path)
    assert (image.axes, image.units) == ("yxc", ("micrometer",) * 2)
    assert 0.2 < image.scale[0] < 0.4
    assert image.scale[0] == pytest.approx(image.scale[1], rel=1e-3)
    check(image, whole)
    region = ((500, 700), (600, 810))
    found = label(path, classes=3, region=region, tile=128)
    assert found.shape == (200, 210)
    assert set(np.unique(found)) <= {1, 2, 3}
    assert len(np.unique(found)) > 1


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_probabilities_in_pages_without_names(tmp_path, classes):
    """The first axis of a TIFF that does not name it is that of the classes."""
    given = RNG.dirichlet([1] * classes, (30, 40)).transpose(2, 0, 1).astype(np.float32)
    image = images.from_array(np.zeros((30, 40)))
    tifffile.imwrite(tmp_path / "a.tif", given, photometric="minisblack", metadata=None)
    with tifffile.TiffWriter(tmp_path / "b.tif") as file:
        for plane in given:
            file.write(plane, metadata=None)
    for name in ("a.tif", "b.tif"):
        found = images.as_probabilities(tmp_path / name, image)
        np.testing.assert_array_equal(read(found), given)
