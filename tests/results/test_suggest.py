"""`suggest`: windows where most labels are in doubt, whatever the tiles, and their folder."""

import dataclasses
import json
import warnings
from pathlib import Path

import models
import numpy as np
import PIL.Image
import pytest
import tifffile
from command import contents, run

import tiledlaf
from tiledlaf.annotations.opening import Painting, as_mask
from tiledlaf.files import images
from tiledlaf.flow.simplex import softmax
from tiledlaf.labeling.plan import Writing
from tiledlaf.labeling.request import prepare, settle
from tiledlaf.model.calibration import Calibration
from tiledlaf.model.disagreement import deviation
from tiledlaf.model.features import MULTISCALE
from tiledlaf.model.model import Images
from tiledlaf.model.term import DataTerm
from tiledlaf.model.terms import Classified, Prototypes
from tiledlaf.pool.tasks import threads
from tiledlaf.results import suggestions, uncertain
from tiledlaf.results.uncertain import UNIT, Window


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raw = dataclasses.replace(models.make("uniform"), images=Images(None, "float32", (0.0, 0.9)))
    raw.save("raw.model")
    found = dataclasses.replace(raw, calibration=Calibration(0.7, 0.1))
    found.save("a.model")
    return found


def sure(shape=(400, 500), noisy=(), seed=0):
    """An image of one class, with noise in some boxes."""
    rng = np.random.default_rng(seed)
    image = (0.1 + 0.01 * rng.uniform(size=shape)).astype(np.float32)
    for box in noisy:
        image[box] = rng.uniform(0.2, 0.8, image[box].shape)
    return image


CORNER = np.s_[270:400, 380:500]


def box(one):
    return one.y, one.x, one.height, one.width


def test_the_noisy_corner(model):
    """Its window has the mean confidence of its pixels, and a picture of them."""
    tifffile.imwrite("a.tif", sure(noisy=[CORNER]))
    found = tiledlaf.suggest("a.model", "a.tif", count=1, size=128)
    assert [box(one) for one in found] == [(256, 384, 128, 116)]
    one = found[0]
    assert (one.image, one.crop) == ("a.tif", "suggested/a-1.png")
    _, confidence = tiledlaf.label("a.tif", model=model, confidence=True)
    part = confidence[256:384, 384:500].astype(np.float64)
    assert one.confidence == pytest.approx(part.mean(), abs=1e-6)
    assert part.mean() < confidence[:256].mean() - 0.05
    with PIL.Image.open(one.crop) as crop:
        assert crop.size == (116, 128)
        assert np.asarray(crop)[:14, :].std() < np.asarray(crop)[20:, :].std() / 2


def test_windows_do_not_depend_on_tiles(model):
    noise = np.random.default_rng(1).uniform(0, 1, (333, 401)).astype(np.float32)
    tifffile.imwrite("a.tif", noise)
    whole = tiledlaf.suggest("a.model", "a.tif", "whole", count=7, size=64, tile=1024)
    for tile, workers in ((100, 1), (37, 3)):
        out = f"out{tile}"
        found = tiledlaf.suggest(
            "a.model", "a.tif", out, count=7, size=64, tile=tile, workers=workers
        )
        assert [box(one) for one in found] == [box(one) for one in whole]
        assert [one.confidence for one in found] == [one.confidence for one in whole]
    assert len(whole) == 7
    taken = np.zeros(noise.shape, int)
    for y, x, height, width in map(box, whole):
        taken[y : y + height, x : x + width] += 1
    assert taken.max() == 1


def test_sums_are_those_of_the_whole(model):
    """Each cell of a plan in odd tiles, against a sum over the confidence of all."""
    image = np.random.default_rng(2).uniform(0, 1, (150, 170)).astype(np.float32)
    mask = np.ones(image.shape, bool)
    mask[:60, 70:130] = False
    plan = prepare(
        image,
        model=model,
        mask=mask,
        running=tiledlaf.Running(tile=41),
        writing=Writing(confidence=True),
    )
    with threads(2) as pool:
        doubt, wrong, pixels = uncertain._cells(settle(plan, pool).job, pool, 32, lambda done: None)
    _, confidence = tiledlaf.label(image, model=model, mask=mask, confidence=True)
    expected = np.where(mask, 1 - confidence.astype(np.float64), 0)
    for y, x in np.ndindex(5, 6):
        here = np.s_[32 * y : 32 * y + 32, 32 * x : 32 * x + 32]
        assert wrong[y, x] == np.rint(expected[here] * UNIT).sum()
        assert doubt[y, x] == wrong[y, x]
        assert pixels[y, x] == mask[here].sum()


