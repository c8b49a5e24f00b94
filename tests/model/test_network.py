"""Networks: blocks of a lattice give what the whole image gives, wherever tiles lie."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiledlaf
from tiledlaf.files import images
from tiledlaf.model import network as lattices
from tiledlaf.model import onnxfile, opening
from tiledlaf.model.network import Lattice, Network
from tiledlaf.model.opening import open_network

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

from made_networks import REACH, Builder, softmax, unet, valid, whole  # noqa: E402


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of a few pixels, so that small images have many."""
    monkeypatch.setattr(opening, "CORES", {2: (12,), 3: (6,)})


def image_of(shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def lattice(network, image, axes=None):
    return network.of(images.from_array(image, axes)).data


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("shape", [(40, 53), (7, 5), (12, 12), (90, 3)])
def test_blocks_give_what_the_whole_image_gives(tmp_path, shape):
    path, image = unet(tmp_path / "a.onnx"), image_of(shape)
    network = open_network(path)
    found = lattice(network, image)[:, :, :]
    # reflected as far as the network looks; a reference of its own, in NumPy
    expected = softmax(whole(path, image[None]))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-6)


def test_the_margin_covers_the_receptive_field(tmp_path):
    network = open_network(unet(tmp_path / "a.onnx"))
    assert network.step == (2, 2)
    assert network.margin == (8, 8)  # of at most 7, in steps of 2
    assert REACH <= network.margin[0] < REACH + 2
    assert open_network(valid(tmp_path / "b.onnx")).margin == (2, 2)


@pytest.mark.usefixtures("small_blocks")
@settings(max_examples=30)
@given(st.data())
def test_a_window_is_a_part_of_the_whole(tmp_path_factory, data):
    path = unet(tmp_path_factory.mktemp("net") / "a.onnx")
    shape = data.draw(st.tuples(st.integers(3, 40), st.integers(3, 40)))
    network, image = open_network(path), image_of(shape)
    all_of_it = lattice(network, image)[:, :, :]
    box = []
    for n in shape:
        start = data.draw(st.integers(0, n - 1))
        box.append(slice(start, data.draw(st.integers(start + 1, n))))
    np.testing.assert_array_equal(lattice(network, image)[:, *box], all_of_it[:, *box])


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("ends", [None, "Softmax"])
def test_labels_do_not_depend_on_tiles_workers_or_regions(tmp_path, ends):
    path, image = unet(tmp_path / "a.onnx", planes=3, end=ends), image_of((70, 81))
    network = open_network(path)
    given = {"probabilities": network, "neighborhood": "3x3", "time": 1.0}
    once = tiledlaf.label(image, workers=1, **given)
    assert len(np.unique(once)) == 3
    for tile, workers in ((16, 2), (37, 1), (64, 3)):
        found = tiledlaf.label(image, workers=workers, tile=tile, **given)
        np.testing.assert_array_equal(found, once)
    part = tiledlaf.label(image, region=((10, 50), (33, 81)), **given)
    np.testing.assert_array_equal(part, once[10:50, 33:81])
    p = softmax(whole(path, image[None])) if ends is None else whole(path, image[None])
    other = tiledlaf.label(image, **{**given, "probabilities": p.astype(np.float32)})
    assert (other == once).mean() > 0.999  # the reference differs in the last bits


@pytest.mark.usefixtures("small_blocks")
def test_few_blocks_are_kept_of_all_images_together(tmp_path, monkeypatch):
    network, image = open_network(unet(tmp_path / "a.onnx")), image_of((36, 36))
    plain, ran = Network.run, []
    monkeypatch.setattr(Network, "run", lambda *a: ran.append(1) or plain(*a))
    monkeypatch.setattr(lattices, "_kept", lattices._Kept())
    monkeypatch.setattr(lattices, "CACHE", 9 * 2 * 4 * 12**2)
    one, other = lattice(network, image), lattice(network, 2 * image)
    expected = one[:, :, :]
    np.testing.assert_array_equal(one[:, :, :], expected)
    assert len(ran) == 9
    assert not np.array_equal(other[:, :, :12], expected[:, :, :12])
    assert len(ran) == 12
    # those three of the first were used longest ago
    np.testing.assert_array_equal(one[:, :, :], expected)
    assert len(ran) > 14
    assert len(lattices._kept._blocks) == 9


