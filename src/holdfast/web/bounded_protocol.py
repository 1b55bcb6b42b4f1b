"""The connections of the page: uvicorn's protocol with a deadline for a request, and room for a new connection when full."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

CONNECTIONS: Final = 64
"""The most connections; for a new one the connection that has been idle longest is closed."""
RECEIPT_SECONDS: Final = 10.0
"""From the opening of a connection, or the first byte of a later request, to the end of the request's headers."""


class BoundedProtocol(H11Protocol):
    """One client of the page. uvicorn alone waits for ever for a request that has begun."""

    _deadline: asyncio.TimerHandle | None = None
    _since: float = 0.0
    """Since when it is idle, on the clock of the loop."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begin the deadline of the first request, and make room if there are too many connections."""
        super().connection_made(transport)
        self._since = self.loop.time()
        self._wait()
        if len(self.connections) > CONNECTIONS:
            self._evict()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the deadline."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Receive a part of a request. A part that does not complete one moves no deadline."""
        super().data_received(data)
        if not self._is_idle():
            self._stop_waiting()
        elif self._deadline is None:
            self._wait()

    def on_response_complete(self) -> None:
        """Become idle, or go on with the next request."""
        self._since = self.loop.time()
        super().on_response_complete()

    def _is_idle(self) -> bool:
        """Return True while no complete request waits for its response."""
        cycle: Any = self.cycle  # None before the first request
        return cycle is None or bool(cycle.response_complete)

    def _wait(self) -> None:
        self._deadline = self.loop.call_later(RECEIPT_SECONDS, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _evict(self) -> None:
        idle: list[Any] = [
            each
            for each in self.connections
            if isinstance(each, BoundedProtocol) and each is not self and each._is_idle()
        ]
        if idle:
            min(idle, key=lambda each: each._since).transport.abort()
