"""One request over HTTP and the place for its reply: all that an application sees of a connection."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Protocol

from holdfast.serve.replies import JSON, error_body

if TYPE_CHECKING:
    from holdfast.serve.http import Connection


class Application(Protocol):
    """What answers: called once per complete request; it calls `Exchange.send` once, then or later, on the loop's thread."""

    def __call__(self, exchange: Exchange) -> None: ...


class Exchange:
    """One request and the place for its reply."""

    __slots__ = (
        "_connection", "authorization", "binary_header_length", "body", "close", "content_encoding", "content_type", "host",
        "method", "origin", "path", "received", "reply",
    )  # fmt: skip

    def __init__(self, connection: Connection, method: bytes, path: bytes) -> None:
        self._connection = connection
        self.method = method
        self.path = path
        self.body: bytes | bytearray = b""
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
        """Reply. The bytes leave when every earlier request has its reply. `extra` is whole header lines."""
        self._connection.reply(self, status, body, content_type, extra)

    def refuse(
        self, status: int, code: str, what: str, reasons: list[str] | None = None, extra: bytes = b""
    ) -> None:
        """Reply with an error in the one shape that all errors have."""
        self.send(status, error_body(code, what, reasons), JSON, extra)
