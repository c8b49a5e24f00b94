"""Check a run and lay out its tiles and arrays, before anything is computed or written."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import InputError, OutputBelongsElsewhere, as_seed, as_whole, understood
from ..files import fingerprints, images, levels, ngff, nodes, spatialdata, stores, units
from ..files.channels import RGB
from ..files.image import Image
from ..files.levels import Pyramid
from ..model.classes import Class
from ..model.model import Images, Model
from ..model.network import network_settings
from ..model.settings import Settings, margin
from ..model.term import Pending
from ..tiles import Grid
from . import records, tissue
from .choice import default_names
from .output import STAMP, Output, check_suffix
from .worker import Job

SMALL = 64 * 2**20  # pixels up to which an image counts as small
MOST_LEVELS = 12


@dataclass(frozen=True)
class Plan:
    """A run that is checked and ready to start; nothing is computed or written yet.

    Attributes
    ----------
    job : what the workers do; its data term may still lack prototypes or scale
    out : where the labels go, None for arrays in memory
    settings, image_print : what the fingerprints of the labels and of the image cover
    names : one name per label value
    held : notes of an earlier start of the same run, or None
    before : notes of any run that were there when this one was planned
    seed : seed for the sample
    classes : the truth values that labels stand for, if they were learned
    images : what the images were like that a model learned from; None without a model
    sources : the inputs whose files must not change, by their names in `settings`
    tissue : what was found as tissue, if that is the mask
    overview : whether a picture of image and labels is drawn at the end
    """

    job: Job
    out: Output | None
    settings: Mapping[str, Any]
    image_print: Mapping[str, Any]
    names: Mapping[int, str]
    held: Mapping[str, Any] | None
    before: Mapping[str, Any] | None
    seed: int
    classes: Sequence[Class] = ()
    images: Images | None = None
    sources: Mapping[str, Image] = field(default_factory=dict)
    tissue: Mapping[str, Any] | None = None
    overview: bool = True

    @property
    def paths(self) -> list[str]:
        """Paths of what is read."""
        return [image.path for image in self.sources.values()]

    def changed(self) -> list[str]:
        """Paths of the inputs whose files are no longer as they were when the run was planned."""
        return [
            image.path
            for name, image in self.sources.items()
            if _state(name, image) != self.settings[name]
        ]


@dataclass(frozen=True)
class Writing:
    """What is written, and where in the output.

    Attributes
    ----------
    name : labels go to labels/NAME
    names : a name for each class
    confidence : whether the confidence of each pixel is written, or returned, as well
    copy_image : whether the image is copied into the output
    into_input : whether labels are added to the store of the image itself
    overwrite : whether labels/NAME of another run are replaced
    overview : whether a picture of image and labels is drawn at the end, beside the output
    """

    name: str = "tiledlaf"
    names: Sequence[str] | None = None
    confidence: bool = False
    copy_image: bool = True
    into_input: bool = False
    overwrite: bool = False
    overview: bool = True

    @property
    def image(self) -> bool:
        """Whether the image is written to the output as well."""
        return self.copy_image and not self.into_input


def make_plan(
    image: Image,
    store: str | None,
    *,
    term: Pending,
    settings: Settings,
    probabilities: Image | None = None,
    mask: Image | None = None,
    model: Model | None = None,
    weights: Image | None = None,
    classes: Sequence[Class] = (),
    region: Sequence[tuple[int, int]] | None = None,
    tile: int | None = None,
    writing: Writing = Writing(),
    seed: int = 0,
) -> Plan:
    """Check a run and lay out its tiles and arrays, without computing or writing.

    Raises
    ------
    ValueError
        If inputs do not fit each other, or the output belongs to another run.
    """
    seed = as_seed(seed)
    if model is not None:
        check_model(model, image, probabilities)
    _check_inputs(image, term, settings, probabilities, mask, weights)
    origin, size = _region(image, region)
    names = _names(writing, classes, term.classes)
    out, held, before = None, None, None
    image_print = _image_print(image, origin, size)
    asked = dict(image_print) | _described(
        term, settings, image, model, probabilities=probabilities, mask=mask, weights=weights
    )
    if store is not None:
        out = _output(store, image, writing)
        out.check(image_print)
        if writing.confidence:
            out.check_confidence()
        if tissue.is_pending(mask):
            out.check_tissue()
        asked |= {"image": writing.image, "confidence": writing.confidence}
        before, held = _held(out, asked, writing.overwrite)
        if held is not None:
            out = dataclasses.replace(out, begun=held.get("start", ""))
    if names is None:
        names = (held or {}).get("names") or default_names(term.classes, probabilities)
    halo = _halo(image, term, settings)
    tiles = Grid(image.grid, origin, size, _tile(tile, held, out, size, halo), halo)
    job = Job(
        image.with_absolute_path(),
        term,
        probabilities and probabilities.with_absolute_path(),
        mask and mask.with_absolute_path(),
        settings,
        tiles,
        certain=writing.confidence,
        weights=weights and weights.with_absolute_path(),
    )
    if out is not None:
        job = _with_arrays(job, out, writing.image, writing.confidence)
    learned = None if model is None else model.images
    sources = _sources(input=image, probabilities=probabilities, mask=mask, weights=weights)
    numbered = dict(enumerate(names, 1))
    shared = (job, out, asked, image_print, numbered, held, before, seed, classes, learned)
    return Plan(*shared, sources, overview=writing.overview)


def _halo(image: Image, term: Pending, settings: Settings) -> tuple[int, ...]:
    """Pixels beyond a core that its labels depend on, along each axis; none along t."""
    ndim, predictor = len(image.spatial_axes), settings.predictor
    beyond = margin(term, None if predictor is None else predictor.features, ndim)
    halo = tuple(h + m for h, m in zip(settings.halo, beyond, strict=True))
    return (0,) * (len(image.grid) - ndim) + halo


def _image_print(image: Image, origin: Sequence[int], size: Sequence[int]) -> dict[str, Any]:
    """What the fingerprint of an image covers."""
    found: dict[str, Any] = {
        "input": image.fingerprint(),
        "array": [image.name, image.axes, list(image.shape), image.dtype],
        "region": [list(origin), list(size)],
    }
    sizes = dict(zip(image.axes, image.shape, strict=True))
    fixed = [[axis, index] for axis, index in image.fixed if sizes[axis] > 1]
    if image.measured:  # else it follows from the file
        found["pixel size"] = list(image.scale)
    return found | ({"fixed": fixed} if fixed else {})


def _check_inputs(
    image: Image,
    term: Pending,
    settings: Settings,
    probabilities: Image | None,
    mask: Image | None,
    weights: Image | None,
) -> None:
    """Refuse inputs that do not fit each other."""
    for other, what in ((probabilities, "probabilities"), (mask, "a mask"), (weights, "weights")):
        if other is not None:
            images.check_size(other, image, what)
    if mask is not None and mask.used_channels != 1:
        raise InputError(f"{mask.path}: expected a mask of one channel, got {mask.used_channels}")
    term.check(image.used_channels)
    if weights is not None and weights.stored_channels != settings.channels:
        raise InputError(
            f"{weights.path}: expected {settings.channels} weights for each pixel, "
            f"got {weights.stored_channels}"
        )


def _names(writing: Writing, classes: Sequence[Class], count: int) -> Sequence[str] | None:
    """Names of the classes, given or learned."""
    names = writing.names
    if classes and names is None:
        names = [one.name for one in classes]
    if names is not None and len(names) != count:
        raise InputError(f"expected {count} names, one per class, got {len(names)}")
    return names


def check_model(model: Model, image: Image, probabilities: Image | None) -> None:
    """Refuse images that do not fit a model."""
    count = image.used_channels
    if count != model.channels:
        names = ", ".join(f"{i} {one.name}" for i, one in enumerate(image.shown) if one.name)
        choose = f" (choose with `channels`{f': {names}' * bool(names)})"
        raise InputError(
            f"{image.path}: the model expects images of {model.channels} channel(s), got {count}"
            + choose * (image.stored_channels > model.channels)
        )
    needed = model.term.takes_probabilities
    if needed != (probabilities is not None):
        what = "expects `probabilities`" if needed else "has a data term: drop `probabilities`"
        raise InputError(f"the model {what}")
    if probabilities is not None and probabilities.stored_channels != model.term.planes(count):
        raise InputError(
            f"{probabilities.path}: the model expects probabilities of {len(model.classes)} "
            f"classes, got {probabilities.stored_channels}"
        )


def _region(
    image: Image, region: Sequence[tuple[int, int]] | None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Origin and size of the part to label; one without t is that of every time point."""
    grid = image.grid
    if region is None:
        return (0,) * len(grid), tuple(grid)
    with understood("region", region, "start and stop for each axis"):
        region = [(as_whole("region", a), as_whole("region", b)) for a, b in region]
    if len(region) == len(image.spatial_axes) < len(grid):
        region = [(0, grid[0]), *region]
    inside = len(region) == len(grid) and all(
        0 <= a < b <= n for (a, b), n in zip(region, grid, strict=False)
    )
    if not inside:
        spans = ",".join(f"{a}:{b}" for a, b in region)
        raise InputError(
            "expected a region of start:stop for each axis, with start < stop, within "
            f"{','.join(f'0:{n}' for n in grid)} (pixels of the level), got {spans}"
        )
    return tuple(a for a, _ in region), tuple(b - a for a, b in region)


