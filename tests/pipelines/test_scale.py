"""The pipelines of scale at their small size: what they claim, and what they leave."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from tiledlaf.files import images, ngff

ROOT = Path(__file__).parents[2]


def start(name, *arguments):
    return subprocess.run(
        [sys.executable, f"pipelines/{name}.py", "--small", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def gigapixel(data_folder, tmp_path_factory):
    pytest.importorskip("matplotlib", reason="matplotlib draws the overview")
    if not (data_folder / "hrf").is_dir():
        pytest.skip(f"no hrf in {data_folder}")
    folder = tmp_path_factory.mktemp("gigapixel")
    found = start("gigapixel", "--data", data_folder, "--output", folder)
    assert found.returncode == 0, found.stderr
    return folder, json.loads((folder / "gigapixel.json").read_text()), found.stdout


@pytest.mark.slow  # of the small run, which trains on photographs and labels a mosaic
def test_the_mosaic_is_an_image_with_its_truth(gigapixel):
    folder, about, _ = gigapixel
    found = ngff.read_multiscale(str(folder / "mosaic.zarr"))
    assert (found.axes, found.version, found.shapes[0]) == ("cyx", "0.5", (3, 2048, 2048))
    assert ngff.label_names(str(folder / "mosaic.zarr")) == ["truth"]
    everything = (slice(None), slice(None))
    image = images.open_image(folder / "mosaic.zarr").read(everything)
    truth = images.open_image(folder / "mosaic.zarr" / "labels" / "truth").read(everything)[0]
    assert set(np.unique(truth)) == {1, 2}
    assert (truth == 2).mean() == pytest.approx(about["mosaic"]["vessels"])
    # vessels lie on the photographs, where they are darker than what is around them
    assert (image[:, truth == 2].max(axis=0) > 30).mean() > 0.98
    lit = (image[0] > 60) & (truth == 1)
    assert image[1][truth == 2].mean() < image[1][lit].mean()
    assert 0.3 < (image.max(axis=0) == 0).mean() < 0.7


@pytest.mark.slow
def test_labels_are_better_than_none(gigapixel):
    _, about, printed = gigapixel
    judged, vessels = about["judged"], about["mosaic"]["vessels"]
    assert judged["all"]["pixels"] == about["mosaic"]["pixels"]
    assert judged["all"]["error"] < 0.8 * vessels  # all background is wrong where vessels are
    assert judged["all"]["f1"] > 0.5
    unseen = judged["unseen photographs"]
    assert unseen["error"] < 0.8 * unseen["all background"]
    found = judged["windows"]
    assert found["labels"]["error"] < 0.8 * found["all background"]["error"]
    # weights do not cost what the data term has learned
    assert found["labels"]["error"] < 1.05 * found["data term alone"]["error"]
    assert f"{100 * judged['all']['error']:.3f}" in printed


@pytest.mark.slow
def test_judged_windows_are_of_other_photographs(gigapixel):
    _, about, _ = gigapixel
    model = about["model"]
    # two full of vessels and one on the border, of each of four photographs
    assert [number for number, *_ in model["regions"]] == [n for n in range(4) for _ in range(3)]
    assert model["labeled"] == 12 * about["effort"]["region"] ** 2


@pytest.mark.slow
def test_throughput_is_in_the_summary(gigapixel):
    folder, about, printed = gigapixel
    run = about["labels"]
    assert f"throughput: {run['megapixels a second']:g} megapixels a second" in run["summary"]
    assert run["share"] == pytest.approx(run["megapixels a second"] / run["kernels alone"])
    assert 0 < run["share"] < 1.5
    assert run["pixels"] == about["mosaic"]["pixels"]
    assert run["tiles"] == 64
    assert 100 < run["peak MiB"] < 1024
    assert 0 < run["of them kernels"] < 1.2
    assert all(share > 0 for share in run["time"].values())
    assert sum(run["time"].values()) < 1.05  # the rest is waiting
    assert "share of the kernels alone, %" in printed
    with (folder / "gigapixel.csv").open(newline="") as file:
        assert {row["what"] for row in csv.DictReader(file)} > {"throughput, Mpx/s"}
    with PIL.Image.open(folder / "gigapixel.png") as picture:
        assert np.asarray(picture).std() > 20


@pytest.mark.slow
def test_a_second_start_takes_what_is_finished(gigapixel, data_folder):
    folder, _, printed = gigapixel
    again = start("gigapixel", "--data", data_folder, "--output", folder)
    assert again.stdout == printed
    assert "..." not in again.stderr


def test_other_data_is_refused(tmp_path):
    found = start("gigapixel", "--data", tmp_path, "--output", tmp_path / "out")
    assert found.returncode == 2
    assert "expected photographs such as" in found.stderr


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    pytest.importorskip("matplotlib", reason="matplotlib draws the curves")
    folder = tmp_path_factory.mktemp("simulation")
    found = start("simulation", "--output", folder)
    assert found.returncode == 0, found.stderr
    return folder, json.loads((folder / "simulation.json").read_text())


@pytest.mark.slow  # of the simulation, whose tables are timings
def test_costs_of_empty_tiles(simulated):
    folder, about = simulated
    rows = about["costs"]
    assert [(r["processes"], r["tiles"]) for r in rows] == [
        ("apart", 10),
        ("apart", 40),
        ("together", 10),
        ("together", 40),
    ]
    for row in rows:
        assert row["ms a tile"] > 0
        for who in ("client", "scheduler") if row["processes"] == "apart" else ("client",):
            assert row[f"{who} ms a tile"] >= 0
            assert row[f"{who} KiB a tile"] >= 0
            assert 20 < row[f"{who} MiB"] < 1000
    with (folder / "costs.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == len(rows)


@pytest.mark.slow
def test_simulated_workers_share_tiles(simulated):
    folder, about = simulated
    rows = about["scaling"]
    assert [r["workers"] for r in rows] == [1, 2]
    for row in rows:
        assert row["tiles"] == 10 * row["workers"]
        # no worker is quicker than its tiles
        assert 0 < row["tiles a second"] <= row["workers"] / about["sleep"]
        assert row["share of all"] == pytest.approx(
            row["tiles a second"] * about["sleep"] / row["workers"]
        )
        assert all(row[f"{who} busy"] >= 0 for who in ("client", "scheduler", "workers"))
    with PIL.Image.open(folder / "simulation.png") as picture:
        assert np.asarray(picture).std() > 10


@pytest.mark.slow
def test_a_run_starts_again_where_it_was(simulated):
    _, about = simulated
    assert [(r["tiles"], r["done"]) for r in about["restart"]] == [(10, 9), (40, 36)]
    assert all(r["ms a tile"] > 0 and r["client KiB a tile"] >= 0 for r in about["restart"])
    assert {law["table"] for law in about["laws"]} == {"costs", "restart"}


@pytest.mark.slow
def test_workers_that_are_killed_cost_their_tiles_alone(simulated):
    _, about = simulated
    stay, killed = about["churn"]
    assert (stay["kills"], stay["begun again"]) == (0, 0)
    assert stay["tiles"] == killed["tiles"] == 80
    # what it runs, and what it has run but not yet given back
    assert killed["begun again"] <= 3 * killed["kills"]


@pytest.mark.slow
def test_one_table_alone_keeps_the_other(simulated):
    folder, about = simulated
    assert start("simulation", "--output", folder, "--only", "scaling").returncode == 0
    now = json.loads((folder / "simulation.json").read_text())
    assert now["costs"] == about["costs"]
    assert now["scaling"] != about["scaling"]
