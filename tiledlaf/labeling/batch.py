"""Many images one after the other on one pool; each is planned while the one before is labeled."""

from __future__ import annotations

import dataclasses
import json
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
from .inputs import EVERY, LISTING, Item
from .plan import Plan
from .run import Progress, Summary

Follow = Callable[[Item, Plan], AbstractContextManager[Progress | None]]
SELECTED = {one.name for one in dataclasses.fields(Selection)}
OURS = {"made by": "tiledlaf, for a batch"}


@dataclass
class Outcome:
    """What became of one image of a batch.

    Attributes
    ----------
    input, output : path of the image, and of the OME-Zarr for its labels
    summary : of the run, None where it could not be labeled
    error : why not, None where it could be
    seconds : from the end of the image before to its own
    """

    input: str
    output: str
    summary: Summary | None = None
    error: Exception | None = None
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether all of it is labeled."""
        return self.summary is not None and self.summary.complete and self.error is None

    @property
    def refused(self) -> bool:
        """Whether trying the same again would not help: the image or the options are wrong."""
        return isinstance(self.error, ValueError) and not isinstance(
            self.error, InputChanged | Outage
        )

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
    follow: Follow = lambda item, plan: nullcontext(),
    after: Callable[[Plan, Summary, Pool], None] = lambda plan, found, pool: None,
    told: Callable[[Outcome], None] = lambda outcome: None,
    opened: Callable[[Pool], None] = lambda pool: None,
) -> list[Outcome]:
    """Label all images; one that fails does not keep the others from being labeled.

    Parameters
    ----------
    items : from `inputs.find`
    into : folder of the outputs, where the images are listed
    choice : options of `request.prepare` for all
    follow : gives, for each image that is labeled, whom to tell of its tiles
    after : called with what was made of each
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

    def ended(item: Item, summary: Summary | None, error: Exception | None = None) -> None:
        nonlocal began
        began, seconds = clock.perf_counter(), clock.perf_counter() - began
        outcome = Outcome(item.title, item.output, summary, error, seconds)
        outcomes.append(outcome)
        if error is not None:
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
                try:
                    if isinstance(made, Exception):
                        raise made
                    with follow(item, made) as progress:
                        found = labeling_run.run(made, pool, progress)
                    after(made, found, pool)
                except Exception as error:
                    _check_alive(pool, error)
                    ended(item, None, error)
                else:
                    ended(item, found)
                if following is not None:
                    wait([following[1]])
    return outcomes


Made = Plan | Exception


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
        inputs += [item.input, *(path for path in others if path not in (None, TISSUE))]
    outputs = [str(stores.nearest_existing(path)) for path in stores.on_disk([into])]
    return Files(stores.on_disk(inputs), outputs)


class Listing:
    """Which images were to be labeled into a folder, and why some could not be.

    It only informs: whatever it lacks, or says of runs that overlap, the outputs themselves count.
    """

    def __init__(self, folder: str) -> None:
        self._place = stores.at(folder)
        self._folder = folder

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
            if found["made by"] == OURS["made by"]:
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
        named = {path.rstrip("/").rpartition("/")[2]: dict(one) for path, one in entries.items()}
        found = {**OURS, "images": self.read() | named}
        self._place.write(LISTING, json.dumps(found, indent=1).encode())
