"""Pages about a model: what it has learned and what it does, as pictures with text."""

from __future__ import annotations

import math
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image

from ..errors import InputError
from ..flow import stencil
from ..flow.gradient import Spaces, linearize_at
from ..flow.problem import Gradient
from ..kernels.arrays import Array
from ..model.classes import palette
from ..model.features import is_patch, odds_planes, of_image
from ..model.model import Model
from ..model.predictor import Predictor
from ..results.pictures import to_rgb
from . import drawing, markup
from .markup import Html
from .view import SEEN, View

CARDS = 120  # anchors that are drawn
DIM = 16  # dimension of the Krylov spaces of the gradient
TERMS = 3  # pairs of singular vectors that are drawn
ROUNDING = 1e-5  # relative to the largest singular value: vectors of smaller ones are noise
SQUARE = 72
HEAD = Html(
    """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>What a model does</title>
<style>
body { font-family: sans-serif; max-width: 100em; margin: 1em auto; padding: 0 1em }
img { max-width: 100% }
p, figcaption { max-width: 60em }
figure { margin: 1em 0 }
figcaption, .note { color: #555; font-size: .9em }
td { padding: .15em .8em .15em 0 }
.bar div { position: relative; width: 20em; height: 1em; background: #eee }
.bar b { display: block; height: 100%; background: #0072b2 }
.bar u { position: absolute; top: -.15em; height: 1.3em; border-left: 2px solid #d55e00 }
summary { cursor: pointer; font-size: 1.2em; margin: 2em 0 1em }
</style>
<h1>What a model does</h1>
"""
)


@dataclass(frozen=True)
class Page:
    """A picture with its title and what it shows."""

    file: str
    title: str
    text: str
    picture: PIL.Image.Image


