"""Label images too large for one machine by linearized assignment flows."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# name: module; imported when asked for, so that `import tiledlaf` is quick
_PUBLIC = {
    "AssignmentFlow": "estimator",
    "Model": "model",
    "estimate": "estimation",
    "explain": "explanation",
    "label": "labeling",
    "compose": "composition",
    "linearize": "gradient",
    "linearize_sequence": "sequence",
    "load": "model",
    "train": "training",
    "Summary": "labeling",
    "evaluate": "evaluation",
    "Evaluation": "evaluation",
    "Taylor": "flow",
    "Krylov": "flow",
    "Euler": "flow",
    "LinearizedSequence": "flow",
    "GeometricEuler": "nonlinear",
    "RKMK4": "nonlinear",
    "AdaptiveRKMK": "nonlinear",
    "solve": "flow",
    "assignment": "flow",
    "rounding": "flow",
}
# what the numerics in Python need beside these
_MODULES = ("gradient", "graph", "losses", "optimizers", "predictor", "sequence", "stencil")
__all__ = ["__version__", *_PUBLIC, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
