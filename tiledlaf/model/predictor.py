"""Weights from features: anchors of features and their weight patches (4.3)-(4.4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..errors import InputError
from ..kernels import namespace, select
from ..kernels.arrays import Array, to_host
from ..kernels.numpy import attention, normalized
from .features import Features, log_odds

# initial sigma, for distances in standard deviations of the features
SIGMA = 1.0


@dataclass(frozen=True, eq=False)
class Predictor:
    """Omega_i = softmax(sum_j a_j nu_j), a = softmax(-sigma ||f_i - p_j||), valid neighbors only.

    Attributes
    ----------
    features : the features f
    mean, scale : (F,) float64; features are (f - mean) / scale
    anchors : (N, F) float64
    patches : (N, K) float64, rows sum to 0
    sigma : float
    """

    features: Features
    mean: np.ndarray
    scale: np.ndarray
    anchors: np.ndarray
    patches: np.ndarray
    sigma: float = SIGMA

    def __post_init__(self) -> None:
        n, f = self.anchors.shape
        shapes = (self.mean.shape, self.scale.shape, self.patches.shape[:1])
        if shapes != ((f,), (f,), (n,)):
            raise InputError(
                f"expected mean and scale of {f} features and {n} patches, got the shapes {shapes}"
            )

    @property
    def prototypes(self) -> np.ndarray:
        """The former name of `anchors`."""
        return self.anchors

    @property
    def parameters(self) -> dict[str, np.ndarray]:
        """The learned parameters."""
        return {
            "anchors": self.anchors,
            "patches": self.patches,
            "sigma": np.float64(np.log(self.sigma)).reshape(1),
        }

    @property
    def finite(self) -> bool:
        """Whether all learned parameters are finite, also in float32."""
        with np.errstate(over="ignore"):
            values = [np.float32(v) for v in (self.anchors, self.patches, self.sigma)]
        return all(bool(np.isfinite(v).all()) for v in values)

    def moved(self, parameters: Mapping[str, np.ndarray]) -> Predictor:
        """A copy with other parameters; patches are projected onto the tangent space."""
        patches = parameters["patches"]
        return replace(
            self,
            anchors=parameters["anchors"],
            patches=patches - patches.mean(axis=1, keepdims=True),
            sigma=float(np.exp(parameters["sigma"][0])),
        )

    def of(self, image: Array, q: Array, rho: float) -> Array:
        """Features (F, *grid) of an image (C, *grid) with q = -D / rho, not yet normalized."""
        return raw(self.features, image, q, rho)

    def weights(self, features: Array, uniform: Array, kernel: str | None = None) -> Array:
        """Weights (K, *grid) from features (F, *grid).

        Parameters
        ----------
        uniform : (K, *grid)
            Zero where a neighbor is not valid, as from `stencil.uniform`.
        """
        return select(features, kernel).predict(features, *self._given(features), uniform)

    def shares(self, features: Array) -> Array:
        """Shares a_j of the anchors at each pixel (4.3), (N, *grid)."""
        normal, anchors, _, sigma = self._given(features)
        return attention(normalized(features, normal), anchors, sigma)[0]

    def gradient(
        self, features: Array, tangent: Array, kernel: str | None = None
    ) -> dict[str, np.ndarray]:
        """Gradient in the parameters from R_Omega dL/dOmega, float64 sums over pixels."""
        anchors, patches, sigma = select(features, kernel).predict_adjoint(
            features, *self._given(features), tangent
        )
        return {
            "anchors": anchors,
            "patches": patches - patches.mean(axis=1, keepdims=True),
            "sigma": np.array([float(sigma) * self.sigma]),  # of log sigma
        }

    def _given(self, features: Array) -> tuple[Array, Array, Array, float]:
        if len(features) != len(self.mean):
            raise InputError(f"expected {len(self.mean)} features, got {len(features)}")
        normal = np.stack([self.mean, 1 / self.scale])
        move = namespace(features).asarray
        return move(normal), move(self.anchors), move(self.patches), self.sigma


def raw(features: Features, image: Array, q: Array, rho: float) -> Array:
    """Features (F, *grid) of an image (C, *grid) with q = -D / rho (log p where rho is 1)."""
    return namespace(q).asarray(features.compute(*sources(features, image, q, rho)))


def sources(
    features: Features, image: Array, q: Array, rho: float
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """What features are computed from, on the host, where SciPy runs; None for what is not."""
    odds = None
    if features.needs("odds"):
        odds = to_host(log_odds(q if rho == 1 else q * q.dtype.type(rho)))
    return to_host(image) if features.needs("image") else None, odds


def initial(
    features: Features,
    samples: np.ndarray,
    agreement: np.ndarray,
    known: np.ndarray,
    count: int,
    seed: int,
) -> Predictor:
    """Anchors by k-means, and patches that favor neighbors with the anchor's own label.

    Parameters
    ----------
    samples : (n, F)
        Features of labeled pixels.
    agreement, known : (n, K) bool
        Whether a neighbor has the same label as the pixel, and whether it is labeled at all.
    count : N
    seed : of k-means
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    mean = samples.mean(axis=0, dtype=np.float64)
    scale = samples.std(axis=0, dtype=np.float64)
    scale[scale == 0] = 1
    rows = samples.astype(np.float64)
    rows -= mean
    rows /= scale
    count = _distinct(rows, count)
    with threadpool_limits(1):  # centers change with the number of threads
        model = KMeans(count, n_init=1, random_state=seed).fit(rows)
    patches = np.zeros((count, agreement.shape[1]))
    for j in range(count):
        own = model.labels_ == j
        agree = (agreement & known)[own].sum(axis=0)
        share = (agree + 1) / (known[own].sum(axis=0) + 2)
        patches[j] = np.log(share) - np.log(share).mean()
    return Predictor(features, mean, scale, model.cluster_centers_, patches)


def _distinct(rows: np.ndarray, most: int) -> int:
    """How many different rows there are, up to `most`."""
    seen: set[bytes] = set()
    for row in rows:
        seen.add((row + 0.0).tobytes())  # -0 is 0
        if len(seen) == most:
            break
    return len(seen)
