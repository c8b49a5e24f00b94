"""Objects one by one: the scores beside those of a slow way, and what counts as an object."""

import json
from fractions import Fraction

import numpy as np
import PIL.Image
import pytest
import tifffile
import zarr
from command import run
from drawings import box, collection, feature, ring, write
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

import tiledlaf
from tiledlaf import FileWarning, Painting, evaluate, label
from tiledlaf.errors import InputError
from tiledlaf.model.classes import palette
from tiledlaf.reports import evaluation
from tiledlaf.reports.scores import ObjectScores

TENTHS = (5, 6, 7, 8, 9)
NAMES = {1: "ground", 2: "cell"}


def masks(numbers):
    """The pixels of each object."""
    return [numbers == n for n in np.unique(numbers[numbers != 0])]


def connected(where, apart=0):
    """Objects of connected pixels; the first axes are not connected."""
    if apart:
        found = [connected(part, apart - 1) for part in where]
        steps = np.cumsum([0, *(f.max() for f in found)])
        return np.stack([np.where(f, f + s, 0) for f, s in zip(found, steps, strict=False)])
    return ndimage.label(where)[0]


def slowly(truth, labels, left_out):
    """Counts at each overlap and the sum of overlaps, of all pairs of objects and assignments.

    Assignments have as many matches as can be and, of these, the fewest wrong objects.
    """
    there, here = masks(truth), masks(labels)
    void = [2 * (m & left_out).sum() > m.sum() for m in here]
    clear = [m & ~left_out for m in here]
    over = np.array(
        [[Fraction(int((a & b).sum()), int((a | b).sum())) for b in clear] for a in there],
        object,
    ).reshape(len(there), len(here))
    matched, extra, shared = [], [], 0.0
    for tenths in TENTHS:
        fits = over >= Fraction(tenths, 10)
        rows, columns = linear_sum_assignment(fits * (4.0 + ~np.array(void, bool)), maximize=True)
        pairs = [(r, c) for r, c in zip(rows, columns, strict=True) if fits[r, c]]
        taken = {c for _, c in pairs}
        matched.append(len(pairs))
        extra.append(sum(c not in taken and not void[c] for c in range(len(here))))
        if tenths == 5:
            shared = float(sum(over[r, c] for r, c in pairs))
    return len(there), len(here), sum(void), tuple(matched), tuple(extra), shared


def check(found, truth, labels, left_out):
    count, there, void, matched, extra, shared = slowly(truth, labels, left_out)
    assert (found.truth, found.labels, found.left_out) == (count, there, void)
    assert (found.matched, found.extra) == (matched, extra)
    assert found.missed == tuple(count - n for n in matched)
    wrong = [2 * m + e + count - m for m, e in zip(matched, extra, strict=True)]
    expected = [2 * m / w if w else np.nan for m, w in zip(matched, wrong, strict=True)]
    np.testing.assert_allclose(found.f1, expected)
    pq = shared / (wrong[0] / 2) if wrong[0] else np.nan
    np.testing.assert_allclose(found.panoptic, pq)


def in_tiles(edge, *args, **options):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "EDGE", edge)
        return evaluate(*args, **options)


