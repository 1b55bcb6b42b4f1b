"""The one HTTP client of Holdfast: a connection with a bounded wait and a bounded response, without redirects or proxies.

It stands on `http.client`. httpx loads 180 more modules, reads proxies from the environment, and limits each read
instead of the call, so that the deadline of `post` and the bound of a response would be written here all the same.
"""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

RESPONSE_BYTES: Final = 1024 * 1024
"""How much of a response is read by default."""

_JSON: Final = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class Response:
    """The status of a response, its reason phrase, and its body up to the limit of the request."""

    status: int
    reason: str
    body: bytes

    def document(self) -> dict[str, Any]:
        """Return the body as a JSON object; empty for an empty body. Raises `ValueError` for anything else."""
        match json.loads(self.body or b"{}"):
            case dict() as document:
                return document
            case _:
                raise ValueError("the response is no JSON object")


class Client:
    """A connection to the server of one URL. It opens with the first request and stays open for the next.

    After a failure call `close`; the next request then connects again.

    Parameters
    ----------
    url
        http or https, host and port; a path is ignored.
    timeout_seconds
        For connecting and for each read. A peer that sends slowly can exceed it: `holdfast.control.http.post` bounds
        a whole call.
    """

    def __init__(self, url: str, *, timeout_seconds: float) -> None:
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname or "", parts.port, timeout=timeout_seconds)
        # Where http.client makes its socket, before TLS. Not in the stubs; there since Python 3.3.
        self._connection._create_connection = self._connect  # type: ignore[attr-defined]
        self._lock = threading.Lock()
        self._is_aborted = False
        self._socket: socket.socket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def request(
        self,
        method: str,
        target: str,
        body: str | bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        limit_bytes: int = RESPONSE_BYTES,
    ) -> Response:
        """Send a request and return its response, whatever its status.

        Parameters
        ----------
        method, target
            As in the request line: "GET", "/path?query".
        body
            Sent as JSON unless `headers` name another Content-Type.
        limit_bytes
            How much of the body of the response is read at most.

        Raises
        ------
        OSError
            The server cannot be reached, is too slow or does not speak HTTP.
        """
        try:
            self._connection.request(method, target, body, {**_JSON, **(headers or {})})
            if self._connection.sock is not None:
                self._keep(self._connection.sock)  # with TLS it is another socket than was connected
            response = self._connection.getresponse()
            return Response(response.status, response.reason, response.read(limit_bytes))
        except http.client.HTTPException as error:
            raise ConnectionError(str(error) or type(error).__name__) from error

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def abort(self) -> None:
        """End a request that runs in another thread, also one that has not connected yet."""
        with self._lock:
            self._is_aborted = True
            if self._socket is not None:
                with suppress(OSError):  # it may have ended by itself
                    self._socket.shutdown(socket.SHUT_RDWR)

    def _connect(self, address: tuple[str, int], *arguments: Any) -> socket.socket:
        made = socket.create_connection(address, *arguments)
        try:
            self._keep(made)
        except TimeoutError:
            made.close()
            raise
        return made

    def _keep(self, made: socket.socket) -> None:
        """Remember the socket for `abort`. Raises `TimeoutError` if `abort` came first."""
        with self._lock:
            self._socket = made
            if self._is_aborted:
                raise TimeoutError
