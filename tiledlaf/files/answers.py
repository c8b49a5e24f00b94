"""What the answers of object stores and web servers mean."""

from __future__ import annotations

import errno
import re
import urllib.error
import urllib.request

from ..errors import Outage, Shown
from . import texts

ANSWERS, AWAY = "the object store answers", "the object store cannot be reached"
BUSY = (408, 429, 500, 502, 503, 504)
FOR_NOW = (AWAY, *(f"{ANSWERS} {code}" for code in BUSY))
METADATA = ("zarr.json", ".zgroup", ".zarray", ".zattrs")


class Unanswered(Shown, OSError):
    """An object store did not fulfill a request, even after retries."""


class Unreachable(Outage, Unanswered):
    """An object store that is away or busy."""


class Refused(Unanswered):
    """An object store answered 403: it may not be read, or is not there and this is not said."""


class NoRanges(Unanswered):
    """A web server sends objects only whole."""


class NoLength(Unanswered):
    """A web server does not say how long an object is, which obstore insists on."""


def is_metadata(key: str) -> bool:
    """Whether a key is that of metadata of Zarr."""
    return key.rsplit("/", 1)[-1] in (*METADATA, ".zmetadata")


def is_zarr(key: str, data: bytes) -> bool:
    """Whether bytes are metadata of Zarr; web servers may send anything for a missing file."""
    try:
        found = texts.parsed(data)
    except ValueError:
        return False
    named = key.endswith(".zattrs") or (key.endswith(".zmetadata") and "metadata" in found)
    return isinstance(found, dict) and (named or "zarr_format" in found)


def is_page(data: bytes) -> bool:
    """Whether bytes are a web page."""
    start = data[:1000].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return (
        re.match(rb"(<\?xml[^>]*>\s*|<!--.*?-->\s*)*<(!doctype\s+html|html[\s>])", start, re.S)
        is not None
    )


def error(kind: str, text: str) -> type[Unanswered]:
    """Which error an error of the library is."""
    if kind == "PermissionDeniedError" or "status code: 403" in text:
        code = re.search(r"<Code>(\w+)</Code>", text)  # others are about keys and clocks
        return Refused if code is None or code[1] in ("AccessDenied", "Forbidden") else Unanswered
    if "Content-Length Header missing" in text:
        return NoLength
    # a server may also fail on a range that it does not know, such as one counted from the end
    unknown = re.search(r"performing GET .*status code: (400|405|416|501)\b", text)
    if kind == "NotSupportedError" or unknown:
        return NoRanges
    return Unreachable if reason(kind, text).startswith(FOR_NOW) else Unanswered


def reason(kind: str, text: str) -> str:
    """What is known about an error, in our own words: servers repeat keys and signatures."""
    status = re.search(r"status code: (\d{3})", text)
    code = re.search(r"<Code>([A-Za-z]{1,40})</Code>", text)
    if "169.254.169.254" in text or kind == "UnauthenticatedError":
        return "no credentials for the object store were found in the environment"
    if status:
        return f"{ANSWERS} {status[1]}" + (f" {code[1]}" if code else "")
    if "error sending request" in text:
        return AWAY
    missing = re.search(r"\w+ must be specified", text)
    if missing:
        return f"the object store's {missing[0]} in the environment"
    return f"the object store failed ({kind})"


def without_length(url: str, seconds: float) -> bytes:
    """Bytes that a web server sends without saying how many.

    Raises
    ------
    OSError
        Names the URL, with the server's answer.
    """
    try:
        with urllib.request.urlopen(url, timeout=seconds) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        kind = Refused if error.code == 403 else Unreachable if error.code in BUSY else Unanswered
        found: type[OSError] = FileNotFoundError if error.code == 404 else kind
        raise found(errno.EIO, f"{ANSWERS} {error.code}", url) from None
    except (OSError, ValueError) as error:
        raise Unreachable(errno.EIO, f"{AWAY}, {error}", url) from None
