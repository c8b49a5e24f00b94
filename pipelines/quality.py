"""How good labels are: ours by default beside what else is in use, on real images.

``python pipelines/quality.py --data DIR`` fits every method to every set with every seed, judges it
on images that nothing was chosen by, and prints the tables. Each of these cells is a file in the
output folder: a second start goes on with what is missing. ``--table`` makes tables of the cells
that are there, and ``--write docs/quality.md`` puts them on the page.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time as clock
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from support import datasets, judging, perturbed, quality_page, rivals, strokes
from support.datasets import SETS, Loaded, Set
from support.rivals import FULL, SMALL, Effort, Method, Problem
from support.sections import folds_of, say
from threadpoolctl import threadpool_limits

ROOT = Path(__file__).parents[1]
# what of a recipe is not by default; others may be measured beside it
VARIANTS: dict[str, dict[str, Any]] = {"ours": {}}
# where segments are compared
SEGMENTS, OURS_SEGMENTS = "Gaussian for segments", "ours for segments"
METHODS: dict[str, Method] = {
    "none": rivals.filtered("none"),
    "Gaussian": rivals.filtered("Gaussian"),
    SEGMENTS: rivals.for_segments,
    "graph cut": rivals.graph_cut,
    "dense CRF": rivals.dense_crf,
    "forest": rivals.forest,
    "U-Net": rivals.small_unet,
    **{name: rivals.ours(options) for name, options in VARIANTS.items()},
    OURS_SEGMENTS: rivals.ours({"boundary": "membrane"}),
}
STROKED: dict[str, Method] = {
    "forest": rivals.plain("forest"),
    "classifier": rivals.plain("classifier"),
    **{name: METHODS[name] for name in VARIANTS},
}
DENSITIES, DRAWN = (0.2, 1.5, 10), ("equal", "proportional")
STROKES = tuple(
    f"strokes-{key}-{density}-{drawn}"
    for key, density, drawn in itertools.product(("isbi", "stained", "vnc"), DENSITIES, DRAWN)
)
IMAGES = 3  # that have strokes


@dataclass(frozen=True)
class Case:
    """A set as it is given to methods: labeled throughout, or on strokes alone."""

    key: str
    data: Path
    effort: Effort

    @property
    def stroked(self) -> bool:
        """Whether there are labels on strokes alone."""
        return self.key in STROKES

    @property
    def set(self) -> Set:
        """Its images."""
        return SETS[self.key.split("-")[1] if self.stroked else self.key]

    @property
    def methods(self) -> dict[str, Method]:
        """What is compared on it."""
        if self.stroked:
            return STROKED
        special = () if self.set.segments else (SEGMENTS, OURS_SEGMENTS)
        return {n: m for n, m in METHODS.items() if n not in special}

    def load(self, seed: int) -> Loaded:
        """The images, and the labels that methods get with this seed."""
        whole = _load(self.set.title, self.data, self.effort.edge, self.effort.images)
        if not self.stroked:
            return whole
        _, _, density, drawn = self.key.split("-")
        chosen = np.linspace(0, whole.training - 1, min(IMAGES, whole.training)).round().astype(int)
        judged = range(whole.training, len(whole.images))
        kept = [*map(int, chosen), *judged]
        labels = [
            strokes.draw(whole.labels[n], float(density) / 100, drawn == "equal", [seed, n])
            for n in chosen
        ]
        return replace(
            whole,
            names=[whole.names[n] for n in kept],
            images=[whole.images[n] for n in kept],
            labels=[*labels, *(whole.labels[n] for n in judged)],
            training=len(chosen),
            folds=folds_of(len(chosen)),
        )


@lru_cache(maxsize=1)  # one set after the other
def _load(title: str, data: Path, edge: int, most: int) -> Loaded:
    """The images of the set with this title."""
    say(f"{title}: reading")
    one = next(one for one in SETS.values() if one.title == title)
    return datasets.load(one, data, edge, most)


def settings(case: Case) -> dict[str, Any]:
    """What cells of a set depend on, as JSON."""
    one = case.set
    about = {"classes": one.classes, "image": one.image, "effort": asdict(case.effort)}
    found: dict[str, Any] = json.loads(json.dumps(about))
    return found


def write(path: Path, value: Any) -> None:
    """JSON, whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(value) + "\n")
    partial.replace(path)


def cell(case: Case, method: str, seed: int, kept: Path) -> dict[str, Any]:
    """Fit a method, judge it, and keep its labels of the first judged image."""
    loaded = case.load(seed)
    classes = list(case.set.classes)
    between = classes.index(case.set.thin[0]) + 1 if case.set.segments else 0
    problem = Problem(loaded, classes, seed, case.effort, kept)
    started = clock.perf_counter()
    try:
        ready = case.methods[method](problem)
    except ImportError as error:
        return {"method": method, "seed": seed, "missing": f"{error.name} is not installed"}
    tuning = clock.perf_counter() - started
    rows, spent, area = [], 0.0, 0
    for number in range(loaded.training, len(loaded.images)):
        with threadpool_limits(1):
            before = clock.process_time()
            labels, p = ready.label(number)
            spent += clock.process_time() - before
        truth = loaded.labels[number]
        area += truth.size
        row = judging.numbers(labels, p, truth, len(classes), between)
        rows.append({"name": loaded.names[number]} | row)
        if number == loaded.training:
            PIL.Image.fromarray(labels).save(kept / f"{quality_page.stem(method, seed)}.png")
    light = {} if ready.other is None or case.stroked else other_light(loaded, ready.other)
    return {
        "method": method,
        "seed": seed,
        "perturbed": light,
        "error": ready.error,
        "chosen": ready.chosen,
        "tuning": tuning,
        "seconds": ready.before + spent * 1e6 / area,
        "step": loaded.step,
        "images": rows,
    }


