"""Web servers that do not say everything, and buckets that may not be listed."""

import http.server
import threading
import urllib.parse
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import zarr

from tiledlaf import label
from tiledlaf.files import images, nodes, stores
from tiledlaf.files.image import FileWarning
from tiledlaf.reports import text

pytest.importorskip("obstore", reason="NOT TESTED: obstore is not installed")
PIXELS = np.random.default_rng(0).integers(1, 255, (100, 120), dtype=np.uint8)
PIXELS[:32, :32] = 0  # this chunk and this shard are not stored
PAGE = b"\n<!DOCTYPE html>\n<html><body>app</body></html>"
KINDS = {
    "v2": {"zarr_format": 2},
    "v3": {"zarr_format": 3},
    "sharded": {"zarr_format": 3, "chunks": (16, 16), "shards": (32, 32)},
    "a b+ü%": {"zarr_format": 3},
}


def image_at(place, kind):
    group = zarr.open_group(place, mode="w", zarr_format=KINDS[kind]["zarr_format"])
    options = {"chunks": (32, 32), "config": {"write_empty_chunks": False}} | KINDS[kind]
    options.pop("zarr_format")
    group.create_array("0", shape=PIXELS.shape, dtype="u1", fill_value=0, **options)[:] = PIXELS
    moves = [{"type": "scale", "scale": [1, 1]}]
    image = {
        "axes": [{"name": a, "type": "space"} for a in "yx"],
        "datasets": [{"path": "0", "coordinateTransformations": moves}],
    }
    found = {"version": "0.5", "multiscales": [image]}
    group.attrs.update({"multiscales": [image]} if kind == "v2" else {"ome": found})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("www")
    for kind in KINDS:
        image_at(place / f"{kind}.zarr", kind)
    return place


@contextmanager
def served(folder, **behavior):
    """A server of a folder; `behavior` can be changed while it runs."""
    how = SimpleNamespace(
        **{
            "absent": 404,
            "head": True,
            "ranges": True,
            "state": True,
            "length": True,
            "refused": (),
        }
        | behavior,
        requests=[],
    )

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # headers and body in one packet, which are answered at once

        def log_message(self, *args):
            pass

        def do_GET(self):
            self.answer(*self.found())

        def do_HEAD(self):
            self.answer(*(self.found() if how.head else (405, b"", {})), body=False)

        def found(self):
            name = urllib.parse.unquote(self.path).lstrip("/")
            how.requests.append(name)
            if any(part in name for part in how.refused):
                return how.refusal
            if (folder / name).is_file():
                data = (folder / name).read_bytes()
                state = {"ETag": '"1"', "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}
                headers = state if how.state else {}
            elif how.absent in ("page", "parts"):
                data, headers = PAGE, {"Content-Type": "text/html"}
                if how.absent == "page":
                    return 200, data, headers
            else:
                return how.absent, b"<Error><Code>AccessDenied</Code></Error>", {}
            if not how.ranges or "Range" not in self.headers:
                return 200, data, headers
            first, last = self.headers["Range"].removeprefix("bytes=").split("-")
            start = int(first) if first else max(0, len(data) - int(last))
            stop = min(int(last) + 1, len(data)) if first and last else len(data)
            headers = headers | {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"}
            return 206, data[start:stop], headers

        def answer(self, status, data, headers, body=True):
            self.send_response(status)
            chunked = body and not how.length and status == 200
            size = {"Content-Length": str(len(data))}
            for key, value in (
                headers | ({"Transfer-Encoding": "chunked"} if chunked else size)
            ).items():
                self.send_header(key, value)
            self.end_headers()
            if chunked:
                data = b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data)
            if body:
                self.wfile.write(data)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        how.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield how
        finally:
            server.shutdown()
            stores._bucket.cache_clear()


def read(url):
    image = images.open_image(url)
    return image.read(tuple(slice(0, n) for n in image.grid))[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "behavior",
    [
        {},
        {"head": False},
        {"ranges": False},
        {"state": False},
        {"length": False, "ranges": False},
        {"head": False, "ranges": False, "state": False},
    ],
    ids=str,
)
def test_what_a_server_cannot_do_is_done_without(folder, kind, behavior):
    with served(folder, **behavior) as server:
        url = f"{server.url}/{urllib.parse.quote(kind)}.zarr"
        np.testing.assert_array_equal(read(url), PIXELS)
        image = images.open_image(url)
        assert image.fingerprint() == images.open_image(url).fingerprint()
        part = image.read((slice(20, 70), slice(40, 41)))[0]
        np.testing.assert_array_equal(part, PIXELS[20:70, 40:41])


def test_shards_are_not_fetched_again_for_each_part(folder):
    with served(folder, ranges=False) as server:
        image = images.open_image(f"{server.url}/sharded.zarr")
        before = len(server.requests)
        image.read((slice(40, 60), slice(40, 60)))  # four chunks of one shard
        assert server.requests[before:].count("sharded.zarr/0/c/1/1") <= 2


def test_metadata_without_a_state_are_compared(folder, tmp_path):
    image_at(tmp_path / "a.zarr", "v3")
    with served(tmp_path, state=False) as server:
        before = images.open_image(f"{server.url}/a.zarr").fingerprint()
        zarr.open_array(tmp_path / "a.zarr/0").attrs["changed"] = True
        assert images.open_image(f"{server.url}/a.zarr").fingerprint() != before


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("absent", "word"), [(403, "answers 403"), ("page", "a web page")])
@pytest.mark.parametrize("length", [True, False])
def test_servers_that_do_not_say_what_is_not_there(folder, kind, absent, word, length):
    with served(folder, absent=absent, length=length) as server:
        with pytest.warns(FileWarning, match=f"{word}.*count as never written"):
            found = read(f"{server.url}/{urllib.parse.quote(kind)}.zarr")
        np.testing.assert_array_equal(found, PIXELS)


