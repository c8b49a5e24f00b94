"""The output store of a run: what it holds, which run it belongs to, and its changes."""

from __future__ import annotations

import math
import os
import time as clock
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import redaction
from ..errors import InputError, OutputBelongsElsewhere
from ..files import fingerprints, ngff, nodes, stores, units
from ..files.levels import Pyramid
from ..files.stores import Bucket
from ..model.classes import color
from . import records


@dataclass(frozen=True)
class Output:
    """One labels/NAME of a store, and the image and confidence beside it.

    Attributes
    ----------
    store, name : str
    version, zarr_format : NGFF version and Zarr format written
    into_input : whether the store is the input, which is only added to
    element : the image in a store of SpatialData; "": the image is the store itself
    begun : on an object store, the start that its records belong to; None: the one in the notes
    """

    store: str
    name: str
    version: str = "0.5"
    zarr_format: int = 3
    into_input: bool = False
    element: str = ""
    begun: str | None = None

    def __post_init__(self) -> None:
        redaction.check(self.store)

    @property
    def group(self) -> str:
        """Path of the label image within the store."""
        return f"labels/{self.name}"

    @property
    def tissue(self) -> str:
        """Path of the mask of tissue within the store, if one is found."""
        return f"{self.group}-tissue"

    @property
    def records(self) -> Path | str:
        """File or URL of the records; inside the array, where readers of groups ignore it."""
        if not stores.is_url(self.store):
            return Path(self.store) / self.group / "0" / records.NAME
        begun = (self.notes() or {}).get("start", "") if self.begun is None else self.begun
        return f"{self.store.rstrip('/')}/{self.group}/0/{records.NAME}/{begun}".rstrip("/")

    def notes(self) -> dict[str, Any] | None:
        """What an earlier run of the same name wrote about itself."""
        return self._noted(self.group)

    def _noted(self, group: str) -> dict[str, Any] | None:
        return ngff.read_notes(self.store, group) if nodes.is_store(self.store) else None

    def check(self, image_print: Mapping[str, Any]) -> None:
        """Refuse a store that belongs to something else.

        Raises
        ------
        ValueError
            If it does; says what is there.
        """
        path = self.store
        if stores.is_url(path):
            if stores.is_web(path):
                raise InputError(f"{path}: expected a place to write, such as s3://bucket/out.zarr")
        else:
            self._check_folder()
        # partial files do not count: another run may be writing the first file right now
        held = [name for name in stores.at(path).names() if not name.endswith(stores.PART)]
        if self.into_input or not held:
            return
        if not nodes.is_store(self.store):
            raise OutputBelongsElsewhere(
                f"{path}: expected a new path or an output of tiledlaf, got a folder of other data"
            )
        notes = ngff.read_notes(self.store, "")
        if notes is None:
            raise OutputBelongsElsewhere(
                f"{path}: expected a new path or an output of tiledlaf, got a Zarr store of "
                "another origin (`into_input` adds labels to an INPUT)"
            )
        fingerprints.refuse_difference(
            f"{path} belongs to another image, region or state of the input's files",
            notes.get("image", {}),
            image_print,
            "choose another OUTPUT",
        )

    def _check_folder(self) -> None:
        above = stores.nearest_existing(self.store)
        if not above.is_dir():
            raise InputError(
                f"{self.store}: expected a new path or an output of tiledlaf, but {above} is a file"
            )
        if not os.access(above, os.W_OK):
            raise InputError(f"{self.store}: expected a place to write, but {above} is read-only")
        for group in (self.group, self.tissue, "confidence"):
            ngff.check_links(self.store, group)

    def start(
        self,
        notes: Mapping[str, Any],
        image_print: Mapping[str, Any],
        labels: Pyramid,
        picture: Pyramid | None,
        confidence: Pyramid | None,
        names: Mapping[int, str],
        before: Mapping[str, Any] | None = None,
    ) -> Output:
        """Make the arrays. The notes say "ready" last, so that an interrupted start is repeated.

        `before` are the notes to replace; if the same command has replaced them already, its arrays
        are used. Returns the output with the place of its records.

        Raises
        ------
        ValueError
            If a run of another command begins at the same time.
        """
        now, before = self.notes() or {}, before or {}
        if now.get("ready") and now != before:
            self._check_same(now, notes)
            return replace(self, begun=now.get("start", ""))
        if confidence is not None:
            self.check_confidence()
        out, left = self._cleared(notes, before)
        if out.begun:
            notes = {**notes, "start": out.begun}
        if not self.into_input:
            held = self._noted("") or {}
            # the tile of the picture is that of all labels that are added later
            tile = {} if picture is None else {"tile": notes["tile"]}
            if held.get("tile", notes["tile"]) != notes["tile"]:
                raise OutputBelongsElsewhere(
                    f"{self.store}: another run has just begun it with tiles of {held['tile']}; "
                    "the same command continues with those"
                )
            root = held | {"image": dict(image_print)} | tile
            nodes.write_group(self.store, "", self.version, self.zarr_format, {}, root)
        now = self.notes() or {}
        if now != left:
            self._check_same(now, notes)
        if not (_same(now, notes) and now.get("ready")):
            self.describe({**notes, "ready": False}, names, labels)
        if picture is not None and not ngff.has_image(self.store):
            picture.create(self.store, self.version, self.zarr_format)
        if confidence is not None:
            # notes first, so that there are never arrays of an unknown owner
            made = (self.store, "confidence", self.version, self.zarr_format)
            nodes.write_group(*made, confidence.entries(self.version), {"labels": self.name})
            confidence.create(self.store, self.version, self.zarr_format)
        labels.create(self.store, self.version, self.zarr_format)
        self._check_same(self.notes() or {}, notes)
        self.describe({**notes, "ready": True}, names, labels)
        return out

    def _cleared(
        self, notes: Mapping[str, Any], before: Mapping[str, Any]
    ) -> tuple[Output, Mapping[str, Any]]:
        """Remove what the store holds of other labels of this name; also return the notes left.

        If the same run has begun already, nothing is removed: it may be at work. On an object
        store, the removed run may still add a batch of records; so the next run's records go below
        a name of their own, and no record of a removed tile counts.
        """
        place = stores.at(self.store)
        # listed before the notes are read: of a start in between, the notes are seen but no file
        held = [f"{self.group}/{name}" for name in nodes.contents(self.store, self.group)]
        held += ["confidence"] * (self._confidence_of() == self.name)
        now = self.notes() or {}
        if _same(now, notes) and (not now.get("ready") or now != before):
            return replace(self, begun=now.get("start", "")), now
        if now:
            if records.is_locked(
                self.records
            ):  # by a run of the same command, begun after this one was planned
                raise OutputBelongsElsewhere(
                    f"{self.store}: another run has just begun labels/{self.name}"
                )
            now = {**now, "ready": False}
            nodes.write_group(self.store, self.group, self.version, self.zarr_format, {}, now)
        removed = 0
        if held:  # records first: none may count for tiles that are only partly removed
            removed = place.remove(f"{self.group}/0/{records.NAME}") + place.remove(*held)
        own = isinstance(place, Bucket) and removed
        return replace(self, begun=uuid.uuid4().hex[:8] if own else ""), now

    def _check_same(self, now: Mapping[str, Any], notes: Mapping[str, Any]) -> None:
        if not _same(now, notes):
            raise OutputBelongsElsewhere(
                f"{self.store}: another run has just begun labels/{self.name}"
            )

    def finish(
        self, fingerprint: str, tile: Sequence[int], picture: Pyramid | None, confidence: bool
    ) -> None:
        """Refuse labels that another run has begun anew meanwhile, or that somebody removed.

        Runs of other names that began at the same time may have dropped this one from the lists, so
        it is listed again.

        Raises
        ------
        ValueError
            If the notes are not those of this run.
        """
        now = self.notes() or {}
        same = _same(now, {"fingerprint": fingerprint, "tile": list(tile)})
        if not same or now.get("start", "") != (self.begun or ""):
            raise OutputBelongsElsewhere(
                f"{self.store}: labels/{self.name} was removed or begun anew during this run"
            )
        if confidence:
            self.check_confidence()
        for group in (self.group, self.tissue):
            if nodes.has_group(self.store, group):
                ngff.list_label(self.store, group, self.version, self.zarr_format)
        if picture is not None and not ngff.has_image(self.store):
            entries = picture.entries(self.version)
            nodes.write_group(self.store, "", self.version, self.zarr_format, entries)

    def remove_parts(self, alone: bool) -> None:
        """Remove partial files that killed runs left, once all tiles are done; objects have none.

        If another run has added records meanwhile, it may still be writing, so only partial files
        that nobody has touched for an hour are removed. A run that loses one nevertheless has no
        record of its tile yet, and writes the tile again.
        """
        old = clock.time() - 3600
        before = math.inf if alone else old
        for group in (self.group, self.tissue, "confidence", *([] if self.into_input else [""])):
            units.remove_parts(self.store, group, before)
        units.remove_parts(self.store, "labels", old)  # a run of other labels may be writing there
        place = stores.at(self.store)
        moved = [
            n for n in place.names() if n.startswith("confidence.") and n.endswith(stores.PART)
        ]
        place.remove(*moved)  # the only files of ours at the root of an input

    def describe(self, notes: Mapping[str, Any], names: Mapping[int, str], labels: Pyramid) -> None:
        """List the labels in the store, with notes, colors and names."""
        ngff.add_label(
            self.store,
            labels,
            self.version,
            self.zarr_format,
            dict(enumerate(notes.get("colors") or map(color, names), 1)),
            names,
            dict(enumerate(notes.get("values", ()), 1)),
            {**notes, "names": list(names.values())},
            self.element,
        )

    def check_tissue(self) -> None:
        """Refuse to write a mask of tissue over other labels."""
        held = self._noted(self.tissue)
        there = nodes.is_store(self.store) and nodes.has_group(self.store, self.tissue)
        if there and "tissue" not in (held or {}):
            raise OutputBelongsElsewhere(
                f"{self.store}: expected no {self.tissue} or the tissue of {self.group}, got other "
                "labels; choose another `name`"
            )

    def check_confidence(self) -> None:
        """Refuse to write over the confidence of other labels."""
        # looked at before its notes, which another start writes before its arrays
        there = nodes.contents(self.store, "confidence") or (
            nodes.is_store(self.store) and nodes.has_group(self.store, "confidence")
        )
        held = self._confidence_of()
        if there and held != self.name:
            origin = f"that of labels/{held}" if held else "one of another origin"
            raise OutputBelongsElsewhere(
                f"{self.store}: expected no confidence or that of labels/{self.name}, "
                f"got {origin}; use another OUTPUT"
            )

    def _confidence_of(self) -> str | None:
        """Name of the labels that the store's confidence belongs to."""
        return (self._noted("confidence") or {}).get("labels")


def _same(now: Mapping[str, Any], notes: Mapping[str, Any]) -> bool:
    """Whether two runs, by their notes, give the same labels, tile by tile."""
    return all(now.get(key) == notes[key] for key in ("fingerprint", "tile"))
