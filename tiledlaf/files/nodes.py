"""Opens, reads and describes groups and arrays of Zarr stores; only this module configures zarr."""

from __future__ import annotations

import asyncio
import errno
import functools
import itertools
import json
import math
import os
import re
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.metadata import ArrayV2Metadata
from zarr.core.sync import sync
from zarr.storage import LocalStore, MemoryStore, ObjectStore, StorePath, ZipStore

from ..errors import DamagedFile, InputError, in_a_line, readable
from . import sizes, stores, texts
from .answers import METADATA, Refused, Unanswered
from .archives import Archive
from .stores import PART, Bucket, Folder

LONGEST = 2**48  # of an axis
CHUNK, CHUNKS = 2**32, 2**24  # bytes of a chunk, and chunks of a shard
SPARE = 4  # how many times its pixels a chunk may unpack to: filters can make it longer
VERSION = 1  # of this program's notes, records and weights; see docs/formats.md
FILES = ("zarr.json", ".zgroup", ".zarray")  # one of them is in every group and array
_opening = threading.Lock()


def is_store(path: str) -> bool:
    """Whether a path holds a Zarr group or array.

    Raises
    ------
    OSError
        If the server of a URL refuses to say it.
    """
    place = stores.at(path)
    if any(place.exists(name) for name in FILES):
        return True
    if isinstance(place, Bucket) and place.absence == "403":
        raise Refused(
            errno.EACCES,
            f"the server answers 403 for {', '.join(FILES)}: there is no store, or it must not "
            "be read",
            path,
        )
    return False


class _Objects(ObjectStore):
    """Zarr's read-only object store, with the errors of a `Bucket`."""

    def __init__(self, bucket: Bucket) -> None:
        super().__init__(bucket.objects, read_only=True)
        self.bucket = bucket

    def with_read_only(self, read_only: bool = True) -> _Objects:
        return _Objects(self.bucket)

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        place = self.bucket
        try:
            if place.web:
                data = await place.fetch(key, *_part(byte_range))
                return None if data is None else prototype.buffer.from_bytes(data)
            with place.translate_errors(key):
                found = await super().get(key, prototype, byte_range)
        except FileNotFoundError:
            return None
        except Refused:
            if place.lacks(key, "403"):
                return None
            raise
        if found is not None and byte_range is None:
            place.is_absent(key, b"")
        return found

    async def get_partial_values(self, prototype: Any, key_ranges: Any) -> Any:
        return list(await asyncio.gather(*(self.get(k, prototype, part) for k, part in key_ranges)))

    async def exists(self, key: str) -> bool:
        return self.bucket.exists(key)

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        with self.bucket.translate_errors(prefix):
            names = super().list_dir(prefix)
            found = [name async for name in names]
        for name in found:
            yield name


def _part(request: Any) -> tuple[slice | None, dict[str, Any] | None]:
    """A request of zarr for a part of an object: as a slice, and as an option of obstore."""
    if isinstance(request, RangeByteRequest):
        return slice(request.start, request.end), {"range": (request.start, request.end)}
    if isinstance(request, OffsetByteRequest):
        return slice(request.offset, None), {"range": {"offset": request.offset}}
    if isinstance(request, SuffixByteRequest):
        return slice(-request.suffix, None), {"range": {"suffix": request.suffix}}
    return None, None


def _zarr(path: str) -> Any:
    """What zarr opens a store with."""
    place = stores.at(path)
    if isinstance(place, Archive):
        return StorePath(_zip(place), place.prefix.rstrip("/"))
    return _Objects(place) if isinstance(place, Bucket) else Path(path)


@functools.lru_cache(maxsize=16)
def _zip(archive: Archive) -> ZipStore:
    return sync(ZipStore.open(archive.file, mode="r"))


def open_node(path: str) -> zarr.Group | zarr.Array:
    """Open the group or array of a store."""
    try:
        place = stores.at(path)
        if place.exists(".zarray") and not place.exists("zarr.json"):
            return _array(path, "", "r")
        # consolidated metadata may be older than the arrays
        node = zarr.open(_zarr(path), mode="r", use_consolidated=False)
    except (Unanswered, DamagedFile):
        raise
    except Exception as error:
        raise InputError(f"{path}: expected a Zarr store, got {in_a_line(error)}") from None
    _check_attributes(path, node)
    return node


