"""Plates, wells, series and SpatialData: which image is meant, and where its labels go."""

import json
import os
import subprocess

import numpy as np
import pytest
import zarr
from command import run

from tiledlaf import label
from tiledlaf.files import images, nodes
from tiledlaf.files.image import FileWarning

RNG = np.random.default_rng(0)
IDENTITY = [{"type": "scale", "scale": [1, 1]}]
KINDS = {"c": "channel"}


def image_at(place, shape=(30, 40), zarr_format=3, **more):
    group = zarr.open_group(place, mode="w", zarr_format=zarr_format)
    options = {"chunk_key_encoding": {"name": "v2", "separator": "/"}} if zarr_format == 2 else {}
    pixels = RNG.integers(0, 255, shape, dtype=np.uint8)
    chunks = tuple(min(n, 16) for n in shape)
    group.create_array("0", shape=shape, chunks=chunks, dtype="u1", **options)[:] = pixels
    axes = [{"name": a, "type": KINDS.get(a, "space")} for a in "cyx"[-len(shape) :]]
    moves = [{"type": "scale", "scale": [1] * len(shape)}]
    image = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": moves}]} | more
    described(group, {"multiscales": [image]})
    return pixels


def described(group, found):
    old = group.metadata.zarr_format == 2
    group.attrs.update(found if old else {"ome": {"version": "0.5", **found}})


def group_at(place, found, zarr_format=3):
    described(zarr.open_group(place, mode="w", zarr_format=zarr_format), found)


def plate_at(place, wells, fields, zarr_format=3):
    group_at(place, {"plate": {"wells": [{"path": well} for well in wells]}}, zarr_format)
    pixels = {}
    for well in wells:
        listed = {"well": {"images": [{"path": str(field)} for field in range(fields)]}}
        group_at(place / well, listed, zarr_format)
        for field in range(fields):
            name = f"{well}/{field}"
            pixels[name] = image_at(place / name, zarr_format=zarr_format)
    return pixels


def read(image):
    return image.read(tuple(slice(0, n) for n in image.grid))[0]


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_fields_of_a_plate(tmp_path, zarr_format):
    path = str(tmp_path / "plate.zarr")
    pixels = plate_at(tmp_path / "plate.zarr", ["A/1", "B/2"], 2, zarr_format)
    with pytest.raises(ValueError, match=r"got a plate with 4 fields, A/1/0, A/1/1, B/2/0, B/2/1:"):
        images.open_image(path)
    with pytest.raises(ValueError, match=r"got a well with 2 fields, 0, 1: .*/B/2/0"):
        images.open_image(f"{path}/B/2")
    for name, expected in pixels.items():
        np.testing.assert_array_equal(read(images.open_image(f"{path}/{name}")), expected)
        found = images.open_image(path, series=name)
        np.testing.assert_array_equal(read(found), expected)
        assert found.fingerprint() == images.open_image(f"{path}/{name}").fingerprint()
    np.testing.assert_array_equal(read(images.open_image(path, series=2)), pixels["B/2/0"])
    with pytest.raises(ValueError, match=r"expected one of its 4 fields for `series`.*got 'C/1/0'"):
        images.open_image(path, series="C/1/0")
    parts = images.parts(path)
    assert [part.name for part in parts] == list(pixels)
    assert {(p.axes, p.shape, p.dtype) for p in parts} == {("yx", (30, 40), "uint8")}


def test_a_plate_of_one_field(tmp_path):
    ((name, pixels),) = plate_at(tmp_path, ["A/1"], 1).items()
    with pytest.warns(FileWarning, match=f"a plate of one image, {name}, which is taken"):
        np.testing.assert_array_equal(read(images.open_image(tmp_path)), pixels)
    np.testing.assert_array_equal(read(images.open_image(tmp_path, series="A/1")), pixels)


