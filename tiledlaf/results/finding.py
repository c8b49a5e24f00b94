"""What an object is: how its pixels are connected, how small it may be, which holes it may have."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ..errors import InputError, as_number

CONNECTIVITIES = ("face", "full")
MOST = 2.0**62  # pixels, more than any image has


@dataclass(frozen=True)
class Finding:
    """What an object is.

    Attributes
    ----------
    connectivity : "face": neighbors are pixels that share an edge, in volumes a face; "full":
        also those that share a corner
    min_size : smaller objects are left out; in square (cubic) micrometers, or in pixels as "20px"
    fill_holes : whether holes are filled; a size like `min_size` is that of the largest to fill
    """

    connectivity: str = "face"
    min_size: float | str | None = None
    fill_holes: bool | float | str = False

    def __post_init__(self) -> None:
        if self.connectivity not in CONNECTIVITIES:
            raise InputError(f"`connectivity` expects face or full, got {self.connectivity!r}")

    @property
    def full(self) -> bool:
        """Whether pixels that share only an edge or a corner are neighbors."""
        return self.connectivity == "full"

    def settings(self, pixel_size: tuple[float, ...] | None) -> dict[str, Any]:
        """What objects depend on, as JSON; sizes in pixels.

        Raises
        ------
        ValueError
            If a size is none, or in micrometers where the size of pixels is not known.
        """
        least = 1
        if self.min_size is not None:
            least = max(1, math.ceil(_pixels("min_size", self.min_size, pixel_size) - 1e-9))
        largest: int | None = None
        if not isinstance(self.fill_holes, bool):
            largest = math.floor(_pixels("fill_holes", self.fill_holes, pixel_size) + 1e-9)
        return {
            "connectivity": self.connectivity,
            "min_size": least,
            "fill_holes": self.fill_holes is not False,
            "largest_hole": largest,
        }


def _pixels(name: str, given: Any, pixel_size: tuple[float, ...] | None) -> float:
    """A size in pixels."""
    text = given.strip() if isinstance(given, str) else given
    pixels = isinstance(text, str) and text.endswith("px")
    try:
        size = as_number(name, float(text.removesuffix("px")) if isinstance(text, str) else text)
    except ValueError:
        size = math.nan
    if not 0 <= size < math.inf:
        raise InputError(
            f"`{name}` expects a size in square (in volumes, cubic) micrometers, such as 50, or in "
            f"pixels, such as 20px; got {given!r}"
        )
    if pixels:
        return min(size, MOST)
    if pixel_size is None:
        raise InputError(
            f"`{name}` expects a size in pixels, such as 20px, since the size of pixels is not "
            f"known; got {given!r}"
        )
    return min(size / math.prod(pixel_size), MOST)
