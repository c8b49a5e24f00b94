"""The examples in docstrings: they run, and those that people use most have one."""

import doctest
import importlib.util
import pkgutil

import pytest

import tiledlaf

FLAGS = doctest.NORMALIZE_WHITESPACE
EXTRAS = {  # modules that need a library which is an extra
    "tiledlaf.torch": "torch",
    "tiledlaf.training.unet": "torch",
    "tiledlaf.jax": "jax",
}


def examples():
    """Docstrings with examples, by name."""
    found = {}
    for info in pkgutil.walk_packages(tiledlaf.__path__, "tiledlaf."):
        # CuPy is not there everywhere, and __main__ is the command
        if info.name.endswith(("__main__", "kernels.cupy")) or ".compiled" in info.name:
            continue
        needs = EXTRAS.get(info.name)
        if needs and importlib.util.find_spec(needs) is None:
            continue
        module = importlib.import_module(info.name)
        for one in doctest.DocTestFinder(exclude_empty=True).find(module):
            if one.examples and one.name not in found:
                found[one.name] = one
    return found


@pytest.fixture(scope="module")
def found():
    return examples()


def test_examples_run(found, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = []
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    for one in found.values():
        runner.run(one, out=said.append)
    assert not runner.summarize(verbose=False).failed, "".join(said)


def test_what_people_use_most_has_examples(found):
    names = {name.rpartition(".")[2] for name in found}
    wanted = """AssignmentFlow Taylor RKMK4 Polynomials assignment batch box compose estimate
        evaluate label linearize linearize_sequence load make of_matrix of_points of_regions pair
        parse regularizer report rings rounding solve train uniform"""
    assert set(wanted.split()) <= names, set(wanted.split()) - names
