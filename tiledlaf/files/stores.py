"""Where stores are: in a folder, or as objects under a URL. Only this module uses obstore.

A file is safely written once it was renamed into place, an object once its PUT was answered.
Neither is ever visible in part.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import errno
import functools
import hashlib
import math
import os
import re
import shutil
import stat
import threading
import time
import urllib.parse
import uuid
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from .. import redaction
from ..errors import InputError
from . import answers
from .answers import METADATA, NoLength, NoRanges, Refused, Unanswered
from .archives import Archive
from .folders import PART as PART
from .folders import Folder as Folder
from .folders import check_length as check_length
from .folders import is_part as is_part
from .folders import is_stray as is_stray
from .folders import link as link
from .folders import missing_link as missing_link


def nearest_existing(path: str) -> Path:
    """The path itself, or its nearest parent that exists."""
    absolute = Path(path).absolute()
    if absolute.is_symlink():  # perhaps to a folder that is yet to be made
        absolute = absolute.resolve()
    return next(p for p in (absolute, *absolute.parents) if p.exists())


def free_bytes(path: str) -> int | None:
    """Free space where a store is to be written; None on an object store, which does not say."""
    return None if is_url(path) else shutil.disk_usage(nearest_existing(path)).free


WEB = ("http", "https")
SCHEMES = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl", *WEB)
TIME = timedelta(minutes=2)  # for a request: enough for a shard of 100 MB at 1 MB/s
AT_ONCE = 16  # concurrent requests of a call
KEPT = 2**28  # bytes of objects kept of a web server that sends them only whole
ONE_PUT = 2**28  # bytes of a file that are sent at once, which is in memory then
CHECKED = 1.0  # seconds for which a web server's metadata need not be asked for again
# waits are drawn between `init_backoff` and `base` times the previous one: 3 grows them by half
RETRIES = {
    "max_retries": 10,
    "backoff": {
        "init_backoff": timedelta(seconds=0.1),
        "max_backoff": timedelta(seconds=10),
        "base": 3,
    },
    "retry_timeout": timedelta(minutes=3),
}


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether a path is the URL of an object store.

    Raises
    ------
    ValueError
        If it is a URL of another kind or malformed; anything that may be a password is not
        repeated.
    """
    found = re.match(r"([A-Za-z][\w+.-]+)://([^/?#\\]*)(.*)", os.fspath(path), re.DOTALL)
    if found is None:
        return False
    redaction.check(path)
    scheme, host, rest = found.groups()
    # a password may hold any character, so its end cannot be found; only a web server has a port
    web = scheme.lower() in WEB and re.fullmatch(r"[^:]*(:\d+)?|\[[\da-fA-F:]*\](:\d+)?", host)
    if ":" in host and (not web or "@" in rest):
        raise InputError(
            f"expected a {scheme}:// URL without user, password and query; credentials come from "
            "the environment"
        )
    if "\\" in rest:
        raise InputError(f"{path}: expected a URL without backslashes")
    if scheme.lower() not in SCHEMES:
        raise InputError(
            f"{path}: expected a path or a URL that begins with s3://, gs://, az:// or https://"
        )
    steps = urllib.parse.unquote(rest).removeprefix("/").removesuffix("/").split("/")
    if not host or {".", ".."} & set(steps) or ("" in steps and len(steps) > 1):
        raise InputError(
            f"{path}: expected a URL such as {scheme}://bucket/image.zarr, without . and .. and "
            "doubled slashes"
        )
    return True


def is_web(path: str) -> bool:
    """Whether a path is the URL of a web server, which is read-only and lists nothing."""
    return is_url(path) and path.lower().startswith(WEB)


def absolute(path: str) -> str:
    """A path that means the same to processes in other working folders."""
    return path.rstrip("/") if is_url(path) else os.path.abspath(path)


def head(path: str, most: int) -> bytes | None:
    """The first bytes of a file or an object, b"" of a link or a folder; None where nothing is."""
    if is_url(path):
        folder, _, name = path.rpartition("/")
        found = at(folder).read(name)
        return None if found is None else found[:most]
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return b""
        with open(path, "rb") as file:
            return file.read(most)
    except FileNotFoundError:
        return None


def split(path: str) -> tuple[str, str]:
    """A path as the file that it leads into, and the name therein: ("a.h5", "group/data").

    The name is "" where the path is that of a file or folder, or of nothing.
    """
    if not is_url(path) and not os.path.lexists(path):
        for above in Path(path).parents:
            if above.is_file():
                return str(above), Path(path).relative_to(above).as_posix()
    return path, ""


