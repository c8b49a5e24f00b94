"""Section 4.1: the images.

Two scenarios of 128 x 128 pixels, each with five images for training and five for validation, from
random Voronoi diagrams: thin lines between the cells (two labels, gray values with noise), and
cells in the eight corners of the color cube (eight labels, RGB with noise). The data term is the
squared distance to the label's own color, so that the nearest color is the best local decision.
Noise in the colors is Gaussian with the standard deviation at which that decision is wrong at half
of the pixels, 0.5 / q = 0.61 with q the normal quantile of 0.5^(1/3); in the lines it is 0.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree
from scipy.stats import norm
from support import experiment
from support.experiment import Claim, Outcome

CORNERS = np.array([[(c >> b) & 1 for b in range(3)] for c in range(8)], np.float32)
TRAINING, VALIDATION = range(5), range(100, 105)  # seeds
EDGE = 128
WIDTH = 0.75  # of half a line, measured towards both cells


def _nearest(
    shape: Sequence[int], cells: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distances to the nearest two seeds, and the nearest seed."""
    seeds = rng.random((cells, 2)) * shape
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    two, nearest = cKDTree(seeds).query(grid, k=2)
    return two[..., 0], two[..., 1], nearest[..., 0]


def lines(
    shape: Sequence[int] = (EDGE, EDGE),
    noise: float = 0.3,
    cells: int = 25,
    width: float = 1.5,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Noisy image (y, x) float32, 1 on the lines between cells, and its labels (1 on lines)."""
    rng = np.random.default_rng(seed)
    first, second, _ = _nearest(shape, cells, rng)
    labels = (second - first < 2 * width).astype(np.uint8)
    return (labels + noise * rng.standard_normal(shape)).astype(np.float32), labels


def colors(
    shape: Sequence[int] = (EDGE, EDGE),
    noise: float = 0.6,
    cells: int = 40,
    classes: int = 8,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Noisy image (3, y, x) float32 of cells in the corners of the color cube, and its labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=cells)[_nearest(shape, cells, rng)[2]].astype(np.uint8)
    image = np.moveaxis(CORNERS[labels], -1, 0)
    return (image + noise * rng.standard_normal(image.shape)).astype(np.float32), labels


@dataclass(frozen=True, eq=False)
class Picture:
    """An image of a scenario.

    Attributes
    ----------
    image, clean : (C, y, x) float32, with noise and without
    target : (y, x) uint8 labels 1..J
    distances : (J, y, x) float32, of the image to the prototypes
    prototypes : (J, C)
    """

    image: np.ndarray
    clean: np.ndarray
    target: np.ndarray
    distances: np.ndarray
    prototypes: np.ndarray

    def wrong(self, scores: np.ndarray) -> float:
        """Percentage of pixels whose largest score, (J, y, x), is not that of their label."""
        return float(100 * (scores.argmax(axis=0) + 1 != self.target).mean())

    @property
    def locally_wrong(self) -> float:
        """Percentage of pixels that the nearest prototype labels wrongly."""
        return self.wrong(-self.distances)

    def shown(self, labels: np.ndarray | None = None) -> np.ndarray:
        """The image, or labels 1..J in the colors of their prototypes, for display, (y, x, 3)."""
        planes = self.image if labels is None else np.moveaxis(self.prototypes[labels - 1], -1, 0)
        found: np.ndarray = np.clip(
            np.moveaxis(np.broadcast_to(planes, (3, *planes.shape[1:])), 0, -1), 0, 1
        )
        return found


@dataclass(frozen=True)
class Scenario:
    """A kind of images. `cells` are those of 128 x 128 pixels."""

    name: str
    noise: float
    cells: int

    @property
    def prototypes(self) -> np.ndarray:
        """Colors of the labels, (J, C)."""
        return CORNERS[[0, 1]][:, :1] if self.name == "lines" else CORNERS

    def picture(self, edge: int, seed: int, noise: float | None = None) -> Picture:
        """An image; the same cells with any noise."""
        make: Any = partial(lines, width=WIDTH) if self.name == "lines" else colors
        shape, cells = (edge, edge), max(5, round(self.cells * edge**2 / EDGE**2))
        level = self.noise if noise is None else noise
        image, labels = make(shape, level, cells, seed=seed)
        clean, _ = make(shape, 0.0, cells, seed=seed)
        image, clean = (x.reshape(-1, *shape) for x in (image, clean))
        square = (image[None] - self.prototypes[..., None, None]) ** 2
        return Picture(image, clean, labels + np.uint8(1), square.sum(axis=1), self.prototypes)

    def pictures(
        self, edge: int, seeds: Sequence[int], noise: float | None = None
    ) -> list[Picture]:
        """Images, a seed each."""
        return [self.picture(edge, seed, noise) for seed in seeds]


# three channels are right with probability 1/2 together
HALF = float(0.5 / norm.ppf(0.5 ** (1 / 3)))
LINES, CELLS = Scenario("lines", 0.3, 25), Scenario("cells", HALF, 40)
SCENARIOS = (LINES, CELLS)


@dataclass(frozen=True)
class Effort:
    """Edge of the images in pixels."""

    edge: int = EDGE


def run(effort: Effort, figure: Path) -> Outcome:
    """All twenty images."""
    rows, shown = [], {}
    for scenario in SCENARIOS:
        for part, seeds in (("training", TRAINING), ("validation", VALIDATION)):
            pictures = scenario.pictures(effort.edge, seeds)
            shown[scenario.name, part] = pictures
            for seed, picture in zip(seeds, pictures, strict=True):
                rows.append(
                    {
                        "scenario": scenario.name,
                        "part": part,
                        "seed": seed,
                        "edge": effort.edge,
                        "labels": len(picture.prototypes),
                        "present": len(np.unique(picture.target)),
                        "noise": round(scenario.noise, 4),
                        "locally wrong %": picture.locally_wrong,
                    }
                )
    draw(shown, figure)
    wrong = {
        s.name: [r["locally wrong %"] for r in rows if r["scenario"] == s.name] for s in SCENARIOS
    }
    low, high = min(wrong["cells"]), max(wrong["cells"])
    return Outcome(
        {"voronoi": rows},
        [
            Claim(
                "cells: pixels that are wrong locally",
                "about 50 %",
                f"{np.mean(wrong['cells']):.1f} % ({low:.1f} to {high:.1f})",
                bool(low > 45 and high < 55),
            ),
            Claim(
                "lines: pixels that are wrong locally", "", f"{np.mean(wrong['lines']):.1f} %", None
            ),
        ],
    )


def draw(shown: dict[tuple[str, str], list[Picture]], path: Path) -> None:
    """A row a scenario and part."""
    figure, axes = experiment.panels(4, 5, 1.75, 1.75)
    for line, ((name, part), pictures) in zip(axes, shown.items(), strict=True):
        for axis, picture in zip(line, pictures, strict=True):
            experiment.picture(axis, picture.shown())
        line[0].set_ylabel(f"{name}, {part}", fontsize=14)
    experiment.save(figure, path)


main = experiment.command("voronoi", __doc__, run, Effort(), Effort(64))

if __name__ == "__main__":
    main()
