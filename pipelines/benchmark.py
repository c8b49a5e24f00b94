"""Speed: every figure a ratio, measured in one run on one machine.

``python pipelines/benchmark.py`` measures what the machine can do, and sets tiledlaf beside that
and beside other programs on the same data, in turn. It prints a table and leaves it (CSV, JSON)
with a plot in a folder; what is compared with and not installed (PyTorch, PyMaxflow, pydensecrf2)
is left out and named. ``--check`` exits with 1 where a goal is missed; ``--compare FILE`` says
what got slower since the table in FILE, such as pipelines/baseline.json.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time as clock
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit
from scipy.ndimage import gaussian_filter
from support import peers

import tiledlaf
from tiledlaf import Taylor
from tiledlaf.files import images
from tiledlaf.flow import stencil
from tiledlaf.flow.gradient import linearize
from tiledlaf.flow.losses import Cosine
from tiledlaf.kernels import select
from tiledlaf.kernels.compiled.vector import fma, lanes_of, load, splat, store, store_each, zeros
from tiledlaf.labeling import records, resources, sample
from tiledlaf.labeling import run as labeling_run
from tiledlaf.labeling.plan import Writing, make_plan
from tiledlaf.labeling.worker import Window, compute
from tiledlaf.model import settings, terms
from tiledlaf.model.features import Features
from tiledlaf.pool import dask as dask_pool
from tiledlaf.pool.opening import Running
from tiledlaf.training import examples
from tiledlaf.training import run as training_run

BOX = stencil.box(3, 3)
TIME, TOL = 5.0, 1e-4
SPELL = 0.3
SLOWER = 0.85  # of the baseline's ratio: less is named by --compare
FAST = {2: 12, 4: 22, 8: 32, 10: 40}  # forward passes: goals against PyTorch
Call = Callable[[], Any]


@dataclass(frozen=True)
class Row:
    """A figure.

    Attributes
    ----------
    ours, other : in `unit`; the other program's, or the machine's bound
    ratio : how many times better ours is, or the share of the bound that is reached
    goal : for the ratio
    """

    name: str
    unit: str
    ours: float
    other: float
    ratio: float
    goal: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached."""
        return None if self.goal is None else bool(self.ratio >= self.goal)


@dataclass(frozen=True)
class Effort:
    """How large the problems are: edges in pixels, and rounds of each pair."""

    edge: int = 1024
    gradient: int = 512
    sparse: int = 128
    slide: int = 16384
    tiles: int = 4096
    steps: int = 9
    rounds: int = 5


FULL = Effort()
SMALL = Effort(64, 48, 16, 512, 256, 3, 1)


# the machine


@njit(nogil=True)
def _copied(a: np.ndarray, b: np.ndarray, times: int) -> None:
    for _ in range(times):
        for i in range(0, len(a), lanes_of(a)):
            store(b, i, load(a, i))


@njit(nogil=True)
def _multiplied(a: np.ndarray, times: int, wide: tuple[int, ...]) -> None:
    p, q, r, s = zeros(a, wide), zeros(a, wide), zeros(a, wide), zeros(a, wide)
    x = load(a, 0)
    for _ in range(times):
        p, q, r, s = fma(p, x, x), fma(q, x, x), fma(r, x, x), fma(s, x, x)
    store_each(a, 0, lanes_of(a), p + q + r + s)


@njit(nogil=True)
def _visited(a: np.ndarray, times: int) -> None:
    """Sums of three neighbors in a row, as the flow reads them: two of three loads misaligned."""
    lanes = lanes_of(a)
    x = splat(a.dtype.type(0.5))
    p, q, r = x, x, x
    for _ in range(times):
        for i in range(lanes, len(a) - lanes, lanes):
            p, q, r = fma(load(a, i - 1), x, p), fma(load(a, i), x, q), fma(load(a, i + 1), x, r)
    store(a, 0, p + q + r)


