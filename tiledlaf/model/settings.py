"""How labels are made from distances: the settings of the flow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..flow import stencil
from ..flow.linear import Integrator, Taylor, check_positive, check_time
from ..kernels.arrays import Offsets, check_device
from .features import Features
from .predictor import Predictor
from .terms import Pending

# rounding of float32 in Z, relative to T, which a certificate must exceed as well as the bound
ROUNDING = 4e-6


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
    """

    offsets: Offsets
    rho: float = 1.0
    time: float = 5.0
    integrator: Integrator = Taylor()
    device: str = "cpu"
    kernel: str | None = None
    predictor: Predictor | None = None
    bias: tuple[float, ...] = ()

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
        return None if bound is None else bound + ROUNDING * self.time


def margin(term: Pending, features: Features | None, ndim: int) -> tuple[int, ...]:
    """How far weights and distances look, one number per axis: only within planes."""
    reach = term.radius
    if features is not None:
        reach = max(reach, features.radius + reach * features.needs("odds"))
    return (0,) * (ndim - 2) + (reach,) * 2


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
    check_time(time)
    check_positive(rho=rho)
    check_device(device)
    return Settings(offsets, float(rho), float(time), integrator or Taylor(), device)
