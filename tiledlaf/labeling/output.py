"""The output store of a run: what it holds, which run it belongs to, and its changes."""

from __future__ import annotations

import errno
import math
import os
import re
import time as clock
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from .. import redaction
from ..annotations import opening
from ..errors import InputError, OutputBelongsElsewhere
from ..files import claims, fingerprints, images, ngff, nodes, stores, units
from ..files.levels import Pyramid
from ..model.classes import color
from . import records

STAMP = "start of"  # in `Output.current`
CLAIMS = "0/tiledlaf.claims"  # on an object store: objects 000001, 000002, ...; the last one counts
# suffixes of what is no output, beside those of images and annotations that are read
OTHERS = {".zip", ".ozx", ".gz", ".parquet", ".html", ".pdf", ".svg", ".txt", ".xml", ".model"}
GROUPS = re.compile(r"\d+|labels/.+|confidence")  # of an output


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
    stamp : of the start that has made the arrays, once that is known; see `current`
    """

    store: str
    name: str
    version: str = "0.5"
    zarr_format: int = 3
    into_input: bool = False
    element: str = ""
    begun: str | None = None
    stamp: str = ""

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
        return self.noted(self.group)

    def current(self) -> dict[str, Any] | None:
        """The notes, and which start they are of: two starts of the same run differ in this."""
        found = self.found_stamp()
        while True:
            notes, known = self.notes(), found
            found = self.found_stamp()
            if found == known:  # not of two starts
                return {**(notes or {}), STAMP: found or ""} if notes or found else None

    def found_stamp(self, group: str = "") -> str | None:
        """Which start has made a group, by default that of the labels.

        "" where it is not said; None where no start has made it, except in older versions.
        """
        if stores.is_url(self.store):
            made = stores.at(self.store).names(f"{self.group}/{CLAIMS}")
            return made[-1] if made else ""
        return claims.stamp(os.path.join(self.store, group or self.group))

    def noted(self, group: str) -> dict[str, Any] | None:
        """What this program wrote about a group."""
        return ngff.read_notes(self.store, group) if nodes.is_store(self.store) else None

    def _made(self, group: str) -> bool:
        """Whether this program has made a group; one that cannot be read is another's."""
        try:
            return ngff.read_notes(self.store, group) is not None
        except InputError:
            return False

    def _listable(self, group: str) -> bool:
        """Whether labels are of this program, and no objects that are still being made."""
        if not self._made(group):
            return False
        notes = ngff.read_notes(self.store, group) or {}
        return "objects" not in notes or bool(notes.get("ready"))

    def remove_objects(self) -> None:
        """Remove the objects of earlier labels of this name."""
        place, start = stores.at(self.store), self.stamp or self.found_stamp() or ""
        for name in nodes.contents(self.store, "labels"):
            group = f"labels/{name}"
            if not name.startswith(f"{self.name}-") or not self._made(group):
                continue
            entry = (ngff.read_notes(self.store, group) or {}).get("objects", {})
            if entry.get("labels") == self.name and entry.get("of", {}).get("start") != start:
                ngff.unlist_label(self.store, group)
                place.remove(group)
                nodes.index(self.store, group)

    def _is_rest(self, held: Sequence[str]) -> bool:
        """Whether a store without metadata is what is left of an output that was removed."""
        labels = [f"labels/{name}" for name in nodes.contents(self.store, "labels")]
        groups = [*labels, *(name for name in held if name != "labels")]
        made = [group for group in groups if not group.isdigit() and self._made(group)]
        return all(
            group in made
            or (group.isdigit() and made)
            or (GROUPS.fullmatch(group) and nodes.is_left_over(self.store, group))
            for group in groups
        )

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
        if nodes.is_store(self.store):
            ngff.label_names(self.store)  # to which these will be added
        if self.into_input or not held:
            return
        if not nodes.is_store(self.store):
            if self._is_rest(held):
                return
            raise OutputBelongsElsewhere(
                f"{path}: expected a new path or an output of tiledlaf, got a folder of other data"
            )
        notes = ngff.read_notes(self.store, "")
        if notes is None:
            raise OutputBelongsElsewhere(
                f"{path}: expected a new path or an output of tiledlaf, got a Zarr store of "
                "another origin (`into_input` adds labels to an INPUT)"
            )
        self.check_image(notes, image_print)

    def check_image(self, notes: Mapping[str, Any], image_print: Mapping[str, Any]) -> None:
        """Refuse a store of another image, by the notes at its root."""
        fingerprints.refuse_difference(
            f"{self.store} belongs to another image, region or state of the input's files",
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

    def check_mine(self) -> None:
        """End a run whose labels another one has begun anew, or somebody has removed.

        Raises
        ------
        ValueError
            If they are those of another start.
        OSError
            If they are gone.
        """
        for wait in units.WAITS:  # another start may have them in hand, and put them back
            clock.sleep(wait)
            found = self.found_stamp()
            ours = not self.stamp or found in (self.stamp, "")
            if ours and self.notes() and nodes.is_store(f"{self.store}/{self.group}/0"):
                break
        else:
            if self.notes():
                raise OutputBelongsElsewhere(f"{self.store}: {self._lost}")
            raise FileNotFoundError(errno.ENOENT, self._lost, self.store)

    def check_run(self, notes: Mapping[str, Any]) -> None:
        """Like `check_mine`, also where older versions have left no stamp: by the notes."""
        now = self.notes() or {}
        self.check_mine()
        if not same(now, notes) or now.get("start", "") != (self.begun or ""):
            raise OutputBelongsElsewhere(f"{self.store}: {self._lost}")

    @property
    def _lost(self) -> str:
        return f"labels/{self.name} was removed or begun anew during this run"

    def finish(self, notes: Mapping[str, Any], picture: Pyramid | None, confidence: bool) -> None:
        """Refuse labels that another run has begun anew meanwhile, or that somebody removed.

        Runs of other names that began at the same time may have dropped this one from the lists, so
        all of this program are listed again.

        Raises
        ------
        ValueError, OSError
            If the notes are not those of this run.
        """
        self.check_run(notes)
        if confidence:
            self.check_confidence()
        for name in nodes.contents(self.store, "labels"):
            if name in (self.name, f"{self.name}-tissue") or self._listable(f"labels/{name}"):
                ngff.list_label(self.store, f"labels/{name}", self.version, self.zarr_format)
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
        # a start of other labels may be about to put its confidence into place
        own = alone and self.owns_confidence()
        for group in (self.group, self.tissue):
            units.remove_parts(self.store, group, before)
        units.remove_parts(self.store, "confidence", math.inf if own else old)
        if not self.into_input:
            units.remove_parts(self.store, "", before, but="confidence")
        units.remove_parts(self.store, "labels", old)  # a run of other labels may be writing there
        place = stores.at(self.store)
        # what was to become these labels, or was replaced by them
        labels = [n for n in place.names("labels") if alone and stores.is_part(n, self.name)]
        # the only files of ours at the root of an input
        moved = [n for n in place.names() if own and stores.is_part(n, "confidence")]
        place.remove(*(f"labels/{name}" for name in labels), *moved)

    def describe(
        self,
        notes: Mapping[str, Any],
        names: Mapping[int, str],
        labels: Pyramid,
        made: str | None = None,
    ) -> None:
        """List the labels in the store, with notes, colors and names; see `ngff.add_label`."""
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
            made,
        )

    def check_tissue(self) -> None:
        """Refuse to write a mask of tissue over other labels."""
        held = self.noted(self.tissue)
        there = nodes.is_store(self.store) and nodes.has_group(self.store, self.tissue)
        if there and "tissue" not in (held or {}):
            raise OutputBelongsElsewhere(
                f"{self.store}: expected no {self.tissue} or the tissue of {self.group}, got other "
                "labels; choose another `name`"
            )

    def check_confidence(self) -> None:
        """Refuse to write over the confidence of other labels."""
        # looked at before its notes, which another start writes before its arrays
        there = not nodes.is_left_over(self.store, "confidence") or (
            nodes.is_store(self.store) and nodes.has_group(self.store, "confidence")
        )
        held = self._confidence_of()
        if there and held != self.name:
            origin = f"that of labels/{held}" if held else "one of another origin"
            raise OutputBelongsElsewhere(
                f"{self.store}: expected no confidence or that of labels/{self.name}, "
                f"got {origin}; use another OUTPUT"
            )

    def owns_confidence(self) -> bool:
        """Whether the store's confidence is of these labels."""
        return self._confidence_of() == self.name

    def _confidence_of(self) -> str | None:
        """Name of the labels that the store's confidence belongs to."""
        return (ngff.read_notes(self.store, "confidence") or {}).get("labels")


