"""What each tool writes: classes, colors, places, and pixels."""

import contextlib
import csv
import gzip
import json
import zipfile

import numpy as np
import pytest
import roifile
from drawings import SIZE, box, collection, feature, image, ring, whole, write
from pycocotools import mask as coco_mask

from tiledlaf.annotations import numbering
from tiledlaf.annotations.formats.coco import decoded
from tiledlaf.annotations.opening import Painting, open_annotations
from tiledlaf.errors import InputError, TiledlafError
from tiledlaf.files import images
from tiledlaf.files.image import FileWarning

RNG = np.random.default_rng(5)


def names(labels):
    return [one.name for one in numbering.names_of(labels)]


def colors(labels):
    return [one.color for one in numbering.names_of(labels)]


def filled(*parts, size=SIZE):
    """The label image that has values in boxes (value, x0, y0, x1, y1)."""
    found = np.zeros(size, int)
    for value, x0, y0, x1, y1 in parts:
        found[y0:y1, x0:x1] = value
    return found


TWO = collection(feature(box(2, 3, 20, 30), "Tumor"), feature(box(40, 10, 60, 50), "Stroma"))
TWO_FILLED = filled((1, 2, 3, 20, 30), (2, 40, 10, 60, 50))


# GeoJSON


@pytest.mark.parametrize("form", ["collection", "list", "nested", "gz", "zip", "bom", "renamed"])
def test_geojson_as_files(tmp_path, form):
    text = json.dumps(
        {"list": TWO["features"], "nested": [TWO]}.get(form, TWO),
        indent=1,
    )
    path = tmp_path / {"gz": "a.geojson.gz", "zip": "a.geojson.zip", "renamed": "a.json"}.get(
        form, "a.geojson"
    )
    if form == "gz":
        path.write_bytes(gzip.compress(text.encode()))
    elif form == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("__MACOSX/._a.geojson", b"\0")
            archive.writestr("slide/a.geojson", text)
    else:
        path.write_text(text, "utf-8-sig" if form == "bom" else "utf-8")
    labels = open_annotations(path, image())
    assert names(labels) == ["Tumor", "Stroma"]
    np.testing.assert_array_equal(whole(labels), TWO_FILLED)


def test_single_feature(tmp_path):
    path = write(tmp_path / "a.geojson", TWO["features"][0])
    assert names(open_annotations(path, image())) == ["Tumor"]


@pytest.mark.parametrize(
    ("written", "name", "color"),
    [
        ({"name": "Tumor", "color": [200, 0, 16]}, "Tumor", "c80010"),
        ({"name": "Tumor", "colorRGB": -3670016}, "Tumor", "c80000"),
        ({"name": "Tumor", "colorRGB": 16711680}, "Tumor", "ff0000"),
        ({"name": "Tumor: Positive", "colorRGB": -1}, "Tumor: Positive", "ffffff"),
        ({"names": ["Tumor", "Positive"], "color": [1, 2, 3]}, "Tumor: Positive", "010203"),
        ({"name": "Übergang"}, "Übergang", ""),
        ({"name": "Tumor", "color": "red"}, "Tumor", ""),
        ("Tumor", "Tumor", ""),
    ],
)
def test_classes_of_qupath(tmp_path, written, name, color):
    one = feature(box(0, 0, 9, 9))
    one["properties"]["classification"] = written
    labels = open_annotations(write(tmp_path / "a.geojson", collection(one)), image())
    assert (names(labels), colors(labels)) == ([name], [color])


def test_geometries_of_qupath(tmp_path):
    """Holes, several polygons in one, and collections."""
    several = {
        "type": "MultiPolygon",
        "coordinates": [
            box(0, 0, 5, 5)["coordinates"],
            box(10, 0, 30, 20, (12, 2, 20, 9))["coordinates"],
        ],
    }
    mixed = {"type": "GeometryCollection", "geometries": [box(40, 0, 50, 5), box(50, 5, 60, 9)]}
    path = write(tmp_path / "a.geojson", collection(feature(several, "a"), feature(mixed, "b")))
    expected = filled((1, 0, 0, 5, 5), (1, 10, 0, 30, 20), (0, 12, 2, 20, 9))
    expected += filled((2, 40, 0, 50, 5), (2, 50, 5, 60, 9))
    np.testing.assert_array_equal(whole(open_annotations(path, image())), expected)