def _check_attributes(path: str, node: zarr.Group | zarr.Array) -> None:
    """Refuse attributes that are no object, which zarr takes as they are for arrays."""
    found = getattr(node.metadata, "attributes", {})
    if not isinstance(found, Mapping):
        raise DamagedFile(f"{path}: expected attributes by name, got {type(found).__name__}")


def metadata(group: zarr.Group) -> Mapping[str, Any]:
    """NGFF metadata: under "ome" from 0.5 on, at the top level before."""
    attributes = group.attrs.asdict()
    found = attributes.get("ome", attributes)
    return found if isinstance(found, Mapping) else {}


def attributes(path: str, name: str) -> dict[str, Any]:
    """Attributes of a group or array of a store; none where there is none."""
    found = _document(path, name, "zarr.json")
    inner = found.get("attributes") if found else _document(path, name, ".zattrs")
    return dict(inner) if isinstance(inner, Mapping) else {}


def shape_of(path: str, name: str) -> tuple[tuple[int, ...], str]:
    """Shape and data type of an array, by its metadata alone.

    Raises
    ------
    KeyError
        If there is no such array.
    """
    found = _document(path, name, "zarr.json")
    if found:
        return tuple(found["shape"]), str(found["data_type"])
    found = _document(path, name, ".zarray")
    return tuple(found["shape"]), np.dtype(found["dtype"]).name


def _document(path: str, name: str, file: str) -> dict[str, Any]:
    data = stores.at(path).read(f"{name}/{file}".lstrip("/"))
    try:
        found = texts.parsed(data) if data else {}
    except ValueError:
        file = f"{name}/{file}".lstrip("/")
        raise DamagedFile(f"{path}: expected a Zarr store, got a {file} that is not JSON") from None
    return found if isinstance(found, dict) else {}


def open_array(path: str, name: str = "", mode: Any = "r") -> zarr.Array:
    """An array of a store, read and written by the fast codec pipeline on the calling thread.

    What that pipeline (zarrs) cannot decode is left to zarr's own, which is slower but as correct.
    So are object stores: zarrs requests one part at a time, zarr those of several shards at once.
    """
    whole = f"{path}/{name}".rstrip("/")
    with readable(f"{whole}: this array"):
        array = _array(path, name, mode)
    _check_attributes(whole, array)
    _check_data(whole, array)
    local = isinstance(array.store, LocalStore)
    return with_fast_codecs(array, array.store_path) if local else array


def _array(path: str, name: str, mode: Any) -> zarr.Array:
    """An array, also one whose data type is written as old programs did."""
    store = _zarr(path)
    try:
        return zarr.open_array(store, path=name or None, mode=mode)
    except ValueError:
        place, above = stores.at(path), f"{name}/".lstrip("/")
        if mode != "r" or place.exists(f"{above}zarr.json"):
            raise
        found = texts.parsed(place.read(f"{above}.zarray") or "{}")
        named = found.get("dtype")
        # such as >u1: a byte has no order; the order of the machine that wrote =u2 is not known
        if not isinstance(named, str) or (new := np.dtype(named.replace("=", "<")).str) == named:
            raise
        found |= {"dtype": new, "attributes": texts.parsed(place.read(f"{above}.zattrs") or "{}")}
        metadata = ArrayV2Metadata.from_dict(found)
        root = StorePath(LocalStore(path, read_only=True)) if isinstance(store, Path) else store
        root = root if isinstance(root, StorePath) else StorePath(root)
        return zarr.Array(zarr.AsyncArray(metadata, root / name if name else root))


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
    chunk, shard = math.prod(array.chunks), math.prod(array.shards or array.chunks)
    if max(map(float, array.shape), default=0) > LONGEST or math.prod(array.shape) > LONGEST**2:
        raise DamagedFile(f"{path}: an array of shape {array.shape} is larger than any image")
    if chunk * array.dtype.itemsize > CHUNK or shard > CHUNKS * chunk:
        raise DamagedFile(
            f"{path}: expected chunks of at most {CHUNK} bytes and shards of {CHUNKS} chunks, got "
            f"{array.chunks} of {array.dtype} in {array.shards or array.chunks}"
        )


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
        loop = _thread.own.loop
        try:
            return loop.run_until_complete(call)
        except Exception:  # of several chunks, those not read yet, which asyncio would complain of
            loop.run_until_complete(_cancel_others())
            raise
    return sync(call)  # e.g. a notebook's thread already runs a loop


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def read(array: zarr.Array, box: tuple[slice | int, ...]) -> np.ndarray:
    """Pixels of a box.

    Raises
    ------
    ValueError
        If a chunk is a link whose content is missing: zarr would take it as never written.
    """
    if isinstance(array.store, LocalStore):
        _check_files(array, box)
    return np.asarray(run_here(array.async_array.getitem(box)))


