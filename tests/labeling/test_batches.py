"""Batches: many images into one folder, whatever becomes of some of them."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import zarr
from command import contents, run

import tiledlaf
from tiledlaf.files import image as image_files
from tiledlaf.labeling import batch, inputs
from tiledlaf.labeling.records import Appender
from tiledlaf.reports import slides

LABEL = ["--classes", "2", "--tile", "64"]
SIZES = {"a": (96, 130), "b": (64, 64), "c": (150, 70)}


def save(path, shape=(64, 64), seed=0):
    pixels = np.random.default_rng(seed).normal(60, 10, shape)
    pixels[:, shape[1] // 2 :] += 90
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    np.save(path, pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder holds slides/ with three images and one that cannot be read."""
    monkeypatch.chdir(tmp_path)
    for seed, (name, shape) in enumerate(SIZES.items()):
        save(f"slides/{name}.npy", shape, seed)
    Path("slides/bad.npy").write_bytes(Path("slides/a.npy").read_bytes()[:100])
    return tmp_path


def labels(store, name="tiledlaf"):
    return zarr.open_array(f"{store}/labels/{name}/0", mode="r")[:]


def rows(path="results/summary.csv"):
    return list(csv.DictReader(Path(path).read_text().splitlines()))


def names(*given, into="results", **options):
    return [os.path.basename(one.output) for one in inputs.find(given, into, **options)]


def test_each_image_gets_the_labels_of_its_own_run(folder):
    found = run("label", "slides/*.npy", "--into", "results", *LABEL)
    assert found.code == 1
    assert found.out.splitlines()[0] == "images: 3 complete, 0 with failed tiles, 1 not labeled"
    word, line = [x for x in found.err.splitlines() if x.startswith("tiledlaf:")]
    assert "--classes finds the classes of each image in it alone" in word
    assert line.startswith("tiledlaf: slides/bad.npy: ")
    assert "" not in found.err.splitlines()
    assert found.err.splitlines()[-2].startswith("4/4 slides/c.npy: ")
    for name, shape in SIZES.items():
        assert run("label", f"slides/{name}.npy", f"{name}.zarr", *LABEL).code == 0
        np.testing.assert_array_equal(labels(f"results/{name}.zarr"), labels(f"{name}.zarr"))
        assert labels(f"results/{name}.zarr").shape == shape
    assert sorted(os.listdir("results")) == [
        *("a.zarr", "a.zarr.overview.png", "b.zarr", "b.zarr.overview.png", "batch.json"),
        *("c.zarr", "c.zarr.overview.png", "index.html", "summary.csv"),
    ]


def test_objects_of_each_image(folder):
    command = ["label", "slides/*.npy", "--into", "results", *LABEL, "--objects", "class 1"]
    found = run(*command, "--min-size", "3px")
    assert found.code == 1
    assert found.err.count("objects: ") == len(SIZES)
    for name in SIZES:
        one = ["label", f"slides/{name}.npy", f"{name}.zarr", *LABEL, "--objects", "class 1"]
        assert run(*one, "--min-size", "3px").code == 0
        (group,) = (p.name for p in Path(f"{name}.zarr/labels").glob("tiledlaf-*"))
        expected = labels(f"{name}.zarr", group)
        np.testing.assert_array_equal(labels(f"results/{name}.zarr", group), expected)
    found = run(*command[:-1], "none")
    assert found.code == 2
    assert "none" in found.err


def test_the_same_command_changes_no_output(folder):
    command = ["label", *sorted(map(str, Path("slides").iterdir())), "--into", "results", *LABEL]
    assert run(*command).code == 1
    before = contents("results")
    os.remove("slides/bad.npy")
    found = run(*(word for word in command if word != "slides/bad.npy"))
    assert found.code == 0
    after = contents("results")
    for page in inputs.PAGES:
        before.pop(page), after.pop(page)
    assert before == after


