"""Workers are asked for what bits depend on, by a text that any Python understands."""

import copy
import subprocess
import sys
import time

import pytest

from tiledlaf import private
from tiledlaf.pool import vetting


def answer(places=()):
    return copy.deepcopy(eval(vetting.question(list(places))))


def test_a_worker_like_this_process():
    found = answer()
    assert vetting.difference(found) == ""
    assert vetting.clock(found, time.time()) == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"python": "3.10"}, "has Python 3.10, expected 3."),
        ({"package": (None, "ModuleNotFoundError: none")}, "tiledlaf is not installed there (Mod"),
        ({"package": ("0.0.1", "abc")}, "has version 0.0.1 of tiledlaf, expected "),
        ({"machine": "riscv64"}, "another kind of processor, riscv64, expected "),
        ({"order": "big"}, "another kind of processor"),
    ],
)
def test_other_workers(change, words):
    assert words in vetting.difference(answer() | change)


@pytest.mark.parametrize(
    ("version", "words"), [("0.1", "version 0.1 of numba"), (None, "no numba")]
)
def test_other_libraries(version, words):
    found = answer()
    found["libraries"]["numba"] = version
    assert vetting.difference(found).startswith(f"has {words}, expected ")


def test_other_sources_of_the_same_version():
    found = answer()
    found["package"] = (found["package"][0], "another")
    assert "other sources of tiledlaf" in vetting.difference(found)


def test_a_worker_that_does_not_answer():
    assert vetting.difference(TimeoutError()) == "does not answer (TimeoutError)"


@pytest.mark.parametrize(("ahead", "words"), [(3600, "3600 s ahead of"), (-90, "90 s behind")])
def test_another_clock(ahead, words):
    assert words in vetting.clock(answer() | {"time": 1000.0 + ahead}, 1000.0)


def test_a_python_without_anything():
    code = f"print(eval({vetting.question([])!r}))"
    found = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
    )
    assert "No module named 'tiledlaf'" in vetting.difference(eval(found.stdout))


def test_other_files(tmp_path):
    image, out = tmp_path / "image.zarr", tmp_path / "out"
    (image / "c").mkdir(parents=True)
    (image / "zarr.json").write_text("{}")
    (image / "c" / "0").write_bytes(b"one")
    out.mkdir()
    with vetting.places(vetting.view([str(image)]), [str(out)]) as places:
        assert list(out.iterdir()) != []
        assert vetting.difference(answer(places)) == ""
        (image / "c" / "0").write_bytes(b"two")
        assert f"{image}/c/0: another file" in vetting.difference(answer(places))
        (image / "c" / "0").unlink()
        assert f"{image}/c/0: No such file" in vetting.difference(answer(places))
        (image / "c" / "0").write_bytes(b"one")
        next(out.iterdir()).unlink()
        assert f"{out}/.tiledlaf-" in vetting.difference(answer(places))
    assert list(out.iterdir()) == []


def test_what_runs_add_to_an_image_is_no_part_of_it(tmp_path):
    image = tmp_path / "image.zarr"
    (image / "0" / "c").mkdir(parents=True)
    for name in ("zarr.json", "0/zarr.json", "0/c/0"):
        (image / name).write_text(name)
    before = vetting.view([str(image)])
    assert [name for name, _ in before[0][1]] == ["", "/zarr.json", "/0/zarr.json", "/0/c/0"]
    for folder in ("labels", "confidence"):
        (image / folder).mkdir()
        (image / folder / "zarr.json").write_text("{}")
    (image / ".tiledlaf-another").write_text("of another run")
    assert vetting.view([str(image)]) == before
    (image / "0" / "c" / "0").write_text("changed")
    assert vetting.view([str(image)]) != before


def test_few_files_of_many_are_looked_at(tmp_path):
    for image in range(300):
        (tmp_path / f"{image}.zarr").mkdir()
        for chunk in range(20):
            (tmp_path / f"{image}.zarr" / f"{chunk}").touch()
    paths = [str(path) for path in tmp_path.iterdir()]
    assert len(vetting.view(paths[:1])[0][1]) == 1 + vetting.SEEN
    assert {len(files) for _, files in vetting.view(paths)} == {2}


def test_a_task_of_another_kind():
    vetting.check((vetting.kind(), ""))
    for another in ("another", ""), (("0.1", "run"), ""):
        with pytest.raises(vetting.Unlike, match="another version of tiledlaf"):
            vetting.check(another)


def test_a_folder_that_is_the_user_s_own(tmp_path):
    private.folder.cache_clear()
    own = private.folder(str(tmp_path))
    assert (tmp_path / own).stat().st_mode & 0o777 == 0o700
    private.folder.cache_clear()
    assert private.folder(str(tmp_path)) == own


@pytest.mark.parametrize("kind", ["open to all", "link"])
def test_a_folder_that_another_user_may_have_made(tmp_path, kind):
    private.folder.cache_clear()
    name = private.folder(str(tmp_path / "first")).rpartition("/")[2]
    if kind == "link":
        (tmp_path / name).symlink_to(tmp_path / "first" / name)
    else:
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o777)
    found = private.folder(str(tmp_path))
    assert found != str(tmp_path / name)
    assert (tmp_path / found).stat().st_mode & 0o777 == 0o700
