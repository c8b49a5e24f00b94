"""Units of length, as NGFF, OME, ImageJ and other programs write them."""

from __future__ import annotations

import re

MICROMETERS = {
    "picometer": 1e-6,
    "pm": 1e-6,
    "angstrom": 1e-4,
    "Å": 1e-4,
    "nanometer": 1e-3,
    "nm": 1e-3,
    "micrometer": 1.0,
    "µm": 1.0,  # micro sign
    "μm": 1.0,  # Greek letter
    "\\u00B5m": 1.0,
    "um": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "millimeter": 1e3,
    "mm": 1e3,
    "centimeter": 1e4,
    "cm": 1e4,
    "inch": 25400.0,
    "meter": 1e6,
    "m": 1e6,
}


def micrometers_of(text: str) -> float | None:
    """A length as people write it, such as 15nm or 1.5 µm; None where the text is none.

    Examples
    --------
    >>> from tiledlaf.files.lengths import micrometers_of
    >>> micrometers_of("250nm"), micrometers_of("1.5 um"), micrometers_of("3x3")
    (0.25, 1.5, None)
    """
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{0,9})?|\.\d{1,9})\s?(\D{1,12})", text.strip())
    unit = None if found is None else MICROMETERS.get(found[2])
    return None if found is None or unit is None else float(found[1]) * unit
