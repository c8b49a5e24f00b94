"""Each command's help: options in titled groups, each default once, three examples that parse."""

import re
import shlex

import click
import pytest
from click.testing import CliRunner

from tiledlaf.cli import cli, guide
from tiledlaf.cli.main import COMMANDS as KNOWN
from tiledlaf.cli.main import EXAMPLES

# commands keep the help option of the first context that they meet
CONTEXT = click.Context(cli, info_name="tiledlaf", **cli.context_settings)
COMMANDS = {name: cli.get_command(CONTEXT, name) for name in KNOWN}
HINT = "add `cls=guide.Command, examples=...` to click.command, see cli/guide.py"


def shown(*arguments, width=80):
    found = CliRunner(env={"COLUMNS": str(width)}).invoke(cli, arguments, prog_name="tiledlaf")
    assert found.exit_code == 0
    return found.output


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_have_three_examples(name):
    command = COMMANDS[name]
    assert isinstance(command, guide.Command), HINT
    assert len(command.examples) == 3, HINT
    assert shown(name, "-h").endswith(f"\n  {command.examples[-1][1]}\n")


@pytest.mark.parametrize("line", [line for _, line in EXAMPLES] + [
    line for command in COMMANDS.values() for _, line in getattr(command, "examples", ())
])  # fmt: skip
def test_examples_parse(line):
    program, name, *arguments = shlex.split(line)
    assert (program, len(line) <= 76) == ("tiledlaf", True)
    COMMANDS[name].make_context(name, arguments, parent=CONTEXT)


@pytest.mark.parametrize("name", COMMANDS)
def test_options_have_a_group(name):
    titles = {option: title for title, options in guide.GROUPS.items() for option in options}
    if isinstance(COMMANDS[name], guide.Command):
        titles |= COMMANDS[name].groups
    options = {p.name for p in COMMANDS[name].params if isinstance(p, click.Option)}
    assert options <= set(titles), "add these options to GROUPS in cli/guide.py"


def test_summaries_are_whole():
    text = shown("--help")
    assert "..." not in text.partition("Commands:")[2]
    assert text.endswith(f"\n  {EXAMPLES[-1][1]}\n")
    assert max(map(len, text.splitlines())) <= 80


def test_no_option_is_in_two_groups():
    options = [option for names in guide.GROUPS.values() for option in names]
    assert sorted(options) == sorted(set(options))


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("width", [80, 100])
def test_help_fits_and_shows_each_option_once(name, width):
    text = shown(name, "--help", width=width)
    assert max(map(len, text.splitlines())) <= width
    text = re.split(r"^[A-Z][\w ]*:$", text, maxsplit=1, flags=re.M)[1]  # from the first group on
    for option in COMMANDS[name].params:
        if isinstance(option, click.Option):
            assert len(re.findall(rf"^  (?:-\S+, )?{option.opts[-1]}[ ,\n]", text, re.M)) == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_defaults_are_shown_once(name):
    for option in COMMANDS[name].params:
        record = option.get_help_record(click.Context(COMMANDS[name], CONTEXT))
        if record is not None:
            assert "[default" not in guide.default_once(record[1])
            assert guide.default_once(record[1]).count("default") <= 1, record[1]


def test_options_without_a_group_are_shown():
    """Of a package of somebody else's, say."""

    @click.command(cls=guide.Command, groups={"mine": "My options"})
    @click.option("--mine", default=3, show_default=True, help="A number.")
    @click.option("--name", help="A name.")
    @click.option("--odd", help="Another.")
    def command():
        """Do something."""

    text = CliRunner().invoke(command, ["--help"]).output
    assert [line for line in text.splitlines() if line.endswith(":")] == [
        *("Output:", "My options:", "Other options:"),
    ]  # fmt: skip
    assert "A number (default: 3).\n" in text
    assert "  --odd TEXT" in text.partition("Other options:")[2]
