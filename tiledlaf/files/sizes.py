"""How long compressed data say that they will be."""

from __future__ import annotations

import os
from typing import BinaryIO


def unpacked(file: BinaryIO, kind: str) -> int:
    """Bytes that a compressed file says it unpacks to; 0 where it does not say it.

    Parameters
    ----------
    kind : name of the codec; of zstd, gzip and blosc the headers are known
    """
    if "zstd" in kind:
        return _zstd(file.read(18))
    if "blosc" in kind:
        return int.from_bytes(file.read(8)[4:], "little")
    if "gzip" in kind:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 4, 0))
        return int.from_bytes(file.read(4), "little")
    return 0


def _zstd(head: bytes) -> int:
    """The content size of a frame, by RFC 8878."""
    if head[:4] != b"\x28\xb5\x2f\xfd" or len(head) < 5:
        return 0
    mark = head[4]
    alone = mark >> 5 & 1
    start = 5 + (not alone) + (0, 1, 2, 4)[mark & 3]
    length = (alone, 2, 4, 8)[mark >> 6]
    return int.from_bytes(head[start : start + length], "little") + 256 * (length == 2)
