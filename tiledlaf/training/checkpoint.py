"""Checkpoints: what a training keeps beside its model, to continue after an interruption."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np

from .. import redaction
from ..errors import DamagedFile, InputError, NewerFormat, OlderFormat
from ..files import claims, fingerprints, versions
from ..files.claims import Claim
from ..flow.optimizers import Moments
from ..model import arrays, terms
from ..model import model as model_file
from ..model.entries import (
    LARGE,
    CalibrationEntry,
    ChoiceEntry,
    Count,
    Number,
    Offsets,
    Positive,
    Reliability,
    Share,
)
from ..model.features import Features, odds_planes
from ..model.model import Model
from ..model.predictor import Predictor
from ..model.term import DataTerm
from .worker import FlowSettings

VERSION = 3  # of checkpoints; see docs/formats.md
NUMBERS = ("bias", "now", "best", "first", "second")  # arrays, or numbered groups of them
FITTING = "fitting/"  # what stands before the names of what a fit has left
SAVED = {"anchors": "prototypes"}  # parameters that have another name in checkpoints


class Learned(NamedTuple):
    """A predictor between two steps, and the optimizer's moments."""

    predictor: Predictor
    moments: Moments


@dataclass(frozen=True)
class State:
    """A training between two steps: all that a checkpoint must hold.

    Attributes
    ----------
    step : steps made, in the rounds or, once `chosen` is known, from all tiles
    learned : one for each round, or the one that is learned from all tiles
    best, at : the rounds' predictors where the judges found the fewest errors, and their step
    bias, error : of these, as found by the judges
    stale : validations without improvement
    seconds : since the training began, over all of its starts
    history : what validations found, as JSON
    chosen : what the rounds led to, as JSON; None while they go on
    """

    step: int
    learned: tuple[Learned, ...]
    best: tuple[Predictor, ...]
    at: int
    bias: np.ndarray
    error: float
    stale: int
    seconds: float
    history: list[dict[str, Any]]
    chosen: dict[str, Any] | None = None


@dataclass(frozen=True)
class Progress:
    """How far a training is.

    Attributes
    ----------
    path : path of the checkpoint, None once the model is written
    step, steps : steps made, and the maximum number of steps
    error : lowest share of wrong pixels in a validation, None before the first one
    seconds : from one checkpoint to the next, 0 before the first step
    """

    path: Path | None
    step: int
    steps: int | None
    error: float | None
    seconds: float


def progress(path: str | os.PathLike[str]) -> Progress | None:
    """How far the training of a model is; None if there is neither model nor checkpoint."""
    file = _beside(Path(path))
    if os.path.isfile(path):
        if not zipfile.is_zipfile(path):
            return None
        trained = model_file.load(path).trained
        steps = trained.get("print", {}).get("steps")
        return Progress(None, trained.get("steps", 0), steps, trained.get("error"), 0.0)
    if not file.is_file():
        return None
    with _complete(file):
        held = _read(file)
        steps = arrays.entry_of(held, "print", _Print).steps
        if "state" not in held:  # the classifier is learned, no step made
            return Progress(file, 0, steps, None, 0.0)
        state = arrays.entry_of(held, "state", _State)
    kept = max(len(state.history) - 1, 1)
    return Progress(file, state.step, steps, state.error, state.seconds / kept)


class _Print(msgspec.Struct):
    """What is read of the settings that a checkpoint belongs to."""

    steps: Count | None = None


class _Chosen(msgspec.Struct):
    """What is read of the choice that the rounds led to."""

    choice: ChoiceEntry
    offsets: Offsets
    time: Positive
    bias: list[Number]
    error: Share
    calibration: CalibrationEntry
    reliability: Reliability
    confusion: list[list[Count]] | None


class _State(msgspec.Struct):
    """A `State` but its arrays; `now` and `best` are the predictors' sigmas."""

    step: Count
    at: Count
    error: float
    stale: Count
    seconds: Annotated[float, msgspec.Meta(ge=0, le=1e12)]
    history: list[dict[str, Any]]
    now: Annotated[list[Positive], msgspec.Meta(min_length=1, max_length=2)]
    best: Annotated[list[Positive], msgspec.Meta(min_length=1, max_length=2)]
    chosen: _Chosen | None


