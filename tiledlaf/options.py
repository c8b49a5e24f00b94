"""What is asked for, checked and put together, for the command line and Python alike."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from . import dataterm, images, stencil
from .flow import Euler, Integrator, Krylov, Taylor, check_time
from .images import Image
from .job import Settings
from .kernels import on_device


def integrator(
    name: str = "taylor", tol: float = 1e-4, dim: int | None = None, steps: int | None = None
) -> Integrator:
    """Return an integrator by name, with the options that belong to it.

    Raises
    ------
    ValueError
        If the name is unknown or an option belongs to another integrator.
    """
    if name not in ("taylor", "krylov", "euler"):
        raise ValueError(f"integrator must be taylor, krylov or euler, got {name!r}")
    if steps is not None and name != "euler":
        raise ValueError(f"--steps belongs to the integrator euler, got {name}")
    if dim is not None and name != "krylov":
        raise ValueError(f"--dim belongs to the integrator krylov, got {name}")
    if name == "euler":
        return Euler(50 if steps is None else steps)
    return Krylov(10 if dim is None else dim, tol) if name == "krylov" else Taylor(tol)


def data_term(
    classes: int | None, prototypes: Any, probabilities: Image | None, seed: int
) -> dataterm.Pending:
    """Return the one data term that is asked for.

    Raises
    ------
    ValueError
        If it is not exactly one, or has fewer than two classes.
    """
    if sum(x is not None for x in (classes, prototypes, probabilities)) != 1:
        raise ValueError("expected exactly one of --classes, --prototypes and --probabilities")
    if classes is not None:
        return dataterm.Clusters(classes, seed)
    if prototypes is not None:
        rows = np.asarray(prototypes, np.float64)
        if rows.ndim != 2 or len(rows) < 2:
            raise ValueError(f"expected two or more prototypes as rows, got shape {rows.shape}")
        if not np.isfinite(rows).all() or len(np.unique(rows, axis=0)) < len(rows):
            raise ValueError("expected prototypes that are finite and different from each other")
        return dataterm.Prototypes(tuple(tuple(map(float, row)) for row in rows))
    assert probabilities is not None
    count = probabilities.stored_channels
    if count < 2 or probabilities.axes[0] != "c":
        raise ValueError(
            f"{probabilities.path}: expected probabilities of two or more classes, one a plane of "
            f"the first axis, got the shape {probabilities.shape}"
        )
    return dataterm.Probabilities(count)


def open_probabilities(source: Any, spatial_axes: str) -> Image:
    """Probabilities as an image whose first axis are the classes."""
    axes = "c" + spatial_axes
    if isinstance(source, str | os.PathLike):
        return images.open_image(source, axes=axes)
    return images.from_array(source, axes)


def make_settings(
    neighborhood: str | Sequence[Sequence[int]], ndim: int, rho: float, time: float,
    integrator: Integrator | None, device: str,
) -> Settings:  # fmt: skip
    """Check and collect what labels depend on besides the data."""
    offsets = (
        stencil.parse(neighborhood, ndim)
        if isinstance(neighborhood, str)
        else stencil.fit(neighborhood, ndim)
    )
    check_time(time)
    if not (rho > 0 and math.isfinite(rho)):
        raise ValueError(f"rho must be a positive number, got {rho}")
    on_device(device)
    return Settings(offsets, float(rho), float(time), integrator or Taylor(), device)
