"""Polygons are the borders of the pixels, whatever the tiles, and come back as the same labels."""

import dataclasses
import json
import time

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
from tiledlaf.results import planes, polygons, simplifying
from tiledlaf.results.exporting import Choice
from tiledlaf.results.formats import geojson
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
@hypothesis.example(np.array([[1, 1]], np.uint8), 1, (0, 0), 1.7)  # half of the last pixel is there
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


def borders(shape, sizes):
    """The rings of a shape, in micrometers."""
    parts = shapely.get_parts(shape)
    rings = shapely.multilinestrings([r for p in parts for r in (p.exterior, *p.interiors)])
    return shapely.transform(rings, lambda points: points * sizes[::-1])


def check_simplified(folder, labels, edge, um, sizes=(1.0, 1.0), ratio=1.0):
    """Borders move by no more than that; neighbors stay neighbors, and holes holes."""
    result = result_of(labels, ratio=ratio)
    size = np.array(sizes) * ratio
    result = dataclasses.replace(
        result, labels=dataclasses.replace(result.labels, scale=tuple(size))
    )
    exact = shapes(written(result, folder / "a.geojson", edge))
    given = written(result, folder / "a.geojson", edge, simplify=um)
    assert given["simplified_um"] == um
    found = shapes(given)
    assert set(found) == set(exact)
    for name, one in found.items():
        assert shapely.is_valid(one)
        moved = shapely.hausdorff_distance(borders(one, sizes), borders(exact[name], sizes))
        assert moved <= um + 1e-3
        parts, before = (shapely.get_parts(shape) for shape in (one, exact[name]))
        assert sorted(len(p.interiors) for p in parts) == sorted(len(p.interiors) for p in before)
        assert all(p.exterior.is_ccw for p in parts)
    everything = shapely.union_all(list(found.values()), grid_size=1e-6)  # nothing overlaps
    assert everything.area == pytest.approx(sum(one.area for one in found.values()), abs=1e-2)
    if labels.all():  # and nothing opens
        assert everything.area == pytest.approx(labels.size * ratio**2, abs=1e-2)
    return exact, found


def points(found):
    return sum(map(shapely.get_num_coordinates, found.values()))


@pytest.mark.parametrize("edge", [7, 20, 64])
@pytest.mark.parametrize("ratio", [1.0, 1.7])
def test_simplified(folder, edge, ratio):
    labels = smooth(0)
    labels[10:20, 10:13] = 0
    exact, found = check_simplified(folder, labels, edge, 1.5, ratio=ratio)
    assert points(found) < 0.8 * points(exact)
    few = shapes(written(result_of(labels, ratio=ratio), folder / "a.geojson", edge, simplify=1.5,
                         classes=("tumor",)))  # fmt: skip
    assert few == {"tumor": found["tumor"]}


@hypothesis.given(PIXELS, st.integers(1, 15), st.sampled_from([0.4, 1, 3, 100]),
                  st.sampled_from([(1.0, 1.0), (3.0, 0.7)]))  # fmt: skip
@hypothesis.settings(max_examples=40)
def test_simplified_noise(folder, labels, edge, um, sizes):
    check_simplified(folder, labels, edge, um, sizes)


@pytest.mark.parametrize("seed", range(4))
def test_simplified_far(folder, seed):
    """Where lines would cross others, jump over what lies beside them, or fall together."""
    labels = smooth(seed, 50)
    labels[np.random.default_rng(seed).random(labels.shape) < 0.02] = 2
    for um in (0.7, 2, 6, 50):
        for sizes in ((1.0, 1.0), (0.3, 1.5)):
            check_simplified(folder, labels, 24, um, sizes)


