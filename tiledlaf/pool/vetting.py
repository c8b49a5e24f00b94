"""Whether a worker would compute the same bits from the same files: what it is asked, and said of.

It is asked before its first task by a text of Python for its standard library alone: it may have
no tiledlaf, and functions of another Python could not even be unpickled there. Who fits is admitted
to the run; Dask may hand a task to any worker, and each refuses those of runs that it is not in.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ..errors import InputError

# (path, ((name below it, or "" for itself, what it begins with), ...))
Place = tuple[str, tuple[tuple[str, str], ...]]
SEEN, ALL_SEEN = 16, 256  # files that are compared: of a folder, and of all together
LISTED = 512  # files and folders of one folder among which these are sought
ADDED = ("labels", "confidence")  # folders of an image that runs write
CLOCKS = 60.0  # seconds by which clocks may differ without a word
# what computes or decodes pixels
LIBRARIES = ("numpy", "numba", "llvmlite", "scipy", "scikit-image", "scikit-learn", "imagecodecs")

SOURCE = f"""
def begins(path):
    import hashlib, os
    try:
        if os.path.isdir(path):
            return "a folder"
        with open(path, "rb") as file:
            head = file.read(65536)
        return "%d %s" % (os.path.getsize(path), hashlib.sha256(head).hexdigest())
    except OSError as error:
        return error.strerror or "unreadable"

def package():
    import hashlib, os
    try:
        import tiledlaf
    except Exception as error:
        return None, "%s: %s" % (type(error).__name__, error)
    version, found = getattr(tiledlaf, "__version__", "?"), hashlib.sha256()
    top = os.path.dirname(tiledlaf.__file__)
    for folder, folders, names in os.walk(top):
        folders.sort()
        for name in sorted(names):
            if name.endswith(".py"):
                found.update(os.path.relpath(os.path.join(folder, name), top).encode())
                with open(os.path.join(folder, name), "rb") as file:
                    found.update(file.read())
    return version, found.hexdigest()

def library(name):
    import importlib.metadata
    try:
        return importlib.metadata.version(name)
    except Exception:
        return None

def look(places):
    import platform, sys, time
    return {{
        "python": "%d.%d" % sys.version_info[:2],
        "machine": platform.machine(),
        "order": sys.byteorder,
        "host": platform.node(),
        "package": package(),
        "libraries": {{name: library(name) for name in {LIBRARIES!r}}},
        "places": [
            (path, [(name, begins(path + name), expected) for name, expected in files])
            for path, files in places
        ],
        "time": time.time(),
    }}