def test_one_plane_is_that_of_the_second_class(tmp_path):
    image = image_of((20, 22))
    for ends, p in (
        (None, 1 / (1 + np.exp(-whole(unet(tmp_path / "a.onnx", planes=1), image[None])))),
        ("Sigmoid", whole(unet(tmp_path / "b.onnx", planes=1, end="Sigmoid"), image[None])),
    ):
        path = tmp_path / ("a.onnx" if ends is None else "b.onnx")
        network = open_network(path)
        assert network.classes == 2
        found = lattice(network, image)[:, :, :]
        np.testing.assert_allclose(found, np.concatenate([1 - p, p]), atol=1e-5)
    path = unet(tmp_path / "c.onnx", planes=3, end="Sigmoid")
    with pytest.raises(ValueError, match="classes that exclude each other, got 3 sigmoids"):
        open_network(path)
    assert open_network(path, output="logits").classes == 3


@pytest.mark.usefixtures("small_blocks")
def test_kinds_of_networks(tmp_path):
    image = image_of((30, 41))
    usual = lattice(open_network(unet(tmp_path / "a.onnx")), image)[:, :, :]
    # the same weights, with other axes, of one size, or with less than it takes
    last = open_network(unet(tmp_path / "b.onnx", last=True))
    assert last.ports.last
    np.testing.assert_allclose(lattice(last, image)[:, :, :], usual, atol=1e-6)
    fixed = open_network(unet(tmp_path / "c.onnx", edge=32))
    assert Lattice(fixed, images.from_array(image)).block == (16, 16)
    np.testing.assert_allclose(lattice(fixed, image)[:, :, :], usual, atol=1e-6)
    path = valid(tmp_path / "d.onnx")
    found = lattice(open_network(path), image)[:, :, :]
    outer = np.pad(image, 2, mode="reflect")
    run = onnx.reference.ReferenceEvaluator(str(path)).run
    (expected,) = run(None, {"image": outer[None, None]})
    np.testing.assert_allclose(found, softmax(expected[0]), atol=1e-5)


@pytest.mark.usefixtures("small_blocks")
def test_stacks_planes_series_and_channels(tmp_path):
    path = unet(tmp_path / "a.onnx", channels=2)
    stack, flat = image_of((2, 4, 19, 23)), open_network(path)
    found = lattice(flat, stack, "czyx")[:, :, :, :]
    for z in range(4):  # a network of planes sees each alone
        np.testing.assert_array_equal(found[:, z], lattice(flat, stack[:, z])[:, :, :])
    deep = unet(tmp_path / "b.onnx", channels=2, ndim=3)
    found = lattice(open_network(deep), stack, "czyx")[:, :, :, :]
    np.testing.assert_allclose(found, softmax(whole(deep, stack)), atol=1e-5)
    with pytest.raises(ValueError, match="expects an image with the axes z, y, x, got y, x"):
        open_network(deep).of(images.from_array(stack[:, 0]))
    with pytest.raises(ValueError, match=r"expects images of 2 channel\(s\), got 1"):
        flat.of(images.from_array(stack[0, 0]))
    series = tiledlaf.label(
        np.moveaxis(stack, 1, 0), probabilities=flat, axes="tcyx", time_point="all"
    )
    for t in range(4):
        one = tiledlaf.label(stack[:, t], probabilities=flat)
        np.testing.assert_array_equal(series[t], one)


def test_flips_and_turns_are_averaged(tmp_path):
    path, image = unet(tmp_path / "a.onnx"), image_of((24, 24))
    found = lattice(open_network(path, augment=True), image)[:, :, :]
    plain, total = open_network(path), 0
    for turns in range(4):
        for flip in (False, True):
            turned = np.rot90(image[:, ::-1] if flip else image, turns)
            back = np.rot90(lattice(plain, turned.copy())[:, :, :], -turns, (1, 2))
            total = total + (back[:, :, ::-1] if flip else back)
    np.testing.assert_allclose(found, total / 8, atol=1e-6)
    assert abs(found - lattice(plain, image)[:, :, :]).max() > 0.01


