"""Commands that learn from annotations, compare with them, or label only within them."""

import json
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import tifffile
from command import run
from drawings import box, collection, feature, whole, write

from tiledlaf.annotations.opening import open_annotations
from tiledlaf.errors import InputError
from tiledlaf.files import images
from tiledlaf.files.image import FileWarning
from tiledlaf.model import model as model_file
from tiledlaf.training import examples

SMALL = ("--size", "4", "--steps", "2", "--workers", "1", "--flow", "learned")
RNG = np.random.default_rng(2)


def slide(path, edge=96, cells=4, **options):
    """Squares of two gray levels, like a chessboard."""
    y, x = np.indices((edge, edge)) * cells // edge
    pixels = 60 + 120 * ((y + x) % 2) + RNG.normal(0, 9, (edge, edge))
    tifffile.imwrite(path, pixels.astype(np.uint8), **options)
    return path


def annotated(edge=96, cells=4, names=("dark", "light"), margin=3):
    """An annotation in each square."""
    size = edge // cells
    return collection(
        *(
            feature(
                box(x + margin, y + margin, x + size - margin, y + size - margin),
                {"name": names[(x + y) // size % 2], "color": [(x + y) // size % 2, 2, 3]},
            )
            for y in range(0, edge, size)
            for x in range(0, edge, size)
        )
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A slide, its annotations, and a model of them."""
    path = tmp_path_factory.mktemp("slide")
    slide(path / "slide.tif")
    write(path / "slide.geojson", annotated())
    given = ("--images", path / "slide.tif", "--labels", path / "slide.geojson")
    found = run("train", path / "model", *given, *SMALL)
    assert found.code == 0, found
    assert "1 dark: label values 1" in found.out
    return path


def test_model_has_names_and_colors(folder):
    model = model_file.load(folder / "model")
    assert model.names == ["dark", "light"]
    assert [one.color for one in model.classes] == [(0, 2, 3, 255), (1, 2, 3, 255)]
    found = run("info", folder / "model")
    assert "learned from: 1 channel, uint8 of " in found.out


def test_export_has_the_colors_of_the_annotations(folder, tmp_path):
    given = ("label", folder / "slide.tif", tmp_path / "out.zarr", "--model", folder / "model")
    assert run(*given, "--export", tmp_path / "out.png").code == 0
    with PIL.Image.open(tmp_path / "out.png") as picture:
        assert picture.getpalette("RGB")[:9] == [0, 0, 0, 0, 2, 3, 1, 2, 3]


def test_same_as_label_images(folder, tmp_path):
    """What the annotations are as a label image gives the same model, but for its names."""
    image = images.open_image(folder / "slide.tif")
    labels = whole(open_annotations(folder / "slide.geojson", image))
    tifffile.imwrite(tmp_path / "labels.tif", labels)
    given = ("--images", folder / "slide.tif", "--labels", tmp_path / "labels.tif", "--ignore", 0)
    assert run("train", tmp_path / "model", *given, *SMALL).code == 0
    there, here = (model_file.load(f / "model") for f in (folder, tmp_path))
    np.testing.assert_array_equal(there.term.values, here.term.values)
    np.testing.assert_allclose(there.bias, here.bias, atol=1e-6)


def test_evaluate_and_explain(folder, tmp_path):
    """Classes are found by name, in whatever order the file has them."""
    out = tmp_path / "out.zarr"
    assert run("label", folder / "slide.tif", out, "--model", folder / "model").code == 0
    given = annotated()
    given["features"].reverse()
    given["features"][0]["properties"]["classification"]["name"] = "light"
    path = write(tmp_path / "truth.geojson", given)
    found = run("evaluate", out, path, "--json", tmp_path / "found.json")
    assert found.code == 0, found
    numbers = json.loads((tmp_path / "found.json").read_text())
    assert numbers["pixel_error"] == pytest.approx(1 / 16, abs=0.01)  # of the one that is misnamed
    picture = run("evaluate", out, path, "--picture", tmp_path / "errors.png")
    assert picture.code == 0, picture
    pages = ("explain", folder / "model", folder / "slide.tif", "-o", tmp_path / "pages")
    found = run(*pages, "--truth", path)
    assert found.code == 0, found


@pytest.mark.parametrize(
    "options",
    [
        ("--region", "24:96,10:80"),
        ("--level", "1"),
        ("--input-pixel-size", "1", "--pixel-size", "1.5"),
    ],
)
def test_evaluate_places_the_truth(folder, tmp_path, options):
    """Annotations, and label images of the image's size, belong to the image that was labeled."""
    path, out = tmp_path / "slide.tif", tmp_path / "out.zarr"
    with tifffile.TiffWriter(path) as file:
        pixels = tifffile.imread(folder / "slide.tif")
        file.write(pixels, subifds=1)
        file.write(pixels.reshape(48, 2, 48, 2).mean((1, 3)).astype(np.uint8), subfiletype=1)
    assert run("label", path, out, "--model", folder / "model", *options).code == 0
    truth = open_annotations(folder / "slide.geojson", images.open_image(folder / "slide.tif"))
    tifffile.imwrite(tmp_path / "truth.tif", whole(truth))
    coco = {
        "images": [{"id": n, "file_name": f"{n}.png", "height": 96, "width": 96} for n in range(2)],
        "categories": [{"id": 1, "name": "dark"}],
        "annotations": [{"image_id": 2, "category_id": 1, "bbox": [51, 51, 18, 18]}],
    }
    coco["images"].append({"id": 2, "file_name": "slide.jpg", "height": 96, "width": 96})
    for drawn in (
        folder / "slide.geojson",
        tmp_path / "truth.tif",
        write(tmp_path / "coco.json", coco),
    ):
        found = run("evaluate", out, drawn, "--json", tmp_path / "found.json", "--ignore", 0)
        assert found.code == 0, found
        numbers = json.loads((tmp_path / "found.json").read_text())
        assert numbers["pixel_error"] < 0.02, (drawn, found.out)
    found = run("evaluate", out, tmp_path / "truth.tif", "--picture", tmp_path / "errors.png")
    assert found.code == 0, found


def test_mask(folder, tmp_path):
    """Labels within annotations only, whatever their class."""
    path = write(tmp_path / "roi.geojson", collection(feature(box(10, 20, 50, 60))))
    out = tmp_path / "out.zarr"
    given = ("label", folder / "slide.tif", out, "--model", folder / "model", "--mask", path)
    assert run(*given).code == 0
    labels = whole(images.open_labels(out / "labels" / "tiledlaf"))
    assert labels[20:60, 10:50].all()
    assert np.count_nonzero(labels) == 1600
    write(path, collection(feature(box(10, 20, 50, 61))))
    again = run(*given)
    assert again.code == 2  # the output belongs to another mask
    assert "mask" in again.err


@pytest.mark.parametrize("pool", ["threads", "processes"])
def test_names_warnings_and_pools(folder, tmp_path, pool):
    """New names merge classes; a word on what is left out; processes read annotations too."""
    given = annotated()
    given["features"] += [
        feature(box(0, 0, 3, 3)),
        feature(box(4, 4, 9, 9), "Dark: other"),
    ]
    path = write(tmp_path / "a.geojson", given)
    names = write(tmp_path / "names.json", {"Dark: other": "gray", "dark": "gray"})
    command = ("train", tmp_path / "model", "--images", folder / "slide.tif", "--labels", path)
    found = run(*command, "--names", names, "--scheduler", pool, *SMALL)
    assert found.code == 0, found
    assert f"tiledlaf: warning: {path}: left out 1 without a class\n" in found.err
    assert "1 gray: label values 1, 3" in found.out


def test_one_coco_file_of_several_images(tmp_path):
    rows = []
    for number in range(2):
        slide(tmp_path / f"{number}.tif")
        for i, one in enumerate(annotated()["features"]):
            ring = one["geometry"]["coordinates"][0]
            row = {"image_id": number, "category_id": i % 2, "id": len(rows)}
            rows.append(row | {"segmentation": [[v for p in ring for v in p]]})
    given = {
        "images": [{"id": n, "file_name": f"{n}.tif", "width": 96, "height": 96} for n in range(2)],
        "categories": [{"id": 0, "name": "even"}, {"id": 1, "name": "odd"}],
        "annotations": rows[:-1],
    }
    path = write(tmp_path / "instances.json", given)
    found = examples.pair([tmp_path / "0.tif", tmp_path / "1.tif"], path)
    first, second = (np.count_nonzero(whole(one.labels)) for one in found)
    assert first - second == 18 * 18


def test_folder_of_annotations(folder, tmp_path):
    for number in range(2):
        (tmp_path / f"{number}.geojson").write_bytes((folder / "slide.geojson").read_bytes())
    found = examples.pair([folder / "slide.tif"] * 2, tmp_path)
    assert [one.labels.path for one in found] == [str(tmp_path / f"{n}.geojson") for n in range(2)]


REFUSED = [
    ("--labels", "missing.geojson", "missing.geojson: expected images, found none"),
    ("--labels", "one.geojson", "labels of two or more classes, got only dark"),
    ("--names", "names.json", "expected --names for the annotations' classes (dark, light), got x"),
    ("--ignore", "255", "--ignore is for label images"),
    ("--overlaps", "darc", "expected classes of the annotations for --overlaps (dark, light)"),
    ("--brush", "wide", "expected --brush in micrometers such as 10, or in pixels"),
    ("--validation-labels", "slide.tif", "slide.tif: expected annotations as for the other images"),
]


@pytest.mark.parametrize(("option", "value", "words"), REFUSED)
def test_refusals(folder, tmp_path, monkeypatch, option, value, words):
    monkeypatch.chdir(tmp_path)
    slide("slide.tif")
    write(tmp_path / "a.geojson", annotated())
    write(tmp_path / "one.geojson", annotated(names=("dark", "dark")))
    write(tmp_path / "names.json", {"x": "y"})
    given = {"--images": "slide.tif", "--labels": "a.geojson", option: value}
    if option == "--validation-labels":
        given["--validation-images"] = "slide.tif"
    found = run("train", "model", *(one for pair in given.items() for one in pair), *SMALL)
    assert (found.code, found.out) == (2, ""), found
    assert words in found.err
    assert "Traceback" not in found.err
    assert not (tmp_path / "model").exists()


class Watched:
    """What is read of the image while a training runs."""

    def __init__(self, monkeypatch):
        self.windows = []
        read = images.Image.read

        def watched(image, window, channels=None):
            if image.path.endswith(".tif"):
                self.windows.append(window)
            return read(image, window, channels)

        monkeypatch.setattr(images.Image, "read", watched)


def test_only_near_annotations(tmp_path, monkeypatch):
    """Of a slide with few annotations, no other pixel is read, and these once a pass."""
    slide(tmp_path / "slide.tif", 2048, 8, tile=(256, 256))
    spots = [(100, 1900, "a"), (1000, 300, "b"), (400, 1000, "a"), (1800, 1700, "b")]
    spots += [(1500, 200, "a"), (700, 1500, "b"), (1950, 60, "a"), (1990, 90, "b")]
    squares = [feature(box(x, y, x + 30, y + 30), name) for x, y, name in spots]
    path = write(tmp_path / "a.geojson", collection(*squares))
    watched = Watched(monkeypatch)
    given = ("--images", tmp_path / "slide.tif", "--labels", path)
    found = run("train", tmp_path / "model", *given, *SMALL)
    assert found.code == 0, found
    near = np.zeros((2048, 2048), bool)
    for x, y, _ in spots:
        near[max(0, y - 40) : y + 70, max(0, x - 40) : x + 70] = True
    assert watched.windows
    for rows, columns in watched.windows:
        pixels = (rows.stop - rows.start) * (columns.stop - columns.start)
        assert near[rows, columns].sum() > 0.5 * pixels
        assert pixels <= 130 * 130


@pytest.mark.slow
def test_memory_of_a_large_slide(tmp_path):
    """Memory grows with the annotations, a hundredth of the slide, not with the slide."""
    edge = 20480

    def tiles():
        for y in range(0, edge, 512):
            for x in range(0, edge, 512):
                gray = 60 + 120 * ((y + x) // 2560 % 2)
                yield RNG.integers(gray - 30, gray + 30, (512, 512, 3)).astype(np.uint8)

    path = tmp_path / "slide.tif"
    options = {"tile": (512, 512), "photometric": "rgb", "compression": "deflate"}
    tifffile.imwrite(path, tiles(), shape=(edge, edge, 3), dtype=np.uint8, **options)
    corners = [(x, y) for y in (400, 7000, 14000, 17000, 19000) for x in (3000, 13000)]
    squares = [feature(box(x, y, x + 640, y + 640), "ab"[(x + y) // 2560 % 2]) for x, y in corners]
    labels = write(tmp_path / "a.geojson", collection(*squares))
    program = "import sys, resource; from tiledlaf.cli import main\ntry: main()\nfinally: "
    program += "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    given = ("train", tmp_path / "model", "--images", path, "--labels", labels, "--steps", "3")
    found = subprocess.run(
        [sys.executable, "-c", program, *map(str, given), "--scheduler", "threads"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(found.stdout.split()[-1]) < 2 * 2**20


# ten annotations on one slide, and one that stands alone


@pytest.mark.parametrize("order", [1, -1])
def test_a_class_with_a_single_annotation(tmp_path, order):
    """Wherever it is in the slide, it is learned from, and others are set aside."""
    slide(tmp_path / "a.tif")
    rows = [(x, y) for y in range(0, 96, 24) for x in (0, 24)]
    drawn = [feature(box(x + 3, y + 3, x + 20, y + 20), ["dark", "light"][x > 0]) for x, y in rows]
    y = 82 if order > 0 else 3
    alone = feature(box(60, y, 70, y + 10), "alone")
    write(tmp_path / "a.geojson", collection(*drawn, alone))
    given = ("--images", tmp_path / "a.tif", "--labels", tmp_path / "a.geojson")
    found = run("train", tmp_path / "model", *given, *SMALL)
    assert found.code == 0, found
    assert "has labeled pixels of alone" in found.err
    assert [one.name for one in model_file.load(tmp_path / "model").classes] == [
        "dark",
        "light",
        "alone",
    ]


def test_annotations_in_one_place(tmp_path):
    """What one tile would hold is cut until parts of it can judge each other."""
    slide(tmp_path / "a.tif", edge=700, cells=20)
    drawn = [feature(box(x, 210, x + 35, 280), ["dark", "light"][x > 210]) for x in (210, 245)]
    write(tmp_path / "a.geojson", collection(*drawn))
    given = ("--images", tmp_path / "a.tif", "--labels", tmp_path / "a.geojson")
    found = run("train", tmp_path / "model", *given, *SMALL, "--classifier")
    assert found.code == 0, found


# the same options wherever annotations are taken

STROKE = feature({"type": "LineString", "coordinates": [[10, 10], [80, 40]]}, "dark")


def test_strokes_everywhere(folder, tmp_path):
    """A width can be given to a mask, a truth that is compared, and one that is explained."""
    path = write(tmp_path / "stroke.geojson", collection(STROKE))
    out, image = tmp_path / "out.zarr", folder / "slide.tif"
    label = ("label", image, out, "--model", folder / "model")
    explain = ("explain", folder / "model", image, "-o", tmp_path / "pages", "--truth", path)
    refused = run(*label, "--mask", path)
    assert (refused.code, out.exists()) == (2, False)
    assert "left out 1 lines or points, since no --brush says how wide" in refused.err
    assert run(*label).code == 0
    for command in (("evaluate", out, path), explain):
        found = run(*command)
        assert found.code == 2
        assert "say with --brush how wide they are" in found.err
        found = run(*command, "--brush", "4px", "--overlaps", "later")
        assert found.code == 0, found
    again = run(*label, "--name", "stroke", "--mask", path, "--brush", "4px")
    assert again.code == 0, again
    labels = whole(images.open_labels(out / "labels" / "stroke"))
    assert 250 < np.count_nonzero(labels) < 400


def test_a_width_of_nothing(folder, tmp_path):
    image, out = folder / "slide.tif", tmp_path / "out.zarr"
    for command in (
        ("label", image, out, "--model", folder / "model"),
        ("evaluate", image, image),
        ("explain", folder / "model", image, "-o", tmp_path / "pages"),
        ("train", tmp_path / "model", "--images", image, "--labels", image),
    ):
        found = run(*command, "--brush", "5px")
        assert (found.code, found.out) == (2, "")
        assert "--brush: expected annotations, got none among labels and masks" in found.err
    found = run("explain", folder / "model", "-o", tmp_path / "pages", "--level", "0")
    assert "--level without an image" in found.err
    assert [path.name for path in tmp_path.iterdir()] == []


def test_tissue_is_found_by_label_alone(folder, tmp_path):
    image, labels = folder / "slide.tif", folder / "slide.geojson"
    for command in (
        ("train", tmp_path / "model", "--images", image, "--labels", labels),
        ("estimate", image, labels, tmp_path / "weights.zarr"),
        ("explain", folder / "model", image, "-o", tmp_path / "pages"),
    ):
        found = run(*command, "--mask", "tissue")
        assert (found.code, found.out) == (2, "")
        assert "got the word tissue: only label finds tissue" in found.err


def test_classes_of_label_value_0(tmp_path):
    """Annotations of a class that was learned from the value 0, which is no label there."""
    slide(tmp_path / "a.tif")
    y, x = np.indices((96, 96)) * 4 // 96
    tifffile.imwrite(tmp_path / "labels.tif", ((y + x) % 2).astype(np.uint8))
    names = write(tmp_path / "names.json", {"0": "dark", "1": "light"})
    given = ("--images", tmp_path / "a.tif", "--labels", tmp_path / "labels.tif")
    out, model = tmp_path / "out.zarr", tmp_path / "model"
    assert run("train", model, *given, *SMALL, "--names", names).code == 0
    assert run("label", tmp_path / "a.tif", out, "--model", model).code == 0
    drawn = annotated()
    path = write(tmp_path / "a.geojson", drawn)
    options = ("--json", tmp_path / "found.json", "--picture", tmp_path / "errors.png")
    found = run("evaluate", out, path, *options)
    assert found.code == 0, found
    numbers = json.loads((tmp_path / "found.json").read_text())
    assert [sum(row) for row in numbers["confusion"]] == [8 * 18 * 18] * 2
    assert numbers["pixel_error"] < 0.01
    image = images.open_image(tmp_path / "a.tif")
    (example,) = examples.pair(image, path)
    example, classes = examples.as_learned(example, model_file.load(model).classes)
    truth = examples.targets(whole(example.labels), classes)
    assert np.bincount(truth.ravel()).tolist() == [96 * 96 - 16 * 18 * 18, *[8 * 18 * 18] * 2]


def test_images_without_annotations_are_left_out(tmp_path):
    """As label images without a labeled pixel are; a single one is refused."""
    (tmp_path / "images").mkdir()
    for name in ("a.tif", "b.tif", "c.tif"):
        slide(tmp_path / "images" / name)
    boxes = [(x + 3, y + 3, 18, 18) for x in range(0, 96, 24) for y in range(0, 96, 24)]
    coco = {
        "images": [
            {"id": n, "file_name": f"{n}.png", "height": 96, "width": 96} for n in ("a", "b", "c")
        ],
        "categories": [{"id": 0, "name": "dark"}, {"id": 1, "name": "light"}],
        "annotations": [
            {"image_id": name, "category_id": (b[0] + b[1]) // 24 % 2, "bbox": b}
            for name in ("a", "c")
            for b in boxes
        ],
    }
    path = write(tmp_path / "coco.json", coco)
    with pytest.warns(FileWarning, match=r"of this image, got none: .*b\.tif is left out"):
        found = examples.pair(tmp_path / "images", path)
    assert [e.image.path[-5:] for e in found] == ["a.tif", "c.tif"]
    rows = "\n".join(f"images/{name}.tif,coco.json" for name in "abc")
    table = write(tmp_path / "pairs.csv", f"images,labels\n{rows}\n")
    with pytest.warns(FileWarning, match=r"b\.tif is left out"):
        assert len(examples.read_pairs(table)[0]) == 2
    with pytest.raises(InputError, match=r"of this image, got none$"):
        examples.pair(tmp_path / "images" / "b.tif", path)
