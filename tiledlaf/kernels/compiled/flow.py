"""The compiled flow on a CPU: explicit vectors along rows, one thread, without the GIL.

All steps of a flow follow each other as a wave over the rows of a strip of columns: each move of
the wave takes every level, an iterate of the flow, on by two rows, and only the rows of one
neighborhood of each level are held, in rings that stay in the cache. Iterates are differences to
the last label's, J - 1 planes: A ignores a constant of each pixel, and a pixel outside the grid
stays 0 without being asked for, since its S is 0.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from .vector import (
    exp,
    fma,
    inner,
    lanes_of,
    load,
    load_each,
    log,
    prefetch,
    registers,
    splat,
    store,
    store_each,
    store_whole,
    where_greater,
    zeros,
)

LINE = 64  # bytes of a vector, and of a cache line
BLOCK = 13  # labels whose sums for two rows fit into the 32 registers
FAINT = math.log(1e-20)
UPPER, LOWER, BOTH = range(3)
AVERAGE, SIMILARITY, FLOW, CLASSIFY = range(4)
_jit = njit(nogil=True, cache=True, error_model="numpy")
_row = njit(error_model="numpy")
_inline = njit(forceinline=True, error_model="numpy")


class Layout(NamedTuple):
    """Where things lie in the rings, counted in numbers. A row is a (y, x) slab in 3-D."""

    vectors: int  # of pixels from x = 0 to the end of a strip
    plane: int  # from a label to the next
    line: int  # from y to y + 1
    origin: int  # from a row's start to its first pixel
    row: int  # from a row to the next
    slots: int  # rows in the ring of a level
    level: int  # from a level's ring to the next
    record: int  # from the weights and S of a vector of pixels to the next
    kept: int  # rows in the ring of weights and S


@_inline
def _block_averages(u, plane, p, s, upper, lower, steps, e, groups, block):
    """Omega u for a vector of pixels and for the one in the next row, `block` labels from p on.

    A neighbor of both is loaded once. Each adds up its neighbors in the order of `offsets`.
    """
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
def _averages(u, plane, p, s, upper, lower, steps, e, groups, labels, block, a, b):
    """Omega u for all labels, block by block; the last one is moved back to end with them."""
    lanes = lanes_of(u)
    size, count = len(block), len(labels)
    for first in range(0, count, size):
        j = min(first, count - size)
        above, below = _block_averages(
            u, plane, p + j * plane, s, upper, lower, steps, e, groups, block
        )
        store_each(a, j * lanes, lanes, above)
        store_each(b, j * lanes, lanes, below)


@_inline
def _softmax(u, t, count, inside):
    """S = softmax(t) (2.16)-(2.17), times 0 in the lanes outside the grid.

    What is under 1e-20 of the largest is 0: products with it would be denormal numbers, which
    make a processor ten times slower.
    """
    lanes = lanes_of(u)
    faint, nothing = splat(u.dtype.type(FAINT)), splat(u.dtype.type(0))
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
def _source(mode, u, t, count, inside, s, sp, final, plane, target):
    """S, which is kept, and B = S - 1/J; or what the mode asks for in place of B."""
    lanes = lanes_of(u)
    if mode != AVERAGE:
        _softmax(u, t, count, inside)
    last = load(t, (count - 1) * lanes)
    store(s, final, last)
    for j in range(count - 1):
        store(s, sp + j * lanes, load(t, j * lanes))
    for j in range(count):
        v = load(t, j * lanes)
        store(u, target + j * plane, v - last if mode > SIMILARITY else v)


@_inline
def _step(u, t, s, sp, c, keep, before, plane, target, planes, block):
    """B + c R_S t, + u where kept; t of the last label is 0.

    The products with S_j and with S_J are rounded alike: labels that tie stay tied. B is added
    last: where it is 0, the faintest influence from afar still decides.
    """
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
def _fetch(q, w, ahead, j, k, stride, nx, first, every):
    """Ask for the vectors of q and w that the wave's next move reads, every so-manyth plane."""
    for plane in range(first, j, every):
        prefetch(q, ahead[0] + plane * stride)
        prefetch(q, ahead[0] + plane * stride + nx)
    for plane in range(first, k, every):
        prefetch(w, ahead[1] + plane * stride)
        prefetch(w, ahead[1] + plane * stride + nx)


