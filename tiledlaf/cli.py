"""The command line: label, train, estimate, evaluate, explain, info, status, demo."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
import signal
import sys
import time as clock
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import click

from . import __version__
from .redaction import redacted

INTERRUPTED, TERMINATED = 130, 143
SHOWN = 20  # failed tiles to name on stderr


class Terminated(BaseException):
    """SIGTERM came: leave through every `finally`."""


class Failed(Exception):
    """A disk or a cluster failed while a run was under way."""


def main() -> None:
    """Run the command line. Bad input is one line on stderr and exit code 2."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = cli.main(prog_name="tiledlaf", standalone_mode=False)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "tiledlaf"
        code = _fail(f"{error.format_message().rstrip('.')} (see {command} --help)")
    except click.ClickException as error:
        code = _fail(error.format_message())
    except ValueError as error:
        code = _fail(str(error))
    except OSError as error:
        code = _fail(_reason(error))
    except Failed as error:
        code = _stopped(f"error: {error}", 1)
    except (click.Abort, KeyboardInterrupt):
        code = _stopped("interrupted", INTERRUPTED)
    except Terminated:
        code = _stopped("terminated", TERMINATED)
    sys.exit(code or 0)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def _fail(message: str) -> int:
    click.echo(f"tiledlaf: error: {redacted(' '.join(message.split()))}", err=True)
    return 2


def _reason(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)


@contextmanager
def _under_way() -> Iterator[None]:
    """What disks and clusters do is no bad input: the same command goes on."""
    try:
        yield
    except OSError as error:
        raise Failed(" ".join(_reason(error).split())) from None


def _stopped(how: str, code: int) -> int:
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    rest = {"train": "goes on from the last checkpoint", "estimate": "starts anew"}
    does = rest.get(name, "completes the output")
    click.echo(f"tiledlaf: {how}; the same command {does}", err=True)
    return code


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    no_args_is_help=False,
)
@click.version_option(__version__)
def cli() -> None:
    """Label images too large for one machine by linearized assignment flows."""


def _integers(separator: str = ",") -> Callable[..., tuple[int, ...] | None]:
    def read(context: Any, option: click.Parameter, text: str | None) -> tuple[int, ...] | None:
        if text is None:
            return None
        try:
            return tuple(int(part) for part in text.split(separator))
        except ValueError:
            raise ValueError(f"--{option.name} expects integers like 0,2, got {text!r}") from None

    return read


def _spans(
    context: Any, option: click.Parameter, text: str | None
) -> tuple[tuple[int, int], ...] | None:
    if text is None:
        return None
    try:
        pairs = [part.split(":") for part in text.split(",")]
        return tuple((int(a), int(b)) for a, b in pairs)
    except ValueError:
        raise ValueError(f"--region expects y0:y1,x0:x1, got {text!r}") from None


def _address(context: Any, option: click.Parameter, text: str | None) -> str | None:
    """HOST:PORT; only this machine reaches it where no host is named."""
    if text is None:
        return None
    host, _, port = text.rpartition(":")
    if not (port.isdigit() and int(port) < 2**16):
        raise ValueError(
            f"--{option.name} expects nothing, PORT or HOST:PORT, got {text!r} (without a "
            "value it goes last)"
        )
    return f"{host or '127.0.0.1'}:{port}"


def _watched(command: Callable[..., int]) -> Callable[..., int]:
    """Add the options to see what Dask does."""
    for option in (
        click.option(
            "--performance-report", metavar="FILE.html", help="Write Dask's report of the tasks."
        ),
        click.option(
            "--dashboard",
            is_flag=False,
            flag_value="8787",
            callback=_address,
            metavar="[HOST:PORT]",
            help="Serve Dask's dashboard of worker processes; 127.0.0.1:8787.",
        ),
    ):
        command = option(command)
    return command


def _watch(given: Mapping[str, Any]) -> Any:
    """What those options ask for."""
    from . import cluster

    path = given["performance_report"]
    if path is not None:
        from . import evaluation

        evaluation.check_file("--performance-report", path)
    return cluster.Watch(given["dashboard"], path)


def _say_where(pool: Any) -> None:
    if pool.dashboard is not None:
        click.echo(f"dashboard: {pool.dashboard}", err=True)


