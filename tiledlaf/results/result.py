"""A label image of an output, with all that is known of it: what every result is made from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ..errors import DamagedFile, InputError
from ..files import images, ngff, nodes, stores
from ..files.image import Image
from ..files.selection import pixel_size, plane_size
from ..labeling import records
from ..labeling.output import Output, is_beside
from ..model.arrays import convert
from ..model.classes import color


class _Source(msgspec.Struct, frozen=True):
    """What is read of the notes on the image that was labeled."""

    name: str | None = None
    fixed: tuple[tuple[str, int], ...] = ()


class _Settings(msgspec.Struct):
    """What is read of the settings of a run."""

    integrator: list[Any] | None = None


class _Notes(msgspec.Struct):
    """What is read of the notes of a run."""

    settings: _Settings
    names: list[str] = []
    tiles: int = 0
    tile: list[int] = []
    source: _Source = _Source()


@dataclass(frozen=True)
class Result:
    """One labels/NAME of an output.

    Attributes
    ----------
    store, name : the output and its labels
    labels : the label image at full resolution, all time points
    names : of the classes, by label value from 1
    colors : red, green and blue of each label value
    notes : what the run wrote about itself
    """

    store: str
    name: str
    labels: Image
    names: Mapping[int, str]
    colors: Mapping[int, tuple[int, ...]]
    notes: Mapping[str, Any] = field(repr=False)

    @property
    def group(self) -> str:
        """Path of the label image within the store."""
        return f"labels/{self.name}"

    @property
    def out(self) -> Output:
        """The output as runs see it."""
        return Output(self.store, self.name)

    @property
    def pixel_size(self) -> tuple[float, ...] | None:
        """Micrometers along each spatial axis, None where one is not known."""
        return pixel_size(self.labels)

    @property
    def plane_size(self) -> tuple[float, float] | None:
        """Micrometers along y and x, None where one is not known."""
        return plane_size(self.labels)

    @property
    def picture(self) -> Image | None:
        """The image beside the labels, where they are of it in time and depth; None without one.

        Labels of a part, or of a coarser level, of an input that they were added to have another
        grid.
        """
        if not ngff.has_image(self.store):
            return None
        found = ngff.read_multiscale(self.store)
        sizes, axes = dict(zip(found.axes, found.shapes[0], strict=False)), self.labels.grid_axes
        fixed, choice = dict(self.notes.get("source", {}).get("fixed", ())), dict[str, Any]()
        if "t" in axes and "t" in sizes:
            choice["time_point"] = "all"
        elif sizes.get("t", 1) > 1:
            choice["time_point"] = fixed.get("t", 0)
        if sizes.get("z", 1) > 1 and "z" not in axes:
            choice["z"] = fixed.get("z", 0)
        return images.open_image(self.store, **choice)

    @property
    def confidence(self) -> Image | None:
        """The confidence of these labels, None where it was not written."""
        if not ngff.has_image(self.store, "confidence") or not self.out.owns_confidence():
            return None
        return images.open_labels(f"{self.store}/confidence", series=True)


def open_result(
    path: str | os.PathLike[str], name: str | None = None, *, unfinished: bool = False
) -> Result:
    """Open the labels of an output.

    Parameters
    ----------
    path : the output, also an input that labels were added to, or a URL
    name : of the labels; may be left out where there is one
    unfinished : whether labels of a run that was cut, or failed in places, will do

    Raises
    ------
    ValueError
        If there are no such labels, several, or unfinished ones.
    """
    path = os.fspath(path)
    if not stores.is_url(path) and not os.path.exists(path):
        raise InputError(f"{path}: no such file or folder")
    listed = ngff.label_names(path) if nodes.is_store(path) else []
    noted = {one: Output(path, one).notes() for one in listed if name in (None, one)}
    found = {
        one: notes
        for one, notes in noted.items()
        if notes and "settings" in notes and not is_beside(notes)
    }
    if len(found) != 1:
        which = "labels of tiledlaf" if name is None else f"labels/{name} of tiledlaf"
        got = f"several, {', '.join(found)} (`name` chooses)" if found else "none"
        raise InputError(f"{path}: expected an output with {which}, got {got}")
    ((name, notes),) = found.items()
    assert notes is not None
    try:
        known = convert(dict(notes), _Notes)
    except InputError as error:
        raise DamagedFile(
            f"{path}: expected notes of a run on labels/{name}, got others: {error}"
        ) from None
    group = f"labels/{name}"
    if not unfinished:
        if not known.names:
            raise DamagedFile(f"{path}: expected names of classes in the notes on labels/{name}")
        _check_finished(Output(path, name), known.tiles)
    names = dict(enumerate(known.names, 1))
    own = ngff.label_colors(path, group)
    colors = {v: tuple(own.get(v, color(v)[:3])) for v in names}
    return Result(
        path, name, images.open_labels(f"{path}/{group}", series=True), names, colors, notes
    )


def _check_finished(out: Output, total: int) -> None:
    """Refuse labels that are not all there."""
    if stores.is_web(out.store):  # which lists no records
        return
    journal = records.journal(out.records)
    changed = records.changed(journal)
    if changed:
        raise InputError(
            f"{out.store}: {changed} changed while labels/{out.name} were made, so they are not to "
            "be trusted"
        )
    states = [r["state"] for r in records.latest(journal).values()]
    done = sum(s in records.FINISHED for s in states)
    if done < total or not records.complete(journal):
        raise InputError(
            f"{out.store}: expected finished labels, got {done} of {total} tiles of labels/"
            f"{out.name}; give the command that makes them once more"
        )
