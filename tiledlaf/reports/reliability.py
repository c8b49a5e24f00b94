"""How far a model's confidence can be trusted: the reliability diagram of its training."""

from __future__ import annotations

from ..model.calibration import Calibration, error_of
from ..model.entries import Reliability
from . import charts, markup
from .markup import Html

AFTER, BEFORE, EVEN = "#0072b2", "#e69f00", "#666666"
NOT_CALIBRATED = (
    "This model's confidence is not calibrated, as it was trained by an earlier release: it says "
    "how clearly a label won, and not how probably it is right."
)


def section(calibration: Calibration | None, held: Reliability | None) -> list[Html]:
    """What a page of a training says of its confidence."""
    if calibration is None or held is None:
        return [markup.element("p", NOT_CALIBRATED)]
    after, before = 100 * error_of(held.calibrated), 100 * error_of(held.raw)
    pixels = sum(row[0] for row in held.calibrated)
    said = (
        f"On average, the confidence of a pixel is {after:.2g} percentage points away from how "
        f"often labels of this confidence are right (the expected calibration error of {pixels:,} "
        f"validation pixels); before it was calibrated it was {before:.2g}."
    )
    note = (
        "Validation pixels of about the same confidence make one point: how many of them have the "
        "right label. On the dashed line, of 100 pixels with a confidence of 0.8, 80 are right; "
        "below it, confidence promises too much. Images unlike those of the training may be less "
        "reliable. Each half of the pixels is judged by what was learned from the other one."
    )
    even = charts.Line("as it should be", EVEN, (0.0, 1.0), (0.0, 1.0), dashed=True)
    lines = [even, _line("before", BEFORE, held.raw), _line("calibrated", AFTER, held.calibrated)]
    return [
        markup.element("p", said),
        charts.lines(lines, "confidence", "right labels", True),
        markup.element("p", note, **{"class": "note"}),
    ]


def _line(name: str, color: str, rows: list[tuple[int, float, float]]) -> charts.Line:
    return charts.Line(name, color, [row[1] for row in rows], [row[2] for row in rows])
