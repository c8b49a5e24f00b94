"""How channels are called and shown, and NGFF's `omero` metadata of it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Channel:
    """How a channel is called and shown.

    Attributes
    ----------
    name : None where the file does not say it
    color : RRGGBB, or None
    window : (start, end, min, max) of its intensities, or None
    alpha : whether it is the transparency of the others, which is never data
    """

    name: str | None = None
    color: str | None = None
    window: tuple[float, float, float, float] | None = None
    alpha: bool = False


RGB = tuple(
    Channel(name, color)
    for name, color in (("red", "FF0000"), ("green", "00FF00"), ("blue", "0000FF"))
)
# colors of channels without one, told apart by most people
COLORS = ("FFFFFF", "FF00FF", "00FFFF", "FFFF00", "00FF00", "FF0000", "0000FF")


def is_color(channels: Sequence[Channel]) -> bool:
    """Whether channels are called red, green and blue, perhaps before an alpha channel."""
    names = [str(channel.name).lower() for channel in channels if not channel.alpha]
    return names == [channel.name for channel in RGB]


def listed_channels(found: Any) -> list[Any]:
    """The entries of `omero` metadata, one for each channel; none where it is something else."""
    listed = found.get("channels") if isinstance(found, Mapping) else None
    return listed if isinstance(listed, list) else []


def of_omero(listed: Sequence[Any]) -> tuple[Channel, ...]:
    """The channels of entries of `omero` metadata; none where these say nothing."""
    entries = [entry if isinstance(entry, Mapping) else {} for entry in listed]
    channels = []
    for entry in entries:
        name, color, window = (entry.get(key) for key in ("label", "color", "window"))
        shown = color if isinstance(color, str) and re.fullmatch("[0-9A-Fa-f]{6}", color) else None
        alpha = name == "alpha"
        called = None if name is None else str(name)
        channels.append(Channel(called, shown, _window(window), alpha))
    return tuple(channels) if any(channels) else ()


def _window(found: Any) -> tuple[float, float, float, float] | None:
    if not isinstance(found, Mapping):
        return None
    numbers = [found.get(key) for key in ("start", "end", "min", "max")]
    if not all(isinstance(n, int | float) and math.isfinite(n) for n in numbers):
        return None
    start, end, low, high = (float(n) for n in numbers if n is not None)
    return start, end, low, high


def omero(channels: Sequence[Channel], dtype: str) -> dict[str, Any]:
    """NGFF's `omero` metadata; windows that are not known are the whole range of the type."""
    kind = np.dtype(dtype)
    top = 1.0 if kind.kind in "fb" else int(np.iinfo(kind).max)
    entries = []
    for number, channel in enumerate(channels):
        start, end, low, high = channel.window or (0, top, 0, top)
        entries.append(
            {
                "label": f"channel {number}" if channel.name is None else channel.name,
                "color": channel.color or COLORS[number % len(COLORS)],
                "active": not channel.alpha,
                "window": {"min": low, "max": high, "start": start, "end": end},
            }
        )
    return {"channels": entries}
