"""What a run costs beside its tiles: empty tiles by the real scheduling path, simulated workers.

``python pipelines/simulation.py`` labels virtual images of 100 to 100,000 tiles with a function of
no cost in place of the kernels: plan, tasks, records and levels are those of each run. It measures
time and memory of client and scheduler, each a process of its own, and fits the laws by which they
grow. Then tiles that sleep run on 1 to 64 simulated workers, until the scheduler is the limit; a
run of which nine tenths are done starts again; and workers are killed and replaced, one in ten a
minute. It leaves tables (CSV, JSON) and curves.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import dataclasses
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time as clock
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
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
    churn : workers that are killed in turn, tiles of each, seconds of a tile, and between two kills
    """

    tiles: tuple[int, ...] = (100, 1_000, 10_000, 100_000)
    workers: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    sleep: float = 0.05
    each: int = 100
    before: int = 1_000
    churn: tuple[int, int, float, float] = (10, 200, 1.5, 60.0)  # five minutes


FULL = Effort()
SMALL = Effort((10, 40), (1, 2), 0.02, 10, 10, (2, 40, 0.2, 1.0))


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
        "bytes": 0,  # of its files: those of empty tiles are not there
    }


@dataclass(frozen=True)
class Asleep:
    """A tile that takes some seconds of a worker, and none of its processor's.

    Attributes
    ----------
    begun : file that gets a byte for each tile that begins
    """

    seconds: float
    begun: str

    def __call__(self, job: Job, index: tuple[int, ...]) -> dict[str, Any]:
        """The record of a tile."""
        with open(self.begun, "ab", buffering=0) as file:
            file.write(b".")
        clock.sleep(self.seconds)
        return empty(job, index)


@dataclass(frozen=True)
class Cut:
    """Tiles of which the last fail, as if the run ended before them."""

    tiles: int

    def __call__(self, job: Job, index: tuple[int, ...]) -> dict[str, Any]:
        """The record of a tile, or the error of one that is not labeled."""
        if index[0] * job.grid.shape[1] + index[1] >= self.tiles:
            raise ValueError("of a later start")
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
    return planned(folder)


def planned(folder: Path) -> Plan:
    """The same run, again."""
    return make_plan(
        images.open_image(str(folder / "image.zarr")),
        str(folder / "out.zarr"),
        term=choice.data_term(None, [[50.0 * n] for n in range(1, CLASSES + 1)], None, 0),
        settings=settings.make_settings("3x3", 2, 1.0, 5.0, None, "cpu"),
        tile=EDGE,
    )


@dataclass
class Flight:
    """Tiles between client and workers: those asked for, of which most were not answered at once.

    Attributes
    ----------
    began : when the first was asked for
    """

    asked: int = 0
    answered: int = 0
    most: int = 0
    began: float = 0.0

    def out(self, items: Iterable[Any]) -> Iterator[Any]:
        """Items as they are asked for."""
        for item in items:
            self.began = self.began or clock.perf_counter()
            self.asked += 1
            self.most = max(self.most, self.asked - self.answered)
            yield item

    def back(self, outcomes: Iterable[Any]) -> Iterator[Any]:
        """Outcomes as they come."""
        for outcome in outcomes:
            self.answered += 1
            yield outcome


