"""How a start claims labels/NAME: of several at one moment, one makes the arrays.

On a file system the group is made, with its notes and the file of records, in a folder of another
name and renamed: no rename replaces a folder that is not empty. What is to be replaced is renamed
away before, and put back if it turns out to be what another start has just made.

On an object store claims are objects with consecutive numbers, each made only if it is not there.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import time as clock
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ..errors import OutputBelongsElsewhere
from ..files import ngff, nodes, stores
from ..files.levels import Pyramid
from ..files.stores import PART, Bucket
from . import beside, records
from .output import CLAIMS, STAMP, Output, check_same, same

T = TypeVar("T")
PATIENCE = 60.0  # seconds that a start on an object store has to make its arrays
JOINING = 10.0  # seconds that one has to remove others, before one of the same run does so as well


def start(
    out: Output,
    notes: Mapping[str, Any],
    image_print: Mapping[str, Any],
    labels: Pyramid,
    picture: Pyramid | None,
    confidence: Pyramid | None,
    names: Mapping[int, str],
    before: Mapping[str, Any] | None = None,
    inputs: Collection[str] = (),
) -> Output:
    """Claim the labels and make the arrays; of several starts at one moment one does.

    Parameters
    ----------
    notes : on the run; those of the labels
    before : what was `current` when the run was planned, and is replaced; if the same run has been
        begun since, its arrays are used
    inputs : paths of what is read

    Returns
    -------
    the output with the stamp of the start that has made the arrays

    Raises
    ------
    ValueError
        If a run of another command begins at the same time.
    """
    if confidence is not None:
        out.check_confidence()
    _claim_root(out, notes, image_print, picture)
    if picture is not None and not ngff.has_image(out.store):
        picture.create(out.store, out.version, out.zarr_format)
    starting = Start(out, notes, before or {}, labels, confidence, names, inputs)
    return starting.on_server() if stores.is_url(out.store) else starting.here()


def restore(
    out: Output,
    notes: Mapping[str, Any],
    image_print: Mapping[str, Any],
    labels: Pyramid,
    picture: Pyramid | None,
    confidence: Pyramid | None,
) -> None:
    """Make arrays of a run to continue that somebody has removed; its tiles are done again."""
    _claim_root(out, notes, image_print, picture)
    for pyramid in (picture, labels):
        if pyramid is not None and not ngff.is_whole(out.store, pyramid):
            pyramid.create(out.store, out.version, out.zarr_format)
    if confidence is not None:
        _restore_confidence(out, confidence)


def _restore_confidence(out: Output, confidence: Pyramid) -> None:
    """Make the confidence that is gone, or that is of labels which these have replaced.

    A start that was killed puts labels into place and no confidence yet.
    """
    if not stores.is_url(out.store):
        there = os.path.lexists(os.path.join(out.store, "confidence"))
        # None, "": of an older version, which replaced both or none
        if not there or out.found_stamp("confidence") not in (out.stamp, None, ""):
            _place_confidence(out, confidence, out.stamp)
            return
    if not ngff.is_whole(out.store, confidence):
        _make_confidence(out, out.store, confidence)


def _claim_root(
    out: Output,
    notes: Mapping[str, Any],
    image_print: Mapping[str, Any],
    picture: Pyramid | None,
) -> None:
    """Say which image the store is of, unless another start has said so."""
    if out.into_input:
        return
    # the tile of the picture is that of all labels that are added later
    tile = {} if picture is None else {"tile": notes["tile"]}
    root, made = {"image": dict(image_print)} | tile, (out.store, "", out.version, out.zarr_format)
    held = out.noted("")
    if held is None:
        nodes.write_group(*made, {}, root, new=True)
        held = out.noted("") or {}
    out.check_image(held, image_print)
    if tile and held.get("tile", notes["tile"]) != notes["tile"]:
        raise OutputBelongsElsewhere(
            f"{out.store}: another run has just begun it with tiles of {held['tile']}; "
            "the same command continues with those"
        )
    if held | root != held:
        nodes.write_group(*made, {}, held | root)


@dataclass(frozen=True)
class Start:
    """A start of a run that no other has begun, as far as was known when it was planned."""

    out: Output
    notes: Mapping[str, Any]
    before: Mapping[str, Any]
    labels: Pyramid
    confidence: Pyramid | None
    names: Mapping[int, str]
    inputs: Collection[str]

    def _joins(self, now: Mapping[str, Any]) -> bool:
        """Whether the same run has begun since; refuse one of other settings."""
        if not now.get("ready") or now == self.before:
            return False
        check_same(self.out, now, self.notes)
        return True

    def _remove_overview(self) -> None:
        """Before the claim: a start that is killed leaves no picture of other labels than its own.

        The same command draws again one of labels that another start has just made.
        """
        beside.remove(self.out, self.inputs)

    def here(self) -> Output:
        """Claim the labels on a file system, or join the same run."""
        out = self.out
        stamp, own = _retried(out, self._placed)
        now = out.current()
        if now and now[STAMP] != stamp and same(now, self.notes):  # the same run replaced this one
            stamp, own = now[STAMP], False
        out = replace(out, stamp=stamp)
        if self.confidence is not None:
            try:
                _place_confidence(out, self.confidence, stamp)
            except OutputBelongsElsewhere:
                if own:  # nothing is labeled yet
                    out.check_mine()
                    stores.at(out.store).remove(out.group)
                raise
        elif own and out.owns_confidence():  # that of the labels that are replaced
            _remove_confidence(out)
        ngff.list_label(out.store, out.group, out.version, out.zarr_format)
        return out

    def _placed(self, made: str) -> tuple[str, bool]:
        """Make the group and put it into place, unless the same run has done so meanwhile.

        Returns the stamp of what is there, and whether it is of this start.
        """
        out = self.out
        now = out.current()
        if now and self._joins(now):
            return now[STAMP], False
        self.labels.create(made, out.version, out.zarr_format)
        out.describe({**self.notes, "ready": True}, self.names, self.labels, made)
        stamp, line = records.claim()
        stores.at(made).write(f"{out.group}/0/{records.NAME}", line)
        place, final = stores.at(out.store), os.path.join(out.store, out.group)
        gone: list[str] = []
        try:
            while True:
                _check_whole(made, self.labels)
                now = out.current()
                if now and self._joins(now):
                    return now[STAMP], False
                there = os.path.lexists(final)
                if there and records.is_locked(out.records):  # by a run begun since the plan
                    now = out.current()  # perhaps since the last look
                    if now and same(now, self.notes):
                        return now[STAMP], False
                    raise OutputBelongsElsewhere(
                        f"{out.store}: another run has just begun labels/{out.name}"
                    )
                self._remove_overview()
                if there:
                    _move_away(out, out.group, (now or {}).get(STAMP, ""), gone)
                elif renamed(os.path.join(made, out.group), final):
                    return stamp, True
        finally:
            place.remove(*gone)

    def on_server(self) -> Output:
        """Claim the labels on an object store, or join the same run.

        Notes say "ready" last, so that arrays of an interrupted start are made again.
        """
        place = stores.at(self.out.store)
        assert isinstance(place, Bucket)
        claim, own = self._claimed(place)
        out = replace(self.out, begun=claim["start"], stamp=claim[STAMP])
        notes = {**self.notes, **({"start": out.begun} if out.begun else {})}

        def made(key: str = "fingerprint") -> bool:
            now = out.notes() or {}
            return same(now, notes) and now.get("start", "") == out.begun and bool(now.get(key))

        try:
            self._clear(place, out, own, made)
            if not made("ready"):
                out.describe({**notes, "ready": False}, self.names, self.labels)
                if self.confidence is not None:
                    _make_confidence(out, out.store, self.confidence)
                self.labels.create(out.store, out.version, out.zarr_format)
                out.check_mine()
                out.describe({**notes, "ready": True}, self.names, self.labels)
            out.check_mine()
        except BaseException:
            if own:  # nothing is labeled yet
                place.remove(f"{out.group}/{CLAIMS}/{out.stamp}")
            raise
        return out

    def _claimed(self, place: Bucket) -> tuple[dict[str, Any], bool]:
        """The claim that counts, and whether it is of this start."""
        out, there = self.out, f"{self.out.group}/{CLAIMS}"
        while True:
            now = out.current() or {}
            number = now.get(STAMP, "")
            held = _said((number and place.read(f"{there}/{number}")) or b"{}")
            known = number == self.before.get(STAMP, "")
            ready = now.get("ready") and same(now, held) if held else now.get("ready")
            if held and same(held, self.notes) and not (known and ready):
                return {**held, STAMP: number}, False
            young = clock.time() - held.get("time", 0.0) < PATIENCE
            if held and (not known or (young and not ready)):
                check_same(out, held, self.notes)
            if not held and now.get("ready") and not known:
                check_same(out, now, self.notes)
            new = following(number)
            first = not number and not nodes.contents(out.store, out.group)
            claim = {
                **{key: self.notes[key] for key in ("fingerprint", "tile")},
                **{"settings": self.notes.get("settings", {}), "time": clock.time()},
                **{"start": "" if first else uuid.uuid4().hex[:8], "id": uuid.uuid4().hex},
            }
            self._remove_overview()
            if place.create(f"{there}/{new}", json.dumps(claim).encode()):
                return {**claim, STAMP: new}, True

    def _clear(self, place: Bucket, out: Output, own: bool, made: Callable[[], bool]) -> None:
        """Remove what the store holds of other labels of this name, unless the same run has.

        A run that is removed may still add a batch of records; so the next run's records go below
        a name of their own, and no record of a removed tile counts.
        """
        # listed before the notes are read: of a start in between, the notes are seen but no file
        keys = [key for key, _, _ in place.entries(out.group)]
        if out.owns_confidence():
            keys += [key for key, _, _ in place.entries("confidence")]
        mine = f"{out.group}/{CLAIMS}/{out.stamp}"
        keys = [key for key in keys if key not in (mine, f"{out.group}/zarr.json")]
        until = clock.monotonic() + (0.0 if own or not keys else JOINING)
        while not made():
            if clock.monotonic() < until:
                clock.sleep(0.2)
                continue
            now = out.notes()
            if now:
                group = (out.store, out.group, out.version, out.zarr_format)
                nodes.write_group(*group, {}, {**now, "ready": False})
            # records first: none may count for tiles that are only partly removed
            records_first = sorted(keys, key=lambda key: f"/{records.NAME}" not in key)
            place.delete_all(records_first)
            return


def _said(data: bytes) -> dict[str, Any]:
    """What a claim says; nothing where it is damaged."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def following(number: str) -> str:
    """The number of the claim after another one, "" for none."""
    return f"{int(number or 0) + 1:06d}"