"""
_SPACE: dict[str, Any] = {}
exec(SOURCE, _SPACE)
# an expression: `eval` is a function that any Python knows by name
ASK = f"(lambda space: (exec({SOURCE!r}, space), space['look'])[1])({{}})"


def question(places: Sequence[Place]) -> str:
    """The expression whose value a worker is to tell."""
    return f"{ASK}({list(places)!r})"


@functools.cache
def here() -> Mapping[str, Any]:
    """What this process would answer."""
    found: Mapping[str, Any] = _SPACE["look"]([])
    return found


@functools.cache
def kind() -> str:
    """One word for all that bits depend on: tasks are done only by processes with the same one."""
    parts = [here()[key] for key in ("python", "machine", "order", "package", "libraries")]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


class Unlike(RuntimeError):
    """A task came to a process of another kind than the one that sent it."""


class Unadmitted(Unlike):
    """A task came to a worker that its run has not asked yet or has left out; names its address."""

    def __str__(self) -> str:
        return f"worker {self.args[0]} was not admitted to the run"


# (run, address of a worker of this process): some bytes for each run, as long as the worker lives
_admitted: set[tuple[str, str]] = set()


def admit(run: str, dask_worker: Any) -> bool:
    """Let a worker of this process do the tasks of a run."""
    _admitted.add((run, dask_worker.address))
    return True


def check(expected: tuple[str, str]) -> None:
    """Refuse a task from a process of another kind, or of a run that does not know this worker.

    Parameters
    ----------
    expected : kind of the process that sent the task, and its run; "" for processes of its own
    """
    of_kind, run = expected
    if of_kind != kind():
        raise Unlike("another version of tiledlaf, Python or a library than where the run started")
    if run:
        from distributed import get_worker

        address = get_worker().address
        if (run, address) not in _admitted:
            raise Unadmitted(address)


def difference(answer: Any) -> str:
    """Why a worker must not take part, in a few words; "" if it may."""
    if not isinstance(answer, Mapping):
        return f"does not answer ({type(answer).__name__}: {answer})".replace(": )", ")")
    own = here()
    version, sources = answer["package"]
    if version is None:
        return f"tiledlaf is not installed there ({sources}): install the same version"
    if answer["python"] != own["python"]:
        return f"has Python {answer['python']}, expected {own['python']}"
    if version != own["package"][0]:
        return f"has version {version} of tiledlaf, expected {own['package'][0]}"
    if sources != own["package"][1]:
        return f"has other sources of tiledlaf {version} than this process"
    for name, expected in own["libraries"].items():
        found = answer["libraries"][name]
        if found != expected:
            has = f"version {found} of {name}" if found else f"no {name}"
            return f"has {has}, expected {expected}"
    if (answer["machine"], answer["order"]) != (own["machine"], own["order"]):
        return f"has another kind of processor, {answer['machine']}, expected {own['machine']}"
    for path, files in answer["places"]:
        for name, found, expected in files:
            if found != expected:
                there = found if " " in found and not found[0].isdigit() else "another file"
                return f"sees other files than this process: {path}{name}: {there}"
    return ""


def clock(answer: Mapping[str, Any], now: float) -> str:
    """What is to be said of a worker's clock; "" if it is right."""
    ahead = answer["time"] - now
    if abs(ahead) < CLOCKS:
        return ""
    return f"its clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} this one"


def named(workers: Iterable[str]) -> str:
    """Some workers by name, of many the first."""
    listed = sorted(workers)
    more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    return f"worker{'s' * (len(listed) > 1)} {', '.join(listed[:3])}{more}"


def view(paths: Sequence[str]) -> list[Place]:
    """What files and folders are to look like to all workers."""
    count = max(min(SEEN, ALL_SEEN // max(len(paths), 1)), 1)
    return [_place(path, count) for path in paths]


def _place(path: str, count: int) -> Place:
    begins = _SPACE["begins"]
    listed = itertools.islice(_below(path), LISTED)
    names = ["", *itertools.islice((name for name, folder in listed if not folder), count)]
    return path, tuple((name, begins(path + name)) for name in names)


def _below(top: str, below: str = "") -> Iterator[tuple[str, bool]]:
    """Files and folders of an image, and whether each is a folder; not what runs add to it."""
    try:
        with os.scandir(top + below) as found:
            kept = itertools.islice(filter(_of_image, found), LISTED)
            entries = sorted((entry.is_dir(), entry.name) for entry in kept)
    except OSError:  # it is a file, or nobody sees what it holds
        return
    for folder, name in entries:
        name = f"{below}{os.sep}{name}"
        yield name, folder
        if folder:
            yield from _below(top, name)


def _of_image(entry: os.DirEntry[str]) -> bool:
    hidden = entry.name.startswith(".") and not entry.name.startswith(".z")  # metadata of Zarr 2
    return not hidden and entry.name not in ADDED


@contextmanager
def places(seen: Sequence[Place], outputs: Iterable[str]) -> Iterator[list[Place]]:
    """What workers must see: the inputs, and a new file where outputs go, which ends with this."""
    with contextlib.ExitStack() as stack:
        yield [*seen, *(stack.enter_context(_new(path)) for path in outputs)]


@contextmanager
def _new(folder: str) -> Iterator[Place]:
    """A file of a name that no other folder has."""
    path = os.path.join(folder, f".tiledlaf-{uuid.uuid4().hex}")
    try:
        with open(path, "xb") as file:
            file.write(uuid.uuid4().bytes)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written to, {error.strerror}") from None
    try:
        yield path, (("", _SPACE["begins"](path)),)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)
