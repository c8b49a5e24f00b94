"""A model as one ONNX graph: image in, probabilities and labels out, for other programs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import InputError
from ..flow import stencil
from ..flow.linear import Taylor
from ..kernels.arrays import Offsets
from . import onnxfeatures, onnxfile
from .features import Features
from .model import Model
from .network import Network
from .onnxgraph import MIRRORED, ZEROS, Graph
from .predictor import Predictor
from .scaling import Linear
from .settings import margin
from .terms import SMALLEST, AutoContext, Averaged, Classified, Networked, Prototypes
from .trees import Trees

NEVER = -1e30  # a logarithm of what has no weight
Average = Callable[[str], str]  # planes averaged over the neighbors of each pixel


def to_onnx(model: Model) -> bytes:
    """The model as an ONNX file of standard operators.

    It takes `image`, (1, C, y, x) float32 as stored, and gives `probabilities`, (1, J, y, x)
    float32, the softmax of log W0 + Z(T) with the biases, and `labels`, (1, y, x) int64, as
    `label` writes them. What its `halo` says lies beyond a tile must be read with it.

    Raises
    ------
    ValueError
        If a part of the model cannot be expressed; names it.
    """
    _check(model)
    graph = Graph()
    image = graph.planes(graph.input)
    potential = TERMS[type(model.term)](graph, model.term, image)
    if model.predictor is None:
        average = _equal(graph, model)
    else:
        odds = ""
        if model.predictor.features.needs("odds"):
            odds = _log_odds(graph, potential, len(model.classes))
        features = onnxfeatures.computed(graph, model.predictor.features, image, odds)
        average = _learned(graph, model, model.predictor, features)
    q = graph.add("Mul", potential, 1 / model.rho)
    scores = _flow(graph, model, q, average)
    if any(model.bias):
        scores = graph.add("Add", scores, np.reshape(model.bias, (-1, 1, 1, 1)))
    count = len(model.classes)
    graph.add("Reshape", graph.softmax(scores), [1, -1, 0, 0], name="probabilities")
    best = graph.add("ArgMax", scores, axis=0, keepdims=0)
    graph.add("Add", best, 1, name="labels")  # 0 is what has no label
    made = graph.made(
        model.channels,
        {
            "probabilities": ("FLOAT", [1, count, "y", "x"]),
            "labels": ("INT64", [1, "y", "x"]),
        },
    )
    notes = {
        "classes": model.names,
        "halo": halo(model),
        "channels": model.images.names,
        "pixel_size_um": model.images.pixel_size,
    }
    texts = {name: json.dumps(value) for name, value in notes.items() if value}
    onnxfile.onnx().helper.set_model_props(made, texts)
    found: bytes = made.SerializeToString()
    return found


def halo(model: Model) -> tuple[int, int]:
    """How far a label looks beyond its pixel, along y and x."""
    predictor = model.predictor
    beyond = margin(model.term, None if predictor is None else predictor.features, 2)
    network = model.term.network.margin if isinstance(model.term, Networked | Averaged) else (0, 0)
    y, x = (sum(parts) for parts in zip(model.settings().halo, beyond, network, strict=True))
    return y, x


def _check(model: Model) -> None:
    """Refuse what no graph is made of, by the name of the part."""
    if len(model.offsets[0]) != 2:
        raise _refused("planes, got a neighborhood of volumes")
    if type(model.term) not in TERMS:
        kinds = ", ".join(term.kind for term in TERMS)
        raise _refused(f"the data terms {kinds}, got {model.term.kind}")
    if model.term.double or model.settings().wide:
        raise _refused(f"numbers of float32, got one of float64 (time {model.time:g})")


def _refused(what: str) -> InputError:
    return InputError(f"expected a model that ONNX can express, of {what}")


# Data terms: -D up to a constant of each pixel, planes (J, 1, y, x)


def _prototypes(graph: Graph, term: Prototypes, image: str) -> str:
    off = graph.add("Sub", graph.channels(image), np.array(term.values)[:, :, None, None])
    return graph.add("Mul", graph.add("ReduceSumSquare", off, [1]), -1 / term.scale)


def _classified(graph: Graph, term: Classified, image: str) -> str:
    return _boosted(graph, term.trees, term.features, image)


def _auto_context(graph: Graph, term: AutoContext, image: str) -> str:
    odds = _log_odds(graph, _classified(graph, term.first, image), term.classes)
    return _boosted(graph, term.trees, term.features, image, odds)


def _boosted(graph: Graph, trees: Trees, features: Features, image: str, odds: str = "") -> str:
    scores = graph.scores(trees, onnxfeatures.computed(graph, features, image, odds))
    return _logarithm(graph, _probabilities(graph, scores, len(trees.baseline)))


def _probabilities(graph: Graph, scores: str, count: int) -> str:
    """Softmax over planes; of a single score, that of a second label."""
    if count == 1:  # runtimes approximate the logistic function, too roughly for logarithms
        scores = graph.joined([graph.add("Mul", scores, 0.0), scores], axis=0)
    return graph.softmax(scores)


def _logarithm(graph: Graph, p: str) -> str:
    return graph.add("Log", graph.add("Max", p, SMALLEST))


def _log_odds(graph: Graph, q: str, classes: int) -> str:
    """As `features.log_odds`."""
    if classes == 2:
        return graph.add("Sub", *graph.split(q, 2, axis=0))
    return graph.add("Sub", q, graph.add("ReduceMean", q, [0]))


def _networked(graph: Graph, term: Networked, image: str) -> str:
    network = term.network
    x = graph.channels(image)
    for step in network.before:
        if not isinstance(step, Linear):
            raise _refused("intensities by stated numbers, got a network that normalizes an image")
        gain, offset = (np.reshape(n, (-1, 1, 1)) for n in (step.gain, step.offset))
        x = graph.add("Add", graph.add("Mul", x, gain), offset)
        for kind, limit in (("Max", step.least), ("Min", step.most)):
            x = x if limit is None else graph.add(kind, x, limit)
    if network.augment or network.ndim != 2 or 0 in network.step:
        raise _refused("a network of planes of any size, without `augment`")
    return _logarithm(graph, _run(graph, network, x))


def _run(graph: Graph, network: Network, x: str) -> str:
    """A network's probabilities (J, 1, y, x) of what becomes of an image, as in a block."""
    ports, margin = network.ports, np.array(network.margin)
    grid = graph.add("Shape", x, start=2)
    # mirrored by the margin, and at the end by what is missing to a length that it takes
    more = graph.add("Sub", graph.add("Add", grid, 2 * margin), network.least)
    count = graph.add("Div", graph.add("Add", more, np.array(network.step) - 1), network.step)
    missing = graph.add("Sub", graph.add("Mul", graph.add("Max", count, 0), network.step), more)
    ends = graph.add("Add", missing, margin)
    x = graph.add("Pad", x, graph.add("Concat", [0, 0, *margin, 0, 0], ends, axis=0), mode=MIRRORED)
    taken = graph.add("Shape", x, start=2)
    if ports.last:
        x = graph.add("Transpose", x, perm=[0, 2, 3, 1])
    found = graph.included(onnxfile.parsed(network.content), x, ports)
    if ports.last:
        found = graph.add("Transpose", found, perm=[0, 3, 1, 2])
    lost = graph.add("Sub", taken, graph.add("Shape", found, start=2))
    starts = graph.add("Sub", margin, graph.add("Div", lost, 2))
    found = graph.add("Slice", found, starts, graph.add("Add", starts, grid), [2, 3])
    found, single = graph.planes(found), ports.classes == 1
    if network.output == "logits":
        return _probabilities(graph, found, 1 if single else network.classes)
    return graph.joined([graph.add("Sub", 1.0, found), found], axis=0) if single else found


