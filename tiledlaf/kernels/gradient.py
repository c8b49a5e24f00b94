"""The compiled chains and local products of the gradient: explicit vectors over flat planes.

A neighbor lies a fixed number of pixels away in the flat plane. What a pixel beside the border
finds there belongs to another row or label, and its weight is 0.
"""

from __future__ import annotations

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

_jit = njit(nogil=True, cache=True, error_model="numpy")


@_jit
def step(w, s, u, new, totals, factors, steps, guard, size, labels, block):
    """u <- R_S Omega u, added to each total with its factor.

    Planes are `size` numbers long; `u` and `new` have `guard` numbers before and after them.
    """
    lanes, count, part = lanes_of(s), len(labels), len(block)
    t = registers(s, labels)
    for i in range(0, size, lanes):
        dot = splat(s.dtype.type(0))
        for first in range(0, count, part):
            j = min(first, count - part)
            mean = zeros(s, block)
            for k in range(len(steps)):
                p = guard + i + steps[k] + j * size
                mean = fma(load(w, k * size + i), load_each(u, p, size, block), mean)
            store_each(t, j * lanes, lanes, mean)
        for j in range(count):
            dot = fma(load(s, j * size + i), load(t, j * lanes), dot)
        for j in range(count):
            value = load(s, j * size + i) * (load(t, j * lanes) - dot)
            store(new, guard + j * size + i, value)
            for r in range(len(factors)):
                at = (r * count + j) * size + i
                store(totals, at, fma(splat(factors[r]), value, load(totals, at)))


@_jit
def products(w, s, q, p, z, h, out, steps, terms, guard, size, labels, block, neighbors):
    """R_Omega dL/dOmega, from flat planes; `q` and `z` have `guard` numbers around them."""
    lanes, count, part, many = lanes_of(s), len(labels), len(block), len(steps)
    nothing = splat(s.dtype.type(0))
    e = registers(s, neighbors)
    x = registers(s, labels)
    total = registers(s, labels)
    for i in range(0, size, lanes):
        for k in range(many):
            store(e, k * lanes, nothing)
        for j in range(count):
            store(total, j * lanes, load(h, j * size + i))
        for r in range(terms):
            inside, along = nothing, nothing
            for first in range(0, count, part):
                # the last block is moved back: what it has met before counts once
                j = min(first, count - part)
                again = first - j
                a = load_each(p, (r * count + j) * size + i, size, block)
                mean = zeros(s, block)
                for k in range(many):
                    at = guard + (r * count + j) * size + i + steps[k]
                    there = load_each(z, at, size, block)
                    mean = fma(load(w, k * size + i), there, mean)
                    if again == 0:
                        store(e, k * lanes, inner(a, there, load(e, k * lanes)))
                    else:
                        value = load(e, k * lanes)
                        for m in range(again, part):
                            one = load(p, (r * count + j + m) * size + i)
                            value = fma(one, load(z, at + m * size), value)
                        store(e, k * lanes, value)
                store_each(x, j * lanes, lanes, mean)
            for j in range(count):
                mean = load(x, j * lanes)
                inside = fma(load(s, j * size + i), mean, inside)
                along = fma(load(p, (r * count + j) * size + i), mean, along)
            for j in range(count):
                value = load(p, (r * count + j) * size + i) * (load(x, j * lanes) - inside)
                value = value - load(s, j * size + i) * along
                store(total, j * lanes, load(total, j * lanes) + value)
        mean = nothing
        for k in range(many):
            value = load(e, k * lanes)
            at = guard + i + steps[k]
            for j in range(count):
                value = fma(load(total, j * lanes), load(q, at + j * size), value)
            store(e, k * lanes, value)
            mean = fma(load(w, k * size + i), value, mean)
        for k in range(many):
            store(out, k * size + i, load(w, k * size + i) * (load(e, k * lanes) - mean))