def test_few_points_for_straight_borders(folder):
    """A slanted border of two classes is a line; a circle has corners by its radius."""
    y, x = np.mgrid[:200, :200]
    labels = np.where(y < x * 0.3 + 50, 1, 2).astype(np.uint8)
    _, found = check_simplified(folder, labels, 2048, 1)
    assert points(found) == 2 * 5
    labels = np.where(np.hypot(y - 100, x - 100) < 80, 3, 1).astype(np.uint8)
    _, found = check_simplified(folder, labels, 2048, 2)
    # the chord of an angle a lies r (1 - cos(a / 2)) within the circle
    least = np.pi / np.arccos(1 - 4 / 80)
    assert least < points({"<b>": found["<b>"]}) - 1 < 2.5 * least


def test_many_holes_need_no_more_time_each(folder):
    """Of 16 times as many holes, about 16 times as long: not 256."""
    spot = np.ones((12, 12), np.uint8)
    spot[3:9, 4:8] = spot[4:8, 3:9] = 2
    seconds = []
    for count in (20, 80):
        window, best = np.pad(np.tile(spot, (count, count)), 1), np.inf
        for _ in range(3):
            start = time.process_time()
            kept = simplifying.kept(window, (1.0, 1.0))
            best = min(best, time.process_time() - start)
        seconds.append(best)
        assert kept[1:-1, 1:-1].sum() == 4 * count**2
    assert seconds[1] < 48 * seconds[0]


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


def test_planes_of_a_coarser_level():
    """Whose planes stand for several: the position is that of the middle one."""
    result = result_of(np.ones((4, 6, 6), np.uint8), "zyx")
    result.notes["source"] |= {"whole": [12, 12, 12], "grid": [4, 6, 6]}
    assert [planes.plane(result, Choice(z=z)).position["z"] for z in range(4)] == [1, 4, 7, 10]


@pytest.mark.parametrize(
    "damage",
    [
        {"settings": {}},
        {"settings": {"region": None}},
        {"settings": {"region": [[0], [5, 5]]}},
        {"settings": {"region": [["a", 0], [5, 5]]}},
        {"source": {"whole": 3, "grid": [5, 5]}},
        {"source": {"whole": [5, 5], "grid": ["a", 5]}},
        {"source": {"fixed": [3]}},
    ],
)
def test_damaged_notes_are_one_line(damage):
    result = result_of(np.ones((5, 5), np.uint8))
    result = dataclasses.replace(result, notes={**result.notes, **damage})
    with pytest.raises(tiledlaf.DamagedFile, match="its notes on labels/tiledlaf cannot be read"):
        planes.plane(result, Choice())


def test_simplified_plane_of_unknown_depth(folder):
    """Only sizes along y and x count."""
    labels = np.stack([smooth(1, 40)] * 2)
    result = result_of(labels, "zyx")
    sizes = dataclasses.replace(result.labels, units=(None, "micrometer", "micrometer"))
    result = dataclasses.replace(result, labels=sizes)
    assert result.pixel_size is None
    found = shapes(written(result, folder / "a.geojson", simplify=1, z=0))
    assert points(found) < points(shapes(written(result, folder / "a.geojson", z=0)))
    bare = dataclasses.replace(sizes, units=(None, "micrometer", None))
    with pytest.raises(ValueError, match="`simplify` is in micrometers, and the pixel size is not"):
        written(dataclasses.replace(result, labels=bare), folder / "a.geojson", simplify=1, z=0)


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


@pytest.mark.parametrize("held", [1, 2**26])
def test_more_classes_than_a_process_may_open_files(folder, monkeypatch, held):
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(geojson, "HELD", held)  # polygons of a class lie in places of one file
    labels = np.random.default_rng(0).integers(0, 3000, (60, 70), dtype=np.uint16)
    labels[:, ::9] = 7
    names = {value: str(value) for value in range(1, 3000)}
    result = dataclasses.replace(
        result_of(labels), names=names, colors=dict.fromkeys(names, (0, 0, 0))
    )
    kept = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, kept[1]), kept[1]))
    try:
        found = shapes(written(result, folder / "a.geojson", 16))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, kept)
    assert {int(name) for name in found} == set(np.unique(labels).tolist()) - {0}
    for value in (7, int(labels[1, 1]), int(labels[59, 68])):
        assert shapely.equals(found[str(value)], of_pixels(labels, value))
