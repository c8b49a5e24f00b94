"""The command line as the tests call it: in this process, with what it printed."""

import io
import math
import signal
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tiledlaf.cli import main, progress


class Finished(NamedTuple):
    code: int
    out: str
    err: str


class Terminal(io.StringIO):
    def isatty(self):
        return True


def run(*arguments, terminal=False, between=math.inf):
    """Run ``tiledlaf ARGUMENTS`` and return its exit code, stdout and stderr.

    `between` is the time between two lines of progress, where there is no terminal.
    """
    handler = signal.getsignal(signal.SIGTERM)
    out, err = io.StringIO(), Terminal() if terminal else io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["tiledlaf", *map(str, arguments)])
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        if not terminal:  # what is said does not depend on how fast the machine is
            patch.setattr(progress, "BETWEEN", between)
        try:
            main()
        except SystemExit as end:
            return Finished(int(end.code or 0), out.getvalue(), err.getvalue())
        finally:
            signal.signal(signal.SIGTERM, handler)
    raise AssertionError("the command returned without an exit code")


def contents(path):
    """Bytes of every file below a path, or of the file itself."""
    path = Path(path)
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return {str(p.relative_to(path)): p.read_bytes() for p in files}
