"""What the commands share: options, the files they read, and how they report failures."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import click

from ..errors import InputError, cut
from ..redaction import each_plain, plain, shown

INTERRUPTED, TERMINATED = 130, 143


class Terminated(BaseException):
    """SIGTERM was received: leave through every `finally`."""


class Failed(Exception):
    """A disk or a cluster failed while a run was under way."""


def echo(*lines: str, err: bool = False) -> None:
    """Print lines; the command prints nothing in another way, but progress on a terminal.

    What a run tells on stderr may repeat libraries; results on stdout are our own words.
    """
    if lines:
        click.echo("\n".join(map(shown if err else plain, lines)), err=err)


def echo_json(value: Any) -> None:
    """Print a value as JSON."""
    # DEL is the only control character that JSON may hold
    click.echo(json.dumps(each_plain(value), indent=2).replace("\x7f", "\\u007f"))


def fail(message: str) -> int:
    """Report bad input on stderr, and return its exit code."""
    echo(f"tiledlaf: error: {cut(' '.join(message.split()))}", err=True)
    return 2


def with_options(text: str, command: click.Command | None) -> str:
    """A message of the library, with its keyword `names` replaced by a command's options."""
    known = {} if command is None else {p.name: p for p in command.params}

    def said(found: re.Match[str]) -> str:
        option = known.get(found[1])
        if option is None or not option.opts[0].startswith("--"):
            return found[1]
        return option.opts[0]

    return re.sub(r"`(\w+)`", said, text)


def reason(error: OSError) -> str:
    """What the operating system says about a file."""
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)


@contextmanager
def under_way() -> Iterator[None]:
    """Raise `Failed` when a disk or a cluster fails: not bad input, the same command continues."""
    try:
        yield
    except OSError as error:
        raise Failed(" ".join(reason(error).split())) from None


def integers(separator: str = ",") -> Callable[..., tuple[int, ...] | None]:
    """Return a callback that reads integers like 0,2."""

    def read(context: Any, option: click.Parameter, text: str | None) -> tuple[int, ...] | None:
        if text is None:
            return None
        try:
            return tuple(int(part) for part in text.split(separator))
        except ValueError:
            raise InputError(f"`{option.name}` expects integers like 0,2, got {text!r}") from None

    return read


def spans(
    context: Any, option: click.Parameter, text: str | None
) -> tuple[tuple[int, int], ...] | None:
    """Read spans like y0:y1,x0:x1."""
    if text is None:
        return None
    try:
        pairs = [part.split(":") for part in text.split(",")]
        return tuple((int(a), int(b)) for a, b in pairs)
    except ValueError:
        raise InputError(f"`region` expects y0:y1,x0:x1, got {text!r}") from None


def address(context: Any, option: click.Parameter, text: str | None) -> str | None:
    """Check HOST:PORT."""
    from ..pool import tasks

    try:
        return text if text is None else tasks.Watch(text or ":").dashboard
    except InputError:
        raise InputError(
            f"`{option.name}` expects PORT, HOST:PORT or no value, got {text!r} (without a "
            "value, put it last)"
        ) from None


def watch_options(command: Callable[..., int]) -> Callable[..., int]:
    """Add the options that show what Dask does."""
    for option in (
        click.option(
            "--performance-report", metavar="FILE.html", help="Write Dask's report on the tasks."
        ),
        click.option(
            "--dashboard",
            is_flag=False,
            flag_value="8787",
            callback=address,
            metavar="[HOST:PORT]",
            help="Serve Dask's dashboard for worker processes (default: 127.0.0.1:8787); it has no "
            "password.",
        ),
    ):
        command = option(command)
    return command


def watch_of(given: Mapping[str, Any]) -> Any:
    """What the options of `watch_options` ask for."""
    from ..pool import tasks

    path = given["performance_report"]
    if path is not None:
        check_file("--performance-report", path)
    return tasks.Watch(given["dashboard"], path)


