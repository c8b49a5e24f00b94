"""Plan of a training: its recipe, its data, and how the data are cut into tiles and batches."""

from __future__ import annotations

import dataclasses
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..annotations import numbering
from ..errors import InputError, as_seed, at_least, settle_numbers
from ..files import fingerprints
from ..files.image import Image
from ..flow import losses, stencil
from ..flow.gradient import Polynomials
from ..flow.linear import check_growth
from ..flow.optimizers import Adam, AdaMax
from ..model import model as model_file
from ..model import neighborhoods
from ..model.classes import Class, ignored
from ..model.features import CONTEXT, PATCH, Features
from ..model.model import Model
from ..model.settings import check_learnable
from ..pool.opening import find_device
from ..pool.tasks import Pool
from ..tiles import Tile
from . import continuing, cutting, networks, rounds, survey
from .examples import Example
from .judging import Bench, checked_priors
from .rounds import Round
from .survey import TrainingWarning as TrainingWarning
from .terms import Learner, described, learner_of
from .worker import FlowSettings, LabeledTile

OPTIMIZERS = {"adam": Adam, "adamax": AdaMax}
ALONE = ((0, 0),)  # the neighborhood that adds nothing
FLOWS = ("auto", "none", "uniform", "learned")
DENSE = 0.5  # share of pixels that are labeled from which on labels say how often classes occur
Progress = Callable[[Mapping[str, Any]], None]
Counts = dict[tuple[int, tuple[int, ...]], tuple[int, ...]]


@dataclass(frozen=True)
class Recipe:
    """How to learn.

    Attributes
    ----------
    neighborhood : str or offsets, as in `model.neighborhoods`; None: ``rings:3,7`` with
        probabilities, else ``3x3``
    time, rho, tol : parameters of the flow; time None: 1 with probabilities, else 3
    loss : cosine, pixel-cosine, cross-entropy, or a loss from `flow.losses`
    optimizer : adam or adamax
    features : features of the predictor; None: CONTEXT with probabilities, else PATCH
    predictor_size : number of anchors N of the predictor
    steps : maximum number of steps
    patience : tens of steps without improvement after which learning stops
    seed : seed for batches, samples and k-means
    flow : what the flow may add to the data term: "none", "uniform" or "learned" weights; "auto":
        what errs least on tiles that it was not learned from, and of alike ones the simplest
    priors : how often classes occur, which biases are fitted to: "labels" (as often as they are
        labeled), "none" (not known: no biases), or the share of each class, in order; None:
        "labels" where half of all pixels or more are labeled, else "none"
    boundary : name of a class that lies between others, such as membranes between cells: flow and
        biases are then those with the least adapted Rand error of what lies between, not the ones
        with the fewest wrong pixels
    network_minutes : how long networks that are learned as data term may take, all of them together
    network_steps : steps of each of them instead, which do not depend on how fast the machine is
    start : the model to go on from, if any: its classes, its kind of data term and the features of
        its classifier are taken, and its predictor to begin with; `from_model` takes all settings
    """

    neighborhood: Any = None
    time: float | None = None
    rho: float = 1.0
    tol: float = 1e-3
    loss: Any = "cosine"
    optimizer: str = "adam"
    features: Features | None = None
    predictor_size: int = 100
    steps: int = 300
    patience: int = 10
    seed: int = 0
    device: str = "cpu"
    priors: str | Sequence[float] | None = None
    flow: str = "auto"
    boundary: str | None = None
    network_minutes: float = networks.MINUTES
    network_steps: int | None = None
    start: Model | None = None

    def __post_init__(self) -> None:
        settle_numbers(self)
        size = self.predictor_size
        at_least(1, predictor_size=size, steps=self.steps, patience=self.patience)
        if not 0 < self.network_minutes < math.inf:
            raise InputError(
                f"expected a positive number of `network_minutes`, got {self.network_minutes:g}"
            )
        if self.network_steps is not None:
            at_least(1, network_steps=self.network_steps)
        if self.optimizer not in list(OPTIMIZERS):  # anything may be given
            known = " or ".join(OPTIMIZERS)
            raise InputError(f"optimizer must be {known}, got {self.optimizer!r}")
        as_seed(self.seed)
        check_learnable(self.rho)
        if self.flow not in FLOWS:
            raise InputError(f"flow must be one of {', '.join(FLOWS)}, got {self.flow!r}")
        if self.priors is not None:
            object.__setattr__(self, "priors", checked_priors(self.priors))
        if not isinstance(self.start, Model | None):
            raise InputError(f"start must be a model, as from load, got {self.start!r}")

    @classmethod
    def from_model(cls, model: Model | str | os.PathLike[str], **given: Any) -> Recipe:
        """How to go on from a model, or from its file, with old labels and new ones.

        What is not given is the model's, also which way was chosen for the flow; of steps there are
        at most 60, and patience is 4.
        """
        start = model if isinstance(model, Model) else model_file.load(model)
        return cls(**{**continuing.settings(start, given), **given, "start": start})