KINDS = [
    ({"objectType": "detection"}, None),
    ({"object_type": "detection"}, None),
    ({}, "PathDetectionObject"),
    ({}, "PathCellObject"),
    ({"objectType": "tile"}, None),
    ({"objectType": "tma_core"}, None),
    ({}, "PathTMACoreObject"),
    ({}, "PathRootObject"),
]


@pytest.mark.parametrize(("properties", "number"), KINDS)
def test_other_objects_are_left_out(tmp_path, properties, number):
    other = feature(box(40, 0, 50, 9), "Other")
    del other["properties"]["objectType"]
    other["properties"] |= properties
    other["id"] = number
    old = feature(box(0, 0, 9, 9), "Tumor")
    del old["properties"]["objectType"]
    old["id"] = "PathAnnotationObject"
    path = write(tmp_path / "a.geojson", collection(other, old))
    with pytest.warns(FileWarning, match="left out 1 of the kind"):
        labels = open_annotations(path, image())
    assert names(labels) == ["Tumor"]
    assert np.count_nonzero(whole(labels)) == 81


def test_cells_where_no_annotation_has_a_class(tmp_path):
    cell = feature(box(0, 0, 9, 9), "Immune", objectType="cell")
    cell["nucleusGeometry"] = box(3, 3, 5, 5)
    path = write(tmp_path / "a.geojson", collection(feature(box(0, 0, 50, 50)), cell))
    with pytest.warns(FileWarning, match="took detections and cells.* 1 annotations"):
        labels = open_annotations(path, image())
    np.testing.assert_array_equal(whole(labels), filled((1, 0, 0, 9, 9)))


# COCO


def coco(annotations, images=({"id": 7, "file_name": "array.png", "height": 60, "width": 80},)):
    return {
        "info": {},
        "images": list(images),
        "categories": [{"id": 3, "name": "cell"}, {"id": 1, "name": "debris"}],
        "annotations": [
            {"id": n, "image_id": 7, "category_id": 3, "iscrowd": 0, **one}
            for n, one in enumerate(annotations)
        ],
    }


def test_coco_polygons(tmp_path):
    flat = [v for p in ring(2, 3, 20, 30)[:-1] for v in p]
    other = [v for p in ring(30, 3, 40, 30) for v in p]
    path = write(
        tmp_path / "a.json",
        coco(
            [
                {"segmentation": [flat, other]},
                {"segmentation": [], "bbox": [50, 5, 10, 4], "category_id": 1},
            ]
        ),
    )
    labels = open_annotations(path, image())
    assert names(labels) == ["cell", "debris"]
    expected = filled((1, 2, 3, 20, 30), (1, 30, 3, 40, 30), (2, 50, 5, 60, 9))
    np.testing.assert_array_equal(whole(labels), expected)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("share", [0.02, 0.5, 1.0])
def test_coco_run_lengths(tmp_path, packed, share):
    """As pycocotools writes them, pixel for pixel."""
    pixels = np.asfortranarray(RNG.random(SIZE) < share, np.uint8)
    runs = coco_mask.encode(pixels)
    runs["counts"] = runs["counts"].decode()
    if not packed:
        runs["counts"] = decoded(runs["counts"])
        assert sum(runs["counts"][1::2]) == pixels.sum()
    path = write(tmp_path / "a.json", coco([{"segmentation": runs, "iscrowd": 1}]))
    np.testing.assert_array_equal(whole(open_annotations(path, image())), pixels)


def test_coco_chooses_the_image(tmp_path):
    other = {"id": 8, "file_name": "sub/other.tif", "height": 60, "width": 80}
    given = coco(
        [
            {"segmentation": [[0, 0, 9, 0, 9, 9, 0, 9]]},
            {"segmentation": [[20, 0, 29, 0, 29, 9, 20, 9]], "image_id": 8},
        ],
        (other, {"id": 7, "file_name": "C:\\data\\array.png", "height": 60, "width": 80}),
    )
    path = tmp_path / "job.zip"
    with zipfile.ZipFile(path, "w") as archive:  # as CVAT exports it
        archive.writestr("annotations/instances_default.json", json.dumps(given))
    np.testing.assert_array_equal(whole(open_annotations(path, image())), filled((1, 0, 0, 9, 9)))


