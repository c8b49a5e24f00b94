"""The command with a fault: ``FAULT=name python faulty.py ARGUMENTS``.

Workers have it as well: they take this file as a Dask preload. Files of lines tell what happens:
a tile is `begun`, a call has `failed`, a checkpoint is `written`.
"""

import contextlib
import errno
import itertools
import os
import random
import signal
import threading
import time
import warnings
from pathlib import Path

from tiledlaf.cli import main
from tiledlaf.files import image as image_files
from tiledlaf.files import units
from tiledlaf.labeling import records
from tiledlaf.labeling import worker as labeling_worker
from tiledlaf.model import arrays as model_arrays
from tiledlaf.pool import dask as dask_pool
from tiledlaf.training import worker as training_worker

BAD = (5, 7)  # a tile
IMAGE = "images/3.tif"  # of a training
NOW = threading.local()  # the tile at hand
SHARE = 0.05


def note(name, text):
    with Path(name).open("ab", buffering=0) as file:
        file.write(f"{text}\n".encode())


def fails(code):
    note("failed", code)
    raise OSError(code, os.strerror(code))


def sometimes(share=SHARE):
    return random.random() < share


def before(owner, name, action):
    """Do something before each call of a function."""
    function = getattr(owner, name)

    def call(*args, **kwargs):
        action(*args)
        return function(*args, **kwargs)

    setattr(owner, name, call)


def begin(plan, tile):
    NOW.tile = tile.index
    note("begun", tile.index)


def none():
    pass


def but_one(action):
    """What fails of the checkpoints and the model, which are few.

    A start can write one, when it tries again; at the next one all tries fail, which ends it.
    """
    count = itertools.count()
    return lambda *args: None if next(count) == 1 else action(*args)


def slow_writes():
    before(units, "_place", lambda *_: time.sleep(0.02))

    def sync(file):
        time.sleep(0.5)
        os.fsync(file)

    model_arrays.os = Some(fsync=sync)


def failing_writes():
    """Of files, of records, and of checkpoints and the model."""
    before(units, "_place", lambda *_: sometimes() and fails(errno.EIO))
    before(records.Appender, "add", lambda *_: sometimes() and fails(errno.EIO))
    before(model_arrays, "write_arrays", but_one(lambda *_: fails(errno.EIO)))


def short_writes():
    """What is written ends in the middle, and then there is an error."""

    def cut_open(file):
        os.ftruncate(file, os.fstat(file).st_size // 2)
        fails(errno.EIO)

    def cut(part, *_):
        if os.path.exists(part) and sometimes():
            os.truncate(part, os.path.getsize(part) // 2)
            fails(errno.EIO)

    def write(file, line):
        if sometimes():
            note("failed", "line")
            line = line[: len(line) // 2]
        return os.write(file, line)

    before(units, "_place", cut)
    records.os = Some(write=write)
    model_arrays.os = Some(fsync=but_one(cut_open))


def full_disk():
    """After one checkpoint of each start there is no room for the next one, or for the model."""

    def fill(*_):
        with open("ballast", "ab", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(2**12)):
                pass

    count = itertools.count()
    before(model_arrays, "write_arrays", lambda *_: next(count) and fill())


def killed_in_a_write():
    """After some tiles, which another run has done before."""
    count = itertools.count()

    def cut(part, *_):
        time.sleep(0.1)
        if next(count) == 60:
            os.truncate(part, os.path.getsize(part) // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    before(units, "_place", cut)


class Some:
    """A module with some other functions."""

    def __init__(self, **others):
        self.__dict__.update(others)

    def __getattr__(self, name):
        return getattr(os, name)


def reads_fail_once():
    """Each of them, in each process."""
    known = set()

    def read(image, window, *_):
        if (image.path, str(window)) not in known:
            known.add((image.path, str(window)))
            fails(errno.EIO)

    before(image_files.Image, "read", read)


def reads_of_a_tile_fail():
    before(
        image_files.Image, "read", lambda *_: getattr(NOW, "tile", 0) == BAD and fails(errno.EIO)
    )


def reads_of_an_image_fail():
    before(image_files.Image, "read", lambda i, *_: i.path.endswith(IMAGE) and fails(errno.EIO))


def fill_memory():
    held = []
    while True:
        held.append(b"1" * 2**26)


def too_much(plan, tile):
    if tile.index == BAD:
        fill_memory()


def memory_never_suffices():
    """For a tile, and for the gradients of a step of training after its first checkpoint."""
    before(labeling_worker, "_run", too_much)
    before(
        training_worker,
        "parameter_gradient",
        lambda argument, _: argument[3][2] == 24 and fill_memory(),
    )


def memory_is_short_twice():
    def run(plan, tile):
        if tile.index == BAD:
            with contextlib.suppress(FileExistsError):
                Path("second" if Path("first").exists() else "first").touch(exist_ok=False)
                too_much(plan, tile)

    before(labeling_worker, "_run", run)


def jumping_clock():
    """The clock on the wall goes two hours back or forth twenty times a second."""
    dask_pool.LOOK, clock = 0.5, time.time
    time.time = lambda: clock() + 7200 * (int(20 * time.monotonic()) % 3 - 1)
    warnings.filterwarnings("ignore", "Creating scratch directories")  # hours, Dask thinks


def impatient():
    dask_pool.COMING, dask_pool.LOOK = 3, 0.5
    slow_writes()


def few_deaths():
    """Of workers on one task, which then ends the training."""
    dask_pool.DEATHS = 1


def hasty():
    """Records are written to an object store all the time."""
    records.SECONDS = 0.5


if not hasattr(labeling_worker, "faulty"):  # Dask loads a preload twice
    labeling_worker.faulty = True
    globals()[os.environ["FAULT"]]()
    before(labeling_worker, "_run", begin)
    before(model_arrays, "write_arrays", lambda *_: note("written", ""))
if __name__ == "__main__":
    dask_pool.PRELOAD.append(str(Path(__file__).absolute()))
    main()
