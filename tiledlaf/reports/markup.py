"""HTML that is escaped unless it was made here: text of files cannot become markup."""

from __future__ import annotations

import html
from collections.abc import Iterable

from ..redaction import plain

VOID = ("img", "br")


class Html(str):
    """Text that is HTML already."""


def element(name: str, *content: str, **attributes: str) -> Html:
    """An element with its content; all but `Html` is escaped.

    Examples
    --------
    >>> element("p", "1 < 2 ", element("a", "next", href="b.html", id='"x"'))
    '<p>1 &lt; 2 <a href="b.html" id="&quot;x&quot;">next</a></p>'
    """
    given = "".join(f' {key}="{html.escape(plain(value))}"' for key, value in attributes.items())
    end = "" if name in VOID else f"</{name}>"
    return Html(f"<{name}{given}>{joined(content)}{end}")


def joined(parts: Iterable[str], separator: str = "") -> Html:
    """Text and elements one after the other."""
    return Html(separator.join(p if isinstance(p, Html) else html.escape(plain(p)) for p in parts))
