"""The overview of labels: image, labels, legend and scale bar on one sheet."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image
import PIL.ImageDraw

from ..errors import TiledlafError
from ..files import planes
from ..files.image import Image
from ..files.planes import Region
from ..model.classes import palette
from ..redaction import plain
from . import lettering, tones
from .areas import Area, digits, in_words, percent

EDGE = 1200  # pixels of the longest edge
SMALL = 480  # shorter panels are enlarged
GAP, LINE, SQUARE = 10, 20, 12
NAME, TITLE = 40, 90  # characters of a name, and of the output's, that are drawn
LISTED = 24  # classes at most
LENGTHS = [m * 10.0**n for n in range(-4, 7) for m in (1, 2, 5)]  # of scale bars, micrometers
UNITS = ((1e4, "cm"), (1e3, "mm"), (1.0, "µm"), (1e-3, "nm"))


@dataclass(frozen=True)
class Scene:
    """What an overview shows.

    Attributes
    ----------
    title : which labels of which output
    labels : the label image
    areas : one row per label value, from 0 on
    colors : red, green and blue of label values
    pixel_size : micrometers along each spatial axis, or None
    image : what was labeled, or None
    region : the part of this image that was labeled; None for all of it
    failed : number of tiles that failed, whose pixels are not labeled
    """

    title: str
    labels: Image
    areas: Sequence[Area]
    colors: Mapping[int, Sequence[int]]
    pixel_size: Sequence[float] | None
    image: Image | None = None
    region: Region | None = None
    failed: int = 0


def panels(scene: Scene, edge: int) -> tuple[PIL.Image.Image | None, PIL.Image.Image]:
    """The image, where it can be read, and the labels, as two pictures of one size.

    Parameters
    ----------
    edge : of the longest one; images of fewer pixels are enlarged to about 480, if there is room
    """
    values = planes.read(scene.labels, edge, [0], labels=True)
    if values is None:  # a foreign array that is no Zarr
        raise TiledlafError(f"{scene.labels.path}: too large to be drawn, without smaller levels")
    size = _fitted(scene.labels.grid[-2:], edge)
    lut = palette(len(scene.areas) - 1, scene.colors)
    labels = PIL.Image.fromarray(lut[np.minimum(values[0], len(lut) - 1)])
    return _picture(scene, edge, size), labels.resize(size, PIL.Image.Resampling.NEAREST)


def _picture(scene: Scene, edge: int, size: tuple[int, int]) -> PIL.Image.Image | None:
    """The image; None where there is none, or it cannot be read any more."""
    if scene.image is None:
        return None
    channels = tones.chosen(scene.image)
    try:
        pixels = planes.read(scene.image, edge, channels, scene.region)
    except (OSError, ValueError):  # as one that was moved, of an output without a copy
        return None
    if pixels is None:
        return None
    found = PIL.Image.fromarray(tones.shown(pixels, scene.image, channels))
    enlarged = size[0] > found.width
    how = PIL.Image.Resampling.NEAREST if enlarged else PIL.Image.Resampling.BOX
    return found.resize(size, how)


def _fitted(grid: Sequence[int], edge: int) -> tuple[int, int]:
    """Width and height of a panel that has the image's proportions."""
    longest = max(grid)
    scale = edge / longest if longest > edge else max(1, min(SMALL, edge) // longest)
    height, width = (max(1, round(n * scale)) for n in grid)
    return width, height


def draw(scene: Scene, edge: int = EDGE) -> PIL.Image.Image:
    """The sheet, whose longest edge has about `edge` pixels."""
    legend = _legend(scene)
    two = scene.image is not None
    room = edge - 4 * LINE - 3 * GAP
    beside, above = _one_beside_other(scene.labels.grid[-2:], room)
    image, labels = panels(scene, (beside if beside >= above else above) if two else room)
    if image is None and two:  # it cannot be read
        image, labels = panels(scene, room)
    shown = [p for p in (image, labels) if p is not None]
    columns = len(shown) if beside >= above else 1
    rows = len(shown) // columns
    width = max(columns * (labels.width + GAP) + GAP, SMALL + 2 * GAP)
    lines = _wrapped(_words(scene), width - 2 * GAP)
    places, below = _placed(legend, width)
    top = GAP + LINE * len(lines)
    foot = top + rows * (labels.height + GAP)
    sheet = PIL.Image.new("RGB", (width, foot + LINE + GAP + below), "white")
    pen = PIL.ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        lettering.write(pen, (GAP, GAP // 2 + number * LINE), line, 14)
    for number, picture in enumerate(shown):
        row, column = divmod(number, columns)
        where = (
            GAP + column * (labels.width + GAP),
            top + row * (labels.height + GAP),
        )
        sheet.paste(picture, where)
    across = None
    if scene.pixel_size is not None:
        across = scene.pixel_size[-1] * scene.labels.grid[-1] / labels.width
    scale_bar(pen, (GAP, foot), across, labels.width)
    for (x, y), (tone, text) in zip(places, legend, strict=True):
        y += foot + LINE + GAP
        if tone is not None:
            pen.rectangle((x, y, x + SQUARE, y + SQUARE), fill=tone)
        lettering.write(pen, (x + SQUARE + 6, y - 2), text, 13)
    return sheet


def _one_beside_other(grid: Sequence[int], room: int) -> tuple[int, int]:
    """The longest edge of two panels that fit beside each other, and above each other."""
    height, width = grid
    longest = max(grid)
    beside = min((room - GAP) / 2 / width, room / height) * longest
    above = min((room - GAP) / 2 / height, room / width) * longest
    return max(16, int(beside)), max(16, int(above))


def _words(scene: Scene) -> list[str]:
    """What is said above the panels, part by part."""
    labels, size = scene.labels, scene.pixel_size
    words = [_cut(scene.title, TITLE), " x ".join(map(str, labels.grid[-2:])) + " pixels"]
    if size is not None:
        fine = dict.fromkeys(_length(s) for s in size[-2:])
        words[-1] += f" of {' x '.join(fine)}"
    middle = planes.middle(labels)
    if middle is not None and labels.grid[-3] > 1:
        words.append(f"plane {middle + 1} of {labels.grid[-3]}, the middle one")
    if "t" in labels.grid_axes and labels.grid[0] > 1:
        words.append(f"time point 1 of {labels.grid[0]}, the first")
    if scene.failed:
        words.append(f"{scene.failed} tile{'s' * (scene.failed > 1)} failed")
    return words


def _wrapped(words: Sequence[str], width: int) -> list[str]:
    """Parts of a text on as many lines as they need."""
    lines = [words[0]]
    for word in words[1:]:
        longer = f"{lines[-1]}; {word}"
        if lettering.width(longer, 14) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _legend(scene: Scene) -> list[tuple[tuple[int, ...] | None, str]]:
    """Color and text of the classes; of many, those that cover most."""
    colors = palette(len(scene.areas) - 1, scene.colors)
    listed = [a for a in scene.areas if a.value or a.pixels]
    if len(listed) > LISTED:
        listed = sorted(listed, key=lambda a: (-a.pixels, a.value))[: LISTED - 1]
    axes = len(scene.labels.spatial_axes)
    found: list[tuple[tuple[int, ...] | None, str]] = []
    for area in listed:
        text = f"{_cut(area.name, NAME)}  {percent(area)}"
        if area.size is not None:
            text += f", {in_words(area.size, axes)}"
        found.append((tuple(colors[area.value].tolist()), text))
    left = sum(a.value > 0 for a in scene.areas) - sum(a.value > 0 for a in listed)
    return found + ([(None, f"and {left} more classes")] if left else [])


def _placed(legend: Sequence[tuple[object, str]], width: int) -> tuple[list[tuple[int, int]], int]:
    """Where the entries of a legend are, in columns, and how high it is."""
    need = max(SQUARE + 6 + lettering.width(text, 13) for _, text in legend) + 2 * GAP
    columns = max(1, min(len(legend), (width - GAP) // need))
    rows = -(-len(legend) // columns)
    places = [
        (GAP + column * ((width - GAP) // columns), row * LINE)
        for column, row in itertools.product(range(columns), range(rows))
    ][: len(legend)]
    return places, rows * LINE


def scale_bar(
    pen: PIL.ImageDraw.ImageDraw, place: tuple[int, int], across: float | None, width: int
) -> None:
    """Draw a bar of a round length, up to a third of a picture's width, or say that there is none.

    Parameters
    ----------
    place : x and y of the line to draw it in
    across : micrometers per drawn pixel, None where the pixel size is not known
    """
    x, y = place
    if across is None:
        lettering.write(pen, place, "pixel size not known", 13)
        return
    length = max((n for n in LENGTHS if n <= across * width / 3), default=0.0)
    if not length or length / across < 1:
        return
    end = x + length / across
    pen.rectangle((x, y + 5, end, y + 9), fill="black")
    lettering.write(pen, (end + 6, y), _length(length), 13)


def _length(micrometers: float) -> str:
    """A length in the unit that suits it: pixels of 0.65 µm, but of 8 nm."""
    for factor, unit in UNITS:
        if micrometers >= (0.1 if factor == 1 else factor) * (1 - 1e-9):
            return f"{digits(micrometers / factor)} {unit}"
    return f"{micrometers * 1e3:.4g} nm"


def _cut(name: str, most: int) -> str:
    """A name as it is drawn: one line, without what may be a secret."""
    text = plain(name)
    return text if len(text) <= most else f"{text[: most - 3]}..."
