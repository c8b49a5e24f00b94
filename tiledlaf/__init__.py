"""Label images too large for one machine by linearized assignment flows."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# name: module; imported when asked for, so that `import tiledlaf` is quick
_PUBLIC = {
    "AssignmentFlow": "estimator",
    "Model": "model.model",
    "estimate": "training.estimate",
    "explain": "reports.explanation",
    "label": "labeling.label",
    "compose": "flow.composition",
    "linearize": "flow.gradient",
    "linearize_sequence": "flow.sequence",
    "load": "model.model",
    "train": "training.run",
    "Summary": "labeling.run",
    "evaluate": "reports.evaluation",
    "Evaluation": "reports.scores",
    "Taylor": "flow.linear",
    "Krylov": "flow.linear",
    "Euler": "flow.linear",
    "LinearizedSequence": "flow.linear",
    "GeometricEuler": "flow.nonlinear",
    "RKMK4": "flow.nonlinear",
    "AdaptiveRKMK": "flow.nonlinear",
    "solve": "flow.linear",
    "assignment": "flow.linear",
    "rounding": "flow.linear",
}
# what the numerics in Python need beside these
_MODULES = {
    "gradient": "flow.gradient",
    "graph": "training.graph",
    "losses": "flow.losses",
    "optimizers": "flow.optimizers",
    "predictor": "model.predictor",
    "sequence": "flow.sequence",
    "stencil": "flow.stencil",
}
__all__ = ["__version__", *_PUBLIC, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{_MODULES[name]}")
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
