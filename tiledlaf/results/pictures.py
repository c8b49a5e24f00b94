"""Pictures of labels: colored labels, side-by-side panels, exported files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import PIL.Image
import PIL.ImageDraw

from ..errors import InputError
from ..files import ngff, nodes
from ..labeling import lettering
from ..labeling.sheet import scale_bar
from ..labeling.tones import rgb
from ..model import classes
from ..model.classes import color, palette
from ..redaction import plain
from . import targets

SMALL = 480  # images with shorter edges are enlarged
DIM = 0.35  # brightness of a color where labels are right
LONGEST = 80  # characters of a name that are drawn
# colors of tiles: from the fastest to the slowest, which is yellow, and those without a time
QUICK, SLOW = np.array([40.0, 60.0, 130.0]), np.array([255.0, 225.0, 80.0])
LEFT, SKIPPED, BROKEN = (215, 215, 215), (120, 120, 120), (220, 0, 0)


def to_rgb(image: np.ndarray) -> np.ndarray:
    """(C, y, x) pixels of any type as (y, x, 3) uint8, from the 0.5th to the 99.5th percentile.

    Three channels are red, green and blue; otherwise the first is shown in gray.
    """
    return rgb(image if len(image) == 3 else np.repeat(image[:1], 3, axis=0))


def caption(name: str) -> str:
    """A name as it is drawn: one line that fits into a picture."""
    text = plain(name)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def panels(
    image: np.ndarray, labels: np.ndarray, confidence: np.ndarray, names: Mapping[int, str]
) -> PIL.Image.Image:
    """Image, labels and confidence side by side, with a legend.

    Parameters
    ----------
    image : (C, y, x)
    labels : (y, x), values from 0
    confidence : (y, x), 0..1; shown black at 1/J and white at 1
    names : one name per label value
    """
    classes = len(names)
    gray = np.clip((confidence - 1 / classes) / (1 - 1 / classes) * 255, 0, 255).astype(np.uint8)
    parts = [to_rgb(image), palette(classes)[labels], np.repeat(gray[..., None], 3, axis=2)]
    height, width = labels.shape
    gap, bar = 8, 26
    sheet = PIL.Image.new("RGB", (3 * width + 4 * gap, height + 2 * bar + gap), "white")
    draw = PIL.ImageDraw.Draw(sheet)
    titles = ("image", "labels", f"confidence (black {1 / classes:.2f}, white 1)")
    for i, (pixels, title) in enumerate(zip(parts, titles, strict=True)):
        left = gap + i * (width + gap)
        draw.text((left, 6), title, fill="black", font_size=14)
        sheet.paste(PIL.Image.fromarray(pixels), (left, bar))
    left = 2 * gap + width
    for value, name in names.items():
        draw.rectangle(
            (left, height + bar + 8, left + 12, height + bar + 20), fill=color(value)[:3]
        )
        draw.text((left + 17, height + bar + 6), name, fill="black", font_size=13)
        left += 32 + int(draw.textlength(name, font_size=13))
    return sheet


def errors(
    truth: np.ndarray, labels: np.ndarray, names: Sequence[str], title: str
) -> PIL.Image.Image:
    """Where labels are wrong: right pixels dim, wrong ones bright, in the color of the label.

    Parameters
    ----------
    truth : (y, x), classes 1..J; 0 is left out, shown black
    labels : (y, x), classes 1..J; 0 is not labeled
    names : of the classes, in their order
    title : line above the picture
    """
    full = classes.palette(len(names)).astype(np.float64)
    # each color at full brightness; "not labeled" gets one that no class has
    bright = (full * (255 / full.max(axis=1, initial=1, keepdims=True))).astype(np.uint8)
    bright[0] = (255, 0, 255)
    dim = (DIM * full).astype(np.uint8)
    left_out = truth == 0
    wrong = truth != labels
    pixels = np.where(wrong[..., None], bright[labels], dim[labels])
    pixels[left_out] = 0
    legend = [(name, [dim[v], bright[v]]) for v, name in enumerate(names, 1)]
    if (wrong & (labels == 0)).any():
        legend.append(("not labeled", [bright[0]]))
    if left_out.any():
        legend.append(("left out", [dim[0]]))
    return sheet(pixels, legend, title)


def sheet(
    pixels: np.ndarray,
    legend: Sequence[tuple[str, Sequence[np.ndarray]]],
    title: str,
    across: tuple[float | None] | None = None,
) -> PIL.Image.Image:
    """Pixels, enlarged if few, between a title and a legend of names and tones.

    Parameters
    ----------
    across : micrometers per pixel, or None in it where they are not known, for a scale bar
    """
    picture = PIL.Image.fromarray(pixels)
    times = max(1, SMALL // max(picture.size))
    picture = picture.resize(
        (picture.width * times, picture.height * times), PIL.Image.Resampling.NEAREST
    )
    gap, line, square = 8, 22, 12
    width = max(picture.width, SMALL)
    legend = [(caption(name), tones) for name, tones in legend]
    places = []  # as many per line as fit
    foot = picture.height + line + 2 * gap
    x, y = 0, foot + (line if across else 0)
    for name, tones in legend:
        need = len(tones) * square + 28 + lettering.width(name, 13)
        if x and x + need > width:
            x, y = 0, y + line
        places.append((gap + x, y, name, tones))
        x += need
    sheet = PIL.Image.new("RGB", (width + 2 * gap, y + line), "white")
    draw = PIL.ImageDraw.Draw(sheet)
    lettering.write(draw, (gap, 6), title, 13)
    sheet.paste(picture, (gap, line + gap))
    if across:
        of_one = None if across[0] is None else across[0] / times
        scale_bar(draw, (gap, foot), of_one, picture.width)
    for x, y, name, tones in places:
        for tone in tones:
            draw.rectangle((x, y, x + square, y + square), fill=tuple(tone.tolist()))
            x += square
        lettering.write(draw, (x + 6, y - 2), name, 13)
    return sheet


def tile_map(seconds: np.ndarray, title: str) -> PIL.Image.Image:
    """One square per tile: brighter the longer it took; gray or red if skipped, failed or left.

    The slowest 2 % share one color: tiles that waited for compiled kernels would dim all others.

    Parameters
    ----------
    seconds : (y, x) or (z, y, x); -inf if skipped, inf if failed, NaN if left
        Planes of a volume are shown side by side.
    title : line above the picture
    """
    planes = seconds.reshape(-1, *seconds.shape[-2:])
    done = np.isfinite(planes)
    low, high = np.percentile(planes[done], (0, 98)) if done.any() else (0.0, 0.0)
    share = np.where(done, planes - low, 0).clip(0, high - low) / ((high - low) or 1)
    pixels = (SLOW * share[..., None] + QUICK * (1 - share[..., None])).astype(np.uint8)
    others = (
        ("skipped", planes == -np.inf, SKIPPED),
        ("failed", planes == np.inf, BROKEN),
        ("left", np.isnan(planes), LEFT),
    )
    for _, where, tone in others:
        pixels[where] = tone
    count, height, width = planes.shape
    across = min(count, max(1, round(math.sqrt(count * height / width))))
    down = -(-count // across)
    # a white line between planes
    padded = np.full((down * across, height + 1, width + 1, 3), 255, np.uint8)
    padded[:count, :height, :width] = pixels
    picture = padded.reshape(down, across, height + 1, width + 1, 3).swapaxes(1, 2)
    picture = picture.reshape(down * (height + 1), across * (width + 1), 3)[:-1, :-1]
    legend = []
    if done.any():
        tones = [(SLOW * t + QUICK * (1 - t)).astype(np.uint8) for t in np.linspace(0, 1, 5)]
        text = f"{low:.2f} to {high:.2f} s, at most {planes[done].max():.2f} s"
        legend.append((text, tones))
    for name, where, tone in others:
        if where.any():
            legend.append((name, [np.array(tone)]))
    return sheet(picture, legend, title)


def export(store: str, group: str, path: str, classes: int) -> None:
    """Write a plane of labels as PNG: values, with the labels' colors as palette.

    Parameters
    ----------
    store, group : where the labels are
    classes : J

    Raises
    ------
    ValueError
        If the file cannot hold these labels.
    """
    array = nodes.open_array(store, f"{group}/0")
    check_export(array.shape, classes)
    colors = palette(classes, ngff.label_colors(store, group))
    with targets.written(path, overwrite=True) as part:
        picture = PIL.Image.fromarray(np.asarray(array[:]))
        picture.putpalette(colors.ravel().tolist())
        picture.save(part, "png")


def check_export(shape: Sequence[int], classes: int) -> None:
    """Refuse a PNG that cannot hold these labels, before anything is computed."""
    if len(shape) != 2 or classes > 255 or max(shape) > 65000:
        raise InputError(
            "`export` .png holds one plane of up to 65000 pixels per edge and 255 labels; "
            f"got the shape {tuple(shape)} and {classes} labels: use .tif"
        )
