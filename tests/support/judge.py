"""One judge for all fuzzers: a call is tried in a process of its own, and must end as promised.

A try may be refused in some lines, and may succeed. It fails where it ends in a traceback, dies,
takes too long or too much memory, changes a file that it was given, leaves one that it was not
asked for, says a number that is none, or writes labels that are none of its classes.
"""

import io
import json
import os
import re
import resource
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

SECONDS = 60  # of one try, of which an undisturbed one takes less than one
BYTES = 3 << 30  # that a try may ask for beyond what this process has
LINES = 12  # of stderr
CODES = (0, 1, 2, 130)
HOME = "home"  # of a try, and its folder of temporary files
# where every failed try is written, with its files, rather than that it ends the test
COLLECT = os.environ.get("TILEDLAF_FUZZ_COLLECT")

tries: Counter[str] = Counter()
until = float("inf")  # when the time of a door is up: further tries are left out
spent = 0.0  # seconds before the first try
model = None  # path of one that was learned before the first try


def survives(door, call, folder, writes=()):
    """Try a call in a folder, where it may write the files, or folders, of some names.

    Parameters
    ----------
    door : name, for the report
    call : without parameters; ends the process, or returns
    folder : which holds what the call reads
    """
    if time.monotonic() > until:
        return
    tries[door] += 1
    folder = Path(folder)
    (folder / HOME).mkdir(exist_ok=True)
    before = _contents(folder, writes)
    # of help, and of what a file calls by a name that reads as no number, nan may be said
    given_names = "--help" in getattr(call, "about", "") or _has_odd_name(_contents(folder, ()))
    started = time.monotonic()
    status, killed = forked(call, folder)
    said = (folder / HOME / "stderr").read_text(errors="replace")
    out = (folder / HOME / "stdout").read_text(errors="replace")
    after = _contents(folder, writes)
    wrong = _wrong(status, said, "" if given_names else out)
    if killed:
        wrong = f"still ran after {SECONDS} s"
    elif before != after:
        changed = sorted(k for k in before.keys() | after.keys() if before.get(k) != after.get(k))
        wrong = wrong or f"left or changed {changed[:5]}"
    if wrong is None:
        return
    text = f"{door}: {wrong}\n{getattr(call, 'about', '')}\n{said[-3000:]}"
    if COLLECT is None:
        raise AssertionError(text)
    _collect(door, wrong, call, said, folder, time.monotonic() - started)


def _wrong(status, said, out):
    """What is wrong with how a try ended, None for nothing."""
    if status < 0:
        return f"killed by signal {-status}"
    if "Traceback" in said:
        return "a traceback"
    if status not in CODES:
        return f"exit code {status}"
    lines = [line for line in said.splitlines() if line.strip()]
    if len(lines) > LINES:
        return f"{len(lines)} lines on stderr"
    if max(map(len, lines), default=0) > 4000:
        return "a line of more than 4000 characters"
    odd = [line for line in lines if "Warning" in line and not line.startswith("tiledlaf: ")]
    if odd:
        return f"a warning of a library: {odd[0][:100]}"
    if "encountered in" in said:
        return "a warning of numpy"
    if status == 2 and not said.strip():
        return "refused without a word"
    if re.search(r"(?<![\w.-])(nan|inf)(?![\w.-])", out):
        return "a number that is none"
    return None


def _has_odd_name(contents):
    """Whether a file has a text, in quotes, that reads as a number that is none."""
    return any(
        re.search(rb'"(nan|inf)"', content)
        for content in contents.values()
        if isinstance(content, bytes)
    )


