"""Carry out a plan tile by tile, and sum up what was done."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import time as clock
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import InputChanged
from ..files import fingerprints, levels, stores, units, versions
from ..files.image import Image
from ..files.selection import pixel_size
from ..model import terms
from ..model.classes import color
from ..pool import tasks
from ..pool.tasks import Pool
from ..redaction import shown
from ..tiles import Tile
from . import beside, blocks, claiming, overview, records
from . import mask as run_mask
from .areas import Area, areas
from .output import STAMP, Output
from .plan import Plan
from .records import Appender
from .worker import Job, checker, label_tile, place, run_tile

Progress = Callable[[dict[str, Any]], None]
LOOK = 5.0  # seconds between two looks at whether labels on an object store are still this run's
TASK = 2**20  # pixels of small tiles that share a task, so that its overhead stays small


@dataclass
class Summary:
    """What a run did, including the tiles of earlier starts.

    Attributes
    ----------
    tiles : number of tiles by state: done, skipped, failed
    pixels : number of pixels of each label value, those without a label first
    proven : labeled pixels whose label is certain, None where the integrator has no bound
    seconds : duration of this start
    output : path of the store
    fresh : number of pixels that this start has labeled
    tissue : what was found as tissue, if that is the mask
    areas : pixels, share and area of each class, those without a label first
    axes : 2 of areas, 3 of volumes
    overview : path of a picture of image and labels, None where there is none
    unsure : pixels that have no label since their confidence is too low, None where none can be
    """

    tiles: dict[str, int]
    pixels: list[int]
    proven: int | None
    seconds: float
    output: str
    errors: list[str] = field(default_factory=list)
    fresh: int = 0
    tissue: Mapping[str, Any] | None = None
    areas: Sequence[Area] = ()
    axes: int = 2
    overview: str | None = None
    unsure: int | None = None

    @property
    def rate(self) -> float:
        """Pixels that this start has labeled per second."""
        return self.fresh / self.seconds

    @property
    def complete(self) -> bool:
        """Whether no tile failed or is left."""
        return not self.errors


def run(plan: Plan, pool: Pool, progress: Progress | None = None) -> Summary:
    """Label all tiles that are not finished, write the lower levels, and sum up.

    Parameters
    ----------
    plan : from `make_plan`, settled
    progress : called with the record of each tile as it finishes
    """
    started = clock.perf_counter()
    assert plan.out is not None, "a plan without an output: run it in memory"
    fingerprint = fingerprints.fingerprint(plan.settings)
    out = _started(plan, plan.out, fingerprint)
    old = records.journal(out.records)
    known = _known(plan, old)
    before = sum(r.get("pixels", 0) for r in known.values())
    length, ended = len(old), records.complete(old)
    del old  # a kilobyte a tile

    def finished(tile: Tile) -> bool:
        return known.get(tile.index, {}).get("state") in records.FINISHED

    # a run on a complete output changes no file
    idle = ended and all(map(finished, plan.job.grid))
    with _appending(out) as log:

        def tell(stage: str, **more: str) -> None:
            if not idle:
                tasks.retried(lambda log, stage: log.mark(stage, **more), log, stage)

        tell(records.BEGUN, versions=versions.installed())
        if not idle:  # labels of another content than the picture's
            beside.remove(out, plan.paths)
        notes = {"fingerprint": fingerprint, "tile": list(plan.job.grid.tile)}
        out, job = _stamped(out, run_mask.write(plan, out), notes)
        if not idle:
            job = blocks.shared(job, out, pool)
        left = (tile.index for tile in job.grid if not finished(tile))
        with _mine(out):
            _label(job, out, pool, left, len(known), log, known, progress)

            def still() -> None:
                if log.due():
                    tell(records.LEVELS)

            _write_levels(job, out.store, pool, still)
        out.finish(notes, job.picture, job.confidence is not None)
        if not idle:
            _check_inputs(plan, log)
        found = summarize(plan, known, before)
        # before the run counts as complete: one that is cut here draws it when it is continued
        found.overview = overview.finish(plan, out, found.areas, found.tiles["failed"])
        complete = all(map(finished, job.grid))
        tell(records.COMPLETE if complete else records.ENDED)
    if complete:
        blocks.remove(out)
    if complete and not stores.is_url(out.store):
        since = itertools.islice(records.entries(out.records), length, None)
        out.remove_parts(alone=all(r.get("run") == log.run for r in since))
    found.seconds = clock.perf_counter() - started
    return found


def _known(plan: Plan, journal: Sequence[dict[str, Any]]) -> dict[Any, dict[str, Any]]:
    """Records of tiles that count: of finished ones those whose files are still whole."""
    shape, classes = plan.job.grid.shape, plan.job.term.classes
    known = records.latest(journal, shape)
    whole = checker(plan.job)
    return (
        {
            index: records.kept(record)
            for index, record in known.items()
            if record["state"] not in records.FINISHED
            or (_adds_up(record, classes) and whole(record))
        }
        if known
        else known
    )


def _adds_up(record: Mapping[str, Any], classes: int) -> bool:
    """Whether what a finished tile's record says of its pixels can be summed up."""
    if record["state"] != "done" or "bytes" not in record:  # of an older version, and trusted
        return len(record.get("counts", range(classes + 1))) == classes + 1
    counts = record.get("counts", ())
    return (
        len(counts) == classes + 1
        and sum(counts) == record.get("pixels")
        and 0 <= record.get("proven", -1) <= sum(counts)
        and record.get("unsure", 0) <= counts[0]
    )