@cli.command()
@click.argument("input")
@click.argument("output", required=False)
@click.option("--classes", type=int, metavar="N", help="Data term: N prototypes by k-means.")
@click.option(
    "--prototypes", metavar="FILE", help="Data term: CSV, a row a class, a column a channel."
)
@click.option(
    "--probabilities", metavar="PROBS", help="Data term: (J, y, x) of any model; Zarr, TIFF, npy."
)
@click.option("--model", metavar="MODEL", help="All of it from 'tiledlaf train'.")
@click.option("--weights", metavar="WEIGHTS", help="Weight patches from 'tiledlaf estimate'.")
@click.option("--name", default="tiledlaf", show_default=True, help="Labels go to labels/NAME.")
@click.option(
    "--neighborhood",
    metavar="3x3|5x5|3x3x3|rings:3,7|FILE",
    help="Pixels that are averaged over (3x3).",
)
@click.option("--rho", type=float, help="Scale of the distances (1).")
@click.option("--time", type=float, metavar="T", help="Integration time: more is smoother (5).")
@click.option("--tol", type=float, help="Of taylor, sequence and krylov's halo (1e-4).")
@click.option(
    "--integrator",
    metavar="NAME",
    help="Of the linearized flow: taylor (the default), krylov, euler; sequence: linearized anew N "
    "times; of the nonlinear flow: geometric-euler, rkmk4.",
)
@click.option("--dim", type=int, metavar="M", help="Krylov dimension (10).")
@click.option("--steps", type=int, metavar="N", help="Steps (euler 50, rkmk4 10, sequence 4).")
@click.option(
    "--tile", type=int, metavar="N", help="Edge of a tile, which is a shard of the output."
)
@click.option(
    "--workers", type=int, metavar="N", help="Processes (threads for small images); all cores."
)
@click.option(
    "--scheduler", metavar="ADDRESS", help="A Dask scheduler, or 'threads' or 'processes'."
)
@click.option("--scheduler-file", metavar="FILE", help="A Dask scheduler's file.")
@_watched
@click.option(
    "--device",
    default="cpu",
    show_default=True,
    metavar="cpu|cuda",
    help="Where tiles are computed.",
)
@click.option(
    "--level", type=int, default=0, show_default=True, help="Resolution level of the input."
)
@click.option(
    "--channels", callback=_integers(), metavar="C,...", help="Channels of the data term; all."
)
@click.option("--axes", help="Axes of the input where it does not name them, such as zyx.")
@click.option("--mask", help="Image whose zeros are not labeled.")
@click.option(
    "--region",
    callback=_spans,
    metavar="y0:y1,x0:x1",
    help="Label this part only, in pixels of --level.",
)
@click.option("--confidence", is_flag=True, help="Also write max_j W_j(T).")
@click.option(
    "--names", metavar="FILE", help='Names of the classes: a line each, or JSON ["a", "b"].'
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of k-means and its sample.")
@click.option("--export", metavar="FILE", help="Also write the labels as .png or .tif.")
@click.option("--no-image", is_flag=True, help="Do not copy the image into the output.")
@click.option("--into-input", is_flag=True, help="Add the labels to INPUT; takes no OUTPUT.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and stop.")
@click.option("--overwrite", is_flag=True, help="Replace labels/NAME, and nothing else.")
def label(**given: Any) -> int:
    """Label INPUT tile by tile into the OME-Zarr OUTPUT.

    Give exactly one of --classes, --prototypes, --probabilities and --model. A run that was cut
    goes on where it stopped when the same command is given again.
    """
    from . import images, labeling, options, picture, report
    from .plan import make_plan

    if given["into_input"] == (given["output"] is not None):
        got = "both" if given["into_input"] else "none"
        raise ValueError(f"expected an OUTPUT or --into-input, got {got}")
    source = images.open_image(
        given["input"], level=given["level"], axes=given["axes"], channels=given["channels"]
    )
    probabilities = None
    if given["probabilities"] is not None:
        probabilities = options.open_probabilities(given["probabilities"], source.spatial_axes)
    mask = None
    if given["mask"] is not None:
        mask = images.open_image(given["mask"])
    prototypes = None if given["prototypes"] is None else _read_csv(given["prototypes"])
    scheme = None
    named = [key for key in ("integrator", "tol", "dim", "steps") if given[key] is not None]
    for key in ("model", "weights"):
        if named and given[key] is not None:
            raise ValueError(f"--{key} fixes --{', --'.join(named)}: drop one or the other")
    if named:
        scheme = options.integrator(
            given["integrator"] or "taylor",
            1e-4 if given["tol"] is None else given["tol"],
            given["dim"],
            given["steps"],
        )
    chosen = options.choose(
        source,
        prototypes=prototypes,
        probabilities=probabilities,
        integrator=scheme,
        **{
            key: given[key]
            for key in (
                "classes",
                "model",
                "weights",
                "neighborhood",
                "rho",
                "time",
                "device",
                "seed",
            )
        },
    )
    if given["names"] is not None and chosen.classes:
        raise ValueError("--names: the classes have names from their training")
    plan = make_plan(
        source,
        given["output"] or given["input"],
        term=chosen.term,
        settings=chosen.settings,
        model=chosen.model,
        weights=chosen.weights,
        classes=chosen.classes,
        probabilities=probabilities,
        mask=mask,
        region=given["region"],
        tile=given["tile"],
        name=given["name"],
        names=None if given["names"] is None else _read_names(given["names"]),
        confidence=given["confidence"],
        copy_image=not given["no_image"],
        into_input=given["into_input"],
        overwrite=given["overwrite"],
        seed=given["seed"],
    )
    if given["export"] is not None:
        picture.check_export(given["export"], plan.job.grid.size, chosen.term.classes)
        for key in ("input", "probabilities", "mask", "model", "weights"):
            if given[key] is not None and _same(given[key], given["export"]):
                raise ValueError(
                    f"--export {given['export']}: expected another file than the {key}"
                )
    if given["dry_run"]:
        click.echo("\n".join(report.dry_run(plan)))
        return 0
    opening = labeling.open_pool(
        plan, given["workers"], given["scheduler"], given["scheduler_file"], _watch(given)
    )
    with _under_way(), opening as pool:
        _say_where(pool)
        labeling.check_resources(plan, pool)
        plan = labeling.settle(plan)
        with _progress(plan) as advance:
            found = labeling.run(plan, pool, advance)
    assert plan.out is not None
    for line in found.errors[:SHOWN]:
        click.echo(f"tiledlaf: {line}", err=True)
    if len(found.errors) > SHOWN:
        more = len(found.errors) - SHOWN
        click.echo(f"tiledlaf: {more} more tiles failed, see {plan.out.records}", err=True)
    if given["export"] is not None:
        if found.errors:
            click.echo(f"tiledlaf: {given['export']} is not written, tiles failed", err=True)
        else:
            picture.export(plan.out.store, plan.out.group, given["export"], chosen.term.classes)
    click.echo("\n".join(report.summary(found, plan.names)))
    return 1 if found.errors else 0


def _opened(given: Mapping[str, Any]) -> AbstractContextManager[Any]:
    """Where learning runs."""
    from . import cluster

    return cluster.open_pool(
        given["workers"], given["scheduler"], given["scheduler_file"], _watch(given)
    )


def _where(command: Callable[..., int]) -> Callable[..., int]:
    """Where learning runs: the options that train and estimate share."""
    for option in (
        click.option("--device", default="cpu", show_default=True, metavar="cpu|cuda"),
        _watched,
        click.option("--scheduler-file", metavar="FILE", help="A Dask scheduler's file."),
        click.option("--scheduler", metavar="ADDRESS", help="As for label."),
        click.option("--workers", type=int, metavar="N", help="Threads, or processes; all cores."),
    ):
        command = option(command)
    return command


@cli.command()
@click.argument("model")
@click.option("--images", required=True, help="Glob, folder or file to learn from.")
@click.option("--labels", required=True, help="Their labels: as many, sorted alike.")
@click.option("--validation-images", help="To choose the best state by; else a block is set aside.")
@click.option("--validation-labels", help="Their labels.")
@click.option("--probabilities", help="Data term: (J, y, x) of any model, an image each.")
@click.option("--validation-probabilities", help="Those of the validation images.")
@click.option("--classifier", is_flag=True, help="Data term: boosted trees, learned here as well.")
@click.option("--prototypes", metavar="FILE", help="Data term: CSV; else the means of the classes.")
@click.option("--mask", help="Images whose zeros are left out.")
@click.option("--validation-mask", help="Those of the validation images.")
@click.option(
    "--neighborhood",
    metavar="3x3|5x5|rings:3,7|...",
    help="Pixels that are averaged over (3x3; rings:3,7 with probabilities or a classifier).",
)
@click.option("--time", type=float, metavar="T", help="Integration time (1, with prototypes 3).")
@click.option("--rho", type=float, default=1.0, show_default=True, help="Scale of the distances.")
@click.option("--tol", type=float, default=1e-3, show_default=True, help="Tolerance of the flow.")
@click.option(
    "--loss",
    default="cosine",
    show_default=True,
    metavar="cosine|pixel-cosine|cross-entropy",
    help="What is made small.",
)
@click.option(
    "--size", type=int, default=100, show_default=True, help="Prototypes of the predictor."
)
@click.option(
    "--features",
    metavar="context|patch|multiscale|FILE",
    help="Of the predictor (context with probabilities or a classifier, else patch); JSON.",
)
@click.option("--names", metavar="FILE", help='JSON: {"0": "membrane", "255": "inside"}.')
@click.option("--ignore", type=int, metavar="VALUE", help="Label value that is no class.")
@click.option("--channels", callback=_integers(), metavar="C,...", help="Channels to use; all.")
@click.option("--axes", help="Axes of the images where they do not name them.")
@click.option("--steps", type=int, default=300, show_default=True, help="Steps at most.")
@click.option("--limit", type=float, metavar="MINUTES", help="Stop learning after this time.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of samples and batches.")
@_where
def train(**given: Any) -> int:
    """Learn from images and their labels how to label others; writes the file MODEL.

    Labels may be sparse: --ignore names the value of pixels without one. A training that was cut
    goes on from its last checkpoint when the same command is given again.
    """
    from . import examples, report, training

    if given["classifier"] + sum(given[k] is not None for k in ("probabilities", "prototypes")) > 1:
        raise ValueError("expected at most one of --probabilities, --classifier and --prototypes")
    opened = {"axes": given["axes"], "channels": given["channels"]}
    learned = examples.pair(
        given["images"], given["labels"], given["probabilities"], given["mask"], **opened
    )
    judged = []
    if (given["validation_images"] is None) != (given["validation_labels"] is None):
        raise ValueError("expected --validation-images and --validation-labels together")
    for key in ("validation_probabilities", "validation_mask"):
        if given[key] is not None and given["validation_images"] is None:
            raise ValueError(f"--{key.replace('_', '-')} belongs to --validation-images")
    if given["validation_images"] is not None:
        judged = examples.pair(
            given["validation_images"],
            given["validation_labels"],
            given["validation_probabilities"],
            given["validation_mask"],
            **opened,
        )
    term: Any = "classifier" if given["classifier"] else "means"
    if given["probabilities"] is not None:
        term = "probabilities"
    if given["prototypes"] is not None:
        term = _read_csv(given["prototypes"])
    names = None if given["names"] is None else examples.read_names(given["names"])
    data = training.Data(learned, judged, term, names, given["ignore"])
    recipe = training.Recipe(
        prototypes=given["size"],
        features=None if given["features"] is None else _read_features(given["features"]),
        **{
            key: given[key]
            for key in ("neighborhood", "time", "rho", "tol", "loss", "steps", "seed", "device")
        },
    )
    with (
        _under_way(),
        _opened(given) as pool,
        _warnings(),
        _training_progress(given["steps"]) as show,
    ):
        _say_where(pool)
        found = training.train(
            data, recipe, pool, given["model"], limit=given["limit"], progress=show
        )
    click.echo("\n".join(report.model(found, given["model"])))
    return 0


@cli.command()
@click.argument("image")
@click.argument("labels")
@click.argument("weights")
@click.option("--probabilities", help="Data term: (J, y, x) of any model.")
@click.option("--prototypes", metavar="FILE", help="Data term: CSV; else the means of the classes.")
@click.option("--mask", help="Image whose zeros are left out.")
@click.option(
    "--neighborhood",
    default="3x3",
    show_default=True,
    metavar="3x3|5x5|rings:3,7|...",
    help="Pixels that are averaged over.",
)
@click.option("--time", type=float, default=5.0, show_default=True, metavar="T")
@click.option("--rho", type=float, default=1.0, show_default=True, help="Scale of the distances.")
@click.option("--tol", type=float, default=1e-4, show_default=True, help="Tolerance of the flow.")
@click.option("--loss", default="cosine", show_default=True, metavar="cosine|...")
@click.option("--tau", type=float, default=0.0, show_default=True, help="Of the regularizer.")
@click.option(
    "--sequence",
    type=int,
    default=1,
    show_default=True,
    metavar="N",
    help="Flows one after the other over T / N each, linearized anew, with weights of their own.",
)
@click.option("--steps", type=int, default=40, show_default=True, help="Steps at most.")
@click.option("--names", metavar="FILE", help='JSON: {"0": "membrane", "255": "inside"}.')
@click.option("--ignore", type=int, metavar="VALUE", help="Label value that is no class.")
@click.option("--channels", callback=_integers(), metavar="C,...", help="Channels to use; all.")
@click.option("--axes", help="Axes of the image where it does not name them.")
@click.option("--seed", type=int, default=0, show_default=True)
@_where
def estimate(**given: Any) -> int:
    """Estimate a weight patch for each pixel of IMAGE from its LABELS; writes the Zarr WEIGHTS.

    `tiledlaf label IMAGE OUTPUT --weights WEIGHTS` uses them.
    """
    from . import dataterm, estimation, examples

    if given["probabilities"] is not None and given["prototypes"] is not None:
        raise ValueError("expected at most one of --probabilities and --prototypes")
    pairs = examples.pair(
        given["image"],
        given["labels"],
        given["probabilities"],
        given["mask"],
        axes=given["axes"],
        channels=given["channels"],
    )
    if len(pairs) != 1:
        raise ValueError(f"expected one IMAGE, got {len(pairs)}")
    term: Any = "means"
    if pairs[0].probabilities is not None:
        term = dataterm.Probabilities(pairs[0].probabilities.stored_channels)
    if given["prototypes"] is not None:
        rows = _read_csv(given["prototypes"])
        term = dataterm.Prototypes(tuple(map(tuple, rows)))
    how = estimation.Estimation(
        **{
            key: given[key]
            for key in (
                "neighborhood",
                "time",
                "rho",
                "tol",
                "loss",
                "tau",
                "steps",
                "sequence",
                "device",
            )
        },
    )
    names = None if given["names"] is None else examples.read_names(given["names"])
    with (
        _under_way(),
        _opened(given) as pool,
        _warnings(),
        _training_progress(given["steps"]) as show,
    ):
        _say_where(pool)
        found = estimation.estimate(
            pairs[0],
            term,
            given["weights"],
            how,
            pool,
            names=names,
            ignore=given["ignore"],
            seed=given["seed"],
            progress=show,
        )
    click.echo(
        f"loss: {found.losses[0]:.4g} with uniform weights, {found.losses[-1]:.4g} after "
        f"{len(found.losses) - 1} steps\n"
        f"wrong: {100 * found.wrong[0]:.3f} % with uniform weights, {100 * found.wrong[1]:.3f} %\n"
        f"weights: {given['weights']}"
    )
    return 0


@contextmanager
def _warnings() -> Iterator[None]:
    """Show warnings as lines."""
    import warnings

    def show(message: Any, *rest: Any, **more: Any) -> None:
        click.echo(f"tiledlaf: warning: {' '.join(str(message).split())}", err=True)

    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = show
        yield


@contextmanager
def _training_progress(steps: int) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A bar of steps on a terminal, and a line a stage and validation."""
    from tqdm import tqdm

    from . import report

    terminal, began = sys.stderr.isatty(), 0.0
    first: int | None = None
    with tqdm(total=steps, disable=not terminal, unit="step", file=sys.stderr, leave=False) as bar:

        def show(record: Mapping[str, Any]) -> None:
            nonlocal first, began
            step, left = record.get("step"), None
            if step is not None:
                if first is None:  # which compiles: the next steps tell how long one takes
                    first, began = step, clock.monotonic()
                    bar.reset(steps)
                elif step > first:
                    left = (clock.monotonic() - began) / (step - first) * (steps - step)
                bar.update(step - bar.n)
            text = report.training(record, left)
            if text:
                tqdm.write(text, file=sys.stderr)

        yield show


@contextmanager
def _progress(plan: Any) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A bar with megapixels a second and time left; without a terminal a line every 10 seconds."""
    from tqdm import tqdm

    from . import records, report

    grid = plan.job.grid
    known = records.read(plan.out.records) if plan.held else {}
    finished = [r for r in known.values() if r["state"] in ("done", "skipped")]
    total = math.prod(grid.size) / 1e6
    start = min(total, sum(report.megapixels(r, grid.tile) for r in finished))
    if sys.stderr.isatty():
        form = (
            "{percentage:3.0f}%|{bar}| {n:.1f}/{total:.1f} Mpx, {rate_noinv_fmt}, {remaining} left"
        )
        with tqdm(total=total, initial=start, unit="Mpx", bar_format=form, file=sys.stderr) as bar:
            yield lambda record: _advance(bar, report.megapixels(record, grid.tile))
        return
    began = last = clock.monotonic()
    done = 0.0

    def line(record: dict[str, Any]) -> None:
        nonlocal last, done
        done += report.megapixels(record, grid.tile)
        now = clock.monotonic()
        if now - last >= 10:
            last, rate = now, done / (now - began)
            left = max(0.0, total - start - done) / rate
            now_done = min(total, start + done)
            click.echo(
                f"{now_done:.1f}/{total:.1f} Mpx, {rate:.2f} Mpx/s, {left:.0f} s left", err=True
            )

    yield line


def _advance(bar: Any, amount: float) -> None:
    bar.update(min(amount, bar.total - bar.n))


def _read_csv(path: str) -> list[list[float]]:
    rows = [row for row in csv.reader(_read_text(path).splitlines()) if row]
    for number, row in enumerate(rows, 1):
        if len(row) != len(rows[0]):
            raise ValueError(
                f"{path}: expected rows of the same length, got {len(rows[0])} values in row 1 and "
                f"{len(row)} in row {number}"
            )
    try:
        return [[float(value) for value in row] for row in rows]
    except ValueError as error:
        raise ValueError(f"{path}: expected rows of numbers, {error}") from None


def _read_text(path: str) -> str:
    try:
        return Path(path).read_text("utf-8-sig")  # spreadsheets begin files with a mark
    except UnicodeDecodeError:
        raise ValueError(f"{path}: expected a text file") from None
    except OSError as error:
        raise ValueError(_reason(error)) from None


def _read_features(text: str) -> Any:
    from . import features

    known = {"context": features.CONTEXT, "patch": features.PATCH}
    known["multiscale"] = features.MULTISCALE
    if text in known:
        return known[text]
    try:
        return features.Features.from_list(json.loads(_read_text(text)))
    except ValueError as error:
        raise ValueError(
            f"--features {text}: expected context, patch, multiscale or a JSON list, {error}"
        ) from None


def _same(path: str, other: str) -> bool:
    return os.path.exists(path) and os.path.exists(other) and os.path.samefile(path, other)


def _read_names(path: str) -> Sequence[str]:
    text = _read_text(path)
    if not text.lstrip().startswith(("[", "{")):
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: expected a JSON list of names, {error}") from None
    if isinstance(found, dict):
        if sorted(found) != sorted(map(str, range(1, len(found) + 1))):
            raise ValueError(
                f'{path}: expected names for "1" to "{len(found)}", got {sorted(found)}'
            )
        found = [found[str(v)] for v in range(1, len(found) + 1)]
    return [str(name) for name in found]


@cli.command()
@click.argument("path")
def info(path: str) -> None:
    """Say what a store or an image holds: shapes, levels, labels, settings, how complete."""
    from . import report

    click.echo("\n".join(report.info(path)))


@cli.command()
@click.argument("output")
@click.option("--name", help="Show labels/NAME only; else all.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
@click.option(
    "--picture", "picture_file", metavar="FILE.png", help="Also draw a map of the tiles by seconds."
)
def status(output: str, name: str | None, as_json: bool, picture_file: str | None) -> int:
    """Say how far a run on OUTPUT is, or the training of a model: going, cut, failed, complete.

    Reads what runs keep in OUTPUT, a path or a URL, and disturbs none. The exit code is 0 if all is
    complete or going, else 1: then the command of the run is to be given again.
    """
    from . import report
    from . import status as progress

    if picture_file is not None:
        from . import evaluation, picture

        evaluation.check_file("--picture", picture_file)
    found = progress.read(output, name)
    if picture_file is not None:
        if len(found.labels) != 1:
            known = ", ".join(one.name for one in found.labels) or "no labels"
            raise ValueError(f"--picture shows one of the labels: choose a --name of {known}")
        ((out, notes),) = progress.outputs(output, found.labels[0].name)
        title = report.status(found)[1]  # the line on tiles
        picture.tile_map(progress.times(out, notes), title).save(picture_file)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found), indent=2))
    else:
        click.echo("\n".join(report.status(found)))
    return 0 if found.good else 1


