"""Images and labels to learn from: open them in pairs, and map label values to classes."""

from __future__ import annotations

import dataclasses
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..annotations import numbering, opening, pairing, values
from ..annotations.areas import NoAnnotations
from ..annotations.opening import Painting
from ..errors import BadPixels, InputError
from ..files import image as image_files
from ..files import images, texts
from ..files.image import FileWarning, Image
from ..files.images import Maker
from ..files.selection import Selection
from ..kernels.arrays import Array
from ..model.classes import Class
from ..tiles import Box

NAMES = 'names of label values like {"0": "membrane"}'


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


def pair(
    image: Any,
    labels: Any,
    probabilities: Any = None,
    mask: Any = None,
    *,
    painting: Painting = Painting(),
    selection: Selection = Selection(),
    instances: str | None = None,
    colors: Mapping[str, Any] | Sequence[tuple[str, str]] | None = None,
    ignore: int | str | Sequence[int | str] | None = None,
    **choice: Any,
) -> list[Example]:
    """Open images and their labels, pair by pair.

    Files of folders and globs are paired by their names, as in `annotations.pairing.partners`;
    lists by position.

    Parameters
    ----------
    image, labels, probabilities, mask : path, glob, folder, array, or a list of arrays or paths
    painting : how annotations become labels
    selection, **choice : which part of each image; **choice are fields of `Selection`
        One time point: those of a series are labeled, but not learned from, all at once.
    instances : {"object-border", "object-border:WIDTH", "object"}, optional
        Each label value but 0 is an object; they become the classes background, object and border.
    colors : optional
        Colors of the classes in label images of colors, such as {"tumor": "#ff0000"}.
    ignore : optional
        With `instances` or `colors`, values or colors of pixels without a label; otherwise, give it
        to `Data`.

    Raises
    ------
    ValueError
        If files have no partner or several, sizes differ, or labels are not whole numbers of one
        channel.

    Examples
    --------
    >>> import numpy as np, tiledlaf
    >>> (example,) = tiledlaf.pair(np.zeros((3, 40, 50)), np.ones((40, 50), int))
    >>> example.image.axes, example.labels.grid
    ('cyx', (40, 50))
    """
    chosen = dataclasses.replace(selection, **choice)
    if chosen.time_point == "all":
        raise InputError("expected one `time_point` to learn from, got all")
    meant = values.meaning(instances, colors, ignore)
    _check_mask(mask)
    if ignore is not None and not meant.converts:
        raise InputError("`ignore` belongs to `Data` unless `instances` or `colors` are given")
    sources, beside = _listed(image), {}
    for what, given in (("labels", labels), ("probabilities", probabilities), ("mask", mask)):
        beside[what] = _listed(given, drawn=what != "probabilities")
    if sources.named:
        named = [path for one in beside.values() if one.named for path in one.found]
        sources = dataclasses.replace(sources, found=pairing.without(sources.found, named))
    rows = zip(
        sources.found,
        *(_partners(sources, one, what) for what, one in beside.items()),
        strict=True,
    )
    found = _labeled(list(rows), chosen, painting, meant)
    _check_painting(painting, found)
    return found


def _labeled(
    rows: Sequence[Sequence[Any]], chosen: Selection, painting: Painting, meant: values.Meaning
) -> list[Example]:
    """The examples of these rows; of several, those without an annotation are left out."""
    found: list[Example] = []
    refused: list[NoAnnotations] = []
    for row in rows:
        try:
            found.append(_example(row, chosen, painting, meant))
        except NoAnnotations as error:
            refused.append(error)
            said = f"{error}: {row[0]} is left out"
            if len(rows) > 1:
                warnings.warn(said, FileWarning, stacklevel=3)
    if refused and not found:
        raise refused[0]
    return found


def _check_painting(painting: Painting, found: Sequence[Example]) -> None:
    opening.check_painting(painting, *(one for e in found for one in (e.labels, e.mask)))


def _check_mask(mask: Any) -> None:
    """Refuse what only labeling finds, unless it is a path."""
    if isinstance(mask, str) and mask == opening.TISSUE and not os.path.exists(mask):
        raise InputError(
            "expected a file for `mask`, got the word tissue: only `label` finds tissue; it writes "
            "a mask of it, labels/NAME-tissue, that can be given here"
        )


@dataclass(frozen=True)
class _Listed:
    """Paths or arrays; `named` if they come from a folder or a glob, whose order means nothing."""

    found: list[Any]
    named: bool = False
    missing: bool = False

    @property
    def paths(self) -> bool:
        return all(isinstance(one, str | os.PathLike) for one in self.found)


def _listed(given: Any, drawn: bool = False) -> _Listed:
    if given is None:
        return _Listed([], missing=True)
    if isinstance(given, str | os.PathLike):
        return _Listed(pairing.find(given, drawn), named=True)
    if isinstance(given, list | tuple):
        return _Listed([p for one in given for p in _listed(one, drawn).found])
    return _Listed([given])


