"""Exports that a run asks for: looked at before it begins, written once its labels are complete."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import InputError
from ..files import images, stores
from ..labeling.plan import Plan
from ..pool.opening import Running
from . import pictures, targets
from .export import FORMATS, export, format_of
from .exporting import Choice
from .result import Result


def check(plan: Plan, path: str) -> None:
    """Refuse a file that cannot hold the labels of a run, before anything is computed.

    Raises
    ------
    ValueError
        Says what was expected.
    """
    classes, shape = plan.job.term.classes, plan.job.grid.size
    try:
        form = format_of(path)
    except ValueError:
        every = sorted({s for one in FORMATS.values() for s in one.suffixes})
        raise InputError(
            f"`export` expects a file ending {', '.join(every[:-1])} or {every[-1]}, got {path}"
        ) from None
    if not stores.is_url(path) and (not Path(path).parent.is_dir() or Path(path).is_dir()):
        what = "a folder" if Path(path).is_dir() else "no such folder"
        raise InputError(f"`export` {path}: expected a file in a folder that exists, got {what}")
    targets.check(path, overwrite=True)
    if plan.out is not None:
        targets.check_outside(path, plan.out.store)
    if _is_plain(path):
        pictures.check_export(shape, classes)
        return
    planes = dict(zip(plan.job.image.grid_axes[:-2], shape, strict=False))
    if "z" in form.options and max(planes.values(), default=1) > 1:
        raise InputError(
            f"`export` {path}: {form.name} holds one plane, got {planes}; `tiledlaf export` writes "
            "one once the labels are there"
        )
    nothing = np.broadcast_to(np.zeros((), np.min_scalar_type(classes)), shape)
    image = images.describe(
        nothing, plan.job.image.grid_axes, time_point="all" if "t" in planes else None
    )
    form.check(Result("", "", image, plan.names, {}, {}), Choice())


def write(plan: Plan, path: str, running: Running) -> None:
    """Write the labels of a run that is complete; a file that is there is replaced."""
    assert plan.out is not None
    if _is_plain(path):
        pictures.export(plan.out.store, plan.out.group, path, plan.job.term.classes)
    else:
        export(plan.out.store, path, name=plan.out.name, overwrite=True, running=running)


def _is_plain(path: str) -> bool:
    """Whether it is a picture of nothing but label values, with their colors as palette."""
    return Path(path).suffix.lower() == ".png"
