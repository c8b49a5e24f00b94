"""Compares labels with a truth: confusion matrix, pixel error, F1, IoU, adapted Rand error."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..annotations import numbering, opening
from ..annotations.opening import Painting
from ..annotations.values import Meaning, meaning, open_labels
from ..errors import InputError
from ..files import image as image_files
from ..files import images, ngff, nodes
from ..files.cropped import cropped
from ..files.image import Image
from ..model.classes import ignored
from ..pool import tasks
from ..pool.opening import cores
from ..tiles import Box, Grid, Tile
from . import pictures, scores
from .scores import Classes, Evaluation, Pairs

EDGE = 2048  # of a 2-D window that is compared at once
SHOWN = 2000  # pixels along an edge of a picture, at most
DENSE = 1024  # range of values that are counted without sorting


def evaluate(
    labels: Any,
    truth: Any,
    *,
    boundary: str | None = None,
    name: str = "tiledlaf",
    ignore: int | str | Sequence[int | str] | None = None,
    instances: str | None = None,
    colors: Mapping[str, Any] | Sequence[tuple[str, str]] | None = None,
    painting: Painting = Painting(),
    names: Mapping[int, str] | Sequence[str] | None = None,
    values: Mapping[int, Sequence[int]] | Sequence[Sequence[int]] | None = None,
) -> Evaluation:
    """Compare labels with a truth, tile by tile.

    Parameters
    ----------
    labels : array or path
        An OME-Zarr with labels/NAME, a label image in it, or any label image of one channel: Zarr,
        TIFF, PNG, npy.
    truth : array or path
        A label image of the same size, or of that of the image that was labeled; or annotations of
        the labels' classes (see `train`).
    boundary : str, optional
        Name of the class between the components of the adapted Rand error, such as membranes;
        without it that error is not computed. Components are connected pixels of one class that
        share edges; pixels whose truth is the boundary are not compared. Needs about 50 bytes of
        memory per pixel.
    name : str
        Name of the labels in an OME-Zarr.
    ignore : int, or several, optional
        Truth values that are left out; labels of these values are no class. Colors of `colors`,
        such as "#000000", too.
    instances, colors : optional
        What the values of the truth mean, as in `pair`.
    painting : Painting
        How annotations become pixels.
    names : one name per label value, optional
        A mapping, or a list for the label values from 1 on. By default those stored with the label
        image, else the values themselves.
    values : truth values of each label value, optional
        A mapping, or a list for the label values from 1 on: which values of the truth each class
        stands for. By default those stored with the label image (`values` in its properties), else
        truth and labels are compared as they are and every value is a class.

    Returns
    -------
    Evaluation

    Raises
    ------
    ValueError
        If the images cannot be compared; the message says what was expected and what it got.

    Examples
    --------
    >>> import numpy as np, tiledlaf
    >>> truth = np.array([[1, 1, 2, 2], [1, 1, 2, 2]])
    >>> labels = np.array([[1, 1, 1, 2], [1, 1, 2, 2]])
    >>> found = tiledlaf.evaluate(labels, truth)
    >>> found.error
    0.125
    >>> found.confusion
    array([[4, 0],
           [1, 3]])
    """
    meant = meaning(instances, colors, ignore)
    given, wanted, kept, origin = _open(labels, truth, name, meant, painting)
    opening.check_painting(painting, wanted)
    left_out = ignored(() if meant.converts else meant.values)
    if boundary is not None and "t" in given.grid_axes:
        raise InputError("`boundary`: expected labels of one time point, whose components it means")
    named, stands, own = _properties(kept, given.path)
    if names is not None:
        named = {v: str(text) for v, text in _by_value(names).items()}
    if values is not None:
        stands = {v: tuple(map(int, truths)) for v, truths in _by_value(values).items()}
    if numbering.names_of(wanted):
        numbering.check_ignore(wanted, meant.values or None)
        if values is not None:
            raise InputError("`values` are those of label images, got annotations as truth")
        stands = _drawn_values(wanted.path, named)
        wanted = numbering.numbered_as(wanted, {named[v]: own[0] for v, own in stands.items()})
    wanted = _part(wanted, origin, given)
    classes = None
    if stands:
        classes = scores.mapped(stands, named, left_out, given.path)
        scores.check_boundary(boundary, classes.names)
    with tasks.threads(cores()) as pool:
        pairs: Pairs = Counter()
        for _, counts in _each_tile(pool, _count, (given, wanted), _grid(given)):
            pairs.update(counts)
        if classes is None:
            classes = scores.compared(pairs, named, left_out, own, given.path)
            scores.check_boundary(boundary, classes.names)
        found = scores.sum_up(pairs, classes, given.path, wanted.path, strict=bool(stands))
        if boundary is None:
            return found
        return replace(found, boundary=boundary, rand=_rand(given, wanted, classes, boundary, pool))


def _drawn_values(path: str, names: Mapping[int, str]) -> dict[int, tuple[int, ...]]:
    """The values that annotations get as truth, from 1 on, by label value."""
    if not names:
        raise InputError(
            f"{path}: expected labels with names of classes to compare annotations with, "
            "got labels without names"
        )
    return {v: (own,) for own, v in enumerate(names, 1)}


def _open(
    labels: Any,
    truth: Any,
    name: str,
    meant: Meaning = Meaning(),
    painting: Painting = Painting(),
) -> tuple[Image, Image, str | None, tuple[int, ...]]:
    """Open both; also return the Zarr group of the labels, if any, and where the truth has them."""
    group = None
    if isinstance(labels, str | os.PathLike):
        path = _label_image(os.fspath(labels), name)
        given, group = images.open_labels(path, series=True), path if nodes.is_store(path) else None
    else:
        given = _from_array(labels, "the labels")
    whole, origin = _labeled(given, group)
    if isinstance(truth, str | os.PathLike):
        path = os.fspath(truth)
        listed = ngff.label_names(path) if nodes.is_store(path) else []
        if listed:
            raise InputError(
                f"{path}: expected a label image as truth, got a store with labels: name one, such "
                f"as {os.path.join(path, 'labels', listed[0])}"
            )
        wanted = images.on_grid(open_labels(path, whole, meant, painting), whole)
    else:
        array = np.asarray(truth) if meant.colors else _from_array(truth, "the truth")
        wanted = open_labels(array, given, meant)
    if wanted.grid not in (given.grid, whole.grid):
        raise InputError(
            f"{wanted.path}: expected a truth of the labels' size {given.grid}"
            + f" or of the image's, {whole.whole}" * (whole.whole != given.grid)
            + f", got {wanted.grid}"
        )
    return given, wanted, group, origin


def _labeled(given: Image, group: str | None) -> tuple[Image, tuple[int, ...]]:
    """The grid of the image that was labeled, and the first pixel of the labels on it."""
    notes = (ngff.read_notes(group, "") or {}) if group else {}
    source = notes.get("source")
    if source is None:
        return given, (0,) * len(given.grid)
    sizes = dict(zip(given.grid_axes, source["grid"], strict=True))
    whole = replace(
        given,
        path=source["name"],
        shape=tuple(sizes.get(a, n) for a, n in zip(given.axes, given.shape, strict=True)),
        whole=tuple(source["whole"]),
        fixed=tuple((axis, index) for axis, index in source["fixed"]),
    )
    return whole, tuple(notes["settings"]["region"][0])


def _part(truth: Image, origin: Sequence[int], labels: Image) -> Image:
    """The truth where the labels are."""
    return truth if truth.grid == labels.grid else cropped(truth, origin, labels.grid)


def _label_image(path: str, name: str) -> str:
    """The label image of this name if the path is a store with labels; else the path itself."""
    if not nodes.is_store(path):
        return path
    listed = ngff.label_names(path)
    if name in listed:
        return os.path.join(path, "labels", name)
    # an output without labels as yet holds an image that is not a label image
    if listed or "image" in (ngff.read_notes(path, "") or {}):
        raise InputError(
            f"{path}: expected labels of the name {name}, got {', '.join(listed) or 'none'} "
            "(`name` chooses)"
        )
    return path


def _from_array(data: Any, what: str) -> Image:
    array = np.asarray(data)
    if array.ndim not in (2, 3):
        raise InputError(f"{what}: expected a label image (y, x) or (z, y, x), got {array.shape}")
    return replace(images.from_array(array, "zyx"[-array.ndim :]), path=what)


def _by_value(given: Any) -> dict[int, Any]:
    return dict(given) if isinstance(given, Mapping) else dict(enumerate(given, 1))


def _properties(
    group: str | None, path: str
) -> tuple[dict[int, str], dict[int, tuple[int, ...]], bool]:
    """Names and truth values stored with a label image, and whether its 0 means not labeled."""
    if group is None:
        return {}, {}, False
    found = ngff.label_properties(group, "")
    named: dict[int, str] = {}
    stands: dict[int, tuple[int, ...]] = {}
    try:
        for entry in found:
            value = int(entry["label-value"])
            if "name" in entry:
                named[value] = str(entry["name"])
            stands[value] = tuple(map(int, entry.get("values", ())))
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f'{path}: expected label properties like {{"label-value": 1, "values": [0, 32]}}, '
            f"got {json.dumps(entry)}"
        ) from None
    return (
        named,
        stands if any(stands.values()) else {},
        ngff.read_notes(group, "") is not None,
    )


def _grid(image: Image) -> Grid:
    zero = (0,) * len(image.grid)
    deep = (math.ceil(EDGE / 64), EDGE // 4 or 1, EDGE // 4 or 1)
    edges = (EDGE, EDGE) if len(zero) == 2 else (*(1,) * (len(zero) - 3), *deep)
    return Grid(image.grid, zero, image.grid, edges, zero)


def _each_tile(
    pool: tasks.Pool, function: Callable[[Any, Any], Any], job: Any, tiles: Any
) -> Iterator[tuple[Tile, Any]]:
    for tile, result, error, _ in pool.run(function, job, tiles):
        if error is not None:
            raise error
        yield tile, result


def _read(image: Image, window: Box) -> np.ndarray:
    """Label values of a window, int64, or uint64 as stored."""
    block = image_files.read(image, window)[0]
    if block.dtype == np.uint64:
        return block
    with np.errstate(invalid="ignore"):
        whole = block.astype(np.int64)
    if not np.array_equal(whole, block):
        bad = block[whole != block].flat[0]
        raise InputError(f"{image.path}: expected whole numbers as labels, got {bad}")
    return whole


def _count(job: tuple[Image, Image], tile: Tile) -> Pairs:
    """Count the pairs of one tile."""
    labels, truth = (_coded(_read(image, tile.window), image.path) for image in job)
    columns = len(labels[0])
    counts = np.bincount((truth[1] * columns + labels[1]).ravel())
    return Counter(
        {
            (int(truth[0][i // columns]), int(labels[0][i % columns])): int(counts[i])
            for i in np.flatnonzero(counts)
        }
    )


def _coded(block: np.ndarray, path: str) -> tuple[np.ndarray, np.ndarray]:
    """Values, ascending, and the position of each pixel's value among them."""
    low, high = int(block.min()), int(block.max())
    if high - low < DENSE:
        return np.arange(low, high + 1), block - low
    values, codes = np.unique(block, return_inverse=True)
    scores.check_few(len(values), path)
    return values, codes.reshape(block.shape)


