"""Figure 4: influence of the Krylov dimension, the rank and T.

Above, the gradient of one noisy line image (uniform weights, rho = 1, float64) against the exact
one (m = 40): its error over the Krylov dimension m with all ranks, and over the rank r with m = 20
and with fixed coefficients; and the singular values of the core that the rank cuts, for each T.
Below, what is left of that after learning: wrong pixels after 20 steps of AdaMax (rate 0.1), for T
= 5 and T = 20 with two spaces over m (r = 1), and over r (m = 10, and 20 for T = 20); and over T
with two spaces (r = 1) and with fixed coefficients of chosen rank. Some cases at T = 20 get 100.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gradients
import numpy as np
import voronoi
from support import experiment, ways
from support.experiment import Claim, Outcome

from tiledlaf.flow import stencil
from tiledlaf.flow.gradient import Polynomials, Spaces, Way

TIMES = (1.0, 5.0, 10.0, 20.0)
DIMS = (2, 3, 4, 5, 7, 10, 15, 20)
RANKS = (1, 2, 3, 4, 5, 6)
SPACES, FIXED = "two spaces", "fixed coefficients"
FINE = 1e-12  # tolerance of the fixed coefficients' degree
BENT = {5.0: 10, 20.0: 20}  # T at which m and r are varied in learning: m of the varied r


@dataclass(frozen=True)
class Effort:
    """Edge of the images, how many are learned, steps, and steps of some cases at T = 20."""

    edge: int = voronoi.EDGE
    images: int = 2
    steps: int = 20
    long: int = 100
    exact: int = 40


def errors(picture: voronoi.Picture, effort: Effort) -> list[dict[str, Any]]:
    """Of the gradient, for each T, m and r; and singular values."""
    distances = picture.distances.astype(np.float64)
    weights = stencil.uniform(ways.BOX, picture.target.shape).astype(np.float64)
    rows: list[dict[str, Any]] = []
    for time in TIMES:

        def at(way: Way, time: float = time) -> ways.Found:
            return ways.closed(way, weights, distances, picture.target, time)

        exact = at(Spaces(effort.exact))

        def note(what: str, way: str, dim: Any, rank: Any, value: float, t: float = time) -> None:
            rows.append({"what": what, "way": way, "T": t, "m": dim, "r": rank, "value": value})

        for dim in DIMS:
            error = ways.distance(at(Spaces(dim)).tangent, exact.tangent)
            note("gradient error", SPACES, dim, dim, error)
        for rank in RANKS:
            for name, way, dim in (
                (SPACES, Spaces(20, rank=rank), 20),
                (FIXED, Polynomials(FINE, rank=rank), ""),
            ):
                error = ways.distance(at(way).tangent, exact.tangent)
                note("gradient error", name, dim, rank, error)
        for name, found in ((SPACES, exact), (FIXED, at(Polynomials(FINE)))):
            for number, sigma in enumerate(found.singular_values[:10], 1):
                note("singular value", name, "", number, float(sigma / found.singular_values[0]))
    return rows


def learned(pictures: Sequence[voronoi.Picture], effort: Effort) -> list[dict[str, Any]]:
    """Wrong pixels after learning, for each m, r and T."""
    cases: list[tuple[str, Way, Any, Any, float]] = [
        *((SPACES, Spaces(m, rank=1), m, 1, t) for t in (5.0, 20.0) for m in (2, 3, 5, 10, 20)),
        *((SPACES, Spaces(m, rank=r), m, r, t) for t, m in BENT.items() for r in (2, 3, 4)),
        *((SPACES, Spaces(10, rank=1), 10, 1, t) for t in (1.0, 10.0)),
        *((FIXED, Polynomials(), "", "", time) for time in TIMES),
    ]
    rows = []
    for name, way, dim, rank, time in cases:
        curves = np.mean(
            [gradients.learn(p, partial(ways.closed, way), effort.steps, time) for p in pictures],
            axis=0,
        )
        for what, value in (("wrong before %", curves[0, 1]), ("wrong after %", curves[-1, 1])):
            rows.append(
                {"what": what, "way": name, "T": time, "m": dim, "r": rank, "value": float(value)}
            )
    # whether that is a matter of steps
    for dim, rank in ((2, 1), (20, 1), (20, 4)):
        end = np.mean(
            [
                gradients.learn(p, partial(ways.closed, Spaces(dim, rank=rank)), effort.long, 20.0)[
                    -1
                ]
                for p in pictures
            ],
            axis=0,
        )
        for what, value in zip(("long: loss", "long: wrong %"), end, strict=True):
            rows.append(
                {"what": what, "way": SPACES, "T": 20.0, "m": dim, "r": rank, "value": float(value)}
            )
    return rows


def run(effort: Effort, figure: Path) -> Outcome:
    """The tables, together."""
    rows = errors(voronoi.LINES.picture(effort.edge, 0), effort)
    experiment.say("gradients: done")
    rows += learned(voronoi.LINES.pictures(effort.edge, voronoi.TRAINING[: effort.images]), effort)
    draw(rows, figure)
    return Outcome({"spectrum": rows}, claims(rows, effort))


def pick(rows: list[dict[str, Any]], **wanted: Any) -> list[dict[str, Any]]:
    """Rows with these entries."""
    return [r for r in rows if all(r[k] == v for k, v in wanted.items())]


def one(rows: list[dict[str, Any]], **wanted: Any) -> float:
    """The value of the first such row."""
    return float(pick(rows, **wanted)[0]["value"])


def claims(rows: list[dict[str, Any]], effort: Effort) -> list[Claim]:
    """What m, r and T do."""
    error = partial(one, rows, what="gradient error")
    after = partial(one, rows, what="wrong after %")
    small, large = error(way=SPACES, T=5.0, m=5), error(way=SPACES, T=5.0, m=10)
    found = [
        Claim(
            "error of the gradient at T = 5 with m = 5 and m = 10, all ranks",
            "m of 5 to 10 is enough",
            f"{small:.1e} and {large:.1e}",
            bool(small < 0.01 and large < 1e-5),
        ),
        Claim(
            "wrong pixels after learning with m = 2, 3, 5 and 10 (r = 1, T = 5)",
            "m of 5 to 10 is enough",
            listed(after(way=SPACES, T=5.0, m=m, r=1) for m in (2, 3, 5, 10)),
            bool(
                abs(after(way=SPACES, T=5.0, m=5, r=1) - after(way=SPACES, T=5.0, m=10, r=1)) < 0.1
            ),
        ),
        Claim(
            "wrong pixels after learning with r = 1, 2, 3 and 4 (m = 10, T = 5)",
            "r = 1 is enough",
            listed(after(way=SPACES, T=5.0, m=10, r=r) for r in (1, 2, 3, 4)),
            bool(
                abs(after(way=SPACES, T=5.0, m=10, r=1) - after(way=SPACES, T=5.0, m=10, r=4)) < 0.1
            ),
        ),
    ]
    found += [
        Claim(
            "the same at T = 20 with m = 2, 3, 5, 10 and 20 (r = 1)",
            "",
            listed(after(way=SPACES, T=20.0, m=m, r=1) for m in (2, 3, 5, 10, 20)),
            None,
            LONG,
        ),
        Claim(
            "the same at T = 20 with r = 1, 2, 3 and 4 (m = 20)",
            "",
            listed(after(way=SPACES, T=20.0, m=20, r=r) for r in (1, 2, 3, 4)),
            None,
            LONG,
        ),
    ]
    wrong, loss = (
        [one(rows, what=f"long: {what}", m=m, r=r) for m, r in ((2, 1), (20, 1), (20, 4))]
        for what in ("wrong %", "loss")
    )
    found.append(
        Claim(
            f"the same at T = 20 after {effort.long} steps with m = 2, r = 1; m = 20, r = 1; "
            "m = 20, r = 4; and the losses",
            "",
            f"{listed(wrong)}; " + ", ".join(f"{x:.4f}" for x in loss),
            None,
            LONG,
        )
    )
    for time in TIMES:
        sigma = one(rows, what="singular value", way=SPACES, T=time, r=2)
        first, second, third = (error(way=SPACES, T=time, m=20, r=r) for r in (1, 2, 3))
        found.append(
            Claim(
                f"T = {time:g}: second singular value of the first; error of the gradient with "
                "r = 1, 2, 3",
                "singular values decay fast",
                f"{sigma:.1e}; {first:.1e}, {second:.1e}, {third:.1e}",
                bool(sigma < 0.1),
                RANK if time == 20 else "",
            )
        )
    return found


def listed(values: Iterable[float]) -> str:
    """Percentages."""
    return ", ".join(f"{v:.3f}" for v in values) + " %"


LONG = (
    "At T = 20 uniform weights are worse, and twenty steps are not enough: with more of them the "
    "ranks come to the same. A small m gives another, wrong flow, whose labels are right early and "
    "whose loss stays higher."
)
RANK = (
    "With T the second term grows: at T = 20 rank 1 leaves a tenth of the gradient out, which "
    "`rank_tol` of `Spaces` and `Polynomials` notices."
)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Gradients above, learning below."""
    figure, axes = experiment.panels(2, 3, 2.5, 2.1)
    for time, color in zip(TIMES, experiment.COLORS, strict=False):
        label = f"T = {time:g}"
        found = [
            (r["m"], r["value"])
            for r in pick(rows, what="gradient error", T=time)
            if r["m"] == r["r"] and r["way"] == SPACES
        ]
        axes[0, 0].plot(*zip(*found, strict=True), "o-", color=color, label=label)
        for way, style in ((SPACES, "o-"), (FIXED, "s:")):
            part = pick(rows, what="gradient error", T=time, way=way)
            found = [(r["r"], r["value"]) for r in part if r["m"] in (20, "") and r["r"] in RANKS]
            axes[0, 1].plot(*zip(*found, strict=True), style, color=color)
            found = [
                (r["r"], r["value"]) for r in pick(rows, what="singular value", T=time, way=way)
            ]
            axes[0, 2].plot(*zip(*found, strict=True), style, color=color)
    axes[0, 0].set(title="error of the gradient", xlabel="Krylov dimension m (all ranks)")
    axes[0, 1].set(title="error of the gradient", xlabel="rank r")
    axes[0, 2].set(title="singular values, of the first", xlabel="number")
    for axis in axes[0]:
        axis.set(yscale="log", ylim=(1e-13, 3))
    axes[0, 0].legend(loc="upper right")
    for way, style in ((SPACES, "o-"), (FIXED, "s:")):
        axes[0, 2].plot([], [], style, color="black", label=way)
    axes[0, 2].legend(loc="upper right")
    after = partial(pick, rows, what="wrong after %", way=SPACES)
    for time, dim in BENT.items():
        color = experiment.COLORS[TIMES.index(time)]
        found = [(r["m"], r["value"]) for r in after(T=time, r=1)]
        axes[1, 0].plot(*zip(*found, strict=True), "o-", color=color, label=f"T = {time:g}")
        found = [(r["r"], r["value"]) for r in after(T=time, m=dim)]
        axes[1, 1].plot(*zip(*found, strict=True), "o-", color=color)
    axes[1, 0].set(xlabel="Krylov dimension m (r = 1)", ylabel="wrong pixels, %")
    axes[1, 0].legend(loc="upper right")
    axes[1, 1].set(xlabel="rank r")
    for wanted, style, color, label in (
        ({"what": "wrong before %", "way": FIXED}, "^--", "#999999", "uniform weights"),
        (
            {"what": "wrong after %", "way": SPACES, "m": 10, "r": 1},
            "o-",
            "#d55e00",
            "learned: two spaces, r = 1",
        ),
        ({"what": "wrong after %", "way": FIXED}, "s:", "black", "learned: fixed coefficients"),
    ):
        found = sorted((r["T"], r["value"]) for r in pick(rows, **wanted))
        axes[1, 2].plot(*zip(*found, strict=True), style, color=color, label=label)
    axes[1, 2].set(xlabel="T")
    axes[1, 2].legend(loc="lower right")
    for axis in axes[1]:
        axis.set_title("wrong pixels after 20 steps")
        axis.set_yscale("symlog", linthresh=0.01, linscale=0.4)
        axis.set_ylim(-0.002, 100)
        axis.set_yticks([0, 0.01, 0.1, 1, 10], ["0", "0.01", "0.1", "1", "10"])
        axis.minorticks_off()
    experiment.save(figure, path)


main = experiment.command("spectrum", __doc__, run, Effort(), Effort(32, 1, 10, 30, 30))

if __name__ == "__main__":
    main()