def aligned(size: int) -> np.ndarray:
    """Zeros that begin with a cache line."""
    memory = np.zeros(size + 16, np.float32)
    return memory[(-memory.ctypes.data % 64) // 4 :][:size]


def _timed(call: Call) -> float:
    """Seconds of a call."""
    start = clock.perf_counter()
    call()
    return clock.perf_counter() - start


def best(call: Call, rounds: int = 5) -> float:
    """Least seconds of some calls, after a first one."""
    call()
    return min(_timed(call) for _ in range(rounds))


def limits() -> dict[str, float]:
    """Copy bandwidth of each level in GB/s (read and written), fused multiply-adds, L1 loads."""
    found = {}
    for name, size in (("L1", 2**13), ("L2", 2**17), ("L3", 2**21), ("memory", 2**27)):
        a, b = aligned(size // 4), aligned(size // 4)
        times = max(1, 2**27 // size)
        found[f"copy {name}, GB/s"] = 2 * size * times / best(partial(_copied, a, b, times)) / 1e9
    times, wide = 10**6, (0,) * 4
    row = aligned(4096)
    found["multiply-add, Gvector/s"] = (
        16 * times / best(lambda: _multiplied(row, times, wide)) / 1e9
    )
    seconds = best(lambda: _visited(row, 2000))
    found["loads of neighbors, Gvector/s"] = 3 * (len(row) / 16 - 2) * 2000 / seconds / 1e9
    return found


def machine() -> dict[str, Any]:
    """What it ran on."""
    model = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":")[1].strip()
            for line in info.read_text().splitlines()
            if line.startswith("model name")
        ]
        model = names[0] if names else model
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "tiledlaf": tiledlaf.__version__,
    }


# pairs


def _spell(call: Call) -> float:
    """Median seconds of calls that follow each other for SPELL seconds, or of one longer call.

    What the other has left in caches and page tables would else count as much as a quick call.
    """
    times: list[float] = []
    while sum(times) < SPELL:
        times.append(_timed(call))
    return statistics.median(times)


def alternate(ours: Call, other: Call, rounds: int) -> tuple[float, float, float]:
    """Median seconds of both, by spells in turn after a first call, and of their ratios."""
    ours(), other()
    pairs = [(_spell(ours), _spell(other)) for _ in range(rounds)]
    return (
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
        statistics.median(b / a for a, b in pairs),
    )


def problem(labels: int, edge: int, offsets: Any = BOX) -> tuple[np.ndarray, np.ndarray]:
    """Uniform weights and random distances."""
    rng = np.random.default_rng(0)
    distances = (2 * rng.random((labels, edge, edge))).astype(np.float32)
    return stencil.uniform(offsets, (edge, edge)), distances


def classify(weights: np.ndarray, distances: np.ndarray, offsets: Any = BOX) -> Any:
    """Labels, S and flow in one call of the kernels."""
    p = Taylor(TOL).polynomial(TIME)
    kernels = select(distances)
    return kernels.classify(weights, -distances, offsets, p.coefficients, p.keep, p.scale)


def bound_of_flow(labels: int, neighbors: int, found: dict[str, float]) -> float:
    """Pixels a second that L1 could serve: a load a neighbor and label in each step, and S."""
    steps = len(Taylor(TOL).polynomial(TIME).coefficients) + 1
    loads = steps * (neighbors * labels + labels)
    return 16 * found["loads of neighbors, Gvector/s"] * 1e9 / loads