@cli.command()
@click.argument("labels")
@click.argument("truth")
@click.option(
    "--boundary", metavar="NAME", help="Class between the components of the adapted Rand error."
)
@click.option(
    "--name", default="tiledlaf", show_default=True, help="LABELS are in labels/NAME of a store."
)
@click.option("--ignore", type=int, metavar="VALUE", help="Truth value that is left out.")
@click.option("--json", "json_file", metavar="FILE", help="Also write all numbers as JSON.")
@click.option(
    "--picture", "picture_file", metavar="FILE.png", help="Also show where the errors are."
)
def evaluate(
    labels: str,
    truth: str,
    boundary: str | None,
    name: str,
    ignore: int | None,
    json_file: str | None,
    picture_file: str | None,
) -> None:
    """Compare LABELS with TRUTH: confusion matrix, pixel error, F1, IoU, adapted Rand error.

    LABELS are an output of tiledlaf or a label image of one channel, TRUTH is a label image of the
    same size. Where LABELS say which truth values each class stands for, other truth values are
    left out; else the values are compared as they are. --boundary needs memory for whole images,
    about 50 bytes a pixel; the rest is computed tile by tile.
    """
    from . import evaluation

    written = {"--json": json_file, "--picture": picture_file}
    for option, path in written.items():
        if path is not None:
            evaluation.check_file(option, path)
            for other in (labels, truth):
                if _same(other, path):
                    raise ValueError(f"{option} {path}: expected another file than {other}")
    if json_file is not None and json_file == picture_file:
        raise ValueError(f"--json {json_file}: expected another file than --picture")
    found = evaluation.evaluate(labels, truth, boundary=boundary, name=name, ignore=ignore)
    click.echo("\n".join(evaluation.lines(found)))
    if json_file is not None:
        evaluation.write_json(found, json_file, {"labels": labels, "truth": truth})
    if picture_file is not None:
        evaluation.write_picture(found, picture_file, labels, truth, name=name)


