"""The archives of nnU-Net with the probabilities of one image."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from ...errors import InputError
from .. import image
from ..image import Levels
from .npy import Npy

KEY = "probabilities"
HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
SHOWN = 12  # most names of arrays to list in a message
LOCAL = 30  # bytes of the header before a file in an archive, without the names in it


@dataclass(frozen=True)
class Npz(Npy):
    """The array `probabilities` of an npz file; one that is compressed is read whole."""

    name = "npz"
    suffixes = frozenset({".npz"})
    pictures = False

    def look(self, path: str, level: int, axes: str | None) -> Levels:
        """The shape; four axes are those of classes and space."""
        found = super().look(path, level, axes)
        return Levels("", "czyx" if len(found.shapes[0]) == 4 else "", found.shapes, found.dtype)

    def open(self, path: str, name: str) -> Any:
        """The array: mapped into memory where it is stored as it is, else in memory.

        Raises
        ------
        ValueError
            If there is none, or it would be far larger than its file.
        """
        with zipfile.ZipFile(path) as archive:
            entry = _entry(path, archive)
            with archive.open(entry) as file:
                shape, by_columns, dtype = _header(path, file, entry.file_size)
                if entry.compress_type == zipfile.ZIP_STORED:
                    order: Any = "F" if by_columns else "C"
                    start = _start(path, entry) + file.tell()
                    return np.memmap(path, dtype, "r", start, shape, order)
            image.check_piece(path, entry.file_size)
            with archive.open(entry) as file:
                return np.lib.format.read_array(file, allow_pickle=False)

    def held(self, path: str) -> int:
        """All of a compressed array."""
        with zipfile.ZipFile(path) as archive:
            entry = _entry(path, archive)
        return 0 if entry.compress_type == zipfile.ZIP_STORED else entry.file_size

    def read(self, array: Any, box: tuple[slice | int, ...]) -> np.ndarray:
        """Pixels of a box."""
        return super().read(array, box) if isinstance(array, np.memmap) else array[box]


def _entry(path: str, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    """The part of an archive that is the array."""
    names = [entry.filename.removesuffix(".npy") for entry in archive.filelist]
    if KEY not in names:
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        raise InputError(
            f"{path}: expected the array {KEY!r}, as nnU-Net writes it, found "
            f"{', '.join(names[:SHOWN]) or 'none'}{more}"
        )
    return archive.filelist[names.index(KEY)]


def _header(path: str, file: IO[bytes], size: int) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and type of the array that begins here, which is as long as its file."""
    version = np.lib.format.read_magic(file)
    if version not in HEADERS:
        raise ValueError(f"npy version {version} is not known")
    shape, by_columns, dtype = HEADERS[version](file)
    if dtype.hasobject:
        raise InputError(f"{path}: it holds Python objects, which are never loaded")
    pixels = dtype.itemsize
    for length in shape:
        pixels *= length
    if file.tell() + pixels != size:
        raise ValueError(f"{size} bytes are no {dtype} of shape {shape}")
    return shape, by_columns, dtype


def _start(path: str, entry: zipfile.ZipInfo) -> int:
    """Where in an archive a file that is stored as it is begins."""
    with open(path, "rb") as file:
        file.seek(entry.header_offset)
        head = file.read(LOCAL)
    lengths = (int.from_bytes(head[i : i + 2], "little") for i in (26, 28))
    return entry.header_offset + LOCAL + sum(lengths)
