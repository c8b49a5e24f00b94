"""Removes users, passwords and signatures from URLs in texts."""

from __future__ import annotations

import os
import re

from .errors import InputError

# a URL that was a pathlib.Path has lost a slash
SCHEME = r"([A-Za-z][\w+.-]+:/{1,2})"
URL = re.compile(SCHEME + r"""([^\s'"<>]*[^\s'"<>:,;.)])""")
# a password may hold any character; host:port is not user:password
USER = re.compile(r"[^/?#@]*@|[^/?#@:]*:(?!\d{1,5}(?:[/?#]|$)).*@")
HIDDEN = "***"


def redacted(text: str) -> str:
    """Return the text with *** for what may be a secret in a URL: before @, and after ? and #."""
    return URL.sub(lambda found: found[1] + _address(found[2]), text)


def _address(rest: str) -> str:
    rest = USER.sub(f"{HIDDEN}@", rest, count=1) if USER.match(rest) else rest
    place, mark = re.fullmatch(r"([^?#]*)([?#]?).*", rest, re.DOTALL).groups()  # type: ignore[union-attr]
    return place + mark + HIDDEN * bool(mark)


def check(path: str | os.PathLike[str]) -> None:
    """Refuse a URL with credentials: it would be stored with the results.

    Raises
    ------
    ValueError
        The message does not repeat them.
    """
    found = re.fullmatch(SCHEME + "(.*)", os.fspath(path), re.DOTALL)
    if found and _address(found[2]) != found[2]:
        raise InputError(
            f"{found[1]}{_address(found[2])}: expected a path or URL without user, password and "
            "query; credentials come from the environment"
        )
