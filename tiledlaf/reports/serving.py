"""A server of pages on loopback: it answers with what it is given, by a token, and knows no files.

Only who has the token gets an answer, and only programs of this machine can ask. Another page in
the same browser gets none: it lacks the token, and no answer may be read across origins. Another
user of the machine sees what a browser is started with, as in `ps`: that is a ticket, which opens
once. Connections without the token make room for others, so that they keep nobody out.
"""

from __future__ import annotations

import contextlib
import hmac
import mimetypes
import os
import re
import secrets
import socket
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..redaction import shown

HOST = "127.0.0.1"
PING = 10.0  # seconds between signs of life on an open stream
LARGEST = 2**24  # bytes of what a client sends
STRANGERS = 64  # connections without the token that are open at a time
USED = "what opened the browser was used more than once: unless that was you, end this with Ctrl-C"
# neither pages nor scripts of others, and no request to anywhere else
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self' data: blob:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
NUMBER = re.compile("[0-9]{1,9}")
Answer = tuple[bytes, str]
Data = Callable[[str], Answer | None]

mimetypes.add_type("application/wasm", ".wasm")
mimetypes.add_type("text/javascript", ".js")


class Site:
    """What is served: the files of a client, the page that it begins with, and data.

    Parameters
    ----------
    client : files by name; index.html is the page
    data : bytes and type of what is below data/, or None
    begin : what stands after # in the address of the page, given the URL of data/
    complain : is told of requests that failed
    """

    def __init__(
        self,
        client: Mapping[str, Path],
        data: Data,
        begin: Callable[[str], str],
        complain: Callable[[str], None],
    ) -> None:
        self.client, self.data, self.begin, self.complain = client, data, begin, complain
        self.token = secrets.token_urlsafe(24)
        self._ticket, self._left = secrets.token_urlsafe(24), True
        self._lock = threading.Lock()
        self.ended = threading.Event()
        self.port = 0

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return f"http://{HOST}:{self.port}"

    @property
    def url(self) -> str:
        """Where a browser begins."""
        return f"{self.origin}/{self.token}/"

    @property
    def once(self) -> str:
        """The same for one that this program starts; other users see it, and it opens once."""
        return f"{self.origin}/{self._ticket}/"

    def opens(self, given: str) -> bool:
        """Whether this is the token."""
        return hmac.compare_digest(given.encode(), self.token.encode())

    def takes(self, given: str) -> bool:
        """Whether this is the ticket, for the first time."""
        if not hmac.compare_digest(given.encode(), self._ticket.encode()):
            return False
        with self._lock:
            left, self._left = self._left, False
        if not left:
            self.complain(USED)
        return left

    @property
    def data_url(self) -> str:
        """The URL of the data."""
        return f"{self.origin}/data/{self.token}"


@contextmanager
def serving(site: Site, port: int = 0) -> Iterator[Site]:
    """Serve in threads of this process until the block ends; yields the site, which has its port.

    Raises
    ------
    ValueError
        If the port is in use.
    """
    try:
        server = _Server((HOST, port), _handler(site))
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"`port` {port}: expected a free one, got {why}") from None
    site.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    thread.start()
    try:
        yield site
    finally:
        site.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = os.name == "posix"  # elsewhere others could take the port meanwhile
    request_queue_size = STRANGERS

    def __init__(self, *given: Any) -> None:
        self._strangers: dict[socket.socket, None] = {}  # oldest first
        self._lock = threading.Lock()
        super().__init__(*given)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Begin with a connection; of those without the token, the oldest makes room for it."""
        with self._lock:
            self._strangers[request] = None
            if len(self._strangers) > STRANGERS:
                oldest = next(iter(self._strangers))
                del self._strangers[oldest]
                with contextlib.suppress(OSError):  # it has hung up
                    oldest.shutdown(socket.SHUT_RDWR)
        super().process_request(request, client_address)

    def know(self, request: Any) -> None:
        """Count a connection no longer among those without the token."""
        with self._lock:
            self._strangers.pop(request, None)

    def shutdown_request(self, request: Any) -> None:
        """End a connection."""
        self.know(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that hangs up is no error; what failed was said where it failed."""


