"""Networks as packages of bioimage.io: what their descriptions say of an ONNX file."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, in_a_line
from .onnxfile import Content, content_of
from .scaling import Linear, Sampled, Step

NAMES = ("rdf.yaml", "bioimageio.yaml")
EXTRA = "packages of bioimage.io need bioimageio.spec, which is not installed: "
EXTRA += "pip install 'tiledlaf[bioimageio]'"


@dataclass(frozen=True)
class Package:
    """What a package says of its network.

    Attributes
    ----------
    content : its ONNX file
    before : what becomes of intensities
    output : "logits" or "probabilities"; None: not said
    least, step : the shortest input along each spatial axis, and what is added to it
    halo : pixels that are cut from an output along each axis; None: not said
    names : of the classes, or none
    """

    content: Content
    before: tuple[Step, ...]
    output: str | None
    least: tuple[int, ...]
    step: tuple[int, ...]
    halo: tuple[int, ...] | None
    names: tuple[str, ...]


def is_package(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a package or its description, by its name."""
    text = os.fspath(path)
    return text.endswith((".yaml", ".yml", ".zip")) or os.path.isdir(text)


def read(path: str | os.PathLike[str]) -> Package:
    """Read a package: a folder, its rdf.yaml, or a zip.

    Raises
    ------
    ValueError
        If it has no ONNX weights beside it, or asks for what cannot be done block by block.
    """
    try:
        import ruyaml  # which bioimageio.spec needs
        from bioimageio.spec import ValidationContext, build_description
        from bioimageio.spec.model import v0_5
    except ImportError:
        raise InputError(EXTRA) from None
    text = os.fspath(path)
    if os.path.isdir(text):
        found = [name for name in NAMES if os.path.exists(os.path.join(text, name))]
        if not found:
            raise InputError(f"{path}: expected a package of bioimage.io with {NAMES[0]}")
        text = os.path.join(text, found[0])
    try:
        said = ruyaml.YAML(typ="safe").load(_description(text))
        root = Path(text).absolute().parent  # nothing is fetched from elsewhere
        context = ValidationContext(root=root, perform_io_checks=False)
        about: Any = build_description(said, context=context, format_version="latest")
    except OSError as error:
        raise InputError(f"{path}: cannot be read, {error.strerror or error}") from None
    except Exception as error:  # a damaged file may raise anything
        raise InputError(
            f"{path}: expected the description of a model, {in_a_line(error)}"
        ) from None
    if not isinstance(about, v0_5.ModelDescr):
        (first, *_) = about.validation_summary.errors
        place = ".".join(map(str, first.loc))
        raise InputError(f"{path}: expected the description of a model, {place}: {first.msg}")
    if len(about.inputs) != 1 or len(about.outputs) != 1:
        raise InputError(
            f"{path}: expected a network with one input and one output, got {len(about.inputs)} "
            f"and {len(about.outputs)}"
        )
    given, made = about.inputs[0], about.outputs[0]
    axes = [_kind(axis) for axis in given.axes]
    if sorted(axes) not in (sorted("bcyx"), sorted("bczyx"), sorted("cyx"), sorted("czyx")):
        raise InputError(f"{path}: expected an input of the axes b, c, y, x, got {''.join(axes)}")
    spatial = [axis for axis in given.axes if _kind(axis) in "zyx"]
    sizes = [_size(path, axis) for axis in spatial]
    halo = tuple(int(getattr(axis, "halo", 0) or 0) for axis in made.axes if _kind(axis) in "zyx")
    return Package(
        _content(path, text, about),
        tuple(s for one in given.preprocessing for s in _before(path, one)),
        _output(path, made.postprocessing),
        tuple(least for least, _ in sizes),
        tuple(step for _, step in sizes),
        halo if any(halo) else None,
        _names(made.axes),
    )


