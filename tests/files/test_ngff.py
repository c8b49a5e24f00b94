"""The arrays and the metadata of an output, looked at with plain zarr."""

import asyncio
import hashlib
import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from tiledlaf import label
from tiledlaf.files import levels, nodes, units
from tiledlaf.files.images import from_array
from tiledlaf.files.levels import Pyramid
from tiledlaf.labeling import claiming
from tiledlaf.labeling.choice import data_term
from tiledlaf.labeling.plan import make_plan
from tiledlaf.model.settings import make_settings

RNG = np.random.default_rng(5)


def blobs(shape, levels=256, edge=7, dtype=np.uint8):
    """An image with structure and noise, so that labels vary on every level."""
    coarse = RNG.integers(0, levels, tuple(-(-n // edge) for n in shape))
    for axis in range(len(shape)):
        coarse = np.repeat(coarse, edge, axis=axis)
    fine = coarse[tuple(slice(0, n) for n in shape)] + RNG.integers(-9, 10, shape)
    return np.clip(fine, 0, levels - 1).astype(dtype)


SLIDE = np.dstack([blobs((1030, 291)) for _ in range(3)])


def hashes(store, *without):
    """Content of every file of a store, except below some of its folders."""
    files = (p for p in Path(store).rglob("*") if p.is_file())
    found = {str(p.relative_to(store)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
    return {k: v for k, v in found.items() if not k.startswith(tuple(f"{w}/" for w in without))}


def arrays(store, group="", count=None):
    """All levels of an image of a store, finest first."""
    names = [d["path"] for d in multiscale(store, group)["datasets"]]
    found = [zarr.open_array(store, path=f"{group}/{n}".lstrip("/"), mode="r") for n in names]
    assert count is None or len(found) == count
    return found


def multiscale(store, group=""):
    return zarr.open_group(store, path=group, mode="r").attrs["ome"]["multiscales"][0]


def placement(store, group=""):
    """(scale, translation) of every level."""
    for dataset in multiscale(store, group)["datasets"]:
        moves = {t["type"]: t[t["type"]] for t in dataset["coordinateTransformations"]}
        yield moves["scale"], moves.get("translation", [0.0] * len(moves["scale"]))


def half(pixels, axes=(-2, -1)):
    """Means of two pixels along some axes, rounded half up; the last alone where one remains."""
    total, count = pixels.astype(np.int64), 1
    for axis in axes:
        even = np.take(total, range(0, total.shape[axis], 2), axis)
        odd = np.take(total, range(1, total.shape[axis], 2), axis)
        if odd.shape != even.shape:
            odd = np.concatenate([odd, np.take(even, [-1], axis)], axis)
        total, count = even + odd, count * 2
    return ((2 * total + count) // (2 * count)).astype(pixels.dtype)


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """A function that labels SLIDE with tiles of some size, once."""
    made = {}

    def make(tile):
        if tile not in made:
            made[tile] = str(tmp_path_factory.mktemp("slide") / f"{tile}.zarr")
            label(SLIDE, made[tile], classes=3, tile=tile, confidence=True)
        return made[tile]

    return make


# tiles of 128 make all levels, of 96 and 100 the second only, of 48 none; 272 has chunks of 136
TILES = (128, 100, 96, 48, 272)


@pytest.mark.parametrize("tile", TILES)
def test_levels(slide, tile):
    store = slide(tile)
    picture, labels = arrays(store, count=3), arrays(store, "labels/tiledlaf", 3)
    expected = np.moveaxis(SLIDE, -1, 0)
    for level, (image, found) in enumerate(zip(picture, labels, strict=True)):
        np.testing.assert_array_equal(image[:], expected)
        np.testing.assert_array_equal(found[:], labels[0][:][:: 2**level, :: 2**level])
        assert image.shape[1:] == found.shape
        expected = half(expected)
    np.testing.assert_array_equal(labels[0][:], label(SLIDE, classes=3))
    confidence = arrays(store, "confidence", 3)
    np.testing.assert_array_equal(confidence[2][:], confidence[0][:][::4, ::4])
    assert confidence[0].dtype == np.float32
    assert 1 / 3 <= confidence[0][:].min() < confidence[0][:].max() <= 1


@pytest.mark.parametrize("tile", TILES)
def test_layout(slide, tile):
    for group, names in (("", ("c", "y", "x")), ("labels/tiledlaf", ("y", "x"))):
        for level, array in enumerate(arrays(slide(tile), group)):
            assert array.metadata.zarr_format == 3
            assert array.metadata.dimension_names == names
            assert array.fill_value == 0
            assert array.dtype == np.uint8
            assert max(array.chunks) <= 256
            unit = array.shards or array.chunks
            if level == 0:
                assert unit[-2:] == (tile, tile)
                assert unit[:-2] == (() if group else (3,))
            assert all(u % c == 0 for u, c in zip(unit, array.chunks, strict=True))


def test_places_of_levels(slide):
    """Pixels are f times as large, of odd sizes too; means lie between the pixels they are of."""
    for level, (scale, shift) in enumerate(placement(slide(128))):
        f = 2.0**level
        assert scale == [1.0, f, f]
        assert shift == [0.0, (f - 1) / 2, (f - 1) / 2]
    for level, (scale, shift) in enumerate(placement(slide(128), "labels/tiledlaf")):
        assert (scale, shift) == ([2.0**level] * 2, [0.0, 0.0])


def test_volume(tmp_path):
    volume = blobs((11, 75, 130), edge=5)
    for neighborhood in ("3x3", "3x3x3"):
        store = str(tmp_path / neighborhood)
        label(volume, store, classes=2, axes="zyx", neighborhood=neighborhood, tile=64)
        (picture,), (labels,) = arrays(store), arrays(store, "labels/tiledlaf")
        assert labels.metadata.dimension_names == ("z", "y", "x")
        np.testing.assert_array_equal(picture[:], volume)
        whole = label(volume, classes=2, axes="zyx", neighborhood=neighborhood)
        np.testing.assert_array_equal(labels[:], whole)
        assert (labels.shards or labels.chunks) == (64 if "x3x" in neighborhood else 1, 64, 64)


def source(path, levels, scale=(0.5, 0.25), origin=(3.0, 7.0)):
    """An OME-Zarr 0.5 with some levels."""
    group = zarr.open_group(path)
    datasets = []
    for number, pixels in enumerate(levels):
        group.create_array(f"s{number}", data=pixels, chunks=(16, 16))
        ratio = [n / m for n, m in zip(levels[0].shape, pixels.shape, strict=True)]
        moves = [{"type": "scale", "scale": [s * r for s, r in zip(scale, ratio, strict=True)]}]
        moves.append({"type": "translation", "translation": origin})
        datasets.append({"path": f"s{number}", "coordinateTransformations": moves})
    axes = [{"name": a, "type": "space", "unit": "millimeter"} for a in "yx"]
    image = {"axes": axes, "datasets": datasets}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [image]}
    return str(path)


def nearest(pixels, shape):
    """The pixels nearest to the centers of a coarser grid."""
    for axis, n in enumerate(shape):
        centers = (np.arange(n) + 0.5) * pixels.shape[axis] / n
        pixels = np.take(pixels, np.floor(centers).astype(int), axis)
    return pixels


@pytest.mark.parametrize("tile", [16, 64, 128])
def test_input_levels_that_are_no_whole_fractions(tmp_path, tile):
    image = blobs((301, 280))
    sizes = ((301, 280), (200, 187), (100, 94), (33, 31))
    path = source(tmp_path / "in", [image, *(nearest(image, s) for s in sizes[1:])])
    store = str(tmp_path / "out")
    label(path, store, classes=3, tile=tile)
    labels, picture = arrays(store, "labels/tiledlaf", 4), arrays(store, count=4)
    assert tuple(a.shape for a in labels) == tuple(a.shape for a in picture) == sizes
    for finer, coarser in ((0, 1), (2, 3)):
        if finer == 0:
            np.testing.assert_array_equal(labels[1][:], nearest(labels[0][:], sizes[1]))
            np.testing.assert_array_equal(picture[1][:], nearest(picture[0][:], sizes[1]))
        else:
            thirds = labels[finer][:][::3, ::3]
            np.testing.assert_array_equal(labels[coarser][:], thirds[:33, :31])
    np.testing.assert_array_equal(labels[2][:], labels[1][:][::2, ::2])
    for (scale, shift), size in zip(placement(store, "labels/tiledlaf"), sizes, strict=True):
        ratio = np.divide(sizes[0], size)
        np.testing.assert_allclose(scale, np.multiply((0.5, 0.25), ratio))
        middle = np.multiply((0.5, 0.25), ratio - 1) / 2
        np.testing.assert_allclose(shift, np.add((3.0, 7.0), middle))
    assert {a["unit"] for a in multiscale(store)["axes"]} == {"millimeter"}


def test_input_levels_by_other_fractions(tmp_path):
    """Levels by 3 and 12, rounded down: tiles of 128 make none of them, of 384 both."""
    image = blobs((400, 301))
    path = source(tmp_path / "in", [image, image[1:-1:3, 1::3], image[1:396:12, 1:300:12]])
    for tile in (128, 384):
        store = str(tmp_path / str(tile))
        label(path, store, classes=3, tile=tile)
        labels = arrays(store, "labels/tiledlaf", 3)
        for array, f in zip(labels, (1, 3, 12), strict=True):
            n, m = array.shape
            np.testing.assert_array_equal(array[:], labels[0][:][::f, ::f][:n, :m])
        assert [scale for scale, _ in placement(store, "labels/tiledlaf")][2] == [6.0, 3.0]
        coarse = arrays(store)[2][3, 4]
        assert abs(int(coarse) - image[36:48, 48:60].mean()) < 2


def test_region_is_placed_by_a_translation(tmp_path):
    image = blobs((301, 280))
    path = source(tmp_path / "in", [image, image[::2, ::2]])
    store = str(tmp_path / "out")
    label(path, store, classes=3, region=((100, 299), (33, 280)), tile=64)
    np.testing.assert_array_equal(arrays(store)[0][:], image[100:299, 33:])
    whole = label(path, classes=3)
    np.testing.assert_array_equal(arrays(store, "labels/tiledlaf")[0][:], whole[100:299, 33:])
    for group in ("", "labels/tiledlaf"):
        scale, shift = next(placement(store, group))
        assert (scale, shift) == ([0.5, 0.25], [3.0 + 100 * 0.5, 7.0 + 33 * 0.25])


def test_level_of_the_input(tmp_path):
    image = blobs((301, 280))
    path = source(tmp_path / "in", [image, image[::2, ::2], image[::4, ::4]])
    store = str(tmp_path / "out")
    label(path, store, classes=3, level=1, tile=64)
    np.testing.assert_array_equal(arrays(store, count=2)[0][:], image[::2, ::2])
    scale, shift = next(placement(store, "labels/tiledlaf"))
    np.testing.assert_allclose(scale, [0.5 * 301 / 151, 0.5])
    assert shift == [3.0, 7.0]


def test_labels_alone(tmp_path):
    label(SLIDE[:100, :90], tmp_path / "out", classes=2, copy_image=False)
    root = zarr.open_group(tmp_path / "out", mode="r")
    assert list(root.keys()) == ["labels"]
    assert "multiscales" not in root.attrs["ome"]
    assert root["labels"].attrs["ome"] == {"version": "0.5", "labels": ["tiledlaf"]}


@pytest.mark.parametrize(("classes", "dtype"), [(255, "uint8"), (256, "uint16"), (300, "uint16")])
def test_smallest_type(tmp_path, classes, dtype):
    ramp = np.arange(20 * 30, dtype=np.float32).reshape(20, 30)
    prototypes = np.linspace(0, ramp.max(), classes)[:, None]
    term, store = data_term(None, prototypes, None, 0), str(tmp_path / "out")
    settings = make_settings("3x3", 2, 1.0, 0.01, None, "cpu")
    plan = make_plan(from_array(ramp), store, term=term, settings=settings)
    notes = {"fingerprint": "", "tile": [16, 16]}
    claiming.start(plan.out, notes, plan.image_print, plan.job.labels, None, None, plan.names)
    (labels,) = arrays(store, "labels/tiledlaf")
    assert (labels.dtype, labels.fill_value) == (dtype, 0)
    entry = zarr.open_group(store, path="labels/tiledlaf").attrs["ome"]["image-label"]
    assert [c["label-value"] for c in entry["colors"]] == list(range(1, classes + 1))


@pytest.mark.slow  # kernels are compiled for each number of labels, for many in 20 seconds
def test_more_labels_than_fit_a_byte(tmp_path):
    steps = np.repeat(np.arange(40, dtype=np.float32), 20)[None].repeat(20, axis=0)
    # prototypes nobody has, but for forty at the end
    prototypes = np.concatenate([np.arange(-260.0, 0), np.arange(40.0)])[:, None]
    label(steps, tmp_path / "out", prototypes=prototypes, time=0.01)
    labels = arrays(tmp_path / "out", "labels/tiledlaf")[0]
    np.testing.assert_array_equal(labels[10, 10::20], np.arange(261, 301))


@pytest.mark.parametrize("dtype", ["?", "u1", "i2", "u4", "f2", "f4", "f8"])
def test_image_keeps_its_type(tmp_path, dtype):
    image = blobs((600, 37), 200).astype(np.int64) - (100 if dtype[0] in "if" else 0)
    image = (image > 100 if dtype == "?" else image).astype(dtype)
    label(image, tmp_path / "out", classes=2, tile=128)
    fine, coarse = arrays(tmp_path / "out", count=2)
    assert fine.dtype == coarse.dtype == image.dtype
    np.testing.assert_array_equal(fine[:], image)
    if dtype[0] == "f":
        quads = image[:, :36].astype(float).reshape(300, 2, 18, 2)
        np.testing.assert_allclose(coarse[:, :18], quads.mean(axis=(1, 3)), rtol=1e-3)
    else:
        np.testing.assert_array_equal(coarse[:], half(image))


def test_overwrite_replaces_one_name_and_nothing_else(tmp_path):
    store = str(tmp_path / "out")
    image = SLIDE[:100, :90]
    label(image, store, classes=2, tile=32)
    label(image, store, classes=3, tile=32, name="three", names=["a", "b", "c"])
    before, first = hashes(store), arrays(store, "labels/tiledlaf")[0][:]
    assert zarr.open_group(store, path="labels").attrs["ome"]["labels"] == ["tiledlaf", "three"]
    np.testing.assert_array_equal(first, label(image, classes=2))
    with pytest.raises(ValueError, match="another run"):
        label(image, store, classes=8, tile=32, name="three")
    assert hashes(store) == before
    label(image, store, classes=8, tile=32, name="three", overwrite=True)
    assert hashes(store, "labels/three") == {
        k: v for k, v in before.items() if not k.startswith("labels/three/")
    }
    assert arrays(store, "labels/three")[0][:].max() == 8


def test_overwrite_leaves_nothing_of_the_labels_it_replaces(tmp_path):
    path = source(tmp_path / "in", [SLIDE[:64, :60, 0], SLIDE[:64:2, :60:2, 0]])
    label(path, path, classes=2, into_input=True, name="old", tile=32)
    held = zarr.open_group(path, path="labels/old")
    held.create_array("extra", shape=(3,), dtype="u1")
    del held.attrs["tiledlaf"]
    with pytest.raises(ValueError, match="not of tiledlaf"):
        label(path, path, classes=2, into_input=True, name="old")
    label(path, path, classes=3, into_input=True, name="old", overwrite=True, tile=32)
    found = zarr.open_group(path, path="labels/old", mode="r")
    assert sorted(found.keys()) == ["0", "1"]
    assert found["0"][:].max() == 3


@pytest.mark.parametrize("up", [True, False])
def test_steps_of_odd_sizes_are_powers_of_two(up):
    """Of levels halved and rounded up or down, whatever the size, down to one pixel."""
    for n in range(8, 200):
        shapes = [(n, 2 * n)]
        while min(shapes[-1]) > (1 if up else 7):
            shapes.append(tuple((m + up) // 2 for m in shapes[-1]))
        one = (1.0, 1.0)
        levels = Pyramid("", "yx", 0, tuple(shapes), (64, 64), one, (0, 0), (None,) * 2, "u1")
        for level, shape in enumerate(shapes):
            f = 2**level
            assert levels.steps(level) == (f, f)
            assert levels.factor(level) == ((f, f) if 64 // f >= 32 else None)
            assert all(
                m - len(range(0, k, f)) in (0, -1) for m, k in zip(shape, shapes[0], strict=True)
            )


def test_steps_where_levels_are_out_of_order():
    shapes = ((10, 10), (40, 40))
    levels = Pyramid("", "yx", 0, shapes, (64, 64), (1, 1), (0, 0), (None,) * 2, "u1")
    assert levels.steps(1) is None


@pytest.mark.parametrize("edge", [1, 100, 256, 257, 272, 512, 1000, 1024, 4096])
def test_inner_chunks_fill_a_shard(edge):
    chunk = levels.inner_chunk(edge)
    assert edge % chunk == 0
    assert chunk <= 256
    assert not any(edge % c == 0 for c in range(chunk + 1, 257))


def test_fast_codecs_are_used_and_the_settings_of_zarr_are_left_alone(tmp_path):
    zarr.create_array(tmp_path / "a", data=SLIDE[..., 0], chunks=(64, 64), shards=(128, 128))
    two = {"zarr_format": 2, "chunks": (64, 64)}
    zarr.create_array(tmp_path / "b", shape=(9, 9), dtype=">u2", **two)
    before = {k: zarr.config.get(k) for k in ("codec_pipeline.path", "threading.max_workers")}
    for name, kind in (("a", "ZarrsCodecPipeline"), ("b", "BatchedCodecPipeline")):
        array = nodes.open_array(str(tmp_path / name))
        assert type(array._async_array.codec_pipeline).__name__ == kind
    label(tmp_path / "a", tmp_path / "out", classes=2, tile=128, workers=4)
    assert {k: zarr.config.get(k) for k in before} == before


def test_tiles_of_every_size_give_the_same_levels(slide):
    """Where a level is made, by a tile or at the end, does not show."""
    for group in ("", "labels/tiledlaf", "confidence"):
        for one, other in itertools.pairwise(TILES):
            for a, b in zip(arrays(slide(one), group), arrays(slide(other), group), strict=True):
                np.testing.assert_array_equal(a[:], b[:])


def stored(path):
    """Contents of the files of an array, less its metadata."""
    return {
        str(p.relative_to(path)): p.read_bytes() for p in Path(path, "c").rglob("*") if p.is_file()
    }


@pytest.mark.parametrize("shards", [None, (3, 64, 64)])
def test_chunks_that_fit_the_tiles_are_copied(tmp_path, shards):
    image = np.random.default_rng(0).integers(1, 255, (3, 200, 150)).astype(np.uint8)
    image[:, 64:128, 64:128] = 0  # a chunk without a file
    source = zarr.create_array(
        tmp_path / "in.zarr",
        shape=image.shape,
        dtype="u1",
        chunks=(3, 32, 32),
        shards=shards,
        compressors=zarr.codecs.GzipCodec(level=1),
        dimension_names=("c", "y", "x"),
    )
    source[:] = image
    label(tmp_path / "in.zarr", tmp_path / "out.zarr", classes=2, tile=64)
    picture = zarr.open_array(tmp_path / "out.zarr" / "0", mode="r")
    np.testing.assert_array_equal(picture[:], image)
    assert stored(tmp_path / "out.zarr" / "0") == stored(tmp_path / "in.zarr")
    assert picture.metadata.dimension_names == ("c", "y", "x")
    assert not list(tmp_path.rglob("*.partial"))
    # as chunks that do not fit are encoded anew
    label(tmp_path / "in.zarr", tmp_path / "other.zarr", classes=2, tile=48)
    other = zarr.open_array(tmp_path / "other.zarr" / "0", mode="r")
    np.testing.assert_array_equal(other[:], image)
    assert stored(tmp_path / "other.zarr" / "0") != stored(tmp_path / "in.zarr")
    assert not any("gzip" in str(codec).lower() for codec in other.metadata.codecs)


def test_chunks_are_not_copied_to_an_array_of_another_encoding(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)
    for name, codec in (("in", zarr.codecs.GzipCodec()), ("out", zarr.codecs.ZstdCodec())):
        zarr.create_array(
            tmp_path / name, shape=(64, 64), dtype="u1", chunks=(32, 32), compressors=codec
        )
    zarr.open_array(tmp_path / "in", mode="r+")[:] = image
    box = (slice(0, 64), slice(0, 64))
    units.write(str(tmp_path), "out", box, image, (str(tmp_path), "in"))
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "out", mode="r")[:], image)


def test_a_thread_with_a_running_loop_labels_too(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (100, 90)).astype(np.uint8)
    zarr.save_array(tmp_path / "in.zarr", image)

    async def notebook():
        label(tmp_path / "in.zarr", tmp_path / "out.zarr", classes=2, tile=64, workers=1)

    asyncio.run(notebook())
    labels = zarr.open_array(tmp_path / "out.zarr" / "labels" / "tiledlaf" / "0", mode="r")[:]
    np.testing.assert_array_equal(labels, label(image, classes=2))


def test_a_part_that_another_run_removes(tmp_path, monkeypatch):
    """It is not taken for pixels of the fill value, which have no file."""
    held = zarr.create_array(tmp_path / "a", shape=(64, 64), chunks=(32, 32), dtype="u1")
    box, ones = (slice(0, 64), slice(0, 64)), np.ones((64, 64), np.uint8)
    here = nodes.run_here

    def removed(call):
        here(call)
        for folder in tmp_path.rglob("*.partial"):
            shutil.rmtree(folder)

    assert units.write(str(tmp_path), "a", box, ones) == units.sizes(str(tmp_path), "a")(box) > 0
    with monkeypatch.context() as patch:
        patch.setattr(nodes, "run_here", removed)
        with pytest.raises(FileNotFoundError):
            units.write(str(tmp_path), "a", box, ones)
    np.testing.assert_array_equal(held[:], ones)
    ones[:32, :32] = 0
    units.write(str(tmp_path), "a", box, ones)
    np.testing.assert_array_equal(held[:], ones)
    assert not (tmp_path / "a/c/0/0").exists()