def kernels(effort: Effort, found: dict[str, float]) -> Iterator[Row]:
    """Shares of the machine's bounds."""
    rings = stencil.parse("rings:3,7", 2)
    for name, offsets, labels in (
        *(("3x3", BOX, n) for n in FAST),
        ("rings", rings, 2),
        ("rings", rings, 8),
    ):
        given = problem(labels, effort.edge, offsets)
        small = problem(labels, effort.edge // 4, offsets)
        for one in (given, small):
            classify(*one, offsets)
        pixels, text = effort.edge**2, f"{name}, J = {labels}"
        seconds = best(partial(classify, *given, offsets), effort.rounds)
        rate, bound = pixels / seconds, bound_of_flow(labels, len(offsets), found)
        goal = 0.4 if name == "3x3" else None
        yield Row(
            f"forward, {text}: share of L1's bound",
            "Mpx/s",
            rate / 1e6,
            bound / 1e6,
            rate / bound,
            goal,
        )
        little = best(partial(classify, *small, offsets), 4 * effort.rounds)
        other = pixels / 16 / little
        yield Row(
            f"forward, {text}: {effort.edge} against {effort.edge // 4} pixels wide",
            "Mpx/s",
            rate / 1e6,
            other / 1e6,
            rate / other,
            0.5,
        )
    given = problem(8, effort.edge)

    def both() -> None:
        halves = [threading.Thread(target=classify, args=given) for _ in range(2)]
        for half in halves:
            half.start()
        for half in halves:
            half.join()

    two, one, ratio = alternate(both, lambda: classify(*given), effort.rounds)
    rates = (2 * effort.edge**2 / two / 1e6, effort.edge**2 / one / 1e6)
    yield Row("forward, 3x3, J = 8: two threads against one", "Mpx/s", *rates, 2 * ratio, 1.9)


def prediction(effort: Effort, found: dict[str, float]) -> Iterator[Row]:
    """Weights from 50 features and 100 prototypes, and a flow with them, 25 neighbors."""
    rng = np.random.default_rng(0)
    offsets, edge = stencil.parse("rings:3,7", 2), effort.edge
    uniform, distances = problem(2, edge, offsets)
    features = rng.standard_normal((50, edge, edge)).astype(np.float32)
    normal = np.stack([np.zeros(50), np.ones(50)])
    prototypes, patches = rng.standard_normal((100, 50)), rng.standard_normal((100, 25))
    kernel = select(distances)
    p = Taylor(1e-3).polynomial(1.0)

    def ours() -> Any:
        weights = kernel.predict(features, normal, prototypes, patches, 1.0, uniform)
        return kernel.classify(weights, -distances, offsets, p.coefficients, p.keep, p.scale)

    flat, nodes = features.reshape(50, -1).T, prototypes.astype(np.float32)
    valid = uniform.reshape(25, -1).T > 0

    def other() -> Any:  # NumPy with BLAS, in blocks that stay in the cache
        out = np.empty((25, edge * edge), np.float32)
        for start in range(0, edge * edge, 4096):
            part = slice(start, start + 4096)
            square = (
                (flat[part] ** 2).sum(1)[:, None] + (nodes**2).sum(1) - 2 * flat[part] @ nodes.T
            )
            a = -np.sqrt(np.maximum(square, 0))
            a = np.exp(a - a.max(1, keepdims=True))
            t = (a / a.sum(1, keepdims=True)) @ patches.astype(np.float32)
            t = np.where(valid[part], t, -np.inf)
            e = np.exp(t - t.max(1, keepdims=True))
            out[:, part] = (e / e.sum(1, keepdims=True)).T
        weights = out.reshape(25, edge, edge)
        return kernel.classify(weights, -distances, offsets, p.coefficients, p.keep, p.scale)

    assert (ours()[0] != other()[0]).mean() < 1e-3
    seconds, theirs, ratio = alternate(ours, other, effort.rounds)
    pixels = edge**2 / 1e6
    name = "predictor and flow, 25 neighbors, 50 features"
    yield Row(
        f"{name}: NumPy with BLAS for the weights",
        "s/Mpx",
        seconds / pixels,
        theirs / pixels,
        ratio,
    )
    vectors = 100 * 50 + 100 * 25
    bound = vectors / 16 * edge**2 / found["multiply-add, Gvector/s"] / 1e9
    yield Row(
        f"{name}: share of the multiply-adds' bound",
        "s/Mpx",
        seconds / pixels,
        bound / pixels,
        bound / seconds,
        0.5,
    )


# peers


def forward(effort: Effort) -> Iterator[Row]:
    """S, flow and labels beside PyTorch's, on one thread."""
    import torch

    torch.set_num_threads(1)
    for labels, goal in FAST.items():
        given = problem(labels, effort.edge)
        tensors = [torch.from_numpy(x) for x in given]

        def other(tensors: Any = tensors) -> Any:
            with torch.no_grad():
                return peers.forward(*tensors).argmax(dim=0)

        mine, theirs = classify(*given), other().numpy() + 1
        assert (mine[2][mine[0] != theirs] < 5 * TOL).all()  # but for ties
        found = alternate(partial(classify, *given), other, effort.rounds)
        yield _rates(f"forward, J = {labels}: PyTorch, Krylov", effort.edge, found, goal)
    given = problem(4, effort.edge)
    tensors = [torch.from_numpy(x) for x in given]

    def stepwise() -> Any:
        with torch.no_grad():
            return peers.euler(*tensors).argmax(dim=0)

    found = alternate(partial(classify, *given), stepwise, effort.rounds)
    yield _rates("forward, J = 4: PyTorch, 20 Euler steps", effort.edge, found)


def _rates(
    name: str, edge: int, found: tuple[float, float, float], goal: float | None = None
) -> Row:
    ours, other, ratio = found
    return Row(name, "Mpx/s", edge**2 / ours / 1e6, edge**2 / other / 1e6, ratio, goal)


def our_gradient(weights: np.ndarray, distances: np.ndarray, target: np.ndarray) -> np.ndarray:
    """R_Omega dL/dOmega of the cosine loss; target from 0."""
    loss, labels = Cosine(), (target + 1).astype(np.uint8)
    flow = linearize(weights, distances, BOX, time=TIME)
    g = loss.gradient(flow.z, labels, loss.sums(flow.z, labels))
    return flow.gradient(g).tangent


def gradient_problem(edge: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ten labels."""
    target = np.random.default_rng(1).integers(0, 10, (edge, edge))
    return *problem(10, edge), target


def gradient(effort: Effort) -> Iterator[Row]:
    """One gradient beside PyTorch's, and the memory of both above the imports."""
    import torch

    torch.set_num_threads(1)
    given = gradient_problem(effort.gradient)
    for scheme, text, goal in (("krylov", "Krylov", 30), ("euler", "20 Euler steps", None)):
        if scheme == "krylov":
            euclidean = peers.gradient(*given, scheme)
            tangent = given[0] * (euclidean - (given[0] * euclidean).sum(axis=0))
            assert abs(our_gradient(*given) - tangent).max() < 1e-3 * abs(tangent).max()
        ours, other, ratio = alternate(
            partial(our_gradient, *given), partial(peers.gradient, *given, scheme), effort.rounds
        )
        yield Row(f"gradient, J = 10: PyTorch, {text}", "ms", 1e3 * ours, 1e3 * other, ratio, goal)
    times = min(effort.rounds, 3)
    mine, theirs = (memory(who, effort.gradient, times) for who in ("ours", "pytorch"))
    yield Row(
        "gradient, J = 10: peak memory, PyTorch, Krylov",
        "MiB",
        mine,
        theirs,
        theirs / max(mine, 1),
        20,
    )


def memory(who: str, edge: int, times: int) -> float:
    """Peak memory of a gradient above imports and kernels, in MiB; median of some processes."""
    command = [sys.executable, __file__, "--memory", who, str(edge)]
    return statistics.median(
        float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        for _ in range(times)
    )


def _memory(who: str, edge: int) -> float:
    def peak() -> float:
        text = Path("/proc/self/status").read_text()
        return int(text.split("VmHWM:")[1].split()[0]) / 1024

    call = our_gradient if who == "ours" else peers.gradient
    if who != "ours":
        import torch

        torch.set_num_threads(1)
    call(*gradient_problem(32))
    before = peak()
    call(*gradient_problem(edge))
    return peak() - before


def exponential(effort: Effort) -> Iterator[Row]:
    """The flow beside SciPy's action of the exponential of the same operator, float64 there."""
    from scipy.sparse.linalg import expm_multiply

    weights, distances = problem(4, effort.sparse)
    s = select(distances).similarity(weights, -distances, BOX)
    matrix = peers.matrix(weights, s, BOX, TIME)
    last = np.zeros(matrix.shape[0])
    last[-1] = 1
    z = expm_multiply(matrix, last)[:-1].reshape(s.shape)
    assert (classify(weights, distances)[0] != z.argmax(axis=0) + 1).mean() < 1e-3
    pair = partial(classify, weights, distances), partial(expm_multiply, matrix, last)
    found = alternate(*pair, min(effort.rounds, 3))
    yield _rates("forward, J = 4: SciPy's expm_multiply", effort.sparse, found, 500)


def discrete(effort: Effort) -> Iterator[Row]:
    """The flow beside graph cuts on the same distances."""
    for labels, name in ((2, "graph cut"), (4, "alpha-expansion")):
        weights, distances = problem(labels, effort.edge)
        pair = partial(classify, weights, distances), partial(peers.cut, distances)
        found = alternate(*pair, min(effort.rounds, 3))
        yield _rates(f"forward, J = {labels}: {name} (PyMaxflow)", effort.edge, found, 1)


def fields(effort: Effort) -> Iterator[Row]:
    """The flow beside a dense CRF on the same distances."""
    weights, distances = problem(4, effort.edge)
    image = (255 * distances[0] / 2).astype(np.uint8)
    pair = partial(classify, weights, distances), partial(peers.dense_crf, distances, image)
    found = alternate(*pair, min(effort.rounds, 3))
    yield _rates("forward, J = 4: dense CRF (pydensecrf2)", effort.edge, found)


# end to end


def slide(path: Path, edge: int) -> None:
    """Smooth cells with noise in a sharded Zarr array, from one block that is mirrored."""
    import zarr

    block_edge = min(edge, 2048)
    rng = np.random.default_rng(0)
    smooth = gaussian_filter(rng.standard_normal((block_edge, block_edge)), 6)
    noisy = 128 + 40 * smooth / smooth.std() + rng.normal(0, 12, smooth.shape)
    block = np.clip(noisy, 0, 255).astype(np.uint8)
    array = zarr.create_array(
        path,
        shape=(edge, edge),
        shards=(block_edge,) * 2,
        chunks=(min(edge, 512),) * 2,
        dtype="uint8",
        dimension_names=("y", "x"),
    )
    for y in range(0, edge, block_edge):
        for x in range(0, edge, block_edge):
            array[y : y + block_edge, x : x + block_edge] = block[
                :: -1 if y // block_edge % 2 else 1, :: -1 if x // block_edge % 2 else 1
            ]


def repeat(job: Any, index: Any) -> float:
    """The kernels' own part of a tile, on data in memory: seconds."""
    tile = job.grid.tile_at(index)
    data = Window(job.image.read(tile.window))
    compute(job, data, tile)
    start = clock.perf_counter()
    for _ in range(4):
        compute(job, data, tile)
    return (clock.perf_counter() - start) / 4


@dataclass(frozen=True)
class Labeling:
    """Seconds of a run by worker processes.

    Attributes
    ----------
    run : all of it
    kernels, store : what its tiles take for the kernels alone, and for reading and writing, one
        after the other
    tiles : their number
    """

    run: float
    kernels: float
    store: float
    tiles: int


def labeled(
    source: Path,
    output: Path,
    classes: int,
    workers: int,
    tile: int | None = None,
    copy_image: bool = True,
) -> Labeling:
    """Label a slide."""
    plan = sample.settle(
        make_plan(
            images.open_image(str(source)),
            str(output),
            term=terms.Clusters(classes),
            settings=settings.make_settings("3x3", 2, 1.0, TIME, None, "cpu"),
            tile=tile,
            writing=Writing(copy_image=copy_image),
        )
    )
    tiles = [t.index for t in plan.job.grid]
    some = tiles[:: max(1, len(tiles) // 6)][:6]
    alone: list[float] = []
    with resources.open_pool(plan, Running(workers, "processes")) as pool:
        for part in (some, some):  # the first time loads kernels
            alone = [s for _, s, error, _ in pool.run(repeat, plan.job, part) if not error]
        found = labeling_run.run(plan, pool)
        alone += [s for _, s, error, _ in pool.run(repeat, plan.job, some) if not error]
    assert found.tiles["failed"] == 0
    assert plan.out is not None
    kept = [r["seconds"] for r in records.read(plan.out.records).values()]
    moved = sum(read + write for read, _, write in kept)
    return Labeling(found.seconds, statistics.median(alone) * len(tiles), moved, len(tiles))


def whole(effort: Effort) -> Iterator[Row]:
    """Labeling from Zarr to Zarr beside its kernels alone; workers; tiles; start."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "slide.zarr"
        slide(source, effort.slide)
        for classes in (4, 8):
            two = labeled(source, folder / f"out{classes}.zarr", classes, 2)
            what = f"labeling {effort.slide}², J = {classes}, 2 workers: share of"
            # workers share the cores: what reading and writing compute is lost to the kernels
            for bound, text, goal in (
                (max(two.kernels, two.store), "the slower of kernels and store", 0.8),
                (two.kernels + two.store, "kernels and store", None),
            ):
                yield Row(f"{what} {text}", "s", two.run, bound / 2, bound / 2 / two.run, goal)
        one = labeled(source, folder / "one.zarr", 8, 1)
        yield Row(
            f"labeling {effort.slide}², J = 8: two workers against one",
            "s",
            two.run,
            one.run,
            one.run / two.run,
            1.9,
        )
        small = folder / "small.zarr"
        slide(small, effort.tiles)
        yield tiles(small, folder, effort)
    yield started()


def tiles(source: Path, folder: Path, effort: Effort) -> Row:
    """What a tile costs beside its kernels: ours and dask's map_overlap, a worker each."""
    import dask
    import dask.array as da
    from dask.distributed import Client, LocalCluster

    edge = 128
    # labels alone, as there
    ours = labeled(source, folder / "tiles.zarr", 4, 1, edge, copy_image=False)
    prototypes = np.array([[60.0], [110], [150], [200]], np.float32)
    halo = len(Taylor(TOL).polynomial(TIME).coefficients) + 1

    def kernel(block: np.ndarray) -> np.ndarray:
        distances = select(prototypes).distances(block[None], prototypes, 1000.0)
        found: np.ndarray = classify(stencil.uniform(BOX, block.shape), distances)[0]
        return found

    with (
        dask.config.set({"distributed.worker.daemon": True}),
        LocalCluster(1, threads_per_worker=1, dashboard_address=None) as servers,
        Client(servers),
    ):
        array = da.from_zarr(str(source)).rechunk((edge, edge))
        found = da.map_overlap(kernel, array, depth=halo, boundary="none", dtype=np.uint8)
        found[: 2 * edge, : 2 * edge].compute()
        start = clock.perf_counter()
        found.to_zarr(str(folder / "dask.zarr"), overwrite=True)
        theirs = clock.perf_counter() - start
    mine, other = ((t - ours.kernels) / ours.tiles for t in (ours.run, theirs))
    return Row(
        "a tile beside its kernels: dask's map_overlap",
        "ms",
        1e3 * mine,
        1e3 * other,
        other / mine,
        5,
    )


def started() -> Row:
    """Until a warm command line has labeled a small image."""
    with tempfile.TemporaryDirectory() as name:
        np.save(Path(name) / "image.npy", np.arange(4096, dtype=np.uint8).reshape(64, 64))
        command = [
            sys.executable,
            "-m",
            "tiledlaf",
            "label",
            "image.npy",
            "out.zarr",
            "--classes",
            "2",
            "--workers",
            "1",
            "--overwrite",
        ]

        def call() -> None:
            subprocess.run(command, cwd=name, check=True, capture_output=True)

        seconds = best(call, 3)
    return Row("start: five seconds", "s", seconds, 5, 5 / seconds, 1)


def learning(effort: Effort) -> Iterator[Row]:
    """Steps of a training a second, two workers and one."""
    rng = np.random.default_rng(0)
    rates: dict[int, list[float]] = {}
    edge = effort.gradient
    with tempfile.TemporaryDirectory() as name:
        paths: dict[str, list[str]] = {"image": [], "labels": [], "p": []}
        for n in range(4):
            truth = (rng.random((edge, edge)) < 0.3).astype(np.uint8)
            p = np.clip(truth + rng.normal(0, 0.4, truth.shape), 0.02, 0.98).astype(np.float32)
            stored = {
                "image": (255 * p).astype(np.uint8),
                "labels": truth,
                "p": np.stack([1 - p, p]),
            }
            for key, value in stored.items():
                paths[key].append(f"{name}/{key}{n}.npy")
                np.save(paths[key][-1], value)
        pairs = examples.pair(paths["image"], paths["labels"], paths["p"])
        data = training_run.Data(pairs[:3], pairs[3:], "probabilities")
        for workers in (1, 2, 1, 2):
            moments: list[float] = []

            def note(record: Any, moments: list[float] = moments) -> None:
                if "step" in record:
                    moments.append(clock.perf_counter())

            recipe = training_run.Recipe(
                steps=effort.steps, features=Features((("odds", "patch", 1, 1, 0),))
            )
            with dask_pool.dask(workers) as pool:
                training_run.train(data, recipe, pool, progress=note)
            # the first steps load kernels, the last one validates
            steps = np.diff(moments)[min(2, effort.steps - 3) : -1]
            rates.setdefault(workers, []).append(1 / statistics.median(steps))
    one, two = (statistics.median(rates[n]) for n in (1, 2))
    yield Row("training: two workers against one", "steps/s", two, one, two / one, 1.6)


# the table


def measure(effort: Effort, only: str, found: dict[str, float]) -> Iterator[Row]:
    """All rows; programs that are not installed are named."""
    parts: dict[str, Callable[[], Iterator[Row]]] = {
        "kernels": lambda: kernels(effort, found),
        "prediction": lambda: prediction(effort, found),
        "forward": lambda: forward(effort),
        "gradient": lambda: gradient(effort),
        "exponential": lambda: exponential(effort),
        "discrete": lambda: discrete(effort),
        "fields": lambda: fields(effort),
        "whole": lambda: whole(effort),
        "learning": lambda: learning(effort),
    }
    chosen = only.split(",") if only else list(parts)
    unknown = set(chosen) - set(parts)
    if unknown:
        raise SystemExit(f"--only: expected some of {', '.join(parts)}, got {', '.join(unknown)}")
    for name in chosen:
        try:
            for found_row in parts[name]():
                row = replace(found_row, goal=None) if effort is SMALL else found_row
                say(line(row))
                yield row
        except ImportError as error:
            say(f"{name}: left out, {error}")


def line(row: Row) -> str:
    """A row as text."""
    goal = "" if row.goal is None else f"goal {row.goal:g}: {'met' if row.met else 'MISSED'}"
    return (
        f"{row.name:<72} {row.ours:>9.4g} {row.other:>9.4g} {row.unit:<8} {row.ratio:>7.3g}  {goal}"
    )


def say(text: str) -> None:
    """One line, at once."""
    print(text, flush=True)


def draw(rows: list[Row], path: Path) -> None:
    """Ratios and goals as bars."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(10, 1 + 0.3 * len(rows)), layout="constrained")
    places = np.arange(len(rows))[::-1]
    colors = ["#999999" if r.met is None else "#0072b2" if r.met else "#d55e00" for r in rows]
    axes.barh(places, [r.ratio for r in rows], color=colors)
    for place, row in zip(places, rows, strict=True):
        axes.text(row.ratio, place, f" {row.ratio:.3g}", va="center", fontsize=8)
        if row.goal is not None:
            axes.plot([row.goal] * 2, [place - 0.45, place + 0.45], color="black")
    axes.set(yticks=places, xscale="log", xlabel="ratio; the black line is the goal")
    axes.set_yticklabels([r.name for r in rows], fontsize=8)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def slower(rows: list[Row], path: Path) -> list[str]:
    """Lines on ratios that fell since the table in a file."""
    before = {r["name"]: r["ratio"] for r in json.loads(path.read_text())["rows"]}
    return [
        f"slower: {r.name}: {r.ratio:.3g}, was {before[r.name]:.3g}"
        for r in rows
        if r.name in before and r.ratio < SLOWER * before[r.name]
    ]


def main() -> None:
    """Measure, and leave the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--small", action="store_true", help="tiny problems: does it run at all?")
    parser.add_argument("--output", type=Path, default=Path("benchmark"), help="folder (benchmark)")
    parser.add_argument("--only", default="", help="parts, as kernels,gradient (all)")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a goal is missed")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="name what got slower")
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory:
        print(_memory(args.memory[0], int(args.memory[1])))
        return
    args.output.mkdir(parents=True, exist_ok=True)
    about, found = machine(), limits()
    for key, value in (about | {k: round(v, 2) for k, v in found.items()}).items():
        say(f"{key}: {value}")
    say(f"\n{'':<72} {'ours':>9} {'other':>9} {'':<8} {'ratio':>7}")
    rows = list(measure(SMALL if args.small else FULL, args.only, found))
    stored = [asdict(row) | {"met": row.met} for row in rows]
    table = {"machine": about, "limits": found, "small": args.small, "rows": stored}
    (args.output / "benchmark.json").write_text(json.dumps(table, indent=1) + "\n")
    with (args.output / "benchmark.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["name", "unit", "ours", "other", "ratio", "goal", "met"])
        writer.writeheader()
        writer.writerows(stored)
    draw(rows, args.output / "benchmark.png")
    if args.compare:
        for text in slower(rows, args.compare) or ["nothing got slower"]:
            say(text)
    missed = [row.name for row in rows if row.met is False]
    if args.check and missed:
        raise SystemExit(f"missed: {'; '.join(missed)}")


if __name__ == "__main__":
    main()
