"""The pipeline on how good labels are: its numbers, and what a small start leaves and takes."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from support import datasets, judging, perturbed, quality_page

ROOT = Path(__file__).parents[2]
STROKED = "strokes-isbi-1.5-equal"
SEGMENTS = "Gaussian for segments"
METHODS = ["none", "Gaussian", SEGMENTS, "dense CRF", "forest", "U-Net", "classifier", "ours"]
OTHERS = {"dense CRF": "pydensecrf", "U-Net": "torch"}


def cell(seed, *errors, name="method"):
    images = [{"name": str(n), "error": e} for n, e in enumerate(errors)]
    return {"method": name, "seed": seed, "images": images}


def test_differences_are_paired():
    ours = [cell(0, 0.1, 0.3), cell(1, 0.2, 0.3)]
    others = [cell(1, 0.25, 0.3), cell(0, 0.1, 0.4), cell(2, 0.9, 0.9)]
    found = judging.paired(others, ours)
    differences = [0.05, 0, 0, 0.1]
    assert found.count == 4
    assert found.mean == pytest.approx(np.mean(differences))
    assert found.error == pytest.approx(np.std(differences, ddof=1) / 2)
    assert not found.worse
    assert judging.paired([cell(0, 0.15, 0.4)], ours).worse  # by 3 standard errors
    assert str(judging.paired([cell(5, 0.1)], ours)) == ""


def test_numbers_of_an_image():
    truth = np.array([[1, 1, 2, 2], [0, 1, 2, 2]], np.uint8)
    labels = np.array([[1, 2, 2, 2], [1, 1, 2, 0]], np.uint8)
    p = np.full((2, 4), 0.9, np.float32)
    found = judging.numbers(labels, p, truth, 2, 0)
    assert found["confusion"] == [[0, 2, 1], [1, 0, 3]]
    assert found["error"] == pytest.approx(2 / 7)
    assert judging.calibration(np.array(found["bins"])) == pytest.approx(0.9 - 5 / 7)
    table = np.array(found["confusion"])
    assert judging.f1(table, [0]) == pytest.approx(2 * 2 / 5)
    assert judging.f1(table, [0, 1]) == pytest.approx(2 * 6 / 13)


def test_segments_of_the_truth_itself():
    truth = np.ones((20, 20), np.uint8) * 2
    truth[10] = 1
    labels = np.full_like(truth, 2)
    assert judging.segments(truth, truth, 1) == {"rand": 0, "voi": 0}
    merged = judging.segments(labels, truth, 1)
    assert merged["rand"] > 0.2
    assert merged["voi"] == pytest.approx(-(9 * np.log2(9 / 19) + 10 * np.log2(10 / 19)) / 19)


def test_classes_of_label_values():
    values = np.array([[0, 1, 2, 3, 9]])
    assert datasets.targets(values, {"a": (0,), "b": (1, 2)}).tolist() == [[1, 2, 2, 0, 0]]
    assert datasets.targets(values, {"nucleus": None, "rest": (0,)}).tolist() == [[2, 1, 1, 1, 1]]


def test_the_page_says_where_ours_is_not_first():
    def judged(seed, wrong):
        row = judging.numbers(*tables(wrong), 2, 0) | {"name": "a"}
        return {"method": "", "seed": seed, "images": [row], "seconds": 1, "tuning": 1}

    def tables(wrong):
        truth = np.array([1, 1, 1, 2, 2, 2], np.uint8)
        labels = truth.copy()
        labels[:wrong] = 2
        return labels, np.ones(6), truth

    one = datasets.SETS["stained"]
    won = quality_page.verdicts(one, {"none": [judged(0, 2)], "ours": [judged(0, 1)]})
    assert won == ["Ours is first in error, F1 of nucleus."]
    lost = quality_page.verdicts(one, {"none": [judged(0, 1)], "ours": [judged(0, 2)]})
    assert lost[0].startswith("**Not first in error**: none 16.67, ours 33.33 (-16.67")
    assert len(lost) == 2
    page = quality_page.page({"stained": {"none": [judged(0, 1)]}}, "a command")
    assert "Ours is not measured yet." in page


def test_other_light():
    gray = np.tile(np.arange(256, dtype=np.uint8), (3, 16, 1))
    color = gray.copy()
    color[0, :, :99] //= 2  # an edge
    assert set(perturbed.ways(1)) < set(perturbed.ways(3))
    for name, change in perturbed.ways(3).items():
        found = change(color)
        assert found.dtype == np.uint8, name
        assert (found != color).any(), name
    # gray has no stain, and a gamma of half and one of two undo each other but for rounding
    assert abs(perturbed.turned(gray).astype(int) - gray).max() <= 1
    back = perturbed.gamma(2.0)(perturbed.gamma(0.5)(gray))
    assert abs(back.astype(int) - gray).max() <= 1


def test_a_page_without_markers_is_refused(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"a\n{quality_page.BEGIN}\nold\n{quality_page.END}\nb\n")
    quality_page.insert(page, f"{quality_page.BEGIN}\nnew\n{quality_page.END}")
    assert page.read_text() == f"a\n{quality_page.BEGIN}\nnew\n{quality_page.END}\nb\n"
    page.write_text("a\n")
    with pytest.raises(SystemExit, match="expected the lines"):
        quality_page.insert(page, "")


def start(data, folder, *more):
    command = [sys.executable, "pipelines/quality.py", "--small", "--sets", f"isbi,{STROKED}"]
    return subprocess.run(
        [*command, "--methods", ",".join(METHODS), "--data", data, "--output", folder, *more],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


@pytest.fixture(scope="module")
def finished(data_folder, tmp_path_factory):
    if not (data_folder / "isbi2012").is_dir():
        pytest.skip(f"no isbi2012 in {data_folder}")
    folder = tmp_path_factory.mktemp("quality")
    found = start(data_folder, folder)
    assert found.returncode == 0, found.stderr
    return folder, found


def files(folder):
    return {p: p.stat().st_mtime_ns for p in folder.glob("*/*-0.json")}


@pytest.mark.slow
def test_every_method_has_its_cells(finished):
    folder, found = finished
    names = {name: quality_page.stem(name, 0) for name in METHODS}
    whole = {f"isbi/{stem}" for name, stem in names.items() if name != "classifier"}
    stroked = {f"{STROKED}/{names[name]}" for name in ("forest", "classifier", "ours")}
    assert {f"{p.parent.name}/{p.stem}" for p in files(folder)} == whole | stroked
    for path in files(folder):
        about = json.loads(path.read_text())
        if "missing" in about:
            package = OTHERS[about["method"]]
            assert about["missing"].startswith(package)
            assert importlib.util.find_spec(package) is None
            assert f"- {about['method']}: left out, {package}" in found.stdout
            continue
        assert len(about["images"]) == 4
        assert about["seconds"] > 0
        for row in about["images"]:
            assert 0.02 < row["error"] < 0.45
            assert np.sum(row["confusion"]) == 128 * 128
    assert "### ISBI 2012, membranes" in found.stdout
    assert "### Other light, stain and focus" in found.stdout
    assert "### Strokes" in found.stdout


@pytest.mark.slow
def test_pictures_show_all(finished):
    with PIL.Image.open(finished[0] / "isbi.png") as sheet:
        assert np.asarray(sheet).std() > 20
        assert sheet.width > 5 * 128


@pytest.mark.slow
def test_a_second_start_makes_what_is_missing(finished, data_folder):
    folder, first = finished
    before = files(folder)
    gone = next(p for p in before if p.stem == "gaussian-0")
    gone.unlink()
    absent = [json.loads(p.read_text()) for p in before if p != gone]
    wanted = {"Gaussian", *(c["method"] for c in absent if "missing" in c)}  # these are tried again
    again = start(data_folder, folder)
    assert again.returncode == 0, again.stderr
    changed = {p for p, t in files(folder).items() if before[p] != t}
    assert {json.loads(p.read_text())["method"] for p in changed} == wanted
    assert len(again.stdout.splitlines()) == len(first.stdout.splitlines())
    assert start(data_folder, folder, "--table").stdout == again.stdout


@pytest.mark.slow
def test_other_settings_and_data_are_refused(finished, data_folder, tmp_path):
    whole = subprocess.run(
        [
            *(sys.executable, "pipelines/quality.py", "--sets", "isbi", "--methods", "none"),
            *("--data", data_folder, "--output", finished[0]),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert whole.returncode == 1
    assert "made with other settings" in whole.stderr
    found = start(tmp_path, tmp_path)
    assert found.returncode == 2
    assert "expected images such as" in found.stderr
