"""`label`: from images to labels, in memory, lazily or into a store."""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ..annotations import opening, values
from ..annotations.opening import Painting
from ..errors import InputError, as_seed, understood
from ..files import images
from ..files.image import Image, say
from ..files.repeated import at_every_time
from ..files.selection import Selection
from ..flow.linear import Integrator
from ..model.channels import with_channels
from ..model.model import Model
from ..model.term import Pending
from ..pool.lazy import is_dask
from ..pool.opening import Running
from ..pool.tasks import Pool, check_progress
from . import lazy, resources, sample, tissue
from . import mask as run_mask
from . import run as labeling_run
from .choice import choose_labeling, loaded
from .plan import Plan, Writing, make_plan
from .run import Progress

# keywords that say on what labels depend
CHOICE = (
    *("classes", "prototypes", "term", "model", "weights"),
    *("neighborhood", "rho", "time", "integrator", "min_confidence"),
)
ONLY_FILES = ("level", "series", "pixel_size", "input_pixel_size", "probabilities_of")
LAZY = "not available for dask arrays, which are labeled lazily"


def prepare(
    image: Any,
    output: str | os.PathLike[str] | None = None,
    *,
    probabilities: Any = None,
    mask: Any = None,
    region: Sequence[tuple[int, int]] | None = None,
    selection: Selection = Selection(),
    painting: Painting = Painting(),
    seed: int = 0,
    writing: Writing = Writing(),
    running: Running = Running(),
    **choice: Any,
) -> Plan:
    """Open the inputs, check that they fit, and lay out the tiles; nothing is written.

    Parameters
    ----------
    image, output, probabilities, mask, region, seed
        As in `label`.
    selection, painting, writing, running
        Which part of the image; how annotations become a mask; what to write; where and how to
        compute.
    **choice
        What labels depend on: classes, prototypes, term, model, weights, neighborhood, rho, time,
        integrator, min_confidence, as in `label`.

    Raises
    ------
    ValueError
        If the image cannot be labeled this way; says what was expected and what was given.
    """
    model = choice["model"] = loaded(choice.get("model"))
    source = images.as_image(image, selection if model is None else model.select(selection))
    if model is not None:
        _say_scale(model, source, selection)
        source = with_channels(model, source, selection.channels)
    given = None
    if probabilities is not None:
        given = images.as_probabilities(probabilities, source, selection.probabilities_of)
    elif selection.probabilities_of is not None:
        raise InputError("`probabilities_of` belongs to `probabilities`")
    if isinstance(mask, str) and mask == opening.TISSUE:
        mask = tissue.pending(source)
    masked = None if mask is None else values.open_mask(mask, source, painting)
    with understood("painting", painting, "a Painting"):
        opening.check_painting(painting, masked)
    if masked is not None:
        masked = images.on_grid(at_every_time(masked, source), source, coarse=True)
    chosen = choose_labeling(
        source, probabilities=given, device=running.device, seed=seed, **choice
    )
    given = _made(chosen.term, source, given)
    with understood("output", output, "a path"):
        store = None if output is None else os.fspath(output)
    if writing.into_input:
        if store not in (None, source.path):
            raise InputError(f"expected an output or `into_input`, got both ({store})")
        store = source.path
    elif store is None:
        _refuse_changed(writing, Writing(confidence=writing.confidence), "needs an output")
    return make_plan(
        source,
        store,
        term=chosen.term,
        settings=chosen.settings,
        model=chosen.model,
        weights=chosen.weights,
        classes=chosen.classes,
        probabilities=given,
        mask=masked,
        region=region,
        tile=running.tile,
        writing=writing,
        seed=seed,
    )


def _made(term: Pending, image: Image, given: Image | None) -> Image | None:
    """The probabilities that a term's network makes of the image, or those that are given."""
    made = term.probabilities_of(image)
    if made is not None and given is not None:
        raise InputError("the model has a network: drop `probabilities`")
    return given if made is None else made


def _say_scale(model: Model, image: Image, selection: Selection) -> None:
    """Say so if an image has several levels and the model does not know which it is for."""
    known = (selection.level, selection.pixel_size, model.images.pixel_size)
    if len(image.levels) > 1 and not model.images.level and all(v is None for v in known):
        say(
            f"{image.path}: the model does not say at which pixel size it learned: level 0 is "
            "labeled (choose with `level` or `pixel_size`)"
        )


