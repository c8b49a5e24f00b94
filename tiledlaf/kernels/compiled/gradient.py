"""The compiled chains and local products of the gradient, as a wave of rows through rings.

Rows are copied into ring buffers that stay in the cache, one vector of pixels after another,
whatever the grid's width. A neighbor lies at a fixed distance; what a pixel at the border finds
there belongs to another row, and its weight is 0.

The operands of R_S and p are stored as differences from the last label, J - 1 planes: both ignore
a constant added at a pixel.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from ..arrays import Array
from .caching import jit
from .vector import (
    fma,
    inner,
    lanes_of,
    load,
    load_each,
    prefetch,
    registers,
    splat,
    store,
    store_each,
    where_greater,
    zeros,
)

CHAIN, PULL, PRODUCTS = range(3)
_row = njit(error_model="numpy")


class Rings(NamedTuple):
    """How the wave passes over a grid, and the layout of its ring buffers."""

    rows: int  # of the grid; slabs in 3-D
    columns: int  # pixels per row
    lines: int  # per row: 1 in 2-D
    radius: int  # largest distance to a neighbor, in rows
    levels: int  # powers of the operator
    results: int  # polynomials
    labels: int  # J - 1
    neighbors: int
    widest: int  # columns of a strip without its halo
    halo: int  # columns on either side of a strip that are computed twice
    guard: int  # padding at both ends of a ring, for neighbors of its first and last pixels
    plane: int  # from one plane of a row to the next


class Given(NamedTuple):
    """Inputs, as flat planes of the grid."""

    w: Array
    s: Array
    q: Array
    source: Array
    z: Array


class Results(NamedTuple):
    """Outputs, as flat planes of the grid."""

    out: Array
    more: Array  # the other polynomials of a chain


class Levels(NamedTuple):
    """The ring of each power in `Memory.u`."""

    slots: Array  # number of rows
    starts: Array  # where the first one lies


class Neighbors(NamedTuple):
    """Where the neighbors of a pixel lie."""

    offsets: Array  # (K, 3)
    aside: Array  # distance within a row


class Memory(NamedTuple):
    """The rings, and two single rows."""

    u: Array  # rows of each power
    kept: Array  # of weights and S
    around: Array  # of z and q
    found: Array  # a row of the polynomials, and of the first one's last label
    own: Array  # a row of weights


class Counts(NamedTuple):
    """Tuples of zeros, one per label or neighbor: their lengths are constants to LLVM."""

    fewer: tuple[int, ...]  # J - 1 labels
    block: tuple[int, ...]  # labels that are averaged at once
    neighbors: tuple[int, ...]


@_row
def _within(i, size):
    return i >= 0 and i < size


@_row
def _copy(ring, at, given, start, low, high, first, last, end, ahead):
    """ring[at + x] <- given[start + x] for first <= x < last, 0 from there up to `end`.

    What lies outside given[low:high] is 0. The next call's data, `ahead` of these, is prefetched.
    """
    lanes = lanes_of(ring)
    a = min(max(first, low - start), last)
    b = max(min(last, high - start), a)
    for x in range(first, a):
        ring[at + x] = 0
    whole = a + (b - a) // lanes * lanes
    for x in range(a, whole, lanes):
        prefetch(given, start + x + ahead)
        store(ring, at + x, load(given, start + x))
    for x in range(whole, b):
        ring[at + x] = given[start + x]
    for x in range(b, end):
        ring[at + x] = 0


@_row
def _rows(ring, at, given, to, count, y, first, last, end):
    """Copy a row of `count` planes into a ring."""
    size = to.rows * to.columns
    for j in range(count):
        start = j * size + y * to.columns
        _copy(
            ring,
            at + j * to.plane,
            given,
            start,
            j * size,
            (j + 1) * size,
            first,
            last,
            end,
            to.columns,
        )


@_row
def _differences(ring, at, given, to, fewer, y, first, last, end):
    """Copy a row of J planes into a ring as J - 1 differences to the last one."""
    lanes, count, size = lanes_of(ring), len(fewer), to.rows * to.columns
    start = y * to.columns
    whole = first + (last - first) // lanes * lanes
    for x in range(first, whole, lanes):
        here = start + x
        prefetch(given, here + count * size + to.columns)
        base = load(given, here + count * size)
        for j in range(count):
            prefetch(given, here + j * size + to.columns)
            store(ring, at + j * to.plane + x, load(given, here + j * size) - base)
    for x in range(whole, last):
        for j in range(count):
            base = given[start + x + count * size]
            ring[at + j * to.plane + x] = given[start + x + j * size] - base
    for j in range(count):
        for x in range(last, end):
            ring[at + j * to.plane + x] = 0


@_row
def _turned(ring, at, w, to, offsets, y, first, last, end):
    """Copy a row of transposed weights: weight k of the pixel whose neighbor k this one is."""
    width = to.columns // to.lines
    for k in range(len(offsets)):
        above = y - offsets[k, 0]
        for line in range(to.lines):
            other = line - offsets[k, 1]
            start = (k * to.rows + above) * to.columns + other * width
            inside = _within(above, to.rows) and _within(other, to.lines)
            a, b = max(first - line * width, 0), min(last - line * width, width)
            stop = b if line < to.lines - 1 else end - line * width
            here = at + k * to.plane + line * width
            # pixels outside the grid do not contribute, even if their weights point into it
            _copy(
                ring,
                here,
                w,
                start - offsets[k, 2],
                start,
                start + width * inside,
                a,
                b,
                stop,
                to.columns,
            )


@_row
def _replicated(ring, at, kept, similar, plane, fewer, left, end):
    """Apply R_S to a row in place."""
    lanes, count = lanes_of(ring), len(fewer)
    for x in range(left, end, lanes):
        dot = splat(ring.dtype.type(0))
        for j in range(count):
            dot = fma(load(kept, similar + j * plane + x), load(ring, at + j * plane + x), dot)
        rest = load(kept, similar + count * plane + x) * dot
        for j in range(count):
            here = at + j * plane + x
            value = fma(load(kept, similar + j * plane + x), load(ring, here) - dot, rest)
            store(ring, here, value)


@_row
def _power(memory, here, steps, row, to, counts, left, end):
    """A row of R_S Omega u at `here`, from rows of u at `steps`; weights and S are at `row`."""
    u, kept, plane = memory.u, memory.kept, to.plane
    fewer, block = counts.fewer, counts.block
    lanes, count, part, many = lanes_of(u), len(fewer), len(block), len(counts.neighbors)
    similar = row + many * plane
    t = registers(u, fewer)
    for x in range(left, end, lanes):
        dot = splat(u.dtype.type(0))
        for first in range(0, count, part):
            j = min(first, count - part)
            mean = zeros(u, block)
            for k in range(many):
                there = load_each(u, steps[k] + x + j * plane, plane, block)
                mean = fma(load(kept, row + k * plane + x), there, mean)
            store_each(t, j * lanes, lanes, mean)
        for j in range(count):
            dot = fma(load(kept, similar + j * plane + x), load(t, j * lanes), dot)
        rest = load(kept, similar + count * plane + x) * dot
        for j in range(count):
            value = load(t, j * lanes) - dot
            value = fma(load(kept, similar + j * plane + x), value, rest)
            store(u, here + j * plane + x, value)


@_row
def _combined(memory, to, table, places, counts, first, last):
    """Rows of all polynomials from the rows of all powers."""
    u, out, block = memory.u, memory.found, counts.block
    lanes, count, part = lanes_of(u), len(counts.fewer), len(block)
    for start in range(0, count, part):
        j = min(start, count - part)
        for x in range(first, last, lanes):
            # two at a time halve the loads; an odd last one is its own partner
            for r in range(0, to.results, 2):
                other = min(r + 1, to.results - 1)
                one, two = zeros(u, block), zeros(u, block)
                for level in range(to.levels):
                    power = load_each(u, places[level] + x + j * to.plane, to.plane, block)
                    one = fma(splat(table[r, level]), power, one)
                    two = fma(splat(table[other, level]), power, two)
                here = j * to.plane + x - first
                store_each(out, r * count * to.plane + here, to.plane, one)
                store_each(out, other * count * to.plane + here, to.plane, two)


@_row
def _centered(row, at, last, plane, fewer, size):
    """Center differences in place: with the last label's, at `last`, planes then sum to 0."""
    lanes, count = lanes_of(row), len(fewer)
    share = splat(row.dtype.type(1 / (count + 1)))
    for x in range(0, size, lanes):
        total = load(row, at + x)
        for j in range(1, count):
            total = total + load(row, at + j * plane + x)
        mean = total * share
        for j in range(count):
            store(row, at + j * plane + x, load(row, at + j * plane + x) - mean)
        store(row, last + x, splat(row.dtype.type(0)) - mean)


