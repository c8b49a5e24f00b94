"""Features of pixels from the image and from log-odds: fixed filters along the last two axes.

Gaussians reach exactly `blur_radius` pixels and derivatives are differences of them, so that a
window with a halo of `Features.radius` gives bitwise the same values as the whole image. The image
is mirrored at its border.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import Any

import numpy as np

from ..errors import InputError
from ..kernels.arrays import Array

SOURCES = ("image", "odds")
KINDS = {
    "patch": ("radius", "dilation", "sigma"),
    "gaussian": ("sigma",),
    "gradient": ("sigma",),
    "hessian": ("sigma",),
    "eigenvalues": ("sigma",),
    "difference": ("sigma", "sigma"),
}
SMALLEST = {"radius": 0, "dilation": 1}
REACH = 1024  # how far a single feature may look, in pixels
Blur = Callable[[float], np.ndarray]


@dataclass(frozen=True)
class Features:
    """A list of features, each computed for all planes of its source.

    Attributes
    ----------
    specs : tuples (source, kind, *numbers)
        The source is "image" or "odds"; kinds, with g the plane smoothed by a Gaussian (not
        smoothed for sigma 0, which only a patch may have):

        - "patch", radius r, dilation d, sigma: the (2 r + 1)^2 values of g that are d apart
        - "gaussian", sigma: g
        - "gradient", sigma: |grad g|
        - "hessian", sigma: g_xx, g_xy, g_yy
        - "eigenvalues", sigma: both of the Hessian, the larger first
        - "difference", sigma, sigma: the first g minus the second

    Examples
    --------
    The image itself and a Gaussian of it; a pixel's features look three sigma far:

    >>> import numpy as np
    >>> from tiledlaf.model.features import Features
    >>> features = Features((("image", "patch", 0, 1, 0), ("image", "gaussian", 1.0)))
    >>> features.radius, features.count(channels=3, odds=0)
    (3, 6)
    >>> image = np.zeros((1, 5, 5))  # one channel
    >>> image[0, 2, 2] = 1
    >>> found = features.compute(image)
    >>> found.shape, found.dtype
    ((2, 5, 5), dtype('float32'))
    >>> found[:, 2, 2].round(2)
    array([1.  , 0.16], dtype=float32)
    """

    specs: tuple[tuple[Any, ...], ...]

    def __post_init__(self) -> None:
        if not self.specs:
            raise InputError("expected one or more features, got none")
        object.__setattr__(self, "specs", tuple(_checked(spec) for spec in self.specs))

    def to_list(self) -> list[list[Any]]:
        """The features for JSON."""
        return [list(spec) for spec in self.specs]

    @classmethod
    def from_list(cls, rows: Any) -> Features:
        """Features that `to_list` wrote.

        Raises
        ------
        ValueError
            If a row is not a feature.
        """
        if not isinstance(rows, list | tuple):
            raise InputError(f"expected a list of features, got {rows!r}")
        return cls(tuple(rows))

    @property
    def radius(self) -> int:
        """How far a pixel's features look, along each of the last two axes."""
        return max(map(_reach, self.specs))

    def needs(self, source: str) -> bool:
        """Whether any feature has this source."""
        return any(spec[0] == source for spec in self.specs)

    def count(self, channels: int, odds: int) -> int:
        """Number F of features for `channels` image planes and `odds` planes of log-odds."""
        planes = {"image": channels, "odds": odds}
        return sum(planes[spec[0]] * _size(spec) for spec in self.specs)

    def parts(self, channels: int, odds: int) -> Iterator[tuple[tuple[Any, ...], list[slice]]]:
        """Each spec, and the slices of its features, one per plane."""
        planes = {"image": channels, "odds": odds}
        for spec, start in zip(self.specs, self._starts(planes), strict=True):
            size = _size(spec)
            yield (
                spec,
                [slice(start + n * size, start + (n + 1) * size) for n in range(planes[spec[0]])],
            )

    def compute(self, image: Array | None = None, odds: Array | None = None) -> Array:
        """All features, spec by spec, and within a spec plane by plane.

        Parameters
        ----------
        image : (C, *grid), optional
            In the image's own units, of any real type.
        odds : (J', *grid), optional
            As from `log_odds`.

        Returns
        -------
        (F, *grid) float32

        Raises
        ------
        ValueError
            If a source that a feature needs is missing, or grids differ.
        """
        given = {"image": image, "odds": odds}
        sources = {name: _planes(name, given[name]) for name in SOURCES if self.needs(name)}
        grids = {name: planes.shape[1:] for name, planes in sources.items()}
        if len(set(grids.values())) > 1:
            raise InputError(f"expected image and odds on one grid, got {grids}")
        planes = {name: len(sources.get(name, ())) for name in SOURCES}
        out = np.empty(
            (self.count(planes["image"], planes["odds"]), *next(iter(grids.values()))), np.float32
        )
        for name, source in sources.items():
            for number, plane in enumerate(source):
                blur = _blurs(plane)
                for spec, start in zip(self.specs, self._starts(planes), strict=True):
                    if spec[0] == name:
                        size = _size(spec)
                        _fill(out[start + number * size :][:size], spec, blur)
        return out

    def _starts(self, planes: dict[str, int]) -> Iterator[int]:
        """Where the features of each spec begin."""
        start = 0
        for spec in self.specs:
            yield start
            start += planes[spec[0]] * _size(spec)