def _averaged(graph: Graph, term: Averaged, image: str) -> str:
    network = _networked(graph, term.networked, image)
    trees = TERMS[type(term.trees)](graph, term.trees, image)
    parts = ((network, term.share), (trees, 1 - term.share))
    return graph.add("Add", *(graph.add("Mul", q, s) for q, s in parts))


TERMS: dict[type[Any], Callable[..., str]] = {
    Prototypes: _prototypes,
    Networked: _networked,
    Classified: _classified,
    AutoContext: _auto_context,
    Averaged: _averaged,
}

# Flow: what averages planes with the weights, and the steps


def _flow(graph: Graph, model: Model, q: str, average: Average) -> str:
    """Z(T), as `flow` of the kernels has it, step by step."""
    s = graph.softmax(average(q))
    polynomial = Taylor(model.tol).polynomial(model.time)
    u = source = graph.add("Sub", s, 1 / len(model.classes))
    for c in polynomial.coefficients:
        t = average(u)
        mean = graph.add("ReduceSum", graph.add("Mul", s, t), [0])
        step = graph.add("Mul", s, graph.add("Sub", t, mean))
        u = graph.add("Add", source, graph.add("Mul", step, c))
    return graph.add("Mul", u, polynomial.scale)


def _near(graph: Graph, offsets: Offsets, x: str) -> list[str]:
    """Planes of the neighbors at each offset, 0 beyond the image."""
    radius = stencil.radius(offsets)
    wide = graph.padded(x, radius, ZEROS)
    return [graph.window(wide, radius, offset) for offset in offsets]


