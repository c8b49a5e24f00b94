"""Makes the objects of a class, and puts them into place once all is there.

On a file system they are made in a folder of another name and renamed; on an object store they are
listed, and said to be ready, at last, by the run that has claimed them (see `leases`). So none are
seen in part. A run that was cut goes on with what it has found; see `unfinished`.
"""

from __future__ import annotations

import collections
import colorsys
import contextlib
import functools
import math
import os
import time as clock
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import __version__
from ..errors import NotEnoughMemory, OutputBelongsElsewhere
from ..files import columns, fingerprints, levels, ngff, nodes, stores, units
from ..files.image import Image, say
from ..files.levels import Pyramid
from ..labeling import claiming, records
from ..labeling.resources import PROCESS_BYTES
from ..pool.tasks import Pool
from ..tiles import Grid
from . import components, measures, unfinished
from .components import Part, Search
from .leases import leased
from .measures import Gauge, Sums
from .result import Result, open_result
from .unfinished import Index, Progress, Telling

TABLE = "table"  # the group of it, within that of the objects
DEEP, WIDE = 32, 512  # edges of tiles of volumes
COLORED = 1000  # objects that have colors of their own: of more, viewers choose them

HOLES, FINDING = "finding holes", "finding objects"
WRITING, MEASURING = "writing objects", "measuring objects"

_NONE = np.empty(0, np.int32)


def origin(result: Result) -> dict[str, Any]:
    """Which labels these are: settings, start, and the run that has written the last of them."""
    last = collections.deque(records.entries(result.out.records), maxlen=1)
    return {
        "fingerprint": result.notes.get("fingerprint"),
        "tile": result.notes.get("tile"),
        "start": result.out.found_stamp() or "",
        "run": last[0].get("run", "") if last else "",
    }


