"""Figure 5: weights predicted from local features.

A predictor (4.3)-(4.4) with N = 50 prototypes of raw 3 x 3 patches gives each pixel its weights. As
in the paper, prototypes start from k-means on noise-free patches, each with weights that point to
the neighbors of its own label; then 100 steps of Adam on the loss (3.4) of all five noisy training
images change prototypes, weights and scale (rank 1, T = 5, rho = 1). It is judged by the five
validation images, which it has not seen. `AssignmentFlow` is this program's own training, which
starts from noisy patches and keeps the best state: the same predictor in 100 steps, and one with 5
x 5 patches, 100 prototypes and 300 steps. Patches below are drawn as 3 x 3 squares, the more weight
the darker: "estimated" are those of that image and its truth, as in figure 1. "Better than uniform
weights" means: by a tenth of the wrong pixels at least.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradients
import numpy as np
import voronoi
from support import experiment, ways
from support.experiment import Claim, Outcome

from tiledlaf import AssignmentFlow
from tiledlaf.flow import stencil
from tiledlaf.flow.gradient import Polynomials, linearize
from tiledlaf.flow.losses import Cosine
from tiledlaf.flow.optimizers import RATES, Adam
from tiledlaf.kernels.numpy import shifted
from tiledlaf.model import features, predictor
from tiledlaf.model.predictor import Predictor

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
    return float(np.mean([p.wrong(gradients.flow(p, weights_of(model, p))) for p in pictures]))


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
            curve.append(
                {
                    "step": step,
                    "training %": wrong(model, training),
                    "validation %": wrong(model, validation),
                }
            )
        if step == effort.steps:
            break
        flows = [
            linearize(
                weights_of(model, p), p.distances, ways.BOX, time=ways.TIME, way=Polynomials(rank=1)
            )
            for p in training
        ]
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
    training: Sequence[voronoi.Picture],
    validation: Sequence[voronoi.Picture],
    prototypes: int,
    steps: int,
    wide: bool,
) -> float:
    """Percentage of wrong pixels in unseen images after this program's training."""
    flow = AssignmentFlow(
        training[0].prototypes,
        neighborhood="3x3",
        time=ways.TIME,
        prototypes=prototypes,
        steps=steps,
        features=WIDE if wide else features.PATCH,
        patience=steps,
    ).fit([p.image for p in training], [p.target for p in training])
    right = flow.score([p.image for p in validation], [p.target for p in validation])
    return float(100 * (1 - right))


@dataclass(frozen=True, eq=False)
class Trained:
    """All that was learned from a scenario, and its numbers."""

    scenario: voronoi.Scenario
    validation: list[voronoi.Picture]
    model: Predictor
    curve: list[dict[str, float]]
    local: float
    uniform: float
    own: float
    more: float


def learn(scenario: voronoi.Scenario, effort: Effort) -> Trained:
    """Train in all ways."""
    training, validation = (
        scenario.pictures(effort.edge, seeds) for seeds in (voronoi.TRAINING, voronoi.VALIDATION)
    )
    model, curve = train(training, validation, effort)
    local = float(np.mean([p.locally_wrong for p in validation]))
    grid = validation[0].target.shape
    uniform = float(
        np.mean([p.wrong(gradients.flow(p, stencil.uniform(ways.BOX, grid))) for p in validation])
    )
    same = own(training, validation, effort.prototypes, effort.steps, False)
    more = own(training, validation, *effort.more, True)
    return Trained(scenario, validation, model, curve, local, uniform, same, more)


def run(effort: Effort, figure: Path) -> Outcome:
    """Both scenarios."""
    found = []
    for scenario in voronoi.SCENARIOS:
        found.append(learn(scenario, effort))
        experiment.say(f"{scenario.name}: done")
    rows = [{"scenario": t.scenario.name, **row} for t in found for row in t.curve]
    last = [
        {
            "scenario": t.scenario.name,
            "local %": t.local,
            "uniform %": t.uniform,
            "predicted %": t.curve[-1]["validation %"],
            "AssignmentFlow %": t.own,
            "AssignmentFlow, larger %": t.more,
        }
        for t in found
    ]
    draw(found, figure)
    return Outcome({"prediction": rows, "prediction-unseen": last}, claims(last, found, effort))


def claims(last: list[dict[str, Any]], found: list[Trained], effort: Effort) -> list[Claim]:
    """Errors on unseen images."""
    out = []
    for row, trained in zip(last, found, strict=True):
        name, end = row["scenario"], trained.curve[-1]
        out.append(
            Claim(
                f"{name}: wrong pixels of unseen images, local, uniform weights, predicted weights",
                "predicted weights label unseen images well",
                f"{row['local %']:.2f}, {row['uniform %']:.2f}, {row['predicted %']:.2f} %",
                bool(row["predicted %"] < 0.9 * min(row["local %"], row["uniform %"])),
                CELLS if name == "cells" else "",
            )
        )
        best = min(trained.curve, key=lambda r: r["validation %"])
        out.append(
            Claim(
                f"{name}: the same before training, at its best step ({best['step']}) "
                "and at the last",
                "",
                ", ".join(f"{r['validation %']:.2f}" for r in (trained.curve[0], best, end)) + " %",
                None,
            )
        )
        out.append(
            Claim(
                f"{name}: the same with AssignmentFlow, like it (3 x 3, N = {effort.prototypes}, "
                f"{effort.steps} steps) and larger (5 x 5, {effort.more[0]}, {effort.more[1]})",
                "",
                f"{row['AssignmentFlow %']:.2f}, {row['AssignmentFlow, larger %']:.2f} %",
                None,
            )
        )
        out.append(
            Claim(
                f"{name}: wrong pixels of the training images after {effort.steps} steps",
                "",
                f"{end['training %']:.2f} %",
                None,
            )
        )
    return out