# -0.8 is like the second class to the model, and to the folds like another one each
FOLDS = (Prototypes(((0.9,), (0.1,)), 0.11), Prototypes(((-0.9,), (0.1,)), 0.11))
UNLIKE = np.s_[128:256, 128:256]


def test_where_folds_disagree(model):
    """It counts beside low confidence, and is not mixed up with it."""
    image = sure(noisy=[CORNER])
    image[UNLIKE] -= 0.9
    tifffile.imwrite("a.tif", image)
    plain = tiledlaf.suggest(model, "a.tif", "plain", count=2, size=128)
    assert box(plain[0]) == (256, 384, 128, 116)
    alike = dataclasses.replace(model, folds=FOLDS[:1] * 3)
    assert [box(one) for one in tiledlaf.suggest(alike, "a.tif", "alike", count=2, size=128)] == [
        box(one) for one in plain
    ]
    dataclasses.replace(model, folds=FOLDS).save("folds.model")
    first, second = tiledlaf.suggest("folds.model", "a.tif", count=2, size=128)
    assert (box(first), box(second)) == ((128, 128, 128, 128), box(plain[0]))
    assert second.confidence == plain[0].confidence
    labels, confidence = tiledlaf.label("a.tif", model=model, confidence=True)
    assert first.confidence == pytest.approx(confidence[UNLIKE].mean(dtype=float), abs=1e-6)
    assert first.confidence > second.confidence + 0.1
    assert (labels[UNLIKE] == 2).all()
    mask = np.ones(image.shape, np.uint8)
    mask[UNLIKE] = 0
    tifffile.imwrite("mask.tif", mask)
    found = tiledlaf.suggest("folds.model", "a.tif", "masked", count=1, size=128, mask="mask.tif")
    assert box(found[0]) == box(plain[0])


@pytest.fixture(scope="module")
def learned():
    """Folds that look at what surrounds pixels, which the model itself does not."""
    return Classified(MULTISCALE, models.trees()), models.auto_context()


class Far(DataTerm):
    """Classes by what lies 20 pixels to the right and below, also where masked out."""

    classes, radius = 2, 20

    def potential(self, pixels, valid, rho):
        ends = ((0, 0), (0, self.radius), (0, self.radius))
        far = np.pad(np.nan_to_num(pixels), ends, "edge")[0, self.radius :, self.radius :]
        return np.stack([3 * far, -3 * far])


def doubts(image, model, tile, **options):
    """Sums over cells of 32 pixels."""
    running, writing = tiledlaf.Running(tile=tile), Writing(confidence=True)
    plan = prepare(image, model=model, running=running, writing=writing, **options)
    with threads(2) as pool:
        plan = uncertain.with_folds(settle(plan, pool), model.folds)
        return uncertain._cells(plan.job, pool, 32, lambda done: None)


def test_sums_with_folds_are_those_of_the_whole(model, learned):
    """Whatever the tiles, though folds look farther than the model; clipped at each pixel."""
    image = np.random.default_rng(2).uniform(-0.9, 0.9, (150, 170)).astype(np.float32)
    mask = np.ones(image.shape, bool)
    mask[:60, 70:130] = False
    image[20:40, 90:110] = np.nan
    folds = (*learned, *FOLDS, Far())
    # little confidence, and a flow that does not look as far as a fold does
    model = dataclasses.replace(model, calibration=Calibration(0.7, -0.45), time=0.2)
    assert model.settings().halo[0] < Far.radius
    found = doubts(image, dataclasses.replace(model, folds=folds), 1024, mask=mask)
    for tile in (41, 64):
        tiled = doubts(image, dataclasses.replace(model, folds=folds), tile, mask=mask)
        np.testing.assert_array_equal(tiled, found)
    np.testing.assert_array_equal(found[1:], doubts(image, model, 41, mask=mask)[1:])
    labels, confidence = tiledlaf.label(image, model=model, mask=mask, confidence=True)
    every = [np.exp(one.potential(image[None], mask, 1.0).astype(np.float64)) for one in folds]
    every = [np.where(labels == 2, p[1], p[0]) / p.sum(axis=0) for p in every]
    expected = np.where(mask, np.minimum(1 - confidence + np.std(every, axis=0), 1), 0)
    assert 0.01 < (expected[mask] == 1).mean() < 0.5
    for y, x in np.ndindex(5, 6):
        here = expected[32 * y : 32 * y + 32, 32 * x : 32 * x + 32]
        assert found[0, y, x] / UNIT == pytest.approx(here.sum(), rel=1e-5, abs=1e-5)


