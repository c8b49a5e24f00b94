"""What a model's page says first: statements that change with what the model has learned."""

import dataclasses
import html
import itertools
import re
from pathlib import Path

import numpy as np
import pytest

import tiledlaf
from tiledlaf.flow import stencil
from tiledlaf.model.classes import Class
from tiledlaf.model.features import CONTEXT, Features
from tiledlaf.model.model import Images, Model
from tiledlaf.model.predictor import Predictor
from tiledlaf.model.terms import Prototypes
from tiledlaf.reports import mattered, view

PIXEL = Features((("image", "patch", 0, 1, 0), ("image", "gradient", 2.0)))
WIDE = stencil.box(7, 7)
ANCHORS = [[0.0, 0.0]]


def model(patches, anchors=ANCHORS, offsets=WIDE, features=PIXEL, size=None, channels=1):
    """A model whose patterns give these shares of weight, all others hardly any."""
    anchors = np.array(anchors, float)
    patches = np.log(np.array([[max(p(o), 1e-6) for o in offsets] for p in patches]))
    count = anchors.shape[1]
    weights = Predictor(features, np.full(count, 3.0), np.full(count, 2.0), anchors, patches, 4.0)
    names = (Class("cell <1>", (0,)), Class("line", (1,)))
    term = Prototypes(((0.0,) * channels, (1.0,) * channels), 1.0)
    images = Images(pixel_size=size)
    found = (names, term, offsets, 1.0, 1.0, 1e-3, channels, weights, (0.0, 0.0), {}, images)
    return Model(*found)


def said(found, tmp_path, *image):
    """The first view as text, and what is folded, as HTML."""
    index = tiledlaf.explain(found, tmp_path / f"{len(list(tmp_path.iterdir()))}", *image)
    text = Path(index).read_text("utf-8")
    first, fold = text.split("<details>")
    first = re.sub("<style>.*</style>", "", first, flags=re.S)
    return html.unescape(re.sub("<[^>]+>", " ", first)), fold


def ring(*kept):
    return lambda o: max(map(abs, o)) in kept


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        (ring(0, 1), "Near neighbors mattered most: half of what a pixel listens to lies within 1"),
        (ring(3), "Far neighbors mattered most: half of what a pixel listens to lies within 3"),
        (ring(0), "Each pixel listens mostly to itself (100 %): half of .* in the pixel itself"),
        (ring(0, 1, 2, 3), "Near and far neighbors mattered alike: half .* 2 pixels, and all .* 3"),
    ],
)
def test_distances(tmp_path, pattern, words):
    text, _ = said(model([pattern]), tmp_path)
    assert re.search(re.escape(words).replace(r"\.\*", ".*"), text)


def test_distances_in_micrometers(tmp_path):
    text, _ = said(model([ring(2)], size=(0.5, 0.5)), tmp_path)
    assert "lies within 2 pixels (1 µm), and all of it within 3 pixels (1.5 µm)." in text
    assert re.search(r"2 pixels away \(1 µm\) +100 %", text)
    text, _ = said(model([ring(2)], size=(1, 0.5)), tmp_path)
    assert "(2 µm up and down, 1 µm across)" in text
    text, _ = said(model([ring(0)], offsets=stencil.box(1, 1)), tmp_path)
    assert "No neighbor mattered: each pixel listens to itself alone." in text


@pytest.mark.parametrize(
    ("patterns", "words"),
    [
        ([lambda o: o == (0, 2)], "to what lies to the right of them."),
        ([lambda o: o == (-1, 0)], "to what lies above them."),
        ([lambda o: o == (3, -3)], "to what lies to the lower left of them."),
        ([lambda o: o[1] == 0], "to what lies above and below them."),
        ([lambda o: o[0] == o[1]], "to what lies to the upper left and lower right of them."),
        ([lambda o: o[0] == -o[1]], "to what lies to the upper right and lower left of them."),
        (
            [lambda o: o[0] == 0, lambda o: o[1] == 0],
            "Each pixel listens mostly along one line, and different pixels along different ones",
        ),
        ([lambda o: 1 + 0.8 * (o[0] == 0)] * 2, "No direction mattered: pixels listen to all"),
        ([lambda o: 1 + 3 * (o[0] == 0)] * 2, "Each pixel listens somewhat more along one line"),
    ],
)
def test_directions(tmp_path, patterns, words):
    anchors = [[n - 0.5, 0] for n in range(len(patterns))]
    text, _ = said(model(patterns, anchors), tmp_path)
    assert words in text
    assert len(re.findall(r"Pixels listen mostly|Each pixel listens|No direction", text)) == 1


def test_sections_of_a_volume(tmp_path):
    offsets = stencil.box(3, 3, 3)
    text, _ = said(model([lambda o: o[0] == 1], offsets=offsets), tmp_path)
    assert "100 % of what a pixel listens to lies in the sections before and after." in text


TWO = [ring(1), ring(3)]


@pytest.mark.parametrize(
    ("anchors", "words"),
    [
        ([[1, 0], [-1, 0]], "What mattered most is the brightness of the pixel itself. Nothing"),
        ([[0, 1], [0, -1]], "is the edges in the brightness, about 4 pixels wide. Nothing else"),
        ([[0, 0], [0, 0]], "No feature mattered: whatever a pixel looks like, it listens"),
        ([[1, 1], [-1, -1]], "itself (50 %), followed by the edges in the brightness"),
    ],
)
def test_features(tmp_path, anchors, words):
    text, _ = said(model(TWO, anchors), tmp_path)
    assert words in text
    text, _ = said(model([ring(1)] * 2, anchors), tmp_path)  # both listen in one way
    assert "No feature mattered" in text