# ImageJ


def roi(points, name, **more):
    found = roifile.ImagejRoi.frompoints(np.array(points), name=name)
    for key, value in more.items():
        setattr(found, key, value)
    return found


def test_imagej(tmp_path):
    """A set of ROIs: their names without numbers are classes; subpixel and whole coordinates."""
    path = tmp_path / "RoiSet.zip"
    rois = [
        roi(ring(2, 3, 20, 30)[:-1], "tumor-1", roitype=roifile.ROI_TYPE.POLYGON),
        roi(np.array(ring(30.25, 3, 40, 30)[:-1], np.float32), "tumor-2"),
        roifile.ImagejRoi(
            roitype=roifile.ROI_TYPE.RECT, left=50, top=5, right=60, bottom=9, name="CD3"
        ),
    ]
    roifile.roiwrite(path, rois)
    labels = open_annotations(path, image())
    assert names(labels) == ["tumor", "CD3"]
    expected = filled((1, 2, 3, 20, 30), (1, 30, 3, 40, 30), (2, 50, 5, 60, 9))
    np.testing.assert_array_equal(whole(labels), expected)


def test_imagej_groups_and_ovals(tmp_path):
    path = tmp_path / "a.roi"
    oval = roifile.ImagejRoi(
        roitype=roifile.ROI_TYPE.OVAL, left=10, top=20, right=30, bottom=40, name="x", group=3
    )
    oval.tofile(path)
    labels = open_annotations(path, image())
    assert names(labels) == ["group 3"]
    y, x = np.indices(SIZE) + 0.5
    inside = (x - 20) ** 2 + (y - 30) ** 2
    found = whole(labels)
    assert found[inside < 98].all()
    assert not found[inside > 100].any()


def test_imagej_rings_and_points(tmp_path):
    """A composite has a hole; points and lines are as wide as the brush."""
    path = tmp_path / "RoiSet.zip"
    moves = []
    for part in (ring(0, 0, 20, 20), ring(5, 5, 15, 15)):
        moves += [v for i, p in enumerate(part[:-1]) for v in (int(i > 0), *p)] + [4]
    both = roifile.ImagejRoi(
        roitype=roifile.ROI_TYPE.RECT,
        left=0,
        top=0,
        right=20,
        bottom=20,
        name="ring",
        multi_coordinates=np.array(moves, np.float32),
        shape_roi_size=len(moves),
    )
    dots = roi([[40, 30], [50, 30]], "dot", roitype=roifile.ROI_TYPE.POINT)
    roifile.roiwrite(path, [both, dots])
    with pytest.raises(InputError, match="1 lines or points: say with `brush`"):
        open_annotations(path, image())
    labels = open_annotations(path, image(), Painting("3px"))
    expected = filled((1, 0, 0, 20, 20), (0, 5, 5, 15, 15))
    for x in (40, 50):  # 3 pixels across, around the middle of the pixel
        expected[29:32, x] = expected[30, x - 1 : x + 2] = 2
        expected[29:32, x - 1 : x + 2] = 2
    np.testing.assert_array_equal(whole(labels), expected)


def test_imagej_names_that_say_nothing(tmp_path):
    roi(ring(2, 3, 20, 30)[:-1], "0003-0234-0567").tofile(tmp_path / "a.roi")
    with pytest.raises(InputError, match="with a class of this image, left out 1 without a class"):
        open_annotations(tmp_path / "a.roi", image())
    mask = open_annotations(tmp_path / "a.roi", image(), mask=True)
    np.testing.assert_array_equal(whole(mask), filled((1, 2, 3, 20, 30)))


# napari


def napari(path, rows, columns):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
    return path


COLUMNS = ["index", "shape-type", "vertex-index", "axis-0", "axis-1"]


def corners(index, kind, y0, x0, y1, x1):
    points = [(y0, x0), (y0, x1), (y1, x1), (y1, x0)]
    return [[index, kind, i, *map(float, p)] for i, p in enumerate(points)]


