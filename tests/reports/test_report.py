"""Pages of runs and of trainings: what they say is true, and they are whole by themselves."""

import base64
import concurrent.futures
import dataclasses
import datetime
import html.parser
import io
import json
import os
import re
import shutil
import types
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import zarr
from cloud import standing_in
from command import contents, run
from voronoi import lines

import tiledlaf
from tiledlaf import redaction
from tiledlaf.model import arrays, calibration
from tiledlaf.model.classes import Class
from tiledlaf.model.terms import Prototypes
from tiledlaf.reports import (
    charts,
    chunks,
    frame,
    layers,
    neuroglancer,
    panels,
    reliability,
    run_page,
    words,
)
from tiledlaf.results import confidence
from tiledlaf.results.result import open_result
from tiledlaf.training import judging, worker

OLD = Path(__file__).parents[1] / "old"
EVIL = "<script>alert(1)</script>\"'&\x1b[2J"
SIDE = 0.5  # micrometers of a pixel


class Page(html.parser.HTMLParser):
    """Elements, texts and whatever a browser would fetch; refuses elements that do not match."""

    def __init__(self, text):
        super().__init__()
        self.open, self.names, self.fetched, self.texts, self.rows = [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, given):
        self.names.append(tag)
        self.fetched += [v for k, v in given if k in ("src", "href", "data", "action", "srcset")]
        if tag not in ("meta", "link", "img"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    @property
    def text(self):
        return " ".join("".join(self.texts).split())


def page(path):
    """A page that needs nothing but itself, parsed."""
    text = Path(path).read_text("utf-8")
    assert text.startswith("<!DOCTYPE html>")
    found = Page(text)
    assert all(one.startswith("data:") for one in found.fetched), found.fetched
    assert not {"script", "iframe", "object", "base", "form"} & set(found.names)
    assert not re.search(r"(?i)url\(|@import|https?:|\son\w+=", text)
    assert "default-src 'none'" in text
    return found


@pytest.fixture(scope="module")
def _made(tmp_path_factory):
    """A run on an image of known pixel size, with a confidence, of several levels."""
    folder = tmp_path_factory.mktemp("made")
    image = np.random.default_rng(0).normal(0, 30, (600, 500))
    image[:, 200:] += 60
    group = zarr.open_group(folder / "image.zarr", mode="w")
    group.create_array("0", data=image.astype(np.float32), chunks=(256, 256))
    axes = [{"name": a, "type": "space", "unit": "micrometer"} for a in "yx"]
    moves = [{"type": "scale", "scale": [SIDE, SIDE]}]
    dataset = {"path": "0", "coordinateTransformations": moves}
    multiscale = {"name": "image", "axes": axes, "datasets": [dataset]}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale]}
    (folder / "names.json").write_text(json.dumps([EVIL, "bright"]))
    options = ["--classes", "2", "--confidence", "--names", folder / "names.json", "--tile", "256"]
    found = run("label", folder / "image.zarr", folder / "out.zarr", *options, "--workers", "1")
    assert found.code == 0, found
    return folder


@pytest.fixture
def made(_made, monkeypatch):
    monkeypatch.chdir(_made)
    yield _made
    for file in _made.glob("*.html*"):
        file.unlink()


