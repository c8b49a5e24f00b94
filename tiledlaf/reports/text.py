"""Texts for the terminal: what a store holds, what a run will do, what it did."""

from __future__ import annotations

import dataclasses
import datetime
import math
import os
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

from ..annotations import opening
from ..annotations import summary as drawings
from ..errors import InputError
from ..files import image as image_files
from ..files import images, ngff, nodes, stores
from ..files.fingerprints import HASHED
from ..files.selection import in_words
from ..flow.stencil import radius
from ..labeling import areas, records
from ..labeling.areas import Area, percent
from ..labeling.output import Output
from ..labeling.plan import Plan
from ..labeling.resources import needed_bytes, predicted_bytes
from ..labeling.run import Summary
from ..model.model import Model, load
from ..model.network import network_lines
from ..model.terms import Averaged
from .status import PARTS, Labels, Status, Training, Worker

CHANGED = "{} changed during a run: the labels are not to be trusted"
ROWS = 16  # at most, of the tables of workers and failed tiles


def _times(shape: Sequence[float]) -> str:
    return " x ".join(f"{n:.4g}" if isinstance(n, float) else str(n) for n in shape)


def size_in_words(count: float) -> str:
    """A number of bytes, in MiB or GiB."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def dry_run(plan: Plan) -> list[str]:
    """Lines on tiles, the halo and its reason, steps, memory, tasks and disk space."""
    job, settings = plan.job, plan.job.settings
    reach = settings.integrator.reach(settings.time)
    name = type(settings.integrator).__name__
    scheme = ", ".join(f"{k} {v:g}" for k, v in dataclasses.asdict(settings.integrator).items())
    lines = [
        f"image: {job.image.path}, {job.image.grid_axes} {_times(job.image.grid)}, "
        f"{job.image.stored_channels} channel(s) of {job.image.dtype}",
        f"tiles: {len(job.grid)} ({_times(job.grid.shape)}) of {_times(job.grid.tile)} pixels",
        f"halo: {_times(job.grid.halo)} pixels on each side: {reach} steps, each as wide as the "
        f"neighborhood's radius {_times(radius(settings.offsets))} ({name}, {scheme}, "
        f"T {settings.time:g})",
        f"steps: {reach} averages over {len(settings.offsets)} neighbors"
        + settings.integrator.note,
        *network_lines(job.probabilities),
        f"memory of a worker: about {size_in_words(predicted_bytes(job))}",
        *_tissue(plan.tissue),
    ]
    left = len(job.grid)
    if plan.out is not None:
        known = records.read(plan.out.records) if plan.held else {}
        left -= sum(r["state"] in ("done", "skipped") for r in known.values())
        free = stores.free_bytes(plan.out.store)
        lines.append(
            f"disk: about {size_in_words(needed_bytes(plan))} needed at most"
            + (f", {size_in_words(free)} free" if free is not None else "")
        )
    lines.append(
        f"tasks: {left}, one a tile"
        + (f" ({len(job.grid) - left} done before)" if plan.held else "")
    )
    return lines


def proven_percent(proven: int, labeled: int) -> float:
    """Percentage of labels that are proven, rounded down: never 100 while some are not."""
    return math.floor(1e5 * proven / labeled) / 1e3


def summary(found: Summary) -> list[str]:
    """Lines on tiles, the area of each class, overview, proven labels, seconds and output."""
    lines = ["tiles: " + ", ".join(f"{n} {state}" for state, n in found.tiles.items())]
    lines += _areas(found.areas, found.axes)
    if found.unsure is not None:
        share = 100 * found.unsure / max(sum(found.pixels), 1)
        lines.append(f"too unsure to be labeled: {found.unsure} pixels ({share:.3g} %)")
    if found.overview is not None:
        lines.append(f"overview: {found.overview}")
    lines += _tissue(found.tissue)
    labeled = sum(found.pixels[1:])
    if found.proven is None:
        lines.append("proven labels: none (this integrator has no bound a pixel)")
    elif labeled:
        lines.append(f"proven labels: {proven_percent(found.proven, labeled):.3f} %")
    lines.append(f"seconds: {found.seconds:.1f}")
    if found.fresh:
        lines.append(f"throughput: {found.rate / 1e6:.3g} megapixels a second")
    lines.append(f"output: {found.output}")
    return lines


def _areas(found: Sequence[Area], axes: int) -> list[str]:
    """A table of classes; one line a class, each number as it is in the summary."""
    rows = [
        (
            f"{area.value} {area.name}",
            str(area.pixels),
            percent(area),
            "" if area.size is None else areas.in_words(area.size, axes),
        )
        for area in found
        if area.value or area.pixels
    ]
    titles = ("class", "pixels", "share", "area" if axes == 2 else "volume")
    keep = 4 if any(row[3] for row in rows) else 3
    table = [row[:keep] for row in (titles, *rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  "
        + "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]


def _tissue(found: Mapping[str, Any] | None) -> list[str]:
    """A line on the mask of tissue, if there is one."""
    if found is None:
        return []
    share = 100 * found["here"]
    return [
        f"tissue: {share:.1f} %, {found['side']} than {found['threshold']:.4g} at "
        f"{_times(found['pixels'])} pixels; {100 - share:.1f} % left out"
    ]


def training(record: Mapping[str, Any], left: float | None) -> list[str]:
    """Lines on a stage or a validation of a training; none for most steps in between."""
    if "stage" in record or "labels" in record:
        share = f": {100 * record['validation']:.2f} % wrong" if "validation" in record else ""
        stage = [f"{record['stage']}{share}"] if "stage" in record else []
        return [*record.get("labels", ()), *stage]
    if "validation" not in record and ("best" in record or record["step"] % 10):
        return []
    line = (
        f"step {record['step']}/{record['steps']}: loss {record['loss']:.4f}, wrong "
        f"{100 * record['training']:.2f} % in training"
    )
    if "validation" in record:
        line += f", {100 * record['validation']:.2f} % in validation"
        line += f" (best {100 * record['best']:.2f} %)"
    return [line if left is None else f"{line}, {left:.0f} s left at most"]


def model(found: Model, path: str) -> list[str]:
    """Lines on a model."""
    trained = found.trained
    lines = [f"model: {path}"]
    for number, (one, bias) in enumerate(zip(found.classes, found.bias, strict=True), 1):
        values = ", ".join(map(str, one.values))
        title = f"{one.name}: label values" if one.name != values else "label value"
        lines.append(f"  {number:3d} {title} {values}, bias {bias:+.4f}")
    lines.append(
        f"data term: {found.term.kind}; {len(found.offsets)} neighbors, T {found.time:g}, "
        f"rho {found.rho:g}"
    )
    learned = trained.get("network")
    if learned is not None:
        lines.append(
            f"network: {learned['kind']}, learned in {learned['steps']} steps; wrong where others "
            f"like it had not seen the image: {100 * learned['unseen']:.2f} %"
        )
        if isinstance(found.term, Averaged):
            lines[-1] += f"; {found.term.share:.0%} of the mean with trees"
    seen = found.images
    if seen.dtype:
        size = f", pixels of {in_words(seen.pixel_size)}" if seen.pixel_size else ""
        span = f" of {seen.range[0]:.4g} to {seen.range[1]:.4g}" if seen.range else ""
        count = f"{found.channels} channel" + "s" * (found.channels > 1)
        lines.append(f"learned from: {count}, {seen.dtype}{span}{size}")
    error = trained.get("error")
    if error is not None:
        lines += _errors(trained)
    return lines


WAYS = {"none": "data term alone", "uniform": "uniform weights", "learned": "learned weights"}


def compared(
    errors: Mapping[Any, float], boundary: str | None, names: Mapping[str, str] = WAYS
) -> str:
    """Errors of each way: shares of wrong pixels, or of the pieces between a class."""
    form = "{} {:.2f} %" if boundary is None else "{} {:.3f}"
    scale = 100 if boundary is None else 1
    parts = [form.format(names[way], scale * errors[way]) for way in names if way in errors]
    by = "" if boundary is None else f"adapted Rand error between {boundary}: "
    return by + ", ".join(parts)


def _errors(trained: Mapping[str, Any]) -> list[str]:
    """Lines on how much is wrong, by what, and with what it was compared."""
    error, steps = 100 * trained["error"], trained.get("steps", 0)
    if "choice" not in trained:  # of an earlier release
        first = trained["history"][0] if trained.get("history") else {}
        uniform = f"uniform weights {100 * first.get('uniform', math.nan):.3f} %"
        return [f"wrong in validation: {error:.3f} % ({uniform}), {steps} steps"]
    choice = trained["choice"]
    low, high = (100 * end for end in choice["interval"])
    steps = f" of {steps} steps" if choice["way"] == "learned" else ""
    ways = compared(choice["compared"], choice.get("boundary"))
    return [
        f"wrong in {choice['judged']}: {error:.2f} % (95 % interval {low:.2f} to {high:.2f} %)",
        f"chosen: {WAYS[choice['way']]}{steps} ({ways})",
    ]


def status(found: Status) -> list[str]:
    """Lines on the progress of a store's labels or of a model's training."""
    if found.training is not None:
        return _training(found.path, found.training)
    return [line for one in found.labels for line in ["", *_labels(one)]][1:]


def _training(path: str, found: Training) -> list[str]:
    line = f"{path}: {found.state}"
    if found.quiet is not None:
        line += f" as it seems, checkpoint of {span(found.quiet)} ago"
    lines = [line, f"steps: {found.step}" + (f" of at most {found.steps}" if found.steps else "")]
    if found.error is not None:
        lines.append(f"wrong in validation: {100 * found.error:.3f} %")
    return lines


def _labels(found: Labels) -> list[str]:
    tiles, quiet = found.tiles, found.quiet
    finished = tiles["done"] + tiles["skipped"]
    more = {
        "cut": ("" if tiles["left"] else "; all tiles are done, but lower levels may be missing")
        + "; the same command completes it",
        "failed": "; the same command tries them again",
        "going": "" if tiles["left"] or tiles["failed"] else "; lower levels are made",
        "complete": "",
    }
    words = [CHANGED.format(found.changed)] if found.changed else []
    lines = [
        f"labels/{found.name}: {found.state}{more[found.state]}",
        *words,
        f"tiles: {finished} of {tiles['all']} ({100 * finished / tiles['all']:.1f} %): "
        + ", ".join(f"{tiles[state]} {state}" for state in ("done", "skipped", "failed", "left"))
        + f"; tried again: {found.retries}",
        "megapixels: {:.1f} of {:.1f}".format(*found.megapixels)
        + (f", {found.rate:.3g} a second" if found.rate else "")
        + (f", {span(found.seconds_left)} left" if found.seconds_left else ""),
        "last record: " + ("none" if quiet is None else f"{span(quiet)} ago"),
    ]
    workers, name = found.workers, "worker"
    if len(workers) > ROWS:
        workers, name = _hosts(workers), "host"
    if workers:
        rows = [
            (
                w.name,
                f"{w.tiles}",
                *(f"{w.seconds[p]:.1f}" for p in PARTS),
                f"{w.peak_mib}",
                "" if w.quiet is None else span(w.quiet),
            )
            for w in workers[:ROWS]
        ]
        titles = (name, "tiles", *(f"{part} s" for part in PARTS), "peak MiB", "silent for")
        lines += ["", *columns(titles, rows)]
        if len(workers) > ROWS:
            lines.append(f"and {len(workers) - ROWS} more (--json has them all)")
    if found.slowest:
        slow = [
            (s.place, *(f"{s.seconds[part]:.2f}" for part in PARTS), s.worker)
            for s in found.slowest
        ]
        titles = ("slowest tiles", *(f"{part} s" for part in PARTS), "worker")
        lines += ["", *columns(titles, slow)]
    if found.errors:
        lines += ["", f"failed: {len(found.errors)}", *(f"  {e}" for e in found.errors[:ROWS])]
        if len(found.errors) > ROWS:
            lines.append(f"and {len(found.errors) - ROWS} more (--json has them all)")
    return lines


def _hosts(workers: Sequence[Worker]) -> list[Worker]:
    """Merge the workers of each host into one, with the highest peak memory among them."""
    found: dict[str, Worker] = {}
    for worker in workers:
        name = worker.name.rpartition(":")[0]
        host = found.setdefault(name, Worker(name))
        host.tiles += worker.tiles
        host.peak_mib = max(host.peak_mib, worker.peak_mib)
        host.quiet = min((q for q in (host.quiet, worker.quiet) if q is not None), default=None)
        for part in PARTS:
            host.seconds[part] += worker.seconds[part]
    return list(found.values())


def columns(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table with words aligned left and numbers right."""
    table = [titles, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    words = [not row.replace(".", "").isdigit() for row in rows[0]]
    return [
        "  ".join(
            cell.ljust(width) if word else cell.rjust(width)
            for cell, width, word in zip(row, widths, words, strict=True)
        ).rstrip()
        for row in table
    ]


def span(seconds: float) -> str:
    """Seconds, or hours, minutes and seconds from a minute on."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return str(datetime.timedelta(seconds=round(seconds)))


def info(path: str) -> list[str]:
    """Lines on what a store or an image file holds.

    Raises
    ------
    ValueError
        If there is nothing readable.
    """
    if not stores.is_url(path) and not os.path.exists(path):
        raise InputError(f"{path}: no such file or folder")
    if not nodes.is_store(path):
        drawn = opening.is_annotations(path)
        packed = zipfile.is_zipfile(path) and not (drawn and drawings.is_packed(path))
        # an npz may be an image, or a model whatever its name
        if packed and (images.reader_of(path) is None or _has_model(path)):
            return model(load(path), path)
        return drawings.lines(path) if drawn else _file(path)
    if not ngff.has_image(path) and images.parts(path):
        return _file(path)
    names = ngff.label_names(path)
    lines = []
    if ngff.has_image(path) or not names:
        lines += [f"{path}: image", *ngff.describe(path)]
    else:
        lines += [f"{path}: labels only"]
    for name in names:
        lines += ["", f"labels/{name}", *ngff.describe(f"{path}/labels/{name}")]
        lines += _run(Output(path, name))
    if ngff.has_image(path, "confidence"):
        lines += ["", "confidence", *ngff.describe(f"{path}/confidence")]
    return lines


def _has_model(path: str) -> bool:
    """Whether an archive has a part of the name that models have."""
    with zipfile.ZipFile(path) as archive:
        return "model.npy" in archive.namelist()


def _file(path: str) -> list[str]:
    """Lines on all that an image file holds, also where something has to be chosen from it."""
    parts = images.parts(path)
    lines = [f"{path}: {images.format_of(path)}"]
    for part in parts:
        title = f" {part.title!r}" * bool(part.title)
        lines.append(f"  series {part.name}{title}: {part.axes} {_times(part.shape)}, {part.dtype}")
    with warnings.catch_warnings():
        if parts:  # listed above
            warnings.filterwarnings("ignore", ".*the largest, is read", image_files.FileWarning)
        try:
            image = images.open_image(path)
        except InputError as error:
            try:
                image = images.open_image(path, time_point="all")
            except ValueError:
                return [*lines, f"  {str(error).removeprefix(f'{path}: ')}"]
    lines[0] += f", axes {image.axes}, {image.dtype}"
    return [*lines, *_channels(image), *_levels(image)]


def _channels(image: image_files.Image) -> list[str]:
    if image.color and not image.shown:
        return ["  channels: red, green, blue"]
    named = [c.name or c.color or "without a name" for c in image.shown]
    return [f"  channels: {', '.join(f'{i} {name}' for i, name in enumerate(named))}"] * bool(named)


def _levels(image: image_files.Image) -> list[str]:
    lines = []
    for level, shape in enumerate(image.levels):
        sizes = [s * a / b for s, a, b in zip(image.scale, image.levels[0], shape, strict=True)]
        count = len(image.spatial_axes)  # a time point has no size
        known = any(image.units[-count:])
        size = f", pixel size {_times(sizes[-count:])} {_unit(image)}" if known else ""
        lines.append(f"  level {level}: {image.grid_axes} {_times(shape)}{size}")
    return lines


def _unit(image: image_files.Image) -> str:
    units = image.units[-len(image.spatial_axes) :]
    return " ".join(dict.fromkeys(unit for unit in units if unit))


def _run(out: Output) -> list[str]:
    notes = out.notes()
    if notes is None:
        return ["  not made by tiledlaf"]
    if "tissue" in notes:
        held = notes["tissue"]
        share = 100 * held["share"]
        return [f"  tissue: {share:.1f} %, {held['side']} than {held['threshold']:.4g}"]
    if "objects" in notes:
        return _objects(notes)
    listed = not stores.is_web(out.store)  # a web server lists no records
    journal = records.journal(out.records) if listed else []
    states = [r["state"] for r in records.latest(journal).values()]
    done = states.count("done") + states.count("skipped")
    total = notes.get("tiles", 0)
    lines, changed = [], records.changed(journal)
    if changed:
        lines.append(f"  {CHANGED.format(changed)}")
    if listed:
        lines.append(f"  complete: {done} of {total} tiles ({100 * done / max(total, 1):.1f} %)")
    if done == total and not records.complete(journal):
        lines.append("  lower levels: not complete yet")
    if "failed" in states:
        lines.append(f"  failed: {states.count('failed')} tiles; the same command tries them again")
    if "names" in notes:
        lines.append("  names: " + ", ".join(f"{v} {n}" for v, n in enumerate(notes["names"], 1)))
    for key, value in notes.get("settings", {}).items():
        lines.append(f"  {key}: {value_in_words(key, value)}")
    if "prototypes" in notes:
        lines.append("  prototypes: " + "; ".join(_row(row) for row in notes["prototypes"]))
        lines.append(f"  scale: {notes['scale']:.6g}")
    return lines


def _objects(notes: Mapping[str, Any]) -> list[str]:
    held, made = notes["objects"], notes.get("ready")
    asked = ", ".join(f"{key} {value}" for key, value in held["settings"].items())
    count = f"{held['count']} of the class" if made else "not complete: being made, of the class"
    return [f"  objects: {count} {held['class']} of labels/{held['labels']}", f"  {asked}"]


def _row(row: Sequence[float]) -> str:
    return ", ".join(f"{v:.4g}" for v in row)


def value_in_words(key: str, value: Any) -> str:
    """A setting of a run as it is shown."""
    if key == "neighborhood":
        return f"{len(value)} pixels, radius {_times(radius(value))}"
    if key == "region":
        return ", ".join(f"{a}:{a + n}" for a, n in zip(*value, strict=True))
    if key == "array":
        return f"{value[0]} {value[1]} {_times(value[2])} {value[3]}".strip()
    if key == "integrator":
        return ", ".join([value[0], *(f"{k} {v:g}" for k, v in value[1].items())])
    if key == "calibration":
        return f"{value[0]:g} times the log odds, {value[1]:+g}"
    if key == "channels":
        return "all" if value is None else ", ".join(map(str, value))
    if key == "mask" and isinstance(value, list):  # see labeling/tissue.py
        return f"tissue, found on level {value[1]} at {_times(value[2])} pixels"
    if key in HASHED:
        return f"{value[:8]} (names, sizes and times of its files)"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key == "values":
        return "; ".join(_row(row) for row in value)
    return str(value)


def megapixels(record: Mapping[str, Any], tile: Sequence[int]) -> float:
    """Megapixels of a finished tile, for progress; skipped and failed ones count in full."""
    return (record.get("pixels") or math.prod(tile)) / 1e6
