"""OME-Zarr 0.4 and 0.5 on Zarr v2 and v3: the only file that knows zarr."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
import math
import os
import re
import shutil
import threading
import uuid
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec
from zarr.core.sync import sync
from zarr.storage import LocalStore, MemoryStore, ObjectStore, StorePath

from . import stores
from .stores import PART, Bucket, Folder, Unanswered
from .tiles import Box

SPATIAL = "zyx"
_opening = threading.Lock()
CHUNK = 256  # edge of an inner chunk, at most


@dataclass(frozen=True)
class Multiscale:
    """The levels of an image, finest first.

    Attributes
    ----------
    axes : str
        One letter an axis of the arrays, e.g. "tczyx".
    units : a unit or None an axis
    paths : array names within the group ("" for a plain array)
    shapes, scales, translations : a tuple a level, a number an axis
    version : NGFF version, "" for a plain array
    zarr_format : 2 or 3
    """

    axes: str
    units: tuple[str | None, ...]
    paths: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    scales: tuple[tuple[float, ...], ...]
    translations: tuple[tuple[float, ...], ...]
    version: str
    zarr_format: int


def is_store(path: str) -> bool:
    """Whether a path holds a Zarr group or array."""
    place = stores.at(path)
    return any(place.exists(name) for name in ("zarr.json", ".zgroup", ".zarray"))


class _Objects(ObjectStore):
    """Zarr's store of objects to read, with errors as those of a bucket."""

    def __init__(self, bucket: Bucket) -> None:
        super().__init__(bucket.objects, read_only=True)
        self.bucket = bucket

    def with_read_only(self, read_only: bool = True) -> _Objects:
        return _Objects(self.bucket)

    async def get(self, key: str, *args: Any, **kwargs: Any) -> Any:
        with self.bucket.told(key):
            return await super().get(key, *args, **kwargs)

    async def get_partial_values(self, *args: Any, **kwargs: Any) -> Any:
        with self.bucket.told():
            return await super().get_partial_values(*args, **kwargs)

    async def exists(self, key: str) -> bool:
        with self.bucket.told(key):
            return await super().exists(key)

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        with self.bucket.told(prefix):
            names = super().list_dir(prefix)
            found = [name async for name in names]
        for name in found:
            yield name


def _zarr(path: str) -> Any:
    """What zarr opens a store by."""
    place = stores.at(path)
    return _Objects(place) if isinstance(place, Bucket) else path


