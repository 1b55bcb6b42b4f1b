"""A hook that listens on a port of its own, and behaves as badly as a test asks."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

YES = b'{"allow": true, "reason": "no freeze"}'


@dataclass
class HookServer:
    """What was sent to it, and what it answers: status, headers, body, after so many seconds."""

    status: int = 200
    body: bytes = YES
    headers: dict[str, str] = field(default_factory=dict)
    pause_seconds: float = 0.0
    trickles: bool = False
    taken: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    _server: ThreadingHTTPServer | None = None

    def start(self) -> str:
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.taken.append((dict(self.headers), body))
                hook.released.wait(hook.pause_seconds)
                self.send_response(hook.status)
                for name, value in hook.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(hook.body)))
                self.end_headers()
                if not hook.trickles:
                    self.wfile.write(hook.body)
                    return
                for byte in hook.body:
                    self.wfile.write(bytes([byte]))
                    time.sleep(0.1)

            def log_message(self, *_: Any) -> None:
                pass

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except OSError:
                    self.close_connection = True  # the one that requested has gone, as these tests mean it to

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(
            target=self._server.serve_forever, daemon=True, kwargs={"poll_interval": 0.02}
        ).start()
        return f"http://127.0.0.1:{self._server.server_address[1]}/hook"

    def stop(self) -> None:
        self.released.set()
        if self._server is None:
            return
        self._server.shutdown()
        self._server.server_close()

    def reports(self, allow: bool, reason: str) -> None:
        self.body = json.dumps({"allow": allow, "reason": reason}).encode()

    def documents(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.taken]


@pytest.fixture
def hook_server() -> Iterator[HookServer]:
    """A webhook on a port of its own; `start()` gives its URL."""
    server = HookServer()
    yield server
    server.stop()
