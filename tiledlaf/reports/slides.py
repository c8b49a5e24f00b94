"""How far each image of a folder of outputs is, read without changing anything."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ..errors import InputError
from ..files import nodes, stores
from ..labeling import inputs
from ..labeling.batch import Listing, reason
from . import status, text
from .status import COMPLETE, CUT, FAILED, GOING, Labels

WAITING, REFUSED = "waiting", "refused"
SHOWN = 3  # failed tiles of each image that are named
STATES = (COMPLETE, GOING, CUT, FAILED, WAITING, REFUSED)


@dataclass(frozen=True)
class Slide:
    """One image of a folder.

    Attributes
    ----------
    output : path of its OME-Zarr
    input : its image, as far as a batch has said
    state : of its labels, or "waiting" where nothing is written yet, or "refused"
    labels : progress of its labels
    error : why it could not be labeled when it was last tried
    """

    output: str
    input: str
    state: str
    labels: Labels | None = None
    error: str | None = None

    @property
    def name(self) -> str:
        """Name of the output without its folder."""
        return inputs.name_of(self.output).removesuffix(inputs.ENDING)


@dataclass(frozen=True)
class Folder:
    """All images of a folder of outputs."""

    path: str
    slides: list[Slide]

    @property
    def good(self) -> bool:
        """Whether each is complete or going, or waits for one that is going."""
        states = {one.state for one in self.slides}
        allowed = {COMPLETE, GOING} | ({WAITING} if GOING in states else set())
        return states <= allowed

    def count(self, state: str) -> int:
        """Number of images in a state."""
        return sum(one.state == state for one in self.slides)


def is_folder(path: str) -> bool:
    """Whether a path is a folder of outputs, by the list of a batch or by what lies in it."""
    if stores.is_web(path) or nodes.is_store(path):
        return False
    if not stores.is_url(path) and not os.path.isdir(path):
        return False
    names = stores.at(path).names()
    return inputs.LISTING in names or any(name.endswith(inputs.ENDING) for name in names)


def read(path: str, name: str | None = None) -> Folder:
    """Read the progress of all images of a folder.

    Parameters
    ----------
    name : of the labels; by default all that this program made

    Raises
    ------
    ValueError
        If there are none.
    """
    path = path.rstrip("/") or "/"
    listed = Listing(path).read()
    there = [one for one in stores.at(path).names() if one.endswith(inputs.ENDING)]
    found = []
    for output in sorted({*listed, *there}, key=inputs.natural):
        slide = _slide(inputs.join(path, output), listed.get(output), name)
        if slide is not None:
            found.append(slide)
    if not found:
        raise InputError(f"{path}: expected a folder with outputs of tiledlaf, found none")
    return Folder(path, found)


def _slide(output: str, listed: dict[str, str] | None, name: str | None) -> Slide | None:
    """One image; None for a store that is none of ours."""
    title, error = (listed or {}).get("input", ""), (listed or {}).get("error")
    labels: list[Labels] = []
    try:
        labels = status.labels_of(output, name)
    except (ValueError, OSError) as problem:  # one that cannot be read hides no others
        if listed is None and isinstance(problem, InputError):
            return None
        error = error or reason(problem)
    if not labels and listed is None and error is None:
        return None
    worst = max(labels, key=lambda one: STATES.index(one.state), default=None)
    if error is not None and (worst is None or worst.state != GOING):
        return Slide(output, title, REFUSED, worst, error)
    if worst is None:
        return Slide(output, title, WAITING)
    return Slide(output, title, worst.state, worst)


def lines(found: Folder) -> list[str]:
    """Lines on all images of a folder, one for each."""
    counts = [(state, found.count(state)) for state in STATES]
    done, total = (
        sum(one.labels.megapixels[i] for one in found.slides if one.labels is not None)
        for i in (0, 1)
    )
    rows = [_row(one) for one in found.slides]
    titles = ("output", "state", "tiles", "Mpx", "input")
    bad = [f"  {one.name}: {one.error}" for one in found.slides if one.error is not None]
    bad += [
        f"  {one.name}: {error}"
        for one in found.slides
        if one.labels is not None
        for error in one.labels.errors[:SHOWN]
    ]
    return [
        f"{found.path}: {len(found.slides)} images, "
        + ", ".join(f"{count} {state}" for state, count in counts if count)
        + ("" if found.good else "; the same command completes them"),
        f"megapixels: {done:.1f} of {total:.1f} of those that are begun",
        "",
        *text.columns(titles, rows),
        *(["", "not labeled, or not all of it:", *bad] if bad else []),
    ]


def _row(slide: Slide) -> tuple[str, ...]:
    if slide.labels is None:
        return slide.name, slide.state, "-", "-", slide.input
    tiles = slide.labels.tiles
    done = f"{tiles['done'] + tiles['skipped']}/{tiles['all']}"
    return slide.name, slide.state, done, f"{slide.labels.megapixels[1]:.1f}", slide.input
