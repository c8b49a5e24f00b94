"""Images and labels to learn from: find files, pair them, and map label values to classes."""

from __future__ import annotations

import dataclasses
import glob
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..annotations import numbering, opening
from ..annotations.opening import Painting
from ..errors import BadPixels, InputError
from ..files import image as image_files
from ..files import images, nodes, stores
from ..files.image import Image
from ..files.selection import Selection
from ..kernels.arrays import Array
from ..model.classes import Class
from ..tiles import Box


@dataclass(frozen=True)
class Example:
    """An image and its labels, of the same size, with their probabilities and mask.

    Attributes
    ----------
    image, labels : Image
    probabilities, mask : Image or None
    """

    image: Image
    labels: Image
    probabilities: Image | None = None
    mask: Image | None = None

    def with_absolute_paths(self) -> Example:
        """The same example, for workers that run in another folder."""
        return Example(
            self.image.with_absolute_path(),
            self.labels.with_absolute_path(),
            self.probabilities and self.probabilities.with_absolute_path(),
            self.mask and self.mask.with_absolute_path(),
        )

    def occupied(self, window: Box) -> Box | None:
        """A part of a window, beyond which nothing is labeled; None if nothing is."""
        found = self.labels.occupied(window)
        if found is None or self.mask is None:
            return found
        return self.mask.occupied(found)


def find(pattern: str | os.PathLike[str], drawn: bool = False) -> list[str]:
    """Paths of a glob, a folder, or a single file or store, with numbers sorted by value.

    Parameters
    ----------
    drawn : whether annotations are looked for in a folder that has no images

    Raises
    ------
    ValueError
        If there are none.
    """
    text = os.fspath(pattern)
    if os.path.isdir(text) and not nodes.is_store(text):
        named = [name for name in os.listdir(text) if not stores.is_stray(name)]
        found = [os.path.join(text, name) for name in named]
        own = [path for path in found if nodes.is_store(path) or _is_image(path)]
        found = own or [path for path in found if drawn and opening.is_annotations(path)]
    elif stores.is_url(text) or os.path.exists(stores.split(text)[0]):
        found = [text]
    else:
        found = [p for p in glob.glob(text) if not stores.is_stray(os.path.basename(p))]
    if not found:
        raise InputError(f"{text}: expected images, found none")
    return sorted(found, key=_natural)


def _is_image(path: str) -> bool:
    return images.reader_of(path) is not None


def _natural(path: str) -> list[Any]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path)]


def pair(
    image: Any,
    labels: Any,
    probabilities: Any = None,
    mask: Any = None,
    *,
    painting: Painting = Painting(),
    selection: Selection = Selection(),
    **choice: Any,
) -> list[Example]:
    """Open images and their labels, pair by pair.

    Parameters
    ----------
    image, labels, probabilities, mask : path, glob, folder, array, or a list of arrays or paths
    painting : how annotations become labels
    selection, **choice : which part of each image; **choice are fields of `Selection`
        One time point: those of a series are labeled, but not learned from, all at once.

    Raises
    ------
    ValueError
        If numbers or sizes differ, or labels are not whole numbers of one channel.

    Examples
    --------
    >>> import numpy as np, tiledlaf
    >>> (example,) = tiledlaf.pair(np.zeros((3, 40, 50)), np.ones((40, 50), int))
    >>> example.image.axes, example.labels.grid
    ('cyx', (40, 50))
    """
    sources = _listed(image)
    others: dict[str, list[Any]] = {}
    for what, given in (("labels", labels), ("probabilities", probabilities), ("mask", mask)):
        found = [None] * len(sources) if given is None else _listed(given, what != "probabilities")
        if len(found) == 1 and opening.holds_several(found[0]):
            found *= len(sources)
        if len(found) != len(sources):
            raise InputError(f"expected {what} for {len(sources)} images, got {len(found)}")
        others[what] = found
    chosen = dataclasses.replace(selection, **choice)
    if chosen.time_point == "all":
        raise InputError("expected one `time_point` to learn from, got all")
    return [
        _example(*row, chosen, painting)
        for row in zip(
            sources, others["labels"], others["probabilities"], others["mask"], strict=True
        )
    ]


