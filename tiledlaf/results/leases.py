"""Leases of objects on an object store: which run makes them, as long as it says so.

They are claims as those of labels: consecutive numbers, each made only if it is not there, and the
last one counts. The arrays have one place, into which two runs of other settings would both write;
so a run is refused while another one makes objects of other settings, and renews its own claim as
it works. That of a run that was killed counts no more after a minute.
"""

from __future__ import annotations

import json
import time as clock
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ..errors import OutputBelongsElsewhere
from ..files import fingerprints, stores
from ..labeling.claiming import PATIENCE, following
from ..labeling.output import CLAIMS

RENEWED = 10.0  # seconds between two looks at whether objects are still this run's


class Lease:
    """The claim of one run; see `leased`."""

    def __init__(self, store: str, group: str, entry: Mapping[str, Any]) -> None:
        place = stores.at(store)
        assert isinstance(place, stores.Bucket)
        self._place, self._there = place, f"{group}/{CLAIMS}"
        self._what = f"{store}: {group}"
        self._objects = json.loads(json.dumps({key: entry[key] for key in ("settings", "of")}))
        self._id, self._number, self._next = uuid.uuid4().hex, "", 0.0
        while not self._number:
            number, held = self._last()
            if held and clock.time() - held["time"] < PATIENCE:
                self._check(held, "another run is making")
            new = following(number)
            if self._place.create(f"{self._there}/{new}", self._line()):
                self._number, self._next = new, clock.monotonic() + RENEWED

    def renew(self, now: bool = False) -> None:
        """Say that this run still makes them, if it is time, unless it is another's turn.

        Raises
        ------
        ValueError
            If objects of other settings are being made, or these were removed.
        """
        if not now and clock.monotonic() < self._next:
            return
        number, held = self._last()
        self._check(held, "another run has begun")
        if number == self._number:
            self._place.write(f"{self._there}/{number}", self._line())
        self._next = clock.monotonic() + RENEWED

    def end(self) -> None:
        """Give it back."""
        if self._read(self._number).get("id") == self._id:
            self._place.delete(f"{self._there}/{self._number}")

    def _line(self) -> bytes:
        return json.dumps({"objects": self._objects, "id": self._id, "time": clock.time()}).encode()

    def _last(self) -> tuple[str, dict[str, Any]]:
        """Number of the last claim, and what it says."""
        names = self._place.names(self._there)
        return (names[-1], self._read(names[-1])) if names else ("", {})

    def _read(self, number: str) -> dict[str, Any]:
        """What a claim says, nothing where it is gone or damaged."""
        try:
            found = json.loads(self._place.read(f"{self._there}/{number}") or b"{}")
            return {**found, "time": float(found["time"])}
        except (ValueError, TypeError, KeyError, RecursionError):
            return {}

    def _check(self, held: Mapping[str, Any], how: str) -> None:
        """Refuse to go on if the last claim is of other objects."""
        made = held.get("objects")
        if not held:
            raise OutputBelongsElsewhere(f"{self._what} was removed while objects were made")
        if made != self._objects:
            advice = "make them again once that run has ended"
            there = made.get("settings") if isinstance(made, dict) else None
            if isinstance(there, dict):
                problem = f"{self._what}: {how} these objects"
                here = self._objects["settings"]
                fingerprints.refuse_difference(problem, there, here, advice)
            raise OutputBelongsElsewhere(f"{self._what}: {how} those of other labels ({advice})")


@contextmanager
def leased(store: str, group: str, entry: Mapping[str, Any]) -> Iterator[Callable[..., None]]:
    """Claim objects on an object store for a run, and give them back at its end.

    Gives what is to be called as the run goes on, with True before what it has made counts.
    """
    if not stores.is_url(store):  # where each run has a folder of its own
        yield lambda now=False: None
        return
    lease = Lease(store, group, entry)
    try:
        yield lease.renew
    finally:
        lease.end()
