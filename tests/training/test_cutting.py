"""Examples are cut into tiles, and these into batches."""

import math

import numpy as np
import pytest

from tiledlaf.pool import opening
from tiledlaf.training import cutting, rounds
from tiledlaf.training.examples import pair
from tiledlaf.training.plan import Data, Recipe, make_plan
from tiledlaf.training.worker import core_of

SHAPES = [(1020, 1500), (512, 512), (90, 1500), (60, 60), (60, 60)]


def planned(shapes, axes="yx", **recipe):
    rng = np.random.default_rng(0)
    labels = [rng.integers(1, 3, shape) for shape in shapes]
    data = Data(pair([one.astype(np.uint8) for one in labels], labels, axes=axes))
    with opening.open_pool(workers=1) as pool:
        return make_plan(data, Recipe(**recipe), pool)


def edges(box):
    return [b.stop - b.start for b in box]


def area(box):
    return math.prod(edges(box))


@pytest.fixture(scope="module")
def plan():
    return planned(SHAPES)


def test_tiles(plan):
    """Each pixel lies in one core, and no core is longer than a step should be."""
    seen = [np.zeros(shape, int) for shape in SHAPES]
    for one in plan.training:
        core = core_of(one)
        assert all(a <= b for a, b in zip(edges(core), cutting.EDGES, strict=True))
        seen[one.example][core] += 1
    assert all((one == 1).all() for one in seen)


def test_batches(plan):
    """All tiles are in one batch each, of one image; of more than two only if these are small."""
    assert plan.whole is not None
    for one in (*plan.rounds, plan.whole):
        for batch in one.batches:
            tiles = [plan.training[i] for i in batch]
            assert len({tile.example for tile in tiles}) == 1
            assert len(batch) <= rounds.BATCH
            assert len(batch) < 3 or sum(area(core_of(t)) for t in tiles) <= rounds.PIXELS
        assert sorted(i for batch in one.batches for i in batch) == one.training
    assert sorted(plan.whole.training) == list(range(len(plan.training)))
    counts = [len(batch) for batch in plan.whole.batches]
    assert counts[6] == 2  # halves of 512 x 512 are learned from together
    assert counts[:6] == [2] * 6  # so are parts of a large image


def test_volumes():
    """Where neighbors are in other planes, a step takes several of them."""
    deep = planned([(40, 300, 300)], "zyx", neighborhood="3x3x3")
    cores = [edges(core_of(one)) for one in deep.training]
    assert max(cores) == [16, 50, 150]
    assert deep.whole is not None
    assert all(len(batch) > 1 for batch in deep.whole.batches[:-1])
    assert sum(area(core_of(one)) for one in deep.training) == 40 * 300 * 300
