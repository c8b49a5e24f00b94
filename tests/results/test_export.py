"""`export`: formats by suffix, whole files, nothing over what is there."""

import csv
import errno
import json
import os
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tifffile
import zarr
from command import run

import tiledlaf
from tiledlaf.files import stores
from tiledlaf.model import classes
from tiledlaf.pool.opening import Running
from tiledlaf.results import pictures, polygons, targets
from tiledlaf.results.formats import ometiff, png


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def output(folder):
    image = np.random.default_rng(0).integers(0, 255, (40, 50), dtype=np.uint8)
    names = ["a, b", "=c"]
    tiledlaf.label(image_at(image), "out.zarr", classes=2, names=names, overview=False)
    return "out.zarr"


def image_at(image):
    np.save("image.npy", image)
    return "image.npy"


def test_areas(output):
    found = run("export", output, "areas.csv")
    assert found == (0, "written: areas.csv\n", "")
    with open("areas.csv", newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["value", "class", "pixels", "share"]
    assert [row[:2] for row in rows] == [["1", "a, b"], ["2", "'=c"]]
    assert sum(int(row[2]) for row in rows) == 40 * 50
    assert sum(float(row[3]) for row in rows) == 1
    tiledlaf.export(output, "one.csv", classes="=c")
    assert Path("one.csv").read_text().splitlines()[1:] == [",".join(rows[1])]


def test_areas_have_units(folder):
    tiledlaf.label(
        image_at(np.eye(8)), "out.zarr", classes=2, input_pixel_size=0.5, copy_image=False
    )
    tiledlaf.export("out.zarr", "areas.csv")
    head, *rows = csv.reader(Path("areas.csv").read_text().splitlines())
    assert head[-1] == "area_um2"
    assert [float(row[-1]) for row in rows] == [int(row[2]) / 4 for row in rows]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("out.zarr areas.doc", "areas.doc: expected a file ending .csv, "),
        ("out.zarr areas.csv --simplify 1", "--simplify is nothing that CSV knows"),
        ("out.zarr areas.csv --classes c", "--classes expects some of a, b, =c, got c"),
        ("out.zarr none/areas.csv", "none/areas.csv: expected a file in a folder that exists"),
        ("none.zarr areas.csv", "none.zarr: no such file or folder"),
        ("image.npy areas.csv", "image.npy: expected an output with labels of tiledlaf, got none"),
        ("out.zarr there.csv", "there.csv: expected a new file, got one that is there (--overwrit"),
    ],
)
def test_refused(output, given, message):
    Path("there.csv").write_text("mine")
    found = run("export", *given.split())
    assert (found.code, found.out) == (2, "")
    assert found.err.startswith(f"tiledlaf: error: {message}")
    assert found.err.count("\n") == 1
    assert {p.name for p in Path().iterdir()} == {"image.npy", "out.zarr", "there.csv"}
    assert Path("there.csv").read_text() == "mine"


def test_of_a_run(folder):
    """`label --export` writes the same files, and again where the run is complete already."""
    image_at(np.random.default_rng(0).integers(0, 255, (40, 50), dtype=np.uint8))
    for name in ("a.csv", "a.geojson", "a.ome.tif"):
        for _ in range(2):
            found = run("label", "image.npy", "out.zarr", "--classes", "2", "--export", name)
            assert found.code == 0, found
        assert run("export", "out.zarr", f"b{name}").code == 0
        if name != "a.ome.tif":  # which has an identity of its own
            assert Path(name).read_bytes() == Path(f"b{name}").read_bytes()


def test_of_a_run_on_a_volume(folder):
    np.save("volume.npy", np.zeros((3, 8, 9), np.uint8))
    given = ("label", "volume.npy", "out.zarr", "--axes", "zyx", "--prototypes", "p.csv")
    Path("p.csv").write_text("0\n1\n")
    found = run(*given, "--export", "a.geojson")
    assert found.code == 2
    assert "--export a.geojson: GeoJSON holds one plane, got {'z': 3}; " in found.err
    assert not Path("out.zarr").exists()
    assert run(*given, "--export", "a.tif").code == 0
    assert run("export", "out.zarr", "a.geojson", "--z", "2").code == 0


