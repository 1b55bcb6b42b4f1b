"""A ledger on PostgreSQL: connections, the lock of its writers, and time limits.

Writers take one lock of the whole ledger, as SQLite's writers do. Table versions and events are then committed in the order of
their numbers, on which a reader of newer ones relies, and no statement needs a form for concurrent writers.

A stopped PostgreSQL would keep a client waiting for ever, because its machine goes on acknowledging what is sent. No timeout of
the server or of TCP helps, so every wait of the client has a limit of its own.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Engine, event

LOCK_SECONDS: Final = 30
"""Timeout of a writer that waits for another writer, as with SQLite."""

STATEMENT_SECONDS: Final = 40
"""Timeout of one statement by the server's clock."""

RESPONSE_SECONDS = 45.0
"""How long the client waits for a response. Longer than the server's own limits, so that only a stopped or unreachable server
meets it. Read at every wait."""

CONNECT_SECONDS: Final = 5

_WRITERS: Final = 0x484F4C44464153  # key of the lock that writers hold until they have committed
_LOCK: Final = f"SELECT pg_advisory_xact_lock({_WRITERS})"
_CHANNEL: Final = "holdfast"
# In one statement with the lock, so that it costs no round trip; listeners get it with the commit.
_LOCK_AND_NOTIFY: Final = f"{_LOCK}, pg_notify('{_CHANNEL}', '')"
_TCP: Final = {
    "connect_timeout": CONNECT_SECONDS,
    "tcp_user_timeout": 1000 * STATEMENT_SECONDS,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "application_name": "holdfast",
    "options": (
        f"-c lock_timeout={LOCK_SECONDS}s -c statement_timeout={STATEMENT_SECONDS}s "
        # A writer that was stopped within its transaction must not keep the others out for ever.
        f"-c idle_in_transaction_session_timeout={LOCK_SECONDS}s -c synchronous_commit=on"
    ),
}

_NUL: Final = "\0"
_ESCAPE: Final = "\ue000"

T = TypeVar("T")


def escaped(text: str) -> str:
    r"""Return `text` without NUL, which PostgreSQL cannot store: a private character and a digit replace it.

    >>> unescaped(escaped("a\0b\ue000")) == "a\0b\ue000"
    True
    """
    if _NUL not in text and _ESCAPE not in text:
        return text
    return text.replace(_ESCAPE, _ESCAPE + "1").replace(_NUL, _ESCAPE + "0")


def unescaped(text: str) -> str:
    """Return the inverse of `escaped`."""
    if _ESCAPE not in text:
        return text
    return text.replace(_ESCAPE + "0", _NUL).replace(_ESCAPE + "1", _ESCAPE)


def prepare(engine: Engine) -> None:
    """Set the time limits of `engine`'s connections, and make its writers wait for each other."""
    event.listen(engine, "do_connect", _connect)
    event.listen(engine, "begin", _begin)


def _connect(_dialect: Any, _record: Any, arguments: Any, parameters: dict[str, Any]) -> Any:
    import psycopg
    from psycopg.types.string import StrDumper, TextLoader

    class Escaping(StrDumper):
        def dump(self, obj: str) -> Any:
            return super().dump(escaped(obj))

    class Unescaping(TextLoader):
        def load(self, data: Any) -> str | bytes:
            text = super().load(data)
            return unescaped(text) if isinstance(text, str) else text

    class TimedConnection(psycopg.Connection[Any]):
        """A connection whose waits end after `RESPONSE_SECONDS`."""

        def wait(self, gen: Generator[Any, Any, T], *more: Any, **others: Any) -> T:
            try:
                return super().wait(_bounded(gen, time.monotonic() + RESPONSE_SECONDS), *more, **others)
            except SilentError as error:
                self.pgconn.finish()  # a late response must not reach the next statement
                raise psycopg.OperationalError(
                    f"no response within {RESPONSE_SECONDS:g} seconds; the connection was closed"
                ) from error

    connection = TimedConnection.connect(*arguments, **{**_TCP, **parameters})
    connection.adapters.register_dumper(str, Escaping)
    for kind in ("text", "varchar"):
        connection.adapters.register_loader(kind, Unescaping)
    return connection


class SilentError(Exception):
    """The server did not respond in time."""


def _bounded(waiting: Generator[Any, Any, T], end: float) -> Generator[Any, Any, T]:
    """Run a generator of psycopg until the time `end`; it is resumed with 0 several times a second while nothing comes."""
    try:
        wanted = next(waiting)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() >= end:
                raise SilentError
            wanted = waiting.send(ready)
    except StopIteration as done:
        value: T = done.value
        return value


def _begin(connection: Connection) -> None:
    options = connection.get_execution_options()
    if options.get("holdfast_writes", False):
        connection.exec_driver_sql(_LOCK_AND_NOTIFY if options.get("holdfast_nudges", False) else _LOCK)


def subscribe(engine: Engine) -> Any:
    """Return a connection of the driver, outside the pool, that is notified of commits."""
    pooled = engine.raw_connection()
    connection: Any = pooled.driver_connection
    pooled.detach()
    try:
        connection.autocommit = True  # within a transaction nothing would be delivered
        connection.execute(f"LISTEN {_CHANNEL}")
    except BaseException:
        connection.close()
        raise
    return connection
