"""What a data term is: distances from pixels to labels (2.15), of whatever kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import numpy as np

from ..errors import InputError
from ..kernels.arrays import Array

if TYPE_CHECKING:  # which loads zarr
    from ..files.image import Image

Sample = Callable[[], np.ndarray]  # draws pixels of the image, (n, C)


class Pending(Protocol):
    """A data term that may still need a sample of the pixels of the image.

    Attributes
    ----------
    takes_probabilities : whether it is computed from given probabilities instead of the image
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    takes_probabilities: ClassVar[bool] = False

    if TYPE_CHECKING:  # some have it as a field, which a property here would hide

        @property
        def classes(self) -> int:
            """Number of labels J."""
            ...

    @property
    def radius(self) -> int:
        """Pixels that a distance looks beyond its own, along y and x."""
        return 0

    def settle(self, sample: Sample) -> DataTerm:
        """The data term, completed from a sample of pixels."""
        ...

    def resume(self, notes: Mapping[str, Any]) -> DataTerm | None:
        """What an earlier run settled, from the `notes` of its output; None: settle again."""
        return None

    def check(self, channels: int) -> None:
        """Refuse images with this number of channels, if the term does not accept it.

        Raises
        ------
        ValueError
            With the expected number of channels.
        """
        return None

    def bytes_per_pixel(self) -> int:
        """Memory per pixel of a window, besides its input and its distances."""
        return 0

    def planes(self, channels: int) -> int:
        """Number of planes of what it takes in place of an image with so many channels."""
        return self.classes

    def probabilities_of(self, image: Image) -> Image | None:
        """Probabilities that the term takes, made of the image; None: they must be given."""
        return None


class DataTerm(Pending, Protocol):
    """Distances of pixels to labels: a small frozen dataclass, sent to workers.

    A kind must define `classes`, `potential`, `to_parts` and `from_parts`; the rest have defaults.

    Attributes
    ----------
    kind : its name in `TERMS` and in model files
    slow_to_fit : whether a training saves it as soon as it is fitted
    """

    kind: ClassVar[str]
    slow_to_fit: ClassVar[bool] = False

    @property
    def double(self) -> bool:
        """Whether float32 cannot hold its distances, as after a large constant was added."""
        return False

    def potential(self, pixels: Array, valid: Array, rho: float) -> Array:
        """-D / rho, (J, *grid) float32; 0 at masked-out pixels.

        Parameters
        ----------
        pixels : (C, *grid)
            The image, or the probabilities if the term takes them.
        valid : (*grid) bool or None
            False where masked out.
        rho : float
            Scale of the distances.
        """
        ...

    def distances(self, pixels: Array, valid: Array) -> Array:
        """D up to a constant of each pixel, (J, *grid) float64, for settings beyond float32."""
        return -self.potential(pixels, valid, 1.0).astype(np.float64)

    def settle(self, sample: Sample) -> DataTerm:
        """The term itself: it needs no sample."""
        return self

    def notes(self) -> dict[str, Any]:
        """What an output stores of the term as JSON, for `resume`."""
        return {}

    def to_parts(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """The term as JSON and as arrays, for model files; `kind` is added."""
        ...

    def located(self, path: str, prefix: str) -> Self:
        """The term, which is told of the file that has its arrays, and of their prefix there."""
        return self

    @classmethod
    def from_parts(cls, entry: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        """The term that `to_parts` wrote, checked.

        Raises
        ------
        ValueError
            If the parts do not belong to such a term.
        """
        ...

    @classmethod
    def from_text(cls, text: str) -> DataTerm:
        """The term requested as ``NAME:TEXT``.

        Raises
        ------
        ValueError
            If it cannot be requested by name.
        """
        raise InputError(f"the data term {cls.kind} needs more than its name: give `{cls.kind}`")

    def describe(self) -> list[Any]:
        """The term as JSON, for notes on what was made with it; `kind` comes first."""
        return [self.kind, self.to_parts()[0]]

    @classmethod
    def recall(
        cls, described: list[Any], prototypes: Any = None, probabilities: int | None = None
    ) -> DataTerm:
        """The term that `describe` wrote; what the user gives as well must agree with it.

        Parameters
        ----------
        prototypes : rows that the user gives, or None
        probabilities : number of classes of probabilities that the user gives, or None
        """
        if prototypes is not None or probabilities is not None:
            raise InputError(f"`weights` were estimated with the data term {cls.kind}: drop others")
        return cls.from_parts(described[1], {})
