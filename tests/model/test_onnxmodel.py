"""Models as ONNX: what other programs get of an image is what `label` makes of it."""

import dataclasses
import json

import numpy as np
import pytest
from command import run
from models import AROUND, CLASSES, make, predictor
from voronoi import lines

import tiledlaf
from tiledlaf.flow.stencil import parse, uniform
from tiledlaf.kernels import numpy as kernels
from tiledlaf.model import trees as boosting
from tiledlaf.model.classes import Class
from tiledlaf.model.features import CONTEXT, KINDS, PATCH, RICH, SURROUNDINGS, Features, log_odds
from tiledlaf.model.model import Model
from tiledlaf.model.opening import open_network
from tiledlaf.model.scaling import Linear, Sampled
from tiledlaf.model.terms import Classified, Networked, Prototypes

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

from made_networks import unet, valid  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

from tiledlaf.model import onnxfeatures, onnxmodel  # noqa: E402
from tiledlaf.model.onnxgraph import Graph  # noqa: E402

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not say from which:tiledlaf.files.image.FileWarning"
)


def evaluated(made, image):
    """What onnxruntime makes of an image (C, y, x)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(made, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": image[None].astype(np.float32)})


def scores(model, image):
    """Z(T) with biases, by the readable kernels and an image (C, y, x) or its probabilities."""
    settings, given = model.settings(), image
    if isinstance(model.term, Networked):
        given = model.term.network.of(tiledlaf_image(image)).data[:, :, :]
    q = model.term.potential(given, None, model.rho)
    weights = uniform(model.offsets, image.shape[1:])
    if model.predictor is not None:
        features = model.predictor.of(image, q, model.rho)
        weights = model.predictor.weights(features, weights, "numpy")
    z = settings.integrator.run(kernels, weights, q, model.offsets, model.time).z
    return z + np.array(model.bias)[:, None, None]


def tiledlaf_image(image):
    from tiledlaf.files import images

    return images.from_array(image, "cyx")


def check(model, image, *, ties=0.0):
    """Z agrees to 1e-4, and labels do but for ties."""
    made = onnxmodel.to_onnx(model)
    onnx.checker.check_model(onnx.load_model_from_string(made), full_check=True)
    p, labels = evaluated(made, image)
    assert p.shape == (1, len(model.classes), *image.shape[1:])
    assert (labels.shape, labels.dtype) == ((1, *image.shape[1:]), np.int64)
    z = scores(model, image)
    found = np.log(p[0])
    off = abs((found - found.mean(axis=0)) - (z - z.mean(axis=0))).max(axis=0)
    assert np.quantile(off, 1 - ties) < 1e-4
    expected = tiledlaf.label(image, model=model, workers=1, axes="cyx")
    assert len(np.unique(expected)) > 1
    gap = np.diff(np.sort(z, axis=0)[-2:], axis=0)[0]
    differ = (labels[0] != expected) & (gap > 1e-3)
    assert differ.mean() <= ties
    return made


def colors(shape, channels=3, seed=2):
    return np.random.default_rng(seed).uniform(0, 200, (channels, *shape)).astype(np.float32)


def three(neighborhood="5x5", time=4.0, **other):
    """Three colors, of RGB images, with equal weights."""
    classes = tuple(Class(name, (n,)) for n, name in enumerate("abc"))
    term = Prototypes(((10.0, 90.0, 60.0), (150.0, 20.0, 90.0), (90.0, 90.0, 190.0)), 9000.0)
    bias = other.pop("bias", (0.02, -0.01, 0.03))
    offsets = parse(neighborhood, 2)
    return Model(classes, term, offsets, 0.7, time, 1e-3, 3, other.get("predictor"), bias)


@pytest.mark.parametrize("neighborhood", ["3x3", "5x5", "3x7", "rings:2,5", "1x1"])
@pytest.mark.parametrize("shape", [(40, 53), (30, 11)])
def test_prototypes_with_equal_weights(neighborhood, shape):
    check(three(neighborhood), colors(shape))
    check(three(neighborhood, bias=(0.0, 0.0, 0.0)), colors(shape))


def test_the_reference_of_onnx_gives_the_same():
    """So that the operators are used as ONNX has them, not as one runtime does."""
    image = colors((20, 23))
    made = onnxmodel.to_onnx(three())
    p, labels = evaluated(made, image)
    reference = ReferenceEvaluator(onnx.load_model_from_string(made))
    q, others = reference.run(None, {"image": image[None]})
    np.testing.assert_allclose(p, q, atol=1e-5)
    assert (labels == others).mean() > 0.99


@pytest.mark.parametrize("kind", ["uniform", "prototypes", "classifier", "auto-context"])
def test_models_of_each_kind(kind):
    image = lines((90, 110), seed=5)[0].astype(np.float32)[None]
    # a feature at a threshold of a tree is on either side of it
    check(make(kind), image, ties=0.001 if kind in ("classifier", "auto-context") else 0.0)


def test_weights_of_three_classes_and_channels():
    learned = predictor(PATCH, 9)
    rng, count = np.random.default_rng(3), CONTEXT.count(3, 3)
    learned = dataclasses.replace(
        learned,
        features=CONTEXT,
        mean=rng.uniform(0, 2, count),
        scale=rng.uniform(20, 90, count),
        anchors=rng.normal(size=(6, count)),
    )
    check(three("3x3", predictor=learned), colors((50, 41)))


def test_trees_of_three_classes():
    image = colors((60, 70), channels=1)
    features = Features((("image", "patch", 1, 1, 0), ("image", "gaussian", 1.0)))
    rows = np.ascontiguousarray(features.compute(image).reshape(10, -1).T)
    truth = np.digitize(image[0].ravel(), [70, 140])
    found = boosting.fit(rows, truth, 3, iterations=8)
    term = Classified(features, found)
    model = dataclasses.replace(three("3x3"), term=term, channels=1)
    check(model, colors((45, 52), channels=1, seed=8), ties=0.005)


def every_kind():
    numbers = {"radius": 1, "dilation": 2, "sigma": 1.5, "length": 10, "distance": 6}
    for kind, names in KINDS.items():
        given = [numbers[name] for name in names]
        if kind in ("difference", "structure"):
            given[1] = 3.0
        yield ("image", kind, *given)


LISTS = {spec[1]: Features((spec, ("mean", *spec[1:]))) for spec in every_kind()}
LISTS |= {"rich": RICH, "surroundings": SURROUNDINGS, "around": AROUND}
LISTS["sharp"] = Features((("image", "ring", 4, 0), ("odds", "patch", 2, 1, 0)))


@pytest.mark.parametrize("name", LISTS)
def test_features(name):
    """Each kind is what `Features.compute` gives, plane by plane."""
    features, image = LISTS[name], colors((61, 73), channels=2)
    graph = Graph()
    planes = graph.planes("image")
    # the log-odds of two labels, of which the channels are the potential
    odds = graph.add("Sub", *graph.split(planes, 2, axis=0))
    found = onnxfeatures.computed(graph, features, planes, odds)
    graph.add("Identity", found, name="features")
    count = features.count(2, 1)
    made = graph.made(2, {"features": ("FLOAT", [count, 1, "y", "x"])})
    (values,) = evaluated(made.SerializeToString(), image)
    expected = features.compute(image, log_odds(image))
    assert values.shape == (count, 1, *image.shape[1:])
    np.testing.assert_allclose(values[:, 0], expected, atol=2e-3)  # of up to 200


def networked(network, neighborhood="3x3"):
    return Model(
        CLASSES, Networked(network), parse(neighborhood, 2), 1.0, 2.0, 1e-3, 1, None, (0.0, 0.0)
    )


@pytest.mark.parametrize("shape", [(60, 71), (25, 34)])
@pytest.mark.parametrize(
    "kind", ["logits", "softmax", "logit", "sigmoid", "last", "valid", "range", "older", "newer"]
)
def test_networks(tmp_path, kind, shape):
    path = tmp_path / "a.onnx"
    ends = {"softmax": "Softmax", "sigmoid": "Sigmoid"}
    if kind == "valid":
        valid(path)
    else:
        planes = 1 if kind in ("logit", "sigmoid") else 2
        unet(path, planes=planes, end=ends.get(kind), last=kind == "last")
    if kind in ("older", "newer"):
        found = onnx.load(path)
        found.opset_import[0].version = 13 if kind == "older" else 21
        onnx.save(found, path)
    network = open_network(path, intensities=(-1, 2) if kind == "range" else None)
    if kind == "range":
        clipped = Linear((2.0,), (-0.3,), -1.0, 1.5)
        network = dataclasses.replace(network, before=(*network.before, clipped))
    image = np.random.default_rng(1).normal(size=(1, *shape)).astype(np.float32)
    model = networked(network)
    middle = float(np.median(np.subtract(*scores(model, image)))) / 2
    check(dataclasses.replace(model, bias=(-middle, middle)), image)


def test_a_network_with_learned_weights(tmp_path):
    model = networked(open_network(unet(tmp_path / "a.onnx")))
    model = dataclasses.replace(model, predictor=predictor(PATCH, 9))
    check(model, lines((50, 64), seed=5)[0].astype(np.float32)[None])


def test_what_cannot_be_expressed(tmp_path):
    network = open_network(unet(tmp_path / "a.onnx"))
    fixed = open_network(unet(tmp_path / "b.onnx", edge=32))
    sampled = dataclasses.replace(network, before=(Sampled(),))
    augmented = dataclasses.replace(network, augment=True)
    model = make("uniform")
    for other, match in (
        (make("probabilities"), "data terms prototypes, network, .* got probabilities"),
        (networked(sampled), "a network that normalizes an image"),
        (networked(augmented), "without `augment`"),
        (networked(fixed), "planes of any size"),
        (dataclasses.replace(model, offsets=parse("3x3x3", 3)), "neighborhood of volumes"),
        (dataclasses.replace(model, time=200.0), "float64"),
    ):
        with pytest.raises(ValueError, match=match):
            onnxmodel.to_onnx(other)


def props(made):
    """What the file says of the model."""
    found = onnx.load_model_from_string(made).metadata_props
    return {one.key: json.loads(one.value) for one in found}


def test_the_halo_is_that_of_labeling(tmp_path):
    flow = make("auto-context").settings().halo
    beyond = make("auto-context").term.radius + CONTEXT.radius  # of log-odds around a pixel
    assert onnxmodel.halo(make("auto-context")) == tuple(n + beyond for n in flow)
    model = networked(open_network(unet(tmp_path / "a.onnx")))
    assert onnxmodel.halo(model) == tuple(n + 8 for n in model.settings().halo)


@pytest.mark.parametrize("kind", ["equal", "auto-context", "network"])
def test_the_halo_of_a_tile_suffices(tmp_path, kind):
    image = lines((230, 210), seed=5)[0].astype(np.float32)[None]
    model = make("uniform")
    if kind == "auto-context":
        model = dataclasses.replace(make(kind), time=0.3)
    elif kind == "network":
        model = networked(open_network(unet(tmp_path / "a.onnx")))
    made = onnxmodel.to_onnx(model)
    assert props(made)["classes"] == model.names
    y, x = props(made)["halo"]
    whole = evaluated(made, image)[0]

    def off(y, x):
        part = evaluated(made, image[:, : 120 + y, : 100 + x])[0]
        return abs(part[..., :120, :100] - whole[..., :120, :100]).max()

    assert off(y, x) < 2e-6
    assert off(3, 3) > 1e-4


def test_export(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, image = three(), colors((33, 41))
    model.save("a.model")
    assert run("export", "a.model", "a.onnx") == (0, "written: a.onnx\n", "")
    p, _ = evaluated("a.onnx", image)
    np.testing.assert_array_equal(p, evaluated(onnxmodel.to_onnx(model), image)[0])
    with pytest.raises(ValueError, match="expected a new file"):
        tiledlaf.export("a.model", "a.onnx")
    tiledlaf.export("a.model", "a.onnx", overwrite=True)
    with pytest.raises(ValueError, match="`z` is nothing that ONNX knows"):
        tiledlaf.export("a.model", "b.onnx", z=0)
    tiledlaf.label(image, "out.zarr", model=model, axes="cyx", workers=1)
    code, _, error = run("export", "out.zarr", "b.onnx")
    assert code != 0
    assert "expected a tiledlaf model, got a folder" in error
    assert not (tmp_path / "b.onnx").exists()