def _contents(folder, writes):
    """Bytes of the files in a folder, but for those that may be written."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if name.split("/")[0].startswith((HOME, *writes)) or (
            path.is_dir() and not path.is_symlink()
        ):
            continue
        found[name] = os.readlink(path) if path.is_symlink() else path.read_bytes()
    return found


def forked(call, folder, seconds=SECONDS):
    """Exit status of a call in a child of this process, and whether it had to be ended."""
    (folder / HOME).mkdir(exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that this process has threads
        child = os.fork()
    if child == 0:
        status = 70
        try:
            _settle(folder)
            status = call() or 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    until = time.monotonic() + seconds
    pause = 0.002
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status), False
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return -9, True
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)


def _settle(folder):
    """Make this child what a user's process is: its folders, streams, warnings and limits."""
    home = str(folder / HOME)
    for number, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(f"{home}/{name}", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(file, number)
    sys.stdout = io.TextIOWrapper(io.FileIO(1, "w"), "utf-8", "surrogateescape")
    sys.stderr = io.TextIOWrapper(io.FileIO(2, "w"), "utf-8", "backslashreplace")
    os.environ |= {"HOME": home, "TMPDIR": home, "XDG_CACHE_HOME": home}
    os.chdir(folder)
    warnings.resetwarnings()
    for kind in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
        warnings.simplefilter("ignore", kind)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def command(*arguments, then=None):
    """A call of ``tiledlaf ARGUMENTS``, and of what looks at its output where it succeeds."""
    from tiledlaf.cli import main

    def call():
        sys.argv = ["tiledlaf", *map(str, arguments)]
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        if then is not None and code == 0:
            then()
        return code

    call.about = json.dumps(["tiledlaf", *map(str, arguments)])
    return call


def library(function, about):
    """A call of the library, which may refuse it by its own errors."""
    from tiledlaf.errors import TiledlafError

    def call():
        try:
            _finite(function())
        except (TiledlafError, OSError, TypeError) as error:
            if isinstance(error, TypeError) and "os.PathLike" not in str(error):
                raise  # what is no path at all is a TypeError, as everywhere in Python
            print(f"tiledlaf: {type(error).__name__}: {error}", file=sys.stderr)
            return 2

    call.about = about
    return call


def _finite(found):
    for one in found if isinstance(found, tuple | list) else [found]:
        if isinstance(one, np.ndarray) and not np.isfinite(one).all():
            raise AssertionError(f"values that are no numbers: {one.dtype}, {one.shape}")


def labels_of(store, group="labels/tiledlaf"):
    """Look at written labels: each is 0 or one of the classes."""

    def look():
        import zarr

        node = zarr.open_group(store, path=group, mode="r")
        entry = node.attrs.asdict().get("ome", node.attrs.asdict())["image-label"]
        try:
            found = np.unique(node["0"][...])
        except RuntimeError:  # of a codec: of a tile that is done, only the size is looked at again
            return
        known = {0, *(one["label-value"] for one in entry["properties"])}
        if not set(found.tolist()) <= known:
            raise AssertionError(f"labels {found} of the classes {known}")

    return look


def _collect(door, wrong, call, said, folder, seconds):
    lines = said.strip().splitlines()
    frames = [line.strip() for line in lines if re.match(r'\s+File ".*tiledlaf/(?!.*tests)', line)]
    place = (
        re.sub(r'.*tiledlaf/([\w/]+\.py)", line (\d+), in (\w+)', r"\1:\2 \3", frames[-1])
        if frames
        else ""
    )
    entry = {
        "door": door,
        "wrong": wrong,
        "place": place,
        "last": lines[-1][:300] if lines else "",
        "about": getattr(call, "about", ""),
        "seconds": round(seconds, 1),
        "said": said[-6000:],
    }
    kept = Path(COLLECT)
    kept.mkdir(exist_ok=True)
    entry["files"] = f"{os.getpid()}-{tries.total()}"
    if sum(1 for _ in kept.iterdir()) < 2000:
        shutil.copytree(folder, kept / entry["files"], symlinks=True)
    with open(kept / f"found-{os.getpid()}.jsonl", "a") as file:
        file.write(json.dumps(entry) + "\n")


# how many tries each test of a fuzzer makes, if there is time; other ones where a seed is asked for
TRIES = int(os.environ.get("TILEDLAF_FUZZ_TRIES", 100))
NEW = bool(os.environ.get("TILEDLAF_FUZZ_NEW"))


def fuzz(tries=TRIES):
    """Mark a test, which draws from its parameter `data`, as a fuzzer: the same tries each time."""
    import pytest
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st

    chosen = settings(
        max_examples=tries,
        derandomize=not NEW,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )

    def marked(test):
        return pytest.mark.fuzz(pytest.mark.timeout(0)(chosen(given(data=st.data())(test))))

    return marked


def warm(folder):
    """Load what tries need, and compile the kernels, so that children of this process have them."""
    import importlib

    import click

    import tiledlaf

    for name in ("zarr", "zarrs", "tifffile", "h5py", "imagecodecs", "PIL.Image", "roifile"):
        importlib.import_module(name)
    for name in ("shapely", "dask.array", "sklearn.cluster", "scipy.ndimage", "skimage.measure"):
        importlib.import_module(name)
    main = importlib.import_module("tiledlaf.cli.main")
    for name in main.COMMANDS:
        main.cli.get_command(click.Context(main.cli), name)
    import seeds

    data = tiledlaf.Data(*[tiledlaf.pair([seeds.IMAGE], [seeds.LABELS])] * 2)
    with tiledlaf.open_pool(1, "threads") as pool:
        recipe = tiledlaf.Recipe(predictor_size=2, steps=1)
        tiledlaf.train(data, recipe, pool, str(folder / "a.model"))
    # writes a store, as only children of this process may; what it compiles is kept in files
    np.save(folder / "image.npy", seeds.IMAGE)
    np.save(folder / "labels.npy", seeds.LABELS)
    learned = ("estimate", "image.npy", "labels.npy", "out.zarr", "--steps", "2", "--workers", "1")
    assert forked(command(*learned), folder, 600) == (0, False)
    tiledlaf.label(seeds.IMAGE, classes=2, workers=1)
    global model
    model = folder / "a.model"
    tiledlaf.label(seeds.IMAGE, model=str(folder / "a.model"), workers=1)
    tiledlaf.label(seeds.IMAGE, probabilities=seeds.PROBABILITIES, workers=1)