@dataclass(frozen=True)
class Data:
    """What to learn from, and with which data term.

    Attributes
    ----------
    training, validation : examples; without validation images, halves of the training
        tiles judge what is learned from the other half
    term : "means", "classifier", "unet", "classifier+unet", "probabilities"; prototypes as rows; a
        data term, or its name; None: of the kind of the model that the recipe goes on from, else
        "means"
    names, ignore : as in `model.classes.find_classes`; () says that no value is ignored
    many : whether many label values are classes all the same, though they look like instances
    """

    training: Sequence[Example]
    validation: Sequence[Example] = ()
    term: Any = None
    names: Mapping[str, str] | None = None
    ignore: int | Sequence[int] | None = None
    many: bool = False


@dataclass(frozen=True)
class TrainingPlan:
    """Examples cut into tiles, with their classes.

    Attributes
    ----------
    flow : what does not change while weights are learned
    features : features of the predictor
    learner : learner of the data term
    training, validation : tiles to learn from, and to choose the best state by
    folds : fold of each training tile, which its classifier has not seen
    rounds : which tiles, of training and validation ones together, are learned from and judge
    whole : all training tiles, to learn from at last; None where validation images judge
    bench : how the tiles judge, in the order of the rounds
    folded : how the training tiles judge what was fitted to the other folds
    judged : what judges, in words
    boundary : number, from 0, of the class between the pieces that ways are compared by
    counts : number of labeled pixels of each class, for each tile
    about : lines on the label values
    ignore : values that mean "not labeled", None where nothing was said of them
    print : what the training depends on, as JSON
    """

    flow: FlowSettings
    features: Features
    learner: Learner
    training: list[LabeledTile]
    validation: list[LabeledTile]
    folds: list[int]
    rounds: list[Round]
    whole: Round | None
    bench: Bench
    folded: Bench
    judged: str
    boundary: int | None
    counts: Counts
    about: list[str]
    ignore: list[int] | None
    print: Mapping[str, Any]


def make_plan(
    data: Data, recipe: Recipe, pool: Pool, say: Progress = lambda record: None
) -> TrainingPlan:
    """Check the examples, find the classes, and cut the labeled parts into tiles."""
    if not data.training:
        raise InputError("expected images to learn from, got none")
    find_device(recipe.device, pool)
    data = _settled(data, recipe.start)
    examples = (*data.training, *data.validation)
    _check_alike(examples)
    learner = learner_of(data.term)
    learner.check()
    chosen = recipe.neighborhood
    if chosen is None:
        chosen = "rings:3,7" if learner.probable else "3x3"
    chosen = ALONE if recipe.flow == "none" else chosen
    offsets, lines = neighborhoods.choose(chosen, [e.image for e in examples])
    time = recipe.time if recipe.time is not None else 1.0 if learner.probable else 3.0
    features = recipe.features or (CONTEXT if learner.probable else PATCH)
    way = Polynomials(recipe.tol)
    check_growth(way, time, np.float32)
    loss = losses.make(recipe.loss) if isinstance(recipe.loss, str) else recipe.loss
    halo = tuple(way.degree(time) * r for r in stencil.radius(offsets))
    tiles, classes, counts, about = _labeled(data, recipe.start, halo, pool, say)
    losses.check_classes(loss, len(classes))
    training, validation = _split(data, tiles, classes, counts)
    folds = rounds.folds(training)
    if learner.per_fold:
        last = max(folds) + 1
        training = [
            dataclasses.replace(one, fold=fold) for one, fold in zip(training, folds, strict=True)
        ]
        validation = [dataclasses.replace(one, fold=last) for one in validation]
    weights, line = _weights(data, recipe, training, classes, counts)
    flow = FlowSettings(classes, offsets, recipe.rho, time, way, loss, recipe.device)
    return TrainingPlan(
        flow,
        features,
        learner,
        training,
        validation,
        folds,
        *_judging(training, validation, folds, weights),
        _boundary(recipe, classes, weights),
        counts,
        [*lines, *about, *line],
        None if data.ignore is None else sorted(ignored(data.ignore) - ignored(None)),
        _print(data, recipe, flow, features),
    )