def _ones(graph: Graph) -> str:
    """A plane of ones, (1, 1, y, x)."""
    return graph.add("Expand", np.ones((1, 1, 1, 1)), graph.add("Shape", graph.input, start=2))


def _equal(graph: Graph, model: Model) -> Average:
    """Averages with equal weights of the neighbors that are in the image."""
    radius = stencil.radius(model.offsets)
    box = tuple(2 * r + 1 for r in radius)
    if len(model.offsets) == math.prod(box):  # of which runtimes average many times as fast
        how: dict[str, Any] = {
            "kernel_shape": box,
            "pads": [*radius, *radius],
            "count_include_pad": 0,
        }
        return lambda x: graph.add("AveragePool", x, **how)

    def sums(x: str) -> str:
        return graph.add("Sum", *_near(graph, model.offsets, x))

    share = graph.add("Reciprocal", sums(_ones(graph)))
    return lambda x: graph.add("Mul", sums(x), share)


def _learned(graph: Graph, model: Model, predictor: Predictor, features: str) -> Average:
    """Averages with the weights that the predictor makes of features (F, 1, y, x)."""
    column = (-1, 1, 1, 1)
    off = graph.add("Sub", features, predictor.mean.reshape(column))
    f = graph.add("Mul", off, (1 / predictor.scale).reshape(column))
    squares = []
    for anchor in predictor.anchors:  # runtimes are slow at sums of squares, and but for one axis
        off = graph.add("Sub", f, anchor.reshape(column))
        squares.append(graph.add("ReduceSum", graph.add("Mul", off, off), [0]))
    distance = graph.add("Sqrt", graph.joined(squares, axis=0))
    shares = graph.channels(graph.softmax(graph.add("Mul", distance, -predictor.sigma)))
    logits = graph.planes(graph.add("Conv", shares, predictor.patches.T[:, :, None, None]))
    inside = graph.joined(_near(graph, model.offsets, _ones(graph)), axis=0)
    logits = graph.add("Where", graph.add("Greater", inside, 0.0), logits, NEVER)
    weights = graph.split(graph.softmax(logits), len(model.offsets), axis=0)

    def average(x: str) -> str:
        near = _near(graph, model.offsets, x)
        parts = [graph.add("Mul", w, n) for w, n in zip(weights, near, strict=True)]
        return graph.add("Sum", *parts)

    return average