def test_intensities_become_0_to_1(tmp_path):
    path = unet(tmp_path / "a.onnx")
    image = np.random.default_rng(0).integers(0, 256, (20, 20)).astype(np.uint8)
    found = lattice(open_network(path, intensities=(51, 255)), image)[:, :, :]
    scaled = (image.astype(np.float32) - 51) / 204
    np.testing.assert_allclose(found, lattice(open_network(path), scaled)[:, :, :], atol=1e-6)
    for bad in ((1,), (2, 1), ("a", "b"), (0, np.inf)):
        with pytest.raises(ValueError, match="network_range"):
            open_network(path, intensities=bad)


@pytest.mark.parametrize("norm", ["InstanceNormalization"])
def test_what_looks_at_all_of_an_image_is_refused(tmp_path, norm):
    with pytest.raises(ValueError, match=f"looks at all of an image .*it has {norm}"):
        open_network(unet(tmp_path / "a.onnx", norm=norm))


def test_what_is_no_such_network(tmp_path):
    with pytest.raises(ValueError, match="expected an ONNX file, No such file"):
        open_network(tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"no network")
    with pytest.raises(ValueError, match=r"bad.onnx: expected an ONNX file, "):
        open_network(tmp_path / "bad.onnx")
    path = unet(tmp_path / "a.onnx")
    (tmp_path / "half.onnx").write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"half.onnx: expected an ONNX file, "):
        open_network(tmp_path / "half.onnx")
    net = Builder(1)
    net.conv(1, 2)
    net.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    with pytest.raises(ValueError, match="gives one pixel for each"):
        open_network(net.save(tmp_path / "b.onnx", 2))
    with pytest.raises(ValueError, match="network_output"):
        open_network(path, output="scores")
    with pytest.raises(ValueError, match="expected an input of one image, got one of 4"):
        open_network(unet(tmp_path / "c.onnx", batch=4))


def test_masked_pixels_and_those_that_are_no_numbers(tmp_path):
    path, image = unet(tmp_path / "a.onnx"), image_of((40, 40))
    network = open_network(path)
    image[5, 6] = np.nan
    with pytest.raises(ValueError, match=r"NaN or inf, .*pixel \(5, 6\)"):
        tiledlaf.label(image, probabilities=network)
    mask = np.ones(image.shape, np.uint8)
    mask[5, 6] = 0
    found = tiledlaf.label(image, probabilities=network, mask=mask)
    assert found[5, 6] == 0
    assert (found == 0).sum() == 1
    found = tiledlaf.label(image, probabilities=network, no_data=np.nan)
    assert (found == 0).sum() == 1


def test_workers_that_would_give_other_bits_are_refused(tmp_path):
    network = open_network(unet(tmp_path / "a.onnx"))
    other = dataclasses.replace(network, kind="onnxruntime 0.1")
    with pytest.raises(ValueError, match=r"to be run by onnxruntime 0.1, .*, got onnxruntime"):
        tiledlaf.label(image_of((20, 20)), probabilities=other)


def test_memory_is_that_of_what_is_alive(tmp_path):
    network = open_network(unet(tmp_path / "a.onnx"))
    shapes = [(1, edge, edge) for edge in (256, 512)]
    small, large = onnxfile.working_bytes(network.content, network.ports, shapes)
    # at the end 8 planes are joined, while the 4 and 4 of them and the 2 of the result are there
    assert small == pytest.approx(1.5 * 4 * 256**2 * 16, rel=0.2)
    assert large == pytest.approx(4 * small, rel=0.01)


