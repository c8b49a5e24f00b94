"""The package of docs/extending.md, installed beside this one and used as the page says."""

import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import zarr

from tiledlaf.registry import Registry

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"
SCRIPT = """
import numpy as np
import tiledlaf
from extras.darkness import Darkness
from extras.midpoint import Midpoint

image = np.load("image.npy")
given = {"neighborhood": "3x3", "integrator": Midpoint(3), "axes": "yx"}
whole = tiledlaf.label(image, term=Darkness(128.0), **given)
np.testing.assert_array_equal(whole, tiledlaf.label(image, term="darkness:128", tile=16, **given))
np.testing.assert_array_equal(whole, tiledlaf.label("image.pgm", term=Darkness(128.0), **given))
np.save("whole.npy", whole)
model = tiledlaf.load("dark.model")
assert model.term == Darkness(128.0)
np.save("learned.npy", tiledlaf.label(image, model=model, axes="yx"))
"""


def gray_map(path, pixels):
    path.write_bytes(b"P5\n%d %d\n255\n" % pixels.shape[::-1] + pixels.tobytes())


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder where the package is installed, with an image and labels."""
    folder = tmp_path_factory.mktemp("extending")
    blocks = re.findall(r"```(?:python|toml)\n# (\S+)\n(.*?)```", PAGE.read_text(), re.DOTALL)
    files = dict(blocks)
    assert len(files) == 7
    (folder / "extras").mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    project = tomllib.loads(files["pyproject.toml"])["project"]
    # as an installer leaves it
    info = folder / "extras-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: extras\nVersion: 1.0\n")
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines))
    rng = np.random.default_rng(0)
    truth = np.kron(rng.integers(0, 2, (6, 7)), np.ones((8, 8))).astype(np.uint8)
    image = np.clip(70 + 110 * truth + rng.normal(0, 60, truth.shape), 0, 255).astype(np.uint8)
    gray_map(folder / "image.pgm", image)
    gray_map(folder / "labels.pgm", truth)
    np.save(folder / "image.npy", image)
    return folder


def python(home, *arguments):
    path = os.pathsep.join([str(home), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=home,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )


def test_one_of_each(home):
    """Through the command, with worker processes, and in Python; by tiles as whole."""
    found = python(home, "-m", "tiledlaf", "--help")
    assert "Count the pixels of each label value." in found.stdout
    found = python(home, "-m", "tiledlaf", "count", "labels.pgm")
    truth = np.fromfile(home / "labels.pgm", np.uint8)[-48 * 56 :].reshape(48, 56)
    assert found.stdout == f"0: {(truth == 0).sum()}\n1: {(truth == 1).sum()}\n"
    label = ["label", "image.pgm", "out.zarr", "--term", "darkness:128", "--tile", "16"]
    options = ["--integrator", "midpoint", "--steps", "3", "--scheduler", "processes"]
    found = python(home, "-m", "tiledlaf", *label, *options, "--workers", "2")
    assert found.returncode == 0, found.stderr
    found = python(home, "-m", "tiledlaf", "export", "out.zarr", "areas.html")
    assert found.returncode == 0, found.stderr
    assert (home / "areas.html").read_text().startswith("<li>class 1: ")
    learn = ["train", "dark.model", "--images", "image.pgm", "--labels", "labels.pgm"]
    options = ["--term", "darkness:128", "--loss", "brier", "--steps", "20", "--size", "8"]
    found = python(home, "-m", "tiledlaf", *learn, *options)
    assert found.returncode == 0, found.stderr
    found = python(home, "-c", SCRIPT)
    assert found.returncode == 0, found.stderr
    whole = np.load(home / "whole.npy")
    np.testing.assert_array_equal(zarr.open_array(home / "out.zarr/labels/tiledlaf/0")[:], whole)
    alone = np.load(home / "image.npy") > 128
    learned = np.load(home / "learned.npy") - 1
    errors = [float((labels != truth).mean()) for labels in (alone, whole - 1, learned)]
    assert errors[2] <= errors[1] < errors[0], errors


def test_a_model_file_causes_no_import(home):
    """Without the package its kinds are refused by name; another module is not looked for."""
    code = (
        "import sys, tiledlaf\n"
        "from tiledlaf.model import terms\n"
        "try:\n    terms.term_from({'kind': 'antigravity:Term'}, {})\n"
        "except ValueError as error:\n    print(error)\n"
        "print('antigravity' in sys.modules)"
    )
    found = python(home, "-c", code)
    said, imported = found.stdout.splitlines()
    assert "got 'antigravity:Term' (is the package that adds it installed?)" in said
    assert "darkness" in said
    assert imported == "False"


class Point:
    """An entry point."""

    def __init__(self, name, value, found=None):
        self.name, self.value, self._found = name, value, found

    def load(self):
        if self._found is None:
            raise ImportError("no module named gone")
        return self._found


def test_entry_points_that_do_not_work(monkeypatch):
    points = [Point("own", "other:Thing", 1), Point("broken", "gone:Thing"), Point("new", "a:b", 2)]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points)
    registry = Registry("tiledlaf.things", {"own": 0})
    with pytest.warns(UserWarning, match="is left out") as said:
        assert dict(registry) == {"own": 0, "new": 2}
    texts = [str(one.message) for one in said]
    assert (
        texts[0]
        == "entry point own of tiledlaf.things (other:Thing) is left out: the name is taken"
    )
    assert texts[1].endswith("(gone:Thing) is left out: ImportError: no module named gone")
