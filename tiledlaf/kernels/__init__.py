"""Kernels of the linearized assignment flow in three siblings: numpy, numba, cupy.

Each sibling has the same functions with the same names and signatures. Arrays are planes,
label (or neighbor) first: ``weights (K, *grid)``, ``x (J, *grid)``; ``offsets`` is a tuple of K
integer tuples of `grid.ndim` entries each. A neighbor outside the grid has weight 0. The numpy
sibling also takes a `Graph` in place of offsets.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from ..errors import InputError
from .arrays import Neighborhood, check_device, namespace, on_device, to_host
from .graph import Graph

__all__ = [
    "KERNELS",
    "Graph",
    "Neighborhood",
    "check_device",
    "namespace",
    "on_device",
    "select",
    "to_host",
]
KERNELS = ("numpy", "numba", "cupy")


def select(
    array: Any, kernel: str | None = None, neighborhood: Neighborhood | None = None
) -> ModuleType:
    """Return the kernel module for an array: cupy for CuPy arrays, numpy for graphs, else numba.

    Parameters
    ----------
    array : numpy or cupy array
        Selects the sibling if `kernel` is None.
    kernel : {"numpy", "numba", "cupy"}, optional
        A sibling by name, without fallback to another one.
    neighborhood : offsets or Graph, optional

    Raises
    ------
    ValueError
        If `kernel` is unknown or cannot work on this type of array.
    """
    on_gpu = type(array).__module__.split(".")[0] == "cupy"
    graph = isinstance(neighborhood, Graph)
    name = kernel or ("cupy" if on_gpu else "numpy" if graph else "numba")
    if name not in KERNELS:
        raise InputError(f"kernel must be one of {', '.join(KERNELS)}, got {name!r}")
    if on_gpu != (name == "cupy"):
        raise InputError(f"kernel {name!r} does not work on {type(array).__module__} arrays")
    if graph and name != "numpy":
        raise InputError(f"graphs need the kernel 'numpy' and NumPy arrays, got kernel {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