def test_summary_has_the_areas_of_each_class(folder):
    run("label", "slides/*.npy", "--into", "results", *LABEL)
    found = rows()
    for name, shape in SIZES.items():
        of = {r["value"]: int(r["pixels"]) for r in found if r["output"] == f"{name}.zarr"}
        counts = np.bincount(labels(f"results/{name}.zarr").ravel(), minlength=3)
        assert of == {str(v): int(n) for v, n in enumerate(counts)}
        assert sum(of.values()) == np.prod(shape)
    (bad,) = [r for r in found if r["output"] == "bad.zarr"]
    assert (bad["state"], bad["pixels"]) == ("refused", "")
    assert "slides/bad.npy" in bad["error"]


def test_page_shows_each_image(folder):
    run("label", "slides/*.npy", "--into", "results", *LABEL)
    page = Path("results/index.html").read_text()
    assert page.count("<tr>") == 5
    assert page.count("data:image/png;base64,") == 6
    assert "3 complete, 1 refused" in page


def test_names_of_files_are_no_markup(folder):
    name = "<script>alert(1)<"
    save(f"odd/{name}.npy")
    assert run("label", "odd/*", "--into", "results", *LABEL).code == 0
    page = Path("results/index.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_status_shows_all(folder):
    run("label", "slides/*.npy", "--into", "results", *LABEL)
    found = run("status", "results")
    assert found.code == 1
    first, *rest = found.out.splitlines()
    assert first == "results: 4 images, 3 complete, 1 refused; the same command completes them"
    assert [line.split()[:3] for line in rest[3:7]] == [
        ["a", "complete", "6/6"],
        ["b", "complete", "1/1"],
        ["bad", "refused", "-"],
        ["c", "complete", "6/6"],
    ]
    as_json = json.loads(run("status", "results", "--json").out)
    assert [one["state"] for one in as_json["slides"]].count("complete") == 3
    assert run("status", "results/a.zarr").code == 0


def cut(monkeypatch, count, *command):
    """Interrupt a command after some records of tiles."""
    left = [count]

    def add(log, record):
        undisturbed(log, record)
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    undisturbed = Appender.add
    with monkeypatch.context() as patch:
        patch.setattr(Appender, "add", add)
        return run(*command)


def test_a_batch_that_is_cut_goes_on(folder, monkeypatch):
    os.remove("slides/bad.npy")
    command = ["label", "slides/*.npy", "--into", "results", *LABEL, "--scheduler", "threads"]
    found = cut(monkeypatch, 9, *command)
    assert found.code == 130
    assert found.err.endswith("tiledlaf: interrupted; the same command completes the output\n")
    states = {one.name: one.state for one in slides.read("results").slides}
    assert states == {"a": "complete", "b": "complete", "c": "cut"}
    assert run("status", "results").code == 1
    found = run(*command)
    assert found.code == 0, found
    assert [r["state"] for r in rows()] == ["complete"] * 9
    for name in SIZES:
        run("label", f"slides/{name}.npy", f"{name}.zarr", *LABEL)
        np.testing.assert_array_equal(labels(f"results/{name}.zarr"), labels(f"{name}.zarr"))


def test_what_waits_is_said(folder, monkeypatch):
    cut(monkeypatch, 1, "label", "slides/[abc].npy", "--into", "results", *LABEL)
    states = {one.name: one.state for one in slides.read("results").slides}
    assert states == {"a": "cut", "b": "waiting", "c": "waiting"}


def test_the_next_image_is_planned_while_one_is_labeled(folder, monkeypatch):
    """While tiles of the first image run, the second is opened; the third is not."""
    os.remove("slides/bad.npy")
    said, planned = [], batch.request.prepare

    def prepare(image, *rest, **options):
        said.append(f"plan {image}")
        return planned(image, *rest, **options)

    monkeypatch.setattr(batch.request, "prepare", prepare)
    monkeypatch.setattr(batch.resources, "is_small", lambda plan: False)

    def progress(record):
        while record["input"] == "slides/a.npy" and len(said) < 2:
            time.sleep(0.01)
        said.append(record["input"])

    options = {"classes": 2, "tile": 64, "scheduler": "threads"}
    tiledlaf.batch("slides/*.npy", "results", progress=progress, **options)
    assert said[:2] == ["plan slides/a.npy", "plan slides/b.npy"]
    assert said.index("plan slides/c.npy") > said.index("slides/a.npy")


def test_a_tile_that_fails(folder, monkeypatch):
    pixels = np.load("slides/a.npy").astype(np.float32)
    pixels[70, 10] = np.nan
    np.save("slides/a.npy", pixels)
    found = run("label", "slides/[ab].npy", "--into", "results", *LABEL)
    assert found.code == 1
    assert "images: 1 complete, 1 with failed tiles, 0 not labeled" in found.out
    assert "failed" in run("status", "results").out
    assert [r["state"] for r in rows() if r["output"] == "a.zarr"] == ["failed"] * 3


def test_other_settings_are_refused_image_by_image(folder):
    assert run("label", "slides/a.npy", "--into", "results", *LABEL).code == 0
    before = contents("results/a.zarr")
    command = ["label", "slides/[ab].npy", "--into", "results", *LABEL, "--rho", "2"]
    found = run(*command)
    assert found.code == 1
    assert "a.zarr: labels/tiledlaf belongs to another run" in found.err
    assert "add --overwrite" in found.err
    assert contents("results/a.zarr") == before
    assert (
        run("label", "slides/[ab].npy", "--into", "results", "--classes", "3", "--overwrite")[0]
        == 0
    )


def test_all_refused_is_a_mistake(folder):
    found = run("label", "slides/*.npy", "--into", "results", "--classes", "1")
    assert found.code == 2
    assert not list(Path("results").glob("*.zarr"))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["none/*.npy"], "none/*.npy: expected images, found none"),
        (["slides/a.npy", "none.npy"], "none.npy: expected images, found none"),
        (["slides/*.npy", "--export", "a.tif"], "--export names one file"),
        (["slides/*.npy", "--into-input"], "expected --into or --into-input, got both"),
        (["slides/*.npy", "--weights", "w.zarr"], "--weights are those of one image"),
        (["slides/*.npy", "--model", "none.model"], "none.model"),
        (["slides/*.npy", "--into", "slides/a.npy"], "--into slides/a.npy: expected a folder"),
        (["table.csv"], "table.csv: No such file"),
    ],
)
def test_a_mistake_of_all_is_one_line(folder, arguments, text):
    command = ["label", "--into", "results", *arguments]
    found = run(*command, *([] if "--model" in arguments else LABEL))
    assert (found.code, found.out) == (2, "")
    assert found.err.count("\n") == 1
    assert text in found.err
    assert not Path("results").exists()


