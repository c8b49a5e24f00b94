"""A Dask cluster as a pool: processes on this machine, or the workers of a given scheduler."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import importlib.util
import ipaddress
import json
import logging
import multiprocessing.spawn
import os
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from .. import private, redaction
from ..errors import InputError, Unavailable
from . import certificates, tasks, work
from .crew import ANSWER, Crew, Files
from .tasks import RETRIES, UNWATCHED, Pool, PoolWarning, Watch, WorkersDied, served_at

COMING = 300  # seconds that a cluster may be without workers
LOOK = 5.0  # seconds between checks for workers that joined or left
# Dask gives a task up after four workers died with it, though each may have been killed for another
# reason: so many times Dask is asked to retry
DEATHS = 4 * RETRIES
PRELOAD = [__name__]  # what each process that is started here imports first
SAFE = ("tls", "wss", "inproc")  # ways to a scheduler that let nobody else in


@contextmanager
def dask(
    workers: int | None = None,
    scheduler: str | None = None,
    scheduler_file: str | None = None,
    watch: Watch = UNWATCHED,
    files: Files = Files(),
) -> Iterator[Pool]:
    """A Dask cluster: processes on this machine, or the workers of a given scheduler.

    Parameters
    ----------
    files : what workers of a given scheduler must see

    Raises
    ------
    ValueError
        If the scheduler does not answer, no worker may work, or bokeh is missing.
    """
    if scheduler or scheduler_file:
        with _behind(scheduler, scheduler_file, watch, files) as pool:
            yield pool
    else:
        with _local(workers, watch) as pool:
            yield pool


@contextmanager
def _behind(
    scheduler: str | None, scheduler_file: str | None, watch: Watch, files: Files
) -> Iterator[Pool]:
    """The workers behind a scheduler."""
    import dask
    from distributed import Client
    from distributed.comm.core import FatalCommClosedError

    where = f"scheduler {scheduler or scheduler_file}"
    if watch.dashboard:
        raise InputError(f"`dashboard`: the {where} has a dashboard of its own")
    address = _address(scheduler_file) if scheduler_file else scheduler
    try:
        _check_answer(address)
        # a client that finds no scheduler would remain dask's default scheduler
        with (
            dask.config.set(scheduler=None),
            _quiet(),
            warnings.catch_warnings(record=True) as said,
        ):
            client = Client(address, timeout="10s")
    except Exception as error:  # what answers there may be anything
        fatal = isinstance(error, FatalCommClosedError)  # a certificate; the cause says so
        cause = (fatal and error.__cause__) or error
        text = f"{where}: no answer, {str(cause) or type(cause).__name__}"
        away = isinstance(error, OSError) and not fatal
        raise (Unavailable if away else InputError)(text) from None
    with _quiet(), client:
        _warn_of_strangers(client.scheduler.address)
        crew = Crew(client, where, files, COMING, LOOK)
        crew.await_first()
        for one in said:  # of versions that differ, unless workers are refused for that
            warnings.warn(one.message, stacklevel=2)
        limits = [limit for limit in crew.memory.values() if limit]
        with crew.watched(), _reported(client, watch.report):
            count = sum(crew.good.copy().values())
            yield work.pool(client, crew, count, min(limits, default=None), DEATHS)


def _address(path: str) -> str:
    """The address in a scheduler's file, which Dask would wait for if it is not there."""
    what = f"`scheduler_file` {path}"
    if os.path.isdir(path):
        raise InputError(f"{what}: is a folder, expected the file that a scheduler writes")
    if not os.path.isfile(path):
        raise InputError(f"{what}: no such file")
    try:
        with open(path, "rb") as file:
            found = json.loads(file.read(2**20))
    except OSError as error:
        raise InputError(f"{what}: {error.strerror}") from None
    except (ValueError, RecursionError):
        found = None
    address = found.get("address") if isinstance(found, Mapping) else None
    if not isinstance(address, str) or "://" not in address:
        raise InputError(
            f"{what}: expected the JSON that a Dask scheduler writes, with its address; the file "
            "is empty, cut or of another kind"
        )
    return address