def instead(pool: Pool, function: Callable[..., Any], flight: Flight | None = None) -> Pool:
    """The same workers, which run another function where a tile would be labeled."""
    seen = Flight() if flight is None else flight

    def run(asked: Any, job: Any, items: Iterable[Any], *batch: int) -> Iterator[Any]:
        if asked is not run_tile:
            return pool.run(asked, job, items, *batch)
        return seen.back(pool.run(function, job, seen.out(items), *batch))

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
    watched, flight = {"client": psutil.Process().pid} | others, Flight()
    with (
        tempfile.TemporaryDirectory() as name,
        opening.open_pool(workers, scheduler or "processes", None) as pool,
    ):
        begun = Path(name) / "begun"
        function: Any = Asleep(sleep, str(begun)) if sleep else empty
        # the first tiles load libraries on all sides, and fill the logs of the scheduler, which
        # keep the last thousand of each kind of event
        (Path(name) / "first").mkdir()
        first = sample.settle(virtual(Path(name) / "first", before))
        labeling_run.run(first, instead(pool, function))
        plan = sample.settle(virtual(Path(name), tiles))
        start = {who: (spent(pid), peak(pid)) for who, pid in watched.items()}
        again = begun.stat().st_size if sleep else 0
        found = labeling_run.run(plan, instead(pool, function, flight))
        again = begun.stat().st_size - again - tiles if sleep else 0
        end = {who: (spent(pid), peak(pid)) for who, pid in watched.items()}
    assert found.tiles == {"done": tiles, "skipped": 0, "failed": 0}
    row: dict[str, Any] = {"tiles": tiles, "workers": pool.workers, "seconds": found.seconds}
    row |= {"in flight": flight.most, "again": again}
    for who in watched:
        (cpu, held), (more, most) = start[who], end[who]
        row |= {f"{who} seconds": more - cpu, f"{who} bytes": most - held, f"{who} peak": most}
    return row


