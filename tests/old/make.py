"""Makes the files of an older release that tests/test_releases.py opens.

    git worktree add ../old c6fabe5
    PYTHONPATH=../old python tests/old/make.py tests/old

The input's time is part of what outputs and checkpoints belong to, so it is set, here and in the
tests. Archives, since files of one store by one are many.
"""

import contextlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import zarr

import tiledlaf
from tiledlaf import cli

TIME = 1_700_000_000
TRAIN = ["--images", "image", "--labels", "truth", "--workers", "1"]
IMAGE = "image/0.npy"
MODELS = {
    "means": [*TRAIN, "--steps", "4", "--size", "4"],
    "trees": [*TRAIN, "--classifier", "--steps", "2", "--size", "3"],
    "given": [*TRAIN, "--probabilities", "given", "--steps", "2", "--size", "3"],
}
CUT = ["train", "cut.model", *TRAIN, "--steps", "16", "--size", "4"]
ESTIMATE = ["estimate", IMAGE, "truth/0.npy", "weights.zarr", "--steps", "2", "--workers", "1"]


def label(out, *options):
    return ["label", IMAGE, out, *options, "--tile", "16", "--workers", "1", "--no-image"]


LABELS = {
    "means": ["--model", "means.model"],
    "trees": ["--model", "trees.model"],
    "given": ["--model", "given.model", "--probabilities", "given/0.npy"],
    "weights": ["--weights", "weights.zarr"],
}
HALF = ["--classes", "3", "--confidence"]


def inputs():
    """Two images of three classes, their labels, and probabilities."""
    truth = np.repeat([[1, 2, 3]], 14, axis=1).reshape(1, 42).repeat(36, axis=0)
    for name in ("image", "truth", "given"):
        os.mkdir(name)
    for seed in range(2):
        noise = np.random.default_rng(seed).integers(-40, 41, truth.shape)
        image = np.clip(60 * truth + noise, 0, 255).astype(np.uint8)
        close = 100 - abs(image[None] - 60.0 * np.arange(1, 4)[:, None, None]) * 0.5
        arrays = image, truth.astype(np.uint8), (close / close.sum(axis=0)).astype(np.float32)
        for name, array in zip(("image", "truth", "given"), arrays, strict=True):
            np.save(f"{name}/{seed}.npy", array)
            os.utime(f"{name}/{seed}.npy", (TIME, TIME))


def run(*arguments):
    sys.argv = ["tiledlaf", *arguments]
    with contextlib.suppress(SystemExit):
        cli.main()


@contextlib.contextmanager
def cut(name, last):
    """Interrupt the command when it tells of its progress."""
    whole = getattr(cli, name)
    told = []

    def tell(record):
        told.append(record)
        if last(record, told):
            raise KeyboardInterrupt

    setattr(cli, name, lambda *a: contextlib.nullcontext(tell))
    try:
        yield
    finally:
        setattr(cli, name, whole)


def main(folder):
    folder = Path(folder).absolute()
    os.chdir(tempfile.mkdtemp())
    inputs()
    for name, options in MODELS.items():
        run("train", f"{name}.model", *options)
    run(*ESTIMATE)
    found = {}
    for name, options in LABELS.items():
        run(*label(f"{name}-labels.zarr", *options))
        found[name] = zarr.open_array(f"{name}-labels.zarr", path="labels/tiledlaf/0")[:]
    run(*label("whole.zarr", *HALF))
    store = zarr.open_group("whole.zarr")
    found["whole"] = store["labels/tiledlaf/0"][:]
    found["confidence"] = store["confidence/0"][:]
    with cut("_progress", lambda record, told: len(told) == 4):
        run(*label("half.zarr", *HALF))
    run(*[a.replace("cut.model", "uncut.model") for a in CUT])
    with cut("_training_progress", lambda record, told: record.get("step") == 12):
        run(*CUT)
    for name in ("weights", "whole", "half"):
        shutil.make_archive(str(folder / name), "zip", f"{name}.zarr")
    for name in ("means.model", "trees.model", "given.model", "uncut.model"):
        shutil.copy(name, folder)
    shutil.copy("cut.model.checkpoint", folder)
    np.savez_compressed(folder / "labels.npz", **found)


if __name__ == "__main__":
    print(tiledlaf.__file__)
    main(sys.argv[1])