def test_napari(tmp_path):
    """Coordinates are middles of pixels: the shape from 1.5 to 4.5 covers pixels 2, 3 and 4."""
    rows = corners(0, "rectangle", 1.5, 4.5, 4.5, 9.5) + corners(1, "polygon", 20, 20, 25, 25)
    path = napari(tmp_path / "nuclei.csv", rows, COLUMNS)
    labels = open_annotations(path, image())
    assert names(labels) == ["nuclei"]
    # from 20 to 25, the middles of 20 on the left and top edge count, those of 25 do not
    expected = filled((1, 5, 2, 10, 5), (1, 20, 20, 25, 25))
    np.testing.assert_array_equal(whole(labels), expected)


def test_napari_ellipse_path_and_classes(tmp_path):
    rows = [[*r, "round"] for r in corners(0, "ellipse", 9.5, 9.5, 29.5, 49.5)]
    rows += [[1, "path", i, 40.0, x, "thin"] for i, x in enumerate((10.0, 30.0))]
    path = napari(tmp_path / "a.csv", rows, [*COLUMNS, "class"])
    labels = open_annotations(path, image(), Painting("1px"))
    assert names(labels) == ["round", "thin"]
    found, (y, x) = whole(labels), np.indices(SIZE)
    inside = ((x - 29.5) / 20) ** 2 + ((y - 19.5) / 10) ** 2
    assert (found[inside < 0.98] == 1).all()
    assert not found[(inside > 1.0) & (y < 35)].any()
    assert (found[40, 10:31] == 2).all()
    assert np.count_nonzero(found == 2) == 21


def test_napari_planes_and_points(tmp_path):
    stack = images.from_array(np.zeros((4, *SIZE), np.uint8), "zyx")
    rows = [[0, *row[1:3], 2.0, *row[3:]] for row in corners(0, "polygon", 1.5, 4.5, 4.5, 9.5)]
    path = napari(tmp_path / "a.csv", rows, [*COLUMNS[:3], "axis-0", "axis-1", "axis-2"])
    found = whole(open_annotations(path, stack))
    assert np.flatnonzero(found.any(axis=(1, 2))).tolist() == [2]
    np.testing.assert_array_equal(found[2], filled((1, 5, 2, 10, 5)))
    dots = napari(tmp_path / "d.csv", [[0, 5.0, 6.0], [1, 9.0, 3.0]], ["index", "axis-0", "axis-1"])
    found = whole(open_annotations(dots, image(), Painting("1px")))
    assert np.argwhere(found).tolist() == [[5, 6], [9, 3]]


# what is refused

