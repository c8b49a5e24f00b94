"""Bad input: one clear line on stderr, exit code 2, and nothing written."""

import contextlib
import re
import shutil
import socket
import time
from collections import namedtuple
from pathlib import Path

import distributed
import numpy as np
import PIL.Image
import pytest
import tifffile
import zarr
from command import contents, run

from tiledlaf.labeling import resources
from tiledlaf.pool.tasks import Pool

SHAPE = (40, 50)


@pytest.fixture(scope="module")
def _inputs(tmp_path_factory):
    """Good and bad files, in one folder."""
    folder = tmp_path_factory.mktemp("inputs")
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, SHAPE, dtype=np.uint8)
    tifffile.imwrite(folder / "a.tif", image)
    PIL.Image.fromarray(image).save(folder / "a.png")
    zarr.save_array(folder / "a.zarr", image)
    tifffile.imwrite(folder / "volume.tif", rng.integers(0, 255, (8, *SHAPE), dtype=np.uint8))
    tifffile.imwrite(folder / "flat.tif", np.full(SHAPE, 7, np.uint8))
    for name in ("a.tif", "a.png"):
        whole = (folder / name).read_bytes()
        (folder / f"half{name}").write_bytes(whole[: len(whole) // 2])
    (folder / "header.tif").write_bytes((folder / "a.tif").read_bytes()[:6])
    p = rng.dirichlet([1, 1, 1], SHAPE).transpose(2, 0, 1).astype(np.float32)
    arrays = {
        "complex": image.astype(complex),
        "objects": np.array([[None, 1], [2, 3]]),
        "mask39": np.ones((39, 50), np.uint8),
        "mask0": np.zeros(SHAPE, np.uint8),
        "mask2c": np.ones((2, *SHAPE), np.uint8),
        "p39": p[:, 1:],
        "p_last": p.transpose(1, 2, 0),
        "p_plane": p[0],
        "p_sum": 0.9 * p,
        "p_negative": p + np.array([-1, 1, 0], np.float32)[:, None, None],
        "p_zero": np.zeros((3, *SHAPE), np.uint8),
        "p_signed": np.ones((3, *SHAPE), np.int32),
        "p_one": np.ones((1, *SHAPE), np.float32),
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    texts = {
        "text.tif": "hello",
        "text.png": "hello",
        "text.npy": "hello",
        "a.txt": "hello",
        "empty.tif": "",
        "empty.csv": "",
        "header.csv": "red\n1\n2\n",
        "ragged.csv": "1,2\n3\n",
        "one.csv": "3\n",
        "two_columns.csv": "1,2\n3,4\n",
        "equal.csv": "3\n3\n",
        "nan.csv": "nan\n3\n",
        "three.txt": "a\nb\nc\n",
        "broken.json": '["a"',
        "from0.json": '{"0": "a", "1": "b"}',
        "letters.hood": "0 a\n",
        "no_self.hood": "0 1\n",
        "folder/notes.txt": "mine",
        "broken.zarr/zarr.json": "{",
    }
    for name, text in texts.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    (folder / "binary.csv").write_bytes(b"\xff\xfe\x00")
    zarr.open_group(folder / "group.zarr", mode="w")
    axes = [{"name": a, "type": "space"} for a in "yx"]
    for name, image in (("no_datasets", {"axes": axes}), ("no_array", _multiscale(axes))):
        group = zarr.open_group(folder / f"{name}.zarr", mode="w")
        group.attrs["ome"] = {"version": "0.5", "multiscales": [image]}
    return folder


def _multiscale(axes):
    scale = [{"type": "scale", "scale": [1, 1]}]
    return {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}


@pytest.fixture
def inputs(_inputs, monkeypatch):
    """The folder of inputs as the current one, so that messages show short paths."""
    monkeypatch.chdir(_inputs)
    return _inputs


def refused(arguments, *words, code=2):
    """Check that a command is refused with these words, and that nothing came or changed."""
    before = contents(".")
    found = run(*arguments)
    assert (found.code, found.out) == (code, ""), found
    assert re.fullmatch(r"tiledlaf: error: .*\n", found.err), found.err
    for word in words:
        assert word in found.err, found.err
    assert contents(".") == before
    assert not Path("out.zarr").exists()


LABEL = ("label", "a.tif", "out.zarr", "--classes", "2")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("none.tif", "none.tif: no such file or folder"),
        ("text.tif", "text.tif: expected a TIFF image"),
        ("empty.tif", "empty.tif: expected a TIFF image"),
        ("header.tif", "header.tif: expected a TIFF image"),
        ("halfa.tif", "halfa.tif: pixels cannot be read"),
        ("text.png", "text.png: this file cannot be read"),
        ("halfa.png", "halfa.png: this file cannot be read"),
        ("text.npy", "text.npy: this file cannot be read"),
        ("objects.npy", "objects.npy: it holds Python objects"),
        ("complex.npy", "complex.npy: expected numbers as pixels, got the type complex128"),
        ("a.txt", "got a file ending '.txt'"),
        ("folder", "folder: expected an image or a Zarr store, got a folder without either"),
        ("broken.zarr", "broken.zarr: expected a Zarr store"),
        ("group.zarr", "group.zarr: expected an OME-Zarr image or a Zarr array, got a group"),
        ("no_datasets.zarr", "no_datasets.zarr: its multiscales metadata cannot be read"),
        ("no_array.zarr", "no_array.zarr: expected its finest level"),
        ("volume.tif", "volume.tif: its 8 pages may be planes, channels or time points"),
    ],
)
def test_input(inputs, path, words):
    refused(["label", path, "out.zarr", "--classes", "2"], words)


@pytest.mark.parametrize("path", ["none", "folder", "a.txt", "broken.zarr", "no_array.zarr"])
def test_info(inputs, path):
    refused(["info", path], f"{path}: ")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("", "exactly one of --classes, --prototypes, --probabilities and --term"),
        ("--classes 2 --probabilities p39.npy", "exactly one of --classes"),
        ("--classes 1", "two or more classes, got 1"),
        ("--classes 0", "two or more classes, got 0"),
        ("--classes 500", "--classes 500: the image's sample of 2000 pixels has only"),
        ("--classes two", "'two' is not a valid integer"),
        ("--prototypes none.csv", "none.csv: No such file"),
        ("--prototypes binary.csv", "binary.csv: expected a text file"),
        (
            "--prototypes header.csv",
            "header.csv: expected rows of numbers",
        ),
        ("--prototypes ragged.csv", "ragged.csv: expected rows of the same length, got 2"),
        ("--prototypes empty.csv", "two or more prototypes"),
        ("--prototypes one.csv", "two or more prototypes"),
        ("--prototypes two_columns.csv", "prototypes of 1 columns, one per channel, got 2"),
        ("--prototypes equal.csv", "expected different prototypes, got two equal rows"),
        ("--prototypes nan.csv", "expected finite prototypes"),
        ("--probabilities none.npy", "none.npy: no such file"),
        ("--probabilities p39.npy", "of the size (40, 50) of a.tif, got (39, 50)"),
        ("--probabilities p_last.npy", "of the size (40, 50) of a.tif, got (50, 3)"),
        ("--probabilities p_plane.npy", "p_plane.npy: expected axes for the 2 dimensions"),
        ("--probabilities p_sum.npy", "sum to 1 within 1e-3 over the classes, got the sum 0.9 ("),
        ("--probabilities p_negative.npy", "to be 0 or more"),
        ("--probabilities p_zero.npy", "a positive sum over the classes, got the sum 0 (0, 0, 0)"),
        ("--probabilities p_signed.npy", "float or unsigned integer, got int32"),
        ("--probabilities p_one.npy", "probabilities of two or more classes"),
    ],
)
def test_data_term(inputs, options, words):
    refused(["label", "a.tif", "out.zarr", *options.split()], words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--time 0", "time must be a positive number, got 0.0"),
        ("--time nan", "time must be a positive number, got nan"),
        ("--time inf", "time must be a positive number, got inf"),
        ("--time 1e6", "time must be at most 1000, got 1e+06"),
        ("--rho 0", "rho must be a positive number, got 0.0"),
        ("--rho nan", "rho must be a positive number, got nan"),
        ("--tol 0", "tol must be a positive number, got 0.0"),
        ("--tol -1", "tol must be a positive number, got -1.0"),
        ("--steps 5", "--steps belongs to the integrators euler, sequence, geometric-euler, rkmk4"),
        ("--dim 5", "--dim belongs to the integrator krylov, got taylor"),
        ("--integrator euler --dim 5", "--dim belongs to the integrator krylov, got euler"),
        ("--integrator euler --steps 0", "steps must be 1 or more, got 0"),
        ("--integrator krylov --dim 0", "dim must be 1 or more, got 0"),
        ("--integrator rk4", "sequence, geometric-euler, rkmk4, got 'rk4'"),
        ("--neighborhood 7", "neighborhood must be like 3x3, 3x3x3, rings:3,7 or a file"),
        ("--neighborhood 4x4", "odd edges, got 4x4"),
        ("--neighborhood rings:1", "distances of 2 or more, got [1]"),
        ("--neighborhood 3x3x3", "3-D neighborhood does not fit an image with 2 spatial axes"),
        ("--neighborhood letters.hood", "letters.hood: expected integer offsets"),
        ("--neighborhood no_self.hood", "needs the pixel itself"),
        ("--device gpu", "device must be cpu or cuda, got 'gpu'"),
        ("--region 0:41,0:50", "within 0:40,0:50 (pixels of the level), got 0:41,0:50"),
        ("--region -1:4,0:50", "got -1:4,0:50"),
        ("--region 5:3,0:5", "start < stop, within 0:40,0:50 (pixels of the level), got 5:3,0:5"),
        ("--region 5:5,0:5", "got 5:5,0:5"),
        ("--region 0:5", "got 0:5"),
        ("--region 1:2:3,0:5", "--region expects y0:y1,x0:x1, got '1:2:3,0:5'"),
        ("--region top", "--region expects y0:y1,x0:x1, got 'top'"),
        ("--tile 15", "expected a tile of 16 or more"),
        ("--tile -32", "expected a tile of 16 or more"),
        ("--tile 300", "from 256 on a multiple of 16, got 300"),
        (
            "--axes yxc",
            "a.tif: expected axes for the 2 dimensions of its shape (40, 50), got 'yxc'",
        ),
        ("--axes y", "a.tif: expected axes for the 2 dimensions"),
        ("--axes xy", "with y and x in this order, got 'xy'"),
        ("--axes yq", "letters t, c, z, y, x"),
        ("--axes yy", "got 'yy'"),
        ("--mask none.npy", "none.npy: no such file"),
        ("--mask mask39.npy", "expected a mask of the size (40, 50) of a.tif, got (39, 50)"),
        (
            "--mask mask2c.npy",
            "mask2c.npy: expected a mask of one channel, got 2",
        ),
        ("--mask mask0.npy", "a sample in which all are NaN, inf or masked out"),
        ("--level 1", "a.tif: expected a level of 0 to 0, got --level 1"),
        ("--level -1", "got --level -1"),
        ("--channels 1", "a.tif: expected different channels of 0 to 0, got 1"),
        ("--channels 0,0", "got 0,0"),
        ("--channels red", "expected different channels of 0 to 0, got red"),
        ("--names none.txt", "none.txt: No such file"),
        ("--names three.txt", "expected 2 names, one per class, got 3"),
        ("--names broken.json", "broken.json: expected a JSON list of names"),
        ("--names from0.json", 'expected names for "1" to "2"'),
        ("--workers 0", "1 or more workers, got 0"),
        ("--export labels.jpg", "--export expects a file ending .csv, .geojson, "),
        ("--export none/a.csv", "--export none/a.csv: expected a file in a folder that exists"),
        ("--export none/labels.png", "--export none/labels.png: expected a file in a folder that"),
        ("--export a.tif", "--export a.tif: expected a file other than the input"),
        ("--name a/b", "without slashes for the labels, got 'a/b'"),
        ("--name .", "without slashes"),
        ("--seed -1", "a seed of 0 to 4294967295, got -1"),
        ("--into-input", "expected an OUTPUT or --into-input, got both"),
        ("--scheduler-file none.json", "none.json: no such file"),
        ("--sheduler threads", "No such option '--sheduler'"),
        ("--rho", "Option '--rho' requires an argument"),
    ],
)
def test_options(inputs, options, words):
    refused([*LABEL, *options.split()], words)


