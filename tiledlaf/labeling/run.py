"""Carry out a plan tile by tile, and sum up what was done."""

from __future__ import annotations

import math
import os
import time as clock
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..files import fingerprints, levels, stores
from ..files.image import Image
from ..model import terms
from ..model.classes import color
from ..pool import tasks
from ..pool.tasks import Pool
from ..redaction import redacted
from ..tiles import Tile
from . import records, tissue
from .output import Output
from .plan import Plan
from .records import Appender
from .worker import Job, checker, label_tile, place, run_tile

Progress = Callable[[dict[str, Any]], None]
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
    """

    tiles: dict[str, int]
    pixels: list[int]
    proven: int | None
    seconds: float
    output: str
    errors: list[str] = field(default_factory=list)
    fresh: int = 0
    tissue: Mapping[str, Any] | None = None

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
    out = plan.out
    assert out is not None, "a plan without an output: run it in memory"
    fingerprint = fingerprints.fingerprint(plan.settings)
    out = _started(plan, out, fingerprint)
    job = tissue.write(plan, out)
    old = records.journal(out.records)
    known = records.latest(old)
    if known:
        whole = checker(job)
        known = {
            index: record
            for index, record in known.items()
            if record.get("state") not in records.FINISHED or whole(record)
        }

    def finished(tile: Tile) -> bool:
        return known.get(tile.index, {}).get("state") in records.FINISHED

    # a run on a complete output changes no file
    idle = records.complete(old) and all(map(finished, job.grid))
    left = (tile.index for tile in job.grid if not finished(tile))
    fair = (len(job.grid) - len(known)) // (8 * pool.workers)
    before = sum(r.get("pixels", 0) for r in known.values())
    batch = max(min(TASK // math.prod(job.grid.tile), fair), 1)
    with records.appending(out.records) as log:

        def tell(stage: str) -> None:
            if not idle:
                tasks.retried(Appender.mark, log, stage)

        tell(records.BEGUN)
        for index, record, error, retries in pool.run(run_tile, job, left, batch):
            if error is not None:
                where = place(job, job.grid.tile_at(index))
                text = redacted(f"{where}: {type(error).__name__}: {error}")
                record = {"tile": list(index), "state": "failed", "error": text}
            if retries:
                record["retries"] = retries
            tasks.retried(Appender.add, log, record)
            known[tuple(index)] = record
            if progress is not None:
                progress(record)

        def still() -> None:
            if log.due():
                tell(records.LEVELS)

        _write_levels(job, out.store, pool, still)
        out.finish(fingerprint, job.grid.tile, job.picture, job.confidence is not None)
        complete = all(map(finished, job.grid))
        tell(records.COMPLETE if complete else records.ENDED)
    if complete and not stores.is_url(out.store):
        since = records.journal(out.records)[len(old) :]
        out.remove_parts(alone=all(r.get("run") == log.run for r in since))
    return summarize(plan, known, clock.perf_counter() - started, before)


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
        return out.start(
            notes,
            plan.image_print,
            job.labels,
            job.picture,
            job.confidence,
            plan.names,
            plan.before,
        )
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
    plan: Plan, known: Mapping[Any, Mapping[str, Any]], seconds: float, before: int = 0
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
    )


def run_in_memory(
    plan: Plan, pool: Pool, confidence: bool, progress: Progress | None = None
) -> Any:
    """Label all tiles into arrays of this process; raises ValueError if a tile fails."""
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
    return (labels, certain) if confidence else labels
