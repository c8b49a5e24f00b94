"""Objects as files: polygons with measurements, label images and tables."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import shapely
import tifffile
from command import run

import tiledlaf
from tiledlaf.pool import tasks
from tiledlaf.results import objects, polygons
from tiledlaf.results.exporting import Choice
from tiledlaf.results.formats.geojson import GeoJson
from tiledlaf.results.result import open_result


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("objects")


@pytest.fixture(scope="module")
def output(folder):
    rng = np.random.default_rng(0)
    image = np.kron(rng.integers(0, 3, (30, 40)), np.ones((3, 3))).astype(np.uint8)
    np.save(folder / "image.npy", image)
    out = folder / "out.zarr"
    options = {"prototypes": [[0], [1], [2]], "time": 0.1, "tile": 32, "input_pixel_size": 0.5}
    tiledlaf.label(str(folder / "image.npy"), out, names=["a", "b", "c"], **options)
    return out


@pytest.mark.parametrize("connectivity", ["full", "face"])
@pytest.mark.parametrize("edge", [7, 32, 2048])
def test_polygons_are_those_of_the_objects(folder, output, edge, connectivity, monkeypatch):
    found = tiledlaf.objects(output, "b", connectivity=connectivity)
    monkeypatch.setattr(polygons, "EDGE", edge)
    path = folder / "a.geojson"
    with tasks.threads(2) as pool:
        GeoJson().write(
            open_result(output), str(path), Choice(objects="b"), pool, lambda record: None
        )
    with open(path, encoding="utf-8") as file:
        features = json.load(file)["features"]
    pixels, table = found.labels.read((slice(0, 90), slice(0, 120)))[0], found.table
    assert sorted(int(one["properties"]["name"]) for one in features) == list(
        range(1, found.count + 1)
    )
    assert len({one["id"] for one in features}) == found.count
    for one in features:
        number = int(one["properties"]["name"])
        shape = shapely.from_geojson(json.dumps(one["geometry"]))
        assert shapely.is_valid(shape)
        expected = [shapely.box(x, y, x + 1, y + 1) for y, x in np.argwhere(pixels == number)]
        assert shapely.equals(shape, shapely.union_all(expected))
        assert one["properties"]["objectType"] == "detection"
        assert one["properties"]["classification"] == {"name": "b", "color": [230, 159, 0]}
        measured = one["properties"]["measurements"]
        assert measured["area"] == shape.area == table["area"][number - 1]
        assert measured["centroid_x"] + 0.5 == pytest.approx(shape.centroid.x)
        assert not {"label", "min_y"} & set(measured)


def test_of_the_command(folder, output, monkeypatch):
    """Those of default settings are made if there are none; those that are there are taken."""
    monkeypatch.chdir(folder)
    assert run("export", "out.zarr", "c.csv", "--objects", "c").code == 0
    found = tiledlaf.objects(output, "c")
    head, *rows = csv.reader(Path("c.csv").read_text().splitlines())
    assert head == list(found.table)
    assert [int(row[0]) for row in rows] == list(range(1, found.count + 1))
    np.testing.assert_array_equal([float(row[head.index("area_um2")]) for row in rows],
                                  found.table["area_um2"])  # fmt: skip
    few = tiledlaf.objects(output, "c", min_size="40px")
    assert 0 < few.count < found.count
    assert run("export", "out.zarr", "c.ome.tif", "--objects", "c").code == 0
    pixels = few.labels.read((slice(0, 90), slice(0, 120)))[0]
    np.testing.assert_array_equal(tifffile.imread("c.ome.tif"), pixels)
    assert run("export", "out.zarr", "c.geojson", "--objects", "c", "--simplify", "1").code == 0
    features = json.loads(Path("c.geojson").read_text())["features"]
    assert len(features) == few.count
    for one in features:
        assert shapely.is_valid(shapely.from_geojson(json.dumps(one["geometry"])))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--objects d", "--objects expects one of the classes a, b, c, got 'd'"),
        ("--objects c --classes c", "expected at most one of --classes and --objects"),
    ],
)
def test_refused(folder, output, monkeypatch, given, message):
    monkeypatch.chdir(folder)
    found = run("export", "out.zarr", "d.csv", *given.split())
    assert (found.code, found.err) == (2, f"tiledlaf: error: {message}\n")
    assert not Path("d.csv").exists()
    assert objects.group_of("tiledlaf", "d") == "labels/tiledlaf-d"


def test_what_is_no_number_is_no_measurement(folder, output, monkeypatch):
    """JSON has none."""
    found = objects.Objects.table.fget
    table = property(lambda self: found(self) | {"area": found(self)["area"] * np.nan})
    monkeypatch.setattr(objects.Objects, "table", table)
    tiledlaf.export(output, folder / "nan.geojson", objects="b")
    text = (folder / "nan.geojson").read_text()
    assert "NaN" not in text
    measured = json.loads(text)["features"][0]["properties"]["measurements"]
    assert "area" not in measured
    assert "area_um2" in measured


@pytest.mark.parametrize("edge", [8, None])
def test_an_object_of_two_parts_in_a_plane(folder, monkeypatch, edge):
    """A bow that is one object in the volume is one feature, though rows of tiles lie between."""
    volume = np.zeros((2, 40, 12), np.uint8)
    volume[0, 2:38, 3:6] = volume[1, 2:5, 3:6] = volume[1, 30:38, 3:6] = 1
    options = {"prototypes": [[0], [1]], "names": ["a", "b"], "time": 0.01, "axes": "zyx"}
    tiledlaf.label(volume, folder / "bow.zarr", overview=False, **options)
    # also where the last part ends with a row of tiles, which does not say that none follows
    edge = edge or int(tiledlaf.objects(folder / "bow.zarr", "b").table["max_y"][0])
    monkeypatch.setattr(polygons, "EDGE", edge)
    tiledlaf.export(folder / "bow.zarr", folder / "bow.geojson", objects="b", z=1, overwrite=True)
    (one,) = json.loads((folder / "bow.geojson").read_text())["features"]
    shape = shapely.from_geojson(json.dumps(one["geometry"]))
    plane = tiledlaf.objects(folder / "bow.zarr", "b").labels.read(np.s_[1:2, :40, :12])[0, 0]
    boxes = [shapely.box(x, y, x + 1, y + 1) for y, x in np.argwhere(plane)]
    assert shapely.equals(shape, shapely.union_all(boxes))
    assert len(shapely.get_parts(shape)) == 2