def on_disk(paths: Iterable[str]) -> list[str]:
    """Files and folders that paths lead to, each once, without what lies on object stores."""
    return sorted({split(os.path.abspath(path))[0] for path in paths if not is_url(path)})


def at(path: str) -> Folder | Bucket | Archive:
    """The store at a path; it need not exist."""
    if is_url(path):
        return _bucket(path.rstrip("/"))
    file, name = split(path)
    if Archive.suffixed(file) and os.path.isfile(file):
        return _archive(file, name, os.stat(file).st_mtime_ns)
    return _folder(path)


@functools.lru_cache(maxsize=64)
def _archive(file: str, name: str, state: int) -> Archive:
    return Archive(file, name)


@functools.lru_cache(maxsize=64)
def _folder(path: str) -> Folder:
    return Folder(path)


class Bucket:
    """Objects below a URL; a key is a name relative to it.

    Each is written by one PUT, so it is there whole or not at all; a busy or unreachable server is
    retried for some ten seconds. Credentials come from the environment or from the machine (see
    obstore) and never appear in a message, nor does a server's own error text.

    Attributes
    ----------
    url : str
    objects : obstore's store
    """

    def __init__(self, url: str) -> None:
        try:
            import obstore
        except ImportError:
            raise InputError(
                f"{url}: object stores need obstore, which is not installed: "
                "pip install 'tiledlaf[cloud]'"
            ) from None
        self.url, self.web, self._library = url, is_web(url), obstore
        self._known, self._asked = "", 0.0  # metadata that could be read, and when they were
        self._whole: OrderedDict[str, bytes] | None = None  # where ranges are not answered
        self._states: dict[str, tuple[float, str | None]] = {}
        self._lock = threading.Lock()
        # as other programs read this variable; obstore would require AWS_ALLOW_HTTP as well
        endpoint = os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT") or ""
        allowed = os.environ.get("AWS_ALLOW_HTTP", "").lower() == "true"
        plain = allowed or url.lower().startswith("http:") or endpoint.lower().startswith("http:")
        with self.translate_errors():
            self.objects = obstore.store.from_url(
                url, client_options={"allow_http": plain, "timeout": TIME}, retry_config=RETRIES
            )

    @contextmanager
    def translate_errors(self, key: str = "") -> Iterator[None]:
        """Turn errors of the library into OSErrors with one-line messages."""
        place = f"{self.url}/{key}".rstrip("/")
        try:
            yield
        except FileNotFoundError:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), place) from None
        except self._library.exceptions.BaseError as error:
            kind = type(error).__name__
            raise answers.error(kind, str(error))(
                errno.EIO, answers.reason(kind, str(error)), place
            ) from None

    def exists(self, key: str) -> bool:
        """Whether there is such an object."""
        return self._head(key) is not None

    def _head(self, key: str) -> Mapping[str, Any] | None:
        """Its size, and ETag or time; a web server may not know any of these."""
        if self.web:
            found = self._get(key)
            return None if found is None else found[0]
        try:
            with self.translate_errors(key):
                return self._library.head(self.objects, key)
        except FileNotFoundError:
            return None
        except Refused:
            if self.lacks(key, "403"):
                return None
            raise

    def read(self, key: str) -> bytes | None:
        """Bytes of an object, None where there is none."""
        found = self._get(key)
        return None if found is None else found[1]

    def _get(self, key: str) -> tuple[Mapping[str, Any], bytes] | None:
        """What is said of an object, and its bytes; None where there is none."""
        try:
            entry, data = self._sent(key)
        except FileNotFoundError:
            return None
        except Refused:
            if self.lacks(key, "403"):
                return None
            raise
        if self.is_absent(key, data):
            return None
        if self.web and not _version(entry):
            entry = {**entry, "e_tag": _hash(data)}
        return entry, data

    def _sent(self, key: str) -> tuple[Mapping[str, Any], bytes]:
        """What a server says of an object, and what it sends."""
        try:
            with self.translate_errors(key):
                found = self._library.get(self.objects, key)
                return found.meta, found.bytes().to_bytes()
        except NoLength:
            data = answers.without_length(self._url(key), TIME.total_seconds())
            return {"path": key, "size": len(data), "e_tag": _hash(data)}, data

    def _url(self, key: str) -> str:
        return f"{self.url}/{urllib.parse.quote(key)}"

    @functools.cached_property
    def absence(self) -> str:
        """How it answers for what is not there: "404", "403" or "page", a web page."""
        try:
            _, data = self._sent(f"{uuid.uuid4().hex}.none")
            return "page" if self.web and answers.is_page(data) else "404"
        except FileNotFoundError:
            return "404"
        except Refused:
            return "403"

    def lacks(self, key: str, answer: str) -> bool:
        """Whether an answer for an object means that there is none.

        So it is where any name that cannot exist gets the same answer. A server may begin to refuse
        everything, so some metadata of the store must still be answered when pixels are not.
        """
        if self.absence != answer:
            return False
        if answers.is_metadata(key):
            return True
        if self._known and time.monotonic() - self._asked > CHECKED:
            _, data = self._sent(self._known)
            if answers.is_page(data):
                return False
            self._asked = time.monotonic()
        return bool(self._known)

    def is_absent(self, key: str, data: bytes) -> bool:
        """Whether bytes are those that a web server sends for what is not there.

        Raises
        ------
        Unanswered
            If they are a web page in place of pixels, such as a login or an apology.
        """
        if answers.is_metadata(key):
            if self.web and not answers.is_zarr(key, data):
                return True
            self._known, self._asked = key, time.monotonic()
        elif self.web and answers.is_page(data):
            if self.lacks(key, "page"):
                return True
            text = "the server answers with a web page in place of pixels"
            raise Unanswered(errno.EIO, text, f"{self.url}/{key}")
        return False

    async def fetch(
        self, key: str, part: slice | None = None, options: Mapping[str, Any] | None = None
    ) -> bytes | None:
        """Bytes of an object of a web server, or a part of them, None where there is none.

        Parameters
        ----------
        part : by default everything
        options : of the library, to get only this part
        """
        if part is not None and self._whole is None:
            try:
                with self.translate_errors(key):
                    answer = await self._library.get_async(self.objects, key, options=options)
                    if "html" not in str(answer.attributes.get("Content-Type")):
                        return bytes(await answer.bytes_async())
            except (NoRanges, NoLength):
                pass
        data = None
        if part is not None and self._whole is not None:
            with self._lock:
                data = self._whole.get(key)
        if data is None:
            try:
                with self.translate_errors(key):
                    answer = await self._library.get_async(self.objects, key)
                    data = bytes(await answer.bytes_async())
            except NoLength:
                url, seconds = self._url(key), TIME.total_seconds()
                data = await asyncio.to_thread(answers.without_length, url, seconds)
            if self.is_absent(key, data):
                return None
            if part is not None:
                self._keep(key, data)
        return data if part is None else data[part]

    def _keep(self, key: str, data: bytes) -> None:
        """Keep an object that will be asked for in parts, and forget others."""
        with self._lock:
            if self._whole is None:
                self._whole = OrderedDict()
            self._whole[key] = data
            while len(self._whole) > 1 and sum(map(len, self._whole.values())) > KEPT:
                self._whole.popitem(last=False)

    def read_all(self, keys: Iterable[str]) -> list[bytes | None]:
        """Bytes of some objects, several at a time."""
        return _each(self.read, keys)

    def write(self, key: str, data: Any) -> int:
        """Write an object and return its size; it is stored when this returns."""
        with self.translate_errors(key):
            # parts of an interrupted multipart upload would remain, unseen but billed
            self._library.put(self.objects, key, data, use_multipart=False)
        return memoryview(data).nbytes

    def upload(self, key: str, path: str) -> None:
        """Write a file as an object; one that is too large for a PUT goes in parts."""
        size = os.path.getsize(path)
        with self.translate_errors(key):
            self._library.put(self.objects, key, Path(path), use_multipart=size > ONE_PUT)

    def create(self, key: str, data: bytes) -> bool:
        """Write an object unless there is one; whether this call has written it."""
        with self.translate_errors(key):
            try:
                self._library.put(self.objects, key, data, use_multipart=False, mode="create")
                return True
            except self._library.exceptions.AlreadyExistsError:
                return self.read(key) == data  # a request that was sent twice, or another's
            except self._library.exceptions.BaseError as error:
                # some servers do not know such requests
                if "501" not in str(error) and not isinstance(error, NotImplementedError):
                    raise
        if self.exists(key):
            return False
        self.write(key, data)
        return True

    def update(self, parts: Mapping[str, Any]) -> int:
        """Write objects, several at a time, and remove those that are None; return the bytes."""
        return sum(
            _each(
                lambda key: self.delete(key) if parts[key] is None else self.write(key, parts[key]),
                parts,
            )
        )

    def delete(self, key: str) -> int:
        """Remove an object, if there is one; return the 0 bytes that are left."""
        with (
            contextlib.suppress(FileNotFoundError),
            self.translate_errors(key),
        ):  # some stores report a missing object
            self._library.delete(self.objects, key)
        return 0

    def remove(self, *prefixes: str) -> int:
        """Remove all objects below; return how many. Metadata go last, groups' after arrays'."""
        keys = [key for prefix in prefixes for key, _, _ in self.entries(prefix)]
        return self.delete_all(keys)

    def delete_all(self, keys: Sequence[str]) -> int:
        """Remove objects; return how many. Metadata go last, groups' after arrays'."""
        last = {key for key in keys if key.rsplit("/", 1)[-1] in METADATA}
        _each(self.delete, [key for key in keys if key not in last])
        for depth in sorted({key.count("/") for key in last}, reverse=True):
            _each(self.delete, [key for key in last if key.count("/") == depth])
        return len(keys)

    def names(self, prefix: str = "") -> list[str]:
        """What lies directly below, sorted."""
        with self.translate_errors(prefix):
            found = self._library.list_with_delimiter(self.objects, prefix or None)
        keys = [*found["common_prefixes"], *(entry["path"] for entry in found["objects"])]
        return sorted(key.rsplit("/", 1)[-1] for key in keys)

    def entries(self, prefix: str = "") -> list[tuple[str, int, str]]:
        """(key, size, ETag or time) of all objects below, sorted by key."""
        with self.translate_errors(prefix):
            found = self._library.list(self.objects, prefix or None).collect()
        return sorted((entry["path"], entry["size"], _version(entry)) for entry in found)

    def known(self) -> list[tuple[str, int, str]]:
        """`entries`, or only those of the metadata at the URL itself where none are listed."""
        if not self.web:
            try:
                return self.entries()
            except Refused:
                if self.absence != "403":
                    raise
        heads = [self._head(key) for key in METADATA]
        return sorted((e["path"], e["size"], _version(e)) for e in heads if e is not None)

    def state(self, key: str) -> int | str:
        """What changes when an object is rewritten: its ETag. A web server is asked each second."""
        asked, known = self._states.get(key, (-math.inf, None))
        if not self.web or time.monotonic() - asked > CHECKED:
            found = self._head(key)
            known = None if found is None else _version(found)
            self._states[key] = time.monotonic(), known
        if known is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{self.url}/{key}")
        return known

    def copy(self, source: Folder | Bucket | Archive, keys: Mapping[str, str]) -> int:
        """Copy objects of another store, {its key: the key here}, on the server where possible.

        Where there is none in the source, none is left here. Returns the bytes.
        """
        here, there = self._address(), source._address() if isinstance(source, Bucket) else None
        if here is None or there is None or here[0] != there[0]:
            return self.update({new: source.read(old) for old, new in keys.items()})
        root = _bucket(here[0])

        def copy(key: str) -> int:
            old, new = (f"{a}/{b}".lstrip("/") for a, b in ((there[1], key), (here[1], keys[key])))
            found = root._head(old)
            if found is None:
                return root.delete(new)
            with root.translate_errors(new):
                self._library.copy(root.objects, old, new)
            return int(found["size"])

        return sum(_each(copy, keys))

    def _address(self) -> tuple[str, str] | None:
        """URL of the bucket and prefix within it; None where the bucket is unknown."""
        scheme, host = self.url.split("://")[0], self.url.split("/")[2]
        if scheme not in ("s3", "s3a", "gs"):
            return None
        prefix = urllib.parse.unquote("/".join(self.url.split("/")[3:]))
        return f"{scheme}://{host}", prefix


@functools.lru_cache(maxsize=64)
def _bucket(url: str) -> Bucket:
    return Bucket(url)


def _each(function: Any, keys: Iterable[str]) -> list[Any]:
    listed = list(keys)
    if len(listed) < 2:
        return [function(key) for key in listed]
    with concurrent.futures.ThreadPoolExecutor(min(AT_ONCE, len(listed))) as pool:
        return list(pool.map(function, listed))


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _version(entry: Mapping[str, Any]) -> str:
    """ETag or time; "" where the server says neither, which the library takes as 1970."""
    if entry.get("e_tag"):
        return str(entry["e_tag"])
    changed = entry["last_modified"]
    return changed.isoformat() if changed.timestamp() else ""
