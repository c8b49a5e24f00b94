"""Learn weights by steps: in rounds that are judged by tiles they leave out, then of all tiles."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..flow.optimizers import RATES, Adam
from ..model import predictor as predictors
from ..model.features import Features
from ..model.predictor import Predictor
from ..pool import tasks
from ..pool.tasks import Pool, tree_sum
from . import continuing, pieces
from . import worker as training_worker
from .checkpoint import Checkpoint, Learned, State
from .judging import Bench, Verdict, judge
from .plan import OPTIMIZERS, Progress, Recipe, TrainingWarning
from .rounds import Round
from .worker import FlowSettings, Scored, Sums

SAMPLES = 60_000  # pixels for the first anchors
FLOWS = 384 << 20  # bytes of the flows of a batch up to which they are kept for their gradients
EVERY = 20  # steps between validations
ROUNDS = 0.6  # share of a time limit after which the rounds end


@dataclass(frozen=True)
class Tiles:
    """Tiles that were read and are held by the workers.

    Attributes
    ----------
    handles : one for each tile
    stride : labels are judged at every `stride`-th labeled pixel
    pixels : of the window of each tile, or () where these are small
    """

    pool: Pool
    flow: FlowSettings
    handles: Sequence[Any]
    stride: int = 1
    pixels: Sequence[int] = ()

    def step(
        self, predictor: Predictor, bias: np.ndarray, chosen: Sequence[int], key: Any
    ) -> tuple[Sums, dict[str, np.ndarray]]:
        """Sums of a batch's loss, and its gradient, which is empty if the sums are not finite."""
        batch = [self.handles[i] for i in chosen]
        if self.pixels and self.flow.held_bytes(sum(self.pixels[i] for i in chosen)) > FLOWS:
            key = None  # computed again for the gradient
        argument = (self.flow, predictor, bias, key)
        sums = tree_sum(self.pool.map(training_worker.loss_sums, argument, batch))
        if not sums.finite:
            return sums, {}
        given = (self.flow, predictor, sums.loss, key)
        parts = self.pool.map(training_worker.parameter_gradient, given, batch)
        return sums, {k: tree_sum([part[k] for part in parts]) for k in parts[0]}

    def initial(self, features: Features, chosen: Sequence[int], recipe: Recipe) -> Predictor:
        """K-means anchors of some tiles."""
        parts = self.pool.map(
            training_worker.sample,
            (self.flow, features, -(-SAMPLES // len(chosen)), recipe.seed),
            [(self.handles[number], number) for number in chosen],
        )
        rows, same, known = (np.concatenate(part) for part in zip(*parts, strict=True))
        return predictors.initial(features, rows, same, known, recipe.predictor_size, recipe.seed)


class Validation(NamedTuple):
    """Loss, NaN if it is not finite, and what was found of the labels; None then."""

    loss: float
    verdict: Verdict | None


@dataclass(frozen=True)
class Course:
    """What does not change from step to step.

    Attributes
    ----------
    rounds : which tiles each round learns from, and which ones judge it
    bench : of all tiles that judge, in the order of the rounds
    clock : seconds since the training began, over all of its starts
    """

    tiles: Tiles
    rounds: Sequence[Round]
    bench: Bench
    recipe: Recipe
    held: Checkpoint
    say: Progress
    seconds: Callable[[], float]
    limit: float | None

    def scores(
        self, flow: FlowSettings, learned: Sequence[Predictor] | None = None
    ) -> list[Scored]:
        """The scores by each round's predictor, of the tiles that it has not learned from."""
        return self._judged(training_worker.scores, flow, learned, self.tiles.stride)

    def pieces(
        self,
        flow: FlowSettings,
        learned: Sequence[Predictor] | None,
        biases: np.ndarray,
        between: int,
    ) -> list[np.ndarray]:
        """Adapted Rand errors of these tiles, as of `pieces.rand_errors`."""
        return self._judged(pieces.rand_errors, flow, learned, biases, between)

    def _judged(
        self,
        call: Callable[..., Any],
        flow: FlowSettings,
        learned: Sequence[Predictor] | None,
        *more: Any,
    ) -> list[Any]:
        """What a call finds of the tiles that judge; weights are equal if none were learned."""
        each: Sequence[Predictor | None] = learned or [None] * len(self.rounds)
        found = []
        for one, predictor in zip(self.rounds, each, strict=True):
            handles = [self.tiles.handles[i] for i in one.judged]
            found += self.tiles.pool.map(call, (flow, predictor, *more), handles)
        return found

    def validate(self, learned: Sequence[Predictor]) -> Validation:
        """What the rounds' predictors make of the tiles that judge."""
        found = self.scores(self.tiles.flow, learned)
        loss = _value(self.tiles.flow, tree_sum([one.sums for one in found]))
        return Validation(loss, judge(found, self.bench) if np.isfinite(loss) else None)

    def late(self, share: float = 1.0) -> bool:
        """Whether a share of the time limit is used up."""
        return self.limit is not None and self.seconds() > share * 60 * self.limit


def first(course: Course, features: Features, entry: dict[str, Any]) -> State:
    """The state to start from; `entry` is what its record in the history holds beside."""
    # a model to go on from has seen the halves that judge each other, but not validation images
    begin = begun if len(course.rounds) == 1 else _anew
    learned = []
    stage = {"stage": "anchors by k-means", "of": len(course.rounds)}
    for number, one in enumerate(course.rounds):
        course.say(stage | {"done": number})
        learned.append(started(begin(course, features, one.training)))
    best = tuple(one.predictor for one in learned)
    found = course.validate(best)
    error, bias = 1.0, np.zeros(len(course.tiles.flow.classes))
    if found.verdict is not None:
        error, bias = found.verdict.error, found.verdict.bias
    history = {"step": 0, "loss": found.loss, "validation": error} | entry
    return State(0, tuple(learned), best, 0, bias, error, 0, 0.0, [history])


def begun(course: Course, features: Features, chosen: Sequence[int]) -> Predictor:
    """The predictor to begin with: that of the model to go on from, or of k-means of some tiles."""
    recipe, flow = course.recipe, course.tiles.flow
    if recipe.start is not None:
        found = continuing.predictor(recipe.start, features, flow, recipe.predictor_size)
        if found is not None:
            return found
    return _anew(course, features, chosen)


def _anew(course: Course, features: Features, chosen: Sequence[int]) -> Predictor:
    return course.tiles.initial(features, chosen, course.recipe)


def without_steps(course: Course, entry: dict[str, Any]) -> State:
    """The state of a training that learns no weights; `entry` is its record in the history."""
    bias = np.zeros(len(course.tiles.flow.classes))
    error = entry.get(course.recipe.flow, min(entry.values()))  # auto: if no time was left
    found = {"step": 0, "validation": error} | entry
    return State(0, (), (), 0, bias, error, 0, course.seconds(), [found])


def started(predictor: Predictor) -> Learned:
    """A predictor before the first step."""
    return Learned(predictor, Adam(RATES).init(predictor.parameters))


def learn_rounds(course: Course, state: State) -> State:
    """Take steps in all rounds until steps, patience or time is used up, or numbers are lost."""
    steps, patience = course.recipe.steps, 10 * course.recipe.patience
    while state.step < steps and state.stale * EVERY < patience:
        if course.late(ROUNDS):
            course.say({"stage": "time limit"})
            break
        found, sums = [], []
        for number, (one, learned) in enumerate(zip(course.rounds, state.learned, strict=True)):
            moved, part = _moved(course, learned, one, state, (number, state.step))
            found.append(moved)
            sums.append(part)
        finite, judged = all(one is not None for one in found), None
        last = state.step + 1 == steps
        if finite and ((state.step + 1) % EVERY == 0 or last):
            judged = course.validate([one.predictor for one in found if one is not None])
            finite = judged.verdict is not None
        if not finite:
            _warn(state.step + 1)
            break
        state = dataclasses.replace(
            state,
            step=state.step + 1,
            learned=tuple(one for one in found if one is not None),
            seconds=course.seconds(),
        )
        record: dict[str, Any] = {
            "step": state.step,
            "steps": steps,
            "loss": float(np.mean([_value(course.tiles.flow, one.loss) for one in sums])),
            "training": sum(one.wrong for one in sums) / sum(one.labeled for one in sums),
        }
        if judged is not None:
            state = _validated(state, judged, record)
            record["validation"] = state.history[-1]["validation"]
            tasks.retried(Checkpoint.keep, course.held, state)
        course.say(record | {"best": state.error, "seconds": state.seconds})
    return state


def learn_from_all(course: Course, state: State, whole: Round) -> State:
    """As many steps from all tiles as were best in the rounds.

    If time or numbers are lost on the way, what the first round has learned is taken.
    """
    while state.step < state.at:
        moved, sums = None, None
        if course.late():
            course.say({"stage": "time limit"})
        else:
            moved, sums = _moved(course, state.learned[0], whole, state, ("all", state.step))
            if moved is None:
                _warn(state.step + 1)
        if moved is None or sums is None:
            return dataclasses.replace(state, learned=(started(state.best[0]),), step=state.at)
        state = dataclasses.replace(
            state, step=state.step + 1, learned=(moved,), seconds=course.seconds()
        )
        if state.step % EVERY == 0:
            tasks.retried(Checkpoint.keep, course.held, state)
        record = {"step": state.step, "steps": state.at, "seconds": state.seconds}
        loss = _value(course.tiles.flow, sums.loss)
        course.say(record | {"loss": loss, "training": sums.error})
    return state


def _moved(
    course: Course, learned: Learned, one: Round, state: State, key: Any
) -> tuple[Learned | None, Sums]:
    """What a step makes of one round, None if numbers are no longer finite; and its sums."""
    recipe, tiles = course.recipe, course.tiles
    chosen = _batch(one.batches, state.step, recipe.seed)
    sums, gradients = tiles.step(learned.predictor, state.bias, chosen, (course.held.run, *key))
    finite = np.isfinite(_value(tiles.flow, sums.loss))
    if not finite or not all(np.isfinite(g).all() for g in gradients.values()):
        return None, sums
    factor = _decay(state.step, recipe.steps)
    with np.errstate(over="ignore"):
        moved, moments = OPTIMIZERS[recipe.optimizer](RATES).update(
            gradients, learned.moments, learned.predictor.parameters, factor
        )
        predictor = learned.predictor.moved(moved)
    return Learned(predictor, moments) if predictor.finite else None, sums


def _warn(step: int) -> None:
    warnings.warn(
        f"the loss is no longer finite at step {step}: the best state so far is kept",
        TrainingWarning,
        stacklevel=4,
    )


def _batch(batches: Sequence[Sequence[int]], step: int, seed: int) -> Sequence[int]:
    """The batch of a step: each epoch goes through all batches in an order of its own."""
    epoch, place = divmod(step, len(batches))
    return batches[np.random.default_rng([seed, epoch]).permutation(len(batches))[place]]


def _decay(step: int, steps: int) -> float:
    """Factor of the learning rate, from 1 to 0.1 along a cosine."""
    return 0.55 + 0.45 * math.cos(math.pi * step / steps)


def _value(flow: FlowSettings, sums: np.ndarray) -> float:
    """The loss, NaN if its sums are not finite."""
    return flow.loss.value(sums) if np.isfinite(sums).all() else math.nan


def _validated(state: State, found: Validation, record: dict[str, Any]) -> State:
    """The state after a validation: a new best one, or one more validation without improvement."""
    assert found.verdict is not None
    error, bias = found.verdict.error, found.verdict.bias
    entry = {"step": state.step, "loss": found.loss, "validation": error}
    history = [*state.history, entry | {"training": record["training"]}]
    if error < state.error:
        best = tuple(one.predictor for one in state.learned)
        return dataclasses.replace(
            state, best=best, at=state.step, bias=bias, error=error, stale=0, history=history
        )
    return dataclasses.replace(state, stale=state.stale + 1, history=history)
