"""Figure 5: weights predicted from local features.

A predictor (4.3)-(4.4) with N = 50 prototypes of raw 3 x 3 patches gives each pixel its weights. As
in the paper, prototypes start from k-means on noise-free patches, each with weights that point to
the neighbors of its own label; then 100 steps of Adam on the loss (3.4) of all five noisy training
images change prototypes, weights and scale (rank 1, T = 3, rho = 1). The images it is judged by
were not seen. `AssignmentFlow` is this program's own training: the same predictor in 100 steps, and
with 5 x 5 patches, 100 prototypes and 300 steps; it starts from noisy patches and keeps the best
state.
"""

from __future__ import annotations

import time as clock
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import experiment
import numpy as np
import rounding
import voronoi
import ways
from experiment import Claim, Outcome

from tiledlaf import AssignmentFlow, features, predictor, solve, stencil
from tiledlaf.gradient import Polynomials, linearize
from tiledlaf.kernels.numpy import shifted
from tiledlaf.losses import Cosine
from tiledlaf.optimizers import Adam
from tiledlaf.predictor import Predictor

TIME = 3.0
RATES = {"patches": 0.15, "prototypes": 0.03, "sigma": 0.01}
WIDE = features.Features((("image", "patch", 2, 1, 0),))


@dataclass(frozen=True)
class Effort:
    """Edge of the images, prototypes, steps; and prototypes and steps of the larger training."""

    edge: int = voronoi.EDGE
    prototypes: int = 50
    steps: int = 100
    more: tuple[int, int] = (100, 300)


def agreement(target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether a neighbor has the pixel's label, and whether it is in the image, (n, K) bool."""
    same = np.zeros((len(ways.BOX), *target.shape), bool)
    known = np.zeros_like(same)
    for k, offset in enumerate(ways.BOX):
        here, there = shifted(offset, target.shape)
        same[k][here], known[k][here] = target[here] == target[there], True
    return same.reshape(len(same), -1).T, known.reshape(len(known), -1).T


def first(pictures: Sequence[voronoi.Picture], count: int) -> Predictor:
    """From noise-free patches."""
    rows = [features.PATCH.compute(p.clean) for p in pictures]
    same, known = (
        np.concatenate(part) for part in zip(*(agreement(p.target) for p in pictures), strict=True)
    )
    samples = np.concatenate([r.reshape(len(r), -1).T for r in rows])
    return predictor.initial(features.PATCH, samples, same, known, count, seed=0)


def weights_of(model: Predictor, picture: voronoi.Picture) -> np.ndarray:
    """Predicted weights, (K, y, x)."""
    uniform = stencil.uniform(ways.BOX, picture.target.shape)
    return model.weights(features.PATCH.compute(picture.image), uniform)


def wrong(model: Predictor, pictures: Sequence[voronoi.Picture]) -> float:
    """Mean percentage of wrong pixels."""
    return float(np.mean([
        p.wrong(solve(weights_of(model, p), p.distances, ways.BOX, time=TIME).z) for p in pictures
    ]))  # fmt: skip


def train(
    training: Sequence[voronoi.Picture], validation: Sequence[voronoi.Picture], effort: Effort
) -> tuple[Predictor, list[dict[str, float]]]:
    """The paper's training, and the errors after each so-manyth step."""
    model, loss = first(training, effort.prototypes), Cosine()
    optimizer = Adam(RATES)
    state, curve = optimizer.init(model.parameters), []
    rows = [features.PATCH.compute(p.image) for p in training]
    for step in range(effort.steps + 1):
        if step % max(1, effort.steps // 20) == 0 or step == effort.steps:
            curve.append({
                "step": step, "training %": wrong(model, training),
                "validation %": wrong(model, validation),
            })  # fmt: skip
        if step == effort.steps:
            break
        flows = [
            linearize(weights_of(model, p), p.distances, ways.BOX, time=TIME,
                      way=Polynomials(rank=1))
            for p in training
        ]  # fmt: skip
        sums = np.sum([loss.sums(f.z, p.target) for f, p in zip(flows, training, strict=True)], 0)
        parts = [
            model.gradient(row, flow.gradient(loss.gradient(flow.z, p.target, sums)).tangent)
            for flow, p, row in zip(flows, training, rows, strict=True)
        ]
        total = {key: np.sum([part[key] for part in parts], axis=0) for key in parts[0]}
        moved, state = optimizer.update(total, state, model.parameters)
        model = model.moved(moved)
    return model, curve


def own(
    training: Sequence[voronoi.Picture], validation: Sequence[voronoi.Picture], prototypes: int,
    steps: int, wide: bool,
) -> tuple[Any, float]:  # fmt: skip
    """This program's training, and its percentage of wrong pixels in unseen images."""
    flow = AssignmentFlow(
        training[0].prototypes, neighborhood="3x3", time=TIME, prototypes=prototypes, steps=steps,
        features=WIDE if wide else features.PATCH, patience=steps,
    ).fit([p.image for p in training], [p.target for p in training])  # fmt: skip
    return flow, float(100 * (1 - flow.score([p.image for p in validation],
                                             [p.target for p in validation])))  # fmt: skip
