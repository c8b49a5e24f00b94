"""Schedulers and processes: which are taken, what is said of who reaches them, where they serve."""

import contextlib
import importlib.util
import multiprocessing
import os
import threading
import types
import urllib.request
import warnings

import distributed
import pytest

import tiledlaf
from tiledlaf.errors import InputError
from tiledlaf.pool import dask as dask_pool
from tiledlaf.pool.tasks import PoolWarning, Watch


def test_a_scheduler_of_another_library():
    """Its class has a name of its own; a worker's address is refused."""
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
    ) as cluster:
        kind = type(cluster.scheduler)
        cluster.scheduler.__class__ = type("AnotherScheduler", (kind,), {})
        dask_pool._check_answer(cluster.scheduler_address)
        with pytest.raises(InputError, match="expected a Dask scheduler, this is a worker"):
            dask_pool._check_answer(cluster.workers[0].address)


@pytest.mark.parametrize("address", ["tcp://localhost:8786", "tcp://127.0.0.1:8786"])
def test_a_scheduler_that_only_this_machine_reaches(monkeypatch, address):
    monkeypatch.setattr(dask_pool, "_others", lambda: False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dask_pool._warn_of_strangers(address)
    monkeypatch.setattr(dask_pool, "_others", lambda: True)
    with pytest.warns(PoolWarning, match="works without TLS"):
        dask_pool._warn_of_strangers(address)


@pytest.mark.parametrize("address", ["tcp://192.0.2.1:8786", "tcp://nobody.invalid:8786"])
def test_a_scheduler_that_others_reach(monkeypatch, address):
    monkeypatch.setattr(dask_pool, "_others", lambda: False)
    with pytest.warns(PoolWarning, match="works without TLS"):
        dask_pool._warn_of_strangers(address)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="users are read from /proc")
@pytest.mark.parametrize(
    ("owner", "person"),
    [(33, False), (1001, True), (61200, False), (65534, False), (70000, True), (123456789, True)],
)
def test_people_on_this_machine(monkeypatch, owner, person):
    """Directory services number them beyond what /etc/passwd does."""
    there = types.SimpleNamespace(
        path=os.path,
        getuid=lambda: 1000,
        listdir=lambda path: ["1", "self"],
        stat=lambda path: types.SimpleNamespace(st_uid=owner),
    )
    monkeypatch.setattr(dask_pool, "os", there)
    assert dask_pool._others() == person


def test_two_pools_that_end_out_of_order():
    before = multiprocessing.spawn.get_preparation_data
    first, second = contextlib.ExitStack(), contextlib.ExitStack()
    first.enter_context(dask_pool._without_main())
    second.enter_context(dask_pool._without_main())
    first.close()
    assert not {"init_main_from_name", "init_main_from_path"} & set(
        multiprocessing.spawn.get_preparation_data("Dask Worker process")
    )
    second.close()
    assert multiprocessing.spawn.get_preparation_data is before


def test_processes_without_shared_locks(monkeypatch):
    """As in a container whose /dev/shm is read-only."""

    def none():
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(
        multiprocessing, "get_context", lambda kind: types.SimpleNamespace(Lock=none)
    )
    with (
        pytest.warns(PoolWarning, match=r"cannot be started here \(.*Read-only.*threads of this"),
        tiledlaf.open_pool(2, "processes") as pool,
    ):
        assert pool.map(thread, None, [1])[0][0] == os.getpid()
    with (
        pytest.raises(InputError, match="need processes: no locks between processes, Read-only"),
        tiledlaf.open_pool(2, "processes", watch=Watch("8787")),
    ):
        pass


def thread(job, item):
    return os.getpid(), threading.get_ident()


@pytest.mark.parametrize(
    ("given", "place"),
    [
        (None, None),
        ("8787", "127.0.0.1:8787"),
        (":8787", "127.0.0.1:8787"),
        (8787, "127.0.0.1:8787"),
        ("0.0.0.0:8787", "0.0.0.0:8787"),
        ("head:8787", "head:8787"),
        ("[::1]:8787", "[::1]:8787"),
    ],
)
def test_places_of_a_dashboard(given, place):
    """Without a host nobody else reaches it, in Python as in the command."""
    assert Watch(given).dashboard == place
    assert Watch(Watch(given).dashboard).dashboard == place


@pytest.mark.parametrize("given", ["head", "70000", "::1:8787", "head:", "[::1]"])
def test_no_places_of_a_dashboard(given):
    with pytest.raises(InputError, match=r"`dashboard` expects PORT or HOST:PORT, got '"):
        Watch(given)


@pytest.mark.skipif(importlib.util.find_spec("bokeh") is None, reason="needs bokeh")
@pytest.mark.parametrize("place", [":0", "[::1]:0"])
def test_a_dashboard(place):
    host = place.rpartition(":")[0] or "127.0.0.1"
    with tiledlaf.open_pool(1, "processes", watch=Watch(place)) as pool:
        assert pool.dashboard.startswith(f"http://{host}:")
        health = pool.dashboard.replace("status", "health")
        assert urllib.request.urlopen(health, timeout=30).read() == b"ok"
