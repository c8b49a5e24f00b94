"""Layers as Zarr for browsers: uncompressed chunks, made when they are asked for.

So a browser shows whatever this program reads: any codec, Zarr 2 and 3, shards, folders, archives
and object stores; and it is given pixels of the layers, never files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..files import image as image_files
from ..files.image import Image
from .layers import LABELS, Layer

FLAT, DEEP = 256, 64  # edges of a chunk of a picture, and of a volume
PLANES = 16  # of a chunk of a volume
METADATA = "zarr.json"
CHANNELS = "c^"  # the name by which neuroglancer knows an axis that its shaders read
# types that browsers show; others become float32
TYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float32")


def answer(layer: Layer, key: str) -> tuple[bytes, str] | None:
    """What a Zarr store of a layer holds at a key, with its type; None where there is nothing."""
    if key == METADATA:
        return _json(_group(layer))
    found = re.fullmatch(r"(\d{1,3})/(?:(zarr\.json)|c/(\d{1,9}(?:/\d{1,9}){1,4}))", key, re.ASCII)
    if found is None or int(found[1]) >= len(layer.levels):
        return None
    image = layer.levels[int(found[1])]
    if found[2]:
        return _json(_array(layer, image))
    place = tuple(map(int, found[3].split("/")))
    data = _chunk(layer, image, place)
    return None if data is None else (data, "application/octet-stream")


def _json(value: Mapping[str, Any]) -> tuple[bytes, str]:
    return json.dumps(value).encode(), "application/json"


def has_channels(layer: Layer) -> bool:
    """Whether the array has an axis of channels before those of the grid."""
    return layer.image.used_channels > 1


def _group(layer: Layer) -> dict[str, Any]:
    axes: list[dict[str, str]] = [{"name": CHANNELS}] * has_channels(layer)
    for axis in layer.image.grid_axes:
        known = layer.measured and axis != "t"
        kind = "time" if axis == "t" else "space"
        axes.append({"name": axis, "type": kind} | ({"unit": "micrometer"} if known else {}))
    front, rest = [1.0] * has_channels(layer), [0.0] * has_channels(layer)
    datasets = [
        {
            "path": str(level),
            "coordinateTransformations": [
                {"type": "scale", "scale": [*front, *layer.scale(level)]},
                {"type": "translation", "translation": [*rest, *layer.origin(level)]},
            ],
        }
        for level in range(len(layer.levels))
    ]
    multiscale = {"name": layer.name, "axes": axes, "datasets": datasets}
    about = {"ome": {"version": "0.5", "multiscales": [multiscale]}}
    return {"zarr_format": 3, "node_type": "group", "attributes": about}


def _array(layer: Layer, image: Image) -> dict[str, Any]:
    front = [layer.image.used_channels] * has_channels(layer)
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [*front, *image.grid],
        "data_type": dtype(layer),
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": [*front, *_edges(image)]},
        },
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
        "dimension_names": [*[CHANNELS] * has_channels(layer), *image.grid_axes],
        "attributes": {},
    }


def dtype(layer: Layer) -> str:
    """NumPy name of the type in which pixels are sent."""
    stored = np.dtype(layer.image.dtype)
    if layer.kind == LABELS:
        return stored.name if stored.name in TYPES[:3] else "uint32"
    if stored.kind == "b":
        return "uint8"
    return stored.name if stored.name in TYPES and layer.image.gain is None else "float32"


def _edges(image: Image) -> tuple[int, ...]:
    """Edges of a chunk: one time point, planes as they are stored."""
    axes = image.grid_axes
    if "z" not in axes or image.grid[axes.index("z")] == 1:
        return (1,) * (len(axes) - 2) + (FLAT, FLAT)
    stored = getattr(image_files.opened(image.reader, image.path, image.name), "chunks", None)
    deep = stored is None or stored[image.axes.index("z")] > 1
    edges = (PLANES, DEEP, DEEP) if deep else (1, FLAT, FLAT)
    return (1,) * ("t" in axes) + edges


def _chunk(layer: Layer, image: Image, place: tuple[int, ...]) -> bytes | None:
    """Bytes of a chunk, filled with zeros beyond the border."""
    front = has_channels(layer)
    edges = _edges(image)
    if len(place) != front + len(edges) or (front and place[0]):
        return None
    inner = place[front:]
    if any(p * e >= n for p, e, n in zip(inner, edges, image.grid, strict=True)):
        return None
    window = tuple(
        slice(p * e, min((p + 1) * e, n)) for p, e, n in zip(inner, edges, image.grid, strict=True)
    )
    pixels = image_files.read(image, window)
    whole = np.zeros((len(pixels), *edges), np.dtype(dtype(layer)).newbyteorder("<"))
    whole[:, *(slice(0, s.stop - s.start) for s in window)] = pixels
    return whole.tobytes()
