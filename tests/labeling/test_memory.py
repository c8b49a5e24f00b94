"""Peak memory of a worker stays under the prediction, and the prediction is no guess."""

import json
import subprocess
import sys

import numpy as np
import pytest
import zarr
from command import run

from tiledlaf.labeling import records

CODE = """
import json, sys
from tiledlaf.files import images
from tiledlaf.flow import integrators
from tiledlaf.labeling import choice, run, sample
from tiledlaf.labeling.plan import Writing, make_plan
from tiledlaf.labeling.resources import open_pool, predicted_bytes
from tiledlaf.pool.opening import Running
from tiledlaf.model.settings import make_settings

case = json.loads(sys.argv[1])
image = images.open_image(case["image"])
given = case["probabilities"] and images.as_probabilities(case["probabilities"], image)
plan = make_plan(
    image, case["output"], tile=768, writing=Writing(confidence=True), probabilities=given or None,
    term=choice.data_term(case["classes"], None, given or None, 0),
    settings=make_settings(
        case["neighborhood"], 2, 1.0, 1.0, integrators.make(case["integrator"]), "cpu"
    ),
)
with open_pool(plan, Running(1, "threads")) as pool:
    records = []
    run.run(sample.settle(plan), pool, records.append)
print(max(r["peak_mib"] for r in records), predicted_bytes(plan.job) / 2**20)
"""


@pytest.mark.parametrize(
    ("classes", "probabilities", "neighborhood", "integrator"),
    [
        (3, None, "3x3", "taylor"),
        (None, 15, "3x3", "taylor"),
        pytest.param(2, None, "rings:3,7", "euler", marks=pytest.mark.slow),
        (3, None, "3x3", "krylov"),
        pytest.param(3, None, "3x3", "rkmk4", marks=pytest.mark.slow),
        pytest.param(3, None, "3x3", "sequence", marks=pytest.mark.slow),
    ],
)
def test_peak_is_under_the_prediction(tmp_path, classes, probabilities, neighborhood, integrator):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "image.npy", rng.integers(0, 255, (3, 820, 820)).astype(np.uint8))
    if probabilities:
        p = rng.integers(1, 255, (probabilities, 820, 820)).astype(np.uint8)
        np.save(tmp_path / "p.npy", p)
    case = {
        "image": str(tmp_path / "image.npy"),
        "output": str(tmp_path / "out.zarr"),
        "probabilities": probabilities and str(tmp_path / "p.npy"),
        "classes": classes,
        "neighborhood": neighborhood,
        "integrator": integrator,
    }
    found = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(case)], capture_output=True, text=True, check=True
    )
    peak, predicted = map(float, found.stdout.split())
    assert 0.3 * predicted < peak <= predicted


@pytest.mark.slow
def test_a_worker_does_not_grow(tmp_path):
    edge = 3200
    image = np.random.default_rng(0).integers(0, 255, (edge, edge)).astype(np.uint8)
    zarr.save_array(tmp_path / "image.zarr", image)
    found = run(
        "label",
        tmp_path / "image.zarr",
        tmp_path / "out.zarr",
        "--classes",
        "3",
        "--tile",
        "32",
        "--scheduler",
        "processes",
        "--workers",
        "1",
    )
    assert found.code == 0, found
    kept = tmp_path / "out.zarr" / "labels" / "tiledlaf" / "0" / records.NAME
    peaks = [r["peak_mib"] for r in records.read(kept).values()]
    assert len(peaks) == 10_000
    # Dask's logs of a worker are full by then: less than a kilobyte for each further tile
    assert peaks[-1] <= peaks[3000] + 5
