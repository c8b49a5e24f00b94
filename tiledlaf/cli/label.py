"""tiledlaf label."""

from __future__ import annotations

from typing import Any

import click

from . import progress, shared

SHOWN = 20  # failed tiles to name on stderr


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

    Give exactly one of --classes, --prototypes, --probabilities and --model. A run that was cut
    goes on where it stopped when the same command is given again.
    """
    from ..files import images
    from ..flow import integrators
    from ..labeling import choice, resources, sample
    from ..labeling import run as labeling_run
    from ..labeling.plan import make_plan
    from ..reports import pictures, text

    if given["into_input"] == (given["output"] is not None):
        got = "both" if given["into_input"] else "none"
        raise ValueError(f"expected an OUTPUT or --into-input, got {got}")
    source = images.open_image(
        given["input"], level=given["level"], axes=given["axes"], channels=given["channels"]
    )
    probabilities = None
    if given["probabilities"] is not None:
        probabilities = choice.open_probabilities(given["probabilities"], source.spatial_axes)
    mask = None
    if given["mask"] is not None:
        mask = images.open_image(given["mask"])
    prototypes = None if given["prototypes"] is None else shared.read_csv(given["prototypes"])
    scheme = None
    named = [key for key in ("integrator", "tol", "dim", "steps") if given[key] is not None]
    for key in ("model", "weights"):
        if named and given[key] is not None:
            raise ValueError(f"--{key} fixes --{', --'.join(named)}: drop one or the other")
    if named:
        scheme = integrators.make(
            given["integrator"] or "taylor",
            1e-4 if given["tol"] is None else given["tol"],
            given["dim"],
            given["steps"],
        )
    chosen = choice.choose_labeling(
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
        names=None if given["names"] is None else shared.read_names(given["names"]),
        confidence=given["confidence"],
        copy_image=not given["no_image"],
        into_input=given["into_input"],
        overwrite=given["overwrite"],
        seed=given["seed"],
    )
    if given["export"] is not None:
        pictures.check_export(given["export"], plan.job.grid.size, chosen.term.classes)
        for key in ("input", "probabilities", "mask", "model", "weights"):
            if given[key] is not None and shared.same(given[key], given["export"]):
                raise ValueError(
                    f"--export {given['export']}: expected another file than the {key}"
                )
    if given["dry_run"]:
        click.echo("\n".join(text.dry_run(plan)))
        return 0
    opening = resources.open_pool(
        plan, given["workers"], given["scheduler"], given["scheduler_file"], shared.watch_of(given)
    )
    with shared.under_way(), opening as pool:
        shared.say_where(pool)
        resources.check_resources(plan, pool)
        plan = sample.settle(plan)
        with progress.labeling_progress(plan) as advance:
            found = labeling_run.run(plan, pool, advance)
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
            pictures.export(plan.out.store, plan.out.group, given["export"], chosen.term.classes)
    click.echo("\n".join(text.summary(found, plan.names)))
    return 1 if found.errors else 0
