"""The overview that a run ends with: what it shows, whose it is, and when it changes."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import zarr
from cloud import standing_in
from command import contents, run

import tiledlaf
from tiledlaf.errors import TiledlafWarning
from tiledlaf.files import stores
from tiledlaf.files.selection import Selection
from tiledlaf.labeling import beside, claiming, overview, request
from tiledlaf.labeling.areas import Area
from tiledlaf.labeling.output import Output
from tiledlaf.labeling.plan import Writing
from tiledlaf.model.classes import color
from tiledlaf.results.overview import draw, thumbnail
from tiledlaf.results.result import open_result

PICTURE = "out.zarr.overview.png"
LABEL = ("label", "image.npy", "out.zarr", "--classes", "2", "--tile", "64", "--workers", "1")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("image.npy", image())
    return tmp_path


def image():
    """Dark left of column 96, bright right of it."""
    pixels = np.random.default_rng(0).integers(0, 40, (128, 160), dtype=np.uint8)
    pixels[:, 96:] += 180
    return pixels


def done(*arguments):
    found = run(*arguments)
    assert (found.code, found.err.count("warning")) == (0, 0), found
    return found.out


def said(path=PICTURE):
    with PIL.Image.open(path) as picture:
        return json.loads(picture.text["tiledlaf"])


def test_a_run_ends_with_a_table_and_a_picture(here):
    found = done(*LABEL)
    lines = found.splitlines()
    assert lines[4] == f"overview: {PICTURE}"
    table = [line.split() for line in lines[1:4]]
    assert table == [
        ["class", "pixels", "share"],
        ["1", "class", "1", str(128 * 96), "60.0", "%"],
        ["2", "class", "2", str(128 * 64), "40.0", "%"],
    ]
    with PIL.Image.open(PICTURE) as picture:
        sheet = np.asarray(picture)
        assert 600 < max(picture.size) < 1300
    assert said() | {"of": ""} == {
        **{"program": "tiledlaf", "output": "out.zarr", "labels": "tiledlaf", "of": ""}
    }
    # both classes in their colors, in the proportions of the table; the legend adds two squares
    count = [(sheet == color(v)[:3]).all(axis=-1).sum() for v in (1, 2)]
    assert count[0] / sum(count) == pytest.approx(0.6, abs=0.01)


def test_a_run_of_complete_labels_changes_nothing(here):
    done(*LABEL)
    before = {p: p.stat().st_mtime_ns for p in here.rglob("*")}
    assert f"overview: {PICTURE}" in done(*LABEL)
    assert {p: p.stat().st_mtime_ns for p in here.rglob("*")} == before
    os.remove(PICTURE)  # but draws what is missing
    done(*LABEL)
    del before[here / PICTURE]
    now = {p: p.stat().st_mtime_ns for p in here.rglob("*")}
    assert {p: now[p] for p in before} == before
    assert Path(PICTURE).is_file()


def test_without(here):
    assert "overview" not in done(*LABEL, "--no-overview")
    assert sorted(os.listdir()) == ["image.npy", "out.zarr"]
    found = tiledlaf.label(image(), "b.zarr", classes=2, overview=False)
    assert found.overview is None
    assert sorted(os.listdir()) == ["b.zarr", "image.npy", "out.zarr"]
    tiledlaf.label(image(), classes=2)
    assert sorted(os.listdir()) == ["b.zarr", "image.npy", "out.zarr"]


def test_python_does_the_same(here):
    found = tiledlaf.label(image(), here / "out.zarr", classes=2)
    assert found.overview == str(here / PICTURE)
    assert [(a.name, a.pixels) for a in found.areas[1:]] == [
        ("class 1", 128 * 96),
        ("class 2", 128 * 64),
    ]
    assert Path(PICTURE).is_file()


@pytest.mark.parametrize("kind", ["picture", "text", "link", "dangling", "folder", "another's"])
def test_files_of_others_are_left_alone(here, kind):
    if kind == "picture":
        PIL.Image.new("RGB", (3, 3)).save(PICTURE)
    elif kind == "text":
        Path(PICTURE).write_text("mine")
    elif kind == "folder":
        Path(PICTURE).mkdir()
    elif kind == "dangling":
        os.symlink("nowhere", PICTURE)
    elif kind == "link":
        done(*LABEL)
        os.rename(PICTURE, "own.png")
        shutil.rmtree("out.zarr")
        os.symlink("own.png", PICTURE)
    else:
        done("label", "image.npy", "b.zarr", "--classes", "2")
        shutil.copy("b.zarr.overview.png", PICTURE)
    before = contents(here)
    found = run(*LABEL)
    assert found.code == 0, found
    assert found.err.count("warning") == 1
    assert f"{PICTURE}: this is not an overview of labels/tiledlaf" in found.err
    assert "--overview" not in found.err
    assert "overview:" not in found.out
    now = contents(here)
    assert {name: now.get(name) for name in before} == before
    assert os.path.islink(PICTURE) == (kind in ("link", "dangling"))
    assert not list(here.glob("*.partial"))


def test_labels_that_are_begun_anew_take_their_picture_away(here, monkeypatch):
    done(*LABEL)
    first = Path(PICTURE).read_bytes()
    other = (*LABEL, "--rho", "0.5", "--overwrite")

    def interrupt(*given):
        assert not os.path.lexists(PICTURE)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(overview, "finish", interrupt)
        assert run(*other).code == 130
    assert not os.path.lexists(PICTURE)
    done(*other[:-1])
    assert Path(PICTURE).read_bytes() != first


@pytest.mark.parametrize("gone", [False, True])
def test_a_kill_while_labels_are_claimed_leaves_no_earlier_picture(here, monkeypatch, gone):
    """Before the labels of another run are in place; also where somebody has removed the old."""
    done(*LABEL)
    if gone:
        shutil.rmtree("out.zarr/labels/tiledlaf")
    other = (*LABEL, "--rho", "0.5", "--overwrite")

    def interrupt(*given):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(claiming, "renamed" if gone else "_move_away", interrupt)
        assert run(*other).code == 130
    assert not os.path.lexists(PICTURE)
    assert os.path.exists("out.zarr/labels/tiledlaf/zarr.json") != gone
    if not gone:  # the earlier labels are still there, and their command draws them again
        done(*LABEL)
        assert Path(PICTURE).is_file()


def test_a_start_that_is_refused_takes_no_picture(here, monkeypatch):
    done(*LABEL)
    before = Path(PICTURE).read_bytes()
    monkeypatch.setattr(claiming.records, "is_locked", lambda place: True)
    assert run(*LABEL, "--rho", "0.5", "--overwrite").code == 2
    assert Path(PICTURE).read_bytes() == before


@pytest.fixture
def cloud(here):
    with standing_in(here / "cloud"):
        yield here / "cloud"


def test_a_kill_while_labels_are_claimed_on_an_object_store(cloud, monkeypatch):
    label = [one.replace("out.zarr", "s3://bucket/out.zarr") for one in LABEL]
    label += ["--scheduler", "threads"]
    done(*label)
    picture = cloud / "bucket" / PICTURE
    assert picture.is_file()
    create = stores.Bucket.create

    def interrupt(bucket, key, data):
        found = create(bucket, key, data)
        if "claims" in key:
            raise KeyboardInterrupt
        return found

    with monkeypatch.context() as patch:
        patch.setattr(stores.Bucket, "create", interrupt)
        assert run(*label, "--rho", "0.5", "--overwrite").code == 130
    assert not picture.exists()
    (cloud / "bucket/out.zarr/labels/tiledlaf/0/tiledlaf.claims/000002").write_text("{")
    done(*label, "--rho", "0.5", "--overwrite")  # and one that is damaged is none
    assert picture.is_file()


def test_new_names_are_in_a_new_picture(here):
    done(*LABEL)
    first = said()
    Path("names.txt").write_text("dark\nbright\n")
    done(*LABEL, "--names", "names.txt")
    assert said()["of"] != first["of"]


def test_no_run_fails_by_its_picture(here, monkeypatch):
    def broken(*given):
        raise RuntimeError("no ink")

    monkeypatch.setattr(overview, "_drawn", broken)
    found = run(*LABEL)
    assert found.code == 0
    assert f"{PICTURE}: the overview was not drawn, RuntimeError: no ink" in found.err


def test_tiles_that_fail_are_counted(here):
    pixels = image().astype(np.float32)
    pixels[5, 5] = np.nan
    np.save("image.npy", pixels)
    found = run(*LABEL)
    assert found.code == 1
    assert f"0 not labeled    {64 * 64}  20.0 % of all" in found.out
    with PIL.Image.open(PICTURE) as picture:
        black = (np.asarray(picture) == 0).all(axis=-1).mean()
    assert black > 0.05


def test_several_labels_have_pictures_of_their_own(here):
    done(*LABEL)
    first = Path(PICTURE).read_bytes()
    done(*LABEL, "--name", "b", "--rho", "0.5")
    assert Path("out.zarr.b.overview.png").is_file()
    assert Path(PICTURE).read_bytes() == first


def ngff(path, pixels, axes, scale, unit, **more):
    root = zarr.open_group(path, mode="w")
    root.create_array("0", data=pixels, chunks=pixels.shape)
    named = [
        {"name": a, "type": "space", "unit": unit}
        if a in "zyx"
        else {"name": a, "type": "channel" if a == "c" else "time"}
        for a in axes
    ]
    data = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}]
    root.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [{"axes": named, "datasets": data}],
        **more,
    }


def test_into_the_input(here):
    ngff("in.zarr", image(), "yx", [250.0, 250.0], "nanometer")
    found = done("label", "in.zarr", "--into-input", "--classes", "2", "--workers", "1")
    assert f"{128 * 96 / 16:.0f} µm²" in found  # nanometers are understood
    picture = "in.zarr/labels/tiledlaf/0/overview.png"
    assert f"overview: {picture}" in found
    assert said(picture)["output"] == "in.zarr"
    assert sorted(os.listdir()) == ["image.npy", "in.zarr"]
    # readers of groups see no strange file, and the image is still the same input
    list(zarr.open_group("in.zarr", mode="r").members(max_depth=None))
    before = {p: p.stat().st_mtime_ns for p in here.rglob("*")}
    done("label", "in.zarr", "--into-input", "--classes", "2", "--workers", "1")
    assert {p: p.stat().st_mtime_ns for p in here.rglob("*")} == before


def test_volumes_and_series(here):
    pixels = np.stack([image()] * 5)
    ngff("v.zarr", pixels, "zyx", [2.0, 1.0, 1.0], "micrometer")
    found = done("label", "v.zarr", "out.zarr", "--classes", "2", "--workers", "1")
    assert "volume" in found
    assert "122880 µm³" in found
    result = open_result("out.zarr")
    first, second = thumbnail(result, 80)
    assert first.size == second.size == (80, 64)
    ngff("t.zarr", pixels, "tyx", [1.0, 1.0, 1.0], "micrometer")
    found = done("label", "t.zarr", "t-out.zarr", "--classes", "2", "--time-point", "all")
    assert max(draw(open_result("t-out.zarr")).size) <= 1300


def test_without_the_image(here):
    done(*LABEL, "--no-image")
    with PIL.Image.open(PICTURE) as picture:  # it is read from the input
        tones = len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0))
    assert tones > 40
    assert thumbnail(open_result("out.zarr"), 64)[0] is None


@pytest.mark.parametrize("name", ["labels.tif", "a.PNG", "a.ome.tiff", "a.geojson", "a.csv"])
def test_outputs_of_other_formats_are_refused(here, name):
    words = f"{name}: expected an OME-Zarr as OUTPUT"
    found = run("label", "image.npy", name, "--classes", "2")
    assert found.code == 2
    assert words in found.err
    with pytest.raises(tiledlaf.InputError, match="expected an OME-Zarr as OUTPUT"):
        tiledlaf.label(image(), name, classes=2)
    assert os.listdir() == ["image.npy"]


def test_export_stays(here):
    done(*LABEL, "--export", "labels.tif")
    assert Path("labels.tif").is_file()


def test_a_damaged_text_is_not_ours(here):
    done(*LABEL)
    out = Output("out.zarr", "tiledlaf")
    data = bytearray(Path(PICTURE).read_bytes())
    assert beside.held(out)
    data[data.index(b"out.zarr")] ^= 1
    Path(PICTURE).write_bytes(data)
    assert beside.held(out) == ""
    for cut in (0, 7, 20, 60):
        Path(PICTURE).write_bytes(data[:cut])
        assert beside.held(out) == ""


def test_no_overview_takes_the_place_of_an_input(here):
    """Not even where one is an overview itself, as of a slide for a talk."""
    done(*LABEL)
    shutil.rmtree("out.zarr")
    before = Path(PICTURE).read_bytes()
    with pytest.warns(TiledlafWarning, match="left as it is"):
        found = tiledlaf.label(PICTURE, "out.zarr", classes=2, workers=1)
    assert (found.overview, found.complete) == (None, True)
    assert Path(PICTURE).read_bytes() == before


@pytest.mark.parametrize("when", ["while it is drawn", "as it is written"])
def test_a_file_that_comes_meanwhile_stays(here, monkeypatch, when):
    drawn, create = overview._drawn, stores.Folder.create

    def draw(*given):
        if when == "while it is drawn":
            Path(PICTURE).write_text("mine")
        return drawn(*given)

    def made(place, key, data):
        if not key.endswith(PICTURE):
            return create(place, key, data)
        Path(PICTURE).write_text("mine")
        return False

    monkeypatch.setattr(overview, "_drawn", draw)
    monkeypatch.setattr(stores.Folder, "create", made)
    with pytest.warns(TiledlafWarning, match="left as it is"):
        assert tiledlaf.label(image(), "out.zarr", classes=2, workers=1).overview is None
    assert Path(PICTURE).read_text() == "mine"


def test_a_disk_that_takes_no_picture_fails_no_run(here, monkeypatch):
    def full(*given):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(beside, "put", full)
        found = run(*LABEL)
    assert found.code == 0
    assert f"{PICTURE}: the overview was not drawn, OSError: [Errno 28]" in found.err
    done(*LABEL)
    with monkeypatch.context() as patch:
        patch.setattr(beside, "held", full)
        found = run(*LABEL, "--rho", "0.5", "--overwrite")
    assert found.code == 0
    assert "this picture of earlier labels could not be removed, No space left" in found.err


def test_labels_that_are_begun_anew_as_theirs_are_drawn_have_no_picture(here, monkeypatch):
    put, check, there = beside.put, Output.check_mine, []

    def drawn(*given):
        there.append(put(*given))
        return there[0]

    def lost(out):
        if there:
            raise tiledlaf.OutputBelongsElsewhere("begun anew")
        check(out)

    monkeypatch.setattr(beside, "put", drawn)
    monkeypatch.setattr(Output, "check_mine", lost)
    assert run(*LABEL).code == 2
    assert there == [PICTURE]
    assert not os.path.exists(PICTURE)


def test_a_picture_of_other_labels_under_this_name_is_not_ours(here):
    done(*LABEL, "--name", "b")
    os.rename("out.zarr.b.overview.png", PICTURE)
    found = run(*LABEL)
    assert f"{PICTURE}: this is not an overview of labels/tiledlaf" in found.err


def test_places_of_odd_outputs(here):
    """A bucket has nothing beside it; a folder without a name has one all the same."""
    bucket = Output("s3://bucket", "tiledlaf")
    assert beside.path(bucket) == "s3://bucket/labels/tiledlaf/0/overview.png"
    assert beside.path(Output(".", "b")) == f"{here}.b.overview.png"
    assert beside.path(Output("a/", "tiledlaf")) == "a.overview.png"


def test_what_is_drawn_without_a_copy_is_what_was_labeled(here):
    np.save("two.npy", np.stack([image(), image()]))
    selection = Selection(axes="cyx", channels=(1,))
    writing = Writing(copy_image=False)
    given = {"classes": 2, "region": ((0, 64), (32, 160)), "selection": selection}
    plan = request.prepare("two.npy", "out.zarr", **given, writing=writing)
    shown, region = overview._pictured(plan, plan.out)
    assert (shown.channels, region) == ((1,), ((0, 32), (64, 128)))
    tiledlaf.label("two.npy", "out.zarr", classes=2, axes="cyx", channels=(1,), workers=1)
    plan = request.prepare("two.npy", "out.zarr", classes=2, selection=selection)
    shown, region = overview._pictured(plan, plan.out)
    assert (shown.channels, region) == ((1,), None)


def test_whatever_a_picture_says_draws_it_anew(here):
    """Also the start of its labels and the tiles that failed, which areas need not tell."""
    plan = request.prepare("image.npy", "out.zarr", classes=2)
    areas = [Area(0, "not labeled", 5, 0.5, None)]
    first = overview._content(plan, plan.out, areas, 0)
    assert first == overview._content(plan, plan.out, areas, 0)
    others = [
        overview._content(plan, plan.out, areas, 1),
        overview._content(plan, dataclasses.replace(plan.out, stamp="x"), areas, 0),
        overview._content(plan, plan.out, [dataclasses.replace(areas[0], name="b")], 0),
    ]
    assert len({first, *others}) == 4


def test_warnings_are_for_python_as_well(here):
    Path(PICTURE).write_text("mine")
    with pytest.warns(TiledlafWarning, match="as it is"):
        assert tiledlaf.label(image(), "out.zarr", classes=2).overview is None