def test_a_page_of_a_run(made):
    before = contents("out.zarr")
    found = run("report", "out.zarr")
    assert (found.code, found.out, found.err) == (0, "page: out.zarr.report.html\n", "")
    assert contents("out.zarr") == before
    shown = page("out.zarr.report.html")
    labels = zarr.open_array("out.zarr/labels/tiledlaf/0", mode="r")[:]
    for value, name in ((1, redaction.plain(EVIL)), (2, "bright")):
        pixels = int((labels == value).sum())
        size = pixels * SIDE**2
        assert [name, f"{pixels:,}", f"{100 * pixels / labels.size:.2f} %"] in [
            row[:3] for row in shown.rows
        ]
        area = next(row[3] for row in shown.rows if row[:2] == [name, f"{pixels:,}"])
        assert area == f"{size / 1e6:.4g} mm²"
    journal = Path("out.zarr/labels/tiledlaf/0/tiledlaf.jsonl").read_text()
    records = list(map(json.loads, journal.splitlines()))
    proven = sum(r.get("proven", 0) for r in records)
    assert 0 < proven <= labels.size
    assert f"{int(1e5 * proven / labels.size) / 1e3:g} % of the labels are proven" in shown.text
    assert "300 µm x 250 µm, pixels of 500 nm x 500 nm" in shown.text
    ended = datetime.datetime.fromtimestamp(max(r["time"] for r in records), datetime.UTC)
    assert f"labeled into 2 classes on {ended.day} {ended:%B %Y}." in shown.text
    versions = f"tiledlaf {tiledlaf.__version__}, Python 3"
    assert next(row[1] for row in shown.rows if row[0] == "versions").startswith(versions)
    assert next(row[1] for row in shown.rows if row[0] == "tiles") == "6 done"
    assert ["time", "5.0"] in [row[:2] for row in shown.rows]
    assert "Counted at full resolution." in shown.text
    confidence = zarr.open_array("out.zarr/confidence/0", mode="r")[:]
    for value, name in ((1, redaction.plain(EVIL)), (2, "bright")):
        own = confidence[labels == value]
        mean, below = next(r[1:] for r in shown.rows if r[0] == name and len(r) == 3)
        assert float(mean) == pytest.approx(own.mean(dtype=float), abs=1e-3)
        assert float(below.removesuffix(" %")) == pytest.approx(100 * (own < 0.75).mean(), abs=0.02)
    for name in ("confidence", "proven"):
        assert words.WORDS[name][0] in shown.text


def pictures(path):
    """The pictures in a page, with what is written below them."""
    form = r'<img src="data:image/(\w+);base64,([^"]*)" alt="([^"]*)">'
    found = re.findall(form, Path(path).read_text("utf-8"))
    opened = {said: PIL.Image.open(io.BytesIO(base64.b64decode(data))) for _, data, said in found}
    return {said: np.asarray(picture) for said, picture in opened.items()}


COLORED = np.array([(0, 0, 0), (0, 114, 178), (230, 159, 0)], np.uint8)


def sized(pixels, size):
    """Pixels as a picture of (width, height), none of them mixed."""
    return np.asarray(PIL.Image.fromarray(pixels).resize(size, PIL.Image.Resampling.NEAREST))


