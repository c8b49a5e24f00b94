"""Damaged images, stores and annotations: each door of files, by each command that opens them."""

import json
import os
import shutil
import zipfile

import numpy as np
import pytest
import seeds
from damage import TEXTS, damaged, edited, retyped, text_of
from hypothesis import strategies as st
from judge import command, fuzz, labels_of, survives

QUICK = ("--scheduler", "threads", "--workers", "1")
JUDGED = ("--validation-images", "own.npy", "--validation-labels", "labels.npy")
LEARN = ("--steps", "1", "--size", "2", *JUDGED, *QUICK)
TYPES = ("int8", "uint8", "<u2", ">u2", "int32", "uint64", "float16", "float32", "float64", "bool")


def label(path, *more):
    call = ("label", path, "out.zarr", "--classes", "2", *more, *QUICK)
    return command(*call, then=labels_of("out.zarr"))


def use(draw, path):
    """A command that opens an image, or one that opens it as something beside another."""
    return draw(
        st.sampled_from(
            (
                command("info", path),
                command("info", path),
                command("label", path, "out.zarr", "--classes", "2", "--dry-run"),
                label(path),
                label("own.npy", "--mask", path),
                command("evaluate", "labels.npy", path),
                command("label", "own.npy", "out.zarr", "--probabilities", path, *QUICK),
                command("train", "out.model", "--images", "own.npy", "--labels", path, *LEARN),
                label(path, "--level", "1"),
                label(path, "--series", "0"),
                command("status", path),
            )
        )
    )


def give(folder):
    """Write an undisturbed image with its labels into the folder of a try."""
    np.save(f"{folder}/own.npy", seeds.IMAGE)
    np.save(f"{folder}/labels.npy", seeds.LABELS)


WRITES = ("out", "tiledlaf")


@fuzz()
@pytest.mark.parametrize("name", seeds.IMAGES)
def test_images(name, data, trying, seeds_at):
    draw = data.draw
    given = seeds_at(name, seeds.IMAGES[name]).read_bytes()
    with trying() as folder:
        give(folder)
        with open(f"{folder}/{name}", "wb") as file:
            file.write(draw(damaged(given)))
        survives(name, use(draw, name), folder, WRITES)


@fuzz()
def test_npy_headers(data, trying):
    """Headers of npy files, which say more than there is."""
    draw = data.draw
    about = draw(edited({"descr": "|u1", "fortran_order": False, "shape": (24, 30)}))
    text = draw(st.sampled_from((repr(about), json.dumps(about))))[:60000] + "\n"
    with trying() as folder:
        give(folder)
        with open(f"{folder}/a.npy", "wb") as file:
            file.write(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode())
            file.write(seeds.IMAGE.tobytes())
        survives("npy headers", use(draw, "a.npy"), folder, WRITES)


@fuzz()
@pytest.mark.parametrize("name", seeds.STORES)
def test_stores(name, data, trying, seeds_at):
    draw = data.draw
    given = seeds_at(name, seeds.STORES[name])
    with trying() as folder:
        give(folder)
        store = f"{folder}/{name}"
        shutil.copytree(given, store)
        _damage_one(draw, store)
        survives(name, use(draw, name), folder, WRITES)


def _damage_one(draw, store):
    """Damage, remove or replace one of the files of a store, most likely its metadata."""
    held = seeds.files(store)
    about = [path for path in held if path.name.startswith((".z", "zarr.json", "attributes"))]
    path = draw(st.sampled_from(about if draw(st.integers(0, 3)) else held))
    how = draw(st.sampled_from(("edit", "edit", "edit", "edit", "bytes", "bytes", "gone", "odd")))
    if how == "edit" and path in about:
        document = json.loads(path.read_bytes())
        path.write_text(text_of(draw(edited(document))))
    elif how == "gone":
        path.unlink()
    elif how == "odd":
        path.unlink()
        made = draw(st.sampled_from(("folder", "loop", "pipe", "empty")))
        if made == "folder":
            path.mkdir()
        elif made == "loop":
            path.symlink_to(path.name)
        elif made == "pipe":
            path.symlink_to("nowhere")
        else:
            path.write_bytes(b"")
    else:
        path.write_bytes(draw(damaged(path.read_bytes())))


