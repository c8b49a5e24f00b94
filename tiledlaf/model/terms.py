"""Data terms: distances of pixels to labels (2.15), from prototypes, probabilities or trees."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..errors import BadPixels
from ..kernels import select
from ..kernels.arrays import Array, namespace, to_host
from .features import Features
from .trees import Trees

SMALLEST = 1e-6  # probabilities are clipped here, so that D stays finite


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


def term_parts(term: DataTerm) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A data term as JSON and arrays."""
    if isinstance(term, Classified):
        return {"kind": "classifier", "features": term.features.to_list()}, term.trees.to_arrays()
    if isinstance(term, Probabilities):
        return {"kind": "probabilities", "classes": term.classes}, {}
    entry = {"kind": "prototypes", "values": [list(v) for v in term.values], "scale": term.scale}
    return entry, {}


def term_from(entry: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> DataTerm:
    """The data term of `term_parts`, checked."""
    kind = entry["kind"]
    if kind == "prototypes":
        values = tuple(tuple(map(float, row)) for row in entry["values"])
        if not (0 < entry["scale"] < math.inf and len({len(v) for v in values}) == 1):
            raise ValueError("expected prototypes of one length and a positive scale")
        if not np.isfinite(values).all() or len(set(values)) < len(values):
            raise ValueError("expected finite prototypes that are different from each other")
        return Prototypes(values, float(entry["scale"]))
    if kind == "probabilities":
        return Probabilities(int(entry["classes"]))
    if kind != "classifier":
        raise ValueError(f"expected prototypes, probabilities or a classifier, got {kind!r}")
    return Classified(Features.from_list(entry["features"]), Trees.from_arrays(dict(arrays)))
