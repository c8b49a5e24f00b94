"""Going on from a model: what a training takes from it that is not said anew."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from ..annotations import numbering
from ..annotations.numbering import Legend
from ..errors import InputError
from ..files import image as image_files
from ..files.image import Image
from ..flow import losses
from ..model import intensity, sampling
from ..model.arrays import convert
from ..model.channels import with_channels
from ..model.classes import Class, ignored
from ..model.entries import Count, Offsets
from ..model.features import Features, odds_planes
from ..model.model import Images, Model
from ..model.predictor import Predictor
from .examples import Example
from .worker import FlowSettings

STEPS, PATIENCE = 60, 4  # of a training that begins with learned weights
SIZE = 100  # of a predictor, where the model had no need of one
MOST = 64  # images whose quantiles are kept
# data terms that are learned anew, by their kinds, and the names of what learns them; others stay
LEARNED = {"probabilities": "probabilities", "network": "probabilities"}
LEARNED |= {"classifier": "classifier", "auto-context": "classifier"}


class Asked(msgspec.Struct):
    """What is read of the settings that a training was asked for, as its model keeps them."""

    neighborhood: str | Offsets | None = None
    time: float | None = None
    optimizer: str = "adam"
    priors: str | list[float] | None = None
    prototypes: Count = SIZE  # the predictor's size, as files name it
    features: list[Any] | None = None
    term: Any = "means"


def asked(start: Model) -> Asked:
    """What the model's training was asked for; models that were never a file do not say it."""
    return convert(start.trained.get("print", {}), Asked)


def way(start: Model) -> str:
    """What the flow adds to the data term: none, uniform or learned weights."""
    if start.predictor is not None:
        return "learned"
    return "none" if len(start.offsets) == 1 else "uniform"