def test_cuda_without_cupy(inputs, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cupy", None)
    refused([*LABEL, "--device", "cuda"], "device cuda needs CuPy", "pip install")


def test_export_of_a_volume_as_png(inputs):
    command = ["label", "volume.tif", "out.zarr", "--classes", "2", "--axes", "zyx"]
    refused([*command, "--export", "labels.png"], "one plane", "(8, 40, 50)", "use .tif")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Missing command (see tiledlaf --help)"),
        (["lable"], "No such command 'lable'"),
        (["label"], "Missing argument 'INPUT [OUTPUT]' (see tiledlaf label --help)"),
        (["label", "a.tif", "--classes", "2"], "expected an OUTPUT or --into-input, got neither"),
        (
            ["label", "a.tif", "--classes", "2", "--into-input"],
            "a.tif: --into-input expects an OME",
        ),
        (["label", "a.zarr", "--classes", "2", "--into-input"], "--into-input expects an OME-Zarr"),
        (["info"], "Missing argument 'PATH'"),
        (["demo", "--output", "none"], "--output none: no such folder"),
    ],
)
def test_arguments(inputs, arguments, words):
    refused(arguments, words)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("folder", "folder: expected a new path or an output of tiledlaf, got a folder of other"),
        ("group.zarr", "got a Zarr store of another origin (--into-input adds labels"),
        ("a.zarr", "a.zarr: expected a new path or an output of tiledlaf, got a Zarr store"),
        ("broken.zarr", "broken.zarr: expected a Zarr store"),
        ("a.tif", "a.tif is a file"),
        ("a.tif/below", "a.tif is a file"),
    ],
)
@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_foreign_output(inputs, path, words, overwrite):
    refused(["label", "a.tif", path, "--classes", "2", *overwrite], words)


