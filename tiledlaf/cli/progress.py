"""Progress of runs: a bar on a terminal, otherwise lines."""

from __future__ import annotations

import math
import sys
import time as clock
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click

from ..redaction import plain
from . import shared

BETWEEN = 10.0  # seconds from one line to the next, where there is no terminal


@contextmanager
def warnings_as_lines(worded: Callable[[str], str]) -> Iterator[None]:
    """Show each warning as one line, once; `worded` puts options for keywords."""
    import warnings

    shown: set[str] = set()

    def show(message: Any, *rest: Any, **more: Any) -> None:
        text = " ".join(worded(str(message)).split())
        if text not in shown:
            shown.add(text)
            shared.echo(f"tiledlaf: warning: {text}", err=True)

    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = show
        yield


class _Stages:
    """A bar of the stage that some work is in; or, without a terminal, a line now and then."""

    def __init__(self, bar: Any, terminal: bool) -> None:
        self.bar, self.terminal = bar, terminal
        self.shown: tuple[str, int] | None = None
        self.began = self.told = clock.monotonic()

    def show(self, record: Mapping[str, Any]) -> None:
        """Show how far a stage is."""
        stage, done, of = plain(record["stage"]), record["done"], record["of"]
        if self.shown != (stage, of):
            self.shown, self.began = (stage, of), clock.monotonic()
            self.bar.reset(of)
            self.bar.set_description_str(stage, refresh=False)
        self.bar.update(done - self.bar.n)
        now = clock.monotonic()
        if self.terminal or now - self.told < BETWEEN:
            return
        self.told = now
        left = f", {(now - self.began) / done * (of - done):.0f} s left" if done else ""
        shared.echo(f"{stage}: {done}/{of}{left}", err=True)


@contextmanager
def training_progress(steps: int) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A bar on a terminal of what is read and of steps; a line for each stage and validation."""
    from tqdm import tqdm

    from ..reports import text as report_text

    command = click.get_current_context().command
    terminal, began = sys.stderr.isatty(), 0.0
    first: int | None = None
    before = 0
    with tqdm(total=steps, disable=not terminal, file=sys.stderr, leave=False) as bar:
        reading = _Stages(bar, terminal)

        def show(record: Mapping[str, Any]) -> None:
            nonlocal first, began, before
            if "of" in record:
                reading.show(record)
                return
            step, left = record.get("step"), None
            if step is not None:
                # the first step includes compiling: only later ones tell how long one takes
                if first is None or step <= before:  # or learning began again, from all tiles
                    first, began = step, clock.monotonic()
                    bar.reset(record["steps"])
                    bar.set_description_str("", refresh=False)
                elif step > first:
                    left = (clock.monotonic() - began) / (step - first) * (record["steps"] - step)
                before = step
                bar.update(step - bar.n)
            for line in report_text.training(record, left):
                tqdm.write(plain(shared.with_options(line, command)), file=sys.stderr)

        yield show


@contextmanager
def stages() -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A bar on a terminal for each stage of some work; or, without one, a line every 10 s."""
    from tqdm import tqdm

    terminal = sys.stderr.isatty()
    with tqdm(disable=not terminal, file=sys.stderr, leave=False) as bar:
        yield _Stages(bar, terminal).show


@contextmanager
def labeling_progress(plan: Any, title: str = "") -> Iterator[Callable[[dict[str, Any]], None]]:
    """A bar with megapixels per second and time left; or, without a terminal, a line every 10 s.

    Parameters
    ----------
    title : what stands before it
    """
    from tqdm import tqdm

    from ..reports import text as report_text

    grid = plan.job.grid
    total = math.prod(grid.size) / 1e6
    start = min(total, _finished(plan) if plan.held else 0.0)
    if sys.stderr.isatty():
        form = (
            "{percentage:3.0f}%|{bar}| {n:.1f}/{total:.1f} Mpx, {rate_noinv_fmt}, {remaining} left"
        )
        form = plain(title).replace("{", "{{").replace("}", "}}") + form
        with tqdm(total=total, initial=start, unit="Mpx", bar_format=form, file=sys.stderr) as bar:
            yield lambda record: _advance(bar, report_text.megapixels(record, grid.tile))
        return
    began = last = clock.monotonic()
    done = 0.0

    def line(record: dict[str, Any]) -> None:
        nonlocal last, done
        done += report_text.megapixels(record, grid.tile)
        now = clock.monotonic()
        if now - last >= BETWEEN:
            last, rate = now, done / (now - began)
            left = max(0.0, total - start - done) / rate
            now_done = min(total, start + done)
            shared.echo(
                f"{title}{now_done:.1f}/{total:.1f} Mpx, {rate:.2f} Mpx/s, {left:.0f} s left",
                err=True,
            )

    yield line


def _finished(plan: Any) -> float:
    """Megapixels of tiles that earlier starts have finished; the run keeps no record of them."""
    from ..labeling import records
    from ..reports import text as report_text

    known = records.read(plan.out.records).values()
    finished = (r for r in known if r["state"] in records.FINISHED)
    return sum(report_text.megapixels(r, plan.job.grid.tile) for r in finished)


def _advance(bar: Any, amount: float) -> None:
    bar.update(min(amount, bar.total - bar.n))
