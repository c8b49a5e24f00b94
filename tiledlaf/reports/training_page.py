"""The page of a training: its curves, what validation confused, and what was learned."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

from ..errors import DamagedFile, InputError
from ..files.selection import in_words
from ..model.arrays import convert
from ..model.classes import color
from ..model.entries import ChoiceEntry, TrainedEntry, ValidationEntry
from ..model.model import Model
from . import charts, frame, markup, mattered, reliability, words
from .markup import Html
from .text import compared

VALIDATION, TRAINING, UNIFORM = "#0072b2", "#e69f00", "#666666"
WAYS = {
    "none": "the first opinion alone",
    "uniform": "equal weights for all neighbors",
    "learned": "learned weights",
}
NAMES = 12  # images that are named
NOT_KEPT = "This model does not say which classes validation confused: {}."


def html_of(found: Model, path: str) -> Html:
    """The page of a model."""
    try:
        trained = convert(dict(found.trained), TrainedEntry)
        history = convert(trained.history, list[ValidationEntry])
    except InputError as error:
        raise DamagedFile(f"{path}: expected notes on a training, got {error}") from None
    parts = [
        _summary(found, trained, history),
        frame.section("How the training went", *_curves(history)),
        frame.section("Which classes validation confused", *_confusion(found, trained)),
        frame.section("How far its confidence can be trusted", *_reliability(found, trained)),
        frame.section("What was learned", *_learned(found, path)),
        frame.section("Classes", _classes(found), words.explained("bias", "confidence", "proven")),
        frame.section("How it was trained", _settings(found, trained)),
    ]
    return frame.page(os.path.basename(path), parts)


def _summary(found: Model, trained: TrainedEntry, history: Sequence[ValidationEntry]) -> Html:
    if trained.error is None or not history:
        return markup.element("p", "This model holds no notes on a training.")
    if trained.choice is not None:
        return _choice(trained.error, trained.choice, trained.steps)
    own = found.trained.get("validation")
    where = "pixels of the validation images" if own else "pixels that were kept for validation"
    said = f"{_share(trained.error)} of the {where} got a wrong label, after {trained.steps} steps."
    uniform = history[0].uniform
    if uniform is not None:
        said += f" With equal weights for all neighbors {_share(uniform)} did."
    return markup.element("p", said)


def _choice(error: float, choice: ChoiceEntry, steps: int) -> Html:
    low, high = map(_share, choice.interval)
    said = (
        f"In {choice.judged}, {_share(error)} of the labeled pixels got a wrong label: on images "
        f"like these expect {low} to {high}. "
    )
    others = compared(choice.compared, choice.boundary, WAYS)
    chosen = WAYS[choice.way] + (f", after {steps} steps" if choice.way == "learned" else "")
    return markup.element("p", f"{said}Compared were: {others}. Chosen was: {chosen}.")


def _curves(history: Sequence[ValidationEntry]) -> list[Html]:
    if len(history) < 2:
        return [markup.element("p", "No steps were made, so there are no curves.")]
    steps = [float(one.step) for one in history]

    def line(name: str, key: str, color: str) -> charts.Line:
        values = [getattr(one, key) for one in history]
        return charts.Line(name, color, steps, [math.nan if v is None else v for v in values])

    wrong = [line("in validation", "validation", VALIDATION)]
    wrong.append(line("in the batch of training", "training", TRAINING))
    uniform = history[0].uniform
    if uniform is not None:
        ends = (steps[0], steps[-1])
        wrong.append(charts.Line("equal weights", UNIFORM, ends, (uniform,) * 2, dashed=True))
    loss = [line("loss in validation", "loss", VALIDATION)]
    note = (
        "The model is the state with the fewest wrong pixels in validation. If the validation "
        "curve rises again while the other falls, more or more varied images help."
    )
    return [
        charts.lines(wrong, "step", "wrong pixels", True),
        charts.lines(loss, "step", "loss", False),
        markup.element("p", note, **{"class": "note"}),
    ]


def _confusion(found: Model, trained: TrainedEntry) -> list[Html]:
    table, count = trained.confusion, len(found.classes)
    if table is None:
        why = "there are too many" if count > 64 else "an earlier release trained it"
        return [markup.element("p", NOT_KEPT.format(why))]
    if len(table) != count or any(len(row) != count for row in table):
        raise DamagedFile(f"expected a confusion of {count} classes in the notes on a training")
    rows: list[Html] = []
    for name, row in zip(found.names, table, strict=True):
        total = sum(row)
        cells = [markup.element("td", name)]
        for place, pixels in enumerate(row):
            share = pixels / total if total else 0.0
            tone = (0, 114, 178) if place == len(rows) else (213, 94, 0)
            style = f"background:rgba({tone[0]},{tone[1]},{tone[2]},{0.6 * share:.3f})"
            title = f"{pixels} of {total} pixels"
            text = f"{100 * share:.2f} %" if total else "none"
            cell = {"class": "number", "style": style, "title": title}
            cells.append(markup.element("td", text, **cell))
        rows.append(markup.element("tr", *cells))
    head = [markup.element("th", "truth \\ label")]
    head += [markup.element("th", name, **{"class": "number"}) for name in found.names]
    made = markup.element("table", markup.element("tr", *head), *rows)
    worst = _worst(found.names, table)
    note = (
        "Each row is a class of the truth: how its validation pixels were labeled, with the biases "
        "that the model has."
    )
    said = [markup.element("p", worst)] * bool(worst)
    return [made, *said, markup.element("p", note, **{"class": "note"})]


def _worst(names: Sequence[str], table: Sequence[Sequence[int]]) -> str:
    """The most frequent mistake."""
    wrong = [
        (pixels, truth, label)
        for truth, row in zip(names, table, strict=True)
        for label, pixels in zip(names, row, strict=True)
        if truth != label
    ]
    pixels, truth, label = max(wrong, default=(0, "", ""))
    if not pixels:
        return "No validation pixel got a wrong label."
    share = 100 * pixels / sum(one[0] for one in wrong)
    return f"The most frequent mistake: “{truth}” labeled “{label}”, {share:.0f} % of all mistakes."


def _reliability(found: Model, trained: TrainedEntry) -> list[Html]:
    return reliability.section(found.calibration, trained.reliability)


def _learned(found: Model, path: str) -> list[Html]:
    if found.predictor is None:
        return [markup.element("p", "Nothing about neighbors: all of them count alike.")]
    said = mattered.in_words(found, found.predictor)
    more = f"'tiledlaf explain {os.path.basename(path)} IMAGE' draws it, also on an image."
    return [
        markup.element("ul", *(markup.element("li", one) for one in said)),
        markup.element("p", more, **{"class": "note"}),
    ]


def _classes(found: Model) -> Html:
    rows = []
    for number, (one, bias) in enumerate(zip(found.classes, found.bias, strict=True), 1):
        shade = charts.swatch(charts.hexadecimal(one.color or color(number)))
        values = ", ".join(map(str, one.values))
        rows.append([f"{number}", markup.joined([shade, one.name]), values, f"{bias:+.4f}"])
    return frame.table(["label", "class", "values in the training's labels", "bias"], rows, (0, 3))


def _settings(found: Model, trained: TrainedEntry) -> Html:
    about, seen = found.trained, found.images
    rows = [("training images", _names(about.get("images")))]
    rows.append(("validation images", _names(about.get("validation")) or "parts of the same"))
    if seen.dtype:
        size = f", pixels of {in_words(seen.pixel_size)}" if seen.pixel_size else ""
        span = f" of {seen.range[0]:.4g} to {seen.range[1]:.4g}" if seen.range else ""
        rows.append(("pixels", f"{found.channels} channel(s), {seen.dtype}{span}{size}"))
    rows.append(("first opinion", found.term.kind))
    if trained.network is not None:
        made = f"{trained.network.kind}, learned in {trained.network.steps} steps"
        rows.append(("network", made))
    rows.append(("neighbors", str(len(found.offsets))))
    rows.append(("time, rho, tol", f"{found.time:g}, {found.rho:g}, {found.tol:g}"))
    for key in ("loss", "optimizer", "patience", "seed", "steps"):
        if isinstance(trained.print.get(key), str | int | float):
            rows.append((key, str(trained.print[key])))
    return frame.facts([row for row in rows if row[1]])


def _names(given: Any) -> str:
    if not isinstance(given, list):
        return ""
    more = f" and {len(given) - NAMES} more" if len(given) > NAMES else ""
    return ", ".join(map(str, given[:NAMES])) + more


def _share(value: float) -> str:
    return f"{100 * value:.3g} %"