@_row
def _gradient(memory, row, similar, steps, to, counts, first, last):
    """Replace a row of weights by R_Omega dL/dOmega; z and q of the neighbors are at `steps`.

    Weights are at `row`, S at `similar`. `memory.found` holds lbar and p, centered, and
    `memory.around` z and then q.
    """
    own, kept, p, near = memory.own, memory.kept, memory.found, memory.around
    fewer, block, neighbors = counts.fewer, counts.block, counts.neighbors
    lanes, count, part, many = lanes_of(p), len(fewer), len(block), len(neighbors)
    nothing, plane, terms = splat(p.dtype.type(0)), to.plane, to.results - 1
    t, total, e = registers(p, fewer), registers(p, fewer), registers(p, neighbors)
    for x in range(first, last, lanes):
        here = x - first
        for k in range(many):
            store(e, k * lanes, nothing)
        for j in range(count):
            store(total, j * lanes, load(p, j * plane + here))
        for r in range(terms):
            inside, along = nothing, nothing
            mine = (r + 1) * count * plane + here
            for start in range(0, count, part):
                # the last block is shifted back: labels it shares with the one before count once
                j = min(start, count - part)
                again = start - j
                a = load_each(p, mine + j * plane, plane, block)
                mean = zeros(p, block)
                for k in range(many):
                    at = steps[k] + (r * count + j) * plane + x
                    there = load_each(near, at, plane, block)
                    mean = fma(load(own, row + k * plane + x), there, mean)
                    if again == 0:
                        store(e, k * lanes, inner(a, there, load(e, k * lanes)))
                    else:
                        value = load(e, k * lanes)
                        for m in range(again, part):
                            one = load(p, mine + (j + m) * plane)
                            value = fma(one, load(near, at + m * plane), value)
                        store(e, k * lanes, value)
                store_each(t, j * lanes, lanes, mean)
            for j in range(count):
                mean = load(t, j * lanes)
                inside = fma(load(kept, similar + j * plane + x), mean, inside)
                along = fma(load(p, mine + j * plane), mean, along)
            for j in range(count):
                value = load(p, mine + j * plane) * (load(t, j * lanes) - inside)
                value = value - load(kept, similar + j * plane + x) * along
                store(total, j * lanes, load(total, j * lanes) + value)
        mean = nothing
        for k in range(many):
            value = load(e, k * lanes)
            at = steps[k] + terms * count * plane + x
            for j in range(count):
                value = fma(load(total, j * lanes), load(near, at + j * plane), value)
            store(e, k * lanes, value)
            mean = fma(load(own, row + k * plane + x), value, mean)
        for k in range(many):
            at = row + k * plane + x
            store(own, at, load(own, at) * (load(e, k * lanes) - mean))