def test_read_only_output(inputs, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    refused(LABEL, "out.zarr: expected a place to write, but", "is read-only")


@pytest.fixture
def other(_inputs, tmp_path, monkeypatch):
    """A folder with a.tif and a finished run of it, which nothing may change."""
    monkeypatch.chdir(tmp_path)
    shutil.copy2(_inputs / "a.tif", "a.tif")
    assert run("label", "a.tif", "done.zarr", "--classes", "2", "--confidence").code == 0
    return tmp_path


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            "--classes 3 --confidence",
            [
                "labels/tiledlaf belongs to another run",
                "it has classes 2; this run has classes 3",
                "--overwrite",
            ],
        ),
        (
            "--classes 2 --confidence --time 6 --rho 2",
            ["it has rho 1.0, time 5.0", "this run has rho 2.0, time 6.0"],
        ),
        ("--classes 2 --confidence --seed 1", ["it has seed 0; this run has seed 1"]),
        ("--classes 2 --confidence --integrator euler", ['["Taylor"', '["Euler"']),
        ("--classes 2 --confidence --neighborhood 5x5", ["it has neighborhood"]),
        ("--classes 2 --confidence --mask a.tif", ["it has mask null; this run has mask "]),
        ("--classes 2", ["it has confidence true; this run has confidence false"]),
        ("--classes 2 --confidence --name b", ["that of labels/tiledlaf; use another OUTPUT"]),
        (
            "--classes 2 --region 0:9,0:9",
            [
                "done.zarr belongs to another image, region or state",
                "[0, 0], [40, 50]",
                "[0, 0], [9, 9]",
            ],
        ),
    ],
)
def test_output_of_another_run(other, options, words):
    refused(["label", "a.tif", "done.zarr", *options.split()], *words)


