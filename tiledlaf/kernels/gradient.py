"""The compiled chains and local products of the gradient: explicit vectors over flat planes.

A neighbor lies a fixed number of pixels away in the flat plane. What a pixel beside the border
finds there belongs to another row or label, and its weight is 0.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .vector import (
    fma,
    inner,
    lanes_of,
    load,
    load_each,
    registers,
    splat,
    store,
    store_each,
    zeros,
)

BLOCK = 512  # pixels whose means are held at once
_row = njit(error_model="numpy")
_jit = njit(nogil=True, cache=True, error_model="numpy")


@_jit
def step(w, s, u, new, totals, factors, steps, guard, size, stride, labels, block):
    """u <- R_S Omega u, added to each total with its factor.

    Planes are `size` numbers long and `stride` apart; `u` and `new` have `guard` numbers before
    and after them.
    """
    lanes, count, part = lanes_of(s), len(labels), len(block)
    t = registers(s, labels)
    for i in range(0, size, lanes):
        dot = splat(s.dtype.type(0))
        for first in range(0, count, part):
            j = min(first, count - part)
            mean = zeros(s, block)
            for k in range(len(steps)):
                p = guard + i + steps[k] + j * stride
                mean = fma(load(w, k * stride + i), load_each(u, p, stride, block), mean)
            store_each(t, j * lanes, lanes, mean)
        for j in range(count):
            dot = fma(load(s, j * stride + i), load(t, j * lanes), dot)
        for j in range(count):
            value = load(s, j * stride + i) * (load(t, j * lanes) - dot)
            store(new, guard + j * stride + i, value)
            for r in range(len(factors)):
                at = (r * count + j) * stride + i
                store(totals, at, fma(splat(factors[r]), value, load(totals, at)))


@_jit
def sweep(
    w, s, source, totals, table, levels, rows, columns, stride, cache, near, far, labels, block
):  # fmt: skip
    """All powers of R_S Omega on rows of whole vectors, as a wave: level after level a row apart.

    A level is a power; only the rows of one neighborhood of each are held, in rings that stay in
    the cache, and so do the rows of all else that the wave is at. `near` and `far` are the
    neighbors' distances in x and y; planes are `stride` numbers apart.
    """
    lanes, count, part, many = lanes_of(s), len(labels), len(block), len(near)
    radius, reach = 0, 0
    for k in range(many):
        radius = max(radius, abs(far[k]))
        reach = max(reach, abs(near[k]))
    slots, results = 2 * radius + 1, len(table)
    # strips of columns so wide that all the wave is at stays in the cache; what lies beside a
    # strip is computed twice
    halo = -(-reach * (levels - 1) // lanes) * lanes
    held = (radius * (levels - 1) + 1) * (results * count + many + count) + levels * slots * count
    widest = cache // (held * s.itemsize) // lanes * lanes
    if widest < 4 * halo:
        widest = columns
    strips = -(-columns // widest)
    widest = -(-columns // strips // lanes) * lanes
    pad = -(-reach // lanes) * lanes
    # an odd number of cache lines: planes do not compete for the same places in the cache
    plane = min(columns, widest + 2 * halo) + 2 * pad
    plane += lanes * ((plane // lanes + 1) % 2)
    ring = slots * count * plane
    u = np.zeros(levels * ring, s.dtype)
    steps = np.empty(many, np.int64)
    t = registers(s, labels)
    for core in range(0, columns, widest):
        left, end = max(0, core - halo), min(columns, core + widest + halo)
        stop = min(columns, core + widest)
        for front in range(rows + radius * (levels - 1)):
            for level in range(levels):
                y = front - radius * level
                if y < 0 or y >= rows:
                    continue
                here = level * ring + y % slots * count * plane + pad - left
                if level == 0:
                    for j in range(count):
                        for x in range(left, end, lanes):
                            i = j * stride + y * columns + x
                            value = load(source, i)
                            store(u, here + j * plane + x, value)
                            if core <= x and x < stop:
                                for r in range(results):
                                    at = r * count * stride + i
                                    store(totals, at, splat(table[r, 0]) * value)
                    continue
                for k in range(many):
                    # beyond the grid weights are 0, whatever the ring holds
                    slot = (y + far[k] + slots) % slots
                    row = (level - 1) * ring + slot * count * plane
                    steps[k] = row + pad - left + near[k]
                for x in range(left, end, lanes):
                    i = y * columns + x
                    for first in range(0, count, part):
                        j = min(first, count - part)
                        mean = zeros(s, block)
                        for k in range(many):
                            there = load_each(u, steps[k] + x + j * plane, plane, block)
                            mean = fma(load(w, k * stride + i), there, mean)
                        store_each(t, j * lanes, lanes, mean)
                    dot = splat(s.dtype.type(0))
                    for j in range(count):
                        dot = fma(load(s, j * stride + i), load(t, j * lanes), dot)
                    inside = core <= x and x < stop
                    for j in range(count):
                        value = load(s, j * stride + i) * (load(t, j * lanes) - dot)
                        store(u, here + j * plane + x, value)
                        if inside:
                            for r in range(results):
                                at = (r * count + j) * stride + i
                                total = fma(splat(table[r, level]), value, load(totals, at))
                                store(totals, at, total)


@_jit
def products(w, s, q, p, z, h, out, steps, terms, guard, size, stride, labels, block, neighbors):
    """R_Omega dL/dOmega from flat planes; `q` and `z` have `guard` numbers around."""
    lanes, count, part, many = lanes_of(s), len(labels), len(block), len(steps)
    nothing = splat(s.dtype.type(0))
    e = registers(s, neighbors)
    x = registers(s, labels)
    total = registers(s, labels)
    for i in range(0, size, lanes):
        for k in range(many):
            store(e, k * lanes, nothing)
        for j in range(count):
            store(total, j * lanes, load(h, j * stride + i))
        for r in range(terms):
            inside, along = nothing, nothing
            for first in range(0, count, part):
                # the last block is moved back: what it has met before counts once
                j = min(first, count - part)
                again = first - j
                a = load_each(p, (r * count + j) * stride + i, stride, block)
                mean = zeros(s, block)
                for k in range(many):
                    at = guard + (r * count + j) * stride + i + steps[k]
                    there = load_each(z, at, stride, block)
                    mean = fma(load(w, k * stride + i), there, mean)
                    if again == 0:
                        store(e, k * lanes, inner(a, there, load(e, k * lanes)))
                    else:
                        value = load(e, k * lanes)
                        for m in range(again, part):
                            one = load(p, (r * count + j + m) * stride + i)
                            value = fma(one, load(z, at + m * stride), value)
                        store(e, k * lanes, value)
                store_each(x, j * lanes, lanes, mean)
            for j in range(count):
                mean = load(x, j * lanes)
                inside = fma(load(s, j * stride + i), mean, inside)
                along = fma(load(p, (r * count + j) * stride + i), mean, along)
            for j in range(count):
                value = load(p, (r * count + j) * stride + i) * (load(x, j * lanes) - inside)
                value = value - load(s, j * stride + i) * along
                store(total, j * lanes, load(total, j * lanes) + value)
        mean = nothing
        for k in range(many):
            value = load(e, k * lanes)
            at = guard + i + steps[k]
            for j in range(count):
                value = fma(load(total, j * lanes), load(q, at + j * stride), value)
            store(e, k * lanes, value)
            mean = fma(load(w, k * stride + i), value, mean)
        for k in range(many):
            store(out, k * stride + i, load(w, k * stride + i) * (load(e, k * lanes) - mean))


@_jit
def alignment(z, target):
    """Sums of Pi_0 z at the target, of ||Pi_0 z||^2 and of labeled pixels; z is (J, pixels)."""
    count, pixels = z.shape
    share = z.dtype.type(1 / count)
    mean, square = np.empty(BLOCK, z.dtype), np.empty(BLOCK, z.dtype)
    along, norm, number = 0.0, 0.0, 0
    for start in range(0, pixels, BLOCK):
        size = min(BLOCK, pixels - start)
        _means(z, start, size, share, mean)
        square[:] = 0
        for j in range(count):
            for i in range(size):
                v = z[j, start + i] - mean[i]
                square[i] += v * v
        for i in range(size):
            label = target[start + i]
            if label > 0:
                along += z[label - 1, start + i] - mean[i]
                norm += square[i]
                number += 1
    return along, norm, number


@_jit
def align(z, target, inward, onward, out):
    """`inward` Pi_0 z + `onward` Pi_0 e_target at the labeled pixels."""
    count, pixels = z.shape
    share = z.dtype.type(1 / count)
    mean = np.empty(BLOCK, z.dtype)
    for start in range(0, pixels, BLOCK):
        size = min(BLOCK, pixels - start)
        _means(z, start, size, share, mean)
        for j in range(count):
            for i in range(size):
                label = target[start + i]
                hot = z.dtype.type(1) if label == j + 1 else z.dtype.type(0)
                value = inward * (z[j, start + i] - mean[i]) + onward * (hot - share)
                out[j, start + i] = value if label > 0 else z.dtype.type(0)


@_row
def _means(z, start, size, share, mean):
    for i in range(size):
        mean[i] = z[0, start + i]
    for j in range(1, len(z)):
        for i in range(size):
            mean[i] += z[j, start + i]
    for i in range(size):
        mean[i] *= share
