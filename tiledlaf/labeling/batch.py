"""Many images one after the other on one pool; each is planned while the one before is labeled."""

from __future__ import annotations

import dataclasses
import json
import os
import time as clock
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import chain
from typing import Any

from ..annotations.opening import TISSUE
from ..errors import InputChanged, InputError, Outage, in_a_line
from ..files import stores
from ..files.selection import Selection
from ..pool.crew import Files
from ..pool.opening import Running
from ..pool.tasks import Pool
from ..redaction import shown
from . import request, resources
from . import run as labeling_run
from .choice import loaded
from .inputs import ENDING, EVERY, LISTING, Item, name_of
from .plan import Plan
from .run import Progress, Summary

Follow = Callable[[Item, Plan, Pool], AbstractContextManager[Progress | None]]
After = Callable[[Plan, Summary, Pool], Sequence[Any]]
SELECTED = {one.name for one in dataclasses.fields(Selection)}
OURS = {"made by": "tiledlaf, for a batch"}


@dataclass
class Outcome:
    """What became of one image of a batch.

    Attributes
    ----------
    input, output : path of the image, and of the OME-Zarr for its labels
    summary : of the run, None where it could not be labeled
    error : why not, or why what was to follow its labels could not be made; None where all could be
    seconds : from the end of the image before to its own
    objects : those that were made of its labels
    """

    input: str
    output: str
    summary: Summary | None = None
    error: Exception | None = None
    seconds: float = 0.0
    objects: Sequence[Any] = ()

    @property
    def complete(self) -> bool:
        """Whether all of it is labeled, and what was asked for of its labels is made."""
        return self.summary is not None and self.summary.complete and self.error is None

    @property
    def refused(self) -> bool:
        """Whether trying the same again would not help: the image or the options are wrong."""
        passing = isinstance(self.error, InputChanged | Outage)
        return self.summary is None and isinstance(self.error, ValueError) and not passing

    @property
    def reasons(self) -> list[str]:
        """Why it is not complete: a line for the image, or for each tile that failed."""
        if self.error is not None:
            return [reason(self.error)]
        return [] if self.summary is None else list(self.summary.errors)


def reason(error: BaseException) -> str:
    """An error as a line."""
    if isinstance(error, OSError) and error.filename:
        text = f"{error.filename}: {error.strerror}"
    elif isinstance(error, ValueError | OSError):
        # of one image; for a batch it is the folder that can be another
        text = str(error).replace("choose another OUTPUT", "choose another `into`")
    else:
        text = in_a_line(error)
    return shown(" ".join(text.split()))


def plan_of(item: Item, choice: Mapping[str, Any], written: bool = True) -> Plan:
    """The plan of one image, by the options for all and its own; see `request.prepare`."""
    own, selection = dict(item.own), choice.get("selection", Selection())
    fields = {name: own.pop(name) for name in list(own) if name in SELECTED}
    if {"level", "pixel_size"} & fields.keys():  # each in place of the other
        fields = {"level": None, "pixel_size": None} | fields
    if selection.series == EVERY:
        fields = {"series": None} | fields
    if fields:
        selection = dataclasses.replace(selection, **fields)
    output = item.output if written else None
    return request.prepare(item.input, output, **{**choice, **own, "selection": selection})


def settled_choice(choice: Mapping[str, Any]) -> dict[str, Any]:
    """Options for all images, with what is read once; refuses what has no meaning for several."""
    writing = choice.get("writing")
    if writing is not None and writing.into_input:
        raise InputError("expected `into` or `into_input`, got both")
    if choice.get("weights") is not None:
        raise InputError("`weights` are those of one image: give it alone, with an output")
    model = loaded(choice.get("model"))
    if model is not None and writing is not None and writing.names is not None:
        raise InputError("`names`: the classes have names from their training")
    return {**choice, "model": model}


def run(
    items: Sequence[Item],
    into: str,
    choice: Mapping[str, Any],
    follow: Follow = lambda item, plan, pool: nullcontext(),
    after: After = lambda plan, found, pool: (),
    told: Callable[[Outcome], None] = lambda outcome: None,
    opened: Callable[[Pool], None] = lambda pool: None,
) -> list[Outcome]:
    """Label all images; one that fails does not keep the others from being labeled.

    Parameters
    ----------
    items : from `inputs.find`
    into : folder of the outputs, where the images are listed
    choice : options of `request.prepare` for all
    follow : gives, for each image that is about to be labeled, whom to tell of its tiles
    after : called with what was made of each; returns objects of its labels
    told : called with the outcome of each
    opened : called with the pool

    Raises
    ------
    ValueError
        If the options are wrong whatever the image.
    ConnectionError
        If the pool is lost.
    """
    choice = settled_choice(choice)
    running = choice.get("running", Running())
    listing = Listing(into)
    listing.note({item.output: {"input": item.title} for item in items})
    outcomes: list[Outcome] = []
    began = clock.perf_counter()

    def ended(
        item: Item,
        summary: Summary | None,
        error: Exception | None = None,
        objects: Sequence[Any] = (),
    ) -> None:
        nonlocal began
        began, seconds = clock.perf_counter(), clock.perf_counter() - began
        outcome = Outcome(item.title, item.output, summary, error, seconds, objects)
        outcomes.append(outcome)
        if error is not None and summary is None:
            listing.note({item.output: {"input": item.title, "error": reason(error)}})
        told(outcome)

    first, rest = _first(items, choice, running)
    plans = [made for _, made in first if isinstance(made, Plan)]
    if not plans:
        for item, made in first:
            assert isinstance(made, Exception)
            ended(item, None, made)
        return outcomes
    files = _files(items, into, choice)
    with (
        ThreadPoolExecutor(1, "planning") as planner,
        resources.open_pool_of(plans, running, files) as pool,
    ):
        opened(pool)
        known = chain(first, ((item, None) for item in rest))
        following = _begun(planner, known, choice, pool)
        while following is not None:
            item, future = following
            made = future.result()
            # of two threads that change filters of warnings for a while, one may leave those of
            # the other: at both ends of this only one is at work
            with warnings.catch_warnings():
                following = _begun(planner, known, choice, pool)
                ended(item, *_carried_out(item, made, pool, follow, after))
                if following is not None:
                    wait([following[1]])
    listing.note({})
    return outcomes


