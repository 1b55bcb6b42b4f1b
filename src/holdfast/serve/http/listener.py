"""All HTTP connections of one server: their number, their memory and their deadlines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from holdfast.rollout.model.serving_config import ConnectionLimits
from holdfast.serve.http.connection import Connection
from holdfast.serve.http.exchange import Application, Transport


class Listener:
    """Counts the connections of one server, bounds them, and closes those past their deadline."""

    def __init__(
        self, application: Application, limits: ConnectionLimits, today: Callable[[], bytes]
    ) -> None:
        self.application = application
        self.limits = limits
        self.draining = False
        self.connections: set[Transport] = set()
        self.rejected_connections = 0
        self.held_bytes = 0
        self._today = today
        self.date = today()
        self._loop = asyncio.get_running_loop()
        self._sweep_seconds = min(0.5, limits.receipt_seconds / 4, limits.idle_seconds / 4)
        self._timer = self._loop.call_later(self._sweep_seconds, self._sweep)

    def configure(self, limits: ConnectionLimits) -> None:
        """Apply `limits` from now on, also to open connections. Any thread may call it."""
        self.limits = limits

    def connection(self) -> Connection:
        """Return a protocol for a newly accepted connection."""
        return Connection(self, self._loop)

    def opened(self, connection: Transport) -> bool:
        """Count a connection. Return False if there are more than the limits allow."""
        self.connections.add(connection)
        if len(self.connections) > self.limits.connections:
            self.rejected_connections += 1
            return False
        return True

    def closed(self, connection: Transport) -> None:
        """Remove a connection."""
        self.connections.discard(connection)

    def close_idle(self, *, fresh: bool) -> None:
        """Close the connections that have no request under way, new ones that have sent nothing yet only if `fresh`."""
        for connection in tuple(self.connections):
            connection.close_when_idle(fresh=fresh)

    def close(self) -> None:
        """Abort every connection and stop the timer."""
        self._timer.cancel()
        for connection in tuple(self.connections):
            connection.abort()

    def _sweep(self) -> None:
        self.date = self._today()
        now = self._loop.time()
        for connection in tuple(self.connections):
            if connection.deadline < now:
                connection.expire()
        self._timer = self._loop.call_later(self._sweep_seconds, self._sweep)
