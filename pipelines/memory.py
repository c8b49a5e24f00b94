"""Remarks 3.9-3.12: memory of one gradient.

Peak memory of a process while it computes one gradient, above its input (weights and distances,
float32), beside the numbers that a method has to keep for each pixel by its formula, with J labels,
K = 9 neighbors, Krylov dimension m, rank r and n pixels. The paper's low-rank gradient keeps both
Krylov bases and two arrays of weights, 2 m J + 2 K. This program's needs r terms of one factor
alone, since the other is used row by row as it comes: with Z, S, the data and the gradient of the
loss (r + 4) J + K. A Krylov space of the Kronecker sum, which the low rank replaces, keeps m
matrices of n J + 1 rows and columns, and is measured on tiny grids. Automatic differentiation keeps
what it needs of each of its steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from support import experiment, ways
from support.experiment import Claim, Outcome

K = len(ways.BOX)
# terms that the singular values choose at T = 5 (figure 3)
CHOSEN = 3


@dataclass(frozen=True)
class Effort:
    """Edges, labels, m and r that are varied, about a middle; tiny edges for the Kronecker sum."""

    edges: tuple[int, ...] = (128, 256, 512, 1024)
    middle: int = 256
    whole: int = 512
    labels: tuple[int, ...] = (2, 4, 10, 16)
    dims: tuple[int, ...] = (5, 10, 20)
    ranks: tuple[int, ...] = (1, 2, 4, 8)
    tiny: tuple[int, ...] = (8, 12, 16, 24)


def formula(name: str, pixels: int, labels: int, dim: int, rank: int | None) -> int | None:
    """Numbers a method keeps, where there is a formula."""
    return {
        ways.PAPER: pixels * (2 * dim * labels + 2 * K),
        ways.OURS: pixels * (((rank or CHOSEN) + 4) * labels + K),
        ways.KRONECKER: dim * (pixels * labels + 1) ** 2,
    }.get(name)


def measure(name: str, varied: str, edge: int, labels: int, dim: int, rank: int | None) -> Any:
    """A row."""
    found = ways.cost(name, edge, labels, dim, rank, rounds=1)
    # the Kronecker sum's matrices are float64
    size = 8 if name == ways.KRONECKER else 4
    expected = formula(name, edge**2, labels, dim, rank)
    row = {
        "varied": varied,
        "method": name,
        "edge": edge,
        "J": labels,
        "m": dim,
        "r": rank or "",
        "MiB": found.memory,
        "numbers per pixel": found.memory * 2**20 / size / edge**2,
        "formula MiB": expected * size / 2**20 if expected else "",
        "formula, numbers per pixel": expected / edge**2 if expected else "",
    }
    experiment.say(
        f"{name}, {varied}: {edge}, J = {labels}, m = {dim}, r = {rank}: {found.memory:.1f} MiB"
    )
    return row


def run(effort: Effort, figure: Path) -> Outcome:
    """Growth with each parameter."""
    rows = []
    names = ways.available()
    for name in names:
        rank = 1 if name == ways.PAPER else None
        at: Callable[..., Any] = partial(measure, name)
        for edge in effort.edges:
            # automatic differentiation would need 6 to 8 GiB there
            if not (name.startswith("automatic") and edge > effort.whole):
                rows.append(at("size", edge, 10, ways.DIM, rank))
        for labels in effort.labels:
            rows.append(at("J", effort.middle, labels, ways.DIM, rank))
        if name in (ways.PAPER, ways.AD_KRYLOV):
            for dim in effort.dims:
                rows.append(at("m", effort.middle, 10, dim, rank))
    for name in (ways.PAPER, ways.OURS):
        for rank in effort.ranks:
            rows.append(measure(name, "r", effort.middle, 10, ways.DIM, rank))
    for edge in effort.tiny:
        rows.append(measure(ways.KRONECKER, "size", edge, 2, ways.DIM, None))
    draw(rows, figure)
    return Outcome({"memory": rows}, claims(rows, effort))


def claims(rows: list[dict[str, Any]], effort: Effort) -> list[Claim]:
    """Totals at the whole size, and growth."""
    whole = {r["method"]: r for r in rows if r["varied"] == "size" and r["edge"] == effort.whole}
    found = []
    for name, row in whole.items():
        expected = row["formula, numbers per pixel"]
        by_formula = (
            f"{row['formula MiB']:.0f} MiB ({expected:.0f} numbers a pixel)" if expected else ""
        )
        found.append(
            Claim(
                f"{effort.whole} x {effort.whole}, 10 labels, {name}",
                by_formula if name == ways.PAPER else by_formula and f"{by_formula}, our formula",
                f"{row['MiB']:.0f} MiB ({row['numbers per pixel']:.0f})",
                bool(row["numbers per pixel"] < 1.25 * expected) if expected else None,
                TEMPORARY if name == ways.PAPER else "",
            )
        )
    total = ways.DIM * (effort.whole**2 * 10 + 1) ** 2 * 4 / 2**40
    found.append(
        Claim(
            f"{effort.whole} x {effort.whole}, 10 labels, {ways.KRONECKER}, m = {ways.DIM}",
            f"{total:.0f} TiB (m (n J + 1)^2 numbers)",
            "not stored",
            None,
        )
    )
    for varied, name in (("size", ways.PAPER), ("size", ways.OURS), ("size", ways.KRONECKER)):
        power = growth(rows, varied, name)
        wanted = 2.0 if name == ways.KRONECKER else 1.0
        found.append(
            Claim(
                f"{name}: memory grows with the number of pixels to the power",
                f"{wanted:.0f}",
                f"{power:.2f}",
                bool(abs(power - wanted) < 0.2),
            )
        )
    for varied, name, per in (
        ("m", ways.PAPER, 2.0 * 10),
        ("J", ways.PAPER, 2.0 * ways.DIM),
        ("r", ways.PAPER, 0.0),
        ("r", ways.OURS, 10.0),
        ("J", ways.OURS, CHOSEN + 4.0),
    ):
        slope = line(rows, varied, name)
        found.append(
            Claim(
                f"{name}: numbers a pixel that one more {varied} costs",
                f"{per:.0f}" + ("" if name == ways.PAPER else ", our formula"),
                f"{slope:.1f}",
                bool(abs(slope - per) < 0.25 * per),
                RANK
                if varied == "r" and name == ways.PAPER
                else TEMPORARY
                if slope > 1.25 * per
                else "",
            )
        )
    return found


TEMPORARY = (
    "Beside what the formula counts our `Spaces` holds S, the data, the terms of both factors, and "
    "temporary arrays of each orthogonalization, whose inner products are float64: in float32, "
    "orthogonality is lost on large images."
)


RANK = (
    "The paper counts the two bases alone. Of each term `Spaces` makes u, v and sigma u, and R_S u "
    "and z less its last label as they come and as one array: 7 J - 2 numbers."
)


def chosen(rows: list[dict[str, Any]], varied: str, name: str) -> list[dict[str, Any]]:
    """Rows of a method in which this was varied."""
    return [r for r in rows if r["varied"] == varied and r["method"] == name]


def growth(rows: list[dict[str, Any]], varied: str, name: str) -> float:
    """Power of the number of pixels, from the largest two sizes."""
    small, large = chosen(rows, varied, name)[-2:]
    power = np.log(large["MiB"] / small["MiB"]) / np.log((large["edge"] / small["edge"]) ** 2)
    return float(power)


def line(rows: list[dict[str, Any]], varied: str, name: str) -> float:
    """Slope of the numbers per pixel."""
    part = chosen(rows, varied, name)
    found = np.polyfit([r[varied] for r in part], [r["numbers per pixel"] for r in part], 1)
    return float(found[0])


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Growth with size, J, m and r; formulas dotted."""
    figure, axes = experiment.panels(1, 4, 2.3, 2.5)
    named = {ways.PAPER: "low rank: m = 10, r = 1, or as varied"}
    colors = dict(
        zip(
            [ways.AD_EULER, ways.AD_KRYLOV, ways.PAPER, ways.OURS, ways.KRONECKER],
            ("#e69f00", "#009e73", "#d55e00", "black", "#0072b2"),
            strict=True,
        )
    )
    for axis, varied in zip(axes[0], ("size", "J", "m", "r"), strict=True):
        column = "MiB" if varied == "size" else "numbers per pixel"
        other = "formula MiB" if varied == "size" else "formula, numbers per pixel"
        for name, color in colors.items():
            part = chosen(rows, varied, name)
            if not part:
                continue
            places = [r["edge"] ** 2 if varied == "size" else r[varied] for r in part]
            axis.plot(
                places, [r[column] for r in part], "o-", color=color, label=named.get(name, name)
            )
            if part[0][other] != "":
                axis.plot(places, [r[other] for r in part], ":", color=color)
        axis.set(
            yscale="log",
            xscale="log" if varied == "size" else "linear",
            xlabel={"size": "pixels", "J": "labels J", "m": "Krylov dimension m", "r": "rank r"}[
                varied
            ],
            title="peak memory, MiB" if varied == "size" else "numbers a pixel",
        )
        if varied != "size":
            axis.set_ylim(15, 1e4)
    axes[0, 3].plot([], [], ":", color="#555555", label="formula")
    handles = {
        text: handle
        for axis in axes[0][::-1]
        for handle, text in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=3)
    experiment.save(figure, path)


main = experiment.command(
    "memory",
    __doc__,
    run,
    Effort(),
    Effort((128, 192), 128, 192, (2, 10), (5, 10), (1, 4), (8, 12)),
)

if __name__ == "__main__":
    main()