@fuzz()
@pytest.mark.parametrize("name", seeds.ZIPS)
def test_archives(name, data, trying, seeds_at):
    """Damaged archives, and whole ones of damaged files."""
    draw = data.draw
    given = seeds_at(name, seeds.ZIPS[name])
    with trying() as folder:
        give(folder)
        path = f"{folder}/{name}"
        if draw(st.booleans()):
            with open(path, "wb") as file:
                file.write(draw(damaged(given.read_bytes())))
        else:
            with zipfile.ZipFile(given) as archive:
                held = {name: archive.read(name) for name in archive.namelist()}
            one = draw(st.sampled_from(sorted(held)))
            if one.endswith((".zarray", ".zattrs", ".json")) and draw(st.booleans()):
                held[one] = text_of(draw(edited(json.loads(held[one])))).encode()
            else:
                held[one] = draw(damaged(held[one]))
            seeds.packed(path, held)
        survives(name, use(draw, name), folder, WRITES)


@fuzz()
@pytest.mark.parametrize("name", ["a.geojson", "a.json", "a.csv", "a.roi", "a.zip"])
def test_annotations(name, data, trying):
    draw = data.draw
    documents = {"a.geojson": seeds.features, "a.json": seeds.coco}
    if name in documents:
        document = documents[name]()
        if draw(st.integers(0, 4)):
            given = text_of(draw(edited(document))).encode()
        else:
            given = draw(damaged(json.dumps(document).encode()))
    elif name == "a.csv":
        given = draw(retyped(seeds.napari())).encode()
    else:
        given = draw(damaged(seeds.rois()["a.roi"]))
    with trying() as folder:
        give(folder)
        shutil.copy(f"{folder}/own.npy", f"{folder}/image.npy")
        if name == "a.zip":
            held = seeds.rois() | {"a.roi": given}
            seeds.packed(f"{folder}/{name}", held)
        else:
            with open(f"{folder}/{name}", "wb") as file:
                file.write(given)
        call = draw(
            st.sampled_from(
                (
                    label("image.npy", "--mask", name, "--brush", "2px"),
                    command("evaluate", "labels.npy", name),
                    command(
                        "train", "out.model", "--images", "image.npy", "--labels", name, *LEARN
                    ),
                )
            )
        )
        survives(f"annotations {name}", call, folder, WRITES)


TABLES = {
    "prototypes.csv": "60\n180\n",
    "names.txt": "background\ncell\n",
    "names.json": '["background", "cell"]',
    "labels.json": '{"0": "background", "1": "cell"}',
    "colors.json": '{"background": "#000000", "cell": "#ff0000"}',
    "pairs.csv": "images,labels,validation\nown.npy,labels.npy,no\nown.npy,labels.npy,yes\n",
    "features.json": '[["image", "patch", 1, 1, 0.0]]',
    "offsets.csv": "0,0\n0,1\n1,0\n",
    "offsets.json": "[[0, 0], [0, 1], [1, 0]]",
}


def _reads(name):
    """A command that reads a small file written by hand."""
    train = ("train", "out.model", "--images", "own.npy", "--labels", "labels.npy", *LEARN)
    return {
        "prototypes.csv": ("label", "own.npy", "out.zarr", "--prototypes", name, *QUICK),
        "names.txt": ("label", "own.npy", "out.zarr", "--classes", "2", "--names", name, *QUICK),
        "names.json": ("label", "own.npy", "out.zarr", "--classes", "2", "--names", name, *QUICK),
        "labels.json": (*train, "--names", name),
        "colors.json": (*train[:4], "--labels", "color.png", *LEARN[:4], *QUICK, "--colors", name),
        "pairs.csv": ("train", "out.model", "--pairs", name, *LEARN[:4], *QUICK),
        "features.json": (*train, "--features", name),
        "offsets.csv": ("label", "own.npy", "out.zarr", "--classes", "2", "--neighborhood", name),
        "offsets.json": ("label", "own.npy", "out.zarr", "--classes", "2", "--neighborhood", name),
    }[name]