@pytest.mark.parametrize("name", ["a.geojson", "a.ome.tif"])
def test_ctrl_c_leaves_nothing(output, monkeypatch, name):
    def cut(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("tiledlaf.files.image.read", cut)
    found = run("export", output, name)
    assert found.code == 130
    assert found.err.endswith("tiledlaf: interrupted; the same command starts anew\n")
    assert {p.name for p in Path().iterdir()} == {"image.npy", "out.zarr"}


def test_unfinished_labels_are_refused(output):
    records = next(Path("out.zarr").rglob("tiledlaf.jsonl"))
    records.write_text("\n".join(records.read_text().splitlines()[:1]) + "\n")
    found = run("export", output, "a.geojson")
    assert found.code == 2
    assert "expected finished labels" in found.err
    assert not Path("a.geojson").exists()


def test_progress(output):
    told = []
    tiledlaf.export(output, "a.geojson", progress=told.append)
    assert told == [{"stage": "polygons", "done": 1, "of": 1}]
    with pytest.raises(ValueError, match="`progress` expects a function"):
        tiledlaf.export(output, "b.geojson", progress=3)


def test_picture(folder, monkeypatch):
    """Colors of the classes, of a bounded size, under a line that says what is shown."""
    image = np.kron(np.random.default_rng(0).integers(0, 2, (9, 12)), np.ones((64, 64)))
    tiledlaf.label(image_at(image), "out.zarr", classes=2, names=["a", "b"], copy_image=False)
    tiledlaf.export("out.zarr", "whole.png")
    labels = np.asarray(zarr.open_array("out.zarr/labels/tiledlaf/0", mode="r")[:])
    expected = classes.palette(2)[labels]
    for edge, step in ((2048, 1), (300, 4)):
        monkeypatch.setattr(png, "EDGE", edge)
        monkeypatch.setattr(ometiff, "TILE", 64)
        tiledlaf.export("out.zarr", "a.png", overwrite=True)
        with PIL.Image.open("a.png") as picture:
            pixels = np.asarray(picture.convert("RGB"))
        shown = expected[::step, ::step]
        times = max(1, 480 // shown.shape[1])
        shown = shown.repeat(times, 0).repeat(times, 1)
        found = pixels[30 : 30 + len(shown), 8 : 8 + shown.shape[1]]
        np.testing.assert_array_equal(found, shown)


@pytest.mark.slow
def test_worker_processes(folder, monkeypatch):
    """The same bytes as of threads, tile by tile."""
    monkeypatch.setattr(polygons, "EDGE", 32)
    pixels = np.random.default_rng(0).integers(0, 255, (90, 100), dtype=np.uint8)
    tiledlaf.label(image_at(pixels), "out.zarr", classes=3)
    tiledlaf.export("out.zarr", "a.geojson")
    running = Running(2, "processes")
    tiledlaf.export("out.zarr", "b.geojson", running=running)
    assert sorted(Path("a.geojson").read_text()) == sorted(Path("b.geojson").read_text())
    tiledlaf.export("out.zarr", "a.csv", objects="class 2")
    tiledlaf.export("out.zarr", "c.geojson", objects="class 2", running=running)
    with open("a.csv", newline="") as table, open("c.geojson") as drawn:
        assert len(table.readlines()) - 1 == len(json.load(drawn)["features"])


def test_on_an_object_store(output, monkeypatch, tmp_path):
    """Polygons of labels there, to there; nothing beside them stays here."""
    obstore = pytest.importorskip("obstore")
    kept = obstore.store.from_url

    def place(url, **options):
        path = tmp_path / "cloud" / url.partition("://")[2]
        path.mkdir(parents=True, exist_ok=True)
        return kept(path.as_uri())

    monkeypatch.setattr(obstore.store, "from_url", place)
    stores._bucket.cache_clear()
    found = run("label", "image.npy", "s3://bucket/out.zarr", "--classes", "2")
    assert found.code == 0, found
    for name in ("a.geojson", "a.csv", "a.tif"):
        found = run("export", "s3://bucket/out.zarr", f"s3://bucket/files/{name}")
        assert found == (0, f"written: s3://bucket/files/{name}\n", ""), found
        assert run("export", "out.zarr", name).code == 0
    stores._bucket.cache_clear()
    there = tmp_path / "cloud/bucket/files"
    assert {p.name for p in there.iterdir()} == {"a.geojson", "a.csv", "a.tif"}
    here, cloud = (
        [one["geometry"] for one in json.loads((p / "a.geojson").read_text())["features"]]
        for p in (Path(), there)
    )
    assert here == cloud != []
    assert (there / "a.csv").read_text().startswith("value,class,pixels,share\n")
    np.testing.assert_array_equal(tifffile.imread(there / "a.tif"), tifffile.imread("a.tif"))


def test_classes_by_value(output):
    """Of a name with a comma, which the command cannot spell."""
    assert run("export", output, "a.csv", "--classes", "1").code == 0
    assert Path("a.csv").read_text().splitlines()[1].startswith('1,"a, b",')
    tiledlaf.export(output, "b.csv", classes=[2, "a, b"])
    assert len(Path("b.csv").read_text().splitlines()) == 3
    with pytest.raises(ValueError, match="`classes` expects one or more classes, got none"):
        tiledlaf.export(output, "c.csv", classes=())


def test_a_store_keeps_its_format(output):
    Path("link").symlink_to("out.zarr")
    for place in ("out.zarr/a.csv", "out.zarr/labels/a.csv", "link/a.csv"):
        found = run("export", output, place)
        assert (found.code, found.out) == (2, "")
        assert f"{place}: expected a place outside of out.zarr" in found.err
    assert run("export", output, "out.zarr.csv").code == 0
    again = ("label", "image.npy", "out.zarr", "--classes", "2", "--overwrite", "--export")
    for place in ("out.zarr/a.csv", "out.zarr/a.png"):
        found = run(*again, place)
        assert found.code == 2
        assert f"{place}: expected a place outside of out.zarr" in found.err


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_appears_meanwhile_stays(folder, monkeypatch, links):
    """Also where a file system has no links, as FAT; then as well, of two writers one succeeds."""
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "")))

    def write(theirs=""):
        with targets.written("a.csv") as part:
            Path(part).write_text("ours")
            if theirs:
                Path("a.csv").write_text(theirs)

    with pytest.raises(ValueError, match="expected a new file"):
        write("theirs")
    assert Path("a.csv").read_text() == "theirs"
    kept = os.path.lexists  # which another program is quicker than
    monkeypatch.setattr(os.path, "lexists", lambda path: False)
    with pytest.raises(ValueError, match="expected a new file"):
        write()
    assert Path("a.csv").read_text() == "theirs"
    monkeypatch.setattr(os.path, "lexists", kept)
    with targets.written("b.csv") as part:
        Path(part).write_text("ours")
    assert Path("b.csv").read_text() == "ours"
    assert {p.name for p in Path().iterdir()} == {"a.csv", "b.csv"}


