"""A part of an image as a model sees it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import image as image_files
from ..files import images
from ..files.image import Image
from ..files.selection import Selection
from ..flow import losses
from ..flow.gradient import Polynomials
from ..kernels.arrays import Array, Offsets, to_host
from ..labeling.request import prepare
from ..model import accepted
from ..model.model import Model
from ..model.predictor import Predictor
from ..pool.opening import Running
from ..tiles import Grid, Tile
from ..training import examples
from ..training import worker as training_worker
from ..training.examples import Example
from ..training.worker import FlowSettings, LabeledTile, TileData, TileReader

EDGE = 512  # of the part of an image that is shown unless a region is given
MOST = 2048  # largest edge of a region
SEEN = 15  # radius of the mean image around the pixels of an anchor
DRAWN = 256  # pixels of an anchor that this mean is taken over
SOME = 1000  # pixels in which features are exchanged
BAND = 2**25  # anchor shares held in memory at once


@dataclass(frozen=True)
class Weights:
    """What predicted weight patches look like, pixel by pixel.

    Attributes
    ----------
    entropy : (y, x)
        Entropy of Omega_i relative to that of uniform weights: 0 one neighbor, 1 all alike.
    mean : (2, y, x)
        Mean offset (y, x) relative to the radius: 0 balanced, 1 all on the farthest neighbor.
    axis : (2, y, x)
        The mean of unit offsets with doubled angles: its angle is twice that of the line along
        which the weights lie, its length 0..1 tells how strictly they do.
    """

    entropy: np.ndarray
    mean: np.ndarray
    axis: np.ndarray


@dataclass(frozen=True)
class Usage:
    """How anchors are used.

    Attributes
    ----------
    share : (N,) mean share a_j over the pixels
    looks : (N, C, 2 r + 1, 2 r + 1) mean image around the pixels where an anchor's share is largest
    """

    share: np.ndarray
    looks: np.ndarray


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
    """How anchors are used at valid pixels (y, x) of features (F, y, x), image (C, y, x)."""
    height, width = features.shape[1:]
    count = len(predictor.anchors)
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
        chosen = training_worker.drawn(np.flatnonzero(winner == j), DRAWN, (seed, j))
        if len(chosen):
            y, x = np.divmod(chosen, width)
            looks[j] = around[:, y, x].mean(axis=1)
    return Usage(total / max(valid.sum(), 1), looks)


def open_example(
    image: Any,
    truth: Any,
    probabilities: Any,
    mask: Any,
    selection: Selection = Selection(),
    **meant: Any,
) -> Example:
    """An image with its truth and other inputs; without a truth no pixel is labeled.

    **meant says how `pair` understands labels.
    """
    if truth is None:  # all zeros, without using memory
        image = images.as_image(image, selection)
        truth = np.broadcast_to(np.uint8(0), image.grid)
    found = examples.pair(image, truth, probabilities, mask, selection=selection, **meant)
    if len(found) != 1:
        raise InputError(f"expected one IMAGE, got {len(found)}")
    return found[0]


def _part(grid: Sequence[int], region: Sequence[tuple[int, int]] | None) -> list[tuple[int, int]]:
    """Start and stop of the shown part along each axis; of a volume, one section."""
    spans = list(region) if region is not None else [(0, n) for n in grid]
    if region is not None and any(b - a > MOST for a, b in spans[-2:]):
        raise InputError(f"expected a region of at most {MOST} pixels per edge, got {spans}")
    edges = [1] * (len(spans) - 2) + [EDGE if region is None else MOST] * 2
    starts = [a + max(0, b - a - edge) // 2 for (a, b), edge in zip(spans, edges, strict=True)]
    return [
        (start, min(start + edge, b))
        for start, edge, (_, b) in zip(starts, edges, spans, strict=True)
    ]


def _tile(grid: Sequence[int], spans: Sequence[tuple[int, int]], halo: tuple[int, ...]) -> Tile:
    """The shown part as a tile of its own."""
    origin, size = tuple(a for a, _ in spans), tuple(b - a for a, b in spans)
    return Grid(tuple(grid), origin, size, size, halo).tile_at((0,) * len(size))


def _about(image: Image, spans: Sequence[tuple[int, int]]) -> str:
    """Which part of an image is shown."""
    whole = all(b - a == n for (a, b), n in zip(spans, image.grid, strict=True))
    axes = zip(image.spatial_axes, spans, strict=True)
    part = ", ".join(f"{axis} {a}:{b}" for axis, (a, b) in axes)
    return f"{'all' if whole else 'a part'} of {Path(image.path).name}, {part}"


@dataclass(frozen=True)
class View:
    """A part of an image as a model sees it; arrays without a halo.

    Attributes
    ----------
    about : which part it is, as text
    image, z : (C, y, x), (J, y, x); z with the model's biases
    valid, full : (y, x) bool
        Whether a pixel is not masked out; whether all its neighbors are valid too.
    weights : Weights
    pattern : (K,) mean weight of each neighbor, over pixels all of whose neighbors are valid
    used : Usage
    rows : (n, F) features of some pixels
    flow, data, omega : what a gradient needs, with a halo
    core : cuts the part without the halo out of those
    """

    about: str
    image: np.ndarray
    z: np.ndarray
    valid: np.ndarray
    full: np.ndarray
    weights: Weights
    pattern: np.ndarray
    used: Usage
    rows: np.ndarray
    flow: FlowSettings
    data: TileData
    omega: Array
    core: Callable[[Array], np.ndarray]


def look(
    found: Model,
    predictor: Predictor,
    example: Example,
    region: Sequence[tuple[int, int]] | None,
    device: str,
) -> View:
    """Compute what a model does on a part of an image."""
    source = example.image
    example, classes = examples.as_learned(example, found.classes)
    plan = prepare(  # refuses what does not fit
        source,
        model=found,
        probabilities=example.probabilities,
        mask=example.mask,
        region=region,
        running=Running(device=device),
    )
    offsets = plan.job.settings.offsets
    settings = (found.rho, found.time, Polynomials(found.tol), losses.Cosine(), device)
    flow = FlowSettings(classes, offsets, *settings)
    spans = _part(source.grid, region)
    tile = _tile(source.grid, spans, flow.halo)
    seen = dataclasses.replace(example, probabilities=plan.job.probabilities)  # made or given
    reader = TileReader(flow, (seen,), (found.term,), predictor.features)
    data = training_worker.read(reader, LabeledTile(0, tile))
    uniform, features = data.uniform(offsets, device), data.features(predictor, found.rho)
    omega = predictor.weights(features, uniform)
    # a volume's only section
    flat: tuple[Any, ...] = (*[0] * (len(spans) - 2), slice(None), slice(None))

    def core(planes: Array) -> np.ndarray:
        return np.ascontiguousarray(to_host(planes)[:, *tile.inner][:, *flat])

    there = core(uniform) > 0
    valid: np.ndarray = np.any(there, axis=0)
    image = image_files.read(source, tuple(slice(a, b) for a, b in spans))[:, *flat]
    image = accepted.usable(image, valid, "image")
    bias = np.array(found.bias, np.float32)[:, None, None]
    about = _about(source, spans)
    if not valid.any():
        raise InputError(f"expected pixels in {about}, got only masked ones: `region` chooses")
    full: np.ndarray = np.all(there, axis=0)
    weights, features = core(omega), core(features)
    inside = full if full.any() else valid
    pattern = np.array([plane[inside].mean(dtype=np.float64) for plane in weights])
    chosen = training_worker.drawn(np.flatnonzero(valid), SOME, (0,))
    return View(
        about,
        image,
        core(training_worker.linearize(flow, data, omega).z) + bias,
        valid,
        full,
        describe(weights, offsets),
        pattern,
        usage(predictor, features, image, valid),
        features.reshape(len(features), -1)[:, chosen].T.astype(np.float64),
        flow,
        data,
        omega,
        core,
    )
