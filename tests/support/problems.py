"""Small problems of the flow."""

import numpy as np
import oracle

from tiledlaf.flow import stencil

BOX = stencil.box(3, 3)


RINGS = stencil.rings(2, 3)


CORNERS = tuple(o for o in stencil.box(3, 3, 3) if all(o) or not any(o))


# numbers of labels are those of other tests where they can be: each one is compiled
CASES = {
    "one pixel": ((1, 1), BOX, 3, False),
    "row": ((1, 7), BOX, 2, False),
    "box": ((6, 5), BOX, 3, False),
    "masked": ((7, 6), BOX, 3, True),
    "rings": ((8, 7), RINGS, 2, False),
    "rings masked": ((9, 6), RINGS, 3, True),
    "5x5": ((5, 6), stencil.box(5, 5), 8, False),
    # more labels than a block of the kernel holds, in blocks that overlap
    "15 labels": ((3, 4), BOX, 15, False),
    "3-D": ((3, 4, 3), stencil.box(3, 3, 3), 3, False),
    "3-D masked": ((2, 4, 4), CORNERS, 2, True),
    "3-D planes": ((3, 4, 4), stencil.fit(BOX, 3), 2, False),
    "one-sided": ((6, 6), ((0, 0), (0, 2), (-1, 1)), 3, False),
}


def problem(name, dtype, general=False, seed=0):
    """Random weights, distances, W0 and mask of a case."""
    grid, offsets, labels, masked = CASES[name]
    rng = np.random.default_rng(seed)
    mask = rng.random(grid) > 0.3 if masked else None
    weights = oracle.random_weights(offsets, grid, rng, mask).astype(dtype)
    distances = (3 * rng.random((labels, *grid))).astype(dtype)
    w0 = None
    if general:
        w0 = rng.dirichlet(np.ones(labels), grid).transpose(-1, *range(len(grid))).astype(dtype)
        w0 = np.maximum(w0, dtype(1e-3))
        w0 /= w0.sum(axis=0)
    return weights, distances, offsets, w0, mask