@contextmanager
def _appending(out: Output) -> Iterator[Appender]:
    """Open the records, which another start may just have in hand."""
    for wait in units.WAITS:
        clock.sleep(wait)
        if stores.is_url(out.store) or os.path.isdir(os.path.dirname(out.records)):
            break
    try:
        with records.appending(out.records) as log:
            out.check_mine()
            yield log
    except FileNotFoundError:
        out.check_mine()
        raise


def _stamped(out: Output, job: Job, notes: Mapping[str, Any]) -> tuple[Output, Job]:
    """The output of this start, and what its workers must know to write into no other."""
    if not out.stamp:  # of an older version
        out = dataclasses.replace(out, stamp=out.found_stamp() or "")
    out.check_run(notes)
    if stores.is_url(out.store):
        return out, job
    stamps = {"labels": out.stamp, "confidence": out.found_stamp("confidence") or ""}
    return out, dataclasses.replace(
        job,
        **{
            name: dataclasses.replace(pyramid, stamp=stamps[name])
            for name in stamps
            if (pyramid := getattr(job, name)) is not None
        },
    )


@contextmanager
def _mine(out: Output) -> Iterator[None]:
    """Where files cannot be written, say so if the labels are gone or another start's."""
    try:
        yield
    except (OSError, ValueError):
        out.check_mine()
        raise


