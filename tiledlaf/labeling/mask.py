"""The mask of a run: found if tissue is asked for, and written beside the labels."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ..files import fingerprints, levels, ngff, nodes, stores
from ..files import image as image_files
from ..files.formats.zarr import Zarr
from ..files.image import Image
from ..files.levels import Pyramid
from ..files.resampled import Resampled, nearest
from ..model.classes import color
from ..pool.tasks import Pool
from ..tiles import Grid
from . import tissue
from .output import Output
from .plan import Plan
from .worker import Job


def settle(plan: Plan, pool: Pool) -> Plan:
    """Find the mask, or take the one that the store holds, if tissue is asked for."""
    job, out = plan.job, plan.out
    mask: Any = job.mask
    if not tissue.is_pending(mask):
        return plan
    held = None if out is None or plan.held is None else ngff.read_notes(out.store, out.tissue)
    if out is not None and held and held.get("fingerprint") == _fingerprint(plan):
        found = np.asarray(nodes.open_array(out.store, f"{out.tissue}/0")[:]) != 0
        notes, mask = held["tissue"], _stored(job.image, out, found.shape)
    else:
        found, notes = tissue.find(mask.reader.low, pool)
        reader = Resampled(image_files.MEMORY, found.shape, job.image.grid, nearest=True)
        mask = dataclasses.replace(mask, reader=reader, data=found)
    here = {**notes, "here": _share(found, job.grid), "pixels": list(found.shape)}
    return dataclasses.replace(plan, job=dataclasses.replace(job, mask=mask), tissue=here)


def _share(mask: np.ndarray, grid: Grid) -> float:
    """Share of tissue in the part of the image that is labeled."""
    share = mask.astype(np.float64)
    for n, m, origin, size in zip(mask.shape, grid.image, grid.origin, grid.size, strict=True):
        index = nearest(np.arange(origin, origin + size), n, m)
        weights = np.bincount(index, minlength=n) / size
        share = np.tensordot(weights, share, axes=(0, 0))
    return float(share)


def _fingerprint(plan: Plan) -> str:
    """Of all that the mask depends on."""
    known = {"mask": plan.settings["mask"], **plan.image_print}
    known |= {key: plan.settings.get(key) for key in ("channels", "no_data")}
    known.pop("region")
    return fingerprints.fingerprint(known)


def write(plan: Plan, out: Output) -> Job:
    """Write a mask that was found beside the labels, and have it read from there."""
    job = plan.job
    if job.mask is None or plan.tissue is None or job.mask.reader.stored:
        return job
    found, image, group = job.mask.data, job.image, out.tissue
    print_, held = _fingerprint(plan), ngff.read_notes(out.store, group)
    if held is not None and held.get("fingerprint") != print_:
        stores.at(out.store).remove(group)
    steps = [n / m for n, m in zip(image.grid, found.shape, strict=True)]
    pyramid = Pyramid(
        group,
        image.grid_axes,
        0,
        (found.shape,),
        (1,) * (found.ndim - 2) + (levels.CHUNK,) * 2,
        tuple(s * f for s, f in zip(image.scale, steps, strict=True)),
        tuple(
            t + (f - 1) / 2 * s
            for t, f, s in zip(image.translation, steps, image.scale, strict=True)
        ),
        image.units,
        "uint8",
    )
    pyramid.create(out.store, out.version, out.zarr_format)
    zero = (0,) * found.ndim
    for tile in Grid(found.shape, zero, found.shape, pyramid.tile, zero):
        block = found[tile.core].astype(np.uint8)
        levels.write(out.store, pyramid, tile.core, block, levels.nearest)
    entry = {key: plan.tissue[key] for key in ("threshold", "side", "share")}
    # "ready" and its settings, so that no run takes it for labels of its own that were interrupted
    notes = {"tissue": entry, "settings": {"mask": plan.settings["mask"]}, "ready": True}
    ngff.add_label(
        out.store,
        pyramid,
        out.version,
        out.zarr_format,
        {0: (0, 0, 0, 0), 1: color(1)},
        {0: "background", 1: "tissue"},
        {},
        {**notes, "fingerprint": print_},
    )
    return dataclasses.replace(job, mask=_stored(image, out, found.shape))


def _stored(image: Image, out: Output, shape: tuple[int, ...]) -> Image:
    """The mask of an image in a store, where it has fewer pixels."""
    reader = Resampled(Zarr(), shape, image.grid, nearest=True)
    return tissue.mask_at(image, stores.absolute(out.store), reader, f"{out.tissue}/0")
