"""The channels of an image that a model learned from, by their names."""

from __future__ import annotations

from typing import Any

from ..files.image import Image, choose_channels, say
from .model import Model


def with_channels(model: Model, image: Image, chosen: Any) -> Image:
    """The image with the channels that a model learned from, by their names.

    Parameters
    ----------
    chosen : channels that the user asks for, or None
    """
    wanted, found = model.images.names, image.used_names
    if not wanted or not found or wanted == found:
        return image
    here, there = ", ".join(found), ", ".join(wanted)
    if chosen is None and set(wanted) <= set(found):
        say(f"{image.path}: of its channels {here}, the model learned from {there}: these are used")
        return choose_channels(image, wanted)
    say(f"{image.path}: the model learned from the channels {there}, and these are {here}")
    return image