def rings(shape):
    """An image of two classes, and its labels 1 and 2."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    truth = 1 + (np.hypot(y - shape[0] / 2, x - shape[1] / 2) % 16 < 8)
    noise = np.random.default_rng(0).normal(size=shape)
    return (truth + noise).astype(np.float32), truth.astype(np.uint8)


@pytest.mark.usefixtures("small_blocks")
def test_a_model_has_its_network(tmp_path):
    image, truth = rings((64, 64))
    network = open_network(unet(tmp_path / "a.onnx"))
    examples = tiledlaf.pair(image, truth, network)
    data = tiledlaf.Data(examples, term="probabilities", ignore=())
    with tiledlaf.open_pool(1) as pool:
        recipe = tiledlaf.Recipe(steps=3, flow="learned")
        model = tiledlaf.train(data, recipe, pool, tmp_path / "net.model")
    assert model.term.kind == "network"
    other, _ = rings((70, 81))
    expected = tiledlaf.label(other, model=model)
    (tmp_path / "a.onnx").unlink()
    np.testing.assert_array_equal(tiledlaf.label(other, model=tmp_path / "net.model"), expected)
    np.testing.assert_array_equal(
        tiledlaf.label(other, model=tmp_path / "net.model", tile=20, workers=2), expected
    )
    with pytest.raises(ValueError, match="the model has a network: drop `probabilities`"):
        tiledlaf.label(other, model=model, probabilities=network)
    # it explains and suggests as others do
    assert tiledlaf.explain(tmp_path / "net.model", tmp_path / "explained", image).is_file()
    np.save(tmp_path / "other.npy", other)
    files = (tmp_path / name for name in ("net.model", "other.npy", "windows"))
    (first,) = tiledlaf.suggest(*files, size=64, count=1)
    assert 0 < first.confidence < 1
    # a second one by the same images, and from the first
    recipe = tiledlaf.Recipe.from_model(tmp_path / "net.model", steps=2)
    with tiledlaf.open_pool(1) as pool:
        again = tiledlaf.train(tiledlaf.Data(tiledlaf.pair(image, truth)), recipe, pool)
    assert again.term.network.content.digest == model.term.network.content.digest


def test_processes_read_the_network_from_its_file(tmp_path):
    image, _ = rings((64, 64))
    np.save(tmp_path / "image.npy", image)
    network = open_network(unet(tmp_path / "a.onnx"))
    given = {"probabilities": network, "copy_image": False, "overview": False}
    for name, how in (("a", {"workers": 1}), ("b", {"workers": 2, "scheduler": "processes"})):
        tiledlaf.label(tmp_path / "image.npy", tmp_path / f"{name}.zarr", tile=32, **given, **how)
    a, b = (tiledlaf.files.images.open_image(f"{tmp_path}/{n}.zarr/labels/tiledlaf") for n in "ab")
    box = (slice(0, 64), slice(0, 64))
    np.testing.assert_array_equal(a.read(box), b.read(box))
    # another network is another run
    other = open_network(unet(tmp_path / "b.onnx", seed=5))
    with pytest.raises(ValueError, match="probabilities"):
        tiledlaf.label(
            tmp_path / "image.npy", tmp_path / "a.zarr", **{**given, "probabilities": other}
        )


DESCRIPTION = """
format_version: 0.5.4
type: model
name: Two textures
description: A network for tests
authors: [{{name: Nobody}}]
license: CC0-1.0
cite: [{{text: none, doi: 10.1000/none}}]
inputs:
- id: raw
  test_tensor: {{source: test.npy}}
  axes:
  - {{type: batch}}
  - {{type: channel, channel_names: [{channels}]}}
  - {{type: space, id: y, size: {size}}}
  - {{type: space, id: x, size: {size}}}
  preprocessing: {before}
outputs:
- id: classes
  test_tensor: {{source: test.npy}}
  axes:
  - {{type: batch}}
  - {{type: channel, channel_names: [{names}]}}
  - {{type: space, id: y, halo: {halo}, size: {{tensor_id: raw, axis_id: y}}}}
  - {{type: space, id: x, halo: {halo}, size: {{tensor_id: raw, axis_id: x}}}}
  postprocessing: {after}
weights:
  onnx: {{source: net.onnx, opset_version: 18}}
