"""Rows of `members` and `server_conflicts`: the heartbeats of servers, and processes that state the name of another one.

All times here are by the ledger's clock, so that a difference between the clocks of two hosts moves none of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, delete, select, update

from holdfast.rollout.model.membership import LIVING, MemberState
from holdfast.rollout.model.server_name import Heartbeat, Holder, Stated
from holdfast.store.db import rows
from holdfast.store.db.schema import members, server_conflicts, servers
from holdfast.store.db.statements import ledger_time_us
from holdfast.store.serving.servers import Server, announce, has_ended, of_row

UNKNOWN: Final = "unknown"
"""What stands for the state of a server of an earlier release, which writes no heartbeats."""
_KERNEL_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_JOINED: Final = servers.outerjoin(members, members.c.server == servers.c.server)


@dataclass(frozen=True, slots=True)
class Member:
    """A registered server as a member of its model.

    `state`, `stated` and `heartbeat` are None of a server of an earlier release, which writes no heartbeats. `heard_us` and
    `in_state_us` are the age of its last heartbeat and of its state, microseconds.
    """

    server: Server
    kernel_id: str = ""
    heartbeat: Heartbeat | None = None
    stated: Stated | None = None
    state: MemberState | None = None
    heard_us: int | None = None
    in_state_us: int = 0
    is_forgotten: bool = False

    @property
    def is_living(self) -> bool:
        """Return True if the server is polled: it may run."""
        return not self.is_forgotten and (self.state is None or self.state in LIVING)

    @property
    def holder(self) -> Holder:
        """Return the process that has the name."""
        if self.heartbeat is None or self.stated is None:
            return Holder(None)
        return Holder(self.server.boot_id, self.heartbeat, self.stated)


@dataclass(frozen=True, slots=True)
class Conflict:
    """A second process under the name `server`. Its log is not collected. `heard_us` is the age of its last heartbeat."""

    server: str
    boot_id: str
    address: str
    host: str
    log_directory: str
    explanation: str
    heard_us: int = 0


def kernel_id() -> str:
    """Return the id of this start of the kernel; empty if the system has none."""
    try:
        return _KERNEL_ID.read_text(encoding="ascii").strip()[:36]
    except OSError:
        return ""


def of_model(connection: Connection, model: str | None = None) -> tuple[Member, ...]:
    """Return every registered server (of `model`) as a member, by name."""
    query = select(servers, *_columns()).select_from(_JOINED).order_by(servers.c.server)
    return _read(connection, query if model is None else query.where(servers.c.model == model))


def find(connection: Connection, server: str) -> Member | None:
    """Return the member of that name; None if no server ever registered under it."""
    query = select(servers, *_columns()).select_from(_JOINED).where(servers.c.server == server)
    return next(iter(_read(connection, query)), None)


def polled(connection: Connection, model: str) -> tuple[Server, ...]:
    """Return the servers of `model` that may run, by name, or, if there is none, the one that started last.

    Only these are polled. If none is left, that stays visible.
    """
    known = [each for each in of_model(connection, model) if not each.is_forgotten]
    living = tuple(each.server for each in known if each.is_living)
    return living or tuple(sorted((each.server for each in known), key=_started)[-1:])


def running(connection: Connection, model: str) -> tuple[Server, ...]:
    """Return those of `polled` whose process is not known to have ended or, if all have, the one that started last."""
    found = polled(connection, model)
    return tuple(each for each in found if not has_ended(each)) or tuple(sorted(found, key=_started)[-1:])


def count(connection: Connection, model: str) -> dict[str, int]:
    """Return how many members of `model` are in each state; those of earlier releases, which have none, are `UNKNOWN`."""
    found = dict.fromkeys((*map(str, MemberState), UNKNOWN), 0)
    for each in of_model(connection, model):
        if not each.is_forgotten:
            found[UNKNOWN if each.state is None else each.state] += 1
    return found


def _started(server: Server) -> int:
    return server.started_at_us


def take(
    connection: Connection,
    server: Server,
    heartbeat: Heartbeat,
    *,
    kernel: str,
    stated: Stated,
    tagged_from_segment: int | None,
) -> bool:
    """Register `server` as the holder of its name, with its first heartbeat. Return True if the ledger knew no such member.

    The state of a known member stays: the control loop moves it.
    """
    announce(connection, server, tagged_from_segment=tagged_from_segment)
    connection.execute(
        delete(server_conflicts).where(
            server_conflicts.c.server == server.server, server_conflicts.c.boot_id == server.boot_id
        )
    )
    now_us = ledger_time_us(connection)
    values = {
        "server": server.server,
        "started_at_us": server.started_at_us,
        "kernel_id": kernel,
        "beats": heartbeat.number,
        "beat": heartbeat.text,
        "heard_at_us": now_us,
        "stated": stated,
        "forgotten_at_us": None,
    }
    known = select(members.c.server).where(members.c.server == server.server)
    is_new = not rows.are_there(connection, known)
    if is_new:
        values |= {"state": MemberState.PRESENT, "since_us": now_us}
        connection.execute(members.insert().values(values))
    else:
        connection.execute(update(members).where(members.c.server == server.server).values(values))
    return is_new


def beat(connection: Connection, server: str, heartbeat: Heartbeat, stated: Stated) -> None:
    """Store a heartbeat of the holder of the name `server`."""
    values = {
        "beats": heartbeat.number,
        "beat": heartbeat.text,
        "heard_at_us": ledger_time_us(connection),
        "stated": stated,
        "forgotten_at_us": None,
    }
    connection.execute(update(members).where(members.c.server == server).values(values))


def move(connection: Connection, server: str, state: MemberState) -> None:
    """Store that a member is in `state` from now on."""
    values = {"state": state, "since_us": ledger_time_us(connection)}
    connection.execute(update(members).where(members.c.server == server).values(values))


def forget(connection: Connection, server: Server) -> None:
    """Store that a member is not to be listed or polled, until it writes a heartbeat again. Its predictions stay."""
    now_us = ledger_time_us(connection)
    rows.put(
        connection,
        members,
        {
            "server": server.server,
            "started_at_us": server.started_at_us,
            "kernel_id": "",
            "beats": 0,
            "beat": "",
            "heard_at_us": now_us,
            "stated": Stated.ENDED,
            "state": MemberState.GONE,
            "since_us": now_us,
            "forgotten_at_us": now_us,
        },
    )


def report_conflict(connection: Connection, conflict: Conflict) -> bool:
    """Store the heartbeat of a second process. Return True if it is the first that the ledger has of it."""
    known = select(server_conflicts.c.boot_id).where(
        server_conflicts.c.server == conflict.server, server_conflicts.c.boot_id == conflict.boot_id
    )
    is_new = not rows.are_there(connection, known)
    values = {
        "server": conflict.server,
        "boot_id": conflict.boot_id,
        "address": conflict.address,
        "host": conflict.host,
        "log_directory": conflict.log_directory,
        "explanation": conflict.explanation,
        "heard_at_us": ledger_time_us(connection),
    }
    rows.put(connection, server_conflicts, values)
    return is_new


def conflicts(connection: Connection, model: str) -> tuple[Conflict, ...]:
    """Return the second processes under names of servers of `model`, by name."""
    query = (
        select(server_conflicts)
        .join(servers, servers.c.server == server_conflicts.c.server)
        .where(servers.c.model == model)
        .order_by(server_conflicts.c.server, server_conflicts.c.boot_id)
    )
    found = connection.execute(query).all()
    now_us = ledger_time_us(connection) if found else 0
    return tuple(
        Conflict(
            row.server,
            row.boot_id,
            row.address,
            row.host,
            row.log_directory,
            row.explanation,
            max(0, now_us - row.heard_at_us),
        )
        for row in found
    )


def end_conflict(connection: Connection, server: str, boot_id: str) -> bool:
    """Delete the conflict of a second process; return False if there was none."""
    of_process = (server_conflicts.c.server == server, server_conflicts.c.boot_id == boot_id)
    return connection.execute(delete(server_conflicts).where(*of_process)).rowcount > 0


def _columns() -> tuple[ColumnElement[Any], ...]:
    here = members.c
    return (
        here.started_at_us.label("heartbeats_of_us"),
        here.kernel_id,
        here.beats,
        here.beat,
        here.heard_at_us,
        here.stated,
        here.state,
        here.since_us,
        here.forgotten_at_us,
    )


def _read(connection: Connection, query: Select[Any]) -> tuple[Member, ...]:
    found = connection.execute(query).all()
    now_us = ledger_time_us(connection) if found else 0
    return tuple(
        Member(of_row(row))
        if row.state is None or row.heartbeats_of_us != row.started_at_us  # an earlier release started since
        else Member(
            of_row(row),
            row.kernel_id,
            Heartbeat(row.beats, row.beat),
            Stated(row.stated),
            MemberState(row.state),
            max(0, now_us - row.heard_at_us),
            max(0, now_us - row.since_us),
            row.forgotten_at_us is not None,
        )
        for row in found
    )
