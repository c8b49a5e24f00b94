"""How labels are made from distances: the settings of the flow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError, as_number
from ..flow import stencil
from ..flow.linear import (
    CONTRACTION,
    HIGHEST,
    Integrator,
    Taylor,
    check_growth,
    check_positive,
    check_rho,
)
from ..kernels.arrays import Array, Offsets, check_device
from . import calibration as calibrations
from .calibration import Calibration
from .features import Features
from .predictor import Predictor
from .term import Pending

# rounding of float32 in Z, relative to T, which a certificate must exceed as well as the bound;
# and relative to the largest Z of that T, in units in the last place
ROUNDING, LAST = 4e-6, 2
# Labels are computed in float32 within these limits, and beyond them in float64: with log |Z| up to
# CALM, what S drops below 1e-20 of its largest entry cannot grow to be seen; and with these rho,
# D / rho neither drowns ties of quantized pixels in rounding, nor itself in that of S.
CALM, RHO_SINGLE = 45.0, (1e-2, 1e3)
BRIEF = 1e-20  # T below which S - 1/J, times T, comes near the smallest numbers of float32
RHO_LEARNED = (1e-6, 1e6)  # of what is learned, which is always computed in float32


@dataclass(frozen=True)
class Settings:
    """How labels are made from distances.

    Attributes
    ----------
    offsets : neighborhood
    rho, time : float
    integrator : as for `flow.solve`, except those that need the whole image
    device : "cpu" or "cuda"
    kernel : name of a kernel; None: the default of the device
    predictor : predicts the weights; None: uniform weights
    bias : J numbers added to log W0 + Z before argmax; () for none
    double : whether T or rho asks for float64; of a model only if Z may overflow in float32
    calibration : of the confidence; None: it is the share of the winning class
    min_confidence : pixels of a lower confidence are not labeled; None: all are
    """

    offsets: Offsets
    rho: float = 1.0
    time: float = 5.0
    integrator: Integrator = Taylor()
    device: str = "cpu"
    kernel: str | None = None
    predictor: Predictor | None = None
    bias: tuple[float, ...] = ()
    double: bool = False
    calibration: Calibration | None = None
    min_confidence: float | None = None

    @property
    def halo(self) -> tuple[int, ...]:
        """Width of the halo that the labels of a tile's core depend on, one number per axis."""
        reach = self.integrator.reach(self.time)
        return tuple(reach * r for r in stencil.radius(self.offsets))

    @property
    def channels(self) -> int:
        """Number of estimated weights per pixel, over all flows of a sequence."""
        return max(self.integrator.layers, 1) * len(self.offsets)

    @property
    def bound(self) -> float | None:
        """Gap between two values of log W0 + Z above which a label is proven; None: never."""
        bound = self.integrator.bound(self.time)
        if bound is None:
            return None
        eps = float(np.finfo(np.float64 if self.wide else np.float32).eps)
        largest = math.expm1(CONTRACTION * self.time) / CONTRACTION
        return bound + max(ROUNDING * self.time, LAST * eps * largest)

    @property
    def least(self) -> np.float32 | None:
        """Share of the winning class below which a pixel is not labeled; None: all are."""
        if self.min_confidence is None:
            return None
        return calibrations.least(self.calibration, self.min_confidence)

    def confidence(self, shares: Array) -> Array:
        """Confidence of pixels whose winning classes have these shares; 0 where masked out."""
        return shares if self.calibration is None else self.calibration.apply(shares)

    @property
    def wide(self) -> bool:
        """Whether Z is computed in float64, whatever the data term needs."""
        return self.double or self.integrator.growth(self.time) > HIGHEST["float32"]


def margin(term: Pending, features: Features | None, ndim: int) -> tuple[int, ...]:
    """How far weights and distances look, one number per axis: only within planes."""
    reach = term.radius
    if features is not None:
        reach = max(reach, features.radius + reach * features.needs("odds"))
    return (0,) * (ndim - 2) + (reach,) * 2


def check_learnable(rho: float) -> None:
    """Refuse a scale of the distances that float32 does not suffice for.

    Raises
    ------
    ValueError
        With the limits.
    """
    check_positive(rho=rho)
    low, high = RHO_LEARNED
    if not low <= rho <= high:
        raise InputError(f"rho must be {low:g} to {high:g} to learn, got {rho:g}")


def check_confidence(least: float | None) -> float | None:
    """The least confidence of a label as a number.

    Raises
    ------
    ValueError
        If it is none above 0 and up to 1.
    """
    if least is None:
        return None
    found = as_number("min_confidence", least)
    if not 0 < found <= 1:
        raise InputError(f"expected a `min_confidence` above 0 and up to 1, got {found:g}")
    return found


def make_settings(
    neighborhood: str | Sequence[Sequence[int]],
    ndim: int,
    rho: float,
    time: float,
    integrator: Integrator | None,
    device: str,
) -> Settings:
    """Check and collect all that labels depend on besides the data."""
    offsets = stencil.choose(neighborhood, ndim)
    check_rho(rho)
    check_device(device)
    integrator = integrator or Taylor()
    check_growth(integrator, time, np.float64)
    low, high = RHO_SINGLE
    double = not low <= rho <= high or integrator.growth(time) > CALM or time < BRIEF
    return Settings(offsets, float(rho), float(time), integrator, device, double=double)
