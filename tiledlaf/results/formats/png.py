"""A picture to look at, of a bounded size: labels in colors, with a legend and a scale bar."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...files import image as image_files
from ...files.image import Image
from ...model.classes import palette
from ...pool.tasks import Pool
from .. import pictures, planes
from ..exporting import Choice, Export, Progress
from ..result import Result
from .ometiff import levels

EDGE = 2048  # pixels that labels have at most along their longest edge
BAND = 2**26  # pixels that are read at a time
LISTED = 60  # classes of a legend


@dataclass(frozen=True)
class Png(Export):
    """A plane of the finest level that fits; the title says which pixels are shown."""

    name = "PNG"
    suffixes = frozenset({".png"})
    options = frozenset({"z", "time_point"})

    def check(self, result: Result, choice: Choice) -> None:
        """Refuse several planes at once."""
        planes.check(result, choice)

    def write(
        self, result: Result, path: str, choice: Choice, pool: Pool, progress: Progress
    ) -> None:
        """Draw it."""
        whole = result.labels.grid[-2:]
        image, step, shape = next(one for one in levels(result) if max(one[2][-2:]) <= EDGE)
        labels = _drawn(image, planes.plane(result, choice).before, step)
        every = round(max(n / m for n, m in zip(whole, shape[-2:], strict=True)))
        title = f"{whole[1]} x {whole[0]} pixels"
        if every > 1:
            title += f", one of {every} x {every} shown"
        across = None
        if result.plane_size is not None:
            y, x = (n * size / 1e3 for n, size in zip(whole, result.plane_size, strict=True))
            title += f"; {x:.4g} x {y:.4g} mm"
            across = result.plane_size[1] * whole[1] / labels.shape[1]
        colors = palette(max(result.names), result.colors)
        legend = _legend(result, labels, colors)
        sheet = pictures.sheet(np.ascontiguousarray(colors[labels]), legend, title, (across,))
        sheet.save(path, "png")


def _drawn(image: Image, before: tuple[int, ...], step: int) -> np.ndarray:
    """Every `step`-th pixel of a plane along both axes, of which some rows are read at a time."""
    height, width = image.grid[-2:]
    rows = max(BAND // (width * step), 1) * step
    front = tuple(slice(b, b + 1) for b in before)
    parts = []
    for y in range(0, height, rows):
        window = (*front, slice(y, min(y + rows, height)), slice(0, width))
        found = image_files.read(image, window)
        parts.append(found.reshape(found.shape[-2:])[::step, ::step])
    return np.concatenate(parts)


def _legend(
    result: Result, labels: np.ndarray, colors: np.ndarray
) -> list[tuple[str, list[np.ndarray]]]:
    """Names and colors of the classes; of many, those that cover most of the picture."""
    counts = np.bincount(labels.ravel(), minlength=len(colors))
    listed = list(result.names)
    if len(listed) > LISTED:
        listed = sorted(listed, key=lambda value: (-counts[value], value))[:LISTED]
    legend = [(result.names[value], [colors[value]]) for value in listed]
    if len(listed) < len(result.names):
        legend.append((f"and {len(result.names) - len(listed)} more classes", []))
    if counts[0]:
        legend.append(("not labeled", [colors[0]]))
    return legend
