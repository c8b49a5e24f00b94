"""What of a text may be shown: no secrets of URLs, and nothing that steers a terminal or a page.

File names, class names, exceptions of libraries and answers of servers are others' texts. Errors
and warnings of this program pass through `shown` when they are made, as do logs and all lines that
the command prints on stderr. Results, which repeat no library, pass through `plain`: a class may
be called `token` there. All work on texts grows with their length alone, as files hold any.
"""

from __future__ import annotations

import functools
import logging
import os
import re
from typing import Any

# a URL that was a pathlib.Path has lost a slash
SCHEME = r"([A-Za-z][\w+.-]+:/{1,2})"
# looks back for a scheme: a search for its start would look at each character from each
URL = re.compile(r"""(?<=[\w+.-]{2})(:/{1,2})([^\s'"<>]*[^\s'"<>:,;.)])""")
# a password may hold any character; host:port is not user:password
USER = re.compile(r"[^/?#@]*@|[^/?#@:]*:(?!\d{1,5}(?:[/?#]|$)).*@")
HIDDEN = "***"
# controls, marks that change the direction of writing, invisible characters, half characters
CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ufffe\uffff\ud800-\udfff\U000e0000-\U000e007f]"
)


# values of headers and queries outside of URLs, as libraries repeat them
KEY = re.compile(r"""(?<![\w-])([\w-]++)["']?\s*+[=:]\s*+["']?""")
VALUE = re.compile(r"""(?i)(?:(?:bearer|basic)\s++)?[^\s"',;&)]++""")
PRIVATE_KEY = re.compile(  # glands secrete: secretory, secretion, secretin, secretase
    r"""(?ix)x-amz-|secret(?!(?-i:e|i[no]|o|ase))|(?:signature|(?<![^\W_])sig|token|password|passwd
    |authorization|api[_-]?key|(?:account|access)[_-]?key(?:[_-]?id)?)$"""
)
PRIVATE = re.compile(r"(?i)(secret|token|password|passwd|_key|_key_id|credentials?)$")
SHORTEST = 8  # characters of a secret that is looked for anywhere


def redacted(text: str) -> str:
    """Return the text with *** for what may be a secret.

    Such are parts of URLs before @, and after ? and #; values of headers and keys, such as
    ``sig=...``; and values of variables in the environment such as AWS_SECRET_ACCESS_KEY.
    """
    return _without_values(_without_known(text))


def shown(text: str) -> str:
    r"""Return the text as one line without secrets, and with control characters as \x1b.

    Examples
    --------
    >>> from tiledlaf.redaction import shown
    >>> print(shown("tumor\x1b[2J\n\u202egreen, s3://key:word@host/a"))
    tumor\x1b[2J \u202egreen, s3://***@host/a
    """
    return _without_values(plain(text))


def plain(text: str) -> str:
    """A result as `shown`, but for values of keys: ``token: 3 pixels`` is said of a class."""
    return _without_known(CONTROL.sub(_visible, text))


def _visible(found: re.Match[str]) -> str:
    return " " if found[0].isspace() else found[0].encode("unicode_escape").decode()


def _without_known(text: str) -> str:
    """Without secrets of the environment and of URLs."""
    for name, value in os.environ.items():
        if len(value) >= SHORTEST and value in text and PRIVATE.search(name):
            text = text.replace(value, HIDDEN)
    return URL.sub(lambda found: found[1] + _address(found[2]), text)


def _without_values(text: str) -> str:
    parts, end = [], 0
    for found in KEY.finditer(text):
        if found.start() >= end and PRIVATE_KEY.search(found[1]):
            value = VALUE.match(text, found.end())
            if value:
                parts += [text[end : found.end()], HIDDEN]
                end = value.end()
    return "".join(parts) + text[end:]


def lines_shown(text: str) -> str:
    """Several lines, each as `shown`: of tracebacks and logs of libraries."""
    return "\n".join(map(shown, text.splitlines()))


@functools.cache
def guard_logs() -> None:
    """Let whatever this process logs from now on pass through `shown`, tracebacks as well."""
    usual, form = logging.getLogRecordFactory(), logging.Formatter()

    def made(*arguments: Any, **options: Any) -> logging.LogRecord:
        record = usual(*arguments, **options)
        record.msg, record.args = lines_shown(_message(record)), ()
        if record.exc_info and record.exc_info[0]:
            record.exc_text = lines_shown(form.formatException(record.exc_info))
        return record

    logging.setLogRecordFactory(made)


def _message(record: logging.LogRecord) -> str:
    """What a record says; who logs something is never the one to get an error for it."""
    for text in (record.getMessage, lambda: repr((record.msg, record.args))):
        try:
            return str(text())
        except Exception as error:  # values that do not fit, or whose texts fail
            why = type(error).__name__
    return f"a message of {record.name} that cannot be shown, {why}"


def each_plain(value: Any) -> Any:
    """The same lists and dictionaries with each text as `plain`."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, dict):
        return {each_plain(key): each_plain(one) for key, one in value.items()}
    return [each_plain(one) for one in value] if isinstance(value, list | tuple) else value


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
    from .errors import InputError  # which show their texts by this module

    found = re.fullmatch(SCHEME + "(.*)", os.fspath(path), re.DOTALL)
    if found and _address(found[2]) != found[2]:
        raise InputError(
            f"{found[1]}{_address(found[2])}: expected a path or URL without user, password and "
            "query; credentials come from the environment"
        )
