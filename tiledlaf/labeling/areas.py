"""How much of an image each class covers: pixels, shares, areas."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

UNLABELED = "not labeled"


@dataclass(frozen=True)
class Area:
    """One class, or the pixels that are not labeled (value 0).

    Attributes
    ----------
    value, name : label value and class
    pixels : in all time points
    share : of the labeled pixels, 0..1; for value 0, of all pixels
    size : area in square micrometers, or volume in cubic ones; None where the pixel size is not
        known
    """

    value: int
    name: str
    pixels: int
    share: float
    size: float | None


def areas(
    counts: Sequence[int], names: Mapping[int, str], pixel_size: Sequence[float] | None
) -> list[Area]:
    """The rows of a table of areas.

    Parameters
    ----------
    counts : pixels of each label value, from 0 on
    names : of the label values
    pixel_size : micrometers along each spatial axis, None where it is not known

    Examples
    --------
    >>> from tiledlaf.labeling.areas import areas
    >>> areas([0, 30, 10], {1: "stroma", 2: "tumor"}, (0.5, 0.5))[1]
    Area(value=1, name='stroma', pixels=30, share=0.75, size=7.5)
    """
    whole, labeled = sum(counts) or 1, sum(counts[1:]) or 1
    one = None if pixel_size is None else math.prod(pixel_size)
    return [
        Area(
            value,
            names.get(value, UNLABELED if value == 0 else str(value)),
            int(count),
            count / (labeled if value else whole),
            None if one is None else count * one,
        )
        for value, count in enumerate(counts)
    ]


def in_words(size: float, axes: int) -> str:
    """An area of two axes in µm² or mm², a volume of three in µm³ or mm³: four digits or more.

    Examples
    --------
    >>> from tiledlaf.labeling.areas import in_words
    >>> in_words(7.5, 2), in_words(1_234_567, 2), in_words(1_234_567, 3)
    ('7.5 µm²', '1.235 mm²', '1234567 µm³')
    """
    factor, unit = (1e3**axes, "mm") if size >= 1e-2 * 1e3**axes else (1.0, "µm")
    return f"{digits(size / factor)} {unit}{'²³'[axes - 2]}"


def percent(area: Area) -> str:
    """A share in words; what is not labeled has one of all pixels."""
    share = f"{100 * area.share:.1f} %"
    return share if area.value else f"{share} of all"


def digits(value: float) -> str:
    """A positive number by four digits or, from 1000 on, by all those before the point."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.4g}"
