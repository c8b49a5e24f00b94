"""Axes and coordinate transformations of NGFF 0.1 to 0.6: kept, or named and refused."""

import numpy as np
import pytest
import zarr

from tiledlaf import label
from tiledlaf.files import images
from tiledlaf.files.image import FileWarning

RNG = np.random.default_rng(0)
OUTER = "coordinateTransformations"
YX = [{"name": a, "type": "space", "unit": "micrometer"} for a in "yx"]
ONE = [{"type": "scale", "scale": [1, 1]}]


def store(place, image, version="0.5", shapes=((40, 60),), zarr_format=3):
    """A store with these multiscales; "PATHS" stands for datasets without transformations."""
    group = zarr.open_group(place, mode="w", zarr_format=zarr_format)
    options = {"chunk_key_encoding": {"name": "v2", "separator": "/"}} if zarr_format == 2 else {}
    for level, shape in enumerate(shapes):
        pixels = RNG.integers(0, 255, shape, dtype=np.uint8)
        chunks = tuple(min(n, 32) for n in shape)
        group.create_array(str(level), shape=shape, chunks=chunks, dtype="u1", **options)[:] = (
            pixels
        )
    if "datasets" not in image:
        image = image | {"datasets": [{"path": str(level)} for level in range(len(shapes))]}
    if zarr_format == 2:
        group.attrs["multiscales"] = [image | {"version": version}]
    else:
        group.attrs["ome"] = {"version": version, "multiscales": [image]}
    return str(place)


def moved(*transforms, level="0"):
    return [{"path": level, OUTER: list(transforms)}]


def scale(*values, **ends):
    return {"type": "scale", "scale": list(values), **ends}


def shift(*values, **ends):
    return {"type": "translation", "translation": list(values), **ends}


@pytest.mark.parametrize(
    ("version", "axes", "shape", "expected"),
    [
        ("0.1", None, (1, 2, 1, 40, 60), "tczyx"),
        ("0.2", None, (1, 2, 3, 40, 60), "tczyx"),
        ("0.2", None, (40, 60), "yx"),
        ("0.3", ["z", "y", "x"], (3, 40, 60), "zyx"),
        ("0.3", ["C", "Y", "X"], (5, 40, 60), "cyx"),
    ],
)
def test_old_versions(tmp_path, version, axes, shape, expected):
    image = {} if axes is None else {"axes": axes}
    coarse = (*shape[:-2], 20, 30)
    path = store(tmp_path / "a", image, version, [shape, coarse], zarr_format=2)
    fine, small = images.open_image(path), images.open_image(path, level=1)
    assert (fine.axes, fine.scale[-2:], fine.units[-2:]) == (expected, (1.0, 1.0), (None, None))
    assert small.scale[-2:] == (2.0, 2.0)


WORDS = {
    "capitals": [("C", "channel"), ("Z", "space"), ("Y", "space"), ("X", "space")],
    "words": [("Channel", ""), ("plane", ""), ("row", "space"), ("col", "space")],
    "types": [("stain", "channel"), ("depth", "space"), ("height", ""), ("width", "")],
}


@pytest.mark.parametrize("kind", WORDS)
def test_axes_by_name_or_type(tmp_path, kind):
    axes = [{"name": name} | ({"type": kind} if kind else {}) for name, kind in WORDS[kind]]
    image = {"axes": axes, "datasets": moved(scale(1, 3, 2, 2))}
    found = images.open_image(store(tmp_path / "a", image, shapes=[(2, 3, 40, 60)]))
    assert (found.axes, found.scale) == ("czyx", (3.0, 2.0, 2.0))


def test_names_of_plain_arrays(tmp_path):
    for names, axes in ((("row", "Col"), "yx"), (("Channel", "Y", "X"), "cyx")):
        shape = (7, 40, 60)[-len(names) :]
        path = tmp_path / axes
        zarr.create_array(path, shape=shape, dtype="u1", dimension_names=names)
        assert images.open_image(path).axes == axes


def test_unknown_axes_are_asked_for(tmp_path):
    axes = [{"name": name, "type": "space"} for name in ("u", "v", "w")]
    path = store(
        tmp_path / "a", {"axes": axes, "datasets": moved(scale(3, 2, 1))}, shapes=[(5, 9, 9)]
    )
    with pytest.raises(ValueError, match="axes are called u, v, w; name them with `axes`"):
        images.open_image(path)
    found = images.open_image(path, axes="zyx")
    assert (found.axes, found.scale) == ("zyx", (3.0, 2.0, 1.0))


