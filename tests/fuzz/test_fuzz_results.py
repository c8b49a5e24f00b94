"""What is made of labels: exports, objects, pages and views, of outputs whole and damaged."""

import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import time
from pathlib import Path

import judge
import numpy as np
import pytest
import seeds
from damage import ODD, TEXTS, damaged, edited, text_of
from hypothesis import strategies as st
from judge import command, fuzz, library, survives
from odd_options import NUMBERS, odd, options_of

QUICK = ("--scheduler", "threads", "--workers", "1")
WRITES = ("out",)
GROUP = "labels/tiledlaf-class 1"
TARGETS = (
    *("out.ome.tif", "out.tif", "out.png", "out.geojson", "out.csv", "out.parquet", "out.txt"),
    *("out", "out/", "out/a.csv", "out\n.csv", "out a.GEOJSON", "lab.zarr", "own.npy", "folder"),
    *("s3:a.csv", "file:///out.csv", "http://127.0.0.1:1/out.csv", ".csv", ""),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with labels of two classes, their confidence, and the objects of one."""
    folder = tmp_path_factory.mktemp("made")
    np.save(folder / "own.npy", np.tile(seeds.IMAGE, (2, 2)))
    label = ("label", "own.npy", "lab.zarr", "--classes", "2", "--tile", "32", "--confidence")
    label = (*label, "--input-pixel-size", "0.5", "--objects", "class 1", *QUICK)
    assert judge.forked(command(*label), folder, 600) == (0, False)
    shutil.rmtree(folder / judge.HOME)
    return folder


def give(made, folder):
    Path(folder, "folder").mkdir()
    if time.monotonic() > judge.until:  # what is tried no more needs no files
        return
    for one in ("own.npy", "lab.zarr"):
        copy = shutil.copytree if one.endswith(".zarr") else shutil.copy2
        copy(made / one, f"{folder}/{one}")


def spoil(draw, made, folder, below=""):
    """Damage, remove or replace one of the files of the labels, most likely its metadata."""
    held = seeds.files(made / "lab.zarr" / below)
    about = [path for path in held if path.suffix in (".json", ".jsonl")]
    given = draw(st.sampled_from(about if draw(st.integers(0, 3)) else held))
    how, data = "bytes", b""
    if given.suffix == ".json" and draw(st.integers(0, 4)):
        data = text_of(draw(edited(json.loads(given.read_bytes())))).encode()
    elif draw(st.integers(0, 2)):
        data = draw(damaged(given.read_bytes()))
    else:
        how = draw(st.sampled_from(("nothing", "folder", "loop", "bytes")))
    path = Path(folder, given.relative_to(made))
    if not path.exists():  # see `give`
        return
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how == "loop":
        path.symlink_to(path.name)
    elif how == "bytes":
        path.write_bytes(data)


def exported(draw, target):
    """A call of export, with usual options."""
    more = draw(
        st.sampled_from(
            ((), (), ("--objects", "class 1"), ("--classes", "class 2"), ("--simplify", "1"))
        )
    )
    return ("export", "lab.zarr", target, *more, *QUICK)


@fuzz()
def test_export_of_damaged_labels(data, trying, made):
    draw = data.draw
    with trying() as folder:
        give(made, folder)
        spoil(draw, made, folder, draw(st.sampled_from(("", GROUP, "labels/tiledlaf"))))
        call = command(*exported(draw, draw(st.sampled_from(TARGETS[:6]))))
        # objects that are damaged are made again
        writes = (*WRITES, "lab.zarr") if "--objects" in call.about else WRITES
        survives("export of damaged labels", call, folder, writes)


def odd_calls(draw, given, name, most=3):
    """Arguments of which one may be missing, and odd options."""
    found = list(given)
    if draw(st.integers(0, 7)) == 0:
        del found[draw(st.integers(0, len(found) - 1))]
    for _ in range(draw(st.integers(0, most))):
        found += draw(odd(draw(st.sampled_from(options_of(name)))))
    return found


@fuzz()
def test_export_options(data, trying, made):
    draw = data.draw
    with trying() as folder:
        give(made, folder)
        target = draw(st.sampled_from(TARGETS))
        call = odd_calls(draw, exported(draw, target)[1:], "export")
        writes = (*WRITES, target.split("/")[0] or "out", "lab.zarr/labels")
        survives("options of export", command("export", *call), folder, _prefixes(writes, call))


def _prefixes(writes, call):
    """Names that a call may write: its target and, where objects are made, the labels' store."""
    safe = {"own.npy", "folder", "lab.zarr"}
    found = [one for one in writes if one not in safe and "/" not in one]
    return (*found, "lab.zarr") if any("--objects" in one for one in call) else tuple(found)


SIZES = (None, 0, 1, 5, 5.5, -1, 1e308, float("nan"), True, [], {}, "5px", "0px", "x", "1e9px")
CLASSES = ("class 1", "class 1", "class 2", 1, 2, 0, 3, -1, 1.0, None, "", [])


@fuzz()
def test_objects(data, trying, made):
    """Of damaged labels and by odd values: the same numbers each time, or a word."""
    import tiledlaf
    from tiledlaf.errors import TiledlafError

    draw = data.draw
    kinds = {
        "connectivity": ("face", "full", "x", 5, None, ""),
        "min_size": SIZES,
        "fill_holes": (*SIZES, False),
        "name": (None, "tiledlaf", "x", 5, "", "tiledlaf-class 1"),
    }
    options = {key: draw(st.sampled_from(kinds[key])) for key in kinds if draw(st.booleans())}
    cls = draw(st.sampled_from(CLASSES))
    running = tiledlaf.Running(workers=1, scheduler="threads")
    harm = draw(st.booleans())

    def call():
        found = tiledlaf.objects("lab.zarr", cls, **options, running=running)
        table = found.table
        if not harm:
            assert {len(column) for column in table.values()} == {found.count}
        return list(table.values())

    def refused():
        try:
            return call()
        except TypeError as error:
            if "expected" in str(error):
                raise TiledlafError(str(error)) from None
            raise

    with trying() as folder:
        give(made, folder)
        if harm:
            spoil(draw, made, folder, draw(st.sampled_from(("", GROUP, "labels/tiledlaf"))))
        about = f"objects of {cls!r}, {options}"
        survives("objects", library(refused, about), folder, ("lab.zarr",))


@fuzz()
def test_objects_of_a_run(data, trying, made):
    """Of the command, where labels with objects are there, damaged or not."""
    draw = data.draw
    with trying() as folder:
        give(made, folder)
        if draw(st.booleans()):
            spoil(draw, made, folder, GROUP)
        label = ["own.npy", "lab.zarr", "--classes", "2", "--tile", "32", "--confidence"]
        label += ["--input-pixel-size", "0.5", *QUICK]
        label += [
            f"--objects={draw(st.sampled_from(('class 1', 'class 2', '1', '9', '', *TEXTS)))}"
        ]
        for flag in ("--min-size", "--fill-holes", "--connectivity"):
            if draw(st.integers(0, 2)) == 0:
                label += [f"{flag}={draw(st.sampled_from((*NUMBERS, '5px', 'full', 'x')))}"]
        label += ["--overwrite"] if draw(st.booleans()) else []
        if not any("\0" in one for one in label):
            survives("objects of a run", command("label", *label), folder, ("lab.zarr",))


@fuzz()
def test_reports(data, trying, made):
    draw = data.draw
    page = draw(st.sampled_from(("out.html", "out.html", "out", "folder", "own.npy", "out/a.html")))
    with trying() as folder:
        give(made, folder)
        Path(folder, "a.model").write_bytes(judge.model.read_bytes())
        of = draw(st.sampled_from(("lab.zarr", "lab.zarr", "lab.zarr", "a.model", "own.npy")))
        if of == "a.model" and draw(st.booleans()):
            given = draw(damaged(judge.model.read_bytes()))
            Path(folder, "a.model").write_bytes(given)
        elif draw(st.integers(0, 2)):
            spoil(draw, made, folder)
        call = odd_calls(draw, [of, f"--output={page}"], "report", 1)
        files = [one.partition("=")[2].split("/")[0] for one in call if one.startswith("-")]
        keep = {"own.npy", "lab.zarr", "a.model", "folder"}
        writes = [one for one in (*WRITES, *files, *(f"={f}" for f in files)) if one not in keep]
        writes += ["lab.zarr.report", "a.model.report", "own.npy.report"]
        survives("reports", command("report", *call), folder, tuple(filter(None, writes)))


REQUESTS = (
    *("/", "/v/", "/%ff", "/favicon.ico", "/{token}/", "/v/{token}/", "/v/{token}/../x"),
    *("{data}/state.json", "{data}/0/data/info", "{data}/9/data/info", "{data}/../own.npy"),
    *("{data}/{n}/data/zarr.json", "{data}/{n}/data/0/zarr.json", "{data}/{n}/names/info"),
    *("{data}/{n}/data/0/c/0/0", "{data}/{n}/data/1/c/0/0", "{data}/{n}/data/0/c/99/99"),
    *("{data}/{n}/data/0/c/-1/0", "{data}/{n}/data/0/c/x", "{data}/{n}/data/9/c/0/0"),
    *("{data}/{n}/data/0/c/0/0/0/0", "{data}/{n}/data/0/c/1e400/0", "{data}/{n}/data/0/c//"),
    *("{data}/{n}/data//", "{data}/{n}/data/\u0660/c/0/0", "{data}/{n}/data/../../own.npy"),
    *("{data}/%2e%2e/%2e%2e/own.npy", "{data}/{n}/data/0/c/" + "9" * 5000 + "/0"),
)


def looked(texts, harm):
    """A call that serves an output, asks for what texts say, and looks at each answer."""

    def call():
        from tiledlaf.reports import layers, neuroglancer, viewing

        neuroglancer.client = lambda: {"index.html": Path("own.npy")}
        try:
            found, _ = layers.read("lab.zarr", None)
        except (ValueError, OSError) as error:  # which the command says in a line
            print(f"tiledlaf: {error}", file=sys.stderr)
            return 2
        complaints = []
        with viewing.in_browser(found, 0, complaints.append) as site:
            for text in texts:
                line = text.replace("{data}", "/data/{token}").replace("{token}", site.token)
                code, body = asked(site.port, line)
                # 500 is that of pixels that cannot be read
                if code not in (200, 204, 302, 400, 404, *((500,) if harm else ())):
                    raise AssertionError(f"{code} for {text[:200]}: {complaints[:1]}")
                if body.startswith(b"{"):  # what no browser reads
                    json.loads(body, parse_constant=lambda word: 1 / 0)
        if any(len(one.splitlines()) > 1 for one in complaints):
            raise AssertionError(complaints)
        return 0

    call.about = f"view, {json.dumps([text[:200] for text in texts])}"
    return call


def asked(port, path):
    """Status and body of the answer to a request."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as line:
        head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
        line.sendall(head.encode("utf-8", "replace"))
        with contextlib.suppress(ConnectionResetError):
            answer = line.makefile("rb").read()
    first, _, body = answer.partition(b"\r\n\r\n")
    return int(first.split()[1]), body


@fuzz()
def test_views(data, trying, made):
    """What a browser asks for, and what nobody should, of labels whole and damaged."""
    draw = data.draw
    harm = draw(st.booleans())
    asks = [
        draw(st.sampled_from(REQUESTS)).replace("{n}", str(draw(st.integers(0, 2))))
        for _ in range(draw(st.integers(1, 5)))
    ]
    with trying() as folder:
        give(made, folder)
        if harm:
            spoil(draw, made, folder)
        survives("views", looked(asks, harm), folder)


@fuzz(tries=40)
def test_view_command(data, trying, made):
    """The command itself, interrupted at once."""
    draw = data.draw
    port = draw(st.sampled_from(("0", "-1", "65536", "x", "1e3", "80.5", "")))
    name = draw(st.sampled_from(("tiledlaf", "", "x", "tiledlaf-class 1", *TEXTS)))
    of = draw(st.sampled_from(("lab.zarr", "own.npy", "nowhere", "lab.zarr/labels", "s3://", "")))
    given = command("view", of, "--no-browser", f"--port={port}", f"--name={name}")

    def call():
        signal.signal(signal.SIGALRM, lambda *rest: os.kill(os.getpid(), signal.SIGINT))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 3)
        return given()

    call.about = given.about
    if "\0" not in name:
        with trying() as folder:
            give(made, folder)
            survives("view", call, folder)


# batches

TABLE = (
    "input,output,mask,level,region,channels,no_data,pixel_size,time_point\n"
    'a.npy,x,tissue,0,"0:9,0:9",0,7,,\n'
    "b.npy,,m.npy,,,,,,\n"
    "sub/a.npy,y.zarr,,,,,,0.5,\n"
)
CELLS = [
    *TEXTS,
    *("a.npy", "sub", "sub/a.npy", "*.npy", "..", "../a.npy", "./a.npy", "s3://b/a.npy", "tissue"),
    *("all", "0", "0:9,0:9", "9:0", "0,0", "x.zarr", ".zarr", "a.zarr", "m.npy", "own.npy", "-1"),
    *("99999999999999999999", "1e400", "nan", "٣", "t.csv", "=1+1", "a.npy;b.npy", "'a.npy'"),
]
INTO = ("out", "out", "out/", "out/deep/er", "slides", "slides/out", "own.npy", "own.npy/x", ".")


def give_slides(folder):
    Path(folder, "slides", "sub").mkdir(parents=True)
    np.save(f"{folder}/own.npy", seeds.IMAGE)
    for name in ("a", "b", "sub/a", "m"):
        np.save(f"{folder}/slides/{name}.npy", seeds.IMAGE)


@st.composite
def tables(draw):
    """Bytes of a table of inputs of which cells, rows or bytes are others."""
    rows = [line.split(",") for line in TABLE.splitlines()]
    for _ in range(draw(st.integers(0, 4))):
        row = draw(st.integers(0, len(rows) - 1))
        how = draw(st.sampled_from(("cell", "cell", "cell", "cell", "gone", "twice", "longer")))
        if how == "cell":
            rows[row][draw(st.integers(0, len(rows[row]) - 1))] = draw(st.sampled_from(CELLS))
        elif how == "gone" and len(rows) > 1:
            del rows[row]
        elif how == "twice":
            rows.append(list(rows[row]))
        elif how == "longer":
            rows[row].append(draw(st.sampled_from(CELLS)))
    end = draw(st.sampled_from(("\n", "\n", "\r\n", "\r")))
    text = end.join(draw(st.sampled_from((",", ",", ",", ";", "\t"))).join(row) for row in rows)
    found = (draw(st.sampled_from(("", "", "\ufeff"))) + text).encode("utf-8", "replace")
    return found if draw(st.integers(0, 4)) else draw(damaged(found))


@fuzz()
def test_batch_tables(data, trying):
    draw = data.draw
    with trying() as folder:
        give_slides(folder)
        Path(folder, "slides", "t.csv").write_bytes(draw(tables()))
        given = draw(st.sampled_from((("slides/t.csv",), ("slides/t.csv", "slides/*.npy"))))
        call = ("label", *given, "--into", "out", "--classes", "2", *QUICK)
        call = (*call, *draw(st.sampled_from(((), (), ("--dry-run",), ("--mask", "tissue")))))
        survives("tables of batches", command(*call), folder, WRITES)


GIVEN = (
    *("slides", "slides/", "slides/*.npy", "slides/**/*", "slides/**", "slides/[ab].npy", "."),
    *("slides/sub", "slides/a.npy", "./slides/a.npy", "slides/sub/../a.npy", "none", "none/*", "*"),
    *("slides/link", "slides/loop", "own.npy", "", "[", "s3://", "http://127.0.0.1:1/*.tif", "~"),
    *("slides/t.csv", "slides/*.csv", "slides/-x.npy", "slides/\u202e<b>.npy"),
)


@fuzz()
def test_batch_inputs(data, trying):
    """Folders, globs and links, into folders of any place, after an earlier batch or none."""
    draw = data.draw
    with trying() as folder:
        give_slides(folder)
        slides = Path(folder, "slides")
        slides.joinpath("t.csv").write_text("input\na.npy\n")
        slides.joinpath("link").symlink_to("sub")
        slides.joinpath("loop").symlink_to("loop")
        slides.joinpath(".DS_Store").write_bytes(b"x")
        slides.joinpath("._a.npy").write_bytes(b"x")
        for name in ("-x.npy", "\u202e<b>.npy"):
            np.save(slides / name, seeds.IMAGE[:5, :7])
        given = [draw(st.sampled_from(GIVEN)) for _ in range(draw(st.integers(1, 3)))]
        into = draw(st.sampled_from(INTO))
        more = draw(st.sampled_from(((), (), ("--dry-run",), ("--mask=slides",), ("--name=x",))))
        call = ("label", "--classes", "2", *QUICK, "--into", into, *more, "--", *given)
        writes = {"slides/out": ("slides",), "slides": ("slides",), ".": ("",)}.get(into, WRITES)
        survives("inputs of batches", command(*call), folder, writes)


@pytest.fixture(scope="module")
def batched(tmp_path_factory):
    """A folder with a batch that is complete."""
    folder = tmp_path_factory.mktemp("batched")
    give_slides(folder)
    call = command("label", "slides", "--into", "out", "--classes", "2", "--tile", "16", *QUICK)
    assert judge.forked(call, folder, 600) == (0, False)
    shutil.rmtree(folder / judge.HOME)
    return folder


@fuzz()
def test_batch_outputs(data, trying, batched):
    """What a batch has written, damaged: its list, its pages, and one of its outputs."""
    draw = data.draw
    with trying() as folder:
        shutil.copytree(batched, folder, dirs_exist_ok=True)
        out = Path(folder, "out")
        how = draw(st.sampled_from(("list", "list", "page", "output", "output", "foreign")))
        if how == "list":
            about = json.loads((out / "batch.json").read_bytes())
            (out / "batch.json").write_text(text_of(draw(edited(about))))
        elif how == "page":
            path = out / draw(st.sampled_from(("index.html", "summary.csv", "batch.json")))
            path.write_bytes(draw(damaged(path.read_bytes())))
        elif how == "output":
            path = draw(st.sampled_from(seeds.files(out / "a.zarr")))
            if path.suffix == ".json" and draw(st.booleans()):
                path.write_text(text_of(draw(edited(json.loads(path.read_bytes())))))
            else:
                path.write_bytes(draw(damaged(path.read_bytes())))
        else:
            path = out / draw(st.sampled_from(("x.zarr", "x.zarr/zarr.json", "b.zarr.partial")))
            path.parent.mkdir(exist_ok=True)
            path.write_text(draw(st.sampled_from(("", "{", "x"))))
        label = ("label", "slides", "--into", "out", "--classes", "2", "--tile", "16", *QUICK)
        calls = (("status", "out"), ("status", "out", "--json"), label, (*label, "--dry-run"))
        call = draw(st.sampled_from((*calls, (*label, "--overwrite"), ("info", "out"))))
        writes = WRITES if call[0] == "label" and "--dry-run" not in call else ()
        survives("outputs of batches", command(*call), folder, writes)


@fuzz(tries=60)
def test_batch_keywords(data, trying):
    """From Python: each image ends in labels or in an error of this program."""
    import tiledlaf

    draw = data.draw
    odd_ones = [one for one in ODD if not isinstance(one, str) or "\0" not in one]
    keys = ("mask", "probabilities", "objects", "min_size", "level", "region", "series", "names")
    keys = (*keys, "channels", "overwrite", "confidence", "copy_image", "overview", "tile", "seed")
    options = {draw(st.sampled_from(keys)): draw(st.sampled_from(odd_ones))}
    given = draw(st.sampled_from(("slides/*.npy", ["slides/a.npy"], "slides", [], "none")))

    def call():
        found = tiledlaf.batch(given, "out", classes=2, scheduler="threads", workers=1, **options)
        for one in found:
            if one.error is not None:
                raise one.error

    with trying() as folder:
        give_slides(folder)
        survives(
            "keywords of batches", library(call, f"batch {given!r}, {options}"), folder, WRITES
        )
