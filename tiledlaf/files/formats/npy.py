"""Arrays saved by NumPy."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import InputError
from .. import image
from ..image import Levels, Reader

OBJECTS = (
    "it holds Python objects, which are never loaded since they may run code: save an array of "
    "numbers (of a _seg.npy of cellpose, flows and cell probability, see docs/probabilities.md)"
)


@dataclass(frozen=True)
class Npy(Reader):
    """An npy file, mapped into memory."""

    name = "npy"
    suffixes = frozenset({".npy"})

    def look(self, path: str, level: int, axes: str | None) -> Levels:
        """The shape, whose axes have no names."""
        image.check_level(path, level, 1)
        array = image.opened_whole(self, path)
        return Levels("", "", (array.shape,), array.dtype)

    def open(self, path: str, name: str) -> Any:
        """The array, memory-mapped."""
        try:
            return np.lib.format.open_memmap(path, mode="r")
        except ValueError as error:
            if "Python objects" not in str(error):
                raise
            raise InputError(f"{path}: {OBJECTS}") from None

    def read(self, array: Any, box: tuple[slice | int, ...]) -> np.ndarray:
        """Pixels of a box, read from the file: the map of one that is cut would end the process.

        Raises
        ------
        OSError
            If the file has become shorter.
        """
        starts, length = _runs(array, box)
        with open(array.filename, "rb", buffering=0) as file:
            seek, read = file.seek, file.read
            data = bytearray().join([read(length) for start in starts if seek(start)])
        if len(data) < length * len(starts):
            reason = "it ends before its pixels do: it was cut, or is being written"
            raise OSError(errno.EIO, reason, os.fspath(array.filename))
        order: Any = "C" if array.flags.c_contiguous else "F"
        return np.ndarray(array[box].shape, array.dtype, data, order=order)

    def as_labels(self, path: str) -> tuple[Reader, str | None]:
        """Three axes are z, y, x."""
        return self, "zyx" if self.open(path, "").ndim == 3 else None


def _runs(array: np.memmap, box: tuple[slice | int, ...]) -> tuple[list[int], int]:
    """Where in the file what a box has side by side begins, in order, and how many bytes it has."""
    parts = [*box, *[slice(None)] * (array.ndim - len(box))]
    axes = list(zip(parts, array.shape, array.strides, strict=True))
    spans = []
    for part, n, stride in axes if array.flags.c_contiguous else axes[::-1]:
        start, stop, _ = part.indices(n) if isinstance(part, slice) else (part, part + 1, 1)
        spans.append((np.arange(start, stop) * stride, n, stride))
    # all axes after the last one that is not whole lie side by side
    last = max((k for k, (span, n, _) in enumerate(spans) if len(span) < n), default=0)
    span, _, stride = spans[last]
    starts = np.array([array.offset + span[:1].sum()])
    for outer, _, _ in spans[:last]:
        starts = (starts[:, None] + outer).ravel()
    return starts.tolist(), len(span) * stride