def test_several_inputs_without_into(folder):
    found = run("label", "slides/a.npy", "slides/b.npy", "slides/c.npy", *LABEL)
    assert found.code == 2
    assert "several inputs need --into FOLDER" in found.err


@pytest.mark.parametrize("page", inputs.PAGES)
def test_no_file_of_others_is_replaced(folder, page):
    os.mkdir("results")
    Path("results", page).write_text("mine\n")
    found = run("label", "slides/*.npy", "--into", "results", *LABEL)
    assert found.code == 2
    assert f"results/{page}" in found.err
    assert os.listdir("results") == [page]


# names of outputs


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["x/1.npy", "x/2.npy"], ["1.zarr", "2.zarr"]),
        (["a/1.npy", "b/1.npy"], ["a-1.zarr", "b-1.zarr"]),
        (["a/x/1.npy", "b/x/1.npy", "b/x/2.npy"], ["a-1.zarr", "b-1.zarr", "2.zarr"]),
        (["a/x/1.npy", "b/x/1.npy", "b/y/1.npy"], ["a-x-1.zarr", "b-x-1.zarr", "b-y-1.zarr"]),
        (["x/1.npy", "x/1.png"], ["1-npy.zarr", "1-png.zarr"]),
        (["x/s.ome.tif", "y/b.npy"], ["s.zarr", "b.zarr"]),
    ],
)
def test_names_say_what_differs(folder, paths, expected):
    for path in paths:
        save("any.npy")
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        os.replace("any.npy", path)
    assert names(*paths) == expected


def test_names_that_cannot_differ_are_refused(folder):
    for path in ("a/1.npy", "b/1.npy", "x/a-1.npy"):
        save(path)
    with pytest.raises(tiledlaf.InputError, match=r"a-1\.zarr: expected one image for each"):
        names("a/1.npy", "b/1.npy", "x/a-1.npy")


