"""Options of each command: numbers out of range, odd texts, and combinations that mean nothing."""

from pathlib import Path

import numpy as np
import pytest
import seeds
from damage import edited, text_of
from hypothesis import strategies as st
from judge import command, fuzz, survives
from odd_options import odd, options_of

QUICK = ("--scheduler", "threads", "--workers", "1")
JUDGED = ("--validation-images", "own.npy", "--validation-labels", "labels.npy")
LEARN = ("--size", "2", "--steps", "1")
# a valid call of each command, to which odd options are added
CALLS = {
    "label": ("own.npy", "out.zarr", "--classes", "2", *QUICK),
    "train": (
        "out.model",
        "--images",
        "own.npy",
        "--labels",
        "labels.npy",
        *LEARN,
        *JUDGED,
        *QUICK,
    ),
    "estimate": ("own.npy", "labels.npy", "out.zarr", "--steps", "1", *QUICK),
    "evaluate": ("labels.npy", "labels.npy"),
    "explain": ("a.model", "out.html"),
    "info": ("own.npy",),
    "status": ("own.npy",),
}


WRITE = ("--json=", "--picture=", "--export=", "--output=", "--performance-report=")


def give(folder):
    np.save(f"{folder}/own.npy", seeds.IMAGE)
    np.save(f"{folder}/labels.npy", seeds.LABELS)
    Path(folder, "folder").mkdir()


@fuzz(tries=3)
@pytest.mark.parametrize("name", CALLS)
def test_help(name, data, trying):
    with trying() as folder:
        survives(f"options of {name}", command(name, data.draw(st.just("--help"))), folder)


def _options_door(name, data, trying, models):
    draw = data.draw
    given = list(CALLS[name])
    if draw(st.integers(0, 5)) == 0:
        del given[draw(st.integers(0, len(given) - 1))]
    if name == "label" and draw(st.booleans()):
        given.remove("--classes") if "--classes" in given else None
        if "2" in given:
            given.remove("2")
        terms = ("--model=a.model", "--prototypes=p.csv", "--probabilities=p.npy", "--classes=3")
        given.append(draw(st.sampled_from(terms)))
    options = options_of(name)
    for _ in range(draw(st.integers(1, 3))):
        if options:
            given += draw(odd(draw(st.sampled_from(options))))
    # such as --json=0
    files = [one.partition("=")[2].split("/")[0] for one in given if one.startswith(WRITE)]
    with trying() as folder:
        give(folder)
        np.save(f"{folder}/p.npy", seeds.PROBABILITIES)
        Path(folder, "p.csv").write_text("50\n150\n")
        Path(folder, "a.model").write_bytes(models.read_bytes())
        call = command(name, *given)
        survives(f"options of {name}", call, folder, ("out", "tiledlaf", *filter(None, files)))


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    import judge

    return judge.model


@fuzz()
def test_label(data, trying, models):
    _options_door("label", data, trying, models)


@fuzz()
def test_train(data, trying, models):
    _options_door("train", data, trying, models)


@fuzz()
def test_estimate(data, trying, models):
    _options_door("estimate", data, trying, models)


@fuzz()
def test_evaluate(data, trying, models):
    _options_door("evaluate", data, trying, models)


@fuzz(tries=30)
@pytest.mark.parametrize("name", ["explain", "info", "status"])
def test_reports(name, data, trying, models):
    _options_door(name, data, trying, models)


SCHEDULER = {
    "type": "Scheduler",
    "id": "Scheduler-1",
    "address": "tcp://127.0.0.1:1",
    "services": {"dashboard": 8787},
    "started": 1.0,
    "workers": {},
}


@fuzz(tries=12)
def test_schedulers(data, trying):
    """Addresses and files of schedulers that are not there."""
    draw = data.draw
    addresses = ("tcp://127.0.0.1:1", "127.0.0.1", "tcp://", "x", "", "tls://127.0.0.1:1", "a b")
    with trying() as folder:
        give(folder)
        text = text_of(draw(edited(SCHEDULER)))
        Path(folder, "s.json").write_text(draw(st.sampled_from((text, text, text[:20], ""))))
        given = draw(
            st.sampled_from(
                (
                    *(f"--scheduler={one}" for one in addresses),
                    *("--scheduler-file=s.json", "--scheduler-file=folder", "--scheduler-file=x"),
                    *("--workers=0", "--workers=-1", "--workers=x"),
                )
            )
        )
        call = command("label", "own.npy", "out.zarr", "--classes", "2", given)
        survives("schedulers", call, folder, ("out",))
