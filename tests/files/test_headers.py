"""What files say of their pixels is honored, named or refused: colors, parts, channels, sizes."""

import struct
import subprocess
import sys
import uuid

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import tifffile
import zarr

import tiledlaf
from tiledlaf import Data, Recipe, label
from tiledlaf.files import images
from tiledlaf.files.image import FileWarning

RNG = np.random.default_rng(7)
GRAY = RNG.integers(0, 256, (40, 50), dtype=np.uint8)
RGB = RNG.integers(0, 256, (40, 50, 3), dtype=np.uint8)
OME = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
COLORS = RNG.integers(0, 256, (256, 3), dtype=np.uint8)


def pixels(image):
    return image.read(tuple(slice(0, n) for n in image.grid))


def planes(rows):
    return np.moveaxis(rows, -1, 0)


def opened(path, match=None, **choice):
    if match is None:
        return images.open_image(path, **choice)
    with pytest.warns(FileWarning, match=match):
        return images.open_image(path, **choice)


# colors


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_palette_tiff_has_its_colors_and_labels_have_its_indices(tmp_path, bits, tile):
    path = tmp_path / "a.tif"
    table = COLORS.T.astype(np.uint16) * (257 if bits == 16 else 1)
    tifffile.imwrite(path, GRAY, photometric="palette", colormap=table, tile=tile)
    image = opened(path, None if bits == 16 else "no number above 255")
    assert (image.axes, image.dtype, image.color) == ("yxc", "uint8", True)
    np.testing.assert_array_equal(pixels(image), planes(COLORS[GRAY]))
    np.testing.assert_array_equal(
        image.read((slice(3, 9), slice(7, 8))), planes(COLORS[GRAY])[:, 3:9, 7:8]
    )
    np.testing.assert_array_equal(pixels(images.open_labels(path))[0], GRAY)


