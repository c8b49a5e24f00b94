"""Where results are written: whole files, never over what is there unless that is asked for."""

from __future__ import annotations

import errno
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import InputError
from ..files import stores
from ..files.folders import check_length


def check(path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Refuse a place where no file can be written, before anything is computed.

    Raises
    ------
    ValueError
        If there is a file, unless it may be replaced, or if there is no such folder.
    """
    path = os.fspath(path)
    check_length(path)
    if stores.is_url(path):
        if stores.is_web(path) or not stores.is_url(path.rstrip("/").rpartition("/")[0]):
            name = os.path.basename(path) or "labels.csv"
            raise InputError(f"{path}: expected a place to write, such as s3://bucket/{name}")
        taken = not overwrite and _object(path)[0].exists(_object(path)[1])
    else:
        folder = Path(path).absolute().parent
        if os.path.isdir(path) or not folder.is_dir():
            what = "a folder" if os.path.isdir(path) else "no such folder"
            raise InputError(f"{path}: expected a file in a folder that exists, got {what}")
        if not os.access(folder, os.W_OK):
            raise InputError(f"{path}: expected a place to write, but {folder} is read-only")
        taken = not overwrite and os.path.lexists(path)
    if taken:
        raise _there(path)


def check_outside(path: str | os.PathLike[str], output: str | os.PathLike[str]) -> None:
    """Refuse a file within an output, which is a store of its own format.

    Raises
    ------
    ValueError
        Names both.
    """
    url = stores.is_url(output)
    if stores.is_url(path) != url:
        return
    whole, part = (os.fspath(one) if url else os.path.realpath(one) for one in (output, path))
    if part.startswith(whole.rstrip("/") + ("/" if url else os.sep)):
        raise InputError(f"{os.fspath(path)}: expected a place outside of {os.fspath(output)}")


@contextmanager
def written(path: str | os.PathLike[str], overwrite: bool = False) -> Iterator[str]:
    """A file to write, which is put into place once it is whole, and removed after an error.

    Parameters
    ----------
    path : of a file, or the URL of an object
    overwrite : whether a file that is there is replaced

    Yields
    ------
    str
        Path of the file to write, on this machine.

    Raises
    ------
    ValueError
        As in `check`; also if another program has written there meanwhile.
    """
    path = os.fspath(path)
    check(path, overwrite)
    if stores.is_url(path):
        with tempfile.TemporaryDirectory(prefix="tiledlaf-") as folder:
            part = os.path.join(folder, "part")
            yield part
            place, key = _object(path)
            if not overwrite and place.exists(key):
                raise _there(path)
            place.upload(key, part)
        return
    part = f"{path}.{uuid.uuid4().hex}{stores.PART}"
    try:
        yield part
        if overwrite:
            os.replace(part, path)
        else:
            _put(part, path)
    finally:
        Path(part).unlink(missing_ok=True)


def _put(part: str, path: str) -> None:
    """Give a file its name unless there is one of that name."""
    try:
        os.link(part, path)  # of two at one time one succeeds
    except FileExistsError:
        raise _there(path) from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        _put_without_links(part, path)


def _put_without_links(part: str, path: str) -> None:
    """As `_put`, by an empty file of the name first: nobody else has made it."""
    try:
        open(path, "xb").close()
    except FileExistsError:
        raise _there(path) from None
    try:
        os.replace(part, path)
    except OSError:
        os.unlink(path)
        raise


def _there(path: str) -> InputError:
    return InputError(
        f"{path}: expected a new file, got one that is there (`overwrite` replaces it)"
    )


def _object(url: str) -> tuple[stores.Bucket, str]:
    """The store above an object, and the object's name."""
    above, _, key = url.rstrip("/").rpartition("/")
    place = stores.at(above)
    assert isinstance(place, stores.Bucket)
    return place, key