PLANES = st.tuples(st.integers(1, 8), st.integers(1, 9))
SPACES = st.tuples(*[st.integers(1, 5)] * 3)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_instances_like_a_slow_way(data):
    """Touching instances, one of several parts, ids of 64 bits; labels from 2 on; some left out."""
    shape = data.draw(st.one_of(PLANES, SPACES))
    ids = st.sampled_from([0, 0, 1, 2, 3, 2**63 + 1, 2**64 - 2])
    truth = data.draw(arrays(np.uint64, shape, elements=ids))
    labels = data.draw(arrays(np.uint8, shape, elements=st.integers(1, 2)))
    truth.flat[0] = 1
    edge = data.draw(st.integers(1, 9))
    found = in_tiles(
        edge,
        labels,
        truth,
        instances="object",
        ignore=3,
        values={1: [0], 2: [1]},
        names=NAMES,
    )
    (one,) = found.objects
    assert one.name == "cell"
    left_out = truth == 3
    check(one, np.where(left_out, 0, truth), connected(labels == 2), left_out)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_classes_like_a_slow_way(data):
    """Connected pixels of two classes on both sides, over tiles."""
    shape = data.draw(st.one_of(PLANES, SPACES))
    values = st.sampled_from([1, 1, 2, 3, 9])
    truth, labels = (data.draw(arrays(np.int16, shape, elements=values)) for _ in "ab")
    truth.flat[0], truth.flat[-1], labels.flat[0], labels.flat[-1] = 1, 2, 1, 2
    edge = data.draw(st.integers(1, 9))
    chosen = ["1", "2"] if shape != (1,) * len(shape) else ["2"]
    found = in_tiles(edge, labels, truth, objects=chosen, ignore=9)
    assert [o.name for o in found.objects] == chosen
    for one in found.objects:
        own, here = (connected(a == int(one.name)) for a in (truth, labels))
        check(one, own, here, truth == 9)
    assert found.as_dict() == evaluate(labels, truth, objects=chosen, ignore=9).as_dict()


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_two_instance_masks_like_a_slow_way(data):
    """Numbers of both sides are objects, of any kind, touching or in parts; none is connected."""
    shape = data.draw(st.one_of(PLANES, SPACES))
    ids = st.sampled_from([0, 0, 1, 2, 3, 2**63 + 1, 2**64 - 2])
    truth, labels = (data.draw(arrays(np.uint64, shape, elements=ids)) for _ in "ab")
    truth.flat[0] = 1
    edge = data.draw(st.integers(1, 9))
    found = in_tiles(edge, labels, truth, instances="object", ignore=3, label_instances="cell")
    assert set(found.names) <= {"background", "cell"}
    (one,) = found.objects
    assert one.name == "cell"
    left_out = truth == 3
    check(one, np.where(left_out, 0, truth), labels, left_out)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_corners_connect_like_a_slow_way(data):
    """Across edges and corners of tiles, on both sides, in planes and volumes."""
    shape = data.draw(st.one_of(PLANES, SPACES))
    truth, labels = (
        data.draw(arrays(np.uint8, shape, elements=st.sampled_from([1, 2, 9]))) for _ in "ab"
    )
    truth.flat[0], labels.flat[0] = 1, 1
    full = ndimage.generate_binary_structure(len(shape), len(shape))
    own, here = (ndimage.label(a == 1, full)[0] for a in (truth, labels))
    edge = data.draw(st.integers(1, 5))
    found = in_tiles(edge, labels, truth, objects="1", ignore=9, connectivity="full")
    check(found.objects[0], own, here, truth == 9)


HALF = st.lists(st.integers(0, 3), min_size=1, max_size=6)


@settings(max_examples=80, deadline=None)
@example([0, 1, 1], [0, 0, 0])
@given(HALF, HALF)
def test_halves(truth, labels):
    """At an overlap of one half, where an object may have two partners, as assignments have it."""
    own, here = (np.repeat(np.array(a), 2)[None] for a in (truth, labels))
    size = max(own.shape[1], here.shape[1]) + 1
    own, here = (np.pad(a, ((0, 0), (0, size - a.shape[1]))) for a in (own, here))
    left_out = own == 3
    wanted = np.where(left_out, 0, own)
    (found,) = evaluate(
        (here > 0) + 1, own, instances="object", ignore=3, values={1: [0], 2: [1]}, names=NAMES
    ).objects
    check(found, wanted, connected(here > 0), left_out)


def test_two_halves_of_one():
    """One of them matches; it is the one that would count as wrong."""
    truth = np.array([[9, 9, 9, 5, 5], [0] * 5, [0, 0, 0, 5, 5]])
    labels = np.array([[2, 2, 2, 2, 2], [1] * 5, [1, 1, 1, 2, 2]])
    for way in (np.s_[:], np.s_[::-1]):
        (one,) = evaluate(
            labels[way],
            truth[way],
            instances="object",
            ignore=9,
            values={1: [0], 2: [1]},
            names=NAMES,
        ).objects
        assert (one.matched[:2], one.extra[:2], one.left_out) == ((1, 0), (0, 1), 1)
        assert one.panoptic == 0.5


def test_mostly_left_out():
    """An object of the labels counts by its pixels that are compared, if most of them are."""
    truth = np.array([[0, 0, 7, 7, 7, 7, 9, 9, 9, 9, 9, 9], [0] * 3 + [9] * 9])
    labels = np.ones_like(truth)
    labels[0, 2:11] = 2  # matches, though more than half of it is left out
    labels[1, 1:6] = 2  # which connects them: one object
    options = {"instances": "object", "ignore": 9, "values": {1: [0], 2: [1]}, "names": NAMES}
    (one,) = evaluate(labels, truth, **options).objects
    assert (one.labels, one.left_out, one.matched) == (1, 1, (1, 1, 0, 0, 0))
    assert one.extra == (0,) * 5  # without a match it is not counted either
    labels[:] = 1
    labels[1, :2] = labels[0, 8:] = 2
    (one,) = evaluate(labels, truth, **options).objects
    assert (one.labels, one.left_out, one.extra) == (2, 1, (1,) * 5)


