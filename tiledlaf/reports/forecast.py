"""What a batch will need: megapixels, disk and hours, without writing anything."""

from __future__ import annotations

import dataclasses
import math
import time as clock
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..files import stores
from ..labeling import records, request
from ..labeling import run as labeling_run
from ..labeling.batch import plan_of, reason
from ..labeling.inputs import Item
from ..labeling.plan import Plan, Writing
from ..labeling.resources import needed_bytes, predicted_bytes
from ..pool import opening, tasks
from ..pool.opening import Running
from .text import megapixels, size_in_words, span

SAMPLE = {"y": 512, "x": 512, "z": 16}  # pixels along each axis that are labeled to tell the speed


@dataclass(frozen=True)
class Need:
    """What one image needs.

    Attributes
    ----------
    item, plan : the image, None where it cannot be labeled
    error : why not
    megapixels, left : of the image, and of the tiles that are not finished
    bytes : on the disk, in addition to what is there
    spent : megapixels and seconds of workers that finished tiles took
    """

    item: Item
    plan: Plan | None
    error: str = ""
    megapixels: float = 0.0
    left: float = 0.0
    bytes: float = 0.0
    spent: tuple[float, float] = (0.0, 0.0)

    @property
    def line(self) -> str:
        """The image in a line."""
        if self.plan is None:
            return f"{self.item.title}: cannot be labeled, {self.error}"
        done = self.megapixels - self.left
        share = 100 * done / self.megapixels
        state = "finished" if not self.left else f"{share:.0f} % finished" if done else "new"
        return (
            f"{self.item.title}: {self.megapixels:.1f} megapixels, {len(self.plan.job.grid)} "
            f"tiles, about {size_in_words(self.bytes)} of disk, {state} -> {self.item.output}"
        )


def forecast(
    items: Sequence[Item],
    into: str,
    choice: Mapping[str, Any],
    check: Callable[[Plan], None] = lambda plan: None,
) -> tuple[list[str], bool]:
    """Lines on each image and on all, and whether each can be labeled.

    Parameters
    ----------
    check : refuses images of which something else that is asked for cannot be made
    """
    running = choice.get("running", Running())
    needs = [_need(item, choice, check) for item in items]
    fit = [(need, need.plan) for need in needs if need.plan is not None]
    lines = [need.line for need in needs]
    left, count = sum(need.left for need in needs), len(needs)
    finished = sum(not need.left for need, _ in fit)
    lines.append(
        f"images: {count}, {finished} finished, {count - len(fit)} that cannot be labeled; "
        f"{sum(n.megapixels for n in needs):.1f} megapixels, {left:.1f} left"
    )
    if fit:
        memory = max(predicted_bytes(plan.job) for _, plan in fit)
        lines.append(f"memory of a worker: about {size_in_words(memory)}")
    free = stores.free_bytes(into)
    lines.append(
        f"disk: about {size_in_words(sum(need.bytes for need in needs))} needed at most"
        + (f", {size_in_words(free)} free" if free is not None else "")
    )
    if left:
        lines.append(_time(needs, left, choice, running))
    return lines, len(fit) == count


def _need(item: Item, choice: Mapping[str, Any], check: Callable[[Plan], None]) -> Need:
    try:
        plan = plan_of(item, choice)
        check(plan)
        known = _finished(plan)
        need = needed_bytes(plan)
    except Exception as error:  # of readers of any kind, as in the batch itself
        return Need(item, None, reason(error))
    grid = plan.job.grid
    total = math.prod(grid.size) / 1e6
    done = min(total, sum(megapixels(record, grid.tile) for record in known))
    if known and len(known) == len(grid):
        done = total
    timed = [record for record in known if "seconds" in record]
    spent = (
        sum(megapixels(record, grid.tile) for record in timed),
        sum(sum(record["seconds"]) for record in timed),
    )
    return Need(item, plan, "", total, total - done, need * (total - done) / total, spent)


def _finished(plan: Plan) -> list[dict[str, Any]]:
    """Records of the tiles that earlier starts have finished."""
    if plan.held is None or plan.out is None:
        return []
    known = records.read(plan.out.records, plan.job.grid.shape).values()
    return [record for record in known if record["state"] in records.FINISHED]


def _time(needs: Sequence[Need], left: float, choice: Mapping[str, Any], running: Running) -> str:
    """A line on the hours that are left, and from what they are told."""
    done, seconds = (sum(need.spent[i] for need in needs) for i in (0, 1))
    if done and seconds:
        rate, source = done / seconds, "as the finished tiles took"
    else:
        plan = next(need for need in needs if need.left)
        try:
            rate, pixels = _sampled(plan.item, choice)
        except Exception as error:
            return f"time: not known, a sample could not be labeled: {reason(error)}"
        source = f"as a sample of {pixels} pixels of {plan.item.title} took"
    elsewhere = running.named and running.scheduler not in (opening.THREADS, opening.PROCESSES)
    if elsewhere:
        return (
            f"time: about {span(left / rate)} of one worker, shared by those of the cluster "
            f"({rate:.3g} megapixels a second and worker, {source})"
        )
    workers = opening.cores() if running.workers is None else running.workers
    return (
        f"time: about {span(left / rate / workers)} with {workers} workers ({rate:.3g} megapixels "
        f"a second and worker, {source})"
    )


def _sampled(item: Item, choice: Mapping[str, Any]) -> tuple[float, str]:
    """Megapixels a second of one thread for the middle of an image, and how many pixels that is."""
    writing = Writing(confidence=choice.get("writing", Writing()).confidence)
    # a mask would be searched for in the whole image, and makes a run quicker
    own = {name: value for name, value in item.own.items() if name not in ("mask", "region")}
    rest = {**choice, "writing": writing, "mask": None, "region": None}
    item = dataclasses.replace(item, own=own)
    whole = plan_of(item, rest, written=False).job
    edges = [SAMPLE[axis] for axis in whole.image.spatial_axes]
    sizes = whole.grid.size[whole.front :]
    spans = [((n - min(n, e)) // 2, min(n, e)) for n, e in zip(sizes, edges, strict=True)]
    region = [(0, 1)] * whole.front + [(start, start + count) for start, count in spans]
    plan = plan_of(item, {**rest, "region": region}, written=False)
    with tasks.threads(1) as pool:
        plan = request.settle(plan, pool)
        taken = 0.0
        for _ in range(2):  # the first compiles kernels
            began = clock.perf_counter()
            labeling_run.run_in_memory(plan, pool, writing.confidence)
            taken = clock.perf_counter() - began
    size = [count for _, count in spans]
    return math.prod(size) / 1e6 / max(taken, 1e-6), " x ".join(map(str, size))
