"""Outputs in viewers: what a browser is given, by whom it can be had, and how it ends."""

import http.client
import itertools
import json
import shutil
import signal
import socket
import subprocess
import sys
import types
import urllib.error
import urllib.parse
import urllib.request
from contextlib import ExitStack, suppress

import numpy as np
import pytest
import tifffile
import zarr
from cloud import standing_in
from command import run

import tiledlaf
from tiledlaf.reports import chunks, layers, napari, neuroglancer, serving, viewing

NAMES = ["dark <b>", "bright"]


@pytest.fixture(autouse=True)
def client(tmp_path_factory, monkeypatch):
    """A client of two files in place of neuroglancer's."""
    folder = tmp_path_factory.mktemp("client")
    (folder / "index.html").write_text("<!doctype html><title>client</title>")
    (folder / "main.js").write_text("0")
    files = {path.name: path for path in folder.iterdir()}
    monkeypatch.setattr(neuroglancer, "client", lambda: files)
    return folder


def halves(shape, dtype=np.uint8):
    image = np.random.default_rng(0).integers(0, 40, shape).astype(dtype)
    image[..., shape[-1] // 2 :] += 120
    return image


@pytest.fixture(scope="module")
def _made(tmp_path_factory):
    """Outputs of a picture in color, a volume, a series, and a part of a store of Zarr 2."""
    folder = tmp_path_factory.mktemp("made")
    options = {"classes": 2, "names": NAMES, "confidence": True, "workers": 1}
    color = halves((3, 300, 340)).transpose(1, 2, 0)
    tiledlaf.label(color, folder / "color.zarr", axes="yxc", tile=256, **options)
    volume = halves((20, 70, 90), np.float32)
    tiledlaf.label(volume, folder / "volume.zarr", axes="zyx", **options)
    series = halves((3, 40, 50), np.uint16)
    tiledlaf.label(series, folder / "series.zarr", axes="tyx", time_point="all", **options)
    scale = [{"type": "scale", "scale": [0.5, 0.25]}]
    group = zarr.open_group(folder / "old.zarr", mode="w", zarr_format=2)
    group.create_array("0", data=halves((90, 80)), chunks=(32, 32))
    axes = [{"name": a, "type": "space", "unit": "millimeter"} for a in "yx"]
    dataset = {"path": "0", "coordinateTransformations": scale}
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": [dataset]}]
    part = ["--into-input", "--region", "16:80,10:70", "--classes", "2", "--workers", "1"]
    found = run("label", folder / "old.zarr", *part)
    assert found.code == 0, found
    return folder


@pytest.fixture
def made(_made, monkeypatch):
    monkeypatch.chdir(_made)
    return _made


def get(url, **headers):
    """Status, headers and body."""
    try:
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=20) as found:
            return found.status, found.headers, found.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


@pytest.fixture
def served():
    """Serve an output, and return where, its state, and what was complained of."""
    with ExitStack() as stack:

        def serve(path, name=None):
            said = []
            found, words = layers.read(path, name)
            assert words == ""
            url = stack.enter_context(viewing.in_browser(found, 0, said.append)).url
            return url, state(url), said

        yield serve


def state(url):
    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *arguments):
            return None

    try:
        urllib.request.build_opener(Stay).open(url)
    except urllib.error.HTTPError as error:
        with error:
            place = error.headers["Location"]
    return json.loads(get(place.partition("#!")[2])[2])


def source(layer):
    url = layer["source"] if isinstance(layer["source"], str) else layer["source"][0]
    return url.removeprefix("zarr3://")


