"""Labels against a truth: the numbers against other implementations, and the command."""

import json
import re
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tifffile
import zarr
from command import contents, run
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.measure import label as components
from skimage.metrics import adapted_rand_error
from sklearn.metrics import confusion_matrix, f1_score, jaccard_score

from tiledlaf import evaluate, label
from tiledlaf.errors import InputError
from tiledlaf.files import ngff
from tiledlaf.model import classes
from tiledlaf.reports import evaluation
from tiledlaf.results import pictures

RNG = np.random.default_rng(3)
# what a trained model keeps with its labels
PROPERTIES = [
    {"label-value": 1, "name": "membrane", "values": [0, 32]},
    {"label-value": 2, "name": "inside", "values": [255]},
    {"label-value": 3, "name": "synapse", "values": [223]},
]
NAMES = ["membrane", "inside", "synapse"]
VALUES = [[0, 32], [255], [223]]


def pair(shape, values, wrong=0.3, dtype=np.uint8):
    """A truth, and labels that differ from it in a share of the pixels."""
    truth, other = (RNG.choice(values, shape).astype(dtype) for _ in "ab")
    return np.where(RNG.random(shape) < wrong, other, truth).astype(dtype), truth


def store(path, labels, properties=PROPERTIES, name="tiledlaf", version="0.5"):
    """An OME-Zarr that holds labels only, written with plain zarr."""
    three = version != "0.4"
    root = zarr.open_group(path, mode="a", zarr_format=3 if three else 2)
    group = root.require_group(f"labels/{name}")
    group.create_array("0", data=labels, chunks=(16,) * labels.ndim)
    axes = [{"name": a, "type": "space"} for a in "zyx"[-labels.ndim :]]
    move = [{"type": "scale", "scale": [1.0] * labels.ndim}]
    image = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": move}]}
    about = {"multiscales": [image], "image-label": {"version": version}}
    if properties is not None:
        about["image-label"]["properties"] = properties
    names = [*ngff.label_names(str(path)), name]
    if three:
        group.attrs["ome"] = {"version": version, **about}
        root["labels"].attrs["ome"] = {"version": version, "labels": names}
    else:
        group.attrs.update(about)
        root["labels"].attrs["labels"] = names
    return path


def check(found, labels, truth, order):
    """Compare with scikit-learn, on flat arrays of what is evaluated."""
    counts = confusion_matrix(truth, labels, labels=[*order, -1])
    np.testing.assert_array_equal(found.confusion, counts[:-1, :-1])
    np.testing.assert_array_equal(found.unlabeled, counts[:-1, -1])
    options = {"labels": order, "average": None, "zero_division": 0}
    f1, iou = f1_score(truth, labels, **options), jaccard_score(truth, labels, **options)
    np.testing.assert_allclose(found.f1, f1, rtol=1e-12)
    np.testing.assert_allclose(found.iou, iou, rtol=1e-12)
    assert found.mean_f1 == pytest.approx(f1.mean())
    assert found.mean_iou == pytest.approx(iou.mean())
    assert found.error == pytest.approx((truth != labels).mean())
    assert found.pixels == truth.size


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([0, 1], bool),
        ([0, 255], np.uint8),
        ([-5, 0, 3, 700], np.int16),
        ([3, 2**40, 2**63 - 1], np.uint64),  # too far apart to count without sorting
        ([0, 2, 7], np.float32),
        ([1, 4], ">i4"),
    ],
)
def test_values_as_they_are(values, dtype):
    labels, truth = pair((40, 53), values, dtype=dtype)
    found = evaluate(labels, truth)
    assert found.labels == tuple(values)
    assert found.names == tuple(map(str, values))
    assert found.left_out == 0
    assert found.rand is None
    check(found, labels.ravel().astype(int), truth.ravel().astype(int), values)


def test_ignored_value():
    labels, truth = pair((50, 41), [0, 1, 2, 9])
    labels[0, 0], truth[0, 0] = 77, 9  # what labels have there alone is no class
    found = evaluate(labels, truth, ignore=9)
    assert found.labels == (0, 1, 2)
    kept = truth != 9
    assert found.left_out == (~kept).sum()
    assert found.unlabeled.sum() == (labels[kept] == 9).sum() > 0
    check(found, np.where(labels == 9, -1, labels.astype(int))[kept], truth[kept], [0, 1, 2])


