"""Kernels of the linearized assignment flow in three siblings: numpy, numba, cupy.

Each sibling has the same functions with the same names and signatures. Arrays are planes,
label (or neighbor) first: ``weights (K, *grid)``, ``x (J, *grid)``; ``offsets`` is a tuple of K
integer tuples of `grid.ndim` entries each. A neighbor outside the grid has weight 0. The numpy
sibling also takes a `Graph` in place of offsets.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from .graph import Graph
from .numpy import Neighborhood, namespace

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
        raise ValueError(f"kernel must be one of {', '.join(KERNELS)}, got {name!r}")
    if on_gpu != (name == "cupy"):
        raise ValueError(f"kernel {name!r} does not work on {type(array).__module__} arrays")
    if graph and name != "numpy":
        raise ValueError(f"graphs need the kernel 'numpy' and NumPy arrays, got kernel {name!r}")
    return importlib.import_module(f"{__name__}.{name}")


def check_device(device: str) -> None:
    """Reject an unknown device; whether it is available is checked where it is used.

    Raises
    ------
    ValueError
        If it is neither "cpu" nor "cuda".
    """
    if device not in ("cpu", "cuda"):
        raise ValueError(f"device must be cpu or cuda, got {device!r}")


def on_device(device: str) -> Callable[[np.ndarray], Any]:
    """Return the function that moves a NumPy array to "cpu" or "cuda".

    Raises
    ------
    ValueError
        If the device is unknown, or cuda is requested but not available.
    """
    check_device(device)
    if device == "cpu":
        return lambda array: array
    try:
        cupy = importlib.import_module("cupy")
    except ImportError:
        raise ValueError(
            "device cuda needs CuPy, which is not installed: pip install 'tiledlaf[cuda13]' "
            "(or cuda12)"
        ) from None
    if not cupy.cuda.is_available():
        raise ValueError("device cuda: CuPy finds no usable GPU here")
    move: Callable[[np.ndarray], Any] = cupy.asarray
    return move


def to_host(array: Any) -> np.ndarray:
    """Return a NumPy array, copied from the device if it is on one."""
    return np.asarray(array if isinstance(array, np.ndarray) else array.get())
