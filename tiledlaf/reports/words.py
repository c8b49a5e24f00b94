"""What "confidence", "proven" and "bias" mean, for users: on pages, and in docs/words.md."""

from __future__ import annotations

from collections.abc import Iterable

from . import markup
from .markup import Html

# docs/words.md says the same; a test compares them
WORDS = {
    "confidence": (
        "A number for each pixel that says how sure its label is. With a model that was trained, "
        "it is the probability that the label is right: of 100 pixels with a confidence of 0.8, "
        "about 80 have the right label. Training finds this out on validation pixels, whose labels "
        "it knows, and the page of the model ('tiledlaf report MODEL') shows how well it holds. "
        "Biases and the time of the flow are taken into account. Pixels below a confidence of P "
        "can be left without a label, by --min-confidence P.",
        "It holds for images like those of the training. A model that has never seen a fold or a "
        "bubble may be very confident about it and wrong. Low values lie along borders and where "
        "the image is ambiguous: look there. How often labels are right on other images is "
        "measured against labels drawn by hand, by 'tiledlaf evaluate'.",
        "Without a model, and with a model of an earlier release, confidence says only how clearly "
        "a label won: the share of the winning class after each pixel has listened to its "
        "neighbors, from 1 divided by the number of classes (0.5 for two), where all were even, to "
        "1, where no other class was left. That is no probability of being right, and a longer "
        "time (--time) raises it for all pixels, right or wrong: compare it within one run.",
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
        "Training chooses them last: those with which the fewest of the labeled pixels are wrong "
        "that were not learned from. They correct a data term that prefers one class, and stay 0 "
        "unless they do so in other images than they were chosen by: what one image alone wants "
        "is not done to all. Where less than half of all pixels are labeled, as by strokes of a "
        "brush, all are 0: such labels do not say how often a class occurs. 'train --priors' may "
        "say it. If your images hold far more or far less of a class than those of the training, "
        "these numbers fit them less well; train with images like those that you want to label.",
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
