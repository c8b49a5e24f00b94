"""Progress of the runs on an output, read from their notes and records without changing them."""

from __future__ import annotations

import itertools
import math
import os
import platform
import time as clock
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DamagedFile, InputError, in_a_line
from ..files import image as image_files
from ..files import ngff, nodes, stores
from ..labeling import records
from ..labeling.output import Output, is_beside
from ..tiles import Grid, Tile
from ..training import checkpoint

COMPLETE, GOING, CUT, FAILED = "complete", "going", "cut", "failed"
QUIET = 60.0  # seconds without a record that an active run on another host is always allowed
FIRST = 600.0  # the same before the first tile, which waits for workers and compiles kernels
SLOWEST = 5  # number of slowest tiles to list
PARTS = ("read", "compute", "write")
Record = Mapping[str, Any]


@dataclass
class Worker:
    """What one worker did: its tiles, seconds for each part of the work, and peak memory.

    `quiet` is the number of seconds since its last record.
    """

    name: str
    tiles: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    peak_mib: int = 0
    quiet: float | None = None

    def add(self, record: Record, now: float) -> None:
        """Count one more tile."""
        self.tiles += 1
        for part, seconds in zip(PARTS, record.get("seconds", ()), strict=False):
            self.seconds[part] = round(self.seconds[part] + seconds, 4)
        self.peak_mib = max(self.peak_mib, record.get("peak_mib", 0))
        if "time" in record:
            quiet = max(0.0, round(now - record["time"], 1))
            self.quiet = quiet if self.quiet is None else min(self.quiet, quiet)


@dataclass(frozen=True)
class Slow:
    """One of the tiles that took longest; `place` is in pixels of the image."""

    tile: list[int]
    place: str
    seconds: dict[str, float]
    worker: str


@dataclass(frozen=True)
class Labels:
    """Progress of labels/NAME.

    Attributes
    ----------
    state : "complete", "going", "cut" (while making lower levels if no tile is left), or "failed"
        (some tiles failed, none is left)
    tiles : number of all tiles, and of those done, skipped, failed, left
    megapixels : finished, all
    rate : megapixels per second in the second half of the last run, or None before two tiles
    seconds_left : at this rate, None without one
    quiet : seconds since the last record, None before the first
    retries : number of times that tiles were retried
    workers : in the order of their names
    slowest : slowest tiles, the slowest first
    errors : of failed tiles
    changed : the input that changed during a run, if no tile was labeled anew since
    """

    name: str
    state: str
    tiles: dict[str, int]
    megapixels: tuple[float, float]
    rate: float | None
    seconds_left: float | None
    quiet: float | None
    retries: int
    workers: list[Worker]
    slowest: list[Slow]
    errors: list[str]
    changed: str | None = None


@dataclass(frozen=True)
class Training:
    """Progress of a training.

    Attributes
    ----------
    state : "complete", or "going" or "cut" by the age of its checkpoint alone
    step, steps : of the checkpoint or the model, and the number requested
    error : lowest share of wrong pixels in the validation set, None before the first validation
    quiet : seconds since the checkpoint, None where the model is complete
    """

    state: str
    step: int
    steps: int | None
    error: float | None
    quiet: float | None


@dataclass(frozen=True)
class Status:
    """Labels of a store, or the training of a model."""

    path: str
    labels: list[Labels]
    training: Training | None = None

    @property
    def good(self) -> bool:
        """Whether everything is complete or going."""
        states = [one.state for one in self.labels]
        if self.training is not None:
            states.append(self.training.state)
        return all(state in (COMPLETE, GOING) for state in states)


def read(path: str, name: str | None = None) -> Status:
    """Read the progress of an output or a model.

    Parameters
    ----------
    name : of the labels; by default all that this program made in the store

    Raises
    ------
    ValueError
        If there are neither labels of this program nor a model.
    """
    # a training writes only files
    labels = stores.is_url(path) or os.path.isdir(path)
    held = None if labels else checkpoint.progress(path)
    if held is not None:
        return Status(path, [], _training(held))
    return Status(path, [_labels(out, notes) for out, notes in outputs(path, name)])


def labels_of(store: str, name: str | None = None) -> list[Labels]:
    """Progress of the labels of this program in a store, if there are any."""
    return [_labels(out, notes) for out, notes in _noted(store, name)]


def _noted(path: str, name: str | None) -> list[tuple[Output, dict[str, Any]]]:
    known = ngff.label_names(path) if nodes.is_store(path) else []
    found = [Output(path, one) for one in known if name in (None, one)]
    return [(out, notes) for out in found if (notes := out.notes()) and not is_beside(notes)]


def outputs(path: str, name: str | None = None) -> list[tuple[Output, dict[str, Any]]]:
    """Labels of this program in a store, with their notes.

    Raises
    ------
    ValueError
        If there are none.
    """
    url = stores.is_url(path)
    if stores.is_web(path):
        raise InputError(
            f"{path}: expected a place that can be listed, such as s3://bucket/out.zarr"
        )
    if not url and not os.path.exists(path):
        raise InputError(f"{path}: no such file or folder")
    noted = _noted(path, name)
    if not noted:
        which = "labels" if name is None else f"labels/{name}"
        model = "" if url else ", or a model"
        raise InputError(f"{path}: expected an output of tiledlaf with {which}{model}")
    return noted


