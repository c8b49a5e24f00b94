"""Check a run and lay out its tiles and arrays, before anything is computed or written."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import dataterm, ngff, output
from .images import Image
from .job import Job, Settings
from .ngff import Pyramid
from .output import Output
from .tiles import Grid

SMALL = 64 * 2**20  # pixels up to which an image counts as small


@dataclass(frozen=True)
class Plan:
    """A run that is checked and ready to start; nothing is computed or written yet.

    Attributes
    ----------
    job : what workers do; its data term may still be without prototypes or scale
    out : where it goes, None for arrays in memory
    settings, image_print : what the fingerprints of the labels and of the image cover
    names : a name a label value
    held : notes of an earlier start of the same run, or None
    seed : of the sample
    """

    job: Job
    out: Output | None
    settings: Mapping[str, Any]
    image_print: Mapping[str, Any]
    names: Mapping[int, str]
    held: Mapping[str, Any] | None
    seed: int

    def sample(self) -> np.ndarray:
        """Pixels for k-means and the scale, (n, C): of the whole image, less the masked."""
        windows = dataterm.sample_windows(self.job.image.grid, self.seed)
        mask = self.job.mask
        return dataterm.pixels_of(
            [self.job.image.read(w) for w in windows],
            None if mask is None else [mask.read(w)[0] for w in windows],
        )


def make_plan(
    image: Image,
    store: str | None,
    *,
    term: dataterm.Pending,
    settings: Settings,
    probabilities: Image | None = None,
    mask: Image | None = None,
    region: Sequence[tuple[int, int]] | None = None,
    tile: int | None = None,
    name: str = "tiledlaf",
    names: Sequence[str] | None = None,
    confidence: bool = False,
    copy_image: bool = True,
    into_input: bool = False,
    overwrite: bool = False,
    seed: int = 0,
) -> Plan:
    """Check a run and lay out its tiles and arrays, without computing or writing.

    Raises
    ------
    ValueError
        If inputs do not fit each other, or the output belongs to another run.
    """
    grid = image.grid
    for other, what in ((probabilities, "probabilities"), (mask, "mask")):
        if other is not None and other.grid != grid:
            raise ValueError(
                f"{other.path}: expected {what} of the image's size {grid}, got {other.grid}"
            )
    if mask is not None and mask.stored_channels != 1:
        raise ValueError(f"{mask.path}: expected a mask of one channel, got {mask.stored_channels}")
    if probabilities is None and isinstance(term, dataterm.Prototypes):
        count = len(image.channels or range(image.stored_channels))
        if len(term.values[0]) != count:
            raise ValueError(
                f"expected prototypes with {count} columns, one a channel, got {len(term.values[0])}"
            )
    origin, size = _region(grid, region)
    labels = {
        v: n for v, n in enumerate(names or [f"class {j + 1}" for j in range(term.classes)], 1)
    }
    if len(labels) != term.classes:
        raise ValueError(f"expected {term.classes} names, one a class, got {len(labels)}")
    out, held = None, None
    image_print = {
        "input": output.fingerprint({"state": image.state()}) if image.source != "memory" else "",
        "array": [image.name, image.axes, list(image.shape), image.dtype],
        "region": [list(origin), list(size)],
    }
    asked = dict(image_print) | _described(term, settings, image, probabilities, mask)
    if store is not None:
        out = _output(store, image, name, into_input)
        out.check(image_print)
        if confidence:
            out.check_confidence()
        outputs = {"image": copy_image and not into_input, "confidence": confidence}
        held = _held(out, asked | outputs, overwrite)
        asked |= outputs
    edges = _tile(tile, held, out, size, settings, overwrite)
    tiles = Grid(grid, origin, size, edges, settings.halo)
    job = Job(image, term, probabilities, mask, settings, tiles)
    if out is not None:
        job = _with_arrays(job, out, copy_image and not into_input, confidence)
    return Plan(job, out, asked, image_print, labels, held, seed)


def _region(
    grid: Sequence[int], region: Sequence[tuple[int, int]] | None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if region is None:
        return (0,) * len(grid), tuple(grid)
    inside = len(region) == len(grid) and all(
        0 <= a < b <= n for (a, b), n in zip(region, grid, strict=False)
    )
    if not inside:
        spans = ",".join(f"{a}:{b}" for a, b in region)
        raise ValueError(
            f"expected a region within {','.join(f'0:{n}' for n in grid)} (pixels of the level), "
            f"got {spans}"
        )
    return tuple(a for a, _ in region), tuple(b - a for a, b in region)


def _described(
    term: dataterm.Pending, settings: Settings, image: Image,
    probabilities: Image | None, mask: Image | None,
) -> dict[str, Any]:  # fmt: skip
    """The settings that a label depends on, for the fingerprint and for people."""
    data: dict[str, Any] = {"term": type(term).__name__, **dataclasses.asdict(term)}
    data.pop("scale", None)
    state = {
        key: output.fingerprint({"state": other.state(), "axes": other.axes})
        for key, other in (("probabilities", probabilities), ("mask", mask))
        if other is not None and other.source != "memory"
    }
    return (
        _plain(data)
        | state
        | {
            "channels": list(image.channels) if image.channels is not None else None,
            "neighborhood": [list(o) for o in settings.offsets],
            "rho": settings.rho,
            "time": settings.time,
            "integrator": [
                type(settings.integrator).__name__,
                dataclasses.asdict(settings.integrator),
            ],
        }
    )


def _plain(entries: dict[str, Any]) -> dict[str, Any]:
    """As JSON gives it back: lists for tuples."""
    return {
        key: [list(row) for row in value] if isinstance(value, tuple) else value
        for key, value in entries.items()
    }


def _output(store: str, image: Image, name: str, into_input: bool) -> Output:
    if not name or name.startswith(".") or set(name) & set("/\\"):
        raise ValueError(f"expected a name without slashes for the labels, got {name!r}")
    if not into_input:
        return Output(store, name)
    found = ngff.read_multiscale(image.path) if ngff.is_store(image.path) else None
    if found is None or not found.version:
        raise ValueError(f"{image.path}: --into-input expects an OME-Zarr image")
    return Output(image.path, name, found.version, found.zarr_format, True)


def _held(out: Output, asked: Mapping[str, Any], overwrite: bool) -> Mapping[str, Any] | None:
    """Notes of the run to go on with, None to start anew."""
    if overwrite:
        return None
    notes = out.notes()
    where = f"{out.store}: labels/{out.name}"
    if notes is None:
        if out.name in (ngff.label_names(out.store) if ngff.is_store(out.store) else []):
            raise ValueError(
                f"{where} is there already and not of tiledlaf; choose another --name or add --overwrite"
            )
        return None
    if notes.get("fingerprint") != output.fingerprint(asked):
        output.refuse_difference(
            f"{where} belongs to another run (choose another --name or add --overwrite)",
            "settings", notes.get("settings", {}), asked,
        )  # fmt: skip
    return notes if notes.get("ready") else None


def _tile(
    tile: int | None, held: Mapping[str, Any] | None, out: Output | None,
    size: Sequence[int], settings: Settings, overwrite: bool,
) -> tuple[int, ...]:  # fmt: skip
    """Edges of a tile: the store's own, the user's, or a default by size and halo."""
    if tile is not None and (tile < 16 or (tile > ngff.CHUNK and tile % 16)):
        raise ValueError(f"expected a tile of 16 or more, from 256 on a multiple of 16, got {tile}")
    root = ngff.read_notes(out.store, "") if out and ngff.is_store(out.store) else None
    for notes in (held, root):
        if notes and notes.get("tile"):
            return tuple(notes["tile"])
    deep = len(size) == 3 and settings.halo[0] > 0
    edge = tile or (128 if deep else 2048 if math.prod(size) > SMALL else 1024)
    # a plane of a stack is a tile of its own where planes do not touch
    return (edge,) * len(size) if deep or len(size) == 2 else (1, edge, edge)


def _with_arrays(job: Job, out: Output, copy_image: bool, confidence: bool) -> Job:
    """Lay out the arrays to write."""
    image, grid = job.image, job.grid
    if grid.size == image.grid and len(image.levels) > 1:
        shapes = list(image.levels)
    else:
        shapes = [grid.size]
    while len(shapes) < (len(image.levels) if out.into_input else 12):
        smaller = ngff.halved(shapes[-1], image.spatial_axes)
        flat = len(image.levels) == 1 or grid.size != image.grid
        if smaller == shapes[-1] or (not out.into_input and (not flat or max(shapes[-1]) <= 512)):
            break
        shapes.append(smaller)
    shift = tuple(
        t + o * s for t, o, s in zip(image.translation, grid.origin, image.scale, strict=True)
    )
    small = np.min_scalar_type(job.term.classes).name

    def pyramid(group: str, channels: int, dtype: str) -> Pyramid:
        return Pyramid(
            group, image.spatial_axes, channels, tuple(shapes), grid.tile,
            image.scale, shift, image.units, dtype,
        )  # fmt: skip

    channels = image.stored_channels if "c" in image.axes else 0
    return dataclasses.replace(
        job,
        store=out.store,
        labels=pyramid(out.group, 0, small),
        picture=pyramid("", channels, image.dtype) if copy_image else None,
        confidence=pyramid("confidence", 0, "float32") if confidence else None,
    )


def needed_bytes(plan: Plan) -> int:
    """Disk space to expect: the image as large as stored, labels at an eighth, confidence whole."""
    job = plan.job
    pixels = math.prod(job.grid.size) * 4 / 3
    need = pixels * (1 / 8 + 4 * (job.confidence is not None))
    if job.picture is not None:
        itemsize = np.dtype(job.image.dtype).itemsize
        raw = math.prod(job.image.grid) * job.image.stored_channels * itemsize
        stored = (
            sum(size for _, size, _ in job.image.state()) if job.image.source != "memory" else raw
        )
        # a JPEG grows when its pixels are stored without loss
        lossy = job.image.source in ("tiff", "raster")
        need += pixels / math.prod(job.image.grid) * (raw / 2 if lossy else min(stored, raw))
    return int(need)
