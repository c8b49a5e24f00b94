"""The picture that a run ends with: image, labels, legend and scale bar."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import TiledlafWarning
from ..files import fingerprints, images, ngff
from ..files.image import Image
from ..files.selection import pixel_size
from . import beside
from .areas import Area
from .output import Output
from .plan import Plan

if TYPE_CHECKING:
    import PIL.Image


def finish(plan: Plan, out: Output, areas: Sequence[Area], failed: int) -> str | None:
    """Draw the overview of labels that are written, unless it is there; its path.

    No run fails by its overview: what is in the way is said in a warning. Tiles that failed are
    drawn as not labeled, and counted in the title.
    """
    if not plan.overview:
        return None
    of = _content(plan, out, areas, failed)
    try:
        held = beside.held(out)
        if held == of:
            return beside.path(out)
        if held == "" or beside.is_one_of(out, plan.paths):
            beside.refuse(out)
            return None
        picture = _drawn(plan, out, areas, failed)
    except Exception as error:  # such as libraries' on pixels of any kind; the labels are there
        _failed(out, error)
        return None
    out.check_mine()
    try:
        found = beside.put(out, picture, of)
    except OSError as error:
        _failed(out, error)
        return None
    try:
        out.check_mine()
    except (OSError, ValueError):  # begun anew since, where no locks tell it
        beside.remove(out)
        raise
    return found


def _failed(out: Output, error: Exception) -> None:
    text = f"{beside.path(out)}: the overview was not drawn, {type(error).__name__}: {error}"
    warnings.warn(text, TiledlafWarning, stacklevel=4)


def _content(plan: Plan, out: Output, areas: Sequence[Area], failed: int) -> str:
    """What changes with the labels, or with what is said of them."""
    return fingerprints.fingerprint(
        {
            "settings": plan.settings,
            "start": [out.stamp, out.begun or ""],
            "areas": [[a.name, a.pixels] for a in areas],
            "failed": failed,
        }
    )


def _drawn(plan: Plan, out: Output, areas: Sequence[Area], failed: int) -> PIL.Image.Image:
    from . import sheet

    job = plan.job
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TiledlafWarning)  # said when the run began
        image, region = _pictured(plan, out)
        labels = images.open_labels(f"{out.store}/{out.group}", series=True)
        title = os.path.basename(out.store.rstrip("/")) or out.store
        return sheet.draw(
            sheet.Scene(
                title if out.name == "tiledlaf" else f"{title}, {out.name}",
                labels,
                areas,
                ngff.label_colors(out.store, out.group),
                pixel_size(job.image),
                image,
                region,
                failed,
            )
        )


def _pictured(plan: Plan, out: Output) -> tuple[Image, tuple[Sequence[int], Sequence[int]] | None]:
    """The image to show: its copy, which has smaller levels, or the input; and which part of it."""
    job = plan.job
    if job.picture is None:
        return job.image, (job.grid.origin, job.grid.size)
    every = "all" if "t" in job.image.grid_axes else None
    copy = images.open_image(out.store, time_point=every)
    return dataclasses.replace(copy, channels=job.image.channels or copy.channels), None