def is_beside(notes: Mapping[str, Any]) -> bool:
    """Whether notes on a label image are not those of a run, but of what is beside its labels."""
    return "tissue" in notes or "objects" in notes


def check_suffix(store: str) -> None:
    """Refuse to make a store under a name that says it is something else.

    Raises
    ------
    ValueError
        Unless something is there: a store of an earlier version goes on, others are refused later.
    """
    suffix = PurePath(store.rstrip("/")).suffix.lower()
    known = {one for reader in images.FORMATS.values() for one in reader.suffixes}
    drawn = {one for reader in opening.FORMATS.values() for one in reader.suffixes}
    if suffix not in known | drawn | OTHERS:
        return
    if not (nodes.is_store(store) if stores.is_url(store) else os.path.lexists(store)):
        raise InputError(
            f"{store}: expected an OME-Zarr as OUTPUT, such as "
            f"{PurePath(store.rstrip('/')).stem}.zarr, got a name ending {suffix} (`export` "
            "writes the labels as .png or .tif as well)"
        )


def same(now: Mapping[str, Any], notes: Mapping[str, Any]) -> bool:
    """Whether two runs, by their notes, give the same labels, tile by tile."""
    return all(now.get(key) == notes[key] for key in ("fingerprint", "tile"))


def check_same(out: Output, now: Mapping[str, Any], notes: Mapping[str, Any]) -> None:
    """Refuse to join a run of other settings.

    Raises
    ------
    ValueError
        Shows where they differ.
    """
    if not same(now, notes):
        where = f"{out.store}: another run has just begun labels/{out.name}"
        advice = "choose another `name`, or add `overwrite` once that run has ended"
        held, asked = ({**n.get("settings", {}), "tile": n.get("tile")} for n in (now, notes))
        fingerprints.refuse_difference(where, held, asked, advice)
        raise OutputBelongsElsewhere(where)