@pytest.mark.parametrize(
    ("edge", "level", "step", "size"),
    [(640, 0, 1, (500, 600)), (400, 0, 1, (333, 400)), (150, 1, 2, (125, 150))],
)
def test_pictures_of_a_run(made, monkeypatch, edge, level, step, size):
    """Each from the coarsest level that fills it, all of one size."""
    monkeypatch.setattr(panels, "EDGE", edge)
    tiledlaf.report("out.zarr")
    found = pictures("out.zarr.report.html")
    below = ["image, 250 µm across", "labels, 250 µm across"]
    assert list(found) == [*below, "confidence: black 0.5, undecided; white 1"]
    image, labels, confidence = (
        zarr.open_array(f"out.zarr/{name}/{level}", mode="r")[:]
        for name in ("", "labels/tiledlaf", "confidence")
    )
    picked = labels[step // 2 :: step, step // 2 :: step]
    np.testing.assert_array_equal(found[below[1]], sized(COLORED[picked], size))
    means = confidence.astype(float).reshape(*picked.shape[:1], step, -1, step).mean(axis=(1, 3))
    gray = np.rint(np.clip((means - 0.5) * 2, 0, 1) * 255).astype(np.uint8)
    certain = found["confidence: black 0.5, undecided; white 1"].astype(int)
    gray = PIL.Image.fromarray(gray).resize(size, PIL.Image.Resampling.BOX)
    assert abs(certain - np.asarray(gray)).max() <= 1
    shown = found[below[0]][..., 0].astype(float)
    assert shown.shape == size[::-1]
    image = image.reshape(*picked.shape[:1], step, -1, step).mean(axis=(1, 3))
    expected = PIL.Image.fromarray(image).resize(size, PIL.Image.Resampling.BOX)
    assert np.corrcoef(shown.ravel(), np.asarray(expected).ravel())[0, 1] > 0.97


def test_a_plane_of_a_volume_is_shown(tmp_path):
    volume = np.random.default_rng(0).integers(0, 255, (5, 40, 50), dtype=np.uint8)
    tiledlaf.label(
        volume, tmp_path / "v.zarr", axes="zyx", neighborhood="3x3", classes=2, workers=1
    )
    tiledlaf.report(tmp_path / "v.zarr")
    found = pictures(tmp_path / "v.zarr.report.html")
    assert list(found) == ["image, the middle plane", "labels, the middle plane"]
    labels = zarr.open_array(tmp_path / "v.zarr/labels/tiledlaf/0", mode="r")[2]
    shown = found["labels, the middle plane"]  # small ones are enlarged
    np.testing.assert_array_equal(shown[4::9, 4::9], COLORED[labels])
    assert "volume" not in page(tmp_path / "v.zarr.report.html").rows[0]


def test_labels_of_one_plane_of_an_input_have_its_picture(tmp_path):
    """The time point and the plane that they are of, on the page and in the viewer."""
    image = np.random.default_rng(0).integers(0, 99, (3, 4, 40, 50), dtype=np.uint8)
    image[1, 2, :, 25:] += 150
    group = zarr.open_group(tmp_path / "i.zarr", mode="w")
    group.create_array("0", data=image, chunks=(1, 1, 40, 50))
    axes = [{"name": "t", "type": "time"}, *({"name": a, "type": "space"} for a in "zyx")]
    scale = [{"type": "scale", "scale": [1.0] * 4}]
    dataset = {"path": "0", "coordinateTransformations": scale}
    multiscale = {"name": "image", "axes": axes, "datasets": [dataset]}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale]}
    for name, given in (("one", ["--time-point", "1"]), ("all", ["--time-point", "all"])):
        options = [*given, "--z", "2", "--classes", "2", "--workers", "1", "--name", name]
        found = run("label", tmp_path / "i.zarr", "--into-input", *options)
        assert found.code == 0, found
        shown, _ = layers.read(tmp_path / "i.zarr", name)
        chosen = 1 if name == "one" else slice(None)
        pixels = shown[0].image.read(tuple(slice(0, n) for n in shown[0].image.grid))
        np.testing.assert_array_equal(pixels[0], image[chosen, 2])
        tiledlaf.report(tmp_path / "i.zarr", tmp_path / f"{name}.html", name=name)
        where = "image, the first time point" if name == "all" else "image"
        picture = pictures(tmp_path / f"{name}.html")[where][4::9, 4::9, 0].astype(float)
        expected = image[1 if name == "one" else 0, 2]
        assert np.corrcoef(picture.ravel(), expected.ravel())[0, 1] > 0.98


def test_pages_at_once_are_whole(made):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: tiledlaf.report("out.zarr", "p.html"), range(8))) == {
            "p.html"
        }
    page("p.html")
    assert not list(Path().glob("*.partial"))


ODD = {
    "bits": (np.tile([[False, True], [True, False]], (20, 25)), {}),
    "one pixel": (np.full((1, 1), 200, np.uint8), {}),
    "a row": (np.arange(50, dtype=np.uint8)[None] * 5, {}),
    "constant": (np.zeros((40, 50), np.uint16), {}),
    "several planes": (np.ones((3, 40, 50), np.float16), {"axes": "cyx"}),
    "64 bits": (np.arange(2000, dtype=np.uint64).reshape(40, 50), {}),
    "200 classes": (
        np.arange(2000, dtype=np.uint8).reshape(40, 50),
        {"prototypes": [[float(n)] for n in range(200)]},
    ),
}


