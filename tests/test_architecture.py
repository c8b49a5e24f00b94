"""The house rules that a machine can hold."""

import subprocess
import sys

import pytest

import tiledlaf


def test_import_is_light():
    code = (
        "import sys, tiledlaf; "
        "print(*sorted({m.split('.')[0] for m in sys.modules}"
        " & {'dask', 'distributed', 'zarr', 'numba', 'cupy', 'sklearn', 'skimage'}))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""


@pytest.mark.parametrize("name", tiledlaf.__all__)
def test_public_names_are_there(name):
    assert getattr(tiledlaf, name) is not None
    assert name in dir(tiledlaf)


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="no attribute 'lable'"):
        _ = tiledlaf.lable
