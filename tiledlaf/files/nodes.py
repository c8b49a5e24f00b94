"""Opens, reads and describes groups and arrays of Zarr stores; only this module configures zarr."""

from __future__ import annotations

import asyncio
import json
import os
import re
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.core.sync import sync
from zarr.storage import MemoryStore, ObjectStore, StorePath

from ..errors import InputError
from . import stores
from .stores import PART, Bucket, Folder, Unanswered

_opening = threading.Lock()


def is_store(path: str) -> bool:
    """Whether a path holds a Zarr group or array."""
    place = stores.at(path)
    return any(place.exists(name) for name in ("zarr.json", ".zgroup", ".zarray"))


class _Objects(ObjectStore):
    """Zarr's read-only object store, with the errors of a `Bucket`."""

    def __init__(self, bucket: Bucket) -> None:
        super().__init__(bucket.objects, read_only=True)
        self.bucket = bucket

    def with_read_only(self, read_only: bool = True) -> _Objects:
        return _Objects(self.bucket)

    async def get(self, key: str, *args: Any, **kwargs: Any) -> Any:
        with self.bucket.translate_errors(key):
            return await super().get(key, *args, **kwargs)

    async def get_partial_values(self, *args: Any, **kwargs: Any) -> Any:
        with self.bucket.translate_errors():
            return await super().get_partial_values(*args, **kwargs)

    async def exists(self, key: str) -> bool:
        with self.bucket.translate_errors(key):
            return await super().exists(key)

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        with self.bucket.translate_errors(prefix):
            names = super().list_dir(prefix)
            found = [name async for name in names]
        for name in found:
            yield name


def _zarr(path: str) -> Any:
    """What zarr opens a store with."""
    place = stores.at(path)
    return _Objects(place) if isinstance(place, Bucket) else path


def open_node(path: str) -> zarr.Group | zarr.Array:
    """Open the group or array of a store."""
    try:
        return zarr.open(_zarr(path), mode="r")
    except Unanswered:
        raise
    except Exception as error:
        raise InputError(f"{path}: expected a Zarr store, got {first_line(error)}") from None


def first_line(error: Exception) -> str:
    """The type of an error, and the first line of its text."""
    return f"{type(error).__name__}: {(str(error) or 'no text').splitlines()[0]}"


def metadata(group: zarr.Group) -> Mapping[str, Any]:
    """NGFF metadata: under "ome" from 0.5 on, at the top level before."""
    attributes = group.attrs.asdict()
    found = attributes.get("ome", attributes)
    return found if isinstance(found, Mapping) else {}


def open_array(path: str, name: str = "", mode: Any = "r") -> zarr.Array:
    """An array of a store, read and written by the fast codec pipeline on the calling thread.

    What that pipeline (zarrs) cannot decode is left to zarr's own, which is slower but as correct.
    So are object stores: zarrs requests one part at a time, zarr those of several shards at once.
    """
    array = zarr.open_array(_zarr(path), path=name or None, mode=mode)
    _check_data(f"{path}/{name}".rstrip("/"), array)
    return array if stores.is_url(path) else with_fast_codecs(array, array.store_path)


def with_fast_codecs(array: zarr.Array, place: StorePath) -> zarr.Array:
    """The same array, or one like it at another place, with the fast codec pipeline."""
    fast = {"codec_pipeline.path": "zarrs.ZarrsCodecPipeline", "threading.max_workers": 1}
    if not array.dtype.isnative or array.order != "C":
        fast = {}
    # an array keeps the pipeline it was made with, so the setting need not last; nothing is read
    # meanwhile, or all reads of this process would run on one thread
    with _opening, zarr.config.set(fast), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Array is unsupported by ZarrsCodecPipeline")
        return zarr.Array(zarr.AsyncArray(array.metadata, place))


