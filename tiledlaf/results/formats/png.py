"""A picture to look at: labels in the colors of their classes, with a legend, of a bounded size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...files import image as image_files
from ...model.classes import palette
from ...pool.tasks import Pool
from .. import pictures, planes
from ..exporting import Choice, Export, Progress
from ..result import Result
from .ometiff import levels

EDGE = 2048  # pixels that labels have at most along their longest edge


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
        before = (slice(b, b + 1) for b in planes.plane(result, choice).before)
        found = image_files.read(image, (*before, *(slice(0, n) for n in image.grid[-2:])))
        labels = found.reshape(found.shape[-2:])[::step, ::step]
        colors = palette(max(result.names), result.colors)
        legend = [(name, [colors[value]]) for value, name in result.names.items()]
        if not labels.all():
            legend.append(("not labeled", [colors[0]]))
        every = round(max(n / m for n, m in zip(whole, shape[-2:], strict=True)))
        title = f"{whole[1]} x {whole[0]} pixels" + f", every {every}th of both" * (every > 1)
        if result.pixel_size is not None:
            y, x = (n * size / 1e3 for n, size in zip(whole, result.pixel_size[-2:], strict=True))
            title += f"; {x:.4g} x {y:.4g} mm"
        sheet = pictures.sheet(np.ascontiguousarray(colors[labels]), legend, title)
        sheet.save(path, "png")
