"""Networks as ONNX files: their bytes, what they take and give, and how they are run."""

from __future__ import annotations

import functools
import hashlib
import math
import os
import platform
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

from ..errors import DamagedFile, InputError, in_a_line

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
PROVIDERS = {"cpu": CPU, "cuda": CUDA}
# what looks at all of an image, by the names of its operators
WHOLE = {
    *("InstanceNormalization", "GroupNormalization", "MeanVarianceNormalization"),
    *("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", "ReduceMean", "ReduceMax", "ReduceSum"),
    *("Attention", "MultiHeadAttention", "LayerNormalization", "NonMaxSuppression"),
}
# vector units of processors, widest first, as LLVM calls them
VECTORS = ("amx-tile", "avx512vnni", "avx512f", "avx2", "avx", "sve", "dotprod", "neon")
# what passes on values as they are, behind what says what they are
PASSING = {"Identity", "Cast", "Transpose", "Squeeze", "Unsqueeze", "Reshape", "Slice", "Dropout"}


@dataclass(frozen=True)
class Content:
    """The bytes of an ONNX file, where workers find them.

    Attributes
    ----------
    digest : SHA-256, by which contents are equal
    path : of the file
    part : name within it where it is a zip, as a model of this program is
    data : the bytes, where they are in no file; they travel with each task then
    """

    digest: str
    path: str = field(default="", compare=False)
    part: str = field(default="", compare=False)
    data: bytes | None = field(default=None, compare=False, repr=False)

    def read(self) -> bytes:
        """The bytes.

        Raises
        ------
        ValueError
            If the file is no longer the one that was opened.
        """
        if self.data is not None:
            return self.data
        found = _read(self.path, self.part)
        if hashlib.sha256(found).hexdigest() != self.digest:
            raise InputError(f"{self.path}: expected the network that was opened, got another file")
        return found


def _read(path: str, part: str) -> bytes:
    if not part:
        with open(path, "rb") as file:
            return file.read()
    with zipfile.ZipFile(path) as archive:
        if part in archive.namelist():
            return archive.read(part)
        with archive.open(f"{part}.npy") as file:
            return np.lib.format.read_array(file, allow_pickle=False).tobytes()


def content_of(path: str | os.PathLike[str]) -> Content:
    """The content of a file."""
    text = os.path.abspath(os.fspath(path))
    try:
        found = _read(text, "")
    except OSError as error:
        raise InputError(f"{path}: expected an ONNX file, {error.strerror or error}") from None
    return Content(hashlib.sha256(found).hexdigest(), text)


@dataclass(frozen=True)
class Ports:
    """What a network takes and gives.

    Attributes
    ----------
    input, output : names
    last : whether channels are the last axis
    dtype : of its input, a NumPy name
    channels, classes : lengths of the channel axes of input and output; None if any
    edges : lengths of the spatial axes of its input, None where any will do
    ends : name of the operator that makes its output
    whole : names of operators that look at all of an image
    others : names of outputs that are not used
    """

    input: str
    output: str
    last: bool
    dtype: str
    channels: int | None
    classes: int | None
    edges: tuple[int | None, ...]
    ends: str
    whole: tuple[str, ...]
    others: tuple[str, ...] = ()


def onnx() -> ModuleType:
    """The library that reads ONNX files."""
    return _library("onnx")


def runtime() -> ModuleType:
    """The library that runs them."""
    return _library("onnxruntime")


def _library(name: str) -> ModuleType:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        raise InputError(
            f"networks need {name}, which is not installed: pip install 'tiledlaf[networks]'"
        ) from None


def kind_of(provider: str) -> str:
    """What the bits of a network's output depend on: version, provider and kind of processor."""
    return f"onnxruntime {runtime().__version__}, {provider}, {_processor()}"


@functools.cache
def _processor() -> str:
    """The kind of processor, by the widest of its vector units."""
    from llvmlite import binding

    found = binding.get_host_cpu_features()
    wide = [name for name in VECTORS if found.get(name)]
    return f"{platform.machine()} {wide[0] if wide else ''}".strip()


def parsed(content: Content) -> Any:
    """The file as protobuf, checked."""
    library = onnx()
    where = content.path or "network"
    try:
        found = library.load_model_from_string(content.read())
        library.checker.check_model(found)
    except InputError:
        raise
    except Exception as error:  # a damaged file may raise anything
        raise DamagedFile(f"{where}: expected an ONNX file, {in_a_line(error)}") from None
    if any(one.data_location == one.EXTERNAL for one in found.graph.initializer):
        raise InputError(
            f"{where}: expected ONNX in one file, got one whose weights are in another"
        )
    return found