def test_time_points_are_apart(tmp_path):
    """Neither cells of one number nor connected pixels are one object at two times."""
    image = np.zeros((3, 20, 24), np.float32)
    image[:, 3:9, 4:12] = 1
    image[1:, 12:18, 4:12] = 1
    tifffile.imwrite(tmp_path / "i.tif", image, imagej=True, metadata={"axes": "TYX"})
    out = tmp_path / "o.zarr"
    label(tmp_path / "i.tif", out, prototypes=[[0], [1]], time_point="all", time=0.1)
    cells = np.zeros(image.shape, np.uint16)
    cells[:, 3:9, 4:12], cells[1:, 12:18, 4:12] = 1, 2
    cells[2] = 0
    tifffile.imwrite(tmp_path / "t.tif", cells, imagej=True, metadata={"axes": "TYX"})
    options = {"values": {1: [0], 2: [1]}, "names": NAMES}
    for edge in (2048, 5):
        found = in_tiles(edge, out, tmp_path / "t.tif", instances="object", **options)
        (one,) = found.objects
        assert (one.truth, one.labels, one.matched) == (3, 5, (3,) * 5)


def drawn(path, *more):
    """Two cells that touch, and one of two parts."""
    parts = {"type": "MultiPolygon", "coordinates": [[ring(20, 2, 24, 6)], [ring(26, 2, 30, 6)]]}
    cells = [box(2, 2, 8, 8), box(8, 2, 14, 8), parts]
    return write(path, collection(*(feature(c, "cell") for c in cells), *more))


def painted():
    """Labels of the first cell, of both parts of the third, and of one that is not drawn."""
    labels = np.ones((30, 40), np.uint8)
    labels[2:8, 2:8] = labels[2:6, 20:24] = labels[2:6, 26:30] = labels[20:25, 5:10] = 2
    return labels


def test_annotations_are_objects(tmp_path):
    """One by one; what lies outside is left out, unless its class is named."""
    path, names = drawn(tmp_path / "a.geojson"), NAMES
    found = evaluate(painted(), path, names=names, objects="cell")
    (one,) = found.objects
    assert (one.truth, one.labels, one.left_out) == (3, 4, 1)
    # each part is one half of the third cell, and so one of them is a match
    assert (one.matched, one.extra) == ((2, 1, 1, 1, 1), (1, 2, 2, 2, 2))
    assert found.left_out == 30 * 40 - 6 * 6 * 2 - 4 * 4 * 2
    found = in_tiles(7, painted(), path, names=names, objects=["cell"], outside="ground")
    (one,) = found.objects
    assert (one.truth, one.labels, one.left_out) == (3, 4, 0)
    assert (one.matched, one.extra) == ((2, 1, 1, 1, 1), (2, 3, 3, 3, 3))
    assert found.left_out == 0
    assert found.confusion.tolist() == [[30 * 40 - 36 * 2 - 32 - 25, 25], [36, 36 + 32]]


def test_overlapping_annotations(tmp_path):
    """A pixel belongs to one of them, as when pixels are compared: to the smaller one."""
    inner = feature(box(3, 3, 5, 5), "cell")
    other = feature(box(30, 10, 34, 14), "Ignore*")
    path = drawn(tmp_path / "a.geojson", inner, other, feature(box(31, 11, 33, 13), "ground"))
    labels = painted()
    labels[10:14, 30:34] = 2  # where the truth says to ignore it, even inside of what is outside
    options = {"names": NAMES, "objects": "cell", "outside": "ground"}
    with pytest.warns(FileWarning, match="of a class ending in"):
        found = evaluate(labels, path, **options)
    (one,) = found.objects
    assert (one.truth, one.labels, one.left_out) == (4, 5, 1)
    # 32 of 36 pixels of the first, and one half of the third
    assert (one.matched, one.extra) == ((2, 1, 1, 1, 0), (2, 3, 3, 3, 4))
    assert found.left_out == 12
    with pytest.warns(FileWarning, match="of a class ending in"):  # the larger one covers no other
        found = evaluate(labels, path, painting=Painting(overlaps="cell,ground"), **options)
    assert found.objects[0].truth == 4


