"""Write units of arrays: whole files or objects, each put into place at once."""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import LocalStore, MemoryStore, StorePath

from ..tiles import Box
from . import claims, nodes, stores
from .archives import Archive
from .stores import PART, Bucket, is_part

WAITS = (0.0, 0.01, 0.03, 0.1, 0.3)  # seconds


@functools.lru_cache(maxsize=64)
def _opened(store: str, name: str, mode: str, identity: int | str) -> zarr.Array:
    return nodes.open_array(store, name, mode)


def _current(store: str, name: str, mode: str) -> zarr.Array:
    """An array that is reopened only after its metadata were rewritten."""
    return _opened(store, name, mode, identity(store, name))


def identity(store: str, name: str) -> int | str:
    """What changes when an array's metadata are rewritten."""
    place, three = stores.at(store), f"{name}/zarr.json".lstrip("/")
    try:
        return place.state(three)
    except FileNotFoundError:
        return place.state(f"{name}/.zarray".lstrip("/"))


@functools.lru_cache(maxsize=64)
def _staged(store: str, name: str, state: int | str, thread: int) -> tuple[zarr.Array, str]:
    """An array like the one in a store, whose files are written to a folder of this thread."""
    part = os.path.join(store, name, f"{uuid.uuid4().hex}{PART}")
    return nodes.with_fast_codecs(
        zarr.open_array(store, path=name, mode="r"), StorePath(LocalStore(part))
    ), part


def _folder(store: str, name: str, stamp: str) -> int | None:
    """The open folder of a group that a start has made, so that none can take its place meanwhile.

    None where no stamp is known, or the system opens no folders.

    Raises
    ------
    FileNotFoundError
        If the group was removed, or begun anew.
    """
    group, opens = os.path.join(store, os.path.dirname(name)), os.rename in os.supports_dir_fd
    for wait in WAITS if stamp else ():
        time.sleep(wait)  # another start may have it in hand for a moment, and put it back
        folder = None
        with contextlib.suppress(FileNotFoundError):
            folder = os.open(group, os.O_RDONLY | os.O_DIRECTORY) if opens else None
            if claims.stamp("" if opens else group, folder) in (stamp, ""):
                return folder
        if folder is not None:
            os.close(folder)
    if stamp:
        raise FileNotFoundError(errno.ENOENT, "removed or begun anew during this run", group)
    return None


def write(
    store: str,
    name: str,
    box: Box,
    data: np.ndarray,
    like: tuple[str, str] | None = None,
    stamp: str = "",
) -> int:
    """Write whole units of an array: `data`, or the same pixels as chunks copied from `like`.

    On a file system a unit is written under another name and renamed into place, on an object store
    it is one PUT: readers, and later runs after a kill, find it as it is now or as it was before,
    never in part. The same pixels always give the same bytes, so two runs may write a unit at once.
    Nothing waits for the disk: after a power cut files may be short or missing, which `sizes`
    reveals.

    Parameters
    ----------
    stamp : of the start that made the group, in no other of which may anything be written; "" where
        it is not known

    Returns
    -------
    size of the units' files or objects in bytes
    """
    if stores.is_url(store):
        return _put(store, name, box, data, like)
    held = _folder(store, name, stamp)
    try:
        return _write(store, name, box, data, like, held)
    finally:
        if held is not None:
            os.close(held)


def _write(
    store: str,
    name: str,
    box: Box,
    data: np.ndarray,
    like: tuple[str, str] | None,
    held: int | None,
) -> int:
    """Write files, into the open folder of the group where one is held."""
    path, state = os.path.join(store, name), identity(store, name)
    array = _opened(store, name, "r+", state)
    if like is not None and _alike(_current(*like, "r"), array):
        return sum(_copy(Path(*like, key), Path(path, key)) for key in nodes.keys(array, box))
    staged, folder = _staged(store, name, state, threading.get_ident())
    place = path if held is None else os.path.basename(name)
    total = 0
    try:
        nodes.run_here(staged.async_array.setitem(box, data))
        for key, block in zip(nodes.keys(array, box), _blocks(array, box, data), strict=True):
            # no file is written for a unit of only the fill value; any other missing file was
            # removed by another run
            part, final = f"{folder}/{key}", f"{place}/{key}"
            if not os.path.exists(part) and _blank(block, array.fill_value):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(final, dir_fd=held)
            else:
                total += _place(part, final, held)
    except BaseException as error:
        # otherwise the folder stays until the run ends: it makes the next write twice as fast
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, RuntimeError):
            raise nodes.system_error(error) or error from None
        raise
    return total


