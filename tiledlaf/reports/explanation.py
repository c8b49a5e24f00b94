"""`explain`: draw what a model has learned, and what it does on an image."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..annotations.opening import Painting
from ..errors import InputError
from ..files.selection import Selection
from ..model import model as model_file
from ..model.model import Model
from . import pages as page_of
from .frontpage import first_view
from .view import look, open_example


def explain(
    model: Any,
    folder: str | os.PathLike[str],
    image: Any = None,
    *,
    truth: Any = None,
    probabilities: Any = None,
    mask: Any = None,
    region: Sequence[tuple[int, int]] | None = None,
    device: str = "cpu",
    painting: Painting = Painting(),
    instances: str | None = None,
    colors: Mapping[str, Any] | Sequence[tuple[str, str]] | None = None,
    ignore: int | str | Sequence[int | str] | None = None,
    **selection: Any,
) -> Path:
    """Say and draw what a model has learned, and what it does on an image, in a new folder.

    The page begins with which features, distances and directions mattered, in everyday words; what
    authors want to know of patterns and gradients is folded below.

    Weights depend on pixels at full size, so a large image is not shrunk: its central part of at
    most 512 x 512 pixels is shown unless `region` chooses another; for a volume, the middle
    section.

    Parameters
    ----------
    model : Model or path
    folder : where the pictures and index.html go; new, or empty
    image : path or array, optional
    truth : labels of the image, optional
        Needed for the singular vectors of the gradient of the loss.
    probabilities, mask, region, device
        As for `tiledlaf.label`.
    painting, instances, colors, ignore
        How annotations become pixels, and what the values of the truth mean, as for
        `tiledlaf.pair`.
    **selection
        Which part of the file: level, axes, channels, ... (see `Selection`).

    Returns
    -------
    Path of index.html

    Raises
    ------
    ValueError
        If the image does not fit the model, or the folder is not empty.

    Examples
    --------
    A model that listens to the right neighbor alone:

    >>> import tempfile
    >>> import numpy as np, tiledlaf
    >>> from tiledlaf.model.classes import Class
    >>> from tiledlaf.model.features import PATCH
    >>> from tiledlaf.model.predictor import Predictor
    >>> from tiledlaf.model.terms import Prototypes
    >>> box = tiledlaf.stencil.box(3, 3)
    >>> patch = np.array([[9.0 * (offset == (0, 1)) for offset in box]])
    >>> weights = Predictor(PATCH, np.zeros(9), np.ones(9), np.zeros((1, 9)), patch)
    >>> classes, term = (Class("dark", (0,)), Class("light", (1,))), Prototypes(((0.0,), (1.0,)), 1)
    >>> model = tiledlaf.Model(classes, term, box, 1.0, 1.0, 1e-3, 1, weights, (0.0, 0.0))
    >>> index = tiledlaf.explain(model, tempfile.mkdtemp())
    >>> "Pixels listen mostly to what lies to the right of them." in index.read_text()
    True
    """
    found = model if isinstance(model, Model) else model_file.load(model)
    if found.predictor is None:
        raise InputError(
            "expected a model with learned weights, got one without (`report` shows what its "
            "training compared; `train --flow learned` learns them in any case)"
        )
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target}: expected a new or empty folder for the pictures")
    given = {"truth": truth, "probabilities": probabilities, "mask": mask, "region": region}
    meant = {"instances": instances, "colors": colors or None, "ignore": ignore}
    view = None
    if image is None:
        every = {**given, **meant, "brush": painting.brush, **selection}
        named = [f"`{name}`" for name, value in every.items() if value is not None]
        if named:
            raise InputError(f"{', '.join(named)} without an image: expected an IMAGE as well")
    else:
        chosen = found.select(Selection(**selection))
        if truth is None and any(value is not None for value in meant.values()):
            raise InputError("`instances`, `colors` and `ignore` belong to `truth`")
        inputs = (image, truth, probabilities, mask)
        example = open_example(*inputs, chosen, painting=painting, **meant)
        view = look(found, found.predictor, example, region, device)
    pages = [page_of.anchors(found, found.predictor, view)]
    if view is not None:
        pages += [
            page_of.labels(found, view),
            page_of.entropy(view),
            page_of.direction(view),
            page_of.axis(view),
        ]
    if view is not None and truth is not None:
        pages += page_of.gradient(found, view)
    target.mkdir(parents=True, exist_ok=True)
    for page in pages:
        page.picture.save(target / page.file)
    index = target / "index.html"
    first = first_view(found, found.predictor, view)
    index.write_text(page_of.html_of(found, found.predictor, pages, view, first), "utf-8")
    return index
