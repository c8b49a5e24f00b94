"""Models work at the pixel size and in the range of intensities that they learned at."""

import numpy as np
import pytest
import tifffile
import zarr
from command import run

import tiledlaf
from tiledlaf.files import images
from tiledlaf.files.selection import Selection
from tiledlaf.model import model as model_file

RNG = np.random.default_rng(2)


def scene(step):
    """Stripes of 40 µm at pixels of `step` µm, and what they are."""
    row = np.arange(0, 160, step) // 40 % 2
    truth = np.broadcast_to(row, (round(100 / step), len(row)))
    noise = RNG.normal(0, 12, truth.shape)
    return np.clip(80 + 90 * truth + noise, 0, 255).astype(np.uint8), (truth + 1).astype(np.uint8)


def write(path, step, levels=1, data=None):
    pixels = scene(step)[0] if data is None else data
    size = {"PhysicalSizeX": step, "PhysicalSizeY": step} if step else {}
    with tifffile.TiffWriter(path, ome=True) as file:
        file.write(pixels, subifds=levels - 1, metadata=size, tile=(32, 32))
        for _ in range(1, levels):
            pixels = pixels[: len(pixels) // 2 * 2, : pixels.shape[1] // 2 * 2]
            pixels = pixels.reshape(len(pixels) // 2, 2, -1, 2).mean((1, 3)).astype(np.uint8)
            file.write(pixels, subfiletype=1, tile=(32, 32))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model of pixels of 1 µm, learned from level 1 of a file with pixels of 0.5 µm."""
    folder = tmp_path_factory.mktemp("scales")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write("train.ome.tif", 0.5, levels=3)
        tifffile.imwrite("truth.tif", scene(0.5)[1])
        found = run(
            *[
                "train",
                "m.model",
                "--images",
                "train.ome.tif",
                "--labels",
                "truth.tif",
                "--pixel-size",
                "1",
            ],
            *["--size", "3", "--steps", "2", "--workers", "1"],
        )
    assert found.code == 0, found.err
    assert "level 1 is read" in found.err
    return folder / "m.model"


def labeled(model, path, *options):
    found = run("label", path, "out.zarr", "--model", model, "--workers", "1", *options)
    assert found.code == 0, found.err
    array = zarr.open_array("out.zarr/labels/tiledlaf/0", mode="r")
    (image,) = zarr.open_group("out.zarr", mode="r").attrs["ome"]["multiscales"]
    return array[...], image["datasets"][0]["coordinateTransformations"][0]["scale"], found.err


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def wrong(labels, step):
    truth = scene(step)[1]
    return float((labels != truth).mean())


def test_a_model_keeps_its_pixel_size_type_and_range(model):
    images = model_file.load(model).images
    assert images.pixel_size == (1.0, 1.0)
    assert images.dtype == "uint8"
    assert 40 < images.range[0] < 80 < 170 < images.range[1] < 220


def test_the_level_nearest_to_the_models_pixels_is_labeled(model):
    write("slide.ome.tif", 0.25, levels=4)
    labels, scale, told = labeled(model, "slide.ome.tif")
    assert labels.shape == (100, 160)
    assert scale == [1.0, 1.0]
    assert "level 2 is read" in told
    assert wrong(labels, 1) < 0.02


def test_where_no_level_is_near_pixels_are_resampled(model):
    write("other.ome.tif", 0.4)
    found = run("label", "other.ome.tif", "o.zarr", "--model", model, "--workers", "1")
    assert found.code == 0, found.err
    assert "resampled" in found.err
    assert "the grid 100 x 160" in found.err
    labels = zarr.open_array("o.zarr/labels/tiledlaf/0", mode="r")[...]
    assert wrong(labels, 1) < 0.02
    (image,) = zarr.open_group("o.zarr", mode="r").attrs["ome"]["multiscales"]
    shift = image["datasets"][0]["coordinateTransformations"][1]["translation"]
    assert shift == pytest.approx([0.3, 0.3])  # the centers of pixels of 1 µm among ones of 0.4


def test_resampled_labels_do_not_depend_on_tiles(model):
    write("slide.ome.tif", 0.3)
    with pytest.warns(tiledlaf.FileWarning, match="resampled"):
        whole = tiledlaf.label("slide.ome.tif", model=model, workers=1)
    with pytest.warns(tiledlaf.FileWarning, match="resampled"):
        tiled = tiledlaf.label("slide.ome.tif", model=model, workers=1, tile=32)
    np.testing.assert_array_equal(whole, tiled)


def test_too_large_pixels_are_refused_and_unknown_ones_get_a_word(model):
    write("coarse.ome.tif", 4)
    found = run("label", "coarse.ome.tif", "out.zarr", "--model", model)
    assert found.code == 2
    assert "expected pixels of 1 µm as the model learned at, got 4 µm" in found.err
    write("bare.ome.tif", 0, data=scene(1)[0])
    labels, _, told = labeled(model, "bare.ome.tif")
    assert labels.shape == (100, 160)
    assert "does not say its pixel size" in told
    assert "--input-pixel-size" in told


def test_a_stated_pixel_size_counts(model):
    write("bare.ome.tif", 0, data=scene(0.5)[0])
    labels, scale, _ = labeled(model, "bare.ome.tif", "--input-pixel-size", "0.5")
    assert labels.shape == (100, 160)
    assert scale == [1.0, 1.0]


def test_sixteen_bits_are_brought_to_the_models_range(model):
    data, truth = scene(1)
    write("deep.ome.tif", 1, data=data.astype(np.uint16) * 257)
    write("float.ome.tif", 1, data=(data / 255).astype(np.float32))
    write("plain.ome.tif", 1, data=data)
    expected = tiledlaf.label("plain.ome.tif", model=model, workers=1)
    for name in ("deep", "float"):
        found = run("label", f"{name}.ome.tif", f"{name}.zarr", "--model", model, "--workers", "1")
        assert "multiplied by" in found.err
        labels = zarr.open_array(f"{name}.zarr/labels/tiledlaf/0", mode="r")[...]
        np.testing.assert_array_equal(labels, expected)
        # the copy of the image has the pixels of the file
        copy = zarr.open_array(f"{name}.zarr/0", mode="r")
        np.testing.assert_array_equal(copy[...], tifffile.imread(f"{name}.ome.tif"))
        again = run("label", f"{name}.ome.tif", f"{name}.zarr", "--model", model)
        assert again.code == 0, again.err
    assert float((expected != truth).mean()) < 0.02
    write("camera.ome.tif", 1, data=data.astype(np.uint16) * 16)
    found = run("label", "camera.ome.tif", "camera.zarr", "--model", model)
    assert found.code == 2
    assert "--intensity-scale" in found.err
    labels, _, _ = labeled(model, "camera.ome.tif", "--intensity-scale", str(1 / 16))
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--pixel-size 0", "positive --pixel-size in micrometers, got 0"),
        ("--pixel-size 1 --level 0", "expected --level or --pixel-size, got both"),
        ("--intensity-scale nan", "finite --intensity-scale"),
        ("--input-pixel-size -1", "positive --input-pixel-size"),
    ],
)
def test_refusals(options, words):
    write("a.ome.tif", 1)
    found = run("label", "a.ome.tif", "out.zarr", "--classes", "2", *options.split())
    assert found.code == 2
    assert words in found.err
    write("b.ome.tif", 0, data=scene(1)[0])
    found = run(*["label", "b.ome.tif", "out.zarr", "--classes", "2", "--pixel-size", "2"])
    assert found.code == 2
    assert "pixel size is known" in found.err


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("step", [0.5, 2])
def test_masks_may_be_of_any_level(model, level, step):
    write("slide.ome.tif", 0.5, levels=3)
    mask = np.zeros(scene(step)[1].shape, np.uint8)
    mask[:, : mask.shape[1] // 2] = 1
    tifffile.imwrite("mask.tif", mask)
    options = ("--mask", "mask.tif", "--level", str(level))
    labels, _, _ = labeled(model, "slide.ome.tif", *options)
    half = labels.shape[1] // 2
    assert (labels[:, half:] == 0).all()
    assert (labels[:, :half] > 0).all()


def trained(model, image, *options):
    given = f"train {model} --images {image} --labels truth.tif --size 3 --steps 1 --workers 1"
    return run(*given.split(), *options)


def test_files_without_a_pixel_size_are_read_at_the_models_level(model):
    write("bare.ome.tif", 0, levels=2, data=scene(0.5)[0])
    tifffile.imwrite("truth.tif", scene(0.5)[1])
    assert trained("level.model", "bare.ome.tif", "--level", "1").code == 0
    labels, _, told = labeled("level.model", "bare.ome.tif")
    assert labels.shape == (100, 160)
    assert "level 1 is read, as the model learned at" in told
    # another level is another training, and another pixel size another run
    found = trained("level.model", "bare.ome.tif")
    assert found.code == 2
    assert "level.model" in found.err
    found = run("label", "bare.ome.tif", "out.zarr", "--model", "level.model", *STATED)
    assert found.code == 2
    assert "pixel size" in found.err


def test_a_model_without_pixel_size_says_so_of_several_levels(tmp_path):
    tifffile.imwrite("plain.tif", scene(1)[0])
    tifffile.imwrite("truth.tif", scene(1)[1])
    assert trained("p.model", "plain.tif").code == 0
    write("slide.ome.tif", 1, levels=2)
    labels, _, told = labeled("p.model", "slide.ome.tif")
    assert labels.shape == (100, 160)
    assert "does not say at which pixel size it learned: level 0 is labeled" in told


STATED = ("--level", "1", "--input-pixel-size", "0.5")


def test_labels_of_another_level_are_named():
    write("slide.ome.tif", 0.5, levels=3)
    tifffile.imwrite("small.tif", scene(2)[1])
    found = run(
        *["train", "s.model", "--images", "slide.ome.tif", "--labels", "small.tif", "--steps", "1"]
    )
    assert found.code == 2
    assert "the size of its level 2 (--level 2 reads that)" in found.err


def write_volume(path, *shapes):
    """Planes that have their own number, in levels that have fewer of them."""
    group = zarr.open_group(path, mode="w", zarr_format=2)
    datasets = []
    for level, (z, y, x) in enumerate(shapes):
        step = shapes[0][0] // z
        data = np.broadcast_to(np.arange(0, shapes[0][0], step)[:, None, None], (z, y, x))
        group.create_array(str(level), data=data.astype(np.uint8), chunks=(1, y, x))
        scale = [0.5 * a / b for a, b in zip(shapes[0], (z, y, x), strict=True)]
        moves = [{"type": "scale", "scale": scale}]
        datasets.append({"path": str(level), "coordinateTransformations": moves})
    axes = [{"name": a, "type": "space", "unit": "um"} for a in "zyx"]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]


def test_a_plane_is_one_of_level_0_where_the_level_is_chosen():
    write_volume("v.zarr", (8, 64, 64), (4, 32, 32))
    for z in (3, 6):
        with pytest.warns(tiledlaf.FileWarning, match="level 1 is read"):
            image = images.open_image("v.zarr", pixel_size=1.0, z=z)
        assert image.grid == (32, 32)
        assert image.read((slice(0, 1), slice(0, 1))).item() == z // 2 * 2


def test_arrays_have_the_models_pixels_or_are_refused(model):
    found = model_file.load(model)
    with pytest.warns(tiledlaf.FileWarning, match="the array does not say its pixel size"):
        expected = tiledlaf.label(scene(1)[0], model=found)
    labels = tiledlaf.label(scene(1)[0], model=found, input_pixel_size=1.1)
    assert wrong(labels, 1) < 0.02 > wrong(expected, 1)
    with pytest.raises(ValueError, match=r"as the model learned at, got 0.5 µm"):
        tiledlaf.label(scene(0.5)[0], model=found, input_pixel_size=0.5)


def test_an_output_has_one_pixel_size():
    """Another one that is stated later is not ignored."""
    write("a.ome.tif", 1)
    given = ("label", "a.ome.tif", "out.zarr", "--classes", "2", "--workers", "1")
    assert run(*given, "--input-pixel-size", "0.5").code == 0
    assert run(*given, "--input-pixel-size", "0.5").code == 0
    for other in (("--input-pixel-size", "0.3"), ("--input-pixel-size", "0.3", "--name", "b"), ()):
        found = run(*given, *other)
        assert found.code == 2
        assert "pixel size" in found.err


def test_pixels_of_unequal_edges():
    """No edge is divided further than files have detail, and the finer level is brought to them."""
    shapes = (4, 64, 256), (4, 64, 64), (4, 32, 32)
    write_volume("v.zarr", *shapes)  # pixels of 0.5 x 0.5, 0.5 x 2 and 1 x 4
    with pytest.warns(tiledlaf.FileWarning, match="level 0 is resampled .* grid 4 x 40 x 160"):
        image = images.open_image("v.zarr", pixel_size=(0.8, 0.8))
    assert (image.grid, image.scale[1:]) == ((4, 40, 160), (0.8, 0.8))
    with pytest.warns(tiledlaf.FileWarning, match="level 1 is resampled"):
        assert images.open_image("v.zarr", pixel_size=(0.8, 2.0)).grid == (4, 40, 64)
    with pytest.raises(ValueError, match="too large to be brought to it"):
        images.open_image("v.zarr", pixel_size=[2.0, 0.2])


def test_the_level_of_a_model_is_one_of_files():
    write_volume("v.zarr", (8, 64, 64), (4, 32, 32))
    learned = Selection(level=1, learned=True, z=6)
    with pytest.warns(tiledlaf.FileWarning, match="level 1 is read, as the model learned at"):
        image = images.open_image("v.zarr", learned)
    assert image.read((slice(0, 1), slice(0, 1))).item() == 6
    assert images.open_image("v.zarr", level=1, z=3).fixed == image.fixed
    with pytest.warns(tiledlaf.FileWarning, match="the model learned at level 1, and the array"):
        assert images.as_image(scene(1)[0], Selection(level=1, learned=True)).grid == (100, 160)
    tifffile.imwrite("one.tif", scene(1)[0])
    with pytest.raises(ValueError, match="level of 0 to 0"):
        images.open_image("one.tif", Selection(level=1, learned=True))
