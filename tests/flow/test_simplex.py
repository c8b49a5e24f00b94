import numpy as np
import oracle
from hypothesis import given
from hypothesis import strategies as st

from tiledlaf.flow import simplex


@given(labels=st.integers(2, 12), seed=st.integers(0, 2**32 - 1))
def test_maps(labels, seed):
    rng = np.random.default_rng(seed)
    p = np.maximum(rng.dirichlet(np.ones(labels), 5).T, 1e-4)
    p, u = p / p.sum(axis=0), rng.normal(size=(labels, 5))
    np.testing.assert_allclose(simplex.replicator(p, u), oracle.replicator(p, u), atol=1e-14)
    np.testing.assert_allclose(simplex.softmax(np.log(p) + u), oracle.lift(p, p * u))
    np.testing.assert_allclose(simplex.softmax(u + 3), simplex.softmax(u))
    for tangent in (simplex.replicator(p, u), simplex.project(u)):
        np.testing.assert_allclose(tangent.sum(axis=0), 0, atol=1e-12)


@given(labels=st.integers(2, 12), seed=st.integers(0, 2**32 - 1))
def test_replicator_halves_osc_at_most(labels, seed):
    """The contraction that the number of Taylor steps and the certificate rest on."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(labels, 0.3), 50).T
    u = rng.choice([0.0, 1.0], (labels, 50))
    out = simplex.replicator(p, u)
    assert (np.ptp(out, axis=0) <= 0.5 * np.ptp(u, axis=0) + 1e-12).all()
