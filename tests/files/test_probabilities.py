"""Probabilities as other programs write them; each layout is that of its source or documents."""

import pickle

import dask.array
import numpy as np
import pytest
import tifffile
import zarr
from command import run
from scipy import ndimage

import tiledlaf
from tiledlaf import label
from tiledlaf.files import converted, image, images
from tiledlaf.files.image import FileWarning

RANDOM = np.random.default_rng(3)
GRID = (41, 53)
PICTURE = RANDOM.random(GRID, np.float32)
RADIUS = 15
# two groups of three that touch
CENTERS = ((30, 30), (30, 57), (52, 44), (80, 80), (80, 108), (99, 94))


def smooth(*shape):
    """Probabilities of classes (J, ...) that vary slowly, so that labels have areas."""
    noise = RANDOM.random(shape)
    p = np.exp(40 * ndimage.gaussian_filter(noise, (0, *[3] * (len(shape) - 1))))
    return (p / p.sum(0)).astype(np.float32)


def discs(shape=(120, 120), centers=CENTERS, radius=RADIUS):
    """What cellpose would give of discs: flows 5 long to the nearest center, and the logit."""
    places = np.indices(shape).astype(np.float32)
    centers = np.array(centers, np.float32)
    steps = centers.reshape(-1, len(shape), *[1] * len(shape)) - places
    distances = np.sqrt((steps**2).sum(1))
    nearest = distances.argmin(0)
    flow = np.take_along_axis(steps, nearest[None, None], 0)[0]
    distance = distances.min(0)
    inside = distance <= radius
    flow = 5 * inside * flow / np.maximum(distance, 1e-6)
    return np.concatenate([flow, np.where(inside, 6, -6)[None]]).astype(np.float32)


def refused(expected, *command):
    found = run(*command)
    assert (found.code, found.err.count("\n")) == (2, 1), found
    assert expected in found.err, found.err


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("image.tif", PICTURE)
    return tmp_path


@pytest.mark.parametrize("save", [np.savez_compressed, np.savez])
@pytest.mark.parametrize("kind", ["f4", "f2"])
def test_nnunet(here, save, kind):
    """(C, 1, Y, X) of a picture, in the order that a transposition leaves, beside a pickle."""
    p = smooth(4, *GRID)
    wide = p[:, None].transpose(0, 2, 3, 1).astype(kind).copy().transpose(0, 3, 1, 2)
    save("case.npz", probabilities=wide)
    (here / "case.pkl").write_bytes(b"never opened")
    expected = label(PICTURE, probabilities=p.astype(kind).astype("f4"))
    assert len(np.unique(expected)) == 4
    np.testing.assert_array_equal(label("image.tif", probabilities="case.npz"), expected)
    found = run("label", "image.tif", "out", "--probabilities", "case.npz", "--tile", "32")
    assert found.code == 0, found
    np.testing.assert_array_equal(zarr.open("out/labels/tiledlaf/0")[:], expected)


def test_volumes_of_nnunet(here):
    p = smooth(3, 5, *GRID)
    np.savez_compressed("case.npz", probabilities=p)
    volume = RANDOM.random((5, *GRID), np.float32)
    expected = label(volume, probabilities=p, axes="zyx")
    found = label(volume, probabilities="case.npz", axes="zyx")
    np.testing.assert_array_equal(found, expected)
    # of one plane of it
    whole = images.as_probabilities("case.npz", images.as_image(volume, axes="zyx"))
    np.testing.assert_array_equal(whole.read((slice(2, 3), *map(slice, GRID)))[:, 0], p[:, 2])


def test_what_is_kept_of_an_npz(here):
    p = smooth(3, *GRID)[:, None]
    like = images.as_image(PICTURE)
    np.savez("stored.npz", more=np.zeros(7), probabilities=p)
    np.savez_compressed("packed.npz", probabilities=p)
    stored, packed = (images.as_probabilities(f"{n}.npz", like) for n in ("stored", "packed"))
    assert isinstance(stored.reader.open(stored.path, ""), np.memmap)
    assert stored.reader.held(stored.path) == 0
    assert 0 <= packed.reader.held(packed.path) - p.nbytes < 1000
    window = (slice(3, 30), slice(20, 41))
    for one in (stored, packed):
        np.testing.assert_array_equal(one.read(window), p[(slice(None), 0, *window)])


