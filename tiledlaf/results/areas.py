"""Areas of the classes of an output."""

from __future__ import annotations

import math

import numpy as np

from ..labeling import records
from ..labeling.areas import UNLABELED as UNLABELED
from ..labeling.areas import Area as Area
from ..labeling.areas import areas as areas
from ..labeling.areas import in_words as in_words
from .result import Result


def of_result(result: Result) -> list[Area]:
    """Areas by the records of the run, without reading pixels."""
    counts = np.zeros(len(result.names) + 1, np.int64)
    for record in records.read(result.out.records).values():
        counts += np.array(record.get("counts", 0), np.int64)
    counts[0] = math.prod(result.labels.grid) - counts[1:].sum()
    return areas(counts.tolist(), result.names, result.pixel_size)
