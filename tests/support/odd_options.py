"""Odd options: each of a command's, with values that may be none of its kind."""

import click
from damage import TEXTS
from hypothesis import strategies as st

# what starts processes, opens ports, asks a network or writes anywhere; see tests of their own
APART = {"scheduler", "scheduler_file", "workers", "dashboard", "performance_report", "help"}
APART |= {"into", "port", "viewer", "no_browser"}
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


def options_of(name):
    from tiledlaf.cli import main  # noqa: F401  the module of the command is known by its name
    from tiledlaf.cli.main import cli

    found = cli.get_command(click.Context(cli), name)
    return [p for p in found.params if isinstance(p, click.Option) and p.name not in APART]


@st.composite
def odd(draw, option):
    """An option as it is given, with a value that may be none of its kind."""
    flag = draw(st.sampled_from(option.opts))
    if option.is_flag:
        return [flag]
    numbers = option.type.name in ("integer", "float")
    usual = NUMBERS if numbers else WORDS + LISTS
    value = draw(st.sampled_from(usual if draw(st.integers(0, 3)) else NUMBERS + LISTS + TEXTS))
    # a file name too long or with a null byte cannot be given to a command
    return [f"{flag}={value}"] if "\0" not in value else [flag, "x"]
