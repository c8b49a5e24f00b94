"""Which labels belong to which image: by name, and what has no partner is refused."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
import tifffile
from command import contents, run
from voronoi import lines

import tiledlaf
from tiledlaf.annotations import pairing
from tiledlaf.files.image import FileWarning

NFC, NFD = (unicodedata.normalize(form, "zähler") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    ("images", "others"),
    [
        ("a.png b.png", "a.png b.png"),
        ("a.png b.png", "a_mask.png b_mask.png"),
        ("a.tif b.tif", "a_labels.ome.tif b-ann.png"),
        ("a.ome.tif b.ome.tiff", "a.geojson.gz b.geojson.gz"),
        ("x1.svs x2.svs", "x1.svs.geojson x2.svs.geojson"),
        ("a.zarr b.ome.zarr", "a.zarr.zip b_seg.ome.zarr"),
        ("A.TIF b.tif", "a.png B.PNG"),
        ("a.tif c.tif", "a_Simple~Segmentation.tif c_Simple~Segmentation.h5"),
        ("a.tif b.tif", "a_Probabilities.h5 b_Probabilities.h5"),
        ("a.tif b.tif", "a_cp_masks.png b_cp_masks.png"),
        ("000_img.png 001_img.png", "000_masks.png 001_masks.png"),
        ("9.tif 10.tif 11.tif", "labels00000009.png labels00000010.png labels00000011.png"),
        ("00.tif 01.tif", "labels00000000.png labels00000001.png"),
        ("01_dr.JPG 01_g.jpg 02_g.jpg", "01_dr_AVm.png 01_g_AVm.png 02_g_AVm.png"),
        ("1/image.tif 2/image.tif", "1/mask.tif 2/mask.tif"),
        ("p/1/raw/x.tif p/2/raw/x.tif", "q/1/labels/x.png q/2/labels/x.png"),
        ("7/images/7.png 8/images/8.png", "7/masks/7.png 8/masks/8.png"),
        ("1/a.png 1/b.png 2/a.png", "1/a_gt.png 1/b_gt.png 2/a_gt.png"),
        (f"{NFC}.tif b.tif", f"{NFD}.png b.png"),
        ("sample.1.tif sample.2.tif", "sample.1.png sample.2.png"),
        ("photo.png", "whatever_it-is.tif"),
    ],
)
def test_partners(images, others):
    """In whatever order they come, each file finds its image."""
    images, others = ([name.replace("~", " ") for name in t.split(" ")] for t in (images, others))
    assert pairing.partners(images, others, "labels") == others
    assert pairing.partners(images, others[::-1], "labels") == others
    assert pairing.partners(images[::-1], others, "labels") == others[::-1]


@pytest.mark.parametrize(
    ("images", "others", "words"),
    [
        ("a.png b.png c.png", "b.png c.png d.png", "no labels for a.png; no image for d.png"),
        ("a.png b.png", "a.png", "labels for 2 images, got 1; no labels for b.png"),
        ("a.png", "a.png b.png", "labels for 1 images, got 2; no image for b.png"),
        ("a.png a.tif", "a.png b.png", "several of one name: a.png, a.tif"),
        (
            "a.png b.png",
            "a_mask.png a_labels.png",
            "several of one name: a.png, a_mask.png, a_labels.png",
        ),
        ("img001.tif img002.tif", "other_17.tif other_18.tif", "no labels for img001.tif, img002"),
        ("1.tif 2.tif 3.tif", "0.tif 1.tif 2.tif", "no labels for 3.tif; no image for 0.tif"),
        ("m1.tif m2.tif m3.tif", "k0.tif k1.tif k2.tif", "no labels for m3.tif"),
        ("t1.tif t2.tif", "t2.tif u1.tif", "no labels for t1.tif; no image for u1.tif"),
        (" ".join(f"{c}.tif" for c in "abcdefgh"), "x.tif y.tif", "d.tif, e.tif and 3 more;"),
    ],
)
def test_no_partner(images, others, words):
    with pytest.raises(ValueError, match="expected labels") as error:
        pairing.partners(images.split(" "), others.split(" "), "labels")
    assert words in str(error.value)
    assert "`pairs`" in str(error.value)


def test_more_of_the_name_says_more():
    """What is left of names without their common parts may not contradict whole names."""
    images, others = ["a1.tif", "a2.tif"], ["a2.tif", "a1_mask.tif"]
    assert pairing.partners(images, others, "labels") == ["a1_mask.tif", "a2.tif"]
    with pytest.raises(ValueError, match="expected labels"):
        # without what each list has in common: "a" and "" on both sides, ab with aab
        pairing.partners(["ab.tif", "b.tif"], ["ab.tif", "aab.tif"], "labels")


def test_numbers_of_what_is_dropped():
    """Patient 1 with patient 2: paired by what differs, with a word."""
    images, others = (["p1_1.tif", "p1_2.tif"], ["p2_1.tif", "p2_2.tif"])
    with pytest.warns(FileWarning, match=r"paired by what differs .* p1_1.tif with p2_1.tif"):
        assert pairing.partners(images, others, "labels") == others


def write(*names, shape=(4, 5)):
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(name, np.ones(shape, np.uint8))


def test_what_systems_leave(tmp_path, monkeypatch):
    """Stray files are no images, and others are named."""
    monkeypatch.chdir(tmp_path)
    write("raw/a2.tif", "raw/a10.tif", "raw/._a2.tif", "raw/.hidden/x.tif")
    for name in ("Thumbs.db", ".DS_Store", "desktop.ini"):
        Path("raw", name).write_bytes(b"x")
    assert pairing.find("raw") == ["raw/a2.tif", "raw/a10.tif"]
    assert pairing.find("raw/*") == ["raw/a2.tif", "raw/a10.tif"]
    Path("raw/notes.txt").write_text("mine")
    for pattern in ("raw", "raw/*"):
        with pytest.warns(FileWarning, match=r"left out what is no image .*: notes\.txt"):
            assert pairing.find(pattern) == ["raw/a2.tif", "raw/a10.tif"]
    assert pairing.find("raw/*.txt") == ["raw/notes.txt"]  # refused when it is opened
    write("raw/deep/b.tif")
    assert pairing.find("raw/**/*.tif") == ["raw/a2.tif", "raw/a10.tif", "raw/deep/b.tif"]
    with pytest.raises(ValueError, match="none: expected images, found none"):
        pairing.find("none")


def test_masks_beside_images(tmp_path, monkeypatch):
    """In one folder, what is given as labels is no image."""
    monkeypatch.chdir(tmp_path)
    write("d/a.tif", "d/a_mask.tif", "d/b.tif", "d/b_mask.tif")
    with pytest.warns(FileWarning, match="no images to learn from"):
        found = tiledlaf.pair("d", "d/*_mask.tif")
    assert [(e.image.path, e.labels.path) for e in found] == [
        ("d/a.tif", "d/a_mask.tif"),
        ("d/b.tif", "d/b_mask.tif"),
    ]


def test_lists_are_in_order(tmp_path, monkeypatch):
    """Lists pair by position, folders by name, and arrays have no names."""
    monkeypatch.chdir(tmp_path)
    write("i/a.tif", "i/b.tif", "l/a.tif", "l/b.tif", "m/b.tif", "m/a.tif")

    def labels(*given):
        return [
            (e.image.path, e.labels.path, e.mask and e.mask.path) for e in tiledlaf.pair(*given)
        ]

    assert labels(["i/a.tif", "i/b.tif"], ["l/b.tif", "l/a.tif"]) == [
        ("i/a.tif", "l/b.tif", None),
        ("i/b.tif", "l/a.tif", None),
    ]
    assert labels("i", ["l/b.tif", "l/a.tif"], None, "m/*.tif") == [
        ("i/a.tif", "l/a.tif", "m/a.tif"),
        ("i/b.tif", "l/b.tif", "m/b.tif"),
    ]
    assert labels("i", [np.ones((4, 5), int)] * 2)[1] == ("i/b.tif", "array", None)
    with pytest.raises(ValueError, match="expected labels for 2 images, got 1"):
        labels("i", [np.ones((4, 5), int)])


def test_pairs_in_a_table(tmp_path, monkeypatch):
    """As spreadsheets write it; paths are beside the table, or else in the current folder."""
    monkeypatch.chdir(tmp_path)
    write("t/x.tif", "t/y.tif", "here/one.tif", "t/m.tif", "x.tif")
    rows = "Images;labels;mask;validation\nx.tif;y.tif;;\ny.tif;here/one.tif;m.tif;Yes\n\n"
    Path("t/pairs.csv").write_text(rows, "utf-8-sig")
    assert pairing.read_pairs("t/pairs.csv") == [
        pairing.Row("t/x.tif", "t/y.tif"),
        pairing.Row("t/y.tif", "here/one.tif", None, "t/m.tif", True),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected the columns images, labels, probabilities, mask, validation"),
        ("image,labels\na.tif,a.tif\n", "got image, labels"),
        ("images,labels,color\na.tif,a.tif,red\n", "got images, labels, color"),
        ("images,images,labels\n", "got images, images, labels"),
        ("images,labels\n", "expected rows of images and labels, got none"),
        ("images,labels\na.tif,\n", "row 2: expected a path for labels, got an empty cell"),
        ("images,labels\na.tif,a.tif\nb.tif\n", "row 3: expected 2 cells, got 1"),
        ("images,labels\na.tif,z.tif\n", "row 2: expected a file for labels, found no z.tif in "),
        ("images,labels,validation\na.tif,a.tif,maybe\n", "row 2: expected yes or no"),
        ("images,labels,validation\na.tif,a.tif,yes\n", "expected rows that are not validation"),
        ("images,labels\na.tif,a.tif\na.tif,a.tif\n", "expected each pair once, got a.tif again"),
        ("images,labels\n\udce9.tif,a.tif\n", "expected a text file in UTF-8"),
    ],
)
def test_bad_tables(tmp_path, monkeypatch, text, words):
    monkeypatch.chdir(tmp_path)
    write("a.tif", "b.tif")
    Path("p.csv").write_text(text, "utf-8", "surrogateescape")
    before = contents(".")
    found = run("train", "model", "--pairs", "p.csv")
    assert (found.code, found.out) == (2, ""), found
    (line,) = found.err.splitlines()
    assert line.startswith("tiledlaf: error: p.csv"), line
    assert words in line, line
    assert contents(".") == before


@pytest.fixture
def shuffled(tmp_path, monkeypatch):
    """Three images and their labels, whose names sort in another order."""
    monkeypatch.chdir(tmp_path)
    for number, (name, other) in enumerate([("a", "z"), ("b", "y"), ("c", "x")]):
        image, labels = lines((64, 48), cells=8, seed=number)
        for folder, file, array in (("raw", name, image), ("lab", other, labels)):
            Path(folder).mkdir(exist_ok=True)
            tifffile.imwrite(f"{folder}/{file}.tif", array)
    return tmp_path


SMALL = ["--size", "4", "--steps", "10"]


def test_a_table_from_the_command_line(shuffled):
    Path("p.csv").write_text(
        "images,labels,validation\nraw/a.tif,lab/z.tif,no\nraw/b.tif,lab/y.tif,no\n"
        "raw/c.tif,lab/x.tif,yes\n"
    )
    found = run("train", "model", "--pairs", "p.csv", *SMALL)
    assert found.code == 0, found
    assert tiledlaf.load("model").trained["validation"] == ["c.tif"]
    assert tiledlaf.load("model").trained["error"] < 0.1  # of other pairs, it is 0.3

    for option, words in (
        (["--images", "raw"], "expected at most one of --pairs and --images"),
        (["--validation-mask", "raw"], "expected at most one of --pairs and --validation-mask"),
    ):
        refused = run("train", "other", "--pairs", "p.csv", *option)
        assert (refused.code, refused.err) == (2, f"tiledlaf: error: {words}\n")


def test_nothing_is_shifted(shuffled):
    found = run("train", "model", "--images", "raw", "--labels", "lab", *SMALL)
    assert (found.code, found.out) == (2, "")
    assert "no labels for raw/a.tif, raw/b.tif, raw/c.tif" in found.err
    assert "(--pairs can name a CSV file of pairs)" in found.err