def fetched(url, level):
    """A level put together from its chunks, as a browser does."""
    about = json.loads(get(f"{url}{level}/zarr.json")[2])
    shape, edges = about["shape"], about["chunk_grid"]["configuration"]["chunk_shape"]
    whole = np.zeros([-(-n // e) * e for n, e in zip(shape, edges, strict=True)], "u1")
    whole = whole.astype(about["data_type"])
    for place in itertools.product(*(range(-(-n // e)) for n, e in zip(shape, edges, strict=True))):
        code, headers, body = get(f"{url}{level}/c/{'/'.join(map(str, place))}")
        assert (code, headers["Content-Type"]) == (200, "application/octet-stream")
        box = tuple(slice(p * e, (p + 1) * e) for p, e in zip(place, edges, strict=True))
        whole[box] = np.frombuffer(body, np.dtype(about["data_type"]).newbyteorder("<")).reshape(
            edges
        )
    beyond = [str(-(-n // e)) for n, e in zip(shape, edges, strict=True)]
    assert get(f"{url}{level}/c/{'/'.join(beyond)}")[0] == 404
    return whole[tuple(slice(0, n) for n in shape)]


@pytest.mark.parametrize("name", ["color", "volume", "series", "old"])
def test_a_browser_is_given_all_pixels(made, served, name):
    _, about, said = served(f"{name}.zarr")
    groups = {"image": "", "tiledlaf": "labels/tiledlaf", "confidence": "confidence"}
    kept = [layer["name"] for layer in about["layers"]]
    assert kept == list(groups)[: 2 if name == "old" else 3]
    for layer in about["layers"]:
        group = zarr.open_group(f"{name}.zarr", path=groups[layer["name"]], mode="r")
        known = sorted(k for k, v in group.arrays())
        listed = json.loads(get(f"{source(layer)}zarr.json")[2])["attributes"]["ome"]
        datasets = listed["multiscales"][0]["datasets"]
        assert [d["path"] for d in datasets] == known
        for level in known:
            found = fetched(source(layer), level)
            np.testing.assert_array_equal(found, group[level][:])
    assert said == []


def test_what_is_shown_at_first(made, served):
    _, about, _ = served("color.zarr")
    image, labels, confidence = about["layers"]
    assert [one["visible"] for one in about["layers"]] == [True, True, False]
    assert image["channelDimensions"] == {"c^": [1, ""]}
    assert "emitRGB(vec3(channel0(), channel1(), channel2()))" in image["shader"]
    assert labels["segmentColors"] == {"1": "#0072b2", "2": "#e69f00"}
    assert labels["segments"] == ["1", "2"]
    assert "range=[0.5, 1.0]" in confidence["shader"]
    assert about["position"] == [169.5, 149.5]
    assert (about["layout"], list(about["dimensions"])) == ("xy", ["x", "y"])
    names = labels["source"][1].removeprefix("precomputed://")
    inline = json.loads(get(f"{names}/info")[2])["inline"]
    assert inline["ids"] == ["1", "2"]
    assert inline["properties"][0]["values"] == NAMES


def test_units_and_places(made, served):
    """Labels of a part lie on their part of the image, in micrometers."""
    _, about, _ = served("old.zarr")
    assert about["dimensions"] == {"x": [0.25e-3, "m"], "y": [0.5e-3, "m"]}
    moves = []
    for layer in about["layers"]:
        listed = json.loads(get(f"{source(layer)}zarr.json")[2])["attributes"]["ome"]
        assert [axis["unit"] for axis in listed["multiscales"][0]["axes"]] == ["micrometer"] * 2
        moves.append(listed["multiscales"][0]["datasets"][0]["coordinateTransformations"])
    (scale, image), (same, labels) = moves
    assert scale == same == {"type": "scale", "scale": [500.0, 250.0]}
    assert image["translation"] == [0, 0]
    assert labels["translation"] == [16 * 500, 10 * 250]
    assert about["position"] == [10 + 30 - 0.5, 16 + 32 - 0.5]


def test_volumes_and_series(made, served):
    assert served("volume.zarr")[1]["layout"] == "4panel-alt"
    about = served("series.zarr")[1]
    assert (about["layout"], list(about["dimensions"])) == ("xy", ["x", "y", "t"])
    low, high = json.loads(
        about["layers"][0]["shader"].partition("range=")[2].partition("]")[0] + "]"
    )
    assert 0 <= low < 10 < 150 < high <= 160  # of the pixels, not of their type


def test_levels_lie_on_each_other(made):
    found, _ = layers.read("color.zarr")
    for layer in found:
        for level in range(len(layer.levels)):
            for axis in range(2):
                size, first = layer.scale(level)[axis], layer.origin(level)[axis]
                assert first - size / 2 == -0.5
                assert abs(size * layer.levels[level].grid[axis] - layer.image.grid[axis]) < size


# Who gets an answer


def test_only_the_token_opens(made, served):
    url, about, said = served("color.zarr")
    origin, token = url.rstrip("/").rsplit("/", 1)
    port = int(origin.rpartition(":")[2])
    assert len(token) >= 32
    assert get(f"{origin}/v/{token}/")[2] == b"<!doctype html><title>client</title>"
    assert get(f"{origin}/v/{token}/main.js")[1]["Content-Type"] == "text/javascript"
    wrong = token[:-1] + ("A" if token[-1] != "A" else "B")
    data = f"data/{token}/1/data"
    for path in (
        *(
            "",
            "/",
            "v/",
            f"v/{wrong}/",
            f"{wrong}/",
            f"data/{wrong}/state.json",
            "data//state.json",
        ),
        *(f"v/{token}/../main.js", f"v/{token}/%2e%2e/main.js", f"v/{token}/..%2fmain.js"),
        *(f"v/{token}//etc/passwd", f"v/{token}/%2fetc%2fpasswd", f"v/{token}/none.js"),
        *(
            f"{data}/../zarr.json",
            f"{data}/..%2f..%2fzarr.json",
            f"{data}/0/c/-1/0",
            f"{data}/7/zarr.json",
        ),
        *(f"{data}/0/c/0", f"{data}/0/c/0/0/0", f"{data}/0/c/9999999999/0", f"{data}/0/c/\u0661/0"),
        *(f"{data}/.zarray", f"data/{token}/9/data/zarr.json", f"data/{token}/0/names/info", "é"),
    ):
        code, headers, body = get(f"{origin}/{urllib.parse.quote(path, safe='/%.')}")
        assert (code, body) == (404, b""), path
        assert not [h for h in headers if h.lower().startswith("access-control")]
    assert get(f"{origin}/favicon.ico")[0] == 204
    assert get(source(about["layers"][1]) + "zarr.json", Host="evil.example")[0] == 403
    assert get(url, Host="evil.example")[0] == 403
    headers = get(source(about["layers"][1]) + "zarr.json", Origin="https://evil.example")[1]
    assert not [h for h in headers if h.lower().startswith("access-control")]
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert said == []
    for method, path, code in (
        ("POST", f"/state/{wrong}", 404),
        ("POST", f"/state/{token}", 200),
        ("PUT", f"/state/{token}", 501),
        ("HEAD", f"/{data}/zarr.json", 200),
        ("GET", "/%ff", 400),
    ):
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        line.request(method, path, b"{}" if method == "POST" else None)
        assert line.getresponse().status == code, path
        line.close()


def asked(site, *lines):
    """The first line of the answer to a request as it is written."""
    with socket.create_connection(("127.0.0.1", site.port), timeout=20) as line:
        line.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
        return line.makefile("rb").readline().decode().strip()


def test_every_answer_is_guarded(made, served):
    """Nothing keeps the token: no cache, no referrer; nothing of others runs on a page."""
    origin, token = served("color.zarr")[0].rstrip("/").rsplit("/", 1)
    line = http.client.HTTPConnection(origin.removeprefix("http://"), timeout=20)
    for code, method, path in (
        *((302, "GET", f"/{token}/"), (200, "HEAD", f"/v/{token}/"), (200, "GET", f"/v/{token}/")),
        *((404, "GET", "/v/no/"), (200, "GET", f"/data/{token}/1/data/0/c/0/0")),
        (200, "POST", f"/state/{token}"),
    ):
        line.request(method, path, b"{}" if method == "POST" else None)
        found = line.getresponse()
        body = found.read()
        assert (found.status, bool(body)) == (code, code == 200 and method != "HEAD")
        assert int(found.headers["Content-Length"]) >= len(body)
        assert found.headers["Referrer-Policy"] == "no-referrer"
        assert found.headers["Cache-Control"] == "no-store"
        assert found.headers["X-Content-Type-Options"] == "nosniff"
        parts = found.headers["Content-Security-Policy"].split("; ")
        policy = dict(part.split(" ", 1) for part in parts)
        assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
        assert policy["connect-src"] == "'self' data: blob:"
        assert "'unsafe-inline'" not in policy["script-src"]
        # a refusal ends the connection: what else was sent on it is not a request
        assert (found.headers["Connection"] == "close") == (code == 404)
    line.close()


def test_odd_requests_get_an_answer(made):
    """None ends in an exception, or says more than a status."""
    said = []
    with viewing.in_browser(layers.read("color.zarr")[0], 0, said.append) as site:
        host, chunk = f"Host: 127.0.0.1:{site.port}", f"/data/{site.token}/1/data/0/c/0/0"
        for code, line, *more in (
            (404, "GET http://[x/ HTTP/1.1", host),
            (404, "GET http://127.0.0.1/v/ HTTP/1.1", host),
            (403, f"GET {chunk} HTTP/1.1"),
            (403, f"GET {chunk} HTTP/1.0"),
            (403, f"GET {chunk} HTTP/1.1", f"Host: 127.0.0.1:{site.port}.evil.example"),
            (403, f"GET {chunk} HTTP/1.1", "Host: 127.0.0.1"),
            (200, f"GET {chunk} HTTP/1.1", host, f"Range: bytes=-{10**30}"),
            (200, f"GET {chunk}?a=b/../c HTTP/1.1", host),
            (404, f"GET {chunk.replace('/1/data', '/1/data/%252e%252e')} HTTP/1.1", host),
            (404, f"POST /state/{site.token} HTTP/1.1", host, "Content-Length: \xb2"),
            (404, f"POST /state/{site.token} HTTP/1.1", host, "Content-Length: -1"),
            (404, f"POST /state/{site.token} HTTP/1.1", host, f"Content-Length: {'9' * 5000}"),
            (413, f"POST /state/{site.token} HTTP/1.1", host, "Content-Length: 99999999"),
            (404, f"POST /state/{site.token} HTTP/1.1", host, "Transfer-Encoding: chunked"),
            *((501, f"{one} {chunk} HTTP/1.1", host) for one in ("OPTIONS", "DELETE", "TRACE")),
        ):
            assert f" {code} " in asked(site, line, *more), line
    assert said == []


def test_what_starts_a_browser_opens_once(made, monkeypatch):
    """Other users see its arguments, but not the token, which opens for as long as it runs."""
    said, opened = [], []
    with viewing.in_browser(layers.read("color.zarr")[0], 0, said.append) as site:
        assert site.token not in site.once
        assert state(site.once)["layers"]
        assert said == []
        assert get(site.once)[0] == 404
        assert said == [serving.USED]
        assert state(site.url)["layers"]  # of who has the token nothing changes

    def begin(url):
        opened.append(url)
        raise KeyboardInterrupt

    monkeypatch.setattr("webbrowser.open", begin)
    found = run("view", "color.zarr")
    assert (found.code, found.err) == (0, "")
    assert len(opened) == 1
    assert opened[0] not in found.out


def test_connections_without_a_token_keep_nobody_out(made, monkeypatch):
    """Others may hold as many as they like; pixels are sent, and an open stream stays open."""
    monkeypatch.setattr(serving, "STRANGERS", 5)
    monkeypatch.setattr(serving, "PING", 0.05)
    with ExitStack() as stack:
        site = stack.enter_context(
            viewing.in_browser(layers.read("color.zarr")[0], 0, lambda _: None)
        )
        own = http.client.HTTPConnection("127.0.0.1", site.port, timeout=20)
        stack.callback(own.close)
        own.request("GET", f"/events/{site.token}")
        answer = own.getresponse()
        assert answer.read(8) == b": here\n\n"
        held = [
            stack.enter_context(socket.create_connection(("127.0.0.1", site.port), timeout=20))
            for _ in range(12)
        ]
        for line in held:  # half a request
            with suppress(OSError):
                line.sendall(b"GET / HT")
        assert state(site.url)["layers"]
        with suppress(ConnectionError):
            assert held[0].recv(1) == b""  # the oldest is closed
        assert answer.read(80) == b": here\n\n" * 10
        held[-1].settimeout(0.2)
        with pytest.raises(TimeoutError):
            held[-1].recv(1)


def test_it_listens_on_loopback_alone(made, served):
    url, _, _ = served("color.zarr")
    port = int(url.split(":")[2].partition("/")[0])
    with socket.socket() as other:  # the same port of another address is free
        other.bind(("127.0.0.2", port))


def test_the_stream_is_open_until_the_end(made):
    found, _ = layers.read("color.zarr")
    with viewing.in_browser(found, 0, print) as site:
        url = site.url
        token = url.rstrip("/").rpartition("/")[2]
        port = int(url.split(":")[2].partition("/")[0])
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        line.request("GET", f"/events/{token}?c=1")
        answer = line.getresponse()
        assert answer.headers["Content-Type"] == "text/event-stream"
        assert answer.read(8) == b": here\n\n"
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=5)
    line.close()


def test_damaged_pixels_are_told_of(made, served, tmp_path):
    shutil.copytree("series.zarr", tmp_path / "bad.zarr")
    url, about, said = served(tmp_path / "bad.zarr")
    for file in (tmp_path / "bad.zarr/labels/tiledlaf/0/c").rglob("*"):
        if file.is_file():
            file.write_bytes(b"no chunk")
    code, _, body = get(source(about["layers"][1]) + "0/c/0/0/0")
    assert (code, body) == (500, b"")
    assert "pixels cannot be read" in said[0]
    assert get(source(about["layers"][0]) + "0/c/0/0/0")[0] == 200
    assert url.rstrip("/").rpartition("/")[2] not in "".join(said)


@pytest.fixture
def cloud(tmp_path):
    with standing_in(tmp_path):
        yield tmp_path


def test_object_stores_are_read_through_the_server(made, cloud, served):
    found = tiledlaf.label(halves((300, 280)), "s3://a/out.zarr", classes=2, tile=256)
    assert not found.errors
    _, about, _ = served("s3://a/out.zarr")
    expected = zarr.open_array(cloud / "a/out.zarr/labels/tiledlaf/0", mode="r")[:]
    np.testing.assert_array_equal(fetched(source(about["layers"][-1]), 0), expected)


# The command


def test_the_command_ends_by_an_interrupt(made, client):
    """In a process of its own; with the real client, where it is installed, or the one of tests."""
    code = (
        "from pathlib import Path; from tiledlaf.reports import neuroglancer; import sys; "
        f"neuroglancer.client = lambda: {{'index.html': Path({str(client / 'index.html')!r})}}; "
        "from tiledlaf.cli import main; main()"
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        process = subprocess.Popen(
            [sys.executable, "-c", code, "view", "series.zarr", "--no-browser"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            url = process.stdout.readline().removeprefix("view: ").strip()
            assert process.stdout.readline() == "Ctrl-C ends it.\n"
            assert state(url)["layers"]
            process.send_signal(number)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
        assert (process.returncode, out, err) == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.zarr"], "none.zarr: no such file or folder"),
        (["old.zarr", "--name", "b"], "expected an output with labels/b of tiledlaf"),
        (["old.zarr", "--viewer", "fiji"], "Invalid value for '--viewer'"),
        (["old.zarr", "--port", "70000"], "Invalid value for '--port'"),
        (["old.zarr", "--viewer", "napari"], "pip install 'napari[all]'"),
    ],
)
def test_bad_input_is_one_line(made, monkeypatch, arguments, said):
    monkeypatch.setitem(sys.modules, "napari", None)
    found = run("view", *arguments)
    assert (found.code, found.out) == (2, "")
    assert said in found.err
    assert found.err.count("\n") == 1


def test_a_port_in_use_is_said(made):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        found = run("view", "old.zarr", "--no-browser", "--port", port)
    assert found.code == 2
    assert f"--port {port}: expected a free one, got Address already in use" in found.err


def test_a_missing_client_is_said(made, monkeypatch):
    monkeypatch.undo()
    monkeypatch.chdir(made)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    found = run("view", "old.zarr", "--no-browser")
    assert found.code == 2
    assert "pip install 'tiledlaf[view]'" in found.err


def test_unfinished_labels_are_shown_and_named(made, tmp_path):
    shutil.copytree("color.zarr", tmp_path / "cut.zarr")
    file = tmp_path / "cut.zarr/labels/tiledlaf/0/tiledlaf.jsonl"
    file.write_text("".join(file.read_text().splitlines(True)[:3]))
    found, words = layers.read(tmp_path / "cut.zarr")
    assert len(found) == 3
    assert "expected finished labels, got 1 of 4 tiles" in words


# napari


class Napari(types.ModuleType):
    """What is used of napari; keeps what it is given."""

    def __init__(self):
        super().__init__("napari")
        self.added, self.ran = [], 0
        self.utils = types.SimpleNamespace(
            colormaps=types.SimpleNamespace(DirectLabelColormap=lambda color_dict: color_dict)
        )
        self.scale_bar = types.SimpleNamespace(visible=False, unit=None)

    def Viewer(self, title):
        self.title = title
        return self

    def add_image(self, data, **given):
        self.added.append((data, given))

    add_labels = add_image

    def run(self):
        self.ran += 1


@pytest.fixture
def fake(monkeypatch):
    found = Napari()
    monkeypatch.setitem(sys.modules, "napari", found)
    return found


@pytest.mark.parametrize("name", ["color", "volume", "series", "old"])
def test_napari_is_given_layers(made, fake, name):
    found = run("view", f"{name}.zarr", "--viewer", "napari")
    assert (found.code, found.out, found.err, fake.ran) == (0, "", "", 1)
    groups = ["", "labels/tiledlaf", "confidence"][: len(fake.added)]
    for group, (data, given) in zip(groups, fake.added, strict=True):
        levels = data if given["multiscale"] else [data]
        for level, one in enumerate(levels):
            expected = zarr.open_array(f"{name}.zarr/{group}/{level}", mode="r")[:]
            expected = np.moveaxis(expected, 0, -1) if given.get("rgb") else expected
            np.testing.assert_array_equal(np.asarray(one), expected)
            assert (one.shape, one.dtype, one.ndim) == (
                expected.shape,
                expected.dtype,
                expected.ndim,
            )
            for index in (0, (Ellipsis, 1), (slice(2, 9, 3), slice(None)), (1, slice(0, 5))):
                np.testing.assert_array_equal(one[index], expected[index])
    labels = fake.added[1][1]
    assert labels["features"]["name"][1:] == (["class 1", "class 2"] if name == "old" else NAMES)
    assert labels["colormap"][1] == pytest.approx([0, 114 / 255, 178 / 255, 1])
    assert labels["colormap"][None][3] == labels["colormap"][0][3] == 0
    assert [given["visible"] for _, given in fake.added] == [True, True, False][: len(groups)]
    assert fake.scale_bar.visible == (name == "old")


def test_channels_have_their_colors(tmp_path, fake):
    image = np.stack([halves((60, 70), np.uint16) * 100] * 12)
    tifffile.imwrite(tmp_path / "i.tif", image, metadata={"axes": "CYX"}, ome=False)
    tiledlaf.label(tmp_path / "i.tif", tmp_path / "o.zarr", classes=2, axes="cyx")
    found, _ = layers.read(tmp_path / "o.zarr")
    assert found[0].image.used_channels == layers.MOST == len(found[0].tones)
    text = neuroglancer.shader(found[0])
    assert text.count("#uicontrol invlerp") == text.count("color(default=") == layers.MOST
    assert "color0 * channel0() + color1 * channel1()" in text
    about = json.loads(chunks.answer(found[0], "0/zarr.json")[0])
    assert about["shape"] == [layers.MOST, 60, 70]
    napari.show(found, "title")
    assert len(fake.added[0][1]["contrast_limits"]) == layers.MOST
