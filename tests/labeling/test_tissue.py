"""`mask` tissue: where it is found, and that it is a mask like any other."""

import dataclasses
import shutil
import warnings

import dask.array as da
import numpy as np
import pytest
import tifffile
import zarr
from command import contents, run
from ome_zarr_models import v04, v05
from scipy.ndimage import gaussian_filter, zoom
from tiling import same

from tiledlaf.files import images
from tiledlaf.files.channels import Channel
from tiledlaf.files.image import FileWarning
from tiledlaf.labeling import tissue
from tiledlaf.labeling.request import label
from tiledlaf.model.terms import Prototypes
from tiledlaf.pool import tasks

RNG = np.random.default_rng(0)
SHAPE = (300, 400)


def _blob():
    field = gaussian_filter(RNG.normal(size=SHAPE), 25)
    return field > field.std()


TRUE = _blob()


def slide(where=TRUE):
    """A stained slide: colored tissue of two tones on white glass."""
    found = RNG.normal(240, 4, (3, *where.shape))
    tones = np.where(RNG.random(where.shape) < 0.5, 0, 40)
    for plane, value in zip(found, (200, 120, 170), strict=True):
        plane[where] = value - tones[where]
    return found.clip(0, 255).astype(np.uint8)


def found_on(image, **options):
    low = tissue.low(images.from_array(image, **options))
    with tasks.threads(1) as pool:
        return tissue.find(low, pool)


def agreement(mask, true=TRUE):
    """Share of pixels on which both agree, but for the border that the mask is wider by."""
    factors = [n / m for n, m in zip(true.shape, mask.shape, strict=True)]
    return (zoom(mask, factors, order=0) == true).mean()


GRAY = {
    "bright field": (slide()[1], "darker"),
    "fluorescence": (np.where(TRUE, RNG.gamma(4, 300, SHAPE), RNG.gamma(9, 9, SHAPE)), "brighter"),
    "16 bits": (slide()[1].astype(np.uint16) * 200, "darker"),
    "fraction": (slide()[1].astype(np.float32) / 255, "darker"),
}


def test_of_a_stained_slide():
    mask, notes = found_on(slide())
    assert agreement(mask) > 0.97
    assert mask[TRUE].mean() > 0.999
    assert notes["side"] == "more colored"


@pytest.mark.parametrize("kind", GRAY)
def test_of_gray_images_the_side_is_found(kind):
    image, side = GRAY[kind]
    mask, notes = found_on(image)
    assert notes["side"] == side
    assert agreement(mask) > 0.96


def test_of_tissue_that_fills_most_of_the_image():
    """The background is what varies less, not what there is less of at the border."""
    image = np.where(TRUE, RNG.gamma(9, 9, SHAPE), RNG.gamma(4, 300, SHAPE))
    mask, notes = found_on(image)
    assert notes["side"] == "brighter"
    assert agreement(mask, ~TRUE) > 0.96


def test_of_several_channels_and_chosen_ones():
    """Channels count by their own range; of a slide in color all do, whichever are labeled."""
    image = np.stack([GRAY["fluorescence"][0] / 1000, RNG.gamma(9, 9, SHAPE), slide()[0] * 0])
    assert agreement(found_on(image, channels=(0, 2))[0]) > 0.96
    assert found_on(slide(), channels=(1,))[1]["side"] == "more colored"


def test_three_channels_with_names_of_their_own_are_no_colors():
    image = images.from_array(slide())
    names = tuple(Channel(name) for name in ("DAPI", "CD3", "CD8"))
    with tasks.threads(1) as pool:
        _, notes = tissue.find(tissue.low(dataclasses.replace(image, shown=names)), pool)
    assert notes["side"] == "darker"


