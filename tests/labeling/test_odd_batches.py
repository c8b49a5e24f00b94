"""Batches of odd inputs: names, tables, folders and outputs that are not as they should be."""

import json
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import seeds
import zarr
from cloud import standing_in
from command import run

import tiledlaf
from tiledlaf.errors import InputChanged, TiledlafWarning, Unavailable
from tiledlaf.files import stores
from tiledlaf.files.image import FileWarning
from tiledlaf.files.selection import Selection
from tiledlaf.labeling import batch, inputs
from tiledlaf.labeling.plan import Writing
from tiledlaf.reports import batches, slides
from tiledlaf.results.objects import read_objects
from tiledlaf.results.result import open_result

LABEL = ("--classes", "2", "--scheduler", "threads", "--workers", "1")
OPTIONS = {"scheduler": "threads", "workers": 1}


def save(path, seed=0):
    pixels = np.random.default_rng(seed).normal(60, 10, (32, 40))
    pixels[:, 20:] += 90
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    np.save(path, pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder holds slides/ with three images."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate("abc"):
        save(f"slides/{name}.npy", seed)
    return tmp_path


def names(*given, into="results"):
    return [inputs.name_of(one.output) for one in inputs.find(given, into)]


def states(path="results", name=None):
    return {one.name: one.state for one in slides.read(path, name).slides}


# folders


@pytest.mark.parametrize(
    ("into", "said"),
    [
        ("", "--into: expected a folder for the outputs, got an empty text"),
        ("s3://", "expected a URL such as s3://bucket/image.zarr"),
        ("https://host/out", "expected a place to write, such as s3://bucket/out"),
        ("store", "got a Zarr store"),
    ],
)
def test_a_place_that_is_none_is_refused(folder, into, said):
    """An empty text would be the root of the file system."""
    zarr.open_group("store", mode="w")
    found = run("label", "slides", "--into", into, *LABEL)
    assert found.code == 2
    assert said in found.err
    assert sorted(os.listdir()) == ["slides", "store"]


def test_a_folder_without_permission_is_refused(folder, monkeypatch):
    """Before anything is labeled, and also in what would be done."""
    os.mkdir("results")
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "results")
    for more in ((), ("--dry-run",)):
        found = run("label", "slides", "--into", "results", *LABEL, *more)
        assert found.code == 2
        assert "results is read-only" in found.err
    assert not os.listdir("results")


def test_no_images_are_said(folder):
    with pytest.raises(tiledlaf.InputError, match="expected images, got none"):
        tiledlaf.batch([], "results", classes=2)


@pytest.mark.parametrize("file", ["batch.json", "index.html", "summary.csv"])
def test_files_of_others_are_told_by_a_dry_run(folder, file):
    os.mkdir("results")
    Path("results", file).write_text("{}")
    found = run("label", "slides", "--into", "results", *LABEL, "--dry-run")
    assert found.code == 2
    assert f"results/{file}" in found.err


def test_what_lies_in_outputs_is_no_input(folder):
    """A glob that goes through all folders finds the arrays of earlier outputs."""
    into = "slides/out"
    assert run("label", "slides/**/*", "--into", into, *LABEL).code == 0
    with pytest.warns(FileWarning, match="left out"):
        assert names("slides/**", into=into) == ["a.zarr", "b.zarr", "c.zarr"]


def test_pictures_that_runs_have_drawn_are_no_inputs(folder):
    assert run("label", "slides/a.npy", "slides/one.npz.zarr", *LABEL).code == 0
    shutil.copytree("slides/one.npz.zarr", "in.zarr")
    assert run("label", "in.zarr", "--into-input", "--name", "b", *LABEL).code == 0
    assert Path("slides/one.npz.zarr.overview.png").exists()
    shutil.copy("in.zarr/labels/b/0/overview.png", "slides/overview.png")
    (folder / "slides/own.overview.png").write_bytes(b"no picture")
    assert names("slides") == ["a.zarr", "b.zarr", "c.zarr", "one.npz.zarr", "own.overview.zarr"]


def test_a_name_that_is_not_in_utf_8(folder):
    os.rename("slides/a.npy", os.fsencode("slides/a") + b"\xff.npy")
    found = tiledlaf.batch("slides", "results", classes=2, **OPTIONS)
    assert [one.complete for one in found] == [True] * 3
    assert sorted(states()) == ["a\ufffd", "b", "c"]


