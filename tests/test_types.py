"""A user's script with strict types, by public names alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
from pathlib import Path

import numpy as np
import tiledlaf
from tiledlaf import stencil


def learned(images: str, labels: str, path: Path) -> tiledlaf.Model:
    examples: list[tiledlaf.Example] = tiledlaf.pair(images, labels)
    data = tiledlaf.Data(examples, term="means")
    recipe = tiledlaf.Recipe(neighborhood="5x5", steps=10)
    with tiledlaf.open_pool(workers=2) as pool:
        return tiledlaf.train(data, recipe, pool, path, limit=5.0)


def estimated(example: tiledlaf.Example, path: Path) -> float:
    how = tiledlaf.Estimation(steps=3)
    with tiledlaf.open_pool() as pool:
        return tiledlaf.estimate(example, "means", path, how, pool).losses[-1]


def composed(weights: np.ndarray, distances: np.ndarray) -> tuple[int, ...]:
    layer = tiledlaf.Layer(weights, distances, stencil.box(3, 3), time=1.0)
    found = tiledlaf.compose([layer, layer], [np.eye(3)], way=tiledlaf.Spaces(rank=1))
    gradient = tiledlaf.linearize(
        weights, distances, stencil.box(3, 3), way=tiledlaf.Polynomials()
    ).gradient(found.z[-1])
    return gradient.rank, len(found.z)


def labeled(path: str, model: tiledlaf.Model) -> tiledlaf.Summary:
    try:
        summary: tiledlaf.Summary = tiledlaf.label(path, "out.zarr", model=model, workers=2)
    except tiledlaf.OutputBelongsElsewhere:
        summary = tiledlaf.label(path, "other.zarr", model=model, integrator=tiledlaf.Taylor(1e-3))
    return summary


score: float = tiledlaf.evaluate("out.zarr", "truth.png").mean_f1
cells: tuple[tiledlaf.ObjectScores, ...] = tiledlaf.evaluate(
    "out.zarr", "cells.geojson", objects=["cell"], outside="background"
).objects
quality: float = cells[0].panoptic
"""
WRONG = "import tiledlaf\ntiledlaf.Recipe(steps='many')\ntiledlaf.lable\n"


def test_a_script_has_types(tmp_path):
    """Checked as for an installed package; wrong calls are seen."""
    pytest.importorskip("mypy", reason="mypy is not installed")
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "wrong.py").write_text(WRONG)
    # libraries without types are none of a user's errors, nor is what is installed
    settings = "[mypy]\nignore_missing_imports = True\n[mypy-tiledlaf.*]\nfollow_imports = silent\n"
    (tmp_path / "mypy.ini").write_text(settings)
    options = ["--strict", "--cache-dir", "cache", "script.py", "wrong.py"]
    found = subprocess.run(
        [sys.executable, "-m", "mypy", *options],
        cwd=tmp_path,
        env=os.environ | {"MYPYPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    wrong, other, summary = found.stdout.splitlines()
    assert 'Argument "steps" to "Recipe" has incompatible type "str"' in wrong
    assert 'Module has no attribute "lable"' in other
    assert summary.startswith("Found 2 errors in 1 file")
