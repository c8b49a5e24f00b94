"""The command line ``tiledlaf COMMAND``, and its exit codes on errors and signals."""

from __future__ import annotations

import importlib
import signal
import sys
import traceback
from types import FrameType

import click

from .. import __version__, redaction
from ..errors import InputChanged, Outage
from ..registry import Registry
from . import guide, progress, shared
from .shared import INTERRUPTED, TERMINATED, Failed, Terminated

# name of a command: module of this folder that defines it
COMMANDS = {
    "label": "label",
    "train": "train",
    "estimate": "estimate",
    "evaluate": "evaluate",
    "suggest": "suggest",
    "explain": "explain",
    "export": "export",
    "info": "info",
    "status": "info",
    "view": "view",
    "report": "report",
    "demo": "demo",
}
ALL: Registry[str | click.Command] = Registry("tiledlaf.commands", COMMANDS)

EXAMPLES = (
    ("something to look at", "tiledlaf demo"),
    ("learn from annotations", "tiledlaf train my.model --images a.svs --labels a.geojson"),
    ("label another slide", "tiledlaf label b.svs out.zarr --model my.model"),
)


def main() -> None:
    """Run the command line.

    Bad input is one line on stderr and exit code 2; so is what is out of reach for now, by code 1.
    """
    signal.signal(signal.SIGTERM, _terminate)
    redaction.guard_logs()
    try:
        with progress.warnings_as_lines(_with_options):
            code = cli.main(prog_name="tiledlaf", standalone_mode=False)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "tiledlaf"
        code = shared.fail(f"{error.format_message().rstrip('.')} (see {command} --help)")
    except click.ClickException as error:
        code = shared.fail(error.format_message())
    except ValueError as error:
        code = _refused(error, _with_options(str(error)))
    except OSError as error:
        code = _refused(error, shared.reason(error))
    except Failed as error:
        code = _stopped(f"error: {_with_options(str(error))}", 1)
    except (click.Abort, KeyboardInterrupt):
        code = _stopped("interrupted", INTERRUPTED)
    except Terminated:
        code = _stopped("terminated", TERMINATED)
    except Exception:  # a fault of this program: what is told of it repeats texts of files
        shared.echo(*traceback.format_exc().splitlines(), err=True)
        code = 1
    sys.exit(code or 0)


def _with_options(text: str) -> str:
    """A message of the library, with its keyword `names` replaced by the command's options."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    return shared.with_options(text, cli.get_command(click.Context(cli), name))


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def _refused(error: Exception, text: str) -> int:
    """Say it, and return the code, by which a mistake is not repeated."""
    code = shared.fail(text)
    return 1 if isinstance(error, InputChanged | Outage) else code


def _stopped(how: str, code: int) -> int:
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    rest = {
        "train": "goes on from the last checkpoint",
        "estimate": "starts anew",
        "export": "starts anew",
        "suggest": "starts anew",
    }
    does = rest.get(name, "completes the output")
    shared.echo(f"tiledlaf: {how}; the same command {does}", err=True)
    return code


class Commands(click.Group):
    """Commands, each imported only when it is needed."""

    def list_commands(self, context: click.Context) -> list[str]:
        """Names of the commands, in the order in which people use them."""
        return list(ALL)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """The command of this name, None if there is none."""
        if name not in ALL:
            return None
        kept = ALL[name]
        if isinstance(kept, click.Command):
            return kept
        module = importlib.import_module(f"{__package__}.{kept}")
        found: click.Command = getattr(module, name)
        return found

    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        guide.write_examples(formatter, EXAMPLES)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    no_args_is_help=False,
)
@click.version_option(__version__)
def cli() -> None:
    """Label images too large for one machine by linearized assignment flows."""