def _settled(data: Data, start: Model | None) -> Data:
    """The data with what they leave to the model that the training goes on from."""
    if start is None:
        return dataclasses.replace(data, term="means") if data.term is None else data
    term = continuing.term(start) if data.term is None else data.term
    ignore = continuing.unlabeled(start, data.training[0].labels, data.ignore)
    return dataclasses.replace(data, term=term, ignore=ignore)


def _judging(
    training: Sequence[LabeledTile],
    validation: Sequence[LabeledTile],
    folds: Sequence[int],
    weights: np.ndarray | None,
) -> tuple[list[Round], Round | None, Bench, Bench, str]:
    """The rounds, what is learned from at last, both benches, and what judges, in words."""
    found, whole = rounds.rounds(training, validation, folds)
    everything = [*training, *validation]
    sides = [number for number, one in enumerate(found) for _ in one.judged]
    units, words = rounds.units([everything[i] for one in found for i in one.judged])
    folded = Bench(folds, rounds.units(training)[0], weights)
    judged = ("cross-validation" if whole else "validation") + f" over {words}"
    return found, whole, Bench(sides, units, weights), folded, judged


def last_fold_judging(plan: TrainingPlan) -> TrainingPlan:
    """The plan for a data term that was fitted to all folds but the last, which alone judges."""
    last = max(plan.folds)
    sides: tuple[list[LabeledTile], list[LabeledTile]] = [], []
    for one, fold in zip(plan.training, plan.folds, strict=True):
        sides[fold == last].append(dataclasses.replace(one, fold=0))
    training, validation = sides
    validation += [dataclasses.replace(one, fold=0) for one in plan.validation]
    folds = [fold for fold in plan.folds if fold != last]
    found, whole, bench, folded, judged = _judging(training, validation, folds, plan.bench.weights)
    return dataclasses.replace(
        plan,
        training=training,
        validation=validation,
        folds=folds,
        rounds=found,
        whole=whole,
        bench=bench,
        folded=folded,
        judged=judged,
    )


def _labeled(
    data: Data, start: Model | None, halo: Sequence[int], pool: Pool, say: Progress
) -> tuple[list[LabeledTile], tuple[Class, ...], Counts, list[str]]:
    """Tiles with labeled pixels, classes, how many pixels of each a tile has, and lines on them."""
    everything, count = (*data.training, *data.validation), len(data.training)
    found = cutting.cut(everything, halo, count)
    tables = survey.count(pool, everything, [(n, tile.core) for n, tile in found], say)
    kept: dict[bool, set[int]] = {True: set(), False: set()}
    for (number, _), table in zip(found, tables, strict=True):
        kept[number < count].update(table)
    labels = [e.labels for e in data.training]
    legend = numbering.legend(labels, kept[True], data.names, data.ignore)
    if start:
        legend = continuing.legend(start, legend, labels[0], kept[True])
    left_out = ignored(legend.ignore)
    labeled = {n for (n, _), one in zip(found, tables, strict=True) if {*one} - left_out}
    trained = sum(n < count for n in labeled)
    # images without labels judge nothing
    if trained and cutting.least(trained) != cutting.least(count):
        found = cutting.cut(everything, halo, trained)
        tables = survey.count(pool, everything, [(n, tile.core) for n, tile in found], say)
    items = [(n, tile.core) for n, tile in found]
    if not data.many:
        survey.check_values(pool, everything, items, tables, legend)
    classes = legend.classes(kept[True])
    if start:
        classes = continuing.colored(start, classes)
    _warn_unknown(labels[0], kept[False] - {v for c in classes for v in c.values} - left_out)
    survey.warn_empty(everything, labeled)
    own = sum(n < count for n, _ in items)
    lines = survey.lines(pool, data.training, items[:own], tables[:own], legend, classes)
    tiles, counts = _counted(found, tables, classes)
    if not data.validation and not rounds.can_be_folded(tiles, counts):
        finer = cutting.finer(everything, tiles, halo)
        tables = survey.count(pool, everything, [(n, tile.core) for n, tile in finer], say)
        tiles, counts = _counted(finer, tables, classes)
    return tiles, classes, counts, lines