def test_region_and_level(tmp_path):
    """Annotations count their pixels in level 0 of the image that was labeled, wherever it is."""
    image = np.where(painted() == 2, 200, 0).astype(np.uint8)
    with tifffile.TiffWriter(tmp_path / "i.tif") as file:
        file.write(image, subifds=1)
        file.write(image.reshape(15, 2, 20, 2).mean((1, 3)).astype(np.uint8), subfiletype=1)
    path = drawn(tmp_path / "a.geojson")
    options = {"prototypes": [[0], [200]], "names": ["ground", "cell"], "neighborhood": "1x1"}
    for number, part in enumerate(({"region": [(1, 30), (1, 25)]}, {"level": 1}, {})):
        out = tmp_path / f"{number}.zarr"
        label(tmp_path / "i.tif", out, **options, **part)
        (one,) = evaluate(out, path, objects="cell", outside="ground").objects
        parts = 1 if "region" in part else 2  # the region has one part of the third cell
        assert (one.truth, one.labels) == (3, 2 + parts), part
        assert one.matched == ((2, 2, 2, 2, 2) if parts == 1 else (2, 1, 1, 1, 1))


@pytest.mark.parametrize("how", ["object", "object-border"])
def test_instances_unasked(tmp_path, how):
    """The class of objects is compared by itself; with borders, objects are without theirs."""
    cells = np.zeros((20, 30), np.int32)
    cells[3:10, 3:10], cells[3:10, 10:16], cells[12:18, 20:28] = 1, 2, 3
    np.save(tmp_path / "cells.npy", cells)
    values = {1: [0], 2: [1], 3: [2]}
    found = evaluate(cells > 0, tmp_path / "cells.npy", instances=how)
    assert [o.name for o in found.objects] == ["1"]
    assert found.objects[0].truth == 3
    (one,) = evaluate(
        np.where(cells > 0, 2, 1), cells, instances=how, values=values, names=["a", "b", "c"]
    ).objects
    assert (one.name, one.truth, one.labels) == ("b", 3, 2)
    assert one.matched[0] == (2 if how == "object" else 1)


def test_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    drawn(tmp_path / "a.geojson")
    image = np.where(painted() == 2, 200, 0).astype(np.uint8)
    options = {"prototypes": [[0], [200]], "names": ["ground", "cell"], "neighborhood": "1x1"}
    label(image, tmp_path / "o.zarr", **options)
    call = ("evaluate", "o.zarr", "a.geojson", "--objects", "cell")
    found = run(*call, "--json", "f.json", "--picture", "p.png", "--outside", "ground")
    assert (found.code, found.err) == (0, "")
    assert found.out.splitlines()[-4:] == [
        "objects: F1 by the overlap from which on two match, and panoptic quality PQ = SQ x RQ",
        "        truth  labels  F1 0.5  F1 0.6  F1 0.7  F1 0.8  F1 0.9      SQ      RQ      PQ",
        "  cell      3       4  0.5714  0.2857  0.2857  0.2857  0.2857  0.7500  0.5714  0.4286",
        "mean PQ: 0.4286",
    ]
    whole = evaluate("o.zarr", "a.geojson", objects="cell", outside="ground")
    kept = json.loads((tmp_path / "f.json").read_text())
    assert kept == {"labels": "o.zarr", "truth": "a.geojson", **whole.as_dict()}
    (one,) = kept["objects"]["classes"]
    assert kept["objects"]["overlaps"] == list(ObjectScores.overlaps) == [0.5, 0.6, 0.7, 0.8, 0.9]
    assert (one["missed"], one["extra"]) == ([1, 2, 2, 2, 2], [2, 3, 3, 3, 3])
    found = run(*call)
    end = "  1 of the labels' lie mostly where the truth is no class\nmean PQ: 0.5000\n"
    assert found.out.endswith(end)
    np.save("labels.npy", painted())
    two = run("evaluate", "o.zarr", "labels.npy", "--objects", "cell", "--objects", "ground").out
    assert "\nmean F1 of objects: 1.0000 at 0.5, 1.0000 at 0.6, " in two
    assert json.loads(json.dumps(evaluate(image, image).as_dict()))["objects"] is None


