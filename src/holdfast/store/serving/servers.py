"""Rows of `servers`: the inference servers, their log directories and addresses."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from sqlalchemy import Connection, delete, select

from holdfast.records import check_name
from holdfast.store.db import rows
from holdfast.store.db.schema import probes, servers
from holdfast.store.serving.log_directory import OWNER


@dataclass(frozen=True, slots=True)
class Server:
    """A registered server. `address` is its HTTP base URL."""

    server: str
    model: str
    address: str
    log_directory: Path
    started_at_us: int


def announce(connection: Connection, server: Server) -> None:
    """Register `server`, or replace its entry from before a restart. Its read position in the log stays.

    Raises `InputError` HF109 when the name cannot name a server.
    """
    check_name(server.server, "server")
    rows.put(connection, servers, asdict(server) | {"log_directory": str(server.log_directory)})
    # What was observed before the restart is no evidence about the process that runs now.
    connection.execute(delete(probes).where(probes.c.server == server.server))


def registered(connection: Connection, model: str | None = None) -> tuple[Server, ...]:
    """Return every registered server (of `model`), by name."""
    query = select(servers).order_by(servers.c.server)
    if model is not None:
        query = query.where(servers.c.model == model)
    return tuple(
        Server(row.server, row.model, row.address, Path(row.log_directory), row.started_at_us)
        for row in connection.execute(query)
    )


def has_ended(server: Server) -> bool:
    """Return True if no process holds the server's log directory any more (`log_directory.claim`).

    False if that cannot be known: the directory is not on this machine, or was never claimed.
    """
    try:
        lock = os.open(server.log_directory / OWNER, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True


def current(found: Iterable[Server]) -> tuple[Server, ...]:
    """Return the running servers or, if all have ended, the one that started last.

    A server that was stopped for good disappears in this way. If none is left, that stays visible.
    """
    known = tuple(found)
    running = tuple(server for server in known if not has_ended(server))
    return running or tuple(sorted(known, key=lambda server: server.started_at_us)[-1:])
