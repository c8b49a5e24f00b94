"""How to make the labels: the options, checked and put together."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import redaction
from ..errors import DamagedFile, InputError, understood
from ..files import images, ngff, nodes
from ..files.image import Image, say
from ..flow import stencil
from ..flow.linear import Integrator, LinearizedSequence, Taylor
from ..kernels.arrays import check_device
from ..model import arrays, neighborhoods, sampling, terms
from ..model import classes as model_classes
from ..model import model as model_file
from ..model.classes import Class
from ..model.entries import WeightsEntry
from ..model.model import Model
from ..model.settings import Settings, check_confidence, make_settings
from ..model.term import Pending


def data_term(
    classes: int | None,
    prototypes: Any,
    probabilities: Image | None,
    seed: int,
    term: Any = None,
) -> Pending:
    """Return the requested data term.

    Parameters
    ----------
    term : a data term, or the name of one that an installed package provides
        It may use the probabilities.

    Raises
    ------
    ValueError
        If not exactly one is given, or if it has fewer than two classes.
    """
    found = terms.named(term) if isinstance(term, str) else term
    with understood("term", term, "a data term, or the name of one"):
        takes = found is not None and found.takes_probabilities
    others = (classes, prototypes, None if takes else probabilities)
    if sum(x is not None for x in (found, *others)) != 1:
        raise InputError(
            "expected exactly one of `classes`, `prototypes`, `probabilities` and `term`"
        )
    if takes and probabilities is None:
        raise InputError(f"the data term {found.kind} expects `probabilities`")
    if classes is not None:
        return terms.Clusters(classes, seed)
    if prototypes is not None:
        return terms.Prototypes(sampling.rows_of(prototypes))
    if probabilities is not None:
        count = _classes_of(probabilities)
        return found if takes else terms.Probabilities(count)
    checked: Pending = found
    return checked


def _classes_of(probabilities: Image) -> int:
    count = probabilities.stored_channels
    hint = " (`probabilities_of` foreground takes one plane)" * (count == 1)
    if count < 2 or "c" not in probabilities.axes:
        raise InputError(
            f"{probabilities.path}: expected probabilities of two or more classes, one plane "
            f"of the first axis for each, got the shape {probabilities.shape}{hint}"
        )
    return count


def default_names(count: int, probabilities: Image | None) -> Sequence[str]:
    """Names of classes that nobody has named: those of the planes of probabilities, if any."""
    planes = () if probabilities is None else probabilities.used_names
    if len(set(planes)) == count == len(planes):
        return planes
    return [f"class {j + 1}" for j in range(count)]


@dataclass(frozen=True)
class Choice:
    """How to make the labels: from options alone, a model, or estimated weights.

    Attributes
    ----------
    term, settings : data term and flow
    model : Model or None
    weights : image of weights or None
    classes : the truth values that labels stand for; () if they were not learned
    """

    term: Pending
    settings: Settings
    model: Model | None = None
    weights: Image | None = None
    classes: tuple[Class, ...] = ()


def choose_labeling(
    image: Image,
    *,
    classes: int | None = None,
    prototypes: Any = None,
    probabilities: Image | None = None,
    term: Any = None,
    model: Any = None,
    weights: Any = None,
    neighborhood: Any = None,
    rho: float | None = None,
    time: float | None = None,
    integrator: Integrator | None = None,
    device: str = "cpu",
    seed: int = 0,
    min_confidence: float | None = None,
) -> Choice:
    """Put together all that labels depend on; None means not given.

    Raises
    ------
    ValueError
        If an option contradicts a model or weights, or the data term is not exactly one.
    """
    least = check_confidence(min_confidence)
    ndim = len(image.spatial_axes)
    if integrator is not None and not hasattr(integrator, "reach"):
        raise InputError(f"expected an `integrator` such as Taylor(), got {integrator!r}")
    flow = {"neighborhood": neighborhood, "rho": rho, "time": time, "integrator": integrator}
    data = {"classes": classes, "prototypes": prototypes, "term": term}
    if model is not None:
        _refuse("`model`", {**data, "weights": weights, **flow})
        return _sure(_by_model(model, ndim, device), least)
    if weights is None:
        near = "3x3" if neighborhood is None else neighborhood
        offsets, lines = neighborhoods.choose(near, [image])
        for line in lines:
            say(f"{image.path}: {line}")
        settings = make_settings(
            offsets,
            ndim,
            1.0 if rho is None else rho,
            5.0 if time is None else time,
            integrator,
            device,
        )
        chosen = Choice(data_term(classes, prototypes, probabilities, seed, term), settings)
        return _sure(chosen, least)
    _refuse("`weights`", {"classes": classes, "term": term, **flow})
    source, notes = open_weights(weights)
    held, here = notes.input, image.fingerprint()
    if held and here and held != here:
        raise InputError(f"{weights}: expected weights of {image.path}, got those of another image")
    scheme: Integrator = Taylor(notes.tol)
    if notes.sequence > 1:
        scheme = LinearizedSequence(notes.sequence, notes.tol)
    settings = make_settings(notes.offsets, ndim, notes.rho, notes.time, scheme, device)
    found = model_classes.classes_from(notes.classes)
    count = None if probabilities is None else _classes_of(probabilities)
    recalled = terms.recalled(notes.term, prototypes, count)
    if recalled.classes != len(found):
        raise DamagedFile(f"{weights}: expected {len(found)} classes, got {recalled.classes}")
    return _sure(Choice(recalled, settings, weights=source, classes=found), least)


def _sure(chosen: Choice, least: float | None) -> Choice:
    """The same, where pixels of less than the least confidence are not labeled."""
    settings = dataclasses.replace(chosen.settings, min_confidence=least)
    return dataclasses.replace(chosen, settings=settings)


def _refuse(what: str, given: Mapping[str, Any]) -> None:
    named = [f"`{key}`" for key, value in given.items() if value is not None]
    if named:
        raise InputError(f"{what} fixes {', '.join(named)}: drop one or the other")


def loaded(model: Any) -> Model | None:
    """The model: a path to load, a model, or None."""
    return model if model is None or isinstance(model, Model) else model_file.load(model)


def _by_model(model: Any, ndim: int, device: str) -> Choice:
    found = loaded(model)
    assert found is not None
    settings = found.settings(device)
    check_device(device)
    offsets = stencil.fit(found.offsets, ndim)
    if len(found.offsets[0]) != ndim:
        raise InputError(
            f"the model expects images with {len(found.offsets[0])} spatial axes, got {ndim}"
        )
    settings = dataclasses.replace(settings, offsets=offsets)
    return Choice(found.term, settings, found, classes=found.classes)


def open_weights(path: str | os.PathLike[str]) -> tuple[Image, WeightsEntry]:
    """Open weights that `estimate` wrote, and return its notes as well.

    Raises
    ------
    ValueError
        If the path holds no such weights.
    """
    text = os.fspath(path)
    redaction.check(text)
    notes = ngff.read_notes(text, "") if nodes.is_store(text) else None
    if not notes or "weights" not in notes:
        what = "something else" if Path(text).exists() else "no such path"
        raise InputError(f"{text}: expected weights from 'tiledlaf estimate', got {what}")
    try:
        entry = arrays.convert(notes["weights"], WeightsEntry)
    except InputError as error:
        raise DamagedFile(f"{text}: expected weights from 'tiledlaf estimate', {error}") from None
    return images.open_image(text), entry