def anchors(found: Model, predictor: Predictor, view: View | None) -> Page:
    """A card for each anchor: its features, the image around its pixels, its weight patch."""
    used = None if view is None else view.used
    relative = predictor.patches - np.log(np.exp(predictor.patches).mean(axis=1, keepdims=True))
    if used is None:
        order = np.argsort(-np.abs(relative).max(axis=1), kind="stable")
    else:
        order = np.argsort(-used.share, kind="stable")
    order = order[:CARDS]
    # a weight is at most K times the uniform one, but may be far smaller
    largest = min(float(np.abs(relative[order]).max()), math.log(len(found.offsets))) or 1.0
    values = predictor.anchors * predictor.scale + predictor.mean
    odds = odds_planes(len(found.classes))
    looks, parts = None, []
    if used is not None:
        looks = _gray(used.looks[order])
    parts_of = list(predictor.features.parts(found.channels, odds))
    rows = [_squares(found, spec, places, values) for spec, places in parts_of if is_patch(spec)]
    rest = [place for spec, places in parts_of if not is_patch(spec) for place in places]
    shown = [text for text, _ in rows]
    if rest:
        shown.append("other features (blue: below the mean, red: above)")
    if looks is not None:
        shown.append(f"mean image around its pixels ({2 * SEEN + 1} pixels wide)")
    shown.append("weight patch")
    for rank, j in enumerate(order):
        cells = [drawing.square(pixels[j], SQUARE) for _, pixels in rows]
        if rest:
            z = np.concatenate([predictor.anchors[j, place] for place in rest])
            cells.append(_strip(z))
        if looks is not None:
            cells.append(drawing.square(looks[rank], SQUARE))
        colors = drawing.ramp(0.5 + relative[j] / (2 * largest), drawing.BLUE_RED)
        cells.append(drawing.patch(colors, found.offsets, SQUARE))
        title = f"{rank + 1}" if used is None else f"{rank + 1}: {100 * used.share[j]:.1f} %"
        parts.append((title, _row(cells)))
    names = found.names if predictor.features.needs("odds") else None
    foot = _foot(math.exp(largest), shown, names)
    columns = max(1, min(6, 1500 // (parts[0][1].width + drawing.GAP)))
    how = "by the strength of their patches" if used is None else "by how often they are used"
    text = (
        f"Anchors of features with their weight patches, sorted {how}"
        + ("" if used is None else " (the mean share of a pixel's weights that comes from each)")
        + ". A weight patch shows neighbors at their offsets, far ones larger; the pixel itself "
        "has a dot."
    )
    if len(predictor.anchors) > CARDS:
        text += f" The first {CARDS} of {len(predictor.anchors)}."
    return Page("anchors.png", "Anchors", text, drawing.sheet(parts, columns, foot))


def _foot(factor: float, shown: Sequence[str], names: Sequence[str] | None) -> PIL.Image.Image:
    """The legend of the cards: the scale of weights, and what each part of a card shows."""
    bar = drawing.scale(
        drawing.BLUE_RED,
        f"weight 1/{factor:.3g} of uniform or less",
        f"{factor:.3g} times",
        "uniform",
    )
    numbered = [drawing.line(f"{n}. {one}") for n, one in enumerate(shown, 1)]
    if names is not None:
        numbered.append(drawing.names(names))
    return drawing.above([bar, drawing.line("each card, from left to right:"), *numbered])


def _row(cells: Sequence[PIL.Image.Image]) -> PIL.Image.Image:
    gap = 4
    width = sum(c.width for c in cells) + gap * (len(cells) - 1)
    out = PIL.Image.new("RGB", (width, max(c.height for c in cells)), drawing.BACK)
    left = 0
    for cell in cells:
        out.paste(cell, (left, 0))
        left += cell.width + gap
    return out


def _squares(
    found: Model, spec: tuple[Any, ...], places: Sequence[slice], values: np.ndarray
) -> tuple[str, np.ndarray]:
    """A patch feature of all anchors as pixels (N, y, x, 3), with its description."""
    radius, dilation, sigma = spec[2:]
    side = 2 * radius + 1
    text = f"{side} x {side}"
    text += f", {dilation} pixels apart" if dilation > 1 else ""
    text += f", blurred by {sigma:g}" if sigma else ""
    planes = np.stack([values[:, place] for place in places]).reshape(len(places), -1, side, side)
    if of_image(spec):
        first = "" if len(planes) in (1, 3) else f" (the first of {len(planes)} channels)"
        return f"image{first}, {text}", _gray(planes.swapaxes(0, 1))
    if len(planes) == 1:  # for two classes: the lead of the first
        planes = np.concatenate([planes, -planes])
    return f"class that the data term prefers, {text}", drawing.leaders(planes, 0.5)


def _gray(planes: np.ndarray) -> np.ndarray:
    """Planes (N, C, y, x) as (N, y, x, 3) uint8 on one scale; three are red, green and blue."""
    if planes.shape[1] != 3:
        planes = planes[:, :1]
    finite = planes[np.isfinite(planes)]
    low, high = (finite.min(), finite.max()) if finite.size else (0, 1)
    scaled = np.nan_to_num((planes - low) / (high - low or 1) * 255, nan=225)
    pixels = np.repeat(scaled, 3, axis=1) if planes.shape[1] == 1 else scaled
    return np.ascontiguousarray(np.moveaxis(pixels, 1, -1)).astype(np.uint8)


def _strip(z: np.ndarray) -> PIL.Image.Image:
    """Numbers in standard deviations as a column of cells."""
    columns = math.ceil(len(z) / 12)
    cells = np.full((math.ceil(len(z) / columns) * columns,), 0.0)
    cells[: len(z)] = z
    pixels = drawing.ramp(0.5 + cells.reshape(-1, columns) / 4, drawing.BLUE_RED)
    return PIL.Image.fromarray(pixels).resize((8 * columns, SQUARE), PIL.Image.Resampling.NEAREST)


def labels(found: Model, view: View) -> Page:
    """The image, its labels and their certainty."""
    image, z = view.image, view.z
    second, first = np.sort(z, axis=0)[-2:]
    gap, labels = (first - second) * view.valid, (z.argmax(axis=0) + 1) * view.valid
    sure = drawing.ramp(1 - np.exp(-gap), ((0, 0, 0), (255, 255, 255)))
    parts = [
        ("image", drawing.enlarged(to_rgb(image))),
        ("labels", drawing.enlarged(palette(len(z))[labels])),
        ("how sure: black tie, white certain", drawing.enlarged(sure)),
    ]
    text = (
        "The image, the labels that the model assigns, and by how much the first label leads the "
        "second (black: not at all)."
    )
    return Page("labels.png", "Labels", text, drawing.sheet(parts, 3, drawing.names(found.names)))


def entropy(view: View) -> Page:
    """A map of the entropy of predicted patches."""
    entropy, inside = view.weights.entropy, view.weights.entropy[view.valid]
    low = min(float(np.quantile(inside, 0.01)), 0.99) if inside.size else 0.0
    parts = [
        ("image", drawing.enlarged(to_rgb(view.image))),
        ("entropy", drawing.enlarged(drawing.ramp((entropy - low) / (1 - low), drawing.HEAT))),
    ]
    foot = drawing.scale(drawing.HEAT, f"{low:.2f} or less", "1, all neighbors alike")
    text = (
        "Entropy of each pixel's weight patch, relative to uniform weights: dark where a pixel "
        f"listens to few neighbors (0: to one). Mean {inside.mean():.3f}."
    )
    return Page("entropy.png", "Entropy of predicted patches", text, drawing.sheet(parts, 2, foot))


def direction(view: View) -> Page:
    """Maps of the mean offsets of predicted patches."""
    image, weights = view.image, view.weights
    length = np.hypot(*weights.mean)
    largest = usual(length, view)
    angle = np.arctan2(*weights.mean)
    parts = [
        ("hue: direction, bright: far", drawing.enlarged(drawing.hues(angle, length / largest))),
        ("mean offsets", drawing.arrows(to_rgb(image), weights.mean / largest)),
    ]
    foot = drawing.wheel(f"direction of the mean offset; bright at {largest:.3g} of the radius")
    text = (
        "Mean offset of each pixel's weight patch: which way it looks. Opposite neighbors of "
        "equal weight cancel. Dots are the heads of arrows, each the mean of a block of pixels."
    )
    return Page("direction.png", "Direction of predicted patches", text, _two(parts, foot))


def axis(view: View) -> Page:
    """Maps of the lines along which predicted patches lie."""
    image, weights = view.image, view.weights
    length = np.hypot(*weights.axis)
    largest = usual(length, view)
    angle = np.arctan2(*weights.axis)
    parts = [
        ("hue: line, bright: strict", drawing.enlarged(drawing.hues(angle, length / largest))),
        ("lines", drawing.arrows(to_rgb(image), weights.axis / largest, axes=True)),
    ]
    foot = drawing.wheel(
        f"line along which the weights lie; bright at {largest:.3g} of 1, all on one line",
        axes=True,
    )
    text = (
        "The line along which a pixel's weights lie, in either direction: opposite neighbors count "
        "together, like those along a thin structure. The pixel's own weight is left out."
    )
    return Page("axis.png", "Axis of predicted patches", text, _two(parts, foot))


def usual(length: np.ndarray, view: View) -> float:
    """A length that few pixels exceed, ignoring those at borders, whose patches are one-sided."""
    chosen = length[view.full] if view.full.any() else length
    return float(np.quantile(chosen, 0.95)) or 1.0


def _two(parts: list[tuple[str, PIL.Image.Image]], foot: PIL.Image.Image) -> PIL.Image.Image:
    """A sheet of two pictures, scaled to one size."""
    size = max(parts[0][1].size, parts[1][1].size)
    same = [(t, p.resize(size, PIL.Image.Resampling.NEAREST)) for t, p in parts]
    return drawing.sheet(same, 2, foot)


def gradient(found: Model, view: View) -> list[Page]:
    """The leading singular vectors of the gradient, and where weights matter."""
    flow_settings, data, core = view.flow, view.data, view.core
    if not (data.target > 0).any():
        raise InputError(f"expected labeled pixels in {view.about}, got none: `region` chooses")

    def by(way: Spaces) -> tuple[Array, Array, Gradient]:
        flow = linearize_at(view.omega, data.q, flow_settings.offsets, flow_settings.time, way)
        g = flow_settings.loss.gradient(
            flow.z, data.target, flow_settings.loss.sums(flow.z, data.target)
        )
        return flow.z, g, flow.gradient(g)

    z, g, full = by(Spaces(DIM))
    assert full.vectors is not None
    parts = []
    energy = full.singular_values**2 / (full.singular_values**2).sum()
    above = full.singular_values > ROUNDING * full.singular_values[0]
    terms = min(TERMS, int(above.sum()))
    for r in range(terms):
        u, v = full.vectors[0][r], full.vectors[1][r]
        # the sign is chosen so that z points along the flow; the loss falls along -u
        sign = 1.0 if float((v * z).sum()) >= 0 else -1.0
        for name, planes in ((f"-u{r + 1}", -sign * u), (f"z{r + 1}", sign * v)):
            shown = core(planes)
            title = f"{name}, sigma {full.singular_values[r]:.3g}, {100 * energy[r]:.4g} %"
            parts.append((title, drawing.enlarged(drawing.leaders(shown))))
    tangent, first = core(full.tangent), core(by(Spaces(DIM, rank=1))[2].tangent)
    size = np.sqrt((tangent**2).sum(axis=0))
    other = np.sqrt((first**2).sum(axis=0))
    counted = (size > 0) & (other > 0)
    cosine = (tangent * first).sum(axis=0)[counted] / (size * other)[counted]
    close = float((cosine >= 0.9).mean()) if counted.any() else math.nan
    foot = drawing.names(found.names, "brighter: larger; dark: nothing")
    decay = ", ".join(f"{s:.3g}" for s in full.singular_values[:8])
    vectors = Page(
        "gradient.png",
        "Leading singular vectors of the gradient",
        "The gradient of the cosine loss in all weights at once is the sum of sigma_r u_r (x) z_r "
        "(and a term of the similarity): the weight of neighbor k at pixel i should grow where -u "
        "at i and z at k agree. Each map shows the leading class and its lead; each share is that "
        f"of a squared sigma in their sum. Singular values: {decay}. z1 has the cosine "
        f"{_cosine(full.vectors[1][0], z):.4f} with the flow's Z(T), u1 the cosine "
        f"{_cosine(full.vectors[0][0], g):.4f} with the loss's gradient in Z(T). With the first "
        f"pair alone {100 * close:.2f} % of the pixels' gradients have a cosine of 0.9 or more "
        "with the full one.",
        drawing.sheet(parts, 2, foot),
    )
    largest = float(np.quantile(size, 0.99)) or 1.0
    target = core(data.target[None])[0]
    maps = [
        ("truth", drawing.enlarged(palette(len(z))[target])),
        ("size of the gradient", drawing.enlarged(drawing.ramp(size / largest, drawing.HEAT))),
    ]
    sizes = Page(
        "sensitivity.png",
        "Where weights matter",
        "Norm of each pixel's gradient, R_Omega dL/dOmega: bright where other weights would change "
        "the loss most, at errors and along borders.",
        drawing.sheet(maps, 2, drawing.scale(drawing.HEAT, "0", f"{largest:.3g} or more")),
    )
    return [vectors, sizes]


def _cosine(x: Array, y: Array) -> float:
    """Cosine of the angle between two lines."""
    return abs(float((x * y).sum()) / math.sqrt(float((x * x).sum()) * float((y * y).sum())))


def html_of(
    found: Model, predictor: Predictor, pages: Sequence[Page], view: View | None, first: Html
) -> Html:
    """The index of the pictures, folded below what all readers see first."""
    radius = " x ".join(map(str, stencil.radius(found.offsets)))
    facts = (
        f"{len(predictor.anchors)} anchors of {len(predictor.mean)} features, sigma "
        f"{predictor.sigma:.3g}; {len(found.offsets)} neighbors, radius {radius}; "
        f"T {found.time:g}; classes: {', '.join(found.names)}."
    )
    if view is not None:
        facts += f" The pictures of an image show {view.about}, at full size."
    rows = [part for page in pages for part in _section(page)]
    summary = markup.element("summary", "For authors: how the model does it")
    fold = markup.joined([summary, markup.element("p", facts), *rows], "\n")
    return markup.joined([HEAD, first, markup.element("details", fold), Html("</html>\n")], "\n")


def _section(page: Page) -> list[Html]:
    """A picture with its title and text."""
    place, element = urllib.parse.quote(page.file), markup.element
    picture = element("img", src=place, alt=page.title)
    return [
        element("h2", page.title, id=page.file),
        element("p", page.text),
        element("p", element("a", picture, href=place)),
    ]
