"""Distances of pixels to labels (2.15), from prototypes or from any model's probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .classifier import Trees
from .features import Features
from .kernels import select, to_host
from .kernels.numpy import Array, namespace

SMALLEST = 1e-6  # probabilities are clipped here, so that D stays finite
SAMPLE_PIXELS = 65536
BLOCK = 16  # edge of a sampled block: few chunks are read whatever the image's size


class BadPixels(ValueError):
    """Pixels that cannot be labeled; `first` is one's place in the window that was given."""

    def __init__(self, text: str, first: Sequence[int]) -> None:
        super().__init__(text, first)
        self.text, self.first = text, tuple(map(int, first))

    def __str__(self) -> str:
        return f"{self.text}, pixel {self.first}"

    def moved(self, window: Sequence[slice]) -> BadPixels:
        """The same with the place in the image that the window is of."""
        return BadPixels(self.text, [p + w.start for p, w in zip(self.first, window, strict=True)])


@dataclass(frozen=True)
class Prototypes:
    """D_j = ||f - l_j||^2 / scale.

    Attributes
    ----------
    values : J rows of C numbers, in image units
    scale : float, image units squared; 0 until a sample has told it
    """

    values: tuple[tuple[float, ...], ...]
    scale: float = 0.0
    radius: ClassVar[int] = 0  # pixels that a distance looks beyond its own

    @property
    def classes(self) -> int:
        """Number of labels."""
        return len(self.values)

    def potential(self, pixels: Array, valid: Array, rho: float) -> Array:
        """-D / rho, (J, *grid) float32, of an image (C, *grid); 0 at masked-out pixels."""
        check_finite(pixels, valid, "image")
        values = np.array(self.values, np.float32)
        q: Array = select(pixels).distances(pixels, values, -self.scale * rho)
        return q if valid is None else _blank(q, valid)


@dataclass(frozen=True)
class Clusters:
    """Prototypes that k-means has still to find."""

    classes: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self.classes < 2:
            raise ValueError(f"expected two or more classes, got {self.classes}")


@dataclass(frozen=True)
class Probabilities:
    """D_j = -log p_j, p clipped at 1e-6."""

    classes: int
    radius: ClassVar[int] = 0

    def potential(self, pixels: Array, valid: Array, rho: float) -> Array:
        """-D / rho, (J, *grid) float32, of probabilities (J, *grid); 0 at masked-out pixels."""
        check_finite(pixels, valid, "probabilities")
        p = normalized(pixels, valid)
        q: Array = select(p).logarithm(p, SMALLEST, 1 / rho)
        return q if valid is None else _blank(q, valid)


@dataclass(frozen=True, eq=False)
class Classified:
    """D_j = -log p_j with the probabilities of boosted trees on features of the image.

    Attributes
    ----------
    features : of the image
    trees : Trees
    """

    features: Features
    trees: Trees

    @property
    def classes(self) -> int:
        """Number of labels."""
        return self.trees.classes

    @property
    def radius(self) -> int:
        """Pixels that a distance looks beyond its own, along y and x."""
        return self.features.radius

    def potential(self, pixels: Array, valid: Array, rho: float) -> Array:
        """-D / rho, (J, *grid) float32, of an image (C, *grid); 0 at masked-out pixels."""
        xp, host = namespace(pixels), to_host(usable(pixels, valid, "image"))
        p = self.trees.probabilities(xp.asarray(self.features.compute(host)))
        q: Array = select(p).logarithm(p, SMALLEST, 1 / rho)
        return q if valid is None else _blank(q, valid)


DataTerm = Prototypes | Probabilities | Classified
Pending = DataTerm | Clusters


def describe(term: DataTerm) -> list[Any]:
    """A data term as JSON, for notes on what was made with it."""
    if isinstance(term, Prototypes):
        return ["prototypes", [list(row) for row in term.values], term.scale]
    return ["probabilities" if isinstance(term, Probabilities) else "classifier", term.classes]


def settle(term: Pending, sample: Callable[[], np.ndarray]) -> DataTerm:
    """The data term with prototypes and scale, from a sample (n, C) of the image's pixels."""
    if isinstance(term, Clusters):
        pixels = sample()
        return prototypes(pixels, kmeans(pixels, term.classes, term.seed))
    if isinstance(term, Prototypes) and not term.scale:
        return prototypes(sample(), term.values)
    return term


def _blank(q: Array, valid: Array) -> Array:
    q[:, ~valid] = 0
    return q


def check_finite(pixels: Array, valid: Array, name: str) -> None:
    """Refuse NaN and inf at pixels that are not masked out."""
    if pixels.dtype.kind != "f":
        return
    # a sum is finite unless something in it is not (or it overflows: then look closely)
    if bool(np.isfinite(pixels.sum(dtype=np.float64))):
        return
    bad = ~np.isfinite(pixels)
    if valid is not None:
        bad &= valid
    if bool(bad.any()):
        channel, *place = (axis[0] for axis in bad.nonzero())
        raise BadPixels(
            f"{name}: expected finite values, got {int(bad.sum())} NaN or inf, the first at "
            f"channel {channel}",
            place,
        )


