"""Annotations as the labels of an image: planes, levels, widths, overlaps, and words."""

import dataclasses
import pickle

import numpy as np
import pytest
from drawings import SIZE, box, collection, feature, image, whole, write

from tiledlaf.annotations import numbering
from tiledlaf.annotations.opening import Painting, is_annotations, open_annotations
from tiledlaf.errors import InputError
from tiledlaf.files import images
from tiledlaf.files.image import FileWarning, Image

STACK = images.from_array(np.zeros((5, *SIZE), np.uint8), "zyx")


def drawn(tmp_path, *features):
    return write(tmp_path / "a.geojson", collection(*features))


def names(labels: Image):
    return [one.name for one in numbering.names_of(labels)]


# where


def plane(z, t=0):
    return {"plane": {"c": -1, "z": z, "t": t}}


def test_planes_of_a_stack(tmp_path):
    """QuPath leaves out the plane of annotations in the first one."""
    first, third = box(0, 0, 9, 9), box(20, 0, 29, 9) | plane(2)
    path = drawn(tmp_path, feature(first, "a"), feature(third, "b"))
    found = whole(open_annotations(path, STACK))
    assert [np.unique(one).tolist() for one in found] == [[0, 1], [0], [0, 2], [0], [0]]
    with pytest.warns(FileWarning, match="1 of another z than 2"):
        labels = open_annotations(path, dataclasses.replace(image(), fixed=(("z", 2),)))
    assert names(labels) == ["b"]
    with pytest.warns(FileWarning, match="1 of another z than 0"):
        assert names(open_annotations(path, image())) == ["a"]
    with pytest.raises(InputError, match="left out 2 of another z than 1"):
        open_annotations(path, dataclasses.replace(image(), fixed=(("z", 1),)))
    with pytest.warns(FileWarning, match="1 beyond the last z, 1"):
        open_annotations(path, images.from_array(np.zeros((2, *SIZE), np.uint8), "zyx"))


def test_annotations_without_planes(tmp_path):
    path = drawn(tmp_path, feature(box(0, 0, 9, 9), "a"))
    with pytest.warns(FileWarning, match="took all for those of z 0, since none states its z"):
        found = whole(open_annotations(path, STACK))
    assert np.flatnonzero(found.any(axis=(1, 2))).tolist() == [0]
    with pytest.warns(FileWarning, match="took all for those of z 3"):
        open_annotations(path, dataclasses.replace(image(), fixed=(("z", 3),)))


def test_time_points(tmp_path):
    path = drawn(
        tmp_path, *(feature(box(9 * t, 0, 9 * t + 9, 9) | plane(0, t), "a") for t in (0, 1))
    )
    with pytest.warns(FileWarning, match="1 of another t than 1"):
        labels = open_annotations(path, dataclasses.replace(image(), fixed=(("t", 1),)))
    assert np.argwhere(whole(labels)).min(axis=0).tolist() == [0, 9]


def test_annotations_of_no_time_point(tmp_path):
    """They hold at every one."""
    path = drawn(tmp_path, feature(box(0, 0, 9, 9) | {"plane": {"z": 1}}, "a"))
    series = images.from_array(np.zeros((3, 4, *SIZE), np.uint8), "tzyx", time_point="all")
    with pytest.warns(FileWarning, match="took all for those of every t, since none states its t"):
        labels = open_annotations(path, series)
    found = whole(labels)
    assert np.argwhere(found.any(axis=(2, 3))).tolist() == [[t, 1] for t in range(3)]
    window = (slice(1, 3), slice(0, 2), slice(5, 20), slice(4, 30))
    np.testing.assert_array_equal(labels.read(window)[0], found[window])
    assert labels.occupied(window) == (slice(1, 3), slice(1, 2), slice(5, 9), slice(4, 9))
    assert labels.occupied((slice(0, 3), slice(2, 4), slice(0, 60), slice(0, 80))) is None


