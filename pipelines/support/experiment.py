"""What the paper's experiments share: their command line, tables, figures, and one page of all.

An experiment is a module with a docstring (its title, and what it does) and a function that
measures, draws a figure and returns an `Outcome`. `command` makes its command line of that: it
leaves NAME.csv, NAME.png and NAME.json in a folder, and writes the folder's README.md anew from
all experiments that are there.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import time as clock
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# in the order of the page
NAMES = ("voronoi", "rounding", "gradients", "cosine", "spectrum", "prediction", "memory")
LARGEST = 320_000
# blue, vermilion, green, purple, orange, sky, black: told apart without color vision, too
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


@dataclass(frozen=True)
class Claim:
    """A statement, and what was measured.

    Attributes
    ----------
    what : is measured
    paper : what the paper says of it; nothing where it does not
    here : the figure
    holds : whether it is as the paper, or as the goal, has it; None: just told
    why : it differs, or how the program does better
    """

    what: str
    paper: str
    here: str
    holds: bool | None
    why: str = ""


@dataclass(frozen=True)
class Outcome:
    """Tables by name, rows of the same columns each, and what they say."""

    tables: Mapping[str, Sequence[Mapping[str, Any]]]
    claims: Sequence[Claim]


def say(text: str) -> None:
    """One line, at once."""
    print(text, flush=True)


def command(
    name: str, doc: str | None, run: Callable[[Any, Path], Outcome], full: Any, small: Any
) -> Callable[[Sequence[str] | None], None]:
    """The command line of an experiment with these two efforts."""
    assert doc is not None
    title, text = doc.strip().split("\n\n", 1)

    def main(argv: Sequence[str] | None = None) -> None:
        parser = argparse.ArgumentParser(description=title)
        parser.add_argument("--small", action="store_true", help="tiny images: seconds")
        parser.add_argument("--output", type=Path, default=Path("paper"), help="folder (paper)")
        args = parser.parse_args(argv)
        args.output.mkdir(parents=True, exist_ok=True)
        started = clock.perf_counter()
        outcome = run(small if args.small else full, args.output / f"{name}.png")
        for table, rows in outcome.tables.items():
            write(rows, args.output / f"{table}.csv")
        record = {
            "title": title,
            "text": text,
            "small": args.small,
            "seconds": round(clock.perf_counter() - started),
            "tables": list(outcome.tables),
            "claims": [asdict(c) for c in outcome.claims],
        }
        (args.output / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
        write_page(args.output)
        for claim in outcome.claims:
            mark = "" if claim.holds is None else "yes: " if claim.holds else "NO: "
            say(f"{mark}{claim.what}: {claim.here}" + (claim.paper and f" (paper: {claim.paper})"))

    return main


def write(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A table as CSV; floats with six digits."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})


HEAD = """# The paper's experiments

A. Zeilmann, S. Petra, C. Schnörr, *Learning Linearized Assignment Flows for Image Labeling*,
J. Math. Imaging Vis. 65, 164-184 (2023): each experiment, run by this program. The column "paper"
says in our words what the paper states; where it is empty the figure is ours alone. "as stated"
compares with the paper, or with the goal that is named.

Where the program does better than the paper's method: figure 2 (time and memory of a gradient,
steps until labels are right), figure 3 (the direction at every pixel, by a rank that is chosen),
figure 5 (its own training on cells; on lines it is as good), and memory (the last section).
Formulas, the functions that compute them and their tests: [python.md](../python.md#formulas).
Pictures of what a model has learned: `tiledlaf explain MODEL [IMAGE]`.

All of it: `pip install '.[paper]' && python pipelines/paper.py --output DIR` ({seconds} s on
{cores} cores). The times of a gradient are those of the processor.
"""


def write_page(folder: Path) -> None:
    """README.md of all experiments that are there."""
    files = {name: folder / f"{name}.json" for name in NAMES}
    records = {name: json.loads(f.read_text()) for name, f in files.items() if f.exists()}
    seconds = sum(record["seconds"] for record in records.values())
    parts = [HEAD.format(seconds=seconds, cores=os.cpu_count())]
    parts += [section(name, record) for name, record in records.items()]
    (folder / "README.md").write_text("\n".join(parts))


def section(name: str, record: Mapping[str, Any]) -> str:
    """One experiment as Markdown."""
    small = " --small" if record["small"] else ""
    tables = ", ".join(f"[{t}.csv]({t}.csv)" for t in record["tables"])
    lines = [
        f"## {record['title'].rstrip('.')}",
        "",
        record["text"].strip(),
        "",
        f"`python pipelines/{name}.py{small} --output DIR` ({record['seconds']} s; {tables})",
        "",
        f"![{record['title'].rstrip('.')}]({name}.png)",
        "",
        "| | paper | here | as stated |",
        "| --- | --- | --- | --- |",
    ]
    notes: list[str] = []
    for claim in record["claims"]:
        mark = {None: "", True: "yes", False: "**no**"}[claim["holds"]]
        if claim["why"]:
            if claim["why"] not in notes:
                notes.append(claim["why"])
            mark = f"{mark} ({notes.index(claim['why']) + 1})".strip()
        lines.append(f"| {claim['what']} | {claim['paper']} | {claim['here']} | {mark} |")
    if notes:
        lines += ["", *(f"{n}. {note}" for n, note in enumerate(notes, 1))]
    return "\n".join([*lines, ""])


def short(value: float) -> str:
    """Two digits, without an exponent."""
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


# figures


def pyplot() -> Any:
    """matplotlib, without a window, in the figures' style."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams.update(
        {
            "font.size": 8,
            "axes.titlesize": 8,
            "axes.labelsize": 8,
            "legend.fontsize": 7,
            "xtick.labelsize": 7,
            "ytick.labelsize": 7,
            "lines.linewidth": 1.3,
            "lines.markersize": 4,
            "axes.grid": False,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "legend.frameon": False,
            "image.interpolation": "nearest",
        }
    )
    return pyplot


def panels(rows: int, columns: int, width: float, height: float, **more: Any) -> tuple[Any, Any]:
    """A figure and its axes, (rows, columns), with the size of each in inches."""
    return pyplot().subplots(
        rows,
        columns,
        figsize=(columns * width, rows * height),
        layout="constrained",
        squeeze=False,
        **more,
    )


def picture(axis: Any, pixels: Any, title: str = "", **more: Any) -> Any:
    """An image without ticks."""
    found = axis.imshow(pixels, **more)
    axis.set(xticks=[], yticks=[], title=title)
    for spine in axis.spines.values():
        spine.set_visible(False)
    return found


def save(figure: Any, path: Path) -> None:
    """A PNG of at most `LARGEST` bytes: noise is large, and is drawn with fewer dots or colors."""
    import PIL.Image

    for dpi, few in ((160, 0), (140, 0), (120, 0), (160, 256), (120, 256), (100, 256), (85, 256)):
        figure.savefig(path, dpi=dpi, facecolor="white")
        with PIL.Image.open(path) as drawn:
            full = drawn.convert("RGB")
        if few:
            full = full.quantize(few, PIL.Image.Quantize.MEDIANCUT, dither=PIL.Image.Dither.NONE)
        full.save(path, optimize=True)
        if path.stat().st_size <= LARGEST:
            break
    pyplot().close(figure)
