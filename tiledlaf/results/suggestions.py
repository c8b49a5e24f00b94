"""`suggest`: the windows of unlabeled images whose labels are most in doubt, to annotate there."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import uuid
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import PIL.Image

from ..annotations.areas import REGION
from ..annotations.opening import Painting
from ..errors import InputChanged, InputError, TiledlafWarning, as_whole, understood
from ..files import image as image_files
from ..files import stores
from ..files.image import Image
from ..labeling import batch, inputs, request, resources, tones
from ..labeling.inputs import Item
from ..labeling.plan import Plan, Writing
from ..model.model import Model
from ..pool.crew import Files
from ..pool.opening import Running
from ..pool.tasks import Pool, check_progress
from ..redaction import plain
from . import uncertain
from .suggested import Folder
from .uncertain import Window

SIZES, MOST = (64, 4096), 1000  # pixels along an edge of a window; windows
COLOR = (255, 200, 0)  # of a window's outline

Progress = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Suggestion:
    """A window in which labels are in doubt.

    Attributes
    ----------
    image : path of the image, with the series in it that is meant
    crop, annotations : paths of the picture and of the GeoJSON that has the window
    y, x, height, width : in pixels of the image's level 0
    confidence : mean confidence of the labels in it
    position : index of its plane (z) and time point (t), where the image has these axes
    """

    image: str
    crop: str
    annotations: str
    y: int
    x: int
    height: int
    width: int
    confidence: float
    position: Mapping[str, int] = field(default_factory=dict)


def suggest(
    model: Model | str | os.PathLike[str],
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str] = "suggested",
    *,
    count: int = 10,
    size: int = 256,
    mask: Any = None,
    probabilities: Any = None,
    overwrite: bool = False,
    painting: Painting = Painting(),
    progress: Progress | None = None,
    **options: Any,
) -> list[Suggestion]:
    """Find the windows of unlabeled images whose labels are most in doubt.

    The images are labeled in memory, tile by tile, and no labels are written. Windows are chosen by
    the sum over their pixels of one minus the confidence, which is how many labels are expected to
    be wrong, and of how much the classifiers disagree that were each learned without one fold of
    the training: the standard deviation of the probabilities that they give to the label, if the
    model has them. It finds what is unlike all that was learned from, where the model errs with
    confidence.
    Of several images, at most half of the windows are of one, and at most twice its even share, as
    long as others have some. Windows do not overlap, and do not depend on tiles.

    Parameters
    ----------
    model : Model or path
        A trained model; of one whose confidence is not calibrated, it is the share of the winner.
    images : path or paths
        Files, globs, folders of images, and tables (.csv) of images with options of their own.
    output : path
        Folder for a GeoJSON of each image with its windows, in pixels of level 0, and for their
        pictures.
    count : int
        Windows of all images together, 1 to 1000.
    size : int
        Even number of pixels along the edge of a window, at the level that is read.
    mask, probabilities, painting
        As of `label`; the first two also globs or folders of files that belong to the images by
        their names.
    overwrite : bool
        Whether suggestions that are in the folder are replaced.
    progress : callable, optional
        Called with {"stage", "done", "of"} as tiles are done; the stage names the image.
    **options
        As of `label`: which part of a file (see `Selection`), and how the work is done (see
        `Running`).

    Returns
    -------
    list of Suggestion
        First that with most doubt.

    Raises
    ------
    ValueError
        If an image cannot be labeled, or the folder has files of something else.

    Examples
    --------
    >>> import tiledlaf
    >>> tiledlaf.suggest("my.model", "slides/*.svs", count=20)  # doctest: +SKIP
    """
    check_progress(progress)
    count, size = _checked(count, size)
    unknown = {one.name for one in dataclasses.fields(Writing)} & set(options)
    if unknown:
        raise TypeError(f"suggest() has no keyword {min(unknown)!r}")
    selection, _, running = request.grouped(options, "suggest", suggest.__kwdefaults__ or ())
    folder = Folder.check(output, overwrite)
    choice = {"model": model, "mask": mask, "probabilities": probabilities}
    choice = batch.settled_choice(choice) | {"selection": selection, "painting": painting}
    choice |= {"writing": Writing(confidence=True), "running": running}
    several = [images] if isinstance(images, str | os.PathLike) else images
    with understood("images", images, "a path or paths"):
        given = [os.fspath(one) for one in several]
    items = inputs.find(given, folder.path, selection.series)
    items, choice = inputs.paired(items, choice)
    names = [inputs.name_of(item.output).removesuffix(inputs.ENDING) for item in items]
    folder.check_names(names, count)
    _say_raw(choice["model"])
    folds = choice["model"].folds
    plans = [
        uncertain.with_folds(batch.plan_of(item, choice, written=False), folds) for item in items
    ]
    found = _found(items, plans, running, (size, count), progress)
    return _written(folder, items, names, plans, share(found, count))


def _checked(count: Any, size: Any) -> tuple[int, int]:
    count, size = as_whole("count", count), as_whole("size", size)
    if not 1 <= count <= MOST:
        raise InputError(f"`count` expects 1 to {MOST} windows, got {count}")
    if not SIZES[0] <= size <= SIZES[1] or size % 2:
        raise InputError(f"`size` expects an even number from {SIZES[0]} to {SIZES[1]}, got {size}")
    return count, size


def _say_raw(model: Any) -> None:
    if not isinstance(model, Model):
        raise InputError("expected a model, got none")
    if model.calibration is None:
        warnings.warn(
            "the model's confidence is not calibrated: windows are chosen by the share of the "
            "winning class (train again to have it calibrated)",
            TiledlafWarning,
            stacklevel=3,
        )


def _found(
    items: Sequence[Item],
    plans: Sequence[Plan],
    running: Running,
    wanted: tuple[int, int],
    progress: Progress | None,
) -> list[list[Window]]:
    """The windows of each image."""
    paths = [path for plan in plans for path in plan.paths]
    found = []
    with resources.open_pool_of(plans, running, Files(stores.on_disk(paths))) as pool:
        for number, (item, plan) in enumerate(zip(items, plans, strict=True), 1):
            stage = f"{number}/{len(items)} {item.title}"
            found.append(_of_image(plan, pool, wanted, stage, progress))
    return found


def _of_image(
    plan: Plan, pool: Pool, wanted: tuple[int, int], stage: str, progress: Progress | None
) -> list[Window]:
    plan = request.settle(plan, pool)

    def told(done: int) -> None:
        if progress is not None:
            progress({"stage": stage, "done": done, "of": len(plan.job.grid)})

    found = uncertain.windows(plan, pool, *wanted, told)
    changed = plan.changed()
    if changed:
        raise InputChanged(f"{changed[0]} changed during the run; try again once it no longer does")
    return found


def share(found: Sequence[Sequence[Window]], count: int) -> list[tuple[int, Window]]:
    """The windows to suggest, with the number of their image, first the worst.

    Parameters
    ----------
    found : those of each image, first the worst
    """
    ranked = sorted(
        ((n, window) for n, several in enumerate(found) for window in several),
        key=lambda one: -one[1].doubt,
    )
    most = count
    if len(found) > 1:
        most = min(math.ceil(count / 2), math.ceil(2 * count / len(found)))
    taken: Counter[int] = Counter()
    first: list[tuple[int, Window]] = []
    rest: list[tuple[int, Window]] = []
    for one in ranked:
        taken[one[0]] += 1
        (first if taken[one[0]] <= most else rest).append(one)
    chosen = first[:count] + rest[: max(0, count - len(first))]
    return sorted(chosen, key=lambda one: (-one[1].doubt, one[0]))


def _written(
    folder: Folder,
    items: Sequence[Item],
    names: Sequence[str],
    plans: Sequence[Plan],
    chosen: Sequence[tuple[int, Window]],
) -> list[Suggestion]:
    """Write the windows of each image, and their pictures."""
    if not chosen:
        raise InputError("expected images with pixels whose labels are in doubt, found none")
    made: list[Suggestion] = []
    numbers: Counter[int] = Counter()
    for n, window in chosen:
        numbers[n] += 1
        paths = (f"{names[n]}-{numbers[n]}.png", f"{names[n]}.geojson")
        crop, drawn = (os.path.join(folder.path, path) for path in paths)
        image = plans[n].job.image
        made.append(
            Suggestion(items[n].title, crop, drawn, *_place(image, window), **_means(image, window))
        )
    with folder.begun(f for one in made for f in (one.crop, one.annotations)) as put:
        for drawn in dict.fromkeys(one.annotations for one in made):
            put(drawn, _geojson([one for one in made if one.annotations == drawn]))
        for one, (n, window) in zip(made, chosen, strict=True):
            put(one.crop, _crop(plans[n].job.image, window))
    return made


def _place(image: Image, window: Window) -> tuple[int, int, int, int]:
    """y, x, height and width in pixels of level 0."""
    spans = []
    for span, whole, n in zip(window.box[-2:], image.whole[-2:], image.grid[-2:], strict=True):
        first, last = round(span.start * whole / n), round(span.stop * whole / n)
        spans.append((first, max(last - first, 1)))
    (y, height), (x, width) = spans
    return y, x, height, width


def _means(image: Image, window: Window) -> dict[str, Any]:
    position = {axis: int(index) for axis, index in image.fixed if axis in "zt"}
    axes = zip(image.grid_axes[:-2], window.box, image.whole, image.grid, strict=False)
    for axis, span, whole, n in axes:
        position[axis] = math.floor((span.start + 0.5) * whole / n)
    return {"confidence": window.confidence, "position": position}


def _crop(image: Image, window: Window) -> bytes:
    """The pixels of a window as people look at them, as PNG."""
    pixels = image_files.read_pixels(image, window.box, stored=True)
    pixels = pixels.reshape(len(pixels), *pixels.shape[-2:])
    channels = tones.chosen(image)
    file = io.BytesIO()
    PIL.Image.fromarray(tones.shown(pixels[channels], image, channels)).save(file, "png")
    return file.getvalue()


def _geojson(windows: Sequence[Suggestion]) -> bytes:
    """The windows of an image: of QuPath's class for where to look, which names no class."""
    return (json.dumps(_collection(windows), ensure_ascii=False, indent=1) + "\n").encode()


