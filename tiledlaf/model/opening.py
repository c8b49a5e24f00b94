"""Open networks: what a file or a package says, and what is found by trying."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError, understood
from ..files.image import say
from . import onnxfile, package
from .network import Network, length
from .onnxfile import Content, Ports
from .package import Package
from .scaling import Linear, Sampled, Step

# what a network may give: logits of each class, logits of the second of two classes, or
# probabilities of either kind
OUTPUTS = ("logits", "probabilities")
STEPS = (1, 2, 4, 8, 16, 32, 64, 128)  # pixels that lengths of an input may have to be multiples of
TRIED = {2: (256, 512, 1024, 2048), 3: (64, 128, 256)}  # edges that the reach is measured with
PHASES = 4  # positions of a changed line of pixels, since pooling sees some of them otherwise
PHASE = 32  # pixels that pooling may make one of, where it cannot be tried
# edges of a block: the larger, the less is computed twice, up to a tenth, and within this memory
CORES = {2: (128, 256, 512, 768, 1024, 1536, 2048), 3: (32, 64, 96, 128, 192, 256)}
TWICE, ROOM = 0.1, 2**29


def open_network(
    path: str | os.PathLike[str],
    *,
    output: str | None = None,
    intensities: Sequence[float] | None = None,
    augment: bool = False,
    device: str = "cpu",
) -> Network:
    """Open a network in ONNX, and measure its receptive field unless a package states it.

    Parameters
    ----------
    path : ONNX file, or a package of bioimage.io: its folder, rdf.yaml or zip
        It takes (1, C, y, x) or (1, C, z, y, x) numbers and gives (1, J, y, x), or the same with
        channels last; of one channel, those of the second of two classes.
    output : {"logits", "probabilities"}, optional
        What it gives; by default what a package says, or probabilities where the network ends with
        softmax or sigmoid, else logits.
    intensities : (low, high), optional
        Intensities that become 0 and 1 for the network; by default what a package says, or pixels
        are taken as they are.
    augment : bool
        Average over flips and quarter turns: eight times the work.
    device : {"cpu", "cuda"}

    Returns
    -------
    Network
        To be given as `probabilities`.

    Raises
    ------
    ValueError
        If the file is no such network, or looks at all of an image.
    """
    about = package.read(path) if package.is_package(path) else None
    content = onnxfile.content_of(path) if about is None else about.content
    ports = onnxfile.ports(content)
    provider = onnxfile.PROVIDERS[device]
    before = _range(intensities)
    if output not in (None, *OUTPUTS):
        raise InputError(f"expected `network_output` {' or '.join(OUTPUTS)}, got {output!r}")
    if ports.others:
        say(f"{path}: its output {ports.output} is taken, not {', '.join(ports.others)}")
    run = onnxfile.runner(content, ports, provider)
    shape, planes = _measured(str(path), ports, about, run)
    if augment:
        edges = [least for least, step in zip(shape.least, shape.step, strict=True) if step == 0]
        if len(set(edges[-2:])) > 1:
            raise InputError(f"{path}: expected a network of square images to `augment`")
        margin = (*shape.margin[:-2], *(max(shape.margin[-2:]),) * 2)
        shape = shape._replace(margin=margin)
    names: tuple[str, ...] = ()
    if about is not None:
        output, names = output or about.output, about.names
        before = before or about.before
        _say_sampled(path, before)
    if output is None:
        output = "probabilities" if ports.ends in ("Softmax", "Sigmoid") else "logits"
    if planes > 1 and ports.ends == "Sigmoid" and output == "probabilities":
        raise InputError(
            f"{path}: expected classes that exclude each other, got {planes} sigmoids: end the "
            "network with softmax"
        )
    classes = max(planes, 2)
    names = names if len(names) == classes else ()
    kind = onnxfile.kind_of(provider)
    return Network(
        content,
        ports,
        classes,
        output,
        before,
        *shape,
        core=core_of(content, ports, shape),
        names=names,
        augment=augment,
        provider=provider,
        kind=kind,
    )


def _range(intensities: Sequence[float] | None) -> tuple[Step, ...]:
    """The step by which two intensities become 0 and 1; none for None."""
    if intensities is None:
        return ()
    with understood("network_range", intensities, "two numbers"):
        low, high = map(float, intensities)
    if not low < high < math.inf or low == -math.inf:
        raise InputError(f"expected a `network_range` LOW,HIGH that rises, got {low:g},{high:g}")
    return (Linear((1 / (high - low),), (-low / (high - low),)),)


def _say_sampled(path: Any, before: Sequence[Step]) -> None:
    if any(isinstance(step, Sampled) for step in before):
        say(
            f"{path}: it normalizes each image by itself; the numbers for that are found from a "
            "sample of the image, and hold for all of its blocks (`network_range` states others)"
        )


class Shape(NamedTuple):
    """Which inputs a network takes, and how far it looks, as of `Network`."""

    least: tuple[int, ...]
    step: tuple[int, ...]
    margin: tuple[int, ...]


def core_of(content: Content, ports: Ports, shape: Shape) -> tuple[int, ...]:
    """Edges of a block: the least that loses little to margins, or the largest that fits."""
    axes = list(zip(*shape, strict=True))
    outers = [
        [length(edge + 2 * margin, least, step) for least, step, margin in axes]
        for edge in CORES[len(axes)]
    ]
    needs = onnxfile.working_bytes(content, ports, ((ports.channels or 1, *o) for o in outers))
    found: tuple[int, ...] = ()
    for outer, need in zip(outers, needs, strict=False):
        if found and need > ROOM:
            break
        found = tuple(n - 2 * margin for n, margin in zip(outer, shape.margin, strict=True))
        if math.prod(found) >= (1 - TWICE) * math.prod(outer):
            break
    return found


def _measured(
    path: str, ports: Ports, about: Package | None, run: Callable[[np.ndarray], np.ndarray]
) -> tuple[Shape, int]:
    """What inputs the network takes, and the planes of its output: as stated, or by trying."""
    ndim = len(ports.edges)
    if None not in ports.edges:
        least, step = tuple(n for n in ports.edges if n is not None), (0,) * ndim
    elif about is not None:
        least, step = about.least, about.step
    else:
        least, step = (0,) * ndim, (_step(path, ports, run),) * ndim
    halo, rng = None if about is None else about.halo, np.random.default_rng(0)
    tried: tuple[int, ...] = ()
    # what looks at all of an image does so of a larger one too
    for edge in TRIED[ndim][: 2 if ports.whole else None]:
        before = tried
        tried = tuple(length(max(edge, 2 * s), n, s) for n, s in zip(least, step, strict=True))
        if tried == before:  # of one size
            break
        x = rng.standard_normal((ports.channels or 1, *tried), np.float32)
        base = _run(path, run, x)
        lost = _lost(path, tried, base)
        if halo is not None:
            margin = tuple(h + k // 2 for h, k in zip(halo, lost, strict=True))
            _check_margin(path, tried, step, margin)
            return Shape(least, step, margin), len(base)
        reach = [_reach(run, x, base, axis, rng) for axis in range(ndim)]
        found = [r for r in reach if r is not None]
        if len(found) == ndim:
            axes = zip(tried, step, found, strict=True)
            margin = tuple(-(-r // s) * s if s else _aligned(n, r) for n, s, r in axes)
            _check_margin(path, tried, step, margin)
            return Shape(least, step, margin), len(base)
    named = f" (it has {', '.join(ports.whole)})" if ports.whole else ""
    raise InputError(
        f"{path}: the network looks at all of an image of {' x '.join(map(str, tried))} "
        f"pixels{named}, so that blocks would have seams: expected one with a limited receptive "
        "field, such as with batch normalization"
    )


def _lost(path: str, given: Sequence[int], found: np.ndarray) -> list[int]:
    """How many pixels of each axis a network that is given so many does not give."""
    lost = [n - m for n, m in zip(given, found.shape[1:], strict=True)]
    if any(k < 0 or k % 2 or k >= n // 2 for k, n in zip(lost, given, strict=True)):
        raise InputError(
            f"{path}: expected a network that gives one pixel for each, got {found.shape[1:]} of "
            f"{tuple(given)}"
        )
    return lost


def _check_margin(
    path: str, edges: Sequence[int], step: Sequence[int], margin: Sequence[int]
) -> None:
    """Refuse a network of one size whose margins leave nothing of it."""
    for n, s, m in zip(edges, step, margin, strict=True):
        if s == 0 and n <= 2 * m:
            raise InputError(
                f"{path}: expected a network of larger images than {n} pixels, of which {2 * m} "
                "are its margin"
            )


def _aligned(edge: int, margin: int) -> int:
    """A margin of an input of one size, with which blocks begin at the same phase of pooling."""
    power, rest = min(edge & -edge, PHASE), edge - 2 * margin
    while power > max(rest, 1):
        power //= 2
    return (edge - rest // power * power) // 2


def _run(path: str, run: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> np.ndarray:
    try:
        found = run(x)
    except Exception as error:
        raise InputError(
            f"{path}: the network does not take {x.shape}, {type(error).__name__}"
        ) from None
    if found.ndim != x.ndim:
        raise InputError(
            f"{path}: expected an output of the axes of the input, got {found.ndim + 1} axes"
        )
    return found


def _step(path: str, ports: Ports, run: Callable[[np.ndarray], np.ndarray]) -> int:
    """The least number that lengths of the input must be multiples of, of those that are tried."""
    ndim = len(ports.edges)
    for step in STEPS:
        edge = max(64, 2 * step) + step
        x = np.zeros((ports.channels or 1, *(fixed or edge for fixed in ports.edges)), np.float32)
        try:
            found = run(x)
        except Exception:  # onnxruntime raises kinds of its own
            continue
        lost = {n - m for n, m in zip(x.shape[1:], found.shape[1:], strict=False)}
        if found.ndim == ndim + 1 and all(k >= 0 and k % 2 == 0 for k in lost):
            return step
    raise InputError(
        f"{path}: expected a network that gives one pixel for each, of images whose edges are "
        f"multiples of a number up to {STEPS[-1]}"
    )


def _reach(
    run: Callable[[np.ndarray], np.ndarray],
    x: np.ndarray,
    base: np.ndarray,
    axis: int,
    rng: np.random.Generator,
) -> int | None:
    """How far a change of a line of pixels is seen along an axis; None if up to the borders."""
    edge, lost = x.shape[1 + axis], (x.shape[1 + axis] - base.shape[1 + axis]) // 2
    most = 0
    for phase in range(PHASES):
        # other remainders of all powers of 2
        place = edge // 2 + phase * 5 % max(edge // 4, 1)
        other = x.copy()
        line = np.moveaxis(other, 1 + axis, 0)
        line[place] = 3 * rng.standard_normal(line[place].shape, np.float32)
        changed = np.moveaxis(run(other) != base, 1 + axis, 0)
        seen = np.flatnonzero(changed.reshape(len(changed), -1).any(axis=1)) + lost
        if not len(seen):
            continue
        if seen[0] <= lost or seen[-1] >= edge - 1 - lost:
            return None
        most = max(most, place - int(seen[0]), int(seen[-1]) - place)
    return max(most, lost)
