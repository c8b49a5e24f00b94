"""What a run costs beside its tiles: empty tiles by the real scheduling path, simulated workers.

``python pipelines/simulation.py`` labels virtual images of 100 to 100,000 tiles with a function of
no cost in place of the kernels: plan, tasks, records and levels are those of each run. It measures
time and memory of client and scheduler, each a process of its own. Then tiles that sleep run on 1
to 64 simulated workers, until the scheduler is the limit. It leaves tables (CSV, JSON) and curves.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import dataclasses
import json
import math
import subprocess
import sys
import tempfile
import time as clock
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tiledlaf.files import images
from tiledlaf.labeling import choice, sample
from tiledlaf.labeling import run as labeling_run
from tiledlaf.labeling.plan import Plan, make_plan
from tiledlaf.labeling.worker import Job, run_tile
from tiledlaf.model import settings
from tiledlaf.pool import opening
from tiledlaf.pool.tasks import Pool

EDGE = 1024  # of a tile: each is a task
CLASSES = 4


@dataclass(frozen=True)
class Effort:
    """How much is simulated.

    Attributes
    ----------
    tiles : empty ones, run by run
    workers : simulated ones, run by run
    sleep : seconds of a tile on these
    each : tiles a worker
    before : tiles that precede the empty ones
    """

    tiles: tuple[int, ...] = (100, 1_000, 10_000, 100_000)
    workers: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    sleep: float = 0.05
    each: int = 100
    before: int = 1_000


FULL = Effort()
SMALL = Effort((10, 40), (1, 2), 0.02, 10, 10)


# tiles that cost nothing


def empty(job: Job, index: tuple[int, ...]) -> dict[str, Any]:
    """The record that a labeled tile would have."""
    pixels = math.prod(c.stop - c.start for c in job.grid.tile_at(index).core)
    return {
        "tile": list(index),
        "state": "done",
        "pixels": pixels,
        "counts": [0, pixels, *([0] * (CLASSES - 1))],
        "proven": pixels,
        "seconds": [0.0, 0.0, 0.0],
        "peak_mib": 0,
    }


@dataclass(frozen=True)
class Asleep:
    """A tile that takes some seconds of a worker, and none of its processor's."""

    seconds: float

    def __call__(self, job: Job, index: tuple[int, ...]) -> dict[str, Any]:
        """The record of a tile."""
        clock.sleep(self.seconds)
        return empty(job, index)


