"""All time points of an image: each labeled as by itself, in one output with the axis t."""

import json

import models
import numpy as np
import pytest
import tifffile
import zarr
from command import contents, run
from ome_zarr_models import v04, v05

import tiledlaf
from tiledlaf.files import images
from tiledlaf.labeling.request import label
from tiledlaf.model.terms import Prototypes

RNG = np.random.default_rng(0)
FLAT = RNG.random((3, 70, 90)).astype(np.float32)
DEEP = RNG.integers(0, 255, (2, 2, 4, 50, 60), dtype=np.uint8)  # tczyx
TERM = Prototypes(((0.2,), (0.8,)), 0.05)
COLORS = Prototypes(((50.0, 60.0), (200.0, 180.0)), 5000.0)


def each(found, image, **options):
    """Every time point has the labels and confidence that it has alone."""
    for point, (labels, confidence) in enumerate(zip(*found, strict=True)):
        alone = label(image[point], confidence=True, **options)
        np.testing.assert_array_equal(labels, alone[0])
        np.testing.assert_array_equal(confidence.view(np.uint32), alone[1].view(np.uint32))


@pytest.mark.parametrize("tile", [16, 48, 1024])
def test_every_time_point_is_labeled_as_alone(tile):
    given = {"axes": "tyx", "time_point": "all", "tile": tile}
    found = label(FLAT, term=TERM, confidence=True, **given)
    each(found, FLAT, term=TERM)
    part = label(FLAT, term=TERM, region=[(7, 60), (11, 90)], **given)
    np.testing.assert_array_equal(part, found[0][:, 7:60, 11:90])
    part = label(FLAT, term=TERM, region=[(1, 3), (7, 60), (11, 90)], **given)
    np.testing.assert_array_equal(part, found[0][1:, 7:60, 11:90])


@pytest.mark.parametrize("axes", ["tczyx", "ctzyx", "tzyxc", "cztyx"])
@pytest.mark.parametrize("neighborhood", ["3x3x3", "3x3"])
def test_volumes_with_channels(axes, neighborhood):
    stored = np.ascontiguousarray(DEEP.transpose(["tczyx".index(a) for a in axes]))
    options = {"term": COLORS, "neighborhood": neighborhood}
    found = label(stored, axes=axes, time_point="all", tile=32, confidence=True, **options)
    assert found[0].shape == (2, 4, 50, 60)
    each(found, DEEP, axes="czyx", **options)


@pytest.mark.parametrize("kind", ["prototypes", "classifier"])
def test_models_and_krylov(kind):
    options = {"model": models.make(kind), "intensity_scale": 1}
    found = label(FLAT, axes="tyx", time_point="all", confidence=True, tile=32, **options)
    each(found, FLAT, **options)
    options = {"term": TERM, "integrator": tiledlaf.Krylov(4)}
    found = label(FLAT, axes="tyx", time_point="all", confidence=True, **options)
    each(found, FLAT, **options)


def test_prototypes_are_those_of_the_whole_series():
    """The second half is darker: its pixels are of the darker class of all."""
    image = np.stack([FLAT[0] + 9, FLAT[0]])
    found = label(image, axes="tyx", time_point="all", classes=2)
    assert (found[0] == 2).all()
    assert (found[1] == 1).all()


def test_masks_of_each_time_point_or_of_all(tmp_path):
    options = {"term": TERM, "axes": "tyx", "time_point": "all", "tile": 32, "confidence": True}
    masks = RNG.random(FLAT.shape) > 0.3
    masks[1] = masks[0]
    masks[2] = masks[0]
    expected = label(FLAT, mask=masks, **options)
    for point in range(3):
        np.testing.assert_array_equal(expected[0][point] > 0, masks[0])
    np.save(tmp_path / "all.npy", masks)
    np.save(tmp_path / "one.npy", masks[0])
    tifffile.imwrite(tmp_path / "t.tif", masks.view("u1"), imagej=True, metadata={"axes": "TYX"})
    zarr.save_array(tmp_path / "one.zarr", masks[0].view("u1"))
    files = [tmp_path / name for name in ("all.npy", "one.npy", "t.tif", "one.zarr")]
    for mask in (masks[0], masks[:1], *files):
        if isinstance(mask, np.ndarray) and mask.ndim == 3:
            mask = images.from_array(mask.view("u1"), "tyx")
        found = label(FLAT, mask=mask, **options)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match="expected a mask of the size"):
        label(FLAT, mask=masks[:2], **options)


