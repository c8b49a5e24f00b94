"""Compiled decision trees: every node of a tree is asked, and bits tell the leaf (QuickScorer).

No branch depends on a pixel, so a block of pixels goes through a node as vectors do. Each pixel
does the same additions in the same order, whatever its block.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .vector import load_each, splat, store_each, where_greater

LANES = 16
VECTORS = (0,) * 4  # of pixels in a block: their bits stay in registers
BLOCK = LANES * len(VECTORS)
LEAVES = 32
ALL = np.uint32(0xFFFFFFFF)
DE_BRUIJN = np.uint32(0x077CB531)  # each of its 32 windows of five bits is another number


def leaf_order() -> np.ndarray:
    """The leaf whose bit moves this number into the top five bits of `DE_BRUIJN`, (32,)."""
    order = np.empty(LEAVES, np.int64)
    order[[(int(DE_BRUIJN) << leaf & int(ALL)) >> 27 for leaf in range(LEAVES)]] = range(LEAVES)
    return order


@njit(nogil=True, cache=True, error_model="numpy")
def scores(features, feature, threshold, mask, first, value, baseline, block, total, out):
    """Add up the trees' values.

    Parameters
    ----------
    features : (F, pixels) float32
    feature, threshold, mask : (N,) int64, float32, uint32
        The feature as its place in the block.
    first : (T + 1,) int64
    value : (T * LEAVES,) float32
        Each tree's in `leaf_order`.
    baseline : (K,) float32
    block : (F * BLOCK,) float32
        Room; what is beyond a shorter last block is never looked at again.
    total : (K * BLOCK,) float32
        Room.
    out : (K, pixels) float32
    """
    pixels, count = features.shape[1], len(baseline)
    bits = np.empty(BLOCK, np.uint32)
    none = np.full(LANES, ALL)
    for start in range(0, pixels, BLOCK):
        size = min(BLOCK, pixels - start)
        # a copy: planes of 2^n bytes would compete for the same places in the cache
        for f in range(len(features)):
            for i in range(size):
                block[f * BLOCK + i] = features[f, start + i]
        for k in range(count):
            for i in range(BLOCK):
                total[k * BLOCK + i] = baseline[k]
        k = 0
        for t in range(len(first) - 1):
            left = load_each(none, 0, 0, VECTORS)
            # unsigned: an index that cannot be negative needs no check
            for n in range(np.uint64(first[t]), np.uint64(first[t + 1])):
                x = load_each(block, feature[n], LANES, VECTORS)
                left = left & where_greater(x, splat(threshold[n]), splat(mask[n]), splat(ALL))
            store_each(bits, 0, LANES, left)
            for i in range(BLOCK):
                lowest = bits[i] & (~bits[i] + np.uint32(1))
                bits[i] = np.uint32(lowest * DE_BRUIJN) >> np.uint32(27)
            row, leaves = k * BLOCK, np.uint32(t * LEAVES)
            for i in range(BLOCK):
                total[row + i] += value[leaves + bits[i]]
            k = k + 1 if k + 1 < count else 0
        for k in range(count):
            for i in range(size):
                out[k, start + i] = total[k * BLOCK + i]
