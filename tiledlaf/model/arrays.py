"""Named arrays and JSON in one file without code: a zip of npy files, read within bounds.

What is unpacked, and what an array's header or a number in JSON asks for, is compared with the size
of the file before anything is allocated.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import uuid
import zipfile
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
import numpy as np

from .. import redaction
from ..errors import DamagedFile, InputError
from ..files import stores, texts

T = TypeVar("T")
# trees and untrained patches are packed to a tenth of their size, and a few arrays to nothing
UNPACKED, FREE = 32, 2**26  # bytes that a file may hold: so many times its size, and these besides
KINDS = "biufU"  # of arrays: numbers and text


def write_arrays(
    path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], new: bool = False
) -> bool:
    """Write arrays as an npz, atomically; the same arrays give the same bytes.

    Returns
    -------
    whether they were written: always, but where there is a file already and it must be `new`
    """
    whole = os.fspath(path)
    # a unique name: two trainings may write the same model at the same time
    partial = f"{whole}.{uuid.uuid4().hex}.partial"
    try:
        with open(partial, "wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                for key in sorted(arrays):
                    content = io.BytesIO()
                    value = np.asanyarray(arrays[key])
                    np.lib.format.write_array(content, value, allow_pickle=False)
                    # numpy.savez would write a time stamp into the file
                    entry = zipfile.ZipInfo(f"{key}.npy", (1980, 1, 1, 0, 0, 0))
                    archive.writestr(entry, content.getvalue(), zipfile.ZIP_DEFLATED)
            file.flush()
            os.fsync(file.fileno())
        if new:
            return stores.link(partial, whole)
        os.replace(partial, whole)
        return True
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(partial)


def read_arrays(path: str | os.PathLike[str], what: str) -> dict[str, np.ndarray]:
    """Read what `write_arrays` wrote.

    Raises
    ------
    ValueError
        If the file does not exist, is of another kind, is damaged, or holds far more than its size
        tells.
    """
    redaction.check(path)
    if os.path.isdir(path):
        raise InputError(f"{path}: expected a {what}, got a folder")
    if os.path.exists(path) and not zipfile.is_zipfile(path):
        raise DamagedFile(f"{path}: expected a {what}, got another kind of file or a part of one")
    try:
        with zipfile.ZipFile(path) as archive:
            _check_sizes(archive, UNPACKED * os.path.getsize(path) + FREE)
            return {e.filename.removesuffix(".npy"): _array(archive, e) for e in archive.filelist}
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except Exception as error:  # a damaged archive may raise anything
        raise DamagedFile(f"{path}: expected a {what}, {type(error).__name__}: {error}") from None


def _check_sizes(archive: zipfile.ZipFile, most: int) -> None:
    names = [entry.filename for entry in archive.filelist]
    if len(set(names)) < len(names):
        raise InputError("two parts have the same name")
    packed = {entry.compress_type for entry in archive.filelist}
    if not packed <= {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise InputError("expected parts that are stored or deflated, got another compression")
    size = sum(entry.file_size for entry in archive.filelist)
    if size > most:
        raise InputError(f"it unpacks to {size} bytes, more than a file of its size may ({most})")


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    """An array whose header is that of the bytes that follow."""
    with archive.open(entry) as file:
        # a part with more bytes than the archive says is refused by its checksum
        data = io.BytesIO(file.read(entry.file_size + 1))
    version = np.lib.format.read_magic(data)
    reads = {(1, 0): np.lib.format.read_array_header_1_0}
    reads[2, 0] = reads[3, 0] = np.lib.format.read_array_header_2_0
    if version not in reads:
        raise InputError(f"{entry.filename}: npy version {version} is not known")
    shape, by_columns, dtype = reads[version](data)
    if dtype.hasobject:
        raise ValueError("Object arrays cannot be loaded")
    rest = len(data.getbuffer()) - data.tell()
    if dtype.kind not in KINDS or math.prod(shape) * dtype.itemsize != rest:
        raise InputError(f"{entry.filename}: {rest} bytes are no {dtype} of shape {shape}")
    flat = np.frombuffer(data.getvalue()[data.tell() :], dtype)
    return flat.reshape(shape, order="F" if by_columns else "C").copy(order="K")


def entry_of(arrays: Mapping[str, np.ndarray], name: str, kind: type[T]) -> T:
    """The JSON of one of the arrays, checked by its type.

    Raises
    ------
    ValueError
        If it is no such JSON.
    KeyError
        If there is none.
    """
    return convert(raw_entry(arrays, name), kind)


def raw_entry(arrays: Mapping[str, np.ndarray], name: str) -> Any:
    """The JSON of one of the arrays."""
    held = arrays[name]
    if held.dtype.kind != "U" or held.shape:
        raise InputError(f"{name}: expected JSON, got {held.dtype} of shape {held.shape}")
    return texts.parsed(str(held))


def convert(found: Any, kind: type[T]) -> T:
    """A value of JSON as a value of a type.

    Raises
    ------
    ValueError
        If it is none.
    """
    try:
        return msgspec.convert(found, kind)
    except (msgspec.ValidationError, RecursionError, OverflowError) as error:
        raise InputError(str(error).replace("`", "").replace("$", "JSON")) from None
