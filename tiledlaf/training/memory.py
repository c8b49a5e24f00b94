"""What memory a training needs, from its plan: so that it is refused before it starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import NotEnoughMemory
from ..model import bands
from ..model.features import RICH, SURROUNDINGS, Features, odds_planes
from ..pool import opening
from ..pool.tasks import Pool
from ..tiles import Box, size, wider
from . import classifiers, learning, networks
from .examples import Example
from .plan import TrainingPlan
from .worker import KEPT, LabeledTile

PROCESS_BYTES = 400 * 2**20  # this program with its libraries, and what it does not give back
PLANES = 36  # of a window, at most at once where features are found at some places alone
NODES = 31 * 256 * 20  # bytes of the histograms of a tree's leaves, for each feature
BINNED = 200_000  # pixels that bins are found from: copied where there are more
KMEANS = 24  # bytes of a number that anchors are found from: twice as float32 and as float64


@dataclass(frozen=True)
class Need:
    """Bytes at most.

    Attributes
    ----------
    here : of this process
    worker : of each other process; 0 where threads of this one do all
    """

    here: int
    worker: int


@dataclass(frozen=True)
class _Sizes:
    """What the memory of a plan's tiles depends on."""

    plan: TrainingPlan
    channels: int
    itemsize: int

    @property
    def classes(self) -> int:
        return len(self.plan.flow.classes)

    def count(self, features: Features) -> int:
        return features.count(self.channels, odds_planes(self.classes))


def predicted(plan: TrainingPlan, examples: Sequence[Example], pool: Pool) -> Need:
    """What a training needs in its most demanding stage."""
    image = examples[0].image
    found = _Sizes(plan, image.used_channels, np.dtype(image.dtype).itemsize)
    trees, made, loaded = plan.learner.trees, 0, 0
    fits = _fits(found) if trees else 0
    if plan.learner.network:
        fits, loaded = max(fits, networks.fitting_bytes(plan.training, examples)), networks.LOADED
        made = networks.working_bytes(image, found.classes)
    anchors = KMEANS * learning.SAMPLES * found.count(plan.features)
    held, flows = _held(found, examples), _flows(found)
    sampling = _most(found, examples, _sampling) if trees else 0
    reading, step = _most(found, examples, _reading), _most(found, examples, _step)
    here = max(fits, anchors)
    process = PROCESS_BYTES + max(made, _reading_probabilities(examples))
    if pool.shared:
        workers = min(pool.workers, len(plan.training))
        tiles = held + max(workers * reading, workers * step + flows, anchors)
        return Need(process + loaded + max(fits, workers * sampling, tiles), 0)
    parts = min(pool.workers, len(plan.training) + len(plan.validation))
    # Dask may give one worker twice as many tiles as another
    own = 2 * (held + flows) // parts if parts > 1 else held + flows
    return Need(PROCESS_BYTES + loaded + here, process + max(sampling, own + max(reading, step)))


def _reading_probabilities(examples: Sequence[Example]) -> int:
    """Of probabilities whose reading takes memory, as those of a network do."""
    given = [one.probabilities for one in examples if one.probabilities is not None]
    return max((one.reader.held(one.path) for one in given), default=0)


