"""What "confidence", "proven" and "bias" mean, for users: on pages, and in docs/words.md."""

from __future__ import annotations

from collections.abc import Iterable

from . import markup
from .markup import Html

# docs/words.md says the same; a test compares them
WORDS = {
    "confidence": (
        "A number for each pixel that says how clearly its label won. It is the share of the "
        "winning class after each pixel has listened to its neighbors: 1 means that no other class "
        "was left, and 1 divided by the number of classes (0.5 for two) that all were even.",
        "It is not the probability that the label is right. A model that has never seen a fold or "
        "a bubble may be very confident about it and wrong. A longer time (--time) makes all "
        "pixels more confident, right or wrong, so compare confidences within one run, or between "
        "runs of the same model. Use it to find where to look: low values lie along borders and "
        "where the image is ambiguous. How often labels are right is measured against labels drawn "
        "by hand, by 'tiledlaf evaluate'.",
    ),
    "proven": (
        "The labels are computed by a series that is cut off after some terms, so scores have a "
        "small, known error. A label is proven when the winner leads by more than this error can "
        "be: the exact computation, however long, would give the same label.",
        "It is about the arithmetic, not about the image: a proven label can still be the wrong "
        "one. What is not proven is a tie within the error, most often a handful of pixels on "
        "borders; a smaller --tol proves more of them. Integrators without such a bound (krylov, "
        "and those of the nonlinear flow) prove none, and the page says so.",
    ),
    "bias": (
        "One number for each class of a trained model, added to that class's score before the "
        "winner is chosen. A class with a positive bias gets pixels that it would have lost by "
        "less than that, one with a negative bias gives them up; a bias of 0 changes nothing, and "
        "all together add up to 0.",
        "Training chooses them last: those with which the fewest pixels of the validation images "
        "are wrong. They correct a data term that prefers one class. If your images hold far more "
        "or far less of a class than the validation images did, these numbers fit them less well; "
        "train with images like those that you want to label.",
    ),
}


def explained(*names: str) -> Html:
    """Words with what they mean, to be unfolded."""
    parts = [part for name in names for part in _entry(name, WORDS[name])]
    meant = markup.element("summary", f"What {_listed(names)} mean")
    return markup.element("details", meant, markup.element("dl", *parts))


def _entry(name: str, paragraphs: Iterable[str]) -> list[Html]:
    said = [markup.element("p", one) for one in paragraphs]
    return [markup.element("dt", name), markup.element("dd", *said)]


def _listed(names: tuple[str, ...]) -> str:
    quoted = [f"“{name}”" for name in names]
    return " and ".join(filter(None, (", ".join(quoted[:-1]), quoted[-1])))
