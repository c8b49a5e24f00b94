"""The integrators by name."""

from __future__ import annotations

from typing import Any

from .linear import Euler, Integrator, Krylov, LinearizedSequence, Taylor
from .nonlinear import RKMK4, GeometricEuler

# integrators that take a number of steps
STEPPED: dict[str, Any] = {
    "euler": Euler,
    "sequence": LinearizedSequence,
    "geometric-euler": GeometricEuler,
    "rkmk4": RKMK4,
}


def make(
    name: str = "taylor", tol: float = 1e-4, dim: int | None = None, steps: int | None = None
) -> Integrator:
    """Return an integrator by name, with the options that belong to it.

    Raises
    ------
    ValueError
        If the name is unknown or an option belongs to another integrator.
    """
    known = {"taylor": Taylor, "krylov": Krylov, **STEPPED}
    if name not in known:
        raise ValueError(f"integrator must be one of {', '.join(known)}, got {name!r}")
    if steps is not None and name not in STEPPED:
        raise ValueError(f"--steps belongs to the integrators {', '.join(STEPPED)}, got {name}")
    if dim is not None and name != "krylov":
        raise ValueError(f"--dim belongs to the integrator krylov, got {name}")
    given: dict[str, Any] = {"dim": dim, "steps": steps}
    if name in ("taylor", "krylov", "sequence"):
        given["tol"] = tol
    found: Integrator = known[name](**{k: v for k, v in given.items() if v is not None})
    return found
