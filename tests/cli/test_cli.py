"""What the command prints and writes, as people meet it."""

import dataclasses
import itertools
import json
import os
import pty
import re
import subprocess
import sys
import termios
import types
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tifffile
import zarr
from command import contents, run
from distributed import LocalCluster

import tiledlaf
from tiledlaf.cli import progress
from tiledlaf.files import image as image_files
from tiledlaf.model import classes
from tiledlaf.reports import text

SHAPE = (100, 120)
LABEL = ["label", "image.tif", "out.zarr", "--classes", "3", "--tile", "32"]
NAMES = ["dark", "gray", "bright"]


@pytest.fixture
def image(tmp_path, monkeypatch):
    """Pixels of image.tif in the current folder: noise on three levels of gray."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).normal(0, 30, SHAPE) + 50
    pixels[:, 40:] += 70
    pixels[30:, 80:] += 70
    pixels = pixels.clip(0, 255).astype(np.uint8)
    tifffile.imwrite("image.tif", pixels)
    return pixels


def labels(name="tiledlaf", store="out.zarr"):
    return zarr.open_array(f"{store}/labels/{name}/0", mode="r")[:]


def done(*arguments, **options):
    found = run(*arguments, **options)
    # where kernels are compiled for the first time, a line on progress comes after 10 seconds
    noise = [line for line in found.err.splitlines() if not line.endswith(" s left")]
    assert (found.code, noise) == (0, []) or options, found
    return found.out


def test_summary(image):
    found = done(*LABEL)
    lines = found.splitlines()
    assert lines[0] == "tiles: 16 done, 0 skipped, 0 failed"
    assert lines[1].split() == ["class", "pixels", "share"]
    rows = re.findall(r"^  \d class \d +(\d+) +([\d.]+) %$", found, re.MULTILINE)
    counts = [int(count) for count, _ in rows]
    np.testing.assert_array_equal(counts, np.bincount(labels().ravel())[1:])
    assert sum(counts) == image.size
    assert sum(float(share) for _, share in rows) == pytest.approx(100, abs=0.2)
    assert "overview: out.zarr.overview.png" in lines
    proven = float(re.search(r"^proven labels: ([\d.]+) %$", found, re.MULTILINE)[1])
    assert 90 < proven <= 100
    assert re.fullmatch(r"seconds: \d+\.\d", lines[-3])
    assert float(re.fullmatch(r"throughput: (\S+) megapixels a second", lines[-2])[1]) > 0
    assert lines[-1] == "output: out.zarr"


def test_a_label_that_is_not_proven_is_seen(tmp_path):
    found = tiledlaf.label(np.eye(8), str(tmp_path / "out.zarr"), classes=2)
    many = dataclasses.replace(found, pixels=[0, 10**8, 10**8], proven=2 * 10**8 - 1)
    assert "proven labels: 99.999 %" in text.summary(many)
    assert "proven labels: 100.000 %" in text.summary(dataclasses.replace(many, proven=2 * 10**8))


def test_summary_of_krylov(image):
    assert "proven labels: none" in done(*LABEL, "--integrator", "krylov")


@pytest.mark.parametrize("options", [[], ["--no-image"]])
def test_mask(image, options):
    mask = np.ones(SHAPE, np.uint8)
    mask[:32, :64] = 0  # two tiles
    mask[60, 70] = 0
    np.save("mask.npy", mask)
    found = done(*LABEL, "--mask", "mask.npy", *options)
    assert "tiles: 14 done, 2 skipped, 0 failed" in found
    assert re.search(rf"^  0 not labeled +{32 * 64 + 1} .* % of all$", found, re.MULTILINE)
    np.testing.assert_array_equal(labels() == 0, mask == 0)
    assert "complete: 16 of 16 tiles" in done("info", "out.zarr")


def test_region_is_the_crop(image):
    done(*LABEL)
    done("label", "image.tif", "part.zarr", "--classes", "3", "--region", "20:77,35:101")
    np.testing.assert_array_equal(labels(store="part.zarr"), labels()[20:77, 35:101])


def test_no_image(image):
    done(*LABEL, "--no-image", "--confidence")
    members = [name for name, _ in zarr.open_group("out.zarr", mode="r").members()]
    assert sorted(members) == ["confidence", "labels"]
    assert done("info", "out.zarr").startswith("out.zarr: labels only\n")


def test_into_input(image):
    done(*LABEL)
    before = contents("out.zarr")
    more = ["label", "out.zarr", "--into-input", "--name", "two", "--classes", "2"]
    assert done(*more).endswith("output: out.zarr\n")
    after = contents("out.zarr")
    changed = {name for name in after if before.get(name) != after[name]}
    assert {"/".join(name.split("/")[:2]) for name in changed} == {"labels/two", "labels/zarr.json"}
    assert labels("two").max() == 2
    assert {"labels/tiledlaf", "labels/two"} <= set(done("info", "out.zarr").splitlines())


def test_dry_run(image, monkeypatch):
    def read(*_):
        raise AssertionError("a dry run reads no pixels")

    monkeypatch.setattr(image_files.Image, "read", read)
    before = contents(".")
    found = done(*LABEL, "--dry-run", "--neighborhood", "rings:3,7", "--time", "2")
    assert contents(".") == before
    for words in (
        "/image.tif, yx 100 x 120, 1 channel(s) of uint8\n",
        "tiles: 16 (4 x 4) of 32 x 32 pixels\n",
        "halo: 49 x 49 pixels on each side: 7 steps, each as wide as the neighborhood's radius "
        "7 x 7 (Taylor, tol 0.0001, T 2)\n",
        "steps: 7 averages over 25 neighbors",
        "tasks: 16, one a tile\n",
    ):
        assert words in found, found
    assert re.search(r"^memory of a worker: about \d+ MiB$", found, re.MULTILINE)
    assert re.search(
        r"^disk: about \d+ MiB needed at most, [\d.]+ [MG]iB free$", found, re.MULTILINE
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--integrator", "euler", "--steps", "9"], "9 steps, .* \\(Euler, steps 9, T 5\\)"),
        (["--integrator", "krylov", "--dim", "7"], "Krylov dimension 7"),
        (["--tile", "64"], "tiles: 4 \\(2 x 2\\) of 64 x 64"),
        (["--region", "0:33,0:31"], "tiles: 2 \\(2 x 1\\)"),
    ],
)
def test_dry_run_of_options(image, options, words):
    assert re.search(words, done(*LABEL, "--dry-run", *options))


def test_info_of_files(image):
    found = done("info", "image.tif").splitlines()
    assert found == ["image.tif: tiff, axes yx, uint8", "  level 0: yx 100 x 120"]


def test_info_of_a_run(image):
    done(*LABEL, "--confidence", "--channels", "0", "--region", "4:100,0:120")
    found = done("info", "out.zarr")
    for words in (
        "out.zarr: image\n  OME-Zarr 0.5, Zarr v3, axes yx\n  level 0: 96 x 120 uint8, chunks ",
        "labels/tiledlaf\n",
        "  complete: 12 of 12 tiles (100.0 %)\n",
        "  names: 1 class 1, 2 class 2, 3 class 3\n",
        "  array: 0 yx 100 x 120 uint8\n",
        "  region: 4:100, 0:120\n",
        "  classes: 3\n",
        "  channels: 0\n",
        "  neighborhood: 9 pixels, radius 1 x 1\n",
        "  time: 5.0\n",
        "  integrator: Taylor, tol 0.0001\n",
        "  prototypes: ",
        "  scale: ",
        "\nconfidence\n",
    ):
        assert words in found, found


def test_info_of_a_plain_array(image):
    zarr.save_array("plain.zarr", image)
    assert "  plain array, Zarr v3, axes not named\n  level 0: 100 x 120 uint8" in done(
        "info", "plain.zarr"
    )


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("names.txt", "dark\n\n gray\nbright\n"),
        ("names.json", json.dumps(NAMES)),
        ("names.json", json.dumps({"2": "gray", "1": "dark", "3": "bright"})),
    ],
)
def test_names(image, file, text):
    Path(file).write_text(text)
    found = done(*LABEL, "--names", file)
    assert re.search(r"1 dark .*\n +2 gray .*\n +3 bright ", found)
    assert "  names: 1 dark, 2 gray, 3 bright\n" in done("info", "out.zarr")
    found = zarr.open_group("out.zarr/labels/tiledlaf", mode="r").attrs["ome"]["image-label"]
    assert found["properties"] == [{"label-value": v, "name": n} for v, n in enumerate(NAMES, 1)]
    assert [c["label-value"] for c in found["colors"]] == [1, 2, 3]


def test_prototypes_of_a_spreadsheet(image):
    Path("prototypes.csv").write_bytes("\ufeff50\r\n120\r\n190\r\n".encode())
    done("label", "image.tif", "out.zarr", "--prototypes", "prototypes.csv")
    assert "  prototypes: 50; 120; 190\n" in done("info", "out.zarr")


def test_export_png(image):
    done(*LABEL, "--export", "labels.png")
    with PIL.Image.open("labels.png") as picture:
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.asarray(picture), labels())
        palette = np.reshape(picture.getpalette()[: 4 * 3], (4, 3))
    np.testing.assert_array_equal(palette, [(0, 0, 0), *(classes.color(v)[:3] for v in (1, 2, 3))])


@pytest.mark.parametrize("shape", [(100, 120), (3, 40, 300)])
def test_export_tif(image, shape):
    pixels = np.random.default_rng(1).integers(0, 255, shape, dtype=np.uint8)
    zarr.save_array("input.zarr", pixels)
    axes = "zyx"[-len(shape) :]
    command = ["label", "input.zarr", "out.zarr", "--classes", "2", "--axes", axes]
    done(*command, "--export", "labels.tif")
    found = tifffile.imread("labels.tif")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, labels())
    os.unlink("labels.tif")
    done(*command, "--export", "labels.tif")  # of a run that is complete already
    np.testing.assert_array_equal(tifffile.imread("labels.tif"), found)


def test_progress_without_a_terminal(image, monkeypatch):
    seconds = itertools.count(0, 6)
    clock = types.SimpleNamespace(monotonic=lambda: next(seconds))
    monkeypatch.setattr(progress, "clock", clock)
    pixels = np.random.default_rng(0).integers(0, 255, (640, 640), dtype=np.uint8)
    tifffile.imwrite("large.tif", pixels)
    options = ["--classes", "2", "--tile", "160"]
    found = run("label", "large.tif", "out.zarr", *options, between=progress.BETWEEN)
    assert found.code == 0
    lines = found.err.splitlines()
    assert len(lines) == 8  # 16 tiles in 6 seconds each, a line when 10 have passed
    numbers = [re.fullmatch(r"(.*)/0\.4 Mpx, (.*) Mpx/s, (.*) s left", line) for line in lines]
    assert all(numbers)
    assert [float(n[1]) for n in numbers][::7] == [0.1, 0.4]
    assert [int(n[3]) for n in numbers][::7] == [84, 0]


def test_progress_on_a_terminal(image):
    found = run(*LABEL, terminal=True)
    assert found.code == 0
    assert "100%|" in found.err
    assert re.search(r"Mpx/s, \d\d:\d\d left", found.err)


def test_terminal_and_exit_code(image):
    """The command itself, as a shell starts it, with a terminal for its messages."""
    head, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 100))
    command = [sys.executable, "-m", "tiledlaf", *LABEL]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=terminal, text=True) as process:
        os.close(terminal)
        shown = b""
        while True:
            try:
                shown += os.read(head, 4096) or b""
            except OSError:  # its other end is closed
                break
        out = process.stdout.read()
    os.close(head)
    assert process.returncode == 0
    assert out.startswith("tiles: 16 done, 0 skipped, 0 failed\n")
    assert re.search(r"100%\|.*\| 0\.0/0\.0 Mpx, .*Mpx/s, 00:00 left", shown.decode())


def test_workers_of_another_folder(image, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    with LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address="127.0.0.1:0") as there:
        monkeypatch.chdir(tmp_path)
        np.save("mask.npy", np.ones(SHAPE, np.uint8))
        found = run(*LABEL, "--mask", "mask.npy", "--scheduler", there.scheduler_address)
    assert found.code == 0, found
    assert "tiles: 16 done" in found.out


def test_demo(tmp_path):
    found = done("demo", "--output", tmp_path)
    assert re.search(r"^ +1 dark stain +\d+ +[\d.]+ %$", found, re.MULTILINE)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tiledlaf-demo.png", "tiledlaf-demo.zarr"]
    with PIL.Image.open(tmp_path / "tiledlaf-demo.png") as picture:
        assert picture.width > 3 * 512
    assert set(np.unique(labels(store=tmp_path / "tiledlaf-demo.zarr"))) == {1, 2, 3}
    assert done("demo", "--output", tmp_path).splitlines()[:4] == found.splitlines()[:4]


OPTIONS = """--classes --prototypes --probabilities --name --neighborhood --rho --time --tol
    --integrator --dim --steps --tile --workers --scheduler --scheduler-file --dashboard
    --performance-report --device --level --channels --axes --mask --region --confidence
    --min-confidence --names --seed --export --no-image --no-overview --into-input --dry-run
    --overwrite"""


def test_help():
    found = done("label", "--help")
    assert set(OPTIONS.split()) <= set(re.findall(r"^  (--[\w-]+)", found, re.MULTILINE))
    shown = re.findall(r"^  ([a-z]+) ", done("--help"), re.MULTILINE)
    assert {"demo", "evaluate", "explain", "info", "label", "status"} <= set(shown)
    assert re.fullmatch(r"tiledlaf, version \d+\.\d+\.\d+\n", done("--version"))


@pytest.mark.parametrize(
    "code", ["import tiledlaf", "from tiledlaf.cli import cli; cli(['--help'], standalone_mode=0)"]
)
def test_imports_are_quick(code):
    heavy = "{'dask', 'distributed', 'zarr', 'numba', 'cupy', 'scipy', 'sklearn', 'skimage'}"
    check = f"{code}\nimport sys\nprint(sorted({heavy} & set(sys.modules)), file=sys.stderr)"
    found = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert found.stderr == "[]\n"
