"""Words in pictures: a font that has the letters of most languages, where the machine has one."""

from __future__ import annotations

import functools
import math
import unicodedata

import PIL.ImageDraw
import PIL.ImageFont

# of Linux, macOS and Windows, as they call their files
FONTS = (
    *("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf"),
    *("Arial Unicode.ttf", "Arial.ttf", "arial.ttf"),
)
PLAIN = str.maketrans({0xB5: "u", 0x3BC: "u", 0xDF: "ss"})  # µ, its Greek sister, ß


@functools.cache
def _font(size: int) -> tuple[PIL.ImageFont.ImageFont | PIL.ImageFont.FreeTypeFont, bool]:
    """A font, and whether it has more than ASCII."""
    for name in FONTS:
        try:
            return PIL.ImageFont.truetype(name, size), True
        except OSError:
            continue
    return PIL.ImageFont.load_default(size), False


def _spelled(text: str, size: int) -> str:
    """A text in letters that the font has: without others, µm² is um2, and ü is u."""
    if _font(size)[1]:
        return text
    bare = unicodedata.normalize("NFKD", text.translate(PLAIN))
    kept = (c for c in bare if not unicodedata.combining(c))
    return "".join(c if c.isascii() else "?" for c in kept)


def write(pen: PIL.ImageDraw.ImageDraw, place: tuple[float, float], text: str, size: int) -> None:
    """Write a line in black; letters of every size sit on one line."""
    x, y = place
    pen.text((x, y + size), _spelled(text, size), fill="black", font=_font(size)[0], anchor="ls")


def width(text: str, size: int) -> int:
    """Pixels that a line needs."""
    return math.ceil(_font(size)[0].getlength(_spelled(text, size)))