def test_stacks_of_all_time_points(tmp_path):
    path = drawn(tmp_path, *(feature(box(0, 0, 9, 9) | plane(t + 1, t), "a") for t in (0, 2)))
    series = images.from_array(np.zeros((3, 4, *SIZE), np.uint8), "tzyx", time_point="all")
    labels = open_annotations(path, series)
    assert labels.grid == series.grid
    found = whole(labels)
    assert np.argwhere(found.any(axis=(2, 3))).tolist() == [[0, 1], [2, 3]]
    assert labels.occupied((slice(1, 3), slice(0, 4), slice(2, 60), slice(0, 80))) == (
        (slice(2, 3), slice(3, 4), slice(2, 9), slice(0, 9))
    )


@pytest.mark.parametrize("rest", [0, 1])
def test_coarser_levels(tmp_path, rest):
    """Annotations count pixels of level 0; the last pixel of a level may be a part of one."""
    coarse = dataclasses.replace(image((60 + rest, 80)), whole=(240 + rest, 320))
    labels = open_annotations(drawn(tmp_path, feature(box(40, 80, 202, 161), "a")), coarse)
    expected = np.zeros(coarse.grid, int)
    expected[20:40, 10:50] = 1  # the middles of the pixels up to 162 and 202
    np.testing.assert_array_equal(whole(labels), expected)


# lines and points

LINE = {"type": "LineString", "coordinates": [[10, 20], [40, 20]]}
POINTS = {"type": "MultiPoint", "coordinates": [[10, 40], [30, 40]]}


def sized(um, unit="micrometer"):
    return dataclasses.replace(image(), scale=(um, um), units=(unit, unit))


@pytest.mark.parametrize(
    ("brush", "like"),
    [("4px", image()), (2, sized(0.5)), ("2.0", sized(0.5)), (2, sized(500, "nanometer"))],
)
def test_brush(tmp_path, brush, like):
    """A line of 4 pixels; half a circle at its ends, and whole ones around points."""
    path = drawn(tmp_path, feature(LINE, "line"), feature(POINTS, "point"))
    found = whole(open_annotations(path, like, Painting(brush)))
    assert np.count_nonzero(found[:, 20] == 1) == 4
    y, x = np.indices(SIZE) + 0.5
    near = np.minimum(np.hypot(y - 40, x - 10), np.hypot(y - 40, x - 30))
    assert (found[near < 1.95] == 2).all()
    assert not found[(near > 2) & (y > 30)].any()


def test_brush_of_pixels_that_are_not_square(tmp_path):
    like = dataclasses.replace(image(), scale=(1.0, 0.5), units=("micrometer",) * 2)
    path = drawn(tmp_path, feature({"type": "Point", "coordinates": [40, 30]}, "point"))
    rows, columns = np.nonzero(whole(open_annotations(path, like, Painting(8))))
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (8, 16)


def test_areas_keep_their_size_beside_lines(tmp_path):
    both = {"type": "GeometryCollection", "geometries": [LINE, box(60, 30, 70, 40)]}
    found = whole(open_annotations(drawn(tmp_path, feature(both, "a")), image(), Painting("2px")))
    assert np.count_nonzero(found[:, 50:]) == 100


def test_lines_need_a_width(tmp_path):
    path = drawn(tmp_path, feature(LINE, "a"), feature(box(0, 0, 9, 9), "a"))
    with pytest.raises(InputError, match="expected areas, got 1 lines or points: say with `brush`"):
        open_annotations(path, image())
    with pytest.raises(
        InputError, match="how large a pixel is: expected `brush` in pixels, such as 3px"
    ):
        open_annotations(path, image(), Painting("3"))
    with pytest.warns(FileWarning, match="left out 1 lines or points, since no `brush`"):
        mask = open_annotations(path, image(), mask=True)
    assert np.count_nonzero(whole(mask)) == 81


def test_calibration_points_need_none(tmp_path):
    """Points without a class, as for laser microdissection, are left out as such."""
    path = drawn(tmp_path, feature(POINTS), feature(box(0, 0, 9, 9), "a"))
    with pytest.warns(FileWarning, match="left out 1 without a class"):
        assert names(open_annotations(path, image())) == ["a"]