def _rand(
    labels: Image, truth: Image, classes: Classes, boundary: str, pool: tasks.Pool
) -> float | None:
    """Adapted Rand error of the ISBI 2012 challenge, for any number of classes.

    The truth's 0 (boundary, or no class) is not compared; the labels' 0 is one component, as
    scikit-image counts it.
    """
    from skimage.measure import label
    from skimage.metrics import adapted_rand_error

    between = classes.names.index(boundary) + 1
    parts = []
    for image, table in ((truth, classes.of_truth()), (labels, classes.of_labels())):
        whole = np.zeros(image.grid, np.uint16)
        table = {v: c for v, c in table.items() if c != between}
        for tile, block in _each_tile(pool, _read_classes, (image, table), _grid(image)):
            whole[tile.core] = block
        parts.append(label(whole, background=0, connectivity=1))
    with np.errstate(invalid="ignore", divide="ignore"):  # if there is no pair of pixels
        return scores.number(adapted_rand_error(*parts)[0])


def _read_classes(job: tuple[Image, Mapping[int, int]], tile: Tile) -> np.ndarray:
    image, table = job
    return scores.look_up(_read(image, tile.window), table)


def lines(found: Evaluation) -> list[str]:
    """Return the table and the numbers below it as lines of text."""
    missed = bool(found.unlabeled.any())
    head = ["", *found.names, *(["not labeled"] if missed else []), "F1", "IoU"]
    rows = [head]
    for i, name in enumerate(found.names):
        counts = [*found.confusion[i], *([found.unlabeled[i]] if missed else [])]
        rows.append([name, *map(str, counts), _score(found.f1[i]), _score(found.iou[i])])
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    table = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]
    left = f", {found.left_out} left out (their truth is no class)" if found.left_out else ""
    return [
        f"pixels: {found.pixels} compared{left}",
        "confusion matrix: rows truth, columns labels",
        *(f"  {line}" for line in table),
        f"pixel error: {100 * found.error:.3f} %",
        f"mean F1: {found.mean_f1:.4f}",
        f"mean IoU: {found.mean_iou:.4f}",
        _rand_line(found),
    ]