def _node(path: str) -> zarr.Group | zarr.Array:
    try:
        return zarr.open(_zarr(path), mode="r")
    except Unanswered:
        raise
    except Exception as error:
        raise ValueError(f"{path}: expected a Zarr store, got {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error) or 'no text').splitlines()[0]}"


def metadata(group: zarr.Group) -> Mapping[str, Any]:
    """NGFF metadata: under "ome" from 0.5 on, at the top before."""
    attributes = group.attrs.asdict()
    found = attributes.get("ome", attributes)
    return found if isinstance(found, Mapping) else {}


def read_multiscale(path: str) -> Multiscale:
    """Axes and levels of an OME-Zarr image or a plain Zarr array.

    Raises
    ------
    ValueError
        If the path is no Zarr store, or a group without an image.
    """
    node = _node(path)
    if isinstance(node, zarr.Array):
        return _plain(node)
    found = metadata(node)
    if not found.get("multiscales"):
        if "bioformats2raw.layout" in found or "plate" in found:
            hint = "; it is a collection: name one of its images, such as PATH/0"
        else:
            hint = f"; it holds {', '.join(sorted(node.keys())) or 'nothing'}"
        raise ValueError(f"{path}: expected an OME-Zarr image or a Zarr array, got a group{hint}")
    try:
        return _multiscale(path, node, found)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(
            f"{path}: its multiscales metadata cannot be read, {_first_line(error)}"
        ) from None


def _multiscale(path: str, node: zarr.Group, found: Mapping[str, Any]) -> Multiscale:
    image = found["multiscales"][0]
    version = str(found.get("version") or image.get("version") or "0.4")
    entries = [a if isinstance(a, dict) else {"name": a} for a in image["axes"]]
    paths = tuple(_within(path, d["path"]) for d in image["datasets"])
    outer = image.get("coordinateTransformations", [])
    scales, translations = [], []
    for dataset in image["datasets"]:
        scale, shift = np.ones(len(entries)), np.zeros(len(entries))
        for transform in [*dataset.get("coordinateTransformations", []), *outer]:
            if transform["type"] == "scale":
                scale, shift = scale * transform["scale"], shift * transform["scale"]
            elif transform["type"] == "translation":
                shift = shift + transform["translation"]
        scales.append(tuple(map(float, scale)))
        translations.append(tuple(map(float, shift)))
    return Multiscale(
        "".join(entry["name"] for entry in entries),
        tuple(entry.get("unit") for entry in entries),
        paths,
        tuple(node[name].shape for name in paths),
        tuple(scales),
        tuple(translations),
        version,
        node.metadata.zarr_format,
    )


def _within(place: str, name: Any) -> str:
    """A name that metadata give, where it leads to what lies below.

    Raises
    ------
    ValueError
        If it leads elsewhere, or is none.
    """
    steps = name.replace("\\", "/").split("/") if isinstance(name, str) else [""]
    if {"", ".", ".."} & set(steps) or PureWindowsPath(name).drive:
        raise ValueError(f"{place}: expected names of what lies in it as paths, got {name!r}")
    return str(name)


def check_links(store: str, group: str) -> None:
    """Refuse a group that is to be written where a symbolic link leads out of the store.

    Raises
    ------
    ValueError
        Names the link's place.
    """
    root = Path(store).resolve()
    own = root / group
    for place in (*own.relative_to(root).parents, own, *own.glob("*"), *own.glob("*/*.jsonl")):
        if not (root / place).resolve().is_relative_to(root):
            raise ValueError(
                f"{store}: expected {(root / place).relative_to(root)} to lie within the store, "
                "but a symbolic link leads out of it"
            )


def _plain(array: zarr.Array) -> Multiscale:
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    known = names and all(isinstance(n, str) and len(n) == 1 for n in names)
    n = array.ndim
    return Multiscale(
        "".join(names).lower() if known else "",
        (None,) * n,
        ("",),
        (array.shape,),
        ((1.0,) * n,),
        ((0.0,) * n,),
        "",
        array.metadata.zarr_format,
    )


def open_array(path: str, name: str = "", mode: Any = "r") -> zarr.Array:
    """An array of a store, read and written by the fast codec pipeline on the calling thread.

    What that pipeline (zarrs) cannot decode is left to zarr's own, slower and as right. So are
    objects: zarrs asks for one part after the other, zarr for those of several shards at a time.
    """
    array = zarr.open_array(_zarr(path), path=name or None, mode=mode)
    _check_data(f"{path}/{name}".rstrip("/"), array)
    return array if stores.is_url(path) else _fast(array, array.store_path)


def _fast(array: zarr.Array, place: StorePath) -> zarr.Array:
    """The same array, or one like it at another place, with the fast codec pipeline."""
    fast = {"codec_pipeline.path": "zarrs.ZarrsCodecPipeline", "threading.max_workers": 1}
    if not array.dtype.isnative or array.order != "C":
        fast = {}
    # an array keeps the pipeline it was made with, so the setting lasts no longer; nothing is read
    # meanwhile, or all reading of this process would come to one thread
    with _opening, zarr.config.set(fast), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Array is unsupported by ZarrsCodecPipeline")
        return zarr.Array(zarr.AsyncArray(array.metadata, place))


def _check_data(path: str, array: zarr.Array) -> None:
    """Refuse objects, and what only pickle can read: that would run code out of the store."""
    codecs = [
        *(getattr(array.metadata, "filters", None) or ()),
        getattr(array.metadata, "compressor", None),
    ]
    names = [getattr(codec, "codec_id", "") for codec in codecs]
    if array.dtype.kind in "OT" or "pickle" in names:
        what = "pickled objects" if "pickle" in names else f"the type {array.dtype}"
        raise ValueError(f"{path}: expected numbers as pixels, got {what}")


class _Inline(asyncio.SelectorEventLoop):
    """An event loop that does what it is to give to other threads itself, at once."""

    def run_in_executor(  # type: ignore[override]
        self, executor: object, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except BaseException as error:
            future.set_exception(error)
        return future


class _Loop:
    """An event loop for one thread, with which it ends."""

    def __init__(self) -> None:
        self.loop = _Inline()

    def __del__(self) -> None:
        self.loop.close()


class _Thread(threading.local):
    def __init__(self) -> None:
        self.own = _Loop()


_thread = _Thread()


def _here(call: Coroutine[Any, Any, Any]) -> Any:
    """Do a call of zarr's on this thread.

    Its own way to a thread for events, on to one for the codecs and back takes up to a
    millisecond while other threads have work.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _thread.own.loop.run_until_complete(call)
    return sync(call)  # a notebook's thread, say, has a loop that runs


def read(array: zarr.Array, box: tuple[slice | int, ...]) -> np.ndarray:
    """Pixels of a box."""
    return np.asarray(_here(array.async_array.getitem(box)))


def open_foreign(store: Any) -> zarr.Array:
    """The (first) array of a store that another library made."""
    with _opening:  # not while another thread chooses the pipeline of its own array
        node = zarr.open(store, mode="r")
        return node if isinstance(node, zarr.Array) else node["0"]


def inner_chunk(edge: int) -> int:
    """Edge of the chunks in a shard: the largest divisor of up to 256."""
    return next(c for c in range(min(edge, CHUNK), 0, -1) if edge % c == 0)


def whole_ratio(finer: Sequence[int], shape: Sequence[int]) -> tuple[int, ...] | None:
    """How many pixels of the finer level make one, an axis; None unless all are whole numbers."""
    found = []
    for n, small in zip(finer, shape, strict=True):
        r = max(1, round(n / small))
        if small not in (n // r, -(-n // r)):
            return None
        found.append(r)
    return tuple(found)


@dataclass(frozen=True)
class Pyramid:
    """An image to write: levels of spatial grids, an optional channel axis in front.

    Attributes
    ----------
    group : path of its group within the store
    axes : spatial axes, e.g. "yx"
    channels : 0 for no channel axis
    shapes : spatial shape of each level
    tile : edges of the write unit of level 0
    scale, translation : of level 0, a number a spatial axis
    units : a unit or None a spatial axis
    dtype : numpy name
    like : store and name of an array with the pixels of level 0, whose chunks are copied as they
        are; None: pixels are encoded
    """

    group: str
    axes: str
    channels: int
    shapes: tuple[tuple[int, ...], ...]
    tile: tuple[int, ...]
    scale: tuple[float, ...]
    translation: tuple[float, ...]
    units: tuple[str | None, ...]
    dtype: str
    like: tuple[str, str] | None = None

    def steps(self, level: int) -> tuple[int, ...] | None:
        """Pixels of level 0 a pixel, an axis; None where a ratio of levels is not whole."""
        found = (1,) * len(self.axes)
        for finer, shape in itertools.pairwise(self.shapes[: level + 1]):
            ratio = whole_ratio(finer, shape)
            if ratio is None:
                return None
            found = tuple(f * r for f, r in zip(found, ratio, strict=True))
        return found

    def factor(self, level: int) -> tuple[int, ...] | None:
        """Pixels of level 0 a pixel, where a tile of level 0 makes whole write units; else None.

        A tile writes a level itself if the level is its grid at every f-th pixel, and the tile
        is divided by f into parts of 32 or more: then no two tiles share a write unit.
        """
        steps = self.steps(level)
        if steps is None or any(
            edge % f or (f > 1 and edge // f < 32) for f, edge in zip(steps, self.tile, strict=True)
        ):
            return None
        return steps

    def unit(self, level: int) -> tuple[int, ...]:
        """Edges of a write unit."""
        factor = self.factor(level)
        if factor is None:
            return tuple(min(CHUNK, n) for n in self.shapes[level])
        return tuple(edge // f for edge, f in zip(self.tile, factor, strict=True))

    def create(self, store: str, version: str, zarr_format: int) -> None:
        """Make the group's arrays, then its metadata.

        Arrays that are there already, as they are to be, stay with their pixels: another start of
        the same run may be at work on them.
        """
        made = MemoryStore()
        front = (self.channels,) if self.channels else ()
        names = (["c"] if self.channels else []) + list(self.axes)
        for level, shape in enumerate(self.shapes):
            name = f"{self.group}/{level}".lstrip("/")
            if level == 0 and self.like:
                zarr.from_array(
                    made,
                    data=open_array(*self.like),
                    write_data=False,
                    name=name,
                    dimension_names=names,
                    attributes={},
                )
                continue
            unit = self.unit(level)
            chunks = tuple(inner_chunk(edge) for edge in unit)
            options: dict[str, Any] = {}
            if zarr_format == 3:
                options["dimension_names"] = names
                options["compressors"] = BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle")
                if unit != chunks or front:
                    options["shards"] = (*front, *unit)
            else:
                options["chunk_key_encoding"] = {"name": "v2", "separator": "/"}
            zarr.create_array(
                made,
                name=name,
                shape=(*front, *shape),
                dtype=self.dtype,
                chunks=(*(1 for _ in front), *chunks),
                fill_value=0,
                zarr_format=zarr_format,
                **options,
            )
        for level in range(len(self.shapes)):
            _bring(made, stores.at(store), f"{self.group}/{level}".lstrip("/"))
        write_group(store, self.group, version, zarr_format, self.entries(version))
        if self.group:
            _index(store, self.group)

    def entries(self, version: str) -> dict[str, Any]:
        """NGFF metadata of the group."""
        found: dict[str, Any] = {"multiscales": [self._multiscales(version)]}
        if self.channels == 3 and self.dtype == "uint8":
            found["omero"] = {"channels": [_channel(*shown) for shown in _RGB]}
        return found

    def _multiscales(self, version: str) -> dict[str, Any]:
        front = [1.0] if self.channels else []
        axes: list[dict[str, str]] = [{"name": "c", "type": "channel"}] if self.channels else []
        for axis, unit in zip(self.axes, self.units, strict=True):
            axes.append({"name": axis, "type": "space"} | ({"unit": unit} if unit else {}))
        datasets = []
        for level, shape in enumerate(self.shapes):
            # a level of every f-th pixel has pixels of f times the size, whatever remained
            whole = self.steps(level)
            steps: Sequence[float] = whole or [
                a / b for a, b in zip(self.shapes[0], shape, strict=True)
            ]
            scale = [s * float(f) for s, f in zip(self.scale, steps, strict=True)]
            transforms: list[dict[str, Any]] = [{"type": "scale", "scale": front + scale}]
            # positions are those of centers: a mean of f pixels lies between them, as in the image
            # at the root; every f-th pixel stays where it was
            between = 0.5 if not self.group or whole is None else 0.0
            shift = [
                t + between * (f - 1) * s
                for t, f, s in zip(self.translation, steps, self.scale, strict=True)
            ]
            if any(shift):
                shift = [0.0] * len(front) + shift
                transforms.append({"type": "translation", "translation": shift})
            datasets.append({"path": str(level), "coordinateTransformations": transforms})
        image: dict[str, Any] = {"name": self.group.rsplit("/", 1)[-1] or "image", "axes": axes}
        if version == "0.4":
            image["version"] = version
        return image | {"datasets": datasets}


def _bring(made: MemoryStore, place: Folder | Bucket, name: str) -> None:
    """Write the metadata of an array; where they differ from those there, its pixels go first."""
    found = _metadata_of(made, name)
    there = {key: place.read(key) for key in found}
    # where there are none, another start may write the same ones now, and then pixels
    if any(there[key] not in (None, data) for key, data in found.items()):
        place.remove(name)
    if there != found:
        for key, data in found.items():
            place.write(key, data)


def _metadata_of(made: MemoryStore, name: str) -> dict[str, bytes]:
    """Files of metadata of a group or an array; one by which it is found comes last."""
    keys = [f"{name}/{file}".lstrip("/") for file in reversed(stores.METADATA)]
    return {k: made._store_dict[k].to_bytes() for k in keys if k in made._store_dict}


def write_group(
    store: str,
    path: str,
    version: str,
    zarr_format: int,
    entries: Mapping[str, Any],
    notes: Mapping[str, Any] | None = None,
) -> None:
    """Make a group or add to its metadata: NGFF's entries and this program's notes.

    They are written at once, as a whole: of two runs of one command that do so at one time none
    takes away what the other has added, since it adds the same.
    """
    node, place, made = _group(store, path), stores.at(store), MemoryStore()
    attributes: dict[str, Any] = {} if node is None else node.attrs.asdict()
    if version == "0.4":
        attributes |= entries
    else:
        attributes["ome"] = {"version": version, **attributes.get("ome", {}), **entries}
    if notes is not None:
        attributes["tiledlaf"] = dict(notes)
    zarr.create_group(made, path=path, zarr_format=zarr_format, attributes=attributes)
    for key, data in _metadata_of(made, path).items():
        if place.read(key) != data:
            place.write(key, data)


_RGB = (("red", "FF0000"), ("green", "00FF00"), ("blue", "0000FF"))


def _channel(label: str, color: str) -> dict[str, Any]:
    """How viewers show a channel of 8 bits."""
    window = {"min": 0, "max": 255, "start": 0, "end": 255}
    return {"label": label, "color": color, "active": True, "window": window}


def add_label(
    store: str,
    labels: Pyramid,
    version: str,
    zarr_format: int,
    colors: Mapping[int, Sequence[int]],
    names: Mapping[int, str],
    values: Mapping[int, Sequence[int]],
    notes: Mapping[str, Any],
) -> None:
    """Register labels/NAME: list it, give its colors and names, and this program's notes.

    `values` are those that the truth has for a label value, where it was learned from one.
    """
    entry = {
        "version": version,
        "colors": [{"label-value": v, "rgba": list(c)} for v, c in colors.items()],
        "properties": [
            {"label-value": v, "name": n} | ({"values": list(values[v])} if v in values else {})
            for v, n in names.items()
        ],
        "source": {"image": "../../"},
    }
    entries = labels.entries(version) | {"image-label": entry}
    write_group(store, labels.group, version, zarr_format, entries, notes)
    # listed last: labels in the list without notes are of someone else
    list_label(store, labels.group, version, zarr_format)


def list_label(store: str, group: str, version: str, zarr_format: int) -> None:
    """List labels/NAME, where it is not."""
    above, _, name = group.rpartition("/")
    node = _group(store, above)
    listed = [*metadata(node).get("labels", [])] if node is not None else []
    entries = {"labels": listed + [name] * (name not in listed)}
    write_group(store, above, version, zarr_format, entries)
    _index(store, group)


def _index(store: str, group: str) -> None:
    """Bring the consolidated metadata of a store, if it has them, up to date on a group.

    Readers that find them look no further. What they say of other groups stays as it is.
    """
    place = stores.at(store)
    file = "zarr.json" if place.exists("zarr.json") else ".zmetadata"
    content = json.loads(place.read(file) or "{}")
    three = file == "zarr.json"
    entries = ((content.get("consolidated_metadata") or {}) if three else content).get("metadata")
    if entries is None:
        return
    for held in [key for key in entries if key == group or key.startswith(f"{group}/")]:
        del entries[held]
    parts = group.split("/")
    nodes = ["/".join(parts[:n]) for n in range(1, len(parts) + 1)]
    nodes += [f"{group}/{name}" for name in contents(store, group)]
    for node in nodes:
        for name in ("zarr.json",) if three else (".zgroup", ".zarray", ".zattrs"):
            found = place.read(f"{node}/{name}")
            if found is not None:
                entries[node if three else f"{node}/{name}"] = json.loads(found)
    data = json.dumps(content, indent=2).encode()
    if place.read(file) != data:
        place.write(file, data)


def _group(store: str, path: str) -> zarr.Group | None:
    """A group of a store, None where there is none."""
    try:
        return zarr.open_group(_zarr(store), path=path, mode="r")
    except (FileNotFoundError, zarr.errors.GroupNotFoundError, zarr.errors.ContainsArrayError):
        return None
    except Unanswered:
        raise
    except Exception as error:
        raise ValueError(f"{store}: expected a Zarr store, got {_first_line(error)}") from None


def read_notes(store: str, group: str) -> dict[str, Any] | None:
    """This program's notes on a group, or None."""
    node = _group(store, group)
    notes = node.attrs.get("tiledlaf") if node is not None else None
    return dict(notes) if isinstance(notes, Mapping) else None


def has_image(store: str, group: str = "") -> bool:
    """Whether a group of a store holds an image."""
    node = _group(store, group)
    return node is not None and bool(metadata(node).get("multiscales"))


def has_group(store: str, name: str) -> bool:
    """Whether a store holds a group of this name."""
    return _group(store, name) is not None


def contents(store: str, group: str) -> list[str]:
    """What lies in a group beside its metadata."""
    held = stores.at(store).names(group)
    return [n for n in held if n not in stores.METADATA and not n.endswith(PART)]


def label_names(store: str) -> list[str]:
    """Names listed under labels/."""
    labels = _group(store, "labels")
    found = metadata(labels).get("labels", []) if labels is not None else []
    if not isinstance(found, list):
        raise ValueError(f"{store}/labels: expected a list of labels, got {found!r}")
    return [_within(f"{store}/labels", name) for name in found]


def label_properties(store: str, group: str) -> list[dict[str, Any]]:
    """What the label image in a group says of each label value: NGFF's `image-label` `properties`.

    Such as ``{"label-value": 1, "name": "membrane", "values": [0, 32]}``, where `values` are those
    of the truth that the class stands for. Empty where there is no such group or it says nothing.
    """
    node = _group(store, group)
    entry = metadata(node).get("image-label") if node is not None else None
    found = entry.get("properties") if isinstance(entry, Mapping) else None
    return [dict(p) for p in found if isinstance(p, Mapping)] if isinstance(found, list) else []


@functools.lru_cache(maxsize=64)
def _opened(store: str, name: str, mode: str, identity: int | str) -> zarr.Array:
    return open_array(store, name, mode)


def _current(store: str, name: str, mode: str) -> zarr.Array:
    """An array that is opened anew only after its metadata were written."""
    return _opened(store, name, mode, identity(store, name))


def identity(store: str, name: str) -> int | str:
    """What changes when an array's metadata are written."""
    place, three = stores.at(store), f"{name}/zarr.json".lstrip("/")
    try:
        return place.state(three)
    except FileNotFoundError:
        return place.state(f"{name}/.zarray".lstrip("/"))


@functools.lru_cache(maxsize=64)
def _staged(store: str, name: str, state: int | str, thread: int) -> tuple[zarr.Array, str]:
    """An array like the one in a store, whose files are made in a folder of this thread's own."""
    part = os.path.join(store, name, f"{uuid.uuid4().hex}{PART}")
    return _fast(zarr.open_array(store, path=name, mode="r"), StorePath(LocalStore(part))), part


def write(
    store: str, name: str, box: Box, data: np.ndarray, like: tuple[str, str] | None = None
) -> int:
    """Write whole units of an array: `data`, or the chunks of one like it that has the same.

    On a file system a unit is made beside and renamed into its place, on an object store it is one
    PUT: a reader, and whoever comes after a kill, finds it as it is now or as it was before, never
    a part. The same pixels are always the same bytes, so two runs may write a unit at one time.
    Nothing waits for the disk: after a power cut files may be short or missing, which `sizes`
    tells.

    Returns
    -------
    size in bytes of the units' files or objects
    """
    if stores.is_url(store):
        return _put(store, name, box, data, like)
    path, state = os.path.join(store, name), identity(store, name)
    array = _opened(store, name, "r+", state)
    if like is not None and _alike(_current(*like, "r"), array):
        return sum(_copy(Path(*like, key), Path(path, key)) for key in _units(array, box))
    staged, folder = _staged(store, name, state, threading.get_ident())
    total = 0
    try:
        _here(staged.async_array.setitem(box, data))
        for key, block in zip(_units(array, box), _blocks(array, box, data), strict=True):
            # none was written where all has the fill value; else another run has removed it
            part, final = f"{folder}/{key}", f"{path}/{key}"
            if not os.path.exists(part) and _blank(block, array.fill_value):
                Path(final).unlink(missing_ok=True)
            else:
                total += _place(part, final)
    except BaseException as error:
        # else the folder stays for the next write, which is twice as quick, till the run is done
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, RuntimeError):
            raise system_error(error) or error from None
        raise
    return total


def _put(store: str, name: str, box: Box, data: np.ndarray, like: tuple[str, str] | None) -> int:
    """Write whole units as objects: encoded in memory, or copied on the server. Their bytes."""
    place, array = stores.at(store), _current(store, name, "r")
    assert isinstance(place, Bucket)
    if like is not None and _alike(_current(*like, "r"), array):
        keys = {f"{like[1]}/{key}".lstrip("/"): f"{name}/{key}" for key in _units(array, box)}
        return place.copy(stores.at(like[0]), keys)
    held: dict[str, Any] = {}
    made = zarr.AsyncArray(array.metadata, StorePath(MemoryStore(held)))
    _here(made.setitem(box, data))
    found = {key: held.get(key) for key in _units(array, box)}
    return place.update(
        {f"{name}/{k}": None if f is None else f.as_buffer_like() for k, f in found.items()}
    )


def _copy(source: Path, final: Path) -> int:
    """Copy a unit's file, and give its size."""
    if not source.exists():  # only the fill value there
        final.unlink(missing_ok=True)
        return 0
    final.parent.mkdir(parents=True, exist_ok=True)
    part = final.with_name(f"{final.name}.{uuid.uuid4().hex}{PART}")
    try:
        shutil.copyfile(source, part)
        return _place(str(part), str(final))
    finally:
        part.unlink(missing_ok=True)


def _place(part: str, final: str) -> int:
    """Put a file into its place, and give its size."""
    size = os.stat(part).st_size
    try:
        os.replace(part, final)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(final), exist_ok=True)
        os.replace(part, final)
    return size