def times(out: Output, notes: Mapping[str, Any]) -> np.ndarray:
    """Seconds of each tile, shaped like the grid: -inf if skipped, inf if failed, NaN if left."""
    shape = _grid(out, notes)[0].shape
    found = np.full(shape, np.nan)
    for index, record in records.read(out.records, shape).items():
        rest = -math.inf if record["state"] == "skipped" else math.inf
        found[index] = sum(record["seconds"]) if "seconds" in record else rest
    return found


def _grid(out: Output, notes: Mapping[str, Any]) -> tuple[Grid, str]:
    """Tiles of an output, and their axes.

    Raises
    ------
    ValueError
        If its notes do not say them.
    """
    try:
        origin, size = notes["settings"]["region"]
        zero = (0,) * len(size)
        stored, fixed = notes["settings"]["array"][1], notes["settings"].get("fixed", ())
        # the last ones: t stands first, and only where all time points are labeled
        axes = image_files.grid_axes(stored, fixed)[-len(size) :]
        # cores do not depend on the halo
        return Grid(tuple(size), tuple(origin), tuple(size), tuple(notes["tile"]), zero), axes
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise DamagedFile(
            f"{out.store}: expected notes on the tiles of labels/{out.name}, got {in_a_line(error)}"
        ) from None


def _labels(out: Output, notes: Mapping[str, Any]) -> Labels:
    place = out.records
    # the lock first: otherwise a run that ends in between would seem cut
    held, journal, now = records.is_locked(place), records.journal(place), clock.time()
    lines = [line for line in journal if "tile" in line]
    grid, axes = _grid(out, notes)
    known = records.latest(journal, grid.shape)

    def megapixels(some: Sequence[Record]) -> float:
        return sum(_pixels(grid.tile_at(r["tile"])) for r in some) / 1e6

    count = {s: sum(r["state"] == s for r in known.values()) for s in ("done", "skipped", "failed")}
    left = len(grid) - sum(count.values())
    finished = [r for r in known.values() if r["state"] in records.FINISHED]
    total = math.prod(grid.size) / 1e6
    lines = [line for line in lines if records.inside(line["tile"], grid.shape)]
    run = [r for r in lines if r.get("run") == lines[-1].get("run")]
    rate, to_do = None, total - megapixels(finished)
    if len(run) > 1 and "after" in run[-1]:
        # the first half includes the start of workers and the compilation of kernels
        half = run[-1]["after"] / 2
        rate = megapixels([r for r in run if r["after"] > half]) / max(half, 1e-3)
    quiet = None if not journal else now - journal[-1].get("time", 0.0)
    last = [line for line in journal if line.get("run") == journal[-1].get("run")]
    if _going(held, last, quiet, stores.is_url(out.store)):
        state = GOING
        # tiles that failed in this run are not retried within it
        run = [line for line in lines if line.get("run") == journal[-1].get("run")]
        to_do -= megapixels([r for r in run if known.get(tuple(r["tile"])) is r and "error" in r])
    else:
        ended = FAILED if count["failed"] else COMPLETE if records.complete(journal) else CUT
        state = CUT if left else ended

    workers: dict[str, Worker] = {}
    for record in known.values():
        if "worker" in record:
            worker = record["worker"]
            workers.setdefault(worker, Worker(worker)).add(record, now)
    timed = [r for r in known.values() if "seconds" in r]
    slowest = sorted(timed, key=lambda r: sum(r["seconds"]), reverse=True)[:SLOWEST]
    return Labels(
        out.name,
        state,
        {"all": len(grid), **count, "left": left},
        (round(megapixels(finished), 6), round(total, 6)),
        None if rate is None else round(rate, 6),
        None if not rate else round(max(to_do, 0.0) / rate, 1),
        None if quiet is None else max(0.0, round(quiet, 1)),
        sum(r.get("retries", 0) for r in lines),
        [workers[name] for name in sorted(workers)],
        [
            Slow(
                r["tile"],
                grid.place(grid.tile_at(r["tile"]), axes),
                dict(zip(PARTS, r["seconds"], strict=True)),
                r.get("worker", ""),
            )
            for r in slowest
        ],
        [r.get("error", "") for r in known.values() if r["state"] == "failed"],
        records.changed(journal),
    )


def _pixels(tile: Tile) -> int:
    return math.prod(c.stop - c.start for c in tile.core)


def _going(held: bool | None, run: Sequence[Record], quiet: float | None, objects: bool) -> bool:
    """Whether a run is active, by its lock or, where that is not visible, by its last record."""
    if held or quiet is None or run[-1].get("stage") in (records.COMPLETE, records.ENDED):
        return bool(held)
    host = str(run[-1].get("run", "")).rpartition(":")[0]
    if held is False and host == platform.node():
        return False
    # a run that was silent for long once may be so again
    after = [0.0, *(r.get("after", 0.0) for r in run)]
    longest = max(b - a for a, b in itertools.pairwise(after))
    patience = max(QUIET if any("tile" in r for r in run) else FIRST, 4 * longest)
    # on object stores records are written in batches, so one may be due only later
    return quiet < patience + (records.between(after[-1]) if objects else 0.0)


def _training(held: checkpoint.Progress) -> Training:
    state, quiet = COMPLETE, None
    if held.path is not None:
        quiet = max(0.0, clock.time() - Path(held.path).stat().st_mtime)
        state = GOING if quiet < max(QUIET, 4 * held.seconds) else CUT
    return Training(state, held.step, held.steps, held.error, quiet and round(quiet, 1))
