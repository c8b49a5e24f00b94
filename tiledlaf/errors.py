"""Errors that callers can tell apart. All are ValueErrors; each message is one line.

A message names keywords in backticks, such as `classes`; the command shows them as its options.
"""

from __future__ import annotations

from collections.abc import Sequence


class TiledlafError(ValueError):
    """What this program refuses, with what was expected and what came."""


class InputError(TiledlafError):
    """An input, an option or a combination of them that cannot be used."""


class OutputBelongsElsewhere(TiledlafError):
    """An output that belongs to another image, run or program."""


class NotEnoughMemory(TiledlafError):
    """A run that would not fit into a worker's memory."""


class DamagedFile(TiledlafError):
    """A file that is not whole, or not what it should be."""


class BadPixels(InputError):
    """Pixels that cannot be labeled; `first` is one's place in the window that was given."""

    def __init__(self, text: str, first: Sequence[int]) -> None:
        super().__init__(text, first)
        self.text, self.first = text, tuple(map(int, first))

    def __str__(self) -> str:
        return f"{self.text}, pixel {self.first}"

    def moved(self, window: Sequence[slice]) -> BadPixels:
        """The same with the place in the image that the window is of."""
        return BadPixels(self.text, [p + w.start for p, w in zip(self.first, window, strict=True)])