def is_patch(spec: tuple[Any, ...]) -> bool:
    """Whether a feature is a patch of values, which can be shown as an image."""
    return bool(spec[1] == "patch")


def of_image(spec: tuple[Any, ...]) -> bool:
    """Whether a feature is of the image, not of log-odds."""
    return bool(spec[0] == "image")


def log_odds(q: Array) -> Array:
    """Differences of q = log p, which tell labels apart.

    Parameters
    ----------
    q : (J, *grid) float

    Returns
    -------
    (1, *grid) q_0 - q_1 for two labels, else (J, *grid) q - mean(q)
    """
    if len(q) == 2:
        return q[:1] - q[1:]
    # label by label: NumPy's sum over an axis uses another order if the grid is a single pixel
    total = q[0].copy()
    for plane in q[1:]:
        total += plane
    total *= q.dtype.type(1 / len(q))
    return q - total


def blur_radius(sigma: float) -> int:
    """Radius of a Gaussian in pixels: three sigma."""
    return math.ceil(3 * sigma)


def _checked(spec: Any) -> tuple[Any, ...]:
    """A checked feature, with its numbers as int or float."""
    if not isinstance(spec, list | tuple) or len(spec) < 2:
        raise InputError(f"expected a feature as (source, kind, *numbers), got {spec!r}")
    source, kind, *numbers = spec
    if source not in SOURCES:
        raise InputError(f"feature's source must be one of {', '.join(SOURCES)}, got {source!r}")
    if kind not in list(KINDS):  # JSON may hold unhashable values
        raise InputError(f"feature must be one of {', '.join(KINDS)}, got {kind!r}")
    names = KINDS[kind]
    if len(numbers) != len(names):
        raise InputError(f"feature {kind} needs {', '.join(names)}, got {numbers}")
    new = (source, kind, *(_number(kind, n, v) for n, v in zip(names, numbers, strict=True)))
    if _reach(new) > REACH:
        raise InputError(f"feature {kind} may reach {REACH} pixels, got {_reach(new)}")
    return new


def _number(kind: str, name: str, value: Any) -> int | float:
    whole, least = name in SMALLEST, SMALLEST.get(name, 0)
    right = isinstance(value, int | float) and not isinstance(value, bool)
    right = right and least <= value <= REACH and (not whole or value == int(value))
    if not right or (value == 0 and not whole and kind != "patch"):
        expected = f"an integer {name} from {least}" if whole else f"a {name} above 0 and"
        raise InputError(f"feature {kind} needs {expected} up to {REACH}, got {value!r}")
    return int(value) if whole else float(value)


def _size(spec: tuple[Any, ...]) -> int:
    """Number of features of a spec, per plane."""
    kind, number = spec[1:3]
    side = 2 * number + 1
    return int({"patch": side * side, "hessian": 3, "eigenvalues": 2}.get(kind, 1))


def _reach(spec: tuple[Any, ...]) -> int:
    kind, *numbers = spec[1:]
    if kind == "patch":
        radius, dilation, sigma = numbers
        return int(radius * dilation) + blur_radius(sigma)
    return blur_radius(max(numbers)) + (kind in ("gradient", "hessian", "eigenvalues"))


def _planes(name: str, given: Array | None) -> Array:
    if given is None:
        raise InputError(f"expected {name}, which the features need, got None")
    if given.ndim not in (3, 4) or 0 in given.shape:
        raise InputError(
            f"expected {name} as (planes, y, x) or (planes, z, y, x), got shape {given.shape}"
        )
    return np.ascontiguousarray(given, np.float32)


@functools.cache
def _gaussian(sigma: float) -> np.ndarray:
    """Weights of a Gaussian, with sum 1.

    They use the decimal exp, which rounds correctly everywhere; others depend on the processor.
    """
    with localcontext(prec=40):
        two = 2 * Decimal(sigma) ** 2
        half = [float((-(n * n) / two).exp()) for n in range(blur_radius(sigma) + 1)]
    total = math.fsum(half + half[1:])
    return np.array(half[:0:-1] + half) / total


