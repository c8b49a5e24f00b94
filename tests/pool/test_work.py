"""Tasks on a Dask cluster: begun again where they are slow, and only by workers that fit."""

import itertools
import subprocess
import sys
import threading
import time
import warnings
from typing import ClassVar

import distributed
import processes
import pytest

import tiledlaf
from tiledlaf.errors import InputError
from tiledlaf.pool import crew as crew_module
from tiledlaf.pool import vetting, work
from tiledlaf.pool.crew import Crew, Files
from tiledlaf.pool.dask import DEATHS
from tiledlaf.pool.tasks import PoolWarning


@pytest.fixture
def cluster():
    with (
        warnings.catch_warnings(),
        distributed.LocalCluster(
            n_workers=3, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
        ) as made,
        distributed.Client(made) as client,
    ):
        yield client


def opened(client, files=None):
    crew = Crew(client, "cluster", files, 60, 0.2)
    crew.await_first()
    return crew, work.pool(client, crew, 3, None, DEATHS)


def test_a_slow_task_is_begun_again_elsewhere(cluster, monkeypatch):
    """The first answer counts, once; what hangs is not waited for."""
    monkeypatch.setattr(work, "SLOW", 0.5)
    stuck, count, end = [], itertools.count(), threading.Event()

    def function(job, item):
        if item == 7 and not next(count):
            stuck.append(distributed.get_worker().address)
            end.wait(60)
        return item, distributed.get_worker().address

    crew, pool = opened(cluster)
    with crew.watched():
        started = time.monotonic()
        found = {
            item: result for item, result, error, _ in pool.run(Local(function), None, range(30))
        }
        assert time.monotonic() - started < 30
        end.set()
    assert sorted(found) == list(range(30))
    assert found[7][1] not in stuck
    assert len(stuck) == 1


class Local:
    """A function that stays in this process, whose workers are threads."""

    kept: ClassVar[dict] = {}

    def __init__(self, function):
        self.__name__ = "local"
        self.key = id(function)
        self.kept[self.key] = function

    def __call__(self, job, item):
        return self.kept[self.key](job, item)


def test_a_worker_of_another_kind_is_left_out(cluster, monkeypatch):
    """It gets no task, and that is said; those that fit do all."""
    first = sorted(cluster.scheduler_info()["workers"])[0]
    ask = vetting.difference
    asked = []

    def difference(answer):
        asked.append(answer)
        return "has version 0 of numba, expected 1" if len(asked) == 1 else ask(answer)

    monkeypatch.setattr(vetting, "difference", difference)
    with pytest.warns(PoolWarning, match="left out: worker .* has version 0 of numba"):
        crew, pool = opened(cluster, Files())
    (bad,) = crew.bad
    with crew.watched():
        where = [result for _, result, *_ in pool.run(Local(here), None, range(40))]
        where += pool.map(Local(here), None, list(range(10)))
    assert bad not in where
    assert len(set(where)) == 2
    assert first in cluster.scheduler_info()["workers"]


@pytest.mark.parametrize("late", [False, True])
def test_a_worker_that_is_idle_and_left_out(cluster, monkeypatch, late):
    """Dask moves tasks to idle workers, also to those that just came: these do none of them."""
    known = set(cluster.scheduler_info()["workers"])
    left_out = set() if late else {sorted(known)[0]}
    refuse(monkeypatch, lambda address: address not in known or address in left_out)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PoolWarning)
        crew, pool = opened(cluster, Files())
        with crew.watched():
            where = [pool.map(Local(slowly), None, [0])[0]]
            if late:
                cluster.cluster.scale(4)
            where += [result for _, result, *_ in pool.run(Local(slowly), None, range(60))]
            handles = pool.persist(Local(slowly), None, list(range(40)))
            where += pool.map(Local(twice), None, [(handle, n) for n, handle in enumerate(handles)])
    assert len(where) == 101
    assert not {one for entry in where for one in entry} - (known - left_out)
    assert len({one for entry in where for one in entry}) == 3 - len(left_out)


def test_results_are_made_again_by_workers_that_fit(cluster, monkeypatch):
    """Those that held them die, one after the other, beside one that is left out and idle."""
    workers = {w.address: w for w in cluster.cluster.workers.values()}
    bad, *first = sorted(workers)
    refuse(monkeypatch, lambda address: address == bad)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PoolWarning)
        crew, pool = opened(cluster, Files())
        with crew.watched():
            handles = pool.persist(Local(slowly), None, list(range(12)))
            for count, address in enumerate(first, 4):
                cluster.cluster.scale(count)
                while len(crew.good) < 3:
                    time.sleep(0.1)
                cluster.cluster.sync(workers[address].close)
                pairs = [(handle, n) for n, handle in enumerate(handles)]
                found = pool.map(Local(twice), None, pairs)
                assert len(found) == 12
                assert bad not in {made for made, _ in found}
                assert not {mapped for _, mapped in found} & {bad, address}


