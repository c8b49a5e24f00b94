"""The first view of a model's page, for readers who did not make it: words, bars, two pictures."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Sequence

import numpy as np
import PIL.Image

from ..model.classes import palette
from ..model.model import Model
from ..model.predictor import Predictor
from ..results.pictures import to_rgb
from . import drawing, markup
from . import mattered as words
from .markup import Html
from .mattered import Mattered
from .pages import usual
from .view import View

SHOWN = 6  # features that are named one by one
EDGE = 260  # of the drawn pattern


def first_view(found: Model, predictor: Predictor, view: View | None) -> Html:
    """What mattered to a model, above what its authors want to know."""
    said, element = words.mattered(found, predictor, view), markup.element
    who = "of this image" if view is not None else "of the kinds that it learned"
    intro = (
        f"This model tells {_and(found.names)} apart. It has a first guess for each pixel, from "
        "what the pixel looks like by itself; then each pixel asks its neighbors and follows "
        "those it listens to. This page shows what decides whom it listens to. Neighbors ask "
        "theirs in turn, so that labels agree over more than the distances below."
    )
    parts = [
        element("p", intro),
        element("h2", "Which features mattered"),
        element("p", words.of_features(said)),
        _bars(_features(said)),
        _note(
            f"A feature's share says how far pixels {who} would turn to other neighbors if they "
            "had this feature of another pixel. Features that say the same divide their share."
        ),
        element("h2", "Which distances mattered"),
        element("p", words.of_distances(found, said)),
        _bars(_distances(found, said)),
        _note("A mark shows how much it would be if all neighbors counted alike."),
        element("h2", "Which directions mattered"),
        element("p", words.of_directions(found, said)),
        _picture(
            _pattern(found, said),
            "Whom a pixel listens to, on average. The dot in the middle is the pixel itself, each "
            "square a neighbor at its place: red ones count more than they would if all counted "
            "alike, blue ones less.",
        ),
    ]
    if view is not None:
        parts.append(
            _picture(
                _example(found, view),
                f"What the model makes of {view.about}: the image, its labels, and along which "
                "lines pixels listen. Long lines: to few directions; none: to all sides alike.",
            )
        )
    return markup.joined(parts, "\n")


def _features(said: Mattered) -> list[tuple[str, float, float | None]]:
    """Rows of the features that mattered most, and of all others."""
    if said.change < words.LITTLE:
        return []
    rows: list[tuple[str, float, float | None]] = [(n, s, None) for n, s in said.features[:SHOWN]]
    rest = said.features[SHOWN:]
    if rest:
        rows.append((f"all {len(rest)} others", sum(share for _, share in rest), None))
    return rows


def _distances(found: Model, said: Mattered) -> list[tuple[str, float, float | None]]:
    return [
        (
            f"{words.pixels(d.pixels)} away{words.micrometers(found, d.pixels)}"
            if d.pixels
            else "the pixel itself",
            d.share,
            d.equal,
        )
        for d in said.distances
    ]


def _bars(rows: Iterable[tuple[str, float, float | None]]) -> Html:
    """A table of shares as bars, with marks."""
    element = markup.element
    made = []
    for name, share, mark in rows:
        inside = [element("b", style=f"width: {100 * share:.1f}%")]
        if mark is not None:
            inside.append(element("u", style=f"left: {100 * mark:.1f}%"))
        bar = element("td", element("div", *inside), **{"class": "bar"})
        made.append(element("tr", element("td", name), bar, element("td", f"{100 * share:.0f} %")))
    return element("table", *made) if made else Html("")


def _note(text: str) -> Html:
    return markup.element("p", text, **{"class": "note"})


def _pattern(found: Model, said: Mattered) -> PIL.Image.Image:
    """The mean weight of each neighbor at its place, beside equal weights."""
    times = np.log(np.maximum(said.pattern * len(said.pattern), 1e-9))
    largest = max(math.log(2), min(float(np.abs(times).max()), math.log(10)))
    colors = drawing.ramp(0.5 + times / (2 * largest), drawing.BLUE_RED)
    factor = math.exp(largest)
    bar = drawing.scale(
        drawing.BLUE_RED, f"1/{factor:.2g} of its share or less", f"{factor:.2g} times", "alike"
    )
    return drawing.sheet([("", drawing.patch(colors, found.offsets, EDGE))], 1, bar)


def _example(found: Model, view: View) -> PIL.Image.Image:
    """Image, labels, and the lines along which pixels listen."""
    labels = (view.z.argmax(axis=0) + 1) * view.valid
    # where no direction matters lines are short, however they differ
    largest = max(usual(np.hypot(*view.weights.axis), view), words.MUCH)
    lines = drawing.arrows(to_rgb(view.image), view.weights.axis / largest, axes=True)
    parts = [
        ("image", drawing.enlarged(to_rgb(view.image))),
        ("labels", drawing.enlarged(palette(len(view.z))[labels])),
        ("whom pixels listen to", lines),
    ]
    size = parts[0][1].size
    same = [(t, p.resize(size, PIL.Image.Resampling.LANCZOS)) for t, p in parts]
    return drawing.sheet(same, 3, drawing.names(found.names))


def _picture(pixels: PIL.Image.Image, caption: str) -> Html:
    """A picture within the page, so that the first view can be sent alone."""
    held = io.BytesIO()
    pixels.save(held, "PNG")
    data = base64.b64encode(held.getvalue()).decode()
    # not through `element`, whose check of texts would read megabytes
    image = Html(f'<img alt="" src="data:image/png;base64,{data}">')
    return markup.element("figure", image, markup.element("figcaption", caption))


def _and(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))