def _check_answer(address: Any) -> None:
    """Ask a scheduler for its name: Dask's client would wait for ever for other servers."""
    from distributed.core import rpc
    from distributed.security import Security

    async def kind() -> str:
        security = Security().get_connection_args("client")
        async with rpc(address, timeout=ANSWER, connection_args=security) as asked:
            return str((await asked.identity())["type"])

    async def soon() -> str:
        try:
            return await asyncio.wait_for(kind(), ANSWER)
        except TimeoutError:
            raise TimeoutError(f"nothing within {ANSWER:.0f} s") from None

    with concurrent.futures.ThreadPoolExecutor(1) as thread:  # this one may have a loop at work
        found = thread.submit(asyncio.run, soon()).result()
    if found in ("Worker", "Nanny"):  # schedulers have any name, where another library has its own
        raise InputError(f"expected a Dask scheduler, this is a {found.lower()}")


def _warn_of_strangers(address: str) -> None:
    """Say that others may reach a scheduler: without certificates it admits everybody."""
    kind, _, place = address.partition("://")
    if kind in SAFE:
        return
    if _is_here(place.rpartition(":")[0].strip("[]")) and not _others():
        return
    warnings.warn(
        f"scheduler {address} works without TLS: who reaches it, or a worker, can run code as you "
        "and read what is sent (deploy/README.md, TLS)",
        PoolWarning,
        stacklevel=2,
    )


def _is_here(host: str) -> bool:
    """Whether a host, perhaps by name, is reached from this machine alone."""
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return False
    return all(ipaddress.ip_address(one.partition("%")[0]).is_loopback for one in found)


def _others() -> bool:
    """Whether people other than this user run programs on this machine."""
    if not os.path.isdir("/proc/self"):
        return False
    owners = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):  # it has ended
                owners.add(os.stat(f"/proc/{name}").st_uid)
    # below are those of the system, and between them those of services and nobody; directories
    # of people give any others
    return any(o >= 1000 and not 61184 <= o <= 65535 for o in owners - {os.getuid()})


@contextmanager
def _local(workers: int | None, watch: Watch) -> Iterator[Pool]:
    """Processes on this machine, which admit none but each other."""
    import dask
    from dask.system import CPU_COUNT
    from distributed import Client, LocalCluster

    count = workers or CPU_COUNT
    if reason := _no_lock():
        if watch:
            raise InputError(f"`dashboard` and `performance_report` need processes: {reason}")
        text = f"processes cannot be started here ({reason}): threads of this one do the work"
        warnings.warn(text, PoolWarning, stacklevel=2)
        with tasks.threads(count) as pool:
            yield pool
        return
    served = watch.dashboard
    if served and importlib.util.find_spec("bokeh") is None:
        raise InputError("`dashboard` needs bokeh: pip install 'tiledlaf[watch]'")
    settings: dict[str, Any] = {"distributed.worker.http.routes": []}
    if not served:
        settings["distributed.scheduler.http.routes"] = []
    if not watch:
        # these show only on a dashboard, and they wake each worker 150 times a second
        settings["distributed.worker.profile.enabled"] = False
        settings["distributed.admin.tick.interval"] = "1s"
    with _quiet(), _without_main(), ExitStack() as stack:
        stack.enter_context(dask.config.set(settings))
        with warnings.catch_warnings():
            # if the dashboard's port is taken: its URL below has the port that is used instead
            warnings.filterwarnings("ignore", "Port .* is already in use")
            # nor is it for Dask to say that the temporary folder is slow, or a clock was set
            warnings.filterwarnings("ignore", "Creating scratch directories")
            try:
                cluster = LocalCluster(
                    n_workers=count,
                    threads_per_worker=1,
                    host="127.0.0.1",
                    security=certificates.security(),
                    local_directory=_scratch(),
                    # even without a dashboard Dask warns if its port is taken: use any free one
                    dashboard_address=[served_at(served or "0")],
                    scheduler_kwargs={"dashboard": bool(served)},
                    silence_logs=logging.ERROR,
                    preload=PRELOAD,
                )
            except RuntimeError as error:
                raise WorkersDied(f"processes: workers did not start, {error}") from None
        stack.enter_context(cluster)
        client = stack.enter_context(Client(cluster))
        # Dask does not replace a worker that is killed while it starts, unless asked again
        crew = Crew(client, "processes", None, COMING, LOOK, lambda: cluster.scale(count))
        crew.await_first()
        memory = min((limit for limit in crew.memory.values() if limit), default=None)
        pool = work.pool(client, crew, count, memory, DEATHS)
        if served:
            port = cluster.scheduler.http_server.port
            link = f"http://{served.rpartition(':')[0]}:{port}/status"
            pool = dataclasses.replace(pool, dashboard=link)
        with crew.watched(), _reported(client, watch.report):
            yield pool