# tables


def table(text, *more):
    Path("slides/t.csv").write_bytes(text.encode())
    return [(one.input, inputs.name_of(one.output)) for one in inputs.find(["slides/t.csv"], "r")]


def test_ends_of_lines_and_marks_of_spreadsheets(folder):
    expected = [("slides/a.npy", "x.zarr"), ("slides/b.npy", "b.zarr")]
    for text in (
        "input,output\na.npy,x\nb.npy,\n",
        "\ufeffinput;output\r\na.npy;x.zarr\r\nb.npy;\r\n\r\n;\r\n",
        "INPUT\tOutput\r a.npy\t x \rb.npy\t",
    ):
        assert table(text) == expected


def test_a_cell_may_hold_what_ends_lines(folder):
    save("slides/d\u2028e.npy")
    save("slides/f\ng.npy")
    found = table('input,output\nd\u2028e.npy,x\n"f\ng.npy",y\n')
    assert found == [("slides/d\u2028e.npy", "x.zarr"), ("slides/f\ng.npy", "y.zarr")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("input,output\na.npy,.zarr\n", "got '.zarr'"),
        ("input,output\na.npy,..\n", "got '..'"),
        ("input,output\na.npy,b/c\n", "got 'b/c'"),
        ("input\na\0.npy\n", "got a null byte"),
        ("input,output\na.npy,x\nb.npy,x.zarr\n", "name them in the column output"),
        ("input,output\na.npy,b\nb.npy,\n", "name them in the column output"),
    ],
)
def test_odd_cells_are_refused(folder, text, said):
    with pytest.raises(tiledlaf.InputError) as error:
        table(text)
    assert said in str(error.value)


def test_a_glob_of_tables_and_a_folder_called_like_one(folder):
    for name in "xy":
        Path(f"{name}.csv").write_text(f"input,output\nslides/a.npy,{name}\n")
    assert names("?.csv") == ["x.zarr", "y.zarr"]
    shutil.copytree("slides", "z.csv")
    assert names("z.csv") == ["a.zarr", "b.zarr", "c.zarr"]
    os.rename("x.csv", "x[1].csv")
    assert names("x[1].csv") == ["x.zarr"]


def test_one_name_for_all_images_of_a_file_is_refused(folder):
    seeds.series("slides/x.zarr")
    with pytest.raises(tiledlaf.InputError, match="no output of one name for 2 images"):
        table("input,output,series\nx.zarr,o,all\n")
    assert len(table("input,output,series\nx.zarr,o,1\n")) == 1
    assert names("slides/x.zarr") == ["x.zarr"]  # its largest: only of a plate all are meant


def test_an_image_called_tissue_lies_beside_its_table(folder):
    save("slides/any.npy")
    os.rename("slides/any.npy", "slides/tissue")
    assert table("input,mask\ntissue,tissue\n")[0][0] == "slides/tissue"


def test_what_a_table_says_of_one_image_counts(folder):
    """Level and pixel size stand for each other, and `series="all"` is no image's own."""
    item = inputs.Item("slides/a.npy", "results/a.zarr", {"level": 0})
    every = Selection(pixel_size=1.0, input_pixel_size=0.5)
    assert batch.plan_of(item, {"classes": 2, "selection": every}).job.grid.size == (32, 40)
    item = inputs.Item("slides/a.npy", "results/a.zarr", {"pixel_size": 1.0})
    every = Selection(level=0, input_pixel_size=0.5)
    with pytest.warns(FileWarning, match="16 x 20"):
        assert batch.plan_of(item, {"classes": 2, "selection": every}).job.grid.size == (16, 20)
    found = tiledlaf.batch("slides", "results", classes=2, series="all", **OPTIONS)
    assert [one.complete for one in found] == [True] * 3


def test_names_beside_a_model_are_refused(folder, monkeypatch):
    monkeypatch.setattr(batch, "loaded", lambda given: given)
    with pytest.raises(tiledlaf.InputError, match="the classes have names from their training"):
        batch.settled_choice({"model": object(), "writing": Writing(names=["a", "b"])})


def test_masks_that_do_not_fit_are_told(folder):
    save("masks/a.npy")
    found = run("label", "slides", "--into", "results", *LABEL, "--mask", "masks")
    assert found.code == 2
    assert "expected mask for 3 images, got 1; no mask for slides/b.npy, slides/c.npy" in found.err
    assert "(a table of inputs can name them in its column mask)" in found.err


