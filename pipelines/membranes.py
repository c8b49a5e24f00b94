"""Thin membranes in electron microscopy: learned regularization beside what else is in use.

``python pipelines/membranes.py`` prints one table and leaves it, with pictures, in a folder. All
methods get the same out-of-fold probabilities, and each is tuned on validation sections, its
decision bias included. What is finished is kept there: a second start goes on or prints at once.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import time as clock
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from support.cuts import cut as cut
from support.cuts import strengths as strengths
from support.cuts import tune_cut
from support.filters import FILTERS, RINGS, Tuned, finished, tune_filter
from support.sections import Sections, aligned, folds_of, mapped, read, sample, say
from support.sheets import COLORS, reddened, sheet

from tiledlaf import label as tiledlaf_label
from tiledlaf.model import classes, features
from tiledlaf.model import trees as classifier
from tiledlaf.model.model import Model
from tiledlaf.model.terms import Probabilities
from tiledlaf.pool.opening import open_pool
from tiledlaf.reports import evaluation
from tiledlaf.training import examples
from tiledlaf.training.run import Data, Recipe, train

PIECE = 512  # edge of what a step of learning sees
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Set:
    """Sections with labels, and how they are split.

    Attributes
    ----------
    image, labels : paths below the data folder, with the section's number to fill in
    training, validation, judged : first section and the one after the last
    classes : label values of the truth by name; the first is the thin class
    shown : y, x and edge of the picture's part of the first judged section
    """

    title: str
    image: str
    labels: str
    training: tuple[int, int]
    validation: tuple[int, int]
    judged: tuple[int, int]
    classes: dict[str, tuple[int, ...]]
    shown: tuple[int, int, int]


VNC = Set(
    "VNC membranes",
    "vnc/stack1/raw/{:02d}.tif",
    "vnc/stack1/labels/labels{:08d}.png",
    (0, 9),
    (9, 11),
    (12, 14),
    {"membrane": (0, 32, 64, 96, 128), "other": (159, 191, 223, 255)},
    (320, 320, 320),
)
SETS = {
    "isbi": Set(
        "ISBI 2012",
        "isbi2012/train/image/{}.png",
        "isbi2012/train/label/{}.png",
        (0, 13),
        (13, 16),
        (17, 21),
        {"membrane": (0,), "inside": (255,)},
        (128, 128, 256),
    ),
    "vnc": VNC,
    "vnc5": replace(
        VNC,
        title="VNC, five classes",
        classes={
            "membrane": (0, 32, 64, 96, 128),
            "glia": (159,),
            "mitochondria": (191,),
            "synapse": (223,),
            "inside": (255,),
        },
    ),
}
# with five classes there are five planes of log-odds: fewer features of each
LIGHT = features.Features(
    (
        ("odds", "patch", 0, 1, 0),
        ("odds", "gaussian", 1.5),
        ("odds", "gaussian", 3),
        ("odds", "gaussian", 6),
        ("odds", "hessian", 1.5),
        ("odds", "hessian", 3),
        ("image", "patch", 1, 1, 0),
        ("image", "hessian", 1.5),
    )
)


@dataclass(frozen=True)
class Effort:
    """How much is computed.

    Attributes
    ----------
    edge : sections that are longer are thinned out to every so-manyth pixel
    sections : of each of the three groups at most
    pixels, trees : of both classifiers
    recipe : how weights are learned, where not by default
    fine : whether all parameters of the others are tried, or two of each
    """

    edge: int = 2048
    sections: int = 100
    pixels: int = 150_000
    trees: int = 150
    recipe: dict[str, Any] = field(default_factory=dict)
    fine: bool = True


FULL = Effort()
SMALL = Effort(256, 2, 8_000, 15, {"steps": 10, "predictor_size": 8}, False)


def thinned(pixels: np.ndarray, effort: Effort) -> tuple[slice, ...]:
    """Which pixels of a section are used."""
    return (slice(None, None, -(-max(pixels.shape) // effort.edge)),) * 2


def load(one: Set, data: Path, effort: Effort, kept: Path) -> list[Sections]:
    """Training, validation and judged sections; probabilities come from the folder or go there."""
    groups = [
        list(range(*span))[: effort.sections] for span in (one.training, one.validation, one.judged)
    ]
    numbers = [n for group in groups for n in group]
    planes, truths = [], []
    for number in numbers:
        pixels = read(data / one.image.format(number))
        values = read(data / one.labels.format(number)).astype(int)
        part = thinned(pixels, effort)
        found = [classes.Class(name, group) for name, group in one.classes.items()]
        planes.append(np.ascontiguousarray(pixels[part]))
        truths.append(examples.targets(values[part], found))
    chances = probabilities(planes, truths, len(groups[0]), len(one.classes), effort, kept)
    out, start = [], 0
    for group in groups:
        part = slice(start, start + len(group))
        out.append(Sections(group, planes[part], truths[part], chances[part]))
        start += len(group)
    return out


def probabilities(
    planes: list[np.ndarray],
    truths: list[np.ndarray],
    training: int,
    count: int,
    effort: Effort,
    kept: Path,
) -> list[np.ndarray]:
    """Of a classifier fitted to the other blocks of training sections; of all for the others."""
    file = kept / "probabilities.npz"
    if not file.exists():
        say("  fitting the classifier, block by block")
        rows = mapped(lambda image: features.MULTISCALE.compute(image[None]), planes)
        # neighboring sections resemble each other: whole blocks of them are left out
        folds = np.array(folds_of(training))
        found: list[np.ndarray] = [np.empty(0)] * len(planes)
        for fold in [*dict.fromkeys(folds.tolist()), -1]:
            used = np.flatnonzero(folds != fold)
            drawn = sample(
                [rows[i] for i in used], [truths[i] for i in used], effort.pixels, max(fold, 0)
            )
            trees = classifier.fit(*drawn, count, iterations=effort.trees)
            wanted = range(training, len(planes)) if fold < 0 else np.flatnonzero(folds == fold)
            for i, p in zip(
                wanted, mapped(trees.probabilities, [rows[i] for i in wanted]), strict=True
            ):
                found[i] = np.round(p * 65535).astype(np.uint16)
        partial = file.with_suffix(".partial.npz")
        np.savez_compressed(partial, *found)
        partial.replace(file)
    with np.load(file) as arrays:
        stored = [arrays[f"arr_{i}"] for i in range(len(planes))]
    # the data term's own normalization and clipping, so that all methods have the same log p
    return [np.exp(Probabilities(count).potential(p, None, 1.0)) for p in stored]


def odds_of(p: np.ndarray) -> np.ndarray:
    """Log-odds for features."""
    return features.log_odds(np.log(p))


# what is learned


def context(p: np.ndarray, image: np.ndarray) -> np.ndarray:
    """The features that weights are learned from."""
    return features.CONTEXT.compute(image[None], odds_of(p))


def second(
    training: Sections, left_out: Sequence[Sequence[int]], effort: Effort, seed: int
) -> list[classifier.Trees]:
    """Classifiers on these features, each without some sections."""
    drawn = []
    for number in range(len(training)):  # one after the other: features of all are many
        planes = context(training.probabilities[number], training.images[number])
        drawn.append(
            sample([planes], [training.labels[number]], 2 * effort.pixels // len(training), seed)
        )
    found = []
    for without in left_out:
        x, y = (
            np.concatenate(part)
            for part in zip(*(d for i, d in enumerate(drawn) if i not in without), strict=True)
        )
        count = len(training.probabilities[0])
        found.append(classifier.fit(x, y, count, seed, iterations=effort.trees))
    return found


def again(trees: classifier.Trees, p: np.ndarray, image: np.ndarray) -> np.ndarray:
    """The second classifier's probabilities, clipped as a data term's are."""
    found = trees.probabilities(context(p, image))
    return np.exp(Probabilities(len(found)).potential(found, None, 1.0))


def tune_control(name: str, sections: list[Sections], effort: Effort, seed: int) -> Tuned:
    """A second classifier, on the features that the weights are learned from."""
    (trees,) = second(sections[0], [()], effort, seed)
    return finished(lambda p, image: np.log(again(trees, p, image)), sections[1], {})


def tune_both(
    name: str, one: Set, sections: list[Sections], effort: Effort, seed: int, path: Path
) -> Tuned:
    """Weights learned on a second classifier's probabilities, these out of fold again."""
    training = sections[0]
    folds = folds_of(len(training))
    blocks = [[i for i, f in enumerate(folds) if f == fold] for fold in dict.fromkeys(folds)]
    *parts, whole = second(training, [*blocks, ()], effort, seed)
    chosen = [parts[[i in block for block in blocks].index(True)] for i in range(len(training))]
    given = [
        replace(part, probabilities=mapped(again, trees, part.probabilities, part.images))
        for part, trees in ((training, chosen), (sections[1], [whole] * len(sections[1])))
    ]
    recipe = recipe_of(name, one, effort, seed)
    found = learned(recipe, one, given, path, f"{name}, seed {seed}")
    return replace(found, labels=lambda p, image: found.labels(again(whole, p, image), image))


