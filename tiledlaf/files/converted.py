"""Outputs of other programs as class probabilities, computed window by window where they are read.

What they are is told by the user: three planes may be flows and a logit, or three classes.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import expit

from ..errors import InputError
from . import image as image_files
from .channels import Channel
from .derived import Derived
from .image import Image, State

AT_ONCE = 2**20  # pixels to convert at once: it takes some 70 bytes for each
# of cellpose: flows are about 5 long within cells, and of far shorter ones the direction is noise;
# how many pixels away flows are compared, so that a border is wide enough to be left by smoothing;
# no pixel is certain not to be a border, or one of many would outweigh all that are
SHORT, REACH, LEAST = 0.5, 3, 0.02


class Kind(NamedTuple):
    """What stored planes may be, other than class probabilities.

    Attributes
    ----------
    classes : names of the classes
    check : refuses images that are something else
    convert : makes probabilities (J, *window) of pixels (C, *window) that have `margin` more on
        each side, along all axes but t; whether there is an axis t
    margin : pixels along each spatial axis that a probability depends on
    plane : whether there is one plane, which needs no axis of its own
    """

    classes: tuple[str, ...]
    check: Callable[[Image], None]
    convert: Callable[[np.ndarray, bool], np.ndarray]
    margin: int = 0
    plane: bool = False


@dataclass(frozen=True)
class Converted(Derived):
    """Class probabilities of the pixels of another reader.

    Attributes
    ----------
    kind : what these are, a key of `KINDS`
    axes, shape, fixed : those of the source
    """

    kind: str
    axes: str
    shape: tuple[int, ...]
    fixed: tuple[tuple[str, int], ...]

    name = "converted"

    def read(self, array: object, box: tuple[slice | int, ...]) -> np.ndarray:
        """Probabilities of a box along the axes c and those of the grid."""
        kind, grid = KINDS[self.kind], image_files.grid_axes(self.axes, self.fixed)
        sizes = [self.shape[self.axes.index(axis)] for axis in grid]
        slices = [one for one in box[1:] if isinstance(one, slice)]
        spans = [range(n)[one] for n, one in zip(sizes, slices, strict=True)]
        halves = _halves(spans)
        if halves is not None:
            place, parts = halves
            return np.concatenate([self.read(array, (box[0], *part)) for part in parts], place + 1)
        inner: dict[str, slice | int] = dict(self.fixed)
        lacking = [(0, 0)]
        for axis, span, n in zip(grid, spans, sizes, strict=True):
            more = 0 if axis == "t" else kind.margin
            low, high = span.start - more, span.stop + more
            inner[axis] = slice(max(low, 0), min(high, n))
            lacking.append((max(-low, 0), max(high - n, 0)))
        block = self.source.read(array, tuple(inner.get(a, slice(None)) for a in self.axes))
        kept = [a for a in self.axes if a not in dict(self.fixed)]
        if "c" not in kept:
            kept, block = ["c", *kept], block[None]
        block = block.transpose([kept.index(a) for a in "c" + grid])
        # beyond the image nothing flows
        block = np.pad(block, lacking) if np.any(lacking) else block
        return kind.convert(block, "t" in grid)[box[0]]

    def state(self, path: str, name: str) -> State:
        """Of the stored pixels, and what they are: labels depend on it."""
        return [*self.source.state(path, name), (self.kind, 0, 0)]


def _halves(spans: Sequence[range]) -> tuple[int, list[list[slice]]] | None:
    """A window cut along its longest axis, and that axis; None if it is small."""
    axis = max(range(len(spans)), key=lambda i: len(spans[i]))
    if math.prod(map(len, spans)) <= AT_ONCE or len(spans[axis]) < 2:
        return None
    start, stop = spans[axis].start, spans[axis].stop
    middle, window = (start + stop) // 2, [slice(s.start, s.stop) for s in spans]
    parts = (slice(start, middle), slice(middle, stop))
    return axis, [[*window[:axis], part, *window[axis + 1 :]] for part in parts]


def converted(image: Image, kind: str | None) -> Image:
    """Class probabilities of what an image holds.

    Parameters
    ----------
    kind : a key of `KINDS`; None if it holds class probabilities

    Raises
    ------
    ValueError
        If there is no such kind, or the image is something else.
    """
    if kind is None:
        return image
    if kind not in KINDS:
        raise InputError(f"expected `probabilities_of` {' or '.join(KINDS)}, got {kind!r}")
    KINDS[kind].check(image)
    classes = KINDS[kind].classes
    return dataclasses.replace(
        image,
        reader=Converted(image.reader, kind, image.axes, image.shape, image.fixed),
        axes="c" + image.grid_axes,
        shape=(len(classes), *image.grid),
        dtype="float32",
        fixed=(),
        shown=tuple(Channel(name) for name in classes),
        color=False,
    )


def is_plane(kind: str | None) -> bool:
    """Whether what is given is one plane."""
    return kind in KINDS and KINDS[kind].plane


def _check_foreground(image: Image) -> None:
    if image.stored_channels != 1 or np.dtype(image.dtype).kind not in "uf":
        raise InputError(
            f"{image.path}: expected the probability of one class, floats or unsigned integers, "
            f"got {image.dtype} of the shape {image.shape}"
        )


def foreground(pixels: np.ndarray, series: bool = False) -> np.ndarray:
    """Probabilities 1 - p and p, (2, *window) float32, of one plane p (1, *window).

    Unsigned integers are divided by the largest one of their type.
    """
    p = pixels.astype(np.float32)
    if pixels.dtype.kind == "u":
        p /= np.float32(np.iinfo(pixels.dtype).max)
    return np.concatenate([1 - p, p])


def _check_cellpose(image: Image) -> None:
    count, axes = image.stored_channels, image.spatial_axes
    if count not in {3, len(axes) + 1} or np.dtype(image.dtype).kind != "f":
        also = ", or four with dZ before them," * (len(axes) == 3)
        raise InputError(
            f"{image.path}: expected floats in the three planes dY, dX and cell probability"
            f"{also} as cellpose gives them, got {image.dtype} of the shape {image.shape}"
        )


def cellpose(pixels: np.ndarray, series: bool = False) -> np.ndarray:
    """Probabilities of cell, border and background, (3, *window) float32.

    Flows lead to the middle of their cell, and so away from where it touches another one. With
    u = f / sqrt(|f|² + 1/4) for the flow f, and pixels p and q that lie up to 3 before and behind a
    pixel along an axis, the flows part there by

        a = max (|u(p)| |u(q)| - u(p) u(q)) / 2

    over the p, q and axes along which u(q) exceeds u(p): 1 for opposite directions, 0 for the same,
    and where one side has no flow. With s = sigmoid(logit) and b = max(a, (1 - s) / 2), clipped to
    .02 and .98, the probabilities are s (1 - b), s b and 1 - s.

    Parameters
    ----------
    pixels : (3 or 4, *window), 3 pixels larger on each side; flows (dZ,) dY, dX, and the logit of
        being within a cell
    series : whether the first axis of the window is that of time
    """
    flows = pixels[:-1].astype(np.float32)
    unit = flows / np.sqrt((flows**2).sum(axis=0) + np.float32(SHORT**2))
    length = np.sqrt((unit**2).sum(axis=0))
    whole = [0] * (pixels.ndim - 1)

    def moved(planes: np.ndarray, steps: Sequence[int]) -> np.ndarray:
        """Planes (..., *window) without margins, seen from so many pixels on."""
        sizes = planes.shape[planes.ndim - len(steps) :]
        cut = [slice(REACH + step, n - REACH + step) for step, n in zip(steps, sizes, strict=True)]
        if series:
            cut[0] = slice(None)
        return np.asarray(planes[(Ellipsis, *cut)])  # type: ignore[arg-type]

    # a flow that is NaN makes its pixel so
    within = expit(moved(pixels[-1].astype(np.float32), whole)) + 0 * moved(length, whole)
    # in the background neither cell nor border is likelier
    border = (1 - within) / 2
    for number, axis in enumerate(range(len(whole) - len(flows), len(whole))):
        for one, other in itertools.product(range(1, REACH + 1), repeat=2):
            back, on = list(whole), list(whole)
            back[axis], on[axis] = -one, other
            p, q = moved(unit, back), moved(unit, on)
            apart = (moved(length, back) * moved(length, on) - (p * q).sum(axis=0)) / 2
            border = np.maximum(border, np.where(q[number] > p[number], apart, 0))
    border = np.clip(border, LEAST, 1 - LEAST)
    return np.stack([within * (1 - border), within * border, 1 - within])


KINDS = {
    "foreground": Kind(("background", "foreground"), _check_foreground, foreground, plane=True),
    "cellpose": Kind(("cell", "border", "background"), _check_cellpose, cellpose, margin=REACH),
}
