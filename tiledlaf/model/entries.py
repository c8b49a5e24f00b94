"""What the JSON of model files must be: types and bounds, by which msgspec checks it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from .scaling import Linear, Sampled

LARGE = 1e20  # of what is not squared
FAR = 1e15  # of features, in standard deviations
Name = Annotated[str, Meta(max_length=1000)]
Count = Annotated[int, Meta(ge=0, le=2**31)]
Positive = Annotated[float, Meta(ge=1 / LARGE, le=LARGE)]
Number = Annotated[float, Meta(ge=-LARGE, le=LARGE)]
Byte = Annotated[int, Meta(ge=0, le=255)]
Value = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]  # of a label
Step = Annotated[int, Meta(ge=-(2**15), le=2**15)]  # of an offset
Offset = Annotated[list[Step], Meta(min_length=2, max_length=3)]
Offsets = Annotated[list[Offset], Meta(min_length=1, max_length=2**12)]


class ClassEntry(Struct):
    """A class."""

    name: Name
    values: list[Value]
    color: Annotated[list[Byte], Meta(max_length=4)]


Classes = Annotated[list[ClassEntry], Meta(min_length=2, max_length=2**15)]


Quantiles = tuple[Number, Number, Number, Number, Number]


class ImagesEntry(Struct):
    """What the images of a training were like."""

    dtype: Annotated[str, Meta(max_length=20)]
    pixel_size: tuple[Positive, Positive] | None
    range: tuple[Number, Number] | None
    level: Annotated[int, Meta(ge=0, le=64)] = 0
    names: list[Name] = []
    quantiles: Annotated[list[list[Quantiles]], Meta(max_length=2**10)] = []


class CalibrationEntry(Struct):
    """How confidence becomes the probability that a label is right."""

    slope: Positive
    offset: Number
    bends: Annotated[list[tuple[Number, Number]], Meta(max_length=2**10)] = []


Lengths = Annotated[
    tuple[Annotated[int, Meta(ge=0, le=2**16)], ...], Meta(min_length=2, max_length=3)
]


class NetworkEntry(Struct):
    """How a network is evaluated, beside its ONNX file."""

    digest: Annotated[str, Meta(min_length=64, max_length=64)]
    classes: Annotated[int, Meta(ge=2, le=2**10)]
    output: Literal["logits", "probabilities"]
    before: Annotated[tuple[Linear | Sampled, ...], Meta(max_length=2**6)]
    least: Lengths
    step: Lengths
    margin: Lengths
    core: Lengths
    names: Annotated[tuple[Name, ...], Meta(max_length=2**10)] = ()
    augment: bool = False
    provider: Literal["CPUExecutionProvider", "CUDAExecutionProvider"] = "CPUExecutionProvider"


class PredictorEntry(Struct):
    """A predictor of weights, beside its arrays."""

    features: Annotated[list[Any], Meta(min_length=1, max_length=2**10)]
    count: Count
    sigma: Positive


class ValidationEntry(Struct):
    """What is read of a validation: shares of wrong pixels, and the loss."""

    step: Count = 0
    validation: float | None = None
    training: float | None = None
    uniform: float | None = None
    loss: float | None = None


Share = Annotated[float, Meta(ge=0, le=1)]
# of a bin of confidences: pixels, their mean confidence, the share that is right
Bin = tuple[Annotated[int, Meta(ge=1, le=2**53)], Share, Share]
Bins = Annotated[list[Bin], Meta(min_length=1, max_length=2**10)]


class Reliability(Struct):
    """How often labels of validation pixels are right, by their confidence before and after."""

    raw: Bins
    calibrated: Bins


class ChoiceEntry(Struct):
    """What was chosen to add to the data term, and what judged it.

    `interval` is that of the share of wrong pixels; `compared` has the share by each way or, with
    a class as `boundary`, the adapted Rand error of the pieces between.
    """

    way: Literal["none", "uniform", "learned"]
    judged: Name
    interval: tuple[Share, Share]
    compared: dict[Literal["none", "uniform", "learned"], Share]
    boundary: Name | None = None


class LearnedNetworkEntry(Struct):
    """How a model's network was learned with it: steps, and what it errs where it was not seen."""

    kind: str
    steps: Count
    unseen: Share


class TrainedEntry(Struct):
    """What is read of the notes on a training."""

    steps: Count = 0
    error: float | None = None
    history: list[dict[str, Any]] = []
    print: dict[str, Any] = {}
    confusion: list[list[Count]] | None = None
    reliability: Reliability | None = None
    choice: ChoiceEntry | None = None
    network: LearnedNetworkEntry | None = None

    def __post_init__(self) -> None:
        steps, first = self.print.get("steps", 0), [one.get("uniform", 0.0) for one in self.history]
        if not isinstance(steps, int) or not all(isinstance(n, int | float) for n in first):
            raise ValueError("expected numbers of steps and errors in the notes on a training")


class WeightsEntry(Struct):
    """What `estimate` writes beside its weights."""

    offsets: Offsets
    rho: Positive
    time: float
    tol: float
    term: Annotated[list[Any], Meta(min_length=2, max_length=3)]
    classes: Classes
    input: str | None
    sequence: Annotated[int, Meta(ge=1, le=2**10)] = 1


class ModelEntry(Struct):
    """All of a model but its arrays."""

    classes: Classes
    offsets: Offsets
    rho: Positive
    time: float
    tol: float
    channels: Annotated[int, Meta(ge=1, le=2**16)]
    bias: list[Number]
    term: dict[str, Any]
    trained: dict[str, Any]
    predictor: PredictorEntry | None
    images: ImagesEntry | None = None
    calibration: CalibrationEntry | None = None
    folds: Annotated[list[dict[str, Any]], Meta(max_length=2**10)] = []
