"""Safe by default: sockets, pickles, credentials, and paths out of stores."""

import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import zarr
from command import contents, run
from processes import listening, tree

from tiledlaf import evaluate, label, train
from tiledlaf.files import nodes
from tiledlaf.labeling import worker as labeling_worker
from tiledlaf.model import model as model_file
from tiledlaf.pool import dask as dask_pool
from tiledlaf.pool import tasks
from tiledlaf.redaction import check, redacted

SHAPE = (40, 50)
PLANES = [{"name": a, "type": "space"} for a in "yx"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 255, SHAPE).astype(np.uint8)


def refused(arguments, words):
    """One line, exit code 2."""
    found = run(*arguments)
    assert found.code == 2, found
    assert found.err.startswith("tiledlaf: error: ")
    assert found.err.count("\n") == 1
    assert words in found.err
    assert not found.out
    return found.err


# Sockets


def addresses():
    """Where this process and those that it started accept connections."""
    return {address.ip for address in listening(tree())}


def test_a_cluster_is_on_loopback_only():
    before = addresses()
    assert before <= {"127.0.0.1", "::1"}
    with dask_pool.dask(2) as pool:
        outcomes = list(pool.run(max, 0, [1, 2]))
        found = addresses()
    assert [outcome[1] for outcome in outcomes]
    assert found
    assert found <= {"127.0.0.1", "::1"}


def test_threads_listen_nowhere():
    before = addresses()
    with tasks.threads(2):
        assert addresses() == before


# Pickles