def test_output_of_another_image(other):
    """As is another state of the same one: a changed pixel may change prototypes, so all labels."""
    image = tifffile.imread("a.tif")
    image[0, 0] += 1
    tifffile.imwrite("a.tif", image)
    command = ["label", "a.tif", "done.zarr", "--classes", "2", "--confidence"]
    for overwrite in ([], ["--overwrite"]):  # which replaces labels, but not the image beside them
        refused(
            [*command, *overwrite],
            "another image, region or state of the input's files",
            "it has input ",
            "this run has input ",
            "choose another OUTPUT",
        )


def test_labels_of_someone_else(other):
    labels = zarr.open_group("done.zarr/labels", mode="a")
    labels.create_group("cells")
    labels.attrs["ome"] = {**labels.attrs["ome"], "labels": ["tiledlaf", "cells"]}
    command = ["label", "a.tif", "done.zarr", "--classes", "2", "--name", "cells"]
    refused(command, "labels/cells exists already and is not of tiledlaf", "--overwrite")


def test_too_little_free_space(inputs, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(2**30, 2**30 - 500, 500))
    refused(LABEL, "out.zarr: about", "MiB are needed and 0 MiB are free")


def test_too_little_memory(inputs, monkeypatch):
    pool = Pool(1, 100 * 2**20, lambda *_: iter(()), list, list)
    monkeypatch.setattr(resources, "open_pool", lambda *_: contextlib.nullcontext(pool))
    refused(LABEL, "may use 100 MiB", "smaller --tile")


