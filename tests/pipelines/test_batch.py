"""The pipeline of batches at its small size."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow  # six starts of the command
def test_a_batch_that_is_killed_gives_the_same_labels(tmp_path):
    found = subprocess.run(
        [sys.executable, "pipelines/batch.py", "--small", "--output", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    about = json.loads((tmp_path / "batch.json").read_text())
    assert about["batch"]["code"] == about["resumed"]["code"] == 1  # of the damaged slide
    assert about["damaged"] in about["said of the damaged one"]
    assert about["killed"]["code"] < 0
    assert 0 < about["killed"]["states"]["complete"] < about["effort"]["slides"] - 1
    assert about["same labels"]
    assert about["last lines"][0] == "images: 5 complete, 0 with failed tiles, 1 not labeled"