@jit
def sweep(mode, to, given, table, results, neighbors, at, memory, counts):
    """Polynomials in R_S Omega, one level per power, each `radius` rows behind the previous one.

    CHAIN: polynomials of Pi_0 source, the first one to `out`, differences of the others to `more`.
    PULL: polynomials of R_S source with the transposed operator, and from their rows the gradient
    of the weights. PRODUCTS: that gradient alone, from polynomials given as `source`.
    """
    w, s, q, source, z = given
    u, kept, around, found, own = memory
    offsets, aside = neighbors
    slots, starts = at
    # fields, as a tuple's length is a literal, and numba compiles callees for each literal
    count, many, plane = to.labels, to.neighbors, to.plane
    radius, levels, terms = to.radius, to.levels, to.results - 1
    depth, each = radius * (levels - 1) + 1, (many + count + 1) * plane
    window, planes = 2 * radius + 1, to.results * count
    sign, lanes = -1 if mode == PULL else 1, lanes_of(s)
    places, steps = np.empty(levels, np.int64), np.empty(many, np.int64)
    for core in range(0, to.columns, to.widest):
        stop = min(to.columns, core + to.widest)
        left, last = max(0, core - to.halo), min(to.columns, stop + to.halo)
        end = left + -(-(last - left) // lanes) * lanes
        shift = to.guard - left
        for front in range(min(0, radius * (levels - 2)), to.rows + radius * (levels - 1)):
            if mode != PRODUCTS and _within(front, to.rows):
                row = front % depth * each + shift
                if mode == PULL:
                    _turned(kept, row, w, to, offsets, front, left, last, end)
                else:
                    _rows(kept, row, w, to, many, front, left, last, end)
                _rows(kept, row + many * plane, s, to, count + 1, front, left, last, end)
                here = front % slots[0] * count * plane + shift
                _differences(u, here, source, to, counts.fewer, front, left, last, end)
                if mode == PULL:
                    _replicated(u, here, kept, row + many * plane, plane, counts.fewer, left, end)
            for level in range(1, levels):
                y = front - radius * level
                if _within(y, to.rows):
                    for k in range(many):
                        # weights are 0 outside the grid, whatever the ring holds
                        slot = (y + sign * offsets[k, 0] + slots[level - 1]) % slots[level - 1]
                        line = starts[level - 1] + slot * count * plane
                        steps[k] = line + shift + sign * aside[k]
                    here = starts[level] + y % slots[level] * count * plane + shift
                    row = y % depth * each + shift
                    _power(memory, here, steps, row, to, counts, left, end)
            y = front - radius * (levels - 1)
            ahead = y + radius
            if mode != CHAIN and _within(ahead, to.rows):
                here = ahead % window * planes * plane + shift
                a, b = max(left, core - to.guard), min(last, stop + to.guard)
                _rows(around, here, z, to, terms * count, ahead, a, b, b)
                _differences(
                    around, here + terms * count * plane, q, to, counts.fewer, ahead, a, b, b
                )
            if not _within(y, to.rows):
                continue
            beside, size = -core, stop - core
            if mode == PRODUCTS:
                _rows(found, beside, source, to, planes, y, core, stop, stop)
            else:
                for level in range(levels):
                    places[level] = starts[level] + y % slots[level] * count * plane + shift
                _combined(memory, to, table, places, counts, core, stop)
                for r in range(1 if mode == CHAIN else to.results):
                    _centered(found, r * count * plane, planes * plane, plane, counts.fewer, size)
            if mode == CHAIN:
                for n in range(count):
                    _written(results.out, n, found, n, to, y, core, stop)
                _written(results.out, count, found, planes, to, y, core, stop)
                for n in range(terms * count):
                    _written(results.more, n, found, count + n, to, y, core, stop)
                continue
            _rows(own, beside, w, to, many, y, core, stop, stop)
            similar = y % depth * each + shift + many * plane
            if mode == PRODUCTS:
                _rows(kept, similar, s, to, count, y, core, stop, stop)
            for k in range(many):
                slot = (y + offsets[k, 0] + window) % window
                steps[k] = slot * planes * plane + shift + aside[k]
            _gradient(memory, beside, similar, steps, to, counts, core, stop)
            for n in range(many):
                _written(results.out, n, own, n, to, y, core, stop)


@_row
def _written(out, n, row, m, to, y, first, last):
    """Write plane m of a row to plane n of the grid."""
    lanes = lanes_of(out)
    start, at = m * to.plane - first, n * to.rows * to.columns + y * to.columns
    whole = first + (last - first) // lanes * lanes
    for x in range(first, whole, lanes):
        store(out, at + x, load(row, start + x))
    for x in range(whole, last):
        out[at + x] = row[start + x]


@jit
def alignment(z, target, labels):
    """Sums of Pi_0 z at the target and of ||Pi_0 z||^2, and the number of labeled pixels."""
    lanes, pixels = lanes_of(z), len(target)
    squares, ahead = np.empty(lanes, z.dtype), np.empty(lanes, z.dtype)
    number = z.dtype.type
    nothing, one, half = splat(number(0)), splat(number(1)), splat(number(0.5))
    along, norm, count = 0.0, 0.0, 0
    for first in range(0, pixels, lanes):
        x = min(first, pixels - lanes)  # the last vector is shifted back
        label = load(target, x)
        labeled = where_greater(label, half, one, nothing)
        mean = _mean(z, x, pixels, labels)
        square, hot = nothing, nothing
        for j in range(len(labels)):
            v = (load(z, j * pixels + x) - mean) * labeled
            square = fma(v, v, square)
            hot = hot + _at(label, splat(number(j + 1)), half, v, nothing)
        store(squares, 0, square)
        store(ahead, 0, hot)
        for i in range(first - x, lanes):
            along += ahead[i]
            norm += squares[i]
            count += target[x + i] > 0
    return along, norm, count


@jit
def align(z, target, inward, onward, out, labels):
    """`inward` Pi_0 z + `onward` Pi_0 e_target at the labeled pixels."""
    lanes, pixels = lanes_of(z), len(target)
    number = z.dtype.type
    nothing, half = splat(number(0)), splat(number(0.5))
    share = number(1 / len(labels))
    here, elsewhere = splat(onward * (number(1) - share)), splat(-onward * share)
    for first in range(0, pixels, lanes):
        x = min(first, pixels - lanes)
        label = load(target, x)
        mean = _mean(z, x, pixels, labels)
        for j in range(len(labels)):
            at = j * pixels + x
            value = _at(label, splat(number(j + 1)), half, here, elsewhere)
            value = fma(splat(inward), load(z, at) - mean, value)
            store(out, at, where_greater(label, half, value, nothing))


@_row
def _at(label, j, half, yes, no):
    """`yes` where the label, an integer, equals j."""
    return where_greater(label, j - half, where_greater(label, j + half, no, yes), no)


@_row
def _mean(z, x, pixels, labels):
    total = load(z, x)
    for j in range(1, len(labels)):
        total = total + load(z, j * pixels + x)
    return total * splat(z.dtype.type(1 / len(labels)))
