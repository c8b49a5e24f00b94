"""A gigapixel from a few labeled regions: written, learned from, labeled and judged, end to end.

``python pipelines/gigapixel.py`` makes a mosaic of 32768 x 32768 RGB pixels of the fundus
photographs (hrf) with its ground truth as OME-Zarr, learns from a few small regions of it, and
labels all of it by ``tiledlaf label`` on two worker processes of limited memory. It sets the
throughput beside that of the kernels alone on the same tiles, and the labels beside the truth. What
is finished is kept in the folder: a second start goes on.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import itertools
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time as clock
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import psutil

from tiledlaf.files import image as image_files
from tiledlaf.files import images, levels, ngff, nodes
from tiledlaf.files.levels import Pyramid
from tiledlaf.labeling import records
from tiledlaf.labeling.plan import make_plan
from tiledlaf.labeling.worker import Job, Window, compute
from tiledlaf.model import classes, trees
from tiledlaf.model.features import Features
from tiledlaf.model.model import load
from tiledlaf.model.terms import Classified
from tiledlaf.pool import opening
from tiledlaf.tiles import Box, Grid
from tiledlaf.training import examples
from tiledlaf.training.run import Data, Recipe, fit_bias, train

ROOT = Path(__file__).parents[1]
NAMES = {1: "background", 2: "vessel"}
GREEN = 1  # the channel in which vessels are dark
WORKERS = 2
# of the classifier: few, as each of a billion pixels has them
LIGHT = Features(
    (
        *(("image", "gaussian", sigma) for sigma in (1.6, 5)),
        *(("image", "eigenvalues", sigma) for sigma in (1.6, 3, 5)),
    )
)
# of the predictor of weights
CONTEXT = Features(
    (("odds", "patch", 1, 1, 0), ("odds", "hessian", 1.5), ("odds", "hessian", 3)),
)


@dataclass(frozen=True)
class Effort:
    """How large the mosaic is, and how much is learned.

    Attributes
    ----------
    cells : along an edge of the mosaic, a photograph each
    edge : of a cell in pixels
    thin : photographs are thinned out to every so-manyth pixel
    tile : edge of a tile
    regions : from each photograph that is learned from
    region : edge of a region
    trees, steps, prototypes : of classifier and weights
    memory : of a worker
    windows, window : number and edge of the parts on which the data term alone is judged
    """

    cells: int = 8
    edge: int = 4096
    thin: int = 1
    tile: int = 2048
    regions: int = 2
    region: int = 512
    trees: int = 40
    steps: int = 120
    prototypes: int = 40
    memory: str = "1GiB"
    windows: int = 12
    window: int = 1024


FULL = Effort()
SMALL = Effort(4, 512, 7, 256, 2, 160, 15, 10, 8, "1GiB", 4, 256)
DARK = 12  # of the green channel: what the camera did not see
LEARNED = 4  # photographs that are learned from


# the mosaic


@dataclass(frozen=True)
class Mosaic:
    """Where all photographs go.

    Attributes
    ----------
    photographs : image and truth of each, paths
    store : path of the mosaic
    """

    photographs: tuple[tuple[str, str], ...]
    store: str
    effort: Effort

    @property
    def grid(self) -> Grid:
        """The cells."""
        edge = self.effort.edge
        whole, none = (self.effort.cells * edge,) * 2, (0, 0)
        return Grid(whole, none, whole, (edge, edge), none)

    @property
    def picture(self) -> Pyramid:
        """The image as OME-Zarr."""
        return self._pyramid("", 3)

    @property
    def truth(self) -> Pyramid:
        """Its truth, a label image in the same store."""
        return self._pyramid("labels/truth", 0)

    def _pyramid(self, group: str, channels: int) -> Pyramid:
        shapes = [self.grid.size]
        while max(shapes[-1]) > 512:
            shapes.append(levels.halved(shapes[-1], "yx"))
        tile = (self.effort.tile,) * 2
        return Pyramid(
            group,
            "yx",
            channels,
            tuple(shapes),
            tile,
            (1.0, 1.0),
            (0.0, 0.0),
            (None, None),
            "uint8",
        )

    def photograph(self, index: Sequence[int]) -> int:
        """Number of the one in a cell."""
        return (index[0] * self.effort.cells + index[1]) % len(self.photographs)

    def cell(self, index: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Image (3, edge, edge) and truth of a cell: turned, mirrored, brighter or darker."""
        rng = np.random.default_rng([0, *index])
        image, truth = (
            _read(path, self.effort.thin) for path in self.photographs[self.photograph(index)]
        )
        gamma = rng.uniform(0.85, 1.18)
        table = np.round(255 * (np.arange(256) / 255) ** gamma).astype(np.uint8)
        turns, flip = rng.integers(0, 4), rng.random() < 0.5
        planes = [table[image[..., c]] for c in range(3)] + [(truth > 0).astype(np.uint8) + 1]
        planes = [np.rot90(p[:, ::-1] if flip else p, turns) for p in planes]
        corner = [rng.integers(0, self.effort.edge - n + 1) for n in planes[0].shape]
        out = np.zeros((4, self.effort.edge, self.effort.edge), np.uint8)
        out[3] = 1
        out[:, *(slice(c, c + n) for c, n in zip(corner, planes[0].shape, strict=True))] = planes
        return out[:3], out[3]