def pieces(part: Sections, edge: int) -> Sections:
    """Sections cut up, so that steps are small and each sees a part of one section."""
    found = Sections([], [], [], [])
    for row in zip(part.numbers, part.images, part.labels, part.probabilities, strict=True):
        number, image, labels, p = row
        corners = itertools.product(*(range(0, n, min(n, edge)) for n in image.shape))
        for box in ((slice(y, y + edge), slice(x, x + edge)) for y, x in corners):
            found.numbers.append(number)
            found.images.append(image[box])
            found.labels.append(labels[box])
            found.probabilities.append(p[:, *box])
    return found


def recipe_of(name: str, one: Set, effort: Effort, seed: int) -> Recipe:
    """How the weights of a method are learned."""
    found: dict[str, Any] = {"neighborhood": "3x3" if "3x3" in name else RINGS}
    if len(one.classes) > 2:
        found |= {"features": LIGHT, "steps": 200, "time": 2.0}
    return Recipe(**(found | effort.recipe), seed=seed)


def learned(
    recipe: Recipe, one: Set, sections: list[Sections], path: Path | None, note: str
) -> Tuned:
    """LAF with weights that are learned on the training sections."""
    given = [
        examples.pair(part.images, part.labels, part.probabilities)
        for part in (pieces(sections[0], PIECE), sections[1])
    ]
    names = {str(i): name for i, name in enumerate(one.classes, 1)}

    def progress(record: dict[str, Any]) -> None:
        if "validation" in record and "step" in record:
            say(
                f"  {note}: step {record['step']}, loss {record['loss']:.4f}, "
                f"validation {100 * record['validation']:.3f} %, {record['seconds']:.0f} s"
            )

    with open_pool() as pool:
        model = train(
            Data(*given, term="probabilities", names=names), recipe, pool, path, progress=progress
        )
    about = {"steps": model.trained["steps"], "sigma": round(model.predictor.sigma, 4)}
    return Tuned(lambda p, image: labeled(p, image, model), about, float(model.trained["error"]))


