"""Units of length, as NGFF, OME, ImageJ and other programs write them."""

from __future__ import annotations

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