def _put(store: str, name: str, box: Box, data: np.ndarray, like: tuple[str, str] | None) -> int:
    """Write whole units as objects, encoded in memory or copied on the server; return the bytes."""
    place, array = stores.at(store), _current(store, name, "r")
    assert isinstance(place, Bucket)
    if like is not None and _alike(_current(*like, "r"), array):
        keys = {f"{like[1]}/{key}".lstrip("/"): f"{name}/{key}" for key in nodes.keys(array, box)}
        return place.copy(stores.at(like[0]), keys)
    held: dict[str, Any] = {}
    made = zarr.AsyncArray(array.metadata, StorePath(MemoryStore(held)))
    nodes.run_here(made.setitem(box, data))
    found = {key: held.get(key) for key in nodes.keys(array, box)}
    return place.update(
        {f"{name}/{k}": None if f is None else f.as_buffer_like() for k, f in found.items()}
    )


def _copy(source: Path, final: Path) -> int:
    """Copy a unit's file, and return its size."""
    if not source.exists():  # a unit of only the fill value
        final.unlink(missing_ok=True)
        return 0
    final.parent.mkdir(parents=True, exist_ok=True)
    part = final.with_name(f"{final.name}.{uuid.uuid4().hex}{PART}")
    try:
        shutil.copyfile(source, part)
        return _place(str(part), str(final))
    finally:
        part.unlink(missing_ok=True)


def _place(part: str, final: str, held: int | None = None) -> int:
    """Put a file into place, by a path or below an open folder, and return its size."""
    size = os.stat(part).st_size
    try:
        os.replace(part, final, dst_dir_fd=held)
    except FileNotFoundError:
        if held is None:
            os.makedirs(os.path.dirname(final), exist_ok=True)
        else:
            for above in reversed(Path(final).parents[:-1]):
                with contextlib.suppress(FileExistsError):
                    os.mkdir(above, dir_fd=held)
        os.replace(part, final, dst_dir_fd=held)
    return size


def sizes(store: str, name: str) -> Callable[[Box], int]:
    """Return a function that gives the bytes of a box of whole units, as `write` returned them."""
    keys, path = nodes.keys_of(nodes.open_array(store, name)), os.path.join(store, name)
    place = stores.at(store)
    if isinstance(place, Bucket):
        found = {key: size for key, size, _ in place.entries(name)}
        return lambda box: sum(found.get(f"{name}/{key}", 0) for key in keys(box))

    def size(box: Box) -> int:
        total = 0
        for key in keys(box):
            with contextlib.suppress(FileNotFoundError):
                total += os.stat(f"{path}/{key}").st_size
        return total

    return size


def remove_parts(store: str, group: str, before: float, but: str = "") -> int:
    """Remove what interrupted writes and removals left in a group; return how many.

    Parameters
    ----------
    before : only leftovers last changed before this time, by the file system's clock, are removed
    but : a group directly below whose own parts remain
    """
    count = 0
    root = Path(store) / group
    for folder, folders, files in os.walk(root):
        if Path(folder) == root:  # directly below, only its arrays
            ours = (f for f in folders if f.isdigit() or f.endswith(PART))
            folders[:] = [f for f in ours if not is_part(f, but)]
        for name in [n for n in (*folders, *files) if n.endswith(PART)]:
            path = Path(folder, name)
            with contextlib.suppress(OSError):  # its writer has put it into place
                if max(p.stat().st_mtime for p in (path, *path.rglob("*"))) < before:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                    count += 1
        folders[:] = [f for f in folders if not f.endswith(PART)]
    return count


def copyable(store: str, name: str, tile: Sequence[int]) -> bool:
    """Whether tiles along the last axes cover whole files of an array in Zarr v3."""
    array = nodes.open_array(store, name)
    if array.metadata.zarr_format != 3 or isinstance(stores.at(store), Archive):
        return False
    edges = (array.shards or array.chunks)[array.ndim - len(tile) :]
    return all(t % edge == 0 for t, edge in zip(tile, edges, strict=True))


def _alike(a: zarr.Array, b: zarr.Array) -> bool:
    """Whether the same pixels give the same files in both arrays."""
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


def _blocks(array: zarr.Array, box: Box, data: np.ndarray) -> Iterator[np.ndarray]:
    """The pixels of each file of `nodes.keys`."""
    spans = []
    for s, n, edge in zip(box, array.shape, array.shards or array.chunks, strict=True):
        start, stop, _ = s.indices(n)
        bounds = [start, *range(start // edge * edge + edge, stop, edge), stop]
        spans.append([slice(a - start, b - start) for a, b in itertools.pairwise(bounds)])
    return (data[index] for index in itertools.product(*spans))


def _blank(block: np.ndarray, fill: Any) -> bool:
    """Whether a block has only the fill value."""
    return bool(((block == fill) | ((block != block) & (fill != fill))).all())
