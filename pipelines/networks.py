"""How good networks are, and what the flow and trees add to them, on real images.

``python pipelines/networks.py --data DIR`` learns a network and trees from every set with every
seed, and judges them, filters and flows on images that nothing was chosen by. Each of these cells
is a file in the output folder: a second start goes on with what is missing. ``--table`` makes the
tables and the plot of the cells that are there, ``--write docs/networks.md`` puts them on the page.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import quality
from support import datasets, endtoend, judging, learned, quality_page, rivals
from support.datasets import SETS
from support.quality_page import markdown, text
from support.rivals import FULL, Effort, Method

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- networks.py: begin -->", "<!-- networks.py: end -->"
none, cut = rivals.filtered("none"), rivals.graph_cut
METHODS: dict[str, Method] = {
    "trees": learned.of("trees", none),
    "trees, flow": learned.of("trees", learned.flow),
    "network": learned.of("network", none),
    "network, flips": learned.of("flips", none),
    "network, Gaussian": learned.of("network", rivals.filtered("Gaussian")),
    "network, graph cut": learned.of("network", cut),
    "network, flow": learned.of("network", learned.flow),
    "both": learned.of("both", none),
    "both, flow": learned.of("both", learned.flow),
    **{name: endtoend.end_to_end(way) for name, way in endtoend.WAYS.items()},
}
MARKS = "osD^v<>PX*"  # of the plot
FIRST = "network"  # with which all others are compared
SMALL = Effort(128, 4, 6_000, 0.02, False, {"steps": 3, "predictor_size": 4, "network_steps": 8})


@dataclass(frozen=True)
class Case(quality.Case):
    """A set of images that are labeled throughout."""

    @property
    def methods(self) -> dict[str, Method]:
        """What is compared on it."""
        return METHODS


def rows_of(key: str, cells: Mapping[str, Sequence[judging.Cell]]) -> list[list[str]]:
    """The table of a set."""
    one = SETS[key]
    many = len(one.classes) > 2
    head = ["method", "error %", "F1 " + " or ".join(one.thin), *(["mean F1"] if many else [])]
    rows = [[*head, f"error minus {FIRST}", "ECE %", "training, s/Mpx", "labeling, s/Mpx", "seeds"]]
    for name, own in cells.items():
        about = judging.summary(own, quality_page.groups(one))
        other = quality_page.points(judging.paired(own, cells.get(FIRST, ())))
        rows.append(
            [
                name,
                text(about.error, 2),
                text(about.thin, 3),
                *([text(sum(about.classes) / len(about.classes), 3)] if many else []),
                "" if name == FIRST else str(other),
                text(about.calibration, 1),
                text(training(own), 0),
                text(about.seconds, 2),
                str(about.seeds),
            ]
        )
    return rows


def training(cells: Sequence[judging.Cell]) -> float:
    """Seconds of all processors that learning took, for each megapixel that was learned from.

    NaN of methods that do not say it.
    """
    return sum(one["chosen"].get("training", math.nan) for one in cells) / len(cells)


def page(found: quality_page.Found, command: str) -> str:
    """What stands between the markers."""
    lines = [BEGIN, "", f"Made by `{command}`.", ""]
    for key, cells in found.items():
        count = len(next(iter(cells.values()))[0]["images"])
        lines += [f"### {SETS[key].title}", "", f"{count} judged images.", ""]
        lines += [*markdown(rows_of(key, cells)), ""]
    return "\n".join([*lines, END])


def plot(found: quality_page.Found, path: Path) -> None:
    """Errors against what training and labeling cost, of each set."""
    try:
        import matplotlib
    except ImportError:
        quality.say("no plot: matplotlib is not installed")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    figure, axes = pyplot.subplots(
        len(found), 2, figsize=(11, 4 * len(found)), squeeze=False, layout="constrained"
    )
    for row, (key, cells) in zip(axes, found.items(), strict=True):
        about = {
            name: judging.summary(own, quality_page.groups(SETS[key]))
            for name, own in cells.items()
        }
        costs = [
            ("training", {name: training(own) for name, own in cells.items()}),
            ("labeling", {name: one.seconds for name, one in about.items()}),
        ]
        for axis, (what, spent) in zip(row, costs, strict=True):
            for number, (name, one) in enumerate(about.items()):
                axis.plot(spent[name], one.error, MARKS[number % len(MARKS)], label=name)
            axis.set(xscale="log", xlabel=f"{what}, CPU seconds a megapixel", ylabel="error, %")
            axis.xaxis.set_minor_formatter(ticker.NullFormatter())  # they would overlap
            axis.set_title(SETS[key].title)
            axis.margins(0.2)
        row[1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    default = Path(os.environ.get("TILEDLAF_DATA", ROOT.parent / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, default=default, help=f"folder ({default})")
    parser.add_argument("--output", type=Path, default=Path("networks"), help="folder (networks)")
    parser.add_argument("--sets", help=f"of {','.join(SETS)} (all)")
    parser.add_argument("--methods", help=f"of {'|'.join(METHODS)}, with | between them")
    parser.add_argument("--seeds", type=int, help="how many (3; with --small 1)")
    parser.add_argument(
        "--minutes", type=float, help=f"of all processors, for each network ({FULL.minutes:g})"
    )
    parser.add_argument("--small", action="store_true", help="thinned images, few steps: seconds")
    parser.add_argument("--table", action="store_true", help="only tables of the cells there are")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="page to put the tables on")
    args = parser.parse_args(argv)
    args.keys = args.sets.split(",") if args.sets else list(SETS)
    args.methods = None if args.methods is None else args.methods.split("|")
    args.seeds = args.seeds or (1 if args.small else 3)
    for given, known in ((args.keys, SETS), (args.methods or [], METHODS)):
        for name in given:
            if name not in known:
                parser.error(f"expected some of {', '.join(known)}, got {name}")
    for key in [] if args.table else args.keys:
        first = datasets.first_of(SETS[key], args.data)
        if not first.exists():
            parser.error(f"--data: expected images such as {first}, which is missing")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Make the cells that are missing, and the tables of all."""
    args = parse(argv)
    effort = SMALL if args.small else FULL
    if args.minutes is not None:
        effort = replace(effort, minutes=args.minutes)
    cases = [Case(key, args.data, effort) for key in args.keys]
    if not args.table:
        for case in cases:
            quality.run(args, case)
    found = quality.collect(args.output, {case.key: METHODS for case in cases})
    args.output.mkdir(parents=True, exist_ok=True)
    for case in cases:
        if case.key in found:
            quality.draw(case, args.output)
    if found:
        plot(found, args.output / "costs.png")
    command = "python pipelines/networks.py --data DIR" + (" --small" if args.small else "")
    made = page(found, command)
    (args.output / "table.md").write_text(made + "\n")
    if args.write:
        quality_page.insert(args.write, made, BEGIN, END)
    print(made)


if __name__ == "__main__":
    main()
