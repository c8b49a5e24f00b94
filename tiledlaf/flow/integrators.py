"""The integrators by name."""

from __future__ import annotations

from dataclasses import fields

from ..errors import InputError
from ..registry import Registry
from .linear import Euler, Integrator, Krylov, LinearizedSequence, Taylor
from .nonlinear import RKMK4, GeometricEuler

INTEGRATORS: Registry[type[Integrator]] = Registry(
    "tiledlaf.integrators",
    {
        "taylor": Taylor,
        "krylov": Krylov,
        "euler": Euler,
        "sequence": LinearizedSequence,
        "geometric-euler": GeometricEuler,
        "rkmk4": RKMK4,
    },
)


def make(name: str = "taylor", **options: float | None) -> Integrator:
    """Return an integrator by name, with its options.

    Parameters
    ----------
    name : a name in `INTEGRATORS`
    **options : such as tol, dim and steps; None selects the integrator's own default

    Raises
    ------
    ValueError
        If the name is unknown or an option belongs to another integrator.

    Examples
    --------
    >>> from tiledlaf.flow import integrators
    >>> integrators.make("euler", steps=20)
    Euler(steps=20)
    """
    if name not in INTEGRATORS:
        raise InputError(f"integrator must be one of {', '.join(INTEGRATORS)}, got {name!r}")
    given = {key: value for key, value in options.items() if value is not None}
    for key in given:
        if key not in {f.name for kind in INTEGRATORS.values() for f in fields(kind)}:
            raise TypeError(f"no integrator has the option {key!r}")
        owners = [n for n, kind in INTEGRATORS.items() if key in {f.name for f in fields(kind)}]
        if name not in owners:
            many = "s" * (len(owners) > 1)
            raise InputError(
                f"`{key}` belongs to the integrator{many} {', '.join(owners)}, got {name}"
            )
    return INTEGRATORS[name](**given)
