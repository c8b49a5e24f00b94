"""What label images hold, before anything is learned: values, instances, and what 0 means."""

from __future__ import annotations

import itertools
import math
import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np

from ..annotations import values
from ..annotations.numbering import Legend
from ..errors import InputError, TiledlafWarning
from ..files import image as image_files
from ..files.image import Image
from ..model.classes import UNLABELED, Class, ignored
from ..pool import tasks
from ..pool.tasks import Pool
from ..tiles import Box
from . import examples
from .examples import Example
from .pixels import label_values, targets_of

# values that are one blob each in an image of so many values or more are instances
FEW, MOST = 8, 64
BLOBS = 1.5  # connected parts for each value, at most, of instances; some are cut or fragmented
LOOKED = 8  # parts that are looked at
PART = (512, 1024)  # pixels of them along y and x, about
ROWS = 20  # of the table of label values
STEP = 3  # pixels between the two sides of an edge
PLAIN = 0.25  # difference across an edge, in shares of that between classes, that is none
RARE = 0.05  # share of the drawn pixels below which a class says nothing
ENDS = (slice(None, -STEP), slice(STEP, None))
SIDES = [
    tuple((..., end, *rest) for end in ends)
    for rest in ((), (slice(None),))
    for ends in (ENDS, ENDS[::-1])
]
Item = tuple[int, Box]  # number of an example, and a part of it
Table = Mapping[int, int]  # number of pixels of each label value


class TrainingWarning(TiledlafWarning):
    """Something about the examples that the user should know."""


def count(
    pool: Pool,
    everything: Sequence[Example],
    items: Sequence[Item],
    say: Callable[[Mapping[str, Any]], None] = lambda record: None,
) -> list[dict[int, int]]:
    """How many pixels of each part have each label value."""
    return tasks.in_order(
        pool,
        label_values,
        everything,
        items,
        lambda done, of: say({"stage": "reading labels", "done": done, "of": of}),
    )