def test_class_of_the_labels_only():
    labels, truth = pair((30, 30), [1, 2])
    labels[3:5] = 4
    found = evaluate(labels, truth, names=["a", "b", "c", "d"])
    assert found.names == ("a", "b", "d")
    assert found.f1[2] == 0
    check(found, labels.ravel(), truth.ravel(), [1, 2, 4])


def mapped(shape=(37, 45)):
    """Labels 0..3 that stand for values of a truth, and the truth as classes, -1 where none."""
    values = np.array([0, 32, 255, 223, 100])
    truth = values[RNG.choice(5, shape, p=[0.2, 0.2, 0.4, 0.1, 0.1])].astype(np.uint8)
    classes = np.select([truth < 33, truth == 255, truth == 223], [1, 2, 3], -1)
    labels = np.where(RNG.random(shape) < 0.3, RNG.integers(0, 4, shape), classes).clip(0)
    return labels.astype(np.uint8), truth, classes


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("place", ["out.zarr", "out.zarr/labels/tiledlaf"])
def test_values_of_the_labels(tmp_path, version, place):
    labels, truth, classes = mapped()
    store(tmp_path / "out.zarr", labels, version=version)
    assert ngff.label_properties(str(tmp_path / "out.zarr"), "labels/tiledlaf") == PROPERTIES
    found = evaluate(tmp_path / place, truth, ignore=None)
    assert (found.names, found.labels) == (tuple(NAMES), (1, 2, 3))
    assert found.values == ((0, 32), (255,), (223,))
    kept = classes > 0
    assert found.left_out == (~kept).sum()
    given = np.where(labels, labels.astype(int), -1)
    check(found, given[kept], classes[kept], [1, 2, 3])
    # ignored truth is left out even where a class stands for it
    found = evaluate(tmp_path / place, truth, ignore=32)
    kept = (classes > 0) & (truth != 32)
    assert found.values[0] == (0,)
    check(found, given[kept], classes[kept], [1, 2, 3])


def test_property_of_the_background(tmp_path):
    labels, truth, _ = mapped()
    store(tmp_path / "out.zarr", labels, [{"label-value": 0, "name": "background"}, *PROPERTIES])
    found = evaluate(tmp_path / "out.zarr", truth)
    assert found.as_dict() == evaluate(labels, truth, values=VALUES, names=NAMES).as_dict()
    # but a class of its own where it stands for values of the truth
    found = evaluate(labels, truth, values={0: [100], **dict(enumerate(VALUES, 1))})
    assert found.confusion[0, 0] == ((labels == 0) & (truth == 100)).sum() > 0
    assert (found.left_out, found.unlabeled.sum()) == (0, 0)


def test_values_from_python():
    labels, truth, classes = mapped()
    kept = classes > 0
    given = np.where(labels, labels.astype(int), -1)[kept]
    for values in (VALUES, dict(enumerate(VALUES, 1))):
        check(evaluate(labels, truth, values=values), given, classes[kept], [1, 2, 3])
    assert evaluate(labels, truth, values=VALUES).names == ("class 1", "class 2", "class 3")
    found = evaluate(labels, truth, values=VALUES, names=NAMES, boundary="membrane")
    assert found.names == tuple(NAMES)
    assert found.rand is not None


def test_class_that_nobody_has():
    labels, truth, _ = mapped()
    found = evaluate(labels, truth, values=[*VALUES, [77]])
    assert np.isnan([found.f1[3], found.iou[3]]).all()
    assert found.mean_f1 == pytest.approx(found.f1[:3].mean())
    assert found.as_dict()["classes"][3]["f1"] is None
    assert [line.split() for line in evaluation.lines(found)][6][-2:] == ["-", "-"]


