"""HTTP/1.1 for the inference path: one asyncio protocol on llhttp, with every resource bounded.

The parser is httptools (llhttp in strict mode: it refuses a message with both Content-Length and Transfer-Encoding, two
lengths, bare line feeds and unknown codings; RFC 9112 sections 6.1 and 11.2). What no Python server bounded when we tried
them (slow headers, slow bodies, one huge header, slow readers) is bounded here. Replies leave in the order of the requests.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol, cast

import httptools

from holdfast.rollout.model.serving_config import ConnectionLimits
from holdfast.serve.http.client_address import is_local, network_of
from holdfast.serve.http.exchange import Application, Exchange, Refusal
from holdfast.serve.http.responses import head

_HEADERS: Final = frozenset({
    b"host", b"content-length", b"transfer-encoding", b"expect", b"inference-header-content-length", b"content-encoding",
    b"content-type", b"origin", b"authorization", b"accept",
})  # fmt: skip
"""The headers that are kept."""
_FOREVER: Final = float("inf")
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_RETRY: Final = b"retry-after: 1\r\n"
_LINGER_SECONDS: Final = 2.0


class Connections(Protocol):
    """All connections of a server, as one of them sees them; see `Listener`."""

    limits: ConnectionLimits
    application: Application
    refusal: Callable[[bytes, int], Refusal | None]
    draining: bool
    date: bytes
    held_bytes: int
    shed_bodies: int

    def opened(self, connection: Connection, is_local: bool) -> bool:
        """Count a connection; return False if there is no room for it."""
        ...

    def admits(self, connection: Connection, path: bytes) -> bool:
        """Return True if a connection in reserve may request `path`."""
        ...

    def begun(self, connection: Connection) -> None:
        """Note that a request began."""
        ...

    def idled(self, connection: Connection) -> None:
        """Note that nothing is under way."""
        ...

    def closed(self, connection: Connection) -> None:
        """Remove a connection."""
        ...


class Connection(asyncio.Protocol):
    """One client: bytes in, `Exchange`s to the application, responses out in order."""

    __slots__ = (
        "_body", "_burst", "_discarding", "_header_bytes", "_headers", "_held", "_hosts", "_in_headers", "_in_message",
        "_listener", "_loop", "_owes_continue", "_parser", "_path", "_paused_reading", "_pending", "_raw", "_repeating",
        "_slice", "_transport", "_unread", "_used", "deadline", "is_reserve",
    )  # fmt: skip

    def __init__(self, listener: Connections, loop: asyncio.AbstractEventLoop) -> None:
        self._listener = listener
        self._loop = loop
        self._parser = httptools.HttpRequestParser(self)
        self._pending: deque[Exchange] = deque()
        self._in_message = self._in_headers = self._discarding = self._paused_reading = False
        self._unread = self._used = self._repeating = False
        self._raw = self._slice = self._held = self._burst = 0
        self.deadline = _FOREVER
        self.is_reserve = False
        self._reset_message()

    def _reset_message(self) -> None:
        self._path = b""
        self._body: bytes | bytearray = b""
        self._headers: dict[bytes, bytes] = {}
        self._header_bytes = self._hosts = 0
        self._owes_continue = False

    @property
    def address(self) -> str:
        """Return the client's address, of IPv6 its network of 64 bits; empty if it has none."""
        return network_of(self._transport.get_extra_info("peername"))

    # --- asyncio.Protocol ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the deadline of the first request, or close a connection for which there is no room."""
        self._transport = cast(asyncio.Transport, transport)
        listener = self._listener
        self.deadline = self._loop.time() + listener.limits.receipt_seconds
        if not listener.opened(self, is_local(transport)):
            self._refuse(503, "HF504", f"this server takes {listener.limits.connections} connections at once")
            self._transport.close()  # at once: a refused connection must not keep its descriptor

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop the requests that have no response yet."""
        self._listener.closed(self)
        self._hold(0)
        self._discarding = True
        self._pending.clear()

    def eof_received(self) -> bool:
        """Send the pending responses after the client closed its side."""
        # A client may half-close after its last request; its responses still go out. True leaves our side open for them.
        if self._pending and not self._discarding:
            self._discarding = True
            self._pending[-1].close = True
            return True
        return False

    def pause_writing(self) -> None:
        """Stop reading while the client does not read its responses."""
        self._unread = True
        self._transport.pause_reading()
        self.deadline = self._loop.time() + self._listener.limits.write_seconds

    def resume_writing(self) -> None:
        """Continue to read when the client has read its responses."""
        self._unread = False
        self._transport.resume_reading()
        self._set_idle_deadline()

    def data_received(self, data: bytes) -> None:
        """Parse the received bytes in slices of at most the header limit."""
        self._burst = 0
        limit = self._listener.limits.header_bytes
        if len(data) <= limit:
            self._feed(data)
            return
        view = memoryview(data)
        for begin in range(0, len(data), limit):
            if self._discarding:
                return
            self._feed(view[begin : begin + limit])

    def _feed(self, data: bytes | memoryview) -> None:
        if self._discarding:
            return
        self._slice = len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as found:
            self._decline_upgrade(data[found.args[0] :])
            return
        except httptools.HttpParserError as error:
            self._refuse(400, "HF501", f"this is not an HTTP/1.1 request: {error}")
        if self._in_message and not self._discarding:
            self._bound(len(data))

    def _decline_upgrade(self, rest: bytes | memoryview) -> None:
        """Go on in HTTP/1.1 with the body of a request that offered another protocol (RFC 9110 section 7.8).

        The parser accepted the offer: for it the message ended with its headers. A new parser gets the same framing
        without the offer.
        """
        if self._discarding:
            return
        old, self._parser = self._parser, httptools.HttpRequestParser(self)
        lines = [b"%b / HTTP/1.1" % old.get_method()]
        if b"content-length" in self._headers:
            lines.append(b"content-length: " + self._headers[b"content-length"])
        if b"transfer-encoding" in self._headers:
            lines.append(b"transfer-encoding: chunked")
        if not old.should_keep_alive():
            lines.append(b"connection: close")
        self._repeating = True
        self._parser.feed_data(b"\r\n".join([*lines, b"", b""]))
        self._repeating = False
        self._feed(rest)

    def _bound(self, size: int) -> None:
        """Refuse a message that is incomplete and already too large.

        Slices after its first are counted, whatever they hold.
        """
        limits = self._listener.limits
        self._raw += size
        if self._in_headers:
            if self._raw >= limits.header_bytes:
                self._refuse(431, "HF501", f"headers are longer than {limits.header_bytes} bytes")
            return
        if self._raw > limits.header_bytes + limits.body_bytes:  # a body in tiny chunks is mostly framing
            self._refuse(413, "HF501", f"a request is at most {limits.body_bytes} bytes")
            return
        self._hold(len(self._body))
        if self._listener.held_bytes > limits.held_bytes:
            self._listener.shed_bodies += 1
            self._refuse(503, "HF504", "too many request bodies are being received", _RETRY)

    def _hold(self, size: int) -> None:
        self._listener.held_bytes += size - self._held
        self._held = size

    # --- httptools ----------------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Begin a request."""
        if self._repeating:
            return
        self._in_message = self._in_headers = True
        self._listener.begun(self)
        self._raw = -self._slice  # the slice in which it begins may hold the end of another message
        self._reset_message()
        if not self._pending:
            self.deadline = self._loop.time() + self._listener.limits.receipt_seconds

    def on_url(self, url: bytes) -> None:
        """Append a part of the request's target."""
        if not self._repeating:
            self._path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Store the value of a known header."""
        self._header_bytes += len(name) + len(value) + 4
        name = name.lower()
        if name in _HEADERS and self._in_headers:
            if name == b"transfer-encoding" and name in self._headers:
                value = self._headers[name] + b", " + value  # one list (RFC 9110 section 5.3)
            self._headers[name] = value
            self._hosts += name == b"host"

    def on_headers_complete(self) -> None:
        """Check the headers against the limits of RFC 9112 and of the server."""
        self._in_headers = False
        if self._discarding or self._repeating:
            return
        limits, chunked = self._listener.limits, b"transfer-encoding" in self._headers
        length, expected = self._headers.get(b"content-length"), self._headers.get(b"expect")
        if self._header_bytes + len(self._path) > limits.header_bytes:
            self._refuse(431, "HF501", f"headers are longer than {limits.header_bytes} bytes")
        elif (version := self._parser.get_http_version()) not in ("1.1", "1.0"):
            self._refuse(505, "HF501", f"HTTP/{version} is not spoken here")
        elif self._hosts != 1 and (version == "1.1" or self._hosts > 1):
            self._refuse(400, "HF501", "a request has exactly one Host header")
        elif chunked and self._headers[b"transfer-encoding"].strip().lower() != b"chunked":
            self._refuse(501, "HF501", "the only transfer coding that is decoded is chunked")
        elif chunked and (length is not None or version == "1.0"):
            self._refuse(400, "HF501", "a request has a Content-Length or a Transfer-Encoding, not both")
        elif length is not None and int(length) > limits.body_bytes:
            self._refuse(413, "HF501", f"a body is at most {limits.body_bytes} bytes")
        elif self.is_reserve and not self._listener.admits(self, self._path):
            self._refuse(503, "HF504", f"this server takes {limits.connections} connections at once", _RETRY)
        elif length is not None and (refusal := self._listener.refusal(self._path, int(length))) is not None:
            self._refuse(429, "HF504", refusal.what, refusal.headers)
        elif expected is not None:
            if expected.lower() != b"100-continue":
                self._refuse(417, "HF501", "the only expectation that is met is 100-continue")
            elif self._pending:
                self._owes_continue = True  # it must not overtake a reply
            else:
                self._transport.write(_CONTINUE)

    def on_body(self, body: bytes) -> None:
        """Append a part of the body, up to the limit."""
        if self._discarding:
            return
        if not self._body:
            self._body = body
            return
        if type(self._body) is bytes:
            self._body = bytearray(self._body)
        self._body += body
        if len(self._body) > self._listener.limits.body_bytes:
            self._refuse(413, "HF501", f"a body is at most {self._listener.limits.body_bytes} bytes")

    def on_message_complete(self) -> None:
        """Queue the complete request."""
        tunnel = False
        if self._parser.should_upgrade():
            tunnel = self._parser.get_method() == b"CONNECT"
            if not tunnel:
                return  # `_decline_upgrade` reads on
        self._in_message = False
        self._used = True
        if self._discarding:
            return
        if self._held:
            self._hold(0)
        exchange = Exchange(self, self._parser.get_method(), self._path, self._headers, self._body)
        self._body = b""
        self._burst += 1
        limit = self._listener.limits.pipelined
        if tunnel or not self._parser.should_keep_alive() or self._burst >= limit:
            exchange.close = self._discarding = True
        self._pending.append(exchange)
        if len(self._pending) >= limit and not self._paused_reading:
            self._paused_reading = True
            self._transport.pause_reading()
        if not self._unread:
            self.deadline = _FOREVER
        self._listener.application(exchange)

    # --- replies ------------------------------------------------------------------------------------------------------

    def is_slow(self, now: float, seconds: float) -> bool:
        """Return True if the server has waited for this client longer than `seconds`: for a request, or to read a response."""
        limits = self._listener.limits
        allowed = limits.write_seconds if self._unread else limits.receipt_seconds
        waits = self._unread or (self._in_message and not self._pending)
        return waits and self.deadline - allowed + seconds < now

    @property
    def busy(self) -> bool:
        """Return True while a request is being received or waits for its response."""
        return self._in_message or bool(self._pending)

    def reply(self, exchange: Exchange, status: int, body: bytes, content_type: bytes, extra: bytes) -> None:
        """Queue the response of `exchange`, and send every response whose turn it is.

        Parameters
        ----------
        exchange
            The request.
        status, body, content_type, extra
            See `Exchange.send`.
        """
        if self._listener.draining:
            exchange.close = True
        first = head(status, content_type, len(body), self._listener.date, extra, exchange.close)
        exchange.reply = first if exchange.method == b"HEAD" else first + body
        pending = self._pending
        while pending and (data := pending[0].reply) is not None:
            self._transport.write(data)
            if pending.popleft().close:
                self._finish()
                return
        if not pending:
            self._drained()

    def _drained(self) -> None:
        if self._paused_reading:
            self._paused_reading = False
            self._transport.resume_reading()
        if self._owes_continue:
            self._owes_continue = False
            self._transport.write(_CONTINUE)
        self._set_idle_deadline()

    def _set_idle_deadline(self) -> None:
        if self._unread:
            return  # the deadline for reading what was sent applies
        if not self.busy:
            self._listener.idled(self)
        limits = self._listener.limits
        self.deadline = self._loop.time() + (
            limits.receipt_seconds if self._in_message else limits.idle_seconds
        )

    def _finish(self) -> None:
        """Close after the last response.

        Closing with bytes unread would reset the connection and could destroy the response.
        """
        self._discarding = True
        self._pending.clear()
        self._listener.idled(self)
        if not self._unread:
            self.deadline = self._loop.time() + _LINGER_SECONDS
        if not self._in_message or not self._transport.can_write_eof():
            self._transport.close()
            return
        self._transport.write_eof()

    def _refuse(self, status: int, code: str, what: str, extra: bytes = b"") -> None:
        if self._discarding:
            return
        self._discarding = True
        self._in_message = True  # the rest of it may still come, and is thrown away
        exchange = Exchange(self, b"", b"", {}, b"")
        exchange.close = True
        self._pending.append(exchange)
        self._hold(0)
        self._body = b""
        exchange.refuse(status, code, what, extra=extra)

    # --- deadlines ----------------------------------------------------------------------------------------------------

    def expire(self) -> None:
        """Close because the deadline has passed; a client in the middle of a request gets 408."""
        self.deadline = _FOREVER
        if self._in_message and not self._discarding and not self._pending:
            seconds = self._listener.limits.receipt_seconds
            self._refuse(408, "HF501", f"the request was not complete after {seconds:g} seconds")
        else:
            self.abort()

    def close_when_idle(self, *, fresh: bool) -> None:
        """Close now unless a request is under way (its reply closes), or may be on its way on a new connection."""
        if not self.busy and (self._used or fresh):
            self._transport.close()

    def abort(self) -> None:
        """Close at once; unsent bytes are lost."""
        self._transport.abort()