@_row
def _sources(
    mode,
    at,
    n1,
    u,
    source,
    target,
    s,
    rows,
    mask,
    masks,
    steps,
    e,
    groups,
    labels,
    planes,
    block,
    q,
    w,
    nq,
    nw,
    ahead,
    ps,
    nx,
    first,
    every,
):
    """Two rows of level 1 from q."""
    count, lanes = len(labels), lanes_of(u)
    a = registers(u, labels)
    b = registers(u, labels)
    sp = at.record - (planes + 1) * lanes
    for y in range(n1):
        for v in range(at.vectors):
            _fetch(q, w, (ahead[0] + v * lanes, ahead[1] + v * lanes), nq, nw, ps, nx, first, every)
            p = at.origin + y * at.line + v * lanes
            i = (y * at.vectors + v) * at.record
            upper, lower = rows[0] + i, rows[1] + i
            _averages(
                u, at.plane, source + p, s, upper, lower, steps, e, groups, labels, block, a, b
            )
            inside = load(mask, masks[0] + v * lanes)
            _source(
                mode,
                u,
                a,
                count,
                inside,
                s,
                upper + sp,
                upper + at.record - lanes,
                at.plane,
                target[0] + p,
            )
            inside = load(mask, masks[1] + v * lanes)
            _source(
                mode,
                u,
                b,
                count,
                inside,
                s,
                lower + sp,
                lower + at.record - lanes,
                at.plane,
                target[1] + p,
            )


@_row
def _steps(
    c,
    keep,
    at,
    n1,
    u,
    source,
    before,
    target,
    s,
    rows,
    steps,
    e,
    groups,
    fewer,
    block,
    q,
    w,
    nq,
    nw,
    ahead,
    ps,
    nx,
    first,
    every,
):
    """Two rows of a level from the level before it."""
    lanes = lanes_of(u)
    a = registers(u, fewer)
    b = registers(u, fewer)
    sp = at.record - (len(fewer) + 1) * lanes
    for y in range(n1):
        for v in range(at.vectors):
            _fetch(q, w, (ahead[0] + v * lanes, ahead[1] + v * lanes), nq, nw, ps, nx, first, every)
            p = at.origin + y * at.line + v * lanes
            i = (y * at.vectors + v) * at.record
            upper, lower = rows[0] + i, rows[1] + i
            _averages(
                u, at.plane, source + p, s, upper, lower, steps, e, groups, fewer, block, a, b
            )
            _step(
                u, a, s, upper + sp, c, keep, before[0] + p, at.plane, target[0] + p, fewer, block
            )
            _step(
                u, b, s, lower + sp, c, keep, before[1] + p, at.plane, target[1] + p, fewer, block
            )


@_row
def _fill(q, i, stride, nx, n1, columns, u, p, count, at):
    """A row of q, from pixel i on, into level 0."""
    lanes = lanes_of(q)
    for y in range(n1):
        for j in range(count):
            source = i + j * stride + y * nx
            target = p + y * at.line + j * at.plane
            for start in range(0, columns, lanes):
                x = min(start, columns - lanes)
                store(u, target + x, load(q, source + x))


@_row
def _pack(w, order, i, stride, nx, n1, columns, s, sp, at):
    """A row of weights, from pixel i on, in the order in which the averages read them."""
    lanes = lanes_of(w)
    for y in range(n1):
        for k in range(len(order)):
            source = i + order[k] * stride + y * nx
            target = sp + y * at.vectors * at.record + k * lanes
            for x in range(0, columns - lanes + 1, lanes):
                store(s, target, load(w, source + x))
                target += at.record
            for x in range(columns % lanes):
                s[target + x] = w[source + columns - columns % lanes + x]


@_row
def _copy_row(u, p, plane, count, pixels, out, o, stride):
    lanes = lanes_of(u)
    for j in range(count):
        for start in range(0, pixels, lanes):
            x = min(start, pixels - lanes)
            store(out, o + j * stride + x, load(u, p + j * plane + x))


