"""Graph cuts and alpha-expansion: 8 neighbors, plain or cheaper where the image changes."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from support.filters import Tuned, finished, none
from support.sections import Sections, mapped

STEPS = ((0, 1), (1, 0), (1, 1), (1, -1))


def strengths(
    image: np.ndarray, smooth: float, contrast: float
) -> list[tuple[tuple[int, int], np.ndarray]]:
    """What a change of label from a pixel to its neighbor costs, an array a direction."""
    gray, found = ndimage.gaussian_filter(image.astype(np.float32), 1), []
    for dy, dx in STEPS:
        moved = np.roll(gray, (-dy, -dx), (0, 1))
        square = (gray - moved) ** 2
        cost = np.full(gray.shape, smooth / np.hypot(dy, dx), np.float64)
        if contrast:
            cost *= np.exp(-square / (2 * contrast * square.mean()))
        # no neighbor beyond the border
        cost[len(cost) - dy :] = 0
        cost[:, cost.shape[1] - dx if dx > 0 else 0 : None if dx > 0 else -dx or 0] = 0
        found.append(((dy, dx), cost))
    return found


def expand(
    unary: np.ndarray, costs: list[tuple[tuple[int, int], np.ndarray]], now: np.ndarray, label: int
) -> np.ndarray:
    """The best move in which pixels may change to one label: a minimal cut."""
    import maxflow

    graph = maxflow.GraphFloat(now.size, 4 * now.size)
    nodes = graph.add_grid_nodes(now.shape)
    keep = np.take_along_axis(unary, now[None], 0)[0].astype(np.float64)
    keep[now == label] = 1e9  # it has the label already
    take = unary[label].astype(np.float64)
    for (dy, dx), cost in costs:
        other = np.roll(now, (-dy, -dx), (0, 1))
        apart, first, second = (
            cost * (now != other),
            cost * (now != label),
            cost * (other != label),
        )
        # keep/keep costs `apart`, keep/take `first`, take/keep `second`, take/take nothing
        take += second - apart
        keep += np.roll(second, (dy, dx), (0, 1))
        structure = np.zeros((3, 3))
        structure[1 + dy, 1 + dx] = 1
        graph.add_grid_edges(nodes, first + second - apart, structure, symmetric=False)
    least = np.minimum(keep, take)
    graph.add_grid_tedges(nodes, take - least, keep - least)
    graph.maxflow()
    return np.where(graph.get_grid_segments(nodes), label, now)


def cut(
    p: np.ndarray, image: np.ndarray, smooth: float, contrast: float, bias: Sequence[float]
) -> np.ndarray:
    """Labels 1..J by a graph cut (two classes: exact) or alpha-expansion."""
    unary = -np.log(p) - np.asarray(bias)[:, None, None]
    costs = strengths(image, smooth, contrast)
    if len(p) == 2:
        return expand(unary, costs, np.zeros(image.shape, np.int64), 1).astype(np.uint8) + 1
    now = unary.argmin(axis=0)
    for _ in range(3):
        before = now
        for label in range(len(p)):
            now = expand(unary, costs, now, label)
        if (now == before).all():
            break
    return now.astype(np.uint8) + 1


def upper(sections: Sections, share: float) -> Sections:
    """The upper part of each section."""
    rows = [slice(0, math.ceil(len(t) * share)) for t in sections.labels]
    return Sections(
        sections.numbers,
        [i[part] for i, part in zip(sections.images, rows, strict=True)],
        [t[part] for t, part in zip(sections.labels, rows, strict=True)],
        [p[:, part] for p, part in zip(sections.probabilities, rows, strict=True)],
    )


def tune_cut(whole: Sections, fine: bool, share: float = 1.0, most: int | None = None) -> Tuned:
    """Contrast, smoothness and biases of the lowest error, by turns.

    Parameters
    ----------
    share : of each section, from its top, that parameters are searched on; expansions are slow
    most : pixels that biases are fitted to at first
    """
    two = len(whole.probabilities[0]) == 2
    judges = upper(whole, share)
    shifts = (-2, -1, 0, 1, 2) if two else (-1, 0, 1)

    def error(one: dict[str, Any]) -> float:
        key = json.dumps(one)
        if key not in seen:
            found = mapped(lambda p, i: cut(p, i, **one), judges.probabilities, judges.images)
            wrong, all_ = 0, 0
            for label, truth in zip(found, judges.labels, strict=True):
                wrong += int(((label != truth) & (truth > 0)).sum())
                all_ += int((truth > 0).sum())
            seen[key] = wrong / all_
        return seen[key]

    seen: dict[str, float] = {}
    start = finished(none, whole, {}, most).chosen["bias"]
    smooth = (0.1, 0.2, 0.35, 0.6, 1.0) if fine else (0.2,)
    best: list[dict[str, Any]] = []
    # plain ones, and ones that see contrast, each to its end: the better one stays
    for contrasts in ((0,), (0.25, 0.5, 2, 8)) if fine else ((0,), (2,)):
        one = min(
            (dict(smooth=s, contrast=c, bias=start) for s in smooth for c in contrasts), key=error
        )
        for factor in (2.0, 1.3) if fine else ():
            one = min(
                (one | {"smooth": one["smooth"] * f} for f in (1 / factor, 1, factor)), key=error
            )
            for j in range(1 if two else 0, len(start)):
                step = 0.25 * (factor - 1)
                one = min(
                    (
                        one | {"bias": [b + d * (i == j) for i, b in enumerate(one["bias"])]}
                        for d in (step * shift for shift in shifts)
                    ),
                    key=error,
                )
        best.append(one)
    chosen = min(best, key=error)
    judges = whole
    seen.clear()  # the error of whole sections
    return Tuned(lambda p, image: cut(p, image, **chosen), chosen, error(chosen))
