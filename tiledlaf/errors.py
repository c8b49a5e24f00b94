"""Errors that callers can tell apart. All are ValueErrors; each message is one line.

Messages have keywords in backticks, such as `classes`; the command shows them as its options.
"""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from .redaction import shown

LONGEST = 200  # characters of what a library says of a file
MESSAGE, END = 3000, 500  # characters of a message, of which the last say what to do


def cut(text: str) -> str:
    """A message without the middle of what is too long to be read."""
    return text if len(text) <= MESSAGE else f"{text[: MESSAGE - END]} ... {text[-END:]}"


class Shown(Exception):
    """Its texts have no secrets of URLs and no control characters, whoever wrote them."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*(cut(shown(a)) if isinstance(a, str) else a for a in arguments))


class TiledlafError(Shown, ValueError):
    """Something that this program refuses; says what was expected and what it got."""


class TiledlafWarning(Shown, UserWarning):
    """Something that the user should know of the files or the results."""


class Outage(Shown):
    """Something out of reach for now: the same call may succeed later."""


class Unavailable(Outage, TiledlafError):
    """A scheduler or workers that did not come or answer in time."""


class InputError(TiledlafError):
    """An input, an option or a combination of them that cannot be used."""


class OutputBelongsElsewhere(TiledlafError):
    """An output that belongs to another image, run or program."""


class InputChanged(TiledlafError):
    """An input that changed during a run, so that what was made of it is not to be trusted."""


class NotEnoughMemory(TiledlafError):
    """A run that would not fit into a worker's memory."""


class DamagedFile(TiledlafError):
    """A file that is not whole, or not what it should be."""


class NewerFormat(InputError):
    """A file of a later release, in a format that this one does not know."""


class OlderFormat(InputError):
    """A file of an earlier release, which this one cannot go on with."""


def as_number(name: str, value: Any) -> float:
    """A parameter as a number, which may be infinite or NaN.

    Raises
    ------
    InputError
        If it is none, such as a text, or is too large for one.
    """
    with understood(name, value, "a number"):
        if isinstance(value, str | bytes):
            raise TypeError
        return float(value)


@contextmanager
def understood(name: str, value: Any, what: str) -> Iterator[None]:
    """Refuse a parameter that is of none of the kinds it may have, where its use shows it.

    Parameters
    ----------
    name, value : of the parameter
    what : what is expected, for the message
    """
    try:
        yield
    except TiledlafError:
        raise
    except (TypeError, AttributeError, ValueError, OverflowError):
        raise InputError(f"expected {what} for `{name}`, got {_shown(value)}") from None


def as_whole(name: str, value: Any) -> int:
    """A parameter as an int, whatever type of number it is of, such as those of NumPy.

    Raises
    ------
    InputError
        If it is no whole number.
    """
    with understood(name, value, "a whole number"):
        if isinstance(value, bool | str | bytes) or float(value) % 1 != 0:  # NaN of infinite ones
            raise TypeError
        return int(value)


def as_seed(value: Any) -> int:
    """A seed as an int.

    Raises
    ------
    InputError
        If it is none that random numbers can start from.
    """
    seed = as_whole("seed", value)
    if not 0 <= seed < 2**32:
        raise InputError(f"expected a seed of 0 to {2**32 - 1}, got {_shown(value)}")
    return seed


def settle_numbers(given: Any) -> None:
    """Make the fields of a frozen dataclass that are annotated as int or float such numbers.

    They may be given as numbers of other types, which JSON, `range` and others do not take.

    Raises
    ------
    InputError
        If one is no number, or no whole one.
    """
    for field in dataclasses.fields(given):
        value, kind = getattr(given, field.name), str(field.type)
        if value is None and kind.endswith(" | None"):
            continue
        kind = kind.removesuffix(" | None")
        if kind == "int" and type(value) is not int:
            object.__setattr__(given, field.name, as_whole(field.name, value))
        elif kind == "float" and type(value) not in (int, float):
            whole = isinstance(value, numbers.Integral)  # exact, also beyond 2^53
            number = int(value) if whole else as_number(field.name, value)
            object.__setattr__(given, field.name, number)


def at_least(least: int, **values: int) -> None:
    """Refuse parameters that are less."""
    for name, value in values.items():
        if value < least:
            raise InputError(f"`{name}` must be {least} or more, got {_shown(value)}")


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # a number of thousands of digits
        return "one too long to show"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


@contextmanager
def readable(what: str) -> Iterator[None]:
    """Say of a damaged file, which may make its reader raise anything, that it cannot be read.

    Errors of this program, which say more, and those of the file system pass as they are.

    Parameters
    ----------
    what : the file, as the message calls it

    Raises
    ------
    DamagedFile
        Names the file, and what its reader said.

    Examples
    --------
    >>> from tiledlaf.errors import readable
    >>> with readable("a.tif"):
    ...     {}["pixels"]
    Traceback (most recent call last):
    tiledlaf.errors.DamagedFile: a.tif cannot be read, KeyError: 'pixels'
    """
    try:
        yield
    except (TiledlafError, Warning):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DamagedFile(f"{what} cannot be read, {in_a_line(error)}") from error


def in_a_line(error: BaseException) -> str:
    """The type of an error, and the first line of its text."""
    text = (str(error) or "no text").splitlines()[0]
    return f"{type(error).__name__}: {text if len(text) <= LONGEST else text[:LONGEST] + '...'}"


class BadPixels(InputError):
    """Pixels that cannot be labeled; `first` is the position of the first one in its window.

    `hint` says what the user can do about them.
    """

    def __init__(self, text: str, first: Sequence[int], hint: str = "") -> None:
        super().__init__(text, first, hint)
        self.text, _, self.hint = self.args
        self.first = tuple(map(int, first))

    def __str__(self) -> str:
        return f"{self.text}, pixel {self.first}" + (f" ({self.hint})" if self.hint else "")

    def moved(self, window: Sequence[slice]) -> BadPixels:
        """Return the same error with the position in the image that the window was cut from."""
        place = [p + w.start for p, w in zip(self.first, window, strict=True)]
        return BadPixels(self.text, place, self.hint)
