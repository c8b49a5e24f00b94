"""Features of pixels from the image and from log-odds: fixed filters along the last two axes.

Gaussians reach exactly `blur_radius` pixels and derivatives are differences of them, so that a
window with a halo of `Features.radius` gives bitwise the same values as the whole image. The image
is mirrored at its border.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from ..kernels.arrays import Array
from ..tiles import Box
from . import filters
from .filters import blur_radius

SOURCES = {"image": "image", "mean": "image", "odds": "odds"}  # and what each is computed of
KINDS = {
    "patch": ("radius", "dilation", "sigma"),
    "gaussian": ("sigma",),
    "gradient": ("sigma",),
    "hessian": ("sigma",),
    "eigenvalues": ("sigma",),
    "difference": ("sigma", "sigma"),
    "structure": ("sigma", "sigma"),
    "lines": ("sigma", "length"),
    "ring": ("distance", "sigma"),
    "quartiles": ("distance", "sigma"),
}
SMALLEST = {"radius": 0, "dilation": 1, "distance": 1}
SHARP = ("patch", "ring", "quartiles")  # kinds that may have sigma 0
REACH = 1024  # how far a single feature may look, in pixels


@dataclass(frozen=True)
class Features:
    """A list of features, each computed for all planes of its source.

    Attributes
    ----------
    specs : tuples (source, kind, *numbers)
        The source is "image", each of its channels; "mean", the mean of these; or "odds"; kinds,
        with g the plane smoothed by a Gaussian (not
        smoothed for sigma 0, which only patches, rings and quartiles may have):

        - "patch", radius r, dilation d, sigma: the (2 r + 1)^2 values of g that are d apart
        - "gaussian", sigma: g
        - "gradient", sigma: |grad g|
        - "hessian", sigma: g_xx, g_xy, g_yy
        - "eigenvalues", sigma: both of the Hessian, the larger first
        - "difference", sigma, sigma: the first g minus the second
        - "structure", sigma, sigma: roots of both eigenvalues of the structure tensor, which is
          grad g grad g^T of the first sigma, smoothed by the second; the larger first
        - "lines", sigma, length: second differences of g across lines of eight directions,
          averaged along each over nine points up to the length away; the largest, the smallest
        - "ring", distance, sigma: mean and standard deviation of g at sixteen points so far away
        - "quartiles", distance, sigma: the least of these values, their quartiles and the largest

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

    def needs(self, given: str) -> bool:
        """Whether any feature is computed of what is given, "image" or "odds"."""
        return any(SOURCES[spec[0]] == given for spec in self.specs)

    def of_mean(self) -> Features:
        """The same features of the mean of the channels, in place of each channel."""
        rows = [("mean", *s[1:]) if s[0] == "image" else s for s in self.specs]
        return Features(tuple(rows))

    def count(self, channels: int, odds: int) -> int:
        """Number F of features for `channels` image planes and `odds` planes of log-odds."""
        planes = {"image": channels, "mean": 1, "odds": odds}
        return sum(planes[spec[0]] * _size(spec) for spec in self.specs)

    def parts(self, channels: int, odds: int) -> Iterator[tuple[tuple[Any, ...], list[slice]]]:
        """Each spec, and the slices of its features, one per plane."""
        planes = {"image": channels, "mean": 1, "odds": odds}
        for spec, start in zip(self.specs, self._starts(planes), strict=True):
            size = _size(spec)
            yield (
                spec,
                [slice(start + n * size, start + (n + 1) * size) for n in range(planes[spec[0]])],
            )

    def compute(
        self,
        image: Array | None = None,
        odds: Array | None = None,
        places: np.ndarray | Box | None = None,
    ) -> Array:
        """All features, spec by spec, and within a spec plane by plane.

        Parameters
        ----------
        image : (C, *grid), optional
            In the image's own units, of any real type.
        odds : (J', *grid), optional
            As from `log_odds`.
        places : (n,) integers or a box, optional
            Pixels of the flattened grid, or of the grid, whose features are wanted alone, which
            saves memory.

        Returns
        -------
        (F, *grid) float32, (F, n) or (F, *box)

        Raises
        ------
        ValueError
            If a source that a feature needs is missing, or grids differ.
        """
        given = {"image": image, "odds": odds}
        known = {what: _planes(what, given[what]) for what in given if self.needs(what)}
        sources = {
            name: _mean(known[what]) if name == "mean" else known[what]
            for name, what in SOURCES.items()
            if any(spec[0] == name for spec in self.specs)
        }
        grids = {name: planes.shape[1:] for name, planes in sources.items()}
        if len(set(grids.values())) > 1:
            raise InputError(f"expected image and odds on one grid, got {grids}")
        planes = {name: len(sources.get(name, ())) for name in SOURCES}
        grid, count = next(iter(grids.values())), self.count(planes["image"], planes["odds"])
        out = np.empty((count, *_shape(grid, places)), np.float32)
        for name, source in sources.items():
            for number, plane in enumerate(source):
                blur = filters.blurs(plane)
                for spec, start in zip(self.specs, self._starts(planes), strict=True):
                    if spec[0] == name:
                        size = _size(spec)
                        target = out[start + number * size :][:size]
                        if places is None:
                            _fill(target, spec, blur)
                            continue
                        part = np.empty((size, *grid), np.float32)
                        _fill(part, spec, blur)
                        if isinstance(places, tuple):
                            target[...] = part[:, *places]
                        else:
                            target[...] = part.reshape(size, -1)[:, places]
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
    return bool(SOURCES[spec[0]] == "image")


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


def odds_planes(classes: int) -> int:
    """Number of planes of `log_odds` for so many labels."""
    return 1 if classes == 2 else classes


