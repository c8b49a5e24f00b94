"""Objects of a class: connected components of its pixels, as a label image and a table.

They lie beside the labels, as labels/NAME-CLASS, and say of which labels they are: labels that are
made anew have no objects until these are made anew as well.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import InputError, OutputBelongsElsewhere, readable
from ..files import columns, images, ngff, nodes, stores
from ..files.image import Image
from ..labeling.plan import SMALL
from ..pool import opening
from ..pool.crew import Files
from ..pool.opening import Running
from ..pool.tasks import Pool, check_progress
from . import making
from .finding import Finding
from .making import TABLE, Work
from .result import Result, open_result
from .unfinished import Progress


@dataclass(frozen=True)
class Objects:
    """The objects of a class.

    Attributes
    ----------
    store, group : where their label image is
    name : of the class
    count : number of objects
    settings : of `Finding`, with sizes in pixels
    channels : names of the channels whose means the table has, or none
    """

    store: str
    group: str
    name: str
    count: int
    settings: Mapping[str, Any] = field(repr=False)
    channels: tuple[str, ...] = field(default=(), repr=False)

    @property
    def labels(self) -> Image:
        """The label image, with a value for each object; all time points."""
        return images.open_labels(f"{self.store}/{self.group}", series=True)

    @property
    def table(self) -> dict[str, np.ndarray]:
        """Columns of measures, one row for each object; see docs/objects.md."""
        found, _ = columns.read(self.store, f"{self.group}/{TABLE}")
        renamed = {
            _mean(k): f"mean_{_word(name)}" for k, name in enumerate(self.channels) if _word(name)
        }
        if len({*renamed.values(), *found}) < len(renamed) + len(found):
            renamed = {}
        numbers = np.arange(1, self.count + 1, dtype=np.int64)
        return {"label": numbers} | {renamed.get(name, name): c for name, c in found.items()}


def _mean(channel: int) -> str:
    return f"mean_channel_{channel}"


def _word(name: str) -> str:
    return re.sub(r"\W+", "_", name).strip("_")


def value_of(names: Mapping[int, str], cls: str | int) -> int:
    """The label value of a class, by its name or else its number.

    Raises
    ------
    ValueError
        If there is no such class; names those that there are.
    """
    for value, name in names.items():
        if name == cls:
            return value
    for value in names:
        if str(value) == str(cls):
            return value
    known = ", ".join(names.values())
    raise InputError(f"`objects` expects one of the classes {known}, got {str(cls)!r}")


def group_of(labels: str, name: str) -> str:
    """Path of the objects of a class within the store."""
    word = re.sub(r"[^\w.() +-]+", "_", name).strip(" .") or "class"
    if word == "tissue":  # which the mask of tissue is called
        word = "tissue-objects"
    stores.check_length(f"{labels}-{word}")
    return f"labels/{labels}-{word}"


def find_objects(
    result: Result,
    cls: str | int,
    pool: Pool,
    finding: Finding | None = Finding(),
    progress: Progress | None = None,
    picture: Image | None = None,
) -> Objects:
    """Make the objects of a class, unless they are there; those of other settings are replaced.

    Parameters
    ----------
    result : labels, finished
    cls : name of the class, or its label value
    finding : what an object is; None takes those that are there, whatever they are
    progress : called with stage, done and of as tiles are done
    picture : image whose channels are measured; by default the one beside the labels

    Raises
    ------
    ValueError
        If there is no such class, or something else has the place of the objects.
    """
    check_progress(progress)
    value = value_of(result.names, cls)
    name = result.names[value]
    if stores.is_web(result.store):
        raise InputError(f"{result.store}: expected a place to write, such as s3://bucket/out.zarr")
    settings = (finding or Finding()).settings(result.pixel_size)
    work = Work(result, group_of(result.name, name), name, value, settings, picture)
    held = _held(result, name, value)
    if held is not None and (finding is None or held.settings == settings):
        return held
    making.check_memory(work.bytes, pool)
    work.make(pool, progress or (lambda record: None))
    made = _held(result, name, value)
    assert made is not None
    return made


def read_objects(result: Result, cls: str | int) -> dict[str, np.ndarray]:
    """The table of the objects of a class.

    Raises
    ------
    ValueError
        If they were not made, or are those of earlier labels.
    """
    value = value_of(result.names, cls)
    held = _held(result, result.names[value], value)
    if held is None:
        raise InputError(
            f"{result.store}: expected objects of {result.names[value]} of these labels, found "
            "none; make them with `objects`"
        )
    return held.table


def made_objects(result: Result, value: int) -> Objects | None:
    """The objects of a class that were made of these labels; None if there are none."""
    try:
        return _held(result, result.names[value], value)
    except OutputBelongsElsewhere:
        return None


def check_place(store: str, labels: str, name: str, value: int) -> Mapping[str, Any]:
    """Notes on the objects of a class, none where there is nothing.

    Raises
    ------
    ValueError
        If something else has their place.
    """
    group = group_of(labels, name)
    notes = ngff.read_notes(store, group) if nodes.is_store(store) else None
    entry = (notes or {}).get("objects")
    there = notes is not None or not nodes.is_left_over(store, group)
    if there and (not isinstance(entry, Mapping) or entry.get("labels") != labels):
        raise OutputBelongsElsewhere(
            f"{store}: expected no {group} or the objects of labels/{labels}, got other labels"
        )
    if isinstance(entry, Mapping) and entry.get("value") != value:
        raise OutputBelongsElsewhere(
            f"{store}: {group} are the objects of another class, {entry.get('class')!r}"
        )
    return notes or {}


def _held(result: Result, name: str, value: int) -> Objects | None:
    """The objects of a class of these labels, if they are there.

    Raises
    ------
    ValueError
        If something else has their place.
    """
    group = group_of(result.name, name)
    notes = check_place(result.store, result.name, name, value)
    entry = notes.get("objects", {})
    if not notes.get("ready") or entry.get("of") != making.origin(result):
        return None
    with readable(f"{result.store}: its notes on {group}"):
        channels = tuple(map(str, entry["channels"]))
        settings, count = dict(entry["settings"]), int(entry["count"])
    return Objects(result.store, group, name, count, settings, channels)


def open_pool(result: Result, running: Running = Running()) -> AbstractContextManager[Pool]:
    """Open threads for small labels, else processes; or the cluster that was named."""
    count = opening.cores() if running.workers is None else running.workers
    scheduler = running.scheduler
    small = math.prod(result.labels.grid) <= SMALL
    if small and not running.named and not running.watch:
        scheduler = opening.THREADS
    if opening.in_threads(scheduler):
        return opening.open_pool(count, scheduler, None, running.watch)
    files = stores.on_disk([result.store])
    return opening.open_pool(
        count,
        scheduler or opening.PROCESSES,
        running.scheduler_file,
        running.watch,
        Files(files, files),
    )


def objects(
    output: str | os.PathLike[str],
    cls: str | int,
    *,
    name: str | None = None,
    connectivity: str = "face",
    min_size: float | str | None = None,
    fill_holes: bool | float | str = False,
    running: Running = Running(),
    progress: Progress | None = None,
) -> Objects:
    """Find the objects of a class in labels, and measure them; they become labels/NAME-CLASS.

    Those that are there are taken if they are of these labels and settings, otherwise replaced.

    Parameters
    ----------
    output : path or URL of the labels' store
    cls : name of the class, or its label value
    name : of the labels; may be left out where there is one
    connectivity : "face", or "full" if pixels that share only a corner are neighbors as well
    min_size : smaller objects are left out; in square micrometers, cubic ones of volumes, or in
        pixels as "20px"
    fill_holes : whether holes are filled, or the size of the largest one to fill
    running : where and how the work runs
    progress : called with stage, done and of as tiles are done

    Returns
    -------
    Objects
        Numbered by their first pixels, with a table of measures.

    Raises
    ------
    ValueError
        If the labels are not finished, or have no such class.

    Examples
    --------
    >>> import numpy as np, tiledlaf
    >>> image = np.zeros((32, 48)); image[4:9, 6:16] = image[20:24, 30:33] = 1
    >>> options = dict(prototypes=[[0], [1]], names=["background", "spots"], time=0.1)
    >>> _ = tiledlaf.label(image, "spots.zarr", **options)
    >>> found = tiledlaf.objects("spots.zarr", "spots")
    >>> found.count, found.table["area"].tolist(), found.table["centroid_x"].tolist()
    (2, [46, 8], [10.5, 31.0])
    """
    result = open_result(output, name)
    finding = Finding(connectivity, min_size, fill_holes)
    value_of(result.names, cls)  # before workers start
    finding.settings(result.pixel_size)
    with open_pool(result, running) as pool:
        return find_objects(result, cls, pool, finding, progress)