@pytest.mark.parametrize("kind", ODD)
def test_any_image_has_a_page_and_is_shown(kind, tmp_path):
    image, options = ODD[kind]
    channels = 3 if kind == "several planes" else 1
    given = {"prototypes": [[0.0] * channels, [200.0] * channels], "neighborhood": "1x1", **options}
    tiledlaf.label(image, tmp_path / "o.zarr", confidence=True, workers=1, **given)
    page(tiledlaf.report(tmp_path / "o.zarr"))
    assert len(pictures(tmp_path / "o.zarr.report.html")) == 3
    found, _ = layers.read(tmp_path / "o.zarr")
    assert [layer.kind for layer in found] == [layers.IMAGE, layers.LABELS, layers.CONFIDENCE]
    json.dumps(neuroglancer.state(found, "http://127.0.0.1"), allow_nan=False)
    for layer in found:
        assert chunks.answer(layer, "0/c/" + "/".join("0" * (2 + chunks.has_channels(layer))))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("names", 5), ("names", [1, None]), ("names", []), ("tiles", "x"), ("tile", 5)),
        *(("settings", []), ("settings", {"integrator": 5}), ("source", 5)),
        *(("source", {"name": 5}), ("source", {"fixed": 3}), ("source", {"fixed": [["z"]]})),
    ],
)
def test_damaged_notes_of_a_run_are_one_line(made, tmp_path, key, value):
    shutil.copytree("out.zarr/labels", tmp_path / "o.zarr/labels")
    shutil.copy("out.zarr/zarr.json", tmp_path / "o.zarr")
    group = zarr.open_group(tmp_path / "o.zarr/labels/tiledlaf", mode="r+")
    group.attrs["tiledlaf"] = {**group.attrs["tiledlaf"], key: value}
    found = run("report", tmp_path / "o.zarr")
    assert (found.code, found.err.count("\n")) == (2, 1), found
    assert "in the notes" in found.err or "expected notes of a run" in found.err
    assert list(tmp_path.iterdir()) == [tmp_path / "o.zarr"]


def test_confidence_is_counted(made):
    result = open_result("out.zarr")
    labels = zarr.open_array("out.zarr/labels/tiledlaf/0", mode="r")[:]
    values = zarr.open_array("out.zarr/confidence/0", mode="r")[:]
    found = confidence.histogram(result)
    for number in range(2):
        own = values[labels == number + 1]
        expected = np.histogram(own, found.edges)[0]
        assert abs(found.counts[number] - expected).max() <= 2  # rounding at edges of bars
        assert found.counts[number].sum() == len(own)
        assert found.means[number] == pytest.approx(own.mean(dtype=np.float64))
    assert found.step == (1, 1)


