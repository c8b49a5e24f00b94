"""Which part of a file is meant, and on which grid of pixels."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InputError, as_number, as_whole, settle_numbers, understood
from .image import Image, TimePoint, say
from .lengths import MICROMETERS

ALIKE = 1.25  # ratio of pixel sizes that still count as the same
ENLARGED = 2.0  # most that pixels are divided to reach a pixel size: a file has no finer detail


@dataclass(frozen=True)
class Selection:
    """Which part of a file is meant; None: what the file suggests.

    Attributes
    ----------
    level : resolution level; None: 0, or what is nearest to `pixel_size`
    axes : one letter of "tczyx" for each axis, where the file does not name them
    channels : numbers or names of the channels to read; all but alpha by default
    time_point : index of the one to read; "all" makes t an axis of the grid
    z : index of the plane to read, of this level if one is given, otherwise of level 0
    series : which of the images in the file, by number or name; the largest by default
    pixel_size : micrometers along y and x that pixels should have, or one number for both
    input_pixel_size : micrometers along y and x, or z, y and x, of the file's level 0, where it
        does not say so
    no_data : pixels whose channels all have this value are masked; NaN: those with any NaN
    intensity_scale : what pixels are multiplied by; by default what brings them to a model's
    probabilities_of : what is given as probabilities, "foreground" or "cellpose"; by default those
        of classes
    learned : whether `pixel_size` is that of a model, which files without one need not have
    """

    level: int | None = None
    axes: str | None = None
    channels: Sequence[int | str] | None = None
    time_point: TimePoint = None
    z: int | None = None
    series: str | int | None = None
    pixel_size: float | tuple[float, float] | None = None
    input_pixel_size: float | tuple[float, ...] | None = None
    no_data: float | None = None
    intensity_scale: float | None = None
    probabilities_of: str | None = None
    learned: bool = False

    def __post_init__(self) -> None:
        for name in ("pixel_size", "input_pixel_size"):
            given = getattr(self, name)
            read = _both if name == "pixel_size" else _stated
            sizes = () if given is None else read(given)
            if not all(0 < value < math.inf for value in sizes):
                raise InputError(f"expected a positive `{name}` in micrometers, got {given}")
        settle_numbers(self)
        if not isinstance(self.axes, str | None):
            raise InputError(f"expected letters for `axes`, such as yxc, got {self.axes!r}")
        if isinstance(self.channels, str):
            raise InputError(f"expected a list of `channels`, got {self.channels!r}")
        if self.channels is not None:
            with understood("channels", self.channels, "numbers or names"):
                given = list(self.channels)
            numbered = (c if isinstance(c, str) else as_whole("channels", c) for c in given)
            object.__setattr__(self, "channels", tuple(numbered))
        scale = self.intensity_scale
        if scale is not None and not 0 < abs(as_number("intensity_scale", scale)) < math.inf:
            raise InputError(f"expected a finite `intensity_scale` other than 0, got {scale}")
        if self.level is not None and self.pixel_size is not None and not self.learned:
            raise InputError("expected `level` or `pixel_size`, got both")


def _both(size: Any) -> tuple[float, float]:
    """A size along y and x, given as one number or as two."""
    two = size if isinstance(size, list | tuple) else (size, size)
    if len(two) != 2:
        raise InputError(f"expected one `pixel_size`, or two along y and x, got {len(two)} of them")
    return as_number("pixel_size", two[0]), as_number("pixel_size", two[1])


def _stated(size: Any) -> tuple[float, ...]:
    """A size along y and x, or z, y and x, given as one number, two or three."""
    each = size if isinstance(size, list | tuple) else (size, size)
    if len(each) not in (2, 3):
        raise InputError(
            "expected one `input_pixel_size`, two along y and x, or three along z, y and x, got "
            f"{len(each)} of them"
        )
    return tuple(as_number("input_pixel_size", one) for one in each)


def pixel_size(image: Image) -> tuple[float, ...] | None:
    """Micrometers along each spatial axis of an image, None where one is not known."""
    return _sizes(image, len(image.spatial_axes))


def plane_size(image: Image) -> tuple[float, float] | None:
    """Micrometers along y and x, None where one is not known; along z it may be anything."""
    found = _sizes(image, 2)
    return None if found is None else (found[0], found[1])


def _sizes(image: Image, axes: int) -> tuple[float, ...] | None:
    """Micrometers along the last axes."""
    given = zip(image.scale[-axes:], image.units[-axes:], strict=True)
    sizes = tuple(abs(scale) * MICROMETERS.get(unit or "", math.nan) for scale, unit in given)
    return sizes if all(0 < size < math.inf for size in sizes) else None


def measured(image: Image, size: float | tuple[float, ...] | None) -> Image:
    """The image with pixels of this size at level 0."""
    if size is None:
        return image
    sizes = _stated(size)
    if len(sizes) == 3 and "z" not in image.axes:
        raise InputError(f"{image.path}: expected `input_pixel_size` along y and x, got z as well")
    sizes = sizes[-len(image.spatial_axes) :]  # of one plane the third says nothing
    front = len(image.grid) - len(sizes)
    steps = [n / m for n, m in zip(image.whole[front:], image.grid[front:], strict=True)]
    scale = [s * f for s, f in zip(sizes, steps, strict=True)]
    shift = [
        t * new / old
        for t, new, old in zip(image.translation[front:], scale, image.scale[front:], strict=True)
    ]
    return dataclasses.replace(
        image,
        scale=(*image.scale[:front], *scale),
        translation=(*image.translation[:front], *shift),
        units=(*image.units[:front], *["micrometer"] * len(sizes)),
        measured=True,
    )


def nearest_level(
    image: Image, size: float | tuple[float, float], learned: bool
) -> tuple[int, tuple[int, ...] | None]:
    """The level whose pixels are nearest to a size, and the grid to bring it to.

    Parameters
    ----------
    image : its level 0
    learned : whether the size is that of a model

    Returns
    -------
    level
    grid : None if the level's own pixels are of that size, within 20 %

    Raises
    ------
    ValueError
        If the file does not give its pixel size, or its pixels are far larger.
    """
    wanted, finest = _both(size), plane_size(image)
    text = in_words(wanted)
    if finest is None:
        if not learned:
            raise InputError(
                f"{image.path}: expected an image whose pixel size is known, to bring it to "
                f"{text}, got one without: state it by `input_pixel_size`"
            )
        _say_unknown(image, text)
        return 0, None
    # pixel size of each level beside the one that is wanted, along y and x
    ratios = [
        tuple(s * n / m / w for s, n, m, w in zip(finest, whole, grid[-2:], wanted, strict=True))
        for whole, grid in ((image.levels[0][-2:], grid) for grid in image.levels)
    ]
    means = [math.sqrt(y * x) for y, x in ratios]
    level = min(range(len(means)), key=lambda i: abs(math.log(means[i])))
    if all(1 / ALIKE <= r <= ALIKE for r in ratios[level]):
        if level:
            say(f"{image.path}: level {level} is read, whose pixels are nearest to {text}")
        return level, None
    if max(ratios[0]) > ENLARGED:
        raise InputError(
            f"{image.path}: expected pixels of {text}{' as the model learned at' * learned}, got "
            f"{in_words(finest)}, too large to be brought to it (`level` 0 takes them as they are)"
        )
    level = max((i for i, ratio in enumerate(ratios) if max(ratio) <= 1), default=0)
    grid = (
        *image.levels[level][:-2],
        *(
            max(1, round(n * r))
            for n, r in zip(image.levels[level][-2:], ratios[level], strict=True)
        ),
    )
    say(
        f"{image.path}: no level has pixels of {text}: level {level} is resampled to them; the "
        f"output has the grid {' x '.join(map(str, grid))}"
    )
    return level, grid


def check_learned(image: Image, size: tuple[float, float]) -> None:
    """Refuse an array whose pixels have another size than those that a model learned from."""
    known = plane_size(image)
    if known is None:
        _say_unknown(image, in_words(size))
    elif not all(1 / ALIKE <= n / m <= ALIKE for n, m in zip(known, size, strict=True)):
        raise InputError(
            f"expected an array with pixels of {in_words(size)} as the model learned at, got "
            f"{in_words(known)}: arrays are not resampled"
        )


def _say_unknown(image: Image, text: str) -> None:
    what = "file" if image.reader.stored else "array"
    say(
        f"{image.path}: the model learned at pixels of {text}, and the {what} does not say its "
        "pixel size: it is labeled as it is (state it by `input_pixel_size`)"
    )


def in_words(size: tuple[float, float]) -> str:
    """A pixel size for messages."""
    y, x = (f"{value:.4g}" for value in size)
    return f"{y} µm" if y == x else f"{y} x {x} µm"