def execute(plan: Plan, pool: Pool, progress: Progress | None = None) -> Any:
    """Carry out a plan.

    Parameters
    ----------
    pool : from `resources.open_pool`
    progress : called with the record of each tile as it finishes

    Returns
    -------
    Summary if there is an output, otherwise labels, or (labels, confidence)
    """
    check_progress(progress)
    plan = settle(plan, pool)
    if plan.out is not None:
        return labeling_run.run(plan, pool, progress)
    return labeling_run.run_in_memory(plan, pool, plan.job.certain, progress)


def settle(plan: Plan, pool: Pool) -> Plan:
    """A plan with all that is found before its tiles: mask, prototypes, scale."""
    resources.check_resources(plan, pool)
    return sample.settle(run_mask.settle(plan, pool))


def label(
    image: Any,
    output: str | os.PathLike[str] | None = None,
    *,
    classes: int | None = None,
    prototypes: Any = None,
    probabilities: Any = None,
    term: Any = None,
    model: Model | str | os.PathLike[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    neighborhood: str | Sequence[Sequence[int]] | None = None,
    rho: float | None = None,
    time: float | None = None,
    integrator: Integrator | None = None,
    min_confidence: float | None = None,
    mask: Any = None,
    region: Sequence[tuple[int, int]] | None = None,
    level: int | None = None,
    channels: Sequence[int | str] | None = None,
    axes: str | None = None,
    painting: Painting = Painting(),
    seed: int = 0,
    progress: Progress | None = None,
    **options: Any,
) -> Any:
    """Label an image by a linearized assignment flow, tile by tile.

    Parameters
    ----------
    image : array, dask array or path
        2-D is (y, x); 3-D is (c, y, x) if the first axis is at most 4, (y, x, c) if the last is
        3 or 4; otherwise give `axes`. Paths: OME-Zarr, Zarr, TIFF, PNG, JPEG, npy.
    output : path, optional
        An OME-Zarr to write. Without one, arrays are returned.
    classes : int, optional
        Number of prototypes to find by k-means. Give exactly one data term.
    prototypes : (J, C) array, optional
        Prototypes in the units of the image, one row per class.
    probabilities : (J, *grid) array, dask array or path, optional
        Class probabilities of any model: floats that sum to 1, or unsigned integers; or what
        `probabilities_of` says, "foreground" or "cellpose", see docs/probabilities.md.
    term : data term, optional
        Any other one, or the name of one that an installed package provides; see
        docs/extending.md.
    model : Model or path, optional
        A trained model; fixes data term, neighborhood, rho, time and integrator.
    weights : path, optional
        Weight patches of this image, from `estimate`; they fix neighborhood, rho and time.
    neighborhood : str or offsets
        ``3x3`` by default, ``5x5``, ``3x3x3``, ``rings:3,7``, a file of offsets, the offsets, or
        all pixels within a distance such as ``15nm``, by the image's pixel size along each axis.
    rho, time : float
        Scale of the distances (1) and integration time T (5).
    integrator : optional
        Of the linearized flow: Taylor(1e-4), the default, Krylov, Euler or LinearizedSequence; of
        the nonlinear flow: GeometricEuler or RKMK4.
    min_confidence : float, optional
        Pixels of a lower confidence, above 0 and up to 1, get no label: 0.
    mask : array or path, or "tissue", optional
        Pixels where it is 0 are not labeled; of annotations, those outside. "tissue" finds the
        mask in the image itself.
    region : (start, stop) for each spatial axis, optional
        Label only this part; gives the crop of the whole image's labels.
    level : int, optional
        Resolution level of a file; by default the one that the model learned at, or 0.
    channels, axes : optional
        Channels to use for the data term, by number or name; axes, if the image does not name them.
    painting : Painting
        How wide lines and points are among the annotations of a mask.
    seed : int
        Seed for k-means and its sample.
    progress : callable, optional
        Called with the record of each tile as it finishes.
    **options
        Which part of a file: series, time_point ("all": each of them, and labels keep the axis t),
        z, pixel_size, input_pixel_size, no_data, intensity_scale, and probabilities_of (see
        `Selection`). How the work is done, without effect on labels: workers, scheduler,
        scheduler_file, device, tile (see `Running`). What is written: confidence, and for an output
        name, names, copy_image, into_input, overwrite, overview (see `Writing`).

    Returns
    -------
    labels, or (labels, confidence), or Summary
        Labels are 1..J, 0 where masked. Dask arrays give lazy dask arrays, an `output` a Summary.

    Raises
    ------
    ValueError
        If the input cannot be labeled this way; says what was expected and what was given.

    Examples
    --------
    >>> import numpy as np, tiledlaf
    >>> image = np.zeros((6, 8)); image[:, 4:] = 1
    >>> tiledlaf.label(image, classes=2)[0]
    array([1, 1, 1, 1, 2, 2, 2, 2], dtype=uint8)
    """
    given = {name: value for name, value in locals().items() if name in OWN}
    part = {name: given.pop(name) for name in ("level", "channels", "axes")}
    selection, writing, running = grouped(options | part)
    if any(map(is_dask, (image, probabilities, mask))):
        _check_lazy(given | {"output": output}, selection, writing, running)
        image, probabilities, mask = (
            lazy.plain(one, name)
            for one, name in ((image, "array"), (probabilities, "probabilities"), (mask, "mask"))
        )
        seed = as_seed(seed)
        bare, proxy = lazy.opened(image, probabilities, selection)
        choice = {name: given[name] for name in CHOICE}
        chosen = choose_labeling(
            bare, probabilities=proxy, device=running.device, seed=seed, **choice
        )
        return lazy.label(image, bare, probabilities, proxy, mask, chosen, seed, writing.confidence)
    del given["progress"]
    plan = prepare(image, output, selection=selection, writing=writing, running=running, **given)
    with resources.open_pool(plan, running) as pool:
        return execute(plan, pool, progress)


def grouped(
    options: Mapping[str, Any], call: str = "label", own: Collection[str] = ()
) -> tuple[Selection, Writing, Running]:
    """Sort options into their groups.

    Parameters
    ----------
    call, own : the function that takes them, and its own keywords

    Raises
    ------
    TypeError
        If an option has an unknown name; suggests a similar one.
    """
    groups = (Selection, Writing, Running)
    names = [{field.name for field in dataclasses.fields(group)} for group in groups]
    for name in options:
        if not any(name in known for known in names):
            near = difflib.get_close_matches(name, {*own, *OWN}.union(*names), 1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise TypeError(f"{call}() has no keyword {name!r}{hint}")
    selection, writing, running = (
        {k: v for k, v in options.items() if k in known} for known in names
    )
    return Selection(**selection), Writing(**writing), Running(**running)


def _check_lazy(
    given: Mapping[str, Any], selection: Selection, writing: Writing, running: Running
) -> None:
    """Refuse what has no meaning for dask arrays, rather than ignore it."""
    _refuse_given({name: given[name] for name in ("output", "region", "progress")}, LAZY)
    _refuse_given({name: getattr(selection, name) for name in ONLY_FILES}, LAZY)
    if isinstance(given["mask"], str):
        raise InputError(f"`mask` {given['mask']}: expected a dask array like the image")
    _refuse_changed(given["painting"], Painting(), LAZY)
    _refuse_changed(writing, Writing(confidence=writing.confidence), LAZY)
    _refuse_changed(running, Running(device=running.device), LAZY)


def _refuse_given(given: Mapping[str, Any], why: str) -> None:
    named = [f"`{name}`" for name, value in given.items() if value]
    if named:
        raise InputError(f"{', '.join(named)}: {why}")


def _refuse_changed(given: Any, default: Any, why: str) -> None:
    """Refuse fields that differ from a default, rather than ignore them."""
    changed = {
        field.name: True
        for field in dataclasses.fields(given)
        if getattr(given, field.name) != getattr(default, field.name)
    }
    _refuse_given(changed, why)


# keywords of `label` itself, to suggest one for a misspelled name
OWN = frozenset(label.__kwdefaults__ or ())