def labeled(p: np.ndarray, image: np.ndarray, model: Model) -> np.ndarray:
    """Labels 1..J of a trained model, by one thread."""
    return tiledlaf_label(image, probabilities=p, model=model, workers=1)


ORDER = (
    "none",
    "Gaussian",
    "median",
    "graph cut",
    "LAF uniform",
    "LAF learned 3x3",
    "LAF learned rings",
    "second classifier",
    "second, then LAF",
)
OURS, BOTH = "LAF learned rings", "second, then LAF"
SEEDED = ORDER[5:]


def judge(tuned: Tuned, one: Set, judged: Sections) -> tuple[list[dict[str, Any]], list[Any]]:
    """Numbers of each judged section, and its labels."""
    found = mapped(tuned.labels, judged.probabilities, judged.images)
    names = dict(enumerate(one.classes, 1))
    rows = []
    for number, labels, truth in zip(judged.numbers, found, judged.labels, strict=True):
        about = evaluation.evaluate(
            labels, truth, names=names, values={i: (i,) for i in names}, boundary=names[1]
        )
        rows.append(
            {
                "section": number,
                "error": about.error,
                "confusion": about.confusion.tolist(),
                "rand": about.rand,
            }
        )
    return rows, found


def seconds(tuned: Tuned, p: np.ndarray, image: np.ndarray) -> float:
    """Of one megapixel, by one thread and after a warm-up; the least of three."""
    count = -(-1024 // image.shape[0]) if image.shape[0] >= 512 else 1
    # mirrored, as sections may be smaller than a megapixel
    edges = [(0, (count - 1) * n) for n in image.shape]
    p, image = np.pad(p, [(0, 0), *edges], "symmetric"), np.pad(image, edges, "symmetric")
    tuned.labels(p, image)
    found = []
    for _ in range(3):
        start = clock.perf_counter()
        tuned.labels(p, image)
        found.append(clock.perf_counter() - start)
    return min(found) * 2**20 / image.size


def run(key: str, args: argparse.Namespace, effort: Effort) -> dict[str, list[dict[str, Any]]]:
    """The results of a set, a list of seeds a method; those of earlier starts are taken."""
    one, kept = SETS[key], args.output / key
    kept.mkdir(parents=True, exist_ok=True)
    about = json.loads(json.dumps({"set": asdict(one), "effort": asdict(effort)}))
    note = kept / "settings.json"
    if note.exists() and json.loads(note.read_text()) != about:
        raise SystemExit(f"{kept}: made with other settings; remove it or choose another --output")
    note.write_text(json.dumps(about, indent=1) + "\n")
    sections: list[Sections] = []
    found: dict[str, list[dict[str, Any]]] = {}
    for name in ORDER if len(one.classes) > 2 else [n for n in ORDER if n != BOTH]:
        for seed in range(args.seeds if name in SEEDED else 1):
            stem = name.replace(",", "").replace(" ", "-").lower() + (
                f"-{seed}" if name in SEEDED else ""
            )
            file = kept / f"{stem}.json"
            if not file.exists():
                if not sections:
                    say(f"{one.title}: reading")
                    sections = load(one, args.data, effort, kept)
                started = clock.perf_counter()
                tuned = tune(name, seed, one, sections, effort, kept / f"{stem}.model")
                took = clock.perf_counter() - started
                rows, labels = judge(tuned, one, sections[2])
                record = {
                    "method": name,
                    "seed": seed,
                    "validation": tuned.validation,
                    "chosen": tuned.chosen,
                    "tuning": took,
                    "seconds": seconds(tuned, sections[2].probabilities[0], sections[2].images[0]),
                    "sections": rows,
                }
                PIL.Image.fromarray(labels[0]).save(kept / f"{stem}.png")
                file.write_text(json.dumps(record, indent=1) + "\n")
                say(
                    f"{one.title}, {stem}: validation {100 * tuned.validation:.3f} %, judged "
                    f"{100 * np.mean([r['error'] for r in rows]):.3f} %, {took:.0f} s"
                )
            found.setdefault(name, []).append(json.loads(file.read_text()))
    draw(one, args.data, effort, kept, found, args.output / f"{key}.png")
    return found


def tune(
    name: str, seed: int, one: Set, sections: list[Sections], effort: Effort, path: Path
) -> Tuned:
    """A method with its best parameters."""
    if name in FILTERS:
        return tune_filter(name, sections[1], effort.fine)
    if name == "graph cut":
        # expansions are slow
        return tune_cut(sections[1], effort.fine, 1.0 if len(one.classes) == 2 else 0.5)
    if name == "second classifier":
        return tune_control(name, sections, effort, seed)
    if name == BOTH:
        return tune_both(name, one, sections, effort, seed, path)
    recipe = recipe_of(name, one, effort, seed)
    return learned(recipe, one, sections, path, f"{name}, seed {seed}")


def summary(one: Set, results: list[dict[str, Any]]) -> dict[str, Any]:
    """The numbers of a method: means over the seeds, of all judged pixels together."""
    errors, f1, iou, rand = [], [], [], []
    for result in results:
        table = np.sum([r["confusion"] for r in result["sections"]], axis=0)
        right, either = np.diag(table), table.sum(0) + table.sum(1)
        errors.append(1 - right.sum() / table.sum())
        f1.append(2 * right / np.maximum(either, 1))
        iou.append(np.mean(right / np.maximum(either - right, 1)))
        rand.append(np.mean([r["rand"] for r in result["sections"]]))
    return {
        "error": 100 * np.mean(errors),
        "spread": 100 * (np.max(errors) - np.min(errors)),
        "f1": dict(zip(one.classes, np.mean(f1, axis=0).tolist(), strict=True)),
        "iou": np.mean(iou),
        "rand": np.mean(rand),
        "seconds": np.mean([r["seconds"] for r in results]),
        "validation": 100 * np.mean([r["validation"] for r in results]),
        "sections": 100
        * np.mean([[r["error"] for r in result["sections"]] for result in results], axis=0),
    }


def table(found: dict[str, dict[str, list[dict[str, Any]]]]) -> list[list[str]]:
    """One row a set and method, with a head."""
    classes = list(dict.fromkeys(name for key in found for name in SETS[key].classes))
    head = ["set", "method", "seeds", "error %", "spread", *(f"F1 {name}" for name in classes)]
    rows = [[*head, "mean F1", "mean IoU", "Rand error", "s/Mpx", "validation %"]]
    for key, methods in found.items():
        for name, results in methods.items():
            about = summary(SETS[key], results)
            many = "alpha-expansion" if len(about["f1"]) > 2 else name
            rows.append(
                [
                    key,
                    many if name == "graph cut" else name,
                    str(len(results)),
                    f"{about['error']:.2f}",
                    f"{about['spread']:.2f}",
                    *(f"{about['f1'][c]:.3f}" if c in about["f1"] else "" for c in classes),
                    f"{np.mean(list(about['f1'].values())):.3f}",
                    f"{about['iou']:.3f}",
                    f"{about['rand']:.3f}",
                    f"{about['seconds']:.2f}",
                    f"{about['validation']:.2f}",
                ]
            )
    return rows


def comparison(key: str, methods: dict[str, list[dict[str, Any]]]) -> list[str]:
    """How the learned weights compare with each other method, section by section too."""
    one, thin = SETS[key], next(iter(SETS[key].classes))
    ours, lines = summary(one, methods[OURS]), []
    for name, results in methods.items():
        if name != OURS:
            other = summary(one, results)
            better = int((ours["sections"] <= other["sections"]).sum())
            lines.append(
                f"{key}: {OURS} against {name}: error {ours['error'] - other['error']:+.2f} points,"
                f" F1 {thin} {ours['f1'][thin] - other['f1'][thin]:+.3f}, "
                f"no worse on {better} of {len(ours['sections'])} sections"
            )
    return lines


def draw(
    one: Set, data: Path, effort: Effort, kept: Path, found: dict[str, Any], path: Path
) -> None:
    """Image, truth and each method's labels of a part of the first judged section."""
    number = range(*one.judged)[0]
    pixels, values = (read(data / p.format(number)) for p in (one.image, one.labels))
    truth = examples.targets(
        values.astype(int), [classes.Class(n, v) for n, v in one.classes.items()]
    )
    used = thinned(pixels, effort)
    pixels, truth = pixels[used], truth[used]
    y, x, edge = (n // (used[0].step or 1) for n in one.shown)
    part = (slice(y, y + edge), slice(x, x + edge))
    gray, wanted = pixels[part], truth[part]
    colors = COLORS if len(one.classes) > 2 else COLORS[[0, 1, 5]]
    shown = [("image", np.repeat(gray[..., None], 3, 2)), ("truth", colors[wanted])]
    for name in found:
        stem = name.replace(",", "").replace(" ", "-").lower() + ("-0" if name in SEEDED else "")
        labels = np.asarray(PIL.Image.open(kept / f"{stem}.png"))[part]
        error = 100 * float((labels != wanted)[wanted > 0].mean())
        shown.append((f"{name}: {error:.1f} %", reddened(labels, wanted, colors)))
    legend = [*zip(one.classes, colors[1:].tolist(), strict=True), ("reddened: wrong", [110, 0, 0])]
    sheet(shown, legend).save(path)


def main(argv: Sequence[str] | None = None) -> None:
    """Run all sets and print the table."""
    default = Path(os.environ.get("TILEDLAF_DATA", ROOT.parent / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--small", action="store_true", help="small parts and few steps: seconds")
    parser.add_argument(
        "--data", type=Path, default=default, help=f"folder of isbi2012 and vnc ({default})"
    )
    parser.add_argument("--output", type=Path, default=Path("membranes"), help="folder (membranes)")
    parser.add_argument("--sets", default=",".join(SETS), help=f"of {','.join(SETS)} (all)")
    parser.add_argument("--seeds", type=int, help="of the learned methods (3; with --small 1)")
    args = parser.parse_args(argv)
    args.seeds = args.seeds or (1 if args.small else 3)
    keys = args.sets.split(",")
    for key in keys:
        if key not in SETS:
            parser.error(f"--sets: expected some of {', '.join(SETS)}, got {key}")
        first = args.data / SETS[key].image.format(SETS[key].training[0])
        if not first.exists():
            parser.error(f"--data: expected images such as {first}, which is missing")
    found = {key: run(key, args, SMALL if args.small else FULL) for key in keys}
    rows = table(found)
    with (args.output / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    with (args.output / "sections.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["set", "method", "seed", "section", "error", "Rand error"])
        for key, methods in found.items():
            for name, results in methods.items():
                for result in results:
                    for r in result["sections"]:
                        writer.writerow(
                            [key, name, result["seed"], r["section"], r["error"], r["rand"]]
                        )
    lines = [*aligned(rows), "", *(line for key in keys for line in comparison(key, found[key]))]
    (args.output / "table.txt").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
