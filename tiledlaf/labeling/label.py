"""`label`: from images to labels, in memory, lazily or into a store."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..files import image as image_files
from ..files import images
from ..files.image import Image
from ..flow.linear import Integrator
from ..kernels.arrays import on_device, to_host
from ..model import sampling, terms
from ..model.model import Model
from ..model.settings import margin
from ..pool import lazy
from . import resources, sample
from . import run as labeling_run
from .choice import Choice, choose_labeling, open_probabilities
from .plan import check_model, make_plan
from .run import Progress
from .worker import Window, label_window


def label(
    image: Any,
    output: str | os.PathLike[str] | None = None,
    *,
    classes: int | None = None,
    prototypes: Any = None,
    probabilities: Any = None,
    model: Model | str | os.PathLike[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    neighborhood: str | Sequence[Sequence[int]] | None = None,
    rho: float | None = None,
    time: float | None = None,
    integrator: Integrator | None = None,
    mask: Any = None,
    region: Sequence[tuple[int, int]] | None = None,
    level: int = 0,
    channels: Sequence[int] | None = None,
    axes: str | None = None,
    confidence: bool = False,
    seed: int = 0,
    tile: int | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
    **options: Any,
) -> Any:
    """Label an image by a linearized assignment flow, tile by tile.

    Parameters
    ----------
    image : array, dask array or path
        2-D is (y, x); 3-D is (c, y, x) if the first axis is at most 4, (y, x, c) if the last is
        3 or 4; else say `axes`. Paths: OME-Zarr, Zarr, TIFF, PNG, JPEG, npy.
    output : path, optional
        An OME-Zarr to write. Without one, arrays are returned.
    classes : int, optional
        Number of prototypes to find by k-means. Give exactly one data term.
    prototypes : (J, C) array, optional
        In image units.
    probabilities : (J, *grid) array, dask array or path, optional
        Of any model: floats that sum to 1, or unsigned integers.
    model : Model or path, optional
        Of a training; gives data term, neighborhood, rho, time and integrator.
    weights : path, optional
        Weight patches of this image, from `estimate`; they give neighborhood, rho and time.
    neighborhood : str or offsets
        ``3x3`` by default, ``5x5``, ``3x3x3``, ``rings:3,7``, a file of offsets, or the offsets.
    rho, time : float
        Scale of the distances (1) and integration time T (5).
    integrator : optional
        Taylor(1e-4) by default, Krylov, Euler; LinearizedSequence; of the nonlinear flow
        GeometricEuler and RKMK4.
    mask : array or path, optional
        Pixels where it is 0 are not labeled.
    region : (start, stop) a spatial axis, optional
        Label this part only: the crop of the whole image's labels.
    confidence : bool
        Also return, or write, max_j W_j(T).
    tile, workers, scheduler, device
        How the work is cut and where it runs; the labels do not depend on it.
    progress : callable, optional
        Gets the record of each tile.
    **options
        For an output: name, names, copy_image, into_input, overwrite (see `make_plan`).

    Returns
    -------
    labels, or (labels, confidence), or Summary
        Labels are 1..J, 0 where masked. Dask arrays give lazy dask arrays, an `output` a Summary.

    Raises
    ------
    ValueError
        If the input cannot be labeled so; says what was expected and what came.
    """
    if any(map(lazy.is_dask, (image, probabilities, mask))):
        if output is not None or region is not None or options:
            raise ValueError(
                "dask arrays are labeled lazily, without output, region or its options"
            )
        return _lazy(
            image,
            probabilities,
            mask,
            axes,
            channels,
            seed,
            confidence,
            lambda bare, given: choose_labeling(
                bare,
                classes=classes,
                prototypes=prototypes,
                probabilities=given,
                model=model,
                weights=weights,
                neighborhood=neighborhood,
                rho=rho,
                time=time,
                integrator=integrator,
                device=device,
                seed=seed,
            ),
        )
    source = _open(image, level=level, axes=axes, channels=channels)
    given = None
    if probabilities is not None:
        given = open_probabilities(probabilities, source.spatial_axes)
    masked = None if mask is None else _open(mask, axes=source.spatial_axes)
    chosen = choose_labeling(
        source,
        classes=classes,
        prototypes=prototypes,
        probabilities=given,
        model=model,
        weights=weights,
        neighborhood=neighborhood,
        rho=rho,
        time=time,
        integrator=integrator,
        device=device,
        seed=seed,
    )
    if options.get("into_input"):
        if output is not None and os.fspath(output) != source.path:
            raise ValueError("expected either an output or into_input")
        output = source.path
    plan = make_plan(
        source,
        None if output is None else os.fspath(output),
        term=chosen.term,
        settings=chosen.settings,
        model=chosen.model,
        weights=chosen.weights,
        classes=chosen.classes,
        probabilities=given,
        mask=masked,
        region=region,
        tile=tile,
        confidence=confidence,
        seed=seed,
        **options,
    )
    with resources.open_pool(plan, workers, scheduler, None) as pool:
        resources.check_resources(plan, pool)
        plan = sample.settle(plan)
        if plan.out is not None:
            return labeling_run.run(plan, pool, progress)
        return labeling_run.run_in_memory(plan, pool, confidence, progress)


def _open(image: Any, **options: Any) -> Image:
    if isinstance(image, str | os.PathLike):
        return images.open_image(image, **options)
    options.pop("level", None)
    return images.from_array(image, **options)


def _lazy(
    image: Any,
    probabilities: Any,
    mask: Any,
    axes: str | None,
    channels: Sequence[int] | None,
    seed: int,
    confidence: bool,
    choose: Callable[[Image, Image | None], Choice],
) -> Any:
    """Lazy labels of dask arrays; k-means is a delayed task on a sample."""
    bare = images.describe(image, axes, channels)
    planes = image_files.channels_first(image, bare)
    given = None
    if probabilities is not None:
        given = images.describe(probabilities, "c" + bare.spatial_axes)
        if given.grid != bare.grid:
            raise ValueError(
                f"expected probabilities of the image's size {bare.grid}, got {given.grid}"
            )
    chosen = choose(bare, given)
    if chosen.weights is not None:
        raise ValueError("weights of an image are not for lazy arrays: label the image itself")
    if chosen.model is not None:
        check_model(chosen.model, bare, given)
    settings, features = chosen.settings, None
    term: Any = chosen.term
    if given is None and chosen.model is None:
        windows = sampling.sample_windows(bare.grid, seed)
        term = lazy.delayed(
            _settle_blocks,
            term,
            [planes[:, *w] for w in windows],
            None if mask is None else [mask[w] for w in windows],
        )
    if settings.predictor is not None:
        features = settings.predictor.features
    arrays = {"image": planes} if given is None or features is not None else {}
    if given is not None:
        arrays["probabilities"] = probabilities
    if mask is not None:
        if mask.shape != bare.grid:
            raise ValueError(f"expected a mask of the image's size {bare.grid}, got {mask.shape}")
        arrays["mask"] = mask[None]
    beyond = margin(chosen.term, features, len(bare.grid))
    halo = tuple(h + m for h, m in zip(settings.halo, beyond, strict=True))
    stack = lazy.map_windows(
        _lazy_block, list(arrays.values()), halo, (term, settings, list(arrays))
    )
    labels = stack[0].astype(np.min_scalar_type(chosen.term.classes))
    return (labels, stack[1]) if confidence else labels


def _settle_blocks(term: terms.Pending, blocks: Any, masks: Any) -> terms.DataTerm:
    return sampling.settle(term, lambda: sampling.pixels_of(blocks, masks))


def _lazy_block(*blocks: np.ndarray, extra: Any) -> np.ndarray:
    term, settings, names = extra
    given = dict(zip(names, blocks, strict=True))
    valid = given["mask"][0] != 0 if "mask" in given else None
    data = Window(given.get("image"), given.get("probabilities"), valid)
    whole = tuple(slice(0, n) for n in blocks[0].shape[1:])
    labels, confidence, _ = label_window(
        data.cut(whole, on_device(settings.device)), term, settings
    )
    return np.stack([to_host(labels).astype(np.float32), to_host(confidence)])
