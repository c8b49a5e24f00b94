"""Pictures of labels beside each other, with titles and a legend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw

# of labels from 0, which is not labeled
COLORS = np.array(
    [(0, 0, 0), (230, 230, 230), (213, 94, 0), (0, 114, 178), (240, 228, 66), (45, 45, 45)],
    np.uint8,
)
GAP, BAR = 6, 20


def reddened(labels: np.ndarray, truth: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Labels in their colors, reddened where they are wrong."""
    mixed = colors[labels].copy()
    wrong = (labels != truth) & (truth > 0)
    mixed[wrong] = mixed[wrong] // 2 + np.array((110, 0, 0), np.uint8)
    return mixed


def sheet(
    shown: Sequence[tuple[str, np.ndarray]], legend: Sequence[tuple[str, Any]], columns: int = 5
) -> PIL.Image.Image:
    """Panels (y, x, 3) of one size, each with its title, and the legend below."""
    height, width = shown[0][1].shape[:2]
    rows = -(-len(shown) // columns)
    found = PIL.Image.new(
        "RGB",
        (columns * (width + GAP) + GAP, rows * (height + BAR + GAP) + BAR + GAP),
        "white",
    )
    pen = PIL.ImageDraw.Draw(found)
    for i, (title, panel) in enumerate(shown):
        row, column = divmod(i, columns)
        left, top = GAP + column * (width + GAP), GAP + row * (height + BAR + GAP)
        pen.text((left, top), title, fill="black", font_size=13)
        found.paste(PIL.Image.fromarray(panel), (left, top + BAR))
    left, top = GAP, found.height - BAR
    for name, color in legend:
        pen.rectangle((left, top, left + 12, top + 12), fill=tuple(color), outline="black")
        pen.text((left + 18, top - 2), name, fill="black", font_size=13)
        left += 40 + int(pen.textlength(name, font_size=13))
    return found