def _make_confidence(out: Output, store: str, confidence: Pyramid) -> None:
    """Make its arrays; notes first, so that there are never arrays of an unknown owner."""
    made = (out.version, out.zarr_format)
    entries, notes = confidence.entries(out.version), {"labels": out.name}
    nodes.write_group(store, "confidence", *made, entries, notes)
    confidence.create(store, *made)


def _retried(out: Output, make: Callable[[str], T]) -> T:
    """What a function makes of a new folder beside the labels, which puts arrays into place.

    Another run that ends meanwhile may take the folder for what a killed one has left.
    """
    for last in (False, False, True):
        made = os.path.join(out.store, "labels", f"{out.name}.{uuid.uuid4().hex}{PART}")
        try:
            return make(made)
        except FileNotFoundError:
            if last:
                raise
        finally:
            shutil.rmtree(made, ignore_errors=True)
    raise AssertionError


def _check_whole(made: str, pyramid: Pyramid) -> None:
    """Notice that a folder was removed while it was filled, and then made again by what followed.

    Raises
    ------
    FileNotFoundError
        If its first files are gone.
    """
    try:
        whole = ngff.is_whole(made, pyramid)
    except ValueError:  # between two looks
        whole = False
    if not whole:
        raise FileNotFoundError(errno.ENOENT, "removed by another run", made)