def test_folds_of_time_points(model, learned):
    model = dataclasses.replace(model, folds=learned)
    movie = np.random.default_rng(3).uniform(0, 1, (3, 70, 90)).astype(np.float32)
    selection = tiledlaf.Selection(axes="tyx", time_point="all")
    found = doubts(movie, model, 48, selection=selection)
    for t, plane in enumerate(movie):
        np.testing.assert_array_equal(found[:, t], doubts(plane, model, 1024))


def test_deviation_is_that_of_the_label():
    rng = np.random.default_rng(4)
    image, part = rng.uniform(0, 1, (1, 9, 11)).astype(np.float32), np.s_[2:6, 3:8]
    labels = rng.integers(1, 4, (4, 5), np.uint8)
    folds = [Prototypes(((0.0,), (value,), (1.0,)), 0.2) for value in (0.2, 0.5, 0.7)]
    every = [softmax(-((image - np.array(one.values)[..., None]) ** 2) / 0.2) for one in folds]
    expected = np.std(every, axis=0)[:, *part]
    expected = np.take_along_axis(expected, labels[None] - 1, axis=0)[0]
    assert expected.min() > 0.001
    found = deviation(folds, image, None, labels, part)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert (deviation(folds[:1], image, None, labels, part) == 0).all()


def test_masked_pixels_count_nothing(model):
    tifffile.imwrite("a.tif", sure(noisy=[CORNER, np.s_[0:60, 0:60]]))
    mask = np.ones((400, 500), np.uint8)
    mask[CORNER] = 0
    tifffile.imwrite("mask.tif", mask)
    found = run("suggest", "a.model", "a.tif", "--mask", "mask.tif", "--count", 1, "--size", 128)
    assert found.code == 0, found
    head, row, told = found.out.splitlines()
    assert head.split() == ["image", "y", "x", "size", "mean", "confidence"]
    assert row.split()[:6] == ["a.tif", "0", "0", "128", "x", "128"]
    assert told == "written: 1 window of 1 image to suggested"
    tifffile.imwrite("none.tif", np.zeros((400, 500), np.uint8))
    found = run("suggest", "a.model", "a.tif", "--mask", "none.tif", "--output", "other")
    assert (found.code, found.out) == (2, "")
    assert "expected images with pixels whose labels are in doubt, found none" in found.err
    assert not Path("other").exists()


def test_several_images(model):
    """One image has at most half of the windows, as long as others have some."""
    Path("slides").mkdir()
    tifffile.imwrite("slides/1.tif", sure(noisy=[np.s_[:, :]]))
    tifffile.imwrite("slides/2.tif", sure(noisy=[np.s_[0:200, 0:200]]))
    tifffile.imwrite("slides/10.tif", sure(noisy=[np.s_[0:70, 0:70]]))
    told = []
    found = tiledlaf.suggest(model, "slides", count=4, size=128, progress=told.append)
    assert sorted(one.image for one in found) == [
        *("slides/1.tif", "slides/1.tif"),
        *("slides/2.tif", "slides/2.tif"),
    ]
    assert told[-1] == {"stage": "3/3 slides/10.tif", "done": 1, "of": 1}
    again = tiledlaf.suggest(model, ["slides/10.tif", "slides/1.tif"], "out", count=3, size=128)
    assert sum(one.image == "slides/1.tif" for one in again) == 2
    assert {p.name for p in Path("out").iterdir()} == {
        *("1.geojson", "1-1.png", "1-2.png", "10.geojson", "10-1.png", "suggested.json"),
    }  # fmt: skip