@pytest.mark.parametrize("listed", [False, True])
def test_series_of_bioformats2raw(tmp_path, listed):
    group_at(tmp_path, {"bioformats2raw.layout": 3})
    pixels = [image_at(tmp_path / str(k), shape) for k, shape in enumerate([(9, 9), (50, 60)])]
    xml = (
        '<OME xmlns="x"><Image ID="Image:0" Name="macro"/><Image ID="Image:1" Name="slide"/></OME>'
    )
    group_at(tmp_path / "OME", {"series": ["0", "1"]} if listed else {})
    (tmp_path / "OME/METADATA.ome.xml").write_text(xml)
    with pytest.warns(FileWarning, match="2 series; the largest, 1 'slide' of 50 x 60, is taken"):
        found = images.open_image(tmp_path)
    np.testing.assert_array_equal(read(found), pixels[1])
    for series in (0, "0", "macro"):
        np.testing.assert_array_equal(read(images.open_image(tmp_path, series=series)), pixels[0])
    assert [part.title for part in images.parts(tmp_path)] == ["macro", "slide"]


def test_labels_go_into_the_image_of_a_group(tmp_path):
    plate_at(tmp_path / "plate.zarr", ["A/1"], 2)
    path = str(tmp_path / "plate.zarr")
    label(path, series="A/1/1", prototypes=[[60], [180]], into_input=True)
    assert images.open_labels(f"{path}/A/1/1/labels/tiledlaf").grid == (30, 40)
    assert not (tmp_path / "plate.zarr/labels").exists()


# SpatialData


def element(scale=0.5, name="global", kind="scale", axes="yx"):
    """A transformation as SpatialData writes it."""
    listed = [{"name": a, "type": KINDS.get(a, "space"), "unit": "unit"} for a in axes]
    turned = np.array([[1, 0, 0, 0], [0, scale, 0.1, 3], [0, 0, scale, 4]])
    first = 3 - len(axes)
    values = {"scale": [1, scale, scale][first:], "affine": turned[first:, first:].tolist()}
    end = {"axes": listed, "name": name}
    return {"type": kind, kind: values[kind], "input": end | {"name": axes}, "output": end}


@pytest.fixture
def spatial(tmp_path):
    path = tmp_path / "sdata.zarr"
    zarr.open_group(path, attributes={"spatialdata_attrs": {"version": "0.2"}})
    for folder in ("images", "labels", "shapes"):
        zarr.open_group(path / folder)
    zarr.open_group(path / "shapes/cells")
    moves = {
        "slide": [element(axes="cyx")],
        "turned": [element(kind="affine", axes="cyx"), element(1, "other", axes="cyx")],
    }
    for name, listed in moves.items():
        image_at(path / "images" / name, (1, 30, 40), coordinateTransformations=listed)
        group = zarr.open_group(path / "images" / name)
        group.attrs["ome"] = group.attrs["ome"] | {"version": "0.5-dev-spatialdata"}
        group.attrs["spatialdata_attrs"] = {"version": "0.3"}
    with pytest.warns(UserWarning, match="Consolidated metadata"):
        zarr.consolidate_metadata(path)
    return str(path)


def described_at(path, group):
    found = json.loads((path / group / "zarr.json").read_text())["attributes"]
    return found, found["ome"]["multiscales"][0]


def test_labels_go_back_as_an_element_of_spatialdata(spatial, tmp_path):
    image = images.open_image(f"{spatial}/images/slide")
    assert (image.scale, image.units) == ((0.5, 0.5), (None, None))
    options = {"prototypes": [[60], [180]], "into_input": True}
    label(f"{spatial}/images/slide", name="tissue", **options)
    label(f"{spatial}/images/slide", name="part", region=[(10, 30), (4, 40)], **options)
    attributes, found = described_at(tmp_path / "sdata.zarr", "labels/tissue")
    assert attributes["spatialdata_attrs"] == {"version": "0.3"}
    assert attributes["ome"]["version"] == "0.5-dev-spatialdata"
    assert "source" not in attributes["ome"]["image-label"]  # would count as another level
    assert found["coordinateTransformations"] == [element()]
    assert found["datasets"][0]["coordinateTransformations"] == IDENTITY
    _, part = described_at(tmp_path / "sdata.zarr", "labels/part")
    (move,) = part["coordinateTransformations"]
    assert move["output"]["name"] == "global"
    shift, last = move["transformations"]
    assert (shift["translation"], last) == ([10, 4], element())
    root = json.loads((tmp_path / "sdata.zarr/zarr.json").read_text())
    listed = root["consolidated_metadata"]["metadata"]
    assert {"labels/tissue", "labels/tissue/0", "labels/part"} <= listed.keys()
    assert json.loads((tmp_path / "sdata.zarr/labels/zarr.json").read_text())["attributes"]["ome"][
        "labels"
    ] == ["tissue", "part"]
    # and it goes on, or is complete
    label(f"{spatial}/images/slide", name="tissue", **options)


