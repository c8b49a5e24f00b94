"""What a model has learned, as pictures: prototypes, predicted patches, the gradient's vectors."""

from __future__ import annotations

import html
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from . import dataterm, examples, figures, images, lessons, losses, options, stencil
from . import model as model_file
from .examples import Example
from .gradient import Gradient, Polynomials, Spaces, linearize_at
from .kernels import to_host
from .kernels.numpy import Array, Offsets
from .lessons import Course, Lesson, Lot, Reading
from .model import Model
from .picture import palette, to_rgb
from .plan import make_plan
from .predictor import Predictor
from .tiles import Grid

EDGE = 512  # of the part of an image that is shown unless a region says otherwise
MOST = 2048  # of a region
CARDS = 120  # prototypes that are drawn
SEEN = 15  # radius of the mean image around the pixels of a prototype
DRAWN = 256  # pixels of a prototype that this mean is of
BAND = 2**25  # numbers of prototype shares that are held at once
DIM = 16  # of the Krylov spaces of the gradient
TERMS = 3  # pairs of singular vectors that are drawn
ROUNDING = 1e-5  # relative to the largest singular value: vectors of smaller ones are noise
SQUARE = 72
HEAD = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>What a model does</title>
<style>
body { font-family: sans-serif; max-width: 100em; margin: 1em auto; padding: 0 1em }
img { max-width: 100% }
p { max-width: 60em }
</style>
<h1>What a model does</h1>
"""


@dataclass(frozen=True)
class Weights:
    """What predicted weight patches look like, pixel by pixel.

    Attributes
    ----------
    entropy : (y, x)
        Of Omega_i, relative to that of uniform weights: 0 one neighbor, 1 all alike.
    mean : (2, y, x)
        Mean offset (y, x) relative to the radius: 0 balanced, 1 all on the farthest neighbor.
    axis : (2, y, x)
        The mean of unit offsets with twice their angle: its angle is twice that of the line
        along which a pixel listens, its length 0..1 how strictly.
    """

    entropy: np.ndarray
    mean: np.ndarray
    axis: np.ndarray


@dataclass(frozen=True)
class Usage:
    """How prototypes are used.

    Attributes
    ----------
    share : (N,) mean share a_j over the pixels
    looks : (N, C, 2 r + 1, 2 r + 1) mean image around pixels whose largest share it has
    """

    share: np.ndarray
    looks: np.ndarray


@dataclass(frozen=True)
class Page:
    """A picture with its title and what it shows."""

    file: str
    title: str
    text: str
    picture: PIL.Image.Image


def describe(weights: np.ndarray, offsets: Offsets) -> Weights:
    """Entropy and directions of weight patches (K, y, x); directions lie within the plane."""
    valid = weights > 0
    terms = np.where(valid, weights * np.log(np.where(valid, weights, 1)), 0)
    count = valid.sum(axis=0)
    entropy = -terms.sum(axis=0) / np.log(np.maximum(count, 2))
    places = np.array(offsets, np.float64)[:, -2:]
    radius = max(1.0, float(np.abs(places).max()))
    mean = np.tensordot(places.T / radius, weights, 1)
    angle, far = np.arctan2(*places.T), np.hypot(*places.T) > 0
    twice = np.stack([np.sin(2 * angle), np.cos(2 * angle)]) * far
    around = np.tensordot(far.astype(float), weights, 1)
    axis = np.tensordot(twice, weights, 1) / np.maximum(around, np.finfo(float).tiny)
    return Weights(entropy, mean, axis)


def usage(
    predictor: Predictor, features: np.ndarray, image: np.ndarray, valid: np.ndarray, seed: int = 0
) -> Usage:
    """How prototypes are used at valid pixels (y, x) of features (F, y, x), image (C, y, x)."""
    height, width = features.shape[1:]
    count = len(predictor.prototypes)
    rows = max(1, BAND // (2 * count * width))
    total, winner = np.zeros(count), np.empty((height, width), np.int64)
    for top in range(0, height, rows):
        shares = predictor.shares(np.ascontiguousarray(features[:, top : top + rows]))
        inside = valid[top : top + rows]
        total += (shares * inside).sum(axis=(1, 2), dtype=np.float64)
        winner[top : top + rows] = np.where(inside, shares.argmax(axis=0), -1)
    size = 2 * SEEN + 1
    padded = np.pad(
        image.astype(np.float32), [(0, 0), (SEEN, SEEN), (SEEN, SEEN)], mode="symmetric"
    )
    around = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))
    looks = np.full((count, len(image), size, size), np.nan, np.float32)
    for j in range(count):
        chosen = lessons.drawn(np.flatnonzero(winner == j), DRAWN, (seed, j))
        if len(chosen):
            y, x = np.divmod(chosen, width)
            looks[j] = around[:, y, x].mean(axis=1)
    return Usage(total / max(valid.sum(), 1), looks)


def explain(
    model: Any,
    folder: str | os.PathLike[str],
    image: Any = None,
    *,
    truth: Any = None,
    probabilities: Any = None,
    mask: Any = None,
    axes: str | None = None,
    channels: Sequence[int] | None = None,
    region: Sequence[tuple[int, int]] | None = None,
    device: str = "cpu",
) -> Path:
    """Draw what a model has learned, and what it does on an image, into a new folder.

    Weights depend on pixels at full size, so a large image is not shrunk: a part of it of at most
    512 x 512 pixels, in its middle, is shown unless `region` says which one; of a volume the
    middle section.

    Parameters
    ----------
    model : Model or path
    folder : where the pictures and index.html go; new, or empty
    image : path or array, optional
    truth : labels of the image, optional
        For the singular vectors of the gradient of the loss.
    probabilities, mask, axes, channels, region, device
        As for `tiledlaf.label`.

    Returns
    -------
    Path of index.html

    Raises
    ------
    ValueError
        If the image does not fit the model, or the folder holds something.
    """
    found = model if isinstance(model, Model) else model_file.load(model)
    if found.predictor is None:
        raise ValueError("expected a model with a predictor of weights, got one of uniform weights")
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"{target}: expected a new or empty folder for the pictures")
    given = {"truth": truth, "probabilities": probabilities, "mask": mask, "region": region}
    view = None
    if image is None:
        named = [f"--{name}" for name, value in given.items() if value is not None]
        if named:
            raise ValueError(f"{', '.join(named)} without an image: expected an IMAGE as well")
    else:
        example = _example(image, truth, probabilities, mask, axes, channels)
        view = _look(found, found.predictor, example, region, device)
    pages = [_prototypes(found, found.predictor, view)]
    if view is not None:
        pages += [_labels(found, view), _entropy(view), _direction(view), _axis(view)]
    if view is not None and truth is not None:
        pages += _gradient(found, view)
    target.mkdir(parents=True, exist_ok=True)
    for page in pages:
        page.picture.save(target / page.file)
    index = target / "index.html"
    index.write_text(_html(found, found.predictor, pages, view), "utf-8")
    return index


# the image


def _example(
    image: Any,
    truth: Any,
    probabilities: Any,
    mask: Any,
    axes: str | None,
    channels: Sequence[int] | None,
) -> Example:
    if truth is None:  # none is labeled, and nothing is held
        path = isinstance(image, str | os.PathLike)
        source = images.open_image(image, axes=axes) if path else images.from_array(image, axes)
        truth = np.broadcast_to(np.uint8(0), source.grid)
    found = examples.pair(image, truth, probabilities, mask, axes=axes, channels=channels)
    if len(found) != 1:
        raise ValueError(f"expected one IMAGE, got {len(found)}")
    return found[0]


def _part(grid: Sequence[int], region: Sequence[tuple[int, int]] | None) -> list[tuple[int, int]]:
    """Start and stop an axis of what is shown: one section of a volume."""
    spans = list(region) if region is not None else [(0, n) for n in grid]
    if region is not None and any(b - a > MOST for a, b in spans[-2:]):
        raise ValueError(f"expected a region of at most {MOST} pixels an edge, got {spans}")
    edges = [1] * (len(spans) - 2) + [EDGE if region is None else MOST] * 2
    starts = [a + max(0, b - a - edge) // 2 for (a, b), edge in zip(spans, edges, strict=True)]
    return [
        (start, min(start + edge, b))
        for start, edge, (_, b) in zip(starts, edges, spans, strict=True)
    ]


@dataclass(frozen=True)
class View:
    """A part of an image as a model sees it; arrays without a halo.

    Attributes
    ----------
    about : what part it is
    image, z : (C, y, x), (J, y, x); z with the model's biases
    valid, full : (y, x) bool
        Not masked out; with all neighbors valid, as away from borders.
    weights : Weights
    used : Usage
    course, lesson, omega : what a gradient needs, with a halo
    core : cuts planes out of those
    """

    about: str
    image: np.ndarray
    z: np.ndarray
    valid: np.ndarray
    full: np.ndarray
    weights: Weights
    used: Usage
    course: Course
    lesson: Lesson
    omega: Array
    core: Callable[[Array], np.ndarray]


def _look(
    found: Model,
    predictor: Predictor,
    example: Example,
    region: Sequence[tuple[int, int]] | None,
    device: str,
) -> View:
    source = example.image
    choice = options.choose(source, model=found, probabilities=example.probabilities, device=device)
    make_plan(  # which refuses what does not fit
        source,
        None,
        term=choice.term,
        settings=choice.settings,
        model=found,
        classes=found.classes,
        probabilities=example.probabilities,
        mask=example.mask,
        region=region,
    )
    way, offsets = Polynomials(found.tol), choice.settings.offsets
    course = Course(found.classes, offsets, found.rho, found.time, way, losses.Cosine(), device)
    spans = _part(source.grid, region)
    origin, size = tuple(a for a, _ in spans), tuple(b - a for a, b in spans)
    tile = Grid(source.grid, origin, size, size, course.halo).tile_at((0,) * len(size))
    reading = Reading(course, (example,), (found.term,), predictor.features)
    lesson = lessons.read(reading, Lot(0, tile))
    omega = predictor.weights(lesson.features, lesson.uniform)
    # a volume's only section
    flat: tuple[Any, ...] = (*[0] * (len(size) - 2), slice(None), slice(None))

    def core(planes: Array) -> np.ndarray:
        return np.ascontiguousarray(to_host(planes)[:, *tile.inner][:, *flat])

    there = core(lesson.uniform) > 0
    valid: np.ndarray = np.any(there, axis=0)
    image = examples.read(source, tuple(slice(a, b) for a, b in spans))[:, *flat]
    image = dataterm.usable(image, valid, "image")
    bias = np.array(found.bias, np.float32)[:, None, None]
    part = ", ".join(
        f"{axis} {a}:{b}" for axis, (a, b) in zip(source.spatial_axes, spans, strict=True)
    )
    about = f"{'all' if size == source.grid else 'a part'} of {Path(source.path).name}, {part}"
    if not valid.any():
        raise ValueError(f"expected pixels in {about}, got masked ones alone: --region chooses")
    return View(
        about,
        image,
        core(lessons.linearize(course, lesson, omega).z) + bias,
        valid,
        np.all(there, axis=0),
        describe(core(omega), offsets),
        usage(predictor, core(lesson.features), image, valid),
        course,
        lesson,
        omega,
        core,
    )


# pictures


def _prototypes(found: Model, predictor: Predictor, view: View | None) -> Page:
    """A card a prototype: its features, the image around its pixels, its weight patch."""
    used = None if view is None else view.used
    relative = predictor.patches - np.log(np.exp(predictor.patches).mean(axis=1, keepdims=True))
    if used is None:
        order = np.argsort(-np.abs(relative).max(axis=1), kind="stable")
    else:
        order = np.argsort(-used.share, kind="stable")
    order = order[:CARDS]
    # a weight is at most K times that of uniform ones, but may be far smaller
    largest = min(float(np.abs(relative[order]).max()), math.log(len(found.offsets))) or 1.0
    values = predictor.prototypes * predictor.scale + predictor.mean
    odds = 1 if len(found.classes) == 2 else len(found.classes)
    looks, parts = None, []
    if used is not None:
        looks = _gray(used.looks[order])
    rows = [
        _squares(found, spec, places, values)
        for spec, places in predictor.features.parts(found.channels, odds)
        if spec[1] == "patch"
    ]
    rest = [
        place
        for spec, places in predictor.features.parts(found.channels, odds)
        if spec[1] != "patch"
        for place in places
    ]
    shown = [text for text, _ in rows]
    if rest:
        shown.append("other features (blue below, red above the mean)")
    if looks is not None:
        shown.append(f"mean image around its pixels ({2 * SEEN + 1} pixels wide)")
    shown.append("weight patch")
    for rank, j in enumerate(order):
        cells = [figures.square(pixels[j], SQUARE) for _, pixels in rows]
        if rest:
            z = np.concatenate([predictor.prototypes[j, place] for place in rest])
            cells.append(_strip(z))
        if looks is not None:
            cells.append(figures.square(looks[rank], SQUARE))
        colors = figures.ramp(0.5 + relative[j] / (2 * largest), figures.BLUE_RED)
        cells.append(figures.patch(colors, found.offsets, SQUARE))
        title = f"{rank + 1}" if used is None else f"{rank + 1}: {100 * used.share[j]:.1f} %"
        parts.append((title, _row(cells)))
    factor = math.exp(largest)
    bar = figures.scale(
        figures.BLUE_RED,
        f"weight 1/{factor:.3g} of uniform or less",
        f"{factor:.3g} times",
        "uniform",
    )
    numbered = [figures.line(f"{n}. {one}") for n, one in enumerate(shown, 1)]
    if predictor.features.needs("odds"):
        numbered.append(figures.names(found.names))
    foot = figures.above([bar, figures.line("each card, from left to right:"), *numbered])
    columns = max(1, min(6, 1500 // (parts[0][1].width + figures.GAP)))
    how = "by the strength of their patches" if used is None else "by how often they are used"
    text = (
        f"Prototypes of features with their weight patches, sorted {how}"
        + ("" if used is None else " (the mean share of a pixel's weights that comes from each)")
        + ". A weight patch shows neighbors at their offsets, far ones larger; the pixel itself "
        "has a dot."
    )
    if len(predictor.prototypes) > CARDS:
        text += f" The first {CARDS} of {len(predictor.prototypes)}."
    return Page("prototypes.png", "Prototypes", text, figures.sheet(parts, columns, foot))


def _row(cells: Sequence[PIL.Image.Image]) -> PIL.Image.Image:
    gap = 4
    width = sum(c.width for c in cells) + gap * (len(cells) - 1)
    out = PIL.Image.new("RGB", (width, max(c.height for c in cells)), figures.BACK)
    left = 0
    for cell in cells:
        out.paste(cell, (left, 0))
        left += cell.width + gap
    return out


def _squares(
    found: Model, spec: tuple[Any, ...], places: Sequence[slice], values: np.ndarray
) -> tuple[str, np.ndarray]:
    """A patch feature of all prototypes as pixels (N, y, x, 3), and what it is."""
    source, _, radius, dilation, sigma = spec
    side = 2 * radius + 1
    text = f"{side} x {side}"
    text += f", {dilation} pixels apart" if dilation > 1 else ""
    text += f", blurred by {sigma:g}" if sigma else ""
    planes = np.stack([values[:, place] for place in places]).reshape(len(places), -1, side, side)
    if source == "image":
        first = "" if len(planes) in (1, 3) else f" (the first of {len(planes)} channels)"
        return f"image{first}, {text}", _gray(planes.swapaxes(0, 1))
    if len(planes) == 1:  # of two classes: the first one's lead
        planes = np.concatenate([planes, -planes])
    return f"class that the data term prefers, {text}", figures.leaders(planes, 0.5)


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
    pixels = figures.ramp(0.5 + cells.reshape(-1, columns) / 4, figures.BLUE_RED)
    return PIL.Image.fromarray(pixels).resize((8 * columns, SQUARE), PIL.Image.Resampling.NEAREST)


def _labels(found: Model, view: View) -> Page:
    image, z = view.image, view.z
    second, first = np.sort(z, axis=0)[-2:]
    gap, labels = (first - second) * view.valid, (z.argmax(axis=0) + 1) * view.valid
    sure = figures.ramp(1 - np.exp(-gap), ((0, 0, 0), (255, 255, 255)))
    parts = [
        ("image", figures.enlarged(to_rgb(image))),
        ("labels", figures.enlarged(palette(len(z))[labels])),
        ("how sure: black tie, white certain", figures.enlarged(sure)),
    ]
    text = (
        "The image, the labels that the model gives it, and by how much the first label leads the "
        "second one (black: not at all)."
    )
    return Page("labels.png", "Labels", text, figures.sheet(parts, 3, figures.names(found.names)))


def _entropy(view: View) -> Page:
    entropy, inside = view.weights.entropy, view.weights.entropy[view.valid]
    low = min(float(np.quantile(inside, 0.01)), 0.99) if inside.size else 0.0
    parts = [
        ("image", figures.enlarged(to_rgb(view.image))),
        ("entropy", figures.enlarged(figures.ramp((entropy - low) / (1 - low), figures.HEAT))),
    ]
    foot = figures.scale(figures.HEAT, f"{low:.2f} and less", "1, all neighbors alike")
    text = (
        "Entropy of each pixel's weight patch, relative to uniform weights: dark where a pixel "
        f"listens to few neighbors (0: to one). Mean {inside.mean():.3f}."
    )
    return Page("entropy.png", "Entropy of predicted patches", text, figures.sheet(parts, 2, foot))


def _direction(view: View) -> Page:
    image, weights = view.image, view.weights
    length = np.hypot(*weights.mean)
    largest = _usual(length, view)
    angle = np.arctan2(*weights.mean)
    parts = [
        ("hue: direction, bright: far", figures.enlarged(figures.hues(angle, length / largest))),
        ("mean offsets", figures.arrows(to_rgb(image), weights.mean / largest)),
    ]
    foot = figures.wheel(f"direction of the mean offset; bright at {largest:.3g} of the radius")
    text = (
        "Mean offset of each pixel's weight patch: to which side it looks. Opposite neighbors of "
        "equal weight cancel. Dots are the heads of arrows, each the mean of a block of pixels."
    )
    return Page("direction.png", "Direction of predicted patches", text, _two(parts, foot))


def _axis(view: View) -> Page:
    image, weights = view.image, view.weights
    length = np.hypot(*weights.axis)
    largest = _usual(length, view)
    angle = np.arctan2(*weights.axis)
    parts = [
        ("hue: line, bright: strict", figures.enlarged(figures.hues(angle, length / largest))),
        ("lines", figures.arrows(to_rgb(image), weights.axis / largest, axes=True)),
    ]
    foot = figures.wheel(
        f"line along which the weights lie; bright at {largest:.3g} of 1, all on one line",
        axes=True,
    )
    text = (
        "The line along which a pixel's weights lie, whichever way: opposite neighbors count "
        "together, as those along a thin structure. Weights of the pixel itself are left out."
    )
    return Page("axis.png", "Axis of predicted patches", text, _two(parts, foot))


def _usual(length: np.ndarray, view: View) -> float:
    """A length that few pixels exceed, but for those at borders, which have no choice."""
    chosen = length[view.full] if view.full.any() else length
    return float(np.quantile(chosen, 0.95)) or 1.0


def _two(parts: list[tuple[str, PIL.Image.Image]], foot: PIL.Image.Image) -> PIL.Image.Image:
    """Two pictures of one size."""
    size = max(parts[0][1].size, parts[1][1].size)
    same = [(t, p.resize(size, PIL.Image.Resampling.NEAREST)) for t, p in parts]
    return figures.sheet(same, 2, foot)


def _gradient(found: Model, view: View) -> list[Page]:
    """The leading singular vectors of the gradient, and where weights matter."""
    course, lesson, core = view.course, view.lesson, view.core
    if not (lesson.target > 0).any():
        raise ValueError(f"expected labeled pixels in {view.about}, got none: --region chooses")

    def by(way: Spaces) -> tuple[Array, Array, Gradient]:
        flow = linearize_at(view.omega, lesson.q, course.offsets, course.time, way)
        g = course.loss.gradient(flow.z, lesson.target, course.loss.sums(flow.z, lesson.target))
        return flow.z, g, flow.gradient(g)

    z, g, full = by(Spaces(DIM))
    assert full.vectors is not None
    parts = []
    energy = full.singular_values**2 / (full.singular_values**2).sum()
    above = full.singular_values > ROUNDING * full.singular_values[0]
    terms = min(TERMS, int(above.sum()))
    for r in range(terms):
        u, v = full.vectors[0][r], full.vectors[1][r]
        # of the two signs the one with z along the flow; -u is where the loss falls
        sign = 1.0 if float((v * z).sum()) >= 0 else -1.0
        for name, planes in ((f"-u{r + 1}", -sign * u), (f"z{r + 1}", sign * v)):
            shown = core(planes)
            title = f"{name}, sigma {full.singular_values[r]:.3g}, {100 * energy[r]:.4g} %"
            parts.append((title, figures.enlarged(figures.leaders(shown))))
    tangent, first = core(full.tangent), core(by(Spaces(DIM, rank=1))[2].tangent)
    size = np.sqrt((tangent**2).sum(axis=0))
    other = np.sqrt((first**2).sum(axis=0))
    counted = (size > 0) & (other > 0)
    cosine = (tangent * first).sum(axis=0)[counted] / (size * other)[counted]
    close = float((cosine >= 0.9).mean()) if counted.any() else math.nan
    foot = figures.names(found.names, "brighter: larger; dark: nothing")
    decay = ", ".join(f"{s:.3g}" for s in full.singular_values[:8])
    vectors = Page(
        "gradient.png",
        "Leading singular vectors of the gradient",
        "The gradient of the cosine loss in all weights at once is the sum of sigma_r u_r (x) z_r "
        "(and a term of the similarity): the weight of neighbor k at pixel i should grow where -u "
        "at i and z at k agree. Each map shows the class that leads and by how much, each share is "
        f"that of a sigma squared in their sum. Singular values: {decay}. z1 has the cosine "
        f"{_cosine(full.vectors[1][0], z):.4f} with the flow's Z(T), u1 the cosine "
        f"{_cosine(full.vectors[0][0], g):.4f} with the loss's gradient in Z(T). With the first "
        f"pair alone {100 * close:.2f} % of the pixels' gradients have a cosine of 0.9 or more "
        "with the full one.",
        figures.sheet(parts, 2, foot),
    )
    largest = float(np.quantile(size, 0.99)) or 1.0
    target = core(lesson.target[None])[0]
    maps = [
        ("truth", figures.enlarged(palette(len(z))[target])),
        ("size of the gradient", figures.enlarged(figures.ramp(size / largest, figures.HEAT))),
    ]
    sizes = Page(
        "sensitivity.png",
        "Where weights matter",
        "Norm of each pixel's gradient, R_Omega dL/dOmega: bright where other weights would change "
        "the loss most, at errors and along borders.",
        figures.sheet(maps, 2, figures.scale(figures.HEAT, "0", f"{largest:.3g} and more")),
    )
    return [vectors, sizes]


def _cosine(x: Array, y: Array) -> float:
    """Of the angle between two lines."""
    return abs(float((x * y).sum()) / math.sqrt(float((x * x).sum()) * float((y * y).sum())))


def _html(found: Model, predictor: Predictor, pages: Sequence[Page], view: View | None) -> str:
    """The index of the pictures."""
    radius = " x ".join(map(str, stencil.radius(found.offsets)))
    facts = (
        f"{len(predictor.prototypes)} prototypes of {len(predictor.mean)} features, sigma "
        f"{predictor.sigma:.3g}; {len(found.offsets)} neighbors, radius {radius}; "
        f"T {found.time:g}; classes: {', '.join(found.names)}."
    )
    if view is not None:
        facts += f" What is shown of an image is {view.about}, at full size."
    rows = "\n".join(
        f'<h2 id="{page.file}">{html.escape(page.title)}</h2>\n<p>{html.escape(page.text)}</p>\n'
        f'<p><a href="{page.file}"><img src="{page.file}" alt="{html.escape(page.title)}"></a></p>'
        for page in pages
    )
    return HEAD + f"<p>{html.escape(facts)}</p>\n{rows}\n</html>\n"
