"""Networks learned from labeled pixels, each of them from all folds but some, which judge it."""

from __future__ import annotations

import json
import math
import time as clock
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from ..errors import InputError
from ..files.image import Image
from ..model import onnxfile
from ..model.arrays import entry_of
from ..model.network import Network
from ..model.term import DataTerm
from ..model.terms import Averaged, Networked
from . import crops, unet_onnx
from .crops import Block, Draw
from .examples import Example
from .pixels import Fit
from .worker import LabeledTile, core_of

MINUTES = 15.0  # of all networks together
BATCH = 3  # parts of a step
RATE, WARM = 3e-3, 0.05  # of steps, and the share of them in which it rises to that
STEPS = 20_000  # of a network at most, where time is not short
FEWEST = 20  # steps of a network, however short the time is
CHECKS, PATIENCE = 20, 6  # how often networks are judged, and how often without being better
JUDGED = 8  # parts that judge a network
FITTED = 0.5  # share of a time limit of the training after which no network is learned
SHORT = 30.0  # seconds, below which there is but one network
LOADED = 700 << 20  # bytes of PyTorch, with what it keeps; most of it are its libraries for GPUs
PIXEL = 2000  # bytes of a pixel of a step: all that the gradient needs
LATER = 1 << 20  # added to the numbers of parts that judge, which are none to learn from


class About(msgspec.Struct):
    """How far the networks are, as a checkpoint has it; what they are made of is in arrays.

    Attributes
    ----------
    step, part, seconds : steps made of the networks at work, share of all of them, and time
    best, best_at, best_part : least loss of the parts that judge, and when that was
    wrong : share of wrong pixels then
    stale : how often they have judged since
    apart : whether the networks that have not seen some folds are learned
    """

    step: int = 0
    part: float = 0.0
    seconds: float = 0.0
    best: float = 0.0
    best_at: int = 0
    best_part: float = 1.0
    wrong: float = 1.0
    stale: int = 0
    apart: bool = False


def check() -> None:
    """Refuse to learn a network without the libraries for it.

    Raises
    ------
    ValueError
        Names the extra that brings them.
    """
    onnxfile.onnx()
    onnxfile.runtime()
    _unet()


def _unet() -> Any:
    """What needs PyTorch: it is loaded where a network is learned, and nowhere else."""
    try:
        from . import unet
    except ImportError:
        raise InputError(
            "learning a network needs PyTorch, which is not installed: "
            "pip install 'tiledlaf[torch]'"
        ) from None
    return unet


@dataclass
class _Work:
    """The networks that are learned beside each other, step by step, and what they learn from.

    Attributes
    ----------
    learners : of `unet`
    seen, unseen : the blocks that each learns from, and those that judge it
    title : of the stage
    numbers : of the networks, by which what is drawn differs
    best : weights of each when all of them together were judged best
    """

    learners: list[Any]
    seen: list[list[Block]]
    unseen: list[list[Block]]
    title: str
    numbers: list[int]
    best: list[dict[str, np.ndarray]] = field(default_factory=list)

    def state(self) -> dict[str, np.ndarray]:
        """What they are made of, to go on from."""
        found: dict[str, np.ndarray] = {}
        for n, one in enumerate(self.learners):
            found |= {f"now{n}/{key}": value for key, value in one.state().items()}
        for n, weights in enumerate(self.best):
            found |= {f"best{n}/{key}": value for key, value in weights.items()}
        return found

    def go_on(self, held: Mapping[str, np.ndarray]) -> None:
        """Go on from a state."""
        for n, one in enumerate(self.learners):
            one.go_on(_group(held, f"now{n}/"))
        found = [_group(held, f"best{n}/") for n in range(len(self.learners))]
        self.best = [one for one in found if one]