def sizes(store: str, name: str) -> Callable[[Box], int]:
    """Tells the bytes of the files or objects of a box of whole units, as `write` gave them."""
    array, path = open_array(store, name), os.path.join(store, name)
    edges, place = array.shards or array.chunks, stores.at(store)
    if isinstance(place, Bucket):
        found = {key: size for key, size, _ in place.entries(name)}
        return lambda box: sum(found.get(f"{name}/{key}", 0) for key in _keys(array, box, edges))

    def size(box: Box) -> int:
        total = 0
        for key in _keys(array, box, edges):
            with contextlib.suppress(FileNotFoundError):
                total += os.stat(f"{path}/{key}").st_size
        return total

    return size


def system_error(error: BaseException) -> OSError | None:
    """The error of the file system that this is, or tells of: zarrs has its own kind.

    A codec that cannot decode a chunk may call that an OSError, too, but one without a number.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error
    told = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(told[1]), os.strerror(int(told[1]))) if told else None


def remove_parts(store: str, group: str, before: float) -> int:
    """Remove what writes and removals that were cut left in a group; how many there were.

    Parameters
    ----------
    before : time, by the file system's clock, that their last change must lie before
    """
    count = 0
    root = Path(store) / group
    for folder, folders, files in os.walk(root):
        if Path(folder) == root:  # below it its arrays alone
            folders[:] = [f for f in folders if f.isdigit() or f.endswith(PART)]
        for name in [n for n in (*folders, *files) if n.endswith(PART)]:
            path = Path(folder, name)
            with contextlib.suppress(OSError):  # whoever wrote it has put it into its place
                if max(p.stat().st_mtime for p in (path, *path.rglob("*"))) < before:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                    count += 1
        folders[:] = [f for f in folders if not f.endswith(PART)]
    return count


def copyable(store: str, name: str, tile: Sequence[int]) -> bool:
    """Whether tiles, cut along the last axes, take whole files of an array in Zarr v3."""
    array = open_array(store, name)
    if array.metadata.zarr_format != 3:
        return False
    edges = (array.shards or array.chunks)[array.ndim - len(tile) :]
    return all(t % edge == 0 for t, edge in zip(tile, edges, strict=True))


def _alike(a: zarr.Array, b: zarr.Array) -> bool:
    """Whether the same pixels are the same files."""
    parts = (
        "zarr_format",
        "shape",
        "data_type",
        "chunk_grid",
        "codecs",
        "chunk_key_encoding",
        "fill_value",
    )
    return all(getattr(a.metadata, part) == getattr(b.metadata, part) for part in parts)


def _units(array: zarr.Array, box: Box) -> Iterator[str]:
    """The files of a box of whole units."""
    return _keys(array, box, array.shards or array.chunks)


def _keys(array: zarr.Array, box: Box, edges: Sequence[int]) -> Iterator[str]:
    spans = (
        range(s.indices(n)[0] // edge, -(-s.indices(n)[1] // edge))
        for s, n, edge in zip(box, array.shape, edges, strict=True)
    )
    return map(array.metadata.encode_chunk_key, itertools.product(*spans))


def _blocks(array: zarr.Array, box: Box, data: np.ndarray) -> Iterator[np.ndarray]:
    """The pixels of each of these files."""
    spans = []
    for s, n, edge in zip(box, array.shape, array.shards or array.chunks, strict=True):
        start, stop, _ = s.indices(n)
        bounds = [start, *range(start // edge * edge + edge, stop, edge), stop]
        spans.append([slice(a - start, b - start) for a, b in itertools.pairwise(bounds)])
    return (data[index] for index in itertools.product(*spans))


def _blank(block: np.ndarray, fill: Any) -> bool:
    """Whether there is only the fill value."""
    return bool(((block == fill) | ((block != block) & (fill != fill))).all())


def chunk_state(path: str) -> list[tuple[str, int, int | str]]:
    """(name, size, modification time in ns) of every file below a path, or of the file itself.

    Objects have ETags for times; of a web server, which does not list them, the metadata alone.
    """
    place = stores.at(path)
    if isinstance(place, Bucket):
        beside = ("labels/", "confidence/")
        return [entry for entry in place.entries() if not entry[0].startswith(beside)]
    root = Path(path)
    if root.is_file():
        stat = root.stat()
        return [("", stat.st_size, stat.st_mtime_ns)]
    found: list[tuple[str, int, int | str]] = []
    for folder, folders, files in os.walk(root):
        folders[:] = [f for f in folders if not (folder == path and f in ("labels", "confidence"))]
        for file in files:
            stat = os.stat(os.path.join(folder, file))
            name = os.path.relpath(os.path.join(folder, file), root)
            found.append((name, stat.st_size, stat.st_mtime_ns))
    return sorted(found)


def halved(shape: Sequence[int], axes: str) -> tuple[int, ...]:
    """Shape of the next level: y and x by two, z as it is."""
    return tuple(
        n if axis == "z" else math.ceil(n / 2) for n, axis in zip(shape, axes, strict=True)
    )


def describe(path: str) -> list[str]:
    """Lines on the arrays of an image, for people."""
    found = read_multiscale(path)
    kind = f"OME-Zarr {found.version}" if found.version else "plain array"
    lines = [f"  {kind}, Zarr v{found.zarr_format}, axes {found.axes or 'not named'}"]
    for level, name in enumerate(found.paths):
        array = open_array(path, name)
        shards = f", shards {_sizes(array.shards)}" if array.shards else ""
        units = {u for u in found.units if u}
        lines.append(
            f"  level {level}: {_sizes(array.shape)} {array.dtype}, chunks {_sizes(array.chunks)}"
            f"{shards}, pixel size {_sizes(found.scales[level])} {' '.join(units)}".rstrip()
        )
    return lines


def _sizes(values: Sequence[float]) -> str:
    return " x ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values)
