"""Options of each command: numbers out of range, odd texts, and combinations that mean nothing."""

from pathlib import Path

import click
import numpy as np
import pytest
import seeds
from damage import TEXTS, edited, text_of
from hypothesis import strategies as st
from judge import command, fuzz, survives

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
# what starts processes, opens ports or asks a network; see the test of schedulers
APART = {"scheduler", "scheduler_file", "workers", "dashboard", "performance_report", "help"}
NUMBERS = [
    *("0", "1", "-1", "2", "3", "7", "255", "1e3", "0.5", "-0.0", "1e-300", "1e308", "nan", "inf"),
    *("-inf", "1_0", "0x10", " 1", "٣", "1.", ".5", "2147483648", "99999999999999999999"),
]
LISTS = [
    "0,1",
    "0,0",
    "0:9,0:9",
    "9:0,0:9",
    "0:9",
    "-1:9,0:9",
    "0:99,0:99",
    "1,2,3x",
    ",",
    "0:0,0:0",
]
WORDS = [
    *("taylor", "krylov", "euler", "sequence", "geometric-euler", "rkmk4", "cosine", "context"),
    *("yx", "xy", "cyx", "zyx", "all", "3x3", "1x1", "5x5", "3x3x3", "0x0", "rings:3", "rings:0"),
    *(
        "rings:99999",
        "99999x99999",
        "tissue",
        "object",
        "object-border",
        "object-border:-1",
        "none",
    ),
    *(
        "object-border:99",
        "cpu",
        "cuda",
        "later",
        "smaller",
        "a,b",
        "a=#ff0000",
        "5px",
        "0px",
        "1e9px",
    ),
    *("own.npy", "labels.npy", "a.model", "nowhere", "out.png", "out.tif", "folder", "out.html"),
    *("missing", "missing:x", ":", "NAN"),
]


WRITE = ("--json=", "--picture=", "--export=", "--output=", "--performance-report=")


def _options(name):
    from tiledlaf.cli import main  # noqa: F401  the module of the command is known by its name
    from tiledlaf.cli.main import cli

    found = cli.get_command(click.Context(cli), name)
    return [p for p in found.params if isinstance(p, click.Option) and p.name not in APART]


@st.composite
def _odd(draw, option):
    """An option as it is given, with a value that may be none of its kind."""
    flag = draw(st.sampled_from(option.opts))
    if option.is_flag:
        return [flag]
    numbers = option.type.name in ("integer", "float")
    usual = NUMBERS if numbers else WORDS + LISTS
    value = draw(st.sampled_from(usual if draw(st.integers(0, 3)) else NUMBERS + LISTS + TEXTS))
    # a file name too long or with a null byte cannot be given to a command
    return [f"{flag}={value}"] if "\0" not in value else [flag, "x"]


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
    options = _options(name)
    for _ in range(draw(st.integers(1, 3))):
        if options:
            given += draw(_odd(draw(st.sampled_from(options))))
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