def cut(folder: str, tiles: int) -> None:
    """Label nine tenths of a run."""
    plan = sample.settle(virtual(Path(folder), tiles))
    with opening.open_pool(1, "threads") as pool:
        found = labeling_run.run(plan, instead(pool, Cut(tiles * 9 // 10)))
    assert found.tiles["done"] == tiles * 9 // 10


def again(folder: str) -> dict[str, Any]:
    """Start it again, and what passes until the first tile is asked for."""
    flight, held, used, began = (
        Flight(),
        peak(os.getpid()),
        clock.process_time(),
        clock.perf_counter(),
    )
    most: list[float] = []

    def first(job: Job, index: tuple[int, ...]) -> dict[str, Any]:
        if not most:
            most.extend((clock.process_time() - used, peak(os.getpid()) - held))
        return empty(job, index)

    plan = sample.settle(planned(Path(folder)))
    with opening.open_pool(1, "threads") as pool:
        found = labeling_run.run(plan, instead(pool, first, flight))
    assert found.complete
    seconds, more = most
    return {
        "done": found.tiles["done"] - flight.asked,
        "seconds": flight.began - began,
        "client seconds": seconds,
        "client bytes": more,
    }


@contextmanager
def scheduling() -> Iterator[tuple[str, int]]:
    """The address and number of a scheduler in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "scheduler.json"
        options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", file]
        with started("-m", "dask", "scheduler", *options) as scheduler:
            # the file is there before it is full
            while not (file.exists() and file.read_text().rstrip().endswith("}")):
                assert scheduler.poll() is None, "the scheduler ended"
                clock.sleep(0.1)
            yield json.loads(file.read_text())["address"], scheduler.pid


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
        return answer("measure", asked)
    with scheduling() as (address, number), started(__file__, "--host", address, workers) as hosts:
        others = {"scheduler": number, "workers": hosts.pid}
        return answer("measure", asked | {"scheduler": address, "others": others})


def killed(workers: int, tiles: int, sleep: float, every: float) -> dict[str, Any]:
    """Measure with each worker a process; of these one is killed and another started in turn."""
    done, kills = threading.Event(), 0
    with scheduling() as (address, number), ExitStack() as crew:
        host = __file__, "--host", address, 1
        alive = [crew.enter_context(started(*host)) for _ in range(workers)]

        def churn() -> None:
            nonlocal kills
            while every and not done.wait(every):
                alive.pop(0).kill()
                alive.append(crew.enter_context(started(*host)))
                kills += 1

        killer = threading.Thread(target=churn)
        killer.start()
        try:
            asked = {"workers": workers, "tiles": tiles, "sleep": sleep, "before": 4 * workers}
            others = {"scheduler": number}
            return answer("measure", asked | {"scheduler": address, "others": others}) | {
                "kills": kills
            }
        finally:
            done.set()
            killer.join()


def answer(name: str, asked: dict[str, Any]) -> Any:
    """What a function returns in a process of its own."""
    found = subprocess.run(
        [sys.executable, __file__, "--call", name, json.dumps(asked)],
        capture_output=True,
        text=True,
    )
    if found.returncode:
        raise SystemExit(found.stderr)
    return json.loads(found.stdout)


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
                "in flight": found["in flight"],
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


def restart(effort: Effort) -> Iterator[dict[str, Any]]:
    """Of runs of which nine tenths are done, until the first of the other tiles is asked for."""
    for tiles in effort.tiles:
        with tempfile.TemporaryDirectory() as name:
            answer("cut", {"folder": name, "tiles": tiles})
            found = answer("again", {"folder": name})
        yield {
            "tiles": tiles,
            "done": found["done"],
            "seconds": found["seconds"],
            "client seconds": found["client seconds"],
            "ms a tile": 1e3 * found["client seconds"] / found["done"],
            "client KiB a tile": found["client bytes"] / 1024 / found["done"],
        }


def churn(effort: Effort) -> Iterator[dict[str, Any]]:
    """Of tiles that sleep, on workers that stay, and on workers that are killed and replaced."""
    workers, each, sleep, period = effort.churn
    for every in (0.0, period * 10 / workers):
        found = killed(workers, each * workers, sleep, every)
        rate = found["tiles"] / found["seconds"]
        yield {
            "workers": workers,
            "kills": found["kills"],
            "tiles": found["tiles"],
            "begun again": found["again"],
            "seconds": found["seconds"],
            "share of all": rate * sleep / workers,
            "in flight": found["in flight"],
        }


def laws(about: dict[str, Any]) -> list[dict[str, Any]]:
    """What tables say of other numbers of tiles: a constant, what each tile adds, and the power.

    The first two fit the values with equal relative weight; the power is the slope of logarithms,
    over 1,000 tiles and more where there are such.
    """
    apart = [row for row in about.get("costs", []) if row["processes"] == "apart"]
    found = []
    for table, key, rows in (
        ("costs", "client ms a tile", apart),
        ("costs", "scheduler ms a tile", apart),
        ("costs", "client KiB a tile", apart),
        ("costs", "scheduler KiB a tile", apart),
        ("restart", "ms a tile", about.get("restart", [])),
        ("restart", "client KiB a tile", about.get("restart", [])),
    ):
        rows = [row for row in rows if row["tiles"] >= 1_000] or rows
        if len(rows) < 2:
            continue
        tiles = np.array([row["tiles"] for row in rows], float)
        values = tiles * np.array([row[key] for row in rows]) + 1e-9
        ones = np.stack([1 / values, tiles / values], 1)
        constant, each = np.linalg.lstsq(ones, np.ones(len(rows)), rcond=None)[0]
        power = np.polyfit(np.log(tiles), np.log(values), 1)[0]
        unit = key.removesuffix(" a tile")
        found.append(
            {"table": table, "of": unit, "constant": constant, "a tile": each, "power": power}
        )
    return found


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


TABLES = {"costs": costs, "scaling": scaling, "restart": restart, "churn": churn}


def main() -> None:
    """Simulate, and leave tables and curves."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--small", action="store_true", help="few tiles: seconds")
    parser.add_argument(
        "--output", type=Path, default=Path("simulation"), help="folder (simulation)"
    )
    parser.add_argument("--only", choices=TABLES, help="one of the tables (all)")
    parser.add_argument("--host", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--call", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.host:
        asyncio.run(host(args.host[0], int(args.host[1])))
        return
    if args.call:
        called = {"measure": measure, "cut": cut, "again": again}[args.call[0]]
        print(json.dumps(called(**json.loads(args.call[1]))))
        return
    effort = SMALL if args.small else FULL
    args.output.mkdir(parents=True, exist_ok=True)
    file = args.output / "simulation.json"
    about: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    about |= {"small": args.small, "sleep": effort.sleep, "tile": EDGE}
    for name, rows in TABLES.items():
        if args.only in (None, name):
            about[name] = []
            for row in rows(effort):
                say(row)
                about[name].append(row)
            write(about[name], args.output / f"{name}.csv")
            about["laws"] = laws(about)
            file.write_text(json.dumps(about, indent=1) + "\n")
    for row in about["laws"]:
        say(row)
    if {"costs", "scaling"} <= set(about):
        draw(about["costs"], about["scaling"], effort.sleep, args.output / "simulation.png")


if __name__ == "__main__":
    main()
