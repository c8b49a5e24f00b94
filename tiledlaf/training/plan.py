"""What a training is to do: its recipe, its data, and how they are cut into tiles and batches."""

from __future__ import annotations

import dataclasses
import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..files import fingerprints
from ..flow import losses, stencil
from ..flow.gradient import Polynomials
from ..flow.linear import check_positive, check_time
from ..flow.optimizers import Adam, AdaMax
from ..model.classes import Class, find_classes
from ..model.features import CONTEXT, PATCH, Features
from ..model.terms import DataTerm, Probabilities
from ..pool import tasks
from ..pool.opening import find_device
from ..pool.tasks import Pool
from ..tiles import Grid
from . import terms as fitting
from .examples import Example
from .worker import FlowSettings, LabeledTile

OPTIMIZERS = {"adam": Adam, "adamax": AdaMax}
BATCH = 8  # tiles of a step at most
LEAST = 6  # tiles that few images are cut into, so that a block can be set aside
Progress = Callable[[Mapping[str, Any]], None]


class TrainingWarning(UserWarning):
    """Something about the examples that a person should know."""


@dataclass(frozen=True)
class Recipe:
    """How to learn.

    Attributes
    ----------
    neighborhood : str or offsets; None: ``rings:3,7`` with probabilities, else ``3x3``
    time, rho, tol : of the flow; time None: 1 with probabilities, else 3
    loss : cosine, pixel-cosine, cross-entropy, or a loss of `losses`
    optimizer : adam or adamax
    features : of the predictor; None: CONTEXT with probabilities, else PATCH
    prototypes : of the predictor (N)
    steps : at most
    patience : validations without a better state before it stops
    seed : of batches, samples and k-means
    """

    neighborhood: Any = None
    time: float | None = None
    rho: float = 1.0
    tol: float = 1e-3
    loss: Any = "cosine"
    optimizer: str = "adam"
    features: Features | None = None
    prototypes: int = 100
    steps: int = 300
    patience: int = 10
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("prototypes", "steps", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"expected 1 or more {name}, got {getattr(self, name)}")
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer must be adam or adamax, got {self.optimizer!r}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"expected a seed of 0 to {2**32 - 1}, got {self.seed}")
        check_positive(rho=self.rho)


@dataclass(frozen=True)
class Data:
    """What to learn from, and which data term.

    Attributes
    ----------
    training, validation : examples; without validation a block of the training tiles is set aside
    term : "means", "classifier", "probabilities", or prototypes as rows
    names, ignore : as for `model.classes.find_classes`
    """

    training: Sequence[Example]
    validation: Sequence[Example] = ()
    term: Any = "means"
    names: Mapping[str, str] | None = None
    ignore: int | None = None


@dataclass(frozen=True)
class TrainingPlan:
    """Examples cut into tiles, with their classes.

    Attributes
    ----------
    lots, judges : tiles to learn from, and to choose the best state by
    batches : numbers of lots that make a step
    folds : block of images of each lot, which its classifier has not seen
    counts : labeled pixels of each class of a tile
    print : what the training depends on, as JSON
    """

    course: FlowSettings
    features: Features
    lots: list[LabeledTile]
    judges: list[LabeledTile]
    batches: list[list[int]]
    folds: list[int]
    counts: Mapping[tuple[int, tuple[int, ...]], tuple[int, ...]]
    print: Mapping[str, Any]


