"""Learn a predictor of weights from labeled images: steps, validation, restarts."""

from __future__ import annotations

import dataclasses
import math
import os
import time as clock
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..flow.optimizers import RATES, Adam
from ..model import predictor
from ..model.model import Model
from ..model.predictor import Predictor
from ..model.terms import DataTerm
from ..pool import tasks
from ..pool.tasks import Pool
from . import plan as training_plan
from . import worker as training_worker
from .checkpoint import Checkpoint, State
from .plan import OPTIMIZERS, Data, Progress, Recipe, TrainingPlan, TrainingWarning
from .worker import FlowSettings, TileReader

__all__ = ["Data", "Recipe", "TrainingWarning", "fit_bias", "train"]
SAMPLES = 60_000  # pixels for the first prototypes
JUDGED = 400_000  # validation pixels that the biases are fitted to
EVERY = 10  # steps between validations


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
        data,
        training=[e.with_absolute_paths() for e in data.training],
        validation=[e.with_absolute_paths() for e in data.validation],
    )
    ready = training_plan.make_plan(data, recipe, pool)
    held = Checkpoint(path, ready.print)
    if held.finished is not None:
        say({"stage": "finished before"})
        return held.finished
    terms = held.terms() or training_plan.terms(data, recipe, ready, pool, say)
    tasks.retried(Checkpoint.keep_terms, held, terms)
    say({"stage": "reading tiles"})
    course = ready.course
    reading = TileReader(course, (*data.training, *data.validation), tuple(terms), ready.features)
    handles = pool.hold(training_worker.read, reading, ready.lots)
    judges = pool.hold(training_worker.read, reading, ready.judges)
    labeled = [sum(ready.counts[lot.example, lot.tile.index]) for lot in ready.judges]
    stride = max(1, sum(labeled) // JUDGED)
    state = held.state(ready.features)
    if state is None:
        uniform = _validate(pool, course, None, judges, stride)
        say({"stage": "uniform weights", "validation": uniform[1]})
        first = _first(pool, course, ready, handles, recipe)
        loss, error, bias = _validate(pool, course, first, judges, stride)
        state = State(
            0,
            first,
            Adam(RATES).init(first.parameters),
            first,
            bias,
            error,
            0,
            0.0,
            [{"step": 0, "uniform": uniform[1], "loss": loss, "validation": error}],
        )
    before, adam = state.seconds, OPTIMIZERS[recipe.optimizer](RATES)
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
                "the best state before is kept",
                TrainingWarning,
                stacklevel=2,
            )
            break
        state = dataclasses.replace(
            state, step=state.step + 1, predictor=weights, moments=moments, seconds=seconds
        )
        record: dict[str, Any] = {
            "step": state.step,
            "steps": recipe.steps,
            "loss": loss,
            "training": float(sums[-2] / sums[-1]),
        }
        if found is not None:
            state = _judged(state, found, record)
            record["validation"] = state.history[-1]["validation"]
            tasks.retried(Checkpoint.keep, held, state)
        say(record | {"best": state.error, "seconds": seconds})
    result = _model(state, data, recipe, ready, terms[-1])
    tasks.retried(Checkpoint.finish, held, result)
    return result


def _batch(batches: Sequence[list[int]], step: int, seed: int) -> list[int]:
    """The batch of a step: all of them in turn, in another order each time."""
    epoch, place = divmod(step, len(batches))
    return batches[np.random.default_rng([seed, epoch]).permutation(len(batches))[place]]


def _decay(step: int, steps: int) -> float:
    """From 1 to 0.1 along a cosine."""
    return 0.55 + 0.45 * math.cos(math.pi * step / steps)


def _first(
    pool: Pool, course: FlowSettings, ready: TrainingPlan, handles: Sequence[Any], recipe: Recipe
) -> Predictor:
    """The predictor to start from."""
    share = -(-SAMPLES // len(handles))
    parts = pool.each(
        training_worker.sample,
        (course, share, recipe.seed),
        [(handle, number) for number, handle in enumerate(handles)],
    )
    rows, same, known = (np.concatenate(part) for part in zip(*parts, strict=True))
    return predictor.initial(ready.features, rows, same, known, recipe.prototypes, recipe.seed)


def _step(
    pool: Pool,
    course: FlowSettings,
    weights: Predictor,
    bias: np.ndarray,
    chosen: Sequence[int],
    handles: Sequence[Any],
    key: Any,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Sums of a batch's loss, and its gradient; none where the sums are not finite."""
    batch = [handles[i] for i in chosen]
    sums = tasks.tree_sum(pool.each(training_worker.loss_sums, (course, weights, bias, key), batch))
    if not np.isfinite(sums).all():
        return sums, {}
    parts = pool.each(training_worker.parameter_gradient, (course, weights, sums[:-2], key), batch)
    return sums, {k: tasks.tree_sum([part[k] for part in parts]) for k in parts[0]}


def _validate(
    pool: Pool, course: FlowSettings, weights: Predictor | None, judges: Sequence[Any], stride: int
) -> tuple[float, float, np.ndarray]:
    """Loss, error with the best biases, and those; a loss of NaN alone where it is not finite."""
    parts = pool.each(training_worker.validation_scores, (course, weights, stride), judges)
    loss = _value(course, tasks.tree_sum([sums for sums, _, _ in parts]))
    if not np.isfinite(loss):
        return loss, 1.0, np.zeros(len(course.classes))
    rows = np.concatenate([rows for _, rows, _ in parts])
    labels = np.concatenate([labels for _, _, labels in parts])
    bias, error = fit_bias(rows, labels)
    return loss, error, bias


def _value(course: FlowSettings, sums: np.ndarray) -> float:
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
    for again in range(1 if count == 2 else rounds):
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
            here = np.searchsorted(sorted_turn, bias[j])
            tied = here < len(turn) and sorted_turn[here] == bias[j]
            if again and not tied and wrong[here] == wrong.min():
                continue  # a move that spares nothing could hide one of another class that does
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


def _model(state: State, data: Data, recipe: Recipe, ready: TrainingPlan, term: DataTerm) -> Model:
    course, image = ready.course, data.training[0].image
    trained = {
        "images": [Path(e.image.path).name for e in data.training],
        "validation": [Path(e.image.path).name for e in data.validation],
        "seed": recipe.seed,
        "steps": state.step,
        "error": state.error,
        "loss": str(recipe.loss),
        "history": state.history,
    }
    return Model(
        course.classes,
        term,
        course.offsets,
        course.rho,
        course.time,
        recipe.tol,
        image.used_channels,
        state.best,
        tuple(map(float, state.bias)),
        trained,
    )
