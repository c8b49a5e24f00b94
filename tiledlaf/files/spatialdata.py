"""Labels as elements of a SpatialData store, beside the image that they are of."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InputError
from . import nodes, stores, transformations
from .levels import Pyramid

ELEMENTS = ("images", "labels")
OTHERS = ("points", "shapes", "tables")


def locate(path: str) -> tuple[str, str]:
    """A path as its SpatialData store and an element in it; (path, "") where it is none."""
    root, kind = os.path.split(os.path.dirname(path.rstrip("/")))
    inside = kind in ELEMENTS and root and not stores.is_url(path)
    if inside and "spatialdata_attrs" in nodes.attributes(root, ""):
        return root, f"{kind}/{os.path.basename(path.rstrip('/'))}"
    return path, ""


def check_name(store: str, name: str) -> None:
    """Refuse a name for labels that another element has: SpatialData would no longer open.

    Raises
    ------
    ValueError
        Names the element.
    """
    for kind in ("images", *OTHERS):
        if name in nodes.contents(store, kind):
            raise InputError(
                f"{store}: expected a `name` for the labels that no other element has, got "
                f"{name!r} of {kind}/{name}"
            )


def entries(
    store: str, element: str, labels: Pyramid, version: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Metadata of labels of an element: those of NGFF, and those beside them.

    SpatialData reads levels by their sizes and places an element by the transformations of the
    whole, so the place of the labels within the image is the first of these.

    Parameters
    ----------
    labels : with scale and translation in pixels of the image's finest level
    """
    attributes = nodes.attributes(store, element)
    image = attributes.get("ome", attributes)["multiscales"][0]
    axes = [{"name": a, "type": "space"} for a in labels.axes]
    here = {"name": labels.axes, "axes": [a | {"unit": "unit"} for a in axes]}
    listed = image.get("coordinateTransformations") or [
        {"type": "identity", "input": here, "output": {**here, "name": "global"}}
    ]
    try:
        moves = [transformations.without(move, "c") for move in listed]
    except (KeyError, TypeError, IndexError, AttributeError):
        raise InputError(
            f"{store}/{element}: its coordinate transformations are not those of SpatialData"
        ) from None
    found = dataclasses.replace(
        labels, scale=(1.0,) * len(axes), translation=(0.0,) * len(axes), units=(None,) * len(axes)
    ).entries(version)
    whole = found["multiscales"][0]
    for dataset in whole["datasets"]:  # its levels begin at a corner of the image
        dataset["coordinateTransformations"] = dataset["coordinateTransformations"][:1]
    whole["coordinateTransformations"] = [_within(move, labels, here) for move in moves]
    # SpatialData reads elements of its own versions only
    if "ome" in attributes:
        found["version"] = attributes["ome"].get("version", version)
    elif "version" in image:
        whole["version"] = image["version"]
    beside = {k: v for k, v in attributes.items() if k == "spatialdata_attrs"}
    return found, beside


def _within(move: Mapping[str, Any], labels: Pyramid, here: Mapping[str, Any]) -> dict[str, Any]:
    """A transformation of the image, of pixels of its labels."""
    first: list[dict[str, Any]] = []
    for kind, values, none in (
        ("scale", labels.scale, 1.0),
        ("translation", labels.translation, 0.0),
    ):
        if _differs(values, none):
            first.append({"type": kind, kind: list(values), "input": here, "output": here})
    if not first:
        return dict(move)
    return {
        "type": "sequence",
        "transformations": [*first, dict(move)],
        "input": here,
        "output": move["output"],
    }


def _differs(values: Sequence[float], none: float) -> bool:
    return any(value != none for value in values)
