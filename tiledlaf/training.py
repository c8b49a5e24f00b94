"""Learn a predictor of weights from labeled images: steps, validation, restarts."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time as clock
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import examples, fitting, lessons, losses, model, output, predictor, stencil
from .cluster import Pool
from .dataterm import Classified, DataTerm, Probabilities
from .examples import Example
from .features import CONTEXT, PATCH, Features
from .flow import check_time
from .gradient import Polynomials
from .lessons import Course, Lot, Reading
from .model import Model
from .optimizers import Adam, Moments
from .predictor import Predictor
from .tiles import Grid

RATES = {"patches": 0.15, "prototypes": 0.03, "sigma": 0.01}
SAMPLES = 60_000  # pixels for the first prototypes
JUDGED = 400_000  # validation pixels that the biases are fitted to
BATCH = 8  # tiles of a step at most
LEAST = 6  # tiles that few images are cut into, so that a block can be set aside
EVERY = 10  # steps between validations
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
    loss : cosine, pixel-cosine or cross-entropy
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
    loss: str = "cosine"
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
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"expected a seed of 0 to {2**32 - 1}, got {self.seed}")
        if not (self.rho > 0 and math.isfinite(self.rho)):
            raise ValueError(f"rho must be a positive number, got {self.rho}")


@dataclass(frozen=True)
class Data:
    """What to learn from, and which data term.

    Attributes
    ----------
    training, validation : examples; without validation a block of the training tiles is set aside
    term : "means", "classifier", "probabilities", or prototypes as rows
    names, ignore : as for `examples.classes`
    """

    training: Sequence[Example]
    validation: Sequence[Example] = ()
    term: Any = "means"
    names: Mapping[str, str] | None = None
    ignore: int | None = None


@dataclass(frozen=True)
class State:
    """A training between two steps; all that a checkpoint must know."""

    step: int
    predictor: Predictor
    moments: Moments
    best: Predictor
    bias: np.ndarray
    error: float
    stale: int
    seconds: float
    history: list[dict[str, Any]]


def train(
    data: Data,
    recipe: Recipe,
    pool: Pool,
    path: str | os.PathLike[str] | None = None,
    *,
    limit: float | None = None,
    progress: Progress | None = None,
) -> Model:
    """Learn a model.

    Parameters
    ----------
    path : where checkpoints go (PATH.checkpoint) and the model; None: nowhere
    limit : minutes, after which the best state so far is the model
    progress : gets a dictionary after each stage and step

    Raises
    ------
    ValueError
        If the examples cannot be learned from; says what was expected and what came.
    """
    say = progress or (lambda record: None)
    if limit is not None and not limit >= 0:
        raise ValueError(f"expected a limit of 0 minutes or more, got {limit}")
    started = clock.perf_counter()
    data = dataclasses.replace(
        data, training=[e.anywhere() for e in data.training],
        validation=[e.anywhere() for e in data.validation],
    )  # fmt: skip
    ready = _prepare(data, recipe, pool)
    held = _Checkpoint(path, ready.print)
    if held.finished is not None:
        say({"stage": "finished before"})
        return held.finished
    terms = held.terms() or _terms(data, recipe, ready, pool, say)
    held.keep_terms(terms)
    say({"stage": "reading tiles"})
    course = ready.course
    reading = Reading(course, (*data.training, *data.validation), tuple(terms), ready.features)
    handles = pool.hold(lessons.read, reading, ready.lots)
    judges = pool.hold(lessons.read, reading, ready.judges)
    labeled = [sum(ready.counts[lot.example, lot.tile.index]) for lot in ready.judges]
    stride = max(1, sum(labeled) // JUDGED)
    state = held.state(ready.features)
    if state is None:
        uniform = _validate(pool, course, None, judges, stride)
        say({"stage": "uniform weights", "validation": uniform[1]})
        first = _first(pool, course, ready, handles, recipe)
        loss, error, bias = _validate(pool, course, first, judges, stride)
        state = State(
            0, first, Adam(RATES).init(first.parameters), first, bias, error, 0, 0.0,
            [{"step": 0, "uniform": uniform[1], "loss": loss, "validation": error}],
        )  # fmt: skip
    before, adam = state.seconds, Adam(RATES)
    while state.step < recipe.steps and state.stale < recipe.patience:
        seconds = before + clock.perf_counter() - started
        if limit is not None and seconds > 60 * limit:
            say({"stage": "time limit"})
            break
        chosen = _batch(ready.batches, state.step, recipe.seed)
        key = (held.run, state.step)
        sums, gradients = _step(pool, course, state.predictor, state.bias, chosen, handles, key)
        loss = _value(course, sums[:-2])
        finite = np.isfinite(loss) and all(np.isfinite(g).all() for g in gradients.values())
        if finite:
            factor = _decay(state.step, recipe.steps)
            with np.errstate(over="ignore"):
                moved, moments = adam.update(
                    gradients, state.moments, state.predictor.parameters, factor
                )
                weights = state.predictor.moved(moved)
            finite = weights.finite
        found = None
        if finite and ((state.step + 1) % EVERY == 0 or state.step + 1 == recipe.steps):
            found = _validate(pool, course, weights, judges, stride)
            finite = np.isfinite(found[0])
        if not finite:
            warnings.warn(
                f"the loss is no longer finite at step {state.step + 1}: "
                "the best state before is kept", TrainingWarning, stacklevel=2,
            )  # fmt: skip
            break
        state = dataclasses.replace(
            state, step=state.step + 1, predictor=weights, moments=moments, seconds=seconds
        )
        record: dict[str, Any] = {
            "step": state.step, "steps": recipe.steps, "loss": loss,
            "training": float(sums[-2] / sums[-1]),
        }  # fmt: skip
        if found is not None:
            state = _judged(state, found, record)
            record["validation"] = state.history[-1]["validation"]
            held.keep(state)
        say(record | {"best": state.error, "seconds": seconds})
    result = _model(state, data, recipe, ready, terms[-1])
    held.finish(result)
    return result


@dataclass(frozen=True)
class _Ready:
    """Examples cut into tiles, with their classes."""

    course: Course
    features: Features
    lots: list[Lot]
    judges: list[Lot]
    batches: list[list[int]]
    folds: list[int]
    counts: Mapping[tuple[int, tuple[int, ...]], tuple[int, ...]]  # a class
    print: Mapping[str, Any]


def _prepare(data: Data, recipe: Recipe, pool: Pool) -> _Ready:
    """Check, find the classes, and cut the labeled parts into tiles."""
    if not data.training:
        raise ValueError("expected images to learn from, got none")
    ndims = {len(e.image.grid) for e in (*data.training, *data.validation)}
    channels = {
        len(e.image.channels or range(e.image.stored_channels))
        for e in (*data.training, *data.validation)
    }
    if len(ndims) > 1 or len(channels) > 1:
        raise ValueError(
            f"expected images with one number of axes and channels, got {sorted(ndims)} axes "
            f"and {sorted(channels)} channels"
        )
    given = data.term in ("classifier", "probabilities") if isinstance(data.term, str) else False
    ndim = ndims.pop()
    shape = recipe.neighborhood or ("rings:3,7" if given else "3x3")
    offsets = stencil.parse(shape, ndim) if isinstance(shape, str) else stencil.fit(shape, ndim)
    time = recipe.time if recipe.time is not None else 1.0 if given else 3.0
    check_time(time)
    features = recipe.features or (CONTEXT if given else PATCH)
    everything = (*data.training, *data.validation)
    few = len(data.training) * 2 < LEAST
    least = -(-LEAST // len(data.training)) if few else 2
    way, loss = Polynomials(recipe.tol), losses.make(recipe.loss)
    halo = tuple(way.degree(time) * r for r in stencil.radius(offsets))
    found = [
        (number, tile)
        for number, e in enumerate(everything)
        for tile in _grid(e.image.grid, halo, least)
    ]
    tables = fitting.in_order(
        pool, fitting.label_values, everything, [(number, tile.core) for number, tile in found]
    )
    values = sorted({v for (n, _), t in zip(found, tables, strict=True)
                     if n < len(data.training) for v in t})  # fmt: skip
    classes = examples.classes(values, data.names, data.ignore)
    course = Course(classes, offsets, recipe.rho, time, way, loss, recipe.device)
    counts, lots = {}, []
    for (number, tile), table in zip(found, tables, strict=True):
        count = tuple(sum(table.get(v, 0) for v in one.values) for one in classes)
        if any(count):
            counts[number, tile.index] = count
            lots.append(Lot(number, tile))
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
    return _Ready(
        course, features, training, judges, _batches(training), folds, counts,
        _print(data, recipe, course, features),
    )  # fmt: skip


def _absent(
    classes: Sequence[examples.Class], counts: Mapping[Any, Sequence[int]], lots: Sequence[Lot]
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


def _set_aside(lots: list[Lot], given: Sequence[Example]) -> tuple[list[Lot], list[Lot]]:
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


def _folds(lots: Sequence[Lot]) -> list[int]:
    """Blocks of images that resemble each other, or of tiles where there are few images."""
    numbers = sorted({lot.example for lot in lots})
    units = [numbers.index(lot.example) for lot in lots]
    if len(numbers) < fitting.FOLDS:
        units = list(range(len(lots)))
    count = min(fitting.FOLDS, max(units) + 1)
    return [unit * count // (max(units) + 1) for unit in units]


def _batches(lots: Sequence[Lot]) -> list[list[int]]:
    """Tiles of one image, at most `BATCH` of them."""
    found: dict[int, list[int]] = {}
    for number, lot in enumerate(lots):
        found.setdefault(lot.example, []).append(number)
    return [
        numbers[i : i + BATCH] for numbers in found.values() for i in range(0, len(numbers), BATCH)
    ]


def _batch(batches: Sequence[list[int]], step: int, seed: int) -> list[int]:
    """The batch of a step: all of them in turn, in another order each time."""
    epoch, place = divmod(step, len(batches))
    return batches[np.random.default_rng([seed, epoch]).permutation(len(batches))[place]]


def _decay(step: int, steps: int) -> float:
    """From 1 to 0.1 along a cosine."""
    return 0.55 + 0.45 * math.cos(math.pi * step / steps)


def _terms(data: Data, recipe: Recipe, ready: _Ready, pool: Pool, say: Progress) -> list[DataTerm]:
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


def _first(
    pool: Pool, course: Course, ready: _Ready, handles: Sequence[Any], recipe: Recipe
) -> Predictor:
    """The predictor to start from."""
    share = -(-SAMPLES // len(handles))
    parts = pool.each(
        lessons.sample, (course, share, recipe.seed),
        [(handle, number) for number, handle in enumerate(handles)],
    )  # fmt: skip
    rows, same, known = (np.concatenate(part) for part in zip(*parts, strict=True))
    return predictor.initial(ready.features, rows, same, known, recipe.prototypes, recipe.seed)


def _step(
    pool: Pool, course: Course, weights: Predictor, bias: np.ndarray, chosen: Sequence[int],
    handles: Sequence[Any], key: Any,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:  # fmt: skip
    """Sums of a batch's loss, and its gradient; none where the sums are not finite."""
    batch = [handles[i] for i in chosen]
    sums = tree_sum(pool.each(lessons.judge, (course, weights, bias, key), batch))
    if not np.isfinite(sums).all():
        return sums, {}
    parts = pool.each(lessons.learn, (course, weights, sums[:-2], key), batch)
    return sums, {k: tree_sum([part[k] for part in parts]) for k in parts[0]}