def _check_alike(examples: Sequence[Example]) -> None:
    """Refuse images that differ in axes or channels."""
    ndims = {len(e.image.grid) for e in examples}
    channels = {e.image.used_channels for e in examples}
    if len(ndims) > 1 or len(channels) > 1:
        raise InputError(
            f"expected images with the same number of axes and channels, got {sorted(ndims)} axes "
            f"and {sorted(channels)} channels"
        )


def _warn_unknown(labels: Image, unknown: set[int]) -> None:
    """Warn of label values of the validation set alone."""
    if unknown:
        named = {one.value: one.name for one in numbering.names_of(labels)}
        what = "classes" if named else "label values"
        warnings.warn(
            f"not used for validation, since no training pixel has them: {what} "
            f"{', '.join(str(named.get(v, v)) for v in sorted(unknown))} of the validation images",
            TrainingWarning,
            stacklevel=5,
        )


def _counted(
    found: Sequence[tuple[int, Tile]], tables: Sequence[Mapping[int, int]], classes: Sequence[Class]
) -> tuple[list[LabeledTile], Counts]:
    """The tiles that have labeled pixels, and how many of each class."""
    tiles: list[LabeledTile] = []
    counts: Counts = {}
    for (number, tile), table in zip(found, tables, strict=True):
        count = tuple(sum(table.get(v, 0) for v in one.values) for one in classes)
        if any(count):
            tiles.append(LabeledTile(number, tile))
            counts[number, tile.index] = count
    return tiles, counts


def _split(
    data: Data, tiles: Sequence[LabeledTile], classes: Sequence[Class], counts: Counts
) -> tuple[list[LabeledTile], list[LabeledTile]]:
    """Training and validation tiles."""
    training = [one for one in tiles if one.example < len(data.training)]
    validation = [one for one in tiles if one.example >= len(data.training)]
    if data.validation and not validation:
        raise InputError("expected labeled pixels in the validation images, got none")
    if not data.validation and len(training) < 2:
        raise InputError(
            "expected labels in two tiles or more, to learn from some and judge by others, got "
            f"{len(training)}; give validation images"
        )
    if not data.validation:
        _check_sides(training, classes, counts)
    else:
        absent = _absent(classes, counts, validation)
        if absent:
            warnings.warn(f"no validation pixel is of {absent}", TrainingWarning, stacklevel=4)
    return training, validation


def _check_sides(tiles: Sequence[LabeledTile], classes: Sequence[Class], counts: Counts) -> None:
    """Refuse labels of which neither half has all classes, and warn where one half has not."""
    found, _ = rounds.rounds(tiles, (), rounds.folds(tiles))
    table = np.array([counts[one.example, one.tile.index] for one in tiles])
    missing = [(table[one.training].sum(axis=0) == 0) for one in found]
    lone = ", ".join(c.name for c, *m in zip(classes, *missing, strict=True) if any(m))
    if all(m.any() for m in missing):
        raise InputError(
            "expected labeled pixels of each class in two blocks or more, to learn from some and "
            f"judge by others, got {lone} in a single one; give validation images"
        )
    if lone:
        text = f"only one half of the images or blocks has labeled pixels of {lone}"
        warnings.warn(f"{text}: cross-validation says little of it", TrainingWarning, stacklevel=5)