def test_objects_that_were_made(tmp_path):
    """Filled and filtered objects of the labels are compared as they are, while they are theirs."""
    image = np.zeros((30, 40), np.uint8)
    image[4:12, 4:12], image[7:9, 7:9], image[20:22, 30:32] = 200, 0, 200
    out, options = tmp_path / "o.zarr", {"prototypes": [[0], [200]], "neighborhood": "1x1"}
    label(image, out, names=["ground", "cell"], **options)
    truth = np.zeros((30, 40), int)
    truth[4:12, 4:12] = 5
    values = {"values": {1: [0], 2: [1]}, "names": NAMES, "instances": "object"}
    (one,) = evaluate(out, truth, **values).objects
    assert (one.labels, one.matched, one.extra[0]) == (2, (1, 1, 1, 1, 1), 1)
    assert one.shared == 60 / 64
    tiledlaf.objects(out, "cell", min_size="8px", fill_holes=True)
    for edge in (2048, 7):
        with pytest.warns(FileWarning, match="compared the objects of cell that were made of it"):
            (one,) = in_tiles(edge, out, truth, **values).objects
        assert (one.labels, one.matched, one.extra[0], one.shared) == (1, (1,) * 5, 0, 1)
    label(255 - image, out, names=["ground", "cell"], overwrite=True, **options)
    (one,) = evaluate(out, truth, **values).objects  # of other labels
    assert one.matched[0] == 0


def write_masks(folder):
    """The same mask as tools write them: TIFF, Zarr, npy, floating point, PNG; and another one."""
    cells = np.zeros((40, 50), np.uint16)
    cells[3:10, 3:10], cells[3:10, 10:16], cells[20:30, 20:28] = 7, 300, 2
    found = np.zeros_like(cells)
    found[3:10, 3:10], found[4:10, 10:16], found[0:2, 40:44] = 1, 9, 5
    tifffile.imwrite(folder / "a.tif", found)
    zarr.save_array(folder / "a.zarr", found)
    np.save(folder / "a.npy", found.astype(np.float32))
    PIL.Image.fromarray(found.astype(np.uint8)).save(folder / "a.png")
    tifffile.imwrite(folder / "cells.tif", cells)
    return found, cells


def test_masks_of_other_tools(tmp_path, monkeypatch):
    """Labels of StarDist or Cellpose: numbers of objects, in any file, against any truth."""
    monkeypatch.chdir(tmp_path)
    found, cells = write_masks(tmp_path)
    options = {"instances": "object", "label_instances": "cell"}
    whole = evaluate(found, cells, **options)
    (one,) = whole.objects
    assert (one.name, one.truth, one.labels, one.matched) == ("cell", 3, 3, (2, 2, 2, 2, 1))
    assert one.shared == 1 + 36 / 42
    for name in ("a.tif", "a.zarr", "a.npy", "a.png"):
        call = ("evaluate", name, "cells.tif", "--instances", "object", "--label-instances", "cell")
        said = run(*call, "--json", "f.json", "--picture", "p.png")
        assert (said.code, said.err) == (0, ""), said
        kept = json.loads((tmp_path / "f.json").read_text())
        assert kept == {"labels": name, "truth": "cells.tif", **whole.as_dict()}
    with PIL.Image.open("p.png") as sheet:  # missed, bright in the color of the background
        colors = np.asarray(sheet).reshape(-1, 3)
    bright = (palette(2)[1] * (255 / palette(2)[1].max())).astype(np.uint8)
    assert (colors == bright).all(axis=1).sum() > 50
    # classes of annotations have names: those of the labels are "background" and the one given
    drawn(tmp_path / "a.geojson")
    mask = np.zeros((30, 40), np.int32)
    mask[2:8, 2:8], mask[2:8, 8:14], mask[20:25, 5:10] = 4, 3, 8
    np.save("mask.npy", mask)
    (one,) = evaluate("mask.npy", "a.geojson", label_instances="cell", outside="background").objects
    assert (one.name, one.truth, one.labels, one.matched) == ("cell", 3, 3, (2,) * 5)
    # a truth of classes, whose objects are connected pixels
    (one,) = evaluate("mask.npy", (mask > 0).astype(int), label_instances="cell").objects
    assert (one.truth, one.labels, one.matched) == (2, 3, (2, 1, 1, 1, 1))
    with pytest.raises(InputError, match="whole numbers"):
        evaluate(mask + 0.5, mask, **options)