def test_other_npz_files(here, monkeypatch):
    command = ("label", "image.tif", "out", "--probabilities")
    np.savez("other.npz", softmax=np.zeros((2, *GRID)), seg=np.zeros(GRID))
    refused("other.npz: expected the array 'probabilities', as nnU-Net writes it, found softmax, "
            "seg", *command, "other.npz")  # fmt: skip
    np.savez("objects.npz", probabilities=np.array([{}], object))
    refused("objects.npz: it holds Python objects", *command, "objects.npz")
    np.savez_compressed("case.npz", probabilities=smooth(2, *GRID)[:, None])
    assert "npz" in run("info", "case.npz").out
    data = (here / "case.npz").read_bytes()
    (here / "cut.npz").write_bytes(data[: len(data) // 2])
    refused("cut.npz: this file cannot be read", *command, "cut.npz")
    monkeypatch.setattr(image, "PIECE", 100)
    monkeypatch.setattr(image, "PACKED", 0)
    (here / "large.npz").write_bytes(data)  # of the other the array is still held
    refused(f"large.npz: a file of {len(data)} bytes would be decoded to", "info", "large.npz")


def test_pickles_of_cellpose_are_never_loaded(here):
    class Bomb:
        def __reduce__(self):
            return (open, (str(here / "loaded"), "w"))

    np.save("x_seg.npy", {"flows": Bomb()}, allow_pickle=True)
    with pickle.loads(pickle.dumps(Bomb())):  # it would go off
        (here / "loaded").unlink()
    command = ("label", "image.tif", "out", "--probabilities", "x_seg.npy")
    refused("x_seg.npy: it holds Python objects, which are never loaded", *command)
    refused("flows and cell probability", *command, "--probabilities-of", "cellpose")
    assert not (here / "loaded").exists()


def objects_of(path, of, *more):
    """Sizes of the objects that `label` and `objects` find."""
    found = run("label", "cells.tif", path, "--probabilities", of, *more, "--objects", "cell")
    assert found.code == 0, found
    names = zarr.open(path)["labels/tiledlaf"].attrs["ome"]["image-label"]["properties"]
    assert [one["name"] for one in names] == ["cell", "border", "background"]
    return np.bincount(zarr.open(f"{path}/labels/tiledlaf-cell/0")[:].ravel())[1:]


@pytest.mark.parametrize("blur", [0, 1])
def test_touching_cells_of_cellpose_become_objects(here, blur):
    given = discs()
    given = np.stack([ndimage.gaussian_filter(plane, blur) for plane in given])
    given = (given + 0.5 * RANDOM.normal(size=given.shape)).astype("f4")
    assert ndimage.label(given[2] > 0)[1] == 2  # a threshold merges each group
    tifffile.imwrite("cells.tif", np.zeros(given.shape[1:], np.uint8))
    np.save("cells.npy", given)
    sizes = objects_of("out", "cells.npy", "--probabilities-of", "cellpose", "--time", "1")
    assert len(sizes) == len(CENTERS)
    # up to three pixels along what they touch go to the border
    assert sizes.min() > 0.65 * np.pi * RADIUS**2
    # by a name that other files have as well, without what parts the flows
    still = given.copy()
    still[:2] = 0
    np.save("still.npy", still)
    assert len(objects_of("o2", "still.npy", "--probabilities-of", "cellpose", "--time", "1")) == 2


def test_cells_apart_keep_their_outlines():
    given = discs(centers=((30, 30), (80, 80)))
    p = converted.cellpose(np.pad(given, [(0, 0), *[(3, 3)] * 2]))
    np.testing.assert_allclose(p.sum(0), 1, atol=1e-6)
    np.testing.assert_array_equal(p.argmax(0) == 0, given[2] > 0)
    assert not (p.argmax(0) == 1).any()


@pytest.mark.parametrize("at_once", [converted.AT_ONCE, 50])
def test_files_with_flows(here, monkeypatch, at_once):
    """Windows are as the whole, in each format; of a volume with and without flows along z."""
    monkeypatch.setattr(converted, "AT_ONCE", at_once)
    given = discs((40, 60), ((20, 18), (20, 40)), 12)
    like = images.as_image(np.zeros((40, 60), np.uint8))
    np.save("a.npy", given)
    tifffile.imwrite("a.tif", given, photometric="minisblack")
    tifffile.imwrite("b.tif", given, photometric="rgb", planarconfig="separate")
    zarr.create_array("a.zarr", data=given, chunks=(3, 16, 16))
    expected = converted.cellpose(np.pad(given, [(0, 0), *[(3, 3)] * 2]))
    assert (expected[1] > 0.9).sum() > 20
    for source in (given, "a.npy", "a.tif", "b.tif", "a.zarr"):
        found = images.as_probabilities(source, like, "cellpose")
        assert (found.dtype, found.used_channels, found.grid) == ("float32", 3, (40, 60))
        for top, left in np.ndindex(4, 4):
            window = (slice(11 * top, min(40, 11 * top + 11)), slice(15 * left, 15 * left + 15))
            np.testing.assert_array_equal(found.read(window), expected[(slice(None), *window)])
    thick = discs((20, 20, 30), ((10, 10, 8), (10, 10, 22)), 8)
    volume = images.as_image(np.zeros((20, 20, 30), np.uint8), axes="zyx")
    whole = (slice(0, 20), slice(0, 20), slice(0, 30))
    solid = images.as_probabilities(thick, volume, "cellpose").read(whole)
    assert (solid[1, 10, 10, 13:17] > 0.9).all()
    planes = images.as_probabilities(thick[1:], volume, "cellpose").read(whole)
    assert (planes[1, 10, 10, 13:17] > 0.9).all()
    np.testing.assert_array_equal(
        images.as_probabilities(thick[1:], volume, "cellpose").read((slice(9, 11), *whole[1:])),
        planes[:, 9:11],
    )


def test_series_with_flows():
    one = discs((40, 60), ((20, 18), (20, 40)), 12)
    series = images.as_image(np.zeros((2, 40, 60), np.uint8), axes="tyx", time_point="all")
    found = images.as_probabilities(np.stack([one, one[..., ::-1] * 0]), series, "cellpose")
    read = found.read((slice(0, 2), slice(0, 40), slice(0, 60)))
    expected = converted.cellpose(np.pad(one, [(0, 0), *[(3, 3)] * 2]))
    np.testing.assert_array_equal(read[:, 0], expected)
    assert (read[:, 1] == np.array([0.375, 0.125, 0.5]).reshape(3, 1, 1)).all()


@pytest.mark.parametrize("shape", [GRID, (1, *GRID)])
def test_stardist(here, shape):
    """One plane of object probability becomes background and foreground."""
    p = smooth(2, *GRID)[1]
    expected = label(PICTURE, probabilities=np.stack([1 - p, p]))
    assert len(np.unique(expected)) == 2
    np.save("prob.npy", p.reshape(shape))
    tifffile.imwrite("prob.tif", p.reshape(shape))
    for given in ("prob.npy", "prob.tif", p.reshape(shape)):
        found = label("image.tif", probabilities=given, probabilities_of="foreground")
        np.testing.assert_array_equal(found, expected)
    bytes_ = np.round(p * 255).astype(np.uint8)
    like = images.as_image(PICTURE)
    read = images.as_probabilities(bytes_, like, "foreground").read(tuple(map(slice, GRID)))
    np.testing.assert_allclose(read, [1 - p, p], atol=0.002)


@pytest.mark.parametrize("memory", [True, False])
def test_stardist_on_a_grid_of_two(here, memory):
    """It rounds up, so that 41 x 53 pixels have 21 x 27 probabilities."""
    fine = ndimage.gaussian_filter(RANDOM.random(GRID), 4)
    fine = np.clip(20 * (fine - fine.mean()) + 0.5, 0, 1).astype(np.float32)
    coarse = fine[::2, ::2]
    assert coarse.shape == (21, 27)
    np.save("prob.npy", coarse)
    with pytest.warns(FileWarning, match="21 x 27 pixels are interpolated to the 41 x 53 of"):
        found = images.as_probabilities(
            coarse if memory else "prob.npy", images.as_image("image.tif"), "foreground"
        )
    read = found.read(tuple(map(slice, GRID)))
    np.testing.assert_allclose(read.sum(0), 1, atol=1e-6)
    assert np.abs(read[1] - fine).mean() < 0.05
    np.testing.assert_array_equal(found.read((slice(9, 20), slice(30, 53))), read[:, 9:20, 30:])


def test_qupath(here):
    """Eight bits for each class, named, at a fourth of the resolution, which rounds down."""
    size = (GRID[0] * 4 + 3, GRID[1] * 4 + 1)
    tifffile.imwrite("slide.tif", RANDOM.random(size, np.float32), tile=(64, 64))
    names = ["Tumor", "Stroma", "Ignore*"]
    p = np.round(smooth(3, *GRID) * 255).astype(np.uint8)
    written = {"axes": "CYX", "Channel": {"Name": names}, "PhysicalSizeX": 2.0}
    tifffile.imwrite("probs.ome.tif", p, tile=(32, 32), metadata=written, photometric="minisblack")
    found = run("label", "slide.tif", "out", "--probabilities", "probs.ome.tif")
    assert found.code == 0, found
    assert "41 x 53 pixels are interpolated to the 167 x 213 of slide.tif" in found.err
    assert [name in found.out for name in names] == [True] * 3, found.out
    labels = zarr.open("out/labels/tiledlaf/0")[:]
    coarse = label(PICTURE, probabilities=p)
    assert (labels.shape, len(np.unique(labels))) == (size, 3)
    assert (labels[2:-3:4, 2::4][: GRID[0], : GRID[1]] == coarse[:, :53]).mean() > 0.95


WRONG = (
    ("other.npy", "", "expected probabilities of the size (41, 53) of image.tif, got (20, 13)"),
    ("half.npy", "", "half.npy: expected probabilities of the size (41, 53) of image.tif, got "
     "(20, 53)"),
    ("logits.npy", "", "logits need a softmax first"),
    ("plane1.npy", "", "got the shape (1, 41, 53) (--probabilities-of foreground takes one plane)"),
    ("five.npy", "foreground", "expected probabilities to be 0 or more and sum to 1"),
    ("two.npy", "foreground", "two.npy: expected the probability of one class"),
    ("two.npy", "cellpose", "two.npy: expected floats in the three planes dY, dX and cell"),
    ("two.npy", "stardist", "expected --probabilities-of foreground or cellpose, got 'stardist'"),
)  # fmt: skip


@pytest.mark.parametrize(("given", "of", "expected"), WRONG)
def test_wrong_input_in_one_line(here, given, of, expected):
    p = smooth(2, *GRID)
    np.save("half.npy", p[:, :20])
    np.save("other.npy", p[:, :20, :13])
    np.save("logits.npy", np.log(p) + 3)
    np.save("plane1.npy", p[:1])
    np.save("five.npy", 5 * p[:1] + 1)
    np.save("two.npy", p)
    more = ("--probabilities-of", of) if of else ()
    refused(expected, "label", "image.tif", "out", "--probabilities", given, *more)


def test_nan_in_one_line(here):
    p = smooth(2, *GRID)
    p[:, 7, 9] = np.nan
    np.save("nan.npy", p)
    found = run("label", "image.tif", "out", "--probabilities", "nan.npy")
    assert (found.code, len(found.err.splitlines())) == (1, 1), found
    assert "probabilities: expected finite values, got 2 NaN or inf" in found.err
    flows = discs(GRID, ((20, 20),), 9)
    flows[0, 7, 9] = np.nan
    np.save("flows.npy", flows)
    more = ("--probabilities-of", "cellpose")
    found = run("label", "image.tif", "o2", "--probabilities", "flows.npy", *more)
    assert (found.code, len(found.err.splitlines())) == (1, 1), found
    assert "NaN or inf" in found.err


def test_the_kind_belongs_to_probabilities(here):
    refused("--probabilities-of belongs to --probabilities", "label", "image.tif", "out",
            "--classes", "2", "--probabilities-of", "cellpose")  # fmt: skip
    with pytest.raises(ValueError, match="`probabilities_of` belongs to `probabilities`"):
        tiledlaf.pair(PICTURE, np.ones(GRID, int), probabilities_of="cellpose")
    lazy = dask.array.from_array(PICTURE)
    with pytest.raises(ValueError, match="`probabilities_of`: not available for dask arrays"):
        label(lazy, probabilities=lazy[None], probabilities_of="foreground")


def test_other_kinds_are_other_runs(here):
    """A file that is read as something else does not continue a run."""
    like = images.as_image(PICTURE)
    np.save("a.npy", discs(GRID, ((20, 20),), 9))
    plain, flows = (images.as_probabilities("a.npy", like, of) for of in (None, "cellpose"))
    assert plain.fingerprint() != flows.fingerprint()


def test_training_on_flows(here):
    given = discs((64, 64), ((30, 20), (30, 44)), 13)
    truth = np.where(given[2] > 0, 1 + (np.indices((64, 64))[1] > 32), 0)
    classes = np.where((truth > 0) & (np.abs(np.indices((64, 64))[1] - 32) < 3), 2, truth > 0)
    tifffile.imwrite("cells.tif", np.zeros((64, 64), np.uint8))
    tifffile.imwrite(
        "labels.tif", (3 - np.select([classes == 1, classes == 2], [2, 1])).astype("u1")
    )
    np.save("cells.npy", given)
    told = ("--probabilities", "cells.npy", "--probabilities-of", "cellpose")
    found = run("train", "m.model", "--images", "cells.tif", "--labels", "labels.tif", *told,
                "--steps", "1", "--flow", "none")  # fmt: skip
    assert found.code == 0, found
    found = run("label", "cells.tif", "out", "--model", "m.model", *told)
    assert found.code == 0, found
    assert len(np.unique(zarr.open("out/labels/tiledlaf/0")[:])) == 3


def test_archives_are_no_images_beside_others(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    np.save("images/a.npy", PICTURE)
    np.savez("images/a.npz", probabilities=smooth(2, *GRID))
    with pytest.warns(FileWarning, match="left out what is no image of a known format: a.npz"):
        (one,) = tiledlaf.batch("images", "results", classes=2)
    assert one.complete
    # alone, or given as probabilities, they are what is meant
    (tmp_path / "predicted").mkdir()
    np.savez("predicted/a.npz", probabilities=smooth(2, *GRID))
    with pytest.warns(FileWarning, match=r"a\.npz"):
        (one,) = tiledlaf.batch("images", "others", probabilities="predicted")
    assert one.complete