def test_what_one_image_may_have():
    most = [Window(900 - n, 9, 1, ()) for n in range(20)]
    many = [Window(100 - n, 9, 1, ()) for n in range(20)]
    few = [Window(5, 9, 1, ()), Window(4, 9, 1, ())]

    def counts(found, count):
        chosen = suggestions.share(found, count)
        assert [w.doubt for _, w in chosen] == sorted((w.doubt for _, w in chosen), reverse=True)
        return [sum(n == i for n, _ in chosen) for i in range(len(found))]

    assert counts([many], 10) == [10]
    assert counts([most, many], 10) == [5, 5]
    assert counts([most, *[many] * 4], 10)[0] == 4
    assert counts([most, *[many] * 19], 10)[0] == 1
    assert counts([many, few, []], 10) == [8, 2, 0]  # the others have no more
    assert counts([few, []], 10) == [2, 0]


def test_geojson_is_where_to_look(model):
    """A mask of the windows for this program; to learn, they are nothing beside annotations."""
    tifffile.imwrite("a.tif", sure(noisy=[CORNER, np.s_[0:60, 0:60]]))
    found = tiledlaf.suggest("a.model", "a.tif", count=2, size=128)
    image = images.open_image("a.tif")
    mask = as_mask("suggested/a.geojson", image, Painting())
    expected = np.zeros((400, 500), bool)
    for y, x, height, width in map(box, found):
        expected[y : y + height, x : x + width] = True
    np.testing.assert_array_equal(mask.read(np.s_[0:400, 0:500])[0] != 0, expected)
    drawn = json.loads(Path("suggested/a.geojson").read_text())
    names = [one["properties"]["name"] for one in drawn["features"]]
    assert names == ["suggested 1", "suggested 2"]
    for number, name in enumerate(("membrane", "inside")):
        ring = [[x + 9 * number, y] for x, y in ([0, 0], [5, 0], [5, 5], [0, 5], [0, 0])]
        drawn["features"].append(
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [ring]},
                "properties": {"classification": {"name": name}},
            }
        )
    Path("annotated.geojson").write_text(json.dumps(drawn))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        example = tiledlaf.pair("a.tif", "annotated.geojson")[0]
    labels = example.labels.read(np.s_[0:400, 0:500])[0]
    assert np.unique(labels, return_counts=True)[1].tolist() == [400 * 500 - 50, 25, 25]


def test_levels_count_pixels_of_level_0(model):
    image = sure((512, 512), noisy=[np.s_[384:512, 128:256]])
    with tifffile.TiffWriter("a.ome.tif") as file:
        file.write(image, subifds=1, tile=(64, 64))
        file.write(image[::2, ::2], subfiletype=1, tile=(64, 64))
    found = tiledlaf.suggest(model, "a.ome.tif", count=1, size=64, level=1)
    assert [box(one) for one in found] == [(384, 128, 128, 128)]
    with PIL.Image.open(found[0].crop) as crop:
        assert crop.size == (64, 64)


def test_planes(model):
    """Windows are of one time point, and those at one place are apart; or of the plane read."""
    movie = np.stack([sure((100, 120), seed=t) for t in range(12)])
    movie[1, 10:70, 60:] += 0.395
    movie[2, 10:70, 60:] += 0.38
    movie[9, :50, :50] += 0.395
    np.save("a.npy", movie)
    found = tiledlaf.suggest(model, "a.npy", count=3, size=64, axes="tyx", time_point="all")
    assert [(one.position, *box(one)[:2]) for one in found[:2]] == [
        ({"t": 1}, 0, 64),
        ({"t": 9}, 0, 0),
    ]
    drawn = json.loads(Path("suggested/a.geojson").read_text())
    assert [one["geometry"]["plane"]["t"] for one in drawn["features"]][:2] == [1, 9]
    assert found[2].position["t"] not in (2, 9)
    found = tiledlaf.suggest(model, "a.npy", "one", count=1, size=64, axes="zyx", z=9)
    assert [(one.position, *box(one)[:2]) for one in found] == [({"z": 9}, 0, 0)]
    head, row, _ = suggestions.lines(found, "one")
    assert head.split()[:4] == ["image", "z", "y", "x"]
    assert row.split()[:4] == ["a.npy", "9", "0", "0"]