def _weights(
    data: Data,
    recipe: Recipe,
    tiles: Sequence[LabeledTile],
    classes: Sequence[Class],
    counts: Counts,
) -> tuple[np.ndarray | None, list[str]]:
    """What a pixel of each class counts for biases, None to fit none; and a line on why."""
    count = np.sum([counts[one.example, one.tile.index] for one in tiles], axis=0)
    priors, lines = recipe.priors, []
    if priors is None:
        share = count.sum() / sum(math.prod(e.image.grid) for e in data.training)
        priors = "labels" if share >= DENSE else "none"
        if priors == "none":
            lines.append(
                f"no biases: {100 * share:.2g} % of the pixels are labeled, which does not say "
                "how often a class occurs (`priors` may)"
            )
    if isinstance(priors, str):
        return (np.ones(len(classes)) if priors == "labels" else None), lines
    if len(priors) != len(classes):
        raise InputError(f"expected priors of {len(classes)} classes, got {len(priors)}")
    return np.array(priors) / sum(priors) * count.sum() / count, lines


def _boundary(recipe: Recipe, classes: Sequence[Class], weights: np.ndarray | None) -> int | None:
    """Number of the recipe's class between others, from 0."""
    if recipe.boundary is None:
        return None
    names = [c.name for c in classes]
    if recipe.boundary not in names:
        known = ", ".join(names)
        raise InputError(f"boundary: expected a class of {known}, got {recipe.boundary!r}")
    if weights is None:
        raise InputError(
            "boundary: expected images that are labeled throughout, or `priors`, since pieces are "
            "compared as wholes; got labels of fewer pixels"
        )
    return names.index(recipe.boundary)


def _absent(classes: Sequence[Class], counts: Counts, tiles: Sequence[LabeledTile]) -> str:
    """Names of the classes without a pixel in these tiles."""
    total = np.sum([counts[one.example, one.tile.index] for one in tiles], axis=0)
    return ", ".join(c.name for c, n in zip(classes, total, strict=True) if n == 0)


def _print(data: Data, recipe: Recipe, flow: FlowSettings, features: Features) -> dict[str, Any]:
    """All that a training depends on, as JSON."""
    asked = dataclasses.asdict(dataclasses.replace(recipe, start=None))
    settings = {k: v for k, v in asked.items() if k not in ("features", "device", "start")}
    if recipe.start is not None:
        settings["from"] = recipe.start.fingerprint()
    # which earlier releases did not know
    for key, usual in (
        *(("priors", None), ("flow", "auto"), ("boundary", None)),
        *(("network_minutes", networks.MINUTES), ("network_steps", None)),
    ):
        if settings[key] == usual:
            del settings[key]
    settings["prototypes"] = settings.pop("predictor_size")  # its name in checkpoints and models
    return {
        **fingerprints.plain(settings),
        "term": described(data.term),
        "classes": [[c.name, list(c.values)] for c in flow.classes],
        "features": features.to_list(),
        **{
            f"{what} {part}": [image_state(getattr(e, part)) for e in group]
            for what, part, group in _inputs(data)
        },
    }


def _inputs(data: Data) -> Iterator[tuple[str, str, Sequence[Example]]]:
    for what, group in (("training", data.training), ("validation", data.validation)):
        for part in ("image", "labels", "probabilities", "mask"):
            yield what, part, group


def changed_inputs(data: Data, print_: Mapping[str, Any]) -> list[str]:
    """Files of the examples that are no longer as the print of a training says."""
    return [
        getattr(e, part).path
        for what, part, group in _inputs(data)
        for e, state in zip(group, print_[f"{what} {part}"], strict=True)
        if image_state(getattr(e, part)) != state
    ]


def image_state(image: Any) -> str:
    """Fingerprint of an image's files and of what is read of them; "" for no image."""
    if image is None:
        return ""
    if not image.reader.stored:
        return "memory"
    state = {"state": image.state(), "channels": image.channels, "axes": image.axes}
    if image.level or "/" in image.name or image.grid != image.whole:
        state["part"] = [image.name, image.grid]
    if image.measured:
        state["pixel size"] = image.scale
    if any(image.shape[image.axes.index(axis)] > 1 for axis, _ in image.fixed):
        state["fixed"] = image.fixed
    if image.no_data is not None:
        state["no_data"] = f"{image.no_data:.17g}"
    if image.gain is not None:
        state["intensity_scale"] = f"{image.gain:.17g}"
    return fingerprints.fingerprint(state)[:16]
