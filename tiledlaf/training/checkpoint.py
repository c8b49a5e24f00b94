"""Checkpoints: what a training keeps beside its model, to continue after an interruption."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import json
import os
import time as clock
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import redaction
from ..errors import DamagedFile, InputError
from ..files import fingerprints
from ..flow.optimizers import Moments
from ..model import model as model_file
from ..model import terms
from ..model.features import Features
from ..model.model import Model
from ..model.predictor import Predictor
from ..model.terms import DataTerm

SAVED = {"anchors": "prototypes"}  # parameters that have another name in checkpoints


@dataclass(frozen=True)
class State:
    """A training between two steps: all that a checkpoint must hold."""

    step: int
    predictor: Predictor
    moments: Moments
    best: Predictor
    bias: np.ndarray
    error: float
    stale: int
    seconds: float
    history: list[dict[str, Any]]


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
    held = model_file.read_arrays(file, "checkpoint")
    steps = json.loads(str(held["print"])).get("steps")
    if "state" not in held:  # the classifier is learned, no step made
        return Progress(file, 0, steps, None, 0.0)
    state = json.loads(str(held["state"]))
    kept = max(len(state["history"]) - 1, 1)
    return Progress(file, state["step"], steps, state["error"], state["seconds"] / kept)


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".checkpoint")


class Checkpoint:
    """What an earlier start left beside the model, and what this one leaves."""

    def __init__(self, path: str | os.PathLike[str] | None, print_: Mapping[str, Any]) -> None:
        self.path = None if path is None else Path(path)
        self.print = dict(print_)
        self._began = clock.time()
        self.run = fingerprints.fingerprint(self.print)
        self.finished: Model | None = None
        self._held: dict[str, np.ndarray] = {}
        self._terms: list[DataTerm] = []
        if self.path is None:
            return
        redaction.check(self.path)
        if self.path.is_dir() or not self.path.absolute().parent.is_dir():
            raise InputError(f"{self.path}: expected a file in a folder that exists")
        if self.path.exists():
            found = model_file.load(self.path)
            self._same(found.trained.get("print", {}), self.path)
            self.finished = found
            self.file.unlink(missing_ok=True)  # left by a kill right after the model was written
        elif self.file.exists():
            with self._complete():
                self._held = model_file.read_arrays(self.file, "checkpoint")
                held = json.loads(str(self._held["print"]))
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

    @contextmanager
    def _complete(self) -> Iterator[None]:
        """Say what to do about a damaged checkpoint."""
        try:
            yield
        except KeyError as error:
            raise DamagedFile(
                f"{self.file}: expected a complete checkpoint, got no {error} "
                "(remove it to start anew)"
            ) from None
        except ValueError as error:
            raise DamagedFile(f"{error} (remove it to start anew)") from None

    def terms(self) -> list[DataTerm]:
        """The data terms that an earlier start found; an empty list if there are none."""
        held = self._held
        with self._complete():
            return [
                terms.term_from(
                    json.loads(str(held[f"term{i}"])),
                    {k.split("/", 1)[1]: v for k, v in held.items() if k.startswith(f"term{i}/")},
                )
                for i in range(int(held.get("terms", 0)))
            ]

    def keep_terms(self, terms: list[DataTerm]) -> None:
        """Write classifiers at once, since fitting them takes long."""
        self._terms = terms
        if self.path is not None and not self._held and terms[0].slow_to_fit:
            model_file.write_arrays(self.file, self._entries())

    def _entries(self) -> dict[str, np.ndarray]:
        found = {"print": np.array(json.dumps(self.print)), "terms": np.array(len(self._terms))}
        for i, term in enumerate(self._terms):
            entry, arrays = terms.term_parts(term)
            found[f"term{i}"] = np.array(json.dumps(entry))
            found |= {f"term{i}/{k}": v for k, v in arrays.items()}
        return found

    def state(self, features: Features) -> State | None:
        """The state that an earlier start reached, None if it kept none."""
        held = self._held
        if "state" not in held:
            return None
        about = json.loads(str(held["state"]))

        def group(name: str) -> dict[str, np.ndarray]:
            names = {saved: key for key, saved in SAVED.items()}
            parts = [(k.split("/")[1], v) for k, v in held.items() if k.startswith(f"{name}/")]
            return {names.get(key, key): value for key, value in parts}

        def known(name: str) -> Predictor:
            base = Predictor(
                features,
                held["mean"],
                held["scale"],
                group(name)["anchors"],
                group(name)["patches"],
            )
            return dataclasses.replace(base, sigma=about[name])

        with self._complete():
            return State(
                about["step"],
                known("now"),
                Moments(about["step"], group("first"), group("second")),
                known("best"),
                held["bias"],
                about["error"],
                about["stale"],
                about["seconds"],
                about["history"],
            )

    def keep(self, state: State) -> None:
        """Write a checkpoint."""
        if self.path is None:
            return
        about = {
            "step": state.step,
            "error": state.error,
            "stale": state.stale,
            "seconds": state.seconds,
            "history": state.history,
            "now": state.predictor.sigma,
            "best": state.best.sigma,
        }
        found = self._entries() | {
            "state": np.array(json.dumps(about)),
            "bias": state.bias,
            "mean": state.predictor.mean,
            "scale": state.predictor.scale,
        }
        for name, arrays in (
            ("now", state.predictor.parameters),
            ("best", state.best.parameters),
            ("first", state.moments.first),
            ("second", state.moments.second),
        ):
            found |= {f"{name}/{SAVED.get(k, k)}": v for k, v in arrays.items()}
        model_file.write_arrays(self.file, found)

    def finish(self, found: Model) -> None:
        """Write the model, and remove the checkpoint."""
        if self.path is None:
            return
        trained = dict(found.trained) | {"print": self.print}
        dataclasses.replace(found, trained=trained).save(self.path)
        self.file.unlink(missing_ok=True)
        # partial files that killed runs left; not those of another start, which are newer
        for part in self.path.parent.glob(f"{glob.escape(self.path.name)}.*partial"):
            with contextlib.suppress(FileNotFoundError):  # another start has moved it into place
                if part.stat().st_mtime < self._began:
                    part.unlink()
