"""Equal weights in volumes: within planes where these differ, across them where they are alike."""

import numpy as np
import pytest
from scipy import ndimage

from tiledlaf.flow import stencil
from tiledlaf.pool.opening import open_pool
from tiledlaf.training import examples
from tiledlaf.training.run import Data, Recipe, train


def blobs(rng, sections):
    """Smooth areas of two classes, (sections, 64, 64)."""
    smooth = ndimage.gaussian_filter(rng.normal(size=(sections, 64, 64)), (0, 4, 4))
    return (smooth > 0).astype(np.uint8) + 1


@pytest.mark.parametrize(("alike", "radius"), [(False, (0, 1, 1)), (True, (1, 1, 1))])
def test_planes_that_differ_are_left_alone(alike, radius):
    rng = np.random.default_rng(0)
    truth = np.repeat(blobs(rng, 1), 5, axis=0) if alike else blobs(rng, 5)
    image = (truth + rng.normal(0, 0.6, truth.shape)).astype(np.float32)
    data = Data(examples.pair(image, truth, axes="zyx"))
    recipe = Recipe(neighborhood="3x3x3", flow="uniform", steps=1, predictor_size=2)
    with open_pool(workers=1) as pool:
        model = train(data, recipe, pool)
    assert stencil.radius(model.offsets) == radius
