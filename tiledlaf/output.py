"""The output store of a run: what it holds, to which run it belongs, what is done in it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import ngff, records, redaction
from .examples import color
from .ngff import Pyramid

# settings that stand for the names, sizes and times of files
HASHED = ("input", "probabilities", "mask", "model", "weights")


def fingerprint(entries: Mapping[str, Any]) -> str:
    """SHA-256 of settings and input."""
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Output:
    """One labels/NAME of a store, and the image and confidence beside it.

    Attributes
    ----------
    store, name : str
    version, zarr_format : NGFF version and Zarr format written
    into_input : whether the store is the input, which is only added to
    """

    store: str
    name: str
    version: str = "0.5"
    zarr_format: int = 3
    into_input: bool = False

    def __post_init__(self) -> None:
        redaction.check(self.store)

    @property
    def group(self) -> str:
        """Path of the label image within the store."""
        return f"labels/{self.name}"

    @property
    def records(self) -> Path:
        """File of records; in the array, where readers of groups do not trip over it."""
        return Path(self.store) / self.group / "0" / records.NAME

    def notes(self) -> dict[str, Any] | None:
        """What an earlier run of the same name wrote about itself."""
        return ngff.read_notes(self.store, self.group) if ngff.is_store(self.store) else None

    def check(self, image_print: Mapping[str, Any]) -> None:
        """Refuse a store that belongs to something else.

        Raises
        ------
        ValueError
            Says what is there.
        """
        path = Path(self.store)
        above = nearest_existing(self.store)
        if not above.is_dir():
            raise ValueError(
                f"{path}: expected a new path or an output of tiledlaf, but {above} is a file"
            )
        if not os.access(above, os.W_OK):
            raise ValueError(f"{path}: expected a place to write, but {above} is read-only")
        for group in (self.group, "confidence"):
            ngff.check_links(self.store, group)
        if self.into_input or above != path.absolute() or not any(path.iterdir()):
            return
        if not ngff.is_store(self.store):
            raise ValueError(
                f"{path}: expected a new path or an output of tiledlaf, got a folder of other data"
            )
        held = ngff.read_notes(self.store, "")
        if held is None:
            raise ValueError(
                f"{path}: expected a new path or an output of tiledlaf, got a Zarr store of "
                "another origin (--into-input adds labels to an INPUT)"
            )
        refuse_difference(
            f"{path} belongs to another image, region or state of the input's files",
            held.get("image", {}), image_print, "choose another OUTPUT",
        )  # fmt: skip

    def start(
        self, notes: Mapping[str, Any], image_print: Mapping[str, Any],
        labels: Pyramid, picture: Pyramid | None, confidence: Pyramid | None,
        names: Mapping[int, str],
    ) -> None:  # fmt: skip
        """Make the arrays. The notes say "ready" last, so that a cut start is made again."""
        if not self.into_input:
            # the write unit of the picture is that of all later labels
            tile = {} if picture is None else {"tile": notes["tile"]}
            held = ngff.read_notes(self.store, "") if ngff.is_store(self.store) else None
            root = (held or {}) | {"image": dict(image_print)} | tile
            ngff.create_root(self.store, self.version, self.zarr_format, root)
        self.describe({**notes, "ready": False}, names)
        if self.records.exists():
            self.records.unlink()
        if picture is not None and not ngff.has_image(self.store):
            picture.create(self.store, self.version, self.zarr_format)
        if confidence is not None:
            confidence.create(self.store, self.version, self.zarr_format)
            ngff.write_notes(self.store, confidence.group, {"labels": self.name})
        labels.create(self.store, self.version, self.zarr_format)
        self.describe({**notes, "ready": True}, names)

    def describe(self, notes: Mapping[str, Any], names: Mapping[int, str]) -> None:
        """List the labels in the store, with notes, colors and names."""
        ngff.add_label(
            self.store, self.name, self.version, self.zarr_format,
            dict(enumerate(notes.get("colors") or map(color, names), 1)), names,
            dict(enumerate(notes.get("values", ()), 1)), {**notes, "names": list(names.values())},
        )  # fmt: skip

    def check_confidence(self) -> None:
        """Refuse to write over the confidence of other labels."""
        if not ngff.is_store(self.store) or not ngff.has_group(self.store, "confidence"):
            return
        held = (ngff.read_notes(self.store, "confidence") or {}).get("labels")
        # without notes it is of a start of ours that was cut, or was in the input before us
        own = self.notes() is not None or not self.into_input
        if held != self.name and (held or not own):
            origin = f"that of labels/{held}" if held else "one of another origin"
            raise ValueError(
                f"{self.store}: expected no confidence or that of labels/{self.name}, "
                f"got {origin}; use another OUTPUT"
            )


def refuse_difference(
    problem: str, held: Mapping[str, Any], asked: Mapping[str, Any], advice: str
) -> None:
    """Raise ValueError that shows where two configurations differ, if they do."""
    keys = [k for k in sorted({*held, *asked}) if held.get(k) != asked.get(k)]
    if keys:
        there, here = (
            ", ".join(f"{k} {_short(k, entries.get(k))}" for k in keys) for entries in (held, asked)
        )
        raise ValueError(f"{problem}: it has {there}; this run has {here} ({advice})")


def _short(key: str, value: Any) -> str:
    if key in HASHED and value:
        return str(value)[:8]
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def nearest_existing(path: str) -> Path:
    """The path itself or the nearest one above that exists."""
    absolute = Path(path).absolute()
    return next(p for p in (absolute, *absolute.parents) if p.exists())