def _described(
    term: Pending,
    settings: Settings,
    image: Image,
    model: Model | None,
    **others: Image | None,
) -> dict[str, Any]:
    """The settings that labels depend on, for the fingerprint and for readers."""
    state = network_settings(others.get("probabilities")) | {
        key: _state(key, other)
        for key, other in others.items()
        if other is not None and other.reader.stored
    }
    if model is not None:
        data: dict[str, Any] = {"term": type(term).__name__, "model": model.fingerprint()}
        if model.calibration is not None:  # for readers: the fingerprint covers it
            data["calibration"] = [model.calibration.slope, model.calibration.offset]
    else:
        data = {"term": type(term).__name__, **dataclasses.asdict(term)}
        for found in ("scale", "unit"):  # in a sample
            data.pop(found, None)
    mask = others.get("mask")
    if mask is not None and isinstance(mask.reader, tissue.Pending):
        state["mask"] = mask.reader.describe()
    if image.no_data is not None:
        state["no_data"] = f"{image.no_data:.17g}"
    if image.gain is not None:  # as the user states it: what a model needs follows from the others
        state["intensity_scale"] = f"{image.gain:.17g}"
    return (
        fingerprints.plain(data)
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
        | ({"arithmetic": "float64"} if settings.double or settings.wide else {})
        | ({} if settings.least is None else {"min_confidence": settings.min_confidence})
    )


