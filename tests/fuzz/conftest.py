"""Fuzzers share a time limit, and what is compiled once before thousands of tries."""

import os
import tempfile
import time
from pathlib import Path

import judge
import pytest

# of all fuzzers together, on as many cores as there are workers of pytest
MINUTES = float(os.environ.get("TILEDLAF_FUZZ_MINUTES", 9))
_doors = 1


def pytest_collection_modifyitems(items):
    global _doors
    _doors = max(1, sum(1 for item in items if item.get_closest_marker("fuzz")))


@pytest.fixture(scope="session", autouse=True)
def _warm(tmp_path_factory):
    started = time.monotonic()
    judge.warm(tmp_path_factory.mktemp("warm"))
    judge.spent = time.monotonic() - started


@pytest.fixture(autouse=True)
def _limit(_warm, record_property):
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    before, started = judge.tries.copy(), time.monotonic()
    judge.until = time.monotonic() + (MINUTES * 60 - judge.spent) * workers / _doors
    yield
    seconds = time.monotonic() - started
    for name, count in (judge.tries - before).items():
        record_property("tries", f"{name}: {count} tries, {seconds:.0f} s")


def pytest_terminal_summary(terminalreporter):
    # what a fixture notes after its test belongs to the report of its end, which has no category
    told = [
        text
        for report in terminalreporter.getreports("")
        for key, text in report.user_properties
        if key == "tries"
    ]
    for text in sorted(told):
        terminalreporter.write_line(text)


@pytest.fixture
def trying():
    """What makes an empty folder for a try."""

    def make():
        return tempfile.TemporaryDirectory(prefix="laf-", ignore_cleanup_errors=True)

    return make


@pytest.fixture(scope="session")
def seeds_at(tmp_path_factory):
    """What gives the path of a valid file, which is made when it is first asked for."""
    folder = tmp_path_factory.mktemp("seeds")

    def at(name, make):
        path = Path(folder, name)
        if not path.exists():
            make(path)
        return path

    return at
