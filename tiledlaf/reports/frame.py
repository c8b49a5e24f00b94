"""The frame of a page that stands alone: its style, whose it is, and how it gets into place."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from pathlib import Path

import PIL.Image

from .. import __version__, redaction
from ..errors import InputError, OutputBelongsElsewhere
from ..files import stores
from ..results import targets
from . import markup
from .markup import Html

MARK = '<meta name="generator" content="tiledlaf '  # by which a page is known to be ours
SEEN = 4096  # bytes in which it stands
SUFFIXES = (".html", ".htm")
# nothing is fetched: pictures and style are in the page, and there is no script
HEAD = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{MARK}{__version__}">
<meta http-equiv="Content-Security-Policy" \
content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<link rel="icon" href="data:,">
"""
STYLE = """<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62em; margin: 2em auto; padding: 0 1em;
  color: #222; background: #fff; overflow-wrap: anywhere }
h1 { font-size: 1.6em; line-height: 1.2 }
h2 { font-size: 1.2em; margin: 2em 0 .5em; border-bottom: 1px solid #ddd }
img, svg { max-width: 100%; height: auto }
svg { width: 45em; display: block }
svg text { font: 12px system-ui, sans-serif; fill: #444 }
figure { margin: 1em 0 } figcaption, .note { color: #666; font-size: .9em }
table { border-collapse: collapse; margin: .5em 0 }
th, td { padding: .2em .8em .2em 0; text-align: left; vertical-align: top }
th { font-weight: 600; border-bottom: 1px solid #ccc }
.row { display: flex; gap: 1em } .row figure { flex: 1; min-width: 0 }
.row img { width: 100% }
.number { text-align: right; padding-left: .8em; font-variant-numeric: tabular-nums;
  white-space: nowrap }
i { display: inline-block; width: .8em; height: .8em; margin-right: .4em; border: 1px solid #0003 }
.key span { margin-right: 1.2em; white-space: nowrap }
summary { cursor: pointer; font-weight: 600 }
dt { font-weight: 600; margin-top: .6em } dd { margin: 0 }
</style>
</head>
"""


def page(title: str, parts: Iterable[Html]) -> Html:
    """A page that needs no other file and no network."""
    made = markup.element("p", f"Made by tiledlaf {__version__}.", **{"class": "note"})
    whole = [Html(HEAD), markup.element("title", title), Html(STYLE + "<body>")]
    whole += [markup.element("h1", title), *parts, made, Html("</body>\n</html>\n")]
    return markup.joined(whole, "\n")


def section(title: str, *parts: str) -> Html:
    """A part of a page under a title."""
    return markup.joined([markup.element("h2", title), *parts], "\n")


def table(
    titles: Iterable[str], rows: Iterable[Iterable[str]], numbers: Iterable[int] = ()
) -> Html:
    """A table; columns of `numbers` are aligned right."""
    right = set(numbers)

    def cells(name: str, row: Iterable[str]) -> list[Html]:
        return [
            markup.element(name, cell, **({"class": "number"} if n in right else {}))
            for n, cell in enumerate(row)
        ]

    head = [markup.element("tr", *cells("th", titles))]
    return markup.element(
        "table", *head, *(markup.element("tr", *cells("td", row)) for row in rows)
    )


def facts(rows: Iterable[tuple[str, str]]) -> Html:
    """A table of names and what is said of them, without a head."""
    found = [
        markup.element("tr", markup.element("td", name), markup.element("td", said))
        for name, said in rows
    ]
    return markup.element("table", *found)


def picture(pixels: PIL.Image.Image, caption: str, kind: str = "PNG") -> Html:
    """A picture within the page."""
    held = io.BytesIO()
    pixels.save(held, kind)
    data = base64.b64encode(held.getvalue()).decode()
    # not through `element`, whose check of texts would read megabytes
    image = Html(f'<img src="data:image/{kind.lower()};base64,{data}" alt="{_escaped(caption)}">')
    return markup.element("figure", image, markup.element("figcaption", caption))


def _escaped(text: str) -> str:
    return str(markup.joined([text])).replace('"', "&quot;")


def check(target: str) -> None:
    """Refuse a place for a page that is another's, or cannot be written to.

    Raises
    ------
    ValueError
        Says what is there.
    """
    redaction.check(target)
    if not target.lower().endswith(SUFFIXES):
        raise InputError(f"{target}: expected a file ending .html for the page")
    targets.check(target, overwrite=True)
    there = stores.head(target, SEEN)
    if there is not None and MARK.encode() not in there:
        raise OutputBelongsElsewhere(
            f"{target}: expected a new file or a page of tiledlaf, got a file of another origin"
        )


def put(target: str, content: Html) -> None:
    """Write a page, atomically, where `check` has found that it may be."""
    check(target)  # once more: what made it may have taken long
    with targets.written(target, overwrite=True) as part:
        Path(part).write_bytes(content.encode("utf-8"))
