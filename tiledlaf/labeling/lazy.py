"""Lazy labels of dask arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import InputError
from ..files import image as image_files
from ..files import images
from ..files.image import Image
from ..files.selection import Selection
from ..kernels.arrays import on_device, to_host
from ..model import sampling, terms
from ..model.model import Model
from ..model.settings import margin
from ..pool import lazy
from .choice import Choice
from .plan import check_model
from .sample import pixels_of
from .worker import Window, label_window


def opened(image: Any, probabilities: Any, chosen: Selection) -> tuple[Image, Any]:
    """Describe the image and the probabilities of dask arrays, without their pixels."""
    bare = images.valued(images.describe(image, **images.of_array(chosen)), chosen)
    if "t" in bare.grid_axes:
        raise InputError("expected one `time_point` of a dask array, got all: label one at a time")
    if probabilities is None:
        return bare, None
    given = images.describe(probabilities, "c" + bare.spatial_axes)
    if given.grid != bare.grid:
        raise InputError(
            f"expected probabilities of the image's size {bare.grid}, got {given.grid}"
        )
    return bare, given


def label(
    image: Any,
    bare: Image,
    probabilities: Any,
    given: Image | None,
    mask: Any,
    chosen: Choice,
    seed: int,
    confidence: bool,
) -> Any:
    """Lazy labels of dask arrays; k-means is a delayed task on a sample.

    Parameters
    ----------
    image, probabilities, mask : dask arrays or None
    bare, given : image and probabilities, described without their pixels
    """
    planes = image_files.channels_first(image, bare)
    if planes.dtype == np.float16:
        planes = planes.astype(np.float32)  # as files are read
    if chosen.weights is not None:
        raise InputError("`weights` cannot label dask arrays: label the image file itself")
    if chosen.model is not None:
        check_model(chosen.model, bare, given)
        _check_type(chosen.model, bare)
    settings, features = chosen.settings, None
    term: Any = chosen.term
    if given is None and chosen.model is None:
        windows = sampling.sample_windows(bare.grid, seed)
        term = lazy.delayed(
            _settle_blocks,
            term,
            bare,
            [planes[:, *w] for w in windows],
            None if mask is None else [mask[w] for w in windows],
        )
    if settings.predictor is not None:
        features = settings.predictor.features
    needed = given is None or features is not None or bare.no_data is not None
    arrays = {"image": planes} if needed else {}
    if given is not None:
        arrays["probabilities"] = probabilities
    if mask is not None:
        if mask.shape != bare.grid:
            raise InputError(f"expected a mask of the image's size {bare.grid}, got {mask.shape}")
        arrays["mask"] = mask[None]
    beyond = margin(chosen.term, features, len(bare.grid))
    halo = tuple(h + m for h, m in zip(settings.halo, beyond, strict=True))
    stack = lazy.map_windows(
        _lazy_block, list(arrays.values()), halo, (term, settings, list(arrays), bare)
    )
    labels = stack[0].astype(np.min_scalar_type(chosen.term.classes))
    return (labels, stack[1]) if confidence else labels


def _check_type(model: Model, bare: Image) -> None:
    """Refuse pixels of another type than the model's, whose range is not known before reading."""
    learned = model.images.dtype
    if learned and learned != bare.dtype and bare.gain is None:
        raise InputError(
            f"the model learned from {learned} pixels, and this dask array has {bare.dtype} ones: "
            "state by `intensity_scale` what to multiply them by (1 takes them as they are)"
        )


def _settle_blocks(term: terms.Pending, image: Image, blocks: Any, masks: Any) -> terms.DataTerm:
    seen = [
        image_files.scaled(image, block.astype(_native(block.dtype), copy=False))
        for block in blocks
    ]
    return term.settle(lambda: pixels_of(image, seen, masks))


def _native(dtype: np.dtype) -> np.dtype:
    """A type that the kernels compute with: in the machine's byte order, and no float16."""
    return np.dtype(np.float32) if dtype == np.float16 else dtype.newbyteorder("=")


def _lazy_block(*blocks: np.ndarray, extra: Any) -> np.ndarray:
    term, settings, names, image = extra
    native = (block.astype(_native(block.dtype), copy=False) for block in blocks)
    given = dict(zip(names, native, strict=True))
    valid = given["mask"][0] != 0 if "mask" in given else None
    if image.no_data is not None:
        valid = image_files.both(valid, image_files.valid_of(image, given["image"]))
    pixels = given.get("image")
    pixels = None if pixels is None else image_files.scaled(image, pixels)
    data = Window(pixels, given.get("probabilities"), valid)
    whole = tuple(slice(0, n) for n in blocks[0].shape[1:])
    labels, confidence, _ = label_window(
        data.cut(whole, on_device(settings.device)), term, settings
    )
    return np.stack([to_host(labels).astype(np.float32), to_host(confidence)])
