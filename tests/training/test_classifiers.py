"""Classifiers fitted to labeled pixels: which pixels, of which images, and one or two stages."""

import dataclasses
import math

import numpy as np
import pytest
from voronoi import lines

import tiledlaf
from tiledlaf.model import trees
from tiledlaf.model.classes import Class
from tiledlaf.model.features import Features
from tiledlaf.model.terms import AutoContext, Classified
from tiledlaf.pool import tasks
from tiledlaf.tiles import Grid
from tiledlaf.training import classifiers
from tiledlaf.training.judging import Bench
from tiledlaf.training.pixels import Fit, Source
from tiledlaf.training.worker import LabeledTile

CLASSES = (Class("cell", (0,)), Class("line", (1,)))
SMALL = Features((("image", "patch", 0, 1, 0), ("image", "gaussian", 1.5)))
AROUND = Features(
    (
        ("odds", "patch", 2, 2, 1),
        ("odds", "gaussian", 2),
        ("odds", "eigenvalues", 1.5),
        ("odds", "eigenvalues", 3),
    )
)


def source(count=1, noise=0.6):
    pairs = [lines((64, 72), cells=10, noise=noise, seed=seed) for seed in range(count)]
    examples = [e for image, labels in pairs for e in tiledlaf.pair(image, labels)]
    tiles = [
        LabeledTile(number, tile)
        for number in range(count)
        for tile in Grid((64, 72), (0, 0), (64, 72), (32, 72), (4, 4))
    ]
    return Source(tuple(examples), CLASSES), tiles


def test_the_image_as_it_is_comes_first():
    given, tiles = source()
    sampling = classifiers.Sampling(given, SMALL, 300, 0, (0.0, 1.0))
    found = classifiers._rows(sampling, (1, tiles[1], 0))
    image = given.examples[0].image.read((slice(0, 64), slice(0, 72)))
    whole = SMALL.compute(image).reshape(3 - 1, -1).T
    assert found.own == 100
    assert len(found.features) == len(found.labels) == 300
    known = {row.tobytes() for row in whole[32 * 72 :]}
    same = [row.tobytes() in known for row in found.features]
    assert same == [True] * 100 + [False] * 200
    still = classifiers._rows(dataclasses.replace(sampling, span=None), (1, tiles[1], 0))
    assert still.own == len(still.features) == 300


def test_few_pixels_are_all_taken_in_each_variant():
    given, tiles = source()
    found = classifiers._rows(
        classifiers.Sampling(given, SMALL, 10**6, 0, (0.0, 1.0)), (0, tiles[0], 0)
    )
    assert found.own == 32 * 72
    assert len(found.features) == 3 * found.own


@pytest.fixture
def quick(monkeypatch):
    """Few features, pixels and trees."""
    monkeypatch.setattr(classifiers, "RICH", SMALL)
    monkeypatch.setattr(classifiers, "SURROUNDINGS", AROUND)
    monkeypatch.setattr(classifiers, "SAMPLES", 6000)
    monkeypatch.setattr(classifiers, "MORE", 6000)
    fit = trees.fit
    monkeypatch.setattr(trees, "fit", lambda *args: fit(*args, iterations=40))


def fitted(left=lambda share: math.inf, count=4, noise=0.6):
    given, tiles = source(count, noise)
    folds = [tile.example for tile in tiles]
    said = []
    with tasks.threads(2) as pool:
        bench = Bench(folds, folds, np.ones(2))
        span = (0.0, 1.0)
        fit = Fit(pool, given, tiles, folds, bench, 0, span, said.append, left)
        return classifiers.out_of_fold(fit), said


def test_a_second_one_where_it_errs_less(quick):
    found, said = fitted(noise=2)
    assert len(found) == 5
    assert all(isinstance(term, AutoContext) for term in found)
    assert said[-1]["stage"].endswith(": two")
    assert {record["of"] for record in said[:-1]} == {8, 5}


def test_one_where_that_does(quick, monkeypatch):
    blind = Features((("image", "gaussian", 30),))
    monkeypatch.setattr(classifiers, "SURROUNDINGS", blind)
    found, said = fitted()
    assert all(isinstance(term, Classified) for term in found)
    assert said[-1]["stage"].endswith(": one")


@pytest.mark.parametrize("alike", [True, False])
def test_gray_pictures_with_three_channels(quick, alike):
    """Their features are computed once, unless a single pixel says that they have colors."""
    given, tiles = source(3)
    colored = []
    for example in given.examples:
        plane = example.image.read((slice(0, 64), slice(0, 72)))[0]
        planes = np.stack([plane] * 3, axis=-1)
        if not alike and not colored:
            planes[40, 50, 1] += 1
        labels = example.labels.read((slice(0, 64), slice(0, 72)))[0]
        colored += tiledlaf.pair([planes], [labels])
    given = dataclasses.replace(given, examples=tuple(colored))
    folds = [tile.example for tile in tiles]
    with tasks.threads(2) as pool:
        fit = Fit(pool, given, tiles, folds, Bench(folds, folds, np.ones(2)), 0, None, print)
        found = classifiers.out_of_fold(fit)
    one = found[0].first if isinstance(found[0], AutoContext) else found[0]
    assert one.features == (SMALL.of_mean() if alike else SMALL)
    assert one.trees.features == SMALL.count(1 if alike else 3, 0)


def test_one_where_time_is_short(quick):
    found, said = fitted(lambda share: 0 if share == classifiers.SECOND else math.inf)
    assert len(found) == 5
    assert all(isinstance(term, Classified) for term in found)
    assert "time limit" in said[-1]["stage"]


def test_one_fit_where_time_is_shorter(quick):
    """All tiles are read, and the last fold judges the first classifier."""
    found, said = fitted(lambda share: 0 if share == classifiers.FITTED else math.inf)
    (term,) = found
    assert isinstance(term, Classified)
    assert [r["done"] for r in said if r.get("stage") == "features"][-1] == 8
    assert "one fold" in said[-1]["stage"]


def test_few_tiles_where_time_is_shortest(quick):
    """Tiles are read until each class and the last fold are there; one fit at least is made."""
    found, said = fitted(lambda share: 0, count=8)
    (term,) = found
    assert isinstance(term, Classified)
    read = [record["done"] for record in said if record.get("stage") == "features"]
    assert 2 <= read[-1] < 16
    assert "one fold" in said[-1]["stage"]


def test_samples_in_a_circle():
    """The pixels of all folds but any one, and of all, stand in a row."""
    folds = [0, 0, 1, 2, 2, 3]
    rows = {
        i: classifiers.Rows(np.full((i + 1, 1), i, np.float32), np.full(i + 1, i), 1)
        for i in range(len(folds))
    }
    found = classifiers._arranged(rows, folds)
    for fold in range(5):
        kept = [i for i in rows if folds[i] != fold]
        part = found.without(fold)
        assert sorted(found.labels[part]) == sorted(i for i in kept for _ in range(i + 1))
        np.testing.assert_array_equal(found.features[part, 0], found.labels[part])
    assert [found.labels[own].tolist() for own in found.own] == [[i] for i in rows]


def test_memory_bounds_the_sample(quick, monkeypatch):
    monkeypatch.setattr(classifiers, "NUMBERS", 2 * 800)
    given, tiles = source(2)
    fit = Fit(None, given, tiles, [0, 1], Bench([0], [0]), 0, None, print)
    assert classifiers._sampling(fit, SMALL, 10**6).count == 800 // len(tiles)
    assert classifiers._sampling(fit, SMALL, 100).count == 100 // len(tiles)
