"""The command with a fault: ``FAULT=name python faulty.py ARGUMENTS``.

Workers have it as well: those of the command import its main module, others take this file as a
Dask preload. Files of lines tell what happens: a tile is `begun`, a call has `failed`,
a checkpoint is `written`.
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

from tiledlaf import cli, cluster, images, job, model, ngff, records

BAD = (5, 7)  # a tile
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


def slow_writes():
    before(ngff, "_place", lambda *_: time.sleep(0.02))


def failing_writes():
    """Of files, of records and of checkpoints, which are few."""
    before(ngff, "_place", lambda *_: sometimes() and fails(errno.EIO))
    before(records.Appender, "add", lambda *_: sometimes() and fails(errno.EIO))
    before(model, "write_arrays", lambda *_: sometimes(0.5) and fails(errno.EIO))


def short_writes():
    """What is written ends in the middle, and then there is an error."""

    def cut(part, *_):
        if os.path.exists(part) and sometimes():
            os.truncate(part, os.path.getsize(part) // 2)
            fails(errno.EIO)

    def write(file, line):
        if sometimes():
            note("failed", "line")
            line = line[: len(line) // 2]
        return os.write(file, line)

    before(ngff, "_place", cut)
    records.os = Some(write=write)


def killed_in_a_write():
    """After some tiles, which another run has done before."""
    count = itertools.count()

    def cut(part, *_):
        time.sleep(0.1)
        if next(count) == 60:
            os.truncate(part, os.path.getsize(part) // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    before(ngff, "_place", cut)


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
        if str(window) not in known:
            known.add(str(window))
            fails(errno.EIO)

    before(images.Image, "read", read)


def reads_of_a_tile_fail():
    before(images.Image, "read", lambda *_: getattr(NOW, "tile", 0) == BAD and fails(errno.EIO))


def too_much(plan, tile):
    if tile.index == BAD:
        held = []
        while True:
            held.append(b"1" * 2**26)


def memory_never_suffices():
    before(job, "_run", too_much)


def memory_is_short_twice():
    def run(plan, tile):
        if tile.index == BAD:
            with contextlib.suppress(FileExistsError):
                Path("second" if Path("first").exists() else "first").touch(exist_ok=False)
                too_much(plan, tile)

    before(job, "_run", run)


def jumping_clock():
    """The clock on the wall goes two hours back or forth twenty times a second."""
    cluster.LOOK, clock = 0.5, time.time
    time.time = lambda: clock() + 7200 * (int(20 * time.monotonic()) % 3 - 1)
    warnings.filterwarnings("ignore", "Creating scratch directories")  # hours, Dask thinks


def impatient():
    cluster.COMING, cluster.LOOK = 3, 0.5
    slow_writes()


globals()[os.environ["FAULT"]]()
before(job, "_run", begin)
before(model, "write_arrays", lambda *_: note("written", ""))
if __name__ == "__main__":
    cli.main()
