"""A web server on the loopback that serves a folder, and fails, stalls or truncates on command."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal

Trouble = Literal["fail", "stall", "truncate", "flip", "none"]


@dataclass
class UnreliableServer:
    """What it does and what it was asked."""

    url: str
    troubles: dict[str, list[Trouble]] = field(default_factory=dict)
    """By the end of a path: what happens at its first GET, its second, …; the last one stays."""

    served: Counter[str] = field(default_factory=Counter)
    """GETs by path."""

    order: list[str] = field(default_factory=list)
    """Paths of GETs, as they came."""

    pause_s: float = 0.0
    """Delay before each answer to a GET."""

    def next_trouble(self, path: str) -> Trouble:
        """What happens now to this path."""
        self.served[path] += 1
        self.order.append(path)
        for ending, troubles in self.troubles.items():
            if path.endswith(ending):
                return troubles.pop(0) if len(troubles) > 1 else troubles[0]
        return "none"


class _Handler(SimpleHTTPRequestHandler):
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
        if trouble == "fail" or not path.is_file():
            self.send_error(503 if path.is_file() else 404)
            return
        content = bytearray(path.read_bytes())
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if trouble == "flip":
            content[len(content) // 2] ^= 1
        if trouble in ("stall", "truncate"):
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            time.sleep(3 if trouble == "stall" else 0)
            self.close_connection = True
            return
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def serve(folder: Path) -> Iterator[UnreliableServer]:
    """The folder's files at the server's URL, as long as the block lasts."""
    state = UnreliableServer(url="")
    handler = partial(_Handler, server_state=state, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        state.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()