def _listed(given: Any, drawn: bool = False) -> list[Any]:
    if isinstance(given, str | os.PathLike):
        return list(find(given, drawn))
    if isinstance(given, list | tuple):
        return [p for one in given for p in _listed(one, drawn)]
    return [given]


def _example(
    image: Any,
    labels: Any,
    probabilities: Any,
    mask: Any,
    chosen: Selection,
    painting: Painting,
) -> Example:
    source = images.as_image(image, chosen)
    truth = images.on_grid(opening.as_labels(labels, source, painting), source)
    given = valid = None
    if probabilities is not None:
        given = images.as_image(probabilities, axes="c" + source.spatial_axes)
    if mask is not None:
        valid = images.on_grid(opening.as_mask(mask, source, painting), source)
    for other, what in ((truth, "labels"), (given, "probabilities"), (valid, "a mask")):
        if other is not None and other.grid != source.grid:
            raise InputError(
                f"{other.path}: expected {what} of the size {source.grid} of {source.path}, "
                f"got {other.grid}"
            )
    if truth.stored_channels != 1 or np.dtype(truth.dtype).kind not in "uib":
        raise InputError(
            f"{truth.path}: expected labels as whole numbers of one channel, "
            f"got {truth.stored_channels} channel(s) of {truth.dtype}"
        )
    if valid is not None and valid.stored_channels != 1:
        raise InputError(
            f"{valid.path}: expected a mask of one channel, got {valid.stored_channels}"
        )
    return Example(source, truth, given, valid)


@contextmanager
def naming(image: Image, window: Box) -> Iterator[None]:
    """When pixels of a window are refused, name the file and their place in it."""
    try:
        yield
    except BadPixels as error:
        raise InputError(f"{image.path}: {error.moved(window)}") from None


def valid_of(example: Example, window: Box, pixels: np.ndarray | None = None) -> Any:
    """Where a window is neither masked out nor without data; None if all of it is valid.

    `pixels` are the image's, if they were read already.
    """
    valid = None
    if example.mask is not None:
        valid = image_files.read(example.mask, window)[0] != 0
    if example.image.no_data is None:
        return valid
    if pixels is None:
        pixels = image_files.read(example.image, window)
    return image_files.both(valid, image_files.valid_of(example.image, pixels))


def with_values_of(given: Example, classes: Sequence[Class]) -> Example:
    """The same example, in which annotations of a class have the value it was learned from."""
    return dataclasses.replace(given, labels=numbering.numbered_as(given.labels, classes))


def with_same_values(given: Sequence[Example]) -> list[Example]:
    """The same examples, in which a class of annotations has the same value everywhere."""
    labels = numbering.numbered([one.labels for one in given])
    return [
        dataclasses.replace(one, labels=found) for one, found in zip(given, labels, strict=True)
    ]


def read_labels(labels: Image, window: Box) -> np.ndarray:
    """Read the label values of a window, (*window) int64."""
    return image_files.read(labels, window)[0].astype(np.int64)


def read_names(path: str) -> dict[str, str]:
    """Read names of label values from JSON such as {"0": "membrane", "255": "inside"}.

    Those of annotations have class names for keys.
    """
    try:
        found = json.loads(Path(path).read_text("utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected JSON, {error}") from None
    texts = isinstance(found, dict) and all(isinstance(name, str) for name in found.values())
    if not found or not texts:
        raise InputError(f'{path}: expected names of label values like {{"0": "membrane"}}')
    whole = all(re.fullmatch(r"-?\d+", key) for key in found)
    if whole and len({int(key) for key in found}) < len(found):
        raise InputError(f"{path}: expected each label value once, got {', '.join(found)}")
    return dict(found)


def targets(values: Array, found: Sequence[Class]) -> np.ndarray:
    """Class numbers 1..J of label values, 0 where a value belongs to no class."""
    out = np.zeros(values.shape, np.min_scalar_type(len(found)))
    for number, one in enumerate(found, 1):
        out[np.isin(values, one.values)] = number
    return out