def ports(content: Content) -> Ports:
    """What a network takes and gives.

    Raises
    ------
    ValueError
        If it does not take one image, or its axes are not those of images.
    """
    model, where = parsed(content), content.path or "network"
    graph = model.graph
    weights = {one.name for one in graph.initializer}
    inputs = [one for one in graph.input if one.name not in weights]
    if len(inputs) != 1 or not graph.output:
        names = ", ".join(one.name for one in inputs)
        raise InputError(f"{where}: expected a network with one input, the image, got {names}")
    given, found = (_dims(one) for one in (inputs[0], graph.output[0]))
    if len(given) not in (4, 5):
        raise InputError(
            f"{where}: expected an input of the axes (n, c, y, x) or (n, c, z, y, x), "
            f"got {len(given)} axes"
        )
    if given[0] not in (None, 1):
        raise InputError(f"{where}: expected an input of one image, got one of {given[0]}")
    last = given[1] is None and given[-1] is not None
    element = inputs[0].type.tensor_type.elem_type
    dtype = onnx().helper.tensor_dtype_to_np_dtype(element)
    if dtype not in (np.float32, np.float16, np.float64):
        raise InputError(f"{where}: expected an input of floating-point numbers, got {dtype}")
    place = -1 if last else 1
    nodes = list(_nodes(graph))
    return Ports(
        inputs[0].name,
        graph.output[0].name,
        last,
        np.dtype(dtype).name,
        given[place],
        found[place] if len(found) == len(given) else None,
        tuple(given[1:-1] if last else given[2:]),
        _end(graph, graph.output[0].name),
        tuple(sorted({one.op_type for one in nodes} & WHOLE)),
        tuple(one.name for one in graph.output[1:]),
    )


def _dims(value: Any) -> list[int | None]:
    shape = value.type.tensor_type.shape.dim
    return [one.dim_value if one.dim_value > 0 else None for one in shape]


def _nodes(graph: Any) -> Iterator[Any]:
    """All operators, of the graphs within others too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _end(graph: Any, name: str) -> str:
    """The operator that makes a value, but for those that only pass it on."""
    made = {output: node for node in graph.node for output in node.output}
    while name in made and made[name].op_type in PASSING:
        name = made[name].input[0]
    return made[name].op_type if name in made else ""


@functools.lru_cache(maxsize=2)
def session(content: Content, provider: str) -> Any:
    """The network, ready to run; on one thread, so that its sums have one order."""
    library = runtime()
    if provider not in library.get_available_providers():
        raise InputError(
            f"`device` cuda: expected an onnxruntime with {provider}, which onnxruntime-gpu has, "
            f"got {', '.join(library.get_available_providers())}"
        )
    options = library.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = library.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4
    options.use_deterministic_compute = True
    try:
        return library.InferenceSession(content.read(), options, providers=[provider])
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{content.path or 'network'}: onnxruntime cannot run it, {in_a_line(error)}"
        ) from None


def runner(content: Content, ports: Ports, provider: str) -> Callable[[np.ndarray], np.ndarray]:
    """A function from (C, *grid) float32 to what the network gives, (J, *grid) float32."""
    made = session(content, provider)

    def run(pixels: np.ndarray) -> np.ndarray:
        x = np.ascontiguousarray(pixels, ports.dtype)[None]
        if ports.last:
            x = np.ascontiguousarray(np.moveaxis(x, 1, -1))
        (found,) = made.run([ports.output], {ports.input: x})
        if ports.last:
            found = np.moveaxis(found, -1, 1)
        return np.ascontiguousarray(found[0], np.float32)

    return run


def working_bytes(content: Content, ports: Ports, shapes: Iterable[Sequence[int]]) -> Iterator[int]:
    """Memory that running the network on each of the shapes (C, *grid) takes."""
    model, where = parsed(content), content.path or "network"
    for shape in shapes:
        yield _working_bytes(model, ports, shape, where)


def _working_bytes(model: Any, ports: Ports, shape: Sequence[int], where: str) -> int:
    """What is alive at once, and buffers; the model's input gets this shape."""
    library = onnx()
    graph = model.graph
    value = next(one for one in graph.input if one.name == ports.input)
    sizes = [1, *shape[1:], shape[0]] if ports.last else [1, *shape]
    for one, n in zip(value.type.tensor_type.shape.dim, sizes, strict=True):
        one.dim_value = n
    for one in graph.output:  # those of the open shape may contradict
        one.type.tensor_type.ClearField("shape")
    del graph.value_info[:]
    try:
        graph = library.shape_inference.infer_shapes(model, data_prop=True).graph
    except Exception as error:
        raise InputError(f"{where}: its memory cannot be predicted, {in_a_line(error)}") from None
    known = {one.name: _bytes(one) for one in (*graph.value_info, *graph.input, *graph.output)}
    largest = max((size for size in known.values() if size), default=0)
    weights = {one.name for one in graph.initializer}
    ends = {name: i for i, node in enumerate(graph.node) for name in node.input}
    alive, most = {ports.input: known.get(ports.input) or 0}, 0
    for i, node in enumerate(graph.node):
        for name in node.output:
            if name not in weights:
                alive[name] = known.get(name) or largest  # of a shape that is not inferred
        most = max(most, sum(alive.values()))
        alive = {name: size for name, size in alive.items() if ends.get(name, -1) > i}
    stored = sum(math.prod(one.dims) * 4 for one in graph.initializer)
    # convolutions lay out their input anew, and the allocator keeps pieces of several sizes
    return int(1.5 * most) + 2 * stored


def _bytes(value: Any) -> int | None:
    dims = _dims(value)
    return None if None in dims else 4 * math.prod(n for n in dims if n is not None)
