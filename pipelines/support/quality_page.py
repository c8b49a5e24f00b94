"""docs/quality.md and pictures, made of cells."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image

from support import judging, perturbed
from support.datasets import SETS, Loaded, Set
from support.judging import Cell, paired, summary
from support.sheets import COLORS, reddened, sheet

BEGIN, END = "<!-- quality.py: begin -->", "<!-- quality.py: end -->"
OURS = "ours"
SHOWN = 256  # edge of a picture's part
Found = Mapping[str, Mapping[str, Sequence[Cell]]]


def groups(one: Set) -> list[int]:
    """The thin classes, from 0."""
    names = list(one.classes)
    return [names.index(name) for name in one.thin]


def text(value: float, digits: int) -> str:
    """A number; nothing for NaN."""
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def points(found: judging.Difference) -> judging.Difference:
    """A difference of errors in percent."""
    return replace(found, mean=100 * found.mean, error=100 * found.error)


def markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table; its first row is the head, and its first column is on the left."""
    head, *body = rows
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    return lines + ["| " + " | ".join(row) + " |" for row in body]


def done(cells: Mapping[str, Sequence[Cell]]) -> dict[str, list[Cell]]:
    """The methods that are there, without those that are missing here."""
    found = {name: [c for c in own if "missing" not in c] for name, own in cells.items()}
    return {name: own for name, own in found.items() if own}


def rows_of(one: Set, methods: Mapping[str, Sequence[Cell]]) -> list[list[str]]:
    """The table of a set."""
    many = len(one.classes) > 2
    thin = " or ".join(one.thin)
    head = ["method", "error %", f"F1 {thin}", *(["mean F1"] if many else [])]
    head += ["Rand error", "VOI"] if one.segments else []
    head += ["error minus ours", "s/Mpx", "ECE %", "seeds"]
    rows = [head]
    for name, cells in methods.items():
        about = summary(cells, groups(one))
        other = points(paired(cells, methods.get(OURS, ())))
        rows.append(
            [
                name,
                text(about.error, 2),
                text(about.thin, 3),
                *([text(float(np.mean(about.classes)), 3)] if many else []),
                *([text(about.rand, 3), text(about.voi, 3)] if one.segments else []),
                "" if name == OURS else str(other),
                text(about.seconds, 2),
                text(about.calibration, 1),
                str(about.seeds),
            ]
        )
    return rows


def verdicts(one: Set, methods: Mapping[str, Sequence[Cell]]) -> list[str]:
    """Where ours is first, and where it is not."""
    if OURS not in methods:
        return ["Ours is not measured yet."]
    found = {name: summary(cells, groups(one)) for name, cells in methods.items()}
    asked: list[tuple[str, dict[str, float], bool, int]] = [
        ("error", {n: s.error for n, s in found.items()}, True, 2),
        ("F1 of " + " or ".join(one.thin), {n: s.thin for n, s in found.items()}, False, 3),
    ]
    if len(one.classes) > 2:
        mean = {n: float(np.mean(s.classes)) for n, s in found.items()}
        asked.append(("mean F1", mean, False, 3))
    if one.segments:
        asked.append(("Rand error", {n: s.rand for n, s in found.items()}, True, 3))
        asked.append(("VOI", {n: s.voi for n, s in found.items()}, True, 3))
    lines, won = [], []
    for what, values, lowest, digits in asked:
        best = judging.first(values, lowest)[0]
        if values[best] == values[OURS] or best.startswith(OURS):
            won.append(what + f" ({best})" * (values[best] != values[OURS]))
            continue
        line = f"**Not first in {what}**: {best} {values[best]:.{digits}f}"
        line += f", ours {values[OURS]:.{digits}f}"
        if what == "error":
            line += f" ({points(paired(methods[best], methods[OURS]))} points)"
        lines.append(line + ".")
    return [f"Ours is first in {', '.join(won)}."] * bool(won) + lines


def class_rows(one: Set, methods: Mapping[str, Sequence[Cell]]) -> list[list[str]]:
    """F1 of each class."""
    rows = [["F1", *one.classes]]
    for name, cells in methods.items():
        rows.append([name, *(text(v, 3) for v in summary(cells, groups(one)).classes)])
    return rows


def missing(methods: Mapping[str, Sequence[Cell]]) -> list[str]:
    """A line on each method that could not run."""
    return [
        f"{name}: left out, {own[0]['missing']}."
        for name, cells in methods.items()
        if (own := [c for c in cells if "missing" in c])
    ]


def sections(found: Found) -> list[str]:
    """All sets of images that are labeled throughout."""
    lines: list[str] = []
    for key, methods in found.items():
        if key in SETS:
            one, there = SETS[key], done(methods)
            if not there:
                continue
            count = len(next(iter(there.values()))[0]["images"])
            lines += [f"### {one.title}", "", f"{count} judged images.", ""]
            lines += [*markdown(rows_of(one, there)), ""]
            lines += [f"- {line}" for line in (*verdicts(one, there), *missing(methods))] + [""]
            if len(one.classes) > 2:
                lines += [*markdown(class_rows(one, there)), ""]
    return lines