def _read(file: Path) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint.

    Raises
    ------
    ValueError
        If it is damaged, or of a later release.
    """
    held = arrays.read_arrays(file, "checkpoint")
    version = held.get("version", np.array(1)).tolist()
    versions.check(f"{file}: this checkpoint", version, VERSION)
    if version < VERSION:
        raise OlderFormat(
            f"{file}: this checkpoint is of an earlier release, which learned in another way "
            "(remove it to start anew)"
        )
    return held


@contextmanager
def _complete(file: Path) -> Iterator[None]:
    """Say what to do about a damaged checkpoint."""
    try:
        yield
    except (NewerFormat, OlderFormat):
        raise
    except (KeyError, ValueError, TypeError, IndexError, OverflowError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else error
        raise DamagedFile(
            f"{file}: expected a complete checkpoint, {what} (remove it to start anew)"
        ) from None


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".checkpoint")


class Checkpoint:
    """What an earlier start left beside the model, and what this one leaves."""

    def __init__(self, path: str | os.PathLike[str] | None, print_: Mapping[str, Any]) -> None:
        self.path = None if path is None else Path(path)
        self.print = dict(print_)
        self.run = fingerprints.fingerprint(self.print)
        self.finished: Model | None = None
        self._held: dict[str, np.ndarray] = {}
        self._terms: list[DataTerm] = []
        self._fitting = False
        self._claims = contextlib.ExitStack()
        if self.path is None:
            return
        redaction.check(self.path)
        if self.path.is_dir() or not self.path.absolute().parent.is_dir():
            raise InputError(f"{self.path}: expected a file in a folder that exists")
        with self._claims:
            if not self.path.exists():
                advice = "choose another MODEL, or end the other run"
                self._claims.enter_context(Claim(self.path, self.print, advice))
            # looked at again: another start may have ended before this one has claimed the path
            self._finished() if self.path.exists() else self._resume()
            self._claims = self._claims.pop_all()  # until the end of the training

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *error: object) -> None:
        self._claims.close()

    def _finished(self) -> None:
        """Take the model that another start has written."""
        assert self.path is not None
        found = model_file.load(self.path)
        self._same(found.trained.get("print", {}), self.path)
        self.finished = found
        # left by a kill right after the model was written
        self.file.unlink(missing_ok=True)
        claims.clear(self.path)

    def _resume(self) -> None:
        if self.file.exists():
            with _complete(self.file):
                self._held = _read(self.file)
                held = arrays.entry_of(self._held, "print", dict[str, Any])
            self._same(held, self.file)

    @property
    def file(self) -> Path:
        """Where the checkpoint is."""
        assert self.path is not None
        return _beside(self.path)

    def _same(self, held: Mapping[str, Any], path: Path) -> None:
        fingerprints.refuse_difference(
            f"{path} belongs to another training",
            held,
            self.print,
            "choose another MODEL or remove it",
        )

    def terms(self) -> list[DataTerm]:
        """The data terms that an earlier start found; an empty list if there are none."""
        held = self._held
        if not held:
            return []
        with _complete(self.file):
            return [
                terms.term_from(
                    arrays.entry_of(held, f"term{i}", dict[str, Any]),
                    {k.split("/", 1)[1]: v for k, v in held.items() if k.startswith(f"term{i}/")},
                )
                for i in range(int(held.get("terms", 0)))
            ]

    def keep_terms(self, terms: list[DataTerm]) -> None:
        """Write classifiers at once, since fitting them takes long."""
        self._terms = terms
        slow = terms[0].slow_to_fit or self._fitting or self.fitting()
        if self.path is not None and not int(self._held.get("terms", 0)) and slow:
            arrays.write_arrays(self.file, self._entries())

    def fitting(self) -> dict[str, np.ndarray]:
        """What a fit of terms that was interrupted has left, to go on from."""
        return {k.removeprefix(FITTING): v for k, v in self._held.items() if k.startswith(FITTING)}

    def keep_fitting(self, found: Mapping[str, np.ndarray]) -> None:
        """Write how far a fit is that takes long by itself."""
        self._fitting = True
        if self.path is not None:
            named = {FITTING + key: value for key, value in found.items()}
            arrays.write_arrays(self.file, self._entries() | named)

    def _entries(self) -> dict[str, np.ndarray]:
        found = {"print": np.array(json.dumps(self.print)), "terms": np.array(len(self._terms))}
        found["version"] = np.array(VERSION)
        for i, term in enumerate(self._terms):
            entry, parts = terms.term_parts(term)
            found[f"term{i}"] = np.array(json.dumps(entry))
            found |= {f"term{i}/{k}": v for k, v in parts.items()}
        return found

    def state(self, features: Features, flow: FlowSettings, channels: int) -> State | None:
        """The state that an earlier start reached, None if it kept none."""
        held = self._held
        if "state" not in held:
            return None
        with _complete(self.file):
            return self._state(arrays.entry_of(held, "state", _State), features, flow, channels)

    def _state(self, about: _State, features: Features, flow: FlowSettings, channels: int) -> State:
        held, classes = self._held, len(flow.classes)
        count = features.count(channels, odds_planes(classes))
        names = {saved: key for key, saved in SAVED.items()}

        def group(name: str) -> dict[str, np.ndarray]:
            parts = [(k, v) for k, v in held.items() if k.startswith(f"{name}/")]
            return {names.get(k.split("/")[1], k.split("/")[1]): v for k, v in parts}

        def known(name: str, sigma: float) -> Predictor:
            parts = group(name)
            given = parts["mean"], parts["scale"], parts["anchors"], parts["patches"]
            return Predictor(features, *given, sigma)

        learned, best = [], [known(f"best{i}", sigma) for i, sigma in enumerate(about.best)]
        for i, sigma in enumerate(about.now):
            moments = Moments(about.step, group(f"first{i}"), group(f"second{i}"))
            learned.append(Learned(known(f"now{i}", sigma), moments))
        like = {key: value.shape for key, value in best[0].parameters.items()}
        parts = [moments for one in learned for moments in (one.moments.first, one.moments.second)]
        predictors = [*best, *(one.predictor for one in learned)]
        for found in (*parts, *(one.parameters for one in predictors)):
            if {key: value.shape for key, value in found.items()} != like:
                raise InputError("expected parameters and moments of the same shapes")
        shapes = best[0].mean.shape, best[0].patches.shape[1:], held["bias"].shape
        if shapes != ((count,), (len(flow.offsets),), (classes,)):
            raise InputError(f"expected parts of this training, got shapes {shapes}")
        numbers = [v for k, v in held.items() if k.partition("/")[0].rstrip("01") in NUMBERS]
        if not all(v.dtype == np.float64 and (abs(v) <= LARGE).all() for v in numbers):
            raise InputError(f"expected float64 numbers up to {LARGE:g}")
        if not all((one.scale >= 1 / LARGE).all() for one in predictors):
            raise InputError("expected a positive scale of features")
        chosen = None if about.chosen is None else msgspec.to_builtins(about.chosen)
        if chosen is not None and len(chosen["bias"]) != classes:
            raise InputError(f"expected a bias of {classes} classes")
        return State(
            about.step,
            tuple(learned),
            tuple(best),
            about.at,
            held["bias"],
            about.error,
            about.stale,
            about.seconds,
            about.history,
            chosen,
        )

    def keep(self, state: State) -> None:
        """Write a checkpoint."""
        if self.path is None:
            return
        keys = ("step", "at", "error", "stale", "seconds", "history", "chosen")
        about = {key: getattr(state, key) for key in keys} | {
            "now": [one.predictor.sigma for one in state.learned],
            "best": [one.sigma for one in state.best],
        }
        found = self._entries() | {"state": np.array(json.dumps(about)), "bias": state.bias}
        groups: dict[str, Mapping[str, np.ndarray]] = {}
        for i, one in enumerate(state.learned):
            groups[f"now{i}"] = _parts(one.predictor)
            groups[f"first{i}"], groups[f"second{i}"] = one.moments.first, one.moments.second
        groups |= {f"best{i}": _parts(one) for i, one in enumerate(state.best)}
        for name, parts in groups.items():
            found |= {f"{name}/{SAVED.get(k, k)}": v for k, v in parts.items()}
        arrays.write_arrays(self.file, found)

    def discard(self) -> None:
        """Remove the checkpoint: what was learned is not to be trusted."""
        if self.path is not None:
            self.file.unlink(missing_ok=True)

    def finish(self, found: Model) -> None:
        """Write the model, and remove the checkpoint; another start may have written the same.

        Raises
        ------
        ValueError
            If there is the model of another training, whatever became of the claim.
        """
        if self.path is None:
            return
        trained = dict(found.trained) | {"print": self.print}
        whole = dataclasses.replace(found, trained=trained).arrays()
        if not arrays.write_arrays(self.path, whole, new=True):
            self._same(model_file.load(self.path).trained.get("print", {}), self.path)
        self.file.unlink(missing_ok=True)


def _parts(predictor: Predictor) -> dict[str, np.ndarray]:
    """All arrays of a predictor."""
    return {"mean": predictor.mean, "scale": predictor.scale, **predictor.parameters}