CELLS = (
    "Half of the pixels of cells are wrong locally, and a raw 3 x 3 patch with such noise says "
    "little of where an edge is: after some steps the training images are learned at the cost of "
    "the unseen ones, which at the last step are hardly better than with uniform weights. Keeping "
    "the state that is best on an image set aside helps, and larger patches do."
)


def places(picture: voronoi.Picture, count: int = 4, seed: int = 1) -> list[tuple[int, int]]:
    """Pixels on lines, of different directions, away from the border and from each other."""
    inner = np.argwhere(picture.target == 2)
    rng = np.random.default_rng(seed)
    inner = inner[((inner > 4) & (inner < len(picture.target) - 5)).all(axis=1)]
    found: list[tuple[int, int]] = []
    for y, x in rng.permutation(inner):
        if all(abs(y - v) + abs(x - u) > len(picture.target) // 5 for v, u in found):
            found.append((int(y), int(x)))
        if len(found) == count:
            break
    return found


def draw(found: list[Trained], path: Path) -> None:
    """Curves; unseen images; patches."""
    lines = found[0]
    pyplot = experiment.pyplot()
    figure = pyplot.figure(figsize=(8.6, 8.4), layout="constrained")
    above, middle, below = figure.subfigures(3, 1, height_ratios=(1.6, 3.6, 2.3))
    for axis, trained in zip(above.subplots(1, 2), found, strict=True):
        steps = [row["step"] for row in trained.curve]
        for part, color in (("training", "#0072b2"), ("validation", "#d55e00")):
            axis.plot(
                steps,
                [row[f"{part} %"] for row in trained.curve],
                "o-",
                color=color,
                label=f"{part}, predicted weights",
            )
        for value, style, label in (
            (trained.uniform, "--", "validation, uniform weights"),
            (trained.own, "-.", "validation, AssignmentFlow"),
            (trained.more, ":", "validation, AssignmentFlow, larger"),
        ):
            axis.axhline(value, linestyle=style, color="black", linewidth=1, label=label)
        axis.set(
            title=trained.scenario.name,
            xlabel="training step",
            ylabel="wrong pixels, %",
            yscale="log",
        )
        low, high = axis.get_ylim()
        wide = high > 3 * low
        ticks = [t for t in ((0.3, 0.5, 1, 2, 4) if wide else (3, 3.5, 4, 5)) if low <= t <= high]
        axis.set_yticks(ticks, [f"{t:g}" for t in ticks])
        axis.minorticks_off()
    above.legend(*axis.get_legend_handles_labels(), loc="outside right center")
    for line, trained in zip(middle.subplots(len(found), 5), found, strict=True):
        picture = trained.validation[0]
        uniform = stencil.uniform(ways.BOX, picture.target.shape)
        shown = [("input, unseen", picture.shown()), ("truth", picture.shown(picture.target))]
        for title, scores in (
            ("local", -picture.distances),
            ("uniform", gradients.flow(picture, uniform)),
            ("predicted", gradients.flow(picture, weights_of(trained.model, picture))),
        ):
            labels = picture.shown(scores.argmax(axis=0) + 1)
            shown.append((f"{title}: {picture.wrong(scores):.2f} %", labels))
        for axis, (title, pixels) in zip(line, shown, strict=True):
            experiment.picture(axis, pixels, title)
    picture = lines.validation[0]
    predicted = weights_of(lines.model, picture)
    estimated = gradients.descend(picture, 10)[0]
    marked = places(picture)
    axes = below.subplots(2, 2 * len(marked), width_ratios=(1.1, 1) * len(marked))
    for pair, (y, x) in enumerate(marked):
        part = (slice(y - 4, y + 5), slice(x - 4, x + 5))
        for row, pixels in enumerate((picture.shown(picture.target), picture.shown())):
            axis = axes[row, 2 * pair]
            experiment.picture(axis, pixels[part], f"{('truth', 'input')[row]} at {y}, {x}")
            axis.plot([2.5, 5.5, 5.5, 2.5, 2.5], [2.5, 2.5, 5.5, 5.5, 2.5], color="#d55e00")
        for row, (name, weights) in enumerate((("estimated", estimated), ("predicted", predicted))):
            bar = experiment.picture(
                axes[row, 2 * pair + 1],
                weights[:, y, x].reshape(3, 3),
                name,
                cmap="Blues",
                vmin=0,
                vmax=0.5,
            )
    below.colorbar(bar, ax=axes[:, -1], fraction=0.08, label="weight", extend="max")
    experiment.save(figure, path)


main = experiment.command("prediction", __doc__, run, Effort(), Effort(48, 20, 30, (30, 40)))

if __name__ == "__main__":
    main()