def test_a_folder_that_is_read_only(output, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    found = run("export", output, "a.csv")
    assert found.code == 2
    assert "a.csv: expected a place to write, but " in found.err
    assert found.err.endswith(" is read-only\n")


def test_nothing_stays_of_a_file_that_cannot_be_put_into_place(folder, monkeypatch):
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "")))
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "")))
    with pytest.raises(OSError, match="5"), targets.written("a.csv") as part:
        Path(part).write_text("ours")
    assert not list(Path().iterdir())


def picture(path):
    with PIL.Image.open(path) as found:
        return np.asarray(found.convert("RGB")).astype(int)


def test_picture_has_a_scale_bar(folder):
    """A black bar of a round length below the picture; of anisotropic pixels along x."""
    image = np.tile(np.arange(500) % 2, (400, 1))
    tiledlaf.label(
        image_at(image), "out.zarr", classes=2, input_pixel_size=(2, 0.5), overview=False
    )
    tiledlaf.export("out.zarr", "a.png")
    below = picture("a.png")[30 + 400 :]
    black = (below == 0).all(axis=2).sum(axis=1)
    assert 101 in black  # 50 µm, of 250 µm at most a third; both ends are drawn
    tiledlaf.label(image_at(image), "bare.zarr", classes=2, overview=False)
    tiledlaf.export("bare.zarr", "b.png")
    below = picture("b.png")[30 + 400 :]
    assert (below == 0).all(axis=2).sum(axis=1).max() < 90


def test_picture_of_many_classes(folder, monkeypatch):
    """The legend has those that cover most, and rows are read a few at a time."""
    names = [f"class {n}" for n in range(1, 70)]
    image = np.kron(np.arange(70 * 9).reshape(21, 30) % 69, np.ones((4, 4)))
    options = {"prototypes": [[n] for n in range(69)], "time": 1e-3, "names": names}
    tiledlaf.label(image_at(image), "out.zarr", copy_image=False, overview=False, **options)
    drawn = []
    monkeypatch.setattr(
        pictures, "sheet", lambda *given: drawn.append(given) or PIL.Image.new("L", (1, 1))
    )
    tiledlaf.export("out.zarr", "a.png")
    monkeypatch.setattr(png, "BAND", 1)
    tiledlaf.export("out.zarr", "b.png")
    np.testing.assert_array_equal(drawn[0][0], drawn[1][0])
    legend = [name for name, _ in drawn[0][1]]
    assert len(legend) == png.LISTED + 1
    assert legend[-1] == "and 9 more classes"
    counts = np.unique(
        zarr.open_array("out.zarr/labels/tiledlaf/0", mode="r")[:], return_counts=True
    )
    most = counts[0][np.argsort(-counts[1], kind="stable")][: png.LISTED]
    assert set(legend[:-1]) == {names[value - 1] for value in most}