def _fits(sizes: _Sizes) -> int:
    """Of the pixels that classifiers are fitted to, and of fits beside each other."""
    plan, found = sizes.plan, []
    folds = max(plan.folds) + 1
    for features, most in ((RICH, classifiers.SAMPLES), (SURROUNDINGS, classifiers.MORE)):
        many = sizes.count(features)
        share = -(-min(most, classifiers.NUMBERS // many) // len(plan.training))
        each = -(-share // (classifiers.VARIANTS + 1))
        labeled = [sum(plan.counts[one.example, one.tile.index]) for one in plan.training]
        pixels = sum(min(each, n) for n in labeled) * (classifiers.VARIANTS + 1)
        at_once = min(classifiers.AT_ONCE, opening.cores(), folds + 1)
        # the folds in a circle, as float64; before fits as float32 as well
        circle = 8 * many * pixels * (2 * folds - 2) // folds
        fit = pixels * (many + 24 * sizes.classes) + NODES * many
        fit += 8 * many * BINNED * (pixels > BINNED)
        found.append(circle + max(4 * many * pixels, at_once * fit))
    return max(found)


def _held(sizes: _Sizes, examples: Sequence[Example]) -> int:
    """Of all tiles that were read."""
    pixel = sizes.channels * sizes.itemsize * sizes.plan.features.needs("image")
    total = 0
    for one in (*sizes.plan.training, *sizes.plan.validation):
        seen = _around(one, examples, sizes.plan.features.radius)
        total += seen * (pixel + 4 * sizes.classes) + 2 * size(one.tile.window)
    return total


def _flows(sizes: _Sizes) -> int:
    """Of the flows of a batch, and their features, which are kept for their gradients."""
    plan, most = sizes.plan, 0
    everything = [*plan.training, *plan.validation]
    for one in plan.rounds:
        for batch in one.batches:
            windows = [size(everything[i].tile.window) for i in batch]
            flows = plan.flow.held_bytes(sum(windows))
            if flows <= learning.FLOWS:
                features = [4 * n * sizes.count(plan.features) for n in windows]
                most = max(most, flows + sum(n for n in features if n <= KEPT))
    return most


def _around(one: LabeledTile, examples: Sequence[Example], reach: int) -> int:
    """Pixels of a tile's window and up to so many beyond it."""
    window = one.tile.window
    wide = (0,) * (len(window) - 2) + (reach,) * 2
    return size(wider(window, examples[one.example].image.grid, wide))


def _most(
    sizes: _Sizes,
    examples: Sequence[Example],
    of: Callable[[_Sizes, Sequence[Example], LabeledTile], int],
) -> int:
    everything = (*sizes.plan.training, *sizes.plan.validation)
    return max(of(sizes, examples, one) for one in everything)


def _sampling(sizes: _Sizes, examples: Sequence[Example], one: LabeledTile) -> int:
    """Of a worker that computes features of some pixels, of the image or of a first classifier."""
    grid, core = examples[one.example].image.grid, one.tile.core
    wide = (0,) * (len(core) - 2) + (RICH.radius + SURROUNDINGS.radius,) * 2
    window = wider(core, grid, wide)
    planes = PLANES + 2 * sizes.channels + 4 * sizes.classes
    return 4 * planes * size(window) + _band(sizes, RICH, window)


def _band(sizes: _Sizes, features: Features, window: Box) -> int:
    """Of features in bands, and of one of them with the rows around these."""
    shape = tuple(b.stop - b.start for b in window)
    many = sizes.count(features)
    rows = bands.row_count(many, shape, shape[-2])
    wide = min(shape[-2], rows + 2 * features.radius)
    return 4 * size(window) // shape[-2] * (many * rows + PLANES * wide)


def _reading(sizes: _Sizes, examples: Sequence[Example], one: LabeledTile) -> int:
    """Of a worker that reads a tile and computes its data term."""
    plan, window = sizes.plan, one.tile.window
    grid, reach = examples[one.example].image.grid, plan.features.radius
    band = 0
    if plan.learner.trees:
        reach += RICH.radius + SURROUNDINGS.radius
        band = max(_band(sizes, RICH, window), _band(sizes, SURROUNDINGS, window))
    wide = (0,) * (len(window) - 2) + (reach,) * 2
    planes = 2 * sizes.channels + 6 * sizes.classes
    return 4 * planes * size(wider(window, grid, wide)) + band


def _step(sizes: _Sizes, examples: Sequence[Example], one: LabeledTile) -> int:
    """Of a worker that computes the gradient of a tile."""
    plan, pixels = sizes.plan, size(one.tile.window)
    seen = _around(one, examples, plan.features.radius)
    many = sizes.count(plan.features)
    features = 4 * many * (seen + 2 * pixels)
    if 4 * many * pixels > KEPT:
        features = 2 * _band(sizes, plan.features, one.tile.window)
    # the flow, what its gradient needs as much again, and the gradient in the weights
    return features + 2 * plan.flow.held_bytes(pixels) + 4 * len(plan.flow.offsets) * pixels


def line(need: Need) -> str:
    """What is said before a training starts."""
    more = f", and of each worker {need.worker / 2**20:.0f} MiB" if need.worker else ""
    return f"memory: about {need.here / 2**20:.0f} MiB{more}"


def check(need: Need, pool: Pool) -> None:
    """Refuse a training that cannot fit into memory.

    Raises
    ------
    ValueError
        Gives what is needed and what is there.
    """
    pairs = (("training", need.here, opening.memory()), ("a worker", need.worker, pool.memory))
    for what, bytes_, there in pairs:
        if there is not None and bytes_ > there:
            raise NotEnoughMemory(
                f"{what} would need {bytes_ / 2**20:.0f} MiB and may use {there / 2**20:.0f} MiB; "
                "take fewer images or `workers`, or label smaller parts of them"
            )