def _state(name: str, image: Image) -> str:
    """Fingerprint of the files of an input, as in the settings."""
    if name == "input":
        return image.fingerprint()
    return fingerprints.fingerprint({"state": image.state(), "axes": image.axes})


def _output(store: str, image: Image, writing: Writing) -> Output:
    name = writing.name
    if not name or name.startswith(".") or set(name) & set("/\\") or name == "zarr.json":
        raise InputError(f"expected a name without slashes for the labels, got {name!r}")
    if not stores.is_url(store):
        stores.check_length(name)
    elif set(name) & set("%?#"):
        raise InputError(f"expected a name without %, ? and # in a URL, got {name!r}")
    if not writing.into_input:
        check_suffix(store)
        return Output(store, name)
    place = image.reader.place(image.path)
    if not (stores.is_url(place) or os.path.isdir(place)):
        raise InputError(f"{place}: `into_input` expects an OME-Zarr image in a folder or at a URL")
    found = ngff.read_multiscale(place) if nodes.is_store(place) else None
    root, element = spatialdata.locate(place)
    version = found.version if found else "none"
    if found and element:
        version = "0.5" if found.zarr_format == 3 else "0.4"
        if writing.confidence:
            raise InputError("`confidence` has no place in SpatialData: give an OUTPUT instead")
        spatialdata.check_name(root, name)
    if found is None or version not in ("0.4", "0.5"):
        raise InputError(
            f"{place}: `into_input` expects an OME-Zarr 0.4 or 0.5 image as INPUT, got "
            + (f"NGFF version {version}" if found and version else "none")
        )
    return Output(root, name, version, found.zarr_format, True, element)


def _sources(**given: Image | None) -> dict[str, Image]:
    """The inputs that are stored, by their names in the settings."""
    stored = {name: one for name, one in given.items() if one is not None and one.reader.stored}
    return {name: one.with_absolute_path() for name, one in stored.items()}


def _held(
    out: Output, asked: Mapping[str, Any], overwrite: bool
) -> tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]:
    """What is current, and notes of the run to continue, None to start anew."""
    before = out.current()
    notes = {key: value for key, value in (before or {}).items() if key != STAMP}
    return before, _continued(out, notes or None, asked, overwrite)


def _continued(
    out: Output, notes: Mapping[str, Any] | None, asked: Mapping[str, Any], overwrite: bool
) -> Mapping[str, Any] | None:
    """Notes of the run to continue, None to start anew."""
    where = f"{out.store}: labels/{out.name}"
    if overwrite:
        if records.is_locked(out.records):  # the output would mix tiles of both runs
            if (notes or {}).get("fingerprint") == fingerprints.fingerprint(asked):
                return notes  # the same run, which is joined
            raise OutputBelongsElsewhere(
                f"{where} is being written by a run: end it before `overwrite`"
            )
        return None
    if notes is None:
        # a listed name without a group is what an interrupted replacement leaves
        there = _has_metadata(out) or not nodes.is_left_over(out.store, out.group)
        # notes that are gone with all metadata are what a removal that was cut leaves
        begun = out.current() if there else None
        if there and (begun is None or (begun.keys() == {STAMP} and _has_metadata(out))):
            raise OutputBelongsElsewhere(
                f"{where} exists already and is not of tiledlaf (choose another `name` or add "
                "`overwrite`)"
            )
        return None
    if "tissue" in notes:
        raise OutputBelongsElsewhere(f"{where} is a mask of tissue (choose another `name`)")
    if "objects" in notes:
        raise OutputBelongsElsewhere(f"{where} are objects (choose another `name`)")
    if not (notes.get("ready") and notes.get("tile")):  # interrupted before its first tile
        return None
    if notes.get("fingerprint") != fingerprints.fingerprint(asked):
        fingerprints.refuse_difference(
            f"{where} belongs to another run",
            notes.get("settings", {}),
            asked,
            "choose another `name` or add `overwrite`",
        )
    return notes