def test_a_mask_of_its_own_counts_before_those_of_a_folder(folder):
    for path in ("masks/b_mask.npy", "own.npy"):
        save(path)
    Path("t.csv").write_text("input,mask\nslides/a.npy,own.npy\nslides/b.npy,\n")
    items, rest = inputs.paired(inputs.find(["t.csv"], "results"), {"mask": "masks"})
    assert [one.own["mask"] for one in items] == ["own.npy", "masks/b_mask.npy"]
    assert rest["mask"] is None


def test_one_mask_for_all_is_no_folder(folder):
    """Neither the word is, whatever lies there, nor a store, which is a folder as well."""
    save("tissue/a.npy")
    zarr.save_array("mask.zarr", np.ones((32, 40), np.uint8))
    items = inputs.find(["slides/a.npy"], "results")
    for mask in ("tissue", "mask.zarr", "slides/b.npy", "s3://bucket/mask.zarr"):
        assert inputs.paired(items, {"mask": mask}) == (items, {"mask": mask})


def test_a_dry_run_goes_on_where_a_reader_breaks(folder, monkeypatch):
    """As the run itself does, whatever a reader raises."""
    planned = batch.request.prepare

    def prepare(image, *rest, **options):
        if image == "slides/b.npy":
            raise RuntimeError("no such codec")
        return planned(image, *rest, **options)

    monkeypatch.setattr(batch.request, "prepare", prepare)
    found = run("label", "slides", "--into", "results", *LABEL, "--dry-run")
    assert found.code == 1
    assert "slides/b.npy: cannot be labeled, RuntimeError: no such codec" in found.out


def test_a_lost_pool_ends_the_batch_and_a_bad_image_does_not():
    class Lost:
        def map(self, *given):
            raise ConnectionError("gone")

    with pytest.raises(OSError, match="of the tile"):
        batch._check_alive(Lost(), OSError("of the tile"))
    batch._check_alive(Lost(), tiledlaf.InputError("of the image"))


def test_a_batch_beside_its_images_takes_its_pages_for_nothing(folder):
    for _ in range(2):
        found = run("label", "slides", "--into", "slides", *LABEL)
        assert (found.code, found.err.count("left out")) == (0, 0)


def test_what_may_pass_is_no_refusal():
    """The exit code 2 says that trying the same again does not help."""
    kinds = {InputChanged: False, Unavailable: False, tiledlaf.InputError: True}
    for kind, refused in {**kinds, OSError: False}.items():
        assert batch.Outcome("a.npy", "a.zarr", None, kind("x")).refused == refused


def test_an_output_of_another_image_is_left_alone(folder):
    Path("t.csv").write_text("input,output\nslides/a.npy,x\n")
    assert run("label", "t.csv", "--into", "results", *LABEL).code == 0
    Path("t.csv").write_text("input,output\nslides/b.npy,x\n")
    found = run("label", "t.csv", "--into", "results", *LABEL)
    assert found.code == 2
    assert "results/x.zarr belongs to another image" in found.err
    assert "(choose another --into)" in found.err


def test_a_glob_of_a_web_server_is_refused(folder):
    with pytest.raises(tiledlaf.InputError, match="a web server lists nothing"):
        names("https://host/slides/*.zarr")


# what goes wrong with one is of that one alone


def damage(how):
    place = Path("results/b.zarr/labels/tiledlaf/zarr.json")
    if how == "unreadable":
        place.write_text("{")
    else:
        place.write_text(place.read_text().replace('"settings"', '"other"', 1))


@pytest.mark.parametrize("how", ["unreadable", "without settings"])
def test_a_damaged_output_hides_no_others(folder, how):
    run("label", "slides", "--into", "results", *LABEL)
    damage(how)
    for page in ("index.html", "summary.csv"):
        os.remove(f"results/{page}")
    assert states() == {"a": "complete", "b": "refused", "c": "complete"}
    run("label", "slides", "--into", "results", *LABEL)
    assert Path("results/index.html").read_text().count("2 complete, 1 refused") == 1
    os.remove("results/batch.json")  # nor where no list names it
    assert states() | {"b": ""} == {"a": "complete", "b": "", "c": "complete"}


