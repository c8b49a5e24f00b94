"""`report`: a page of a run or of a training, one file that any browser shows."""

from __future__ import annotations

import os
import zipfile

from ..errors import InputError
from ..files import nodes, stores
from ..model import model as model_file
from ..results.result import open_result
from . import frame, run_page, training_page

NAME = "tiledlaf"  # of labels, unless a run gives another


def report(
    path: str | os.PathLike[str],
    target: str | os.PathLike[str] | None = None,
    *,
    name: str | None = None,
) -> str:
    """Write a page of a run, or of the training of a model: one HTML file that needs no network.

    That of a run shows a picture, the area of each class, how sure the labels are, the settings,
    versions and time; that of a training its curves, which classes validation confused, and what
    was learned.

    Parameters
    ----------
    path : an output of `label`, or a model; a path or a URL
    target : the page, a path or a URL ending .html
        By default beside `path`, with its name and .report.html; with that of the labels before
        it where this is not "tiledlaf". A page that is there already is replaced, another file is
        not.
    name : of the labels; may be left out where there is one

    Returns
    -------
    where the page is

    Raises
    ------
    ValueError
        If there is neither a finished run nor a model, or the target is another's file.

    Examples
    --------
    >>> import numpy as np, tiledlaf
    >>> image = np.repeat([[0, 200]], 32, axis=1).repeat(64, axis=0).astype(np.uint8)
    >>> done = tiledlaf.label(image, "pair.zarr", classes=2, confidence=True)
    >>> tiledlaf.report("pair.zarr")
    'pair.zarr.report.html'
    """
    path = os.fspath(path)
    given = None if target is None else os.fspath(target)
    if not stores.is_url(path) and not os.path.exists(path):
        raise InputError(f"{path}: no such file or folder")
    if given is not None:
        frame.check(given)  # before anything is read
    if stores.is_url(path) or nodes.is_store(path):
        result = open_result(path, name)
        place = given or _beside(path, "" if result.name == NAME else f".{result.name}")
        frame.check(place)
        page = run_page.html_of(result)
    elif os.path.isfile(path) and zipfile.is_zipfile(path):
        if name is not None:
            raise InputError(f"`name` belongs to an output with labels, got the model {path}")
        place = given or _beside(path)
        frame.check(place)
        page = training_page.html_of(model_file.load(path), path)
    else:
        raise InputError(f"{path}: expected an output of tiledlaf or a model, got neither")
    frame.put(place, page)
    return place


def _beside(path: str, part: str = "") -> str:
    """The place of a page that was given none: never within an output, also from its folder."""
    whole = path.rstrip("/")
    if not stores.is_url(path) and os.path.basename(whole) in ("", ".", ".."):
        whole = os.path.abspath(path)
    return f"{whole}{part}.report.html"