def usable(pixels: Array, valid: Array, name: str) -> Array:
    """The same without NaN and inf, which are allowed where masked out: for filters to look at."""
    check_finite(pixels, valid, name)
    if valid is None or pixels.dtype.kind != "f":
        return pixels
    xp = namespace(pixels)
    return xp.where(xp.isfinite(pixels), pixels, pixels.dtype.type(0))


def normalized(p: Array, valid: Array = None) -> Array:
    """Probabilities as float32: integers divided by their sum, floats checked to sum to 1.

    Raises
    ------
    ValueError
        If floats do not sum to 1 within 1e-3 over the labels, or a value is negative, or all
        integers of a pixel are 0.
    """
    if p.dtype.kind == "f":
        p = p.astype(np.float32)
        total = p.sum(axis=0)
        wrong = (abs(total - 1) > 1e-3) | (p.min(axis=0) < -1e-3)
        expected = "to be 0 or more and sum to 1 within 1e-3 over the classes"
    elif p.dtype.kind == "u":
        p = p.astype(np.float32)
        total = p.sum(axis=0)
        wrong = total == 0
        p /= np.maximum(total, np.float32(1))
        expected = "of unsigned integers to have a positive sum over the classes"
    else:
        raise ValueError(f"expected probabilities of type float or unsigned integer, got {p.dtype}")
    if valid is not None:
        wrong &= valid
    if bool(wrong.any()):
        place = [int(axis[0]) for axis in wrong.nonzero()]
        values = ", ".join(f"{float(v):.4g}" for v in p[:8, *place]) + ", ..." * (len(p) > 8)
        raise BadPixels(
            f"expected probabilities {expected}, got the sum {float(total[*place]):.6g} ({values})",
            place,
        )
    return p


def sample_windows(shape: Sequence[int], seed: int) -> list[tuple[slice, ...]]:
    """Blocks of pixels to look at for k-means and the scale: fixed by shape and seed.

    Images up to `SAMPLE_PIXELS` are one block; of larger ones blocks of 16 x 16 are drawn.
    """
    if np.prod(shape, dtype=float) <= SAMPLE_PIXELS:
        return [tuple(slice(0, n) for n in shape)]
    edges = [min(BLOCK, n) if axis >= len(shape) - 2 else 1 for axis, n in enumerate(shape)]
    count = SAMPLE_PIXELS // int(np.prod(edges))
    rng = np.random.default_rng(seed)
    starts = [rng.integers(0, n - edge + 1, count) for n, edge in zip(shape, edges, strict=True)]
    return [
        tuple(slice(int(a), int(a) + edge) for a, edge in zip(corner, edges, strict=True))
        for corner in zip(*starts, strict=True)
    ]


def pixels_of(blocks: Sequence[np.ndarray], masks: Sequence[np.ndarray] | None) -> np.ndarray:
    """A sample (n, C) out of blocks (C, *window), without masked and non-finite pixels."""
    rows = [block.reshape(len(block), -1).T for block in blocks]
    if masks is not None:
        rows = [row[mask.ravel() != 0] for row, mask in zip(rows, masks, strict=True)]
    sample = np.concatenate(rows)
    sample = sample[np.isfinite(sample).all(axis=1)]
    if not len(sample):
        raise ValueError(
            "expected pixels to find prototypes and scale from, got a sample in which all are NaN, "
            "inf or masked out (--seed draws another one)"
        )
    return sample


def kmeans(sample: np.ndarray, classes: int, seed: int) -> np.ndarray:
    """Prototypes (classes, C) float64 by k-means, ordered by brightness (mean over channels).

    One thread: scikit-learn's centers change with the number of threads.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    distinct = len(np.unique(sample, axis=0))
    if distinct < classes:
        raise ValueError(
            f"--classes {classes}: the image's sample of {len(sample)} pixels has only "
            f"{distinct} different values"
        )
    with threadpool_limits(1):
        model = KMeans(classes, n_init=4, random_state=seed).fit(sample.astype(np.float64))
    centers = model.cluster_centers_
    order = np.lexsort((*centers.T[::-1], centers.mean(axis=1)))
    return np.asarray(centers[order], np.float64)


def prototypes(sample: np.ndarray, values: Any) -> Prototypes:
    """Prototypes with the scale of a sample: the mean of min_j ||f - l_j||^2.

    Parameters
    ----------
    sample : (n, C)
    values : (J, C), image units

    Raises
    ------
    ValueError
        If there are fewer than two prototypes, two are equal, or channels do not match.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or len(values) < 2:
        raise ValueError(f"expected two or more prototypes as rows, got shape {values.shape}")
    if values.shape[1] != sample.shape[1]:
        raise ValueError(
            f"expected prototypes with {sample.shape[1]} columns, one a channel, "
            f"got {values.shape[1]}"
        )
    if not np.isfinite(values).all():
        raise ValueError("expected finite prototypes, got NaN or inf")
    if len(np.unique(values, axis=0)) < len(values):
        raise ValueError("expected different prototypes, got two equal rows")
    sample = sample.astype(np.float64)
    nearest = np.min([((sample - value) ** 2).sum(axis=1) for value in values], axis=0)
    # an image of nothing but its prototypes has no scale of its own: use the prototypes' nearest
    gaps = [((a - b) ** 2).sum() for i, a in enumerate(values) for b in values[:i]]
    scale = float(nearest.mean()) or float(min(gaps))
    return Prototypes(tuple(tuple(map(float, row)) for row in values), scale)
