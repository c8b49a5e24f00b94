"""What tests share."""

import gc
import os
import signal
from pathlib import Path

import hypothesis
import pytest
from threadpoolctl import threadpool_limits

# what a shell starts in the background ignores Ctrl-C, and so would the commands of tests
signal.signal(signal.SIGINT, signal.default_int_handler)

# compiling makes many objects that stay: looking for garbage among them took a tenth of all time
gc.set_threshold(100_000, 20, 20)

# a try that compiles, or a machine that is busy, takes long: that is no error
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")


@pytest.fixture(scope="module")
def one_thread():
    """Several threads of BLAS only wait for each other on small matrices."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="session")
def data_folder():
    """Real images, in TILEDLAF_DATA or in shared/data beside the checkout."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("TILEDLAF_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real images: {folder} is missing (TILEDLAF_DATA names another place)")
    return folder
