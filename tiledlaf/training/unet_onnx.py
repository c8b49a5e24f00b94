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
from ..model.opening import Shape, core_of

WIDTHS = (16, 32, 64, 128)  # channels by level; each level halves the image
EPSILON = 1e-5  # of PyTorch's batch normalization
STEP = 2 ** (len(WIDTHS) - 1)  # lengths of its input are multiples of it
OPSET, VERSION = 17, 8  # of ONNX and its files: what each onnxruntime of the last years reads
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


class _Graph:
    """Nodes of a graph, each of which takes what the last one gave, unless it is told."""

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        self.library, self.weights = onnxfile.onnx(), weights
        self.nodes: list[Any] = []
        self.held: list[Any] = []
        self.top = "image"

    def constant(self, value: np.ndarray) -> str:
        name = f"w{len(self.held)}"
        found = np.ascontiguousarray(value, np.float32)
        self.held.append(self.library.numpy_helper.from_array(found, name))
        return name

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        self.top, given = f"v{len(self.nodes)}", list(inputs)
        self.nodes.append(self.library.helper.make_node(kind, given, [self.top], **attributes))
        return self.top

    def block(self, name: str) -> str:
        """Two convolutions that hold the normalization behind them."""
        for place in (0, 3):
            w = self.weights[f"{name}.{place}.weight"].astype(np.float64)
            scale, shift, mean, variance = (
                self.weights[f"{name}.{place + 1}.{key}"].astype(np.float64)
                for key in ("weight", "bias", "running_mean", "running_var")
            )
            factor = scale / np.sqrt(variance + EPSILON)
            held = self.constant(w * factor[:, None, None, None])
            held_shift = self.constant(shift - mean * factor)
            self.add("Conv", self.top, held, held_shift, pads=[1] * 4, kernel_shape=[3, 3])
            self.add("Relu", self.top)
        return self.top

    def named(self, name: str) -> list[str]:
        return [self.constant(self.weights[f"{name}.{key}"]) for key in ("weight", "bias")]


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
    graph = _Graph(weights)
    graph.add("Sub", graph.top, graph.constant(mean[None, :, None, None]))
    graph.add("Mul", graph.top, graph.constant(1 / spread[None, :, None, None]))
    around, levels = [], len(WIDTHS)
    for level in range(levels):
        if level:
            graph.add("MaxPool", graph.top, kernel_shape=[2, 2], strides=[2, 2])
        around.append(graph.block(f"down.{level}"))
    for number, old in enumerate(around[-2::-1]):
        held = graph.named(f"wider.{number}")
        graph.add("ConvTranspose", graph.top, *held, kernel_shape=[2, 2], strides=[2, 2])
        graph.add("Concat", graph.top, old, axis=1)
        graph.block(f"up.{number}")
    graph.add("Conv", graph.top, *graph.named("last"), kernel_shape=[1, 1])
    graph.add("Softmax", graph.top, axis=1)
    return _file(graph, len(mean), len(weights["last.bias"]), notes)


def _file(graph: _Graph, channels: int, classes: int, notes: Any) -> bytes:
    helper, number = graph.library.helper, graph.library.TensorProto.FLOAT
    axes = ("y", "x")
    given = helper.make_tensor_value_info("image", number, ["n", channels, *axes])
    found = helper.make_tensor_value_info(graph.top, number, ["n", classes, *axes])
    made = helper.make_model(
        helper.make_graph(graph.nodes, "unet", [given], [found], graph.held),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=VERSION,
        producer_name="tiledlaf",
    )
    helper.set_model_props(made, {NOTES: json.dumps(notes)})
    data: bytes = made.SerializeToString()
    return data


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
