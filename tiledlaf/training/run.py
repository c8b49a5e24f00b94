"""Learn from labeled images: the data term, weights, and whether these are worth having."""

from __future__ import annotations

import dataclasses
import math
import os
import time as clock
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputChanged, InputError
from ..flow import stencil
from ..flow.stencil import radius
from ..model.arrays import convert
from ..model.calibration import Calibration
from ..model.entries import CalibrationEntry
from ..model.model import Images, Model
from ..model.predictor import Predictor
from ..model.term import DataTerm
from ..pool import tasks
from ..pool.tasks import Pool, check_progress
from ..tiles import size
from . import continuing, learning, memory, pieces
from . import worker as training_worker
from .appearance import described
from .checkpoint import Checkpoint, State
from .examples import with_same_values
from .judging import Biases, Verdict, calibrated, choose, fewest, fit_bias, judge
from .learning import Course, Tiles
from .pixels import Fit, Source
from .plan import (
    Data,
    Progress,
    Recipe,
    TrainingPlan,
    TrainingWarning,
    changed_inputs,
    last_fold_judging,
    make_plan,
)
from .worker import FlowSettings, LabeledTile, Scored, TileReader

__all__ = ["Data", "Recipe", "TrainingWarning", "fit_bias", "train"]
TRIED = 0.6  # share of a time limit after which no other flow with equal weights is tried
JUDGED = 400_000  # pixels that ways are judged by, and that biases are fitted to
SIMPLE = {"none": "data term alone", "uniform": "uniform weights"}
TIMES = (0.25, 0.5, 1, 2, 4)  # of the flow with equal weights, in times of that with learned ones


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
    start = recipe.start
    examples = [e.with_absolute_paths() for e in everything]
    if start is not None:
        examples = continuing.brought(start, examples)
    examples = with_same_values(examples, [c.name for c in start.classes] if start else ())
    count = len(data.training)
    data = dataclasses.replace(data, training=examples[:count], validation=examples[count:])
    plan = make_plan(data, recipe, pool, say)
    need = memory.predicted(plan, examples, pool)
    memory.check(need, pool)
    with Checkpoint(path, plan.print) as held:
        if held.finished is not None:
            say({"stage": "finished before"})
            return held.finished
        say({"labels": [*plan.about, memory.line(need)]})
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
    """Learn terms and weights, from where an earlier start has stopped."""
    examples = (*data.training, *data.validation)
    learned = described(data.training, plan.training, pool)
    if recipe.start is not None:
        learned = continuing.joined(recipe.start.images, learned)
    terms = held.terms()

    def seconds() -> float:
        return clock.perf_counter() - started

    def left(share: float) -> float:
        return math.inf if limit is None else share * 60 * limit - seconds()

    if not terms:
        source = Source(tuple(examples), plan.flow.classes)
        terms = plan.learner.fit(_fit(source, recipe, plan, pool, held, say, learned.range, left))
        tasks.release(pool)
    tasks.retried(Checkpoint.keep_terms, held, terms)
    if plan.learner.per_fold and len(terms) == 1:  # time was short
        plan = last_fold_judging(plan)
    wanted = plan.features if _learns(recipe) else None
    made = training_worker.probabilities(terms, examples)
    reader = TileReader(plan.flow, tuple(examples), tuple(terms), wanted, made=made)
    handles = _read(pool, reader, [*plan.training, *plan.validation], say)
    judges = [(*plan.training, *plan.validation)[i] for one in plan.rounds for i in one.judged]
    pixels = sum(sum(plan.counts[one.example, one.tile.index]) for one in judges)
    sizes = [size(one.tile.window) for one in (*plan.training, *plan.validation)]
    tiles = Tiles(pool, plan.flow, handles, max(1, pixels // JUDGED), sizes)
    channels = data.training[0].image.used_channels
    state = held.state(plan.features, plan.flow, channels)
    before = 0.0 if state is None else state.seconds
    course = Course(
        tiles,
        plan.rounds,
        plan.bench,
        recipe,
        held,
        say,
        lambda: before + seconds(),
        limit,
    )
    state = _learned(course, plan, state)
    return _model(state, data, recipe, plan, terms, learned)


def _fit(
    source: Source,
    recipe: Recipe,
    plan: TrainingPlan,
    pool: Pool,
    held: Checkpoint,
    say: Progress,
    span: tuple[float, float] | None,
    left: Callable[[float], float],
) -> Fit:
    """What the data term is fitted to, and what an earlier start has left of that."""

    def keep(arrays: Mapping[str, Any]) -> None:
        tasks.retried(Checkpoint.keep_fitting, held, arrays)

    return Fit(
        pool,
        source,
        plan.training,
        plan.folds,
        plan.folded,
        recipe.seed,
        span,
        say,
        left,
        None if recipe.start is None else recipe.start.term,
        recipe.network_minutes,
        recipe.network_steps,
        recipe.device,
        held.fitting(),
        keep,
    )


def _learns(recipe: Recipe) -> bool:
    """Whether weights are learned, be it to be compared."""
    return recipe.flow in ("auto", "learned")


def _read(pool: Pool, reader: TileReader, tiles: Sequence[LabeledTile], say: Progress) -> list[Any]:
    """Handles of the tiles, which are read a few at a time, so that it is seen how far this is."""
    found: list[Any] = []
    stage = {"stage": "reading tiles", "of": len(tiles)}
    say(stage | {"done": 0})
    for start in range(0, len(tiles), 2 * pool.workers):
        part = tiles[start : start + 2 * pool.workers]
        found += pool.persist(training_worker.read_near, reader, part)
        say(stage | {"done": len(found)})
    tasks.release(pool)
    return found


def _learned(course: Course, plan: TrainingPlan, state: State | None) -> State:
    """The state at the end of all steps, with what was chosen."""
    if state is None or state.chosen is None:
        simple = _simple(course, plan)
        entry = {name: way.verdict.error for name, way in simple.items()}
        late = state is None and course.recipe.flow == "auto" and course.late()
        if late:
            course.say({"stage": "time limit"})
        if late or not _learns(course.recipe):  # nor is there anything to keep until the end
            return _chosen(course, plan, learning.without_steps(course, entry), simple)
        if state is None:
            state = learning.first(course, plan.features, entry)
        state = learning.learn_rounds(course, state)
        state = _chosen(course, plan, state, simple)
        tasks.retried(Checkpoint.keep, course.held, state)
    if _way(state) != "learned" or plan.whole is None:
        return state
    if state.at:
        course.say({"stage": "learning from all tiles"})
    return learning.learn_from_all(course, state, plan.whole)


@dataclass(frozen=True)
class Way:
    """A way to label, and what the judges found of it.

    Attributes
    ----------
    scores : of the tiles that judge
    verdict : of single pixels, with `biases`
    compared : what ways are compared by: this, or what was found of the pieces between a class
    """

    flow: FlowSettings
    scores: list[Scored]
    biases: Biases
    verdict: Verdict
    compared: Verdict


def _way_of(
    course: Course, plan: TrainingPlan, flow: FlowSettings, learned: Sequence[Predictor] | None
) -> Way:
    """Judge a way with learned weights of each round, or with equal ones."""
    scores = course.scores(flow, learned)
    biases = fewest(scores, plan.bench)
    if plan.boundary is None:
        verdict = judge(scores, plan.bench, biases)
        return Way(flow, scores, biases, verdict, verdict)
    tried = pieces.candidates(scores, biases.all, plan.boundary)
    found = pieces.judge(course.pieces(flow, learned, tried, plan.boundary), tried, plan.bench)
    if found is None:
        name = plan.flow.classes[plan.boundary].name
        raise InputError(f"expected labeled pixels that {name} lies between, got none to compare")
    compared, biases = found
    return Way(flow, scores, biases, judge(scores, plan.bench, biases), compared)


def _simple(course: Course, plan: TrainingPlan) -> dict[str, Way]:
    """What no flow reaches, and the best one with equal weights."""
    found: dict[str, Way] = {}
    candidates = _candidates(course.tiles.flow, course.recipe)
    stage = {"stage": "flows with equal weights", "of": len(candidates)}
    for number, (name, flow) in enumerate(candidates):
        course.say(stage | {"done": number})
        if len(found) == 2 and course.late(TRIED):
            break
        way = _way_of(course, plan, flow, None)
        if name not in found or way.compared.error < found[name].compared.error:
            found[name] = way
    for name, way in found.items():
        course.say({"stage": SIMPLE[name], "validation": way.verdict.error})
    return found


def _candidates(flow: FlowSettings, recipe: Recipe) -> list[tuple[str, FlowSettings]]:
    """Flows to compare learned weights with, which need no more halo than theirs.

    Where a model was found to need a uniform one, it is that one.
    """
    ndim, found = len(flow.offsets[0]), []
    alone = dataclasses.replace(flow, offsets=((0,) * ndim,))
    if recipe.flow == "none":
        return [("none", alone)]
    start = recipe.start
    if start is not None and recipe.flow == "uniform" == continuing.way(start):
        return [("none", alone), ("uniform", flow)]
    edges = [min(3, 2 * r + 1) for r in radius(flow.offsets)]
    # of a volume also within its planes, which may be far apart
    flat, small = stencil.fit(stencil.box(*edges[-2:]), ndim), stencil.box(*edges)
    for offsets in dict.fromkeys((flat, small, flow.offsets)):
        for times in TIMES:
            one = dataclasses.replace(flow, offsets=offsets, time=times * flow.time)
            if all(a <= b for a, b in zip(one.halo, flow.halo, strict=True)):
                found.append(("uniform", one))
    return [("none", alone), *found]


def _chosen(course: Course, plan: TrainingPlan, state: State, simple: Mapping[str, Way]) -> State:
    """The state with the choice of what the flow adds, as JSON; ready to learn from all tiles."""
    ways = dict(simple)
    name = course.recipe.flow
    if _learns(course.recipe) and state.best:
        ways["learned"] = _way_of(course, plan, plan.flow, state.best)
    if name == "auto":
        name = list(ways)[choose([way.compared for way in ways.values()])]
    way = ways[name]
    calibration, reliability = calibrated(way.scores, plan.bench, way.biases)
    boundary = None if plan.boundary is None else plan.flow.classes[plan.boundary].name
    chosen = {
        "choice": {
            "way": name,
            "judged": plan.judged,
            "interval": way.verdict.interval,
            "compared": {key: one.compared.error for key, one in ways.items()},
            "boundary": boundary,
        },
        "offsets": [list(o) for o in way.flow.offsets],
        "time": way.flow.time,
        "bias": way.verdict.bias.tolist(),
        "error": way.verdict.error,
        "calibration": calibration.to_entry(),
        "reliability": reliability,
        "confusion": way.verdict.confusion,
    }
    if plan.whole is None or name != "learned":
        return dataclasses.replace(state, chosen=chosen)
    first = learning.started(learning.begun(course, plan.features, plan.whole.training))
    return dataclasses.replace(state, chosen=chosen, learned=(first,), step=0)


def _way(state: State) -> str:
    """What was chosen."""
    assert state.chosen is not None
    way: str = state.chosen["choice"]["way"]
    return way


def _model(
    state: State,
    data: Data,
    recipe: Recipe,
    plan: TrainingPlan,
    terms: Sequence[DataTerm],
    learned: Images,
) -> Model:
    """The model of a state, and of the terms of each fold, of which the last one is of all."""
    flow, image, chosen = plan.flow, data.training[0].image, state.chosen
    assert chosen is not None
    trained = {
        "images": [Path(e.image.path).name for e in data.training],
        "validation": [Path(e.image.path).name for e in data.validation],
        "seed": recipe.seed,
        "steps": state.step,
        "loss": str(recipe.loss),
        "history": state.history,
    }
    if plan.ignore is not None:
        trained["ignore"] = plan.ignore
    trained |= plan.learner.notes(terms[-1])
    kept = ("choice", "error", "confusion", "reliability")
    trained |= {key: chosen[key] for key in kept if chosen[key] is not None}
    best = state.best if plan.whole is None else [one.predictor for one in state.learned]
    return Model(
        flow.classes,
        terms[-1],
        tuple(map(tuple, chosen["offsets"])),
        flow.rho,
        chosen["time"],
        recipe.tol,
        image.used_channels,
        best[0] if _way(state) == "learned" else None,
        tuple(chosen["bias"]),
        trained,
        learned,
        Calibration.from_entry(convert(chosen["calibration"], CalibrationEntry)),
        # what networks disagree would need the image to be read by each of them
        tuple(terms[:-1]) if plan.learner.per_fold and not plan.learner.network else (),
    )
