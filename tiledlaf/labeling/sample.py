"""The sample of an image's pixels, from which prototypes and their scale are found."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from .. import errors
from ..errors import InputError
from ..files import image as image_files
from ..files.image import Image, read_pixels, say
from ..model import sampling
from ..model.accepted import normalized
from ..model.intensity import far, matched, span
from ..model.model import Images
from ..model.network import network_of
from ..pool.tasks import retried
from ..tiles import Box, Grid
from .plan import Plan

WINDOWS = 64  # blocks of pixels that the windows of channels are found from
FAR = 10  # how many times the range of all others a value must be away to look like no data


def settle(plan: Plan) -> Plan:
    """Find prototypes and scale, or use those that the store holds."""
    made = plan.job.probabilities is not None and plan.job.term.probabilities_of(plan.job.image)
    if plan.images is not None and (plan.job.needs_image or made):
        plan = _with_gain(plan, plan.images)
    plan = _with_windows(plan)
    term = plan.job.term
    found = term.resume(plan.held) if plan.held else None
    if found is None:
        if term.takes_probabilities:
            _check_sample(plan)
        found = term.settle(lambda: draw(plan))
    return dataclasses.replace(plan, job=dataclasses.replace(plan.job, term=found))


def _with_windows(plan: Plan) -> Plan:
    """Give channels of more than 8 bits a window of intensities, without which viewers are dark."""
    image, picture = plan.job.image, plan.job.picture
    silent = picture and any(channel.window is None for channel in picture.shown)
    bright = image.color or image.dtype in ("bool", "uint8")
    if picture is None or not silent or bright or plan.held:
        return plan
    windows = sampling.sample_windows(image.grid, 0)[:WINDOWS]
    stored = dataclasses.replace(image, channels=None, gain=None)
    blocks = [b.reshape(len(b), -1) for w in windows for _, (b,) in readable([stored], w)]
    if not blocks:
        return plan
    pixels, shown = np.concatenate(blocks, axis=1), []
    for channel, values in zip(picture.shown, pixels, strict=True):
        limits = span(values)
        if channel.window is None and limits is not None:
            channel = dataclasses.replace(channel, window=(*limits, *limits))
        shown.append(channel)
    picture = dataclasses.replace(picture, shown=tuple(shown))
    return dataclasses.replace(plan, job=dataclasses.replace(plan.job, picture=picture))


def _with_gain(plan: Plan, learned: Images) -> Plan:
    """Bring the image's intensities to those that a model learned from."""
    given, pixels = plan.job.image, np.zeros((0, 1))
    if learned.quantiles or (given.gain is None and learned.range is not None):
        try:
            pixels = _drawn(plan, seed=0)
        except InputError:  # tiles tell what is wrong with all of the pixels
            return plan
    image = matched(given, learned, pixels)
    if image.gain != given.gain:
        pixels = image_files.scaled(image, pixels)
    what = far(learned, pixels)
    if what is not None:
        say(
            f"{image.path}: far from all that the model learned from: {what}. Labels and their "
            "confidence may be worse (what was not learned, such as background, `mask` leaves out)"
        )
    probabilities = plan.job.term.probabilities_of(image) or plan.job.probabilities
    job = dataclasses.replace(plan.job, image=image, probabilities=probabilities)
    return dataclasses.replace(plan, job=job)


def _check_sample(plan: Plan) -> None:
    """Refuse values that are not probabilities, before anything is written."""
    source = plan.job.probabilities
    assert source is not None
    if network_of(source) is not None:  # a network's are, or their tiles say so
        return
    sources = [source] if plan.job.mask is None else [source, plan.job.mask]
    for window in sampling.sample_windows(source.grid, plan.seed):
        for part, (block, *mask) in readable(sources, window):
            if np.isfinite(block).all():  # its tile reports NaN
                try:
                    normalized(block, mask[0][0] != 0 if mask else None)
                except errors.BadPixels as error:
                    raise InputError(f"{source.path}: {error.moved(part)}") from None
                except ValueError as error:
                    raise InputError(f"{source.path}: {error}") from None


def readable(sources: Sequence[Image], window: Box) -> Iterator[tuple[Box, list[np.ndarray]]]:
    """Yield a window with its pixels in the images, or those parts of it that can be decoded.

    What cannot be decoded is left out of the sample, as NaN is: its tile reports it. When the store
    fails, however, the error is raised, since a sample drawn later would give other labels.
    """
    try:
        blocks = [retried(read_pixels, source, window)[0] for source in sources]
    except ValueError:
        start = tuple(w.start for w in window)
        shape = tuple(w.stop - w.start for w in window)
        edges = (1,) * (len(shape) - 2) + (sampling.BLOCK,) * 2
        parts = Grid(tuple(w.stop for w in window), start, shape, edges, (0,) * len(shape))
        for part in parts if len(parts) > 1 else ():
            yield from readable(sources, part.window)
    else:
        yield window, blocks


def draw(plan: Plan) -> np.ndarray:
    """Draw pixels for k-means and the scale, (n, C), from all of the image but masked pixels."""
    return _drawn(plan, plan.seed)


def _drawn(plan: Plan, seed: int) -> np.ndarray:
    image, mask = plan.job.image, plan.job.mask
    windows = sampling.sample_windows(image.grid, seed)
    if plan.tissue is not None and mask is not None and len(windows) > 1:
        windows = _in_tissue(image, mask, seed)
    sources = [image] if mask is None else [image, mask]
    blocks = [b for window in windows for _, b in readable(sources, window)]
    if not blocks:
        for source in sources:
            try:
                source.read(windows[0])
            except Exception as error:
                raise InputError(f"{source.path}: pixels cannot be read, {error}") from None
    masks = None if mask is None else [b[1][0] for b in blocks]
    return pixels_of(image, [b[0] for b in blocks], masks)


def _in_tissue(image: Image, mask: Image, seed: int) -> list[Box]:
    """As many windows as in an image without a mask, each with some tissue, where that is found."""
    found: list[Box] = []
    for attempt in range(100):
        drawn = sampling.sample_windows(image.grid, seed + attempt)
        found += [window for window in drawn if mask.read(window).any()]
        if len(found) >= len(drawn):
            break
    return found[: len(drawn)] or drawn


def pixels_of(
    image: Image, blocks: Sequence[np.ndarray], masks: Sequence[np.ndarray] | None
) -> np.ndarray:
    """A sample (n, C) from blocks of the image, without masked pixels and those without data."""
    if image.no_data is not None:
        if masks is None:
            masks = [np.ones(block.shape[1:], bool) for block in blocks]
        found = [image_files.valid_of(image, block) for block in blocks]
        masks = [
            mask if valid is None else (mask != 0) & valid
            for mask, valid in zip(masks, found, strict=True)
        ]
    sample = sampling.pixels_of(blocks, masks)
    _warn_of_no_data(image, sample)
    return sample


def _warn_of_no_data(image: Image, sample: np.ndarray) -> None:
    """Say so if many pixels have one value that is far from all others."""
    for value in (sample.min(), sample.max()):
        same = (sample == value).all(axis=1)
        rest = sample[~same].astype(np.float64)
        if not len(rest) or same.mean() < 0.01:
            continue
        low, high = rest.min(), rest.max()
        if 0 < FAR * (high - low) < max(low - value, value - high):
            say(
                f"{image.path}: {100 * same.mean():.0f} % of the sampled pixels are {value:g}, all "
                f"others {low:g} to {high:g}: if it stands for no data, leave them out by "
                f"`no_data` {value:g}"
            )
