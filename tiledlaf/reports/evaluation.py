"""Compares labels with a truth: pixels class by class, components, and objects."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..annotations import numbering, opening
from ..annotations.opening import Painting
from ..annotations.values import OBJECT, Meaning, meaning, numbers_of
from ..errors import InputError, understood
from ..files.image import Image
from ..model.classes import ignored
from ..pool import tasks
from ..pool.opening import cores
from ..results import pictures, targets
from ..results.finding import Finding
from ..tiles import Box, Grid, Tile
from . import matching, scores, sides
from .reading import each_tile, read_tile
from .reading import read as _read
from .scores import Classes, Evaluation, ObjectScores, Pairs

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
    objects: str | Sequence[str] | None = None,
    outside: str | None = None,
    label_instances: str | None = None,
    connectivity: str | None = None,
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
    objects : str, or several, optional
        Names of classes whose objects are compared, one by one. Objects of the truth are the
        annotations, or the instances of a mask (`instances`), else connected pixels of the class;
        those of the labels are those that were made of them (`tiledlaf.objects`), else connected
        pixels of the class. For instances, on either side, the class of the objects is compared
        without being named.
    outside : str, optional
        Name of the class of what lies outside of all annotations; without it, that is left out.
    label_instances : str, optional
        The labels are an instance mask as well, each value but 0 an object, and this is the name of
        the objects' class; the other one is "background".
    connectivity : str, optional
        Where objects are connected pixels: "face" (default) if they share an edge, in volumes a
        face; "full" if also those are neighbors that share a corner.

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

    Two cells of a mask, of which the labels have one, and half of the other:

    >>> cells = np.array([[1, 1, 0, 2, 2], [1, 1, 0, 2, 2]])
    >>> labels = np.array([[1, 1, 0, 0, 1], [1, 1, 0, 0, 1]])
    >>> (found,) = tiledlaf.evaluate(labels, cells, instances="object", objects="1").objects
    >>> found.matched, found.missed, found.extra
    ((2, 1, 1, 1, 1), (0, 1, 1, 1, 1), (0, 1, 1, 1, 1))
    >>> found.panoptic
    0.75
    """
    meant, finding = meaning(instances, colors, ignore), Finding(connectivity or "face")
    given, wanted, kept, origin = sides.open_both(
        labels, truth, name, meant, painting, label_instances
    )
    opening.check_painting(painting, wanted)
    left_out = ignored(() if meant.converts else meant.values)
    if boundary is not None and "t" in given.grid_axes:
        raise InputError("`boundary`: expected labels of one time point, whose components it means")
    drawn = bool(numbering.names_of(wanted))
    if drawn:
        numbering.check_ignore(wanted, meant.values or None)
    named, stands, own = sides.classes_of(kept, given, wanted, label_instances, names, values)
    own_values = {named[v]: stands[v][0] for v in stands} if drawn else {}
    wanted = sides.part(sides.numbered(wanted, own_values, outside), origin, given)
    classes = None
    if stands:
        classes = scores.mapped(stands, named, left_out, given.path)
        _check_classes(boundary, objects, outside, classes.names)
    with tasks.threads(cores()) as pool:
        pairs: Pairs = Counter()
        for _, counts in each_tile(pool, _count, (given, wanted), _grid(given)):
            pairs.update(counts)
        if classes is None:
            classes = scores.compared(pairs, named, left_out, own, given.path)
            _check_classes(boundary, objects, outside, classes.names)
        found = scores.sum_up(pairs, classes, given.path, wanted.path, strict=bool(stands))
        if boundary is not None:
            rand = _rand(given, wanted, classes, boundary, pool)
            found = replace(found, boundary=boundary, rand=rand)
        chosen = _chosen(objects, classes, meant, label_instances)
        made = matching.made(kept, classes, chosen)
        pair = (
            matching.Side(wanted, classes.of_truth(), numbers_of(wanted)),
            matching.Side(given, classes.of_labels(), numbers_of(given)),
        )
        if connectivity is not None:
            _check_connected(pair, chosen, made)
        if not chosen:
            return found
        counted = matching.scored(*pair, chosen, _grid(given), pool, made, finding.full)
        return replace(found, objects=counted)


def _check_classes(
    boundary: str | None,
    objects: str | Sequence[str] | None,
    outside: str | None,
    names: Sequence[str],
) -> None:
    """Refuse a boundary, or objects, that are of no class."""
    if boundary is not None:
        scores.check_class("boundary", boundary, names)
    for one in _listed(objects):
        scores.check_class("objects", one, names)
        if one == outside:
            raise InputError(f"expected objects of another class than `outside`, got {one}")


def _listed(objects: str | Sequence[str] | None) -> list[str]:
    if isinstance(objects, str):
        return [objects]
    with understood("objects", objects, "names of classes"):
        return list(dict.fromkeys(objects or ()))


def _chosen(
    objects: str | Sequence[str] | None,
    classes: Classes,
    meant: Meaning,
    label_instances: str | None,
) -> dict[int, str]:
    """The classes whose objects are compared, by their number from 1 on."""
    given = _listed(objects)
    if not given and label_instances is not None:
        given = [n for n, v in zip(classes.names, classes.labels, strict=True) if v == OBJECT]
    elif not given and meant.instances is not None:
        given = [n for n, v in zip(classes.names, classes.values, strict=True) if OBJECT in v]
    return {classes.names.index(name) + 1: name for name in given}


