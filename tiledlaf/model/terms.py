"""Kinds of data terms: by prototypes, probabilities, networks, trees, or several of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ..errors import DamagedFile, InputError, settle_numbers
from ..kernels import select
from ..kernels.arrays import Array, namespace, to_host
from ..registry import Registry
from . import bands, sampling
from .accepted import check_finite, normalized, usable
from .arrays import convert
from .features import Features, log_odds, odds_planes
from .term import DataTerm, Pending, Sample
from .trees import Trees

if TYPE_CHECKING:  # which load zarr
    from ..files.image import Image
    from .network import Network

NETWORK = "network/"  # before the names of a network's arrays beside others
SMALLEST = 1e-6  # probabilities are clipped here, so that D stays finite


@dataclass(frozen=True)
class Prototypes(DataTerm):
    """D_j = ||f - l_j||^2 / scale.

    Attributes
    ----------
    values : J rows of C numbers, in image units
    scale : float, in squared image units; 0 until a sample determines it
    unit : float
        A power of two, 0 in the ordinary range. Else distances are computed in float64, of pixels
        divided by it, and the scale is in squares of it.
    """

    kind = "prototypes"

    values: tuple[tuple[float, ...], ...]
    scale: float = 0.0
    unit: float = 0.0

    @property
    def classes(self) -> int:
        """Number of labels."""
        return len(self.values)

    def potential(self, pixels: Array, valid: Array, rho: float) -> Array:
        """-D / rho, (J, *grid) float32, of an image (C, *grid); 0 at masked-out pixels."""
        if self.unit:
            return potential(self, pixels, valid, rho).astype(np.float32)
        # the sum of the squares over the channels, divided by the scale, fits into float32
        most = math.sqrt(1e37 * min(self.scale * rho, 1.0) / len(pixels))
        check_finite(pixels, valid, "image", min(most, sampling.LARGEST))
        values = np.array(self.values, np.float32)
        q: Array = select(pixels).distances(pixels, values, -self.scale * rho)
        return q if valid is None else _blank(q, valid)

    @property
    def double(self) -> bool:
        """Whether there is a unit."""
        return self.unit > 0

    def distances(self, pixels: Array, valid: Array) -> Array:
        """D minus its least value at each pixel, (J, *grid) float64."""
        unit = self.unit or 1.0
        most = min(unit, sampling.HIGHEST / sampling.SQUARES[1]) * sampling.SQUARES[1]
        check_finite(pixels, valid, "image", most)
        x = pixels.astype(np.float64)
        if valid is not None:
            x[:, ~valid] = 0
        x /= unit
        d = namespace(x).zeros((self.classes, *x.shape[1:]), np.float64)
        for plane, row in zip(d, self.values, strict=True):
            for channel, value in zip(x, row, strict=True):
                plane += (channel - value / unit) ** 2
        d -= d.min(axis=0)
        d /= self.scale
        return d

    def settle(self, sample: Sample) -> Prototypes:
        """The prototypes with the scale of a sample."""
        return self if self.scale else prototypes(sample(), self.values)

    def resume(self, notes: Mapping[str, Any]) -> DataTerm | None:
        """The prototypes and the scale that an output stores."""
        return _resumed(notes)

    def notes(self) -> dict[str, Any]:
        """Prototypes and scale."""
        found = {"prototypes": [list(v) for v in self.values], "scale": self.scale}
        return found | ({"unit": self.unit} if self.unit else {})

    def check(self, channels: int) -> None:
        """Refuse images whose number of channels is not that of the prototypes."""
        if len(self.values[0]) != channels:
            raise InputError(
                f"expected prototypes of {channels} columns, one per channel, "
                f"got {len(self.values[0])}"
            )

    def to_parts(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Values and scale."""
        return {"values": [list(v) for v in self.values], "scale": self.scale}, {}

    @classmethod
    def from_parts(cls, entry: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        """Prototypes with their scale."""
        rows, scale = sampling.rows_of(entry["values"]), entry["scale"]
        if not sampling.SCALES[0] <= scale < math.inf:
            raise InputError(f"expected a positive scale of prototypes, got {scale}")
        if not max(math.hypot(*row) for row in rows) / math.sqrt(scale) < 1e18:
            raise InputError("expected prototypes whose distances fit into float32")
        return cls(rows, float(scale))

    def describe(self) -> list[Any]:
        """Kind, values and scale."""
        return [self.kind, [list(row) for row in self.values], self.scale]

    @classmethod
    def recall(
        cls, described: list[Any], prototypes: Any = None, probabilities: int | None = None
    ) -> Prototypes:
        """The prototypes of `describe`."""
        values = sampling.rows_of(described[1])
        if probabilities is not None or (
            prototypes is not None and not np.array_equal(np.asarray(prototypes, float), values)
        ):
            raise InputError(f"`weights` were estimated with the prototypes {values}, got others")
        return cls.from_parts({"values": values, "scale": float(described[2])}, {})


@dataclass(frozen=True)
class Clusters(Pending):
    """Prototypes still to be found by k-means."""

    classes: int
    seed: int = 0

    def __post_init__(self) -> None:
        settle_numbers(self)
        if self.classes < 2:
            raise InputError(f"expected two or more classes, got {self.classes}")

    def settle(self, sample: Sample) -> Prototypes:
        """Prototypes by k-means, and their scale."""
        pixels = sample()
        return prototypes(pixels, sampling.kmeans(pixels, self.classes, self.seed))

    def resume(self, notes: Mapping[str, Any]) -> DataTerm | None:
        """The prototypes that k-means found in an earlier run."""
        return _resumed(notes)


def _resumed(notes: Mapping[str, Any]) -> Prototypes | None:
    if "prototypes" not in notes:
        return None
    rows = tuple(map(tuple, notes["prototypes"]))
    return Prototypes(rows, notes["scale"], notes.get("unit", 0.0))


def prototypes(sample: np.ndarray, values: Any) -> Prototypes:
    """Prototypes (J, C) with the scale of a sample (n, C): the mean of min_j ||f - l_j||^2.

    Raises
    ------
    ValueError
        If there are fewer than two prototypes, two are equal, or channels do not match.
    """
    rows = sampling.rows_of(values)
    found = Prototypes(rows)
    found.check(sample.shape[1])
    return Prototypes(rows, *sampling.scale(sample, rows))


@dataclass(frozen=True)
class Probabilities(DataTerm):
    """D_j = -log p_j, p clipped at 1e-6."""

    kind = "probabilities"
    takes_probabilities = True

    classes: int

    def potential(self, pixels: Array, valid: Array, rho: float) -> Array:
        """-D / rho, (J, *grid) float32, of probabilities (J, *grid); 0 at masked-out pixels."""
        check_finite(pixels, valid, "probabilities")
        return _logarithm(normalized(pixels, valid), valid, rho)

    def bytes_per_pixel(self) -> int:
        """Probabilities as float32, their sum, and what is wrong with it."""
        return 4 * self.classes + 8

    def to_parts(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """The number of classes."""
        return {"classes": self.classes}, {}

    @classmethod
    def from_parts(cls, entry: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        """Probabilities of the stored number of classes."""
        return cls(int(entry["classes"]))

    def describe(self) -> list[Any]:
        """Kind and number of classes."""
        return [self.kind, self.classes]

    @classmethod
    def recall(
        cls, described: list[Any], prototypes: Any = None, probabilities: int | None = None
    ) -> Probabilities:
        """Probabilities, which must be given again."""
        if probabilities is None or prototypes is not None:
            raise InputError("`weights` were estimated with `probabilities`: give them")
        if probabilities != described[1]:
            raise InputError(
                f"expected probabilities of {described[1]} classes, got {probabilities}"
            )
        return cls(probabilities)


@dataclass(frozen=True)
class Networked(Probabilities):
    """D_j = -log p_j with the probabilities p that a network gives of the image.

    Attributes
    ----------
    network : Network
    """

    kind = "network"

    classes: int = field(init=False)
    network: Network

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", self.network.classes)

    def probabilities_of(self, image: Image) -> Image:
        """What the network gives, block by block."""
        return self.network.of(image)

    def to_parts(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """How the network is evaluated, and its ONNX file."""
        return self.network.to_parts()

    @classmethod
    def from_parts(cls, entry: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        """The network of a model file."""
        from .network import Network  # which reads images

        return cls(Network.from_parts(entry, arrays))

    def located(self, path: str, prefix: str) -> Self:
        """The term, whose network is read from the model file where it is evaluated."""
        return type(self)(self.network.located(path, prefix))

    def describe(self) -> list[Any]:
        """Kind, and how the network is evaluated, with its digest."""
        return [self.kind, self.network.describe()]

    @classmethod
    def recall(
        cls, described: list[Any], prototypes: Any = None, probabilities: int | None = None
    ) -> Probabilities:
        """Probabilities, for which the network must be given again."""
        count = int(described[1]["classes"])
        return Probabilities.recall([Probabilities.kind, count], prototypes, probabilities)


@dataclass(frozen=True, eq=False)
class Classified(DataTerm):
    """D_j = -log p_j with the probabilities of boosted trees on features of the image.

    Attributes
    ----------
    features : of the image
    trees : Trees
    """

    kind = "classifier"
    slow_to_fit = True

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
        image = to_host(usable(pixels, valid, "image"))
        return _logarithm(_classified(self.trees, self.features, pixels, image), valid, rho)

    def check(self, channels: int) -> None:
        """Refuse images whose number of channels does not match the features."""
        if self.features.needs("odds"):
            raise InputError("expected a classifier on features of the image alone")
        count = self.features.count(channels, 0)
        if self.trees.features != count:
            raise InputError(
                f"expected a classifier on {count} features, got {self.trees.features}"
            )

    def bytes_per_pixel(self) -> int:
        """Features twice, scores and probabilities."""
        return 4 * 2 * self.trees.features + 8 * self.classes

    def to_parts(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """The list of features, and the trees."""
        return {"features": self.features.to_list()}, self.trees.to_arrays()

    @classmethod
    def from_parts(cls, entry: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        """A classifier from its features and trees."""
        return cls(Features.from_list(entry["features"]), Trees.from_arrays(dict(arrays)))


@dataclass(frozen=True, eq=False)
class AutoContext(DataTerm):
    """D_j = -log p_j of a second classifier, which also sees what a first one makes of a pixel.

    Its features are of the image, and of the first one's log-odds around the pixel (auto-context:
    Tu and Bai, IEEE Trans. PAMI 2010).

    Attributes
    ----------
    first : Classified
    features : of the image and of the first classifier's log-odds
    trees : Trees
    """

    kind = "auto-context"
    slow_to_fit = True

    first: Classified
    features: Features
    trees: Trees

    @property
    def classes(self) -> int:
        """Number of labels."""
        return self.trees.classes

    @property
    def radius(self) -> int:
        """Pixels that a distance looks beyond its own, along y and x."""
        return self.first.radius + self.features.radius

    def potential(self, pixels: Array, valid: Array, rho: float) -> Array:
        """-D / rho, (J, *grid) float32, of an image (C, *grid); 0 at masked-out pixels."""
        image, odds = _sources(self.first, self.features, pixels, valid)
        return _logarithm(_classified(self.trees, self.features, pixels, image, odds), valid, rho)

    def check(self, channels: int) -> None:
        """Refuse images whose number of channels does not match the features."""
        self.first.check(channels)
        count = self.features.count(channels, odds_planes(self.classes))
        if self.trees.features != count or self.first.classes != self.classes:
            raise InputError(
                f"expected a second classifier on {count} features, got {self.trees.features}"
            )

    def bytes_per_pixel(self) -> int:
        """That of the classifier with more features, and of the first one's log-odds."""
        own = 4 * 2 * self.trees.features + 12 * self.classes
        return max(own, self.first.bytes_per_pixel())

    def to_parts(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Features of both, and trees of both."""
        entry, arrays = self.first.to_parts()
        second = self.trees.to_arrays()
        return {"features": self.features.to_list(), "first": entry}, {
            **{f"first/{key}": value for key, value in arrays.items()},
            **{f"second/{key}": value for key, value in second.items()},
        }

    @classmethod
    def from_parts(cls, entry: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        """Both classifiers from their features and trees."""
        parts: dict[str, dict[str, np.ndarray]] = {"first": {}, "second": {}}
        for key, value in arrays.items():
            which, _, name = key.partition("/")
            parts[which][name] = value
        first = Classified.from_parts(entry["first"], parts["first"])
        features = Features.from_list(entry["features"])
        return cls(first, features, Trees.from_arrays(parts["second"]))


def context(
    first: Classified, features: Features, pixels: Array, valid: Array, places: np.ndarray
) -> np.ndarray:
    """What a second classifier sees at places of the flattened grid, (F, n)."""
    found: np.ndarray = features.compute(*_sources(first, features, pixels, valid), places)
    return found


def _sources(
    first: Classified, features: Features, pixels: Array, valid: Array
) -> tuple[np.ndarray | None, np.ndarray]:
    """The image, if features need it, and log-odds of a first classifier, of which these are."""
    odds = to_host(log_odds(first.potential(pixels, valid, 1.0)))
    return to_host(usable(pixels, valid, "image")) if features.needs("image") else None, odds


def _classified(
    trees: Trees,
    features: Features,
    pixels: Array,
    image: np.ndarray | None,
    odds: np.ndarray | None = None,
) -> Array:
    """Probabilities (J, *grid) on the device of the pixels."""
    move = namespace(pixels).asarray
    found = bands.bands(features, image, odds)
    return bands.joined(found, pixels.shape[-2], lambda x, _: trees.probabilities(move(x)))


TREES: dict[str, type[Classified | AutoContext]] = {
    term.kind: term for term in (Classified, AutoContext)
}


@dataclass(frozen=True, eq=False)
class Averaged(DataTerm):
    """D_j = a D_j of a network + (1 - a) D_j of trees: the geometric mean of their probabilities.

    It takes the image and, behind its channels, the network's probabilities.

    Attributes
    ----------
    networked : Networked
    trees : Classified or AutoContext
    share : a, of the network
    """

    kind = "average"
    takes_probabilities = True
    slow_to_fit = True

    networked: Networked
    trees: Classified | AutoContext
    share: float

    @property
    def classes(self) -> int:
        """Number of labels."""
        return self.trees.classes

    @property
    def radius(self) -> int:
        """Pixels that the trees look beyond a pixel, along y and x."""
        return self.trees.radius

    @property
    def network(self) -> Network:
        """The network."""
        return self.networked.network

    def planes(self, channels: int) -> int:
        """The image's channels and the classes."""
        return channels + self.classes

    def probabilities_of(self, image: Image) -> Image:
        """The image's channels and what the network gives, block by block."""
        return self.network.of(image, beside=True)

    def potential(self, pixels: Array, valid: Array, rho: float) -> Array:
        """-D / rho, (J, *grid) float32, of the image and probabilities; 0 at masked-out pixels."""
        image, p = pixels[: -self.classes], pixels[-self.classes :]
        q = self.trees.potential(image, valid, rho / (1 - self.share))
        q += self.networked.potential(p, valid, rho / self.share)
        return q

    def check(self, channels: int) -> None:
        """Refuse images whose number of channels does not match the trees' features."""
        self.trees.check(channels)

    def bytes_per_pixel(self) -> int:
        """Those of the trees, and what is taken of the network's probabilities."""
        return self.trees.bytes_per_pixel() + self.networked.bytes_per_pixel() + 4 * self.classes

    def to_parts(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """The network's share, and the parts of both."""
        network, arrays = self.networked.to_parts()
        trees, more = self.trees.to_parts()
        entry = {"share": self.share, "network": network}
        return entry | {"trees": {"kind": self.trees.kind, **trees}}, {
            **{NETWORK + key: value for key, value in arrays.items()},
            **{f"trees/{key}": value for key, value in more.items()},
        }

    @classmethod
    def from_parts(cls, entry: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        """Both from their parts."""
        network, trees = (
            {k.removeprefix(name): v for k, v in arrays.items() if k.startswith(name)}
            for name in (NETWORK, "trees/")
        )
        made = TREES[entry["trees"]["kind"]].from_parts(entry["trees"], trees)
        networked = Networked.from_parts(entry["network"], network)
        share = convert(entry["share"], float)
        if not 0 < share < 1:
            raise InputError(f"expected a share of the network between 0 and 1, got {share}")
        if made.classes != networked.classes:
            raise InputError(
                f"expected trees of the network's {networked.classes} classes, got {made.classes}"
            )
        return cls(networked, made, share)

    def located(self, path: str, prefix: str) -> Self:
        """The term, whose network is read from the model file where it is evaluated."""
        networked = self.networked.located(path, prefix + NETWORK)
        return dataclasses.replace(self, networked=networked)


KINDS = (Prototypes, Probabilities, Networked, *TREES.values(), Averaged)
TERMS: Registry[type[DataTerm]] = Registry("tiledlaf.terms", {term.kind: term for term in KINDS})


def potential(term: DataTerm, pixels: Array, valid: Array, rho: float) -> Array:
    """-D / rho up to a constant of each pixel, (J, *grid) float64; 0 at masked-out pixels."""
    q = term.distances(pixels, valid) * (-1 / rho)
    return q if valid is None else _blank(q, valid)


def is_settled(term: Any) -> bool:
    """Whether something is a data term that needs no further sample."""
    return callable(getattr(term, "potential", None))


def settled(term: Pending) -> DataTerm:
    """The term itself, after checking that it needs no further sample."""
    assert is_settled(term), f"{term} comes to the tiles before its sample was taken"
    found: Any = term
    return found


def named(text: str) -> DataTerm:
    """The data term ``NAME`` or ``NAME:TEXT``, by its name in `TERMS`.

    Raises
    ------
    ValueError
        If the name is unknown, or the term refuses the text.
    """
    name, _, rest = text.partition(":")
    if name not in TERMS:
        raise InputError(f"`term` must be one of {', '.join(TERMS)}, got {name!r}")
    return TERMS[name].from_text(rest)


def term_parts(term: DataTerm) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A data term as JSON and arrays."""
    entry, arrays = term.to_parts()
    return {"kind": term.kind, **entry}, arrays


def term_from(entry: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> DataTerm:
    """The data term of `term_parts`, checked."""
    kind = entry["kind"]
    if kind not in list(TERMS):  # JSON may hold unhashable values
        raise InputError(_unknown(kind))
    return TERMS[kind].from_parts(entry, arrays)


def recalled(
    described: list[Any], prototypes: Any = None, probabilities: int | None = None
) -> DataTerm:
    """The data term of `describe`; what the user gives as well must agree with it."""
    kind = described[0]
    if kind not in list(TERMS):  # JSON may hold unhashable values
        raise InputError(_unknown(kind))
    try:
        return TERMS[kind].recall(described, prototypes, probabilities)
    except (KeyError, TypeError, IndexError, OverflowError) as error:
        raise DamagedFile(
            f"`weights`: expected a data term, got {type(error).__name__}: {error}"
        ) from None


def _unknown(kind: Any) -> str:
    return (
        f"expected a data term of the kinds {', '.join(TERMS)}, got {kind!r} (is the package that "
        "adds it installed?)"
    )


def _logarithm(p: Array, valid: Array, rho: float) -> Array:
    """log p / rho of probabilities (J, *grid), 0 at masked-out pixels."""
    q: Array = select(p).logarithm(p, SMALLEST, 1 / rho)
    return q if valid is None else _blank(q, valid)


def _blank(q: Array, valid: Array) -> Array:
    q[:, ~valid] = 0
    return q
