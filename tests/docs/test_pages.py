"""Pages of docs/ hold: their commands parse, tutorials run, and pictures are those of the runs."""

import re
import shutil

import click
import numpy as np
import PIL.Image
import pytest
from pages import ROOT, TUTORIALS, commands, follow, pictures, tiledlaf

import tiledlaf as package
from tiledlaf.cli import cli

PAGES = sorted(p for p in (ROOT / "docs").rglob("*.md") if p.parent.name != "paper")
PAGES += [ROOT / "README.md", ROOT / "deploy/README.md"]
OURS = {"count"}  # the command that docs/extending.md adds
AGAIN = "make the pictures again, see CONTRIBUTING.md"
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_parse(page):
    for line, _ in commands(page):
        words = tiledlaf(line)
        if words is None or words[0] in OURS:
            continue
        context = click.Context(cli, info_name="tiledlaf", **cli.context_settings)
        command = cli.get_command(context, words[0])
        assert command is not None, line
        command.make_context(words[0], words[1:], parent=context)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in LINK.findall(page.read_text()):
        assert (page.parent / link).exists(), link


def test_the_reference_has_all_names():
    found = re.findall(r"^::: tiledlaf\.(\w+)$", (ROOT / "docs/reference.md").read_text(), re.M)
    names = set(package.__all__) - {"__version__"}
    assert len(found) == len(set(found))
    assert (names - set(found), set(found) - names) == (set(), set())


def test_all_pages_are_in_the_navigation():
    said = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2]
    listed = set(re.findall(r"[\w/]+\.md", said))
    here = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    assert here - listed == set()


def check_pictures(page, folder):
    """Those on the page look like those of this run, but for a pixel here and there."""
    for shown, made in pictures(page):
        assert shown.stat().st_size < 150_000
        old, new = (read(path) for path in (shown, folder / made))
        assert old.shape == new.shape, f"{shown}: {AGAIN}"
        assert np.abs(old - new).mean() < 1.5, f"{shown}: {AGAIN}"


def read(path):
    with PIL.Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"), float)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["qupath", "sections"])
def test_tutorials_that_learn(name, tmp_path):
    page = TUTORIALS / f"{name}.md"
    follow(page, tmp_path)
    check_pictures(page, tmp_path)


SBATCH = """#!/bin/bash
# what SLURM does with a script, here and now
while [[ $1 == --* ]]; do shift; done
exec bash "$@"
"""


@pytest.mark.slow
def test_the_batch_without_slurm(tmp_path, monkeypatch):
    """Where there is SLURM, tests/deploy runs this page on it."""
    if not all(map(shutil.which, ("openssl", "setpriv"))):
        pytest.skip("NOT TESTED: openssl or setpriv not installed")
    programs, folder = tmp_path / "programs", tmp_path / "here"
    for one in (programs, folder):
        one.mkdir()
    (programs / "sbatch").write_text(SBATCH)
    (programs / "sbatch").chmod(0o755)
    monkeypatch.setenv("WORKERS", "1")
    monkeypatch.setenv("DASHBOARD", "0")
    for name in ("DASK_CONFIG", "INTERFACE", "HOSTS", "MEMORY"):
        monkeypatch.delenv(name, raising=False)
    said = dict(follow(TUTORIALS / "batch.md", folder, [programs]))
    assert "images: 4 complete" in next(out for line, out in said.items() if "sbatch" in line)
    assert (folder / "results/index.html").exists()


def test_questions(tmp_path):
    follow(ROOT / "docs/questions.md", tmp_path)
