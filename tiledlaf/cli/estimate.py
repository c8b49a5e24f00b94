"""tiledlaf estimate."""

from __future__ import annotations

from typing import Any

import click

from ..errors import InputError
from . import guide, network, progress, shared

# options passed to `Estimation` unchanged
PASSED = (
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


EXAMPLES = (
    ("weights of one image", "tiledlaf estimate cells.tif labels.png weights"),
    (
        "on probabilities of another program",
        "tiledlaf estimate cells.tif labels.png weights --probabilities forest.npy",
    ),
    (
        "larger patches; label values 0 are not labeled",
        "tiledlaf estimate cells.tif labels.png weights --neighborhood 5x5 --ignore 0",
    ),
)


@click.command(
    cls=guide.Command,
    examples=EXAMPLES,
    short_help="Estimate weight patches of one image from its labels.",
)
@click.argument("image")
@click.argument("labels")
@click.argument("weights")
@click.option(
    "--probabilities",
    help="Class probabilities (J, y, x) of any model; Zarr, TIFF, npy, HDF5, npz of nnU-Net.",
)
@network.options
@click.option(
    "--prototypes",
    metavar="FILE",
    help="Prototypes as CSV, one row per class (default: the class means).",
)
@click.option(
    "--mask", help="Mask image or annotations; pixels where it is 0, or outside, are left out."
)
@click.option(
    "--neighborhood",
    default="3x3",
    show_default=True,
    metavar="3x3|5x5|rings:3,7|15nm|...",
    help="Pixels to average over, or all within a distance such as 15nm or 1.5um, by the image's "
    "pixel size along each axis.",
)
@click.option(
    "--time",
    type=float,
    default=5.0,
    show_default=True,
    metavar="T",
    help="Integration time; a longer time is smoother.",
)
@click.option("--rho", type=float, default=1.0, show_default=True, help="Scale of the distances.")
@click.option("--tol", type=float, default=1e-4, show_default=True, help="Tolerance of the flow.")
@click.option(
    "--loss",
    default="cosine",
    show_default=True,
    metavar="cosine|...",
    help="Loss to minimize.",
)
@click.option(
    "--tau",
    type=float,
    default=0.0,
    show_default=True,
    help="Scale of the regularizer; 0 turns it off.",
)
@click.option(
    "--sequence",
    type=int,
    default=1,
    show_default=True,
    metavar="N",
    help="Number of flows in sequence, each over T / N, linearized anew and with its own weights.",
)
@click.option("--steps", type=int, default=40, show_default=True, help="Maximum number of steps.")
@shared.label_values_options
@shared.annotation_options
@shared.selection_options
@click.option("--seed", type=int, default=0, show_default=True, help="Seed for sampling.")
@shared.learning_options
def estimate(**given: Any) -> int:
    """Estimate a weight patch for each pixel of IMAGE from its LABELS; writes the Zarr WEIGHTS.

    Use them with `tiledlaf label IMAGE OUTPUT --weights WEIGHTS`.
    """
    from ..training import estimate as estimation
    from ..training import examples

    probabilities = network.probabilities_of(given)
    if probabilities is not None and given["prototypes"] is not None:
        raise InputError("expected at most one of `probabilities` and `prototypes`")
    meant = shared.data_of(given)
    pairs = examples.pair(
        given["image"],
        given["labels"],
        probabilities,
        given["mask"],
        selection=shared.selection_of(given),
        painting=shared.painting(given),
        **shared.meaning_of(given),
    )
    if len(pairs) != 1:
        raise InputError(f"expected one IMAGE, got {len(pairs)}")
    term: Any = "means"
    if pairs[0].probabilities is not None:
        term = "probabilities"
    if given["prototypes"] is not None:
        term = shared.read_csv(given["prototypes"])
    how = estimation.Estimation(
        **{key: given[key] for key in PASSED},
    )
    with (
        shared.under_way(),
        shared.learning_pool(given, pairs) as pool,
        progress.training_progress(given["steps"]) as show,
    ):
        shared.say_where(pool)
        found = estimation.estimate(
            pairs[0],
            term,
            given["weights"],
            how,
            pool,
            **meant,
            seed=given["seed"],
            progress=show,
        )
    shared.echo(
        f"loss: {found.losses[0]:.4g} with uniform weights, {found.losses[-1]:.4g} after "
        f"{len(found.losses) - 1} steps",
        f"wrong: {100 * found.wrong[0]:.3f} % with uniform weights, {100 * found.wrong[1]:.3f} %",
        f"weights: {given['weights']}",
    )
    return 0