def _parts(items: Sequence[Item], tables: Sequence[Table]) -> list[tuple[Item, Table]]:
    """Larger parts of the images, of tiles side by side, with their tables."""
    groups: dict[tuple[int, ...], list[Box]] = {}
    sums: dict[tuple[int, ...], Counter[int]] = {}
    for (number, box), table in zip(items, tables, strict=True):
        where = [b.start // n for b, n in zip(box[-2:], PART, strict=True)]
        key = (number, *(b.start for b in box[:-2]), *where)
        groups.setdefault(key, []).append(box)
        sums.setdefault(key, Counter()).update(table)
    found: list[tuple[Item, Table]] = []
    for key, boxes in groups.items():
        spans = zip(*boxes, strict=True)
        whole = tuple(slice(min(b.start for b in s), max(b.stop for b in s)) for s in spans)
        found.append(((key[0], whole), sums[key]))
    return found


# Instances, pictures


def check_values(
    pool: Pool,
    everything: Sequence[Example],
    items: Sequence[Item],
    tables: Sequence[Table],
    legend: Legend,
) -> None:
    """Refuse label images whose values are instances, or too many to be classes.

    Values that are named or ignored are meant.

    Raises
    ------
    ValueError
        Names the image, and the option that says what its values are.
    """
    whole = (key for key in legend.names or () if re.fullmatch(r"-?\d+", key))
    known = {*map(int, whole)} | ignored(legend.ignore)
    found: dict[int, Counter[int]] = {}
    for (number, _), table in zip(items, tables, strict=True):
        found.setdefault(number, Counter()).update(table)
    _check_palettes(everything, found)
    left = {n: {*table} - known - {0, UNLABELED} for n, table in found.items()}
    for number, table in found.items():
        _refuse_jpeg(everything[number].labels, table)
    few = sorted((n for n in left if len(left[n]) >= FEW), key=lambda n: -len(left[n]))
    for number in few[:3]:
        labels, different = everything[number].labels, len(left[number])
        sizes = [found[number][v] for v in left[number]]
        # edges that are smoothed, between 0 and one value that most pixels have, are blobs as well
        if max(sizes) < sum(sizes) / 2 and _one_blob_each(
            pool, everything, number, items, tables, known
        ):
            raise InputError(
                f"{labels.path}: expected label values of classes, got {different} values that "
                f"are one blob each, as in an instance mask: {_choices()}"
            )
    union = set[int]().union(*left.values())
    if len(union) > MOST:
        path = everything[max(left, key=lambda n: len(left[n]))].labels.path
        raise InputError(
            f"{path}: expected label values of classes, got {len(union)} values: a picture, "
            f"smoothed edges, or an instance mask? {_choices()}"
        )


def _check_palettes(everything: Sequence[Example], found: Mapping[int, Table]) -> None:
    """Refuse palettes in which a color has another value than in those of other images."""
    seen: dict[str, tuple[int, str]] = {}
    for number, table in found.items():
        labels = everything[number].labels
        for value, color in values.palette_of(labels).items():
            if value not in table:
                continue
            first, path = seen.setdefault(color, (value, labels.path))
            if first != value and path != labels.path:
                raise InputError(
                    f"{labels.path}: expected palettes that agree, got {color} as value {value} "
                    f"here and as {first} in {path}: name the classes of colors with `colors`"
                )


def _choices() -> str:
    return (
        "`instances` object-border makes the classes background, object and border of them, "
        "object the first two, and none says that each value is a class"
    )


def _refuse_jpeg(labels: Image, table: Table) -> None:
    jpeg = PurePath(labels.path).suffix.lower() in (".jpg", ".jpeg") and labels.reader.stored
    if jpeg and len(table) > 2:
        raise InputError(
            f"{labels.path}: expected labels as they were drawn, got a JPEG of {len(table)} "
            "values: its compression changes them; save labels as PNG or TIFF"
        )


def _one_blob_each(
    pool: Pool,
    everything: Sequence[Example],
    number: int,
    items: Sequence[Item],
    tables: Sequence[Table],
    known: set[int],
) -> bool:
    """Whether most label values of an image are one connected part each, in the parts looked at."""
    own = [(len(t), i) for i, t in _parts(items, tables) if i[0] == number]
    chosen = [i for _, i in sorted(own, key=lambda one: -one[0])[:LOOKED]]
    counts = tasks.in_order(pool, _blobs, (everything, known), chosen)
    parts, different = map(sum, zip(*counts, strict=True))
    return different > 0 and parts <= BLOBS * different


def _blobs(work: tuple[Sequence[Example], set[int]], item: Item) -> tuple[int, int]:
    """Numbers of connected parts and of values, those that are 0 or known aside."""
    from skimage.measure import label

    everything, known = work
    found = examples.read_labels(everything[item[0]].labels, item[1])
    codes = np.unique(found, return_inverse=True)[1].reshape(found.shape).astype(np.int32) + 1
    codes[values.is_one_of(found, {0, UNLABELED, *known})] = 0
    return int(label(codes, return_num=True)[1]), len(np.unique(codes[codes > 0]))


# What is said of the label values


def lines(
    pool: Pool,
    everything: Sequence[Example],
    items: Sequence[Item],
    tables: Sequence[Table],
    legend: Legend,
    classes: Sequence[Class],
) -> list[str]:
    """What there is to say of the label values; how 0 was taken comes first."""
    pixels = sum(math.prod(one.image.grid) for one in everything)
    color = values.is_color(everything[0].labels)
    found = table(classes, tables, ignored(legend.ignore), pixels, color)
    if legend.ignore is None and "0" not in (legend.names or {}):
        found = say_zero(pool, everything, items, tables, classes) + found
    return found


def table(
    classes: Sequence[Class], tables: Sequence[Table], left_out: set[int], pixels: int, color: bool
) -> list[str]:
    """Lines with the values, name and share of each class.

    Parameters
    ----------
    left_out : values that are ignored
    pixels : of all images
    color : whether values are colors
    """
    counts: Counter[int] = Counter()
    for one in tables:
        counts.update(one)
    sums = [sum(counts[v] for v in one.values) for one in classes]
    labeled = sum(sums) or 1
    rows = [
        (_listed([v for v in one.values if v in counts], color), one.name, _share(n / labeled))
        for one, n in zip(classes, sums, strict=True)
    ]
    if len(rows) > ROWS:
        rest = sum(sums[ROWS - 1 :])
        more = len(rows) - ROWS + 1
        rows = [*rows[: ROWS - 1], ("...", f"{more} more", _share(rest / labeled))]
    missing = pixels - sum(sums)
    if missing > 0:
        which = [v for v in sorted(counts) if v in left_out and v != UNLABELED]
        rows.append((_listed(which, color), "not labeled", f"{_share(missing / pixels)} of all"))
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    lines = [f"  {v:>{widths[0]}}  {n:<{widths[1]}}  {share}" for v, n, share in rows]
    return [f"{lines[0]} of labeled pixels", *lines[1:]]


def _listed(found: Sequence[int], color: bool) -> str:
    shown = [f"#{v:06x}" if color else str(v) for v in found[:8]]
    return ", ".join([*shown, *["..."] * (len(found) > 8)])


def _share(part: float) -> str:
    return f"{100 * part:.2f} %" if part >= 1e-4 or not part else "< 0.01 %"


def say_zero(
    pool: Pool,
    everything: Sequence[Example],
    items: Sequence[Item],
    tables: Sequence[Table],
    classes: Sequence[Class],
) -> list[str]:
    """How 0 was taken where the user does not say it; warns where it seems to mean no label."""
    number = next((n for n, one in enumerate(classes, 1) if 0 in one.values), 0)
    counts: Counter[int] = Counter()
    for one in tables:
        counts.update(one)
    if not number or not counts[0] or counts.total() == counts[0]:
        return []
    share = counts[0] / counts.total()
    text = (
        f"label value 0 counts as a class, with {_share(share)} of the pixels: `ignore` 0 leaves "
        "them out, `no_ignore` says that it is one"
    )
    if share > 0.5 and _drawn(pool, everything, items, tables, classes, number):
        warnings.warn(
            f"{text}; the other values look drawn, as if 0 meant not labeled",
            TrainingWarning,
            stacklevel=4,
        )
        return []
    return [text]


def _drawn(
    pool: Pool,
    everything: Sequence[Example],
    items: Sequence[Item],
    tables: Sequence[Table],
    classes: Sequence[Class],
    zero: int,
) -> bool:
    """Whether a class ends where the image does not change, as strokes do and objects do not.

    Across the edge of an object the image changes about as much as between two classes. Strokes
    within an object do not end at edges, unless it is as thin as they are; so one class without
    edges says enough. With one class besides 0 nothing could be learned from strokes.
    """
    order = sorted(_parts(items, tables), key=lambda one: one[1].get(0, 0) - sum(one[1].values()))
    chosen = [item for item, _ in order[:LOOKED]]
    work = (everything, classes, zero)
    parts = [np.sum(p, 0) for p in zip(*tasks.in_order(pool, _edges, work, chosen), strict=True)]
    sums, sizes, across, pairs = parts
    common = sizes > RARE * sizes.sum()
    ending = common & (pairs > 0)
    if common.sum() < 2 or not ending.any():
        return False
    means = sums[common] / sizes[common, None]
    apart = max(abs(a - b).max() for a, b in itertools.combinations(means, 2))
    steps = abs(across[ending] / pairs[ending, None]).max(axis=1)
    return bool(steps.min() < PLAIN * apart)


def _edges(
    work: tuple[Sequence[Example], Sequence[Class], int], item: Item
) -> tuple[np.ndarray, ...]:
    """Sums of pixels of each class but that of 0, and of the steps from them to pixels of 0.

    Returns
    -------
    sums of pixels (J, C) and their numbers (J,), sums of steps (J, C) and their numbers (J,)
    """
    (everything, classes, zero), (number, box) = work, item
    example = everything[number]
    target = targets_of(example, box, classes)
    image = np.nan_to_num(image_files.read(example.image, box).astype(np.float64))
    sums = np.zeros((len(classes), len(image)))
    across, pairs = sums.copy(), np.zeros(len(classes))
    sizes = np.bincount(target.ravel(), minlength=len(classes) + 1)[1:].astype(np.float64)
    sizes[zero - 1] = 0
    for j in np.flatnonzero(sizes):
        own = target == j + 1
        sums[j] = image[:, own].sum(axis=1)
        for near, far in SIDES:
            at = own[near] & (target[far] == zero)
            pairs[j] += at.sum()
            across[j] += [(channel[far] - channel[near])[at].sum() for channel in image]
    return sums, sizes, across, pairs


def warn_empty(everything: Sequence[Example], labeled: set[int]) -> None:
    """Say which images have no labeled pixel."""
    empty = [one.labels.path for n, one in enumerate(everything) if n not in labeled]
    if empty and labeled:
        more = f" and {len(empty) - 3} more" if len(empty) > 3 else ""
        warnings.warn(
            f"no labeled pixel, so left out: {', '.join(empty[:3])}{more}",
            TrainingWarning,
            stacklevel=5,
        )