def test_no_properties(tmp_path):
    labels, truth = pair((20, 30), [0, 1, 2])
    assert ngff.label_properties(str(tmp_path), "labels/none") == []
    names = [{"label-value": 1, "name": "one"}, "no mapping"]
    odd = {"odd": {"1": "one"}, "number": 5}
    for name, properties in {"bare": None, "named": names, **odd}.items():
        path = store(tmp_path / "a.zarr", labels, properties, name)
        found = evaluate(path, truth, name=name)
        assert found.names == ("0", "one" if name == "named" else "1", "2")
        check(found, labels.ravel(), truth.ravel(), [0, 1, 2])


def test_own_labels(tmp_path):
    image = np.kron(RNG.integers(0, 2, (8, 9)), np.ones((6, 6), int)) * 200.0
    truth = 1 + (image > 100)
    mask = np.ones(image.shape)
    mask[:5] = 0
    label(image, tmp_path / "o.zarr", prototypes=[[0], [200]], mask=mask, names=["dark", "light"])
    found = evaluate(tmp_path / "o.zarr", truth)
    assert found.names == ("dark", "light")  # 0 is not labeled, and no class
    assert found.unlabeled.sum() == 5 * image.shape[1]
    assert found.error == pytest.approx(5 / len(image), abs=0.05)


def flooded(classes):
    """Components of pixels of one class that share an edge; class 0 is none."""
    found = np.zeros(classes.shape, int)
    for start in np.argwhere(classes):
        if found[tuple(start)]:
            continue
        number, left = found.max() + 1, [tuple(start)]
        while left:
            y, x = left.pop()
            inside = 0 <= y < classes.shape[0] and 0 <= x < classes.shape[1]
            if inside and not found[y, x] and classes[y, x] == classes[tuple(start)]:
                found[y, x] = number
                left += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
    return found


def rand_of_pairs(labels, truth):
    """Adapted Rand error: F1 of 'both pixels are in one component', over all pairs of pixels."""
    kept = truth.ravel() > 0
    a, b = truth.ravel()[kept], labels.ravel()[kept]
    others = ~np.eye(len(a), dtype=bool)
    same_a, same_b = (a[:, None] == a) & others, (b[:, None] == b) & others
    total = same_a.sum() + same_b.sum()
    return 1 - 2 * (same_a & same_b).sum() / total if total else None


SMALL = st.tuples(st.integers(1, 7), st.integers(1, 8))


@settings(max_examples=60)
@given(st.data())
def test_rand_error_is_that_of_all_pairs(data):
    shape = data.draw(SMALL)
    labels, truth = (data.draw(arrays(np.uint8, shape, elements=st.integers(0, 3))) for _ in "ab")
    truth[0, 0], labels[-1, -1] = 1, 2  # boundary and another class are there
    truth[-1, -1] = max(truth[-1, -1], 1)
    found = evaluate(
        labels,
        truth,
        boundary="1",
        values={v: [v] for v in (1, 2, 3)},
        names={v: str(v) for v in (1, 2, 3)},
    )
    labels, truth = (flooded(np.where(a == 1, 0, a)) for a in (labels, truth))
    expected = rand_of_pairs(labels, truth)
    assert found.rand == (None if expected is None else pytest.approx(expected, abs=1e-9))
    assert found.boundary == "1"


@pytest.mark.parametrize(("rows", "columns"), [(2, 1), (0, 5)])
def test_real_membranes(data_folder, tmp_path, rows, columns):
    """The challenge's own case: two classes, components of what is no membrane."""
    file = data_folder / "isbi2012" / "train" / "label" / "3.png"
    truth = np.asarray(PIL.Image.open(file))
    labels = np.roll(truth, (rows, columns), (0, 1))
    PIL.Image.fromarray(labels).save(tmp_path / "shifted.png")
    found = evaluate(tmp_path / "shifted.png", file, boundary="0")
    check(found, labels.ravel(), truth.ravel(), [0, 255])
    parts = [components(a == 255, connectivity=1) for a in (truth, labels)]
    assert found.rand == pytest.approx(adapted_rand_error(*parts)[0])
    assert found.rand > 0.01
    assert evaluate(file, file, boundary="0").rand == pytest.approx(0)


