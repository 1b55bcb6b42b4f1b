"""The connections of one server: how many there are, which one makes room for a new one, and which are past their deadline.

A full server stays reachable. The connection that has been idle longest is closed for a new one, first those that never sent a
whole request. When every connection has a request under way, a few more are taken in reserve: for the abort endpoint, health,
status and metrics from anywhere, and for everything from this machine.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from holdfast.rollout.model.serving_config import ConnectionLimits
from holdfast.serve.http.connection import Connection
from holdfast.serve.http.exchange import Application, Refusal

RESERVE: Final = 64
"""Connections beyond the limit."""
SLOW_SECONDS: Final = 1.0
"""A client that the server has waited for so long makes room when no connection is idle."""
_WORK: Final = (b"/infer", b"/feedback")


class Listener:
    """Counts the connections of one server, bounds them, and closes those past their deadline.

    Parameters
    ----------
    application
        Answers requests.
    limits
        What clients may cost.
    today
        Returns the value of the Date header.
    refusal
        Decides from the path and the announced length of the body, in bytes, whether to refuse a request before its body
        is received.
    """

    def __init__(
        self,
        application: Application,
        limits: ConnectionLimits,
        today: Callable[[], bytes],
        refusal: Callable[[bytes, int], Refusal | None] = lambda *_: None,
    ) -> None:
        self.application = application
        self.refusal = refusal
        self.limits = limits
        self.draining = False
        self.connections: set[Connection] = set()
        self.rejected_connections = 0
        self.evicted_connections = 0
        """Closed to make room for a new one."""
        self.held_bytes = 0
        self.shed_bodies = 0
        self._unused: OrderedDict[Connection, None] = OrderedDict()
        self._idle: OrderedDict[Connection, None] = OrderedDict()
        self._reserve: OrderedDict[Connection, bool] = OrderedDict()
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

    def opened(self, connection: Connection, is_local: bool) -> bool:
        """Count a connection, and make room for it. Return False if there is none, not even in reserve."""
        self.connections.add(connection)
        if len(self.connections) - len(self._reserve) > self.limits.connections and not self._evict():
            self._reserve[connection] = is_local
            connection.is_reserve = True
            if len(self._reserve) > RESERVE and not self._evict_reserve(connection):
                self.rejected_connections += 1
                return False
        self._unused[connection] = None
        return True

    def admits(self, connection: Connection, path: bytes) -> bool:
        """Return True if a connection in reserve may request `path`, or the server has room again."""
        if len(self.connections) - len(self._reserve) < self.limits.connections:
            self._reserve.pop(connection, None)
            connection.is_reserve = False
            return True
        if self._reserve.get(connection) or not path.split(b"?", 1)[0].endswith(_WORK):
            return True
        self.rejected_connections += 1
        return False

    def begun(self, connection: Connection) -> None:
        """Note that a request began: the connection is not idle."""
        self._unused.pop(connection, None)
        self._idle.pop(connection, None)

    def idled(self, connection: Connection) -> None:
        """Note that a connection has nothing under way from now on."""
        if connection in self.connections:
            self._idle[connection] = None
            self._idle.move_to_end(connection)

    def closed(self, connection: Connection) -> None:
        """Remove a connection."""
        self.connections.discard(connection)
        self._reserve.pop(connection, None)
        self.begun(connection)

    def close_idle(self, *, fresh: bool) -> None:
        """Close the connections that have no request under way, new ones that have sent nothing yet only if `fresh`."""
        for connection in tuple(self.connections):
            connection.close_when_idle(fresh=fresh)

    def close(self) -> None:
        """Abort every connection and stop the timer."""
        self._timer.cancel()
        for connection in tuple(self.connections):
            connection.abort()

    def _evict(self) -> bool:
        """Close the connection that has been idle longest, else the slowest; return False if all have a request under way."""
        victim = next(
            (each for idle in (self._unused, self._idle) for each in idle if not each.is_reserve), None
        )
        if victim is None:
            now = self._loop.time()
            slow = (
                each for each in self.connections if not each.is_reserve and each.is_slow(now, SLOW_SECONDS)
            )
            victim = min(slow, key=lambda each: each.deadline, default=None)
        return self._abort(victim)

    def _evict_reserve(self, newest: Connection) -> bool:
        now = self._loop.time()
        return self._abort(
            next(
                (
                    each
                    for each in self._reserve
                    if each is not newest
                    and (each in self._unused or each in self._idle or each.is_slow(now, SLOW_SECONDS))
                ),
                None,
            )
        )

    def _abort(self, victim: Connection | None) -> bool:
        if victim is None:
            return False
        self.evicted_connections += 1
        self.closed(victim)  # now, so that the next new connection finds another one
        victim.abort()
        return True

    def _sweep(self) -> None:
        self.date = self._today()
        now = self._loop.time()
        for connection in tuple(self.connections):
            if connection.deadline < now:
                connection.expire()
        self._timer = self._loop.call_later(self._sweep_seconds, self._sweep)