@pytest.mark.parametrize(("most", "level"), [(10**5, 1), (30_000, 1), (600, 1)])
def test_large_confidence_is_counted_on_a_coarser_level(made, monkeypatch, most, level):
    result = open_result("out.zarr")
    assert len(result.confidence.levels) == 2
    found = confidence.histogram(result, most)
    values = zarr.open_array(f"out.zarr/confidence/{level}", mode="r")[:]
    every = -(-len(values) // (most // values.shape[1]))
    assert found.counts.sum() == values[::every].size
    assert found.counts.sum() <= most
    assert found.sums.sum() == pytest.approx(values[::every].sum(dtype=np.float64))
    assert found.step == (2**level * every, 2**level)
    monkeypatch.setattr(confidence.histogram, "__defaults__", (most,))
    tiledlaf.report("out.zarr")
    said = f"one of {2**level * every} x {2**level} at full resolution"
    assert said in page("out.zarr.report.html").text


def test_the_words_are_those_of_the_docs():
    docs = Path(__file__).parents[2] / "docs" / "words.md"
    text = " ".join(docs.read_text("utf-8").split())
    for name, paragraphs in words.WORDS.items():
        assert f"## {name} {' '.join(paragraphs)}" in text


def test_a_page_is_replaced_and_others_are_not(made):
    assert tiledlaf.report("out.zarr", "p.html") == "p.html"
    first = Path("p.html").read_bytes()
    Path("p.html").write_bytes(first + b"old")
    tiledlaf.report("out.zarr", Path("p.html"))
    assert Path("p.html").read_bytes() == first
    for other in (b"", b"<html>mine</html>", b"<!-- " + b" " * 5000 + first):
        Path("p.html").write_bytes(other)
        found = run("report", "out.zarr", "-o", "p.html")
        assert found.code == 2
        assert "p.html: expected a new file or a page of tiledlaf" in found.err
        assert Path("p.html").read_bytes() == other
    Path("ours.html").write_bytes(first)
    Path("link.html").symlink_to("ours.html")
    os.mkfifo("pipe.html")  # whose reader would wait
    with Path("large.html").open("wb") as file:
        file.truncate(2**40)
    for name in ("link.html", "pipe.html", "large.html"):
        assert run("report", "out.zarr", "-o", name).code == 2
        assert Path(name).is_symlink() == (name == "link.html")
    assert not list(Path().glob("*.partial"))


def test_a_page_is_there_whole_or_not(made, monkeypatch):
    tiledlaf.report("out.zarr", "p.html")
    first = Path("p.html").read_bytes()

    def fails(self, data):
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", fails)
    assert run("report", "out.zarr", "-o", "p.html").code == 2
    assert Path("p.html").read_bytes() == first


def test_the_page_is_beside_the_output_wherever_it_is_named_from(made, monkeypatch):
    before = contents("out.zarr")
    for folder, name in (("out.zarr", "."), ("out.zarr/labels", ".."), (".", "out.zarr/")):
        monkeypatch.chdir(made / folder)
        place = Path(tiledlaf.report(name)).absolute()
        assert place == made / "out.zarr.report.html"
        place.unlink()
    monkeypatch.chdir(made)
    assert contents("out.zarr") == before


def test_a_zipped_output_has_the_same_page(made, tmp_path):
    tiledlaf.report("out.zarr", "a.html")
    shutil.make_archive(str(tmp_path / "out.zarr"), "zip", "out.zarr")
    assert tiledlaf.report(tmp_path / "out.zarr.zip") == f"{tmp_path}/out.zarr.zip.report.html"
    text = (tmp_path / "out.zarr.zip.report.html").read_text()
    assert text.replace("out.zarr.zip:", "out.zarr:") == Path("a.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.zarr"], "none.zarr: no such file or folder"),
        (["image.zarr"], "expected an output with labels of tiledlaf, got none"),
        (["names.json"], "names.json: expected an output of tiledlaf or a model, got neither"),
        (["out.zarr", "--name", "b"], "expected an output with labels/b of tiledlaf, got none"),
        (["out.zarr", "-o", "page.pdf"], "page.pdf: expected a file ending .html"),
        (["out.zarr", "-o", "no/page.html"], "in a folder that exists, got no such folder"),
        (["out.zarr", "-o", "https://host/page.html"], "expected a place to write"),
        (["out.zarr", "-o", "s3://page.html"], "a place to write, such as s3://bucket/page.html"),
        ([OLD / "means.model", "--name", "x"], "`name` belongs to an output"),
    ],
)
def test_what_cannot_be_reported(made, arguments, said):
    found = run("report", *arguments)
    assert (found.code, found.out) == (2, "")
    assert said.replace("`name`", "--name") in found.err
    assert found.err.count("\n") == 1
    assert not list(Path().glob("*.html"))