SYSTEMS = [{"name": "physical", "axes": YX}, {"name": "stage", "axes": YX}]
TURN = {"type": "rotation", "rotation": [[0, 1], [-1, 0]]}
KEPT = {
    "0.5 scale and shift": ("0.5", [scale(0.5, 0.25), shift(3, 4)], []),
    "0.5 whole": ("0.5", [scale(0.25, 0.125), shift(1.5, 2)], [scale(2, 2)]),
    "0.6 strings": ("0.6", [scale(0.5, 0.25, input="0", output="physical")], [shift(3, 4)]),
    "0.6 objects": (
        "0.6",
        [scale(0.5, 0.25, input={"path": "0"}, output={"name": "physical"})],
        [shift(3, 4, input={"name": "physical"}, output={"name": "stage"})],
    ),
    "0.6 sequence": (
        "0.6",
        [
            {
                "type": "sequence",
                "transformations": [scale(0.5, 0.25), shift(3, 4)],
                "output": "physical",
            }
        ],
        [],
    ),
    "0.6 affine": ("0.6", [{"type": "affine", "affine": [[0.5, 0, 3], [0, 0.25, 4]]}], []),
    "0.6 flat affine": ("0.6", [{"type": "affine", "affine": [0.5, 0, 3, 0, 0.25, 4]}], []),
    "0.6 bijection": (
        "0.6",
        [
            {
                "type": "bijection",
                "forward": {"type": "affine", "affine": [[0.5, 0, 3], [0, 0.25, 4], [0, 0, 1]]},
                "inverse": scale(2, 4),
            }
        ],
        [],
    ),
    "0.6 dimensions": (
        "0.6",
        [
            {
                "type": "byDimension",
                "transformations": [
                    {"transformation": scale(0.25), "input_axes": [1], "output_axes": [1]},
                    {**scale(0.5), "input": ["y"], "output": ["y"]},
                ],
            }
        ],
        [{"type": "identity"}, shift(3, 4)],
    ),
    "0.6 no turn": (
        "0.6",
        [scale(0.5, 0.25)],
        [{"type": "rotation", "rotation": [[1, 0], [0, 1]]}, shift(3, 4)],
    ),
    "0.6 stored": (
        "0.6",
        [{"type": "scale", "path": "moves/s"}, {"type": "translation", "path": "moves/t"}],
        [],
    ),
}


@pytest.mark.parametrize("kind", KEPT)
def test_transformations_are_kept_through_to_the_output(tmp_path, kind):
    version, own, whole = KEPT[kind]
    image = {"datasets": moved(*own), OUTER: whole}
    image |= {"coordinateSystems": SYSTEMS} if version == "0.6" else {"axes": YX}
    path = store(tmp_path / "a", image, version)
    for name, values in (("s", [0.5, 0.25]), ("t", [3.0, 4.0])):
        zarr.create_array(path, name=f"moves/{name}", data=np.array(values))
    found = images.open_image(path)
    assert found.axes == "yx"
    assert found.scale == (0.5, 0.25)
    assert found.translation == (3.0, 4.0)
    assert found.units == ("micrometer", "micrometer")


def test_the_output_has_scale_and_shift(tmp_path):
    image = {"coordinateSystems": SYSTEMS, "datasets": moved(scale(0.5, 0.25), shift(3, 4))}
    label(store(tmp_path / "a", image, "0.6"), tmp_path / "out", prototypes=[[0], [255]])
    for group in ("", "labels/tiledlaf"):
        found = images.open_image(tmp_path / "out" / group)
        assert (found.scale, found.translation) == ((0.5, 0.25), (3.0, 4.0))
        assert found.units == ("micrometer", "micrometer")


def test_axes_in_another_order(tmp_path):
    """An array of (x, y) whose transformation says so is refused as such, not read as (y, x)."""
    swap = {"type": "mapAxis", "mapAxis": [1, 0], "output": "physical"}
    path = store(tmp_path / "a", {"coordinateSystems": SYSTEMS, "datasets": moved(swap)}, "0.6")
    with pytest.raises(ValueError, match="y and x in this order, got 'xy'"):
        images.open_image(path)
    axes = [{"name": a} for a in "czyx"]
    order = {"type": "mapAxis", "mapAxis": [1, 0, 2, 3], "output": "physical"}
    move = {"type": "sequence", "transformations": [order, scale(1, 5, 2, 2)], "output": "physical"}
    image = {"coordinateSystems": [{"name": "physical", "axes": axes}], "datasets": moved(move)}
    found = images.open_image(store(tmp_path / "b", image, "0.6", [(3, 2, 40, 60)]))
    assert (found.axes, found.scale) == ("zcyx", (5.0, 2.0, 2.0))