def tree_sum(parts: Sequence[Any]) -> Any:
    """Sum of neighbors, then of their sums: an order that no worker changes."""
    while len(parts) > 1:
        parts = [sum(parts[i : i + 2]) for i in range(0, len(parts), 2)]
    return parts[0]


def _validate(
    pool: Pool, course: Course, weights: Predictor | None, judges: Sequence[Any], stride: int
) -> tuple[float, float, np.ndarray]:
    """Loss, error with the best biases, and those; a loss of NaN alone where it is not finite."""
    parts = pool.each(lessons.scores, (course, weights, stride), judges)
    loss = _value(course, tree_sum([sums for sums, _, _ in parts]))
    if not np.isfinite(loss):
        return loss, 1.0, np.zeros(len(course.classes))
    rows = np.concatenate([rows for _, rows, _ in parts])
    labels = np.concatenate([labels for _, _, labels in parts])
    bias, error = fit_bias(rows, labels)
    return loss, error, bias


def _value(course: Course, sums: np.ndarray) -> float:
    """The loss, NaN where its sums are not finite."""
    return course.loss.value(sums) if np.isfinite(sums).all() else math.nan


def fit_bias(scores: np.ndarray, labels: np.ndarray, rounds: int = 3) -> tuple[np.ndarray, float]:
    """Biases that, added to the scores, make the fewest errors: one class after the other.

    Parameters
    ----------
    scores : (n, J)
    labels : (n,) from 0

    Returns
    -------
    bias : (J,), mean 0
    error : share of wrong labels
    """
    rows = scores.astype(np.float64)
    count = rows.shape[1]
    bias = np.zeros(count)
    for _ in range(1 if count == 2 else rounds):
        for j in range(1 if count == 2 else 0, count):
            others = rows + bias
            others[:, j] = -np.inf
            rival = others.max(axis=1)
            # from this bias on the pixel is given to class j
            turn = rival - rows[:, j]
            gain = np.where(labels == j, -1, 1) * (
                (labels == j) | (others.argmax(axis=1) == labels)
            )
            order = np.argsort(turn, kind="stable")
            wrong = np.concatenate([[0], np.cumsum(gain[order])])
            sorted_turn = turn[order]
            ends = np.concatenate([[sorted_turn[0] - 1], sorted_turn, [sorted_turn[-1] + 1]])
            middle = (ends[:-1] + ends[1:]) / 2
            # only between different values a bias can lie
            apart = np.concatenate([[True], sorted_turn[1:] > sorted_turn[:-1], [True]])
            wrong = np.where(apart, wrong, len(labels) + 1)
            best = np.flatnonzero(wrong == wrong.min())
            bias[j] = middle[best[np.abs(middle[best] - bias[j]).argmin()]]
    bias -= bias.mean()
    error = float(((rows + bias).argmax(axis=1) != labels).mean())
    return bias, error


