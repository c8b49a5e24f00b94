"""tiledlaf train."""

from __future__ import annotations

from typing import Any

import click

from . import progress, shared


@click.command()
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
@click.option(
    "--channels", callback=shared.integers(), metavar="C,...", help="Channels to use; all."
)
@click.option("--axes", help="Axes of the images where they do not name them.")
@click.option("--steps", type=int, default=300, show_default=True, help="Steps at most.")
@click.option("--limit", type=float, metavar="MINUTES", help="Stop learning after this time.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of samples and batches.")
@shared.learning_options
def train(**given: Any) -> int:
    """Learn from images and their labels how to label others; writes the file MODEL.

    Labels may be sparse: --ignore names the value of pixels without one. A training that was cut
    goes on from its last checkpoint when the same command is given again.
    """
    from ..reports import text
    from ..training import examples
    from ..training import run as training_run

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
        term = shared.read_csv(given["prototypes"])
    names = None if given["names"] is None else examples.read_names(given["names"])
    data = training_run.Data(learned, judged, term, names, given["ignore"])
    recipe = training_run.Recipe(
        prototypes=given["size"],
        features=None if given["features"] is None else shared.read_features(given["features"]),
        **{
            key: given[key]
            for key in ("neighborhood", "time", "rho", "tol", "loss", "steps", "seed", "device")
        },
    )
    with (
        shared.under_way(),
        shared.learning_pool(given) as pool,
        progress.warnings_as_lines(),
        progress.training_progress(given["steps"]) as show,
    ):
        shared.say_where(pool)
        found = training_run.train(
            data, recipe, pool, given["model"], limit=given["limit"], progress=show
        )
    click.echo("\n".join(text.model(found, given["model"])))
    return 0
