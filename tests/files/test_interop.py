"""Our output, and inputs that we add to, as other people's tools see them."""

import hashlib
import json
from pathlib import Path

import numpy as np
import ome_zarr_models.v04
import ome_zarr_models.v05
import pytest
import zarr
from command import contents

from tiledlaf import label
from tiledlaf.files.images import open_image

# ome-zarr-py 0.18 uses by default, and as it is imported, what it has deprecated itself
pytestmark = pytest.mark.filterwarnings(
    "ignore:Call to deprecated class Scaler:DeprecationWarning",
    r"ignore:\s*The 'scaler' argument is deprecated:DeprecationWarning",
)

RNG = np.random.default_rng(11)
NAMES = ["ground", "cell", "nucleus"]
MODELS = {"0.4": ome_zarr_models.v04, "0.5": ome_zarr_models.v05}


def blobs(shape):
    coarse = RNG.integers(0, 256, tuple(-(-n // 9) for n in shape))
    for axis in range(len(shape)):
        coarse = np.repeat(coarse, 9, axis=axis)
    return coarse[tuple(slice(0, n) for n in shape)].astype(np.uint8)


SLIDE = np.stack([blobs((1000, 701)) for _ in range(3)])
SMALL = np.stack([blobs((150, 91)) for _ in range(3)])


def valid(path, version="0.5", image=True, names=("tiledlaf",)):
    """Validate a store with ome-zarr-models; its image's and its labels' metadata."""
    models = MODELS[version]
    mode = {"mode": "r", "zarr_format": 2 if version == "0.4" else 3}
    labels = models.Labels.from_zarr(zarr.open_group(path, path="labels", **mode))
    found = getattr(labels.attributes, "ome", labels.attributes)
    assert found.labels == list(names)
    groups = [zarr.open_group(path, path=f"labels/{name}", **mode) for name in names]
    masks = [models.ImageLabel.from_zarr(group).attributes for group in groups]
    shown = [models.Image.from_zarr(zarr.open_group(path, **mode)).attributes] if image else []
    return [getattr(a, "ome", a) for a in shown + masks]


def nodes(path):
    """What ome-zarr-py reads, by the path within the store."""
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    root = str(Path(path).resolve())
    found = Reader(parse_url(path))()
    return {str(n.zarr).split(" ")[0].removeprefix(root).strip("/"): n for n in found}


def bioio(path):
    from bioio import BioImage
    from bioio_ome_zarr import Reader

    return BioImage(path, reader=Reader)


def shapes(node):
    return [level.shape for level in node.data]


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("out") / "a.zarr")
    # as colors, whose axis is the last
    label(np.moveaxis(SLIDE, 0, -1), path, classes=3, names=NAMES, tile=128, confidence=True)
    return path


def test_models_accept_the_output(output):
    image, labels = valid(output)
    assert image.version == labels.version == "0.5"
    assert [a.name for a in image.multiscales[0].axes] == ["c", "y", "x"]
    assert len(image.multiscales[0].datasets) == len(labels.multiscales[0].datasets) == 2
    shown = ome_zarr_models.v04.omero.Omero.model_validate(image.omero)
    assert [c.color for c in shown.channels] == ["FF0000", "00FF00", "0000FF"]
    assert {(c.window.start, c.window.end) for c in shown.channels} == {(0, 255)}
    assert [p.name for p in (labels.image_label.properties)] == NAMES
    assert [c.label_value for c in labels.image_label.colors] == [1, 2, 3]
    assert labels.image_label.source.image == "../../"
    confidence = zarr.open_group(output, path="confidence", mode="r")
    assert len(MODELS["0.5"].Image.from_zarr(confidence).attributes.ome.multiscales) == 1


def test_ome_zarr_py_reads_the_output(output):
    found = nodes(output)
    image, labels = found[""], found["labels/tiledlaf"]
    assert shapes(image) == [(3, 1000, 701), (3, 500, 351)]
    assert shapes(labels) == [(1000, 701), (500, 351)]
    np.testing.assert_array_equal(np.asarray(image.data[0]), SLIDE)
    np.testing.assert_array_equal(np.asarray(labels.data[0]), label(SLIDE, classes=3))
    assert labels.metadata["color"][1] == pytest.approx([0, 114 / 255, 178 / 255, 1])
    assert set(labels.metadata["color"]) == {1, 2, 3}
    assert labels.metadata["properties"] == {v: {"name": n} for v, n in enumerate(NAMES, 1)}


def test_bioio_reads_the_output(output):
    image, labels = bioio(output), bioio(f"{output}/labels/tiledlaf")
    np.testing.assert_array_equal(image.get_image_data("CYX"), SLIDE)
    np.testing.assert_array_equal(labels.get_image_data("YX"), label(SLIDE, classes=3))
    assert image.channel_names == ["red", "green", "blue"]
    assert bioio(f"{output}/confidence").get_image_data("YX").dtype == np.float32


# a tile of 100 pixels makes chunks that are no power of two, of 16 too small to make levels
@pytest.mark.parametrize("tile", [16, 100])
def test_any_tile_is_read(tmp_path, tile):
    path = str(tmp_path / "a.zarr")
    label(SLIDE[0, :, :90], path, classes=2, tile=tile)
    valid(path)
    found = nodes(path)["labels/tiledlaf"]
    labels = label(SLIDE[0, :, :90], classes=2)
    for level, f in zip(found.data, (1, 2), strict=True):
        np.testing.assert_array_equal(np.asarray(level), labels[::f, ::f])
    np.testing.assert_array_equal(bioio(path).get_image_data("YX"), SLIDE[0, :, :90])


def test_a_volume_is_read(tmp_path):
    volume, path = blobs((12, 70, 60)), str(tmp_path / "a.zarr")
    label(volume, path, classes=2, axes="zyx", neighborhood="3x3x3", tile=32)
    valid(path)
    np.testing.assert_array_equal(bioio(path).get_image_data("ZYX"), volume)
    assert shapes(nodes(path)["labels/tiledlaf"]) == [(12, 70, 60)]


def test_labels_alone_are_read(tmp_path):
    path = str(tmp_path / "a.zarr")
    label(SMALL, path, classes=2, copy_image=False, tile=64)
    valid(path, image=False)
    labels = bioio(f"{path}/labels/tiledlaf").get_image_data("YX")
    np.testing.assert_array_equal(labels, label(SMALL, classes=2))


# inputs of others, which labels are added to


def write_ome_zarr_py(path, version, pixels=SMALL):
    from ome_zarr.format import FormatV04, FormatV05
    from ome_zarr.writer import write_multiscale

    levels = [pixels[None, :, None, ::f, ::f].copy() for f in (1, 2, 4)]
    write_multiscale(
        levels,
        zarr.open_group(path, zarr_format=2 if version == "0.4" else 3),
        fmt=FormatV04() if version == "0.4" else FormatV05(),
        axes="tczyx",
        scale={"t": 1.0, "c": 1.0, "z": 2.0, "y": 0.5, "x": 0.25},
        axes_units=dict.fromkeys("zyx", "micrometer"),
        storage_options={"chunks": (1, 1, 1, 64, 64)},
    )
    return [level.shape[2:] for level in levels], (2.0, 0.5, 0.25)


def write_ngff_zarr(path, version):
    import ngff_zarr

    image = ngff_zarr.to_ngff_image(
        SMALL,
        dims=("c", "y", "x"),
        scale={"y": 0.5, "x": 0.25},
        translation={"y": 5.0, "x": 6.0},
        axes_units={"y": "micrometer", "x": "micrometer"},
    )
    scales = ngff_zarr.to_multiscales(image, [2, 4], chunks=64)
    ngff_zarr.to_ngff_zarr(path, scales, version=version)
    return [level.data.shape[1:] for level in scales.images], (0.5, 0.25)


def hashes(store, *without):
    """Content of every file of a store, except below some of its folders."""
    files = (p for p in Path(store).rglob("*") if p.is_file())
    found = {str(p.relative_to(store)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
    return {k: v for k, v in found.items() if not k.startswith(tuple(f"{w}/" for w in without))}


def consolidated(store):
    """A store's file with consolidated metadata, and these; ("", {}) without."""
    old, new = Path(store) / ".zmetadata", Path(store) / "zarr.json"
    if old.is_file():
        return old.name, json.loads(old.read_text())["metadata"]
    found = json.loads(new.read_text()).get("consolidated_metadata") if new.is_file() else None
    return (new.name, found["metadata"]) if found else ("", {})


# itkwasm, which ngff-zarr calls, sets shapes in a way that numpy 2.5 deprecates
@pytest.mark.filterwarnings("ignore:Setting the shape on a NumPy array:DeprecationWarning")
@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("write", [write_ome_zarr_py, write_ngff_zarr])
def test_labels_are_added_to_an_input(tmp_path, write, version):
    path = str(tmp_path / "in.zarr")
    sizes, scale = write(path, version)
    before, (index, entries) = hashes(path), consolidated(path)
    label(path, path, classes=3, into_input=True, tile=64)
    after = hashes(path, "labels")
    assert {k: v for k, v in after.items() if k != index} == {
        k: v for k, v in before.items() if k != index
    }
    if write is write_ngff_zarr:  # which consolidates: readers do not look beyond
        added = {k: v for k, v in consolidated(path)[1].items() if k.startswith("labels")}
        assert consolidated(path)[1] == entries | added
        assert zarr.open_group(path)["labels/tiledlaf/2"].shape == sizes[2]
    _, labels = valid(path, version)
    assert len(labels.multiscales[0].datasets) == len(sizes)
    first = labels.multiscales[0].datasets[0].coordinateTransformations
    assert tuple(first[0].scale) == scale
    if write is write_ngff_zarr:
        assert tuple(first[1].translation) == (5.0, 6.0)
    found = nodes(path)
    assert shapes(found["labels/tiledlaf"]) == list(sizes)
    whole = label(path, classes=3)
    for level, f in zip(found["labels/tiledlaf"].data, (1, 2, 4), strict=True):
        n, m = level.shape[-2:]
        np.testing.assert_array_equal(np.asarray(level), whole[..., ::f, ::f][..., :n, :m])
    np.testing.assert_array_equal(bioio(path).get_image_data("CYX"), SMALL)
    sizes = bioio(f"{path}/labels/tiledlaf").physical_pixel_sizes
    assert scale[-2:] == (sizes.Y, sizes.X)
    kinds = {p.name for p in Path(path).rglob("*")} & {"zarr.json", ".zgroup"}
    assert kinds == ({".zgroup"} if version == "0.4" else {"zarr.json"})


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_coarse_level_and_a_region_are_added(tmp_path, version):
    path = str(tmp_path / "in.zarr")
    write_ome_zarr_py(path, version)
    before = hashes(path)
    label(path, path, classes=3, into_input=True, level=1, tile=32, name="coarse")
    region = ((0, 1), (5, 70), (33, 46))
    label(path, path, classes=3, into_input=True, level=1, name="part", region=region, tile=32)
    assert hashes(path, "labels") == before
    coarse, part = valid(path, version, image=False, names=("coarse", "part"))
    source = open_image(path, level=1)
    assert source.scale == pytest.approx((2.0, 1.0, 0.25 * 91 / 46))
    for labels, start in ((coarse, (0, 0, 0)), (part, (0, 5, 33))):
        scale, shift = labels.multiscales[0].datasets[0].coordinateTransformations
        assert tuple(scale.scale) == source.scale
        assert shift.translation == pytest.approx(
            [t + n * s for t, n, s in zip(source.translation, start, source.scale, strict=True)]
        )
    found = nodes(path)
    whole = label(path, classes=3, level=1)
    np.testing.assert_array_equal(np.asarray(found["labels/coarse"].data[0]), whole)
    part = np.asarray(found["labels/part"].data[0])
    np.testing.assert_array_equal(part, whole[:, 5:70, 33:46])


def test_labels_of_a_coarse_level_have_as_many_levels_as_the_image(tmp_path):
    path = str(tmp_path / "in.zarr")
    write_ome_zarr_py(path, "0.5")
    label(path, path, classes=3, into_input=True, level=1, tile=32)
    valid(path)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_labels_of_others_stay(tmp_path, version):
    from ome_zarr.writer import write_labels

    path = str(tmp_path / "in.zarr")
    write_ome_zarr_py(path, version)
    group = zarr.open_group(path, mode="a")
    mask = (SMALL[0] > 99).astype(np.uint8)[None, None, None]
    write_labels(mask, group, name="nuclei", axes="tczyx", scale_factors=[2])
    before = hashes(path)
    own = {k: v for k, v in before.items() if "nuclei/" in k or not k.startswith("labels/")}
    label(path, path, classes=3, into_input=True, tile=64)
    after = hashes(path)
    assert {k: after[k] for k in own} == own
    found = nodes(path)
    np.testing.assert_array_equal(np.asarray(found["labels/nuclei"].data[0]), mask)
    assert shapes(found["labels/tiledlaf"])[0] == (1, 150, 91)
    with pytest.raises(ValueError, match="not of tiledlaf"):
        label(path, path, classes=3, into_input=True, name="nuclei")
    assert hashes(path) == after


def test_confidence_of_another_origin_is_not_written_over(tmp_path):
    import zarr

    path = str(tmp_path / "in.zarr")
    write_ome_zarr_py(path, "0.5")
    zarr.create_group(path, path="confidence", attributes={"theirs": 1})
    with pytest.raises(ValueError, match=r"expected no confidence .* one of another origin"):
        label(path, path, classes=3, into_input=True, tile=32, confidence=True)
    assert dict(zarr.open_group(path, path="confidence", mode="r").attrs) == {"theirs": 1}


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("kind", ["array", "files"])
@pytest.mark.parametrize("name", ["confidence", "labels/tiledlaf"])
def test_what_is_not_ours_stays(tmp_path, version, kind, name):
    """Without --overwrite nothing is replaced, whether it is listed or not."""
    path = str(tmp_path / "in.zarr")
    write_ome_zarr_py(path, version)
    if kind == "array":
        zarr.create_array(path, name=name, data=SMALL, zarr_format=2 if version == "0.4" else 3)
    else:
        (tmp_path / "in.zarr" / name).mkdir(parents=True)
        (tmp_path / "in.zarr" / name / "notes.txt").write_text("theirs")
    before = contents(path)
    with pytest.raises(ValueError, match=r"of another origin|not of tiledlaf"):
        label(path, path, classes=3, into_input=True, tile=32, confidence=True)
    assert contents(path) == before
