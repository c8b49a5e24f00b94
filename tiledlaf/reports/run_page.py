"""The page of a run: what it labeled, how much of each class, how sure, by which settings."""

from __future__ import annotations

import datetime
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import stores
from ..labeling import records
from ..results import areas, confidence
from ..results.result import Result
from . import charts, frame, markup, panels, text, words
from .markup import Html
from .status import PARTS

# what the settings of a run mean
MEANINGS = {
    "input": "fingerprint of the image",
    "array": "name, axes, size and type of the image",
    "region": "part of the image that was labeled",
    "term": "where the first opinion on each pixel comes from",
    "model": "fingerprint of the trained model",
    "neighborhood": "pixels that each pixel listens to",
    "rho": "scale of the distances: smaller trusts the image more",
    "time": "how long pixels listen: longer is smoother",
    "integrator": "how the flow is computed",
    "channels": "channels that were read",
    "classes": "number of classes",
    "seed": "what random choices start from",
    "mask": "what was left out",
    "image": "whether a copy of the image is beside the labels",
    "confidence": "whether the confidence of each pixel was kept",
    "calibration": "by which the confidence is the probability that a label is right",
    "min_confidence": "pixels of a lower confidence were left without a label",
}
BOUNDED = ("Taylor", "Euler")  # integrators that can prove a label


@dataclass
class Work:
    """What the records of a run say of its work."""

    began: float = math.inf
    ended: float = 0.0
    versions: str = ""
    tiles: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=dict)  # of each start, by the clock
    parts: np.ndarray = field(default_factory=lambda: np.zeros(len(PARTS)))
    workers: set[str] = field(default_factory=set)
    peak: int = 0
    proven: int = 0
    pixels: int = 0
    retries: int = 0


def html_of(result: Result) -> Html:
    """The page of a finished run."""
    if stores.is_web(result.store):
        raise InputError(
            f"{result.store}: expected a place that can be listed, such as s3://bucket/out.zarr"
        )
    rows, work = areas.of_result(result), _work(result)
    parts = [
        _summary(result, work),
        panels.of_run(result, _across(result)),
        frame.section("How much of each class", _areas(result, rows)),
        frame.section("How sure the labels are", *_certainty(result, rows, work)),
        frame.section("How they were made", _settings(result)),
        frame.section("Time, and what made them", _time(work)),
    ]
    name = os.path.basename(result.store.rstrip("/"))
    return frame.page(f"{name}: labels/{result.name}", parts)


def _work(result: Result) -> Work:
    work = Work()
    for line in records.entries(result.out.records):
        begun = line.get("time", math.nan) - line.get("after", 0.0)
        if begun == begun:
            work.began, work.ended = min(work.began, begun), max(work.ended, line["time"])
        if line.get("stage") != records.CLAIMED:
            run = line.get("run", "")
            work.seconds[run] = max(work.seconds.get(run, 0.0), line.get("after", 0.0))
        work.versions = str(line.get("versions", work.versions))
        work.retries += line.get("retries", 0)
    for record in records.read(result.out.records).values():
        work.tiles[record["state"]] += 1
        work.parts += np.array(record.get("seconds", (0,) * len(work.parts)))
        work.workers |= {record["worker"]} if "worker" in record else set()
        work.peak = max(work.peak, record.get("peak_mib", 0))
        work.proven += record.get("proven", 0)
        work.pixels += sum(record.get("counts", (0,))[1:])
    return work


def _summary(result: Result, work: Work) -> Html:
    grid, size = result.labels.grid, result.pixel_size
    said = f"{_times(grid)} pixels ({', '.join(result.labels.grid_axes)})"
    if size is not None:
        spans = [n * s for n, s in zip(grid[-len(size) :], size, strict=True)]
        said += f", {_times([length(v) for v in spans])}, pixels of {_times(map(length, size))}"
    source = result.notes.get("source", {}).get("name")
    image = f"The image {source}" if source else "An image"
    done = f"{image} of {said} was labeled into {len(result.names)} classes"
    when = f" on {_day(work.ended)}" if work.ended else ""
    return markup.element("p", f"{done}{when}.")


def _across(result: Result) -> str:
    size = result.pixel_size
    return "" if size is None else length(size[-1] * result.labels.grid[-1])


def _areas(result: Result, rows: Sequence[areas.Area]) -> Html:
    axes = len(result.labels.spatial_axes)
    known = rows[0].size is not None
    lines = []
    for row in (*rows[1:], *(row for row in rows[:1] if row.pixels)):
        color = charts.hexadecimal(result.colors.get(row.value, (0, 0, 0)))
        cells = [markup.joined([charts.swatch(color), row.name]), f"{row.pixels:,}"]
        cells += [f"{100 * row.share:.2f} %"]
        lines.append(cells + [areas.in_words(row.size or 0, axes)] * known)
    titles = ["class", "pixels", "share", *["area" if axes == 2 else "volume"] * known]
    note = "Shares are of the labeled pixels" + (
        f"; that of “{areas.UNLABELED}” is of all." if rows[0].pixels else "."
    )
    if not known:
        note += " The image does not say how large its pixels are, so there are no areas."
    series = " All time points together." if "t" in result.labels.grid_axes else ""
    made = frame.table(titles, lines, range(1, len(titles)))
    return markup.joined([made, markup.element("p", note + series, **{"class": "note"})])


