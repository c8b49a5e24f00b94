"""The compiled flow on a CPU: explicit SIMD along rows, single-threaded, without the GIL.

All steps of a flow sweep as one wave over the rows of a strip of columns. Each move of the wave
advances every level (an iterate of the flow) by two rows. Of each level only the rows within
reach of a neighborhood are kept, in ring buffers that stay in the cache. Iterates are stored as
differences from the last label, J - 1 planes, since A ignores a constant added at a pixel. Pixels
outside the grid stay 0 without a check, because their S is 0.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from ..arrays import Array
from .caching import jit
from .vector import (
    exp,
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
    store_whole,
    where_greater,
    zeros,
)

LINE = 64  # bytes per vector and per cache line
WIDE = 16  # lanes of float32
BLOCK = 13  # labels whose sums for two rows fit in the 32 registers
FAINT, FAINT_DOUBLE = math.log(1e-20), math.log(1e-300)
UPPER, LOWER, BOTH = range(3)
AVERAGE, SIMILARITY, FLOW, CLASSIFY = range(4)
_row = njit(error_model="numpy")
_inline = njit(forceinline=True, error_model="numpy")


class Layout(NamedTuple):
    """Layout of the ring buffers, in array elements. In 3-D a row is a (y, x) slab."""

    vectors: int  # per line of a strip
    plane: int  # from one label to the next
    line: int  # from one line to the next
    origin: int  # from the start of a row to its first pixel
    row: int  # from one row to the next
    slots: int  # rows in the ring of a level
    level: int  # from one level's ring to the next
    record: int  # from the weights and S of one vector of pixels to those of the next
    kept: int  # rows in the ring of weights and S


class Grid(NamedTuple):
    """Size of the grid; in 3-D its rows are (y, x) slabs."""

    rows: int
    lines: int  # per row: 1 in 2-D
    columns: int
    pixels: int  # in total
    radius: int  # largest distance to a neighbor, in rows


class Strip(NamedTuple):
    """A strip of the grid; columns as (start, stop)."""

    window: tuple[int, int]  # columns read
    core: tuple[int, int]  # columns written


class Given(NamedTuple):
    """Inputs, as flat planes of the grid."""

    w: Array
    q: Array
    base: Array  # log W0, or empty


class Neighbors(NamedTuple):
    """The neighbors of two adjacent rows, in the order in which they are visited."""

    order: Array  # planes of weights in that order
    steps: Array  # from a pixel of the upper row to its neighbors, for each slot of that row
    entries: int  # steps per slot
    groups: Array  # (m, 2), runs of steps: UPPER, LOWER or BOTH, and their number


class Labels(NamedTuple):
    """Tuples of zeros, one per label: their lengths are constants to LLVM."""

    every: tuple[int, ...]  # J
    block: tuple[int, ...]  # labels out of J that are averaged at once
    fewer: tuple[int, ...]  # J - 1, rounded up to whole parts
    part: tuple[int, ...]  # labels out of J - 1 that are averaged at once


class Flow(NamedTuple):
    """Z = scale U after U <- B + keep U + c A U for each coefficient c."""

    coefficients: Array
    keep: bool
    scale: float


class Rings(NamedTuple):
    """Working memory of a strip."""

    u: Array  # rows of all levels
    s: Array  # records of weights and S
    mask: Array  # a line of ones, zero beyond the window; then a line of zeros


class Results(NamedTuple):
    """Outputs, as flat planes of the grid; empty unless the mode asks for them."""

    planes: Array
    label: Array
    confidence: Array
    gap: Array


class Rows(NamedTuple):
    """Where two adjacent rows of a level, the upper and the lower one, are read and written."""

    source: int  # ring of the previous level
    before: tuple[int, int]  # the same rows of the previous level
    target: tuple[int, int]
    records: tuple[int, int]
    inside: tuple[int, int]  # line of the mask: zeros for a row outside the grid
    step: int  # first of the steps to their neighbors


class Ahead(NamedTuple):
    """What the next move of the wave reads; each level prefetches its share of the planes."""

    q: Array
    w: Array
    planes: tuple[int, int]  # of q and of w
    places: tuple[int, int]  # the first pixel in q and in w
    stride: int  # from one plane to the next
    line: int  # from one line of pixels to the next
    first: int  # first plane of a level's share
    every: int  # from one plane of its share to the next


class Scores(NamedTuple):
    """The scores of labels: scale z, plus log W0 if there is one."""

    z: Array
    plane: int  # from one label to the next
    planes: int  # labels in z; further labels have z = 0
    scale: float
    base: Array  # log W0, or empty
    stride: int  # from one label of log W0 to the next


@_inline
def _block_averages(rings, neighbors, plane, p, e, upper, lower, block):
    """Omega u for a vector of pixels and the one in the next row, a block of labels from p on.

    A neighbor of both is loaded once. Each sums its neighbors in the sorted order of the offsets.
    """
    u, s, _ = rings
    _, steps, _, groups = neighbors
    lanes = lanes_of(u)
    a = zeros(u, block)
    b = zeros(u, block)
    for g in range(len(groups)):
        kind = groups[g, 0]
        stop = e + groups[g, 1]
        if kind == BOTH:
            while e < stop:
                there = load_each(u, p + steps[e], plane, block)
                a = fma(load(s, upper), there, a)
                b = fma(load(s, lower), there, b)
                upper += lanes
                lower += lanes
                e += 1
        elif kind == UPPER:
            while e < stop:
                a = fma(load(s, upper), load_each(u, p + steps[e], plane, block), a)
                upper += lanes
                e += 1
        else:
            while e < stop:
                b = fma(load(s, lower), load_each(u, p + steps[e], plane, block), b)
                lower += lanes
                e += 1
    return a, b


@_inline
def _averages(rings, neighbors, plane, p, e, records, labels, block, a, b):
    """Omega u for all labels by blocks; the last block is shifted back to end with the labels."""
    lanes = lanes_of(rings.u)
    size, count = len(block), len(labels)
    upper, lower = records
    for first in range(0, count, size):
        j = min(first, count - size)
        above, below = _block_averages(
            rings, neighbors, plane, p + j * plane, e, upper, lower, block
        )
        store_each(a, j * lanes, lanes, above)
        store_each(b, j * lanes, lanes, below)


@_inline
def _softmax(u, t, labels, inside):
    """S = softmax(t) (2.16)-(2.17), zero in the lanes outside the grid.

    Entries below 1e-20 of the largest become 0: products with them would be denormal numbers,
    which slow a processor down tenfold. In float64 1e-300: after a long time they would be seen.
    """
    lanes, count = lanes_of(u), len(labels)
    faint = splat(u.dtype.type(FAINT if lanes == WIDE else FAINT_DOUBLE))
    nothing = splat(u.dtype.type(0))
    best = load(t, 0)
    for j in range(1, count):
        v = load(t, j * lanes)
        best = where_greater(v, best, v, best)
    total = nothing
    for j in range(count):
        v = load(t, j * lanes) - best
        e = where_greater(v, faint, exp(v), nothing)
        total = total + e
        store(t, j * lanes, e)
    inverse = inside / total
    for j in range(count):
        store(t, j * lanes, load(t, j * lanes) * inverse)


@_inline
def _source(mode, rings, t, labels, inside, sp, final, plane, target):
    """Store S, and B = S - 1/J or what the mode asks for instead."""
    u, s, _ = rings
    lanes, count = lanes_of(u), len(labels)
    if mode != AVERAGE:
        _softmax(u, t, labels, inside)
    last = load(t, (count - 1) * lanes)
    store(s, final, last)
    for j in range(count - 1):
        store(s, sp + j * lanes, load(t, j * lanes))
    for j in range(count):
        v = load(t, j * lanes)
        store(u, target + j * plane, v - last if mode > SIMILARITY else v)


@_inline
def _step(rings, t, sp, c, keep, before, plane, target, planes, block):
    """B + c R_S t, plus u if `keep`; t of the last label is 0.

    Products with S_j and with S_J are rounded alike, so tied labels stay tied. B is added last:
    where it is 0, even the faintest distant influence decides.
    """
    u, s, _ = rings
    lanes, size = lanes_of(u), len(block)
    dot = splat(u.dtype.type(0))
    for j in range(0, len(planes), size):
        of_block = load_each(s, sp + j * lanes, lanes, block)
        dot = inner(of_block, load_each(t, j * lanes, lanes, block), dot)
    last = load(s, sp + len(planes) * lanes)
    rest = last * dot
    for j in range(0, len(planes), size):
        of_block = load_each(s, sp + j * lanes, lanes, block)
        change = of_block * (load_each(t, j * lanes, lanes, block) - dot) + rest
        new = fma(splat(c), change, of_block - last)
        if keep:
            new = new + load_each(u, before + j * plane, plane, block)
        store_each(u, target + j * plane, plane, new)


@_inline
def _fetch(ahead, x):
    """Prefetch the vectors at column x that the next move of the wave reads."""
    q, w, planes, places, stride, line, first, every = ahead
    plane = first  # a range with a step would divide to count its turns
    while plane < planes[0]:
        prefetch(q, places[0] + x + plane * stride)
        prefetch(q, places[0] + x + plane * stride + line)
        plane += every
    plane = first
    while plane < planes[1]:
        prefetch(w, places[1] + x + plane * stride)
        prefetch(w, places[1] + x + plane * stride + line)
        plane += every


@_row
def _sources(mode, at, lines, rings, rows, neighbors, labels, ahead):
    """Compute two rows of level 1 from q."""
    u, mask = rings.u, rings.mask
    every, lanes = labels.every, lanes_of(u)
    a = registers(u, every)
    b = registers(u, every)
    sp, final = at.record - (len(labels.fewer) + 1) * lanes, at.record - lanes
    for y in range(lines):
        for v in range(at.vectors):
            x = v * lanes
            _fetch(ahead, x)
            p = at.origin + y * at.line + x
            i = (y * at.vectors + v) * at.record
            upper, lower = rows.records[0] + i, rows.records[1] + i
            _averages(
                rings,
                neighbors,
                at.plane,
                rows.source + p,
                rows.step,
                (upper, lower),
                every,
                labels.block,
                a,
                b,
            )
            inside, target = load(mask, rows.inside[0] + x), rows.target[0] + p
            _source(mode, rings, a, every, inside, upper + sp, upper + final, at.plane, target)
            inside, target = load(mask, rows.inside[1] + x), rows.target[1] + p
            _source(mode, rings, b, every, inside, lower + sp, lower + final, at.plane, target)


@_row
def _steps(c, keep, at, lines, rings, rows, neighbors, labels, ahead):
    """Compute two rows of a level from the previous level."""
    fewer, part = labels.fewer, labels.part
    lanes = lanes_of(rings.u)
    a = registers(rings.u, fewer)
    b = registers(rings.u, fewer)
    sp = at.record - (len(fewer) + 1) * lanes
    for y in range(lines):
        for v in range(at.vectors):
            x = v * lanes
            _fetch(ahead, x)
            p = at.origin + y * at.line + x
            i = (y * at.vectors + v) * at.record
            upper, lower = rows.records[0] + i, rows.records[1] + i
            _averages(
                rings,
                neighbors,
                at.plane,
                rows.source + p,
                rows.step,
                (upper, lower),
                fewer,
                part,
                a,
                b,
            )
            before, target = rows.before[0] + p, rows.target[0] + p
            _step(rings, a, upper + sp, c, keep, before, at.plane, target, fewer, part)
            before, target = rows.before[1] + p, rows.target[1] + p
            _step(rings, b, lower + sp, c, keep, before, at.plane, target, fewer, part)


@_row
def _fill(q, i, grid, columns, u, p, labels, at):
    """Copy a row of q, from pixel i on, into level 0."""
    lanes = lanes_of(q)
    for y in range(grid.lines):
        for j in range(len(labels)):
            source = i + j * grid.pixels + y * grid.columns
            target = p + y * at.line + j * at.plane
            for start in range(0, columns, lanes):
                x = min(start, columns - lanes)
                store(u, target + x, load(q, source + x))


@_row
def _pack(w, order, i, grid, columns, s, sp, at):
    """Copy a row of weights, from pixel i on, in the order in which the averages read them."""
    lanes = lanes_of(w)
    for y in range(grid.lines):
        for k in range(len(order)):
            source = i + order[k] * grid.pixels + y * grid.columns
            target = sp + y * at.vectors * at.record + k * lanes
            for x in range(0, columns - lanes + 1, lanes):
                store(s, target, load(w, source + x))
                target += at.record
            for x in range(columns % lanes):
                s[target + x] = w[source + columns - columns % lanes + x]


@_row
def _copy_row(u, p, plane, labels, pixels, out, o, stride):
    lanes = lanes_of(u)
    for j in range(len(labels)):
        for start in range(0, pixels, lanes):
            x = min(start, pixels - lanes)
            store(out, o + j * stride + x, load(u, p + j * plane + x))


@_row
def _center_row(u, p, plane, labels, pixels, scale, out, o, stride):
    """Z from its differences to the last label: centered and scaled."""
    lanes, count = lanes_of(u), len(labels)
    for start in range(0, pixels, lanes):
        x = min(start, pixels - lanes)
        total = splat(u.dtype.type(0))
        for j in range(count - 1):
            total = total + load(u, p + j * plane + x)
        mean = total * splat(u.dtype.type(1 / count))
        for j in range(count - 1):
            z = splat(scale) * (load(u, p + j * plane + x) - mean)
            store(out, o + j * stride + x, z)
        store(out, o + (count - 1) * stride + x, splat(-scale) * mean)


@_inline
def _value(scores, j, p, i):
    """The score of label j, z from p on and log W0 from i on."""
    z, base = scores.z, scores.base
    if j < scores.planes:
        value = splat(scores.scale) * load(z, p + j * scores.plane)
    else:
        value = splat(z.dtype.type(0))
    return value + load(base, i + j * scores.stride) if len(base) else value


@_row
def _decide_row(scores, count, p, i, pixels, results):
    """Best label, its probability and its gap to the second best."""
    number = scores.z.dtype.type
    lanes = lanes_of(scores.z)
    one = splat(number(1))
    for start in range(0, pixels, lanes):
        x = min(start, pixels - lanes)  # the last vector is shifted back to end with the pixels
        best = _value(scores, 0, p + x, i + x)
        second = splat(number(-np.inf))
        where = one
        for j in range(1, count):
            v = _value(scores, j, p + x, i + x)
            second = where_greater(v, best, best, where_greater(v, second, v, second))
            where = where_greater(v, best, splat(number(j + 1)), where)
            best = where_greater(v, best, v, best)
        total = splat(number(0))
        for j in range(count):
            v = _value(scores, j, p + x, i + x)
            total = total + exp(v - best)
        store(results.confidence, i + x, one / total)
        store(results.gap, i + x, best - second)
        store_whole(results.label, i + x, where)


@jit
def wave(mode, at, grid, strip, given, neighbors, labels, flow, rings, results):
    """Take one strip through all levels.

    Level 0 holds q, level 1 the source B = S - 1/J, level l + 1 the l-th iterate. Each level
    trails the previous one by `grid.radius` rows. Rows outside the grid are computed as far as a
    neighborhood reaches, and are 0.
    """
    w, q, base = given
    u, s, mask = rings
    every, radius = labels.every, grid.radius
    left, right = strip.window
    columns, row = right - left, grid.lines * grid.columns
    levels = len(flow.coefficients) + 2
    records = grid.lines * at.vectors * at.record  # of a row
    u[:] = 0
    s[:] = 0
    for front in range(0, grid.rows + radius * (levels - 1), 2):
        ahead = ((front + 2) * row + left, (front + 2 - radius) * row + left)
        for level in range(levels):
            y = front - radius * level
            if y < -1 or y >= grid.rows + radius:
                continue
            slot = y % at.slots
            target = (
                level * at.level + slot * at.row,
                level * at.level + (y + 1) % at.slots * at.row,
            )
            if level == 0:
                for i in range(2):
                    if y + i < grid.rows:
                        pixel = (y + i) * row + left
                        _fill(q, pixel, grid, columns, u, target[i] + at.origin, every, at)
                    else:
                        u[target[i] : target[i] + at.row] = 0
                continue
            rows = Rows(
                source=(level - 1) * at.level,
                before=(target[0] - at.level, target[1] - at.level),
                target=target,
                records=(y % at.kept * records, (y + 1) % at.kept * records),
                inside=(
                    0 if 0 <= y < grid.rows else len(mask) // 2,
                    0 if 0 <= y + 1 < grid.rows else len(mask) // 2,
                ),
                step=slot * neighbors.entries,
            )
            share = Ahead(
                q=q,
                w=w,
                planes=(len(every), len(neighbors.order)),
                places=ahead,
                stride=grid.pixels,
                line=grid.columns,
                first=level - 1,
                every=levels - 1,
            )
            if level == 1:
                for i in range(2):
                    place = rows.records[i]
                    if 0 <= y + i < grid.rows:
                        pixel = (y + i) * row + left
                        _pack(w, neighbors.order, pixel, grid, columns, s, place, at)
                    else:
                        s[place : place + records] = 0
                _sources(mode, at, grid.lines, rings, rows, neighbors, labels, share)
            else:
                c = flow.coefficients[level - 2]
                _steps(c, flow.keep, at, grid.lines, rings, rows, neighbors, labels, share)
        # write the rows that have reached the last level
        for i in range(2):
            y = front - radius * (levels - 1) + i
            if y < 0 or y >= grid.rows:
                continue
            for line in range(grid.lines):
                p = (levels - 1) * at.level + y % at.slots * at.row + at.origin + line * at.line
                p += strip.core[0] - left
                pixel = y * row + line * grid.columns + strip.core[0]
                size, planes = strip.core[1] - strip.core[0], results.planes
                if mode == CLASSIFY:
                    scores = Scores(u, at.plane, len(every) - 1, flow.scale, base, grid.pixels)
                    _decide_row(scores, len(every), p, pixel, size, results)
                elif mode == FLOW:
                    _center_row(u, p, at.plane, every, size, flow.scale, planes, pixel, grid.pixels)
                else:
                    _copy_row(u, p, at.plane, every, size, planes, pixel, grid.pixels)


@jit
def decide(z, count, pixels, label, confidence, gap):
    """Best label, probability and gap on flat planes of Z."""
    scores = Scores(z, pixels, count, z.dtype.type(1), z[:0], 0)
    _decide_row(scores, count, 0, 0, pixels, Results(z[:0], label, confidence, gap))