UNKEPT = {
    "rotation": [TURN],
    "affine": [{"type": "affine", "affine": [[1, 0.1, 0], [0, 1, 0]]}],
    "scale, rotation": [{"type": "sequence", "transformations": [scale(2, 2), TURN]}],
    "displacements": [{"type": "displacements", "path": "field"}],
    "coordinates": [{"type": "coordinates", "path": "field"}],
    "magic": [{"type": "magic"}],
}


@pytest.mark.parametrize("kind", UNKEPT)
@pytest.mark.parametrize("whole", [False, True])
def test_other_transformations_are_named_and_refused(tmp_path, kind, whole):
    own, outer = (ONE, UNKEPT[kind]) if whole else (UNKEPT[kind], [])
    image = {"coordinateSystems": SYSTEMS, "datasets": moved(*own), OUTER: outer}
    path = store(tmp_path / "a", image, "0.6")
    with pytest.raises(ValueError, match=rf"{kind}\) is more than a pixel size.*a/0 is the array"):
        images.open_image(path)
    assert images.open_image(f"{path}/0").axes == "yx"


@pytest.mark.parametrize(
    ("own", "problem"),
    [
        ([scale(1, 0)], r"damaged, with a scale of \[1.0, 0.0\]"),
        ([scale(1, -1)], r"damaged, with a scale of"),
        ([scale(1, float("nan"))], r"damaged, with a scale of"),
        ([scale(1, 1, 1)], "a scale of 3 numbers for 2 axes"),
        ([scale(1, 1), scale(2, 2)], "expected one scale of '0', got 2"),
        ([scale(1, 1), shift(1)], "a translation of 1 numbers for 2 axes"),
        ([{"type": "scale"}], "cannot be read, KeyError"),
    ],
)
def test_damaged_transformations_are_named(tmp_path, own, problem):
    with pytest.raises(ValueError, match=problem):
        images.open_image(store(tmp_path / "a", {"axes": YX, "datasets": moved(*own)}))


def test_a_scale_of_channels_need_not_make_sense(tmp_path):
    axes = [{"name": "c", "type": "channel"}, *YX]
    path = store(
        tmp_path / "a", {"axes": axes, "datasets": moved(scale(0, 2, 2))}, shapes=[(2, 9, 9)]
    )
    assert images.open_image(path).scale == (2.0, 2.0)


def test_scales_that_are_missing_get_a_word(tmp_path):
    path = store(tmp_path / "a", {"axes": YX}, shapes=[(40, 60), (20, 20)])
    with pytest.warns(FileWarning, match="no scale of '0', '1': taken from the shapes"):
        assert images.open_image(path, level=1).scale == (2.0, 3.0)


def test_levels_and_images_that_are_missing_or_many(tmp_path):
    datasets = [*moved(*ONE), *moved(scale(2, 2), level="1")]
    path = store(tmp_path / "a", {"axes": YX, "datasets": datasets})
    with pytest.warns(FileWarning, match="its levels '1' are not there"):
        assert images.open_image(path).levels == ((40, 60),)
    path = store(tmp_path / "b", {"axes": YX, "datasets": moved(*ONE, level="no")})
    with pytest.raises(ValueError, match="expected its finest level, the array 'no', found none"):
        images.open_image(path)
    group = zarr.open_group(store(tmp_path / "c", {"axes": YX, "datasets": moved(*ONE)}))
    found = group.attrs["ome"]
    group.attrs["ome"] = found | {"multiscales": [*found["multiscales"], {"name": "other"}]}
    with pytest.warns(FileWarning, match="it has 2 images, '0', 'other': the first is taken"):
        images.open_image(tmp_path / "c")


def test_of_several_coordinate_systems_one_is_taken(tmp_path):
    outer = [shift(9, 9, output="stage"), shift(3, 4, output="global")]
    image = {"coordinateSystems": SYSTEMS, "datasets": moved(*ONE), OUTER: outer}
    with pytest.warns(FileWarning, match="its transformations to 'stage' are not kept"):
        found = images.open_image(store(tmp_path / "a", image, "0.6"))
    assert found.translation == (3.0, 4.0)
