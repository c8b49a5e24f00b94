"""tiledlaf train."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from ..errors import InputError
from . import guide, network, progress, shared

EXAMPLES = (
    (
        "from annotations of QuPath",
        "tiledlaf train tumor.model --images slide.svs --labels slide.geojson",
    ),
    (
        "from label images, with boosted trees as data term",
        "tiledlaf train cells.model --images raw --labels labels --classifier",
    ),
    (
        "from a table of images and labels, for half an hour at most",
        "tiledlaf train tumor.model --pairs pairs.csv --limit 30",
    ),
)


@click.command(
    cls=guide.Command,
    examples=EXAMPLES,
    short_help="Learn from images and their labels how to label others.",
)
@click.argument("model")
@click.option("--images", help="Images to learn from: glob, folder or file.")
@click.option(
    "--labels",
    help="Labels of the images: label images or files of annotations (GeoJSON of QuPath, COCO "
    "JSON, ROIs of ImageJ, shapes of napari); glob, folder or file, paired by their names.",
)
@click.option(
    "--from",
    "start",
    metavar="MODEL",
    help="Model to go on from, with its labels and new ones: what is not said here is taken from "
    "it, and few steps suffice.",
)
@click.option(
    "--pairs",
    metavar="FILE.csv",
    help="Table of images and what belongs to them, in place of --images and --labels: columns "
    "images, labels and, if needed, probabilities, mask, validation (yes or no).",
)
@click.option(
    "--validation-images",
    help="Images of the validation set (default: cross-validation over the images).",
)
@click.option("--validation-labels", help="Labels of the validation set.")
@click.option(
    "--probabilities",
    help="Class probabilities (J, y, x) of any model, one file per image.",
)
@network.options
@click.option("--validation-probabilities", help="Probabilities of the validation set.")
@shared.term_option
@click.option("--classifier", is_flag=True, help="Boosted trees, which are learned as well.")
@click.option(
    "--learn-network",
    type=click.Choice(["unet"]),
    help="Network that is learned as well, by PyTorch: a small U-Net. With --classifier: trees, "
    "the network or the mean of both, by what errs least.",
)
@click.option(
    "--network-minutes",
    type=float,
    metavar="M",
    default=15.0,
    show_default=True,
    help="How long learning the network may take, with those that cross-validation needs.",
)
@click.option(
    "--prototypes",
    metavar="FILE",
    help="Prototypes as CSV, one row per class (default: the class means).",
)
@click.option(
    "--mask",
    help="Mask images or annotations; pixels where they are 0, or outside, are left out.",
)
@click.option("--validation-mask", help="Mask images or annotations of the validation set.")
@click.option(
    "--neighborhood",
    metavar="3x3|5x5|rings:3,7|15nm|...",
    help="Pixels to average over, or all within a distance such as 15nm or 1.5um, by the images' "
    "pixel size along each axis (default: 3x3; rings:3,7 with probabilities or a classifier).",
)
@click.option(
    "--time",
    type=float,
    metavar="T",
    help="Integration time; a longer time is smoother (default: 3; 1 with probabilities or a "
    "classifier).",
)
@click.option("--rho", type=float, default=1.0, show_default=True, help="Scale of the distances.")
@click.option("--tol", type=float, default=1e-3, show_default=True, help="Tolerance of the flow.")
@click.option(
    "--loss",
    default="cosine",
    show_default=True,
    metavar="cosine|pixel-cosine|cross-entropy",
    help="Loss to minimize.",
)
@click.option(
    "--predictor-size",
    "--size",
    "predictor_size",
    type=int,
    default=100,
    show_default=True,
    help="Number of anchors of the predictor.",
)
@click.option(
    "--features",
    metavar="context|patch|multiscale|rich|FILE",
    help="Features of the predictor, by name or as a JSON file (default: patch; context with "
    "probabilities or a classifier).",
)
@click.option(
    "--flow",
    type=click.Choice(["auto", "none", "uniform", "learned"]),
    default="auto",
    show_default=True,
    help="What the flow may add to the data term: nothing, equal weights, learned weights, or what "
    "errs least in cross-validation.",
)
@click.option(
    "--priors",
    metavar="labels|none|S,S,...",
    help="How often classes occur: as often as they are labeled, not known, or the share of each "
    "class, in order (default: labels where half of all pixels are labeled, else none).",
)
@click.option(
    "--boundary",
    metavar="CLASS",
    help="Class between others that are to stay apart, such as membranes: flow and biases are "
    "chosen by the least adapted Rand error of what lies between, not by the fewest wrong pixels.",
)
@shared.label_values_options
@shared.annotation_options
@shared.selection_options
@click.option(
    "--steps",
    type=int,
    default=300,
    help="Maximum number of steps (default: 300; 60 with --from).",
)
@click.option("--limit", type=float, metavar="MINUTES", help="Stop learning after so many minutes.")
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Seed for sampling and batches."
)
@shared.learning_options
def train(**given: Any) -> int:
    """Learn from images and their labels how to label others; writes the file MODEL.

    Labels may be sparse: --ignore names the value of unlabeled pixels. An interrupted training
    continues from its last checkpoint when the same command is given again. With --from, labels
    that were added or corrected are learned from in a fraction of the time.
    """
    from ..model import model as model_file
    from ..reports import text
    from ..training import run as training_run

    meant, path = shared.data_of(given), given["start"]
    if path is not None and shared.same(path, given["model"]):
        raise InputError(f"expected a new file for the model, got that of `start`, {path}")
    given["start"] = start = None if path is None else model_file.load(path)
    training, validation = _sets(given)
    term = _term(given, training[0].probabilities is not None)
    data = training_run.Data(training, validation, term, **meant)
    recipe = _recipe(given, start)
    with (
        shared.under_way(),
        shared.learning_pool(given, (*training, *validation)) as pool,
        progress.training_progress(recipe.steps) as show,
    ):
        shared.say_where(pool)
        found = training_run.train(
            data, recipe, pool, given["model"], limit=given["limit"], progress=show
        )
    shared.echo(*text.model(found, given["model"]))
    return 0


RECIPE = (
    *("neighborhood", "time", "rho", "tol", "loss", "predictor_size", "features", "priors"),
    *("steps", "seed", "flow", "boundary", "device", "network_minutes"),
)


def _recipe(given: Mapping[str, Any], start: Any) -> Any:
    """The recipe of these options; with a model to go on from, of those that were typed."""
    from ..training.run import Recipe

    found = {key: given[key] for key in RECIPE}
    if found["features"] is not None:
        found["features"] = shared.read_features(found["features"])
    found["priors"] = _priors(found["priors"])
    if start is None:
        return Recipe(**found)
    context, usual = click.get_current_context(), click.core.ParameterSource.DEFAULT
    typed = {k: v for k, v in found.items() if context.get_parameter_source(k) != usual}
    return Recipe.from_model(start, **typed)


def _priors(text: str | None) -> Any:
    """Shares as numbers; other texts as they are."""
    if text is None or "," not in text:
        return text
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(
            f"`priors` must be labels, none or numbers with commas, got {text!r}"
        ) from None


def _term(given: Mapping[str, Any], probabilities: bool) -> Any:
    """The requested data term, None if nothing is said; a named one may use the probabilities."""
    others = ("prototypes", "term")
    learned = given["classifier"] or given["learn_network"] is not None
    chosen = learned + sum(given[key] is not None for key in others)
    if chosen + (probabilities and given["term"] is None) > 1:
        raise InputError(
            "expected at most one of `probabilities`, `classifier` (with or without "
            "`learn_network`), `prototypes` and `term`"
        )
    source = click.get_current_context().get_parameter_source("network_minutes")
    typed = source != click.core.ParameterSource.DEFAULT
    if typed and given["learn_network"] is None and given["start"] is None:
        raise InputError("`network_minutes` belongs to `learn_network`")
    if learned:
        parts = ("classifier" if given["classifier"] else None, given["learn_network"])
        return "+".join(part for part in parts if part)
    if given["prototypes"] is not None:
        return shared.read_csv(given["prototypes"])
    if given["term"] is not None:
        return given["term"]
    return "probabilities" if probabilities else None


PARTS = ("images", "labels", "probabilities", "mask")


def _sets(given: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
    """The training set and the validation set."""
    from ..annotations import values
    from ..training import examples

    if given["pairs"] is None:
        for key in PARTS[:2]:
            if given[key] is None:
                raise click.MissingParameter(
                    ctx=click.get_current_context(),
                    param_hint=f"'--{key}'",
                    param_type="option",
                )
        made = network.probabilities_of(given)
        return _examples(given, made), _examples(given, made, "validation_")
    for key in (*PARTS, *(f"validation_{part}" for part in PARTS)):
        if given[key] is not None:
            raise InputError(f"expected at most one of `pairs` and `{key}`")
    if given["network"] is not None:
        raise InputError("expected at most one of `pairs` and `network`")
    meant = values.meaning(**shared.meaning_of(given))
    return examples.read_pairs(given["pairs"], meant, **_chosen(given))


def _chosen(given: Mapping[str, Any]) -> dict[str, Any]:
    """Which part of each image is meant, and how annotations become pixels."""
    selection, start = shared.selection_of(given), given["start"]
    if start is not None:
        selection = start.select(selection)
    return {"selection": selection, "painting": shared.painting(given)}


def _examples(given: Mapping[str, Any], made: Any, which: str = "") -> list[Any]:
    """The images to learn from or of the validation set, with labels, probabilities and masks.

    Parameters
    ----------
    made : the network that makes the probabilities, if one does
    """
    from ..training import examples

    keys = [f"{which}{key}" for key in PARTS]
    images, labels, *others = (given[key] for key in keys)
    if given["network"] is not None and images is not None:
        if which and others[0] is not None:
            raise InputError(f"expected at most one of `{keys[2]}` and `network`")
        others[0] = made
    if (images is None) != (labels is None):
        raise InputError(f"expected `{keys[0]}` and `{keys[1]}` together")
    if images is None:
        for key, value in zip(keys[2:], others, strict=True):
            if value is not None:
                raise InputError(f"`{key}` belongs to `{keys[0]}`")
        return []
    chosen = {**_chosen(given), **shared.meaning_of(given)}
    return examples.pair(images, labels, *others, **chosen)