def _rand_line(found: Evaluation) -> str:
    if found.boundary is None:
        return "adapted Rand error: not computed (--boundary names the class between components)"
    if found.rand is None:
        return f"adapted Rand error: none (no two truth pixels outside {found.boundary} to compare)"
    return f"adapted Rand error: {found.rand:.4f} (boundary {found.boundary})"


def _score(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


@contextmanager
def _whole_file(path: str) -> Iterator[Path]:
    """A file to write that is put into place when complete, or not at all."""
    partial = Path(path).with_name(f".{Path(path).name}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(found: Evaluation, path: str, origin: Mapping[str, str]) -> None:
    """Write all numbers as JSON.

    Parameters
    ----------
    origin : entries on what was compared
    """
    with _whole_file(path) as file:
        text = json.dumps({**origin, **found.as_dict()}, indent=2, allow_nan=False)
        file.write_text(text + "\n", "utf-8")


def write_picture(
    found: Evaluation,
    path: str,
    labels: Any,
    truth: Any,
    *,
    name: str = "tiledlaf",
    ignore: int | str | Sequence[int | str] | None = None,
    instances: str | None = None,
    colors: Mapping[str, Any] | Sequence[tuple[str, str]] | None = None,
    painting: Painting = Painting(),
) -> None:
    """Write a PNG that shows where the errors are; for a volume, its middle plane.

    Parameters
    ----------
    labels, truth, name, ignore, instances, colors, painting : as in `evaluate`
    """
    meant = meaning(instances, colors, ignore)
    given, wanted, _, origin = _open(labels, truth, name, meant, painting)
    classes = Classes(found.names, found.labels, found.values)
    values = {n: own[0] for n, own in zip(found.names, found.values, strict=True) if own}
    wanted = _part(numbering.numbered_as(wanted, values), origin, given)
    *depth, height, width = given.grid
    step = math.ceil(max(height, width) / SHOWN)
    plane = tuple(slice(n // 2, n // 2 + 1) for n in depth)
    edge = max(1, EDGE // step) * step  # whole steps, so that all tiles sample the same grid
    grid = Grid((height, width), (0, 0), (height, width), (edge, edge), (0, 0))
    shown = []
    with tasks.threads(cores()) as pool:
        for image, table in ((wanted, classes.of_truth()), (given, classes.of_labels())):
            whole = np.zeros((-(-height // step), -(-width // step)), np.uint16)
            job = (image, table, plane, step)
            for tile, block in _each_tile(pool, _read_coarse, job, grid):
                y, x = (c.start // step for c in tile.core)
                whole[y : y + block.shape[0], x : x + block.shape[1]] = block
            shown.append(whole)
    title = f"pixel error {100 * found.error:.2f} %: right dim, wrong bright in the label's color"
    if step > 1:
        title += f"; one of {step} x {step} pixels"
    if depth:
        title += f"; plane {plane[0].start}"
    with _whole_file(path) as file:
        pictures.errors(shown[0], shown[1], found.names, title).save(file, "PNG")


def _read_coarse(job: tuple[Image, Mapping[int, int], Box, int], tile: Tile) -> np.ndarray:
    image, table, plane, step = job
    block = _read(image, (*plane, *tile.window))
    return scores.look_up(block.reshape(block.shape[-2:])[::step, ::step], table)