@lru_cache(maxsize=2)
def _read(path: str, thin: int) -> np.ndarray:
    with PIL.Image.open(path) as picture:
        return np.asarray(picture)[::thin, ::thin]


def photographs(data: Path) -> tuple[tuple[str, str], ...]:
    """Images and truths below the data folder."""
    folder = data / "hrf" / "training"
    found = sorted((folder / "images").glob("*.[jJ][pP][gG]"))
    return tuple((str(p), str(folder / "1st_manual" / f"{p.stem}_AVmanual.png")) for p in found)


def write_cell(mosaic: Mosaic, index: tuple[int, ...]) -> int:
    """Write one cell; its number of vessel pixels."""
    image, truth = mosaic.cell(index)
    core = mosaic.grid.tile_at(index).core
    levels.write(mosaic.store, mosaic.picture, core, image, levels.mean)
    levels.write(mosaic.store, mosaic.truth, core, truth, levels.nearest)
    return int((truth == 2).sum())


def write(mosaic: Mosaic) -> dict[str, Any]:
    """Write the mosaic and its truth, cell by cell; what it took."""
    shutil.rmtree(mosaic.store, ignore_errors=True)
    started = clock.perf_counter()
    for pyramid in (mosaic.picture, mosaic.truth):
        pyramid.create(mosaic.store, "0.5", 3)
    colors = {value: classes.color(value) for value in NAMES}
    ngff.add_label(mosaic.store, mosaic.truth, "0.5", 3, colors, NAMES, {}, {})
    vessels = 0
    with opening.open_pool(WORKERS, None, None) as pool:
        for _, count, error, *_ in pool.run(write_cell, mosaic, [t.index for t in mosaic.grid]):
            if error is not None:
                raise error
            vessels += count
        for pyramid, reduce in ((mosaic.picture, levels.mean), (mosaic.truth, levels.nearest)):
            for level in levels.coarse(mosaic.store, pyramid, reduce):
                for _, _, error, _ in pool.run(levels.finish, level, level.units):
                    if error is not None:
                        raise error
    pixels = mosaic.grid.size[0] * mosaic.grid.size[1]
    stored = sum(size for _, size, _ in nodes.chunk_state(mosaic.store))
    return {
        "pixels": pixels,
        "vessels": vessels / pixels,
        "bytes": stored,
        "seconds": clock.perf_counter() - started,
    }


def opened(mosaic: Mosaic) -> tuple[image_files.Image, image_files.Image]:
    """The mosaic's channel that is used, and its truth."""
    return (
        images.open_image(mosaic.store, channels=(GREEN,)),
        images.open_labels(f"{mosaic.store}/labels/truth"),
    )


# learning


def windows(
    mosaic: Mosaic,
    wanted: Callable[[int], bool],
    each: int,
    edge: int,
    accepted: Callable[[Box], bool],
) -> Iterator[tuple[int, Box]]:
    """Windows that are accepted in the cells of photographs that are wanted, drawn by chance.

    The first cell of each photograph is used, `each` windows in it.
    """
    rng, seen = np.random.default_rng(1), set()
    for cell in mosaic.grid:
        number = mosaic.photograph(cell.index)
        if number in seen or not wanted(number):
            continue
        seen.add(number)
        found: list[Box] = []
        while len(found) < each:
            corner = [int(c.start + rng.integers(0, c.stop - c.start - edge)) for c in cell.core]
            box = tuple(slice(c, c + edge) for c in corner)
            apart = all(
                any(abs(a.start - b.start) >= edge for a, b in zip(box, other, strict=True))
                for other in found
            )
            if apart and accepted(box):
                found.append(box)
                yield number, box


