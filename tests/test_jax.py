"""The flow in JAX: its gradients, and what JAX does with functions."""

import re
import subprocess
import sys
from pathlib import Path

import learning_oracle
import numpy as np
import oracle
import pytest

from tiledlaf import InputError
from tiledlaf.flow import stencil

jax = pytest.importorskip("jax", reason="JAX is not installed: pip install '.[jax]'")

from jax import numpy as jnp  # noqa: E402

from tiledlaf.jax import assignment_flow  # noqa: E402

EXACT = {"tol": 1e-14, "rank_tol": 1e-16}


@pytest.fixture(autouse=True)
def _double():
    with jax.enable_x64(True):
        yield


def problem(grid=(5, 4), number=2, labels=2, neighbors=9):
    rng = np.random.default_rng(3)
    return 2 * rng.random((number, labels, *grid)), rng.normal(size=(number, neighbors, *grid))


def relative(found, expected):
    return np.abs(np.asarray(found) - expected).max() / np.abs(expected).max()


def weights_of(logits, offsets):
    e = np.exp(logits) * (oracle.uniform_weights(offsets, logits.shape[1:]) > 0)
    return e / e.sum(axis=0)


@pytest.mark.parametrize("grid", [(5, 4), (2, 4, 3)])
def test_the_dense_oracle(grid):
    """Values and both gradients; those in distances by differences."""
    distances, logits = problem(grid)
    offsets, time, rho = stencil.choose("3x3", len(grid)), 3.0, 0.7
    g = np.random.default_rng(1).normal(size=distances.shape)
    z, pull = jax.vjp(
        lambda d, x: assignment_flow(d, x, time=time, rho=rho, **EXACT),
        *map(jnp.asarray, (distances, logits)),
    )
    of_distances, of_logits = pull(jnp.asarray(g))
    for n in range(len(z)):
        weights = weights_of(logits[n], offsets)
        d = distances[n] / rho
        expected = learning_oracle.gradient(weights, d, offsets, g[n], time)
        assert relative(z[n], oracle.flow_z(weights, d, offsets, time)) < 1e-12
        assert relative(of_logits[n], expected["riemannian"]) < 1e-12
        step = np.random.default_rng(2).normal(size=d.shape)
        ahead, behind = (
            (g[n] * oracle.flow_z(weights, d + s * 1e-5 * step / rho, offsets, time)).sum()
            for s in (1, -1)
        )
        assert (np.asarray(of_distances[n]) * step).sum() == pytest.approx(
            (ahead - behind) / 2e-5, rel=1e-6
        )


def test_uniform_weights_and_single_precision():
    distances, logits = problem()
    plain = assignment_flow(distances)
    np.testing.assert_array_equal(plain, assignment_flow(distances, 0 * logits))
    for dtype in (jnp.float32, jnp.bfloat16):
        found = assignment_flow(jnp.asarray(distances, dtype))
        assert found.dtype == jnp.float32
        assert relative(found, np.asarray(plain)) < 3e-2


def test_it_is_jitted_and_mapped():
    distances, logits = problem()

    def loss(d, x):
        return (assignment_flow(d, x, time=2.0) ** 2).sum()

    expected = jax.grad(loss, (0, 1))(distances, logits)
    for found in (
        jax.jit(jax.grad(loss, (0, 1)))(distances, logits),
        [g[:, 0] for g in jax.vmap(jax.grad(loss, (0, 1)))(distances[:, None], logits[:, None])],
    ):
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-12)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ((np.zeros((2, 4, 4)),), r"shape \(N, J, y, x\)"),
        ((np.zeros((1, 1, 4, 4)),), "two labels or more"),
        ((np.zeros((1, 2, 4, 4)), np.zeros((1, 8, 4, 4))), r"logits must have shape \(1, 9, 4, 4"),
    ],
)
def test_refusals(given, says):
    with pytest.raises(InputError, match=says):
        assignment_flow(*given)


@pytest.mark.parametrize(("name", "value"), [("rho", 0), ("time", -1), ("tol", 0), ("time", "a")])
def test_numbers_out_of_range(name, value):
    with pytest.raises(InputError, match=name):
        assignment_flow(np.zeros((1, 2, 4, 4)), **{name: value})


def test_the_page():
    page = (Path(__file__).parents[1] / "docs/torch.md").read_text()
    code, told = re.findall(r"```python\n(.*?)```", page, re.S)[-1], {}
    exec(code, told)
    assert told["gradient"].shape == (4, 9, 32, 32)
    assert np.abs(told["gradient"]).max() > 0


def test_without_jax():
    child = "import sys; sys.modules['jax'] = None; import tiledlaf.jax"
    found = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True)
    assert "pip install 'tiledlaf[jax]'" in found.stderr