def test_shares_are_those_of_all_exchanges():
    """Beside a slow way: each kind of pixel with a feature of each other one."""
    rng = np.random.default_rng(5)
    anchors = rng.normal(size=(6, 2))
    shares = rng.uniform(0.1, 4, (6, 49))
    found = model([lambda o, n=n: shares[n][WIDE.index(o)] for n in range(6)], anchors)
    predictor = found.predictor

    def weights(row):
        share = np.exp(-4.0 * np.linalg.norm(row - anchors, axis=1))
        logits = share / share.sum() @ predictor.patches
        return np.exp(logits) / np.exp(logits).sum()

    changes = np.zeros(3)
    for a, b in itertools.permutations(anchors, 2):
        for n, mixed in enumerate(([b[0], a[1]], [a[0], b[1]], b)):
            changes[n] += np.abs(weights(a) - weights(np.array(mixed))).sum() / 2
    has = mattered.mattered(found, predictor, None)
    shares = dict(has.features)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    expected = changes[:2] / changes[:2].sum()
    names = ("brightness of the pixel itself", "edges in the brightness, about 4 pixels wide")
    np.testing.assert_allclose([shares[name] for name in names], expected, atol=1e-5)
    assert has.change == pytest.approx(changes[2] / 30, abs=1e-5)
    assert sum(one.share for one in has.distances) == pytest.approx(1)
    assert sum(one.equal for one in has.distances) == pytest.approx(1)


def test_names_of_features():
    """Each feature has one name, of the words that people use for the image."""
    found = model([ring(1)], np.zeros((1, CONTEXT.count(1, 1))), features=CONTEXT)
    groups = mattered._groups(found, found.predictor)
    assert sorted(np.concatenate(list(groups.values()))) == list(range(CONTEXT.count(1, 1)))
    assert (
        "first guess of the class of neighbors up to 6 pixels away, averaged over 6 pixels"
        in groups
    )
    assert "lines and spots in the brightness, about 3 pixels wide" in groups
    three = model([ring(1)], np.zeros((1, PIXEL.count(3, 1))), channels=3)
    assert "color of the pixel itself" in mattered._groups(three, three.predictor)
    stained = dataclasses.replace(three, images=Images(names=("DAPI", "GFP", "Cy3")))
    groups = mattered._groups(stained, stained.predictor)
    assert list(groups["brightness of GFP of the pixel itself"]) == [1]
    two = model([ring(1)], np.zeros((1, PIXEL.count(2, 1))), channels=2)
    assert "edges in the brightness of channel 1, about 4 pixels wide" in mattered._groups(
        two, two.predictor
    )


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        (("difference", 1, 3), "spots in the brightness, about 2 pixels to 6 pixels wide"),
        (("structure", 1, 4), "edges and corners in the brightness, within 8 pixels"),
        (("lines", 1.5, 8), "lines in the brightness, about 3 pixels wide"),
        (("ring", 6, 1), "brightness on a circle 12 pixels wide"),
    ],
)
def test_names_of_further_features(spec, name):
    some = Features((("image", *spec),))
    found = model([ring(1)], np.zeros((1, some.count(1, 1))), features=some)
    assert list(mattered._groups(found, found.predictor)) == [name]


def test_on_an_image(tmp_path):
    """Only those pixels count that are there: of two kinds, the bright one listens to the right."""
    patterns = [lambda o: o == (0, 1), lambda o: o == (-1, 0)]
    found = model(patterns, [[10.0, 0], [-10.0, 0]], features=PIXEL)
    alone, _ = said(found, tmp_path)
    assert "The image" not in alone
    bright = np.full((24, 30), 23.0, np.float32)
    text, fold = said(found, tmp_path, bright)
    assert "to what lies to the right of them." in text
    assert "No feature mattered" in text  # all pixels are alike
    assert "all of array, y 0:24, x 0:30" in text
    text, _ = said(found, tmp_path, -bright)
    assert "to what lies above them." in text
    mixed = np.where(np.arange(30) < 15, bright, -bright)
    text, _ = said(found, tmp_path, mixed)
    assert "What mattered most is the brightness of the pixel itself" in text
    assert '<img src="entropy.png"' in fold
    example = view.open_example(mixed, None, None, None)
    seen = view.look(found, found.predictor, example, None, "cpu")
    right, above = (WIDE.index(o) for o in ((0, 1), (-1, 0)))
    np.testing.assert_allclose(seen.pattern[[right, above]], [0.5, 0.5], atol=1e-4)


def test_what_authors_want_is_folded(tmp_path):
    """All of it, and none above; names of files and classes are no markup."""
    found = model(TWO, [[1, 0], [-1, 0]])
    text, fold = said(found, tmp_path, np.ones((20, 24), np.float32))
    assert "This model tells cell <1> and line apart." in text
    for word in ("sigma", "anchor", "entropy", "gradient", "singular", "Omega", "T 1"):
        assert word not in text, word
    folded = html.unescape(re.sub("<[^>]+>", " ", fold))
    for word in (
        "For authors",
        "2 anchors of 2 features, sigma 4; 49 neighbors",
        "classes: cell <1>",
    ):
        assert word in folded
    titles = re.findall(r"<h2[^>]*>([^<]*)", fold)
    assert titles[0] == "Anchors"
    assert titles[1:] == ["Labels"] + [
        f"{what} of predicted patches" for what in ("Entropy", "Direction", "Axis")
    ]
    assert fold.count("</details>") == 1
    index = next(tmp_path.iterdir()) / "index.html"
    assert "<1>" not in index.read_text("utf-8")
    assert index.read_text("utf-8").count("data:image/png;base64,") == 2
