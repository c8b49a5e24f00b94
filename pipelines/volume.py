"""Sections as a volume beside sections alone, and which neighbors a volume should have.

``python pipelines/volume.py --data DIR`` learns membranes from the first sections of VNC, whose
pixels are ten times as long across sections as within them, labels the judged ones, and prints a
table. All rows begin with the same probabilities, of the first stage of `train --classifier`. What
is finished is a file in the output folder: a second start goes on with what is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import time as clock
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from support import judging
from support.datasets import SETS, first_of, load
from support.pixelwise import chances
from support.rivals import FULL
from support.sections import folds_of, say

import tiledlaf
from tiledlaf.files.selection import Selection
from tiledlaf.flow import stencil
from tiledlaf.pool.opening import open_pool
from tiledlaf.training import examples
from tiledlaf.training.plan import FLOWS
from tiledlaf.training.run import Data, Recipe, train

ROOT = Path(__file__).parents[1]
SIZES = (0.0475, 0.0046, 0.0046)  # micrometers along z, y, x: sections are 45 to 50 nm thick
NONE, ALONE = "probabilities alone", "sections alone"
RINGS = tuple((0, *offset) for offset in stencil.rings(3, 7))
# what is labeled, and with which neighborhood; None: that where none is given
WAYS: dict[str, Any] = {
    NONE: None,
    ALONE: None,
    "volume": None,
    "volume, 1x3x3": "1x3x3",
    "volume, 3x3x3": "3x3x3",
    "volume, 15nm": "15nm",
    "volume, rings:3,7 and one pixel above and below": (*RINGS, (-1, 0, 0), (1, 0, 0)),
}
Planes = Sequence[np.ndarray]


def measure(
    way: str, images: Planes, labels: Planes, p: Planes, training: int, recipe: Mapping[str, Any]
) -> dict[str, Any]:
    """Learn from the first sections and judge the others.

    Parameters
    ----------
    images, labels : (y, x) of each section; labels 1 of membranes, 2 of the rest
    p : probabilities (2, y, x) of each section, out of fold where they are learned from
    training : number of sections to learn from
    recipe : what of it is not by default
    """
    judged = np.stack(labels[training:])
    if way == NONE:
        made = np.stack(p[training:]).argmax(axis=1) + 1
        return {"way": way, **judging.numbers(made, None, judged, 2, 0)}
    sizes, axes, groups = SIZES, "zyx", [slice(0, training), slice(training, None)]
    if way == ALONE:
        sizes, axes, groups = SIZES[1:], "yx", [slice(n, n + 1) for n in range(len(images))]

    def joined(planes: Planes, axis: int) -> list[np.ndarray]:
        found = [np.stack(planes[group], axis) for group in groups]
        return [one.squeeze(axis) for one in found] if way == ALONE else found

    count = training if way == ALONE else 1
    pixels, truths, odds = joined(images, 0), joined(labels, 0), joined(p, 1)
    selection = Selection(axes=axes, input_pixel_size=sizes)
    data = Data(
        examples.pair(pixels[:count], truths[:count], odds[:count], selection=selection),
        term="probabilities",
        names={"1": "membrane", "2": "other"},
        ignore=0,
    )
    started = clock.process_time()
    with open_pool() as pool:
        model = train(data, Recipe(neighborhood=WAYS[way], **recipe), pool)
    learned = clock.process_time() - started
    given = {"model": model, "axes": axes, "input_pixel_size": sizes, "workers": 1}
    found = [
        np.asarray(tiledlaf.label(one, probabilities=chance, **given))
        for one, chance in zip(pixels[count:], odds[count:], strict=True)
    ]
    spent = clock.process_time() - started - learned
    made = np.stack(found) if way == ALONE else found[0]
    choice = model.trained["choice"]
    return {
        "way": way,
        **judging.numbers(made, None, judged, 2, 0),
        "neighbors": len(model.offsets),
        "chosen": choice["way"],
        "compared": choice["compared"],
        "minutes": learned / 60,
        "seconds": spent * 1e6 / judged.size,
    }


def equal(way: str, images: Planes, labels: Planes, p: Planes, training: int) -> dict[str, Any]:
    """Judge equal weights of a way's neighborhood, with nothing learned, on the same sections."""
    if WAYS[way] is None:
        return {}
    made = tiledlaf.label(
        np.stack(images[training:]),
        probabilities=np.stack(p[training:], 1),
        neighborhood=WAYS[way],
        time=1.0,
        axes="zyx",
        input_pixel_size=SIZES,
        workers=1,
    )
    return {"equal": judging.numbers(np.asarray(made), None, np.stack(labels[training:]), 2, 0)}


