"""Web servers on the loopback that fail, stall or truncate on command.

One serves a folder; the other stands in front of a server, and passes on what it answers.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

Trouble = Literal["fail", "stall", "truncate", "flip", "deny", "none"]

_STALL_S = 3.0


@dataclass
class UnreliableServer:
    """What it does and what it was asked."""

    url: str
    troubles: dict[str, list[Trouble]] = field(default_factory=dict)
    """By the end of a path: what happens at its first GET, its second, …; the last one stays."""

    head_troubles: dict[str, list[Trouble]] = field(default_factory=dict)
    """The same of HEAD, in front of another server."""

    served: Counter[str] = field(default_factory=Counter)
    """GETs by path."""

    order: list[str] = field(default_factory=list)
    """Paths of GETs, as they came."""

    pause_s: float = 0.0
    """Delay before each answer to a GET."""

    def next_trouble(self, path: str) -> Trouble:
        """What happens now to a GET of this path."""
        self.served[path] += 1
        self.order.append(path)
        return _next_of(self.troubles, path)

    def next_head_trouble(self, path: str) -> Trouble:
        """What happens now to a HEAD of this path."""
        return _next_of(self.head_troubles, path)


def _next_of(planned: dict[str, list[Trouble]], path: str) -> Trouble:
    for ending, troubles in planned.items():
        if path.endswith(ending):
            return troubles.pop(0) if len(troubles) > 1 else troubles[0]
    return "none"


def _send_body(handler: BaseHTTPRequestHandler, content: bytes, trouble: Trouble) -> None:
    """Send the content after headers that promised it, as the trouble lets it come."""
    if trouble in ("stall", "truncate"):
        handler.wfile.write(content[: len(content) // 2])
        handler.wfile.flush()
        time.sleep(_STALL_S if trouble == "stall" else 0)
        handler.close_connection = True
        return
    if trouble == "flip":
        middle = len(content) // 2
        content = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    handler.wfile.write(content)


class _Folder(SimpleHTTPRequestHandler):
    def __init__(self, *arguments: object, server_state: UnreliableServer, directory: str) -> None:
        self._state = server_state
        super().__init__(*arguments, directory=directory)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        # A client that was killed or has given up is none of the server's business.
        with suppress(ConnectionError):
            self._answer()

    def _answer(self) -> None:
        time.sleep(self._state.pause_s)
        trouble = self._state.next_trouble(self.path.lstrip("/"))
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
        elif trouble in ("fail", "deny"):
            self.send_error(503 if trouble == "fail" else 403)
        else:
            content = path.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            _send_body(self, content, trouble)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Front(BaseHTTPRequestHandler):
    def __init__(self, *arguments: object, server_state: UnreliableServer, behind: str) -> None:
        self._state = server_state
        self._behind = behind
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        time.sleep(self._state.pause_s)
        self._answer(self._state.next_trouble)

    def do_HEAD(self) -> None:
        self._answer(self._state.next_head_trouble)

    def _answer(self, next_trouble: Callable[[str], Trouble]) -> None:
        trouble = next_trouble(urlsplit(self.path).path.lstrip("/"))
        with suppress(ConnectionError):
            if trouble in ("fail", "deny"):
                self.send_error(503 if trouble == "fail" else 403)
            elif self.command == "HEAD" and trouble == "stall":
                time.sleep(_STALL_S)
                self.close_connection = True
            else:
                self._pass_on(trouble)

    def _pass_on(self, trouble: Trouble) -> None:
        connection = HTTPConnection(self._behind)
        connection.request(self.command, self.path, headers=dict(self.headers))
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "date", "server", "transfer-encoding"):
                self.send_header(name, value)
        self.end_headers()
        _send_body(self, content, trouble)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serve(folder: Path) -> Iterator[UnreliableServer]:
    """The folder's files at the server's URL, as long as the block lasts."""
    state = UnreliableServer(url="")
    with _running(partial(_Folder, server_state=state, directory=str(folder))) as state.url:
        yield state


@contextmanager
def serve_in_front_of(url: str) -> Iterator[UnreliableServer]:
    """What the server at this URL answers to GET and HEAD, as long as the block lasts."""
    state = UnreliableServer(url="")
    with _running(partial(_Front, server_state=state, behind=urlsplit(url).netloc)) as state.url:
        yield state


@contextmanager
def _running(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