def _check_data(path: str, array: zarr.Array) -> None:
    """Refuse objects, and what only pickle can read: that could run code from the store."""
    codecs = [
        *(getattr(array.metadata, "filters", None) or ()),
        getattr(array.metadata, "compressor", None),
    ]
    names = [getattr(codec, "codec_id", "") for codec in codecs]
    if array.dtype.kind in "OT" or "pickle" in names:
        what = "pickled objects" if "pickle" in names else f"the type {array.dtype}"
        raise InputError(f"{path}: expected numbers as pixels, got {what}")


class _Inline(asyncio.SelectorEventLoop):
    """An event loop that runs work meant for other threads itself, immediately."""

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
    """An event loop for one thread, closed when the thread ends."""

    def __init__(self) -> None:
        self.loop = _Inline()

    def __del__(self) -> None:
        self.loop.close()


class _Thread(threading.local):
    def __init__(self) -> None:
        self.own = _Loop()


_thread = _Thread()


def run_here(call: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine of zarr on this thread.

    Zarr's own way, to an event thread, on to a codec thread and back, takes up to a millisecond
    while other threads are busy.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _thread.own.loop.run_until_complete(call)
    return sync(call)  # e.g. a notebook's thread already runs a loop


def read(array: zarr.Array, box: tuple[slice | int, ...]) -> np.ndarray:
    """Pixels of a box."""
    return np.asarray(run_here(array.async_array.getitem(box)))


def open_foreign(store: Any) -> zarr.Array:
    """The array, or the first one, of a store that another library made."""
    with _opening:  # not while another thread sets the pipeline for its own array
        node = zarr.open(store, mode="r")
        return node if isinstance(node, zarr.Array) else node["0"]


def bring(made: MemoryStore, place: Folder | Bucket, name: str) -> None:
    """Write an array's metadata; an existing array with other metadata is removed first."""
    found = _metadata_of(made, name)
    there = {key: place.read(key) for key in found}
    # where none exist, another process may just be writing the same ones, and then pixels
    if any(there[key] not in (None, data) for key, data in found.items()):
        place.remove(name)
    if there != found:
        for key, data in found.items():
            place.write(key, data)


def _metadata_of(made: MemoryStore, name: str) -> dict[str, bytes]:
    """Metadata files of a group or an array; the one that makes it visible comes last."""
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

    They are written at once, as a whole: two simultaneous runs of one command do not undo each
    other's additions, since both add the same.
    """
    node, place, made = open_group(store, path), stores.at(store), MemoryStore()
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


def index(store: str, group: str) -> None:
    """Update a group in the consolidated metadata of a store, if it has them.

    Readers that find them look no further. What they say about other groups is kept.
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


def open_group(store: str, path: str) -> zarr.Group | None:
    """A group of a store, or None where there is none."""
    try:
        return zarr.open_group(_zarr(store), path=path, mode="r")
    except (FileNotFoundError, zarr.errors.GroupNotFoundError, zarr.errors.ContainsArrayError):
        return None
    except Unanswered:
        raise
    except Exception as error:
        raise InputError(f"{store}: expected a Zarr store, got {first_line(error)}") from None


def has_group(store: str, name: str) -> bool:
    """Whether a store holds a group of this name."""
    return open_group(store, name) is not None


def contents(store: str, group: str) -> list[str]:
    """What a group contains besides its metadata."""
    held = stores.at(store).names(group)
    return [n for n in held if n not in stores.METADATA and not n.endswith(PART)]


def system_error(error: BaseException) -> OSError | None:
    """Return the file-system error that an error is or reports: zarrs raises its own type.

    A codec may also raise OSError for a chunk that it cannot decode, but without an errno.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error
    told = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(told[1]), os.strerror(int(told[1]))) if told else None


def chunk_state(path: str) -> list[tuple[str, int, int | str]]:
    """(name, size, modification time in ns) of every file below a path, or of the file itself.

    Objects have ETags instead of times; a web server lists nothing, so only its metadata count.
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