@fuzz()
@pytest.mark.parametrize("name", TABLES)
def test_tables(name, data, trying):
    draw = data.draw
    text = TABLES[name]
    how = draw(st.sampled_from(("edit", "lines", "bytes")))
    if how == "edit" and name.endswith(".json"):
        given = text_of(draw(edited(json.loads(text)))).encode()
    elif how == "bytes":
        given = draw(damaged(text.encode()))
    else:
        given = draw(retyped(text)).encode()
    with trying() as folder:
        give(folder)
        if name == "colors.json":
            table = np.array([[0, 0, 0], [255, 0, 0]], np.uint8)
            seeds.picture(f"{folder}/color.png", data=table[seeds.LABELS])
        with open(f"{folder}/{name}", "wb") as file:
            file.write(given)
        survives(name, command(*_reads(name)), folder, WRITES)


@fuzz()
def test_probabilities(data, trying):
    """Prototypes, probabilities and weights as arrays of odd shapes, types and values."""
    draw = data.draw
    shape = draw(
        st.sampled_from(((2, 24, 30), (24, 30, 2), (1, 24, 30), (24, 30), (0, 24, 30), ()))
    )
    values = draw(st.sampled_from((0, 1, 0.5, -1, 1e38, 1e308, np.nan, np.inf)))
    with trying() as folder:
        give(folder)
        with np.errstate(all="ignore"):
            made = np.full(shape, values).astype(draw(st.sampled_from(TYPES)))
        if made.ndim == 3 and made.size and draw(st.booleans()):
            made[0, 0, 0] = 0
        np.save(f"{folder}/p.npy", made)
        call = draw(
            st.sampled_from(
                (
                    command("label", "own.npy", "out.zarr", "--probabilities", "p.npy", *QUICK),
                    label("p.npy"),
                    label("p.npy", "--no-data", "nan"),
                    label("own.npy", "--mask", "p.npy"),
                    command("evaluate", "labels.npy", "p.npy"),
                )
            )
        )
        survives("arrays in files", call, folder, WRITES)


NAMES = [
    *("-x.npy", "a b.npy", "a\nb.npy", "\x1b[31mred.npy", "a:b.npy", "s3:.npy", "é\U0001f600.npy"),
    *("'a\".npy", "*.npy", "[a].npy", "%41.npy", "~.npy", ".npy", "npy", "a.NPY", "a.npy.gz"),
    *("a.zarr", "a.tif", "a.png", "a.h5", "a.json", "a.csv", "a.roi", "a.zip", "a.model", "a.czi"),
    *("x" * 251 + ".npy", "tissue", "threads", "{0}.npy", "%s.npy", "\\a.npy", "a\udcff.npy"),
]
GIVEN = [
    *("file:///a.npy", "s3://", "http://", "memory://a", "s3:a", "a://b", "//", "/", ".", "..", ""),
    *("own.npy/", "own.npy/x", "nowhere/own.npy", "./own.npy", "~/own.npy", "$HOME", "x" * 5000),
    "own.npy\x00",
]


@fuzz()
def test_names(data, trying):
    """Names of files, and what is no name of a file."""
    draw = data.draw
    name = draw(st.sampled_from((*NAMES, *NAMES, *GIVEN, *TEXTS)))
    with trying() as folder:
        give(folder)
        if name in NAMES:
            path = os.path.join(os.fsencode(folder), os.fsencode(name))
            shutil.copy(f"{folder}/own.npy", path)
        out = draw(st.sampled_from(("out.zarr", "out.zarr", "out", "out\n.zarr", "out/a b")))
        quick = ("--classes", "2", *QUICK)
        call = draw(
            st.sampled_from(
                (
                    ("info", "--", name),
                    ("status", "--", name),
                    ("explain", "--", name, "out.html"),
                    ("evaluate", "--", name, name),
                    ("label", *quick, "--", name, out),
                    ("label", *quick, f"--mask={name}", "own.npy", out),
                    ("label", *quick, f"--export={name}", "own.npy", out),
                    ("label", f"--model={name}", *QUICK, "own.npy", out),
                    ("label", *quick, f"--names={name}", "own.npy", out),
                    ("label", *quick, f"--name={name}", "own.npy", out),
                    ("train", f"--images={name}", "--labels=labels.npy", *LEARN, "out.model"),
                )
            )
        )
        writes = (*WRITES, name) if any("export" in str(part) for part in call) else WRITES
        survives("names of files", command(*call), folder, writes)