def test_a_mask_of_annotations(tmp_path):
    """Each is of the time point that it states, or else of the first one, as QuPath writes it."""
    square = [[[10, 5], [40, 5], [40, 30], [10, 30], [10, 5]]]
    later = {"type": "Polygon", "coordinates": square, "plane": {"t": 2, "z": 0, "c": -1}}
    first = {"type": "Polygon", "coordinates": [[[x + 45, y] for x, y in square[0]]]}
    features = [{"type": "Feature", "geometry": g, "properties": {}} for g in (first, later)]
    (tmp_path / "roi.geojson").write_text(
        json.dumps({"type": "FeatureCollection", "features": features})
    )
    given = {"term": TERM, "axes": "tyx", "time_point": "all", "tile": 32}
    found = label(FLAT, mask=tmp_path / "roi.geojson", **given)
    inside = np.zeros(FLAT.shape, bool)
    inside[0, 5:30, 55:85] = True
    inside[2, 5:30, 10:40] = True
    np.testing.assert_array_equal(found > 0, inside)


def test_probabilities_and_no_data():
    p = RNG.dirichlet([1, 1, 1], FLAT.shape).transpose(0, 3, 1, 2).astype(np.float32)
    found = label(FLAT, probabilities=p, axes="tyx", time_point="all", tile=32)
    for point in range(3):
        alone = label(FLAT[point], probabilities=p[point])
        np.testing.assert_array_equal(found[point], alone)
    holes = np.where(RNG.random(FLAT.shape) < 0.1, np.float32(np.nan), FLAT)
    found = label(holes, term=TERM, axes="tyx", time_point="all", no_data=np.nan)
    np.testing.assert_array_equal(found == 0, np.isnan(holes))
    with pytest.raises(ValueError, match=r"tile \((\d), 0, 0\) \(t \1:\d, y 0:70, .* pixel \(\1, "):
        label(holes, term=TERM, axes="tyx", time_point="all")