@pytest.mark.parametrize("many", ["run", "map", "persist"])
def test_what_strayed_does_not_wait_for_workers_that_are_gone(cluster, monkeypatch, many):
    """It is sent to those that fit alone; once these have ended, to others."""
    workers = {w.address: w for w in cluster.cluster.workers.values()}
    bad, one, other = sorted(workers)
    refuse(monkeypatch, lambda address: address == bad)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PoolWarning)
        crew, pool = opened(cluster, Files())
        settled = work._settled
        monkeypatch.setattr(
            work, "_settled", lambda *given: settled(*given) and frozenset(["tcp://127.0.0.1:1"])
        )
        with crew.watched():
            crew.good.pop(one), crew.good.pop(other)  # so that the first go anywhere
            if many == "run":
                found = [result for _, result, *_ in pool.run(Local(slowly), None, range(20))]
            elif many == "map":
                found = pool.map(Local(slowly), None, list(range(20)))
            else:
                handles = pool.persist(Local(slowly), None, list(range(20)))
                found = pool.map(Local(twice), None, [(handle, 0) for handle in handles])
    assert len(found) == 20
    assert {address for entry in found for address in entry} == {one, other}


def refuse(monkeypatch, refused):
    """Find some workers unfit, by their addresses."""
    ask = crew_module._ask

    async def asked(client, addresses, function, *arguments):
        answers = await ask(client, addresses, function, *arguments)
        if function is eval:
            answers |= {address: "unfit" for address in addresses if refused(address)}
        return answers

    difference = vetting.difference
    monkeypatch.setattr(crew_module, "_ask", asked)
    monkeypatch.setattr(vetting, "difference", lambda a: "unfit" if a == "unfit" else difference(a))


def slowly(job, item):
    time.sleep(0.1)
    return (distributed.get_worker().address,)


def twice(job, item):
    return (*item[0], distributed.get_worker().address)


def here(job, item):
    return distributed.get_worker().address


def test_no_worker_fits(cluster, monkeypatch):
    monkeypatch.setattr(vetting, "difference", lambda answer: "has Python 2.7, expected 3")
    with pytest.raises(InputError, match=r"^cluster: workers .*: has Python 2\.7, expected 3$"):
        opened(cluster, Files())


def test_a_task_that_no_worker_can_begin(cluster, monkeypatch):
    """It is refused with the reason, and not sent around for ever."""
    crew, pool = opened(cluster)
    monkeypatch.setattr(vetting, "kind", lambda: "another")
    monkeypatch.setattr(vetting, "check", refuses)
    with crew.watched():
        with pytest.raises(InputError, match="cluster: of another kind"):
            list(pool.run(Local(here), None, range(3)))
        with pytest.raises(InputError, match="cluster: of another kind"):
            pool.map(Local(here), None, [1])


def refuses(kind):
    raise vetting.Unlike("of another kind")


KNOCK = """
import asyncio, ssl, sys
from distributed.core import rpc

async def knock(address, context):
    async with rpc(address, timeout=3, connection_args={"ssl_context": context}) as asked:
        await asyncio.wait_for(asked.identity(), 3)

without = ssl._create_unverified_context()
for port in sys.argv[1:]:
    for address, context in (("tcp", None), ("tls", without)):
        try:
            asyncio.run(knock(f"{address}://127.0.0.1:{port}", context))
            print("admitted by", address, port)
        except (OSError, TimeoutError) as error:
            print("refused")
"""


def test_processes_admit_nobody():
    """Without this run's certificate no port of scheduler, nanny and worker answers."""
    with tiledlaf.open_pool(1, "processes") as pool:
        assert pool.map(here, None, [0])[0].startswith("tls://127.0.0.1:")
        found = processes.listening(processes.tree())
        assert {address.ip for address in found} == {"127.0.0.1"}
        ports = sorted({str(address.port) for address in found})
        assert len(ports) >= 3
        said = subprocess.run(
            [sys.executable, "-c", KNOCK, *ports], capture_output=True, text=True, check=True
        ).stdout.split("\n")
    assert said == ["refused"] * 2 * len(ports) + [""]


UNGUARDED = """
import numpy as np, tiledlaf
print("begins")
np.save("image.npy", np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8))
how = {"classes": 2, "tile": 32, "workers": 1, "scheduler": "processes"}
found = tiledlaf.label("image.npy", "out.zarr", **how)
print(found.tiles["done"])
"""


def test_a_script_without_a_guard(tmp_path):
    """Workers do not run it again."""
    (tmp_path / "script.py").write_text(UNGUARDED)
    found = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (found.stdout, found.stderr) == ("begins\n4\n", "")
