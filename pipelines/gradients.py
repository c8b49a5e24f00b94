"""Figure 2: learning with the closed-form gradient and with automatic differentiation.

Each of the five training images gets its own weights, by AdaMax on the tangent coordinates of the
weights (rate 0.1) from uniform ones, with the gradient of each method: the paper's low-rank one
(two Krylov spaces, m = 10, r = 1), this program's with fixed coefficients, and PyTorch's automatic
differentiation of 20 Euler steps and of the Krylov scheme (m = 10). A method's errors are those of
its own integrator (T = 5, rho = 1). "Riemannian descent" is this program's gradient with the step
(3.7)-(3.8) and its line search. Processor seconds and peak memory are of one gradient of 8
labels at 128 x 128, on one thread, each in a process of its own, memory above its input.
"""

from __future__ import annotations

import time as clock
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import voronoi
from support import experiment, ways
from support.experiment import Claim, Outcome

from tiledlaf import solve
from tiledlaf.flow import stencil
from tiledlaf.flow.losses import Cosine
from tiledlaf.flow.optimizers import AdaMax, Descent

RATE = 0.1
ENOUGH = 0.1  # percent of wrong pixels
RIEMANNIAN = "Riemannian descent"


@dataclass(frozen=True)
class Effort:
    """Edge and number of images, steps; edges at which costs are measured, and of a large image."""

    edge: int = voronoi.EDGE
    images: int = 5
    steps: int = 20
    cost: int = voronoi.EDGE
    rounds: int = 5
    large: int = 512