def _check_connected(
    pair: Sequence[matching.Side], chosen: Mapping[int, str], made: Mapping[int, Image]
) -> None:
    """Refuse a connectivity where no objects are connected pixels."""
    truth, labels = (side.numbers is not None for side in pair)
    if not chosen or (truth and (labels or chosen.keys() == made.keys())):
        got = "such as have their numbers already" if chosen else "none (`objects` names a class)"
        raise InputError(f"`connectivity`: expected objects of connected pixels, got {got}")


def _grid(image: Image) -> Grid:
    """Tiles of one time point that are compared at once."""
    zero, axes = (0,) * len(image.grid), len(image.spatial_axes)
    deep = (math.ceil(EDGE / 64), EDGE // 4 or 1, EDGE // 4 or 1)
    edges = (*(1,) * (len(zero) - axes), *((EDGE, EDGE) if axes == 2 else deep))
    return Grid(image.grid, zero, image.grid, edges, zero)


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
        return np.arange(low, high + 1), (block - low).astype(np.int64, copy=False)
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
        for tile, block in each_tile(pool, read_tile, (image, table), _grid(image)):
            whole[tile.core] = block
        parts.append(label(whole, background=0, connectivity=1))
    with np.errstate(invalid="ignore", divide="ignore"):  # if there is no pair of pixels
        return scores.number(adapted_rand_error(*parts)[0])


def lines(found: Evaluation) -> list[str]:
    """Return the table and the numbers below it as lines of text."""
    missed = bool(found.unlabeled.any())
    head = ["", *found.names, *(["not labeled"] if missed else []), "F1", "IoU"]
    rows = [head]
    for i, name in enumerate(found.names):
        counts = [*found.confusion[i], *([found.unlabeled[i]] if missed else [])]
        rows.append([name, *map(str, counts), _score(found.f1[i]), _score(found.iou[i])])
    left = f", {found.left_out} left out (their truth is no class)" if found.left_out else ""
    return [
        f"pixels: {found.pixels} compared{left}",
        "confusion matrix: rows truth, columns labels",
        *_table(rows),
        f"pixel error: {100 * found.error:.3f} %",
        f"mean F1: {found.mean_f1:.4f}",
        f"mean IoU: {found.mean_iou:.4f}",
        _rand_line(found),
        *_object_lines(found),
    ]


def _object_lines(found: Evaluation) -> list[str]:
    """The table of objects, if any are compared."""
    if not found.objects:
        return []
    head = ["", "truth", "labels", *(f"F1 {o:g}" for o in ObjectScores.overlaps), "SQ", "RQ", "PQ"]
    rows = [head]
    for one in found.objects:
        quality = (one.segmentation, one.recognition, one.panoptic)
        rows.append([one.name, str(one.truth), str(one.labels), *map(_score, (*one.f1, *quality))])
    text = ["objects: F1 by the overlap from which on two match, and panoptic quality PQ = SQ x RQ"]
    text += _table(rows)
    left = sum(one.left_out for one in found.objects)
    if left:
        text.append(f"  {left} of the labels' lie mostly where the truth is no class")
    if len(found.objects) > 1:
        each = zip(ObjectScores.overlaps, found.mean_object_f1, strict=True)
        text.append("mean F1 of objects: " + ", ".join(f"{_score(f)} at {o:g}" for o, f in each))
    return [*text, f"mean PQ: {_score(found.mean_panoptic)}"]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows with the first column on the left and the others on the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  " + "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
        for row in rows
    ]


def _rand_line(found: Evaluation) -> str:
    if found.boundary is None:
        return "adapted Rand error: not computed (--boundary names the class between components)"
    if found.rand is None:
        return f"adapted Rand error: none (no two truth pixels outside {found.boundary} to compare)"
    return f"adapted Rand error: {found.rand:.4f} (boundary {found.boundary})"


def _score(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def write_json(found: Evaluation, path: str, origin: Mapping[str, str]) -> None:
    """Write all numbers as JSON.

    Parameters
    ----------
    origin : entries on what was compared
    """
    text = json.dumps({**origin, **found.as_dict()}, indent=2, allow_nan=False)
    with targets.written(path, overwrite=True) as part:
        Path(part).write_text(text + "\n", "utf-8")


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
    outside: str | None = None,
    label_instances: str | None = None,
) -> None:
    """Write a PNG that shows where the errors are; for a volume, its middle plane.

    Parameters
    ----------
    labels, truth, name, ignore, instances, colors, painting, outside, label_instances : as in
        `evaluate`
    """
    meant = meaning(instances, colors, ignore)
    given, wanted, _, origin = sides.open_both(
        labels, truth, name, meant, painting, label_instances
    )
    classes = Classes(found.names, found.labels, found.values)
    values = {n: own[0] for n, own in zip(found.names, found.values, strict=True) if own}
    wanted = sides.part(sides.numbered(wanted, values, outside), origin, given)
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
            for tile, block in each_tile(pool, _read_coarse, job, grid):
                y, x = (c.start // step for c in tile.core)
                whole[y : y + block.shape[0], x : x + block.shape[1]] = block
            shown.append(whole)
    title = f"pixel error {100 * found.error:.2f} %: right dim, wrong bright in the label's color"
    if step > 1:
        title += f"; one of {step} x {step} pixels"
    if depth:
        title += f"; plane {plane[0].start}"
    with targets.written(path, overwrite=True) as part:
        pictures.errors(shown[0], shown[1], found.names, title).save(part, "PNG")


def _read_coarse(job: tuple[Image, Mapping[int, int], Box, int], tile: Tile) -> np.ndarray:
    image, table, plane, step = job
    block = _read(image, (*plane, *tile.window))
    return scores.look_up(block.reshape(block.shape[-2:])[::step, ::step], table)