def test_damaged_pixels_cost_their_picture(folder):
    """The areas, which records tell, remain; the page says why there is no picture."""
    command = ("label", "slides", "--into", "results", *LABEL)
    run(*command)
    (chunk,) = Path("results/b.zarr/labels/tiledlaf/0/c").rglob("0/0")
    chunk.write_bytes(b"x" * chunk.stat().st_size)
    assert run(*command).code == 0
    page = Path("results/index.html").read_text()
    assert page.count("data:image/png;base64,") == 4
    assert "b.zarr/labels/tiledlaf cannot be read" in page
    assert Path("results/summary.csv").read_text().count("b.zarr,complete") == 3


def test_a_name_too_long_for_a_file(folder):
    Path("t.csv").write_text(f"input,output\nslides/a.npy,{'x' * 300}\nslides/b.npy,\n")
    found = run("label", "t.csv", "--into", "results", *LABEL)
    assert found.code == 1
    assert "images: 1 complete, 0 with failed tiles, 1 not labeled" in found.out
    assert Path("results/index.html").exists()


def test_labels_of_another_name_wait(folder):
    run("label", "slides", "--into", "results", *LABEL)
    run("label", "slides/a.npy", "--into", "results", "--name", "b", *LABEL)
    assert states(name="b") == {"a": "complete", "b": "waiting", "c": "waiting"}


def test_a_list_leads_nowhere_else(folder):
    """What batch.json names lies in its folder."""
    run("label", "slides/a.npy", "other/a.zarr", *LABEL)
    os.mkdir("results")
    for name in ("../other/a.zarr", "/etc", "a\0.zarr", "a"):
        text = json.dumps({**batch.OURS, "images": {name: {"input": "x"}}})
        Path("results/batch.json").write_text(text)
        with pytest.raises(tiledlaf.InputError, match="expected the list of a batch"):
            slides.read("results")


def test_a_page_that_cannot_be_written_ends_no_batch(folder, monkeypatch):
    monkeypatch.setattr(batches, "PAUSE", 0.0)
    report = batches.Report("results", "tiledlaf")

    def broken():
        raise OSError(28, "No space left on device", "results/index.html")

    monkeypatch.setattr(report, "write", broken)
    with pytest.warns(TiledlafWarning, match="no index.html for now, results/index.html"):
        report.now_and_then()


def test_a_full_disk_is_named_and_leaves_no_parts(folder, monkeypatch):
    write = Path.write_bytes

    def full(path, data):
        write(path, data[:10])
        if "index.html" in path.name:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    place = stores.Folder("results")
    with pytest.raises(OSError, match=r"No space left on device: .*results/index.html"):
        place.write("index.html", b"x" * 99)
    place.write("batch.json", b"x")
    assert os.listdir("results") == ["batch.json"]


def test_what_failed_is_said_though_no_page_can_be_written(folder, monkeypatch):
    (folder / "slides/c.npy").write_bytes(b"none")

    def broken(report):
        raise OSError(28, "No space left on device", "results/index.html")

    monkeypatch.setattr(batches.Report, "write", broken)
    found = run("label", "slides", "--into", "results", *LABEL)
    assert found.code == 1
    assert "tiledlaf: slides/c.npy: " in found.err
    assert "error: results/index.html: No space left on device; the same command" in found.err


def test_two_batches_at_one_time_keep_each_other_in_the_list(folder):
    """Each reads the list before the other has written it, and writes it again at its end."""
    one, other = batch.Listing("results"), batch.Listing("results")
    one.note({"results/a.zarr": {"input": "a"}})
    before = Path("results/batch.json").read_bytes()
    other.note({"results/b.zarr": {"input": "b"}})
    Path("results/batch.json").write_bytes(before)  # as one that has read it before
    other.note({})
    assert sorted(one.read()) == ["a.zarr", "b.zarr"]
    one.note({"results/b.zarr": {"input": "b", "error": "new"}})
    other.note({})  # what is said later counts
    assert one.read()["b.zarr"]["error"] == "new"


