"""Layers in neuroglancer: its client, which a package holds, and the state that shows the layers.

The client is a page without a server of its own. neuroglancer is Apache-2.0; only its files are
used, its Python is not imported.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from . import chunks
from .layers import CONFIDENCE, LABELS, Layer

LISTED = 1000  # label values that are listed as chosen
ALPHA = 0.4  # of labels above an image
SCREEN = 650  # pixels of a browser's window that an image is to fit into


def client() -> dict[str, Path]:
    """The files of the client, by name.

    Raises
    ------
    ValueError
        If the package is not installed.
    """
    found = importlib.util.find_spec("neuroglancer")
    places = found.submodule_search_locations if found is not None else None
    for place in places or ():
        folder = Path(place) / "static" / "client"
        files = {p.name: p for p in folder.glob("*") if p.is_file() and p.suffix != ".map"}
        if "index.html" in files:
            return files
    raise InputError(
        "the browser's viewer is neuroglancer, which is not installed: pip install 'tiledlaf[view]'"
    )


def state(layers: Sequence[Layer], base: str) -> dict[str, Any]:
    """What neuroglancer shows at first.

    Parameters
    ----------
    layers : lowest first
    base : URL below which layer n is `n/data` and, of labels, `n/names`
    """
    top = next(one for one in layers if one.kind == LABELS)
    grid, sizes, first = top.image.grid, top.scale(), top.origin()
    unit, micro = ("m", 1e-6) if top.measured else ("", 1.0)
    dimensions = {
        axis: [size * micro, unit] if axis != "t" else [size, ""]
        for axis, size in zip(top.image.grid_axes, sizes, strict=True)
    }
    spatial = len(top.image.spatial_axes)
    position = [f / s + n / 2 - 0.5 for f, s, n in zip(first, sizes, grid, strict=True)]
    if "t" in dimensions:
        position[0] = 0.5
    flat = spatial == 2 or grid[-3] == 1
    return {
        # x and y are across and down, as in the image
        "dimensions": {axis: dimensions[axis] for axis in reversed(dimensions)},
        "position": position[::-1],
        "crossSectionScale": max(grid[-2:]) / SCREEN,
        "projectionScale": max(grid),
        "layers": [_layer(one, f"{base}/{n}") for n, one in enumerate(layers)],
        "layout": "xy" if flat else "4panel-alt",
        "showAxisLines": False,
        "selectedLayer": {"layer": top.name, "visible": True},
    }


def names(layer: Layer) -> dict[str, Any]:
    """Names of label values, as neuroglancer's segment properties."""
    values = list(layer.names)
    label = {"id": "label", "type": "label", "values": [layer.names[v] for v in values]}
    inline = {"ids": [str(v) for v in values], "properties": [label]}
    return {"@type": "neuroglancer_segment_properties", "inline": inline}


def _layer(layer: Layer, url: str) -> dict[str, Any]:
    source: Any = f"zarr3://{url}/data/"
    found: dict[str, Any] = {"name": layer.name, "visible": layer.shown}
    if layer.kind == LABELS:
        chosen = [str(value) for value in layer.names]
        colors = {str(v): "#{:02x}{:02x}{:02x}".format(*c) for v, c in layer.colors.items()}
        return found | {
            "type": "segmentation",
            "source": [source, f"precomputed://{url}/names"],
            "segments": chosen if len(chosen) <= LISTED else [],
            "segmentColors": colors,
            "selectedAlpha": ALPHA,
            "notSelectedAlpha": 0 if len(chosen) <= LISTED else ALPHA,
            "hoverHighlight": False,
            "tab": "segments",
        }
    if chunks.has_channels(layer):
        found["channelDimensions"] = {chunks.CHANNELS: [1, ""]}
    return found | {"type": "image", "source": source, "shader": shader(layer), "opacity": 1}


def shader(layer: Layer) -> str:
    """How values become colors, with a control of the contrast of each channel."""
    if len(layer.windows) == 1 and not layer.tones:
        said = "confidence" if layer.kind == CONFIDENCE else "contrast"
        return f"{_control(said, layer, 0)}\nvoid main() {{ emitGrayscale({said}()); }}\n"
    many = chunks.has_channels(layer)
    lines, sums = [], []
    for n in range(len(layer.windows)):
        lines.append(_control(f"channel{n}", layer, n, many))
        if not layer.color:
            lines.append(f'#uicontrol vec3 color{n} color(default="{layer.tones[n]}")')
            sums.append(f"color{n} * channel{n}()")
    total = "vec3(channel0(), channel1(), channel2())" if layer.color else " + ".join(sums)
    return "\n".join([*lines, f"void main() {{ emitRGB({total}); }}", ""])


def _control(name: str, layer: Layer, number: int, many: bool = False) -> str:
    low, high = layer.windows[number]
    if chunks.dtype(layer) == "float32":
        span = json.dumps([low, high])
    else:
        low, high = round(low), round(high)
        span = json.dumps([low, high if high > low else low + 1])
    channel = f", channel={number}" * many
    return f"#uicontrol invlerp {name}(range={span}{channel})"
