"""How labels are to be made: what is asked for, checked and put together."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import redaction
from ..files import images, ngff, nodes
from ..files.image import Image
from ..flow import stencil
from ..flow.linear import Integrator, LinearizedSequence, Taylor
from ..kernels.arrays import check_device
from ..model import classes as model_classes
from ..model import model as model_file
from ..model import terms
from ..model.classes import Class
from ..model.model import Model
from ..model.settings import Settings, make_settings


def data_term(
    classes: int | None, prototypes: Any, probabilities: Image | None, seed: int
) -> terms.Pending:
    """Return the one data term that is asked for.

    Raises
    ------
    ValueError
        If it is not exactly one, or has fewer than two classes.
    """
    if sum(x is not None for x in (classes, prototypes, probabilities)) != 1:
        raise ValueError("expected exactly one of --classes, --prototypes and --probabilities")
    if classes is not None:
        return terms.Clusters(classes, seed)
    if prototypes is not None:
        rows = np.asarray(prototypes, np.float64)
        if rows.ndim != 2 or len(rows) < 2:
            raise ValueError(f"expected two or more prototypes as rows, got shape {rows.shape}")
        if not np.isfinite(rows).all() or len(np.unique(rows, axis=0)) < len(rows):
            raise ValueError("expected prototypes that are finite and different from each other")
        return terms.Prototypes(tuple(tuple(map(float, row)) for row in rows))
    assert probabilities is not None
    count = probabilities.stored_channels
    if count < 2 or probabilities.axes[0] != "c":
        raise ValueError(
            f"{probabilities.path}: expected probabilities of two or more classes, one a plane of "
            f"the first axis, got the shape {probabilities.shape}"
        )
    return terms.Probabilities(count)


def open_probabilities(source: Any, spatial_axes: str) -> Image:
    """Probabilities as an image whose first axis are the classes."""
    axes = "c" + spatial_axes
    if isinstance(source, str | os.PathLike):
        return images.open_image(source, axes=axes)
    return images.from_array(source, axes)


@dataclass(frozen=True)
class Choice:
    """How labels are to be made: by options alone, by a model, or by estimated weights.

    Attributes
    ----------
    term, settings : data term and flow
    model : Model or None
    weights : image of weights or None
    classes : what labels stand for in a truth; () where they were not learned
    """

    term: terms.Pending
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
    model: Any = None,
    weights: Any = None,
    neighborhood: Any = None,
    rho: float | None = None,
    time: float | None = None,
    integrator: Integrator | None = None,
    device: str = "cpu",
    seed: int = 0,
) -> Choice:
    """Put together what labels depend on; None means not given.

    Raises
    ------
    ValueError
        If an option contradicts a model or weights, or the data term is not exactly one.
    """
    ndim = len(image.grid)
    flow = {"neighborhood": neighborhood, "rho": rho, "time": time, "integrator": integrator}
    if model is not None:
        _refuse(
            "--model", {"classes": classes, "prototypes": prototypes, "weights": weights, **flow}
        )
        return _by_model(model, ndim, device)
    if weights is None:
        settings = make_settings(
            "3x3" if neighborhood is None else neighborhood,
            ndim,
            1.0 if rho is None else rho,
            5.0 if time is None else time,
            integrator,
            device,
        )
        return Choice(data_term(classes, prototypes, probabilities, seed), settings)
    _refuse("--weights", {"classes": classes, **flow})
    source, notes = open_weights(weights)
    held, here = notes["input"], image.fingerprint()
    if held and here and held != here:
        raise ValueError(f"{weights}: expected weights of {image.path}, got those of another image")
    scheme: Integrator = Taylor(notes["tol"])
    if notes.get("sequence", 1) > 1:
        scheme = LinearizedSequence(notes["sequence"], notes["tol"])
    settings = make_settings(notes["offsets"], ndim, notes["rho"], notes["time"], scheme, device)
    found = model_classes.classes_from(notes["classes"])
    term = _term_of(notes["term"], prototypes, probabilities)
    return Choice(term, settings, weights=source, classes=found)


def _refuse(what: str, given: Mapping[str, Any]) -> None:
    named = [f"--{key}" for key, value in given.items() if value is not None]
    if named:
        raise ValueError(f"{what} fixes {', '.join(named)}: drop one or the other")


def _by_model(given: Any, ndim: int, device: str) -> Choice:
    found = given if isinstance(given, Model) else model_file.load(given)
    settings = found.settings(device)
    check_device(device)
    offsets = stencil.fit(found.offsets, ndim)
    if len(found.offsets[0]) != ndim:
        raise ValueError(
            f"the model expects images with {len(found.offsets[0])} spatial axes, got {ndim}"
        )
    settings = dataclasses.replace(settings, offsets=offsets)
    return Choice(found.term, settings, found, classes=found.classes)


def _term_of(held: Sequence[Any], prototypes: Any, probabilities: Image | None) -> Any:
    """The data term that weights were estimated with; what is given must be the same."""
    if held[0] == "probabilities":
        if probabilities is None or prototypes is not None:
            raise ValueError("--weights were estimated with --probabilities: give them")
        term = data_term(None, None, probabilities, 0)
        if term.classes != held[1]:
            raise ValueError(f"expected probabilities of {held[1]} classes, got {term.classes}")
        return term
    values = tuple(map(tuple, held[1]))
    if probabilities is not None or (
        prototypes is not None and not np.array_equal(np.asarray(prototypes, float), values)
    ):
        raise ValueError(f"--weights were estimated with the prototypes {values}, got others")
    return terms.Prototypes(values, float(held[2]))


def open_weights(path: str | os.PathLike[str]) -> tuple[Image, dict[str, Any]]:
    """Weights that `estimate` wrote, and its notes on them.

    Raises
    ------
    ValueError
        If they are none.
    """
    text = os.fspath(path)
    redaction.check(text)
    notes = ngff.read_notes(text, "") if nodes.is_store(text) else None
    if not notes or "weights" not in notes:
        what = "something else" if Path(text).exists() else "no such path"
        raise ValueError(f"{text}: expected weights of 'tiledlaf estimate', got {what}")
    return images.open_image(text), notes["weights"]