def _judged(
    state: State, found: tuple[float, float, np.ndarray], record: Mapping[str, Any]
) -> State:
    loss, error, bias = found
    history = [
        *state.history,
        {"step": state.step, "loss": loss, "validation": error, "training": record["training"]},
    ]
    if error < state.error:
        return dataclasses.replace(
            state, best=state.predictor, bias=bias, error=error, stale=0, history=history
        )
    return dataclasses.replace(state, stale=state.stale + 1, history=history)


def _model(state: State, data: Data, recipe: Recipe, ready: _Ready, term: DataTerm) -> Model:
    course, image = ready.course, data.training[0].image
    trained = {
        "images": [Path(e.image.path).name for e in data.training],
        "validation": [Path(e.image.path).name for e in data.validation],
        "seed": recipe.seed,
        "steps": state.step,
        "error": state.error,
        "loss": recipe.loss,
        "history": state.history,
    }
    return Model(
        course.classes, term, course.offsets, course.rho, course.time, recipe.tol,
        len(image.channels or range(image.stored_channels)), state.best,
        tuple(map(float, state.bias)), trained,
    )  # fmt: skip


def _print(data: Data, recipe: Recipe, course: Course, features: Features) -> dict[str, Any]:
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
    if image.source == "memory":
        return "memory"
    state = {"state": image.state(), "channels": image.channels, "axes": image.axes}
    return output.fingerprint(state)[:16]