def test_the_same_file_twice_is_labeled_once(folder):
    os.symlink("a.npy", "slides/link.npy")
    with pytest.warns(image_files.FileWarning, match="given more than once, and labeled once"):
        assert names("slides/a.npy", "./slides/a.npy", "slides/link.npy") == ["a.zarr"]


def test_outputs_are_no_inputs(folder):
    """Where both lie in one folder, a glob finds outputs as well."""
    for name in ("a", "b"):
        zarr.save_array(f"stores/{name}.zarr", np.load(f"slides/{name}.npy"))
    assert names("stores/*.zarr", into="stores/out") == ["a.zarr", "b.zarr"]
    assert run("label", "stores/*.zarr", "--into", "stores/out", *LABEL).code == 0
    assert names("stores/**/*.zarr", into="stores/out") == ["a.zarr", "b.zarr"]
    with pytest.raises(tiledlaf.InputError, match="would be the input itself"):
        names("stores/*.zarr", into="stores")
    assert run("label", "slides/[abc].npy", "--into", "slides", *LABEL).code == 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", image_files.FileWarning)
        assert names("slides", into="slides") == ["a.zarr", "b.zarr", "bad.zarr", "c.zarr"]


def test_a_folder_is_its_images(folder):
    assert names("slides") == ["a.zarr", "b.zarr", "bad.zarr", "c.zarr"]


# tables


def table(text, name="table.csv"):
    Path(name).write_text(text)
    return inputs.read_table(name)


def test_a_table_has_options_of_each_image(folder):
    mask = np.zeros(SIZES["a"], np.uint8)
    mask[:50] = 1
    np.save("slides/mask.npy", mask)
    Path("slides/table.csv").write_text(
        'input,output,mask,region\na.npy,first,mask.npy,\nb.npy,,,"0:32,0:64"\n'
    )
    assert run("label", "slides/table.csv", "--into", "results", *LABEL).code == 0
    np.testing.assert_array_equal(labels("results/first.zarr") > 0, mask > 0)
    assert labels("results/b.zarr").shape == (32, 64)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image\na.npy\n", "expected the columns input, output, mask"),
        ("input,colour\na.npy,red\n", "got input, colour"),
        ("input,level\na.npy,high\n", "row 2: expected another value for level, got 'high'"),
        ("input,level\na.npy\n", "row 2: expected 2 cells, got 1"),
        ("input,output\na.npy,../a\n", "expected a name without folders for output"),
        ("input,mask\n,m.npy\n", "expected a path for input"),
        ("input\n", "expected rows of inputs, got none"),
    ],
)
def test_tables_that_are_refused(folder, text, said):
    with pytest.raises(tiledlaf.InputError) as error:
        table(text)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_cells_are_what_options_are(folder):
    (item,) = table(
        'input;level;channels;pixel_size;time_point;no_data\nslides/a.npy;1;"0,DAPI";0.5;all;nan\n'
    )
    assert item.own.pop("no_data") != item.own.get("no_data")
    own = {"level": 1, "channels": ("0", "DAPI"), "pixel_size": 0.5, "time_point": "all"}
    assert item.own == own


def test_masks_of_a_folder_belong_by_their_names(folder):
    os.remove("slides/bad.npy")
    for name, shape in SIZES.items():
        mask = np.ones(shape, np.uint8)
        mask[: 10 * len(name) + shape[0] % 50] = 0
        Path("masks").mkdir(exist_ok=True)
        np.save(f"masks/{name}_mask.npy", mask)
    assert run("label", "slides", "--into", "results", *LABEL, "--mask", "masks").code == 0
    for name in SIZES:
        mask = np.load(f"masks/{name}_mask.npy")
        np.testing.assert_array_equal(labels(f"results/{name}.zarr") > 0, mask > 0)


# plates and time points