def say_where(pool: Any) -> None:
    """Name the dashboard's address, if there is one, and who can look."""
    if pool.dashboard is not None:
        echo(f"dashboard: {pool.dashboard}", err=True)
        echo("It has no password: whoever reaches this address can look.", err=True)


def term_option(command: Callable[..., int]) -> Callable[..., int]:
    """Add the option for data terms of other packages."""
    option = click.option(
        "--term",
        metavar="NAME[:TEXT]",
        help="The name of one that an installed package provides.",
    )
    return option(command)


def _names_or_numbers(
    context: Any, option: click.Parameter, text: str | None
) -> tuple[str, ...] | None:
    """Read channels like 0,2 or DAPI,CD3; a name counts before a number."""
    return None if text is None else tuple(part.strip() for part in text.split(","))


def _time_point(context: Any, option: click.Parameter, text: str | None) -> int | str | None:
    """Read an index, or the word all."""
    if text is None or text == "all":
        return text
    try:
        return int(text)
    except ValueError:
        raise InputError(f"`{option.name}` expects an index or all, got {text!r}") from None


def _sizes(context: Any, option: click.Parameter, text: str | None) -> Any:
    """Read a size along y and x, or one for each axis, as in 0.05,0.004,0.004."""
    if text is None:
        return None
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(
            f"`{option.name}` expects micrometers such as 0.5, or 0.05,0.004,0.004 along z, y and "
            f"x, got {text!r}"
        ) from None
    return found[0] if len(found) == 1 else found


SELECTION = (
    *("level", "channels", "axes", "series", "time_point", "z"),
    *("pixel_size", "input_pixel_size", "no_data", "intensity_scale", "probabilities_of"),
)


probabilities_of_option = click.option(
    "--probabilities-of",
    metavar="foreground|cellpose",
    help="What --probabilities are, if not those of classes: one plane for the foreground, or "
    "flows and cell probability of cellpose, made into cell, border and background.",
)


def selection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say which part of an image file is meant, as `Selection` has them."""
    for option in (
        click.option(
            "--intensity-scale",
            type=float,
            metavar="F",
            help="Multiply pixels by F (default: what brings them to the range of the model's "
            "training).",
        ),
        click.option(
            "--no-data",
            callback=_value,
            metavar="VALUE|nan",
            help="Value of pixels without data; they are left out.",
        ),
        click.option(
            "--input-pixel-size",
            callback=_sizes,
            metavar="UM|Z,Y,X",
            help="Pixel size of level 0 in micrometers, where the file does not say it; one number "
            "along y and x, or one for each axis.",
        ),
        click.option(
            "--pixel-size",
            type=float,
            metavar="UM",
            help="Pixel size to work at, in micrometers, by the nearest level or resampling "
            "(default: that of the model).",
        ),
        click.option("--z", type=int, metavar="Z", help="Plane to read, from 0 (default: all)."),
        click.option(
            "--time-point",
            callback=_time_point,
            metavar="T|all",
            help="Time point to read, from 0; all labels each and keeps the axis t.",
        ),
        click.option(
            "--series",
            metavar="N|NAME",
            help="Which of the images in a file to read (default: the largest); info lists them.",
        ),
        click.option(
            "--axes", help="Axes of the image, such as zyx, if the file does not name them."
        ),
        click.option(
            "--channels",
            callback=_names_or_numbers,
            metavar="C,...",
            help="Channels to use, by number or name (default: all but alpha).",
        ),
        click.option(
            "--level",
            type=int,
            help="Resolution level to read (default: 0, or what the model learned at).",
        ),
        probabilities_of_option,
    ):
        command = option(command)
    return command


def selection_of(given: Mapping[str, Any]) -> Any:
    """What the options of `selection_options` ask for."""
    from ..files.selection import Selection

    return Selection(**{name: given[name] for name in SELECTION})


def _value(context: Any, option: click.Parameter, text: str | None) -> float | None:
    """Read a number, exactly where it is whole."""
    if text is None:
        return None
    try:
        return int(text) if text.lstrip("+-").isdigit() else float(text)
    except ValueError:
        raise InputError(f"`{option.name}` expects a number or nan, got {text!r}") from None


device_option = click.option(
    "--device",
    default="cpu",
    show_default=True,
    metavar="cpu|cuda",
    help="Device to compute on.",
)


def _ignored(
    context: Any, option: click.Parameter, texts: Sequence[str]
) -> tuple[int | str, ...] | None:
    """Read label values such as 0 or 0,255, and colors such as #000000."""
    parts = [part.strip() for text in texts for part in text.split(",")]
    try:
        return tuple(p if p.startswith("#") else int(p) for p in parts) or None
    except ValueError:
        raise InputError(
            f"`{option.name}` expects whole numbers like 0,255 or colors like #000000, "
            f"got {','.join(texts)!r}"
        ) from None