class _Checkpoint:
    """What an earlier start left beside the model, and what this one leaves."""

    def __init__(self, path: str | os.PathLike[str] | None, print_: Mapping[str, Any]) -> None:
        self.path = None if path is None else Path(path)
        self.print = dict(print_)
        self.run = output.fingerprint(self.print)
        self.finished: Model | None = None
        self._held: dict[str, np.ndarray] = {}
        self._terms: list[DataTerm] = []
        if self.path is None:
            return
        if self.path.is_dir() or not self.path.absolute().parent.is_dir():
            raise ValueError(f"{self.path}: expected a file in a folder that exists")
        if self.path.exists():
            found = model.load(self.path)
            self._same(found.trained.get("print", {}), self.path)
            self.finished = found
            self.file.unlink(missing_ok=True)  # of a training cut just after its model was written
        elif self.file.exists():
            with self._complete():
                self._held = model.read_arrays(self.file, "checkpoint")
                held = json.loads(str(self._held["print"]))
            self._same(held, self.file)

    @property
    def file(self) -> Path:
        assert self.path is not None
        return self.path.with_name(self.path.name + ".checkpoint")

    def _same(self, held: Mapping[str, Any], path: Path) -> None:
        output.refuse_difference(
            f"{path} is of another training", held, self.print, "choose another MODEL or remove it"
        )

    @contextmanager
    def _complete(self) -> Iterator[None]:
        """Say what to do about a checkpoint that is damaged."""
        try:
            yield
        except KeyError as error:
            raise ValueError(
                f"{self.file}: expected a complete checkpoint, no {error} (remove it to start anew)"
            ) from None
        except ValueError as error:
            raise ValueError(f"{error} (remove it to start anew)") from None

    def terms(self) -> list[DataTerm]:
        held = self._held
        with self._complete():
            return [
                model.term_from(
                    json.loads(str(held[f"term{i}"])),
                    {k.split("/", 1)[1]: v for k, v in held.items() if k.startswith(f"term{i}/")},
                )
                for i in range(int(held.get("terms", 0)))
            ]

    def keep_terms(self, terms: list[DataTerm]) -> None:
        self._terms = terms
        if self.path is not None and not self._held and isinstance(terms[0], Classified):
            model.write_arrays(self.file, self._entries())

    def _entries(self) -> dict[str, np.ndarray]:
        found = {"print": np.array(json.dumps(self.print)), "terms": np.array(len(self._terms))}
        for i, term in enumerate(self._terms):
            entry, arrays = model.term_parts(term)
            found[f"term{i}"] = np.array(json.dumps(entry))
            found |= {f"term{i}/{k}": v for k, v in arrays.items()}
        return found

    def state(self, features: Features) -> State | None:
        held = self._held
        if "state" not in held:
            return None
        about = json.loads(str(held["state"]))

        def group(name: str) -> dict[str, np.ndarray]:
            return {k.split("/")[1]: v for k, v in held.items() if k.startswith(f"{name}/")}

        def known(name: str) -> Predictor:
            base = Predictor(
                features, held["mean"], held["scale"], group(name)["prototypes"],
                group(name)["patches"],
            )  # fmt: skip
            return dataclasses.replace(base, sigma=about[name])

        with self._complete():
            return State(
                about["step"], known("now"),
                Moments(about["step"], group("first"), group("second")), known("best"),
                held["bias"], about["error"], about["stale"], about["seconds"], about["history"],
            )  # fmt: skip

    def keep(self, state: State) -> None:
        """Write a checkpoint."""
        if self.path is None:
            return
        about = {
            "step": state.step, "error": state.error, "stale": state.stale,
            "seconds": state.seconds, "history": state.history,
            "now": state.predictor.sigma, "best": state.best.sigma,
        }  # fmt: skip
        found = self._entries() | {
            "state": np.array(json.dumps(about)), "bias": state.bias,
            "mean": state.predictor.mean, "scale": state.predictor.scale,
        }  # fmt: skip
        for name, arrays in (
            ("now", state.predictor.parameters), ("best", state.best.parameters),
            ("first", state.moments.first), ("second", state.moments.second),
        ):  # fmt: skip
            found |= {f"{name}/{k}": v for k, v in arrays.items()}
        model.write_arrays(self.file, found)

    def finish(self, found: Model) -> None:
        """Write the model, and drop the checkpoint."""
        if self.path is None:
            return
        trained = dict(found.trained) | {"print": self.print}
        dataclasses.replace(found, trained=trained).save(self.path)
        self.file.unlink(missing_ok=True)