def test_pages_for_parts_of_what_is_not_there(folder):
    """A server that knows ranges sends a part of its page."""
    with served(folder, absent="parts") as server:
        array = nodes.open_array(f"{server.url}/sharded.zarr", "0")
        assert not nodes.read(array, (slice(0, 16), slice(0, 16))).any()


def refusing(status, body, kind="text/html"):
    return status, body, {"Content-Type": kind}


@pytest.mark.parametrize("refusal", [refusing(403, b""), refusing(200, PAGE)], ids=("403", "page"))
@pytest.mark.parametrize("absent", [404, 403, "page"])
def test_refused_pixels_are_never_taken_as_missing(folder, refusal, absent):
    """Where a server tells what is not there apart, or has begun to refuse everything."""
    all_refused = (absent == 403) == (refusal[0] == 403) and absent != 404
    with served(folder, absent=absent, refusal=refusal) as server:
        place = nodes.open_array(f"{server.url}/v3.zarr", "0")
        server.refused = ("/c/1/1", "json") if all_refused else ("/c/1/1",)
        bucket = stores.at(f"{server.url}/v3.zarr")
        bucket._asked = 0  # some time later
        with pytest.raises(OSError, match=r"403|web page"):
            nodes.read(place, (slice(32, 64), slice(32, 64)))


def test_info_of_labels_on_a_server(tmp_path):
    """Records of tiles, which a server does not list, are not looked for."""
    image_at(tmp_path / "a.zarr", "v3")
    label(str(tmp_path / "a.zarr"), str(tmp_path / "out.zarr"), classes=2)
    with served(tmp_path) as server:
        lines = text.info(f"{server.url}/out.zarr")
    assert "labels/tiledlaf" in lines
    assert not [line for line in lines if "complete" in line]


@pytest.mark.parametrize(
    "code", ["ExpiredToken", "SignatureDoesNotMatch", "InvalidAccessKeyId", "RequestTimeTooSkewed"]
)
def test_errors_of_credentials_are_errors(folder, code):
    body = f"<Error><Code>{code}</Code></Error>".encode()
    with served(folder, absent=403, refusal=(403, body, {})) as server:
        array = nodes.open_array(f"{server.url}/v3.zarr", "0")
        server.refused = ("/c/1/1",)
        with pytest.raises(OSError, match=f"403 {code}"):
            nodes.read(array, (slice(32, 64), slice(32, 64)))


@pytest.mark.parametrize(
    ("absent", "problem"),
    [(404, "found none"), ("page", "found none"), (403, "answers 403.*no store, or it must not")],
)
def test_a_url_without_a_store(folder, absent, problem):
    with (
        served(folder, absent=absent) as server,
        pytest.raises((ValueError, OSError), match=problem),
    ):
        images.open_image(f"{server.url}/none.zarr")


def test_json_that_is_not_of_zarr_is_not_metadata(folder, tmp_path):
    image_at(tmp_path / "a.zarr", "v2")
    (tmp_path / "a.zarr/zarr.json").write_text('{"error": "not found"}')
    (tmp_path / "a.zarr/0/zarr.json").write_text('"not found"')
    with served(tmp_path) as server:
        np.testing.assert_array_equal(read(f"{server.url}/a.zarr"), PIXELS)


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """A function that serves a public bucket with an image of a kind, which may not be listed."""
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    monkeypatch.setenv("AWS_REGION", "us-east-1")

    @contextmanager
    def serve(kind, **behavior):
        image_at(tmp_path / "bucket/a.zarr", kind)
        with served(tmp_path, **{"absent": 403} | behavior) as server:
            monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
            stores._bucket.cache_clear()
            yield server

    return serve


@pytest.mark.parametrize("kind", ["v2", "v3", "sharded"])
def test_public_buckets_that_may_not_be_listed(bucket, kind):
    with bucket(kind):
        with pytest.warns(FileWarning, match="answers 403"):
            image = images.open_image("s3://bucket/a.zarr")
        np.testing.assert_array_equal(image.read((slice(0, 100), slice(0, 120)))[0], PIXELS)
        assert image.fingerprint()
        with pytest.raises(OSError, match="answers 403"):
            images.open_image("s3://bucket/none.zarr")


def test_pixels_that_a_bucket_refuses(bucket):
    with bucket("v3", absent=404, refusal=(403, b"", {})) as server:
        array = nodes.open_array("s3://bucket/a.zarr", "0")
        server.refused = ("/c/1/1",)
        with pytest.raises(OSError, match="403"):
            nodes.read(array, (slice(32, 64), slice(32, 64)))


def test_an_output_must_be_listed(bucket):
    """What is refused could be the labels of another run."""
    with bucket("v3"), pytest.raises(OSError, match="403"):
        label(PIXELS, "s3://bucket/out.zarr", prototypes=[[60], [180]])