@_row
def _center_row(u, p, plane, count, pixels, scale, out, o, stride):
    """Z from the differences to its last label: with sum 0, and scaled."""
    lanes = lanes_of(u)
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
def _value(z, p, plane, j, planes, scale, base, i, stride):
    """z_j, 0 beyond the planes there are, plus log W0 if there is one."""
    value = splat(scale) * load(z, p + j * plane) if j < planes else splat(z.dtype.type(0))
    return value + load(base, i + j * stride) if len(base) else value


@_row
def _decide_row(z, p, plane, planes, count, pixels, scale, base, i, stride, label, confidence, gap):
    """Best label, its share and its lead; a last vector is moved back to end with the pixels."""
    lanes = lanes_of(z)
    one = splat(z.dtype.type(1))
    for start in range(0, pixels, lanes):
        x = min(start, pixels - lanes)
        best = _value(z, p + x, plane, 0, planes, scale, base, i + x, stride)
        second = splat(z.dtype.type(-np.inf))
        where = one
        for j in range(1, count):
            v = _value(z, p + x, plane, j, planes, scale, base, i + x, stride)
            second = where_greater(v, best, best, where_greater(v, second, v, second))
            where = where_greater(v, best, splat(z.dtype.type(j + 1)), where)
            best = where_greater(v, best, v, best)
        total = splat(z.dtype.type(0))
        for j in range(count):
            v = _value(z, p + x, plane, j, planes, scale, base, i + x, stride)
            total = total + exp(v - best)
        store(confidence, i + x, one / total)
        store(gap, i + x, best - second)
        store_whole(label, i + x, where)


@_jit
def wave(
    mode,
    at,
    shape,
    radius,
    window,
    core,
    w,
    q,
    base,
    order,
    entries,
    groups,
    labels,
    wide,
    fewer,
    block,
    coefficients,
    keep,
    scale,
    u,
    s,
    planes,
    label,
    confidence,
    gap,
):
    """One strip: columns `window` of the grid go in, columns `core` come out.

    Level 0 holds q, level 1 the source B = S - 1/J, level l + 1 the l-th iterate. A level follows
    the one before it at a distance of `radius[0]` rows. Rows outside the grid are computed as far
    as a neighborhood reaches, and are 0.
    """
    count, lanes = len(labels), lanes_of(q)
    n0, n1, nx = shape
    r0 = radius[0]
    left, right = window
    columns = right - left
    stride = n0 * n1 * nx
    levels = len(coefficients) + 2
    width = at.vectors * lanes
    u[:] = 0
    s[:] = 0
    mask = np.zeros(2 * width, u.dtype)
    mask[:columns] = 1
    # where each neighbor lies, by the slot of the row
    number = len(entries)
    steps = np.empty(at.slots * number, np.int64)
    for slot in range(at.slots):
        for e in range(number):
            there = (slot + entries[e, 0] + at.slots) % at.slots
            steps[slot * number + e] = there * at.row + entries[e, 1] * at.line + entries[e, 2]
    for front in range(0, n0 + r0 * (levels - 1), 2):
        ahead = ((front + 2) * n1 * nx + left, (front + 2 - r0) * n1 * nx + left)
        for level in range(levels):
            y = front - r0 * level
            if y < -1 or y >= n0 + r0:
                continue
            slot = y % at.slots
            target = (
                level * at.level + slot * at.row,
                level * at.level + (y + 1) % at.slots * at.row,
            )
            if level == 0:
                for i in range(2):
                    if y + i < n0:
                        pixel = (y + i) * n1 * nx + left
                        _fill(
                            q, pixel, stride, nx, n1, columns, u, target[i] + at.origin, count, at
                        )
                    else:
                        u[target[i] : target[i] + at.row] = 0
                continue
            rows = (
                y % at.kept * n1 * at.vectors * at.record,
                (y + 1) % at.kept * n1 * at.vectors * at.record,
            )
            source = (level - 1) * at.level
            if level == 1:
                for i in range(2):
                    if 0 <= y + i < n0:
                        pixel = (y + i) * n1 * nx + left
                        _pack(w, order, pixel, stride, nx, n1, columns, s, rows[i], at)
                    else:
                        s[rows[i] : rows[i] + n1 * at.vectors * at.record] = 0
                masks = (0 if 0 <= y < n0 else width, 0 if 0 <= y + 1 < n0 else width)
                _sources(
                    mode,
                    at,
                    n1,
                    u,
                    source,
                    target,
                    s,
                    rows,
                    mask,
                    masks,
                    steps,
                    slot * number,
                    groups,
                    labels,
                    len(fewer),
                    wide,
                    q,
                    w,
                    count,
                    len(order),
                    ahead,
                    stride,
                    nx,
                    level - 1,
                    levels - 1,
                )
            else:
                before = (target[0] - at.level, target[1] - at.level)
                _steps(
                    coefficients[level - 2],
                    keep,
                    at,
                    n1,
                    u,
                    source,
                    before,
                    target,
                    s,
                    rows,
                    steps,
                    slot * number,
                    groups,
                    fewer,
                    block,
                    q,
                    w,
                    count,
                    len(order),
                    ahead,
                    stride,
                    nx,
                    level - 1,
                    levels - 1,
                )
        # what has come to the last level goes out
        for i in range(2):
            y = front - r0 * (levels - 1) + i
            if y < 0 or y >= n0:
                continue
            for line in range(n1):
                p = (levels - 1) * at.level + y % at.slots * at.row + at.origin + line * at.line
                p += core[0] - left
                pixel = (y * n1 + line) * nx + core[0]
                size = core[1] - core[0]
                if mode == CLASSIFY:
                    _decide_row(
                        u,
                        p,
                        at.plane,
                        count - 1,
                        count,
                        size,
                        scale,
                        base,
                        pixel,
                        stride,
                        label,
                        confidence,
                        gap,
                    )
                elif mode == FLOW:
                    _center_row(u, p, at.plane, count, size, scale, planes, pixel, stride)
                else:
                    _copy_row(u, p, at.plane, count, size, planes, pixel, stride)