@dataclass(frozen=True)
class Work:
    """Objects to make."""

    result: Result
    group: str
    name: str
    value: int
    settings: Mapping[str, Any]
    given: Image | None = None

    @property
    def search(self) -> Search:
        """What is looked for."""
        labels = self.result.labels.with_absolute_path()
        zero, size = (0,) * len(labels.grid), labels.grid
        tile = tile_of(self.result.notes["tile"], len(labels.spatial_axes))
        return Search(
            labels,
            self.value,
            Grid(size, zero, size, tile, zero),
            self.settings["connectivity"] == "full",
            self.settings["fill_holes"],
            self.settings["largest_hole"],
        )

    @property
    def bytes(self) -> int:
        """Peak memory of a worker."""
        search = self.search
        edges = list(map(min, search.grid.tile, search.grid.size))[search.front :]
        return predicted_bytes(edges, search.labels.dtype, search.fill, self.picture)

    @functools.cached_property
    def picture(self) -> Image | None:
        """The image whose channels are measured: of the grid of the labels."""
        found = self.result.picture if self.given is None else self.given
        if found is None:
            return None
        if found.grid != self.result.labels.grid:
            say(
                f"{self.result.store}: the image has the size {found.grid} and the labels "
                f"{self.result.labels.grid}, so no means of its channels are taken"
            )
            return None
        return found.with_absolute_path()

    def make(self, pool: Pool, progress: Progress) -> None:
        """Find, number, write and measure the objects, and put them into place."""
        result, of = self.result, origin(self.result)
        remote, notes, image = stores.is_url(result.store), self._notes(of), self.image
        if not remote:
            ngff.check_links(result.store, self.group)
        with (
            leased(result.store, self.group, notes["objects"]) as still,
            unfinished.opened(result.store, self.group, self._key(notes)) as (made, journal),
        ):
            if remote and not self._begun(notes):
                journal.drop(WRITING)  # over which others may have written
                self._begin(notes)

            def told(record: dict[str, Any]) -> None:
                still()
                progress(record)

            tell = Telling(told, journal)
            count = self._write(made, pool, tell, *self._find(pool, tell))
            channels = self._measure(made, pool, tell, count)
            notes["objects"] |= {"count": count, "channels": list(channels)}
            notes["ready"] = True
            where = (result.store, self.group, result.group)
            self._check_mine(notes["objects"])
            still(True)
            ngff.add_label_like(*where, _shown(count), notes, None if remote else made)
            if not remote:
                _put(result.store, made, self.group, notes["objects"])
        version = "0.5" if image.zarr_format == 3 else "0.4"
        ngff.list_label(result.store, self.group, version, image.zarr_format)
        nodes.index(result.store, f"{self.group}/{TABLE}")
        if not remote:  # those of killed runs
            units.remove_parts(result.store, "labels", clock.time() - 3600)

    @property
    def image(self) -> ngff.Multiscale:
        """Levels of the labels, which the objects have as well."""
        return ngff.read_multiscale(f"{self.result.store}/{self.result.group}", further=False)

    def _measure(self, made: str, pool: Pool, tell: Telling, count: int) -> tuple[str, ...]:
        """Write the table; returns the names of the channels."""
        result, picture, confidence = self.result, self.picture, self.result.confidence
        gauge = Gauge(
            made,
            f"{self.group}/0",
            self.search.front,
            self.search.grid,
            picture,
            None if confidence is None else confidence.with_absolute_path(),
            result.pixel_size,
        )
        table = _measured(gauge, count, pool, tell)
        size = None if result.pixel_size is None else list(result.pixel_size)
        about = {"axes": gauge.axes, "pixel_size": size}
        columns.write(made, f"{self.group}/{TABLE}", table, self.image.zarr_format, about)
        return () if picture is None else picture.used_names

    def _notes(self, of: Mapping[str, Any]) -> dict[str, Any]:
        entry = {
            "labels": self.result.name,
            "class": self.name,
            "value": self.value,
            "settings": dict(self.settings),
            "of": dict(of),
        }
        return {"objects": entry, "ready": False}

    def _key(self, notes: Mapping[str, Any]) -> str:
        """What tells objects in the making from others: all that they and their table depend on."""
        image, of = self.picture, dict(notes["objects"])
        if image is not None:
            of["picture"] = [image.path, list(image.grid), image.dtype, list(image.used_names)]
        of["confidence"] = self.result.confidence is not None
        return fingerprints.fingerprint({"version": __version__, "group": self.group, **of})[:32]

    def _begun(self, notes: Mapping[str, Any]) -> bool:
        """Whether the arrays on an object store are those of such objects, not yet finished."""
        return (ngff.read_notes(self.result.store, self.group) or {}) == notes

    def _begin(self, notes: Mapping[str, Any]) -> None:
        """Say on an object store that objects are being made: what is here is none meanwhile."""
        store = self.result.store
        ngff.unlist_label(store, self.group)
        ngff.add_label_like(store, self.group, self.result.group, _shown(0), notes)

    def _check_mine(self, own: Mapping[str, Any]) -> None:
        """Refuse objects of labels that were made anew meanwhile."""
        store = self.result.store
        if origin(open_result(store, self.result.name)) != own["of"]:
            raise OutputBelongsElsewhere(
                f"{store}: {self.result.group} was removed or begun anew while objects of it were "
                "made"
            )

    def _find(
        self, pool: Pool, tell: Telling
    ) -> tuple[int, dict[Index, np.ndarray], dict[Index, np.ndarray]]:
        """Number of objects; by tile, what of the background is filled, and objects."""
        search = self.search
        every = [tile.index for tile in search.grid]
        count = len(every)
        filled: dict[Index, np.ndarray] = {}
        if search.fill:
            joining, parts = components.Joining(search.front), {}
            each = ((index, index) for index in every)
            found = tell.each(HOLES, pool, components.find_background, search, each, count, Part)
            for index, part in found:
                border = joining.add(index, part)
                parts[index] = part.area[border - 1], part.open[border - 1]
            filled = components.holes(parts, joining, search.largest)
        joining, parts = components.Joining(search.front), {}
        items = ((index, (index, filled.get(index, _NONE))) for index in every)
        for index, part in tell.each(FINDING, pool, components.find, search, items, count, Part):
            joining.add(index, part)
            parts[index] = part.first, part.area
        count, numbers = components.number(parts, joining, self.settings["min_size"])
        return count, filled, numbers

    def _write(
        self,
        made: str,
        pool: Pool,
        tell: Telling,
        count: int,
        filled: Mapping[Index, np.ndarray],
        numbers: Mapping[Index, np.ndarray],
    ) -> int:
        """Write the label image and its lower levels; returns the number of objects."""
        search, found = self.search, self.image
        pyramid = Pyramid(
            self.group,
            found.axes,
            0,
            found.shapes,
            search.grid.tile,
            found.scales[0],
            found.translations[0],
            found.units,
            "uint32" if count < 2**32 else "uint64",
        )
        pyramid.create(made, "0.5" if found.zarr_format == 3 else "0.4", found.zarr_format)
        items = ((i, (i, filled.get(i, _NONE), own)) for i, own in numbers.items())
        job, size = _Writing(search, made, pyramid), levels.sizes(made, pyramid)

        def there(index: Index, written: int) -> bool:
            return size(search.grid.tile_at(index).core) == written

        for _ in tell.each(WRITING, pool, _write, job, items, len(numbers), int, there):
            pass
        for work in levels.coarse(made, pyramid, levels.nearest):
            units = [(unit.index, unit) for unit in work.units]
            for _ in tell.each("writing levels", pool, levels.finish, work, units, len(units)):
                pass
        return count


@dataclass(frozen=True)
class _Writing:
    search: Search
    store: str
    pyramid: Pyramid