def _group(held: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {k.removeprefix(prefix): v for k, v in held.items() if k.startswith(prefix)}


def cross_fitted(fit: Fit) -> list[DataTerm]:
    """Networks: for each fold, one that has not seen it; and last, one learned from all.

    Folds are in as few groups as each network needs to see all classes, two as a rule, and there is
    one network for each group. These are learned beside each other, and judged by the folds that
    they have not seen: by that they stop early, all at one step, so that nothing is chosen for one
    fold alone. The one of all folds then makes as many steps at the same rates, so that it is as
    sure of itself as they are, and the flow that is learned from their probabilities fits its own.

    Where a time limit leaves no time for that, a single one, learned from all folds but the last.
    """
    check()
    if max(fit.folds) == 0:
        raise InputError(
            "expected labels in two tiles or more for a network, which is learned from all blocks "
            "but some, got 1 tile"
        )
    blocks = crops.blocks(fit)
    draw = Draw(crops.edge_of(blocks), *crops.moments(blocks), fit.span, fit.seed)
    last = max(fit.folds)
    seconds = min(60 * fit.minutes, fit.left(FITTED))
    if seconds < min(SHORT, 60 * fit.minutes) and fit.steps is None:
        fit.say({"stage": "time limit: one network, which the blocks of one fold judge"})
        groups = [int(fold == last) for fold in fit.folds]
        _check_classes(fit, blocks, groups, [1])
        learning = _Learning(fit, blocks, draw, groups, seconds, [1])
        return [Networked(learning.apart()[0])]
    of = groups_of(fit, blocks)
    groups = [of[fold] for fold in fit.folds]
    learning = _Learning(fit, blocks, draw, groups, seconds, [*range(max(of) + 1)])
    apart = [Networked(one) for one in learning.apart()]
    return [*(apart[of[fold]] for fold in range(last + 1)), Networked(learning.whole())]


def groups_of(fit: Fit, blocks: Sequence[Block]) -> list[int]:
    """Group of each fold: as few groups as there can be for each network to see all classes."""
    count = max(fit.folds) + 1
    for number in range(2, count + 1):
        found = [fold * number // count for fold in range(count)]
        groups = [found[fold] for fold in fit.folds]
        if not any(_missing(fit, blocks, groups, left_out) for left_out in range(number)):
            return found
    _check_classes(fit, blocks, fit.folds, range(count))
    raise AssertionError("a class is missing without one fold")


def _missing(fit: Fit, blocks: Sequence[Block], groups: Sequence[int], left_out: int) -> list[str]:
    seen: set[int] = set()
    for block, group in zip(blocks, groups, strict=True):
        if group != left_out:
            seen |= set(np.unique(block.targets).tolist())
    return [c.name for j, c in enumerate(fit.source.classes, 1) if j not in seen]


def _check_classes(
    fit: Fit, blocks: Sequence[Block], groups: Sequence[int], left_out: Sequence[int]
) -> None:
    for group in left_out:
        missing = _missing(fit, blocks, groups, group)
        if missing:
            raise InputError(
                f"expected labeled pixels of {', '.join(missing)} in more than one block of the "
                "training images: the network is learned from the other blocks"
            )


class _Learning:
    """Networks of groups, each learned from the other groups, and then one of all.

    Parameters
    ----------
    groups : of each block
    seconds : for all networks
    apart : the groups that a network is learned without
    """

    def __init__(
        self,
        fit: Fit,
        blocks: Sequence[Block],
        draw: Draw,
        groups: Sequence[int],
        seconds: float,
        apart: Sequence[int],
    ) -> None:
        self.fit, self.blocks, self.draw, self.seconds = fit, blocks, draw, seconds
        self.groups, self.left_out = groups, list(apart)
        # of a single network there is no other one to leave time for
        self.count = len(apart) + (len(apart) > 1)
        held = fit.held
        self.about = entry_of(held, "about", About) if "about" in held else About()
        self.before, self.began = self.about.seconds, clock.monotonic()
        self.found: list[dict[str, np.ndarray]] = []

    def apart(self) -> list[Network]:
        """The networks of the groups."""
        if self.about.apart:
            held = self.fit.held
            self.found = [_group(held, f"apart{n}/") for n in range(len(self.left_out))]
        else:
            seen, unseen = (
                [
                    [b for b, g in zip(self.blocks, self.groups, strict=True) if (g == one) == own]
                    for one in self.left_out
                ]
                for own in (False, True)
            )
            many = len(self.left_out)
            title = f"networks 1 to {many} of {self.count}" if many > 1 else "network"
            work = self._work(range(many), seen, unseen, title)
            about = self.about
            while about.part < 1 and about.stale < PATIENCE:
                self._step(work, self._part(many / self.count))
            self.found = work.best
            self.about = msgspec.structs.replace(about, step=0, part=0.0, stale=0, apart=True)
            self.fit.say(
                {
                    "stage": f"networks: {about.best_at} steps each; wrong where they have not "
                    f"seen it {100 * about.wrong:.2f} %"
                }
            )
            self._keep(None)
        return [self._network(one) for one in self.found]

    def whole(self) -> Network:
        """The network of all blocks, with as many steps as the others at the same rates."""
        about = self.about
        title = f"network {self.count} of {self.count}"
        work = self._work([self.count - 1], [list(self.blocks)], [[]], title)
        while about.step < about.best_at and (about.step < FEWEST or self.fit.left(FITTED) > 0):
            self._step(work, lambda: about.best_part * (about.step + 1) / about.best_at)
        return self._network(work.learners[0].weights())

    def _work(
        self,
        numbers: Sequence[int],
        seen: list[list[Block]],
        unseen: list[list[Block]],
        title: str,
    ) -> _Work:
        fit = self.fit
        channels, classes = len(self.draw.mean), len(fit.source.classes)
        made = [_unet().Learning(channels, classes, (fit.seed, n), fit.device) for n in numbers]
        found = _Work(made, seen, unseen, title, list(numbers))
        if self.about.step:
            found.go_on(fit.held)
        return found

    def _now(self) -> float:
        return self.before + clock.monotonic() - self.began

    def _part(self, share: float) -> Callable[[], float]:
        """The share of the steps that are made, by their number or by time."""
        about, fit = self.about, self.fit

        def part() -> float:
            if fit.left(FITTED) <= 0 and about.step + 1 >= FEWEST:
                return 1.0
            if fit.steps is not None:
                return (about.step + 1) / fit.steps
            time = self._now() / (share * self.seconds) if self.seconds > 0 else 1.0
            if about.step + 1 < FEWEST:
                time = min(time, (about.step + 1) / FEWEST)
            return max(time, (about.step + 1) / STEPS)

        return part

    def _step(self, work: _Work, part: Callable[[], float]) -> None:
        """One step of each network; where that is due, they are judged, and kept."""
        about = self.about
        rate = rate_at(about.part)
        for number, learner, blocks in zip(work.numbers, work.learners, work.seen, strict=True):
            learner.step(*self.draw.batch(blocks, BATCH, (number, about.step)), rate)
        before = int(about.part * CHECKS)
        about.part = min(part(), 1.0)
        about.step += 1
        self.fit.say(self._record(work))
        if int(about.part * CHECKS) > before:
            if any(work.unseen):
                self._judge(work)
            if about.part < 1 and about.stale < PATIENCE:
                self._keep(work)

    def _record(self, work: _Work) -> dict[str, Any]:
        """How far the networks at work are: in steps where their number is known, or in seconds."""
        about, fit = self.about, self.fit
        if about.apart:
            return {"stage": work.title, "done": about.step, "of": about.best_at}
        if fit.steps is not None:
            return {"stage": work.title, "done": about.step, "of": fit.steps}
        of = max(1, math.ceil(self.seconds * len(work.learners) / self.count))
        return {"stage": work.title, "done": min(of, int(about.part * of)), "of": of}

    def _judge(self, work: _Work) -> None:
        """Keep the weights if the parts that were not seen have less loss than ever."""
        loss, wrong, pixels = 0.0, 0, 0
        for number, learner, blocks in zip(work.numbers, work.learners, work.unseen, strict=True):
            for first in range(0, JUDGED, BATCH):
                count = min(BATCH, JUDGED - first)
                key = (number, LATER + first)
                given = self.draw.batch(blocks, count, key, vary=False)
                found = learner.judged(*given)
                loss, wrong = loss + found[0], wrong + found[1]
                pixels += int((given[1] >= 0).sum())
        about = self.about
        about.stale += 1
        if loss / pixels < about.best or not work.best:
            about.best, about.wrong, about.stale = loss / pixels, wrong / pixels, 0
            about.best_at, about.best_part = about.step, about.part
            work.best = [one.weights() for one in work.learners]

    def _keep(self, work: _Work | None) -> None:
        """Leave what an interrupted training goes on from."""
        self.about.seconds = self._now()
        found = {"about": np.array(json.dumps(msgspec.to_builtins(self.about)))}
        if work is not None:
            found |= work.state()
        if self.about.apart:
            for n, one in enumerate(self.found):
                found |= {f"apart{n}/{key}": value for key, value in one.items()}
        self.fit.keep(found)

    def _network(self, weights: Mapping[str, np.ndarray]) -> Network:
        notes = {
            "kind": "unet",
            "steps": self.about.best_at,
            "share": self.about.best_part,
            "unseen": self.about.wrong,
        }
        data = unet_onnx.exported(weights, self.draw.mean, self.draw.spread, notes)
        return unet_onnx.network_of(data)


def rate_at(part: float) -> float:
    """The rate after a part of the steps."""
    return RATE * min(1.0, part / WARM + 0.1) * decayed(part)


def decayed(part: float) -> float:
    """The share of a rate that falls to 0 over all steps."""
    return 0.5 * (1 + math.cos(math.pi * min(part, 1.0)))


def fitting_bytes(tiles: Sequence[LabeledTile], examples: Sequence[Example]) -> int:
    """Memory of learning in this process, besides that of PyTorch: blocks, and a step."""
    total = 0
    for one in tiles:
        image, core = examples[one.example].image, core_of(one)
        *planes, high, wide = (b.stop - b.start for b in core)
        pixels = math.prod(planes) * (high + 2 * crops.AROUND) * (wide + 2 * crops.AROUND)
        total += pixels * (image.used_channels * np.dtype(image.dtype).itemsize + 2)
    return total + PIXEL * BATCH * crops.EDGE**2


def working_bytes(image: Image, classes: int) -> int:
    """Memory that evaluating a network takes, from one that has learned nothing."""
    channels = image.used_channels
    made = _unet().Learning(channels, classes, (0,), "cpu").weights()
    data = unet_onnx.exported(made, np.zeros(channels), np.ones(channels), {})
    return unet_onnx.network_of(data).working_bytes(image)


def notes(term: DataTerm) -> dict[str, Any]:
    """How the network of a term was learned, for the notes of a model."""
    found = unet_onnx.notes_of(term.network) if isinstance(term, Networked | Averaged) else None
    return {} if found is None else {"network": found}