def softmax(t: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Weights of tangent coordinates, over the valid neighbors."""
    e = np.where(valid, np.exp(t - t.max(axis=0)), 0)
    found: np.ndarray = (e / e.sum(axis=0)).astype(np.float32)
    return found


def learn(
    picture: voronoi.Picture, gradient: ways.Method, steps: int, time: float = ways.TIME
) -> list[tuple[float, float]]:
    """Loss and percentage of wrong pixels before each step of AdaMax and after the last."""
    uniform = stencil.uniform(ways.BOX, picture.target.shape)
    t, optimizer = np.zeros_like(uniform), AdaMax({"t": RATE})
    state, curve = optimizer.init({"t": t}), []
    for step in range(steps + 1):
        weights = softmax(t, uniform > 0)
        found = gradient(weights, picture.distances, picture.target, time)
        curve.append((found.loss, picture.wrong(found.z)))
        if step < steps:
            moved, state = optimizer.update({"t": found.tangent}, state, {"t": t})
            t = moved["t"]
    return curve


def descend(
    picture: voronoi.Picture, steps: int, enough: float = -1.0
) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """Weights by Riemannian descent with line search (3.7)-(3.8), and the same curve.

    Parameters
    ----------
    enough : stops where so many percent are wrong
    """
    weights = stencil.uniform(ways.BOX, picture.target.shape)
    descent, gradient, loss, curve = Descent("exponential"), ways.method(ways.OURS), Cosine(), []
    state = descent.init(weights)

    def evaluate(w: np.ndarray) -> float:
        return loss.value(loss.sums(flow(picture, w), picture.target))

    for step in range(steps + 1):
        found = gradient(weights, picture.distances, picture.target, ways.TIME)
        curve.append((found.loss, picture.wrong(found.z)))
        if step == steps or curve[-1][1] <= enough:
            break
        weights, state, _ = descent.update(found.tangent, state, weights, found.loss, evaluate)
    return weights, curve


def flow(picture: voronoi.Picture, weights: np.ndarray) -> np.ndarray:
    """Z(T), (J, y, x)."""
    return solve(weights, picture.distances, ways.BOX, time=ways.TIME).z


def large(edge: int) -> list[dict[str, Any]]:
    """Seconds until a large image has at most 0.1 % of wrong pixels."""
    rows = []
    for scenario in voronoi.SCENARIOS:
        picture = scenario.picture(edge, 0)
        start = clock.process_time()
        _, curve = descend(picture, 50, ENOUGH)
        rows.append(
            {
                "scenario": scenario.name,
                "edge": edge,
                "steps": len(curve) - 1,
                "seconds": clock.process_time() - start,
                "wrong before %": curve[0][1],
                "wrong after %": curve[-1][1],
            }
        )
    return rows


def run(effort: Effort, figure: Path) -> Outcome:
    """Curves, then costs."""
    names = ways.available()
    curves: dict[tuple[str, float], dict[str, np.ndarray]] = {}
    rows: list[dict[str, Any]] = []
    for scenario in voronoi.SCENARIOS:
        for noise in (scenario.noise, 0.0):
            pictures = scenario.pictures(effort.edge, voronoi.TRAINING[: effort.images], noise)
            for name in [*names, RIEMANNIAN]:
                found = np.mean(
                    [
                        descend(p, effort.steps)[1]
                        if name == RIEMANNIAN
                        else learn(p, ways.method(name), effort.steps)
                        for p in pictures
                    ],
                    axis=0,
                )
                curves.setdefault((scenario.name, noise), {})[name] = found
                experiment.say(f"{scenario.name}, noise {noise:.2f}, {name}: {found[-1, 1]:.3f} %")
                rows += [
                    {
                        "scenario": scenario.name,
                        "noise": round(noise, 4),
                        "method": name,
                        "step": step,
                        "loss": float(loss),
                        "wrong %": float(wrong),
                    }
                    for step, (loss, wrong) in enumerate(found)
                ]
    costs = {name: ways.cost(name, effort.cost, 8, rounds=effort.rounds) for name in names}
    table = [
        {
            "method": name,
            "edge": effort.cost,
            "labels": 8,
            "seconds": cost.seconds,
            "MiB": cost.memory,
            "times ours": cost.seconds / costs[ways.OURS].seconds,
            "memory times ours": cost.memory / costs[ways.OURS].memory,
        }
        for name, cost in costs.items()
    ]
    whole = large(effort.large)
    draw(curves, costs, figure)
    return Outcome(
        {"gradients": rows, "gradients-cost": table, "gradients-large": whole},
        [*claims(curves, table), *claims_large(whole)],
    )


def until(curve: np.ndarray, wrong: float) -> int:
    """Steps until at most so many percent of the pixels are wrong; one more than all: never."""
    below = np.flatnonzero(curve[:, 1] <= wrong)
    return int(below[0]) if len(below) else len(curve)


def claims(
    curves: dict[tuple[str, float], dict[str, np.ndarray]], costs: list[dict[str, Any]]
) -> list[Claim]:
    """Whether all learn alike, and what they cost."""
    found = []
    for (scenario, noise), by_name in curves.items():
        alike = {name: curve for name, curve in by_name.items() if name != RIEMANNIAN}
        ends = [curve[-1, 1] for curve in alike.values()]
        start = by_name[ways.PAPER][0, 1]
        found.append(
            Claim(
                f"{scenario}, {'noisy' if noise else 'noiseless'}: wrong pixels before, and after "
                f"{len(by_name[ways.PAPER]) - 1} steps with each of {len(alike)} gradients",
                "the closed form learns as well as automatic differentiation",
                f"{start:.2f} %; {min(ends):.3f} to {max(ends):.3f} %",
                bool(max(ends) <= 0.1 * start and max(ends) - min(ends) < 0.02)
                if ways.AD_KRYLOV in alike
                else None,
            )
        )
    for name, other in (
        (ways.PAPER, ways.AD_KRYLOV),
        (ways.OURS, ways.AD_KRYLOV),
        (ways.AD_EULER, ways.AD_KRYLOV),
    ):
        pairs = [(c[name], c[other]) for c in curves.values() if name in c and other in c]
        if pairs:
            apart = max(float(abs(a[:, 1] - b[:, 1]).max()) for a, b in pairs)
            found.append(
                Claim(
                    f"wrong pixels, {name} and {other}: largest distance at any step",
                    "",
                    f"{apart:.2f} points",
                    None,
                    EULER if name == ways.AD_EULER else "",
                )
            )
    noisy = [by_name for (_, noise), by_name in curves.items() if noise]
    steps = [
        [until(by_name[name], ENOUGH) for by_name in noisy] for name in (RIEMANNIAN, ways.PAPER)
    ]
    found.append(
        Claim(
            f"steps until {ENOUGH} % are wrong (lines and cells, noisy): Riemannian descent with "
            "line search, and AdaMax",
            "",
            " and ".join(f"{a}, {b}" for a, b in steps),
            None,
            "A step of the line search costs one or more further flows, without their gradients.",
        )
    )
    for row in costs:
        times = f" ({row['times ours']:.0f} and {row['memory times ours']:.1f} times ours)"
        found.append(
            Claim(
                f"time and memory of one gradient: {row['method']}",
                "",
                f"{1000 * row['seconds']:.1f} ms, {row['MiB']:.1f} MiB"
                + times * (row["method"] != ways.OURS),
                None,
                ORTHOGONAL if row["method"] == ways.PAPER else "",
            )
        )
    return found


def claims_large(rows: list[dict[str, Any]]) -> list[Claim]:
    """Seconds, against those of the conference paper (SSVM 2021)."""
    return [
        Claim(
            f"{r['scenario']}, {r['edge']} x {r['edge']}: Riemannian descent until {ENOUGH} % of "
            "the pixels are wrong",
            "less than 10 s for 512 x 512 (the same authors, SSVM 2021)",
            f"{r['seconds']:.1f} s, {r['steps']} steps from {r['wrong before %']:.2f} %",
            bool(r["seconds"] < 10 and r["wrong after %"] <= ENOUGH),
        )
        for r in rows
    ]


ORTHOGONAL = (
    "Most of the time of `Spaces` is orthogonalization, of two spaces and with inner products in "
    "float64; automatic differentiation of the Krylov scheme builds one, in float32. Fixed "
    "coefficients need none."
)
EULER = (
    "Twenty Euler steps are another, coarser flow; learning adapts to it and ends at the same "
    "labels. The closed forms follow the derivative of the Krylov scheme step by step."
)


def draw(
    curves: dict[tuple[str, float], dict[str, np.ndarray]], costs: dict[str, ways.Cost], path: Path
) -> None:
    """Four panels of curves, two of costs."""
    figure, axes = experiment.panels(2, 3, 2.5, 2.1)
    styles = dict(
        zip(
            [ways.AD_EULER, ways.AD_KRYLOV, ways.PAPER, ways.OURS, RIEMANNIAN],
            [
                ("#e69f00", "-", 5),
                ("#009e73", "-", 3.2),
                ("#d55e00", "-", 1.6),
                ("black", "--", 1),
                ("#0072b2", "-", 1.3),
            ],
            strict=True,
        )
    )
    for axis, ((scenario, noise), by_name) in zip(axes[:, :2].ravel(), curves.items(), strict=True):
        for name, (color, style, width) in styles.items():
            if name in by_name:
                axis.plot(by_name[name][:, 1], style, color=color, linewidth=width, label=name)
        axis.set(
            title=f"{scenario}, {f'noise {noise:.2f}' if noise else 'noiseless'}",
            yscale="symlog",
            ylim=(0, None),
            xlim=(0, None),
        )
        axis.set_yscale("symlog", linthresh=0.01, linscale=0.4)
        axis.set_ylim(-0.002, 2 * max(c[0, 1] for c in by_name.values()))
        axis.set_yticks([0, 0.01, 0.1, 1], ["0", "0.01", "0.1", "1"])
        axis.minorticks_off()
    for axis in axes[:, 0]:
        axis.set_ylabel("wrong pixels, %")
    for axis in axes[1, :2]:
        axis.set_xlabel("training step")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    for axis, title, values in (
        (axes[0, 2], "processor seconds a gradient", [c.seconds for c in costs.values()]),
        (axes[1, 2], "peak memory of a gradient, MiB", [c.memory for c in costs.values()]),
    ):
        places = np.arange(len(costs))[::-1]
        axis.barh(places, values, color=[styles[name][0] for name in costs], height=0.6)
        for place, value in zip(places, values, strict=True):
            axis.text(value, place, f" {experiment.short(value)}", va="center", fontsize=7)
        axis.set(yticks=places, xscale="log", title=title, xlim=(min(values) / 3, 6 * max(values)))
        axis.set_yticklabels([n.replace(": ", ":\n") for n in costs])
    experiment.save(figure, path)


main = experiment.command("gradients", __doc__, run, Effort(), Effort(40, 1, 15, 64, 2, 64))

if __name__ == "__main__":
    main()
