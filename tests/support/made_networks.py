"""Small networks in ONNX, and what they give for a whole image by ONNX's own reference in NumPy."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

REACH = 7  # pixels that `unet` looks at beyond a pixel, at most
STEP = 2


class Builder:
    """A graph, node by node; each method returns the name of its result."""

    def __init__(self, channels, ndim=2, seed=4, edge=None, last=False, batch="n"):
        self.rng = np.random.default_rng(seed)
        self.channels, self.ndim, self.last = channels, ndim, last
        axes = [edge or axis for axis in "zyx"[-ndim:]]
        shape = [batch, *axes, channels] if last else [batch, channels, *axes]
        self.input = helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)
        self.nodes, self.weights, self.top = [], [], "image"
        if last:
            self.add("Transpose", perm=[0, ndim + 1, *range(1, ndim + 1)])

    def weight(self, value):
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(self, kind, *inputs, **attributes):
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs or [self.top]), [name], **attributes))
        self.top = name
        return name

    def conv(self, given, taken, size=3, pad=None):
        scale = 1.5 / np.sqrt(given * size**self.ndim)
        w = self.rng.normal(0, scale, (taken, given, *(size,) * self.ndim)).astype(np.float32)
        b = self.rng.normal(0, 0.2, taken).astype(np.float32)
        pad = size // 2 if pad is None else pad
        pads = [pad] * (2 * self.ndim)
        return self.add("Conv", self.top, self.weight(w), self.weight(b), pads=pads)

    def double(self, given, taken):
        w = self.rng.normal(0, 0.5, (given, taken, *(2,) * self.ndim)).astype(np.float32)
        return self.add("ConvTranspose", self.top, self.weight(w), strides=[2] * self.ndim)

    def save(self, path, planes):
        if self.last:
            self.add("Transpose", perm=[0, *range(2, self.ndim + 2), 1])
        shape = [None] * (self.ndim + 2)
        shape[-1 if self.last else 1] = planes
        output = helper.make_tensor_value_info(self.top, TensorProto.FLOAT, shape)
        graph = helper.make_graph(self.nodes, "graph", [self.input], [output], self.weights)
        opsets = [helper.make_opsetid("", 18)]
        made = helper.make_model(graph, opset_imports=opsets, ir_version=9)
        onnx.save(made, path)
        return path


def unet(path, channels=1, planes=2, end=None, norm=None, **kind):
    """A U-Net of two levels: convolutions, pooling by 2, what goes around it, and an end."""
    net = Builder(channels, **kind)
    net.conv(channels, 4)
    if norm:
        ones, zeros = net.weight(np.ones(4, np.float32)), net.weight(np.zeros(4, np.float32))
        net.add(norm, net.top, ones, zeros)
    around = net.add("Relu")
    net.add("MaxPool", kernel_shape=[2] * net.ndim, strides=[2] * net.ndim)
    net.conv(4, 6)
    net.add("Relu")
    net.conv(6, 6)
    net.add("Relu")
    net.double(6, 4)
    net.add("Concat", around, net.top, axis=1)
    net.conv(8, planes)
    if end:
        net.add(end, **({"axis": 1} if end == "Softmax" else {}))
    return net.save(path, planes)


def valid(path, channels=1, planes=2):
    """Two convolutions without padding: four pixels are lost along each axis."""
    net = Builder(channels)
    net.conv(channels, 4, pad=0)
    net.add("Relu")
    net.conv(4, planes, pad=0)
    return net.save(path, planes)


def whole(path, image, margin=16):
    """What a network gives for an image (C, *grid), reflected at its borders; (J, *grid)."""
    run = ReferenceEvaluator(str(path))
    more = [(margin, margin + -n % STEP) for n in image.shape[1:]]
    outer = np.pad(np.asarray(image, np.float32), [(0, 0), *more], mode="reflect")
    (found,) = run.run(None, {"image": outer[None]})
    cut = tuple(slice(margin, margin + n) for n in image.shape[1:])
    return found[0][:, *cut]


def softmax(logits):
    """Probabilities of logits (J, *grid)."""
    e = np.exp(logits - logits.max(axis=0))
    return e / e.sum(axis=0)
