"""`view`: an output in a browser or in napari."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from . import chunks, neuroglancer
from .layers import LABELS, Layer
from .serving import Answer, Site, serving

STATE = "state.json"
Complain = Callable[[str], None]


@contextmanager
def in_browser(layers: Sequence[Layer], port: int, complain: Complain) -> Iterator[Site]:
    """Serve layers on loopback until the block ends; yields the site, which knows its addresses.

    Parameters
    ----------
    layers : lowest first
    port : 0 is a free one
    complain : is told of pixels that could not be read

    Raises
    ------
    ValueError
        If neuroglancer is not installed, or the port is in use.
    """
    with serving(site(layers, complain), port) as found:
        yield found


def site(layers: Sequence[Layer], complain: Complain) -> Site:
    """Layers as a site for a browser."""

    def data(key: str) -> Answer | None:
        if key == STATE:
            about = neuroglancer.state(layers, found.data_url)
            return json.dumps(about).encode(), "application/json"
        number, _, rest = key.partition("/")
        layer = known.get(number)
        if layer is not None and rest.startswith("data/"):
            return chunks.answer(layer, rest.removeprefix("data/"))
        if layer is not None and rest == "names/info" and layer.kind == LABELS:
            return json.dumps(neuroglancer.names(layer)).encode(), "application/json"
        return None

    known = {str(number): layer for number, layer in enumerate(layers)}
    found = Site(neuroglancer.client(), data, lambda url: f"!{url}/{STATE}", complain)
    return found
