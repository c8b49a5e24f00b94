"""Looks at workers: who is silent for how long, who is awaited, who is asked again."""

import threading
import time
import types
import warnings

import pytest

from tiledlaf.errors import InputError, Unavailable
from tiledlaf.pool import crew as crew_module
from tiledlaf.pool import vetting
from tiledlaf.pool.crew import Crew, Files
from tiledlaf.pool.tasks import PoolWarning

FIT = vetting.here()  # but for the time


class Client:
    """A scheduler's workers, and what they answer; `errors` come in place of looks."""

    status = "running"

    def __init__(self, *workers):
        self.workers = {w: {"last_seen": 1.0, "nthreads": 1, "memory_limit": 1} for w in workers}
        self.answers, self.errors, self.restarted, self.looks = {}, [], [], 0
        self.futures = {}
        self.scheduler = types.SimpleNamespace(identity="identity", restart_workers="restart")

    def sync(self, function, *arguments, **options):
        if function == "restart":
            self.restarted += options["workers"]
        elif function == "identity":
            self.looks += 1
            if self.errors:
                raise self.errors.pop(0)
            return {"workers": dict(self.workers)}
        else:
            _, addresses, asked, *_ = arguments
            known = self.answers if asked is eval else {}
            fit = dict(FIT, time=time.time()) if asked is eval else True
            return {a: known.get(a, fit) for a in addresses}

    def submit(self, *arguments, **options):
        return types.SimpleNamespace(release=lambda: None)

    def close(self):
        self.status = "closed"


def said(crew):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        crew.say()
    return [str(one.message) for one in found if one.category is PoolWarning]


def test_all_silent_workers_of_a_host_are_noticed_at_once(monkeypatch):
    """Also those whose last heartbeat was a little later; what starts after that has longer."""
    monkeypatch.setattr(crew_module.time, "monotonic", lambda: clock[0])
    clock = [1000.0]
    client = Client(*(f"tls://127.0.0.1:{port}" for port in range(8)))
    crew = Crew(client, "here", Files(), 300, 5.0)
    crew.look()
    clock[0] += 5
    for late in sorted(client.workers)[:3]:
        client.workers[late]["last_seen"] = 2.0
    crew.look()
    client.answers = dict.fromkeys(client.workers, TimeoutError())
    monkeypatch.setattr(client, "sync", frozen(client))
    while clock[0] < 1055:
        clock[0] += 5
        crew.look()
    assert sorted(client.restarted) == sorted(client.workers)
    words = [word for word in said(crew) if "silent" in word]
    assert [word.partition("silent for ")[2][:4] for word in words] == ["45 s", "45 s"]
    host = "tls://127.0.0.1"
    assert crew._patience[host][1] == 90


def frozen(client):
    sync = client.sync

    def none(function, *arguments, **options):
        found = sync(function, *arguments, **options)
        return found if isinstance(function, str) else dict.fromkeys(found, TimeoutError())

    return none


def test_workers_that_were_left_out_are_not_restarted(monkeypatch):
    """They may be somebody else's."""
    monkeypatch.setattr(crew_module.time, "monotonic", lambda: clock[0])
    clock = [1000.0]
    client = Client("tcp://1:1", "tcp://2:1")
    client.answers = {"tcp://2:1": dict(FIT, python="2.7")}
    crew = Crew(client, "here", Files(), 300, 5.0)
    for _ in range(12):
        crew.look()
        clock[0] += 5
        monkeypatch.setattr(client, "sync", frozen(client))
    assert client.restarted == ["tcp://1:1"]


def test_time_without_workers_counts_only_while_a_task_waits(monkeypatch):
    monkeypatch.setattr(crew_module.time, "monotonic", lambda: clock[0])
    clock = [1000.0]
    client = Client()
    crew = Crew(client, "here", Files(), 300, 5.0)
    clock[0] += 400
    crew.look()
    assert clock[0] - crew._seen == 0
    client.futures = {"one": types.SimpleNamespace(status="finished")}
    clock[0] += 100
    crew.look()
    assert said(crew) == []
    client.futures = {"one": types.SimpleNamespace(status="pending")}
    clock[0] += 20
    crew.look()
    assert clock[0] - crew._seen == 20
    assert said(crew) == ["here: no worker for 20 s, waiting up to 300 s"]


def test_a_worker_that_takes_long_to_answer_is_asked_again():
    client = Client("tcp://1:1", "tcp://2:1")
    client.answers = {"tcp://2:1": TimeoutError()}
    crew = Crew(client, "here", Files(), 300, 5.0)
    with pytest.warns(PoolWarning, match="left out: worker tcp://2:1: does not answer"):
        crew.await_first()
    assert crew.allowed == ["tcp://1:1"]
    crew.look()
    assert set(crew.good) == {"tcp://1:1"}
    client.answers = {}
    crew.look()
    assert set(crew.good) == {"tcp://1:1", "tcp://2:1"}
    assert crew.allowed is None


def test_all_workers_take_long_to_answer():
    client = Client("tcp://1:1")
    client.answers = {"tcp://1:1": TimeoutError()}
    threading.Timer(0.5, client.answers.clear).start()
    crew = Crew(client, "here", Files(), 300, 5.0)
    crew.await_first()
    assert set(crew.good) == {"tcp://1:1"}
    client.answers = {"tcp://1:1": TimeoutError()}
    with pytest.raises(InputError, match=r"^here: worker tcp://1:1: does not answer"):
        Crew(client, "here", Files(), 0.3, 5.0).await_first()


def test_a_scheduler_that_is_slow():
    client = Client("tcp://1:1")
    client.errors = [TimeoutError(), TimeoutError()]
    Crew(client, "here", Files(), 300, 5.0).await_first()
    assert client.looks == 3
    client.errors = [TimeoutError()] * 10
    with pytest.raises(Unavailable, match=r"^here: no answer, TimeoutError$"):
        Crew(client, "here", Files(), 0.3, 5.0).await_first()


def test_looks_go_on_after_any_error(caplog):
    client = Client("tcp://1:1")
    crew = Crew(client, "here", Files(), 300, 0.05)
    crew.await_first()
    looked = threading.Event()
    client.errors = [KeyError("workers"), TimeoutError(), RuntimeError("odd")]
    crew._ask = lambda: looked.set()
    with crew.watched():
        assert looked.wait(10)
    assert caplog.text.count("look at workers") == 2