def _description(path: str) -> bytes:
    """The description as YAML, from its file or a zip."""
    if not path.endswith(".zip"):
        return Path(path).read_bytes()
    with zipfile.ZipFile(path) as archive:
        found = [name for name in NAMES if name in archive.namelist()]
        if not found:
            raise InputError(f"expected {NAMES[0]} in it")
        return archive.read(found[0])


def _kind(axis: Any) -> str:
    """One letter of an axis."""
    kind = str(axis.type)
    return str(axis.id) if kind == "space" else kind[0]


def _size(path: Any, axis: Any) -> tuple[int, int]:
    """Shortest length of an axis, and what is added to it; 0 for a fixed one."""
    size = axis.size
    if isinstance(size, int):
        return size, 0
    if hasattr(size, "min"):
        return int(size.min), int(size.step)
    raise InputError(f"{path}: expected a size of the axis {axis.id}, got {size!r:.100}")


def _content(path: Any, text: str, about: Any) -> Content:
    weights = about.weights.onnx
    if weights is None:
        kinds = [name for name, one in about.weights if one is not None]
        raise InputError(f"{path}: expected ONNX weights, got {', '.join(kinds)}")
    if getattr(weights, "external_data", None) is not None:
        raise InputError(f"{path}: expected ONNX in one file, got one whose weights are in another")
    name = str(getattr(weights.source, "path", weights.source))
    if text.endswith(".zip"):
        name = os.path.basename(name)
        with zipfile.ZipFile(text) as archive:
            if name not in archive.namelist():
                raise InputError(f"{path}: expected {name} in it, its ONNX file")
            data = archive.read(name)
        return Content(hashlib.sha256(data).hexdigest(), os.path.abspath(text), name)
    whole = os.path.join(os.path.dirname(text), name)
    if not os.path.exists(whole):
        raise InputError(f"{path}: expected {name} beside it, its ONNX file")
    return content_of(whole)


def _before(path: Any, step: Any) -> list[Step]:
    """What a step of preprocessing does."""
    given: Any = getattr(step, "kwargs", None)
    match step.id:
        case "ensure_dtype":
            return []
        case "scale_linear":
            return [Linear(_numbers(given.gain), _numbers(given.offset))]
        case "fixed_zero_mean_unit_variance":
            mean, deviation = _numbers(given.mean), _numbers(given.std)
            gain = tuple(1 / d for d in deviation)
            return [Linear(gain, tuple(-m * g for m, g in zip(mean, gain, strict=True)))]
        case "clip" if given.min is not None or given.max is not None:
            return [Linear(least=given.min, most=given.max)]
        case "zero_mean_unit_variance":
            return [Sampled(eps=given.eps, each=_each(given.axes))]
        case "scale_range":
            limits = (given.min_percentile, given.max_percentile)
            return [Sampled(*limits, given.eps, _each(given.axes))]
    raise InputError(f"{path}: its preprocessing {step.id} is not known")


def _each(axes: Sequence[Any] | None) -> bool:
    """Whether each channel has numbers of its own."""
    return axes is not None and "channel" not in map(str, axes)


def _numbers(given: Any) -> tuple[float, ...]:
    return (float(given),) if isinstance(given, int | float) else tuple(map(float, given))


def _output(path: Any, steps: Sequence[Any]) -> str | None:
    """What the network gives, before what the description adds."""
    kinds = [step.id for step in steps if step.id != "ensure_dtype"]
    if not kinds:
        return None
    if kinds in (["sigmoid"], ["softmax"]):
        return "logits"
    raise InputError(
        f"{path}: expected a network whose output becomes probabilities, got the postprocessing "
        f"{', '.join(kinds)}"
    )


def _names(axes: Sequence[Any]) -> tuple[str, ...]:
    """Names of the classes, if they are more than numbered channels."""
    names = [str(n) for axis in axes if axis.type == "channel" for n in axis.channel_names]
    if any(name == f"channel{i}" for i, name in enumerate(names)):
        return ()
    return ("background", *names) if len(names) == 1 else tuple(names)