def test_objects_of_an_output_as_labels(tmp_path):
    """The label image of objects is an instance mask like those of others, also of a region."""
    image = np.zeros((30, 40), np.uint8)
    image[4:12, 4:12], image[12:20, 12:20] = 200, 200
    out, options = tmp_path / "o.zarr", {"prototypes": [[0], [200]], "neighborhood": "1x1"}
    label(image, out, names=["ground", "cell"], region=[(2, 28), (3, 40)], **options)
    tiledlaf.objects(out, "cell", connectivity="full")
    truth = np.where(image > 0, 6, 0)
    group = zarr.open_group(out / "labels/tiledlaf-cell", mode="r+")
    about = group.attrs["ome"]
    about["image-label"]["properties"] = [{"label-value": 1, "name": "a", "values": [9]}]
    group.attrs["ome"] = about  # which mean nothing where values are numbers of objects
    for labels, name in ((out, "tiledlaf-cell"), (out / "labels/tiledlaf-cell", "tiledlaf")):
        (one,) = evaluate(
            labels, truth, name=name, instances="object", label_instances="cell"
        ).objects
        assert (one.truth, one.labels, one.matched) == (1, 1, (1,) * 5)


def test_borders_of_both_masks():
    """With borders, those of the labels are cut as well: equal masks are equal."""
    cells = np.zeros((20, 30), np.int32)
    cells[3:10, 3:10], cells[3:10, 10:16], cells[12:18, 20:28] = 1, 2, 3
    found = evaluate(cells, cells, instances="object-border", label_instances="cell")
    assert (found.error, found.names) == (0, ("background", "cell", "border"))
    (one,) = found.objects
    assert (one.name, one.truth, one.labels, one.matched) == ("cell", 3, 3, (3,) * 5)


def test_connectivity(tmp_path, monkeypatch):
    """What shares a corner is one object or two, as asked; never in silence without effect."""
    monkeypatch.chdir(tmp_path)
    labels = np.zeros((12, 12), int)
    labels[2:6, 2:6] = labels[6:10, 6:10] = 1
    np.save("a.npy", labels)
    np.save("mask.npy", labels * 3)
    for how, count in ((None, 2), ("face", 2), ("full", 1)):
        (one,) = evaluate(labels, labels, objects="1", connectivity=how).objects
        assert (one.truth, one.labels, one.matched[0]) == (count,) * 3
    found = run("evaluate", "a.npy", "a.npy", "--objects", "1", "--connectivity", "full")
    assert found.out.splitlines()[-2].split()[:3] == ["1", "1", "1"]
    (one,) = evaluate(labels, labels * 3, instances="object", connectivity="full").objects
    assert (one.truth, one.labels) == (1, 1)
    mask = ("evaluate", "mask.npy", "mask.npy", "--instances", "object", "--label-instances", "1")
    for call, words in (
        (("evaluate", "a.npy", "a.npy"), "got none (--objects names a class)"),
        (mask, "got such as have their numbers already"),
    ):
        found = run(*call, "--connectivity", "full")
        assert found.code == 2
        assert f"--connectivity: expected objects of connected pixels, {words}" in found.err
    found = run("evaluate", "a.npy", "a.npy", "--connectivity", "both")
    assert "--connectivity expects face or full, got 'both'" in found.err


def test_no_objects():
    """Where neither side has any there is no score; where one has none, it is 0."""
    labels, cells = np.ones((4, 5), int), np.zeros((4, 5), int)
    options = {"instances": "object", "values": {1: [0], 2: [1]}, "names": NAMES}
    (one,) = evaluate(labels, cells, **options).objects
    assert np.isnan([*one.f1, one.panoptic, one.segmentation, one.recognition]).all()
    found = evaluate(labels, cells, **options)
    assert np.isnan([*found.mean_object_f1, found.mean_panoptic]).all()
    assert found.as_dict()["objects"]["mean_panoptic_quality"] is None
    assert evaluation.lines(found)[-2].split()[-3:] == ["-"] * 3
    (one,) = evaluate(labels + 1, cells, **options).objects
    assert (one.f1.tolist(), one.panoptic) == ([0] * 5, 0)
    assert np.isnan(one.segmentation)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"objects": "wall"}, "one of the classes ground, cell as objects, got 'wall'"),
        ({"objects": ["cell", "wall"]}, "as objects, got 'wall'"),
        ({"objects": 5}, "names of classes for `objects`, got 5"),
        ({"objects": "cell", "outside": "cell"}, "another class than `outside`"),
        ({"outside": "wall"}, "one of the classes ground, cell as outside, got 'wall'"),
        ({"truth": np.ones((30, 40), int), "outside": "cell"}, "`outside`: expected annotations"),
    ],
)
def test_bad_options(tmp_path, options, words):
    truth = options.pop("truth", drawn(tmp_path / "a.geojson"))
    with pytest.raises(InputError, match=words):
        evaluate(painted(), truth, names=NAMES, **options)
