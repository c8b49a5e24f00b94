"""The paper's experiments at their small size: what they claim, from the tables they leave."""

import csv
import json
import subprocess
import sys
from collections import defaultdict
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import voronoi
from scipy.stats import norm

from tiledlaf.flow import stencil

pytestmark = pytest.mark.slow  # experiments: whole pipelines of many processes
ROOT = Path(__file__).parents[2]
PAPER, OURS = "low rank: m = 10, r = 1", "fixed coefficients"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("matplotlib", reason="matplotlib draws the figures")
    return tmp_path_factory.mktemp("paper")


def start(name, folder):
    """One small run: its tables, with numbers as such, and its record."""
    found = subprocess.run(
        [sys.executable, f"pipelines/{name}.py", "--small", "--output", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    record = json.loads((folder / f"{name}.json").read_text())
    assert record["small"] is True
    with PIL.Image.open(folder / f"{name}.png") as picture:
        assert picture.width > 600
        pixels = np.asarray(picture.convert("RGB"))
        assert pixels.mean(axis=2).std() > 10
        # a picture of noise has its grays
        gray = pixels[(pixels == pixels[..., :1]).all(axis=2)][:, 0]
        assert len(np.unique(gray)) > 16
    assert (folder / f"{name}.png").stat().st_size < 330_000
    page = (folder / "README.md").read_text()
    assert f"`python pipelines/{name}.py --small --output DIR`" in page
    for claim in record["claims"]:
        assert f"| {claim['what']} | {claim['paper']} | {claim['here']} |" in page
    return [table(folder / f"{t}.csv") for t in record["tables"]]


def table(path):
    def value(text):
        try:
            return float(text)
        except ValueError:
            return text

    with path.open(newline="") as file:
        return [{k: value(v) for k, v in row.items()} for row in csv.DictReader(file)]


def pick(rows, **wanted):
    return [r for r in rows if all(r[k] == v for k, v in wanted.items())]


def test_images(folder):
    (rows,) = start("voronoi", folder)
    assert len(rows) == 20
    assert len(pick(rows, scenario="lines", part="training")) == 5
    for row in pick(rows, scenario="cells"):
        assert 4 <= row["present"] <= row["labels"] == 8
        assert 47 < row["locally wrong %"] < 53
    for row in pick(rows, scenario="lines"):
        assert row["present"] == 2
        # 0.5 / 0.3 standard deviations
        assert abs(row["locally wrong %"] - 100 * norm.sf(0.5 / 0.3)) < 1.5


def test_noise_is_of_the_image_alone():
    for scenario in voronoi.SCENARIOS:
        noisy, clean = scenario.picture(48, 3), scenario.picture(48, 3, noise=0.0)
        np.testing.assert_array_equal(noisy.target, clean.target)
        np.testing.assert_array_equal(noisy.clean, clean.image)
        assert clean.locally_wrong == 0
        assert np.std(noisy.image - noisy.clean) == pytest.approx(scenario.noise, rel=0.05)
        assert (scenario.picture(48, 4).target != noisy.target).any()


def test_figure_1(folder):
    (rows,) = start("rounding", folder)
    assert {r["scenario"] for r in rows} == {"lines", "cells"}
    for row in rows:
        assert row["learned %"] < 0.1
        assert row["uniform %"] > 1
    for row in pick(rows, scenario="cells"):
        assert row["uniform %"] < row["local %"] / 5
    for row in pick(rows, scenario="lines"):
        assert row["lines missed, uniform %"] > 1.5 * row["lines missed, local %"]


def test_figure_2(folder):
    pytest.importorskip("torch", reason="PyTorch differentiates automatically")
    rows, costs, large = start("gradients", folder)
    curves = defaultdict(dict)
    for row in rows:
        curves[row["scenario"], row["noise"] > 0].setdefault(row["method"], []).append(row)
    assert len(curves) == 4
    for by_name in curves.values():
        assert len(by_name) == 5
        wrong = {name: np.array([r["wrong %"] for r in c]) for name, c in by_name.items()}
        first = wrong[PAPER][0]
        for name, curve in wrong.items():
            assert curve[-1] < 0.15 * first, name
        # the same path, whoever differentiates
        for name in ("automatic: Krylov", OURS):
            assert abs(wrong[name] - wrong[PAPER]).max() < 0.05 * first + 0.13  # two pixels
        losses = {name: np.array([r["loss"] for r in c]) for name, c in by_name.items()}
        np.testing.assert_allclose(losses[PAPER], losses["automatic: Krylov"], rtol=0.05)
        np.testing.assert_allclose(losses[OURS], losses["automatic: Krylov"], rtol=0.005)
        assert (np.diff(losses["Riemannian descent"]) <= 1e-6).all()
        steps = {name: int((curve > 0.1).sum()) for name, curve in wrong.items()}
        assert 0 < steps["Riemannian descent"] < steps[PAPER]
    for row in costs:
        if row["method"] != OURS:
            assert row["times ours"] > 3
            assert row["memory times ours"] > 1.5
    for row in large:
        assert row["wrong after %"] <= 0.1 < row["wrong before %"]
        assert row["seconds"] < 10


def test_figure_3(folder):
    pytest.importorskip("torch", reason="PyTorch differentiates automatically")
    (every,) = start("cosine", folder)
    for way in ("exact (m = 30)", "fixed coefficients, rank chosen"):
        for row in pick(every, reference="plain", way=way):
            (better,) = pick(
                every,
                **{
                    **{k: row[k] for k in ("scenario", "seed", "T", "way")},
                    "reference": "extrapolated",
                },
            )
            assert better["relative error"] < row["relative error"] / 3
    for row in pick(every, reference="extrapolated", T=10):
        if "chosen" in row["way"]:
            assert row[">= 0.999 %"] > 99
        elif "rank 1" in row["way"]:
            (short,) = pick(
                every,
                **{
                    **{k: row[k] for k in ("scenario", "seed", "way")},
                    "T": 5,
                    "reference": "extrapolated",
                },
            )
            assert row["relative error"] > 2 * short["relative error"]
    rows = pick(every, reference="extrapolated", T=5)
    assert len(rows) == 10
    for name in ("two spaces, m = 10", "fixed coefficients"):
        for row in pick(rows, way=f"{name}, rank 1"):
            assert row["rank"] == 1
            assert row[">= 0.9 %"] > 99
            # what is left has small gradients
            assert row["energy < 0.9 %"] < 0.01
        for row in pick(rows, way=f"{name}, rank chosen"):
            assert 2 <= row["rank"] <= 5
            assert row[">= 0.999 %"] == 100
            assert row["relative error"] < 2e-3
    (paper,) = pick(rows, way="two spaces, m = 10, rank 1", scenario="lines")
    assert paper[">= 0.999 %"] < 95  # a second term is worth it


def test_figure_4(folder):
    (rows,) = start("spectrum", folder)
    errors = pick(rows, what="gradient error")
    for time in (1, 5, 10, 20):
        for way, dim in (("two spaces", 20), ("fixed coefficients", "")):
            by_rank = [pick(errors, way=way, T=time, m=dim, r=r)[0]["value"] for r in (1, 2, 3)]
            assert by_rank[1] < by_rank[0] / 4
            assert by_rank[2] < by_rank[1] / 4
            sigma = [r["value"] for r in pick(rows, what="singular value", way=way, T=time)]
            assert all(np.diff(sigma[:4]) < 0)
    by_dim = [pick(errors, way="two spaces", T=5, m=m, r=m)[0]["value"] for m in (2, 5, 10)]
    assert by_dim[0] > 0.05
    assert by_dim[1] < 5e-3
    assert by_dim[2] < 1e-7
    second = [
        pick(rows, what="singular value", way="two spaces", T=t, r=2)[0]["value"]
        for t in (1, 5, 10, 20)
    ]
    assert all(np.diff(second) > 0)
    for row in pick(rows, what="wrong after %", T=5, way="two spaces"):
        if row["m"] >= 5:
            assert row["value"] < 0.1

    before, after = (
        {r["m"]: r["value"] for r in pick(rows, what=what, T=20, r=1)}
        for what in ("wrong after %", "long: wrong %")
    )
    assert after[20] < before[20] / 2  # a matter of steps


def test_figure_5(folder):
    curve, unseen = start("prediction", folder)
    (lines,) = pick(unseen, scenario="lines")
    assert lines["predicted %"] < 0.3 * min(lines["local %"], lines["uniform %"])
    assert lines["AssignmentFlow %"] < 0.3 * min(lines["local %"], lines["uniform %"])
    steps = pick(curve, scenario="lines")
    for part in ("training %", "validation %"):
        assert steps[-1][part] < 0.6 * steps[0][part]
    (cells,) = pick(unseen, scenario="cells")
    assert cells["predicted %"] < 0.2 * cells["local %"]
    said = [
        c["holds"]
        for c in json.loads((folder / "prediction.json").read_text())["claims"]
        if c["paper"]
    ]
    assert said == [r["predicted %"] < 0.9 * min(r["local %"], r["uniform %"]) for r in unseen]


def test_remarks_on_memory(folder):
    (rows,) = start("memory", folder)
    for row in rows:
        if row["formula MiB"] != "":
            # temporary arrays come on top
            assert 0.6 < row["MiB"] / row["formula MiB"] < 4, row
    whole = {r["method"]: r["MiB"] for r in pick(rows, varied="size", edge=192)}
    assert whole[OURS] < whole[PAPER] / 2
    if "automatic: Krylov" in whole:
        assert whole[PAPER] < whole["automatic: Krylov"] / 2
        assert whole[PAPER] < whole["automatic: Euler"] / 2
    five, ten = (pick(rows, varied="m", method=PAPER, m=m)[0]["numbers per pixel"] for m in (5, 10))
    assert 50 < ten - five < 200  # 2 J each
    one, four = (pick(rows, varied="r", method=OURS, r=r)[0]["numbers per pixel"] for r in (1, 4))
    assert 15 < four - one < 60  # J each
    small, large = pick(rows, varied="J", method=OURS)
    assert 5 < (large["numbers per pixel"] - small["numbers per pixel"]) / 8 < 9  # r + 4
    for name in (PAPER, OURS):
        less, more = pick(rows, varied="size", method=name)
        assert 0.8 < more["numbers per pixel"] / less["numbers per pixel"] < 1.25
    tiny = pick(rows, method="one Krylov space of the Kronecker sum")
    assert tiny[-1]["MiB"] / tiny[0]["MiB"] > (tiny[-1]["edge"] / tiny[0]["edge"]) ** 3


def test_all_in_one_command(tmp_path, monkeypatch, capfd):
    pytest.importorskip("matplotlib", reason="matplotlib draws the figures")
    import paper
    from support import experiment

    monkeypatch.setattr(sys, "argv", ["paper.py", "--small", "--output", str(tmp_path)])
    monkeypatch.setattr(experiment, "NAMES", ("none", "voronoi"))
    with pytest.raises(SystemExit, match="failed: none"):
        paper.main()
    assert "cells: pixels that are wrong locally" in capfd.readouterr().out
    files = {"README.md", "voronoi.csv", "voronoi.json", "voronoi.png"}
    assert {p.name for p in tmp_path.iterdir()} == files


def test_the_page_is_in_order(tmp_path):
    from support import experiment

    why = "It is."
    claims = [
        experiment.Claim("one", "large", "small", False, why),
        experiment.Claim("two", "", "2", None),
        experiment.Claim("three", "3", "3", True, why),
    ]
    for name in reversed(experiment.NAMES):
        record = {
            "title": f"Of {name}.",
            "text": "Text.",
            "small": False,
            "seconds": 3,
            "tables": [name],
            "claims": [asdict(c) for c in claims],
        }
        (tmp_path / f"{name}.json").write_text(json.dumps(record))
    experiment.write_page(tmp_path)
    page = (tmp_path / "README.md").read_text()
    places = [page.index(f"## Of {name}\n") for name in experiment.NAMES]
    assert places == sorted(places)
    for row in (
        "| one | large | small | **no** (1) |",
        "| two |  | 2 |  |",
        f"1. {why}",
        "| three | 3 | 3 | yes (1) |",
    ):
        assert page.count(row) == len(experiment.NAMES)


def test_automatic_differentiation_with_and_without_storing_steps():
    pytest.importorskip("torch", reason="PyTorch differentiates automatically")
    from support import peers, ways

    picture = voronoi.LINES.picture(24, 0)
    weights = stencil.uniform(ways.BOX, (24, 24))
    given = (weights.astype(float), picture.distances.astype(float), picture.target, 5.0)
    stored, again = (
        ways.automatic(partial(peers.euler, steps=50, kept=kept), *given) for kept in (None, 7)
    )
    assert ways.distance(again.tangent, stored.tangent) < 1e-12
    exact = ways.closed(ways.Spaces(20), *given)
    krylov = ways.automatic(partial(peers.forward, dim=20), *given)
    assert ways.distance(krylov.tangent, exact.tangent) < 1e-9
    assert krylov.loss == pytest.approx(exact.loss)
    assert ways.directions(krylov.tangent, exact.tangent).min() > 1 - 1e-9
    assert ways.distance(stored.tangent, exact.tangent) > 1e-3
