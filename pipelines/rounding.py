"""Figure 1: local rounding and uniform weights.

The label of the nearest color at each pixel, and the linearized assignment flow with uniform
weights on 3 x 3 neighborhoods (T = 5, rho = 1), which averages noise away and thin lines with it:
weights have to be learned. The last column is one step further than the paper's figure, the weights
of this very image after twenty steps of Riemannian descent on the loss (3.4).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradients
import numpy as np
import voronoi
from support import experiment, ways
from support.experiment import Claim, Outcome

from tiledlaf.flow import stencil


@dataclass(frozen=True)
class Effort:
    """Edge and number of the images of each part, and steps of learning."""

    edge: int = voronoi.EDGE
    images: int = 5
    steps: int = 20


def run(effort: Effort, figure: Path) -> Outcome:
    """All images."""
    rows: list[dict[str, Any]] = []
    shown = []
    for scenario in voronoi.SCENARIOS:
        for part, seeds in (("training", voronoi.TRAINING), ("validation", voronoi.VALIDATION)):
            for seed in seeds[: effort.images]:
                picture = scenario.picture(effort.edge, seed)
                uniform = gradients.flow(picture, stencil.uniform(ways.BOX, picture.target.shape))
                learned = gradients.flow(picture, gradients.descend(picture, effort.steps)[0])
                rows.append(
                    {
                        "scenario": scenario.name,
                        "part": part,
                        "seed": seed,
                        "edge": effort.edge,
                        "local %": picture.locally_wrong,
                        "uniform %": picture.wrong(uniform),
                        "learned %": picture.wrong(learned),
                        **missed(scenario, picture, uniform),
                    }
                )
                if (part, seed) == ("training", seeds[0]):
                    shown.append((scenario.name, picture, uniform, learned))
    draw(shown, figure)
    return Outcome({"rounding": rows}, claims(rows))


def missed(
    scenario: voronoi.Scenario, picture: voronoi.Picture, z: np.ndarray
) -> dict[str, float | str]:
    """Percentages of the pixels on lines that are not found, locally and with uniform weights."""
    own = picture.target == 2
    return {
        f"lines missed, {name} %": float(100 * (scores.argmax(axis=0) != 1)[own].mean())
        if scenario is voronoi.LINES
        else ""
        for name, scores in (("local", -picture.distances), ("uniform", z))
    }


def claims(rows: list[dict[str, Any]]) -> list[Claim]:
    """Means over the images."""

    def mean(scenario: voronoi.Scenario, column: str) -> float:
        return float(np.mean([r[column] for r in rows if r["scenario"] == scenario.name]))

    found = []
    for scenario in voronoi.SCENARIOS:
        local, uniform, learned = (
            mean(scenario, f"{c} %") for c in ("local", "uniform", "learned")
        )
        found.append(
            Claim(
                f"{scenario.name}: wrong pixels, local rounding and uniform weights",
                "uniform weights leave errors",
                f"{local:.2f} % and {uniform:.2f} %",
                bool(uniform > 0),
            )
        )
        found.append(
            Claim(
                f"{scenario.name}: wrong pixels with learned weights", "", f"{learned:.3f} %", None
            )
        )
    local, uniform = (mean(voronoi.LINES, f"lines missed, {c} %") for c in ("local", "uniform"))
    found.append(
        Claim(
            "lines: pixels on lines that are missed, local rounding and uniform weights",
            "",
            f"{local:.1f} % and {uniform:.1f} %",
            None,
        )
    )
    return found


def draw(shown: list[tuple[str, voronoi.Picture, np.ndarray, np.ndarray]], path: Path) -> None:
    """A row a scenario."""
    figure, axes = experiment.panels(len(shown), 5, 1.75, 1.9)
    for line, (name, picture, uniform, learned) in zip(axes, shown, strict=True):
        experiment.picture(line[0], picture.shown(), "input")
        line[0].set_ylabel(name)
        experiment.picture(line[1], picture.shown(picture.target), "truth")
        for axis, title, scores in (
            (line[2], "local rounding", -picture.distances),
            (line[3], "uniform weights", uniform),
            (line[4], "learned weights", learned),
        ):
            labels = picture.shown(scores.argmax(axis=0) + 1)
            experiment.picture(axis, labels, f"{title}: {picture.wrong(scores):.2f} %")
    experiment.save(figure, path)


main = experiment.command("rounding", __doc__, run, Effort(), Effort(48, 1))

if __name__ == "__main__":
    main()
