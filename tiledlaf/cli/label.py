"""tiledlaf label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from ..errors import InputError
from . import progress, shared

if TYPE_CHECKING:
    from ..labeling.plan import Plan
    from ..labeling.run import Summary

SHOWN = 20  # failed tiles to name on stderr
# options that go to `prepare` as they are
PASSED = (
    "probabilities",
    "mask",
    "region",
    "level",
    "channels",
    "axes",
    "seed",
    "classes",
    "term",
    "model",
    "weights",
    "neighborhood",
    "rho",
    "time",
)


@click.command()
@click.argument("input")
@click.argument("output", required=False)
@click.option("--classes", type=int, metavar="N", help="Data term: N prototypes by k-means.")
@click.option(
    "--prototypes", metavar="FILE", help="Data term: CSV, a row a class, a column a channel."
)
@click.option(
    "--probabilities", metavar="PROBS", help="Data term: (J, y, x) of any model; Zarr, TIFF, npy."
)
@shared.term_option
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
@shared.watch_options
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
    "--channels",
    callback=shared.integers(),
    metavar="C,...",
    help="Channels of the data term; all.",
)
@click.option("--axes", help="Axes of the input where it does not name them, such as zyx.")
@click.option("--mask", help="Image whose zeros are not labeled.")
@click.option(
    "--region",
    callback=shared.spans,
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

    Give exactly one of --classes, --prototypes, --probabilities, --term and --model. A run that was
    cut goes on where it stopped when the same command is given again.
    """
    from ..labeling import resources
    from ..labeling.plan import Writing
    from ..labeling.request import execute, prepare
    from ..pool.opening import Running
    from ..reports import pictures, text

    if given["into_input"] == (given["output"] is not None):
        got = "both" if given["into_input"] else "none"
        raise InputError(f"expected an OUTPUT or `into_input`, got {got}")
    running = Running(
        given["workers"],
        given["scheduler"],
        given["scheduler_file"],
        given["device"],
        given["tile"],
        shared.watch_of(given),
    )
    plan = prepare(
        given["input"],
        given["output"],
        integrator=_integrator(given),
        prototypes=None if given["prototypes"] is None else shared.read_csv(given["prototypes"]),
        writing=Writing(
            given["name"],
            None if given["names"] is None else shared.read_names(given["names"]),
            given["confidence"],
            not given["no_image"],
            given["into_input"],
            given["overwrite"],
        ),
        running=running,
        **{key: given[key] for key in PASSED},
    )
    if given["names"] is not None and plan.classes:
        raise InputError("`names`: the classes have names from their training")
    if given["export"] is not None:
        pictures.check_export(given["export"], plan.job.grid.size, plan.job.term.classes)
        _check_other_file(given)
    if given["dry_run"]:
        click.echo("\n".join(text.dry_run(plan)))
        return 0
    with shared.under_way(), resources.open_pool(plan, running) as pool:
        shared.say_where(pool)
        with progress.labeling_progress(plan) as advance:
            found = execute(plan, pool, advance)
    _say_failed(plan, found)
    if given["export"] is not None:
        _export(plan, found, given["export"])
    click.echo("\n".join(text.summary(found, plan.names)))
    return 1 if found.errors else 0


def _integrator(given: Mapping[str, Any]) -> Any:
    """The integrator that is asked for, None for the default."""
    from ..flow import integrators

    options = {key: given[key] for key in ("tol", "dim", "steps")}
    named = [f"`{key}`" for key in ("integrator", *options) if given[key] is not None]
    if not named:
        return None
    for key in ("model", "weights"):
        if given[key] is not None:
            raise InputError(f"`{key}` fixes {', '.join(named)}: drop one or the other")
    return integrators.make(given["integrator"] or "taylor", **options)


def _check_other_file(given: Mapping[str, Any]) -> None:
    """Refuse to write over what is read."""
    for key in ("input", "probabilities", "mask", "model", "weights"):
        if given[key] is not None and shared.same(given[key], given["export"]):
            raise InputError(f"`export` {given['export']}: expected another file than the {key}")


def _say_failed(plan: Plan, found: Summary) -> None:
    assert plan.out is not None
    for line in found.errors[:SHOWN]:
        click.echo(f"tiledlaf: {line}", err=True)
    if len(found.errors) > SHOWN:
        more = len(found.errors) - SHOWN
        click.echo(f"tiledlaf: {more} more tiles failed, see {plan.out.records}", err=True)


def _export(plan: Plan, found: Summary, path: str) -> None:
    from ..reports import pictures

    assert plan.out is not None
    if found.errors:
        click.echo(f"tiledlaf: {path} is not written, tiles failed", err=True)
    else:
        pictures.export(plan.out.store, plan.out.group, path, plan.job.term.classes)