def stroke_rows(found: Found) -> list[list[str]]:
    """Strokes: errors, and ours against the two others."""
    rows = [
        ["strokes", "forest", "classifier", OURS]
        + [f"{OURS} minus {other}" for other in ("forest", "classifier")]
        + ["not worse"]
    ]
    for key, methods in found.items():
        there = done(methods)
        if key in SETS or not there:
            continue
        _, base, density, drawn = key.split("-")
        title = f"{SETS[base].title}, {density} %, {drawn}"
        errors = [
            text(summary(there[n], groups(SETS[base])).error, 2) if n in there else ""
            for n in ("forest", "classifier", OURS)
        ]
        both = [
            points(paired(there.get(OURS, ()), there.get(n, ()))) for n in ("forest", "classifier")
        ]
        known = [d for d in both if d.count]
        fits = ("**no**" if any(d.worse for d in known) else "yes") if known else ""
        rows.append([title, *errors, *map(str, both), fits])
    return rows


def light_rows(found: Found) -> list[list[str]]:
    """Errors of ours on judged images that were changed in light, stain and focus."""
    rows: list[list[str]] = []
    names = [*perturbed.ways(3)]
    for key, methods in found.items():
        cells = [one for one in done(methods).get(OURS, ()) if one.get("perturbed")]
        if key not in SETS or not cells:
            continue
        plain = summary(cells, groups(SETS[key])).error
        each = {
            name: 100 * float(np.mean([one["perturbed"][name] for one in cells]))
            for name in cells[0]["perturbed"]
        }
        grown = max(each.values()) / plain - 1
        shown = [text(each[name], 2) if name in each else "" for name in names]
        rows.append([SETS[key].title, text(plain, 2), *shown, f"{100 * grown:+.0f} %"])
    return [["errors of ours, %", "as they are", *names, "at most"], *rows]


def page(found: Found, command: str) -> str:
    """What stands between the markers."""
    lines = [BEGIN, "", f"Made by `{command}`.", "", *sections(found)]
    light = light_rows(found)
    if len(light) > 1:
        lines += ["### Other light, stain and focus", "", *markdown(light), ""]
    strokes = stroke_rows(found)
    if len(strokes) > 1:
        lines += ["### Strokes", "", *markdown(strokes), ""]
        bad = sum(row[-1] == "**no**" for row in strokes[1:])
        known = sum(row[-1] != "" for row in strokes[1:])
        if known:
            lines += [
                f"Worse than the forest or our classifier alone by more than 2 standard errors: "
                f"{bad} of {known}.",
                "",
            ]
    return "\n".join([*lines, END])


def insert(path: Path, made: str, first: str = BEGIN, last: str = END) -> None:
    """Put what was made between the markers of a page."""
    whole = path.read_text()
    before, begin, rest = whole.partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end:
        raise SystemExit(f"{path}: expected the lines {first} and {last}")
    path.write_text(before + made + after)


def draw(one: Set, loaded: Loaded, kept: Path, methods: Sequence[str], path: Path) -> None:
    """Image, truth and labels of a part of the first judged image, and what ours changed."""
    number = loaded.training
    image, truth = loaded.images[number], loaded.labels[number]
    part = busiest(np.isin(truth, [g + 1 for g in groups(one)]))
    colors = COLORS if len(one.classes) > 2 else COLORS[[0, 1, 5]]
    planes = image[:, *part] if len(image) == 3 else np.repeat(image[:1, *part], 3, 0)
    shown = [("image", np.moveaxis(planes, 0, -1).astype(np.uint8)), ("truth", colors[truth[part]])]
    labels = {}
    for name in methods:
        file = kept / f"{stem(name, 0)}.png"
        if file.exists():
            labels[name] = np.asarray(PIL.Image.open(file))[part]
            wrong = (labels[name] != truth[part])[truth[part] > 0].mean()
            shown.append(
                (f"{name}: {100 * wrong:.1f} %", reddened(labels[name], truth[part], colors))
            )
    legend = [
        *zip(one.classes, colors[1:].tolist(), strict=False),
        ("reddened: wrong", [110, 0, 0]),
    ]
    before = next((name for name in ("none", "classifier") if name in labels), None)
    if OURS in labels and before:
        shown.append((f"ours after {before}", changed(labels[before], labels[OURS], truth[part])))
        legend += [("mended", [0, 158, 115]), ("broken", [213, 0, 0])]
    sheet(shown, legend).save(path)


def changed(before: np.ndarray, after: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Pixels that became right in green, and those that became wrong in red."""
    found = np.full((*truth.shape, 3), 235, np.uint8)
    found[(before != truth) & (after == truth)] = (0, 158, 115)
    found[(before == truth) & (after != truth)] = (213, 0, 0)
    return found


def busiest(thin: np.ndarray) -> tuple[slice, slice]:
    """The part, of those beside each other, that has most of the thin class."""
    edges = [min(SHOWN, n) for n in thin.shape]
    corners = [
        (y, x)
        for y in range(0, thin.shape[0] - edges[0] + 1, edges[0])
        for x in range(0, thin.shape[1] - edges[1] + 1, edges[1])
    ]
    y, x = max(corners, key=lambda c: thin[c[0] : c[0] + edges[0], c[1] : c[1] + edges[1]].sum())
    return slice(y, y + edges[0]), slice(x, x + edges[1])


def stem(method: str, seed: int) -> str:
    """A cell's file name without its ending."""
    return f"{method.replace(',', '').replace(' ', '-').lower()}-{seed}"
