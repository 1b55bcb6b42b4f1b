"""One HTTP request and the place for its response: all that an application sees of a connection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol, TypeAlias

from holdfast.serve.http.responses import JSON, error_body

Application: TypeAlias = "Callable[[Exchange], None]"
"""Answers requests. Called once per request; it calls `Exchange.send` once, then or later, on the loop's thread."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is refused with 429. `headers` are complete header lines."""

    what: str
    headers: bytes


class Transport(Protocol):
    """A connection: sends the responses of its exchanges in order."""

    @property
    def address(self) -> str:
        """Return the client's address, of IPv6 its network of 64 bits; empty if it has none."""
        ...

    def reply(self, exchange: Exchange, status: int, body: bytes, content_type: bytes, extra: bytes) -> None:
        """Send the response of `exchange` after those of every earlier request of the connection.

        Parameters
        ----------
        exchange
            The request.
        status, body, content_type, extra
            See `Exchange.send`.
        """
        ...


class Exchange:
    """One request and the place for its response."""

    __slots__ = ("_connection", "body", "close", "headers", "method", "path", "received", "reply")

    def __init__(
        self,
        connection: Transport,
        method: bytes,
        path: bytes,
        headers: Mapping[bytes, bytes],
        body: bytes | bytearray,
    ) -> None:
        self._connection = connection
        self.method = method
        self.path = path
        self.headers = headers
        """Those that are kept, by their names in lower case."""
        self.body = body
        self.close = False
        self.received = perf_counter()
        self.reply: bytes | None = None

    @property
    def address(self) -> str:
        """Return the address of the client, or of its proxy; of IPv6 the network of 64 bits; empty if it has none."""
        return self._connection.address

    def send(self, status: int, body: bytes, content_type: bytes = JSON, extra: bytes = b"") -> None:
        """Send the response. Its bytes leave after those of every earlier request of the connection.

        Parameters
        ----------
        status
            The HTTP status.
        body
            The content.
        content_type
            Its media type.
        extra
            Complete header lines, each with its line end.
        """
        self._connection.reply(self, status, body, content_type, extra)

    def refuse(
        self, status: int, code: str, what: str, reasons: list[str] | None = None, extra: bytes = b""
    ) -> None:
        """Send an error, in the one shape that all errors have.

        Parameters
        ----------
        status, code
            The HTTP status and the error code.
        what
            What happened.
        reasons
            Rows and rules, for a request against the contract.
        extra
            Complete header lines, each with its line end.
        """
        self.send(status, error_body(code, what, reasons), JSON, extra)