def settings(start: Model, given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a recipe that are the model's, where others are `given`."""
    known, predictor = asked(start), start.predictor
    found: dict[str, Any] = {
        "neighborhood": start.offsets,
        "time": start.time,
        "rho": start.rho,
        "tol": start.tol,
        "optimizer": known.optimizer,
        "predictor_size": known.prototypes if predictor is None else len(predictor.anchors),
        "steps": STEPS,
        "patience": PATIENCE,
        "seed": start.trained.get("seed", 0),
        "priors": known.priors,
        "flow": way(start),
        "boundary": start.trained.get("choice", {}).get("boundary"),
    }
    if predictor is not None:
        found["features"] = predictor.features
    elif known.features is not None:
        found["features"] = Features.from_list(known.features)
    if predictor is None and given.get("flow", found["flow"]) != found["flow"]:
        # those that another way was chosen for are not those to learn weights for
        found |= {"neighborhood": known.neighborhood, "time": known.time}
    if "loss" not in given:
        found["loss"] = loss = start.trained.get("loss", "cosine")
        if loss not in list(losses.LOSSES):
            raise InputError(f"the model learned by a loss that has no name: give `loss`, {loss}")
    return found


def term(start: Model) -> Any:
    """The data term to learn, as in `Data.term`: of the model's kind, or the one that was given."""
    kind = start.term.kind
    if learned_network(start):
        both = "classifier+" if kind == "average" else ""
        return both + start.trained["network"]["kind"]
    if kind in LEARNED:
        return LEARNED[kind]
    return "means" if asked(start).term == "means" and kind == "prototypes" else start.term


def learned_network(start: Model) -> bool:
    """Whether the model's network was learned with it, and so is learned anew."""
    return start.term.kind in ("network", "average") and "network" in start.trained


def brought(start: Model, given: Sequence[Example]) -> list[Example]:
    """The examples with the channels and intensities that the model learned from.

    Raises
    ------
    ValueError
        If their axes, channels or intensities are others.
    """
    found = [dataclasses.replace(e, image=_brought(start, e)) for e in given]
    found = [_with_probabilities(start, e) for e in found]
    for example in found:
        axes, channels = len(start.offsets[0]), example.image.used_channels
        if (len(example.image.grid), channels) != (axes, start.channels):
            raise InputError(
                f"{example.image.path}: expected an image of {axes} spatial axes and "
                f"{start.channels} channels, as the model learned from, got "
                f"{len(example.image.grid)} and {channels}"
            )
    return found


def _with_probabilities(start: Model, example: Example) -> Example:
    """The example with what the model's network makes of its image, if it has one."""
    made = None if learned_network(start) else start.term.probabilities_of(example.image)
    if made is not None and example.probabilities is not None:
        raise InputError("the model has a network: drop `probabilities`")
    return example if made is None else dataclasses.replace(example, probabilities=made)


def _brought(start: Model, example: Example) -> Image:
    image, learned = with_channels(start, example.image, None), start.images
    # of one type they are as they were: what is labeled anew may be the darkest of all
    if image.gain is not None or learned.range is None or image.dtype == learned.dtype:
        return image
    blocks = [image_files.read(image, w) for w in sampling.sample_windows(image.grid, 0)]
    valid = [image_files.valid_of(image, block) for block in blocks]
    masks = [one for one in valid if one is not None]  # of all blocks or of none
    return intensity.matched(image, learned, sampling.pixels_of(blocks, masks or None))


def joined(start: Images, found: Images) -> Images:
    """What images were like, of the model's training and of this one."""
    spans = intensity.joined([start.range, found.range])
    quantiles = tuple(dict.fromkeys((*start.quantiles, *found.quantiles)))
    return dataclasses.replace(
        found, dtype=start.dtype or found.dtype, range=spans, quantiles=quantiles[:MOST]
    )


def unlabeled(
    start: Model, labels: Image, ignore: int | Sequence[int] | None
) -> int | Sequence[int] | None:
    """The values that mean "not labeled": those that are given, or the model's.

    Those of models that do not say it are 0, if that is no class.
    """
    if ignore is not None or numbering.names_of(labels):
        return ignore
    known = start.trained.get("ignore")
    if known is None:
        return None if any(0 in one.values for one in start.classes) else 0
    return convert(known, list[int])


def legend(start: Model, given: Legend, labels: Image, values: Iterable[int]) -> Legend:
    """The legend in which values are the model's classes, in its order; new classes come after.

    Raises
    ------
    ValueError
        If a value has another name than in the model, or none has that of a class.
    """
    drawn = bool(numbering.names_of(labels))  # their values are numbers that nobody sees
    known = {} if drawn else {v: c.name for c in start.classes for v in c.values}
    own = {int(key): str(name) for key, name in (given.names or {}).items()}
    for value, name in own.items():
        if known.get(value, name) != name:
            raise InputError(
                f"expected label values to mean what they do in the model, got {name} for "
                f"{value}, which is {known[value]} there"
            )
    names, here = own | known, {*values} - ignored(given.ignore)
    missing = [c.name for c in start.classes if c.name not in {names.get(v) for v in here}]
    if missing:
        listed = ", ".join(names.get(v, str(v)) for v in sorted(here)) or "none"
        raise InputError(
            f"expected labeled pixels of each class of the model, got {listed}, and none of "
            f"{', '.join(missing)}: give the labels that it learned from as well"
        )
    order = {one.name: number for number, one in enumerate(start.classes)}
    rows = sorted(names.items(), key=lambda row: order.get(row[1], len(order)))
    return given._replace(names={str(value): name for value, name in rows})


def colored(start: Model, classes: Sequence[Class]) -> tuple[Class, ...]:
    """The classes in the colors that they have in the model."""
    colors = {one.name: one.color for one in start.classes}
    return tuple(dataclasses.replace(c, color=colors.get(c.name, c.color)) for c in classes)


def predictor(start: Model, features: Features, flow: FlowSettings, size: int) -> Predictor | None:
    """The model's predictor, if weights of this training can begin with it."""
    found = start.predictor
    if found is None or found.features != features or start.offsets != flow.offsets:
        return None
    count = features.count(start.channels, odds_planes(len(flow.classes)))
    return found if found.anchors.shape == (size, count) else None