def _handler(site: Site) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        pass

    Handler.site = site
    return Handler


class _Handler(BaseHTTPRequestHandler):
    site: Site
    server: _Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "tiledlaf", ""
    timeout = 60

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: addresses hold the token."""

    def do_GET(self) -> None:
        """Answer with a page, a file of the client, or data."""
        self._answer(self._get)

    def do_HEAD(self) -> None:
        """The same without a body."""
        self._answer(self._get)

    def do_POST(self) -> None:
        """Take what the client says of its state, and forget it."""
        self._answer(self._post)

    def _answer(self, how: Callable[[list[str]], None]) -> None:
        # a name that somebody lets point to this machine is not ours
        if self.headers.get("Host") not in (self._address, f"localhost:{self.site.port}"):
            self._refuse(403)
            return
        path = self.path.partition("?")[0]
        try:
            steps = [urllib.parse.unquote(step, errors="strict") for step in path.split("/")[1:]]
            how(steps)
        except (ConnectionError, TimeoutError):
            self.close_connection = True
        except UnicodeDecodeError:
            self._refuse(400)
        except Exception as error:  # of pixels, of any kind: the page shows the others
            self.site.complain(shown(f"{type(error).__name__}: {error}"))
            self._refuse(500)

    @property
    def _address(self) -> str:
        return f"{HOST}:{self.site.port}"

    def _allowed(self, given: str) -> bool:
        if not self.site.opens(given):
            return False
        self.server.know(self.connection)
        return True

    def _get(self, steps: list[str]) -> None:
        first, rest = steps[0], steps[1:]
        if steps == ["favicon.ico"]:  # which every browser asks for
            self.send_response(204)
            self._say({}, None)
        elif rest == [""] and (self._allowed(first) or self.site.takes(first)):
            self.send_response(302)
            self._say(
                {"Location": f"/v/{self.site.token}/#{self.site.begin(self.site.data_url)}"}, 0
            )
        elif len(rest) < 1 or not self._allowed(rest[0]):
            self._refuse(404)
        elif first == "v" and len(rest) == 2 and (rest[1] or "index.html") in self.site.client:
            path = self.site.client[rest[1] or "index.html"]
            kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
            self._send((path.read_bytes(), kind))
        elif first == "events" and len(rest) == 1:
            self._stream()
        elif first == "data":
            found = self.site.data("/".join(rest[1:]))
            if found is None:
                self._refuse(404)
            else:
                self._send(found)
        else:
            self._refuse(404)

    def _post(self, steps: list[str]) -> None:
        length = self.headers.get("Content-Length", "")
        if len(steps) < 2 or not self._allowed(steps[1]) or not NUMBER.fullmatch(length):
            self._refuse(404)
        elif int(length) > LARGEST:
            self._refuse(413)
        else:
            self.rfile.read(int(length))
            self._send((b'{"g": ""}', "application/json"))

    def _send(self, found: Answer) -> None:
        data, kind = found
        self.send_response(200)
        self._say({"Content-Type": kind}, len(data))
        if self.command != "HEAD":
            self.wfile.write(data)

    def _refuse(self, code: int) -> None:
        self.close_connection = True  # what was sent may not have been read
        self.send_response(code)
        self._say({}, 0)

    def _say(self, headers: Mapping[str, str], length: int | None) -> None:
        common = {
            "Cache-Control": "no-store",
            "Content-Security-Policy": POLICY,
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        if length is not None:
            common["Content-Length"] = str(length)
        if self.close_connection:
            common["Connection"] = "close"
        for name, value in (common | dict(headers)).items():
            self.send_header(name, value)
        self.end_headers()

    def _stream(self) -> None:
        """An open stream without events, by which the client sees that the server is there."""
        self.close_connection = True
        self.send_response(200)
        self._say({"Content-Type": "text/event-stream"}, None)
        while True:
            self.wfile.write(b": here\n\n")
            self.wfile.flush()
            if self.site.ended.wait(PING):
                return
