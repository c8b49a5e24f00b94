"""Drawings: maps in colors, weight patches at their offsets, arrows, sheets of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw

from ..kernels.arrays import Offsets
from ..model.classes import palette
from ..results.pictures import SMALL, caption

HEAT = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))
BLUE_RED = ((33, 102, 172), (146, 197, 222), (247, 247, 247), (244, 165, 130), (178, 24, 43))
GAP, LINE = 10, 20
BACK = (255, 255, 255)
Color = tuple[int, int, int]


def ramp(values: np.ndarray, colors: Sequence[Color]) -> np.ndarray:
    """Values 0..1 as colors interpolated between given ones, (*grid, 3) uint8."""
    at = np.clip(np.nan_to_num(values), 0, 1) * (len(colors) - 1)
    anchors = np.array(colors, np.float64)
    planes = [np.interp(at, np.arange(len(colors)), anchor) for anchor in anchors.T]
    return np.rint(np.stack(planes, axis=-1)).astype(np.uint8)


def hues(angle: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Angles (radians) as hues, lengths 0..1 as brightness, (*grid, 3) uint8."""
    hue = np.rint(angle / (2 * math.pi) * 256).astype(int) % 256
    full = np.full(hue.shape, 255)
    value = np.rint(np.clip(length, 0, 1) * 255)
    hsv = np.stack([hue, full, value], axis=-1).astype(np.uint8)
    return np.array(PIL.Image.fromarray(hsv, "HSV").convert("RGB"))


def leaders(planes: np.ndarray, power: float = 1.0) -> np.ndarray:
    """The leading class of (J, *grid) in its color, brighter the further it is above the mean.

    Parameters
    ----------
    power : below 1, small leads are brighter
    """
    lead = planes.max(axis=0) - planes.mean(axis=0)
    colors = palette(len(planes))[1:].astype(np.float64)[planes.argmax(axis=0)]
    bright = np.clip(lead / (np.quantile(lead, 0.99) or 1), 0, 1)[..., None] ** power
    return np.rint(colors * bright).astype(np.uint8)


