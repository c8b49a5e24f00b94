"""The gradient in the weights by each method with one interface, and what one costs.

A method is a function of weights (K, y, x), distances (J, y, x), a target of labels 1..J and T, to
`Found`. ``python -m support.ways`` is what `cost` starts, so that a process has one gradient's
memory alone.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import statistics
import subprocess
import sys
import time as clock
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from support import peers
from tiledlaf.flow import stencil
from tiledlaf.flow.gradient import Kronecker, Polynomials, Spaces, Way, linearize
from tiledlaf.flow.losses import Cosine

BOX = stencil.box(3, 3)
TIME = 5.0
DIM = 10  # Krylov dimension
STEPS = 20  # of Euler


@dataclass(frozen=True, eq=False)
class Found:
    """A flow, its loss, and the gradient of that.

    Attributes
    ----------
    z : (J, y, x), Z(T)
    loss : 1 - cosine (3.4)
    tangent : (K, y, x), R_Omega dL/dOmega
    singular_values, rank : of the closed form; none of the others
    """

    z: np.ndarray
    loss: float
    tangent: np.ndarray
    singular_values: np.ndarray
    rank: int


Method = Callable[[np.ndarray, np.ndarray, np.ndarray, float], Found]


def closed(
    way: Way, weights: np.ndarray, distances: np.ndarray, target: np.ndarray, time: float
) -> Found:
    """In closed form (Theorem 3.8)."""
    loss = Cosine()
    flow = linearize(weights, distances, BOX, time=time, way=way)
    sums = loss.sums(flow.z, target)
    found = flow.gradient(loss.gradient(flow.z, target, sums))
    return Found(flow.z, loss.value(sums), found.tangent, found.singular_values, found.rank)


def automatic(
    flow: Callable[..., Any],
    weights: np.ndarray,
    distances: np.ndarray,
    target: np.ndarray,
    time: float,
) -> Found:
    """By PyTorch's automatic differentiation of a scheme of `peers`."""
    z, loss, euclidean = peers.differentiate(
        weights, distances, target.astype(np.int64) - 1, partial(flow, time=time)
    )
    tangent = weights * (euclidean - (weights * euclidean).sum(axis=0))
    return Found(z, loss, tangent, np.empty(0), 0)


PAPER, OURS = "low rank: m = 10, r = 1", "fixed coefficients"
AD_EULER, AD_KRYLOV = "automatic: Euler", "automatic: Krylov"
KRONECKER = "one Krylov space of the Kronecker sum"


def method(name: str, dim: int = DIM, rank: int | None = None, steps: int = STEPS) -> Method:
    """A method by its name; rank None: 1 for the paper's, chosen by the singular values for ours.

    Parameters
    ----------
    dim : of Krylov spaces
    steps : of Euler
    """
    found: dict[str, Method] = {
        PAPER: partial(closed, Spaces(dim, rank=rank or 1)),
        OURS: partial(closed, Polynomials(rank=rank)),
        AD_EULER: partial(automatic, partial(peers.euler, steps=steps)),
        AD_KRYLOV: partial(automatic, partial(peers.forward, dim=dim)),
        KRONECKER: partial(closed, Kronecker(dim)),
    }
    return found[name]


def available() -> list[str]:
    """The four that are compared, without those of PyTorch where it is not installed."""
    try:
        import torch
    except ImportError:
        return [PAPER, OURS]
    torch.set_num_threads(1)  # as ours
    return [PAPER, OURS, AD_EULER, AD_KRYLOV]


def directions(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of two gradients at each pixel, (y, x); 0 where one of them is 0."""
    product, lengths = (a * b).sum(axis=0), (a * a).sum(axis=0) * (b * b).sum(axis=0)
    found: np.ndarray = product / np.sqrt(np.where(lengths > 0, lengths, 1))
    return found


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """||a - b|| / ||b||."""
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


# what one costs


@dataclass(frozen=True)
class Cost:
    """Of one gradient with float32 data: median processor seconds, and MiB above its input."""

    seconds: float
    memory: float


@functools.cache
def cost(
    name: str,
    edge: int,
    labels: int,
    dim: int = DIM,
    rank: int | None = None,
    steps: int = STEPS,
    rounds: int = 3,
) -> Cost:
    """Measured in a process of its own, on one thread; Linux alone tells a peak."""
    given = {
        "name": name,
        "edge": edge,
        "labels": labels,
        "dim": dim,
        "rank": rank,
        "steps": steps,
        "rounds": rounds,
    }
    # as a module of its folder, which may not be where this process was started
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    found = subprocess.run(
        [sys.executable, "-m", "support.ways", json.dumps(given)],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode:
        raise SystemExit(f"{name}: {found.stderr.strip()}")
    return Cost(*json.loads(found.stdout))


def _cost(
    name: str, edge: int, labels: int, dim: int, rank: int | None, steps: int, rounds: int
) -> Cost:
    if name.startswith("automatic"):
        import torch

        torch.set_num_threads(1)
    one = method(name, dim, rank, steps)
    one(*problem(4, labels), TIME)  # compiles, and loads what is needed
    given = problem(edge, labels)
    # what the problem's making left in the heap would be used first, and not count
    ctypes.CDLL(None).malloc_trim(0)
    # the peak begins anew at what is used now (proc(5), clear_refs)
    Path("/proc/self/clear_refs").write_text("5")
    before, seconds = _kib("VmHWM"), []
    for _ in range(rounds):
        # of the processor: what else the machine does is left out
        start = clock.process_time()
        one(*given, TIME)
        seconds.append(clock.process_time() - start)
    peak = _kib("VmHWM")
    return Cost(statistics.median(seconds), (peak - before) / 1024)


def problem(edge: int, labels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Uniform weights, random distances and random labels."""
    rng = np.random.default_rng(0)
    distances = (2 * rng.random((labels, edge, edge))).astype(np.float32)
    target = rng.integers(1, labels + 1, (edge, edge)).astype(np.uint8)
    return stencil.uniform(BOX, (edge, edge)), distances, target


def _kib(name: str) -> int:
    return int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0])


if __name__ == "__main__":
    found = _cost(**json.loads(sys.argv[1]))
    print(json.dumps([found.seconds, found.memory]))
