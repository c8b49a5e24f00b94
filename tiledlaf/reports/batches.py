"""A batch from beginning to end: its images labeled, a table of areas and a page of all."""

from __future__ import annotations

import os
import time as clock
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ..annotations.opening import Painting
from ..errors import TiledlafWarning
from ..labeling import batch as labeling_batch
from ..labeling import inputs, request
from ..labeling.batch import Outcome
from ..labeling.inputs import Item
from ..labeling.plan import Plan
from ..pool import tasks
from ..pool.tasks import Pool
from ..results.wanted import wanted_objects
from . import gallery

OWN = (*request.CHOICE, "probabilities", "mask", "region", "painting", "seed")
PAUSE, SHARE = 60.0, 0.02  # seconds between two reports at least, and their share of all time


def batch(
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    into: str | os.PathLike[str],
    *,
    objects: str | int | Sequence[str | int] | None = None,
    connectivity: str | None = None,
    min_size: float | str | None = None,
    fill_holes: bool | float | str | None = None,
    progress: Callable[[dict[str, Any]], None] | None = None,
    **options: Any,
) -> list[Outcome]:
    """Label many images, each into an OME-Zarr of its name, on one pool.

    The next image is planned while one is labeled. One that fails does not keep the others from
    being labeled; the same call goes on where it was cut. `into` gets summary.csv with the areas of
    all classes, and index.html with a row for each image.

    Parameters
    ----------
    images : path or paths
        Files, globs, folders of images, and tables (.csv) of images with options of their own, see
        docs/batches.md. Of a plate, all fields are labeled.
    into : path
        Folder, or URL, of the outputs: those of slide.svs are slide.zarr.
    objects : class or classes, optional
        Make the objects of these classes, by name or label value, once an image is labeled.
    connectivity, min_size, fill_holes
        What an object is, as of `objects`.
    progress : callable, optional
        Called with the record of each tile as it finishes, in which `input` names its image.
    **options
        As of `label`, for all images: classes, prototypes, probabilities, term or model; mask,
        level, names, workers and so on. `mask` and `probabilities` may be globs or folders of files
        that belong to the images by their names. `series` may be "all".

    Returns
    -------
    list of Outcome
        For each image its Summary and objects, or the error because of which it could not be
        labeled.

    Raises
    ------
    ValueError
        If nothing is found, or the options are wrong whatever the image.

    Examples
    --------
    >>> import numpy as np, os, tiledlaf
    >>> os.mkdir("slides")
    >>> for number in (1, 2):
    ...     image = np.zeros((6, 8)); image[:, 2 * number :] = 1
    ...     np.save(f"slides/{number}.npy", image)
    >>> np.save("slides/3.npy", np.zeros(5))
    >>> found = tiledlaf.batch("slides/*.npy", "results", classes=2)
    >>> [one.output for one in found if one.complete]
    ['results/1.zarr', 'results/2.zarr']
    >>> found[0].summary.pixels
    [0, 12, 36]
    >>> print(found[2].error)
    slides/3.npy: expected an image of two axes or more, got the shape (5,)
    >>> sorted(os.listdir("results"))[-2:]
    ['index.html', 'summary.csv']
    """
    tasks.check_progress(progress)
    wanted = wanted_objects(objects, connectivity, min_size, fill_holes)
    own = {name: options.pop(name) for name in OWN if name in options}
    selection, writing, running = request.grouped(options, "batch", OWN)
    choice = {**own, "selection": selection, "writing": writing, "running": running}
    choice.setdefault("painting", Painting())
    given = [images] if isinstance(images, str | os.PathLike) else list(images)
    into = inputs.folder(into)
    items, choice = found(given, into, choice)
    report = Report(into, writing.name)

    @contextmanager
    def follow(
        item: Item, plan: Plan, pool: Pool
    ) -> Iterator[Callable[[dict[str, Any]], None] | None]:
        wanted.check(plan, pool)
        yield progress and (lambda record: progress({**record, "input": item.input}))

    outcomes = labeling_batch.run(
        items, into, choice, follow, wanted.make, lambda outcome: report.now_and_then()
    )
    report.write()
    return outcomes


def found(
    given: Sequence[str | os.PathLike[str]], into: str, choice: Mapping[str, Any]
) -> tuple[list[Item], dict[str, Any]]:
    """The images of a batch, and the options for all of them.

    Raises
    ------
    ValueError
        If nothing is found, or the options are wrong whatever the image.
    """
    settled = labeling_batch.settled_choice(choice)
    selection = settled.get("selection")
    items = inputs.find(given, into, None if selection is None else selection.series)
    return inputs.paired(items, settled)


class Report:
    """The table and the page of a folder of outputs, written at the end and now and then."""

    def __init__(self, folder: str, name: str) -> None:
        """Refuse a folder where files of these names are not of this program."""
        self._gallery = gallery.Gallery(folder, name)
        self._next = clock.monotonic() + PAUSE

    def now_and_then(self) -> None:
        """Write both if it is time; that they cannot be written keeps no image from its labels."""
        began = clock.monotonic()
        if began >= self._next:
            try:
                self.write()
            except (OSError, ValueError) as error:
                why = labeling_batch.reason(error)
                warnings.warn(f"no {inputs.PAGE} for now, {why}", TiledlafWarning, stacklevel=2)
            now = clock.monotonic()
            self._next = now + max(PAUSE, (now - began) / SHARE)

    def write(self) -> None:
        """Write both."""
        self._gallery.write()


def line(outcome: Outcome) -> str:
    """One image in a line."""
    if outcome.summary is None:
        return f"{outcome.input}: not labeled, {outcome.reasons[0]}"
    if outcome.error is not None:
        return f"{outcome.input}: labeled, without objects, {outcome.reasons[0]}"
    tiles = outcome.summary.tiles
    failed = f", {tiles['failed']} failed" if tiles["failed"] else ""
    count = tiles["done"] + tiles["skipped"]
    return f"{outcome.input}: {count} tiles{failed}, {outcome.seconds:.1f} s -> {outcome.output}"


def failures(outcomes: Sequence[Outcome]) -> list[str]:
    """A line for each image that is not complete."""
    lines = []
    for one in outcomes:
        if not one.complete:
            reasons = one.reasons
            more = f" (and {len(reasons) - 1} more tiles)" if len(reasons) > 1 else ""
            lines.append(f"{one.input}: {reasons[0] if reasons else 'not complete'}{more}")
    return lines


def summary(outcomes: Sequence[Outcome], into: str, seconds: float) -> list[str]:
    """Lines on all images of a batch."""
    complete = sum(one.complete for one in outcomes)
    bare = sum(one.summary is not None and one.error is not None for one in outcomes)
    refused = sum(one.summary is None for one in outcomes)
    lines = [
        f"images: {complete} complete, {len(outcomes) - complete - bare - refused} with failed "
        f"tiles, {refused} not labeled" + (f", {bare} without objects" if bare else "")
    ]
    fresh = sum(one.summary.fresh for one in outcomes if one.summary is not None)
    lines.append(f"seconds: {seconds:.1f}")
    if fresh:
        lines.append(f"throughput: {fresh / seconds / 1e6:.3g} megapixels a second")
    pages = f"{inputs.SUMMARY} has the areas, {inputs.PAGE} shows all"
    return [*lines, f"output: {into} ({pages})"]
