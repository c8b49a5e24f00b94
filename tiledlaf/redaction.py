"""Texts that may have a URL in them, without its user, password and signature."""

from __future__ import annotations

import os
import re

URL = re.compile(r"""([A-Za-z][\w+.-]+:/{1,2})([^\s'"<>]*[^\s'"<>:,;.)])""")
# a pathlib.Path of a URL has lost a slash; a password may hold any sign; host:port is none
USER = re.compile(r"[^/?#@]*@|[^/?#@:]*:(?!\d{1,5}(?:[/?#]|$)).*@")
HIDDEN = "***"


def redacted(text: str) -> str:
    """The text with *** for what may be a secret in a URL: before @, and after ? and #."""
    return URL.sub(lambda found: found[1] + _address(found[2]), text)


def _address(rest: str) -> str:
    rest = USER.sub(f"{HIDDEN}@", rest, count=1) if USER.match(rest) else rest
    place, mark = re.fullmatch(r"([^?#]*)([?#]?).*", rest, re.DOTALL).groups()  # type: ignore[union-attr]
    return place + mark + HIDDEN * bool(mark)


def check(path: str | os.PathLike[str]) -> None:
    """Refuse a URL with credentials in it: it would be kept with the results.

    Raises
    ------
    ValueError
        Does not repeat them.
    """
    text = os.fspath(path)
    if redacted(text) != text:
        raise ValueError(
            f"{redacted(text)}: expected a path or URL without user, password and query; "
            "credentials come from the environment"
        )
