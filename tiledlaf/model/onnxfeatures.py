"""Features of pixels as ONNX operators: what `features` and `filters` do, of whole images."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import filters
from .features import Features
from .filters import Point
from .onnxgraph import MIRRORED, Graph

# central differences and second ones, as kernels of correlations
DOWN = np.array([[0, -0.5, 0], [0, 0, 0], [0, 0.5, 0]])
XX = np.array([[0, 0, 0], [1, -2, 1], [0, 0, 0]])
XY = np.array([[0.25, 0, -0.25], [0, 0, 0], [-0.25, 0, 0.25]])
YY = XX.T


def computed(graph: Graph, features: Features, image: str, odds: str = "") -> str:
    """All features as planes (F, 1, y, x), in the order of `Features.compute`.

    Parameters
    ----------
    image, odds : planes; "" for none that a feature needs
    """
    sources = {"image": image, "odds": odds}
    if any(spec[0] == "mean" for spec in features.specs):
        sources["mean"] = graph.add("ReduceMean", image, [0])

    @functools.cache
    def blur(source: str, sigma: float) -> str:
        return smoothed(graph, sources[source], sigma) if sigma else sources[source]

    found = []
    for source, kind, *numbers in features.specs:
        of = functools.partial(blur, source)
        found.append(graph.planes(KINDS[kind](graph, of, *numbers)))
    return graph.joined(found, axis=0)


def smoothed(graph: Graph, x: str, sigma: float) -> str:
    """Planes smoothed by a Gaussian."""
    radius = filters.blur_radius(sigma)
    wide = graph.padded(x, (radius, radius), MIRRORED)
    return blurred(graph, wide, sigma)


def blurred(graph: Graph, wide: str, sigma: float) -> str:
    """Planes with a border of the Gaussian's radius, smoothed within it."""
    half = filters.gaussian(sigma)
    weights = np.concatenate([half[:0:-1], half])
    return graph.convolved(graph.convolved(wide, weights[None, :, None]), weights[None, None, :])


def _mirrored(graph: Graph, x: str, kernels: Sequence[np.ndarray]) -> str:
    """Planes, mirrored at their border, under kernels of 3 x 3: (n, m, y, x)."""
    return graph.convolved(graph.padded(x, (1, 1), MIRRORED), np.stack(kernels))


def _at(graph: Graph, x: str, points: Sequence[Point], border: int) -> str:
    """The values at points around each pixel, (n, m, y, x)."""
    wide = graph.padded(x, (border, border), MIRRORED)
    return graph.joined([graph.window(wide, (border, border), p) for p in points], axis=1)


Blur = Callable[[float], str]


def _patch(graph: Graph, blur: Blur, radius: int, dilation: int, sigma: float) -> str:
    steps = range(-radius * dilation, radius * dilation + 1, dilation)
    return _at(graph, blur(sigma), [(y, x) for y in steps for x in steps], radius * dilation)


def _gaussian(graph: Graph, blur: Blur, sigma: float) -> str:
    return blur(sigma)


def _difference(graph: Graph, blur: Blur, first: float, second: float) -> str:
    return graph.add("Sub", blur(first), blur(second))


def _gradient(graph: Graph, blur: Blur, sigma: float) -> str:
    return graph.add("ReduceL2", _mirrored(graph, blur(sigma), (DOWN, DOWN.T)), [1])


def _hessian(graph: Graph, blur: Blur, sigma: float) -> str:
    return _mirrored(graph, blur(sigma), (XX, XY, YY))


def _roots(graph: Graph, mean: str, half: str, mixed: str) -> list[str]:
    """Eigenvalues, the larger first, by the mean and half the difference of the diagonal."""
    root = graph.add("ReduceL2", graph.joined([half, mixed], axis=1), [1])
    return [graph.add("Add", mean, root), graph.add("Sub", mean, root)]


def _eigenvalues(graph: Graph, blur: Blur, sigma: float) -> str:
    found = _mirrored(graph, blur(sigma), ((XX + YY) / 2, (XX - YY) / 2, XY))
    return graph.joined(_roots(graph, *graph.split(found, 3, axis=1)), axis=1)


def _structure(graph: Graph, blur: Blur, inner: float, outer: float) -> str:
    border = filters.blur_radius(outer) + 1
    wide = graph.padded(blur(inner), (border, border), MIRRORED)
    right, down = graph.split(graph.convolved(wide, np.stack([DOWN.T, DOWN])), 2, axis=1)
    pairs = ((right, right), (right, down), (down, down))
    products = graph.joined([graph.add("Mul", a, b) for a, b in pairs], axis=1)
    sums = graph.channels(blurred(graph, graph.planes(products), outer), 3)
    xx, xy, yy = graph.split(sums, 3, axis=1)
    mean = graph.add("Mul", graph.add("Add", xx, yy), 0.5)
    half = graph.add("Mul", graph.add("Sub", xx, yy), 0.5)
    roots = graph.joined(_roots(graph, mean, half, xy), axis=1)
    return graph.add("Sqrt", graph.add("Relu", roots))  # negative by rounding alone


def _lines(graph: Graph, blur: Blur, sigma: float, length: float) -> str:
    lines = filters.line_points(length)
    border = max(max(map(max, points)) for points in lines)
    wide = graph.padded(blur(sigma), (border + 1, border + 1), MIRRORED)
    across = np.stack([y * y * XX - 2 * y * x * XY + x * x * YY for y, x in filters.DIRECTIONS])
    seconds = graph.split(graph.convolved(wide, across), len(lines), axis=1)
    sums = []
    for x, points in zip(seconds, lines, strict=True):
        left = (border, border)
        for y, z in (points[5], points[7]):  # three, and these three again three times
            inner = (abs(y), abs(z)) if left == (border, border) else left
            x = graph.add("Sum", *(graph.window(x, inner, (k * y, k * z)) for k in (-1, 0, 1)))
            left = (border - inner[0], border - inner[1])
        sums.append(x)
    means = graph.add("Mul", graph.joined(sums, axis=1), 1 / len(lines[0]))
    ends = [graph.add(kind, means, [1]) for kind in ("ReduceMax", "ReduceMin")]
    return graph.joined(ends, axis=1)


def _ring(graph: Graph, blur: Blur, distance: int, sigma: float) -> str:
    around = _at(graph, blur(sigma), filters.circle(distance), distance)
    mean = graph.add("ReduceMean", around, [1])
    squares = graph.add("ReduceSumSquare", graph.add("Sub", around, mean), [1])
    share = 1 / len(filters.circle(distance))
    return graph.joined([mean, graph.add("Sqrt", graph.add("Mul", squares, share))], axis=1)


def _quartiles(graph: Graph, blur: Blur, distance: int, sigma: float) -> str:
    points = filters.circle(distance)
    rows = graph.split(_at(graph, blur(sigma), points, distance), len(points), axis=1)
    for low, high in filters.sorting_network(len(points)):
        pair = rows[low], rows[high]
        rows[low], rows[high] = graph.add("Min", *pair), graph.add("Max", *pair)
    ranks = [round(part * (len(points) - 1)) for part in filters.QUARTILES]
    return graph.joined([rows[rank] for rank in ranks], axis=1)


KINDS: dict[str, Callable[..., Any]] = {
    "patch": _patch,
    "gaussian": _gaussian,
    "gradient": _gradient,
    "hessian": _hessian,
    "eigenvalues": _eigenvalues,
    "difference": _difference,
    "structure": _structure,
    "lines": _lines,
    "ring": _ring,
    "quartiles": _quartiles,
}
