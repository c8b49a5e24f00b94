"""ONNX graphs, node by node: planes are (n, 1, y, x), of which y and x need not be known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import InputError, in_a_line
from . import onnxfile
from .onnxfile import Ports
from .trees import Trees

OPSET, TREES_OPSET, IR = 18, 3, 8  # old enough for other programs, new enough for axes as inputs
TREES_DOMAIN = "ai.onnx.ml"
PREFIX = "network/"  # of the names of a graph within a graph
MIRRORED, ZEROS = "reflect", "constant"  # what is beyond the border


class Graph:
    """A graph in the making, in which values are known by their names.

    Parameters
    ----------
    input : name of the image, (1, C, y, x) float32
    """

    def __init__(self, input: str = "image") -> None:
        self.helper = onnxfile.onnx().helper
        self.input = input
        self.nodes: list[Any] = []
        self.weights: dict[tuple[Any, ...], Any] = {}
        self.others: list[Any] = []

    def _name(self, value: Any) -> str:
        """The name of a value; numbers become weights, int64 or float32, each once."""
        if isinstance(value, str):
            return value
        array = np.asarray(value)
        array = array.astype(np.int64 if array.dtype.kind in "iu" else np.float32)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self.weights:
            name = f"w{len(self.weights)}"
            self.weights[key] = onnxfile.onnx().numpy_helper.from_array(array, name)
        return str(self.weights[key].name)

    def add(self, kind: str, *inputs: Any, name: str = "", **attributes: Any) -> str:
        """A node of names and numbers; the name of what it gives."""
        return self.several(kind, *inputs, names=[name or f"v{len(self.nodes)}"], **attributes)[0]

    def several(self, kind: str, *inputs: Any, names: list[str], **attributes: Any) -> list[str]:
        """A node that gives several values."""
        given = [self._name(one) for one in inputs]
        self.nodes.append(self.helper.make_node(kind, given, names, **attributes))
        return names

    def joined(self, parts: Sequence[str], axis: int) -> str:
        """Values one after the other along an axis."""
        return parts[0] if len(parts) == 1 else self.add("Concat", *parts, axis=axis)

    def split(self, x: str, count: int, axis: int) -> list[str]:
        """The parts of length 1 along an axis of this length."""
        if count == 1:
            return [x]
        names = [f"v{len(self.nodes)}_{n}" for n in range(count)]
        return self.several("Split", x, names=names, axis=axis, num_outputs=count)

    def planes(self, x: str) -> str:
        """Values (a, b, y, x) as planes (a b, 1, y, x)."""
        return self.add("Reshape", x, [-1, 1, 0, 0])

    def channels(self, x: str, count: int = -1) -> str:
        """Planes as (n, count, y, x); by default all are the channels of one image."""
        return self.add("Reshape", x, [1, -1, 0, 0] if count < 0 else [-1, count, 0, 0])

    def padded(self, x: str, width: Sequence[int], mode: str) -> str:
        """Values with a border of so many pixels along y and x."""
        if not any(width):
            return x
        return self.add("Pad", x, [0, 0, *width, 0, 0, *width], mode=mode)

    def window(self, x: str, border: Sequence[int], offset: Sequence[int]) -> str:
        """What lies an offset away from each pixel within a border, along y and x."""
        if not any(border):
            return x
        starts = [b + o for b, o in zip(border, offset, strict=True)]
        ends = [o - b for b, o in zip(border, offset, strict=True)]
        ends = [end if end < 0 else np.iinfo(np.int64).max for end in ends]
        return self.add("Slice", x, starts, ends, [2, 3])

    def convolved(self, x: str, kernels: np.ndarray, pads: Sequence[int] = (0, 0)) -> str:
        """Planes weighted by kernels (m, ky, kx), (n, m, y, x)."""
        return self.add("Conv", x, kernels[:, None], pads=[*pads, *pads])

    def softmax(self, x: str) -> str:
        """Softmax over planes; that of ONNX is slow along the first axis."""
        e = self.add("Exp", self.add("Sub", x, self.add("ReduceMax", x, [0])))
        return self.add("Div", e, self.add("ReduceSum", e, [0]))

    def scores(self, trees: Trees, features: str) -> str:
        """Scores of trees, (K, 1, y, x), of features (F, 1, y, x)."""
        count, grid = len(trees.baseline), self.add("Shape", features, start=2)
        rows = self.add("Reshape", features, [trees.features, -1])
        found = self.add(
            "TreeEnsembleRegressor",
            self.add("Transpose", rows, perm=[1, 0]),
            domain=TREES_DOMAIN,
            aggregate_function="SUM",
            post_transform="NONE",
            n_targets=count,
            base_values=trees.baseline.tolist(),
            **tree_nodes(trees),
        )
        shape = self.add("Concat", [count, 1], grid, axis=0)
        return self.add("Reshape", self.add("Transpose", found, perm=[1, 0]), shape)

    def included(self, model: Any, x: str, ports: Ports) -> str:
        """What another model makes of an image (1, C, y, x) or (1, y, x, C), as float32.

        Raises
        ------
        ValueError
            If its operators cannot be brought to the version of the others.
        """
        library, helper = onnxfile.onnx(), self.helper
        opset = max(one.version for one in model.opset_import if one.domain in ("", "ai.onnx"))
        if opset < OPSET:
            try:
                model = library.version_converter.convert_version(model, OPSET)
            except Exception as error:  # it raises kinds of its own
                raise InputError(
                    f"expected a network in ONNX's operators {OPSET}, got {opset}, which cannot be "
                    f"brought to them: {in_a_line(error)}"
                ) from None
        model = library.compose.add_prefix(model, PREFIX)
        dtype = helper.np_dtype_to_tensor_dtype(np.dtype(ports.dtype))
        self.add("Cast", x, to=dtype, name=PREFIX + ports.input)
        self.nodes.extend(model.graph.node)
        self.others.append(model)
        return self.add("Cast", PREFIX + ports.output, to=library.TensorProto.FLOAT)

    def made(self, channels: int, outputs: dict[str, tuple[str, list[Any]]]) -> Any:
        """The graph as a model, whose outputs are named with their type and shape."""
        proto, helper = onnxfile.onnx().TensorProto, self.helper
        image = helper.make_tensor_value_info(self.input, proto.FLOAT, [1, channels, "y", "x"])
        found = [
            helper.make_tensor_value_info(name, getattr(proto, kind), shape)
            for name, (kind, shape) in outputs.items()
        ]
        weights = [*self.weights.values(), *(w for o in self.others for w in o.graph.initializer)]
        sparse = [w for o in self.others for w in o.graph.sparse_initializer]
        graph = helper.make_graph(
            self.nodes, "tiledlaf", [image], found, weights, sparse_initializer=sparse
        )
        versions = {"": OPSET}
        if any(node.domain == TREES_DOMAIN for node in self.nodes):
            versions[TREES_DOMAIN] = TREES_OPSET
        for other in self.others:
            for one in other.opset_import:
                domain = "" if one.domain == "ai.onnx" else one.domain
                versions[domain] = max(one.version, versions.get(domain, 0))
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid(*one) for one in versions.items()],
            functions=[function for other in self.others for function in other.functions],
            ir_version=max([IR, *(other.ir_version for other in self.others)]),
        )


def tree_nodes(trees: Trees) -> dict[str, Any]:
    """Attributes of ONNX's ensembles: nodes with branches, in place of masks of leaves."""
    nodes: list[tuple[Any, ...]] = []
    leaves: list[tuple[Any, ...]] = []
    for tree, (first, end) in enumerate(zip(trees.first[:-1], trees.first[1:], strict=True)):
        # leaves to the left of each node: the first, and the one behind the last
        cleared = (~trees.mask[first:end]).tolist()
        runs = [((bits & -bits).bit_length() - 1, bits.bit_length()) for bits in cleared]
        parts = [(0, end - first + 1)]
        for own, (low, high) in enumerate(parts):  # which grow meanwhile
            if high - low == 1:
                nodes.append((tree, own, "LEAF", 0, 0.0, 0, 0))
                value = float(trees.value[tree, low])
                leaves.append((tree, own, tree % len(trees.baseline), value))
                continue
            ends = {stop: n for n, (start, stop) in enumerate(runs) if start == low and stop < high}
            if not ends:
                raise InputError("trees: expected a node for each part of the leaves, got none")
            middle = max(ends)
            node = first + ends[middle]
            branch = (int(trees.feature[node]), float(trees.threshold[node]))
            nodes.append((tree, own, "BRANCH_LEQ", *branch, len(parts), len(parts) + 1))
            parts += [(low, middle), (middle, high)]
    fields = "treeids nodeids modes featureids values truenodeids falsenodeids"
    return {
        **_columns("nodes", fields, nodes),
        **_columns("target", "treeids nodeids ids weights", leaves),
    }


def _columns(prefix: str, names: str, rows: Sequence[tuple[Any, ...]]) -> dict[str, list[Any]]:
    return {f"{prefix}_{name}": [row[i] for row in rows] for i, name in enumerate(names.split())}
