"""Arrays of NumPy or CuPy: their types, and how they get to a device and back."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

from ..errors import InputError
from .graph import Graph


def on_host(device: str) -> bool:
    """Whether a device is the CPU."""
    return device == "cpu"


def check_device(device: str) -> None:
    """Refuse an unknown device; whether it is available is checked where it is used.

    Raises
    ------
    ValueError
        If it is neither "cpu" nor "cuda".
    """
    if device not in ("cpu", "cuda"):
        raise InputError(f"device must be cpu or cuda, got {device!r}")


def on_device(device: str) -> Callable[[np.ndarray], Any]:
    """Return the function that moves a NumPy array to "cpu" or "cuda".

    Raises
    ------
    ValueError
        If the device is unknown, or cuda is requested but not available.
    """
    check_device(device)
    if on_host(device):
        return lambda array: array
    try:
        cupy = importlib.import_module("cupy")
    except ImportError:
        raise InputError(
            "device cuda needs CuPy, which is not installed: pip install 'tiledlaf[cuda13]' "
            "(or cuda12)"
        ) from None
    if not cupy.cuda.is_available():
        raise InputError("device cuda: CuPy finds no usable GPU here")
    move: Callable[[np.ndarray], Any] = cupy.asarray
    return move


@contextmanager
def borrowing(device: int, stream: int) -> Iterator[Callable[[Any], Any]]:
    """Compute in a CUDA stream of another library, on its arrays, which DLPack gives as they are.

    Parameters
    ----------
    device, stream : int
        The number of the device, and its cudaStream_t.

    Raises
    ------
    ValueError
        If CuPy is missing or finds no GPU.
    """
    on_device("cuda")
    cupy = importlib.import_module("cupy")
    with cupy.cuda.Device(device), cupy.cuda.ExternalStream(stream, device):
        yield cupy.from_dlpack


def to_host(array: Any) -> np.ndarray:
    """Return a NumPy array, copied from the device if it is on one."""
    return np.asarray(array if isinstance(array, np.ndarray) else array.get())


Array = Any  # numpy.ndarray here, cupy.ndarray in the sibling
Offsets = tuple[tuple[int, ...], ...]
Neighborhood = Offsets | Graph


def namespace(array: Any) -> ModuleType:
    """Return numpy or cupy, whichever an array belongs to."""
    return np if isinstance(array, np.ndarray) else importlib.import_module("cupy")