"""


def package(folder, channels="gray", names="cell, border", **said):
    """A package of bioimage.io in a folder."""
    pytest.importorskip("bioimageio.spec", reason="bioimageio.spec is not installed")
    folder.mkdir()
    count = len(channels.split(","))
    unet(folder / "net.onnx", channels=count, planes=len(names.split(",")))
    np.save(folder / "test.npy", np.zeros((1, count, 32, 32), np.float32))
    usual = {"before": "[]", "after": "[]", "halo": 8, "size": "{min: 32, step: 4}"}
    text = DESCRIPTION.format(channels=channels, names=names, **usual | said)
    (folder / "rdf.yaml").write_text(text)
    return folder


@pytest.mark.usefixtures("small_blocks")
def test_a_package_is_obeyed(tmp_path):
    before = (
        "[{id: scale_linear, kwargs: {gain: 0.5, offset: 1.0}},"
        " {id: clip, kwargs: {min: -1.0, max: 1.5}}]"
    )
    folder, image = package(tmp_path / "p", before=before), image_of((40, 45))
    network = open_network(folder)
    assert (network.least, network.step, network.margin) == ((32, 32), (4, 4), (8, 8))
    assert network.names == ("cell", "border")
    assert Lattice(network, images.from_array(image)).block == (16, 16)
    given = np.clip(0.5 * image + 1, -1, 1.5)
    expected = softmax(whole(folder / "net.onnx", given[None]))
    np.testing.assert_allclose(lattice(network, image)[:, :, :], expected, atol=1e-5)
    # its description, a zip of both, and what the user says instead
    assert open_network(folder / "rdf.yaml") == network
    shutil.make_archive(tmp_path / "zipped", "zip", folder)
    zipped = open_network(tmp_path / "zipped.zip")
    assert zipped == network
    np.testing.assert_allclose(lattice(zipped, image)[:, :, :], expected, atol=1e-5)
    other = open_network(folder, intensities=(0, 2), output="logits")
    expected = softmax(whole(folder / "net.onnx", image[None] / 2))
    np.testing.assert_allclose(lattice(other, image)[:, :, :], expected, atol=1e-5)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("kind", ["zero_mean_unit_variance", "scale_range"])
def test_what_normalizes_an_image_does_so_by_a_sample_of_it(tmp_path, kind):
    more = ", min_percentile: 1.0, max_percentile: 99.0" * (kind == "scale_range")
    before = f"[{{id: {kind}, kwargs: {{axes: [y, x], eps: 1.0e-6{more}}}}}]"
    folder = package(tmp_path / "p", before=before, channels="a, b")
    image = image_of((2, 40, 45)) * np.array([3, 70])[:, None, None] + 5
    with pytest.warns(tiledlaf.FileWarning, match="normalizes each image by itself"):
        network = open_network(folder)
    rows = image.reshape(2, -1)  # all of a small image is its sample
    if kind == "scale_range":
        low, high = np.percentile(rows, [1, 99], axis=1)[..., None, None]
        given = (image - low) / (high - low)
    else:
        given = (image - image.mean((1, 2), keepdims=True)) / image.std((1, 2), keepdims=True)
    expected = softmax(whole(folder / "net.onnx", given))
    image = image.astype(np.float32)
    np.testing.assert_allclose(lattice(network, image, "cyx")[:, :, :], expected, atol=1e-4)
    once = tiledlaf.label(image, probabilities=network, axes="cyx")
    part = tiledlaf.label(
        image, probabilities=network, axes="cyx", region=((3, 20), (10, 40)), tile=16
    )
    np.testing.assert_array_equal(part, once[3:20, 10:40])


def test_names_of_a_package_are_those_of_the_classes(tmp_path):
    network = open_network(package(tmp_path / "p"))
    np.save(tmp_path / "image.npy", image_of((30, 30)))
    tiledlaf.label(tmp_path / "image.npy", tmp_path / "out.zarr", probabilities=network)
    notes = (tmp_path / "out.zarr/labels/tiledlaf/zarr.json").read_text()
    assert '"cell"' in notes
    # and what ran it is recorded
    assert network.content.digest in notes
    assert json.dumps(network.kind) in notes


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"after": "[{id: binarize, kwargs: {threshold: 0.5}}]"}, "postprocessing binarize"),
        ({"before": "[{id: sigmoid}]"}, "preprocessing sigmoid is not known"),
        ({"before": "[{id: never}]"}, "expected the description of a model"),
        ({"size": "16"}, "minimum size 16 is too small for halo 8"),
    ],
)
def test_packages_that_cannot_be_run(tmp_path, said, message):
    with pytest.raises(ValueError, match=message):
        open_network(package(tmp_path / "p", **said))


def test_packages_without_what_they_need(tmp_path):
    folder = package(tmp_path / "p")
    (folder / "net.onnx").unlink()
    with pytest.raises(ValueError, match=r"expected net.onnx beside it"):
        open_network(folder)
    text = (folder / "rdf.yaml").read_text()
    onnx_weights = "onnx: {source: net.onnx, opset_version: 18}"
    other = "torchscript: {source: net.pt, pytorch_version: 2.0}"
    (folder / "rdf.yaml").write_text(text.replace(onnx_weights, other))
    with pytest.raises(ValueError, match="expected ONNX weights, got torchscript"):
        open_network(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"expected a package of bioimage.io with rdf.yaml"):
        open_network(tmp_path / "empty")