@settings(max_examples=30)
@given(st.data())
def test_tiles_do_not_matter(data):
    shape = data.draw(st.one_of(SMALL, st.tuples(*[st.integers(1, 5)] * 3)))
    values = st.sampled_from([0, 1, 2, 5000])
    labels, truth = (data.draw(arrays(np.uint16, shape, elements=values)) for _ in "ab")
    truth.flat[0] = 1
    whole = evaluate(labels, truth, boundary="1", ignore=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "EDGE", data.draw(st.integers(1, 6)))
        found = evaluate(labels, truth, boundary="1", ignore=2)
    assert found.as_dict() == whole.as_dict()
    assert whole.pixels == (truth != 2).sum()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Labels with metadata and their truth, in the current folder."""
    monkeypatch.chdir(tmp_path)
    truth = np.repeat(np.array([0, 32, 255, 255, 100], np.uint8), 4)[:, None] + np.zeros(
        (1, 30), np.uint8
    )
    labels = np.where(truth < 33, 1, 2).astype(np.uint8)
    labels[0, :5], labels[19, :], labels[8, :2], labels[9, 4] = 2, 1, 1, 0
    PIL.Image.fromarray(truth).save("truth.png")
    store("out.zarr", labels, PROPERTIES[:2])
    return labels, truth


def done(*arguments):
    found = run("evaluate", *arguments)
    assert (found.code, found.err) == (0, ""), found
    return found.out


def test_table(folder):
    assert done("out.zarr", "truth.png") == (
        "pixels: 480 compared, 120 left out (their truth is no class)\n"
        "confusion matrix: rows truth, columns labels\n"
        "            membrane  inside  not labeled      F1     IoU\n"
        "  membrane       235       5            0  0.9853  0.9711\n"
        "  inside           2     237            1  0.9834  0.9673\n"
        "pixel error: 1.667 %\n"
        "mean F1: 0.9844\n"
        "mean IoU: 0.9692\n"
        "adapted Rand error: not computed (--boundary names the class between components)\n"
    )
    found = done("out.zarr", "truth.png", "--boundary", "membrane", "--ignore", "0")
    assert "pixels: 360 compared, 240 left out" in found
    assert re.search(r"^adapted Rand error: 0\.0\d+ \(boundary membrane\)$", found, re.MULTILINE)
    assert "not labeled" not in done("truth.png", "truth.png")
    found = done("out.zarr", "truth.png", "--boundary", "inside", "--ignore", "0")
    assert "adapted Rand error: 0.0000 (boundary inside)" in found
    np.save("one.npy", np.full((20, 30), 7))
    found = done("one.npy", "one.npy", "--boundary", "7")
    assert "adapted Rand error: none (no two truth pixels outside 7 to compare)" in found


def test_name(folder):
    labels, _ = folder
    store("out.zarr", np.where(labels, 3 - labels, 0).astype(np.uint8), PROPERTIES[:2], "other")
    first, other = (done("out.zarr", "truth.png", "--name", n) for n in ("tiledlaf", "other"))
    assert first == done("out.zarr", "truth.png") != other
    assert other == done("out.zarr/labels/other", "truth.png")


def test_json(folder):
    Path("found.json").write_text("old")
    done("out.zarr", "truth.png", "--json", "found.json", "--boundary", "membrane")
    found = json.loads(Path("found.json").read_text())
    whole = evaluate("out.zarr", "truth.png", boundary="membrane")
    assert found == {"labels": "out.zarr", "truth": "truth.png", **whole.as_dict()}
    assert found["confusion"] == [[235, 5], [2, 237]]
    assert found["not_labeled"] == [0, 1]
    assert (found["pixels"], found["left_out"], found["boundary"]) == (480, 120, "membrane")
    assert found["pixel_error"] == pytest.approx(8 / 480)
    assert found["adapted_rand_error"] == whole.rand > 0
    assert found["mean_iou"] == pytest.approx((235 / 242 + 237 / 245) / 2)
    first = found["classes"][0]
    assert first.pop("f1") == pytest.approx(2 * 235 / (240 + 237))
    assert first.pop("iou") == pytest.approx(235 / 242)
    assert first == {"name": "membrane", "label_value": 1, "truth_values": [0, 32]}


@pytest.mark.parametrize("option", ["--json", "--picture"])
def test_files_are_whole_or_as_before(folder, option, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device", "kept.png")

    Path("kept.png").write_text("old")
    before = contents(".")
    monkeypatch.setattr("os.replace", fail)
    found = run("evaluate", "out.zarr", "truth.png", option, "kept.png")
    assert found.code == 2
    assert found.err == "tiledlaf: error: kept.png: No space left on device\n"
    assert contents(".") == before


def shown(path, size, times=1):
    """The part of the picture that shows the image, a pixel a pixel."""
    with PIL.Image.open(path) as sheet:
        assert sheet.mode == "RGB"
        pixels = np.asarray(sheet)[30:, 8:]
    assert (pixels[size[0] * times :] != 255).any()  # a legend
    return pixels[: size[0] * times : times, : size[1] * times : times]


def test_picture(folder):
    labels, _ = folder
    done("out.zarr", "truth.png", "--picture", "errors.png")
    pixels = shown("errors.png", labels.shape, pictures.SMALL // 30)
    full = classes.palette(2)
    dim = (pictures.DIM * full).astype(np.uint8)
    np.testing.assert_array_equal(pixels[4, 4], dim[1])
    np.testing.assert_array_equal(pixels[12, 4], dim[2])
    np.testing.assert_array_equal(pixels[16:], 0)  # left out
    np.testing.assert_array_equal(pixels[9, 4], (255, 0, 255))  # not labeled
    for place, value in (((0, 0), 2), ((8, 1), 1)):
        wrong = pixels[place]
        assert wrong.max() == 255
        np.testing.assert_allclose(wrong / 255, full[value] / full[value].max(), atol=1 / 255)
    bright = pixels.max(axis=2) == 255
    assert bright.sum() == 8


def test_legend(tmp_path):
    """It names what is to be seen: the color of what is not labeled only where that is wrong."""
    labels, truth, _ = mapped()
    for part, expected in ((truth < 256, True), (labels > 0, False), (truth == 100, False)):
        some = np.where(part | (labels > 0), labels, 1)
        found = evaluate(some, truth, values=VALUES)
        evaluation.write_picture(found, str(tmp_path / "p.png"), some, truth)
        with PIL.Image.open(tmp_path / "p.png") as sheet:
            assert ((np.asarray(sheet) == (255, 0, 255)).all(axis=2)).any() == expected


@pytest.mark.parametrize("edge", [2048, 7, 1])
def test_picture_of_a_large_image(tmp_path, monkeypatch, edge):
    monkeypatch.setattr(evaluation, "SHOWN", 500)
    monkeypatch.setattr(evaluation, "EDGE", 2048)
    labels, truth = pair((21, 1203), [4, 9])
    found = evaluate(labels, truth)
    monkeypatch.setattr(evaluation, "EDGE", edge)
    evaluation.write_picture(found, str(tmp_path / "p.png"), labels, truth)
    pixels = shown(tmp_path / "p.png", (7, 401))
    np.testing.assert_array_equal(pixels.max(axis=2) == 255, (labels != truth)[::3, ::3])


def test_picture_of_a_volume(tmp_path):
    labels, truth = pair((5, 40, 500), [1, 2])
    evaluation.write_picture(evaluate(labels, truth), str(tmp_path / "p.png"), labels, truth)
    pixels = shown(tmp_path / "p.png", (40, 500))
    np.testing.assert_array_equal(pixels.max(axis=2) == 255, (labels != truth)[2])


def test_kinds_of_files(tmp_path):
    labels, truth = pair((24, 31), [0, 1])
    expected = evaluate(labels, truth).as_dict()
    np.save(tmp_path / "a.npy", labels)
    tifffile.imwrite(tmp_path / "a.tif", labels)
    zarr.save_array(tmp_path / "a.zarr", labels)
    PIL.Image.fromarray(labels).save(tmp_path / "a.png")
    PIL.Image.fromarray(labels.astype(bool)).save(tmp_path / "bits.png")
    colored = PIL.Image.fromarray(labels)
    colored.putpalette([0, 0, 0, 90, 180, 20])  # as --export and many tools write labels
    colored.save(tmp_path / "palette.png")
    for file in sorted(tmp_path.iterdir()):
        assert evaluate(file, truth).as_dict() == expected, file
        assert evaluate(truth, file).confusion.T.tolist() == expected["confusion"], file


def test_values_of_64_bits(tmp_path):
    """2**63 is itself, and neither NaN nor what is ignored is compared."""
    truth = np.array([[0, 1, 2**63, 2**64 - 1]], np.uint64)
    np.save(tmp_path / "truth.npy", truth)
    found = evaluate(np.array([[0, 1, 1, 1]]), tmp_path / "truth.npy", ignore=2**64 - 1)
    assert found.names == ("0", "1", str(2**63))
    assert (found.pixels, found.left_out) == (3, 1)
    found = evaluate(np.array([[0, 1, 1]]), np.array([[0, 1, np.nan]]))
    assert (found.names, found.pixels, found.left_out) == (("0", "1"), 2, 1)


@pytest.mark.parametrize("depth", [3, 6])
def test_volumes_in_files(tmp_path, depth):
    labels, truth = pair((depth, 20, 24), [0, 1, 2])
    expected = evaluate(labels, truth).as_dict()
    np.save(tmp_path / "a.npy", labels)
    zarr.save_array(tmp_path / "a.zarr", labels)
    tifffile.imwrite(tmp_path / "a.tif", labels, photometric="minisblack")
    tifffile.imwrite(tmp_path / "z.tif", labels, imagej=True, metadata={"axes": "ZYX"})
    store(tmp_path / "o.zarr", labels, None)
    for file in sorted(tmp_path.iterdir()):
        assert evaluate(file, truth).as_dict() == expected, file


def no_reading(*_):
    raise AssertionError("pixels are read before this is refused")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["gone.png", "truth.png"], r"gone\.png: no such file"),
        (["out.zarr", "gone.png"], r"gone\.png: no such file"),
        (["out.zarr", "small.png"], r"small.png: .* size \(20, 30\), got \(19, 30\)"),
        (["out.zarr", "rgb.png"], r"rgb\.png: expected .* one channel, got the colors #"),
        (["rgb.png", "truth.png"], r"rgb\.png: expected .* one channel, got 3"),
        (["out.zarr", "out.zarr"], r"name one, such as out\.zarr/labels/tiledlaf"),
        (["out.zarr", "truth.png", "--name", "x"], "of the name x, got tiledlaf "),
        (["cut.zarr", "truth.png"], "of the name tiledlaf, got none "),
        (
            ["out.zarr", "truth.png", "--boundary", "wall"],
            "one of the classes membrane, inside as boundary, got 'wall'",
        ),
        (["twice.zarr", "truth.png"], "each truth value in one class, got 32 .* 1 and 2"),
        (["odd.zarr", "truth.png"], r'got \{"label-value": 1, "values": 5\}'),
        (["keyless.zarr", "truth.png"], r'got \{"name": "x"\}'),
        (["out.zarr", "truth.png", "--json", "no/f.json"], "--json no/f.json: .* no such folder"),
        (["out.zarr", "truth.png", "--json", "out.zarr"], "--json out.zarr: .* a folder"),
        (["out.zarr", "truth.png", "--picture", "no/p.png"], "--picture .* no such folder"),
        (["out.zarr", "truth.png", "--picture", "p.jpg"], r"ending \.png, got p\.jpg"),
        (["out.zarr", "truth.png", "--picture", "truth.png"], "a file other than truth.png"),
        (["out.zarr", "truth.png", "--json", "p.png", "--picture", "p.png"], "a file other than"),
        (
            ["out.zarr", "truth.png", "--ignore", "many"],
            "--ignore expects whole numbers .* got 'many'",
        ),
    ],
)
def test_bad_input(folder, monkeypatch, arguments, words):
    labels, truth = folder
    PIL.Image.fromarray(truth[1:]).save("small.png")
    PIL.Image.fromarray(np.dstack([truth, truth, 0 * truth])).save("rgb.png")
    cut = zarr.create_group("cut.zarr", attributes={"tiledlaf": {"image": {}}})
    cut.create_array("0", data=truth)
    twice = [{**PROPERTIES[0]}, {"label-value": 2, "values": [255, 32]}]
    store("twice.zarr", labels, twice)
    store("odd.zarr", labels, [{"label-value": 1, "values": 5}])
    store("keyless.zarr", labels, [{"name": "x"}])
    before = contents(".")
    monkeypatch.setattr(evaluation, "_read", no_reading)
    refused(run("evaluate", *arguments), words)
    assert contents(".") == before


def refused(found, words):
    assert found.code == 2, found
    assert found.out == ""
    assert re.fullmatch(rf"tiledlaf: error: .*{words}.*\n", found.err), found.err


@pytest.mark.parametrize(
    ("labels", "truth", "options", "words"),
    [
        ([[0.5, 1]], [[0, 1]], [], r"labels\.npy: expected whole numbers as labels, got 0\.5"),
        ([[0, 1]], [[0, np.inf]], [], r"truth\.npy: expected .* whole numbers .*, got inf"),
        ([[0, 1]], [[0, 1.5]], [], r"truth\.npy: expected .* whole numbers .*, got 1\.5"),
        ([[0, 1]], [[7, 7]], ["--ignore", "7"], r"truth\.npy: expected .* to compare, got only 7"),
        ([[0, 1]], [[0, 1]], ["--boundary", "2"], "one of the classes 0, 1 as boundary, got '2'"),
        ([range(300)], [range(300)], [], "at most 256 classes, got 300 "),
        ([range(0, 3000, 10)], [[0] * 300], [], "at most 256 classes, got 300 "),
    ],
)
def test_bad_pixels(tmp_path, monkeypatch, labels, truth, options, words):
    monkeypatch.chdir(tmp_path)
    np.save("labels.npy", labels)
    np.save("truth.npy", truth)
    refused(run("evaluate", "labels.npy", "truth.npy", "--json", "f.json", *options), words)
    assert not Path("f.json").exists()


def test_instances_are_refused_by_their_first_tile(monkeypatch):
    """Not once all of them are counted: there may be millions."""
    monkeypatch.setattr(evaluation.scores, "compared", no_reading)
    many = np.arange(0, 6000, 20).reshape(20, 15)
    with pytest.raises(InputError, match="at most 256 classes, got 300 "):
        evaluate(many, many * 0)


def test_pixels_that_no_class_has(folder):
    labels, truth = folder
    np.save("other.npy", np.full_like(truth, 99))
    found = run("evaluate", "out.zarr", "other.npy")
    refused(found, r"other\.npy: expected pixels with the values 0, 32, 255 .*, got only 99")
    labels[0, 0] = 9
    store("more.zarr", labels, PROPERTIES[:2])
    refused(run("evaluate", "more.zarr", "truth.png"), "label values 1, 2 .* got 9")
    labels[0, 0], labels[19, 0] = 1, 9  # its truth is left out, and so is it
    store("out.zarr", labels, PROPERTIES[:2], "fine")
    assert done("out.zarr", "truth.png", "--name", "fine")


def test_arrays_that_are_no_labels():
    truth = np.zeros((4, 5), int)
    with pytest.raises(ValueError, match=r"the labels: expected a label image .*, got \(5,\)"):
        evaluate(truth[0], truth)
    with pytest.raises(ValueError, match=r"the truth: .* size \(4, 5\), got \(3, 5\)"):
        evaluate(truth, truth[1:])
    with pytest.raises(ValueError, match="expected numbers"):
        evaluate(truth, truth.astype(object))


def test_read_only_folder(folder, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)
    refused(run("evaluate", "out.zarr", "truth.png", "--json", "f.json"), "is read-only")


def test_broken_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("truth.npy", np.zeros((4, 5), int))
    for name in ("a.png", "a.tif", "a.npy", "a.txt"):
        Path(name).write_text("hello")
        refused(run("evaluate", name, "truth.npy"), re.escape(name))
        refused(run("evaluate", "truth.npy", name), re.escape(name))


@pytest.mark.parametrize("options", [{"values": 5}, {"values": [["a"]]}, {"names": 5}])
def test_values_and_names_of_other_kinds(options):
    labels = np.ones((4, 4), int)
    with pytest.raises(InputError, match=f"for `{next(iter(options))}`, got"):
        evaluate(labels, labels, **options)
