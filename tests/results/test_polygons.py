"""Polygons are the borders of the pixels, whatever the tiles, and come back as the same labels."""

import dataclasses
import json

import hypothesis
import numpy as np
import pytest
import shapely
import tifffile
from command import run
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import tiledlaf
from tiledlaf.annotations import numbering, opening
from tiledlaf.files import images
from tiledlaf.pool import tasks
from tiledlaf.results import polygons
from tiledlaf.results.exporting import Choice
from tiledlaf.results.formats.geojson import GeoJson
from tiledlaf.results.result import Result

NAMES = {1: "tumor", 2: 'say "é"', 3: "<b>"}
COLORS = {1: (200, 0, 0), 2: (0, 200, 0), 3: (0, 0, 200)}
SHAPES = st.tuples(st.integers(1, 14), st.integers(1, 14))
PIXELS = SHAPES.flatmap(lambda shape: arrays(np.uint8, shape, elements=st.integers(0, 3)))


def result_of(labels, axes="yx", region=None, ratio=1.0, micrometers=1.0, fixed=()):
    """Labels as an output that was labeled of a part of a coarser level of an image."""
    image = images.from_array(labels, axes, time_point="all" if "t" in axes else None)
    image = dataclasses.replace(
        image,
        scale=(micrometers * ratio,) * labels.ndim,
        units=("micrometer",) * labels.ndim,
    )
    origin = region or (0,) * labels.ndim
    grid = [n + 2 * o for n, o in zip(labels.shape, origin, strict=True)]
    whole = [*grid[:-2], *(round(n * ratio) for n in grid[-2:])]
    source = {"name": "image.tif", "whole": whole, "grid": grid, "fixed": list(fixed)}
    notes = {"settings": {"region": [list(origin), list(labels.shape)]}, "source": source}
    return Result("out.zarr", "tiledlaf", image, NAMES, COLORS, notes)


def written(result, path, edge=2048, **choice):
    """The GeoJSON of some labels, read."""
    with pytest.MonkeyPatch.context() as patch, tasks.threads(2) as pool:
        patch.setattr(polygons, "EDGE", edge)
        GeoJson().check(result, Choice(**choice))
        GeoJson().write(result, str(path), Choice(**choice), pool, lambda record: None)
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def shapes(found):
    return {
        one["properties"]["classification"]["name"]: shapely.from_geojson(
            json.dumps(one["geometry"])
        )
        for one in found["features"]
    }


