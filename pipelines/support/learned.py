"""Networks and trees that this program learns, and their out-of-fold probabilities."""

from __future__ import annotations

import dataclasses
import json
import time as clock
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from support.rivals import Labels, Method, Problem, Ready, recipe_of
from support.sections import say
from tiledlaf import label as tiledlaf_label
from tiledlaf.files import images
from tiledlaf.model.term import DataTerm
from tiledlaf.model.terms import Networked
from tiledlaf.pool.opening import cores, open_pool
from tiledlaf.training import classifiers, combined, examples, networks
from tiledlaf.training.appearance import described
from tiledlaf.training.pixels import Fit, Source
from tiledlaf.training.plan import make_plan
from tiledlaf.training.run import Data, train
from tiledlaf.training.worker import core_of

NETWORKS = 3  # that are learned in that time: two for out-of-fold probabilities, and one of all
# what is learned at once, and its probabilities are kept by these names
KINDS = ("network", "flips", "trees", "both")


def learn(problem: Problem) -> None:
    """Learn a network and trees, and keep their probabilities of all images."""
    about = problem.kept / f"learned-{problem.seed}.json"
    if about.exists():
        return
    loaded, count = problem.loaded, problem.loaded.training
    say(f"  learning a network and trees, seed {problem.seed}")
    given = examples.pair(loaded.images[:count], loaded.labels[:count])
    names = {str(i): name for i, name in enumerate(problem.classes, 1)}
    minutes = NETWORKS * problem.effort.minutes / cores()
    recipe = dataclasses.replace(recipe_of(problem), network_minutes=minutes)
    data = Data(given, term="classifier+unet", names=names, ignore=0)
    with open_pool() as pool:
        plan = make_plan(data, recipe, pool)
        fit = Fit(
            pool,
            Source(tuple(given), plan.flow.classes),
            plan.training,
            plan.folds,
            plan.folded,
            problem.seed,
            described(given, plan.training, pool).range,
            lambda record: None,
            minutes=recipe.network_minutes,
            steps=recipe.network_steps,
        )
        found, spent = timed(lambda: networks.cross_fitted(fit))
        trees, more = timed(lambda: classifiers.out_of_fold(fit))
        (share, _), last = timed(lambda: combined.compared(fit, found, trees))
    flips = [Networked(dataclasses.replace(one.network, augment=True)) for one in found]
    terms = (found, flips, trees, combined.averaged(found, trees, share))
    for kind, own in zip(KINDS, terms, strict=True):
        keep(problem, kind, fit, own)
    costs = {"network": spent, "flips": spent, "trees": more, "both": spent + more + last}
    steps = networks.notes(found[-1])["network"]["steps"]
    about.write_text(json.dumps({"seconds": costs, "share": share, "steps": steps}) + "\n")


def of(kind: str, method: Method) -> Method:
    """A method that begins with the probabilities of a kind; what learning these cost is told."""

    def run(problem: Problem) -> Ready:
        learn(problem)
        about = json.loads((problem.kept / f"learned-{problem.seed}.json").read_text())
        ready, spent = timed(lambda: method(dataclasses.replace(problem, base=kind)))
        learned = about["seconds"][kind] + spent
        area = sum(labels.size for labels in problem.loaded.labels[: problem.loaded.training])
        told = {"training": learned * 1e6 / area, "share": about["share"], "steps": about["steps"]}
        return dataclasses.replace(ready, chosen=ready.chosen | told)

    return run


def flow(problem: Problem) -> Ready:
    """What `tiledlaf train --probabilities` learns by default."""
    loaded, count, p = problem.loaded, problem.loaded.training, problem.chances
    names = {str(i): name for i, name in enumerate(problem.classes, 1)}
    given = examples.pair(loaded.images[:count], loaded.labels[:count], probabilities=p.all[:count])
    with open_pool() as pool:
        data = Data(given, term="probabilities", names=names, ignore=0)
        model = train(data, recipe_of(problem), pool)

    def label(number: int) -> Labels:
        labels, sure = tiledlaf_label(
            loaded.images[number],
            model=model,
            probabilities=p.all[number],
            workers=1,
            confidence=True,
        )
        return np.asarray(labels, np.uint8), np.asarray(sure)

    label(count)  # compiles
    way = model.trained["choice"]["way"]
    return Ready(label, {"flow": way}, float(model.trained["error"]), p.seconds)


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """What a function gives, and the seconds of all processors that it takes."""
    started = clock.process_time()
    return function(), clock.process_time() - started


def given_by(term: DataTerm, image: np.ndarray) -> np.ndarray:
    """Probabilities (J, y, x) of an image (C, y, x) by a term alone."""
    source = images.from_array(image, "cyx")
    made = term.probabilities_of(source)
    planes = image if made is None else made.data[tuple(slice(0, n) for n in made.shape)]
    q = term.potential(np.asarray(planes), None, 1.0)
    p = np.exp(q - q.max(axis=0))
    found: np.ndarray = p / p.sum(axis=0)
    return found


def keep(problem: Problem, kind: str, fit: Fit, terms: Sequence[DataTerm]) -> None:
    """Keep the probabilities of a kind: of training images by what has not seen their tiles."""
    loaded, found = problem.loaded, []
    for number in range(loaded.training):
        tiles = zip(fit.tiles, fit.folds, strict=True)
        own = [(core_of(one), fold) for one, fold in tiles if one.example == number]
        image = loaded.images[number]
        by_fold = {fold: given_by(terms[fold], image) for fold in dict.fromkeys(f for _, f in own)}
        p = next(iter(by_fold.values())).copy()
        for core, fold in own:
            p[:, *core] = by_fold[fold][:, *core]
        found.append(p)
    judged = range(loaded.training, len(loaded.images))
    given_by(terms[-1], loaded.images[loaded.training][:, :64, :64])  # compiles
    more, spent = timed(lambda: [given_by(terms[-1], loaded.images[n]) for n in judged])
    area = sum(loaded.labels[n].size for n in judged)
    stored = [np.round(p * 65535).astype(np.uint16) for p in (*found, *more)]
    file = problem.kept / f"{kind}-{problem.seed}.npz"
    partial = file.with_suffix(".partial.npz")
    np.savez_compressed(partial, *stored, seconds=spent * 1e6 / area)
    partial.replace(file)
