"""A table of the areas in all outputs of a folder, and a page with a row for each."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import PIL.Image

from ..errors import InputError
from ..files import stores
from ..labeling import inputs
from ..labeling.batch import Listing, reason
from ..results import areas, overview, tables
from ..results.areas import Area
from ..results.result import Result, open_result
from . import markup, slides
from .markup import Html, element
from .slides import Slide
from .status import COMPLETE

HEADER = ("input", "output", "state", "value", "class", "pixels", "share", "size", "unit", "error")
MADE = "tiledlaf batch"
EDGE = 160  # pixels of a thumbnail
HEAD = Html(
    f"""<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="generator" content="{MADE}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Labels of a batch</title>
<style>
body {{ font-family: sans-serif; max-width: 90em; margin: 1em auto; padding: 0 1em }}
table {{ border-collapse: collapse; width: 100% }}
td, th {{ text-align: left; vertical-align: top; padding: .5em; border-bottom: 1px solid #ccc }}
td.bad {{ color: #b00 }}
img {{ max-width: {EDGE}px; max-height: {EDGE}px }}
ul {{ list-style: none; margin: 0; padding: 0 }}
td:first-child {{ white-space: nowrap }}
i {{ display: inline-block; width: .8em; height: .8em; margin-right: .4em }}
</style>
<h1>Labels of a batch</h1>
"""
)


@dataclass(frozen=True)
class Row:
    """What is shown of one output: its areas and pictures, as far as there are any, or why not."""

    slide: Slide
    areas: Sequence[Area] = ()
    axes: int = 2
    colors: Sequence[tuple[int, ...]] = ()
    pictures: Sequence[str] = ()
    lacking: str = ""


class Gallery:
    """The table and the page of one folder; what is complete is looked at once."""

    def __init__(self, folder: str, name: str) -> None:
        """Refuse a folder where files of these names, or the list, are not of this program."""
        self._folder, self._name = folder, name
        self._place = stores.at(folder)
        self._known: dict[str, Row] = {}
        Listing(folder).read()
        marks = {inputs.SUMMARY: ",".join(HEADER), inputs.PAGE: f'content="{MADE}"'}
        for file, mark in marks.items():
            data = self._place.read(file)
            if data is not None and mark.encode() not in data[:1000]:
                raise InputError(
                    f"{folder}/{file}: expected that of a batch, got another file, which would be "
                    "replaced: choose another `into`"
                )

    def write(self) -> None:
        """Write both anew, each as a whole."""
        rows = [self._row(slide) for slide in slides.read(self._folder, self._name).slides]
        tables.write(f"{self._folder}/{inputs.SUMMARY}", table(rows), overwrite=True)
        self._place.write(inputs.PAGE, page(rows).encode())

    def _row(self, slide: Slide) -> Row:
        if slide.labels is None:
            return Row(slide)
        if slide.output in self._known and slide.state == COMPLETE:
            return self._known[slide.output]
        try:
            result = open_result(slide.output, self._name, unfinished=True)
            colors = [result.colors.get(v, (0, 0, 0)) for v in range(1, len(result.names) + 1)]
            found = Row(
                slide,
                areas.of_result(result),
                len(result.labels.spatial_axes),
                [(0, 0, 0), *colors],
            )
        except (ValueError, OSError):  # removed or begun anew just now; its state says more
            return Row(slide)
        try:
            found = replace(found, pictures=_thumbnails(result))
        except (ValueError, OSError) as error:
            return replace(found, lacking=reason(error))
        self._known[slide.output] = found
        return found


def table(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """Columns with a row for each image and class; images without areas have one."""
    found: list[tuple[Any, ...]] = []
    for row in rows:
        slide = row.slide
        first = (slide.input, inputs.name_of(slide.output), slide.state)
        if not row.areas:
            found.append((*first, *[None] * (len(HEADER) - len(first) - 1), slide.error))
        for one in row.areas:
            unit = None if one.size is None else f"um{row.axes}"
            shown = (one.value, one.name, one.pixels, one.share, one.size, unit)
            found.append((*first, *shown, slide.error))
    return {name: [row[n] for row in found] for n, name in enumerate(HEADER)}


def page(rows: Sequence[Row]) -> str:
    """HTML with a row for each image, without other files."""
    counts = [(state, sum(row.slide.state == state for row in rows)) for state in slides.STATES]
    text = ", ".join(f"{count} {state}" for state, count in counts if count)
    titles = ("", "image", "state", "megapixels", "areas")
    head = element("tr", *(element("th", title) for title in titles))
    body = [head, *map(_tr, rows)]
    parts = [HEAD, element("p", text), element("table", *body), Html("</html>\n")]
    return markup.joined(parts, "\n")


def _tr(row: Row) -> Html:
    slide = row.slide
    shown = [element("img", src=url, alt="") for url in row.pictures]
    bad = {} if slide.error is None else {"class": "bad"}
    failed = slide.labels.errors if slide.labels is not None else ()
    why = slide.error or row.lacking or next(iter(failed), "")
    megapixels = "" if slide.labels is None else f"{slide.labels.megapixels[1]:.4g}"
    return element(
        "tr",
        element("td", *shown),
        element("td", element("b", slide.name), element("br"), slide.input),
        element("td", slide.state, *([element("br"), why] if why else []), **bad),
        element("td", megapixels),
        element("td", element("ul", *(_li(row, a) for a in row.areas if a.value or a.pixels))),
    )


def _li(row: Row, one: Area) -> Html:
    tone = "#{:02x}{:02x}{:02x}".format(*row.colors[one.value][:3])
    size = "" if one.size is None else f", {areas.in_words(one.size, row.axes)}"
    text = f"{one.name}: {100 * one.share:.1f} %{size}"
    return element("li", element("i", style=f"background:{tone}"), text)


def _thumbnails(result: Result) -> list[str]:
    """The image, if it is there, and its labels, as URLs of data."""
    return [_url(one) for one in overview.thumbnail(result, EDGE) if one is not None]


def _url(picture: PIL.Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
