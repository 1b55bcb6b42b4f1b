"""Client of an inference server: its status, probes and predictions."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from holdfast.control.http.client import Client
from holdfast.store.serving.servers import Server

TIMEOUT_SECONDS: Final = 2.0
"""How long the client waits for one response of a server."""
FAILURES: Final = (OSError, ValueError)
"""What `ServerClient` raises if a server does not respond, or responds with an error."""

_PROBE: Final = json.dumps({"inputs": [], "parameters": {"probe": True}})

Result = TypeVar("Result")


class StatusError(ValueError):
    """A server responded with `status`, which is not 200."""

    def __init__(self, path: str, status: int) -> None:
        super().__init__(f"{path} responded with status {status}")
        self.status = status


class ServerClient(Client):
    """A connection to one server, opened with the first request. After a failure call `close`.

    Parameters
    ----------
    server
        Its address and model.
    seconds
        How long the client waits for one response.
    """

    def __init__(self, server: Server, seconds: float = TIMEOUT_SECONDS) -> None:
        super().__init__(server.address, timeout_seconds=seconds)
        self._model = server.model

    def status(self) -> dict[str, Any]:
        """Return the status document of the server."""
        return self._document("GET", "/holdfast/status")

    def probe(self, version: str | None = None) -> dict[str, Any]:
        """Send an inference request that is no prediction, and return its response.

        The version that the server's plan intends responds, or `version`, which need not have traffic.
        """
        pinned = "" if version is None else f"/versions/{version}"
        return self._document("POST", f"/v2/models/{self._model}{pinned}/infer", _PROBE)

    def infer(self, body: str, token: str = "") -> dict[str, Any]:
        """Return the response to the inference request `body`. A probe with rows needs the `token` of probes."""
        return self._document("POST", f"/v2/models/{self._model}/infer", body, token)

    def _document(self, method: str, path: str, body: str | None = None, token: str = "") -> dict[str, Any]:
        """Raise `StatusError` unless the status of the response is 200, `ValueError` unless it is a JSON object."""
        headers = {"Authorization": f"Bearer {token}"} if token else None
        response = self.request(method, path, body, headers)
        if response.status != 200:
            raise StatusError(path, response.status)
        return response.document()


def call_all(
    servers: Sequence[Server], call: Callable[[Server], Result], seconds: float
) -> dict[str, Result]:
    """Call every server at once, and return the results by the name of the server.

    A server that is late, or whose call raised, is absent. A late call goes on in the background and changes nothing
    of what was returned.

    Parameters
    ----------
    servers
        Each is called in a thread of its own.
    call
        One call; it may raise.
    seconds
        How long all calls may take together.
    """
    results: dict[str, Result] = {}

    def work(server: Server) -> None:
        results[server.server] = call(server)

    threads = [threading.Thread(target=work, args=(server,), daemon=True) for server in servers]
    until = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return dict(results)
