"""Models whose numbers, texts and arrays somebody changed: refused, or they label as usual."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest

import tiledlaf
from tiledlaf.errors import TiledlafError
from tiledlaf.model import arrays
from tiledlaf.model import model as model_file
from tiledlaf.reports import text
from tiledlaf.training import checkpoint

OLD = Path(__file__).parents[1] / "old"
GONE = object()
NUMBERS = (True, -1, 0, 2**31, 2**63, -(10**400), float("nan"), float("inf"), 1e-300, 1e300)
VALUES = (None, *NUMBERS, "x", [], {}, [1], {"a": 1}, "\u202e\x1b[2J", GONE)
FILLS = (np.nan, np.inf, 1e300, -1e18, 1e-300, 0, -1, 2**31)


def places(node, path=()):
    """Paths to all values of JSON, to the first ones of lists."""
    if path:
        yield path
    pairs = node.items() if isinstance(node, dict) else enumerate(node[:2])
    for key, value in pairs:
        if isinstance(value, dict | list) and (*path, key) != ("trained", "print"):
            yield from places(value, (*path, key))
        else:
            yield (*path, key)


def changed(about, path, value):
    found = at = copy.deepcopy(about)
    for key in path[:-1]:
        at = at[key]
    if value is GONE:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return json.dumps(found)


def damaged(array):
    """An array in other shapes, types and with other numbers."""
    with np.errstate(over="ignore"):
        yield array.astype("f2")
    yield from (array[None], array.ravel()[:0], array.astype("U9"), array.T)
    if array.ndim:
        yield from (array[:-1], np.concatenate([array, array]))
    for value in FILLS:
        with np.errstate(all="ignore"):
            try:
                whole = np.full_like(array, value)
            except (OverflowError, ValueError):  # an integer cannot be that
                continue
            first = array.copy()
            first.flat[:1] = whole.flat[:1]
        yield from (whole, first)


def opened(parts):
    """The model of these parts, None if it is refused by one line."""
    arrays.write_arrays("a.model", parts)
    try:
        found = model_file.load("a.model")
    except TiledlafError:
        return None
    assert text.model(found, "a.model")
    assert checkpoint.progress("a.model") is not None
    return found


@pytest.mark.parametrize(
    ("name", "every"),
    [
        *((name, 23) for name in ("means", "given", "trees")),
        *(pytest.param(name, 1, marks=pytest.mark.slow) for name in ("means", "given", "trees")),
    ],
)
def test_edited_json(tmp_path, monkeypatch, name, every):
    monkeypatch.chdir(tmp_path)
    parts = arrays.read_arrays(OLD / f"{name}.model", "model")
    about = json.loads(str(parts["model"]))
    count = [0, 0]
    edits = [(path, value) for path in places(about) for value in VALUES]
    for path, value in edits[::every]:
        found = opened(parts | {"model": np.array(changed(about, path, value))})
        count[found is not None] += 1
        if found is not None:
            assert np.isfinite([found.rho, found.time, found.tol, *found.bias]).all()
    assert min(count) > 100 / every


@pytest.mark.parametrize("name", ["means", "given", "trees"])
def test_edited_arrays(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    parts = arrays.read_arrays(OLD / f"{name}.model", "model")
    rng = np.random.default_rng(0)
    image, given = rng.integers(0, 255, (12, 14), dtype=np.uint8), rng.random((3, 12, 14))
    given = (given / given.sum(axis=0)).astype(np.float32)
    for key in parts.keys() - {"model"}:
        for array in damaged(parts[key]):
            found = opened(parts | {key: array})
            if found is not None:
                other = given if found.term.takes_probabilities else None
                _, sure = tiledlaf.label(
                    image,
                    model=found,
                    probabilities=other,
                    confidence=True,
                    intensity_scale=1,
                )
                assert np.isfinite(sure).all(), (key, array)