def test_of_a_resampled_slide_a_coarse_level_is_read(tmp_path, monkeypatch):
    """Rather than all pixels that it is resampled from."""
    monkeypatch.chdir(tmp_path)
    pixels, size = np.moveaxis(slide(), 0, -1), {"PhysicalSizeX": 2.0, "PhysicalSizeY": 2.0}
    with tifffile.TiffWriter("a.ome.tif", ome=True) as file:
        file.write(pixels, photometric="rgb", subifds=1, metadata=size, tile=(64, 64))
        file.write(pixels[::4, ::4].copy(), photometric="rgb", subfiletype=1, tile=(64, 64))
    with pytest.warns(FileWarning, match="resampled"):
        image = images.open_image("a.ome.tif", pixel_size=4.0)
    low = tissue.low(image)
    assert (image.grid, low.grid, low.name) == ((150, 200), (75, 100), "1")
    np.testing.assert_array_equal(
        low.read((slice(0, 75), slice(0, 100))), np.moveaxis(pixels[::4, ::4], -1, 0)
    )
    assert low.scale == (8.0, 8.0)
    options = {"prototypes": [[230.0] * 3, [180.0, 100.0, 150.0]], "mask": "tissue"}
    found = []
    for tile in (32, 2048):
        with pytest.warns(FileWarning, match="resampled"):
            found.append(label("a.ome.tif", pixel_size=4.0, tile=tile, workers=1, **options))
    np.testing.assert_array_equal(*found)
    assert ((found[0] > 0) == zoom(TRUE, 0.5, order=0)).mean() > 0.95


def test_holes_are_closed_and_specks_removed():
    where = np.zeros(SHAPE, bool)
    where[50:200, 50:250] = True
    where[100:104, 100:104] = False
    where[270:275, 300:305] = True
    mask, _ = found_on(slide(where))
    assert mask[50:200, 50:250].all()
    assert not mask[265:280, 295:310].any()


def test_the_size_of_pixels_counts():
    """Pixels are at least 8 micrometers wide, so that cells do not count as pieces of tissue."""
    image = images.from_array(slide())
    known = {"scale": (0.5, 0.5), "units": ("micrometer",) * 2}
    small = tissue.low(dataclasses.replace(image, **known))
    assert small.grid == (25, 34)
    assert tissue.low(image).grid == SHAPE


def test_no_data_and_nan_are_no_tissue():
    image = slide()[1].astype(np.float32)
    image[:, :40], image[:20] = np.nan, -9999
    low = tissue.low(images.as_image(image, no_data=-9999))
    with tasks.threads(1) as pool:
        mask, notes = tissue.find(low, pool)
    assert notes["side"] == "darker"
    assert not mask[:18].any()
    assert not mask[:, :38].any()
    assert agreement(mask[25:, 45:], TRUE[25:, 45:]) > 0.95


@pytest.mark.parametrize("tile", [16, 48, 2048])
def test_labels_are_those_of_the_mask(tile):
    image = slide()
    mask, _ = found_on(image)
    term = Prototypes(((200.0, 120.0, 170.0), (160.0, 80.0, 130.0)), 900.0)
    options = {"term": term, "confidence": True}
    expected = label(image, mask=mask, **options)
    same(label(image, mask="tissue", tile=tile, workers=2, **options), expected)
    part = label(image, mask="tissue", region=[(31, 250), (17, 333)], tile=tile, **options)
    same(part, [one[31:250, 17:333] for one in expected])


def test_of_a_large_image_few_pixels_are_looked_at(monkeypatch):
    """The mask has fewer pixels, each for many of the image; labels by tiles equal the whole."""
    monkeypatch.setattr(tissue, "EDGE", 100)
    image = slide(zoom(TRUE, 3, order=0))[1]
    options = {"prototypes": [[100.0], [230.0]], "mask": "tissue", "confidence": True}
    low = tissue.low(images.from_array(image))
    assert low.grid == (180, 240)  # not below 256 pixels
    expected = label(image, tile=2048, **options)
    same(label(image, tile=48, workers=2, **options), expected)
    assert ((expected[0] > 0) == zoom(TRUE, 3, order=0)).mean() > 0.95


