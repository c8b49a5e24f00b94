"""A learned U-Net as ONNX, written node by node, so that nothing but its weights is needed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..model import onnxfile
from ..model.network import Network
from ..model.onnxfile import Content
from ..model.onnxgraph import Graph
from ..model.opening import Shape, core_of

WIDTHS = (16, 32, 64, 128, 128)  # channels by level; each level halves the image
EPSILON = 1e-5  # of PyTorch's batch normalization
STEP = 2 ** (len(WIDTHS) - 1)  # lengths of its input are multiples of it
NOTES = "tiledlaf"  # key under which the file says how the network was learned


def reach() -> int:
    """How many pixels beyond a pixel the network looks at, at most, in steps."""
    most = 0
    for place in range(STEP):
        low = high = place
        for _ in WIDTHS[1:]:
            low, high = (low - 2) // 2, (high + 2) // 2
        low, high = low - 2, high + 2
        for _ in WIDTHS[1:]:
            low, high = 2 * low - 2, 2 * high + 1 + 2
        most = max(most, place - low, high - place)
    return -(-most // STEP) * STEP


def exported(
    weights: Mapping[str, np.ndarray], mean: np.ndarray, spread: np.ndarray, notes: Any
) -> bytes:
    """The network as ONNX, from an image's pixels as they are stored to probabilities.

    Parameters
    ----------
    weights : of `unet.UNet`
    mean, spread : of the pixels of each channel, which become 0 and 1 for the network
    notes : as JSON, on how it was learned
    """
    graph = Graph()
    x = graph.add("Sub", graph.input, mean[None, :, None, None])
    x = graph.add("Mul", x, 1 / spread[None, :, None, None])
    around = []
    for level in range(len(WIDTHS)):
        if level:
            x = graph.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
        x = _block(graph, x, weights, f"down.{level}")
        around.append(x)
    for number, old in enumerate(around[-2::-1]):
        held = _named(weights, f"wider.{number}")
        x = graph.add("ConvTranspose", x, *held, kernel_shape=[2, 2], strides=[2, 2])
        x = _block(graph, graph.joined([x, old], 1), weights, f"up.{number}")
    x = graph.add("Conv", x, *_named(weights, "last"), kernel_shape=[1, 1])
    graph.add("Softmax", x, axis=1, name="probabilities")
    shape = [1, len(weights["last.bias"]), "y", "x"]
    made = graph.made(len(mean), {"probabilities": ("FLOAT", shape)})
    graph.helper.set_model_props(made, {NOTES: json.dumps(notes)})
    data: bytes = made.SerializeToString()
    return data


def _named(weights: Mapping[str, np.ndarray], name: str) -> list[np.ndarray]:
    return [weights[f"{name}.{key}"] for key in ("weight", "bias")]


def _block(graph: Graph, x: str, weights: Mapping[str, np.ndarray], name: str) -> str:
    """Two convolutions that hold the normalization behind them."""
    for place in (0, 3):
        w = weights[f"{name}.{place}.weight"].astype(np.float64)
        scale, shift, mean, variance = (
            weights[f"{name}.{place + 1}.{key}"].astype(np.float64)
            for key in ("weight", "bias", "running_mean", "running_var")
        )
        factor = scale / np.sqrt(variance + EPSILON)
        held = w * factor[:, None, None, None], shift - mean * factor
        x = graph.add("Relu", graph.add("Conv", x, *held, pads=[1] * 4, kernel_shape=[3, 3]))
    return x


def network_of(data: bytes) -> Network:
    """The network of an ONNX file that `exported` wrote."""
    content = Content(hashlib.sha256(data).hexdigest(), data=data)
    ports = onnxfile.ports(content)
    assert ports.classes is not None, "of a file that says how many there are"
    shape = Shape((0, 0), (STEP, STEP), (reach(), reach()))
    core, kind = core_of(content, ports, shape), onnxfile.kind_of(onnxfile.CPU)
    return Network(content, ports, ports.classes, "probabilities", (), *shape, core, kind=kind)


def notes_of(network: Network) -> Any:
    """What `exported` was told of how the network was learned; None of other networks."""
    held = onnxfile.parsed(network.content).metadata_props
    found = [json.loads(one.value) for one in held if one.key == NOTES]
    return found[0] if found else None
