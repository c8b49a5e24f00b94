"""Layers in napari, where it is installed."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import image as image_files
from ..files.image import Image
from .layers import LABELS, Layer


class Lazy:
    """A level as an array: pixels are read where it is sliced."""

    def __init__(self, image: Image, last: bool) -> None:
        self._image, self._last = image, last
        front = () if image.used_channels == 1 else (image.used_channels,)
        self.shape = (*image.grid, *front) if last else (*front, *image.grid)
        self.ndim, self.dtype = len(self.shape), np.dtype(image.dtype)

    def __getitem__(self, index: Any) -> Any:
        given = index if isinstance(index, tuple) else (index,)
        if Ellipsis in given:
            place = given.index(Ellipsis)
            rest = (slice(None),) * (self.ndim - len(given) + 1)
            given = (*given[:place], *rest, *given[place + 1 :])
        given = (*given, *(slice(None),) * (self.ndim - len(given)))
        count = len(self._image.grid)
        if self.ndim == count:
            grid, channel, at = given, slice(None), None
        elif self._last:
            grid, channel, at = given[:count], given[count], count
        else:
            grid, channel, at = given[1:], given[0], 0
        spans = [_span(one, n) for one, n in zip(grid, self._image.grid, strict=True)]
        pixels = image_files.read(self._image, tuple(slice(a, b) for a, b in spans))
        inner = tuple(
            0 if not isinstance(one, slice) else slice(None, None, one.step) for one in grid
        )
        if at is None:
            return pixels[0][inner]
        if at:
            return np.moveaxis(pixels, 0, -1)[(*inner, channel)]
        return pixels[(channel, *inner)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        found: np.ndarray = np.asarray(self[...], dtype)
        return found


def _span(one: Any, length: int) -> tuple[int, int]:
    """First and last pixel of an index along an axis."""
    if not isinstance(one, slice):
        place = int(one) % length
        return place, place + 1
    start, stop, step = one.indices(length)
    if step < 0:
        raise IndexError("expected steps forward")
    return start, max(start, stop)


def show(layers: Sequence[Layer], title: str) -> None:
    """Open napari, and return when its window is closed.

    Raises
    ------
    ValueError
        If it is not installed.
    """
    try:
        napari: Any = importlib.import_module("napari")
    except ImportError:
        raise InputError(
            "`viewer` napari is not installed: pip install 'napari[all]', or leave it out to look "
            "in the browser"
        ) from None
    viewer = napari.Viewer(title=title)
    for layer in layers:
        _add(napari, viewer, layer)
    if any(layer.measured for layer in layers):
        viewer.scale_bar.visible = True
        viewer.scale_bar.unit = "um"
    napari.run()


def _add(napari: Any, viewer: Any, layer: Layer) -> None:
    common: dict[str, Any] = {
        "scale": layer.scale(),
        "translate": layer.origin(),
        "multiscale": len(layer.levels) > 1,
        "visible": layer.shown,
    }
    levels = [Lazy(one, layer.color) for one in layer.levels]
    data = levels if len(levels) > 1 else levels[0]
    if layer.kind == LABELS:
        clear = [0.0, 0.0, 0.0, 0.0]
        shades: dict[int | None, list[float]] = {None: clear, 0: clear}
        for value, color in layer.colors.items():
            shades[value] = [*(c / 255 for c in color), 1.0]
        colormap = napari.utils.colormaps.DirectLabelColormap(color_dict=shades)
        features = {"index": [0, *layer.names], "name": ["not labeled", *layer.names.values()]}
        viewer.add_labels(
            data, name=layer.name, colormap=colormap, features=features, opacity=0.4, **common
        )
    elif layer.color:
        viewer.add_image(data, name=layer.name, rgb=True, **common)
    elif layer.image.used_channels > 1:
        names = [one.name or f"channel {n}" for n, one in enumerate(layer.image.shown)]
        chosen = layer.image.channels or range(layer.image.used_channels)
        found = [names[n] for n in chosen] if names else []
        viewer.add_image(
            data,
            name=found or layer.name,
            channel_axis=0,
            contrast_limits=[list(window) for window in layer.windows],
            **common,
        )
    else:
        viewer.add_image(data, name=layer.name, contrast_limits=list(layer.windows[0]), **common)
