"""OME-TIFF: valid by its schema, and the same labels, names and sizes for its readers."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

import tiledlaf
from tiledlaf.files import images
from tiledlaf.pool import tasks
from tiledlaf.results.exporting import Choice
from tiledlaf.results.formats import ometiff
from tiledlaf.results.result import Result, open_result

NAMES = ["a & b", 'say "é" {x}', "<c>"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ometiff")


def labeled(folder, axes, shape, **options):
    pixels = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    image, out = folder / f"{axes}.zarr", folder / f"{axes}-out.zarr"
    zarr.save_array(image, pixels)
    every = {"time_point": "all"} if "t" in axes else {}
    tiledlaf.label(
        str(image), out, prototypes=[[50], [120], [200]], names=NAMES, axes=axes, tile=64,
        input_pixel_size=0.5, copy_image=False, **every, **options
    )  # fmt: skip
    return out


def pixels_of(out):
    return np.asarray(zarr.open_array(out / "labels/tiledlaf/0", mode="r")[:])


@pytest.mark.parametrize(
    ("axes", "shape"),
    [("yx", (300, 257)), ("zyx", (3, 130, 100)), ("tyx", (2, 90, 130)), ("tzyx", (2, 3, 40, 70))],
)
def test_readers_see_the_same(folder, monkeypatch, axes, shape):
    monkeypatch.setattr(ometiff, "TILE", 64)
    out = labeled(folder, axes, shape)
    target = folder / f"{axes}.ome.tif"
    tiledlaf.export(out, target)
    check_schema(target)
    expected = pixels_of(out)
    with tifffile.TiffFile(target) as file:
        assert file.is_bigtiff
        assert file.is_ome
        (series,) = file.series
        assert series.axes == axes.upper()
        assert len(series.levels) == 1 + int(np.ceil(np.log2(max(shape[-2:]) / 64)))
        for number, level in enumerate(series.levels):
            step = 2**number
            np.testing.assert_array_equal(level.asarray(), expected[..., ::step, ::step])
            assert level.keyframe.is_tiled
            over, under = level.keyframe.tags["XResolution"].value  # pixels per centimeter
            assert over / under == pytest.approx(2e4 * level.shape[-1] / shape[-1], rel=1e-6)
        colors = series.keyframe.colormap[:, 1:4].T // 257
        assert colors.tolist() == [list(c) for c in open_result(out).colors.values()]
    check_metadata(target, axes, shape)


def check_schema(path):
    """By the schema of OME, which ome-types brings."""
    etree, ome_types = pytest.importorskip("lxml.etree"), pytest.importorskip("ome_types")
    schema = etree.XMLSchema(file=Path(ome_types.__file__).with_name("ome-2016-06.xsd"))
    schema.assertValid(etree.fromstring(tifffile.tiffcomment(path).encode()))


def check_metadata(path, axes, shape):
    ome = pytest.importorskip("ome_types").from_tiff(path)
    (image,) = ome.images
    pixels = image.pixels
    sizes = dict(zip(axes, shape, strict=True))
    for axis in "tzyx":
        assert getattr(pixels, f"size_{axis}") == sizes.get(axis, 1)
    assert (pixels.physical_size_x, pixels.physical_size_y) == (0.5, 0.5)
    assert pixels.physical_size_x_unit.value == "µm"
    names, colors = (one.value for one in ome.structured_annotations.map_annotations)
    assert dict(names) == {str(v): name for v, name in enumerate(NAMES, 1)}
    assert dict(colors)["1"] == "#0072b2"


@pytest.mark.filterwarnings("ignore:As of version 0.4.0, the parser argument:UserWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_bioio_reads_it(folder):
    bioio = pytest.importorskip("bioio")
    reader = pytest.importorskip("bioio_ome_tiff").Reader
    out = folder / "zyx-out.zarr"
    if not out.exists():
        out = labeled(folder, "zyx", (3, 130, 100))
    tiledlaf.export(out, folder / "b.ome.tif")
    found = bioio.BioImage(folder / "b.ome.tif", reader=reader)
    np.testing.assert_array_equal(found.get_image_data("ZYX"), pixels_of(out))
    assert (found.physical_pixel_sizes.Y, found.physical_pixel_sizes.X) == (0.5, 0.5)


def test_our_own_reader_sees_names_and_sizes(tmp_path):
    out = labeled(tmp_path, "yx", (80, 90))
    tiledlaf.export(out, tmp_path / "c.tif", classes="<c>")
    found = images.open_labels(tmp_path / "c.tif")
    expected = pixels_of(out)
    np.testing.assert_array_equal(
        found.read((slice(0, 80), slice(0, 90)))[0], np.where(expected == 3, 3, 0)
    )
    assert found.scale == (0.5, 0.5)


def test_time_between_planes(tmp_path):
    image = images.from_array(np.ones((3, 4, 5), np.uint8), "tyx", time_point="all")
    units = ("second", "nanometer", "nanometer")
    image = dataclasses.replace(image, scale=(2.5, 500.0, 250.0), units=units)
    path = tmp_path / "a.tif"
    with tasks.threads(1) as pool:
        result = Result("out.zarr", "a", image, {}, {}, {})
        ometiff.OmeTiff().write(result, str(path), Choice(), pool, lambda record: None)
    (found,) = pytest.importorskip("ome_types").from_tiff(path).images
    assert (found.pixels.time_increment, found.pixels.time_increment_unit.value) == (2.5, "s")
    assert (found.pixels.physical_size_y, found.pixels.physical_size_x) == (0.5, 0.25)


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
def test_many_values(folder, dtype):
    pixels = np.random.default_rng(0).integers(0, 60000, (100, 700)).astype(dtype)
    image = dataclasses.replace(
        images.from_array(pixels, "yx"), scale=(1.0, 1.0), units=(None,) * 2
    )
    result = Result("out.zarr", "cells", image, {}, {}, {})
    path = folder / f"{np.dtype(dtype)}.ome.tif"
    with tasks.threads(1) as pool:
        ometiff.OmeTiff().write(result, str(path), Choice(), pool, lambda record: None)
    check_schema(path)
    np.testing.assert_array_equal(tifffile.imread(path), pixels)
    np.testing.assert_array_equal(tifffile.imread(path, level=1), pixels[::2, ::2])


def test_steps_of_levels_that_are_not_stored(monkeypatch):
    """Of sizes that no step divides, as of volumes, whose stored levels have fewer planes."""
    monkeypatch.setattr(ometiff, "TILE", 2)
    for edge in range(1, 600, 7):
        labels = images.from_array(np.zeros((2, 1, edge), np.uint8), "zyx")
        found = ometiff.levels(Result("out.zarr", "a", labels, {}, {}, {}))
        for number, (image, step, shape) in enumerate(found):
            assert image is labels
            assert step == 2**number
            assert shape == (2, 1, len(range(0, edge, step)))


def test_names_that_xml_cannot_hold(tmp_path):
    pixels = np.ones((4, 5), np.uint8)
    image = images.from_array(pixels, "yx")
    names = {1: "a\uffff\ufffe\x00\ud800b"}
    result = Result("out.zarr", "cells\uffff", image, names, {1: (1, 2, 3)}, {})
    with tasks.threads(1) as pool:
        ometiff.OmeTiff().write(
            result, str(tmp_path / "a.tif"), Choice(), pool, lambda record: None
        )
    check_schema(tmp_path / "a.tif")


def test_stored_levels_are_read(tmp_path, monkeypatch):
    """Each as it is, and coarser ones by steps from the last."""
    monkeypatch.setattr(ometiff, "TILE", 64)
    image = (np.random.default_rng(0).random((1101, 30)) * 255).astype(np.uint8)
    options = {"prototypes": [[50], [200]], "time": 1e-3, "tile": 256}
    tiledlaf.label(image, tmp_path / "out.zarr", copy_image=False, overview=False, **options)
    result = open_result(tmp_path / "out.zarr")
    found = ometiff.levels(result)
    stored = len(result.labels.levels)
    assert 1 < stored < len(found)
    assert [step for _, step, _ in found[:stored]] == [1] * stored
    assert [step for _, step, _ in found[stored:]] == [
        2 ** (n + 1) for n in range(len(found) - stored)
    ]
    tiledlaf.export(tmp_path / "out.zarr", tmp_path / "a.tif")
    whole = pixels_of(tmp_path / "out.zarr")
    for number in range(len(found)):
        pixels = tifffile.imread(tmp_path / "a.tif", level=number)
        np.testing.assert_array_equal(pixels, whole[:: 2**number, :: 2**number])