def enlarged(pixels: np.ndarray) -> PIL.Image.Image:
    """A picture of pixels, enlarged by a whole number if it is small."""
    times = max(1, SMALL // max(pixels.shape[:2]))
    return PIL.Image.fromarray(np.ascontiguousarray(pixels)).resize(
        (pixels.shape[1] * times, pixels.shape[0] * times), PIL.Image.Resampling.NEAREST
    )


def square(pixels: np.ndarray, edge: int) -> PIL.Image.Image:
    """A few pixels (y, x, 3) as a square."""
    return PIL.Image.fromarray(np.ascontiguousarray(pixels)).resize(
        (edge, edge), PIL.Image.Resampling.NEAREST
    )


def sheet(
    parts: Sequence[tuple[str, PIL.Image.Image]], columns: int, foot: PIL.Image.Image | None = None
) -> PIL.Image.Image:
    """Pictures with titles in rows, and a legend below."""
    pen = PIL.ImageDraw.Draw(PIL.Image.new("RGB", (1, 1)))
    width = max(
        max(p.width for _, p in parts),
        *(math.ceil(pen.textlength(t, font_size=14)) for t, _ in parts),
    )
    height = max(p.height for _, p in parts) + LINE
    columns = min(columns, len(parts))
    rows = math.ceil(len(parts) / columns)
    wide, high = columns * (width + GAP) + GAP, rows * (height + GAP) + GAP
    if foot is not None:
        wide, high = max(wide, foot.width + 2 * GAP), high + foot.height + GAP
    out = PIL.Image.new("RGB", (wide, high), BACK)
    draw = PIL.ImageDraw.Draw(out)
    for number, (title, picture) in enumerate(parts):
        row, column = divmod(number, columns)
        left, top = GAP + column * (width + GAP), GAP + row * (height + GAP)
        draw.text((left, top), title, fill="black", font_size=14)
        out.paste(picture, (left, top + LINE))
    if foot is not None:
        out.paste(foot, (GAP, high - foot.height - GAP))
    return out


def scale(colors: Sequence[Color], low: str, high: str, middle: str = "") -> PIL.Image.Image:
    """A bar of a ramp's colors, with the meaning of its ends."""
    bar = PIL.Image.fromarray(np.repeat(ramp(np.linspace(0, 1, 200), colors)[None], 12, axis=0))
    return _beside(bar, f"{low} ... {f'{middle} ... ' if middle else ''}{high}")


def wheel(text: str, axes: bool = False) -> PIL.Image.Image:
    """A disk of hues with their meaning; for axes, which have no sign, opposite hues are equal."""
    y, x = np.mgrid[-30:31, -30:31] / 30
    angle = np.arctan2(y, x) * (2 if axes else 1)
    pixels = hues(angle, np.hypot(y, x))
    pixels[np.hypot(y, x) > 1] = 255
    return _beside(PIL.Image.fromarray(pixels), text)


def names(found: Sequence[str], text: str = "") -> PIL.Image.Image:
    """A legend of the colors of classes, with a text after it."""
    found = [caption(name) for name in found]
    pen = PIL.ImageDraw.Draw(PIL.Image.new("RGB", (1, 1)))
    widths = [24 + int(pen.textlength(name, font_size=13)) for name in found]
    wide = sum(widths) + int(pen.textlength(text, font_size=13)) + GAP
    out = PIL.Image.new("RGB", (wide, LINE), BACK)
    draw, left = PIL.ImageDraw.Draw(out), 0
    colors = palette(len(found))[1:]
    for name, width, color in zip(found, widths, colors, strict=True):
        draw.rectangle((left, 3, left + 12, 15), fill=tuple(color.tolist()))
        draw.text((left + 16, 1), name, fill="black", font_size=13)
        left += width
    draw.text((left + 4, 1), text, fill="black", font_size=13)
    return out


def above(parts: Sequence[PIL.Image.Image]) -> PIL.Image.Image:
    """Pictures one below the other."""
    size = (max(p.width for p in parts), sum(p.height + 4 for p in parts))
    out, top = PIL.Image.new("RGB", size, BACK), 0
    for part in parts:
        out.paste(part, (0, top))
        top += part.height + 4
    return out


def line(text: str) -> PIL.Image.Image:
    """A line of text."""
    return names((), text)


def _beside(picture: PIL.Image.Image, text: str) -> PIL.Image.Image:
    pen = PIL.ImageDraw.Draw(PIL.Image.new("RGB", (1, 1)))
    wide = picture.width + GAP + int(pen.textlength(text, font_size=13)) + GAP
    out = PIL.Image.new("RGB", (wide, max(picture.height, LINE)), BACK)
    out.paste(picture, (0, (out.height - picture.height) // 2))
    PIL.ImageDraw.Draw(out).text(
        (picture.width + GAP, out.height // 2 - 8), text, fill="black", font_size=13
    )
    return out


def patch(values: np.ndarray, offsets: Offsets, edge: int) -> PIL.Image.Image:
    """Colors of weights (K, 3) at their offsets; sections of a volume side by side.

    Adjacent offsets form a raster. Isolated ones, such as those of far rings, are drawn larger.
    """
    places = np.array(offsets)
    flat, planes = places[:, -2:], places[:, 0] if places.shape[1] == 3 else 0 * places[:, 0]
    sections = np.unique(planes)
    apart = np.abs(places[:, None] - places).max(axis=2).astype(float)
    np.fill_diagonal(apart, np.inf)
    half = 0.5 * np.maximum(1, 0.9 * apart.min(axis=1, initial=np.inf))
    half[~np.isfinite(half)] = 0.5
    reach = float((np.abs(flat).max(axis=1) + half).max())
    unit = edge / (2 * reach)
    out = PIL.Image.new("RGB", (edge * len(sections) + 4 * (len(sections) - 1), edge), (225,) * 3)
    draw = PIL.ImageDraw.Draw(out)
    for number, section in enumerate(sections):
        left = number * (edge + 4)
        if number:
            draw.rectangle((left - 4, 0, left - 1, edge), fill=BACK)
        for (y, x), h, color, plane in zip(flat, half, values, planes, strict=True):
            if plane == section:
                box = [
                    (x + reach - h) * unit,
                    (y + reach - h) * unit,
                    (x + reach + h) * unit,
                    (y + reach + h) * unit,
                ]
                a, b, c, d = (round(v) for v in box)
                draw.rectangle((left + a, b, left + c - 1, d - 1), fill=tuple(color.tolist()))
        # a dot for the pixel itself
        if section == 0:
            middle = edge / 2
            draw.rectangle((left + middle - 1, middle - 1, left + middle, middle), fill=(0, 0, 0))
    return out


def arrows(pixels: np.ndarray, vectors: np.ndarray, *, axes: bool = False) -> PIL.Image.Image:
    """Vectors (2, y, x) of length 0..1 on a picture, their mean for each block of pixels.

    Parameters
    ----------
    axes : whether the vectors have twice the angle of axes, which are drawn without heads
    """
    picture = enlarged(pixels)
    times = picture.width // pixels.shape[1]
    if times == 1 and max(pixels.shape[:2]) <= 2 * SMALL:
        times = 2
        picture = picture.resize(
            (2 * picture.width, 2 * picture.height), PIL.Image.Resampling.NEAREST
        )
    draw: Any = PIL.ImageDraw.Draw(picture)
    height, width = pixels.shape[:2]
    every = max(4, min(12, max(height, width) // 16))  # pixels of a block
    for top in range(0, height - every // 2, every):
        for start in range(0, width - every // 2, every):
            block = vectors[:, top : top + every, start : start + every]
            dy, dx = block.mean(axis=(1, 2))
            length, angle = min(1.0, math.hypot(dy, dx)), math.atan2(dy, dx) / (2 if axes else 1)
            if length * every * times < 1:
                continue
            dy, dx = (f(angle) * length * every * times for f in (math.sin, math.cos))
            y = (top + block.shape[1] / 2) * times
            x = (start + block.shape[2] / 2) * times
            tail = (x - dx / 2, y - dy / 2)
            head = (x + dx / 2, y + dy / 2)
            draw.line((*tail, *head), fill=(255, 220, 0), width=2)
            if not axes:
                draw.ellipse(
                    (head[0] - 2, head[1] - 2, head[0] + 2, head[1] + 2), fill=(255, 60, 0)
                )
    return picture
