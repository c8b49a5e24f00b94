"""Images of fine and coarse noise with their labels, and what is learned from them."""

import numpy as np
from scipy import ndimage

import tiledlaf
from tiledlaf.model.classes import Class
from tiledlaf.pool import tasks
from tiledlaf.tiles import Grid
from tiledlaf.training import networks
from tiledlaf.training.judging import Bench
from tiledlaf.training.pixels import Fit, Source
from tiledlaf.training.worker import LabeledTile

CLASSES = (Class("fine", (1,)), Class("coarse", (2,)))


def textures(seed, shape=(48, 64)):
    """Fine and coarse noise, of the same mean and deviation, and which is where: 1 and 2."""
    rng = np.random.default_rng(seed)
    fine, coarse = (ndimage.gaussian_filter(rng.normal(size=shape), s) for s in (0, 2))
    where = ndimage.gaussian_filter(rng.normal(size=shape), 8)
    labels = np.where(where > np.median(where), 2, 1)
    image = np.where(labels == 2, coarse / coarse.std(), fine / fine.std())
    return (100 + 20 * image).astype(np.float32), labels.astype(np.uint8)


def fit_of(count=4, steps=40, labels=None, learn=networks.cross_fitted, **given):
    """What is needed to fit: each image is a fold, of two tiles; what is learned, and said."""
    pairs = [textures(seed) for seed in range(count)]
    drawn = [one for _, one in pairs] if labels is None else labels
    examples = [
        e for (image, _), one in zip(pairs, drawn, strict=True) for e in tiledlaf.pair(image, one)
    ]
    tiles = [
        LabeledTile(number, tile)
        for number in range(count)
        for tile in Grid((48, 64), (0, 0), (48, 64), (24, 64), (4, 4))
    ]
    folds, said = [tile.example for tile in tiles], []
    bench = Bench(folds, folds, np.ones(2))
    pool = tasks.threads(1)
    with pool as opened:
        source = Source(tuple(examples), given.pop("classes", CLASSES))
        fit = Fit(
            opened, source, tiles, folds, bench, 0, (40.0, 160.0), said.append, steps=steps, **given
        )
        return fit, learn(fit), said


def shares(term, example):
    """Probabilities of an image."""
    return term.probabilities_of(example.image).data[:, :, :]


def data_of(term="unet", count=4):
    pairs = [textures(seed) for seed in range(count)]
    examples = tiledlaf.pair([one for one, _ in pairs], [one for _, one in pairs])
    return tiledlaf.Data(examples, term=term)


RECIPE = {"network_steps": 10, "steps": 2, "predictor_size": 4}


def learned(path, progress=None, term="unet", **given):
    recipe = tiledlaf.Recipe(**{**RECIPE, **given})
    with tiledlaf.open_pool(workers=1) as pool:
        return tiledlaf.train(data_of(term), recipe, pool, path, progress=progress)


class Killed(Exception):
    pass