def _blurs(plane: np.ndarray) -> Blur:
    """The Gaussians of a plane, each computed once."""
    from scipy.ndimage import correlate1d

    known: dict[float, np.ndarray] = {0.0: plane}

    def blur(sigma: float) -> np.ndarray:
        if sigma not in known:
            part = plane
            for axis in (-2, -1):
                part = correlate1d(part, _gaussian(sigma), axis, mode="mirror")
            known[sigma] = part
        return known[sigma]

    return blur


def _fill(out: np.ndarray, spec: tuple[Any, ...], blur: Blur) -> None:
    """The features of one plane, (n, *grid)."""
    kind, *numbers = spec[1:]
    if kind == "patch":
        radius, dilation, sigma = numbers
        _patch(out, blur(sigma), radius, dilation)
    elif kind == "gaussian":
        out[0] = blur(*numbers)
    elif kind == "difference":
        np.subtract(blur(numbers[0]), blur(numbers[1]), out=out[0])
    elif kind == "gradient":
        _gradient(out[0], blur(*numbers))
    elif kind == "hessian":
        _hessian(out, blur(*numbers))
    else:
        _eigenvalues(out, _hessian(np.empty((3, *out.shape[1:]), np.float32), blur(*numbers)))


def _neighbors(plane: np.ndarray, radius: int) -> Callable[[int, int], np.ndarray]:
    """A function that shifts the plane by (y, x), each at most the radius."""
    ny, nx = plane.shape[-2:]
    edges: Sequence[tuple[int, int]] = [(0, 0)] * (plane.ndim - 2) + [(radius, radius)] * 2
    padded = np.pad(plane, edges, mode="reflect")

    def moved(y: int, x: int) -> np.ndarray:
        return padded[..., radius + y : radius + y + ny, radius + x : radius + x + nx]

    return moved


def _patch(out: np.ndarray, plane: np.ndarray, radius: int, dilation: int) -> None:
    moved = _neighbors(plane, radius * dilation)
    steps = range(-radius * dilation, radius * dilation + 1, dilation)
    for target, (y, x) in zip(out, ((y, x) for y in steps for x in steps), strict=True):
        target[...] = moved(y, x)


def _gradient(out: np.ndarray, g: np.ndarray) -> None:
    """Magnitude of the gradient, from central differences."""
    moved, half = _neighbors(g, 1), np.float32(0.5)
    x = moved(0, 1) - moved(0, -1)
    np.subtract(moved(1, 0), moved(-1, 0), out=out)
    out *= out
    x *= x
    out += x
    np.sqrt(out, out=out)
    out *= half


def _hessian(out: np.ndarray, g: np.ndarray) -> np.ndarray:
    """Second differences xx, xy, yy."""
    moved = _neighbors(g, 1)
    twice = g + g
    for target, (y, x) in ((out[0], (0, 1)), (out[2], (1, 0))):
        np.add(moved(y, x), moved(-y, -x), out=target)
        target -= twice
    np.add(moved(1, 1), moved(-1, -1), out=out[1])
    out[1] -= moved(1, -1)
    out[1] -= moved(-1, 1)
    out[1] *= np.float32(0.25)
    return out


def _eigenvalues(out: np.ndarray, hessian: np.ndarray) -> None:
    """mean +- sqrt(((xx - yy) / 2)^2 + xy^2), the larger first."""
    xx, xy, yy = hessian
    mean, root = (xx + yy) * np.float32(0.5), (xx - yy) * np.float32(0.5)
    root *= root
    xy *= xy
    root += xy
    np.sqrt(root, out=root)
    np.add(mean, root, out=out[0])
    np.subtract(mean, root, out=out[1])


PATCH = Features((("image", "patch", 1, 1, 0),))
CONTEXT = Features(
    (
        ("odds", "patch", 1, 1, 0),
        ("odds", "patch", 1, 3, 0),
        ("odds", "patch", 1, 6, 3),
        ("odds", "gaussian", 1.5),
        ("odds", "gaussian", 3),
        ("odds", "gaussian", 6),
        ("odds", "hessian", 1.5),
        ("odds", "hessian", 3),
        ("image", "patch", 1, 1, 0),
        ("image", "hessian", 1.5),
    )
)
# on membranes the 25 values of the dilated patch make 4 % fewer errors
MULTISCALE = Features(
    (
        ("image", "patch", 0, 1, 0),
        ("image", "patch", 2, 3, 1),
        *(("image", "gaussian", sigma) for sigma in (1.6, 3.5, 5, 10)),
        *(("image", "gradient", sigma) for sigma in (1, 1.6, 3.5, 5, 10)),
        *(("image", "eigenvalues", sigma) for sigma in (1, 1.6, 3.5, 5, 10)),
    )
)