def scores(found: Mapping[str, Any]) -> str:
    """Share of wrong pixels and F1 of membranes."""
    (hit, missed), (more, _) = (row[1:] for row in found["confusion"])
    return f"{100 * found['error']:.2f} | {2 * hit / (2 * hit + missed + more):.3f}"


def table(cells: Sequence[Mapping[str, Any]]) -> str:
    """Markdown, a row per way."""
    found = [
        "| labeled | equal weights: error % | F1 | in cross-validation: none, equal, learned "
        "| chosen | error % | F1 | minutes to learn | s/Mpx |",
        "|---|---:|---:|---:|---|---:|---:|---:|---:|",
    ]
    for cell in cells:
        if cell["way"] == NONE:
            found.append(f"| {NONE} | | | | | {scores(cell)} | | |")
            continue
        compared = (cell["compared"].get(name) for name in ("none", "uniform", "learned"))
        found.append(
            f"| {cell['way']} | {scores(cell['equal']) if 'equal' in cell else '|'} | "
            f"{', '.join('' if c is None else f'{100 * c:.2f}' for c in compared)} | "
            f"{cell['chosen']} ({cell['neighbors']}) | {scores(cell)} | {cell['minutes']:.1f} | "
            f"{cell['seconds']:.2f} |"
        )
    return "\n".join(found)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    default = Path(os.environ.get("TILEDLAF_DATA", ROOT.parent / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, default=default, help=f"folder ({default})")
    parser.add_argument("--output", type=Path, default=Path("volume"), help="folder (volume)")
    parser.add_argument("--sections", type=int, default=11, help="that are learned from (11)")
    parser.add_argument("--edge", type=int, default=1024, help="of the part of each (1024)")
    parser.add_argument("--steps", type=int, default=Recipe.steps, help=f"({Recipe.steps})")
    parser.add_argument("--flow", choices=FLOWS, default="auto", help="as of train (auto)")
    parser.add_argument("--pixels", type=int, default=FULL.pixels, help=f"({FULL.pixels})")
    args = parser.parse_args(argv)
    first = first_of(SETS["vnc"], args.data)
    if not first.exists():
        parser.error(f"--data: expected images such as {first}, which is missing")
    return args


def write(path: Path, value: Any) -> None:
    """JSON, whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value) + "\n")
    partial.replace(path)


def main(argv: Sequence[str] | None = None) -> None:
    """Make the rows that are missing, and print all."""
    args = parse(argv)
    loaded = load(SETS["vnc"], args.data, FULL.edge, FULL.images)
    training = min(args.sections, loaded.training)
    kept = [*range(training), *range(loaded.training, len(loaded.images))]
    part = slice(0, args.edge)
    loaded = replace(
        loaded,
        images=[np.ascontiguousarray(loaded.images[n][:, part, part]) for n in kept],
        labels=[np.ascontiguousarray(loaded.labels[n][part, part]) for n in kept],
        training=training,
        folds=folds_of(training),
    )
    folder = args.output / f"{training}-{args.edge}-{args.pixels}"
    folder.mkdir(parents=True, exist_ok=True)
    p = chances("classifier", loaded, 2, args.pixels, 0, folder).all
    images = [planes[0] for planes in loaded.images]
    given = (images, loaded.labels, p, training)
    cells = []
    for number, way in enumerate(WAYS):
        file = folder / f"{number}-{args.flow}-{args.steps}.json"
        if not file.exists():
            say(way)
            write(file, measure(way, *given, {"steps": args.steps, "flow": args.flow}))
        cells.append(json.loads(file.read_text()) | equal(way, *given))
    print(table(cells))


if __name__ == "__main__":
    main()