@pytest.mark.parametrize("brush", ["0", "-1", "x", "1 mm", "px", "nan", "1.2.3"])
def test_bad_brushes(brush):
    with pytest.raises(InputError, match="expected `brush` in micrometers"):
        Painting(brush)


# overlaps

SMALL, LARGE = box(10, 10, 20, 20), box(0, 0, 40, 40)


@pytest.mark.parametrize(
    ("overlaps", "order", "inside"),
    [
        ("smaller", (SMALL, LARGE), "small"),
        ("smaller", (LARGE, SMALL), "small"),
        ("later", (SMALL, LARGE), "large"),
        ("later", (LARGE, SMALL), "small"),
        ("large,small", (LARGE, SMALL), "large"),
        ("large, small", (SMALL, LARGE), "large"),
        ("large", (SMALL, LARGE), "large"),
        ("small", (SMALL, LARGE), "small"),
    ],
)
def test_overlaps(tmp_path, overlaps, order, inside):
    both = (feature(one, "small" if one is SMALL else "large") for one in order)
    labels = open_annotations(drawn(tmp_path, *both), image(), Painting(overlaps=overlaps))
    found = whole(labels)
    assert names(labels)[found[15, 15] - 1] == inside
    assert names(labels)[found[30, 30] - 1] == "large"


def test_equal_areas(tmp_path):
    path = drawn(tmp_path, feature(SMALL, "first"), feature(SMALL, "last"))
    labels = open_annotations(path, image())
    assert whole(labels)[15, 15] == 2


def test_ignored_classes(tmp_path):
    """QuPath's classes with * at the end: Ignore* clears what it covers, Region* only looks."""
    region = feature(box(0, 0, 60, 60), "Region*")
    path = drawn(tmp_path, feature(LARGE, "a"), feature(SMALL, "Ignore*"), region)
    with pytest.warns(FileWarning, match=r"left out 1 of Region\*; took 1 of a class ending in \*"):
        labels = open_annotations(path, image())
    assert names(labels) == ["a"]
    assert np.count_nonzero(whole(labels)) == 1600 - 100
    with pytest.warns(FileWarning, match="took 1 of a class ending"):
        mask = open_annotations(path, image(), mask=True)
    assert np.count_nonzero(whole(mask)) == 3600 - 100


# what gets a word


def test_words(tmp_path):
    bow = {"type": "Polygon", "coordinates": [[[0, 0], [20, 20], [20, 0], [0, 20], [0, 0]]]}
    path = drawn(
        tmp_path,
        feature(bow, "a"),
        feature(box(-20, 0, -1, 9), "a"),
        feature(box(70, 50, 99, 99), "a"),
        feature({"type": "Polygon", "coordinates": []}, "a"),
        feature({"type": "Polygon", "coordinates": [[[1, 1], [2, 2]]]}, "a"),
        feature(box(5, 5, 5, 9), "a"),
        feature(None, "a"),
        feature(box(30, 0, 40, 9)),
    )
    with pytest.warns(FileWarning) as caught:
        labels = open_annotations(path, image())
    (word,) = (str(one.message) for one in caught)
    assert word == (
        f"{path}: mended 1 that cross themselves; left out 1 without a class, "
        "4 without an area, 1 outside the image"
    )
    found = whole(labels)
    assert np.count_nonzero(found[50:, 70:]) == 100
    assert 150 < np.count_nonzero(found[:20, :20]) < 250


def test_masks_need_no_class(tmp_path):
    path = drawn(tmp_path, feature(SMALL), feature(box(30, 30, 40, 40), "a"))
    mask = open_annotations(path, image(), mask=True)
    found = whole(mask)
    assert np.unique(found).tolist() == [0, 1]
    assert np.count_nonzero(found) == 200


# as images