def vessels(mosaic: Mosaic, least: float) -> Callable[[Box], bool]:
    """Whether a window has this share of vessels."""
    _, truth = opened(mosaic)
    return lambda box: bool((truth.read(box) == 2).mean() > least)


def borders(mosaic: Mosaic) -> Callable[[Box], bool]:
    """Whether a window lies on the border of what the camera saw."""
    source, _ = opened(mosaic)
    return lambda box: bool(0.3 < (source.read(box) < DARK).mean() < 0.7)


def learn(mosaic: Mosaic, path: Path) -> dict[str, Any]:
    """Fit a classifier to the regions, learn weights on its out-of-fold probabilities."""
    effort, started = mosaic.effort, clock.perf_counter()
    source, truth = opened(mosaic)
    kinds = (vessels(mosaic, 0.05), effort.regions), (borders(mosaic), 1)
    regions = sorted(
        (
            found
            for accepted, each in kinds
            for found in windows(mosaic, lambda n: n < LEARNED, each, effort.region, accepted)
        ),
        key=lambda found: found[0],  # by photograph, the last of which validates
    )
    numbers = [n for n, _ in regions]
    pixels = [source.read(box)[0] for _, box in regions]
    targets = [truth.read(box)[0] for _, box in regions]
    rows = [LIGHT.compute(p[None]) for p in pixels]
    samples = [np.ascontiguousarray(r.reshape(len(r), -1)[:, ::7].T) for r in rows]
    wanted = [t.ravel()[::7].astype(np.int64) - 1 for t in targets]

    def fitted(without: int | None) -> trees.Trees:
        kept = [i for i, n in enumerate(numbers) if n != without]
        x, y = (np.concatenate([part[i] for i in kept]) for part in (samples, wanted))
        return trees.fit(x, y, len(NAMES), iterations=effort.trees)

    # each region's probabilities come from trees that have not seen its photograph
    blind = {n: fitted(n) for n in dict.fromkeys(numbers)}
    chances = [blind[n].probabilities(r) for n, r in zip(numbers, rows, strict=True)]
    given = examples.pair(pixels, targets, chances)
    last = numbers.index(numbers[-1])
    data = Data(given[:last], given[last:], "probabilities", {str(v): n for v, n in NAMES.items()})
    recipe = Recipe(
        neighborhood="3x3",
        time=0.5,
        features=CONTEXT,
        steps=effort.steps,
        predictor_size=effort.prototypes,
    )
    with opening.open_pool(WORKERS, None, None) as pool:
        found = train(data, recipe, pool)
    model = dataclasses.replace(found, term=Classified(LIGHT, fitted(None)))
    model.save(path)
    # the best that the probabilities alone can do, by a bias of their own
    scores = np.concatenate([np.log(c).reshape(2, -1).T for c in chances])
    bias, _ = fit_bias(scores, np.concatenate([t.ravel() for t in targets]).astype(np.int64) - 1)
    return {
        "regions": [[n, *([s.start, s.stop] for s in box)] for n, box in regions],
        "labeled": sum(t.size for t in targets),
        "bias": bias.tolist(),
        "validation": found.trained["error"],
        "seconds": clock.perf_counter() - started,
    }


# labeling


@contextmanager
def workers(memory: str) -> Iterator[tuple[str, list[int]]]:
    """Worker processes that are killed where they use more memory: scheduler's address, pids."""
    import dask
    from distributed import LocalCluster

    with (
        dask.config.set({"distributed.worker.profile.enabled": False}),
        LocalCluster(
            WORKERS,
            threads_per_worker=1,
            memory_limit=memory,
            host="127.0.0.1",
            dashboard_address=None,
        ) as servers,
    ):
        yield servers.scheduler_address, [nanny.pid for nanny in servers.workers.values()]


