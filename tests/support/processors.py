"""What `test_processors.py` runs for each kind of processor: python processors.py GIVEN FOUND.

GIVEN has the model of a run; FOUND gets the arrays of every kernel, and for which processor they
were compiled. Only what is public is called.
"""

import json
import sys
from pathlib import Path

import numpy as np
from numba import njit

import tiledlaf
from tiledlaf.flow import stencil
from tiledlaf.flow.gradient import linearize
from tiledlaf.kernels import select
from tiledlaf.kernels.compiled.vector import load, store
from tiledlaf.model.features import CONTEXT, RICH
from tiledlaf.model.terms import Prototypes

SHAPE = (60, 70)
NEIGHBORHOODS = {
    "2-D": ((37, 53), stencil.box(3, 3)),
    "rings": ((30, 41), stencil.rings(3, 7)),
    "3-D": ((5, 9, 37), stencil.box(3, 3, 3)),
}


@njit
def _double(x):
    store(x, 0, load(x, 0) + load(x, 0))


def instructions():
    """Which registers a vector of 64 bytes is worked on in: zmm, ymm or xmm, the widest first."""
    _double(np.zeros(16, np.float32))
    text = next(iter(_double.inspect_asm().values()))
    return [name for name in ("zmm", "ymm", "xmm") if f"%{name}" in text]


def uniform(rng, shape, dtype):
    """Random numbers from 0 to 1 by integers alone: equal on every processor."""
    return (rng.integers(0, 1 << 24, shape) / float(1 << 24)).astype(dtype)


def shares(rng, shape, dtype):
    x = rng.integers(1, 1 << 20, shape)
    return (x / x.sum(axis=0)).astype(dtype)


def flows(kernel, labels, dtype, learned):
    """The whole flow, its parts, and in the neighborhoods `learned` its gradient."""
    kernels = select(np.empty(0), kernel)
    for name, (grid, offsets) in NEIGHBORHOODS.items():
        rng = np.random.default_rng(labels)
        weights = shares(rng, (len(offsets), *grid), dtype)
        q = -6 * uniform(rng, (labels, *grid), dtype)
        here = f"{name}, {labels} labels, {np.dtype(dtype).name}: "
        polynomial = tiledlaf.Taylor().polynomial(5.0)
        given = weights, q, offsets, polynomial.coefficients, polynomial.keep, polynomial.scale
        z = kernels.flow(*given)
        yield here + "Z", z
        for part, array in zip(
            ("labels", "confidence", "gap"), kernels.classify(*given), strict=True
        ):
            yield here + part, array
        for part, array in zip(("labels", "confidence", "gap"), kernels.decide(z), strict=True):
            yield f"{here}{part} of Z", array
        yield here + "Euler", kernels.flow(weights, q, offsets, (0.1,) * 9, True, 0.1)
        for part in ("average", "adjoint", "similarity"):
            yield here + part, getattr(kernels, part)(weights, q, offsets)
        target = rng.integers(0, labels + 1, grid)
        aligned = kernels.align(z, target, 0.3, 0.7)
        yield here + "align", aligned
        yield here + "alignment", np.array(kernels.alignment(z, target))
        yield here + "logarithm", kernels.logarithm(shares(rng, (labels, *grid), dtype), 1e-6, 0.7)
        yield here + "softmax", kernels.softmax(q)
        if name not in learned:
            continue
        found = linearize(weights, -q, offsets, time=2.0, kernel=kernel)
        yield here + "linearized Z", found.z
        yield here + "gradient", found.gradient(aligned).tangent


def predictions(kernel, dtype):
    """Weights from features, and the predictor's own gradient."""
    kernels, rng = select(np.empty(0), kernel), np.random.default_rng(1)
    grid, offsets = NEIGHBORHOODS["2-D"]
    features, tangent = uniform(rng, (11, *grid), dtype), uniform(rng, (9, *grid), dtype) - 0.5
    rows = (uniform(rng, shape, np.float64) for shape in ((2, 11), (9, 11), (9, 9)))
    given = features, *rows, 1.3
    valid = stencil.uniform(offsets, grid).astype(dtype)
    yield f"predicted weights, {np.dtype(dtype).name}", kernels.predict(*given, valid)
    learned = kernels.predict_adjoint(*given, tangent)
    for part, found in zip(("anchors", "patches", "sigma"), learned, strict=True):
        yield f"predictor's {part}, {np.dtype(dtype).name}", np.asarray(found)


def runs(model):
    """Data terms, features and labels of whole images."""
    rng = np.random.default_rng(2)
    image = rng.integers(0, 256, (3, *SHAPE)).astype(np.uint8)
    plane = uniform(rng, (1, *SHAPE), np.float32)
    yield "features, context", CONTEXT.compute(plane, plane[:, ::-1])
    yield "features, rich", RICH.compute(plane)
    yield "classifier", model.term.potential(plane, None, 0.8)
    rows = ((10, 200, 30), (220, 40, 90), (90, 90, 90))
    yield "distances", Prototypes(rows, 1e3).potential(image, None, 1.0)
    for name, options in {
        "prototypes": {"prototypes": rows},
        "k-means": {"classes": 3},
        "probabilities": {"probabilities": shares(rng, (3, *SHAPE), np.float32)},
        "integers": {"probabilities": rng.integers(1, 255, (3, *SHAPE)).astype(np.uint8)},
        "Krylov": {"prototypes": rows, "integrator": tiledlaf.Krylov(5)},
    }.items():
        found = tiledlaf.label(image, workers=1, confidence=True, **options)
        for part, array in zip(("labels", "confidence"), found, strict=True):
            yield f"{name}: {part}", array
    found = tiledlaf.label(plane, model=model, confidence=True, workers=1)
    for part, array in zip(("labels", "confidence"), found, strict=True):
        yield f"model: {part}", array


def main(given, found, options):
    options = json.loads(options)
    arrays = {"instructions": np.array(instructions())}
    for kernel in options["kernels"]:
        for dtype in map(np.dtype, options["types"]):
            for labels in options["labels"]:
                found_here = flows(kernel, labels, dtype.type, options["learned"])
                arrays |= {f"{kernel}, {k}": v for k, v in found_here}
            arrays |= {f"{kernel}, {k}": v for k, v in predictions(kernel, dtype.type)}
    if given:
        arrays |= dict(runs(tiledlaf.load(given)))
    with Path(found).open("wb") as file:
        np.savez(file, **{k.replace("/", " "): v for k, v in arrays.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