def label_meaning_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say how the values of label images are to be understood."""
    for option in (
        click.option(
            "--colors",
            multiple=True,
            metavar="CLASS=#rrggbb|FILE",
            help="Color of a class in a label image of colors (repeatable), or a JSON file of "
            'them: {"tumor": "#ff0000"}.',
        ),
        click.option(
            "--instances",
            metavar="object-border[:WIDTH]|object|none",
            help="Label values are objects (0 is background), which make the classes background, "
            "object and border, or object alone; none: they are classes all the same.",
        ),
        click.option(
            "--ignore",
            multiple=True,
            callback=_ignored,
            metavar="VALUE,...",
            help="Label values (or colors) of pixels to leave out; repeatable.",
        ),
    ):
        command = option(command)
    return command


def label_values_options(command: Callable[..., int]) -> Callable[..., int]:
    """Add the options that say what the values of label images mean."""
    for option in (
        click.option(
            "--names",
            metavar="FILE",
            help='JSON file of names for label values: {"0": "membrane", "255": "inside"}; or of '
            "new names for the classes of annotations.",
        ),
        click.option("--no-ignore", is_flag=True, help="Every label value is a class, 0 as well."),
        label_meaning_options,
    ):
        command = option(command)
    return command


def meaning_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """What the options of `label_meaning_options` say of label images, as keywords of `pair`."""
    from ..annotations import values

    instances = None if given["instances"] == "none" else given["instances"]
    colors = values.read_colors(given["colors"]) or None
    # where values stay as they are, those to leave out are left to `data_of`
    ignore = given["ignore"] if instances or colors else None
    return {"instances": instances, "colors": colors, "ignore": ignore}


def data_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """What the options of `label_values_options` say of classes, as keywords of `Data`."""
    from ..annotations import values
    from ..training import examples

    ignore, names = given["ignore"], given["names"]
    if given["no_ignore"] and ignore is not None:
        raise InputError("expected at most one of `ignore` and `no_ignore`")
    meant = values.meaning(**meaning_of(given))
    if names is not None and meant.converts:
        raise InputError("expected `names` of label values, which `instances` and `colors` give")
    if given["no_ignore"] or meant.converts:
        ignore = ()  # pixels to leave out are so when they are read
    elif any(isinstance(value, str) for value in ignore or ()):
        raise InputError("`ignore` expects colors only with `colors`")
    return {
        "names": None if names is None else examples.read_names(names),
        "ignore": ignore,
        "many": given["instances"] == "none",
    }


def brush_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option that says how wide lines and points are."""
    option = click.option(
        "--brush",
        metavar="UM|Npx",
        help="Width of the lines and points among annotations, in micrometers or as in 5px.",
    )
    return option(command)


