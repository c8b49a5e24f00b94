"""Speed and memory of learning, paired within one run: reported, not asserted."""

import statistics
import subprocess
import sys
import time as clock
from pathlib import Path

import numpy as np
import pytest

from tiledlaf import cluster, examples, stencil, training
from tiledlaf.gradient import linearize
from tiledlaf.losses import Cosine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
BOX = stencil.box(3, 3)

# peak memory of one gradient above the imports and kernels, in MiB, in a process of its own
MEMORY = """
import sys
sys.path[:0] = {paths!r}
import numpy as np
import test_learning_speed as bench
bench.{call}(*bench.problem(64))  # imports and kernels
before = bench.peak()
bench.{call}(*bench.problem(512))
print(bench.peak() - before)
"""


def problem(edge, labels=10):
    rng = np.random.default_rng(0)
    distances = (2 * rng.random((labels, edge, edge))).astype(np.float32)
    return stencil.uniform(BOX, (edge, edge)), distances, rng.integers(0, labels, (edge, edge))


def peak():
    text = Path("/proc/self/status").read_text()
    return int(text.split("VmHWM:")[1].split()[0]) // 1024


def ours(weights, distances, target):
    loss, labels = Cosine(), (target + 1).astype(np.uint8)
    flow = linearize(weights, distances, BOX, time=5.0)
    g = loss.gradient(flow.z, labels, loss.sums(flow.z, labels))
    return flow.gradient(g).tangent


def automatic(weights, distances, target):
    """PyTorch's own gradient of a Krylov-10 flow as one would write it."""
    import torch
    import torch_flow

    w = torch.from_numpy(weights).requires_grad_()
    z = torch_flow.forward(w, torch.from_numpy(distances))
    return _pulled(torch, z, w, target)


def careful(weights, distances, target):
    """The same with a backward pass of the averages written by hand, which saves memory."""
    import torch_learning

    return torch_learning.krylov_loss_and_gradient(weights, distances, BOX, target, 5.0, 10)[1]


def _pulled(torch, z, w, target):
    hot = torch.nn.functional.one_hot(torch.from_numpy(target), len(z)).movedim(-1, 0)
    star = hot.float() - 1 / len(z)
    loss = 1 - (star * z).sum() / (star.norm() * z.norm())
    loss.backward()
    return w.grad.numpy()


def tangent(weights, gradient):
    return weights * (gradient - (weights * gradient).sum(axis=0))


@pytest.mark.parametrize("other", ["automatic", "careful"])
def test_gradient_against_pytorch(other):
    """512 x 512, 10 labels, T = 5, float32, one thread."""
    torch = pytest.importorskip("torch", reason="PyTorch is what this benchmark compares with")
    torch.set_num_threads(1)
    given = problem(512)
    theirs = globals()[other]
    mine, found = ours(*given), tangent(given[0], theirs(*given))
    assert abs(mine - found).max() < 1e-3 * abs(found).max()
    times = []
    for _ in range(5):
        pair = []
        for call in (ours, theirs):
            start = clock.perf_counter()
            call(*given)
            pair.append(clock.perf_counter() - start)
        times.append(pair)
    a, b = (statistics.median(column) for column in zip(*times, strict=True))
    ratio = statistics.median(q / p for p, q in times)
    here = Path(__file__).parent
    memory = [
        int(
            subprocess.run(
                [sys.executable, "-c",
                 MEMORY.format(call=call, paths=[str(here), str(here.parent)])],
                capture_output=True, text=True, check=True,
            ).stdout
        )
        for call in ("ours", other)
    ]  # fmt: skip
    print(
        f"\ngradient: {1e3 * a:.0f} ms, PyTorch ({other}) {1e3 * b:.0f} ms, {ratio:.1f} times "
        f"faster; peak memory {memory[0]} MiB, PyTorch {memory[1]} MiB"
    )


def test_training_on_two_workers(tmp_path):
    """Steps a second with one and two processes, on 512 x 512 images with probabilities."""
    rng = np.random.default_rng(0)
    paths = {"image": [], "labels": [], "p": []}
    for n in range(4):
        truth = (rng.random((512, 512)) < 0.3).astype(np.uint8)
        p = np.clip(truth + rng.normal(0, 0.4, truth.shape), 0.02, 0.98).astype(np.float32)
        arrays = {"image": (255 * p).astype(np.uint8), "labels": truth, "p": np.stack([1 - p, p])}
        for key, value in arrays.items():
            path = tmp_path / f"{key}{n}.npy"
            np.save(path, value)
            paths[key].append(str(path))
    pairs = examples.pair(paths["image"], paths["labels"], paths["p"])
    data = training.Data(pairs[:3], pairs[3:], "probabilities")
    rates = {}
    for workers in (1, 2, 1, 2):
        moments = []

        def note(record, moments=moments):
            if "step" in record:
                moments.append(clock.perf_counter())

        with cluster.dask(workers) as pool:
            training.train(data, training.Recipe(steps=9), pool, progress=note)
        # the first steps load kernels, the last one validates
        steps = np.diff(moments)[2:-1]
        rates.setdefault(workers, []).append(1 / statistics.median(steps))
    one, two = (statistics.median(rates[n]) for n in (1, 2))
    print(f"\ntraining: {one:.2f} steps/s on one worker, {two:.2f} on two: {two / one:.2f} times")