def _write(job: _Writing, item: tuple[Index, np.ndarray, np.ndarray]) -> int:
    """Write the objects of a tile; returns the size of the files in bytes."""
    index, filled, numbers = item
    tile = job.search.grid.tile_at(index)
    found, _ = components.components(job.search, tile, filled)
    block = numbers[components.core_of(job.search, tile, found)]
    return levels.write(job.store, job.pyramid, tile.core, block, levels.nearest)


def _measured(gauge: Gauge, count: int, pool: Pool, tell: Telling) -> measures.Columns:
    """The table of all objects."""
    none = measures.columns(gauge, _nothing(gauge))
    table, parts = measures.blank(none, count), list[tuple[int, Sums]]()
    place = {tile.index: k for k, tile in enumerate(gauge.grid)}
    each, kind = ((index, index) for index in place), tuple[np.ndarray, measures.Columns, Sums]
    for index, (numbers, found, rest) in tell.each(
        MEASURING, pool, measures.measure, gauge, each, len(place), kind
    ):
        for name, values in found.items():
            table[name][numbers - 1] = values
        if len(rest.number):
            parts.append((place[index], rest))
    joined = measures.join(parts)
    if joined is not None:
        for name, values in measures.columns(gauge, joined).items():
            table[name][joined.number - 1] = values
    return table


def _nothing(gauge: Gauge) -> Sums:
    """Sums of no object."""
    ndim = len(gauge.axes)
    channels = 0 if gauge.picture is None else gauge.picture.used_channels
    one, many = np.empty(0, np.int64), np.empty((0, ndim), np.int64)
    pairs = np.empty((0, ndim * (ndim + 1) // 2), np.int64)
    return Sums(
        *(one, one, one, many, many, many, pairs, np.empty((0, 3), np.int64)),
        np.empty((0, channels)),
        np.empty((0, int(gauge.confidence is not None))),
    )


def _shown(count: int) -> dict[str, Any]:
    """What NGFF says of the label values: colors of a few, which differ from their neighbors'."""
    colors = []
    for number in range(1, count + 1 if count <= COLORED else 1):
        hue, light = number * 0.61803398875 % 1, 0.75 + 0.25 * (number % 2)
        red, green, blue = colorsys.hsv_to_rgb(hue, 0.65, light)
        rgba = [*(round(255 * c) for c in (red, green, blue)), 255]
        colors.append({"label-value": number, "rgba": rgba})
    return {"colors": colors} if colors else {}


def _put(store: str, made: str, group: str, entry: Mapping[str, Any]) -> None:
    """Put objects into place, unless the same are there by now; others are moved away."""
    store = stores.absolute(store)
    new, final, gone = os.path.join(made, group), os.path.join(store, group), list[str]()
    try:
        while not claiming.renamed(new, final):
            held = (ngff.read_notes(store, group) or {}).get("objects")
            if held == entry:
                return
            if held is None and os.path.lexists(final):
                raise OutputBelongsElsewhere(f"{store}: other labels have just become {group}")
            away = f"{group}.{uuid.uuid4().hex}{stores.PART}"
            with contextlib.suppress(FileNotFoundError):  # another run was quicker
                os.rename(final, os.path.join(store, away))
                gone.append(away)
    finally:
        stores.at(store).remove(*gone)


def tile_of(tile: Sequence[int], spatial: int) -> tuple[int, ...]:
    """Edges of the tiles that objects are found in: the labels', but thick in volumes."""
    if spatial == 3 and tile[-3] == 1:
        return (*tile[:-3], DEEP, *(min(edge, WIDE) for edge in tile[-2:]))
    return tuple(tile)


def predicted_bytes(edges: Sequence[int], labels: str, fill: bool, picture: Image | None) -> int:
    """Peak memory of a worker: its process, and a tile's pixels, components and runs.

    Parameters
    ----------
    edges : of a tile, along spatial axes
    labels : type of the label image
    """
    pixels = math.prod(edge + 4 for edge in edges)
    finding = 2 * np.dtype(labels).itemsize + 30 + 12 * fill
    channels = 0
    if picture is not None:
        channels = picture.stored_channels * np.dtype(picture.dtype).itemsize
    return PROCESS_BYTES + pixels * max(finding, 60 + 2 * channels)


def check_memory(need: int, pool: Pool) -> None:
    """Refuse objects whose tiles do not fit into a worker's memory.

    Raises
    ------
    ValueError
        Gives what is needed and what is there.
    """
    if pool.memory is not None and need > pool.memory:
        raise NotEnoughMemory(
            f"a worker would need {need / 2**20:.0f} MiB for objects and may use "
            f"{pool.memory / 2**20:.0f} MiB; take fewer workers, or label with a smaller `tile`"
        )