def _label(
    job: Job,
    out: Output,
    pool: Pool,
    left: Iterator[tuple[int, ...]],
    held: int,
    log: Appender,
    known: dict[Any, dict[str, Any]],
    progress: Progress | None,
) -> None:
    """Label tiles, and record each."""
    fair = (len(job.grid) - held) // (8 * pool.workers)
    batch = max(min(TASK // math.prod(job.grid.tile), fair), 1)
    looked = clock.monotonic()

    def finished(index: tuple[int, ...]) -> bool:
        return known.get(index, {}).get("state") in records.FINISHED

    for index, record, error, retries in pool.run(run_tile, job, left, batch):
        if error is not None:
            if isinstance(error, OSError):
                out.check_mine()
            where = place(job, job.grid.tile_at(index))
            text = shown(f"{where}: {type(error).__name__}: {error}")
            record = {"tile": list(index), "state": "failed", "error": text}
        if retries:
            record["retries"] = retries
        tasks.retried(Appender.add, log, record)
        known[tuple(index)] = records.kept(record)
        blocks.release(job, index, finished)
        if stores.is_url(out.store) and clock.monotonic() - looked > LOOK:
            out.check_mine()
            looked = clock.monotonic()
        if progress is not None:
            progress(record)


def _check_inputs(plan: Plan, log: Appender) -> None:
    """Refuse labels of inputs that changed during the run, and record that they do not count."""
    changed = plan.changed()
    if changed:
        tasks.retried(_mark_changed, log, shown(changed[0]))
        raise _input_changed(changed[0], "once it no longer changes, choose another OUTPUT")


def _input_changed(path: str, advice: str) -> InputChanged:
    return InputChanged(
        f"{path} changed during the run, so its labels are not to be trusted; {advice}"
    )


def _mark_changed(log: Appender, path: str) -> None:
    log.mark(records.CHANGED, error=path)


def _write_levels(job: Job, store: str, pool: Pool, still: Callable[[], None]) -> None:
    """Write the levels that tiles cannot write; `still` is called as units are done."""
    for pyramid, reduce in (
        (job.picture, levels.mean),
        (job.labels, levels.nearest),
        (job.confidence, levels.nearest),
    ):
        for work in [] if pyramid is None else levels.coarse(store, pyramid, reduce):
            for _, _, error, _ in pool.run(levels.finish, work, work.units):
                if error is not None:
                    raise error
                still()


def _started(plan: Plan, out: Output, fingerprint: str) -> Output:
    """The output with its arrays made, or found as an earlier start of the same run left them."""
    job = plan.job
    assert job.labels is not None
    if plan.held is None:
        notes: dict[str, Any] = {
            "settings": plan.settings,
            "fingerprint": fingerprint,
            "tile": list(job.grid.tile),
            "tiles": len(job.grid),
            "source": _source(job.image),
        }
        if plan.classes:
            notes["values"] = [list(one.values) for one in plan.classes]
            notes["colors"] = [list(one.color or color(v)) for v, one in enumerate(plan.classes, 1)]
        notes |= terms.settled(job.term).notes()
        out = claiming.start(
            out,
            notes,
            plan.image_print,
            job.labels,
            job.picture,
            job.confidence,
            plan.names,
            plan.before,
            plan.paths,
        )
        out.remove_objects()
        return out
    out = dataclasses.replace(out, stamp=(plan.before or {}).get(STAMP, ""))
    notes = {"tile": list(job.grid.tile)}
    claiming.restore(out, notes, plan.image_print, job.labels, job.picture, job.confidence)
    if plan.held.get("names") != list(plan.names.values()):
        out.describe(plan.held, plan.names, job.labels)
    return out


def _source(image: Image) -> dict[str, Any]:
    """Where the labels are in the image: what a truth of its own size, or annotations, need."""
    return {
        "name": os.path.basename(image.path.rstrip("/")),
        "whole": list(image.whole),
        "grid": list(image.grid),
        "fixed": [list(pair) for pair in image.fixed],
    }


def summarize(
    plan: Plan, known: Mapping[Any, Mapping[str, Any]], before: int = 0, seconds: float = 0.0
) -> Summary:
    """Add up the records of all tiles; `before` pixels were labeled by earlier starts."""
    states = [r["state"] for r in known.values()]
    counts = np.zeros(plan.job.term.classes + 1, np.int64)
    for record in known.values():
        counts += np.array(record.get("counts", 0), np.int64)
    counts[0] = math.prod(plan.job.grid.size) - counts[1:].sum()  # masked out, skipped or failed
    proven = sum(r.get("proven", 0) for r in known.values())
    return Summary(
        {state: states.count(state) for state in ("done", "skipped", "failed")},
        counts.tolist(),
        None if plan.job.settings.bound is None else proven,
        seconds,
        plan.out.store if plan.out else "",
        [r["error"] for r in known.values() if r["state"] == "failed"],
        sum(r.get("pixels", 0) for r in known.values()) - before,
        plan.tissue,
        areas(counts.tolist(), plan.names, pixel_size(plan.job.image)),
        len(plan.job.image.spatial_axes),
        unsure=None
        if plan.job.settings.least is None
        else sum(r.get("unsure", 0) for r in known.values()),
    )


def run_in_memory(
    plan: Plan, pool: Pool, confidence: bool, progress: Progress | None = None
) -> Any:
    """Label all tiles into arrays of this process.

    Raises
    ------
    ValueError
        If a tile fails.
    InputChanged
        If a file that they are of has changed meanwhile.
    """
    labels = np.zeros(plan.job.grid.size, np.min_scalar_type(plan.job.term.classes))
    certain = np.zeros(labels.shape if confidence else (0,) * labels.ndim, np.float32)
    for tile, found, error, _ in pool.run(label_tile, plan.job, plan.job.grid):
        if error is not None:
            raise error
        if found is not None:
            labels[tile.core] = found.labels
            if found.confidence is not None:
                certain[tile.core] = found.confidence
        if progress is not None:
            progress({"tile": list(tile.index), "state": "done", "pixels": labels[tile.core].size})
    changed = plan.changed()
    if changed:
        raise _input_changed(changed[0], "label it once it no longer changes")
    return (labels, certain) if confidence else labels
