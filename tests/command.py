"""The command line as the tests call it: in this process, with what it printed."""

import io
import signal
import sys
from typing import NamedTuple

import pytest

from tiledlaf import cli


class Finished(NamedTuple):
    code: int
    out: str
    err: str


def run(*arguments):
    """Run ``tiledlaf ARGUMENTS`` and return its exit code, stdout and stderr."""
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch:
        out, err = io.StringIO(), io.StringIO()
        patch.setattr(sys, "argv", ["tiledlaf", *map(str, arguments)])
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        try:
            cli.main()
        except SystemExit as end:
            return Finished(int(end.code or 0), out.getvalue(), err.getvalue())
        finally:
            signal.signal(signal.SIGTERM, handler)
    raise AssertionError("the command returned without an exit code")