@_jit
def decide(z, count, pixels, label, confidence, gap):
    """Decide on flat planes of Z."""
    one, none = z.dtype.type(1), z[:0]
    _decide_row(z, 0, pixels, count, count, pixels, one, none, 0, 0, label, confidence, gap)


@_jit
def distances(image, prototypes, factor, out):
    """Sums of squares over the channels, in their order, times a factor; flat planes."""
    for j in range(len(prototypes)):
        d = out[j]
        for c in range(len(image)):
            plane, value = image[c], prototypes[j, c]
            if c == 0:
                for i in range(len(d)):
                    e = np.float32(plane[i]) - value
                    d[i] = e * e
            else:
                for i in range(len(d)):
                    e = np.float32(plane[i]) - value
                    d[i] += e * e
        for i in range(len(d)):
            d[i] *= factor


@_jit
def logarithm(p, least, factor, out):
    """`factor` log max(p, least)."""
    lanes, pixels = lanes_of(p), len(p)
    lowest = splat(least)
    for start in range(0, pixels, lanes):
        i = min(start, pixels - lanes)  # a last vector is moved back to end with the pixels
        v = load(p, i)
        store(out, i, splat(factor) * log(where_greater(v, lowest, v, lowest)))


@_jit
def softmax(scores, count, pixels, out):
    """Probabilities of flat planes of scores; of a single one, of it and of 0 before it."""
    lanes = lanes_of(scores)
    nothing, one = splat(scores.dtype.type(0)), splat(scores.dtype.type(1))
    t = np.empty(count * lanes, scores.dtype)
    for start in range(0, pixels, lanes):
        i = min(start, pixels - lanes)
        best = load(scores, i)
        if count == 1:
            # exp of what is negative: it cannot overflow, and the small one keeps its digits
            small = exp(where_greater(best, nothing, nothing - best, best))
            large = one / (one + small)
            small = small * large
            store(out, i, where_greater(best, nothing, small, large))
            store(out, pixels + i, where_greater(best, nothing, large, small))
            continue
        for j in range(1, count):
            v = load(scores, j * pixels + i)
            best = where_greater(v, best, v, best)
        total = nothing
        for j in range(count):
            v = exp(load(scores, j * pixels + i) - best)
            total = total + v
            store(t, j * lanes, v)
        for j in range(count):
            store(out, j * pixels + i, load(t, j * lanes) / total)
