"""Tables come back as they were written, and never over a file that is there."""

import csv
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from tiledlaf.files import stores
from tiledlaf.results import tables, targets

ODD = ['say "a, b"', "two\nlines", "=1+1", "+tumor", "-1", "@x", "é", "-"]


def columns(n):
    rng = np.random.default_rng(0)
    return {
        "value": np.arange(n, dtype=np.uint32),
        "class": [ODD[i % len(ODD)] for i in range(n)],
        "area": rng.random(n) * 10.0 ** rng.integers(-9, 9, n),
        "mean": rng.random(n).astype(np.float32),
        "note": [0.1 * i if i % 2 else None for i in range(n)],
        "inside": np.arange(n) % 3 == 0,
    }


@pytest.mark.parametrize("n", [0, 1, 7, 2 * tables.ROWS + 3])
def test_csv_comes_back(tmp_path, n):
    given = columns(n)
    tables.write(tmp_path / "a.csv", given)
    with open(tmp_path / "a.csv", newline="", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    assert head == list(given)
    assert len(rows) == n
    if not n:
        return
    value, names, area, mean, note, inside = zip(*rows, strict=True)
    np.testing.assert_array_equal(np.array(value, np.uint32), given["value"])
    np.testing.assert_array_equal(np.array(area, np.float64), given["area"])  # to the last bit
    np.testing.assert_array_equal(np.array(mean, np.float32), given["mean"])
    assert [float(x) if x else None for x in note] == given["note"]
    assert [x == "true" for x in inside] == given["inside"].tolist()
    # lines become one, and what a spreadsheet would compute does not
    kept = ['say "a, b"', "two lines", "'=1+1", "'+tumor", "-1", "'@x", "é", "'-"]
    assert list(names) == [kept[i % len(ODD)] for i in range(n)]


@pytest.mark.parametrize("n", [0, 7, 2 * tables.ROWS + 3])
def test_parquet_comes_back(tmp_path, n):
    parquet = pytest.importorskip("pyarrow.parquet")
    given = columns(n)
    tables.write(tmp_path / "a.parquet", given)
    found = parquet.read_table(tmp_path / "a.parquet")
    assert found.column_names == list(given)
    for name in ("value", "area", "mean", "inside"):
        column = found[name].to_numpy()
        np.testing.assert_array_equal(column, given[name])
        assert column.dtype == given[name].dtype
    assert found["class"].to_pylist() == given["class"]
    assert found["note"].to_pylist() == given["note"]


def test_a_million_rows_need_little_memory(tmp_path):
    given = {"value": np.arange(10**6), "area": np.arange(10**6) / 7}
    tracemalloc.start()
    tables.write(tmp_path / "a.csv", given)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60 * 2**20, peak / 2**20


def test_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"needs pyarrow.*tiledlaf\[tables\]"):
        tables.write(tmp_path / "a.parquet", {"a": [1]})


def test_what_is_there_stays(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("mine")
    with pytest.raises(ValueError, match="expected a new file"):
        tables.write(path, {"a": [1]})
    assert path.read_text() == "mine"
    tables.write(path, {"a": [1]}, overwrite=True)
    assert path.read_text() == "a\n1\n"


def test_nothing_is_left_of_a_table_that_failed(tmp_path):
    class Cut(Exception):
        pass

    class Odd:
        def __str__(self):
            raise Cut

    with pytest.raises(Cut):
        tables.write(tmp_path / "a.csv", {"a": [1, Odd()]})
    with pytest.raises(ValueError, match="of one length"):
        tables.write(tmp_path / "a.csv", {"a": [1], "b": []})
    with pytest.raises(ValueError, match=r"ending \.csv or \.parquet"):
        tables.write(tmp_path / "a.xls", {"a": [1]})
    assert not list(tmp_path.iterdir())


@pytest.fixture
def cloud(tmp_path, monkeypatch):
    """Object stores that are folders."""
    obstore = pytest.importorskip("obstore")
    kept = obstore.store.from_url

    def folder(url, **options):
        place = tmp_path / url.partition("://")[2]
        place.mkdir(parents=True, exist_ok=True)
        return kept(place.as_uri())

    monkeypatch.setattr(obstore.store, "from_url", folder)
    stores._bucket.cache_clear()
    yield tmp_path
    stores._bucket.cache_clear()


@pytest.mark.parametrize("most", [2**28, 0])
def test_object_stores(cloud, monkeypatch, most):
    monkeypatch.setattr(stores, "ONE_PUT", most)  # larger ones go in parts
    tables.write("s3://bucket/deep/a.csv", {"a": [1]})
    assert (cloud / "bucket/deep/a.csv").read_text() == "a\n1\n"
    with pytest.raises(ValueError, match="expected a new file"):
        tables.write("s3://bucket/deep/a.csv", {"a": [2]})
    tables.write("s3://bucket/deep/a.csv", {"a": [2]}, overwrite=True)
    assert (cloud / "bucket/deep/a.csv").read_text() == "a\n2\n"
    with pytest.raises(ValueError, match="expected a place to write"):
        tables.write("https://host/a.csv", {"a": [1]})


def test_names_of_half_letters(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    given = {"class": ["a\udce9", None], "value": [1, 2]}
    for suffix in (".parquet", ".csv"):
        tables.write(tmp_path / f"a{suffix}", given)
    assert parquet.read_table(tmp_path / "a.parquet")["class"].to_pylist() == ["a\\udce9", None]
    assert (tmp_path / "a.csv").read_text() == "class,value\na\\udce9,1\n,2\n"


def test_an_object_that_appears_meanwhile_stays(cloud):
    def write():
        with targets.written("s3://bucket/a.csv") as part:
            Path(part).write_text("ours")
            (cloud / "bucket/a.csv").write_text("theirs")

    with pytest.raises(ValueError, match="expected a new file"):
        write()
    assert (cloud / "bucket/a.csv").read_text() == "theirs"