def write_packed(path, numbers, bits, table):
    """A palette TIFF whose numbers have less than 8 bits, which tifffile does not write."""
    height, width = numbers.shape
    rows = (numbers[..., None] >> np.arange(bits)[::-1] & 1).astype(np.uint8)
    data = np.packbits(rows.reshape(height, width * bits), axis=1).tobytes()
    colors = (table.T.astype("<u2") * 257).tobytes()
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, 3), (277, 1), (278, height)]
    tags += [(273, 1000), (279, len(data))]
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags)]
    entries.append(struct.pack("<HHII", 320, 3, len(colors) // 2, 200))
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + bytes(4)
    path.write_bytes((head.ljust(200, b"\0") + colors).ljust(1000, b"\0") + data)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_palettes_of_few_bits(tmp_path, bits):
    numbers = GRAY % 2**bits
    write_packed(tmp_path / "a.tif", numbers, bits, COLORS[: 2**bits])
    image = opened(tmp_path / "a.tif")
    np.testing.assert_array_equal(pixels(image), planes(COLORS[numbers]))
    np.testing.assert_array_equal(pixels(images.open_labels(tmp_path / "a.tif"))[0], numbers)


def test_labels_and_odd_types_are_read_as_stored_where_zero_is_white(tmp_path):
    """As ImageJ saves masks with an inverted lookup table: 255 is what was marked."""
    tifffile.imwrite(tmp_path / "a.tif", GRAY, photometric="miniswhite")
    tifffile.imwrite(tmp_path / "b.tif", GRAY.astype(np.float32), photometric="miniswhite")
    with pytest.warns(FileWarning, match="label values are read as stored"):
        labels = images.open_labels(tmp_path / "a.tif")
    np.testing.assert_array_equal(pixels(labels)[0], GRAY)
    image = images.from_array(GRAY)
    with pytest.warns(FileWarning, match="label values are read as stored"):
        np.testing.assert_array_equal(pixels(images.as_mask(tmp_path / "a.tif", image))[0], GRAY)
    found = opened(tmp_path / "b.tif", "float32 pixels are read as stored")
    np.testing.assert_array_equal(pixels(found)[0], GRAY)


@pytest.mark.parametrize("data", [GRAY, GRAY.astype(np.uint16) * 200, GRAY > 99], ids=str)
def test_where_zero_is_white_pixels_are_inverted(tmp_path, data):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, data, photometric="miniswhite")
    expected = ~data if data.dtype == bool else np.iinfo(data.dtype).max - data
    np.testing.assert_array_equal(pixels(opened(path))[0], expected)
    if data.dtype != np.uint16:  # which Pillow leaves as it is
        shown = np.asarray(PIL.Image.open(path))
        np.testing.assert_array_equal(pixels(opened(path))[0], shown)


@pytest.mark.parametrize("kind", ["assocalpha", "unassalpha"])
def test_alpha_of_a_tiff_is_never_data(tmp_path, kind):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.dstack([RGB, GRAY]), photometric="rgb", extrasamples=[kind])
    image = opened(path, "alpha")
    np.testing.assert_array_equal(pixels(image), planes(RGB))
    assert image.stored_channels == 4
    np.testing.assert_array_equal(
        pixels(opened(path, channels=["blue", "red"])), planes(RGB)[[2, 0]]
    )
    with pytest.raises(ValueError, match=r"`channels` with data, got 3, which is alpha"):
        images.open_image(path, channels=[0, 3])
    tifffile.imwrite(
        path,
        np.dstack([GRAY, GRAY // 2]),
        photometric="minisblack",
        planarconfig="contig",
        extrasamples=[kind],
    )
    np.testing.assert_array_equal(pixels(opened(path, "alpha")), GRAY[None])


def test_what_a_fourth_sample_is_remains_open(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.dstack([RGB, GRAY]), photometric="rgb", extrasamples=["unspecified"])
    assert pixels(opened(path, "does not say what its channel 3 is")).shape[0] == 4


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P"])
def test_alpha_of_a_picture_is_left_out(tmp_path, mode):
    path = tmp_path / "a.png"
    if mode == "P":
        picture = PIL.Image.fromarray(GRAY, "L").convert("P")
        picture.info["transparency"] = 3
        picture.save(path, transparency=3)
    elif mode == "PA":
        PIL.Image.fromarray(RGB).convert("P").convert("PA").convert("RGBA").save(path)
    else:
        PIL.Image.fromarray(np.dstack([RGB, GRAY])).convert(mode).save(path)
    shown = PIL.Image.open(path)
    expected = np.asarray(shown.convert("L" if mode == "LA" else "RGB"))
    image = opened(path, "alpha channel is left out")
    np.testing.assert_array_equal(
        pixels(image), expected[None] if expected.ndim == 2 else planes(expected)
    )


@pytest.mark.parametrize("turn", range(2, 9))
def test_pictures_are_turned_as_their_exif_data_say(tmp_path, turn):
    path, exif = tmp_path / "a.png", PIL.Image.Exif()
    exif[0x0112] = turn
    PIL.Image.fromarray(RGB).save(path, exif=exif)
    expected = np.asarray(PIL.ImageOps.exif_transpose(PIL.Image.open(path)))
    image = opened(path, f"orientation {turn}")
    assert image.grid == expected.shape[:2]
    np.testing.assert_array_equal(pixels(image), planes(expected))


def test_inks_and_luma_are_named(tmp_path):
    inks = tmp_path / "inks.tif"
    tifffile.imwrite(inks, np.dstack([RGB, GRAY]), photometric="separated")
    image = opened(inks, "CMYK")
    assert [c.name for c in image.shown] == ["cyan", "magenta", "yellow", "black"]
    assert not image.color
    luma = tmp_path / "luma.tif"
    tifffile.imwrite(luma, RGB, photometric="rgb")
    with tifffile.TiffFile(luma, mode="r+") as file:
        file.pages[0].tags["PhotometricInterpretation"].overwrite(6)
    with pytest.raises(ValueError, match="YCbCr"):
        images.open_image(luma)
    picture = tmp_path / "inks.jpg"
    PIL.Image.fromarray(RGB).convert("CMYK").save(picture)
    assert opened(picture, "CMYK pixels are converted to RGB").stored_channels == 3


# which image


def series(path, *arrays, names=("macro", "slide", "label")):
    with tifffile.TiffWriter(path, ome=True) as file:
        for array, name in zip(arrays, names, strict=False):
            file.write(array, metadata={"Name": name})


def test_the_largest_series_is_read_and_said(tmp_path):
    path = tmp_path / "a.ome.tif"
    series(path, GRAY[:9, :9], GRAY, GRAY[:20, :20])
    image = opened(path, r"series 1, the largest, is read of 0 'macro' 9 x 9, 1 'slide' 40 x 50")
    np.testing.assert_array_equal(pixels(image)[0], GRAY)
    for chosen in ("2", "label"):
        image = opened(path, series=chosen)
        np.testing.assert_array_equal(pixels(image)[0], GRAY[:20, :20])
    with pytest.raises(
        ValueError, match="`series` to be one of 0 macro, 1 slide, 2 label, got 'x'"
    ):
        images.open_image(path, series="x")
    assert [p.title for p in images.parts(path)] == ["macro", "slide", "label"]


def test_a_file_with_one_image_has_no_series(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", GRAY)
    PIL.Image.fromarray(GRAY).save(tmp_path / "a.png")
    for name in ("a.tif", "a.png"):
        with pytest.raises(ValueError, match="`series`"):
            images.open_image(tmp_path / name, series="1")


def test_pages_without_names_are_asked_for(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        for k in range(3):
            file.write(GRAY + k, metadata=None)
    with pytest.raises(ValueError, match=r"3 pages .* `axes` zyx, cyx or tyx"):
        images.open_image(path)
    assert opened(path, axes="cyx").stored_channels == 3
    assert opened(path, axes="zyx").grid == (3, 40, 50)
    assert images.open_labels(path).grid == (3, 40, 50)


def test_damaged_ome_xml_costs_the_pixel_size(tmp_path):
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, GRAY, metadata={"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5})
    assert opened(path).scale == (0.5, 0.5)
    path.write_bytes(path.read_bytes().replace(b"<Pixels", b"<Pix&ls"))
    image = opened(path, "OME series")
    assert image.units == (None, None)
    np.testing.assert_array_equal(pixels(image)[0], GRAY)


def test_a_missing_companion_is_named(tmp_path):
    ids = [f"urn:uuid:{uuid.UUID(int=n + 1)}" for n in range(2)]
    parts = "".join(
        f'<TiffData FirstZ="{n}" IFD="0" PlaneCount="1"><UUID FileName="z{n}.ome.tif">{ids[n]}'
        "</UUID></TiffData>"
        for n in range(2)
    )
    for n in range(2):
        text = (
            f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="{OME}" UUID="{ids[n]}">'
            '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" '
            'SizeX="50" SizeY="40" SizeC="1" SizeZ="2" SizeT="1">'
            f'<Channel ID="Channel:0:0" SamplesPerPixel="1"/>{parts}</Pixels></Image>'
            "</OME>"
        )
        tifffile.imwrite(tmp_path / f"z{n}.ome.tif", GRAY, description=text, metadata=None)
    assert opened(tmp_path / "z0.ome.tif").grid == (2, 40, 50)
    (tmp_path / "z1.ome.tif").unlink()
    opened(tmp_path / "z0.ome.tif", "z1.ome.tif")


def test_what_is_wrong_with_a_file_is_said_once(tmp_path):
    """Not by the library that reads it as well, when its pixels are read."""
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, GRAY, metadata={})
    path.write_bytes(path.read_bytes().replace(b"<Pixels", b"<Pix&ls"))
    code = (
        "import sys; from tiledlaf.files import images\n"
        "image = images.open_image(sys.argv[1]); image.read((slice(0, 3), slice(0, 3)))"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("OME series") == 1


def test_pixel_sizes_are_those_of_the_series_that_is_there(tmp_path):
    """Of two images in the XML, the pixels of the first are in a file that is missing."""
    path = tmp_path / "a.ome.tif"
    text = "".join(
        f'<Image ID="Image:{n}"><Pixels ID="Pixels:{n}" DimensionOrder="XYZCT" Type="uint8" '
        f'SizeX="{x}" SizeY="40" SizeC="1" SizeZ="1" SizeT="1" PhysicalSizeX="{n + 1}" '
        f'PhysicalSizeY="{n + 1}"><Channel ID="Channel:{n}:0" Name="{name}" SamplesPerPixel="1"/>'
        f'<TiffData IFD="0" PlaneCount="1"><UUID FileName="{file}">urn:uuid:{uuid.UUID(int=n + 1)}'
        "</UUID></TiffData></Pixels></Image>"
        for n, x, name, file in ((0, 60, "gone", "gone.ome.tif"), (1, 50, "here", path.name))
    )
    head = f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="{OME}" UUID="urn:uuid:'
    about = f'{head}{uuid.UUID(int=2)}">{text}</OME>'
    tifffile.imwrite(path, GRAY, description=about, metadata=None)
    image = opened(path, "gone.ome.tif")
    assert (image.scale, image.shown[0].name) == ((2.0, 2.0), "here")


# which channel


def test_channels_by_name(tmp_path):
    path, data = tmp_path / "a.ome.tif", np.stack([GRAY, 255 - GRAY, GRAY // 2])
    about = {"axes": "CYX", "Channel": {"Name": ["DAPI", "CD3", "1"], "Color": [65535, -1, 255]}}
    tifffile.imwrite(path, data, photometric="minisblack", metadata=about)
    image = opened(path, channels=["CD3", "dapi"])
    np.testing.assert_array_equal(pixels(image), data[[1, 0]])
    assert [c.color for c in image.shown] == ["0000FF", "FFFFFF", "000000"]
    assert not image.color
    assert opened(path, channels=["1", "0"]).channels == (2, 0)  # a name counts first
    with pytest.raises(ValueError, match=r"0 to 2 \(DAPI, CD3, 1\), got GFP"):
        images.open_image(path, channels=["GFP"])


def test_channels_of_imagej(tmp_path):
    path, data = tmp_path / "a.tif", np.stack([GRAY, 255 - GRAY])
    about = {"axes": "CYX", "Labels": ["DAPI", "CD3"], "Ranges": [0.0, 100.0, 5.0, 200.0]}
    tifffile.imwrite(path, data, imagej=True, metadata=about)
    image = opened(path, channels=["CD3"])
    assert image.channels == (1,)
    assert image.shown[1].window == (5.0, 200.0, 5.0, 200.0)


def test_omero_metadata_of_other_channels_are_left_out(tmp_path):
    label(np.stack([GRAY, GRAY // 2]), tmp_path / "a.zarr", classes=2, axes="cyx", workers=1)
    group = zarr.open_group(tmp_path / "a.zarr")
    entry = {"channels": [{"label": "DAPI"}, {"label": "CD3"}, {"label": "CD8"}]}
    group.attrs["ome"] = {**group.attrs["ome"], "omero": entry}
    image = opened(tmp_path / "a.zarr", "omero metadata are of 3 channels, not 2")
    assert (image.shown, image.stored_channels) == ((), 2)


# which scale


def sizes(image):
    return image.scale if image.units == ("micrometer",) * 2 else None


def test_pixel_sizes_of_plain_tiffs(tmp_path):
    path = tmp_path / "a.tif"
    for resolution, unit, expected in (
        ((20000, 40000), 3, (0.25, 0.5)),  # per centimeter, x and y
        ((50800, 50800), 2, (0.5, 0.5)),  # per inch
        ((300, 300), 2, None),  # of a print
        ((28.3, 28.3), 3, None),
        ((4, 4), 1, None),  # of no unit
    ):
        tifffile.imwrite(path, GRAY, resolution=resolution, resolutionunit=unit, metadata=None)
        found = sizes(opened(path))
        assert found == (expected if expected is None else pytest.approx(expected)), resolution


def test_pixel_size_of_aperio(tmp_path):
    path = tmp_path / "a.svs"
    about = "Aperio Image Library v11.0.37\r\n50x40 (16x16) JPEG/RGB Q=70|AppMag = 20|MPP = 0.4990"
    with tifffile.TiffWriter(path) as file:
        file.write(RGB, tile=(16, 16), photometric="rgb", metadata=None, description=about)
        file.write(RGB[:9, :9], photometric="rgb", metadata=None, description="Aperio thumbnail")
    image = opened(path, "'Baseline' 40 x 50 x 3, 1 'Thumbnail'")
    assert sizes(image) == (0.499, 0.499)
    assert image.grid == (40, 50)


def test_aperios_thumbnail_has_larger_pixels_than_the_slide_that_it_speaks_of(tmp_path):
    path = tmp_path / "a.svs"
    head, rest = "Aperio Image Library v10.0.51\r\n", "|AppMag = 20|MPP = 0.5"
    with tifffile.TiffWriter(path) as file:
        for step, about in (
            (1, "60x44 [0,4 50x40] (16x16) JPEG/RGB Q=30"),
            (5, "50x40 -> 10x8 - "),
            (2, "60x44 [0,4 50x40] (16x16) -> 25x20 JPEG/RGB Q=30"),
        ):
            tile = {} if step == 5 else {"tile": (16, 16)}
            data, about = np.ascontiguousarray(RGB[::step, ::step]), f"{head}{about}{rest}"
            file.write(data, photometric="rgb", metadata=None, description=about, **tile)
    assert sizes(opened(path, "Baseline")) == (0.5, 0.5)
    assert sizes(opened(path, "Baseline", level=1)) == (1.0, 1.0)
    assert sizes(opened(path, series="Thumbnail")) == (2.5, 2.5)


def test_channels_travel_into_the_output(tmp_path):
    path, out, data = tmp_path / "a.ome.tif", tmp_path / "out.zarr", GRAY.astype(np.uint16) * 9
    about = {"axes": "CYX", "Channel": {"Name": ["DAPI", "CD3"], "Color": [65535, 16711935]}}
    tifffile.imwrite(path, np.stack([data, data // 2]), photometric="minisblack", metadata=about)
    label(path, out, classes=2, workers=1)
    one, two = zarr.open_group(out, mode="r").attrs["ome"]["omero"]["channels"]
    assert (one["label"], one["color"], two["label"]) == ("DAPI", "0000FF", "CD3")
    assert two["color"] == "00FF00"
    # no window in the file: that of a sample
    assert one["window"]["start"] == pytest.approx(np.percentile(data, 0.1))
    assert one["window"]["end"] == pytest.approx(np.percentile(data, 99.9))
    again = images.open_image(out, channels=["CD3"])
    assert (again.channels, again.shown[0].color) == ((1,), "0000FF")
    label(out, tmp_path / "again.zarr", classes=2, workers=1)
    copied = zarr.open_group(tmp_path / "again.zarr", mode="r").attrs["ome"]["omero"]
    assert copied == {"channels": [one, two]}


def test_the_name_of_an_only_channel_travels_as_well(tmp_path):
    path, out = tmp_path / "a.ome.tif", tmp_path / "out.zarr"
    about = {"axes": "YX", "Channel": {"Name": ["DAPI"], "Color": [65535]}}
    tifffile.imwrite(path, GRAY.astype(np.uint16) * 9, metadata=about)
    label(path, out, classes=2, workers=1)
    (one,) = zarr.open_group(out, mode="r").attrs["ome"]["omero"]["channels"]
    assert (one["label"], one["color"]) == ("DAPI", "0000FF")
    assert one["window"]["end"] == pytest.approx(np.percentile(GRAY.astype(float) * 9, 99.9))
    assert images.open_image(out, channels=["DAPI"]).shown[0].color == "0000FF"


def test_three_channels_are_colors_only_where_the_file_says_so(tmp_path):
    for kind, colors in (("rgb", True), ("minisblack", False)):
        path, out = tmp_path / f"{kind}.tif", tmp_path / f"{kind}.zarr"
        data = RGB if colors else np.ascontiguousarray(planes(RGB))
        tifffile.imwrite(
            path, data, photometric=kind, metadata={"axes": "YXS" if colors else "CYX"}
        )
        label(path, out, classes=2, workers=1)
        assert ("omero" in zarr.open_group(out, mode="r").attrs["ome"]) == colors
        assert images.open_image(out).color == colors


def test_a_model_finds_its_channels_by_name(tmp_path):
    """Of another file, whose channels have another order; other channels get a word."""

    def stain(path, *names):
        shown = {"DAPI": GRAY, "CD3": 255 - GRAY, "GFP": GRAY // 2 + 60}
        about = {"axes": "CYX", "Channel": {"Name": list(names)}}
        data = np.stack([shown[n] for n in names])
        tifffile.imwrite(tmp_path / path, data, photometric="minisblack", metadata=about)
        return tmp_path / path

    truth = (GRAY > 128).astype(np.uint8)
    data = Data(tiledlaf.pair(stain("a.ome.tif", "CD3", "DAPI"), truth, channels=["DAPI"]))
    with tiledlaf.open_pool(workers=1) as pool:
        model = tiledlaf.train(data, Recipe(steps=1, predictor_size=3), pool)
    assert model.images.names == ("DAPI",)
    expected = label(GRAY, model=model, workers=1)
    with pytest.warns(FileWarning, match="learned from DAPI: these are used"):
        found = label(stain("b.ome.tif", "GFP", "DAPI"), model=model, workers=1)
    np.testing.assert_array_equal(found, expected)
    with pytest.warns(FileWarning, match="learned from the channels DAPI, and these are GFP"):
        label(tmp_path / "b.ome.tif", model=model, channels=["GFP"], workers=1)
