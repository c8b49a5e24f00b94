"""Small models of each kind."""

import numpy as np
from voronoi import lines

from tiledlaf.flow.stencil import parse
from tiledlaf.model import model as model_file
from tiledlaf.model import terms
from tiledlaf.model import trees as boosting
from tiledlaf.model.classes import Class
from tiledlaf.model.features import CONTEXT, MULTISCALE, PATCH, Features
from tiledlaf.model.predictor import Predictor
from tiledlaf.model.terms import AutoContext, Classified, Probabilities, Prototypes

AROUND = Features((("odds", "patch", 1, 4, 1), ("odds", "hessian", 1.5), ("image", "gaussian", 2)))
CLASSES = (Class("membrane", (0, 32)), Class("inside", (255,)))


def predictor(features, neighbors, seed=1):
    rng = np.random.default_rng(seed)
    count = features.count(1, 1)
    patches = rng.normal(size=(6, neighbors))
    return Predictor(
        features,
        rng.normal(0.4, 0.1, count),
        rng.uniform(0.5, 1, count),
        rng.normal(size=(6, count)),
        patches - patches.mean(axis=1, keepdims=True),
        0.7,
    )


def trees(features=MULTISCALE):
    """A classifier of lines by their pixels."""
    image, truth = lines((100, 100), seed=3)
    rows = features.compute(image[None]).reshape(features.count(1, 0), -1).T
    return boosting.fit(np.ascontiguousarray(rows), truth.ravel().astype(int), 2, iterations=10)


def auto_context():
    """A second classifier on what the first one makes of the same lines."""
    first = Classified(MULTISCALE, trees())
    image, truth = lines((100, 100), seed=3)
    rows = terms.context(first, AROUND, image[None], None, np.arange(image.size)).T
    found = boosting.fit(np.ascontiguousarray(rows), truth.ravel().astype(int), 2, iterations=5)
    return AutoContext(first, AROUND, found)


def make(kind):
    if kind in ("prototypes", "uniform"):
        offsets = parse("3x3", 2)
        weights = predictor(PATCH, 9) if kind == "prototypes" else None
        term = Prototypes(((0.9,), (0.1,)), 0.11)
        return model_file.Model(CLASSES, term, offsets, 1.0, 3.0, 1e-3, 1, weights, (0.02, -0.02))
    offsets = parse("rings:3,7", 2)
    term = Probabilities(2)
    if kind == "classifier":
        term = Classified(MULTISCALE, trees())
    elif kind == "auto-context":
        term = auto_context()
    weights = predictor(CONTEXT, len(offsets))
    bias = (-0.2, 0.2) if kind == "auto-context" else (0.3, -0.3)  # so that lines have both labels
    return model_file.Model(CLASSES, term, offsets, 0.8, 1.0, 1e-3, 1, weights, bias, {"seed": 3})