def test_sent_to_workers(tmp_path):
    labels = open_annotations(drawn(tmp_path, feature(SMALL, "a")), image())
    there = pickle.loads(pickle.dumps(labels))
    assert (there, hash(there.reader)) == (labels, hash(labels.reader))
    np.testing.assert_array_equal(whole(there), whole(labels))


def test_fingerprints(tmp_path):
    """They change with the file, and with all that pixels depend on."""
    path = drawn(tmp_path, feature(SMALL, "small"), feature(LARGE, "large"))

    def printed(**more):
        return open_annotations(path, image(), **more).fingerprint()

    found = [
        printed(),
        printed(painting=Painting("2px")),
        printed(painting=Painting(None, "later")),
    ]
    found.append(printed(mask=True))
    drawn(tmp_path, feature(SMALL, "small"), feature(LARGE, "other"))
    assert len({*found, printed()}) == 5
    assert printed() == printed()


def test_replaced_files_are_read_again(tmp_path):
    path = drawn(tmp_path, feature(SMALL, "a"))
    labels = open_annotations(path, image())
    assert np.count_nonzero(whole(labels)) == 100
    drawn(tmp_path, feature(LARGE, "a"))
    assert np.count_nonzero(whole(labels)) == 1600


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.geojson", True),
        ("a.GeoJSON.gz", True),
        ("RoiSet.zip", True),
        ("a.json", True),
        ("a.csv", True),
        ("a.roi", True),
        ("a.tif", False),
        ("a.tif.gz", False),
        ("https://host/a.geojson", False),
    ],
)
def test_names_of_files(name, expected):
    assert is_annotations(name) == expected


# classes of several images


def test_equal_values_for_equal_classes(tmp_path):
    first = open_annotations(drawn(tmp_path, feature(SMALL, "b"), feature(LARGE, "a")), image())
    path = write(tmp_path / "b.geojson", collection(feature(SMALL, "c"), feature(LARGE, "b")))
    second = open_annotations(path, image())
    both = numbering.numbered([first, second])
    assert [names(one) for one in both] == [["b", "a", "c"]] * 2
    assert [sorted(np.unique(whole(one))) for one in both] == [[0, 1, 2], [0, 1, 3]]
    learned = {"c": 7, "b": 2, "x": 3}
    assert sorted(np.unique(whole(numbering.numbered_as(second, learned)))) == [0, 2, 7]
    with pytest.warns(FileWarning, match="left out the annotations of a, which no label"):
        assert sorted(np.unique(whole(numbering.numbered_as(first, learned)))) == [0, 2]
    with pytest.raises(InputError, match="of the classes x, got b, a"):
        numbering.numbered_as(first, {"x": 3})
    with pytest.raises(InputError, match="expected annotations as for the other images"):
        numbering.numbered([first, images.from_array(np.zeros(SIZE, int))])


def test_legend(tmp_path):
    path = drawn(tmp_path, feature(SMALL, {"name": "b", "color": [9, 0, 0]}), feature(LARGE, "a"))
    labels = [open_annotations(path, image())]
    found = numbering.legend(labels, {0, 1, 2}, {"b": "x"}, None)
    assert found == ({"1": "x", "2": "a"}, 0, {1: "090000", 2: ""})
    with pytest.raises(InputError, match=r"`names` for the annotations' classes \(b, a\), got c"):
        numbering.legend(labels, {0, 1}, {"c": "x"}, None)
    with pytest.raises(InputError, match="`ignore` is for label images"):
        numbering.legend(labels, {0, 1}, None, 255)
    with pytest.raises(InputError, match="`no_ignore` is for label images"):
        numbering.legend(labels, {0, 1}, None, ())


def test_misspelled_overlaps(tmp_path):
    path = drawn(tmp_path, feature(SMALL, "small"), feature(LARGE, "large"))
    labels = open_annotations(path, image(), Painting(overlaps="large,smal"))
    with pytest.raises(InputError, match=r"for `overlaps` \(small, large\), .* got smal$"):
        numbering.numbered([labels])
    with pytest.raises(InputError, match="classes for `overlaps`, got ','"):
        Painting(overlaps=",")
