"""The house rules that a machine can hold."""

import ast
import io
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

import tiledlaf


@pytest.mark.parametrize("use", ["tiledlaf", "tiledlaf.Model"])
def test_import_is_light(use):
    code = (
        f"import sys, tiledlaf; {use}; "
        "print(*sorted({m.split('.')[0] for m in sys.modules}"
        " & {'dask', 'distributed', 'zarr', 'numba', 'cupy', 'sklearn', 'skimage', 'torch'}))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""


@pytest.mark.parametrize("name", tiledlaf.__all__)
def test_public_names_are_there(name):
    assert getattr(tiledlaf, name) is not None
    assert name in dir(tiledlaf)


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="attribute lable"):
        _ = tiledlaf.lable


def test_every_kind_is_public():
    """What `train`, `estimate` and `compose` are called with can be had by public names."""
    wanted = "Layer Data Recipe Estimation Example Polynomials Spaces open_pool pair Selection"
    assert set(wanted.split()) <= set(tiledlaf.__all__)


def test_former_paths():
    """The faces of the storeys that people import from."""
    code = (
        "from tiledlaf.cli import main\n"
        "from tiledlaf.flow import Taylor\n"
        "from tiledlaf.model import Model, load\n"
        "from tiledlaf.training import Data, Recipe, train\n"
        "from tiledlaf.labeling import label\n"
        "print(all(map(callable, (main, Taylor, Model, load, Data, Recipe, train, label))))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "True"


def test_files_and_functions_are_short():
    """No file over 400 lines of code and no function over 60, but in kernels/."""
    package = Path(tiledlaf.__file__).parent
    long = []
    for path in sorted(package.rglob("*.py")):
        if "kernels" in path.parts:
            continue
        text = path.read_text()
        tree, lines = ast.parse(text), code_lines(text)
        spans = [(path.name, 1, len(text.splitlines()), 400)]
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                spans.append((f"{path.name}:{node.name}", node.lineno, node.end_lineno, 60))
        for name, first, last, most in spans:
            count = sum(first <= line <= last for line in lines)
            if count > most:
                long.append(f"{name}: {count}")
    assert not long


def code_lines(text):
    """Numbers of the lines that hold code: docstrings, comments and empty lines do not count."""
    kinds = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    found = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in (*kinds, tokenize.ENDMARKER):
            found.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        described = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        if isinstance(node, described) and ast.get_docstring(node) is not None:
            found -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return found