def _certainty(result: Result, rows: Sequence[areas.Area], work: Work) -> list[Html]:
    found = confidence.histogram(result)
    parts = [markup.element("p", _proven(result, work))]
    if found is None:
        said = "The run did not keep its confidence; 'tiledlaf label --confidence' does."
        parts.append(markup.element("p", said))
    else:
        parts += _histogram(result, found)
    trained = "model" in result.notes.get("settings", {})
    return [*parts, words.explained("confidence", "proven", *["bias"] * trained)]


def _proven(result: Result, work: Work) -> str:
    name = str((result.notes.get("settings", {}).get("integrator") or [""])[0])
    if not work.pixels:
        return "No pixel was labeled."
    if not work.proven and name not in BOUNDED:
        return "No label is proven: this integrator has no bound for a pixel."
    left = work.pixels - work.proven
    share = text.proven_percent(work.proven, work.pixels)
    many = "is a tie" if left == 1 else "are ties"
    ties = f"; {left:,} {many} within the error of the computation" if left else ""
    return f"{share:g} % of the labels are proven{ties}."


def _histogram(result: Result, found: confidence.Histogram) -> list[Html]:
    names = [result.names[v] for v in result.names]
    colors = [charts.hexadecimal(result.colors[v]) for v in result.names]
    ends = f"{found.edges[0]:.3g} (undecided)", "1 (certain)"
    chart = charts.bars(found.counts, names, colors, ends, "share of pixels")
    shares = found.counts / np.maximum(found.counts.sum(axis=1, keepdims=True), 1)
    # bars below the middle between undecided and certain
    low, middle = (
        shares[:, : len(found.edges) // 2].sum(axis=1),
        float(np.mean(found.edges[[0, -1]])),
    )
    lines = [
        [
            markup.joined([charts.swatch(color), name]),
            "" if math.isnan(mean) else f"{mean:.3f}",
            f"{100 * share:.2f} %",
        ]
        for color, name, mean, share in zip(colors, names, found.means, low, strict=True)
    ]
    table = frame.table(["class", "mean confidence", f"below {middle:.3g}"], lines, (1, 2))
    note = "Counted at full resolution."
    if max(found.step) > 1:
        note = (
            f"Counted on a coarser level of {_times(found.grid)} pixels: one of "
            f"{_times(found.step)} at full resolution."
        )
    note += " Heights are square roots of shares, so that few pixels are seen as well."
    return [chart, markup.element("p", note, **{"class": "note"}), table]


def _settings(result: Result) -> Html:
    given: Mapping[str, Any] = result.notes.get("settings", {})
    rows = [
        (key, text.value_in_words(key, value), MEANINGS.get(key, ""))
        for key, value in given.items()
        if value is not None
    ]
    rows.append(("tile", _times(result.notes.get("tile", ())), "pixels that are labeled at once"))
    return frame.table(["setting", "value", "what it is"], rows)


def _time(work: Work) -> Html:
    rows = []
    if work.ended:
        rows += [("began", _moment(work.began)), ("ended", _moment(work.ended))]
    spent = sum(work.seconds.values())
    starts = len([run for run in work.seconds if run])
    rows.append(("running", text.span(spent) + (f", in {starts} starts" if starts > 1 else "")))
    tiles = ", ".join(f"{n} {state}" for state, n in work.tiles.items())
    rows.append(("tiles", tiles + (f"; tried again: {work.retries}" if work.retries else "")))
    rows.append(("workers", f"{len(work.workers)}, at most {work.peak} MiB each"))
    parts = zip(PARTS, work.parts, strict=True)
    rows.append(("time of workers", ", ".join(f"{part} {text.span(s)}" for part, s in parts)))
    made = work.versions or "not noted: an earlier release labeled this"
    return frame.facts([*rows, ("versions", made)])


def length(micrometers: float) -> str:
    """A length in a unit that suits it."""
    for factor, unit in ((1e4, "cm"), (1e3, "mm"), (1.0, "µm")):
        if micrometers >= factor:
            return f"{micrometers / factor:.4g} {unit}"
    return f"{micrometers * 1e3:.4g} nm"


def _times(sizes: Any) -> str:
    return " x ".join(f"{n:,}" if isinstance(n, int) else str(n) for n in sizes)


def _day(time: float) -> str:
    moment = datetime.datetime.fromtimestamp(time, datetime.UTC)
    return f"{moment.day} {moment:%B %Y}"  # "%-d" is not known everywhere


def _moment(time: float) -> str:
    return datetime.datetime.fromtimestamp(time, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