def series(path, version, fmt):
    group = zarr.open_group(path, mode="w", zarr_format=fmt)
    names = {"dimension_names": list("tczyx")} if fmt == 3 else {}
    group.create_array("0", shape=DEEP.shape, chunks=(1, 1, 16, 64, 64), dtype="u1", **names)
    group["0"][:] = DEEP
    kinds = {"t": "time", "c": "channel"}
    axes = [{"name": a, "type": kinds.get(a, "space")} for a in "tczyx"]
    axes[0]["unit"] = "second"
    scale = [{"type": "scale", "scale": [30.0, 1.0, 2.0, 0.5, 0.5]}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    multiscales = [{"axes": axes, "datasets": datasets, "version": version}]
    if version == "0.4":
        group.attrs["multiscales"] = multiscales
    else:
        group.attrs["ome"] = {"version": version, "multiscales": multiscales}


@pytest.mark.parametrize("into_input", [False, True])
@pytest.mark.parametrize(("version", "fmt"), [("0.4", 2), ("0.5", 3)])
def test_the_output_keeps_t(tmp_path, version, fmt, into_input):
    series(tmp_path / "i.zarr", version, fmt)
    out = "i.zarr" if into_input else "o.zarr"
    where = {"into_input": True} if into_input else {"output": tmp_path / out, "confidence": True}
    label(tmp_path / "i.zarr", term=COLORS, time_point="all", tile=32, **where)
    models_ = v04 if into_input and version == "0.4" else v05
    store = tmp_path / out
    image = zarr.open_group(store, mode="r")
    np.testing.assert_array_equal(image["0"][:], DEEP)
    labels = zarr.open_group(store, path="labels/tiledlaf", mode="r")
    for held, group, axes in (
        (models_.Image, image, "tczyx"),
        (models_.ImageLabel, labels, "tzyx"),
    ):
        found = held.from_zarr(group).attributes
        (entry,) = getattr(found, "ome", found).multiscales
        assert "".join(axis.name for axis in entry.axes) == axes
        assert (entry.axes[0].type, entry.axes[0].unit) == ("time", "second")
        scale = entry.datasets[0].coordinateTransformations[0].scale
        assert list(scale) == [{"t": 30, "c": 1, "z": 2}.get(a, 0.5) for a in axes]
    expected = label(tmp_path / "i.zarr", term=COLORS, time_point="all")
    np.testing.assert_array_equal(labels["0"][:], expected)
    again = images.open_image(store / "labels" / "tiledlaf", time_point="all")
    assert again.grid == (2, 4, 50, 60)


def test_levels_of_an_output(tmp_path):
    """Coarse levels, written by tiles or afterwards, are those of each time point alone."""
    image = RNG.integers(0, 255, (2, 3, 1100, 1201), dtype=np.uint8)
    term = Prototypes(((50.0,) * 3, (200.0,) * 3), 5000.0)
    label(image, tmp_path / "all", axes="tcyx", time_point="all", term=term, tile=256)
    label(image[1], tmp_path / "one", term=term, tile=256)
    for group in ("", "labels/tiledlaf/"):
        for level in range(3):
            found = zarr.open_array(tmp_path / "all" / f"{group}{level}", mode="r")[:]
            alone = zarr.open_array(tmp_path / "one" / f"{group}{level}", mode="r")[:]
            np.testing.assert_array_equal(found[1], alone)
        assert not (tmp_path / "all" / f"{group}3").exists()


def test_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("i.tif", (FLAT * 255).astype("u1"), imagej=True, metadata={"axes": "TYX"})
    (tmp_path / "p.csv").write_text("50\n200\n")
    given = ("label", "i.tif", "o.zarr", "--prototypes", "p.csv", "--time-point", "all")
    dry = run(*given, "--dry-run")
    assert (dry.code, "tyx 3 x 70 x 90" in dry.out, "halo: 0 x " in dry.out) == (0, True, True)
    assert not (tmp_path / "o.zarr").exists()
    assert run(*given, "--tile", 32, "--export", "e.tif").code == 0
    labels = zarr.open_array("o.zarr/labels/tiledlaf/0", mode="r")[:]
    np.testing.assert_array_equal(tifffile.imread("e.tif"), labels)
    before = contents("o.zarr")
    assert run(*given, "--tile", 32).code == 0
    assert contents("o.zarr") == before
    for command in ("info", "status"):
        assert run(command, "o.zarr").code == 0
    assert "t 0:1, y 0:32" in run("status", "o.zarr").out
    one = run(*given[:-1], "1")
    assert one.code == 2
    assert "another image" in one.err
    assert run(*given[:2], "p.zarr", *given[3:], "--export", "e.png").code == 2
    np.save("truth.npy", labels)
    found = run("evaluate", "o.zarr", "truth.npy")
    assert (found.code, "pixel error: 0.000 %" in found.out) == (0, True)
    found = run("evaluate", "o.zarr", "truth.npy", "--boundary", "class 1")
    assert found.code == 2
    assert "--boundary: expected labels of one time point" in found.err
    assert run("train", "m", "--images", "i.tif", "--labels", "i.tif", *given[-2:]).code == 2


def test_a_cut_run_is_completed(tmp_path):
    """Tiles of all time points are recorded, and those that are missing are labeled."""
    options = {"axes": "tyx", "time_point": "all", "term": TERM, "tile": 32}
    label(FLAT, tmp_path / "o", **options)
    records = tmp_path / "o/labels/tiledlaf/0/tiledlaf.jsonl"
    lines = records.read_text().splitlines(keepends=True)
    tiles = [line for line in lines if '"tile"' in line]
    assert len(tiles) == 3 * 3 * 3
    dropped = tiles[5:9]
    records.write_text("".join(line for line in lines if line not in dropped))
    found = label(FLAT, tmp_path / "o", **options)
    assert found.complete
    assert sum(found.tiles.values()) == 27
    expected = label(FLAT, **options)
    np.testing.assert_array_equal(
        zarr.open_array(tmp_path / "o/labels/tiledlaf/0", mode="r")[:], expected
    )


def test_tissue_of_each_time_point():
    where = np.zeros((3, 200, 220), bool)
    for point in range(3):
        where[point, 20 + 40 * point : 80 + 40 * point, 50:150] = True
    image = np.where(where, 90, 240) + RNG.normal(0, 5, where.shape)
    options = {"term": Prototypes(((90.0,), (240.0,)), 100.0), "axes": "tyx"}
    found = label(image, mask="tissue", time_point="all", tile=64, **options)
    assert ((found > 0) == where).mean() > 0.97


def test_a_mask_of_level_0_holds_at_every_time_point_of_a_coarser_level(tmp_path):
    sizes = [FLAT, FLAT[:, ::2, ::2].copy()]
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as file:
        for level, part in enumerate(sizes):
            more = {"subfiletype": 1} if level else {"subifds": 1, "metadata": {"axes": "TYX"}}
            file.write(part, photometric="minisblack", tile=(32, 32), **more)
    mask = np.zeros((70, 90), np.uint8)
    mask[20:, 30:] = 1
    tifffile.imwrite(tmp_path / "mask.tif", mask)
    options = {"term": TERM, "time_point": "all", "workers": 1}
    path = tmp_path / "a.ome.tif"
    found = label(path, level=1, mask=tmp_path / "mask.tif", **options)
    expected = label(sizes[1], axes="tyx", mask=mask[1::2, 1::2], **options)
    np.testing.assert_array_equal(found, expected)
