"""Learn a predictor of weights from labeled images: steps, validation, restarts."""

from __future__ import annotations

import dataclasses
import math
import os
import time as clock
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputChanged, InputError
from ..flow.optimizers import RATES, Adam
from ..model import calibration as calibrations
from ..model import predictor as predictors
from ..model.calibration import Calibration
from ..model.model import Images, Model
from ..model.predictor import Predictor
from ..model.terms import DataTerm
from ..pool import tasks
from ..pool.tasks import Pool, check_progress, tree_sum
from . import worker as training_worker
from .appearance import described
from .checkpoint import Checkpoint, State
from .examples import with_same_values
from .plan import (
    OPTIMIZERS,
    Data,
    Progress,
    Recipe,
    TrainingPlan,
    TrainingWarning,
    changed_inputs,
    make_plan,
)
from .terms import Fit, Source
from .worker import FlowSettings, Sums, TileReader

__all__ = ["Data", "Recipe", "TrainingWarning", "fit_bias", "train"]
SAMPLES = 60_000  # pixels for the first anchors
VALIDATED = 400_000  # validation pixels that the biases are fitted to
EVERY = 10  # steps between validations
CONFUSED = 64  # classes up to which a model keeps which ones validation confused


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
    path : where the model and its checkpoint (PATH.checkpoint) go; None: nowhere
    limit : minutes after which the best state so far becomes the model
    progress : called with a dictionary after each stage and step

    Raises
    ------
    ValueError
        If the examples cannot be learned from; says what was expected and what was given.

    Examples
    --------
    >>> import numpy as np, tiledlaf
    >>> truth = np.repeat([[1, 2]], 32, axis=1).repeat(64, axis=0)
    >>> image = 100 * truth + np.random.default_rng(0).normal(0, 20, truth.shape)
    >>> data = tiledlaf.Data(tiledlaf.pair(image, truth), names={"1": "dark", "2": "bright"})
    >>> with tiledlaf.open_pool(workers=1) as pool:
    ...     model = tiledlaf.train(data, tiledlaf.Recipe(steps=2, predictor_size=4), pool)
    >>> model.names
    ['dark', 'bright']
    """
    check_progress(progress)
    say = progress or (lambda record: None)
    if limit is not None and not limit >= 0:
        raise InputError(f"expected a limit of 0 minutes or more, got {limit}")
    started = clock.perf_counter()
    everything = (*data.training, *data.validation)
    examples = with_same_values([e.with_absolute_paths() for e in everything])
    count = len(data.training)
    data = dataclasses.replace(data, training=examples[:count], validation=examples[count:])
    plan = make_plan(data, recipe, pool, say)
    with Checkpoint(path, plan.print) as held:
        if held.finished is not None:
            say({"stage": "finished before"})
            return held.finished
        say({"labels": plan.about})
        result = _trained(data, recipe, plan, pool, held, say, started, limit)
        changed = changed_inputs(data, plan.print)
        if changed:
            held.discard()
            raise InputChanged(
                f"{changed[0]} changed during the training, so no model was written; give the "
                "same command again once it no longer changes"
            )
        tasks.retried(Checkpoint.finish, held, result)
    return result


def _trained(
    data: Data,
    recipe: Recipe,
    plan: TrainingPlan,
    pool: Pool,
    held: Checkpoint,
    say: Progress,
    started: float,
    limit: float | None,
) -> Model:
    """Learn terms and predictor, from where an earlier start has stopped."""
    examples = (*data.training, *data.validation)
    learned = described(data.training, plan.training, pool)
    terms = held.terms()
    if not terms:
        fit = Fit(
            pool,
            Source(tuple(examples), plan.flow.classes),
            plan.training,
            plan.folds,
            recipe.seed,
            lambda stage: say({"stage": stage}),
        )
        terms = plan.learner.fit(fit)
    tasks.retried(Checkpoint.keep_terms, held, terms)
    say({"stage": "reading tiles"})
    reader = TileReader(plan.flow, tuple(examples), tuple(terms), plan.features)
    labeled = [plan.counts[one.example, one.tile.index] for one in plan.validation]
    tiles = Tiles(
        pool,
        plan.flow,
        pool.persist(training_worker.read, reader, plan.training),
        pool.persist(training_worker.read, reader, plan.validation),
        max(1, sum(map(sum, labeled)) // VALIDATED),
    )
    channels = data.training[0].image.used_channels
    state = held.state(plan.features, plan.flow, channels) or _first(tiles, plan, recipe, say)
    state = _learn(tiles, plan, recipe, held, state, say, started, limit)
    return _model(state, data, recipe, plan, terms[-1], learned)


@dataclass(frozen=True)
class Tiles:
    """Tiles that were read and are held by the workers.

    Attributes
    ----------
    training, validation : one handle for each tile
    stride : biases are fitted to every `stride`-th validation pixel
    """

    pool: Pool
    flow: FlowSettings
    training: Sequence[Any]
    validation: Sequence[Any]
    stride: int

    def step(
        self, predictor: Predictor, bias: np.ndarray, chosen: Sequence[int], key: Any
    ) -> tuple[Sums, dict[str, np.ndarray]]:
        """Sums of a batch's loss, and its gradient, which is empty if the sums are not finite."""
        batch = [self.training[i] for i in chosen]
        argument = (self.flow, predictor, bias, key)
        sums = tree_sum(self.pool.map(training_worker.loss_sums, argument, batch))
        if not sums.finite:
            return sums, {}
        given = (self.flow, predictor, sums.loss, key)
        parts = self.pool.map(training_worker.parameter_gradient, given, batch)
        return sums, {k: tree_sum([part[k] for part in parts]) for k in parts[0]}

    def validate(self, predictor: Predictor | None) -> Validation:
        """Loss, and error with the best biases; or loss NaN and error 1 if it is not finite."""
        argument = (self.flow, predictor, self.stride)
        parts = self.pool.map(training_worker.validation_scores, argument, self.validation)
        loss = _value(self.flow, tree_sum([sums for sums, _, _ in parts]))
        if not np.isfinite(loss):
            return Validation(loss, 1.0, np.zeros(len(self.flow.classes)), None, None, None)
        rows = np.concatenate([rows for _, rows, _ in parts])
        labels = np.concatenate([labels for _, _, labels in parts])
        bias, error = fit_bias(rows, labels)
        scores = rows + bias
        return Validation(
            loss, error, bias, _confusion(scores, labels), *calibrations.of_scores(scores, labels)
        )


