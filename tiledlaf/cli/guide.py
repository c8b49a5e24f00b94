"""How commands show their help: options in titled groups, each default once, and three examples."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import click

# Title of a group: names of the options of any command that belong to it. Groups are shown in this
# order; an option that stands in none is shown under OTHER, and a test names it.
GROUPS = {
    "Images to learn from": (
        *("images", "labels", "start", "pairs", "validation_images", "validation_labels"),
        *("validation_probabilities", "validation_mask", "truth"),
    ),
    "Data term": (
        *("classes", "model", "classifier", "prototypes", "probabilities", "probabilities_of"),
        *("network", "network_output", "network_range", "augment", "term"),
        *("learn_network", "network_minutes"),
    ),
    "Scores": ("boundary",),
    "Output": (
        *("output", "into", "name", "confidence", "min_confidence", "export", "json_file"),
        *("as_json", "picture_file", "no_image", "no_overview", "into_input", "overwrite"),
        "dry_run",
    ),
    "Objects": ("objects", "connectivity", "min_size", "fill_holes"),
    "Labels and annotations": (
        *("names", "ignore", "no_ignore", "instances", "colors", "overlaps", "brush"),
    ),
    "What is read of the image": (
        *("mask", "region", "level", "pixel_size", "input_pixel_size", "channels", "series"),
        *("time_point", "z", "axes", "no_data", "intensity_scale"),
    ),
    "Flow": (*("neighborhood", "time", "rho", "weights", "integrator", "tol", "dim", "sequence"),),
    "Learning": (
        *("loss", "flow", "priors", "predictor_size", "features", "tau", "steps", "limit", "seed"),
    ),
    "Where it runs": (
        *("workers", "tile", "scheduler", "scheduler_file", "device", "dashboard"),
        "performance_report",
    ),
}
OTHER = "Other options"

Examples = tuple[tuple[str, str], ...]


class Command(click.Command):
    """A command whose help shows options in groups, and examples below them.

    Parameters
    ----------
    examples : what each does, and its command line
    groups : titles by options, where they are others than in `GROUPS`; titles that are new come
        before `OTHER`
    """

    def __init__(
        self,
        *args: Any,
        examples: Examples = (),
        groups: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(*args, **settings)
        self.examples = examples
        self.groups = {name: title for title, names in GROUPS.items() for name in names}
        self.groups |= groups or {}

    def grouped(self, context: click.Context) -> dict[str, list[click.Option]]:
        """Options that the help shows, by the title of their group, in the order of `GROUPS`."""
        titles = dict.fromkeys((*GROUPS, *self.groups.values(), OTHER))
        found: dict[str, list[click.Option]] = {title: [] for title in titles}
        places = {name: place for place, name in enumerate(self.groups)}
        options = (one for one in self.get_params(context) if isinstance(one, click.Option))
        for option in sorted(options, key=lambda one: places.get(one.name or "", len(places))):
            if not option.hidden:
                found[self.groups.get(option.name or "", OTHER)].append(option)
        return {title: options for title, options in found.items() if options}

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the groups, their columns in line."""
        wide = 30 if formatter.width > 90 else 24
        for title, options in self.grouped(context).items():
            with formatter.section(title):
                rows = (option.get_help_record(context) for option in options)
                padded = [(f"{row[0]:<{wide}}", default_once(row[1])) for row in rows if row]
                formatter.write_dl(padded, col_max=wide)

    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        write_examples(formatter, self.examples)


def default_once(text: str) -> str:
    """What an option says, its default in the form that all share: before the last stop."""
    return re.sub(r"\.?  \[default: (.*)\]$", r" (default: \1).", text)


def write_examples(formatter: click.HelpFormatter, examples: Iterable[tuple[str, str]]) -> None:
    """Write each example below what it does; lines are not wrapped, to be copied."""
    if not examples:
        return
    with formatter.section("Examples"):
        for what, line in examples:
            formatter.write(f"{'':{formatter.current_indent}}# {what}\n")
            formatter.write(f"{'':{formatter.current_indent}}{line}\n")