def _no_lock() -> str:
    """Why processes cannot share locks, which Dask's need; "" if they can."""
    try:
        multiprocessing.get_context("spawn").Lock()
    except (OSError, ImportError) as error:
        return f"no locks between processes, {getattr(error, 'strerror', None) or error}; /dev/shm?"
    return ""


def _scratch() -> str:
    """Where workers put what does not fit into memory: only this user can read and write there."""
    import dask

    configured = dask.config.get("temporary-directory", None)
    try:
        return private.folder(configured)
    except OSError as error:
        where = configured or "the temporary folder"
        raise InputError(f"{where}: cannot hold files of workers, {error.strerror}") from None


@contextmanager
def _without_main() -> Iterator[None]:
    """Start workers that do not run the user's script again to import it.

    A script without ``if __name__ == "__main__"`` would start further workers. What is defined in
    it travels by value.
    """
    spawn: Any = multiprocessing.spawn
    with _changing:
        if not _open:
            _original[:] = [spawn.get_preparation_data]
            spawn.get_preparation_data = _prepared
        _open.append(None)
    try:
        yield
    finally:
        with _changing:  # the last of several pools, whichever that is
            _open.pop()
            if not _open:
                spawn.get_preparation_data = _original[0]


_changing, _open = threading.Lock(), list[None]()
_original: list[Callable[[str], dict[str, Any]]] = []


def _prepared(name: str) -> dict[str, Any]:
    given = _original[0](name)
    if name.startswith("Dask Worker"):
        given.pop("init_main_from_name", None)
        given.pop("init_main_from_path", None)
    return given


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Dask about lost results that it recomputes, and restore logging after an error."""
    disabled, client = logging.root.manager.disable, logging.getLogger("distributed.client")
    level = client.level
    client.setLevel(logging.ERROR)
    try:
        yield
    finally:
        client.setLevel(level)
        logging.disable(disabled)


@contextmanager
def _reported(client: Any, path: str | None) -> Iterator[None]:
    """Have Dask write its performance report at the end, even if the run is interrupted.

    Raises
    ------
    ValueError
        If bokeh is missing where the scheduler runs, or the report cannot be made.
    """
    if path is None:
        yield
        return
    from distributed import performance_report

    if client.run_on_scheduler(importlib.util.find_spec, "bokeh") is None:
        raise InputError(
            "`performance_report` needs bokeh where the scheduler runs: pip install "
            "'tiledlaf[watch]'"
        )
    # a page that needs no network
    report = performance_report(path, mode="inline")
    report.__enter__()
    whole = False
    try:
        yield
        whole = True
    finally:
        try:
            report.__exit__(None, None, None)
        except Exception as error:
            text = f"`performance_report` {path}: not written, {type(error).__name__}: {error}"
            if whole:
                raise InputError(text) from error
            logging.getLogger(__name__).warning(text)  # the run's own error is more important


def dask_setup(worker: Any) -> None:
    """Dask calls this in each process that `dask` starts: Ctrl-C is left to the client.

    So are the errors of tasks; that the scheduler is gone at the end is not an error.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    redaction.guard_logs()
    logging.getLogger("distributed.worker").setLevel(logging.CRITICAL)