def test_all_fields_of_a_plate_and_all_time_points(folder):
    plate = zarr.open_group("plate.zarr", mode="w", zarr_format=2)
    plate.attrs["plate"] = {"wells": [{"path": "A/1"}, {"path": "B/2"}], "version": "0.4"}
    for well, count in (("A/1", 2), ("B/2", 1)):
        group = plate.require_group(well)
        group.attrs["well"] = {"images": [{"path": str(f)} for f in range(count)]}
        for field in range(count):
            image = group.create_group(str(field))
            axes = [{"name": n, "type": "time" if n == "t" else "space"} for n in "tyx"]
            scale = [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]
            datasets = [{"path": "0", "coordinateTransformations": scale}]
            image.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]
            pixels = np.random.default_rng(field).integers(0, 255, (2, 40, 50), dtype=np.uint8)
            image.create_array("0", data=pixels)
    command = ["label", "plate.zarr", "--into", "results", *LABEL, "--time-point"]
    assert run(*command, "all").code == 0
    stores = sorted(path.name for path in Path("results").glob("*.zarr"))
    assert stores == ["plate-A-1-0.zarr", "plate-A-1-1.zarr", "plate-B-2-0.zarr"]
    assert labels("results/plate-A-1-1.zarr").shape == (2, 40, 50)
    assert {r["input"] for r in rows()} == {
        f"plate.zarr, series {field}" for field in ("A/1/0", "A/1/1", "B/2/0")
    }


# what it will need


def test_dry_run(folder, monkeypatch):
    command = ["label", "slides/[abc].npy", "--into", "results", *LABEL]
    found = run(*command, "--dry-run")
    assert found.code == 0
    assert not Path("results").exists()
    *lines, total, memory, disk, hours = found.out.splitlines()
    assert [line.split(":")[0] for line in lines] == [f"slides/{name}.npy" for name in SIZES]
    assert all(", new -> results/" in line for line in lines)
    assert total.startswith("images: 3, 0 finished, 0 that cannot be labeled; 0.0 megapixels")
    assert memory.startswith("memory of a worker: about ")
    assert disk.startswith("disk: about ")
    assert "of slides/a.npy took" in hours
    cut(monkeypatch, 9, *command, "--scheduler", "threads")
    lines = run(*command, "--dry-run").out.splitlines()
    assert "finished -> " in lines[0]
    assert "finished -> " in lines[1]
    assert "% finished" in lines[2]
    assert lines[3].startswith("images: 3, 2 finished")
    assert "as the finished tiles took" in lines[-1]


def test_dry_run_says_what_cannot_be_labeled(folder):
    found = run("label", "slides/*.npy", "--into", "results", *LABEL, "--dry-run")
    assert found.code == 1
    assert "slides/bad.npy: cannot be labeled" in found.out


# processes


@pytest.mark.slow  # a start of a worker
def test_a_large_image_brings_processes_for_all(folder, monkeypatch):
    """One pool, though the first images are small."""
    monkeypatch.setattr("tiledlaf.labeling.resources.SMALL", 100 * 130)
    monkeypatch.setattr("tiledlaf.labeling.batch._check_alive", lambda pool, error: None)
    save("slides/d.npy", (200, 200))
    opened = []
    undisturbed = batch.resources.open_pool_of

    def counted(*arguments):
        opened.append([len(plan.job.grid) for plan in arguments[0]])
        return undisturbed(*arguments)

    monkeypatch.setattr(batch.resources, "open_pool_of", counted)
    found = run("label", "slides/[abd].npy", "--into", "results", *LABEL, "--workers", "1")
    assert found.code == 0, found
    assert opened == [[6, 1, 16]]
    workers = {json.loads(x).get("worker") for x in _records("results/a.zarr")} - {None}
    assert len(workers) == 1
    assert str(os.getpid()) not in next(iter(workers)).split(":")


def _records(store):
    return Path(store, "labels/tiledlaf/0/tiledlaf.jsonl").read_text().splitlines()


@pytest.mark.slow  # a start of the command
def test_sigterm(folder):
    """The command ends with 143, and the same one completes."""
    save("slides/a.npy", (320, 320))
    command = ["label", "slides/[abc].npy", "--into", "results", "--classes", "2", "--tile", "32"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tiledlaf", *command, "--scheduler", "threads"],
        stderr=subprocess.PIPE,
        text=True,
    )
    place = Path("results/a.zarr/labels/tiledlaf/0/tiledlaf.jsonl")
    end = time.monotonic() + 120
    while not (place.exists() and place.read_bytes().count(b"\n") > 5):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 143, said
    assert "terminated; the same command completes the output" in said
    assert run("status", "results").code == 1
    assert run(*command).code == 0
