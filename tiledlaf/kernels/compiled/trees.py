"""Compiled decision trees: all nodes are evaluated, and a bit mask selects the leaf (QuickScorer).

No branch depends on a pixel, so each node processes a block of pixels as vectors. Every pixel's
values are added in the same order, whatever its block.
"""

from __future__ import annotations

import numpy as np

from .caching import jit
from .vector import load_each, splat, store_each, where_greater

LANES = 16
VECTORS = (0,) * 4  # per block of pixels: their bit masks stay in registers
BLOCK = LANES * len(VECTORS)
LEAVES = 32
ALL = np.uint32(0xFFFFFFFF)
DE_BRUIJN = np.uint32(0x077CB531)  # its 32 windows of five bits all differ


def leaf_order() -> np.ndarray:
    """Leaf whose bit moves each number into the top five bits of `DE_BRUIJN`, (32,)."""
    order = np.empty(LEAVES, np.int64)
    order[[(int(DE_BRUIJN) << leaf & int(ALL)) >> 27 for leaf in range(LEAVES)]] = range(LEAVES)
    return order


@jit
def scores(features, feature, threshold, mask, first, value, baseline, block, total, out):
    """Sum the values of all trees.

    Parameters
    ----------
    features : (F, pixels) float32
    feature, threshold, mask : (N,) int64, float32, uint32
        Of the nodes; a feature is given by its position in `block`.
    first : (T + 1,) int64
    value : (T * LEAVES,) float32
        Leaves of each tree in `leaf_order`.
    baseline : (K,) float32
    block : (F * BLOCK,) float32
        Scratch; values beyond the end of a shorter last block are never used.
    total : (K * BLOCK,) float32
        Scratch.
    out : (K, pixels) float32
    """
    pixels, count = features.shape[1], len(baseline)
    bits = np.empty(BLOCK, np.uint32)
    none = np.full(LANES, ALL)
    for start in range(0, pixels, BLOCK):
        size = min(BLOCK, pixels - start)
        # copied: planes of 2^n bytes would compete for the same cache sets
        for f in range(len(features)):
            for i in range(size):
                block[f * BLOCK + i] = features[f, start + i]
        for k in range(count):
            for i in range(BLOCK):
                total[k * BLOCK + i] = baseline[k]
        k = 0
        for t in range(len(first) - 1):
            left = load_each(none, 0, 0, VECTORS)
            # unsigned: negative indices need no check then
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