@cli.command()
@click.argument("model")
@click.argument("image", required=False)
@click.option("--truth", metavar="LABELS", help="For the singular vectors of the gradient.")
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    help="New folder for the pictures (MODEL's name with -explained).",
)
@click.option("--probabilities", help="Data term of a model that was trained with one.")
@click.option("--mask", help="Image whose zeros are left out.")
@click.option(
    "--region",
    callback=_spans,
    metavar="y0:y1,x0:x1",
    help="The part to show (the middle 512 x 512 pixels).",
)
@click.option("--channels", callback=_integers(), metavar="C,...", help="Channels to use; all.")
@click.option("--axes", help="Axes of IMAGE where it does not name them.")
@click.option("--device", default="cpu", show_default=True, metavar="cpu|cuda")
def explain(**given: Any) -> None:
    """Draw what MODEL has learned, and how it sees a part of IMAGE: index.html with pictures.

    Prototypes with their weight patches; with an IMAGE also its labels and maps of the predicted
    patches; with --truth the leading singular vectors of the gradient of the loss.
    """
    from . import explanation

    model, image, output = (given.pop(key) for key in ("model", "image", "output"))
    folder = output or f"{Path(model).with_suffix('')}-explained"
    click.echo(f"pictures: {explanation.explain(model, folder, image, **given)}")


@cli.command()
@click.option(
    "--output", default=".", show_default=True, metavar="DIR", help="Folder to write into."
)
def demo(output: str) -> int:
    """Label a photograph that scikit-image ships; write an OME-Zarr and a PNG to look at."""
    from . import report
    from .demo import NAMES
    from .demo import demo as run

    if not Path(output).is_dir():
        raise ValueError(f"--output {output}: no such folder")
    found, path = run(output)
    click.echo("\n".join([*report.summary(found, dict(enumerate(NAMES, 1))), f"picture: {path}"]))
    return 1 if found.errors else 0
