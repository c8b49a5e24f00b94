"""Strokes as people draw them: short smooth curves, each within one class."""

from __future__ import annotations

import math

import numpy as np

STEPS = (15, 60)  # of a walk, a pixel each
TURN = 0.25  # radians; spread of what a walk turns in a step
RADII = (0, 1, 2)  # of the pen: 1, 3 or 5 pixels wide
MOST = 0.9  # of a class's pixels, at most


def draw(truth: np.ndarray, share: float, equal: bool, seed: int | list[int]) -> np.ndarray:
    """Labels on strokes alone, 0 elsewhere.

    Parameters
    ----------
    truth : (y, x) labels 1..J, 0 where there is none
    share : of labeled pixels that lie on strokes
    equal : as many pixels of each class of the image; otherwise in proportion to them
    seed : of the walks

    Notes
    -----
    A class gets at least one pixel, and at most 90 % of its own.
    """
    rng = np.random.default_rng(seed)
    counts = np.bincount(truth.ravel())
    there = [int(j) for j in np.flatnonzero(counts) if j]
    total = sum(int(counts[j]) for j in there)
    found = np.zeros_like(truth)
    for j in there:
        part = 1 / len(there) if equal else counts[j] / total
        wanted = max(1, min(round(share * total * part), math.floor(MOST * counts[j])))
        _fill(found, truth == j, j, wanted, rng)
    return found


def _fill(
    found: np.ndarray, inside: np.ndarray, label: int, wanted: int, rng: np.random.Generator
) -> None:
    """Strokes of a class, until so many pixels have its label."""
    free = np.flatnonzero(inside)
    while wanted:
        start = free[rng.integers(len(free))]
        if found.flat[start]:
            continue
        y, x = np.unravel_index(start, inside.shape)
        for spot in _stroke(inside, int(y), int(x), rng):
            if wanted and not found[spot]:
                found[spot] = label
                wanted -= 1


def _stroke(inside: np.ndarray, y: int, x: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Pixels of one stroke in the order in which they are drawn; it ends where its class does."""
    height, width = inside.shape
    radius = int(rng.choice(RADII))
    pen = [
        (dy, dx)
        for dy in range(-radius, radius + 1)
        for dx in range(-radius, radius + 1)
        if dy * dy + dx * dx <= radius * radius
    ]
    at, angle, spots = np.array([y, x], float), rng.uniform(0, 2 * math.pi), []
    for _ in range(int(rng.integers(*STEPS, endpoint=True))):
        row, column = (round(float(v)) for v in at)
        if not (0 <= row < height and 0 <= column < width and inside[row, column]):
            break
        for dy, dx in pen:
            spot = row + dy, column + dx
            if 0 <= spot[0] < height and 0 <= spot[1] < width and inside[spot]:
                spots.append(spot)
        angle += rng.normal(0, TURN)
        at += math.sin(angle), math.cos(angle)
    return spots