def _partners(sources: _Listed, others: _Listed, what: str) -> list[Any]:
    """What belongs to each image: by name, or by position in lists."""
    count = len(sources.found)
    if others.missing:
        return [None] * count
    if len(others.found) == 1 and (
        isinstance(others.found[0], Maker) or opening.holds_several(others.found[0])
    ):
        return others.found * count
    if (sources.named or others.named) and sources.paths and others.paths:
        ours, theirs = ([os.fspath(p) for p in one.found] for one in (sources, others))
        if len(set(ours)) == count:  # a list may have a file twice, which has one name
            return list(pairing.partners(ours, theirs, what))
    if len(others.found) != count:
        raise InputError(f"expected {what} for {count} images, got {len(others.found)}")
    return others.found


def read_pairs(
    path: str | os.PathLike[str],
    meant: values.Meaning = values.Meaning(),
    *,
    selection: Selection = Selection(),
    painting: Painting = Painting(),
) -> tuple[list[Example], list[Example]]:
    """Open the training set and the validation set of a table, as in `annotations.pairing`.

    Parameters
    ----------
    meant : what label values mean
    selection, painting : as in `pair`
    """
    if selection.time_point == "all":
        raise InputError("expected one `time_point` to learn from, got all")
    rows: tuple[list[Any], list[Any]] = ([], [])
    for row in pairing.read_pairs(path):
        rows[row.validation].append((row.images, row.labels, row.probabilities, row.mask))
    training, validation = (_labeled(one, selection, painting, meant) for one in rows)
    _check_painting(painting, [*training, *validation])
    if not training:
        raise InputError(f"{os.fspath(path)}: expected rows that are not validation, got none")
    return training, validation


def _example(
    row: Sequence[Any], chosen: Selection, painting: Painting, meant: values.Meaning
) -> Example:
    image, labels, probabilities, mask = row
    source = images.as_image(image, chosen)
    truth = images.on_grid(values.open_labels(labels, source, meant, painting), source)
    given = valid = None
    if probabilities is not None:
        given = images.as_probabilities(probabilities, source, chosen.probabilities_of)
    elif chosen.probabilities_of is not None:
        raise InputError("`probabilities_of` belongs to `probabilities`")
    if mask is not None:
        valid = images.on_grid(values.open_mask(mask, source, painting), source, coarse=True)
    for other, what in ((truth, "labels"), (given, "probabilities"), (valid, "a mask")):
        if other is not None:
            images.check_size(other, source, what)
    if valid is not None and valid.used_channels != 1:
        raise InputError(f"{valid.path}: expected a mask of one channel, got {valid.used_channels}")
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


def as_learned(given: Example, classes: Sequence[Class]) -> tuple[Example, tuple[Class, ...]]:
    """Classes that were learned, with the values that they have in the example's labels.

    Annotations are of a class by its name. Their values are new ones, since 0 is no class there.
    """
    if not numbering.names_of(given.labels):
        return given, tuple(classes)
    own = [dataclasses.replace(one, values=(value,)) for value, one in enumerate(classes, 1)]
    labels = numbering.numbered_as(given.labels, {one.name: one.values[0] for one in own})
    return dataclasses.replace(given, labels=labels), tuple(own)


def with_same_values(given: Sequence[Example], first: Sequence[str] = ()) -> list[Example]:
    """The same examples, in which a class of annotations has the same value everywhere.

    Parameters
    ----------
    first : classes that have the first values
    """
    labels = numbering.numbered([one.labels for one in given], first)
    return [
        dataclasses.replace(one, labels=found) for one, found in zip(given, labels, strict=True)
    ]


def read_labels(labels: Image, window: Box) -> np.ndarray:
    """Read the label values of a window, (*window) whole numbers of the image's own type."""
    found = image_files.read(labels, window)[0]
    return found.view(np.uint8) if found.dtype == bool else found


def read_names(path: str) -> dict[str, str]:
    """Read names of label values from JSON such as {"0": "membrane", "255": "inside"}.

    Those of annotations have class names for keys.
    """
    found = texts.read_json(path)
    named = isinstance(found, dict) and all(isinstance(name, str) for name in found.values())
    if not found or not named:
        raise InputError(f"{path}: expected {NAMES}")
    whole = all(re.fullmatch(r"-?\d+", key) for key in found)
    if whole and len({int(key) for key in found}) < len(found):
        raise InputError(f"{path}: expected each label value once, got {', '.join(found)}")
    return dict(found)


def targets(labels: Array, found: Sequence[Class]) -> np.ndarray:
    """Class numbers 1..J of label values, 0 where a value belongs to no class."""
    out = np.zeros(labels.shape, np.min_scalar_type(len(found)))
    for number, one in enumerate(found, 1):
        out[values.is_one_of(labels, one.values)] = number
    return out
