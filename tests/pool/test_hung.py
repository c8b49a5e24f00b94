"""Workers that stop without ending: their tasks go elsewhere, whatever holds what they need."""

import contextlib
import os
import signal
import time
import warnings

import pytest
from processes import workers

import tiledlaf
from tiledlaf.pool import crew
from tiledlaf.pool.tasks import PoolWarning

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


def slow(job, item):
    time.sleep(0.2)
    return item


def double(job, item):
    time.sleep(0.2)
    return 2 * item


@pytest.fixture
def stopped(monkeypatch):
    """Stops a worker of this process; those that stop are continued at the end."""
    monkeypatch.setattr(crew, "SILENT", 6.0)
    found = []

    def stop():
        found.append(workers()[0])
        os.kill(found[-1].pid, signal.SIGSTOP)

    yield stop
    for process in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGCONT)


@pytest.mark.parametrize("count", [1, 2])
def test_a_worker_stops(stopped, count):
    """In a run, and while it holds what a later step needs."""
    with (
        warnings.catch_warnings(record=True) as said,
        tiledlaf.open_pool(count, "processes") as pool,
    ):
        warnings.simplefilter("always")
        started = time.monotonic()
        found = []
        for item, result, error, _ in pool.run(slow, None, range(40)):
            assert error is None
            found.append((item, result))
            if len(found) == 10:
                stopped()
        assert sorted(found) == [(n, n) for n in range(40)]
        handles = pool.persist(slow, None, list(range(10)))
        stopped()
        assert pool.map(double, None, handles) == [2 * n for n in range(10)]
        assert time.monotonic() - started < 200
    words = [str(w.message) for w in said if issubclass(w.category, PoolWarning)]
    assert sum("silent for" in word for word in words) == 2


def test_a_stopped_worker_does_not_hold_the_end(stopped):
    with tiledlaf.open_pool(2, "processes") as pool:
        assert pool.map(double, None, [1, 2]) == [2, 4]
        stopped()
        process = workers()[0]
        started = time.monotonic()
    assert time.monotonic() - started < 60
    assert not process.is_running()
