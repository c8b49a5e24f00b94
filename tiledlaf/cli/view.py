"""tiledlaf view."""

from __future__ import annotations

import contextlib
import threading
import webbrowser

import click

from . import guide, shared
from .shared import Terminated

EXAMPLES = (
    ("image, labels and confidence in the browser", "tiledlaf view out.zarr"),
    ("print the address, to forward its port", "tiledlaf view out.zarr --port 8000 --no-browser"),
    ("in napari, where it is installed", "tiledlaf view out.zarr --viewer napari"),
)


@click.command(
    cls=guide.Command,
    examples=EXAMPLES,
    short_help="Look at an output in the browser, or in napari.",
    groups=dict.fromkeys(("viewer", "port", "no_browser"), "Viewer"),
)
@click.argument("output")
@click.option("--name", help="Show labels/NAME of an OUTPUT that has several.")
@click.option(
    "--viewer",
    type=click.Choice(["neuroglancer", "napari"]),
    default="neuroglancer",
    show_default=True,
    help="What to look with: neuroglancer in the browser, or napari.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    help="Port to serve on (default: a free one).",
)
@click.option("--no-browser", is_flag=True, help="Print the address, but open no browser.")
def view(output: str, name: str | None, viewer: str, port: int, no_browser: bool) -> None:
    """Look at OUTPUT, a path or a URL: the image, the labels above it, and their confidence.

    Serves on this machine alone, to whoever has the address with its token, until Ctrl-C. Class
    names and colors are those of the run; the confidence is there to be switched on. Needs
    neuroglancer ('tiledlaf[view]') or napari, but no network.
    """
    from ..reports import layers, napari, viewing

    found, words = layers.read(output, name)
    if words:
        shared.echo(f"tiledlaf: {words}", err=True)
    if viewer == "napari":
        napari.show(found, output)
        return
    said = set[str]()

    def complain(text: str) -> None:
        if text not in said:  # a damaged file is asked for again and again
            said.add(text)
            shared.echo(f"tiledlaf: {text}", err=True)

    with (
        contextlib.suppress(KeyboardInterrupt, Terminated),
        viewing.in_browser(found, port, complain) as site,
    ):
        shared.echo(f"view: {site.url}", "Ctrl-C ends it.")
        if not no_browser:
            webbrowser.open(site.once)
        threading.Event().wait()
