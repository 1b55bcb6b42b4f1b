"""One HTTP request and the place for its response: all that an application sees of a connection."""

from __future__ import annotations

from time import perf_counter
from typing import Protocol

from holdfast.rollout.model.serving_config import ConnectionLimits
from holdfast.serve.http.responses import JSON, error_body


class Application(Protocol):
    """Answers requests. Called once per request; it calls `Exchange.send` once, then or later, on the loop's thread."""

    def __call__(self, exchange: Exchange) -> None:
        """Answer the request of `exchange`."""
        ...


class Transport(Protocol):
    """A connection: sends the responses of its exchanges in order."""

    deadline: float
    """When the listener closes it, in seconds of the event loop's clock."""

    def expire(self) -> None:
        """Close because the deadline has passed."""
        ...

    def close_when_idle(self, *, fresh: bool) -> None:
        """Close if no request is under way; with `fresh`, also if none has begun yet."""
        ...

    def abort(self) -> None:
        """Close at once."""
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


class Acceptor(Protocol):
    """A listener: owns the connections of one server, with their limits."""

    application: Application
    limits: ConnectionLimits
    draining: bool
    held_bytes: int
    date: bytes

    def opened(self, connection: Transport) -> bool:
        """Count a connection. False if there are as many as the limits allow."""
        ...

    def closed(self, connection: Transport) -> None:
        """Remove a connection."""
        ...


class Exchange:
    """One request and the place for its response."""

    __slots__ = (
        "_connection", "accept", "authorization", "binary_header_length", "body", "close", "content_encoding", "content_type",
        "host", "method", "origin", "path", "received", "reply",
    )  # fmt: skip

    def __init__(self, connection: Transport, method: bytes, path: bytes) -> None:
        self._connection = connection
        self.method = method
        self.path = path
        self.body: bytes | bytearray = b""
        self.accept = b""
        self.authorization: bytes | None = None
        self.binary_header_length: bytes | None = None
        self.content_encoding: bytes | None = None
        self.content_type: bytes | None = None
        self.host = b""
        self.origin: bytes | None = None
        self.close = False
        self.received = perf_counter()
        self.reply: bytes | None = None

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