def annotation_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say how annotations become pixels."""
    overlaps = click.option(
        "--overlaps",
        default="smaller",
        show_default=True,
        metavar="smaller|later|CLASS,...",
        help="Annotation that wins where several overlap; of classes, the one listed first.",
    )
    return brush_option(overlaps(command))


def painting(given: Mapping[str, Any]) -> Any:
    """What the options of `annotation_options`, or `brush_option` alone, ask for."""
    from ..annotations.opening import Painting

    return Painting(given["brush"], given.get("overlaps", "smaller"))


def learning_pool(given: Mapping[str, Any], examples: Iterable[Any]) -> AbstractContextManager[Any]:
    """Open the pool in which learning from some examples runs."""
    from ..files import stores
    from ..pool import crew, opening

    images = [i for e in examples for i in (e.image, e.labels, e.probabilities, e.mask)]
    stored = [image for image in images if image is not None and image.reader.stored]
    paths = [path for image in stored for path in image.reader.paths(image.path)]
    return opening.open_pool(
        given["workers"],
        given["scheduler"],
        given["scheduler_file"],
        watch_of(given),
        crew.Files(stores.on_disk(paths)),
    )


def learning_options(command: Callable[..., int]) -> Callable[..., int]:
    """Add the options that train and estimate share: where learning runs."""
    for option in (
        device_option,
        watch_options,
        click.option("--scheduler-file", metavar="FILE", help="Scheduler file of a Dask cluster."),
        click.option(
            "--scheduler",
            metavar="ADDRESS",
            help="Address of a Dask scheduler, or 'threads' or 'processes'.",
        ),
        click.option(
            "--workers",
            type=int,
            metavar="N",
            help="Number of threads or processes (default: all cores).",
        ),
    ):
        command = option(command)
    return command


def read_csv(path: str) -> list[list[float]]:
    """Read rows of numbers, all of the same length."""
    from ..files import texts

    rows = [row for row in texts.read_rows(path) if row]
    for number, row in enumerate(rows, 1):
        if len(row) != len(rows[0]):
            raise InputError(
                f"{path}: expected rows of the same length, got {len(rows[0])} values in row 1 and "
                f"{len(row)} in row {number}"
            )
    try:
        return [[float(value) for value in row] for row in rows]
    except ValueError as error:
        raise InputError(f"{path}: expected rows of numbers, {str(error)[:80]}") from None


def read_features(text: str) -> Any:
    """Read features, given by name or as a JSON file."""
    from ..files import texts
    from ..model import features

    known = {"context": features.CONTEXT, "patch": features.PATCH}
    known |= {"multiscale": features.MULTISCALE, "rich": features.RICH}
    if text in known:
        return known[text]
    try:
        return features.Features.from_list(texts.read_json(text, "a JSON list"))
    except ValueError as error:
        raise InputError(
            f"`features` {text}: expected context, patch, multiscale, rich or a JSON list, {error}"
        ) from None


def same(path: str, other: str) -> bool:
    """Whether two paths are the same file."""
    return os.path.exists(path) and os.path.exists(other) and os.path.samefile(path, other)


def read_names(path: str) -> Sequence[str]:
    """Read names of classes: one per line, or JSON."""
    from ..files import texts

    text = texts.read_text(path)
    if not text.lstrip().startswith(("[", "{")):
        return [line.strip() for line in text.splitlines() if line.strip()]
    found = texts.read_json(path, "a JSON list of names")
    if isinstance(found, dict):
        if sorted(found) != sorted(map(str, range(1, len(found) + 1))):
            raise InputError(
                f'{path}: expected names for "1" to "{len(found)}", got {sorted(found)}'
            )
        found = [found[str(v)] for v in range(1, len(found) + 1)]
    return [str(name) for name in found]


def check_file(option: str, path: str) -> None:
    """Refuse a file that cannot be written, before anything is computed."""
    folder = Path(path).absolute().parent
    if option == "--picture" and Path(path).suffix.lower() != ".png":
        raise InputError(f"{option} expects a file ending .png, got {path}")
    if Path(path).is_dir() or not folder.is_dir():
        what = "a folder" if Path(path).is_dir() else "no such folder"
        raise InputError(f"{option} {path}: expected a file in a folder that exists, got {what}")
    if not os.access(folder, os.W_OK):
        raise InputError(f"{option} {path}: expected a place to write, but {folder} is read-only")
