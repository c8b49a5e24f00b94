"""A network over a large image: the same bits after a kill, and its speed beside a plain loop.

``python pipelines/tiled_network.py --network FILE`` makes an image of noise as Zarr, labels it by
``tiledlaf label --network`` on two workers, once as it is and once killed on the way and started
again, and by a plain loop over overlapping blocks in onnxruntime, which two processes share. All
run on one thread a process. Without a file, a network is made: three levels of 3x3 convolutions.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time as clock
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from tiledlaf.files import images
from tiledlaf.model.network import Network
from tiledlaf.model.opening import open_network

CHUNK = 1024
WORKERS = 2


def make_image(path: Path, edge: int) -> None:
    """Noise, edge x edge uint8; what a network makes of it takes as long as anything else."""
    rng = np.random.default_rng(0)
    array = zarr.create_array(path, shape=(edge, edge), chunks=(CHUNK, CHUNK), dtype="uint8")
    for y in range(0, edge, CHUNK):
        rows = min(CHUNK, edge - y)
        array[y : y + rows] = rng.integers(0, 256, (rows, edge), np.uint8)


def make_network(path: Path, width: int = 16) -> None:
    """A network of a few levels with random weights, two classes."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng, nodes, weights = np.random.default_rng(0), [], []

    def add(kind: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, list(inputs), [f"v{len(nodes)}"], **attributes))
        return f"v{len(nodes) - 1}"

    def convolved(given: str, channels: int, taken: int) -> str:
        w = rng.normal(0, 1 / np.sqrt(9 * channels), (taken, channels, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(w, f"w{len(weights)}"))
        return add("Relu", add("Conv", given, weights[-1].name, pads=[1] * 4))

    levels, top, channels = [], "image", 1
    for level in range(3):
        if level:
            top = add("MaxPool", top, kernel_shape=[2, 2], strides=[2, 2])
        top = convolved(convolved(top, channels, width << level), width << level, width << level)
        channels = width << level
        levels.append((top, channels))
    weights.append(numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales"))
    for around, fewer in levels[-2::-1]:
        wider = add("Resize", top, "", "scales", mode="nearest")
        top = convolved(add("Concat", around, wider, axis=1), fewer + channels, fewer)
        channels = fewer
    w = rng.normal(0, 1, (2, channels, 3, 3)).astype(np.float32)
    w -= w.mean(axis=(2, 3), keepdims=True)  # of even planes it makes neither class
    weights.append(numpy_helper.from_array(w, "last"))
    top = add("Conv", top, "last", pads=[1] * 4)
    given, made = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", planes, "y", "x"])
        for name, planes in (("image", 1), (top, 2))
    )
    graph = helper.make_graph(nodes, "levels", [given], [made], weights)
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)


def label(args: argparse.Namespace, out: str, kill: float | None = None) -> float:
    """Label by the command; seconds. With `kill`, end all of its processes after so many."""
    command = [
        *(sys.executable, "-m", "tiledlaf", "label", "image.zarr", out),
        *("--network", str(args.network), "--network-range", "0,255", "--time", "1"),
        *("--workers", str(WORKERS), "--scheduler", "processes", "--no-image", "--no-overview"),
        *(("--tile", str(args.tile)) if args.tile else ()),
    ]
    began = clock.perf_counter()
    with subprocess.Popen(
        command, cwd=args.output, start_new_session=True, stderr=subprocess.DEVNULL
    ) as process:
        try:
            process.wait(kill)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
    if kill is None and process.returncode:
        raise SystemExit(f"{out}: the command ended with {process.returncode}")
    return clock.perf_counter() - began


def loop(folder: Path, path: str, core: int, margin: int, part: int) -> None:
    """Each other block of the image, as one would write it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    run = onnxruntime.InferenceSession(path, options).run
    image = zarr.open_array(folder / "image.zarr", mode="r")
    labels = zarr.open_array(folder / "loop.zarr", mode="r+")
    height, width = image.shape
    places = [(y, x) for y in range(0, height, core) for x in range(0, width, core)]
    for y, x in places[part::WORKERS]:
        top, left = max(0, y - margin), max(0, x - margin)
        bottom, right = min(height, y + core + margin), min(width, x + core + margin)
        block = image[top:bottom, left:right].astype(np.float32) / 255
        beyond = (
            (top - y + margin, y + core + margin - bottom),
            (left - x + margin, x + core + margin - right),
        )
        (found,) = run(None, {"image": np.pad(block, beyond, mode="reflect")[None, None]})
        inner = found[0].argmax(axis=0)[margin : margin + core, margin : margin + core]
        labels[y : y + core, x : x + core] = inner[: height - y, : width - x].astype(np.uint8) + 1


def plain(args: argparse.Namespace, network: Network) -> float:
    """The plain loop on as many processes; seconds."""
    folder, core, margin = args.output, network.core[0], network.margin[0]
    shape = zarr.open_array(folder / "image.zarr", mode="r").shape
    zarr.create_array(
        folder / "loop.zarr", shape=shape, chunks=(core, core), dtype="uint8", overwrite=True
    )
    given = (folder, str(args.network), core, margin)
    spawned = multiprocessing.get_context("spawn")
    began = clock.perf_counter()
    processes = [spawned.Process(target=loop, args=(*given, n)) for n in range(WORKERS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        if process.exitcode:
            raise SystemExit(f"the plain loop ended with {process.exitcode}")
    return clock.perf_counter() - began


def same_labels(folder: Path, one: str, other: str) -> bool:
    """Whether two outputs have the same labels."""
    first, second = (images.open_image(str(folder / n / "labels/tiledlaf")) for n in (one, other))
    for y in range(0, first.grid[0], CHUNK):
        box = (slice(y, min(y + CHUNK, first.grid[0])), slice(0, first.grid[1]))
        if not np.array_equal(first.read(box), second.read(box)):
            return False
    return True


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", type=Path, help="ONNX file of one channel, (1, 1, y, x)")
    parser.add_argument("--output", type=Path, default=Path("tiled-network"))
    parser.add_argument("--edge", type=int, default=20_000, help="pixels of a side (20 000)")
    parser.add_argument("--tile", type=int, help="edge of a tile (that of `label`)")
    parser.add_argument("--repeat", type=int, default=3, help="times that speed is measured (3)")
    args = parser.parse_args(argv)
    args.output.mkdir(parents=True, exist_ok=True)
    if args.network is None:
        args.network = args.output / "network.onnx"
        make_network(args.network)
    args.network = args.network.absolute()
    if not (args.output / "image.zarr").exists():
        make_image(args.output / "image.zarr", args.edge)
    network, seconds = open_network(args.network), []
    for _ in range(args.repeat):  # in turns, since other work slows both
        shutil.rmtree(args.output / "whole.zarr", ignore_errors=True)
        seconds.append((label(args, "whole.zarr"), plain(args, network)))
    shutil.rmtree(args.output / "killed.zarr", ignore_errors=True)
    ours, others = (statistics.median(column) for column in zip(*seconds, strict=True))
    label(args, "killed.zarr", kill=ours / 2)
    label(args, "killed.zarr")
    megapixels = args.edge**2 / 1e6
    found = {
        "megapixels": megapixels,
        "block": list(network.core),
        "margin": list(network.margin),
        "seconds": seconds,
        "megapixels a second": [megapixels / ours, megapixels / others],
        "share of the plain loop's speed": statistics.median(o / one for one, o in seconds),
        "same labels after a kill": same_labels(args.output, "whole.zarr", "killed.zarr"),
    }
    (args.output / "result.json").write_text(json.dumps(found, indent=1))
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
