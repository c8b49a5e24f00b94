"""Types of pixels: which are numbers that can be computed with, and as what they are read."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import InputError


def native(given: Any, name: str = "array") -> np.dtype:
    """The type that pixels of a type are read as, in the machine's byte order.

    The kernels compute neither with float16 nor with types of other packages, such as bfloat16,
    which become float32, nor with floats longer than float64, which become that.

    Raises
    ------
    ValueError
        If it is no type of real numbers.
    """
    dtype = np.dtype(given)
    foreign = dtype.isbuiltin == 2  # registered by another package
    if foreign or (dtype.kind == "f" and dtype.itemsize == 2):
        return np.dtype(np.float32)
    if dtype.kind not in "biuf":
        raise InputError(f"{name}: expected numbers as pixels, got the type {dtype}")
    if dtype.kind == "f" and dtype.itemsize > 8:
        return np.dtype(np.float64)
    return dtype.newbyteorder("=")


def plain(given: Any, name: str = "array") -> np.ndarray:
    """An array that the user gives, of a type that any process knows.

    Raises
    ------
    ValueError
        If it is masked, ragged or not of numbers.
    """
    refuse_masked(given, name)
    try:
        array = np.asarray(given)
    except ValueError as error:
        raise InputError(f"{name}: expected an array of numbers, {error}") from None
    found = native(array.dtype, name)
    named = array.dtype.isbuiltin != 2 and array.dtype.itemsize <= 8
    return array if named else array.astype(found)


def refuse_masked(given: Any, name: str = "array") -> None:
    """Refuse an array some of whose pixels are masked.

    Raises
    ------
    ValueError
        With what to give instead.
    """
    if isinstance(given, np.ma.MaskedArray) and np.ma.is_masked(given):
        count = int(np.ma.getmaskarray(given).sum())
        raise InputError(
            f"{name}: expected an array without a mask, got {count} masked "
            "pixels: give its data, and `mask` for what is valid"
        )
