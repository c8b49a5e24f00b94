"""Judged images as another slide or microscope would show them: light, stain and focus."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

TURN = 10.0  # degrees that stains are turned by around gray


def gamma(power: float) -> Callable[[np.ndarray], np.ndarray]:
    """Another gamma, of images of 8 bits."""
    table = np.round(255 * (np.arange(256) / 255) ** power).astype(np.uint8)
    return lambda planes: table[planes]


def blurred(planes: np.ndarray) -> np.ndarray:
    """Out of focus by a Gaussian of one pixel."""
    found = ndimage.gaussian_filter(planes.astype(np.float32), 1, axes=(-2, -1))
    return np.round(found).astype(np.uint8)


def turned(planes: np.ndarray) -> np.ndarray:
    """Optical densities of three channels, turned around gray: stains of other dyes."""
    x, y, z = np.full(3, 3**-0.5)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.deg2rad(TURN)
    turn = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    density = -np.log((planes.astype(np.float64) + 1) / 256)
    found = 256 * np.exp(-np.tensordot(turn, density, 1)) - 1
    return np.clip(np.round(found), 0, 255).astype(np.uint8)


GAMMAS = {"gamma 0.7": gamma(0.7), "gamma 1.4": gamma(1.4)}
STAINED = {"stains turned": turned}


def ways(channels: int) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """What is done to images (C, y, x) uint8 of so many channels."""
    return {**GAMMAS, **(STAINED if channels == 3 else {}), "blur": blurred}
