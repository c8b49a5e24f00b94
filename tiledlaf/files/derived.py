"""What images share whose pixels are made from those of another reader."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .image import Levels, Reader, State


@dataclass(frozen=True)
class Derived(Reader):
    """Pixels made from those of another reader where they are read; subclasses say how.

    Attributes
    ----------
    source : reader of the stored pixels
    """

    source: Reader

    @property
    def stored(self) -> bool:  # type: ignore[override]
        """Whether the source's pixels are in a file."""
        return self.source.stored

    def look(self, path: str, level: int, axes: str | None) -> Levels:
        """What the source says: its own grid."""
        return self.source.look(path, level, axes)

    def open(self, path: str, name: str) -> Any:
        """The stored array."""
        return self.source.open(path, name)

    def held(self, path: str) -> int:
        """Of the stored pixels."""
        return self.source.held(path)

    def state(self, path: str, name: str) -> State:
        """Of the stored pixels."""
        return self.source.state(path, name)