OTHER = {"id": 7, "file_name": "array.png", "height": 61, "width": 80}
BAD = [
    ("a.geojson", "{", "expected GeoJSON or COCO JSON"),
    ("a.geojson", '{"shapes": []}', "expected GeoJSON .* got an object with shapes"),
    ("a.geojson", '{"0": "membrane"}', "expected GeoJSON"),
    ("a.geojson", "[]", "expected annotations with a class of this image, got none"),
    (
        "a.geojson",
        collection(feature({"type": "Circle"}, "a")),
        "1: expected a geometry .*'Circle'",
    ),
    ("a.geojson", collection(feature({"type": "Polygon"}, "a")), "coordinates of a Polygon"),
    ("a.geojson", collection(feature(box(0, 0, float("nan"), 9), "a")), "count pixels, got nan"),
    ("a.geojson", collection(feature(box(0, 0, 1e30, 9), "a")), "count pixels, got 1e.30"),
    ("a.geojson", collection(feature(box(0, 0, "x", 9), "a")), "rows of x and y"),
    ("a.geojson", collection(feature(box(90, 0, 99, 9), "a")), "left out 1 outside the image"),
    ("a.geojson", collection(feature(box(0, 0, 9, 9))), "left out 1 without a class"),
    ("a.geojson", collection(feature(box(0, 0, 0, 9), "a")), "left out 1 without an area"),
    ("a.geojson", collection(feature(box(0, 0, 9, 9), 5)), "expected a classification, got 5"),
    ("a.geojson", collection(feature({**box(0, 0, 9, 9), "plane": {"z": "top"}}, "a")), "plane"),
    ("a.geojson.gz", "no gzip", "expected GeoJSON"),
    ("a.zip", "PK", "cannot be unpacked"),
    ("a.roi", "nothing", "expected a ROI of ImageJ"),
    ("a.csv", "x,y\n1,2\n", "expected the columns index, shape-type"),
    ("a.csv", "index,shape-type,axis-0,axis-1\n0,star,1,2\n", "expected a polygon.* got 'star'"),
    ("a.csv", "index,shape-type,axis-0,axis-1\n0,line,1,\n", "expected numbers as positions"),
    ("a.csv", "", "got no rows"),
    ("a.json", coco([], [OTHER | {"file_name": "b.png"}]), "name array .* got b.png"),
    ("a.json", coco([], [OTHER]), "60 x 80 pixels, got those of array.png with 61 x 80"),
    ("a.json", coco([{"category_id": 9, "segmentation": [[0, 0, 1, 1]]}]), "KeyError 9"),
    ("a.json", coco([{"segmentation": [[0, 0, 1]]}]), "of a polygon, got 3 numbers"),
    ("a.json", coco([{"segmentation": {"size": [60, 80], "counts": [1, 2]}}]), "run lengths of 60"),
    ("a.json", coco([{"segmentation": {"size": [60, 80], "counts": "~~"}}]), "run lengths"),
    (
        "a.json",
        coco([{"segmentation": {"size": "x", "counts": "~~"}}]),
        "COCO JSON .* got Value",
    ),
    ("a.json", coco([{"segmentation": [], "bbox": [1, 2, 3]}]), "COCO JSON with .* got ValueError"),
    ("a.json", "9" * 5000, "expected GeoJSON or COCO JSON, a number of 5000 digits"),
    ("a.json", "[" * 100_000, "expected GeoJSON or COCO JSON"),
    ("a.geojson", '{"type": {}}', "expected GeoJSON"),
    ("a.geojson", collection(feature({"type": ["Polygon"]}, "a")), "expected a geometry"),
    ("a.geojson", collection(feature(box(0, 0, 10**400, 9), "a")), "a number of 401 digits"),
    ("a.geojson", collection(feature({"type": "MultiPolygon", "coordinates": [1]}, "a")), "rings"),
    (
        "a.geojson",
        collection(feature({**box(0, 0, 9, 9), "plane": {"z": float("inf")}}, "a")),
        "a plane such as z 0, got z inf",
    ),
    (
        "a.geojson",
        collection(feature({**box(0, 0, 9, 9), "plane": {"t": [0] * 99}}, "a")),
        r"a plane such as z 0, got t \[0.*\.\.\.",
    ),
    (
        "a.geojson",
        '{"type":"GeometryCollection","geometries":[' * 400 + "]}" * 400,
        "lists within lists",
    ),
    ("a.csv", "index," + "x" * 200_000, "expected shapes of napari, got Error field larger"),
]


@pytest.mark.parametrize(("name", "content", "words"), BAD)
def test_refusals(tmp_path, name, content, words):
    path = write(tmp_path / name, content)
    with pytest.raises(TiledlafError, match=words) as error:
        open_annotations(path, image())
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300 + len(str(path))


def test_damaged_archives_and_rois(tmp_path):
    """Whatever byte is wrong, one line says so, and nothing else is printed or raised."""
    roifile.roiwrite(tmp_path / "a.zip", [roi([[1, 1], [30, 1], [30, 30]], f"a-{i}") for i in "12"])
    rng = np.random.default_rng(0)
    for name, whole_file in {
        "b.zip": (tmp_path / "a.zip").read_bytes(),
        "b.roi": roi([[1, 1], [30, 1], [30, 30]], "a-1").tobytes(),
    }.items():
        for _ in range(200):
            data = bytearray(whole_file)
            data[rng.integers(len(data))] = rng.integers(256)
            (tmp_path / name).write_bytes(data[: rng.integers(len(data) // 2, len(data) + 20)])
            with contextlib.suppress(TiledlafError):
                open_annotations(tmp_path / name, image())


def test_a_roi_with_half_a_name(tmp_path):
    """roifile logs it, and would leave the name out."""
    data = bytearray(roi([[1, 1], [30, 1], [30, 30]], "a-1").tobytes())
    header = int.from_bytes(data[60:64], "big")
    data[header + 20 : header + 24] = (1000).to_bytes(4, "big")  # how long the name is
    (tmp_path / "a.roi").write_bytes(data)
    with pytest.raises(TiledlafError, match=r"expected a ROI of ImageJ, got .* name exceeds"):
        open_annotations(tmp_path / "a.roi", image())