def _check_files(array: zarr.Array, box: tuple[slice | int, ...]) -> None:
    """Refuse chunks that are links without content, or that unpack to more than a chunk."""
    folder = f"{array.store.root}/{array.path}".rstrip("/")
    metadata = array.metadata
    codec = getattr(metadata, "compressor", None) or [None, *getattr(metadata, "codecs", ())][-1]
    kind = str(getattr(codec, "codec_id", type(codec).__name__)).lower()
    most = SPARE * math.prod(array.chunks) * array.dtype.itemsize + 2**20
    for key in keys(array, box):
        path = f"{folder}/{key}"
        try:
            with open(path, "rb") as file:
                size = sizes.unpacked(file, kind)
        except FileNotFoundError:
            if os.path.islink(path):
                raise stores.missing_link(path) from None
            continue
        if size > most:
            raise DamagedFile(f"{path}: it would unpack to {size} bytes, more than a chunk has")


def keys(array: zarr.Array, box: tuple[slice | int, ...]) -> Iterator[str]:
    """The files, or objects, that hold a box of an array."""
    return keys_of(array)(box)


def keys_of(array: zarr.Array) -> Callable[[tuple[slice | int, ...]], Iterator[str]]:
    """`keys` for many boxes of one array: zarr works out its shards at each look."""
    edges = list(zip(array.shape, array.shards or array.chunks, strict=True))
    encode = array.metadata.encode_chunk_key

    def found(box: tuple[slice | int, ...]) -> Iterator[str]:
        spans = []
        for s, (n, edge) in zip(box, edges, strict=True):
            start, stop, _ = s.indices(n) if isinstance(s, slice) else (s, s + 1, 1)
            spans.append(range(start // edge, -(-stop // edge)))
        return map(encode, itertools.product(*spans))

    return found


def open_foreign(store: Any) -> zarr.Array:
    """The array, or the first one, of a store that another library made."""
    with _opening:  # not while another thread sets the pipeline for its own array
        node = zarr.open(store, mode="r")
        return node if isinstance(node, zarr.Array) else node["0"]


def bring(made: MemoryStore, place: Folder | Bucket | Archive, name: str) -> None:
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
    keys = [f"{name}/{file}".lstrip("/") for file in reversed(METADATA)]
    return {k: made._store_dict[k].to_bytes() for k in keys if k in made._store_dict}


def write_group(
    store: str,
    path: str,
    version: str,
    zarr_format: int,
    entries: Mapping[str, Any],
    notes: Mapping[str, Any] | None = None,
    beside: Mapping[str, Any] | None = None,
    new: bool = False,
) -> None:
    """Make a group or add to its metadata: NGFF's entries, this program's notes and others'.

    They are written at once, as a whole: two simultaneous runs of one command do not undo each
    other's additions, since both add the same.

    Parameters
    ----------
    new : whether a group that is there already, in Zarr v3, is left as it is
    """
    node, place, made = open_group(store, path), stores.at(store), MemoryStore()
    attributes: dict[str, Any] = {} if node is None else node.attrs.asdict()
    if version == "0.4":
        attributes |= entries
    else:
        known = attributes.get("ome")
        known = known if isinstance(known, Mapping) else {}
        attributes["ome"] = {"version": version, **known, **entries}
    attributes |= beside or {}
    if notes is not None:
        attributes["tiledlaf"] = {**notes, "format": VERSION}
    zarr.create_group(made, path=path, zarr_format=zarr_format, attributes=attributes)
    for key, data in _metadata_of(made, path).items():
        if new and not isinstance(place, Archive):
            place.create(key, data)
        elif place.read(key) != data:
            place.write(key, data)


def index(store: str, group: str) -> None:
    """Update a group in the consolidated metadata of a store, if it has them.

    Readers that find them look no further. What they say about other groups is kept.
    """
    with readable(f"{store}: its consolidated metadata"):
        _index(store, group)


def _index(store: str, group: str) -> None:
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
        return zarr.open_group(_zarr(store), path=path, mode="r", use_consolidated=False)
    except (FileNotFoundError, zarr.errors.GroupNotFoundError, zarr.errors.ContainsArrayError):
        return None
    except (Unanswered, DamagedFile):
        raise
    except Exception as error:
        where, what = (f"{store}/{path}", "group") if path else (store, "store")
        raise InputError(f"{where}: expected a Zarr {what}, got {in_a_line(error)}") from None


def has_group(store: str, name: str) -> bool:
    """Whether a store holds a group of this name."""
    return open_group(store, name) is not None


def contents(store: str, group: str) -> list[str]:
    """What a group contains besides its metadata."""
    held = stores.at(store).names(group)
    return [n for n in held if n not in METADATA and not n.endswith(PART)]


# of an array without metadata: chunks and this program's records
_LEFT = re.compile(r"c|\d+(\.\d+)*|tiledlaf\.\w+")


def is_left_over(store: str, group: str = "") -> bool:
    """Whether a group holds at most chunks of levels, and no metadata to read them by.

    That is what writers leave that were at work while somebody removed it.
    """
    names = [name for name in stores.at(store).names(group) if not name.endswith(PART)]
    # all names first, since below a level of a whole output are its many chunks
    return all(map(_LEFT.fullmatch, names)) and all(
        is_left_over(store, f"{group}/{name}".lstrip("/")) for name in names
    )


def system_error(error: BaseException) -> OSError | None:
    """Return the file-system error that an error is or reports: zarrs raises its own type.

    A codec may also raise OSError for a chunk that it cannot decode, but without an errno.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error
    told = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(told[1]), os.strerror(int(told[1]))) if told else None


# of an array: its metadata and chunks, and no file that an operating system has left there
_STORED = re.compile(
    r"(?:.*/)?(?:zarr\.json|\.zgroup|\.zarray|\.zattrs|(?:c[/.])?\d+(?:[/.]\d+)*|c)"
)


def chunk_state(path: str) -> list[tuple[str, int, int | str]]:
    """(name, size, modification time in ns) of an array's files below a path, or of a file itself.

    Objects have ETags instead of times; a web server lists nothing, so only its metadata count.

    Raises
    ------
    ValueError
        If one of them is a link whose content is missing.
    """
    path, _ = stores.split(path)
    place = stores.at(path)
    if isinstance(place, Bucket):
        beside = ("labels/", "confidence/")
        found = place.known()
        return [e for e in found if not e[0].startswith(beside) and _STORED.fullmatch(e[0])]
    root = Path(path)
    if root.is_file():
        stat = root.stat()
        return [("", stat.st_size, stat.st_mtime_ns)]
    entries: list[tuple[str, int, int | str]] = []
    for folder, folders, files in os.walk(root):
        ours = {"labels", "confidence"} if Path(folder) == root else set()
        folders[:] = [f for f in folders if f not in ours and not stores.is_stray(f)]
        for file in files:
            whole = os.path.join(folder, file)
            name = os.path.relpath(whole, root)
            if not _STORED.fullmatch(name.replace(os.sep, "/")):
                continue
            try:
                stat = os.stat(whole)
            except FileNotFoundError:
                if os.path.islink(whole):
                    raise stores.missing_link(whole) from None
                raise
            entries.append((name, stat.st_size, stat.st_mtime_ns))
    return sorted(entries)
