"""Which label values stand for the classes of annotations, alike in all images."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ..errors import InputError
from ..files.image import FileWarning, Image
from ..model.classes import Class, find_classes, ignored
from . import areas
from .opening import Annotations, LabelName
from .values import value_names


class Legend(NamedTuple):
    """Names of label values, the value of pixels without a label, and colors."""

    names: Mapping[str, str] | None
    ignore: int | Sequence[int] | None
    colors: Mapping[int, str] = {}

    def classes(self, values: Iterable[int]) -> tuple[Class, ...]:
        """The classes of the values that occur, in the annotations' colors if all of these differ.

        Raises
        ------
        ValueError
            As in `find_classes`.
        """
        classes = find_classes(list(values), self.names, self.ignore)
        given = [self.colors.get(one.values[0], "") for one in classes]
        if not all(given) or len(set(given)) < len(given):
            return classes
        return tuple(
            dataclasses.replace(one, color=(*bytes.fromhex(color), 255))
            for one, color in zip(classes, given, strict=True)
        )


def names_of(labels: Image) -> tuple[LabelName, ...]:
    """The names of label values; none if the labels are no annotations."""
    return labels.reader.names if isinstance(labels.reader, Annotations) else ()


def numbered(labels: Sequence[Image], first: Sequence[str] = ()) -> list[Image]:
    """The same labels, in which a class of annotations has the same value in all images.

    Parameters
    ----------
    first : classes that have the first values, whether or not there are any

    Raises
    ------
    ValueError
        If only some of them are annotations, or `overlaps` names a class that none has.
    """
    drawn = [one for one in labels if names_of(one)]
    if not drawn:
        return list(labels)
    if len(drawn) < len(labels):
        other = next(one for one in labels if not names_of(one))
        raise InputError(
            f"{other.path}: expected annotations as for the other images, such as "
            f"{drawn[0].path}, got a label image, whose values have no names"
        )
    colors = dict.fromkeys(first, "")
    for image in labels:
        for one in names_of(image):
            colors[one.name] = colors.get(one.name) or one.color
    _check_overlaps(labels, list(colors))
    names = [LabelName(value, *one) for value, one in enumerate(colors.items(), 1)]
    return [_with_names(image, names) for image in labels]


def numbered_as(labels: Image, values: Mapping[str, int]) -> Image:
    """Annotations in which each of these classes has the given value; label images as they are.

    Raises
    ------
    ValueError
        If no annotation is of one of these classes, or `overlaps` names a class that none has.
    """
    found = names_of(labels)
    if not found:
        return labels
    _check_overlaps([labels], [one.name for one in found])
    known = [LabelName(values[o.name], o.name, o.color) for o in found if o.name in values]
    others = ", ".join(o.name for o in found if o.name not in values)
    if not known:
        raise InputError(
            f"{labels.path}: expected annotations of the classes {', '.join(values)}, got {others}"
        )
    if others:
        text = f"{labels.path}: left out the annotations of {others}, which no label stands for"
        warnings.warn(text, FileWarning, stacklevel=2)
    return _with_names(labels, known)


def with_outside(labels: Image, value: int) -> Image:
    """Annotations outside of which pixels have a value as well."""
    reader = labels.reader
    assert isinstance(reader, Annotations)
    reader = dataclasses.replace(reader, outside=value)
    return dataclasses.replace(labels, reader=reader, dtype=reader.dtype)


def check_ignore(labels: Image, ignore: int | Sequence[int] | None) -> None:
    """Refuse values to ignore among annotations, which have none, but for 0.

    Raises
    ------
    ValueError
        If there are some.
    """
    if names_of(labels) and ignore is not None and ignored(ignore) - ignored(0):
        raise InputError("`ignore` is for label images: outside annotations, nothing is labeled")


def legend(
    labels: Sequence[Image],
    values: Iterable[int],
    names: Mapping[str, str] | None,
    ignore: int | Sequence[int] | None,
) -> Legend:
    """The names of the label values that occur, and what else classes need.

    Parameters
    ----------
    labels : from `numbered`
    names : new names by label value or, for annotations, by class
    ignore : a value that means "not labeled", or several; 0 for annotations

    Raises
    ------
    ValueError
        If names or `ignore` do not fit annotations.
    """
    known = {one.value: one for one in names_of(labels[0])}
    if not known:
        own = {value: name for one in labels for value, name in value_names(one).items()}
        return Legend(names if names is not None else own or None, ignore)
    check_ignore(labels[0], ignore)
    if isinstance(ignore, Sequence) and not ignore:
        raise InputError("`no_ignore` is for label images: outside annotations, nothing is labeled")
    given, classes = names or {}, [one.name for one in known.values()]
    unknown = [key for key in given if key not in classes]
    if unknown:
        raise InputError(
            f"expected `names` for the annotations' classes ({', '.join(classes)}), "
            f"got {', '.join(unknown)}"
        )
    found = [known[v] for v in sorted(set(values)) if v in known]
    return Legend(
        {str(one.value): given.get(one.name, one.name) for one in found},
        0,
        {one.value: one.color for one in found},
    )


def _check_overlaps(labels: Sequence[Image], names: Sequence[str]) -> None:
    """Refuse classes in `overlaps` that no annotation has."""
    found = {o.reader.rules.overlaps for o in labels if isinstance(o.reader, Annotations)}
    listed = [n for one in found if one not in ("smaller", "later") for n in areas.wins(one)]
    missing = [name for name in listed if name not in names]
    if missing:
        raise InputError(
            f"expected classes of the annotations for `overlaps` ({', '.join(names)}), or "
            f"smaller or later, got {', '.join(missing)}"
        )


def _with_names(labels: Image, names: Sequence[LabelName]) -> Image:
    reader = labels.reader
    assert isinstance(reader, Annotations)
    reader = dataclasses.replace(reader, names=tuple(names))
    return dataclasses.replace(labels, reader=reader, dtype=reader.dtype)