def _move_away(out: Output, group: str, stamp: str, gone: list[str]) -> None:
    """Rename a group, unless another start than that of the stamp has just made it."""
    moved = f"{group}.{uuid.uuid4().hex}{PART}"
    with contextlib.suppress(FileNotFoundError):
        os.rename(os.path.join(out.store, group), os.path.join(out.store, moved))
        back = (out.found_stamp(moved) or "") != stamp
        if not (back and renamed(*(os.path.join(out.store, g) for g in (moved, group)))):
            gone.append(moved)


def _place_confidence(out: Output, confidence: Pyramid, stamp: str) -> None:
    """Put the confidence of a start into place, unless it is there already."""
    group = "confidence"
    final = os.path.join(out.store, group)
    gone: list[str] = []

    def placed(made: str) -> None:
        _make_confidence(out, made, confidence)
        stores.at(made).write(f"{group}/0/{records.NAME}", records.claim(stamp)[1])
        while True:
            out.check_confidence()
            _check_whole(made, confidence)
            if os.path.lexists(final):
                found = out.found_stamp(group)
                if found and found == stamp:
                    break
                _move_away(out, group, found or "", gone)
            elif renamed(os.path.join(made, group), final):
                break

    try:
        _retried(out, placed)
    finally:
        stores.at(out.store).remove(*gone)
    nodes.index(out.store, group)


def _remove_confidence(out: Output) -> None:
    gone: list[str] = []
    _move_away(out, "confidence", out.found_stamp("confidence") or "", gone)
    stores.at(out.store).remove(*gone)
    nodes.index(out.store, "confidence")


def renamed(old: str, new: str) -> bool:
    """Rename a folder, unless there is one of this name that is not empty."""
    try:
        os.rename(old, new)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            return False
        if os.name == "nt" and os.path.lexists(new):
            return False
        raise
    return True