class Canary:
    """An object whose unpickling makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


@pytest.fixture
def canary(here):
    path = here / "hatched"
    pickle.loads(pickle.dumps(Canary(path)))
    assert path.exists()
    path.unlink()
    yield Canary(path)
    assert not path.exists()


def objects(canary):
    array = np.empty((2, 2), object)
    array[:] = canary
    return array


def test_a_pickle_is_no_model(canary):
    Path("a.model").write_bytes(pickle.dumps(canary))
    refused(["info", "a.model"], "a.model: ")
    refused(["label", "a.npy", "out.zarr", "--model", "a.model"], "a.model: expected")
    with pytest.raises(ValueError, match=r"a\.model: expected a tiledlaf model, got another kind"):
        model_file.load("a.model")


@pytest.mark.parametrize("member", ["model", "bias", "term/value"])
def test_objects_are_no_part_of_a_model(canary, member):
    arrays = {"model": np.array("{}"), member: objects(canary)}
    with zipfile.ZipFile("a.model", "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, array, allow_pickle=True)
    refused(["info", "a.model"], "a.model: expected a tiledlaf model, ValueError: Object arrays")


def test_objects_are_no_image(canary):
    np.save("a.npy", objects(canary), allow_pickle=True)
    refused(["label", "a.npy", "out.zarr", "--classes", "2"], "a.npy: it holds Python objects")


def v2(path, canary, dtype, filters, compressor=None):
    """An array in Zarr v2 whose chunk is a pickle."""
    Path(path).mkdir()
    metadata = {
        "zarr_format": 2,
        "shape": SHAPE,
        "chunks": SHAPE,
        "dtype": dtype,
        "order": "C",
        "fill_value": None if dtype == "|O" else 0,
        "filters": filters,
        "compressor": compressor,
    }
    Path(path, ".zarray").write_text(json.dumps(metadata))
    Path(path, "0.0").write_bytes(pickle.dumps(canary))


def v3(path, canary, codec):
    """An array in Zarr v3 whose chunk is a pickle."""
    folder = Path(path, "c", "0")
    folder.mkdir(parents=True)
    metadata = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": SHAPE,
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": SHAPE}},
        "chunk_key_encoding": {"name": "default"},
        "fill_value": 0,
        "attributes": {},
        "codecs": [{"name": "bytes"}, {"name": codec, "configuration": {}}],
    }
    Path(path, "zarr.json").write_text(json.dumps(metadata))
    (folder / "0").write_bytes(pickle.dumps(canary))


PICKLE = {"id": "pickle", "protocol": 5}
STORES = {
    "objects": ("|O", [PICKLE]),
    "numbers": ("|u1", [PICKLE]),
    "numbers, second": ("|u1", [{"id": "delta", "dtype": "|u1"}, PICKLE]),
    "compressor": ("|u1", None, PICKLE),
    "texts": ("|O", [{"id": "vlen-utf8"}], PICKLE),
    "texts alone": ("|O", [{"id": "vlen-utf8"}]),
}


@pytest.mark.parametrize("kind", [*STORES, "pickle", "numcodecs.pickle"])
def test_stores_with_pickles_are_refused(canary, image, kind):
    if kind in STORES:
        v2("a.zarr", canary, *STORES[kind])
    else:
        v3("a.zarr", canary, kind)
    zarr.save_array("good.zarr", image)
    refused(["label", "a.zarr", "out.zarr", "--classes", "2"], "a.zarr: expected ")
    refused(["label", "good.zarr", "out.zarr", "--classes", "2", "--mask", "a.zarr"], "a.zarr: ")
    with pytest.raises(ValueError, match=r"expected|data type|codec"):
        nodes.open_array("a.zarr")[...]
    assert not Path("out.zarr").exists()


# Credentials

SECRET = "wJalrXUtnFEMI"
URLS = [
    f"s3://AKIAIOSFODNN7:{SECRET}@bucket/a.zarr",
    f"s3://AKIAIOSFODNN7:{SECRET}/with?marks#@bucket/a.zarr",
    f"https://{SECRET}@host.invalid/a.zarr",
    f"https://host.invalid/a.zarr?X-Amz-Signature={SECRET}&X-Amz-Expires=60",
    f"https://account.blob.core.windows.net/c/a.zarr?sv=2024&sig={SECRET}%3D",
    f"https://host.invalid/a.zarr#{SECRET}",
]


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("around", ["{}", "{}: no such file", "cannot read '{}'", '["{}", 1]'])
def test_secrets_are_redacted(url, around):
    found = redacted(around.format(url))
    assert SECRET not in found
    assert "***" in found
    kept = "bucket/a.zarr" if "bucket" in url else "/a.zarr"
    for part in (url.split("://")[0] + "://", "" if "?marks" in url else kept):
        assert part in found
    before, after = around.split("{}")
    assert found.startswith(before)
    assert found.endswith(after)


@pytest.mark.parametrize(
    "text",
    [
        "a.tif: no such file",
        "scheduler tls://head.local:8786: no answer",
        "what?",
        "me@home",
        "s3://bucket/a@b.zarr: no such file",
        "http://127.0.0.1:9000/bucket/a@b.zarr, got",
        "tile (0, 1) (y 0:64, x 64:128): damaged",
        "C:/images/a?b",
    ],
)
def test_other_texts_stay_as_they_are(text):
    assert redacted(text) == text


def test_secrets_with_spaces_are_refused_and_paths_of_files_are_not():
    with pytest.raises(ValueError, match="expected a path or URL without") as caught:
        check(f"s3://key:a 'b' {SECRET}@bucket/a.zarr")
    assert SECRET not in str(caught.value)
    for path in (
        "a?b.tif",
        "me@home/a.tif",
        "/data/run:/a?b.tif",
        "s3://bucket/a@b.zarr",
        Path("x"),
    ):
        check(path)


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize(
    "command",
    [
        "label URL out.zarr --classes 2",
        "label a.npy URL --classes 2",
        "label a.npy out.zarr --probabilities URL",
        "label a.npy out.zarr --model URL",
        "label a.npy out.zarr --weights URL",
        "label a.npy out.zarr --classes 2 --mask URL",
        "label a.npy out.zarr --prototypes URL",
        "label a.npy out.zarr --classes 2 --export URL",
        "label a.npy out.zarr --classes 2 --scheduler URL",
        "label URL --into-input --classes 2",
        "label a.npy out.zarr --classes 2 --name URL",
        "info URL",
        "train URL --images a.npy --labels a.npy",
        "train a.model --images URL --labels a.npy",
        "train a.model --images a.npy --labels URL",
        "estimate URL a.npy w.zarr",
        "estimate a.npy URL w.zarr",
        "estimate a.npy a.npy URL",
        "evaluate URL a.npy",
        "evaluate a.npy URL",
        "evaluate a.npy a.npy --picture URL",
    ],
)
def test_the_command_keeps_secrets(here, image, url, command):
    np.save("a.npy", image // 128 + 1)
    err = refused([url if word == "URL" else word for word in command.split()], "")
    assert SECRET not in err
    assert os.listdir() == ["a.npy"]  # and no folder of that name


@pytest.mark.parametrize("url", URLS)
def test_functions_keep_secrets(here, image, url):
    for call in (
        lambda: label(url, classes=2),
        lambda: label(image, url, classes=2),
        lambda: label(image, probabilities=url),
        lambda: label(image, model=url),
        lambda: label(image, classes=2, mask=url),
        lambda: label(image, weights=url),
        lambda: label(image, classes=2, scheduler=url),
        lambda: model_file.load(url),
        lambda: model_file.load(Path(url)),
        lambda: train([image], [image], output=url),
        lambda: evaluate(url, image),
    ):
        with pytest.raises((ValueError, OSError, TypeError)) as caught:
            call()
        assert SECRET not in str(caught.value)
    assert os.listdir() == []


@pytest.mark.parametrize("kind", [ValueError, RuntimeError])
def test_records_keep_secrets(here, image, monkeypatch, kind):
    """What a store or a worker says about a tile goes to a file and to the screen."""

    def fail(*arguments):
        raise kind(f"GET {URLS[3]} failed")

    np.save("a.npy", image)
    monkeypatch.setattr(labeling_worker, "compute", fail)
    found = run("label", "a.npy", "out.zarr", "--classes", "2", "--workers", "1")
    assert found.code == 1
    assert "https://host.invalid/a.zarr?***" in found.err
    assert SECRET not in found.out + found.err
    files = contents("out.zarr")
    assert any(b"host.invalid" in data for data in files.values())
    assert not any(SECRET.encode() in data for data in files.values())


def test_environment_stays_out_of_the_output(here, image, monkeypatch):
    for variable in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_STORAGE_SAS_TOKEN"):
        monkeypatch.setenv(variable, SECRET)
    np.save("a.npy", image)
    found = run("label", "a.npy", "out.zarr", "--classes", "2", "--workers", "1")
    assert found.code == 0, found
    assert SECRET not in found.out + found.err
    assert not any(SECRET.encode() in data for data in contents("out.zarr").values())


# Paths

OUT = [
    "../b.zarr/0",
    "..",
    "/etc",
    "/0",
    "0/../../b.zarr/0",
    "..\\b.zarr",
    "C:\\0",
    ".",
    "",
    "a//b",
    7,
    None,
]


def multiscale(path, name, image, version="0.5"):
    """An OME-Zarr whose metadata say where its level is."""
    group = zarr.open_group(path, mode="w", zarr_format=3 if version == "0.5" else 2)
    group.create_array("0", data=image)
    scale = [{"type": "scale", "scale": [1, 1]}]
    entry = {"axes": PLANES, "datasets": [{"path": name, "coordinateTransformations": scale}]}
    if version == "0.5":
        group.attrs["ome"] = {"version": "0.5", "multiscales": [entry]}
    else:
        group.attrs["multiscales"] = [entry | {"version": "0.4"}]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("name", OUT)
def test_levels_lie_in_their_store(here, image, name, version):
    multiscale("a.zarr", name, image, version)
    multiscale("b.zarr", "0", image, version)
    words = "a.zarr: expected paths that lie within it, got "
    refused(["label", "a.zarr", "out.zarr", "--classes", "2"], words)
    refused(["label", "a.zarr", "--into-input", "--classes", "2"], words)
    refused(["info", "a.zarr"], words)
    assert sorted(os.listdir()) == ["a.zarr", "b.zarr"]


def test_levels_may_lie_deeper(here, image):
    multiscale("a.zarr", "fine/0", image)
    zarr.open_group("a.zarr").create_array("fine/0", data=image)
    assert run("label", "a.zarr", "out.zarr", "--classes", "2", "--workers", "1").code == 0


@pytest.mark.parametrize("listed", [["../../b.zarr"], ["/etc"], [".."], [7], "tiledlaf", {"a": 1}])
def test_labels_lie_in_their_store(here, image, listed):
    multiscale("a.zarr", "0", image)
    multiscale("b.zarr", "0", image)
    zarr.open_group("a.zarr/labels", mode="w").attrs["ome"] = {"version": "0.5", "labels": listed}
    before = contents("a.zarr")
    name = listed[0] if isinstance(listed, list) else "tiledlaf"
    for command in (
        ["info", "a.zarr"],
        ["evaluate", "a.zarr", "b.zarr", "--name", name],
        ["label", "a.zarr", "--into-input", "--classes", "2"],
    ):
        refused(command, "a.zarr/labels: expected ")
    assert contents("a.zarr") == before
    assert sorted(os.listdir()) == ["a.zarr", "b.zarr"]


@pytest.mark.parametrize(
    "name", ["../x", "/etc", "..", ".", "a/b", "a\\b", "", ".zattrs", "zarr.json"]
)
def test_names_of_labels(here, image, name):
    np.save("a.npy", image)
    refused(["label", "a.npy", "out.zarr", "--classes", "2", "--name", name], "for the labels, got")
    assert os.listdir() == ["a.npy"]


@pytest.mark.parametrize(
    "place",
    [
        "labels",
        "labels/tiledlaf",
        "labels/tiledlaf/0",
        "confidence",
        "labels/tiledlaf/0/tiledlaf.jsonl",
    ],
)
def test_nothing_is_written_through_links_out_of_a_store(here, image, place):
    multiscale("a.zarr", "0", image)
    command = ["label", "a.zarr", "--into-input", "--classes", "2", "--workers", "1"]
    assert run(*command, "--confidence").code == 0
    inside, outside = Path("a.zarr", place), Path("elsewhere")
    shutil.move(inside, outside)
    inside.symlink_to(outside.absolute())
    before = contents(outside)
    for options in ([], ["--overwrite"], ["--overwrite", "--time", "2"]):
        refused([*command, *options], f"a.zarr: expected {place} to lie within the store")
    assert contents(outside) == before


def test_links_within_a_store_and_to_it(here, image):
    multiscale("elsewhere.zarr", "0", image)
    Path("a.zarr").symlink_to(Path("elsewhere.zarr").absolute())
    command = ["label", "a.zarr", "--into-input", "--classes", "2", "--workers", "1"]
    assert run(*command).code == 0
    shutil.move("a.zarr/labels", "a.zarr/kept")
    Path("a.zarr/labels").symlink_to("kept")
    assert run(*command, "--overwrite").code == 0
