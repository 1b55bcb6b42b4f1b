"""A server asked over HTTP: what it says of itself, and which version answers."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from holdfast.store.serving.servers import Server

TIMEOUT_SECONDS: Final = 2.0
"""How long one answer of a server is waited for."""
FAILURES: Final = (OSError, http.client.HTTPException, ValueError)
"""What `Asking` raises of a server that does not answer, or answers something else than was asked for."""

_LONGEST_ANSWER_BYTES: Final = 1024 * 1024
_PROBE: Final = json.dumps({"inputs": [], "parameters": {"probe": True}})
_HEADERS: Final = {"Content-Type": "application/json"}

Answer = TypeVar("Answer")


class Asking:
    """A connection to one server, opened with the first question. After a failure only `close` is of use.

    `seconds` is how long one answer is waited for.
    """

    def __init__(self, server: Server, seconds: float = TIMEOUT_SECONDS) -> None:
        address = urlsplit(server.address)
        self._model = server.model
        self._connection = http.client.HTTPConnection(
            address.hostname or "", address.port or 80, timeout=seconds
        )

    def __enter__(self) -> Asking:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def status(self) -> dict[str, Any]:
        """What the server says of itself."""
        return self._ask("GET", "/holdfast/status")

    def probe(self, version: str | None = None) -> dict[str, Any]:
        """The answer to an inference request that is no prediction: by the version that the server's plan intends, or by
        `version`, which need not have any traffic.
        """
        pinned = "" if version is None else f"/versions/{version}"
        return self._ask("POST", f"/v2/models/{self._model}{pinned}/infer", _PROBE)

    def infer(self, body: str) -> dict[str, Any]:
        """The answer to the request `body`."""
        return self._ask("POST", f"/v2/models/{self._model}/infer", body)

    def close(self) -> None:
        """Close the connection; the next question opens it anew."""
        self._connection.close()

    def _ask(self, method: str, path: str, body: str | None = None) -> dict[str, Any]:
        """`ValueError` unless the answer is a JSON object with status 200."""
        self._connection.request(method, path, body, _HEADERS)
        response = self._connection.getresponse()
        text = response.read(_LONGEST_ANSWER_BYTES)
        if response.status != 200:
            raise ValueError(f"answered {path} with status {response.status}")
        match json.loads(text):
            case dict() as document:
                return document
            case _:
                raise ValueError(f"answered {path} with something else than a JSON object")


def ask_all(
    asked: Sequence[Server], question: Callable[[Server], Answer], seconds: float
) -> dict[str, Answer]:
    """What each of `asked` answers to `question`, by its name; all are asked at once, within `seconds` together.

    Whoever is late, or whose question raised, is left out. A late one goes on being asked in the background, and changes
    nothing of what was handed back.
    """
    found: dict[str, Answer] = {}

    def ask(server: Server) -> None:
        found[server.server] = question(server)

    threads = [threading.Thread(target=ask, args=(server,), daemon=True) for server in asked]
    until = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return dict(found)