def test_the_mask_lies_beside_the_labels(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    group = zarr.open_group("slide.zarr", mode="w", zarr_format=3)
    pixels = slide()
    for level, step in enumerate((1, 2)):
        part = pixels[:, ::step, ::step]
        group.create_array(str(level), shape=part.shape, chunks=(1, 64, 64), dtype="u1")[:] = part
    axes = [{"name": "c", "type": "channel"}] + [
        {"name": a, "type": "space", "unit": "micrometer"} for a in "yx"
    ]
    datasets = [
        {
            "path": str(level),
            "coordinateTransformations": [{"type": "scale", "scale": [1.0, 2.0 * f, 2.0 * f]}],
        }
        for level, f in enumerate((1, 2))
    ]
    multiscales = [{"axes": axes, "datasets": datasets}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": multiscales}
    given = ("label", "slide.zarr", "out.zarr", "--classes", 2, "--tile", 32, "--mask", "tissue")
    dry = run(*given, "--dry-run")
    assert dry.code == 0
    assert not (tmp_path / "out.zarr").exists()
    found = run(*given)
    assert found.code == 0, found
    line = next(line for line in found.out.splitlines() if line.startswith("tissue: "))
    assert line in dry.out.splitlines()
    assert "% left out" in line
    skipped = int(found.out.split(" skipped")[0].rpartition(" ")[2])
    assert skipped > 20
    held = zarr.open_group("out.zarr/labels/tiledlaf-tissue", mode="r")
    mask, labels = held["0"][:], zarr.open_array("out.zarr/labels/tiledlaf/0", mode="r")[:]
    assert mask.shape == (75, 100)
    assert ((labels > 0) == np.kron(mask, np.ones((4, 4)))).all()
    meta = held.attrs["ome"]
    entry = meta["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    assert entry[0]["scale"] == [8.0, 8.0]
    assert entry[1]["translation"] == [3.0, 3.0]
    names = [p["name"] for p in meta["image-label"]["properties"]]
    assert names == ["background", "tissue"]
    listed = zarr.open_group("out.zarr/labels", mode="r").attrs["ome"]["labels"]
    assert listed == ["tiledlaf", "tiledlaf-tissue"]
    # the same command changes nothing, and other commands understand the store
    before = contents("out.zarr")
    again = run(*given)
    assert (again.code, contents("out.zarr")) == (0, before)
    assert line in again.out
    assert "tissue: " in run("info", "out.zarr").out
    assert "tissue" not in run("status", "out.zarr").out
    # a run that was cut before the mask was written finds the same
    shutil.rmtree("out.zarr/labels/tiledlaf-tissue")
    assert run(*given).code == 0
    now = contents("out.zarr")
    assert all(now[name] == data for name, data in before.items() if "labels/zarr" not in name)
    # another mask is another run
    other = run(*given[:-2])
    assert other.code == 2
    assert "mask" in other.err
    assert run(*given[:-2], "--overwrite").code == 0
    assert run(*given, "--overwrite").code == 0
    assert run(*given, "--name", "tiledlaf-tissue").code == 2
    run(*given[:-2], "--name", "a-tissue")
    refused = run(*given, "--name", "a")
    assert refused.code == 2
    assert "expected no labels/a-tissue" in refused.err


def test_tiles_without_tissue_are_not_read(tmp_path, monkeypatch):
    """Their chunks may be damaged; the sample has pixels of tissue alone."""
    monkeypatch.chdir(tmp_path)
    where = np.zeros((512, 512), bool)
    where[40:120, 40:120] = True
    pixels = slide(where)[1]
    array = zarr.create_array("i.zarr", shape=pixels.shape, chunks=(64, 64), dtype="u1")
    array[:] = pixels
    given = ("label", "i.zarr", "out.zarr", "--classes", 3, "--mask", "tissue", "--tile", 64)
    plan = ("--no-image", "--workers", 1)
    assert run(*given[:2], "first.zarr", *given[3:], *plan).code == 0
    read = []
    real = tissue.read_pixels
    from tiledlaf.labeling import worker

    monkeypatch.setattr(
        worker.image_files,
        "read_pixels",
        lambda image, *rest, **more: read.append(image.path) or real(image, *rest, **more),
    )
    found = run(*given, *plan)
    assert found.code == 0, found
    assert "4 done, 60 skipped" in found.out
    assert sum("i.zarr" in path for path in read) == 4
    notes = zarr.open_group("out.zarr/labels/tiledlaf", mode="r").attrs["tiledlaf"]
    # both tones of tissue, and the glass at its rim
    assert [round(value, -1) for (value,) in notes["prototypes"]] == [80, 120, 240]


def test_of_a_file_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mask = np.zeros(SHAPE, np.uint8)
    mask[:9] = 1
    zarr.save_array("tissue", mask)
    np.save("i.npy", slide()[1])
    given = ("label", "i.npy", "out.zarr", "--prototypes", "p.csv")
    (tmp_path / "p.csv").write_text("100\n200\n")
    assert run(*given, "--mask", "./tissue").code == 0
    labels = zarr.open_array("out.zarr/labels/tiledlaf/0", mode="r")[:]
    assert (labels[:9] > 0).all()
    assert not labels[9:].any()


@pytest.mark.parametrize(
    ("image", "text"),
    [
        (np.full(SHAPE, 7, np.uint8), "its pixels are all alike"),
        (np.full(SHAPE, np.nan, np.float32), "its pixels are all alike"),
    ],
)
def test_without_tissue(image, text):
    with pytest.raises(ValueError, match=f"array: expected tissue for `mask` tissue.*{text}"):
        label(image, prototypes=[[1], [2]], mask="tissue")


def test_of_a_slide_that_is_all_tissue():
    image = slide(np.ones(SHAPE, bool))
    image[1] += 30 * TRUE.astype(np.uint8)  # paler tissue, no glass
    with pytest.warns(FileWarning, match="no background was found, so `mask` tissue leaves"):
        mask, notes = found_on(image)
    assert mask.all()
    assert notes["share"] == 1


def test_volumes_plane_by_plane():
    image = np.stack([slide()[1], slide(np.roll(TRUE, 100, axis=1))[1]])
    mask, notes = found_on(image, axes="zyx")
    assert notes["side"] == "darker"
    assert agreement(mask[1], np.roll(TRUE, 100, axis=1)) > 0.96
    options = {"term": Prototypes(((100.0,), (230.0,)), 900.0), "axes": "zyx"}
    found = label(image, mask="tissue", tile=64, **options)
    np.testing.assert_array_equal(found, label(image, mask=mask, **options))


def test_dask_arrays_are_refused():
    with pytest.raises(ValueError, match="`mask` tissue: expected a dask array"):
        label(da.from_array(slide()), classes=2, mask="tissue")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        label(slide(), classes=2, mask="tissue")


def test_the_mask_is_valid_and_goes_into_an_input_of_an_older_version(tmp_path):
    group = zarr.open_group(tmp_path / "slide.zarr", mode="w", zarr_format=2)
    pixels = slide()[1]
    group.create_array("0", shape=pixels.shape, chunks=(64, 64), dtype="u1")[:] = pixels
    axes = [{"name": a, "type": "space"} for a in "yx"]
    scale = [{"type": "scale", "scale": [1.0, 1.0]}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]
    given = {"prototypes": [[100.0], [230.0]], "mask": "tissue"}
    label(tmp_path / "slide.zarr", tmp_path / "out.zarr", **given)
    label(tmp_path / "slide.zarr", into_input=True, **given)
    for store, models in (("out.zarr", v05), ("slide.zarr", v04)):
        held = zarr.open_group(tmp_path / store, path="labels/tiledlaf-tissue", mode="r")
        models.ImageLabel.from_zarr(held)
        assert agreement(held["0"][:]) > 0.96