def virtual(folder: Path, tiles: int) -> Plan:
    """A run over an image of so many tiles; a Zarr array without a chunk holds it."""
    import zarr

    rows = max(n for n in range(1, math.isqrt(tiles) + 1) if tiles % n == 0)
    source = folder / "image.zarr"
    zarr.create_array(
        source,
        shape=(rows * EDGE, tiles // rows * EDGE),
        shards=(EDGE,) * 2,
        chunks=(256,) * 2,
        dtype="uint8",
        dimension_names=("y", "x"),
    )
    return make_plan(
        images.open_image(str(source)),
        str(folder / "out.zarr"),
        term=choice.data_term(None, [[50.0 * n] for n in range(1, CLASSES + 1)], None, 0),
        settings=settings.make_settings("3x3", 2, 1.0, 5.0, None, "cpu"),
        tile=EDGE,
    )


def instead(pool: Pool, function: Callable[..., Any]) -> Pool:
    """The same workers, which run another function where a tile would be labeled."""

    def run(asked: Any, *arguments: Any) -> Iterator[Any]:
        return pool.run(function if asked is run_tile else asked, *arguments)

    return dataclasses.replace(pool, run=run)


# processes


@contextmanager
def started(*arguments: Any) -> Iterator[subprocess.Popen[str]]:
    """A process of Python, which ends with the block."""
    process = subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


async def host(address: str, count: int) -> None:
    """Simulated workers: Dask's own, all in this process, a connection and a thread each."""
    import dask
    from distributed import Worker

    with dask.config.set({"distributed.worker.profile.enabled": False}):
        workers = await asyncio.gather(
            *(Worker(address, nthreads=1, dashboard=False, memory_limit=0) for _ in range(count))
        )
        await asyncio.gather(*(worker.finished() for worker in workers))


def peak(pid: int) -> int:
    """Most bytes that a process has held."""
    status = Path(f"/proc/{pid}/status")
    if status.is_file():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
    return int(psutil.Process(pid).memory_info().rss)


def spent(pid: int) -> float:
    """Seconds of processors that a process has used."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def measure(
    workers: int,
    scheduler: str | None,
    tiles: int,
    sleep: float,
    others: dict[str, int],
    before: int,
) -> dict[str, Any]:
    """Run tiles, and what this process and others spend on them.

    Parameters
    ----------
    scheduler : address; None: the processes that a plain ``tiledlaf label`` starts
    others : number of each process by name
    before : tiles that come first and are not counted
    """
    watched = {"client": psutil.Process().pid} | others
    function: Any = Asleep(sleep) if sleep else empty
    with (
        tempfile.TemporaryDirectory() as name,
        opening.open_pool(workers, scheduler or "processes", None) as pool,
    ):
        # the first tiles load libraries on all sides, and fill the logs of the scheduler, which
        # keep the last thousand of each kind of event
        (Path(name) / "first").mkdir()
        first = sample.settle(virtual(Path(name) / "first", before))
        labeling_run.run(first, instead(pool, function))
        plan = sample.settle(virtual(Path(name), tiles))
        start = {who: (spent(pid), peak(pid)) for who, pid in watched.items()}
        found = labeling_run.run(plan, instead(pool, function))
        end = {who: (spent(pid), peak(pid)) for who, pid in watched.items()}
    assert found.tiles == {"done": tiles, "skipped": 0, "failed": 0}
    row: dict[str, Any] = {"tiles": tiles, "workers": pool.workers, "seconds": found.seconds}
    for who in watched:
        (cpu, held), (more, most) = start[who], end[who]
        row |= {f"{who} seconds": more - cpu, f"{who} bytes": most - held, f"{who} peak": most}
    return row


def alone(workers: int, tiles: int, sleep: float, apart: bool, before: int) -> dict[str, Any]:
    """Measure in fresh processes: scheduler, workers and client, or as ``tiledlaf label`` does."""
    asked: dict[str, Any] = {
        "workers": workers,
        "tiles": tiles,
        "sleep": sleep,
        "scheduler": None,
        "others": {},
        "before": before,
    }
    if not apart:
        return answer(asked)
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "scheduler.json"
        with started(
            "-m",
            "dask",
            "scheduler",
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            "--no-dashboard",
            "--scheduler-file",
            file,
        ) as scheduler:
            while not file.exists():
                assert scheduler.poll() is None, "the scheduler ended"
                clock.sleep(0.1)
            address = json.loads(file.read_text())["address"]
            with started(__file__, "--host", address, workers) as hosts:
                others = {"scheduler": scheduler.pid, "workers": hosts.pid}
                return answer(asked | {"scheduler": address, "others": others})


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    """What a client in a process of its own has measured."""
    found = subprocess.run(
        [sys.executable, __file__, "--measure", json.dumps(asked)], capture_output=True, text=True
    )
    if found.returncode:
        raise SystemExit(found.stderr)
    return dict(json.loads(found.stdout))


# tables and curves


def costs(effort: Effort) -> Iterator[dict[str, Any]]:
    """Of empty tiles: client and scheduler apart, then in one process."""
    for apart in (True, False):
        for tiles in effort.tiles:
            found = alone(2, tiles, 0, apart, effort.before)
            row: dict[str, Any] = {
                "processes": "apart" if apart else "together",
                "tiles": tiles,
                "ms a tile": 1e3 * found["seconds"] / tiles,
            }
            for who in ("client", "scheduler"):
                if f"{who} seconds" in found:
                    row |= {
                        f"{who} ms a tile": 1e3 * found[f"{who} seconds"] / tiles,
                        f"{who} KiB a tile": found[f"{who} bytes"] / 1024 / tiles,
                        f"{who} MiB": found[f"{who} peak"] / 2**20,
                    }
            yield row


def scaling(effort: Effort) -> Iterator[dict[str, Any]]:
    """Of tiles that sleep, on more and more workers."""
    for workers in effort.workers:
        found = alone(workers, effort.each * workers, effort.sleep, True, 4 * workers)
        rate = found["tiles"] / found["seconds"]
        yield {
            "workers": workers,
            "tiles": found["tiles"],
            "tiles a second": rate,
            "share of all": rate * effort.sleep / workers,
            **{
                f"{who} busy": found[f"{who} seconds"] / found["seconds"]
                for who in ("client", "scheduler", "workers")
            },
        }


def say(row: dict[str, Any]) -> None:
    """One line, at once."""
    text = (f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())
    print(", ".join(text), flush=True)


def draw(
    costs: Sequence[dict[str, Any]], scaling: Sequence[dict[str, Any]], sleep: float, path: Path
) -> None:
    """Time and memory a tile, and tiles a second."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (time, memory, rate) = pyplot.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
    apart, together = (
        [r for r in costs if r["processes"] == kind] for kind in ("apart", "together")
    )
    for axes, unit in ((time, "ms a tile"), (memory, "KiB a tile")):
        for rows, key, name in (
            (apart, f"client {unit}", "client"),
            (apart, f"scheduler {unit}", "scheduler"),
            (together, f"client {unit}", "both in one process"),
        ):
            axes.plot([r["tiles"] for r in rows], [r[key] for r in rows], "o-", label=name)
        axes.set(xscale="log", xlabel="tiles", ylabel=unit)
    time.plot([r["tiles"] for r in apart], [r["ms a tile"] for r in apart], "k:", label="elapsed")
    time.set(ylim=(0, None), title="processor time of empty tiles")
    memory.set(yscale="symlog", title="peak memory above that before the run")
    workers = [r["workers"] for r in scaling]
    rate.plot(workers, [r["tiles a second"] for r in scaling], "o-", label="reached")
    rate.plot(workers, [n / sleep for n in workers], "k:", label="workers never wait")
    rate.set(
        xscale="log",
        yscale="log",
        xlabel="simulated workers",
        ylabel="tiles a second",
        title=f"tiles that sleep {1e3 * sleep:g} ms",
    )
    for axes in (time, memory, rate):
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


def write(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """A table as CSV."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """Simulate, and leave tables and curves."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--small", action="store_true", help="few tiles: seconds")
    parser.add_argument(
        "--output", type=Path, default=Path("simulation"), help="folder (simulation)"
    )
    parser.add_argument("--only", choices=("costs", "scaling"), help="one of the two tables (both)")
    parser.add_argument("--host", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.host:
        asyncio.run(host(args.host[0], int(args.host[1])))
        return
    if args.measure:
        print(json.dumps(measure(**json.loads(args.measure))))
        return
    effort = SMALL if args.small else FULL
    args.output.mkdir(parents=True, exist_ok=True)
    file = args.output / "simulation.json"
    about: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    about |= {"small": args.small, "sleep": effort.sleep, "tile": EDGE}
    for name, rows in (("costs", costs), ("scaling", scaling)):
        if args.only in (None, name):
            about[name] = []
            for row in rows(effort):
                say(row)
                about[name].append(row)
            write(about[name], args.output / f"{name}.csv")
            file.write_text(json.dumps(about, indent=1) + "\n")
    if {"costs", "scaling"} <= set(about):
        draw(about["costs"], about["scaling"], effort.sleep, args.output / "simulation.png")


if __name__ == "__main__":
    main()
