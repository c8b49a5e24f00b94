"""tiledlaf label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from ..errors import InputError
from . import guide, network, progress, shared
from . import objects as object_options

if TYPE_CHECKING:
    from ..labeling.plan import Plan
    from ..labeling.run import Summary
    from ..pool.opening import Running

SHOWN = 20  # most failed tiles to name on stderr
# options passed to `prepare` unchanged
PASSED = (
    "mask",
    "region",
    "seed",
    "classes",
    "term",
    "model",
    "weights",
    "neighborhood",
    "rho",
    "time",
    "min_confidence",
)


EXAMPLES = (
    ("three classes, found by k-means", "tiledlaf label slide.ome.zarr out.zarr --classes 3"),
    (
        "what was learned, where there is tissue",
        "tiledlaf label slide.svs out.zarr --model tumor.model --mask tissue",
    ),
    (
        "the same for each slide, once it is known how long that takes",
        "tiledlaf label slides/*.svs --into results --model tumor.model --dry-run",
    ),
)


@click.command(
    cls=guide.Command,
    examples=EXAMPLES,
    groups={"names": "Output", "steps": "Flow", "seed": "Data term"},
)
@click.argument("paths", nargs=-1, required=True, metavar="INPUT [OUTPUT]")
@click.option(
    "--into",
    metavar="FOLDER",
    help="Label each INPUT into an OME-Zarr of its name in FOLDER: all arguments are then inputs, "
    "also globs, folders, and tables (.csv) of inputs with options of their own.",
)
@click.option("--classes", type=int, metavar="N", help="N prototypes by k-means.")
@click.option(
    "--prototypes",
    metavar="FILE",
    help="Prototypes as CSV, one row per class and one column per channel.",
)
@click.option(
    "--probabilities",
    metavar="PROBS",
    help="Class probabilities (J, y, x) of any model; Zarr, TIFF, npy, HDF5, npz of nnU-Net.",
)
@network.options
@shared.term_option
@click.option(
    "--model",
    metavar="MODEL",
    help="Model from 'tiledlaf train': data term, weight patches and flow.",
)
@click.option("--weights", metavar="WEIGHTS", help="Weight patches from 'tiledlaf estimate'.")
@click.option(
    "--name", default="tiledlaf", show_default=True, help="Write the labels to labels/NAME."
)
@click.option(
    "--neighborhood",
    metavar="3x3|5x5|3x3x3|rings:3,7|15nm|FILE",
    help="Pixels to average over, or all within a distance such as 15nm or 1.5um, by the image's "
    "pixel size along each axis (default: 3x3).",
)
@click.option("--rho", type=float, help="Scale of the distances (default: 1).")
@click.option(
    "--time",
    type=float,
    metavar="T",
    help="Integration time; a longer time is smoother (default: 5).",
)
@click.option(
    "--tol",
    type=float,
    help="Tolerance of taylor and sequence, and of krylov's halo (default: 1e-4).",
)
@click.option(
    "--integrator",
    metavar="NAME",
    help="Integrator: taylor (the default), krylov or euler, of the linearized flow; sequence, "
    "which linearizes anew N times; geometric-euler or rkmk4, of the nonlinear flow.",
)
@click.option("--dim", type=int, metavar="M", help="Krylov dimension (default: 10).")
@click.option(
    "--steps",
    type=int,
    metavar="N",
    help="Number of steps (default: euler 50, rkmk4 10, sequence 4).",
)
@click.option(
    "--tile", type=int, metavar="N", help="Edge of a tile; each tile is a shard of the output."
)
@click.option(
    "--workers",
    type=int,
    metavar="N",
    help="Number of processes, or of threads for small images (default: all cores).",
)
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Address of a Dask scheduler, or 'threads' or 'processes'.",
)
@click.option("--scheduler-file", metavar="FILE", help="Scheduler file of a Dask cluster.")
@shared.watch_options
@shared.device_option
@shared.selection_options
@click.option(
    "--mask",
    metavar="FILE|tissue",
    help="Mask image or annotations; pixels where it is 0, or outside, are left out. The word "
    "tissue finds the mask in INPUT; a file of that name is ./tissue.",
)
@shared.brush_option
@click.option(
    "--region",
    callback=shared.spans,
    metavar="y0:y1,x0:x1",
    help="Label only this part, in pixels of the level that is read.",
)
@click.option(
    "--confidence",
    is_flag=True,
    help="Also write the confidence: how probably a model's label is right; without a model, or of "
    "one that is not calibrated, how clearly it won.",
)
@click.option(
    "--min-confidence",
    type=float,
    metavar="P",
    help="Leave pixels of less than this confidence without a label: 0 (default: label all).",
)
@click.option(
    "--names", metavar="FILE", help='File of class names: one per line, or JSON ["a", "b"].'
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Seed for k-means and its sample."
)
@click.option(
    "--export",
    metavar="FILE",
    help="Also write the labels as .png, .tif, .geojson, .csv or .parquet, as export does.",
)
@object_options.options
@click.option("--no-image", is_flag=True, help="Do not copy the image into the output.")
@click.option("--into-input", is_flag=True, help="Add the labels to INPUT; takes no OUTPUT.")
@click.option(
    "--no-overview",
    is_flag=True,
    help="Do not draw image and labels into OUTPUT.overview.png at the end.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be done, and stop.")
@click.option("--overwrite", is_flag=True, help="Replace labels/NAME and nothing else.")
def label(**given: Any) -> int:
    """Label INPUT tile by tile into the OME-Zarr OUTPUT.

    Give exactly one of --classes, --prototypes, --probabilities, --network, --term and --model. An
    interrupted run continues where it stopped when the same command is given again.
    """
    if given["into"] is not None:
        from . import batches

        return batches.label_into(given)
    from ..labeling import mask, resources, tissue
    from ..labeling.request import execute, prepare
    from ..reports import text
    from ..results import afterwards

    given["input"], given["output"] = _input_and_output(given["paths"])
    if given["into_input"] == (given["output"] is not None):
        got = "both" if given["into_input"] else "neither"
        raise InputError(f"expected an OUTPUT or `into_input`, got {got}")
    choice = choice_of(given)
    running = choice["running"]
    plan = prepare(given["input"], given["output"], **choice)
    if given["names"] is not None and plan.classes:
        raise InputError("`names`: the classes have names from their training")
    wanted = object_options.wanted_of(given)
    wanted.check(plan)
    if given["export"] is not None:
        afterwards.check(plan, given["export"])
        _check_other_file(given)
    if given["dry_run"]:
        if tissue.is_pending(plan.job.mask):
            with resources.open_pool(plan, running) as pool:
                plan = mask.settle(plan, pool)
        shared.echo(*text.dry_run(plan), *object_options.dry_run(wanted, plan))
        return 0
    with shared.under_way(), resources.open_pool(plan, running) as pool:
        shared.say_where(pool)
        wanted.check(plan, pool)
        with progress.labeling_progress(plan) as advance:
            found = execute(plan, pool, advance)
        made = object_options.make(wanted, plan, found, pool)
    _say_failed(plan, found)
    if given["export"] is not None:
        _export(plan, found, given["export"], running)
    shared.echo(*text.summary(found), *object_options.lines(made))
    return 1 if found.errors else 0


def _input_and_output(paths: Sequence[str]) -> tuple[str, str | None]:
    if len(paths) > 2:
        raise click.UsageError(
            f"Got unexpected extra argument ({paths[2]}); several inputs need --into FOLDER",
            click.get_current_context(),
        )
    return paths[0], paths[1] if len(paths) == 2 else None


def choice_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """What the options ask for, as keywords of `prepare`."""
    from ..labeling.plan import Writing
    from ..pool.opening import Running

    return {
        "integrator": _integrator(given),
        "prototypes": None if given["prototypes"] is None else shared.read_csv(given["prototypes"]),
        "writing": Writing(
            given["name"],
            None if given["names"] is None else shared.read_names(given["names"]),
            given["confidence"],
            not given["no_image"],
            given["into_input"],
            given["overwrite"],
            not given["no_overview"],
        ),
        "running": Running(
            given["workers"],
            given["scheduler"],
            given["scheduler_file"],
            given["device"],
            given["tile"],
            shared.watch_of(given),
        ),
        "selection": shared.selection_of(given),
        "painting": shared.painting(given),
        "probabilities": network.probabilities_of(given),
        **{key: given[key] for key in PASSED},
    }


def _integrator(given: Mapping[str, Any]) -> Any:
    """The requested integrator, None for the default."""
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
    for key in ("input", "probabilities", "network", "mask", "model", "weights"):
        if given[key] is not None and shared.same(given[key], given["export"]):
            raise InputError(f"`export` {given['export']}: expected a file other than the {key}")


def _say_failed(plan: Plan, found: Summary) -> None:
    assert plan.out is not None
    for line in found.errors[:SHOWN]:
        shared.echo(f"tiledlaf: {shared.with_options(line, label)}", err=True)
    if len(found.errors) > SHOWN:
        more = len(found.errors) - SHOWN
        shared.echo(f"tiledlaf: {more} more tiles failed, see {plan.out.records}", err=True)


def _export(plan: Plan, found: Summary, path: str, running: Running) -> None:
    from ..results import afterwards

    assert plan.out is not None
    if found.errors:
        shared.echo(f"tiledlaf: {path} was not written, since tiles failed", err=True)
    else:
        afterwards.write(plan, path, running)