def of_pixels(labels, value):
    return shapely.union_all(
        [shapely.box(x, y, x + 1, y + 1) for y, x in np.argwhere(labels == value)]
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("polygons")


# a piece that touches itself around a hole, a piece in a hole of a piece, neighbors by a corner
PATTERNS = (
    ["111", "101", "110"],
    ["11111", "10001", "10201", "10001", "11111"],
    ["1111111", "1222221", "1211121", "1212121", "1211121", "1222221", "1111111"],
    ["1010", "0101", "1010"],
    ["110011", "101101", "011110", "101101", "110011"],
    ["1"],
    ["0"],
)


@pytest.mark.parametrize("rows", PATTERNS)
@pytest.mark.parametrize("edge", [1, 2, 3, 64])
def test_patterns(folder, rows, edge):
    check_exact(folder, np.array([list(row) for row in rows]).astype(np.uint8), edge)


@hypothesis.given(PIXELS, st.integers(1, 15))
@hypothesis.settings(max_examples=60)
def test_geometry_is_that_of_the_pixels(folder, labels, edge):
    check_exact(folder, labels, edge)


def check_exact(folder, labels, edge):
    found = shapes(written(result_of(labels), folder / "a.geojson", edge))
    values = set(np.unique(labels)) - {0}
    assert set(found) == {NAMES[v] for v in values}
    for value in values:
        one = found[NAMES[value]]
        assert shapely.is_valid(one)
        assert shapely.equals(one, of_pixels(labels, value))
        for part in shapely.get_parts(one):  # no point too many; outer rings as RFC 7946 has them
            assert shapely.get_num_coordinates(shapely.simplify(part, 0)) == (
                shapely.get_num_coordinates(part)
            )
            assert part.exterior.is_ccw
            assert not any(inner.is_ccw for inner in part.interiors)


@hypothesis.given(
    PIXELS,
    st.integers(1, 15),
    st.tuples(st.integers(0, 5), st.integers(0, 5)),
    st.sampled_from([1.0, 2.0, 4.0, 1.7, 0.3]),
)
@hypothesis.settings(max_examples=40)
def test_labels_come_back(folder, labels, edge, region, ratio):
    """Drawn on the image's grid, as annotations are read for training."""
    hypothesis.assume(labels.any())
    result = result_of(labels, region=region, ratio=ratio)
    written(result, folder / "b.geojson", edge)
    source = result.notes["source"]
    whole, grid = tuple(source["whole"]), tuple(source["grid"])
    hypothesis.assume(min(whole) > 0)
    like = images.describe(np.empty(grid, np.uint8), "yx")
    like = dataclasses.replace(like, whole=whole, path="image.tif")
    drawn = opening.open_annotations(str(folder / "b.geojson"), like)
    values = {name: value for value, name in NAMES.items()}
    drawn = numbering.numbered_as(drawn, values)
    pixels = drawn.read(tuple(slice(0, n) for n in grid))[0]
    expected = np.zeros(grid, np.uint8)
    expected[tuple(slice(o, o + n) for o, n in zip(region, labels.shape, strict=True))] = labels
    np.testing.assert_array_equal(pixels, expected)


def smooth(seed, size=60):
    noise = np.random.default_rng(seed).standard_normal((3, size, size))
    from scipy.ndimage import gaussian_filter

    return (gaussian_filter(noise, (0, 3, 3)).argmax(axis=0) + 1).astype(np.uint8)


@pytest.mark.parametrize("edge", [7, 20, 64])
@pytest.mark.parametrize("ratio", [1.0, 1.7])
def test_simplified(folder, edge, ratio):
    labels = smooth(0)
    labels[10:20, 10:13] = 0
    exact = shapes(written(result_of(labels, ratio=ratio), folder / "a.geojson", edge))
    given = written(result_of(labels, ratio=ratio), folder / "a.geojson", edge, simplify=1.5)
    assert given["simplified_um"] == 1.5
    found = shapes(given)
    assert set(found) == set(exact)
    for name, one in found.items():
        assert shapely.is_valid(one)
        assert shapely.hausdorff_distance(one.boundary, exact[name].boundary) < 3 * ratio
    count = {k: sum(map(shapely.get_num_coordinates, v.values())) for k, v in
             {"found": found, "exact": exact}.items()}  # fmt: skip
    assert count["found"] < 0.8 * count["exact"]
    # neighbors keep their common border: nothing overlaps, nothing opens
    everything = shapely.union_all(list(found.values()), grid_size=1e-6)
    total = sum(one.area for one in found.values())
    assert total == pytest.approx(everything.area, abs=1e-3)
    assert everything.area == pytest.approx(
        (60 * ratio) ** 2 - 30 * ratio**2, abs=12 * ratio**2
    )  # but for the hole, whose border is simplified as well
    few = shapes(written(result_of(labels, ratio=ratio), folder / "a.geojson", edge, simplify=1.5,
                         classes=("tumor",)))  # fmt: skip
    assert {"tumor": few["tumor"]} == few
    assert shapely.equals_exact(few["tumor"].normalize(), found["tumor"].normalize())


@pytest.mark.parametrize("seed", range(3))
def test_simplified_noise(folder, seed):
    labels = np.random.default_rng(seed).integers(0, 4, (40, 40), dtype=np.uint8)
    for tolerance in (0.4, 2, 30):
        found = shapes(written(result_of(labels), folder / "a.geojson", 16, simplify=tolerance))
        for one in found.values():
            assert shapely.is_valid(one)


def test_planes(folder):
    labels = np.stack([smooth(1, 20), smooth(2, 20)])
    with pytest.raises(ValueError, match=r"expected `z` for one plane of 0 to 1"):
        written(result_of(labels, "zyx"), folder / "a.geojson")
    with pytest.raises(ValueError, match=r"`z` expects a plane of 0 to 1, got 2"):
        written(result_of(labels, "zyx"), folder / "a.geojson", z=2)
    found = written(result_of(labels, "zyx", region=(3, 0, 0)), folder / "a.geojson", z=1)
    assert all(one["geometry"]["plane"] == {"c": -1, "z": 4, "t": 0} for one in found["features"])
    assert shapely.equals(shapes(found)["tumor"], of_pixels(labels[1], 1))
    found = written(result_of(labels, "tyx"), folder / "a.geojson", time_point=0)
    assert shapely.equals(shapes(found)["tumor"], of_pixels(labels[0], 1))


def test_of_the_command(tmp_path, monkeypatch):
    """A part of a coarser level; the labels come back, by `evaluate`, without an error."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 255, (90, 120), dtype=np.uint8)
    options = {"resolution": (1e4, 1e4), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter("slide.tif") as file:
        file.write(pixels, tile=(32, 32), subifds=1, **options)
        file.write(pixels[::2, ::2], tile=(32, 32), subfiletype=1, **options)
    given = ("slide.tif", "out.zarr", "--classes", "3", "--level", "1")
    assert run("label", *given, "--region", "3:44,5:60").code == 0
    assert run("export", "out.zarr", "a.geojson") == (0, "written: a.geojson\n", "")
    found = tiledlaf.evaluate("out.zarr", "a.geojson")
    assert found.error == 0
    assert found.confusion.sum() == 41 * 55
    with open("a.geojson", encoding="utf-8") as file:
        first = json.load(file)["features"][0]
    assert first["properties"] == {
        "objectType": "annotation",
        "classification": {"name": "class 1", "color": [0, 114, 178]},
    }
    x0, y0, x1, y1 = shapely.from_geojson(json.dumps(first["geometry"])).bounds
    assert (x0, y0, x1, y1) == (10, 6, 120, 88)
