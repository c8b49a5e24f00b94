"""Compiled functions of single pixels: distances, logarithms, probabilities."""

from __future__ import annotations

import numpy as np

from .caching import jit
from .vector import exp, lanes_of, load, log, splat, store, where_greater


@jit
def distances(image, prototypes, factor, out):
    """Squared distances, summed over the channels in order, times a factor; flat planes."""
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


@jit
def logarithm(p, least, factor, out):
    """`factor` log max(p, least)."""
    lanes, pixels = lanes_of(p), len(p)
    lowest = splat(least)
    for start in range(0, pixels, lanes):
        i = min(start, pixels - lanes)  # the last vector is shifted back to end with the pixels
        v = load(p, i)
        store(out, i, splat(factor) * log(where_greater(v, lowest, v, lowest)))


@jit
def softmax(scores, count, pixels, out):
    """Softmax of flat planes of scores; a single plane is preceded by a plane of zeros."""
    lanes = lanes_of(scores)
    nothing, one = splat(scores.dtype.type(0)), splat(scores.dtype.type(1))
    t = np.empty(count * lanes, scores.dtype)
    for start in range(0, pixels, lanes):
        i = min(start, pixels - lanes)
        best = load(scores, i)
        if count == 1:
            # exp of a negative number cannot overflow, and the smaller one keeps its digits
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
