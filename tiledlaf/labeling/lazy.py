"""Lazy labels of dask arrays."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import image as image_files
from ..files import images, numbers
from ..files.image import Image
from ..files.selection import Selection
from ..kernels.arrays import on_device, to_host
from ..model import sampling
from ..model.model import Model
from ..model.settings import margin
from ..model.term import DataTerm, Pending
from ..pool import lazy
from ..pool.lazy import is_dask
from .choice import Choice
from .plan import check_model
from .sample import pixels_of
from .worker import Window, label_window


def plain(given: Any, name: str) -> Any:
    """A dask array of numbers of a type that any worker knows; others as `numbers.plain` does.

    Raises
    ------
    ValueError
        If its size or its pixels are not known to be numbers without a mask.
    """
    if given is None:
        return None
    if isinstance(given, str | os.PathLike):
        raise InputError(f"{name}: expected an array beside dask arrays, got the path {given}")
    if not is_dask(given):
        return numbers.plain(given, name)
    array = type(given).__module__.startswith("dask.array")
    if not array or any(n != n for n in given.shape):
        got = f"the shape {given.shape}" if array else type(given).__name__
        raise InputError(f"{name}: expected a dask array of a known size, got {got}")
    if type(given._meta) is not np.ndarray:
        kind = type(given._meta).__name__
        hint = ": give their data, and `mask` for what is valid" * (kind == "MaskedArray")
        raise InputError(f"{name}: expected a dask array of NumPy arrays, got one of {kind}{hint}")
    found = numbers.native(given.dtype, name)
    named = given.dtype.isbuiltin != 2 and given.dtype.itemsize <= 8
    return given if named else given.astype(found)


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
    if chosen.weights is not None:
        raise InputError("`weights` cannot label dask arrays: label the image file itself")
    if chosen.model is not None:
        check_model(chosen.model, bare, given)
        _check_type(chosen.model, bare)
    if mask is not None and mask.shape != bare.grid:
        raise InputError(f"expected a mask of the image's size {bare.grid}, got {mask.shape}")
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
        arrays["mask"] = mask[None]
    beyond = margin(chosen.term, features, len(bare.grid))
    halo = tuple(h + m for h, m in zip(settings.halo, beyond, strict=True))
    stack = lazy.map_windows(
        _lazy_block, list(arrays.values()), halo, (term, settings, list(arrays), bare, confidence)
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


def _settle_blocks(term: Pending, image: Image, blocks: Any, masks: Any) -> DataTerm:
    seen = [image_files.scaled(image, _native(block, image.path)) for block in blocks]
    return term.settle(lambda: pixels_of(image, seen, masks))


def _native(block: Any, name: str) -> np.ndarray:
    """A block as files are read; dask may hold others than it says."""
    numbers.refuse_masked(block, name)
    return np.asarray(block, numbers.native(block.dtype, name))


def _lazy_block(*blocks: np.ndarray, extra: Any) -> np.ndarray:
    term, settings, names, image, wanted = extra
    native = (_native(block, name) for name, block in zip(names, blocks, strict=True))
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
    if wanted:
        confidence = settings.confidence(confidence)
    return np.stack([to_host(labels).astype(np.float32), to_host(confidence)])
