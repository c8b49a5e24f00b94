"""What progress is told to is checked before any work."""

import numpy as np
import pytest

import tiledlaf

IMAGE = np.random.default_rng(0).normal(0, 1, (16, 16))
EXPECTED = "`progress` expects a function of one record, got 5"


@pytest.mark.parametrize("output", [None, "out.zarr"])
def test_labeling(output, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(tiledlaf.InputError, match=EXPECTED):
        tiledlaf.label(IMAGE, output, classes=2, progress=5)
    assert not list(tmp_path.iterdir())


def test_learning(tmp_path):
    (example,) = tiledlaf.pair(IMAGE, (IMAGE > 0) + 1)
    with tiledlaf.open_pool(workers=1) as pool:
        with pytest.raises(tiledlaf.InputError, match=EXPECTED):
            tiledlaf.train(tiledlaf.Data([example]), tiledlaf.Recipe(steps=1), pool, progress=5)
        with pytest.raises(tiledlaf.InputError, match=EXPECTED):
            tiledlaf.estimate(
                example, "means", tmp_path / "w.zarr", tiledlaf.Estimation(), pool, progress=5
            )