def other_light(loaded: Loaded, label: Callable[[np.ndarray], np.ndarray]) -> dict[str, float]:
    """Errors on judged images as they are, and changed in light, stain and focus."""
    numbers = range(loaded.training, len(loaded.images))
    found = {}
    for name, change in perturbed.ways(len(loaded.images[0])).items():
        wrong = known = 0
        for number in numbers:
            truth = loaded.labels[number]
            labels = label(change(loaded.images[number]))
            wrong += int(((labels != truth) & (truth > 0)).sum())
            known += int((truth > 0).sum())
        found[name] = wrong / known
    return found


def wanted(args: argparse.Namespace, case: Case) -> Iterator[tuple[str, int]]:
    """The cells of a set, seed after seed, so that methods share what a seed needs."""
    for seed in range(args.seeds):
        for method in case.methods:
            if args.methods is None or method in args.methods:
                yield method, seed


def run(args: argparse.Namespace, case: Case) -> None:
    """Make the cells of a set that are missing."""
    kept = args.output / case.key
    kept.mkdir(parents=True, exist_ok=True)
    note, about = kept / "settings.json", settings(case)
    if note.exists() and json.loads(note.read_text()) != about:
        raise SystemExit(f"{kept}: made with other settings; remove it or choose another --output")
    write(note, about)
    for method, seed in wanted(args, case):
        file = kept / f"{quality_page.stem(method, seed)}.json"
        if file.exists() and "missing" not in json.loads(file.read_text()):
            continue
        say(f"{case.key}: {method}, seed {seed}")
        found = cell(case, method, seed, kept)
        write(file, found)
        if "missing" in found:
            say(f"  left out: {found['missing']}")
            continue
        errors = [row["error"] for row in found["images"]]
        say(f"  judged {100 * np.mean(errors):.3f} %, {found['tuning']:.0f} s")


def collect(
    output: Path, wanted: Mapping[str, Iterable[str]]
) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """All cells that are there, by set and method, of these methods of each set."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for key, methods in wanted.items():
        for method in methods:
            files = sorted((output / key).glob(f"{quality_page.stem(method, 0)[:-1]}[0-9]*.json"))
            cells = [json.loads(file.read_text()) for file in files]
            if cells:
                found.setdefault(key, {})[method] = cells
    return found


def draw(case: Case, output: Path) -> None:
    """The picture of a set, where its images are there."""
    kept = output / case.key
    if any(kept.glob("*.png")) and datasets.first_of(case.set, case.data).exists():
        quality_page.draw(
            case.set, case.load(0), kept, list(case.methods), output / f"{case.key}.png"
        )


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    default = Path(os.environ.get("TILEDLAF_DATA", ROOT.parent / "shared" / "data"))
    known = [*SETS, *STROKES]
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, default=default, help=f"folder ({default})")
    parser.add_argument("--output", type=Path, default=Path("quality"), help="folder (quality)")
    parser.add_argument(
        "--sets", help=f"of {','.join(SETS)},strokes, or a name such as {STROKES[0]} (all)"
    )
    parser.add_argument("--methods", help=f"of {','.join(dict.fromkeys([*METHODS, *STROKED]))}")
    parser.add_argument("--seeds", type=int, help="how many (3; with --small 1)")
    parser.add_argument("--small", action="store_true", help="thinned images, few steps: seconds")
    parser.add_argument("--table", action="store_true", help="only tables of the cells there are")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="page to put the tables on")
    args = parser.parse_args(argv)
    given = args.sets.split(",") if args.sets else known
    args.keys = [k for name in given for k in (STROKES if name == "strokes" else [name])]
    args.seeds = args.seeds or (1 if args.small else 3)
    for key in args.keys:
        if key not in known:
            parser.error(f"--sets: expected some of {', '.join(known)}, strokes, got {key}")
    if args.methods is not None:
        args.methods = args.methods.split(",")
        for name in args.methods:
            if name not in METHODS and name not in STROKED:
                parser.error(f"--methods: expected some of {', '.join(METHODS)}, got {name}")
    for key in [] if args.table else args.keys:
        first = datasets.first_of(Case(key, args.data, FULL).set, args.data)
        if not first.exists():
            parser.error(f"--data: expected images such as {first}, which is missing")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    """Make the cells that are missing, and the tables of all."""
    args = parse(argv)
    effort = SMALL if args.small else FULL
    cases = [Case(key, args.data, effort) for key in args.keys]
    if not args.table:
        for case in cases:
            run(args, case)
    keys = [key for key in (*SETS, *STROKES) if key in args.keys]
    found = collect(args.output, {k: STROKED if k in STROKES else METHODS for k in keys})
    for case in cases:
        if case.key in found:
            draw(case, args.output)
    command = "python pipelines/quality.py --data DIR" + (" --small" if args.small else "")
    made = quality_page.page(found, command)
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "table.md").write_text(made + "\n")
    if args.write:
        quality_page.insert(args.write, made)
    print(made)


if __name__ == "__main__":
    main()