Made = Plan | Exception


def _carried_out(
    item: Item, made: Made, pool: Pool, follow: Follow, after: After
) -> tuple[Summary | None, Exception | None, Sequence[Any]]:
    """What became of one image: its summary, an error, and objects of its labels."""
    found = None
    try:
        if isinstance(made, Exception):
            raise made
        with follow(item, made, pool) as progress:
            found = labeling_run.run(made, pool, progress)
        return found, None, after(made, found, pool)
    except Exception as error:
        _check_alive(pool, error)
        return found, error, ()


def _first(
    items: Sequence[Item], choice: Mapping[str, Any], running: Running
) -> tuple[list[tuple[Item, Made]], Sequence[Item]]:
    """Plans up to the one that says which pool is needed, and the images after it.

    Where all images are small, each must be looked at: threads will do for them.
    """
    first: list[tuple[Item, Made]] = []
    for item in items:
        made = _planned(item, choice)
        first.append((item, made))
        if isinstance(made, Plan) and (running.named or not resources.is_small(made)):
            break
    return first, items[len(first) :]


def _planned(item: Item, choice: Mapping[str, Any]) -> Made:
    try:
        return plan_of(item, choice)
    except Exception as error:
        return error


def _begun(
    planner: ThreadPoolExecutor,
    known: Iterator[tuple[Item, Made | None]],
    choice: Mapping[str, Any],
    pool: Pool,
) -> tuple[Item, Future[Made]] | None:
    """The next image, whose settled plan is being made; None if there is none."""

    def settled(item: Item, made: Made | None) -> Made:
        made = made or _planned(item, choice)
        if isinstance(made, Exception):
            return made
        try:
            return request.settle(made, pool)
        except Exception as error:
            return error

    item, made = next(known, (None, None))
    return None if item is None else (item, planner.submit(settled, item, made))


def _check_alive(pool: Pool, error: Exception) -> None:
    """End the batch if what failed is not the image but the pool.

    Raises
    ------
    Exception
        The error of the image, which is that of the pool.
    """
    if isinstance(error, ValueError):
        return
    try:
        pool.map(_nothing, None, [None])
    except Exception:
        raise error from None


def _nothing(argument: Any, item: Any) -> None:
    """A task that any worker can do."""


def _files(items: Iterable[Item], into: str, choice: Mapping[str, Any]) -> Files:
    """What workers of a cluster must see of this machine's files."""
    inputs = []
    for item in items:
        given = {"mask": choice.get("mask"), "probabilities": choice.get("probabilities")}
        others = ({**given, **item.own}.get(name) for name in given)
        paths = [os.fspath(one) for one in others if isinstance(one, str | os.PathLike)]
        inputs += [item.input, *(path for path in paths if path != TISSUE)]
    outputs = [str(stores.nearest_existing(path)) for path in stores.on_disk([into])]
    return Files(stores.on_disk(inputs), outputs)


class Listing:
    """Which images were to be labeled into a folder, and why some could not be.

    It only informs: whatever it lacks, or says of runs that overlap, the outputs themselves count.
    What another batch has overwritten of this one's is written again with the next note.
    """

    def __init__(self, folder: str) -> None:
        self._place = stores.at(folder)
        self._folder = folder
        self._noted: dict[str, dict[str, str]] = {}

    def read(self) -> dict[str, dict[str, str]]:
        """For the name of each output, its input and perhaps an error.

        Raises
        ------
        ValueError
            If there is a file of this name that is not of this program.
        """
        data = self._place.read(LISTING)
        if data is None:
            return {}
        try:
            found = json.loads(data)
            # names alone: a list is no way to what lies elsewhere
            if found["made by"] == OURS["made by"] and all(map(_is_name, found["images"])):
                return {
                    str(name): {str(k): str(v) for k, v in one.items()}
                    for name, one in found["images"].items()
                }
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            pass
        raise InputError(
            f"{self._folder}/{LISTING}: expected the list of a batch, got another file"
        )

    def note(self, entries: Mapping[str, Mapping[str, str]]) -> None:
        """Write what is new of some outputs, by their paths."""
        new = {name_of(path): dict(one) for path, one in entries.items()}
        self._noted |= new
        found = {**OURS, "images": self._noted | self.read() | new}
        self._place.write(LISTING, json.dumps(found, indent=1).encode())


def _is_name(text: str) -> bool:
    """Whether a text is the name of an output, and not a path."""
    return text.endswith(ENDING) and not set(text) & {"/", os.sep, "\0"}