def test_time_is_that_of_all_starts(tmp_path):
    """Work of each, tiles by what became of them at last; a claim is no start."""
    done = {"state": "done", "proven": 5, "retries": 1}
    lines = [
        {"stage": "claimed", "time": 100, "after": 50, "run": "claim"},
        {"stage": "begun", "time": 101, "after": 1, "run": "a", "versions": "old"},
        {"tile": [0, 0], "time": 110, "after": 10, "run": "a", "worker": "v", "peak_mib": 300}
        | {"seconds": [1, 2, 3], "counts": [2, 6, 0], **done},
        {"tile": [0, 1], "state": "failed", "time": 112, "after": 12, "run": "a"},
        {"stage": "begun", "time": 200, "after": 0, "run": "b", "versions": "new"},
        {"tile": [0, 1], "time": 205, "after": 5, "run": "b", "worker": "w", "peak_mib": 200}
        | {"seconds": [1, 1, 1], "counts": [0, 1, 3], **done},
        {"stage": "complete", "time": 204, "after": 4, "run": "b"},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = types.SimpleNamespace(records=tmp_path / "a.jsonl")
    found = run_page._work(types.SimpleNamespace(out=out))
    assert (found.began, found.ended, found.versions) == (50, 205, "new")
    assert found.seconds == {"a": 12, "b": 5}
    assert found.tiles == {"done": 2}
    assert (found.parts.tolist(), found.workers, found.peak) == ([2, 3, 4], {"v", "w"}, 300)
    assert (found.proven, found.pixels, found.retries) == (10, 10, 2)
    shown = Page(run_page._time(found))
    rows = dict(shown.rows)
    assert rows["running"] == "17 s, in 2 starts"
    assert rows["tiles"] == "2 done; tried again: 2"
    assert rows["workers"] == "2, at most 300 MiB each"


@pytest.mark.parametrize(
    ("proven", "pixels", "integrator", "said"),
    [
        (10**6 - 1, 10**6, "Krylov", "99.999 % of the labels are proven; 1 is a tie"),
        (999_996, 10**6, "Taylor", "99.999 % of the labels are proven; 4 are ties"),
        (10**6, 10**6, "Taylor", "100 % of the labels are proven."),
        (0, 10, "Euler", "0 % of the labels are proven; 10 are ties"),
        (0, 10, "Krylov", "No label is proven: this integrator has no bound"),
        (0, 0, "Taylor", "No pixel was labeled."),
    ],
)
def test_proven_labels_are_never_said_to_be_all_but_where_they_are(
    proven, pixels, integrator, said
):
    result = types.SimpleNamespace(notes={"settings": {"integrator": [integrator, {}]}})
    assert run_page._proven(result, run_page.Work(proven=proven, pixels=pixels)).startswith(said)


@pytest.mark.parametrize(
    ("micrometers", "said"),
    [(0.2271, "227.1 nm"), (1, "1 µm"), (999.9, "999.9 µm"), (1000, "1 mm"), (25_000, "2.5 cm")],
)
def test_lengths_are_in_units_that_suit_them(micrometers, said):
    assert run_page.length(micrometers) == said


def test_labels_of_an_input_that_changed_are_not_shown(made, tmp_path):
    shutil.copytree("out.zarr", tmp_path / "cut.zarr")
    journal = tmp_path / "cut.zarr/labels/tiledlaf/0/tiledlaf.jsonl"
    with journal.open("a") as file:
        file.write(json.dumps({"stage": "changed", "error": "a.tif"}) + "\n")
    found = run("report", tmp_path / "cut.zarr")
    assert found.code == 2
    words = "a.tif changed while labels/tiledlaf were made, so they are not to be trusted"
    assert words in found.err
    labels = zarr.open_array(tmp_path / "cut.zarr/labels/tiledlaf/0", mode="r")[:]
    with pytest.warns(tiledlaf.FileWarning, match=r"a\.tif changed during the run, so these"):
        tiledlaf.evaluate(tmp_path / "cut.zarr", labels)


def test_unfinished_labels_have_no_page(made, tmp_path):
    shutil.copytree("out.zarr", tmp_path / "cut.zarr")
    file = tmp_path / "cut.zarr/labels/tiledlaf/0/tiledlaf.jsonl"
    file.write_text("".join(file.read_text().splitlines(True)[:4]))
    found = run("report", tmp_path / "cut.zarr")
    assert found.code == 2
    assert "expected finished labels, got 2 of 6 tiles" in found.err


@pytest.fixture
def cloud(tmp_path):
    with standing_in(tmp_path):
        yield tmp_path


def test_pages_on_an_object_store(made, cloud):
    options = ["--classes", "2", "--workers", "1", "--tile", "256"]
    assert run("label", "image.zarr", "s3://a/out.zarr", *options).code == 0
    found = run("report", "s3://a/out.zarr")
    assert found.out == "page: s3://a/out.zarr.report.html\n", found
    assert "The run did not keep its confidence" in page(cloud / "a/out.zarr.report.html").text
    (cloud / "a/mine.html").write_text("mine")
    found = run("report", "s3://a/out.zarr", "-o", "s3://a/mine.html")
    assert found.code == 2
    assert "expected a new file or a page of tiledlaf" in found.err
    assert run("report", "out.zarr", "-o", "s3://b/page.html").code == 0
    page(cloud / "b/page.html")


# Trainings


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small model; of its validation two thirds are of the first class."""
    image, labels = lines((96, 96), cells=8, noise=0.6, seed=2)
    data = tiledlaf.Data(tiledlaf.pair(image, labels), names={"0": EVIL, "1": "line"})
    path = tmp_path_factory.mktemp("trained") / "a.model"
    recipe = tiledlaf.Recipe(steps=20, predictor_size=5, flow="learned")
    with tiledlaf.open_pool(workers=1) as pool:
        tiledlaf.train(data, recipe, pool, path)
    return path


def test_a_page_of_a_training(trained, monkeypatch):
    monkeypatch.chdir(trained.parent)
    model = tiledlaf.load("a.model")
    assert tiledlaf.report("a.model") == "a.model.report.html"
    shown = page("a.model.report.html")
    table = np.array(model.trained["confusion"])
    wrong = 1 - np.trace(table) / table.sum()
    assert wrong == pytest.approx(model.trained["error"])
    assert 0 < wrong < 0.5
    assert f"{100 * wrong:.3g} % of the labeled pixels" in shown.text
    rows = [row for row in shown.rows if len(row) == 3 and row[1].endswith(" %")]
    expected = 100 * table / table.sum(axis=1, keepdims=True)
    assert [row[1:] for row in rows] == [[f"{v:.2f} %" for v in line] for line in expected]
    assert shown.names.count("svg") == 3
    points = re.findall(r'<polyline points="([^"]*)"', Path("a.model.report.html").read_text())
    bins = [len(model.trained["reliability"][key]) for key in ("raw", "calibrated")]
    # validation, training, equal, loss, and the reliability as it should be and is
    assert [len(p.split()) for p in points] == [2, 1, 2, 2, 2, *bins]
    for one, bias in zip(model.classes, model.bias, strict=True):
        assert f"{bias:+.4f}" in [row[3] for row in shown.rows if len(row) == 4], one
    assert words.WORDS["bias"][0] in shown.text
    assert "What mattered most is the" in shown.text or "No feature mattered" in shown.text
    assert "tiledlaf explain a.model" in shown.text


def test_confusion_outlives_a_checkpoint(trained, tmp_path, monkeypatch):
    """A training that was cut after its last validation has the confusion of its best state."""
    image, labels = lines((96, 96), cells=8, noise=0.6, seed=2)
    data = tiledlaf.Data(tiledlaf.pair(image, labels), names={"0": EVIL, "1": "line"})
    recipe = tiledlaf.Recipe(steps=20, predictor_size=5, flow="learned")

    def stop(record):
        if record.get("step") == 11:
            raise KeyboardInterrupt

    with tiledlaf.open_pool(workers=1) as pool:
        with pytest.raises(KeyboardInterrupt):
            tiledlaf.train(data, recipe, pool, tmp_path / "a.model", progress=stop)
        found = tiledlaf.train(data, recipe, pool, tmp_path / "a.model")
    assert found.trained["confusion"]
    assert tiledlaf.load(tmp_path / "a.model").trained == tiledlaf.load(trained).trained


def test_an_older_model_says_what_it_lacks(tmp_path):
    for name, said in (("uncut", "an earlier release trained it"), ("given", "")):
        target = tmp_path / f"{name}.html"
        tiledlaf.report(OLD / f"{name}.model", target)
        assert said in page(target).text
        assert reliability.NOT_CALIBRATED in page(target).text


def confusion(scores, truth):
    found = worker.Scored(np.zeros(0), scores, truth)
    return judging.judge([found], judging.Bench([0], [0])).confusion


def test_confusion_is_counted():
    scores = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    truth = np.array([0, 0, 1, 1])
    assert confusion(scores, truth) == [[1, 1], [1, 1]]
    assert confusion(scores, 0 * truth) == [[2, 2], [0, 0]]


def test_the_reliability_of_confidence_is_shown(trained, tmp_path):
    held = tiledlaf.load(trained).trained["reliability"]
    tiledlaf.report(trained, tmp_path / "r.html")
    shown = page(tmp_path / "r.html")
    for rows, name in ((held["raw"], "before"), (held["calibrated"], "calibrated")):
        for _, given, share in rows:
            assert f"{name}, confidence {given:g}: {100 * share:.3g} %" in shown.text
    after, before = (100 * calibration.error_of(held[key]) for key in ("calibrated", "raw"))
    assert f"a pixel is {after:.2g} percentage points away" in shown.text
    assert f"before it was calibrated it was {before:.2g}." in shown.text


def test_many_classes_have_no_confusion(tmp_path):
    count = judging.CONFUSED + 1
    assert confusion(np.zeros((3, count)), np.arange(3)) is None
    classes = tuple(Class(str(n), (n,)) for n in range(count))
    notes = {"error": 0.5, "steps": 1, "history": [{"step": 0, "validation": 0.5}]}
    term = Prototypes(tuple((float(n),) for n in range(count)), 1.0)
    biases = (0.0,) * count
    box = tiledlaf.stencil.box(3, 3)
    model = tiledlaf.Model(classes, term, box, 1.0, 1.0, 1e-3, 1, None, biases, notes)
    model.save(tmp_path / "m.model")
    tiledlaf.report(tmp_path / "m.model")
    assert "confused: there are too many" in page(tmp_path / "m.model.report.html").text


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("history", [{"step": "x"}]),
        ("history", [{"step": 1, "validation": []}]),
        ("history", [{"step": -1}]),
        ("confusion", [[1, 2]]),
        ("confusion", [[1], [2]]),
        ("confusion", [[1, -2], [3, 4]]),
        ("confusion", "x"),
        ("reliability", {"raw": [[1, 0.5, 0.5]]}),
        ("reliability", {"raw": [[1, 0.5, 0.5]], "calibrated": [[1, 1.5, 0.5]]}),
        ("reliability", {"raw": [[1, 0.5, 0.5]], "calibrated": []}),
        ("error", "x"),
    ],
)
def test_damaged_notes_are_one_line(trained, tmp_path, monkeypatch, key, value):
    monkeypatch.chdir(tmp_path)
    held = arrays.read_arrays(trained, "model")
    about = json.loads(str(held["model"]))
    about["trained"][key] = value
    arrays.write_arrays("bad.model", held | {"model": np.array(json.dumps(about))})
    found = run("report", "bad.model")
    assert (found.code, found.out) == (2, ""), found
    assert found.err.count("\n") == 1
    assert not Path("bad.model.report.html").exists()


def test_a_model_without_a_training(tmp_path):
    from models import make

    for kind in ("prototypes", "uniform", "probabilities", "trees"):
        make(kind).save(tmp_path / "m.model")
        tiledlaf.report(tmp_path / "m.model")
        shown = page(tmp_path / "m.model.report.html")
        assert "holds no notes on a training" in shown.text
        assert ("all of them count alike" in shown.text) == (kind == "uniform")


# What was learned


def patterned(weights, features=None):
    """A model whose patterns have given weights (N, 9)."""
    from models import make

    model = make("prototypes")
    patches = np.log(np.array(weights, float))
    found = dataclasses.replace(
        model.predictor,
        anchors=model.predictor.anchors[: len(patches)],
        patches=patches - patches.mean(axis=1, keepdims=True),
    )
    return dataclasses.replace(model, predictor=found), found


def test_what_was_learned_is_said(tmp_path, monkeypatch):
    """By the sentences that `explain` begins with."""
    monkeypatch.chdir(tmp_path)
    same, across = [1] * 9, [1e-3, 1e-3, 1e-3, 1, 1e-3, 1, 1e-3, 1e-3, 1e-3]
    for weights, said in (
        (same, "No direction mattered"),
        (across, "to the left and right"),
    ):
        model, _ = patterned([weights] * 2)
        model.save("a.model")
        tiledlaf.report("a.model", "a.html")
        assert said in page("a.html").text
        Path("a.html").unlink()


def test_bars_of_nothing():
    """Where no pixel was labeled."""
    found = charts.bars(np.zeros((2, 3), np.int64), ["a", "b"], ["#000000"] * 2, ("0", "1"), "up")
    assert "<rect" not in found
    assert "nan" not in found


@pytest.mark.parametrize("high", [1e-12, 0.03, 1, 7, 99.9, 1e9])
def test_ticks_are_round_and_reach_far_enough(high):
    found = charts._ticks(high)
    assert 3 <= len(found) <= 7
    assert found[0] == 0
    assert found[-1] >= high * (1 - 1e-9)
    assert found[-2] < high


def test_pages_are_marked_as_ours():
    made = frame.page("<b>", [])
    assert frame.MARK in made[: frame.SEEN]
    assert "<title>&lt;b&gt;</title>" in made
