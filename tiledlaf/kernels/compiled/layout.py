"""How arrays are laid out in memory for the compiled kernels: strips, rings, padded planes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ...errors import InputError
from ..arrays import Array, Offsets
from .flow import BLOCK, BOTH, LINE, LOWER, UPPER, Layout, Neighbors

CACHE = 1 << 20  # bytes of a core's private cache for the rings of a strip


POWERS = 3 << 20  # the same for all powers: more, as strips compute their halo twice


def aligned(size: int, dtype: Any) -> Array:
    """Memory that starts at a cache line."""
    itemsize = np.dtype(dtype).itemsize
    memory = np.empty(size + LINE // itemsize, dtype)
    return memory[(-memory.ctypes.data % LINE) // itemsize :][:size]


def block(labels: int) -> tuple[int, ...]:
    """One zero per label of a block; blocks are as few as possible and equal in size."""
    labels = max(labels, 1)
    return (0,) * -(-labels // -(-labels // BLOCK))


@lru_cache  # on a small grid it would take as long as the wave itself
def visits(offsets: Offsets, at: Layout) -> Neighbors:
    """Sort the neighbors of two adjacent rows, shared ones once, and locate them in the rings."""
    order = sorted(range(len(offsets)), key=offsets.__getitem__)
    upper = set(offsets)
    lower = {(z + 1, y, x) for z, y, x in offsets}
    if len(upper) < len(offsets):
        raise InputError(f"expected different offsets, got one twice in {offsets}")
    entries = sorted(upper | lower)
    groups: list[list[int]] = []
    for entry in entries:
        kind = BOTH if entry in upper and entry in lower else UPPER if entry in upper else LOWER
        if not groups or groups[-1][0] != kind:
            groups.append([kind, 0])
        groups[-1][1] += 1
    z, y, x = np.array(entries).T
    slots = (np.arange(at.slots)[:, None] + z) % at.slots
    steps = slots * at.row + y * at.line + x
    return Neighbors(np.array(order), steps.ravel(), len(entries), np.array(groups))


def padded(labels: int) -> int:
    """Labels rounded up to whole blocks; the additional ones have S = 0."""
    size = len(block(labels))
    return -(-max(labels, 1) // size) * size


def strips_of(
    shape: Sequence[int],
    radius: Sequence[int],
    neighbors: int,
    count: int,
    fewer: int,
    levels: int,
    itemsize: int,
) -> tuple[Layout, int]:
    """Rings for strips as wide as the cache allows, or for a single one if the halo is too large.

    Returns
    -------
    layout, number of columns per strip
    """
    lanes, nx = LINE // itemsize, shape[2]
    halo = radius[2] * (levels - 1)
    slots = 2 * radius[0] + 2
    kept = radius[0] * (levels - 2) + 2
    deep = max(fewer, count)
    record = neighbors + fewer + 1
    column = shape[1] * (levels * slots * deep + kept * record) * itemsize
    widest = max(CACHE // column, 4 * lanes)
    if widest < 8 * halo:
        widest = nx + 2 * halo
    # as many strips as needed, of equal width in whole vectors
    strips = max(-(-(nx - 2 * halo) // (widest - 2 * halo)), 1)
    width = -(-(nx - 2 * halo) // strips) + 2 * halo
    width = min(-(-width // lanes) * lanes, nx)
    vectors = -(-width // lanes)
    pad = -(-radius[2] // lanes)
    # an odd number of cache lines: planes do not compete for the same places in the cache
    plane = lanes * (vectors + pad + (vectors + pad + 1) % 2)
    line = plane * deep
    row = line * (shape[1] + 2 * radius[1])
    at = Layout(
        vectors=vectors,
        plane=plane,
        line=line,
        origin=radius[1] * line + pad * lanes,
        row=row,
        slots=slots,
        level=slots * row,
        record=lanes * record,
        kept=kept,
    )
    return at, width


def label_type(count: int) -> Any:
    """The type of labels: the smallest that holds their number."""
    return np.uint8 if count < 256 else np.uint16


def same_float(*arrays: Array) -> Any:
    """The one floating-point type of all arrays."""
    kinds = {a.dtype for a in arrays}
    if len(kinds) > 1 or kinds.pop() not in (np.float32, np.float64):
        types = ", ".join(str(a.dtype) for a in arrays)
        raise InputError(f"expected arrays of one type, float32 or float64, got {types}")
    return arrays[0].dtype.type


def flat(planes: Array, size: int, guard: int = 0) -> Array:
    """Planes padded with zeros to `size` numbers, one after another; `guard` zeros on both ends."""
    count = int(np.prod(planes.shape[: planes.ndim - 1]))
    if planes.shape[-1] == size and not guard:
        return np.ascontiguousarray(planes).ravel()
    out = np.zeros(count * size + 2 * guard, planes.dtype)
    rows = out[guard : guard + count * size].reshape(count, size)
    rows[:, : planes.shape[-1]] = planes.reshape(count, -1)
    return out


def flatten(x: Array, front: int) -> Array:
    """All axes but the first ones as one."""
    return np.ascontiguousarray(x).reshape(*x.shape[:front], -1)


def as_row(numbers: Array, dtype: Any) -> Array:
    """Numbers as one contiguous row."""
    return np.ascontiguousarray(numbers, dtype).ravel()