def _checked(spec: Any) -> tuple[Any, ...]:
    """A checked feature, with its numbers as int or float."""
    if not isinstance(spec, list | tuple) or len(spec) < 2:
        raise InputError(f"expected a feature as (source, kind, *numbers), got {spec!r}")
    source, kind, *numbers = spec
    if source not in list(SOURCES):  # JSON may hold unhashable values
        raise InputError(f"feature's source must be one of {', '.join(SOURCES)}, got {source!r}")
    if kind not in list(KINDS):
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
    if not right or (value == 0 and not whole and kind not in SHARP):
        expected = f"an integer {name} from {least}" if whole else f"a {name} above 0 and"
        raise InputError(f"feature {kind} needs {expected} up to {REACH}, got {value!r}")
    return int(value) if whole else float(value)


def _size(spec: tuple[Any, ...]) -> int:
    """Number of features of a spec, per plane."""
    kind, number = spec[1:3]
    side = 2 * number + 1
    sizes = {"gaussian": 1, "gradient": 1, "difference": 1, "hessian": 3, "patch": side * side}
    sizes["quartiles"] = len(filters.QUARTILES)
    return int(sizes.get(kind, 2))


def _reach(spec: tuple[Any, ...]) -> int:
    kind, *numbers = spec[1:]
    if kind == "patch":
        radius, dilation, sigma = numbers
        return int(radius * dilation) + blur_radius(sigma)
    if kind in ("ring", "quartiles"):
        return int(numbers[0]) + blur_radius(numbers[1])
    if kind == "lines":
        return blur_radius(numbers[0]) + filters.line_reach(numbers[1])
    if kind == "structure":
        return blur_radius(numbers[0]) + 1 + blur_radius(numbers[1])
    return blur_radius(max(numbers)) + (kind in ("gradient", "hessian", "eigenvalues"))


def _shape(grid: Sequence[int], places: np.ndarray | Box | None) -> tuple[int, ...]:
    """Of the pixels whose features are wanted."""
    if isinstance(places, tuple):
        return tuple(len(range(*s.indices(n))) for s, n in zip(places, grid, strict=True))
    return tuple(grid) if places is None else places.shape


def _planes(name: str, given: Array | None) -> Array:
    if given is None:
        raise InputError(f"expected {name}, which the features need, got None")
    if given.ndim not in (3, 4) or 0 in given.shape:
        raise InputError(
            f"expected {name} as (planes, y, x) or (planes, z, y, x), got shape {given.shape}"
        )
    return np.ascontiguousarray(given, np.float32)


def _mean(planes: np.ndarray) -> np.ndarray:
    """The mean of planes, (1, *grid)."""
    # plane by plane, as in `log_odds`
    total = planes[:1].copy()
    for plane in planes[1:]:
        total += plane
    total *= np.float32(1 / len(planes))
    return total


def _fill(out: np.ndarray, spec: tuple[Any, ...], blur: filters.Blur) -> None:
    """The features of one plane, (n, *grid)."""
    kind, *numbers = spec[1:]
    if kind == "patch":
        radius, dilation, sigma = numbers
        filters.patch(out, blur(sigma), radius, dilation)
    elif kind == "gaussian":
        out[0] = blur(*numbers)
    elif kind == "difference":
        np.subtract(blur(numbers[0]), blur(numbers[1]), out=out[0])
    elif kind == "gradient":
        filters.gradient(out, blur(*numbers))
    elif kind == "hessian":
        filters.hessian(out, blur(*numbers))
    elif kind == "eigenvalues":
        filters.eigenvalues(out, blur(*numbers))
    elif kind == "structure":
        filters.structure(out, blur(numbers[0]), numbers[1])
    elif kind == "lines":
        filters.lines(out, blur(numbers[0]), numbers[1])
    else:
        of = filters.ring if kind == "ring" else filters.quartiles
        of(out, blur(numbers[1]), numbers[0])


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
# 61 features where there were 45, and none looks further: .17 s a megapixel and not .08, beside .3
# s for the trees. The classifier alone gets fewer pixels wrong in blocks of sections or images that
# were left out: 10.34 % and not 10.87 % of isbi2012 (structure tensors, lines or rings alone 10.6),
# 7.12 and not 7.62 of vnc's membranes, 12.3 and not 13.4 of stained nuclei (one seed each). More
# rings, a second patch, sigma 20 and local contrast added nothing; without the patch or sigma 10
# errors are 3 to 5 % more.
RICH = Features(
    (
        *MULTISCALE.specs,
        *(("image", "structure", *sigmas) for sigmas in ((1, 2), (1, 4), (2, 4))),
        *(("image", "lines", *numbers) for numbers in ((1.5, 10), (2, 14))),
        *(("image", "ring", *numbers) for numbers in ((6, 1), (12, 2), (20, 2))),
    )
)
# what a second classifier sees of a first one's log-odds, alike in all directions: quartiles of
# rings in place of dilated patches are a quarter less features of five classes, and fewer errors
# (docs/quality.md); features of the image as well, beside its own patch, left as many or more
SURROUNDINGS = Features(
    (
        ("odds", "patch", 0, 1, 0),
        *(("odds", "gaussian", sigma) for sigma in (1.5, 3, 6, 12)),
        *(("odds", "eigenvalues", sigma) for sigma in (1.5, 3, 6)),
        *(("odds", "lines", *numbers) for numbers in ((1.5, 10), (2, 14), (2, 24))),
        *(("odds", "quartiles", *numbers) for numbers in ((3, 0.7), (6, 1), (10, 1.5), (16, 2))),
        ("image", "patch", 1, 1, 0),
        ("image", "hessian", 1.5),
    )
)