def test_two_batches_of_one_folder(folder):
    """Of different images, started at one moment: all are labeled, listed and shown."""
    save("more/d.npy")
    threads = [
        threading.Thread(target=tiledlaf.batch, args=(given, "results"), kwargs=kwargs)
        for given in ("slides", "more")
        for kwargs in ({"classes": 2, **OPTIONS},)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert states() == dict.fromkeys("abcd", "complete")


# from Python


def test_masks_and_probabilities_may_be_arrays(folder):
    mask = np.zeros((32, 40), np.uint8)
    mask[:9] = 1
    given = np.full((2, 32, 40), 0.5, np.float32)
    found = tiledlaf.batch("slides", "results", probabilities=given, mask=mask, **OPTIONS)
    assert [one.summary.pixels[0] for one in found] == [23 * 40] * 3


@pytest.mark.parametrize("region", [5, float("inf"), "x", [5], [(0, 5)], [("a", 5), (0, 5)]])
def test_odd_regions_are_refused_by_name(folder, region):
    for one in tiledlaf.batch("slides/a.npy", "results", classes=2, region=region, **OPTIONS):
        assert isinstance(one.error, tiledlaf.InputError)
        assert "region" in str(one.error)


def test_no_function_of_progress_is_refused_before_any_work(folder):
    with pytest.raises(tiledlaf.InputError, match="`progress` expects a function"):
        tiledlaf.batch("slides", "results", progress=5, classes=2, **OPTIONS)
    assert not Path("results").exists()


def test_python_makes_the_objects_of_the_command(folder):
    same = ("--objects", "class 1", "--min-size", "3px", "--fill-holes")
    assert run("label", "slides", "--into", "expected", *LABEL, *same).code == 0
    found = tiledlaf.batch(
        "slides",
        "results",
        classes=2,
        objects="class 1",
        min_size="3px",
        fill_holes=True,
        **OPTIONS,
    )
    for one, name in zip(found, "abc", strict=True):
        expected = read_objects(open_result(f"expected/{name}.zarr"), "class 1")
        (made,) = one.objects
        assert made.count == len(expected["label"]) > 0
        for key, column in made.table.items():
            np.testing.assert_array_equal(column, expected[key])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"objects": "none"}, "expects one of the classes"),
        ({"objects": ["class 1"], "min_size": "x"}, "`min_size` expects a size"),
    ],
)
def test_objects_that_cannot_be_made_are_told_before_labels(folder, options, said):
    found = tiledlaf.batch("slides", "results", classes=2, **options, **OPTIONS)
    assert [said in str(one.error) for one in found] == [True] * 3
    assert not list(Path("results").glob("*.zarr"))
    more = [f"--{key.replace('_', '-')}={v}" for key, v in options.items() if isinstance(v, str)]
    more += ["--objects=class 1"] if "min_size" in options else []
    told = run("label", "slides", "--into", "other", *LABEL, *more, "--dry-run")
    assert told.code == 1
    assert told.out.count(": cannot be labeled") == 3


def test_meaning_without_objects_is_refused(folder):
    with pytest.raises(tiledlaf.InputError, match="which `objects` asks for"):
        tiledlaf.batch("slides", "results", classes=2, min_size="3px", **OPTIONS)


def test_labels_without_their_objects_are_there(folder, monkeypatch):
    """What fails after labels takes nothing from them."""

    def broken(*given):
        raise tiledlaf.OutputBelongsElsewhere("other labels have just become these")

    monkeypatch.setattr("tiledlaf.results.objects.find_objects", broken)
    found = run("label", "slides/a.npy", "--into", "results", *LABEL, "--objects", "class 1")
    assert found.code == 1
    assert "labeled, without objects, other labels" in found.err
    assert "images: 0 complete, 0 with failed tiles, 0 not labeled, 1 without objects" in found.out
    assert states() == {"a": "complete"}


# object stores


@pytest.fixture
def cloud(folder):
    """A folder that stands for all object stores, whose URLs are percent-encoded."""
    with standing_in(folder / "cloud"):
        yield folder / "cloud/bucket"


def test_a_batch_on_an_object_store(cloud):
    os.rename("slides/b.npy", "slides/b #1%41?.npy")
    into = "s3://bucket/out/"
    for _ in range(2):  # a slash at its end, and names that URLs encode
        found = run("label", "slides", "--into", into, *LABEL)
        assert found.code == 0, found
        assert "images: 3 complete" in found.out
    expected = {"a": "complete", "b #1%41?": "complete", "c": "complete"}
    assert states(into) == expected
    there = sorted(path.name for path in (cloud / "out").iterdir())
    stores_ = [f"{name}.zarr" for name in expected]
    pictures = [f"{name}.zarr.overview.png" for name in expected]
    assert there == sorted([*stores_, *pictures, "batch.json", "index.html", "summary.csv"])
    assert names("s3://bucket/out/*.zarr", into="again") == stores_
