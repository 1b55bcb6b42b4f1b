"""Rows of `servers` and `probes`: the inference servers, and the last observed state of each against the plan."""

from __future__ import annotations

import fcntl
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, delete, select

from holdfast.records import Verdict, check_name
from holdfast.store.db import rows
from holdfast.store.db.leases import Lease, assert_epoch
from holdfast.store.db.schema import probes, servers
from holdfast.store.serving.log_directory import OWNER, is_log_of


@dataclass(frozen=True, slots=True)
class Server:
    """A registered server.

    `address` is the URL at which callers reach it, `private_address` that for operators; None if it is the same. `boot_id`
    is the id of its process, None of an earlier release, as are `release` and `host`.
    """

    server: str
    model: str
    address: str
    log_directory: Path
    started_at_us: int
    boot_id: str | None = None
    release: str | None = None
    host: str | None = None
    private_address: str | None = None


def announce(connection: Connection, server: Server, *, tagged_from_segment: int | None = None) -> None:
    """Register `server`, or replace its entry from before a restart. Its read position in the log stays.

    Parameters
    ----------
    connection
        The caller's transaction.
    server
        The server.
    tagged_from_segment
        The first segment of its log whose prediction ids all have a tag, if it knows one. The first one that was ever given
        stays.

    Raises
    ------
    InputError
        HF109 when the name cannot name a server.
    """
    check_name(server.server, "server")
    known = select(servers.c.tagged_from_segment).where(servers.c.server == server.server)
    tagged = connection.execute(known).scalar_one_or_none()
    values = asdict(server) | {
        "log_directory": str(server.log_directory),
        "tagged_from_segment": tagged_from_segment if tagged is None else tagged,
    }
    rows.put(connection, servers, values)
    # What was observed before the restart is no evidence about the process that runs now.
    connection.execute(delete(probes).where(probes.c.server == server.server))


def registered(connection: Connection, model: str | None = None) -> tuple[Server, ...]:
    """Return every registered server (of `model`), by name."""
    query = select(servers).order_by(servers.c.server)
    if model is not None:
        query = query.where(servers.c.model == model)
    return tuple(of_row(row) for row in connection.execute(query))


def of_row(row: Row[Any]) -> Server:
    """Return the server of a row of `servers`, which may have further columns."""
    return Server(
        row.server,
        row.model,
        row.address,
        Path(row.log_directory),
        row.started_at_us,
        row.boot_id,
        row.release,
        row.host,
        row.private_address,
    )


def has_ended(server: Server) -> bool:
    """Return True if no process holds the server's log directory any more (`log_directory.claim`).

    False if that cannot be known: the directory is not on this machine, or was never claimed.
    """
    if not is_log_of(server.log_directory, server.server, server.boot_id):
        return False
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


@dataclass(frozen=True, slots=True)
class Probe:
    """The last observation of one server: its plan, the version that should answer, the version that did."""

    server: str
    model: str
    plan_id: int | None
    planned_version: str | None
    observed_version: str | None
    verdict: Verdict
    explanation: str
    probed_at_us: int
    serving_config: str | None = None
    """The serving config that the server reports."""
    runtime: str | None = None
    """The runtime that the server reports."""


def record_probe(connection: Connection, probe: Probe, lease: Lease) -> None:
    """Store `probe` as the last one of its server. Raises `ConflictError` HF304 when another loop has the lease."""
    assert_epoch(connection, lease.name, lease.epoch)
    rows.put(connection, probes, asdict(probe))


def last_probes(connection: Connection, model: str) -> tuple[Probe, ...]:
    """Return the last probe of every server of `model`, by server name."""
    query = select(probes).where(probes.c.model == model).order_by(probes.c.server)
    return tuple(rows.read(connection, query, Probe))
