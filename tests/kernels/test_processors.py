"""The same bits on other processors: compiled for each kind, and run on this one."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import llvmlite.binding
import numpy as np
import pytest
import tifffile
from models import make
from voronoi import lines

from tiledlaf.files import ngff, nodes

# NumPy's names of what each kind lacks; BLAS, whose sums k-means' distances are
OLDER = (
    "X86_V4",
    "AVX512_ICL",
    "AVX512_SPR",
    "AVX512F",
    "AVX512CD",
    "AVX512_SKX",
    "AVX512_CLX",
    "AVX512_CNL",
)
WITHOUT_FMA = (*OLDER, "X86_V3", "AVX2", "FMA3")
PROCESSORS = {
    "AVX-512": ("skylake-avx512", (), "SkylakeX", "zmm"),
    "AVX2": ("haswell", OLDER, "Haswell", "ymm"),
    "x86-64-v2": ("x86-64-v2", WITHOUT_FMA, "Nehalem", "xmm"),
}
NEEDS = {
    "AVX-512": ("avx512f", "avx512dq", "avx512vl", "avx512bw", "avx512cd"),
    "AVX2": ("avx2", "fma", "bmi2"),
    "x86-64-v2": ("sse4.2",),
}
FEW = {"kernels": ["numba"], "types": ["float32"], "labels": [3], "learned": ["2-D"]}
# each number of labels is compiled for each kind and type
MORE = {
    "kernels": ["numba"],
    "types": ["float32", "float64"],
    "labels": [2, 10],
    "learned": ["2-D"],
}
KINDS = pytest.mark.parametrize("kind", ["AVX-512", "x86-64-v2"])

pytestmark = [
    pytest.mark.skipif(
        platform.machine() != "x86_64" or sys.platform != "linux",
        reason="compiles for kinds of x86-64 processors, on Linux",
    ),
    pytest.mark.timeout(900),  # most of it is compiling
]


def lacking(kind):
    """What this processor lacks to run programs for a kind."""
    has = llvmlite.binding.get_host_cpu_features()
    return [name for name in NEEDS[kind] if not has.get(name)]


def environment(kind, cache):
    """Compile and compute as on a processor of this kind."""
    name, without, blas, _ = PROCESSORS[kind]
    from numpy._core._multiarray_umath import __cpu_dispatch__

    known = [feature for feature in without if feature in __cpu_dispatch__]
    return os.environ | {
        "NUMBA_CPU_NAME": name,
        "NUMBA_CPU_FEATURES": "",
        "NUMBA_CACHE_DIR": str(cache / name),
        "NPY_DISABLE_CPU_FEATURES": " ".join(known),
        "OPENBLAS_CORETYPE": blas,
        "PYTHONWARNINGS": "ignore",  # NumPy's on features that this processor lacks as well
    }


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="module")
def model(cache):
    """Of boosted trees and predicted weights."""
    path = cache / "lines.model"
    make("classifier").save(path)
    return path


def compute(kind, cache, model="", **options):
    """All arrays of `processors.py` on a kind of processor."""
    if lacking(kind):
        pytest.skip(f"this processor lacks {', '.join(lacking(kind))}")
    found = cache / "found.npz"
    script = Path(__file__).parents[1] / "support" / "processors.py"
    subprocess.run(
        [sys.executable, script, str(model), str(found), json.dumps(options)],
        env=environment(kind, cache),
        check=True,
    )
    with np.load(found) as file:
        arrays = {name: file[name] for name in file.files}
    assert list(arrays.pop("instructions"))[:1] == [PROCESSORS[kind][-1]]
    return arrays


def differences(found, expected):
    """Names of arrays whose bits are not the same, and how many of their values."""
    assert found.keys() == expected.keys()
    return {
        name: int((np.asarray(a != b) & ~((a != a) & (b != b))).sum())
        for name, a in found.items()
        for b in [expected[name]]
        if a.dtype != b.dtype or a.tobytes() != b.tobytes()
    }


@pytest.fixture(scope="module")
def avx2(cache, model):
    return compute("AVX2", cache, model, **FEW)


@pytest.mark.slow
@KINDS
def test_all_bits_are_the_same(kind, avx2, cache, model):
    assert len(avx2) > 50
    assert differences(compute(kind, cache, model, **FEW), avx2) == {}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["AVX-512", "x86-64-v2"])
def test_all_bits_of_more_labels_are_the_same(kind, cache):
    found, expected = (compute(each, cache, **MORE) for each in (kind, "AVX2"))
    for name in [name for name in found if name.endswith("float64: gradient")]:
        # its coefficients are LAPACK's; rounded to float32 they are the same
        np.testing.assert_allclose(found.pop(name), expected.pop(name), rtol=1e-9, atol=1e-14)
    assert differences(found, expected) == {}


def test_the_reference_agrees_where_numpy_does(cache):
    """In float32 NumPy has one exp for processors with AVX2 and AVX-512, in float64 it has two."""
    few = FEW | {"kernels": ["numpy"]}
    found, expected = (compute(kind, cache, **few) for kind in ("AVX-512", "AVX2"))
    learned = [name for name in found if "predictor's" in name]  # sums of BLAS, in float64
    for name in learned:
        np.testing.assert_allclose(found.pop(name), expected.pop(name), rtol=1e-9, atol=1e-9)
    assert differences(found, expected) == {}


@pytest.mark.slow
@KINDS
def test_a_run_of_the_command(kind, cache, model):
    """Labels, confidence and pyramids of an image by a model, tile by tile."""
    image, _ = lines((150, 170), seed=7)
    tifffile.imwrite(cache / "image.tif", image)
    stores = []
    for each in (kind, "AVX2"):
        if lacking(each):
            pytest.skip(f"this processor lacks {', '.join(lacking(each))}")
        stores.append(str(cache / f"{kind}, {each}.zarr"))
        subprocess.run(
            [
                sys.executable,
                "-m",
                "tiledlaf",
                "label",
                "image.tif",
                stores[-1],
                "--model",
                model,
                "--confidence",
                "--workers",
                "2",
                "--tile",
                "64",
            ],
            env=environment(each, cache),
            cwd=cache,
            check=True,
            capture_output=True,
        )
    arrays = []
    for store in stores:
        arrays.append({})
        for group in ("", "labels/tiledlaf", "confidence"):
            path = str(Path(store, group))
            for name in ngff.read_multiscale(path).paths:
                array = nodes.open_array(path, name)
                arrays[-1][f"{group}/{name}"] = nodes.read(array, (slice(None),) * array.ndim)
    assert len(arrays[0]) >= 3
    assert differences(*arrays) == {}
