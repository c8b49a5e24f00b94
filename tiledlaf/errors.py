"""Errors that callers can tell apart."""

from __future__ import annotations

from collections.abc import Sequence


class BadPixels(ValueError):
    """Pixels that cannot be labeled; `first` is one's place in the window that was given."""

    def __init__(self, text: str, first: Sequence[int]) -> None:
        super().__init__(text, first)
        self.text, self.first = text, tuple(map(int, first))

    def __str__(self) -> str:
        return f"{self.text}, pixel {self.first}"

    def moved(self, window: Sequence[slice]) -> BadPixels:
        """The same with the place in the image that the window is of."""
        return BadPixels(self.text, [p + w.start for p, w in zip(self.first, window, strict=True)])
