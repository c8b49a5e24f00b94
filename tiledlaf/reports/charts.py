"""Charts as SVG within a page, without scripts: lines over steps, stacked bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from . import markup
from .markup import Html

WIDTH, HEIGHT = 640, 240
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 12, 40
MARKS = (0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1)  # shares that are marked beside bars


@dataclass(frozen=True)
class Line:
    """Values at steps; those that are not finite are left out."""

    name: str
    color: str
    steps: Sequence[float]
    values: Sequence[float]
    dashed: bool = False


def lines(series: Sequence[Line], across: str, up: str, percent: bool) -> Html:
    """Lines on common axes, from 0 up."""
    points = [
        (float(x), float(y))
        for one in series
        for x, y in zip(one.steps, one.values, strict=True)
        if math.isfinite(y)
    ]
    right = max((x for x, _ in points), default=1) or 1
    high = max((y for _, y in points), default=1) or 1
    ticks = _ticks(high)
    high = max(high, ticks[-1])
    parts = _axes(ticks, high, across, up, percent)
    for x in _ticks(right):
        if x <= right:
            parts.append(_text(_x(x / right), HEIGHT - BOTTOM + 16, f"{x:g}", "middle"))
    for one in series:
        kept = [(x, y) for x, y in zip(one.steps, one.values, strict=True) if math.isfinite(y)]
        places = " ".join(f"{_x(x / right):.1f},{_y(y / high):.1f}" for x, y in kept)
        dash = {"stroke-dasharray": "6 4"} if one.dashed else {}
        style = {"fill": "none", "stroke": one.color, "stroke-width": "2", **dash}
        parts.append(markup.element("polyline", points=places, **style))
        for x, y in kept if not one.dashed else []:
            said = f"{one.name}, {across} {x:g}: {_said(y, percent)}"
            dot = {"cx": f"{_x(x / right):.1f}", "cy": f"{_y(y / high):.1f}", "r": "3"}
            title = markup.element("title", said)
            parts.append(markup.element("circle", title, fill=one.color, **dot))
    said = ", ".join(one.name for one in series)
    legend = [(one.name, one.color) for one in series]
    return markup.joined([_svg(parts, f"{up} by {across}: {said}"), key(legend)])


def bars(
    counts: np.ndarray, names: Sequence[str], colors: Sequence[str], ends: tuple[str, str], up: str
) -> Html:
    """Stacked bars of shares of a whole; their heights are square roots, to show few as well.

    Parameters
    ----------
    counts : (J, B), of each class in each bar
    names, colors : of the classes
    ends : meaning of the first and the last bar
    up : meaning of their height
    """
    shares = counts / (counts.sum() or 1)
    whole = shares.sum(axis=0)
    most = min((m for m in MARKS[1:] if m >= whole.max()), default=1.0)
    parts = _axes([m for m in MARKS if m <= most], most, "", up, True, root=True)
    wide = (WIDTH - LEFT - RIGHT) / len(whole)
    for place, total in enumerate(whole):
        tall, base = (HEIGHT - TOP - BOTTOM) * math.sqrt(total / most), 0.0
        for share, name, color in zip(shares[:, place], names, colors, strict=True):
            if not share:
                continue
            own = tall * share / total
            size = {
                "x": f"{LEFT + place * wide:.1f}",
                "y": f"{HEIGHT - BOTTOM - base - own:.2f}",
                "width": f"{wide - 1:.1f}",
                "height": f"{own:.2f}",
            }
            title = markup.element("title", f"{name}: {100 * share:.3g} %")
            parts.append(markup.element("rect", title, fill=color, **size))
            base += own
    low, top = HEIGHT - BOTTOM + 18, WIDTH - RIGHT
    parts += [_text(LEFT, low, ends[0], "start"), _text(top, low, ends[1], "end")]
    return _svg(parts, f"{up}, from {ends[0]} to {ends[1]}")


def key(entries: Sequence[tuple[str, str]]) -> Html:
    """A legend: names with their colors."""
    found = [markup.element("span", swatch(color), name) for name, color in entries]
    return markup.element("p", *found, **{"class": "key"})


def swatch(color: str) -> Html:
    """A square of a color."""
    return markup.element("i", style=f"background:{color}")


def hexadecimal(color: Sequence[int]) -> str:
    """Red, green and blue as #rrggbb."""
    return "#{:02x}{:02x}{:02x}".format(*map(int, color[:3]))


def _svg(parts: Sequence[Html], about: str) -> Html:
    size = {"viewBox": f"0 0 {WIDTH} {HEIGHT}", "role": "img", "aria-label": about}
    return markup.element("svg", *parts, **size)


def _axes(
    ticks: Sequence[float], high: float, across: str, up: str, percent: bool, root: bool = False
) -> list[Html]:
    parts = []
    for value in ticks:
        y = _y(math.sqrt(value / high) if root else value / high)
        ends = {"x1": f"{LEFT}", "x2": f"{WIDTH - RIGHT}", "y1": f"{y:.1f}", "y2": f"{y:.1f}"}
        parts.append(markup.element("line", stroke="#ddd", **ends))
        parts.append(_text(LEFT - 6, y + 4, _said(value, percent), "end"))
    turned = {"transform": f"translate(14 {TOP + (HEIGHT - TOP - BOTTOM) / 2:.0f}) rotate(-90)"}
    parts.append(markup.element("text", up, **{"text-anchor": "middle"}, **turned))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, across, "middle"))
    return parts


def _said(value: float, percent: bool) -> str:
    return f"{100 * value:.3g} %" if percent else f"{value:.3g}"


def _text(x: float, y: float, text: str, anchor: str) -> Html:
    return markup.element("text", text, x=f"{x:.1f}", y=f"{y:.1f}", **{"text-anchor": anchor})


def _x(share: float) -> float:
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _y(share: float) -> float:
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _ticks(high: float) -> list[float]:
    """Three to six round numbers from 0 to at least `high`."""
    unit = 10.0 ** math.floor(math.log10(high / 3))
    step = next(f * unit for f in (1, 2, 5, 10) if high / (f * unit) <= 5)
    return [step * n for n in range(math.ceil(high / step - 1e-9) + 1)]