def _has_metadata(out: Output) -> bool:
    return nodes.is_store(out.store) and nodes.has_group(out.store, out.group)


def _tile(
    tile: int | None,
    held: Mapping[str, Any] | None,
    out: Output | None,
    size: Sequence[int],
    halo: Sequence[int],
) -> tuple[int, ...]:
    """Edges of a tile: those of the store, the user's, or a default by size and halo."""
    if tile is not None and (tile < 16 or (tile > levels.CHUNK and tile % 16)):
        raise InputError(f"expected a tile of 16 or more, from 256 on a multiple of 16, got {tile}")
    other = out is not None and not out.into_input and nodes.is_store(out.store)
    root = ngff.read_notes(out.store, "") if out and other else None
    for notes in (held, root):
        if notes and notes.get("tile"):
            return tuple(notes["tile"])
    deep = any(halo[:-2])
    edge = tile or (128 if deep else 2048 if math.prod(size) > SMALL else 1024)
    # planes of a stack and time points are tiles of their own if the flow does not connect them
    return tuple(edge if h or axis >= len(size) - 2 else 1 for axis, h in enumerate(halo))


def _within(image: Image, out: Output) -> Image:
    """An image placed as labels in SpatialData are: by pixels of its finest level."""
    if not out.element:
        return image
    found = ngff.read_multiscale(f"{out.store}/{out.element}", further=False)
    level = found.paths.index(image.name)
    keep = [image.axes.index(a) for a in image.grid_axes]
    # the grid may be one of other pixels than the level's
    steps = [found.shapes[level][i] / n for i, n in zip(keep, image.grid, strict=True)]
    scale = tuple(
        found.scales[level][i] / found.scales[0][i] * f for i, f in zip(keep, steps, strict=True)
    )
    shift = zip(found.translations[level], found.translations[0], found.scales[0], strict=True)
    moved = [(here - first) / size for here, first, size in shift]
    return dataclasses.replace(image, scale=scale, translation=tuple(moved[i] for i in keep))


def _with_arrays(job: Job, out: Output, copy_image: bool, confidence: bool) -> Job:
    """Lay out the arrays to write."""
    image, grid = job.image, job.grid
    if grid.size == image.grid and len(image.levels) > 1:
        shapes = list(image.levels)
    else:
        shapes = [grid.size]
    # labels added to an input need as many levels as its image; else the last one fits a screen
    image = _within(image, out)
    into = f"{out.store}/{out.element}".rstrip("/")
    count = len(ngff.read_multiscale(into).paths) if out.into_input else MOST_LEVELS
    while len(shapes) < count:
        smaller = levels.halved(shapes[-1], image.grid_axes)
        given = len(image.levels) > 1 and grid.size == image.grid
        enough = given or smaller == shapes[-1] or max(shapes[-1]) <= 512
        if enough and not out.into_input:
            break
        shapes.append(smaller)
    shift = tuple(
        t + o * s for t, o, s in zip(image.translation, grid.origin, image.scale, strict=True)
    )

    def pyramid(group: str, channels: int, dtype: str) -> Pyramid:
        return Pyramid(
            group,
            image.grid_axes,
            channels,
            tuple(shapes),
            grid.tile,
            image.scale,
            shift,
            image.units,
            dtype,
        )

    channels = image.stored_channels if "c" in image.axes else 0
    picture = pyramid("", channels, image.dtype) if copy_image else None
    shown = image.shown or (RGB if image.color and channels == len(RGB) else ())
    if picture and len(shown) == max(channels, 1):
        picture = dataclasses.replace(picture, shown=shown)
    whole = image.reader.chunked and grid.size == image.grid
    alike = whole and image.axes == "c" * bool(channels) + image.grid_axes
    same = stores.is_url(image.path) == stores.is_url(out.store)
    if picture and alike and same and units.copyable(image.path, image.name, grid.tile):
        picture = dataclasses.replace(picture, like=(stores.absolute(image.path), image.name))
    return dataclasses.replace(
        job,
        store=stores.absolute(out.store),
        labels=pyramid(out.group, 0, np.min_scalar_type(job.term.classes).name),
        picture=picture,
        confidence=pyramid("confidence", 0, "float32") if confidence else None,
    )
