"""Errors that callers can tell apart. All are ValueErrors; each message is one line.

Messages have keywords in backticks, such as `classes`; the command shows them as its options.
"""

from __future__ import annotations

from collections.abc import Sequence


class TiledlafError(ValueError):
    """Something that this program refuses; says what was expected and what it got."""


class InputError(TiledlafError):
    """An input, an option or a combination of them that cannot be used."""


class OutputBelongsElsewhere(TiledlafError):
    """An output that belongs to another image, run or program."""


class NotEnoughMemory(TiledlafError):
    """A run that would not fit into a worker's memory."""


class DamagedFile(TiledlafError):
    """A file that is not whole, or not what it should be."""


class BadPixels(InputError):
    """Pixels that cannot be labeled; `first` is the position of the first one in its window.

    `hint` says what the user can do about them.
    """

    def __init__(self, text: str, first: Sequence[int], hint: str = "") -> None:
        super().__init__(text, first, hint)
        self.text, self.first, self.hint = text, tuple(map(int, first)), hint

    def __str__(self) -> str:
        return f"{self.text}, pixel {self.first}" + (f" ({self.hint})" if self.hint else "")

    def moved(self, window: Sequence[slice]) -> BadPixels:
        """Return the same error with the position in the image that the window was cut from."""
        place = [p + w.start for p, w in zip(self.first, window, strict=True)]
        return BadPixels(self.text, place, self.hint)
