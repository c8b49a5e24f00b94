"""A network's probabilities of an image, computed block by block of a fixed lattice."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import hashlib
import itertools
import json
import math
import os
import threading
import uuid
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from ..errors import InputError, understood
from ..files import image as image_files
from ..files.channels import Channel
from ..files.image import Image, Levels, Reader, State, say
from ..tiles import Box, within
from . import onnxfile, package, sampling, scaling
from .arrays import convert
from .entries import NetworkEntry
from .onnxfile import Content, Ports
from .package import Package
from .scaling import Linear, Sampled, Step

# what a network may give: logits of each class, logits of the second of two classes, or
# probabilities of either kind
OUTPUTS = ("logits", "probabilities")
STEPS = (1, 2, 4, 8, 16, 32, 64, 128)  # pixels that lengths of an input may have to be multiples of
TRIED = {2: (256, 512, 1024, 2048), 3: (64, 128, 256)}  # edges that the reach is measured with
PHASES = 4  # positions of a changed line of pixels, since pooling sees some of them otherwise
# edges of a block: the larger, the less is computed twice, up to a tenth, and within this memory
CORES = {2: (128, 256, 512, 768, 1024, 1536, 2048), 3: (32, 64, 96, 128, 192, 256)}
TWICE, ROOM = 0.1, 2**29
# attributes of a network that are numbers or texts, as its JSON has them
PLAIN = ("classes", "output", "augment", "provider")
LISTS = ("least", "step", "margin", "core", "names")  # and such as are of several
PART = "onnx"  # name of the array of a model file that holds the network
PHASE = 32  # pixels that pooling may make one of, where it cannot be tried
CACHE = 2**28  # bytes of blocks that a process keeps for the tiles beside them


@dataclass(frozen=True)
class Network:
    """A network that gives the probabilities of each pixel's classes.

    Its values of a pixel depend on where in a block it lies, by strides, padding and the order of
    sums. So it is evaluated on blocks of one size at fixed places of the image, each with a margin
    that covers its receptive field: what is labeled then does not depend on tiles or workers.

    Attributes
    ----------
    content : the ONNX file
    ports : what it takes and gives
    classes : number J
    output : one of `OUTPUTS`
    before : what becomes of intensities
    least, step : shortest input along each axis, and what is added to it; 0 for one of one length
    margin : pixels that it looks at beyond a pixel, along each axis, rounded up to steps
    core : edges of a block of a large image, without margin
    names : of the classes, or none
    augment : whether flips and quarter turns are averaged
    provider : of onnxruntime
    kind : version, provider and processor that its bits depend on
    """

    content: Content
    ports: Ports
    classes: int
    output: str
    before: tuple[Step, ...]
    least: tuple[int, ...]
    step: tuple[int, ...]
    margin: tuple[int, ...]
    core: tuple[int, ...]
    names: tuple[str, ...] = ()
    augment: bool = False
    provider: str = onnxfile.CPU
    kind: str = ""

    @property
    def ndim(self) -> int:
        """Number of spatial axes, 2 or 3."""
        return len(self.margin)

    def block(self, grid: Sequence[int]) -> tuple[int, ...]:
        """Edges of a block of an image's spatial axes, without margin; a plane of stacks for 2."""
        axes = zip(self.least, self.step, self.margin, self.core, strict=True)
        cores = []
        for (least, step, margin, core), n in zip(axes, grid[-self.ndim :], strict=True):
            edge = min(core, n)  # of a small image, by its size and not by a tile's
            cores.append(_length(edge + 2 * margin, least, step) - 2 * margin)
        if self.augment:
            cores[-2:] = [max(cores[-2:])] * 2  # turned blocks have one shape too
        return (1,) * (len(grid) - self.ndim) + tuple(cores)

    def of(self, image: Image) -> Image:
        """The probabilities of an image, as an image whose channels are the classes.

        Raises
        ------
        ValueError
            If the image has other axes or channels than the network takes.
        """
        self.check(image)
        source = image.with_absolute_path()
        reader = Evaluated(self, source, self._settled(source))
        return Image(
            image.path,
            reader,
            image.name,
            "c" + image.grid_axes,
            (self.classes, *image.grid),
            "float32",
            (image.grid,),
            image.scale,
            image.translation,
            image.units,
            whole=image.whole,
            shown=tuple(map(Channel, self.names)),
            data=None if reader.stored else Lattice(self, source, reader.before),
        )

    def _settled(self, image: Image) -> tuple[Linear, ...]:
        """What becomes of an image's intensities, by a sample of it where that is needed."""
        pixels = np.zeros((image.used_channels, 1))
        if any(isinstance(step, Sampled) for step in self.before):
            windows = sampling.sample_windows(image.grid, 0)
            blocks = [image_files.read(image, window) for window in windows]
            valid = [image_files.valid_of(image, block) for block in blocks]
            parts = [
                block.reshape(len(block), -1) if v is None else block[:, v]
                for block, v in zip(blocks, valid, strict=True)
            ]
            pixels = np.concatenate(parts, axis=1)
            pixels = pixels[:, np.isfinite(pixels).all(axis=0)]
            if not pixels.size:
                raise InputError(f"{image.path}: expected pixels with data, got none in a sample")
        return scaling.settled(self.before, pixels)

    def check(self, image: Image) -> None:
        """Refuse an image of other axes or channels than the network takes."""
        if len(image.spatial_axes) < self.ndim:
            raise InputError(
                f"{image.path}: the network expects an image with the axes z, y, x, "
                f"got {', '.join(image.spatial_axes)}"
            )
        if self.ports.channels not in (None, image.used_channels):
            raise InputError(
                f"{image.path}: the network expects images of {self.ports.channels} channel(s), "
                f"got {image.used_channels} (choose with `channels`)"
            )

    def working_bytes(self, image: Image) -> int:
        """Memory that a process needs to evaluate a block of the image, and for those it keeps."""
        block = self.block(image.grid[-len(image.spatial_axes) :])
        shape = [b + 2 * m for b, m in zip(block[-self.ndim :], self.margin, strict=True)]
        run = onnxfile.working_bytes(self.content, self.ports, (image.used_channels, *shape))
        return run + CACHE

    def run(self, pixels: np.ndarray, before: Sequence[Linear] = ()) -> np.ndarray:
        """Probabilities of a block with its margin, (C, *outer) to (J, *block) float32."""
        if self.kind != onnxfile.kind_of(self.provider):
            raise InputError(
                f"expected the network to be run by {self.kind}, as on the machine that began, got "
                f"{onnxfile.kind_of(self.provider)}: its numbers would differ in the last bits"
            )
        for step in before:
            pixels = step.apply(pixels)
        run = onnxfile.runner(self.content, self.ports, self.provider)
        if not self.augment:
            return self._cut(self._probabilities(run(pixels)), pixels.shape)
        total: np.ndarray | None = None
        for turns, flip in itertools.product(range(4), (False, True)):
            turned = np.rot90(pixels[..., ::-1] if flip else pixels, turns, (-2, -1))
            found = np.rot90(self._probabilities(run(turned)), -turns, (-2, -1))
            found = found[..., ::-1] if flip else found
            total = found.copy() if total is None else total + found
        assert total is not None
        return self._cut(total / np.float32(8), pixels.shape)

    def _cut(self, found: np.ndarray, outer: Sequence[int]) -> np.ndarray:
        """What is left of the margin, of networks that give less than they take, is cut."""
        lost = [n - m for n, m in zip(outer[1:], found.shape[1:], strict=True)]
        cut = tuple(
            slice(m - k // 2, n - (m - k // 2))
            for m, k, n in zip(self.margin, lost, found.shape[1:], strict=True)
        )
        return found[:, *cut]

    def _probabilities(self, found: np.ndarray) -> np.ndarray:
        """Probabilities of all classes from what the network gives."""
        if self.output == "probabilities":
            p = np.concatenate([1 - found, found]) if len(found) == 1 else found
            return p
        if len(found) == 1:
            found = np.concatenate([np.zeros_like(found), found])
        found = found - found.max(axis=0)
        np.exp(found, out=found)
        found /= found.sum(axis=0)
        return found

    def describe(self) -> dict[str, Any]:
        """What its numbers depend on, as JSON."""
        return {
            "digest": self.content.digest,
            **{name: getattr(self, name) for name in PLAIN},
            **{name: list(getattr(self, name)) for name in LISTS},
            "before": [msgspec.to_builtins(step) for step in self.before],
        }

    def to_parts(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """What `describe` gives, and the ONNX file, for model files."""
        found = np.frombuffer(self.content.read(), np.uint8)
        return self.describe(), {PART: found}

    @classmethod
    def from_parts(cls, entry: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Network:
        """The network of a model file; it is looked at where it is evaluated."""
        about = convert(dict(entry), NetworkEntry)
        data = arrays[PART].tobytes()
        if arrays[PART].dtype != np.uint8 or hashlib.sha256(data).hexdigest() != about.digest:
            raise InputError("expected the network that the model was learned with")
        content = Content(about.digest, data=data)
        return cls(
            content,
            onnxfile.ports(content),
            kind=onnxfile.kind_of(about.provider),
            **{name: getattr(about, name) for name in ("before", *PLAIN, *LISTS)},
        )

    def located(self, path: str, prefix: str) -> Network:
        """The network, read from a model file where it is evaluated, so that it need not travel."""
        whole = os.path.abspath(path)
        content = Content(self.content.digest, whole, prefix + PART)
        return dataclasses.replace(self, content=content)


@dataclass(frozen=True)
class Evaluated(Reader):
    """Probabilities that a network gives of an image, where they are read.

    Attributes
    ----------
    network : Network
    image : the image, with an absolute path
    before : what becomes of its intensities
    folder : where processes share blocks, "" for none
    """

    network: Network
    image: Image
    before: tuple[Linear, ...]
    folder: str = ""

    name = "network"

    @property
    def stored(self) -> bool:  # type: ignore[override]
        """Whether the image is in a file."""
        return self.image.reader.stored

    def look(self, path: str, level: int, axes: str | None) -> Levels:
        """What the image says: it has its grid."""
        return self.image.reader.look(path, level, axes)

    def open(self, path: str, name: str) -> Any:
        """The lattice of blocks, of which this process keeps the last ones."""
        return Lattice(self.network, self.image, self.before, self.folder)

    def state(self, path: str, name: str) -> State:
        """Of the image, and of the network."""
        described = json.dumps([self.network.describe(), self.network.kind], sort_keys=True)
        return [*self.image.state(), (self.name, len(described), described)]

    def paths(self, path: str) -> list[str]:
        """The image and the network's file."""
        own = self.network.content.path
        return [*self.image.reader.paths(path), *([own] if own else [])]

    def held(self, path: str) -> int:
        """What evaluating a block takes, and the blocks that are kept."""
        return self.network.working_bytes(self.image)


def network_of(probabilities: Image) -> Network | None:
    """The network that makes these probabilities, if one does."""
    reader = probabilities.reader
    return reader.network if isinstance(reader, Evaluated) else None


def block_name(index: Sequence[int]) -> str:
    """Name of the file of a block that processes share."""
    return "_".join(map(str, index))


def _sum(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(4, "little")


class Lattice:
    """Probabilities (J, *grid) of an image, block by block, as an array that can be sliced.

    Blocks are at fixed places, from the image's first pixel on; beyond its borders it is reflected.

    Parameters
    ----------
    network : Network
    image : its axes t and z are those of the grid
    before : what becomes of its intensities
    folder : where blocks are shared with other processes, "" for none
    """

    def __init__(
        self, network: Network, image: Image, before: Sequence[Linear] = (), folder: str = ""
    ) -> None:
        self.network, self.image, self.before, self.folder = network, image, before, folder
        front = len(image.grid) - len(image.spatial_axes)
        self.block = (1,) * front + network.block(image.grid[front:])
        self.margin = (0,) * (len(image.grid) - network.ndim) + network.margin
        self._kept: collections.OrderedDict[tuple[int, ...], np.ndarray] = collections.OrderedDict()
        self._locks: dict[tuple[int, ...], threading.Lock] = {}
        self._lock = threading.Lock()

    def __getitem__(self, box: Sequence[slice | int]) -> np.ndarray:
        """Probabilities of a box; its first axis is that of the classes."""
        chosen, *rest = box
        window = tuple(
            slice(b, b + 1) if isinstance(b, int) else slice(*b.indices(n))
            for b, n in zip(rest, self.image.grid, strict=True)
        )
        found = np.empty((self.network.classes, *(w.stop - w.start for w in window)), np.float32)
        spans = (
            range(w.start // b, -(-w.stop // b)) for w, b in zip(window, self.block, strict=True)
        )
        for index in itertools.product(*spans):
            own = tuple(slice(i * b, (i + 1) * b) for i, b in zip(index, self.block, strict=True))
            part = tuple(
                slice(max(o.start, w.start), min(o.stop, w.stop))
                for o, w in zip(own, window, strict=True)
            )
            found[:, *within(window, part)] = self._get(index, own)[:, *within(own, part)]
        return found[chosen]

    def _get(self, index: tuple[int, ...], own: Box) -> np.ndarray:
        """A block, kept or computed; threads that want the same one wait for the first."""
        with self._lock:
            if index in self._kept:
                self._kept.move_to_end(index)
                return self._kept[index]
            lock = self._locks.setdefault(index, threading.Lock())
        with lock:
            with self._lock:
                if index in self._kept:
                    return self._kept[index]
            found = self._shared(index)
            if found is None:
                found = self._computed(own)
                self._share(index, found)
            with self._lock:
                self._kept[index] = found
                self._locks.pop(index, None)
                while len(self._kept) > 1 and len(self._kept) * found.nbytes > CACHE:
                    self._kept.popitem(last=False)
        return found

    def _shared(self, index: tuple[int, ...]) -> np.ndarray | None:
        """A block that another process has computed, if it is whole."""
        if not self.folder:
            return None
        try:
            data = Path(self.folder, block_name(index)).read_bytes()
        except OSError:  # none has, or the disk fails: it is computed
            return None
        shape = (self.network.classes, *self.block)
        if len(data) != 4 * math.prod(shape) + 4 or _sum(data[:-4]) != data[-4:]:
            return None
        return np.frombuffer(data[:-4], np.float32).reshape(shape)

    def _share(self, index: tuple[int, ...], found: np.ndarray) -> None:
        """Leave a block to other processes; where the disk is full they compute it themselves."""
        if not self.folder:
            return
        path = os.path.join(self.folder, block_name(index))
        partial = f"{path}.{uuid.uuid4().hex}.partial"
        data = found.tobytes()
        with contextlib.suppress(OSError):
            Path(partial).write_bytes(data + _sum(data))
            os.replace(partial, path)

    def _computed(self, own: Box) -> np.ndarray:
        grid = self.image.grid
        wanted = [slice(o.start - m, o.stop + m) for o, m in zip(own, self.margin, strict=True)]
        inside = tuple(
            slice(max(0, w.start), min(n, w.stop)) for w, n in zip(wanted, grid, strict=True)
        )
        stored = image_files.read(self.image, inside)
        pixels = stored.astype(np.float32)
        valid = image_files.valid_of(self.image, stored)
        if valid is not None:
            pixels[:, ~valid] = 0
        finite = np.isfinite(pixels).all(axis=0)
        if not finite.all():  # tiles refuse them where they are not masked out
            pixels[:, ~finite] = 0
        beyond = [(i.start - w.start, w.stop - i.stop) for w, i in zip(wanted, inside, strict=True)]
        outer = np.pad(pixels, [(0, 0), *beyond], mode="reflect")
        given = outer.reshape(len(outer), *outer.shape[-self.network.ndim :])
        found = self.network.run(given, self.before)
        if not np.isfinite(found).all():
            raise InputError(
                f"{self.image.path}: the network gives NaN or inf (are its intensities those that "
                "it learned from?)"
            )
        found = np.ascontiguousarray(found.reshape(len(found), *self.block))
        if not finite.all():
            core = within(wanted, own)
            lost = np.pad(~finite, beyond)[core] if beyond else ~finite
            found[:, lost] = np.nan
        return found


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
        core=_core(content, ports, shape),
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


def _core(content: Content, ports: Ports, shape: Shape) -> tuple[int, ...]:
    """Edges of a block: the least that loses little to margins, or the largest that fits."""
    found: tuple[int, ...] = ()
    for edge in CORES[len(shape.margin)]:
        axes = list(zip(*shape, strict=True))
        outer = [_length(edge + 2 * margin, least, step) for least, step, margin in axes]
        need = onnxfile.working_bytes(content, ports, (ports.channels or 1, *outer))
        if found and need > ROOM:
            break
        found = tuple(n - 2 * margin for n, margin in zip(outer, shape.margin, strict=True))
        if math.prod(found) >= (1 - TWICE) * math.prod(outer):
            break
    return found


def _length(wanted: int, least: int, step: int) -> int:
    """The shortest input that is not shorter than wanted; the only one where there is one."""
    return least if step == 0 else least + max(0, -(-(wanted - least) // step)) * step


def _measured(
    path: str, ports: Ports, about: Package | None, run: Callable[[np.ndarray], np.ndarray]
) -> tuple[Shape, int]:
    """What inputs the network takes, and the planes of its output: as stated, or by trying."""
    ndim, rng = len(ports.edges), np.random.default_rng(0)
    if None not in ports.edges:
        least, step = tuple(n for n in ports.edges if n is not None), (0,) * ndim
    elif about is not None:
        least, step = about.least, about.step
    else:
        least, step = (0,) * ndim, (_step(path, ports, run),) * ndim
    halo = None if about is None else about.halo
    # what looks at all of an image does so of a larger one too
    for edge in TRIED[ndim][: 2 if ports.whole else None]:
        tried = tuple(_length(max(edge, 2 * s), n, s) for n, s in zip(least, step, strict=True))
        x = rng.standard_normal((ports.channels or 1, *tried), np.float32)
        base = _run(path, run, x)
        lost = [n - m for n, m in zip(tried, base.shape[1:], strict=True)]
        if any(k < 0 or k % 2 or k >= n // 2 for k, n in zip(lost, tried, strict=True)):
            raise InputError(
                f"{path}: expected a network that gives one pixel for each, got "
                f"{base.shape[1:]} of {tried}"
            )
        if halo is None:
            reach = [_reach(run, x, base, axis, rng) for axis in range(ndim)]
        else:
            reach = [h + k // 2 for h, k in zip(halo, lost, strict=True)]
        if all(r is not None for r in reach):
            margin = [r or 0 for r in reach]
            for axis, (n, s) in enumerate(zip(tried, step, strict=True)):
                aligned = -(-margin[axis] // s) * s if s else _aligned(n, margin[axis])
                margin[axis] = aligned if halo is None else margin[axis]
                if s == 0 and n <= 2 * margin[axis]:
                    raise InputError(
                        f"{path}: expected a network of larger images than {n} pixels, of which "
                        f"{2 * margin[axis]} are its margin"
                    )
            return Shape(least, step, tuple(margin)), len(base)
        if not any(step):
            break
    named = f" (it has {', '.join(ports.whole)})" if ports.whole else ""
    raise InputError(
        f"{path}: the network looks at all of an image of {' x '.join(map(str, tried))} "
        f"pixels{named}, so that blocks would have seams: expected one with a limited receptive "
        "field, such as with batch normalization"
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