def make_plan(data: Data, recipe: Recipe, pool: Pool) -> TrainingPlan:
    """Check, find the classes, and cut the labeled parts into tiles."""
    if not data.training:
        raise ValueError("expected images to learn from, got none")
    find_device(recipe.device, pool)
    ndims = {len(e.image.grid) for e in (*data.training, *data.validation)}
    channels = {e.image.used_channels for e in (*data.training, *data.validation)}
    if len(ndims) > 1 or len(channels) > 1:
        raise ValueError(
            f"expected images with one number of axes and channels, got {sorted(ndims)} axes "
            f"and {sorted(channels)} channels"
        )
    given = data.term in ("classifier", "probabilities") if isinstance(data.term, str) else False
    ndim = ndims.pop()
    shape = recipe.neighborhood or ("rings:3,7" if given else "3x3")
    offsets = stencil.choose(shape, ndim)
    time = recipe.time if recipe.time is not None else 1.0 if given else 3.0
    check_time(time)
    features = recipe.features or (CONTEXT if given else PATCH)
    everything = (*data.training, *data.validation)
    few = len(data.training) * 2 < LEAST
    least = -(-LEAST // len(data.training)) if few else 2
    way = Polynomials(recipe.tol)
    loss = losses.make(recipe.loss) if isinstance(recipe.loss, str) else recipe.loss
    halo = tuple(way.degree(time) * r for r in stencil.radius(offsets))
    found = [
        (number, tile)
        for number, e in enumerate(everything)
        for tile in _grid(e.image.grid, halo, least)
    ]
    tables = tasks.in_order(
        pool, fitting.label_values, everything, [(number, tile.core) for number, tile in found]
    )
    values, others = (
        {
            v
            for (n, _), t in zip(found, tables, strict=True)
            if (n < len(data.training)) is own
            for v in t
        }
        for own in (True, False)
    )
    classes = find_classes(sorted(values), data.names, data.ignore)
    known = {v for one in classes for v in one.values} | {data.ignore}
    if others - known:
        warnings.warn(
            "not judged, since no training pixel has them: label values "
            f"{', '.join(map(str, sorted(others - known)))} of the validation images",
            TrainingWarning,
            stacklevel=3,
        )
    if isinstance(loss, losses.PixelCosine) and len(classes) < 3:
        raise ValueError("the cosine of each pixel needs 3 labels or more, got 2")
    course = FlowSettings(classes, offsets, recipe.rho, time, way, loss, recipe.device)
    counts, lots = {}, []
    for (number, tile), table in zip(found, tables, strict=True):
        count = tuple(sum(table.get(v, 0) for v in one.values) for one in classes)
        if any(count):
            counts[number, tile.index] = count
            lots.append(LabeledTile(number, tile))
    training = [lot for lot in lots if lot.example < len(data.training)]
    judges = [lot for lot in lots if lot.example >= len(data.training)]
    if not data.validation:
        training, judges = _set_aside(training, data.training)
        absent = _absent(classes, counts, training)
        if absent:
            raise ValueError(
                f"expected labeled pixels of each class outside the block that is set aside, got "
                f"none of {absent}; name validation images"
            )
    elif not judges:
        raise ValueError("expected labeled pixels in the validation images, got none")
    absent = _absent(classes, counts, judges)
    if absent:
        where = "validation pixel" if data.validation else "pixel of the block that is set aside"
        warnings.warn(f"no {where} is of {absent}", TrainingWarning, stacklevel=3)
    folds = _folds(training)
    last = max(folds) + 1
    is_split = data.term == "classifier" if isinstance(data.term, str) else False
    training = [
        dataclasses.replace(lot, fold=fold if is_split else 0)
        for lot, fold in zip(training, folds, strict=True)
    ]
    judges = [dataclasses.replace(lot, fold=last if is_split else 0) for lot in judges]
    return TrainingPlan(
        course,
        features,
        training,
        judges,
        _batches(training),
        folds,
        counts,
        _print(data, recipe, course, features),
    )


def _absent(
    classes: Sequence[Class],
    counts: Mapping[Any, Sequence[int]],
    lots: Sequence[LabeledTile],
) -> str:
    """Names of the classes that no pixel of these tiles is of."""
    total = np.sum([counts[lot.example, lot.tile.index] for lot in lots], axis=0)
    return ", ".join(c.name for c, n in zip(classes, total, strict=True) if n == 0)


def _grid(size: Sequence[int], halo: Sequence[int], least: int) -> Grid:
    """Tiles of 512 x 1024 at most, `least` of them at least, so that workers share an image."""
    # none narrower than 16 pixels, the last one neither
    rows = max(min(least, size[-2] // 16), math.ceil(size[-2] / 512))
    edge = math.ceil(size[-2] / rows)
    columns = math.ceil(size[-1] / math.ceil(size[-1] / 1024))
    planes = (1 if halo[0] == 0 else 32,) if len(size) == 3 else ()
    zero = (0,) * len(size)
    return Grid(tuple(size), zero, tuple(size), (*planes, edge, columns), tuple(halo))


def _set_aside(
    lots: list[LabeledTile], given: Sequence[Example]
) -> tuple[list[LabeledTile], list[LabeledTile]]:
    """The last images, or the last tiles of a few images, a fifth of them."""
    if len(given) >= 5:
        first = len(given) - max(1, len(given) // 5)
        kept = [lot for lot in lots if lot.example < first]
    else:
        kept = lots[: len(lots) - max(1, len(lots) // 5)]
    if not kept or len(kept) == len(lots):
        raise ValueError(
            f"expected labels in two tiles or more, to set one aside, got {len(lots)}; "
            "name validation images"
        )
    return kept, lots[len(kept) :]


def _folds(lots: Sequence[LabeledTile]) -> list[int]:
    """Blocks of images that resemble each other, or of tiles where there are few images."""
    numbers = sorted({lot.example for lot in lots})
    units = [numbers.index(lot.example) for lot in lots]
    if len(numbers) < fitting.FOLDS:
        units = list(range(len(lots)))
    count = min(fitting.FOLDS, max(units) + 1)
    return [unit * count // (max(units) + 1) for unit in units]


def _batches(lots: Sequence[LabeledTile]) -> list[list[int]]:
    """Tiles of one image, at most `BATCH` of them."""
    found: dict[int, list[int]] = {}
    for number, lot in enumerate(lots):
        found.setdefault(lot.example, []).append(number)
    return [
        numbers[i : i + BATCH] for numbers in found.values() for i in range(0, len(numbers), BATCH)
    ]


def terms(
    data: Data, recipe: Recipe, ready: TrainingPlan, pool: Pool, say: Progress
) -> list[DataTerm]:
    """The data term, or one a fold and the last for all."""
    everything = (*data.training, *data.validation)
    source = fitting.Source(everything, ready.course.classes)
    count = len(ready.course.classes)
    if not isinstance(data.term, str):
        rows = np.asarray(data.term, np.float64)
        if len(rows) != count:
            raise ValueError(f"expected prototypes of {count} classes, got {len(rows)}")
        return [fitting.scaled(pool, source, ready.lots, rows, recipe.seed)]
    if data.term == "means":
        return [fitting.class_means(pool, source, ready.lots, recipe.seed)]
    if data.term == "classifier":
        return list(
            fitting.out_of_fold(
                pool, source, ready.lots, ready.folds, recipe.seed, lambda t: say({"stage": t})
            )
        )
    for example in everything:
        given = example.probabilities
        if given is None:
            raise ValueError(f"{example.image.path}: expected probabilities of it, got none")
        if given.stored_channels != count:
            raise ValueError(
                f"{given.path}: expected probabilities of {count} classes, "
                f"got {given.stored_channels}"
            )
    return [Probabilities(count)]


def _print(data: Data, recipe: Recipe, course: FlowSettings, features: Features) -> dict[str, Any]:
    """What a training depends on."""
    settings = {
        k: v for k, v in dataclasses.asdict(recipe).items() if k not in ("features", "device")
    }
    found = {
        f"{what} {part}": [_state(getattr(e, part)) for e in group]
        for what, group in (("training", data.training), ("validation", data.validation))
        for part in ("image", "labels", "probabilities", "mask")
    }
    return {
        **json.loads(json.dumps(settings, default=list)),
        "term": data.term if isinstance(data.term, str) else np.asarray(data.term).tolist(),
        "classes": [[c.name, list(c.values)] for c in course.classes],
        "features": features.to_list(),
        **found,
    }


def _state(image: Any) -> str:
    if image is None:
        return ""
    if not image.reader.stored:
        return "memory"
    state = {"state": image.state(), "channels": image.channels, "axes": image.axes}
    return fingerprints.fingerprint(state)[:16]
