"""What the answers of object stores and web servers mean."""

from __future__ import annotations

import json
import re

METADATA = ("zarr.json", ".zgroup", ".zarray", ".zattrs")


class Unanswered(OSError):
    """An object store did not fulfill a request, even after retries."""


class Refused(Unanswered):
    """An object store answered 403: it may not be read, or is not there and this is not said."""


class NoRanges(Unanswered):
    """A web server sends objects only whole."""


def is_metadata(key: str) -> bool:
    """Whether a key is that of metadata of Zarr."""
    return key.rsplit("/", 1)[-1] in (*METADATA, ".zmetadata")


def is_zarr(key: str, data: bytes) -> bool:
    """Whether bytes are metadata of Zarr; web servers may send anything for a missing file."""
    try:
        found = json.loads(data)
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
    if kind == "PermissionDeniedError":
        code = re.search(r"<Code>(\w+)</Code>", text)  # others are about keys and clocks
        return Refused if code is None or code[1] in ("AccessDenied", "Forbidden") else Unanswered
    # a server may also fail on a range that it does not know, such as one counted from the end
    unknown = re.search(r"performing GET .*status code: (400|405|416|501)\b", text)
    return NoRanges if kind == "NotSupportedError" or unknown else Unanswered


def reason(kind: str, text: str) -> str:
    """What is known about an error, in our own words: servers repeat keys and signatures."""
    status = re.search(r"status code: (\d{3})", text)
    code = re.search(r"<Code>([A-Za-z]{1,40})</Code>", text)
    if "169.254.169.254" in text or kind == "UnauthenticatedError":
        return "no credentials for the object store were found in the environment"
    if status:
        return f"the object store answers {status[1]}" + (f" {code[1]}" if code else "")
    if "error sending request" in text:
        return "the object store cannot be reached"
    missing = re.search(r"\w+ must be specified", text)
    if missing:
        return f"the object store's {missing[0]} in the environment"
    return f"the object store failed ({kind})"