def alone(job: Job, index: tuple[int, ...]) -> tuple[float, float]:
    """Seconds of a tile's kernels on data in memory, and those of the processor; they are warm."""
    tile = job.grid.tile_at(index)
    data = Window(job.image.read(tile.window))
    started, used = clock.perf_counter(), clock.thread_time()
    compute(job, data, tile)
    return clock.perf_counter() - started, clock.thread_time() - used


def spent(pids: Sequence[int]) -> float:
    """Seconds of processors that processes have used."""
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return float(sum(t.user + t.system for t in times))


def label(mosaic: Mosaic, model: Path, output: Path) -> dict[str, Any]:
    """Label by one command, and measure its kernels alone before and after it."""
    effort = mosaic.effort
    source, _ = opened(mosaic)
    learned = load(model)
    job = make_plan(
        source,
        None,
        term=learned.term,
        settings=learned.settings(),
        model=learned,
        tile=effort.tile,
    ).job
    every = [tile.index for tile in job.grid]
    some = every[:: max(1, len(every) // 8)][:8]
    with workers(effort.memory) as (address, pids):

        def kernels(tiles: Sequence[Any]) -> list[tuple[float, float]]:
            with opening.open_pool(None, address, None) as pool:
                found = list(pool.run(alone, job, tiles))
            for _, _, error, *_ in found:
                if error is not None:
                    raise error
            return [seconds for _, seconds, *_ in found]

        kernels(some[:WORKERS])  # loads them
        times = kernels(some)
        started, used = clock.perf_counter(), spent(pids)
        command = [
            sys.executable,
            "-m",
            "tiledlaf",
            "label",
            mosaic.store,
            output,
            "--model",
            model,
            "--channels",
            GREEN,
            "--tile",
            effort.tile,
            "--scheduler",
            address,
        ]
        found = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        seconds, used = clock.perf_counter() - started, spent(pids) - used
        if found.returncode:
            raise SystemExit(found.stderr)
        times += kernels(some)
    (rate,) = re.findall(r"throughput: (\S+) megapixels", found.stdout)
    kept = list(records.read(output / "labels" / "tiledlaf" / "0" / records.NAME).values())
    pixels = sum(r["pixels"] for r in kept)
    elapsed, busy = (statistics.mean(part) for part in zip(*times, strict=True))
    bound = WORKERS * pixels / len(kept) / elapsed / 1e6
    parts = np.sum([r["seconds"] for r in kept], axis=0) / pixels * float(rate) * 1e6 / WORKERS
    return {
        "command": " ".join(Path(str(c)).name for c in command[2:]),
        "summary": found.stdout,
        "tiles": len(kept),
        "pixels": pixels,
        "seconds": seconds,
        "megapixels a second": float(rate),
        "kernels alone": bound,
        "share": float(rate) / bound,
        "processor seconds": used,
        "of them kernels": len(kept) * busy / used,
        "time": dict(zip(("reading", "computing", "writing"), parts.tolist(), strict=True)),
        "memory limit": effort.memory,
        "peak MiB": max(r["peak_mib"] for r in kept),
        "bytes": sum(size for _, size, _ in nodes.chunk_state(str(output))),
    }


# judging


def f1(table: np.ndarray) -> float:
    """F1 of the vessels of a confusion matrix, rows truth."""
    return float(2 * table[1, 1] / max(table[1].sum() + table[:, 1].sum(), 1))


def error(table: np.ndarray) -> float:
    """Share of wrong pixels."""
    return float(1 - np.trace(table) / table.sum())


def confusion(labels: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Pixels of each pair of classes, rows truth; a pixel without a label is background."""
    codes = 2 * (truth.ravel().astype(np.int64) - 1) + (labels.ravel() == 2)
    return np.bincount(codes, minlength=4).reshape(2, 2)


def count(
    job: tuple[image_files.Image, image_files.Image, Grid], index: tuple[int, ...]
) -> np.ndarray:
    """The confusion matrix of a cell."""
    labels, truth, grid = job
    core = grid.tile_at(index).core
    return confusion(labels.read(core), truth.read(core))


def judge(mosaic: Mosaic, model: Path, output: Path, notes: dict[str, Any]) -> dict[str, Any]:
    """All pixels; those of photographs that nothing was learned from; the data term alone."""
    started, table = clock.perf_counter(), output.with_name("evaluation.json")
    source, truth = opened(mosaic)
    command = [
        sys.executable,
        "-m",
        "tiledlaf",
        "evaluate",
        output,
        f"{mosaic.store}/labels/truth",
        "--json",
        table,
    ]
    found = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if found.returncode:
        raise SystemExit(found.stderr)
    about = json.loads(table.read_text())
    labels = images.open_labels(output / "labels" / "tiledlaf")
    job = (labels, truth, mosaic.grid)
    unseen = np.zeros((2, 2), np.int64)
    fresh = [t.index for t in mosaic.grid if mosaic.photograph(t.index) >= LEARNED]
    with opening.open_pool(WORKERS, None, None) as pool:
        for _, cell, error_, *_ in pool.run(count, job, fresh):
            if error_ is not None:
                raise error_
            unseen += cell
    learned, tables = load(model), {}
    boxes = list(
        windows(mosaic, lambda n: n >= LEARNED, 1, mosaic.effort.window, vessels(mosaic, 0.02))
    )
    for _, box in boxes[: mosaic.effort.windows]:
        wanted = truth.read(box)
        q = learned.term.potential(source.read(box), None, 1.0)
        biased = q + np.asarray(notes["bias"], np.float32)[:, None, None]
        for name, values in (
            ("labels", labels.read(box)),
            ("data term alone", q.argmax(axis=0) + 1),
            ("data term and bias", biased.argmax(axis=0) + 1),
            ("all background", np.ones_like(wanted)),
        ):
            tables[name] = tables.get(name, 0) + confusion(values, wanted)
    return {
        "all": {
            "error": about["pixel_error"],
            "f1": about["classes"][1]["f1"],
            "pixels": about["pixels"],
            "confusion": about["confusion"],
        },
        "unseen photographs": {
            "error": error(unseen),
            "f1": f1(unseen),
            "all background": float(unseen[1].sum() / unseen.sum()),
        },
        "windows": {name: {"error": error(t), "f1": f1(t)} for name, t in tables.items()},
        "seconds": clock.perf_counter() - started,
    }


def shown(image: image_files.Image, box: Box) -> np.ndarray:
    """Pixels (y, x, 3) of an image, or of labels in their colors."""
    planes = image.read(box)
    if len(planes) == 3:
        return planes.transpose(1, 2, 0)
    colors = np.array([(0, 0, 0), (35, 35, 35), (240, 228, 66)], np.uint8)
    return colors[planes[0]]


def draw(mosaic: Mosaic, output: Path, about: dict[str, Any], path: Path) -> None:
    """Image, truth and labels: all of the mosaic, and a part of it at full size."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    steps = len(mosaic.picture.shapes)
    level = max(0, steps - 2)
    chosen = windows(mosaic, lambda n: n >= LEARNED, 1, mosaic.effort.region, vessels(mosaic, 0.05))
    parts = ((level, None), (0, next(chosen)[1]))
    sources = (
        ("image", mosaic.store),
        ("truth", f"{mosaic.store}/labels/truth"),
        ("labels", f"{output}/labels/tiledlaf"),
    )
    figure, axes = pyplot.subplots(2, 3, figsize=(12, 8.4), layout="constrained")
    for row, (at, box) in zip(axes, parts, strict=True):
        for panel, (name, source) in zip(row, sources, strict=True):
            image = images.open_image(source, level=at)
            part = box or tuple(slice(0, n) for n in image.grid)
            panel.imshow(shown(image, part), interpolation="nearest" if at == 0 else "antialiased")
            size = "x".join(str(s.stop - s.start) for s in part)
            panel.set_title(
                f"{name}, {size} pixels" + ("" if box else f" of level {at}"), fontsize=10
            )
            panel.axis("off")
    run, found = about["labels"], about["judged"]
    figure.suptitle(
        f"{run['pixels'] / 1e6:.0f} megapixels at {run['megapixels a second']:.3g} Mpx/s, "
        f"{100 * run['share']:.0f} % of the kernels alone; wrong "
        f"{100 * found['all']['error']:.2f} %, F1 of vessels {found['all']['f1']:.3f}"
    )
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


# the whole


def lines(about: dict[str, Any]) -> list[tuple[str, str]]:
    """The summary, as names and numbers."""
    mosaic, model, run, found = (about[key] for key in ("mosaic", "model", "labels", "judged"))
    rows = [
        ("mosaic, gigapixels", f"{mosaic['pixels'] / 1e9:.3f}"),
        ("mosaic, GB stored", f"{mosaic['bytes'] / 1e9:.3f}"),
        ("mosaic, seconds to write", f"{mosaic['seconds']:.0f}"),
        ("learned from, megapixels", f"{model['labeled'] / 1e6:.2f}"),
        ("learned from, % of the mosaic", f"{100 * model['labeled'] / mosaic['pixels']:.3f}"),
        ("learning, seconds", f"{model['seconds']:.0f}"),
        ("labeling, seconds of the command", f"{run['seconds']:.0f}"),
        ("throughput, Mpx/s", f"{run['megapixels a second']:.3g}"),
        ("kernels alone, Mpx/s", f"{run['kernels alone']:.3g}"),
        ("share of the kernels alone, %", f"{100 * run['share']:.1f}"),
        ("of the workers' processor time kernels, %", f"{100 * run['of them kernels']:.1f}"),
        *(
            (f"of the workers' time {what}, %", f"{100 * share:.1f}")
            for what, share in run["time"].items()
        ),
        ("memory limit of a worker", run["memory limit"]),
        ("most memory of a worker, MiB", str(run["peak MiB"])),
        ("wrong, %", f"{100 * found['all']['error']:.3f}"),
        ("F1 of vessels", f"{found['all']['f1']:.4f}"),
        ("wrong in unseen photographs, %", f"{100 * found['unseen photographs']['error']:.3f}"),
        ("F1 in unseen photographs", f"{found['unseen photographs']['f1']:.4f}"),
        *(
            (
                f"windows of unseen photographs, {name}: wrong %, F1",
                f"{100 * one['error']:.3f}, {one['f1']:.4f}",
            )
            for name, one in found["windows"].items()
        ),
        ("judging, seconds", f"{found['seconds']:.0f}"),
    ]
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Do all parts that are not done, and print the summary."""
    default = Path(os.environ.get("TILEDLAF_DATA", ROOT.parent / "shared" / "data"))
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--small", action="store_true", help="4 megapixels: seconds")
    parser.add_argument("--data", type=Path, default=default, help=f"folder of hrf ({default})")
    parser.add_argument("--output", type=Path, default=Path("gigapixel"), help="folder (gigapixel)")
    parts = ("mosaic", "model", "labels", "judged")
    parser.add_argument("--until", choices=parts, default=parts[-1], help="stop after this part")
    args = parser.parse_args(argv)
    found = photographs(args.data)
    if len(found) <= LEARNED:
        parser.error(
            f"--data: expected photographs such as {args.data}/hrf/training/images/01_h.jpg, "
            f"got {len(found)}"
        )
    effort, folder = SMALL if args.small else FULL, args.output.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    mosaic = Mosaic(found, str(folder / "mosaic.zarr"), effort)
    model, output = folder / "vessels.model", folder / "labels.zarr"
    about: dict[str, Any] = {"effort": dataclasses.asdict(effort)}
    does: dict[str, Callable[[], dict[str, Any]]] = {
        "mosaic": lambda: write(mosaic),
        "model": lambda: learn(mosaic, model),
        "labels": lambda: label(mosaic, model, output),
        "judged": lambda: judge(mosaic, model, output, about["model"]),
    }
    for part in itertools.takewhile(lambda p: parts.index(p) <= parts.index(args.until), parts):
        note = folder / f"{part}.json"
        held = json.loads(note.read_text()) if note.exists() else {}
        if held.get("effort") != about["effort"]:
            print(f"{part} ...", file=sys.stderr, flush=True)
            held = {"effort": about["effort"], **does[part]()}
            note.write_text(json.dumps(held, indent=1) + "\n")
        about[part] = held
    if args.until != parts[-1]:
        return
    draw(mosaic, output, about, folder / "gigapixel.png")
    (folder / "gigapixel.json").write_text(json.dumps(about, indent=1) + "\n")
    rows = lines(about)
    with (folder / "gigapixel.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("what", "number"), *rows])
    for name, number in rows:
        print(f"{name:<62} {number:>16}")


if __name__ == "__main__":
    main()
