"""Lazy labeling of dask arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


def is_dask(array: Any) -> bool:
    """Whether this is a dask array, without importing dask."""
    return type(array).__module__.startswith("dask.")


def delayed(function: Callable[..., Any], *arguments: Any) -> Any:
    """A lazy call; dask arrays among the arguments arrive as NumPy arrays."""
    import dask

    return dask.delayed(function)(*arguments)


def map_windows(
    function: Callable[..., Any], arrays: Sequence[Any], halo: Sequence[int], extra: Any
) -> Any:
    """Lazily map a function of padded blocks over dask arrays with channels in front.

    Parameters
    ----------
    function : called with a block (C, *window) of each array and ``extra=``; returns (2, *window)
    arrays : (C, *grid) dask or NumPy arrays
    halo : pixels along each axis of the grid
    extra : any value, delayed or not

    Returns
    -------
    (2, *grid) float32 dask array
    """
    import dask.array as da

    first = da.asarray(arrays[0])
    chunks = tuple(
        _at_least(lengths, least) for lengths, least in zip(first.chunks[1:], halo, strict=True)
    )
    # a single chunk along an axis borders on no other
    depth = {0: 0} | {
        i: h * (len(c) > 1) for i, (h, c) in enumerate(zip(halo, chunks, strict=True), 1)
    }
    padded = [
        da.overlap.overlap(
            da.asarray(a).rechunk((a.shape[0], *chunks)), depth=depth, boundary="none"
        )
        for a in arrays
    ]
    blocks = da.map_blocks(
        function,
        *padded,
        extra=extra,
        dtype="float32",
        chunks=((2,), *padded[0].chunks[1:]),
        meta=None,
    )
    return da.overlap.trim_internal(blocks, depth, boundary="none")


def _at_least(lengths: Sequence[int], least: int) -> tuple[int, ...]:
    """Join the chunks of one axis until each is at least as long as the halo."""
    joined: list[int] = []
    for length in lengths:
        if joined and (joined[-1] < least or length < least):
            joined[-1] += length
        else:
            joined.append(length)
    return tuple(joined)