class Validation(NamedTuple):
    """Loss, share of wrong pixels with the best biases, those biases (J,), and the confusion.

    Then how the confidence of these pixels is calibrated, and how reliable it is.
    """

    loss: float
    error: float
    bias: np.ndarray
    confusion: list[list[int]] | None
    calibration: Calibration | None
    reliability: dict[str, Any] | None


def _confusion(scores: np.ndarray, labels: np.ndarray) -> list[list[int]] | None:
    """Pixels of each class (rows) by the class that they get; None for many classes."""
    classes = scores.shape[1]
    if classes > CONFUSED:
        return None
    pairs = classes * labels + scores.argmax(axis=1)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes).tolist()


def _first(tiles: Tiles, plan: TrainingPlan, recipe: Recipe, say: Progress) -> State:
    """The state to start from: k-means anchors, and what uniform weights reach."""
    uniform = tiles.validate(None)
    say({"stage": "uniform weights", "validation": uniform.error})
    share = -(-SAMPLES // len(tiles.training))
    parts = tiles.pool.map(
        training_worker.sample,
        (tiles.flow, share, recipe.seed),
        [(handle, number) for number, handle in enumerate(tiles.training)],
    )
    rows, same, known = (np.concatenate(part) for part in zip(*parts, strict=True))
    first = predictors.initial(plan.features, rows, same, known, recipe.predictor_size, recipe.seed)
    found = tiles.validate(first)
    history = {"step": 0, "uniform": uniform.error, "loss": found.loss, "validation": found.error}
    moments = Adam(RATES).init(first.parameters)
    return State(0, first, moments, first, found.bias, found.error, 0, 0.0, [history], *found[3:])


def _learn(
    tiles: Tiles,
    plan: TrainingPlan,
    recipe: Recipe,
    held: Checkpoint,
    state: State,
    say: Progress,
    started: float,
    limit: float | None,
) -> State:
    """Take steps until steps, patience or time is used up, or the loss is no longer finite."""
    before, optimizer = state.seconds, OPTIMIZERS[recipe.optimizer](RATES)
    while state.step < recipe.steps and state.stale < recipe.patience:
        seconds = before + clock.perf_counter() - started
        if limit is not None and seconds > 60 * limit:
            say({"stage": "time limit"})
            break
        chosen = _batch(plan.batches, state.step, recipe.seed)
        key = (held.run, state.step)
        sums, gradients = tiles.step(state.predictor, state.bias, chosen, key)
        loss = _value(tiles.flow, sums.loss)
        finite = np.isfinite(loss) and all(np.isfinite(g).all() for g in gradients.values())
        if finite:
            factor = _decay(state.step, recipe.steps)
            with np.errstate(over="ignore"):
                moved, moments = optimizer.update(
                    gradients, state.moments, state.predictor.parameters, factor
                )
                predictor = state.predictor.moved(moved)
            finite = predictor.finite
        found, last = None, state.step + 1 == recipe.steps
        if finite and ((state.step + 1) % EVERY == 0 or last):
            found = tiles.validate(predictor)
            finite = np.isfinite(found.loss)
        if not finite:
            warnings.warn(
                f"the loss is no longer finite at step {state.step + 1}: "
                "the best state so far is kept",
                TrainingWarning,
                stacklevel=3,
            )
            break
        state = dataclasses.replace(
            state, step=state.step + 1, predictor=predictor, moments=moments, seconds=seconds
        )
        record: dict[str, Any] = {
            "step": state.step,
            "steps": recipe.steps,
            "loss": loss,
            "training": sums.error,
        }
        if found is not None:
            state = _validated(state, found, record)
            record["validation"] = state.history[-1]["validation"]
            tasks.retried(Checkpoint.keep, held, state)
        say(record | {"best": state.error, "seconds": seconds})
    return state


def _batch(batches: Sequence[list[int]], step: int, seed: int) -> list[int]:
    """The batch of a step: each epoch goes through all batches in an order of its own."""
    epoch, place = divmod(step, len(batches))
    return batches[np.random.default_rng([seed, epoch]).permutation(len(batches))[place]]


def _decay(step: int, steps: int) -> float:
    """Factor of the learning rate, from 1 to 0.1 along a cosine."""
    return 0.55 + 0.45 * math.cos(math.pi * step / steps)


def _value(flow: FlowSettings, sums: np.ndarray) -> float:
    """The loss, NaN if its sums are not finite."""
    return flow.loss.value(sums) if np.isfinite(sums).all() else math.nan


def fit_bias(scores: np.ndarray, labels: np.ndarray, rounds: int = 3) -> tuple[np.ndarray, float]:
    """Biases that, added to the scores, make the fewest errors; found class after class.

    That of a class without labels only moves where this saves errors: how far it may rise without
    an error says nothing.

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
    there = np.bincount(labels, minlength=count) > 0
    for again in range(1 if count == 2 else rounds):
        for j in range(1 if count == 2 else 0, count):
            others = rows + bias
            others[:, j] = -np.inf
            rival = others.max(axis=1)
            # from this bias on, the pixel is given to class j
            turn = rival - rows[:, j]
            gain = np.where(labels == j, -1, 1) * (
                (labels == j) | (others.argmax(axis=1) == labels)
            )
            order = np.argsort(turn, kind="stable")
            wrong = np.concatenate([[0], np.cumsum(gain[order])])
            sorted_turn = turn[order]
            ends = np.concatenate([[sorted_turn[0] - 1], sorted_turn, [sorted_turn[-1] + 1]])
            middle = (ends[:-1] + ends[1:]) / 2
            # a bias can lie only between different values
            apart = np.concatenate([[True], sorted_turn[1:] > sorted_turn[:-1], [True]])
            wrong = np.where(apart, wrong, len(labels) + 1)
            best = np.flatnonzero(wrong == wrong.min())
            here = np.searchsorted(sorted_turn, bias[j])
            tied = here < len(turn) and sorted_turn[here] == bias[j]
            alone = not there[j] or there.sum() < 2
            if (again or alone) and not tied and wrong[here] == wrong.min():
                continue  # a move that saves no error could hide one of another class that does
            bias[j] = middle[best[np.abs(middle[best] - bias[j]).argmin()]]
    bias -= bias.mean()
    error = float(((rows + bias).argmax(axis=1) != labels).mean())
    return bias, error


def _validated(state: State, found: Validation, record: Mapping[str, Any]) -> State:
    """The state after a validation: a new best one, or one more validation without improvement."""
    loss, error, bias, confusion, calibration, reliability = found
    history = [
        *state.history,
        {"step": state.step, "loss": loss, "validation": error, "training": record["training"]},
    ]
    if error < state.error:
        return dataclasses.replace(
            state,
            best=state.predictor,
            bias=bias,
            error=error,
            stale=0,
            history=history,
            confusion=confusion,
            calibration=calibration,
            reliability=reliability,
        )
    return dataclasses.replace(state, stale=state.stale + 1, history=history)


def _model(
    state: State, data: Data, recipe: Recipe, plan: TrainingPlan, term: DataTerm, learned: Images
) -> Model:
    flow, image = plan.flow, data.training[0].image
    trained = {
        "images": [Path(e.image.path).name for e in data.training],
        "validation": [Path(e.image.path).name for e in data.validation],
        "seed": recipe.seed,
        "steps": state.step,
        "error": state.error,
        "loss": str(recipe.loss),
        "history": state.history,
    }
    if state.confusion is not None:
        trained["confusion"] = state.confusion
    if state.reliability is not None:
        trained["reliability"] = state.reliability
    return Model(
        flow.classes,
        term,
        flow.offsets,
        flow.rho,
        flow.time,
        recipe.tol,
        image.used_channels,
        state.best,
        tuple(map(float, state.bias)),
        trained,
        learned,
        state.calibration,
    )