def _collection(windows: Sequence[Suggestion]) -> dict[str, Any]:
    features = []
    for number, one in enumerate(windows, 1):
        top, left, bottom, right = one.y, one.x, one.y + one.height, one.x + one.width
        corners = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
        geometry: dict[str, Any] = {"type": "Polygon", "coordinates": [corners]}
        if one.position:
            geometry["plane"] = {"c": -1, "z": 0, "t": 0} | dict(one.position)
        name = f"{plain(one.image)}/{sorted(one.position.items())}/{corners}"
        features.append(
            {
                "type": "Feature",
                "id": str(uuid.uuid5(uuid.NAMESPACE_URL, name)),
                "geometry": geometry,
                "properties": {
                    "objectType": "annotation",
                    "name": f"suggested {number}",
                    "classification": {"name": REGION, "color": list(COLOR)},
                    "isLocked": True,  # so that a brush does not change it
                    "measurements": {"mean confidence": round(one.confidence, 6)},
                },
            }
        )
    return {"type": "FeatureCollection", "features": features}


def lines(found: Sequence[Suggestion], folder: str) -> list[str]:
    """What was found, as a table."""
    axes = [axis for axis in "tz" if any(axis in one.position for one in found)]
    head = ["image", *axes, "y", "x", "size", "mean confidence"]
    rows = [
        [
            *(plain(one.image), *(str(one.position.get(axis, "")) for axis in axes)),
            *(str(one.y), str(one.x), f"{one.height} x {one.width}", f"{one.confidence:.3f}"),
        ]
        for one in found
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    table = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
        for row in (head, *rows)
    ]
    images = len({one.annotations for one in found})
    told = f"{len(found)} window{'s' * (len(found) > 1)} of {images} image{'s' * (images > 1)}"
    return [*table, f"written: {told} to {folder}"]