def test_a_model_without_calibration(model):
    tifffile.imwrite("a.tif", sure(noisy=[CORNER]))
    found = run("suggest", "raw.model", "a.tif", "--count", 1)
    assert found.code == 0
    assert found.err == (
        "tiledlaf: warning: the model's confidence is not calibrated: windows are chosen by the "
        "share of the winning class (train again to have it calibrated)\n"
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("a.model a.tif --count 0", "--count expects 1 to 1000 windows, got 0"),
        ("a.model a.tif --size 65", "--size expects an even number from 64 to 4096, got 65"),
        ("a.model a.tif --size 32", "--size expects an even number from 64 to 4096, got 32"),
        ("a.model none.tif", "none.tif: expected images, found none"),
        ("none.model a.tif", "none.model: no such file"),
        ("a.model a.tif --output a.tif", "--output a.tif: expected a folder, got a file"),
        ("a.model a.tif --output s3://a/b", "--output s3://a/b: expected a folder on this machine"),
        ("a.model a.tif --output theirs", "theirs: expected a new or empty folder, got one with"),
        ("a.model a.tif --output theirs --overwrite", "theirs: expected a new or empty folder"),
    ],
)
def test_refused(model, given, message):
    tifffile.imwrite("a.tif", sure((80, 80)))
    Path("theirs").mkdir()
    Path("theirs/a.geojson").write_text("mine")
    before = contents(".")
    found = run("suggest", *given.split())
    assert (found.code, found.out) == (2, "")
    assert found.err.startswith(f"tiledlaf: error: {message}"), found.err
    assert found.err.count("\n") == 1
    assert contents(".") == before


def test_what_is_there_is_kept(model):
    """Suggestions are replaced when that is asked for; what people have changed or added is not."""
    tifffile.imwrite("a.tif", sure(noisy=[CORNER]))
    tifffile.imwrite("b.tif", sure(noisy=[CORNER]))
    again = ("suggest", "a.model", "a.tif", "--count", "2")
    assert run(*again).code == 0
    Path("suggested/mine.txt").write_text("mine")
    before = contents("suggested")
    found = run(*again)
    assert found.code == 2
    assert (
        "suggested: expected a new folder, got earlier suggestions (--overwrite repl" in found.err
    )
    assert contents("suggested") == before
    assert run(*again, "--overwrite").code == 0
    assert contents("suggested") == before
    assert run("suggest", "a.model", "b.tif", "--count", "1", "--overwrite").code == 0
    assert {p.name for p in Path("suggested").iterdir()} == {
        *("b.geojson", "b-1.png", "mine.txt", "suggested.json"),
    }  # fmt: skip
    Path("suggested/a.geojson").write_text("mine")
    found = run(*again, "--overwrite")
    assert found.code == 2
    assert "suggested/a.geojson: expected no such file, got one that" in found.err
    Path("suggested/a.geojson").unlink()
    Path("suggested/b.geojson").write_text("annotated")
    found = run(*again, "--overwrite")
    assert found.code == 2
    assert "suggested/b.geojson: changed since it was written, as by annotations" in found.err
    assert Path("suggested/b.geojson").read_text() == "annotated"


def test_a_run_that_was_cut_is_replaced(model, monkeypatch):
    tifffile.imwrite("a.tif", sure(noisy=[CORNER]))

    def cut(*given):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(suggestions, "_crop", cut)
        found = run("suggest", "a.model", "a.tif")
    assert found.code == 130
    assert found.err.endswith("tiledlaf: interrupted; the same command starts anew\n")
    assert run("suggest", "a.model", "a.tif", "--overwrite").code == 0


def test_keywords(model):
    for wrong in ("nme", "confidence"):
        with pytest.raises(TypeError, match=rf"suggest\(\) has no keyword '{wrong}'"):
            tiledlaf.suggest(model, "a.tif", **{wrong: True})
    with pytest.raises(ValueError, match="expected a path or paths for `images`"):
        tiledlaf.suggest(model, 3)