@pytest.mark.parametrize(
    ("address", "code"), [("tcp://127.0.0.1:9", 1), ("nonsense", 2), ("x://a:1", 2), ("a:b", 2)]
)
def test_scheduler_that_does_not_answer(inputs, address, code, monkeypatch):
    """It may yet do so, unless the address is none."""
    monkeypatch.setattr("tiledlaf.pool.dask.ANSWER", 1.0)
    started = time.monotonic()
    refused([*LABEL, "--scheduler", address], f"scheduler {address}: no answer", code=code)
    assert time.monotonic() - started < 6


def test_a_server_that_is_no_scheduler(inputs, monkeypatch):
    """It says nothing, or something else."""
    monkeypatch.setattr("tiledlaf.pool.dask.ANSWER", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        where = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        words = f"scheduler {where}: no answer, nothing within"
        refused([*LABEL, "--scheduler", where], words, code=1)


def test_a_scheduler_without_workers(inputs, monkeypatch):
    monkeypatch.setattr("tiledlaf.pool.dask.COMING", 0.5)
    with distributed.LocalCluster(
        n_workers=0, threads_per_worker=1, processes=False, dashboard_address=None
    ) as cluster:
        address = cluster.scheduler_address
        words = f"scheduler {address}: no worker came within 0.5 s"
        refused([*LABEL, "--scheduler", address], words, code=1)
        cluster.scale(1)
        cluster.wait_for_workers(1)
        (worker,) = cluster.scheduler_info["workers"]
        refused([*LABEL, "--scheduler", worker], "expected a Dask scheduler, this is a worker")


@pytest.mark.parametrize(
    "text", [b"", b'{"type": "Scheduler", "addr', b"[1]", b'{"address": 3}', b"\xff\xfe\0"]
)
def test_files_that_are_not_a_scheduler_s(inputs, text):
    Path("scheduler.json").write_bytes(text)
    refused([*LABEL, "--scheduler-file", "scheduler.json"], "empty, cut or of another kind")
    refused([*LABEL, "--scheduler-file", "."], "is a folder")
    refused([*LABEL, "--scheduler-file", "none.json"], "no such file")


# What is wrong in a tile only that tile notices: it fails with its place, the others are done.

TILED = ["label", "image.zarr", "out.zarr", "--prototypes", "levels.csv", "--tile", "64"]


@pytest.fixture
def tiled(tmp_path, monkeypatch):
    """128 x 128 floats in 16 chunks of 32 x 32; 4 tiles of 64 x 64 with a halo of 11."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).normal(0.5, 0.2, (128, 128)).astype(np.float32)
    array = zarr.create_array("image.zarr", shape=pixels.shape, chunks=(32, 32), dtype="f4")
    array[:] = pixels
    Path("levels.csv").write_text("0.2\n0.8\n")
    return array


def fails(tiles, words, command=TILED):
    """Check that these of 2 x 2 tiles fail with these words, and that all others are labeled."""
    found = run(*command)
    assert found.code == 1
    assert f"tiles: {4 - len(tiles)} done, 0 skipped, {len(tiles)} failed\n" in found.out
    lines = found.err.splitlines()
    assert len(lines) == len(tiles), lines
    for (y, x), line in zip(tiles, sorted(lines), strict=True):
        spans = f"y {64 * y}:{64 * y + 64}, x {64 * x}:{64 * x + 64}"
        assert line.startswith(f"tiledlaf: tile ({y}, {x}) ({spans}): ")
        assert words in line
    labels = zarr.open_array("out.zarr/labels/tiledlaf/0", mode="r")[:]
    for y, x in np.ndindex(2, 2):
        core = labels[64 * y : 64 * y + 64, 64 * x : 64 * x + 64]
        assert (core > 0).all() if (y, x) not in tiles else not core.any()
    return found


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_in_a_tile(tiled, value):
    tiled[100, 20:22] = value
    found = fails(
        [(1, 0)],
        "image: expected finite values, got 2 NaN or inf, the first at channel 0, pixel (100, 20)",
    )
    assert re.search(rf"0 not labeled +{64 * 64}  25.0 % of all", found.out)


def test_many_failures_are_not_all_named(tiled):
    tiled[1::16, 1::16] = np.nan
    found = run(*TILED[:-1], "16")
    assert found.code == 1
    assert "tiles: 0 done, 0 skipped, 64 failed" in found.out
    assert len(found.err.splitlines()) == 21
    assert found.err.endswith(
        "44 more tiles failed, see out.zarr/labels/tiledlaf/0/tiledlaf.jsonl\n"
    )


def test_nan_in_a_halo(tiled):
    """Labels of both tiles depend on this pixel."""
    tiled[70, 20] = np.nan
    fails([(0, 0), (1, 0)], "pixel (70, 20)")


def test_nan_under_the_mask(tiled):
    tiled[100, 20] = np.nan
    mask = np.ones((128, 128), np.uint8)
    mask[100, 20] = 0
    np.save("mask.npy", mask)
    found = run(*TILED, "--mask", "mask.npy")
    assert (found.code, found.err) == (0, "")
    assert re.search(r"0 not labeled +1 ", found.out)


def damage(chunk, how):
    data = Path(chunk).read_bytes()
    Path(chunk).write_bytes(b"garbage!" * 20 if how == "garbage" else data[: len(data) // 2])


@pytest.mark.parametrize("how", ["garbage", "truncated"])
@pytest.mark.parametrize("classes", [TILED[3:5], ["--classes", "2"]])
def test_chunk_that_cannot_be_read(tiled, how, classes):
    damage("image.zarr/c/3/0", how)
    command = ["label", "image.zarr", "out.zarr", *classes, "--tile", "64"]
    fails([(1, 0)], "image.zarr: pixels cannot be read", command)


def test_damaged_mask_and_probabilities(tiled):
    zarr.create_array("mask.zarr", data=np.ones((128, 128), np.uint8), chunks=(32, 32))
    p = np.random.default_rng(1).dirichlet([1, 1], (128, 128)).transpose(2, 0, 1)
    array = zarr.create_array("p.zarr", data=p.astype("f4"), chunks=(2, 32, 32))
    damage("mask.zarr/c/0/3", "garbage")
    command = ["label", "image.zarr", "out.zarr", "--tile", "64", "--probabilities", "p.zarr"]
    fails([(0, 1)], "mask.zarr: pixels cannot be read", [*command, "--mask", "mask.zarr"])
    shutil.rmtree("out.zarr")
    damage("p.zarr/c/0/3/0", "truncated")
    fails([(1, 0)], "p.zarr: pixels cannot be read", command)
    shutil.rmtree("out.zarr")
    array[:, 96:, :32] = 0.25  # in a chunk that is whole again
    array[0, 100, 10] = np.nan
    found = fails([(1, 0)], "got 1 NaN or inf, the first at channel 0, pixel (100, 10)", command)
    assert "probabilities: expected finite values" in found.err


def test_failed_tiles_are_tried_again(tiled):
    """The input's state is part of what was labeled: a repaired one is a new image."""
    damage("image.zarr/c/3/0", "garbage")
    found = fails([(1, 0)], "cannot be read")
    assert "failed: 1 tiles; the same command tries them again" in run("info", "out.zarr").out
    assert fails([(1, 0)], "cannot be read").err == found.err
    records = Path("out.zarr/labels/tiledlaf/0/tiledlaf.jsonl").read_text().splitlines()
    assert len([line for line in records if '"tile"' in line]) == 5
    tiled[96:, :32] = 0.5
    found = run(*TILED)
    assert found.code == 2
    assert "out.zarr belongs to another image, region or state of the input's files" in found.err


def test_no_export_of_failed_tiles(tiled):
    tiled[100, 20] = np.nan
    found = run(*TILED, "--export", "labels.png")
    assert found.code == 1
    assert "labels.png was not written, since tiles failed" in found.err
    assert not Path("labels.png").exists()