def test_transformations_of_spatialdata_that_an_output_cannot_keep(spatial, tmp_path):
    path = f"{spatial}/images/turned"
    with pytest.warns(FileWarning) as words:
        label(path, prototypes=[[60], [180]], into_input=True)
    assert [str(w.message).split("turned: ")[1] for w in words] == [
        "its affine transformation to 'global' is kept by `into_input` alone",
        "its transformations to 'other' are kept by `into_input` alone",
    ]
    _, found = described_at(tmp_path / "sdata.zarr", "labels/tiledlaf")
    assert found["coordinateTransformations"] == [element(kind="affine"), element(1, "other")]


def test_elements_of_spatialdata_are_named(spatial):
    with pytest.raises(
        ValueError, match="with 2 elements, images/slide, images/turned: choose one"
    ):
        images.open_image(spatial)
    assert images.open_image(spatial, series="images/slide").grid == (30, 40)
    options = ["--classes", "2", "--into-input"]
    for name, problem in (("cells", "shapes/cells"), ("slide", "images/slide")):
        found = run("label", f"{spatial}/images/slide", *options, "--name", name)
        assert (found.code, problem in found.err) == (2, True), found
    found = run("label", f"{spatial}/images/slide", *options, "--confidence")
    assert (found.code, "no place in SpatialData" in found.err) == (2, True), found


def test_spatialdata_reads_its_labels(spatial):
    python = os.environ.get("SPATIALDATA_PYTHON")  # its bounds on dask differ from ours
    if python is None:
        pytest.skip("NOT TESTED: SPATIALDATA_PYTHON names no interpreter with spatialdata")
    options = {"prototypes": [[60], [180]], "into_input": True}
    label(f"{spatial}/images/slide", name="tissue", **options)
    label(f"{spatial}/images/slide", name="part", region=[(10, 30), (4, 40)], **options)
    code = f"""
import json, spatialdata
found = spatialdata.read_zarr({spatial!r}, selection=("images", "labels"))
extents = ((n, spatialdata.get_extent(found[n]).values()) for n in ("slide", "tissue", "part"))
print(json.dumps({{name: [list(map(float, v)) for v in values] for name, values in extents}}))
"""
    found = subprocess.run([python, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    extents = json.loads(found.stdout.splitlines()[-1])
    assert extents["tissue"] == extents["slide"] == [[0, 15], [0, 20]]
    assert extents["part"] == [[5, 15], [2, 20]]


def test_of_a_large_plate_only_the_field_is_looked_up(tmp_path, monkeypatch):
    wells = ["A/1", "A/2", "B/1", "B/2"]
    pixels, asked = plate_at(tmp_path / "p", wells, 2), []
    seen = nodes.attributes
    monkeypatch.setattr(nodes, "attributes", lambda *a: asked.append(a) or seen(*a))
    image = images.open_image(tmp_path / "p", series="B/2/1")
    np.testing.assert_array_equal(read(image), pixels["B/2/1"])
    assert len(asked) == 2
    for other in ("B/2/2", "B/3/0", "../p/A/1/0"):
        with pytest.raises(ValueError, match="8 fields for `series`"):
            images.open_image(tmp_path / "p", series=other)
