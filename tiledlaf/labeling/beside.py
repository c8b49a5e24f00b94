"""The overview beside an output: where it is, whether it is ours, how it gets there and leaves."""

from __future__ import annotations

import io
import json
import os
import struct
import urllib.parse
import warnings
import zlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import TiledlafWarning
from ..files import stores
from ..files.archives import Archive
from .output import Output

if TYPE_CHECKING:
    import PIL.Image

ENDING = "overview.png"
KEY = "tiledlaf"  # of the text in a picture that says what it is of
MARK = b"\x89PNG\r\n\x1a\n"
HEAD = 2**16  # bytes within which this text is
TRIES = 3


def path(out: Output) -> str:
    """Path or URL of the overview: OUTPUT.overview.png, OUTPUT.NAME.overview.png of other names.

    Labels that were added to an input have it in their array, where readers of groups ignore it.
    """
    folder, name = _place(out)
    if stores.is_url(folder):
        return f"{folder}/{urllib.parse.quote(name)}"
    return os.path.join(folder, name)


def _place(out: Output) -> tuple[str, str]:
    """Folder or URL, and name."""
    inside = f"{out.store.rstrip('/')}/{out.group}/0"
    if out.into_input:
        return inside, ENDING
    other = "" if out.name == "tiledlaf" else f".{out.name}"
    if not stores.is_url(out.store):
        where = out.store.rstrip("/" + os.sep)
        if os.path.basename(where) in ("", ".", ".."):
            where = os.path.abspath(where or "/")
        folder, name = os.path.split(where)
        return folder, f"{name}{other}.{ENDING}"
    folder, _, name = out.store.rstrip("/").rpartition("/")
    if folder.endswith("/"):  # a bucket is the output: nothing is beside it
        return inside, ENDING
    return folder, f"{urllib.parse.unquote(name)}{other}.{ENDING}"


def held(out: Output) -> str | None:
    """Which labels the overview shows: "" if one is there that is not ours, None if none is."""
    try:
        data = stores.head(path(out), HEAD)
    except OSError:
        if stores.is_url(out.store):
            raise
        return ""
    if data is None:
        return None
    found = _said(data)
    return str(found["of"]) if found.items() >= _owner(out).items() and "of" in found else ""


def is_named(path: str) -> bool:
    """Whether a path has a name of overviews."""
    return os.path.basename(path) == ENDING or path.endswith(f".{ENDING}")


def is_overview(path: str) -> bool:
    """Whether a picture is an overview, of whatever output; what cannot be read is none."""
    try:
        data = stores.head(path, HEAD)
    except (OSError, ValueError):
        return False
    return data is not None and _said(data).get("program") == "tiledlaf"


def _owner(out: Output) -> dict[str, str]:
    """What an overview says of the output that it belongs to, wherever both were moved."""
    name = os.path.basename(stores.absolute(out.store))
    return {"program": "tiledlaf", "output": name, "labels": out.name}


def _said(data: bytes) -> dict[str, Any]:
    """The text in a picture that says what it is of; nothing in files of others."""
    at = len(MARK)
    while data.startswith(MARK) and at + 12 <= len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        text = data[at + 8 : at + 8 + size]
        if kind == b"tEXt" and text.startswith(KEY.encode() + b"\0"):
            if data[at + 8 + size : at + 12 + size] != struct.pack(">I", zlib.crc32(kind + text)):
                return {}
            try:
                found = json.loads(text.partition(b"\0")[2])
            except (ValueError, RecursionError):
                return {}
            return found if isinstance(found, dict) else {}
        at += 12 + size
    return {}


def is_one_of(out: Output, inputs: Iterable[str]) -> bool:
    """Whether the overview would lie where a run reads."""
    return stores.absolute(path(out)) in set(map(stores.absolute, inputs))


def remove(out: Output, inputs: Iterable[str] = ()) -> None:
    """Remove an overview of these labels, which are about to change; never an input."""
    full = path(out)
    if is_one_of(out, inputs):
        return
    try:
        if held(out):
            folder, name = _place(out)
            place = stores.at(folder)
            assert not isinstance(place, Archive)
            place.delete(name) if isinstance(place, stores.Bucket) else place.remove(name)
    except OSError as error:
        _warn(f"{full}: this picture of earlier labels could not be removed, {error.strerror}")


def put(out: Output, picture: PIL.Image.Image, of: str) -> str | None:
    """Write an overview, whole or not at all; its path, or None beside a warning.

    Parameters
    ----------
    of : which labels it shows
    """
    folder, name = _place(out)
    place, data = stores.at(folder), _encoded(out, picture, of)
    assert not isinstance(place, Archive)
    for _ in range(TRIES):
        now = held(out)
        if now == "":
            break
        if now is not None:
            place.write(name, data)
        elif not place.create(name, data):  # another run was quicker, or a file of this name
            continue
        return path(out)
    refuse(out)
    return None


def refuse(out: Output) -> None:
    """Say that a file of another origin is in the way."""
    _warn(
        f"{path(out)}: this is not an overview of labels/{out.name} of this output, so it is left "
        "as it is, and none is drawn"
    )


def _encoded(out: Output, picture: PIL.Image.Image, of: str) -> bytes:
    import PIL.PngImagePlugin

    texts = PIL.PngImagePlugin.PngInfo()
    texts.add_text(KEY, json.dumps({**_owner(out), "of": of}))
    texts.add_text("Software", f"tiledlaf {__version__}")
    file = io.BytesIO()
    picture.save(file, "png", pnginfo=texts)
    return file.getvalue()


def _warn(text: str) -> None:
    warnings.warn(text, TiledlafWarning, stacklevel=4)
