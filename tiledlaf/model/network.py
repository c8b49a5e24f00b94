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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ..errors import InputError
from ..files import image as image_files
from ..files.channels import Channel
from ..files.folders import lock
from ..files.image import Image, Levels, Reader, State
from ..tiles import Box, within
from . import onnxfile, sampling, scaling
from .arrays import convert
from .entries import NetworkEntry
from .onnxfile import Content, Ports
from .scaling import Linear, Sampled, Step

# attributes of a network that are numbers or texts, as its JSON has them
PLAIN = ("classes", "output", "augment", "provider")
LISTS = ("least", "step", "margin", "core", "names")  # and such as are of several
PART = "onnx"  # name of the array of a model file that holds the network
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
        """Edges of a block along all axes of an image's grid, without margin."""
        axes = zip(self.least, self.step, self.margin, self.core, strict=True)
        cores = []
        for (least, step, margin, core), n in zip(axes, grid[-self.ndim :], strict=True):
            edge = min(core, n)  # of a small image, by its size and not by a tile's
            cores.append(length(edge + 2 * margin, least, step) - 2 * margin)
        if self.augment:
            cores[-2:] = [max(cores[-2:])] * 2  # turned blocks have one shape too
        return (1,) * (len(grid) - self.ndim) + tuple(cores)

    def of(self, image: Image, beside: bool = False) -> Image:
        """The probabilities of an image, as an image whose channels are the classes.

        Parameters
        ----------
        beside : whether the image's own channels come before them

        Raises
        ------
        ValueError
            If the image has other axes or channels than the network takes.
        """
        self.check(image)
        source = image.with_absolute_path()
        reader = Evaluated(self, source, self._settled(source), beside=beside)
        count = self.classes + (image.used_channels if beside else 0)
        return Image(
            image.path,
            reader,
            image.name,
            "c" + image.grid_axes,
            (count, *image.grid),
            "float32",
            (image.grid,),
            image.scale,
            image.translation,
            image.units,
            whole=image.whole,
            shown=() if beside else tuple(map(Channel, self.names)),
            data=None if reader.stored else reader.open("", ""),
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
        block = self.block(image.grid)[-self.ndim :]
        shape = [b + 2 * m for b, m in zip(block, self.margin, strict=True)]
        shape.insert(0, image.used_channels)
        (run,) = onnxfile.working_bytes(self.content, self.ports, [shape])
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
            return np.concatenate([1 - found, found]) if len(found) == 1 else found
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
    beside : whether the image's own channels come before them
    """

    network: Network
    image: Image
    before: tuple[Linear, ...]
    folder: str = ""
    beside: bool = False

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
        return Lattice(self.network, self.image, self.before, self.folder, self.beside)

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


def network_settings(probabilities: Image | None) -> dict[str, Any]:
    """What an output says, for readers, of the network that makes probabilities, if one does.

    That labels depend on it is in the state of the probabilities.
    """
    found = None if probabilities is None else network_of(probabilities)
    return {} if found is None else {"network": found.describe() | {"kind": found.kind}}


def network_lines(probabilities: Image | None) -> list[str]:
    """A line on the network that makes probabilities, if one does."""
    found = None if probabilities is None else network_of(probabilities)
    if probabilities is None or found is None:
        return []
    scaled = "scaled intensities" if found.before else "intensities as stored"
    block, margin = (
        " x ".join(map(str, edges)) for edges in (found.block(probabilities.grid), found.margin)
    )
    return [
        f"network: {found.output} of {found.classes} classes from {scaled}, in blocks of {block} "
        f"pixels with a margin of {margin}; {found.kind}"
    ]


LOCK = ".lock"  # behind the name of a block, of the file that is locked while it is computed


def block_name(index: Sequence[int]) -> str:
    """Name of the file of a block that processes share."""
    return "_".join(map(str, index))


class _Kept:
    """The blocks that this process used last, of all images together, up to `CACHE` bytes."""

    def __init__(self) -> None:
        self._blocks: collections.OrderedDict[Any, np.ndarray] = collections.OrderedDict()
        self._bytes, self._lock = 0, threading.Lock()

    def get(self, key: Any) -> np.ndarray | None:
        """A block, None if it is not kept."""
        with self._lock:
            if key in self._blocks:
                self._blocks.move_to_end(key)
            return self._blocks.get(key)

    def put(self, key: Any, block: np.ndarray) -> None:
        """Keep a block, and no longer those that were used longest ago."""
        with self._lock:
            self._blocks[key] = block
            self._bytes += block.nbytes
            while self._bytes > CACHE and len(self._blocks) > 1:
                self._bytes -= self._blocks.popitem(last=False)[1].nbytes


_kept = _Kept()


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
    beside : whether the image's own channels come before them, as float32
    """

    def __init__(
        self,
        network: Network,
        image: Image,
        before: Sequence[Linear] = (),
        folder: str = "",
        beside: bool = False,
    ) -> None:
        self.network, self.image, self.before, self.folder = network, image, before, folder
        self.beside = beside
        self.block = network.block(image.grid)
        self.margin = (0,) * (len(image.grid) - network.ndim) + network.margin
        self._key = object()  # by which its blocks are kept
        self._locks: dict[tuple[int, ...], threading.Lock] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        # blocks that are kept, and locks, stay in their process
        given = (self.network, self.image, self.before, self.folder, self.beside)
        return type(self), given

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
        # blocks that another process computes come last: by then it may have them
        wanted = [(index, False) for index in itertools.product(*spans)]
        for index, patient in wanted:  # which grow meanwhile
            own = tuple(slice(i * b, (i + 1) * b) for i, b in zip(index, self.block, strict=True))
            block = self._get(index, own, patient)
            if block is None:
                wanted.append((index, True))
                continue
            part = tuple(
                slice(max(o.start, w.start), min(o.stop, w.stop))
                for o, w in zip(own, window, strict=True)
            )
            found[:, *within(window, part)] = block[:, *within(own, part)]
        if self.beside:
            pixels = image_files.read(self.image, window).astype(np.float32, copy=False)
            found = np.concatenate([pixels, found])
        return found[chosen]

    def _get(self, index: tuple[int, ...], own: Box, patient: bool) -> np.ndarray | None:
        """A block, kept or computed; threads that want the same one wait for the first.

        None where another process computes it, unless `patient`: then that is waited for.
        """
        with self._lock:
            own_lock = self._locks.setdefault(index, threading.Lock())
        with own_lock:
            found = _kept.get((self._key, index))
            if found is None:
                found = self._made(index, own, patient)
                if found is not None:
                    _kept.put((self._key, index), found)
        with self._lock:
            self._locks.pop(index, None)
        return found

    def _made(self, index: tuple[int, ...], own: Box, patient: bool) -> np.ndarray | None:
        """A block that another process has made, or this one makes now; None as for `_get`."""
        found = self._shared(index)
        if found is None:
            with self._alone(index, patient) as alone:
                found = self._shared(index) if alone else None
                if alone and found is None:
                    found = self._computed(own)
                    self._share(index, found)
        return found

    @contextlib.contextmanager
    def _alone(self, index: tuple[int, ...], patient: bool) -> Iterator[bool]:
        """Whether no other process computes a block; where there are no locks it is taken so."""
        with contextlib.ExitStack() as held:
            alone = True
            if self.folder:
                path = os.path.join(self.folder, block_name(index) + LOCK)
                try:
                    lock(held.enter_context(open(path, "w")), alone=True, patient=patient)
                except BlockingIOError:
                    alone = False
                except OSError:  # nor is there anything to be shared where the folder is gone
                    pass
            yield alone

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


def length(wanted: int, least: int, step: int) -> int:
    """The shortest input that is not shorter than wanted; the only one where there is one."""
    return least if step == 0 else least + max(0, -(-(wanted - least) // step)) * step
