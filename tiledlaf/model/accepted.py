"""Pixels and probabilities that data terms can compute with; others are refused, with where."""

from __future__ import annotations

import numpy as np

from ..errors import BadPixels, InputError
from ..kernels.arrays import Array, namespace
from . import sampling


def check_finite(pixels: Array, valid: Array, name: str, largest: float = sampling.LARGEST) -> None:
    """Refuse NaN, inf and values whose squares overflow, at pixels that are not masked out."""
    if pixels.dtype.kind != "f" and pixels.dtype.itemsize < 8:
        return
    # NaN is in no range
    if -largest <= float(pixels.min()) and float(pixels.max()) <= largest:
        return
    finite = namespace(pixels).isfinite(pixels)
    for bad, expected, got, hint in (
        (~finite, "finite values", "NaN or inf", "leave them out by `mask` or `no_data` nan"),
        (
            finite & ~((pixels >= -largest) & (pixels <= largest)),
            f"values of at most {largest:.2g} in size",
            "larger ones",
            "leave them out by `mask`, or by `no_data` {} if that stands for no data",
        ),
    ):
        if valid is not None:
            bad &= valid
        if bool(bad.any()):
            channel, *place = (int(axis[0]) for axis in bad.nonzero())
            raise BadPixels(
                f"{name}: expected {expected}, got {int(bad.sum())} {got}, the first at "
                f"channel {channel}",
                place,
                hint.format(pixels[channel, *place].item()) if name == "image" else "",
            )


def usable(pixels: Array, valid: Array, name: str) -> Array:
    """Pixels for filters: what `check_finite` allows where masked out is replaced by 0."""
    check_finite(pixels, valid, name)
    if valid is None or pixels.dtype.kind != "f":
        return pixels
    return namespace(pixels).where(abs(pixels) <= sampling.LARGEST, pixels, pixels.dtype.type(0))


def normalized(p: Array, valid: Array = None) -> Array:
    """Probabilities as float32: integers divided by their sum, floats checked to sum to 1.

    Raises
    ------
    ValueError
        If floats do not sum to 1 within 1e-3 over the labels, or a value is negative, or all
        integers of a pixel are 0.
    """
    if p.dtype.kind == "f":
        p = p.astype(np.float32)
        total = p.sum(axis=0)
        wrong = (abs(total - 1) > 1e-3) | (p.min(axis=0) < -1e-3)
        expected = "to be 0 or more and sum to 1 within 1e-3 over the classes"
    elif p.dtype.kind == "u":
        p = p.astype(np.float32)
        total = p.sum(axis=0)
        wrong = total == 0
        p /= np.maximum(total, np.float32(1))
        expected = "of unsigned integers to have a positive sum over the classes"
    else:
        raise InputError(f"expected probabilities of type float or unsigned integer, got {p.dtype}")
    if valid is not None:
        wrong &= valid
    if bool(wrong.any()):
        place = [int(axis[0]) for axis in wrong.nonzero()]
        values = ", ".join(f"{float(v):.4g}" for v in p[:8, *place]) + ", ..." * (len(p) > 8)
        least, most = float(p[:, *place].min()), float(p[:, *place].max())
        hint = ": logits need a softmax first" * (least < -1e-3 or most > 1 + 1e-3)
        raise BadPixels(
            f"expected probabilities {expected}, got the sum {float(total[*place]):.6g} ({values})"
            f"{hint}",
            place,
        )
    return p
